"""``audit_store``: what rows refer to, what they do not, and what is missing; on each database and kind of store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError, DuplicateError

import services
from dj_photon_codecs import (
    AuditReport,
    ConfigurationError,
    MissingChunkError,
    PhotonMovie,
    PhotonWriter,
    StorageError,
    audit_store,
)
from dj_photon_codecs.storage.stores import MARKER
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
    assert repr(report) == f"<AuditReport: {str(report).splitlines()[0]}>"


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
def test_movies_are_checked_side_by_side(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in range(12))
    [movie] = [fetched["movie"] for fetched in (recording & "recording=7").to_dicts()]
    pipeline.backend.remove_folder(movie._location.root.removeprefix(f"{movie._location.store_root}/"))
    reports = [audit(pipeline, verify=True, jobs=jobs) for jobs in (1, 5)]
    assert [len(report.missing) for report in reports] == [1, 1]
    assert replace(reports[0], started=reports[1].started) == reports[1]
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        audit(pipeline, jobs=0)


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
    """DataJoint's collector does not look there (tests/codec/test_garbage.py)."""
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
    """Two rows of one key in an INSERT are refused after their movies are written: exactly those are orphans."""
    recording = declare(pipeline)
    recording.insert1(row(1, photon()))
    before = set(pipeline.objects())
    with pytest.raises(DuplicateError):
        recording.insert([row(2, photon(1)), row(2, photon(2))])
    orphaned = audit(pipeline).orphaned
    added = set(pipeline.objects()) - before
    assert folders(added) == {orphan.path for orphan in orphaned}
    for orphan in orphaned:
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
    from dj_photon_codecs.audit.store_layout import Place

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


def test_a_movie_that_is_removed_from_its_row_meanwhile_is_no_disagreement(
    local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dj_photon_codecs.audit.rows import Row

    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    check = Row.check

    def remove_first(self: Any, place: Any, *, verify: bool) -> Any:
        recording.update1(row(1))
        return check(self, place, verify=verify)

    monkeypatch.setattr(Row, "check", remove_first)
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


@pytest.mark.parametrize("location", ["rec/", "", "a//b", " a b "], ids=repr)
def test_every_spelling_of_a_location_is_one_place_for_all(
    postgres: Any, s3_store: dict[str, Any], location: str
) -> None:
    """Writing, reading, the audit and DataJoint's collector join store, location and path alike."""
    s3_store["location"] = location
    with services.open_pipeline(postgres, "postgres", "s3", s3_store) as pipeline:
        agrees(pipeline)


@pytest.mark.parametrize("location", ["store/", " a//b "], ids=repr)
def test_every_spelling_of_a_folder_is_one_place_for_all(postgres: Any, tmp_path: Path, location: str) -> None:
    folder = f"{tmp_path}/{location}"
    Path(folder).mkdir(parents=True)
    with services.open_pipeline(postgres, "postgres", "file", {"protocol": "file", "location": folder}) as pipeline:
        agrees(pipeline)


@pytest.mark.parametrize(
    ("kind", "location"), [("s3", "/rec"), ("s3", "/"), ("file", "folder/"), ("file", "{}/../{}")], ids=str
)
def test_a_location_in_which_the_collector_looks_elsewhere_is_refused(
    request: pytest.FixtureRequest,
    postgres: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    location: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    location = location.format(tmp_path, tmp_path.name)
    if kind == "file":
        Path(location).mkdir(exist_ok=True)
    store = request.getfixturevalue(f"{kind}_store") | {"location": location}
    with services.open_pipeline(postgres, "postgres", kind, store) as pipeline:
        recording = declare(pipeline)
        told = f"the location of the store is '{location}'.*set it to '"
        with pytest.raises(ConfigurationError, match=told):
            recording.insert1(row(1, photon()))
        with pytest.raises(ConfigurationError, match=told):
            PhotonWriter.for_row(recording, {"subject": "m", "recording": 1})
        assert len(recording()) == 0
        assert not any("imaging" in name or "rec" in name for name in pipeline.objects())


def agrees(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert([row(i, photon(i)) for i in range(3)])
    pipeline.backend.put_buffer(b"by hand", "notes.txt")
    report = audit(pipeline, verify=True)
    assert (len(report.referenced), str(report.unattributed)) == (3, "('notes.txt',)"), str(report)
    assert report, str(report)
    (recording & "recording=1").delete()
    [orphan] = audit(pipeline).orphaned
    found = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store).collect(dry_run=True)
    assert folders(found["orphaned_schema_paths"]) == {orphan.path}
    assert (recording & "recording=2").fetch1("movie")[:].shape == (20, 32, 32)


FOREIGN = [".DS_Store", "c/.nfs0001", "Thumbs.db", "c/0/Thumbs.db", "inner.zarr/zarr.json", "inner.zarr/c/0/0/0"]


@crosswise
def test_foreign_files_in_a_movie_are_listed_and_no_damage(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in (1, 2))
    fs, full = pipeline.backend.fs, pipeline.backend._full_path
    [folder] = folders(objects_of(pipeline, 1))
    for name in FOREIGN:
        fs.makedirs(full(f"{folder}/{name}").rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(full(f"{folder}/{name}"), b"by others")
    for verify in (False, True):
        report = audit(pipeline, verify=verify)
        assert report, str(report)
        assert report.foreign == tuple(sorted(f"{folder}/{name}" for name in FOREIGN))
    [chunk] = [name for name in objects_of(pipeline, 1) if name.endswith(f"{folder}/c/0/0/0")]
    fs.rm(full(chunk))
    [problem] = audit(pipeline).damaged  # a foreign file does not stand in for one of the movie's
    assert problem.message.startswith("0 of 1 objects are there")


@crosswise
def test_an_unreadable_row_is_listed_with_table_column_and_key(pipeline: Pipeline, tmp_path: Path) -> None:
    """One bad row does not take the others with it."""
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in range(1, 5))
    pipeline.config.stores["away"] = {"protocol": "file", "location": str(tmp_path / "not mounted")}
    rewrite(pipeline, recording, 1, store="retired")
    rewrite(pipeline, recording, 2, store="away")
    quote = pipeline.instance.connection.adapter.quote_identifier
    stored = {"path": "_schema/x/y.npy", "store": "imaging", "dtype": "<i8", "shape": [3]}  # of an <npy> column
    pipeline.instance.connection.query(
        f"UPDATE {recording().full_table_name} SET {quote('movie')} = %s WHERE recording = 3",
        args=(json.dumps(stored),),
    )
    report = audit(pipeline, verify=True)
    assert [problem.key["recording"] for problem in report.unreadable] == [1, 2, 3]
    for problem, cause in zip(report.unreadable, ["retired", "not mounted", "another codec"], strict=True):
        assert (problem.table, problem.field) == (recording().full_table_name, "movie")
        assert cause in problem.message
    assert any("recording=4" in path for path in report.referenced)
    assert report.damaged == ()


def vanish(pipeline: Pipeline) -> str:
    """Take the whole store away, as an unmounted disk or a deleted bucket does; gives what errors must name."""
    spec = pipeline.config.stores["imaging"]
    if pipeline.protocol == "file":
        folder = Path(spec["location"])
        folder.rename(folder.with_name("away"))
        folder.mkdir()  # the empty mount point
        return str(folder)
    pipeline.backend.fs.rm(spec["bucket"], recursive=True)  # and the bucket itself
    return str(spec["bucket"])


@crosswise
def test_a_store_that_is_not_there_is_not_lost_data(pipeline: Pipeline) -> None:
    recording = declare(pipeline)
    recording.insert(row(i, photon(i)) for i in range(2))
    movie = (recording & "recording=1").fetch1("movie")
    name = vanish(pipeline)
    for read in (lambda: movie[0], movie.verify, movie.read_intact, lambda: audit(pipeline)):
        with pytest.raises(StorageError, match=name):
            read()


def test_a_mounted_store_that_lost_its_movies_lost_them(local_pipeline: Pipeline) -> None:
    """The marker at its root tells it from an empty mount point."""
    recording = declare(local_pipeline)
    recording.insert1(row(1, photon()))
    movie = recording.fetch1("movie")
    shutil.rmtree(Path(local_pipeline.backend._full_path("_schema")))
    with pytest.raises(MissingChunkError):
        movie[0]
    assert len(audit(local_pipeline).missing) == 1
    Path(local_pipeline.backend._full_path("")).joinpath(MARKER).unlink()
    with pytest.raises(StorageError, match="mounted"):
        audit(local_pipeline)


def test_a_store_whose_folder_is_gone_cannot_be_audited(local_pipeline: Pipeline) -> None:
    declare(local_pipeline).insert1(row(1, photon()))
    folder = Path(local_pipeline.config.stores["imaging"]["location"])
    folder.rename(folder.with_name("away"))
    with pytest.raises(StorageError, match="mounted"):
        audit(local_pipeline)


def test_a_store_beside_one_that_differs_in_a_slash_is_another(postgres: Any, s3_store: dict[str, Any]) -> None:
    """In an object store "rec" and "rec/" are two places: what is in one is no garbage of the other."""
    s3_store["location"] = "rec"
    with services.open_pipeline(postgres, "postgres", "s3", s3_store) as pipeline:
        pipeline.config.stores["other"] = s3_store | {"location": "rec/"}
        recording = declare(pipeline)
        recording.insert1(row(1, photon()))
        for name in ("imaging", "other"):
            report = audit_store(pipeline.schema, name, progress=False)
            assert report, str(report)
            assert len(report.referenced) == (name == "imaging")
