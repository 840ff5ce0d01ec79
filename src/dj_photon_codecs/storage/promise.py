"""What rounding adds to the noise, measured on the movie's own frames before the first byte is written.

The promise: in every range of brightness and in every region, rounding adds at most a quarter more than step^2/12 of
the variance that was measured there. Where the model of the noise does not keep it, it is lowered until it does.
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

#: The promise, in units of step^2/12 of the measured noise.
PROMISED = 1.25
#: How often the model is lowered, and by how much the least.
_TRIES, _LEAST = 6, 0.9
#: Standard error of a zero level that is no answer any more [photons].
_OPEN = 0.3

#: A given gain that many times too large is warned about, and one that many times too small, which structure that
#: moves may look like.
_CONTRADICTED, _FAR = 1.4, 2.0

Storing = Callable[[Calibration], Callable[[AnyArray], AnyArray]]


def settled(calibration: Calibration, parts: Parts | None, lowest: float) -> Calibration:
    """A given calibration with what the user left open: zero level, saturation, and what goes under the root.

    ``lowest`` is the lowest count of the movie.

    Warns
    -----
    CalibrationWarning
        When the movie does not show its zero level, or its noise contradicts the calibration.
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
                f"lowest count, {zero:g}, is taken. Give zero_level, the count without light",
                CalibrationWarning,
            )
        calibration = replace(calibration, zero_level=zero)
    if parts is None:
        return calibration
    found = parts.effective_gain(zero)
    if found is not None and not 1 / _CONTRADICTED < found / gain < _FAR:
        what = "more noise is discarded than promised" if found < gain else "the movie is stored larger than need be"
        warn(
            f"the given conversion gain is {gain:g} ADU/photon at zero level {zero:g}, the movie's own noise has "
            f"{found:.4g} there: what was given is used, and {what}. Check both numbers, or leave them out",
            CalibrationWarning,
        )
    return replace(
        calibration,
        under_root=parts.under_root(gain, zero),
        saturation=parts.saturation if calibration.saturation is None else calibration.saturation,
    )


def kept(calibration: Calibration, parts: Parts | None, step: float, storing: Storing) -> Calibration | None:
    """The calibration under which storing keeps the promise, with the figure; None when there is none.

    Parameters
    ----------
    calibration
        The noise model. One that the user gave is not lowered.
    parts
        A sample of the movie; None where it is too small.
    step
        Quantisation in noise standard deviations.
    storing
        Gives, for a calibration, what gives the counts that come back for counts.
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
