"""The journal of a running acquisition, and the heads that make its blocks and frames self-describing.

Specified in ``docs/spec/layout.md``. Every block and every object of frames holds all the metadata of the movie, so
recovery does not depend on any single object.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from .._zarr import HEAD_LIMIT, ArrayMetadata, metadata_documents, parse_metadata
from ..errors import DamagedChunkError, FormatError
from .claim import CLAIM
from .count_range import ValueRange
from .documents import JOURNAL, read_object
from .layout import ENDLESS
from .location import Location
from .metadata_checks import check_metadata
from .record import MovieRecord
from .target import Target

#: Folder of frame objects, and of the heads of blocks that cannot hold their own (Zarr 2).
KEPT = "acquired/"

#: Per-frame arrays (numbers, times and others) stored beside the finished movie.
FRAME_DATA = "frames.npz"

#: Frames of a movie of unknown length on icechunk, which counts chunks in 32 bits.
_LONGEST = 1 << 31

#: Version of journal and heads. Readers refuse any other.
_VERSION = 1

_MAGIC = b"DJPHOTON"

#: Bytes before a head's document: magic, document length, crc32.
_FIXED = len(_MAGIC) + 8

#: Most bytes to which the document of a head may decompress.
_DOCUMENT_LIMIT = 1 << 25


@dataclass(frozen=True)
class Journal:
    """Everything needed to read an unfinished movie's blocks and to finish the movie.

    Attributes
    ----------
    token
        Distinguishes the acquisition's objects from those of others.
    frame_shape, dtype
        Shape and dtype of a frame.
    options
        ``step``, ``profile``, ``zarr_format`` and ``compressors``, as requested.
    metadata, record, values
        How blocks are written; None until the noise is known. The array's length is ``ENDLESS``.
    spill
        Folder on the writer's machine for frames that the store does not accept.
    row
        What the movie's row is made from; None without a row.
    attributes
        The user's attributes of the movie.
    """

    token: str
    frame_shape: tuple[int, ...]
    dtype: str
    options: Json
    metadata: ArrayMetadata | None = None
    record: MovieRecord | None = None
    values: ValueRange | None = None
    spill: str | None = None
    row: Json | None = None
    attributes: Json = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Return the journal as JSON values."""
        document: Json = {
            "format_version": _VERSION,
            "token": self.token,
            "frame_shape": list(self.frame_shape),
            "dtype": self.dtype,
            "options": self.options,
            "spill": self.spill,
            "row": self.row,
            "attributes": json.loads(json.dumps(self.attributes, default=str)),
        }
        if self.metadata is not None and self.record is not None and self.values is not None:
            nothing = replace(self.metadata, shape=(0, *self.metadata.shape[1:]))
            document |= {
                "zarr": metadata_documents(nothing),
                "record": self.record.to_dict(),
                "values": [self.values.low, self.values.high, self.values.whole],
            }
        return document

    @classmethod
    def from_dict(cls, document: Any, where: str) -> Journal:
        """Inverse of :meth:`to_dict`; raises FormatError for a malformed journal or another version."""
        try:
            version = document["format_version"]
            if version != _VERSION:
                raise FormatError(
                    f"{where} has version {version!r}, this release reads {_VERSION}: upgrade dj-photon-codecs"
                )
            frame_shape = tuple(int(n) for n in document["frame_shape"])
            journal = cls(
                str(document["token"]),
                frame_shape,
                np.dtype(document["dtype"]).name,
                dict(document["options"]),
                spill=document.get("spill"),
                row=document.get("row"),
                attributes=dict(document.get("attributes") or {}),
            )
            if len(frame_shape) < 2 or min(frame_shape) < 1 or np.dtype(journal.dtype).kind not in "uif":
                raise ValueError(f"frames of shape {frame_shape} and dtype {journal.dtype} are none")
            if "zarr" not in document:
                return journal
            metadata, low_high = parse_metadata(document["zarr"]), document["values"]
            record = MovieRecord.from_dict(document["record"], where)
            values = ValueRange(float(low_high[0]), float(low_high[1]), bool(low_high[2]))
        except FormatError:
            raise
        except (ValueError, RecursionError, KeyError, TypeError, IndexError, OverflowError) as error:
            raise FormatError(f"{where} is damaged ({type(error).__name__}: {error})") from error
        check_metadata(metadata, record, where)
        return replace(
            journal, metadata=replace(metadata, shape=(ENDLESS, *metadata.shape[1:])), record=record, values=values
        )


async def write_journal(target: Target, journal: Journal) -> None:
    """Write the journal of a movie at or near the start of its acquisition.

    Icechunk accepts no chunk before the metadata, so it gets provisional metadata instead. A store that cannot delete
    gets nothing. In both, an unfinished movie is unreadable anyway: the commit is missing, or the zip file incomplete.
    """
    metadata = journal.metadata
    if target.location.is_icechunk and metadata is not None:
        provisional = replace(metadata, shape=(min(metadata.shape[0], _LONGEST), *metadata.shape[1:]))
        for key, content in metadata_documents(provisional).items():
            await target.put_json(key, content)
    if target.keeps_journal:
        await target.put_json(JOURNAL, journal.to_dict())


async def read_journal(location: Location) -> Journal | None:
    """Read the journal of an unfinished movie; None if there is none.

    Raises FormatError for a damaged journal or another version, and StorageError if the store cannot be read.
    """
    if location.is_icechunk:  # accepts only Zarr's own keys
        return None
    where = f"the journal {JOURNAL!r} of {location.label}"
    content = await read_object(location, JOURNAL)
    if content is None:
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where} is damaged ({type(error).__name__}: {error}): recover_movie({location.label!r}) goes by what the "
            "blocks say of themselves"
        ) from error
    return Journal.from_dict(document, where)


@dataclass(frozen=True)
class Head:
    """The self-description at the start of a block or an object of frames.

    Attributes
    ----------
    first_frame, n_frames
        The frames it holds.
    info
        Per-frame data: lists of ``n_frames`` values by name.
    journal
        The movie's journal as JSON values.
    seconds
        Time from the first frame of the recording to the last of these, by the writer's clock [s]; None if unknown.
    size
        Size of the head [bytes]; the content follows it.
    checksum
        The crc32 of the counts that follow, in an object of frames; None in a block.
    """

    first_frame: int
    n_frames: int
    info: Json
    journal: Json
    size: int = 0
    checksum: int | None = None
    seconds: float | None = None

    def to_bytes(self, counts: AnyArray | None = None) -> bytes:
        """Encode the head; with ``counts``, that of an object of frames."""
        document: Json = {"first_frame": self.first_frame, "n_frames": self.n_frames, "info": self.info}
        if self.seconds is not None:
            document["seconds"] = self.seconds
        if counts is not None:
            document["crc32"] = zlib.crc32(np.ascontiguousarray(counts).data)
        packed = zlib.compress(json.dumps(document | {"journal": self.journal}).encode(), 1)
        numbers = len(packed).to_bytes(4, "little"), zlib.crc32(packed).to_bytes(4, "little")
        return b"".join([_MAGIC, *numbers, packed])

    @classmethod
    def of(cls, content: bytes, where: str) -> Head:
        """Parse the head at the start of an object; raises DamagedChunkError if it is missing or altered."""
        length = int.from_bytes(content[len(_MAGIC) : len(_MAGIC) + 4], "little")
        packed = content[_FIXED : _FIXED + length]
        whole = content[: len(_MAGIC)] == _MAGIC and len(packed) == length <= HEAD_LIMIT
        if not whole or zlib.crc32(packed) != int.from_bytes(content[_FIXED - 4 : _FIXED], "little"):
            raise DamagedChunkError(f"{where} does not begin with a whole head")
        try:
            inflate = zlib.decompressobj()
            document = json.loads(inflate.decompress(packed, _DOCUMENT_LIMIT))
            first, n_frames = int(document["first_frame"]), int(document["n_frames"])
            info = {str(name): list(values) for name, values in document["info"].items()}
            if first < 0 or n_frames < 1 or any(len(values) != n_frames for values in info.values()):
                raise ValueError(f"frames {first} to {first + n_frames - 1} with {list(info)} are none")
            seconds = None if document.get("seconds") is None else float(document["seconds"])
            journal, checksum = dict(document["journal"]), document.get("crc32")
            return cls(first, n_frames, info, journal, _FIXED + length, checksum, seconds)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
            raise DamagedChunkError(f"{where} has a damaged head ({type(error).__name__}: {error})") from error

    def counts(self, content: bytes, where: str) -> AnyArray:
        """Return the counts of an object of frames; raises DamagedChunkError if they are altered or truncated."""
        shape, dtype = (self.n_frames, *map(int, self.journal["frame_shape"])), np.dtype(self.journal["dtype"])
        payload = content[self.size :]
        if self.checksum is None or zlib.crc32(payload) != self.checksum:
            raise DamagedChunkError(f"{where} is damaged: its frames are not those that were written")
        if len(payload) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
            raise DamagedChunkError(f"{where} is damaged: {len(payload)} bytes are no frames of shape {shape} {dtype}")
        return np.frombuffer(payload, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def is_of_acquisition(key: str) -> bool:
    """Whether a key exists only until the movie is finished and its row inserted."""
    return key in (JOURNAL, CLAIM) or key.startswith(KEPT)


def frames_key(first_frame: int) -> str:
    """Return the key of an object of frames."""
    return f"{KEPT}{first_frame:012d}.frames"


def head_key(first_frame: int) -> str:
    """Return the key of the separate head of a block (Zarr 2)."""
    return f"{KEPT}{first_frame:012d}.head"


def block_index(key: str) -> int | None:
    """Return the time index of an array object's key; None for any other key."""
    if re.fullmatch(r"c(/[0-9]+){3,}|[0-9]+([./][0-9]+){2,}", key) is None:
        return None
    return int(key.removeprefix("c/").replace("/", ".").partition(".")[0])


async def read_head(location: Location, key: str) -> Head:
    """Read only the head of an object.

    Raises DamagedChunkError if the object or an intact head is missing, and StorageError if the store cannot be read.
    """
    where = f"object {key!r} of {location.label}"
    size = 1 << 13
    while True:
        content = await read_object(location, key, stop=size)
        if content is None:
            raise DamagedChunkError(f"{where} is missing")
        length = _FIXED + int.from_bytes(content[len(_MAGIC) : _FIXED - 4], "little")
        if content[: len(_MAGIC)] != _MAGIC or len(content) < size or length <= size or length > HEAD_LIMIT:
            return Head.of(content, where)
        size = length
