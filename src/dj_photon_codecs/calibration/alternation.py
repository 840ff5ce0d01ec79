"""Detect channels or planes interleaved frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from .sampling import RUN, FloatImages, Sample

_PERIODS, _FEWEST = range(2, 7), 4  # candidate periods [frames], and the minimum number of frames per phase
#: Minimum ratio of the variance between phases to that within them: median over patches, and for whole-frame noise.
#: Phases that do not differ give 1.
_PLACES, _FRAMES = 4.0, 12.0
_LARGE = 0.08  # minimum scatter of the phase means, relative to brightness or energy
_SIDE = 4  # side of a patch, counted in every second pixel


def alternation(sample: Sample) -> int:
    """Return the period at which frames alternate in brightness or noise; 1 if they don't.

    The difference must be both significant and large, because a lamp or a mirror causes small ones.
    """
    times = (np.array(sample.starts)[:, None] + np.arange(RUN)).ravel()
    brightness = np.concatenate([_places(site) for site in sample.sites], axis=1)
    above = np.maximum(brightness.mean(0) - (sample.lowest - sample.base), 1e-30)
    roughness = np.log(np.maximum(np.stack([_roughness(site) for site in sample.sites], axis=1), 1e-30))
    best, strength = 1, 1.0
    for period in _PERIODS:
        phase = times % period
        if np.bincount(phase, minlength=period).min() < _FEWEST:
            continue
        for values, scale, limit in ((brightness, above, _PLACES), (roughness, 1.0, _FRAMES)):
            means = np.stack([values[phase == i].mean(0) for i in range(period)])
            if float(np.median(means.std(0) / scale)) < _LARGE:
                continue
            found = float(np.median(_ratio(values, means, phase, period))) / limit
            if found > 1.2 * strength:  # a multiple of the period is no better
                best, strength = period, found
    return best


def _places(site: FloatImages) -> FloatArray:
    """Mean brightness of square patches, shape (frames, patches)."""
    frames = site.reshape(-1, *site.shape[2:])[:, ::2, ::2]
    rows = np.add.reduceat(frames, np.arange(0, frames.shape[1], _SIDE), axis=1)
    places = np.add.reduceat(rows, np.arange(0, frames.shape[2], _SIDE), axis=2)[:, :-1, :-1] / np.float32(_SIDE**2)
    return np.asarray(places.reshape(len(frames), -1), np.float64)


def _roughness(site: FloatImages) -> FloatArray:
    """Energy of each frame at the finest scale, from both structure and noise."""
    frames = site.reshape(-1, *site.shape[2:])[:, :128, :128]
    fine = np.diff(np.diff(frames, axis=1), axis=2)
    return np.asarray(np.einsum("tyx,tyx->t", fine, fine), np.float64)


def _ratio(values: FloatArray, means: FloatArray, phase: npt.NDArray[np.int64], period: int) -> FloatArray:
    """Ratio of the variance between phases to the variance within them, per column."""
    count = np.bincount(phase, minlength=period)[:, None].astype(np.float64)
    between = (count * (means - values.mean(0)) ** 2).sum(0) / (period - 1)
    within = ((values - means[phase]) ** 2).sum(0) / (len(phase) - period)
    return np.asarray(between / np.maximum(within, 1e-30 + 1e-12 * values.var(0)))
