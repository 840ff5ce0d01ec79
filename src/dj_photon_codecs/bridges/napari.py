"""Stored movies in napari: its reader plugin (``napari.yaml`` is the manifest), and :func:`to_napari`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from .._zarr import submit
from ..anscombe.generalized import generalized_anscombe
from ..errors import PhotonCodecError
from ..handle import PhotonArray
from ..movies import open_movie
from ..sources.stack import library
from ..storage.documents import read_documents
from ..storage.location import Location
from ..storage.record import ATTRIBUTE
from .axes import axes_of, contrast_limits, zero_level_of

#: What napari makes a layer of: array, options, type.
LayerData = tuple[Any, dict[str, Any], str]


def to_napari(
    movie: PhotonArray,
    viewer: Any = None,
    *,
    frame_rate: float | None = None,
    pixel_size: float | tuple[float, ...] | None = None,
) -> Any:
    """Show the movie in napari, which reads the chunks of the frames that you look at; requires the ``napari`` extra.

    Adds a layer of counts and, if the noise is known, a hidden layer of ``movie.stabilized`` below it. Black is the
    zero level, white the 99.7th percentile of the frame in the middle, which is read now.

    Parameters
    ----------
    viewer
        The ``napari.Viewer`` to add to; None opens one.
    frame_rate
        Frames (or volumes) per second [Hz]; None takes that of the source.
    pixel_size
        Size of a pixel [µm]: one number, (height, width) or (plane, height, width). None takes that of the source.

    Returns
    -------
    napari.Viewer
        The viewer. In a script, ``napari.run()`` keeps it open.

    Raises
    ------
    ConfigurationError
        If a frame rate or pixel size is not positive.
    InvalidMovieError
        If the movie has more than 5 axes.
    StorageError
        If the store cannot be read.
    """
    napari = library("napari", "napari", "napari layers")
    shown = layers(movie, frame_rate, pixel_size)
    viewer = viewer or napari.Viewer()
    for layer in shown:
        viewer.add_layer(napari.layers.Layer.create(*layer))
    return viewer


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return napari's reader for the folders or URLs of stored movies; None if one of them is something else."""
    return read_layers if all(map(_is_movie, _listed(path))) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Return the layers of the movies at one or several paths or URLs."""
    return [layer for one in _listed(path) for layer in layers(open_movie(one))]


def _listed(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path


def _is_movie(path: str) -> bool:
    """Whether this package stored what is at a path or URL; reads its metadata document alone."""
    with suppress(PhotonCodecError):
        documents = submit(read_documents(Location.of(path))).result()
        attributes = documents.get("zarr.json", {}).get("attributes", documents.get(".zattrs"))
        return isinstance(attributes, dict) and ATTRIBUTE in attributes
    return False


def layers(movie: PhotonArray, frame_rate: Any = None, pixel_size: Any = None) -> list[LayerData]:
    """Return the layers of a movie: its stabilised view (hidden) if the noise is known, and its counts."""
    axes = axes_of(movie, frame_rate, pixel_size)
    low, high = contrast_limits(movie)
    name = movie._location.label.rstrip("/").rpartition("/")[2]
    options = {
        "scale": [axis.spacing for axis in axes],
        "axis_labels": [axis.letter for axis in axes],
        "units": [axis.unit or "pixel" for axis in axes],
        "metadata": {"path": movie._location.label, "profile": movie.profile, "step": movie.step},
    }
    counts = (movie, {**options, "name": name, "contrast_limits": (low, high)}, "image")
    if zero_level_of(movie) is None:
        return [counts]
    gain, zero_level = movie.calibration.conversion_gain, movie.calibration.zero_level
    limits = tuple(float(generalized_anscombe(limit, gain, zero_level)) for limit in (low, high))
    unit_noise = {**options, "name": f"{name} (unit noise)", "contrast_limits": limits, "visible": False}
    return [(movie.stabilized, unit_noise, "image"), counts]  # napari puts the last on top, and selects it
