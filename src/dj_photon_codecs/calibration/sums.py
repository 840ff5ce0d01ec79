"""Gain from the sums of frames alone, for movies without contrast.

Where all pixels are equally bright, variance and mean give one point and no line. For pure photon counts the line can
still be had, pixel by pixel: given the sum s of two frames, their difference d has E[d^2 | s] = g (s - 2 z) and
E[d^4 | s] = 3 g^2 (s - 2 z)^2 - 2 g^3 (s - 2 z) (the binomial law). The second identity tells whether the first may
be used: read noise, excess noise and clipping break it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._typing import FloatArray
from .sampling import FloatImages


@dataclass(frozen=True)
class SumLine:
    """Gain and zero [ADU] with jackknife errors; ``purity`` is 1 for pure photon counts."""

    gain: float
    zero: float
    gain_error: float
    zero_error: float
    purity: float
    purity_error: float


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
    """Fit the identities to all sampled pairs of neighbouring frames; the jackknife leaves out bands of rows."""
    bands = 16
    moments = np.zeros((bands, 6))
    for site in sites:
        edges = np.linspace(0, site.shape[2], bands + 1).round().astype(int)
        for run in site:
            for first, second in ((run[0], run[1]), (run[2], run[3])):
                s, d2 = first + second, (second - first) ** 2
                for band in range(bands):
                    rows = slice(edges[band], edges[band + 1])
                    x, y = s[rows].astype(np.float64).ravel(), d2[rows].astype(np.float64).ravel()
                    moments[band] += (x.size, x.sum(), x @ x, y.sum(), y @ x, y @ y)
    moments = moments[moments[:, 0] > 0]
    whole = moments.sum(0)
    gain, zero, purity = _line(whole)
    left_out = np.array([_line(whole - band) for band in moments])
    spread = ((left_out - left_out.mean(0)) ** 2).sum(0)
    errors = np.sqrt((len(moments) - 1) / len(moments) * spread)
    return SumLine(gain, zero, float(errors[0]), float(errors[1]), purity, float(errors[2]))
