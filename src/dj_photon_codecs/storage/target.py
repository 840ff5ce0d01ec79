"""Write to and clean up a movie's destination: either all of the movie is stored or none of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from zarr.abc.store import Store

from .._system import check_local_path, retried, retried_now
from .._typing import Json
from .._zarr import Buffer, buffer_of, submit
from ..errors import ConfigurationError, OccupiedError, StorageError
from .claim import CLAIM, Claim, create, is_claim, left_by_writing, read_claim
from .documents import DOCUMENT_KEYS, JOURNAL, read_documents
from .location import Location

_LOG = logging.getLogger("dj_photon_codecs")

#: Stop removing objects after this many failures in a row: if the store is gone, each one waits for all its retries.
_GIVE_UP = 3

#: The longest key in a movie of a million objects.
_LONGEST_KEY = "c/999999/99/99"

#: Objects removed at the same time while none fails.
_AT_ONCE = 16

#: Number of objects that an error lists by name.
_NAMED = 20


class Target:
    """A folder that is being written to, empty at first, and a list of what was written there."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store: Store = location.open(read_only=False)
        self._prefix = location.prefix
        #: Keys without duplicates, in the order of writing.
        self._written: dict[str, None] = {}
        self._claimed = False
        #: Folders that writing the claim created.
        self._made: list[Path] = []

    @property
    def keeps_journal(self) -> bool:
        """Whether the store can hold a journal or a claim and delete it when the movie is finished."""
        return self._store.supports_deletes and not self.location.is_icechunk

    async def put(self, key: str, content: Buffer) -> None:
        """Write one object, or raise StorageError if the store fails."""
        self._written[key] = None  # noted first, because a store that times out may have written the object anyway
        with self.location.errors_named(f"object {key!r} of {self.location.label} could not be written"):
            await retried(lambda: self._store.set(self._prefix + key, content))

    async def put_json(self, key: str, document: Json) -> None:
        """Write a JSON document with :meth:`put`."""
        await self.put(key, buffer_of(json.dumps(document, indent=2).encode()))

    def others_write(self, keys: Iterable[str]) -> None:
        """Record keys that other processes write here, so that :meth:`clear` removes them too."""
        self._written |= dict.fromkeys(keys)

    async def claim(self) -> Claim | None:
        """Claim the destination; return another writer's claim if it came first. Raises StorageError."""
        ours = Claim.ours()
        self._made = _missing_folders(self.location)
        with self.location.errors_named(f"object {CLAIM!r} of {self.location.label} could not be written"):
            await retried(lambda: create(self._store, self._prefix + CLAIM, buffer_of(ours.to_bytes())))
        found = await read_claim(self.location)
        self._claimed = found == ours
        return None if self._claimed else found or ours

    def release(self) -> None:
        """Remove our claim, if there is one. A claim that cannot be removed is stale once this process ends."""
        if self._claimed:
            self._claimed = False
            submit(self.remove_if_possible(CLAIM)).result()
            _remove_if_empty(self._made)

    async def remove_unfinished(self) -> None:
        """Remove what an ended writer left here, except a finished or recoverable movie. Raises StorageError."""
        keys = await self.keys() if self._can_list else [CLAIM]
        claim = await read_claim(self.location)
        acquired = JOURNAL in keys or (claim is not None and claim.beat is not None)
        if acquired or await read_documents(self.location):
            keys = [CLAIM]
        for key in sorted(filter(left_by_writing, keys), key=lambda key: key == CLAIM):  # the claim last
            await self.remove(key)
        self._remove_empty_folders(keys)

    async def is_empty(self) -> bool:
        """Return True if nothing but a claim is stored here. Raises StorageError.

        If the store cannot list, True only means that there is no array.
        """
        if not self._can_list:
            return not await read_documents(self.location)
        with self.location.errors_named(f"{self.location.label} could not be listed"):
            async for key in self._list():
                if not is_claim(key):
                    return False
        return True

    @property
    def _can_list(self) -> bool:
        # icechunk only lists keys below an array or a group
        return self._store.supports_listing and not self.location.is_icechunk

    async def _list(self) -> AsyncIterator[str]:
        """Yield the keys of all stored objects."""
        async for key in self._store.list_prefix(self._prefix) if self._prefix else self._store.list():
            yield key.removeprefix(self._prefix)

    async def keys(self) -> list[str]:
        """Return the keys of all stored objects. Raises StorageError."""
        with self.location.errors_named(f"{self.location.label} could not be listed"):
            return [key async for key in self._list()]

    async def remove(self, key: str) -> None:
        """Remove one object. Raises StorageError."""
        with self.location.errors_named(f"object {key!r} of {self.location.label} could not be removed"):
            await self._delete(key)

    async def remove_if_possible(self, key: str) -> None:
        """Remove one harmless object; a failure is only logged."""
        try:
            await self.remove(key)
        except StorageError as error:
            _LOG.warning("%s", error)

    async def _delete(self, key: str) -> None:
        await retried(lambda: self._store.delete(self._prefix + key))

    async def clear(self) -> None:
        """Remove what was written here and nothing else.

        If some objects cannot be removed, the others still are, and the StorageError names those that are left.
        """
        gone = left = list(self._written)
        if self._can_list:
            with suppress(Exception):  # stores raise any type, see Location.errors_named; without a list, try all
                stored = set(await self.keys())
                left = [key for key in left if key in stored]
        # metadata is removed first, so that an incomplete removal does not open as an array
        left = sorted(left, key=lambda key: key in DOCUMENT_KEYS)
        kept: list[str] = []
        failures = 0
        cause: Exception = OSError("this store cannot delete")
        while left:
            wave = [left.pop() for _ in range(min(_AT_ONCE if not failures else 1, len(left)))]
            if failures >= _GIVE_UP or not self._store.supports_deletes:
                kept += wave
                continue
            deletions = map(self._delete, wave)
            for key, result in zip(wave, await asyncio.gather(*deletions, return_exceptions=True), strict=True):
                if isinstance(result, Exception):
                    failures, cause = failures + 1, result
                    kept.append(key)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    failures = 0
        self._written = dict.fromkeys(kept)
        if kept:
            names = ", ".join(map(repr, kept[:_NAMED])) + (f" and {len(kept) - _NAMED} more" * (len(kept) > _NAMED))
            with self.location.errors_named(
                f"of what was written to {self.location.label}, {len(kept)} objects could not be removed: {names}. "
                "Remove them once the store works, or have DataJoint's garbage collector do so"
            ):
                raise cause
        self._remove_empty_folders(gone)

    def _remove_empty_folders(self, keys: Iterable[str]) -> None:
        """Remove the local folders of removed objects, but not the movie's own folder."""
        if self.location.is_local:
            folders = {folder for key in keys for folder in PurePath(key).parents if folder.name}
            for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
                with suppress(OSError):  # not empty
                    retried_now(Path(self.location.root, folder).rmdir)


def empty_target(location: Location) -> Target:
    """Return an empty destination, claimed if the store supports claims. The caller must release it.

    Leftovers of a writer that has ended are removed. Raises OccupiedError, without changing anything, if a movie is
    stored or being written there; ConfigurationError for a path that the system does not allow or that lies in
    another movie; StorageError if the store cannot be read.
    """
    if location.is_local:
        check_local_path(location.root, _LONGEST_KEY)
        if not location.unused:
            _refuse_inside(Path(location.root))
    target = Target(location)
    if location.unused:
        return target
    if target.keeps_journal:
        claim = submit(read_claim(location)).result()
        if claim is not None and claim.is_stale:
            submit(target.remove_unfinished()).result()
        elif claim is not None:
            raise _held(location, claim)
    _refuse_content(target)
    if target.keeps_journal:
        claim = submit(target.claim()).result()
        if claim is not None:
            raise _held(location, claim)
        try:
            _refuse_content(target)  # another writer may have claimed, finished and released in between
        except BaseException:
            target.release()
            raise
    return target


def _held(location: Location, claim: Claim) -> OccupiedError:
    return OccupiedError(
        f"{location.label} is being written to by {claim}: choose another path, or wait. If that process has ended, "
        f"break_claim({location.label!r}) removes what it left"
    )


def _refuse_content(target: Target) -> None:
    if not submit(target.is_empty()).result():
        raise OccupiedError(
            f"{target.location.label} is not empty: a movie is never written over another; choose a new path, "
            "or remove what is there"
        )


def _refuse_inside(folder: Path) -> None:
    """Raise OccupiedError for a path in or at a file, ConfigurationError for one in the folder of another movie."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise OccupiedError(f"{folder} cannot be written to: {path} is a file. Choose a new path")
    for parent in folder.parents:
        document = parent / "zarr.json"
        try:
            is_array = json.loads(document.read_bytes())["node_type"] == "array"
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # not there, or not an array's
            is_array = (parent / ".zarray").exists()
        if is_array:
            raise ConfigurationError(
                f"{folder} lies in the folder of another movie, {parent}: choose a path outside of it"
            )


@contextmanager
def all_or_nothing(location: Location) -> Iterator[Target]:
    """Open a location for writing; if the block raises, everything that it wrote is removed again.

    Objects that cannot be removed are named in a note on the error. Raises what :func:`empty_target` raises.
    """
    folders = _missing_folders(location)
    try:
        target = empty_target(location)
        try:
            yield target
        except BaseException as error:
            try:
                submit(target.clear()).result()
            except StorageError as failure:  # raise the first error, with this one as a note
                error.add_note(str(failure))
            raise
        finally:
            target.release()
    except BaseException:
        _remove_if_empty(folders)
        raise


def _remove_if_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # not empty, or gone already
            retried_now(folder.rmdir)


def remove_written(location: Location) -> None:
    """Remove a movie at a freshly generated path that nothing refers to.

    Raises StorageError, naming the objects that are left, if the store fails.
    """
    target = Target(location)
    target.others_write(submit(target.keys()).result())
    submit(target.clear()).result()
    if location.is_local:
        with suppress(OSError):  # not empty
            retried_now(Path(location.root).rmdir)


def _missing_folders(location: Location) -> list[Path]:
    """Return the local folders that writing will create, innermost first."""
    if not location.is_local:
        return []
    folder = Path(location.root)
    return list(itertools.takewhile(lambda path: not path.exists(), [folder, *folder.parents]))
