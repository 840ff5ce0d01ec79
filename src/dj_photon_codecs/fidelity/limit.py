"""The entropy limit: the fewest bits per pixel that any coder of independent pixels can reach."""

from __future__ import annotations

import math

import numpy as np

from .._typing import AnyArray, FloatArray

_CLASSES = 200  # number of classes of nearly equal mean for the entropy
#: Maximum number of pixels used, and of frames they come from, spread over the movie.
_PIXELS, _FRAMES = 1 << 21, 64


def conditional_entropy(means: FloatArray, values: AnyArray) -> float:
    """Entropy of values given the mean of the distribution each was drawn from [bits per value].

    No code does better if the values are independent given their means (C. E. Shannon, 1948, Bell System Technical
    Journal 27:379). Values are counted in classes of nearly equal mean. Each class is corrected for values missing from
    a finite sample: (number of distinct values - 1) / (2 * number of draws) nats (G. A. Miller, 1955, Information
    Theory in Psychology, p. 95). A one-to-one mapping leaves entropy unchanged, so decoded counts have that of codes.
    """
    flat = means.ravel()
    edges = np.unique(np.quantile(flat, np.linspace(0, 1, _CLASSES + 1)[1:-1]))
    classes = np.searchsorted(edges, flat)
    distinct, rank = np.unique(values.ravel(), return_inverse=True)
    pairs, draws = np.unique(classes.astype(np.int64) * distinct.size + rank, return_counts=True)
    of_class = np.bincount(pairs // distinct.size, weights=draws)
    shown = np.bincount(pairs // distinct.size)
    nats = np.sum(draws * np.log(of_class[pairs // distinct.size] / draws))
    missing = np.sum(np.maximum(shown - 1, 0)) / 2
    return float((nats + missing) / flat.size / math.log(2))


class EntropySample:
    """A few million pixels spread over a movie, for entropy estimates."""

    def __init__(self, frames: int, pixels: int) -> None:
        taken = min(frames, _FRAMES)
        self._frames = set(np.linspace(0, frames - 1, taken).astype(int).tolist())
        self._stride = max(1, taken * pixels // _PIXELS)
        self._taken: list[list[AnyArray]] = []

    def add(self, start: int, means: FloatArray, raw: FloatArray, stored: FloatArray) -> None:
        """Add the sampled pixels of a block of frames; ``means`` has the shape of the block."""
        for frame, images in enumerate(zip(means, raw, stored, strict=True), start):
            if frame in self._frames:
                self._taken.append([image.ravel()[:: self._stride].copy() for image in images])

    def bits(self) -> tuple[float, float]:
        """Entropy of the raw and of the stored counts given the mean [bits per pixel]."""
        means, raw, stored = (np.concatenate(images) for images in zip(*self._taken, strict=True))
        return conditional_entropy(means, raw), conditional_entropy(means, stored)
