"""Check the values before measuring noise: counts or not, saturation, stretching, step size."""

from __future__ import annotations

import numpy as np

from .._typing import FloatArray
from ..sources import Source
from .sampling import Sample

WAY_OUT = "give conversion_gain and zero_level if you know them"


def about_values(sample: Sample) -> str:
    """Return the reason why the values cannot be calibrated as counts; empty if they can."""
    if not sample.finite:
        return "the movie holds NaN or infinity, which are not counts: replace them, or store another array"
    low, high = sample.lowest, sample.highest
    if low == high:
        return f"all sampled counts are {low:g}, a constant movie shows no noise: {WAY_OUT}"
    if high - low > _LARGEST:
        return (
            f"the values reach from {low:.3g} to {high:.3g}, beyond what is measured: rescale the movie, or {WAY_OUT}"
        )
    if sample.fractional and low >= 0 and high <= 1:
        return f"the values lie between {low:.3g} and {high:.3g}, scaled to 0..1: calibrate the raw counts"
    if sample.fractional and low < 0 and 0.5 < sample.deviation < 2 and abs(sample.mean) < 0.3 * sample.deviation:
        return (
            f"the values have mean {sample.mean:.2g} and standard deviation {sample.deviation:.3g}, normalised "
            f"(z-scored): calibrate the raw counts"
        )
    if low >= 0 and high > 4:
        few = np.concatenate([site[:, 0, ::4, ::4].ravel() for site in sample.sites])
        values = few.astype(np.float64) + sample.base
        roots = np.sqrt(np.maximum(values, 0))
        if not sample.fractional and high < 2**24 and len(np.unique(values)) > 3 and np.all(roots == np.rint(roots)):
            return "all counts are squares of whole numbers, which have no photon noise: calibrate the raw counts"
    return ""


_LARGEST = 1e10  # largest range of values whose summed cubes fit into float32
#: Full-scale counts of common converters. If one is the highest count, the converter is taken to saturate there.
_TOPS = {2.0**bits - 1 for bits in (8, 10, 11, 12, 13, 14, 15, 16)}


def saturation_of(sample: Sample, source: Source) -> float | None:
    """Return the count at which the converter saturates [ADU], or None if the movie does not show it.

    This is the highest count if it is full scale of the integer dtype or of a common converter, or if it occurs more
    than twice as often as any other in the top tenth of the range above the mean.
    """
    top = sample.highest
    if sample.fractional:
        return None
    if (source.dtype.kind in "iu" and top >= np.iinfo(source.dtype).max) or top in _TOPS:
        return top
    values = np.concatenate([site[:, 0].ravel() for site in sample.sites])
    hits = np.unique(values[values >= top - 0.1 * (top - sample.mean) - sample.base], return_counts=True)[1]
    return top if len(hits) > 1 and hits[-1] >= 20 and hits[-1] > 2 * hits[:-1].max() else None


def unit_of(sample: Sample) -> float:
    """Return the common step of all counts, measured from the lowest one [ADU]; 0 if there is none."""
    values: FloatArray = np.concatenate([site[:, 0, ::2, ::2].ravel() for site in sample.sites]).astype(np.float64)
    values = np.unique(values - values.min())[:4096]
    if not sample.fractional:
        return float(np.gcd.reduce(values.astype(np.int64)))
    unit = float(np.diff(values).min()) if len(values) > 3 else 0.0
    rounded = np.rint(values / unit) if unit > 1e-6 * float(values.max()) else values + 1
    return unit if float(np.abs(values / max(unit, 1e-30) - rounded).max()) < 1e-2 else 0.0


def stretched(sample: Sample) -> bool:
    """Whether each frame was stretched to the same range: equal extremes, and the highest count in only a few pixels.

    The position of the maximum must vary, because a hot pixel is always the highest.
    """
    peaks, n = [], 0
    for site in sample.sites[:: max(1, len(sample.sites) // sample.planes)]:
        frames = site.reshape(-1, site.shape[2] * site.shape[3])
        n += len(frames)
        both = (frames.max(1) >= sample.highest - sample.base) & (frames.min(1) <= sample.lowest - sample.base)
        peaks += [int(frame.argmax()) for frame in frames[both] if (frame >= sample.highest - sample.base).sum() <= 4]
    return n >= 8 and len(peaks) > 0.8 * n and len(set(peaks)) > 0.3 * len(peaks)
