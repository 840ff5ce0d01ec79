"""The compiled loops of the entropy coder. Each is equal to a function of :mod:`.reference`.

Importing this module imports numba. The loops release the GIL, so that chunks are coded in parallel; they use integers
of explicit width, no floating point but where a result is exact, and check what comes from a payload once a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled
from .model import FRACTION_BITS, LANES, SCALE_BITS, STATE_LOW, SYMBOL_ZERO, WEIGHT_BITS, Model

#: What compiled functions take: numba sees the exact types, and needs no annotations.
Array = Any
Int = Any

i32 = np.int32
i64 = np.int64
u8 = np.uint8
u16 = np.uint16
u32 = np.uint32
u64 = np.uint64

_ONE = i32(1 << FRACTION_BITS)
_HALF = i32(1 << (FRACTION_BITS - 1))
_FRACTION = i32(FRACTION_BITS)
_WEIGHT = i32(WEIGHT_BITS)
_WEIGHT_HALF = i32(1 << (WEIGHT_BITS - 1))
_ZERO = i32(SYMBOL_ZERO)
_LANES = LANES
_LOW = u32(STATE_LOW)
_SCALE = u32(SCALE_BITS)
_SLOT = u32((1 << SCALE_BITS) - 1)
_FULL = u32(32 - SCALE_BITS)


@compiled
def _blur(line: Array, out: Array) -> None:
    """Sum of each value, twice, and its two neighbours; the line goes on beyond its ends as it ends."""
    last = line.size - 1
    if last == 0:
        out[0] = i32(4) * line[0]
        return
    out[0] = i32(3) * line[0] + line[1]
    for x in range(1, last):
        out[x] = line[x - 1] + i32(2) * line[x] + line[x + 1]
    out[last] = i32(3) * line[last] + line[last - 1]


@compiled
def _predict(
    t: Int, y: Int, weight: Int, highest: Int, offsets: Array, means: Array, column_means: Array, blurred: Array,
    predicted: Array,
) -> None:  # fmt: skip
    """Predictions of row ``y`` of frame ``t``; ``blurred`` keeps three rows of the means, between calls."""
    rows, columns = means.shape
    if t == 0:
        for x in range(columns):
            predicted[x] = min(max(column_means[x] + offsets[x], i32(0)), highest)
        return
    above, here, below = blurred[(y + 2) % 3], blurred[y % 3], blurred[(y + 1) % 3]
    if y == 0:
        _blur(means[0], here)
        above[:] = here
    if y + 1 < rows:
        _blur(means[y + 1], below)
    else:
        below[:] = here
    own = means[y]
    for x in range(columns):
        around = (above[x] + i32(2) * here[x] + below[x] + i32(8)) >> i32(4)
        signal = around + (((own[x] - around) * weight + _WEIGHT_HALF) >> _WEIGHT)
        predicted[x] = min(max(signal + offsets[x], i32(0)), highest)


@compiled
def _follow(column_means: Array, scratch: Array, levels: Array, offsets: Array) -> None:
    """In the first frame each row predicts the next: means move a quarter of the way, and are blurred."""
    for x in range(levels.size):
        scratch[x] = column_means[x] + (((levels[x] << _FRACTION) - offsets[x] - column_means[x]) >> i32(2))
    _blur(scratch, column_means)
    for x in range(levels.size):
        column_means[x] = (column_means[x] + i32(2)) >> i32(2)


@compiled
def _offsets(pattern: Array, start: Int, y: Int, columns: Int) -> Array:
    """The offsets of row ``y`` of a frame that begins at the place ``start`` of the pattern."""
    place = (i64(start) + i64(y) * columns) % (pattern.size - columns)
    return pattern[place : place + columns]


@compiled
def _contexts(model: Model) -> Any:
    """Contexts in one phase: ``model.contexts``, which compiled code cannot ask for."""
    return ((model.top << FRACTION_BITS) >> model.context_shift) + 1


@compiled
def _weights(t: Int, model: Model) -> Any:
    """The phase of a frame, the weight of the pixel's own mean, and the rate at which it moves."""
    seen = min(t, model.window)
    weight = (seen << WEIGHT_BITS) // (seen + model.blend) if seen > 0 else 0
    phase = 0 if t == 0 else (1 if t < 4 else 2)
    return phase, i32(weight), i32((1 << WEIGHT_BITS) // (seen + 1))


@compiled
def model_codes(
    codes: Array, mask: Int, model: Model, pattern: Array, starts: Array, context_of: Array, symbols: Array,
    counts: Array,
) -> None:  # fmt: skip
    """Predict every pixel: fills ``context_of`` and ``symbols``, and counts the symbols of each context.

    ``pattern`` is that of the offsets, with a row beyond its period; each frame begins at its place in ``starts``.
    """
    frames, rows, columns = codes.shape
    means = np.zeros((rows, columns), np.int32)
    blurred = np.empty((3, columns), np.int32)
    column_means, scratch = np.empty(columns, np.int32), np.empty(columns, np.int32)
    predicted, levels = np.empty(columns, np.int32), np.empty(columns, np.int32)
    column_means[:] = i32(model.start) << _FRACTION
    shift, low, base, top = i32(model.context_shift), i32(model.low_bits), i32(model.base), i32(model.top)
    mask, highest = i32(mask), top << _FRACTION
    contexts = _contexts(model)
    for t in range(frames):
        phase, weight, rate = _weights(t, model)
        first = i32(phase * contexts)
        for y in range(rows):
            offsets = _offsets(pattern, starts[t], y, columns)
            _predict(t, y, weight, highest, offsets, means, column_means, blurred, predicted)
            line, own, context_line, symbol_line = codes[t, y], means[y], context_of[t, y], symbols[t, y]
            for x in range(columns):
                level = ((i32(line[x]) - base) & mask) >> low
                symbol = level - ((predicted[x] + _HALF) >> _FRACTION) + _ZERO
                escape = symbol <= i32(0) or symbol > i32(255) or level > top
                symbol_line[x] = u8(i32(0) if escape else symbol)
                context_line[x] = u16(first + (predicted[x] >> shift))
                level = min(level, top)
                own[x] += (((level << _FRACTION) - offsets[x] - own[x]) * rate + _WEIGHT_HALF) >> _WEIGHT
                levels[x] = level
            for x in range(columns):
                counts[u64(context_line[x]), u64(symbol_line[x])] += u32(1)
            if t == 0:
                _follow(column_means, scratch, levels, offsets)


@compiled
def prediction_errors(codes: Array, mask: Int, model: Model, pattern: Array, starts: Array) -> Any:
    """Mean square and mean size of level less prediction: what the encoder chooses its model by."""
    frames, rows, columns = codes.shape
    means = np.zeros((rows, columns), np.int32)
    blurred = np.empty((3, columns), np.int32)
    column_means, scratch = np.empty(columns, np.int32), np.empty(columns, np.int32)
    predicted, levels = np.empty(columns, np.int32), np.empty(columns, np.int32)
    column_means[:] = i32(model.start) << _FRACTION
    low, base, top, mask = i32(model.low_bits), i32(model.base), i32(model.top), i32(mask)
    highest = top << _FRACTION
    squares, sizes = 0.0, 0.0
    for t in range(frames):
        _, weight, rate = _weights(t, model)
        for y in range(rows):
            offsets = _offsets(pattern, starts[t], y, columns)
            _predict(t, y, weight, highest, offsets, means, column_means, blurred, predicted)
            line, own = codes[t, y], means[y]
            for x in range(columns):
                level = min(((i32(line[x]) - base) & mask) >> low, top)
                off = float((level << _FRACTION) - predicted[x])
                squares += off * off
                sizes += abs(off)
                own[x] += (((level << _FRACTION) - offsets[x] - own[x]) * rate + _WEIGHT_HALF) >> _WEIGHT
                levels[x] = level
            if t == 0:
                _follow(column_means, scratch, levels, offsets)
    return squares / codes.size / float(_ONE) ** 2, sizes / codes.size / float(_ONE)


@compiled
def _load(states: Array) -> Any:
    """The states of all lanes, to be kept in registers."""
    return states[0], states[1], states[2], states[3], states[4], states[5], states[6], states[7]


@compiled
def _save(states: Array, lanes: Any) -> None:
    for lane in range(_LANES):
        states[lane] = lanes[lane]


@compiled
def _push(
    state: Int, context: Int, symbol: Int, table_of: Array, ranges: Array, reciprocals: Array, words: Array, place: Int
) -> Any:
    """Put one symbol on a state; ``place`` is where the stream of words begins so far."""
    row, column = u64(table_of[u64(context)]), u64(symbol)
    packed = ranges[row, column]
    frequency, first = packed & u32(0xFFFF), packed >> u32(16)
    words[place - 1] = u16(state & u32(0xFFFF))
    full = (state >> _FULL) >= frequency
    place -= i64(full)
    state = (state >> u32(16)) if full else state
    # Exact: the reciprocal is rounded up by less than 2^-52, and the next whole number is 1/4096 away at least.
    quotient = u32(i64(float(state) * reciprocals[row, column]))
    return (quotient << _SCALE) + (state - quotient * frequency) + first, place


@compiled
def push_symbols(
    context_of: Array, symbols: Array, table_of: Array, ranges: Array, reciprocals: Array, words: Array
) -> Any:
    """Code all symbols, the last one first; fills ``words`` from its end. Gives where they begin, and the states."""
    frames, rows, columns = context_of.shape
    states = np.full(_LANES, _LOW, np.uint32)
    place = i64(words.size)
    whole = columns - columns % _LANES
    for t in range(frames - 1, -1, -1):
        for y in range(rows - 1, -1, -1):
            at, line = context_of[t, y], symbols[t, y]
            for x in range(columns - 1, whole - 1, -1):
                lane = x - whole
                states[lane], place = _push(states[lane], at[x], line[x], table_of, ranges, reciprocals, words, place)
            s0, s1, s2, s3, s4, s5, s6, s7 = _load(states)
            for x in range(whole - _LANES, -1, -_LANES):
                s7, place = _push(s7, at[x + 7], line[x + 7], table_of, ranges, reciprocals, words, place)
                s6, place = _push(s6, at[x + 6], line[x + 6], table_of, ranges, reciprocals, words, place)
                s5, place = _push(s5, at[x + 5], line[x + 5], table_of, ranges, reciprocals, words, place)
                s4, place = _push(s4, at[x + 4], line[x + 4], table_of, ranges, reciprocals, words, place)
                s3, place = _push(s3, at[x + 3], line[x + 3], table_of, ranges, reciprocals, words, place)
                s2, place = _push(s2, at[x + 2], line[x + 2], table_of, ranges, reciprocals, words, place)
                s1, place = _push(s1, at[x + 1], line[x + 1], table_of, ranges, reciprocals, words, place)
                s0, place = _push(s0, at[x], line[x], table_of, ranges, reciprocals, words, place)
            _save(states, (s0, s1, s2, s3, s4, s5, s6, s7))
    return place, states


@compiled
def fill_slots(frequencies: Array, slots: Array) -> None:
    """For each of the 4096 slots of each table: its symbol, that symbol's frequency less 1, and the place in it."""
    for table in range(frequencies.shape[0]):
        slot = 0
        for symbol in range(frequencies.shape[1]):
            frequency = frequencies[table, symbol]
            for place in range(frequency):
                slots[table, slot] = u32(symbol) | (u32(frequency - 1) << u32(8)) | (u32(place) << u32(20))
                slot += 1


@compiled
def _slot(state: Int, predicted: Int, first: Int, shift: Int, table_of: Array, slots: Array) -> Any:
    """The slot that a state points at, in the table of a prediction."""
    return slots[u64(table_of[first + u64(predicted >> shift)]), u64(state & _SLOT)]


@compiled
def _pull(state: Int, slot: Int, words: Array, place: Int) -> Any:
    """Take the symbol of a slot off its state, and shift a word in where the state gets low."""
    state = ((slot >> u32(8) & _SLOT) + u32(1)) * (state >> _SCALE) + (slot >> u32(20))
    low = state < _LOW
    filled = (state << u32(16)) | u32(words[place])
    return (filled if low else state), place + u64(low)


@compiled
def pull_symbols(
    words: Array, n_words: Int, escapes: Array, states: Array, slots: Array, table_of: Array, model: Model,
    pattern: Array, starts: Array, out: Array,
) -> Any:  # fmt: skip
    """Decode all pixels of a chunk into ``out``, unsigned.

    ``words`` has a row of padding beyond its ``n_words``. Gives the words and the escapes that were used, and whether
    every level was in its range; what is used up ends the decoding.
    """
    frames, rows, columns = out.shape
    means = np.zeros((rows, columns), np.int32)
    blurred = np.empty((3, columns), np.int32)
    column_means, scratch = np.empty(columns, np.int32), np.empty(columns, np.int32)
    predicted, levels = np.empty(columns, np.int32), np.empty(columns, np.int32)
    symbols = np.empty(columns, np.uint8)
    column_means[:] = i32(model.start) << _FRACTION
    shift, base, top = i32(model.context_shift), i32(model.base), i32(model.top)
    highest = top << _FRACTION
    contexts = _contexts(model)
    whole = columns - columns % _LANES
    place = u64(0)
    escaped = 0
    strayed = i32(0)
    for t in range(frames):
        phase, weight, rate = _weights(t, model)
        first = u64(phase * contexts)
        for y in range(rows):
            if place > u64(n_words):
                return i64(place), i64(escaped), False
            offsets = _offsets(pattern, starts[t], y, columns)
            _predict(t, y, weight, highest, offsets, means, column_means, blurred, predicted)
            s0, s1, s2, s3, s4, s5, s6, s7 = _load(states)
            for x in range(0, whole, _LANES):
                slot0 = _slot(s0, predicted[x], first, shift, table_of, slots)
                slot1 = _slot(s1, predicted[x + 1], first, shift, table_of, slots)
                slot2 = _slot(s2, predicted[x + 2], first, shift, table_of, slots)
                slot3 = _slot(s3, predicted[x + 3], first, shift, table_of, slots)
                slot4 = _slot(s4, predicted[x + 4], first, shift, table_of, slots)
                slot5 = _slot(s5, predicted[x + 5], first, shift, table_of, slots)
                slot6 = _slot(s6, predicted[x + 6], first, shift, table_of, slots)
                slot7 = _slot(s7, predicted[x + 7], first, shift, table_of, slots)
                symbols[x] = u8(slot0 & u32(255))
                symbols[x + 1] = u8(slot1 & u32(255))
                symbols[x + 2] = u8(slot2 & u32(255))
                symbols[x + 3] = u8(slot3 & u32(255))
                symbols[x + 4] = u8(slot4 & u32(255))
                symbols[x + 5] = u8(slot5 & u32(255))
                symbols[x + 6] = u8(slot6 & u32(255))
                symbols[x + 7] = u8(slot7 & u32(255))
                s0, place = _pull(s0, slot0, words, place)
                s1, place = _pull(s1, slot1, words, place)
                s2, place = _pull(s2, slot2, words, place)
                s3, place = _pull(s3, slot3, words, place)
                s4, place = _pull(s4, slot4, words, place)
                s5, place = _pull(s5, slot5, words, place)
                s6, place = _pull(s6, slot6, words, place)
                s7, place = _pull(s7, slot7, words, place)
            _save(states, (s0, s1, s2, s3, s4, s5, s6, s7))
            for x in range(whole, columns):
                lane = x - whole
                slot = _slot(states[lane], predicted[x], first, shift, table_of, slots)
                symbols[x] = u8(slot & u32(255))
                states[lane], place = _pull(states[lane], slot, words, place)
            own, line = means[y], out[t, y]
            n_escapes = 0
            for x in range(columns):
                n_escapes += symbols[x] == u8(0)
            for x in range(columns):
                level = ((predicted[x] + _HALF) >> _FRACTION) + i32(symbols[x]) - _ZERO
                inside = min(max(level, i32(0)), top)
                strayed |= (level ^ inside) if symbols[x] != u8(0) else i32(0)
                levels[x] = inside
                line[x] = inside + base
            if n_escapes:
                if escaped + n_escapes > escapes.size:
                    return i64(place), i64(escaped + n_escapes), False
                for x in range(columns):
                    if symbols[x] == u8(0):
                        level = i32(escapes[escaped])
                        line[x] = level + base
                        levels[x] = min(level, top)
                        escaped += 1
            for x in range(columns):
                own[x] += (((levels[x] << _FRACTION) - offsets[x] - own[x]) * rate + _WEIGHT_HALF) >> _WEIGHT
            if t == 0:
                _follow(column_means, scratch, levels, offsets)
    return i64(place), i64(escaped), strayed == i32(0)
