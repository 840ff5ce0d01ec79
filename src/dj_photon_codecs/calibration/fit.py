"""The photon transfer line: variance against mean, over blocks that noise alone moves.

Blocks are binned by an intensity that is predicted from other blocks and other frames. Binning by the noisy intensity
itself would flatten the line by the read noise in it, and steepen it by the excess noise of a photomultiplier;
a prediction that shares no noise with what it predicts (an instrument, in the statistician's sense) does neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from .blocks import BLOCK, ENERGY, Blocks, BlockStatistics, box

Mask = npt.NDArray[np.bool_]

#: Bins of the photon transfer curve: most of them of equal count, the last ones ever rarer towards the bright end.
_QUANTILES = np.concatenate([np.linspace(0, 0.95, 40)[1:], 1 - 0.05 * 0.5 ** np.arange(1, 8)])
#: Fewest block averages in a bin, and regions of the field of view for the jackknife (per axis).
_FEWEST, _REGIONS = 40, 4
#: Largest share of a block's variance that moving structure may add, as predicted, before the block is left out.
_CONTAMINATION = 0.02
#: Largest share of saturated counts around a block, in the other runs.
_SATURATED = 0.002
#: The variance in a division by it is at least this share of the typical one.
_FLOOR = 0.05


@dataclass(frozen=True)
class Line:
    """variance = gain * (mean - zero), with what it was fitted to.

    Attributes
    ----------
    gain, zero
        [ADU per photon], [ADU].
    gain_error, zero_error
        Jackknife standard errors, same units.
    bend
        Change of the slope from the darkest to the brightest tenth of the pixels, in units of the slope.
    bend_error
        Its jackknife standard error.
    mean, variance, count
        The photon transfer curve: bin averages [ADU], [ADU^2] and number of block averages.
    """

    gain: float
    zero: float
    gain_error: float = np.inf
    zero_error: float = np.inf
    bend: float = 0.0
    bend_error: float = np.inf
    mean: FloatArray = field(default_factory=lambda: np.empty(0))
    variance: FloatArray = field(default_factory=lambda: np.empty(0))
    count: FloatArray = field(default_factory=lambda: np.empty(0))

    def at(self, mean: FloatArray) -> FloatArray:
        """Variance that the line predicts [ADU^2], kept above a small share of the typical one."""
        typical = float((self.variance * self.count).sum() / max(self.count.sum(), 1))
        predicted: FloatArray = np.maximum(self.gain * (mean - self.zero), max(_FLOOR * typical, 1e-30))
        return predicted


@dataclass(frozen=True)
class Pool:
    """The block averages of all sites, flattened, with the number of the jackknife region of each."""

    mean: FloatArray
    predicted: FloatArray
    variance: dict[int, FloatArray]
    lag2: FloatArray
    dark: FloatArray
    saturated: FloatArray
    usable: Mask
    region: npt.NDArray[np.int64]


def pool(sites: list[BlockStatistics], *, same_run: bool) -> Pool:
    """Put the blocks of all sites together and predict each block's intensity from all but itself.

    ``same_run`` says whether neighbours in the same frames may help: where the sample moves they must, but noise that
    whole rows or frames share is in them too.
    """
    instruments, regions, usable = [], [], []
    for site in sites:
        runs, rows, columns = site.mean.shape
        neighbours = ((9 * box(site.mean) - site.mean) / 8).astype(np.float32)
        others = ((site.mean.sum(0) - site.mean) / (runs - 1)).astype(np.float32) if runs > 1 else neighbours
        level = site.mean.mean((1, 2), keepdims=True)
        level = np.broadcast_to(level - level.mean(), others.shape)
        chosen = [others, box(others), level, level * (others - others.mean())]
        chosen += [neighbours] if same_run else []
        instruments.append(np.stack([x.ravel() for x in chosen], axis=1))
        elsewhen = ((site.saturated.sum(0) - site.saturated) / max(runs - 1, 1)).astype(np.float32)
        usable.append((site.usable & (box(elsewhen) < _SATURATED) & (site.saturated < 0.5)).ravel())
        region = np.arange(rows)[:, None] * _REGIONS // rows * _REGIONS + np.arange(columns) * _REGIONS // columns
        regions.append(np.broadcast_to(region, site.mean.shape).ravel())
    mean = _flat([site.mean for site in sites])
    allowed = np.concatenate(usable)
    design = np.concatenate(instruments).astype(np.float64)
    centre, weights = design.mean(0), allowed.astype(np.float64)
    spread = design.std(0) + 1e-12
    design = np.concatenate([(design - centre) / spread, np.ones((len(design), 1))], axis=1)
    normal = design.T @ (design * weights[:, None])
    normal[np.diag_indices(len(normal))] += 1e-9 * np.trace(normal) + 1e-30
    predicted = design @ np.linalg.solve(normal, design.T @ (weights * mean))
    return Pool(
        mean,
        predicted,
        {order: _flat([site.variance[order] for site in sites]) for order in ENERGY},
        _flat([site.variance_lag2 for site in sites]),
        _flat([site.dark for site in sites]),
        _flat([site.saturated for site in sites]),
        allowed,
        np.concatenate(regions),
    )


def _flat(blocks: list[Blocks]) -> FloatArray:
    return np.concatenate([x.ravel() for x in blocks]).astype(np.float64)


def _straight(mean: FloatArray, variance: FloatArray, count: FloatArray) -> tuple[float, float, float]:
    """Gain, zero and bend of bins weighted by the precision that the line itself predicts."""
    typical = float((variance * count).sum() / count.sum())
    expected = np.maximum(variance, _FLOOR * typical)
    gain = middle = level = 0.0
    for _ in range(8):
        weights = count / expected**2
        middle, level = float(weights @ mean / weights.sum()), float(weights @ variance / weights.sum())
        spread = float(weights @ (mean - middle) ** 2)
        if not spread > 0:
            return 0.0, middle, 0.0
        gain = float(weights @ ((mean - middle) * (variance - level))) / spread
        expected = np.maximum(level + gain * (mean - middle), _FLOOR * typical)
    if gain == 0:
        return 0.0, middle, 0.0
    scale = np.sqrt(spread / weights.sum())
    x = (mean - middle) / scale
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    solution = np.linalg.lstsq(design * np.sqrt(weights)[:, None], variance * np.sqrt(weights), rcond=None)[0]
    cumulative = np.cumsum(count) / count.sum()
    dark, bright = x[np.searchsorted(cumulative, 0.1)], x[min(np.searchsorted(cumulative, 0.9), len(x) - 1)]
    bend = 2 * solution[2] * (bright - dark) / (gain * scale)
    return gain, middle - level / gain, float(bend)


def fit_line(blocks: Pool, keep: Mask, order: int = 2) -> Line | None:
    """Fit the photon transfer line to the kept blocks, with jackknife errors over regions of the field of view.

    None when there are too few blocks.
    """
    if keep.sum() < 4 * _FEWEST:
        return None
    predicted = blocks.predicted[keep]
    many = len(predicted) > 100 * len(_QUANTILES)
    quantiles = _QUANTILES if many else np.linspace(0, 1, max(4, len(predicted) // 100) + 1)[1:-1]
    edges = np.unique(np.quantile(predicted, quantiles))
    regions = _REGIONS**2
    n_bins = len(edges) + 1
    index = blocks.region[keep] * n_bins + np.searchsorted(edges, predicted)
    sums = np.stack(
        [
            np.bincount(index, weights, regions * n_bins).reshape(regions, n_bins)
            for weights in (None, blocks.mean[keep], blocks.variance[order][keep])
        ]
    )
    enough = sums[0].sum(0) >= _FEWEST
    if enough.sum() < 3:
        return None
    sums = sums[:, :, enough]
    count, mean, variance = _averages(sums.sum(1))
    gain, zero, bend = _straight(mean, variance, count)
    left_out = [
        _straight(*np.take(_averages(sums.sum(1) - sums[:, r]), (1, 2, 0), axis=0))
        for r in range(regions)
        if sums[0, r].sum() > 0
    ]
    errors = np.full(3, np.inf)
    if len(left_out) > 1:
        deviations = np.array(left_out) - np.mean(left_out, axis=0)
        errors = np.sqrt((len(left_out) - 1) / len(left_out) * (deviations**2).sum(0))
    return Line(gain, zero, float(errors[0]), float(errors[1]), bend, float(errors[2]), mean, variance, count)


def _averages(sums: FloatArray) -> FloatArray:
    """(count, mean, variance) of the bins from their sums; empty bins keep the count 0."""
    return np.stack([sums[0], sums[1] / np.maximum(sums[0], 1), sums[2] / np.maximum(sums[0], 1)])


def still_blocks(blocks: Pool, sites: list[BlockStatistics], allowed: Mask) -> tuple[Mask, Line | None, float]:
    """Blocks whose variance is noise, the line through them, and the largest contamination that had to be let in.

    Structure in the field of view shows as high-passed energy of the mean image, above what noise gives. The share of
    it that reappears in the frame differences (because it moves, flickers or blinks) is measured, and blocks where
    that would add more than 2 % to the variance are left out. The sums of frames alone decide, and the share is one
    number, so that the choice does not bias the variance of photon counts.
    """
    keep, line, worst = allowed, fit_line(blocks, allowed), 0.0
    for step in range(4):
        if line is None or not line.gain > 0:
            return keep, line, worst
        expected = line.at(blocks.mean)
        excess = np.empty_like(expected)
        start = 0
        for site in sites:
            part = slice(start, start + site.mean.size)
            shape = site.mean.shape
            weights = site.usable + np.float32(1e-9)
            noise = box((expected[part].astype(np.float32).reshape(shape) * weights).sum(0) / weights.sum(0))
            ratio = box((site.structure * weights).sum(0) / weights.sum(0)) / noise - 1
            excess[part] = np.broadcast_to(ratio, site.mean.shape).ravel()
            start += site.mean.size
        excess = np.clip(excess, 0, 20)
        if step == 0:
            share = np.inf
            keep = allowed & (excess <= np.quantile(excess[allowed], 0.4))
        else:
            surplus = (blocks.variance[2] / expected - 1)[allowed]
            share = max(0.0, float(surplus @ excess[allowed]) / max(float(excess[allowed] @ excess[allowed]), 1e-12))
            contamination = share * excess
            limit = max(_CONTAMINATION, float(np.quantile(contamination[allowed], 0.1)))
            keep, worst = allowed & (contamination <= limit), limit if limit > _CONTAMINATION else 0.0
        line = fit_line(blocks, keep)
    return keep, line, worst


def energy_ratios(blocks: Pool, keep: Mask) -> dict[str, float]:
    """Variance by other filters and at lag 2, divided by the one of order 2 between neighbours; 1 for white noise."""
    reference = blocks.variance[2][keep].mean()
    ratios = {f"order {order}": float(blocks.variance[order][keep].mean() / reference) for order in (1, 3, 4)}
    return ratios | {"lag 2": float(blocks.lag2[keep].mean() / reference)}


def curve_points(line: Line, base: float) -> tuple[tuple[float, float, int], ...]:
    """The photon transfer curve for keeping: five digits are more than the noise leaves."""
    order = np.argsort(line.mean)
    return tuple(
        (float(f"{line.mean[i] + base:.7g}"), float(f"{line.variance[i]:.5g}"), int(line.count[i]) * BLOCK**2)
        for i in order
    )
