"""The range of a movie's counts: checked before storing, and used to choose the dtype of the codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._typing import AnyArray
from ..errors import InvalidMovieError
from ..sources import Source

#: Block size for checking [bytes]: fits the cache, and is small compared with a shard.
_BLOCK_BYTES = 1 << 22

#: Number of frames sampled from a movie that is not in memory, evenly from first to last.
_SAMPLE_FRAMES = 16


@dataclass(frozen=True)
class ValueRange:
    """Lowest and highest count, and whether all counts are whole numbers."""

    low: float
    high: float
    whole: bool

    def __or__(self, other: ValueRange) -> ValueRange:
        return ValueRange(min(self.low, other.low), max(self.high, other.high), self.whole and other.whole)


def check_block(counts: AnyArray, first_frame: int, *, negative_allowed: bool) -> ValueRange:
    """Return the range of a block of frames.

    Raises InvalidMovieError for NaN and infinity, and for negative counts unless they are allowed. The message gives
    the value, its index and the remedies.
    """
    step = max(1, _BLOCK_BYTES // max(1, counts[0].nbytes))
    found: ValueRange | None = None
    for start in range(0, len(counts), step):
        part = counts[start : start + step]
        low, high = part.min(), part.max()  # both propagate NaN
        if not (np.isfinite(low) and np.isfinite(high)):
            where = _first(~np.isfinite(part), first_frame + start)
            value = part[~np.isfinite(part)][0]
            raise InvalidMovieError(
                f"the movie holds {value} (first at {where}): photon counts are finite; mask or replace such pixels"
            )
        if low < 0 and not negative_allowed:
            lowest = counts.min()  # report the minimum of the whole block
            raise InvalidMovieError(
                f"the movie holds negative values: minimum {lowest} (first negative value at "
                f"{_first(part < 0, first_frame + start)}). If a signed converter or a subtracted offset caused them, "
                "they are noise around darkness: PhotonMovie(movie, signed=True) measures the zero level with them, "
                "and PhotonMovie(movie, conversion_gain=..., zero_level=...) gives it. A motion-corrected or denoised "
                "movie no longer holds counts: store the raw one, or PhotonMovie(movie, signed=True, "
                "profile='lossless'). Don't shift a movie by its own minimum: that differs from movie to movie, and so "
                "would the zero level"
            )
        whole = part.dtype.kind != "f" or bool((part == np.rint(part)).all())
        this = ValueRange(_number(low), _number(high), whole)
        found = this if found is None else found | this
    assert found is not None
    return found


def _number(value: np.generic) -> float:
    """Convert a numpy scalar to a Python number (integers stay exact)."""
    number: float = value.item()
    return number


def _first(mask: AnyArray, first_frame: int) -> str:
    """Return the movie index where a mask is first true, as text."""
    index = np.unravel_index(int(mask.argmax()), mask.shape)
    return str((first_frame + int(index[0]), *(int(i) for i in index[1:])))


def value_range(source: Source, *, negative_allowed: bool) -> ValueRange:
    """Return the range of a movie, or of a sample if it is not in memory; raises as :func:`check_block`."""
    if source.in_memory:
        return scan(source, negative_allowed=negative_allowed)
    n_frames = source.shape[0]
    chosen = np.unique(np.linspace(0, n_frames - 1, min(n_frames, _SAMPLE_FRAMES)).astype(int)).tolist()
    return _combined(source, ((i, i + 1) for i in chosen), negative_allowed=negative_allowed)


def scan(source: Source, *, negative_allowed: bool) -> ValueRange:
    """Return the range of a whole movie, in bounded memory; raises as :func:`check_block`."""
    return _combined(source, _spans(source), negative_allowed=negative_allowed)


def _combined(source: Source, spans: Iterator[tuple[int, int]], *, negative_allowed: bool) -> ValueRange:
    found: ValueRange | None = None
    for start, stop in spans:
        this = check_block(source.read(start, stop), start, negative_allowed=negative_allowed)
        found = this if found is None else found | this
    assert found is not None
    return found


def _spans(source: Source) -> Iterator[tuple[int, int]]:
    """Split a movie into runs of about eight blocks: few requests, little memory."""
    frame_bytes = int(np.prod(source.shape[1:])) * source.dtype.itemsize
    step = max(1, 8 * _BLOCK_BYTES // max(1, frame_bytes))
    return ((start, min(start + step, source.shape[0])) for start in range(0, source.shape[0], step))
