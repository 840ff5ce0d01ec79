"""What a fidelity report holds, and how it reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from .._typing import Json
from ..errors import FormatError
from .residual import ImageResidue, Lag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Histograms of errors have this many cells of that width [steps of noise]; the middle one is around 0.
ERROR_CELLS, ERROR_CELL = 91, 0.05


@dataclass(frozen=True)
class IntensityBin:
    """Pixels of nearly one expected intensity.

    Attributes
    ----------
    low, high
        The bin [expected photons a pixel]: low <= photons < high.
    photons
        Mean of the pixels in it.
    pixels
        How many pixels (of all frames).
    bias, bias_error
        Mean of stored less raw counts, and its standard error [noise standard deviations at this intensity]. None where
        there is no noise to measure in.
    inflation, inflation_error
        Variance of the stored counts less that of the raw ones, over the noise variance, and its standard error.
    mean_square
        Mean square of stored less raw counts, over the noise variance.
    largest_error
        Largest change of a count, in units of the noise that the codec goes by at the larger of the two counts.
    histogram
        Number of pixels by their change in steps of noise (in noise standard deviations where the step is 0): 91 cells
        of 0.05, the middle one around 0; the outer ones hold what lies beyond.
    """

    low: float
    high: float
    photons: float
    pixels: int
    bias: float | None
    bias_error: float | None
    inflation: float | None
    inflation_error: float | None
    mean_square: float | None
    largest_error: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class FidelityReport:
    """What storing did to a movie. Printed, it is a page of text; :meth:`to_dict` gives JSON, :meth:`plot` a picture.

    Attributes
    ----------
    shape
        Of the movie.
    dtype
        Of the raw counts.
    step
        Quantisation in noise standard deviations; 0 for none.
    conversion_gain, zero_level
        The noise model: variance = conversion_gain * (mean - zero_level).
    means_given
        Whether the expected counts were given; otherwise each pixel's mean over time stands for them.
    bins
        By intensity, from dark to bright.
    largest_error
        Largest change of a count, in units of the noise that the codec goes by.
    within_bound
        Whether every change is at most half a step of noise and half a count.
    autocorrelation
        Of the residual, in space and time.
    image
        What the residual keeps of the image; None for a single frame.
    ratio, bits_per_pixel
        Bytes of raw counts per byte stored, and bits stored per pixel; None when the size is not known.
    limit_bits
        Entropy of the stored counts given the mean [bits a pixel]: no coder of independent pixels does better. Where
        they are dithered, that of plain codes of the same step.
    lossless_limit_bits
        The same of the raw counts.
    """

    shape: tuple[int, ...]
    dtype: str
    step: float
    conversion_gain: float
    zero_level: float
    means_given: bool
    bins: tuple[IntensityBin, ...]
    largest_error: float
    within_bound: bool
    autocorrelation: tuple[Lag, ...]
    image: ImageResidue | None
    ratio: float | None
    bits_per_pixel: float | None
    limit_bits: float
    lossless_limit_bits: float

    @property
    def limit_is_estimate(self) -> bool:
        """Whether the limits are estimates: from means over time, in which activity and motion pass for noise."""
        return not self.means_given

    @property
    def nominal_inflation(self) -> float:
        """Variance that an even error of one step adds, over the noise variance: step^2 / 12."""
        return self.step**2 / 12

    @property
    def histogram(self) -> tuple[int, ...]:
        """Number of pixels by their change in steps of noise, at all intensities; cells as in :class:`IntensityBin`."""
        return tuple(sum(column) for column in zip(*(each.histogram for each in self.bins), strict=True))

    def to_dict(self) -> Json:
        """The report as JSON values; :meth:`from_dict` is the inverse."""
        return {**asdict(self), "shape": list(self.shape)}

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
            values["shape"] = tuple(values["shape"])
            values["bins"] = tuple(
                IntensityBin(**{**each, "histogram": tuple(each["histogram"])}) for each in values["bins"]
            )
            values["autocorrelation"] = tuple(Lag(**each) for each in values["autocorrelation"])
            values["image"] = None if values["image"] is None else ImageResidue(**values["image"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise FormatError(f"this is no fidelity report: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return "\n".join([*self._head(), "", *self._table(), "", *self._residual(), "", *self._size()])

    def _head(self) -> list[str]:
        """What was compared."""
        how = f"step {self.step:g} sigma" if self.step else "lossless"
        means = "expected counts as given" if self.means_given else "each pixel's mean over time"
        bound = "within" if self.within_bound else "BEYOND"
        return [
            f"Fidelity of {' x '.join(map(str, self.shape))} {self.dtype}, {how}, gain {self.conversion_gain:.4g} "
            f"ADU/photon, zero level {self.zero_level:.4g} ADU",
            f"by {means}; largest error {self.largest_error:.3f} sigma, {bound} half a step and half a count",
        ]

    def _table(self) -> list[str]:
        """Bias and variance by intensity."""
        lines = [f"{'photons':>10} {'pixels':>11} {'bias [sigma]':>18} {'variance added':>18} {'largest':>8}"]
        for each in self.bins:
            lines.append(
                f"{each.photons:>10.3g} {each.pixels:>11} {_with_error(each.bias, each.bias_error, 1, ''):>18} "
                f"{_with_error(each.inflation, each.inflation_error, 100, ' %'):>18} {each.largest_error:>8.3f}"
            )
        return [*lines, f"an even error of one step adds {100 * self.nominal_inflation:.2f} % of variance"]

    def _residual(self) -> list[str]:
        """Whether the residual is noise."""
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

    def _size(self) -> list[str]:
        """What was saved."""
        kind = "estimated from means over time" if self.limit_is_estimate else "at the given means"
        lines = []
        if self.ratio is not None and self.bits_per_pixel is not None:
            lines.append(
                f"stored in {self.bits_per_pixel:.3f} bits a pixel, {self.ratio:.2f} times smaller; the limit is"
            )
        else:
            lines.append("size unknown; the limit is")
        lines[0] += f" {self.limit_bits:.3f} bits ({kind}), without loss {self.lossless_limit_bits:.3f}"
        return lines

    def plot(self, where: str | os.PathLike[str] | Sequence[Axes]) -> Figure:
        """Draw the report: bias, variance, errors and residual in four panels.

        Parameters
        ----------
        where
            The file to write (PNG, PDF or SVG by its name), or four matplotlib axes to draw in.

        Returns
        -------
        matplotlib.figure.Figure
            The figure drawn in.

        Raises
        ------
        ImportError
            Without matplotlib, which is in the ``viz`` extra.
        """
        from .plots import draw_fidelity

        return draw_fidelity(self, where)


def _with_error(value: float | None, error: float | None, factor: float, unit: str) -> str:
    """A value and its standard error, as text."""
    if value is None or error is None:
        return "-"
    digits = 4 if factor == 1 else 2
    return f"{factor * value:+.{digits}f} +- {factor * error:.{digits}f}{unit}"
