"""Stores and databases that fail without a network in between: full, read-only, gone, or slow to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from zarr.abc.store import Store
from zarr.storage import MemoryStore, WrapperStore

import killed
from disks import mounted
from dj_photon_codecs import InvalidMovieError, PhotonCodec, StorageError, open_movie, write_movie
from dj_photon_codecs.storage.target import Target
from services import open_pipeline

posix = pytest.mark.skipif(sys.platform == "win32", reason="mounts, limits and signals are POSIX")


@pytest.fixture(autouse=True)
def several_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    killed.small_objects(monkeypatch.setattr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, which the movie does not fit; its folder is also what `mount` knows it by."""
    with mounted(tmp_path / "disk", "size=300k") as folder:
        yield folder


def files(folder: Path) -> list[str]:
    """Files and folders in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def failure(store: Any) -> StorageError:
    with pytest.raises(StorageError) as caught:
        write_movie(store, killed.movie())
    assert not hasattr(caught.value, "__notes__")
    return caught.value


@posix
def test_a_full_disk_is_left_as_empty_as_it_was(small_disk: Path) -> None:
    """Invariant 6."""
    error = failure(small_disk / "mouse" / "movie.zarr")
    assert re.search(f"object 'c/./0/0' of {small_disk}/mouse/movie.zarr could not be written: OSError: ", str(error))
    assert "No space left on device" in str(error)
    assert files(small_disk) == []


@posix
def test_a_full_disk_leaves_no_row(small_disk: Path, postgres: Any) -> None:
    """Invariant 6."""
    with open_pipeline(postgres, "postgres", "file", {"protocol": "file", "location": str(small_disk)}) as pipeline:

        @pipeline.schema
        class Recording(dj.Manual):  # type: ignore[misc]
            definition = """
            recording : int32
            ---
            movie : <photon@imaging>
            """

        with pytest.raises(StorageError, match=r"No space left on device.*\(store 'imaging'\)"):
            Recording.insert1({"recording": 1, "movie": killed.movie()})
        assert len(Recording()) == 0
        assert pipeline.objects() == []


def test_a_store_whose_folder_is_gone_is_named(tmp_path: Path) -> None:
    """DataJoint looks for the folder when the store is used, and its own error does not say which store it is."""
    config = dj.settings.Config()
    config.stores = {"default": "imaging", "imaging": {"protocol": "file", "location": str(tmp_path / "unmounted")}}
    context = {"schema": "lab", "table": "recording", "field": "movie", "config": config}
    with pytest.raises(
        StorageError, match=f"store 'imaging' cannot be used: FileNotFoundError: .*{tmp_path}/unmounted"
    ):
        PhotonCodec().encode(killed.movie(), key={"recording": 1}, context=context, store_name="imaging")
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = failure(small_disk / "movie.zarr")
    assert re.search(f"of {small_disk}/movie.zarr could not be written: OSError: .*Read-only file system", str(error))


@pytest.fixture
def forbidden_folder() -> Iterator[Path]:
    """A folder that every user may enter and none but root may write to."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        Path(name).chmod(0o555)
        yield Path(name)
        Path(name).chmod(0o755)


@posix
def test_a_folder_without_the_right_to_write_is_named(forbidden_folder: Path) -> None:
    """In a child that gives up root's rights, where this is root."""
    code = """
import os, numpy
from zarr.storage import MemoryStore
from dj_photon_codecs import StorageError, write_movie
movie = numpy.ones((4, 8, 8), numpy.uint16)
write_movie(MemoryStore(), movie, profile="lossless")  # imports what another user may not read
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    write_movie("movie.zarr", movie, profile="lossless")
except StorageError as error:
    print(error, getattr(error, "__notes__", []))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=forbidden_folder, capture_output=True, text=True)
    expected = r"object 'writing.json' of .*movie.zarr could not be written: PermissionError: .* \[\]$"
    assert re.search(expected, done.stdout), done.stdout + done.stderr


def test_a_file_beyond_the_limit_of_the_process_is_named(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("limits of a process are POSIX")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        error = failure(tmp_path / "movie.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in str(error)
    assert files(tmp_path) == []


class Failing(WrapperStore[Any]):
    """A store that raises what it is told to, for the keys that it is told."""

    def __init__(self, store: Store, failing: dict[tuple[str, str], Exception] | None = None) -> None:
        super().__init__(store)
        self.failing = failing or {}

    def _with_store(self, store: Store) -> Failing:
        return Failing(store, self.failing)

    def _raise(self, what: str, key: str) -> None:
        error = self.failing.get((what, key)) or self.failing.get((what, "*"))
        if error is not None:
            raise error

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        self._raise("get", key)
        return await super().get(key, *args, **options)

    async def set(self, key: str, *args: Any, **options: Any) -> None:
        self._raise("set", key)
        await super().set(key, *args, **options)

    async def delete(self, key: str) -> None:
        self._raise("delete", key)
        await super().delete(key)

    async def clear(self) -> None:
        self._raise("clear", "")
        await super().clear()

    async def list(self) -> Any:
        self._raise("list", "")
        async for key in super().list():
            yield key


class OfALibrary(Exception):
    """What some library of some cloud raises, a relative of nothing."""


@pytest.mark.parametrize("key", ["c/0/0/0", "c/1/0/0", "c/2/0/0", "zarr.json"])
def test_an_error_of_any_type_becomes_one_of_ours(key: str) -> None:
    """Invariant 6, for the first, a middle and the last object, and the metadata."""
    kept: dict[str, Any] = {}
    cause = OfALibrary("quota of bucket exceeded")
    error = failure(Failing(MemoryStore(kept), {("set", key): cause}))
    assert re.search(f"object '{key}' of .* could not be written: OfALibrary: quota of bucket exceeded", str(error))
    assert error.__cause__ is cause
    assert kept == {}


@pytest.mark.parametrize(
    ("failing", "named", "others"),
    [
        ({("clear", ""): OfALibrary("no listing")}, [], []),
        ({("clear", ""): OfALibrary("no"), ("delete", "c/0/0/0"): OfALibrary("locked")}, ["c/0/0/0"], ["c/1/0/0"]),
        ({("clear", ""): OfALibrary("no"), ("delete", "*"): OfALibrary("gone")}, ["c/0/0/0", "c/1/0/0"], []),
    ],
    ids=["one by one", "one is locked", "all are"],
)
def test_what_can_be_removed_is_and_the_rest_is_named(failing: Any, named: list[str], others: list[str]) -> None:
    """Invariant 6."""
    kept: dict[str, Any] = {}
    store = Failing(MemoryStore(kept), {("set", "c/2/0/0"): OfALibrary("full"), **failing})
    with pytest.raises(StorageError, match="'c/2/0/0'.*OfALibrary: full") as caught:
        write_movie(store, killed.movie())
    claim = ["writing.json"] if ("delete", "*") in failing else []  # it cannot be removed either
    assert sorted(kept) == [*named, *claim]
    notes = " ".join(getattr(caught.value, "__notes__", []))
    assert all(f"'{name}'" in notes for name in named)
    assert not any(f"'{name}'" in notes for name in others)


def test_a_store_that_is_gone_is_not_asked_for_every_object() -> None:
    """With hundreds of objects, and a library that tries each request 25 times, removing would take hours."""
    asked: list[str] = []

    class Gone(Failing):
        def _raise(self, what: str, key: str) -> None:
            asked.append(what)
            super()._raise(what, key)

    gone = OfALibrary("gone")
    store = Gone(
        MemoryStore(), {("set", "zarr.json"): gone, ("clear", ""): gone, ("list", "x"): gone, ("delete", "*"): gone}
    )
    counts = np.random.default_rng(0).poisson(5, (960, 128, 128)).astype(np.uint16)
    with pytest.raises(StorageError) as caught:
        write_movie(store, counts, profile="lossless")
    assert asked.count("set") == 31
    assert asked.count("delete") == 16 + 1  # those that are tried at the same time, and the claim
    assert re.search(r"30 objects could not be removed", caught.value.__notes__[0])


def test_a_store_that_cannot_be_listed_is_named() -> None:
    error = failure(Failing(MemoryStore(), {("list", ""): OfALibrary("no such bucket")}))
    assert re.search("could not be listed: OfALibrary: no such bucket", str(error))


@pytest.mark.parametrize("key", ["zarr.json", "c/1/0/0"])
def test_a_read_that_fails_is_named_whatever_its_type(key: str) -> None:
    inner = MemoryStore()
    write_movie(inner, killed.movie())
    with pytest.raises(StorageError, match=f"'{key}' of .* cannot be read: OfALibrary: gone"):
        open_movie(Failing(inner, {("get", key): OfALibrary("gone")}))[:]


class LateFailure:
    """A movie that is not in memory, whose last frames are negative."""

    shape, dtype = killed.COUNTS.shape, np.dtype(np.int32)

    def __getitem__(self, frames: slice) -> Any:
        counts = killed.COUNTS[frames].astype(np.int32)
        if frames.stop == self.shape[0] and frames.stop - frames.start > 1:
            counts[-1] = -1
        return counts


def test_what_is_being_written_when_a_movie_fails_is_removed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6: the file that a thread still writes must not appear after all was removed."""
    put = Target.put

    async def slow_put(self: Target, key: str, content: Any) -> None:
        await asyncio.to_thread(time.sleep, 0.3)  # a thread, which cancelling would not stop
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", slow_put)
    reached: list[float] = []
    clear = Target.clear

    async def noted_clear(self: Target) -> None:
        reached.append(len(list(tmp_path.rglob("c/*/0/0"))))
        await clear(self)

    monkeypatch.setattr(Target, "clear", noted_clear)
    with pytest.raises(InvalidMovieError, match="negative"):
        write_movie(tmp_path / "movie.zarr", LateFailure(), profile="lossless")
    assert reached == [5]  # of 6 objects; the one that was under way was written before the removal began
    assert files(tmp_path) == []


@contextmanager
def private_postgres(folder: Path) -> Iterator[Any]:
    """A DataJoint instance on a server of its own, which a test may kill."""
    from dj_photon_codecs.embedded import embedded_server

    with embedded_server(folder) as address:
        instance = dj.Instance(**address)
        instance.config.safemode = False
        try:
            yield instance
        finally:
            instance.connection.close()


def test_a_database_that_goes_between_movie_and_row_leaves_an_orphan(tmp_path: Path) -> None:
    """Invariant 6: the codec hears nothing of the row; the collector finds the movie when the database is back."""
    if sys.platform == "win32":
        pytest.skip("SIGQUIT is POSIX")
    store = {"protocol": "file", "location": str(tmp_path / "store")}
    (tmp_path / "store").mkdir()

    def declare(instance: Any) -> Any:
        instance.config.stores = {"default": "imaging", "imaging": store}
        schema = dj.Schema("gone", connection=instance.connection)

        @schema
        class Recording(dj.Manual):  # type: ignore[misc]
            definition = """
            recording : int32
            ---
            movie : <photon@imaging>
            """

        return schema, Recording

    def kill_server() -> None:
        server = int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(server, signal.SIGQUIT)  # PostgreSQL's immediate shutdown
        while Path(f"/proc/{server}").exists() and "Z" not in Path(f"/proc/{server}/stat").read_text().split()[2]:
            time.sleep(0.01)

    with private_postgres(tmp_path) as instance:
        _, recording = declare(instance)
        recording.insert1({"recording": 0, "movie": killed.movie()})
        with pytest.MonkeyPatch.context() as patch:
            query = instance.connection.query

            def query_too_late(text: str, *args: Any, **options: Any) -> Any:
                if text.lstrip().upper().startswith("INSERT"):
                    kill_server()
                return query(text, *args, **options)

            patch.setattr(instance.connection, "query", query_too_late)
            with pytest.raises(Exception, match="connection to server|server closed|Connection was lost|terminating"):
                recording.insert1({"recording": 1, "movie": killed.movie()})
    with private_postgres(tmp_path) as instance:
        schema, recording = declare(instance)
        assert [row["recording"] for row in recording.to_dicts()] == [0]
        found = dj.gc.GarbageCollector(schema, store="imaging").collect(dry_run=False)
        assert found["schema_paths_deleted"] == 4
        assert all("recording=1" in path for path in found["orphaned_schema_paths"])
        assert recording.fetch1("movie").verify()
        recording.insert1({"recording": 1, "movie": killed.movie()})
