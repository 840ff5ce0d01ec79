"""Effect of re-quantisation on photon counts, summed over their distribution instead of sampled.

A pixel that expects ``p`` photons detects ``n`` with the Poisson probability ``exp(-p) p^n / n!``. Gain and pedestal
turn ``n`` into a count; read noise spreads it normally. Both distributions are small enough to sum exactly, so bias and
added variance are accurate to ten digits without random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from .._arguments import brief_repr, check
from .._typing import AnyArray, FloatArray
from ..anscombe.codes import at_every_offset
from ..anscombe.parameters import TransformParameters
from ..errors import ConfigurationError

#: Standard deviations of either distribution that are summed; the probability beyond is below 1e-14.
_REACH = 8.0
_LARGEST_COUNT = 65535  # the largest count of a 16-bit converter


@dataclass(frozen=True, eq=False)
class ExactErrors:
    """Bias and added variance of stored counts at each intensity; each field has one value per intensity."""

    photons: FloatArray
    """Expected photons per pixel: float64, one dimension."""
    noise: FloatArray
    """Standard deviation of the counts [ADU]."""
    bias: FloatArray
    """Mean of stored less raw counts, in units of ``noise``."""
    inflation: FloatArray
    """Relative increase in variance from raw to stored counts."""
    mean_square: FloatArray
    """Mean square of stored less raw counts, relative to the variance of the raw counts."""

    __repr__ = brief_repr


def exact_errors(
    photons: npt.ArrayLike,
    *,
    conversion_gain: float,
    pedestal: float = 0.0,
    read_noise: float = 0.0,
    step: float = 0.5,
    stored: Callable[[AnyArray], AnyArray] | None = None,
) -> ExactErrors:
    """Compute bias and variance inflation at given intensities by summing over the Poisson distribution.

    Counts are ``rint(pedestal + conversion_gain * (n + read_noise * z))`` in uint16, clipped to its range, with ``n``
    Poisson and ``z`` standard normal.

    Parameters
    ----------
    photons
        Expected photons per pixel, each above 0.
    conversion_gain
        [ADU per photon].
    pedestal
        Count without light [ADU]. The transform's zero level is the pedestal less ``conversion_gain * read_noise**2``,
        where the line of variance against mean reaches 0.
    read_noise
        Standard deviation of the read noise [photons].
    step
        Quantisation in noise standard deviations.
    stored
        Function that maps a uint16 array of raw counts to stored counts, of the same shape or with a leading axis of
        equally likely outcomes. If None, this package's transform at all dither offsets.

    Raises
    ------
    ConfigurationError
        If an intensity is not above 0, the read noise is negative, or counts exceed 16 bits.
    """
    try:
        means = np.atleast_1d(np.asarray(photons, np.float64)).ravel()
    except (TypeError, ValueError):
        means = np.empty(0)
    positive = means.size and np.isfinite(means).all() and (means > 0).all()
    check(positive, "exact_errors: photons", photons, "one or more finite numbers above 0")
    check(0 < conversion_gain < math.inf, "exact_errors: conversion_gain", conversion_gain, "a finite number above 0")
    check(0 <= read_noise < math.inf, "exact_errors: read_noise", read_noise, "a finite number from 0")
    check(math.isfinite(pedestal), "exact_errors: pedestal", pedestal, "a finite number of ADU")
    if stored is None:
        parameters = TransformParameters(
            zero_level=pedestal - conversion_gain * read_noise**2,
            conversion_gain=conversion_gain,
            encoded_dtype="int32",
            step=step,
            dither="position",
        )
        stored = partial(at_every_offset, parameters=parameters)

    top = float(means.max())
    most = math.ceil(top + _REACH * math.sqrt(top) + _REACH * 2)  # the upper tail at small means is longer
    if pedestal + conversion_gain * (top + 5 * math.sqrt(top)) > _LARGEST_COUNT:
        raise ConfigurationError(
            f"exact_errors: {top:g} photons at a gain of {conversion_gain:g} are counts beyond {_LARGEST_COUNT}: "
            "ask for fewer photons"
        )
    given_n = _moments_of_each(np.arange(most + 1), conversion_gain, pedestal, read_noise, stored)
    error, square, count, count_square, cross = (_poisson(means, most) @ given_n).T
    # Moments are about the count at n = 0: about 0 ADU, a high pedestal would cost the variance its digits.
    variance = count_square - count**2
    added = square - error**2 + 2 * (cross - error * count)
    noise = np.sqrt(variance)
    return ExactErrors(means, noise, error / noise, added / variance, square / variance)


def _poisson(means: FloatArray, most: int) -> FloatArray:
    """Poisson probability of 0 to ``most`` photons at each mean: (mean, photons)."""
    n = np.arange(most + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(n[1:]))])
    return np.asarray(np.exp(n * np.log(means)[:, None] - means[:, None] - log_factorial))


def _moments_of_each(
    n: AnyArray, gain: float, pedestal: float, read_noise: float, stored: Callable[[AnyArray], AnyArray]
) -> FloatArray:
    """Expected error, error squared, count, count squared, and count times error for each number of photons."""
    centres = pedestal + gain * n
    width = gain * read_noise
    reach = _REACH * width + 1
    lowest, highest = np.clip([centres[0] - reach, centres[-1] + reach], 0, _LARGEST_COUNT).astype(int).tolist()
    every = np.arange(lowest, highest + 1).astype(np.uint16)
    errors = np.atleast_2d(stored(every)).astype(np.float64) - every
    mean_error, mean_square = errors.mean(axis=0), (errors**2).mean(axis=0)
    moments = []
    for centre in centres.tolist():
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
        moments.append([chance @ each for each in (error, square, about, about**2, about * error)])
    return np.array(moments)
