"""A place is claimed while a movie is written there; what a killed writer left is known, and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from zarr.storage import FsspecStore, MemoryStore

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    FormatError,
    PhotonWriter,
    break_claim,
    open_movie,
    write_movie,
)
from dj_photon_codecs._system import is_running
from dj_photon_codecs._zarr import submit
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.claim import CLAIM, Claim, left_by_writing
from dj_photon_codecs.storage.location import Location
from dj_photon_codecs.storage.target import Target
from services import S3Server

NOISE = Calibration.given(1.0, 0.0)
COUNTS = np.random.default_rng(0).poisson(50, (8, 16, 16)).astype(np.uint16)
SIGNALS = pytest.mark.skipif(sys.platform == "win32", reason="signals to a process are POSIX")


@pytest.fixture(autouse=True)
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 2 * 16 * 16)
    monkeypatch.setattr(layout, "SHARD_BYTES", 1)


def claim_file(folder: Path, claim: Claim) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLAIM).write_bytes(claim.to_bytes())


class WritesAnother:
    """A movie during whose reading someone else tries to write to the same place."""

    shape, dtype = COUNTS.shape, COUNTS.dtype

    def __init__(self, place: Any) -> None:
        self.place, self.refused = place, ""

    def __getitem__(self, frames: slice) -> np.ndarray:
        if frames.start == 4 and frames.stop == 6:
            with pytest.raises(ConfigurationError) as caught:
                write_movie(self.place, COUNTS, calibration=NOISE)
            self.refused = str(caught.value)
            with pytest.raises(ConfigurationError, match="is being written to by process"):
                PhotonWriter(self.place, calibration=NOISE)
            with pytest.raises(FormatError, match="is not finished: it is being written by process"):
                open_movie(self.place)
        return COUNTS[frames]


@pytest.mark.parametrize("kind", ["folder", "zarr store", "fsspec"])
def test_a_second_writer_is_told_who_holds_the_place_and_the_first_is_not_disturbed(tmp_path: Path, kind: str) -> None:
    place: Any = {"folder": tmp_path / "m", "zarr store": MemoryStore(), "fsspec": "memory://claims/m"}[kind]
    movie = WritesAnother(place)
    stored = write_movie(place, movie, calibration=NOISE)
    assert f"is being written to by process {os.getpid()} on " in movie.refused
    assert "since 20" in movie.refused
    assert "break_claim(" in movie.refused
    assert stored.verify()
    assert open_movie(place).verify()
    if kind == "folder":
        assert not (place / CLAIM).exists()


def test_a_writer_that_fails_removes_what_it_wrote_and_nothing_of_others(tmp_path: Path) -> None:
    class Fails(WritesAnother):
        def __getitem__(self, frames: slice) -> np.ndarray:
            if frames.stop == 8 and frames.start == 6:
                (tmp_path / "m" / "c").mkdir(exist_ok=True)  # whether or not the first object is there
                (tmp_path / "m" / "c" / "note.txt").write_text("someone else's")
                raise OSError("gone")
            return COUNTS[frames]

    with pytest.raises(OSError, match="gone"):
        write_movie(tmp_path / "m", Fails(None), calibration=NOISE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["note.txt"]


@pytest.mark.parametrize("ended", ["close", "an error", "no frame"])
def test_a_photon_writer_claims_its_place_and_gives_it_up(tmp_path: Path, ended: str) -> None:
    place = tmp_path / "m"
    writer = PhotonWriter(place, calibration=NOISE)
    assert (place / CLAIM).exists()
    with pytest.raises(ConfigurationError, match="is being written to by process"):
        write_movie(place, COUNTS, calibration=NOISE)
    if ended == "close":
        writer.extend(COUNTS)
        writer.close()
    elif ended == "an error":
        writer.extend(COUNTS)
        writer.__exit__(OSError, OSError("camera"), None)
    else:
        with pytest.raises(ValueError, match="no frame"):
            writer.close()
    assert not (place / CLAIM).exists()
    assert ended == "no frame" or open_movie(place).verify()


def test_a_claim_from_another_machine_stands_until_it_is_broken(tmp_path: Path) -> None:
    place = tmp_path / "m"
    claim_file(place, Claim("microscope-3 other", 17, "2026-01-02T03:04:05+00:00", "other"))
    (place / "c" / "0" / "0").mkdir(parents=True)
    (place / "c" / "0" / "0" / "0").write_bytes(b"half")
    (place / "notes.txt").write_text("mine")
    told = "process 17 on microscope-3, since 2026-01-02T03:04:05"
    with pytest.raises(ConfigurationError, match=told):
        write_movie(place, COUNTS, calibration=NOISE)
    with pytest.raises(FormatError, match=told):
        open_movie(place)
    break_claim(place)
    assert sorted(path.name for path in place.iterdir()) == ["notes.txt"]
    (place / "notes.txt").unlink()
    assert write_movie(place, COUNTS, calibration=NOISE).verify()


def test_breaking_the_claim_of_a_finished_movie_leaves_the_movie(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    claim_file(tmp_path / "m", replace(Claim.ours(), machine="elsewhere"))
    break_claim(tmp_path / "m")
    break_claim(tmp_path / "m")
    assert stored.verify()
    assert not (tmp_path / "m" / CLAIM).exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"pid": 3}', b"\xff\xfe"])
def test_a_claim_that_cannot_be_read_is_somebodys_all_the_same(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "m"
    claim_file(place, Claim.ours())
    (place / CLAIM).write_bytes(content)
    with pytest.raises(ConfigurationError, match="is being written to by process 0 on unknown"):
        write_movie(place, COUNTS, calibration=NOISE)


_WRITE = """
import os, signal, sys
import numpy as np
from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs.storage.target import Target
event, number, way = sys.argv[2], int(sys.argv[3]), sys.argv[4]
put = Target.put
async def dies(self, key, content):
    if key == event:
        if self.location.is_local:
            (folder := __import__("pathlib").Path(self.location.root, key).parent).mkdir(parents=True, exist_ok=True)
            (folder / f"0.{'0' * 32}.partial").write_bytes(b"half")
        os.kill(os.getpid(), number)
    await put(self, key, content)
counts = np.random.default_rng(0).poisson(50, (8, 16, 16)).astype(np.uint16)
from dj_photon_codecs.storage import layout
layout.CHUNK_PIXELS, layout.SHARD_BYTES = 2 * 16 * 16, 1
movie = counts if way == "write" else write_movie({}, counts, calibration=Calibration.given(1.0, 0.0))
Target.put = dies
write_movie(sys.argv[1], movie, calibration=Calibration.given(1.0, 0.0))
"""


@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("way", ["write", "copy"])
@pytest.mark.parametrize("event", ["c/0/0/0", "c/2/0/0", "zarr.json"])
def test_what_a_killed_writer_left_does_not_open_and_goes_with_the_next_run(
    tmp_path: Path, event: str, way: str
) -> None:
    """Invariant 6: SIGTERM gives the process no time to clean up."""
    place = tmp_path / "m"
    done = subprocess.run([sys.executable, "-c", _WRITE, str(place), event, str(int(signal.SIGTERM)), way], check=False)
    assert done.returncode == -signal.SIGTERM
    assert (place / CLAIM).exists()
    assert not is_running(json.loads((place / CLAIM).read_text())["pid"])
    with pytest.raises(FormatError, match="is not finished"):
        open_movie(place)
    assert write_movie(place, COUNTS, calibration=NOISE).verify()
    assert not list(place.rglob("*.partial"))
    assert not (place / CLAIM).exists()


@pytest.mark.parametrize("copied", [False, True], ids=["write", "copy"])
def test_an_interrupt_while_the_metadata_is_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """The write that is under way ends before what was written is removed."""
    import _thread
    import asyncio

    movie: Any = write_movie({}, COUNTS, calibration=NOISE) if copied else COUNTS
    put = Target.put

    async def interrupted(self: Target, key: str, content: Any) -> None:
        if key == "zarr.json":
            _thread.interrupt_main()
            await asyncio.sleep(0.3)
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_movie(tmp_path / "deep" / "m", movie, calibration=NOISE)
    assert not list(tmp_path.iterdir())


def test_an_acquisition_that_can_be_recovered_stays(tmp_path: Path) -> None:
    place = tmp_path / "m"
    write_movie(place, COUNTS, calibration=NOISE)
    (place / "zarr.json").rename(place / "acquisition.json")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim_file(place, replace(Claim.ours(), pid=ended.pid))
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_movie(place, COUNTS, calibration=NOISE)
    assert (place / "acquisition.json").exists()
    assert (place / "c" / "3" / "0" / "0").exists()


@pytest.mark.parametrize(
    "key", ["zarr.json", ".zarray", ".zattrs", "c/0/0/0", "0.0.0", CLAIM, f"c/0/0.{'0a' * 16}.partial"]
)
def test_keys_of_a_movie_are_known(key: str) -> None:
    assert left_by_writing(key)


@pytest.mark.parametrize(
    "key", ["acquisition.json", "notes.txt", "c/notes.txt", ".DS_Store", "a.zarr/zarr.json", "x.partial"]
)
def test_other_keys_are_not_removed(key: str) -> None:
    assert not left_by_writing(key)


def bucket_of(server: S3Server) -> Any:
    """A folder in a new bucket."""
    keys = {"key": server.access_key, "secret": server.secret_key}
    files = fsspec.filesystem("s3", **keys, client_kwargs={"endpoint_url": server.endpoint})
    return files.get_mapper(f"{server.new_bucket()}/m")


def place_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A new place of a kind."""
    return tmp_path / "m" if kind == "folder" else bucket_of(request.getfixturevalue("s3_server"))


@pytest.mark.slow
@pytest.mark.parametrize("writers", [2, 8])
@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.services)])
def test_of_many_writers_at_one_place_one_writes_the_movie(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, writers: int
) -> None:
    for attempt in range(3 if kind == "s3" else 12):
        place = place_of(kind, request, tmp_path / str(attempt))
        together = threading.Barrier(writers)

        def write(number: int, place: Any = place, together: Any = together) -> str:
            together.wait()
            try:
                write_movie(place, COUNTS + np.uint16(number), calibration=NOISE, profile="lossless")
            except ConfigurationError as error:
                return str(error)
            return f"wrote {number}"

        with ThreadPoolExecutor(writers) as pool:
            outcomes = list(pool.map(write, range(writers)))
        [number] = [int(told.removeprefix("wrote ")) for told in outcomes if told.startswith("wrote ")]
        assert all("is being written to by" in t or "is not empty" in t or "wrote" in t for t in outcomes)
        movie = open_movie(place)
        assert movie.verify()
        np.testing.assert_array_equal(movie[...], COUNTS + np.uint16(number))


def test_a_claim_on_s3_is_one_conditional_request(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """zarr looks whether there is one, and then writes: of two writers, both."""
    place = bucket_of(s3_server)

    async def never(*_: Any) -> None:
        raise AssertionError("not in one request")

    monkeypatch.setattr(FsspecStore, "set_if_not_exists", never)
    first, second = Target(Location.of(place)), Target(Location.of(place))
    assert submit(first.claim()).result() is None
    assert submit(second.claim()).result() is not None
    first.release()
    assert submit(second.claim()).result() is None
    second.release()


def test_a_service_without_conditional_requests_is_claimed_all_the_same(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket_of(s3_server)
    pipe = type(place.fs)._pipe_file

    async def unconditional(self: Any, path: str, data: bytes, mode: str = "overwrite", **rest: Any) -> Any:
        if mode == "create":
            raise NotImplementedError("A header you provided implies functionality that is not implemented")
        return await pipe(self, path, data, mode=mode, **rest)

    monkeypatch.setattr(type(place.fs), "_pipe_file", unconditional)
    first, second = Target(Location.of(place)), Target(Location.of(place))
    assert submit(first.claim()).result() is None
    assert submit(second.claim()).result() is not None
    first.release()
