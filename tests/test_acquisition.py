"""PhotonWriter: what was appended is stored as write_movie would, also after an error, and after a kill."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError, DuplicateError
from zarr.storage import MemoryStore

from data.make_golden import UNFINISHED
from dj_photon_codecs import (
    Calibration,
    CodeRangeError,
    ConfigurationError,
    FormatError,
    InvalidMovieError,
    LosslessWarning,
    MovieTypeError,
    PhotonWriter,
    StorageError,
    open_movie,
    recover_movie,
    write_movie,
)
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.target import Target
from services import Pipeline
from tables import declare_movies

GAIN, ZERO = 20.0, 100.0
NOISE = Calibration.given(GAIN, ZERO)

#: Frames of an object, with the layout below.
STRIDE = 16


@pytest.fixture(autouse=True)
def small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of 16 frames of 64 x 64 uint16, in chunks of 4."""
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(layout, "SHARD_BYTES", STRIDE * 64 * 64 * 2)


def camera(frames: int, dtype: str = "uint16", zero: float = ZERO, shape: tuple[int, ...] = (64, 64)) -> np.ndarray:
    """Poisson counts over a gradient of 1 to 20 photons."""
    rng = np.random.default_rng(0)
    mean = np.linspace(1, 20, shape[-1]) * np.ones(shape)
    counts: np.ndarray = np.rint(zero + GAIN * rng.poisson(mean, (frames, *shape))).astype(dtype)
    return counts


def assert_within_bound(stored: np.ndarray, counts: np.ndarray, gain: float = GAIN, zero: float = ZERO) -> None:
    """Invariants 1 and 4."""
    assert (stored.shape, stored.dtype) == (counts.shape, counts.dtype)
    top = np.maximum(stored, counts).astype(float)
    bound = 0.25 * gain * np.sqrt(np.maximum((top - zero) / gain, 0) + 0.375) + 0.5
    assert (np.abs(stored.astype(float) - counts) <= bound + 1e-6).all()


def acquire(store: Any, counts: Any, then: Callable[[PhotonWriter], object] = lambda writer: None) -> None:
    """Append frames, and do something that may fail before the movie is finished."""
    with PhotonWriter(store, calibration=NOISE) as writer:
        writer.extend(counts)
        then(writer)


def camera_stops(writer: PhotonWriter) -> None:
    raise TimeoutError("no frame for a second")


def wait_until_stored(writer: PhotonWriter, waiting: int) -> None:
    """Wait until no more than so many frames wait to be written."""
    given_up = time.monotonic() + 60
    while writer.backlog > waiting:
        assert time.monotonic() < given_up
        time.sleep(0.005)


@pytest.mark.parametrize("profile", ["standard", "dense", "portable", "lossless"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_appended_frames_come_back(tmp_path: Path, profile: str, zarr_format: Any) -> None:
    if (profile, zarr_format) == ("dense", 2):
        pytest.skip("the dense profile has no Zarr 2 form, and is refused there")
    counts = camera(STRIDE * 7 + 5)
    with PhotonWriter(tmp_path / "m", profile=profile, zarr_format=zarr_format) as writer:
        for frame in counts:
            writer.append(frame)
    movie = open_movie(tmp_path / "m")
    assert movie == writer.movie
    assert movie.verify()
    assert movie.profile == profile
    assert not (tmp_path / "m" / "acquisition.json").exists()
    if profile == "lossless":
        np.testing.assert_array_equal(movie[:], counts)
    else:
        assert abs(movie.calibration.conversion_gain / GAIN - 1) < 0.1
        assert_within_bound(movie[:], counts, movie.calibration.conversion_gain, movie.calibration.zero_level)


def test_a_movie_shorter_than_what_the_noise_is_measured_on_is_as_write_movie_stores_it(tmp_path: Path) -> None:
    counts = camera(50)
    with PhotonWriter(tmp_path / "m") as writer:
        writer.extend(counts[:7])
        writer.append(counts[7])
        writer.extend(counts[8:])
    expected = write_movie(tmp_path / "expected", counts)
    np.testing.assert_array_equal(writer.movie[:], expected[:])
    assert writer.movie.calibration == expected.calibration


@pytest.mark.parametrize(
    ("dtype", "zero"),
    [("uint16", ZERO), ("int16", -40.0), ("uint8", 0.0), ("float32", ZERO), ("int64", -40.0), ("uint32", ZERO)],
)
def test_any_count_may_follow_the_first_frames(tmp_path: Path, dtype: str, zero: float) -> None:
    """Codes are wide enough for what the camera can give, and not only for what it has given at first."""
    counts = camera(STRIDE * 8, dtype, zero) if dtype != "uint8" else camera(STRIDE * 8, zero=0).clip(0, 255)
    counts = counts.astype(dtype)
    narrow = np.iinfo(dtype) if np.dtype(dtype).itemsize <= 2 else None
    edges = (narrow.min, narrow.max) if narrow else (-4096 if dtype[0] == "i" else 0, 2**24)
    counts[-3, 0, :2] = edges
    if dtype == "float32":
        counts[-3, 0, 2:4] = 0.5, 3.25
    with PhotonWriter(tmp_path / "m", calibration=Calibration.given(GAIN, zero)) as writer:
        writer.extend(counts)
    assert_within_bound(writer.movie[:], counts, GAIN, zero)


def test_a_count_that_no_sensor_gives_is_told_and_what_is_there_can_be_recovered(tmp_path: Path) -> None:
    counts = camera(STRIDE * 4, "int64")
    counts[STRIDE * 2 + 1] = 2**50
    with pytest.raises(CodeRangeError, match=str(2**50)):
        acquire(tmp_path / "m", counts)
    assert_within_bound(recover_movie(tmp_path / "m")[:], counts[: STRIDE * 2])


def test_whole_numbers_as_numpy_makes_them_are_stored_in_narrow_codes(tmp_path: Path) -> None:
    """A simulated camera gives int64."""
    counts = np.random.default_rng(0).poisson(np.linspace(1, 20, 64), (STRIDE * 8, 64, 64))
    assert counts.dtype == np.int64
    with PhotonWriter(tmp_path / "m") as writer:
        writer.extend(counts)
    assert_within_bound(writer.movie[:], counts, gain=1.0, zero=0.0)
    expected = write_movie(tmp_path / "expected", counts)
    assert writer.movie.compression_ratio > 0.8 * expected.compression_ratio


def test_signed_counts_have_their_zero_level_measured(tmp_path: Path) -> None:
    counts = camera(STRIDE * 8, "int16", -40.0)
    counts = (counts + np.random.default_rng(1).normal(0, 12, counts.shape)).round().astype(np.int16)
    assert counts.min() < -40
    with PhotonWriter(tmp_path / "m") as writer:
        writer.extend(counts)
    calibration = writer.movie.calibration
    assert calibration.reliable
    assert abs(calibration.conversion_gain / GAIN - 1) < 0.1
    assert_within_bound(writer.movie[:], counts, calibration.conversion_gain, calibration.zero_level)


def test_planes_are_part_of_a_frame(tmp_path: Path) -> None:
    counts = camera(40, shape=(2, 64, 64))
    with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        for volume in counts:
            writer.append(volume)
    assert_within_bound(writer.movie[:], counts)


def test_the_camera_may_use_its_buffer_again(tmp_path: Path) -> None:
    counts = camera(STRIDE * 2)
    buffer = np.empty_like(counts[0])
    with PhotonWriter(tmp_path / "m", calibration=NOISE, profile="lossless") as writer:
        for frame in counts:
            buffer[...] = frame
            writer.append(buffer)
    np.testing.assert_array_equal(writer.movie[:], counts)


def test_without_a_noise_model_it_is_lossless_and_says_so(tmp_path: Path) -> None:
    """Invariant 3."""
    counts = np.full((STRIDE * 7, 64, 64), 7, np.uint16)
    with pytest.warns(LosslessWarning, match="constant"), PhotonWriter(tmp_path / "m") as writer:
        writer.extend(counts)
    assert writer.movie.profile == "lossless"
    np.testing.assert_array_equal(writer.movie[:], counts)


def test_the_same_frames_make_the_same_bytes(tmp_path: Path) -> None:
    counts = camera(STRIDE * 9)
    for name, pieces in (("one", 1), ("many", 31)):
        with PhotonWriter(tmp_path / name) as writer:
            for piece in np.array_split(counts, pieces):
                writer.extend(piece)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes()


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (np.zeros((64, 63), np.uint16), InvalidMovieError, r"frame 40 has shape \(64, 63\).*alike"),
        (np.zeros((64, 64), np.int32), MovieTypeError, "frame 40 has .* dtype int32.*uint16"),
    ],
    ids=["shape", "dtype"],
)
def test_a_frame_unlike_the_others_is_refused_and_those_before_it_are_kept(
    tmp_path: Path, frame: np.ndarray, error: type[Exception], message: str
) -> None:
    counts = camera(40)
    with pytest.raises(error, match=message) as caught:
        acquire(tmp_path / "m", counts, lambda writer: writer.append(frame))
    assert "40 frames are kept" in caught.value.__notes__[0]
    assert_within_bound(open_movie(tmp_path / "m")[:], counts)


@pytest.mark.parametrize(
    ("frame", "error"),
    [(np.zeros((8, 8), complex), MovieTypeError), (np.zeros(8, np.uint8), InvalidMovieError), ("x", MovieTypeError)],
    ids=["complex", "1-D", "text"],
)
def test_a_first_frame_without_counts_is_refused_and_leaves_nothing(
    tmp_path: Path, frame: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        acquire(tmp_path / "m", [], lambda writer: writer.append(frame))
    assert not list(tmp_path.iterdir())


def test_floating_point_counts_that_cannot_be_stored_are_told_by_frame(tmp_path: Path) -> None:
    counts = camera(STRIDE * 3, "float32")
    counts[STRIDE + 2, 5, 6] = np.nan
    with pytest.raises(InvalidMovieError, match=rf"nan \(first at \({STRIDE + 2}, 5, 6\)\)"):
        acquire(tmp_path / "m", counts)


def test_no_frames_are_no_movie(tmp_path: Path) -> None:
    with pytest.raises(InvalidMovieError, match="no frame was appended"), PhotonWriter(tmp_path / "m"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_camera_keeps_what_was_acquired(tmp_path: Path) -> None:
    counts = camera(STRIDE * 8 + 3)
    with pytest.raises(TimeoutError, match="no frame for a second") as caught:
        acquire(tmp_path / "m", counts, camera_stops)
    assert f"{len(counts)} frames are kept: open_movie({str(tmp_path / 'm')!r})" in caught.value.__notes__
    assert_within_bound(open_movie(tmp_path / "m")[:], counts)


def test_a_place_that_is_not_empty_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not empty"):
        PhotonWriter(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"profile": "anscombe-v1"}, "highest count"), ({"step": -1}, "step"), ({"backlog_bytes": 0}, "backlog_bytes")],
)
def test_options_out_of_range_are_refused_at_once(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PhotonWriter(tmp_path / "m", **options)


def test_a_finished_movie_takes_no_more_frames(tmp_path: Path) -> None:
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    with pytest.raises(InvalidMovieError, match="not finished"):
        _ = writer.movie
    writer.extend(camera(3))
    assert writer.close() is writer.close()
    with pytest.raises(InvalidMovieError, match="is finished"):
        writer.append(camera(1)[0])


def test_a_store_that_is_slow_makes_the_camera_wait_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 7."""
    opened, put = threading.Event(), Target.put

    async def slow_put(self: Target, key: str, content: Any) -> None:
        while not opened.is_set():
            await asyncio_sleep()
        await put(self, key, content)

    async def asyncio_sleep() -> None:
        import asyncio

        await asyncio.sleep(0.01)

    monkeypatch.setattr(Target, "put", slow_put)
    block = camera(STRIDE)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE, backlog_bytes=2 * block.nbytes)
    done = threading.Event()

    def acquire() -> None:
        for _ in range(20):
            writer.extend(block)
        done.set()

    thread = threading.Thread(target=acquire)
    thread.start()
    assert not done.wait(0.5)
    # two blocks that wait, one that the thread holds, and the one that is being filled
    assert writer.frames <= 4 * STRIDE
    opened.set()
    thread.join()
    assert len(writer.close()) == 20 * STRIDE


def test_a_store_that_fails_is_told_and_what_is_there_can_be_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Target.put

    async def failing_put(self: Target, key: str, content: Any) -> None:
        if key.startswith("c/2/"):
            with self.location.errors_named(f"object {key!r} could not be written"):
                raise OSError("no space left on device")
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", failing_put)
    counts = camera(STRIDE * 8)
    with pytest.raises(StorageError, match=r"'c/2/0/0' could not be written.*no space left"):
        acquire(tmp_path / "m", counts)
    monkeypatch.undo()
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts[: 2 * STRIDE])
    assert recovered.verify()


def unfinished(store: Any, blocks: int = 3, extra: int = 5) -> np.ndarray:
    """What a process leaves that is killed after so many full blocks: given as the counts of these."""
    counts = camera(STRIDE * blocks + extra)
    writer = PhotonWriter(store, calibration=NOISE)
    writer.extend(counts)
    wait_until_stored(writer, extra)
    return counts[: STRIDE * blocks]


def test_an_unfinished_movie_does_not_open_and_the_error_names_the_way_out(tmp_path: Path) -> None:
    unfinished(tmp_path / "m")
    with pytest.raises(FormatError, match=r"was never finished.*recover_movie"):
        open_movie(tmp_path / "m")


def test_recovered_movies_have_every_full_block(tmp_path: Path) -> None:
    counts = unfinished(tmp_path / "m")
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts)
    assert recovered.verify()
    assert recovered == open_movie(tmp_path / "m") == recover_movie(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["c", "zarr.json"]
    expected = write_movie(tmp_path / "again", counts, calibration=NOISE)
    assert recovered.record is not None
    assert expected.record is not None
    assert recovered.record.checksums == expected.record.checksums
    assert recovered.record.original_bytes == counts.nbytes


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_a_movie_is_recovered_up_to_its_first_damage(tmp_path: Path, damage: str) -> None:
    counts = unfinished(tmp_path / "m")
    file = tmp_path / "m" / "c" / "1" / "0" / "0"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[100] ^= 1
        file.write_bytes(content)
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts[:STRIDE])
    assert not (tmp_path / "m" / "c" / "2" / "0" / "0").exists()


def test_nothing_to_recover_is_told(tmp_path: Path) -> None:
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(camera(STRIDE))
    wait_until_stored(writer, 0)
    (tmp_path / "m" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(FormatError, match="no full block"):
        recover_movie(tmp_path / "m")
    with pytest.raises(FormatError, match="no Zarr array"):
        recover_movie(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format_version": 2, "zarr": {}, "record": {}}'])
def test_a_journal_that_is_damaged_or_newer_is_refused(tmp_path: Path, content: bytes) -> None:
    unfinished(tmp_path / "m", blocks=1)
    (tmp_path / "m" / "acquisition.json").write_bytes(content)
    with pytest.raises(FormatError, match="journal"):
        recover_movie(tmp_path / "m")


def test_a_store_object_is_written_to_and_recovered_from() -> None:
    store = MemoryStore()
    counts = unfinished(store)
    assert_within_bound(recover_movie(store)[:], counts)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_what_a_killed_process_wrote_is_recovered(tmp_path: Path) -> None:
    """Killed at an arbitrary moment while the camera runs."""
    script = """
import sys
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter
from dj_photon_codecs.storage import layout
layout.CHUNK_PIXELS, layout.SHARD_BYTES = 4 * 64 * 64, 16 * 64 * 64 * 2
writer = PhotonWriter(sys.argv[1], calibration=Calibration.given(20.0, 100.0), profile="lossless")
for index in range(1_000_000):
    writer.append(np.full((64, 64), index, np.uint32))
    if index == 2000:
        print("running", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "m")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    recovered = recover_movie(tmp_path / "m")
    frames = len(recovered)
    assert frames > 0
    assert recovered.shards is not None
    assert frames % recovered.shards[0] == 0
    np.testing.assert_array_equal(recovered[:, 0, 0], np.arange(frames))
    assert recovered.verify()


def test_an_unfinished_movie_of_an_earlier_release_is_recovered(tmp_path: Path) -> None:
    """Invariant 9."""
    lines = [line.split("  ") for line in (UNFINISHED / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    files = {path.relative_to(UNFINISHED).as_posix(): path for path in UNFINISHED.rglob("*") if path.is_file()}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name in sums} == sums
    assert set(files) == {*sums, "SHA256SUMS"}
    shutil.copytree(UNFINISHED / "movie.zarr", tmp_path / "m")
    recovered = recover_movie(tmp_path / "m")
    np.testing.assert_array_equal(recovered[:], np.load(UNFINISHED / "expected.npy"))


@pytest.fixture
def recording(pipeline: Pipeline) -> Any:
    return declare_movies(pipeline)


@pytest.mark.parametrize("pipeline", [("postgres", "file"), ("mysql", "s3"), ("postgres", "s3")], indirect=True)
def test_a_row_is_inserted_when_its_movie_is_finished(pipeline: Pipeline, recording: Any) -> None:
    counts = camera(STRIDE * 8 + 1)
    with PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE) as writer:
        writer.extend(counts[:-1])
        assert not recording & {"recording": 1}
        writer.append(counts[-1])
    movie = (recording & {"recording": 1}).fetch1("movie")
    assert movie == writer.movie
    assert movie._location.label == writer.location
    assert_within_bound(movie[:], counts)
    assert movie.verify()
    assert len(pipeline.objects()) == 10  # what was written is what the row refers to, once
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    assert collector.collect()["schema_paths_orphaned"] == 0


@pytest.mark.parametrize("pipeline", [("postgres", "file")], indirect=True)
class TestRows:
    """What may go wrong with a row."""

    def test_a_key_that_is_there_is_refused_before_the_first_frame(self, recording: Any) -> None:
        with PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE) as writer:
            writer.extend(camera(5))
        with pytest.raises(DuplicateError, match="'recording': 1"):
            PhotonWriter.for_row(recording, {"recording": 1})

    @pytest.mark.parametrize("row", [{}, {"recording": 1, "nonsense": 2}, {"recording": 1, "movie": None}])
    def test_a_row_that_cannot_be_inserted_is_refused_before_the_first_frame(self, recording: Any, row: Any) -> None:
        with pytest.raises(DataJointError, match="all attributes but 'movie'"):
            PhotonWriter.for_row(recording, row)

    def test_a_table_without_the_column_is_refused(self, recording: Any) -> None:
        with pytest.raises(DataJointError, match=r"photon columns \['movie'\]"):
            PhotonWriter.for_row(recording, {"recording": 1}, "film")

    def test_an_error_makes_no_row_and_keeps_the_movie(self, pipeline: Pipeline, recording: Any) -> None:
        counts = camera(STRIDE * 2)
        writer = PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE)
        writer.extend(counts)
        with pytest.raises(TimeoutError, match="no frame"), writer:
            camera_stops(writer)
        assert not recording()
        recording.insert1({"recording": 1, "movie": open_movie(writer.location)})
        assert_within_bound((recording & {"recording": 1}).fetch1("movie")[:], counts)

    def test_what_is_unfinished_is_found_by_the_collector_and_can_be_recovered_before(
        self, pipeline: Pipeline, recording: Any
    ) -> None:
        """Invariant 6."""
        counts = camera(STRIDE * 2)
        writer = PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE)
        writer.extend(counts)
        wait_until_stored(writer, 0)
        recording.insert1({"recording": 1, "movie": recover_movie(writer.location)})
        movie = (recording & {"recording": 1}).fetch1("movie")
        assert_within_bound(movie[:], counts)
        collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
        assert collector.collect(dry_run=False)["schema_paths_deleted"] == 3  # two objects and the metadata
        assert not Path(writer.location).exists()
        assert movie.verify()

    def test_the_column_says_step_and_profile(self, pipeline: Pipeline) -> None:
        archive = declare_movies(pipeline, "photon_dense")
        with PhotonWriter.for_row(archive, {"recording": 1}, calibration=NOISE) as writer:
            writer.extend(camera(STRIDE * 2))
        assert (archive & {"recording": 1}).fetch1("movie").profile == "dense"
