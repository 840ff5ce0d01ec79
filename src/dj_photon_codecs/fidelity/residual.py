"""What is left of the image in stored less raw counts: nothing, if only noise was rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._typing import FloatArray

#: Distances (frames, rows, columns) at which the residual is held against itself.
LAGS = (
    (0, 0, 1),
    (0, 1, 0),
    (0, 1, 1),
    (0, 0, 2),
    (0, 2, 0),
    (0, 0, 5),
    (0, 5, 0),
    (1, 0, 0),
    (2, 0, 0),
    (3, 0, 0),
    (5, 0, 0),
)


@dataclass(frozen=True)
class Lag:
    """Correlation of the residual with itself at a distance.

    Attributes
    ----------
    frames, rows, columns
        The distance.
    correlation
        From -1 to 1; 0 for a residual of 0.
    spread
        Standard deviation that the correlation of independent numbers would have.
    """

    frames: int
    rows: int
    columns: int
    correlation: float
    spread: float


@dataclass(frozen=True)
class ImageResidue:
    """Correlation of the residual's mean image with the movie's.

    The two come from different frames (odd and even ones), so that the noise of one is not the noise of the other.

    Attributes
    ----------
    correlation
        From -1 to 1, over the pixels; 0 for a residual or an image without contrast.
    spread
        Standard deviation of it if nothing of the image were left: 1 / sqrt(pixels).
    amplitude
        Standard deviation over the pixels of what is left of the image [noise standard deviations of a frame].
    """

    correlation: float
    spread: float
    amplitude: float


class ResidualSums:
    """Sums over blocks of the residual in noise units, and what follows from them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._products = np.zeros(len(LAGS))
        self._pairs = np.zeros(len(LAGS))
        self._sum = self._squares = 0.0
        self._count = 0
        self._longest = max(lag[0] for lag in LAGS)
        self._before: FloatArray = np.empty((0, *shape[1:]))
        self._odd = np.zeros(shape[1:])
        self._even_counts = np.zeros(shape[1:])

    def add(self, start: int, residual: FloatArray, raw: FloatArray) -> None:
        """Take a block: the residual in noise units, and the raw counts; frames come in their order."""
        self._sum += float(residual.sum())
        self._squares += float(np.vdot(residual, residual))
        self._count += residual.size
        joined = np.concatenate([self._before, residual])
        old = len(self._before)
        for index, (frames, rows, columns) in enumerate(LAGS):
            later = joined[max(old, frames) :, ..., rows:, columns:]
            first = max(old, frames) - frames
            height, width = joined.shape[-2] - rows, joined.shape[-1] - columns
            if height > 0 and width > 0 and len(later):
                earlier = joined[first : first + len(later), ..., :height, :width]
                self._products[index] += float(np.einsum("i,i", later.ravel(), earlier.ravel()))
                self._pairs[index] += later.size
        self._before = joined[-self._longest :].copy()
        first_odd, first_even = (start + 1) % 2, start % 2
        self._odd += residual[first_odd::2].sum(axis=0)
        self._even_counts += raw[first_even::2].sum(axis=0)

    def lags(self) -> tuple[Lag, ...]:
        """The autocorrelation, at the distances that the movie is large enough for."""
        mean = self._sum / self._count
        variance = self._squares / self._count - mean * mean
        found = []
        for lag, product, pairs in zip(LAGS, self._products, self._pairs, strict=True):
            if pairs:
                covariance = product / pairs - mean * mean
                correlation = float(covariance / variance) if variance > 0 else 0.0
                found.append(Lag(*lag, correlation, 1 / math.sqrt(pairs)))
        return tuple(found)

    def image(self) -> ImageResidue | None:
        """What the residual keeps of the image; None for a single frame."""
        frames = self._shape[0]
        if frames < 2:
            return None
        residual, picture = self._odd.ravel() / (frames // 2), self._even_counts.ravel()
        residual, picture = residual - residual.mean(), picture - picture.mean()
        spread = 1 / math.sqrt(residual.size)
        norm = math.sqrt(float(residual @ residual) * float(picture @ picture))
        if norm == 0:
            return ImageResidue(0.0, spread, 0.0)
        correlation = float(residual @ picture) / norm
        return ImageResidue(correlation, spread, abs(correlation) * float(residual.std()))
