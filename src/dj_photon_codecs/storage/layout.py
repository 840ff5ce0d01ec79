"""How a movie is cut: inner chunks for a fast random frame, gathered into shards for few objects.

The numbers were chosen by ``benchmarks/layout.py``; its table stands in ``docs/explanation/layout.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._typing import ZarrFormat

#: Pixels in an inner chunk: 16 frames of 512x512. Decoding one is what a random frame costs.
CHUNK_PIXELS = 1 << 22

#: Decoded bytes of an inner chunk, at most; what a wide dtype is limited by, far below Blosc's 2 GiB.
CHUNK_BYTES = 1 << 25

#: Decoded bytes of a shard, at most (or one chunk): an hour of 512x512 at 30 Hz is 850 objects.
SHARD_BYTES = 1 << 26


#: The length in frames of a movie that is being acquired, when it is cut: longer than any.
ENDLESS = 1 << 40


@dataclass(frozen=True)
class Layout:
    """Shapes of the inner chunks and of the shards (None where chunks are objects of their own)."""

    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None

    @property
    def object_shape(self) -> tuple[int, ...]:
        """Shape of what one object in the store covers."""
        return self.shard or self.chunk


def plan_layout(shape: tuple[int, ...], itemsize: int, zarr_format: ZarrFormat) -> Layout:
    """Choose chunk and shard shapes.

    Parameters
    ----------
    shape
        Shape of the movie, (time, ..., height, width).
    itemsize
        Bytes of one count.
    zarr_format
        2 has no shards.

    Returns
    -------
    Layout
        Chunks of whole frames where a frame fits a chunk; otherwise of one frame, split along its first axes.
    """
    limit = min(CHUNK_PIXELS, CHUNK_BYTES // itemsize)
    frame = list(shape[1:])
    for axis in range(len(frame)):
        rest = math.prod(frame[axis + 1 :])
        if math.prod(frame) <= limit:
            break
        # Equal pieces: an axis of 2049 is cut into 1025 + 1024, not into 2048 and a sliver.
        pieces = math.ceil(frame[axis] / max(1, limit // rest))
        frame[axis] = math.ceil(frame[axis] / pieces)
    frames = min(shape[0], max(1, limit // math.prod(frame)))
    chunk = (frames, *frame)
    if zarr_format == 2:
        return Layout(chunk, None)
    # A shard spans whole frames in space where it can, then time: writing goes once through the movie.
    budget = max(1, SHARD_BYTES // (math.prod(chunk) * itemsize))
    shard = list(chunk)
    for axis in [*range(len(shape) - 1, 0, -1), 0]:
        count = min(budget, math.ceil(shape[axis] / chunk[axis]))
        shard[axis] = chunk[axis] * count
        budget //= count
    return Layout(chunk, tuple(shard))
