"""One INSERT or UPDATE as a whole: what it leaves when it is refused, what it copies, and what it warns of."""

from __future__ import annotations

import uuid
import warnings
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError, DuplicateError

from dj_photon_codecs import (
    LosslessWarning,
    PhotonCodec,
    PhotonCodecError,
    PhotonWriter,
    StorageError,
    audit_store,
    write_movie,
)
from dj_photon_codecs.storage import stores
from dj_photon_codecs.storage.stores import MARKER
from services import Pipeline
from tables import declare_recording, folders, photon, row

CONSTANT = np.full((4, 8, 8), 5, np.uint16)
NEGATIVE = np.full((4, 8, 8), -1, np.int16)


def declare_pair(pipeline: Pipeline) -> Any:
    """A table with two photon columns."""

    @pipeline.schema
    class Pair(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        note = '' : varchar(20)
        first = null : <photon@{pipeline.store}>
        second = null : <photon@{pipeline.store}>
        """

    return Pair


def refused(tmp_path: Path) -> dict[str, Any]:
    """What is refused by its type, by its counts, and while it is written."""
    text = tmp_path / "text.tif"
    text.write_text("no movie")
    return {"type": "", "counts": NEGATIVE, "file": text, "list": [1, 2]}


@pytest.mark.parametrize("kind", ["type", "counts", "file", "list"])
def test_a_row_whose_second_movie_is_refused_leaves_no_first_one(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    pair = declare_pair(pipeline)
    bad = refused(tmp_path)[kind]
    pair.insert1({"recording": 1, "first": photon(), "second": photon()})
    before = pipeline.objects()
    with pytest.raises(PhotonCodecError):
        pair.insert1({"recording": 2, "first": photon(), "second": bad})
    with pytest.raises(PhotonCodecError):
        pair.insert1({"recording": 1, "first": photon(), "second": bad}, replace=True)
    with pytest.raises(PhotonCodecError):
        pair.update1({"recording": 1, "first": photon(), "second": bad})
    assert pipeline.objects() == before
    assert all(pair.fetch1(column).verify() for column in ("first", "second"))


def test_a_later_row_that_is_refused_leaves_no_earlier_ones(pipeline: Pipeline) -> None:
    recording = declare_recording(pipeline.schema)
    with pytest.raises(PhotonCodecError):
        recording.insert(row(number, movie) for number, movie in enumerate([photon(), photon(), NEGATIVE]))
    assert (len(recording()), pipeline.objects()) == (0, [])
    recording.insert(row(number, photon()) for number in range(2))
    with pytest.raises(PhotonCodecError):  # in chunks, each a statement: the first is in the database
        recording.insert([row(2, photon()), row(3, photon()), row(4, NEGATIVE)], chunk_size=2)
    assert (len(recording()), len(folders(pipeline.objects()))) == (4, 4)
    assert all(fetched["movie"].verify() for fetched in recording.to_dicts())


def test_a_failed_statement_takes_nothing_of_the_one_before(pipeline: Pipeline) -> None:
    """Rows are inserted one after the other from the same line, as in a loop over files."""
    pair = declare_pair(pipeline)
    for number, movie in enumerate([photon(), photon(), NEGATIVE]):
        try:
            pair.insert1({"recording": number, "first": photon(), "second": movie})
        except PhotonCodecError:
            pair.update1({"recording": 0, "note": "refused"})
    assert len(pair()) == 2
    report = audit_store(pipeline.schema, pipeline.store, verify=True)
    assert (len(report.referenced), len(report.orphaned), len(report.missing)) == (4, 0, 0)


def test_what_cannot_be_removed_is_named(local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("read-only now")

    pair = declare_pair(local_pipeline)
    monkeypatch.setattr("zarr.storage.LocalStore.delete", refuse)
    with pytest.raises(PhotonCodecError) as raised:
        pair.insert1({"recording": 1, "first": photon(), "second": NEGATIVE})
    assert "could not be removed" in "".join(raised.value.__notes__)


def test_an_update_with_a_fetched_row_leaves_its_movies_where_they_are(pipeline: Pipeline) -> None:
    pair = declare_pair(pipeline)
    pair.insert1({"recording": 1, "first": photon(), "second": photon(1)})
    before = pipeline.objects()
    fetched = pair.fetch1()
    pair.update1({**fetched, "note": "checked"})
    pair.insert1(fetched, skip_duplicates=True)
    if pipeline.database == "mysql":  # DataJoint's REPLACE is no SQL of PostgreSQL's
        pair.insert1({**fetched, "note": "again"}, replace=True)
    assert pipeline.objects() == before
    assert pair.fetch1("first") == fetched["first"]
    assert pair.fetch1("second").verify()


def test_a_movie_of_another_column_or_row_is_copied(pipeline: Pipeline) -> None:
    pair = declare_pair(pipeline)
    pair.insert1({"recording": 1, "first": photon(), "second": photon(1)})
    pair.update1({"recording": 1, "second": pair.fetch1("first")})
    pair.insert1({"recording": 2, "first": pair.fetch1("first")})
    paths = [
        movie._location.root
        for fetched in pair.to_dicts()
        for movie in (fetched["first"], fetched["second"])
        if movie is not None
    ]
    assert len(paths) == len(set(paths)) == 3


def test_an_update_stores_under_the_primary_key(pipeline: Pipeline) -> None:
    recording = declare_recording(pipeline.schema)
    recording.insert1(row(7))
    recording.update1(row(7, photon()))
    [folder] = folders(pipeline.objects())
    assert "/subject=m%2F1/recording=7/movie_" in folder


def test_one_warning_a_movie_names_it_and_points_at_the_code_that_stores_it(pipeline: Pipeline) -> None:
    recording = declare_recording(pipeline.schema)

    @pipeline.schema
    class Copy(dj.Computed):  # type: ignore[misc]
        definition = f"""
        -> recording
        ---
        movie : <photon@{pipeline.store}>
        """

        def make(self, key: dict[str, Any]) -> None:
            self.insert1({**key, "movie": CONSTANT})

    recording.insert(row(number) for number in range(12))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        Copy.populate(display_progress=False)
    told = [warning for warning in caught if warning.category is LosslessWarning]
    assert len(told) == 12
    for warning in told:
        assert (warning.filename, warning.lineno) == (__file__, Copy.make.__code__.co_firstlineno + 1)
        assert f"{pipeline.schema.database}.{Copy.table_name}, column 'movie', key {{'subject'" in str(warning.message)
    assert len({str(warning.message).partition("no noise model")[0] for warning in told}) == 12
    assert ["10 such warnings" in str(warning.message) for warning in told] == [n == 9 for n in range(12)]


def test_a_warning_without_a_table_points_at_the_caller(tmp_path: Path) -> None:
    with pytest.warns(LosslessWarning, match="^no noise model") as caught:
        write_movie(tmp_path / "m.zarr", CONSTANT)
    assert caught[0].filename == __file__


def test_the_ways_around_limits_of_datajoint_work(pipeline: Pipeline) -> None:
    """As docs/configuration.md says; a limit that has gone shows here."""
    recording = declare_recording(pipeline.schema)
    recording.insert1({"subject": "m", "recording": 1, "movie": photon()})
    fetched = recording.fetch1()
    key = {name: fetched[name] for name in recording.primary_key}
    assert (len(recording & key), key in recording()) == (1, True)
    with pytest.raises(DataJointError):
        len(recording & fetched)
    with pytest.raises(DataJointError):
        _ = fetched in recording()
    assert "not JSON serializable" in recording().validate([row(2, photon())]).summary()
    PhotonCodec().validate(photon())
    with pytest.raises(PhotonCodecError):
        PhotonCodec().validate([1, 2])

    pipeline.config.stores = {**pipeline.config.stores, "other": pipeline.config.stores["imaging"]}

    @pipeline.schema
    class New(dj.Manual):  # type: ignore[misc]
        definition = """
        subject : varchar(16)
        recording : int32
        ---
        movie = null : <photon@other>
        """

    New.insert(recording.to_dicts())
    assert (New.fetch1("movie")[:] == fetched["movie"][:]).all()

    @pipeline.schema
    class Named(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : varchar(36)
        ---
        movie : <photon@{pipeline.store}>
        """

    name = str(uuid.uuid4())
    Named.insert1({"recording": name, "movie": photon()})
    named: Any = Named
    assert (named & {"recording": name}).fetch1("movie").verify()


def test_a_duplicate_key_is_told_before_its_movie_is_written(pipeline: Pipeline) -> None:
    pair = declare_pair(pipeline)
    pair.insert1({"recording": 1, "first": photon()})
    before = pipeline.objects()
    with pytest.raises(DuplicateError, match="skip_duplicates=True"):
        pair.insert1({"recording": 1, "first": photon(1), "second": photon(2)})
    with pytest.raises(DuplicateError):
        pair.insert([{"recording": n, "first": photon(n)} for n in (2, 1)])
    pair.insert([{"recording": 1, "first": photon(1), "second": photon(2)}], skip_duplicates=True)
    assert pipeline.objects() == before
    assert (len(pair()), pair.fetch1("second")) == (1, None)
    assert pair.fetch1("first").verify()
    pair.insert([{"recording": n, "first": photon(n)} for n in (1, 2)], skip_duplicates=True)
    assert len(folders(pipeline.objects())) == 2


def test_a_value_that_another_codec_refuses_leaves_no_movie(pipeline: Pipeline, tmp_path: Path) -> None:
    @pipeline.schema
    class Mixed(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        movie : <photon@{pipeline.store}>
        trace = null : <npy@{pipeline.store}>
        """

    recording: Any = Mixed
    with pytest.raises(DataJointError, match="npy"):
        recording.insert1({"recording": 1, "movie": photon(), "trace": "no array"})
    assert pipeline.objects() == []
    recording.insert1({"recording": 1, "movie": photon(), "trace": np.arange(3)})
    assert recording.fetch1("movie").verify()


def test_nothing_is_written_where_the_store_is_not_mounted(pipeline: Pipeline) -> None:
    """Also by a new process, which has seen no marker, and by a table of the schema that has no rows."""
    recording, pair = declare_recording(pipeline.schema), declare_pair(pipeline)
    recording.insert(row(number, photon(number)) for number in range(2))
    before = pipeline.objects()
    mounted = pipeline.config.stores["imaging"]
    away = f"{mounted['location']}-not-mounted"
    if pipeline.protocol == "file":
        Path(away).mkdir()
    pipeline.config.stores = {**pipeline.config.stores, "imaging": {**mounted, "location": away}}
    stores._marked.clear()
    for insert in (
        lambda: recording.insert1(row(2, photon())),
        lambda: recording.update1(row(1, photon())),
        lambda: pair.insert1({"recording": 1, "first": photon()}),
        lambda: PhotonWriter.for_row(recording, {"subject": "m", "recording": 5}),
    ):
        with pytest.raises(StorageError, match=f"nothing is written to .*{MARKER}.*Is it mounted"):
            insert()
    pipeline.config.stores = {**pipeline.config.stores, "imaging": mounted}
    assert pipeline.objects() == before
    recording.insert1(row(2, photon()))
    pair.insert1({"recording": 1, "first": photon()})
    assert all(fetched["movie"].verify() for fetched in recording.to_dicts())


def test_a_store_from_before_markers_gets_one(pipeline: Pipeline) -> None:
    recording = declare_recording(pipeline.schema)
    recording.insert1(row(1, photon()))
    marker = f"{recording.fetch1('movie')._location.store_root}/{MARKER}"
    pipeline.backend.fs.rm(marker)
    stores._marked.clear()
    recording.insert1(row(2, photon()))
    pipeline.backend.fs.invalidate_cache()
    assert pipeline.backend.fs.exists(marker)
