"""Chunk and shard shapes: inner chunks of one plane for fast random frames, shards to keep the objects few.

The numbers come from ``benchmarks/layout.py``; ``docs/explanation/layout.md`` has its table.
"""

from __future__ import annotations

import math

from .._typing import ZarrFormat
from .grid import ChunkGrid

#: Pixels in an inner chunk: 16 frames of 512x512. Reading a random frame decodes one chunk.
CHUNK_PIXELS = 1 << 22

#: Decoded bytes of an inner chunk, at most; what a wide dtype is limited by, far below Blosc's 2 GiB.
CHUNK_BYTES = 1 << 25

#: Decoded bytes of a shard, at most (or one chunk): an hour of 512x512 at 30 Hz is 850 objects.
SHARD_BYTES = 1 << 26

#: Decoded bytes of all chunks that cover the same frames, at most (or one frame): what volumes take in memory while
#: they are written, and what is decoded to read one of them.
BLOCK_BYTES = 1 << 27

#: The length in frames of a movie that is being acquired, when it is cut: longer than any.
ENDLESS = 1 << 40


def plan_grid(
    shape: tuple[int, ...], itemsize: int, zarr_format: ZarrFormat, chunk: tuple[int, ...] | None = None
) -> ChunkGrid:
    """Choose chunk and shard shapes for a movie of ``shape`` (time, ..., height, width); format 2 has no shards.

    Each chunk holds one plane over as many frames as fit; a plane larger than a chunk is split along its first axes.
    Give ``chunk`` to keep the chunk shape of a stored movie, because its dither depends on the place in the chunk.
    """
    chunk = chunk or _plan_chunk(shape, itemsize)
    if zarr_format == 2:
        return ChunkGrid(shape, chunk, chunk)
    # A shard grows within the plane first, then over planes, then over time, so that writing is one pass.
    budget = max(1, SHARD_BYTES // (math.prod(chunk) * itemsize))
    shard = list(chunk)
    for axis in [*range(len(shape) - 1, 0, -1), 0]:
        chunks = math.ceil(shape[axis] / chunk[axis])
        count = min(budget, chunks) if axis == 0 else _even(chunks, budget)
        shard[axis] = chunk[axis] * count
        budget //= count
    return ChunkGrid(shape, chunk, tuple(shard))


def _plan_chunk(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Shape of the inner chunks of a new movie."""
    limit = min(CHUNK_PIXELS, CHUNK_BYTES // itemsize)
    planes, plane = shape[1:-2], list(shape[-2:])
    for axis in range(len(plane)):
        rest = math.prod(plane[axis + 1 :])
        if math.prod(plane) <= limit:
            break
        plane[axis] = _even(plane[axis], max(1, limit // rest))
    # Use few frames per chunk for large volumes, because all planes are written, and often read, together.
    frames = min(shape[0], max(1, min(limit // math.prod(plane), BLOCK_BYTES // (math.prod(shape[1:]) * itemsize))))
    return (frames, *(1,) * len(planes), *plane)


def _even(length: int, limit: int) -> int:
    """Return the size of nearly equal pieces of at most ``limit``: 2049 becomes 1025 + 1024, not 2048 + 1."""
    return math.ceil(length / math.ceil(length / limit))
