"""The pictures of the reports; the only module of the room that imports matplotlib."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .report import ERROR_CELL, ERROR_CELLS, FidelityReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .science import ScienceReport

#: Standard errors that bars and bands show.
_BAR = 2.0


def on_axes(
    where: str | os.PathLike[str] | Sequence[Axes],
    shape: tuple[int, int],
    draw: Callable[[Sequence[Axes]], None],
) -> Figure:
    """Draw on given axes, or on a new figure of ``shape`` panels that is written to a file.

    Raises
    ------
    ValueError
        When the number of axes is not that of the panels.
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "dj-photon-codecs[viz]"') from error
    rows, columns = shape
    if not isinstance(where, str | os.PathLike):
        axes = list(np.asarray(where, dtype=object).ravel())
        if len(axes) != rows * columns:
            raise ValueError(f"plot draws {rows * columns} panels, got {len(axes)} axes: pass as many, or a file name")
        draw(axes)
        return cast(Figure, axes[0].figure)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    draw(list(figure.subplots(rows, columns).ravel()))
    figure.savefig(where, dpi=110)
    return figure


def draw_fidelity(report: FidelityReport, where: str | os.PathLike[str] | Sequence[Axes]) -> Figure:
    """The four panels of :meth:`FidelityReport.plot`."""

    def draw(axes: Sequence[Axes]) -> None:
        _bias(report, axes[0])
        _inflation(report, axes[1])
        _errors(report, axes[2])
        _residual(report, axes[3])

    return on_axes(where, (2, 2), draw)


def _curve(axis: Axes, photons: Any, values: Any, errors: Any) -> None:
    """Values by intensity with bars of two standard errors."""
    axis.errorbar(photons, values, yerr=_BAR * np.asarray(errors), fmt="o-", ms=3, lw=1, capsize=2)
    axis.set_xscale("log")
    axis.set_xlabel("expected photons per pixel")
    axis.axhline(0, color="0.6", lw=0.8)


def _bias(report: FidelityReport, axis: Axes) -> None:
    bins = [each for each in report.bins if each.bias is not None]
    _curve(axis, [each.photons for each in bins], [each.bias for each in bins], [each.bias_error for each in bins])
    axis.set(title="bias: stored - raw", ylabel="noise standard deviations")


def _inflation(report: FidelityReport, axis: Axes) -> None:
    bins = [each for each in report.bins if each.inflation is not None and each.inflation_error is not None]
    values = [100 * cast(float, each.inflation) for each in bins]
    errors = [100 * cast(float, each.inflation_error) for each in bins]
    _curve(axis, [each.photons for each in bins], values, errors)
    nominal = 100 * report.nominal_inflation
    axis.axhline(nominal, color="C3", ls="--", lw=1, label=f"step$^2$/12 = {nominal:.2f} %")
    axis.set(title="variance added", ylabel="% of the noise variance")
    axis.legend(loc="best", fontsize=8)


def _errors(report: FidelityReport, axis: Axes) -> None:
    edges = (np.arange(ERROR_CELLS + 1) - ERROR_CELLS / 2) * ERROR_CELL
    counts = np.array(report.histogram, np.float64)
    axis.stairs(counts / max(1.0, counts.sum()) / ERROR_CELL, edges, fill=True, alpha=0.6)
    if report.step:
        axis.plot([-0.5, -0.5, 0.5, 0.5], [0, 1, 1, 0], color="C3", ls="--", lw=1, label="even over one step")
        axis.legend(loc="upper right", fontsize=8)
    axis.set_xlim(-1.5, 1.5)
    unit = "steps of noise" if report.step else "noise standard deviations"
    axis.set(title=f"errors (largest {report.largest_error:.2f} sigma)", xlabel=unit, ylabel="density")


def _residual(report: FidelityReport, axis: Axes) -> None:
    names = [f"{lag.frames},{lag.rows},{lag.columns}" for lag in report.autocorrelation]
    values = [lag.correlation for lag in report.autocorrelation]
    spreads = [lag.spread for lag in report.autocorrelation]
    axis.bar(names, values, width=0.6)
    axis.errorbar(names, np.zeros(len(names)), yerr=_BAR * np.array(spreads), fmt="none", color="0.3", capsize=3)
    if report.image is not None:
        image = report.image
        text = (
            f"with the image: {image.correlation:+.3f} (spread {image.spread:.3f}), {image.amplitude:.4f} sigma of it"
        )
        axis.set_xlabel(text, fontsize=8)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.tick_params(axis="x", labelrotation=60, labelsize=8)
    axis.set(title="residual against itself (frames,rows,columns)", ylabel="correlation; bars: 2 spreads")


def draw_science(report: ScienceReport, where: str | os.PathLike[str] | Sequence[Axes]) -> Figure:
    """The four panels of :meth:`ScienceReport.plot`."""

    def draw(axes: Sequence[Axes]) -> None:
        _traces(report, axes[0])
        _dff(report, axes[1])
        _spikes(report, axes[2])
        _scores(report, axes[3])

    return on_axes(where, (2, 2), draw)


def _traces(report: ScienceReport, axis: Axes) -> None:
    share = np.array(report.noise_share)
    order = np.argsort(share)
    for number, other in enumerate(report.redrawn_change):
        label = "other noise" if number == 0 else None
        axis.plot(share, 1 - np.array(other.traces), "x", color="0.6", ms=4, label=label)
    axis.plot(share, 1 - np.array(report.change.traces), "o", ms=4, label="stored")
    if report.step:
        axis.plot(share[order], 1 - np.array(report.expected_traces)[order], "C3--", lw=1, label="added variance")
    axis.axhline(1e-3, color="0.3", lw=0.8, ls=":")
    axis.set(xscale="log", yscale="log", title="traces: 1 - correlation with raw")
    axis.set(xlabel="share of noise in the raw trace's variance", ylabel="1 - correlation")
    axis.legend(fontsize=8)


def _dff(report: ScienceReport, axis: Axes) -> None:
    dff = np.array(report.dff)
    for number, other in enumerate(report.redrawn_change):
        label = "other noise" if number == 0 else None
        axis.plot(dff, other.dff_bias, "x", color="0.6", ms=4, label=label)
    axis.plot(dff, report.change.dff_bias, "o", ms=4, label="stored")
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set(
        title="change of dF/F in activity", xlabel="dF/F of the raw movie", ylabel="dF/F less that of the raw movie"
    )
    axis.legend(fontsize=8)


def _spikes(report: ScienceReport, axis: Axes) -> None:
    values = [report.change.spikes, *(each.spikes for each in report.redrawn_change)]
    names = ["stored", *(f"noise {n + 1}" for n in range(len(values) - 1))]
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
    axis.set(title="against the truth (crosses: other noise)", ylim=(0, 1.03))
    axis.legend(fontsize=8, loc="lower right")
