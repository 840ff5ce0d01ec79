"""The two columns of a migration: their raw values, and the checks before anything is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datajoint as dj
from datajoint.codecs import resolve_dtype

from .._typing import Json
from ..codec import PhotonCodec
from ..errors import ConfigurationError

#: Types of DataJoint 0.14 whose values are in tables of their own.
_LEGACY = ("blob@", "attach@", "filepath@", "external")


@dataclass(frozen=True)
class Column:
    """A column of a table, with its values as the database has them."""

    table: Any
    name: str

    @classmethod
    def of(cls, table: Any, name: str) -> Column:
        """Look up a column; ConfigurationError if the table has none of this name."""
        table = table() if isinstance(table, type) else table
        free = dj.FreeTable(table.connection, table.full_table_name)
        if name not in free.heading.names:
            names = ", ".join(free.heading.names)
            raise ConfigurationError(f"{free.full_table_name} has no column {name!r}: it has {names}")
        return cls(free, name)

    def __str__(self) -> str:
        return f"{self.table.database}.{self.table.table_name}.{self.name}"

    __repr__ = __str__  # a table's own repr reads its rows

    @property
    def attribute(self) -> Any:
        """DataJoint's description of the column."""
        return self.table.heading[self.name]

    @property
    def connection(self) -> Any:
        """The connection of the table."""
        return self.table.connection

    @property
    def config(self) -> Any:
        """The configuration of the connection, which has the stores."""
        return self.connection._config

    @property
    def filled(self) -> Any:
        """The rows with a value."""
        return self.table & f"{self.connection.adapter.quote_identifier(self.name)} IS NOT NULL"

    def cell(self, key: Json) -> Any:
        """Return the raw value of a row; None for NULL and for a row that is not there."""
        return self._first((self.table & key).proj(self.name).cursor())

    @contextmanager
    def locked(self, key: Json) -> Iterator[Any]:
        """Yield the raw value as :meth:`cell` does, in a transaction that keeps others from changing it."""
        with self.connection.transaction:
            where = (self.table & key).where_clause()
            columns = ", ".join(map(self.connection.adapter.quote_identifier, [*self.table.primary_key, self.name]))
            locking = f"SELECT {columns} FROM {self.table.full_table_name}{where} FOR UPDATE"  # noqa: S608  # names
            yield self._first(self.connection.query(locking))

    @staticmethod
    def _first(cursor: Any) -> Any:
        found = cursor.fetchone()
        value = None if found is None else found[-1]
        return bytes(value) if isinstance(value, memoryview) else value  # PostgreSQL's binary

    def put(self, key: Json, value: Any) -> None:
        """Set the value of a row, which is inserted if it is not there."""
        row = {**key, self.name: value}
        if self.table & key:
            self.table.update1(row)
        else:
            self.table.insert1(row)

    def movie(self, cell: Any) -> Any:
        """Return the handle of a raw value of a photon column."""
        return self.attribute.codec.decode(cell, context={"config": self.config})


def check_columns(source: Column, target: Column) -> None:
    """Raise ConfigurationError if movies cannot be copied from one column to the other."""
    attribute = source.attribute
    if attribute.in_key:
        raise ConfigurationError(f"{source} is part of the primary key: only other columns can be migrated")
    if (attribute.original_type or "").startswith(_LEGACY):
        raise ConfigurationError(
            f"{source} has the type {attribute.original_type} of DataJoint 0.14, whose values are in tables of their "
            "own: convert it to DataJoint 2 first, with datajoint.migrate"
        )
    if attribute.codec is not None:
        # DataJointError for a codec that is not installed
        resolve_dtype(f"<{attribute.codec.name}>", store_name=attribute.store)
    if not isinstance(target.attribute.codec, PhotonCodec):
        raise ConfigurationError(f"{target} is {target.attribute.type}, and not a photon column")
    if source.table.full_table_name == target.table.full_table_name:
        if source.name == target.name:
            raise ConfigurationError(f"{source} cannot be migrated to itself: add a column, and name it")
        return
    if set(source.table.primary_key) != set(target.table.primary_key):
        raise ConfigurationError(
            f"{source.table.full_table_name} has the primary key {source.table.primary_key}, and "
            f"{target.table.full_table_name} {target.table.primary_key}: they must be the same"
        )
    heading = target.table.heading
    needed = [
        name
        for name in heading.secondary_attributes
        if name != target.name and heading[name].default is None and not heading[name].nullable
    ]
    if needed:
        raise ConfigurationError(
            f"{target.table.full_table_name} needs a value of {', '.join(needed)} in each row: give these attributes "
            "a default, or insert the rows without movies first, with a nullable photon column"
        )
