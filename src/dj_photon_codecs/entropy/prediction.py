"""Compiled context model, shared by encoder and decoder.

Importing a compiled module imports numba. Compiled loops release the GIL, so chunks are coded in parallel, and use
integers of explicit width. Indices read from arrays are unsigned, because numba checks signed ones for negative values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled
from .._dither import PERIOD
from .model import FRACTION_BITS, LANES, WEIGHT_BITS, Model

#: Annotations of compiled functions; numba infers the exact types.
Array = Any
Int = Any

i32 = np.int32
i64 = np.int64
u8 = np.uint8
u16 = np.uint16
u32 = np.uint32
u64 = np.uint64

FRACTION = i32(FRACTION_BITS)
HALF = i32(1 << (FRACTION_BITS - 1))
WEIGHT = i32(WEIGHT_BITS)
WEIGHT_HALF = i32(1 << (WEIGHT_BITS - 1))

#: Rows predicted at a time. A multiple of the lanes, so that only the end of a run can leave a block partly filled.
BLOCK_ROWS = LANES


@compiled
def contexts_of(model: Model) -> Any:
    """Return ``model.contexts``, a property that compiled code cannot read."""
    return ((model.top << FRACTION_BITS) >> model.context_shift) + 1


@compiled
def weights(t: Int, model: Model) -> Any:
    """Return the phase of a frame, and the weight and update rate of the pixel's own mean [1/256]."""
    seen = min(t, model.window)
    weight = (seen << WEIGHT_BITS) // (seen + model.blend) if seen > 0 else 0
    phase = 0 if t == 0 else (1 if t < 4 else 2)
    return phase, i32(weight), i32((1 << WEIGHT_BITS) // (seen + 1))


@compiled
def place_of(frame: Int, row: Int, rows: Int, columns: Int) -> Any:
    """Return the position of a row in the dither pattern: the index of its first pixel modulo the period."""
    in_frame = u64(frame) % u64(PERIOD) * (u64(rows) * u64(columns) % u64(PERIOD))
    return i64((in_frame + u64(row) * u64(columns)) % u64(PERIOD))


@compiled
def row_of(pattern: Array, place: Int, y: Int, columns: Int) -> Array:
    """Return the pattern for row ``y`` of a band that starts at ``place``; the pattern has a row beyond its period."""
    at = (i64(place) + i64(y) * columns) % PERIOD
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
def predict_first(column_means: Array, highest: Int, offsets: Array, out: Array) -> None:
    """Predict a row of the first frame from the rows above it."""
    for x in range(out.size):
        out[x] = min(max(i32(column_means[x] + offsets[x]), i32(0)), highest)


@compiled
def predict(
    begin: Int,
    end: Int,
    weight: Int,
    highest: Int,
    pattern: Array,
    place: Int,
    means: Array,
    blurred: Array,
    out: Array,
) -> None:
    """Predict rows ``begin`` to ``end`` of a later frame of a band that starts at ``place`` in the dither pattern.

    In ``means``, rows above ``begin`` may already be updated with this frame. ``blurred`` is scratch space of three
    rows, which must be kept between calls.
    """
    rows, columns = means.shape
    for y in range(begin, end):
        above, here, below = blurred[(y + 2) % 3], blurred[y % 3], blurred[(y + 1) % 3]
        if y == 0:
            blur(means[0], here)
            blur(means[0], above)
        blur(means[min(y + 1, rows - 1)], below)
        offsets, own, line = row_of(pattern, place, y, columns), means[y], out[(y - begin) * columns :][:columns]
        for x in range(line.size):
            around = i32(i32(above[x] + i32(2) * here[x] + below[x] + i32(8)) >> i32(4))
            drawn = i32(i32(i32(own[x] - around) * weight + WEIGHT_HALF) >> WEIGHT)
            line[x] = min(max(i32(around + drawn + offsets[x]), i32(0)), highest)


@compiled
def follow(levels: Array, top: Int, rate: Int, offsets: Array, own: Array) -> None:
    """Update the means of a row with its levels."""
    for x in range(own.size):
        signal = i32(i32(min(levels[x], top) << FRACTION) - offsets[x])
        own[x] = i32(own[x] + i32(i32(i32(signal - own[x]) * rate + WEIGHT_HALF) >> WEIGHT))


@compiled
def follow_first(levels: Array, top: Int, offsets: Array, column_means: Array, scratch: Array) -> None:
    """Update the column means with a row of the first frame: by a quarter of the difference, then blurred."""
    for x in range(levels.size):
        signal = i32(i32(min(levels[x], top) << FRACTION) - offsets[x])
        scratch[x] = i32(column_means[x] + i32(i32(signal - column_means[x]) >> i32(2)))
    blur(scratch, column_means)
    for x in range(levels.size):
        column_means[x] = i32(i32(column_means[x] + i32(2)) >> i32(2))
