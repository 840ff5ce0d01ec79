"""Where an array lives: opened when it is needed, again in every process, and with no secret in its repr."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from ..errors import ConfigurationError


@dataclass(frozen=True)
class Location:
    """The folder of one array: a local path, a path on an fsspec filesystem, or a zarr store object.

    Attributes
    ----------
    label
        What users are shown: a path or URL without credentials.
    root
        Path of the folder, on the local machine or on ``filesystem``.
    filesystem
        None for local paths. Carries the credentials, and so is kept out of the repr.
    given
        The store object itself, when the caller brought one.
    """

    label: str
    root: str
    filesystem: Any = field(default=None, repr=False, compare=False)
    given: Store | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, target: object) -> Location:
        """Where ``target``, a path, a URL or a zarr store, points.

        Raises
        ------
        ConfigurationError
            For anything else.
        """
        if isinstance(target, Location):
            return target
        if isinstance(target, Store):
            return cls(label=str(target), root="", given=target)
        if isinstance(target, os.PathLike):
            target = os.fspath(target)
        if not isinstance(target, str) or not target:
            raise ConfigurationError(
                f"a movie is stored under a path, a URL or a zarr store, got {type(target).__name__} {target!r}"
            )
        if "://" in target and not target.startswith("file://"):
            filesystem, path = fsspec.core.url_to_fs(target)
            return cls(label=filesystem.unstrip_protocol(path), root=path, filesystem=filesystem)
        path = str(Path(target.removeprefix("file://")).expanduser().absolute())
        return cls(label=path, root=path)

    def open(self, *, read_only: bool) -> Store:
        """A zarr store on this folder, for this process. Does no I/O."""
        if self.given is not None:
            return self.given.with_read_only(read_only) if self.given.read_only != read_only else self.given
        if self.filesystem is None:
            return LocalStore(self.root, read_only=read_only)
        filesystem = self.filesystem
        if getattr(filesystem, "_pid", os.getpid()) != os.getpid():
            # After a fork its connections and event loop belong to the parent: make it anew.
            filesystem = type(filesystem)(*filesystem.storage_args, **filesystem.storage_options)
        return FsspecStore.from_mapper(fsspec.FSMap(self.root, filesystem), read_only=read_only)


class ProcessStore:
    """The store of a location, opened once per process: a forked worker opens its own."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._opened: tuple[int, Store] | None = None

    def get(self) -> Store:
        """The store, read-only, for this process."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # no lock: a child forked while another thread held it would wait for ever, and opening does no I/O
            opened = (os.getpid(), self.location.open(read_only=True))
            self._opened = opened
        return opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["location"])  # type: ignore[misc]  # same construction, one way
