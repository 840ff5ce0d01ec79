"""open_source: which files a path stands for, and what every movie in files does, whatever its format."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import socket
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import (
    ConfigurationError,
    FileMovie,
    InvalidMovieError,
    MovieTypeError,
    PhotonMovie,
    SourceError,
    SourceNotFoundError,
    calibrate,
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
        ({"a.tif": b"II*\0" + bytes(40), "b.npy": b"\x93NUMPY"}, "several formats, NPY, TIFF"),
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
    with pytest.raises(SourceError, match=rf"movie.dat \({len(content)} bytes\): unrecognised format; .* shape="):
        open_source(tmp_path / "movie.dat")


def test_files_of_different_frames_are_not_one_movie(tmp_path: Path) -> None:
    save(tmp_path / "part_1.npy")
    save(tmp_path / "part_2.npy", COUNTS[:, :6])
    with pytest.raises(SourceError, match=r"part_2.npy holds uint16 .* \(30, 6, 16\), and .*part_1.npy holds uint16"):
        open_source(tmp_path)
    save(tmp_path / "part_2.npy", COUNTS.astype(np.int16))
    with pytest.raises(SourceError, match=r"part_2.npy holds int16"):
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
        ({"shape": (31, 12, 16), "dtype": "u2"}, SourceError, "11520 bytes .* takes 11904: truncated"),
        ({"shape": (-1, 13, 16), "dtype": "u2"}, SourceError, "truncated, or the shape"),
        ({"shape": (-1, 12, 16), "dtype": "u2", "offset": 3}, SourceError, "after offset 3"),
        ({"shape": (-1, -1, 16), "dtype": "u2"}, ConfigurationError, "at most one -1"),
        ({"shape": (-1, 0, 16), "dtype": "u2"}, ConfigurationError, "positive"),
        ({"shape": (-1, 16), "dtype": "u2"}, SourceError, "at least 3 axes"),
        ({"shape": (-1, 12, 16), "dtype": "nonsense"}, ConfigurationError, "'nonsense' is not a numpy dtype"),
        ({"shape": (-1, 12, 16), "dtype": "u2", "offset": -2}, ConfigurationError, "between 0 and the size"),
        ({"dtype": "u2"}, ConfigurationError, "needs shape="),
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
    before = threading.active_count()
    with open_source(parts_in(tmp_path)) as movie, ThreadPoolExecutor(4) as pool:
        starts = [i % 25 for i in range(200)]
        for start, counts in zip(starts, pool.map(lambda s: movie[s : s + 5], starts), strict=True):
            np.testing.assert_array_equal(counts, COUNTS[start : start + 5])
    assert threading.active_count() < before + 10


def test_a_movie_larger_than_the_memory_it_may_take_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 7, for files that follow each other: a few shards of 1 MiB."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 20)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 18)
    rng = np.random.default_rng(0)
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", rng.integers(90, 120, size=(256, 128, 128), dtype=np.uint16))
    movie = open_source(tmp_path)
    given = PhotonMovie(movie, conversion_gain=1, zero_level=100, profile="lossless")
    write_movie(tmp_path / "warm", PhotonMovie(COUNTS, conversion_gain=1, zero_level=0, profile="lossless"))
    tracemalloc.start()
    try:
        stored = write_movie(tmp_path / "stored", given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.shape == movie.shape
    assert peak < 16 << 20 < stored.nbytes


def masked_movies() -> dict[str, Any]:
    import dask.array

    masked = np.ma.masked_less(COUNTS, 15)

    class Variable:
        """As netCDF4 has it: the mask shows when it is read."""

        shape, dtype = COUNTS.shape, COUNTS.dtype

        def __getitem__(self, key: Any) -> Any:
            return masked[key]

    lazily = dask.array.ma.masked_less(dask.array.from_array(COUNTS), 15)  # type: ignore[no-untyped-call]
    return {"numpy": masked, "dask": lazily, "read": Variable()}


@pytest.mark.parametrize("kind", masked_movies())
def test_masked_values_are_refused(tmp_path: Path, kind: str) -> None:
    movie = masked_movies()[kind]
    for given in (movie, PhotonMovie(movie, conversion_gain=1)):
        with pytest.raises(InvalidMovieError, match="mask.*filled"):
            write_movie(tmp_path / "m.zarr", given)
    with pytest.raises(InvalidMovieError, match="mask"):
        calibrate(movie)
    assert not (tmp_path / "m.zarr").exists()


def test_a_masked_array_without_a_masked_value_is_a_movie(tmp_path: Path) -> None:
    whole = np.ma.masked_greater(COUNTS, 1e6)
    np.testing.assert_array_equal(write_movie(tmp_path / "m.zarr", whole, profile="lossless")[:], COUNTS)


@pytest.fixture
def waiting_files(tmp_path: Path) -> Iterator[Path]:
    """A folder with a recording, a named pipe and a socket, which nobody writes to."""
    if sys.platform == "win32":
        pytest.skip("Windows has neither named pipes nor Unix sockets in folders")
    folder = parts_in(tmp_path)
    os.mkfifo(folder / "pipe.npy")
    with socket.socket(socket.AF_UNIX) as waiting, contextlib.chdir(folder):
        waiting.bind("socket.npy")  # a short name: the address of a socket has 107 bytes
        yield folder


def test_pipes_and_sockets_in_a_folder_are_not_waited_for(waiting_files: Path) -> None:
    np.testing.assert_array_equal(open_source(waiting_files)[:], COUNTS)
    if sys.platform != "win32":  # as the fixture has it
        os.mkfifo(waiting_files / "ops.npy")
    np.testing.assert_array_equal(open_source(waiting_files)[:], COUNTS)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pipe.npy", "a named pipe"),
        ("socket.npy", "a socket"),
        ("*.npy", "is a (named pipe|socket)"),
        ("p*.npy", "pipe"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"shape": (-1, 4, 4), "dtype": "u2"}], ids=["header", "headerless"])
def test_a_pipe_that_is_named_is_refused(waiting_files: Path, name: str, what: str, options: Any) -> None:
    with pytest.raises(SourceError, match=what):
        open_source(waiting_files / name, **options)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"this system has no {name}")
    with pytest.raises(SourceError, match=f"{name} is a device"):
        open_source(name)


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [("gone.npy", SourceNotFoundError, "link.npy is a link"), ("link.npy", SourceError, "symbolic links")],
    ids=["broken", "loop"],
)
@pytest.mark.parametrize("name", ["link.npy", "*.npy"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, target: str, error: type, says: str, name: str) -> None:
    try:
        (tmp_path / "link.npy").symlink_to(tmp_path / target)
    except OSError as refusal:
        pytest.skip(f"this system makes no links: {refusal}")
    with pytest.raises(error, match=says):
        open_source(tmp_path / name)


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied")], ids=str)
@pytest.mark.parametrize("at", ["builtins.open", "os.stat", "numpy.load", "numpy.memmap", "pathlib.Path.iterdir"])
def test_an_error_of_the_system_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, fault: OSError
) -> None:
    """Operations by faults: the system's error may name no path."""
    save(tmp_path / "folder.npy")
    where = tmp_path if at.endswith("iterdir") else tmp_path / "folder.npy"

    def fail(*_: Any, **__: Any) -> Any:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(at, fail)
        try:
            open_source(where)[:]
        except Exception as error:
            found = error
        else:
            pytest.fail("it was read all the same")
    assert isinstance(found, SourceError)
    assert str(where) in str(found)
    assert fault.args[1] in str(found)
