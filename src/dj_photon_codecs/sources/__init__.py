"""One lazy interface to movies in arrays and in the files of acquisition software."""

from __future__ import annotations

from .array import Source, as_source, check_unmasked, warn_of_time_last
from .files import FileMovie, check_names, names_files, open_source

__all__ = [
    "FileMovie",
    "Source",
    "as_source",
    "check_names",
    "check_unmasked",
    "names_files",
    "open_source",
    "warn_of_time_last",
]
