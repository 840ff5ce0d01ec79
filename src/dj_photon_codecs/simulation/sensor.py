"""The image sensor: from photons to counts, with the noise of a camera or a photomultiplier."""

from __future__ import annotations

import numpy as np

from .._typing import AnyArray, FloatArray
from ..calibration import Calibration
from .draws import Stream
from .spec import Spec
from .steps import Sensor


def count_dtype(step: Sensor) -> np.dtype[np.unsignedinteger]:
    """The smallest unsigned integer type for the converter's range."""
    return np.dtype(np.uint8) if step.bit_depth <= 8 else np.dtype(np.uint16)


def expose(photons: FloatArray, spec: Spec, frame: int) -> AnyArray:
    """Counts (height, width) of one frame from its expected photons, with this frame's own random numbers.

    Electrons are Poisson with mean quantum efficiency times photons. A multiplication with excess noise factor F gives
    each a charge of mean 1 and variance F - 1: gamma-distributed, as the pulse heights of photomultipliers are (the
    Polya law: J. R. Prescott, Nuclear Instruments and Methods 39 (1966), 173-179), so that n of them are gamma of shape
    n / (F - 1). Read noise, gain, pedestal, rounding to whole counts and the converter's range follow.
    """
    step = spec.sensor
    stream = Stream(spec.seed, step.kind, step.noise_seed, frame)
    charge = stream.poisson(photons * step.quantum_efficiency)
    if step.excess_noise_factor > 1:
        spread = step.excess_noise_factor - 1
        charge = stream.gamma(charge / spread) * spread
    if step.full_well_e is not None:
        charge = np.minimum(charge, step.full_well_e)
    if step.read_noise_e:
        charge = charge + step.read_noise_e * stream.normal(*charge.shape)
    counts = np.rint(charge * step.conversion_gain_adu + step.pedestal_adu)
    return np.clip(counts, 0, 2.0**step.bit_depth - 1).astype(count_dtype(step))


def true_calibration(step: Sensor) -> Calibration:
    """The exact noise model of the sensor's counts, as the codec uses it: variance against mean of counts.

    With electrons n, gain g, excess noise factor F, read noise r and pedestal p: mean = g n + p and variance =
    g^2 F n + g^2 r^2 = g F (mean - zero_level), with zero_level = p - g r^2 / F. So the conversion gain of the model is
    g F, the counts per electron times the excess noise factor. Rounding to whole counts is not included: it adds up to
    1/12 ADU^2 where the noise is wider than a count, and nothing where counts are photons.
    """
    gain, factor = step.conversion_gain_adu, step.excess_noise_factor
    return Calibration.given(gain * factor, step.pedestal_adu - gain * step.read_noise_e * step.read_noise_e / factor)
