"""Decoded chunks, kept so that frame-by-frame iteration decodes each chunk once.

One cache serves all handles of a process: its size bounds what a thousand open handles hold together.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict

from .._typing import AnyArray

#: Bytes of decoded chunks kept per process. The chunk used last is kept whatever its size.
CACHE_BYTES = 1 << 28

_owners = itertools.count()

Key = tuple[int, tuple[int, ...]]


class ChunkCache:
    """Least-recently-used cache of decoded chunks, bounded in bytes; safe to use from many threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Forget everything, with a new lock: a forked child must not wait for the parent's."""
        self._lock = threading.Lock()
        self._chunks: OrderedDict[Key, AnyArray] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> AnyArray | None:
        """The chunk, or None; it counts as just used."""
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
            return chunk

    def put(self, key: Key, chunk: AnyArray) -> None:
        """Keep a chunk, and let go of those used longest ago."""
        with self._lock:
            if key in self._chunks:
                return
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self.max_bytes and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes

    def drop(self, owner: int) -> None:
        """Forget the chunks of one handle."""
        with self._lock:
            for key in [key for key in self._chunks if key[0] == owner]:
                self._bytes -= self._chunks.pop(key).nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of decoded chunks held now."""
        return self._bytes


def new_owner() -> int:
    """A number for a handle that no other handle of this process has."""
    return next(_owners)


CACHE = ChunkCache(CACHE_BYTES)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.reset)
