"""Frequency tables: which contexts share one, and counts made into frequencies that sum to 4096.

This is the encoder's choice, not the format's: a decoder takes the tables as it finds them. Compiled, as
:mod:`.kernels` is; importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled
from .kernels import Array, Int, i64, u8, u32
from .model import MAX_TABLES, SCALE, SYMBOLS

#: Bits that a table costs, without its symbols and for each of them, as they are stored.
_TABLE_BITS = 40.0
_SYMBOL_BITS = 10.0


@compiled
def _cost(one: Array, two: Array, low: Int, high: Int) -> Any:
    """Bits to code the symbols of two contexts with one table, the table included."""
    total, inner, used = 0.0, 0.0, 0
    for symbol in range(low, high + 1):
        count = float(one[symbol]) + float(two[symbol])
        if count > 0:
            total += count
            inner += count * np.log2(count)
            used += 1
    return (total * np.log2(total) - inner if total > 0 else 0.0) + _TABLE_BITS + _SYMBOL_BITS * used


@compiled
def merge_contexts(counts: Array, table_of: Array) -> Any:
    """Have neighbouring contexts share a table wherever that makes the payload smaller.

    In each round every pair of neighbours that gains more than the pairs on either side of it is merged.

    Parameters
    ----------
    counts
        Of each symbol in each context, uint32, shape (contexts, 256).
    table_of
        Filled with the table of each context: rising, from 0, in steps of 1.

    Returns
    -------
    counts
        Of each symbol in each table, uint32, shape (tables, 256).
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
        ends[g] = used[g]  # the last context of the group; unused ones before it are of no matter
        low[g], high[g] = SYMBOLS, -1
        for symbol in range(SYMBOLS):
            if shared[g, symbol] > 0:
                low[g] = min(low[g], symbol)
                high[g] = symbol
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
    context = 0
    for g in range(groups):
        end = ends[g] if g + 1 < groups else n_contexts - 1
        while context <= end:
            table_of[context] = u8(g)
            context += 1
    return shared[:groups].copy()


@compiled
def scale_counts(counts: Array, frequencies: Array) -> None:
    """Fill ``frequencies`` with 4096ths: nearest to the counts' shares, at least 1 where there is any."""
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
