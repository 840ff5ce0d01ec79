"""What metadata may ask for: a row or a document that was made up is refused before anything is allocated for it."""

from __future__ import annotations

import math
import re

import numpy as np

from .._zarr import ArrayMetadata, ArrayV3Metadata, ShardingCodec
from ..errors import FormatError
from .record import MovieRecord

#: Bytes of counts of a movie, at most: 1 PiB, twenty thousand times the largest that is recorded in a day.
_MOVIE_BYTES = 1 << 50

#: Bytes of counts of an inner chunk, at most: what Blosc can hold, 64 times what is written.
_CHUNK_BYTES = 1 << 31

#: Codecs of numcodecs that run code, or make Python objects, out of the bytes of a chunk.
_UNSAFE = ("pickle", "json2", "msgpack2", "vlen-array", "vlen-bytes", "vlen-utf8", "categorize")


#: What leads out of a folder, or to another place altogether: an absolute path, a home, a drive, a URL, "..".
_ELSEWHERE = re.compile(r"^[/\\~]|^[A-Za-z]:|://|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f]")


def check_path(path: object, where: str) -> None:
    """Refuse a path, relative to a store, that leads out of it.

    Raises
    ------
    FormatError
        For anything but a relative path without "..".
    """
    if not isinstance(path, str) or not path or _ELSEWHERE.search(path):
        raise FormatError(
            f"{where} names the path {path!r:.200}: a movie lies inside its store, at a relative path without "
            "'..'; the row was altered or made up"
        )


def check_metadata(metadata: ArrayMetadata, record: MovieRecord | None, where: str) -> None:
    """Refuse metadata that describes no array of counts, or one that cannot be.

    Raises
    ------
    FormatError
        For data types without counts, shapes beyond any movie, codecs that make objects of bytes, and a record of
        another size.
    """
    dtype = np.dtype(metadata.dtype.to_native_dtype())
    if dtype.kind not in "uif":
        raise FormatError(f"{where} holds an array of {dtype}: counts are integers or floating-point numbers")
    if isinstance(metadata, ArrayV3Metadata):
        sharding = metadata.codecs[0] if metadata.codecs else None
        if metadata.storage_transformers:
            raise FormatError(f"{where} has storage transformers {metadata.storage_transformers!r:.200}: none are read")
        outer = metadata.chunk_grid.chunk_shape  # type: ignore[attr-defined]  # zarr has no other grid
        chunk = sharding.chunk_shape if isinstance(sharding, ShardingCodec) else outer
    else:
        outer = chunk = metadata.chunks
        names = [getattr(codec, "codec_id", "") for codec in (*(metadata.filters or ()), metadata.compressor)]
        unsafe = [name for name in names if name in _UNSAFE]
        if unsafe:
            raise FormatError(f"{where} is coded with {', '.join(unsafe)}, which makes Python objects: no movie is")
    n_bytes = math.prod(metadata.shape) * dtype.itemsize
    if n_bytes > _MOVIE_BYTES:
        raise FormatError(
            f"the metadata of {where} describes a movie of shape {metadata.shape} {dtype}, {n_bytes:.3g} bytes: "
            f"at most {_MOVIE_BYTES:.3g} are read; it was altered or made up"
        )
    if min(*outer, *chunk, 1) < 1 or math.prod(chunk) * dtype.itemsize > _CHUNK_BYTES:
        raise FormatError(
            f"the metadata of {where} describes chunks of shape {chunk} {dtype}: they have at least one element and "
            f"at most {_CHUNK_BYTES:.3g} bytes"
        )
    if record is not None and record.original_bytes != n_bytes:
        raise FormatError(
            f"the record of {where} is of a movie of {record.original_bytes} bytes, its Zarr metadata describes one of "
            f"shape {metadata.shape} {dtype}, {n_bytes} bytes: one of them was altered, or is another movie's"
        )
