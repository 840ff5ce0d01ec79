"""Recognise views of a stored movie: plain zarr arrays, dask selections of them, and xarray wrappers.

Their counts are already quantised, but their type does not show it.
"""

from __future__ import annotations

from typing import Any

import zarr

from .._zarr import submit
from ..storage.dask_blocks import is_dask
from ..storage.documents import read_documents
from ..storage.location import Location
from ..storage.record import ATTRIBUTE, MovieRecord
from .array import PhotonArray, open_array

#: Name prefixes of dask layers that pass all counts on unchanged, and of those that may also select or reorder them.
_PASSING = ("original-", "array-", "from-zarr-", "rechunk-")
_SELECTING = (*_PASSING, "getitem-", "concatenate-", "transpose-")


def whole_movie(value: Any) -> Any:
    """Return the handle of the stored movie for a view of the whole movie; return any other value unchanged.

    Raises FormatError or StorageError if the movie cannot be opened.
    """
    inner = _inside(value)
    if is_dask(inner):
        origins = _origins(inner)
        passed = all(name.startswith(_PASSING) for name in _layers(inner))
        if len(origins) != 1 or not passed or inner.shape != origins[0].shape:
            return value
        [inner] = origins
    if isinstance(inner, zarr.Array) and not isinstance(inner, PhotonArray) and ATTRIBUTE in inner.attrs:
        location = Location.of(inner.store_path)
        return open_array(location, submit(read_documents(location)).result())
    return inner if isinstance(inner, PhotonArray) else value


def record_of_part(value: Any) -> MovieRecord | None:
    """Return the record of the stored movie for a view of part of it; None for any other value."""
    attributes = getattr(value, "attrs", {}) if _is_xarray(value) else {}
    if ATTRIBUTE in attributes:
        return MovieRecord.from_dict(attributes[ATTRIBUTE], "the array of xarray")
    inner = _inside(value)
    if not is_dask(inner) or not all(name.startswith(_SELECTING) for name in _layers(inner)):
        return None
    for origin in _origins(inner):
        movie = whole_movie(origin)
        if isinstance(movie, PhotonArray) and movie.record is not None:
            return movie.record
    return None


def _is_xarray(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "xarray"


def _inside(value: Any) -> Any:
    """Return the dask array inside an xarray object. Accessing any other kind would read the data."""
    inner = getattr(value, "variable", value) if _is_xarray(value) else value
    inner = getattr(inner, "_data", value) if _is_xarray(inner) else inner
    return inner if inner is value or is_dask(inner) else value


def _layers(value: Any) -> dict[str, Any]:
    """Return the layers of a dask graph by name; a graph without layers counts as one unknown layer."""
    graph = value.__dask_graph__()
    return dict(getattr(graph, "layers", {"unknown": graph}))


def _origins(value: Any) -> list[Any]:
    """Return the zarr arrays that a dask array reads."""
    held = (one for layer in _layers(value).values() if hasattr(layer, "mapping") for one in layer.mapping.values())
    return [one for one in held if isinstance(one, zarr.Array)]
