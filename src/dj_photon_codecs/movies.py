"""Both ways through without a database: :func:`write_movie` and :func:`open_movie`.

The DataJoint codec calls these; everything they do works for a plain path, a URL or a zarr store.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ._typing import ZarrFormat
from ._zarr import submit
from .calibration import Calibration, calibrate
from .errors import CalibrationError, ConfigurationError, FormatError, LosslessWarning
from .handle import PhotonArray, open_array
from .sources import Source, as_source, open_source
from .storage.design import WritePlan
from .storage.documents import read_documents, refuse_altered
from .storage.journal import read_journal
from .storage.location import Location
from .storage.profiles import Levels, check_profile
from .storage.values import ValueRange, value_range
from .storage.writer import copy_objects, write_array

#: Bounds of ``step`` [noise standard deviations]: beyond them something other than compression was meant.
_LARGEST_STEP = 8.0


@dataclass(frozen=True, eq=False)
class PhotonMovie:
    """A movie with what its owner knows better than an estimate; insert it in place of the array.

    Parameters
    ----------
    movie
        The array, with axes (time, ..., height, width).
    calibration
        The noise model; instead of ``conversion_gain`` and ``zero_level``.
    conversion_gain
        Counts per photon [ADU/photon].
    zero_level
        Counts at no light [ADU]; 0 when only the gain is given. Giving it makes negative counts acceptable.
    step
        Quantisation in noise standard deviations for this movie; None keeps that of the column, 0 is lossless.
    profile
        Profile for this movie; None keeps that of the column.
    signed
        True when negative counts are noise around darkness (a pedestal was subtracted): the noise model is then
        measured with them, and they come back as they are within the bound. A movie in a file of signed integers
        needs no telling.

    Raises
    ------
    CalibrationError
        For a gain or zero level that is not physical, or for a zero level without a gain.
    ConfigurationError
        For a calibration and a gain at the same time, or an unknown profile or step.
    """

    movie: Any
    calibration: Calibration | None = None
    conversion_gain: float | None = None
    zero_level: float | None = None
    step: float | None = None
    profile: str | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        given = self.conversion_gain is not None or self.zero_level is not None
        if self.calibration is not None and given:
            raise ConfigurationError("PhotonMovie takes either calibration or conversion_gain and zero_level, got both")
        if given and self.conversion_gain is None:
            raise CalibrationError(
                f"PhotonMovie got zero_level={self.zero_level!r} without conversion_gain: the noise depends on both"
            )
        self.noise_model()
        if self.step is not None:
            check_step(self.step)
        if self.profile is not None:
            check_profile(self.profile)

    def noise_model(self) -> Calibration | None:
        """The noise model that was given, if one was."""
        if self.conversion_gain is None:
            return self.calibration
        return Calibration.given(self.conversion_gain, 0.0 if self.zero_level is None else self.zero_level)


@dataclass(frozen=True)
class WriteOptions:
    """How to write a movie, when the movie itself does not say.

    Attributes
    ----------
    step, profile, compressors, zarr_format, progress
        As in :func:`write_movie`.
    """

    step: float = 0.5
    profile: str = "standard"
    compressors: Any = None
    zarr_format: ZarrFormat = 3
    progress: bool | None = None


def check_step(step: object) -> float:
    """``step`` as a number.

    Raises
    ------
    ConfigurationError
        When it is not a number from 0 (lossless) to 8 noise standard deviations.
    """
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step <= _LARGEST_STEP:
        raise ConfigurationError(
            f"step must be a number from 0 (lossless) to {_LARGEST_STEP:g} noise standard deviations, got {step!r}"
        )
    return float(step)


def write_movie(
    store: Any,
    movie: Any,
    *,
    calibration: Calibration | None = None,
    step: float = 0.5,
    profile: str = "standard",
    compressors: Any = None,
    zarr_format: ZarrFormat = 3,
    progress: bool | None = None,
) -> PhotonArray:
    """Store a movie of photon counts, re-quantised within its own noise and compressed.

    Parameters
    ----------
    store
        Where to: the path or URL of a folder that is empty or does not exist, or an empty zarr store.
    movie
        Counts with axes (time, ..., height, width): a numpy array, memory map, zarr or dask array, h5py dataset,
        fetched handle, the path of a file (as :func:`open_source` takes it), or a :class:`PhotonMovie`.
        Any integer or floating-point dtype.
    calibration
        The noise model; measured from the movie when None.
    step
        Quantisation in noise standard deviations: every count is changed by at most half a step of its own
        noise, and half a count. 0 is lossless.
    profile
        ``standard``, ``dense`` (the entropy coder: smallest), ``portable`` (any Zarr reader opens it),
        ``lossless``, or ``anscombe-v1`` (the anscombe-transform package reads it).
    compressors
        Codecs in place of the best by trial; see the compression page of the documentation.
    zarr_format
        3, or 2 for older readers.
    progress
        Whether to show a progress bar; None shows one when it takes long.

    Returns
    -------
    PhotonArray
        The stored movie.

    Raises
    ------
    MovieTypeError, InvalidMovieError
        For what cannot be stored; nothing is left behind.
    ConfigurationError
        For options out of range, or a place that is not empty.
    CalibrationError
        For ``anscombe-v1`` without a reliable noise model in its valid domain.
    StorageError
        When the store fails; what could not be removed again is named in a note on the error.

    Warns
    -----
    LosslessWarning
        When the movie supports no noise model, and is therefore stored losslessly.
    DenseWarning
        When ``dense`` was asked, and a compressor makes the movie smaller.
    """
    options = WriteOptions(step, profile, compressors, zarr_format, progress)
    return write_to(lambda: Location.of(store), movie, options, calibration)


def write_to(
    place: Callable[[], Location], movie: Any, options: WriteOptions, calibration: Calibration | None = None
) -> PhotonArray:
    """As :func:`write_movie`, to a place that is only asked for once the movie and the options hold."""
    signed = False
    if isinstance(movie, PhotonMovie):
        calibration = movie.noise_model() or calibration
        options = replace(
            options,
            step=options.step if movie.step is None else movie.step,
            profile=options.profile if movie.profile is None else movie.profile,
        )
        signed, movie = movie.signed, movie.movie
    check_options(options)
    with ExitStack() as opened:
        if isinstance(movie, str | os.PathLike):
            movie = opened.enter_context(open_source(movie))
        source = as_source(movie)
        source = replace(source, signed=source.signed or signed)
        if isinstance(movie, PhotonArray) and _settings_agree(movie, options, calibration):
            submit(refuse_altered(movie._location, movie.record, movie._documents)).result()
            location = place()
            copy_objects(movie._chunks.reader, movie._documents, location)
            return PhotonArray(location, movie._documents, movie.record)
        plan = plan_movie(source, options, calibration)
        location = place()
        return open_array(location, write_array(location, plan))


def check_options(options: WriteOptions) -> None:
    """Raise ConfigurationError for options out of range."""
    check_step(options.step)
    check_profile(options.profile)
    if options.zarr_format not in (2, 3):
        raise ConfigurationError(f"zarr_format must be 2 or 3, got {options.zarr_format!r}")
    if options.profile == "dense" and options.zarr_format == 2:
        raise ConfigurationError("the dense profile needs zarr_format=3, got 2: its entropy coder has no V2 codec")
    if options.profile == "dense" and options.compressors is not None:
        raise ConfigurationError(
            f"the dense profile compresses with its own entropy coder, got compressors={options.compressors!r}: "
            "leave them out, or use the standard profile"
        )


def _settings_agree(movie: PhotonArray, options: WriteOptions, calibration: Calibration | None) -> bool:
    """Whether what is stored for a handle is what these options would store."""
    record = movie.record
    if record is None or options.compressors is not None:
        return False
    same_noise = calibration is None or calibration == record.calibration
    same_step = record.step == options.step and record.profile == options.profile
    lossless = record.profile == "lossless" and (options.profile == "lossless" or not record.calibration.reliable)
    return same_noise and (same_step or lossless) and movie.metadata.zarr_format == options.zarr_format


def plan_movie(
    source: Source, options: WriteOptions, calibration: Calibration | None, values: ValueRange | None = None
) -> WritePlan:
    """Settle the noise model, and with it the profile.

    Parameters
    ----------
    source, options, calibration
        The movie, and what its owner wants.
    values
        The range of its counts; looked for in the movie when None.
    """
    negative_allowed = calibration is not None or source.signed
    values = values or value_range(source, negative_allowed=negative_allowed)
    if calibration is None and isinstance(source.value, PhotonArray) and source.value.record is not None:
        calibration = source.value.calibration  # measured on the original counts: better than anew
    profile, step = options.profile, options.step
    dense = profile == "dense"
    if profile == "lossless" or step == 0:
        profile, step = "lossless", 0.0
        calibration = calibration or Calibration.unknown("not measured: stored losslessly on request")
    elif calibration is None:
        calibration = calibrate(source)
    if not calibration.reliable and profile != "lossless":
        if profile == "anscombe-v1":
            raise CalibrationError(
                f"the anscombe-v1 profile needs a noise model, and there is none: {calibration.reason}"
            )
        warnings.warn(
            f"no reliable noise model: {calibration.reason}. The movie is stored losslessly; if you know its "
            "conversion gain and zero level, insert PhotonMovie(movie, conversion_gain=..., zero_level=...)",
            LosslessWarning,
            stacklevel=4,
        )
        profile, step = "lossless", 0.0
    return WritePlan(
        source=source,
        values=values,
        calibration=calibration,
        profile=profile,
        entropy_coder=dense,
        step=step,
        levels=_levels(source, calibration, step),
        compressors=options.compressors,
        zarr_format=options.zarr_format,
        negative_allowed=negative_allowed,
        progress=options.progress,
    )


def _levels(source: Source, calibration: Calibration, step: float) -> Levels:
    """Where the counts of a stored movie lie, if it was stored with this noise model and step."""
    record = source.value.record if isinstance(source.value, PhotonArray) else None
    if record is None or not record.step or (record.step, record.calibration) != (step, calibration):
        return Levels.ANYWHERE
    return Levels.DITHERED if record.dithered else Levels.PLAIN


def open_movie(store: Any) -> PhotonArray:
    """Open a stored movie.

    Parameters
    ----------
    store
        The path or URL of its folder, or a zarr store. Movies that :func:`write_movie` or a ``<photon@store>``
        column wrote, and arrays in the ``anscombe-v1`` format of the anscombe-transform package.

    Returns
    -------
    PhotonArray
        Reads the metadata now, and counts when it is indexed.

    Raises
    ------
    FormatError
        When there is no array, or one of a newer format version, or its metadata was altered after it was written.
    StorageError
        When the store cannot be read.
    """
    location = Location.of(store)
    documents = submit(read_documents(location)).result()
    if "zarr.json" in documents and documents["zarr.json"].get("node_type") != "array":
        documents = {}  # a group
    if "zarr.json" not in documents and ".zarray" not in documents:
        if submit(read_journal(location)).result() is not None:
            raise FormatError(
                f"the movie at {location.label} was never finished: whoever acquired it was ended before. "
                f"recover_movie({location.label!r}) makes a movie of what is there"
            )
        raise FormatError(
            f"there is no Zarr array at {location.label}: it needs a zarr.json or a .zarray document. Of a movie that "
            "lost it, a handle fetched from the database reads without it, and has its content in .documents"
        )
    movie = open_array(location, documents)
    submit(refuse_altered(location, movie.record, documents)).result()
    return movie
