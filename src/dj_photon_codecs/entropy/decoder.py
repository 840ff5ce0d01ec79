"""Compiled decoder: one call decodes a chunk, or some of its bands."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._compiled import Array, Int, compiled, i32, i64, u8, u32, u64
from . import vectors
from .model import LANES, PHASES, SCALE_BITS, STATE_LOW, SYMBOL_ZERO
from .payload import Payload
from .prediction import (
    BLOCK_ROWS,
    FRACTION,
    HALF,
    Band,
    contexts_of,
    follow,
    follow_first,
    frame_of,
    new_band,
    padded,
    predict,
    row_of,
)
from .tables import STREAMS, read_tables

_ZERO = i32(SYMBOL_ZERO)
_LANES = u64(LANES)
_LOW = u32(STATE_LOW)
_SCALE = u32(SCALE_BITS)
_SLOT = u32((1 << SCALE_BITS) - 1)

#: Extra words after the payload. Decoding a block may read this far past the end.
PADDING = 2 * LANES


class Stream(NamedTuple):
    """What the symbols of a band are decoded from."""

    words: Array  # the whole payload, uint16
    slots: Array  # of all tables
    tables: Array  # first slot of the table of each context
    shift: Int  # from a prediction to its context
    states: Array  # of the lanes
    entries: Array  # scratch space, an element per lane


@compiled
def _take(lanes: Int, x: Int, first: Int, predicted: Array, stream: Stream, place: Int, symbols: Array) -> Any:
    """Pop one symbol from each state, and shift a word into each state that falls below ``STATE_LOW``."""
    words, slots, tables, shift, states, entries = stream
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
def take_block(x: Int, first: Int, predicted: Array, stream: Stream, place: Int, symbols: Array) -> Any:
    """Decode the 32 symbols from pixel ``x`` on; the portable version of :func:`.vectors.take_block`."""
    return _take(LANES, x, first, predicted, stream, place, symbols)


#: The AVX2 version if the processor supports it.
_take_block = vectors.take_block if vectors.available() else take_block


@compiled
def pull_symbols(n: Int, first: Int, predicted: Array, stream: Stream, place: Int, end: Int, symbols: Array) -> Any:
    """Decode ``n`` symbols starting at lane 0, and return the position of the next word.

    A position beyond ``end`` means that the stream was too short. ``first`` is the first context of the phase.
    """
    whole = u64(n) - u64(n) % _LANES
    x = u64(0)
    while x < whole:
        if place > end:
            return place
        place = _take_block(x, first, predicted, stream, place, symbols)
        x = u64(x + _LANES)
    if whole < u64(n) and place <= end:
        place = _take(u64(n) - whole, x, first, predicted, stream, place, symbols)
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
    band: Band, stream: Stream, at: Int, n_words: Int, n_escapes: Int, frames: Array, n_frames: Int, out: Array,
    symbols: Array,
) -> Any:  # fmt: skip
    """Decode the first ``n_frames`` frames of the band with streams at ``words[at:]``.

    Return False if the streams end too early, or if all frames do not use them up exactly.
    """
    means, predicted, pattern = band.means, band.predicted, band.pattern
    (rows, columns), (column_means, scratch) = means.shape, band.column_means
    place, end = u64(at), u64(at + n_words)
    escapes = stream.words[at + padded(n_words) : at + padded(n_words) + n_escapes]
    low = stream.words[at + padded(n_words) + padded(n_escapes) :]
    top, base, contexts = i32(band.model.top), i32(band.model.base), contexts_of(band.model)
    low_bits, bit = i64(band.model.low_bits), i64(0)
    escaped, strayed = i64(0), i32(0)
    for t in range(n_frames):
        frame = frame_of(band, t, frames[t])
        first, begin = u64(frame.phase * contexts), 0
        while begin < rows:
            stop = predict(band, frame, begin)
            place = pull_symbols((stop - begin) * columns, first, predicted, stream, place, end, symbols)
            if place > end:
                return False
            for y in range(begin, stop):
                x = (y - begin) * columns
                levels = predicted[x : x + columns]
                beyond, found = _levels_of(levels, symbols[x : x + columns], top)
                strayed |= beyond
                if found:
                    if escaped + found > n_escapes:
                        return False
                    for i in range(columns):
                        if symbols[x + i] == u8(0):
                            levels[i] = i32(escapes[escaped])
                            escaped += 1
                offsets = row_of(pattern, frame.place, y, columns)
                follow(levels, top, frame.rate, offsets, means[y])
                if t == 0:
                    follow_first(levels, top, offsets, column_means, scratch)
                if low_bits:
                    _add_low(levels, low_bits, low, bit)
                    bit += low_bits * columns
                line = out[frames[t], band.top_row + y]
                for i in range(columns):
                    line[i] = i32(levels[i] + base)
            begin = stop
    if n_frames < frames.size:
        return strayed == i32(0)
    return place == end and escaped == n_escapes and strayed == i32(0) and (stream.states == _LOW).all()


@compiled
def decode_chunk(
    words: Array, coded: Payload, slots: Array, bands: Array, frames: Array, n_frames: Int, pattern: Array, out: Array
) -> Any:
    """Decode the given bands of a chunk into ``out``, shape (time, rows, columns).

    ``words`` is the whole payload as uint16, followed by ``PADDING`` zeros. ``frames`` holds the indices of the frames
    that are not blank; the first ``n_frames`` of these are decoded. ``slots`` is scratch space for the slots of all
    tables, uint32, shape (tables * 4096,).

    Returns an index into :data:`~.tables.PROBLEMS`, 0 if the payload is valid, and the number of the table or band.
    """
    _, rows, columns = out.shape
    tables = np.empty(PHASES * contexts_of(coded.model), np.uint32)
    problem, at = read_tables(coded.packed, coded.n_tables, tables, slots)
    if problem:
        return problem, at
    symbols = np.empty(min(coded.band_rows, BLOCK_ROWS) * columns, np.uint8)
    shift, entries = u32(coded.model.context_shift), np.empty(LANES, np.uint32)
    for number in bands:
        top_row, head = number * coded.band_rows, coded.directory[number]
        band = new_band(coded.model, pattern, out.shape, top_row, min(coded.band_rows, rows - top_row))
        stream = Stream(words, slots, tables, shift, head[2:].copy(), entries)
        if not _pull_band(
            band, stream, coded.places[number], i64(head[0]), i64(head[1]), frames, n_frames, out, symbols
        ):
            return STREAMS, i64(number)
    return 0, i64(0)
