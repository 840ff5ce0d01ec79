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
    if report.image is not None:
        names, values, spreads = [*names, "image"], [*values, report.image.correlation], [*spreads, report.image.spread]
    axis.bar(names, values, width=0.6)
    axis.errorbar(names, np.zeros(len(names)), yerr=_BAR * np.array(spreads), fmt="none", color="0.3", capsize=3)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.tick_params(axis="x", labelrotation=60, labelsize=8)
    axis.set(title="residual against itself (frames,rows,columns)", ylabel="correlation; bars: 2 spreads")
