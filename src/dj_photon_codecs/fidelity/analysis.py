"""Analyse a calcium movie from counts to spikes, in the same way for raw and for stored counts.

Motion comes from phase correlation, traces from the true footprints on the registered movie, cells from an image of
activity, and spikes from OASIS. Each step uses only what an experimenter would know: the size of a cell, the decay of
the indicator, and where to take traces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import brief_repr, check
from .._typing import AnyArray, FloatArray
from ..anscombe.generalized import generalized_anscombe
from ..calibration import Calibration
from ..errors import InvalidMovieError
from ..sources import Source, as_source
from .blocks import blocks
from .detection import ActivityImage
from .registration import Registration, moved_back
from .spikes import deconvolved

if TYPE_CHECKING:
    from ..simulation import Recording

#: Rounds of registration: first against the mean of a few frames from the middle, then against the mean of the movie as
#: registered in the previous round.
_ROUNDS = 3
_FIRST_FRAMES = 8
_REST = 20  # percentile of a trace taken as the cell at rest


@dataclass(frozen=True, eq=False)
class Scene:
    """Prior knowledge about a recording, for its analysis and scoring."""

    calibration: Calibration
    """The sensor's noise model."""
    footprints: FloatArray
    """Footprints of the detectable cells, each with sum 1: (cell, height, width)."""
    centres: FloatArray
    """Rows and columns of the detectable cells: (cell, 2)."""
    others: FloatArray
    """Rows and columns of the other cells, which are not detectable: (cell, 2)."""
    radius: float
    """Radius of a cell [pixels]."""
    decay: float
    """Fraction of a transient that remains after one frame."""
    fps: float
    """Frames per second."""
    shifts: FloatArray | None
    """True motion: (time, 2) [pixels]; None for a movie without motion."""
    calcium: FloatArray
    """True light of the detectable cells: (cell, time)."""
    spikes: FloatArray
    """True spikes of the detectable cells: (cell, time)."""

    __repr__ = brief_repr

    @classmethod
    def of(cls, recording: Recording) -> Scene:
        """Take the prior knowledge from the ground truth of a recording.

        Raises
        ------
        InvalidMovieError
            If none of its cells is detectable.
        ConfigurationError
            If it has no ground truth, for example an array.
        """
        known = hasattr(recording, "ground_truth") and hasattr(recording, "calibration")
        check(known, "recording", recording, "a Recording, as simulation.simulate(spec) gives it")
        truth = recording.ground_truth
        images = np.asarray(truth.A_observed, np.float32)
        seen = np.asarray(truth.detectable, bool) & (images.sum(axis=(1, 2)) > 0)
        if not seen.any():
            raise InvalidMovieError(
                f"none of the recording's {truth.n_units} cells is detectable: simulate brighter cells, or more frames"
            )
        centres = np.array([_centre(image) for image in images]).reshape(-1, 2)
        sums = images[seen].sum(axis=(1, 2), keepdims=True, dtype=np.float64)
        calcium = np.asarray(truth.C, np.float64)[seen]
        if truth.bleaching is not None:
            calcium = calcium * np.asarray(truth.bleaching, np.float64)[seen]
        return cls(
            calibration=recording.calibration,
            footprints=images[seen] / sums,
            centres=centres[seen],
            others=centres[~seen & np.isfinite(centres).all(axis=1)],
            radius=float(np.median([_radius(image) for image in images[seen]])),
            decay=math.exp(-1 / (recording.fps * _decay_s(recording))),
            fps=recording.fps,
            shifts=None if truth.shifts is None else np.asarray(truth.shifts, np.float64),
            calcium=calcium,
            spikes=np.asarray(truth.S, np.float64)[seen],
        )


def _centre(image: AnyArray) -> tuple[float, float]:
    """Row and column of an image's centre of mass; NaN for an empty one."""
    total = float(image.sum())
    if total <= 0:
        return math.nan, math.nan
    rows, columns = image.sum(axis=1), image.sum(axis=0)
    return float(rows @ np.arange(len(rows))) / total, float(columns @ np.arange(len(columns))) / total


def _radius(image: AnyArray) -> float:
    """Radius of the disc with the same variance of position as the pixels above half maximum; also right for rings.

    Points of a disc have a mean square distance from its centre of half the squared radius.
    """
    rows, columns = np.nonzero(image >= image.max() / 2)
    return math.sqrt(2 * float(rows.var() + columns.var()))


def _decay_s(recording: Recording) -> float:
    """The indicator's decay [s]."""
    spec: Any = recording.spec
    steps = (spec.to_dict() if hasattr(spec, "to_dict") else spec).get("steps", ())
    # Other programs may use another name; fall back to a common indicator.
    return next((float(step["tau_decay_s"]) for step in steps if "tau_decay_s" in step), 0.5)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Results of analysing a movie."""

    shifts: FloatArray | None
    """Measured motion: (time, 2) [pixels]; None if the scene has none."""
    traces: FloatArray
    """Mean count weighted by each footprint: (cell, time) [ADU]."""
    noise_share: FloatArray
    """Fraction of the variance of each trace that is pixel noise, from the noise model: (cell,)."""
    dff: FloatArray
    """dF/F of each trace: (cell, time)."""
    spikes: FloatArray
    """Deconvolved spikes: (cell, time) [dF/F]."""
    cells: FloatArray
    """Rows and columns of the cells found: (found, 2)."""

    __repr__ = brief_repr


def analyse(counts: Any, scene: Scene) -> Analysis:
    """Analyse a movie, in blocks of frames.

    Parameters
    ----------
    counts
        Raw counts, or a handle of stored ones: (time, height, width).
    scene
        Scene of the recording that the counts come from.
    """
    check(isinstance(scene, Scene), "scene", scene, "a Scene: fidelity.Scene.of(recording)")
    source = as_source(counts)
    if source.shape != (scene.calcium.shape[1], *scene.footprints.shape[1:]):
        raise InvalidMovieError(
            f"the movie has shape {source.shape}, the recording {(scene.calcium.shape[1], *scene.footprints.shape[1:])}"
        )
    shifts = None if scene.shifts is None else _registered(source, scene.calibration)
    gain, zero = scene.calibration.conversion_gain, scene.calibration.zero_level
    weights = scene.footprints.reshape(len(scene.footprints), -1).astype(np.float64)
    traces = np.empty(scene.calcium.shape)
    activity = ActivityImage((source.shape[1], source.shape[2]), scene.radius)
    light = np.zeros(source.shape[1] * source.shape[2])
    for start, block in blocks(source):
        stop = start + len(block)
        frames = block.astype(np.float64)
        stabilized = generalized_anscombe(frames, gain, zero)
        if shifts is not None:
            frames, stabilized = (moved_back(each, shifts[start:stop]) for each in (frames, stabilized))
        flat = frames.reshape(len(frames), -1)
        traces[:, start:stop] = weights @ flat.T
        light += flat.sum(axis=0)
        activity.add(stabilized)
    variance = np.maximum(light / source.shape[0] - zero, 0.0) * gain
    margin = 0 if shifts is None else math.ceil(float(np.abs(shifts).max()))
    rest = np.percentile(traces, _REST, axis=1, keepdims=True)
    dff = (traces - rest) / np.maximum(rest - zero, 1e-3 * gain)
    return Analysis(
        shifts=shifts,
        traces=traces,
        noise_share=np.minimum((weights**2 @ variance) / np.maximum(traces.var(axis=1), 1e-30), 1.0),
        dff=dff,
        spikes=np.array([deconvolved(trace, scene.decay) for trace in dff]),
        cells=activity.cells(margin),
    )


def _registered(source: Source, calibration: Calibration) -> FloatArray:
    """Shifts of each frame against the mean of the registered movie: (time, 2)."""
    gain, zero = calibration.conversion_gain, calibration.zero_level
    middle = max(0, (source.shape[0] - _FIRST_FRAMES) // 2)
    few = source.read(middle, min(middle + _FIRST_FRAMES, source.shape[0]))
    template = generalized_anscombe(few.astype(np.float64), gain, zero).mean(axis=0)
    shifts = np.zeros((source.shape[0], 2))
    for _ in range(_ROUNDS):
        registration = Registration(template)
        total = np.zeros(source.shape[1:])
        for start, block in blocks(source):
            frames = generalized_anscombe(block.astype(np.float64), gain, zero)
            found = registration.shifts(frames)
            total += moved_back(frames, found).sum(axis=0)
            shifts[start : start + len(block)] = found
        template = total / source.shape[0]
    return shifts
