"""Draw the photon transfer curve: measured points, and the line of the noise model if known."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._arguments import check
from ..calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 280, 190  # size of the drawing [px]
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 40  # margins around the axes [px]
_LARGEST = 1e100  # larger means and variances come from a corrupted record, not from a sensor
#: Line colour, readable on white and black.
_LINE = "#2f8fd0"
_PHOTONS = 100  # length of the line without measured points [photons]
_GIVEN = "noise model as given; nothing was measured"
_COLUMNS, _ROWS = 60, 16  # size of the text drawing [characters]


@dataclass(frozen=True)
class _CurveAxes:
    """Points and line to draw, and axis ranges: mean [ADU] horizontally, variance [ADU^2] vertically."""

    points: tuple[tuple[float, float], ...]
    line: tuple[tuple[float, float], tuple[float, float]] | None
    means: tuple[float, float]
    variances: tuple[float, float]

    @classmethod
    def of(cls, calibration: Calibration) -> _CurveAxes | None:
        """Axes for a measured curve or a given noise model; None if there is nothing to draw."""
        check(
            isinstance(calibration, Calibration),
            "calibration",
            calibration,
            "a Calibration: that of a movie is movie.calibration, and calibrate(counts) measures one",
        )
        points = tuple((mean, variance) for mean, variance, _ in calibration.curve)
        line = None
        if calibration.verdict != "unknown":
            zero = calibration.zero_level
            brightest = max((mean for mean, _ in points), default=zero + _PHOTONS * calibration.conversion_gain)
            line = ((zero, 0.0), (brightest, calibration.conversion_gain * (brightest - zero)))
        drawn = points + (line or ())
        if not drawn or not all(abs(value) < _LARGEST for point in drawn for value in point):
            return None
        (left, right), (bottom, top) = (_range(list(values)) for values in zip(*drawn, strict=True))
        bottom = 0.0 if min(variance for _, variance in drawn) >= 0 else bottom
        return cls(points, line, (left, right), (bottom, max(top, 1e-100)))

    def place(self, point: tuple[float, float], width: float, height: float) -> tuple[float, float]:
        """Position of a point relative to the upper left corner of a drawing of this size."""
        ranges = zip(point, (self.means, self.variances), strict=True)
        right, up = ((value - low) / (high - low) for value, (low, high) in ranges)
        return width * right, height * (1 - up)


def _range(values: list[float]) -> tuple[float, float]:
    """Non-empty range around the values, with a margin."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda n: abs(n * power - rough))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def transfer_curve_svg(calibration: Calibration, color: str = "currentColor") -> str:
    """Draw the photon transfer curve, and the line of the noise model if known, as one ``<svg>`` element.

    Text and axes have the given colour; by default that of the surrounding text, which is readable on any background.
    If nothing was measured, the drawing says so.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="photon transfer curve" font-family="sans-serif" font-size="10" fill="{color}">'
    )
    axes = _CurveAxes.of(calibration)
    if axes is None:
        middle = f'x="{_WIDTH / 2:g}" y="{_HEIGHT / 2:g}" text-anchor="middle"'
        return f"{head}<text {middle}>no photon transfer curve was measured</text></svg>"
    parts = [head, f'<g transform="translate({_LEFT},{_TOP})">']
    parts.append(
        f'<path d="M0 0V{height}H{width}" fill="none" stroke="{color}" stroke-opacity="0.5" stroke-width="1"/>'
    )
    for mean in _ticks(*axes.means):
        x, _ = axes.place((mean, 0), width, height)
        parts.append(f'<text x="{x:.1f}" y="{height + 13}" text-anchor="middle">{mean:g}</text>')
    for variance in _ticks(*axes.variances):
        _, y = axes.place((0, variance), width, height)
        parts.append(f'<text x="-5" y="{y + 3:.1f}" text-anchor="end">{variance:g}</text>')
    if axes.line is not None:
        (x0, y0), (x1, y1) = (axes.place(end, width, height) for end in axes.line)
        parts.append(
            f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{_LINE}" stroke-width="1.5"/>'
        )
    for point in axes.points:
        x, y = axes.place(point, width, height)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill-opacity="0.65"/>')
    if not axes.points:
        parts.append(f'<text x="8" y="10">{_GIVEN}</text>')
    parts.append(f'<text x="{width / 2:g}" y="{height + 30}" text-anchor="middle">mean [ADU]</text>')
    parts.append(
        f'<text transform="translate({12 - _LEFT},{height / 2:g}) rotate(-90)" text-anchor="middle">'
        "variance [ADU\N{SUPERSCRIPT TWO}]</text></g></svg>"
    )
    return "".join(parts)


def transfer_curve_text(calibration: Calibration) -> str:
    """Draw the photon transfer curve as 18 lines of ASCII: ``o`` for measured points, ``.`` for the noise model.

    A model without measured points adds a line; with nothing to draw, the result is one line.
    """
    axes = _CurveAxes.of(calibration)
    if axes is None:
        return "no photon transfer curve was measured"
    grid = [[" "] * _COLUMNS for _ in range(_ROWS)]
    marks = [(point, "o") for point in axes.points]
    if axes.line is not None:
        (mean0, variance0), (mean1, variance1) = axes.line
        shares = [n / (2 * _COLUMNS) for n in range(2 * _COLUMNS + 1)]
        line = [(mean0 + share * (mean1 - mean0), variance0 + share * (variance1 - variance0)) for share in shares]
        marks = [*((point, ".") for point in line), *marks]
    for point, letter in marks:
        column, row = axes.place(point, _COLUMNS, _ROWS)
        grid[min(int(row), _ROWS - 1)][min(int(column), _COLUMNS - 1)] = letter
    top, bottom = (f"{value:.4g}" for value in reversed(axes.variances))
    margin = max(len(top), len(bottom), len("variance"))
    names = [top, "variance", "[ADU^2]", *[""] * (_ROWS - 4), bottom]
    lines = [f"{name:>{margin}} |{''.join(row).rstrip()}" for name, row in zip(names, grid, strict=True)]
    left, right = (f"{value:.4g}" for value in axes.means)
    middle = "mean [ADU]"
    below = f"{left}{middle:^{max(len(middle) + 2, _COLUMNS - len(left) - len(right))}}{right}"
    note = [] if axes.points else [_GIVEN]
    return "\n".join([*note, *lines, f"{'':>{margin}} +{'-' * _COLUMNS}", f"{'':>{margin}}  {below}"])


def save_transfer_curve(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Save the photon transfer curve in any format that matplotlib writes, such as PNG or PDF."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures other than SVG need matplotlib: pip install "dj-photon-codecs[viz]"') from error
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    draw_transfer_curve(figure.subplots(), calibration)
    figure.savefig(path, dpi=130)


def draw_transfer_curve(axis: Axes, calibration: Calibration) -> None:
    """Draw the measured points, and the line of the noise model if it is known."""
    drawn = _CurveAxes.of(calibration)
    if drawn is None:
        reason = f":\n{calibration.reason}" if calibration.reason else ""
        axis.text(0.5, 0.5, f"no photon transfer curve was measured{reason}", ha="center", va="center", wrap=True)
        axis.set_axis_off()
        return
    if drawn.points:
        means, variances = np.transpose(drawn.points)
        axis.scatter(means, variances, s=10, color="0.45", zorder=3, label="measured")
    if drawn.line is not None:
        label = "noise model" if drawn.points else _GIVEN
        axis.plot(*np.transpose(drawn.line), color="C0", label=label)
        axis.annotate("zero level", drawn.line[0], (0.3, 0.06), textcoords="axes fraction",
                      arrowprops={"arrowstyle": "->"}, va="center")  # fmt: skip
        gain = f"slope: {calibration.conversion_gain:.4g}\nADU/photon"  # short, because panels may be narrow
        axis.text(0.95, 0.16, gain, transform=axis.transAxes, ha="right")
    axis.legend(fontsize="small", loc="upper left" if calibration.verdict != "unknown" else "lower left")
    axis.set(title="photon transfer curve", xlabel="mean [ADU]", ylabel="variance [ADU$^2$]")
    axis.set_ylim(min(0, axis.get_ylim()[0]), None)
