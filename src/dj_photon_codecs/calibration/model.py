"""The noise model of a movie, used by the rest of the package and stored in the database."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from textwrap import shorten
from typing import Any, Literal, NamedTuple, Self, cast, get_args

import numpy as np

from .._typing import AnyArray, FloatArray, Json
from ..errors import CalibrationError

#: Origin of the noise model: measured, given by the user, or none.
Method = Literal["photon-transfer", "given", "none"]
#: Reliability of a noise model.
Verdict = Literal["measured", "bounded", "unknown"]
#: Fields set when a movie is stored. Equality ignores them.
_OF_STORAGE = {"under_root", "saturation", "storage_gain", "storage_zero_level", "added_noise"}
#: One point of the photon transfer curve: mean [ADU], variance [ADU^2], standard error of the variance [ADU^2].
CurvePoint = tuple[float, float, float]

#: The constant of the Anscombe transform, and the largest constant that storage puts under its root [photons].
ANSCOMBE = 3 / 8


class StorageNoise(NamedTuple):
    """The noise that storage assumes: variance = gain * max(x - zero_level, 0) + gain^2 * under_root.

    Attributes
    ----------
    conversion_gain, zero_level
        [ADU per photon], [ADU].
    under_root
        Constant under the root, above 0 and at most 3/8 [photons].
    saturation
        Count that is stored exactly and that no stored count exceeds [ADU]; None if there is none.
    """

    conversion_gain: float
    zero_level: float
    under_root: float
    saturation: float | None

    def variance(self, counts: AnyArray) -> FloatArray:
        """Variance that storage assumes at ``counts`` [ADU^2]."""
        gain = self.conversion_gain
        return np.asarray(gain * np.maximum(counts - self.zero_level, 0.0) + gain * gain * self.under_root)


@dataclass(frozen=True)
class Calibration:
    """The noise of a movie, measured or given: variance = conversion_gain * (mean - zero_level).

    Attributes
    ----------
    conversion_gain
        Slope of variance against mean [ADU per photon]; NaN if unknown. The excess noise of a photomultiplier makes it
        larger than the mean response to a photon, which is correct for a noise model. If the verdict is not
        "measured", this is the estimate that was rejected; judge it by ``reason``.
    zero_level
        Mean at which the variance reaches 0 [ADU]: the pedestal less conversion_gain * (read noise in photons)^2. NaN
        if unknown.
    verdict
        "measured": variance against mean is one line, everywhere and always, and ``conversion_gain`` is its slope.
        "bounded": a lower bound of the noise is known. That is enough to store the movie, but not to count photons.
        "unknown": there is no noise model, and nothing may be discarded.
    reason
        Why the verdict is not "measured", with numbers and the remedy; empty if it is.
    method
        "photon-transfer" (measured), "given" (by the user) or "none".
    gain_error
        Standard error of the gain divided by the gain; NaN if the gain is not known, 0 for a given one.
    curve
        The photon transfer curve: at most 64 points (mean [ADU], variance [ADU^2], its standard error [ADU^2]).
    under_root
        Constant that storage uses under the root of the Anscombe transform [photons]: 3/8, or less if the darkest
        pixels have less noise than that.
    saturation
        Top value of the converter [ADU]; None if the movie does not show it.
    storage_gain, storage_zero_level
        Lower envelope of the noise, used for storage; None if it equals ``conversion_gain`` and ``zero_level``.
    region_spread, time_spread
        Relative scatter of the noise at equal brightness over the field of view and over time, in excess of chance.
    correlation
        Noise correlation with the next pixel along the line, with the next line, and with the next frame.
    added_noise
        Largest variance that rounding added in any part of a sample of the movie, in units of the promised
        step^2/12 of the measured noise; NaN before the movie is stored.
    """

    conversion_gain: float
    zero_level: float
    verdict: Verdict
    reason: str = ""
    method: Method = "photon-transfer"
    gain_error: float = math.nan
    curve: tuple[CurvePoint, ...] = ()
    under_root: float = ANSCOMBE
    saturation: float | None = None
    storage_gain: float | None = None
    storage_zero_level: float | None = None
    region_spread: float = math.nan
    time_spread: float = math.nan
    correlation: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    added_noise: float = math.nan

    @property
    def reliable(self) -> bool:
        """Whether the gain can be trusted as counts per photon, because it was measured or given."""
        return self.verdict == "measured"

    @property
    def storage_noise(self) -> StorageNoise:
        """The noise that storage assumes.

        Raises
        ------
        CalibrationError
            If the noise is unknown.
        """
        if self.verdict == "unknown":
            raise CalibrationError(f"there is no noise model: {self.reason}")
        gain = self.conversion_gain if self.storage_gain is None else self.storage_gain
        zero = self.zero_level if self.storage_zero_level is None else self.storage_zero_level
        return StorageNoise(gain, zero, self.under_root, self.saturation)

    @classmethod
    def given(cls, conversion_gain: float, zero_level: float | None = None) -> Self:
        """Create a noise model from known values, for instance from the sensor's data sheet.

        Parameters
        ----------
        conversion_gain
            Finite number above 0 [ADU per photon].
        zero_level
            Pedestal less conversion_gain * (read noise in photons)^2, finite [ADU]. If None, it is NaN here and is
            measured when a movie is stored.

        Raises
        ------
        CalibrationError
            If a value is not a number, or out of range.
        """
        remedy = "take it from the sensor's data sheet or from calibrate(movie)"
        gain = _finite(conversion_gain, "conversion_gain [ADU per photon]", remedy, positive=True)
        zero = math.nan
        if zero_level is not None:
            zero = _finite(zero_level, "zero_level [ADU]", "it is the count without light")
        return cls(gain, zero, "measured", method="given", gain_error=0.0)

    @classmethod
    def unknown(cls, reason: str, curve: tuple[CurvePoint, ...] = (), saturation: float | None = None) -> Self:
        """Create a calibration without a noise model, with the reason."""
        return cls(math.nan, math.nan, "unknown", reason, "none", curve=curve, saturation=saturation)

    def __repr__(self) -> str:
        shown = [f"{self.verdict!r}", f"method={self.method!r}"]
        for name in ("conversion_gain", "zero_level", "gain_error", "storage_gain", "storage_zero_level", "saturation"):
            value = getattr(self, name)
            if value is not None and math.isfinite(value):
                shown.append(f"{name}={value:.4g}")
        if self.reason:
            shown.append(f"reason={shorten(self.reason, 120, placeholder='...')!r}")
        return f"Calibration({', '.join(shown)})"

    def _key(self) -> str:
        """Serialised fields that equality compares: all except those set by storage."""
        known = {name: value for name, value in self.to_dict().items() if name not in _OF_STORAGE}
        return json.dumps(known, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Calibration) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def to_dict(self) -> Json:
        """Return the calibration as strict JSON values; None stands for NaN."""
        return {field.name: _strict(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        """Rebuild a calibration from :meth:`to_dict`; keys added by later versions are ignored.

        Raises
        ------
        CalibrationError
            If a key is missing, or a value is not one that :meth:`to_dict` writes.
        """
        try:
            known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
            for name, allowed in (("method", Method), ("verdict", Verdict)):
                if known[name] not in get_args(allowed):
                    raise ValueError(f"{name} {known[name]!r} is none of {get_args(allowed)}")
            for field in fields(cls):
                if field.name not in ("verdict", "reason", "method", "curve", "correlation"):
                    known[field.name] = _number(known[field.name], None if field.default is None else math.nan)
            along, across, frames = (_number(share, math.nan) for share in known["correlation"])
            known["correlation"], known["reason"] = (along, across, frames), str(known["reason"])
            known["curve"] = tuple((float(mean), float(var), float(error)) for mean, var, error in known["curve"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(
                f"Calibration.from_dict: {type(error).__name__}: {error}; expected what Calibration.to_dict writes"
            ) from error
        calibration = cls(**known)
        if calibration.verdict != "unknown":
            calibration._check()
        return calibration

    def _check(self) -> None:
        """Raise CalibrationError if :func:`calibrate` cannot have produced this noise model."""
        remedy = "the record was altered or written by something else: calibrate the movie again"
        noise = self.storage_noise
        for number in (number for point in self.curve for number in point):
            _finite(number, "a point of the curve", remedy)
        _finite(noise.conversion_gain, "conversion_gain of a known noise model", remedy, positive=True)
        _finite(noise.under_root, "under_root of a known noise model", remedy, positive=True)
        _finite(noise.zero_level, "zero_level of a known noise model", remedy)
        if noise.under_root > ANSCOMBE:
            raise CalibrationError(f"Calibration: under_root is {noise.under_root}, must be at most 3/8; {remedy}")


def _finite(value: object, name: str, remedy: str, *, positive: bool = False) -> float:
    """Return ``value`` as a finite float, or raise CalibrationError with the allowed range and the remedy."""
    try:
        number = float(cast(float, value))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (positive and number <= 0) or isinstance(value, bool | str | bytes):
        allowed = "a finite number above 0" if positive else "a finite number"
        raise CalibrationError(f"Calibration: {name} is {value!r}, must be {allowed}; {remedy}")
    return number


def _strict(value: Any) -> Any:
    """Convert to strict JSON: lists for tuples, None for NaN and infinity."""
    if isinstance(value, tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _number(value: Any, missing: float | None) -> float | None:
    """Return a JSON number as float; ``missing`` for None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{value!r:.100} is no number")
    return missing if value is None else float(value)
