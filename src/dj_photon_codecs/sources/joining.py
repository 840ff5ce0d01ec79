"""Join files into one movie, along time or as planes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .groups import Group
from .messages import listed, warn_source
from .stack import DamagedFile, Index, Options, Stack, errors_named, one_of, with_time


def joined(group: Group, options: Options, open_one: Callable[[str], Stack]) -> Stack:
    """Join the files of a group; if names distinguish channels or positions, use the chosen one."""
    files, chosen = dict(group.files), ""
    channels: tuple[str, ...] = ()
    for axis in "PC":
        labels = group.coordinates(axis)
        if axis in group.axes:
            label = labels[one_of(axis, labels, options, group.stem, names=[str(label) for label in labels])]
            files = {place: name for place, name in files.items() if place.on(axis) == label}
            chosen += axis
            if axis == "C":
                channels = (label if isinstance(label, str) else f"Ch{label}",)
    stacks: list[Stack] = []
    with ExitStack() as opened:
        for names in _files_by_plane(replace(group, files=files)):
            stacks.append(concatenated(names, open_one, bool(options.skip_damaged)))
            opened.callback(stacks[-1].close)
        stack = stacks[0] if len(stacks) == 1 else _side_by_side(stacks)
        close = opened.pop_all().close
    return replace(
        stack,
        close=close,
        chosen=stack.chosen + chosen,
        metadata=replace(stack.metadata, channels=channels or stack.metadata.channels),
    )


def _files_by_plane(group: Group) -> list[list[str]]:
    """Files of each plane in time order, without an incomplete last volume."""
    planes = group.coordinates("Z")
    by_time: dict[tuple[int, ...], dict[object, str]] = defaultdict(dict)
    for place, name in group.files.items():
        by_time[place.time][place.plane] = name
    times = sorted(by_time)
    if len(by_time[times[-1]]) < len(planes) and len(times) > 1:
        left_out = by_time.pop(times.pop())
        warn_source(
            f"{group.stem}: the last volume has {len(left_out)} of {len(planes)} planes, and is left out: "
            f"{listed(list(left_out.values()))}"
        )
    for time in times:
        lacking = [str(plane) for plane in planes if plane not in by_time[time]]
        if lacking:
            raise SourceError(
                f"{group.stem}: of the volume {'-'.join(map(str, time))} there are no files for the planes "
                f"{', '.join(lacking)}. Copy them again, or give a list of the files that make whole volumes"
            )
    return [[by_time[time][plane] for time in times] for plane in planes]


def _side_by_side(stacks: Sequence[Stack]) -> Stack:
    """Combine stacks of one plane each, with the plane axis after time."""
    first = stacks[0]
    for stack in stacks[1:]:
        _check_alike(first, stack, 0)
        if stack.size("T") != first.size("T"):
            raise SourceError(
                f"{stack.where} has {stack.size('T')} frames, and {first.where}, another plane, {first.size('T')}: "
                "all planes of a recording must have the same length"
            )
    if "Z" in first.axes:
        raise SourceError(f"{first.where} holds planes, and so do the names of its files: open the files one by one")
    plane = first.axes.index("T") + 1

    def read(index: Index) -> AnyArray:
        inner = index[:plane] + index[plane + 1 :]
        return np.stack([stack.read(inner) for stack in stacks[index[plane]]], axis=plane)

    axes = f"{first.axes[:plane]}Z{first.axes[plane:]}"
    shape = (*first.shape[:plane], len(stacks), *first.shape[plane:])
    return replace(first, axes=axes, shape=shape, read=read)


def concatenated(names: Sequence[str], open_one: Callable[[str], Stack], skip_damaged: bool = False) -> Stack:
    """Concatenate the stacks of several files in time, with one file open at a time."""

    def opening(name: str) -> Stack:
        with errors_named(f"{name} cannot be opened, truncated or damaged"):
            return with_time(open_one(name))

    if len(names) == 1:
        return opening(names[0])
    first: Stack | None = None
    paths, lengths, times, damaged = [], [], [], []
    for name in names:
        try:
            stack = opening(name)
        except DamagedFile as error:
            if not skip_damaged:
                raise DamagedFile(f"{error}. open_source(path, skip_damaged=True) leaves such files out") from error
            damaged.append(name)
            continue
        stack.close()
        first = first or stack
        time = first.axes.index("T")
        _check_alike(first, stack, time)
        paths.append(name)
        lengths.append(stack.shape[time])
        times.append(stack.metadata.times)
    if first is None:
        raise DamagedFile(f"all {len(names)} files are damaged: {listed(names)}")
    if damaged:
        frames = f"{lengths[0] * len(damaged)} frames" if len(set(lengths[:-1])) <= 1 else "an unknown number of frames"
        warn_source(f"{len(damaged)} of {len(names)} files are damaged and left out, {frames}: {listed(damaged)}")
    ends = np.cumsum(lengths).tolist()
    current: list[tuple[int, Stack]] = []  # at most one

    def close() -> None:
        while current:
            current.pop()[1].close()

    def opened(number: int) -> Stack:
        if not current or current[0][0] != number:
            close()
            current.append((number, opening(paths[number])))
        return current[0][1]

    def read(index: Index) -> AnyArray:
        start, stop = index[time].start, index[time].stop
        parts = []
        for number in range(int(np.searchsorted(ends, start, side="right")), len(paths)):
            begin = ends[number] - lengths[number]
            if begin >= stop:
                break
            inside = slice(max(start - begin, 0), min(stop, ends[number]) - begin)
            parts.append(opened(number).read((*index[:time], inside, *index[time + 1 :])))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=time)

    together = [moment for moments in times for moment in moments]
    rising = all(times) and all(before < after for before, after in pairwise(together))  # on one clock
    return replace(
        first,
        where=f"{paths[0]} and {len(paths) - 1} more",
        shape=(*first.shape[:time], ends[-1], *first.shape[time + 1 :]),
        read=read,
        close=close,
        metadata=replace(first.metadata, times=together if rising else ()),
    )


def _check_alike(first: Stack, stack: Stack, time: int) -> None:
    """Raise if two files differ in axes, frame shape or dtype."""

    def kind(one: Stack) -> tuple[Any, ...]:
        return one.axes, one.shape[:time], one.shape[time + 1 :], one.dtype.newbyteorder("=")

    if kind(stack) != kind(first):
        held, expected = (f"{one.dtype} with axes {one.axes} of shape {one.shape}" for one in (stack, first))
        raise SourceError(
            f"{stack.where} holds {held}, and {first.where} holds {expected}: all frames of a "
            "recording must be alike; leave the others out with pattern=, a glob over file names"
        )
