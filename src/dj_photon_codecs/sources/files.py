"""Movies in files: a path in, a lazy array with axes (time, ..., height, width) out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any, Self

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError
from .paths import find, shown
from .stack import Options, Selection, Stack, closed_on_error, errors_named, selected

#: By kind of file: the module that reads it, and which options it has a use for.
_READERS = {
    "TIFF": ("tiff", ("axes", "shape")),
    "HDF5": ("hdf5", ("dataset", "axes")),
    "Zarr": ("zarr_files", ("dataset", "axes")),
    "NPY": ("raw", ("axes",)),
    "headerless": ("raw", ("axes", "shape", "dtype", "offset")),
    "Suite2p": ("suite2p", ()),
    "video": ("video", ()),
}


#: What a forked process has from its parent, kept: letting go of it would wait for threads that are not here.
_INHERITED: list[Stack] = []


class FileMovie:
    """A movie in one file or several, read when it is indexed; made by :func:`open_source`.

    Insert it in place of an array. Close it, or use it in a ``with`` block, to let go of its files. It pickles as its
    path and options, and opens its files anew in every process.

    Attributes
    ----------
    path
        What was opened: a path, a glob or a URL.
    axes
        The names of the axes: ``("time", "height", "width")``, with ``"plane"`` behind the time of a volume.
    shape
        (time, ..., height, width).
    dtype
        Of the counts, as in the file, in native byte order.
    """

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self._options = options
        self._opened: tuple[int, Stack, Selection, threading.Lock] | None = None
        selection = self._open()[1]
        self.axes, self.shape, self.dtype = selection.axes, selection.shape, selection.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> AnyArray:
        """Counts, indexed as a numpy array is, with an integer or a slice for the time."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            start, stop, step = first.indices(self.shape[0])
            if step == 1:
                counts = self._read(start, max(start, stop))
            else:  # what lies between is not read
                numbers = range(start, stop, step)
                counts = np.empty((len(numbers), *self.shape[1:]), self.dtype)
                for place, number in enumerate(numbers):
                    counts[place] = self._read(number, number + 1)[0]
            return counts[(slice(None), *rest)] if rest else counts
        if isinstance(first, int | np.integer) and not isinstance(first, bool):
            number = int(first) + (self.shape[0] if first < 0 else 0)
            if not 0 <= number < self.shape[0]:
                raise IndexError(f"frame {first} of {shown(self.path)}, which has {self.shape[0]} frames")
            frame = self._read(number, number + 1)[0]
            return np.asarray(frame[tuple(rest)]) if rest else frame
        raise IndexError(f"a movie in a file is indexed by frames, an integer or a slice, first; got {key!r}")

    def __repr__(self) -> str:
        return f"<FileMovie {shown(self.path)!r} {dict(zip(self.axes, self.shape, strict=True))} {self.dtype}>"

    def _open(self) -> tuple[Stack, Selection, threading.Lock]:
        """The files, opened once per process: a child that was forked shares no position in a file with its parent."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            self.close()
            with errors_named(f"{shown(self.path)} cannot be opened"):
                stack = _stack(self.path, self._options)
            with closed_on_error(stack.close):
                selection = selected(stack, self._options.channel, self._options.planes)
            opened = self._opened = (os.getpid(), stack, selection, threading.Lock())
        return opened[1:]

    def _read(self, start: int, stop: int) -> AnyArray:
        """Frames, read by one thread at a time."""
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        _, selection, lock = self._open()
        with lock, errors_named(f"{shown(self.path)}: frames {start} to {stop - 1} cannot be read"):
            return selection.read(start, stop)

    def close(self) -> None:
        """Let go of the files; they are opened again when the movie is indexed."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()
        elif opened is not None:
            _INHERITED.append(opened[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_opened", None):
            self.close()

    def __reduce__(self) -> Any:
        return FileMovie, (self.path, self._options)


def open_source(
    path: str | os.PathLike[str],
    *,
    channel: int | None = None,
    planes: int | Iterable[int] | None = None,
    dataset: str | None = None,
    axes: str | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: Any = None,
    offset: int | None = None,
) -> FileMovie:
    """Open a movie in the files of acquisition software, without reading its frames.

    What a file is, its content says: TIFF (ScanImage, OME, ImageJ, plain), HDF5 and NWB, Zarr and OME-Zarr, Suite2p's
    binary, NPY, video; and with ``shape`` and ``dtype`` any binary without a header. The page "Files of acquisition
    software" of the documentation says what is known of each.

    Parameters
    ----------
    path
        A file, a folder, a glob over the files of one recording (taken in natural order, ``file_2`` before
        ``file_10``), or the URL of a Zarr array or group.
    channel
        Which channel, from 0; needed where there are several.
    planes
        Which planes of a volume: one (its axis is dropped), or several; all by default.
    dataset
        Which dataset of an HDF5 file, or array of a Zarr group; needed where there are several.
    axes
        The axes of the array as it lies in the file, one letter each: T (time), Z (plane), C (channel), Y (height),
        X (width). Where the file does not say, or is wrong. Without T, each file is one point in time.
    shape
        Of the array in a file without a header, or of the pages of a TIFF file with ``axes``; one length may be -1.
    dtype, offset
        Of a file without a header: the numpy dtype (with byte order, ``">i2"``), and where counts begin [bytes].

    Returns
    -------
    FileMovie
        With ``shape``, ``dtype`` and indexing along time.

    Raises
    ------
    SourceNotFoundError
        When there is no such file.
    SourceError
        For files of no known kind, truncated or damaged ones, and files that hold several movies of which none was
        named.
    ConfigurationError
        For options out of range, or without a meaning for such files.
    ImportError
        When the library that reads the format is not installed; the message names the extra that has it.

    Warns
    -----
    SourceWarning
        When the file holds less than it should, or counts that were altered before.
    """
    options = Options(
        channel,
        planes if planes is None or not isinstance(planes, Iterable) or isinstance(planes, str) else tuple(planes),
        dataset,
        axes,
        None if shape is None else tuple(shape),
        dtype,
        offset,
    )
    name = os.fspath(path)
    return FileMovie(name if "://" in name else os.path.abspath(os.path.expanduser(name)), options)


def _stack(path: str, options: Options) -> Stack:
    """Open what lies under a path with the reader for it."""
    found = find(path, headerless=options.dtype is not None)
    kind = found.kind
    if kind == "Suite2p" and options.shape is not None:
        kind, options = "headerless", replace(options, dtype=np.dtype(np.int16))
    module, useful = _READERS[kind]
    for name, value in asdict(options).items():
        if value is not None and name not in ("channel", "planes", *useful):
            raise ConfigurationError(f"{name}={value!r} has no meaning for {shown(path)}, {kind}: leave it out")
    stack: Stack = import_module(f".{module}", __package__).open_files(found.names, options)
    return stack
