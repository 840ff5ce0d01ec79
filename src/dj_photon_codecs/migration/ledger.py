"""The ledger of a migration: one row for each movie that is being copied, is done, or cannot be migrated.

A worker claims a movie by inserting its row, which the database grants once, and renews the claim while it copies. A
claim that was not renewed is dropped, and the movie can be claimed again: so a killed worker blocks nobody for long.
DataJoint's job table would keep the reservation of a killed worker, or take one from a living worker that is slow.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Any

import datajoint as dj
from datajoint.errors import DuplicateError, IntegrityError
from datajoint.utils import from_camel_case

from .._arguments import brief_repr
from .._typing import Json
from ..errors import ConfigurationError, MigrationError
from .columns import Column

COPYING, DONE, FAILED, FORGOTTEN = "copying", "done", "failed", "forgotten"

_UTC = {"mysql": "UTC_TIMESTAMP(3)", "postgresql": "clock_timestamp() AT TIME ZONE 'UTC'"}

#: Longest name of the ledger's table; PostgreSQL allows 63 characters.
_LONGEST_NAME = 60
#: Longest remark; longer ones are cut.
_LONGEST_REMARK = 2000

_DEFINITION = """
# {comment}
-> Source
---
state                 : varchar(16)     # copying, done, failed, forgotten
worker                : varchar(255)    # user, machine and process
token                 : varchar(32)     # of the claim
started               : datetime(3)     # UTC
expires               : datetime(3)     # UTC, when a movie that is still copying may be taken over
finished = null       : datetime(3)     # UTC
original_bytes = null : int64           # of the counts
stored_bytes = null   : int64
verdict = ""          : varchar(16)     # of the noise
profile = ""          : varchar(32)
remarks = ""          : varchar({longest})  # warnings, or why it failed
unique index (token)
"""


@dataclass(frozen=True)
class Status:
    """State of a migration.

    Attributes
    ----------
    total
        Number of movies: rows whose old column is not NULL, and those whose original was forgotten.
    done
        Number of movies that were copied and verified.
    failed
        Number of movies that cannot be migrated; ``remarks`` in the ledger says why.
    copying
        Number of movies claimed by workers.
    original_bytes, stored_bytes
        Size of the movies that are done: counts, and objects in the store.
    failures
        Primary key and error of the first hundred that failed.
    """

    total: int
    done: int
    failed: int
    copying: int
    original_bytes: int
    stored_bytes: int
    failures: tuple[tuple[Json, str], ...] = ()

    __repr__ = brief_repr

    @property
    def remaining(self) -> int:
        """Number of movies that nobody has claimed yet."""
        return self.total - self.done - self.failed - self.copying

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} movies done"
        if self.stored_bytes:
            ratio = self.original_bytes / self.stored_bytes
            text += (
                f", {self.original_bytes / 1e9:.3g} GB in {self.stored_bytes / 1e9:.3g} GB: {ratio:.2f} times smaller"
            )
        parts = {"failed": self.failed, "being copied by other workers": self.copying, "to copy": self.remaining}
        lines = ["; ".join([text, *(f"{count} {name}" for name, count in parts.items() if count)])]
        return "\n".join([*lines, *(f"failed: {key}: {error}" for key, error in self.failures)])


class Ledger:
    """The ledger of one target column, and the claims of this process."""

    def __init__(self, source: Column, target: Column, lease: float) -> None:
        self.source, self.target, self.lease = source, target, timedelta(seconds=lease)
        name = f"{target.table.table_name.strip('#_')}_{target.name}_ledger"
        if len(name) > _LONGEST_NAME:
            name = f"{name[:40]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}_ledger"
        self._class = "".join(word.capitalize() for word in name.split("_"))
        self._comment = f"Migration of {source.table.database}.{source.table.table_name}"
        adapter, database = source.connection.adapter, target.table.database
        full_name = adapter.make_full_table_name(database, from_camel_case(self._class))
        self.table = dj.FreeTable(source.connection, full_name)

    def declare(self) -> None:
        """Create the table unless it is there; ConfigurationError if it belongs to the migration of another table."""
        if not self.table.is_declared:
            definition = _DEFINITION.format(comment=self._comment, longest=_LONGEST_REMARK)
            kind = type(self._class, (dj.Manual,), {"definition": definition})
            database, connection = self.target.table.database, self.source.connection
            schema = dj.Schema(database, connection=connection, create_schema=False, create_tables=True)
            try:
                schema(kind, context={"Source": self.source.table})
            except Exception:  # any error of a driver: another worker may have created it at the same moment
                if not self.table.is_declared:
                    raise
        if (self.table.heading.table_status or {}).get("comment") != self._comment:
            raise ConfigurationError(
                f"{self.table.full_table_name} is the ledger of a migration of another table than {self.source}: "
                "finish that migration and drop the ledger, or migrate to another column"
            )

    # The movies

    @property
    def pending(self) -> Any:
        """The rows of the old table whose movie nobody has claimed."""
        if not self.table.is_declared:
            return self.source.filled
        return self.source.filled.restrict(dj.Not(self.table.proj()), semantic_check=False)

    def in_state(self, *states: str) -> Any:
        """The rows of the ledger in one of these states."""
        return self.table & [{"state": state} for state in states]

    def status(self) -> Status:
        """Count the movies."""
        filled = len(self.source.filled)
        if not self.table.is_declared:
            return Status(filled, 0, 0, 0, 0, 0)
        done = self.in_state(DONE, FORGOTTEN)
        sizes = list(zip(*done.to_arrays("original_bytes", "stored_bytes"), strict=True))
        failures = self.in_state(FAILED).to_dicts(order_by="KEY", limit=100)
        key = self.table.primary_key
        return Status(
            total=len(self.pending) + len(self.table),
            done=len(sizes),
            failed=len(self.in_state(FAILED)),
            copying=len(self.in_state(COPYING)),
            original_bytes=sum(int(original) for original, _ in sizes),
            stored_bytes=sum(int(stored) for _, stored in sizes),
            failures=tuple(({name: row[name] for name in key}, row["remarks"]) for row in failures),
        )

    # Claims

    def claim(self, key: Json) -> str | None:
        """Claim a movie; return the token of the claim, or None if another worker was first or the row is gone."""
        token, now = secrets.token_hex(16), self.now()
        worker = f"{self.source.connection.get_user()} on {platform.node()}, process {os.getpid()}"[:255]
        row = {"state": COPYING, "worker": worker, "token": token, "started": now, "expires": now + self.lease}
        try:
            self.table.insert1({**key, **row})
        except DuplicateError:
            return None
        except IntegrityError:
            if self.source.table & key:
                raise
            return None
        return token

    def close(self, token: str, state: str, remarks: str = "", **facts: Any) -> None:
        """Set the final state of a claimed movie; MigrationError if another worker has taken it over."""
        text = remarks.replace("\0", " ")[:_LONGEST_REMARK]
        if not self.update(token, state=state, finished=self.now(), remarks=text, **facts):
            raise MigrationError(
                f"a movie was taken over by another worker, because its claim was not renewed for {self.lease}: "
                "the other worker's copy counts"
            )

    def update(self, token: str, connection: Any = None, **values: Any) -> bool:
        """Change the row of a claim; False if the claim is no longer there."""
        quote = self.source.connection.adapter.quote_identifier
        changes = ", ".join(f"{quote(name)} = %s" for name in values)
        statement = f"UPDATE {self.table.full_table_name} SET {changes} WHERE {quote('token')} = %s"  # noqa: S608
        found = (connection or self.source.connection).query(statement, args=(*values.values(), token))
        return bool(found.rowcount)

    def release(self, token: str) -> None:
        """Give a claim back, so that the movie can be claimed again."""
        (self.in_state(COPYING) & {"token": token}).delete_quick()

    def drop_expired(self) -> None:
        """Drop the claims that were not renewed in time."""
        now = self.now()
        for token, expires in self.claims().items():
            if expires <= now:
                (self.in_state(COPYING) & {"token": token} & f"expires <= '{now}'").delete_quick()

    def claims(self) -> dict[str, datetime]:
        """Tokens of the movies that are being copied, and when these claims expire."""
        rows = self.in_state(COPYING).proj("token", "expires").to_dicts()
        return {row["token"]: row["expires"] for row in rows}

    def now(self, connection: Any = None) -> datetime:
        """The database's clock in UTC: clocks and time zones of workers may differ."""
        connection = connection or self.source.connection
        now: datetime = connection.query(f"SELECT {_UTC[connection.adapter.backend]}").fetchone()[0]
        return now.replace(microsecond=now.microsecond // 1000 * 1000)  # what the columns hold

    @contextmanager
    def renewing(self, token: str) -> Iterator[None]:
        """Renew a claim until the block ends, from a thread."""
        ended = Event()
        thread = Thread(target=self._renew, args=(token, ended), name="dj-photon-ledger", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _renew(self, token: str, ended: Event) -> None:
        with ExitStack() as cleanup:
            connection = None  # threads must not share one, and short copies need no second one
            while not ended.wait(self.lease.total_seconds() / 4):
                with suppress(Exception):  # of any driver: the next beat tries again, and close() notices a lost claim
                    if connection is None:
                        connection = _second_connection(self.source.connection)
                        cleanup.callback(connection.close)
                    self.update(token, connection, expires=self.now(connection) + self.lease)


def _second_connection(connection: Any) -> Any:
    known = connection.conn_info
    return dj.Connection(
        known["host"],
        known["user"],
        known["passwd"],
        known["port"],
        known["ssl_input"],
        database_name=known["database_name"],
        backend=connection.adapter.backend,
        config_override=connection._config,
    )
