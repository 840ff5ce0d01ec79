"""Lookup tables applied to whole arrays, at memory bandwidth."""

from __future__ import annotations

import numpy as np

from .._typing import AnyArray

#: Elements per pass: index, codes and table stay in the processor's cache. In passes of a quarter, two threads wait for
#: each other's turn with the interpreter half of the time.
_BLOCK = 1 << 15


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
    if out is None:
        out = np.empty(indices.shape, table.dtype)
    flat, result = indices.reshape(-1), out.reshape(-1)
    # numpy converts small indices to intp for the whole array at once; a reused block of them halves the time.
    positions = np.empty(min(_BLOCK, flat.size), np.intp)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        index = positions[: block.size]
        index[...] = block
        np.take(table, index, out=result[start : start + _BLOCK], mode="clip")
    return out


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
    out = np.empty(values.shape, table.dtype)
    flat, result, content = values.reshape(-1), out.reshape(-1), table.reshape(-1)
    block = min(_BLOCK, flat.size)
    # Where each place's row begins in the table, less the first value; goes on beyond its end for the last block.
    begins = np.resize(rows.astype(np.intp) * table.shape[1] - first, rows.size + block)
    positions = np.empty(block, np.intp)
    for start in range(0, flat.size, block):
        part = flat[start : start + block]
        index = positions[: part.size]
        index[...] = part
        at = start % rows.size
        index += begins[at : at + part.size]
        np.take(content, index, out=result[start : start + block], mode="clip")
    return out
