"""Reading every chunk of a stored movie, to know that all of it is there and unaltered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._zarr import submit
from ..errors import DamagedChunkError, MissingChunkError
from .chunks import ChunkReader
from .grid import Coords
from .progress import progress_bar


@dataclass(frozen=True)
class ChunkProblem:
    """One chunk that cannot be read.

    Attributes
    ----------
    chunk
        Coordinates in the grid of inner chunks.
    frames
        First and last frame (exclusive) that it holds, of its part of the image.
    object_key
        Key of the object it is in.
    message
        What is wrong.
    """

    chunk: Coords
    frames: tuple[int, int]
    object_key: str
    message: str


@dataclass(frozen=True)
class VerificationReport:
    """What :meth:`PhotonArray.verify` found; true in a condition when every chunk reads well.

    Attributes
    ----------
    n_chunks
        Chunks that were read.
    missing, damaged
        Those that are not there, and those that are altered or are not the ones that were written.
    metadata
        What is wrong with the metadata documents in the store, and where they differ from what the handle was made
        from: a sentence each.
    """

    n_chunks: int
    missing: tuple[ChunkProblem, ...] = ()
    damaged: tuple[ChunkProblem, ...] = ()
    metadata: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every chunk is there and unaltered, and so is the metadata."""
        return not (self.missing or self.damaged or self.metadata)

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """Runs of frames (first, and last exclusive) of which at least a part cannot be read, in order of time."""
        runs: list[tuple[int, int]] = []
        for start, stop in sorted({problem.frames for problem in (*self.missing, *self.damaged)}):
            if runs and start <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(stop, runs[-1][1]))
            else:
                runs.append((start, stop))
        return tuple(runs)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"all {self.n_chunks} chunks are there and unaltered"
        lines = [f"{len(self.missing)} missing and {len(self.damaged)} damaged of {self.n_chunks} chunks:"]
        lines += [problem.message for problem in (*self.missing, *self.damaged)]
        return "\n".join([*lines, *self.metadata])


def verify_chunks(reader: ChunkReader, *, progress: bool | None = None) -> VerificationReport:
    """Read and decode every chunk of an array, one object in memory at a time.

    Raises
    ------
    StorageError
        When the store cannot be reached: that says nothing of the chunks.
    """
    grid = reader.grid
    n_chunks = 0
    missing, damaged = [], []
    with progress_bar("verifying", math.prod(grid.objects), "object", progress) as advance:
        for stored in grid.all_objects():
            for coords, result in submit(reader.read_object(stored)).result().items():
                n_chunks += 1
                if isinstance(result, Exception):
                    problem = ChunkProblem(coords, grid.frames(coords), reader.key(stored), str(result))
                    if isinstance(result, MissingChunkError):
                        missing.append(problem)
                    elif isinstance(result, DamagedChunkError):
                        damaged.append(problem)
            advance(1)
    return VerificationReport(n_chunks, tuple(missing), tuple(damaged))
