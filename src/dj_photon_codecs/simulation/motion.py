"""Brain motion: the position of the tissue under the field of view in each frame."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .._typing import AnyArray, FloatArray
from ..errors import ConfigurationError
from .arithmetic import decay
from .draws import Stream, two_states
from .scene import Layer, Scene
from .steps import BrainMotion

#: Amplitude at rest, relative to that during locomotion.
_AT_REST = 0.2
#: Minimum number of integration steps per period of the resonance.
_STEPS_PER_PERIOD = 40


def brain_motion(scene: Scene, step: BrainMotion) -> Scene:
    """Shift each frame of the canvas, and cut out the field of view.

    A shift (dy, dx) moves the tissue dy rows down and dx columns to the right: what was at (y, x) in the reference is
    at (y + dy, x + dx). The first frame is the reference, unless a trajectory is given.
    """
    shifts = _given(scene, step) if step.trajectory_px is not None else _trajectory(scene, step)
    shifts = shifts if step.subpixel else np.rint(shifts)
    margin, (height, width) = scene.margin_px, scene.fov_shape

    def frames(block: FloatArray, start: int) -> FloatArray:
        view = np.empty((len(block), height, width))
        for image, canvas, (dy, dx) in zip(view, block, shifts[start : start + len(block)].tolist(), strict=True):
            image[:] = _window(canvas, margin - dy, margin - dx, height, width)
        return view

    return replace(scene, shifts=shifts).add(Layer(step.kind, frames, scene.crop))


def _window(canvas: FloatArray, top: float, left: float, height: int, width: int) -> FloatArray:
    """The part of an image that begins at (top, left), with bilinear interpolation for fractional positions."""
    row, column = math.floor(top), math.floor(left)
    fy, fx = top - row, left - column
    part = canvas[row : row + height + 1, column : column + width + 1]
    if fy:
        part = (1 - fy) * part[:-1] + fy * part[1:]
    if fx:
        part = (1 - fx) * part[:, :-1] + fx * part[:, 1:]
    return part[:height, :width]


def _given(scene: Scene, step: BrainMotion) -> FloatArray:
    """The trajectory given in the spec, checked."""
    shifts = np.array(step.trajectory_px, np.float64).reshape(-1, 2)
    if len(shifts) != scene.acquisition.n_frames:
        raise ConfigurationError(
            f"brain_motion.trajectory_px has {len(shifts)} shifts, the movie has {scene.acquisition.n_frames} frames: "
            "give one (dy, dx) for each"
        )
    limit = step.max_shift_um / scene.acquisition.pixel_size_um
    farthest = float(np.abs(shifts).max())
    if farthest > limit:
        raise ConfigurationError(
            f"brain_motion.trajectory_px has a shift of {farthest:g} pixels, max_shift_um={step.max_shift_um:g} allows "
            f"{limit:g}: raise max_shift_um, which sets the canvas"
        )
    return shifts


def _trajectory(scene: Scene, step: BrainMotion) -> FloatArray:
    """Thermal motion of a damped oscillator, stronger while the animal runs: (time, 2) [pixels].

    x'' + 2 zeta w x' + w^2 x = noise of density 4 zeta w^3 A^2 has standard deviation A (G. E. Uhlenbeck and L. S.
    Ornstein, Physical Review 36 (1930), 823-841); integrated by the semi-implicit Euler rule.
    """
    frames, dt = scene.acquisition.n_frames, 1 / scene.acquisition.fps
    omega = 2 * math.pi * step.frequency_hz
    parts = max(1, math.ceil(_STEPS_PER_PERIOD * step.frequency_hz * dt * max(1.0, step.damping_ratio)))
    tick = dt / parts
    kick = math.sqrt(4 * step.damping_ratio * omega * omega * omega * tick)
    noise = Stream(scene.seed, step.kind, "noise").normal(frames, parts, 2)
    amplitude = step.amplitude_um * np.where(_running(scene, step), 1.0, _AT_REST)
    place, speed, path = np.zeros(2), np.zeros(2), np.zeros((frames, 2))
    for frame in range(1, frames):
        for push in noise[frame]:
            pull = omega * omega * place + 2 * step.damping_ratio * omega * speed
            speed = speed - tick * pull + (kick * amplitude[frame]) * push
            place = place + tick * speed
        path[frame] = place
    return np.clip(path, -step.max_shift_um, step.max_shift_um) / scene.acquisition.pixel_size_um


def _running(scene: Scene, step: BrainMotion) -> AnyArray:
    """Whether the animal runs in each frame: two states with the given mean durations."""
    frames, dt = scene.acquisition.n_frames, 1 / scene.acquisition.fps
    fraction = step.locomotion_fraction
    if fraction in (0.0, 1.0):
        return np.full(frames, fraction == 1.0)
    chance = Stream(scene.seed, step.kind, "locomotion").uniform(frames)
    stop = 1 - decay(dt, step.bout_s)
    go = 1 - decay(dt, step.bout_s * (1 - fraction) / fraction)
    return two_states(chance[0] < fraction, chance, go, stop)
