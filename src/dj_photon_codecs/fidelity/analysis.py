"""One analysis of a calcium movie, from counts to spikes: the same for raw and for stored counts.

Motion from phase correlation, traces of the true footprints on the registered movie, cells from an image of activity,
spikes from OASIS. None of the steps is told more of the truth than an experimenter would know: the size of a cell, the
indicator's decay, and where to take traces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

#: Rounds of registration: the first against a few frames from the middle, the others against the mean of what the
#: round before has brought together.
_ROUNDS = 3
_FIRST_FRAMES = 8

#: Percentile of a trace that is taken for the cell at rest.
_REST = 20


@dataclass(frozen=True, eq=False)
class Scene:
    """What is known of a recording before it is analysed.

    Attributes
    ----------
    calibration
        The sensor's noise model.
    footprints
        Of the detectable cells: (cell, height, width), each with a sum of 1.
    centres
        Their rows and columns: (cell, 2).
    others
        Those of the cells that are there, but not detectable.
    radius
        Of a cell [pixels].
    decay
        Part of a transient that is left after a frame.
    fps
        Frames per second.
    shifts
        True motion: (time, 2) [pixels]; None for a movie at rest.
    calcium, spikes
        True light and spikes of the detectable cells: (cell, time).
    """

    calibration: Calibration
    footprints: FloatArray
    centres: FloatArray
    others: FloatArray
    radius: float
    decay: float
    fps: float
    shifts: FloatArray | None
    calcium: FloatArray
    spikes: FloatArray

    @classmethod
    def of(cls, recording: Recording) -> Scene:
        """What a recording's truth says.

        Raises
        ------
        InvalidMovieError
            When it has no detectable cells to follow.
        """
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
        fps, decay_s = _kinetics(recording)
        return cls(
            calibration=recording.calibration,
            footprints=images[seen] / sums,
            centres=centres[seen],
            others=centres[~seen & np.isfinite(centres).all(axis=1)],
            radius=float(np.median([_radius(image) for image in images[seen]])),
            decay=math.exp(-1 / (fps * decay_s)),
            fps=fps,
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
    """Radius of the disc that is as wide as the brighter half of an image, also where that is a ring.

    The mean square distance of the points of a disc from its centre is half of its radius, squared.
    """
    rows, columns = np.nonzero(image >= image.max() / 2)
    return math.sqrt(2 * float(rows.var() + columns.var()))


def _kinetics(recording: Recording) -> tuple[float, float]:
    """Frames per second, and the indicator's decay [s]: from the spec, of whichever kind."""
    spec = recording.spec
    document: dict[str, Any] = dict(spec) if not hasattr(spec, "to_dict") else spec.to_dict()
    fps = float(document["acquisition"]["fps"])
    steps = document.get("steps", [])
    for step in steps if isinstance(steps, list) else []:
        if "tau_decay_s" in step:
            return fps, float(step["tau_decay_s"])
    return fps, 0.5  # that of a common indicator, for specs of others that say it elsewhere


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a movie.

    Attributes
    ----------
    shifts
        Motion: (time, 2) [pixels]; None for a movie that was taken to be at rest.
    traces
        Mean count under each footprint, weighted with it: (cell, time) [ADU].
    noise_share
        Part of the variance of each trace that is noise of single pixels, by the noise model: (cell,).
    dff
        dF/F of each.
    spikes
        Deconvolved: (cell, time) [dF/F].
    cells
        Rows and columns of the cells found: (found, 2).
    """

    shifts: FloatArray | None
    traces: FloatArray
    noise_share: FloatArray
    dff: FloatArray
    spikes: FloatArray
    cells: FloatArray


def analyse(counts: Any, scene: Scene) -> Analysis:
    """Analyse a movie, in blocks of frames.

    Parameters
    ----------
    counts
        (time, height, width): raw counts, or a handle of stored ones.
    scene
        Of the recording that they come from.
    """
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
    """Shifts of every frame against the mean of the registered movie: (time, 2)."""
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
