"""Draw the photon transfer curve with matplotlib, which no other module of ``viz`` imports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..calibration import Calibration
from .curve import GIVEN, CurveAxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    drawn = CurveAxes.of(calibration)
    if drawn is None:
        reason = f":\n{calibration.reason}" if calibration.reason else ""
        axis.text(0.5, 0.5, f"no photon transfer curve was measured{reason}", ha="center", va="center", wrap=True)
        axis.set_axis_off()
        return
    if drawn.points:
        means, variances = np.transpose(drawn.points)
        axis.scatter(means, variances, s=10, color="0.45", zorder=3, label="measured")
    if drawn.line is not None:
        label = "noise model" if drawn.points else GIVEN
        axis.plot(*np.transpose(drawn.line), color="C0", label=label)
        axis.annotate("zero level", drawn.line[0], (0.3, 0.06), textcoords="axes fraction",
                      arrowprops={"arrowstyle": "->"}, va="center")  # fmt: skip
        gain = f"slope: {calibration.conversion_gain:.4g}\nADU/photon"  # short, because panels may be narrow
        axis.text(0.95, 0.16, gain, transform=axis.transAxes, ha="right")
    axis.legend(fontsize="small", loc="upper left" if calibration.verdict != "unknown" else "lower left")
    axis.set(title="photon transfer curve", xlabel="mean [ADU]", ylabel="variance [ADU$^2$]")
    axis.set_ylim(min(0, axis.get_ylim()[0]), None)
