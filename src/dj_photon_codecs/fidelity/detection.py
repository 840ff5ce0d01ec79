"""Detect cells: blobs of the right size that stay bright for more than one frame."""

from __future__ import annotations

import numpy as np

from .._typing import AnyArray, FloatArray

#: Detection threshold above the median activity, in robust standard deviations of the background.
_THRESHOLD = 3.0
#: Widths of the two Gaussians [cell radii]; the narrower one fills the hole of a dark nucleus.
_CENTRE, _SURROUND = 0.5, 1.0


class ActivityImage:
    """Activity image of a stabilised, registered movie.

    Each frame is filtered with a difference of Gaussians, half a cell radius and one cell radius [pixels] wide, which
    passes cells but neither pixel noise nor neuropil. The covariance of each pixel with itself one frame later then
    measures lasting activity, because sensor and quantisation noise are new in every frame.
    """

    def __init__(self, shape: tuple[int, int], radius: float) -> None:
        rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
        square = 2 * np.pi**2 * (rows**2 + columns**2)
        self._filter = np.exp(-square * (_CENTRE * radius) ** 2) - np.exp(-square * (_SURROUND * radius) ** 2)
        self._shape, self._radius = shape, radius
        self._sum, self._lagged, self._frames = np.zeros(shape), np.zeros(shape), 0
        self._first: FloatArray | None = None
        self._last: FloatArray = np.zeros(shape)

    def add(self, frames: FloatArray) -> None:
        """Add a block of frames: (time, height, width)."""
        for frame in frames:
            passed = np.fft.irfft2(np.fft.rfft2(frame) * self._filter, s=self._shape)
            self._first = passed if self._first is None else self._first
            self._lagged += self._last * passed
            self._sum += passed
            self._last = passed
            self._frames += 1

    def image(self) -> FloatArray:
        """Standard deviation of lasting activity, in stabilised units; 0 for none: (height, width)."""
        if self._first is None or self._frames < 2:
            return np.zeros(self._shape)
        mean = self._sum / self._frames
        pairs = self._frames - 1
        ends = 2 * self._sum - self._last - self._first
        covariance = self._lagged / pairs - mean * ends / pairs + mean * mean
        return np.sqrt(np.maximum(covariance, 0.0))

    def cells(self, margin: int = 0) -> AnyArray:
        """Rows and columns of the cells found: (cell, 2).

        A cell is the highest pixel within a cell radius, more than three robust standard deviations (from the lower
        half) above the median. Pixels within ``margin`` of the edge, where motion brings in new tissue, are excluded.
        """
        image = self.image()
        middle = float(np.median(image))
        spread = 1.4826 * float(np.median(np.abs(image[image <= middle] - middle)))
        reach = max(1, round(self._radius))
        rows, columns = np.nonzero(image > middle + _THRESHOLD * max(spread, 1e-12))
        found = []
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            inside = margin <= row < self._shape[0] - margin and margin <= column < self._shape[1] - margin
            around = image[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            if inside and image[row, column] >= around.max():
                found.append((row, column))
        return np.array(found, np.float64).reshape(-1, 2)


def matched_places(found: AnyArray, true: AnyArray, distance: float) -> AnyArray:
    """Index of the true place paired with each place found, nearest pairs first; -1 without a partner."""
    partner = np.full(len(found), -1)
    if not len(found) or not len(true):
        return partner
    apart = np.sqrt(((found[:, None] - true[None]) ** 2).sum(axis=-1))
    for flat in np.argsort(apart, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(true))
        if apart[i, j] > distance:
            break
        if partner[i] < 0 and j not in partner:
            partner[i] = j
    return partner
