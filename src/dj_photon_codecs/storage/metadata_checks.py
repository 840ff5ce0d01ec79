"""Sanity limits for untrusted metadata, checked before any allocation."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from .._typing import Json
from .._zarr import ArrayMetadata, ArrayV3Metadata, all_codecs, chunk_shape, shard_shape
from ..errors import FormatError
from .record import MovieRecord

#: Most bytes of counts in a movie: 1 PiB, far beyond any recording.
_MOVIE_BYTES = 1 << 50

#: Most bytes of counts in an inner chunk: the limit of Blosc, 64 times what this package writes.
_CHUNK_BYTES = 1 << 31

#: Most chunks in a shard; its index has 16 bytes for each.
_SHARD_CHUNKS = 1 << 20

#: Arrays with more chunks than this must have at least this many bytes of counts per chunk on average.
_MANY_CHUNKS, _SMALL_CHUNK = 1 << 20, 1 << 12

#: Most levels of nesting in a field of the metadata; a sharded array has 7.
_NESTED = 64

#: Codecs of numcodecs that run code or create Python objects from the bytes of a chunk.
_UNSAFE = ("pickle", "json2", "msgpack2", "vlen-array", "vlen-bytes", "vlen-utf8", "categorize")


#: Paths that lead out of a folder: absolute paths, home folders, drives, URLs, "..".
_ELSEWHERE = re.compile(r"^[/\\~]|^[A-Za-z]:|://|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f]")


def check_path(path: object, where: str) -> None:
    """Raise FormatError unless ``path`` is a relative path without ".."."""
    if not isinstance(path, str) or not path or _ELSEWHERE.search(path):
        raise FormatError(
            f"{where} names the path {path!r:.200}: a movie lies inside its store, at a relative path without "
            "'..'; the row was altered or forged"
        )


def check_metadata(metadata: ArrayMetadata, record: MovieRecord | None, where: str) -> None:
    """Raise FormatError for metadata that cannot belong to a movie.

    Refused are data types that hold no counts, sizes beyond any movie, codecs that create Python objects, and a record
    of another size.
    """
    dtype = np.dtype(metadata.dtype.to_native_dtype())
    if dtype.kind not in "uif":
        raise FormatError(f"{where} holds an array of {dtype}: counts are integers or floating-point numbers")
    if isinstance(metadata, ArrayV3Metadata):
        if metadata.storage_transformers:
            raise FormatError(f"{where} has storage transformers {metadata.storage_transformers!r:.200}: none are read")
        if not hasattr(metadata.chunk_grid, "chunk_shape"):
            raise FormatError(f"{where} has the chunk grid {metadata.chunk_grid!r:.200}: only regular grids are read")
    else:
        names = [getattr(codec, "codec_id", "") for codec in all_codecs(metadata)]
        unsafe = [name for name in names if name in _UNSAFE]
        if unsafe:
            raise FormatError(f"{where} is coded with {', '.join(unsafe)}, which creates Python objects: no movie is")
    outer, chunk = shard_shape(metadata), chunk_shape(metadata)
    n_bytes = math.prod(metadata.shape) * dtype.itemsize
    if n_bytes > _MOVIE_BYTES:
        raise FormatError(
            f"the metadata of {where} describes a movie of shape {metadata.shape} {dtype}, {n_bytes:.3g} bytes: "
            f"at most {_MOVIE_BYTES:.3g} are read; it was altered or forged"
        )
    if min(*outer, *chunk, 1) < 1 or math.prod(chunk) * dtype.itemsize > _CHUNK_BYTES:
        raise FormatError(
            f"the metadata of {where} describes chunks of shape {chunk} {dtype}: they have at least one element and "
            f"at most {_CHUNK_BYTES:.3g} bytes"
        )
    per_shard = math.prod(o // c for o, c in zip(outer, chunk, strict=True))
    if per_shard > _SHARD_CHUNKS:
        raise FormatError(
            f"the metadata of {where} has shards of shape {outer} (chunk_grid) with chunks of shape {chunk} "
            f"(chunk_shape): each has an index of {per_shard:.3g} chunks, and at most {_SHARD_CHUNKS} are read; it was "
            "altered or forged"
        )
    n_chunks = math.prod(math.ceil(n / c) for n, c in zip(metadata.shape, chunk, strict=True))
    if n_chunks > max(_MANY_CHUNKS, n_bytes // _SMALL_CHUNK):
        raise FormatError(
            f"the metadata of {where} has {n_chunks:.3g} chunks of shape {chunk} (chunk_shape): of more than "
            f"{_MANY_CHUNKS} each has at least {_SMALL_CHUNK} bytes of counts; it was altered or forged"
        )
    if record is not None and record.original_bytes != n_bytes:
        raise FormatError(
            f"the record of {where} is of a movie of {record.original_bytes} bytes, its Zarr metadata describes one of "
            f"shape {metadata.shape} {dtype}, {n_bytes} bytes: one of them was altered, or is another movie's"
        )


def check_nesting(documents: dict[str, Json], where: str) -> None:
    """Raise FormatError for metadata that is nested so deeply that recursion would fail."""
    for place, document in documents.items():
        for name, value in document.items():
            depth = _depth(value)
            if depth > _NESTED:
                raise FormatError(
                    f"{name!r} in {place} of {where} is nested {depth} levels deep, and at most {_NESTED} are read: it "
                    "was altered or forged"
                )


def _depth(value: Any) -> int:
    """Return the nesting depth of a JSON value, without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list | tuple)]:
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return depth
