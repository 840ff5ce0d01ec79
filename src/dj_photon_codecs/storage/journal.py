"""The journal of a movie that is being acquired: what its finished blocks are read by, should it never be finished.

Specified in ``docs/spec/layout.md``.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from .._zarr import ArrayMetadata, metadata_documents, parse_metadata
from ..errors import DamagedChunkError, FormatError, MissingChunkError
from .chunks import ChunkReader
from .documents import read_object
from .grid import Coords
from .layout import ENDLESS
from .limits import check_metadata
from .location import Location, ProcessStore
from .objects import Written
from .record import MovieRecord
from .target import Target

#: Its key, beside where the metadata document will be.
JOURNAL = "acquisition.json"

#: Version of what it holds. Readers refuse newer ones.
_VERSION = 1


async def write_journal(target: Target, metadata: ArrayMetadata, record: MovieRecord) -> None:
    """Write the journal of a movie of which nothing is written yet."""
    nothing = replace(metadata, shape=(0, *metadata.shape[1:]))
    document = {"format_version": _VERSION, "zarr": metadata_documents(nothing), "record": record.to_dict()}
    await target.put_json(JOURNAL, document)


async def remove_journal(target: Target) -> None:
    """Remove the journal of a movie that is finished."""
    await target.remove(JOURNAL)


async def read_journal(location: Location) -> tuple[ArrayMetadata, MovieRecord] | None:
    """The metadata, of a length beyond any, and the record of an unfinished movie; None where there is no journal.

    Raises
    ------
    FormatError
        For a journal that is damaged, or of a newer version.
    StorageError
        When the store cannot be read.
    """
    where = f"the journal {JOURNAL!r} of {location.label}"
    content = await read_object(location, JOURNAL)
    if content is None:
        return None
    try:
        document = json.loads(content)
        version, documents, record = document["format_version"], document["zarr"], document["record"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise FormatError(f"{where} is damaged ({type(error).__name__}: {error})") from error
    if version != _VERSION:
        raise FormatError(f"{where} has version {version!r}, this release reads {_VERSION}: upgrade dj-photon-codecs")
    metadata = parse_metadata(documents)
    found = MovieRecord.from_dict(record, where)
    check_metadata(metadata, found, location.label)
    return replace(metadata, shape=(ENDLESS, *metadata.shape[1:])), found


async def recover_blocks(target: Target, metadata: ArrayMetadata) -> tuple[int, list[Written]]:
    """The full blocks of an unfinished movie, from its first frame to the first gap, each checked; the rest is removed.

    Returns
    -------
    frames
        In a block.
    written
        The blocks.

    Raises
    ------
    StorageError
        When the store cannot be read.
    """
    reader = ChunkReader(metadata, ProcessStore(target.location))
    written: list[Written] = []
    while (block := await _block(reader, len(written))) is not None:
        written.append(block)
    kept = {reader.key(stored) for index in range(len(written)) for stored in _objects(reader, index)}
    for key in await target.keys():
        if key != JOURNAL and key not in kept:
            await target.remove(key)
    return reader.grid.stored[0], written


def _objects(reader: ChunkReader, time_index: int) -> list[Coords]:
    return [(time_index, *place) for place in np.ndindex(*reader.grid.objects[1:])]


async def _block(reader: ChunkReader, time_index: int) -> Written | None:
    """What is known of a block that is there, whole and full; None otherwise."""
    grid = reader.grid
    checksums = np.zeros((grid.per_object[0], *grid.chunks[1:]), np.uint32)
    total = 0
    for stored in _objects(reader, time_index):
        try:
            size, found = await reader.object_checksums(stored)
        except (MissingChunkError, DamagedChunkError):
            return None
        total += size
        for coords, checksum in found.items():
            checksums[(coords[0] - time_index * grid.per_object[0], *coords[1:])] = checksum
    return Written(total, checksums)
