"""What dither is for, and what it costs nobody: means without bias, and movies that move without a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.make_golden import GOLDEN, Golden
from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs.anscombe.dithered import at_every_offset
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.fidelity import exact_errors
from dj_photon_codecs.storage import layout

# Bias


@pytest.mark.parametrize(("pedestal", "read_noise"), [(0.0, 0.0), (10.0, 0.0), (157.0, 0.0), (10.0, 0.2), (157.0, 0.5)])
@pytest.mark.parametrize("gain", [0.3, 1.0, 3.1, 10.0, 100.0])
def test_means_have_no_bias_from_a_twentieth_of_a_photon_on(gain: float, pedestal: float, read_noise: float) -> None:
    """Below 0.01 noise standard deviations from 1 photon to 300, and below 0.05 from 0.05 photons to 1."""
    noise: dict[str, float] = {"conversion_gain": gain, "pedestal": pedestal, "read_noise": read_noise}
    intensities = np.concatenate([np.geomspace(0.05, 1, 12, endpoint=False), np.geomspace(1, 300, 30)])
    bias = np.abs(exact_errors(intensities, **noise).bias)
    assert bias[intensities >= 1].max() < 0.01
    assert bias.max() < 0.05


@pytest.mark.parametrize(
    ("gain", "pedestal", "least", "bright"),
    [
        pytest.param(3.32, 157.0, 0.09, 0.01, id="codes hardly wider than a count"),
        pytest.param(20.0, 2.0, 0.11, 0.01, id="darkness within two codes of count 0"),
        pytest.param(20.0, 1.0, 0.35, 0.02, id="darkness within a code of count 0"),
        pytest.param(10.0, 157.0, 0.01, 0.01, id="anywhere on a lattice"),
    ],
)
def test_where_the_bias_of_darkness_shows(gain: float, pedestal: float, least: float, bright: float) -> None:
    """Without read noise all dark counts are one and the same, whose error does not average out: the limits of that.

    Its mean over the offsets is at most 0.015 photons (0.041 where the pedestal is less than a fifth of the gain), but
    the noise that the bias is measured in goes to nothing with the light. 0.2 photons of read noise end it.
    """
    dim = np.geomspace(least, 1, 12, endpoint=False)
    without = exact_errors([*dim, *np.geomspace(1, 30, 12)], conversion_gain=gain, pedestal=pedestal)
    assert np.abs(without.bias).max() < 0.05
    assert np.abs(without.bias[dim.size :]).max() < bright
    assert np.abs(exact_errors(least / 3, conversion_gain=gain, pedestal=pedestal).bias)[0] > 0.05
    with_noise = exact_errors(dim, conversion_gain=gain, pedestal=pedestal, read_noise=0.2)
    assert np.abs(with_noise.bias).max() < 0.05


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


@pytest.mark.parametrize("profile", ["standard", "portable"])
@pytest.mark.parametrize("name", ["v1_uint16", "v1_portable", "v1_zarr2", "v1_dense"])
def test_a_movie_of_the_first_release_keeps_its_counts(tmp_path: Path, name: str, profile: str) -> None:
    """Invariant 2: counts on the levels of the plain transform are stored with that, not dithered on top."""
    old = open_movie(GOLDEN / name / "movie.zarr")
    new = write_movie(tmp_path / "new", old, profile=profile)
    np.testing.assert_array_equal(new[...], np.load(GOLDEN / name / "expected.npy"))
    assert new.record is not None
    assert not new.record.dithered
    assert "dithered" not in new.record.to_dict()


def test_other_settings_than_those_it_was_stored_with_are_a_new_movie(tmp_path: Path) -> None:
    """A plain movie that is stored with another step gets the transform that new movies get."""
    old = open_movie(GOLDEN / "v1_uint16" / "movie.zarr")
    new = write_movie(tmp_path / "new", old, step=0.25)
    assert new.record is not None
    assert new.record.dithered


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
