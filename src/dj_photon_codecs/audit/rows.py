"""Read the rows that refer to a store as raw values, without decoding them or reading movies."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from itertools import count
from typing import Any

import datajoint as dj
from datajoint.codecs import decode_attribute, parse_type_spec
from datajoint.errors import DataJointError

from .._datajoint import parsed
from .._typing import Json
from ..codec import PhotonCodec, is_movie_row
from ..errors import PhotonCodecError
from ..handle import PhotonArray
from ..storage.documents import DOCUMENT_KEYS
from ..storage.journal import FRAME_DATA, is_of_acquisition
from .inventory import StoredObject
from .report import RowProblem
from .store_layout import Place

_PAGE = 1000  # rows read at a time; with metadata, they take a few megabytes
#: Message for a photon column with a value of another codec, for example copied by INSERT ... SELECT.
_NO_MOVIE = "it holds no photon movie, but what another codec wrote: was it copied from a column of another type?"
#: Message for a row whose object does not exist.
MISSING = "nothing is there"


class Row:
    """A database value that refers to an object in the store."""

    def __init__(self, table: Any, field: str, key: Json, path: str) -> None:
        self._table, self._field, self._key, self.path = table, field, key, path
        self.foreign: list[str] = []  # files in the movie's folder that are not part of it

    def problem(self, message: str) -> RowProblem:
        """Describe a problem of this row for the report."""
        return RowProblem(self._table.full_table_name, self._field, self._key, self.path, message)

    def check(self, place: Place, *, verify: bool) -> str | None:
        """Check the object again; return the problem, or None if there is none or the row has been deleted since."""
        sizes = place.inventory.sizes(self.path)
        value = self._value_now(place)
        if value is None:
            return None
        if not sizes.keys() - {FRAME_DATA}:
            return MISSING
        if not is_movie_row(value):
            return None
        message, foreign = _movie_problem(value, sizes, place.config)
        self.foreign = [f"{self.path}/{name}" for name in foreign]
        if message is None and verify:
            verified = _handle(value, place.config).verify(progress=False)
            message = None if verified or self._value_now(place) is None else str(verified)
        return message

    def _value_now(self, place: Place) -> Any:
        """The row's JSON value if it still refers to this path, else None."""
        with place.database:
            row = (self._table & self._key).proj(self._field).cursor(as_dict=True).fetchone()
        value = None if row is None else parsed(row[self._field])
        refers = value is not None and self.path in _references(self._table, self._field, value, place)
        return value if refers else None


class Rows:
    """Rows that refer to a store, collected schema by schema."""

    def __init__(self, place: Place, listed: dict[str, StoredObject], *, keep_movies: bool) -> None:
        self._place, self._listed, self._keep_movies = place, listed, keep_movies
        self.referenced: set[str] = set()
        self.unreadable: list[RowProblem] = []
        self.to_check: list[Row] = []  # suspicious rows; with ``keep_movies``, all movies

    def read(self, schema: Any) -> None:
        """Read every column of a schema that may refer to the store; call it within the snapshot."""
        adapter = schema.connection.adapter
        for name in schema.list_tables():
            table = dj.FreeTable(schema.connection, adapter.make_full_table_name(schema.database, name))
            fields = [name for name, attr in table.heading.attributes.items() if attr.codec and not attr.is_blob]
            for row in _pages(table, fields):
                key = {name: decode_attribute(table.heading[name], row[name]) for name in table.primary_key}
                for field in fields:
                    if row[field] is not None:
                        self._take(table, field, key, row[field])

    def _take(self, table: Any, field: str, key: Json, stored: Any) -> None:
        value = None
        try:
            value = parsed(stored)
            references = _references(table, field, value, self._place)
        except (DataJointError, OSError, ValueError, RecursionError) as error:  # RecursionError: deeply nested JSON
            path = value.get("path") if isinstance(value, dict) else None
            path = posixpath.normpath(f"/{path}").lstrip("/") if isinstance(path, str) else ""
            self.referenced |= {path} - {""}  # it may still be in use
            self.unreadable.append(Row(table, field, key, path).problem(str(error)))
            return
        if isinstance(table.heading[field].codec, PhotonCodec) and not is_movie_row(value):
            self.unreadable.append(Row(table, field, key, references[0] if references else "").problem(_NO_MOVIE))
        for path in references:
            self.referenced.add(path)
            found = self._listed.get(path)
            wrong = found is None or not _looks_whole(value, found, self._place.config)
            if wrong or (self._keep_movies and is_movie_row(value)):
                self.to_check.append(Row(table, field, key, path))


def _pages(table: Any, fields: list[str]) -> Iterator[Json]:
    """Yield the raw rows of a table page by page; consistent only within a snapshot."""
    if not fields:
        return
    for offset in count(0, _PAGE):
        page = list((table.proj(*fields) & dj.Top(_PAGE, "KEY", offset)).cursor(as_dict=True))
        yield from page
        if len(page) < _PAGE:
            return


def _references(table: Any, field: str, value: Any, place: Place) -> list[str]:
    """Paths in this store that a value refers to; DataJointError or ValueError if they cannot be determined."""
    attr = table.heading[field]
    found = attr.codec.referenced_paths(value)
    # If a codec is not installed, DataJoint uses a placeholder named after the whole declaration.
    declared = attr.store if attr.store is not None else parse_type_spec(attr.codec.name)[1]
    if not found and declared is not None:
        raise ValueError(f"it names no path in a store: {str(value)[:80]}")
    return [resolved for path, store in found if (resolved := place.resolve(path, store)) is not None]


def _looks_whole(value: Any, found: StoredObject, config: Any) -> bool:
    """Whether the number and total size of a movie's objects are right; True for other values."""
    if not is_movie_row(value):
        return True
    try:
        handle = _handle(value, config)
        expected = math.prod(handle._reader.grid.objects)
    except PhotonCodecError:
        return False
    return (
        set(handle.documents) <= found.documents
        and found.n_objects - len(found.documents) == expected
        and (handle.record is None or found.chunk_bytes == handle.record.stored_bytes)
    )


def _movie_problem(value: Any, sizes: dict[str, int], config: Any) -> tuple[str | None, list[str]]:
    """Return the problem with a movie's objects of these sizes, if any, and the names of foreign files among them."""
    try:
        handle = _handle(value, config)
        grid, key = handle._reader.grid, handle._reader.key
        expected = {key(stored) for stored in grid.all_objects()}
    except PhotonCodecError as error:
        return str(error), []
    others = {*expected, *DOCUMENT_KEYS, FRAME_DATA}
    foreign = [name for name in sorted(sizes) if name not in others and not is_of_acquisition(name)]
    own = [size for name, size in sizes.items() if name in expected]
    missing = set(handle.documents) - set(sizes)
    if missing:
        return f"{', '.join(sorted(missing))} is missing", foreign
    if len(own) != len(expected):
        return f"{len(own)} of {len(expected)} objects are there: verify=True names the missing ones", foreign
    n_bytes = sum(own)
    if handle.record and n_bytes != handle.record.stored_bytes:
        return f"its objects have {n_bytes} bytes, and {handle.record.stored_bytes} were written", foreign
    return None, foreign


def _handle(value: Any, config: Any) -> PhotonArray:
    return PhotonCodec().decode(value, context={"config": config})
