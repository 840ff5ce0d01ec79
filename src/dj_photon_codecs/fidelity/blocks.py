"""Read two movies side by side in blocks of frames, so that memory does not grow with their length."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..anscombe.cells import cells_of
from ..anscombe.parameters import TransformParameters
from ..calibration import Calibration
from ..calibration.model import StorageNoise
from ..errors import CalibrationError, FormatError, InvalidMovieError
from ..handle import PhotonArray
from ..movies import open_movie
from ..options import PORTABLE
from ..sources import Source, as_source, open_source

#: Pixels per block. A dozen float64 arrays of this size are alive at a time: about 50 MiB.
_BLOCK_PIXELS = 1 << 19
_REMEDY = "pass calibration=Calibration.given(conversion_gain, zero_level)"


def opened(movie: Any) -> AbstractContextManager[Any]:
    """Open a stored movie or a movie file given as a path, closing a file afterwards; pass other objects through."""
    if not isinstance(movie, str | os.PathLike):
        return nullcontext(movie)
    try:
        return nullcontext(open_movie(movie))
    except FormatError:
        return open_source(movie)


def blocks(source: Source) -> Iterator[tuple[int, AnyArray]]:
    """Yield the first frame number and the counts of each block."""
    length = max(1, _BLOCK_PIXELS // math.prod(source.shape[1:]))
    for start in range(0, source.shape[0], length):
        yield start, source.read(start, min(start + length, source.shape[0]))


def keeps_bound(raw: FloatArray, stored: FloatArray, sigma: FloatArray, step: float) -> bool:
    """Whether every count changed by at most half a step of noise and half a count (invariant 1).

    ``sigma`` is the noise that storage assumes at the larger of the two counts. Without a step, counts must be equal.
    """
    excess = np.abs(stored - raw) - (step / 2 * sigma + 0.5 * (step > 0))
    return bool(excess.max() <= 1e-9 * np.abs(stored).max() + 1e-12)


@dataclass(frozen=True)
class Pair:
    """A raw movie, its stored version, and the noise model used to compare them."""

    raw: Source
    stored: Source  # same shape as ``raw``
    conversion_gain: float  # to convert counts to photons [ADU per photon]
    zero_level: float  # to convert counts to photons [ADU]
    storage: StorageNoise  # noise model assumed by the codec
    step: float  # quantisation in noise standard deviations; 0 for none
    stored_bytes: int | None  # None when unknown
    plain: TransformParameters | None  # the transform without dither, if the stored counts are dithered

    @classmethod
    def of(cls, counts: Any, handle: Any, calibration: Calibration | None, step: float | None) -> Pair:
        """Check both movies and determine the noise model and the step, without reading frames."""
        raw, stored = as_source(counts), as_source(handle)
        if raw.shape != stored.shape:
            raise InvalidMovieError(
                f"the raw movie has shape {raw.shape}, the stored one {stored.shape}: give the counts as they were "
                "inserted"
            )
        record = handle.record if isinstance(handle, PhotonArray) else None
        step = step_of(handle, step)
        calibration = calibration or _known_calibration(handle)
        storage = calibration.storage_noise
        if not math.isfinite(storage.zero_level):
            raise CalibrationError(f"the calibration has no zero level, which says where photons begin: {_REMEDY}")
        known = math.isfinite(calibration.conversion_gain) and math.isfinite(calibration.zero_level)
        photons = calibration if known else storage
        plain = None
        if record is not None and (record.dithered or record.profile == PORTABLE.name) and step:
            plain = TransformParameters(
                storage.zero_level, storage.conversion_gain, step=step, under_root=storage.under_root
            )
        size = None if record is None else record.stored_bytes
        return cls(raw, stored, photons.conversion_gain, photons.zero_level, storage, step, size, plain)

    def photons(self, counts: AnyArray) -> FloatArray:
        """Convert counts to photons, never below 0."""
        return np.maximum((np.asarray(counts, np.float64) - self.zero_level) / self.conversion_gain, 0.0)

    def codec_sigma(self, counts: AnyArray) -> FloatArray:
        """Noise standard deviation that the codec assumes at ``counts`` [ADU]."""
        return np.sqrt(self.storage.variance(np.asarray(counts, np.float64)))

    def levels(self, raw: FloatArray, stored: FloatArray) -> FloatArray:
        """Values with the information content of the stored counts: the counts, or undithered codes if dithered.

        Dither offsets depend only on position, so they carry no information, but they do spread the stored counts.
        """
        return stored if self.plain is None else cells_of(self.plain).numbers(raw)

    def __iter__(self) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        """Yield the first frame number, raw counts and stored counts of each block, as float64."""
        for start, counts in blocks(self.raw):
            stored = self.stored.read(start, start + len(counts))
            yield start, counts.astype(np.float64), stored.astype(np.float64)


def step_of(handle: Any, step: float | None) -> float:
    """Return the given step; if None, the step of a stored movie, or 0 for any other array."""
    if step is None:
        step = handle.step if isinstance(handle, PhotonArray) else 0.0
    return float(step)


def _known_calibration(handle: Any) -> Calibration:
    """Return the noise model of a handle, or raise CalibrationError if it has none."""
    if not isinstance(handle, PhotonArray):
        raise CalibrationError(f"a {type(handle).__name__} carries no noise model: {_REMEDY}")
    calibration = handle.calibration
    if calibration.verdict == "unknown":
        raise CalibrationError(f"the stored movie has no noise model ({calibration.reason}): {_REMEDY}")
    return calibration
