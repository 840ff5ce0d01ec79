"""Status of a running acquisition, and of an unfinished movie."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._arguments import brief_repr
from ..storage.layout import frames_in_words

#: Runs of frames as (start, stop); ``stop`` is excluded.
Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AcquisitionStatus:
    """Status of a running acquisition.

    Attributes
    ----------
    frames
        Number of frames appended.
    stored
        Number of frames in the store or in the ``spill_to`` folder. These survive if the process is killed.
    rate
        Mean frame rate since the first frame [frames/s]; NaN before the second frame.
    missing
        Number of frames missing from the camera's numbering.
    stored_bytes
        Stored size of the complete blocks [bytes].
    ratio
        Compression ratio of these blocks (raw bytes / stored bytes); NaN before the first block.
    seconds_to_full_disk
        Time until the disk is full at the current rate [s]; NaN if not known.
    trouble
        Message of the last storage error while the store fails; None otherwise.
    """

    frames: int
    stored: int
    rate: float
    missing: int
    stored_bytes: int
    ratio: float
    seconds_to_full_disk: float
    trouble: str | None

    @property
    def backlog(self) -> int:
        """Number of frames that are only in memory."""
        return self.frames - self.stored

    @property
    def backlog_seconds(self) -> float:
        """Recording time of the frames that are only in memory [s]; NaN before the second frame."""
        return self.backlog / self.rate if self.rate else math.nan

    def __str__(self) -> str:
        parts = [
            f"{in_seconds(self.frames, self.rate)} appended, {in_seconds(self.backlog, self.rate)} in memory only",
            f"{self.rate:.4g} frames/s" if self.rate else "",
            f"{self.missing} missing" if self.missing else "",
            f"{self.stored_bytes / 1e6:.4g} MB stored",
            f"ratio {self.ratio:.2f}" if self.ratio == self.ratio else "",
            f"disk full in {self.seconds_to_full_disk / 3600:.1f} h" if self.seconds_to_full_disk < 1e6 else "",
            f"the store fails: {self.trouble}" if self.trouble else "",
        ]
        return ", ".join(filter(None, parts))


def in_seconds(frames: int, rate: float) -> str:
    """Format a number of frames with their duration."""
    text = f"{frames} frame{'' if frames == 1 else 's'}"
    return f"{text} ({frames / rate:.1f} s)" if rate > 0 else text


@dataclass(frozen=True)
class Recovery:
    """Recoverable contents of an unfinished movie.

    Attributes
    ----------
    location
        Path or URL of the movie.
    n_frames
        Number of frames in the recovered movie.
    lost
        Runs of these frames that cannot be read completely, as (start, stop); ``stop`` is excluded.
    seconds
        Duration of the recording by the clock of the writer [s]; None if not known.
    finished
        True if the movie is already finished and can simply be opened.
    """

    location: str
    n_frames: int
    lost: Runs = ()
    seconds: float | None = None
    finished: bool = False

    __repr__ = brief_repr

    def __str__(self) -> str:
        what = ", finished" if self.finished else f", of which lost: {self.in_words()}" if self.lost else ""
        return f"{self.location}: {self.in_seconds(self.n_frames)}{what}"

    def in_words(self) -> str:
        """Describe the lost frames: their number, duration and at most twenty runs of indices."""
        return f"{self.in_seconds(sum(stop - start for start, stop in self.lost))}, {frames_in_words(self.lost)}"

    def in_seconds(self, frames: int) -> str:
        """Format a number of frames with their duration."""
        return in_seconds(frames, (self.n_frames - 1) / self.seconds if self.seconds else float("nan"))
