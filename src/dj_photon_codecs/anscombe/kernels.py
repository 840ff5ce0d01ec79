"""The compiled loop of the lookup tables, equal to what :mod:`.tables` does with numpy. Importing it imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compiled import compiled


@compiled
def look_up(table: Any, begins: Any, values: Any, out: Any) -> None:
    """``out[n] = table[begins[n mod begins.size] + values[n]]``; indices beyond the table mean its nearest entry."""
    last = table.size - 1
    for start in range(0, values.size, begins.size):
        for place in range(min(begins.size, values.size - start)):
            index = begins[place] + np.int64(values[start + place])  # the sum with uint64 would be a float64
            out[start + place] = table[min(max(index, 0), last)]
