"""Constants of the context model, and the parameters stored in each chunk header.

Each code is predicted from the past codes of its pixel and of the neighbouring pixels. All arithmetic uses integers
with ``FRACTION_BITS`` binary places, so predictions are the same on every machine (``docs/spec/rans.md``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _dither
from .._typing import AnyArray

#: Fractional bits of a mean.
FRACTION_BITS = 10

#: Fractional bits of a weight.
WEIGHT_BITS = 8

#: Frequencies are in units of 1/4096.
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS

#: Number of interleaved rANS states. The pixels of a run cycle through them; a run is a row in the first frame of a
#: band, and all rows of the band in later frames.
LANES = 32

#: Rows per band. Bands are coded independently; chunks with fewer than twice as many rows are one band.
BAND_ROWS = 128

#: Lowest state between two pixels, and the state that encoding starts from.
STATE_LOW = 1 << 16

#: Upper bound of ``Model.top``; codes with levels above ``top`` are escapes.
MAX_TOP = 4095

#: Maximum number of contexts per phase, and of frequency tables per chunk.
MAX_CONTEXTS = 4096
MAX_TABLES = 256

#: A symbol is level minus prediction plus this; symbol 0 is an escape.
SYMBOL_ZERO = 128
SYMBOLS = 256

#: Phases (the first frame, the next three, the rest) use separate contexts.
PHASES = 3


class Model(NamedTuple):
    """Prediction parameters of a chunk, from its header."""

    low_bits: int  # number of low bits of each code that are stored verbatim
    blend: int  # number of frames that the neighbours' means count for, next to the pixel's own mean
    window: int  # number of frames after which means become exponential moving averages
    context_shift: int  # bits dropped from a prediction to get its context
    start: int  # prediction for the first row
    top: int  # highest level that is predicted
    base: int  # code of level 0
    dithered: bool = False  # add the dither offset of each pixel to its prediction

    @property
    def contexts(self) -> int:
        """Number of contexts per phase."""
        return ((self.top << FRACTION_BITS) >> self.context_shift) + 1


class Lookup(NamedTuple):
    """Lookup table from counts to codes, or from codes to counts."""

    table: AnyArray  # shape (64, values), with one row per dither offset; (1, values) without dither
    first: int  # value of the first column


@lru_cache(maxsize=16)
def offset_pattern(dithered: bool, columns: int) -> npt.NDArray[np.int32]:
    """Return the dither offsets [1/1024 level] of one period and ``columns`` more pixels; zeros without dither."""
    offsets = _dither.offset(_dither.offset_levels()) * (dithered << FRACTION_BITS)
    return _repeated(offsets.astype(np.int32), columns)


@lru_cache(maxsize=16)
def place_pattern(rows: int, values: int, columns: int) -> npt.NDArray[np.uint32]:
    """Return the start of each pixel's row in a flattened table, for one dither period and ``columns`` more pixels."""
    levels = _dither.offset_levels() if rows > 1 else np.zeros(_dither.PERIOD)
    return _repeated((levels * values).astype(np.uint32), columns)


def _repeated(pattern: AnyArray, columns: int) -> AnyArray:
    longer = np.resize(pattern, _dither.PERIOD + columns)
    longer.flags.writeable = False
    return longer


def rows_of_band(rows: int) -> int:
    """Return the number of rows per band for chunks of ``rows`` rows."""
    return BAND_ROWS if rows >= 2 * BAND_ROWS else rows
