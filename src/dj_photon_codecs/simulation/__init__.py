"""Simulated recordings with known ground truth: a forward model from tissue to camera counts.

>>> from dj_photon_codecs.simulation import presets, simulate
>>> recording = simulate(presets.two_photon_raster(height_px=32, width_px=32, n_frames=4))
>>> recording.observed.dtype, recording.ground_truth.A_observed.shape[1:]
(dtype('uint16'), (32, 32))
"""

try:
    import pydantic as _pydantic  # noqa: F401  # imported first, for a clear error if it is missing
except ImportError as error:  # pragma: no cover
    raise ImportError('the simulation needs pydantic: pip install "dj-photon-codecs[simulation]"') from error

from . import presets, steps
from .footprints import Footprints
from .pipeline import build_scene, finalize, simulate, simulate_video
from .recording import MissingStageError, Recording
from .scene import Layer, Scene
from .sensor import true_calibration
from .spec import Acquisition, Output, Spec
from .truth import GroundTruth, MoleculeTruth, detection_snr

__all__ = [
    "Acquisition",
    "Footprints",
    "GroundTruth",
    "Layer",
    "MissingStageError",
    "MoleculeTruth",
    "Output",
    "Recording",
    "Scene",
    "Spec",
    "build_scene",
    "detection_snr",
    "finalize",
    "presets",
    "simulate",
    "simulate_video",
    "steps",
    "true_calibration",
]
