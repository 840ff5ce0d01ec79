"""The DataJoint codec: the only room that knows DataJoint's codec interface.

A column declared ``<photon@store>`` stores photon movies under a path that mirrors the schema, and the row holds
what makes a handle without asking the store. Options of a column are class attributes: subclass to change them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeGuard

import datajoint as dj
from datajoint.builtin_codecs import SchemaCodec
from datajoint.codecs import resolve_dtype
from datajoint.errors import DataJointError, DuplicateError
from datajoint.storage import StorageBackend

from ._typing import Json, ZarrFormat
from .errors import FormatError, StorageError
from .handle import PhotonArray
from .movies import PhotonMovie, WriteOptions, check_options, write_to
from .sources import as_source
from .storage.limits import check_path
from .storage.location import Location
from .storage.record import MovieRecord, with_record, without_record

#: Keys of a row that are not the record's: where the movie is, and its Zarr metadata.
_PATH, _STORE, _METADATA = "path", "store", "zarr"


class PhotonCodec(SchemaCodec):  # type: ignore[misc]  # DataJoint ships no types
    """Photon movies in a DataJoint column: ``movie : <photon@store>``.

    On insert the column takes what :func:`~dj_photon_codecs.write_movie` takes: numpy arrays, memory maps, zarr
    and dask arrays, h5py datasets, fetched handles, paths of files, or a :class:`~dj_photon_codecs.PhotonMovie` for
    a value with its own noise model. On fetch it gives a :class:`~dj_photon_codecs.PhotonArray`, lazily.

    Attributes
    ----------
    step
        Quantisation in noise standard deviations.
    profile
        ``standard``, ``dense``, ``portable``, ``lossless`` or ``anscombe-v1``.
    compressors
        Codecs in place of the best by trial.
    zarr_format
        3 or 2.
    progress
        Whether to show a progress bar; None shows one when it takes long.

    Examples
    --------
    >>> class ArchivePhoton(PhotonCodec):  # doctest: +SKIP (registers a codec for the whole process)
    ...     name = "photon_archive"
    ...     step = 1.0

    A column is then declared ``<photon_archive@store>``.
    """

    name = "photon"
    step: ClassVar[float] = 0.5
    profile: ClassVar[str] = "standard"
    compressors: ClassVar[Any] = None
    zarr_format: ClassVar[ZarrFormat] = 3
    progress: ClassVar[bool | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the options of a subclass where it is defined, before DataJoint registers it."""
        check_options(cls._options())
        super().__init_subclass__(**kwargs)

    @classmethod
    def _options(cls) -> WriteOptions:
        return WriteOptions(cls.step, cls.profile, cls.compressors, cls.zarr_format, cls.progress)

    def validate(self, value: Any) -> None:
        """Check what can be known without reading the movie.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            For what is not an array of counts with axes (time, ..., height, width).
        """
        movie = value.movie if isinstance(value, PhotonMovie) else value
        if not isinstance(movie, str | os.PathLike | _InPlace):  # a file is opened once, when it is stored
            as_source(movie)

    def encode(
        self,
        value: Any,
        *,
        key: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        store_name: str | None = None,
    ) -> Json:
        """Write a movie to the object store; gives the row's JSON value.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            For what cannot be stored.
        DataJointError
            When the store is not configured.
        """
        facts, primary_key = _facts(key, context)
        if isinstance(value, _InPlace):
            return value.row
        missing = [name for name in ("schema", "table", "field") if not facts[name]]
        if missing:
            raise DataJointError(
                f"a photon movie is stored by inserting it into a table: {', '.join(missing)} not known"
            )
        config = facts["config"]
        # Resolve the default store's name, and record it: a collector bound to the store by name would
        # otherwise take the movie for an orphan.
        name = resolved_store_name(store_name, config)
        path = ""

        def place() -> Location:
            nonlocal path
            path = self._new_path(facts, primary_key, name)
            return replace(self._location(path, name, config), unused=True)

        stored = write_to(place, value, self._options())
        return _row(path, name, stored)

    def _new_path(self, facts: dict[str, Any], primary_key: dict[str, Any], store_name: str) -> str:
        """A path in a store that mirrors the schema, with a random token: no two are the same."""
        where = facts["schema"], facts["table"], facts["field"], primary_key
        path, _ = self._build_path(*where, ext=".zarr", store_name=store_name, config=facts["config"])
        return str(path)

    def decode(
        self, stored: Any, *, key: dict[str, Any] | None = None, context: dict[str, Any] | None = None
    ) -> PhotonArray:
        """The handle of a row's JSON value; asks the store for nothing.

        Raises
        ------
        FormatError
            When the row was not written by this codec, or by a newer version of it.
        DataJointError
            When the row's store is not configured.
        """
        where = f"the row of a <{self.name}> column"
        row = _checked_row(stored, where)
        record = MovieRecord.from_dict(row, where)
        location = self._location(row[_PATH], row[_STORE], _facts(key, context)[0]["config"])
        return PhotonArray(location, with_record(row[_METADATA], record), record)

    def _location(self, path: str, store_name: str, config: Any) -> Location:
        """The folder of a movie on a DataJoint store."""
        try:
            backend: StorageBackend = self._get_backend(store_name, config=config)
        except OSError as error:  # DataJoint looks for the folder of a file store
            raise StorageError(f"store {store_name!r} cannot be used: {type(error).__name__}: {error}") from error
        full = backend._full_path(path)
        if backend.protocol == "file":
            return replace(Location.of(full), store_name=store_name)
        return Location(backend.get_url(path), full, backend.fs, store_name=store_name)


@dataclass(frozen=True)
class _InPlace:
    """A movie that lies where its row will have it: inserted, it is left there."""

    row: Json


def row_place(
    table: Any, row: Json, attribute: str | None
) -> tuple[Location, WriteOptions, Callable[[PhotonArray], None]]:
    """Where the movie of a row that is yet to be inserted will lie, how it is written, and what then inserts the row.

    Parameters
    ----------
    table
        The table, or its class.
    row
        All attributes of the row but the movie.
    attribute
        The photon column; None for the only one.

    Raises
    ------
    DataJointError
        When that cannot become a row: found out before the movie is there, as far as the table tells.
    """
    table = table() if isinstance(table, type) else table
    heading, name = table.heading, table.full_table_name
    columns = [column for column in heading.names if isinstance(heading[column].codec, PhotonCodec)]
    if attribute is None and len(columns) == 1:
        [attribute] = columns
    if attribute is None or attribute not in columns:
        raise DataJointError(
            f"{name} has the photon columns {columns}, and attribute is {attribute!r}: name one of them"
        )
    unknown = [field for field in row if field not in heading.names]
    lacking = [
        field
        for field in heading.names
        if field not in (attribute, *row)
        and (field in table.primary_key or (heading[field].default is None and not heading[field].nullable))
        and not heading[field].autoincrement
    ]
    if unknown or lacking or attribute in row:
        raise DataJointError(
            f"the row for {name} has all attributes but {attribute!r}: unknown {unknown}, missing {lacking}, "
            f"given {sorted(row)}"
        )
    key: dict[str, Any] = {field: row[field] for field in table.primary_key}
    if table & key:
        raise DuplicateError(f"{name} has a row with {key} already: choose another key, or delete that row")
    codec: PhotonCodec = heading[attribute].codec
    config = table.connection._config
    _, _, given = resolve_dtype(f"<{codec.name}>", store_name=heading[attribute].store)
    store_name = resolved_store_name(given, config)
    facts = {"schema": table.database, "table": table.table_name, "field": attribute, "config": config}
    path = codec._new_path(facts, key, store_name)

    def insert(movie: PhotonArray) -> None:
        table.insert1(row | {attribute: _InPlace(_row(path, store_name, movie))})

    return replace(codec._location(path, store_name, config), unused=True), codec._options(), insert


def _row(path: str, store_name: str, movie: PhotonArray) -> Json:
    """The JSON value of a row whose movie is stored."""
    assert movie.record is not None
    return {_PATH: path, _STORE: store_name, **movie.record.to_dict(), _METADATA: without_record(movie.documents)}


class PhotonPortableCodec(PhotonCodec):
    """``<photon_portable@store>``: counts at the decoded levels, readable by every Zarr reader in any language."""

    name = "photon_portable"
    profile = "portable"


class PhotonDenseCodec(PhotonCodec):
    """``<photon_dense@store>``: within a few per cent of the smallest that the movie's noise allows."""

    name = "photon_dense"
    profile = "dense"


def _facts(key: dict[str, Any] | None, context: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What DataJoint tells a codec of a value: schema, table, field and config (None where untold); its primary key.

    DataJoint passes the first four in ``context`` from 2.3.4 on, and before in ``key`` under names that begin with an
    underscore; on fetch it passes config alone. This is the one place that knows.
    """
    key, context = key or {}, context or {}
    facts = {name: context.get(name, key.get(f"_{name}")) for name in ("schema", "table", "field", "config")}
    return facts, {name: value for name, value in key.items() if not name.startswith("_")}


def is_movie_row(row: object) -> TypeGuard[Json]:
    """Whether the JSON value of a row says that it is a photon movie's."""
    return isinstance(row, dict) and {_PATH, _STORE, _METADATA} <= set(row)


def resolved_store_name(store_name: str | None, config: Any) -> str:
    """The real name of a store: that of the default store for ``<photon@>``.

    Raises
    ------
    DataJointError
        When no default store is configured.
    """
    if store_name:
        return store_name
    default = (dj.config if config is None else config).stores.get("default")
    if not isinstance(default, str) or not default:
        raise DataJointError(
            "<photon@> needs a default store and stores.default is not configured: name it in "
            'dj.config.stores["default"], or declare the column as <photon@NAME>'
        )
    return default


def _checked_row(stored: Any, where: str) -> Json:
    """A row's JSON value, with a path inside its store and the form that this codec writes.

    Raises
    ------
    FormatError
        For anything else.
    """
    try:
        row = json.loads(stored) if isinstance(stored, str) else stored
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where} holds no photon movie, but no JSON at all ({type(error).__name__}: {error})"
        ) from error
    if not is_movie_row(row):
        raise FormatError(f"{where} holds no photon movie: expected path, store and zarr, got {_summary(row)}")
    check_path(row[_PATH], where)
    if not isinstance(row[_STORE], str) or not row[_STORE]:
        raise FormatError(f"{where} names no store: expected its name, got {row[_STORE]!r:.200}")
    documents = row[_METADATA]
    if not isinstance(documents, dict) or list(documents) not in (["zarr.json"], [".zarray"]):
        raise FormatError(f"{where} holds no Zarr metadata: expected zarr.json or .zarray, got {_summary(documents)}")
    if not all(isinstance(document, dict) for document in documents.values()):
        raise FormatError(f"{where} holds no Zarr metadata: {next(iter(documents))} is not a JSON object")
    return row


def _summary(row: Any) -> str:
    return f"a {type(row).__name__}" + (f" with {sorted(map(str, row))}" if isinstance(row, dict) else "")[:300]
