"""List the objects of a store folder by folder: sizes and dates, never contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ..errors import StorageError
from ..storage.documents import DOCUMENT_KEYS
from ..storage.journal import FRAME_DATA, is_of_acquisition

#: Names that fsspec filesystems use for an object's modification time.
_TIMES = ("LastModified", "last_modified", "mtime", "updated")


@dataclass(frozen=True)
class StoredObject:
    """A file or a folder in a store, with the number and size of its objects."""

    path: str
    """Path relative to the store."""
    n_objects: int
    """Number of objects in it."""
    n_bytes: int
    """Size of these objects [bytes]."""
    chunk_bytes: int
    """Size of its objects without Zarr metadata documents [bytes]."""
    documents: frozenset[str]
    """Names of the Zarr metadata documents in it."""
    last_modified: datetime | None
    """Time of the last write; None if the store does not record it."""
    unfinished: bool = False
    """Whether it is a movie still being acquired, or interrupted; recover_movie completes the latter."""


class Inventory:
    """Lists one store, without caches that would miss changes by other writers.

    ``root`` is the full path of the store on an fsspec filesystem. All methods raise StorageError if the store cannot
    be listed.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        options = {**filesystem.storage_options, "use_listings_cache": False, "skip_instance_cache": True}
        self._filesystem = type(filesystem)(*filesystem.storage_args, **options)
        self._root = root
        self._odd = "//" in f"{root}/" and not isinstance(self._filesystem, LocalFileSystem)

    def children(self, path: str) -> list[tuple[str, bool]]:
        """Entries of a folder, and whether each is itself a folder; empty if the folder does not exist."""
        return sorted((self._relative(entry), entry["type"] == "directory") for entry in self._entries(path))

    def walk(self, path: str, is_folder: Callable[[str], bool]) -> Iterator[StoredObject]:
        """Yield the counted objects below a folder; ``is_folder`` is False for a folder that is itself one object."""
        for entry in self._entries(path):
            name = self._relative(entry)
            if entry["type"] == "directory" and is_folder(name):
                yield from self.walk(name, is_folder)
                continue
            found = self._counted(name, self._objects(name) if entry["type"] == "directory" else [entry])
            if found is not None:
                yield found

    def sizes(self, path: str) -> dict[str, int]:
        """Sizes [bytes] of the objects in a folder, by name relative to it; of a file, under the empty name."""
        return {name: entry["size"] or 0 for name, entry in self._files(path, self._objects(path))}

    def _objects(self, path: str) -> list[Any]:
        full = f"{self._root}/{path}"
        try:
            if self._odd:
                return [e for n, e in self._by_prefix(path).items() if f"{n}/".startswith(f"{full}/")]
            return list(self._filesystem.find(full, detail=True).values())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{path} in the store {self._root} cannot be listed: {error}") from error

    def _entries(self, path: str) -> Iterator[Any]:
        full = f"{self._root}/{path}".rstrip("/") if path else self._root
        try:
            listed = self._folder_by_prefix(path) if self._odd else self._filesystem.ls(full, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StorageError(f"{path or 'the root'} of the store {self._root} cannot be listed: {error}") from error
        for entry in listed:
            if str(entry["name"]).rstrip("/") != full:  # object stores may include the folder itself
                yield entry

    def _by_prefix(self, path: str) -> dict[str, Any]:
        """All objects whose names begin with a path; fsspec cannot list folders with an empty name."""
        bucket, _, key = f"{self._root}/{path}".partition("/")
        found: dict[str, Any] = self._filesystem.find(bucket, prefix=key, detail=True)
        return found

    def _folder_by_prefix(self, path: str) -> list[Any]:
        full = f"{self._root}/{path}/" if path else f"{self._root}/"
        found = {}
        for name, entry in self._by_prefix(f"{path}/" if path else "").items():
            first, _, rest = name.removeprefix(full).partition("/")
            found[first] = {"name": full + first, "type": "directory"} if rest else entry
        return list(found.values())

    def _files(self, path: str, entries: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """Yield the files among these entries, with names relative to the folder."""
        for entry in entries:
            if entry["type"] != "directory":
                yield self._relative(entry).removeprefix(path).lstrip("/"), entry

    def _relative(self, entry: Any) -> str:
        return str(entry["name"]).removeprefix(self._root).strip("/")

    def _counted(self, path: str, entries: Iterable[Any]) -> StoredObject | None:
        n_objects = n_bytes = chunk_bytes = 0
        documents, times, unfinished = set(), [], False
        for name, entry in self._files(path, entries):
            size = entry["size"] or 0
            n_bytes += size
            times.append(_time(entry))
            acquired = is_of_acquisition(name)
            unfinished = unfinished or acquired
            if name == FRAME_DATA or acquired:
                continue  # neither an object of the movie nor foreign
            n_objects += 1
            if name in DOCUMENT_KEYS:
                documents.add(name)
            else:
                chunk_bytes += size
        if not (n_objects or unfinished):
            return None
        known = [time for time in times if time is not None]
        last = max(known) if len(known) == len(times) else None
        return StoredObject(path, n_objects, n_bytes, chunk_bytes, frozenset(documents), last, unfinished)


def _time(entry: Any) -> datetime | None:
    """Modification time in UTC, or None."""
    found = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(found, (int, float)):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
