"""The DataJoint codec; only this module uses DataJoint's codec interface.

A column ``<photon@store>`` stores photon movies under a path that mirrors the schema. The row holds everything a handle
needs, so a fetch does not read the store. Options of a column are class attributes: subclass to change them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import datajoint as dj
import numpy as np
from datajoint import blob
from datajoint.builtin_codecs import SchemaCodec
from datajoint.codecs import resolve_dtype
from datajoint.errors import DataJointError, DuplicateError
from datajoint.storage import StorageBackend

from ._datajoint import Statement, current_statement, origin_of_fetched_value, parsed, referenced_paths
from ._row_path import check_new_path, safe_key
from ._typing import Json
from ._warn import warnings_about
from .errors import ConfigurationError, FormatError, PhotonCodecError, StorageError
from .handle import PhotonArray, UnreadableArray
from .movies import PhotonMovie, write_to
from .options import DENSE, PORTABLE, ColumnOptions, WriteOptions
from .sources import as_source, check_names, names_files
from .storage.location import Location
from .storage.metadata_checks import check_path
from .storage.record import MovieRecord, with_record, without_record
from .storage.stores import check_location, check_mounted, full_path, mark_store, store_root
from .storage.target import remove_written

#: Keys of a row besides those of the record: location and Zarr metadata of the movie.
_PATH, _STORE, _METADATA = "path", "store", "zarr"


class PhotonCodec(ColumnOptions, SchemaCodec):  # type: ignore[misc]  # DataJoint ships no types
    """Photon movies in a DataJoint column: ``movie : <photon@store>``.

    Insert anything that :func:`~dj_photon_codecs.write_movie` accepts: numpy arrays, memory maps, zarr and dask arrays,
    h5py datasets, fetched handles, file paths, or a :class:`~dj_photon_codecs.PhotonMovie` to set the noise model. A
    fetch returns a lazy :class:`~dj_photon_codecs.PhotonArray`.

    The options of :func:`~dj_photon_codecs.write_movie`, such as ``step`` and ``profile``, are class attributes: a
    subclass changes them.

    Examples
    --------
    >>> class ArchivePhoton(PhotonCodec):  # doctest: +SKIP (registers a codec for the whole process)
    ...     name = "photon_archive"
    ...     step = 1.0

    A column is then declared ``<photon_archive@store>``.
    """

    name = "photon"

    def validate(self, value: Any) -> None:
        """Check a value without reading the movie.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            If the value is not an array of counts with axes (time, ..., height, width).
        """
        movie = value.movie if isinstance(value, PhotonMovie) else value
        with _all_or_nothing():
            if names_files(movie):
                check_names(movie)  # a file is opened only once, when it is stored
            elif not (_is_null(movie) or isinstance(movie, _InPlace)):
                as_source(movie)

    def encode(
        self,
        value: Any,
        *,
        key: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        store_name: str | None = None,
    ) -> Any:
        """Write a movie to the object store; return the JSON value of the row, or None for NULL.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            If the value cannot be stored.
        DataJointError
            If the store is not configured, the row exists already, or another value of the row is invalid.
        StorageError
            If the store fails or is not mounted.
        """
        facts, primary_key = _facts(key, context)
        if _is_null(value):
            return None
        if isinstance(value, _InPlace):
            return value.row
        missing = [name for name in ("schema", "table", "field") if not facts[name]]
        if missing:
            raise DataJointError(
                f"a photon movie is stored by inserting it into a table: {', '.join(missing)} not known"
            )
        # Record the default store by name; otherwise a collector bound to that name would see an orphan.
        name = resolved_store_name(store_name, facts["config"])
        places: list[MoviePlace] = []

        def located() -> Location:
            places.append(self._new_place(facts, primary_key, name, None if statement is None else statement.table))
            return places[-1].location

        with _all_or_nothing() as statement:
            if statement is not None:
                primary_key = statement.key  # update1 does not pass the key
                found = statement.stored_row(facts["field"])
                stored = None if found is None else found[facts["field"]]
                fetched = isinstance(value, PhotonArray) and stored is not None
                if fetched and self.decode(stored, key=key, context=context) == value:
                    return parsed(stored)
                if found is not None and statement.skip_duplicates:
                    return parsed(stored)  # the row stays, so write no movie
                statement.check_other_values(facts["field"])
            what = f"column {facts['field']!r}, key {primary_key}"
            with warnings_about(f"{facts['schema']}.{facts['table']}", what):
                movie = write_to(located, value, self._options())
            mark_store(movie._location)
            if statement is not None:
                statement.written.append(movie._location)
            return places[-1].value(movie).row

    def _new_place(self, facts: dict[str, Any], primary_key: dict[str, Any], store_name: str, table: Any) -> MoviePlace:
        """A path that mirrors the schema, with a random token, in a store that is mounted and accepts it."""
        config, where = facts["config"], (facts["schema"], facts["table"], facts["field"])
        path, _ = self._build_path(*where, safe_key(primary_key), ext=".zarr", store_name=store_name, config=config)
        location = self._location(path, store_name, config)
        check_location(self._get_backend(store_name, config=config))
        if table is not None:
            check_mounted(location, lambda: referenced_paths(table, store_name))
        check_new_path(path, location.root, local=location.is_local)
        return MoviePlace(path, store_name, replace(location, unused=True), self._options())

    def decode(
        self, stored: Any, *, key: dict[str, Any] | None = None, context: dict[str, Any] | None = None
    ) -> PhotonArray:
        """Return the handle for the JSON value of a row, without reading the store.

        An unreadable row also gives a handle, so that the other rows can be fetched. Its first use raises an error with
        table, column and key: FormatError if the row was not written by this codec, or by a newer version; StorageError
        or ConfigurationError if its store cannot be used.
        """
        config = _facts(key, context)[0]["config"]
        try:
            where = f"the row of a <{self.name}> column"
            row = _checked_row(stored, where)
            record = MovieRecord.from_dict(row, where)
            if record.digest is None:
                raise FormatError(f"{where} has no 'digest', which every row is written with: it was altered")
            location = self._location(row[_PATH], row[_STORE], config)
            return PhotonArray(location, with_record(row[_METADATA], record), record)
        except Exception as error:  # a store's filesystem may raise anything
            return UnreadableArray(_unreadable(error, stored))

    def _location(self, path: str, store_name: str, config: Any) -> Location:
        """Location of a movie in a DataJoint store."""
        try:
            backend: StorageBackend = self._get_backend(store_name, config=config)
        except OSError as error:  # DataJoint looks for the folder of a file store
            raise StorageError(
                f"store {store_name!r} cannot be used: {type(error).__name__}: {error}. Is it mounted?"
            ) from error
        full = full_path(backend, path)
        root = store_root(backend)
        if backend.protocol == "file":
            return replace(Location.of(full), store_name=store_name, store_root=root)
        return Location(backend.get_url(path), full, backend.fs, store_name=store_name, store_root=root)


@contextmanager
def _all_or_nothing() -> Iterator[Statement | None]:
    """On an error, remove the movies that the same INSERT or UPDATE wrote; a note names those that remain."""
    statement = current_statement()
    try:
        yield statement
    except BaseException as error:
        for location in statement.written if statement is not None else ():
            try:
                remove_written(location)
            except StorageError as failure:
                error.add_note(str(failure))
        raise


@dataclass(frozen=True)
class _InPlace:
    """A movie already stored at the path that its row will reference."""

    row: Json


def row_place(
    table: Any, row: Json, attribute: str | None
) -> tuple[Location, WriteOptions, Callable[[PhotonArray], None], Json]:
    """Prepare a row before its movie is written: location, write options, function that inserts the row, and ticket.

    ``row`` has all attributes except the movie; ``attribute`` is the photon column, or None if there is only one. Rows
    that the table would refuse raise here. :func:`row_of_ticket` recreates the row from the ticket in another process.
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
    place = movie_place(table, attribute, key)
    ticket: Json = {"attribute": attribute, "path": place.path, "store": place.store_name}
    try:
        ticket["row"] = base64.b64encode(blob.pack(dict(row))).decode("ascii")
    except Exception:  # any error: values that DataJoint cannot serialise outside a table
        ticket = {}

    def insert(movie: PhotonArray) -> None:
        table.insert1(row | {attribute: place.value(movie)})

    return place.location, place.options, insert, ticket


@dataclass(frozen=True)
class MoviePlace:
    """Where the movie of a row will be stored, and the options of its column."""

    path: str
    store_name: str
    location: Location
    options: WriteOptions

    def value(self, movie: PhotonArray) -> _InPlace:
        """Return the value to insert for the movie, which stays where it is."""
        return _InPlace(_row(self.path, self.store_name, movie))


def movie_place(table: Any, attribute: str, key: Json) -> MoviePlace:
    """Return a new place for the movie of a row, after checking that its store is mounted."""
    heading, config = table.heading, table.connection._config
    codec: PhotonCodec = heading[attribute].codec
    _, _, given = resolve_dtype(f"<{codec.name}>", store_name=heading[attribute].store)
    store_name = resolved_store_name(given, config)
    facts = {"schema": table.database, "table": table.table_name, "field": attribute, "config": config}
    return codec._new_place(facts, key, store_name, table)


def row_of_ticket(ticket: Json, movie: PhotonArray) -> Json:
    """Recreate the row for an acquired movie; inserting it leaves the movie in place."""
    row = blob.unpack(base64.b64decode(ticket["row"]))
    return {**row, ticket["attribute"]: _InPlace(_row(ticket["path"], ticket["store"], movie))}


def _row(path: str, store_name: str, movie: PhotonArray) -> Json:
    """JSON value of the row of a stored movie."""
    assert movie.record is not None
    record = movie.record.for_row().to_dict()
    return {_PATH: path, _STORE: store_name, **record, _METADATA: without_record(movie.documents)}


class PhotonPortableCodec(PhotonCodec):
    """``<photon_portable@store>``: stores decoded counts, which any Zarr reader in any language can read."""

    name = "photon_portable"
    profile = PORTABLE.name


class PhotonDenseCodec(PhotonCodec):
    """``<photon_dense@store>``: within a few percent of the smallest size that the movie's noise allows."""

    name = "photon_dense"
    profile = DENSE.name


def _facts(key: dict[str, Any] | None, context: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Schema, table, field and config of a value (None if unknown), and its primary key.

    DataJoint passes the first four in ``context`` since 2.3.4; before, in ``key`` with a leading underscore. On fetch
    it passes only config.
    """
    key, context = key or {}, context or {}
    facts = {name: context.get(name, key.get(f"_{name}")) for name in ("schema", "table", "field", "config")}
    return facts, {name: value for name, value in key.items() if not name.startswith("_")}


def _is_null(value: Any) -> bool:
    """Whether a value is NULL, as in DataJoint's own columns: None, NaN, or NA and NaT of pandas."""
    not_a_number = isinstance(value, float | np.floating | np.datetime64) and value != value
    return value is None or bool(not_a_number) or type(value).__name__ in ("NAType", "NaTType")


def is_movie_row(row: object) -> TypeGuard[Json]:
    """Whether the JSON value of a row belongs to a photon movie."""
    return isinstance(row, dict) and {_PATH, _STORE, _METADATA} <= set(row)


def resolved_store_name(store_name: str | None, config: Any) -> str:
    """Return the store name; for ``<photon@>``, that of the default store."""
    if store_name:
        return store_name
    default = (dj.config if config is None else config).stores.get("default")
    if not isinstance(default, str) or not default:
        raise DataJointError(
            "<photon@> needs a default store, and stores.default is not configured: name it in "
            'dj.config.stores["default"], or declare the column as <photon@NAME>'
        )
    return default


def _checked_row(stored: Any, where: str) -> Json:
    """Parse a row's JSON value; raise if its path leaves the store, or if this codec did not write it."""
    try:
        row = parsed(stored)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where} holds no photon movie, and no valid JSON ({type(error).__name__}: {error})"
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


def _unreadable(error: Exception, stored: Any) -> PhotonCodecError:
    """Error for the first use of a handle whose row cannot be read."""
    origin = origin_of_fetched_value() or "a fetched row"
    path = stored.get(_PATH) if isinstance(stored, dict) else None
    named = f"{origin}, path {path!r:.300}" if isinstance(path, str) else origin
    if isinstance(error, PhotonCodecError):
        kind, cause = type(error), str(error)
    else:
        kind, cause = ConfigurationError, f"its store cannot be used: {type(error).__name__}: {error}"
    way_out = (
        "Insert movies as arrays or fetched handles; rows copied from a column of another type are not movies"
        if kind is FormatError
        else "Mount the store, or configure it in dj.config.stores as it was when the row was inserted, and fetch again"
    )
    problem = kind(f"{named}: the movie cannot be read: {cause}. {way_out}")
    problem.__cause__ = error.with_traceback(None)  # a traceback would keep the fetched rows in memory
    return problem


def _summary(row: Any) -> str:
    return f"a {type(row).__name__}" + (f" with {sorted(map(str, row))}" if isinstance(row, dict) else "")[:300]
