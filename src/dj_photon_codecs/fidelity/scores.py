"""Score the analysis of a movie against the truth, and compare it with that of another movie."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .._arguments import brief_repr
from .._typing import FloatArray
from .analysis import Analysis, Scene
from .detection import matched_places
from .spikes import correlation, matched_events, onsets, smoothed

#: Tolerance for the time of a spike [s]; half of it is the width of the Gaussian that turns spikes into rates.
_SPIKE_S = 0.1
_ACTIVE = 90  # percentile of a cell's true light above which it counts as active


@dataclass(frozen=True)
class Scores:
    """Accuracy of the analysis of one movie."""

    motion_error_px: float | None
    """Root mean square distance of measured from true shifts, less the median; None for a movie without motion."""
    cells_found: int
    """Number of cells detected."""
    recall: float
    """Fraction of the detectable cells with a detection within a cell radius."""
    precision: float
    """Fraction of the detections that match a detectable cell, not counting those that match a fainter cell."""
    trace_truth: float
    """Correlation of traces with the true light, median over cells."""
    spike_recall: float
    """Fraction of true onsets with a detected one within 0.1 s; spikes in neighbouring frames are one onset."""
    spike_precision: float
    """Fraction of detected onsets with a true one within 0.1 s."""
    spike_truth: float
    """Correlation of detected with true spike rates, median over cells."""


@dataclass(frozen=True)
class Agreement:
    """Agreement between the analyses of a movie and of the raw movie; tuples have one entry per detectable cell."""

    motion_px: float | None
    """Root mean square distance between the shifts [pixels]; None for a movie without motion."""
    cells_in_both: int
    """Number of cells found in both, within a cell radius."""
    traces: tuple[float, ...]
    """Correlation of the traces."""
    dff_bias: tuple[float, ...]
    """Mean dF/F less that of the raw movie, in frames in which the cell is active."""
    spikes: tuple[float, ...]
    """Correlation of the spike rates."""

    __repr__ = brief_repr


def _rates(trains: FloatArray, scene: Scene) -> list[FloatArray]:
    """Smooth spike trains into rates."""
    return [smoothed(train, max(1.0, _SPIKE_S * scene.fps / 2)) for train in trains]


def _correlations(first: Iterable[FloatArray], second: Iterable[FloatArray]) -> tuple[float, ...]:
    return tuple(correlation(a, b) for a, b in zip(first, second, strict=True))


def scores_of(found: Analysis, scene: Scene) -> Scores:
    """Score an analysis against the truth."""
    partner = matched_places(found.cells, scene.centres, scene.radius)
    hits = int((partner >= 0).sum())
    fainter = int((matched_places(found.cells[partner < 0], scene.others, scene.radius) >= 0).sum())
    tolerance = max(1, round(_SPIKE_S * scene.fps))
    paired = predicted = planted = 0
    for spikes, truth in zip(found.spikes, scene.spikes, strict=True):
        events, true_events = onsets(spikes), onsets(truth)
        paired += matched_events(events, true_events, tolerance)
        predicted, planted = predicted + len(events), planted + len(true_events)
    return Scores(
        motion_error_px=_distance(found.shifts, scene.shifts),
        cells_found=len(found.cells),
        recall=hits / len(scene.centres),
        precision=hits / max(1, len(found.cells) - fainter),
        trace_truth=float(np.median(_correlations(found.traces, scene.calcium))),
        spike_recall=paired / max(1, planted),
        spike_precision=paired / max(1, predicted),
        spike_truth=float(np.median(_correlations(_rates(found.spikes, scene), _rates(scene.spikes, scene)))),
    )


def change_of(found: Analysis, raw: Analysis, scene: Scene) -> Agreement:
    """Compare an analysis with that of the raw movie."""
    return Agreement(
        motion_px=_distance(found.shifts, raw.shifts),
        cells_in_both=int((matched_places(found.cells, raw.cells, scene.radius) >= 0).sum()),
        traces=_correlations(found.traces, raw.traces),
        dff_bias=tuple((in_activity(found.dff, scene) - in_activity(raw.dff, scene)).tolist()),
        spikes=_correlations(_rates(found.spikes, scene), _rates(raw.spikes, scene)),
    )


def _distance(first: FloatArray | None, second: FloatArray | None) -> float | None:
    """Root mean square distance between two series of shifts, less the median; None without motion."""
    if first is None or second is None:
        return None
    apart = first - second
    apart = apart - np.median(apart, axis=0)
    return math.sqrt(float((apart**2).sum(axis=1).mean()))


def in_activity(dff: FloatArray, scene: Scene) -> FloatArray:
    """Mean dF/F of each cell over the frames in which it is truly active."""
    active = scene.calcium >= np.percentile(scene.calcium, _ACTIVE, axis=1, keepdims=True)
    return np.asarray((dff * active).sum(axis=1) / active.sum(axis=1))
