"""What is left of a damaged movie: its intact counts, and a mask over the lost ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import zarr

from .._typing import AnyArray
from .._zarr import AsyncArray
from ..errors import DamagedChunkError, MissingChunkError
from ..storage.chunks import ChunkReader
from ..storage.grid import Coords
from .pipeline import CachedChunks, Chunks


class _Intact:
    """Chunks as they are, with the fill value in place of those that cannot be read, which are remembered."""

    def __init__(self, chunks: CachedChunks) -> None:
        self._chunks = chunks
        self.reader = chunks.reader
        self.lost: set[Coords] = set()

    def _filler(self, coords: Coords) -> AnyArray:
        self.lost.add(coords)
        spec = self.reader.spec
        return np.broadcast_to(np.asarray(spec.fill_value, spec.dtype.to_native_dtype()), spec.shape)

    async def get(self, coords: Coords, *, keep: bool) -> AnyArray:
        try:
            return await self._chunks.get(coords, keep=keep)
        except (MissingChunkError, DamagedChunkError):
            return self._filler(coords)

    async def get_object(self, stored: Coords) -> dict[Coords, AnyArray | Exception]:
        found = await self._chunks.get_object(stored)
        lost = (MissingChunkError, DamagedChunkError)
        return {coords: self._filler(coords) if isinstance(chunk, lost) else chunk for coords, chunk in found.items()}


class _Lost:
    """For the same selection, chunks of ones where they are lost and of zeros where they are not; reads nothing."""

    def __init__(self, reader: ChunkReader, lost: set[Coords]) -> None:
        self.reader = reader
        self._lost = lost

    async def get(self, coords: Coords, *, keep: bool) -> AnyArray:
        spec = self.reader.spec
        return np.broadcast_to(np.asarray(coords in self._lost, spec.dtype.to_native_dtype()), spec.shape)

    async def get_object(self, stored: Coords) -> dict[Coords, AnyArray | Exception]:
        return {coords: await self.get(coords, keep=False) for coords in self.reader.grid.chunks_in(stored)}


def read_intact(
    chunks: CachedChunks, read_through: Callable[[Chunks], AsyncArray[Any]], selection: Any
) -> np.ma.MaskedArray[Any, Any]:
    """A selection of the counts that can be read, masked where they cannot.

    Parameters
    ----------
    chunks
        Of the array.
    read_through
        Makes an array whose reads go through given chunks.
    selection
        As zarr takes it.
    """
    intact = _Intact(chunks)
    counts = np.asarray(zarr.Array(read_through(intact))[selection])
    mask = np.asarray(zarr.Array(read_through(_Lost(intact.reader, intact.lost)))[selection])
    return np.ma.MaskedArray(counts, mask != 0)
