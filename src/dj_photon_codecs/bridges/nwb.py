"""NWB: movies as photon series, in HDF5 files (pynwb) and Zarr stores (hdmf-zarr)."""

from __future__ import annotations

import math
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CalibrationError, ConfigurationError, InvalidMovieError
from ..sources.stack import library
from .axes import acquisition_of, axes_of, frame_rate_of, recorded_interval
from .files import appearing

if TYPE_CHECKING:
    from ..handle import PhotonArray

#: Size of an HDF5 chunk [bytes]. HDF5 up to 1.14 caches 1 MiB and would decompress a larger chunk for each frame.
_HDF5_CHUNK = 1 << 20

Backend = Literal["hdf5", "zarr"]
_BACKENDS: dict[str, Backend] = {".nwb": "hdf5", ".zarr": "zarr"}


def to_nwb(
    movie: PhotonArray,
    file: str | Path,
    *,
    nwbfile: Any = None,
    imaging_plane: Any = None,
    session_start_time: datetime | None = None,
    indicator: str | None = None,
    location: str | None = None,
    excitation_lambda: float | None = None,
    emission_lambda: float | None = None,
    one_photon: bool = False,
    portable: bool = False,
    **fields: Any,
) -> Path:
    """Write a movie to a new NWB file.

    One chunk (HDF5) or object (Zarr) of the movie is in memory at a time. The file appears when it is complete.

    Parameters
    ----------
    movie
        The movie, with axes (time, height, width) or (time, plane, height, width).
    file
        Path of the file. Its ending decides the format: ``.nwb`` is HDF5, ``.nwb.zarr`` is Zarr (by hdmf-zarr 0.14).
    nwbfile
        The :class:`pynwb.NWBFile` to add the series to and to write. None makes one that describes only the movie.
    imaging_plane
        A :class:`pynwb.ophys.ImagingPlane` of ``nwbfile``. None makes one, from the next four arguments and from the
        pixel size, if the movie's metadata has it.
    session_start_time
        Start of the recording, for a new NWBFile. None takes it from the movie's metadata.
    indicator, location, excitation_lambda, emission_lambda
        Fluorophore, brain area, and wavelengths [nm], for a new imaging plane. NWB requires them: None becomes
        "unknown" or NaN.
    one_photon, portable, **fields
        See :func:`photon_series`.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ImportError
        If pynwb, or hdmf-zarr for a Zarr store, is not installed.
    OccupiedError
        If ``file`` exists.
    ConfigurationError
        If the ending is neither ``.nwb`` nor ``.zarr``, if the start or the frame rate is neither known nor given, or
        if the fields that describe an imaging plane or a session come with an object that has them.
    InvalidMovieError
        If the movie has more than four axes, which NWB has no place for.
    """
    target = Path(file)
    backend = _BACKENDS.get(target.suffix)
    if backend is None:
        raise ConfigurationError(f"{target} must end in .nwb, for HDF5, or in .nwb.zarr, for Zarr")
    pynwb = _library("pynwb")
    with appearing(target) as partial:
        if nwbfile is None:
            nwbfile = _new_file(pynwb, movie, session_start_time)
        elif session_start_time is not None:
            raise ConfigurationError("session_start_time is for a new NWBFile, and the given nwbfile has one")
        wavelengths = {"excitation_lambda": excitation_lambda, "emission_lambda": emission_lambda}
        description: dict[str, Any] = {"indicator": indicator, "location": location, **wavelengths}
        described = {name: value for name, value in description.items() if value is not None}
        if imaging_plane is None:
            imaging_plane = _new_plane(pynwb, movie, nwbfile, **described)
        elif described:
            raise ConfigurationError(
                "indicator, location and wavelengths are for a new imaging plane, and imaging_plane= was given"
            )
        nwbfile.add_acquisition(
            photon_series(movie, imaging_plane, backend=backend, one_photon=one_photon, portable=portable, **fields)
        )
        opened = pynwb.NWBHDF5IO if backend == "hdf5" else _library("hdmf_zarr").NWBZarrIO
        with opened(str(partial), mode="w") as io:
            io.write(nwbfile)
    return target


def photon_series(
    movie: PhotonArray,
    imaging_plane: Any,
    *,
    backend: Backend = "hdf5",
    one_photon: bool = False,
    portable: bool = False,
    rate: float | None = None,
    timestamps: Any = None,
    **fields: Any,
) -> Any:
    """Return a movie as an NWB series, which is read when pynwb writes it: ``nwbfile.add_acquisition(series)``.

    NWB orders axes as (time, width, height) or (time, width, height, depth): the spatial axes of the movie are
    reversed. If the gain was measured or given, ``data * conversion + offset`` are photons.

    Parameters
    ----------
    movie
        The movie, with axes (time, height, width) or (time, plane, height, width).
    imaging_plane
        The :class:`pynwb.ophys.ImagingPlane` of the recording.
    backend
        Format of the file, because pynwb sets the compression here: ``hdf5`` or ``zarr``.
    one_photon
        True for a OnePhotonSeries, False for a TwoPhotonSeries.
    portable
        For Zarr: True leaves out the codecs of this package, so that any Zarr reader reads the series. Otherwise it
        keeps the movie's codecs and size. HDF5 files never have these codecs.
    rate
        Frames (or volumes) per second [Hz].
    timestamps
        Time of each frame [s], in place of a rate. If neither is given, they come from the movie's metadata.
    **fields
        More fields of the series, such as ``name``, ``starting_time``, ``scan_line_rate``, ``description``. They
        replace those that are filled in.

    Returns
    -------
    pynwb.ophys.TwoPhotonSeries or pynwb.ophys.OnePhotonSeries
        The series. It can be written once.

    Raises
    ------
    ImportError
        If pynwb, or hdmf-zarr for ``backend="zarr"``, is not installed.
    ConfigurationError
        If the backend is unknown, or the rate is not known, not positive, or given with timestamps, or the number of
        timestamps is not that of the frames.
    InvalidMovieError
        If the movie has more than four axes.
    """
    if backend not in ("hdf5", "zarr"):
        raise ConfigurationError(f"backend must be 'hdf5' or 'zarr', got {backend!r}")
    if len(movie.shape) > 4:
        raise InvalidMovieError(f"NWB has series of 3 or 4 axes, and the movie has {movie.shape}: write a part of it")
    ophys = _library("pynwb").ophys
    kind = ophys.OnePhotonSeries if one_photon else ophys.TwoPhotonSeries
    filled = {
        "name": kind.__name__,
        "description": f"counts, axes (time, {', '.join(('width', 'height', 'depth')[: len(movie.shape) - 1])})",
        **_unit(movie),
        **_times(movie, rate, timestamps),
        "data": _hdf5_data(movie) if backend == "hdf5" else _zarr_data(movie, portable),
    }
    return kind(imaging_plane=imaging_plane, **{**filled, **fields})


def _library(name: str) -> Any:
    """Import pynwb or hdmf_zarr, or name the extra."""
    what = {"pynwb": "NWB files", "hdmf_zarr": "NWB files in Zarr, on Python 3.12 or newer with zarr 3.4,"}
    return library(name, "nwb", what[name])


def _new_file(pynwb: Any, movie: PhotonArray, start: datetime | None) -> Any:
    if start is None:
        date = acquisition_of(movie).get("AcquisitionDate")
        if date is None:
            raise ConfigurationError(
                "an NWB file needs the start of the recording, which this movie does not know: "
                "session_start_time=datetime(...)"
            )
        start = datetime.fromisoformat(date)
    return pynwb.NWBFile(
        session_description="a photon-limited movie",
        identifier=str(uuid.uuid4()),
        session_start_time=start if start.tzinfo else start.astimezone(),
    )


def _new_plane(
    pynwb: Any,
    movie: PhotonArray,
    nwbfile: Any,
    *,
    indicator: str = "unknown",
    location: str = "unknown",
    excitation_lambda: float = math.nan,
    emission_lambda: float = math.nan,
) -> Any:
    """Add a plane to the file, with the pixel size if it is known."""
    space = axes_of(movie)[:0:-1]  # width, height, depth
    spacing = [axis.spacing * 1e-6 for axis in space] if all(axis.unit for axis in space) else None
    channel = pynwb.ophys.OpticalChannel(
        name="OpticalChannel",
        description="the channel of the movie",
        emission_lambda=emission_lambda,
    )
    return nwbfile.create_imaging_plane(
        name="ImagingPlane",
        description="the plane of the movie",
        optical_channel=channel,
        device=nwbfile.create_device(name="Microscope", description="the microscope of the movie"),
        indicator=indicator,
        location=location,
        excitation_lambda=excitation_lambda,
        grid_spacing=spacing,
    )


def _unit(movie: PhotonArray) -> dict[str, Any]:
    """Photons, where the gain is known well enough to count them; else counts."""
    try:
        noise = movie.calibration
    except CalibrationError:  # not written by this package
        return {"unit": "counts"}
    rounded = f"rounded by at most {movie.step / 2:g} noise standard deviations and half a count"
    comments = f"Stored by dj-photon-codecs, profile {movie.profile}: {rounded if movie.step else 'as recorded'}."
    if not noise.reliable:
        return {"unit": "counts", "comments": f"{comments} Photons unknown: {noise.reason or noise.verdict}."}
    gain, zero = noise.conversion_gain, noise.zero_level
    comments += f" Conversion gain {gain:.6g} counts per photon, zero level {zero:.6g} counts ({noise.method})."
    return {"unit": "photons", "conversion": 1 / gain, "offset": -zero / gain, "comments": comments}


def _times(movie: PhotonArray, rate: float | None, timestamps: Any) -> dict[str, Any]:
    if rate is not None and timestamps is not None:
        raise ConfigurationError("a series has either rate or timestamps, got both")
    if rate is None and timestamps is None and recorded_interval(movie) is None:
        timestamps = acquisition_of(movie).get("DeltaT")
    if timestamps is None:
        return {"rate": frame_rate_of(movie, rate, "rate"), "starting_time": 0.0}
    if len(timestamps) != len(movie):
        raise ConfigurationError(f"timestamps has {len(timestamps)} times, and the movie {len(movie)} frames")
    return {"timestamps": timestamps}


def _nwb_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(time, height, width) to (time, width, height); (time, plane, height, width) to (time, width, height, depth)."""
    return shape[0], *shape[:0:-1]


def _frames(movie: PhotonArray, at_once: int) -> Any:
    """Return the frames as pynwb takes them: transposed, so many at a time."""
    from hdmf.data_utils import DataChunkIterator

    frames = (frame.T for frame in movie.frames())
    return DataChunkIterator(data=frames, maxshape=_nwb_order(movie.shape), dtype=movie.dtype, buffer_size=at_once)


def _hdf5_data(movie: PhotonArray) -> Any:
    """Gzip after shuffling bytes: every HDF5 reader has both."""
    frame = math.prod(movie.shape[1:]) * movie.dtype.itemsize
    n_frames = min(len(movie), max(1, _HDF5_CHUNK // frame))
    chunks = (n_frames, *_nwb_order(movie.shape)[1:])
    wrap = _library("pynwb").H5DataIO
    return wrap(data=_frames(movie, n_frames), chunks=chunks, compression="gzip", shuffle=True)


def _zarr_data(movie: PhotonArray, portable: bool) -> Any:
    """The movie's own codecs, chunks and objects behind a transposition, so that counts and sizes stay the same."""
    wrap = _library("hdmf_zarr").ZarrDataIO
    from zarr.codecs import TransposeCodec, ZstdCodec

    back = TransposeCodec(order=_nwb_order(tuple(range(len(movie.shape)))))
    layout: dict[str, Any] = {"chunks": _nwb_order(movie.chunks), "fillvalue": movie.fill_value}
    if movie.shards is not None:
        layout["shards"] = _nwb_order(movie.shards)
    if portable or movie.metadata.zarr_format == 2:
        layout |= {"filters": (back,), "compressors": ZstdCodec(level=5)}
    else:
        layout |= {"filters": (back, *movie.filters), "serializer": movie.serializer, "compressors": movie.compressors}
    return wrap(data=_frames(movie, (movie.shards or movie.chunks)[0]), **layout)
