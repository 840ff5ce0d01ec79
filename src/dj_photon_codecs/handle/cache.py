"""A cache of decoded chunks, so that frame-by-frame iteration decodes each chunk once.

All handles of a process share one cache, so its size also bounds the memory of a thousand open handles.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable

from .._system import after_fork_in_child, memory_bytes
from ..errors import ConfigurationError
from ..storage.decoded import Chunk

#: Cache key: the owner of a chunk (a movie, or a single handle) and the coordinates of the chunk.
Key = tuple[Hashable, tuple[int, ...]]

#: Environment variable for the cache size [bytes] of a process; the default is 1/16 of memory within these bounds.
_VARIABLE = "DJ_PHOTON_CACHE_BYTES"
_LEAST, _MOST = 1 << 28, 1 << 31


class ChunkCache:
    """Least-recently-used cache of decoded chunks, bounded in bytes; safe to use from many threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Clear the cache and create a new lock, because a forked child must not wait for the parent's lock."""
        self._lock = threading.Lock()
        self._chunks: OrderedDict[Key, Chunk] = OrderedDict()
        #: Bytes of decoded chunks in the cache.
        self.nbytes = 0
        self._handles: Counter[Hashable] = Counter()
        #: Owners of deleted handles, one entry per handle; the next call removes their chunks.
        self._dropped: deque[Hashable] = deque()

    def join(self, owner: Hashable) -> Hashable:
        """Register a handle of an owner. Its chunks stay until :meth:`drop` has been called for every handle."""
        with self._lock:
            self._handles[owner] += 1
        return owner

    def get(self, key: Key) -> Chunk | None:
        """Return the chunk, or None, and mark it as recently used."""
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
            return chunk

    def put(self, key: Key, chunk: Chunk) -> None:
        """Add a chunk and evict the least recently used ones."""
        with self._lock:
            self._forget_dropped()
            held = self._chunks.get(key)
            if held is not None and held.has(chunk.box):
                return
            self._chunks[key] = chunk
            self.nbytes += chunk.nbytes - (0 if held is None else held.nbytes)
            self._shrink()

    def resize(self, max_bytes: int) -> None:
        """Change the size limit and evict chunks beyond it."""
        with self._lock:
            self.max_bytes = max_bytes
            self._shrink()

    def drop(self, owner: Hashable) -> None:
        """Unregister a handle. Never blocks: a finalizer may interrupt the thread that holds the lock."""
        self._dropped.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                self._forget_dropped()
            finally:
                self._lock.release()

    def _forget_dropped(self) -> None:
        """Remove chunks of owners without handles. The caller holds the lock."""
        while self._dropped:
            owner = self._dropped.popleft()
            self._handles[owner] -= 1
            if self._handles[owner] <= 0:
                del self._handles[owner]
                for key in [key for key in self._chunks if key[0] == owner]:
                    self.nbytes -= self._chunks.pop(key).nbytes

    def _shrink(self) -> None:
        """Evict chunks, except the most recently used one, whatever its size. The caller holds the lock."""
        while self.nbytes > self.max_bytes and len(self._chunks) > 1:
            self.nbytes -= self._chunks.popitem(last=False)[1].nbytes


def set_cache_size(n_bytes: int) -> None:
    """Set the size of the cache of decoded chunks, which all open movies of this process share.

    Overrides the environment variable ``DJ_PHOTON_CACHE_BYTES``. The default is 1/16 of the memory that the process
    may use, at least 256 MiB and at most 2 GiB. The most recently used chunk stays in the cache whatever its size.

    Parameters
    ----------
    n_bytes
        Cache size in bytes, 0 or more.

    Raises
    ------
    ConfigurationError
        If ``n_bytes`` is negative or not an integer.
    """
    CACHE.resize(_checked(n_bytes, "n_bytes"))


def _checked(n_bytes: object, name: str) -> int:
    if isinstance(n_bytes, bool) or not isinstance(n_bytes, int) or n_bytes < 0:
        raise ConfigurationError(f"{name} must be a number of bytes, 0 or more, got {n_bytes!r}")
    return n_bytes


def initial_size() -> int:
    """Return the initial cache size; raise ConfigurationError if the environment variable is not a byte count."""
    given = os.environ.get(_VARIABLE, "").strip()
    if given:
        return _checked(int(given) if given.isdecimal() else given, f"the environment variable {_VARIABLE}")
    return min(max((memory_bytes() or 0) // 16, _LEAST), _MOST)


CACHE = ChunkCache(initial_size())

after_fork_in_child(CACHE.reset)
