"""Local means and variances: frame differences through a unit-energy spatial high-pass, averaged in small blocks.

Given their sum, the photon counts of a pixel in several frames are multinomial, so that
E[(b - a)^2 | a + b] / 2 = (a + b) / 2 exactly (in photons). The identity is linear. It therefore survives a filter h of
unit energy on the difference, if intensities are averaged with h^2, and any selection of pixels based on the sums
alone. The filter h removes changes that are smooth in space: motion of smooth texture, flicker, bleaching, activity,
row noise.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .sampling import RUN, FloatImages, Sample

#: Side of a block, and the margin that the widest filter needs [pixels].
BLOCK, MARGIN = 4, 2
#: High-pass filters for frame differences: order of the binomial difference (1, -1)^order down columns, along lines.
FILTERS = {
    "raw": (0, 0),
    "fine 1": (1, 1),
    "fine 2": (2, 2),
    "fine 4": (4, 4),
    "down 2": (2, 0),
    "down 4": (4, 0),
    "along 2": (0, 2),
}

_REACH, _WINDOW = 16, 256  # largest shift searched, and largest side of the correlated window [pixels]
#: Required excess of a correlation over that at zero shift, in its standard deviations for unrelated frames. By chance
#: alone, the best of about 1000 shifts exceeds it by 4.7.
_EVIDENCE = 6.5

Blocks = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BlockStatistics:
    """Block averages of one site, each of shape (runs, block rows, block columns)."""

    mean: Blocks  # intensity over the run, averaged with h^2 [ADU]
    #: Half the mean squared difference of neighbouring frames by filter [ADU^2], and the "third" moment of the noise
    #: [ADU^3], which cancels changes of light that are linear in time.
    variance: dict[str, Blocks]
    lag2: Blocks  # "fine 2" variance of frames two apart [ADU^2]
    #: Energy of the run's mean image after "fine 2" [ADU^2]. Noise alone gives its variance; a still pattern adds four
    #: times its own energy.
    structure: Blocks
    dark: Blocks  # share of counts at or below the lowest
    saturated: Blocks  # share of saturated counts
    usable: npt.NDArray[np.bool_]  # False at the rim where motion-corrected frames wrap around
    repeated: int  # non-constant frames identical to the one before


def block_grid(height: int, width: int) -> tuple[int, int]:
    """Number of block rows and columns that fit inside the margin."""
    return (height - 2 * MARGIN) // BLOCK, (width - 2 * MARGIN) // BLOCK


def _block_sum(image: FloatImages, first: tuple[int, int], grid: tuple[int, int]) -> Blocks:
    """Sum over each block of a grid whose first pixel is ``first``."""
    (top, left), (rows, columns) = first, (n * BLOCK for n in grid)
    view = image[top : top + rows, left : left + columns]
    bands = view[0::4] + view[1::4]
    bands += view[2::4]
    bands += view[3::4]
    sums: Blocks = bands[:, 0::4] + bands[:, 1::4]
    sums += bands[:, 2::4]
    sums += bands[:, 3::4]
    return sums


def _energies(image: FloatImages, names: Iterable[str], grid: tuple[int, int]) -> dict[str, Blocks]:
    """Block means of the squared image after each filter, divided by the energy of the filter."""
    result = {}
    done: dict[tuple[int, int], FloatImages] = {(0, 0): image}
    for name in names:
        down, along = FILTERS[name]
        start = max((key for key in done if key[0] <= down and key[1] <= along), key=sum)
        filtered = np.diff(np.diff(done[start], down - start[0], axis=0), along - start[1], axis=1)
        done[down, along] = filtered
        first = (MARGIN - down // 2, MARGIN - along // 2)
        energy = math.comb(2 * down, down) * math.comb(2 * along, along) * BLOCK**2
        result[name] = _block_sum(filtered * filtered, first, grid) / np.float32(energy)
    return result


def _fine(image: FloatImages, grid: tuple[int, int]) -> Blocks:
    return _energies(image, ["fine 2"], grid)["fine 2"]


def _weighted_mean(image: FloatImages, grid: tuple[int, int]) -> Blocks:
    """Block means weighted with h^2 of the order-2 filter: (1, 4, 1)/6 along both axes."""
    rows = image[:-2] + image[2:]
    rows += 4 * image[1:-1]
    both = rows[:, :-2] + rows[:, 2:]
    both += 4 * rows[:, 1:-1]
    return _block_sum(both, (1, 1), grid) / np.float32(36 * BLOCK**2)


def box(blocks: Blocks) -> Blocks:
    """Mean over 3 x 3 blocks of the last two axes; edges are reflected so that no edge block counts twice."""
    padded = np.pad(blocks, [(0, 0)] * (blocks.ndim - 2) + [(1, 1), (1, 1)], mode="reflect")
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return np.asarray((rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / np.float32(9))


def _share(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], grid: tuple[int, int]) -> Blocks:
    """Block-wise share of marked counts in two frames."""
    return _block_sum(first.astype(np.float32) + second, (MARGIN, MARGIN), grid) / np.float32(2 * BLOCK**2)


def _inside(grid: tuple[int, int], border: int) -> npt.NDArray[np.bool_]:
    """Mask of the blocks free of pixels that alignment wrapped around."""
    usable = np.ones(grid, bool)
    if border:
        blocks = -(-border // BLOCK)
        usable[:blocks] = usable[-blocks - 1 :] = usable[:, :blocks] = usable[:, -blocks - 1 :] = False
    return usable


def align(run: FloatImages) -> tuple[FloatImages, int]:
    """Shift frames (frames, height, width) onto the first one if their cross-correlation shows motion.

    Also return the width of the rim into which shifted frames wrap around. Shifts are whole pixels, because
    interpolation would mix the noise of neighbouring pixels.
    """
    height, width = run.shape[1:]
    rows, columns = (min(_WINDOW, 1 << n.bit_length() - 1) for n in (height, width))  # powers of two, for the FFT
    reach = min(_REACH, rows // 4, columns // 4)
    top, left = (height - rows) // 2, (width - columns) // 2
    window = run[:, top : top + rows, left : left + columns]
    window = window - window.mean(axis=(1, 2), keepdims=True)
    spectra = np.fft.rfft2(window)
    deviation = window.std(axis=(1, 2)) * np.sqrt(np.sqrt(window[0].size))
    shape = window.shape[1:]
    shifts = [(0, 0)]
    near = np.arange(-reach, reach + 1)
    for i in range(1, len(run)):
        correlation = np.fft.irfft2(spectra[0] * np.conj(spectra[i]), s=shape)[np.ix_(near, near)]
        row, column = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        gain = correlation[row, column] - correlation[reach, reach]
        moved = gain > _EVIDENCE * deviation[0] * deviation[i]
        shifts.append((int(near[row]), int(near[column])) if moved else (0, 0))
    border = max(max(abs(y), abs(x)) for y, x in shifts)
    if border == 0:
        return run, 0
    return np.stack([np.roll(frame, shift, (0, 1)) for frame, shift in zip(run, shifts, strict=True)]), border


def statistics_of(sample: Sample, saturation: float | None) -> list[BlockStatistics]:
    """Block averages of all sites; counts at or above ``saturation`` [ADU] carry no information about noise."""
    top = np.inf if saturation is None else saturation - sample.base
    return [_of_site(site, sample.lowest - sample.base, top) for site in sample.sites]


def _of_site(frames: FloatImages, floor: float, top: float) -> BlockStatistics:
    """Block averages of one site, from counts of shape (runs, RUN, height, width)."""
    grid = block_grid(*frames.shape[-2:])
    found: dict[str, list[Blocks]] = defaultdict(list)
    usable, repeated = [], 0
    for run in frames:
        repeated += sum(
            bool(x[0, 0] == y[0, 0]) and np.array_equal(x, y) and float(x.min()) < float(x.max())
            for x, y in itertools.pairwise(run)
        )
        (a, b, c, d), border = align(run)
        usable.append(_inside(grid, border))
        total = a + b
        total += c
        total += d
        found["mean"].append(_weighted_mean(total, grid) / np.float32(RUN))
        found["structure"].append(_fine(total, grid) / np.float32(RUN))
        first, second = _energies(b - a, FILTERS, grid), _energies(d - c, FILTERS, grid)
        for name in FILTERS:
            found[name].append((first[name] + second[name]) / np.float32(4))
        found["lag2"].append((_fine(c - a, grid) + _fine(d - b, grid)) / np.float32(4))
        outer, inner = a - d, b - c
        moment = (outer * outer - inner * inner) * (a + d - b - c)
        found["third"].append(_block_sum(moment, (MARGIN, MARGIN), grid) / np.float32(4 * BLOCK**2))
        found["dark"].append(_share(a <= floor, c <= floor, grid))
        found["saturated"].append(_share(a >= top, c >= top, grid))
    stacked: dict[str, Any] = {name: np.stack(blocks) for name, blocks in found.items()}
    variance = {name: stacked.pop(name) for name in (*FILTERS, "third")}
    return BlockStatistics(variance=variance, usable=np.stack(usable), repeated=repeated, **stacked)
