"""One view of every array-like: shape, dtype and ``read(start, stop)`` along time.

A movie that is not in memory is never asked for more frames than one shard holds (DESIGN invariant 7),
and a movie that is in memory is never copied whole: ``read`` gives views where the value can.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import InvalidMovieError, MovieTypeError
from .files import FileMovie

#: What to do about it, for everyone who tried to insert something that is not an array.
_REMEDY = (
    "pass an array with axes (time, ..., height, width): a numpy array, a memory map, a zarr or dask array, "
    "an h5py dataset, a fetched photon handle, or the path of a file"
)


@dataclass(frozen=True)
class Source:
    """A movie as the writer and the calibration see it.

    Attributes
    ----------
    value
        The array-like behind it: anything with ``shape``, ``dtype`` and slicing along the first axis.
    shape
        (time, ..., height, width).
    dtype
        The dtype of the counts, in native byte order.
    in_memory
        Whether reading costs no more than memory bandwidth (a numpy array that is not a memory map).
    signed
        Whether negative counts are known for noise around darkness, so that the zero level may be measured with them.
    """

    value: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_memory: bool
    signed: bool = False

    def read(self, start: int, stop: int) -> AnyArray:
        """Frames ``start`` to ``stop`` (exclusive) in native byte order; a view where the value allows one."""
        _release_pages(self.value)
        frames = np.asarray(self.value[start:stop])
        expected = (stop - start, *self.shape[1:])
        if frames.shape != expected:
            raise InvalidMovieError(
                f"reading frames {start}:{stop} gave shape {frames.shape}, expected {expected}: "
                f"the {type(self.value).__name__} does not hold what its shape promises"
            )
        return frames.astype(self.dtype, copy=False)


def as_source(value: object) -> Source:
    """Look at ``value`` as a movie, without reading any of it.

    Parameters
    ----------
    value
        Anything with ``shape``, ``dtype`` and slicing along its first axis; 3 or more axes, time first.

    Raises
    ------
    MovieTypeError
        For what is not an array, and for boolean, complex, text, object and other dtypes without counts.
    InvalidMovieError
        For fewer than 3 axes or an axis of length 0.
    """
    if isinstance(value, Source):
        return value
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None or not hasattr(value, "__getitem__"):
        raise MovieTypeError(f"a photon movie must be an array, got {type(value).__name__}; {_REMEDY}")
    try:
        dtype, shape = np.dtype(dtype), tuple(int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise MovieTypeError(
            f"a photon movie must be a numpy-like array, got {type(value).__name__} with shape {shape} "
            f"and dtype {dtype}; {_REMEDY}"
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
            f"add the missing axis, for one frame movie[numpy.newaxis]"
        )
    if 0 in shape:
        raise InvalidMovieError(f"a photon movie has no empty axis, got shape {shape}")
    in_memory = isinstance(value, np.ndarray) and _memory_map(value) is None
    # Signed integers in a file are as acquisition software wrote them; what was done to an array nobody knows.
    signed = isinstance(value, FileMovie) and dtype.kind == "i"
    return Source(value, shape, dtype.newbyteorder("="), in_memory, signed)


def _memory_map(value: object) -> np.memmap[Any, Any] | None:
    """The memory map whose file an array's memory is, through any number of views; None for other values."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return value
        value = value.base
    return None


def _release_pages(value: object) -> None:
    """Let go of the pages of a file that were looked at: they count as memory of this process, and add up.

    The file's own copy stays in the page cache. Not for copy-on-write maps, whose pages may be the only ones.
    """
    mapped = _memory_map(value)
    if mapped is not None and mapped.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # numpy's own name for the mapping
