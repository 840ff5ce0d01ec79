"""Random numbers that are the same on every machine and with every numpy.

numpy guarantees the raw bits of a bit generator, but not what ``Generator`` makes of them (NEP 19). So the bits come
from Philox, and the distributions are computed here with the operations of :mod:`.arithmetic`.

Each step of the model has its own streams, named after it, and one per frame where it draws per frame. Adding a step or
skipping frames does not change what the others draw.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from .._typing import AnyArray, FloatArray
from .arithmetic import exp, log

#: Smallest mean for which Poisson numbers come from transformed rejection instead of inversion.
_REJECTION_FROM = 10.0
#: Ends the search if rounding keeps the sum below 1; a larger Poisson number of mean 10 has probability 1e-158.
_LARGEST_INVERTED = 200

_LOG_SQRT_2PI = 0.9189385332046727
#: ln k! for small k, where Stirling's series is not yet accurate.
_LOG_FACTORIAL = np.array([0.0] + [float(log(float(math.factorial(k)))) for k in range(1, 10)])

# M. J. Wichura, Algorithm AS 241: The percentage points of the normal distribution, Applied Statistics 37 (1988),
# 477-484, routine PPND16, relative accuracy 1e-16: numerators and denominators, highest power first.
# fmt: off
_CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)
_NEAR_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)
# fmt: on


class Stream:
    """A random number stream, identified by the recording's seed and by names: step, purpose, and frame if needed."""

    def __init__(self, seed: int, *names: str | int) -> None:
        label = "/".join(str(part) for part in (seed, *names))
        key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "little")
        self._bits = np.random.Philox(key=key)

    def uniform(self, *shape: int) -> FloatArray:
        """Numbers strictly between 0 and 1, with 52 random bits."""
        raw = np.asarray(self._bits.random_raw(math.prod(shape)), np.uint64)
        return (((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)

    def normal(self, *shape: int) -> FloatArray:
        """Standard normal numbers, by inversion."""
        return normal_quantile(self.uniform(*shape))

    def poisson(self, mean: FloatArray) -> FloatArray:
        """Whole numbers with Poisson statistics, exact for every mean >= 0, as float64.

        By inversion below a mean of 10, else by algorithm PTRS of W. Hoermann, Insurance: Mathematics and Economics 12
        (1993), 39-45.
        """
        flat = np.asarray(mean, np.float64).ravel()
        large = flat >= _REJECTION_FROM
        counts = np.empty(flat.shape)
        counts[~large] = self._inverted(flat[~large])
        counts[large] = self._rejected(flat[large])
        return counts.reshape(np.shape(mean))

    def gamma(self, shape: FloatArray) -> FloatArray:
        """Gamma numbers of scale 1 and the given shapes, which are at least 1 (0 gives 0).

        G. Marsaglia and W. W. Tsang, ACM Transactions on Mathematical Software 26 (2000), 363-372.
        """
        flat = np.asarray(shape, np.float64).ravel()
        values = np.zeros(flat.shape)
        left = np.flatnonzero(flat > 0)
        while left.size:
            d = flat[left] - 1.0 / 3.0
            x = self.normal(left.size)
            v = 1.0 + x / np.sqrt(9.0 * d)
            v = v * v * v
            u = self.uniform(left.size)
            positive = v > 0
            bound = 0.5 * x * x + d * (1.0 - v + log(np.where(positive, v, 1.0)))
            accept = positive & (log(u) < bound)
            values[left[accept]] = (d * v)[accept]
            left = left[~accept]
        return values.reshape(np.shape(shape))

    def _inverted(self, mean: FloatArray) -> FloatArray:
        """Poisson numbers of small means: step up the distribution until it passes a uniform number."""
        counts = np.zeros(mean.shape)
        u = self.uniform(mean.size)
        probability = exp(-mean)
        left = np.flatnonzero(u > probability)
        u, mean, probability = u[left], mean[left], probability[left]
        reached = probability
        k = 0
        while left.size and k < _LARGEST_INVERTED:
            k += 1
            probability = probability * (mean / k)
            reached = reached + probability
            counts[left] = k
            on = u > reached
            left, u, mean, probability, reached = left[on], u[on], mean[on], probability[on], reached[on]
        return counts

    def _rejected(self, mean: FloatArray) -> FloatArray:
        """Poisson numbers of means from 10 on (PTRS; the names of its quantities are the paper's)."""
        counts = np.zeros(mean.shape)
        left = np.arange(mean.size)
        while left.size:
            mu = mean[left]
            b = 0.931 + 2.53 * np.sqrt(mu)
            a = -0.059 + 0.02483 * b
            u = self.uniform(left.size) - 0.5
            v = self.uniform(left.size)
            us = 0.5 - np.abs(u)
            k = np.floor((2.0 * a / us + b) * u + mu + 0.43)
            accept = (us >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2.0))
            slow = np.flatnonzero(~accept & (k >= 0) & ~((us < 0.013) & (v > us)))
            mu, a, b, us, v, ks = mu[slow], a[slow], b[slow], us[slow], v[slow], k[slow]
            inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
            accept[slow] = log(v * inverse_alpha / (a / (us * us) + b)) <= ks * log(mu) - mu - log_factorial(ks)
            counts[left[accept]] = k[accept]
            left = left[~accept]
        return counts


def log_factorial(k: FloatArray) -> FloatArray:
    """Ln k! of whole numbers >= 0: a table below 10, then Stirling's series."""
    x = np.maximum(k, 9.0) + 1.0
    y = 1.0 / (x * x)
    series = (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y * (1.0 / 1680.0)))) / x
    stirling = (x - 0.5) * log(x) - x + _LOG_SQRT_2PI + series
    small = _LOG_FACTORIAL[np.minimum(k, 9.0).astype(np.int64)]
    return np.where(k < 10, small, stirling)


def normal_quantile(p: FloatArray) -> FloatArray:
    """The standard normal quantile of 0 < p < 1 (AS 241)."""
    q = np.asarray(p, np.float64) - 0.5
    r = 0.180625 - q * q
    result = q * _ratio(_CENTRE, r)
    tails = np.abs(q) > 0.425
    if tails.any():
        p_tail, q_tail = p[tails], q[tails]
        r = np.sqrt(-log(np.where(q_tail < 0, p_tail, 1.0 - p_tail)))
        tail = np.where(r <= 5.0, _ratio(_NEAR_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
        result[tails] = np.where(q_tail < 0, -tail, tail)
    return result


def two_states(on: AnyArray, chance: FloatArray, switch_on: float, switch_off: float) -> AnyArray:
    """Whether each unit is on after each step (steps, unit), given its initial state ``on``.

    ``chance`` holds uniform numbers (steps, unit); the others are the probabilities to switch in one step.
    """
    states = np.empty(chance.shape, np.bool_)
    for index, row in enumerate(chance):
        states[index] = on = np.where(on, row >= switch_off, row < switch_on)
    return states


def lognormal(normal: FloatArray, variation: float) -> FloatArray:
    """Log-normal numbers of mean 1 and the given coefficient of variation, from standard normal ones."""
    variance = float(log(1.0 + variation * variation))
    return exp(math.sqrt(variance) * normal - 0.5 * variance)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: FloatArray) -> FloatArray:
    """A rational function, elementwise."""
    top, bottom = (np.full(x.shape, side[0]) for side in coefficients)
    for above, below in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        top = top * x + above
        bottom = bottom * x + below
    return np.asarray(top / bottom)
