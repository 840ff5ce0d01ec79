"""The migration of one column to another: planning it, running it, and setting the originals to NULL."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from datajoint.errors import LostConnectionError

from .._arguments import check
from .._typing import Json
from ..errors import MigrationError, StorageError
from ..storage.progress import progress_bar
from .columns import Column, check_columns
from .copying import copy_movie
from .forget import Forgotten, forget
from .ledger import FAILED, Ledger, Status
from .originals import Originals
from .plan import Plan, plan

#: Movies listed at a time to be claimed.
_LISTED = 100


class Migration:
    """A migration of the movies of a column to a photon column.

    Nothing is written until :meth:`run`, which any number of workers may call at the same time, and call again after
    they were stopped in any way. Each movie is copied, compared with its original count by count, and only then entered
    into its row and marked as done in the ledger, in one transaction. Originals are left as they are until
    :meth:`forget_originals`.

    Parameters
    ----------
    table
        The table of the old column.
    column
        Its name. It may be a ``longblob`` that DataJoint wrote, ``<blob>``, ``<attach>``, ``<filepath>``, ``<object>``
        and ``<npy>`` with or without a store, a codec that gives an array, or a text with the path of a file.
    to
        The photon column.
    to_table
        The table of the photon column; by default the same table. Otherwise one with the same primary key, whose rows
        are inserted.
    root
        Folder that relative paths start from.
    lease
        Seconds after which a movie may be taken over from a worker that no longer answers.
    **options
        Arguments of :func:`~dj_photon_codecs.open_source`, for files: ``channel=0``.

    Raises
    ------
    ConfigurationError
        If the columns do not fit each other.
    DataJointError
        If there is no such table, or the codec of the old column is not installed.

    Examples
    --------
    >>> migration = Migration(Recording, "movie", to="photons")  # doctest: +SKIP
    >>> print(migration.plan())  # doctest: +SKIP
    >>> print(migration.run())  # doctest: +SKIP
    12 of 12 movies done, 24.1 GB in 5.9 GB: 4.08 times smaller
    """

    def __init__(
        self,
        table: Any,
        column: str,
        to: str,
        to_table: Any = None,
        *,
        root: str | os.PathLike[str] | None = None,
        lease: float = 120.0,
        **options: Any,
    ) -> None:
        check(0.1 <= lease < math.inf, "Migration: lease", lease, "a number of seconds from 0.1")
        source, target = Column.of(table, column), Column.of(table if to_table is None else to_table, to)
        check_columns(source, target)
        self._originals, self._target = Originals(source, root, options), target
        self._ledger = Ledger(source, target, lease)

    def __repr__(self) -> str:
        return f"<Migration: {self._originals.column} to {self._target}>"

    @property
    def ledger(self) -> Any:
        """The table with a row for each movie: state, worker, times [UTC], sizes [bytes], verdict and remarks."""
        return self._ledger.table

    def status(self) -> Status:
        """Count the movies in each state."""
        return self._ledger.status()

    def plan(self, sample: int | None = 10, *, progress: bool | None = None) -> Plan:
        """Examine a few movies, and say what the migration would take. Writes nothing, except to a temporary folder.

        Parameters
        ----------
        sample
            Number of movies to examine, spread over the table; None examines all. Files that are missing are found for
            all rows of a column of paths.
        progress
            Whether to show a progress bar; None shows one if it takes long.
        """
        check(sample is None or sample >= 1, "plan: sample", sample, "a number from 1, or None")
        return plan(self._originals, self._target, self._ledger, sample, progress)

    def run(self, *, limit: int | None = None, retry: bool = False, progress: bool | None = None) -> Status:
        """Copy the movies that are not done; several workers may do so at the same time.

        A movie that cannot be migrated is recorded in the ledger with its error, and the others go on.

        Parameters
        ----------
        limit
            Largest number of movies to try; None tries all.
        retry
            Whether to try those again that failed before.
        progress
            Whether to show a progress bar; None shows one if it takes long.

        Returns
        -------
        Status
            State of the whole migration.

        Raises
        ------
        StorageError
            If the store of the photon column fails; the movie can then be claimed again.
        DataJointError
            If the database fails.
        """
        self._refuse_transaction()
        ledger = self._ledger
        ledger.declare()
        if retry:
            ledger.in_state(FAILED).delete_quick()
        total = len(ledger.pending)
        with progress_bar("migrating", total if limit is None else min(limit, total), "movie", progress) as advance:
            for key, token in self._claims(limit):
                self._migrate(key, token)
                advance(1)
        return ledger.status()

    def forget_originals(self, *, prompt: bool | None = None, progress: bool | None = None) -> Forgotten:
        """Set the old column to NULL in rows whose movie is done, once it is compared with the original again.

        Other rows are left as they are. What the rows referred to in a store is then garbage, which DataJoint's
        collector removes; files that a text column names are never removed.

        Parameters
        ----------
        prompt
            Whether to ask first; None asks if ``dj.config.safemode`` is on.
        progress
            Whether to show a progress bar; None shows one if it takes long.

        Raises
        ------
        ConfigurationError
            If the old column is not nullable; the message says what to do instead.
        """
        self._refuse_transaction()
        return forget(self._originals, self._target, self._ledger, prompt, progress)

    def _refuse_transaction(self) -> None:
        if self._target.connection.in_transaction:
            raise MigrationError("a migration commits each movie, and a transaction is open: commit or cancel it first")

    def _claims(self, limit: int | None) -> Iterator[tuple[Json, str]]:
        """Claim one movie after the other; wait once for each claim of another worker, which may be dead."""
        ledger, claimed = self._ledger, 0
        waited: set[str] = set()
        while True:
            ledger.drop_expired()
            keys = ledger.pending.keys(order_by="KEY", limit=_LISTED)
            for key in keys:
                if claimed == limit:
                    return
                token = ledger.claim(key)
                if token is not None:
                    claimed += 1
                    yield key, token
            if keys:
                continue
            held = ledger.claims()
            if claimed == limit or held.keys() <= waited:
                return
            waited |= held.keys()
            time.sleep(max(0.0, (max(held.values()) - ledger.now()).total_seconds()) + 0.01)

    def _migrate(self, key: Json, token: str) -> None:
        """Copy a claimed movie; an error of the movie is recorded, one of store or database is raised."""
        try:
            with self._ledger.renewing(token):
                copy_movie(self._originals, self._target, self._ledger, key, token)
        except (StorageError, LostConnectionError):
            self._ledger.release(token)
            raise
        except Exception as error:  # of any reader: one movie must not stop the others
            lines = [str(error), *getattr(error, "__notes__", [])]
            with suppress(MigrationError):  # another worker has taken it over
                self._ledger.close(token, FAILED, f"{type(error).__name__}: {'; '.join(lines)}")
        except BaseException:
            self._ledger.release(token)
            raise
