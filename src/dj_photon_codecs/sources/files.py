"""Movies in files: a path in, a lazy array with axes (time, ..., height, width) out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError, SourceNotFoundError


@dataclass(eq=False)
class FileMovie:
    """A movie in one file or several, read when it is indexed; made by :func:`open_source`.

    Insert it in place of an array. Close it, or use it in a ``with`` block, to let go of its files.

    Attributes
    ----------
    path
        What was opened: a path or a glob.
    shape
        (time, ..., height, width).
    dtype
        Of the counts, as in the file.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _read: Callable[[int, int], AnyArray] = field(repr=False)
    _close: Callable[[], None] = field(repr=False, default=lambda: None)

    def __getitem__(self, selection: Any) -> AnyArray:
        """Counts: a frame for an integer; for a slice of frames, an array."""
        if isinstance(selection, slice):
            start, stop, step = selection.indices(self.shape[0])
            if step == 1:
                return self._read(start, max(start, stop))
        raise IndexError(f"a movie in a file is indexed by a slice of frames, got {selection!r}")

    def close(self) -> None:
        """Let go of the files."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def open_source(path: str | os.PathLike[str], *, channel: int | None = None, planes: Any = None) -> FileMovie:
    """Open a movie in the files of acquisition software, without reading its frames.

    Parameters
    ----------
    path
        A file, a folder, or a glob over the files of one recording.
    channel
        Which channel, from 0; needed where a file has several.
    planes
        Which planes of a volume; all by default.

    Raises
    ------
    SourceNotFoundError
        When there is no such file.
    SourceError
        For files of no known kind.
    """
    name = os.fspath(path)
    if not Path(name).exists():
        raise SourceNotFoundError(
            f"a photon movie must be an array, got {type(path).__name__} {name!r}, which is no file or folder either"
        )
    if not name.endswith(".npy"):
        raise SourceError(f"{name} is of no kind that is read here: .npy")
    counts = np.load(name, mmap_mode="r")
    return FileMovie(name, counts.shape, counts.dtype, lambda start, stop: counts[start:stop])
