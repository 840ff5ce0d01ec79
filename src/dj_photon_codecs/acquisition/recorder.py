"""Accept frames into blocks; each is accepted by a single assignment, so interrupts are safe."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from .._warn import warn
from ..errors import AcquisitionWarning, InvalidMovieError, MovieTypeError, StorageError
from ..storage.chunks import ChunkReader
from ..storage.documents import JOURNAL
from ..storage.journal import head_key
from ..storage.location import ProcessStore
from .blocks import Block, facts_of, without_uncodable
from .planning import LOG, highest
from .status import in_seconds
from .store import check_block, remove_each
from .storing import FIRST_PAUSE, MESSAGE, Storing

#: Longest gap to fill with blank frames; a longer one means that the counter was reset.
LONGEST_GAP = 10_000

#: Limit on negative counts until the noise is known [ADU].
_LOWEST = 2.0**16


class Recorder(Storing):
    """Accepts frames; the inherited thread stores them."""

    def take(self, frames: AnyArray, numbers: Any = None, times: Any = None, masked: Any = None) -> None:
        """Copy frames into blocks, waiting while memory is full."""
        self._require_own_process()
        if self._closing:
            raise InvalidMovieError(f"the movie at {self.location.label} is being closed: call close() again")
        if frames.shape[1:] != self.frame_shape or frames.dtype.newbyteorder("=") != self.dtype:
            error = MovieTypeError if frames.shape[1:] == self.frame_shape else InvalidMovieError
            raise error(
                f"frame {self.frames} has shape {frames.shape[1:]} and dtype {frames.dtype}, but the first frame has "
                f"{self.frame_shape} and {self.dtype}: all frames of a movie must match"
            )
        with self._cond:  # calls from several threads do not interleave
            if numbers is None and times is None and masked is None and self._limits() is None:
                self._place(frames, [{}] * len(frames))
            else:
                for place, frame in enumerate(frames):
                    number, at, mask = (None if each is None else each[place] for each in (numbers, times, masked))
                    self._take_one(frame, number, at, mask)
        self.warn_now()

    def adopt(self, frames: AnyArray, info: Json) -> None:
        """Accept recovered frames and their metadata."""
        with self._cond:
            self._place(frames, [facts_of(info, place) for place in range(len(frames))])

    def _take_one(self, frame: AnyArray, number: Any, at: Any, mask: Any) -> None:
        facts: Json = {}
        if number is not None:
            facts["number"] = number = int(number)
            if not self._fits(number, frame):
                return
        if at is not None:
            facts["time"] = float(at)
        limits = self._limits()
        frame, replaced = without_uncodable(frame, limits, mask)
        if replaced is not None:
            facts["replaced"] = replaced
            if limits is not None and replaced["out_of_range"]:
                low, high = limits
                self._warn_later(
                    f"frame {self.frames} has {replaced['out_of_range']} pixels outside the range {low:g} to {high:g}: "
                    f"the movie stores the nearest value in the range (NaN becomes {high:g}), and "
                    "read_frame_data(movie) returns the original values"
                )
        self._place(frame[np.newaxis], [facts])

    def _fits(self, number: int, frame: AnyArray) -> bool:
        """Return False for a repeat of the last frame; warn of gaps, and fill them if the user asked for that."""
        last = self._last_number()
        if last is None or number == last + 1:
            return True
        if number == last and self._repeats_last(frame):
            self.repeats.append(self.frames)
            self._warn_later(f"frame {self.frames}: the camera sent number {number} twice, and the second was dropped")
            return False
        gap = number - last - 1
        if gap > 0:
            missing = in_seconds(gap, self.rate)
            self._warn_later(f"{missing} are missing before frame {self.frames}: numbers {last + 1} to {number - 1}")
        else:
            self._warn_later(f"frame {self.frames} has number {number} after {last}: it is stored in order of arrival")
        if self.setup.gaps == "blank" and 0 < gap <= LONGEST_GAP:
            for missed in range(last + 1, number):
                self._place(np.zeros((1, *self.frame_shape), self.dtype), [{"number": missed, "blank": True}])
        return True

    def _place(self, frames: AnyArray, facts: list[Json]) -> None:
        """Copy frames and their metadata into blocks; assigning ``filled`` accepts them."""
        done = 0
        while done < len(frames):
            block = self._block_with_room()
            place = block.filled
            n = min(len(frames) - done, self._stride - place)
            assert block.counts is not None
            block.counts[place : place + n] = frames[done : done + n]
            block.facts[place : place + n] = facts[done : done + n]
            self._latest = block.latest = time.monotonic()
            if place == block.kept:
                block.since = self._latest
            block.filled = place + n
            if block.is_full:
                self._cond.notify_all()
            done += n

    def _block_with_room(self) -> Block:
        block = self.blocks[-1] if self.blocks else None
        if block is None or block.is_full:
            self._wait(lambda: not self._memory_is_full(), "append")
            counts = self._spare.pop() if self._spare else np.empty((self._stride, *self.frame_shape), self.dtype)
            block = Block(len(self.blocks), counts, time.monotonic())
            if not self.blocks:
                self._began = block.since
            self.blocks.append(block)
            self._start()
        return block

    def _repeats_last(self, frame: AnyArray) -> bool:
        """Return True if a frame equals the last one; False if the last one is no longer in memory."""
        block = self._last_block()
        counts = None if block is None else block.counts
        return block is not None and counts is not None and np.array_equal(counts[block.filled - 1], frame)

    def _limits(self) -> tuple[float, float] | None:
        """Return the lowest and highest count that the movie can store, or None if it can store every value.

        The limits are a guess until the noise is known.
        """
        if not self.setup.options.rounds or (self.dtype.kind != "f" and self.dtype.itemsize <= 2):
            return None
        values = self._journal.values
        if values is not None:
            return values.low, values.high
        signed = self.dtype.kind == "i" or self.setup.calibration is not None
        top = highest(self.dtype)
        return (-min(top, _LOWEST) if signed else 0.0), top

    def _wait(self, until: Callable[[], bool], who: str) -> None:
        """Wait for a condition, restarting the thread if it died.

        Raises StorageError when the store has failed for longer than ``patience_seconds``. Appends keep waiting while
        frames can be spilled.
        """
        said = time.monotonic()
        while not until():
            if who != "append" or not self._spills:
                self._raise_failure()
            self._start()
            self._cond.notify_all()
            self._cond.wait(0.1)
            if time.monotonic() - said > MESSAGE:
                said = time.monotonic()
                LOG.warning("%s waits: %s", who, self.status())

    def _raise_failure(self) -> None:
        """Raise a permanent failure, or StorageError if the store has failed for longer than ``patience_seconds``."""
        if self.failure is not None:
            raise self.failure
        trouble = self._trouble
        if trouble is not None and time.monotonic() - self._patient_since > self.setup.patience_seconds:
            waiting = in_seconds(self.frames - self.stored, self.rate)
            raise StorageError(
                f"the store has failed for {time.monotonic() - trouble[1]:.0f} s: {trouble[0]}. {waiting} are kept in "
                "memory: repair the store, then call retry() or close() again"
            ) from trouble[0]

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise InvalidMovieError(
                f"this PhotonWriter belongs to process {self._pid} and was inherited by process {os.getpid()}: create "
                "one in the process that appends frames"
            )

    def warn_now(self) -> None:
        """Issue the queued warnings."""
        while self._messages:
            text, category = self._messages.popleft()
            warn(f"{text} ({self.location.label})" if category is AcquisitionWarning else text, category)

    def flush(self) -> None:
        """Store all frames, and wait; stores that cannot delete take full blocks only."""
        self._require_own_process()
        wanted = self.frames if self._target.keeps_journal else 0
        with self._cond:
            self._flush_now, self._next_attempt = True, 0.0
            self._wait(lambda: self.stored >= wanted, "flush")
        self.warn_now()

    def retry(self) -> None:
        """Retry the store at once, and restart the patience."""
        with self._cond:
            self.failure, self._pause, self._next_attempt = None, FIRST_PAUSE, 0.0
            self._patient_since = time.monotonic()
            self._start()
            self._cond.notify_all()

    def finish(self) -> dict[str, Json]:
        """Store the remaining frames and the metadata, and return the documents.

        Raises StorageError when the store has failed for longer than ``patience_seconds``. Can be called again after
        any failure.
        """
        self._require_own_process()
        with self._cond:
            self._closing = True
            self.retry()  # retry even if patience has run out
            try:
                self._wait(lambda: self.documents is not None, "close")
            finally:
                self._halt()
        self.warn_now()
        assert self.documents is not None
        return self.documents

    def check(self) -> None:
        """Read every block back; raise StorageError if one differs from what was written."""
        assert self._plan is not None
        reader = ChunkReader(self._plan.metadata, ProcessStore(self.location))
        for block in self.blocks:
            assert block.written is not None
            check_block(reader, block.index, block.written)

    def _start(self) -> None:
        if self.failure is None and (self._thread is None or not self._thread.is_alive()):
            self._halted = False
            self._thread = threading.Thread(target=self._run, name="PhotonWriter", daemon=True)
            self._thread.start()

    def _halt(self) -> None:
        """Stop the thread after its current writes, so that nothing reaches the store afterwards."""
        self._halted = True
        self._cond.notify_all()
        thread, waited = self._thread, 0.0
        self._cond.release()
        try:
            while thread is not None and thread.is_alive():
                thread.join(MESSAGE)
                waited += MESSAGE
                if thread.is_alive():
                    LOG.warning("%s: waiting %.0f s for what is being written", self.location.label, waited)
        finally:
            self._cond.acquire()

    def clean(self) -> None:
        """Remove objects that only an unfinished movie needs."""
        keys = [key for block in self.blocks for location, key in block.places if location == self.location]
        if not self._writer.has_shards:
            keys += [head_key(block.first_frame) for block in self.blocks]
        keys = [*dict.fromkeys(keys + self._left), JOURNAL] if self._target.keeps_journal else []
        left = remove_each(self._target, keys)
        if left:
            self._warn_later(
                f"{len(left)} objects could not be removed, and do no harm: {', '.join(left[:20])}. Remove them once "
                "you have permission"
            )
        self.warn_now()
