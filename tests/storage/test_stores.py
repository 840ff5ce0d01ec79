"""The same movie in every kind of store: a path, a URL, and the stores of zarr, fsspec, obstore and icechunk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import icechunk
import numpy as np
import obstore.store
import pytest
import zarr
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from dj_photon_codecs import (
    Calibration,
    ConfigurationError,
    FormatError,
    MissingChunkError,
    PhotonWriter,
    StorageError,
    open_movie,
    recover_movie,
    write_movie,
)
from dj_photon_codecs._zarr import submit
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.location import Location
from dj_photon_codecs.storage.target import Target

NOISE = Calibration.given(10.0, 0.0)
COUNTS = (10 * np.random.default_rng(0).poisson(40, (40, 16, 24))).astype(np.uint16)


@pytest.fixture(autouse=True)
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of 16 frames in chunks of 4, so that a small movie has several."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 24)
    monkeypatch.setattr(layout, "SHARD_BYTES", 2 * 16 * 16 * 24)


def icechunk_store() -> Any:
    return icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main").store


def in_a_group(store: Any) -> StorePath:
    """A place in a group that has something else in it already."""
    group = zarr.create_group(store)
    group.create_array("mean", shape=(16, 24), dtype="f4")[:] = 1
    return group.store_path / "recordings" / "movie"


def memory_mapping() -> Any:
    filesystem = fsspec.filesystem("memory", skip_instance_cache=True)
    filesystem.store = {}  # it is the class's
    return fsspec.FSMap("/rig/movie", filesystem)


def directory_filesystem(folder: Path) -> Any:
    from fsspec.implementations.dirfs import DirFileSystem

    return DirFileSystem(str(folder), fsspec.filesystem("file"))


#: Every kind of place that a movie can be stored at.
STORES: dict[str, Callable[[Path], Any]] = {
    "path": lambda folder: str(folder / "movie"),
    "Path": lambda folder: folder / "movie",
    "file URL": lambda folder: f"file://{quote(str(folder))}/a%20movie",
    "memory URL": lambda folder: f"memory://{folder.name}/movie",
    "fsspec mapping": lambda folder: memory_mapping(),
    "fsspec mapping, local": lambda folder: fsspec.get_mapper(str(folder / "movie")),
    "fsspec filesystem": lambda folder: directory_filesystem(folder),
    "dict": lambda folder: {},
    "LocalStore": lambda folder: LocalStore(folder / "movie"),
    "MemoryStore": lambda folder: MemoryStore(),
    "FsspecStore": lambda folder: FsspecStore.from_mapper(memory_mapping()),
    "ZipStore": lambda folder: ZipStore(folder / "movie.zip", mode="w"),
    "obstore, memory": lambda folder: ObjectStore(obstore.store.MemoryStore()),
    "obstore, local": lambda folder: ObjectStore(obstore.store.LocalStore(folder)),
    "icechunk": lambda folder: icechunk_store(),
    "LocalStore, in a group": lambda folder: in_a_group(LocalStore(folder / "group")),
    "MemoryStore, in a group": lambda folder: in_a_group(MemoryStore()),
    "ZipStore, in a group": lambda folder: in_a_group(ZipStore(folder / "group.zip", mode="w")),
    "obstore, in a group": lambda folder: in_a_group(ObjectStore(obstore.store.MemoryStore())),
    "icechunk, in a group": lambda folder: in_a_group(icechunk_store()),
}

#: Those that delete nothing.
CANNOT_DELETE = ("ZipStore", "ZipStore, in a group")


@dataclass(frozen=True)
class Place:
    """A place to store a movie at."""

    kind: str
    target: Any

    @property
    def location(self) -> Location:
        return Location.of(self.target)

    def keys(self) -> list[str]:
        """All that the store holds there."""
        location = self.location
        store = location.open(read_only=True)

        async def listed() -> list[str]:
            return [key async for key in store.list() if key.startswith(location.prefix)]

        return submit(listed()).result()


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, STORES[request.param](tmp_path))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a local path gives back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 24)
        patch.setattr(layout, "SHARD_BYTES", 2 * 16 * 16 * 24)
        return write_movie(tmp_path_factory.mktemp("local") / "movie", COUNTS, calibration=NOISE)[:]


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_every_store_gives_the_same_counts_as_a_local_path(place: Place, expected: Any, zarr_format: Any) -> None:
    if zarr_format == 2 and "icechunk" in place.kind:
        pytest.skip("icechunk holds Zarr 3 only")
    stored = write_movie(place.target, COUNTS, calibration=NOISE, zarr_format=zarr_format)
    assert stored.step == 0.5
    assert np.array_equal(stored[:], expected)
    again = open_movie(place.target)
    assert np.array_equal(again[17], expected[17])
    assert np.array_equal(again[5:9, 3:7, ::2], expected[5:9, 3:7, ::2])
    assert again.verify(progress=False)
    opened = zarr.open_array(place.location.open(read_only=False), path=place.location.prefix.rstrip("/"), mode="r+")
    assert np.array_equal(opened[:], expected)


def test_a_writer_stores_in_every_store(place: Place) -> None:
    with PhotonWriter(place.target, calibration=NOISE) as writer:
        for frame in COUNTS:
            writer.append(frame)
    assert open_movie(place.target).shape == COUNTS.shape
    assert np.array_equal(open_movie(place.target)[:], writer.movie[:])
    assert recover_movie(place.target).shape == COUNTS.shape  # a finished movie is only opened


def test_a_lost_chunk_is_named_in_every_store(place: Place) -> None:
    stored = write_movie(place.target, COUNTS, calibration=NOISE)
    if place.kind in CANNOT_DELETE:
        pytest.skip("a zip file loses no member")
    submit(Target(place.location).remove("c/1/0/0")).result()
    stored = open_movie(place.target)
    with pytest.raises(MissingChunkError, match="c/1/0/0"):
        stored[:]
    assert np.array_equal(stored.read_intact()[:16], open_movie(place.target)[:16])
    assert len(stored.verify(progress=False).missing) == 4


def test_a_failed_write_leaves_nothing_in_any_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place.keys()
    put, seen = Target.put, []

    async def failing(self: Target, key: str, content: Any) -> None:
        seen.append(key)
        if key == "c/2/0/0":
            raise StorageError("the disk is full")
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", failing)
    with pytest.raises(StorageError, match="the disk is full") as failure:
        write_movie(place.target, COUNTS, calibration=NOISE)
    assert "c/1/0/0" in seen
    if place.kind in CANNOT_DELETE:
        assert "c/1/0/0" in failure.value.__notes__[0]  # told, not hidden
        with pytest.raises(FormatError, match="no Zarr array"):
            open_movie(place.target)
    else:
        assert place.keys() == before
        monkeypatch.undo()
        write_movie(place.target, COUNTS, calibration=NOISE)


def test_a_movie_is_never_written_over_another(place: Place) -> None:
    write_movie(place.target, COUNTS, calibration=NOISE)
    before = place.keys()
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_movie(place.target, COUNTS, calibration=NOISE)
    assert place.keys() == before


def test_removing_a_failed_movie_touches_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was written is removed: not a file that somebody else puts there meanwhile."""
    put = Target.put

    async def failing(self: Target, key: str, content: Any) -> None:
        (tmp_path / "movie" / "c").mkdir(parents=True, exist_ok=True)
        (tmp_path / "movie" / "c" / "notes.txt").write_text("of somebody else")
        if key == "c/1/0/0":
            raise StorageError("the disk is full")
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", failing)
    with pytest.raises(StorageError, match="the disk is full"):
        write_movie(tmp_path / "movie", COUNTS, calibration=NOISE)
    assert [path.name for path in (tmp_path / "movie").rglob("*")] == ["c", "notes.txt"]


@pytest.mark.parametrize("kind", ["MemoryStore", "obstore, memory", "FsspecStore"])
def test_a_store_that_is_read_only_is_refused_before_the_first_byte(kind: str, tmp_path: Path) -> None:
    store = STORES[kind](tmp_path).with_read_only(True)
    with pytest.raises(ConfigurationError, match="read-only: open it for writing"):
        write_movie(store, COUNTS, calibration=NOISE)


class _Lacking(MemoryStore):
    """A store in memory that lacks an operation."""

    supports_listing: bool = False

    async def list(self) -> Any:
        raise NotImplementedError("this store cannot list")
        yield

    list_prefix = list_dir = list  # type: ignore[assignment]


def test_a_store_that_cannot_list_does_without(expected: Any) -> None:
    store = _Lacking()
    assert np.array_equal(write_movie(store, COUNTS, calibration=NOISE)[:], expected)
    assert open_movie(store).verify(progress=False)
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_movie(store, COUNTS, calibration=NOISE)


class _Whole(MemoryStore):
    """A store that gives whole objects, whatever part is asked for."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return await super().get(key, prototype, None)


class _Refusing(MemoryStore):
    """A store that refuses to give a part of an object."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        if byte_range is not None:
            raise NotImplementedError("no partial reads")
        return await super().get(key, prototype, None)


@pytest.mark.parametrize("kind", [_Whole, _Refusing])
def test_a_store_without_partial_reads_does_without(kind: type[MemoryStore], expected: Any) -> None:
    store = kind()
    write_movie(store, COUNTS, calibration=NOISE)
    stored = open_movie(store)
    assert np.array_equal(stored[17], expected[17])
    assert np.array_equal(stored[:], expected)
    assert stored.verify(progress=False)


def test_a_movie_in_icechunk_is_visible_after_the_commit_and_whole(expected: Any) -> None:
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    write_movie(session.store, COUNTS, calibration=NOISE)
    with pytest.raises(FormatError, match="no Zarr array"):
        open_movie(repository.readonly_session("main").store)
    session.commit("a movie")
    stored = open_movie(repository.readonly_session("main").store)
    assert stored.verify(progress=False)
    assert np.array_equal(stored[:], expected)


def test_a_file_url_is_percent_decoded(tmp_path: Path) -> None:
    write_movie(f"file://{tmp_path}/two%20words%25", COUNTS, calibration=NOISE)
    assert (tmp_path / "two words%" / "zarr.json").exists()


@pytest.mark.parametrize("given", [None, 3, b"path", ["path"], {1, 2}])
def test_what_is_no_place_is_told_so(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="a movie is stored under a path, a URL, or in a store"):
        write_movie(given, COUNTS, calibration=NOISE)


@pytest.mark.parametrize("pipeline", ["zarrs.ZarrsCodecPipeline", "zarr.core.codec_pipeline.FusedCodecPipeline"])
def test_other_codec_pipelines_give_the_same_counts(pipeline: str, tmp_path: Path, expected: Any) -> None:
    """Whole movies and single frames, written and read by us and by zarr, whatever pipeline zarr is told to use."""
    module = import_module(pipeline.rpartition(".")[0])
    if not hasattr(module, pipeline.rpartition(".")[2]):
        pytest.skip("this zarr has no FusedCodecPipeline")
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        stored = write_movie(tmp_path / "movie", COUNTS, calibration=NOISE)
        assert np.array_equal(stored[:], expected)
        assert np.array_equal(open_movie(tmp_path / "movie")[17], expected[17])
        assert stored.verify(progress=False)
        told = pytest.warns(UserWarning, match="unsupported by") if "zarrs" in pipeline else nullcontext()
        with told:  # by zarrs, which falls back
            opened = zarr.open_array(tmp_path / "movie", mode="r")
        assert np.array_equal(opened[:], expected)
        assert np.array_equal(opened[17], expected[17])


def test_the_methods_of_an_asynchronous_array_miss_no_lost_chunk(tmp_path: Path) -> None:
    """Whoever reads through zarr's asynchronous interface meets the same checks."""
    stored = write_movie(tmp_path / "movie", COUNTS, calibration=NOISE)
    inner = stored._async_array
    assert np.array_equal(asyncio.run(inner.getitem((slice(3, 9),))), stored[3:9])
    (tmp_path / "movie" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(MissingChunkError):
        asyncio.run(open_movie(tmp_path / "movie")._async_array.getitem((slice(16, 20),)))
