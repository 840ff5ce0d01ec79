"""The fidelity report: fields, text and plots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import brief_repr
from .base import Report
from .residual import ImageResidue, Lag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Number of cells of the error histograms, and their width [quantisation steps]; the middle cell is centred on 0.
ERROR_CELLS, ERROR_CELL = 91, 0.05
_BAR = 2.0  # half-length of error bars and bands [standard errors]


@dataclass(frozen=True)
class IntensityBin:
    """Figures for pixels of nearly equal expected intensity."""

    low: float
    """Lower edge [expected photons per pixel]."""
    high: float
    """Upper edge, exclusive [expected photons per pixel]."""
    photons: float
    """Mean intensity of its pixels [expected photons per pixel]."""
    pixels: int
    """Number of pixels, over all frames."""
    noise: float | None
    """Noise standard deviation of the raw counts [ADU], the unit of the figures below; None if it is 0."""
    measured: bool
    """Whether ``noise`` was measured in the movie, from differences between frames and lines. If there are too few of
    them, it comes from the noise model."""
    bias: float | None
    """Mean of stored less raw counts [noise standard deviations at this intensity]; None without noise."""
    bias_error: float | None
    """Standard error of ``bias``."""
    inflation: float | None
    """Increase in variance from raw to stored counts, relative to the noise variance."""
    inflation_error: float | None
    """Standard error of ``inflation``."""
    mean_square: float | None
    """Mean square of stored less raw counts, relative to the noise variance."""
    largest_error: float
    """Largest change of a count, in units of the noise that the codec assumes at the larger of the two counts."""
    histogram: tuple[int, ...]
    """Number of pixels by change, in quantisation steps (noise standard deviations if the step is 0): 91 cells of width
    0.05, the middle one centred on 0. The outermost cells include everything beyond."""

    __repr__ = brief_repr


@dataclass(frozen=True, repr=False)
class FidelityReport(Report):
    """Changes that storage made to a movie: printable text, JSON by :meth:`to_dict`, plots by :meth:`plot`."""

    _kind = "fidelity report"

    shape: tuple[int, ...]
    """Shape of the movie."""
    dtype: str
    """Data type of the raw counts."""
    step: float
    """Quantisation in noise standard deviations; 0 for none."""
    conversion_gain: float
    """Gain of the noise model, variance = conversion_gain * (mean - zero_level) [ADU per photon]."""
    zero_level: float
    """Count at which the variance of the noise model is 0 [ADU]."""
    means_given: bool
    """Whether the expected counts were given; otherwise each pixel's mean over time was used."""
    bins: tuple[IntensityBin, ...]
    """Figures by intensity, from dark to bright."""
    largest_error: float
    """Largest change of a count, in units of the noise that the codec assumes."""
    within_bound: bool
    """Whether every change is at most half a step of noise and half a count."""
    autocorrelation: tuple[Lag, ...]
    """Autocorrelation of the residual in space and time."""
    image: ImageResidue | None
    """Correlation of the residual with the image; None for a single frame."""
    ratio: float | None
    """Bytes of raw counts per byte stored; None if the size is unknown."""
    bits_per_pixel: float | None
    """Bits stored per pixel; None if the size is unknown."""
    limit_bits: float
    """Entropy of the stored counts given the mean [bits per pixel]: no coder of independent pixels does better. For
    dithered counts, that of undithered codes of the same step."""
    lossless_limit_bits: float
    """Entropy of the raw counts given the mean [bits per pixel]."""

    @property
    def limit_is_estimate(self) -> bool:
        """Whether the limits are estimates from means over time, where activity and motion count as noise."""
        return not self.means_given

    @property
    def nominal_inflation(self) -> float:
        """Relative variance added by a uniform error of one step: step^2 / 12."""
        return self.step**2 / 12

    @property
    def histogram(self) -> tuple[int, ...]:
        """Histogram of changes over all intensities; cells as in :attr:`IntensityBin.histogram`."""
        return tuple(sum(column) for column in zip(*(each.histogram for each in self.bins), strict=True))

    def _panels(self) -> tuple[Callable[[Any, Axes], None], ...]:
        return _bias, _inflation, _errors, _residual

    def __str__(self) -> str:
        how = f"step {self.step:g} sigma" if self.step else "lossless"
        means = "expected counts as given" if self.means_given else "each pixel's mean over time"
        bound = "within" if self.within_bound else "BEYOND"
        size = "size unknown"
        if self.ratio is not None and self.bits_per_pixel is not None:
            size = f"stored in {self.bits_per_pixel:.3f} bits a pixel, {self.ratio:.2f} times smaller"
        kind = "estimated from means over time" if self.limit_is_estimate else "at the given means"
        lines = [
            f"Fidelity of {' x '.join(map(str, self.shape))} {self.dtype}, {how}, gain {self.conversion_gain:.4g} "
            f"ADU/photon, zero level {self.zero_level:.4g} ADU",
            f"by {means}; largest error {self.largest_error:.3f} sigma, {bound} half a step and half a count",
            "",
            *self._table(),
            "",
            *self._residual(),
            "",
            f"{size}; the limit is {self.limit_bits:.3f} bits ({kind}), without loss {self.lossless_limit_bits:.3f}",
        ]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """Table of bias and variance by intensity."""
        titles = f"{'photons':>10} {'pixels':>11} {'sigma [ADU]':>12} {'bias [sigma]':>18} {'variance added':>18} "
        lines = [titles + f"{'largest':>8}"]
        lines += (
            f"{each.photons:>10.3g} {each.pixels:>11} {_noise(each):>12} "
            f"{_with_error(each.bias, each.bias_error, 1, ''):>18} "
            f"{_with_error(each.inflation, each.inflation_error, 100, ' %'):>18} {each.largest_error:>8.3f}"
            for each in self.bins
        )
        if not all(each.measured for each in self.bins):
            lines.append("* of the noise model: too few pixels to measure it; all others are measured in the raw movie")
        return [*lines, f"an even error of one step adds {100 * self.nominal_inflation:.2f} % of variance"]

    def _residual(self) -> list[str]:
        """Lines about structure left in the residual."""
        lines = ["residual against itself, in units of the spread of independent numbers:"]
        named = (
            f"{lag.frames},{lag.rows},{lag.columns}: {lag.correlation / lag.spread:+.1f}"
            for lag in self.autocorrelation
        )
        lines.append("  (frames,rows,columns) " + "  ".join(named))
        if self.image is not None:
            lines.append(
                f"residual against the image: correlation {self.image.correlation:+.4f} "
                f"({self.image.correlation / self.image.spread:+.1f} spreads), {self.image.amplitude:.4f} sigma of it"
            )
        return lines


def _noise(each: IntensityBin) -> str:
    """Format the noise of a bin, with a star if it comes from the noise model."""
    return "-" if each.noise is None else f"{each.noise:.4g}{'' if each.measured else '*'}"


def _with_error(value: float | None, error: float | None, factor: float, unit: str) -> str:
    """Format a value with its standard error."""
    if value is None or error is None:
        return "-"
    digits = 4 if factor == 1 else 2
    return f"{factor * value:+.{digits}f} +- {factor * error:.{digits}f}{unit}"


#: Fraction of pixels whose bins set the range of a panel; a few dark pixels would otherwise dominate it.
_SHOWN = 0.99


def _curve(axis: Axes, report: FidelityReport, name: str, factor: float) -> None:
    """Plot a figure by intensity with bars of two standard errors; annotate those outside the range of most pixels."""
    bins = [each for each in report.bins if getattr(each, name) is not None]
    photons = [each.photons for each in bins]
    heights = factor * np.array([getattr(each, name) for each in bins])
    bars = _BAR * factor * np.array([getattr(each, f"{name}_error") for each in bins])
    axis.errorbar(photons, heights, yerr=bars, fmt="o-", ms=3, lw=1, capsize=2)
    axis.set_xscale("log")
    axis.set_xlabel("expected photons per pixel")
    axis.axhline(0, color="0.6", lw=0.8)
    if not bins:
        return
    pixels = np.array([each.pixels for each in bins])
    order = np.argsort(-pixels)
    most = order[: int(np.searchsorted(np.cumsum(pixels[order]), _SHOWN * pixels.sum())) + 1]
    low, high = min(0.0, (heights - bars)[most].min()), max(0.0, (heights + bars)[most].max())
    room = 0.15 * (high - low) or 0.1
    axis.set_ylim(low - room, high + room)
    for x, y in zip(photons, heights, strict=True):
        if not low - room <= y <= high + room:
            edge, mark = (0.97, "^") if y > 0 else (0.03, "v")
            axis.plot(x, edge, mark, color="C0", ms=4, transform=axis.get_xaxis_transform())
            axis.annotate(
                f"{y:+.2g}", (x, edge), xycoords=axis.get_xaxis_transform(), xytext=(0, -4 if y > 0 else 4),
                textcoords="offset points", fontsize=6, rotation=90, ha="center", va="top" if y > 0 else "bottom",
            )  # fmt: skip


def _bias(report: FidelityReport, axis: Axes) -> None:
    _curve(axis, report, "bias", 1)
    axis.set(title="bias: mean of stored - raw counts", ylabel="noise standard deviations")


def _inflation(report: FidelityReport, axis: Axes) -> None:
    _curve(axis, report, "inflation", 100)
    if report.step:
        nominal = 100 * report.nominal_inflation
        axis.axhline(nominal, color="C3", ls="--", lw=1, label=f"step$^2$/12 = {nominal:.2f} %")
        axis.legend(loc="best", fontsize=8)
    axis.set(title="variance added", ylabel="% of the noise variance")


def _errors(report: FidelityReport, axis: Axes) -> None:
    edges = (np.arange(ERROR_CELLS + 1) - ERROR_CELLS / 2) * ERROR_CELL
    counts = np.array(report.histogram, np.float64)
    axis.stairs(counts / max(1.0, counts.sum()) / ERROR_CELL, edges, fill=True, alpha=0.6)
    unit, largest = "noise standard deviations", f"{report.largest_error:.2f}"
    if report.step:
        axis.plot([-0.5, -0.5, 0.5, 0.5], [0, 1, 1, 0], color="C3", ls="--", lw=1, label="even over one step")
        axis.legend(loc="upper right", fontsize=8)
        unit = f"steps of {report.step:g} noise standard deviations"
        largest = f"{report.largest_error / report.step:.2f} steps"
    axis.set_xlim(-1.5, 1.5)
    axis.set(title=f"errors (largest: {largest})")
    axis.set(xlabel=f"stored - raw counts [{unit}]", ylabel="part of the pixels, per unit")


def _residual(report: FidelityReport, axis: Axes) -> None:
    lags = report.autocorrelation
    names = [f"{lag.frames},{lag.rows},{lag.columns}" for lag in lags]
    axis.bar(names, [lag.correlation for lag in lags], width=0.6)
    label, bars = "2 standard deviations of independent numbers", [_BAR * lag.spread for lag in lags]
    axis.errorbar(names, [0.0] * len(names), yerr=bars, fmt="none", color="0.3", capsize=3, label=label)
    axis.margins(y=0.2)
    axis.legend(loc="upper right", fontsize=7)
    if report.image is not None:
        image = report.image
        text = f"with the image: {image.correlation:+.3f} (spread {image.spread:.3f}), {image.amplitude:.4f} sigma"
        axis.set_xlabel(f"{text} of it", fontsize=8)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.tick_params(axis="x", labelrotation=60, labelsize=8)
    axis.set(title="residual against itself, by lag (frames,rows,columns)", ylabel="correlation")
    axis.title.set_fontsize(10)
