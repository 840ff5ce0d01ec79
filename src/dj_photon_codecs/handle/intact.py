"""Read the intact counts of a damaged movie, with a mask over the lost ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._typing import Box
from ..errors import DamagedChunkError, MissingChunkError
from ..storage.decoded import Chunk
from ..storage.layout import Coords
from .indexing import numpy_selection
from .reading import CachedChunks, Found, fill, lost_counts


class _Intact:
    """Chunks of a movie; unreadable ones are recorded in ``lost`` and replaced by the fill value."""

    def __init__(self, chunks: CachedChunks) -> None:
        self._chunks = chunks
        self.reader = chunks.reader
        self.lost: set[Coords] = set()

    def admitted(self) -> None:
        self._chunks.admitted()

    def peek(self, coords: Coords, box: Box | None = None) -> Chunk | None:
        return self._chunks.peek(coords, box)

    def get(self, coords: Coords, *, keep: bool = True, threads: int = 1, box: Box | None = None) -> Chunk:
        try:
            return self._chunks.get(coords, keep=keep, threads=threads, box=box)
        except (MissingChunkError, DamagedChunkError) as error:
            return self.checked(coords, error)

    def checked(self, coords: Coords, found: Found) -> Chunk:
        if isinstance(found, Chunk):
            return found
        self.lost.add(coords)
        spec = self.reader.spec
        return Chunk(np.broadcast_to(np.asarray(spec.fill_value, spec.dtype.to_native_dtype()), spec.shape))


def read_intact(chunks: CachedChunks, dtype: np.dtype[Any], selection: Any) -> np.ma.MaskedArray[Any, Any]:
    """Read a numpy selection of counts, masking missing chunks, damaged chunks and lost frames."""
    intact, grid = _Intact(chunks), chunks.reader.grid
    selected = numpy_selection(selection, grid.shape)
    counts = np.empty(selected.shape, dtype)
    fill(intact, selected, counts, lost_too=True)
    mask = lost_counts(intact.reader, selected)
    for part in selected.parts(grid):
        if part.chunk in intact.lost:
            selected.copy(Chunk(np.broadcast_to(True, grid.chunk)), part, mask)
    return np.ma.MaskedArray(counts, mask)
