"""What decides the codes of a movie: its noise model, the step, and the dtypes. Checked once, where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import CalibrationError, ConfigurationError


@dataclass(frozen=True)
class TransformParameters:
    """What decides every code: the noise model, the step, and the two dtypes.

    Attributes
    ----------
    conversion_gain
        Counts per photon [ADU/photon], finite and above 0.
    zero_level
        Counts at no light [ADU], of either sign.
    step
        Quantisation in noise standard deviations, above 0.
    encoded_dtype
        Integer dtype of the codes.
    decoded_dtype
        Dtype of the counts. An integer dtype gives whole numbers, also to floating-point arrays
        that hold whole numbers only; a floating-point dtype gives real ones.

    Raises
    ------
    CalibrationError
        For a gain that is not a finite number above 0, or a zero level that is not finite.
    ConfigurationError
        For a step that is not a finite number above 0, or dtypes that cannot hold codes or counts.
    """

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "uint16"
    step: float = 0.5

    def __post_init__(self) -> None:
        gain = _finite_number(self.conversion_gain)
        if gain is None or gain <= 0:
            raise CalibrationError(
                f"conversion_gain must be a finite number above 0 [ADU per photon], got {self.conversion_gain!r}: "
                "measure it with calibrate(movie), or store the movie losslessly"
            )
        zero = _finite_number(self.zero_level)
        if zero is None:
            raise CalibrationError(
                f"zero_level must be a finite number [ADU], got {self.zero_level!r}: measure it with calibrate(movie)"
            )
        step = _finite_number(self.step)
        if step is None or step <= 0:
            raise ConfigurationError(
                f"step must be a finite number above 0 [noise standard deviations], got {self.step!r}: "
                "0.5 costs 2 % of variance; for no loss use the lossless profile"
            )
        object.__setattr__(self, "conversion_gain", gain)
        object.__setattr__(self, "zero_level", zero)
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "encoded_dtype", _dtype_name(self.encoded_dtype, "encoded_dtype", "ui"))
        object.__setattr__(self, "decoded_dtype", _dtype_name(self.decoded_dtype, "decoded_dtype", "uif"))


def _finite_number(value: object) -> float | None:
    """``value`` as a float, or None when it is not a finite real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _dtype_name(dtype: npt.DTypeLike, argument: str, kinds: str) -> str:
    """The name of a native dtype of one of the ``kinds``; the way out where it is none."""
    try:
        parsed = np.dtype(dtype)
    except TypeError as error:
        raise ConfigurationError(f"{argument}={dtype!r} is not a dtype") from error
    if parsed.kind not in kinds or parsed.itemsize > 8:
        allowed = "an integer dtype" if kinds == "ui" else "an integer or floating-point dtype of at most 64 bits"
        raise ConfigurationError(f"{argument} must be {allowed}, got {parsed}")
    return parsed.name
