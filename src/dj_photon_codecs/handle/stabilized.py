"""A lazy view of a movie with unit noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .._lazy import cached_property
from ..anscombe.generalized import generalized_anscombe
from ..anscombe.tables import apply_table
from .lazy import LazyArray
from .reductions import Block


class StabilizedView(LazyArray):
    """The stabilised movie: ``generalized_anscombe(counts, conversion_gain, zero_level)``, read lazily."""

    def __init__(self, movie: LazyArray, conversion_gain: float, zero_level: float) -> None:
        self._movie = movie
        self._gain = conversion_gain
        self._zero = zero_level

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the movie, (time, ..., height, width)."""
        return tuple(self._movie.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    @property
    def _identity(self) -> tuple[str, ...]:
        return (*self._movie._identity, repr(self._gain), repr(self._zero))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<StabilizedView {self.shape} float32, unit noise, of {self._movie!r}>"

    def __getitem__(self, selection: Any) -> npt.NDArray[np.float32]:
        """Return the stabilised values of the selected counts, with a noise of 1."""
        return self._stabilize(np.asarray(self._movie[selection]))

    def frames(
        self, start: int = 0, stop: int | None = None, *, dtype: npt.DTypeLike | None = None
    ) -> Iterator[npt.NDArray[Any]]:
        """Iterate over stabilised frames, reading ahead, as in :meth:`PhotonArray.frames`."""
        stabilized = map(self._stabilize, self._movie.frames(start, stop))
        return stabilized if dtype is None else (frame.astype(dtype) for frame in stabilized)

    def _blocks(self) -> Iterator[Block]:
        return ((region, self._stabilize(counts)) for region, counts in self._movie._blocks())

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        """Stabilised values of every 8- or 16-bit count, in two's complement order."""
        info = np.iinfo(self._movie.dtype)
        values = np.arange(info.min, info.max + 1, dtype=np.float64)
        stabilized = generalized_anscombe(values, self._gain, self._zero)
        return np.roll(np.asarray(stabilized, np.float32), info.min)

    def _stabilize(self, counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if counts.dtype.kind in "ui" and counts.dtype.itemsize <= 2 and counts.ndim:
            return apply_table(self._table, np.ascontiguousarray(counts).view(f"u{counts.dtype.itemsize}"))
        values = generalized_anscombe(counts.astype(np.float64), self._gain, self._zero)
        return np.asarray(values, np.float32)
