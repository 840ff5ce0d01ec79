"""Read from DataJoint's call frames what it does not pass to a codec.

DataJoint passes a codec neither the primary key of an updated row, nor the other values of a row, nor the row of a
fetched value. All of these are local variables of its calling functions. If a release of DataJoint renames them,
the lookups here return None, the caller does without, and our tests fail.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import datajoint as dj
from datajoint.errors import DuplicateError

from .storage.location import Location

#: Number of rows read per column to learn what a store should hold.
_LOOKED_AT = 3


def _datajoint_frames() -> Iterator[FrameType]:
    """Yield DataJoint's calling frames, innermost first, up to the user's code."""
    frame: FrameType | None = sys._getframe(1)
    entered = False
    while frame is not None:
        inside = frame.f_globals.get("__name__", "").partition(".")[0] == "datajoint"
        if entered and not inside:
            return
        entered = entered or inside
        if inside:
            yield frame
        frame = frame.f_back


@dataclass(frozen=True)
class Statement:
    """An INSERT or UPDATE whose values are being encoded, before it is sent to the database.

    ``key`` holds those primary key values that the row has. ``written`` lists the movies already written for this
    statement. ``row`` is the row to insert, or None for an UPDATE.
    """

    table: Any
    key: dict[str, Any]
    written: list[Location]
    row: Mapping[str, Any] | None
    replace: bool
    skip_duplicates: bool

    def stored_row(self, column: str) -> dict[str, Any] | None:
        """Return the stored row's value in a column; None if there is no row or the key is incomplete.

        Raises DuplicateError if the database would refuse the INSERT because of that row.
        """
        if set(self.key) != set(self.table.primary_key):
            return None
        table = dj.FreeTable(self.table.connection, self.table.full_table_name)
        found: dict[str, Any] | None = next(iter((table & self.key).proj(column).cursor(as_dict=True)), None)
        if found is not None and self.row is not None and not (self.replace or self.skip_duplicates):
            raise DuplicateError(
                f"{self.table.full_table_name} has a row with {self.key} already. "
                "To ignore duplicate entries in insert, set skip_duplicates=True"
            )
        return found

    def check_other_values(self, column: str) -> None:
        """Validate the other columns' values with their codecs, before a movie is written."""
        for name, value in (self.row or {}).items():
            if name != column and value is not None and name in self.table.heading.names:
                codec = self.table.heading[name].codec
                if codec is not None:
                    codec.validate(value)


def current_statement() -> Statement | None:
    """Return the statement for which the calling codec encodes a value; None if unknown."""
    frames = list(_datajoint_frames())
    encoding = next((frame for frame in frames if frame.f_code.co_name == "__make_placeholder"), None)
    sending = next((frame for frame in frames if frame.f_code.co_name in ("_insert_rows", "insert", "update1")), None)
    if encoding is None or sending is None:
        return None
    table: Any = encoding.f_locals.get("self")
    row = encoding.f_locals.get("row")
    known = sending.f_locals
    values = row if row is not None else known.get("key")  # in update1
    if not isinstance(values, Mapping) or not hasattr(table, "primary_key"):
        return None
    # a key added to the frame's locals lives as long as the function runs
    written = known.setdefault("_photon_movies_written", [])
    key = {name: values[name] for name in table.primary_key if name in values}
    return Statement(table, key, written, row, bool(known.get("replace")), bool(known.get("skip_duplicates")))


def parsed(stored: Any) -> Any:
    """Parse a JSON column, which MySQL returns as text and PostgreSQL as values."""
    return json.loads(stored) if isinstance(stored, str | bytes) else stored


def referenced_paths(table: Any, store_name: str) -> Iterator[str]:
    """Yield paths in a store that rows of the table's schema refer to: a few per column."""
    connection, adapter = table.connection, table.connection.adapter
    schema = connection.schemas.get(table.database)
    for name in schema.list_tables() if schema is not None else [table.table_name]:
        other = dj.FreeTable(connection, adapter.make_full_table_name(table.database, name))
        for column in other.heading.names:
            codec = other.heading[column].codec
            if codec is None or other.heading[column].is_blob:
                continue
            filled = other & f"{adapter.quote_identifier(column)} IS NOT NULL"
            for row in (filled.proj(column) & dj.Top(_LOOKED_AT, "KEY DESC")).cursor(as_dict=True):
                found = codec.referenced_paths(parsed(row[column]))
                yield from (path for path, store in found if store == store_name)


def origin_of_fetched_value() -> str | None:
    """Name the table, column and primary key of the value being decoded, for messages; None if unknown."""
    column = table = key = None
    for frame in _datajoint_frames():
        known = frame.f_locals
        if column is None:
            column = getattr(known.get("attr"), "name", None)
            continue
        query = known.get("expr", known.get("self"))
        names = getattr(query, "primary_key", None)
        if key is None and names and isinstance(row := known.get("row"), Mapping):
            key = {name: row[name] for name in names if name in row}
        if table is None and names:
            table = getattr(query, "full_table_name", None)
    if column is None:
        return None
    known_parts = [table and f"table {table}", f"column {column!r}", None if key is None else f"key {key}"]
    return ", ".join(part for part in known_parts if part)
