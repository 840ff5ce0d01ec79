"""Movies for which rounding saves less than 3 % of the bytes are stored losslessly, and the handle says why."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from zarr.codecs import ZstdCodec

from dj_photon_codecs import Calibration, PhotonWriter, open_movie, write_movie
from dj_photon_codecs.storage import plan

REASON = "nothing to gain: rounding would save below 3 %"
PHOTONS = Calibration.given(1.0, 0.0)


def photons(mean: float, dtype: str = "uint16") -> np.ndarray:
    """Photon counts at gain 1: below 4 photons a step of half the noise is less than one count."""
    return np.random.default_rng(0).poisson(mean, (24, 96, 96)).astype(dtype)


FEW, MANY = photons(0.5), photons(40.0)


@pytest.mark.parametrize("profile", ["standard", "dense", "portable"])
def test_few_photons_are_stored_losslessly_and_many_are_not(
    tmp_path: Path, profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sides of the rule; the noise model is kept, and nothing is warned of."""
    with caplog.at_level(logging.INFO, "dj_photon_codecs"), warnings.catch_warnings():
        warnings.simplefilter("error")
        few = write_movie(tmp_path / "few", FEW, calibration=PHOTONS, profile=profile)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert REASON in caplog.text
    caplog.clear()
    many = write_movie(tmp_path / "many", MANY, calibration=PHOTONS, profile=profile)
    assert not caplog.records
    assert (few.profile, few.step) == ("lossless", 0.0)
    np.testing.assert_array_equal(few[:], FEW)
    assert few.record is not None
    assert few.record.reason == REASON
    assert few.calibration == PHOTONS
    assert (many.profile, many.step) == (profile, 0.5)
    assert many.record is not None
    assert many.record.reason is None
    assert (many[:] != MANY).any()
    again = open_movie(tmp_path / "few")
    assert again.record == few.record
    assert f"lossless ({REASON})" in repr(again)
    assert f"lossless, {REASON}" in again._repr_html_()
    assert "nothing to gain" not in repr(many) + many._repr_html_()


def test_the_limit_is_a_share_of_the_lossless_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same movie on both sides: what rounding saves of it lies between 3 % and 90 %."""
    assert write_movie(tmp_path / "a", MANY, calibration=PHOTONS).profile == "standard"
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", 0.9)
    assert write_movie(tmp_path / "b", MANY, calibration=PHOTONS).profile == "lossless"


@pytest.mark.parametrize(
    "options",
    [{"compressors": ZstdCodec(level=1)}, {"compressors": numcodecs.Zstd(1), "zarr_format": 2}],
    ids=["zarr 3", "zarr 2"],
)
def test_compressors_given_by_hand_are_those_compared(tmp_path: Path, options: dict[str, Any]) -> None:
    """Without any compressor, narrow codes save bytes, and so does rounding of few photons."""
    assert write_movie(tmp_path / "a", photons(0.5, "uint8"), calibration=PHOTONS, **options).profile == "lossless"
    assert write_movie(tmp_path / "b", MANY, calibration=PHOTONS, **options).profile == "standard"
    plain = {**options, "compressors": []}
    assert write_movie(tmp_path / "c", FEW, calibration=PHOTONS, **plain).profile == "standard"


def test_lossless_movies_of_the_dense_profile_go_through_the_entropy_coder(tmp_path: Path) -> None:
    """The entropy coder on both sides: smaller than the standard profile without loss, too."""
    dense = write_movie(tmp_path / "dense", FEW, calibration=PHOTONS, profile="dense")
    standard = write_movie(tmp_path / "standard", FEW, calibration=PHOTONS)
    assert dense.profile == standard.profile == "lossless"
    assert dense.nbytes_stored() < standard.nbytes_stored()


def test_anscombe_v1_is_what_was_asked_for(tmp_path: Path) -> None:
    """Nobody takes that format for its size."""
    counts = (20 * photons(0.02)).astype(np.uint16)
    noise = Calibration.given(20.0, 0.0)
    assert write_movie(tmp_path / "a", counts, calibration=noise).profile == "lossless"
    assert write_movie(tmp_path / "b", counts, calibration=noise, profile="anscombe-v1").profile == "anscombe-v1"


def test_counts_on_levels_are_moved_as_they_are(tmp_path: Path) -> None:
    """Invariant 2: they lose nothing more, so that the record goes on to say with which step they were stored."""
    portable = write_movie(tmp_path / "portable", MANY, calibration=PHOTONS, profile="portable")
    moved = write_movie(tmp_path / "moved", portable)
    assert (moved.profile, moved.step) == ("portable", 0.5)
    np.testing.assert_array_equal(moved[:], portable[:])


def test_a_lossless_movie_that_is_moved_is_asked_again(tmp_path: Path) -> None:
    """The counts are the raw ones: with a larger step there may be something to gain."""
    few = write_movie(tmp_path / "few", FEW, calibration=PHOTONS)
    moved = write_movie(tmp_path / "moved", few)
    assert moved.record is not None
    assert (moved.profile, moved.record.reason) == ("lossless", REASON)
    coarse = write_movie(tmp_path / "coarse", few, step=8.0)
    assert coarse.record is not None
    assert (coarse.profile, coarse.record.reason) == ("standard", None)


def test_a_movie_that_is_acquired_is_judged_by_its_first_blocks(tmp_path: Path) -> None:
    """Both sides, as it is for a movie that is there from the beginning."""
    for name, counts, profile in (("few", FEW, "lossless"), ("many", MANY, "standard")):
        with PhotonWriter(tmp_path / name, calibration=PHOTONS) as writer:
            writer.extend(counts)
        assert writer.movie.profile == profile
        assert writer.movie.record is not None
        assert writer.movie.record.reason == (REASON if profile == "lossless" else None)
    np.testing.assert_array_equal(open_movie(tmp_path / "few")[:], FEW)
