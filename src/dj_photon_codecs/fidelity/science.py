"""Compare the analysis of a stored movie with that of the raw movie, and of the same scene with redrawn noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._typing import FloatArray
from ..handle import PhotonArray
from .analysis import Analysis, Scene, analyse
from .base import Report
from .blocks import opened, step_of
from .scores import Agreement, Scores, change_of, in_activity, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..simulation import Recording


@dataclass(frozen=True, repr=False)
class ScienceReport(Report):
    """Effect of storage on the results of an analysis; see also :meth:`to_dict` and :meth:`plot`."""

    _kind = "science report"

    step: float
    """Quantisation in noise standard deviations; 0 for none."""
    ratio: float | None
    """Bytes of raw counts per byte stored; None when unknown."""
    cells: int
    """Number of detectable cells."""
    raw: Scores
    """Scores of the raw movie."""
    stored: Scores
    """Scores of the stored movie."""
    redrawn: tuple[Scores, ...]
    """Scores of the same scene with redrawn noise."""
    change: Agreement
    """Agreement of the stored with the raw movie."""
    redrawn_change: tuple[Agreement, ...]
    """Agreement of redrawn noise with the raw movie: the difference a second recording would make."""
    noise_share: tuple[float, ...]
    """Fraction of the variance of each raw trace that is pixel noise."""
    dff: tuple[float, ...]
    """Mean dF/F of each raw trace in frames in which the cell is active."""

    @property
    def expected_traces(self) -> tuple[float, ...]:
        """Correlation of raw and stored traces expected from the added variance alone.

        This is 1 / sqrt(1 + step^2 / 12 * noise_share). For a trace of pure noise it is 0.990 at step 0.5, however many
        pixels are averaged.
        """
        return tuple(1 / math.sqrt(1 + self.step**2 / 12 * share) for share in self.noise_share)

    @property
    def cells_within_redraws(self) -> bool | None:
        """Whether storage changes the cell count no more than redrawn noise does; None without redrawn movies."""
        if not self.redrawn:
            return None
        spread = max(abs(each.cells_found - self.raw.cells_found) for each in self.redrawn)
        return abs(self.stored.cells_found - self.raw.cells_found) <= spread

    def _panels(self) -> tuple[Callable[[Any, Axes], None], ...]:
        return _traces, _dff, _spikes, _scores

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


#: Rows of the printed report.
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


def science_report(
    recording: Recording, handle: Any, *, redrawn: Iterable[Recording] = (), step: float | None = None
) -> ScienceReport:
    """Analyse the raw and the stored movie of a simulated recording in the same way, and compare.

    Parameters
    ----------
    recording
        Recording with ground truth and at least one detectable cell.
    handle
        Stored movie: a :class:`~dj_photon_codecs.PhotonArray`, its path, or any array of counts.
    redrawn
        The same tissue with redrawn noise, ``simulate(spec.with_noise_seed(1))``. If these differ more from the raw
        movie than the stored one does, the codec changes little. They are analysed one by one, so pass a generator to
        save memory.
    step
        Quantisation in noise standard deviations; by default that of the handle, or 0 for an array.

    Raises
    ------
    InvalidMovieError
        If the shapes differ, or no cell is detectable.
    ConfigurationError
        If the recording does not come from this package's simulation.
    """
    scene = Scene.of(recording)
    raw = analyse(recording.observed, scene)
    others = [analyse(each.observed, scene) for each in redrawn]
    with opened(handle) as movie:
        return compare(scene, raw, movie, others, step=step)


def compare(
    scene: Scene, raw: Analysis, handle: Any, redrawn: Sequence[Analysis] = (), *, step: float | None = None
) -> ScienceReport:
    """Like :func:`science_report`, but reuse the analyses of the raw and redrawn movies.

    Use it to compare several stored versions of one recording.
    """
    stored = analyse(handle, scene)
    sized = isinstance(handle, PhotonArray) and handle.record is not None
    return ScienceReport(
        step=step_of(handle, step),
        ratio=handle.compression_ratio if sized else None,
        cells=len(scene.centres),
        raw=scores_of(raw, scene),
        stored=scores_of(stored, scene),
        redrawn=tuple(scores_of(each, scene) for each in redrawn),
        change=change_of(stored, raw, scene),
        redrawn_change=tuple(change_of(each, raw, scene) for each in redrawn),
        noise_share=tuple(raw.noise_share.tolist()),
        dff=tuple(in_activity(raw.dff, scene).tolist()),
    )


def _points(report: ScienceReport, axis: Axes, x: FloatArray, of: Callable[[Agreement], Any]) -> None:
    """Plot the change per cell: crosses for redrawn noise, dots for the stored movie."""
    for number, other in enumerate(report.redrawn_change):
        axis.plot(x, of(other), "x", color="0.6", ms=4, label=None if number else "other noise")
    axis.plot(x, of(report.change), "o", ms=4, label="stored")


def _traces(report: ScienceReport, axis: Axes) -> None:
    share = np.array(report.noise_share)
    order = np.argsort(share)
    _points(report, axis, share, lambda change: 1 - np.array(change.traces))
    if report.step:
        axis.plot(share[order], 1 - np.array(report.expected_traces)[order], "C3--", lw=1, label="added variance")
    axis.axhline(1e-3, color="0.3", lw=0.8, ls=":", label="correlation 0.999")
    axis.set(xscale="log", yscale="log", title="traces: 1 - correlation with raw")
    axis.set(xlabel="share of noise in the raw trace's variance [%]", ylabel="1 - correlation")
    low, high = axis.get_xlim()
    ticks = [n * 10.0**power for power in range(-9, 1) for n in (1, 2, 5) if low <= n * 10.0**power <= high]
    axis.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=8)


def _dff(report: ScienceReport, axis: Axes) -> None:
    _points(report, axis, np.array(report.dff), lambda change: change.dff_bias)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(title="change of dF/F in activity", xlabel="dF/F of the raw movie")
    axis.set_ylabel("dF/F less that of the raw movie")
    axis.legend(fontsize=8)


def _spikes(report: ScienceReport, axis: Axes) -> None:
    values = [report.change.spikes, *(each.spikes for each in report.redrawn_change)]
    names = ["stored", *(f"other noise {n + 1}" for n in range(len(values) - 1))]
    axis.boxplot([list(each) for each in values], tick_labels=names)
    axis.set(title="spike rates against those of raw", ylabel="correlation, by cell")


def _scores(report: ScienceReport, axis: Axes) -> None:
    names = ("recall", "precision", "trace_truth", "spike_recall", "spike_precision", "spike_truth")
    places = np.arange(len(names))
    for other in report.redrawn:
        axis.plot(places, [getattr(other, name) for name in names], "x", color="0.6", ms=5)
    axis.plot(places - 0.1, [getattr(report.raw, name) for name in names], "s", ms=5, label="raw")
    axis.plot(places + 0.1, [getattr(report.stored, name) for name in names], "o", ms=5, label="stored")
    labels = ["cells:\nrecall", "precision", "traces", "spikes:\nrecall", "precision", "rates"]
    axis.set_xticks(places, labels, fontsize=8)
    axis.set(title="against the truth (crosses: other noise)", ylim=(0, 1.03), ylabel="part, or correlation")
    axis.legend(fontsize=8, loc="lower right")
