"""What dither is for, and what it costs nobody: means without bias, and movies that move without a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.make_golden import GOLDEN, Golden
from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs.anscombe.codes import at_every_offset
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.fidelity import exact_errors
from dj_photon_codecs.storage import layout

# Bias


@pytest.mark.slow
@pytest.mark.parametrize("under_root", [0.375, 0.02])
@pytest.mark.parametrize(("pedestal", "read_noise"), [(0, 0), (1, 0), (2, 0), (5, 0), (13, 0.05), (157, 0), (100, 0.5)])
@pytest.mark.parametrize("gain", [0.5, 1.0, 3.32, 10.0, 20.0, 100.0, 213.0, 500.0])
def test_means_do_not_lean_at_any_light(gain: float, pedestal: float, read_noise: float, under_root: float) -> None:
    """Below 0.01 noise standard deviations from 0.005 photons on: of dark counts on a lattice, next to 0, anywhere."""
    parameters = TransformParameters(
        pedestal - gain * read_noise**2, gain, "int32", "uint16", 0.5, "position", under_root
    )
    errors = exact_errors(
        np.geomspace(0.005, min(100, 40_000 / gain), 25),
        conversion_gain=gain,
        pedestal=pedestal,
        read_noise=read_noise,
        stored=lambda counts: at_every_offset(counts, parameters),
    )
    assert np.abs(errors.bias).max() < 0.01


@pytest.mark.parametrize("profile", ["standard", "dense", "portable"])
@pytest.mark.parametrize(("gain", "zero", "photons"), [(213.0, 13.0, 0.02), (100.0, 5.0, 0.1), (30.0, 100.0, 0.02)])
def test_stored_movies_keep_the_mean_of_dark_pixels(
    tmp_path: Path, gain: float, zero: float, photons: float, profile: str
) -> None:
    """In every profile, to 0.01 noise standard deviations and twice the error of the mean of this many."""
    counts = np.rint(zero + gain * np.random.default_rng(1).poisson(photons, (64, 64, 64))).astype(np.uint16)
    calibration = Calibration.given(gain, zero)
    stored = write_movie(tmp_path / "m", counts, calibration=calibration, profile=profile, progress=False)
    change = (stored[:].astype(float) - counts) / (gain * np.sqrt(photons))
    assert abs(change.mean()) < 0.01 + 2 * change.std() / np.sqrt(change.size)


@pytest.mark.parametrize(("pedestal", "limit"), [(157, 0.015), (10, 0.015), (3, 0.041), (1, 0.041)])
def test_the_mean_error_of_a_dark_count_is_small(pedestal: int, limit: float) -> None:
    """Over all offsets, in photons; the larger limit is for gains beyond five times the pedestal."""
    most = 5 * pedestal if limit < 0.02 else 300
    for gain in (*np.geomspace(0.3, min(most, 100), 6), 3.24, 3.32, 3.58):
        parameters = TransformParameters(pedestal, float(gain), "int32", "uint16")
        stored = at_every_offset(np.array([pedestal], np.uint16), parameters)
        assert abs(stored.astype(float).mean() - pedestal) / gain < limit


MOVIE_SHAPE = (11, 33, 31)


def movie(dtype: str, low: int, high: int, noise: int) -> np.ndarray[Any, Any]:
    """Whole counts along a slope that does not change with time, and noise: what the entropy coder is for."""
    golden = Golden(dtype, MOVIE_SHAPE, low + noise, high - noise, None, noise=noise)
    return golden.counts()


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of four frames and shards of a few chunks, so that places in chunks are not those in the movie."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 33 * 31)
    monkeypatch.setattr(layout, "SHARD_BYTES", 1 << 14)


CASES: dict[str, tuple[str, int, int, int, float, float]] = {
    "uint16": ("uint16", 0, 3000, 90, 100.0, 157.3),
    "int16 with negative counts": ("int16", -90, 3000, 60, 3.0, -40.5),
    "steep": ("int32", 0, 700, 20, 0.5, 3.0),
    "whole float32": ("float32", 0, 4000, 90, 20.0, 100.0),
    "whole float32 up to where its codes change": ("float32", 30000, 32767, 300, 1.0, -40.5),
}


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("way", [("dense",), ("portable",), ("portable", "dense")], ids="-".join)
@pytest.mark.parametrize("case", CASES)
def test_a_movie_moves_from_profile_to_profile_and_back_without_a_loss(
    tmp_path: Path, case: str, way: tuple[str, ...]
) -> None:
    """Invariant 2: what was stored once keeps its counts, however often it is stored with the same settings."""
    *counts, gain, zero = CASES[case]
    noise = Calibration.given(gain, zero)
    first = write_movie(tmp_path / "0", movie(*counts), calibration=noise)
    assert first.record is not None
    assert first.record.dithered
    wanted = first[...]
    stored = first
    for number, profile in enumerate((*way, "standard"), 1):
        stored = write_movie(tmp_path / str(number), stored, profile=profile, calibration=noise)
        np.testing.assert_array_equal(stored[...], wanted)
        assert stored.profile == profile
        assert stored.record is not None
        assert stored.record.dithered


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_movie_moves_between_zarr_formats_without_a_loss(tmp_path: Path, zarr_format: Any) -> None:
    """Invariant 2: both formats count the places alike."""
    counts = movie("uint16", 0, 9000, 90)
    first = write_movie(tmp_path / "0", counts, calibration=Calibration.given(20.0, 100.0), zarr_format=5 - zarr_format)
    second = write_movie(tmp_path / "1", first, zarr_format=zarr_format)
    np.testing.assert_array_equal(second[...], first[...])


@pytest.mark.parametrize("profile", ["standard", "dense", "portable"])
@pytest.mark.parametrize("name", ["v1_portable", "v1_portable_float32_real", "v1_zarr2_portable"])
def test_a_portable_movie_keeps_its_counts_and_its_profile(tmp_path: Path, name: str, profile: str) -> None:
    """Invariant 2: what no codec has rounded, none can code without a loss."""
    old = open_movie(GOLDEN / name / "movie.zarr")
    new = write_movie(tmp_path / "new", old, profile=profile)
    np.testing.assert_array_equal(new[...], np.load(GOLDEN / name / "expected.npy"))
    assert new.record is not None
    assert new.profile == "portable"
    assert "dithered" not in new.record.to_dict()


def test_other_settings_than_those_it_was_stored_with_are_a_new_movie(tmp_path: Path) -> None:
    """A portable movie that is stored with another step is rounded once more, with the profile that was asked for."""
    counts = np.random.default_rng(0).normal(2000, 400, (16, 64, 64)).astype(np.uint16)
    noise = Calibration.given(100.0, 157.3)
    portable = write_movie(tmp_path / "portable", counts, calibration=noise, profile="portable")
    new = write_movie(tmp_path / "new", portable, step=2.0)
    assert new.record is not None
    assert (new.profile, new.step, new.record.dithered) == ("standard", 2.0, True)


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("dtype", "low"), [("uint16", 0), ("int16", -90), ("float32", 0.25)])
def test_what_fills_up_partial_chunks_is_never_seen(tmp_path: Path, zarr_format: Any, dtype: str, low: float) -> None:
    """Frames at the end of a movie whose last chunk is not full are those of the same frames in full chunks."""
    counts = movie("int32", int(low), 900, 40).astype(dtype) + np.dtype(dtype).type(low % 1)
    calibration = Calibration.given(5.0, 20.0)
    assert MOVIE_SHAPE[0] % 4 == 3
    short = write_movie(tmp_path / "short", counts, calibration=calibration, zarr_format=zarr_format)
    longer = np.concatenate([counts, counts[:1]])
    full = write_movie(tmp_path / "full", longer, calibration=calibration, zarr_format=zarr_format)
    np.testing.assert_array_equal(short[...], full[:-1])
    np.testing.assert_array_equal(np.stack(list(short.frames())), full[:-1])
    assert short.verify()
