"""The photon transfer curve: what was measured as points, and the line of the noise model where it is reliable."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..calibration import Calibration

#: Size of the drawing, and of the frame of its axes within it [px].
_WIDTH, _HEIGHT = 280, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 40

#: Means and variances beyond are of no sensor, but of a record that was altered.
_LARGEST = 1e100

#: Readable on white and on black.
_LINE = "#2f8fd0"

#: Size of the drawing in letters.
_COLUMNS, _ROWS = 60, 16


@dataclass(frozen=True)
class _Axes:
    """What is drawn, and the ranges that it is drawn in: mean [ADU] to the right, variance [ADU^2] upwards."""

    points: tuple[tuple[float, float], ...]
    line: tuple[tuple[float, float], tuple[float, float]] | None
    means: tuple[float, float]
    variances: tuple[float, float]

    @classmethod
    def of(cls, calibration: Calibration) -> _Axes | None:
        """The axes around a curve; None where there are no points that could be drawn."""
        points = tuple((mean, variance) for mean, variance, _ in calibration.curve)
        line = None
        if points and calibration.reliable:
            brightest = max(mean for mean, _ in points)
            zero = calibration.zero_level
            line = ((zero, 0.0), (brightest, calibration.conversion_gain * (brightest - zero)))
        drawn = points + (line or ())
        if not points or not all(abs(value) < _LARGEST for point in drawn for value in point):
            return None
        (left, right), (bottom, top) = (_range(list(values)) for values in zip(*drawn, strict=True))
        return cls(
            points,
            line,
            (left, right),
            (0.0 if min(variance for _, variance in drawn) >= 0 else bottom, max(top, 1e-100)),
        )

    def place(self, point: tuple[float, float], width: float, height: float) -> tuple[float, float]:
        """Where a point lies from the upper left corner of a drawing of some size."""
        shares = [
            (value - low) / (high - low) for value, (low, high) in zip(point, (self.means, self.variances), strict=True)
        ]
        return width * shares[0], height * (1 - shares[1])


def _range(values: list[float]) -> tuple[float, float]:
    """A range with room around the values, never empty."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda n: abs(n * power - rough))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def transfer_curve_svg(calibration: Calibration) -> str:
    """The photon transfer curve as an SVG element, for a page or for a file.

    Letters and axes have the colour of the text around it, so that it is readable on any background.

    Parameters
    ----------
    calibration
        Its ``curve`` is drawn, and the line of the noise model if it is reliable.

    Returns
    -------
    str
        One ``<svg>`` element; where nothing was measured it says so.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'role="img" aria-label="photon transfer curve" font-family="sans-serif" font-size="10" fill="currentColor">'
    )
    axes = _Axes.of(calibration)
    if axes is None:
        middle = f'x="{_WIDTH / 2:g}" y="{_HEIGHT / 2:g}" text-anchor="middle"'
        return f"{head}<text {middle}>no photon transfer curve was measured</text></svg>"
    parts = [head, f'<g transform="translate({_LEFT},{_TOP})">']
    parts.append(
        f'<path d="M0 0V{height}H{width}" fill="none" stroke="currentColor" stroke-opacity="0.5" stroke-width="1"/>'
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
    parts.append(f'<text x="{width / 2:g}" y="{height + 30}" text-anchor="middle">mean [ADU]</text>')
    parts.append(
        f'<text transform="translate({12 - _LEFT},{height / 2:g}) rotate(-90)" text-anchor="middle">'
        "variance [ADU\N{SUPERSCRIPT TWO}]</text></g></svg>"
    )
    return "".join(parts)


def transfer_curve_text(calibration: Calibration) -> str:
    """The photon transfer curve in letters, for a terminal: ``o`` for what was measured, ``.`` for the noise model.

    Parameters
    ----------
    calibration
        As in :func:`transfer_curve_svg`.

    Returns
    -------
    str
        18 lines in ASCII; one line where nothing was measured.
    """
    axes = _Axes.of(calibration)
    if axes is None:
        return "no photon transfer curve was measured"
    grid = [[" "] * _COLUMNS for _ in range(_ROWS)]
    if axes.line is not None:
        (mean0, variance0), (mean1, variance1) = axes.line
        for n in range(2 * _COLUMNS + 1):
            share = n / (2 * _COLUMNS)
            point = (mean0 + share * (mean1 - mean0), variance0 + share * (variance1 - variance0))
            _put(grid, axes, point, ".")
    for point in axes.points:
        _put(grid, axes, point, "o")
    top, bottom = (f"{value:.4g}" for value in reversed(axes.variances))
    margin = max(len(top), len(bottom), len("variance"))
    names = [top, "variance", "[ADU^2]", *[""] * (_ROWS - 4), bottom]
    lines = [f"{name:>{margin}} |{''.join(row).rstrip()}" for name, row in zip(names, grid, strict=True)]
    left, right = (f"{value:.4g}" for value in axes.means)
    middle = "mean [ADU]"
    below = f"{left}{middle:^{max(len(middle) + 2, _COLUMNS - len(left) - len(right))}}{right}"
    return "\n".join([*lines, f"{'':>{margin}} +{'-' * _COLUMNS}", f"{'':>{margin}}  {below}"])


def _put(grid: list[list[str]], axes: _Axes, point: tuple[float, float], letter: str) -> None:
    """Set the letter of the cell that a point is in."""
    column, row = axes.place(point, _COLUMNS, _ROWS)
    grid[min(int(row), _ROWS - 1)][min(int(column), _COLUMNS - 1)] = letter
