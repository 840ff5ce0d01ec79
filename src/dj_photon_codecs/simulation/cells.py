"""Neurons: where they are, when they spike, how their indicator responds and bleaches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .._typing import FloatArray
from .arithmetic import decay, exp, log
from .draws import Stream, lognormal, two_states
from .footprints import Footprints, Patch, clip
from .scene import Scene
from .steps import Bleaching, CellActivity, PlaceNeurons

#: Attempts to place a neuron at the minimum distance from the others.
_TRIALS = 30
#: The outline is a circle with this many harmonics, from the second on.
_HARMONICS = 4


def place_neurons(scene: Scene, step: PlaceNeurons) -> Scene:
    """Place somata at random positions on the canvas."""
    height, width = (n * scene.acquisition.pixel_size_um for n in scene.canvas_shape)
    thickness = step.depth_max_um - step.depth_min_um
    n = round(step.density_per_mm3 * height * width * thickness * 1e-9)
    stream = Stream(scene.seed, step.kind, "places")
    extent = np.array([thickness, height, width])
    origin = np.array([step.depth_min_um, -height / 2, -width / 2])
    centers = _apart(stream, n, extent, step.min_distance_um) + origin
    shapes = Stream(scene.seed, step.kind, "shapes")
    patches = [_soma(scene, step, center, shapes.normal(2, _HARMONICS)) for center in centers]
    margin, n = (scene.margin_px, scene.margin_px), len(patches)
    return replace(
        scene,
        footprints=Footprints.of(patches, scene.canvas_shape, margin, scene.fov_shape),
        centers_um=centers,
        soma_radius_um=step.soma_radius_um,
        observed_sigma_px=np.zeros(n),
        observed_gain=np.ones(n),
        in_focus=np.ones(n, np.bool_),
    )


def _apart(stream: Stream, n: int, extent: FloatArray, distance: float) -> FloatArray:
    """Up to ``n`` points in a box, at least ``distance`` apart."""
    trials = stream.uniform(n, _TRIALS if distance > 0 else 1, 3) * extent
    points = np.zeros((n, 3))
    count = 0
    for candidates in trials:
        for candidate in candidates:
            apart = points[:count] - candidate
            apart = apart * apart
            if np.all(apart[:, 0] + apart[:, 1] + apart[:, 2] >= distance * distance):
                points[count] = candidate
                count += 1
                break
    return points[:count]


def _soma(scene: Scene, step: PlaceNeurons, center: FloatArray, wobble: FloatArray) -> Patch:
    """One footprint: weight 1 inside, partial weights at the edge."""
    pixel = scene.acquisition.pixel_size_um
    radius = step.soma_radius_um / pixel
    place = [center[axis + 1] / pixel + scene.canvas_shape[axis] / 2 - 0.5 for axis in (0, 1)]
    reach = math.ceil(radius * (1 + 2 * step.irregularity)) + 1
    top, left = (round(p) - reach for p in place)
    steps = np.arange(2 * reach + 1).astype(np.float64)
    y, x = np.broadcast_arrays((steps + (top - place[0]))[:, None], (steps + (left - place[1]))[None, :])
    r = np.sqrt(y * y + x * x)
    at_centre = r == 0
    cos1 = np.where(at_centre, 1.0, x / np.where(at_centre, 1.0, r))
    sin1 = np.where(at_centre, 0.0, y / np.where(at_centre, 1.0, r))
    cos_k, sin_k, outline = cos1, sin1, np.zeros(r.shape)
    for k in range(_HARMONICS):  # cos and sin of (k + 2) times the angle, by their addition theorem
        cos_k, sin_k = cos_k * cos1 - sin_k * sin1, sin_k * cos1 + cos_k * sin1
        outline = outline + (wobble[0, k] * cos_k + wobble[1, k] * sin_k) / (k + 2)
    outline = radius * (1 + step.irregularity * np.clip(outline, -1.0, 1.0))
    weight = np.clip(outline - r + 0.5, 0.0, 1.0)
    if step.nucleus_fraction:
        weight = weight * (1 - np.clip(step.nucleus_fraction * outline - r + 0.5, 0.0, 1.0))
    return clip((top, left, weight), scene.canvas_shape)


def cell_activity(scene: Scene, step: CellActivity) -> Scene:
    """Spikes of cells that are quiet or active, and the light of their indicator.

    A spike adds (exp(-t/decay) - exp(-t/rise)) / peak to dF/F. Spikes occur in the middle of a frame; the light is that
    at its end.
    """
    n, frames, dt = scene.n_cells, scene.acquisition.n_frames, 1 / scene.acquisition.fps
    spread = Stream(scene.seed, step.kind, "amplitude").normal(n)
    amplitude = step.baseline_photons * lognormal(spread, step.brightness_cv)
    S = _spikes(scene, step, n, frames, dt)
    slow, fast = decay(dt, step.tau_decay_s), decay(dt, step.tau_rise_s)
    slow_half, fast_half = decay(dt / 2, step.tau_decay_s), decay(dt / 2, step.tau_rise_s)
    peak = _peak(step.tau_rise_s, step.tau_decay_s)
    falling, rising, dff = np.zeros(n), np.zeros(n), np.zeros((n, frames))
    for frame in range(frames):
        falling = falling * slow + S[:, frame] * slow_half
        rising = rising * fast + S[:, frame] * fast_half
        dff[:, frame] = (falling - rising) * (step.dff_per_spike / peak)
    return replace(scene, amplitude_per_cell=amplitude, S=S, C=amplitude[:, None] * (1 + dff))


def _spikes(scene: Scene, step: CellActivity, n: int, frames: int, dt: float) -> FloatArray:
    """Spike counts (unit, time): Poisson, at the rate of each cell's current state."""
    chance = Stream(scene.seed, step.kind, "state").uniform(frames + 1, n)
    wake, calm = 1 - decay(dt, step.quiet_s), 1 - decay(dt, step.active_s)
    active = two_states(chance[0] < step.active_s / (step.active_s + step.quiet_s), chance[1:], wake, calm)
    rates = np.where(active.T, step.rate_active_hz, step.rate_quiet_hz)
    return Stream(scene.seed, step.kind, "spikes").poisson(rates * dt)


def _peak(rise: float, fall: float) -> float:
    """The largest value of exp(-t/fall) - exp(-t/rise)."""
    if rise <= 0:
        return 1.0
    at = float(log(fall / rise)) * rise * fall / (fall - rise)
    return float(exp(-at / fall) - exp(-at / rise))


def bleaching(scene: Scene, step: Bleaching) -> Scene:
    """A factor per cell and frame that falls from 1."""
    n, frames = scene.n_cells, scene.acquisition.n_frames
    tau = step.tau_s * lognormal(Stream(scene.seed, step.kind).normal(n), step.tau_cv)
    t = np.arange(frames).astype(np.float64) / scene.acquisition.fps
    return replace(scene, bleaching=step.remaining + (1 - step.remaining) * exp(-t[None, :] / tau[:, None]))
