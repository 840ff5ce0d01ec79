"""Background thread that stores blocks of frames, and retries when the store fails.

The next action is always derived from the state of the blocks, so the thread can resume after any failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
import uuid
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from .._warn import collected_warnings
from .._zarr import buffer_of, submit
from ..errors import AcquisitionWarning, StorageError
from ..sources import Source
from ..storage.beside import Beside, put_beside
from ..storage.chunks import ChunkReader
from ..storage.claim import CLAIM, Claim
from ..storage.journal import Head, Journal, head_key, write_journal
from ..storage.layout import ENDLESS, plan_grid
from ..storage.location import Location, ProcessStore
from ..storage.object_writer import ObjectWriter, Written
from ..storage.plan import Plan, finished_documents
from ..storage.readback import ReadBackError
from ..storage.writer import put_documents
from .blocks import Block, Frames, info_of
from .frame_data import packed_frame_data
from .planning import LOG, Setup, plan_recording
from .status import AcquisitionStatus, in_seconds
from .store import DurableTarget, check_block, check_first, get_frames, put_frames, remove_each

#: Maximum number of frames that the noise is measured on, and their maximum size [bytes]; at least one block.
_CALIBRATION_FRAMES, _CALIBRATION_BYTES = 96, 1 << 28

#: Number of blocks encoded and written concurrently.
_UNDER_WAY = 2

#: First and longest pause between retries [s].
FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

#: Interval between heartbeats, status lines in the log, and messages while a caller waits [s].
_BEAT, _LINE, MESSAGE = 30.0, 60.0, 30.0


class Storing:
    """Base of the recorder: its blocks, and the thread that stores them."""

    def __init__(
        self, location: Location, claim: Claim | None, frame_shape: tuple[int, ...], dtype: np.dtype[Any], setup: Setup
    ) -> None:
        self.location, self.setup = location, setup
        self.frame_shape, self.dtype = frame_shape, dtype
        options = setup.options
        self._claim, self._pid = claim, os.getpid()
        self._target = DurableTarget(location, sync=setup.sync)
        self._grid = plan_grid((ENDLESS, *frame_shape), dtype.itemsize, options.zarr_format)
        self._stride = self._grid.block_frames
        self._block_bytes = self._stride * int(np.prod(frame_shape)) * dtype.itemsize
        frames = min(_CALIBRATION_FRAMES, max(1, _CALIBRATION_BYTES * self._stride // self._block_bytes))
        #: Number of blocks to plan from, and number of full blocks that may wait in memory.
        self._first = 1 if setup.calibration is not None else -(-frames // self._stride)
        self._room = max(self._first, 1, setup.backlog_bytes // self._block_bytes)
        self.blocks: list[Block] = []
        self.repeats: list[int] = []
        #: Runs of lost frames in a recovered movie.
        self.lost: tuple[tuple[int, int], ...] = ()
        self.documents: dict[str, Json] | None = None
        self.failure: BaseException | None = None
        self._plan: Plan | None = None
        self._writer: ObjectWriter
        self._journal = Journal(
            uuid.uuid4().hex,
            frame_shape,
            dtype.name,
            options.for_journal() | {"compressors": setup.compressors()},
            spill=None if setup.spill is None else setup.spill.root,
            row=setup.row,
            attributes=setup.attributes,
        )
        self._journal_written: Journal | None = None
        self._tried = 0  # number of full blocks at the last attempt to plan
        self._spare: list[AnyArray] = []  # memory for reuse
        self._cond = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = self._halted = self._flush_now = False
        self._trouble: tuple[BaseException, float] | None = None  # storage error, and time of the first one
        self._pause, self._next_attempt = FIRST_PAUSE, 0.0
        self._patient_since = 0.0  # start of the failure, or of the last retry()
        self._spills = setup.spill is not None  # True if the local folder takes frames while the store fails
        self._messages: deque[tuple[str, type[Warning]]] = deque()
        self._began = self._latest = 0.0
        self._beaten, self._lined = -float("inf"), time.monotonic()  # the first heartbeat comes with the first frame
        self._left: list[str] = []  # objects that could not be removed

    @property
    def frames(self) -> int:
        """Number of frames accepted."""
        n_blocks = len(self.blocks)
        return (n_blocks - 1) * self._stride + self.blocks[n_blocks - 1].filled if n_blocks else 0

    @property
    def stored(self) -> int:
        """Number of frames that survive if the process is killed."""
        return sum(block.filled if block.written is not None else block.kept for block in list(self.blocks))

    @property
    def rate(self) -> float:
        """Mean frame rate [frames/s]; NaN before the second frame."""
        elapsed = self._latest - self._began
        return (self.frames - 1) / elapsed if elapsed > 0 and self.frames > 1 else float("nan")

    def status(self) -> AcquisitionStatus:
        """Return the current status of the recording."""
        done = [(block.filled, block.written) for block in list(self.blocks) if block.written is not None]
        stored = sum(written.stored_bytes for _, written in done)
        raw = sum(filled for filled, _ in done) * self._block_bytes / self._stride
        full, elapsed = float("nan"), self._latest - self._began
        if self.location.is_local and stored and elapsed > 0:
            with suppress(OSError):
                full = shutil.disk_usage(self.location.root).free * elapsed / stored
        first, last = self.blocks[0].facts[0].get("number") if self.blocks else None, self._last_number()
        return AcquisitionStatus(
            frames=self.frames,
            stored=self.stored,
            rate=self.rate,
            missing=0 if first is None or last is None else max(0, last - first + 1 - self.frames),
            stored_bytes=stored,
            ratio=raw / stored if stored else float("nan"),
            seconds_to_full_disk=full,
            trouble=None if (trouble := self._trouble) is None else str(trouble[0]),
        )

    def _last_block(self) -> Block | None:
        """Return the block of the last frame."""
        return next((block for block in self.blocks[-2:][::-1] if block.filled), None)

    def _last_number(self) -> int | None:
        """Return the camera's number of the last frame, or None if it has none."""
        block = self._last_block()
        return None if block is None else block.facts[block.filled - 1].get("number")

    def _warn_later(self, text: str) -> None:
        """Log a warning, and queue it for the thread that appends; at most 100 are queued."""
        LOG.warning("%s: %s", self.location.label, text)
        if len(self._messages) < 100:
            self._messages.append((text, AcquisitionWarning))

    def _run(self) -> None:
        with collected_warnings(self._messages):
            while not self._halted and self.failure is None and self.documents is None:
                try:
                    self._chores()
                    if time.monotonic() >= self._next_attempt:
                        self._step()
                        self._recovered()
                    elif self.setup.spill is not None and self._memory_is_full():
                        self._rescue()
                except BaseException as error:
                    if isinstance(error, StorageError | MemoryError) and not isinstance(error, ReadBackError):
                        self._failed(error)
                    else:  # raised again in the thread that appends
                        self.failure = error
                        self._rescue()
                with self._cond:
                    self._cond.notify_all()
                    if not self._has_work():
                        self._cond.wait(self._idle())

    def _has_work(self) -> bool:
        """Return True if the thread has something to do now, including to exit."""
        if self._halted or self.documents is not None:
            return True
        wanted = self._closing or self._flush_now or (self._plan is not None and bool(self._to_write()))
        return wanted and time.monotonic() >= self._next_attempt

    def _idle(self) -> float:
        """Return the time until the next check for work [s]."""
        now = time.monotonic()
        if now < self._next_attempt:
            return self._next_attempt - now
        return 0.2 if self.setup.flush_seconds is None else min(0.2, max(0.01, self.setup.flush_seconds / 4))

    def _step(self) -> None:
        self._write_journal()
        if self._plan_if_ready():
            self._write_blocks()
        self._keep_frames(self._target, everything=self._flush_now)
        self._flush_now = False
        if self._closing and self.blocks and all(block.written is not None for block in self.blocks):
            self._write_documents()

    def _write_journal(self) -> None:
        if self._journal_written is not self._journal:
            journal = self._journal  # another thread may replace it meanwhile
            submit(write_journal(self._target, journal)).result()
            self._journal_written = journal

    def _chores(self) -> None:
        now = time.monotonic()
        if now - self._lined > _LINE:
            self._lined = now
            LOG.info("%s: %s", self.location.label, self.status())
        if self._claim is not None and now - self._beaten >= _BEAT:
            self._beaten = now
            try:
                submit(self._target.put(CLAIM, buffer_of(self._claim.beating().to_bytes()))).result()
            except StorageError as error:  # writing frames will report it
                LOG.info("no heartbeat: %s", error)

    def _to_write(self) -> list[Block]:
        blocks = list(self.blocks)
        return [b for b in blocks if b.written is None and (b.is_full or (self._closing and b.filled))]

    def _plan_if_ready(self) -> bool:
        """Plan how the movie is written once there are enough frames; return True if it is planned."""
        if self._plan is not None:
            return True
        closing, blocks = self._closing, [block for block in list(self.blocks) if block.filled]
        full = [block for block in blocks if block.is_full]
        if not (closing and blocks) and (len(full) < self._first or len(full) == self._tried):
            return False
        self._tried = len(full)
        blocks = blocks if closing else full
        for block in blocks:
            self._load(block)
        source = self._source(blocks)
        recent = self._source(blocks, max(0, source.shape[0] - self._first * self._stride))
        may_wait = not closing and len(full) < max(self._first, self._room // 2)
        grid = None if closing and source.shape[0] < self._stride else self._grid
        plan = plan_recording(source, recent, self.setup, grid=grid, may_wait=may_wait)
        if plan is None:
            return False
        self._writer = ObjectWriter(plan.metadata, plan.encoding, self._target)
        self._journal = replace(self._journal, metadata=plan.metadata, record=plan.record, values=plan.request.values)
        self._plan = plan
        self._write_journal()
        return True

    def _source(self, blocks: list[Block], start: int = 0) -> Source:
        frames = Frames(blocks, start)
        return Source(frames, frames.shape, self.dtype, in_memory=False, signed=self.dtype.kind == "i")

    def _write_blocks(self) -> None:
        """Encode and write full blocks, and the last, partial block when the movie is being closed."""
        under_way: deque[tuple[Block, Future[Written]]] = deque()
        submitted: set[int] = set()
        try:
            while not self._halted:
                block = next((block for block in self._to_write() if block.index not in submitted), None)
                # the first block is read back before another is written
                full = len(under_way) == _UNDER_WAY or (under_way and under_way[0][0].index == 0)
                if under_way and (full or block is None):
                    self._settle(*under_way[0])
                    under_way.popleft()
                    continue
                if block is None:
                    return
                submitted.add(block.index)
                under_way.append((block, submit(self._write(block, self._load(block)[: block.filled]))))
                self._chores()
        finally:
            wait([future for _, future in under_way])
            for block, future in under_way:
                if future.exception() is None:
                    self._settle(block, future)

    async def _write(self, block: Block, counts: AnyArray) -> Written:
        """Write a block. Read back the first block, and any block that replaces frame objects."""
        assert self._plan is not None
        head = self._head(block, 0, block.filled).to_bytes() if self._target.keeps_journal else b""
        sharded = self._writer.has_shards
        written = await self._writer.write_block(counts, block.index, head=head if sharded else b"")
        if head and not sharded:
            await self._target.put(head_key(block.first_frame), buffer_of(head))
        if block.index == 0:
            await check_first(self.location, self._plan, counts, headed=bool(head) and sharded)
        if block.places:
            reader = ChunkReader(self._plan.metadata, ProcessStore(self.location))
            await asyncio.to_thread(check_block, reader, block.index, written)
        return written

    def _settle(self, block: Block, future: Future[Written]) -> None:
        """Mark a block as stored by one assignment, then free its memory and remove its frame objects."""
        written = future.result()
        self._recovered()
        counts = block.counts
        block.written = written
        block.counts = None
        with self._cond:
            if counts is not None and block.is_full and not self._spare:
                self._spare.append(counts)
            self._cond.notify_all()
        kept, block.places = block.places, []
        for location in dict.fromkeys(location for location, _ in kept):
            keys = [key for where, key in kept if where == location]
            if location != self.location:
                remove_each(DurableTarget(location, sync=False), keys)
            else:
                self._left += keys if self._left else remove_each(self._target, keys)

    def _load(self, block: Block) -> AnyArray:
        """Return the frames of a block, read from its frame objects if they are not in memory."""
        if block.counts is None:
            counts = np.empty((self._stride, *self.frame_shape), self.dtype)
            for location, key in block.places:
                head, frames = get_frames(location, key)
                start = head.first_frame - block.first_frame
                counts[start : start + len(frames)] = frames
            block.counts = counts
        return block.counts

    def _head(self, block: Block, start: int, stop: int) -> Head:
        seconds = round(block.latest - self._began, 3)
        info = info_of(block.facts[start:stop])
        return Head(block.first_frame + start, stop - start, info, self._journal.to_dict(), seconds=seconds)

    def _keep_frames(self, target: DurableTarget, *, everything: bool) -> None:
        """Store frames of unwritten blocks in frame objects: those that waited ``flush_seconds``, or all."""
        seconds = self.setup.flush_seconds
        if not target.keeps_journal:
            return
        for block in list(self.blocks):
            start, stop, counts = block.kept, block.filled, block.counts
            if block.written is not None or counts is None or start == stop:
                continue
            if everything or (seconds is not None and time.monotonic() - block.since >= seconds):
                key = put_frames(target, self._head(block, start, stop), counts[start:stop])
                block.places.append((target.location, key))
                block.since, block.kept = time.monotonic(), stop

    def _write_documents(self) -> None:
        assert self._plan is not None
        written = [block.written for block in self.blocks if block.written is not None]
        record = replace(self._plan.record, lost=self.lost)
        documents = finished_documents(self._plan.metadata, record, self.frames, written)
        parts = [(block.first_frame, block.filled, info_of(block.facts[: block.filled])) for block in self.blocks]
        frame_data = packed_frame_data(parts, self.setup.arrays, self.repeats)
        documents = put_beside(self._target, documents, Beside(frame_data, self.setup.attributes))
        put_documents(self._target, documents)
        self.documents = documents

    def _failed(self, error: BaseException) -> None:
        """Warn of a storage failure, schedule a retry, and keep frames in the local folder meanwhile."""
        now = time.monotonic()
        self._next_attempt = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        trouble = self._trouble
        self._trouble = error, (now if trouble is None else trouble[1])
        if trouble is None:
            self._patient_since = now
            room = (self._room - sum(b.is_full and b.written is None for b in list(self.blocks))) * self._stride
            self._warn_later(
                f"the store does not accept frames: {error}. {in_seconds(self.frames - self.stored, self.rate)} wait "
                f"in memory, which has room for {in_seconds(max(0, room), self.rate)} more; writing is retried"
            )
        self._rescue()

    def _memory_is_full(self) -> bool:
        """Return True if the limit of full blocks in memory is reached."""
        waiting = (b for b in list(self.blocks) if b.is_full and b.counts is not None and b.written is None)
        return sum(1 for _ in waiting) >= self._room

    def _rescue(self) -> None:
        """Store frames in the local folder, and free the memory of full blocks that are complete there."""
        spill = self.setup.spill
        if spill is None and self.failure is None:
            return
        # a store that alters blocks may still hold frame objects
        target = self._target if spill is None else DurableTarget(spill, sync=self.setup.sync)
        try:
            self._keep_frames(target, everything=True)
            self._spills = spill is not None
        except (StorageError, MemoryError) as error:
            LOG.warning("frames could not be kept in %s: %s", target.location.label, error)
            self._spills = False
        for block in list(self.blocks) if self._spills else ():
            spilled = all(location == spill for location, key in block.places)
            if block.is_full and block.kept == block.filled and block.written is None and spilled:
                block.counts = None

    def _recovered(self) -> None:
        trouble = self._trouble
        if trouble is not None:
            self._trouble, self._pause, self._spills = None, FIRST_PAUSE, self.setup.spill is not None
            self._warn_later(f"the store accepts frames again, after {time.monotonic() - trouble[1]:.1f} s")
