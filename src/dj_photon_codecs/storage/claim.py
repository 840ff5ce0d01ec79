"""The claim on a path: an object that names the writer of a movie while it is being written.

It refuses a second writer at the same path, and identifies the leftovers of a killed process.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from inspect import signature

from zarr.abc.store import Store
from zarr.storage import FsspecStore

from .._system import ends_of_processes_are_known, is_running, machine
from .._zarr import Buffer
from .documents import DOCUMENT_KEYS, read_object
from .location import Location

#: Key of the claim, beside the future metadata document.
CLAIM = "writing.json"

#: A writer on another machine counts as dead after this long without a heartbeat. Clocks differ by far less.
_SILENT = timedelta(minutes=10)

#: Keys created by writing a movie: chunks of both Zarr formats, documents, the claim, and files not yet renamed.
_OF_A_MOVIE = re.compile(
    "c(/[0-9]+)+|[0-9]+(\\.[0-9]+)*|{}|(c/[0-9/]*)?[^/]*\\.[0-9a-f]{{32}}\\.partial".format(
        "|".join(map(re.escape, sorted({*DOCUMENT_KEYS, CLAIM})))
    )
)


@dataclass(frozen=True)
class Claim:
    """Who is writing a movie, and since when; ``beat`` is the last heartbeat of an acquisition, otherwise None."""

    machine: str
    pid: int
    since: str
    token: str
    beat: str | None = None

    @classmethod
    def ours(cls) -> Claim:
        """Return a unique claim of this process."""
        return cls(machine(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex)

    @property
    def is_stale(self) -> bool:
        """Whether the writer is known to have ended: its process is gone here, or its heartbeat stopped."""
        if ends_of_processes_are_known() and self.machine == machine():
            return not is_running(self.pid)
        if self.beat is None:
            return False
        try:
            return datetime.now(UTC) - datetime.fromisoformat(self.beat) > _SILENT
        except (ValueError, TypeError):  # not a time, or a time without a zone
            return False

    def beating(self) -> Claim:
        """Return this claim with the heartbeat set to now."""
        return replace(self, beat=datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]}, since {self.since}"

    def to_bytes(self) -> bytes:
        """Return the claim as stored (JSON)."""
        told = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(told, indent=2).encode()


async def create(store: Store, key: str, content: Buffer) -> None:
    """Write an object unless it exists, in a single request if the store supports that.

    On fsspec filesystems zarr itself checks first and then writes.
    """
    if isinstance(store, FsspecStore) and "mode" in signature(store.fs._pipe_file).parameters:
        try:
            await store.fs._pipe_file(f"{store.path}/{key}", content.to_bytes(), mode="create")
        except FileExistsError:
            return
        except Exception:  # conditional requests are not supported, or the service is down and this raises
            await store.set_if_not_exists(key, content)
    else:
        await store.set_if_not_exists(key, content)


async def read_claim(location: Location) -> Claim | None:
    """Read the claim on a path; None if there is none. Raises StorageError if the store cannot be read."""
    if location.is_icechunk:  # accepts only Zarr's own keys
        return None
    content = await read_object(location, CLAIM)
    if content is None:
        return None
    try:
        found = json.loads(content)
        beat = found.get("beat")
        texts = str(found["since"]), str(found["token"]), None if beat is None else str(beat)
        return Claim(str(found["machine"]), int(found["pid"]), *texts)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return _UNKNOWN


#: Stands for a claim that cannot be parsed: the path is claimed all the same.
_UNKNOWN = Claim("unknown", 0, "unknown", "")


def is_claim(key: str) -> bool:
    """Whether a key is a claim, or one that a local store has not renamed yet."""
    return key == CLAIM or re.fullmatch(r"writing\.[0-9a-f]{32}\.partial", key) is not None


def left_by_writing(key: str) -> bool:
    """Whether a key is created by writing a movie, and so may be removed with a stale claim."""
    return _OF_A_MOVIE.fullmatch(key) is not None
