"""Where an array lives: opened when it is needed, again in every process, and with no secret in its repr."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from ..errors import ConfigurationError, PhotonCodecError, StorageError

#: Options of a filesystem that are secrets, by their names: key, secret_key, sas_token, connection_string...
_SECRET_NAMES = re.compile("key|secret|token|pass|credential|connection_string|sign|auth|cookie", re.IGNORECASE)

#: Shorter values are not searched for: they would take ordinary words out of a message.
_SHORTEST_SECRET = 4

#: The password in a URL, and what follows its question mark (the signature of a signed address).
_URL_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]*(?=@)")
_URL_QUERY = re.compile(r"(://[^\s'\"?#]*\?)[^\s'\"#]+")


@dataclass(frozen=True)
class Location:
    """The folder of one array: a local path, a path on an fsspec filesystem, or a zarr store object.

    Attributes
    ----------
    label
        What users are shown: a path or URL without credentials.
    root
        Path of the folder, on the local machine or on ``filesystem``; a URL there may hold a password.
    filesystem
        None for local paths. Carries the credentials, and so is kept out of the repr.
    given
        The store object itself, when the caller brought one.
    store_name
        What the configuration calls the store that it is in, where there is one; errors tell it.
    unused
        Whether nothing can be there: its name was made up at random.
    """

    label: str
    root: str = field(repr=False)
    filesystem: Any = field(default=None, repr=False, compare=False)
    given: Store | None = field(default=None, repr=False, compare=False)
    store_name: str | None = field(default=None, repr=False, compare=False)
    unused: bool = field(default=False, repr=False, compare=False)

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
            return cls(label=_shown(str(target)), root="", given=target)
        if isinstance(target, os.PathLike):
            target = os.fspath(target)
        if not isinstance(target, str) or not target:
            # of other types not the value: the settings of a store hold its keys
            value = f" {target!r}" if isinstance(target, str | int | float) else ""
            raise ConfigurationError(
                f"a movie is stored under a path, a URL or a zarr store, got {type(target).__name__}{value}"
            )
        if "://" in target and not target.startswith("file://"):
            filesystem, path = fsspec.core.url_to_fs(target)
            return cls(label=_shown(filesystem.unstrip_protocol(path)), root=path, filesystem=filesystem)
        path = str(Path(target.removeprefix("file://")).expanduser().absolute())
        return cls(label=path, root=path)

    def open(self, *, read_only: bool) -> Store:
        """A zarr store on this folder, for this process. Does no I/O."""
        if self.given is not None:
            return self.given.with_read_only(read_only) if self.given.read_only != read_only else self.given
        if self.filesystem is None:
            return LocalStore(self.root, read_only=read_only)
        filesystem = self.filesystem
        forked = getattr(filesystem, "_pid", os.getpid()) != os.getpid()
        blocking = filesystem.async_impl and not filesystem.asynchronous
        if forked or blocking:
            # After a fork its connections and event loop belong to the parent: make it anew. And zarr would make one
            # for its own event loop by way of JSON, which fsspec cannot for None: DataJoint's word for a key that the
            # environment has.
            options = {name: value for name, value in filesystem.storage_options.items() if value is not None}
            if blocking:
                options["asynchronous"] = True
            filesystem = type(filesystem)(*filesystem.storage_args, **options)
        return FsspecStore.from_mapper(fsspec.FSMap(self.root, filesystem), read_only=read_only)

    @contextmanager
    def errors_named(self, failed: str) -> Iterator[None]:
        """Within this context, whatever the store raises becomes one error of ours.

        Parameters
        ----------
        failed
            What it means, with the name of the object and the label; the cause is added.

        Raises
        ------
        StorageError
            With the cause in its text and, unless that shows a secret, as its ``__cause__``.
        """
        try:
            yield
        except PhotonCodecError:
            raise
        except Exception as error:  # OSError, botocore's, aiohttp's, a cloud library's: they have no common base
            secrets = self._secrets()
            cause = ": ".join(filter(None, (type(error).__name__, str(error))))
            cause += f" (store {self.store_name!r})" if self.store_name else ""
            told = "".join(traceback.format_exception(error))
            harmless = _shown(told, secrets) == told
            try:
                raise StorageError(_shown(f"{failed}: {cause}", secrets)) from (error if harmless else None)
            except StorageError as named:
                if not harmless:
                    named.__context__ = None  # not printed, but some pickle it (tblib, which dask.distributed installs)
                raise

    def _secrets(self) -> set[str]:
        """Credentials that the filesystem was made with."""
        filesystem = self.filesystem or getattr(self.given, "fs", None)
        found = set(_named_secrets(getattr(filesystem, "storage_options", {})))
        password = urlsplit(self.root).password if "://" in self.root else None
        return found | ({password, unquote(password)} if password else set())


def _named_secrets(options: Any, secret: bool = False) -> Iterator[str]:
    """Strings at any depth of a filesystem's options that stand under the name of a secret."""
    if isinstance(options, dict):
        for name, value in options.items():
            yield from _named_secrets(value, secret or bool(_SECRET_NAMES.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _named_secrets(value, secret)
    elif secret and isinstance(options, str) and len(options) >= _SHORTEST_SECRET:
        yield options


def _shown(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without the secrets of URLs in it, and without others that are known."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL_QUERY.sub(r"\1***", _URL_PASSWORD.sub(r"\1***", text))


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
