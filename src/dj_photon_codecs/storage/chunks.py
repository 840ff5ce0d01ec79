"""Read the chunks of a stored array. Each is checked, and errors name the chunk.

zarr returns fill values for a missing chunk, and an anonymous ValueError for an altered one.
Here a missing chunk raises :class:`~dj_photon_codecs.errors.MissingChunkError` and a damaged one
:class:`~dj_photon_codecs.errors.DamagedChunkError`. Both give the object's key and the affected frames.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._system import is_machine_fault, n_cores
from .._threads import Group, do_all, rooms, wait
from .._typing import AnyArray, Box
from .._zarr import (
    EMPTY,
    ArrayMetadata,
    ArraySpec,
    ObjectFormat,
    RangeByteRequest,
    Room,
    SuffixByteRequest,
    new_room,
    submit,
)
from ..anscombe.codec_v3 import AnscombeTransformV3
from ..errors import DamagedChunkError, FormatError, MissingChunkError, PhotonCodecError, StorageError
from .checksums import CHECKSUM_BYTES, Checksums, checksum_of, unpack_checksums
from .decoded import Chunk, chunk_of
from .layout import ChunkGrid, Coords
from .location import ProcessStore
from .shared_work import SharedWork
from .stores import check_store

T = TypeVar("T")

#: Up to this object limit [bytes], whole objects are requested as a range, so that an oversized one never fills memory.
_LARGEST_REQUEST = 1 << 28

#: Largest fraction of a chunk that is decoded without the rest.
_LARGEST_BOX = 0.75


def format_and_grid(metadata: ArrayMetadata, label: str) -> tuple[ObjectFormat, ChunkGrid]:
    """Return the object format and the grid of an array; raises FormatError if its codecs do not fit together."""
    try:
        found = ObjectFormat.of(metadata)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise FormatError(
            f"the codecs in the metadata of {label} do not fit together ({type(error).__name__}: {error}): it was "
            "altered or forged"
        ) from error
    return found, ChunkGrid(metadata.shape, found.chunk, found.shape)


class ChunkReader:
    """Fetches and decodes inner chunks.

    ``lost`` are runs of frames (first, last exclusive) that are lost although their chunks are intact. Raises
    FormatError if the codecs in the metadata do not fit together.
    """

    def __init__(self, metadata: ArrayMetadata, store: ProcessStore, lost: tuple[tuple[int, int], ...] = ()) -> None:
        self.metadata = metadata
        self.store = store
        self.lost = lost
        self._checksums: Checksums | None = None
        self._index_requests = SharedWork[AnyArray]()
        #: Objects being fetched whole.
        self._held: dict[Coords, Future[AnyArray]] = {}
        self._store_is_there = False
        self._indices: dict[Coords, AnyArray] = {}
        self.format, self.grid = format_and_grid(metadata, store.location.label)
        first = getattr(self.format.coder, "steps", [None])[0]
        self._dtype = self.spec.dtype.to_native_dtype()
        # if the transform is the first codec, chunks are kept as codes
        transformed = first is not None and type(first.codec) is AnscombeTransformV3
        self._first = int(transformed)
        self._parameters = first.codec.parameters(self._dtype) if transformed else None

    @property
    def spec(self) -> ArraySpec:
        """The chunk spec that is passed to codecs."""
        return self.format.coder.spec

    def expect(self, checksums: str | None) -> None:
        """Refuse chunks from now on that do not end in these checksums, packed as in the record.

        Raises FormatError if they are for a different number of chunks.
        """
        if checksums is not None:
            self._checksums = unpack_checksums(checksums, self.grid.chunks, self.store.location.label)

    def key(self, stored: Coords) -> str:
        """Return the store key of an object."""
        return self.metadata.encode_chunk_key(stored)

    def lost_in(self, coords: Coords) -> AnyArray:
        """Return a mask of the chunk's frames that are lost although the chunk is intact."""
        start, frames = self.grid.frames(coords)[0], np.zeros(self.grid.chunk[0], bool)
        for first, last in self.lost:
            frames[max(0, first - start) : max(0, last - start)] = True
        return frames

    def _describe(self, coords: Coords) -> str:
        """Name a chunk for error messages: coordinates, frames, object and store."""
        start, stop = self.grid.frames(coords)
        stored, _ = self.grid.object_of(coords)
        place = f"object {self.key(stored)!r} of {self.store.location.label}"
        frames = f"frames {start} to {stop - 1}" if stop - start > 1 else f"frame {start}"
        return f"chunk {coords} ({frames}) in {place}"

    def to_decode(self, box: Box | None) -> Box | None:
        """Return a box if decoding it alone saves enough to risk reading the chunk again, otherwise None.

        The second read costs a request in a remote store, and is certain if the first frame of a chunk is read because
        all frames are read in turn.
        """
        frames, *rows, _ = self.spec.shape
        if box is None or box.frames == 1 < frames or not self.store.location.is_local:
            return None
        alone = box.frames * (box.last_row - box.first_row) <= _LARGEST_BOX * frames * math.prod(rows)
        return box if alone and self.format.coder.decodes_boxes(self._first) else None

    def read(self, coords: Coords, room: Room = new_room, threads: int = 1, box: Box | None = None) -> Chunk:
        """Fetch and decode one inner chunk; it has the full chunk shape even at the edges of the array.

        ``room`` allocates the arrays to decode into, and ``threads`` is the most threads that decoding may use. Only
        the ``box``, from :meth:`to_decode`, is decoded, or everything if it is None.

        Raises
        ------
        MissingChunkError
            If the chunk or its object is not in the store.
        DamagedChunkError
            If it is truncated or altered.
        StorageError
            If the store cannot be reached.
        """
        return self.decode(self._fetch(coords), coords, room, threads, box)

    def _fetch(self, coords: Coords) -> AnyArray:
        """Fetch the encoded bytes of one inner chunk."""
        stored, place = self.grid.object_of(coords)
        if self.format.index is None:
            return self._get(stored, None, coords)
        content = self._held_object(stored)
        index = self._indices.get(stored)
        if index is None:
            index = self._index_requests.do(stored, partial(self._read_index, stored, coords, content))
            self._indices[stored] = index
        start, stop = self._span(index, place, coords)
        if content is not None:
            payload = content[start:stop].copy()  # decoding may return a view, which would keep the object in memory
        else:
            payload = self._get(stored, RangeByteRequest(start, stop), coords)
        if len(payload) != stop - start:
            raise DamagedChunkError(f"{self._describe(coords)} is truncated: {len(payload)} of {stop - start} bytes")
        return payload

    def hold(self, stored: Coords, *, in_place_of: Coords, group: Group) -> None:
        """Start fetching a whole object in ``group``, because several of its chunks are wanted.

        It is kept until :meth:`let_go`; held objects before ``in_place_of`` are dropped. A failure here is reported by
        the read of a chunk, which requests the chunk again.
        """
        held = {name: content for name, content in self._held.items() if name >= in_place_of}
        if stored not in held:
            held[stored] = group.start(partial(self.payload, stored))
        self._held = held

    def let_go(self) -> None:
        """Drop all held objects once their reader has finished."""
        self._held = {}

    def _held_object(self, stored: Coords) -> AnyArray | None:
        """Return the content of a held object; None if it is not held or could not be fetched."""
        with suppress(KeyError, PhotonCodecError, CancelledError):
            return self._held[stored].result()
        return None

    def read_object(
        self, stored: Coords, wanted: Collection[Coords] | None = None
    ) -> dict[Coords, AnyArray | Exception]:
        """Read the counts of an object's inner chunks (all if None) in one request; a failed chunk gives its error."""

        def decoded(payload: AnyArray, coords: Coords) -> AnyArray:
            return self.decode(payload, coords).counts()

        return self._of_object(stored, wanted, decoded)[1]

    def object_checksums(self, stored: Coords) -> tuple[int, dict[Coords, int | Exception]]:
        """Return the size of an object [bytes] and the checksum of each of its chunks, or that chunk's error.

        Every chunk is decoded, and thereby checked.
        """

        def checksum(payload: AnyArray, coords: Coords) -> int:
            self.decode(payload, coords)
            return _checksum(payload)

        return self._of_object(stored, None, checksum)

    def use_object(self, stored: Coords, use: dict[Coords, Callable[[Chunk | Exception], None]]) -> None:
        """Fetch an object in one request, decode chunks of it on all cores, and pass each one to its function.

        The function gets the error if the chunk failed. It must not keep the chunk: threads reuse its arrays.
        """

        def decoded(payload: AnyArray, coords: Coords) -> None:
            use[coords](self.decode(payload, coords, rooms.take))

        for coords, error in self._of_object(stored, use, decoded)[1].items():
            if error is not None:
                use[coords](error)

    def _of_object(
        self, stored: Coords, wanted: Collection[Coords] | None, use: Callable[[AnyArray, Coords], T]
    ) -> tuple[int, dict[Coords, T | Exception]]:
        """Return the size of an object [bytes], and the result of ``use`` or the error for each of its chunks."""
        wanted = list(self.grid.chunks_in(stored)) if wanted is None else list(wanted)
        try:
            content = self._get(stored, None, wanted[0])
            if self.format.index is not None:
                self._indices[stored] = self._decode_index(self._index_bytes(content), wanted[0])
        except (MissingChunkError, DamagedChunkError) as error:
            return 0, dict.fromkeys(wanted, error)
        found: dict[Coords, T | Exception] = {}

        def one(coords: Coords) -> None:
            try:
                found[coords] = use(self._slice(content, stored, coords), coords)
            except (MissingChunkError, DamagedChunkError) as error:
                found[coords] = error

        do_all(deque(partial(one, coords) for coords in wanted), n_cores())
        return len(content), {coords: found[coords] for coords in wanted}

    def _slice(self, content: AnyArray, stored: Coords, coords: Coords) -> AnyArray:
        """Cut the bytes of one chunk out of its object."""
        if self.format.index is None:
            return content
        start, stop = self._span(self._indices[stored], self.grid.object_of(coords)[1], coords)
        if stop > len(content):
            raise DamagedChunkError(f"{self._describe(coords)} is truncated: its object ends at byte {len(content)}")
        return content[start:stop]

    def _span(self, index: AnyArray, place: Coords, coords: Coords) -> tuple[int, int]:
        """Return the first and last byte (exclusive) of a chunk in its shard."""
        offset, length = (int(n) for n in index[place])
        if EMPTY in (offset, length):
            raise MissingChunkError(
                f"{self._describe(coords)} is missing: the index of its shard says it was not written"
            )
        if length > self.format.limit or offset + length > self.format.object_limit:
            raise DamagedChunkError(
                f"{self._describe(coords)} cannot be found: the index of its shard says it has {length} bytes from "
                f"{offset} on, a chunk of this array has at most {self.format.limit}, a shard "
                f"{self.format.object_limit}"
            )
        return offset, offset + length

    def _index_bytes(self, content: AnyArray) -> AnyArray:
        """Cut the encoded index out of a whole shard."""
        index = self.format.index
        assert index is not None
        return content[: index.n_bytes] if index.at_start else content[-index.n_bytes :]

    def _read_index(self, stored: Coords, coords: Coords, content: AnyArray | None) -> AnyArray:
        """Read the index of a shard, from the whole object if it is already here."""
        index = self.format.index
        assert index is not None
        if content is not None:
            return self._decode_index(self._index_bytes(content), coords)
        request: Any = RangeByteRequest(0, index.n_bytes) if index.at_start else SuffixByteRequest(index.n_bytes)
        return self._decode_index(self._get(stored, request, coords), coords)

    def _decode_index(self, payload: AnyArray, coords: Coords) -> AnyArray:
        index = self.format.index
        assert index is not None
        if len(payload) != index.n_bytes:
            raise DamagedChunkError(f"{self._describe(coords)} cannot be found: the index of its shard is truncated")
        try:
            decoded = index.chain.decode(payload)
        except Exception as error:  # whatever a codec raises on altered bytes
            self._refuse_machine_fault(error, coords)
            raise DamagedChunkError(
                f"{self._describe(coords)} cannot be found: the index of its shard is damaged ({error})"
            ) from error
        # indices are cached; a view would keep the whole shard in memory
        return np.array(decoded)

    def payload(self, stored: Coords) -> AnyArray:
        """Return the raw bytes of an object; raises MissingChunkError if it is not in the store."""
        return self._get(stored, None, next(iter(self.grid.chunks_in(stored))))

    def _get(self, stored: Coords, byte_range: Any, coords: Coords) -> AnyArray:
        """Fetch bytes of an object. Errors name ``coords``, the chunk that needs them."""
        bounded = self.format.object_limit <= _LARGEST_REQUEST and not self.store.location.is_icechunk
        if byte_range is None and bounded:
            # one byte beyond the limit reveals an oversized object; icechunk refuses such ranges
            byte_range = RangeByteRequest(0, self.format.object_limit + 1)
        # covers objects that are too short: stores raise different errors for a range beyond the end
        with self.store.location.errors_named(f"{self._describe(coords)} cannot be read"):
            key = self.store.location.prefix + self.key(stored)
            payload = _asked_for(self.store.read(key, byte_range), byte_range)
        if payload is None:
            if not self._store_is_there:
                wait(submit(check_store(self.store.location)))
                self._store_is_there = True
            raise MissingChunkError(f"{self._describe(coords)} is missing: was it deleted, or copied incompletely?")
        if len(payload) > self.format.object_limit:
            raise DamagedChunkError(
                f"{self._describe(coords)} is damaged: its object has more than {self.format.object_limit} bytes, "
                "which no object of this array has"
            )
        return payload

    def decode(
        self, payload: AnyArray, coords: Coords, room: Room = new_room, threads: int = 1, box: Box | None = None
    ) -> Chunk:
        """Decode a chunk or a box of it, and check that these are the bytes that were written for it."""
        try:
            decoded = self.format.coder.decode(payload, first=self._first, room=room, threads=threads, box=box)
            decoded = decoded if decoded.shape == self.spec.shape else decoded.reshape(self.spec.shape)
            chunk = Chunk(decoded)
            if self._parameters is not None:
                chunk = chunk_of(decoded, self._parameters, self._dtype)
            chunk = chunk._replace(box=box)
        except Exception as error:  # whatever a codec raises on altered bytes
            if isinstance(error, PhotonCodecError) and not isinstance(error, DamagedChunkError):
                raise  # raised by one of our codecs, and more specific than "damaged"
            self._refuse_machine_fault(error, coords)
            raise DamagedChunkError(
                f"{self._describe(coords)} is damaged ({type(error).__name__}: {error}): restore it from a copy; "
                "verify() lists every damaged chunk"
            ) from error
        self._check_identity(payload, coords)
        return chunk

    def _refuse_machine_fault(self, error: Exception, coords: Coords) -> None:
        """Raise StorageError if decoding failed because this machine lacks something; the chunk may be intact."""
        if is_machine_fault(error):
            raise StorageError(
                f"{self._describe(coords)} cannot be decoded on this machine ({type(error).__name__}: {error}): it "
                "lacks memory, threads, disk space or a library. The chunk itself may be intact"
            ) from error

    def _check_identity(self, payload: AnyArray, coords: Coords) -> None:
        """Refuse an intact chunk that is not the one written at these coordinates."""
        if self._checksums is None:
            return
        recorded = int(self._checksums[coords])
        found = _checksum(payload)
        if found != recorded:
            raise DamagedChunkError(
                f"{self._describe(coords)} is whole, but is not the one that was written: its checksum is {found:08x}, "
                f"the record has {recorded:08x}. It is another movie's, an older copy, or from another place of this "
                "movie: restore it from a copy; verify() lists every such chunk"
            )


def _checksum(payload: AnyArray) -> int:
    """Return the checksum at the end of a chunk."""
    return checksum_of(payload[-CHECKSUM_BYTES:].tobytes())


def _asked_for(payload: AnyArray | None, byte_range: Any) -> AnyArray | None:
    """Cut the requested bytes out of a payload; some stores return the whole object for any range."""
    if isinstance(byte_range, SuffixByteRequest) and payload is not None:
        return payload[-byte_range.suffix :]
    if isinstance(byte_range, RangeByteRequest) and payload is not None:
        length = byte_range.end - byte_range.start
        return payload if len(payload) <= length else payload[byte_range.start : byte_range.end]
    return payload
