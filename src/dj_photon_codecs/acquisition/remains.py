"""Read and check the stored parts of an unfinished movie, and finish it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .._typing import AnyArray, Json
from .._warn import warn
from .._zarr import ArrayMetadata, submit
from ..calibration import calibrate
from ..errors import AcquisitionWarning, ConfigurationError, DamagedChunkError, FormatError
from ..handle import PhotonArray, open_array
from ..options import LOSSLESS, WriteOptions, profile_named
from ..storage.beside import Beside, put_beside
from ..storage.chunks import ChunkReader
from ..storage.claim import CLAIM, Claim, read_claim
from ..storage.documents import JOURNAL
from ..storage.encoding import plan_encoding
from ..storage.journal import KEPT, Head, Journal, block_index, head_key, read_head, read_journal
from ..storage.layout import joined_runs
from ..storage.location import Location, ProcessStore
from ..storage.object_writer import ObjectWriter, Written
from ..storage.plan import finished_documents
from ..storage.target import Target
from ..storage.writer import put_documents
from .blocks import facts_of, info_of
from .frame_data import packed_frame_data
from .planning import LOG, Setup, highest
from .recorder import Recorder
from .status import Recovery, Runs
from .store import ATTEMPTS, DurableTarget, check_block, get_frames, remove_each, stored_block


def refuse_living(location: Location, claim: Claim | None) -> None:
    """Raise FormatError if the writer of the movie is still running."""
    if claim is not None and not claim.is_stale:
        raise FormatError(
            f"the movie at {location.label} is being acquired by {claim}: it can be recovered once its writer has "
            f"ended. If it has, break_claim({location.label!r}) removes the claim and keeps the acquired frames"
        )


class Claimed:
    """Context manager that gives this process the exclusive claim to recover a movie, if the store supports claims."""

    def __init__(self, location: Location) -> None:
        self.location, self.target = location, DurableTarget(location)

    def _claim(self) -> Claim | None:
        return submit(read_claim(self.location)).result() if self.target.keeps_journal else None

    def __enter__(self) -> Claimed:
        stale = self._claim()
        refuse_living(self.location, stale)
        if stale is not None:
            remove_each(self.target, [CLAIM])
        if self.target.keeps_journal:
            refuse_living(self.location, submit(self.target.claim()).result())
        self._ours = self._claim()
        return self

    def check(self) -> None:
        """Raise FormatError if another process took over the recovery."""
        if self._claim() != self._ours:
            raise FormatError(
                f"the movie at {self.location.label} is being recovered by another process: open it later"
            )

    def __exit__(self, *_: object) -> None:
        if self._claim() == self._ours:
            self.target.release()


class _Kept(NamedTuple):
    """An intact frame object."""

    head: Head
    location: Location
    key: str


@dataclass(frozen=True)
class _StoredBlock:
    """A block in the store: checksums of its chunks, its head, and frame objects that hold frames of it.

    ``blank`` lists lost frames in chunks that were written without them.
    """

    index: int
    n_frames: int
    written: Written
    head: Head | None
    kept: list[_Kept]
    blank: Runs = ()


def journal_of_blocks(location: Location, keys: list[str]) -> Journal | None:
    """Return the latest journal in a block or a frame object, or None."""
    for key in sorted(keys, key=lambda key: (block_index(key) or 0, key), reverse=True):
        if block_index(key) is not None or key.startswith(KEPT):
            try:
                return Journal.from_dict(submit(read_head(location, key)).result().journal, f"the head of {key!r}")
            except (DamagedChunkError, FormatError):
                continue
    return None


class Remains:
    """The checked contents of an unfinished movie."""

    def __init__(self, location: Location, spilled: Any) -> None:
        self.location = location
        self._keys = submit(Target(location).keys()).result()
        journal, problem = None, "it has no journal"
        try:
            journal = submit(read_journal(location)).result()
        except FormatError as error:
            problem = str(error)
        if journal is None or journal.metadata is None:
            journal = journal_of_blocks(location, self._keys) or journal
        folders = [folder for folder in (spilled, None if journal is None else journal.spill) if folder is not None]
        objects = [*_frames_in(location), *(found for folder in folders for found in _spilled_in(folder))]
        if journal is None and len({kept.head.journal.get("token") for kept in objects}) == 1:
            journal = Journal.from_dict(objects[0].head.journal, f"the head of {objects[0].key!r}")
        if journal is None:
            raise FormatError(
                f"there is nothing to recover at {location.label}: {problem}, and no block describes the movie, or "
                "blocks describe several movies"
            )
        self.journal = journal
        ours = [kept for kept in objects if kept.head.journal.get("token") == journal.token]
        ours.sort(key=lambda kept: (kept.head.first_frame, kept.head.n_frames))
        #: Frame objects in time order; only the longest of those that start at the same frame.
        self.frames = list({kept.head.first_frame: kept for kept in ours}.values())
        self.blocks = [] if journal.metadata is None else self._read_blocks(journal.metadata)

    def _read_blocks(self, metadata: ArrayMetadata) -> list[_StoredBlock]:
        self.reader = ChunkReader(metadata, ProcessStore(self.location))
        self._stride = self.reader.grid.stored[0]
        places = [index for key in self._keys if (index := block_index(key)) is not None]
        n_blocks = 1 + max([*places, *(kept.head.first_frame // self._stride for kept in self.frames)], default=-1)
        blocks = [self._read_block(index) for index in range(n_blocks)]
        while blocks and not blocks[-1].kept and not blocks[-1].written.checksums.any():
            blocks.pop()  # frames lost at the end were never part of the movie
        return [*blocks[:-1], self._ended(blocks[-1])] if blocks else []

    def _read_block(self, index: int) -> _StoredBlock:
        kept = [kept for kept in self.frames if kept.head.first_frame // self._stride == index]
        written = stored_block(self.reader, index)
        return _StoredBlock(index, self._stride, written, self._head(index), kept)

    def _head(self, index: int) -> Head | None:
        """Return the head of a block, or None if it has none that belongs to this movie."""
        place = (index, *(0,) * (len(self.reader.grid.shape) - 1))
        sharded = self.reader.format.index is not None
        try:
            head = submit(
                read_head(self.location, self.reader.key(place) if sharded else head_key(index * self._stride))
            ).result()
        except DamagedChunkError:
            return None
        ours = head.journal.get("token") == self.journal.token
        return head if ours and head.first_frame == index * self._stride and head.n_frames <= self._stride else None

    def _ended(self, block: _StoredBlock) -> _StoredBlock:
        """Set the length of the last block: from its head, or else as many frames as its chunks can hold."""
        checksums, per_chunk = block.written.checksums, self.reader.grid.chunk[0]
        there = np.flatnonzero(checksums.reshape(len(checksums), -1).any(axis=1))
        n_frames = max(0, _end_of(block.kept) - block.index * self._stride)
        if len(there):
            in_chunks = int(there[-1] + 1) * per_chunk
            n_frames = max(n_frames, in_chunks if block.head is None else block.head.n_frames)
        return replace(
            block, n_frames=n_frames, written=replace(block.written, checksums=checksums[: -(-n_frames // per_chunk)])
        )

    def _bad(self, block: _StoredBlock) -> tuple[AnyArray, AnyArray]:
        """Return masks of the frames in damaged chunks, and of those that no frame object has either."""
        checksums = block.written.checksums
        rows = (checksums.reshape(len(checksums), -1) == 0).any(axis=1)
        bad = np.repeat(rows, self.reader.grid.chunk[0])[: block.n_frames]
        if block.head is not None:
            bad[block.head.n_frames :] = True
        return bad, bad & _uncovered(block.kept, block.index * self._stride, block.n_frames)

    def plan(self) -> Recovery:
        """Describe the movie that can be recovered; raise FormatError if no frame can be."""
        if self.journal.metadata is None:
            n_frames = _end_of(self.frames)
            lost = _runs(_uncovered(self.frames, 0, n_frames))
        else:
            n_frames = sum(block.n_frames for block in self.blocks)
            found = [_runs(self._bad(block)[1], block.index * self._stride) + block.blank for block in self.blocks]
            lost = joined_runs(run for runs in found for run in runs)
        if not n_frames:
            raise FormatError(
                f"the unfinished movie at {self.location.label} has no intact chunk of frames: nothing can be "
                "recovered. It is left unchanged"
            )
        seconds = _latest(self.frames, [block.head for block in self.blocks])
        return Recovery(self.location.label, n_frames, lost, seconds)

    def finish(self, claimed: Claimed) -> PhotonArray:
        """Write the missing parts and the metadata, and open the movie."""
        n_frames = self.plan().n_frames
        journal, target = self.journal, claimed.target
        self._used: set[str] = set()
        if journal.metadata is None or journal.record is None:
            documents = self._record_anew(claimed, n_frames)
        else:
            found = [(block, *self._bad(block)) for block in self.blocks]
            self.blocks = [self._rewritten(target, b) if (bad & ~lost).any() else b for b, bad, lost in found]
            record = replace(journal.record, lost=joined_runs(run for block in self.blocks for run in block.blank))
            written = [block.written for block in self.blocks]
            documents = finished_documents(journal.metadata, record, n_frames, written)
            parts = [(b.index * self._stride, b.n_frames, b.head.info if b.head else {}) for b in self.blocks]
            claimed.check()
            documents = put_beside(target, documents, Beside(packed_frame_data(parts, {}, []), journal.attributes))
            put_documents(target, documents)
            whole = [block for block in self.blocks if not self._bad(block)[0].any()]
            self._used |= {kept.key for block in whole for kept in block.kept if kept.location == self.location}
        # Objects that the movie has a verified copy of, and the journal unless recover_row may still need it.
        done = [*self._used, *(key for key in self._keys if key.startswith(KEPT) and key.endswith(".head"))]
        left = remove_each(target, done + ([JOURNAL] if JOURNAL in self._keys and not journal.row else []))
        if left:
            warn(
                f"{len(left)} objects of {self.location.label} could not be removed, and do no harm: "
                f"{', '.join(left[:20])}",
                AcquisitionWarning,
            )
        return open_array(self.location, documents)

    def _gathered(
        self, objects: list[_Kept], first: int, n_frames: int, fill: float
    ) -> tuple[AnyArray, list[Json], AnyArray]:
        """Return frames from their objects, their metadata, and a mask of missing frames, which get the fill value."""
        dtype = np.dtype(self.journal.dtype)
        counts = np.full((n_frames, *self.journal.frame_shape), fill, dtype)
        facts: list[Json] = [{} for _ in range(n_frames)]
        missing = np.ones(n_frames, bool)
        for head, location, key in objects:
            for _ in range(ATTEMPTS):
                with suppress(DamagedChunkError):
                    start = head.first_frame - first
                    counts[start : start + head.n_frames] = get_frames(location, key)[1]
                    missing[start : start + head.n_frames] = False
                    facts[start : start + head.n_frames] = [facts_of(head.info, i) for i in range(head.n_frames)]
                    self._used |= {key} if location == self.location else set()
                    break
        return counts, facts, missing

    def _rewritten(self, target: DurableTarget, block: _StoredBlock) -> _StoredBlock:
        """Rewrite a block from frame objects and its intact chunks, and read it back."""
        metadata, record, values = self.journal.metadata, self.journal.record, self.journal.values
        assert metadata is not None
        assert record is not None
        assert values is not None
        first, grid = block.index * self._stride, self.reader.grid
        counts, facts, missing = self._gathered(block.kept, first, block.n_frames, values.high)
        if block.head is not None:
            old = range(min(block.n_frames, block.head.n_frames))
            facts[: len(old)] = [facts_of(block.head.info, i) | facts[i] for i in old]
        blank, gone = np.zeros(block.n_frames, bool), []
        for place in np.ndindex(*grid.objects[1:]):
            for coords, chunk in self.reader.read_object((block.index, *place)).items():
                start = grid.frames(coords)[0] - first
                inside = counts[(slice(start, start + grid.chunk[0]), *grid.region(coords)[1:])]
                needed = missing[start : start + grid.chunk[0]]
                if not needed.any():
                    continue
                if not isinstance(chunk, Exception):
                    inside[needed] = chunk[tuple(map(slice, inside.shape))][needed]
                elif needed.all():  # the whole chunk is lost: reading it raises
                    gone.append((coords[0] - block.index * grid.per_object[0], *coords[1:]))
                else:  # the chunk is written with the frames that were found
                    blank[start : start + grid.chunk[0]] |= needed
        seconds = _latest(block.kept, [block.head])
        head = Head(first, block.n_frames, info_of(facts), self.journal.to_dict(), seconds=seconds)
        encoding = plan_encoding(
            profile_named(record.profile), counts.dtype, values, record.calibration, record.step, metadata.zarr_format
        )
        writer = ObjectWriter(metadata, encoding, target)
        content = head.to_bytes() if writer.has_shards else b""
        written = submit(writer.write_block(counts, block.index, head=content)).result()
        check_block(self.reader, block.index, written)
        for coords in gone:
            written.checksums[coords] = 0
        return replace(block, written=written, head=head, blank=_runs(blank, first), kept=[])

    def _record_anew(self, claimed: Claimed, n_frames: int) -> dict[str, Json]:
        """Record the frames of a movie that had no noise model yet, as its writer would have."""
        journal, dtype = self.journal, np.dtype(self.journal.dtype)
        fill = highest(dtype) if dtype.kind == "f" else min(highest(dtype), np.iinfo(dtype.name).max)
        counts, facts, missing = self._gathered(self.frames, 0, n_frames, fill)
        options = WriteOptions.of_journal(journal.options)
        given: Json = {"backlog_bytes": 2 * counts.nbytes, "flush_seconds": None, "patience_seconds": 60.0}
        given |= {"row": journal.row, "attributes": journal.attributes}
        try:
            setup = Setup(options, **given)
        except ConfigurationError as error:  # a codec is not installed on this machine
            LOG.warning("%s: the compressor is chosen by trial (%s)", self.location.label, error)
            setup = Setup(replace(options, compressors=None), **given)
        if missing.any() and setup.options.rounds:  # lost frames must not count as noise
            noise = calibrate(counts[~missing])
            unknown = noise.verdict == "unknown"
            lossless = replace(setup.options, profile=LOSSLESS.name)
            setup = replace(setup, options=lossless) if unknown else replace(setup, calibration=noise)
        recorder = Recorder(self.location, None, journal.frame_shape, dtype, setup)
        recorder.lost = _runs(missing)
        recorder.adopt(counts, info_of(facts))
        claimed.check()
        documents = recorder.finish()
        recorder.check()
        return documents


def _end_of(objects: list[_Kept]) -> int:
    return max((kept.head.first_frame + kept.head.n_frames for kept in objects), default=0)


def _latest(objects: list[_Kept], heads: list[Head | None]) -> float | None:
    found = [kept.head.seconds for kept in objects] + [head.seconds for head in heads if head is not None]
    return max((seconds for seconds in found if seconds is not None), default=None)


def _frames_in(location: Location) -> list[_Kept]:
    """Find the intact frame objects at a location; their frames are not kept in memory."""
    found = []
    for key in sorted(submit(Target(location).keys()).result()):
        if key.startswith(KEPT) and key.endswith(".frames"):
            for _ in range(ATTEMPTS):
                with suppress(DamagedChunkError):
                    found.append(_Kept(get_frames(location, key)[0], location, key))
                    break
    return found


def _spilled_in(folder: Any) -> list[_Kept]:
    """Find the intact frame objects in a spill folder and its subfolders."""
    found: list[_Kept] = []
    if os.path.isdir(folder):
        within = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        for path in (folder, *within):
            if os.path.isdir(os.path.join(path, KEPT)):
                found += _frames_in(Location.of(path))
    return found


def _uncovered(objects: list[_Kept], first: int, n_frames: int) -> AnyArray:
    uncovered = np.ones(n_frames, bool)
    for head, *_ in objects:
        uncovered[max(0, head.first_frame - first) : max(0, head.first_frame - first + head.n_frames)] = False
    return uncovered


def _runs(mask: AnyArray, first: int = 0) -> Runs:
    return joined_runs((first + int(place), first + int(place) + 1) for place in np.flatnonzero(mask))
