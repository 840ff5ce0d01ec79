"""Compiled context model, shared by encoder and decoder.

Importing a compiled module imports numba. Compiled loops release the GIL, so chunks are coded in parallel, and use
integers of explicit width. Indices read from arrays are unsigned, because numba checks signed ones for negative values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._compiled import Array, Int, compiled, i32, i64, u64
from .._dither import PERIOD
from .model import FRACTION_BITS, LANES, WEIGHT_BITS, Model

FRACTION = i32(FRACTION_BITS)
HALF = i32(1 << (FRACTION_BITS - 1))
_WEIGHT = i32(WEIGHT_BITS)
_WEIGHT_HALF = i32(1 << (WEIGHT_BITS - 1))

#: Rows predicted at a time. A multiple of the lanes, so that only the end of a run can leave a block partly filled.
BLOCK_ROWS = LANES


class Band(NamedTuple):
    """A band that is predicted frame by frame."""

    model: Model
    pattern: Array  # dither offsets of one period and one more row
    top_row: Int  # of the band in the chunk
    chunk_rows: Int
    means: Array  # of every pixel, shape (rows, columns)
    column_means: tuple[Array, Array]  # predict the next row of the first frame; and scratch space
    blurred: Array  # scratch space of three rows, kept within a frame
    predicted: Array  # of :data:`BLOCK_ROWS` rows, flat


class Frame(NamedTuple):
    """A frame of a band."""

    t: Int  # number among the frames that are modelled
    phase: Int
    weight: Int  # of the pixel's own mean [1/256]
    rate: Int  # at which that mean is updated [1/256]
    place: Int  # of the band's first pixel in the dither pattern


@compiled
def contexts_of(model: Model) -> Any:
    """Return ``model.contexts``, a property that compiled code cannot read."""
    return ((model.top << FRACTION_BITS) >> model.context_shift) + 1


@compiled
def new_band(model: Model, pattern: Array, shape: Any, top_row: Int, rows: Int) -> Any:
    """Return a band of a chunk with shape (time, rows, columns), before its first frame."""
    columns = shape[2]
    means, blurred = np.zeros((rows, columns), np.int32), np.empty((3, columns), np.int32)
    column_means = np.full(columns, i32(model.start) << FRACTION, np.int32), np.empty(columns, np.int32)
    predicted = np.empty(min(rows, BLOCK_ROWS) * columns, np.int32)
    return Band(model, pattern, top_row, shape[1], means, column_means, blurred, predicted)


@compiled
def frame_of(band: Band, t: Int, index: Int) -> Any:
    """Return frame ``t`` of those that are modelled, which is frame ``index`` of the chunk."""
    seen = min(t, band.model.window)
    weight = (seen << WEIGHT_BITS) // (seen + band.model.blend) if seen > 0 else 0
    phase = 0 if t == 0 else (1 if t < 4 else 2)
    place = place_of(index, band.top_row, band.chunk_rows, band.means.shape[1])
    return Frame(t, phase, i32(weight), i32((1 << WEIGHT_BITS) // (seen + 1)), place)


@compiled
def place_of(frame: Int, row: Int, rows: Int, columns: Int) -> Any:
    """Return the position of a row in the dither pattern: the index of its first pixel modulo the period."""
    in_frame = u64(frame) % u64(PERIOD) * (u64(rows) * u64(columns) % u64(PERIOD))
    return i64((in_frame + u64(row) * u64(columns)) % u64(PERIOD))


@compiled
def row_of(pattern: Array, place: Int, y: Int, columns: Int) -> Array:
    """Return the pattern for row ``y`` of a band that starts at ``place``; the pattern has a row beyond its period."""
    at = (place + i64(y) * columns) % PERIOD
    return pattern[at : at + columns]


@compiled
def padded(n: Int) -> Any:
    """Return the padded length of a stream of ``n`` 16-bit words: streams are aligned to 4 bytes."""
    return (n + 1) & ~1


@compiled
def blur(line: Array, out: Array) -> None:
    """Convolve a line with (1, 2, 1), repeating its end values beyond the ends."""
    last = line.size - 1
    if last == 0:
        out[0] = i32(4) * line[0]
        return
    out[0] = i32(3) * line[0] + line[1]
    out[last] = i32(3) * line[last] + line[last - 1]
    left, middle, right, inner = line[:-2], line[1:-1], line[2:], out[1:-1]
    for x in range(inner.size):
        inner[x] = left[x] + i32(2) * middle[x] + right[x]


@compiled
def predict(band: Band, frame: Frame, begin: Int) -> Any:
    """Predict some rows of a frame from row ``begin`` on, into ``band.predicted``; return the row after them.

    :func:`follow` may already have seen the rows above ``begin``. In the first frame it must have, so that only one row
    is predicted at a time.
    """
    rows, columns = band.means.shape
    highest = i32(i32(band.model.top) << FRACTION)
    if frame.t == 0:
        _predict_first(
            band.column_means[0], highest, row_of(band.pattern, frame.place, begin, columns), band.predicted[:columns]
        )
        return begin + 1
    end = min(begin + BLOCK_ROWS, rows)
    _predict_later(begin, end, frame, highest, band.pattern, band.means, band.blurred, band.predicted)
    return end


@compiled
def _predict_first(column_means: Array, highest: Int, offsets: Array, out: Array) -> None:
    """Predict a row of the first frame from the rows above it."""
    for x in range(out.size):
        out[x] = min(max(i32(column_means[x] + offsets[x]), i32(0)), highest)


@compiled
def _predict_later(
    begin: Int, end: Int, frame: Frame, highest: Int, pattern: Array, means: Array, blurred: Array, out: Array
) -> None:
    """Predict rows of a later frame from the means."""
    (rows, columns), weight = means.shape, frame.weight
    for y in range(begin, end):
        above, here, below = blurred[(y + 2) % 3], blurred[y % 3], blurred[(y + 1) % 3]
        if y == 0:
            blur(means[0], here)
            blur(means[0], above)
        blur(means[min(y + 1, rows - 1)], below)
        offsets, own = row_of(pattern, frame.place, y, columns), means[y]
        line = out[(y - begin) * columns :][:columns]
        for x in range(line.size):
            around = i32(i32(above[x] + i32(2) * here[x] + below[x] + i32(8)) >> i32(4))
            drawn = i32(i32(i32(own[x] - around) * weight + _WEIGHT_HALF) >> _WEIGHT)
            line[x] = min(max(i32(around + drawn + offsets[x]), i32(0)), highest)


@compiled
def follow(levels: Array, top: Int, rate: Int, offsets: Array, own: Array) -> None:
    """Update the means of a row with its levels."""
    for x in range(own.size):
        signal = i32(i32(min(levels[x], top) << FRACTION) - offsets[x])
        own[x] = i32(own[x] + i32(i32(i32(signal - own[x]) * rate + _WEIGHT_HALF) >> _WEIGHT))


@compiled
def follow_first(levels: Array, top: Int, offsets: Array, column_means: Array, scratch: Array) -> None:
    """Update the column means with a row of the first frame: by a quarter of the difference, then blurred."""
    for x in range(levels.size):
        signal = i32(i32(min(levels[x], top) << FRACTION) - offsets[x])
        scratch[x] = i32(column_means[x] + i32(i32(signal - column_means[x]) >> i32(2)))
    blur(scratch, column_means)
    for x in range(levels.size):
        column_means[x] = i32(i32(column_means[x] + i32(2)) >> i32(2))
