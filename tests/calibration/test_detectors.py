"""Detectors of many kinds, by forward models that know nothing of the estimate: none is rounded beyond its noise."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import Calibration, calibrate, write_movie

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "detectors.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detectors", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["detectors"] = module
    spec.loader.exec_module(module)
    return module


detectors: Any = load()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Movies of 50 frames of 96 x 96."""
    monkeypatch.setattr(detectors, "FRAMES", 52)
    monkeypatch.setattr(detectors, "SIZE", 96)


@pytest.mark.parametrize("name", [*detectors.HONEST, *detectors.DISHONEST])
def test_rounding_adds_no_more_to_the_noise_than_promised(name: str) -> None:
    """The true variance is that between two draws; 1.5 times step^2/12 of it is the most, in any part of the movie."""
    found, _, added, off = detectors.judge(name, seed=3)
    assert added <= 1.5
    assert (found.verdict == "measured") == (found.reason == "")
    if name in detectors.HONEST:
        assert found.verdict != "unknown", found.reason
        if found.verdict == "measured":
            assert off <= 0.15
    else:
        assert found.verdict != "measured"


def test_two_fields_are_held_below_the_quieter_one() -> None:
    """The lower envelope over the field of view, with a reason that says so."""
    movie, _, gain = detectors.draw("two fields, two gains", 1)
    found = calibrate(movie)
    assert found.verdict == "bounded"
    assert "over the field of view" in found.reason
    assert found.region_spread > 0.1
    assert found.storage_noise.conversion_gain < 1.1 * gain


def test_a_detector_whose_voltage_changed_is_held_below_the_quieter_time() -> None:
    """The lower envelope over time."""
    movie, _, _ = detectors.draw("voltage changed", 1)
    found = calibrate(movie)
    assert found.verdict == "bounded"
    quiet = movie[:25].astype(float)
    noise = ((quiet[1:] - quiet[:-1]) ** 2).mean() / 2
    assert found.storage_noise.variance(quiet).mean() < 1.15 * noise


@pytest.mark.parametrize("period", [2, 3, 4])
def test_interleaved_channels_are_told_and_measured_apart(period: int) -> None:
    """Channels that take turns frame by frame: the quietest decides, and the way to declare them is said."""
    rng = np.random.default_rng(period)
    light = [np.roll(5 * detectors.field(rng, 4), 20 * i, 1) for i in range(period)]
    gains = [20.0 * (1 + i) for i in range(period)]
    movie = np.empty((period * 30, 96, 96))
    for i in range(period):
        movie[i::period] = 100 + gains[i] * rng.poisson(light[i], (30, 96, 96))
    found = calibrate(movie.astype(np.uint16))
    assert found.verdict == "bounded"
    assert f"alternate with period {period}" in found.reason
    assert f"reshape(-1, {period}, height, width)" in found.reason
    assert found.storage_noise.conversion_gain < 1.1 * gains[0]


def test_frames_of_two_lamps_that_are_nearly_as_bright_are_one_channel() -> None:
    """A small difference of brightness from frame to frame, as real recordings have it, is no second channel."""
    rng = np.random.default_rng(0)
    light = np.repeat(20 * detectors.field(rng, 4)[None], 100, 0)
    light[1::2] *= 1.03
    assert calibrate(100 + 10 * rng.poisson(light)).verdict == "measured"


def test_an_axis_of_channels_is_measured_index_by_index() -> None:
    """Two channels on an axis with gains 10 and 40: the lower envelope holds for both."""
    rng = np.random.default_rng(1)
    light = 5 * detectors.field(rng, 4)
    movie = np.stack([100 + gain * rng.poisson(light, (60, 96, 96)) for gain in (40, 10)], axis=1).astype(np.uint16)
    found = calibrate(movie)
    assert found.verdict == "bounded"
    assert "channels or planes differ" in found.reason
    assert found.conversion_gain == pytest.approx(10, rel=0.1)
    assert found.storage_noise.conversion_gain < 11
    assert calibrate(movie[:, 1:]).verdict == "measured"


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_noise_that_an_amplifier_smears_along_the_line_is_measured_across_lines(share: float) -> None:
    """The variance that is there, not what is left of it between neighbours on a line; and the correlation."""
    rng = np.random.default_rng(2)
    counts = detectors.smeared(30.0 * rng.poisson(np.repeat(8 * detectors.field(rng, 4)[None], 60, 0)), share)
    found = calibrate(np.rint(200 + counts).astype(np.uint16))
    energy = (1 - share) ** 2 + share**2
    assert found.verdict == "bounded"
    assert "along the scan lines" in found.reason
    assert found.conversion_gain == pytest.approx(30 * energy, rel=0.06)
    assert found.correlation[0] == pytest.approx(share * (1 - share) / energy, abs=0.03)
    assert abs(found.correlation[1]) < 0.05
    assert abs(found.correlation[2]) < 0.05


@pytest.mark.parametrize("level", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("even", [True, False])
def test_pure_photon_counts_are_answered_within_5_percent(level: float, even: bool) -> None:
    """From 50 frames of 128 x 128 on, evenly lit or not."""
    rng = np.random.default_rng(5)
    light = level * (np.ones((128, 128)) if even else detectors.field(rng, 4, 128 - 96))
    found = calibrate(rng.poisson(light, (50, 128, 128)).astype(np.uint16))
    assert found.verdict == "measured", found.reason
    assert found.conversion_gain == pytest.approx(1, rel=0.05)
    assert abs(found.zero_level) < 0.2 + 0.02 * level


@pytest.mark.parametrize(
    ("top", "dtype"), [(4095, np.uint16), (3000, np.uint16), (255, np.uint8), (1023, np.float32), (32767, np.int16)]
)
def test_the_top_of_the_converter_is_found_and_comes_back(top: int, dtype: Any) -> None:
    """Known by its bits, the dtype, or a spike at the maximum; exactly, and nothing above it."""
    rng = np.random.default_rng(6)
    light = 30 * detectors.field(rng, 4)
    counts = np.minimum(np.rint(20 + top / 60 * rng.poisson(light, (60, 96, 96))), top).astype(dtype)
    found = calibrate(counts)
    assert found.saturation == top
    stored = write_movie({}, counts)[:]
    assert stored.max() == top
    np.testing.assert_array_equal(stored == top, counts == top)


def test_a_movie_that_does_not_saturate_has_no_top() -> None:
    """The highest of many counts is no saturation."""
    rng = np.random.default_rng(6)
    assert calibrate(100 + 10 * rng.poisson(20 * detectors.field(rng, 4), (60, 96, 96))).saturation is None


def test_values_beyond_what_can_be_squared_are_refused_without_a_warning() -> None:
    """Gains of 1e30: the reason says what to do."""
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = calibrate(1e30 * rng.poisson(5 * detectors.field(rng, 4), (20, 96, 96)))
    assert found.verdict == "unknown"
    assert "rescale" in found.reason


def test_a_bounded_calibration_survives_the_row() -> None:
    """All that is known is in the record, as strict JSON below 4 kB."""
    import json

    movie, _, _ = detectors.draw("resonant", 1)
    stored = write_movie({}, movie)
    text = json.dumps(stored.calibration.to_dict(), allow_nan=False)
    assert len(text) < 4096
    found = Calibration.from_dict(json.loads(text))
    assert found.to_dict() == stored.calibration.to_dict()
    assert 0 < found.added_noise <= 1.25
    _, variance, error = np.transpose(found.curve)
    assert (error > 0).all()
    assert np.median(error / variance) < 0.1
