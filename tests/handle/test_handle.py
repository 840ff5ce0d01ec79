"""The lazy handle: indexing, caching, read-ahead, damage, pickling, forks."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import threading
import time
import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    Calibration,
    DamagedChunkError,
    MissingChunkError,
    PhotonArray,
    _threads,
    generalized_anscombe,
    open_movie,
    write_movie,
)
from dj_photon_codecs.handle import cache as cache_module
from dj_photon_codecs.handle.cache import CACHE, ChunkCache
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.chunks import ChunkReader

GAIN, ZERO = 20.0, 100.0
NOISE = Calibration.given(GAIN, ZERO)
COUNTS = np.round(ZERO + GAIN * np.random.default_rng(1).poisson(8, (50, 32, 48))).astype(np.uint16)


class CountingStore(MemoryStore):
    """A store that counts what is asked of it, in all the views that a read-only one is of it."""

    requests: ClassVar[list[str]] = []

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        self.requests.append(args[0])
        return await super().get(*args, **kwargs)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 frames in shards of 16, so that small movies have several of both."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 8 * 32 * 48)
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 2 * 8 * 32 * 48 * 2)


@pytest.fixture
def stored(tmp_path: Path) -> PhotonArray:
    return write_movie(tmp_path / "m", COUNTS, calibration=NOISE)


def test_what_was_read_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A movie read shard by shard costs the memory of its shards' indices, not of their bytes (invariant 7)."""
    # A thread keeps one chunk's memory for its next chunk. Which threads have worked before is chance.
    monkeypatch.setattr(_threads, "_LARGEST_KEPT", 0)
    noise = np.random.default_rng(0).integers(0, 1 << 16, (128, 32, 48), np.uint16)
    movie = write_movie(tmp_path / "noise", noise, profile="lossless")
    movie[:16]  # what the first read imports and makes
    tracemalloc.start()
    try:
        for start in range(16, len(noise), 16):
            movie[start : start + 16]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < movie.record.stored_bytes / 4
    finally:
        tracemalloc.stop()


indices = st.one_of(
    st.integers(-50, 49),
    st.slices(50),
    st.just(Ellipsis),
)


@given(st.integers(-50, 49) | st.slices(50), st.integers(-32, 31) | st.slices(32), st.integers(-48, 47) | st.slices(48))
@settings(max_examples=60, deadline=None)
def test_basic_indexing_is_numpys(time: Any, row: Any, column: Any) -> None:
    store = _shared_store()
    movie, reference = open_movie(store), zarr.open_array(store, mode="r")[:]
    selection = tuple(s if not isinstance(s, slice) or (s.step or 1) > 0 else slice(None) for s in (time, row, column))
    for part in (selection, selection[:1], selection[:2], selection[0]):
        result = np.asarray(movie[part])
        assert result.shape == reference[part].shape
        assert result.dtype == reference.dtype
        assert (result == reference[part]).all()


_STORE: list[Store] = []


def _shared_store() -> Store:
    """One store for all examples of a hypothesis test."""
    if not _STORE:
        _STORE.append(MemoryStore())
        write_movie(_STORE[0], COUNTS, calibration=NOISE)
    return _STORE[0]


def test_every_other_kind_of_indexing_is_zarrs(stored: PhotonArray) -> None:
    reference = stored[:]
    assert (stored.oindex[[1, 40, 20], :, [3, 4]] == reference[[1, 40, 20]][:, :, [3, 4]]).all()
    assert (stored.vindex[[1, 40], [3, 4], [5, 6]] == reference[[1, 40], [3, 4], [5, 6]]).all()
    assert (stored.get_mask_selection(reference > 400) == reference[reference > 400]).all()
    assert (stored.blocks[1] == reference[16:32]).all()
    assert (np.asarray(stored) == reference).all()
    assert stored[-1].shape == (32, 48)


@pytest.mark.parametrize("index", [50, -51])
def test_a_frame_outside_the_movie_raises(stored: PhotonArray, index: int) -> None:
    with pytest.raises(IndexError):
        stored[index]


def test_the_handle_is_a_read_only_zarr_array(stored: PhotonArray) -> None:
    assert isinstance(stored, zarr.Array)
    assert stored.read_only
    with pytest.raises(ValueError, match="read-only"):
        stored[0] = 3
    assert (stored.shape, stored.dtype, stored.ndim, len(stored)) == ((50, 32, 48), np.uint16, 3, 50)


def test_making_a_handle_asks_the_store_for_nothing() -> None:
    """Invariant 8."""
    store = CountingStore()
    written = write_movie(store, COUNTS, calibration=NOISE)
    store.requests.clear()
    handle = PhotonArray(written._location, written.documents, written.record)
    assert "uint16" in repr(handle)
    assert handle.shape == COUNTS.shape
    assert handle.calibration == NOISE
    assert handle.compression_ratio > 1
    assert handle.stabilized.shape == COUNTS.shape
    assert handle.nbytes == COUNTS.nbytes
    assert store.requests == []
    handle[0]
    assert store.requests == ["c/0/0/0"] * 2  # the index of the shard, and the chunk
    handle[1]
    assert len(store.requests) == 2


def test_reading_all_takes_one_request_per_object() -> None:
    store = CountingStore()
    stored = write_movie(store, COUNTS, calibration=NOISE)
    store.requests.clear()
    stored[:]
    assert sorted(store.requests) == ["c/0/0/0", "c/1/0/0", "c/2/0/0", "c/3/0/0"] + ["c/3/0/0"] * (
        len(store.requests) - 4
    )
    assert len(store.requests) <= 5  # the last object has one chunk: its index, and it


def test_going_through_frame_by_frame_decodes_each_chunk_once(stored: PhotonArray, decoded: list[Any]) -> None:
    for index in range(len(stored)):
        assert (stored[index] == COUNTS[index]).any()
    assert sorted(decoded) == [(i, 0, 0) for i in range(7)]


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, 21), (-9, None), (10, 10), (40, 99)])
def test_frames_iterates_with_read_ahead(stored: PhotonArray, decoded: list[Any], start: int, stop: int | None) -> None:
    reference = stored[:][start:stop]
    decoded.clear()
    frames = list(stored.frames(start, stop))
    assert len(frames) == len(reference)
    assert all((frame == expected).all() for frame, expected in zip(frames, reference, strict=True))
    assert len(decoded) == len(set(decoded))


def test_iterating_the_handle_gives_frames(stored: PhotonArray) -> None:
    assert sum(1 for _ in stored) == 50


def test_frames_given_out_are_the_users_own(stored: PhotonArray) -> None:
    first = stored[3]
    first[:] = 0
    again = stored[3]
    assert again.max() > 0
    again[:] = 0
    assert stored[3].max() > 0


def test_many_threads_decode_each_chunk_once(stored: PhotonArray, decoded: list[Any]) -> None:
    barrier = threading.Barrier(8)

    def read(_: int) -> np.ndarray:
        barrier.wait()
        return stored[5]

    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(read, range(8)))
    assert all((frame == frames[0]).all() for frame in frames)
    assert decoded == [(0, 0, 0)]


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.05])
def test_who_asks_for_a_chunk_while_another_gets_it_waits_for_that_one(
    stored: PhotonArray, decoded: list[Any], pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader and the read-ahead ask for one chunk: between its decoding and its place in the cache is no gap."""
    chunks, read = stored._chunks, ChunkReader.read

    def read_and_have_another_ask(self: ChunkReader, *args: Any, **options: Any) -> Any:
        chunk = read(self, *args, **options)
        others.append(pool.submit(chunks.get, (0, 0, 0)))  # it asks after the chunk was decoded
        time.sleep(pause)
        return chunk

    others: list[Future[Any]] = []
    monkeypatch.setattr(ChunkReader, "read", read_and_have_another_ask)
    with ThreadPoolExecutor(1) as pool:
        chunk = chunks.get((0, 0, 0))
        [other] = others
        assert other.result() is chunk
    assert decoded == [(0, 0, 0)]


def test_who_waits_for_a_reader_that_is_interrupted_reads_the_chunk_itself(
    stored: PhotonArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks, read = stored._chunks, ChunkReader.read
    begun, waited_for = threading.Event(), threading.Event()

    def read_or_be_interrupted(self: ChunkReader, *args: Any, **options: Any) -> Any:
        if begun.is_set():
            return read(self, *args, **options)
        begun.set()
        assert waited_for.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkReader, "read", read_or_be_interrupted)
    with ThreadPoolExecutor(2) as pool:
        interrupted = pool.submit(chunks.get, (0, 0, 0))
        assert begun.wait(10)
        waiting = pool.submit(chunks.get, (0, 0, 0))
        time.sleep(0.05)
        waited_for.set()
        with pytest.raises(KeyboardInterrupt):
            interrupted.result(10)
        np.testing.assert_array_equal(waiting.result(10).counts(), stored[: stored.chunks[0]])


def test_who_was_admitted_late_finds_the_chunk_of_who_was_faster(stored: PhotonArray, decoded: list[Any]) -> None:
    """Two ask before the movie's metadata were checked; the slower check ends when the chunk is there."""
    chunks = stored._chunks
    waiting, there = threading.Event(), threading.Event()

    def admit() -> None:
        if not waiting.is_set():
            waiting.set()
            assert there.wait(10)

    chunks._admit = admit
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(chunks.get, (0, 0, 0))
        assert waiting.wait(10)
        chunk = chunks.get((0, 0, 0))
        there.set()
        assert late.result() is chunk
    assert decoded == [(0, 0, 0)]


def test_the_cache_is_bounded_and_lets_go_of_what_was_used_longest_ago() -> None:
    cache = ChunkCache(max_bytes=100)
    for index in range(5):
        cache.put((1, (index,)), np.zeros(40, np.uint8))
        cache.get((1, (0,)))
    assert cache.nbytes <= 100
    assert cache.get((1, (0,))) is not None  # used all the time
    assert cache.get((1, (1,))) is None
    cache.put((2, (0,)), np.zeros(500, np.uint8))  # larger than the cache: kept while it is the last
    assert cache.get((2, (0,))) is not None
    cache.drop(2)
    assert cache.nbytes == 0


def test_a_handle_that_goes_takes_its_chunks_out_of_the_cache(tmp_path: Path) -> None:
    handle = write_movie(tmp_path / "m", COUNTS, calibration=NOISE)
    handle[0]
    before = CACHE.nbytes
    assert before > 0
    del handle
    assert CACHE.nbytes < before


def test_reading_whole_chunks_does_not_fill_the_cache(stored: PhotonArray) -> None:
    before = CACHE.nbytes
    stored[:]
    assert CACHE.nbytes == before
    assert cache_module.CACHE is CACHE


def test_the_stabilised_view_is_the_generalised_anscombe_transform(stored: PhotonArray) -> None:
    view = stored.stabilized
    expected = generalized_anscombe(stored[:].astype(float), conversion_gain=GAIN, zero_level=ZERO)
    assert view.dtype == np.float32
    assert (view.shape, view.ndim, len(view)) == ((50, 32, 48), 3, 50)
    for selection in (3, slice(4, 9), (5, slice(2, 7)), (slice(None), 3, 4), ...):
        np.testing.assert_allclose(view[selection], expected[selection], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(view), expected, rtol=1e-6)
    np.testing.assert_allclose(np.stack(list(view.frames(10, 20))), expected[10:20], rtol=1e-6)
    assert view[:].std(axis=0).mean() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("dtype", ["int16", "float32", "int64", "uint8"])
def test_the_stabilised_view_is_right_for_every_dtype(tmp_path: Path, dtype: str) -> None:
    counts = (COUNTS // 3).clip(0, 255).astype(dtype)
    handle = write_movie(tmp_path / "other", counts, calibration=Calibration.given(7, 30))
    expected = generalized_anscombe(handle[:].astype(float), conversion_gain=7, zero_level=30)
    np.testing.assert_allclose(handle.stabilized[:], expected, rtol=1e-6)


def test_to_dask_gives_the_same_counts(stored: PhotonArray) -> None:
    lazy = stored.to_dask()
    assert lazy.chunks[0] == (8, 8, 8, 8, 8, 8, 2)
    assert (lazy[7:20, 3].compute() == stored[7:20, 3]).all()
    assert lazy.astype(float).mean().compute() == pytest.approx(stored[:].mean())


def test_a_handle_pickles_and_reads_again(stored: PhotonArray) -> None:
    stored[0]
    again = pickle.loads(pickle.dumps(stored))
    assert again == stored
    assert (again[7] == stored[7]).all()
    assert again.calibration == stored.calibration


def _sum_of_frame(handle: PhotonArray, index: int) -> int:
    return int(handle[index].sum())


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
def test_a_handle_works_in_worker_processes(stored: PhotonArray, method: str) -> None:
    stored[0]  # the event loop and the cache are in use before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        sums = pool.starmap(_sum_of_frame, [(stored, 3), (stored, 30)])
    assert sums == [int(stored[3].sum()), int(stored[30].sum())]


def _objects(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "c").rglob("*") if path.is_file())


def test_a_missing_object_raises_and_is_named(stored: PhotonArray, tmp_path: Path) -> None:
    """Invariant 5."""
    (tmp_path / "m" / "c" / "1" / "0" / "0").unlink()
    assert stored[0].shape == (32, 48)
    for selection in (16, slice(None), (slice(None), 3, 4), (slice(10, 30), slice(2, 4))):
        with pytest.raises(MissingChunkError, match=r"chunk \([23], 0, 0\) \(frames \d+ to \d+\) in object 'c/1/0/0'"):
            stored[selection]
    with pytest.raises(MissingChunkError):
        list(stored.frames(0, 20))
    with pytest.raises(MissingChunkError):
        stored.oindex[[0, 20], 3, [1, 2]]
    report = stored.verify()
    assert not report
    assert [problem.chunk for problem in report.missing] == [(2, 0, 0), (3, 0, 0)]
    assert report.missing[0].frames == (16, 24)
    assert "2 missing and 0 damaged of 7 chunks" in str(report)


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "empty"])
@pytest.mark.parametrize("where", ["chunk", "index"])
def test_an_altered_object_raises_and_is_named(stored: PhotonArray, tmp_path: Path, damage: str, where: str) -> None:
    """Invariant 5: one bit, a short object, zeros."""
    path = tmp_path / "m" / "c" / "1" / "0" / "0"
    content = bytearray(path.read_bytes())
    position = 100 if where == "chunk" else len(content) - 10
    if damage == "flip":
        content[position] ^= 1
    elif damage == "truncate":
        del content[position:]
    elif damage == "zero":
        content[position : position + 8] = bytes(8)
    else:
        content.clear()
    path.write_bytes(content)
    with pytest.raises((DamagedChunkError, MissingChunkError), match=r"chunk \(2, 0, 0\).*'c/1/0/0'"):
        stored[16]
    report = stored.verify()
    assert not report.ok
    assert {problem.object_key for problem in (*report.missing, *report.damaged)} == {"c/1/0/0"}


@pytest.mark.fuzz
@pytest.mark.slow
def test_no_single_bit_flip_goes_unnoticed(tmp_path: Path) -> None:
    """Invariant 5, over every bit of a small movie's objects."""
    small = write_movie(tmp_path / "small", COUNTS[:2, :3, :3], calibration=NOISE)
    [path] = _objects(tmp_path / "small")
    intact = path.read_bytes()
    for bit in range(8 * len(intact)):
        content = bytearray(intact)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        fresh = open_movie(tmp_path / "small")
        with pytest.raises((DamagedChunkError, MissingChunkError)):
            fresh[:]
    assert small.shape == (2, 3, 3)


@pytest.mark.fuzz
def test_no_truncation_goes_unnoticed(tmp_path: Path) -> None:
    """Invariant 5, at every length."""
    write_movie(tmp_path / "small", COUNTS[:2, :3, :3], calibration=NOISE)
    [path] = _objects(tmp_path / "small")
    intact = path.read_bytes()
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.raises((DamagedChunkError, MissingChunkError)):
            open_movie(tmp_path / "small")[:]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_intact_movie_verifies(tmp_path: Path, zarr_format: Any) -> None:
    handle = write_movie(tmp_path / "x", COUNTS, calibration=NOISE, zarr_format=zarr_format)
    report = handle.verify(progress=True)
    assert report
    assert report.n_chunks == 7
    assert "all 7 chunks" in str(report)


def test_damage_in_zarr_v2_is_found_too(tmp_path: Path) -> None:
    handle = write_movie(tmp_path / "x", COUNTS, calibration=NOISE, zarr_format=2)
    (tmp_path / "x" / "1.0.0").unlink()
    content = bytearray((tmp_path / "x" / "2.0.0").read_bytes())
    content[20] ^= 4
    (tmp_path / "x" / "2.0.0").write_bytes(content)
    with pytest.raises(MissingChunkError, match=r"'1\.0\.0'"):
        handle[9]
    with pytest.raises(DamagedChunkError, match=r"'2\.0\.0'"):
        handle[17]
    report = handle.verify()
    assert (len(report.missing), len(report.damaged)) == (1, 1)


def test_the_repr_shows_what_matters_and_no_secret() -> None:
    handle = write_movie(MemoryStore(), COUNTS, calibration=NOISE)
    text = repr(handle)
    assert "(50, 32, 48) uint16 standard (step 0.5 sigma, gain 20 ADU/photon)" in text


def test_a_handle_on_s3_shows_no_key_and_no_secret(s3_server: Any) -> None:
    import fsspec

    bucket = s3_server.new_bucket()
    settings = s3_server.store(bucket)
    options = {
        "key": settings["access_key"],
        "secret": settings["secret_key"],
        "client_kwargs": {"endpoint_url": s3_server.endpoint},
    }
    from dj_photon_codecs.storage.location import Location

    location = Location(f"s3://{bucket}/m", f"{bucket}/m", fsspec.filesystem("s3", **options))
    handle = write_movie(location, COUNTS, calibration=NOISE)
    for text in (repr(handle), repr(location), repr(handle.stabilized), repr(handle.info), str(handle)):
        assert settings["secret_key"] not in text
        assert settings["access_key"] not in text
    assert (pickle.loads(pickle.dumps(handle))[3] == handle[3]).all()
    assert handle.verify()
