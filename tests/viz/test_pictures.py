"""Pictures are labelled: axes with units, one unit per panel, and an explanation instead of empty axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from dj_photon_codecs import Calibration, calibrate, write_movie
from dj_photon_codecs.fidelity import FidelityReport, fidelity_report, science_report
from dj_photon_codecs.simulation import presets, simulate
from dj_photon_codecs.viz import transfer_curve_svg, transfer_curve_text
from dj_photon_codecs.viz.curve import draw_transfer_curve, save_transfer_curve

GIVEN = Calibration.given(20.0, 100.0)


@pytest.fixture(scope="module")
def report() -> FidelityReport:
    counts = (100 + 20 * np.random.default_rng(0).poisson(np.geomspace(0.5, 50, 64), (40, 64, 64))).astype(np.uint16)
    return fidelity_report(counts, write_movie({}, counts, calibration=GIVEN))


def axes_of(n: int) -> Any:
    return np.atleast_1d(Figure().subplots(1, n))


def words(axis: Any) -> str:
    """All text in a panel."""
    legend = axis.get_legend()
    texts = [*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label, *(legend.get_texts() if legend else ())]
    return " | ".join(text.get_text() for text in texts)


def test_a_given_noise_model_is_drawn_as_a_line_and_labelled_as_given() -> None:
    [axis] = axes_of(1)
    draw_transfer_curve(axis, GIVEN)
    (x0, y0), (x1, y1) = axis.lines[0].get_xydata()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(20)
    assert (x0, y0) == (100, 0)
    assert "noise model as given; nothing was measured" in words(axis)
    svg, text = transfer_curve_svg(GIVEN), transfer_curve_text(GIVEN)
    assert "<line" in svg
    assert "<circle" not in svg
    assert "noise model as given; nothing was measured" in svg
    assert text.startswith("noise model as given; nothing was measured\n")
    assert ".." in text


def test_a_picture_with_nothing_to_draw_says_why(tmp_path: Path) -> None:
    unknown = calibrate(np.full((20, 32, 32), 7, np.uint16))
    [axis] = axes_of(1)
    draw_transfer_curve(axis, unknown)
    assert not axis.axison
    assert f"no photon transfer curve was measured:\n{unknown.reason}" in words(axis)
    assert "no photon transfer curve was measured" in transfer_curve_svg(unknown)
    save_transfer_curve(unknown, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_transfer_curve_has_its_units() -> None:
    counts = (100 + 20 * np.random.default_rng(0).poisson(np.linspace(1, 30, 64), (40, 64, 64))).astype(np.uint16)
    [axis] = axes_of(1)
    draw_transfer_curve(axis, calibrate(counts))
    for word in ("mean [ADU]", "variance [ADU$^2$]", "ADU/photon", "measured", "noise model"):
        assert word in words(axis)


def test_errors_have_one_unit_in_title_and_axis(report: FidelityReport) -> None:
    axes = axes_of(4)
    report.plot(axes)
    assert f"largest: {report.largest_error / report.step:.2f} steps" in words(axes[2])
    assert "[steps of 0.5 noise standard deviations]" in words(axes[2])
    assert "sigma" not in words(axes[2])
    lossless = replace(report, step=0.0)
    axes = axes_of(4)
    lossless.plot(axes)
    assert f"largest: {report.largest_error:.2f}" in words(axes[2])
    assert "[noise standard deviations]" in words(axes[2])
    assert "0.00 %" not in words(axes[1])


def test_a_bin_of_few_pixels_does_not_flatten_the_panel(report: FidelityReport) -> None:
    few = replace(report.bins[0], pixels=1, inflation=0.21, inflation_error=0.1, bias=-3.0, bias_error=0.1)
    axes, usual = axes_of(4), axes_of(4)
    report.plot(usual)
    replace(report, bins=(few, *report.bins[1:])).plot(axes)
    assert axes[1].get_ylim()[1] < 10
    assert "+21" in words(axes[1])  # its value is written at the edge
    assert axes[0].get_ylim()[0] > -1
    assert "-3" in words(axes[0])
    assert "+21" not in words(usual[1])


def test_every_panel_names_both_of_its_axes(report: FidelityReport) -> None:
    recording = simulate(presets.two_photon_raster(height_px=96, width_px=96, n_frames=60))
    stored = write_movie({}, recording.observed, calibration=recording.calibration)
    spec: Any = recording.spec
    other = simulate(spec.with_noise_seed(1))
    science = science_report(recording, stored, redrawn=[other])
    for drawn in (report, science):
        axes = axes_of(4)
        drawn.plot(axes)
        for axis in axes:
            assert axis.get_title()
            assert axis.get_ylabel()
            assert axis.get_xlabel() or len({tick.get_text() for tick in axis.get_xticklabels()}) > 1
