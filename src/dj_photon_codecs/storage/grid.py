"""The grid of inner chunks: the object and the frames of each one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
