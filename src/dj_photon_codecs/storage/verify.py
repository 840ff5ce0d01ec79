"""Verify that every chunk of a stored movie is present and unaltered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._arguments import brief_repr
from .._zarr import ArrayMetadata, all_codecs
from ..errors import DamagedChunkError, MissingChunkError
from .chunks import ChunkReader
from .layout import Coords, joined_runs
from .progress import progress_bar
from .record import ATTRIBUTE, MovieRecord


@dataclass(frozen=True)
class ChunkProblem:
    """One chunk that cannot be read.

    Attributes
    ----------
    chunk
        Coordinates in the grid of inner chunks.
    frames
        First and last frame (exclusive) of the chunk, which may cover only a part of the image.
    object_key
        Key of the object that contains the chunk.
    message
        What is wrong.
    """

    chunk: Coords
    frames: tuple[int, int]
    object_key: str
    message: str


@dataclass(frozen=True)
class VerificationReport:
    """Result of :meth:`PhotonArray.verify`; true in a condition if :attr:`ok` is.

    Attributes
    ----------
    n_chunks
        Number of chunks that were read.
    missing, damaged
        Chunks that are missing, and chunks that are altered or are not the ones that were written.
    metadata
        One sentence for each problem of the metadata documents in the store, and for each difference from those that
        the handle was made from.
    unidentified
        Why the chunks were only checked to be intact, not to be the ones that were written; None if both were
        checked. If the record should exist but does not, ``metadata`` reports that too.
    """

    n_chunks: int
    missing: tuple[ChunkProblem, ...] = ()
    damaged: tuple[ChunkProblem, ...] = ()
    metadata: tuple[str, ...] = ()
    unidentified: str | None = None

    __repr__ = brief_repr

    @property
    def ok(self) -> bool:
        """Whether every chunk and the metadata are present and unaltered."""
        return not (self.missing or self.damaged or self.metadata)

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """Runs of frames (first, last exclusive) that are at least partly unreadable, in order of time."""
        return joined_runs(problem.frames for problem in (*self.missing, *self.damaged))

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok and self.unidentified:
            return f"all {self.n_chunks} chunks are there and can be decoded; {self.unidentified}"
        if self.ok:
            return f"all {self.n_chunks} chunks are there and unaltered"
        lines = [f"{len(self.missing)} missing and {len(self.damaged)} damaged of {self.n_chunks} chunks:"]
        lines += [problem.message for problem in (*self.missing, *self.damaged)]
        return "\n".join([*lines, *self.metadata])


def identity_problem(
    record: MovieRecord | None, metadata: ArrayMetadata, where: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return why the identity of chunks cannot be checked, and the resulting metadata problems.

    Arrays of other programs have no record. Arrays of this package have one and end each chunk in a crc32c, which is
    rare elsewhere.
    """
    if record is not None and record.checksums is not None and record.digest is not None:
        return None, ()
    if record is not None:
        names = " and ".join(name for name in ("checksums", "digest") if getattr(record, name) is None)
        return "identity not checked", (f"no {names} in the record of {where}: identity not checked",)
    last = [codec.to_dict() if hasattr(codec, "to_dict") else codec.get_config() for codec in all_codecs(metadata)][-1:]
    if not any(name in str(document) for document in last for name in ("crc32c", "dj_photon_codecs.")):
        return "no record: identity not checked", ()
    return "no record: identity not checked", (
        f"no record: identity not checked. This package wrote one into the attributes of {where} (key {ATTRIBUTE!r}): "
        "restore them from a copy, or verify a handle fetched from the database, whose row has it",
    )


def verify_chunks(reader: ChunkReader, *, progress: bool | None = None) -> VerificationReport:
    """Read and decode every chunk of an array, with one object in memory at a time.

    Raises StorageError if the store cannot be reached, because the state of the chunks is then unknown.
    """
    grid = reader.grid
    n_chunks = 0
    missing, damaged = [], []
    with progress_bar("verifying", math.prod(grid.objects), "object", progress) as advance:
        for stored in grid.all_objects():
            for coords, result in reader.read_object(stored).items():
                n_chunks += 1
                for place in np.flatnonzero(reader.lost_in(coords)) if reader.lost else ():
                    frame = grid.frames(coords)[0] + int(place)
                    message = f"frame {frame} of chunk {coords} was lost before it was stored"
                    missing.append(ChunkProblem(coords, (frame, frame + 1), reader.key(stored), message))
                if isinstance(result, Exception):
                    problem = ChunkProblem(coords, grid.frames(coords), reader.key(stored), str(result))
                    if isinstance(result, MissingChunkError):
                        missing.append(problem)
                    elif isinstance(result, DamagedChunkError):
                        damaged.append(problem)
            advance(1)
    return VerificationReport(n_chunks, tuple(missing), tuple(damaged))
