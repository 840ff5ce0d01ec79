"""Inspect the calling frame when only the caller reveals why a lazy array is converted to values.

``numpy.asarray(movie)`` must read the movie. ``numpy.array(movies)`` on a list must not: DataJoint calls it to build a
column from fetched values, and 200 movies do not fit into memory. numpy calls ``__array__`` with the same arguments,
after the same attribute look-ups, in both cases. Only ``dtype=object`` distinguishes them.

DataJoint uses deepdiff to compare two results of ``make_fetch``. deepdiff iterates over any iterable before it tries a
hash.
"""

from __future__ import annotations

import ast
import linecache
from itertools import islice
from types import FrameType

#: numpy functions that build an array from a list.
_MAKERS = {"array", "asarray", "asanyarray", "ascontiguousarray"}


def package_of(frame: FrameType) -> str:
    """Return the name of the package whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def makes_array_of_list(frame: FrameType) -> bool:
    """Return True if the source shows that a frame calls ``numpy.array`` or similar on a list or tuple.

    False without source, for any other argument, and inside numpy, because ``numpy.mean`` of a list needs the values.
    """
    call = None if package_of(frame) == "numpy" else _current_call(frame)
    if call is None or not call.args:
        return False
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = call.args[0]
    if isinstance(given, ast.Name):
        value = frame.f_locals.get(given.id, frame.f_globals.get(given.id))
        return function in _MAKERS and isinstance(value, list | tuple)
    return function in _MAKERS and isinstance(given, ast.List | ast.Tuple | ast.ListComp)


def _current_call(frame: FrameType) -> ast.Call | None:
    """Parse the call that a frame is executing; None if its source is not available."""
    first, last, begin, end = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    if first is None or last is None or begin is None or end is None or last > len(lines):
        return None
    text = [line.encode() for line in lines[first - 1 : last]]  # positions count bytes
    text[-1] = text[-1][:end]
    text[0] = text[0][begin:]
    try:
        parsed = ast.parse(b"".join(text), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return parsed if isinstance(parsed, ast.Call) else None
