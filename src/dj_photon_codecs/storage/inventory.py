"""What lies in a store, listed folder by folder: sizes and dates, never contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from ..errors import StorageError
from .documents import DOCUMENTS

#: Documents of a Zarr array, of either format; its other objects are chunks.
_DOCUMENTS = frozenset(chain(*DOCUMENTS.values()))

#: Where the filesystems of fsspec keep the time of an object's last change.
_TIMES = ("LastModified", "last_modified", "mtime", "updated")


@dataclass(frozen=True)
class StoredObject:
    """A file or a folder of a store, counted.

    Attributes
    ----------
    path
        Relative to the store.
    n_objects, n_bytes
        Of all that it holds.
    chunk_bytes
        Of its objects without the documents of a Zarr array.
    documents
        The documents of a Zarr array that lie in it.
    last_modified
        When its newest object was written; None where the store does not tell.
    """

    path: str
    n_objects: int
    n_bytes: int
    chunk_bytes: int
    documents: frozenset[str]
    last_modified: datetime | None


class Inventory:
    """Reads listings of one store, afresh every time: a cached one would miss what others write and remove.

    Parameters
    ----------
    filesystem
        Of fsspec.
    root
        Full path of the store on it.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        options = {**filesystem.storage_options, "use_listings_cache": False, "skip_instance_cache": True}
        self._filesystem = type(filesystem)(*filesystem.storage_args, **options)
        self._root = str(self._filesystem._strip_protocol(root)).rstrip("/")

    def children(self, path: str) -> list[tuple[str, bool]]:
        """What is in a folder, and whether each of it is a folder; nothing when there is no such folder.

        Raises
        ------
        StorageError
            When the store cannot be listed.
        """
        return sorted((self._relative(entry), entry["type"] == "directory") for entry in self._entries(path))

    def walk(self, path: str, is_folder: Callable[[str], bool]) -> Iterator[StoredObject]:
        """The objects below a folder, each counted.

        Parameters
        ----------
        path
            Of the folder.
        is_folder
            Whether a folder below it holds objects, and is not one itself.

        Raises
        ------
        StorageError
            When the store cannot be listed.
        """
        for entry in self._entries(path):
            name = self._relative(entry)
            if entry["type"] == "directory" and is_folder(name):
                yield from self.walk(name, is_folder)
                continue
            found = self.count(name) if entry["type"] == "directory" else _count(name, [entry], self._relative)
            if found is not None:
                yield found

    def count(self, path: str) -> StoredObject | None:
        """A file, or a folder with all that is in it; None when nothing is there.

        Raises
        ------
        StorageError
            When the store cannot be listed.
        """
        return _count(path, self._objects(path), self._relative)

    def _objects(self, path: str) -> list[Any]:
        try:
            return list(self._filesystem.find(f"{self._root}/{path}", detail=True).values())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{path} in the store {self._root} cannot be listed: {error}") from error

    def _entries(self, path: str) -> Iterator[Any]:
        full = f"{self._root}/{path}".rstrip("/")
        try:
            listed = self._filesystem.ls(full, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StorageError(f"{path or 'the root'} of the store {self._root} cannot be listed: {error}") from error
        for entry in listed:
            if str(entry["name"]).rstrip("/") != full:  # object stores may list the folder itself
                yield entry

    def _relative(self, entry: Any) -> str:
        return str(entry["name"]).removeprefix(self._root).strip("/")


def _count(path: str, entries: Iterable[Any], relative: Callable[[Any], str]) -> StoredObject | None:
    n_objects = n_bytes = chunk_bytes = 0
    documents = set()
    newest: datetime | None = None
    dated = True
    for entry in entries:
        if entry["type"] == "directory":
            continue
        n_objects += 1
        n_bytes += entry["size"] or 0
        name = relative(entry)[len(path) :].lstrip("/")
        if name in _DOCUMENTS:
            documents.add(name)
        else:
            chunk_bytes += entry["size"] or 0
        time = _time(entry)
        dated = dated and time is not None
        newest = time if newest is None or (time is not None and time > newest) else newest
    if not n_objects:
        return None
    return StoredObject(path, n_objects, n_bytes, chunk_bytes, frozenset(documents), newest if dated else None)


def _time(entry: Any) -> datetime | None:
    """When an object was last changed, in UTC."""
    found = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(found, (int, float)):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
