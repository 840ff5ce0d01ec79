"""Compiled model selection: the encoder compares prediction errors on rows from the middle of the chunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import Array, Int, compiled, i32, i64, u64
from .model import FRACTION_BITS, MAX_CONTEXTS, MAX_TOP, Model
from .prediction import FRACTION, follow, follow_first, frame_of, new_band, predict, row_of

#: Number of pixels that the model is chosen on.
_TRIAL_PIXELS = 1 << 16

#: Finest contexts: 1/8 level.
_CONTEXT_SHIFT = FRACTION_BITS - 3

#: Values of ``blend`` and ``window`` for the first tries.
_BLEND, _WINDOW = 4, 15

#: Candidates for ``blend`` and ``window``, tried in turn; a blend of -1 is the best one so far.
_CANDIDATES = ((0, _WINDOW), (4, _WINDOW), (16, _WINDOW), (64, _WINDOW), (-1, 3), (-1, 63))

#: Target for the mean prediction error. Low bits are split off until it is met: they are unpredictable noise.
_WIDEST = 16

#: Fraction of codes ignored at each end when a wide code range is narrowed; a margin is then added.
_REST = 0.001


@compiled
def prediction_errors(
    codes: Array, mask: Int, model: Model, frames: Array, top_row: Int, rows: Int, pattern: Array
) -> Any:
    """Return the mean squared and mean absolute prediction error of some rows, coded as if they were a band."""
    columns = codes.shape[2]
    band = new_band(model, pattern, codes.shape, top_row, rows)
    means, predicted, levels = band.means, band.predicted, np.empty(columns, np.int32)
    column_means, scratch = band.column_means
    low, base, top, bits = i32(model.low_bits), i32(model.base), i32(model.top), i32(mask)
    squares, sizes = i64(0), i64(0)
    for t in range(frames.size):
        frame = frame_of(band, t, frames[t])
        begin = 0
        while begin < rows:
            stop = predict(band, frame, begin)
            for y in range(begin, stop):
                line, expected = codes[frames[t], top_row + y], predicted[(y - begin) * columns :][:columns]
                for x in range(columns):
                    level = min(i32(i32(i32(i32(line[x]) - base) & bits) >> low), top)
                    off = i64(i32(i32(level << FRACTION) - expected[x]))
                    squares += off * off
                    sizes += abs(off)
                    levels[x] = level
                offsets = row_of(pattern, frame.place, y, columns)
                follow(levels, top, frame.rate, offsets, means[y])
                if t == 0:
                    follow_first(levels, top, offsets, column_means, scratch)
            begin = stop
    n = frames.size * rows * columns
    return squares / n / 4.0**FRACTION_BITS, sizes / n / 2.0**FRACTION_BITS


@compiled
def _code_range(codes: Array, sign: Int, frames: Array, top_row: Int, rows: Int) -> Any:
    """Return the lowest and highest code to predict; ``codes`` is the unsigned view.

    Dead and saturated pixels may lie outside. They become escapes, at no cost to the other pixels.
    """
    flip = codes.dtype.type(sign)  # flipping the sign bit makes unsigned order match signed order
    low, high = codes[frames[0], 0, 0] ^ flip, codes[frames[0], 0, 0] ^ flip
    for t in frames:
        for y in range(codes.shape[1]):
            line = codes[t, y]
            for x in range(line.size):
                low, high = min(low, line[x] ^ flip), max(high, line[x] ^ flip)
    lowest, highest = i64(low), i64(high)
    if highest - lowest <= MAX_TOP:
        return lowest - sign, highest - sign
    often = np.zeros(1 << 16, np.int64)
    for t in frames:
        for y in range(top_row, top_row + rows):
            for x in range(codes.shape[2]):
                often[u64(codes[t, y, x] ^ flip)] += 1
    n, seen, inner_low, inner_high = frames.size * rows * codes.shape[2], 0, -1, 0
    for code in range(often.size):
        seen += often[code]
        if inner_low < 0 and seen > _REST * n:
            inner_low = code
        if seen - often[code] < (1 - _REST) * n:
            inner_high = code
    margin = (inner_high - inner_low) // 4 + 64
    return max(lowest, inner_low - margin) - sign, min(highest, inner_high + margin) - sign


@compiled
def _model(low_bits: Int, blend: Int, window: Int, first: Int, levels: Int, base: Int, dithered: Int) -> Any:
    """Return a model for a range of levels, with contexts as fine as ``MAX_CONTEXTS`` allows."""
    top = min(levels >> low_bits, MAX_TOP)
    start = min(max(first >> low_bits, 0), top)
    shift = _CONTEXT_SHIFT
    while ((top << FRACTION_BITS) >> shift) + 1 > MAX_CONTEXTS:
        shift += 1
    return Model(low_bits, blend, window, shift, start, top, base, dithered)


@compiled
def choose_model(codes: Array, mask: Int, sign: Int, frames: Array, plain: Array, dithered: Array) -> Any:
    """Choose a model for the given frame indices; ``plain`` and ``dithered`` are offset patterns."""
    if not frames.size:
        return Model(0, 0, 1, _CONTEXT_SHIFT, 0, 0, 0, False)
    rows, columns = codes.shape[1], codes.shape[2]
    taken = min(rows, max(1, _TRIAL_PIXELS // (frames.size * columns)))
    top_row = (rows - taken) // 2
    base, highest = _code_range(codes, sign, frames, top_row, taken)
    levels, first = highest - base, i64(0)
    for x in range(columns):
        code = i64(codes[frames[0], 0, x])
        first += (code ^ sign) - sign  # sign-extended
    first = first // columns - base

    coarse = 0  # low bits to drop so that all levels can be predicted
    while levels >> coarse > MAX_TOP:
        coarse += 1
    tried = _model(coarse, _BLEND, _WINDOW, first, levels, base, False)
    spread = prediction_errors(codes, mask, tried, frames, top_row, taken, plain)[1] * 2.0**coarse
    low_bits = 0  # from the absolute error: a squared one would depend on single bright pixels
    while spread > _WIDEST * 2.0**low_bits:
        low_bits += 1

    dither, pattern = False, plain
    if low_bits == 0:
        sizes = np.empty(2)
        for i in range(2):
            tried = _model(0, _BLEND, _WINDOW, first, levels, base, i == 1)
            _, sizes[i] = prediction_errors(codes, mask, tried, frames, top_row, taken, dithered if i else plain)
        dither = sizes[0] - sizes[1] > 0.5 / np.sqrt(frames.size * taken * columns)  # more than by chance
        pattern = dithered if dither else plain

    best, blend, window = np.inf, _BLEND, _WINDOW
    for candidate_blend, candidate_window in _CANDIDATES:
        if candidate_blend < 0:
            if frames.size <= min(candidate_window, _WINDOW) + 1:
                continue  # too few frames
            candidate_blend = blend
        tried = _model(low_bits, candidate_blend, candidate_window, first, levels, base, dither)
        square, _ = prediction_errors(codes, mask, tried, frames, top_row, taken, pattern)
        if square < best:
            best, blend, window = square, candidate_blend, candidate_window
    return _model(low_bits, blend, window, first, levels, base, dither)
