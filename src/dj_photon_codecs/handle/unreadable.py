"""A placeholder for the handle of an unreadable row, so that the other rows can still be fetched."""

from __future__ import annotations

from html import escape
from typing import Any, NoReturn

from .._arguments import three_lines
from ..errors import PhotonCodecError
from .array import PhotonArray


class UnreadableArray(PhotonArray):
    """A handle that raises the error of its row on every use, except for its repr."""

    def __init__(self, problem: PhotonCodecError) -> None:
        self._problem = problem

    def _raise(self) -> NoReturn:
        # a new exception each time; reusing one would accumulate tracebacks
        raise type(self._problem)(*self._problem.args) from self._problem.__cause__

    #: All that a handle is made from.
    _location = _documents = _record = property(_raise)

    @property
    def _identity(self) -> tuple[str, ...]:
        return ("unreadable", str(self._problem))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._problem,)

    def __repr__(self) -> str:
        return three_lines(f"<PhotonArray that cannot be read: {self._problem}>")

    def _repr_html_(self) -> str:
        return f"<div>PhotonArray that cannot be read: {escape(str(self._problem))}</div>"
