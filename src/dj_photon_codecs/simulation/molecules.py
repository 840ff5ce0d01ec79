"""Single molecules: Brownian motion, blinking, bleaching, and their spots in the image."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .._typing import FloatArray
from .arithmetic import decay, erf, log
from .draws import Stream, lognormal, two_states
from .footprints import clip
from .optics import SPOT_WIDTH
from .scene import Scene
from .steps import Molecules
from .truth import MoleculeTruth

#: Radius to which a spot is drawn [standard deviations]; 6e-5 of its light lies beyond.
_REACH = 4.0
#: Margin of the molecules' plane on each side, as a fraction of the field of view.
_BORDER = 0.1


def molecules(scene: Scene, step: Molecules) -> Scene:
    """Positions and photons of every molecule in every frame."""
    acquisition, dt = scene.acquisition, 1 / scene.acquisition.fps
    pixel, frames, parts = acquisition.pixel_size_um, acquisition.n_frames, step.substeps
    field = np.array(scene.fov_shape, np.float64) * pixel
    border = _BORDER * field + scene.margin_px * pixel
    extent = field + 2 * border
    n = round(step.density_per_um2 * float(extent[0] * extent[1]))

    place = Stream(scene.seed, step.kind, "places").uniform(n, 2) * extent
    stride = math.sqrt(2 * step.diffusion_um2_per_s * dt / parts)  # of each axis: <dx^2> = 2 D t
    positions = np.zeros((n, frames, 2))
    for frame in range(frames):
        steps = stride * Stream(scene.seed, step.kind, "diffusion", frame).normal(parts, n, 2)
        total = np.zeros((n, 2))
        for move in steps:
            place = _reflect(place + move, extent)
            total = total + place
        positions[:, frame] = total / parts

    spread = Stream(scene.seed, step.kind, "brightness").normal(n)
    photons = step.photons_per_frame * lognormal(spread, step.brightness_cv)
    truth = MoleculeTruth(
        positions - border,
        photons[:, None] * _emitting(scene, step, n, dt),
        SPOT_WIDTH * step.emission_nm * 1e-3 / step.numerical_aperture,
        step.diffusion_um2_per_s,
    )
    return replace(scene, molecules=truth)


def _reflect(place: FloatArray, extent: FloatArray) -> FloatArray:
    """Reflect positions at the walls of the box."""
    place = np.abs(place)
    return np.abs(extent - np.abs(extent - place))


def _emitting(scene: Scene, step: Molecules, n: int, dt: float) -> FloatArray:
    """1 in frames in which a molecule is on, else 0: (molecule, time)."""
    frames = scene.acquisition.n_frames
    chance = Stream(scene.seed, step.kind, "blinking").uniform(frames + 1, n)
    switch_off = 1 - decay(dt, step.on_s) if step.off_s > 0 else 0.0
    switch_on = 1 - decay(dt, step.off_s)
    first = chance[0] < step.on_s / (step.on_s + step.off_s)
    switched_on = np.concatenate([first[None], two_states(first, chance[1:frames], switch_on, switch_off)])
    lifetime = np.full(n, math.inf)
    if step.bleaching_s is not None:
        lifetime = -step.bleaching_s * log(Stream(scene.seed, step.kind, "bleaching").uniform(n))
    spent, emitting = np.zeros(n), np.zeros((n, frames))
    for frame, on in enumerate(switched_on):
        alive = emitting[:, frame] = on & (spent < lifetime)
        spent = spent + np.where(alive, dt, 0.0)
    return emitting


def render_molecules(block: FloatArray, start: int, truth: MoleculeTruth, pixel_um: float, margin_px: int) -> None:
    """Add the spots of frames from ``start`` on to a block of the canvas: a Gaussian, integrated over each pixel.

    C. S. Smith, N. Joseph, B. Rieger, K. A. Lidke, Nature Methods 7 (2010), 373-375, equation 4.
    """
    sigma = truth.sigma_um / pixel_um
    reach = math.ceil(_REACH * sigma)
    offsets = np.arange(-reach, reach + 2).astype(np.float64)
    scale = 1 / (math.sqrt(2.0) * sigma)
    for frame, image in enumerate(block, start):
        lit = np.flatnonzero(truth.photons[:, frame] > 0)
        centres = truth.positions_um[lit, frame] / pixel_um + margin_px
        corners = np.floor(centres)
        # the error function at the pixels' edges; what lies between two edges is one pixel's share
        share = [
            np.diff(erf((corners[:, axis, None] + offsets - centres[:, axis, None]) * scale), axis=1) / 2
            for axis in (0, 1)
        ]
        photons = truth.photons[lit, frame].tolist()
        for (row, column), bright, by, bx in zip((corners - reach).astype(int).tolist(), photons, *share, strict=True):
            top, left, spot = clip((row, column, bright * by[:, None] * bx), image.shape)
            image[top : top + spot.shape[0], left : left + spot.shape[1]] += spot
