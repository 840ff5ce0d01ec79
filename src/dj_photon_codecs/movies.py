"""Write and open movies without a database: :func:`write_movie` and :func:`open_movie`.

The DataJoint codec calls these functions. They work with a plain path, a URL or a zarr store.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import zarr

from ._arguments import brief_repr
from ._threads import encoding_threads
from ._typing import ZarrFormat
from ._warn import warn
from ._zarr import submit
from .calibration import Calibration, calibrate
from .errors import CalibrationError, ConfigurationError, FormatError, LosslessWarning
from .handle import LiveMovie, PhotonArray, open_array
from .handle.views import record_of_part, whole_movie
from .sources import Source, as_source, names_files, open_source, warn_of_time_last
from .storage.beside import Beside, read_beside
from .storage.claim import read_claim
from .storage.count_range import ValueRange, value_range
from .storage.documents import read_documents, read_object, refuse_altered, with_checksums
from .storage.journal import read_journal
from .storage.location import Location
from .storage.plan import WritePlan
from .storage.profiles import Levels, check_profile
from .storage.record import MovieRecord, with_record, without_record
from .storage.stores import check_store
from .storage.target import Target
from .storage.writer import copy_objects, write_array

_log = logging.getLogger("dj_photon_codecs")

#: Largest ``step`` [noise standard deviations]; a larger value is almost certainly a mistake.
_LARGEST_STEP = 8.0


@dataclass(frozen=True, eq=False)
class PhotonMovie:
    """A movie with settings that you know better than an estimate can; insert it in place of the array.

    Parameters
    ----------
    movie
        The array, with axes (time, ..., height, width).
    calibration
        The noise model, as an alternative to ``conversion_gain`` and ``zero_level``.
    conversion_gain
        Counts per photon [ADU/photon].
    zero_level
        Counts in the dark [ADU]; measured if only the gain is given. Negative counts are accepted if it is given.
    step
        Quantisation step for this movie [noise standard deviations]; None uses the column's step, 0 is lossless.
    profile
        Profile for this movie; None uses the column's profile.
    signed
        True if a pedestal was subtracted, so that negative counts are noise around darkness. They are then included
        when the noise is measured, and are stored within the same error bound as other counts. Not needed for
        files of signed integers.

    Raises
    ------
    CalibrationError
        If the gain or zero level is not physical, or a zero level is given without a gain.
    ConfigurationError
        If both a calibration and a gain are given, or the profile or step is not valid.
    """

    movie: Any
    calibration: Calibration | None = None
    conversion_gain: float | None = None
    zero_level: float | None = None
    step: float | None = None
    profile: str | None = None
    signed: bool = False

    __repr__ = brief_repr

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
        """Return the given noise model, or None if none was given."""
        if self.conversion_gain is None:
            return self.calibration
        return Calibration.given(self.conversion_gain, self.zero_level)


@dataclass(frozen=True)
class WriteOptions:
    """Options of :func:`write_movie`; a :class:`PhotonMovie` overrides ``step`` and ``profile``."""

    step: float = 0.5
    profile: str = "standard"
    compressors: Any = None
    zarr_format: ZarrFormat = 3
    progress: bool | None = None


def check_step(step: object) -> float:
    """Return ``step`` as a float, or raise ConfigurationError if it is not a number from 0 (lossless) to 8."""
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
    """Store a movie of photon counts, quantised within its own noise and compressed.

    Parameters
    ----------
    store
        Destination: the path or URL of a folder that is empty or does not exist, or an empty zarr store.
    movie
        Counts with axes (time, ..., height, width): a numpy array, memory map, zarr or dask array, h5py dataset,
        fetched handle, file path (anything :func:`open_source` accepts), or a :class:`PhotonMovie`.
        Any integer or floating-point dtype. Copying a stored movie also copies its attributes and the frame data
        that :func:`read_frame_data` returns; copying a part of one does not.
    calibration
        The noise model; None measures it from the movie.
    step
        Quantisation step [noise standard deviations]. A count changes by at most half a step of its own noise,
        plus half a count. 0 is lossless. If rounding would save less than 3 % of the bytes, nothing is rounded:
        the profile is then ``lossless``, and ``record.reason`` says why.
    profile
        ``standard``, ``dense`` (entropy coder, smallest), ``portable`` (readable by any Zarr reader),
        ``lossless``, or ``anscombe-v1`` (readable by the anscombe-transform package).
    compressors
        Codecs to use instead of the best one found by trial; see the compression page of the documentation.
    zarr_format
        3, or 2 for older readers.
    progress
        Whether to show a progress bar; None shows one if writing takes long.

    Returns
    -------
    PhotonArray
        The stored movie.

    Raises
    ------
    MovieTypeError, InvalidMovieError
        If the movie cannot be stored; nothing is left behind.
    ConfigurationError
        If an option is out of range.
    OccupiedError
        If the destination is not empty, or another movie is being written there.
    CalibrationError
        If ``anscombe-v1`` has no reliable noise model within its valid domain.
    StorageError
        If the store fails. A note on the error names any objects that could not be removed.

    Warns
    -----
    LosslessWarning
        If no noise model fits the movie, which is then stored losslessly.
    DenseWarning
        If ``dense`` was requested but a compressor makes the movie smaller.
    """
    options = WriteOptions(step, profile, compressors, zarr_format, progress)
    return write_to(lambda: Location.of(store), movie, options, calibration)


def write_to(
    place: Callable[[], Location], movie: Any, options: WriteOptions, calibration: Calibration | None = None
) -> PhotonArray:
    """Do the work of :func:`write_movie`; ``place`` is called only after the movie and the options are checked."""
    signed = False
    if isinstance(movie, PhotonMovie):
        given = movie.noise_model()
        if given is not None and calibration is not None and given != calibration:
            raise ConfigurationError(
                f"two noise models: PhotonMovie has {given}, and calibration= is {calibration}; give one of them"
            )
        calibration = given or calibration
        options = replace(
            options,
            step=options.step if movie.step is None else movie.step,
            profile=options.profile if movie.profile is None else movie.profile,
        )
        signed, movie = movie.signed, movie.movie
    check_options(options)
    with ExitStack() as opened:
        if names_files(movie):
            movie = opened.enter_context(open_source(movie))
        warn_of_time_last(movie)
        movie = whole_movie(movie)
        reason, rounded = None, 0.0
        stored = movie.record if isinstance(movie, PhotonArray) else record_of_part(movie)
        if stored is not None:
            is_part = not isinstance(movie, PhotonArray)
            if is_part:
                signed, calibration = True, calibration or stored.calibration
            same_noise = calibration in (None, stored.calibration)
            rounded = stored.step or stored.rounded
            displaced = not stored.step or (is_part and (stored.dithered or not same_noise))
            if displaced and 0 < options.step <= rounded:
                reason = f"its counts were rounded by step {rounded:g} before, and would be rounded once more"
                options = replace(options, step=0.0)
            elif options.step and same_noise:  # a finer step would round again and restore nothing
                options = replace(options, step=max(options.step, stored.step))
        beside = submit(read_beside(movie._location)).result() if isinstance(movie, PhotonArray) else Beside()
        source = as_source(movie)
        source = replace(source, signed=source.signed or signed)
        if isinstance(movie, PhotonArray) and _settings_agree(movie, options, calibration):
            submit(refuse_altered(movie._location, movie.record, movie._documents)).result()
            record = submit(with_checksums(movie._location, movie.record)).result()
            assert record is not None  # a handle without a record is rewritten, not copied
            documents = movie._documents
            if record is not movie.record:
                documents = with_record(without_record(documents), record)
            location = place()
            documents = copy_objects(movie._chunks.reader, documents, location, beside)
            return PhotonArray(location, documents, record)
        plan = replace(plan_movie(source, options, calibration, stored=stored), reason=reason, rounded=rounded)
        location = place()
        return open_array(location, write_array(location, plan, beside))


def check_options(options: WriteOptions) -> None:
    """Raise ConfigurationError if an option is out of range or two options conflict."""
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
    """Return True if writing with these options would reproduce the stored bytes of a handle."""
    record = movie.record
    if record is None or options.compressors is not None:
        return False
    same_noise = calibration is None or calibration == record.calibration
    same_step = record.step == options.step and record.profile == options.profile
    lossless = record.profile == "lossless" and (
        options.profile == "lossless" or record.calibration.verdict == "unknown"
    )
    return same_noise and (same_step or lossless) and movie.metadata.zarr_format == options.zarr_format


def plan_movie(
    source: Source,
    options: WriteOptions,
    calibration: Calibration | None,
    values: ValueRange | None = None,
    stored: MovieRecord | None = None,
) -> WritePlan:
    """Choose the noise model and, based on it, the profile.

    ``values`` is the range of the counts; None measures it. ``stored`` is the record of the stored movie that the
    source is, or is a part of.
    """
    # a stored movie was accepted when it was inserted
    negative_allowed = calibration is not None or source.signed or stored is not None
    if stored is not None and (calibration is None or calibration == stored.calibration):
        calibration = stored.calibration  # from the original counts, so better than a new one
    rounds = options.profile != "lossless" and options.step != 0
    if values is None and calibration is None and rounds:
        values, calibration = _measured(source, negative_allowed=negative_allowed)
    values = values or value_range(source, negative_allowed=negative_allowed)
    profile, step = options.profile, options.step
    dense = profile == "dense"
    if not rounds:
        profile, step = "lossless", 0.0
        calibration = calibration or Calibration.unknown("not measured: stored losslessly on request")
    elif calibration is None:
        calibration = calibrate(source)
    if calibration.verdict == "unknown" and profile != "lossless":
        if profile == "anscombe-v1":
            raise CalibrationError(
                f"the anscombe-v1 profile needs a noise model, and there is none: {calibration.reason}"
            )
        warn(
            f"no noise model: {calibration.reason}. The movie is stored losslessly; if you know its "
            "conversion gain and zero level, insert PhotonMovie(movie, conversion_gain=..., zero_level=...)",
            LosslessWarning,
        )
        profile, step = "lossless", 0.0
    levels = _levels(stored, calibration, step)
    if levels is Levels.PORTABLE and profile in ("standard", "dense"):
        _log.info("the movie keeps the counts and the profile of the portable movie that it is copied from")
        profile, dense = "portable", False
    return WritePlan(
        source=source,
        values=values,
        calibration=calibration,
        profile=profile,
        entropy_coder=dense,
        step=step,
        levels=levels,
        compressors=options.compressors,
        zarr_format=options.zarr_format,
        negative_allowed=negative_allowed,
        progress=options.progress,
        # a copy keeps the chunk shape, because the dither depends on the position in the chunk
        chunk=source.value._reader.grid.chunk if levels is Levels.DITHERED else None,
    )


def _measured(source: Source, *, negative_allowed: bool) -> tuple[ValueRange, Calibration]:
    """Measure the range of the counts and the noise; movies in memory do both at once, in two threads."""
    if not source.in_memory:
        return value_range(source, negative_allowed=negative_allowed), calibrate(source)
    looking = encoding_threads().submit(value_range, source, negative_allowed=negative_allowed)
    try:
        calibration = calibrate(source)
    finally:
        values = looking.result()  # an error about invalid counts takes precedence
    return values, calibration


def _levels(stored: MovieRecord | None, calibration: Calibration, step: float) -> Levels:
    """Return the levels of a stored movie's counts; ANYWHERE if its noise model or step was different."""
    if stored is None or not stored.step or (stored.step, stored.calibration) != (step, calibration):
        return Levels.ANYWHERE
    if stored.dithered:
        return Levels.DITHERED
    return Levels.PORTABLE if stored.profile == "portable" else Levels.ANYWHERE


def break_claim(store: Any) -> None:
    """Remove what a writer left behind when it ended before its movie was finished.

    The next :func:`write_movie` cleans up by itself after a writer that ended on the same machine. Use this
    function for a writer on another machine, and only if you know that it has ended. It never removes a finished
    movie, or one that :func:`~dj_photon_codecs.recover_movie` can finish.

    Parameters
    ----------
    store
        The destination that the writer was given.

    Raises
    ------
    StorageError
        If the store fails.
    """
    location = Location.of(store)
    if submit(read_claim(location)).result() is not None:
        submit(Target(location).remove_unfinished()).result()


@overload
def open_movie(store: Any, *, live: Literal[False] = False) -> PhotonArray: ...
@overload
def open_movie(store: Any, *, live: Literal[True]) -> LiveMovie: ...
def open_movie(store: Any, *, live: bool = False) -> PhotonArray | LiveMovie:
    """Open a stored movie.

    Parameters
    ----------
    store
        The path or URL of the movie's folder, or a zarr store. An open movie is returned unchanged. Opens movies
        written by :func:`write_movie` or a ``<photon@store>`` column, and arrays in the ``anscombe-v1`` format of
        the anscombe-transform package.
    live
        True for a movie that is still being acquired. Each ``refresh()`` makes the newly stored frames readable.

    Returns
    -------
    PhotonArray
        A lazy array: the metadata is read now, counts when it is indexed. With ``live``, a :class:`LiveMovie`.

    Raises
    ------
    FormatError
        If there is no array, its format version is newer, or its metadata was altered after it was written.
    StorageError
        If the store cannot be read, or its folder or bucket does not exist.
    """
    if isinstance(store, PhotonArray):
        return store
    location = Location.of(store)
    if live:
        return LiveMovie(location)
    documents = submit(read_documents(location)).result()
    if documents.get("zarr.json", {}).get("node_type", "array") != "array":
        raise FormatError(_about_group(location))
    if "zarr.json" not in documents and ".zarray" not in documents:
        claim = submit(read_claim(location)).result()
        if submit(read_journal(location)).result() is not None:
            if claim is not None and not claim.is_stale:
                raise FormatError(
                    f"the movie at {location.label} is being acquired by {claim}: open it when it is closed, "
                    "or what is there with live=True"
                )
            raise FormatError(
                f"the movie at {location.label} was never finished: whoever acquired it was ended before. "
                f"recover_movie({location.label!r}) makes a movie of what is there"
            )
        if location.is_local and os.path.isfile(location.root):
            raise FormatError(_about_file(location.root))
        if claim is not None:
            raise FormatError(
                f"the movie at {location.label} is not finished: it is being written by {claim}. If that process has "
                f"ended, write it again, or break_claim({location.label!r}) removes what is there"
            )
        submit(check_store(location)).result()
        if submit(read_object(location, ".zgroup")).result() is not None:
            raise FormatError(_about_group(location))
        raise FormatError(
            f"there is no Zarr array at {location.label}: it needs a zarr.json or a .zarray document. Of a movie that "
            "lost it, a handle fetched from the database reads without it, and has its content in .documents"
        )
    movie = open_array(location, documents)
    submit(refuse_altered(location, movie.record, documents)).result()
    return movie


def _about_group(location: Location) -> str:
    """Return the error text for a Zarr group found instead of a stored movie."""
    try:
        group = zarr.open_group(location.open(read_only=True), path=location.prefix.rstrip("/"), mode="r")
        arrays = sorted(name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array))
    except Exception:  # each store raises its own types; some cannot list
        arrays = []
    more = f" and {len(arrays) - 10} more" if len(arrays) > 10 else ""
    held = f" with the arrays {arrays[:10]}{more}" if arrays else ""
    return (
        f"{location.label} is a Zarr group{held}, not a movie: open_movie with the path of an array in it, or "
        f"open_source({location.label!r}) for the movie of another program"
    )


def _about_file(path: str) -> str:
    """Return the error text for a file found instead of the folder of a stored movie."""
    if zipfile.is_zipfile(path):
        return (
            f"{path} is a zip file: a movie in it opens with open_movie(zarr.storage.ZipStore({path!r}, mode='r')), "
            "and an .npz file holds arrays for numpy.load"
        )
    kind = os.path.splitext(path)[1].removeprefix(".").upper()
    return (
        f"{path} is a file{f' ({kind})' if kind else ''}, not the folder of a stored movie: open_source({path!r}) "
        f"opens it, and write_movie(new_folder, {path!r}) stores it"
    )
