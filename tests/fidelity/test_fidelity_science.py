"""The analysis behind the science report finds planted cells and spikes, and notices when a codec damages them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dj_photon_codecs import FormatError, InvalidMovieError, write_movie
from dj_photon_codecs.fidelity import ScienceReport, analyse, compare, oasis_ar1, science_report
from dj_photon_codecs.fidelity.analysis import Scene
from dj_photon_codecs.fidelity.detection import ActivityImage, matched_places
from dj_photon_codecs.fidelity.registration import Registration, moved_back
from dj_photon_codecs.fidelity.spikes import deconvolved, matched_events, trace_noise
from dj_photon_codecs.simulation import Recording, presets, simulate

SPEC = presets.two_photon_raster(seed=5, height_px=96, width_px=96, n_frames=240)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(SPEC)


@pytest.fixture(scope="module")
def report(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> ScienceReport:
    handle = write_movie(tmp_path_factory.mktemp("science") / "m", recording.photon_movie())
    return science_report(recording, handle, redrawn=(simulate(SPEC.with_noise_seed(n)) for n in (1, 2)))


def test_oasis_without_noise_gives_the_spikes() -> None:
    spikes = np.zeros(200)
    spikes[[10, 11, 40, 90, 150]] = [1.0, 0.5, 2.0, 1.0, 0.7]
    trace = np.zeros(200)
    for t in range(1, 200):
        trace[t] = 0.9 * trace[t - 1] + spikes[t]
    calcium, found = oasis_ar1(trace, 0.9)
    np.testing.assert_allclose(calcium, trace, atol=1e-12)
    np.testing.assert_allclose(found, spikes, atol=1e-12)


def test_oasis_solves_its_problem() -> None:
    """No other non-negative train costs less: the gradient is 0 at spikes and never negative (KKT conditions)."""
    rng = np.random.default_rng(0)
    trace, decay, penalty = rng.standard_normal(80) + 0.5, 0.8, 0.3
    calcium, spikes = oasis_ar1(trace, decay, penalty=penalty)
    kernel = np.tril(decay ** np.maximum(np.subtract.outer(np.arange(80), np.arange(80)), 0))
    spikes[0] = calcium[0]  # what the trace begins with counts as one
    np.testing.assert_allclose(kernel @ spikes, calcium, atol=1e-12)
    gradient = kernel.T @ (calcium - trace) + penalty
    assert gradient.min() > -1e-9
    assert np.abs(gradient[spikes > 1e-9]).max() < 1e-9


def test_deconvolution_recovers_planted_spikes_in_noise() -> None:
    rng = np.random.default_rng(1)
    spikes = rng.random(2000) < 0.01
    spikes[0] = False
    trace = np.zeros(2000)
    for t in range(1, 2000):
        trace[t] = 0.93 * trace[t - 1] + spikes[t]
    trace += 0.1 * rng.standard_normal(2000)
    assert trace_noise(trace) == pytest.approx(0.1, rel=0.15)
    found = np.flatnonzero(deconvolved(trace - np.percentile(trace, 20), 0.93))
    hits = matched_events(found, np.flatnonzero(spikes), 1)
    assert hits >= 0.95 * spikes.sum()
    assert hits >= 0.95 * len(found)


def test_events_have_one_partner_each() -> None:
    assert matched_events(np.array([5, 6]), np.array([5]), 2) == 1
    assert matched_events(np.array([4, 8]), np.array([6, 7]), 2) == 2
    assert matched_events(np.array([1]), np.array([9]), 2) == 0


def test_registration_measures_planted_shifts() -> None:
    rng = np.random.default_rng(2)
    rows, columns = np.indices((64, 72))
    spots = rng.uniform(8, 56, (40, 2))
    shifts = np.array([[0.0, 0.0], [3.0, -2.0], [-1.4, 0.6], [0.25, 5.5]])

    def scene(dy: float, dx: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        apart = ((rows - y - dy) ** 2 + (columns - x - dx) ** 2 for y, x in spots)
        return np.asarray(sum(np.exp(-a / 8) for a in apart))

    frames = np.array([scene(*shift) for shift in shifts]) + 0.02 * rng.standard_normal((4, 64, 72))
    found = Registration(scene(0, 0)).shifts(frames)
    np.testing.assert_allclose(found, shifts, atol=0.12)
    back = moved_back(frames, shifts)[:, 8:-8, 8:-8]
    assert np.abs(back - scene(0, 0)[8:-8, 8:-8]).max() < 0.25


def test_activity_shows_active_cells_rather_than_bright_ones() -> None:
    """Two blobs are active for several frames at a time; a third is as bright but constant."""
    rng = np.random.default_rng(3)
    rows, columns = np.indices((64, 64))
    blob = [np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18) for y, x in ((16, 16), (40, 44), (50, 14))]
    course = np.repeat(rng.random((40, 2)) < 0.3, 5, axis=0)
    frames = rng.standard_normal((200, 64, 64)) + 2 * blob[2]
    frames += 2 * np.einsum("tk,kyx->tyx", course, np.array(blob[:2]))
    activity = ActivityImage((64, 64), 4.0)
    activity.add(frames[:70])
    activity.add(frames[70:])
    cells = activity.cells()
    assert sorted(matched_places(cells, np.array([[16, 16], [40, 44], [50, 14]]), 3).tolist())[-2:] == [0, 1]
    assert activity.image()[50, 14] < activity.image()[16, 16] / 3


def test_noise_is_not_taken_for_activity() -> None:
    """Noise and quantisation, which are new in each frame, leave little of their standard deviation."""
    activity = ActivityImage((64, 64), 1.0)
    activity.add(np.random.default_rng(6).standard_normal((900, 64, 64)))
    quiet = ActivityImage((64, 64), 1.0)
    quiet.add(np.repeat(np.random.default_rng(6).standard_normal((450, 64, 64)), 2, axis=0))
    assert np.median(activity.image()) < 0.2 * np.median(quiet.image())


def test_a_dip_below_the_baseline_costs_no_spike() -> None:
    """A return to 0 from below is not a rise in fluorescence."""
    trace = np.concatenate([np.zeros(5), np.full(5, -1.0), np.full(5, 0.4)])
    assert not oasis_ar1(trace, 0.9, smallest=0.5)[1].any()


def test_places_are_matched_once_and_nearest_first() -> None:
    found = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    assert matched_places(found, np.array([[0.0, 1.2], [5.0, 5.0]]), 3).tolist() == [-1, 0, -1]
    assert matched_places(found, np.empty((0, 2)), 3).tolist() == [-1, -1, -1]


@pytest.mark.slow
def test_an_analysis_finds_the_truth(report: ScienceReport) -> None:
    """On raw counts, motion, cells, traces and spikes are right."""
    assert report.raw.motion_error_px is not None
    assert report.raw.motion_error_px < 0.15
    assert report.raw.trace_truth > 0.9
    assert report.raw.recall > 0.5
    assert report.raw.precision > 0.7
    assert report.raw.spike_recall > 0.6
    assert report.raw.spike_precision > 0.6


def test_storing_changes_less_than_other_noise(report: ScienceReport) -> None:
    """At the default step, traces change as the added variance predicts, and cells no more than with redrawn noise."""
    assert report.step == 0.5
    np.testing.assert_allclose(report.change.traces, report.expected_traces, atol=1e-3)
    assert np.median(report.change.traces) > 0.999
    assert report.cells_within_redraws
    for other in report.redrawn_change:
        assert np.median(report.change.spikes) > np.median(other.spikes)
        assert np.median(report.change.traces) > np.median(other.traces)
        assert report.change.motion_px is not None
        assert other.motion_px is not None
        assert report.change.motion_px < other.motion_px / 3


def test_the_raw_movie_agrees_with_itself(recording: Recording) -> None:
    report = science_report(recording, recording.observed)
    assert report.raw == report.stored
    assert report.change.motion_px == 0
    assert report.change.dff_bias == (0.0,) * report.cells
    assert min(report.change.traces) == pytest.approx(1)
    assert report.expected_traces == (1.0,) * report.cells
    assert report.cells_within_redraws is None


def test_a_damaged_movie_is_noticed(recording: Recording) -> None:
    """Counts several times as noisy, on a higher pedestal, change traces and dF/F."""
    scene = Scene.of(recording)
    raw = analyse(recording.observed, scene)
    rng = np.random.default_rng(4)
    spoilt = recording.observed + 250 * rng.standard_normal(recording.observed.shape) + 20
    change = compare(scene, raw, spoilt).change
    assert np.median(change.traces) < 0.995
    assert np.median(change.dff_bias) < -0.02


def test_the_report_goes_to_json_and_back_and_reads(report: ScienceReport, tmp_path: Path) -> None:
    assert ScienceReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report
    with pytest.raises(FormatError, match="not a science report"):
        ScienceReport.from_dict({"step": 1})
    for words in ("detectable cells, step 0.5 sigma", "spikes, recall", "2 redrawn", "follows from the added variance"):
        assert words in str(report)
    assert repr(report) == f"<ScienceReport: {str(report).splitlines()[0]}>"
    report.plot(tmp_path / "science.png")
    assert (tmp_path / "science.png").read_bytes().startswith(b"\x89PNG")


def test_a_recording_without_cells_to_follow_says_so() -> None:
    dark = simulate(presets.single_molecule_tirf(height_px=32, width_px=32, n_frames=3))
    with pytest.raises(InvalidMovieError, match="none of the recording's 0 cells is detectable"):
        science_report(dark, dark.observed)
