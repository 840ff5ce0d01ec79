"""What DataJoint's own garbage collector deletes and must not, shown against its own code.

Where a test here fails because live movies are kept, DataJoint has become safer: then docs/garbage-collection.md
says too much, and changes with the test.
"""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import datajoint as dj
import pytest
from datajoint.codecs import Codec, unregister_codec
from datajoint.errors import DuplicateError, LostConnectionError

from dj_photon_codecs import InvalidMovieError, MissingChunkError, PhotonCodec, audit_store
from services import Pipeline, open_pipeline
from tables import address, crosswise, declare_recording, folders, objects_of, photon, row, second_connection


def collector(pipeline: Pipeline, store: str | None = "imaging") -> Any:
    return dj.gc.GarbageCollector(pipeline.schema, store=store)


def endangered(pipeline: Pipeline, found: dict[str, Any]) -> list[str]:
    """What a dry run of the collector would delete, and the audit says is live."""
    return audit_store(pipeline.schema, "imaging").live(found["orphaned_schema_paths"])


@crosswise
def test_errors_while_it_reads_references_make_live_movies_garbage(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs a warning, counts no error, and deletes."""
    recording = declare_recording(pipeline.schema)
    recording.insert1(row(1, photon()))
    caplog.set_level(logging.WARNING, "datajoint")
    monkeypatch.setattr(logging.getLogger("datajoint"), "propagate", True)

    def lost(self: Any, as_dict: bool = False) -> Any:
        raise LostConnectionError("server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr("datajoint.expression.QueryExpression.cursor", lost)
        found = collector(pipeline).collect()
        assert collector(pipeline).collect(dry_run=False)["schema_paths_deleted"] == 2
    assert "Error scanning recording.movie: server closed the connection" in caplog.text
    assert (found["scan_errors"], found["errors"], found["schema_paths_orphaned"]) == ([], 0, 2)
    with pytest.raises(MissingChunkError):
        recording.fetch1("movie")[0]
    assert len(audit_store(pipeline.schema, "imaging").missing) == 1


_UNINSTALLED = """
import json, sys
import datajoint as dj
import datajoint.codecs
datajoint.codecs._entry_points_loaded = True  # as in an environment without the package
address, stores, database = json.load(sys.stdin)
instance = dj.Instance(**address)
instance.config.stores = stores
found = dj.gc.GarbageCollector(dj.Schema(database, connection=instance.connection), store="imaging").collect()
assert "dj_photon_codecs" not in sys.modules
json.dump(found, sys.stdout)
"""


@crosswise
def test_where_the_package_is_not_installed_every_live_movie_is_garbage(pipeline: Pipeline) -> None:
    """The dry run shows it, and nothing warns of it; the audit of another process tells."""
    recording = declare_recording(pipeline.schema)
    recording.insert(row(i, photon(i)) for i in (1, 2))
    given = json.dumps([address(pipeline), pipeline.config.stores, pipeline.schema.database])
    command = [sys.executable, "-c", _UNINSTALLED]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    connected, found_line = done.stdout.splitlines()
    found = json.loads(found_line)
    assert (found["schema_paths_referenced"], found["scan_errors"]) == (0, [])
    assert found["orphaned_schema_paths"] == pipeline.objects()
    assert endangered(pipeline, found) == pipeline.objects()
    assert "connected to" in connected  # all that it logs
    assert "codec" not in done.stderr


def test_a_codec_that_is_not_registered_does_not_blind_the_audit(local_pipeline: Pipeline) -> None:
    """The columns of a codec of one's own whose module nobody imported, or whose package is not installed."""

    class Archive(PhotonCodec):
        name = "photon_unknown_here"

    recording = declare_recording(local_pipeline.schema, "<photon_unknown_here@imaging>")
    recording.insert(row(i, photon(i)) for i in (1, 2))
    unregister_codec("photon_unknown_here")
    with second_connection(local_pipeline) as other:
        schema = dj.Schema(local_pipeline.schema.database, connection=other.connection)
        found = dj.gc.GarbageCollector(schema, store="imaging").collect()
        report = audit_store(schema, "imaging", verify=True)
    assert report
    assert report.live(found["orphaned_schema_paths"]) == local_pipeline.objects()


@crosswise
def test_a_movie_being_inserted_is_garbage(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no grace period: between the last object and the row, a collector deletes the movie; the row goes in."""
    recording = declare_recording(pipeline.schema)
    from dj_photon_codecs.movies import write_to

    deleted = []

    def then_collect(*args: Any, **kwargs: Any) -> Any:
        stored = write_to(*args, **kwargs)
        with second_connection(pipeline) as other:
            schema = dj.Schema(pipeline.schema.database, connection=other.connection)
            assert audit_store(schema, "imaging").orphaned_for(timedelta(hours=1)) == ()  # a grace period keeps it
            deleted.append(dj.gc.GarbageCollector(schema, store="imaging").collect(dry_run=False)["deleted"])
        return stored

    monkeypatch.setattr("dj_photon_codecs.codec.write_to", then_collect)
    recording.insert1(row(1, photon()))
    assert deleted == [2]
    assert len(recording()) == 1
    assert pipeline.objects() == []
    assert len(audit_store(pipeline.schema, "imaging").missing) == 1


@crosswise
def test_a_movie_whose_transaction_is_open_is_garbage(pipeline: Pipeline) -> None:
    """A row that is not committed protects nothing: with populate(), until the whole make() is through."""
    recording = declare_recording(pipeline.schema)
    with pipeline.instance.connection.transaction:
        recording.insert1(row(1, photon()))
        with second_connection(pipeline) as other:
            schema = dj.Schema(pipeline.schema.database, connection=other.connection)
            found = dj.gc.GarbageCollector(schema, store="imaging").collect()
    assert endangered(pipeline, found) == pipeline.objects()


@crosswise
def test_an_insert_that_ends_while_it_scans_is_garbage(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the rows first and lists the store then: a movie committed in between has no reference."""
    recording = declare_recording(pipeline.schema)
    listing = dj.gc.GarbageCollector.list_schema_paths

    def insert_first(self: Any, schema_name: str) -> Any:
        recording.insert1(row(1, photon()))
        return listing(self, schema_name)

    monkeypatch.setattr(dj.gc.GarbageCollector, "list_schema_paths", insert_first)
    found = collector(pipeline).collect()
    assert endangered(pipeline, found) == pipeline.objects()


def test_a_collector_in_a_transaction_sees_old_rows_on_mysql(mysql: Any, file_store: dict[str, Any]) -> None:
    """Movies inserted after the transaction began are garbage to it, however long ago that was."""
    with open_pipeline(mysql, "mysql", "file", file_store) as pipeline:
        recording = declare_recording(pipeline.schema)
        with second_connection(pipeline) as other:
            schema = dj.Schema(pipeline.schema.database, connection=other.connection)
            with other.connection.transaction:
                recording.insert1(row(1, photon()))
                found = dj.gc.GarbageCollector(schema, store="imaging").collect()
        assert endangered(pipeline, found) == pipeline.objects()


@pytest.mark.parametrize(("bound_to", "safe"), [("renamed", False), (None, True)])
def test_under_a_new_name_of_the_store_old_movies_are_garbage(
    local_pipeline: Pipeline, bound_to: str | None, safe: bool
) -> None:
    """It compares the name of the store in the row with its own; bound to the default store, it does not compare."""
    declare_recording(local_pipeline.schema).insert1(row(1, photon()))
    stores = local_pipeline.config.stores
    stores["renamed"] = dict(stores["imaging"])
    stores["default"] = "renamed"
    found = collector(local_pipeline, bound_to).collect()
    live = audit_store(local_pipeline.schema, bound_to).live(found["orphaned_schema_paths"])
    assert live == ([] if safe else local_pipeline.objects())


def test_two_servers_with_a_schema_of_one_name_collect_each_others_movies(local_pipeline: Pipeline, mysql: Any) -> None:
    """The path of a movie names no server: a copy of the database, for tests say, must have a store of its own."""
    recording = declare_recording(local_pipeline.schema)
    recording.insert1(row(1, photon()))
    mysql.config.stores = dict(local_pipeline.config.stores)
    copy = dj.Schema(local_pipeline.schema.database, connection=mysql.connection)
    try:
        declare_recording(copy)
        found = dj.gc.GarbageCollector(copy, store="imaging").collect()
    finally:
        copy.drop(prompt=False)
        mysql.config.stores = {}
    assert endangered(local_pipeline, found) == local_pipeline.objects()


@crosswise
def test_rows_copied_to_another_schema_do_not_protect_the_movie(pipeline: Pipeline) -> None:
    """INSERT ... SELECT copies the reference, not the movie; the collector of the first schema reads its rows only."""
    recording = declare_recording(pipeline.schema)
    recording.insert1(row(1, photon()))
    copy = dj.Schema(pipeline.schema.database + "_copy", connection=pipeline.instance.connection)
    try:
        copied = declare_recording(copy)
        copied.insert(recording)
        recording.delete()
        found = collector(pipeline).collect()
        report = audit_store([pipeline.schema, copy], "imaging")
        assert report.live(found["orphaned_schema_paths"]) == pipeline.objects()
        both = dj.gc.GarbageCollector(pipeline.schema, copy, store="imaging").collect()
        assert both["orphaned_schema_paths"] == []  # bound to both, it is right
    finally:
        copy.drop(prompt=False)


@pytest.fixture
def wrapper() -> Iterator[None]:
    """A codec that makes movies of something else, and leaves the storing to ``<photon@imaging>``."""

    class Wrapper(Codec):  # type: ignore[misc]
        name = "photon_wrapper"

        def get_dtype(self, is_store: bool) -> str:
            return "<photon@imaging>"

        def encode(self, value: Any, *, key: Any = None, store_name: Any = None) -> Any:
            return photon(value)

        def decode(self, stored: Any, *, key: Any = None) -> Any:
            return stored

    yield
    unregister_codec("photon_wrapper")


@pytest.mark.usefixtures("wrapper")
def test_a_codec_around_the_codec_hides_its_movies(postgres: Any, file_store: dict[str, Any]) -> None:
    """It looks at the outer codec's class: derive from PhotonCodec, and do not wrap it."""
    with open_pipeline(postgres, "postgres", "file", file_store) as pipeline:
        recording = declare_recording(pipeline.schema, "<photon_wrapper>")
        recording.insert1(row(1, 3))
        assert recording.fetch1("movie").verify()
        found = collector(pipeline).collect()
        assert endangered(pipeline, found) == pipeline.objects()


def test_stores_with_partitions_are_never_collected(local_pipeline: Pipeline) -> None:
    """With ``partition_pattern`` the folder of a schema is not where it looks: orphans stay for ever."""
    local_pipeline.config.stores["imaging"]["partition_pattern"] = "{subject}"
    recording = declare_recording(local_pipeline.schema)
    recording.insert1(row(1, photon()))
    recording.delete()
    assert collector(local_pipeline).collect()["schema_paths_stored"] == 0
    assert len(audit_store(local_pipeline.schema, "imaging").orphaned) == 1


def _duplicate(recording: Any) -> None:
    with pytest.raises(DuplicateError):
        recording.insert([row(2, photon(1)), row(1)])


def _rolled_back(recording: Any) -> None:
    connection = recording.connection
    connection.start_transaction()
    recording.insert1(row(2, photon(2)))
    connection.cancel_transaction()


@pytest.mark.parametrize(
    "insert",
    [
        pytest.param(_duplicate, id="duplicate"),
        pytest.param(lambda r: r.update1(row(1, photon(1))), id="update1"),
        pytest.param(_rolled_back, id="rolled back"),
    ],
)
@crosswise
def test_what_becomes_no_row_is_one_orphan_for_both(pipeline: Pipeline, insert: Callable[[Any], None]) -> None:
    """Invariant 6: the movie is written before the row; collector and audit find exactly the one without a row."""
    recording = declare_recording(pipeline.schema)()
    recording.insert1(row(1, photon()))
    insert(recording)
    report = audit_store(pipeline.schema, "imaging")
    [orphan] = report.orphaned
    assert len(report.referenced) == 1
    assert folders(collector(pipeline).collect()["orphaned_schema_paths"]) == {orphan.path}
    pipeline.backend.remove_folder(orphan.path)
    assert audit_store(pipeline.schema, "imaging", verify=True)
    assert folders(pipeline.objects()) == {report.referenced[0]}


def test_a_codec_cannot_know_whether_the_row_will_be_taken(local_pipeline: Pipeline) -> None:
    """It is told names, the configuration and the primary key, and not when the row is refused.

    With a connection in what DataJoint hands over, or a word after the INSERT, the orphan could be avoided.
    """
    recording = declare_recording(local_pipeline.schema)
    told: dict[str, Any] = {}

    def encode(self: Any, value: Any, *, key: Any = None, context: Any = None, store_name: Any = None) -> Any:
        told.update(key=key, context=context)
        raise InvalidMovieError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotonCodec, "encode", encode)
        with pytest.raises(InvalidMovieError, match="seen"):
            recording.insert1(row(1, photon()))
    facts = {name.lstrip("_") for name in {**(told["context"] or {}), **told["key"]}}
    assert facts == {"schema", "table", "field", "config", "subject", "recording"}
    hooks = {name for name, _ in inspect.getmembers(Codec, inspect.isfunction) if not name.startswith("_")}
    assert hooks == {"encode", "decode", "get_dtype", "validate", "referenced_paths"}


@crosswise
def test_the_safe_procedure_removes_old_garbage_and_nothing_else(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of docs/garbage-collection.md, while another insert is under way."""
    recording = declare_recording(pipeline.schema)
    recording.insert(row(i, photon(i)) for i in (1, 2))
    (recording & "recording=2").delete()
    old = objects_of(pipeline, 2)
    under_way = f"_schema/{pipeline.schema.database}/recording/recording=3/movie_12345678.zarr/c/0/0/0"
    report = audit_store(pipeline.schema, "imaging")
    pipeline.backend.put_buffer(b"written after the audit, without a row yet", under_way)
    for orphan in report.orphaned_for(timedelta(0)):
        pipeline.backend.remove_folder(orphan.path)
    assert old
    assert set(pipeline.objects()) == {*objects_of(pipeline, 1), under_way}
    assert (recording & "recording=1").fetch1("movie").verify()
