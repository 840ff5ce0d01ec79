"""Group the files of a folder into recordings by their names alone.

A name consists of text and numbers. Files with the same text form one recording. The word before a number says what it
counts: channel, plane, time or position. A last number without a word counts files in time.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

from .messages import runs

#: Axis for each word before a number: position, channel, plane, time, or Prairie View cycle.
_ROLES = {
    **dict.fromkeys(("p", "pos", "position", "s", "stage", "series", "scene", "xy", "fov", "site", "tile"), "P"),
    **dict.fromkeys(("c", "w", "ch", "chan", "channel", "color", "colour", "lambda"), "C"),
    **dict.fromkeys(("z", "slice", "plane", "depth", "zslice"), "Z"),
    **dict.fromkeys(("t", "time", "timepoint", "tp"), "T"),
    "cycle": "K",
}
#: Names whose numbers are identified by order only: Micro-Manager 1.4 and ThorImage.
_SCHEMES = (
    re.compile(r"(?P<text>(?:.*/)?img)_(?P<T>\d{9})_(?P<C>.*)_(?P<Z>\d{3})(?=\.tif)", re.IGNORECASE),
    re.compile(r"(?P<text>(?:.*/)?)Chan(?P<C>[A-D])_(?P<P>\d+)_\d+_(?P<Z>\d+)_(?P<T>\d+)(?=\.tif)"),
)
_SUFFIX = re.compile(r"(\.ome|\.companion)?\.[A-Za-z][A-Za-z0-9]*$", re.IGNORECASE)
_NUMBER = re.compile(r"([A-Za-z]*)([-_ ]?)([0-9]+)")
_COUNTER_DIGITS = 7  # longer numbers are dates, times or serial numbers, where gaps mean nothing

Coordinate = int | str | tuple[int, ...]


class Place(NamedTuple):
    """Position of a file in its recording; 0 on axes absent from the names, slowest time counter first."""

    position: int = 0
    channel: int | str = 0
    plane: int = 0
    time: tuple[int, ...] = ()

    def on(self, axis: str) -> Coordinate:
        """Coordinate on the axis with this letter."""
        return self["PCZT".index(axis)]


@dataclass(frozen=True)
class Group:
    """The files of one recording."""

    stem: str  # a glob over their names
    files: Mapping[Place, str]
    doubts: tuple[str, ...] = ()  # possible errors in the grouping, one sentence each

    @property
    def axes(self) -> str:
        """Letters of the axes, except time, on which the names differ."""
        return "".join(axis for axis in "PCZ" if len(self.coordinates(axis)) > 1)

    def coordinates(self, axis: str) -> list[Coordinate]:
        """Distinct coordinates on an axis, in natural order."""
        return sorted({place.on(axis) for place in self.files}, key=lambda found: (isinstance(found, str), found))

    def missing(self) -> list[str]:
        """Describe the numbers missing from the names."""
        found = []
        for axis, what in (("P", "position"), ("C", "channel"), ("Z", "plane")):
            gaps = _gaps([n for n in self.coordinates(axis) if isinstance(n, int)])
            found += [f"{what} {gaps}"] if gaps else []
        times = [place.time for place in self.files]
        for level in range(max(map(len, times), default=0)):
            by_outer = defaultdict(set)
            for time in times:
                by_outer[time[:level]].add(time[level])
            for outer, numbers in sorted(by_outer.items()):
                gaps = _gaps(sorted(numbers))
                where = f" in cycle {outer[-1]}" if outer and len(by_outer) > 1 else ""
                found += [f"number {gaps}{where}"] if gaps else []
        if self.axes and not found:
            holes = sorted(set(product(*map(self.coordinates, "PCZT"))) - set(self.files), key=str)
            found += [*map(self._named, holes[:5]), *([f"and {len(holes) - 5} more"] if len(holes) > 5 else [])]
        return found

    def _named(self, hole: tuple[Coordinate, ...]) -> str:
        """Describe a place without a file."""
        *others, time = hole
        words = zip(("position", "channel", "plane"), "PCZ", others, strict=True)
        text = ", ".join(f"{word} {value}" for word, axis, value in words if axis in self.axes)
        assert isinstance(time, tuple)
        return f"number {'-'.join(map(str, time))} of {text}" if time else text


def _gaps(numbers: Sequence[int]) -> str:
    """Format the numbers missing between first and last; empty if the numbers are not a counter."""
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) < 2 or len(str(numbers[-1])) > _COUNTER_DIGITS:
        return ""
    if len(numbers) > 2 and len(steps) == 1 and min(steps) >= 10:  # files named after their first frame
        return ""
    return runs((before, after) for before, after in pairwise(numbers) if after - before > 1)


@dataclass(frozen=True)
class _Name:
    """A parsed name: its texts, and for each number its role (if any), value and number of digits."""

    name: str
    texts: tuple[str, ...]
    roles: tuple[str | None, ...]
    numbers: tuple[int | str, ...]
    widths: tuple[int, ...]


def grouped(names: Iterable[str]) -> list[Group]:
    """Group the files of one folder into recordings, sorted by stem."""
    families: dict[tuple[object, ...], list[_Name]] = defaultdict(list)
    for name in sorted(set(names), key=natural):
        taken = _taken_apart(name)
        families[taken.texts, taken.roles].append(taken)
    groups = [group for family in families.values() for group in _of_family(family)]
    return sorted(groups, key=lambda group: natural(group.stem))


def natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key that puts file_2 before file_10."""
    parts = re.split(r"([0-9]+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], name


def _taken_apart(name: str) -> _Name:
    """Split a name into texts and numbers."""
    for scheme in _SCHEMES:
        match = scheme.match(name)
        if match:
            found = {role: value for role, value in match.groupdict().items() if role != "text"}
            values = tuple(int(value) if value.isdecimal() else value for value in found.values())
            return _Name(
                name, (match["text"], name[match.end() :]), tuple(found), values, tuple(map(len, found.values()))
            )
    stop = _SUFFIX.search(name)
    matches = list(_NUMBER.finditer(name, 0, stop.start() if stop else len(name)))
    ends = [0, *(match.end() for match in matches)]
    texts = [name[begin : match.start(3)] for begin, match in zip(ends, matches, strict=False)]
    # a single letter is a word only if the number is attached to it
    roles = [None if len(match[1]) == 1 and match[2] else _ROLES.get(match[1].lower()) for match in matches]
    digits = [match[3] for match in matches]
    return _Name(name, (*texts, name[ends[-1] :]), tuple(roles), tuple(map(int, digits)), tuple(map(len, digits)))


def _of_family(family: list[_Name]) -> list[Group]:
    """Split names with equal texts into recordings."""
    first = family[0]
    varying = [i for i in range(len(first.numbers)) if len({name.numbers[i] for name in family}) > 1]
    labelled = {first.roles[i]: i for i in varying if first.roles[i]}
    outer, counter = _sequence(family, [i for i in varying if i not in labelled.values()], "T" in labelled)
    apart: dict[tuple[object, ...], list[_Name]] = defaultdict(list)
    for name in family:
        apart[tuple(name.numbers[i] for i in outer)].append(name)
    groups = []
    for names in apart.values():
        files = {_place(name, labelled, counter): name.name for name in names}
        if len(files) < len(names):  # numbers that differ only in leading zeros
            groups += [Group(glob.escape(name.name), {Place(): name.name}) for name in names]
            continue
        changing = {i for i in varying if len({name.numbers[i] for name in names}) > 1}
        group = Group(_glob(names[0], changing), files)
        groups.append(_volumes(group) if "K" in labelled else group)
    return groups


def _sequence(family: list[_Name], numbers: list[int], timed: bool) -> tuple[list[int], int | None]:
    """Return which unlabelled numbers distinguish recordings, and which one counts time."""
    if not numbers:
        return [], None
    if timed:  # time has its own number
        return numbers, None
    *outer, last = numbers
    unnamed = [i for i, role in enumerate(family[0].roles) if role is None]
    if last != unnamed[-1] and family[0].numbers[unnamed[-1]] in (0, 1) and family[0].widths[unnamed[-1]] > 2:
        return numbers, None  # run_00001_00001 and run_00002_00001: each run begins with its own first file
    if not outer:
        return [], last
    labels = [i for i, role in enumerate(family[0].roles) if role]
    counted: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for name in family:
        counted[tuple(name.numbers[i] for i in labels)].append(tuple(name.numbers[i] for i in (*outer, last)))
    for places in counted.values():
        ordered = [place[-1] for place in sorted(places)]
        if len(set(ordered)) < len(ordered) or ordered != sorted(ordered):
            return outer, last
    return [], last


def _place(name: _Name, labelled: Mapping[str | None, int], counter: int | None) -> Place:
    """Position of a file, from the roles of its numbers."""
    channel = name.numbers[labelled["C"]] if "C" in labelled else 0
    position, plane = (int(name.numbers[labelled[role]]) if role in labelled else 0 for role in "PZ")
    times = [name.numbers[i] for i in (labelled.get("K"), labelled.get("T"), counter) if i is not None]
    return Place(position, channel, plane, tuple(n for n in times if isinstance(n, int)))


def _volumes(group: Group) -> Group:
    """Treat Prairie View cycles as volumes if all have the same number of images; the last may be incomplete."""
    by_cycle: dict[int, set[int]] = defaultdict(set)
    for place in group.files:
        by_cycle[place.time[0]].add(place.time[1] if len(place.time) > 1 else 1)
    counts = {len(numbers) for numbers in by_cycle.values()}
    last = by_cycle.pop(max(by_cycle))
    if counts == {1} or len({len(numbers) for numbers in by_cycle.values()}) != 1 or group.coordinates("Z") != [0]:
        return group
    whole = max(map(len, by_cycle.values()))
    if len(last) > whole or (len(last) < whole and len(by_cycle) == 1):
        return group
    files = {Place(p.position, p.channel, p.time[1], p.time[:1]): name for p, name in group.files.items()}
    doubt = (
        f"{group.stem}: no XML file says whether the {len(by_cycle) + 1} cycles of {max(counts)} images are volumes or "
        "time series; they are taken as volumes, (time, plane, height, width). If they are time series, pass "
        'axes="TYX"'
    )
    return Group(group.stem, files, (doubt,))


def _glob(name: _Name, varying: set[int]) -> str:
    """Glob over the names of a recording, with a star for each number that varies."""
    if not varying:
        return glob.escape(name.name)
    if len(name.texts) != len(name.numbers) + 1:  # one of _SCHEMES
        begin = glob.escape(name.texts[0])
        return f"{begin}{'_' if begin.endswith('img') else 'Chan'}*{glob.escape(name.texts[-1])}"
    parts = [glob.escape(text) for text in name.texts]
    for i, width in enumerate(name.widths):
        parts[i] += "*" if i in varying else f"{name.numbers[i]:0{width}}"
    return "".join(parts)
