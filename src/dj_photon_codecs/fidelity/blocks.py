"""Two movies side by side, in blocks of frames: whatever their length, a few blocks are in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..anscombe.parameters import TransformParameters
from ..anscombe.transform import rounded_codes
from ..calibration import Calibration
from ..errors import CalibrationError, InvalidMovieError
from ..handle import PhotonArray
from ..sources import Source, as_source

#: Pixels of a block. A dozen arrays of float64 of this size are alive at a time: about 50 MiB.
_BLOCK_PIXELS = 1 << 19


def block_length(shape: tuple[int, ...]) -> int:
    """How many frames a block has."""
    return max(1, _BLOCK_PIXELS // math.prod(shape[1:]))


def blocks(source: Source) -> Iterator[tuple[int, AnyArray]]:
    """Number of the first frame, and counts, of each block of a movie."""
    length = block_length(source.shape)
    for start in range(0, source.shape[0], length):
        yield start, source.read(start, min(start + length, source.shape[0]))


@dataclass(frozen=True)
class NoiseModel:
    """Noise of counts from a calibration: variance = conversion_gain * (mean - zero_level)."""

    conversion_gain: float
    zero_level: float

    def photons(self, counts: AnyArray) -> FloatArray:
        """Counts as photons [photons], never below 0."""
        return np.maximum((np.asarray(counts, np.float64) - self.zero_level) / self.conversion_gain, 0.0)

    def codec_sigma(self, counts: AnyArray) -> FloatArray:
        """What the codec takes for the noise at a count [ADU]: gain * sqrt(photons + 3/8)."""
        return np.asarray(self.conversion_gain * np.sqrt(self.photons(counts) + 0.375))


@dataclass(frozen=True)
class Pair:
    """A raw movie, what is stored of it, and the noise that both are measured in.

    Attributes
    ----------
    raw, stored
        The movies, of one shape.
    noise
        The noise model.
    step
        Quantisation in noise standard deviations; 0 for none.
    stored_bytes
        Size of what is stored; None when unknown.
    plain
        The transform without its dither, where the stored counts are dithered; otherwise None.
    """

    raw: Source
    stored: Source
    noise: NoiseModel
    step: float
    stored_bytes: int | None
    plain: TransformParameters | None = None

    @classmethod
    def of(cls, counts: Any, handle: Any, calibration: Calibration | None, step: float | None) -> Pair:
        """Look at both movies, and settle the noise model and the step; reads nothing.

        Raises
        ------
        InvalidMovieError
            When the shapes differ.
        CalibrationError
            When no noise model is known, or the one that is known is not reliable.
        """
        raw, stored = as_source(counts), as_source(handle)
        if raw.shape != stored.shape:
            raise InvalidMovieError(
                f"the raw movie has shape {raw.shape}, the stored one {stored.shape}: give the counts as they were "
                "inserted"
            )
        record = handle.record if isinstance(handle, PhotonArray) else None
        if calibration is None:
            calibration = known_calibration(handle)
        if step is None:
            step = handle.step if isinstance(handle, PhotonArray) else 0.0
        size = None if record is None else record.stored_bytes
        noise = NoiseModel(calibration.conversion_gain, calibration.zero_level)
        plain = None
        if record is not None and record.dithered and step:
            plain = TransformParameters(noise.zero_level, noise.conversion_gain, step=float(step))
        return cls(raw, stored, noise, float(step), size, plain)

    def levels(self, raw: FloatArray, stored: FloatArray) -> FloatArray:
        """What tells as much as the stored counts: themselves, or the plain codes where dither spreads them.

        The offsets of the dither follow from the place, and so they are no information; the counts that they give do
        not show it.
        """
        return stored if self.plain is None else rounded_codes(raw, self.plain)

    def __iter__(self) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        """Number of the first frame, raw counts and stored counts of each block, in float64."""
        for start, counts in blocks(self.raw):
            stored = self.stored.read(start, start + len(counts))
            yield start, counts.astype(np.float64), stored.astype(np.float64)


def known_calibration(handle: Any) -> Calibration:
    """The noise model that a handle carries.

    Raises
    ------
    CalibrationError
        When it carries none, or one that is not reliable.
    """
    remedy = "pass calibration=Calibration.given(conversion_gain, zero_level)"
    if not isinstance(handle, PhotonArray):
        raise CalibrationError(f"a {type(handle).__name__} carries no noise model: {remedy}")
    calibration = handle.calibration
    if not calibration.reliable:
        raise CalibrationError(f"the stored movie has no reliable noise model ({calibration.reason}): {remedy}")
    return calibration
