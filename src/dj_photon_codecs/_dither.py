"""The dither: a fixed pattern of offsets that is added before rounding and taken off after it.

What rounding does to a count depends on where the count lies between two codes. With an offset that differs from pixel
to pixel, and that whoever decodes knows too, it depends on the pixel instead, and the errors of many pixels average
to zero at every intensity: subtractive dither (Schuchman 1964, IEEE Trans. Commun. Technol. 12:162). The transform
adds these offsets to its signal; the entropy coder, which sees the codes, predicts better for knowing them.

The pattern is part of two formats (``docs/spec/anscombe.md``, ``docs/spec/rans.md``) and never changes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: Different offsets.
LEVELS = 64

#: Pixels after which the pattern repeats. A prime that divides no size of a frame, so that it moves between frames.
PERIOD = 4093


#: Counts in a row that have one offset in the portable profile: a block of Zstd, 128 KiB, holds so many of 16 bits.
BLOCK = 1 << 16


def block_level(number: int) -> int:
    """The level of a block of the portable profile: all 64 in turn, and any few that follow one another far apart."""
    return 39 * number % LEVELS


@lru_cache(maxsize=1)
def offset_levels() -> npt.NDArray[np.int32]:
    """Which of the offsets each position has: ``64 * (i**5 mod 4093) // 4093`` for ``i`` from 0 to 4092; read-only.

    The fifth power goes through all residues once (5 and 4092 have no common divisor), in an order in which
    neighbours have nothing to do with each other, so that every offset is as frequent as any other.
    """
    place = np.arange(PERIOD, dtype=np.int64)
    power = np.ones_like(place)
    for _ in range(5):
        power = power * place % PERIOD
    levels = (LEVELS * power // PERIOD).astype(np.int32)
    levels.flags.writeable = False
    return levels


def offset(level: Any) -> Any:
    """The offset of a level, in codes: from -63/128 to 63/128, exactly."""
    return (2 * level + 1) / (2 * LEVELS) - 0.5
