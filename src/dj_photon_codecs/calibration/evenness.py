"""Check that the noise at equal brightness is white and does not vary over time or the field of view."""

from __future__ import annotations

import numpy as np

from .block_noise import BLOCK, BlockStatistics
from .fit import Line, Mask, Pool
from .sampling import RUN

#: Relative scatter of the noise, over time and over the field of view, that indicates different detector settings, and
#: the ratio of the highest to the lowest region that must accompany the latter.
TIME_SPREAD, REGION_SPREAD, REGION_RATIO = 0.12, 0.10, 1.3
#: Rows and columns of regions in the field of view, minimum blocks per region, minimum photons per block.
_ROWS, _COLUMNS, _FEWEST, _PHOTONS = 4, 8, 12, 50.0


def ratios(blocks: Pool, keep: Mask) -> dict[str, float]:
    """Variance of each filter and at lag 2, relative to "fine 2"; 1 for white noise."""
    reference = float(blocks.variance["fine 2"][keep].mean())
    found = {name: float(variance[keep].mean()) / reference for name, variance in blocks.variance.items()}
    return found | {"lag 2": float(blocks.lag2[keep].mean()) / reference}


def correlation(ratio: dict[str, float]) -> tuple[float, float, float]:
    """Correlation of neighbouring pixels, lines and frames.

    A correlation r scales the variance of second differences by 1 - 4/3 r, and the ratio of order 4 to 2 by 1 - 4/15 r.
    """
    along = 0.75 * (1 - ratio["along 2"] / ratio["down 2"])
    across = 3.75 * (1 - ratio["down 4"] / ratio["down 2"])
    return tuple(float(np.clip(r, -1, 1)) for r in (along, across, ratio["lag 2"] - 1))  # type: ignore[return-value]


def time_spread(blocks: Pool, keep: Mask, line: Line, order: str) -> float:
    """Relative scatter of measured over modelled noise from run to run, in excess of chance."""
    share, run = (blocks.variance[order] / line.at(blocks.mean))[keep], blocks.run[keep]
    count = np.bincount(run)
    used = count > 50
    if used.sum() < 3:
        return 0.0
    means = np.bincount(run, share)[used] / count[used]
    square = np.bincount(run, share**2)[used] / count[used] - means**2
    chance = float((1.3 * square / count[used]).mean())
    return float(np.sqrt(max(means.var(ddof=1) - chance, 0.0)) / means.mean())


def region_spread(
    blocks: Pool, sites: list[BlockStatistics], allowed: Mask, line: Line, order: str
) -> tuple[float, float]:
    """Relative scatter of measured over modelled noise between regions, in excess of chance; and highest over lowest.

    Each block is averaged over time, and a region is the median of its blocks. This ignores active cells and hot
    pixels but reveals a second detector.
    """
    values, regions, start = [], [], 0
    for number, site in enumerate(sites):
        runs, rows, columns = site.mean.shape
        part = slice(start, start + site.mean.size)
        start += site.mean.size
        weight = allowed[part].reshape(runs, -1).astype(float)
        expected = (line.at(blocks.mean[part]).reshape(runs, -1) * weight).sum(0)
        photons = expected / max(line.gain, 1e-30) ** 2 * BLOCK**2 * RUN
        good = (weight.sum(0) > runs / 2) & (photons > _PHOTONS)
        found = (blocks.variance[order][part].reshape(runs, -1) * weight).sum(0) / np.maximum(expected, 1e-30)
        place = (np.arange(rows) * _ROWS // rows)[:, None] * _COLUMNS + np.arange(columns) * _COLUMNS // columns
        values.append(found[good])
        regions.append(place.ravel()[good] + number * _ROWS * _COLUMNS)
    share, region = np.concatenate(values), np.concatenate(regions)
    medians, chance = [], []
    for number in set(region.tolist()):
        here = share[region == number]
        if len(here) >= _FEWEST:
            low, high = np.quantile(here, [0.25, 0.75]).tolist()
            medians.append(float(np.median(here)))
            chance.append(1.5 * (high - low) ** 2 / 1.8 / len(here))
    if len(medians) < 4:
        return 0.0, 1.0
    middle = float(np.mean(medians))
    scatter = max(float(np.var(medians)) - float(np.mean(chance)), 0.0) ** 0.5 / middle
    return scatter, max(medians) / max(min(medians), 1e-30)
