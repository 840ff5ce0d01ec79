"""Recordings of rigs that are not ours: answered, alike in all their parts, and stored within their own noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs import Blosc

from dj_photon_codecs import calibrate, estimate, write_movie
from dj_photon_codecs._typing import AnyArray, FloatArray

tifffile = pytest.importorskip("tifffile")

TESTS = Path(__file__).parents[1]
FILES = {
    "FMI": next(iter((TESTS.parent / "examples" / "data").glob("fmi*.tif")), TESTS / "missing"),
    "Prairie": TESTS / "data" / "real" / "prairie_two_photon.tif",
}


@pytest.fixture(scope="module", params=FILES)
def counts(request: pytest.FixtureRequest) -> AnyArray:
    return np.asarray(tifffile.imread(FILES[request.param]))


def crops(counts: AnyArray) -> dict[str, AnyArray]:
    _, height, width = counts.shape
    return {
        "whole": counts,
        "left": counts[:, :, : width // 2],
        "right": counts[:, :, width // 2 :],
        "upper": counts[:, : height // 2],
        "53 frames": counts[:53],
        "quarter": counts[:, height // 2 :, width // 2 :],
    }


def noise_by_decile(counts: AnyArray) -> tuple[FloatArray, FloatArray]:
    """Decile of the brightness of every pixel (but the outermost lines), and the variance of its noise across lines."""
    values = counts.astype(np.float64)
    difference = values[1:] - values[:-1]
    fine = difference[:, 2:] - 2 * difference[:, 1:-1] + difference[:, :-2]
    mean = values.mean(0)[1:-1]
    decile = np.searchsorted(np.quantile(mean, np.linspace(0, 1, 11)[1:-1]), mean)
    variance = (fine**2).mean(0) / 12
    return decile, np.array([variance[decile == i].mean() for i in range(10)])


def test_all_parts_of_a_recording_give_one_answer(counts: AnyArray) -> None:
    """Gains within 12 % of each other, zero levels within 0.15 photons; the noise along lines is told."""
    found = [calibrate(part) for part in crops(counts).values()]
    assert {each.verdict for each in found} == {"bounded"}
    gains = np.array([each.conversion_gain for each in found])
    zeros = np.array([each.zero_level for each in found]) / gains
    assert gains.max() / gains.min() < 1.12
    assert np.ptp(zeros) < 0.15
    for each in found:
        assert each.correlation[0] > 0.04
        assert abs(each.correlation[1]) < 0.04
        assert "along the scan lines" in each.reason


def test_rounding_stays_within_the_noise_that_was_measured(counts: AnyArray) -> None:
    """In every decile at most 3.5 % of the variance is added, and the mean leans by less than 0.02 of its noise."""
    decile, noise = noise_by_decile(counts)
    stored = write_movie({}, counts)
    error = stored[:].astype(np.float64)[:, 1:-1] - counts[:, 1:-1]
    for i in range(10):
        here = error[:, decile == i]
        assert (here**2).mean() < 0.035 * noise[i]
        assert abs(here.mean()) < 0.02 * np.sqrt(noise[i])
    assert 0 < stored.calibration.added_noise <= 1.25


def test_it_is_much_smaller_than_without_loss(counts: AnyArray) -> None:
    """At least 2.2 times smaller than Blosc (zstd-5, bitshuffle) makes it without loss."""
    blosc = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
    lossless = sum(len(blosc.encode(np.ascontiguousarray(counts[i : i + 16]))) for i in range(0, len(counts), 16))
    for profile in ("standard", "dense"):
        stored = write_movie({}, counts, profile=profile)
        assert stored.record is not None
        assert lossless > 2.2 * stored.record.stored_bytes


def test_the_expected_size_is_that_of_storing(counts: AnyArray) -> None:
    """Within 10 %, in each profile, and the answer says what was found."""
    expected = estimate(counts)
    assert set(expected.ratios) == {"standard", "dense", "portable", "lossless"}
    for profile, ratio in expected.ratios.items():
        assert ratio == pytest.approx(write_movie({}, counts, profile=profile).compression_ratio, rel=0.1)
    text = str(expected)
    assert "noise bounded" in text
    assert "along the scan lines" in text


def test_a_gain_that_the_recording_contradicts_is_used_and_warned_about(counts: AnyArray) -> None:
    """Ten times the gain, with both figures."""
    from dj_photon_codecs import Calibration, CalibrationWarning

    gain = 10 * calibrate(counts).conversion_gain
    with pytest.warns(CalibrationWarning, match=rf"given conversion gain is {gain:g} .* noise shows \d+") as told:
        stored: Any = write_movie({}, counts, calibration=Calibration.given(gain, 0))
    assert len(told) == 1
    assert stored.calibration.conversion_gain == gain
    assert stored.calibration.added_noise > 5


def test_a_gain_without_a_zero_level_measures_it(counts: AnyArray) -> None:
    """The zero level is that of the measurement, within 0.3 photons."""
    from dj_photon_codecs import PhotonMovie

    found = calibrate(counts)
    gain = found.conversion_gain
    stored = write_movie({}, PhotonMovie(counts, conversion_gain=gain))
    assert stored.calibration.method == "given"
    assert abs(stored.calibration.zero_level - found.zero_level) < 0.3 * gain
