"""Stored movies as OME-Zarr 0.5 images: the movie, smaller copies of it for viewers, and their metadata."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from .._typing import AnyArray, Json
from .._zarr import submit
from ..errors import ConfigurationError, StorageError
from ..handle import PhotonArray, open_array
from ..movies import write_movie
from ..options import LOSSLESS, PORTABLE
from ..storage.documents import sealed
from ..storage.location import Location
from ..storage.progress import progress_bar
from ..storage.record import ATTRIBUTE
from ..storage.target import Target, all_or_nothing
from .axes import Axis, axes_of, contrast_limits

_TYPES = {"t": "time", "c": "channel"}  # all other axes are space

#: Sides of the smallest copy of a frame, at most [pixels].
_SMALL = 256


def to_ome_zarr(
    movie: PhotonArray,
    folder: Any,
    *,
    profile: str | None = PORTABLE.name,
    frame_rate: float | None = None,
    pixel_size: float | tuple[float, ...] | None = None,
    name: str | None = None,
    progress: bool | None = None,
) -> PhotonArray:
    """Write the movie as an OME-Zarr 0.5 image, which any OME-Zarr viewer opens.

    The image has the movie itself as level 0, with the same counts, and further levels whose frames are half as wide
    and high as in the one before, until they have at most 256 pixels a side. A pixel of level k is the mean of
    2**k x 2**k counts, rounded to the dtype of the movie; an odd last row or column is left out. Each chunk is read
    once for all levels.

    Parameters
    ----------
    folder
        Destination: the path or URL of a folder that is empty or does not exist, or an empty zarr store.
    profile
        ``portable``, which any Zarr reader opens. None copies the movie as it is stored: smaller, and readable where
        this package is installed.
    frame_rate
        Frames (or volumes) per second [Hz]; None takes that of the source. Without one, the time axis has no unit.
    pixel_size
        Size of a pixel [µm]: one number, (height, width) or (plane, height, width). None takes that of the source.
    name
        Name of the image and its channel; None takes the name of the folder.
    progress
        Whether to show progress bars; None shows them if writing takes long.

    Returns
    -------
    PhotonArray
        Level 0.

    Raises
    ------
    ConfigurationError
        If an option is out of range.
    OccupiedError
        If the destination is not empty.
    InvalidMovieError
        If the movie has more than 5 axes.
    MissingChunkError, DamagedChunkError
        If the movie is not complete and intact.
    StorageError
        If a store fails. In all cases, nothing is left behind.
    """
    if profile not in (PORTABLE.name, None):
        raise ConfigurationError(f"profile must be 'portable' or None (as the movie is stored), got {profile!r}")
    axes = axes_of(movie, frame_rate, pixel_size)
    location = Location.of(folder)
    name = name or location.label.rstrip("/").rpartition("/")[2].partition(".")[0]
    with all_or_nothing(location) as target:
        try:
            first = _written(movie, _inside(location, "0"), profile or movie.profile, axes, progress)
            with location.errors_named(f"the smaller levels of {location.label} could not be created"):
                levels = _empty_levels(first, axes, location)
            _fill(levels, movie, location, (first.shards or first.chunks)[0], progress)
            ome = _metadata(first, axes, 1 + len(levels), name)
            document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
            submit(target.put_json("zarr.json", document)).result()
        except BaseException:
            with suppress(StorageError):  # the first error says more
                target.others_write(submit(target.keys()).result())  # all is ours: the destination was empty
            raise
    return first


def _inside(location: Location, name: str) -> Location:
    """Return the location of an array in the group at a location."""
    root = f"{location.root.rstrip('/')}/{name}" if location.root else name
    return replace(location, root=root, label=f"{location.label.rstrip('/')}/{name}")


def _written(
    movie: PhotonArray, location: Location, profile: str, axes: list[Axis], progress: bool | None
) -> PhotonArray:
    """Copy the movie, and give its axes the names that OME-Zarr requires in the metadata of the array too.

    The digest covers those names, so the record gets a new one.
    """
    record = movie.record
    if record is None or not (record.dithered or record.profile == profile):
        profile = LOSSLESS.name  # any other profile would round counts that are not on its levels
    copy = write_movie(location, movie, step=movie.step, profile=profile, progress=progress)
    assert copy.record is not None  # it was written just now
    document = {**copy.documents["zarr.json"], "dimension_names": [axis.letter for axis in axes]}
    record = sealed(copy.record, {"zarr.json": document})
    document["attributes"] = {**document["attributes"], ATTRIBUTE: record.to_dict()}
    submit(Target(location).put_json("zarr.json", document)).result()
    return open_array(location, {"zarr.json": document})


def _empty_levels(first: PhotonArray, axes: list[Axis], location: Location) -> list[zarr.Array[Any]]:
    """Create the arrays of all levels below 0, with one object for the frames of each object of level 0."""
    store = location.open(read_only=False)
    levels: list[zarr.Array[Any]] = []
    plane = first.shape[-2:]
    while max(plane) > _SMALL and min(plane) > 1:
        plane = tuple(side // 2 for side in plane)
        levels.append(
            zarr.create_array(
                store,
                name=f"{location.prefix}{1 + len(levels)}",
                shape=(*first.shape[:-2], *plane),
                dtype=first.dtype,
                chunks=(first.chunks[0], *(1,) * (first.ndim - 3), *plane),
                shards=((first.shards or first.chunks)[0], *first.shape[1:-2], *plane),
                compressors=(BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()),
                fill_value=first.fill_value,
                dimension_names=[axis.letter for axis in axes],
            )
        )
    return levels


def _fill(
    levels: list[zarr.Array[Any]], movie: PhotonArray, location: Location, n_frames: int, progress: bool | None
) -> None:
    """Read the movie once, ``n_frames`` at a time, and write their means to all levels."""
    with progress_bar("smaller levels", len(movie), "frame", progress) as advance:
        for start in range(0, len(movie) if levels else 0, n_frames):
            stop = min(start + n_frames, len(movie))
            means = movie[start:stop]
            for level in levels:
                means = _halved(means)
                with location.errors_named(f"level {level.basename} of {location.label} could not be written"):
                    level[start:stop] = means if level.dtype.kind == "f" else np.rint(means)
            advance(stop - start)


def _halved(values: AnyArray) -> AnyArray:
    """Return the means of 2 x 2 pixels, in float64."""
    height, width = (side // 2 for side in values.shape[-2:])
    squares = values[..., : 2 * height, : 2 * width].reshape(*values.shape[:-2], height, 2, width, 2)
    return np.asarray(squares.mean(axis=(-3, -1), dtype=np.float64))


def _metadata(first: PhotonArray, axes: list[Axis], n_levels: int, name: str) -> Json:
    """Return the ``ome`` attribute of the group; reads one frame."""
    described = [
        {"name": axis.letter, "type": _TYPES.get(axis.letter, "space"), **({"unit": axis.unit} if axis.unit else {})}
        for axis in axes
    ]
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(axes, level)} for level in range(n_levels)
    ]
    black, white = contrast_limits(first)
    integers = None if first.dtype.kind == "f" else np.iinfo(first.dtype)
    lowest, highest = (integers.min, integers.max) if integers else (black, white)
    window = {"min": lowest, "max": highest, "start": black, "end": white}
    channel = {"label": name, "color": "FFFFFF", "active": True, "window": window}
    n_channels = math.prod(n for axis, n in zip(axes, first.shape, strict=True) if axis.letter == "c")
    how = {"description": "means of 2 x 2 counts of the level before", "method": "dj_photon_codecs.to_ome_zarr"}
    image = {"name": name, "type": "mean", "metadata": how, "axes": described, "datasets": datasets}
    return {
        "version": "0.5",
        "multiscales": [image],
        "omero": {"channels": [channel] * n_channels},
    }


def _transformations(axes: list[Axis], level: int) -> list[Json]:
    """Return the spacing of a level, and where the centre of its first pixel is: the mean of those in level 0."""
    factors = [1] * (len(axes) - 2) + [1 << level] * 2
    scale = [axis.spacing * factor for axis, factor in zip(axes, factors, strict=True)]
    translation = [axis.spacing * (factor - 1) / 2 for axis, factor in zip(axes, factors, strict=True)]
    return [{"type": "scale", "scale": scale}, *([{"type": "translation", "translation": translation}] * (level > 0))]
