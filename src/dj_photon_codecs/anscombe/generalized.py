"""The generalised Anscombe transform to unit noise in floating point, and its inverses.

The model is ``x = gain * n + offset + read noise``, with ``n`` Poisson and read noise of known variance. The transform
of Murtagh, Starck and Bijaoui (1995, Astron. Astrophys. Suppl. 112:179) has a standard deviation of 1 from a few
photons upwards. After averaging or denoising, the algebraic inverse is biased, because the mean of a square root is
not the square root of the mean (Makitalo and Foi 2011, IEEE Trans. Image Process. 20:99; 2013, ibid. 22:91). This
module computes their exact unbiased inverse directly from the Poisson-Gaussian distribution.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from ..errors import CalibrationError, ConfigurationError, InvalidMovieError, MovieTypeError

#: From this mean upwards (photons + read noise + 3/8), the asymptotic inverse is accurate to 1e-5 photons.
_ASYMPTOTIC = 150.0

#: Size of the exact inverse table below that mean. Linear interpolation is accurate to 1e-6 photons.
_POINTS = 4096


def generalized_anscombe(
    x: npt.ArrayLike, conversion_gain: float = 1, zero_level: float = 0, variance: float = 0
) -> Any:
    """Stabilise the noise of counts to a standard deviation of 1.

    Computes ``(2 / gain) * sqrt(max(gain * x + 3/8 * gain**2 + variance - gain * zero_level, 0))``, where ``gain`` is
    the conversion gain.

    Parameters
    ----------
    x
        Counts [ADU], of any shape.
    conversion_gain
        Conversion gain [ADU/photon].
    zero_level
        With ``variance=0``, the zero level of a :class:`~dj_photon_codecs.Calibration`, which includes the read noise
        [ADU]. With a read noise variance, the mean of the read noise (the pedestal).
    variance
        Variance of the read noise [ADU^2].

    Returns
    -------
    numpy.ndarray or scalar
        In the shape of ``x``; float32 for float32 and float16 counts, float64 for others.

    Raises
    ------
    CalibrationError
        If the conversion gain is not finite and above 0, the zero level is not finite, or the variance is not finite
        or is negative.

    See Also
    --------
    generalized_inverse_anscombe : Inverse transform.
    """
    _check_noise(conversion_gain, zero_level, variance)
    values, dtype = _floating(x)
    gain = conversion_gain
    argument = gain * values + (0.375 * gain * gain + variance - gain * zero_level)
    return _like((2.0 / gain) * np.sqrt(np.maximum(argument, 0.0)), dtype)


def generalized_inverse_anscombe(
    y: npt.ArrayLike,
    conversion_gain: float = 1,
    zero_level: float = 0,
    variance: float = 0,
    method: Literal["exact", "algebraic"] = "exact",
) -> Any:
    """Convert stabilised values back to counts.

    Use ``method="exact"`` for means: values averaged over frames or pixels, denoised, or fitted. It returns the mean
    count whose stabilised values have that mean, without bias at any intensity (Makitalo and Foi). Use
    ``method="algebraic"`` for unprocessed single samples: it inverts :func:`generalized_anscombe` value by value,
    and would bias a mean by up to a quarter of a photon.

    Parameters
    ----------
    y
        Floating-point output of :func:`generalized_anscombe`, or means of it, of any shape.
    conversion_gain, zero_level, variance
        The arguments that were passed to :func:`generalized_anscombe`.
    method
        ``exact`` or ``algebraic``.

    Returns
    -------
    numpy.ndarray or scalar
        Counts [ADU] in the shape of ``y``; float32 for float32 and float16 values, float64 for others. With
        ``method="exact"``, means below the value without light become ``zero_level``.

    Raises
    ------
    ConfigurationError
        If ``method`` is unknown.
    MovieTypeError
        If ``y`` is an integer array or a stored movie, which holds counts.
    InvalidMovieError
        If ``y`` cannot be stabilised values: values below -1 or above 2^17, or only whole numbers, as in counts.
    CalibrationError
        If the conversion gain is not finite and above 0, the zero level is not finite, or the variance is not finite
        or is negative.
    """
    _check_noise(conversion_gain, zero_level, variance)
    _refuse_counts(y)
    values, dtype = _floating(y)
    noise = variance / conversion_gain**2  # variance of the read noise in photons
    if method == "algebraic":
        photons = np.square(values / 2) - 0.375 - noise
    elif method == "exact":
        photons = _mean_photons(values, float(noise))
    else:
        raise ConfigurationError(
            f"method must be 'exact' (for means) or 'algebraic' (sample by sample), got {method!r}"
        )
    return _like(zero_level + conversion_gain * photons, dtype)


#: Suggestion for error messages: the two calls that users confuse.
_MEANT = (
    "To stabilise counts, call generalized_anscombe(counts, conversion_gain, zero_level). To get counts back, call "
    "generalized_inverse_anscombe(stabilized, conversion_gain, zero_level) with what that gave, or with means of it"
)

#: Stabilised value of 2^32 photons in one sample, more than any detector counts.
_LARGEST = 2.0**17

#: Denoising can leave values slightly below 0, by less than their noise.
_LOWEST = -1.0

#: Fewer whole numbers than this may be a coincidence.
_FEW = 8


def _refuse_counts(y: Any) -> None:
    """Raise if ``y`` looks like counts, whose inverse would be silently wrong."""
    kind = ""
    if hasattr(type(y), "calibration") and hasattr(type(y), "verify"):  # a lazy handle; this does not read it
        kind = "a stored movie"
    elif (dtype := np.dtype(getattr(y, "dtype", None) or np.asarray(y).dtype)).kind in "iub":
        kind = f"integers ({dtype})"
    if kind:
        raise MovieTypeError(f"generalized_inverse_anscombe takes stabilised values, got counts: {kind}. {_MEANT}")
    values = np.asarray(y)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return
    lowest, highest = float(values.min()), float(values.max())
    if lowest < _LOWEST or highest > _LARGEST:
        raise InvalidMovieError(
            f"stabilised values are square roots, from 0 to {_LARGEST:g}; got values from {lowest:g} to {highest:g}. "
            f"{_MEANT}"
        )
    if values.size >= _FEW and lowest < highest and (values == np.floor(values)).all():
        raise InvalidMovieError(
            f"stabilised values are square roots, and here all {values.size} values are whole numbers, from "
            f"{lowest:g} to {highest:g}, as counts are. {_MEANT}"
        )


def _check_noise(conversion_gain: float, zero_level: float, variance: float) -> None:
    if not (math.isfinite(conversion_gain) and conversion_gain > 0):
        raise CalibrationError(
            f"conversion_gain must be a finite number above 0 [ADU per photon], got {conversion_gain!r}"
        )
    if not math.isfinite(zero_level):
        raise CalibrationError(f"zero_level must be a finite number [ADU], got {zero_level!r}")
    if not (math.isfinite(variance) and variance >= 0):
        raise CalibrationError(f"variance must be a finite number from 0 [ADU^2], got {variance!r}")


def _floating(values: npt.ArrayLike) -> tuple[FloatArray, npt.DTypeLike]:
    """Return the values as float64, and the dtype of the result."""
    given = np.asarray(values)
    narrow = given.dtype.kind == "f" and given.dtype.itemsize <= 4
    return given.astype(np.float64), np.float32 if narrow else np.float64


def _like(result: FloatArray, dtype: npt.DTypeLike) -> Any:
    """Cast the result to its dtype; a 0-d result becomes a scalar."""
    return np.asarray(result).astype(dtype)[()]


def _mean_photons(values: FloatArray, noise: float) -> FloatArray:
    """Return the mean photon counts for means of stabilised values."""
    # E[y]^2/4 = m - 1/4 - (1 - r)/(8 m) + O(1/m^2) with m = photons + 3/8 + noise and r = photons / m, from the second
    # to fourth cumulants of the distribution
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
    """Return mean stabilised values and their mean photon counts, for a read noise variance in photons."""
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
    """Return the mean of ``2 sqrt(max(n + z + 3/8 + noise, 0))`` over read noise ``z`` at each photon number ``n``."""
    centres = numbers + 0.375 + noise
    if noise == 0:
        return np.asarray(2.0 * np.sqrt(centres))
    # As a function of r = sqrt(...), the integrand is smooth even at 0, where the root has a kink. The trapezoidal
    # rule therefore converges as fast as for a Gaussian.
    sigma = math.sqrt(noise)
    low = np.sqrt(np.maximum(centres - 10 * sigma, 0.0))
    high = np.sqrt(centres + 10 * sigma)
    roots, spacing = np.linspace(low, high, 1001, axis=-1, retstep=True)
    density = np.exp(-np.square((np.square(roots) - centres[:, None]) / sigma) / 2) / (sigma * math.sqrt(2 * math.pi))
    return np.asarray((4.0 * np.square(roots) * density).sum(axis=-1) * spacing)
