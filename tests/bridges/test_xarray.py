"""Movies in xarray: names, times and positions, lazy counts in the movie's own chunks."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray
import zarr

from dj_photon_codecs import Calibration, ConfigurationError, InvalidMovieError, PhotonArray, open_movie, write_movie
from dj_photon_codecs.storage import layout as layout_module

RECORDING = Path(__file__).parents[2] / "examples" / "data" / "fmi_two_photon.tif"
NOISE = Calibration.given(20, 100)
COUNTS = np.round(100 + 20 * np.random.default_rng(1).poisson(8, (24, 16, 20))).astype(np.uint16)


def with_metadata(movie: PhotonArray, acquisition: dict[str, Any]) -> PhotonArray:
    """The movie as if its source had said more; its digest is not checked before the first count is read."""
    assert movie.record is not None
    return PhotonArray(movie._location, movie.documents, replace(movie.record, acquisition=acquisition))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> PhotonArray:
    """A two-photon recording, stored with the noise model that was measured on it."""
    return write_movie(tmp_path_factory.mktemp("recording") / "fmi.zarr", RECORDING)


@pytest.fixture
def movie(tmp_path: Path) -> PhotonArray:
    return write_movie(tmp_path / "movie.zarr", COUNTS, calibration=NOISE)


def test_a_real_recording_has_its_axes_and_counts(recording: PhotonArray) -> None:
    array = recording.to_xarray(frame_rate=30, pixel_size=0.5)
    assert array.dims == ("time", "height", "width")
    assert array.shape == recording.shape
    assert array.dtype == recording.dtype
    np.testing.assert_array_equal(array, recording[:])
    np.testing.assert_allclose(array.time[:3], [0, 1 / 30, 2 / 30])
    assert float(array.width[-1]) == 0.5 * 127
    assert (array.time.units, array.height.units) == ("second", "micrometer")
    calibration = recording.calibration
    assert array.attrs["conversion_gain"] == calibration.conversion_gain
    assert array.attrs["zero_level"] == calibration.zero_level
    assert array.attrs["profile"] == "standard"
    frame = array.sel(time=1.0, method="nearest")
    np.testing.assert_array_equal(frame, recording[30])


def test_creating_it_reads_nothing(movie: PhotonArray) -> None:
    """The folder can be gone (invariant 8)."""
    shutil.rmtree(movie._location.root)
    assert movie.to_xarray(frame_rate=30).isel(time=3).shape == (16, 20)


def test_its_blocks_are_the_chunks_of_the_movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 7 * 16 * 20)
    movie = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    assert movie.chunks == (7, 16, 20)
    assert movie.to_xarray().chunks == ((7, 7, 7, 3), (16,), (20,))
    assert movie.to_dask().chunks == ((7, 7, 7, 3), (16,), (20,))


def test_without_metadata_time_is_the_number_of_the_frame_and_space_has_no_coordinates(movie: PhotonArray) -> None:
    array = movie.to_xarray()
    assert list(array.coords) == ["time"]
    np.testing.assert_array_equal(array.time, np.arange(24))
    assert array.time.attrs == {}


def test_rate_and_size_come_from_the_source(movie: PhotonArray) -> None:
    said = {"TimeIncrement": 40, "TimeIncrementUnit": "ms", "PhysicalSizeX": 0.5, "PhysicalSizeY": 250}
    array = with_metadata(movie, said | {"PhysicalSizeYUnit": "nm"}).to_xarray()
    assert float(array.time[1]) == pytest.approx(0.04)
    assert float(array.width[1]) == 0.5
    assert float(array.height[1]) == 0.25


def test_recorded_times_come_before_a_rate_and_arguments_before_both(movie: PhotonArray) -> None:
    times = np.cumsum(np.linspace(0.03, 0.04, 24))
    irregular = with_metadata(movie, {"TimeIncrement": 1.0, "DeltaT": list(times)})
    np.testing.assert_array_equal(irregular.to_xarray().time, times)
    assert float(irregular.to_xarray(frame_rate=10).time[1]) == 0.1
    np.testing.assert_array_equal(irregular.to_xarray(times=times + 1).time, times + 1)
    shortened = with_metadata(movie, {"TimeIncrement": 1.0, "DeltaT": list(times[:5])})  # not those of every frame
    assert float(shortened.to_xarray().time[1]) == 1.0


def test_volumes_have_planes(tmp_path: Path) -> None:
    volumes = write_movie(tmp_path / "v", COUNTS.reshape(12, 2, 16, 20), calibration=NOISE)
    array = volumes.to_xarray(pixel_size=(5, 0.5, 0.25))
    assert array.dims == ("time", "plane", "height", "width")
    assert [float(array[name][1]) for name in ("plane", "height", "width")] == [5, 0.5, 0.25]
    several = write_movie(tmp_path / "c", COUNTS.reshape(6, 2, 2, 16, 20), calibration=NOISE)
    assert several.to_xarray().dims == ("time", "channel", "plane", "height", "width")
    more = write_movie(tmp_path / "d", COUNTS.reshape(6, 2, 1, 2, 16, 20), calibration=NOISE)
    with pytest.raises(InvalidMovieError, match=r"shape \(6, 2, 1, 2, 16, 20\) has more axes"):
        more.to_xarray()


def test_unknown_noise_is_not_given_as_a_number(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m", COUNTS, profile="lossless")
    assert set(movie.to_xarray().attrs) == {"units", "profile", "step"}


def test_your_attributes_are_there(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    zarr.open_array(tmp_path / "m", mode="r+").attrs["mouse"] = "m17"
    array = open_movie(tmp_path / "m").to_xarray()
    assert array.attrs["mouse"] == "m17"
    assert "dj_photon" not in array.attrs
    assert movie.profile == array.attrs["profile"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frame_rate": 0}, "frame_rate must be a positive number of frames per second, got 0"),
        ({"frame_rate": np.nan}, "frame_rate must be"),
        ({"pixel_size": -1}, "pixel_size must be positive.*got -1"),
        ({"pixel_size": (1, 2, 3, 4)}, "pixel_size must be positive"),
        ({"pixel_size": (1, 0)}, "pixel_size must be positive"),
        ({"times": [1, 2, 3]}, r"times have shape \(3,\), and the movie has 24 frames"),
    ],
)
def test_what_cannot_be_is_refused(movie: PhotonArray, given: dict[str, Any], message: str) -> None:
    error = InvalidMovieError if "times" in given else ConfigurationError
    with pytest.raises(error, match=message):
        movie.to_xarray(**given)


def test_without_xarray_the_error_names_the_extra(movie: PhotonArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"dj-photon-codecs\[xarray\]"):
        movie.to_xarray()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_opens_a_movie_in_a_group_by_itself(tmp_path: Path, zarr_format: Any) -> None:
    """xarray opens groups; the names of the axes are in the movie's own metadata."""
    zarr.create_group(tmp_path / "session.zarr", zarr_format=zarr_format)
    movie = write_movie(tmp_path / "session.zarr" / "movie", COUNTS, calibration=NOISE, zarr_format=zarr_format)
    dataset = xarray.open_zarr(tmp_path / "session.zarr", consolidated=False, mask_and_scale=False)
    assert dataset["movie"].dims == ("time", "height", "width")
    assert dask.array.Array is type(dataset["movie"].data)
    np.testing.assert_array_equal(dataset["movie"], movie[:])
