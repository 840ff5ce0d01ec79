"""Find the files of a path, list, glob or folder, and their format."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._system import path_of_file_url
from ..errors import SourceError, SourceNotFoundError
from .formats import BY_NAME, KINDS, SUITE2P, Format, format_of, format_of_folder, is_blank
from .groups import Group, Place, grouped, natural
from .messages import listed, shown, warn_source
from .stack import ChoiceNeeded


@dataclass(frozen=True)
class Found:
    """The files found for a path, all of one format."""

    format: Format
    names: list[str]  # paths, in natural order or in the order of the caller's list
    where: str  # as named in errors
    in_order: bool = False  # the caller listed the files, so their order counts
    pattern: str | None = None  # glob that selected them; the stem of a recording selects only it

    def __post_init__(self) -> None:
        if self.format.single and len(self.names) > 1:
            names = listed(sorted(self.names, key=natural))
            raise ChoiceNeeded(f"{self.where} holds several movies: {names}; open one of them", "path", self.names)

    def group(self, axes: str | None = None) -> Group:
        """Group the files into one recording; if the caller's ``axes`` lack Z, doubtful planes become time points."""
        if len(self.names) == 1:
            return Group(self.names[0], {Place(): self.names[0]})
        folder = os.path.commonpath([os.path.dirname(name) for name in self.names])
        paths = {os.path.relpath(name, folder).replace(os.sep, "/"): name for name in self.names}
        groups = grouped(paths)
        groups = [group for group in groups if group.stem == self.pattern] or groups
        if len(groups) > 1:
            return self._in_order_of_list(groups)
        [group] = groups
        group = replace(
            group,
            stem=os.path.join(folder, group.stem),
            files={place: paths[name] for place, name in group.files.items()},
        )
        if group.doubts and axes is not None and "Z" not in axes.upper():
            flat = {Place(p.position, p.channel, 0, (*p.time, p.plane)): name for p, name in group.files.items()}
            group = Group(group.stem, flat)
        self._warn_of_gaps(group)
        return group

    def _in_order_of_list(self, groups: list[Group]) -> Group:
        """Join several recordings if the caller listed their files; otherwise raise."""
        counts = listed([f"{group.stem} ({len(group.files)})" for group in groups], 10)
        if not self.in_order:
            raise ChoiceNeeded(
                f"{self.where} holds {len(groups)} recordings by the names of their files: {counts}. Open one of "
                f"them, open_source(path, pattern={groups[0].stem!r}); if the files are consecutive in time, pass "
                "them as a list in their order",
                "pattern",
                [group.stem for group in groups],
            )
        warn_source(
            f"the list of {len(self.names)} files holds {len(groups)} recordings by their names, {counts}: they are "
            "joined in the order of the list"
        )
        return Group(self.where, {Place(time=(i,)): name for i, name in enumerate(self.names)})

    def _warn_of_gaps(self, group: Group) -> None:
        """Warn of missing numbers, ambiguous names, and lists in a different order."""
        for doubt in group.doubts:
            warn_source(doubt)
        missing = group.missing()
        if missing:
            warn_source(
                f"{group.stem}: files are missing between those that are there: {', '.join(missing)}. The others are "
                "joined as if there were no gap"
            )
        begins = min((place.time[-1] for place in group.files if place.time), default=0)
        if 1 < begins and len(str(begins)) < 8 and os.path.isdir(self.where) and self.pattern is None:
            warn_source(
                f"{group.stem}: the numbers of its files begin at {begins}; if there were any before, they are missing"
            )
        if self.in_order and self.names != sorted(self.names, key=natural):
            first = group.files[min(group.files, key=lambda place: place.time)]
            warn_source(
                f"the list of {len(self.names)} files is not in the order of their numbers, and is read in that order, "
                f"from {os.path.basename(first)}"
            )


def find(path: str | Sequence[str], *, headerless: bool, pattern: str | None = None) -> Found:
    """Find the files of an absolute path, a list of paths, a glob or a URL; ``pattern`` selects files of a folder."""
    if not isinstance(path, str):
        for name in path:
            if not os.path.exists(name):
                raise SourceNotFoundError(f"there is no file {name!r}, which the list names")
        return _of_one_format(list(path), shown(path), headerless, in_order=True)
    if path.startswith("file://"):
        path = path_of_file_url(path)
    if "://" in path:
        return Found(BY_NAME["Zarr"], [path], path)
    if os.path.isdir(path):
        return _in_folder(Path(path), headerless, pattern)
    if os.path.exists(path):
        return _of_one_format([path], path, headerless)
    names = sorted(_globbed(path), key=natural)
    if not names:
        raise SourceNotFoundError(
            f"there is no file or folder {path!r}: check its name, and the folder that it is relative to"
        )
    for name in names:
        try:
            os.stat(name)
        except FileNotFoundError as error:
            raise SourceNotFoundError(f"{name} is a link to something that does not exist") from error
    if len(names) == 1:
        return find(names[0], headerless=headerless, pattern=pattern)
    if any(map(os.path.isdir, names)):
        raise SourceError(f"{path} matches folders: {listed(names)}; open one of them, or name the files in it")
    return _of_one_format(names, path, headerless)


def _globbed(path: str) -> list[str]:
    """Expand a glob; brackets and stars in the names of existing folders are literal."""
    folder = Path(path)
    while not folder.is_dir():
        folder = folder.parent
    pattern = os.path.relpath(path, folder)
    for tried in (pattern, pattern.replace("[", "[[]")):
        names = glob.glob(os.path.join(glob.escape(str(folder)), tried), recursive=True)
        if names:
            return names
    return []


def _in_folder(folder: Path, headerless: bool, pattern: str | None) -> Found:
    """Find the files in a folder, or the folder itself if it is one movie."""
    where, one = str(folder), format_of_folder(folder)
    if one is not None and pattern is None and not headerless:
        if one.name != "Suite2p":
            return Found(one, [where], where)
        names = [str(folder / name) for name in SUITE2P if (folder / name).is_file()]
        if names:
            return Found(one, names, where)
    planes = {str(mark.parent) for name in ("ops", "db") for mark in folder.glob(f"plane*/{name}.npy")}
    if planes:
        raise SourceError(
            f"{folder} holds the planes of Suite2p, a movie each: {listed(sorted(planes, key=natural))}; open one of "
            "them"
        )
    files = [str(entry) for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    names = sorted(files, key=natural)
    if pattern is not None:
        names = [name for name in names if fnmatch.fnmatchcase(os.path.basename(name), pattern)]
        if not names:
            raise SourceNotFoundError(
                f"pattern={pattern!r} matches none of the {len(files)} files in {folder}: "
                f"{listed(sorted(map(os.path.basename, files), key=natural))}"
            )
    return replace(_of_one_format(names, where, headerless, folder=folder), pattern=pattern)


def _of_one_format(
    names: list[str], where: str, headerless: bool, in_order: bool = False, folder: Path | None = None
) -> Found:
    """Check that files have one format; those from a ``folder`` may include files of no known format."""
    for name in names:
        _check_regular(name)
    if headerless:
        if not names:
            raise SourceError(f"{where} holds no file")
        return Found(BY_NAME["headerless"], names, where, in_order)
    formats = {name: format_of(name) for name in names}
    suffixes = {Path(name).suffix.lower() for name, found in formats.items() if found is not None}
    for name in [name for name, found in formats.items() if found is None]:
        alike = bool(suffixes) if folder is None else Path(name).suffix.lower() in suffixes
        if alike and is_blank(name):  # a damaged file of this recording
            continue
        if folder is None:
            raise SourceError(
                f"{name} ({os.path.getsize(name)} bytes): unrecognised format; supported are {KINDS}. A binary without "
                "a header opens with open_source(path, shape=(-1, height, width), dtype=...)"
            )
        del formats[name]
    if folder is not None and not formats:
        inside = sorted((entry.name for entry in folder.iterdir() if entry.is_dir()), key=natural)
        hint = f". It holds folders, {listed(inside)}: open one of them" if inside else ""
        raise SourceError(f"the folder {folder} holds no movie; formats that can be read: {KINDS}{hint}")
    known = {found.name for found in formats.values() if found is not None}
    if "OME-XML" in known and known <= {"OME-XML", "TIFF"}:  # the companion file describes the others
        known = {"OME-XML"}
        formats = {name: found for name, found in formats.items() if found == BY_NAME["OME-XML"]}
    if len(known) > 1:
        of_kind = [[os.path.basename(n) for n, one in formats.items() if one and one.name == kind] for kind in known]
        raise ChoiceNeeded(
            f"{where} holds files of several formats, {', '.join(sorted(known))}: name those of one with pattern=, a "
            "glob over file names",
            "pattern",
            sorted(group.stem for names in of_kind for group in grouped(names)),
        )
    return Found(BY_NAME[known.pop()], list(formats), where, in_order)


def _check_regular(name: str) -> None:
    """Raise for pipes and devices, where reading could block forever."""
    mode = os.stat(name).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        raise SourceError(
            f"{name} is {kinds.get(stat.S_IFMT(mode), 'a device')}, and movies are read from files: name the file, or "
            "leave it out of the glob"
        )
