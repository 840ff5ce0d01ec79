"""Memory maps for CaImAn. It is not on PyPI, so they are read as its documentation says, with numpy alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import ConfigurationError, DamagedChunkError, OccupiedError, write_movie
from dj_photon_codecs.storage import layout

SHAPES = {"images": (21, 16, 20), "volumes": (21, 3, 16, 20)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 images in shards of 8, so that small movies have several of both."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 20)
    monkeypatch.setattr(layout, "SHARD_BYTES", 8 * 16 * 20 * 2)


def stored(folder: Path, kind: str = "images") -> tuple[Any, Any]:
    counts = np.random.default_rng(0).poisson(20, SHAPES[kind]).astype(np.uint16)
    return write_movie(folder / "movie", counts, profile="lossless"), counts


def load(path: Path) -> Any:
    """Read a memory map by its name: float32 (pixel, time) in that order, pixels counted along the height first."""
    found = re.fullmatch(r"session_d1_(\d+)_d2_(\d+)_d3_(\d+)_order_([CF])_frames_(\d+)\.mmap", path.name)
    assert found is not None, path.name
    *dims, frames = (int(found[number]) for number in (1, 2, 3, 5))
    assert path.stat().st_size == 4 * np.prod(dims) * frames
    order: Any = found[4]
    mapped = np.memmap(path, np.float32, "r", shape=(int(np.prod(dims)), frames), order=order)
    return np.asarray(mapped).T.reshape((frames, *dims), order="F")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_movie_of_images_comes_back(tmp_path: Path, order: Any) -> None:
    movie, counts = stored(tmp_path)
    path = movie.to_caiman(tmp_path / "new" / "session", order=order)
    np.testing.assert_array_equal(load(path)[..., 0], counts)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_movie_of_volumes_comes_back_with_the_planes_last(tmp_path: Path, order: Any) -> None:
    movie, counts = stored(tmp_path, "volumes")
    path = movie.to_caiman(tmp_path / "session", order=order)
    np.testing.assert_array_equal(load(path), np.moveaxis(counts, 1, -1))


def test_a_movie_is_read_one_object_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movie, _ = stored(tmp_path)
    lengths: list[int] = []
    read = type(movie).__getitem__

    def seen(self: Any, selection: Any) -> Any:
        lengths.append(len(counts := read(self, selection)))
        return counts

    monkeypatch.setattr(type(movie), "__getitem__", seen)
    movie.to_caiman(tmp_path / "session")
    assert lengths == [8, 8, 5]


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    movie, _ = stored(tmp_path)
    path = movie.to_caiman(tmp_path / "session")
    before = path.read_bytes()
    with pytest.raises(OccupiedError, match=r"frames_21\.mmap exists: choose another path"):
        movie.to_caiman(tmp_path / "session")
    assert path.read_bytes() == before


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_damaged_movie_leaves_nothing_behind(tmp_path: Path, order: Any) -> None:
    movie, _ = stored(tmp_path)
    last = tmp_path / "movie" / "c" / "2" / "0" / "0"
    last.write_bytes(bytes([byte ^ 255 for byte in last.read_bytes()]))
    with pytest.raises(DamagedChunkError):
        movie.to_caiman(tmp_path / "new" / "session", order=order)
    assert [each.name for each in tmp_path.iterdir()] == ["movie"]


def test_a_wrong_order_and_too_many_axes_are_refused(tmp_path: Path) -> None:
    movie, _ = stored(tmp_path)
    with pytest.raises(ConfigurationError, match=r'order must be "C" for CNMF or "F" for motion correction'):
        movie.to_caiman(tmp_path / "session", order="c")
    deep = write_movie(tmp_path / "deep", np.ones((2, 2, 2, 8, 8), np.uint16), profile="lossless")
    with pytest.raises(ConfigurationError, match=r"time, height, width and planes; this movie is \(2, 2, 2, 8, 8\)"):
        deep.to_caiman(tmp_path / "session")
