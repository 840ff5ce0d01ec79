"""The generalised Anscombe transform to unit noise in floating point, and its inverses.

For counts ``x = gain * n + offset + read noise`` with ``n`` Poisson and read noise of a known variance, the
transform of Murtagh, Starck and Bijaoui (1995, Astron. Astrophys. Suppl. 112:179) has a standard deviation of 1
wherever there are a few photons. Makitalo and Foi (2011, IEEE Trans. Image Process. 20:99; 2013, ibid. 22:91) showed
that after averaging or denoising it must not be undone by algebra: the mean of a square root is not the square root
of the mean. Their exact unbiased inverse is computed here from the Poisson-Gaussian law itself.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from ..errors import CalibrationError, ConfigurationError

#: From this mean on (photons, read noise and 3/8 together) the asymptotic inverse is exact to 1e-5 photons.
_ASYMPTOTIC = 150.0

#: Points of the table of the exact inverse below that: linear interpolation between them errs by 1e-6 photons.
_POINTS = 4096


def generalized_anscombe(x: npt.ArrayLike, gain: float = 1, offset: float = 0, variance: float = 0) -> Any:
    """Stabilise the noise of counts to a standard deviation of 1.

    ``(2 / gain) * sqrt(max(gain * x + 3/8 * gain**2 + variance - gain * offset, 0))``

    Parameters
    ----------
    x
        Counts [ADU], of any shape.
    gain
        Conversion gain [ADU/photon].
    offset
        Mean of the read noise: the pedestal [ADU]. With ``variance=0`` and the ``zero_level`` of a
        :class:`~dj_photon_codecs.Calibration` as offset, the read noise is part of the zero level.
    variance
        Variance of the read noise [ADU^2].

    Returns
    -------
    numpy.ndarray or scalar
        Of the shape of ``x``; float32 for float32 and float16 counts, float64 for others.

    Raises
    ------
    CalibrationError
        When the gain is not a finite number above 0, the offset not finite, or the variance negative.

    See Also
    --------
    generalized_inverse_anscombe : The way back.
    """
    _check_noise(gain, offset, variance)
    values, dtype = _floating(x)
    argument = gain * values + (0.375 * gain * gain + variance - gain * offset)
    return _like((2.0 / gain) * np.sqrt(np.maximum(argument, 0.0)), dtype)


def generalized_inverse_anscombe(
    y: npt.ArrayLike,
    gain: float = 1,
    offset: float = 0,
    variance: float = 0,
    method: Literal["exact", "algebraic"] = "exact",
) -> Any:
    """Counts of stabilised values.

    Use ``method="exact"`` for values that are means: averaged over frames or pixels, denoised, fitted. It gives
    the mean count whose stabilised values have that mean, without bias at any intensity (Makitalo and Foi).
    Use ``method="algebraic"`` for single samples that nothing was done to: it undoes
    :func:`generalized_anscombe` value by value, and would bias a mean by up to a quarter of a photon.

    Parameters
    ----------
    y
        Stabilised values, of any shape.
    gain, offset, variance
        As they were given to :func:`generalized_anscombe`.
    method
        ``exact`` or ``algebraic``.

    Returns
    -------
    numpy.ndarray or scalar
        Counts [ADU] of the shape of ``y``; float32 for float32 and float16 values, float64 for others. Means
        below that of no light at all give ``offset``.

    Raises
    ------
    ConfigurationError
        For another method.
    CalibrationError
        When the gain is not a finite number above 0, the offset not finite, or the variance negative.
    """
    _check_noise(gain, offset, variance)
    values, dtype = _floating(y)
    noise = variance / gain**2  # variance of the read noise in photons
    if method == "algebraic":
        photons = np.square(values / 2) - 0.375 - noise
    elif method == "exact":
        photons = _mean_photons(values, float(noise))
    else:
        raise ConfigurationError(
            f"method must be 'exact' (for means) or 'algebraic' (sample by sample), got {method!r}"
        )
    return _like(offset + gain * photons, dtype)


def _check_noise(gain: float, offset: float, variance: float) -> None:
    if not (math.isfinite(gain) and gain > 0):
        raise CalibrationError(f"gain must be a finite number above 0 [ADU per photon], got {gain!r}")
    if not math.isfinite(offset):
        raise CalibrationError(f"offset must be a finite number [ADU], got {offset!r}")
    if not (math.isfinite(variance) and variance >= 0):
        raise CalibrationError(f"variance must be a finite number from 0 [ADU^2], got {variance!r}")


def _floating(values: npt.ArrayLike) -> tuple[FloatArray, npt.DTypeLike]:
    """Values in float64, and the dtype that their result has."""
    given = np.asarray(values)
    narrow = given.dtype.kind == "f" and given.dtype.itemsize <= 4
    return given.astype(np.float64), np.float32 if narrow else np.float64


def _like(result: FloatArray, dtype: npt.DTypeLike) -> Any:
    """The result in its dtype; a scalar for a scalar."""
    return np.asarray(result).astype(dtype)[()]


def _mean_photons(values: FloatArray, noise: float) -> FloatArray:
    """The mean photon count at which the stabilised values have these means."""
    # E[y]^2/4 = m - 1/4 - (1 - r)/(8 m) + O(1/m^2) at m = photons + 3/8 + noise, with r the share of the photons in
    # m: from the second to fourth cumulants of the law
    mean = np.square(values / 2) + 0.25
    others = np.clip((noise + 0.375) / np.maximum(mean, 0.25), 0.0, 1.0)
    mean = mean + others / (8.0 * mean)
    photons = mean - 0.375 - noise
    if noise + 0.375 < _ASYMPTOTIC:
        expectations, rates = _expectation_table(noise)
        tabulated = np.interp(values, expectations, rates)
        photons = np.where(values < expectations[-1], tabulated, photons)
    return np.where(np.isnan(values), np.nan, np.maximum(photons, 0.0))


@lru_cache(maxsize=32)
def _expectation_table(noise: float) -> tuple[FloatArray, FloatArray]:
    """Mean stabilised values at mean photon counts from 0, at a read noise variance in photons."""
    rates = np.linspace(0.0, math.sqrt(_ASYMPTOTIC - 0.375 - noise), _POINTS) ** 2
    most = int(rates[-1] + 12 * math.sqrt(rates[-1] + 1) + 20)
    numbers = np.arange(most + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(numbers[1:]))])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weights = numbers * np.log(rates)[:, None] - rates[:, None] - log_factorials
    log_weights[0] = np.where(numbers == 0, 0.0, -np.inf)
    expectations = np.exp(log_weights) @ _conditional_means(numbers, noise)
    expectations.flags.writeable = rates.flags.writeable = False
    return expectations, rates


def _conditional_means(numbers: npt.NDArray[np.integer[Any]], noise: float) -> FloatArray:
    """Mean of ``2 sqrt(max(n + z + 3/8 + noise, 0))`` over read noise ``z``, at each photon number ``n``."""
    centres = numbers + 0.375 + noise
    if noise == 0:
        return np.asarray(2.0 * np.sqrt(centres))
    # In r = sqrt(...) the integrand is smooth, also at 0 where the root has its corner, so that the trapezoidal
    # rule converges as fast as for a Gaussian.
    sigma = math.sqrt(noise)
    low = np.sqrt(np.maximum(centres - 10 * sigma, 0.0))
    high = np.sqrt(centres + 10 * sigma)
    means = np.empty(len(centres))
    for index, (centre, start, stop) in enumerate(zip(centres, low, high, strict=True)):
        roots, spacing = np.linspace(start, stop, 1001, retstep=True)
        density = np.exp(-np.square((np.square(roots) - centre) / sigma) / 2) / (sigma * math.sqrt(2 * math.pi))
        means[index] = float((4.0 * np.square(roots) * density).sum()) * float(spacing)
    return means
