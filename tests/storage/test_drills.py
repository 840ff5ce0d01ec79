"""Drills: a writer that is killed at every await, no room for another file, few file descriptors, and every bound."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from disks import mounted
from dj_photon_codecs import Calibration, PhotonArray, PhotonWriter, StorageError, write_movie
from dj_photon_codecs.storage import layout, plan

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks and mounts are POSIX")

_KILLED = """
import json, os, signal, sys
import numpy as np
from dj_photon_codecs import Calibration, FormatError, StorageError, open_movie, write_movie
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.location import FolderStore
layout.CHUNK_PIXELS, layout.SHARD_BYTES = 2 * 16 * 16, 1
counts = np.random.default_rng(0).poisson(50, (8, 16, 16)).astype(np.uint16)
noise, (folder, way) = Calibration.given(1.0, 0.0), sys.argv[1:]
left = [0]

def step():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(name):
    method = getattr(FolderStore, name)
    async def call(self, *args, **options):
        step()
        found = await method(self, *args, **options)
        step()
        return found
    return call

def write(place):
    write_movie(place, write_movie({}, counts, calibration=noise) if way == "copy" else counts, calibration=noise)

for name in ("set", "set_if_not_exists", "get", "delete", "exists"):
    setattr(FolderStore, name, watched(name))
rename = os.replace
os.replace = lambda *args, **options: (step(), rename(*args, **options), step())
outcomes = {"nothing": 0, "whole": 0}
for number in range(1, 400):
    place = f"{folder}/{number}/m.zarr"
    os.makedirs(os.path.dirname(place))
    child = os.fork()
    if child == 0:
        left[0] = number
        write(place)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    if ended == 0:
        break
    read = os.fork()  # this process starts no event loop, so that its children can
    if read == 0:
        try:
            assert (open_movie(place)[...].shape, open_movie(place).verify().ok) == ((8, 16, 16), True)
            os._exit(0)
        except (FormatError, StorageError):  # of the second kind where the folder above is empty still
            write(place)
            assert open_movie(place).verify()
            left = [name for _, _, names in os.walk(place) for name in names]
            assert not [name for name in left if "partial" in name or "writing" in name]
            os._exit(1)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(read, 0)[1])
    assert code in (0, 1), (number, code)
    outcomes[["whole", "nothing"][code]] += 1
print(json.dumps(outcomes | {"moments": number - 1}))
"""


@posix
@pytest.mark.parametrize("way", ["write", "copy"])
def test_a_writer_that_is_killed_at_any_await_leaves_a_movie_or_what_the_next_one_removes(
    tmp_path: Path, way: str
) -> None:
    """Invariant 6: what is incomplete does not open, and the same place is written to again."""
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, str(tmp_path), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["moments"] == found["nothing"] + found["whole"] > 20
    assert found["nothing"] > 0
    assert found["whole"] > 0


@pytest.fixture
def disk_of_few_files(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 files and folders."""
    with mounted(tmp_path / "disk", "nr_inodes=8") as folder:
        yield folder


@posix
def test_a_disk_without_room_for_another_name_is_left_as_it_was(
    disk_of_few_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 2 * 16 * 16)
    monkeypatch.setattr(layout, "SHARD_BYTES", 1)
    counts = np.random.default_rng(0).poisson(50, (16, 16, 16)).astype(np.uint16)
    with pytest.raises(StorageError, match=f"of {disk_of_few_files}/m.zarr could not be written: OSError: .*No space"):
        write_movie(disk_of_few_files / "m.zarr", counts, calibration=Calibration.given(1.0, 0.0))
    assert not list(disk_of_few_files.iterdir())


_FEW_DESCRIPTORS = """
import pickle, resource, sys
from dj_photon_codecs import open_movie
movie = open_movie(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
handles = [pickle.loads(pickle.dumps(movie)) for _ in range(500)]
assert {int(handle[n % 8].sum()) for n, handle in enumerate(handles)} == {int(frame.sum()) for frame in movie}
print(sum(handle.verify().ok for handle in handles))
"""


@posix
def test_500_handles_need_few_file_descriptors(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(50, (8, 16, 16)).astype(np.uint16)
    write_movie(tmp_path / "m", counts, calibration=Calibration.given(1.0, 0.0))
    command = [sys.executable, "-W", "ignore", "-c", _FEW_DESCRIPTORS, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout.strip(), done.stderr) == ("500", "")


def written(writer: str, counts: np.ndarray, noise: Calibration, **options: Any) -> PhotonArray:
    store = MemoryStore()
    if writer == "PhotonWriter":
        with PhotonWriter(store, calibration=noise, **options) as acquisition:
            acquisition.extend(counts)
        return acquisition.movie
    movie = dask.array.from_array(counts, chunks=(2, *counts.shape[1:])) if writer == "dask" else counts  # type: ignore[no-untyped-call]
    return write_movie(store, movie, calibration=noise, **options)


@pytest.mark.filterwarnings("ignore:the entropy coder does not pay", "ignore:the movie is stored losslessly")
@settings(
    max_examples=int(os.environ.get("DJ_TEST_DRILL_EXAMPLES", "25")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_counts_come_back_within_the_bound_whatever_wrote_them(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Invariants 1, 2 and 4, in float64 by the formula alone."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", data.draw(st.sampled_from([30, 500, 1 << 22]), "pixels in a chunk"))
    monkeypatch.setattr(layout, "SHARD_BYTES", data.draw(st.sampled_from([1, 3000, 1 << 26]), "bytes in a shard"))
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", -10.0)
    dtype = np.dtype(
        data.draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]), "dtype")
    )
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=5), "shape"))
    gain = data.draw(st.sampled_from([0.01, 0.3, 1.0, 7.7, 40.0, 2000.0]), "gain")
    zero = data.draw(st.sampled_from([0.0, -30.5, 12.25, 100.0]), "zero level")
    step = data.draw(st.sampled_from([0.05, 0.5, 1.0, 8.0]), "step")
    writer = data.draw(st.sampled_from(["write_movie", "PhotonWriter", "dask"]), "writer")
    profile = data.draw(st.sampled_from(["standard", "dense", "portable", "lossless"]), "profile")
    zarr_format: Any = data.draw(st.sampled_from([2, 3] if profile != "dense" else [3]), "zarr format")
    signed = dtype.kind in "if"
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(str(dtype))
    high = min(float(limits.max), data.draw(st.sampled_from([3.0, 255.0, 2000.0, 60_000.0, 2.0**23]), "highest"))
    low = max(float(limits.min), -high / 4) if signed else 0.0
    if writer == "PhotonWriter":
        low = max(low, -65536.0)  # what no sensor gives is kept beside the movie there, with a warning
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), "seed"))
    counts = rng.uniform(low, high, shape)
    counts = (counts if dtype.kind == "f" and data.draw(st.booleans(), "fractions") else counts.round()).astype(dtype)
    noise = Calibration.given(gain, zero)
    movie = written(writer, counts, noise, step=step, profile=profile, zarr_format=zarr_format)
    back = movie[...]
    assert (back.shape, back.dtype) == (counts.shape, counts.dtype)
    x, y = counts.astype(np.float64), back.astype(np.float64)
    if movie.step == 0:
        np.testing.assert_array_equal(x, y)
    photons = np.maximum((np.maximum(x, y) - zero) / gain, 0)
    bound = step / 2 * gain * np.sqrt(photons + 0.375) + 0.5
    assert (np.abs(y - x) <= bound * (1 + 1e-9)).all(), float((np.abs(y - x) - bound).max())
    target = data.draw(st.sampled_from(["standard", "portable"]), "moved to")
    moved = write_movie(MemoryStore(), movie, profile=target, step=movie.step)
    np.testing.assert_array_equal(moved[...], back)
    assert movie.verify()
    assert math.isclose(movie.calibration.conversion_gain, gain)
