"""Read selections: decode each chunk once and copy the selected part.

:mod:`.indexing` determines the part of each chunk. Chunks come from the cache or from
:class:`~dj_photon_codecs.storage.chunks.ChunkReader`, which never treats a missing chunk as zeros. The number of
threads is the number of cores, or the request limit for remote stores.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from .._system import n_cores
from .._threads import REQUESTS, Group, do_all, rooms
from .._typing import AnyArray, Box
from ..errors import DamagedChunkError, MissingChunkError
from ..storage.chunks import ChunkReader
from ..storage.decoded import Chunk
from ..storage.layout import ChunkGrid, Coords, frames_in_words
from ..storage.shared_work import SharedWork
from .cache import CACHE
from .indexing import (
    Part,
    Selection,
    block_selection,
    boxes,
    numpy_selection,
    orthogonal_selection,
    point_selection,
)

#: Limit on the bytes of counts in objects that one call fetches whole at the same time; at least two objects.
_OBJECT_BYTES = 1 << 30

#: Bytes of counts to read at a time for a mask over several axes; at least one row of chunks.
_BOX_BYTES = 1 << 26


class CachedChunks:
    """Decoded chunks of one array: from the cache, from a read already in progress, or from the store.

    ``admit`` is called once before the first read; it raises if no chunk may be read. Arrays with the same ``movie``
    share cached chunks; it is None if the content may have changed.
    """

    def __init__(self, reader: ChunkReader, admit: Callable[[], None], movie: Hashable = None) -> None:
        self.reader = reader
        self._admit = admit
        self._admitted = False
        self.owner = CACHE.join(object() if movie is None else movie)
        self._under_way = SharedWork[Chunk]()
        weakref.finalize(self, CACHE.drop, self.owner)

    def peek(self, coords: Coords, box: Box | None = None) -> Chunk | None:
        """Return the chunk if the box, or everything if it is None, is in the cache."""
        chunk = CACHE.get((self.owner, coords))
        return chunk if chunk is not None and chunk.has(box) else None

    def admitted(self) -> None:
        """Return if chunks may be read, and raise if not."""
        if not self._admitted:
            self._admit()
            self._admitted = True

    def get(self, coords: Coords, *, keep: bool = True, threads: int = 1, box: Box | None = None) -> Chunk:
        """Return an inner chunk. With ``keep``, concurrent callers share one decoding, and the result is cached.

        Callers that copy the whole chunk pass ``keep=False``. The chunk is then decoded into a buffer of this thread,
        which the next one overwrites. ``threads`` limits the decoding threads. Callers that need only a ``box`` name
        it. If another box of the chunk is in the cache, or the whole chunk is being decoded, they get the whole chunk.
        """
        held = CACHE.get((self.owner, coords))
        if held is not None:
            if held.has(box):
                return held
            box = None
        self.admitted()
        box = self.reader.to_decode(box)
        if box is not None and self._under_way.has((coords, None)):
            box = None
        if not keep:
            return self.reader.read(coords, rooms.take, threads)
        return self._under_way.do((coords, box), partial(self._load, coords, threads, box))

    def _load(self, coords: Coords, threads: int, box: Box | None) -> Chunk:
        """Read and cache a chunk while the read is still registered, so that later callers find one or the other."""
        chunk = self.peek(coords, box)
        if chunk is None:
            chunk = self.reader.read(coords, threads=threads, box=box)
            CACHE.put((self.owner, coords), chunk)
        return chunk

    def read_ahead(self, coming: Iterable[Coords], group: Group) -> None:
        """Start reading chunks into the cache without waiting. Errors surface when the chunk is requested."""
        missing = [coords for coords in coming if self.peek(coords) is None]
        if missing:
            self.admitted()
        for coords in missing:
            group.start(partial(self.get, coords))


#: Selection functions by kind of indexing.
SELECTIONS: dict[str, Callable[[Any, ChunkGrid], Selection]] = {
    "basic": lambda key, grid: numpy_selection(key, grid.shape),
    "orthogonal": lambda key, grid: orthogonal_selection(key, grid.shape),
    "points": lambda key, grid: point_selection(key, grid.shape),
    "blocks": block_selection,
}


def select(
    chunks: CachedChunks, dtype: np.dtype[Any], kind: str, key: Any, coming: Callable[[int], None] | None = None
) -> AnyArray:
    """Read the selection of ``key`` into a new array; ``kind`` is a key of :data:`SELECTIONS`.

    ``coming`` is called with the number of counts before they are decoded. Raises IndexError for an invalid index.
    """
    grid = chunks.reader.grid
    if isinstance(key, np.ndarray) and key.dtype.kind == "b" and key.ndim > 1 and kind != "orthogonal":
        target, done = np.empty((int(np.count_nonzero(key)), *grid.shape[key.ndim :]), dtype), 0
        at_a_time = _BOX_BYTES // (math.prod(grid.shape[1:]) * dtype.itemsize) // grid.chunk[0] * grid.chunk[0]
        for selection, mask in boxes(key, grid.shape, max(at_a_time, grid.chunk[0])):
            box = np.empty(selection.shape, dtype)
            fill(chunks, selection, box, coming)
            found = box[mask]
            target[done : done + len(found)] = found
            done += len(found)
        return target
    selection = SELECTIONS[kind](key, grid)
    target = np.empty(selection.shape, dtype)
    fill(chunks, selection, target, coming)
    return target


def fill(
    chunks: CachedChunks,
    selection: Selection,
    target: AnyArray,
    coming: Callable[[int], None] | None = None,
    damaged: set[Coords] | None = None,
) -> None:
    """Read each chunk of a selection once and copy it directly into ``target``.

    With a set ``damaged``, lost frames are allowed, and unreadable chunks are skipped and added to the set.
    """
    reader = chunks.reader
    grid, cores = reader.grid, n_cores()
    if reader.lost and damaged is None and lost_counts(reader, selection).any():
        raise lost_frames_error(reader)
    if coming is not None:
        coming(target.size)
    parts = list(selection.parts(grid))

    def one(part: Part, threads: int = 1) -> None:
        try:
            chunk = chunks.get(part.chunk, keep=not part.whole, threads=threads, box=selection.box(part, grid))
        except (MissingChunkError, DamagedChunkError) as error:
            use(part, error)
        else:
            use(part, chunk)

    def use(part: Part, found: Chunk | Exception) -> None:
        if isinstance(found, Chunk):
            selection.copy(found, part, target)
        elif damaged is None:
            raise found
        else:
            damaged.add(part.chunk)

    if len(parts) == 1:
        one(parts[0], cores)
        return
    if any(chunks.peek(part.chunk, selection.box(part, grid)) is None for part in parts):
        chunks.admitted()  # once, not in every thread
    if reader.store.location.is_local:
        do_all(deque(partial(one, part) for part in parts), cores)
        return
    # Fetch an object in one request if whole chunks make up most of it. Read other chunks one by one, so that those
    # needed again stay in the cache.
    objects: dict[Coords, list[Part]] = {}
    for part in parts:
        objects.setdefault(grid.object_of(part.chunk)[0], []).append(part)
    whole, single = deque[Callable[[], object]](), deque[Callable[[], object]]()
    for stored, wanted in objects.items():
        if all(part.whole and chunks.peek(part.chunk) is None for part in wanted) and len(wanted) > max(
            1, math.prod(map(len, grid.ranges_in(stored))) // 2
        ):
            whole.append(partial(reader.use_object, stored, {part.chunk: partial(use, part) for part in wanted}))
        else:
            single += (partial(one, part) for part in wanted)
    do_all(whole, min(REQUESTS, max(2, _OBJECT_BYTES // (math.prod(grid.stored) * target.itemsize))))
    do_all(single, REQUESTS)


def read_intact(chunks: CachedChunks, dtype: np.dtype[Any], selection: Any) -> np.ma.MaskedArray[Any, Any]:
    """Read a numpy selection of counts, masking missing chunks, damaged chunks and lost frames."""
    reader, damaged = chunks.reader, set[Coords]()
    selected = numpy_selection(selection, reader.grid.shape)
    counts = np.full(selected.shape, reader.spec.fill_value, dtype)
    fill(chunks, selected, counts, damaged=damaged)
    mask = lost_counts(reader, selected)
    for part in selected.parts(reader.grid):
        if part.chunk in damaged:
            selected.copy(Chunk(np.broadcast_to(True, reader.grid.chunk)), part, mask)
    return np.ma.MaskedArray(counts, mask)


def lost_counts(reader: ChunkReader, selection: Selection) -> AnyArray:
    """Return a mask of the selected counts whose frames were lost before they were stored."""
    mask, grid = np.zeros(selection.shape, bool), reader.grid
    for part in selection.parts(grid) if reader.lost else ():
        frames = reader.lost_in(part.chunk).reshape(-1, *(1,) * (len(grid.chunk) - 1))
        if frames.any():
            selection.copy(Chunk(np.broadcast_to(frames, grid.chunk)), part, mask)
    return mask


def lost_frames_error(reader: ChunkReader) -> MissingChunkError:
    """Return the error for a selection that has frames that were lost before they were stored."""
    return MissingChunkError(
        f"{frames_in_words(reader.lost)} of the movie at {reader.store.location.label} were lost before they were "
        "stored, and the selection includes some of them: read_intact() masks them"
    )


def blocks(chunks: CachedChunks) -> Iterator[tuple[tuple[slice, ...], AnyArray]]:
    """Yield the region and the counts of each chunk in order, reading a few ahead."""
    grid = chunks.reader.grid
    if chunks.reader.lost:  # a mask of the whole movie might not fit into memory
        raise lost_frames_error(chunks.reader)
    coming = deque[tuple[Coords, Future[AnyArray]]]()

    def counts(coords: Coords) -> AnyArray:
        chunk = chunks.get(coords, keep=False)
        return chunk.counts() if chunk.lookup is not None else chunk.codes.copy()

    def first() -> tuple[tuple[slice, ...], AnyArray]:
        coords, future = coming.popleft()
        region = [slice(s.start, min(s.stop, n)) for s, n in zip(grid.region(coords), grid.shape, strict=True)]
        return tuple(region), future.result()[tuple(slice(s.stop - s.start) for s in region)]

    at_once = n_cores() + 1 if chunks.reader.store.location.is_local else REQUESTS
    chunks.admitted()
    with Group() as group:
        for coords in itertools.product(*map(range, grid.chunks)):
            coming.append((coords, group.start(partial(counts, coords))))
            if len(coming) == at_once:
                yield first()
        while coming:
            yield first()
