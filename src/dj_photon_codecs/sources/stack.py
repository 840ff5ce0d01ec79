"""What files hold, as it lies there: axes with names, cut into frames of one channel and some planes.

Every reader of a format gives a :class:`Stack`; what is the same for all of them stands here.
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, PhotonCodecError, SourceError, SourceWarning

#: One for each axis; a slice always has a start and a stop, and no step.
Index = tuple[int | slice, ...]

#: Letters of axes: time, plane, channel, height, width. An axis without a name is a question mark.
_LETTERS = "TZCYX"
_WORDS = {"T": "time", "Z": "plane", "Y": "height", "X": "width", "?": "axis"}


@dataclass(frozen=True)
class Options:
    """What the caller of :func:`open_source` says, as it stands there; None where nothing was said."""

    channel: int | None = None
    planes: int | Iterable[int] | None = None
    dataset: str | None = None
    axes: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: Any = None
    offset: int | None = None


@dataclass(frozen=True)
class Stack:
    """The array in a file, or in several.

    Attributes
    ----------
    where
        What errors call it: the path, and the place in the file.
    axes
        A letter for each axis.
    shape, dtype
        Of the array.
    read
        Gives what one integer or slice for each axis selects.
    close
        Lets go of the files.
    """

    where: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Index], AnyArray]
    close: Callable[[], None] = lambda: None

    def size(self, letter: str) -> int:
        """The length of an axis, 1 where there is none of that name."""
        return self.shape[self.axes.index(letter)] if letter in self.axes else 1


def library(module: str, extra: str, what: str) -> Any:
    """Import the library that reads a format.

    Raises
    ------
    ImportError
        When it is not installed; the message names the extra that has it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{what} need {module}: pip install "dj-photon-codecs[{extra}]"') from error


@contextmanager
def closed_on_error(close: Callable[[], None]) -> Iterator[None]:
    """Within this context, an error lets go of a file."""
    try:
        yield
    except BaseException:
        close()
        raise


@contextmanager
def errors_named(what: str) -> Iterator[None]:
    """Within this context, what a library raises on a damaged file becomes one error of ours, with ``what`` in it.

    Raises
    ------
    SourceError
        From whatever else than our own errors and warnings, a missing library, and a lack of memory.
    """
    try:
        yield
    except (PhotonCodecError, SourceWarning, ImportError, MemoryError):
        raise
    except Exception as error:  # OSError, ValueError, RuntimeError, struct.error, and the errors of five libraries
        raise SourceError(f"{what}: {type(error).__name__}: {error}") from error


def warn(text: str) -> None:
    """Tell the caller, outside of this package, what is doubtful about a file."""
    package = str(Path(__file__).parents[1])
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SourceWarning, stacklevel=level)


def gathered(images: Iterable[AnyArray], shape: tuple[int, ...]) -> AnyArray:
    """Images in an array of this shape, one at a time in memory beside it."""
    count, counts = math.prod(shape), None
    for place, image in enumerate(images):
        if counts is None:
            counts = np.empty((count, *image.shape), image.dtype) if count > 1 else image[np.newaxis]
        if count > 1:
            counts[place] = image
    assert counts is not None
    return counts.reshape(*shape, *counts.shape[1:])


def given_axes(axes: str, shape: tuple[int, ...], where: str) -> str:
    """``axes=`` as the caller gave it, for an array of this shape; without a T each file is one point in time.

    Raises
    ------
    ConfigurationError
        When it does not name the axes of that array.
    """
    letters = axes.upper()
    doubtful = set(letters) - set(_LETTERS) or len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters)
    if doubtful or len(letters) != len(shape):
        raise ConfigurationError(
            f"axes={axes!r} must give each axis of {where}, shape {shape}, one of the letters T (time), Z (plane), "
            "C (channel), Y (height) and X (width), with Y and X among them"
        )
    return letters


def unnamed_axes(shape: tuple[int, ...], where: str) -> str:
    """The axes of an array that says nothing of them: (time, ..., height, width), as for arrays in memory.

    Raises
    ------
    SourceError
        For fewer than 3 axes.
    """
    if len(shape) < 3:
        raise SourceError(f"{where} has shape {shape}: a movie has at least 3 axes (time, ..., height, width)")
    return "T" + "?" * (len(shape) - 3) + "YX"


def with_time(stack: Stack) -> Stack:
    """A stack that has a time axis, of length 1 where the file is one point in time."""
    if "T" in stack.axes:
        return stack
    return replace(
        stack,
        axes="T" + stack.axes,
        shape=(1, *stack.shape),
        read=lambda index: np.asarray(stack.read(index[1:]))[np.newaxis][index[0]],
    )


def squeezed(stack: Stack) -> Stack:
    """A stack without the time axis that it has, of length 1."""
    time = stack.axes.index("T")
    return replace(
        stack,
        axes=stack.axes.replace("T", ""),
        shape=stack.shape[:time] + stack.shape[time + 1 :],
        read=lambda index: stack.read((*index[:time], 0, *index[time:])),
    )


def concatenated(names: Sequence[str], open_one: Callable[[str], Stack]) -> Stack:
    """The stacks in several files, one after the other in time; one file is open at a time.

    Raises
    ------
    SourceError
        When two files hold frames of different kinds.
    """

    def opening(name: str) -> Stack:
        with errors_named(f"{name} cannot be opened, truncated or damaged"):
            return with_time(open_one(name))

    first = opening(names[0])
    if len(names) == 1:
        return first
    time = first.axes.index("T")
    lengths = [first.shape[time]]
    first.close()
    for name in names[1:]:
        stack = opening(name)
        stack.close()
        if _kind(stack, time) != _kind(first, time):
            raise SourceError(
                f"{stack.where} holds {_described(stack)}, and {first.where} holds {_described(first)}: the files of "
                "one recording have frames of one kind; name them with a glob that leaves the others out"
            )
        lengths.append(stack.shape[time])
    ends = np.cumsum(lengths).tolist()
    current: list[tuple[int, Stack]] = []  # at most one

    def close() -> None:
        while current:
            current.pop()[1].close()

    def opened(number: int) -> Stack:
        if not current or current[0][0] != number:
            close()
            current.append((number, opening(names[number])))
        return current[0][1]

    def read(index: Index) -> AnyArray:
        frames = index[time]
        assert isinstance(frames, slice)
        parts = []
        for number in range(int(np.searchsorted(ends, frames.start, side="right")), len(names)):
            begin = ends[number] - lengths[number]
            if begin >= frames.stop:
                break
            inside = slice(max(frames.start - begin, 0), min(frames.stop, ends[number]) - begin)
            parts.append(opened(number).read((*index[:time], inside, *index[time + 1 :])))
        position = sum(isinstance(i, slice) for i in index[:time])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=position)

    where = f"{names[0]} and {len(names) - 1} more"
    shape = (*first.shape[:time], ends[-1], *first.shape[time + 1 :])
    return Stack(where, first.axes, shape, first.dtype, read, close)


def _kind(stack: Stack, time: int) -> tuple[Any, ...]:
    return stack.axes, stack.shape[:time], stack.shape[time + 1 :], stack.dtype


def _described(stack: Stack) -> str:
    return f"{stack.dtype} with axes {stack.axes} of shape {stack.shape}"


@dataclass(frozen=True)
class Selection:
    """The movie in a stack: what was asked for of it, in the order (time, ..., height, width).

    Attributes
    ----------
    axes
        Their names.
    shape, dtype
        Of the movie, in native byte order.
    read
        Gives frames from the first number to the second.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], AnyArray]


def selected(stack: Stack, channel: int | None, planes: Any) -> Selection:
    """One channel and some planes of a stack.

    Raises
    ------
    SourceError
        When there are several channels and none was chosen.
    ConfigurationError
        For a channel or plane that is not there.
    """
    time, height, width = (stack.axes.index(letter) for letter in "TYX")
    channels, deep = stack.axes.find("C"), _plane_axis(stack)
    one_channel, some_planes = _channel(stack, channel), _planes(stack, deep, planes)
    fixed = {channels: one_channel}
    if isinstance(some_planes, int):
        fixed[deep] = some_planes
    between = [i for i in range(len(stack.shape)) if i not in (time, height, width, *fixed)]
    order = [time, *between, height, width]
    transposed = [sorted(order).index(axis) for axis in order]
    dtype = stack.dtype.newbyteorder("=")
    sizes = dict(enumerate(stack.shape))
    if isinstance(some_planes, list):
        sizes[deep] = len(some_planes)

    def part(chosen: dict[int, int | slice]) -> AnyArray:
        index = tuple(chosen.get(axis, fixed.get(axis, slice(0, size))) for axis, size in enumerate(stack.shape))
        return np.asarray(stack.read(index)).transpose(transposed)

    def read(start: int, stop: int) -> AnyArray:
        frames = {time: slice(start, stop)}
        if not isinstance(some_planes, list):
            return np.ascontiguousarray(part({**frames}), dtype=dtype)
        counts = np.empty((stop - start, *(sizes[axis] for axis in order[1:])), dtype)
        for position, plane in enumerate(some_planes):  # which need not lie side by side
            before = (slice(None),) * order.index(deep)
            counts[(*before, slice(position, position + 1))] = part({**frames, deep: slice(plane, plane + 1)})
        return counts

    names = tuple(_WORDS[stack.axes[axis]] for axis in order)
    return Selection(names, tuple(sizes[axis] for axis in order), dtype, read)


def _plane_axis(stack: Stack) -> int:
    """Which axis is that of the planes: the one of that name, or the only one without a name; -1 for none."""
    return stack.axes.find("Z" if "Z" in stack.axes or stack.axes.count("?") != 1 else "?")


def _channel(stack: Stack, channel: int | None) -> int:
    """The number of the channel that is read."""
    count = stack.size("C")
    if channel is None:
        if count > 1:
            raise SourceError(
                f"{stack.where} holds {count} channels, which have noise of their own: open one of them, "
                f"open_source(path, channel=0) to channel={count - 1}"
            )
        return 0
    return _checked(channel, count, f"channel={channel!r}", f"{stack.where} has {_counted(count, 'channel')}")


def _planes(stack: Stack, axis: int, planes: Any) -> int | list[int] | None:
    """The planes that are read: one, some, or all of them (None); the only one of a file is no axis of the movie."""
    count = stack.shape[axis] if axis >= 0 else 1
    if planes is None:
        return 0 if "Z" in stack.axes and count == 1 else None
    has = f"{stack.where} has {_counted(count, 'plane')}"
    if isinstance(planes, str) or not isinstance(planes, Iterable):
        return _checked(planes, count, f"planes={planes!r}", has)
    several = [_checked(plane, count, f"planes={planes!r}", has) for plane in planes]
    if not several or len(set(several)) < len(several):
        raise ConfigurationError(f"planes={planes!r} must name at least one plane, and each once: {has}")
    return several if axis >= 0 else several[0]


def _checked(value: Any, count: int, given: str, has: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < count:
        raise ConfigurationError(f"{given}: {has}, numbered from 0 to {count - 1}")
    return number


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"
