"""Spikes from fluorescence: the fit of a train of decaying transients, and how it compares with the truth."""

from __future__ import annotations

import math

import numpy as np

from .._typing import AnyArray, FloatArray

#: Spikes are transients that rise by this many noise standard deviations of the trace at once.
THRESHOLD = 3.0


def oasis_ar1(
    trace: FloatArray, decay: float, smallest: float = 0.0, penalty: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """The non-negative sum of decaying transients that fits a trace best, and when each begins.

    Minimises ``sum((c - trace)^2) / 2 + penalty * sum(s)`` over ``s[t] = c[t] - decay * c[t-1]``, which are 0 or at
    least ``smallest``: OASIS for an autoregressive process of order 1 (J. Friedrich, P. Zhou and L. Paninski, PLOS
    Computational Biology 13 (2017) e1005423: algorithm 1, and its hard threshold on the size of a spike). Neighbouring
    samples are pooled, with the solution decaying within each pool, until no pool begins lower than it may.

    Parameters
    ----------
    trace
        Fluorescence less its baseline: (time,).
    decay
        Part of the signal that is left after a frame: 0 <= decay < 1.
    smallest
        Least size of a spike, in units of the trace.
    penalty
        On the sum of all spikes; 0 with a threshold.

    Returns
    -------
    calcium, spikes
        Float64 (time,) each.
    """
    powers = decay ** np.arange(len(trace) + 1)
    power = powers.tolist()
    shifted = np.asarray(trace, np.float64) - penalty * (1 - decay)
    shifted[-1:] -= penalty * decay
    values: list[float] = []
    weights: list[float] = []
    lengths: list[int] = []
    for sample in shifted.tolist():
        value, weight, length = sample, 1.0, 1
        while values and value < max(values[-1], 0.0) * power[lengths[-1]] + smallest:
            factor = power[lengths[-1]]
            joint = weights[-1] + factor * factor * weight
            value = (weights[-1] * values[-1] + factor * weight * value) / joint
            weight, length = joint, lengths[-1] + length
            values.pop(), weights.pop(), lengths.pop()
        values.append(value)
        weights.append(weight)
        lengths.append(length)
    calcium = np.concatenate([max(v, 0.0) * powers[:n] for v, n in zip(values, lengths, strict=True)])
    spikes = np.zeros_like(calcium)
    starts = np.cumsum(lengths)[:-1]
    spikes[starts] = calcium[starts] - decay * calcium[starts - 1]
    return calcium, np.maximum(spikes, 0.0)


def trace_noise(trace: FloatArray) -> float:
    """Standard deviation of a trace's noise, from the upper half of its spectrum, where calcium has no power.

    E. A. Pnevmatikakis et al., Neuron 89 (2016) 285, Methods.
    """
    power = np.abs(np.fft.rfft(trace - trace.mean())) ** 2 / len(trace)
    return math.sqrt(float(power[len(power) // 2 :].mean()))


def deconvolved(dff: FloatArray, decay: float) -> FloatArray:
    """Spikes of a dF/F trace: OASIS with a threshold of three standard deviations of the trace's noise.

    The trace's 20th percentile is 0; noise puts that below the resting level by 0.84 of its standard deviation.
    """
    noise = trace_noise(dff)
    return oasis_ar1(dff - 0.8416 * noise, decay, smallest=THRESHOLD * noise)[1]


def onsets(train: FloatArray) -> AnyArray:
    """Frames in which spikes begin: a slow rise, or a burst, that goes on over several frames counts once."""
    active = train > 0
    return np.flatnonzero(active & ~np.concatenate([[False], active[:-1]]))


def matched_events(found: AnyArray, true: AnyArray, tolerance: int) -> int:
    """How many events (frame numbers, sorted) have a partner of their own within ``tolerance`` frames.

    Going through both in order and pairing the earliest that fit gives the most pairs.
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
    """Pearson's, 0 where one of the two is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / norm if norm > 0 else 0.0


def smoothed(train: FloatArray, frames: float) -> FloatArray:
    """A spike train as a rate: through a Gaussian of that standard deviation, so that a frame's delay costs little."""
    reach = math.ceil(4 * frames)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    return np.convolve(train, kernel / kernel.sum(), mode="full")[reach : reach + len(train)]
