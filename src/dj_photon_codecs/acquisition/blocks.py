"""Blocks of frames, filled by whoever acquires them, and encoded and written by threads in the meantime."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from .._zarr import submit
from ..calibration import Calibration
from ..errors import InvalidMovieError, MovieTypeError
from ..movies import WriteOptions, plan_movie, write_to
from ..sources import Source
from ..storage.design import Design, finished_documents, plan_array
from ..storage.journal import remove_journal, write_journal
from ..storage.layout import ENDLESS, plan_layout
from ..storage.location import Location
from ..storage.objects import ObjectWriter, Written
from ..storage.target import Target
from ..storage.values import ValueRange, check_block
from ..storage.writer import put_documents

#: Frames that the noise is measured on, if they fit; it looks at no more of a whole movie.
_CALIBRATION_FRAMES = 96

#: Bytes of frames that the noise is measured on, at most (or one block).
_CALIBRATION_BYTES = 1 << 28

#: The highest count that any sensor gives, and how far below darkness noise may reach beyond what was seen [ADU].
_HIGHEST, _FAR_BELOW = 2.0**24, 2.0**12

#: Blocks that are encoded and written at a time.
_UNDER_WAY = 2


class BlockWriter:
    """Gathers frames in blocks of one object each, and has a thread encode and write them.

    Until the noise is known, the blocks wait. A movie that ends before is written as one in memory.
    """

    def __init__(
        self,
        location: Location,
        frame_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        options: WriteOptions,
        calibration: Calibration | None,
        backlog_bytes: int,
    ) -> None:
        self._location, self._options, self._calibration = location, options, calibration
        self._frame_shape, self._dtype = frame_shape, dtype
        self._stride = plan_layout((ENDLESS, *frame_shape), dtype.itemsize, options.zarr_format).object_shape[0]
        block_bytes = self._stride * int(np.prod(frame_shape)) * dtype.itemsize
        frames = min(_CALIBRATION_FRAMES, max(1, _CALIBRATION_BYTES * self._stride // block_bytes))
        #: Blocks to plan by.
        self._first = 1 if calibration is not None else -(-frames // self._stride)
        self._queue: queue.Queue[AnyArray | None] = queue.Queue(max(self._first, backlog_bytes // block_bytes))
        self._free: queue.SimpleQueue[AnyArray] = queue.SimpleQueue()  # blocks whose memory can be used again
        self._block, self._filled = self._new_block(), 0
        self.frames = self.frames_stored = 0
        self._failure: BaseException | None = None
        self._design: Design | None = None
        self._writer: ObjectWriter
        self._waiting: list[AnyArray] = []
        self._under_way: list[tuple[Future[Written], AnyArray]] = []
        self._written: list[Written] = []
        self._target = Target(location)
        self._thread = threading.Thread(target=self._run, name="PhotonWriter", daemon=True)
        self._thread.start()

    def extend(self, frames: AnyArray) -> None:
        """Copy frames into the block that is being filled."""
        self._raise_failure()
        if frames.shape[1:] != self._frame_shape or frames.dtype.newbyteorder("=") != self._dtype:
            error = MovieTypeError if frames.shape[1:] == self._frame_shape else InvalidMovieError
            raise error(
                f"frame {self.frames} has shape {frames.shape[1:]} and dtype {frames.dtype}, those before it have "
                f"{self._frame_shape} and {self._dtype}: all frames of a movie are alike"
            )
        start = 0
        while start < len(frames):
            n = min(len(frames) - start, self._stride - self._filled)
            self._block[self._filled : self._filled + n] = frames[start : start + n]
            self._filled += n
            self.frames += n
            start += n
            if self._filled == self._stride:
                self._queue.put(self._block)
                self._block, self._filled = self._new_block(), 0

    def finish(self) -> dict[str, Json]:
        """Write what is left, and the metadata; gives the documents."""
        if self._filled:
            self._queue.put(self._block[: self._filled])
            self._filled = 0
        self._queue.put(None)
        self._thread.join()
        self._raise_failure()
        if self._design is None:  # too short to have been planned by its first blocks
            return write_to(lambda: self._location, self._first_frames(), self._options, self._calibration).documents
        metadata, record = self._design.metadata, self._design.record
        documents = finished_documents(metadata, record, self.frames, self._written)
        put_documents(self._target, documents)
        submit(remove_journal(self._target)).result()
        return documents

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _new_block(self) -> AnyArray:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return np.empty((self._stride, *self._frame_shape), self._dtype)

    def _run(self) -> None:
        """The thread: takes blocks until there are no more; after a failure it throws them away."""
        while (block := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._take(block)
                except BaseException as error:  # raised where frames are appended
                    self._failure = error
        try:
            self._settle(0)
        except BaseException as error:
            self._failure = self._failure or error

    def _take(self, block: AnyArray) -> None:
        if self._design is not None:
            self._write(block)
            return
        self._waiting.append(block)
        if len(self._waiting) == self._first and len(block) == self._stride:
            self._plan()
            waiting, self._waiting = self._waiting, []
            for block in waiting:
                self._write(block)

    def _plan(self) -> None:
        """Decide how the movie is written, by its first blocks, so that any count can follow."""
        source = self._first_frames()
        values = _expected(source.value, self._calibration is not None)
        plan = plan_movie(source, self._options, self._calibration, values)
        self._design = plan_array(replace(plan, fast=True), (ENDLESS, *self._frame_shape))
        self._writer = ObjectWriter(self._design.metadata, self._design.encoding, self._target)
        submit(write_journal(self._target, self._design.metadata, self._design.record)).result()

    def _first_frames(self) -> Source:
        """The blocks that wait, as one movie."""
        frames = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        return Source(frames, frames.shape, self._dtype, in_memory=True, signed=self._dtype.kind == "i")

    def _write(self, block: AnyArray) -> None:
        assert self._design is not None
        self._settle(_UNDER_WAY - 1)
        first = len(self._written) + len(self._under_way)
        if self._dtype.kind == "f":  # any integer can be stored
            check_block(block, first * self._stride, negative_allowed=self._design.plan.negative_allowed)
        future = submit(self._writer.write_block(block, first))
        self._under_way.append((future, block))
        future.add_done_callback(lambda done: self._count(done, len(block)))

    def _count(self, done: Future[Written], frames: int) -> None:
        """Count what is in the store: in the thread that writes, where one block ends at a time."""
        if not done.cancelled() and done.exception() is None:
            self.frames_stored += frames

    def _settle(self, at_most: int) -> None:
        """Wait until no more blocks than that are under way."""
        while len(self._under_way) > at_most:
            future, block = self._under_way.pop(0)
            self._written.append(future.result())
            if len(block) == self._stride:
                self._free.put(block)


def _expected(first: AnyArray, calibrated: bool) -> ValueRange:
    """The range of what may follow the first frames.

    Of dtypes up to 16 bits that is every count. Wider ones are seldom used for higher counts: no sensor has more than
    24 bits, and codes for all that they hold would be as wide.
    """
    dtype = first.dtype
    if dtype.kind != "f" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return ValueRange(int(limits.min), int(limits.max), whole=True)
    low = 0.0
    if dtype.kind == "i" or (dtype.kind == "f" and calibrated):
        lowest = float(first.min())
        low = -_FAR_BELOW + min(0.0, 8 * lowest) if np.isfinite(lowest) else -_FAR_BELOW
    high = min(_HIGHEST, float(np.finfo(dtype).max)) if dtype.kind == "f" else _HIGHEST
    return ValueRange(low, high, whole=dtype.kind != "f")
