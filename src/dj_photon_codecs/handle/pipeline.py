"""How every selection on a handle reads: through the chunk reader, and the cache in front of it.

zarr hands all reads, whatever the kind of indexing, to the codec pipeline of the array. This one reads inner
chunks with :class:`~dj_photon_codecs.storage.chunks.ChunkReader`, which never takes a missing chunk for zeros.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from .._typing import AnyArray
from .._zarr import BatchedCodecPipeline, NDBuffer, RegularChunkGrid, get_indexer, submit
from ..storage.chunks import ChunkReader
from ..storage.flights import SharedTasks
from ..storage.grid import ChunkGrid, Coords
from .cache import CACHE, new_owner

#: Chunks of one request that are fetched and decoded at the same time.
_CONCURRENCY = 8

#: Objects of one request that are fetched whole at the same time: this many shards are in memory, decoded.
_OBJECTS = 2


class Chunks(Protocol):
    """Where a :class:`ReadingPipeline` has its chunks from."""

    @property
    def reader(self) -> ChunkReader:
        """Of the array that they are of: for its grid."""

    async def get(self, coords: Coords, *, keep: bool) -> AnyArray:
        """One chunk; kept for the next reader, or not."""

    async def get_object(self, stored: Coords) -> dict[Coords, AnyArray | Exception]:
        """All chunks of an object, each decoded, or the error that reading it gives."""


class CachedChunks:
    """Decoded chunks of one array: from the cache, from a read already under way, or from the store.

    Parameters
    ----------
    reader
        Of the array.
    admit
        Raises where no chunk is to be read at all; asked before the first one.
    """

    def __init__(self, reader: ChunkReader, admit: Callable[[], Awaitable[None]]) -> None:
        self.reader = reader
        self._admit = admit
        self._admitted = False
        self.owner = new_owner()
        self._under_way = SharedTasks[AnyArray]()
        weakref.finalize(self, CACHE.drop, self.owner)

    def peek(self, coords: Coords) -> AnyArray | None:
        """The chunk if it is in the cache."""
        return CACHE.get((self.owner, coords))

    async def _admission(self) -> None:
        if not self._admitted:
            await self._admit()
            self._admitted = True

    async def get(self, coords: Coords, *, keep: bool) -> AnyArray:
        """The chunk, decoded at most once however many ask at the same time.

        Parameters
        ----------
        coords
            Of the inner chunk.
        keep
            Whether it goes into the cache: not when the caller takes all of it.
        """
        chunk = self.peek(coords)
        if chunk is not None:
            return chunk
        await self._admission()
        chunk = await self._under_way.do(coords, lambda: self.reader.read(coords))
        if keep:
            chunk.flags.writeable = False
            CACHE.put((self.owner, coords), chunk)
        return chunk

    async def get_object(self, stored: Coords) -> dict[Coords, AnyArray | Exception]:
        """All chunks of an object in one request, past the cache: their reader takes all of them."""
        await self._admission()
        return await self.reader.read_object(stored)

    def prefetch(self, coords: Coords) -> None:
        """Start to read a chunk into the cache, and do not wait; an error shows when the chunk is asked for."""
        if self.peek(coords) is None:
            submit(self.get(coords, keep=True)).add_done_callback(lambda done: done.exception())

    def hold_next(self, stored: Coords) -> None:
        """Start to fetch the whole object after this one, and let go of those before; does not wait."""
        following = (stored[0] + 1, *stored[1:])
        hold = self.reader.hold(following, in_place_of=stored, reading=self.reader.readings)
        submit(hold).add_done_callback(lambda done: done.exception())


@dataclass(frozen=True)
class ReadingPipeline(BatchedCodecPipeline):
    """zarr's codec pipeline, reading through :class:`Chunks`."""

    chunks: Chunks | None = None

    async def read(
        self,
        batch_info: Iterable[tuple[Any, Any, Any, Any, bool]],
        out: NDBuffer,
        drop_axes: tuple[int, ...] = (),
    ) -> None:
        """Fill ``out`` with the selected counts of each object in ``batch_info``."""
        assert self.chunks is not None
        grid = self.chunks.reader.grid
        target = out.as_ndarray_like()
        gate, whole = asyncio.Semaphore(_CONCURRENCY), asyncio.Semaphore(_OBJECTS)
        jobs: list[partial[Any]] = []
        for getter, _, chunk_selection, out_selection, *_ in batch_info:
            # the key ends in the coordinates of the object, whatever the separator
            stored = tuple(int(n) for n in re.findall(r"\d+", getter.path)[-len(grid.shape) :])
            indexer = get_indexer(chunk_selection, grid.stored, RegularChunkGrid(chunk_shape=grid.chunk))
            parts = list(indexer)
            if _is_plain(chunk_selection) and _is_plain(out_selection) and not drop_axes:
                # the usual case, slices only: straight from the chunk to where it belongs
                region = target[out_selection]
                if len(parts) > 1 and all(_covers(part[1], _global(grid, stored, part[0]), grid) for part in parts):
                    jobs.append(partial(self._copy_object, whole, grid, stored, parts, region))
                else:
                    jobs += [partial(self._copy, gate, grid, stored, part, region) for part in parts]
            else:
                jobs.append(partial(self._gather, gate, grid, stored, indexer, parts, target, out_selection, drop_axes))
        await asyncio.gather(*(job() for job in jobs))

    async def _copy(self, gate: asyncio.Semaphore, grid: ChunkGrid, stored: Coords, part: Any, region: Any) -> None:
        """Copy what is selected of one inner chunk."""
        assert self.chunks is not None
        place, selection, out_selection, *_ = part
        coords = _global(grid, stored, place)
        async with gate:
            chunk = await self.chunks.get(coords, keep=not _covers(selection, coords, grid))
            await asyncio.to_thread(_assign, region, out_selection, chunk[selection])

    async def _copy_object(
        self, gate: asyncio.Semaphore, grid: ChunkGrid, stored: Coords, parts: list[Any], region: Any
    ) -> None:
        """Copy whole inner chunks of one object, fetched in one request."""
        assert self.chunks is not None
        async with gate:
            decoded = await self.chunks.get_object(stored)
            for place, selection, out_selection, *_ in parts:
                chunk = decoded.pop(_global(grid, stored, place))
                if isinstance(chunk, Exception):
                    raise chunk
                await asyncio.to_thread(_assign, region, out_selection, chunk[selection])

    async def _gather(
        self,
        gate: asyncio.Semaphore,
        grid: ChunkGrid,
        stored: Coords,
        indexer: Any,
        parts: list[Any],
        target: Any,
        out_selection: Any,
        drop_axes: tuple[int, ...],
    ) -> None:
        """Assemble what is selected of one object, then put it where zarr wants it."""
        region = np.empty(indexer.shape, target.dtype)
        await asyncio.gather(*(self._copy(gate, grid, stored, part, region) for part in parts))
        if hasattr(indexer, "sel_shape"):
            region = region.reshape(indexer.sel_shape)
        if drop_axes:
            region = region.squeeze(axis=drop_axes)
        target[out_selection] = region


def _global(grid: ChunkGrid, stored: Coords, place: Coords) -> Coords:
    """Coordinates in the array of the inner chunk at a place in an object."""
    return tuple(o * n + i for o, n, i in zip(stored, grid.per_object, place, strict=True))


def _assign(region: Any, selection: Any, values: Any) -> None:
    region[selection] = values


def _is_plain(selection: Any) -> bool:
    """Whether a selection is slices of step 1 only."""
    return isinstance(selection, tuple) and all(isinstance(s, slice) and s.step in (None, 1) for s in selection)


def _covers(selection: Any, coords: Coords, grid: ChunkGrid) -> bool:
    """Whether a selection takes all of an inner chunk that lies inside the array."""
    if not _is_plain(selection):
        return False
    for part, index, size, total in zip(selection, coords, grid.chunk, grid.shape, strict=True):
        start, stop, _ = part.indices(size)
        if start > 0 or stop < min(size, total - index * size):
            return False
    return True
