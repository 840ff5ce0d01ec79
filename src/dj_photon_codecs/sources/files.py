"""Open movie files as lazy arrays with axes (time, ..., height, width)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import PurePath
from typing import Any, Self, TypeGuard

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, MovieTypeError, SourceNotFoundError
from .axes import WORDS
from .formats import BY_NAME, COMMON
from .messages import shown
from .paths import find
from .stack import Options, Stack, closed_on_error, errors_named, selected

#: Stacks inherited by a forked process, kept alive: closing one would wait for threads that do not exist here.
_INHERITED: list[Stack] = []


class FileMovie:
    """A movie in one or several files, read when indexed; returned by :func:`open_source`.

    Insert it in place of an array. Close it, or use it in a ``with`` block, to close its files. It pickles as its path
    and options, and each process opens the files itself.

    Attributes
    ----------
    path
        Path, list of paths, glob or URL that was opened.
    axes
        Names of the axes: ``("time", "height", "width")``, with ``"plane"`` after the time for volumes.
    shape
        (time, ..., height, width).
    dtype
        Dtype of the counts in the file, in native byte order.
    format
        Format of the files, such as ``"TIFF"``.
    metadata
        Metadata of the recording with OME names and units: ``TimeIncrement`` [s], ``PhysicalSizeX``,
        ``PhysicalSizeY``, ``PhysicalSizeZ`` [µm], ``Channel``, ``AcquisitionDate``, ``DeltaT`` [s]. Stored with the
        movie.
    """

    def __init__(self, path: str | tuple[str, ...], options: Options) -> None:
        self.path, self._options = path, options
        self._opened: tuple[int, Stack, threading.Lock] | None = None
        stack = self._open()[0]
        self.axes = tuple(WORDS[letter] for letter in stack.axes)
        self.shape, self.dtype, self.format = stack.shape, stack.dtype, stack.format
        self.metadata = stack.metadata.document()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> AnyArray:
        """Read counts; index like a numpy array, with an integer or a slice for time."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            start, stop, step = first.indices(self.shape[0])
            if step == 1:
                counts = self._read(start, max(start, stop))
            else:  # skip the frames in between
                numbers = range(start, stop, step)
                counts = np.empty((len(numbers), *self.shape[1:]), self.dtype)
                for place, number in enumerate(numbers):
                    counts[place] = self._read(number, number + 1)[0]
            return counts[(slice(None), *rest)] if rest else counts
        if isinstance(first, int | np.integer) and not isinstance(first, bool):
            number = int(first) + (self.shape[0] if first < 0 else 0)
            if not 0 <= number < self.shape[0]:
                raise IndexError(f"there is no frame {first} in {shown(self.path)}, which has {self.shape[0]} frames")
            frame = self._read(number, number + 1)[0]
            return np.asarray(frame[tuple(rest)]) if rest else frame
        raise IndexError(f"a movie in a file is indexed by frames, an integer or a slice, first; got {key!r}")

    def __repr__(self) -> str:
        return f"<FileMovie {shown(self.path)!r} {dict(zip(self.axes, self.shape, strict=True))} {self.dtype}>"

    def _open(self) -> tuple[Stack, threading.Lock]:
        """Open the files once per process: a forked child must not share a file position with its parent."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            self.close()
            with errors_named(f"{shown(self.path)} cannot be opened"):
                stack = _stack(self.path, self._options)
            with closed_on_error(stack.close):
                stack = selected(stack, self._options)
            opened = self._opened = (os.getpid(), stack, threading.Lock())
        return opened[1:]

    def _read(self, start: int, stop: int) -> AnyArray:
        """Read frames, one thread at a time."""
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        stack, lock = self._open()
        with lock, errors_named(f"{shown(self.path)}: frames {start} to {stop - 1} cannot be read"):
            return stack.read((slice(start, stop),))

    def close(self) -> None:
        """Close the files; indexing the movie opens them again."""
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
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    channel: int | None = None,
    planes: int | Iterable[int] | None = None,
    position: int | None = None,
    pattern: str | None = None,
    skip_damaged: bool = False,
    dataset: str | None = None,
    axes: str | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: Any = None,
    offset: int | None = None,
) -> FileMovie:
    """Open a movie in the files of acquisition software, without reading its frames.

    It opens one complete movie in order; missing, damaged or unrelated files cause an error or a warning. Formats are
    recognised by content: TIFF (ScanImage, OME, ImageJ, Prairie View, Micro-Manager, plain), ThorImage, Scanbox, HDF5
    and NWB, Zarr and OME-Zarr, Suite2p's binary, NPY, video, ND2, CZI and similar. With ``shape`` and ``dtype``, it
    opens any headerless binary. See "Files of acquisition software" in the documentation.

    Parameters
    ----------
    path
        A file, a folder, a list of files or a glob over the files of one recording (taken in natural order, ``file_2``
        before ``file_10``), or the URL of a Zarr array or group.
    channel
        Channel number, from 0; required if there are several.
    planes
        Planes of a volume: one (its axis is dropped), or several; all by default.
    position
        Stage position, from 0; required if there are several.
    pattern
        Glob over the file names of a folder, such as ``"msCam*.avi"``.
    skip_damaged
        Whether to skip unreadable files of a recording; a warning says how many frames they held.
    dataset
        Dataset of an HDF5 file, or array of a Zarr group; required if there are several.
    axes
        Axes of the array in the file, if missing or wrong there, one letter each: T (time), Z (plane), C (channel),
        P (position), Y (height), X (width). Without T, each file is one point in time.
    shape
        Shape of the array in a file without a header, or of the pages of a TIFF file with ``axes``; one length may
        be -1.
    dtype, offset
        For a file without a header: numpy dtype (with byte order, ``">i2"``), and start of the counts [bytes].

    Returns
    -------
    FileMovie
        Lazy array with ``shape``, ``dtype`` and indexing along time.

    Raises
    ------
    SourceNotFoundError
        If there is no such file, or the path is empty.
    SourceError
        If a file is truncated, damaged or of unknown format, or holds several movies, channels or positions and none
        was chosen.
    ConfigurationError
        If an option is out of range or does not apply to the format.
    ImportError
        If the library that reads the format is not installed; the message names the extra that installs it.

    Warns
    -----
    SourceWarning
        If files are missing from a sequence or incomplete, or if their counts were altered, for example compressed.
    """
    several = isinstance(planes, Iterable) and not isinstance(planes, str)
    options = Options(
        channel=channel,
        planes=tuple(planes) if several else planes,  # type: ignore[arg-type]  # mypy does not follow `several`
        position=position,
        pattern=pattern,
        skip_damaged=True if skip_damaged else None,
        dataset=dataset,
        axes=axes,
        shape=None if shape is None else tuple(shape),
        dtype=dtype,
        offset=offset,
    )
    if is_path(path):
        return FileMovie(_absolute(path), options)
    paths = list(path) if isinstance(path, Iterable) else [path]
    if not paths:
        raise SourceNotFoundError("an empty list names no file: give the paths of the files of one recording")
    return FileMovie(tuple(_absolute(one) for one in paths), options)


def is_path(value: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a value is a path, a glob or a URL."""
    return isinstance(value, str | os.PathLike)


def names_files(value: object) -> TypeGuard[Any]:
    """Whether a value is a path or a list of paths, for :func:`open_source`."""
    return is_path(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_path, value)))


def _absolute(path: object) -> str:
    """Make a path absolute; return a URL unchanged."""
    if not is_path(path):
        raise MovieTypeError(
            f"open_source opens files, and got a {type(path).__name__}: pass a path or a list of paths; arrays and "
            "objects of other libraries are stored directly"
        )
    name = _checked_name(path)
    return name if "://" in name else os.path.abspath(os.path.expanduser(name))


def check_names(value: object) -> None:
    """Raise SourceNotFoundError if a path, or a path in a list, is empty."""
    for path in value if isinstance(value, list | tuple) else [value]:
        _checked_name(path)


def _checked_name(path: Any) -> str:
    """Return a path as text; refuse an empty one, which pathlib takes for the working directory."""
    name: Any = os.fspath(path)  # may be bytes
    # Path("") is Path(".")
    if not isinstance(name, str) or not name or "\0" in name or (isinstance(path, PurePath) and not path.parts):
        raise SourceNotFoundError(
            f"{path!r} names no file: pass the path of a file, a folder or a glob as text; for the current folder "
            "Path.cwd(), and for a row without a movie None"
        )
    return name


def _stack(path: str | tuple[str, ...], options: Options) -> Stack:
    """Find the files of a path, and open them with the reader of their format."""
    found = find(path, headerless=options.dtype is not None, pattern=options.pattern)
    if found.format.name == "Suite2p" and options.shape is not None:
        found, options = replace(found, format=BY_NAME["headerless"]), replace(options, dtype=np.dtype(np.int16))
    for name, value in vars(options).items():
        if value is not None and name not in (*COMMON, *found.format.options):
            raise ConfigurationError(
                f"{name}={value!r} has no meaning for {shown(path)}, {found.format.name}: leave it out"
            )
    stack: Stack = import_module(f".{found.format.module}", __package__).open_files(found, options)
    return replace(stack, format=found.format.name)
