"""Writing a movie: in one pass, a shard at a time, all of it or nothing.

The order on the store is chunks first and the metadata document last: what an interrupted process leaves
behind does not open as an array.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, wait
from dataclasses import replace

from .._typing import Json
from .._zarr import submit
from ..anscombe.tables import prepare
from ..errors import CodeRangeError
from .chunks import ChunkReader
from .design import Design, WritePlan, finished_documents, plan_array
from .grid import Coords
from .layout import plan_layout
from .location import Location
from .objects import ObjectWriter, Written
from .parallel import is_dask, scan_blocks, write_blocks
from .progress import progress_bar
from .target import Target, all_or_nothing
from .values import ValueRange, check_block, scan


def write_array(location: Location, plan: WritePlan) -> dict[str, Json]:
    """Write a movie.

    Returns
    -------
    dict
        The metadata documents by key, as written.

    Raises
    ------
    ConfigurationError
        When something is stored there already.
    InvalidMovieError
        For values that cannot be stored, in a movie that is not in memory; in one that is, they were found before.
    StorageError
        When the store fails.
    """
    if plan.step:
        prepare(math.prod(plan.source.shape))
    with all_or_nothing(location) as target:
        try:
            return _write(target, plan_array(plan))
        except CodeRangeError:
            if plan.source.in_memory:
                raise
        # A frame outside the sample needs wider codes: look at the whole movie, and begin again.
        submit(target.clear()).result()
        values = _scan(plan)
        return _write(target, plan_array(replace(plan, values=values)))


def _write(target: Target, design: Design) -> dict[str, Json]:
    """One pass through the movie with a decided encoding."""
    written = (write_blocks if is_dask(design.plan.source.value) else _write_in_order)(target, design)
    documents = finished_documents(design.metadata, design.record, design.plan.source.shape[0], written)
    put_documents(target, documents)
    return documents


def _scan(plan: WritePlan) -> ValueRange:
    """The range of all counts."""
    source = plan.source
    if is_dask(source.value):
        stride = plan_layout(source.shape, source.dtype.itemsize, plan.zarr_format).object_shape[0]
        return scan_blocks(source, stride, negative_allowed=plan.negative_allowed)
    return scan(source, negative_allowed=plan.negative_allowed)


def _write_in_order(target: Target, design: Design) -> list[Written]:
    """Write one block after the other, reading the next in the meantime."""
    plan, source = design.plan, design.plan.source
    writer = ObjectWriter(design.metadata, design.encoding, target)
    written: list[Written] = []
    under_way: Future[Written] | None = None
    with progress_bar("writing", source.shape[0], "frame", plan.progress) as advance:
        try:
            for start in range(0, source.shape[0], design.stride):
                stop = min(start + design.stride, source.shape[0])
                block = source.read(start, stop)
                if not source.in_memory:
                    check_block(block, start, negative_allowed=plan.negative_allowed)
                # Read the next frames while these are encoded: two blocks in memory, never more.
                if under_way is not None:
                    written.append(under_way.result())
                under_way = submit(writer.write_block(block, start // design.stride))
                advance(stop - start)
            assert under_way is not None
            written.append(under_way.result())
        except BaseException:
            _settle(under_way)
            raise
    return written


def put_documents(target: Target, documents: dict[str, Json]) -> None:
    """Write the metadata documents of an array, which makes it an array."""

    async def put() -> None:
        # the document that makes it an array comes last: in Zarr V2, after the attributes
        for key in sorted(documents, key=lambda key: key in (".zarray", "zarr.json")):
            await target.put_json(key, documents[key])

    submit(put()).result()


def _settle(under_way: Future[Written] | None) -> None:
    """Wait until a write that is under way has ended, so that cleaning up comes last.

    It is not cancelled: that would not stop the thread that writes a file.
    """
    if under_way is not None:
        wait([under_way])


def copy_objects(origin: ChunkReader, documents: dict[str, Json], location: Location) -> None:
    """Copy a stored array byte for byte: its objects, then its metadata documents.

    Raises
    ------
    MissingChunkError
        When the original lacks an object; nothing is left of the copy.
    StorageError
        When one of the two stores fails.
    """

    async def copy(stored: Coords, target: Target) -> None:
        await target.put(origin.key(stored), await origin.payload(stored))

    with all_or_nothing(location) as target:
        for stored in origin.grid.all_objects():
            submit(copy(stored, target)).result()
        put_documents(target, documents)
