"""What an audit says."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .._typing import Json
from ..storage.inventory import StoredObject


@dataclass(frozen=True)
class RowProblem:
    """A row whose object is not as it should be.

    Attributes
    ----------
    table, field
        Full name of the table, and the column.
    key
        Primary key of the row.
    path
        What the row refers to, relative to the store; empty where it says nothing that can be read.
    message
        What is wrong.
    """

    table: str
    field: str
    key: Json
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.table}.{self.field} {self.key}: {self.message}"


@dataclass(frozen=True)
class AuditReport:
    """What :func:`audit_store` found; true in a condition when nothing is orphaned, missing, damaged or unreadable.

    Attributes
    ----------
    store
        Name of the store.
    started
        When the listing began: what was written later is not in the report.
    referenced
        Paths that rows refer to, relative to the store.
    orphaned
        What lies in the folders of the schemas and no row refers to: garbage, or an insert under way.
    missing
        Rows whose object is not in the store.
    damaged
        Rows of photon movies whose objects are not all there, or not of their size; with ``verify=True``,
        also those with a chunk that does not read well.
    unreadable
        Rows of columns with a store of which it cannot be said what they refer to, or where.
    unattributed
        What lies elsewhere in the store, other schemas' folders included: not looked into, and nothing is said of it.
    verified
        Whether every chunk was read.
    """

    store: str
    started: datetime
    referenced: tuple[str, ...]
    orphaned: tuple[StoredObject, ...] = ()
    missing: tuple[RowProblem, ...] = ()
    damaged: tuple[RowProblem, ...] = ()
    unreadable: tuple[RowProblem, ...] = ()
    unattributed: tuple[str, ...] = ()
    verified: bool = False

    def orphaned_for(self, age: timedelta) -> tuple[StoredObject, ...]:
        """Orphans whose newest object was written at least ``age`` before the audit.

        Those of unknown date are left out. An insert that is under way shows as an orphan: take an ``age`` longer
        than the longest time that passes between the last object of a movie and the commit of its row.
        """
        latest = self.started - age
        return tuple(o for o in self.orphaned if o.last_modified is not None and o.last_modified <= latest)

    def live(self, paths: Sequence[str]) -> list[str]:
        """Those of ``paths`` that belong to what a row refers to.

        Parameters
        ----------
        paths
            Relative to the store, such as ``found["orphaned_schema_paths"]`` of a dry run of DataJoint's collector:
            whatever this gives of them, that collector would delete, and must not.
        """
        referenced = set(self.referenced)
        return [path for path in paths if covered(path, referenced)]

    def __bool__(self) -> bool:
        return not (self.orphaned or self.missing or self.damaged or self.unreadable)

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
        return "\n".join([*lines, *(f"unattributed: {path}" for path in self.unattributed)])


def parents(path: str) -> Iterator[str]:
    """All folders above a path."""
    while path := posixpath.dirname(path):
        yield path


def covered(path: str, referenced: set[str]) -> bool:
    """Whether a path is referred to, lies in what is, or is the manifest that DataJoint writes beside it."""
    path = path.removesuffix(".manifest.json")
    return path in referenced or any(parent in referenced for parent in parents(path))
