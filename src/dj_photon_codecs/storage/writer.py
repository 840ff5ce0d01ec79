"""Write a movie in one pass, a shard at a time, completely or not at all.

Chunks are stored first and the metadata document last, so that the leftovers of an interrupted process do not open
as an array.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._threads import REQUESTS, Group, n_threads
from .._typing import AnyArray, Json
from .._zarr import buffer_of, metadata_documents, submit
from ..anscombe.tables import prepare
from ..errors import CodeRangeError
from .beside import Beside, put_beside
from .chunks import ChunkReader
from .count_range import ValueRange, check_block, scan
from .dask_blocks import is_dask, scan_blocks, write_blocks
from .layout import Coords
from .location import Location, ProcessStore
from .object_writer import ObjectWriter, Written
from .plan import Plan, Request, finished_documents, plan_movie
from .progress import progress_bar
from .readback import check_copied_object, check_first_object
from .target import Target, all_or_nothing

#: Blocks encoded or stored at the same time until the size of one is known.
_UNTIL_THE_FIRST_IS_STORED = 3

#: Largest number of bytes being stored at once (or one block): 16 shards at a compression ratio of 4.
_AT_ONCE_BYTES = 1 << 28


def write_array(location: Location, request: Request, beside: Beside = Beside()) -> dict[str, Json]:  # noqa: B008  # frozen
    """Write a movie and the objects beside it; return the metadata documents by key, as written.

    Raises OccupiedError if something is stored there already, CodeRangeError if a given noise model has no codes for
    some counts, StorageError if the store fails, and InvalidMovieError for values that cannot be stored. The last is
    only for movies that are not in memory; others were checked before.
    """
    source = request.source
    if request.step:
        prepare(math.prod(source.shape))
    with all_or_nothing(location) as target:
        try:
            return _write(target, plan_movie(request), beside)
        except CodeRangeError as error:
            failure = error
        submit(target.clear()).result()
        if not source.in_memory:  # a frame outside the sample needs wider codes: look at the whole movie
            request = replace(request, values=_scan(request))
            try:
                return _write(target, plan_movie(request), beside)
            except CodeRangeError as error:
                failure = error
            submit(target.clear()).result()
        # The user asked for this noise model or this format, so don't replace it by lossless storage.
        if request.calibration.method == "given" or request.profile.legacy:
            raise failure
        return _write(target, plan_movie(request.without_loss(str(failure))), beside)


def _write(target: Target, plan: Plan, beside: Beside) -> dict[str, Json]:
    """Write the movie in one pass with the chosen encoding."""
    source = plan.request.source
    if target.location.is_icechunk:
        put_documents(target, metadata_documents(plan.metadata))
    written = (write_blocks if is_dask(source.value) else _write_in_order)(target, plan)
    documents = finished_documents(plan.metadata, plan.record, source.shape[0], written)
    documents = put_beside(target, documents, beside)
    put_documents(target, documents)
    return documents


def _scan(request: Request) -> ValueRange:
    """Return the range of all counts."""
    source, allowed = request.source, request.negative_allowed
    if is_dask(source.value):
        return scan_blocks(source, request.grid.block_frames, negative_allowed=allowed)
    return scan(source, negative_allowed=allowed)


class _Writes:
    """Concurrent writes: as many as a remote store needs, in bounded memory."""

    def __init__(self) -> None:
        self._written: list[Written] = []
        self._under_way: deque[Future[Written]] = deque()
        self._at_once = _UNTIL_THE_FIRST_IS_STORED

    def start(self, write: Callable[[], Future[Written]]) -> Future[Written]:
        """Start a write when there is room; raises the error of an earlier write that failed."""
        while len(self._under_way) >= self._at_once or (self._under_way and self._under_way[0].done()):
            self._take()
        self._under_way.append(write())
        return self._under_way[-1]

    def _take(self) -> None:
        self._written.append(self._under_way[0].result())
        self._under_way.popleft()  # after the wait: if that is interrupted, settle() still finds the write
        self._at_once = min(REQUESTS, max(1, _AT_ONCE_BYTES // max(1, self._written[-1].stored_bytes)))

    def finish(self) -> list[Written]:
        """Wait for all writes and return their results in the order of starting."""
        while self._under_way:
            self._take()
        return self._written

    def settle(self) -> None:
        """Wait until all writes have ended, successfully or not."""
        _settle(*self._under_way)


def _write_in_order(target: Target, plan: Plan) -> list[Written]:
    """Read, encode and store the blocks of a movie, the three steps running concurrently for different blocks."""
    request, source, grid = plan.request, plan.request.source, plan.request.grid
    writer = ObjectWriter(plan.metadata, plan.encoding, target)
    # One block is read while enough others are encoded to give every thread a chunk. Blocks of a movie in memory need
    # no extra memory, so twice as many are encoded: threads then have work while a block ends.
    chunks = math.prod(grid.per_object)
    room = threading.Semaphore(2 + n_threads() * (1 + source.in_memory) // chunks)
    writes = _Writes()
    checked: Future[None] | None = None
    with progress_bar("writing", source.shape[0], "frame", request.options.progress) as advance:
        try:
            for start in range(0, source.shape[0], grid.block_frames):
                room.acquire()
                stop = min(start + grid.block_frames, source.shape[0])
                block = source.read(start, stop)
                if not source.in_memory:
                    check_block(block, start, negative_allowed=request.negative_allowed)
                index, after = start // grid.block_frames, checked
                write = partial(writer.write_block, block, index, encoded=room.release, after=after)
                first = writes.start(partial(_submitted, write))
                if checked is None:
                    checked = submit(_first_checked(first, target, plan, block))
                del block, write
                advance(stop - start)
            written = writes.finish()
            if checked is not None:
                checked.result()
        except BaseException:
            writes.settle()
            _settle(checked)
            raise
    return written


def _submitted(write: Callable[[], Coroutine[Any, Any, Written]]) -> Future[Written]:
    return submit(write())


async def _first_checked(first: Future[Written], target: Target, plan: Plan, block: AnyArray) -> None:
    """Wait for the first block to be stored, then read its first object back."""
    await asyncio.wrap_future(first)
    await check_first_object(target.location, plan.metadata, plan.encoding, block)


def put_documents(target: Target, documents: dict[str, Json]) -> None:
    """Write the metadata documents, after which the folder opens as an array."""

    async def put() -> None:
        # the document that readers look for comes last, in Zarr V2 after the attributes
        for key in sorted(documents, key=lambda key: key in (".zarray", "zarr.json")):
            await target.put_json(key, documents[key])

    _finished(put())


def _finished(writing: Coroutine[Any, Any, None]) -> None:
    """Wait for a write to end even if the wait is interrupted, so that cleaning up comes after it."""
    under_way = submit(writing)
    try:
        under_way.result()
    except BaseException:
        _settle(under_way)
        raise


def _settle(*under_way: Future[Any] | None) -> None:
    """Wait until writes have ended, so that cleaning up comes last.

    They are not cancelled, because that would not stop the thread that writes a file.
    """
    wait([writing for writing in under_way if writing is not None])


def copy_objects(
    origin: ChunkReader, documents: dict[str, Json], location: Location, beside: Beside
) -> dict[str, Json]:
    """Copy a stored array byte for byte (objects, what lies beside it, documents) and return its documents.

    Raises MissingChunkError if the original lacks an object, and StorageError if one of the stores fails or the
    first object does not read back. Nothing is left of a failed copy.
    """
    copied = ChunkReader(origin.metadata, ProcessStore(location))

    def copy(stored: Coords, target: Target) -> Written:
        payload = origin.payload(stored)
        submit(target.put(origin.key(stored), buffer_of(payload.tobytes()))).result()
        if not any(stored):
            check_copied_object(copied, stored, payload)
        return Written(payload.size, np.empty(0, np.uint32))

    with all_or_nothing(location) as target:
        if location.is_icechunk:
            put_documents(target, documents)
        writes = _Writes()
        with Group() as group:
            try:
                for stored in origin.grid.all_objects():
                    writes.start(partial(group.start, partial(copy, stored, target)))
                    if not any(stored):
                        writes.finish()
                writes.finish()
            except BaseException:
                group.end()
                writes.settle()
                raise
        documents = put_beside(target, documents, beside)
        put_documents(target, documents)
        return documents
