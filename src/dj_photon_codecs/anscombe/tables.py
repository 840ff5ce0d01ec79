"""Apply lookup tables to whole arrays at memory bandwidth.

The loops use numpy, or compiled code once numba is loaded. Two threads that use numpy compete for the GIL and take up
to three times as long. Loading numba takes a third of a second, so only long work loads it.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import AnyArray

#: Elements per pass: large enough for few passes, each of which needs the GIL, and small enough for the CPU cache.
_BLOCK = 1 << 17

#: Elements per process from which loading numba pays off: about 500 frames of 512 x 512.
LONG_WORK = 1 << 27

#: Elements looked up with numpy in this process.
_done = 0

#: Period of the compiled loop if all places share one row.
_PLACES = 1 << 12


def prepare(coming: int) -> None:
    """Load numba if the elements looked up so far and the next ``coming`` ones reach :data:`LONG_WORK`.

    Call it from the thread that requests the work, not from a worker: a child forked while another thread imports a
    module inherits it half-loaded.
    """
    if _done + coming >= LONG_WORK:
        from . import kernels  # noqa: F401  # that numba is loaded is what counts


def apply_table(table: AnyArray, indices: AnyArray, out: AnyArray | None = None) -> AnyArray:
    """Return ``table[indices]``, computed in blocks that fit the cache, without the GIL.

    ``table`` has an entry for every value of the unsigned dtype of ``indices``, a C-contiguous array of any shape.
    ``out`` is a C-contiguous array to fill, in the shape of ``indices`` and the dtype of ``table``.
    """
    return _look_up(table, np.zeros(_PLACES, np.intp), indices, out)


def apply_rows(table: AnyArray, first: int, rows: AnyArray, values: AnyArray) -> AnyArray:
    """Return ``table[rows[n mod rows.size], values[n] - first]`` for each ``n``, in blocks as in :func:`apply_table`.

    ``table`` is 2-D and C-contiguous. ``values`` are C-contiguous integers of any shape, and each has a column.
    """
    # start of each place's row in the table, minus the first value
    return _look_up(table.reshape(-1), rows.astype(np.intp) * table.shape[1] - first, values, None)


def look_up_box(
    table: AnyArray, begins: AnyArray, period: int, first: int, codes: AnyArray, inner: tuple[slice, ...], out: AnyArray
) -> None:
    """Set ``out[...] = table[begins[n mod period] + codes[n] - first]`` for the box ``inner`` of codes.

    ``begins`` are the starts of the table row of each place in a period, uint32, extended by the length of one line of
    codes; ``first`` is the code of the first column of these rows. No index may exceed the 1-D table. ``codes`` are
    C-contiguous, and ``n`` counts in C order. ``inner`` has a slice with a positive step for each axis. ``out``, in the
    shape of the box and the dtype of the table, is a C-contiguous array or a view of one.
    """
    global _done  # a race between threads only delays the switch to numba
    box = codes[inner]
    if not box.size:
        return
    if "numba" in sys.modules:
        from . import kernels

        whole = out
        while isinstance(whole.base, np.ndarray) and not whole.flags.c_contiguous:
            whole = whole.base
        flat, to, at = whole.reshape(-1), _start(out) - _start(whole), _start(box) - _start(codes)
        bits = f"u{table.dtype.itemsize}"
        for shape, steps, out_steps, more, out_more in _boxes_of_three(box, out):
            kernels.look_up_box(
                table.view(bits), begins, period, first, codes.reshape(-1), at + more, steps, shape, flat.view(bits),
                to + out_more, out_steps,
            )  # fmt: skip
        return
    _done += box.size
    strides = [math.prod(codes.shape[axis + 1 :]) for axis in range(codes.ndim)]
    along = [np.arange(n)[part] * stride for n, part, stride in zip(codes.shape, inner, strides, strict=True)]
    rest = functools.reduce(np.add.outer, along[1:], np.zeros((), np.intp)) % period
    twice = np.resize(begins[:period], 2 * period).astype(np.intp) - first
    for number, place in enumerate(along[0]):  # one frame at a time, because the indices are large
        index = np.add(twice[rest + place % period], box[number], casting="unsafe", dtype=np.intp)
        out[number] = table[index]


def _start(array: AnyArray) -> int:
    """Return where an array starts in memory [elements]."""
    return int(array.__array_interface__["data"][0]) // array.itemsize


def _boxes_of_three(box: AnyArray, out: AnyArray) -> Iterator[tuple[Any, ...]]:
    """Split a box into 3-D boxes; yield the shape, the steps in both arrays, and the start in both."""
    axes = [
        (n, step // box.itemsize, out_step // out.itemsize)
        for n, step, out_step in zip(box.shape, box.strides, out.strides, strict=True)
        if n > 1
    ]
    axes = axes or [(1, 1, 1)]
    axes = [(1, 0, 0)] * (3 - len(axes)) + axes
    shape, steps, out_steps = (tuple(axis[i] for axis in axes[-3:]) for i in range(3))
    for place in np.ndindex(*(axis[0] for axis in axes[:-3])):
        more = sum(i * axis[1] for i, axis in zip(place, axes, strict=False))
        out_more = sum(i * axis[2] for i, axis in zip(place, axes, strict=False))
        yield shape, steps, out_steps, more, out_more


def quantise(positions: AnyArray, first: int, levels: AnyArray, values: AnyArray, codes: AnyArray) -> None:
    """Set ``codes[n] = (positions[values[n] - first] + levels[n mod levels.size]) >> 6``.

    ``positions`` and ``levels`` (0 to 63) are int32. ``values`` and ``codes`` are C-contiguous integers of the same
    size; every value has a position, and every code fits the dtype of ``codes``.
    """
    flat, result = values.reshape(-1), codes.reshape(-1)
    if "numba" in sys.modules:
        from .kernels import quantise

        quantise(positions, first, levels, flat, result.view(f"u{codes.dtype.itemsize}"))
        return
    for part, into, repeated, index in _blocks(flat, result, levels):
        np.subtract(part, first, out=index, casting="unsafe", dtype=np.int64)
        found = np.take(positions, index)
        found += repeated
        found >>= 6
        into[...] = found


def _look_up(table: AnyArray, begins: AnyArray, values: AnyArray, out: AnyArray | None) -> AnyArray:
    """Return ``table[begins[n mod begins.size] + values[n]]`` for each ``n``."""
    if out is None:
        out = np.empty(values.shape, table.dtype)
    flat, result = values.reshape(-1), out.reshape(-1)
    if "numba" in sys.modules:
        from .kernels import look_up, look_up_inside

        # as unsigned integers: numba lacks float16, and this way it compiles for fewer types
        bits = f"u{table.dtype.itemsize}"
        limits = np.iinfo(flat.dtype)
        inside = int(begins.min()) + int(limits.min) >= 0 and int(begins.max()) + int(limits.max) < table.size
        (look_up_inside if inside else look_up)(table.view(bits), begins, flat, result.view(bits))
        return out
    for part, into, repeated, index in _blocks(flat, result, begins):
        index[...] = part
        index += repeated
        np.take(table, index, out=into, mode="clip")
    return out


def _blocks(flat: AnyArray, result: AnyArray, pattern: AnyArray) -> Iterator[tuple[AnyArray, ...]]:
    """Yield blocks of an array, their results, the pattern at their places, and a buffer for their indices."""
    global _done  # a race between threads only delays the switch to numba
    _done += flat.size
    # numpy converts small indices to intp for the whole array at once; a reused buffer halves the time.
    block = min(_BLOCK, flat.size)
    repeated = np.resize(pattern, pattern.size + block)  # extended for blocks that start within the pattern
    index = np.empty(block, np.intp)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        at = start % pattern.size
        yield part, result[start : start + _BLOCK], repeated[at : at + part.size], index[: part.size]
