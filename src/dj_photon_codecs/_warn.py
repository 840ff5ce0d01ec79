"""Warnings that name their movie, and point to the user's code that stored it."""

from __future__ import annotations

import sys
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)

#: Table of the movie being stored, and its column and key.
_ABOUT: ContextVar[tuple[str, str] | None] = ContextVar("_ABOUT", default=None)

#: Warnings to be issued later, by another thread.
_COLLECTED: ContextVar[deque[tuple[str, type[Warning]]] | None] = ContextVar("_COLLECTED", default=None)

#: Number of warnings per category and table.
_COUNTS: Counter[tuple[type[Warning], str]] = Counter()


@contextmanager
def warnings_about(table: str, place: str) -> Iterator[None]:
    """Prefix warnings with the table and the place in it."""
    token = _ABOUT.set((table, place))
    try:
        yield
    finally:
        _ABOUT.reset(token)


@contextmanager
def collected_warnings(told: deque[tuple[str, type[Warning]]]) -> Iterator[None]:
    """Collect this thread's warnings instead of issuing them."""
    token = _COLLECTED.set(told)
    try:
        yield
    finally:
        _COLLECTED.reset(token)


def warn(text: str, category: type[Warning]) -> None:
    """Warn the user's code that called this package, directly or through DataJoint.

    The 10th, 100th, ... warning of a category about a table also gives their number.
    """
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append((text, category))
        return
    about = _ABOUT.get()
    if about is not None:
        table, place = about
        _COUNTS[category, table] += 1
        count = _COUNTS[category, table]
        text = f"table {table}, {place}: {text}"
        if count >= 10 and str(count).strip("0") == "1":
            text += (
                f". These are {count} such warnings for {table} in this process; "
                f"warnings.simplefilter('ignore', {category.__name__}) silences them"
            )
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE)
        or frame.f_globals.get("__name__", "").partition(".")[0] in ("contextlib", "datajoint")
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
