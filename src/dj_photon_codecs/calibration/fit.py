"""The photon transfer line: variance against mean, over blocks in which only noise changes.

Blocks are binned by an intensity predicted from other blocks and other frames. Binning by the noisy intensity itself
would bias the slope: read noise flattens it, and the excess noise of a photomultiplier steepens it. The prediction
shares no noise with the block (it is an instrumental variable), which avoids both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray, FloatArray
from .block_noise import BLOCK, MARGIN, BlockStatistics, box
from .sampling import FloatImages

Mask = npt.NDArray[np.bool_]

#: Bin edges of the photon transfer curve: equal counts up to the 95th percentile, then halving towards the bright end.
_QUANTILES = np.concatenate([np.linspace(0, 0.95, 40)[1:], 1 - 0.05 * 0.5 ** np.arange(1, 8)])
#: Minimum number of block averages in a bin, and jackknife regions per axis of the field of view.
_FEWEST, _REGIONS = 40, 4
_ENOUGH = 1 << 14  # approximate number of values used to compute quantiles
#: Blocks are excluded if moving structure is predicted to add more than this share to their variance.
_CONTAMINATION = 0.02
#: Largest usable share of counts at the lowest value, and of saturated counts: at the block's predicted intensity, or
#: around the block in the other runs.
DARK, SATURATED = 0.02, 0.002
#: Prior standard deviation of the zero level about the clipping count [photons], and half the number of independent
#: variances in a block average.
_DARK_ERROR, _PRECISION = 0.05, 8.0
_DARKEST = 0.03  # share of blocks in the darkest, separate brightness range
_FLOOR = 0.05  # lower limit on a variance used as a divisor, relative to the typical one


@dataclass(frozen=True)
class Line:
    """variance = gain * (mean - zero), with the bins it was fitted to; errors are jackknife standard errors."""

    gain: float  # [ADU per photon]
    zero: float  # [ADU]
    gain_error: float = np.inf
    bend: float = 0.0  # relative change of slope from the 10th to the 90th percentile of blocks
    bend_error: float = np.inf
    mean: FloatArray = field(default_factory=lambda: np.empty(0))  # per bin of the photon transfer curve [ADU]
    variance: FloatArray = field(default_factory=lambda: np.empty(0))  # [ADU^2]
    count: FloatArray = field(default_factory=lambda: np.empty(0))  # block averages per bin
    errors: FloatArray = field(default_factory=lambda: np.empty(0))  # standard errors of the variances [ADU^2]

    def at(self, mean: FloatArray) -> FloatArray:
        """Variance predicted by the line [ADU^2], at least a small share of the typical one."""
        typical = float((self.variance * self.count).sum() / max(self.count.sum(), 1))
        return np.maximum(self.gain * (mean - self.zero), max(_FLOOR * typical, 1e-30))

    def points(self, base: float) -> tuple[tuple[float, float, float], ...]:
        """The photon transfer curve for storage, rounded to digits beyond its noise."""
        points = zip(self.mean + base, self.variance, self.errors, strict=True)
        return tuple(
            (float(f"{mean:.7g}"), float(f"{variance:.5g}"), float(f"{error:.3g}"))
            for mean, variance, error in sorted(points, key=lambda point: float(point[0]))
        )


@dataclass(frozen=True)
class Pool:
    """The block averages of all sites, flattened."""

    mean: FloatArray  # [ADU]
    predicted: FloatArray  # intensity predicted from other blocks and other frames [ADU]
    variance: dict[str, FloatArray]  # by filter [ADU^2], and the "third" moment [ADU^3]
    lag2: FloatArray
    dark: FloatArray
    saturated: FloatArray
    usable: Mask
    region: npt.NDArray[np.int64]  # jackknife region
    run: npt.NDArray[np.int64]
    pixel: FloatArray  # one count per block
    around: FloatArray  # mean of the adjacent blocks in the other runs


@dataclass(frozen=True)
class SumLine:
    """Gain [ADU per photon] and zero [ADU] with jackknife errors; ``purity`` is 1 for pure photon counts."""

    gain: float
    zero: float
    gain_error: float
    purity: float
    purity_error: float


def jackknife(left_out: Sequence[object]) -> FloatArray:
    """Jackknife standard errors from leave-one-out estimates."""
    values = np.array(left_out, np.float64)
    return np.asarray(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean(0)) ** 2).sum(0)))


def pool(sites: list[BlockStatistics], frames: tuple[FloatImages, ...], *, same_run: bool) -> Pool:
    """Combine the blocks of all sites, and predict each block's intensity from the others.

    ``same_run`` also uses neighbours in the same frames. Moving samples need them, but they share row and frame noise.
    """
    found = [_of_site(site, counts, same_run) for site, counts in zip(sites, frames, strict=True)]
    columns: dict[str, Any] = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    design = columns.pop("instruments").astype(np.float64)
    centre, weights = design.mean(0), columns["usable"].astype(np.float64)
    spread = design.std(0) + 1e-12
    design = np.concatenate([(design - centre) / spread, np.ones((len(design), 1))], axis=1)
    normal = design.T @ (design * weights[:, None])
    normal[np.diag_indices(len(normal))] += 1e-9 * np.trace(normal) + 1e-30
    predicted = design @ np.linalg.solve(normal, design.T @ (weights * columns["mean"]))
    variance = {name: columns.pop(name) for name in sites[0].variance}
    return Pool(predicted=predicted, variance=variance, **columns)


def _of_site(site: BlockStatistics, counts: FloatImages, same_run: bool) -> dict[str, AnyArray]:
    """Columns of :class:`Pool` for one site, plus the instruments that predict block intensity."""
    runs, rows, columns = site.mean.shape
    neighbours = ((9 * box(site.mean) - site.mean) / 8).astype(np.float32)
    others = ((site.mean.sum(0) - site.mean) / (runs - 1)).astype(np.float32) if runs > 1 else neighbours
    level = site.mean.mean((1, 2), keepdims=True)
    level = np.broadcast_to(level - level.mean(), others.shape)
    chosen = [others, box(others), level, level * (others - others.mean()), *([neighbours] if same_run else [])]
    elsewhen = ((site.saturated.sum(0) - site.saturated) / max(runs - 1, 1)).astype(np.float32)
    filled = site.variance["raw"].sum(0) == 0  # constant at all times
    region = np.arange(rows)[:, None] * _REGIONS // rows * _REGIONS + np.arange(columns) * _REGIONS // columns
    return {
        "instruments": np.stack([x.ravel() for x in chosen], axis=1),
        "usable": (site.usable & ~filled & (box(elsewhen) < SATURATED) & (site.saturated < 0.5)).ravel(),
        "region": np.broadcast_to(region, site.mean.shape).ravel(),
        "run": np.broadcast_to(np.arange(runs)[:, None, None], site.mean.shape).ravel(),
        "pixel": counts[:, 0, MARGIN::BLOCK, MARGIN::BLOCK][:, :rows, :columns].ravel().astype(np.float64),
        "around": ((9 * box(others) - others) / 8).ravel().astype(np.float64),
        **{name: getattr(site, name).ravel().astype(np.float64) for name in ("mean", "lag2", "dark", "saturated")},
        **{name: blocks.ravel().astype(np.float64) for name, blocks in site.variance.items()},
    }


def _straight(
    mean: FloatArray, variance: FloatArray, count: FloatArray, dark: float | None = None
) -> tuple[float, float, float]:
    """Fit gain, zero and bend by iteratively reweighted least squares; the line itself predicts the weights.

    ``dark`` is a prior for the zero level [ADU], with a standard deviation of ``_DARK_ERROR`` photons.
    """
    typical = float((variance * count).sum() / count.sum())
    expected = np.maximum(variance, _FLOOR * typical)
    gain = middle = level = 0.0
    x, y = (mean, variance) if dark is None else (np.append(mean, dark), np.append(variance, 0.0))
    for _ in range(8):
        weights = count / expected**2
        if dark is not None:
            bright = max(float(weights @ mean / weights.sum()) - dark, 1e-9)
            slope = gain or float(weights @ variance / weights.sum()) / bright
            weights = np.append(weights, 1 / (_PRECISION * (_DARK_ERROR * slope * slope) ** 2))
        middle, level = float(weights @ x / weights.sum()), float(weights @ y / weights.sum())
        spread = float(weights @ (x - middle) ** 2)
        if not spread > 0:
            return 0.0, middle, 0.0
        gain = float(weights @ ((x - middle) * (y - level))) / spread
        expected = np.maximum(level + gain * (mean - middle), _FLOOR * typical)
    if gain == 0:
        return 0.0, middle, 0.0
    scale = np.sqrt(spread / weights.sum())
    x = (mean - middle) / scale
    design, root = np.stack([np.ones_like(x), x, x**2], axis=1), np.sqrt(weights[: len(x)])
    solution = np.linalg.lstsq(design * root[:, None], variance * root, rcond=None)[0]
    cumulative = np.cumsum(count) / count.sum()
    low, high = x[np.searchsorted(cumulative, 0.1)], x[min(np.searchsorted(cumulative, 0.9), len(x) - 1)]
    bend = 2 * solution[2] * (high - low) / (gain * scale)
    return gain, middle - level / gain, float(bend)


def _edges(values: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Edges at these quantiles, from a subsample of the values."""
    return np.unique(np.quantile(values[:: max(1, len(values) // _ENOUGH)], quantiles))


def by_brightness(predicted: FloatArray) -> npt.NDArray[np.int64]:
    """Brightness range of each block: the darkest blocks, then deciles."""
    return np.searchsorted(_edges(predicted, np.append(_DARKEST, np.linspace(0, 1, 11)[1:-1])), predicted)


def fit_line(blocks: Pool, keep: Mask, order: str = "fine 2", dark: float | None = None) -> Line | None:
    """Fit the photon transfer line to the kept blocks, with jackknife errors over regions; None if too few blocks.

    ``dark`` is the count at which the converter clips, which serves as a prior for the zero level [ADU].
    """
    if keep.sum() < 4 * _FEWEST:
        return None
    predicted = blocks.predicted[keep]
    many = len(predicted) > 100 * len(_QUANTILES)
    edges = _edges(predicted, _QUANTILES if many else np.linspace(0, 1, max(4, len(predicted) // 100) + 1)[1:-1])
    regions, n_bins = _REGIONS**2, len(edges) + 1
    index = blocks.region[keep] * n_bins + np.searchsorted(edges, predicted)
    values = (None, blocks.mean[keep], blocks.variance[order][keep])
    sums = np.stack([np.bincount(index, each, regions * n_bins).reshape(regions, n_bins) for each in values])
    enough = sums[0].sum(0) >= _FEWEST
    if enough.sum() < 3:
        return None
    sums = sums[:, :, enough]
    count, mean, variance = _averages(sums.sum(1))
    gain, zero, bend = _straight(mean, variance, count, dark)
    others = [_averages(sums.sum(1) - sums[:, r]) for r in range(regions) if sums[0, r].sum() > 0]
    errors, of_bins = np.full(3, np.inf), np.abs(variance)
    if len(others) > 1:
        errors = jackknife([_straight(each[1], each[2], each[0], dark) for each in others])
        of_bins = jackknife([each[2] for each in others])
    return Line(gain, zero, float(errors[0]), bend, float(errors[2]), mean, variance, count, of_bins)


def _averages(sums: FloatArray) -> FloatArray:
    """(count, mean, variance) per bin from sums; empty bins keep the count 0."""
    return np.stack([sums[0], sums[1] / np.maximum(sums[0], 1), sums[2] / np.maximum(sums[0], 1)])


def still_blocks(blocks: Pool, sites: list[BlockStatistics]) -> tuple[Mask, Line | None, float]:
    """Return the blocks whose variance is noise, their line, and the contamination that had to be accepted.

    Structure shows as high-passed energy of the mean image in excess of noise. The share of it that reappears in frame
    differences (because it moves, flickers or blinks) is measured. Blocks in which it would add more than 2 % to the
    variance are excluded. The choice depends only on frame sums and this one share, so it does not bias the variance
    of photon counts.
    """
    allowed = unsaturated(blocks)
    keep, line, worst = allowed, fit_line(blocks, allowed), 0.0
    for step in range(4):
        if line is None or not line.gain > 0:
            return keep, line, worst
        expected = line.at(blocks.mean)
        excess = np.clip(_structure(sites, expected), 0, 20)
        if step == 0:
            keep = allowed & (excess <= np.quantile(excess[allowed][::4], 0.4))
        else:
            surplus = (blocks.variance["fine 2"] / expected - 1)[allowed]
            share = max(0.0, float(surplus @ excess[allowed]) / max(float(excess[allowed] @ excess[allowed]), 1e-12))
            contamination = share * excess
            limit = max(_CONTAMINATION, float(np.quantile(contamination[allowed][::4], 0.1)))
            keep, worst = allowed & (contamination <= limit), limit if limit > _CONTAMINATION else 0.0
        line = fit_line(blocks, keep)
    return keep, line, worst


def _structure(sites: list[BlockStatistics], expected: FloatArray) -> FloatArray:
    """High-passed energy of the mean image around each block in excess of noise, relative to the noise."""
    found, start = [], 0
    for site in sites:
        noise, start = expected[start : start + site.mean.size], start + site.mean.size
        weights = site.usable + np.float32(1e-9)
        of_noise = box((noise.astype(np.float32).reshape(site.mean.shape) * weights).sum(0) / weights.sum(0))
        ratio = box((site.structure * weights).sum(0) / weights.sum(0)) / of_noise - 1
        found.append(np.broadcast_to(ratio, site.mean.shape).ravel())
    return np.concatenate(found).astype(np.float64)


def marked(share: FloatArray, blocks: Pool, keep: Mask, limit: float) -> Mask:
    """Mask of blocks at predicted intensities where more than a share ``limit`` of the counts is marked.

    Selecting by predicted intensity, not by the block's own counts, keeps the choice independent of its noise.
    """
    if not share.any() or not keep.any():
        return np.zeros_like(keep)
    edges = _edges(blocks.predicted[keep], np.linspace(0, 1, 65)[1:-1])
    index = np.searchsorted(edges, blocks.predicted)
    count = np.bincount(index[keep], minlength=64)
    return np.asarray((np.bincount(index[keep], share[keep], 64) / np.maximum(count, 1) > limit)[index])


def unsaturated(blocks: Pool) -> Mask:
    """Mask of usable blocks at predicted intensities where almost no counts saturate."""
    return blocks.usable & ~marked(blocks.saturated, blocks, blocks.usable, SATURATED)


def _sum_line(moments: FloatArray) -> FloatArray:
    """(gain, zero, purity) from the sums of 1, s, s^2, d^2, d^2 s, d^4."""
    _, s, s2, d2, d2s, d4 = moments / moments[0]
    spread = s2 - s**2
    if spread <= 0 or d2 <= 0 or d2s == d2 * s:
        return np.full(3, np.nan)
    gain = (d2s - d2 * s) / spread
    twice_zero = s - d2 / gain
    centred = s2 - 2 * twice_zero * s + twice_zero**2
    return np.array([gain, twice_zero / 2, 3 - (3 * gain**2 * centred - d4) / (d2 * gain**2)])


def fit_sums(sites: tuple[FloatImages, ...]) -> SumLine:
    """Fit the gain to pairs of frames, for movies without contrast; the jackknife leaves out bands of rows.

    If all pixels are equally bright, variance and mean give one point and no line. Pure photon counts still give a
    line, pixel by pixel: given the sum s of two frames, their difference d has E[d^2 | s] = g (s - 2 z) and
    E[d^4 | s] = 3 g^2 (s - 2 z)^2 - 2 g^3 (s - 2 z) (binomial law). The second identity tests whether the first
    applies: read noise, excess noise and clipping break it.
    """
    bands = 16
    moments = np.zeros((bands, 6))
    for site in sites:
        band = np.arange(site.shape[2]) * bands // site.shape[2]
        for run in site:
            for first, second in ((run[0], run[1]), (run[2], run[3])):
                x, y = (first + second).astype(np.float64), (second - first).astype(np.float64)
                y *= y
                ones = np.full(len(x), float(x.shape[1]))
                squares, mixed, fourth = (np.einsum("rc,rc->r", a, b) for a, b in ((x, x), (y, x), (y, y)))
                np.add.at(moments, band, np.stack([ones, x.sum(1), squares, y.sum(1), mixed, fourth], axis=1))
    moments = moments[moments[:, 0] > 0]
    whole = moments.sum(0)
    gain, zero, purity = _sum_line(whole)
    gain_error, _, purity_error = jackknife([_sum_line(whole - band) for band in moments])
    return SumLine(gain, zero, float(gain_error), purity, float(purity_error))
