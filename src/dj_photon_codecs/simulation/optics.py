"""The microscope: blur and dimming of cells with depth, uneven illumination and collection, leakage.

With h the distance from the focal plane, n the refractive index, NA = n sin(alpha) the aperture and z the depth:

- in focus, the Gaussian width of a point is 0.21 emission / NA (B. Zhang, J. Zerubia, J.-C. Olivo-Marin, Gaussian
  approximations of fluorescence microscope point-spread function models, Applied Optics 46 (2007), 1819-1829);
- defocus spreads it over a disc of radius |h| tan(alpha), whose standard deviation along an axis is half of that;
- scatter adds scatter_blur_per_um * z, all three in quadrature;
- unscattered light falls as exp(-z / scatter_length) (Beer and Lambert); with two photons it is the excitation that
  falls, and the signal goes with its square;
- with two photons, the signal of a plane h from the focus of a Gaussian beam falls as 1 / (1 + (h / z_R)^2), the
  integral of the squared intensity over the plane (W. R. Zipfel, R. M. Williams, W. W. Webb, Nature Biotechnology 21
  (2003), 1369-1377); z_R is half of the depth of field.

The depth of field is emission * n / NA^2 (diffraction) plus, for "auto", the 2 r / tan(alpha) within which the disc of
defocus stays inside a soma of radius r; with two photons there is no such blur, and it is that of diffraction plus 2 r.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import FloatArray
from .arithmetic import exp, power, total
from .scene import Layer, Scene
from .steps import CellOptics, IlluminationProfile, Leakage, Vignette

#: Gaussian width of a point in focus, in units of wavelength / numerical aperture.
SPOT_WIDTH = 0.21
#: Number of depths that "auto" focus tries.
_FOCUS_TRIALS = 129


def cell_optics(scene: Scene, step: CellOptics) -> Scene:
    """Blur width, fraction of light left, and focus, for each cell."""
    depth = scene.centers_um[:, 0]
    two_photon = step.excitation == "two_photon"
    aperture, index = step.numerical_aperture, step.refractive_index
    tangent = aperture / math.sqrt(index * index - aperture * aperture)
    emission_um = step.emission_nm * 1e-3
    if step.depth_of_field_um == "auto":
        diffraction = emission_um * index / (aperture * aperture)
        depth_of_field = diffraction + 2 * scene.soma_radius_um / (1.0 if two_photon else tangent)
    else:
        depth_of_field = step.depth_of_field_um
    passed = exp(-(2.0 if two_photon else 1.0) * depth / step.scatter_length_um)
    focal_depth = best_focus(depth, passed, depth_of_field) if step.focal_depth_um == "auto" else step.focal_depth_um
    h = depth - focal_depth
    diffraction_um = SPOT_WIDTH * emission_um / aperture
    if two_photon:  # the square of the intensity is narrower by the root of 2
        ratio = h / (depth_of_field / 2)
        sigma_um, gain = np.full(depth.shape, diffraction_um / math.sqrt(2)), passed / (1 + ratio * ratio)
    else:
        defocus, scatter = np.abs(h) * (tangent / 2), step.scatter_blur_per_um * depth
        sigma_um, gain = np.sqrt(diffraction_um * diffraction_um + defocus * defocus + scatter * scatter), passed
    return replace(
        scene,
        observed_sigma_px=sigma_um / scene.acquisition.pixel_size_um,
        observed_gain=gain,
        in_focus=np.abs(h) <= depth_of_field / 2,
        focal_depth_um=float(focal_depth),
    )


def best_focus(depth_um: FloatArray, light: FloatArray, depth_of_field_um: float) -> float:
    """The depth with the most light from cells in focus; the shallowest of equals, 0 without cells."""
    if depth_um.size == 0:
        return 0.0
    low, high = float(depth_um.min()), float(depth_um.max())
    trials = [low + (high - low) * (trial / (_FOCUS_TRIALS - 1)) for trial in range(_FOCUS_TRIALS)]
    return max(trials, key=lambda focus: total(light[np.abs(depth_um - focus) <= depth_of_field_um / 2]))


def _distance(scene: Scene, offset_y: float = 0.0, offset_x: float = 0.0) -> FloatArray:
    """Distance of each pixel from a centre, in units of that from the middle of the field of view to its corners."""
    height, width = scene.fov_shape
    y = np.arange(height) - ((height - 1) / 2 + offset_y)
    x = np.arange(width) - ((width - 1) / 2 + offset_x)
    corner = ((height - 1) / 2) * ((height - 1) / 2) + ((width - 1) / 2) * ((width - 1) / 2)
    return np.sqrt(((y * y)[:, None] + (x * x)[None, :]) / corner)


def profile(scene: Scene, step: IlluminationProfile) -> Scene:
    """Excite the field of view unevenly, or collect its light unevenly: 1 at the centre, never below 0."""
    distance = _distance(scene, step.center_offset_y_px, step.center_offset_x_px)
    factor = np.maximum(1 - (1 - step.edge) * power(distance, step.exponent), 0.0)
    field: dict[str, Any] = {"vignette" if isinstance(step, Vignette) else "illumination": factor}
    return replace(scene, **field).add(Layer.multiplied(step.kind, factor))


def leakage(scene: Scene, step: Leakage) -> Scene:
    """Add excitation light that passed the filters."""
    if step.profile == "flat":
        light = np.full(scene.fov_shape, step.photons)
    else:
        ratio = _distance(scene) / step.sigma_fraction
        light = step.photons * exp(-0.5 * ratio * ratio)
    return replace(scene, leakage=light).add(Layer.added(step.kind, light))
