"""Stored movies as xarray data arrays: named axes, times and positions, and lazy counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidMovieError
from ..handle import PhotonArray
from ..sources.stack import library
from ..storage.record import ATTRIBUTE
from .axes import Axis, axes_of, recorded_times, zero_level_of


def to_xarray(
    movie: PhotonArray,
    *,
    times: npt.ArrayLike | None = None,
    frame_rate: float | None = None,
    pixel_size: float | tuple[float, ...] | None = None,
) -> Any:
    """Return the movie as a lazy ``xarray.DataArray`` of counts; requires the ``xarray`` extra.

    Nothing is read. The counts are a dask array with one block per chunk of the movie, so that means, filters and
    ``map_blocks`` take the memory of a few chunks.

    Parameters
    ----------
    times
        Time of each frame [s], shape (time,), such as ``read_frame_data(movie).time``. None takes those that the
        source recorded; without them they follow from the frame rate.
    frame_rate
        Frames (or volumes) per second [Hz]; None takes that of the source. Without one, ``time`` is the number of
        the frame.
    pixel_size
        Size of a pixel [µm]: one number, (height, width) or (plane, height, width). None takes that of the source.
        Axes of unknown size have no coordinates.

    Returns
    -------
    xarray.DataArray
        Dimensions ``time``, ``height``, ``width``, and between them ``plane``, or ``channel`` and ``plane``. Its
        attributes hold the noise model (``conversion_gain`` [ADU per photon], ``zero_level`` [ADU]; absent if
        unknown), ``profile``, ``step``, and attributes that you stored with the movie.

    Raises
    ------
    ConfigurationError
        If a frame rate or pixel size is not positive.
    InvalidMovieError
        If there is not one time for each frame, or the movie has more than 5 axes.
    """
    xarray = library("xarray", "xarray", "labeled arrays")
    time, *space = axes_of(movie, frame_rate, pixel_size)
    if times is None and frame_rate is None:
        times = recorded_times(movie)
    coordinates = {axis.name: _coordinate(axis, n) for axis, n in zip(space, movie.shape[1:], strict=True) if axis.unit}
    coordinates["time"] = _coordinate(time, len(movie)) if times is None else _given(times, len(movie))
    return xarray.DataArray(
        movie.to_dask(),
        coordinates,
        [time.name, *(axis.name for axis in space)],
        name="counts",
        attrs=_attributes(movie),
    )


def _coordinate(axis: Axis, length: int) -> tuple[str, Any, dict[str, str]]:
    positions = np.arange(length)
    return (axis.name, positions * axis.spacing, {"units": axis.unit}) if axis.unit else (axis.name, positions, {})


def _given(times: npt.ArrayLike, length: int) -> tuple[str, Any, dict[str, str]]:
    given = np.asarray(times, np.float64)
    if given.shape != (length,):
        raise InvalidMovieError(
            f"times have shape {given.shape}, and the movie has {length} frames: give one time for each, or frame_rate"
        )
    return "time", given, {"units": "second"}


def _attributes(movie: PhotonArray) -> dict[str, Any]:
    """Return the user's attributes, and what is known of the counts."""
    theirs = {name: value for name, value in movie.attrs.items() if name not in (ATTRIBUTE, "_ARRAY_DIMENSIONS")}
    found = {**theirs, "units": "count", "profile": movie.profile, "step": movie.step}
    zero_level = zero_level_of(movie)
    if zero_level is not None:
        noise = movie.calibration
        found |= {"conversion_gain": noise.conversion_gain, "zero_level": zero_level, "noise_verdict": noise.verdict}
    return found
