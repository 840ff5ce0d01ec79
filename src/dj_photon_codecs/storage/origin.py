"""The stored movie that a new movie comes from: a copy must not round its counts a second time (invariant 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..calibration import Calibration
from ..options import PORTABLE, WriteOptions
from .profiles import Levels
from .record import MovieRecord


@dataclass(frozen=True)
class Origin:
    """A stored movie that is copied, completely or in part.

    ``chunk`` is the shape of its chunks; None for a part, whose counts have other places in their chunks.
    """

    record: MovieRecord
    chunk: tuple[int, ...] | None = None

    @property
    def rounded(self) -> float:
        """The step by which its counts were rounded; 0 if they were not."""
        return self.record.step or self.record.rounded

    def has_noise(self, calibration: Calibration | None) -> bool:
        """Whether the copy keeps the noise model."""
        return calibration in (None, self.record.calibration)

    def options_of_copy(
        self, options: WriteOptions, calibration: Calibration | None
    ) -> tuple[WriteOptions, str | None]:
        """Return the options with which the counts are not rounded again; and why, if the copy is lossless for that."""
        stored, same_noise = self.record, self.has_noise(calibration)
        displaced = not stored.step or (self.chunk is None and (stored.dithered or not same_noise))
        if displaced and 0 < options.step <= self.rounded:
            why = f"its counts were rounded by step {self.rounded:g} before, and would be rounded once more"
            return replace(options, step=0.0), why
        if options.step and same_noise:  # a finer step would round again and restore nothing
            return replace(options, step=max(options.step, stored.step)), None
        return options, None

    def levels(self, calibration: Calibration, step: float) -> Levels:
        """Return the levels of its counts; ANYWHERE if its noise model or step is not that of the copy."""
        stored = self.record
        if not stored.step or (stored.step, stored.calibration) != (step, calibration):
            return Levels.ANYWHERE
        if stored.dithered:
            return Levels.DITHERED
        return Levels.PORTABLE if stored.profile == PORTABLE.name else Levels.ANYWHERE
