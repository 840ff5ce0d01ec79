"""Where a movie is written to: the one door to the store, and all of the movie or nothing behind it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zarr.abc.store import Store

from .._typing import Json
from .._zarr import Buffer, default_buffer_prototype, submit
from ..errors import ConfigurationError, StorageError
from .location import Location

#: Failures in a row after which no further object is tried: each costs a store that is gone all its retries.
_GIVE_UP = 3

#: Objects that an error names one by one.
_NAMED = 20


class Target:
    """A folder that is being written to, and what was written there.

    Parameters
    ----------
    location
        The folder; empty when writing begins.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store: Store = location.open(read_only=False)
        self._written: list[str] = []

    async def put(self, key: str, content: Buffer) -> None:
        """Write one object.

        Raises
        ------
        StorageError
            When the store fails.
        """
        self._written.append(key)  # before it is: a store that answers too late has written it all the same
        with self.location.errors_named(f"object {key!r} of {self.location.label} could not be written"):
            await self._store.set(key, content)

    async def put_json(self, key: str, document: Json) -> None:
        """Write a JSON document; raises as :meth:`put`."""
        content = json.dumps(document, indent=2).encode()
        await self.put(key, default_buffer_prototype().buffer.from_bytes(content))

    def others_write(self, keys: Iterable[str]) -> None:
        """Note what other processes write here, so that it is removed with the rest."""
        self._written += keys

    async def is_empty(self) -> bool:
        """Whether nothing at all is stored there.

        Raises
        ------
        StorageError
            When the store fails.
        """
        with self.location.errors_named(f"{self.location.label} could not be listed"):
            async for _ in self._store.list():
                return False
        return True

    async def keys(self) -> list[str]:
        """The keys of all that is stored there.

        Raises
        ------
        StorageError
            When the store fails.
        """
        with self.location.errors_named(f"{self.location.label} could not be listed"):
            return [key async for key in self._store.list()]

    async def remove(self, key: str) -> None:
        """Remove one object.

        Raises
        ------
        StorageError
            When the store fails.
        """
        with self.location.errors_named(f"object {key!r} of {self.location.label} could not be removed"):
            await self._store.delete(key)

    async def clear(self) -> None:
        """Remove all that was written.

        Raises
        ------
        StorageError
            When some of it could not be removed; the error names it, and the rest is gone.
        """
        cause: Exception
        try:
            with suppress(FileNotFoundError):  # not even the folder was made
                await self._store.clear()
            left = [key async for key in self._store.list()]
            if not left:
                self._written.clear()
                return
            cause = OSError("the store answered that they were removed")
        except Exception as error:  # of any type, see Location.errors_named; now one by one
            left, cause = list(dict.fromkeys(self._written)), error
        kept: list[str] = []
        failures = 0
        for key in reversed(left):  # the metadata first: what is left must not open as an array
            if failures < _GIVE_UP:
                try:
                    await self._store.delete(key)
                    failures = 0
                    continue
                except Exception as error:
                    failures, cause = failures + 1, error
            kept.append(key)
        self._written = kept
        if kept:
            names = ", ".join(map(repr, kept[:_NAMED])) + (f" and {len(kept) - _NAMED} more" * (len(kept) > _NAMED))
            with self.location.errors_named(
                f"of what was written to {self.location.label}, {len(kept)} objects could not be removed: {names}. "
                "Remove them once the store works, or have DataJoint's garbage collector do so"
            ):
                raise cause


def empty_target(location: Location) -> Target:
    """A place to write to, in which nothing is yet.

    Raises
    ------
    ConfigurationError
        When something is stored there already; it is left as it is.
    StorageError
        When the store cannot be asked.
    """
    target = Target(location)
    if not location.unused and not submit(target.is_empty()).result():
        raise ConfigurationError(
            f"{location.label} is not empty: a movie is never written over another; choose a new path, "
            "or remove what is there"
        )
    return target


@contextmanager
def all_or_nothing(location: Location) -> Iterator[Target]:
    """A context in which a location is written to: what was written in it goes when it fails.

    What cannot be removed is named in a note on the error.

    Raises
    ------
    ConfigurationError
        When something is stored there already; it is left as it is.
    StorageError
        When the store cannot be asked.
    """
    folders = _missing_folders(location)
    target = empty_target(location)
    try:
        yield target
    except BaseException as error:
        try:
            submit(target.clear()).result()
        except StorageError as failure:  # the first error is the one to raise; this one is told with it
            error.add_note(str(failure))
        for folder in folders:
            with suppress(OSError):  # not empty, or gone already
                folder.rmdir()
        raise


def _missing_folders(location: Location) -> list[Path]:
    """The local folders that writing will make, innermost first."""
    if location.filesystem is not None or location.given is not None:
        return []
    folder = Path(location.root)
    return list(itertools.takewhile(lambda path: not path.exists(), [folder, *folder.parents]))
