"""A handle in a column, in a hash, in a comparison, in a reduction: it reads what it must, and no more."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask.base
import datajoint as dj
import deepdiff
import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dj_photon_codecs import Calibration, PhotonArray, PhotonMovie, open_movie, set_cache_size, write_movie
from dj_photon_codecs.handle import cache as cache_module
from dj_photon_codecs.handle import lazy as lazy_module
from dj_photon_codecs.storage import layout as layout_module
from dj_photon_codecs.storage.decoded import Chunk
from services import Pipeline
from tables import crosswise, declare_recording, photon, row

COUNTS = np.random.default_rng(0).poisson(300, (30, 12, 20)).astype(np.uint16)
NOISE = Calibration.given(10, 50)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotonArray:
    """A movie in chunks of 4 frames, whose counts are those of ``COUNTS``."""
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 4 * 12 * 20)
    return write_movie(tmp_path / "m", COUNTS, calibration=NOISE, profile="lossless")


def handles_in(value: Any) -> int:
    """How many handles there are in what a fetch gave."""
    if isinstance(value, PhotonArray):
        return 1
    if isinstance(value, np.ndarray):
        return sum(handles_in(one) for one in value.tolist()) if value.dtype.kind in "OV" else 0
    if isinstance(value, pandas.DataFrame):
        return sum(handles_in(one) for one in value["movie" if "movie" in value else "film"])
    if isinstance(value, dict):
        return sum(map(handles_in, value.values()))
    return sum(map(handles_in, value)) if isinstance(value, list | tuple) else 0


FETCHES: dict[str, Any] = {
    "fetch of a column": lambda table: table.fetch("movie"),
    "fetch of columns": lambda table: table.fetch("recording", "movie"),
    "fetch with KEY": lambda table: table.fetch("KEY", "movie"),
    "fetch of all": lambda table: table.fetch(),
    "fetch of dicts": lambda table: table.fetch(as_dict=True),
    "fetch of a frame": lambda table: table.fetch(format="frame"),
    "to_arrays of a column": lambda table: table.to_arrays("movie"),
    "to_arrays of columns": lambda table: table.to_arrays("recording", "movie"),
    "to_arrays with keys": lambda table: table.to_arrays("movie", include_key=True),
    "to_arrays of all": lambda table: table.to_arrays(),
    "to_dicts": lambda table: table.to_dicts(),
    "to_pandas": lambda table: table.to_pandas(),
    "iteration": lambda table: list(table),
    "fetch1": lambda table: [(table & {"recording": i}).fetch1("movie") for i in range(3)],
    "fetch1 of all": lambda table: [(table & {"recording": i}).fetch1() for i in range(3)],
    "a renamed column": lambda table: table.proj(film="movie").to_arrays("film"),
    "a renamed column of a frame": lambda table: table.proj(film="movie").to_pandas(),
    "a join": lambda table: (table * table.proj(film="movie")).to_arrays("movie"),
}


@crosswise
@pytest.mark.filterwarnings("ignore:fetch:DeprecationWarning")
def test_every_way_of_fetching_gives_handles_and_reads_nothing(pipeline: Pipeline, decoded: list[Any]) -> None:
    """Movies of one shape: numpy would make one array of them."""
    recording = declare_recording(pipeline.schema)()
    for index in range(3):
        recording.insert1(row(index, photon(index)))
    decoded.clear()
    for name, fetch in FETCHES.items():
        found = fetch(recording)
        assert handles_in(found) == 3, name
        assert decoded == [], name
    [movie, *_] = recording.to_arrays("movie", order_by="recording")
    assert (np.asarray(movie) == movie[:]).all()
    assert decoded


@crosswise
def test_a_column_with_an_empty_or_unreadable_row_is_a_column_of_handles(pipeline: Pipeline) -> None:
    recording = declare_recording(pipeline.schema)()
    recording.insert1(row(0, photon()))
    recording.insert1(row(1, None))
    column = recording.to_arrays("movie", order_by="recording")
    assert isinstance(column[0], PhotonArray)
    assert column[1] is None


def test_polars_holds_handles(stored: PhotonArray, decoded: list[Any]) -> None:
    polars = pytest.importorskip("polars", reason="polars is no dependency of the tests")
    frame = polars.DataFrame([{"id": 1, "movie": stored}, {"id": 2, "movie": stored}])  # as DataJoint makes it
    assert frame["movie"][1] == stored
    assert decoded == []


def test_an_array_of_objects_holds_the_handle(stored: PhotonArray, decoded: list[Any]) -> None:
    for one in (stored, stored.stabilized):
        handles = [one, one]
        assert np.array(handles, dtype=object).tolist() == handles
        assert np.asarray(one, dtype=object)[()] is one  # type: ignore[comparison-overlap]
        column = np.empty(2, object)
        column[:] = handles
        assert column[1] is one
        assert pandas.Series(handles)[1] is one
    assert decoded == []


def test_numpy_array_of_a_list_of_handles_is_refused_before_it_reads(stored: PhotonArray, decoded: list[Any]) -> None:
    handles = [stored, stored]
    refused: list[Any] = [
        lambda: np.array([stored, stored]),
        lambda: np.array(handles),
        lambda: np.asarray((stored, stored)),
        lambda: np.asanyarray(
            [one for one in handles],  # noqa: C416  # a comprehension is what is tested
            dtype=np.float32,
        ),
    ]
    for call in refused:
        with pytest.raises(ValueError, match=r"numpy.array\(movies, dtype=object\) keeps them"):
            call()
    assert decoded == []


def test_numpy_reads_a_handle_and_lists_of_which_it_is_asked_for_values(stored: PhotonArray) -> None:
    handles = [stored, stored]
    assert (np.asarray(stored) == COUNTS).all()
    assert (np.array(handles[0]) == COUNTS).all()
    assert np.asarray(stored, dtype=np.float32).dtype == np.float32
    assert (np.stack(handles) == COUNTS).all()
    assert np.concatenate(handles).shape == (60, 12, 20)
    assert np.mean(handles) == COUNTS.mean()
    assert np.median(stored) == np.median(COUNTS)
    with pytest.raises(ValueError, match="leave out copy=False"):
        np.asarray(stored.stabilized, copy=False)


FUNCTIONS: dict[str, Any] = {
    "sort": np.sort,
    "argmax": np.argmax,
    "cumsum": np.cumsum,
    "clip": lambda a: np.clip(a, 3, 50),
    "percentile": lambda a: np.percentile(a, 50),
    "histogram": lambda a: np.histogram(a)[0],
    "unique": np.unique,
    "diff": lambda a: np.diff(a, axis=0),  # wraps around, as numpy does
    "subtract": lambda a: np.subtract(a, 300),
    "transpose": np.transpose,
    "reshape": lambda a: np.reshape(a, (30, -1)),
    "nonzero": lambda a: np.nonzero(a)[0],
    "take": lambda a: np.take(a, [3, 1], axis=0),
    "where": lambda a: np.where(np.greater(a, 300), a, 0),
    "prod": lambda a: np.prod(a, axis=0),
    "ptp": np.ptp,
    "nanmean": lambda a: np.nanmean(a, axis=0),
    "average": lambda a: np.average(a, axis=0),
    "einsum": lambda a: np.einsum("tij->ij", a),
    "pad": lambda a: np.pad(a, 1),
    "fft": np.fft.fft,
    "zeros_like": np.zeros_like,
    "array_equal": lambda a: np.array_equal(a, COUNTS),
    "shape": np.shape,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpys_functions_take_a_handle_for_its_counts(stored: PhotonArray, function: str) -> None:
    expected, found = FUNCTIONS[function](COUNTS), FUNCTIONS[function](stored)
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(found).dtype == np.asarray(expected).dtype


def test_a_movie_larger_than_memory_is_not_begun(stored: PhotonArray, decoded: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(lazy_module, "memory_bytes", lambda: COUNTS.nbytes - 1)
    with pytest.raises(MemoryError, match=r"\(30, 12, 20\) of uint16 are .* GB, and this machine has"):
        np.asarray(stored)
    assert decoded == []
    monkeypatch.setattr(lazy_module, "memory_bytes", lambda: COUNTS.nbytes)
    assert np.asarray(stored).nbytes == COUNTS.nbytes


# --- one identity


def test_equal_handles_are_one_in_every_hash(tmp_path: Path, stored: PhotonArray) -> None:
    other = open_movie(tmp_path / "m")
    again = pickle.loads(pickle.dumps(stored))
    before = dask.base.tokenize(stored), joblib.hash(stored), deepdiff.DeepHash(stored)[stored]
    stored[3]
    list(stored.stabilized.frames(0, 2))
    for one in (other, again, copy.deepcopy(stored), copy.copy(stored), stored):
        assert one == stored
        assert not one != stored  # noqa: SIM202  # another method
        assert one.same_movie(stored)
        assert hash(one) == hash(stored)
        assert {stored: 1}[one] == 1
        assert dask.base.tokenize(one) == before[0]
        assert joblib.hash(one) == before[1]
        assert deepdiff.DeepHash(one)[one] == before[2]
        assert one.stabilized == stored.stabilized
        assert hash(one.stabilized) == hash(stored.stabilized)
        assert dask.base.tokenize(one.stabilized) == dask.base.tokenize(stored.stabilized)
    assert stored.to_dask().name == other.to_dask().name


def test_other_movies_and_other_content_are_not_equal(tmp_path: Path, stored: PhotonArray) -> None:
    place = write_movie(tmp_path / "n", COUNTS, calibration=NOISE, profile="lossless")
    (tmp_path / "m").rename(tmp_path / "old")
    changed = COUNTS.copy()
    changed[29, 11, 19] += 1
    content = write_movie(tmp_path / "m", changed, calibration=NOISE, profile="lossless")
    for other in (place, content, stored.stabilized, stored.documents, None, "movie"):
        assert stored != other
        assert not stored.same_movie(other)
        assert hash(stored) != hash(repr(other))
    assert dask.base.tokenize(stored) != dask.base.tokenize(content)
    assert deepdiff.DeepHash(stored)[stored] != deepdiff.DeepHash(content)[content]


TOKENS = """
import sys, dask.base, deepdiff, joblib
from dj_photon_codecs import open_movie
movie = open_movie(sys.argv[1])
print(dask.base.tokenize(movie), joblib.hash(movie), deepdiff.DeepHash(movie)[movie])
"""


def test_tokens_are_the_same_in_every_process(tmp_path: Path, stored: PhotonArray) -> None:
    movie = open_movie(tmp_path / "m")
    movie[0]
    done = subprocess.run(
        [sys.executable, "-c", TOKENS, str(tmp_path / "m")], capture_output=True, text=True, timeout=240, check=True
    )
    here = [dask.base.tokenize(movie), joblib.hash(movie), deepdiff.DeepHash(movie)[movie]]
    assert done.stdout.split() == here


def test_deepdiff_is_shown_the_identity_and_others_the_frames(stored: PhotonArray, decoded: list[Any]) -> None:
    value = {"movie": stored, "views": [stored.stabilized]}
    again = {"movie": copy.copy(stored), "views": [copy.copy(stored.stabilized)]}
    assert deepdiff.DeepHash(value)[value] == deepdiff.DeepHash(again)[again]
    assert decoded == []
    assert len(list(stored)) == 30
    assert len(list(stored.stabilized)) == 30
    assert (next(iter(stored)) == COUNTS[0]).all()


@pytest.mark.parametrize("pipeline", [("postgres", "file")], ids=["postgres-file"], indirect=True)
def test_the_three_parts_of_make_read_no_frame_of_a_gigabyte(pipeline: Pipeline, decoded: list[Any]) -> None:
    """DataJoint hashes what make_fetch gave, twice, and once within the transaction."""
    dark = PhotonMovie(np.broadcast_to(np.zeros((512, 512), np.uint16), (2048, 512, 512)), profile="lossless")
    Recording = declare_recording(pipeline.schema)
    Recording.insert1(row(0, dark))
    fetched: list[PhotonArray] = []

    @pipeline.schema
    class Parts(dj.Computed):  # type: ignore[misc]
        definition = """
        -> Recording
        ---
        frames : int32
        """

        def make_fetch(self, key: dict[str, Any]) -> tuple[Any, ...]:
            movie = (Recording & key).fetch1("movie")
            fetched.append(movie)
            return movie, {"again": [movie, (movie, movie)]}

        def make_compute(self, key: dict[str, Any], movie: Any, more: Any) -> tuple[int]:
            return (len(movie),)

        def make_insert(self, key: dict[str, Any], frames: int) -> None:
            self.insert1({**key, "frames": frames})

    decoded.clear()
    Parts.populate()
    assert Parts().fetch1("frames") == 2048
    assert len(fetched) == 2
    assert fetched[0].nbytes == 1 << 30
    assert decoded == []


# --- comparisons, and what is not there


EXPRESSIONS: dict[str, Any] = {
    "== 0": lambda one: one == 0,
    "!= 0": lambda one: one != 0,
    "0 ==": lambda one: 0 == one,
    "== list": lambda one: one == [1, 2],
    "> 0": lambda one: one > 0,
    "<= 0.5": lambda one: one <= 0.5,
    "+ 1": lambda one: one + 1,
    "1 -": lambda one: 1 - one,
    "- itself": lambda one: one - one,
    "** 2": lambda one: one**2,
    ".astype": lambda one: one.astype(float),
    ".T": lambda one: one.T,
    ".reshape": lambda one: one.reshape(-1),
    ".argmax": lambda one: one.argmax(),
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_needs_values_in_memory_is_a_type_error_that_says_what_to_write(
    stored: PhotonArray, decoded: list[Any], expression: str
) -> None:
    with pytest.raises(TypeError, match=r"write movie\[\.\.\.\].* for a part .* or movie.to_dask\(\)"):
        EXPRESSIONS[expression](stored)
    with pytest.raises(TypeError, match=r"write movie\[\.\.\.\]"):
        EXPRESSIONS[expression](stored.stabilized)
    assert decoded == []


def test_arrays_of_other_libraries_compare_and_calculate_with_a_handle_by_themselves(stored: Any) -> None:
    assert ((stored == COUNTS) & (COUNTS == stored)).all()
    assert not (stored != COUNTS).any()
    assert np.count_nonzero(np.equal(stored, 300)) == np.count_nonzero(COUNTS == 300)
    assert ((stored + COUNTS) == 2 * COUNTS).all()
    assert ((COUNTS - stored) == 0).all()
    assert (stored == stored.to_dask()).all().compute()


def test_a_value_is_looked_for_chunk_by_chunk(stored: PhotonArray, decoded: list[Any]) -> None:
    long = write_movie(stored._location.root + "long", np.tile(COUNTS, (10, 1, 1)), profile="lossless")
    decoded.clear()
    assert int(COUNTS[0, 0, 0]) in long
    assert 0 < len(decoded) < 20  # of 75
    assert 5 not in stored
    with pytest.raises(TypeError, match="a movie contains numbers, not 'x'"):
        "x" in stored  # noqa: B015


def test_a_handle_shows_what_it_has(stored: PhotonArray) -> None:
    names = dir(stored)
    assert {"mean", "frames", "oindex", "shape", "calibration", "same_movie"} <= set(names)
    assert not [name for name in names if name.startswith("set_") or name in ("append", "resize", "__setitem__")]
    assert not [name for name in ("T", "astype", "reshape", "tolist") if hasattr(stored, name)]
    with pytest.raises(AttributeError, match="has no attribute 'astipe'"):
        stored.astipe  # noqa: B018
    assert f"{stored:>200}" == repr(stored).rjust(200)


def test_frames_come_in_the_type_that_is_asked_for(stored: PhotonArray) -> None:
    signed = np.stack(list(stored.frames(3, 9, dtype=np.int32)))
    assert signed.dtype == np.int32
    assert (np.diff(signed, axis=0) == np.diff(COUNTS[3:9].astype(int), axis=0)).all()
    assert next(stored.stabilized.frames(dtype=np.float64)).dtype == np.float64


# --- reductions


axes = st.none() | st.integers(-3, 2) | st.lists(st.integers(0, 2), unique=True, max_size=3).map(tuple)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PhotonArray:
    """In chunks that do not hold whole frames, and of which none is whole at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "CHUNK_PIXELS", 5 * 20)
        return write_movie(tmp_path_factory.mktemp("plain") / "m", COUNTS, calibration=NOISE, profile="lossless")


@pytest.mark.slow
@given(st.data(), st.sampled_from(["sum", "mean", "var", "std", "min", "max", "any", "all"]), axes, st.booleans())
@settings(max_examples=150, deadline=None)
def test_reductions_are_numpys(plain: PhotonArray, data: Any, name: str, axis: Any, keepdims: bool) -> None:
    options: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if name in ("sum", "mean", "var", "std"):
        options["dtype"] = data.draw(st.sampled_from([None, np.float32, np.float64]))
    if name in ("var", "std"):
        options["ddof"] = data.draw(st.integers(0, 1))
    if data.draw(st.booleans()):
        options["where"] = data.draw(
            st.sampled_from([COUNTS > 300, COUNTS[0] % 2 == 0, np.arange(30)[:, None, None] > 7])
        )
        options |= {"initial": 400} if name in ("min", "max") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing, in both
        for array, counts in ((plain, COUNTS), (plain.stabilized, plain.stabilized[...])):
            expected = getattr(np, name)(counts, **options)
            found = getattr(np, name)(array, **options)
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert isinstance(found, np.ndarray) == isinstance(expected, np.ndarray)
            exact = name in ("min", "max", "any", "all") or (name == "sum" and found.dtype.kind == "u")
            np.testing.assert_allclose(found, expected, rtol=0 if exact else 1e-4, equal_nan=True)


def test_reductions_refuse_what_numpy_refuses(plain: PhotonArray) -> None:
    with pytest.raises(np.exceptions.AxisError, match="axis 3 is out of bounds for array of dimension 3"):
        plain.mean(axis=3)
    with pytest.raises(ValueError, match="duplicate value in axis"):
        plain.sum(axis=(0, -3))
    with pytest.raises(ValueError, match="needs initial= too"):
        plain.max(where=COUNTS > 3)
    with pytest.raises(ValueError, match=r"out has shape \(3,\), the result has \(12, 20\)"):
        plain.sum(axis=0, out=np.zeros(3))
    out = np.zeros((12, 20))
    assert plain.mean(axis=0, out=out) is out
    np.testing.assert_allclose(out, COUNTS.mean(axis=0))


def test_a_reduction_decodes_each_chunk_once(plain: PhotonArray, decoded: list[Any]) -> None:
    for name in ("sum", "mean", "var", "std", "min", "max", "any", "all"):
        decoded.clear()
        getattr(open_movie(plain._location), name)(axis=0)
        assert len(decoded) == len(set(decoded)) == np.prod(plain._chunks.reader.grid.chunks), name


# --- the cache


def test_the_size_of_the_cache_is_set_by_call_by_environment_or_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJ_PHOTON_CACHE_BYTES", raising=False)
    for memory, size in ((None, 1 << 28), (1 << 30, 1 << 28), (1 << 34, 1 << 30), (1 << 40, 1 << 31)):
        monkeypatch.setattr(cache_module, "memory_bytes", lambda memory=memory: memory)
        assert cache_module.initial_size() == size
    monkeypatch.setenv("DJ_PHOTON_CACHE_BYTES", " 5000 ")
    assert cache_module.initial_size() == 5000
    for wrong in ("2 GB", "-1", "1e9"):
        monkeypatch.setenv("DJ_PHOTON_CACHE_BYTES", wrong)
        with pytest.raises(
            ValueError, match=f"DJ_PHOTON_CACHE_BYTES must be a number of bytes, 0 or more, got '{wrong}'"
        ):
            cache_module.initial_size()
    before = cache_module.CACHE.max_bytes
    try:
        set_cache_size(12345)
        assert cache_module.CACHE.max_bytes == 12345
        for wrong_size in (-1, 1.5, "1", True, None):
            with pytest.raises(ValueError, match="n_bytes must be a number of bytes, 0 or more"):
                set_cache_size(wrong_size)  # type: ignore[arg-type]
    finally:
        set_cache_size(before)


def test_a_smaller_cache_lets_go_at_once() -> None:
    cache = cache_module.ChunkCache(1000)
    for index in range(5):
        cache.put(("a", (index,)), Chunk(np.zeros(100, np.uint8)))
    cache.resize(250)
    assert cache.nbytes == 200
    assert cache.get(("a", (4,))) is not None
