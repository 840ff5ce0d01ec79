"""The handle's interface to the card, the facts and the stabilised view. It avoids a circular import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .._typing import AnyArray
from ..calibration import Calibration
from ..storage.location import Location
from ..storage.record import MovieRecord
from .reading import CachedChunks
from .reductions import Block


class Movie(Protocol):
    """The part of :class:`~.array.PhotonArray` that this package uses internally."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, ..., height, width)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the counts."""

    @property
    def profile(self) -> str:
        """Name of the profile."""

    @property
    def step(self) -> float:
        """Quantisation step in noise standard deviations; 0 if lossless."""

    @property
    def record(self) -> MovieRecord | None:
        """Record of the stored movie."""

    @property
    def calibration(self) -> Calibration:
        """The noise model."""

    @property
    def compression_ratio(self) -> float:
        """Ratio of inserted bytes to stored bytes."""

    @property
    def _location(self) -> Location: ...

    @property
    def _chunks(self) -> CachedChunks: ...

    @property
    def _identity(self) -> tuple[str, ...]: ...

    def _blocks(self) -> Iterator[Block]: ...

    def __getitem__(self, selection: Any) -> Any:
        """Return the selected counts."""

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[AnyArray]:
        """Iterate over frames."""
