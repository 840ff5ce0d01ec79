"""What rounding adds is measured before the first byte, and the noise model is lowered until it is as promised."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dj_photon_codecs import (
    Calibration,
    CalibrationWarning,
    LosslessWarning,
    PhotonMovie,
    PhotonWriter,
    calibrate,
    estimate,
    open_movie,
    write_movie,
)
from dj_photon_codecs._typing import AnyArray
from dj_photon_codecs.storage import promise

GAIN, ZERO = 20, 100


def camera(low: float = 2, high: float = 40, read: float = 0.0, frames: int = 60) -> AnyArray:
    """Photons that rise over the field of view, on a pedestal."""
    rng = np.random.default_rng(0)
    light = np.linspace(low, high, 128) * np.ones((frames, 96, 128))
    noise = read * rng.standard_normal(light.shape)
    return np.asarray(np.rint(ZERO + GAIN * (rng.poisson(light) + noise)), np.uint16)


def added(counts: AnyArray, stored: AnyArray, low: float = 2, high: float = 40) -> float:
    """The variance that storage added over the promised share of the true one, at its largest among ten columns."""
    error = (stored.astype(float) - counts) ** 2
    noise = GAIN**2 * np.linspace(low, high, 128)
    return float(max((error[..., i::10].mean() / (noise[i::10].mean() * 0.25 / 12)) for i in range(10)))


@pytest.mark.parametrize("profile", ["standard", "dense", "portable"])
def test_a_model_that_is_too_large_is_lowered(profile: str) -> None:
    """Whatever calibration was measured: rounding adds at most 1.25 times what is promised."""
    counts = camera()
    wrong = replace(calibrate(counts), storage_gain=6.0 * GAIN, storage_zero_level=float(ZERO))
    stored = write_movie({}, counts, calibration=wrong, profile=profile)
    assert stored.profile == profile
    assert stored.calibration.storage_gain is not None
    assert stored.calibration.storage_gain < 2 * GAIN
    assert 0 < stored.calibration.added_noise <= promise.PROMISED
    assert added(counts, stored[:]) < 1.4


def test_a_movie_without_such_a_model_is_stored_losslessly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning and the reason in the record."""
    monkeypatch.setattr(promise, "PROMISED", 1e-9)
    monkeypatch.setattr(promise, "_LEAST", 1.0)
    monkeypatch.setattr(promise, "_TRIES", 2)
    counts = camera()
    with pytest.warns(LosslessWarning, match="no noise model was found under which"):
        stored = write_movie({}, counts, calibration=replace(calibrate(counts), storage_gain=1e12))
    assert stored.profile == "lossless"
    assert stored.record is not None
    assert "as promised" in str(stored.record.reason)
    np.testing.assert_array_equal(stored[:], counts)


def test_the_figure_is_in_the_row_and_of_the_movie(tmp_path: Path) -> None:
    """What was measured is what is found again, and true."""
    counts = camera()
    write_movie(tmp_path / "m", counts)
    stored = open_movie(tmp_path / "m")
    assert stored.record is not None
    figure = stored.record.to_dict()["calibration"]["added_noise"]
    assert figure == stored.calibration.added_noise
    assert figure == pytest.approx(added(counts, stored[:]), rel=0.15)


def test_a_movie_that_is_acquired_keeps_the_promise_too(tmp_path: Path) -> None:
    """It is measured on the first frames."""
    with PhotonWriter(tmp_path / "m") as writer:
        writer.extend(camera())
    assert 0 < open_movie(tmp_path / "m").calibration.added_noise <= promise.PROMISED


def test_dark_pixels_with_less_noise_than_the_constant_of_anscombe_are_not_coarser_than_their_noise() -> None:
    """At 0.05 photons 3/8 under the root would be seven times the noise."""
    counts = camera(0.05, 20, read=0.1)
    noise = calibrate(counts).storage_noise
    dark = counts[..., :12].astype(float)
    assert noise.variance(dark).mean() < 1.15 * dark.var(0).mean()
    stored = write_movie({}, counts)
    error = stored[:][..., :12] - dark
    assert (error**2).mean() < 1.3 * dark.var(0).mean() * 0.25 / 12


def test_pixels_without_light_on_a_pedestal_do_not_lower_the_model() -> None:
    """At 1 photon a third of the pixels show the pedestal alone, which is rounded as all other counts are."""
    counts = camera(low=1, high=30)
    assert np.mean(counts[..., 0] == ZERO) > 0.3
    noise = calibrate(counts).storage_noise
    true = GAIN**2 * np.linspace(1, 30, 128)
    assert noise.variance(ZERO + GAIN * np.linspace(1, 30, 128)).sum() > 0.9 * true.sum()
    assert noise.variance(counts[..., :6]).mean() > 0.8 * true[:6].mean()


@pytest.mark.parametrize("read", [0.0, 0.5])
def test_a_gain_without_a_zero_level_measures_it(read: float) -> None:
    """The pedestal less gain times the read noise squared, within 0.1 photons, and nothing is warned of."""
    counts = camera(read=read)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = write_movie({}, PhotonMovie(counts, conversion_gain=GAIN))
        assert write_movie({}, counts, calibration=Calibration.given(GAIN)).calibration == stored.calibration
    assert abs(stored.calibration.zero_level - (ZERO - GAIN * read**2)) < 0.1 * GAIN
    assert stored.calibration.method == "given"


def test_a_zero_level_that_the_movie_does_not_show_is_told() -> None:
    """Three frames show none: the lowest count is taken, which discards the least, and the warning says so."""
    counts = camera(frames=3)
    with pytest.warns(CalibrationWarning, match="without a zero level, and the movie does not show it"):
        stored = write_movie({}, PhotonMovie(counts, conversion_gain=GAIN))
    assert stored.calibration.zero_level == counts.min()


@pytest.mark.parametrize(("factor", "told"), [(3.0, "more noise is discarded"), (0.3, "more space than necessary")])
def test_a_given_gain_that_the_movie_contradicts_is_used_and_warned_about(factor: float, told: str) -> None:
    """With both figures."""
    gain = factor * GAIN
    with pytest.warns(CalibrationWarning, match=rf"gain is {gain:g} ADU/photon .* noise shows \d+.* {told}") as caught:
        stored = write_movie({}, camera(), calibration=Calibration.given(gain, ZERO))
    found = float(str(caught[0].message).partition("noise shows ")[2].split(":")[0])
    assert found == pytest.approx(GAIN, rel=0.1)
    assert stored.calibration.conversion_gain == gain
    assert stored.calibration.storage_noise.conversion_gain == gain


def test_a_given_calibration_gets_what_only_the_movie_knows() -> None:
    """The top of the converter, and less than 3/8 under the root where it is dark; it still equals what was given."""
    given = Calibration.given(GAIN, ZERO)
    counts = np.minimum(camera(0.05, 20), 450).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = write_movie({}, counts, calibration=given)
    assert stored.calibration == given
    assert stored.calibration.under_root < 0.2
    assert stored.calibration.saturation == 450
    np.testing.assert_array_equal(stored[:] == 450, counts == 450)


def test_counts_above_what_the_sample_showed_are_no_saturation() -> None:
    """A frame that was not sampled is brighter than 4095: it comes back, and 4095 is a count like others."""
    counts = np.minimum(camera(2, 300), 4095)
    counts[5] += 3000  # runs of four frames are sampled, from 0, 4 or so
    calibration = replace(calibrate(counts[6:]), saturation=4095.0)
    stored = write_movie({}, counts, calibration=calibration)
    assert stored.calibration.saturation is None
    assert stored[5].max() > 6000


def test_an_estimate_of_a_movie_that_has_its_numbers_uses_them() -> None:
    """A PhotonMovie, as it would be written."""
    expected = estimate(PhotonMovie(camera(), conversion_gain=GAIN, zero_level=ZERO, step=1.0))
    finer = estimate(PhotonMovie(camera(), conversion_gain=GAIN, zero_level=ZERO))
    assert expected.calibration.method == "given"
    assert expected.ratios["standard"] > 1.1 * finer.ratios["standard"]
    assert not math.isnan(expected.calibration.added_noise)


def test_an_estimate_without_a_noise_model_says_why(tmp_path: Path) -> None:
    """All profiles store it losslessly, and a file is opened by its path."""
    np.save(tmp_path / "flat.npy", np.full((20, 64, 64), 7, np.uint16))
    expected = estimate(tmp_path / "flat.npy")
    assert expected.calibration.verdict == "unknown"
    assert "constant" in expected.reason
    assert str(expected).startswith("noise unknown\n")
