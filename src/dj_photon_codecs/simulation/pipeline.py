"""From a spec to a scene, and from a scene to a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..errors import ConfigurationError
from .cells import bleaching, cell_activity, place_neurons
from .draws import Stream
from .footprints import Footprints, blurred
from .light import illumination_profile, leakage, vignette
from .molecules import molecules
from .motion import brain_motion, margin_px
from .optics import cell_optics
from .recording import Recording
from .scene import Scene
from .sensor import count_dtype, expose, true_calibration
from .spec import Spec
from .steps import BrainMotion, Sensor
from .tissue import composite, neuropil, vasculature
from .truth import DETECTABLE_SNR, GroundTruth, detection_snr

#: Pixels of float64 that are rendered at a time: 8 MiB a layer.
_BLOCK_PIXELS = 1 << 20

_STEPS: dict[str, Callable[[Scene, Any], Scene]] = {
    "place_neurons": place_neurons,
    "cell_activity": cell_activity,
    "bleaching": bleaching,
    "cell_optics": cell_optics,
    "molecules": molecules,
    "composite": composite,
    "neuropil": neuropil,
    "vasculature": vasculature,
    "brain_motion": brain_motion,
    "illumination_profile": illumination_profile,
    "vignette": vignette,
    "leakage": leakage,
}


def build_scene(spec: Spec) -> Scene:
    """All steps of a spec but the sensor, applied to an empty canvas.

    Raises
    ------
    ConfigurationError
        When a trajectory does not fit the movie.
    """
    motion = spec.step("brain_motion")
    margin = margin_px(motion, spec.acquisition.pixel_size_um) if isinstance(motion, BrainMotion) else 0
    scene = Scene(spec.acquisition, spec.seed, margin)
    for step in spec.steps:
        if not isinstance(step, Sensor):
            scene = _STEPS[step.kind](scene, step)
    return scene


def exposed_blocks(
    scene: Scene, spec: Spec, keep: tuple[str, ...] = ()
) -> Iterator[tuple[int, AnyArray, dict[str, FloatArray]]]:
    """The movie in blocks: number of the first frame, counts (time, height, width), kept stages by name.

    However long the blocks are, the counts are the same: each frame has random numbers of its own.
    """
    frames = scene.acquisition.n_frames
    length = max(1, _BLOCK_PIXELS // (scene.canvas_shape[0] * scene.canvas_shape[1]))
    for start in range(0, frames, length):
        stop = min(start + length, frames)
        photons, kept = scene.render(start, stop, keep)
        counts = [expose_frame(image, spec, frame) for frame, image in enumerate(photons, start)]
        yield start, np.stack(counts), kept


def expose_frame(photons: Any, spec: Spec, frame: int) -> AnyArray:
    """Counts of one frame from its expected photons, with that frame's own random numbers."""
    return expose(photons, spec.sensor, Stream(spec.seed, "sensor", spec.sensor.noise_seed, frame))


def finalize(scene: Scene, spec: Spec) -> Recording:
    """Render a scene, expose the sensor to it, and write down the truth.

    Parameters
    ----------
    scene
        From :func:`build_scene`, or from steps of one's own; with the frame size and length of the spec.
    spec
        Says which sensor, which seed and what to keep.

    Raises
    ------
    ConfigurationError
        When scene and spec have different acquisitions, or the scene does not have a stage that is to be kept.
    """
    if scene.acquisition != spec.acquisition:
        raise ConfigurationError(
            f"finalize: the scene was built for {scene.acquisition!r}, the spec has {spec.acquisition!r}: build the "
            "scene from this spec"
        )
    keep = spec.output.snapshots
    missing = set(keep) - {layer.name for layer in scene.layers}
    if missing:
        raise ConfigurationError(
            f"finalize: the scene has no stage {', '.join(sorted(missing))}; it has "
            f"{', '.join(layer.name for layer in scene.layers)}"
        )
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
    """The recording that a spec describes: always the same one, byte for byte.

    Parameters
    ----------
    spec
        See :mod:`.presets` for ready ones.

    Examples
    --------
    >>> from dj_photon_codecs.simulation import presets, simulate
    >>> simulate(presets.photon_counting(height_px=32, width_px=32, n_frames=3)).observed.shape
    (3, 32, 32)
    """
    return finalize(build_scene(spec), spec)


def ground_truth(scene: Scene, spec: Spec) -> GroundTruth:
    """What is known of a scene, for the cells in the field of view."""
    n, frames = scene.n_cells, scene.acquisition.n_frames
    margin = (scene.margin_px, scene.margin_px)
    planted = scene.footprints or Footprints.of([], scene.canvas_shape, margin, scene.fov_shape)
    sigma = np.zeros(n) if scene.sigma_px is None else scene.sigma_px
    gain = np.ones(n) if scene.gain is None else scene.gain
    in_focus = np.ones(n, np.bool_) if scene.in_focus is None else scene.in_focus
    snr = cell_snr(scene, spec, planted, sigma, gain)
    truth = GroundTruth(
        planted=planted,
        observed_sigma_px=sigma,
        observed_gain=gain,
        C=np.zeros((0, frames)) if scene.C is None else scene.C,
        S=np.zeros((0, frames)) if scene.S is None else scene.S,
        centers_um=np.zeros((0, 3)) if scene.centers_um is None else scene.centers_um,
        amplitude_per_cell=np.zeros(0) if scene.amplitude is None else scene.amplitude,
        in_focus=in_focus,
        detectable=in_focus & (snr >= DETECTABLE_SNR),
        snr=snr,
        n_frames=frames,
        shifts=scene.shifts,
        illumination=scene.illumination,
        vignette=scene.vignette,
        leakage=scene.leakage,
        bleaching=scene.bleaching,
        neuropil_temporal=scene.neuropil_temporal,
        neuropil_spatial=scene.neuropil_spatial,
        neuropil_population=scene.neuropil_population,
        vessel_mask=None if scene.vessels is None else scene.crop(scene.vessels),
        vessel_overlap=None if scene.vessels is None else _vessel_overlap(planted, scene.vessels),
        focal_depth_um=scene.focal_depth_um,
        molecules=scene.molecules,
    )
    return truth.subset(planted.in_view())


def cell_snr(scene: Scene, spec: Spec, planted: Footprints, sigma: AnyArray, gain: AnyArray) -> AnyArray:
    """:func:`detection_snr` of each cell's largest transient at its brightest pixel within the field of view.

    A photomultiplier's excess noise factor F multiplies the shot noise, which is the same as dividing the gain and the
    read noise by it.
    """
    if scene.C is None or scene.amplitude is None:
        return np.zeros(0)
    factor = np.ones(scene.fov_shape)
    for effect in (scene.illumination, scene.vignette):
        factor = factor if effect is None else factor * effect
    if scene.vessel_transmission is not None:
        factor = factor * scene.crop(scene.vessel_transmission)
    rest = scene.render_rest()
    light = scene.C if scene.bleaching is None else scene.C * scene.bleaching
    faded = scene.amplitude[:, None] if scene.bleaching is None else scene.amplitude[:, None] * scene.bleaching
    transient = (light - faded).max(axis=1)
    peak, baseline = np.zeros(len(planted)), np.zeros(len(planted))
    for unit, patch in enumerate(blurred(planted.patches(), sigma, gain, planted.canvas_shape)):
        top, left, image = planted.to_fov(patch)
        if image.size:
            window = (slice(top, top + image.shape[0]), slice(left, left + image.shape[1]))
            seen = image * factor[window]
            brightest = np.unravel_index(int(seen.argmax()), seen.shape)
            peak[unit], baseline[unit] = transient[unit] * seen[brightest], rest[window][brightest]
    sensor = spec.sensor
    noise_factor = sensor.excess_noise_factor
    return detection_snr(peak, baseline, sensor.quantum_efficiency / noise_factor, sensor.read_noise_e / noise_factor)


def _vessel_overlap(planted: Footprints, vessels: AnyArray) -> AnyArray:
    """The part of each footprint's weight that lies under vessels."""
    parts = []
    for top, left, image in planted.patches():
        under = vessels[top : top + image.shape[0], left : left + image.shape[1]]
        weight = float(np.cumsum(image)[-1]) if image.size else 0.0
        parts.append(float(np.cumsum(image * under)[-1]) / weight if weight else 0.0)
    return np.array(parts, np.float64)
