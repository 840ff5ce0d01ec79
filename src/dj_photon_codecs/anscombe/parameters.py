"""Parameters of the transform: noise model, step, dither, saturation and dtypes, validated on construction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import FloatArray
from ..errors import CalibrationError, ConfigurationError

#: Name of the codec in Zarr V3 and V2 metadata; it also names the package to install. A name never changes its format.
CODEC_NAME = "dj_photon_codecs.anscombe"

#: Default and upper limit of ``under_root``: the 3/8 of Anscombe (1948).
UNDER_ROOT = 0.375

#: Sources of the offset that is added before rounding: none, or the place in the chunk.
DITHERS = ("none", "position")


@dataclass(frozen=True)
class TransformParameters:
    """All parameters of the transform; :class:`~dj_photon_codecs.AnscombeTransformV2` documents them.

    With an integer ``decoded_dtype``, counts are whole numbers, even in a floating-point array. Raises CalibrationError
    or ConfigurationError if a parameter is out of range.
    """

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "uint16"
    step: float = 0.5
    dither: str = "none"
    under_root: float = UNDER_ROOT
    saturation: float | None = None

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
        if self.dither not in DITHERS:
            raise ConfigurationError(f"dither must be one of {', '.join(DITHERS)}, got {self.dither!r}")
        under_root = _finite_number(self.under_root)
        if under_root is None or not 0 < under_root <= UNDER_ROOT:
            raise CalibrationError(
                f"under_root must be a number above 0 and at most {UNDER_ROOT:g} [photons], got {self.under_root!r}: "
                "leave it out unless dark pixels have less noise than that"
            )
        vars(self).update(
            zero_level=zero,
            conversion_gain=gain,
            encoded_dtype=_dtype_name(self.encoded_dtype, "encoded_dtype", "ui"),
            decoded_dtype=_dtype_name(self.decoded_dtype, "decoded_dtype", "uif"),
            step=step,
            under_root=under_root,
        )
        if self.saturation is not None:
            saturation = _finite_number(self.saturation)
            if saturation is None or (self.whole and not saturation.is_integer()):
                kind = "a whole number" if self.whole else "a finite number"
                raise CalibrationError(
                    f"saturation must be {kind} [ADU] for {self.decoded_dtype} counts, or None, "
                    f"got {self.saturation!r}: it is the highest count that the converter gives"
                )
            vars(self).update(saturation=saturation)

    @cached_property
    def dithered(self) -> bool:
        """True if an offset is added before rounding."""
        return self.dither != "none"

    @cached_property
    def whole(self) -> bool:
        """True if counts are whole numbers."""
        return np.dtype(self.decoded_dtype).kind in "ui"

    def sigma(self, counts: npt.ArrayLike) -> FloatArray:
        """Return the modelled noise [ADU] of counts: ``gain * sqrt(max(photons, 0) + under_root)``."""
        with np.errstate(over="ignore"):
            photons = (np.asarray(counts, np.float64) - self.zero_level) / self.conversion_gain
            return np.asarray(self.conversion_gain * np.sqrt(np.maximum(photons, 0.0) + self.under_root))


#: Keys of the codec's configuration on disk.
KEYS = tuple(field.name for field in fields(TransformParameters))


def check_keys(configuration: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for unknown or missing keys, as the specification requires."""
    unknown, missing = sorted(set(configuration) - set(KEYS)), sorted(set(KEYS) - set(configuration))
    if unknown or missing:
        raise ConfigurationError(
            f"not a valid configuration of {CODEC_NAME}: unknown keys {unknown}, missing keys {missing}; "
            f"it has {', '.join(KEYS)}"
        )


def _finite_number(value: object) -> float | None:
    """Return ``value`` as a float, or None if it is not a finite real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _dtype_name(dtype: npt.DTypeLike, argument: str, kinds: str) -> str:
    """Return the name of a dtype; raise ConfigurationError unless it is one of ``kinds`` and at most 64-bit."""
    try:
        if not isinstance(dtype, str | type | np.dtype):
            raise TypeError("not a name")  # numpy would build structured dtypes from dicts and lists
        parsed = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigurationError(f"{argument}={dtype!r} is not a dtype") from error
    if parsed.kind not in kinds or parsed.itemsize > 8:
        allowed = "an integer dtype" if kinds == "ui" else "an integer or floating-point dtype of at most 64 bits"
        raise ConfigurationError(f"{argument} must be {allowed}, got {parsed}")
    return parsed.name
