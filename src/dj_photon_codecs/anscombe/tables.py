"""Lookup tables applied to whole arrays, at memory bandwidth.

With numpy, or by a compiled loop once numba is loaded: two threads with numpy wait for each other's turn with the
interpreter, and take up to three times as long. Loading it takes a third of a second, so it is left to long work.
"""

from __future__ import annotations

import sys

import numpy as np

from .._typing import AnyArray

#: Elements per pass: few passes, of which each needs the interpreter, and indices that stay in the processor's cache.
_BLOCK = 1 << 17

#: Elements, in this process, from which on it pays to load numba: about 500 frames of 512 x 512.
LONG_WORK = 1 << 27

#: Elements that were looked up in this process with numpy.
_done = 0

#: Places over which a compiled loop repeats, where all have the same row.
_PLACES = 1 << 12


def prepare(coming: int) -> None:
    """Load what makes long work faster, if much was done in this process or is coming.

    For the thread that wants the work done, and not for one that does it: a child that is forked while some thread
    imports has half of a module.

    Parameters
    ----------
    coming
        Elements that will be looked up next.
    """
    if _done + coming >= LONG_WORK:
        from . import kernels  # noqa: F401  # that numba is loaded is what counts


def apply_table(table: AnyArray, indices: AnyArray, out: AnyArray | None = None) -> AnyArray:
    """``table[indices]``, in blocks that stay in cache and without the GIL.

    Parameters
    ----------
    table
        One-dimensional, at least as long as the unsigned dtype of ``indices`` has values.
    indices
        C-contiguous array of uint8 or uint16, of any shape.
    out
        C-contiguous array to fill, of the shape of ``indices`` and the dtype of ``table``; made when None.
    """
    return _look_up(table, np.zeros(_PLACES, np.intp), indices, out)


def apply_rows(table: AnyArray, first: int, rows: AnyArray, values: AnyArray) -> AnyArray:
    """``table[rows[n mod rows.size], values[n] - first]`` for the ``n``-th value, in blocks as :func:`apply_table`.

    Parameters
    ----------
    table
        Two-dimensional and C-contiguous.
    first
        The value of the first column.
    rows
        The row of each place, repeated for ever.
    values
        C-contiguous integers of any shape, each with a column.
    """
    # where each place's row begins in the table, less the first value
    return _look_up(table.reshape(-1), rows.astype(np.intp) * table.shape[1] - first, values, None)


def _look_up(table: AnyArray, begins: AnyArray, values: AnyArray, out: AnyArray | None) -> AnyArray:
    """``table[begins[n mod begins.size] + values[n]]`` for the ``n``-th value."""
    if out is None:
        out = np.empty(values.shape, table.dtype)
    flat, result = values.reshape(-1), out.reshape(-1)
    if "numba" in sys.modules:
        from .kernels import look_up

        # by the bits of its entries: numba knows no float16, and compiles for fewer types
        bits = f"u{table.dtype.itemsize}"
        look_up(table.view(bits), begins, flat, result.view(bits))
        return out
    global _done  # threads may miss one another's counts: a few more elements are then done the slow way
    _done += flat.size
    # numpy converts small indices to intp for the whole array at once; a reused block of them halves the time.
    block = min(_BLOCK, flat.size)
    repeated = np.resize(begins, begins.size + block)  # goes on beyond its end for the last block
    positions = np.empty(block, np.intp)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        index = positions[: part.size]
        index[...] = part
        at = start % begins.size
        index += repeated[at : at + part.size]
        np.take(table, index, out=result[start : start + _BLOCK], mode="clip")
    return out
