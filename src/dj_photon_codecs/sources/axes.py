"""Axes as letters: T (time), P (position), Z (plane), C (channel), Y (height), X (width), ``?`` (no name)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, SourceError
from .messages import warn_source

#: Names of a movie's axes.
WORDS = {"T": "time", "Z": "plane", "Y": "height", "X": "width", "?": "axis"}
#: Explanation of ``axes=`` in messages.
AXES_HELP = (
    "with axes=, one letter for each axis: T (time), Z (plane), C (channel), P (position), Y (height) and X (width)"
)
#: Axis names in lower case. OME-Zarr uses the letters themselves.
_LETTER_OF = {
    # In tifffile, Q is an axis without a name and I is the axis of pages.
    **dict.fromkeys(("t", "time", "times", "timepoint", "timepoints", "frame", "frames", "q", "i"), "T"),
    **dict.fromkeys(("z", "plane", "planes", "depth", "slice", "slices"), "Z"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "C"),
    **dict.fromkeys(("p", "position", "positions", "scene"), "P"),
    **dict.fromkeys(("y", "height", "row", "rows"), "Y"),
    **dict.fromkeys(("x", "width", "column", "columns", "col", "cols"), "X"),
}
_INVENTED = ("dim_", "phony_dim", "axis_")  # prefixes of placeholder names that libraries assign


def given_axes(axes: str | None, shape: tuple[int, ...], where: str) -> str:
    """Check and return the caller's axes; by default (time, ..., height, width), as for arrays in memory."""
    if axes is None:
        if len(shape) < 3:
            raise SourceError(f"{where} has shape {shape}: a movie has at least 3 axes (time, ..., height, width)")
        return "T" + "?" * (len(shape) - 3) + "YX"
    letters = axes.upper()
    doubtful = set(letters) - set("TPZCYX") or len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters)
    if doubtful or len(letters) != len(shape):
        raise ConfigurationError(
            f"axes={axes!r} must give each axis of {where}, shape {shape}, one of the letters T (time), Z (plane), "
            "C (channel), P (position), Y (height) and X (width), with Y and X among them"
        )
    return letters


def spelled(names: Sequence[Any]) -> list[Any]:
    """Extract the axis names, which OME-Zarr keeps in dictionaries."""
    return [name.get("name") if isinstance(name, dict) else name for name in names]


def letters_of(names: Sequence[Any] | None) -> str | None:
    """One letter per axis, ``?`` if unnamed and ``!`` for an unknown name; None if no axis has a name."""
    letters = "".join(
        "?" if name in (None, "") or str(name).startswith(_INVENTED) else _LETTER_OF.get(str(name).lower(), "!")
        for name in spelled(names or ())
    )
    return None if set(letters) <= {"?"} else letters


def understood(letters: str) -> bool:
    """Whether the letters identify time, height and width, without duplicates."""
    named = letters.replace("?", "")
    return "!" not in named and len(set(named)) == len(named) and set(named) >= {"T", "Y", "X"}


def warn_of_names(where: str, names: Sequence[Any] | None, remedy: str) -> None:
    """Warn of axis names that do not identify time, height and width."""
    warn_source(
        f"{where} has axes named {', '.join(map(str, spelled(names or ())))}, which do not say what time, height and "
        f"width are: they are taken as (time, ..., height, width). {remedy}"
    )


def in_order(value: Any, names: Sequence[Any] | None, where: str) -> Any:
    """Transpose an array with named axes to (time, ..., height, width); if names are unclear, warn and leave it."""
    letters = letters_of(names)
    if letters is None or len(letters) != len(value.shape):
        return value
    if not understood(letters):
        warn_of_names(where, names, "Name them time, y and x, or transpose it")
        return value
    if "C" in letters and value.shape[letters.index("C")] > 1:
        warn_source(
            f"{where} holds {value.shape[letters.index('C')]} channels, each with its own noise, and one noise model "
            "is measured for all of them: store one channel at a time"
        )
    first, *last = (letters.index(letter) for letter in "TYX")
    order = (first, *(i for i in range(len(letters)) if i not in (first, *last)), *last)
    if order == tuple(range(len(order))):
        return value
    if hasattr(value, "dims") and hasattr(value, "isel"):  # xarray
        return value.transpose(*[value.dims[i] for i in order])
    return _Transposed(value, order)


class _Transposed:
    """An array with its axes in another order, read in runs of frames."""

    def __init__(self, value: Any, order: tuple[int, ...]) -> None:
        self._value, self._order = value, order
        self.shape = tuple(value.shape[i] for i in order)
        self.dtype, self.ndim = value.dtype, len(order)

    def __getitem__(self, frames: slice) -> AnyArray:
        index = [slice(None)] * self.ndim
        index[self._order[0]] = frames
        return np.ascontiguousarray(np.asarray(self._value[tuple(index)]).transpose(self._order))
