"""The same analysis of the raw and of the stored movie, and of the same scene with other noise."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._typing import FloatArray, Json
from ..errors import FormatError
from ..handle import PhotonArray
from .analysis import Analysis, Scene, analyse
from .detection import matched_places
from .spikes import correlation, matched_events, onsets, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..simulation import Recording

#: How far from its true time a spike may be found [s], and the width of the rates that are correlated.
_SPIKE_S = 0.1

#: Frames in which a cell counts as active: the brightest part of its true light.
_ACTIVE = 90


@dataclass(frozen=True)
class Scores:
    """How right the analysis of one movie is.

    Attributes
    ----------
    motion_error_px
        Root mean square distance of the measured from the true shifts, less their medians; None for a movie at rest.
    cells_found
        How many places were taken for cells.
    recall
        Part of the detectable cells that have one of these within a cell's radius.
    precision
        Part of the places found that are detectable cells, of those that are not on one of the fainter cells.
    trace_truth
        Correlation of the traces with the true light of the cells, median over cells.
    spike_recall, spike_precision
        Part of the true onsets (spikes in neighbouring frames are one) with one found within 0.1 s, and of the found
        ones with a true one.
    spike_truth
        Correlation of found and true spike rates, median over cells.
    """

    motion_error_px: float | None
    cells_found: int
    recall: float
    precision: float
    trace_truth: float
    spike_recall: float
    spike_precision: float
    spike_truth: float


@dataclass(frozen=True)
class Agreement:
    """How far the analysis of one movie agrees with that of the raw movie; tuples have one entry per detectable cell.

    Attributes
    ----------
    motion_px
        Root mean square distance between the shifts; None for a movie at rest.
    cells_in_both
        Places found in both, within a cell's radius.
    traces
        Correlation of the traces.
    dff_bias
        Mean dF/F less that of the raw movie, in frames in which the cell is active.
    spikes
        Correlation of spike rates.
    """

    motion_px: float | None
    cells_in_both: int
    traces: tuple[float, ...]
    dff_bias: tuple[float, ...]
    spikes: tuple[float, ...]


@dataclass(frozen=True)
class ScienceReport:
    """What storing changes in the results of an analysis. It prints as text; see :meth:`to_dict` and :meth:`plot`.

    Attributes
    ----------
    step
        Quantisation in noise standard deviations; 0 for none.
    ratio
        Bytes of raw counts per byte stored; None when unknown.
    cells
        Number of detectable cells.
    raw, stored
        The scores of both movies.
    redrawn
        The scores of the same scene with other noise.
    change
        Stored against raw.
    redrawn_change
        Other noise against raw: what a second recording of the same would change.
    noise_share
        Part of the variance of each raw trace that is noise of single pixels.
    dff
        dF/F of each raw trace in frames in which the cell is active.
    """

    step: float
    ratio: float | None
    cells: int
    raw: Scores
    stored: Scores
    redrawn: tuple[Scores, ...]
    change: Agreement
    redrawn_change: tuple[Agreement, ...]
    noise_share: tuple[float, ...]
    dff: tuple[float, ...]

    @property
    def expected_traces(self) -> tuple[float, ...]:
        """Correlation of raw and stored traces that follows from the added variance alone.

        1 / sqrt(1 + step^2 / 12 * noise_share): where a trace is nothing but noise, 0.990 at step 0.5, however many
        pixels it is the mean of.
        """
        return tuple(1 / math.sqrt(1 + self.step**2 / 12 * share) for share in self.noise_share)

    @property
    def cells_within_redraws(self) -> bool | None:
        """Whether the count of cells differs from the raw one by no more than redrawn noise makes it; None without."""
        if not self.redrawn:
            return None
        spread = max(abs(each.cells_found - self.raw.cells_found) for each in self.redrawn)
        return abs(self.stored.cells_found - self.raw.cells_found) <= spread

    def to_dict(self) -> Json:
        """The report as JSON values; :meth:`from_dict` is the inverse."""
        document: Json = asdict(self)
        return document

    @classmethod
    def from_dict(cls, document: Json) -> Self:
        """The report of JSON values.

        Raises
        ------
        FormatError
            When they are not those of a report.
        """
        try:
            values: dict[str, Any] = dict(document)
            for name in ("raw", "stored"):
                values[name] = Scores(**values[name])
            values["redrawn"] = tuple(Scores(**each) for each in values["redrawn"])
            values["change"] = _agreement(values["change"])
            values["redrawn_change"] = tuple(_agreement(each) for each in values["redrawn_change"])
            for name in ("noise_share", "dff"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise FormatError(f"this is no science report: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        size = "" if self.ratio is None else f", {self.ratio:.2f} times smaller"
        how = f"step {self.step:g} sigma" if self.step else "lossless"
        lines = [
            f"{self.cells} detectable cells, {how}{size}",
            f"{'':<34} {'raw':>8} {'stored':>8}   {len(self.redrawn)} redrawn",
        ]
        for name, label in _LABELS.items():
            values = [getattr(each, name) for each in (self.raw, self.stored, *self.redrawn)]
            if None not in values:
                first, second, *others = (f"{value:.4g}" for value in values)
                lines.append(f"{label:<34} {first:>8} {second:>8}   {' '.join(others)}")
        lines.append(f"{'against the raw movie':<34} {'':>8} {'stored':>8}   redrawn")
        for label, of in _CHANGES.items():
            values = [of(each) for each in (self.change, *self.redrawn_change)]
            if None not in values:
                first, *others = (f"{value:.5g}" for value in values)
                lines.append(f"{label:<34} {'':>8} {first:>8}   {' '.join(others)}")
        low, expected = min(self.change.traces), min(self.expected_traces)
        lines.append(f"lowest trace correlation {low:.5f}; {expected:.5f} follows from the added variance")
        return "\n".join(lines)

    def plot(self, where: str | os.PathLike[str] | Sequence[Axes]) -> Figure:
        """Draw the report: traces, dF/F, spikes and scores in four panels.

        Parameters
        ----------
        where
            The file to write, or four matplotlib axes to draw in.

        Raises
        ------
        ImportError
            Without matplotlib, which is in the ``viz`` extra.
        """
        from .plots import draw_science

        return draw_science(self, where)


#: The rows of the text.
_LABELS = {
    "motion_error_px": "motion, error [pixels]",
    "cells_found": "cells found",
    "recall": "  recall",
    "precision": "  precision",
    "trace_truth": "traces, correlation with truth",
    "spike_recall": "spikes, recall",
    "spike_precision": "  precision",
    "spike_truth": "  correlation of rates with truth",
}
_CHANGES: dict[str, Callable[[Agreement], float | None]] = {
    "motion, distance [pixels]": lambda a: a.motion_px,
    "cells found in both": lambda a: a.cells_in_both,
    "traces, median correlation": lambda a: float(np.median(a.traces)),
    "dF/F in activity, median change": lambda a: float(np.median(a.dff_bias)),
    "spike rates, median correlation": lambda a: float(np.median(a.spikes)),
}


def _agreement(document: Json) -> Agreement:
    """An agreement of JSON values."""
    lists = {name: tuple(document[name]) for name in ("traces", "dff_bias", "spikes")}
    return Agreement(**{**document, **lists})


def science_report(
    recording: Recording,
    handle: Any,
    *,
    redrawn: Iterable[Recording] = (),
    step: float | None = None,
) -> ScienceReport:
    """Analyse the raw and the stored movie of a simulated recording in the same way, and compare.

    Parameters
    ----------
    recording
        With a known truth and at least one detectable cell.
    handle
        What is stored of it: a :class:`~dj_photon_codecs.PhotonArray`, or any array of counts.
    redrawn
        The same tissue with other draws of the noise, ``simulate(spec.with_noise_seed(1))``: what a codec changes is
        little when these differ more. They are analysed one by one, so that a generator keeps memory low.
    step
        Quantisation in noise standard deviations; that of the handle when None, and 0 for an array.

    Raises
    ------
    InvalidMovieError
        When shapes differ, or no cell is detectable.
    """
    scene = Scene.of(recording)
    raw = analyse(recording.observed, scene)
    others = [analyse(each.observed, scene) for each in redrawn]
    return compare(scene, raw, handle, others, step=step)


def compare(
    scene: Scene, raw: Analysis, handle: Any, redrawn: Sequence[Analysis] = (), *, step: float | None = None
) -> ScienceReport:
    """As :func:`science_report`, with the analysis of the raw and of the redrawn movies at hand.

    For several stored versions of one recording.
    """
    stored = analyse(handle, scene)
    known = isinstance(handle, PhotonArray)
    if step is None:
        step = handle.step if known else 0.0
    return ScienceReport(
        step=float(step),
        ratio=handle.compression_ratio if known and handle.record is not None else None,
        cells=len(scene.centres),
        raw=_scores(raw, scene),
        stored=_scores(stored, scene),
        redrawn=tuple(_scores(each, scene) for each in redrawn),
        change=_change(stored, raw, scene),
        redrawn_change=tuple(_change(each, raw, scene) for each in redrawn),
        noise_share=tuple(raw.noise_share.tolist()),
        dff=tuple(_in_activity(raw.dff, scene).tolist()),
    )


def _rates(trains: FloatArray, scene: Scene) -> list[FloatArray]:
    """Spike trains as smooth rates."""
    return [smoothed(train, max(1.0, _SPIKE_S * scene.fps / 2)) for train in trains]


def _scores(found: Analysis, scene: Scene) -> Scores:
    """An analysis against the truth."""
    motion = None
    if found.shifts is not None and scene.shifts is not None:
        motion = _distance(found.shifts, scene.shifts)
    partner = matched_places(found.cells, scene.centres, scene.radius)
    hits = int((partner >= 0).sum())
    fainter = int((matched_places(found.cells[partner < 0], scene.others, scene.radius) >= 0).sum())
    tolerance = max(1, round(_SPIKE_S * scene.fps))
    paired = predicted = planted = 0
    for spikes, truth in zip(found.spikes, scene.spikes, strict=True):
        events, true_events = onsets(spikes), onsets(truth)
        paired += matched_events(events, true_events, tolerance)
        predicted, planted = predicted + len(events), planted + len(true_events)
    rates = zip(_rates(found.spikes, scene), _rates(scene.spikes, scene), strict=True)
    traces = zip(found.traces, scene.calcium, strict=True)
    return Scores(
        motion_error_px=motion,
        cells_found=len(found.cells),
        recall=hits / len(scene.centres),
        precision=hits / max(1, len(found.cells) - fainter),
        trace_truth=float(np.median([correlation(a, b) for a, b in traces])),
        spike_recall=paired / max(1, planted),
        spike_precision=paired / max(1, predicted),
        spike_truth=float(np.median([correlation(a, b) for a, b in rates])),
    )


def _change(found: Analysis, raw: Analysis, scene: Scene) -> Agreement:
    """An analysis against that of the raw movie."""
    motion = None if found.shifts is None or raw.shifts is None else _distance(found.shifts, raw.shifts)
    rates = zip(_rates(found.spikes, scene), _rates(raw.spikes, scene), strict=True)
    return Agreement(
        motion_px=motion,
        cells_in_both=int((matched_places(found.cells, raw.cells, scene.radius) >= 0).sum()),
        traces=tuple(correlation(a, b) for a, b in zip(found.traces, raw.traces, strict=True)),
        dff_bias=tuple((_in_activity(found.dff, scene) - _in_activity(raw.dff, scene)).tolist()),
        spikes=tuple(correlation(a, b) for a, b in rates),
    )


def _distance(first: FloatArray, second: FloatArray) -> float:
    """Root mean square distance between two courses of motion, whatever their origins."""
    apart = first - second
    apart = apart - np.median(apart, axis=0)
    return math.sqrt(float((apart**2).sum(axis=1).mean()))


def _in_activity(dff: FloatArray, scene: Scene) -> FloatArray:
    """Mean dF/F of each cell in the frames in which it is truly active."""
    active = scene.calcium >= np.percentile(scene.calcium, _ACTIVE, axis=1, keepdims=True)
    return np.asarray((dff * active).sum(axis=1) / active.sum(axis=1))
