"""Measure how much noise rounding adds, on the movie's own frames, before the first byte is written.

The promise: in every range of brightness and in every region, rounding adds at most 1.25 times step^2/12 of the
variance measured there. A noise model that breaks the promise is lowered until it keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from .._typing import AnyArray
from .._warn import warn
from ..calibration import Calibration
from ..calibration.parts import Parts
from ..errors import CalibrationWarning

#: Most variance that rounding may add, in units of step^2/12 of the measured variance.
PROMISED = 1.25
#: How often the model is lowered at most, and the weakest factor.
_TRIES, _LEAST = 6, 0.9
#: A zero level with at least this standard error counts as not measured [photons].
_OPEN = 0.3

#: A given gain is warned about if it is too large by the first factor, or too small by the second. The second is
#: larger because moving structure looks like additional noise.
_CONTRADICTED, _FAR = 1.4, 2.0

Storing = Callable[[Calibration], Callable[[AnyArray], AnyArray]]


def settled(calibration: Calibration, parts: Parts | None, lowest: float) -> Calibration:
    """Complete a given calibration with what the user left out: zero level, saturation, constant under the root.

    ``lowest`` is the lowest count of the movie. Warns (CalibrationWarning) if the movie does not show its zero level,
    or if its noise contradicts the calibration.
    """
    if calibration.method != "given" or not math.isnan(calibration.added_noise):
        return calibration
    gain, zero = calibration.conversion_gain, calibration.zero_level
    if math.isnan(zero):
        zero, error = (math.nan, math.inf) if parts is None else parts.zero_level(gain)
        if not error < _OPEN * gain:
            zero = lowest
            warn(
                f"the conversion gain {gain:g} was given without a zero level, and the movie does not show it: the "
                f"lowest count, {zero:g}, is used. Give zero_level, the count without light",
                CalibrationWarning,
            )
        calibration = replace(calibration, zero_level=zero)
    if parts is None:
        return calibration
    found = parts.effective_gain(zero)
    if found is not None and not 1 / _CONTRADICTED < found / gain < _FAR:
        what = "more noise is discarded than promised" if found < gain else "the movie takes more space than necessary"
        warn(
            f"the given conversion gain is {gain:g} ADU/photon at zero level {zero:g}, but the movie's noise shows "
            f"{found:.4g}: the given numbers are used, and {what}. Check both numbers, or leave them out",
            CalibrationWarning,
        )
    return replace(
        calibration,
        under_root=parts.under_root(gain, zero),
        saturation=parts.saturation if calibration.saturation is None else calibration.saturation,
    )


def kept(calibration: Calibration, parts: Parts | None, step: float, storing: Storing) -> Calibration | None:
    """Return the calibration with which rounding keeps the promise, and its ``added_noise``; None if there is none.

    Parameters
    ----------
    calibration
        The noise model. A given one is not lowered.
    parts
        A sample of the movie; None if the movie is too small.
    step
        Quantisation step [noise standard deviations].
    storing
        Returns the function that rounds counts as they would be stored with a calibration.
    """
    if parts is None:
        return calibration
    for _ in range(_TRIES):
        added = parts.added(storing(calibration), step)
        if added <= PROMISED or calibration.method == "given":
            return replace(calibration, added_noise=float(f"{added:.4g}"))
        noise = calibration.storage_noise
        factor = min(_LEAST, PROMISED / added)
        calibration = replace(
            calibration, storage_gain=factor * noise.conversion_gain, storage_zero_level=noise.zero_level
        )
    return None
