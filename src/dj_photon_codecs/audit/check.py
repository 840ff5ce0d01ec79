"""Run the audit.

This shares no code with ``datajoint.gc`` and is stricter: a column that cannot be read is an error, not a warning,
because its movies would look like garbage.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from datajoint.errors import DataJointError

from ..errors import ConfigurationError
from ..storage.progress import progress_bar
from .report import AuditReport, RowProblem, covered, parents
from .rows import MISSING, Row, Rows
from .store_layout import Place


def audit_store(
    schemas: Any, store: str | None = None, *, verify: bool = False, progress: bool | None = None, jobs: int = 1
) -> AuditReport:
    """Compare the contents of a store with the rows of one or more schemas that refer to it; changes nothing.

    Works for every column declared with a store, even if its codec is not installed here. Only for photon movies are
    the objects checked too. The store is listed first; then the rows are read in one database snapshot. So concurrent
    writes cannot hide a row that exists throughout the audit.

    Parameters
    ----------
    schemas
        A DataJoint schema, or a sequence of schemas on one connection. Include every schema whose rows may refer to the
        same objects, for example because rows were copied from one schema to another.
    store
        Name of the store; by default the default store.
    verify
        Whether to read every chunk of every photon movie, which takes as long as reading the store.
    progress
        Whether to show a progress bar over the movies being verified; None shows one if it takes long.
    jobs
        Number of movies checked at a time.

    Returns
    -------
    AuditReport
        Findings. Memory grows with the number of movies, not with their objects or bytes.

    Raises
    ------
    DataJointError
        If the store is not configured, a table cannot be read, or a transaction is open, which may see rows older than
        the store.
    ConfigurationError
        If ``jobs`` is below 1.
    StorageError
        If the store cannot be listed or does not exist: its disk is not mounted, or there is no such bucket.
    """
    if jobs < 1:
        raise ConfigurationError(f"jobs is how many movies are checked at a time, at least 1, got {jobs!r}")
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
    if rows.referenced and not listed:
        place.check()
    missing: list[RowProblem] = []
    damaged: list[RowProblem] = []
    foreign: list[str] = []
    with progress_bar("verifying", len(rows.to_check), "movie", progress if verify else False) as advance:
        for row, message in _checked(rows.to_check, place, verify=verify, jobs=jobs):
            foreign += row.foreign
            if message is not None:
                (missing if message == MISSING else damaged).append(row.problem(message))
            advance(1)
    above = {parent for path in rows.referenced for parent in parents(path)}
    orphaned = [listed[path] for path in sorted(listed) if path not in above and not covered(path, rows.referenced)]
    return AuditReport(
        store=place.name,
        started=started,
        referenced=tuple(sorted(rows.referenced)),
        orphaned=tuple(found for found in orphaned if not found.unfinished),
        unfinished=tuple(found for found in orphaned if found.unfinished),
        missing=tuple(missing),
        damaged=tuple(damaged),
        unreadable=tuple(rows.unreadable),
        unattributed=tuple(place.elsewhere(rows.referenced)),
        foreign=tuple(foreign),
        verified=verify,
    )


def _checked(rows: list[Row], place: Place, *, verify: bool, jobs: int) -> Iterator[tuple[Row, str | None]]:
    """Yield rows in order, each with the problem of its object, or None."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from zip(rows, pool.map(lambda row: row.check(place, verify=verify), rows), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # start no further checks after an error or Ctrl-C


@contextmanager
def _snapshot(connection: Any) -> Iterator[None]:
    """A transaction in which all reads see the same state of the database."""
    with connection.transaction:
        if connection.adapter.backend == "postgresql":  # MySQL transactions use a snapshot by default
            connection.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
