"""Compiled decoder: one call decodes a chunk, or some of its bands."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled
from . import vectors
from .model import LANES, PHASES, SCALE_BITS, STATE_LOW, SYMBOL_ZERO, Model
from .prediction import (
    BLOCK_ROWS,
    FRACTION,
    HALF,
    Array,
    Int,
    contexts_of,
    follow,
    follow_first,
    i32,
    i64,
    padded,
    place_of,
    predict,
    predict_first,
    row_of,
    u8,
    u32,
    u64,
    weights,
)
from .tables import STREAMS, read_tables

_ZERO = i32(SYMBOL_ZERO)
_LANES = u64(LANES)
_LOW = u32(STATE_LOW)
_SCALE = u32(SCALE_BITS)
_SLOT = u32((1 << SCALE_BITS) - 1)

#: Extra words after the payload. Decoding a block may read this far past the end.
PADDING = 2 * LANES


@compiled
def _take(
    lanes: Int, x: Int, first: Int, predicted: Array, shift: Int, tables: Array, slots: Array, words: Array, place: Int,
    states: Array, entries: Array, symbols: Array,
) -> Any:  # fmt: skip
    """Pop one symbol from each state, and shift a word into each state that falls below ``STATE_LOW``."""
    for lane in range(u64(0), u64(lanes)):
        table = tables[u64(first + u64(u32(predicted[x + lane]) >> shift))]
        entries[lane] = slots[u64(table | (states[lane] & _SLOT))]
    for lane in range(u64(0), u64(lanes)):
        entry = entries[lane]
        frequency = u32((entry >> u32(8) & _SLOT) + u32(1))
        states[lane] = u32(u32(frequency * u32(states[lane] >> _SCALE)) + (entry >> u32(20)))
    for lane in range(u64(0), u64(lanes)):
        symbols[x + lane] = u8(entries[lane])
    for lane in range(u64(0), u64(lanes)):
        state = states[lane]
        low = state < _LOW
        filled = u32(state << u32(16)) | u32(words[place])
        states[lane] = filled if low else state
        place = u64(place + u64(low))
    return place


@compiled
def take_block(
    x: Int, first: Int, predicted: Array, shift: Int, tables: Array, slots: Array, words: Array, place: Int,
    states: Array, entries: Array, symbols: Array,
) -> Any:  # fmt: skip
    """Decode the 32 symbols from pixel ``x`` on; the portable version of :func:`.vectors.take_block`."""
    return _take(LANES, x, first, predicted, shift, tables, slots, words, place, states, entries, symbols)


#: The AVX2 version if the processor supports it.
_take_block = vectors.take_block if vectors.available() else take_block


@compiled
def pull_symbols(
    n: Int, first: Int, predicted: Array, shift: Int, tables: Array, slots: Array, words: Array, place: Int, end: Int,
    states: Array, entries: Array, symbols: Array,
) -> Any:  # fmt: skip
    """Decode ``n`` symbols starting at lane 0, and return the position of the next word.

    A position beyond ``end`` means that the stream was too short. ``tables`` holds, for each context, the first slot
    of its table; ``first`` is the first context of the phase.
    """
    whole = u64(n) - u64(n) % _LANES
    x = u64(0)
    while x < whole:
        if place > end:
            return place
        place = _take_block(x, first, predicted, shift, tables, slots, words, place, states, entries, symbols)
        x = u64(x + _LANES)
    if whole < u64(n) and place <= end:
        rest = u64(n) - whole
        place = _take(rest, x, first, predicted, shift, tables, slots, words, place, states, entries, symbols)
    return place


@compiled
def _levels_of(predicted: Array, symbols: Array, top: Int) -> Any:
    """Overwrite predictions with levels; return a nonzero number if any is out of range, and the number of escapes."""
    strayed, n_escapes = i32(0), i64(0)
    for x in range(predicted.size):
        level = i32(i32(i32(predicted[x] + HALF) >> FRACTION) + i32(symbols[x]) - _ZERO)
        inside = min(max(level, i32(0)), top)
        coded = i32(symbols[x] != u8(0))
        strayed |= i32(level ^ inside) & i32(-coded)
        predicted[x] = inside
        n_escapes += i64(1) - i64(coded)
    return strayed, n_escapes


@compiled
def _add_low(levels: Array, low_bits: Int, words: Array, bit: Int) -> None:
    """Append the low bits to each level, reading the stream from position ``bit`` on."""
    mask = u32((1 << low_bits) - 1)
    for x in range(levels.size):
        at = u64(bit) >> u64(4)
        both = u32(words[at]) | u32(u32(words[at + u64(1)]) << u32(16))
        levels[x] = i32(u32(u32(levels[x]) << u32(low_bits)) | u32(both >> u32(u64(bit) & u64(15))) & mask)
        bit += low_bits


@compiled
def _pull_band(
    words: Array, at: Int, band: Array, slots: Array, tables: Array, model: Model, frames: Array, n_frames: Int,
    top_row: Int, rows: Int, pattern: Array, out: Array, predicted: Array, symbols: Array,
) -> Any:  # fmt: skip
    """Decode the first ``n_frames`` frames of the band with streams at ``words[at:]``.

    Return False if the streams end too early, or if all frames do not use them up exactly.
    """
    columns = out.shape[2]
    n_words, n_escapes, states = i64(band[0]), i64(band[1]), band[2:].copy()
    place, end = u64(at), u64(at + n_words)
    escapes = words[at + padded(n_words) : at + padded(n_words) + n_escapes]
    low = words[at + padded(n_words) + padded(n_escapes) :]
    means, blurred = np.zeros((rows, columns), np.int32), np.empty((3, columns), np.int32)
    column_means, scratch = np.empty(columns, np.int32), np.empty(columns, np.int32)
    entries = np.empty(LANES, np.uint32)
    column_means[:] = i32(model.start) << FRACTION
    top, shift = i32(model.top), u32(model.context_shift)
    highest, contexts = i32(top << FRACTION), contexts_of(model)
    base, low_bits, bit = i32(model.base), i64(model.low_bits), i64(0)
    escaped, strayed = i64(0), i32(0)
    for t in range(n_frames):
        phase, weight, rate = weights(t, model)
        start = place_of(frames[t], top_row, out.shape[1], columns)
        step = 1 if t == 0 else BLOCK_ROWS
        for begin in range(0, rows, step):
            stop = min(begin + step, rows)
            n = (stop - begin) * columns
            if t == 0:
                predict_first(column_means, highest, row_of(pattern, start, begin, columns), predicted[:n])
            else:
                predict(begin, stop, weight, highest, pattern, start, means, blurred, predicted)
            place = pull_symbols(
                n, u64(phase * contexts), predicted, shift, tables, slots, words, place, end, states, entries, symbols
            )
            if place > end:
                return False
            for y in range(begin, stop):
                x = (y - begin) * columns
                levels, offsets = predicted[x : x + columns], row_of(pattern, start, y, columns)
                beyond, found = _levels_of(levels, symbols[x : x + columns], top)
                strayed |= beyond
                if found:
                    if escaped + found > n_escapes:
                        return False
                    for i in range(columns):
                        if symbols[x + i] == u8(0):
                            levels[i] = i32(escapes[escaped])
                            escaped += 1
                follow(levels, top, rate, offsets, means[y])
                if t == 0:
                    follow_first(levels, top, offsets, column_means, scratch)
                if low_bits:
                    _add_low(levels, low_bits, low, bit)
                    bit += low_bits * columns
                line = out[frames[t], top_row + y]
                for i in range(columns):
                    line[i] = i32(levels[i] + base)
    if n_frames < frames.size:
        return strayed == i32(0)
    return place == end and escaped == n_escapes and strayed == i32(0) and (states == _LOW).all()


@compiled
def decode_chunk(
    words: Array, packed: Array, n_tables: Int, directory: Array, places: Array, bands: Array, model: Model,
    frames: Array, n_frames: Int, band_rows: Int, pattern: Array, out: Array, slots: Array,
) -> Any:  # fmt: skip
    """Decode the given bands of a chunk into ``out``, shape (time, rows, columns).

    ``words`` is the whole payload as uint16, followed by ``PADDING`` zeros; ``packed``, ``directory`` and ``places``
    are fields of :class:`~.payload.Payload`. ``frames`` holds the indices of the frames that are not blank; the first
    ``n_frames`` of these are decoded. ``slots`` is scratch space for the slots of all tables, uint32, shape
    (tables * 4096,).

    Returns an index into :data:`~.tables.PROBLEMS`, 0 if the payload is valid, and the number of the table or band.
    """
    _, rows, columns = out.shape
    tables = np.empty(PHASES * contexts_of(model), np.uint32)
    problem, at = read_tables(packed, n_tables, tables, slots)
    if problem:
        return problem, at
    block = min(band_rows, BLOCK_ROWS) * columns
    predicted, symbols = np.empty(block, np.int32), np.empty(block, np.uint8)
    for band in bands:
        top_row = band * band_rows
        whole = _pull_band(
            words, places[band], directory[band], slots, tables, model, frames, n_frames, top_row,
            min(band_rows, rows - top_row), pattern, out, predicted, symbols,
        )  # fmt: skip
        if not whole:
            return STREAMS, i64(band)
    return 0, i64(0)
