"""Elementary functions that give the same bits on every machine.

IEEE 754 fixes the results of +, -, *, / and sqrt to the last bit, but not those of exp, log and the like, which differ
in the last place between math libraries and between the SIMD variants that numpy picks at run time. The order in which
``numpy.sum`` and BLAS add also varies. The simulation promises one recording per seed, so it uses the functions below:
polynomials of the exact operations, elementwise, in a fixed order. They are accurate to a few units in the last place;
the tests compare them with ``math``.
"""

from __future__ import annotations

import math

import numpy as np

from .._typing import FloatArray

#: ln 2 as a sum: the first part has so few bits that k * LN2_HIGH is exact for every exponent k (W. J. Cody and
#: W. Waite, Software Manual for the Elementary Functions, 1980, chapter 6).
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_PER_LN2 = float.fromhex("0x1.71547652b82fep+0")
_SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
#: Larger arguments make exp overflow; below -700 it is negligible for photon counts.
_LARGEST_EXPONENT = 700.0

#: 1/k! for the series of exp, and 1/(2k + 1) for that of log.
_EXP = tuple(1.0 / math.factorial(k) for k in range(14, -1, -1))
_LOG = tuple(1.0 / (2 * k + 1) for k in range(11, -1, -1))

#: Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26: |error| < 1.5e-7.
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERF_P = 0.3275911


def _polynomial(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    """Horner's scheme, highest power first."""
    result = np.full(x.shape, coefficients[0])
    for coefficient in coefficients[1:]:
        result *= x
        result += coefficient
    return result


def exp(x: FloatArray | float) -> FloatArray:
    """e**x, with x clipped to +-700."""
    x = np.clip(np.asarray(x, np.float64), -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    k = np.rint(x * _PER_LN2)
    rest = (x - k * _LN2_HIGH) - k * _LN2_LOW
    return np.ldexp(_polynomial(_EXP, rest), k.astype(np.int32))


def log(x: FloatArray | float) -> FloatArray:
    """Natural logarithm of positive numbers: 2 artanh((m - 1)/(m + 1)) of the mantissa."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    k = np.where(small, exponent - 1, exponent).astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = 2.0 * s * _polynomial(_LOG, s * s)
    return k * _LN2_HIGH + (k * _LN2_LOW + series)


def power(x: FloatArray, exponent: float) -> FloatArray:
    """x**exponent for x >= 0 and exponent > 0."""
    x = np.asarray(x, np.float64)
    return np.where(x > 0, exp(exponent * log(np.where(x > 0, x, 1.0))), 0.0)


def erf(x: FloatArray) -> FloatArray:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    size = np.abs(np.asarray(x, np.float64))
    t = 1.0 / (1.0 + _ERF_P * size)
    value = 1.0 - t * _polynomial(_ERF, t) * exp(-(size * size))
    return np.where(np.asarray(x) < 0, -value, value)


def total(x: FloatArray) -> float:
    """The sum, rounded once, so it does not depend on the order of addition."""
    return math.fsum(np.asarray(x, np.float64).ravel().tolist())


def mean(x: FloatArray) -> float:
    """The mean of at least one number, from :func:`total`."""
    return total(x) / x.size


def decay(dt_s: float, tau_s: float) -> float:
    """The fraction left after ``dt_s`` of a decay with time constant ``tau_s``; 0 for ``tau_s`` = 0."""
    return 0.0 if tau_s <= 0 else float(exp(-dt_s / tau_s))


def gaussian_kernel(sigma_px: float) -> FloatArray:
    """A Gaussian sampled at whole pixels to 3 sigma, of sum 1; [1.0] for sigma 0."""
    radius = math.ceil(3.0 * sigma_px)
    if radius == 0:
        return np.ones(1)
    x = np.arange(-radius, radius + 1).astype(np.float64)
    weights = exp(-(x * x) / (2.0 * sigma_px * sigma_px))
    return weights / total(weights)


def blur_patch(patch: FloatArray, sigma_px: float) -> FloatArray:
    """A small image after a Gaussian blur: larger by the kernel's radius on every side, with the same sum.

    Scattering each pixel of the patch is cheaper than gathering each pixel of the result when the patch is small and
    the kernel wide, as for a cell far out of focus.
    """
    kernel = gaussian_kernel(sigma_px)
    height, width = patch.shape
    reach = kernel.size
    tall = np.zeros((height + reach - 1, width))
    for row in range(height):
        tall[row : row + reach] += kernel[:, None] * patch[row]
    grown = np.zeros((height + reach - 1, width + reach - 1))
    for column in range(width):
        grown[:, column : column + reach] += tall[:, column, None] * kernel
    return grown


def blur_image(image: FloatArray, sigma_px: float) -> FloatArray:
    """An image after a Gaussian blur of the same shape, with mirrored edges."""
    kernel = gaussian_kernel(sigma_px)
    radius = kernel.size // 2
    for _ in range(2):  # along rows, then along columns
        padded = np.pad(image, ((radius, radius), (0, 0)), mode="symmetric")
        blurred = np.zeros(image.shape)
        for tap, weight in enumerate(kernel.tolist()):
            blurred += weight * padded[tap : tap + image.shape[0]]
        image = blurred.T
    return np.ascontiguousarray(image)
