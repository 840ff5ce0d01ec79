"""What re-quantisation does to photon counts, summed over their law instead of drawn from it.

A pixel that expects ``p`` photons gives ``n`` of them with the Poisson probability ``exp(-p) p^n / n!``, and each ``n``
a count: the one that the gain and the pedestal say, or with read noise one of a normal law around it. There are few
enough of both to sum over all, so that bias and added variance come out to ten digits, without a random number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray, FloatArray
from ..anscombe.dithered import at_every_offset
from ..anscombe.parameters import TransformParameters
from ..errors import ConfigurationError

#: Standard deviations of either law that are summed over; what lies beyond has a probability below 1e-14.
_REACH = 8.0

#: Counts from which a 16-bit converter would be full.
_LARGEST_COUNT = 65535

#: Moments that are summed: error, its square, count, its square, count times error.
_MOMENTS = 5


@dataclass(frozen=True, eq=False)
class ExactErrors:
    """Bias and added variance of stored counts at each intensity.

    Attributes
    ----------
    photons
        Expected photons a pixel: float64, one dimension.
    noise
        Standard deviation of the counts [ADU].
    bias
        Mean of stored less raw counts, in units of ``noise``.
    inflation
        Variance of the stored counts less that of the raw ones, over the latter.
    mean_square
        Mean square of stored less raw counts, over the variance of the raw ones.
    """

    photons: FloatArray
    noise: FloatArray
    bias: FloatArray
    inflation: FloatArray
    mean_square: FloatArray


def exact_errors(
    photons: npt.ArrayLike,
    *,
    conversion_gain: float,
    pedestal: float = 0.0,
    read_noise: float = 0.0,
    step: float = 0.5,
    stored: Callable[[AnyArray], AnyArray] | None = None,
) -> ExactErrors:
    """Bias and variance inflation at given intensities, by summing over the Poisson law.

    Counts are ``rint(pedestal + conversion_gain * (n + read_noise * z))`` in uint16, clipped to its range, with ``n``
    Poisson and ``z`` standard normal.

    Parameters
    ----------
    photons
        Expected photons a pixel, each above 0.
    conversion_gain
        [ADU per photon].
    pedestal
        Count without light [ADU]. The zero level that the transform is given is the pedestal less
        ``conversion_gain * read_noise**2``, as the line of variance against mean has it.
    read_noise
        Standard deviation of the read noise [photons].
    step
        Quantisation in noise standard deviations.
    stored
        What gives the stored counts for a uint16 array of raw ones, of the same shape or with an axis in front
        for outcomes that are equally likely; this package's transform, at all its offsets, when None.

    Raises
    ------
    ConfigurationError
        For intensities that are not above 0, a negative read noise, or counts beyond 16 bits.
    """
    means = np.atleast_1d(np.asarray(photons, np.float64)).ravel()
    if means.size == 0 or not (np.isfinite(means).all() and (means > 0).all()) or read_noise < 0:
        raise ConfigurationError(
            f"exact_errors: photons from {means.min(initial=math.inf):g} and read_noise={read_noise:g}; photons must "
            "be finite numbers above 0, and the read noise at least 0"
        )
    if stored is None:
        parameters = TransformParameters(
            zero_level=pedestal - conversion_gain * read_noise**2,
            conversion_gain=conversion_gain,
            encoded_dtype="int32",
            step=step,
        )

        def stored(counts: AnyArray) -> AnyArray:
            return at_every_offset(counts, parameters)

    top = float(means.max())
    most = math.ceil(top + _REACH * math.sqrt(top) + _REACH * 2)  # the upper tail at small means is longer
    if pedestal + conversion_gain * (top + 5 * math.sqrt(top)) > _LARGEST_COUNT:
        raise ConfigurationError(
            f"exact_errors: {top:g} photons at a gain of {conversion_gain:g} are counts beyond {_LARGEST_COUNT}: "
            "ask for fewer photons"
        )
    given_n = _moments_of_each(np.arange(most + 1), conversion_gain, pedestal, read_noise, stored)
    error, square, count, count_square, cross = (_poisson(means, most) @ given_n).T
    # Moments are about the count of the first n: about 0 the variance would lose its digits at a high pedestal.
    variance = count_square - count**2
    added = square - error**2 + 2 * (cross - error * count)
    noise = np.sqrt(variance)
    return ExactErrors(means, noise, error / noise, added / variance, square / variance)


def _poisson(means: FloatArray, most: int) -> FloatArray:
    """Probability of 0 to ``most`` photons at each mean: (mean, photons)."""
    n = np.arange(most + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(n[1:]))])
    return np.asarray(np.exp(n * np.log(means)[:, None] - means[:, None] - log_factorial))


def _moments_of_each(
    n: AnyArray, gain: float, pedestal: float, read_noise: float, stored: Callable[[AnyArray], AnyArray]
) -> FloatArray:
    """The expected moments of the counts of each number of photons: (photons, moment)."""
    centres = pedestal + gain * n
    moments = np.empty((n.size, _MOMENTS))
    width = gain * read_noise
    reach = _REACH * width + 1
    lowest, highest = np.clip([centres[0] - reach, centres[-1] + reach], 0, _LARGEST_COUNT).astype(int).tolist()
    every = np.arange(lowest, highest + 1).astype(np.uint16)
    errors = np.atleast_2d(stored(every)).astype(np.float64) - every
    mean_error, mean_square = errors.mean(axis=0), (errors**2).mean(axis=0)
    for index, centre in enumerate(centres.tolist()):
        if width == 0:
            counts, chance = np.rint([centre]), np.ones(1)
        else:
            counts = np.arange(math.floor(centre - _REACH * width), math.ceil(centre + _REACH * width) + 1)
            edges = (np.append(counts, counts[-1] + 1) - 0.5 - centre) / (width * math.sqrt(2))
            chance = np.diff([math.erf(edge) for edge in edges.tolist()]) / 2
            chance /= chance.sum()
        raw = np.clip(counts, lowest, highest).astype(np.int64)
        error, square = mean_error[raw - lowest], mean_square[raw - lowest]
        about = raw - centres[0]
        moments[index] = [chance @ each for each in (error, square, about, about**2, about * error)]
    return moments
