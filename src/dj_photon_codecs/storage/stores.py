"""DataJoint stores: the path of a row's movie in its store, and checks that the store is mounted."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from zarr.storage import FsspecStore

from .._zarr import buffer_of, submit
from ..errors import ConfigurationError, StorageError
from .documents import read_object
from .location import Location

#: Written to the root of a DataJoint store with its first movie. An unmounted folder does not have it.
MARKER = "dj_photon_store.json"

#: Protocols whose paths begin with a bucket or container.
_WITH_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}

#: Stores known to have the marker.
_marked: set[tuple[Any, str]] = set()


def full_path(backend: Any, path: str) -> str:
    """Return the path on the filesystem of a ``datajoint.storage.StorageBackend`` for a path in the store.

    Writing, reading and auditing all use this function of DataJoint's, so that its own codecs and its garbage
    collector look in the same place. For example, a location that ends in "/" gives keys with "//" in an object store,
    which differ from keys with "/".
    """
    return str(backend._full_path(path))


def store_root(backend: Any) -> str:
    """Return the root of a store as it appears in the filesystem's listings, without the final "/"."""
    root = str(backend.fs._strip_protocol(full_path(backend, "x"))).removesuffix("/x")
    return posixpath.normpath(root) if backend.protocol == "file" and root else root


def mark_store(location: Location) -> None:
    """Write the marker to the root of a movie's store unless it is there; at most once per process.

    A store that does not accept it works without.
    """
    if location.store_root is None or (location.filesystem, location.store_root) in _marked:
        return
    store = replace(location, root=location.store_root).open(read_only=False)
    with suppress(Exception):  # the movie is stored; don't refuse its row now
        submit(store.set_if_not_exists(MARKER, buffer_of(b'{"written_by": "dj-photon-codecs"}'))).result()
        _marked.add((location.filesystem, location.store_root))


def check_location(backend: Any) -> None:
    """Raise ConfigurationError for a location that other processes or DataJoint's collector resolve differently.

    Those are relative folders, folders with "..", and locations in object stores that begin with "/".
    """
    location = str(backend.spec.get("location") or "")
    if backend.protocol == "file" and Path(location) != Path(os.path.abspath(location)):
        raise ConfigurationError(
            f"the location of the store is {location!r}, which means another folder to DataJoint's garbage collector "
            f"and to a process that runs in another folder: set it to {os.path.abspath(location)!r}"
        )
    if backend.protocol != "file" and location.startswith("/"):
        raise ConfigurationError(
            f"the location of the store is {location!r}, and DataJoint's garbage collector finds nothing if it begins "
            f"with '/': set it to {location.lstrip('/')!r}, and move what is already stored there"
        )


def check_mounted(location: Location, referenced: Callable[[], Iterable[str]]) -> None:
    """Raise StorageError if a store looks unmounted: it has neither the marker nor any movie that rows refer to.

    ``referenced`` returns paths in the store that rows refer to. It is called only if the marker is missing.
    """
    root = location.store_root
    if root is None or (not location.is_local and (location.filesystem, root) in _marked):
        return
    if submit(read_object(replace(location, root=root), MARKER)).result() is not None:
        _marked.add((location.filesystem, root))  # don't write it again: a killed process would leave a temporary file
        return
    lost = []
    for path in referenced():
        if submit(_exists(location, f"{root}/{path}")).result():
            return
        lost.append(path)
    if lost:
        name = f" {location.store_name!r}" if location.store_name else ""
        raise StorageError(
            f"nothing is written to {location.label}: the store{name} at {root} has neither {MARKER} nor {lost[0]!r}, "
            f"which a row refers to. Is it mounted? If it was emptied on purpose, create a file {MARKER} there"
        )


async def _exists(location: Location, path: str) -> bool:
    if location.is_local:
        return await asyncio.to_thread(os.path.exists, path)
    store = location.open(read_only=True)
    with location.errors_named(f"the store at {location.label} cannot be read"):
        return not isinstance(store, FsspecStore) or bool(await _call(store.fs, "exists", path))


async def check_store(location: Location) -> None:
    """Raise StorageError if the store of a movie is missing; call it when nothing is found at the movie's location.

    A store is missing if its folder or bucket does not exist, if it is empty (without even the marker), or if it
    cannot be reached.
    """
    if location.given is not None:
        return
    name = f" of the store {location.store_name!r}" if location.store_name else ""
    with location.errors_named(f"the store at {location.label} cannot be read"):
        if location.is_local:
            folder = Path(location.store_root or Path(location.root).parent)
            # report the outermost missing folder, which may be a mount point
            folder = next((above for above in [*folder.parents][::-1] if not above.exists()), folder)
            problem = await asyncio.to_thread(_folder_problem, folder)
            if problem:
                raise StorageError(
                    f"nothing can be read at {location.label}: the folder {folder}{name} {problem}. "
                    "Is its disk mounted?"
                )
            return
        store = location.open(read_only=True)
        if not isinstance(store, FsspecStore) or not _WITH_BUCKETS & set(_protocols(store.fs)):
            return
        bucket = location.root.split("/")[0]
        if not await _call(store.fs, "exists", bucket):
            raise StorageError(
                f"nothing can be read at {location.label}: the bucket {bucket!r}{name} does not exist, or these "
                "credentials do not give access to it. Check bucket and endpoint"
            )
        if location.store_root is None or await replace(location, root=location.store_root).open(read_only=True).exists(
            MARKER
        ):
            return
        if not await _call(store.fs, "find", location.store_root, maxdepth=1, withdirs=True):
            raise StorageError(
                f"nothing can be read at {location.label}: {location.store_root!r}{name} is empty. Check its location"
            )


def _folder_problem(folder: Path) -> str | None:
    """Return what is wrong with the folder of a store, or None."""
    if not folder.is_dir():
        return "does not exist"
    with os.scandir(folder) as entries:
        return None if any(True for _ in entries) else "is empty"


def _protocols(filesystem: Any) -> tuple[str, ...]:
    names = filesystem.protocol
    return (names,) if isinstance(names, str) else tuple(names)


async def _call(filesystem: Any, method: str, *args: Any, **options: Any) -> Any:
    """Call a method of a filesystem that zarr has opened, asynchronous or not."""
    if filesystem.async_impl:
        return await getattr(filesystem, f"_{method}")(*args, **options)
    return await asyncio.to_thread(getattr(filesystem, method), *args, **options)
