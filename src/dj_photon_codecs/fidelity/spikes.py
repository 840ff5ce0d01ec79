"""Infer spikes from fluorescence by fitting decaying transients, and match them with the truth."""

from __future__ import annotations

import math

import numpy as np

from .._arguments import check
from .._typing import AnyArray, FloatArray

#: Minimum size of a spike [noise standard deviations of the trace].
THRESHOLD = 3.0


def oasis_ar1(
    trace: FloatArray, decay: float, smallest: float = 0.0, penalty: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Fit a trace with a non-negative sum of decaying transients, and return it with the spikes that start them.

    Minimises ``sum((c - trace)^2) / 2 + penalty * sum(s)``, where each ``s[t] = c[t] - decay * c[t-1]`` is 0 or at
    least ``smallest``. This is OASIS for an autoregressive process of order 1 (J. Friedrich, P. Zhou and L. Paninski,
    PLOS Computational Biology 13 (2017) e1005423: algorithm 1, with its hard threshold on spike size). Neighbouring
    samples are merged into pools, each a decaying exponential, until every pool starts high enough above the last.

    Parameters
    ----------
    trace
        Fluorescence less its baseline: (time,).
    decay
        Fraction of the signal that remains after one frame: 0 <= decay < 1.
    smallest
        Minimum size of a spike, in units of the trace.
    penalty
        Penalty on the sum of all spikes; use 0 with a threshold.

    Returns
    -------
    calcium, spikes
        Fitted signal and spikes, float64, (time,) each.

    Raises
    ------
    ConfigurationError
        If the trace is empty, not one-dimensional or not finite, or a number is out of range.
    """
    given, trace = trace, np.asarray(trace, np.float64)
    right = trace.ndim == 1 and trace.size and np.isfinite(trace).all()
    check(right, "oasis_ar1: trace", given, "finite numbers along one axis, (time,)")
    check(0 <= decay < 1, "oasis_ar1: decay", decay, "from 0 to below 1: the part that is left after a frame")
    check(0 <= smallest < math.inf, "oasis_ar1: smallest", smallest, "a finite number from 0")
    check(0 <= penalty < math.inf, "oasis_ar1: penalty", penalty, "a finite number from 0")
    powers = decay ** np.arange(len(trace) + 1)
    power = powers.tolist()
    shifted = trace - penalty * (1 - decay)
    shifted[-1:] -= penalty * decay
    pools: list[tuple[float, float, int]] = []  # value at the start, weight, length
    for sample in shifted.tolist():
        value, weight, length = sample, 1.0, 1
        while pools:
            before, its_weight, its_length = pools[-1]
            factor = power[its_length]
            if value >= max(before, 0.0) * factor + smallest:
                break
            pools.pop()
            joint = its_weight + factor * factor * weight
            value = (its_weight * before + factor * weight * value) / joint
            weight, length = joint, its_length + length
        pools.append((value, weight, length))
    calcium = np.concatenate([max(value, 0.0) * powers[:length] for value, _, length in pools])
    spikes = np.zeros_like(calcium)
    starts = np.cumsum([length for *_, length in pools])[:-1]
    spikes[starts] = calcium[starts] - decay * calcium[starts - 1]
    return calcium, np.maximum(spikes, 0.0)


def trace_noise(trace: FloatArray) -> float:
    """Noise standard deviation of a trace, from the upper half of its spectrum, where calcium has no power.

    Method of E. A. Pnevmatikakis et al., Neuron 89 (2016) 285.
    """
    power = np.abs(np.fft.rfft(trace - trace.mean())) ** 2 / len(trace)
    return math.sqrt(float(power[len(power) // 2 :].mean()))


def deconvolved(dff: FloatArray, decay: float) -> FloatArray:
    """Spikes of a dF/F trace, by OASIS with a threshold of three noise standard deviations.

    dF/F is 0 at the trace's 20th percentile, which noise puts 0.84 standard deviations below the resting level.
    """
    noise = trace_noise(dff)
    return oasis_ar1(dff - 0.8416 * noise, decay, smallest=THRESHOLD * noise)[1]


def onsets(train: FloatArray) -> AnyArray:
    """Frames in which spikes start; a slow rise or burst over several consecutive frames counts once."""
    active = train > 0
    return np.flatnonzero(active & ~np.concatenate([[False], active[:-1]]))


def matched_events(found: AnyArray, true: AnyArray, tolerance: int) -> int:
    """Number of pairs of events (sorted frame numbers) within ``tolerance`` frames, each used once.

    Pairing the earliest events that fit, in order, gives the most pairs.
    """
    pairs = i = j = 0
    while i < len(found) and j < len(true):
        if abs(int(found[i]) - int(true[j])) <= tolerance:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return pairs


def correlation(first: FloatArray, second: FloatArray) -> float:
    """Pearson correlation; 0 if either input is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / norm if norm > 0 else 0.0


def smoothed(train: FloatArray, frames: float) -> FloatArray:
    """Smooth a spike train with a Gaussian (standard deviation in frames), so that a one-frame delay costs little."""
    reach = math.ceil(4 * frames)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    return np.convolve(train, kernel / kernel.sum(), mode="full")[reach : reach + len(train)]
