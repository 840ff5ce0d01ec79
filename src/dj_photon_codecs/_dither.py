"""The dither: a fixed pattern of offsets, added before rounding and subtracted when decoding.

Without dither, the rounding error of a count depends on where the count lies between two codes. With an offset that
differs from pixel to pixel and is known to the decoder, the error depends on the pixel instead, and the errors of many
pixels average to zero at every intensity: subtractive dither (Schuchman 1964, IEEE Trans. Commun. Technol. 12:162).
The transform adds these offsets to its signal. The entropy coder knows them, so it predicts codes better.

The pattern is part of two formats (``docs/spec/anscombe.md``, ``docs/spec/rans.md``) and never changes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: Number of different offsets.
LEVELS = 64

#: Pixels after which the pattern repeats: a prime that divides no frame size, so that it shifts between frames.
PERIOD = 4093

#: Consecutive counts that share an offset in the portable profile: as many 16-bit counts as a 128 KiB block of Zstd.
BLOCK = 1 << 16


def block_level(number: int) -> int:
    """Return the level of a block of the portable profile: all 64 in turn, with consecutive levels far apart."""
    return 39 * number % LEVELS


@lru_cache(maxsize=1)
def offset_levels() -> npt.NDArray[np.int32]:
    """Return the level of each position: ``64 * (i**5 mod 4093) // 4093`` for ``i`` from 0 to 4092; read-only.

    The fifth power takes every residue once (5 and 4092 have no common divisor), so all levels are equally frequent,
    and neighbouring levels are unrelated.
    """
    levels = np.array([LEVELS * pow(i, 5, PERIOD) // PERIOD for i in range(PERIOD)], np.int32)
    levels.flags.writeable = False
    return levels


def offset(level: Any) -> Any:
    """Return the offset of a level [codes]: from -63/128 to 63/128, exactly."""
    return (2 * level + 1) / (2 * LEVELS) - 0.5
