"""A stored movie as an ImagingExtractor of roiextractors, checked with that library's own tools."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import ConfigurationError, write_movie

roiextractors = pytest.importorskip("roiextractors", reason="roiextractors is in the dev extra")
testing = pytest.importorskip("roiextractors.testing")

SHAPES = {"images": (30, 16, 20), "volumes": (30, 3, 16, 20)}


def stored(folder: Path, kind: str = "images") -> tuple[Any, Any]:
    counts = np.random.default_rng(0).poisson(20, SHAPES[kind]).astype(np.uint16)
    return write_movie(folder / "movie", counts, profile="lossless"), counts


def test_frames_come_back(tmp_path: Path) -> None:
    movie, counts = stored(tmp_path)
    extractor = movie.to_roiextractors(sampling_frequency=25)
    assert isinstance(extractor, roiextractors.ImagingExtractor)
    assert (extractor.get_image_shape(), extractor.get_num_samples(), extractor.get_dtype()) == ((16, 20), 30, "uint16")
    np.testing.assert_array_equal(extractor.get_series(), counts)
    np.testing.assert_array_equal(extractor.get_series(3, 8), counts[3:8])
    np.testing.assert_array_equal(extractor.get_samples([29, 0, 7]), counts[[29, 0, 7]])


def test_volumes_have_their_planes_last(tmp_path: Path) -> None:
    movie, counts = stored(tmp_path, "volumes")
    extractor = movie.to_roiextractors(sampling_frequency=5.0)
    expected = np.moveaxis(counts, 1, -1)
    assert extractor.get_sample_shape() == (16, 20, 3)
    np.testing.assert_array_equal(extractor.get_series(3, 8), expected[3:8])
    np.testing.assert_array_equal(extractor.get_samples([5, 2]), expected[[5, 2]])
    np.testing.assert_array_equal(extractor.select_plane(1).get_series(0, 30), counts[:, 1])


def test_it_equals_the_extractor_whose_movie_was_stored(tmp_path: Path) -> None:
    """By roiextractors' own comparison."""
    original = testing.MockImagingExtractor(num_samples=30, num_rows=16, num_columns=20, sampling_frequency=25.0)
    movie = write_movie(tmp_path / "movie", original, profile="lossless")
    testing.check_imaging_equal(movie.to_roiextractors(), original)
    volumes = testing.MockImagingExtractor(num_samples=30, num_rows=16, num_columns=20, num_planes=3)
    movie = write_movie(tmp_path / "volumes", volumes, profile="lossless")
    testing.check_imaging_equal(movie.to_roiextractors(), volumes)


def test_it_is_sliced_lazily(tmp_path: Path, decoded: list[tuple[int, ...]]) -> None:
    movie, counts = stored(tmp_path)
    decoded.clear()  # what was read back while writing
    extractor = movie.to_roiextractors(sampling_frequency=25)
    part = extractor.slice_samples(5, 20).slice_field_of_view(row_start=2, row_end=10)
    assert "30" in repr(extractor)
    assert decoded == []
    np.testing.assert_array_equal(part.get_series(1, 4), counts[6:9, 2:10])
    assert decoded


def test_times_are_those_of_the_recording(tmp_path: Path) -> None:
    movie, _ = stored(tmp_path)
    np.testing.assert_array_equal(movie.to_roiextractors(sampling_frequency=10).get_timestamps(1, 3), [0.1, 0.2])
    times, counts = [0.0, 0.1, 0.25], np.ones((3, 16, 20), np.uint16)
    plane = {"DeltaT": times, "DeltaTUnit": ["s"] * 3}
    tifffile.imwrite(tmp_path / "m.ome.tif", counts, ome=True, metadata={"axes": "TYX", "Plane": plane})
    uneven = write_movie(tmp_path / "uneven", tmp_path / "m.ome.tif", profile="lossless")
    extractor = uneven.to_roiextractors(sampling_frequency=8)
    np.testing.assert_array_equal(extractor.get_timestamps(1, 3), [0.1, 0.25])
    np.testing.assert_array_equal(extractor.slice_samples(1, 3).get_timestamps(), [0.1, 0.25])


def test_a_movie_without_a_frame_rate_needs_one(tmp_path: Path) -> None:
    movie, _ = stored(tmp_path)
    with pytest.raises(ConfigurationError, match="does not say how fast it was recorded: give sampling_frequency"):
        movie.to_roiextractors()
    with pytest.raises(ConfigurationError, match="sampling_frequency must be a positive number"):
        movie.to_roiextractors(sampling_frequency=0)
    deep = write_movie(tmp_path / "deep", np.ones((2, 2, 2, 8, 8), np.uint16), profile="lossless")
    with pytest.raises(ConfigurationError, match="has images and volumes"):
        deep.to_roiextractors(sampling_frequency=1)


def test_it_is_pickled_as_the_handle_is(tmp_path: Path) -> None:
    movie, counts = stored(tmp_path)
    copy = pickle.loads(pickle.dumps(movie.to_roiextractors(sampling_frequency=25)))
    np.testing.assert_array_equal(copy.get_series(0, 3), counts[:3])


def test_without_roiextractors_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movie, _ = stored(tmp_path)
    monkeypatch.delitem(sys.modules, "dj_photon_codecs.bridges.imaging_extractor", raising=False)
    monkeypatch.setitem(sys.modules, "roiextractors", None)
    with pytest.raises(ImportError, match=r'pip install "dj-photon-codecs\[roiextractors\]"'):
        movie.to_roiextractors(sampling_frequency=25)
