"""The report of an audit."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .._typing import Json
from .inventory import StoredObject


@dataclass(frozen=True)
class RowProblem:
    """A problem with a row or the object it refers to."""

    table: str
    """Full name of the table."""
    field: str
    """Name of the column."""
    key: Json
    """Primary key of the row."""
    path: str
    """Path that the row refers to, relative to the store; empty if it cannot be read."""
    message: str
    """Description of the problem."""

    def __str__(self) -> str:
        return f"{self.table}.{self.field} {self.key}: {self.message}"


@dataclass(frozen=True, repr=False)
class AuditReport:
    """Findings of :func:`audit_store`; true when nothing is orphaned, unfinished, missing, damaged or unreadable."""

    store: str
    """Name of the store."""
    started: datetime
    """Start of the audit; objects written later are not in the report."""
    referenced: tuple[str, ...]
    """Paths that rows refer to, relative to the store."""
    orphaned: tuple[StoredObject, ...] = ()
    """Objects in the folders of the schemas that no row refers to: garbage, or an insert in progress."""
    missing: tuple[RowProblem, ...] = ()
    """Rows whose object is not in the store."""
    damaged: tuple[RowProblem, ...] = ()
    """Rows of photon movies with missing objects or a wrong size; with ``verify=True``, also those with damaged
    chunks."""
    unreadable: tuple[RowProblem, ...] = ()
    """Rows whose reference to a store cannot be read or resolved."""
    unattributed: tuple[str, ...] = ()
    """Other objects and folders in the store, including those of other schemas; not examined."""
    foreign: tuple[str, ...] = ()
    """Harmless files in movie folders that are not part of the movie, for example from file managers or network file
    systems."""
    unfinished: tuple[StoredObject, ...] = ()
    """Movies without a row that are being acquired, or whose acquisition was interrupted. Recover the latter first, or
    garbage collection deletes their frames. A movie still being acquired was written to in the last minute."""
    verified: bool = False
    """Whether every chunk was read."""

    def orphaned_for(self, age: timedelta) -> tuple[StoredObject, ...]:
        """Orphans last written ``age`` or more before the audit; those of unknown date are excluded.

        An insert in progress looks like an orphan. Choose an ``age`` longer than the longest time between writing the
        last object of a movie and committing its row.
        """
        latest = self.started - age
        return tuple(o for o in self.orphaned if o.last_modified is not None and o.last_modified <= latest)

    def live(self, paths: Sequence[str]) -> list[str]:
        """Return those of ``paths`` that a row refers to, which must not be deleted.

        Parameters
        ----------
        paths
            Paths relative to the store, for example ``found["orphaned_schema_paths"]`` of a dry run of DataJoint's
            collector, which would delete them.
        """
        referenced = set(self.referenced)
        return [path for path in paths if covered(path, referenced)]

    def __bool__(self) -> bool:
        return not (self.orphaned or self.unfinished or self.missing or self.damaged or self.unreadable)

    def __repr__(self) -> str:
        return f"<AuditReport: {str(self).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        size = sum(orphan.n_bytes for orphan in self.orphaned)
        lines = [
            f"store {self.store}: {len(self.referenced)} referenced, {len(self.orphaned)} orphaned ({size} bytes), "
            f"{len(self.missing)} missing, {len(self.damaged)} damaged, {len(self.unreadable)} unreadable, "
            f"{len(self.unattributed)} unattributed" + ("; every chunk was read" if self.verified else "")
        ]
        for name in ("missing", "damaged", "unreadable"):
            lines += [f"{name}: {problem}" for problem in getattr(self, name)]
        lines += [f"orphaned: {orphan.path} ({orphan.n_objects} objects)" for orphan in self.orphaned]
        lines += [
            f"unfinished, recover first: {movie.path} ({movie.n_objects} blocks, last written "
            f"{'at an unknown time' if movie.last_modified is None else movie.last_modified.isoformat(' ', 'seconds')})"
            for movie in self.unfinished
        ]
        lines += [f"foreign: {path}" for path in self.foreign]
        return "\n".join([*lines, *(f"unattributed: {path}" for path in self.unattributed)])


def parents(path: str) -> Iterator[str]:
    """Yield all parent folders of a path."""
    while path := posixpath.dirname(path):
        yield path


def covered(path: str, referenced: set[str]) -> bool:
    """Whether a path is referenced, lies inside a referenced folder, or is the DataJoint manifest beside one."""
    path = path.removesuffix(".manifest.json")
    return path in referenced or any(parent in referenced for parent in parents(path))
