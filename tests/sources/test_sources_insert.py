"""Files into columns and stores: paths in a ``<photon@store>`` column, and signed counts, whose zero is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import (
    CodeRangeError,
    FileMovie,
    InvalidMovieError,
    LosslessWarning,
    PhotonMovie,
    SourceError,
    SourceNotFoundError,
    calibrate,
    open_movie,
    open_source,
    write_movie,
)
from services import Pipeline
from tables import declare_movies

#: What a two-photon microscope saves: a pedestal that its software subtracts, and noise of the electronics around it.
GAIN, PEDESTAL, READ_NOISE = 20.0, -100.0, 15.0
#: Read noise does to the noise what light would do: the zero level of the noise model is lower by it.
ZERO_LEVEL = PEDESTAL - READ_NOISE**2 / GAIN

#: Profiles with the Zarr formats that have them.
WRITTEN = [
    ("standard", 2),
    ("standard", 3),
    ("dense", 3),
    ("portable", 2),
    ("portable", 3),
    ("lossless", 2),
    ("lossless", 3),
]


def make_counts(frames: int = 40, pedestal: float = PEDESTAL, read_noise: float = READ_NOISE) -> np.ndarray:
    """Counts of 0.2 to 12 photons, of which many lie below 0."""
    rng = np.random.default_rng(0)
    photons = rng.poisson(np.linspace(0.2, 12, 64), size=(frames, 64, 64))
    return np.rint(pedestal + GAIN * photons + rng.normal(0, read_noise, photons.shape)).astype(np.int16)


COUNTS = make_counts()


def save(path: Path, counts: np.ndarray = COUNTS) -> Path:
    tifffile.imwrite(path, counts, metadata={"axes": "TYX"}, photometric="minisblack")
    return path


def assert_within_bound(stored: Any, counts: np.ndarray) -> None:
    """Invariants 1 and 4, with the noise model that was measured."""
    back = np.asarray(stored[...])
    assert (back.shape, back.dtype) == (counts.shape, counts.dtype)
    gain, zero = stored.calibration.conversion_gain, stored.calibration.zero_level
    top = np.maximum(back, counts).astype(float)
    bound = 0.25 * gain * np.sqrt(np.maximum((top - zero) / gain, 0) + 0.375) + 0.5
    assert (np.abs(back.astype(float) - counts) <= bound + 1e-6).all()


# ---- signed counts


@pytest.mark.parametrize(("profile", "zarr_format"), WRITTEN)
def test_signed_counts_of_a_file_are_stored_by_their_own_noise(tmp_path: Path, profile: str, zarr_format: Any) -> None:
    stored = write_movie(tmp_path / "m", save(tmp_path / "m.tif"), profile=profile, zarr_format=zarr_format)
    assert stored.profile == profile
    if profile == "lossless":
        np.testing.assert_array_equal(stored[:], COUNTS)
        return
    assert stored.calibration.conversion_gain == pytest.approx(GAIN, rel=0.1)
    assert stored.calibration.zero_level == pytest.approx(ZERO_LEVEL, abs=0.3 * GAIN)
    assert_within_bound(stored, COUNTS)
    assert_within_bound(open_movie(tmp_path / "m"), COUNTS)


@pytest.mark.parametrize("profile", ["standard", "dense", "portable"])
def test_an_array_said_to_be_signed_is_stored_as_a_file_is(tmp_path: Path, profile: str) -> None:
    from_file = write_movie(tmp_path / "file", save(tmp_path / "m.tif"), profile=profile)
    given = write_movie(tmp_path / "array", PhotonMovie(COUNTS, signed=True, profile=profile))
    assert given.calibration == from_file.calibration
    np.testing.assert_array_equal(given[:], from_file[:])


def test_an_array_with_negative_counts_is_refused_unless_said_to_be_signed(tmp_path: Path) -> None:
    with pytest.raises(InvalidMovieError, match=r"negative values: .*PhotonMovie\(movie, signed=True\)"):
        write_movie(tmp_path / "m", COUNTS)
    assert not (tmp_path / "m").exists()


def test_signed_counts_of_a_file_keep_their_profile_when_none_is_negative(tmp_path: Path) -> None:
    counts = make_counts(pedestal=200)
    assert counts.min() >= 0
    from_file = write_movie(tmp_path / "file", save(tmp_path / "m.tif", counts))
    from_array = write_movie(tmp_path / "array", counts)
    assert from_file.calibration == from_array.calibration
    np.testing.assert_array_equal(from_file[:], from_array[:])
    assert_within_bound(from_file, counts)


@pytest.mark.parametrize("counts", [COUNTS[:3], np.full_like(COUNTS, -7)], ids=["short", "constant"])
@pytest.mark.parametrize(("profile", "zarr_format"), WRITTEN[:5])
def test_signed_counts_without_a_noise_model_are_stored_as_they_are(
    tmp_path: Path, counts: np.ndarray, profile: str, zarr_format: Any
) -> None:
    """Invariant 3."""
    path = save(tmp_path / "m.tif", counts)
    with pytest.warns(LosslessWarning):
        stored = write_movie(tmp_path / "m", path, profile=profile, zarr_format=zarr_format)
    assert stored.profile == "lossless"
    np.testing.assert_array_equal(stored[:], counts)


def test_electronic_noise_alone_is_stored_as_it_is(tmp_path: Path) -> None:
    """Invariant 3: frames in the dark show no gain."""
    dark = np.rint(np.random.default_rng(0).normal(0, READ_NOISE, COUNTS.shape)).astype(np.int16)
    with pytest.warns(LosslessWarning):
        stored = write_movie(tmp_path / "m", save(tmp_path / "m.tif", dark))
    np.testing.assert_array_equal(stored[:], dark)


@pytest.mark.parametrize(("profile", "zarr_format"), WRITTEN)
def test_signed_counts_beyond_those_that_were_looked_at_are_stored(
    tmp_path: Path, profile: str, zarr_format: Any
) -> None:
    """They need wider codes: the movie is looked at as a whole then."""
    counts = make_counts(100)
    counts[31, 5, :2] = -32768, 32767
    stored = write_movie(tmp_path / "m", save(tmp_path / "m.tif", counts), profile=profile, zarr_format=zarr_format)
    if profile == "lossless":
        np.testing.assert_array_equal(stored[:], counts)
    else:
        assert_within_bound(stored, counts)


@pytest.mark.parametrize("frame", [0, 31], ids=["looked at", "not looked at"])
def test_the_anscombe_v1_format_names_the_way_out_of_negative_counts(tmp_path: Path, frame: int) -> None:
    counts = make_counts(100, pedestal=200)
    counts[frame, 5, 5] = -3
    path = save(tmp_path / "m.tif", counts)
    with pytest.raises(CodeRangeError, match=r"clamps counts outside 0 to 32767, .* use profile='standard'"):
        write_movie(tmp_path / "m", path, profile="anscombe-v1")
    assert not (tmp_path / "m").exists()


def test_the_noise_of_a_file_is_measured_without_storing_it(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "m.tif")) as movie:
        assert calibrate(movie) == calibrate(COUNTS)


# ---- columns


def test_paths_in_a_column_are_movies(tmp_path: Path, local_pipeline: Pipeline) -> None:
    """A file, a glob, a folder, and a path with its noise model; what comes back needs the files no more."""
    folder = tmp_path / "recording"
    folder.mkdir()
    for number, part in enumerate(np.array_split(COUNTS, 11)):
        save(folder / f"part_{number}.tif", part)
    save(tmp_path / "m.tif")
    table = declare_movies(local_pipeline)
    paths: list[Any] = [str(tmp_path / "m.tif"), tmp_path / "m.tif", str(folder / "part_*.tif"), str(folder)]
    for recording, path in enumerate(paths):
        table.insert1({"recording": recording, "movie": path})
    known = PhotonMovie(str(folder), conversion_gain=GAIN, zero_level=PEDESTAL)
    table.insert1({"recording": len(paths), "movie": known})
    for file in (*folder.iterdir(), tmp_path / "m.tif"):
        file.unlink()
    for recording in range(len(paths) + 1):
        movie = (table & {"recording": recording}).fetch1("movie")
        assert movie.verify()
        assert_within_bound(movie, COUNTS)
    assert (movie.calibration.conversion_gain, movie.calibration.zero_level) == (GAIN, PEDESTAL)


def test_one_channel_of_a_file_goes_into_a_column(tmp_path: Path, local_pipeline: Pipeline) -> None:
    both = np.stack([COUNTS, COUNTS[::-1]], axis=1)
    tifffile.imwrite(tmp_path / "m.tif", both, ome=True, metadata={"axes": "TCYX"})
    table = declare_movies(local_pipeline)
    with pytest.raises(SourceError, match="holds 2 channels"):
        table.insert1({"recording": 1, "movie": str(tmp_path / "m.tif")})
    assert len(table()) == 0
    with open_source(tmp_path / "m.tif", channel=1) as movie:
        assert isinstance(movie, FileMovie)
        table.insert1({"recording": 1, "movie": movie})
    assert_within_bound((table & {"recording": 1}).fetch1("movie"), COUNTS[::-1])


@pytest.mark.parametrize("name", ["gone.tif", "gone_*.tif"])
def test_a_path_without_a_file_leaves_nothing(tmp_path: Path, local_pipeline: Pipeline, name: str) -> None:
    """Invariant 6."""
    table = declare_movies(local_pipeline)
    with pytest.raises(SourceNotFoundError, match="no file or folder"):
        table.insert1({"recording": 1, "movie": str(tmp_path / name)})
    assert len(table()) == 0
    assert local_pipeline.objects() == []


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path: Path, local_pipeline: Pipeline) -> None:
    """Invariant 6."""
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for number, frame in enumerate(COUNTS):
            file.write(frame if number != 35 else frame[:8], contiguous=False, metadata=None)
    table = declare_movies(local_pipeline)
    with pytest.raises(SourceError, match="m.tif: page 35"):
        table.insert1({"recording": 1, "movie": PhotonMovie(tmp_path / "m.tif", conversion_gain=GAIN)})
    assert len(table()) == 0
    assert local_pipeline.objects() == []
