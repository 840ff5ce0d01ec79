"""open_source on Suite2p's binaries; its ops.npy is a pickle, which must not run anything."""

from __future__ import annotations

import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import SourceError, open_source

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.int16) - 5


def ops(**changed: Any) -> dict[str, Any]:
    """A part of what Suite2p keeps: plain values, numpy scalars and arrays, lists of them, dates, paths."""
    return {
        "Ly": 16,
        "Lx": np.int64(20),
        "nframes": np.int32(12),
        "fs": 30.0,
        "diameter": [12, 12],
        "data_path": ["/data/raw"],
        "save_folder": Path("suite2p"),
        "meanImg": np.ones((16, 20), np.float32),
        "xrange": np.array([0, 20]),
        "badframes": np.zeros(12, bool),
        "aspect": np.float64(1.0),
        "date_proc": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
        "classifier_path": None,
        "timing": {"registration": 12.5},
    } | changed


def write_plane(folder: Path, kept: Any = None, name: str = "data.bin") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(COUNTS.astype("<i2").tobytes())
    np.save(folder / "ops.npy", np.array(ops() if kept is None else kept, dtype=object), allow_pickle=True)
    return folder


@pytest.mark.parametrize("name", ["data.bin", "data_raw.bin", "data_chan2.bin"])
def test_a_binary_has_the_shape_of_the_ops_beside_it(tmp_path: Path, name: str) -> None:
    folder = write_plane(tmp_path / "plane0", name=name)
    for path in (folder, folder / name):
        with open_source(path) as movie:
            assert (movie.shape, movie.dtype) == (COUNTS.shape, np.dtype(np.int16))
            np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


def test_a_folder_with_raw_and_registered_frames_asks_which(tmp_path: Path) -> None:
    write_plane(tmp_path)
    write_plane(tmp_path, name="data_raw.bin")
    with pytest.raises(SourceError, match=r"several movies: .*data.bin, .*data_raw.bin; open one of them"):
        open_source(tmp_path)


def test_a_folder_of_planes_lists_them(tmp_path: Path) -> None:
    for plane in range(12):
        write_plane(tmp_path / f"plane{plane}")
    with pytest.raises(
        SourceError, match=r"planes of Suite2p, a movie each: \S*plane0, \S*plane1, \S*plane2, .* 7 more"
    ):
        open_source(tmp_path)


def test_without_ops_the_shape_is_given(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(COUNTS.tobytes())
    with pytest.raises(SourceError, match=r"no ops.npy beside .*data.bin.*shape=\(-1, height, width\)"):
        open_source(tmp_path / "data.bin")
    with open_source(tmp_path / "data.bin", shape=(-1, 16, 20)) as movie:
        assert movie.dtype == np.int16
        np.testing.assert_array_equal(movie[:], COUNTS)


@pytest.mark.parametrize("change", [-640, 2, "empty"])
def test_a_binary_that_does_not_fit_its_ops_is_named(tmp_path: Path, change: Any) -> None:
    path = write_plane(tmp_path) / "data.bin"
    os.truncate(path, 0 if change == "empty" else path.stat().st_size + change)
    with pytest.raises(
        SourceError, match=r"data.bin has \d+ bytes, and 12 frames of 16 x 20 as its ops.npy says are 7680"
    ):
        open_source(path)


@pytest.mark.parametrize("missing", ["Ly", "nframes"])
def test_ops_without_the_shape_are_named(tmp_path: Path, missing: str) -> None:
    kept = ops()
    del kept[missing]
    with pytest.raises(SourceError, match="lacks Ly, Lx or nframes"):
        open_source(write_plane(tmp_path, kept))


class Runs:
    """What a crafted pickle does: calls a function of its author's choice."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, os.mkdir], ids=lambda function: function.__name__)
def test_ops_that_would_run_something_are_refused(tmp_path: Path, function: Any) -> None:
    """Invariant 10: a recording may come from anywhere."""
    trace = tmp_path / "ran"
    argument = str(trace) if function is os.mkdir else f"__import__('os').mkdir({str(trace)!r})"
    if function is os.system:
        argument = f"echo > {trace}"
    folder = write_plane(tmp_path / "plane0", ops(Ly=Runs(function, argument)))
    with pytest.raises(
        SourceError, match="ops.npy cannot be read: UnpicklingError: it names .*neither an array nor a plain"
    ):
        open_source(folder)
    assert not trace.exists()
    np.load(folder / "ops.npy", allow_pickle=True)
    assert trace.exists(), "it would have run, elsewhere"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00" + b"{" * 118, pickle.dumps(ops())],
    ids=["empty", "short", "header", "pickle"],
)
def test_ops_that_are_no_npy_file_are_named(tmp_path: Path, content: bytes) -> None:
    (write_plane(tmp_path) / "ops.npy").write_bytes(content)
    with pytest.raises(SourceError, match="ops.npy cannot be read"):
        open_source(tmp_path / "data.bin")


@pytest.mark.parametrize("kept", [[1, 2], np.arange(3), "ops"], ids=["list", "array", "text"])
def test_ops_that_are_no_dictionary_are_named(tmp_path: Path, kept: Any) -> None:
    write_plane(tmp_path)
    np.save(tmp_path / "ops.npy", np.array(kept, dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="ops.npy (cannot be read|holds a str, not a dictionary)"):
        open_source(tmp_path / "data.bin")


@pytest.mark.fuzz
def test_ops_with_flipped_bytes_raise_or_open(tmp_path: Path) -> None:
    path = write_plane(tmp_path) / "ops.npy"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            movie = open_source(tmp_path)
        except SourceError:
            continue
        assert movie.shape == COUNTS.shape
