"""Share the work of one call among threads.

The calling thread works too, so a single job needs no other thread. If the call is interrupted (Ctrl-C), its requests
to zarr's event loop are cancelled, so that no thread waits for a store that does not answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from ._system import after_fork_in_child, n_cores
from ._typing import AnyArray

T = TypeVar("T")

#: Number of concurrent requests to a store.
REQUESTS = 16

#: Largest array that a thread keeps for reuse [bytes].
_LARGEST_KEPT = 1 << 26

_pools: list[ThreadPoolExecutor] = []
_encoders: dict[int, ThreadPoolExecutor] = {}  # by their number of threads, which users may change
_here = threading.local()

after_fork_in_child(_pools.clear)  # a forked child has none of its parent's threads
after_fork_in_child(_encoders.clear)


def _pool() -> ThreadPoolExecutor:
    """Return the thread pool of this process."""
    if not _pools:
        _pools.append(ThreadPoolExecutor(max(REQUESTS, n_cores()), "dj-photon"))
    return _pools[0]


def n_threads() -> int:
    """Number of threads that encode chunks: zarr's setting ``threading.max_workers``, or one per core."""
    return int(zarr.config.get("threading.max_workers", None) or n_cores())


def encoding_threads() -> ThreadPoolExecutor:
    """Return the pool that encodes the chunks of all movies being written. Its jobs never wait."""
    number = n_threads()
    if number not in _encoders:
        _encoders.setdefault(number, ThreadPoolExecutor(number, "dj-photon-encode"))
    return _encoders[number]


class Group:
    """Jobs that end together. Leaving the context ends them."""

    def __init__(self) -> None:
        self.ended = False
        self._waiting: set[Future[Any]] = set()
        self._started: list[Future[Any]] = []

    def start(self, job: Callable[[], T]) -> Future[T]:
        """Run a job in another thread, unless the group ends before it begins."""
        self._started = [future for future in self._started if not future.done()]
        future = _pool().submit(self.run, job)
        self._started.append(future)
        return future

    def run(self, job: Callable[[], T]) -> T:
        """Run a job in this thread as part of the group."""
        before = getattr(_here, "group", None)
        _here.group = self
        try:
            return job()
        finally:
            _here.group = before

    def wait(self, future: Future[T]) -> T:
        """Wait for the result of a request; raises CancelledError if the group has ended."""
        self._waiting.add(future)
        try:
            if self.ended:
                future.cancel()
            return future.result()
        finally:
            future.cancel()
            self._waiting.discard(future)

    def end(self) -> None:
        """Start no more jobs, and cancel the requests that jobs are waiting for."""
        self.ended = True
        for future in [*self._started, *self._waiting]:
            future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.end()


def wait(future: Future[T]) -> T:
    """Wait for a request to an event loop. It is cancelled if the wait is interrupted or the group of jobs ends."""
    group: Group = getattr(_here, "group", None) or Group()
    return group.wait(future)


def do_all(jobs: deque[Callable[[], object]], at_once: int) -> None:
    """Run jobs in this thread and up to ``at_once - 1`` others. The first error stops all of them and is raised."""
    if len(jobs) == 1 or at_once == 1:
        while jobs:
            jobs.popleft()()
        return
    errors: list[BaseException] = []

    def work() -> None:
        while not group.ended:
            try:
                job = jobs.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                errors.append(error)
                group.end()
                raise

    helpers: list[Future[None]] = []
    with Group() as group:
        with suppress(RuntimeError):  # interpreter shutdown: no new threads, so this one does all the work
            helpers += [group.start(work) for _ in range(min(at_once, len(jobs)) - 1)]
        with suppress(Exception):  # already in errors
            group.run(work)
        for helper in helpers:
            if not helper.cancel():
                with suppress(Exception):
                    helper.result()
    if errors:
        raise errors[0]


class _Rooms(threading.local):
    """Arrays that a thread reuses from chunk to chunk, because touching new memory page by page takes time."""

    def take(self, name: Any, size: int, dtype: npt.DTypeLike) -> AnyArray:
        """Return an uninitialised array, valid until this thread takes the next one of the same name."""
        if size * np.dtype(dtype).itemsize > _LARGEST_KEPT:
            return np.empty(size, dtype)
        kept: AnyArray | None = self.__dict__.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self.__dict__[name] = np.empty(size, dtype)
        return kept[:size]


rooms = _Rooms()
