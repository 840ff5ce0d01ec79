"""Write a dask array: dask's scheduler computes, encodes and writes it, in blocks as long as one object.

On a cluster the workers write to the store themselves; the counts never reach the calling process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from .._typing import AnyArray
from .._zarr import ArrayMetadata, submit
from ..anscombe.tables import prepare
from ..errors import InvalidMovieError
from ..sources import Source, check_unmasked
from .count_range import ValueRange, check_block
from .encoding import Encoding
from .location import Location
from .object_writer import ObjectWriter, Written
from .plan import Plan
from .progress import progress_bar
from .readback import check_first_object
from .target import Target

#: Blocks submitted to the scheduler at a time, so that a failing store is noticed early.
_WAVE = 64


class _Busy:
    """Counts the blocks being written in this process, because dask's threads continue after one of them fails."""

    def __init__(self) -> None:
        self._number = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._number += 1

    def __exit__(self, *details: object) -> None:
        with self._changed:
            self._number -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._number == 0)


_BUSY = _Busy()


def is_dask(value: object) -> bool:
    """Whether a value is a dask array."""
    return hasattr(value, "__dask_graph__") and hasattr(value, "rechunk") and hasattr(value, "to_delayed")


def write_blocks(target: Target, plan: Plan) -> list[Written]:
    """Let dask write all blocks of its array; returns them in time order.

    Raises InvalidMovieError, CodeRangeError and StorageError, as a local write does. No block is still being written
    when they are raised.
    """
    import dask

    request, location = plan.request, target.location
    source, stride = request.source, request.grid.block_frames
    write = dask.delayed(_write, pure=False)  # type: ignore[attr-defined]
    common = location, plan.metadata, plan.encoding, source.dtype, request.negative_allowed
    tasks = [write(block, start, stride, *common) for start, block in _blocks(source, stride)]
    target.others_write(ObjectWriter(plan.metadata, plan.encoding, target).keys())
    written: list[Written] = []
    for answers in _computed(tasks, "writing", request.options.progress, first_alone=True):
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures:
            raise failures[0]
        written += answers
    return written


def scan_blocks(source: Source, stride: int, *, negative_allowed: bool) -> ValueRange:
    """Return the range of a dask array's counts; raises as :func:`~.count_range.check_block`."""
    import dask

    check = dask.delayed(_check, pure=False)  # type: ignore[attr-defined]
    tasks = [check(block, start, negative_allowed) for start, block in _blocks(source, stride)]
    found: ValueRange | None = None
    for answers in _computed(tasks, "checking", False):
        for answer in answers:
            found = answer if found is None else found | answer
    assert found is not None
    return found


def _check(block: AnyArray, start: int, negative_allowed: bool) -> ValueRange:
    check_unmasked(block)  # blocks can be masked without the array knowing
    return check_block(block, start, negative_allowed=negative_allowed)


def _blocks(source: Source, stride: int) -> Iterator[tuple[int, Any]]:
    """Yield the first frame of each block, and the block as a task."""
    blocks = source.value.rechunk((stride, *source.shape[1:])).to_delayed().reshape(-1)
    return ((index * stride, block) for index, block in enumerate(blocks))


def _computed(tasks: list[Any], what: str, progress: bool | None, *, first_alone: bool = False) -> Iterator[list[Any]]:
    """Yield the results of tasks in waves, optionally with the first task alone.

    When it raises, no task of the wave is still running.
    """
    with progress_bar(what, len(tasks), "block", progress) as advance:
        starts = [*([0] if first_alone else []), *range(int(first_alone), len(tasks), _WAVE), len(tasks)]
        for start, stop in pairwise(starts):
            wave = tasks[start:stop]
            yield _compute(wave)
            advance(len(wave))


def _compute(tasks: list[Any]) -> list[Any]:
    import dask.base  # dask is only partly typed

    # with distributed, the scheduler is the client's bound method ``get``
    client = getattr(dask.base.get_scheduler(), "__self__", None)  # type: ignore[no-untyped-call]
    if client is None:
        try:
            return list(dask.compute(*tasks))  # type: ignore[attr-defined,no-untyped-call]
        finally:
            _BUSY.wait()
    from distributed import wait  # type: ignore[attr-defined]

    futures = client.compute(tasks)
    try:
        wait(futures)  # including those still running after another failed
        return list(client.gather(futures))
    finally:
        client.cancel(futures)


def _write(
    block: AnyArray,
    start: int,
    stride: int,
    location: Location,
    metadata: ArrayMetadata,
    encoding: Encoding,
    dtype: np.dtype[Any],
    negative_allowed: bool,
) -> Written | Exception:
    """Write one block. Errors are returned, not raised, so that dask waits for the other blocks."""
    try:
        with _BUSY:
            expected = min(stride, metadata.shape[0] - start), *metadata.shape[1:]
            if block.shape != expected:
                raise InvalidMovieError(
                    f"computing frames {start}:{start + expected[0]} gave shape {block.shape}, expected {expected}: "
                    "the dask array does not hold what its shape promises"
                )
            check_unmasked(block)
            counts = np.asarray(block).astype(dtype, copy=False)
            check_block(counts, start, negative_allowed=negative_allowed)
            prepare(counts.size)
            writer = ObjectWriter(metadata, encoding, Target(location))
            written = submit(writer.write_block(counts, start // stride)).result()
            if start == 0:
                submit(check_first_object(location, metadata, encoding, counts)).result()
            return written
    except Exception as error:
        return error
