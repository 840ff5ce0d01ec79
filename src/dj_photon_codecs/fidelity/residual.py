"""Test stored less raw counts for traces of the image; there are none if only noise was rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._typing import FloatArray
from .spikes import correlation

#: Lags (frames, rows, columns) of the residual's autocorrelation.
LAGS = (
    (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 0, 2), (0, 2, 0), (0, 0, 5), (0, 5, 0),
    (1, 0, 0), (2, 0, 0), (3, 0, 0), (5, 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Lag:
    """Autocorrelation of the residual at one lag."""

    frames: int
    """Distance in frames."""
    rows: int
    """Distance in rows."""
    columns: int
    """Distance in columns."""
    correlation: float
    """Correlation, from -1 to 1; 0 for a residual of 0."""
    spread: float
    """Standard deviation of this correlation for independent numbers."""


@dataclass(frozen=True)
class ImageResidue:
    """Correlation between the mean images of the residual and of the movie.

    They come from odd and even frames respectively, so that they share no noise.
    """

    correlation: float
    """Correlation over the pixels, from -1 to 1; 0 for a residual or an image without contrast."""
    spread: float
    """Standard deviation of the correlation for a residual without trace of the image: 1 / sqrt(pixels)."""
    amplitude: float
    """Standard deviation over pixels of the image left in the residual [noise standard deviations of a frame]."""


class ResidualSums:
    """Accumulate the residual, in noise units, over blocks of frames."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._products = np.zeros(len(LAGS))
        self._sum = self._squares = 0.0
        self._longest = max(lag[0] for lag in LAGS)
        self._before: FloatArray = np.empty((0, *shape[1:]))
        self._odd, self._even_counts = np.zeros((2, *shape[1:]))

    def add(self, start: int, residual: FloatArray, raw: FloatArray) -> None:
        """Add a block of the residual in noise units and of the raw counts; blocks must come in order."""
        self._sum += float(residual.sum())
        self._squares += float(np.vdot(residual, residual))
        joined = np.concatenate([self._before, residual])
        old = len(self._before)
        for index, (frames, rows, columns) in enumerate(LAGS):
            later = joined[max(old, frames) :, ..., rows:, columns:]
            first = max(old, frames) - frames
            earlier = joined[first : first + len(later), ..., : later.shape[-2], : later.shape[-1]]
            self._products[index] += float(np.einsum("i,i", later.ravel(), earlier.ravel()))
        self._before = joined[-self._longest :].copy()
        first_odd, first_even = (start + 1) % 2, start % 2
        self._odd += residual[first_odd::2].sum(axis=0)
        self._even_counts += raw[first_even::2].sum(axis=0)

    def lags(self) -> tuple[Lag, ...]:
        """Autocorrelation at each lag that fits into the movie."""
        count = math.prod(self._shape)
        mean = self._sum / count
        variance = self._squares / count - mean * mean
        frames, *planes, height, width = self._shape
        found = []
        for lag, product in zip(LAGS, self._products, strict=True):
            sides = (frames - lag[0], *planes, height - lag[1], width - lag[2])
            if min(sides) > 0:
                pairs = math.prod(sides)
                covariance = product / pairs - mean * mean
                share = float(covariance / variance) if variance > 0 else 0.0
                found.append(Lag(*lag, share, 1 / math.sqrt(pairs)))
        return tuple(found)

    def image(self) -> ImageResidue | None:
        """Correlation of the mean residual with the mean image; None for a single frame."""
        frames = self._shape[0]
        if frames < 2:
            return None
        residual = self._odd.ravel() / (frames // 2)
        found = correlation(residual, self._even_counts.ravel())
        return ImageResidue(found, 1 / math.sqrt(residual.size), abs(found) * float(residual.std()))
