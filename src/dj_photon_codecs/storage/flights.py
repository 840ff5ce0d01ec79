"""Work that is asked for by several at the same time, and done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedTasks(Generic[T]):
    """Tasks by name: who asks for one that is under way waits for that one."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[int, Hashable], asyncio.Task[T]] = {}

    async def do(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work()`` gives, started here unless it is under way."""
        # A task belongs to its event loop: callers on another loop work for themselves.
        key = (id(asyncio.get_running_loop()), name)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)
