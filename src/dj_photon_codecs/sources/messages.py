"""Messages and checks shared by several readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .._warn import warn
from ..errors import SourceError, SourceWarning


def warn_source(text: str) -> None:
    """Warn of incomplete or doubtful files."""
    warn(text, SourceWarning)


def listed(names: Sequence[Any], most: int = 5, more: str = "more") -> str:
    """Format the first names, and the number of others."""
    rest = f" and {len(names) - most} {more}" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + rest


def runs(gaps: Iterable[tuple[int, int]], step: int = 1) -> str:
    """Format the numbers between each pair: ``3, 7-8``."""
    parts = [f"{a + step}" if b - a == 2 * step else f"{a + step}-{b - step}" for a, b in gaps]
    return listed(parts, 10, "more gaps")


def shown(path: str | Sequence[str]) -> str:
    """Format a path for messages: a URL without password and signature."""
    if not isinstance(path, str):
        return f"the list of {len(path)} files from {path[0]}"
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def whole_volumes(name: str, images: int, per_volume: int, what: str = "frames", last: str = "", hint: str = "") -> int:
    """Number of complete volumes in a recording; warn if the last is incomplete, and raise if there is none."""
    volumes, left = divmod(images, per_volume)
    if not volumes:
        raise SourceError(f"{name} has {images} {what}, and one volume takes {per_volume}{hint}")
    if left:
        warn_source(f"{last or name} ends within a volume: its last {left} of {per_volume} {what} are left out")
    return volumes
