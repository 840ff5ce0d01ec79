"""Compiled functions that build, write and read frequency tables.

The format defines how tables are packed. The encoder is free to choose which contexts share a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import Array, Int, compiled, i64, u8, u32, u64
from .model import MAX_TABLES, SCALE, SCALE_BITS, SYMBOLS

#: Approximate stored size of a table [bits]: fixed part, and per symbol.
_TABLE_BITS = 40.0
_SYMBOL_BITS = 10.0

#: Maximum size of a packed table [bytes].
_MAX_TABLE_BYTES = 2 * (SYMBOLS + 3)

#: Messages for damaged payloads, by the number that the compiled code returns.
PROBLEMS = (
    "",
    "the payload ends within table {}",
    "a number in table {} has more bytes than it needs, or than two",
    "table {} is for no context, or for more than there are",
    "table {} has symbols beyond 255",
    "the frequencies of table {} do not sum to 4096",
    "the tables are for fewer contexts than there are: table {} is the last",
    "bytes follow table {}, which is the last",
    "band {} does not decode to its end: the payload was truncated or altered",
)
_ENDS, _NUMBER, _RUN, _SYMBOLS, _SUM, _CONTEXTS, _BYTES, STREAMS = range(1, 9)


@compiled
def _cost(one: Array, two: Array, low: Int, high: Int) -> Any:
    """Return the bits needed to code the symbols of two contexts with one shared table, including the table."""
    total, inner, used = 0.0, 0.0, 0
    for symbol in range(low, high + 1):
        count = float(one[symbol]) + float(two[symbol])
        if count > 0:
            total += count
            inner += count * np.log2(count)
            used += 1
    return (total * np.log2(total) - inner if total > 0 else 0.0) + _TABLE_BITS + _SYMBOL_BITS * used


@compiled
def merge_contexts(counts: Array) -> Any:
    """Let neighbouring contexts share a table if that makes the payload smaller.

    Each round merges every pair of neighbours that saves more than the pairs on both sides of it. While there are too
    many tables, pairs are merged even at a loss. ``counts`` are the symbol counts per context, uint32, shape
    (contexts, 256). Returns the table of each context, which starts at 0 and increases in steps of 1, and the symbol
    counts per table, shape (tables, 256).
    """
    n_contexts = counts.shape[0]
    used = np.empty(n_contexts, np.int64)
    groups = 0
    for context in range(n_contexts):
        for symbol in range(SYMBOLS):
            if counts[context, symbol] > 0:
                used[groups] = context
                groups += 1
                break
    shared = np.zeros((groups, SYMBOLS), np.uint32)
    ends, low, high = np.empty(groups, np.int64), np.empty(groups, np.int64), np.empty(groups, np.int64)
    cost = np.empty(groups)
    nothing = np.zeros(SYMBOLS, np.uint32)
    for g in range(groups):
        shared[g] = counts[used[g]]
        ends[g] = used[g]  # last context of the group, which also covers unused contexts before it
        present = np.flatnonzero(shared[g])
        low[g], high[g] = present[0], present[-1]
        cost[g] = _cost(shared[g], nothing, low[g], high[g])
    gains, merged = np.empty(groups), np.empty(groups)
    while groups > 1:
        for g in range(groups - 1):
            merged[g] = _cost(shared[g], shared[g + 1], min(low[g], low[g + 1]), max(high[g], high[g + 1]))
            gains[g] = cost[g] + cost[g + 1] - merged[g]
        forced = groups > MAX_TABLES
        kept, g = 0, 0
        while g < groups:
            join = (
                g + 1 < groups
                and (gains[g] > 0 or forced)
                and (g == 0 or gains[g] >= gains[g - 1])
                and (g + 2 >= groups or gains[g] > gains[g + 1])
            )
            if kept != g:
                shared[kept] = shared[g]
            ends[kept], low[kept], high[kept], cost[kept] = ends[g], low[g], high[g], cost[g]
            if join:
                for symbol in range(low[g + 1], high[g + 1] + 1):
                    shared[kept, symbol] += shared[g + 1, symbol]
                ends[kept] = ends[g + 1]
                low[kept], high[kept], cost[kept] = min(low[g], low[g + 1]), max(high[g], high[g + 1]), merged[g]
                g += 1
            kept += 1
            g += 1
        if kept == groups:
            break
        groups = kept
    table_of = np.full(n_contexts, u8(groups - 1))  # also for unused contexts after the last
    context = 0
    for g in range(groups - 1):
        table_of[context : ends[g] + 1] = u8(g)
        context = ends[g] + 1
    return table_of, shared[:groups].copy()


@compiled
def scale_counts(counts: Array) -> Array:
    """Scale the counts of each table to frequencies with the sum 4096; symbols that occur get at least 1."""
    frequencies = np.empty_like(counts)
    for table in range(counts.shape[0]):
        total = i64(0)
        for symbol in range(SYMBOLS):
            total += i64(counts[table, symbol])
        left = i64(SCALE)
        for symbol in range(SYMBOLS):
            count = i64(counts[table, symbol])
            frequency = max((count * SCALE + total // 2) // total, i64(1)) if count > 0 else i64(0)
            frequencies[table, symbol] = u32(frequency)
            left -= frequency
        while left != 0:
            largest = 0
            for symbol in range(1, SYMBOLS):
                if frequencies[table, symbol] > frequencies[table, largest]:
                    largest = symbol
            change = left if left > 0 else max(left, -(i64(frequencies[table, largest]) // 2))
            frequencies[table, largest] = u32(i64(frequencies[table, largest]) + change)
            left -= change
    return frequencies


@compiled
def _write_number(value: Int, packed: Array, at: Int) -> Any:
    """Write an unsigned number of up to 14 bits, 7 bits per byte, lowest first; return the position after it."""
    if value < 128:
        packed[at] = u8(value)
        return at + 1
    packed[at], packed[at + 1] = u8(value & 127 | 128), u8(value >> 7)
    return at + 2


@compiled
def write_tables(table_of: Array, frequencies: Array) -> Array:
    """Return the packed tables, uint8.

    A table is stored as the number of contexts that share it, the frequency of the escape, the first symbol, the
    number of symbols, and their frequencies.
    """
    packed = np.zeros(frequencies.shape[0] * _MAX_TABLE_BYTES, np.uint8)
    at, context = 0, 0
    for table in range(frequencies.shape[0]):
        run = 0
        while context + run < table_of.size and table_of[context + run] == table:
            run += 1
        context += run
        first, last = 1, 0
        for symbol in range(1, SYMBOLS):
            if frequencies[table, symbol]:
                first, last = (symbol if last == 0 else first), symbol
        at = _write_number(run, packed, at)
        at = _write_number(frequencies[table, 0], packed, at)
        at = _write_number(first, packed, at)
        at = _write_number(last - first + 1 if last else 0, packed, at)
        for symbol in range(first, last + 1):
            at = _write_number(frequencies[table, symbol], packed, at)
    return packed[:at]


@compiled
def _read_number(packed: Array, at: Int) -> Any:
    """Return the number at position ``at``, or the negative index of a problem, and the position after it."""
    if at >= packed.size:
        return -_ENDS, at
    low = i64(packed[at])
    if low < 128:
        return low, at + 1
    if at + 1 >= packed.size:
        return -_ENDS, at
    high = i64(packed[at + 1])
    return (low & 127 | high << 7, at + 2) if 0 < high < 128 else (i64(-_NUMBER), at)


@compiled
def read_tables(packed: Array, n_tables: Int, tables: Array, slots: Array) -> Any:
    """Unpack tables: fill ``slots``, and ``tables`` with the first slot of each context's table.

    A slot holds, from the lowest bit up, its symbol (8 bits), the symbol's frequency minus 1 (12 bits), and its
    position among the slots of the symbol (12 bits). Returns an index into :data:`PROBLEMS`, 0 if the tables are
    valid, and the number of the table.
    """
    at, covered = i64(0), i64(0)
    head = np.empty(4, np.int64)
    for table in range(n_tables):
        for i in range(4):
            head[i], at = _read_number(packed, at)
            if head[i] < 0:
                return -head[i], table
        run, escape, first, n_symbols = head
        if run < 1 or covered + run > tables.size:
            return _RUN, table
        if not 1 <= first < SYMBOLS or first + n_symbols > SYMBOLS:
            return _SYMBOLS, table
        begin = table << SCALE_BITS
        tables[covered : covered + run] = u32(begin)
        covered += run
        filled = i64(0)
        for symbol in range(first - 1, first + n_symbols):
            frequency = escape
            if symbol >= first:
                frequency, at = _read_number(packed, at)
                if frequency < 0:
                    return -frequency, table
            if filled + frequency > SCALE:
                return _SUM, table
            number = u32(symbol) if symbol >= first else u32(0)
            same = number | u32((frequency - 1) << 8)
            for place in range(frequency):
                slots[u64(begin + filled + place)] = same | u32(place << 20)
            filled += frequency
        if filled != SCALE:
            return _SUM, table
    if covered != tables.size:
        return _CONTEXTS, n_tables - 1
    return (_BYTES, n_tables - 1) if at != packed.size else (0, 0)
