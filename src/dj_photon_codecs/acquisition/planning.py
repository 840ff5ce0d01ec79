"""Plan how a recording is written, from the options and the first frames."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._arguments import check
from .._typing import Json
from ..calibration import Calibration, calibrate
from ..errors import ConfigurationError
from ..options import PROFILES, WriteOptions
from ..sources import Source
from ..storage.compression import given_codecs
from ..storage.count_range import ValueRange
from ..storage.layout import ChunkGrid
from ..storage.location import Location
from ..storage.plan import Plan, Request, plan_movie
from .frame_data import check_attributes

LOG = logging.getLogger("dj_photon_codecs")

#: Highest count of any sensor, and margin for noise below the lowest count seen [ADU].
_HIGHEST, _FAR_BELOW = 2.0**24, 2.0**12

#: Test for changing light: number of frame pairs, approximate pixels per frame, and threshold on the noise ratio.
_PAIRS, _PIXELS, _CHANGED = 32, 1 << 16, 4.0


@dataclass(frozen=True)
class Setup:
    """Checked parameters of PhotonWriter; raises ConfigurationError for invalid options.

    ``row`` holds the data from which the row of the movie is made.
    """

    options: WriteOptions
    calibration: Calibration | None = None
    backlog_bytes: int = 1 << 29
    flush_seconds: float | None = 10.0
    spill_to: Any = None
    sync: bool = True
    patience_seconds: float = 600.0
    gaps: str = "record"
    attributes: Any = None
    row: Json | None = None
    arrays: dict[str, Any] = field(default_factory=dict)
    spill: Location | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        profile = self.options.profile
        if PROFILES[profile].legacy:
            raise ConfigurationError(
                f"the {profile} profile needs to know the highest count before the first frame is written: acquire "
                f"with the lossless profile, then convert the movie with write_movie(path, movie, profile={profile!r})"
            )
        self.compressors()
        interval, patience = self.flush_seconds, self.patience_seconds
        check(self.backlog_bytes >= 1, "backlog_bytes", self.backlog_bytes, "a positive number of bytes")
        check(interval is None or interval > 0, "flush_seconds", interval, "a positive time in seconds, or None")
        check(patience >= 0, "patience_seconds", patience, "a time in seconds")
        check(self.gaps in ("record", "blank"), "gaps", self.gaps, "'record' or 'blank'")
        object.__setattr__(self, "attributes", check_attributes(self.attributes))
        if self.spill_to is not None:
            folder = Location.of(self.spill_to)
            check(folder.is_local, "spill_to", folder.label, "a local folder")
            own = os.path.join(folder.root, os.urandom(8).hex())  # other writers may spill there too
            object.__setattr__(self, "spill", Location.of(own))

    def compressors(self) -> list[Json] | None:
        """Return the given compressors as JSON values; None means that they are chosen by trial."""
        if self.options.compressors is None:
            return None
        codecs = given_codecs(self.options.compressors, self.options.zarr_format)[:-1]
        return [codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config() for codec in codecs]


def plan_recording(
    source: Source, recent: Source, setup: Setup, *, grid: ChunkGrid | None, may_wait: bool
) -> Plan | None:
    """Plan how to store a movie from its first frames, so that any later count can be stored.

    The noise model and the compressor serve the whole movie. A recording may start in the dark or in saturation, so
    this returns None to wait for more frames while ``may_wait`` is true and the latest frames show no noise model or
    their light changes.

    ``source`` has all frames so far, and ``recent`` the latest ones. The noise is measured on the latest, or on all if
    those show no model. ``grid`` is that of the recording; None if these are all frames of the movie.
    """
    calibration = setup.calibration
    if may_wait and setup.options.rounds and not shows_light(recent, calibration):
        LOG.info("no light, or it changes: waiting for more frames to plan by")
        return None
    if calibration is None and setup.options.rounds:
        calibration = calibrate(recent)
        if calibration.verdict == "unknown" and recent.shape != source.shape:
            calibration = calibrate(source)
        if calibration.verdict == "unknown" and may_wait:
            LOG.info("no noise model yet (%s): waiting for light", calibration.reason)
            return None
    values = expected_values(source, setup.calibration is not None)
    return plan_movie(Request.of(recent, setup.options, calibration, values=values, grid=grid, fast=grid is not None))


def shows_light(source: Source, calibration: Calibration | None) -> bool:
    """Return True if the light is steady, and a given noise model does not say that these frames are dark.

    The light changes if the noise does, so even a few dark frames count. Frames are dark if their mean signal is less
    than half the noise and explains less than half of its variance.
    """
    if source.shape[0] < 2:
        return True
    places = np.unique(np.linspace(0, source.shape[0] - 2, _PAIRS).astype(int))
    lines = max(1, source.shape[-2] * source.shape[-1] // _PIXELS)
    noise, means = [], []
    for place in places.tolist():
        pair = source.read(place, place + 2)[..., ::lines, :].astype(np.float32)
        noise.append(float(np.mean((pair[1] - pair[0]) ** 2)))
        means.append(float(pair.mean(dtype=np.float64)))
    if source.shape[0] > 8 and max(noise) > _CHANGED * max(min(noise), 1e-3):
        return False
    if calibration is None or math.isnan(calibration.zero_level):
        return True
    signal = (max(means) - calibration.zero_level) / calibration.conversion_gain
    variance = max(noise) / 2 / calibration.conversion_gain**2
    return signal > min(variance, math.sqrt(variance)) / 2


def expected_values(source: Source, calibrated: bool) -> ValueRange:
    """Return the range of counts that later frames may have.

    8-bit and 16-bit dtypes use their full range. Wider dtypes are limited to 24 bits, since no sensor has more and
    the codes for their full range would be as wide as the counts.
    """
    dtype = source.dtype
    if dtype.kind != "f" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return ValueRange(int(limits.min), int(limits.max), whole=True)
    low = 0.0
    if dtype.kind == "i" or (dtype.kind == "f" and calibrated):
        lowest = min(float(source.read(i, i + 1).min()) for i in range(source.shape[0]))
        low = -_FAR_BELOW + min(0.0, 8 * lowest) if np.isfinite(lowest) else -_FAR_BELOW
    return ValueRange(low, highest(dtype), whole=dtype.kind != "f")


def highest(dtype: np.dtype[Any]) -> float:
    """Return the highest count that a movie of a dtype wider than 16 bits can store."""
    # float32 represents every integer up to 2^24, and levels lie above their counts
    return min(_HIGHEST / 2, float(np.finfo(dtype).max)) if dtype.kind == "f" else _HIGHEST
