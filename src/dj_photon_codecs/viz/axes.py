"""The photon transfer curve by matplotlib, for files other than SVG; the only module of the room that imports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_transfer_curve(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """Draw the photon transfer curve to a file: PNG, PDF or what else matplotlib knows by the name.

    Raises
    ------
    ImportError
        Without matplotlib, which is in the ``viz`` extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures but SVG need matplotlib: pip install "dj-photon-codecs[viz]"') from error
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    draw_transfer_curve(figure.subplots(), calibration)
    figure.savefig(path, dpi=130)


def draw_transfer_curve(axis: Axes, calibration: Calibration) -> None:
    """Draw the points that were measured, and the line of the noise model if it is reliable."""
    if calibration.curve:
        mean, variance, _ = np.transpose(calibration.curve)
        axis.scatter(mean, variance, s=10, color="0.45", zorder=3, label="measured")
        if calibration.reliable:
            gain, zero = calibration.conversion_gain, calibration.zero_level
            ends = np.array([zero, mean.max()])
            axis.plot(ends, gain * (ends - zero), color="C0", label="noise model")
            axis.annotate("zero level", (zero, 0), (0.3, 0.06), textcoords="axes fraction",
                          arrowprops={"arrowstyle": "->"}, va="center")  # fmt: skip
            axis.text(0.95, 0.3, f"slope = gain\n= {gain:.1f}", transform=axis.transAxes, ha="right")
        axis.legend(fontsize="small", loc="upper left" if calibration.reliable else "lower left")
    axis.set(xlabel="mean [ADU]", ylabel="variance [ADU$^2$]", ylim=(min(0, axis.get_ylim()[0]), None))
