"""The place of a movie in a store. It opens the store when needed, once per process, and its repr shows no secrets."""

from __future__ import annotations

import atexit
import os
import re
import stat
import traceback
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StorePath

from .._system import after_fork_in_child, path_of_file_url
from .._threads import wait
from .._typing import AnyArray
from .._zarr import Buffer, default_buffer_prototype, end_tasks, open_store, submit
from ..errors import ConfigurationError, PhotonCodecError, StorageError

#: Names of filesystem options that are secrets: key, secret_key, sas_token, connection_string...
_SECRET_NAMES = re.compile("key|secret|token|pass|credential|connection_string|sign|auth|cookie", re.IGNORECASE)

#: Shorter values are not hidden, because that would blank out ordinary words.
_SHORTEST_SECRET = 4

#: The password in a URL, and its query (the signature of a signed URL).
_URL_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]*(?=@)")
_URL_QUERY = re.compile(r"(://[^\s'\"?#]*\?)[^\s'\"#]+")


class FolderStore(LocalStore):
    """A local folder. Named pipes in it are errors, because opening one blocks until another process writes to it."""

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Read like the base class, but only regular files."""
        if (self.root / key).is_fifo():
            raise OSError(f"{self.root / key} is a named pipe, not a file")
        return await super().get(key, *args, **options)

    def read(self, key: str, byte_range: Any) -> bytes | None:
        """Read like :meth:`get`, in the calling thread."""
        path = os.path.join(self.root, key)
        try:
            if stat.S_ISFIFO(os.stat(path).st_mode):
                raise OSError(f"{path} is a named pipe, not a file")
            with open(path, "rb") as file:
                if byte_range is None:
                    return file.read()
                size = os.fstat(file.fileno()).st_size
                start, stop = getattr(byte_range, "start", None), getattr(byte_range, "end", size)
                start = max(0, size - byte_range.suffix) if start is None else start
                file.seek(start)
                return file.read(max(0, min(stop, size) - start))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None


@dataclass(frozen=True)
class Location:
    """The folder of one movie: a local path, a path on an fsspec filesystem, or a path in a zarr store.

    Attributes
    ----------
    label
        Path or URL without credentials, for messages.
    root
        Path of the folder on the local machine, on ``filesystem`` or in the store ``given``, where it may be empty.
        If it is a URL, it may contain a password.
    filesystem
        None for local paths. Holds the credentials, so the repr leaves it out.
    given
        The store object, if the caller passed one.
    store_name
        Name of the store in the configuration, if there is one; shown in errors.
    store_root
        Path of that store, if known.
    unused
        True for freshly generated random paths, which need no emptiness check.
    """

    label: str
    root: str = field(repr=False)
    filesystem: Any = field(default=None, repr=False, compare=False)
    given: Store | None = field(default=None, repr=False, compare=False)
    store_name: str | None = field(default=None, repr=False, compare=False)
    store_root: str | None = field(default=None, repr=False, compare=False)
    unused: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def of(cls, target: object) -> Location:
        """Return the location of ``target``.

        Parameters
        ----------
        target
            A path, a URL, a zarr store, a ``StorePath``, a dict (zarr's in-memory store), or an fsspec mapping or
            filesystem.

        Raises
        ------
        ConfigurationError
            If it is anything else.
        """
        if isinstance(target, Location):
            return target
        if isinstance(target, StorePath):
            return cls._in_store(target.store, target.path)
        if isinstance(target, dict) and all(isinstance(content, Buffer) for content in target.values()):
            target = MemoryStore(target)  # a dict of anything else may be the settings of a store
        if isinstance(target, Store):
            return cls._in_store(target, "")
        if isinstance(target, fsspec.FSMap):
            return cls._on(target.fs, target.root)
        if isinstance(target, fsspec.AbstractFileSystem):
            return cls._on(target, target.root_marker)
        if isinstance(target, os.PathLike):
            target = os.fspath(target)
        if not isinstance(target, str) or not target:
            # show only simple values: store settings contain secret keys
            value = f" {target!r}" if isinstance(target, str | int | float) else ""
            raise ConfigurationError(
                "a movie is stored under a path, a URL, or in a store of zarr or fsspec, got "
                f"{type(target).__name__}{value}"
            )
        if target.startswith("file://"):
            return cls._local(path_of_file_url(target))
        if "://" in target:
            try:
                return cls._on(*fsspec.core.url_to_fs(target))
            except ValueError as error:  # an unknown protocol
                known = ", ".join(sorted(fsspec.available_protocols()))
                raise ConfigurationError(f"{_shown(target)}: {error}; known are {known}") from error
        return cls._local(target)

    @classmethod
    def _local(cls, path: str) -> Location:
        path = str(Path(path).expanduser().absolute())
        return cls(label=path, root=path)

    @classmethod
    def _on(cls, filesystem: Any, path: str) -> Location:
        while isinstance(filesystem, DirFileSystem):  # zarr cannot reopen this wrapper
            filesystem, path = filesystem.fs, filesystem._join(path)
        if isinstance(filesystem, LocalFileSystem):
            return cls._local(path)
        return cls(label=_shown(filesystem.unstrip_protocol(path)), root=path, filesystem=filesystem)

    @classmethod
    def _in_store(cls, store: Store, path: str) -> Location:
        if isinstance(store, LocalStore) and type(store) in (LocalStore, FolderStore) and not store.read_only:
            return cls._local(str(store.root / path))
        open_store(store)
        name = _shown(" ".join(str(store).split()))  # the str of some stores has several lines
        return cls(label=f"{name.rstrip('/')}/{path}" if path else name, root=path, given=store)

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder."""
        return self.filesystem is None and self.given is None

    @property
    def prefix(self) -> str:
        """Prefix of the movie's keys in its store: empty, or a path that ends in "/"."""
        return f"{self.root}/" if self.given is not None and self.root else ""

    @property
    def is_icechunk(self) -> bool:
        """Whether it is in an icechunk session, which accepts only Zarr's keys, and no chunk before the metadata."""
        return type(self.given).__module__.split(".")[0] == "icechunk"

    def open(self, *, read_only: bool) -> Store:
        """Return a zarr store for this process, in which the movie is at :attr:`prefix`. Does no I/O."""
        if self.given is not None:
            return self._given(read_only)
        if self.filesystem is None:
            return FolderStore(self.root, read_only=read_only)
        filesystem = self.filesystem
        forked = getattr(filesystem, "_pid", os.getpid()) != os.getpid()
        blocking = filesystem.async_impl and not filesystem.asynchronous
        if forked or blocking:
            # Create it again: after a fork, its connections and event loop belong to the parent. zarr would recreate
            # a blocking one through JSON, which fails for None, DataJoint's value for keys from the environment.
            options = {name: value for name, value in filesystem.storage_options.items() if value is not None}
            if blocking:
                options["asynchronous"] = True
            filesystem = type(filesystem)(*filesystem.storage_args, **options)
        if filesystem.async_impl:
            _connected.add(filesystem)
        return FsspecStore.from_mapper(fsspec.FSMap(self.root, filesystem), read_only=read_only)

    def _given(self, read_only: bool) -> Store:
        """Return the caller's store, made read-only if requested and possible.

        Raises ConfigurationError if it is to be written to and is read-only.
        """
        store = self.given
        assert store is not None
        if not read_only and (store.read_only or not store.supports_writes):
            raise ConfigurationError(f"the store {self.label} is read-only: open it for writing to store a movie in it")
        if not read_only or store.read_only:
            return store
        try:
            return store.with_read_only(True)
        except (NotImplementedError, TypeError):  # zip files, and classes with a different constructor
            return store

    @contextmanager
    def errors_named(self, failed: str) -> Iterator[None]:
        """Convert every error of the store into a StorageError.

        ``failed`` says what failed, with the object and the label; the text of the cause is appended. The original
        error becomes the ``__cause__`` unless its traceback shows a secret.
        """
        try:
            yield
        except (PhotonCodecError, CancelledError):
            raise
        except Exception as error:  # OSError, and errors of botocore, aiohttp and others, which share no base class
            secrets = self._secrets()
            cause = ": ".join(filter(None, (type(error).__name__, str(error))))
            cause += f" (store {self.store_name!r})" if self.store_name else ""
            told = "".join(traceback.format_exception(error))
            harmless = _shown(told, secrets) == told
            try:
                raise StorageError(_shown(f"{failed}: {cause}", secrets)) from (error if harmless else None)
            except StorageError as named:
                if not harmless:
                    named.__context__ = None  # not printed, but tblib (used by dask.distributed) pickles it
                raise

    def _secrets(self) -> set[str]:
        """Return the credentials that the filesystem was created with."""
        filesystem = self.filesystem or getattr(self.given, "fs", None)
        found = set(_named_secrets(getattr(filesystem, "storage_options", {})))
        password = urlsplit(self.root).password if "://" in self.root else None
        return found | ({password, unquote(password)} if password else set())


def _named_secrets(options: Any, secret: bool = False) -> Iterator[str]:
    """Yield the values of secret options, at any depth of a filesystem's options."""
    if isinstance(options, dict):
        for name, value in options.items():
            yield from _named_secrets(value, secret or bool(_SECRET_NAMES.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _named_secrets(value, secret)
    elif secret and isinstance(options, str) and len(options) >= _SHORTEST_SECRET:
        yield options


def _shown(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text with the secrets in URLs, and the given ones, replaced by asterisks."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL_QUERY.sub(r"\1***", _URL_PASSWORD.sub(r"\1***", text))


#: Filesystems whose connections this process closes on exit.
_connected: weakref.WeakSet[Any] = weakref.WeakSet()

#: Filesystems of the parent process. fsspec drops them after a fork, and their unclosed sessions would warn.
_inherited: list[Any] = []

after_fork_in_child(lambda: _inherited.extend(_connected))


@atexit.register  # registered after zarr's, so called before it ends the event loop
def _close_connections() -> None:
    """Close sessions of S3, Google and HTTP, because fsspec does not close those of other event loops."""
    end_tasks(timeout=2)  # left by interrupted reads
    for filesystem in list(_connected):
        client, session = getattr(filesystem, "_s3creator", None), getattr(filesystem, "_session", None)
        if getattr(filesystem, "_pid", None) == os.getpid():
            with suppress(Exception):  # any type; the process is ending anyway
                if client is not None:
                    submit(client.__aexit__(None, None, None)).result(timeout=1)
                elif session is not None:
                    submit(session.close()).result(timeout=1)


class ProcessStore:
    """The store of a location, opened once per process; a forked worker opens its own."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._opened: tuple[int, Store] | None = None

    def get(self) -> Store:
        """Return the store, opened read-only for this process."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # no lock: a child forked while another thread holds it would wait forever; opening does no I/O
            opened = (os.getpid(), self.location.open(read_only=True))
            self._opened = opened
        return opened[1]

    def read(self, key: str, byte_range: Any) -> AnyArray | None:
        """Read bytes of an object, all of them if ``byte_range`` is None; returns None if there is no such object.

        Some stores return the whole object for any range. Do not call on zarr's event loop.
        """
        store = self.get()
        try:
            if type(store) is FolderStore:
                content = store.read(key, byte_range)
                return None if content is None else np.frombuffer(content, np.uint8)
            try:
                buffer = wait(submit(store.get(key, default_buffer_prototype(), byte_range)))
            except NotImplementedError:
                buffer = wait(submit(store.get(key, default_buffer_prototype())))
        except (FileNotFoundError, KeyError):
            return None
        return None if buffer is None else buffer.as_numpy_array()

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["location"])  # type: ignore[misc]  # builds the object in one place
