"""The compiled loops once more, in plain numpy and Python: what ``docs/spec/rans.md`` says, to be read beside it.

Slow, and without any trick; the tests hold :mod:`.kernels` and :mod:`.tables` equal to it. Needs no numba.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from .. import _dither
from .._typing import AnyArray
from .model import (
    FRACTION_BITS,
    LANES,
    MAX_TABLES,
    SCALE,
    SCALE_BITS,
    STATE_LOW,
    SYMBOL_ZERO,
    SYMBOLS,
    WEIGHT_BITS,
    Model,
    own_weight,
    phase,
    rate,
)

Integers = npt.NDArray[np.int64]


def offsets(frames: AnyArray, rows: int, columns: int, model: Model) -> Integers:
    """What the dither added to every pixel of the frames of these numbers, in 1024ths, shape (time, rows, columns)."""
    place = (frames.astype(np.int64)[:, None, None] * rows + np.arange(rows)[:, None]) * columns + np.arange(columns)
    levels = _dither.offset_levels()[place % _dither.PERIOD]
    return np.asarray(8 * (2 * levels + 1) - 512 if model.dithered else np.zeros_like(levels))


class Predictor:
    """Predicts a movie row by row from the rows before.

    Parameters
    ----------
    offsets
        Of every pixel, in 1024ths, shape (time, rows, columns).
    model
        The header's choices.
    """

    def __init__(self, offsets: Integers, model: Model) -> None:
        self._offsets = offsets
        self._model = model
        self._means = np.zeros(offsets.shape[1:], np.int64)
        self._past = self._means  # as they were after the last frame
        self._column_means = np.full(offsets.shape[2], model.start << FRACTION_BITS, np.int64)

    def predict(self, t: int, y: int) -> Integers:
        """Predicted levels of row ``y`` of frame ``t``, in 1024ths, shape (columns,)."""
        return np.asarray((self._signal(t, y) + self._offsets[t, y]).clip(0, self._model.top << FRACTION_BITS))

    def _signal(self, t: int, y: int) -> Integers:
        """The prediction before any dither."""
        if t == 0:
            return self._column_means
        if y == 0:
            self._past = self._means.copy()
        rows = len(self._past)
        above, here, below = (_blur(self._past[min(max(y + d, 0), rows - 1)]) for d in (-1, 0, 1))
        around = (above + 2 * here + below + 8) >> 4
        weight = own_weight(t, self._model.blend, self._model.window)
        own = ((self._past[y] - around) * weight + (1 << WEIGHT_BITS - 1)) >> WEIGHT_BITS
        return np.asarray(around + own)

    def follow(self, t: int, y: int, levels: Integers) -> None:
        """Take in the levels of a row."""
        signal = (np.minimum(levels, self._model.top) << FRACTION_BITS) - self._offsets[t, y]
        step = rate(t, self._model.window)
        self._means[y] += ((signal - self._means[y]) * step + (1 << WEIGHT_BITS - 1)) >> WEIGHT_BITS
        if t == 0:
            self._column_means = (_blur(self._column_means + ((signal - self._column_means) >> 2)) + 2) >> 2


def _blur(line: Integers) -> Integers:
    """Each value twice and its neighbours; beyond its ends a line goes on as it ends."""
    wide = np.pad(line, 1, mode="edge")
    return np.asarray(wide[:-2] + 2 * wide[1:-1] + wide[2:])


def model_levels(levels: Integers, offsets: Integers, model: Model) -> tuple[Integers, Integers, Integers]:
    """Contexts, symbols and their counts of a movie of levels, shape (time, rows, columns)."""
    contexts, symbols = np.empty_like(levels), np.empty_like(levels)
    predictor = Predictor(offsets, model)
    for t, frame in enumerate(levels):
        for y, row in enumerate(frame):
            predicted = predictor.predict(t, y)
            contexts[t, y] = phase(t) * model.contexts + (predicted >> model.context_shift)
            symbol = row - ((predicted + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS) + SYMBOL_ZERO
            symbols[t, y] = np.where((symbol > 0) & (symbol < SYMBOLS) & (row <= model.top), symbol, 0)
            predictor.follow(t, y, row)
    counts = np.zeros((3 * model.contexts, SYMBOLS), np.int64)
    np.add.at(counts, (contexts, symbols), 1)
    return contexts, symbols, counts


def push_symbols(tables: Integers, symbols: Integers, frequencies: AnyArray) -> tuple[list[int], list[int]]:
    """Code symbols, given the table of each, both of shape (time, rows, columns): states of the lanes, and words."""
    firsts = np.cumsum(frequencies, axis=1, dtype=np.int64) - frequencies
    states, words = [STATE_LOW] * LANES, []
    columns = symbols.shape[2]
    for i in range(symbols.size - 1, -1, -1):
        table, symbol, lane = int(tables.flat[i]), int(symbols.flat[i]), i % columns % LANES
        frequency, state = int(frequencies[table, symbol]), states[lane]
        if state >= frequency << (32 - SCALE_BITS):
            words.append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // frequency << SCALE_BITS) + state % frequency + int(firsts[table, symbol])
    return states, words[::-1]


def pull_levels(
    offsets: Integers,
    model: Model,
    table_of: AnyArray,
    frequencies: AnyArray,
    states: list[int],
    words: list[int],
    escapes: list[int],
) -> Integers:
    """Decode the levels of a movie; raises ValueError where the streams do not end as they must."""
    slots = [np.repeat(np.arange(SYMBOLS), row) for row in frequencies]
    firsts = np.cumsum(frequencies, axis=1, dtype=np.int64) - frequencies
    levels = np.empty_like(offsets)
    predictor = Predictor(offsets, model)
    states, left_words, left_escapes = list(states), list(words), list(escapes)
    for t in range(levels.shape[0]):
        for y in range(levels.shape[1]):
            predicted = predictor.predict(t, y)
            for x in range(levels.shape[2]):
                table = table_of[phase(t) * model.contexts + (int(predicted[x]) >> model.context_shift)]
                state = states[x % LANES]
                slot = state & (SCALE - 1)
                symbol = int(slots[table][slot])
                state = int(frequencies[table][symbol]) * (state >> SCALE_BITS) + slot - int(firsts[table][symbol])
                if state < STATE_LOW:
                    state = state << 16 | _next(left_words)
                states[x % LANES] = state
                level = ((int(predicted[x]) + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS) + symbol - SYMBOL_ZERO
                if symbol == 0:
                    level = _next(left_escapes)
                elif not 0 <= level <= model.top:
                    raise ValueError(f"level {level} outside 0 to {model.top}")
                levels[t, y, x] = level
            predictor.follow(t, y, levels[t, y])
    if left_words or left_escapes or any(state != STATE_LOW for state in states):
        raise ValueError("the streams do not end with the last pixel")
    return levels


def _next(stream: list[int]) -> int:
    if not stream:
        raise ValueError("a stream ends before the last pixel")
    return stream.pop(0)


def scale_counts(counts: AnyArray) -> Integers:
    """Frequencies of one table from the counts of its symbols."""
    total = int(counts.sum())
    nearest = (counts.astype(np.int64) * SCALE + total // 2) // total
    frequencies = np.where(counts > 0, np.maximum(nearest, 1), 0)
    while left := SCALE - int(frequencies.sum()):
        largest = int(np.argmax(frequencies))
        frequencies[largest] += left if left > 0 else max(left, -(int(frequencies[largest]) // 2))
    return frequencies


def merge_contexts(counts: AnyArray, table_bits: float, symbol_bits: float) -> tuple[Integers, Integers]:
    """The table of each context, and the counts of each table."""
    ends = [int(context) for context in np.flatnonzero(counts.any(axis=1))]
    groups = [counts[end].astype(np.int64) for end in ends]

    def cost(group: Integers) -> float:
        used = group[group > 0].astype(float)
        bits = used.sum() * np.log2(used.sum()) - (used * np.log2(used)).sum()
        return float(bits + table_bits + symbol_bits * used.size)

    while len(groups) > 1:
        gains = [cost(a) + cost(b) - cost(a + b) for a, b in itertools.pairwise(groups)]
        forced = len(groups) > MAX_TABLES
        joined = [
            (gain > 0 or forced) and (g == 0 or gain >= gains[g - 1]) and (g + 1 == len(gains) or gain > gains[g + 1])
            for g, gain in enumerate(gains)
        ]
        if not any(joined):
            break
        for g in reversed(np.flatnonzero(joined).tolist()):
            groups[g : g + 2] = [groups[g] + groups[g + 1]]
            del ends[g]
    table_of = np.searchsorted(ends[:-1], np.arange(len(counts)))
    return table_of, np.array(groups)
