"""The numbers of the context model: what is the same for every chunk, and what its header chooses.

A pixel's code is predicted from the past codes of the pixel and of its neighbours. All arithmetic is on integers
with ``FRACTION_BITS`` binary places, so that every machine predicts alike (``docs/spec/rans.md``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _dither

#: Binary places of a mean.
FRACTION_BITS = 10

#: Binary places of a weight.
WEIGHT_BITS = 8

#: A frequency is so many 4096ths.
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS

#: Pixels of a row take turns on so many states.
LANES = 8

#: A state is at least this between two pixels, and this before the first.
STATE_LOW = 1 << 16

#: The highest level that is predicted; a code above it is an escape.
MAX_TOP = 4095

#: Contexts in one phase, and frequency tables in a chunk, at most.
MAX_CONTEXTS = 4096
MAX_TABLES = 256

#: A symbol is the difference to the prediction plus this; 0 is an escape.
SYMBOL_ZERO = 128
SYMBOLS = 256

#: Phases have contexts of their own: the first frame, the next three, the rest.
PHASES = 3


class Model(NamedTuple):
    """What the header of a chunk says of its predictions.

    Attributes
    ----------
    low_bits
        Lowest bits of the codes that are stored as they are.
    blend
        Frames that the neighbours' means count for beside the pixel's own.
    window
        Frames after which a mean follows exponentially.
    context_shift
        Binary places that a prediction loses to become a context.
    start
        The level that the first row is predicted with.
    top
        The highest level that is predicted.
    base
        The code of level 0.
    dithered
        Whether the codes are taken to have been dithered: then the offset of each pixel is added to its prediction.
    """

    low_bits: int
    blend: int
    window: int
    context_shift: int
    start: int
    top: int
    base: int
    dithered: bool = False

    @property
    def contexts(self) -> int:
        """Contexts in one phase."""
        return ((self.top << FRACTION_BITS) >> self.context_shift) + 1


def phase(frame: int) -> int:
    """The phase of a frame, from 0."""
    return 0 if frame == 0 else 1 if frame < 4 else 2


def own_weight(frame: int, blend: int, window: int) -> int:
    """Weight of a pixel's own mean beside its neighbours', after ``frame`` frames [1/256]."""
    seen = min(frame, window)
    return (seen << WEIGHT_BITS) // (seen + blend) if seen else 0


def rate(frame: int, window: int) -> int:
    """Weight of the newest code in a pixel's mean [1/256]."""
    return (1 << WEIGHT_BITS) // (min(frame, window) + 1)


def offset_pattern(dithered: bool, columns: int) -> npt.NDArray[np.int32]:
    """The dither's offsets [1/1024 of a level], with a row beyond their period; zeros where codes are not dithered."""
    if not dithered:
        return np.zeros(_dither.PERIOD + columns, np.int32)
    offsets = _dither.offset(_dither.offset_levels()) * (1 << FRACTION_BITS)
    return np.resize(offsets, _dither.PERIOD + columns).astype(np.int32)


def pattern_starts(frames: npt.NDArray[np.uint32], pixels: int, first: int = 0) -> npt.NDArray[np.uint16]:
    """Where in the pattern each of the frames begins.

    Parameters
    ----------
    frames
        Their numbers in the chunk.
    pixels
        Of a frame.
    first
        The pixel, within each frame, that is taken for its first.
    """
    period = np.uint32(_dither.PERIOD)  # its square has 24 bits
    starts = frames % period * np.uint32(pixels % _dither.PERIOD) + np.uint32(first % _dither.PERIOD)
    return (starts % period).astype(np.uint16)
