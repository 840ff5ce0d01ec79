"""Open what an old column holds, whatever its type, as a movie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datajoint import blob
from datajoint.builtin_codecs import NpyRef
from datajoint.codecs import decode_attribute
from datajoint.objectref import ObjectRef

from .._typing import Json
from ..errors import SourceError
from ..sources import names_files, open_source
from .columns import Column


@dataclass(frozen=True)
class Originals:
    """The movies of an old column.

    ``root`` is the folder that relative paths start from; ``options`` are arguments of ``open_source``, for files.
    """

    column: Column
    root: str | os.PathLike[str] | None = None
    options: Json = field(default_factory=dict)

    @contextmanager
    def opened(self, cell: Any) -> Iterator[Any]:
        """Open a raw value as a movie: an array, or a file that is closed and, if it was a download, removed again."""
        with TemporaryDirectory(prefix="dj-photon-", ignore_cleanup_errors=True) as folder:
            value = self._decoded(cell, folder)
            if isinstance(value, ObjectRef):
                value = _file(value, folder)
            elif isinstance(value, NpyRef) and self._is_local(value.store):
                value = value.load(mmap_mode="r")  # others are read into memory: a download would be left behind
            if not names_files(value):
                yield value
                return
            with open_source(self.path(value), **self.options) as movie:
                yield movie

    def _decoded(self, cell: Any, folder: str) -> Any:
        """Decode a raw value; an attachment becomes a file in ``folder``."""
        attribute, config = self.column.attribute, self.column.config
        with config.override(download_path=folder):
            value = decode_attribute(attribute, cell, connection=self.column.connection)
        if isinstance(value, bytes):  # a longblob of DataJoint before 2
            value = blob.unpack(value)
        if isinstance(value, bytes):
            raise SourceError(f"{len(value)} bytes that DataJoint did not write: {value[:16]!r}...")
        return value

    def _is_local(self, store: str | None) -> bool:
        return bool(self.column.config.get_store_spec(store)["protocol"] == "file")

    def path(self, value: Any) -> Any:
        """Return a path, or a list of paths, below the root; URLs and absolute paths as they are."""
        if self.root is None:
            return value
        if isinstance(value, list | tuple):
            return [self.path(one) for one in value]
        return value if "://" in str(value) else os.path.join(self.root, value)


def _file(reference: ObjectRef, folder: str) -> Path:
    """Return the file or folder that a reference names, downloaded unless it is on a disk of this machine."""
    path = Path(reference.full_path)
    if path.exists():
        return path
    into = Path(folder, path.name)
    reference.download(into)
    nested = into / path.name  # where fsspec puts the content of a folder
    return nested if reference.is_dir and nested.is_dir() else into
