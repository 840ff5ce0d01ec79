"""``<photon@store>`` in DataJoint, on each database with each kind of object store."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest
from datajoint.codecs import unregister_codec
from datajoint.errors import DataJointError, DuplicateError

from dj_photon_codecs import (
    ConfigurationError,
    FormatError,
    InvalidMovieError,
    LosslessWarning,
    MissingChunkError,
    MovieTypeError,
    PhotonArray,
    PhotonCodec,
    PhotonMovie,
    SourceNotFoundError,
    StorageError,
    write_movie,
)
from dj_photon_codecs.storage import plan
from services import Pipeline, populate_in_two_processes

GAIN, ZERO = 20.0, 100.0


def make_counts(seed: int = 0, shape: tuple[int, ...] = (30, 64, 64)) -> np.ndarray:
    """Poisson counts over a gradient of 1 to 20 photons."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(1, 20, shape[-1]) * np.ones(shape[-2:])
    return np.round(ZERO + GAIN * rng.poisson(np.broadcast_to(mean, shape))).astype(np.uint16)


COUNTS = make_counts()


def photon(counts: Any, **options: Any) -> PhotonMovie:
    """A movie with its true noise model, so that tests do not depend on the estimate."""
    return PhotonMovie(counts, conversion_gain=GAIN, zero_level=ZERO, **options)


def assert_within_bound(stored: Any, counts: np.ndarray) -> None:
    """Invariants 1 and 4."""
    back = np.asarray(stored[...])
    assert (back.shape, back.dtype) == (counts.shape, counts.dtype)
    top = np.maximum(back, counts).astype(float)
    bound = 0.25 * GAIN * np.sqrt(np.maximum((top - ZERO) / GAIN, 0) + 0.375) + 0.5
    assert (np.abs(back.astype(float) - counts) <= bound + 1e-6).all()


def declare(pipeline: Pipeline, column: str | None = None) -> tuple[Any, Any]:
    """A table of movies, and one computed from it frame by frame."""
    declared = column or f"<photon@{pipeline.store}>"

    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        subject : varchar(16)
        recording : int32
        ---
        note = '' : varchar(100)
        movie = null : {declared}
        """

    @pipeline.schema
    class Brightness(dj.Computed):  # type: ignore[misc]
        definition = """
        -> Recording
        ---
        mean : float64
        process : int64
        """

        def make(self, key: dict[str, Any]) -> None:
            movie = (Recording() & key).fetch1("movie")
            total = sum(float(movie[i].sum()) for i in range(len(movie)))
            self.insert1({**key, "mean": total / movie.size, "process": os.getpid()})

    return Recording, Brightness


def row(index: int, movie: Any = None, subject: str = "m/1") -> dict[str, Any]:
    return {"subject": subject, "recording": index, "movie": movie}


def test_counts_go_in_and_a_lazy_array_of_counts_comes_out(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    movie = (recording & "recording=1").fetch1("movie")
    assert isinstance(movie, PhotonArray)
    assert_within_bound(movie, COUNTS)
    assert movie.calibration.conversion_gain == GAIN
    assert movie.compression_ratio > 3
    assert movie.verify()
    assert movie.attrs["dj_photon"]["profile"] == "standard"
    [fetched] = recording.to_dicts()
    assert_within_bound(fetched["movie"], COUNTS)
    [listed] = recording.to_arrays("movie")
    assert_within_bound(listed, COUNTS)
    assert all(name.startswith(f"_schema/{pipeline.schema.database}/recording/") for name in pipeline.objects())


def test_the_row_holds_what_the_collector_and_the_handle_need(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    [stored] = recording.proj("movie").cursor(as_dict=True)
    value = stored["movie"]
    value = json.loads(value) if isinstance(value, str) else value
    assert value["store"] == "imaging"
    assert any(name.startswith(value["path"] + "/") for name in pipeline.objects())
    assert value["format_version"] == 1
    assert value["calibration"]["conversion_gain"] == GAIN
    assert value["original_bytes"] == COUNTS.nbytes
    assert value["stored_bytes"] < COUNTS.nbytes
    assert set(value["versions"]) >= {"dj-photon-codecs", "zarr", "numcodecs", "numpy"}
    assert set(value["zarr"]) == {"zarr.json"}
    assert len(json.dumps(value)) < 12_000


def test_fetching_asks_the_store_for_nothing(local_pipeline: Pipeline) -> None:
    """Invariant 8: the rows are there even when the store is not."""
    recording, _ = declare(local_pipeline)
    recording.insert(row(i, photon(COUNTS)) for i in range(5))
    backend = local_pipeline.backend
    for name in local_pipeline.objects():
        backend.fs.rm(backend._full_path(name))
    movies = [fetched["movie"] for fetched in recording.to_dicts()]
    assert [movie.shape for movie in movies] == [COUNTS.shape] * 5
    assert "standard" in repr(movies[0])
    with pytest.raises(MissingChunkError, match=r"chunk \(0, 0, 0\).*is missing"):
        movies[0][0]


def test_update_keeps_the_old_movie_until_garbage_is_collected(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    other = make_counts(1)
    recording.insert1(row(1, photon(COUNTS)))
    old = (recording & "recording=1").fetch1("movie")
    recording.update1(row(1, photon(other)))
    assert_within_bound((recording & "recording=1").fetch1("movie"), other)
    assert_within_bound(old, COUNTS)
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect(dry_run=False)["schema_paths_deleted"] == 2  # one shard and zarr.json
    assert (recording & "recording=1").fetch1("movie").verify()


@pytest.mark.parametrize("bound_to", ["name", "default"])
def test_the_collector_takes_what_a_deleted_row_left_and_nothing_else(pipeline: Pipeline, bound_to: str) -> None:
    """Invariant 6, for a column on the named store and one on the default store."""
    recording, _ = declare(pipeline)

    @pipeline.schema
    class Default(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie : <photon@>
        """

    recording.insert(row(i, photon(COUNTS)) for i in (1, 2))
    Default.insert1({"recording": 1, "movie": photon(COUNTS)})
    (recording & "recording=2").delete()
    store = pipeline.store if bound_to == "name" else None
    collector = dj.gc.GarbageCollector(pipeline.schema, store=store)
    found = collector.collect()
    assert found["schema_paths_orphaned"] == 2
    assert all("recording=2" in path for path in found["orphaned_schema_paths"])
    assert collector.collect(dry_run=False)["schema_paths_deleted"] == 2
    assert collector.collect()["schema_paths_orphaned"] == 0
    assert (recording & "recording=1").fetch1("movie").verify()
    assert Default.fetch1("movie").verify()
    [stored] = Default.proj("movie").cursor(as_dict=True)
    value = stored["movie"] if isinstance(stored["movie"], dict) else json.loads(stored["movie"])
    assert value["store"] == "imaging"  # the real name of the default store


def test_null_is_null(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    recording.insert1(row(1, None))
    assert (recording & "recording=1").fetch1("movie") is None
    assert pipeline.objects() == []


@pytest.mark.parametrize(
    "value", [float("nan"), np.float32("nan"), np.datetime64("NaT", "s"), pandas.NA, pandas.NaT], ids=repr
)
def test_what_pandas_has_in_an_empty_cell_is_null(pipeline: Pipeline, value: Any) -> None:
    recording, _ = declare(pipeline)
    recording.insert1(row(1, value))
    recording.insert(pandas.DataFrame([row(2, value), row(3, photon(COUNTS))]))
    assert [fetched["movie"] is None for fetched in recording.to_dicts(order_by="recording")] == [True, True, False]
    recording.update1(row(3, value))
    assert (recording & "recording=3").fetch1("movie") is None


def test_null_in_a_column_that_takes_none_is_refused_by_the_database(pipeline: Pipeline) -> None:
    @pipeline.schema
    class Required(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        movie : <photon@{pipeline.store}>
        """

    with pytest.raises(DataJointError):
        Required.insert1({"recording": 1, "movie": float("nan")})
    assert len(Required()) == 0


class NoName(os.PathLike[str]):
    def __fspath__(self) -> str:
        return ""


@pytest.mark.parametrize(
    "path", ["", Path(""), Path(), NoName(), "a\0b"], ids=["empty", "Path", "dot", "PathLike", "null"]
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "PhotonMovie"])
def test_an_empty_path_is_not_the_current_folder(
    local_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, wrapped: bool
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    np.save(work / "recording.npy", COUNTS)
    monkeypatch.chdir(work)
    recording, _ = declare(local_pipeline)
    with pytest.raises(SourceNotFoundError, match="names no file.*for a row without a movie None"):
        recording.insert1(row(1, photon(path) if wrapped else path))
    with pytest.raises(SourceNotFoundError):
        write_movie(tmp_path / "movie.zarr", path)
    assert (len(recording()), local_pipeline.objects()) == (0, [])
    assert not (tmp_path / "movie.zarr").exists()


def test_an_empty_cell_of_a_csv_is_refused(local_pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("subject,recording,movie\nm,1,\n")
    recording, _ = declare(local_pipeline)
    with pytest.raises(SourceNotFoundError, match="names no file"):
        recording.insert(tmp_path / "rows.csv")


def test_volumes_over_time_come_back(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    counts = make_counts(shape=(12, 5, 32, 32))
    recording.insert1(row(1, photon(counts)))
    movie = (recording & "recording=1").fetch1("movie")
    assert_within_bound(movie, counts)
    assert movie[3, 2].shape == (32, 32)


def test_a_movie_moves_to_another_row_without_decoding(pipeline: Pipeline) -> None:
    """Invariant 2."""
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    recording.insert1(row(2, (recording & "recording=1").fetch1("movie")))
    first, second = ((recording & f"recording={i}").fetch1("movie") for i in (1, 2))
    assert (first[:] == second[:]).all()
    assert first.calibration == second.calibration
    fs, backend = pipeline.backend.fs, pipeline.backend
    chunks = [name for name in pipeline.objects() if name.endswith("c/0/0/0")]
    assert len({fs.cat_file(backend._full_path(name)) for name in chunks}) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="DataJoint's populate(processes=2) needs fork")
def test_populate_in_two_processes_reads_lazily(pipeline: Pipeline) -> None:
    recording, brightness = declare(pipeline)
    movies = [make_counts(i) for i in range(4)]
    recording.insert(row(i, photon(movie)) for i, movie in enumerate(movies))
    outcome = populate_in_two_processes(brightness, reserve_jobs=True)
    assert (outcome["success_count"], outcome["error_list"]) == (4, [])
    means = [fetched["mean"] for fetched in brightness.to_dicts(order_by="recording")]
    assert means == pytest.approx([movie.mean() for movie in movies], rel=1e-2)
    assert os.getpid() not in {fetched["process"] for fetched in brightness.to_dicts()}
    assert_within_bound((recording & "recording=3").fetch1("movie"), movies[3])


@pytest.mark.skipif(sys.platform == "win32", reason="DataJoint's populate(processes=2) needs fork")
def test_populate_in_two_processes_writes_movies(pipeline: Pipeline) -> None:
    Recording, _ = declare(pipeline)  # the name that the definition below refers to

    @pipeline.schema
    class Corrected(dj.Computed):  # type: ignore[misc]
        definition = f"""
        -> Recording
        ---
        movie : <photon@{pipeline.store}>
        """

        def make(self, key: dict[str, Any]) -> None:
            movie = (Recording & key).fetch1("movie")
            self.insert1({**key, "movie": photon(movie[:][:, ::-1])})

    Recording.insert(row(i, photon(COUNTS)) for i in range(3))
    (Recording & "recording=0").fetch1("movie")[0]  # connections and caches are in use before the fork
    outcome = populate_in_two_processes(Corrected)
    assert (outcome["success_count"], outcome["error_list"]) == (3, [])
    flipped = (Corrected & "recording=2").fetch1("movie")
    # quantised once more: its pixels have other places now
    assert_within_bound(flipped, (Recording & "recording=2").fetch1("movie")[:][:, ::-1])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([1, 2, 3], MovieTypeError),
        (np.zeros((4, 4, 4), complex), MovieTypeError),
        (np.zeros((4, 4), np.uint16), InvalidMovieError),
        (np.full((4, 4, 4), np.nan), InvalidMovieError),
        (np.full((4, 4, 4), -1), InvalidMovieError),
    ],
    ids=["list", "complex", "2-D", "NaN", "negative"],
)
def test_what_cannot_be_stored_leaves_no_row_and_no_object(local_pipeline: Pipeline, value: Any, error: type) -> None:
    """Invariant 6."""
    recording, _ = declare(local_pipeline)
    with pytest.raises(error):
        recording.insert1(row(1, value))
    assert len(recording()) == 0
    assert local_pipeline.objects() == []


def test_a_duplicate_row_is_refused_before_its_movie_is_written(pipeline: Pipeline) -> None:
    """Neither the new movie nor the one that is there is an orphan."""
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    with pytest.raises(DuplicateError):
        recording.insert1(row(1, photon(make_counts(3))))
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect(dry_run=False)["schema_paths_deleted"] == 0
    assert_within_bound((recording & "recording=1").fetch1("movie"), COUNTS)


@pytest.fixture
def archive() -> Iterator[type[PhotonCodec]]:
    """A column type with options of its own."""

    class ArchivePhoton(PhotonCodec):
        name = "photon_archive"
        step = 1.0
        profile = "standard"

    yield ArchivePhoton
    unregister_codec("photon_archive")


def test_options_of_a_column_are_class_attributes(local_pipeline: Pipeline, archive: type[PhotonCodec]) -> None:
    recording, _ = declare(local_pipeline, f"<photon_archive@{local_pipeline.store}>")
    recording.insert1(row(1, photon(COUNTS)))
    recording.insert1(row(2, photon(COUNTS, step=0.25)))
    assert (recording & "recording=1").fetch1("movie").step == 1.0
    assert (recording & "recording=2").fetch1("movie").step == 0.25


def test_a_column_with_an_option_out_of_range_is_refused_where_it_is_defined() -> None:
    with pytest.raises(ConfigurationError, match="step must be a number from 0"):

        class Broken(PhotonCodec):
            name = "photon_broken"
            step = -1

    assert "photon_broken" not in dj.list_codecs()


def test_the_portable_column_is_found_by_its_entry_point(
    local_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", -10.0)  # portable gains nothing at this light
    recording, _ = declare(local_pipeline, f"<photon_portable@{local_pipeline.store}>")
    recording.insert1(row(1, photon(COUNTS)))
    movie = (recording & "recording=1").fetch1("movie")
    assert movie.profile == "portable"
    assert "dj_photon" not in json.dumps(movie.metadata.codecs[0].to_dict(), default=str)
    assert_within_bound(movie, COUNTS)


def test_the_dense_column_is_found_by_its_entry_point(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline, f"<photon_dense@{pipeline.store}>")
    recording.insert1(row(1, photon(COUNTS)))
    movie = (recording & "recording=1").fetch1("movie")
    assert movie.profile == "dense"
    assert_within_bound(movie, COUNTS)
    assert movie.verify()


def test_unknown_noise_is_stored_losslessly_with_a_warning(local_pipeline: Pipeline) -> None:
    """Invariant 3."""
    recording, _ = declare(local_pipeline)
    constant = np.full((8, 16, 16), 5, np.uint16)
    with pytest.warns(LosslessWarning, match="no noise model"):
        recording.insert1(row(1, constant))
    movie = (recording & "recording=1").fetch1("movie")
    assert movie.profile == "lossless"
    assert (movie[:] == constant).all()


def test_a_column_without_a_store_is_refused(local_pipeline: Pipeline) -> None:
    with pytest.raises(DataJointError, match="requires @"):
        declare(local_pipeline, "<photon>")


def test_a_missing_default_store_says_what_to_do(local_pipeline: Pipeline) -> None:
    recording, _ = declare(local_pipeline, "<photon@>")
    stores = local_pipeline.config.stores
    local_pipeline.config.stores = {name: value for name, value in stores.items() if name != "default"}
    with pytest.raises(DataJointError, match="stores.default is not configured"):
        recording.insert1(row(1, photon(COUNTS)))


def test_the_config_of_the_connection_decides_not_the_global_one(local_pipeline: Pipeline) -> None:
    assert "imaging" not in dj.config.stores
    recording, _ = declare(local_pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    assert_within_bound((recording & "recording=1").fetch1("movie"), COUNTS)


@pytest.mark.parametrize("stored", [{}, {"path": "a", "store": "b"}, [], 3, '{"path": 1}'], ids=str)
def test_a_row_of_another_codec_is_refused(stored: Any) -> None:
    movie = PhotonCodec().decode(stored)
    with pytest.raises(FormatError, match="holds no photon movie"):
        movie[0]


def spoil(pipeline: Pipeline, recording: Any, how: str) -> tuple[type[Exception], str]:
    """Make one row of a table unreadable; the error of its first read, and what that says."""
    if how == "npy":

        @pipeline.schema
        class Npy(dj.Manual):  # type: ignore[misc]
            definition = f"""
            subject : varchar(16)
            recording : int32
            ---
            movie : <npy@{pipeline.store}>
            """

        Npy.insert1(row(2, np.zeros((2, 2))))
        recording.insert(Npy().proj("movie"))
        return FormatError, "holds no photon movie.*copied from a column of another type"
    config = pipeline.config
    stores = dict(config.stores)
    config.stores = stores | {"other": {**stores["imaging"], "location": stores["imaging"]["location"]}}
    codec = PhotonCodec()
    facts = {"schema": "s", "table": "t", "field": "movie", "config": config}
    value = codec.encode(photon(COUNTS), key={}, context=facts, store_name="other")
    recording.insert1(row(2))
    query = f"UPDATE {recording.full_table_name} SET movie=%s WHERE recording=2"
    recording.connection.query(query, args=(json.dumps(value),))
    if how == "not configured":
        config.stores = stores
        return ConfigurationError, r"other.*dj\.config\.stores"
    config.stores = stores | {"other": {"protocol": "file", "location": "/nowhere/at/all"}}
    return StorageError, "Is it mounted"


@pytest.mark.parametrize("how", ["npy", "not configured", "not mounted"])
def test_one_row_that_cannot_be_read_leaves_the_others_alone(pipeline: Pipeline, how: str) -> None:
    """The first read names table, column, key, cause and way out; no way of fetching raises."""
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    recording.insert1(row(3, photon(COUNTS)))
    error, says = spoil(pipeline, recording, how)
    ways = {
        "to_dicts": [fetched["movie"] for fetched in recording.to_dicts(order_by="recording")],
        "iteration": [
            fetched["movie"] for fetched in sorted(recording.proj("movie"), key=lambda one: one["recording"])
        ],
        "pandas": list(recording.to_pandas(order_by="recording")["movie"]),
        "fetch1": [(recording & f"recording={i}").fetch1("movie") for i in (1, 2, 3)],
        "row": [(recording & f"recording={i}").fetch1()["movie"] for i in (1, 2, 3)],
    }
    for way, movies in ways.items():
        assert_within_bound(movies[0], COUNTS)
        assert_within_bound(movies[2], COUNTS)
        bad = movies[1]
        assert isinstance(bad, PhotonArray)
        assert "cannot be read" in repr(bad)
        for use in (lambda m: m[0], lambda m: m.shape, lambda m: np.asarray(m), lambda m: m.step, lambda m: m.verify()):
            with pytest.raises(error, match=f"(?s){says}") as raised:
                use(bad)
            text = str(raised.value)
            assert "column 'movie'" in text, way
            assert "'recording': 2" in text, way
            assert recording.table_name in text, way
        assert pickle.loads(pickle.dumps(bad)) == bad
    with pytest.raises(error, match="cannot be read"):  # it is not copied either
        recording.insert1(row(4, bad))


def test_encoding_outside_a_table_says_so() -> None:
    with pytest.raises(DataJointError, match="by inserting it into a table"):
        PhotonCodec().encode(photon(COUNTS), key={}, store_name="imaging")


def test_an_older_datajoint_passes_its_context_in_the_key(local_pipeline: Pipeline) -> None:
    """Before 2.3.4 schema, table, field and config come in ``key``, with an underscore."""
    key = {"recording": 7, "_schema": "s", "_table": "t", "_field": "movie", "_config": local_pipeline.config}
    value = PhotonCodec().encode(photon(COUNTS), key=key, store_name="imaging")
    assert value["path"].startswith("_schema/s/t/recording=7/movie_")
    movie = PhotonCodec().decode(json.dumps(value), key={"_config": local_pipeline.config})
    assert_within_bound(movie, COUNTS)


def test_the_repr_of_a_fetched_movie_shows_no_secret(pipeline: Pipeline) -> None:
    recording, _ = declare(pipeline)
    recording.insert1(row(1, photon(COUNTS)))
    movie = (recording & "recording=1").fetch1("movie")
    secret = str(pipeline.config.get_store_spec("imaging").get("secret_key") or "no secret here")
    [stored] = recording.proj("movie").cursor(as_dict=True)
    assert secret not in repr(movie) + str(movie.info) + repr(movie.store_path) + str(stored["movie"])


def test_a_thousand_rows_cost_a_thousand_rows(local_pipeline: Pipeline) -> None:
    """Invariant 8, at length: handles are made from rows without a request or a parsed document."""
    recording, _ = declare(local_pipeline)
    recording.insert1(row(0, photon(COUNTS)))
    [stored] = recording.proj("movie").cursor(as_dict=True)
    codec = PhotonCodec()
    value = stored["movie"]
    started = time.perf_counter()
    movies = [codec.decode(value, context={"config": local_pipeline.config}) for _ in range(1000)]
    assert len(movies) == 1000
    assert time.perf_counter() - started < 30  # a hang, not a speed: benchmarks measure that
    assert_within_bound(movies[-1], COUNTS)
