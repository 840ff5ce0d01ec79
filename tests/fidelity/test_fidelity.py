"""The fidelity report finds planted changes, and none in an untouched movie."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dj_photon_codecs import Calibration, CalibrationError, FormatError, InvalidMovieError, PhotonMovie, write_movie
from dj_photon_codecs.anscombe.cells import cells_of
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.errors import ConfigurationError
from dj_photon_codecs.fidelity import FidelityReport, exact_errors, fidelity_report

ONE_TO_ONE = Calibration.given(1.0, 0.0)
Counts = npt.NDArray[Any]


def picture(height: int = 48, width: int = 64) -> npt.NDArray[np.float64]:
    """Expected photons from 4 to 80, darkest at the left."""
    return np.asarray(np.outer(np.ones(height), np.geomspace(4, 80, width)))


def movie(rng: np.random.Generator, frames: int = 60, gain: float = 30.0, zero: float = 100.0) -> Counts:
    """Counts of a scene at rest, with enough read noise to hide the lattice of photon numbers."""
    photons = rng.poisson(picture(), (frames, *picture().shape)) + 0.5 * rng.standard_normal((frames, *picture().shape))
    return np.clip(np.rint(zero + gain * photons), 0, 65535).astype(np.uint16)


def model(gain: float = 30.0, zero: float = 100.0) -> Calibration:
    return Calibration.given(gain, zero - gain * 0.5**2)


def counted(report: FidelityReport, low: float = 0.0) -> list[Any]:
    """The bins above an intensity that contain enough pixels."""
    return [each for each in report.bins if each.photons > low and each.pixels > 2000]


def test_an_untouched_movie_has_no_errors() -> None:
    counts = movie(np.random.default_rng(0))
    report = fidelity_report(counts, counts.copy(), calibration=model())
    assert report.largest_error == 0
    assert report.within_bound
    assert report.step == 0
    assert {(each.bias, each.inflation, each.mean_square) for each in report.bins} == {(0.0, 0.0, 0.0)}
    assert {lag.correlation for lag in report.autocorrelation} == {0.0}
    assert report.image is not None
    assert report.image.correlation == report.image.amplitude == 0
    assert report.limit_bits == report.lossless_limit_bits
    assert sum(report.histogram) == report.histogram[len(report.histogram) // 2] == counts.size


def test_a_lossless_handle_has_no_errors(tmp_path: Path) -> None:
    counts = movie(np.random.default_rng(1), frames=20)
    handle = write_movie(tmp_path / "m", PhotonMovie(counts, calibration=model(), profile="lossless"))
    report = fidelity_report(counts, handle)
    assert (report.step, report.largest_error, report.within_bound) == (0, 0, True)
    assert report.ratio == pytest.approx(handle.compression_ratio)


def test_a_planted_bias_is_found_at_its_intensity() -> None:
    """1/20 of the noise, only in pixels above 30 photons."""
    rng = np.random.default_rng(2)
    counts = movie(rng).astype(np.float64)
    sigma = 30.0 * np.sqrt(picture())
    stored = counts + 0.05 * sigma * (picture() > 32) + 0.1 * sigma * rng.standard_normal(counts.shape)
    report = fidelity_report(counts, stored, calibration=model(), means=100.0 + 30.0 * picture())
    for each in counted(report):
        assert each.bias == pytest.approx(0.05 * (each.low >= 32), abs=4 * each.bias_error)
        assert each.bias_error < 0.01


def test_variance_inflation_of_a_known_quantiser() -> None:
    """Uniform errors of one step, independent of the counts, add step^2 / 12 of the variance, at every intensity."""
    rng = np.random.default_rng(3)
    counts = movie(rng, frames=100).astype(np.float64)
    sigma = 30.0 * np.sqrt(picture() + 0.25)
    for step in (0.5, 1.0):
        stored = counts + step * sigma * rng.uniform(-0.5, 0.5, counts.shape)
        report = fidelity_report(counts, stored, calibration=model(), step=step)
        for each in counted(report):
            assert each.inflation == pytest.approx(step**2 / 12, abs=4 * each.inflation_error)
            assert each.mean_square == pytest.approx(step**2 / 12, rel=0.05)


def test_stored_movie_meets_the_targets_where_noise_is_off_the_lattice(tmp_path: Path) -> None:
    """DESIGN invariant 1, and bias under 0.01 sigma and variance within 10 % of step^2/12 above 10 photons."""
    counts = movie(np.random.default_rng(4), frames=300)
    report = fidelity_report(counts, write_movie(tmp_path / "m", PhotonMovie(counts, calibration=model())))
    assert report.step == 0.5
    assert report.within_bound
    bins = counted(report, 10.0)
    assert len(bins) >= 5
    for each in bins:
        assert abs(each.bias) < 0.01 + 3 * each.bias_error
        assert each.inflation == pytest.approx(0.25 / 12, abs=0.1 * 0.25 / 12 + 4 * each.inflation_error)
    assert max(abs(lag.correlation / lag.spread) for lag in report.autocorrelation) < 4.5


def test_an_error_beyond_half_a_step_is_found() -> None:
    counts = movie(np.random.default_rng(5), frames=10).astype(np.float64)
    stored = counts.copy()
    stored[7, 20, 30] += 600
    report = fidelity_report(counts, stored, calibration=model(), step=0.5)
    assert not report.within_bound
    sigma = 30 * math.sqrt((stored[7, 20, 30] - model().zero_level) / 30 + 3 / 8)
    assert report.largest_error == pytest.approx(600 / sigma)
    assert report.histogram[-1] == 1


def test_a_planted_image_residue_is_found() -> None:
    """1/100 of the noise, in proportion to the image, exceeds the spread; without it nothing does."""
    rng = np.random.default_rng(6)
    counts = movie(rng, frames=400).astype(np.float64)
    noise = 0.14 * 30 * np.sqrt(picture() + 3 / 8) * rng.standard_normal(counts.shape)
    clean = fidelity_report(counts, counts + noise, calibration=model()).image
    contrast = (picture() - picture().mean()) / picture().std()
    leak = 0.01 * contrast * 30 * np.sqrt(picture() + 3 / 8)
    leaky = fidelity_report(counts, counts + noise + leak, calibration=model()).image
    assert clean is not None
    assert leaky is not None
    assert abs(clean.correlation) < 4 * clean.spread
    assert leaky.correlation > 20 * leaky.spread
    assert leaky.amplitude == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["time", "rows", "columns"])
def test_a_residual_that_repeats_is_found_in_its_direction(axis: int) -> None:
    rng = np.random.default_rng(7)
    counts = movie(rng, frames=80).astype(np.float64)
    noise = rng.standard_normal(counts.shape)
    stored = counts + 5 * (noise + 0.5 * np.roll(noise, 1, axis))
    report = fidelity_report(counts, stored, calibration=Calibration.given(1e9, -1e15))  # even noise everywhere
    for lag in report.autocorrelation:
        neighbour = (lag.frames, lag.rows, lag.columns) == tuple(int(i == axis) for i in range(3))
        assert lag.correlation == pytest.approx(0.4 * neighbour, abs=5 * lag.spread)


def test_the_report_goes_to_json_and_back(tmp_path: Path) -> None:
    counts = movie(np.random.default_rng(8), frames=12)
    report = fidelity_report(counts, write_movie(tmp_path / "m", PhotonMovie(counts, calibration=model())))
    assert FidelityReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report
    with pytest.raises(FormatError, match="not a fidelity report"):
        FidelityReport.from_dict({"shape": [1, 2, 3]})


def test_the_report_reads_as_text_and_as_a_picture(tmp_path: Path) -> None:
    counts = movie(np.random.default_rng(9), frames=12)
    report = fidelity_report(counts, write_movie(tmp_path / "m", PhotonMovie(counts, calibration=model())))
    for words in ("step 0.5 sigma", "within half a step", "2.08 %", "times smaller", "estimated from means over time"):
        assert words in str(report)
    assert repr(report) == f"<FidelityReport: {str(report).splitlines()[0]}>"  # without its histograms
    report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    from matplotlib.figure import Figure

    figure = Figure()
    assert report.plot(list(figure.subplots(1, 4))) is figure
    with pytest.raises(ValueError, match="4 panels, got 2 axes"):
        report.plot(list(figure.subplots(1, 2)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_movie(tmp_path: Path) -> None:
    """DESIGN invariant 7: four times the frames, the same peak."""
    peaks = []
    for frames in (96, 384):
        path = tmp_path / f"{frames}.npy"
        counts = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(frames, 128, 128))
        counts[:] = np.random.default_rng(frames).poisson(5, counts.shape)
        counts.flush()
        mapped = np.load(path, mmap_mode="r")
        tracemalloc.start()
        fidelity_report(mapped, mapped, calibration=ONE_TO_ONE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_the_limit_of_a_dithered_movie_is_that_of_plain_codes(tmp_path: Path) -> None:
    """Dither spreads counts without adding information, so the limit is that of the codes."""
    rng = np.random.default_rng(11)
    counts = np.rint(100 + 30 * rng.poisson(9.0, (30, 64, 64)) + rng.normal(0, 15, (30, 64, 64))).astype(np.uint16)
    handle = write_movie(tmp_path / "m", counts, calibration=Calibration.given(30.0, 92.5), progress=False)
    report = fidelity_report(counts, handle, means=np.full((64, 64), 370.0))
    codes = cells_of(TransformParameters(92.5, 30.0)).numbers(counts)
    law = np.unique(codes, return_counts=True)[1] / codes.size
    assert report.limit_bits == pytest.approx(-(law * np.log2(law)).sum(), abs=0.01)
    assert report.bits_per_pixel is not None
    assert report.limit_bits < report.bits_per_pixel < report.lossless_limit_bits


def test_entropy_limit_is_that_of_the_law() -> None:
    """For Poisson counts of one mean, it is the entropy of their distribution, computed by summation."""
    counts = np.random.default_rng(10).poisson(7.0, (30, 64, 64)).astype(np.uint16)
    n = np.arange(60)
    law = np.exp(n * math.log(7.0) - 7.0 - np.concatenate([[0], np.cumsum(np.log(n[1:]))]))
    report = fidelity_report(counts, counts, calibration=ONE_TO_ONE, means=np.full((64, 64), 7.0))
    assert report.limit_bits == pytest.approx(-(law * np.log2(law)).sum(), abs=0.01)
    assert not report.limit_is_estimate


def test_means_of_every_frame_are_taken_as_given() -> None:
    """With activity in time, the true means put each frame's pixels where they belong."""
    rng = np.random.default_rng(11)
    means = np.where(np.arange(40)[:, None, None] % 2, 5.0, 50.0) * np.ones((40, 32, 32))
    counts = rng.poisson(means).astype(np.uint16)
    report = fidelity_report(counts, counts, calibration=ONE_TO_ONE, means=means)
    assert [(each.photons, each.pixels) for each in report.bins] == [(5.0, counts.size / 2), (50.0, counts.size / 2)]
    assert report.means_given


def test_refused_comparisons_say_why() -> None:
    counts = movie(np.random.default_rng(12), frames=4)
    with pytest.raises(CalibrationError, match=r"ndarray carries no noise model: pass calibration="):
        fidelity_report(counts, counts)
    with pytest.raises(InvalidMovieError, match="the raw movie has shape"):
        fidelity_report(counts, counts[:3], calibration=model())
    with pytest.raises(InvalidMovieError, match="means have shape"):
        fidelity_report(counts, counts, calibration=model(), means=np.zeros(3))
    with pytest.raises(InvalidMovieError, match="single frame"):
        fidelity_report(counts[:1], counts[:1], calibration=model())


def test_exact_errors_are_those_of_many_draws() -> None:
    """The sum over the distribution agrees with four million draws, on a lattice and with read noise."""
    rng = np.random.default_rng(13)
    for gain, pedestal, read_noise, mean in ((1.0, 0.0, 0.0, 5.3), (2.3, 10.0, 0.5, 1.4), (100.0, 157.0, 0.0, 0.4)):
        exact = exact_errors(mean, conversion_gain=gain, pedestal=pedestal, read_noise=read_noise)
        photons = rng.poisson(mean, 4_000_000) + read_noise * rng.standard_normal(4_000_000)
        counts = np.clip(np.rint(pedestal + gain * photons), 0, 65535).astype(np.uint16)
        from dj_photon_codecs import AnscombeTransformV2

        codec = AnscombeTransformV2(pedestal - gain * read_noise**2, gain, "int32", dither="position")
        stored = codec.decode(codec.encode(counts)).astype(float)
        raw = counts.astype(float)
        assert exact.noise[0] == pytest.approx(raw.std(), rel=2e-3)
        assert exact.bias[0] == pytest.approx((stored - raw).mean() / raw.std(), abs=1e-3)
        assert exact.inflation[0] == pytest.approx(stored.var() / raw.var() - 1, abs=2e-3)
        assert exact.mean_square[0] == pytest.approx(((stored - raw) ** 2).mean() / raw.var(), rel=5e-3)


def test_exact_errors_of_a_known_change() -> None:
    """Counts that come back one higher have a bias of one count and no other error; unchanged counts have none."""
    up = exact_errors([0.5, 4.0, 90.0], conversion_gain=1.0, stored=lambda x: x + np.uint16(1))
    assert up.bias == pytest.approx(1 / np.sqrt([0.5, 4.0, 90.0]))
    assert up.inflation == pytest.approx(0, abs=1e-12)
    assert exact_errors(3.0, conversion_gain=30.0, pedestal=157.0, stored=lambda x: x).mean_square == [0.0]
    with pytest.raises(ConfigurationError, match="above 0"):
        exact_errors([0.0, 1.0], conversion_gain=1.0)
    with pytest.raises(ConfigurationError, match="beyond 65535"):
        exact_errors(5000.0, conversion_gain=100.0)


def test_the_report_agrees_with_the_exact_sum_on_a_lattice() -> None:
    """At 5.3 photons and gain 1, errors depend on the counts; with few frames, the mean over time follows them."""
    from dj_photon_codecs import AnscombeTransformV2

    counts = np.random.default_rng(14).poisson(5.3, (6, 400, 400)).astype(np.uint16)
    codec = AnscombeTransformV2(0.0, 1.0, "int32", dither="position")
    exact = exact_errors(5.3, conversion_gain=1.0)
    for means in (None, np.full((400, 400), 5.3)):
        report = fidelity_report(
            counts, codec.decode(codec.encode(counts)), calibration=ONE_TO_ONE, step=0.5, means=means
        )
        pixels = np.array([each.pixels for each in report.bins])
        added = np.array([(each.inflation or 0.0) * each.photons for each in report.bins]) / 5.3
        if means is not None:  # by means over time, the bins themselves choose high and low counts
            assert added @ pixels / pixels.sum() == pytest.approx(exact.inflation[0], abs=0.004)
        assert report.within_bound


def test_the_length_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = movie(np.random.default_rng(15), frames=25).astype(np.float64)
    stored = counts + 3 * np.random.default_rng(16).standard_normal(counts.shape).cumsum(axis=0)
    whole = fidelity_report(counts, stored, calibration=model())
    monkeypatch.setattr("dj_photon_codecs.fidelity.blocks._BLOCK_PIXELS", 3 * 48 * 64)
    parts = fidelity_report(counts, stored, calibration=model())
    for one, other in zip(whole.autocorrelation, parts.autocorrelation, strict=True):
        assert one.correlation == pytest.approx(other.correlation, abs=1e-9)
    assert whole.image is not None
    assert parts.image is not None
    assert whole.image.correlation == pytest.approx(parts.image.correlation, abs=1e-9)


def test_entropy_of_few_draws_is_corrected() -> None:
    """Three thousand draws do not contain all of a thousand equally likely values: 9.97 bits, not 9.7."""
    counts = np.random.default_rng(17).integers(0, 1000, (3, 32, 32)).astype(np.uint16)
    report = fidelity_report(counts, counts, calibration=ONE_TO_ONE, means=np.full((32, 32), 500.0))
    assert report.limit_bits == pytest.approx(math.log2(1000), abs=0.06)
