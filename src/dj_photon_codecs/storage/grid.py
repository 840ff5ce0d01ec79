"""Where inner chunks are: which object each of them is in, and which frames it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

#: Coordinates in the grid of chunks, or in that of objects.
Coords = tuple[int, ...]


@dataclass(frozen=True)
class ChunkGrid:
    """The grid of inner chunks of an array, and which object each of them is in.

    Attributes
    ----------
    shape
        Shape of the array.
    chunk
        Shape of an inner chunk.
    stored
        Shape of what one object holds: a shard, or the chunk itself.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: tuple[int, ...]

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
        """The object that holds an inner chunk, and the chunk's place in it."""
        pairs = [divmod(i, n) for i, n in zip(coords, self.per_object, strict=True)]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    def chunks_in(self, stored: Coords) -> Iterator[Coords]:
        """Inner chunks of an object that lie inside the array."""
        ranges = [
            range(o * n, min((o + 1) * n, total))
            for o, n, total in zip(stored, self.per_object, self.chunks, strict=True)
        ]
        return itertools.product(*ranges)

    def all_objects(self) -> Iterator[Coords]:
        """Every object of the array, in time order."""
        return itertools.product(*(range(n) for n in self.objects))

    def frames(self, coords: Coords) -> tuple[int, int]:
        """First and last frame (exclusive) of an inner chunk."""
        start = coords[0] * self.chunk[0]
        return start, min(start + self.chunk[0], self.shape[0])
