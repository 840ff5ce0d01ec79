"""The layout of a DataJoint store: the folders of its schemas, and the resolution of paths in rows."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from datajoint.storage import StorageBackend

from .._zarr import submit
from ..codec import PhotonCodec, resolved_store_name
from ..errors import StorageError
from ..storage.stores import MARKER, check_store, store_root
from .inventory import Inventory, StoredObject
from .report import covered, parents


class Place:
    """A store, and the folders in it that belong to the audited schemas."""

    def __init__(self, config: Any, store: str | None, databases: Sequence[str]) -> None:
        self.config = config
        #: Held while reading the database, because the threads that check movies share one connection.
        self.database = threading.Lock()
        self.name = resolved_store_name(store, config)
        spec = config.get_store_spec(self.name)
        try:
            backend = StorageBackend(spec)
        except OSError as error:  # DataJoint looks for the folder of a file store
            raise StorageError(f"the store {self.name!r} cannot be audited: {error}. Is its disk mounted?") from error
        self._address = _address(backend)
        self._root = store_root(backend)
        self._roots = {self.name: (self._root, True)}
        self.inventory = Inventory(backend.fs, self._root)
        at_root = replace(PhotonCodec()._location("x", self.name, config), root=f"{self._root}/x")
        self._at_root = replace(at_root, label=f"the store {self.name!r}")
        hashes, objects = spec["hash_prefix"].strip("/"), spec["schema_prefix"].strip("/")
        self._hashed = {posixpath.join(hashes, name) for name in databases}
        self._sections = {posixpath.join(objects, name) for name in databases}
        if spec.get("partition_pattern"):  # {objects}/{attribute}={value}/.../{schema}
            self._sections |= set(self._partitions(objects, set(databases)))

    def check(self) -> None:
        """Raise StorageError if the store itself does not exist."""
        submit(check_store(self._at_root)).result()

    def _partitions(self, folder: str, databases: set[str]) -> Iterator[str]:
        for path, is_folder in self.inventory.children(folder):
            name = posixpath.basename(path)
            if is_folder and name in databases:
                yield path
            elif is_folder and "=" in name:
                yield from self._partitions(path, databases)

    def listing(self) -> Iterator[StoredObject]:
        """Yield everything in the schemas' folders: files, and folders that each hold one value."""
        for section in self._hashed:
            yield from self.inventory.walk(section, lambda path: True)
        for section in self._sections:
            # {section}/{table}/{attribute}={value}/.../{column}_{token}
            yield from self.inventory.walk(section, self._is_folder)

    def _is_folder(self, path: str) -> bool:
        return posixpath.dirname(path) in self._sections or "=" in posixpath.basename(path)

    def elsewhere(self, referenced: set[str], folder: str = "") -> Iterator[str]:
        """Yield unreferenced objects and folders outside the schemas' folders, without examining them."""
        sections = self._hashed | self._sections
        above = {parent for path in (*sections, *referenced) for parent in parents(path)}
        for path, is_folder in self.inventory.children(folder):
            if path == MARKER or path in sections or covered(path, referenced):
                continue
            if is_folder and path in above:
                yield from self.elsewhere(referenced, path)
            else:
                yield path

    def resolve(self, path: Any, store: Any) -> str | None:
        """Resolve a reference in a row to a path relative to this store; None if it is in another store.

        Raises DataJointError if the store is not configured, ValueError if the path leads out of its store.
        """
        if not (isinstance(path, str) and isinstance(store, str | None)):
            raise ValueError(f"a path and a store are texts, got {path!r} and {store!r}")
        name = store or resolved_store_name(None, self.config)
        if name not in self._roots:  # two store names may share a root, or be nested
            backend = StorageBackend(self.config.get_store_spec(name))
            self._roots[name] = store_root(backend), _address(backend) == self._address
        root, same = self._roots[name]
        within = posixpath.normpath(path)
        if within == "." or within.split("/")[0] in ("", ".."):
            raise ValueError(f"the path {path!r} leads out of the store {name}")
        full, inside = f"{root}/{within}", f"{self._root}/"
        # In an object store "rec" and "rec/" are separate places; neither contains the other.
        found = same and full.startswith(inside) and full[len(inside)] != "/"
        return full.removeprefix(inside) if found else None


def _address(backend: StorageBackend) -> tuple[Any, ...]:
    """Identity of a storage service or bucket owner."""
    return backend.protocol, backend.spec.get("endpoint"), backend.spec.get("account_name")
