"""What is at a path or URL, judged by names alone, and replacing a movie there by another."""

from __future__ import annotations

import enum
import json
import posixpath
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._system import remove_folder, rename
from .._zarr import submit
from ..errors import StorageError
from ..storage.claim import CLAIM, left_by_writing, read_claim
from ..storage.documents import JOURNAL
from ..storage.journal import FRAME_DATA, KEPT, is_of_acquisition
from ..storage.location import Location
from ..storage.stores import check_store
from .output import ALREADY_THERE, Failure

if TYPE_CHECKING:
    from .. import PhotonArray

#: Names in the folder of a movie, other than metadata.
_CONTENT = re.compile(r"c|[0-9]+(\.[0-9]+)*|\.zattrs|.*\.partial|" + re.escape(FRAME_DATA))

#: Files that operating systems leave in folders.
_FOREIGN = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|\._.*|\.nfs.*")


class State(enum.Enum):
    """What is at a place, in words."""

    NOTHING = "nothing is there"
    MOVIE = "a movie is stored there"
    UNFINISHED = "an unfinished movie is there; dj-photon recover makes a movie of it"
    WRITING = "a movie is being written there. If its writer has ended, break_claim in Python removes what it left"
    ABANDONED = "a killed writer left it; the next writer removes it"
    REMAINS = "it holds the chunks of a movie without its metadata: a partly deleted movie or an incomplete copy"
    OTHER = "it holds something other than a movie"
    FILE = "it is a file"


class Place:
    """A folder on a disk or in an object store, by its path or URL."""

    def __init__(self, path: str) -> None:
        from fsspec.implementations.local import LocalFileSystem

        self.location = Location.of(path)
        self._files = self.location.filesystem or LocalFileSystem()
        self._root = self.location.root.rstrip("/") or self.location.root

    def state(self) -> State:
        """What is there; lists only the folder itself."""
        with self.location.errors_named(f"{self.location.label} could not be listed"):
            self._files.invalidate_cache()
            try:
                entries = {self._name(entry): entry for entry in self._files.ls(self._root, detail=True)}
            except (FileNotFoundError, NotADirectoryError):
                if not self.location.is_local:
                    submit(check_store(self.location)).result()  # that there is such a bucket
                return State.NOTHING
            own = entries.pop("", None)
            if own is not None and own["type"] == "file" and not entries:
                return State.FILE if own["size"] or self.location.is_local else State.NOTHING
            return self._state(set(entries))

    def _name(self, entry: Any) -> str:
        """The name of an entry in the folder; empty for the folder itself."""
        path = entry["name"].rstrip("/")
        return "" if path == self._root else posixpath.basename(path.replace("\\", "/"))

    def _state(self, names: set[str]) -> State:
        if not names:
            return State.NOTHING
        claim = submit(read_claim(self.location)).result() if CLAIM in names else None
        if claim is not None and not claim.is_stale:
            return State.WRITING
        if "zarr.json" in names:
            return State.OTHER if self.is_group() else State.MOVIE
        if ".zarray" in names:
            return State.MOVIE
        if names & {JOURNAL, KEPT.rstrip("/")}:  # the journal may be lost, and is not needed
            return State.UNFINISHED
        own = {name for name in names if not _FOREIGN.fullmatch(name) and name != CLAIM}
        if claim is not None and all(map(_CONTENT.fullmatch, own)):
            return State.ABANDONED
        return State.REMAINS if own and all(map(_CONTENT.fullmatch, own)) else State.OTHER

    def is_group(self) -> bool:
        """Whether there is a Zarr group, such as an OME-Zarr image."""
        try:
            document = json.loads(self._files.cat_file(f"{self._root}/zarr.json"))
        except (FileNotFoundError, NotADirectoryError):
            return bool(self._files.exists(f"{self._root}/.zgroup"))
        except (ValueError, RecursionError):  # damaged
            return False
        return isinstance(document, dict) and document.get("node_type") == "group"

    def replace(self, write: Callable[[str], PhotonArray]) -> PhotonArray:
        """Write another movie, verify it, and put it in place of the one that is there; other content is refused."""
        from .. import open_movie, write_movie

        keys = [key[len(self._root) + 1 :].replace("\\", "/") for key in self._files.find(self._root)]
        foreign = sorted(
            key
            for key in keys
            if not (left_by_writing(key) or is_of_acquisition(key) or key == FRAME_DATA or _FOREIGN.fullmatch(key))
        )
        if foreign:
            raise Failure(
                f"{self.location.label} holds {foreign[0]!r}, which is not part of a movie: --force removes only "
                "movies; choose a new path, or remove it yourself",
                ALREADY_THERE,
            )
        path = str(self._files.unstrip_protocol(self._root)) if not self.location.is_local else self._root
        beside = f"{path}.new-{secrets.token_hex(4)}"
        stored = write(beside)
        try:
            checked = stored.verify(progress=False)
            if not checked:
                raise StorageError(f"the new movie did not read back, and the old one was kept: {checked}")
        except BaseException:
            self._remove(beside)
            raise
        if self.location.is_local:
            old = f"{path}.old-{secrets.token_hex(4)}"
            rename(Path(path), Path(old))
            rename(Path(beside), Path(path))
            self._remove(old)
            return open_movie(path)
        with self.location.errors_named(f"{self.location.label} could not be replaced; the new movie is at {beside}"):
            self._remove(path)
            record = stored.record
            assert record is not None  # it was just written
            zarr_format: Any = stored.metadata.zarr_format
            moved = write_movie(path, stored, step=record.step, profile=record.profile, zarr_format=zarr_format)
            self._remove(beside)
        return moved

    def _remove(self, path: str) -> None:
        """Remove a folder beside this one, or this one."""
        if self.location.is_local:
            remove_folder(Path(path))
        else:
            self._files.rm(self._files._strip_protocol(path), recursive=True)
