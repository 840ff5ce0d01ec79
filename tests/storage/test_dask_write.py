"""A dask array is computed, encoded and written by its own scheduler, an object at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pytest

from dj_photon_codecs import (
    Calibration,
    InvalidMovieError,
    PhotonMovie,
    StorageError,
    write_movie,
)
from dj_photon_codecs.storage import dask_blocks, layout
from dj_photon_codecs.storage.target import Target
from services import Pipeline
from tables import declare_movies

NOISE = Calibration.given(20.0, 100.0)
STRIDE = 16


@pytest.fixture(autouse=True)
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of 16 frames of 64 x 64 uint16, and few of them at a time."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(layout, "SHARD_BYTES", STRIDE * 64 * 64 * 2)
    monkeypatch.setattr(dask_blocks, "_WAVE", 4)


def make_counts(frames: int = STRIDE * 9 + 5) -> np.ndarray:
    mean = np.linspace(1, 20, 64) * np.ones((64, 64))
    counts: np.ndarray = (100 + 20 * np.random.default_rng(0).poisson(mean, (frames, 64, 64))).astype(np.uint16)
    return counts


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("scheduler", "chunks", "options"),
    [
        ("threads", (7, 64, 64), {}),
        ("threads", (50, 20, 64), {"profile": "portable"}),
        ("synchronous", -1, {"zarr_format": 2}),
    ],
    ids=str,
)
def test_it_writes_the_same_bytes_as_an_array_in_memory(
    tmp_path: Path, scheduler: str, chunks: Any, options: Any
) -> None:
    """Whatever the chunks of the dask array."""
    counts = make_counts()
    with dask.config.set(scheduler=scheduler):
        lazy = dask.array.from_array(counts, chunks=chunks)
        stored = write_movie(tmp_path / "dask", lazy, calibration=NOISE, **options)
    write_movie(tmp_path / "numpy", counts, calibration=NOISE, **options)
    assert files(tmp_path / "dask") == files(tmp_path / "numpy")
    assert stored.verify()


def test_the_users_scheduler_does_the_work(tmp_path: Path) -> None:
    """And blocks are encoded where they were computed."""
    computed, seen = set(), []

    def scheduler(graph: Any, keys: Any, **options: Any) -> Any:
        seen.append(len(keys))
        return dask.threaded.get(graph, keys, num_workers=3, **options)

    def note(block: np.ndarray) -> np.ndarray:
        computed.add(threading.get_ident())
        return block

    lazy = dask.array.from_array(make_counts(), chunks=(8, 64, 64)).map_blocks(note, dtype=np.uint16)
    computed.clear()  # dask tries functions on an empty block
    with dask.config.set(scheduler=scheduler):
        write_movie(tmp_path / "m", lazy, calibration=NOISE)
    assert threading.get_ident() not in computed
    assert seen[-4:] == [1, 4, 4, 1]  # ten objects: the first alone, which is read back, then waves of four


def test_a_count_outside_the_sample_has_the_whole_movie_looked_at(tmp_path: Path) -> None:
    counts = make_counts()
    counts[70, 3, 3] = 65535  # in none of the frames that the width of the codes is decided by
    stored = write_movie(tmp_path / "m", dask.array.from_array(counts, chunks=(10, 64, 64)), calibration=NOISE)
    assert stored.verify()
    assert abs(int(stored[70, 3, 3]) - 65535) < 0.25 * np.sqrt(20 * 65535) + 1


def test_a_negative_count_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    counts = make_counts().astype(np.int32)
    counts[75, 5, 6] = -3
    lazy = dask.array.from_array(counts, chunks=(10, 64, 64))
    with pytest.raises(InvalidMovieError, match=r"minimum -3 \(first negative value at \(75, 5, 6\)\)"):
        write_movie(tmp_path / "m", PhotonMovie(lazy, profile="lossless"))
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_graph_leaves_nothing(tmp_path: Path) -> None:
    """Also when other threads are writing at that moment."""

    def fail(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"][0] == 5:
            raise ValueError("the source is gone")
        return block

    lazy = dask.array.from_array(make_counts(), chunks=(STRIDE, 64, 64)).map_blocks(fail, dtype=np.uint16)
    with pytest.raises(ValueError, match="the source is gone"), dask.config.set(scheduler="threads", num_workers=4):
        write_movie(tmp_path / "m", PhotonMovie(lazy[: STRIDE * 9], conversion_gain=20, zero_level=100, step=0))
    assert not list(tmp_path.iterdir())


def test_an_array_that_is_not_as_its_shape_says_is_refused(tmp_path: Path) -> None:
    lazy = dask.array.from_array(make_counts(), chunks=(STRIDE, 64, 64))
    cut = lazy.map_blocks(lambda block: block[:, :-1] if len(block) == 5 else block, dtype=np.uint16)
    with pytest.raises(InvalidMovieError, match="does not hold what its shape promises"):
        write_movie(tmp_path / "m", cut, calibration=NOISE)
    assert not list(tmp_path.iterdir())


def test_a_store_that_fails_is_one_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Target.put

    async def failing_put(self: Target, key: str, content: Any) -> None:
        if key.startswith("c/6/"):
            with self.location.errors_named(f"object {key!r} could not be written"):
                raise OSError("no space left on device")
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", failing_put)
    with pytest.raises(StorageError, match=r"'c/6/0/0'.*no space left"):
        write_movie(tmp_path / "m", dask.array.from_array(make_counts(), chunks=(8, 64, 64)), calibration=NOISE)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes, as two machines would be."""
    from distributed import Client, LocalCluster  # type: ignore[attr-defined]

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", processes=True) as running,
        Client(running) as client,
    ):
        client.run(_small_objects_there)
        yield client


def _small_objects_there() -> None:
    layout.CHUNK_PIXELS, layout.SHARD_BYTES = 4 * 64 * 64, STRIDE * 64 * 64 * 2


def _with_the_process(block: np.ndarray) -> np.ndarray:
    """The block, with the process that computed it in its first pixel."""
    marked = block.copy()
    marked[:, 0, 0] = os.getpid() % 60000
    return marked


@pytest.mark.parametrize("pipeline", [("postgres", "s3")], indirect=True)
def test_a_cluster_writes_one_movie_to_s3(pipeline: Pipeline, cluster: Any) -> None:
    """By an insert into a table: both workers have a part in it, and no count comes here."""
    recording = declare_movies(pipeline)
    counts = make_counts(STRIDE * 12)
    lazy = dask.array.from_array(counts, chunks=(STRIDE, 64, 64)).map_blocks(_with_the_process, dtype=np.uint16)
    recording.insert1({"recording": 1, "movie": PhotonMovie(lazy, conversion_gain=20, zero_level=100, step=0)})
    movie = (recording & {"recording": 1}).fetch1("movie")
    assert movie.verify()
    np.testing.assert_array_equal(movie[:, 1:], counts[:, 1:])
    workers = {pid % 60000 for pid in cluster.run(os.getpid).values()}
    assert set(np.unique(movie[:, 0, 0])) == workers


@pytest.mark.parametrize("calibration", [NOISE, None], ids=["given", "measured"])
def test_a_masked_block_of_an_array_that_does_not_know_it_is_refused(tmp_path: Path, calibration: Any) -> None:
    counts = make_counts()
    lazy = dask.array.from_array(counts, chunks=(STRIDE, 64, 64))  # type: ignore[no-untyped-call]
    masked = lazy.map_blocks(
        lambda block, block_info=None: (
            np.ma.masked_equal(block, block[0, 0, 0]) if block_info[0]["chunk-location"][0] == 7 else block
        ),
        dtype=counts.dtype,
        meta=np.empty((0, 0, 0), counts.dtype),
    )
    with pytest.raises(InvalidMovieError, match="masks are not stored"):
        write_movie(tmp_path / "m", masked, calibration=calibration)
    assert not (tmp_path / "m").exists()
