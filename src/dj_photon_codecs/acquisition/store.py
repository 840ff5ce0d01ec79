"""Durable writes, frame objects (raw frames stored until their block is full), and read-back checks of blocks."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from .._typing import AnyArray
from .._zarr import Buffer, buffer_of, submit
from ..errors import DamagedChunkError, StorageError
from ..storage.chunks import ChunkReader
from ..storage.documents import read_object
from ..storage.journal import Head, frames_key, read_head
from ..storage.location import Location
from ..storage.object_writer import Written
from ..storage.plan import Plan
from ..storage.readback import ReadBackError, check_first_object
from ..storage.target import Target

#: Number of reads before a chunk counts as lost, because stores sometimes return truncated responses.
ATTEMPTS = 3


class DurableTarget(Target):
    """A target that syncs local files to disk before a write returns."""

    def __init__(self, location: Location, *, sync: bool = True) -> None:
        super().__init__(location)
        self._sync = sync and location.is_local
        self._synced: set[Path] = set()

    async def put(self, key: str, content: Buffer) -> None:
        """Write one object; raise StorageError if the store fails."""
        await super().put(key, content)
        if self._sync:
            with self.location.errors_named(f"object {key!r} of {self.location.label} could not be written to disk"):
                await asyncio.to_thread(self._flush, key)

    def _flush(self, key: str) -> None:
        path, root = Path(self.location.root, key), Path(self.location.root)
        _fsync(path)
        for folder in path.parents:
            # a new folder is an entry in its parent, so its parent is synced too, up to the parent of the movie
            known = folder in self._synced
            with suppress(OSError):  # some systems cannot open folders
                _fsync(folder)
            self._synced.add(folder)
            if known or folder == root.parent:
                break


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_frames(target: Target, head: Head, counts: AnyArray) -> str:
    """Write a frame object and return its key; raise StorageError if the store fails."""
    counts = np.ascontiguousarray(counts, counts.dtype.newbyteorder("<"))
    content = b"".join([head.to_bytes(counts), counts.data])
    key = frames_key(head.first_frame)
    submit(target.put(key, buffer_of(content))).result()
    return key


def get_frames(location: Location, key: str) -> tuple[Head, AnyArray]:
    """Read a frame object.

    Raises DamagedChunkError if it is missing or altered, and StorageError if the store cannot be read.
    """
    where = f"object {key!r} of {location.label}"
    content = submit(read_object(location, key)).result()
    if content is None:
        raise DamagedChunkError(f"{where} is missing")
    head = Head.of(content, where)
    return head, head.counts(content, where)


def stored_block(reader: ChunkReader, index: int) -> Written:
    """Read a block from the store, and return its size and the checksums of its chunks (0 if not intact)."""
    grid = reader.grid
    checksums, total = np.zeros((grid.per_object[0], *grid.chunks[1:]), np.uint32), 0
    for place in np.ndindex(*grid.objects[1:]):
        size, found = reader.object_checksums((index, *place))
        for _ in range(ATTEMPTS - 1):
            bad = [coords for coords, checksum in found.items() if isinstance(checksum, Exception)]
            if bad:
                _, again = reader.object_checksums((index, *place))
                found |= {coords: again[coords] for coords in bad}
        total += size
        for coords, checksum in found.items():
            if not isinstance(checksum, Exception):
                checksums[(coords[0] - index * grid.per_object[0], *coords[1:])] = checksum
    return Written(total, checksums)


def check_block(reader: ChunkReader, index: int, written: Written) -> None:
    """Read a block back; raise StorageError if it differs from what was written."""
    found = stored_block(reader, index)
    if (found.checksums[: len(written.checksums)] != written.checksums).any():
        raise StorageError(f"block {index} of {reader.store.location.label} does not read back as it was written")


async def check_first(location: Location, plan: Plan, counts: AnyArray, *, headed: bool) -> None:
    """Read back the first block of a movie, and its head if it has one.

    Raises ReadBackError if it differs from what was written, and StorageError if the store cannot be read.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            await check_first_object(location, plan.metadata, plan.encoding, counts)
            if headed:
                await read_head(location, plan.metadata.encode_chunk_key((0,) * counts.ndim))
            return
        except ReadBackError:
            if not left:
                raise
        except DamagedChunkError as error:
            if not left:
                raise ReadBackError(f"the first block does not read back as it was written: {error}") from error


def remove_each(target: Target, keys: list[str]) -> list[str]:
    """Remove objects until one cannot be removed; return the keys that are left."""
    for position, key in enumerate(keys):
        try:
            submit(target.remove(key)).result()
        except StorageError:
            return keys[position:]
    return []
