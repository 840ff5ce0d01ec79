"""What other programs want to know about a movie: names, units and spacing of its axes, frame rate, black and white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arguments import check
from .._typing import Json
from ..errors import CalibrationError, ConfigurationError, InvalidMovieError
from ..handle import PhotonArray
from ..sources.metadata import inverse, micrometres, number, seconds

#: Percentiles of a frame shown as black (if the zero level is unknown) and white; dead and hot pixels lie outside.
_BLACK, _WHITE = 1.0, 99.7

_SPACE = (("plane", "z"), ("height", "y"), ("width", "x"))


@dataclass(frozen=True)
class Axis:
    """An axis of a movie; without a unit its spacing is unknown, and given as 1.

    Units are spelled out, because OME-Zarr requires it; pint, which napari uses, and UDUNITS know these names too.
    """

    name: str
    letter: str
    unit: str | None = None
    spacing: float = 1.0


def axes_of(movie: PhotonArray, frame_rate: Any = None, pixel_size: Any = None) -> list[Axis]:
    """Return the axes of a movie; the arguments take precedence over its metadata.

    ``frame_rate`` is in Hz. ``pixel_size`` is in µm: one number, or (height, width), or (plane, height, width).
    Raises ConfigurationError for other values, and InvalidMovieError for more than 5 axes.
    """
    if len(movie.shape) > 5:
        raise InvalidMovieError(
            f"a movie of shape {movie.shape} has more axes than (time, channel, plane, height, width), for which other "
            "programs have names: store each channel as a movie, or use movie.to_dask()"
        )
    found = acquisition_of(movie)
    lengths = [micrometres(found.get(f"PhysicalSize{axis}"), found.get(f"PhysicalSize{axis}Unit")) for axis in "ZYX"]
    if pixel_size is not None:
        sizes = list(pixel_size) if isinstance(pixel_size, list | tuple) else [pixel_size, pixel_size]
        legal = len(sizes) in (2, 3) and all(map(number, sizes))
        check(legal, "pixel_size", pixel_size, "positive: a number of µm, (height, width) or (plane, height, width)")
        lengths[-len(sizes) :] = map(number, sizes)
    interval = recorded_interval(movie)
    if frame_rate is not None:
        interval = inverse(_rate(frame_rate, "frame_rate"))
    space = [_axis(*name, "micrometer", length) for name, length in zip(_SPACE, lengths, strict=True)]
    middle = [Axis("channel", "c"), space[0]][5 - len(movie.shape) :]
    return [_axis("time", "t", "second", interval), *middle, *space[1:]]


def _axis(name: str, letter: str, unit: str, spacing: float | None) -> Axis:
    return Axis(name, letter, unit, spacing) if spacing else Axis(name, letter)


def recorded_interval(movie: PhotonArray) -> float | None:
    """Return the time from frame to frame [s] that the source recorded, or None."""
    found = acquisition_of(movie)
    return seconds(found.get("TimeIncrement"), found.get("TimeIncrementUnit"))


def recorded_times(movie: PhotonArray) -> list[float] | None:
    """Return the times of the frames [s] that the source recorded; None unless there is one for each frame."""
    times = acquisition_of(movie).get("DeltaT", ())
    return times if len(times) == len(movie) else None


def frame_rate_of(movie: PhotonArray, given: Any, argument: str) -> float:
    """Return the given frame rate, or that of the recording [Hz]; raise ConfigurationError if there is none."""
    if given is not None:
        return _rate(given, argument)
    rate = inverse(recorded_interval(movie))
    if rate is None:
        raise ConfigurationError(f"this movie does not say how fast it was recorded: give {argument}, in frames/s")
    return rate


def _rate(given: Any, argument: str) -> float:
    check(number(given), argument, given, "a positive number of frames per second")
    return float(given)


def acquisition_of(movie: PhotonArray) -> Json:
    """Return what the source said about the recording, under OME names."""
    return (movie.record.acquisition if movie.record else None) or {}


def zero_level_of(movie: PhotonArray) -> float | None:
    """Return the count in the dark [ADU], or None if it is not known."""
    try:
        calibration = movie.calibration
    except CalibrationError:
        return None
    known = calibration.verdict != "unknown" and math.isfinite(calibration.zero_level)
    return calibration.zero_level if known else None


def contrast_limits(movie: PhotonArray) -> tuple[float, float]:
    """Return the counts to show as black and white: the zero level, and nearly the brightest pixel of a frame.

    Reads the frame in the middle of the movie, of which missing and damaged chunks are left out.
    """
    frame = movie.read_intact(len(movie) // 2).compressed()
    low, high = map(float, np.percentile(frame, (_BLACK, _WHITE))) if frame.size else (0.0, 1.0)
    zero_level = zero_level_of(movie)
    low = low if zero_level is None else zero_level
    return low, max(high, low + 1)
