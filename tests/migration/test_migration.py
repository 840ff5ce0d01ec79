"""``Migration``: movies of old columns, of every type, copied to photon columns, verified, and only then forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
import zarr
from datajoint import blob
from datajoint.builtin_codecs import SchemaCodec

from dj_photon_codecs import ConfigurationError, Migration, MigrationError, PhotonMovie, StorageError, audit_store
from dj_photon_codecs.migration import copying
from dj_photon_codecs.migration.copying import check_copy
from dj_photon_codecs.migration.ledger import Ledger
from services import Pipeline
from tables import crosswise, second_connection

LIGHT = np.linspace(1, 15, 64) * np.ones((64, 1))


def counts(seed: int) -> Any:
    """A small movie of photon noise, which can be measured."""
    return (100 + 20 * np.random.default_rng(seed).poisson(LIGHT, size=(80, 64, 64))).astype(np.uint16)


def declare(pipeline: Pipeline, column: str = "<blob@imaging>", photons: str = "<photon@imaging>") -> Any:
    """A table with an old column and a photon column."""

    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        movie = null : {column}
        photons = null : {photons}
        """

    return Recording


def filled(pipeline: Pipeline, number: int = 3) -> Any:
    """Such a table with blobs: in the table on MariaDB, where DataJoint 2.3.5 cannot insert ``<blob@store>``."""
    table = declare(pipeline, "<blob>" if pipeline.database == "mysql" else "<blob@imaging>")
    table.insert({"recording": index, "movie": counts(index)} for index in range(number))
    return table


def migration(table: Any, **options: Any) -> Migration:
    return Migration(table, "movie", "photons", **options)


def largest_change(table: Any, index: int, original: Any) -> float:
    """Largest change of a count [noise standard deviations]."""
    movie = (table & {"recording": index}).fetch1("photons")
    assert movie.dtype == original.dtype
    assert movie.calibration.verdict == "measured"
    stored, raw = movie[:].astype(float), original.astype(float)
    sigma = np.sqrt(movie.calibration.storage_noise.variance(np.maximum(stored, raw)))
    return float(np.max((np.abs(stored - raw) - 0.5) / sigma))


class ZarrColumn(SchemaCodec, register=False):  # type: ignore[misc,call-arg]
    """The smallest stand-in for a plugin that stores Zarr arrays: the row refers to one in the store."""

    name = "zarr"

    def encode(self, value: Any, *, key: Any = None, context: Any = None, store_name: Any = None) -> Any:
        facts = self._extract_context(key, context)
        config = self._codec_config(key, context)
        path, _ = self._build_path(*facts, ext=".zarr", store_name=store_name, config=config)
        backend = self._get_backend(store_name, config=config)
        zarr.create_array(backend._full_path(path), data=value, chunks=(20, 64, 64))
        return {"path": path, "store": store_name}

    def decode(self, stored: Any, *, key: Any = None, context: Any = None) -> Any:
        backend = self._get_backend(stored["store"], config=self._codec_config(key, context))
        return zarr.open_array(backend._full_path(stored["path"]), mode="r")


@pytest.fixture
def zarr_codec() -> Iterator[None]:
    type("ZarrCodec", (ZarrColumn,), {})
    assert "zarr" in dj.list_codecs()
    yield
    dj.codecs.unregister_codec("zarr")


def is_mariadb(pipeline: Pipeline) -> bool:
    if pipeline.database != "mysql":
        return False
    return "MariaDB" in str(pipeline.instance.connection.query("SELECT @@version").fetchone()[0])


def insert_raw(pipeline: Pipeline, table: Any, index: int, value: bytes) -> None:
    """Insert bytes as they are, as another program did."""
    connection = pipeline.instance.connection
    quote = connection.adapter.quote_identifier
    statement = f"INSERT INTO {table().full_table_name} ({quote('recording')}, {quote('movie')}) VALUES (%s, %s)"
    connection.query(statement, args=(index, value))


@pytest.mark.parametrize(
    "kind", ["longblob", "blob", "blob@", "attach", "attach@", "filepath@", "npy@", "zarr@", "path", "paths"]
)
@crosswise
def test_each_kind_of_column_is_migrated(pipeline: Pipeline, kind: str, tmp_path: Path, zarr_codec: None) -> None:
    if kind == "zarr@" and pipeline.protocol != "file":
        pytest.skip("the stand-in codec opens folders only")
    if kind in ("blob@", "attach@") and is_mariadb(pipeline):
        pytest.skip("DataJoint 2.3.5 cannot insert <blob@store> and <attach@store> on MariaDB")
    name, at, _ = kind.partition("@")
    plain = {
        "longblob": "longblob" if pipeline.database == "mysql" else "bytes",
        "path": "varchar(255)",
        "paths": "json",
    }
    table = declare(pipeline, plain.get(kind, f"<{name}@imaging>" if at else f"<{name}>"))
    original = counts(1)
    np.save(tmp_path / "one.npy", original)
    parts = [f"part_{part}.tif" for part in range(2)]
    if kind == "paths":
        import tifffile

        for part, name in enumerate(parts):
            tifffile.imwrite(tmp_path / name, original[40 * part : 40 * part + 40], metadata={"axes": "TYX"})
    if kind == "longblob":
        insert_raw(pipeline, table, 1, blob.pack(original))
    else:
        if kind == "filepath@":
            pipeline.backend.put_file(tmp_path / "one.npy", "raw/one.npy")
        values = {"attach": tmp_path / "one.npy", "filepath": "raw/one.npy", "path": "one.npy", "paths": parts}
        table.insert1({"recording": 1, "movie": values.get(name if kind != "paths" else kind, original)})
    before = set(pipeline.objects())
    work = migration(table, root=tmp_path)
    plan = work.plan()
    assert plan.problems == (), plan
    assert plan.verdicts == {"measured": 1}
    status = work.run()
    assert (status.total, status.done, status.failures) == (1, 1, ()), status
    assert 0 < largest_change(table, 1, original) <= 0.25
    assert before < set(pipeline.objects())
    assert audit_store(pipeline.schema, pipeline.store)
    if kind != "paths":  # a folder of TIFFs has the same content
        assert work.forget_originals(prompt=False).forgotten == 1
        assert table.to_arrays("movie").tolist() == [None]


@crosswise
def test_a_plan_writes_nothing_and_is_near_the_result(pipeline: Pipeline) -> None:
    table = filled(pipeline, 4)
    table.insert1({"recording": 9})
    before, tables = pipeline.objects(), pipeline.schema.list_tables()
    plan = migration(table).plan(2)
    assert (pipeline.objects(), pipeline.schema.list_tables()) == (before, tables)
    assert (plan.status.remaining, plan.empty, plan.examined) == (4, 1, 2)
    assert plan.original_bytes == 4 * counts(0).nbytes
    assert plan.seconds > 0
    status = migration(table).run()
    assert status.stored_bytes == pytest.approx(plan.stored_bytes, rel=0.1)
    assert "to copy" in str(plan)
    assert f"{plan.ratio:.2f} times smaller" in str(plan)
    again = migration(table).plan()
    assert (again.status.done, again.status.remaining, again.examined) == (4, 0, 0)
    assert "times smaller" not in str(again)


@crosswise
def test_what_cannot_be_migrated_is_recorded_and_the_rest_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    table = declare(pipeline, "varchar(255)")
    np.save(tmp_path / "good.npy", counts(0))
    np.save(tmp_path / "complex.npy", counts(1) * 1j)
    np.save(tmp_path / "nan.npy", np.where(counts(2) > 500, np.nan, counts(2)).astype(np.float32))
    (tmp_path / "broken.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:5000])
    names = ["good", "complex", "nan", "broken", "missing", "good"]
    table.insert({"recording": number, "movie": f"{name}.npy"} for number, name in enumerate(names))
    work = migration(table, root=tmp_path)
    plan = work.plan()
    assert sorted(key["recording"] for key, _ in plan.problems) == [1, 2, 3, 4]
    assert any("missing.npy is not there" in reason for _, reason in plan.problems)
    status = work.run()
    assert (status.done, status.failed, status.remaining) == (2, 4, 0)
    reasons = {key["recording"]: reason for key, reason in status.failures}
    assert list(reasons) == [1, 2, 3, 4]
    assert "complex" in reasons[1]
    assert "holds nan" in reasons[2]
    assert "SourceNotFoundError" in reasons[4]
    assert audit_store(pipeline.schema, pipeline.store)
    np.save(tmp_path / "missing.npy", counts(4))
    assert work.run().failed == 4
    assert work.run(retry=True).done == 3
    kept = work.forget_originals(prompt=False)
    assert (kept.forgotten, kept.not_done, bool(kept)) == (3, 3, False)
    assert (tmp_path / "good.npy").exists()


def test_a_movie_without_a_noise_model_is_stored_without_loss_and_says_why(local_pipeline: Pipeline) -> None:
    table = declare(local_pipeline)
    even = np.full((30, 64, 64), 7, np.uint16)
    table.insert1({"recording": 1, "movie": even})
    assert migration(table).run().done == 1
    [row] = migration(table).ledger.to_dicts()
    assert (row["verdict"], row["profile"]) == ("unknown", "lossless")
    assert "without loss" in row["remarks"] or "lossless" in row["remarks"]
    assert np.array_equal(table.fetch1("photons")[:], even)


@crosswise
def test_rows_of_another_table_are_inserted(pipeline: Pipeline) -> None:
    Recording = filled(pipeline, 2)

    @pipeline.schema
    class Archive(dj.Manual):  # type: ignore[misc]
        definition = """
        -> Recording
        ---
        noted = "" : varchar(10)
        movie = null : <photon_dense@imaging>
        """

    Archive.insert1({"recording": 1, "noted": "before"})
    work = Migration(Recording, "movie", "movie", Archive)
    assert work.run().done == 2
    assert Archive.to_arrays("noted", order_by="KEY").tolist() == ["", "before"]
    assert [movie.profile for movie in Archive.to_arrays("movie")] == ["dense", "dense"]
    assert audit_store(pipeline.schema, pipeline.store)
    assert work.forget_originals(prompt=False)
    assert len(Recording()) == 2


def test_columns_that_do_not_fit_are_refused(local_pipeline: Pipeline) -> None:
    table = declare(local_pipeline)

    @local_pipeline.schema
    class Other(dj.Manual):  # type: ignore[misc]
        definition = """
        number : int32
        ---
        movie : <photon@imaging>
        """

    @local_pipeline.schema
    class Needy(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        rate : float64
        movie : <photon@imaging>
        """

    for arguments, message in [
        ((table, "film", "photons"), "has no column 'film': it has recording, movie, photons"),
        ((table, "recording", "photons"), "part of the primary key"),
        ((table, "movie", "movie"), "not a photon column"),
        ((table, "photons", "photons"), "cannot be migrated to itself"),
        ((table, "movie", "movie", Other), "they must be the same"),
        ((table, "movie", "movie", Needy), "needs a value of rate in each row"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            Migration(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="lease"):
        migration(table, lease=0)
    with local_pipeline.schema.connection.transaction, pytest.raises(MigrationError, match="transaction is open"):
        migration(table).run()


def test_a_ledger_of_another_table_is_refused(local_pipeline: Pipeline) -> None:
    table = filled(local_pipeline, 1)

    @local_pipeline.schema
    class Archive(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        old = null : <blob>
        movie = null : <photon@imaging>
        """

    assert Migration(table, "movie", "movie", Archive).run().done == 1
    with pytest.raises(ConfigurationError, match="ledger of a migration of another table"):
        Migration(Archive, "old", "movie").run()


@crosswise
def test_a_movie_that_is_there_is_compared_and_never_replaced(pipeline: Pipeline) -> None:
    table = filled(pipeline)
    given = PhotonMovie(counts(0), conversion_gain=20, zero_level=100)
    table.update1({"recording": 0, "photons": given})
    table.update1({"recording": 1, "photons": counts(7)})
    before = [str(table.fetch1("photons")._location.label) for table in (table & "recording=0", table & "recording=1")]
    status = migration(table).run()
    assert (status.done, status.failed) == (2, 1)
    [(key, reason)] = status.failures
    assert key == {"recording": 1}
    assert "holds a movie already, which is left as it is" in reason
    after = [str(table.fetch1("photons")._location.label) for table in (table & "recording=0", table & "recording=1")]
    assert after == before
    assert audit_store(pipeline.schema, pipeline.store)


@pytest.mark.parametrize("step", [0.0, 0.5])
def test_a_copy_that_differs_is_removed_again(
    local_pipeline: Pipeline, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is one of counts: a store that gives another count is found, whatever the checksums say."""
    table = filled(local_pipeline, 1)
    before = local_pipeline.objects()
    write_to: Any = vars(copying)["write_to"]

    def writes_another(place: Any, movie: Any, options: Any) -> Any:
        altered = np.array(movie)
        altered[40, 3, 5] += 1 if not step else 200
        return write_to(place, PhotonMovie(altered, step=step), options)

    monkeypatch.setattr(copying, "write_to", writes_another)
    status = migration(table).run()
    [(_, reason)] = status.failures
    assert "MigrationError: counts of frames 0 to 79 differ" in reason
    assert local_pipeline.objects() == before
    assert table.fetch1("photons") is None


@crosswise
def test_a_store_that_fails_stops_the_worker_and_gives_the_movie_back(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = filled(pipeline, 2)

    def fails(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(copying, "check_copy", fails)
    before = pipeline.objects()
    with pytest.raises(StorageError, match="the disk is full"):
        migration(table).run()
    assert pipeline.objects() == before
    assert migration(table).status().remaining == 2
    monkeypatch.undo()
    assert migration(table).run().done == 2


@crosswise
def test_a_worker_that_stopped_answering_is_replaced_and_its_copy_does_not_count(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker stands still while it copies, longer than its lease, and finishes after the second."""
    table = filled(pipeline, 1)
    monkeypatch.setattr("dj_photon_codecs.migration.ledger.Ledger._renew", lambda *_: None)
    stood_still: list[Any] = []

    def stands_still(original: Any, movie: Any) -> None:
        check_copy(original, movie)
        if not stood_still:
            stood_still.append(movie)
            time.sleep(0.3)
            with second_connection(pipeline) as other:
                free = dj.FreeTable(other.connection, table().full_table_name)
                assert Migration(free, "movie", "photons", lease=0.2).run().done == 1

    monkeypatch.setattr(copying, "check_copy", stands_still)
    assert migration(table, lease=0.2).run().done == 1
    assert table.fetch1("photons")._location != stood_still[0]._location
    assert audit_store(pipeline.schema, pipeline.store)  # the late copy was removed


@crosswise
def test_a_slow_copy_renews_its_claim(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(pipeline, 1)
    seen = []

    def slow(original: Any, movie: Any) -> None:
        with second_connection(pipeline) as other:
            free = dj.FreeTable(other.connection, table().full_table_name)
            begun = time.monotonic()
            status = Migration(free, "movie", "photons", lease=0.6).run()  # waits for one lease, and leaves it
            seen.append((status.copying, status.done, time.monotonic() - begun))
        check_copy(original, movie)

    monkeypatch.setattr(copying, "check_copy", slow)
    assert migration(table, lease=0.6).run().done == 1
    [(copying_, done, seconds)] = seen
    assert (copying_, done) == (1, 0)
    assert 0.2 < seconds < 10


@crosswise
def test_originals_are_forgotten_only_if_the_movie_is_intact_and_agrees(pipeline: Pipeline) -> None:
    table = filled(pipeline, 5)
    work = migration(table)
    assert work.run(limit=4).done == 4
    table.update1({"recording": 1, "movie": counts(11)})
    table.update1({"recording": 2, "photons": None})
    fs, full = pipeline.backend.fs, pipeline.backend._full_path
    name = next(name for name in pipeline.objects() if "recording=3/" in name and "/c/" in name)
    content = bytearray(fs.cat_file(full(name)))
    content[40] ^= 1
    fs.pipe_file(full(name), bytes(content))
    forgotten = work.forget_originals(prompt=False)
    assert (forgotten.forgotten, forgotten.not_done) == (1, 1)
    reasons = {key["recording"]: reason for key, reason in forgotten.kept}
    assert list(reasons) == [1, 2, 3]
    assert "differ from the original" in reasons[1]
    assert "was removed after it was migrated" in reasons[2]
    assert "damaged" in reasons[3]
    left = [row["recording"] for row in (table & "movie IS NOT NULL").keys(order_by="KEY")]
    assert left == [1, 2, 3, 4]
    assert "kept: {'recording': 1}" in str(forgotten)
    assert work.status().done == 4  # of which one is forgotten


def test_a_question_precedes_forgetting(local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(local_pipeline, 1)
    migration(table).run()
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "no"

    monkeypatch.setattr("builtins.input", answer)
    assert migration(table).forget_originals(prompt=True).forgotten == 0
    assert "to NULL in 1 rows" in asked[0]
    assert table.fetch1("movie") is not None


def test_a_column_that_is_not_nullable_keeps_its_originals(local_pipeline: Pipeline) -> None:
    @local_pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie : <blob@imaging>
        photons = null : <photon@imaging>
        """

    Recording.insert1({"recording": 1, "movie": counts(1)})
    assert migration(Recording).run().done == 1
    with pytest.raises(ConfigurationError, match="not nullable.*alter"):
        migration(Recording).forget_originals(prompt=False)
    assert np.array_equal(Recording.fetch1("movie"), counts(1))


def test_long_names_give_a_ledger_that_the_database_takes(local_pipeline: Pipeline) -> None:
    @local_pipeline.schema
    class TwoPhotonRecordingOfTheLeftVisualCortex(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : varchar(20)
        ---
        movie = null : <blob@imaging>
        stored_photons_2 = null : <photon@imaging>
        """

    TwoPhotonRecordingOfTheLeftVisualCortex.insert1({"recording": "100 % 'x'", "movie": counts(1)})
    work = Migration(TwoPhotonRecordingOfTheLeftVisualCortex, "movie", "stored_photons_2")
    assert work.run().done == 1
    assert len(work.ledger.table_name) <= 60
    assert repr(work).startswith("<Migration: ")


def test_two_workers_do_not_claim_the_same_movie(local_pipeline: Pipeline) -> None:
    table = filled(local_pipeline, 1)
    work = migration(table)
    ledger: Ledger = work._ledger
    ledger.declare()
    key = {"recording": 0}
    token = ledger.claim(key)
    assert token is not None
    assert ledger.claim(key) is None
    assert ledger.claim({"recording": 5}) is None  # deleted meanwhile
    ledger.drop_expired()
    assert list(ledger.claims()) == [token]
    assert work.status().copying == 1
    ledger.release(token)
    assert work.status().remaining == 1
