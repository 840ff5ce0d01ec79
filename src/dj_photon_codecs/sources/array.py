"""One interface to every array-like: shape, dtype and ``read(start, stop)`` along time.

At most one shard of a movie on disk is read at a time (DESIGN invariant 7), and a movie in memory is never copied as a
whole: ``read`` returns views if possible.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from ..errors import InvalidMovieError, MovieTypeError
from .files import FileMovie
from .messages import shown, warn_source
from .metadata import kept
from .objects import as_array

_REMEDY = (
    "pass an array with axes (time, ..., height, width): a numpy array, a memory map, a zarr or dask array, "
    "an h5py dataset, a fetched photon handle, or the path of a file"
)
_EXAMINED = 64  # maximum number of samples along each axis when checking for the time axis


@dataclass(frozen=True)
class Source:
    """A movie for the writer and the calibration, with axes (time, ..., height, width)."""

    value: Any  # array-like with shape, dtype and slicing along the first axis
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # in native byte order
    in_memory: bool  # a numpy array that is not a memory map
    signed: bool = False  # negative counts are dark noise, and may be used to measure the zero level
    metadata: Json = field(default_factory=dict, compare=False)  # with OME names and units

    def read(self, start: int, stop: int) -> AnyArray:
        """Read frames ``start`` to ``stop`` (exclusive) in native byte order; a view if possible."""
        _release_pages(self.value)
        frames = self.value[start:stop]
        check_unmasked(frames)
        frames = np.asarray(frames)
        expected = (stop - start, *self.shape[1:])
        if frames.shape != expected:
            raise InvalidMovieError(
                f"reading frames {start}:{stop} gave shape {frames.shape}, expected {expected}: "
                f"the {type(self.value).__name__} does not hold what its shape promises"
            )
        return frames.astype(self.dtype, copy=False)


def as_source(value: object) -> Source:
    """View a value as a movie, without reading it; raise MovieTypeError or InvalidMovieError if that is impossible.

    Arrays need at least 3 axes, time first, or named axes (xarray, zarr, HDF5). Lists of frames and objects of bioio,
    nd2 and roiextractors work too.
    """
    if isinstance(value, Source):
        return value
    check_unmasked(value)
    array: Any = value
    if isinstance(value, FileMovie):
        metadata = kept(value.metadata, shown(value.path))
    else:
        array, metadata = as_array(value)
    dtype, shape = _checked_kind(array)
    in_memory = isinstance(array, np.ndarray) and _memory_map(array) is None
    # Signed integers in a file come from acquisition software; an array may have been processed.
    signed = isinstance(array, FileMovie) and dtype.kind == "i"
    return Source(array, shape, dtype.newbyteorder("="), in_memory, signed, metadata)


def _checked_kind(value: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return dtype and shape of an array of counts; raise for anything else."""
    shape, dtype, kind = getattr(value, "shape", None), getattr(value, "dtype", None), type(value).__name__
    if type(value).__module__ == "datajoint.objectref":
        raise MovieTypeError(
            f"{value!r} refers to an object of an <object@store> column, and is not an array: insert its content, for "
            "a Zarr array zarr.open_array(reference.fsmap), otherwise the path that reference.download(folder) gives"
        )
    if shape is None or dtype is None or not hasattr(value, "__getitem__"):
        raise MovieTypeError(f"a photon movie must be an array, got {kind}; {_REMEDY}")
    try:
        dtype, shape = np.dtype(dtype), tuple(int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise MovieTypeError(
            f"a photon movie must be a numpy-like array, got {kind} with shape {shape} and dtype {dtype}; {_REMEDY}"
        ) from error
    if dtype.kind not in "uif":
        raise MovieTypeError(
            f"a photon movie holds counts, dtype {dtype} does not: use an integer or floating-point dtype"
        )
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise MovieTypeError(f"dtype {dtype} has no portable form on disk: convert the movie to float64 or float32")
    if len(shape) < 3:
        raise InvalidMovieError(
            f"a photon movie has at least 3 axes (time, ..., height, width), got shape {shape}: "
            "add the missing axis, for one frame movie[numpy.newaxis]"
        )
    if 0 in shape:
        raise InvalidMovieError(f"a photon movie has no empty axis, got shape {shape}")
    return dtype, shape


def check_unmasked(counts: object) -> None:
    """Raise InvalidMovieError for masked arrays: the values under a mask would be stored as counts."""
    lazily = isinstance(getattr(counts, "_meta", None), np.ma.MaskedArray)
    if lazily or np.ma.is_masked(counts):
        masked = "a dask array of masked arrays"
        if isinstance(counts, np.ma.MaskedArray):
            masked = f"a masked array with {int(np.ma.getmaskarray(counts).sum())} of {counts.size} values masked"
        raise InvalidMovieError(
            f"a photon movie holds only counts, got {masked}: masks are not stored. Fill the masked values with "
            f"{'dask.array.ma.filled(movie, value)' if lazily else 'movie.filled(value)'}, crop them, or store the "
            "mask in a separate column beside movie.data"
        )


def warn_of_time_last(movie: Any) -> None:
    """Warn if the last axis of an array in memory looks like time.

    A scene moves little, so a mean over time keeps its contrast, while means along height or width blur it.
    """
    if not isinstance(movie, np.ndarray) or movie.ndim != 3 or movie.dtype.kind not in "uif" or min(movie.shape) < 4:
        return
    if movie.shape[1] == movie.shape[2] != movie.shape[0]:  # square frames
        return
    part = np.asarray(movie[tuple(slice(None, None, -(-n // _EXAMINED)) for n in movie.shape)], np.float64)
    with np.errstate(all="ignore"):  # very large values, or none that are finite
        contrasts, errors = zip(*(_contrast(part, axis) for axis in range(3)), strict=True)
    if contrasts[2] > 2 * max(contrasts[:2]) and contrasts[2] > 5 * errors[2]:  # clear and significant
        warn_source(
            f"an array of shape {movie.shape} is taken as (time, height, width), and its last axis looks like time: "
            "the picture stays the same along it. If it is (height, width, time), pass numpy.moveaxis(movie, -1, 0)"
        )


def _contrast(part: AnyArray, axis: int) -> tuple[float, float]:
    """Noise-corrected variance of the mean image along an axis, and its standard error."""
    mean, count = part.mean(axis=axis), part.shape[axis]
    left = float(part.var(axis=axis, ddof=1).mean()) / count
    return max(float(mean.var()) - left, 0.0), left * math.sqrt(2 / mean.size)


def _memory_map(value: object) -> np.memmap[Any, Any] | None:
    """Return the memory map that an array views, directly or through other views, or None."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return value
        value = value.base
    return None


def _release_pages(value: object) -> None:
    """Release mapped pages, which count as memory of this process; not for copy-on-write maps."""
    mapped = _memory_map(value)
    if mapped is not None and mapped.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # numpy's own name for the mapping
