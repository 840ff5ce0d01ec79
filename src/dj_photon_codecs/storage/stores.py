"""A store as a place: how its location and the path in a row become one path, and whether it is there at all."""

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

#: At the root of a DataJoint store, from the first movie on: an empty folder, such as a mount point, has none.
MARKER = "dj_photon_store.json"

#: Filesystems whose paths begin with a bucket or container.
_WITH_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}

#: Stores that this process has marked, or seen marked.
_marked: set[tuple[Any, str]] = set()


def full_path(backend: Any, path: str) -> str:
    """Where a path in a store is, on the filesystem of its backend.

    This is the only way from a row to an object, for writing, reading and auditing. It is DataJoint's own, so that its
    codecs and its collector look in the same place: a location that ends in "/" gives keys with "//" in an object
    store, and those are other keys than with "/".

    Parameters
    ----------
    backend
        ``datajoint.storage.StorageBackend`` of the store.
    path
        Relative to the store.
    """
    return str(backend._full_path(path))


def store_root(backend: Any) -> str:
    """What stands before "/" and a path in the names that the filesystem lists."""
    root = str(backend.fs._strip_protocol(full_path(backend, "x"))).removesuffix("/x")
    return posixpath.normpath(root) if backend.protocol == "file" and root else root


def mark_store(location: Location) -> None:
    """Leave the marker at the root of a movie's store, unless it is there; once in a process.

    A store that does not take it works without.
    """
    if location.store_root is None or (location.filesystem, location.store_root) in _marked:
        return
    store = replace(location, root=location.store_root).open(read_only=False)
    with suppress(Exception):  # the movie is stored, and its row must not be refused now
        submit(store.set_if_not_exists(MARKER, buffer_of(b'{"written_by": "dj-photon-codecs"}'))).result()
        _marked.add((location.filesystem, location.store_root))


def check_location(backend: Any) -> None:
    """Refuse a location that DataJoint's garbage collector, or another process, takes for another place.

    Raises
    ------
    ConfigurationError
        For a relative folder or one with "..", and for an object store a location that begins with "/".
    """
    location = str(backend.spec.get("location") or "")
    if backend.protocol == "file" and Path(location) != Path(os.path.abspath(location)):
        raise ConfigurationError(
            f"the location of the store is {location!r}, which DataJoint's garbage collector takes for another place, "
            f"and so does a process in another folder: set it to {os.path.abspath(location)!r}"
        )
    if backend.protocol != "file" and location.startswith("/"):
        raise ConfigurationError(
            f"the location of the store is {location!r}, and DataJoint's garbage collector finds nothing in one that "
            f"begins with '/': set it to {location.lstrip('/')!r}, and move there what is stored already"
        )


def check_mounted(location: Location, referenced: Callable[[], Iterable[str]]) -> None:
    """Refuse to write into the empty folder or bucket where a store should be.

    Parameters
    ----------
    location
        Of the new movie.
    referenced
        Gives paths in the store that rows refer to; called only where the store has no marker.

    Raises
    ------
    StorageError
        When the marker is not there, and neither is anything that rows refer to.
    """
    root = location.store_root
    if root is None or (not location.is_local and (location.filesystem, root) in _marked):
        return
    if submit(read_object(replace(location, root=root), MARKER)).result() is not None:
        _marked.add((location.filesystem, root))  # writing it again could leave a temporary file if this one is killed
        return
    lost = []
    for path in referenced():
        if submit(_exists(location, f"{root}/{path}")).result():
            return
        lost.append(path)
    if lost:
        name = f" {location.store_name!r}" if location.store_name else ""
        raise StorageError(
            f"nothing is written to {location.label}: the store{name} at {root} has no {MARKER}, and not {lost[0]!r}, "
            f"which a row refers to. Is it mounted? If it was emptied on purpose, put a file {MARKER} there"
        )


async def _exists(location: Location, path: str) -> bool:
    if location.is_local:
        return await asyncio.to_thread(os.path.exists, path)
    store = location.open(read_only=True)
    with location.errors_named(f"the store at {location.label} cannot be read"):
        return not isinstance(store, FsspecStore) or bool(await _call(store.fs, "exists", path))


async def check_store(location: Location) -> None:
    """Raise where the store of a movie is not there: to be asked when nothing is found at its location.

    Raises
    ------
    StorageError
        When the folder or bucket is not there, or the store holds nothing, not even its marker; and when it cannot be
        reached.
    """
    if location.given is not None:
        return
    name = f" of the store {location.store_name!r}" if location.store_name else ""
    with location.errors_named(f"the store at {location.label} cannot be read"):
        if location.is_local:
            folder = Path(location.store_root or Path(location.root).parent)
            # the first one that is missing: a mount point, for those below it
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
                f"nothing can be read at {location.label}: the bucket {bucket!r}{name} is not there, or these "
                "credentials do not see it. Check bucket and endpoint"
            )
        if location.store_root is None or await replace(location, root=location.store_root).open(read_only=True).exists(
            MARKER
        ):
            return
        if not await _call(store.fs, "find", location.store_root, maxdepth=1, withdirs=True):
            raise StorageError(
                f"nothing can be read at {location.label}: there is nothing at all at {location.store_root!r}{name}. "
                "Check its location"
            )


def _folder_problem(folder: Path) -> str | None:
    """What tells that a folder is not the store that it was; None when it may be."""
    if not folder.is_dir():
        return "is not there"
    with os.scandir(folder) as entries:
        return None if any(True for _ in entries) else "is empty"


def _protocols(filesystem: Any) -> tuple[str, ...]:
    names = filesystem.protocol
    return (names,) if isinstance(names, str) else tuple(names)


async def _call(filesystem: Any, method: str, *args: Any, **options: Any) -> Any:
    """A method of a filesystem that zarr has opened, which is asynchronous where it can be."""
    if filesystem.async_impl:
        return await getattr(filesystem, f"_{method}")(*args, **options)
    return await asyncio.to_thread(getattr(filesystem, method), *args, **options)
