"""``audit_store``: what rows refer to, what they do not, and what is missing; on each database and kind of store."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError, DuplicateError

from dj_photon_codecs import AuditReport, PhotonMovie, StorageError, audit_store
from services import Pipeline
from tables import crosswise, declare_recording, folders, objects_of, photon, row


def declare(pipeline: Pipeline, column: str = "<photon@imaging>") -> Any:
    return declare_recording(pipeline.schema, column)


def audit(pipeline: Pipeline, **options: Any) -> AuditReport:
    return audit_store(pipeline.schema, pipeline.store, progress=False, **options)


def rewrite(pipeline: Pipeline, table: Any, index: int, **changes: Any) -> None:
    """Edit the JSON of a row, as no codec would."""
    [stored] = (table & {"recording": index}).proj("movie").cursor(as_dict=True)
    value = stored["movie"] if isinstance(stored["movie"], dict) else json.loads(stored["movie"])
    quote = pipeline.instance.connection.adapter.quote_identifier
    pipeline.instance.connection.query(
        f"UPDATE {table().full_table_name} SET {quote('movie')} = %s WHERE recording = %s",
        args=(json.dumps({**value, **changes}), index),
    )


@pytest.mark.parametrize("verify", [False, True])
@crosswise
def test_a_store_that_agrees_with_its_rows_is_said_to(pipeline: Pipeline, verify: bool) -> None:
    recording = declare(pipeline)
    recording.insert([row(1, photon()), row(2, photon(1)), row(3)])
    report = audit(pipeline, verify=verify)
    assert report, report
    assert report.verified is verify
    assert sorted(report.referenced) == sorted(folders(pipeline.objects()))
    assert report.unattributed == ()
    assert str(report).startswith("store imaging: 2 referenced, 0 orphaned (0 bytes), 0 missing")


@crosswise
def test_each_kind_of_disagreement_is_found_and_only_that(pipeline: Pipeline) -> None:
    """Invariant 6: what is referenced, orphaned, missing and damaged, in one store at once."""
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in range(7))
    fs, full = pipeline.backend.fs, pipeline.backend._full_path
    (recording & "recording=1").delete()
    orphans = objects_of(pipeline, 1)
    for name in objects_of(pipeline, 2):
        fs.rm(full(name))
    [chunk] = [name for name in objects_of(pipeline, 3) if "/c/" in name]
    fs.pipe_file(full(chunk), fs.cat_file(full(chunk))[:-7])
    fs.rm(full(next(name for name in objects_of(pipeline, 4) if name.endswith("zarr.json"))))
    [chunk] = [name for name in objects_of(pipeline, 5) if "/c/" in name]
    fs.rm(full(chunk))
    fs.makedirs(full("notes"), exist_ok=True)
    fs.pipe_file(full("notes/readme.txt"), b"by hand")
    report = audit(pipeline)
    assert not report
    assert len(report.referenced) == 6
    [orphan] = report.orphaned
    assert folders(orphans) == {orphan.path}
    assert orphan.n_objects == len(orphans) == 2
    assert orphan.n_bytes == sum(len(fs.cat_file(full(name))) for name in orphans)
    assert [problem.key for problem in report.missing] == [{"subject": "m/1", "recording": 2}]
    assert [(problem.key["recording"], problem.message.split(" ")[0]) for problem in report.damaged] == [
        (3, "its"),
        (4, "zarr.json"),
        (5, "0"),
    ]
    assert report.unattributed == ("notes",)
    text = str(report)
    assert all(f"missing: {problem}" in text for problem in report.missing)
    assert f"orphaned: {orphan.path} (2 objects)" in text
    assert "unattributed: notes" in text


@crosswise
def test_one_altered_byte_is_found_when_every_chunk_is_read(pipeline: Pipeline) -> None:
    """Invariant 5."""
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in (1, 2))
    fs, full = pipeline.backend.fs, pipeline.backend._full_path
    [chunk] = [name for name in objects_of(pipeline, 2) if "/c/" in name]
    content = bytearray(fs.cat_file(full(chunk)))
    content[40] ^= 1
    fs.pipe_file(full(chunk), bytes(content))
    assert audit(pipeline)
    [problem] = audit(pipeline, verify=True).damaged
    assert problem.key["recording"] == 2
    assert "frames" in problem.message


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("profile", ["standard", "dense", "portable", "lossless"])
def test_the_sizes_in_the_row_are_those_in_the_store(
    local_pipeline: Pipeline, profile: str, zarr_format: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (profile, zarr_format) == ("dense", 2):
        pytest.skip("the dense profile has no Zarr V2 form")
    from dj_photon_codecs import PhotonCodec

    monkeypatch.setattr(PhotonCodec, "zarr_format", zarr_format)
    recording = declare(local_pipeline)
    movie = PhotonMovie(photon().movie, conversion_gain=1, zero_level=0, profile=profile)
    recording.insert1(row(1, movie))
    recording.insert1(row(2, (recording & "recording=1").fetch1("movie")))
    assert audit(local_pipeline), str(audit(local_pipeline))


@crosswise
def test_the_default_store_is_audited_by_its_name_and_by_default(pipeline: Pipeline) -> None:
    recording = declare(pipeline, "<photon@>")
    recording.insert1(row(1, photon()))
    for store in (None, "imaging"):
        report = audit_store(pipeline.schema, store)
        assert (bool(report), report.store, len(report.referenced)) == (True, "imaging", 1)


def test_a_second_name_of_the_store_refers_to_the_same_movies(local_pipeline: Pipeline) -> None:
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    local_pipeline.config.stores["renamed"] = dict(local_pipeline.config.stores["imaging"])
    report = audit_store(local_pipeline.schema, "renamed")
    assert report
    assert len(report.referenced) == 1


def test_movies_of_another_store_are_not_missed_in_this_one(local_pipeline: Pipeline, tmp_path: Path) -> None:
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    (tmp_path / "other").mkdir()
    local_pipeline.config.stores["other"] = {"protocol": "file", "location": str(tmp_path / "other")}
    report = audit_store(local_pipeline.schema, "other")
    assert (report.referenced, report.missing) == ((), ())


@crosswise
def test_a_row_whose_store_is_not_configured_is_unreadable_and_its_movie_no_orphan(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert1(row(1, photon()))
    rewrite(pipeline, recording, 1, store="retired")
    report = audit(pipeline)
    assert report.orphaned == ()
    [problem] = report.unreadable
    assert "retired" in problem.message
    assert not report


@pytest.mark.parametrize("path", ["../../elsewhere.zarr", "/etc", "a/../../b", 3, ["x"]], ids=str)
def test_a_row_that_leads_out_of_its_store_is_unreadable(local_pipeline: Pipeline, path: Any) -> None:
    """Invariant 10."""
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    rewrite(local_pipeline, recording, 1, path=path)
    report = audit(local_pipeline)
    [problem] = report.unreadable
    assert problem.key["recording"] == 1
    assert len(report.orphaned) == 1


def test_a_row_of_a_newer_format_is_named_and_its_movie_no_orphan(local_pipeline: Pipeline) -> None:
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    rewrite(local_pipeline, recording, 1, format_version=99)
    report = audit(local_pipeline)
    assert report.orphaned == ()
    assert "format version 99" in report.damaged[0].message


def test_objects_of_datajoints_own_codecs_are_counted_too(local_pipeline: Pipeline) -> None:
    @local_pipeline.schema
    class Mixed(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        frames : <npy@imaging>
        settings : <blob@imaging>
        inline : <blob>
        """

    for i in (1, 2):
        Mixed.insert1({"recording": i, "frames": np.arange(4) + i, "settings": {"a": i}, "inline": [i]})
    assert len(audit(local_pipeline).referenced) == 4
    assert audit(local_pipeline)
    (Mixed() & "recording=2").delete()
    assert len(audit(local_pipeline).orphaned) == 2


@crosswise
def test_what_a_copied_row_refers_to_in_another_schema_is_referenced(pipeline: Pipeline) -> None:
    """Rows that INSERT ... SELECT copies refer to the movies of the original."""
    recording = declare(pipeline)
    recording.insert1(row(1, photon()))
    other = dj.Schema(pipeline.schema.database + "_copy", connection=pipeline.instance.connection)
    try:
        selected = declare_recording(other)
        selected.insert(recording)
        recording.delete()
        assert len(audit(pipeline).orphaned) == 1  # as far as the one schema knows
        assert audit_store([pipeline.schema, other], pipeline.store)
        assert audit_store(other, pipeline.store).missing == ()
    finally:
        other.drop(prompt=False)


def test_folders_of_other_schemas_are_named_and_not_judged(local_pipeline: Pipeline) -> None:
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    foreign = Path(local_pipeline.backend._full_path("_schema/other_lab/table/id=1/movie_x.zarr"))
    foreign.mkdir(parents=True)
    (foreign / "zarr.json").write_text("{}")
    report = audit(local_pipeline)
    assert report.unattributed == ("_schema/other_lab",)
    assert report.orphaned == ()


def test_partitioned_stores_are_audited(local_pipeline: Pipeline) -> None:
    """DataJoint's collector does not look there (tests/test_garbage.py)."""
    local_pipeline.config.stores["imaging"]["partition_pattern"] = "{subject}"
    recording = declare(local_pipeline)
    recording.insert(row(i, photon()) for i in (1, 2))
    assert all(name.startswith("_schema/subject=") for name in local_pipeline.objects())
    assert audit(local_pipeline)
    (recording & "recording=2").delete()
    assert len(audit(local_pipeline).orphaned) == 1


@crosswise
def test_orphans_have_an_age(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert1(row(1, photon()))
    recording.delete()
    report = audit(pipeline)
    [orphan] = report.orphaned
    assert orphan.last_modified is not None
    assert abs(orphan.last_modified - datetime.now(UTC)) < timedelta(hours=1)  # a time zone off would show
    assert report.orphaned_for(timedelta(hours=1)) == ()
    assert report.orphaned_for(timedelta(hours=-1)) == (orphan,)


@crosswise
def test_the_orphan_of_a_refused_row_is_found(pipeline: Pipeline) -> None:
    """DataJoint refuses a duplicate row after its movie is written: exactly that movie is an orphan."""
    recording = declare(pipeline)
    recording.insert1(row(1, photon()))
    before = set(pipeline.objects())
    with pytest.raises(DuplicateError):
        recording.insert1(row(1, photon(1)))
    [orphan] = audit(pipeline).orphaned
    added = set(pipeline.objects()) - before
    assert folders(added) == {orphan.path}
    pipeline.backend.remove_folder(orphan.path)
    assert set(pipeline.objects()) == before
    assert audit(pipeline, verify=True)


def test_rows_are_read_a_page_at_a_time(local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 7, for the database: no page boundary loses a row."""
    monkeypatch.setattr("dj_photon_codecs.audit.rows._PAGE", 2)
    recording = declare(local_pipeline)
    recording.insert(row(i, photon()) for i in range(5))
    report = audit(local_pipeline)
    assert (bool(report), len(report.referenced)) == (True, 5)


def test_an_insert_between_listing_and_rows_is_no_disagreement(
    local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is listed first: what is inserted meanwhile has a row, and is looked for again."""
    from dj_photon_codecs.audit.place import Place

    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    listing = Place.listing

    def then_insert(place: Any) -> Any:
        yield from listing(place)
        recording.insert1(row(2, photon()))

    monkeypatch.setattr(Place, "listing", then_insert)
    report = audit(local_pipeline)
    assert (bool(report), len(report.referenced)) == (True, 2)


def test_a_row_that_is_deleted_meanwhile_is_no_disagreement(
    local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dj_photon_codecs.audit.rows import Row

    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    check = Row.check

    def delete_first(self: Any, place: Any, *, verify: bool) -> Any:
        recording.delete(prompt=False)
        for name in objects_of(local_pipeline, 1):
            Path(local_pipeline.backend._full_path(name)).unlink()
        return check(self, place, verify=verify)

    monkeypatch.setattr(Row, "check", delete_first)
    assert audit(local_pipeline, verify=True).missing == ()


def test_a_column_that_cannot_be_read_ends_the_audit(local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DataJoint's collector logs a warning and takes all movies of the column for garbage."""
    from dj_photon_codecs import PhotonCodec

    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))

    def fail(self: Any, stored: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(PhotonCodec, "referenced_paths", fail)
    with pytest.raises(RuntimeError, match="no"):
        audit(local_pipeline)
    assert not local_pipeline.instance.connection.in_transaction


def test_a_transaction_that_is_open_is_refused(local_pipeline: Pipeline) -> None:
    declare(local_pipeline)
    with local_pipeline.instance.connection.transaction, pytest.raises(DataJointError, match="commit first"):
        audit(local_pipeline)


def test_a_store_that_cannot_be_listed_ends_the_audit(
    local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.ls", fail)
    with pytest.raises(StorageError, match="cannot be listed: denied"):
        audit(local_pipeline)


def test_importing_the_package_does_not_import_the_audit() -> None:
    script = "import sys, dj_photon_codecs; print('datajoint' in sys.modules, callable(dj_photon_codecs.audit_store))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]
