"""Rows that refer to a store, read as they are: without their codecs, and without a movie."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator
from itertools import count
from typing import Any

import datajoint as dj
from datajoint.codecs import decode_attribute, parse_type_spec
from datajoint.errors import DataJointError

from .._typing import Json
from ..codec import PhotonCodec, is_movie_row
from ..errors import PhotonCodecError
from ..handle import PhotonArray
from ..storage.inventory import StoredObject
from .place import Place
from .report import RowProblem

#: Rows read at a time: with their metadata, a few megabytes.
_PAGE = 1000

#: What is said of a row whose object is not there.
MISSING = "nothing is there"


class Row:
    """A value in the database that refers to an object in the store."""

    def __init__(self, table: Any, field: str, key: Json, path: str) -> None:
        self._table, self._field, self._key, self.path = table, field, key, path

    def problem(self, message: str) -> RowProblem:
        """What is wrong with it, for the report."""
        return RowProblem(self._table.full_table_name, self._field, self._key, self.path, message)

    def check(self, place: Place, *, verify: bool) -> str | None:
        """What is wrong with the object, seen anew; None when nothing is, or when the row is gone by now."""
        found = place.inventory.count(self.path)
        value = self._value_now(place)
        if value is None:
            return None
        if found is None:
            return MISSING
        message = _mismatch(value, found, place.config)
        if message is None and verify and is_movie_row(value):
            verified = _handle(value, place.config).verify(progress=False)
            message = None if verified or self._value_now(place) is None else str(verified)
        return message

    def _value_now(self, place: Place) -> Any:
        """The row's JSON value, if it is still there and still refers to this path."""
        for row in (self._table & self._key).proj(self._field).cursor(as_dict=True):
            value = _json(row[self._field])
            if any(path == self.path for path, _ in _references(self._table, self._field, value, place)):
                return value
        return None


class Rows:
    """The rows of some schemas that refer to a store."""

    def __init__(self, place: Place, listed: dict[str, StoredObject], *, keep_movies: bool) -> None:
        self._place, self._listed, self._keep_movies = place, listed, keep_movies
        self.referenced: set[str] = set()
        self.unreadable: list[RowProblem] = []
        self.to_check: list[Row] = []  # those that look wrong; with ``keep_movies``, all movies

    def read(self, schema: Any) -> None:
        """Read every column of a schema that may refer to the store, within the snapshot."""
        adapter = schema.connection.adapter
        for name in schema.list_tables():
            table = dj.FreeTable(schema.connection, adapter.make_full_table_name(schema.database, name))
            fields = [name for name, attr in table.heading.attributes.items() if attr.codec and not attr.is_blob]
            for row in _pages(table, fields):
                key = {name: decode_attribute(table.heading[name], row[name]) for name in table.primary_key}
                for field in fields:
                    if row[field] is not None:
                        self._take(table, field, key, _json(row[field]))

    def _take(self, table: Any, field: str, key: Json, value: Any) -> None:
        try:
            references = _references(table, field, value, self._place)
        except (DataJointError, OSError, ValueError) as error:
            path = value.get("path") if isinstance(value, dict) else None
            path = posixpath.normpath(f"/{path}").lstrip("/") if isinstance(path, str) else ""
            row = Row(table, field, key, path)
            if row.path:
                self.referenced.add(row.path)  # nobody knows that it is garbage
            self.unreadable.append(row.problem(str(error)))
            return
        for path, _ in references:
            self.referenced.add(path)
            found = self._listed.get(path)
            wrong = found is None or _mismatch(value, found, self._place.config) is not None
            if wrong or (self._keep_movies and is_movie_row(value)):
                self.to_check.append(Row(table, field, key, path))


def _pages(table: Any, fields: list[str]) -> Iterator[Json]:
    """The rows of a table as the database has them, a page in memory at a time: right only within a snapshot."""
    if not fields:
        return
    query = table.proj(*fields)
    for offset in count(0, _PAGE):
        page = list((query & dj.Top(_PAGE, "KEY", offset)).cursor(as_dict=True))
        yield from page
        if len(page) < _PAGE:
            return


def _references(table: Any, field: str, value: Any, place: Place) -> list[tuple[str, str | None]]:
    """Paths in this store that a value refers to.

    Raises
    ------
    DataJointError, ValueError
        When that cannot be said.
    """
    attr = table.heading[field]
    found = attr.codec.referenced_paths(value)
    # the codec of a column whose package is not installed is a placeholder: its name is the whole declaration
    declared = attr.store if attr.store is not None else parse_type_spec(attr.codec.name)[1]
    if not found and declared is not None:
        raise ValueError(f"it names no path in a store: {str(value)[:80]}")
    resolved = [(place.resolve(path, store), store) for path, store in found]
    return [(path, store) for path, store in resolved if path is not None]


def _mismatch(value: Any, found: StoredObject, config: Any) -> str | None:
    """What is wrong with the objects of a movie, by their number and sizes; None for all other values."""
    if not is_movie_row(value):
        return None
    try:
        handle = _handle(value, config)
        expected = math.prod(handle._reader.grid.objects)
    except PhotonCodecError as error:
        return str(error)
    missing = set(handle.documents) - found.documents
    if missing:
        return f"{', '.join(sorted(missing))} is missing"
    n_chunks = found.n_objects - len(found.documents)
    if n_chunks != expected:
        return f"{n_chunks} of {expected} objects are there: verify=True names the missing ones"
    stored_bytes = handle.record.stored_bytes if handle.record else found.chunk_bytes
    if found.chunk_bytes != stored_bytes:
        return f"its objects have {found.chunk_bytes} bytes, and {stored_bytes} were written"
    return None


def _handle(value: Any, config: Any) -> PhotonArray:
    return PhotonCodec().decode(value, context={"config": config})


def _json(value: Any) -> Any:
    """A JSON column as values: PostgreSQL gives these, MySQL text."""
    return json.loads(value) if isinstance(value, (str, bytes)) else value
