"""Writing a dask array: its own scheduler computes, encodes and writes blocks of frames, one object's worth each.

On a cluster the counts never come to the process that asked for it; the workers write to the store themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import AnyArray
from .._zarr import ArrayMetadata, submit
from ..anscombe.tables import prepare
from ..errors import InvalidMovieError
from ..sources import Source
from .design import Design
from .location import Location
from .objects import ObjectWriter, Written
from .profiles import Encoding
from .progress import progress_bar
from .target import Target
from .values import ValueRange, check_block

#: Blocks that the scheduler is given at a time: a store that fails is noticed after so many.
_WAVE = 64


class _Busy:
    """How many blocks are being written in this process: dask's threads go on when one of them fails."""

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


def write_blocks(target: Target, design: Design) -> list[Written]:
    """Have dask write all blocks of its array; gives them in order of time.

    Raises
    ------
    InvalidMovieError, CodeRangeError, StorageError
        As writing it here would; nothing is being written any more when they are raised.
    """
    import dask

    source, location = design.plan.source, target.location
    write = dask.delayed(_write, pure=False)  # type: ignore[attr-defined]
    common = location, design.metadata, design.encoding, source.dtype, design.plan.negative_allowed
    tasks = [write(block, start, design.stride, *common) for start, block in _blocks(source, design.stride)]
    target.others_write(ObjectWriter(design.metadata, design.encoding, target).keys())
    written: list[Written] = []
    for answers in _computed(tasks, "writing", design.plan.progress):
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures:
            raise failures[0]
        written += answers
    return written


def scan_blocks(source: Source, stride: int, *, negative_allowed: bool) -> ValueRange:
    """The range of a dask array's counts; raises as :func:`~.values.check_block`."""
    import dask

    check = dask.delayed(check_block, pure=False)  # type: ignore[attr-defined]
    tasks = [check(block, start, negative_allowed=negative_allowed) for start, block in _blocks(source, stride)]
    found: ValueRange | None = None
    for answers in _computed(tasks, "checking", False):
        for answer in answers:
            found = answer if found is None else found | answer
    assert found is not None
    return found


def _blocks(source: Source, stride: int) -> Iterator[tuple[int, Any]]:
    """The first frame of each block, and the block as a task."""
    blocks = source.value.rechunk((stride, *source.shape[1:])).to_delayed().reshape(-1)
    return ((index * stride, block) for index, block in enumerate(blocks))


def _computed(tasks: list[Any], what: str, progress: bool | None) -> Iterator[list[Any]]:
    """What tasks give, in waves; whatever is raised, no task of a wave runs any more."""
    with progress_bar(what, len(tasks), "block", progress) as advance:
        for start in range(0, len(tasks), _WAVE):
            wave = tasks[start : start + _WAVE]
            yield _compute(wave)
            advance(len(wave))


def _compute(tasks: list[Any]) -> list[Any]:
    import dask.base  # some of dask has types, and what is used here has none

    # distributed's client offers its method get as the scheduler
    client = getattr(dask.base.get_scheduler(), "__self__", None)  # type: ignore[no-untyped-call]
    if client is None:
        try:
            return list(dask.compute(*tasks))  # type: ignore[attr-defined,no-untyped-call]
        finally:
            _BUSY.wait()
    from distributed import wait  # type: ignore[attr-defined]

    futures = client.compute(tasks)
    try:
        wait(futures)  # also for those that go on when one has failed
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
    """One task: write a block, or give what went wrong, so that the others are waited for."""
    try:
        with _BUSY:
            expected = min(stride, metadata.shape[0] - start), *metadata.shape[1:]
            if block.shape != expected:
                raise InvalidMovieError(
                    f"computing frames {start}:{start + expected[0]} gave shape {block.shape}, expected {expected}: "
                    "the dask array does not hold what its shape promises"
                )
            counts = np.asarray(block).astype(dtype, copy=False)
            check_block(counts, start, negative_allowed=negative_allowed)
            prepare(counts.size)
            writer = ObjectWriter(metadata, encoding, Target(location))
            return submit(writer.write_block(counts, start // stride)).result()
    except Exception as error:
        return error
