"""open_source on Zarr and OME-Zarr, from folders and URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from dj_photon_codecs import PhotonMovie, SourceError, open_source, write_movie

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).poisson(20, size=(7, 2, 3, 16, 20)).astype(np.uint16)  # TCZYX

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def write_ome(path: Path, zarr_format: Any, axes: Any = "tczyx", version: str = "0.4") -> Path:
    """Two resolutions, as the OME-Zarr specification lays them out."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=VOLUMES, chunks=(2, 1, 3, 16, 20))
    group.create_array("1", data=VOLUMES[..., ::2, ::2], chunks=(2, 1, 3, 8, 10))
    multiscale: dict[str, Any] = {"version": version, "datasets": [{"path": "0"}, {"path": "1"}]}
    if axes is not None:
        multiscale["axes"] = [{"name": letter} for letter in axes] if version >= "0.4" else list(axes)
    group.attrs.update({"ome": {"multiscales": [multiscale]}} if zarr_format == 3 else {"multiscales": [multiscale]})
    return path


@FORMATS
def test_an_array_is_a_movie(tmp_path: Path, zarr_format: Any) -> None:
    zarr.create_array(tmp_path / "m.zarr", data=COUNTS, chunks=(5, 16, 20), zarr_format=zarr_format)
    with open_source(tmp_path / "m.zarr") as movie:
        assert (movie.shape, movie.dtype) == (COUNTS.shape, COUNTS.dtype)
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


@FORMATS
def test_an_image_of_ome_zarr_is_opened_at_full_resolution(tmp_path: Path, zarr_format: Any) -> None:
    write_ome(tmp_path / "m.zarr", zarr_format)
    for channel in (0, 1):
        with open_source(tmp_path / "m.zarr", channel=channel) as movie:
            assert movie.axes == ("time", "plane", "height", "width")
            np.testing.assert_array_equal(movie[2:6], VOLUMES[2:6, channel])
    with pytest.raises(SourceError, match=r"m.zarr, array /0 holds 2 channels"):
        open_source(tmp_path / "m.zarr")
    with open_source(tmp_path / "m.zarr", channel=1, planes=2) as movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:, 1, 2])


@pytest.mark.parametrize(("axes", "version"), [("tczyx", "0.3"), (None, "0.2"), (None, "0.1")])
def test_older_ome_zarr_names_axes_otherwise_or_not(tmp_path: Path, axes: Any, version: str) -> None:
    write_ome(tmp_path / "m.zarr", 2, axes, version)
    with open_source(tmp_path / "m.zarr", channel=1) as movie:
        np.testing.assert_array_equal(movie[2:6], VOLUMES[2:6, 1])


@FORMATS
def test_an_image_inside_of_a_group_is_named(tmp_path: Path, zarr_format: Any) -> None:
    zarr.open_group(tmp_path / "m.zarr", mode="w", zarr_format=zarr_format)
    write_ome(tmp_path / "m.zarr" / "series0", zarr_format)
    write_ome(tmp_path / "m.zarr" / "series1", zarr_format)
    with pytest.raises(
        SourceError, match=r"holds 4 arrays .* dataset='series0/0': it has series0/0, series0/1, series1/0"
    ):
        open_source(tmp_path / "m.zarr")
    for dataset in ("series1", "series1/0", "/series1/0"):
        with open_source(tmp_path / "m.zarr", dataset=dataset, channel=1) as movie:
            np.testing.assert_array_equal(movie[2:6], VOLUMES[2:6, 1])
    with pytest.raises(SourceError, match="has no array 'series2'; name one, dataset='series0/0'"):
        open_source(tmp_path / "m.zarr", dataset="series2")


@pytest.mark.parametrize("names", [("x", "y", "z", "channel", "Time"), ("width", "row", "depth", "c", "frames")])
@FORMATS
def test_axes_come_from_the_names_of_dimensions(tmp_path: Path, names: tuple[str, ...], zarr_format: Any) -> None:
    """Those of Zarr V3, and those that xarray writes into V2."""
    array = zarr.create_array(
        tmp_path / "m.zarr",
        data=VOLUMES.transpose(4, 3, 2, 1, 0),
        chunks=(20, 16, 3, 2, 2),
        zarr_format=zarr_format,
        dimension_names=names if zarr_format == 3 else None,
    )
    if zarr_format == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = list(names)
    with open_source(tmp_path / "m.zarr", channel=1) as movie:
        np.testing.assert_array_equal(movie[2:4], VOLUMES[2:4, 1])


@pytest.mark.parametrize("names", [("z", "y", "x"), ("time", "lambda", "y"), ("t", "y", "row")])
def test_names_that_are_not_those_of_a_movie_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    zarr.create_array(tmp_path / "m.zarr", data=COUNTS, chunks=(5, 16, 20), dimension_names=names)
    with pytest.raises(SourceError, match=r"m.zarr has axes \[.*\], which are not those of a movie in time.*axes="):
        open_source(tmp_path / "m.zarr")
    assert open_source(tmp_path / "m.zarr", axes="TYX").shape == COUNTS.shape


def test_names_that_say_nothing_do_not_count(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "m.zarr", data=COUNTS, chunks=(5, 16, 20), dimension_names=("dim_0", "dim_1", "dim_2"))
    assert open_source(tmp_path / "m.zarr").axes == ("time", "height", "width")


def test_a_url_is_a_zarr_array(tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    zarr.create_array(tmp_path / "m.zarr", data=COUNTS, chunks=(5, 16, 20))
    filesystem.put(str(tmp_path / "m.zarr"), "/sources/m.zarr", recursive=True)
    with open_source("memory://sources/m.zarr") as movie:
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


def test_a_url_of_something_else_says_what_a_url_may_be(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/sources/m.tif", b"II*\0")
    with pytest.raises(
        SourceError, match=r"memory://\S*m.tif cannot be opened as Zarr, the only kind that a URL may name"
    ):
        open_source("memory://sources/m.tif")


def test_the_password_of_a_url_is_not_told() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("ftp://user:hunter2hunter2@127.0.0.1:1/m.zarr")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("broken", ["zarr.json", ".zarray"])
def test_broken_metadata_is_named(tmp_path: Path, broken: str) -> None:
    zarr.create_array(
        tmp_path, data=COUNTS, name="m", chunks=(5, 16, 20), zarr_format=3 if broken == "zarr.json" else 2
    )
    (tmp_path / "m" / broken).write_text("{")
    with pytest.raises(SourceError, match=r"m cannot be opened"):
        open_source(tmp_path / "m")


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "m", data=COUNTS, chunks=(5, 16, 20))
    (tmp_path / "m" / "c" / "1" / "0" / "0").write_bytes(b"damaged")
    with open_source(tmp_path / "m") as movie:
        np.testing.assert_array_equal(movie[:5], COUNTS[:5])
        with pytest.raises(SourceError, match="m: frames 3 to 6 cannot be read"):
            movie[3:7]


def test_a_movie_of_this_package_is_opened_as_one(tmp_path: Path) -> None:
    """Measured anew, the noise of what was stored would be another."""
    write_movie(tmp_path / "m", PhotonMovie(COUNTS, conversion_gain=1, zero_level=0))
    with pytest.raises(SourceError, match=r"is a movie that this package stored: insert what open_movie\(path\) gives"):
        open_source(tmp_path / "m")


def test_a_group_without_a_movie_says_so(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "m", mode="w").create_array("dff", data=COUNTS[0])
    (tmp_path / "m" / "spec.json").write_text("{}")
    with pytest.raises(SourceError, match="holds 0 arrays with the axes of a movie; it has none"):
        open_source(tmp_path / "m")


def test_a_movie_among_other_arrays_is_found(tmp_path: Path) -> None:
    """And files that are not Zarr's do not matter."""
    group = zarr.open_group(tmp_path / "m", mode="w", zarr_format=2)
    group.create_array("shifts", data=COUNTS[0])
    group.create_group("raw").create_array("observed", data=COUNTS, chunks=(5, 16, 20))
    (tmp_path / "m" / "spec.json").write_text("{}")
    with open_source(tmp_path / "m") as movie:
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])
