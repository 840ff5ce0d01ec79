"""The noise that storage assumes: a lower envelope of the measured noise.

Overestimating the noise discards signal; underestimating it costs bytes. So the model of the transform,
variance = gain * max(x - zero, 0) + gain^2 * under_root, stays below the noise measured at every brightness, in every
region and at every time, within a tolerance. Of all these models the one that costs the fewest bytes is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from .model import ANSCOMBE

#: Relative tolerance above the measured variance, and the most added to it for the measurement's standard error.
_TOLERANCE, _MOST_ERROR = 0.04, 0.08
#: Candidates for the constant under the root, and for raising the zero level above the measured one [photons].
_UNDER_ROOT = ANSCOMBE * 2.0 ** -np.arange(12)
_RAISED = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.28, ANSCOMBE, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0])
_COUNTS, JUDGED = 1024, 4096  # number of counts kept per group, and for the whole movie


@dataclass(frozen=True)
class Group:
    """A part of the movie: a range of brightness, a region or a time."""

    mean: float  # mean of its blocks [ADU]
    variance: float  # noise of its blocks [ADU^2]
    error: float  # standard error of the variance, relative
    dark: float  # share of its counts at the movie's lowest count
    counts: FloatArray  # a sample of its counts [ADU]


def thinned(counts: FloatArray, most: int = _COUNTS) -> FloatArray:
    """Return at most ``most`` counts, evenly spaced."""
    return counts[:: max(1, -(-len(counts) // most))]


def lower_envelope(
    groups: list[Group],
    counts_of_all: FloatArray,
    gain: float,
    zeros: list[float],
    exact: tuple[float | None, float | None],
) -> tuple[float, float, float] | None:
    """Return the gain, zero level and constant under the root that stay below the noise of all groups, or None.

    ``counts_of_all`` is a sample of the whole movie, used to estimate the bytes. The envelope's gain never exceeds
    ``gain``, the measured one. ``zeros`` are the measured zero levels. ``exact`` holds the lowest and the highest count
    if they are stored without error, else None.
    """
    mean = np.array([group.mean for group in groups])
    allowed = np.array([g.variance * (1 + _TOLERANCE + min(g.error, _MOST_ERROR)) for g in groups])
    if not allowed.min() > 0:
        return None
    width = min(len(group.counts) for group in groups)
    counts = np.stack([group.counts[np.arange(width) * len(group.counts) // width] for group in groups])
    low, top = exact
    saturated = np.zeros(counts.shape, bool) if top is None else counts == top
    dark = np.zeros(len(groups)) if low is None else np.array([group.dark for group in groups])
    rounded = ~saturated if low is None else ~saturated & (counts != low)
    full = saturated.mean(1)
    share = np.maximum(1 - dark - full, 0.0)
    # Light of the rounded counts. Group means and dark shares are known better than the few counts kept.
    light_of_rounded = mean - dark * (low or 0.0) - full * (top or 0.0)
    within = np.maximum(rounded.sum(1), 1)
    judged = counts_of_all[~np.isin(counts_of_all, [value for value in exact if value is not None])]
    if not len(judged):
        return None
    best: tuple[float, float, float] | None = None
    score = -np.inf
    for zero in zeros:
        for raised in _RAISED:
            level = zero + raised * gain
            below = (np.maximum(level - counts, 0) * rounded).sum(1) / within
            light = np.maximum(light_of_rounded - share * (level - below), 1e-9 * gain)
            for under_root in _UNDER_ROOT:
                found = min(gain, _largest(light, under_root * share, allowed))
                bits = float(np.log(found * np.maximum(judged - level, 0) + found * found * under_root).mean())
                if bits > score + 1e-9:
                    best, score = (found, level, float(under_root)), bits
    return best


def _largest(light: FloatArray, constant: npt.NDArray[np.float64], allowed: FloatArray) -> float:
    """The largest gain with gain * light + gain^2 * constant <= allowed everywhere."""
    root = np.sqrt(light * light + 4 * constant * allowed)
    return float((2 * allowed / (light + root)).min())
