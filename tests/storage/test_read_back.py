"""Stored counts of every dtype keep their bound, by every way of writing and reading; the first object is checked."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore, WrapperStore

from dj_photon_codecs import (
    AcquisitionWarning,
    Calibration,
    PhotonArray,
    PhotonMovie,
    PhotonWriter,
    StorageError,
    open_movie,
    write_movie,
)
from dj_photon_codecs.storage import layout, plan
from dj_photon_codecs.storage.object_writer import ObjectWriter
from dj_photon_codecs.storage.readback import ReadBackError

SHAPE = (7, 16, 16)


@pytest.fixture(autouse=True)
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames in a chunk and four in a shard of 8-bit counts; whatever they are, counts are rounded."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 2 * 16 * 16)
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * 16 * 16)
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", -10.0)


def by_write_movie(place: Path, movie: np.ndarray, noise: Calibration, **options: Any) -> PhotonArray:
    return write_movie(place, movie, calibration=noise, **options)


def by_writer(place: Path, movie: np.ndarray, noise: Calibration, **options: Any) -> PhotonArray:
    with PhotonWriter(place, calibration=noise, **options) as writer:
        writer.extend(movie)
    return writer.movie


def in_blocks(movie: np.ndarray) -> Any:
    """As a dask array."""
    return dask.array.from_array(movie, chunks=(3, 16, 16))  # type: ignore[no-untyped-call]


def by_dask(place: Path, movie: np.ndarray, noise: Calibration, **options: Any) -> PhotonArray:
    return write_movie(place, in_blocks(movie), calibration=noise, **options)


def counts_of(dtype: str) -> np.ndarray:
    """Every count of a dtype of 8 bits; of others from their lowest to what a sensor may give."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        low, high = -30.0, 60000.0 if dtype == "float32" else 1900.0  # every whole number below is one of the dtype's
    else:
        low, high = max(-3000, np.iinfo(kind).min), min(100_000, np.iinfo(kind).max)
    whole = np.linspace(low, high, int(np.prod(SHAPE))).round()
    counts: np.ndarray = np.random.default_rng(0).permutation(whole).reshape(SHAPE).astype(dtype)
    return counts


def assert_within_bound(back: np.ndarray, counts: np.ndarray, gain: float, step: float) -> None:
    """Invariants 1 and 4, in float64."""
    assert (back.shape, back.dtype) == (counts.shape, counts.dtype)
    read, given = back.astype(np.float64), counts.astype(np.float64)
    sigma = gain * np.sqrt(np.maximum(np.maximum(read, given) / gain, 0) + 0.375)
    assert (np.abs(read - given) <= step / 2 * sigma + 0.5 + 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("write", [by_write_movie, by_writer, by_dask], ids=["write_movie", "PhotonWriter", "dask"])
@pytest.mark.parametrize(
    "options",
    [
        {"profile": "standard"},
        {"profile": "standard", "zarr_format": 2},
        {"profile": "dense"},
        {"profile": "portable"},
        {"profile": "portable", "zarr_format": 2},
        {"profile": "lossless"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32"]
)
@pytest.mark.filterwarnings("ignore:the entropy coder does not pay", "ignore:.* float16 rounds counts")
def test_counts_of_every_dtype_are_within_the_bound_whatever_the_width_of_their_codes(
    tmp_path: Path, dtype: str, options: dict[str, Any], write: Any
) -> None:
    """Invariant 1, by the handle, by another handle, and by plain zarr."""
    counts = counts_of(dtype)
    for gain, step in ((0.05, 0.2), (40.0, 0.5))[: 1 if counts.dtype.itemsize > 1 else 2]:
        place = tmp_path / f"{gain}"
        movie = write(place, counts, Calibration.given(gain, 0.0), step=step, **options)
        kept = step if movie.step else 0.0
        coarse = dtype == "float16"  # whose numbers are too far apart up there
        assert bool(movie.step) == (options["profile"] != "lossless" and not coarse)
        for back in (movie[...], open_movie(place)[...], zarr.open_array(place, mode="r")[...]):
            assert_within_bound(np.asarray(back), counts, gain, kept)
            if not kept:
                np.testing.assert_array_equal(back, counts)
        assert movie.verify()


@pytest.mark.parametrize("write", [by_write_movie, by_dask], ids=["write_movie", "dask"])
@pytest.mark.parametrize(("dtype", "gain"), [("uint8", 0.02), ("int8", 0.02), ("uint8", 3.0)])
def test_codes_of_8_bit_counts_have_8_bits(tmp_path: Path, dtype: str, gain: float, write: Any) -> None:
    """zarr before 3.3 forgets the byte order of wider ones, which would gain nothing over the counts."""
    noise = Calibration.given(gain, 0.0)
    counts = counts_of(dtype)
    stored = write(tmp_path / "standard", counts, noise, profile="standard")
    assert "'encoded_dtype': '" in str(stored.documents) or stored.profile == "lossless"
    assert "int16" not in str(stored.documents)
    for back in (stored[...], open_movie(tmp_path / "standard")[...], zarr.open_array(tmp_path / "standard")[...]):
        assert_within_bound(np.asarray(back), counts, gain, 0.5)


class Altering(WrapperStore[Any]):
    """A store that keeps other bytes than it was given, from some object on, and notes the keys."""

    def __init__(self, inner: MemoryStore, altered: Any) -> None:
        super().__init__(inner)
        self.inner, self.altered, self.keys = inner, altered, list[str]()

    def _with_store(self, store: Any) -> Altering:
        return Altering(store, self.altered)

    async def set(self, key: str, value: Any, *args: Any) -> None:
        self.keys.append(key)
        if key.startswith("c/"):
            value = self.altered(value)
        if value is not None:
            await super().set(key, value, *args)


def flipped(value: Any) -> Any:
    content = bytearray(value.to_bytes())
    content[len(content) // 3] ^= 16
    return type(value).from_bytes(bytes(content))


@pytest.mark.parametrize("altered", [flipped, lambda value: None], ids=["a bit flips", "nothing is kept"])
@pytest.mark.parametrize("lazy", [False, True], ids=["array", "dask"])
def test_a_store_that_alters_the_first_object_gets_no_second(altered: Any, lazy: bool) -> None:
    """And nothing is left in it."""
    kept: dict[str, Any] = {}
    store = Altering(MemoryStore(kept), altered)
    counts = counts_of("uint16")
    movie = in_blocks(counts) if lazy else counts
    with pytest.raises(StorageError, match=r"first object of .* does not read back.*chunk \(0, 0, 0\)"):
        write_movie(store, movie, calibration=Calibration.given(1.0, 0.0))
    assert [key for key in store.keys if key.startswith("c/")] == ["c/0/0/0"]
    assert kept == {}


@pytest.mark.parametrize("profile", ["standard", "portable", "lossless"])
def test_a_codec_that_breaks_the_bound_is_noticed_at_the_first_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The checksums hold, and the counts are others."""
    from dj_photon_codecs.storage.chunks import ChunkReader
    from dj_photon_codecs.storage.decoded import Chunk

    decode = ChunkReader.decode

    def wrong(self: ChunkReader, *args: Any) -> Chunk:
        counts = decode(self, *args).counts().copy()
        counts[1, 2, 3] += 900
        return Chunk(counts)

    monkeypatch.setattr(ChunkReader, "decode", wrong)
    movie = PhotonMovie(counts_of("uint16"), conversion_gain=2.0, zero_level=0.0, profile=profile)
    with pytest.raises(StorageError, match=r"count \d+ at \(1, 2, 3\) reads as \d+"):
        write_movie(tmp_path / "m", movie)
    assert not list(tmp_path.iterdir())


def test_a_writer_checks_its_first_object_too() -> None:
    store = Altering(MemoryStore(), flipped)
    writer = PhotonWriter(store, calibration=Calibration.given(1.0, 0.0))
    writer.extend(counts_of("uint16"))
    with pytest.raises(ReadBackError, match="does not read back"):
        writer.close()
    assert [key for key in store.keys if key.startswith("c/")] == ["c/0/0/0"]


class ShortReads(WrapperStore[Any]):
    """A store whose first reads of the counts end early, or fail with an error."""

    def __init__(self, store: Any, faults: list[Exception | None]) -> None:
        super().__init__(store)
        self.faults = faults  # of the next reads; None: half of the bytes

    def _with_store(self, store: Any) -> ShortReads:
        return ShortReads(store, self.faults)

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        found = await super().get(key, *args, **options)
        if found is None or not key.startswith("c/") or not self.faults:
            return found
        fault = self.faults.pop()
        if fault is not None:
            raise fault
        return type(found).from_bytes(found.to_bytes()[: len(found) // 2])


def test_a_writer_reads_its_first_object_again_after_a_short_read() -> None:
    store = ShortReads(MemoryStore(), [None, None])
    with PhotonWriter(store, profile="lossless") as writer:  # pytest fails on a warning
        writer.extend(counts_of("uint16"))
    np.testing.assert_array_equal(writer.movie[:], counts_of("uint16"))
    assert not store.faults


def test_a_writer_tells_a_store_that_fails_from_one_that_alters_by_the_type_of_the_error() -> None:
    """Whatever the words of the store: it is tried again."""
    store = ShortReads(MemoryStore(), [OSError("this tape does not read back")])
    with pytest.warns(AcquisitionWarning), PhotonWriter(store, profile="lossless") as writer:
        writer.extend(counts_of("uint16"))
    np.testing.assert_array_equal(writer.movie[:], counts_of("uint16"))


@pytest.mark.parametrize("altered", [flipped, lambda value: None], ids=["a bit flips", "nothing is kept"])
def test_a_store_that_alters_the_first_object_of_a_copy_gets_no_second(altered: Any) -> None:
    movie = write_movie({}, counts_of("uint16"), calibration=Calibration.given(1.0, 0.0))
    kept: dict[str, Any] = {}
    store = Altering(MemoryStore(kept), altered)
    with pytest.raises(StorageError, match=r"object 'c/0/0/0' of .* does not read back"):
        write_movie(store, movie)
    assert [key for key in store.keys if key.startswith("c/")] == ["c/0/0/0"]
    assert kept == {}


class Distant(WrapperStore[Any]):
    """A store that answers after a while, and counts the objects that are on their way to it."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.now = self.most = 0

    def _with_store(self, store: Any) -> Distant:
        return self

    async def set(self, key: str, value: Any, *args: Any) -> None:
        self.now += key.startswith("c/")
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        late = time.monotonic() + 10
        # on a machine that has other work, later ones come late too; the first object is stored alone
        while key.startswith("c/") and key != "c/0/0/0" and self.most < 16 and time.monotonic() < late:
            await asyncio.sleep(0.01)
        await super().set(key, value, *args)
        self.now -= key.startswith("c/")


def test_a_store_that_answers_late_gets_the_next_objects_meanwhile() -> None:
    counts = np.random.default_rng(0).poisson(20, (200, 16, 16)).astype(np.uint16)
    store = Distant(MemoryStore())
    movie = write_movie(store, counts, calibration=Calibration.given(1.0, 0.0))
    assert store.most == 16
    assert movie.verify()


def test_a_copy_has_as_many_requests_under_way() -> None:
    counts = np.random.default_rng(0).poisson(20, (200, 16, 16)).astype(np.uint16)
    movie = write_movie(MemoryStore(), counts, calibration=Calibration.given(1.0, 0.0))
    store = Distant(MemoryStore())
    copy = write_movie(store, movie)
    assert store.most == 16
    assert copy.verify()
    np.testing.assert_array_equal(copy[...], movie[...])


def test_sixteen_threads_encode_chunks_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of objects of 8 chunks, as movies of 512 x 512 have: each chunk waits until 12 are being encoded."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 16)
    monkeypatch.setattr(layout, "SHARD_BYTES", 8 * 4 * 16 * 16 * 2)
    counts = np.random.default_rng(0).poisson(20, (400, 16, 16)).astype(np.uint16)
    encode, lock, enough = ObjectWriter._encode, threading.Lock(), threading.Event()
    now: list[int] = []

    def counted(*arguments: Any) -> bytes:
        with lock:
            now.append(1)
            if len(now) >= 12:
                enough.set()
        enough.wait(20)
        content = encode(*arguments)
        with lock:
            now.pop()
        return content

    monkeypatch.setattr(ObjectWriter, "_encode", counted)
    with zarr.config.set({"threading.max_workers": 16}):
        movie = write_movie(MemoryStore(), counts, calibration=Calibration.given(1.0, 0.0))
    assert enough.is_set()
    assert movie.verify()
