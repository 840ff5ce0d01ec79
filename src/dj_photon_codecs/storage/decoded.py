"""A decoded chunk, kept as codes.

Codes take at most half the memory of counts, and only the counts that are requested are looked up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .._dither import PERIOD
from .._typing import AnyArray, Box
from ..anscombe import codes as transform
from ..anscombe.parameters import TransformParameters
from ..anscombe.tables import look_up_box
from ..entropy.model import Lookup, place_pattern


class Chunk(NamedTuple):
    """A chunk that was read.

    ``codes`` are C-contiguous codes, and ``lookup`` maps them to counts in the dtype of the movie. Without ``lookup``,
    ``codes`` are the counts themselves. Only the ``box`` was decoded; None is everything.
    """

    codes: AnyArray
    lookup: Lookup | None = None
    box: Box | None = None

    def has(self, box: Box | None) -> bool:
        """Whether the box, or everything if it is None, was decoded."""
        return self.box is None or (box is not None and self.box.covers(box))

    @property
    def nbytes(self) -> int:
        """Size in memory [bytes]."""
        return self.codes.nbytes

    def copy(self, inner: tuple[slice, ...], target: AnyArray) -> None:
        """Write the counts of the box ``inner`` into ``target``, an array of its shape, or a view of one."""
        if self.lookup is None:
            target[...] = self.codes[inner]
            return
        table, first = self.lookup
        if target.dtype != table.dtype:
            target[...] = self.counts()[inner]
            return
        begins = place_pattern(*table.shape, self.codes.shape[-1] if self.codes.ndim else 1)
        look_up_box(table.reshape(-1), begins, PERIOD, first, self.codes, inner, target)

    def counts(self) -> AnyArray:
        """Return all counts; do not write to them."""
        if self.lookup is None:
            return self.codes
        counts = np.empty(self.codes.shape, self.lookup.table.dtype)
        self.copy((slice(None),) * counts.ndim, counts)
        return counts


def chunk_of(codes: AnyArray, parameters: TransformParameters, dtype: np.dtype[Any]) -> Chunk:
    """Wrap codes of the transform as a chunk. Codes that span too wide a range for a table are decoded at once."""
    if codes.itemsize > 1 and codes.size:
        low, high = int(codes.min()) & ~0xFF, int(codes.max()) | 0xFF
        if high - low >= 1 << transform.TABLE_BITS:
            return Chunk(transform.decode(codes, parameters).astype(dtype, copy=False))
    else:
        low, high = int(np.iinfo(codes.dtype).min), int(np.iinfo(codes.dtype).max)
    return Chunk(codes, _decoding(parameters, low, high, dtype.newbyteorder("=")))


@lru_cache(maxsize=16)
def _decoding(parameters: TransformParameters, low: int, high: int, dtype: np.dtype[Any]) -> Lookup:
    """Return the read-only table of counts for the codes ``low`` to ``high``, in the dtype of the movie."""
    table = np.ascontiguousarray(transform.decoding_table(parameters, low, high).astype(dtype))
    table.flags.writeable = False
    return Lookup(table, low)
