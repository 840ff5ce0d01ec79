"""Aliases for arrays and options, so that signatures read as sentences."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer[Any]]
Json = dict[str, Any]
ZarrFormat = Literal[2, 3]
