"""What bridges to files share: blocks of frames, and files that appear when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .._system import remove_folder, rename, unlink
from .._typing import AnyArray
from ..errors import OccupiedError
from ..handle import PhotonArray


def frame_blocks(movie: PhotonArray, plane: tuple[int, ...] = ()) -> Iterator[tuple[int, AnyArray]]:
    """Yield the index of the first frame, and frames: those of one object of the store at a time.

    With ``plane``, an index along the axes between time and height, those of one plane.
    """
    length = int((movie.shards or movie.chunks)[0])
    for start in range(0, len(movie), length):
        yield start, np.asarray(movie[(slice(start, start + length), *plane)])


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or folder to, which gets its name when it is complete and is removed on failure."""
    if target.exists():
        raise OccupiedError(f"{target} exists: choose another path, or remove it")
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")  # some libraries look at the ending
    try:
        yield partial
        rename(partial, target)
    except BaseException:
        if partial.is_dir():
            remove_folder(partial)
        unlink(partial)
        for folder in missing:
            with suppress(OSError):  # something else is in it by now
                folder.rmdir()
        raise
