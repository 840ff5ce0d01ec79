"""The entropy limit: how few bits a pixel any coder could do with."""

from __future__ import annotations

import math

import numpy as np

from .._typing import AnyArray, FloatArray

#: Classes of nearly equal mean in which the entropy is counted.
_CLASSES = 200

#: Pixels that it is counted from, spread over the movie.
_PIXELS = 1 << 21

#: Frames that they come from, at most.
_FRAMES = 64


def conditional_entropy(means: FloatArray, values: AnyArray) -> float:
    """Entropy of values given the mean of the law that each was drawn from [bits a value].

    C. E. Shannon (1948, Bell System Technical Journal 27:379) showed that no code does better when the values are
    independent given their means. Counted in classes of nearly equal mean; each class gets the correction of
    G. A. Miller (1955, Information Theory in Psychology, p. 95) for the values that so few draws have not shown:
    (number of different values - 1) / (2 number of draws) nats.

    Parameters
    ----------
    means
        One mean per value.
    values
        Counts or codes, of the shape of ``means``. A one-to-one change of the values changes nothing, so the entropy of
        decoded counts is that of their codes.
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
    """A few million pixels of a movie, spread over it, to count entropies from."""

    def __init__(self, frames: int, pixels: int) -> None:
        taken = min(frames, _FRAMES)
        self._frames = set(np.linspace(0, frames - 1, taken).astype(int).tolist())
        self._stride = max(1, taken * pixels // _PIXELS)
        self._means: list[FloatArray] = []
        self._raw: list[AnyArray] = []
        self._stored: list[AnyArray] = []

    def add(self, start: int, means: FloatArray, raw: FloatArray, stored: FloatArray) -> None:
        """Take what is wanted of a block of frames; ``means`` has the shape of the block."""
        for index in range(len(raw)):
            if start + index in self._frames:
                self._means.append(means[index].ravel()[:: self._stride].copy())
                self._raw.append(raw[index].ravel()[:: self._stride].copy())
                self._stored.append(stored[index].ravel()[:: self._stride].copy())

    def bits(self) -> tuple[float, float]:
        """Entropy of the raw and of the stored counts given the mean [bits a pixel]."""
        means = np.concatenate(self._means)
        return (
            conditional_entropy(means, np.concatenate(self._raw)),
            conditional_entropy(means, np.concatenate(self._stored)),
        )
