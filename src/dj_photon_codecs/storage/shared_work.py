"""Deduplicate concurrent work: callers wait for work already in progress in another thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedWork(Generic[T]):
    """Work by name, done by the thread that asks first."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[int, Hashable], Future[T]] = {}

    def do(self, name: Hashable, work: Callable[[], T]) -> T:
        """Return the result of ``work()``; if another thread is already running it, wait for that result."""
        key = os.getpid(), name  # a forked child has none of its parent's threads to wait for
        while True:
            mine: Future[T] = Future()
            shared = self._under_way.setdefault(key, mine)
            if shared is mine:
                return self._done(key, mine, work)
            with suppress(CancelledError):  # the thread that did the work was interrupted
                return shared.result()

    def has(self, name: Hashable) -> bool:
        """Whether work of this name is under way."""
        return (os.getpid(), name) in self._under_way

    def _done(self, key: tuple[int, Hashable], mine: Future[T], work: Callable[[], T]) -> T:
        try:
            result = work()
        except CancelledError:
            raise
        except Exception as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            del self._under_way[key]
            mine.cancel()  # does nothing if it has a result
