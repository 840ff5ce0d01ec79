"""Write and open movies without a database: :func:`write_movie` and :func:`open_movie`.

The DataJoint codec calls these functions. They work with a plain path, a URL or a zarr store.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import zarr

from ._arguments import brief_repr
from ._typing import ZarrFormat
from ._zarr import submit
from .calibration import Calibration
from .errors import CalibrationError, ConfigurationError, FormatError
from .handle import LiveMovie, PhotonArray, open_array
from .handle.views import record_of_part, whole_movie
from .options import LOSSLESS, WriteOptions, check_option
from .sources import as_source, names_files, open_source, warn_of_time_last
from .storage.beside import Beside, read_beside
from .storage.claim import read_claim
from .storage.documents import read_documents, read_object, refuse_altered, with_checksums
from .storage.encoding import Origin
from .storage.journal import read_journal
from .storage.location import Location
from .storage.plan import Request
from .storage.record import with_record, without_record
from .storage.stores import check_store
from .storage.target import Target
from .storage.writer import copy_objects, write_array


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
        for name, value in self._options().items():
            check_option(name, value)

    def _options(self) -> dict[str, Any]:
        """Return the options that this movie has in place of the column's."""
        return {name: value for name in ("step", "profile") if (value := getattr(self, name)) is not None}

    def noise_model(self) -> Calibration | None:
        """Return the given noise model, or None if none was given."""
        if self.conversion_gain is None:
            return self.calibration
        return Calibration.given(self.conversion_gain, self.zero_level)


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
    options = WriteOptions(
        step=step, profile=profile, compressors=compressors, zarr_format=zarr_format, progress=progress
    )
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
        calibration, options = given or calibration, replace(options, **movie._options())
        signed, movie = movie.signed, movie.movie
    with ExitStack() as opened:
        if names_files(movie):
            movie = opened.enter_context(open_source(movie))
        warn_of_time_last(movie)
        movie = whole_movie(movie)
        origin, reason, beside = None, None, Beside()
        if isinstance(movie, PhotonArray):
            origin = None if movie.record is None else Origin(movie.record, movie.chunks)
            beside = submit(read_beside(movie._location)).result()
        elif (record := record_of_part(movie)) is not None:
            origin, signed, calibration = Origin(record), True, calibration or record.calibration
        if origin is not None:
            options, reason = origin.options_of_copy(options, calibration)
        source = as_source(movie)
        source = replace(source, signed=source.signed or signed)
        if isinstance(movie, PhotonArray) and _settings_agree(movie, options, calibration):
            return _copied(movie, place, beside)
        request = Request.of(source, options, calibration, origin=origin, reason=reason)
        location = place()
        return open_array(location, write_array(location, request, beside))


def is_stored(movie: object) -> bool:
    """Whether a movie is a stored one or a part of one, whose counts were checked when it was stored."""
    return isinstance(movie, PhotonArray) or record_of_part(movie) is not None


def _copied(movie: PhotonArray, place: Callable[[], Location], beside: Beside) -> PhotonArray:
    """Copy a stored movie byte for byte."""
    submit(refuse_altered(movie._location, movie.record, movie._documents)).result()
    record = submit(with_checksums(movie._location, movie.record)).result()
    assert record is not None  # a handle without a record is rewritten, not copied
    documents = movie._documents
    if record is not movie.record:
        documents = with_record(without_record(documents), record)
    location = place()
    return PhotonArray(location, copy_objects(movie._chunks.reader, documents, location, beside), record)


def _settings_agree(movie: PhotonArray, options: WriteOptions, calibration: Calibration | None) -> bool:
    """Return True if writing with these options would reproduce the stored bytes of a handle."""
    record = movie.record
    if record is None or options.compressors is not None:
        return False
    same_noise = calibration is None or calibration == record.calibration
    same_step = record.step == options.step and record.profile == options.profile
    lossless = record.profile == LOSSLESS.name and (
        options.profile == LOSSLESS.name or record.calibration.verdict == "unknown"
    )
    return same_noise and (same_step or lossless) and movie.metadata.zarr_format == options.zarr_format


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
                    f"the movie at {location.label} is being acquired by {claim}: open it when it is finished, "
                    "or now with live=True"
                )
            raise FormatError(
                f"the movie at {location.label} was never finished, because its acquisition was interrupted. "
                f"recover_movie({location.label!r}) makes a movie of what was stored"
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
            f"there is no Zarr array at {location.label}: it has neither a zarr.json nor a .zarray document. If the "
            "movie lost it, a handle fetched from the database still reads, and has its content in .documents"
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
