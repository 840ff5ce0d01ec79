"""A small sample of a movie by brightness and region, to compare storage errors with the measured noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray, FloatArray
from ..sources import Source
from .block_noise import BLOCK, MARGIN, block_grid, statistics_of
from .fit import DARK, by_brightness, marked, pool, unsaturated
from .model import ANSCOMBE, Calibration
from .sampling import RUN, draw
from .special_counts import saturation_of

#: Maximum pixels per frame and runs; minimum blocks in a part, and minimum blocks to estimate gain or zero level.
_PIXELS, _RUNS, _FEWEST, _TELLING = 2**14, 6, 40, 200
#: Largest ratio of modelled to measured noise, and smallest constant under the root [photons].
_ABOVE, _LEAST = 1.1, 1e-3
_CORRELATED = 0.03  # correlation along lines above which noise is measured across them


@dataclass(frozen=True)
class Parts:
    """Blocks of 4 x 4 pixels in runs of frames, grouped into parts by brightness and by region."""

    sites: list[AnyArray]  # counts in the movie's dtype, each of shape (runs * RUN, height, width)
    mean: FloatArray  # per block [ADU]
    variance: FloatArray  # per block [ADU^2]
    labels: npt.NDArray[np.int64]  # part of each block, by brightness and by region, shape (2, blocks)
    whole: npt.NDArray[np.bool_]  # blocks at brightnesses that are not clipped
    saturation: float | None  # count at which the converter saturates, if visible [ADU]

    def added(self, stored: Callable[[AnyArray], AnyArray], step: float) -> float:
        """Largest variance that storage adds in any part, in units of step^2/12 of the measured noise.

        ``stored`` maps raw counts to the counts read back.
        """
        errors = [stored(counts).astype(np.float64) - counts for counts in self.sites]
        error = _block_means([each * each for each in errors])
        worst = 0.0
        for label in self.labels:
            count = np.maximum(np.bincount(label), 1)
            lost, noise = (np.bincount(label, values) / count for values in (error, self.variance))
            shares = (lost / np.maximum(noise * step * step / 12, 1e-300))[count >= _FEWEST]
            worst = max(worst, float(shares.max(initial=0.0)))
        return worst

    def zero_level(self, gain: float) -> tuple[float, float]:
        """Zero level [ADU] at a known gain (mean less variance over gain), and its standard error."""
        if self.whole.sum() < _TELLING:
            return math.nan, math.inf
        label, variance = self.labels[0][self.whole], self.variance[self.whole]
        typical = np.bincount(label, variance) / np.maximum(np.bincount(label), 1)
        weights = 1 / np.maximum(typical[label] ** 2, 1e-300)
        each = self.mean[self.whole] - variance / gain
        zero = float(weights @ each / weights.sum())
        return zero, float(np.sqrt(weights**2 @ (each - zero) ** 2) / weights.sum())

    def effective_gain(self, zero: float) -> float | None:
        """Gain of the brighter half at a known zero level [ADU per photon]; None if too few blocks exceed it.

        The median makes it robust to a few blocks that move.
        """
        brighter = self.labels[0] >= np.median(self.labels[0][self.whole]) if self.whole.any() else self.whole
        bright = self.whole & brighter & (self.mean > zero)
        if bright.sum() < _TELLING:
            return None
        return float(np.median(self.variance[bright] / (self.mean[bright] - zero)))

    def under_root(self, gain: float, zero: float) -> float:
        """Largest constant under the root [photons] for which the modelled noise stays below the measured noise.

        This cannot help where the line of this gain and zero level alone exceeds the measured noise.
        """
        light = _block_means([np.maximum(counts.astype(np.float64) - zero, 0.0) for counts in self.sites])
        count = np.maximum(np.bincount(self.labels[0]), 1)
        lit, noise = (np.bincount(self.labels[0], values) / count for values in (light, self.variance))
        left = (noise * _ABOVE - gain * lit) / gain**2
        return float(np.clip(left.min(), _LEAST, ANSCOMBE))


def _block_means(sites: list[FloatArray]) -> FloatArray:
    """Means of pixel values over blocks and the frames of their runs."""
    means = []
    for values in sites:
        rows, columns = block_grid(*values.shape[1:])
        inside = values[:, MARGIN : MARGIN + BLOCK * rows, MARGIN : MARGIN + BLOCK * columns]
        means.append(inside.reshape(-1, RUN, rows, BLOCK, columns, BLOCK).mean((1, 3, 5)).ravel())
    return np.concatenate(means)


def parts_of(source: Source, calibration: Calibration) -> Parts | None:
    """Sample a movie; None if it is too small to measure its noise, or not finite."""
    length, *_, height, width = source.shape
    if length < RUN or min(block_grid(height, width)) < 2:
        return None
    sample = draw(source, pixels=_PIXELS, runs=_RUNS)
    if not sample.finite:
        return None
    saturation = saturation_of(sample, source)
    blocks = pool(statistics_of(sample, saturation), sample.sites, same_run=False)
    whole = unsaturated(blocks)
    if sample.lowest == 0:
        whole &= ~marked(blocks.dark, blocks, blocks.usable, DARK)
    along = calibration.correlation[0]
    name = "down 2" if along > _CORRELATED or not np.isfinite(along) else "fine 2"
    labels = np.stack([by_brightness(blocks.predicted), blocks.region])
    wide = (site.reshape(-1, *site.shape[2:]).astype(np.float64) + sample.base for site in sample.sites)
    counts = [(np.rint(site) if source.dtype.kind in "iu" else site).astype(source.dtype) for site in wide]
    return Parts(counts, blocks.mean + sample.base, blocks.variance[name], labels, whole, saturation)
