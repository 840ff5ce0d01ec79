"""Build a scene from a spec, and a recording from a scene."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._arguments import check
from .._typing import AnyArray, FloatArray
from ..errors import ConfigurationError
from .cells import bleaching, cell_activity, place_neurons
from .footprints import Footprints
from .molecules import molecules
from .motion import brain_motion
from .optics import cell_optics, leakage, profile
from .recording import Recording
from .scene import Scene
from .sensor import count_dtype, expose, true_calibration
from .spec import Spec
from .steps import BrainMotion
from .tissue import composite, neuropil, vasculature
from .truth import AXES, DETECTABLE_SNR, GroundTruth, detection_snr
from .video import write_blocks

#: Pixels rendered at a time: 8 MiB of float64 per layer.
_BLOCK_PIXELS = 1 << 20

#: The function of each step, by the step's name.
_STEPS: dict[str, Callable[[Scene, Any], Scene]] = {
    step.__name__: step
    for step in (
        place_neurons, cell_activity, bleaching, cell_optics, molecules, composite, neuropil, vasculature, brain_motion,
        leakage,
    )
} | {"illumination_profile": profile, "vignette": profile}  # fmt: skip


def build_scene(spec: Spec) -> Scene:
    """Apply all steps of a spec except the sensor to an empty canvas.

    Raises
    ------
    ConfigurationError
        If this is not a spec, or a trajectory does not fit the movie.
    """
    what = "a Spec, such as one of simulation.presets: presets.two_photon_raster()"
    check(isinstance(spec, Spec), "spec", spec, what)
    motion = spec.step("brain_motion")
    margin = 0
    if isinstance(motion, BrainMotion):  # the canvas reaches beyond the field of view
        margin = math.ceil(motion.max_shift_um / spec.acquisition.pixel_size_um) + 1
    scene = Scene.empty(spec.acquisition, spec.seed, margin)
    for step in spec.steps[:-1]:  # the last one is the sensor
        scene = _STEPS[step.kind](scene, step)
    return scene


def exposed_blocks(
    scene: Scene, spec: Spec, keep: tuple[str, ...] = ()
) -> Iterator[tuple[int, AnyArray, dict[str, FloatArray]]]:
    """The movie in blocks: number of the first frame, counts (time, height, width), kept stages by name.

    The counts do not depend on the length of the blocks, because each frame has its own random numbers.
    """
    frames = scene.acquisition.n_frames
    length = max(1, _BLOCK_PIXELS // math.prod(scene.canvas_shape))
    for start in range(0, frames, length):
        photons, kept = scene.render(start, min(start + length, frames), keep)
        yield start, np.stack([expose(image, spec, frame) for frame, image in enumerate(photons, start)]), kept


def finalize(scene: Scene, spec: Spec) -> Recording:
    """Render a scene, expose the sensor to it, and record the truth.

    Parameters
    ----------
    scene
        From :func:`build_scene`, or from your own steps, with the frame size and length of the spec.
    spec
        Provides the sensor, the seed and the stages to keep.

    Raises
    ------
    ConfigurationError
        If scene and spec have different acquisitions, or the scene lacks a stage to keep.
    """
    check(isinstance(scene, Scene), "finalize: scene", scene, "a Scene, as build_scene(spec) gives it")
    check(isinstance(spec, Spec), "finalize: spec", spec, "the Spec that the scene was built from")
    if scene.acquisition != spec.acquisition:
        raise ConfigurationError(
            f"finalize: the scene was built for {scene.acquisition!r}, the spec has {spec.acquisition!r}: build the "
            "scene from this spec"
        )
    keep = spec.output.snapshots
    stages = [layer.name for layer in scene.layers]
    missing = ", ".join(sorted(set(keep).difference(stages)))
    if missing:
        raise ConfigurationError(f"finalize: the scene has no stage {missing}; it has {', '.join(stages)}")
    frames = scene.acquisition.n_frames
    observed = np.empty((frames, *scene.fov_shape), count_dtype(spec.sensor))
    snapshots: dict[str, AnyArray] = {}
    for start, counts, kept in exposed_blocks(scene, spec, keep):
        observed[start : start + len(counts)] = counts
        for name, block in kept.items():
            if name not in snapshots:
                snapshots[name] = np.empty((frames, *block.shape[1:]), np.float32)
            snapshots[name][start : start + len(block)] = block
    return Recording(spec, observed, ground_truth(scene, spec), true_calibration(spec.sensor), snapshots)


def simulate(spec: Spec) -> Recording:
    """The recording described by a spec: the same bytes every time, on every machine."""
    return finalize(build_scene(spec), spec)


def simulate_video(
    spec: Spec,
    path: str | os.PathLike[str],
    fps: float | None = None,
    vmin: float = 0,
    vmax: float | None = None,
    progress: bool = True,
) -> Path:
    """Write the video of a spec's recording while simulating it, without holding the movie in memory.

    The other parameters, the encoded frames and the errors are those of :meth:`Recording.write_video`.
    """
    scene = build_scene(spec)
    shape = (spec.acquisition.n_frames, *scene.fov_shape)

    def frame(index: int) -> AnyArray:
        return expose(scene.render(index, index + 1)[0][0], spec, index)

    blocks = (counts for _, counts, _ in exposed_blocks(scene, spec))
    rate = spec.acquisition.fps if fps is None else fps
    return write_blocks(path, blocks, frame, shape, rate, vmin, vmax, progress)


def ground_truth(scene: Scene, spec: Spec) -> GroundTruth:
    """The truth about a scene, for the cells in the field of view."""
    planted, vessels, snr = scene.footprints, scene.vessels, _cell_snr(scene, spec)
    truth = GroundTruth(
        planted=planted,
        detectable=scene.in_focus & (snr >= DETECTABLE_SNR),
        snr=snr,
        n_frames=scene.acquisition.n_frames,
        vessel_mask=None if vessels is None else scene.crop(vessels),
        vessel_overlap=None if vessels is None else _vessel_overlap(planted, vessels),
        focal_depth_um=scene.focal_depth_um,
        molecules=scene.molecules,
        **{name: getattr(scene, name) for name in AXES if hasattr(scene, name)},
    )
    return truth.subset(planted.in_view())


def _cell_snr(scene: Scene, spec: Spec) -> AnyArray:
    """:func:`detection_snr` of each cell's largest transient at its brightest pixel within the field of view.

    Multiplying the shot noise by a photomultiplier's excess noise factor has the same effect as dividing the gain and
    the read noise by it.
    """
    factor = np.ones(scene.fov_shape)
    for effect in (scene.illumination, scene.vignette):
        factor = factor if effect is None else factor * effect
    if scene.vessel_transmission is not None:
        factor = factor * scene.crop(scene.vessel_transmission)
    planted, rest = scene.footprints, scene.render_rest()
    transient = (scene.faded(scene.C) - scene.faded(scene.amplitude_per_cell[:, None])).max(axis=1)
    peak, baseline = np.zeros(len(planted)), np.zeros(len(planted))
    for unit, patch in enumerate(planted.blurred(scene.observed_sigma_px, scene.observed_gain)):
        top, left, image = planted.to_fov(patch)
        if image.size:
            window = (slice(top, top + image.shape[0]), slice(left, left + image.shape[1]))
            seen = image * factor[window]
            brightest = np.unravel_index(int(seen.argmax()), seen.shape)
            peak[unit], baseline[unit] = transient[unit] * seen[brightest], rest[window][brightest]
    excess = spec.sensor.excess_noise_factor
    return detection_snr(peak, baseline, spec.sensor.quantum_efficiency / excess, spec.sensor.read_noise_e / excess)


def _vessel_overlap(planted: Footprints, vessels: AnyArray) -> AnyArray:
    """The fraction of each footprint's weight under vessels."""
    parts = np.zeros(len(planted))
    for unit, (top, left, image) in enumerate(planted.patches()):
        weight = float(np.cumsum(image)[-1]) if image.size else 0.0
        if weight:
            under = vessels[top : top + image.shape[0], left : left + image.shape[1]]
            parts[unit] = float(np.cumsum(image * under)[-1]) / weight
    return parts
