"""Object protocols of the lazy arrays: conversion to numpy, comparison, hashing, copying and operators.

numpy, DataJoint and other libraries iterate over or convert anything that looks like an array. By default, that would
read whole movies or give wrong results. :class:`LazyArray` handles each case. In two of them only the calling frame
reveals what is wanted:

- ``numpy.asarray(movie)`` must read the movie. ``numpy.array(movies)`` on a list must not: DataJoint calls it to build
  a column from fetched values, and 200 movies do not fit into memory. numpy calls ``__array__`` with the same
  arguments, after the same attribute look-ups, in both cases. Only ``dtype=object`` distinguishes them.
- DataJoint uses deepdiff to compare two results of ``make_fetch``. deepdiff iterates over any iterable before it tries
  a hash.
"""

from __future__ import annotations

import ast
import linecache
import math
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from .._system import memory_bytes
from .._typing import AnyArray
from .reductions import Reductions


class _NotInMemoryError(TypeError, AttributeError):
    """A missing operation of lazy arrays: a TypeError for users, an AttributeError for ``hasattr`` and ``getattr``."""


class LazyArray(Reductions):
    """An array that is read on indexing, and compared and hashed by identity."""

    if TYPE_CHECKING:  # provided by subclasses, as in Reductions

        @property
        def _identity(self) -> tuple[str, ...]: ...
        def __getitem__(self, selection: Any) -> Any: ...
        def frames(  # noqa: D102
            self, start: int = 0, stop: int | None = None, *, dtype: npt.DTypeLike | None = None
        ) -> Iterator[AnyArray]: ...

    def _instead(self, expression: str) -> str:
        """Return code that evaluates the expression in memory, for error messages."""
        return f"movie[...]{expression}"

    def __iter__(self) -> Iterator[Any]:
        if _package_of(sys._getframe(1)) == "deepdiff":
            return iter((type(self).__name__, *self._identity))
        return self.frames()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """Read all values. Object arrays and DataJoint columns hold the lazy array itself.

        Raises
        ------
        ValueError
            For ``copy=False``, or if the caller applies ``numpy.array`` to a list.
        MemoryError
            If the values exceed the machine's memory.
        """
        if copy is False:
            raise ValueError("reading from a store always makes a copy: leave out copy=False")
        wanted, caller = self.dtype if dtype is None else np.dtype(dtype), sys._getframe(1)
        if wanted == np.dtype(object) or _package_of(caller) == "datajoint":
            whole = np.empty((), object)
            whole[()] = self
            return whole
        if _makes_array_of_list(caller):
            raise ValueError(
                "numpy.array of a list would read every movie in it: numpy.array(movies, dtype=object) keeps them "
                "unread, and numpy.stack(movies) reads them"
            )
        n_bytes, most = math.prod(self.shape) * wanted.itemsize, memory_bytes()
        if most is not None and n_bytes > most:
            raise MemoryError(
                f"{self.shape} of {wanted} are {n_bytes / 1e9:.1f} GB, and this machine has {most / 1e9:.1f} GB of "
                f"memory: read a part, such as {self._instead('')}"
            )
        return np.asarray(self[...]).astype(wanted, copy=False)

    def same_movie(self, other: object) -> bool:
        """True if the other array shows the same stored movie: same location and same content."""
        return isinstance(other, LazyArray) and self._identity == other._identity

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LazyArray):
            return self.same_movie(other)
        if isinstance(other, _VALUES):
            self._refuse(" == ...")
        return NotImplemented  # arrays of other libraries compare elements; anything else is unequal

    def __hash__(self) -> int:
        return hash(self._identity)

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return (type(self).__name__, *self._identity)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self  # immutable, and a copied store would be a different store

    def __contains__(self, value: Any) -> bool:
        """True if an element has this value; reads until it is found."""
        if not isinstance(value, int | float | np.number):
            raise TypeError(f"a movie contains numbers, not {value!r:.100}")
        return any(bool((values == value).any()) for _, values in self._blocks())

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _refuse(self, expression: str) -> NoReturn:
        raise _NotInMemoryError(
            f"a {type(self).__name__} reads nothing until it is indexed, and has no {expression.strip()}: write "
            f"{self._instead(expression)}"
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(np.ndarray, name):
            self._refuse(f".{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


#: Operand types that are refused here. Arrays of other libraries handle the operation themselves.
_VALUES = (int, float, complex, list, LazyArray)


def _refusal(expression: str) -> Callable[[Any, Any], Any]:
    def refuse(self: LazyArray, other: Any) -> Any:
        if isinstance(other, _VALUES):
            self._refuse(expression)
        return NotImplemented

    return refuse


_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_OPERATIONS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**"}
for _name, _sign in {**_COMPARISONS, **_OPERATIONS}.items():
    setattr(LazyArray, f"__{_name}__", _refusal(f" {_sign} ..."))
    if _name in _OPERATIONS:
        setattr(LazyArray, f"__r{_name}__", _refusal(f" {_sign} ..."))


#: numpy functions that build an array from a list.
_MAKERS = {"array", "asarray", "asanyarray", "ascontiguousarray"}


def _package_of(frame: FrameType) -> str:
    """Return the name of the package whose code runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _makes_array_of_list(frame: FrameType) -> bool:
    """Return True if the source shows that a frame calls ``numpy.array`` or similar on a list or tuple.

    False without source, for any other argument, and inside numpy, because ``numpy.mean`` of a list needs the values.
    """
    call = None if _package_of(frame) == "numpy" else _current_call(frame)
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
