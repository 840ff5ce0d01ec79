"""open_source: which files a path stands for, and what every movie in files does, whatever its format."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import (
    ConfigurationError,
    FileMovie,
    MovieTypeError,
    PhotonMovie,
    SourceError,
    SourceNotFoundError,
    open_source,
    write_movie,
)
from dj_photon_codecs.storage import layout as layout_module

COUNTS = np.random.default_rng(0).poisson(20, size=(30, 12, 16)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).poisson(20, size=(10, 3, 12, 16)).astype(np.uint16)


def save(path: Path, counts: np.ndarray = COUNTS) -> Path:
    np.save(path, counts)
    return path


def parts_in(folder: Path) -> Path:
    """12 files of different lengths, whose natural order is not that of their letters."""
    for number, part in enumerate(np.split(COUNTS, [1, 4, 6, 7, 9, 13, 15, 18, 21, 22, 28])):
        np.save(folder / f"part_{number}.npy", part)
    return folder


def test_an_npy_file_is_mapped(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "m.npy")) as movie:
        assert isinstance(movie, FileMovie)
        assert (movie.shape, movie.dtype, movie.ndim, len(movie)) == (COUNTS.shape, COUNTS.dtype, 3, 30)
        assert movie.axes == ("time", "height", "width")
        np.testing.assert_array_equal(movie[4:11], COUNTS[4:11])


@pytest.mark.parametrize(
    "key",
    [
        *(slice(None), slice(3, 3), slice(-4, None), slice(2, 20, 7), slice(9, 2, -3), 5, -1, np.int64(3)),
        *((slice(2, 5), 3), (4, slice(None), 2), (slice(1, 4), slice(2, 4), slice(5, 6)), (2, ...)),
    ],
    ids=str,
)
def test_a_movie_in_files_is_indexed_as_an_array(tmp_path: Path, key: Any) -> None:
    with open_source(parts_in(tmp_path)) as movie:
        np.testing.assert_array_equal(movie[key], COUNTS[key])


@pytest.mark.parametrize("key", [30, -31, None, [1, 2], True, "time", ...], ids=str)
def test_frames_that_are_not_there_are_an_index_error(tmp_path: Path, key: Any) -> None:
    with open_source(save(tmp_path / "m.npy")) as movie, pytest.raises(IndexError):
        movie[key]


@pytest.mark.parametrize("name", ["", "part_*.npy", "part_?*.npy"])
def test_files_follow_each_other_in_natural_order(tmp_path: Path, name: str) -> None:
    """By folder and by glob, part_2 before part_10, with runs of frames across the borders of files."""
    with open_source(os.path.join(parts_in(tmp_path), name)) as movie:
        assert movie.shape == COUNTS.shape
        for start in range(0, 30, 4):
            np.testing.assert_array_equal(movie[start : start + 9], COUNTS[start : start + 9])


def test_other_files_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    parts_in(tmp_path)
    (tmp_path / "metaData.json").write_text("{}")
    (tmp_path / "timeStamps.csv").write_text("frame,ms\n")
    (tmp_path / ".DS_Store").write_bytes(b"II*\0")
    assert open_source(tmp_path).shape == COUNTS.shape


def test_a_home_folder_and_a_file_url_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "m.npy")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for path in ("~/m.npy", (tmp_path / "m.npy").as_uri()):
        assert open_source(path).shape == COUNTS.shape


@pytest.mark.parametrize("name", ["gone.npy", "gone_*.npy", "no/folder"])
def test_a_path_without_files_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceNotFoundError, match="no file or folder") as caught:
        open_source(tmp_path / name)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, MovieTypeError)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "holds no movie"),
        ({"notes.txt": b"hello"}, "holds no movie"),
        ({"a.tif": b"II*\0" + bytes(40), "b.npy": b"\x93NUMPY"}, "several kinds, NPY, TIFF"),
    ],
    ids=["empty", "text", "mixed"],
)
def test_a_folder_without_one_movie_says_so(tmp_path: Path, files: dict[str, bytes], match: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=match):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100)], ids=["empty", "text", "zeros"])
def test_a_file_of_no_known_kind_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "movie.dat").write_bytes(content)
    with pytest.raises(SourceError, match=rf"movie.dat \({len(content)} bytes\) is of no kind .* shape="):
        open_source(tmp_path / "movie.dat")


def test_files_of_different_frames_are_not_one_movie(tmp_path: Path) -> None:
    save(tmp_path / "a.npy")
    save(tmp_path / "b.npy", COUNTS[:, :6])
    with pytest.raises(SourceError, match=r"b.npy holds uint16 .* \(30, 6, 16\), and .*a.npy holds uint16"):
        open_source(tmp_path)
    save(tmp_path / "b.npy", COUNTS.astype(np.int16))
    with pytest.raises(SourceError, match=r"b.npy holds int16"):
        open_source(tmp_path)


def test_a_truncated_npy_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "m.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"m.npy \(.* bytes\) cannot be mapped"):
        open_source(path)


def test_an_npy_file_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="cannot be mapped"):
        open_source(tmp_path / "m.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">u2", "|u1", "<f4"])
def test_byte_order_and_memory_order_do_not_show(tmp_path: Path, order: Any, dtype: str) -> None:
    np.save(tmp_path / "m.npy", np.asarray(COUNTS, dtype=dtype, order=order))
    with open_source(tmp_path / "m.npy") as movie:
        assert movie.dtype == np.dtype(dtype).newbyteorder("=")
        assert movie[2:5].flags.c_contiguous
        np.testing.assert_array_equal(movie[2:5], COUNTS[2:5].astype(movie.dtype))


# ---- headerless binaries


@pytest.mark.parametrize("offset", [0, 48])
@pytest.mark.parametrize("length", [-1, 30])
def test_a_binary_without_a_header_opens_by_shape_and_dtype(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "m.raw").write_bytes(b"II*\0".ljust(48)[:offset] + COUNTS.astype(">i2").tobytes())
    with open_source(tmp_path / "m.raw", shape=(length, 12, 16), dtype=">i2", offset=offset) as movie:
        assert (movie.shape, movie.dtype) == (COUNTS.shape, np.dtype(np.int16))
        np.testing.assert_array_equal(movie[7:9], COUNTS[7:9])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"shape": (31, 12, 16), "dtype": "u2"}, SourceError, "11520 bytes .* is 11904 bytes: truncated"),
        ({"shape": (-1, 13, 16), "dtype": "u2"}, SourceError, "truncated, or of another shape"),
        ({"shape": (-1, 12, 16), "dtype": "u2", "offset": 3}, SourceError, "behind offset 3"),
        ({"shape": (-1, -1, 16), "dtype": "u2"}, ConfigurationError, "at most one -1"),
        ({"shape": (-1, 0, 16), "dtype": "u2"}, ConfigurationError, "positive"),
        ({"shape": (-1, 16), "dtype": "u2"}, SourceError, "at least 3 axes"),
        ({"shape": (-1, 12, 16), "dtype": "nonsense"}, ConfigurationError, "'nonsense' is no dtype"),
        ({"shape": (-1, 12, 16), "dtype": "u2", "offset": -2}, ConfigurationError, "between 0 and the size"),
        ({"dtype": "u2"}, ConfigurationError, "no shape"),
    ],
)
def test_a_binary_that_does_not_fit_says_both_sizes(tmp_path: Path, options: Any, error: Any, match: str) -> None:
    (tmp_path / "m.raw").write_bytes(COUNTS.tobytes())
    with pytest.raises(error, match=match):
        open_source(tmp_path / "m.raw", **options)


# ---- axes, channels, planes


@pytest.mark.parametrize("axes", ["TZCYX", "TCZYX", "CTZYX", "XYCZT", "ZYTXC"])
def test_axes_in_any_order_come_as_time_plane_height_width(tmp_path: Path, axes: str) -> None:
    counts = np.random.default_rng(2).poisson(20, size=(6, 3, 2, 8, 10)).astype(np.uint16)  # TZCYX
    np.save(tmp_path / "m.npy", counts.transpose(["TZCYX".index(letter) for letter in axes]))
    for channel in (0, 1):
        with open_source(tmp_path / "m.npy", axes=axes, channel=channel) as movie:
            assert movie.axes == ("time", "plane", "height", "width")
            np.testing.assert_array_equal(movie[1:4], counts[1:4, :, channel])
    with open_source(tmp_path / "m.npy", axes=axes, channel=1, planes=2) as movie:
        assert movie.axes == ("time", "height", "width")
        np.testing.assert_array_equal(movie[:], counts[:, 2, 1])
    with open_source(tmp_path / "m.npy", axes=axes, channel=1, planes=[2, 0]) as movie:
        assert movie.shape == (6, 2, 8, 10)
        np.testing.assert_array_equal(movie[2:], counts[2:, [2, 0], 1])


def test_several_channels_are_never_chosen_silently(tmp_path: Path) -> None:
    save(tmp_path / "m.npy", VOLUMES)
    with pytest.raises(SourceError, match=r"holds 3 channels.*channel=0\) to channel=2"):
        open_source(tmp_path / "m.npy", axes="TCYX")


def test_planes_of_an_array_without_names(tmp_path: Path) -> None:
    """(time, ..., height, width), as for arrays: what stands between is the planes."""
    save(tmp_path / "m.npy", VOLUMES)
    assert open_source(tmp_path / "m.npy").axes == ("time", "axis", "height", "width")
    np.testing.assert_array_equal(open_source(tmp_path / "m.npy")[3:5], VOLUMES[3:5])
    np.testing.assert_array_equal(open_source(tmp_path / "m.npy", planes=1)[:], VOLUMES[:, 1])
    np.testing.assert_array_equal(open_source(tmp_path / "m.npy", planes=range(2))[:], VOLUMES[:, :2])
    np.testing.assert_array_equal(open_source(tmp_path / "m.npy", planes=np.array([2, 1]))[1:3], VOLUMES[1:3, [2, 1]])


def test_a_single_plane_of_a_name_is_no_axis(tmp_path: Path) -> None:
    save(tmp_path / "m.npy", VOLUMES[:, :1])
    assert open_source(tmp_path / "m.npy", axes="TZYX").shape == (10, 12, 16)
    assert open_source(tmp_path / "m.npy", axes="TZYX", planes=[0]).shape == (10, 1, 12, 16)
    assert open_source(tmp_path / "m.npy").shape == (10, 1, 12, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"channel": 3, "axes": "TCYX"},
        {"channel": -1, "axes": "TCYX"},
        {"channel": True, "axes": "TCYX"},
        {"channel": "green", "axes": "TCYX"},
        {"channel": 1},
        {"planes": 3},
        {"planes": -1},
        {"planes": [0, 3]},
        {"planes": []},
        {"planes": [1, 1]},
        {"planes": 1.0},
        {"planes": "0"},
    ],
    ids=str,
)
def test_channels_and_planes_that_are_not_there_are_refused(tmp_path: Path, options: Any) -> None:
    save(tmp_path / "m.npy", VOLUMES)
    with pytest.raises(ConfigurationError, match=r"m.npy has \d (channel|plane)"):
        open_source(tmp_path / "m.npy", **options)


@pytest.mark.parametrize("axes", ["TYX", "TZYY", "TQYX", "TZCX", "", "time"])
def test_axes_that_do_not_name_the_array_are_refused(tmp_path: Path, axes: str) -> None:
    save(tmp_path / "m.npy", VOLUMES)
    with pytest.raises(ConfigurationError, match=r"axes='.*' must give each axis of .*m.npy, shape \(10, 3, 12, 16\)"):
        open_source(tmp_path / "m.npy", axes=axes)


def test_files_without_a_time_axis_are_one_point_in_time_each(tmp_path: Path) -> None:
    for number, volume in enumerate(VOLUMES):
        save(tmp_path / f"{number}.npy", volume)
    with open_source(tmp_path, axes="ZYX") as movie:
        assert movie.axes == ("time", "plane", "height", "width")
        np.testing.assert_array_equal(movie[2:7], VOLUMES[2:7])


@pytest.mark.parametrize("option", ["dataset", "shape", "offset"])
def test_an_option_without_a_meaning_is_refused(tmp_path: Path, option: str) -> None:
    value: Any = {"dataset": "/mov", "shape": (-1, 12, 16), "offset": 12}[option]
    with pytest.raises(ConfigurationError, match=f"{option}=.* has no meaning for .*m.npy, NPY"):
        open_source(save(tmp_path / "m.npy"), **{option: value})


# ---- processes, threads, memory


def total(movie: Any) -> int:
    return int(np.asarray(movie[:], dtype=np.int64).sum())


def test_a_movie_goes_to_other_processes_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    with open_source("part_*.npy", planes=0) as movie:
        movie[3:9]
        assert len(pickle.dumps(movie)) < 1000
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            monkeypatch.chdir("/")
            assert pool.submit(total, movie).result() == COUNTS.sum()


def test_a_closed_movie_opens_again(tmp_path: Path) -> None:
    with open_source(parts_in(tmp_path)) as movie:
        first = movie[:3]
    np.testing.assert_array_equal(movie[:3], first)
    movie.close()
    movie.close()


def test_threads_read_one_at_a_time(tmp_path: Path) -> None:
    """Files have one position: what two threads read side by side would be mixed up."""
    with open_source(parts_in(tmp_path)) as movie, ThreadPoolExecutor(4) as pool:
        starts = [i % 25 for i in range(200)]
        for start, counts in zip(starts, pool.map(lambda s: movie[s : s + 5], starts), strict=True):
            np.testing.assert_array_equal(counts, COUNTS[start : start + 5])
    assert threading.active_count() < 50


def test_a_movie_larger_than_the_memory_it_may_take_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 7, for files that follow each other: a few shards of 1 MiB."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 20)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 18)
    rng = np.random.default_rng(0)
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", rng.integers(90, 120, size=(256, 128, 128), dtype=np.uint16))
    movie = open_source(tmp_path)
    given = PhotonMovie(movie, conversion_gain=1, zero_level=100, profile="lossless")
    write_movie(tmp_path / "warm", PhotonMovie(COUNTS, conversion_gain=1, profile="lossless"))
    tracemalloc.start()
    try:
        stored = write_movie(tmp_path / "stored", given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.shape == movie.shape
    assert peak < 16 << 20 < stored.nbytes
