"""What the microscope does to the light, fixed to the field of view: excitation profile, vignette, leakage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .._typing import FloatArray
from .arithmetic import exp, power
from .scene import Layer, Scene
from .steps import IlluminationProfile, Leakage, Vignette


def _distance(scene: Scene, offset_y: float = 0.0, offset_x: float = 0.0) -> FloatArray:
    """Distance of each pixel from a centre, 1 in the corners of a centred field of view."""
    height, width = scene.fov_shape
    y = np.arange(height) - ((height - 1) / 2 + offset_y)
    x = np.arange(width) - ((width - 1) / 2 + offset_x)
    corner = ((height - 1) / 2) * ((height - 1) / 2) + ((width - 1) / 2) * ((width - 1) / 2)
    return np.sqrt(((y * y)[:, None] + (x * x)[None, :]) / corner)


def _falloff(scene: Scene, step: IlluminationProfile | Vignette) -> FloatArray:
    """1 at the centre, ``edge`` at the distance of the corners, never below 0."""
    distance = _distance(scene, step.center_offset_y_px, step.center_offset_x_px)
    return np.maximum(1 - (1 - step.edge) * power(distance, step.exponent), 0.0)


def illumination_profile(scene: Scene, step: IlluminationProfile) -> Scene:
    """Excite the field of view unevenly."""
    factor = _falloff(scene, step)
    return replace(scene, illumination=factor).add(Layer.multiplied(step.kind, factor))


def vignette(scene: Scene, step: Vignette) -> Scene:
    """Lose light towards the corners."""
    factor = _falloff(scene, step)
    return replace(scene, vignette=factor).add(Layer.multiplied(step.kind, factor))


def leakage(scene: Scene, step: Leakage) -> Scene:
    """Add light that never met the tissue."""
    if step.profile == "flat":
        light = np.full(scene.fov_shape, step.photons)
    else:
        ratio = _distance(scene) / step.sigma_fraction
        light = step.photons * exp(-0.5 * ratio * ratio)
    return replace(scene, leakage=light).add(Layer.added(step.kind, light))
