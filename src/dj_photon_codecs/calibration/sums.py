"""Gain from pairs of frames, for movies without contrast.

If all pixels are equally bright, variance and mean give one point and no line. Pure photon counts still give a line,
pixel by pixel: given the sum s of two frames, their difference d has E[d^2 | s] = g (s - 2 z) and
E[d^4 | s] = 3 g^2 (s - 2 z)^2 - 2 g^3 (s - 2 z) (binomial law). The second identity tests whether the first applies:
read noise, excess noise and clipping break it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._typing import FloatArray
from .sampling import FloatImages


@dataclass(frozen=True)
class SumLine:
    """Gain [ADU per photon] and zero [ADU] with jackknife errors; ``purity`` is 1 for pure photon counts."""

    gain: float
    zero: float
    gain_error: float
    purity: float
    purity_error: float


def jackknife(left_out: Sequence[object]) -> FloatArray:
    """Jackknife standard errors from leave-one-out estimates."""
    values = np.array(left_out, np.float64)
    return np.asarray(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean(0)) ** 2).sum(0)))


def _line(moments: FloatArray) -> FloatArray:
    """(gain, zero, purity) from the sums of 1, s, s^2, d^2, d^2 s, d^4."""
    _, s, s2, d2, d2s, d4 = moments / moments[0]
    spread = s2 - s**2
    if spread <= 0 or d2 <= 0 or d2s == d2 * s:
        return np.full(3, np.nan)
    gain = (d2s - d2 * s) / spread
    twice_zero = s - d2 / gain
    centred = s2 - 2 * twice_zero * s + twice_zero**2
    return np.array([gain, twice_zero / 2, 3 - (3 * gain**2 * centred - d4) / (d2 * gain**2)])


def fit_sums(sites: tuple[FloatImages, ...]) -> SumLine:
    """Fit the identities to pairs of neighbouring frames; the jackknife leaves out bands of rows."""
    bands = 16
    moments = np.zeros((bands, 6))
    for site in sites:
        band = np.arange(site.shape[2]) * bands // site.shape[2]
        for run in site:
            for first, second in ((run[0], run[1]), (run[2], run[3])):
                x, y = (first + second).astype(np.float64), (second - first).astype(np.float64)
                y *= y
                ones = np.full(len(x), float(x.shape[1]))
                squares, mixed, fourth = (np.einsum("rc,rc->r", a, b) for a, b in ((x, x), (y, x), (y, y)))
                np.add.at(moments, band, np.stack([ones, x.sum(1), squares, y.sum(1), mixed, fourth], axis=1))
    moments = moments[moments[:, 0] > 0]
    whole = moments.sum(0)
    gain, zero, purity = _line(whole)
    gain_error, _, purity_error = jackknife([_line(whole - band) for band in moments])
    return SumLine(gain, zero, float(gain_error), purity, float(purity_error))
