"""Compiled lookup loops, equal to the numpy code in :mod:`.tables`. Importing this module imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled


@compiled
def look_up(table: Any, begins: Any, values: Any, out: Any) -> None:
    """Set ``out[n] = table[begins[n mod begins.size] + values[n]]``, with indices clipped to the table."""
    last = table.size - 1
    for start in range(0, values.size, begins.size):
        for place in range(min(begins.size, values.size - start)):
            index = begins[place] + np.int64(values[start + place])  # int64 + uint64 would be float64
            out[start + place] = table[np.uint64(min(max(index, 0), last))]


@compiled
def look_up_inside(table: Any, begins: Any, values: Any, out: Any) -> None:
    """:func:`look_up` for indices that cannot exceed the table.

    Indices are unsigned, because numba checks signed ones for negative values, which costs more than the rest.
    """
    for start in range(0, values.size, begins.size):
        for place in range(min(begins.size, values.size - start)):
            out[start + place] = table[np.uint64(begins[place] + np.int64(values[start + place]))]


@compiled
def quantise(positions: Any, first: Any, levels: Any, values: Any, out: Any) -> None:
    """Set ``out[n] = (positions[values[n] - first] + levels[n mod levels.size]) >> 6``; no index exceeds the table.

    All arithmetic is 32-bit so that it vectorises.
    """
    for start in range(0, values.size, levels.size):
        part, codes = values[start : start + levels.size], out[start : start + levels.size]
        here = levels[: part.size]
        for place in range(part.size):
            index = np.uint64(np.uint32(np.int32(part[place]) - np.int32(first)))
            codes[place] = (positions[index] + here[place]) >> np.int32(6)


@compiled
def first_beyond(counts: Any, stored: Any, largest: Any) -> Any:
    """Return the first place where two counts differ by more than ``largest[higher count]``, or -1."""
    for place in range(counts.size):
        low, high = min(counts[place], stored[place]), max(counts[place], stored[place])
        if high - low > largest[np.uint64(high)]:
            return place
    return -1


@compiled
def look_up_box(
    table: Any, begins: Any, period: Any, first: Any, codes: Any, at: Any, steps: Any, shape: Any, out: Any, to: Any,
    out_steps: Any,
) -> None:  # fmt: skip
    """Decode a 3-D box of codes line by line. Both arrays are flat; a start and three steps locate the box in each."""
    for i in range(shape[0]):
        for j in range(shape[1]):
            source = at + i * steps[0] + j * steps[1]
            target = to + i * out_steps[0] + j * out_steps[1]
            if steps[2] == 1 and out_steps[2] == 1:
                here = source % period
                line, row = codes[source : source + shape[2]], begins[here : here + shape[2]]
                found = out[target : target + shape[2]]
                for x in range(found.size):
                    found[x] = table[np.uint64(np.uint32(row[x] + np.uint32(np.int32(line[x]) - first)))]
            else:
                for x in range(shape[2]):
                    place = source + x * steps[2]
                    index = np.uint32(begins[place % period] + np.uint32(np.int32(codes[np.uint64(place)]) - first))
                    out[np.uint64(target + x * out_steps[2])] = table[np.uint64(index)]
