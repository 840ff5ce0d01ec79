"""A stored movie is known in every view of it: its counts are quantised, and are not quantised again."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray
import zarr
from zarr.codecs import GzipCodec

from dj_photon_codecs import Calibration, PhotonArray, calibrate, write_movie
from dj_photon_codecs.storage import layout, plan

GAIN = 20.0
COUNTS = (GAIN * np.random.default_rng(0).poisson(30, (24, 32, 32))).astype(np.uint16)


@pytest.fixture
def stored(tmp_path: Path) -> PhotonArray:
    return write_movie(tmp_path / "m", COUNTS, calibration=Calibration.given(GAIN, 0.0))


def opened(movie: PhotonArray) -> Any:
    return zarr.open_array(movie._location.root, mode="r")


WHOLE: dict[str, Any] = {
    "dask": lambda movie: movie.to_dask(),
    "rechunked": lambda movie: movie.to_dask().rechunk((5, 32, 32)),
    "xarray": lambda movie: xarray.DataArray(movie.to_dask(), dims=("time", "y", "x")),
    "zarr": opened,
    "dask of zarr": lambda movie: dask.array.from_zarr(opened(movie)),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("view", WHOLE)
def test_a_view_of_a_whole_movie_is_copied_byte_for_byte(tmp_path: Path, stored: PhotonArray, view: str) -> None:
    copy = write_movie(tmp_path / "copy", WHOLE[view](stored))
    assert copy.documents == stored.documents
    np.testing.assert_array_equal(copy[...], stored[...])


PARTS: dict[str, Any] = {
    "frames": lambda array: array[3:17],
    "reversed": lambda array: array[::-1],
    "a region": lambda array: array[:, 4:20, 5:30],
    "two parts": lambda array: dask.array.concatenate([array[:5], array[9:]]),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("in_xarray", [False, True], ids=["dask", "xarray"])
def test_a_part_of_a_stored_movie_keeps_its_counts_and_its_noise_model(
    tmp_path: Path, stored: PhotonArray, part: str, in_xarray: bool
) -> None:
    lazy = PARTS[part](stored.to_dask())
    copy = write_movie(tmp_path / "copy", xarray.DataArray(lazy) if in_xarray else lazy)
    np.testing.assert_array_equal(copy[...], lazy.compute())
    assert copy.calibration == stored.calibration


def test_what_is_computed_from_a_stored_movie_is_a_movie_of_its_own(tmp_path: Path, stored: PhotonArray) -> None:
    doubled = stored.to_dask() * 2
    copy = write_movie(tmp_path / "copy", doubled, calibration=Calibration.given(2 * GAIN, 0.0))
    assert copy.calibration.conversion_gain == 2 * GAIN
    assert copy.step == 0.5


OTHERWISE: dict[str, dict[str, Any]] = {
    "Zarr 2": {"zarr_format": 2},
    "dense": {"profile": "dense"},
    "portable": {"profile": "portable"},
    "lossless": {"profile": "lossless"},
    "finer": {"step": 0.1},
    "compressors": {"compressors": [GzipCodec(level=1)]},
}


@pytest.mark.parametrize("options", OTHERWISE.values(), ids=OTHERWISE)
@pytest.mark.parametrize("profile", ["standard", "portable"])
@pytest.mark.filterwarnings("ignore:the entropy coder does not pay")
def test_a_copy_has_the_same_counts_whatever_chunks_are_made_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], profile: str
) -> None:
    """Invariant 2: the dither of a level goes by its place in a chunk."""
    movie = write_movie(tmp_path / "m", COUNTS, calibration=Calibration.given(GAIN, 0.0), profile=profile)
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 5 * 32 * 32)
    monkeypatch.setattr(plan, "entropy_coder_pays", lambda *_: True)  # not in chunks as small as these
    copy = write_movie(tmp_path / "copy", movie, **options)
    np.testing.assert_array_equal(copy[...], movie[...])
    kept = profile == "portable" and options.get("profile") != "lossless"
    assert copy.profile == ("portable" if kept else options.get("profile", "standard"))
    again = write_movie(tmp_path / "again", copy, profile="portable")
    np.testing.assert_array_equal(again[...], movie[...])


def test_a_copy_is_rounded_more_coarsely_when_that_is_asked_for(tmp_path: Path, stored: PhotonArray) -> None:
    copy = write_movie(tmp_path / "copy", stored, step=2.0)
    assert copy.step == 2.0
    assert (copy[...] != stored[...]).mean() > 0.5


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_portable_movie_keeps_its_counts(tmp_path: Path, part: str) -> None:
    """And with them its profile: no codec has to know at which place they were rounded."""
    movie = write_movie(tmp_path / "m", COUNTS, calibration=Calibration.given(GAIN, 0.0), profile="portable")
    lazy = PARTS[part](movie.to_dask())
    copy = write_movie(tmp_path / "copy", lazy)
    np.testing.assert_array_equal(copy[...], lazy.compute())
    assert (copy.profile, copy.step, copy.calibration) == ("portable", 0.5, movie.calibration)


def test_a_part_whose_levels_have_places_says_why_it_is_lossless(tmp_path: Path, stored: PhotonArray) -> None:
    copy = write_movie(tmp_path / "copy", stored.to_dask()[3:17])
    assert copy.profile == "lossless"
    assert "rounded by step 0.5 before" in str(copy.record and copy.record.reason)
    coarser = write_movie(tmp_path / "coarser", stored.to_dask()[3:17], step=2.0)
    assert coarser.step == 2.0


def test_the_noise_model_of_a_stored_movie_is_not_measured_anew(stored: PhotonArray) -> None:
    assert calibrate(stored) == stored.calibration
    exact = write_movie({}, COUNTS, profile="lossless")
    assert calibrate(exact) == calibrate(COUNTS)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_attributes_cannot_be_taken_from_a_handle(zarr_format: Any) -> None:
    movie = write_movie({}, COUNTS, calibration=Calibration.given(GAIN, 0.0), zarr_format=zarr_format)
    with pytest.raises(ValueError, match="read-only"):
        movie.attrs.put({})
    assert movie.verify()
    copy = pickle.loads(pickle.dumps(movie))
    assert (copy.record, copy.calibration) == (movie.record, movie.calibration)
    np.testing.assert_array_equal(write_movie({}, movie)[...], movie[...])


@pytest.mark.parametrize("shape", [(24, 32, 32), (24, 2, 16, 32)])
def test_xarray_opens_both_formats_with_the_names_of_the_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dims = []
    for zarr_format in (2, 3):
        group = tmp_path / str(zarr_format)
        movie = write_movie(group / "m", COUNTS.reshape(shape), profile="lossless", zarr_format=zarr_format)
        zarr.open_group(str(group), mode="a", zarr_format=zarr_format)
        opened = xarray.open_zarr(str(group), consolidated=False)
        np.testing.assert_array_equal(opened["m"], movie[:])
        dims.append(opened["m"].dims)
    assert dims[0] == dims[1] == ("time", *[None] * (len(shape) - 3), "height", "width")
