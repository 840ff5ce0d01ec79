"""Aliases for arrays and options, so that signatures read as sentences."""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]
Json = dict[str, Any]
ZarrFormat = Literal[2, 3]


class Box(NamedTuple):
    """The part of a chunk to decode: its first frames, and rows from ``first_row`` up to but not ``last_row``."""

    frames: int
    first_row: int
    last_row: int

    def covers(self, other: "Box") -> bool:
        """Whether the other box lies inside this one."""
        inside = self.first_row <= other.first_row and other.last_row <= self.last_row
        return inside and other.frames <= self.frames
