"""Sample a movie for calibration: short runs of frames spread over time, and tiles spread over a frame.

The number of pixels is bounded whatever the size of the movie. Sampling is deterministic: the same movie gives the
same answer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..sources import Source

FloatImages = npt.NDArray[np.float32]

#: Frames in a run: two pairs of neighbours, and two pairs two frames apart to test that frames are independent.
RUN = 4
#: Maximum number of runs, and of pixels per frame; together they take about a quarter of a second.
MAX_RUNS, MAX_PIXELS = 24, 2**17
#: Maximum number of pixels in all runs together.
PIXEL_BUDGET = 7 * RUN * MAX_PIXELS
#: Maximum number of planes (of a volume) sampled.
MAX_PLANES = 8


@dataclass(frozen=True)
class Sample:
    """The sampled counts."""

    sites: tuple[FloatImages, ...]  # one per tile, (runs, RUN, height, width): counts less ``base`` [ADU]
    base: float  # subtracted, so that a large pedestal costs no float32 digits [ADU]
    starts: list[int]  # first frame of each run
    planes: int  # number of planes sampled; the sites of a plane are adjacent
    finite: bool
    fractional: bool  # whether any value is not a whole number
    lowest: float  # with ``base`` added back, like the next two [ADU]
    highest: float
    mean: float
    deviation: float


def _windows(height: int, width: int, pixels: int) -> list[tuple[slice, slice]]:
    """Tiles of at most ``pixels`` in total: the whole frame if it fits, else 2 x 2 tiles spread over it."""
    if height * width <= pixels:
        return [(slice(0, height), slice(0, width))]
    side = int(np.sqrt(pixels)) // 2
    rows = min(height // 2, max(side, pixels // (4 * width)))
    columns = min(width // 2, max(side, pixels // (4 * height)))
    starts = ((int(n / 4 - size / 2), int(3 * n / 4 - size / 2)) for n, size in ((height, rows), (width, columns)))
    return [(slice(y, y + rows), slice(x, x + columns)) for y, x in itertools.product(*starts)]


def run_starts(length: int, pixels: int, most: int = MAX_RUNS) -> list[int]:
    """First frames of non-overlapping runs of ``RUN`` frames, spread from the first frame to the last."""
    runs = max(1, min(most, length // RUN, PIXEL_BUDGET // (RUN * pixels)))
    if runs == 1:
        return [(length - RUN) // 2]
    return [i * (length - RUN) // (runs - 1) for i in range(runs)]


def draw(source: Source, pixels: int = MAX_PIXELS, runs: int = MAX_RUNS, first: int = 0, period: int = 1) -> Sample:
    """Sample at most ``runs`` runs and ``pixels`` pixels per frame of a movie of at least ``RUN`` frames.

    Only these frames are read, one run at a time. ``first`` and ``period`` select one of several interleaved channels.
    """
    length, *planes, height, width = source.shape
    length = len(range(first, length, period))
    n_planes = int(np.prod(planes, dtype=np.int64))
    chosen = np.unique(np.linspace(0, n_planes - 1, min(MAX_PLANES, n_planes)).round().astype(np.int64))
    windows = _windows(height, width, pixels // len(chosen))
    drawn = len(chosen) * sum((y.stop - y.start) * (x.stop - x.start) for y, x in windows)
    starts = run_starts(length, drawn, runs)
    wide = source.dtype.itemsize > 2
    base: float | None = None
    fractional = False
    low, high, total, squares, n = np.inf, -np.inf, 0.0, 0.0, 0
    places: list[list[FloatImages]] = [[] for _ in range(len(chosen) * len(windows))]
    for start in starts:
        begin, end = first + period * start, first + period * (start + RUN - 1) + 1
        frames = source.read(begin, end)[::period].reshape(RUN, n_planes, height, width)
        for i, (plane, (y, x)) in enumerate((p, w) for p in chosen for w in windows):
            counts = frames[:, plane, y, x]
            if source.dtype.kind == "f":
                if not np.isfinite(counts).all():
                    return Sample((), 0.0, starts, 1, False, fractional, np.nan, np.nan, np.nan, np.nan)
                fractional = fractional or bool((counts != np.rint(counts)).any())
            if base is None:
                base = float(counts[0, 0, 0]) if wide else 0.0
            low, high = min(low, float(counts.min())), max(high, float(counts.max()))
            values = np.ascontiguousarray(counts.astype(np.float64) - base if wide else counts, dtype=np.float32)
            total += float(values.sum(dtype=np.float64))
            squares += float(np.vdot(values, values))
            n += values.size
            places[i].append(values)
    mean = total / n
    deviation = float(np.sqrt(max(squares / n - mean**2, 0.0)))
    base = base or 0.0
    sites = tuple(np.stack(place) for place in places)
    return Sample(sites, base, starts, len(chosen), True, fractional, low, high, mean + base, deviation)
