"""The array in a file: named axes, and a function that reads slices.

Every format reader returns a :class:`Stack`. This module also has the helpers that the readers share.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, PhotonCodecError, SourceError, SourceWarning
from .metadata import Metadata

#: One slice per axis, with start and stop but no step.
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Options:
    """Arguments of :func:`open_source`; None for those not given."""

    channel: int | None = None
    planes: int | Iterable[int] | None = None
    position: int | None = None
    pattern: str | None = None
    skip_damaged: bool | None = None
    dataset: str | None = None
    axes: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: Any = None
    offset: int | None = None


@dataclass(frozen=True)
class Stack:
    """The array in one or several files; ``read`` takes one slice per axis, and keeps all axes."""

    where: str  # path, and location in the file, for messages
    axes: str  # one letter per axis
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Index], AnyArray]
    close: Callable[[], None] = lambda: None
    metadata: Metadata = field(default_factory=Metadata)
    chosen: str = ""  # axes already reduced to one entry, by file name or scene
    format: str = ""

    def size(self, letter: str) -> int:
        """Length of an axis; 1 if the stack does not have it."""
        return self.shape[self.axes.index(letter)] if letter in self.axes else 1


def library(module: str, extra: str, what: str) -> Any:
    """Import an optional library; the error names the extra that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{what} need {module}: pip install "dj-photon-codecs[{extra}]"') from error


class ChoiceNeeded(SourceError):
    """Several movies were found; ``option=`` (or the path) must be one of ``choices``."""

    def __init__(self, text: str, option: str = "", choices: Sequence[Any] = ()) -> None:
        super().__init__(text)
        self.option, self.choices = option, tuple(choices)


class DamagedFile(SourceError):
    """A file is empty, truncated or altered; ``skip_damaged=True`` skips it."""


@contextmanager
def closed_on_error(close: Callable[[], None]) -> Iterator[None]:
    """Close a file if the block fails."""
    try:
        yield
    except BaseException:
        close()
        raise


@contextmanager
def errors_named(what: str) -> Iterator[None]:
    """Convert any error that a library raises on a damaged file to :class:`DamagedFile`."""
    try:
        yield
    except (PhotonCodecError, SourceWarning, ImportError, MemoryError):
        raise
    except Exception as error:  # OSError, ValueError, RuntimeError, struct.error, errors of five libraries
        raise DamagedFile(f"{what}: {type(error).__name__}: {error}") from error


def image_reader(image: Callable[[int], AnyArray], table: AnyArray) -> Callable[[Index], AnyArray]:
    """Return a ``read`` function for images decoded one at a time; ``table`` has their numbers by leading axis."""

    def read(index: Index) -> AnyArray:
        numbers, inside = table[index[: table.ndim]], index[table.ndim :]
        first, *others = numbers.ravel().tolist()
        found = image(first)[inside]
        if others:  # hold only one further image in memory
            counts = np.empty((numbers.size, *found.shape), found.dtype)
            counts[0] = found
            for place, number in enumerate(others, 1):
                counts[place] = image(number)[inside]
            found = counts
        return found.reshape(*numbers.shape, *found.shape[-len(inside) :])

    return read


def with_time(stack: Stack) -> Stack:
    """Add a time axis of length 1 if the stack has none."""
    if "T" in stack.axes:
        return stack
    axes, shape = f"T{stack.axes}", (1, *stack.shape)
    return replace(stack, axes=axes, shape=shape, read=lambda index: np.asarray(stack.read(index[1:]))[np.newaxis])


def without_time(stack: Stack) -> Stack:
    """Drop a time axis of length 1."""
    time, once = stack.axes.index("T"), (slice(0, 1),)
    return replace(
        stack,
        axes=stack.axes.replace("T", ""),
        shape=stack.shape[:time] + stack.shape[time + 1 :],
        read=lambda index: stack.read(index[:time] + once + index[time:]).squeeze(time),
    )


def selected(stack: Stack, options: Options) -> Stack:
    """Select one channel, one position and some planes of a stack, as (time, ..., height, width)."""
    time, height, width = (stack.axes.index(letter) for letter in "TYX")
    deep = stack.axes.find("Z" if "Z" in stack.axes or stack.axes.count("?") != 1 else "?")
    names = stack.metadata.channels
    channel = one_of("C", range(stack.size("C")), options, stack.where, stack.chosen, names)
    position = one_of("P", range(stack.size("P")), options, stack.where, stack.chosen)
    planes = _planes(stack, deep, options.planes)
    fixed = {stack.axes.find("C"): channel, stack.axes.find("P"): position}
    fixed |= {deep: planes} if isinstance(planes, int) else {}
    fixed.pop(-1, None)  # axes the stack does not have
    between = [i for i in range(len(stack.shape)) if i not in (time, height, width, *fixed)]
    order = [time, *between, height, width]
    transposed = [sorted(order).index(axis) for axis in order]
    whole = [slice(fixed.get(i, 0), fixed[i] + 1 if i in fixed else size) for i, size in enumerate(stack.shape)]
    some = planes if isinstance(planes, list) else None
    shape = tuple(len(some) if some and axis == deep else stack.shape[axis] for axis in order)
    dtype = stack.dtype.newbyteorder("=")

    def part(frames: slice, plane: slice | None = None) -> AnyArray:
        index = {**dict(enumerate(whole)), time: frames, **({} if plane is None else {deep: plane})}
        counts = np.asarray(stack.read(tuple(index.values())))
        return counts.squeeze(tuple(fixed)).transpose(transposed)

    def read(index: Index) -> AnyArray:
        frames = index[0]
        if some is None:
            return np.ascontiguousarray(part(frames), dtype=dtype)
        counts = np.empty((frames.stop - frames.start, *shape[1:]), dtype)
        before = (slice(None),) * order.index(deep)
        for number, plane in enumerate(some):  # they need not be contiguous
            counts[(*before, slice(number, number + 1))] = part(frames, slice(plane, plane + 1))
        return counts

    axes = "".join(stack.axes[axis] for axis in order)
    metadata = replace(stack.metadata, channels=names[channel : channel + 1] or names[:1])
    return replace(stack, axes=axes, shape=shape, dtype=dtype, read=read, metadata=metadata)


#: Axes with one entry per movie: the option that selects it, and the reason, for messages.
_ONE_OF = {"C": ("channel", "channels, each with its own noise"), "P": ("position", "positions, each of them a movie")}


def one_of(
    axis: str, labels: Sequence[object], options: Options, where: str, chosen: str = "", names: Sequence[str] = ()
) -> int:
    """Index of the chosen channel ("C") or position ("P"); ``names`` are their names in the file."""
    option, what = _ONE_OF[axis]
    given, count = getattr(options, option), len(labels)
    if given is not None and axis not in chosen:
        return _checked(given, count, f"{option}={given!r}", f"{where} has {_counted(count, option)}")
    if count > 1:
        known = f" ({', '.join(names)})" if len(names) == count else ""
        raise ChoiceNeeded(
            f"{where} holds {count} {what}{known}: open one of them, "
            f"open_source(path, {option}=0) to {option}={count - 1}",
            option,
            range(count),
        )
    return 0


def _planes(stack: Stack, axis: int, planes: Any) -> int | list[int] | None:
    """Return the planes to read: one (which drops the axis), several, or None for all."""
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
