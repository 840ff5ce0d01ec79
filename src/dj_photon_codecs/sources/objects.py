"""Convert lists of frames, and objects of other microscopy libraries, to arrays.

Objects are recognised by type name, so no library is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from ..errors import InvalidMovieError, MovieTypeError, SourceError
from .axes import in_order
from .metadata import Metadata, inverse


def as_array(value: Any) -> tuple[Any, Json]:
    """Convert a value to an array with axes (time, ..., height, width), and its metadata."""
    kinds = {(one.__module__.partition(".")[0], one.__name__) for one in type(value).__mro__}
    if ("bioio", "BioImage") in kinds:
        return _of_bioio(value)
    if ("nd2", "ND2File") in kinds:
        return _of_nd2(value)
    if ("roiextractors", "ImagingExtractor") in kinds:
        return _Extracted(value), Metadata(inverse(value.get_sampling_frequency())).document()
    if isinstance(value, Iterator):
        raise MovieTypeError(
            f"a {type(value).__name__} yields its frames only once, and a movie is read several times. Store it frame "
            "by frame: with PhotonWriter(path) as writer: for frame in frames: writer.append(frame)"
        )
    if isinstance(value, list | tuple) and value and all(getattr(one, "ndim", 0) >= 2 for one in value):
        return _stacked(value), {}
    stored = getattr(getattr(value, "record", None), "acquisition", None)  # for a stored movie
    return in_order(value, _names(value), f"the {type(value).__name__}"), stored or {}


def _names(value: Any) -> Sequence[Any] | None:
    """Axis names of an xarray, zarr or HDF5 array."""
    module = type(value).__module__.partition(".")[0]
    if module == "xarray":
        return tuple(value.dims)
    if module == "zarr":
        return zarr_names(value)
    if module == "h5py" and hasattr(value, "dims"):
        from .hdf5 import labels

        return labels(value)
    return None


def zarr_names(array: Any) -> Sequence[Any] | None:
    """Axis names of a Zarr array: from V3 metadata, or from xarray's attribute in V2."""
    names: Sequence[Any] | None = getattr(array.metadata, "dimension_names", None)
    return names or array.attrs.get("_ARRAY_DIMENSIONS")


def _stacked(frames: Sequence[Any]) -> AnyArray:
    """Stack a list of frames."""
    first = frames[0]
    for place, frame in enumerate(frames):
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise InvalidMovieError(
                f"entry {place} of the list is {frame.dtype} of shape {frame.shape}, and the first {first.dtype} of "
                f"shape {first.shape}: all frames of a movie must have the same shape and dtype"
            )
    if first.ndim == 2:
        return np.stack([np.asarray(frame) for frame in frames])
    raise InvalidMovieError(
        f"a list of {len(frames)} arrays of shape {first.shape} may be runs of frames or volumes: join them with "
        "numpy.concatenate(arrays) for runs of frames, numpy.stack(arrays) for volumes"
    )


def _of_bioio(image: Any) -> tuple[Any, Json]:
    dims = image.dims
    if dims.C > 1:
        raise SourceError(
            f"the BioImage holds {dims.C} channels, each with its own noise: insert one of them, "
            f'image.get_image_dask_data("TZYX", C=0) to C={dims.C - 1}'
        )
    array = image.get_image_dask_data("TZYX" if dims.Z > 1 else "TYX")
    return array, bioio_metadata(image, volumes=dims.Z > 1).document()


def bioio_metadata(image: Any, volumes: bool) -> Metadata:
    """Metadata of a bioio image."""
    sizes = image.physical_pixel_sizes
    interval: Any = getattr(image, "time_interval", None)  # a timedelta or a number
    return Metadata(
        increment=interval.total_seconds() if hasattr(interval, "total_seconds") else interval,
        pixel=[sizes.X, sizes.Y],
        depth=sizes.Z if volumes else None,
        channels=image.channel_names or (),
    )


def _of_nd2(file: Any) -> tuple[Any, Json]:
    several = {axis: count for axis, count in file.sizes.items() if axis in "CPS" and count > 1}
    if several:
        counts = ", ".join(f"{count} of {axis}" for axis, count in several.items())
        raise SourceError(
            f"the ND2File holds several movies ({counts}): insert one of them, "
            "file.to_xarray(delayed=True).isel(" + ", ".join(f"{axis}=0" for axis in several) + ")"
        )
    voxel, volumes = file.voxel_size(), file.sizes.get("Z", 1) > 1
    array = file.to_xarray(delayed=True, squeeze=True)
    metadata = Metadata(pixel=[voxel.x, voxel.y], depth=voxel.z if volumes else None)
    return in_order(array, tuple(array.dims), "the ND2File"), metadata.document()


class _Extracted:
    """The movie of an ImagingExtractor, with the plane axis moved from last to second."""

    def __init__(self, extractor: Any) -> None:
        self._read = getattr(extractor, "get_series", None) or extractor.get_video
        count = getattr(extractor, "get_num_samples", None) or extractor.get_num_frames
        image = getattr(extractor, "get_image_shape", None) or extractor.get_frame_shape
        height, width = tuple(image())[:2]
        planes = extractor.get_num_planes() if getattr(extractor, "is_volumetric", False) else 0
        self.shape = (int(count()), *([int(planes)] if planes else []), int(height), int(width))
        self.dtype, self.ndim = np.dtype(extractor.get_dtype()), len(self.shape)

    def __getitem__(self, frames: slice) -> AnyArray:
        start, stop, _ = frames.indices(self.shape[0])
        counts = np.asarray(self._read(start, stop))
        if self.ndim == 4:
            counts = np.moveaxis(counts, -1, 1)
        if stop - start == 1 and counts.ndim == self.ndim - 1:  # some drop the time axis of a single frame
            counts = counts[np.newaxis]
        return counts  # Source.read checks the shape
