"""Chunk and shard shapes, and the grid that they make.

Inner chunks hold one plane, for fast random frames; shards keep the objects few. The numbers come from
``benchmarks/layout.py``; ``docs/explanation/layout.md`` has its table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .._typing import ZarrFormat

#: Pixels in an inner chunk: 16 frames of 512x512. Reading a random frame decodes one chunk.
CHUNK_PIXELS = 1 << 22

#: Most decoded bytes in an inner chunk; limits wide dtypes, far below Blosc's 2 GiB.
CHUNK_BYTES = 1 << 25

#: Most decoded bytes in a shard (or one chunk): an hour of 512x512 at 30 Hz is 850 objects.
SHARD_BYTES = 1 << 26

#: Most decoded bytes in all chunks that cover the same frames (or one frame): the memory that writing volumes takes,
#: and the amount that is decoded to read one volume.
BLOCK_BYTES = 1 << 27

#: Number of frames that a movie is planned for while it is acquired: more than any movie has.
ENDLESS = 1 << 40

#: Coordinates in the grid of chunks or of objects.
Coords = tuple[int, ...]


@dataclass(frozen=True)
class ChunkGrid:
    """The grid of an array's inner chunks, from the shapes of the array, an inner chunk, and an object.

    ``stored`` is the shape of one object: a shard, or a chunk if the array is not sharded.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: tuple[int, ...]

    @property
    def block_frames(self) -> int:
        """Frames in a block: the extent of one object in time."""
        return self.stored[0]

    @property
    def per_object(self) -> tuple[int, ...]:
        """Inner chunks along each axis of an object."""
        return tuple(s // c for s, c in zip(self.stored, self.chunk, strict=True))

    @property
    def objects(self) -> tuple[int, ...]:
        """Objects along each axis of the array."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.stored, strict=True))

    @property
    def chunks(self) -> tuple[int, ...]:
        """Inner chunks along each axis of the array."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    def object_of(self, coords: Coords) -> tuple[Coords, Coords]:
        """Return the object that holds an inner chunk, and the chunk's place in it."""
        pairs = [divmod(i, n) for i, n in zip(coords, self.per_object, strict=True)]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    def ranges_in(self, stored: Coords) -> list[range]:
        """Return the inner chunks of an object along each axis, clipped to the array."""
        return [
            range(o * n, min((o + 1) * n, total))
            for o, n, total in zip(stored, self.per_object, self.chunks, strict=True)
        ]

    def chunks_in(self, stored: Coords) -> Iterator[Coords]:
        """Yield the inner chunks of an object that lie inside the array."""
        return itertools.product(*self.ranges_in(stored))

    def all_objects(self) -> Iterator[Coords]:
        """Yield every object of the array, in time order."""
        return itertools.product(*(range(n) for n in self.objects))

    def region(self, coords: Coords) -> tuple[slice, ...]:
        """Return the region of an inner chunk in the array; it may extend beyond the array's edge."""
        return tuple(slice(i * n, (i + 1) * n) for i, n in zip(coords, self.chunk, strict=True))

    def frames(self, coords: Coords) -> tuple[int, int]:
        """Return the first and last frame (exclusive) of an inner chunk."""
        start = coords[0] * self.chunk[0]
        return start, min(start + self.chunk[0], self.shape[0])


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
    """Return the shape of the inner chunks of a new movie."""
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


def frames_in_words(runs: Iterable[tuple[int, int]]) -> str:
    """Format runs of frames as text, at most twenty of them."""
    named = [f"{start} to {stop - 1}" if stop - start > 1 else f"{start}" for start, stop in runs]
    return f"frames {', '.join(named[:20])}" + (" and others" if len(named) > 20 else "")


def joined_runs(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort runs of frames (first, last exclusive), and merge those that touch or overlap."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(set(runs)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)
