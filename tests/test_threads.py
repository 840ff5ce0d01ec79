"""Threads that share the work of one call: none is left behind, and requests to a slow store overlap."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs._threads import REQUESTS, Group, do_all, encoding_threads, rooms, wait
from dj_photon_codecs.handle.cache import CACHE
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.shared_work import SharedWork

Jobs = deque[Callable[[], object]]


class SlowStore(MemoryStore):
    """A store that answers no request for chunks before sixteen wait, or the first has waited ten seconds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.patient, self.waiting, self.most = False, 0, 0

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        if self.patient and "c/" in key:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            for _ in range(1000):
                if self.most < 16:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)  # for a seventeenth
            self.waiting -= 1
        return await super().get(key, *args, **options)

    def with_read_only(self, read_only: bool = False) -> SlowStore:
        return self  # and so the counts of one store


@pytest.mark.slow
@pytest.mark.parametrize("per_object", [1, 2])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 9)], ids=["whole", "a part"])
def test_reading_keeps_sixteen_requests_under_way(
    monkeypatch: pytest.MonkeyPatch, rows: slice, per_object: int
) -> None:
    """Of whole objects, and of chunks of which a part is wanted."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 1)  # a frame
    monkeypatch.setattr(layout, "SHARD_BYTES", per_object * 16 * 16 * 2)
    counts = np.random.default_rng(0).poisson(9, (40, 16, 16)).astype(np.uint16)
    store = SlowStore()
    write_movie(store, counts, calibration=Calibration.given(1.0, 0.0))
    store.patient = True
    movie = open_movie(store)
    assert movie[:, rows].shape[0] == len(counts)
    assert store.most == REQUESTS == 16
    assert store.waiting == 0


def test_all_jobs_are_done_by_several_threads() -> None:
    seen, meet = list[int](), threading.Barrier(4)

    def job(number: int) -> None:
        if number < 4:
            meet.wait(10)  # passes only when four threads are there
        seen.append(number)

    do_all(Jobs(partial(job, number) for number in range(20)), 4)
    assert sorted(seen) == list(range(20))


def test_the_first_error_ends_the_others_and_is_the_one_that_is_raised() -> None:
    answer: Future[None] = Future()
    done = list[int]()

    def fail() -> None:
        time.sleep(0.05)  # others wait for an answer by now, which does not come
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        do_all(Jobs([fail, *[partial(wait, answer)] * 3, *[partial(done.append, 0)] * 9]), 4)
    assert answer.cancelled()
    assert done == []


def test_jobs_of_jobs_do_not_wait_for_a_thread() -> None:
    """As the bands of a chunk, of which many are decoded at the same time: more than there are threads."""
    done = list[int]()

    def outer() -> None:
        do_all(Jobs([partial(done.append, 1)] * 8), 8)

    do_all(Jobs([outer] * 64), 64)
    assert len(done) == 8 * 64


def test_an_interrupt_ends_what_other_threads_wait_for() -> None:
    answer: Future[None] = Future()
    begun = threading.Semaphore(0)
    main = threading.current_thread()

    def job() -> None:
        if threading.current_thread() is main:
            for _ in range(3):
                assert begun.acquire(timeout=10)
            raise KeyboardInterrupt
        begun.release()
        wait(answer)

    with pytest.raises(KeyboardInterrupt):
        do_all(Jobs([job] * 4), 4)
    with pytest.raises(CancelledError):
        answer.result(10)


def test_a_group_that_ends_lets_go_of_its_jobs() -> None:
    answer: Future[None] = Future()
    with Group() as group:
        waiting = [group.start(partial(wait, answer)) for _ in range(REQUESTS + 4)]
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(10)


def test_work_that_fails_fails_for_all_who_wait_and_is_done_again_by_the_next() -> None:
    shared, begun, go_on = SharedWork[int](), threading.Event(), threading.Event()

    def fail() -> int:
        begun.set()
        assert go_on.wait(10)
        raise OSError("no disk")

    with Group() as group:
        first = group.start(lambda: shared.do("a", fail))
        assert begun.wait(10)
        second = group.start(lambda: shared.do("a", lambda: 1))
        time.sleep(0.05)
        go_on.set()
        for future in (first, second):
            with pytest.raises(OSError, match="no disk"):
                future.result(10)
    assert shared.do("a", lambda: 2) == 2


def test_a_thread_has_rooms_of_its_own() -> None:
    mine = rooms.take("test", 10, np.uint8)
    assert np.shares_memory(rooms.take("test", 5, np.uint8), mine)
    with Group() as group:
        assert not np.shares_memory(group.start(partial(rooms.take, "test", 10, np.uint8)).result(10), mine)


def test_a_whole_read_leaves_the_cache_alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 16)
    counts = np.random.default_rng(0).poisson(9, (40, 16, 16)).astype(np.uint16)
    movie = write_movie(tmp_path / "m", counts, calibration=Calibration.given(1.0, 0.0))
    before = CACHE.nbytes
    whole = movie[:]
    assert CACHE.nbytes == before
    np.testing.assert_array_equal(np.stack(list(movie.frames())), whole)


def test_threads_that_encode_are_kept_for_each_setting() -> None:
    """A setting that changes back and forth leaves one set of threads for each value, not one for each change."""
    for number in (2, 3, 2, 3, 2):
        with zarr.config.set({"threading.max_workers": number}):
            pool = encoding_threads()
            assert pool.submit(int, "7").result() == 7
            assert pool is encoding_threads()
            if number == 2:
                found = pool
    with zarr.config.set({"threading.max_workers": 2}):
        assert encoding_threads() is found
    before = threading.active_count()
    for number in (2, 3) * 20:
        with zarr.config.set({"threading.max_workers": number}):
            encoding_threads().submit(int, "7").result()
    assert threading.active_count() <= before + 3
