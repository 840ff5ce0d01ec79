"""The shapes and codecs in an array's metadata, independent of the zarr release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .names import ArrayMetadata, ArrayV3Metadata, ShardingCodec


def sharding(metadata: ArrayMetadata) -> ShardingCodec | None:
    """Return the sharding codec of an array; None if it is not sharded."""
    if isinstance(metadata, ArrayV3Metadata) and len(metadata.codecs) == 1:
        [codec] = metadata.codecs
        return codec if isinstance(codec, ShardingCodec) else None
    return None


def shard_shape(metadata: ArrayMetadata) -> tuple[int, ...]:
    """Return the shape of one object in the store: a shard, or a chunk if the array is not sharded."""
    if isinstance(metadata, ArrayV3Metadata):
        return tuple(metadata.chunk_grid.chunk_shape)  # type: ignore[attr-defined]  # other grids: check_metadata
    return tuple(metadata.chunks)


def chunk_shape(metadata: ArrayMetadata) -> tuple[int, ...]:
    """Return the shape of an inner chunk, the unit of encoding and decoding."""
    codec = sharding(metadata)
    return shard_shape(metadata) if codec is None else tuple(codec.chunk_shape)


def all_codecs(metadata: ArrayMetadata) -> list[Any]:
    """Return the codecs that are applied to an inner chunk when it is written, in order."""
    if isinstance(metadata, ArrayV3Metadata):
        codec = sharding(metadata)
        return list(metadata.codecs if codec is None else codec.codecs)
    return [*(metadata.filters or ()), *([] if metadata.compressor is None else [metadata.compressor])]


def replace_codecs(metadata: ArrayMetadata, replaced: Callable[[Any], Any]) -> ArrayMetadata:
    """Return the metadata with each codec replaced by ``replaced(codec)``."""
    codecs = all_codecs(metadata)
    changed = [replaced(codec) for codec in codecs]
    if all(new is old for new, old in zip(changed, codecs, strict=True)):
        return metadata
    if isinstance(metadata, ArrayV3Metadata):
        outer = sharding(metadata)
        return replace(metadata, codecs=tuple(changed) if outer is None else (replace(outer, codecs=tuple(changed)),))
    compressor = None if metadata.compressor is None else changed.pop()
    return replace(metadata, filters=tuple(changed) or None, compressor=compressor)
