"""Read ``.npy`` files and headerless binaries through memory maps, one per read."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError
from .axes import given_axes
from .joining import joined
from .paths import Found
from .stack import DamagedFile, Index, Options, Stack


def open_files(found: Found, options: Options) -> Stack:
    """Open the arrays in files, concatenated in time."""
    open_one = partial(_npy if options.dtype is None else _headerless, options=options)
    return joined(found.group(options.axes), options, open_one)


def mapped(name: str, axes: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, order: Any = "C") -> Stack:
    """Map the array at ``offset`` [bytes] in a file."""

    def read(index: Index) -> AnyArray:
        # A persistent map would keep every page read as memory of this process.
        counts = np.memmap(name, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
        return np.array(counts[index])

    return Stack(name, axes, shape, dtype, read)


def _npy(name: str, options: Options) -> Stack:
    """Open an NPY file."""
    try:
        counts = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:  # truncated, Python objects, or unknown version
        raise DamagedFile(
            f"{name} ({os.path.getsize(name)} bytes) cannot be mapped as NPY, truncated or not an array: {error}"
        ) from error
    axes = given_axes(options.axes, counts.shape, name)
    order = "C" if counts.flags.c_contiguous else "F"
    return mapped(name, axes, counts.dtype, counts.shape, counts.offset, order)


def _headerless(name: str, options: Options) -> Stack:
    """Open a headerless binary."""
    if options.shape is None:
        raise ConfigurationError(f"dtype={options.dtype!r} for {name} needs shape=(-1, height, width) too")
    try:
        dtype = np.dtype(options.dtype)
    except TypeError as error:
        raise ConfigurationError(f"dtype={options.dtype!r} is not a numpy dtype: {error}") from error
    offset: Any = 0 if options.offset is None else options.offset
    size = os.path.getsize(name)
    if not isinstance(offset, int) or not 0 <= offset <= size:
        raise ConfigurationError(f"offset={offset!r} must lie between 0 and the size of {name}, {size} bytes")
    shape = filled_in(options.shape, (size - offset) // dtype.itemsize, name)
    needed = math.prod(shape) * dtype.itemsize
    if needed != size - offset or not needed:
        raise DamagedFile(
            f"{name} has {size - offset} bytes after offset {offset}, and {dtype} of shape {shape} takes {needed}: "
            "truncated, or the shape, dtype or offset is wrong"
        )
    return mapped(name, given_axes(options.axes, shape, name), dtype, shape, offset)


def filled_in(shape: tuple[Any, ...], items: int, name: str) -> tuple[int, ...]:
    """Replace a length of -1 in a shape by the one computed from the number of items, rounded down."""
    lengths = [length for length in shape if length != -1]
    if len(shape) - len(lengths) > 1 or not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ConfigurationError(f"shape={shape!r} for {name} must hold positive lengths, and at most one -1")
    return tuple(items // math.prod(lengths) if length == -1 else length for length in shape)
