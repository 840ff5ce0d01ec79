"""The noise model of a movie, as the rest of the package and the database see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args

from .._typing import Json
from ..errors import CalibrationError

#: How a noise model was got: measured, told by the user, or not at all.
Method = Literal["photon-transfer", "given", "none"]
#: One point of the photon transfer curve: mean [ADU], variance [ADU^2], number of pixel differences.
CurvePoint = tuple[float, float, int]


def _finite(value: object, name: str, remedy: str, *, positive: bool = False) -> float:
    """``value`` as a finite float, or an error that says what it should have been."""
    allowed = "a finite number above 0" if positive else "a finite number"
    try:
        number = float(cast(float, value))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (positive and number <= 0) or isinstance(value, (bool, str, bytes)):
        raise CalibrationError(f"Calibration: {name} is {value!r}, must be {allowed}; {remedy}")
    return number


@dataclass(frozen=True)
class Calibration:
    """Noise of a movie: sigma^2 = conversion_gain * (x - zero_level), measured or given.

    Attributes
    ----------
    conversion_gain
        Variance per mean [ADU per photon]. With the excess noise of a photomultiplier it is larger than the mean
        response to a photon, and is then the right number for a noise model. NaN when unknown; where it was measured
        but is not reliable, what was measured, for those who can judge the reason.
    zero_level
        Where the variance reaches 0 [ADU]: the pedestal less conversion_gain * (read noise in photons)^2. NaN when
        unknown.
    reliable
        Whether the movie supports this noise model. If not, nothing may be discarded on its account.
    reason
        Why it is not reliable, with numbers and the way out; empty if it is.
    method
        "photon-transfer" (measured), "given" (by the user) or "none".
    gain_error
        Standard error of the gain divided by the gain; NaN when unknown. 0 for a given one.
    curve
        The photon transfer curve: at most 64 points (mean [ADU], variance [ADU^2], number of pixel differences).
    """

    conversion_gain: float
    zero_level: float
    reliable: bool
    reason: str = ""
    method: Method = "photon-transfer"
    gain_error: float = math.nan
    curve: tuple[CurvePoint, ...] = ()

    @classmethod
    def given(cls, conversion_gain: float, zero_level: float = 0.0) -> Self:
        """A noise model that the user knows, for instance from the sensor's data sheet.

        Parameters
        ----------
        conversion_gain
            [ADU per photon], a finite number above 0.
        zero_level
            [ADU], finite; a pedestal less conversion_gain * (read noise in photons)^2.

        Raises
        ------
        CalibrationError
            For anything else.
        """
        return cls(
            _finite(
                conversion_gain,
                "conversion_gain [ADU per photon]",
                "take it from the sensor's data sheet or from calibrate(movie)",
                positive=True,
            ),
            _finite(zero_level, "zero_level [ADU]", "it is the count without light, 0 if there is no pedestal"),
            reliable=True,
            method="given",
            gain_error=0.0,
        )

    @classmethod
    def unknown(cls, reason: str, curve: tuple[CurvePoint, ...] = ()) -> Self:
        """No noise model, and why."""
        return cls(math.nan, math.nan, reliable=False, reason=reason, method="none", curve=curve)

    def _key(self) -> tuple[object, ...]:
        """What two equal calibrations share; NaN counts as equal to NaN."""
        numbers = (self.conversion_gain, self.zero_level, self.gain_error)
        known = tuple(None if math.isnan(number) else number for number in numbers)
        return (*known, self.reliable, self.reason, self.method, self.curve)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Calibration) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def to_dict(self) -> Json:
        """The calibration as strict JSON: None stands for an unknown number."""
        return {
            "conversion_gain": _or_none(self.conversion_gain),
            "zero_level": _or_none(self.zero_level),
            "reliable": self.reliable,
            "reason": self.reason,
            "method": self.method,
            "gain_error": _or_none(self.gain_error),
            "curve": [list(point) for point in self.curve],
        }

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        """Inverse of :meth:`to_dict`; keys that a later version added are left aside.

        Raises
        ------
        CalibrationError
            When a key is missing, or a value is not what :meth:`to_dict` writes.
        """
        try:
            if values["method"] not in get_args(Method):
                raise ValueError(f"method {values['method']!r} is none of {get_args(Method)}")
            if not isinstance(values["reliable"], bool):
                raise TypeError(f"reliable is {values['reliable']!r}, neither true nor false")
            calibration = cls(
                _or_nan(values["conversion_gain"]),
                _or_nan(values["zero_level"]),
                values["reliable"],
                str(values["reason"]),
                values["method"],
                _or_nan(values["gain_error"]),
                tuple((float(mean), float(variance), int(n)) for mean, variance, n in values["curve"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(
                f"Calibration.from_dict: {type(error).__name__}: {error}; expected what Calibration.to_dict writes"
            ) from error
        if calibration.reliable:
            _finite(calibration.conversion_gain, "conversion_gain of a reliable calibration", _REREAD, positive=True)
            _finite(calibration.zero_level, "zero_level of a reliable calibration", _REREAD)
        return calibration


_REREAD = "the record was altered or written by something else: calibrate the movie again"


def _or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _or_nan(number: Any) -> float:
    if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
        raise TypeError(f"{number!r:.100} is no number")
    return math.nan if number is None else float(number)
