"""One view of every movie: array-likes that are at hand, and files of acquisition software that are read lazily."""

from __future__ import annotations

from .array import Source, as_source
from .files import FileMovie, open_source

__all__ = ["FileMovie", "Source", "as_source", "open_source"]
