"""Local means and variances: frame differences through a unit-energy spatial high-pass, averaged in small blocks.

For photon counts the conditional law of a pixel's frames given their sum is multinomial, so that
E[(b - a)^2 | a + b] / 2 = (a + b) / 2 exactly (in photons). The identity is linear, so it survives a filter h of unit
energy on the difference, when the intensities are averaged with h^2, and any choice of pixels made from the sums
alone. What is smooth in space (motion of smooth texture, flicker, bleaching, activity, row noise) does not pass h.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .motion import align
from .sampling import RUN, FloatImages

#: Side of a block [pixels], and the margin that the widest filter needs.
BLOCK, MARGIN = 4, 2
#: Order of the high-pass -> energy of its 2-D kernel, the separable binomial difference (1, -1)^order.
ENERGY = {1: 4.0, 2: 36.0, 3: 400.0, 4: 4900.0}
#: Order -> first row of its output whose centre is inside the margin.
_FIRST = {1: 2, 2: 1, 3: 1, 4: 0}

Blocks = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BlockStatistics:
    """Averages over blocks of one site, each of shape (runs, block rows, block columns).

    Attributes
    ----------
    mean
        Intensity over the run, averaged with h^2 [ADU].
    variance
        Order of the high-pass (1 to 4) -> half the mean squared difference of neighbouring frames [ADU^2].
    variance_lag2
        The same at order 2 for frames two apart.
    structure
        The high-passed energy (order 2) of the run's mean image, scaled so that noise alone gives ``variance``
        and a still pattern adds four times its own energy [ADU^2].
    dark
        Share of the block's counts that are at or below ``floor``.
    saturated
        Share of the block's counts that are saturated.
    usable
        False at the rim that frames shifted by motion leave.
    repeated
        Number of frames that equal the one before, to the last pixel, and are not constant.
    """

    mean: Blocks
    variance: dict[int, Blocks]
    variance_lag2: Blocks
    structure: Blocks
    dark: Blocks
    saturated: Blocks
    usable: npt.NDArray[np.bool_]
    repeated: int


def block_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of whole blocks inside the margin."""
    return (height - 2 * MARGIN) // BLOCK, (width - 2 * MARGIN) // BLOCK


def _block_sum(image: FloatImages, first: int, grid: tuple[int, int]) -> Blocks:
    """Sums over the blocks of the grid that starts at pixel (first, first)."""
    rows, columns = (n * BLOCK for n in grid)
    view = image[first : first + rows, first : first + columns]
    bands = view[0::4] + view[1::4]
    bands += view[2::4]
    bands += view[3::4]
    sums: Blocks = bands[:, 0::4] + bands[:, 1::4]
    sums += bands[:, 2::4]
    sums += bands[:, 3::4]
    return sums


def _energies(image: FloatImages, orders: tuple[int, ...], grid: tuple[int, int]) -> dict[int, Blocks]:
    """Block means of the squared image after the high-pass of each order, energy of the kernel divided out."""
    result = {}
    for order in range(1, max(orders) + 1):
        image = image[1:] - image[:-1]
        image = image[:, 1:] - image[:, :-1]
        if order in orders:
            result[order] = _block_sum(image * image, _FIRST[order], grid) / np.float32(ENERGY[order] * BLOCK**2)
    return result


def _weighted_mean(image: FloatImages, grid: tuple[int, int]) -> Blocks:
    """Block means of the image averaged with h^2 of order 2, (1, 4, 1)/6 along both axes."""
    rows = image[:-2] + image[2:]
    rows += 4 * image[1:-1]
    both = rows[:, :-2] + rows[:, 2:]
    both += 4 * rows[:, 1:-1]
    return _block_sum(both, 1, grid) / np.float32(36 * BLOCK**2)


def box(blocks: Blocks) -> Blocks:
    """Mean over 3 x 3 blocks of the last two axes, mirrored at the edges so that no block counts twice there."""
    padded = np.pad(blocks, [(0, 0)] * (blocks.ndim - 2) + [(1, 1), (1, 1)], mode="reflect")
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    result: Blocks = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / np.float32(9)
    return result


def _share(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], grid: tuple[int, int]) -> Blocks:
    """Share of the counts of two frames that are marked."""
    return _block_sum(first.astype(np.float32) + second, MARGIN, grid) / np.float32(2 * BLOCK**2)


def _inside(grid: tuple[int, int], border: int) -> npt.NDArray[np.bool_]:
    """Blocks that no wrapped pixel reaches."""
    usable = np.ones(grid, bool)
    if border:
        blocks = -(-border // BLOCK)
        usable[:blocks] = usable[-blocks - 1 :] = usable[:, :blocks] = usable[:, -blocks - 1 :] = False
    return usable


def block_statistics(frames: FloatImages, floor: float, saturation: float | None) -> BlockStatistics:
    """Block averages of one site.

    Parameters
    ----------
    frames
        Counts [ADU], shape (runs, 4, height, width).
    floor
        Counts at or below it may have been clipped [ADU].
    saturation
        Counts at or above it say nothing about noise [ADU]; None for no such level.
    """
    grid = block_grid(*frames.shape[-2:])
    mean, lag2, structure, dark, saturated, usable = [], [], [], [], [], []
    repeated = 0
    variance: dict[int, list[Blocks]] = {order: [] for order in ENERGY}
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
        mean.append(_weighted_mean(total, grid) / np.float32(RUN))
        structure.append(_energies(total, (2,), grid)[2] / np.float32(RUN))
        first, second = _energies(b - a, tuple(ENERGY), grid), _energies(d - c, tuple(ENERGY), grid)
        for order in ENERGY:
            variance[order].append((first[order] + second[order]) / np.float32(4))
        lag2.append((_energies(c - a, (2,), grid)[2] + _energies(d - b, (2,), grid)[2]) / np.float32(4))
        dark.append(_share(a <= floor, c <= floor, grid))
        saturated.append(
            np.zeros(grid, np.float32) if saturation is None else _share(a >= saturation, c >= saturation, grid)
        )
    return BlockStatistics(
        np.stack(mean),
        {order: np.stack(blocks) for order, blocks in variance.items()},
        np.stack(lag2),
        np.stack(structure),
        np.stack(dark),
        np.stack(saturated),
        np.stack(usable),
        repeated,
    )
