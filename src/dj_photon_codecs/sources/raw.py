"""Memory maps: ``.npy`` files, and binaries without a header. A map lives as long as one reading."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, SourceError
from .stack import Index, Options, Stack, concatenated, given_axes, unnamed_axes


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The arrays in files, one after the other in time.

    Raises
    ------
    SourceError, ConfigurationError
        As :func:`open_source` says.
    """
    return concatenated(names, partial(_npy if options.dtype is None else _headerless, options=options))


def mapped(name: str, axes: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, order: Any = "C") -> Stack:
    """The array that lies in a file from ``offset`` [bytes] on."""

    def read(index: Index) -> AnyArray:
        # A map that stays would keep every page that was looked at as memory of this process.
        counts = np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
        return np.array(counts[index])

    return Stack(name, axes, shape, dtype, read)


def _npy(name: str, options: Options) -> Stack:
    try:
        counts = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:  # truncated, of Python objects, of an unknown version
        size = Path(name).stat().st_size
        raise SourceError(
            f"{name} ({size} bytes) cannot be mapped as NPY, truncated or not an array: {error}"
        ) from error
    axes = unnamed_axes(counts.shape, name) if options.axes is None else given_axes(options.axes, counts.shape, name)
    order = "C" if counts.flags.c_contiguous else "F"
    return mapped(name, axes, counts.dtype, counts.shape, counts.offset, order)


def _headerless(name: str, options: Options) -> Stack:
    if options.shape is None:
        raise ConfigurationError(f"dtype={options.dtype!r} for {name}, and no shape=(-1, height, width)")
    try:
        dtype = np.dtype(options.dtype)
    except TypeError as error:
        raise ConfigurationError(f"dtype={options.dtype!r} is no dtype of numpy: {error}") from error
    offset: Any = 0 if options.offset is None else options.offset
    size = os.path.getsize(name)
    if not isinstance(offset, int) or not 0 <= offset <= size:
        raise ConfigurationError(f"offset={offset!r} must lie between 0 and the size of {name}, {size} bytes")
    shape = filled_in(options.shape, (size - offset) // dtype.itemsize, name)
    needed = math.prod(shape) * dtype.itemsize
    if needed != size - offset or not needed:
        raise SourceError(
            f"{name} has {size - offset} bytes behind offset {offset}, and {dtype} of shape {shape} is {needed} bytes: "
            "truncated, or of another shape, dtype or offset"
        )
    axes = unnamed_axes(shape, name) if options.axes is None else given_axes(options.axes, shape, name)
    return mapped(name, axes, dtype, shape, offset)


def filled_in(shape: tuple[Any, ...], items: int, name: str) -> tuple[int, ...]:
    """A shape whose one length of -1, if there is one, is what ``items`` items make it, rounded down.

    Raises
    ------
    ConfigurationError
        For lengths that are none.
    """
    lengths = [length for length in shape if length != -1]
    if len(shape) - len(lengths) > 1 or not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ConfigurationError(f"shape={shape!r} for {name} must hold positive lengths, and at most one -1")
    return tuple(items // math.prod(lengths) if length == -1 else length for length in shape)
