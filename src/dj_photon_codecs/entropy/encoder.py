"""Compiled encoder: one call turns the codes of a chunk into the parts of a payload."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import Array, Int, compiled, i32, i64, u8, u16, u32, u64
from .model import LANES, PHASES, SCALE_BITS, STATE_LOW, SYMBOL_ZERO, SYMBOLS, Model
from .prediction import FRACTION, HALF, contexts_of, follow, follow_first, frame_of, new_band, padded, predict, row_of
from .tables import merge_contexts, scale_counts, write_tables
from .trial import choose_model

_ZERO = i32(SYMBOL_ZERO)
_SCALE = u32(SCALE_BITS)
_FULL = u32(32 - SCALE_BITS)
_SYMBOL_BITS = u64(8)

#: Constant frames with at least this many pixels are left out of the model.
_BLANK_PIXELS = 64


@compiled
def find_blank(codes: Array) -> Array:
    """Return a mask of constant frames, such as dropped frames and padding: they would distort the means."""
    blank = np.zeros(codes.shape[0], np.bool_)
    if codes.shape[1] * codes.shape[2] < _BLANK_PIXELS:
        return blank
    for t in range(codes.shape[0]):
        code = codes[t, 0, 0]
        same = code == codes[t, -1, -1]
        for y in range(codes.shape[1]):
            if not same:
                break
            for x in range(codes.shape[2]):
                same &= codes[t, y, x] == code
        blank[t] = same
    return blank


@compiled
def model_band(
    codes: Array, mask: Int, model: Model, frames: Array, top_row: Int, rows: Int, pattern: Array, context_of: Array,
    symbols: Array, counts: Array,
) -> Any:  # fmt: skip
    """Predict every pixel of a band, and return the number of escapes.

    Fills ``context_of`` and ``symbols``, both flat, and adds the symbols of each context to ``counts``.
    """
    columns = codes.shape[2]
    band = new_band(model, pattern, codes.shape, top_row, rows)
    means, predicted, levels = band.means, band.predicted, np.empty(columns, np.int32)
    column_means, scratch = band.column_means
    shift, low, base, top = i32(model.context_shift), i32(model.low_bits), i32(model.base), i32(model.top)
    bits, contexts = i32(mask), contexts_of(model)
    at, n_escapes, flat = 0, -counts[:, 0].sum(), counts.reshape(-1)
    for t in range(frames.size):
        frame = frame_of(band, t, frames[t])
        first, begin = i32(frame.phase * contexts), 0
        while begin < rows:
            stop = predict(band, frame, begin)
            for y in range(begin, stop):
                line, expected = codes[frames[t], top_row + y], predicted[(y - begin) * columns :][:columns]
                context_line, symbol_line = context_of[at : at + columns], symbols[at : at + columns]
                for x in range(columns):
                    level = i32(i32(i32(i32(line[x]) - base) & bits) >> low)
                    symbol = i32(level - i32(i32(expected[x] + HALF) >> FRACTION) + _ZERO)
                    coded = (symbol > i32(0)) & (symbol <= i32(255)) & (level <= top)
                    symbol_line[x] = u8(symbol if coded else i32(0))
                    context_line[x] = u16(first + i32(expected[x] >> shift))
                    levels[x] = level
                for x in range(columns):  # a flat index avoids a multiplication
                    flat[u64(context_line[x]) << _SYMBOL_BITS | u64(symbol_line[x])] += u32(1)
                offsets = row_of(pattern, frame.place, y, columns)
                follow(levels, top, frame.rate, offsets, means[y])
                if t == 0:
                    follow_first(levels, top, offsets, column_means, scratch)
                at += columns
            begin = stop
    return n_escapes + counts[:, 0].sum()


@compiled
def push_block(
    lanes: Int, x: Int, words: Array, symbols: Array, keys: Array, ranges: Array, place: Int, states: Array,
    range_of: Array,
) -> Any:  # fmt: skip
    """Push one symbol onto each state.

    States are divided in float32, which processors do for 8 lanes at a time. The quotient is below 2^20, so rounding
    twice puts it off by less than 1, and its integer part by at most 1. The remainder then corrects it.
    """
    for lane in range(u64(0), u64(lanes)):
        range_of[lane] = ranges[u64(keys[u64(words[x + lane])] | u16(symbols[x + lane]))]
    for back in range(u64(1), u64(lanes) + u64(1)):
        last = u64(u64(lanes) - back)
        state = states[last]
        full = u32(state >> _FULL) >= range_of[last] & u32(0xFFFF)
        words[u64(place - u64(1))] = u16(state)
        place = u64(place - u64(full))
        states[last] = u32(state >> u32(16)) if full else state
    for lane in range(u64(0), u64(lanes)):
        frequency, state = i32(range_of[lane] & u32(0xFFFF)), states[lane]
        quotient = i32(np.float32(state) / np.float32(frequency))
        rest = i32(i32(state) - i32(quotient * frequency))
        moved = i32(i32(rest >= frequency) - i32(rest < i32(0)))
        rest = i32(rest - i32(moved * frequency))
        states[lane] = u32(u32(u32(quotient + moved) << _SCALE) + u32(rest) + (range_of[lane] >> u32(16)))
    return place


@compiled
def push_band(words: Array, symbols: Array, first_run: Int, run: Int, keys: Array, ranges: Array, states: Array) -> Any:
    """Encode the symbols of a band, last one first, and return the position of the first word in ``words``.

    On input, ``words`` holds the context of each pixel, uint16; output words overwrite used contexts from the end.
    ``first_run`` and ``run`` are the pixels per run in the first and in later frames. ``keys`` and ``ranges`` come from
    :func:`ranges_of`. ``states`` is filled with the final states of the lanes.
    """
    states[:] = u32(STATE_LOW)
    range_of = np.empty(LANES, np.uint32)
    place: Int = u64(words.size)
    end = words.size
    while end > 0:
        n = run if end > run else first_run
        x = u64(end - n % LANES)
        if n % LANES:
            place = push_block(n % LANES, x, words, symbols, keys, ranges, place, states, range_of)
        for _ in range(n // LANES):
            x = u64(x - u64(LANES))
            place = push_block(LANES, x, words, symbols, keys, ranges, place, states, range_of)
        end -= n
    return i64(place)


@compiled
def ranges_of(table_of: Array, frequencies: Array) -> Any:
    """Return the key of each context, and the range of each combination of key and symbol.

    The lower 16 bits of a range are the frequency of the symbol; the upper 16 bits are its first slot.
    """
    keys = np.empty(table_of.size, np.uint16)
    for context in range(table_of.size):
        keys[context] = u16(table_of[context]) << u16(8)
    ranges = np.zeros(frequencies.size, np.uint32)
    for table in range(frequencies.shape[0]):
        begin = u32(0)
        for symbol in range(SYMBOLS):
            frequency = frequencies[table, symbol]
            ranges[table * SYMBOLS + symbol] = frequency | begin << u32(16)
            begin += frequency
    return keys, ranges


@compiled
def _collect(
    codes: Array, mask: Int, model: Model, frames: Array, top_row: Int, bottom: Int, symbols: Array, n_escapes: Int,
    streams: Array,
) -> Any:  # fmt: skip
    """Fill the escapes and the low bits of a band, packed from the lowest bit up, and return where they end."""
    base, low_bits = i32(model.base), i32(model.low_bits)
    at, escaped, word, gathered, n_gathered = 0, 0, padded(n_escapes), u32(0), u32(0)
    for t in range(frames.size):
        for y in range(top_row, bottom):
            for x in range(codes.shape[2]):
                level = i32(i32(i32(codes[frames[t], y, x]) - base) & i32(mask))
                if symbols[at] == u8(0):
                    streams[escaped] = u16(level >> low_bits)
                    escaped += 1
                at += 1
                if low_bits:
                    gathered |= u32(u32(level) & u32((1 << low_bits) - 1)) << n_gathered
                    n_gathered = u32(n_gathered + u32(low_bits))
                    if n_gathered >= u32(16):
                        streams[word] = u16(gathered)
                        word += 1
                        gathered = u32(gathered >> u32(16))
                        n_gathered = u32(n_gathered - u32(16))
    if n_gathered:
        streams[word] = u16(gathered)
        word += 1
    return padded(word)


@compiled
def encode_chunk(
    codes: Array, mask: Int, sign: Int, band_rows: Int, plain_pattern: Array, dithered_pattern: Array, words: Array,
    symbols: Array,
) -> Any:  # fmt: skip
    """Encode a chunk.

    ``codes`` is the unsigned view of the codes, shape (time, rows, columns). ``mask`` has all bits of a code, and
    ``sign`` its sign bit (0 for unsigned codes). The patterns are zeros and the dither offsets. ``words`` (uint16) and
    ``symbols`` (uint8) are scratch space with one element per pixel.

    Returns the model; a mask of the blank frames; the number of tables; the packed tables; words, escapes and states
    per band; for each band, its start and end in ``words`` and the end of its escapes and low bits; and the escapes
    and low bits of all bands, uint16.
    """
    blank = find_blank(codes)
    frames = np.flatnonzero(~blank)
    model = choose_model(codes, mask, sign, frames, plain_pattern, dithered_pattern)
    rows, row_pixels = codes.shape[1], frames.size * codes.shape[2]
    n_bands = -(-rows // band_rows) if frames.size else 0
    directory, spans = np.zeros((n_bands, 2 + LANES), np.uint32), np.zeros((n_bands, 3), np.int64)
    pattern = dithered_pattern if model.dithered else plain_pattern
    counts = np.zeros((PHASES * contexts_of(model), SYMBOLS), np.uint32)
    n_streams = 0
    for band in range(n_bands):
        top_row, bottom = band * band_rows, min((band + 1) * band_rows, rows)
        begin, end = top_row * row_pixels, bottom * row_pixels
        n_escapes = model_band(
            codes, mask, model, frames, top_row, bottom - top_row, pattern, words[begin:end], symbols[begin:end], counts
        )
        directory[band, 1] = n_escapes
        n_streams += padded(i64(n_escapes)) + padded(((end - begin) * model.low_bits + 15) >> 4)
    streams = np.zeros(n_streams, np.uint16)
    if not n_bands:
        return model, blank, 0, np.zeros(0, np.uint8), directory, spans, streams
    table_of, shared = merge_contexts(counts)
    frequencies = scale_counts(shared)
    keys, ranges = ranges_of(table_of, frequencies)
    at = 0
    for band in range(n_bands):
        top_row, bottom = band * band_rows, min((band + 1) * band_rows, rows)
        begin, end = top_row * row_pixels, bottom * row_pixels
        n_escapes, here = i64(directory[band, 1]), symbols[begin:end]
        if n_escapes or model.low_bits:
            at += _collect(codes, mask, model, frames, top_row, bottom, here, n_escapes, streams[at:])
        run = (bottom - top_row) * codes.shape[2]
        place = push_band(words[begin:end], here, codes.shape[2], run, keys, ranges, directory[band, 2:])
        directory[band, 0] = end - begin - place
        spans[band, 0], spans[band, 1], spans[band, 2] = begin + place, end, at
    return model, blank, len(frequencies), write_tables(table_of, frequencies), directory, spans, streams
