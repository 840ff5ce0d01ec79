"""Which pixels the calibration looks at: short runs of frames spread over the movie, and tiles spread over a frame.

The number of pixels is fixed, whatever the length and the size of the movie, and so is their choice: the same
movie gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..sources import Source

FloatImages = npt.NDArray[np.float32]

#: Frames in a run. Two pairs of neighbours, and two pairs two frames apart to test that frames are independent.
RUN = 4
#: Most runs, and most pixels a frame: together what fits into a quarter of a second.
MAX_RUNS, MAX_PIXELS = 24, 2**18
#: Pixels in all runs together.
PIXEL_BUDGET = 8 * RUN * MAX_PIXELS
#: Most planes (of a volume) that are looked at.
MAX_PLANES = 4


@dataclass(frozen=True)
class Sample:
    """The sampled counts.

    Attributes
    ----------
    sites
        One array for each place in the field of view, shape (runs, RUN, height, width), counts [ADU] less ``base``.
    base
        What was subtracted [ADU], so that a large pedestal costs no digits of a float32.
    finite, fractional
        Whether all values are finite, and whether some are not whole numbers.
    lowest, highest, mean, deviation
        Of the sampled values, base included [ADU].
    """

    sites: tuple[FloatImages, ...]
    base: float
    finite: bool
    fractional: bool
    lowest: float
    highest: float
    mean: float
    deviation: float


def _tiles(length: int, size: int, parts: int) -> list[slice]:
    """Places of ``parts`` tiles of ``size`` pixels, in the middle of equal parts of an axis."""
    return [
        slice(start, start + size)
        for start in (int((2 * i + 1) * length / (2 * parts) - size / 2) for i in range(parts))
    ]


def _windows(height: int, width: int, pixels: int) -> list[tuple[slice, slice]]:
    """Tiles of at most ``pixels`` together: the whole frame where it fits, else 2 x 2 tiles spread over it."""
    if height * width <= pixels:
        return [(slice(0, height), slice(0, width))]
    side = int(np.sqrt(pixels)) // 2
    rows = min(height // 2, max(side, pixels // (4 * width)))
    columns = min(width // 2, max(side, pixels // (4 * height)))
    return [(y, x) for y in _tiles(height, rows, 2) for x in _tiles(width, columns, 2)]


def run_starts(length: int, pixels: int) -> list[int]:
    """First frames of runs of ``RUN`` frames that do not overlap, from the movie's first frame to its last."""
    runs = max(1, min(MAX_RUNS, length // RUN, PIXEL_BUDGET // (RUN * pixels)))
    if runs == 1:
        return [(length - RUN) // 2]
    return [i * (length - RUN) // (runs - 1) for i in range(runs)]


def draw(source: Source) -> Sample:
    """Read the sampled frames of a movie of at least ``RUN`` frames.

    Only these frames are read, one run at a time. What :meth:`Source.read` raises is passed on.
    """
    length, *planes, height, width = source.shape
    n_planes = int(np.prod(planes, dtype=np.int64))
    chosen = np.unique(np.linspace(0, n_planes - 1, min(MAX_PLANES, n_planes)).round().astype(np.int64))
    windows = _windows(height, width, MAX_PIXELS // len(chosen))
    pixels = len(chosen) * sum((y.stop - y.start) * (x.stop - x.start) for y, x in windows)
    starts = run_starts(length, pixels)
    base: float | None = None
    finite, fractional = True, False
    low, high, total, squares, n = np.inf, -np.inf, 0.0, 0.0, 0
    places: list[list[FloatImages]] = [[] for _ in range(len(chosen) * len(windows))]
    for start in starts:
        frames = source.read(start, start + RUN).reshape(RUN, n_planes, height, width)
        for i, (plane, (y, x)) in enumerate((p, w) for p in chosen for w in windows):
            counts = frames[:, plane, y, x]
            if source.dtype.kind == "f":
                finite = finite and bool(np.isfinite(counts).all())
                if not finite:
                    return Sample((), 0.0, False, fractional, np.nan, np.nan, np.nan, np.nan)
                fractional = fractional or bool((counts != np.rint(counts)).any())
            if base is None:
                base = float(counts[0, 0, 0]) if source.dtype.itemsize > 2 else 0.0
            low, high = min(low, float(counts.min())), max(high, float(counts.max()))
            wide = counts.astype(np.float64) - base if source.dtype.itemsize > 2 else counts
            values = np.ascontiguousarray(wide, dtype=np.float32)
            total += float(values.sum(dtype=np.float64))
            squares += float(np.vdot(values, values))
            n += values.size
            places[i].append(values)
    mean = total / n
    deviation = float(np.sqrt(max(squares / n - mean**2, 0.0)))
    base = base or 0.0
    sites = tuple(np.stack(place) for place in places)
    return Sample(sites, base, True, fractional, low, high, mean + base, deviation)
