"""The audit itself.

This shares no code with ``datajoint.gc``, and stops where that goes on: a column that cannot be read is an error
here, not a warning, because the movies of a column that was not read look like garbage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from datajoint.errors import DataJointError

from ..storage.progress import progress_bar
from .place import Place
from .report import AuditReport, RowProblem, covered, parents
from .rows import MISSING, Rows


def audit_store(
    schemas: Any, store: str | None = None, *, verify: bool = False, progress: bool | None = None
) -> AuditReport:
    """Compare what lies in a store with what the rows of one schema or several refer to; changes nothing.

    Works for every column that is declared with a store, whether or not its codec is installed here; only photon
    movies are also checked for their objects. The store is listed before the rows are read, and those are read in one
    snapshot of the database, so that no row that was there all the time is missed, whoever writes meanwhile.

    Parameters
    ----------
    schemas
        A DataJoint schema, or a sequence of schemas on one connection. Name every schema whose rows may refer
        to the same objects: rows that were copied from one schema to another do.
    store
        Name of the store; the default store when None.
    verify
        Whether to read every chunk of every photon movie: takes as long as reading the store.
    progress
        Whether to show a progress bar over the movies that are read; None shows one when it takes long.

    Returns
    -------
    AuditReport
        Its size grows with the number of movies, not with that of their objects or bytes.

    Raises
    ------
    DataJointError
        When the store is not configured, a table cannot be read, or a transaction is open: the rows that it sees
        may be older than the store.
    StorageError
        When the store cannot be listed.
    """
    schemas = tuple(schemas) if isinstance(schemas, (list, tuple)) else (schemas,)
    connection = schemas[0].connection
    if connection.in_transaction:
        raise DataJointError("audit_store in a transaction would see rows that are older than the store: commit first")
    place = Place(connection._config, store, [schema.database for schema in schemas])
    started = datetime.now(UTC)
    listed = {found.path: found for found in place.listing()}
    rows = Rows(place, listed, keep_movies=verify)
    with _snapshot(connection):
        for schema in schemas:
            rows.read(schema)
    missing: list[RowProblem] = []
    damaged: list[RowProblem] = []
    with progress_bar("verifying", len(rows.to_check), "movie", progress if verify else False) as advance:
        for row in rows.to_check:
            message = row.check(place, verify=verify)
            if message is not None:
                (missing if message == MISSING else damaged).append(row.problem(message))
            advance(1)
    above = {parent for path in rows.referenced for parent in parents(path)}
    orphaned = [listed[path] for path in sorted(listed) if path not in above and not covered(path, rows.referenced)]
    return AuditReport(
        store=place.name,
        started=started,
        referenced=tuple(sorted(rows.referenced)),
        orphaned=tuple(orphaned),
        missing=tuple(missing),
        damaged=tuple(damaged),
        unreadable=tuple(rows.unreadable),
        unattributed=tuple(place.elsewhere(rows.referenced)),
        verified=verify,
    )


@contextmanager
def _snapshot(connection: Any) -> Iterator[None]:
    """A transaction in which all reads see one state of the database."""
    with connection.transaction:
        if connection.adapter.backend == "postgresql":  # MySQL's transactions begin with a snapshot
            connection.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
