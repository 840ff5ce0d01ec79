"""A store as DataJoint lays it out: the folders of some schemas in it, and where the paths in rows lead."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from datajoint.storage import StorageBackend

from ..codec import resolved_store_name
from ..storage.inventory import Inventory, StoredObject
from .report import covered, parents


class Place:
    """A store, and the folders in it that belong to some schemas."""

    def __init__(self, config: Any, store: str | None, databases: Sequence[str]) -> None:
        self.config = config
        self.name = resolved_store_name(store, config)
        spec = config.get_store_spec(self.name)
        backend = StorageBackend(spec)
        self._address = _address(backend)
        self._root = posixpath.normpath(backend._full_path(""))
        self._roots = {self.name: (self._root, True)}
        self.inventory = Inventory(backend.fs, backend._full_path(""))
        hashes, objects = spec["hash_prefix"].strip("/"), spec["schema_prefix"].strip("/")
        self._hashed = {posixpath.join(hashes, name) for name in databases}
        self._sections = {posixpath.join(objects, name) for name in databases}
        if spec.get("partition_pattern"):  # {objects}/{attribute}={value}/.../{schema}
            self._sections |= set(self._partitions(objects, set(databases)))

    def _partitions(self, folder: str, databases: set[str]) -> Iterator[str]:
        for path, is_folder in self.inventory.children(folder):
            name = posixpath.basename(path)
            if is_folder and name in databases:
                yield path
            elif is_folder and "=" in name:
                yield from self._partitions(path, databases)

    def listing(self) -> Iterator[StoredObject]:
        """Everything in the folders of the schemas: a file, or a folder that one value is stored in."""
        for section in self._hashed:
            yield from self.inventory.walk(section, lambda path: True)
        for section in self._sections:
            # {section}/{table}/{attribute}={value}/.../{column}_{token}
            yield from self.inventory.walk(
                section,
                lambda path: posixpath.dirname(path) in self._sections or "=" in posixpath.basename(path),
            )

    def elsewhere(self, referenced: set[str], folder: str = "") -> Iterator[str]:
        """What lies outside those folders and is not referred to: a folder is named, and not looked into."""
        sections = self._hashed | self._sections
        above = {parent for path in (*sections, *referenced) for parent in parents(path)}
        for path, is_folder in self.inventory.children(folder):
            if path in sections or covered(path, referenced):
                continue
            if is_folder and path in above:
                yield from self.elsewhere(referenced, path)
            else:
                yield path

    def resolve(self, path: Any, store: Any) -> str | None:
        """Path relative to this store of what a row refers to; None when it lies in another store.

        Raises
        ------
        DataJointError
            When the row names a store that is not configured.
        ValueError
            When the path leads out of its store.
        """
        if not (isinstance(path, str) and isinstance(store, str | None)):
            raise ValueError(f"a path and a store are texts, got {path!r} and {store!r}")
        name = store or resolved_store_name(None, self.config)
        if name not in self._roots:  # two names may stand for one place, or for a folder in the other's
            backend = StorageBackend(self.config.get_store_spec(name))
            self._roots[name] = posixpath.normpath(backend._full_path("")), _address(backend) == self._address
        root, same = self._roots[name]
        full = posixpath.normpath(posixpath.join(root, path))
        if not _inside(full, root):
            raise ValueError(f"the path {path!r} leads out of the store {name}")
        return posixpath.relpath(full, self._root) if same and _inside(full, self._root) else None


def _address(backend: StorageBackend) -> tuple[Any, ...]:
    """What tells one service, or bucket owner, from another."""
    return backend.protocol, backend.spec.get("endpoint"), backend.spec.get("account_name")


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
