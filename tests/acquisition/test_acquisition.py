"""PhotonWriter: what was appended is stored as write_movie would, also after an error, and after a kill."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest
from datajoint.errors import DataJointError, DuplicateError
from zarr.storage import LocalStore, MemoryStore

from data.make_golden import UNFINISHED
from dj_photon_codecs import (
    AcquisitionWarning,
    Calibration,
    ConfigurationError,
    DamagedChunkError,
    FormatError,
    InvalidMovieError,
    LosslessWarning,
    LostFramesWarning,
    MissingChunkError,
    MovieTypeError,
    PhotonWriter,
    StorageError,
    open_movie,
    read_frame_data,
    recover_movie,
    write_movie,
)
from dj_photon_codecs._zarr import buffer_of, submit
from dj_photon_codecs.acquisition.writer import _open
from dj_photon_codecs.storage import layout, plan
from dj_photon_codecs.storage.claim import CLAIM, Claim
from dj_photon_codecs.storage.journal import Head
from dj_photon_codecs.storage.location import Location
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


@contextmanager
def warned() -> Iterator[list[str]]:
    """Within this context, what users are warned of is put into a list."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AcquisitionWarning)
        try:
            yield texts
        finally:
            texts += [str(warning.message) for warning in told if issubclass(warning.category, AcquisitionWarning)]


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
def test_appended_frames_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, zarr_format: Any
) -> None:
    monkeypatch.setattr(plan, "_WORTH_ROUNDING", -10.0)  # portable gains nothing at this light
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
    assert writer.movie.chunks == expected.chunks


@pytest.mark.filterwarnings("ignore:the given conversion gain")  # the counts are no photons
@pytest.mark.parametrize(
    ("dtype", "zero"),
    [("uint16", ZERO), ("int16", -40.0), ("uint8", 0.0), ("float32", ZERO), ("int64", -40.0), ("uint32", ZERO)],
)
def test_any_count_may_follow_the_first_frames(tmp_path: Path, dtype: str, zero: float) -> None:
    """Codes are wide enough for what the camera can give, and not only for what it has given at first."""
    counts = camera(STRIDE * 8, dtype, zero) if dtype != "uint8" else camera(STRIDE * 8, zero=0).clip(0, 255)
    counts = counts.astype(dtype)
    narrow = np.iinfo(dtype) if np.dtype(dtype).itemsize <= 2 else None
    highest = 2**23 if dtype == "float32" else 2**24
    edges = (narrow.min, narrow.max) if narrow else (-4096 if dtype[0] == "i" else 0, highest)
    counts[-3, 0, :2] = edges
    if dtype == "float32":
        counts[-3, 0, 2:4] = 0.5, 3.25
    with PhotonWriter(tmp_path / "m", calibration=Calibration.given(GAIN, zero)) as writer:
        writer.extend(counts)
    assert_within_bound(writer.movie[:], counts, GAIN, zero)


def test_a_count_that_no_sensor_gives_is_told_and_the_recording_goes_on(tmp_path: Path) -> None:
    counts = camera(STRIDE * 4, "int64")
    counts[STRIDE * 2 + 1, 3, 4] = 2**50
    with warned() as told, PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(counts[: STRIDE * 2])
        wait_until_stored(writer, 0)
        for frame in counts[STRIDE * 2 :]:
            writer.append(frame)
    assert [re.match(rf"frame {STRIDE * 2 + 1} has 1 pixels .*-4096 to 1.67772e", text) for text in told] != [None]
    assert len(told) == 1
    expected = counts.copy()
    expected[STRIDE * 2 + 1, 3, 4] = 2**24
    assert_within_bound(writer.movie[:], expected)
    data = read_frame_data(tmp_path / "m")
    assert data.replaced_frames.tolist() == [STRIDE * 2 + 1]
    mask, values = data.replaced(STRIDE * 2 + 1)
    assert (np.argwhere(mask).tolist(), values.tolist()) == ([[3, 4]], [2**50])


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
    one, many = (open_movie(tmp_path / name).record for name in ("one", "many"))
    assert one is not None
    assert many is not None
    assert one.checksums == many.checksums


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (np.zeros((64, 63), np.uint16), InvalidMovieError, r"frame 40 has shape \(64, 63\).*must match"),
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
    assert re.match(r"40 frames \([0-9.]+ s\) are kept", caught.value.__notes__[0])
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
    bad = {(STRIDE + 2, 5, 6): np.nan, (STRIDE + 3, 1, 1): np.inf, (STRIDE + 3, 0, 0): -1e9, (4, 2, 2): 1e12}
    for place, value in bad.items():
        counts[place] = value
    with warned() as told, PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(counts)
    assert [text[:9] for text in told] == ["frame 4 h", "frame 18 ", "frame 19 "]
    expected = counts.copy()
    expected[STRIDE + 2, 5, 6] = expected[STRIDE + 3, 1, 1] = expected[4, 2, 2] = 2**23
    stored = writer.movie[:]
    assert stored[STRIDE + 3, 0, 0] < 0  # the nearest count that the movie holds
    expected[STRIDE + 3, 0, 0] = stored[STRIDE + 3, 0, 0]
    assert_within_bound(stored, expected)
    data = read_frame_data(writer.movie)
    for frame in (4, STRIDE + 2, STRIDE + 3):
        mask, values = data.replaced(frame)
        assert mask.sum() == sum(place[0] == frame for place in bad)
        np.testing.assert_array_equal(values, counts[frame][mask])


def test_masked_frames_keep_counts_and_mask(tmp_path: Path) -> None:
    counts = camera(STRIDE * 2 + 3)
    mask = np.zeros(counts.shape, bool)
    mask[7, 10:20, 3] = mask[STRIDE * 2 + 1] = True
    with PhotonWriter(tmp_path / "m", calibration=NOISE, profile="lossless") as writer:
        for frame in np.ma.MaskedArray(counts, mask):
            writer.append(frame)
    np.testing.assert_array_equal(writer.movie[:], counts)
    data = read_frame_data(writer.movie)
    assert data.replaced_frames.tolist() == [7, STRIDE * 2 + 1]
    for frame in range(len(counts)):
        np.testing.assert_array_equal(data.replaced(frame)[0], mask[frame])
        np.testing.assert_array_equal(data.replaced(frame)[1], counts[frame][mask[frame]])


def test_without_frame_data_nothing_is_replaced(tmp_path: Path) -> None:
    with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(camera(STRIDE))
    mask, values = read_frame_data(writer.movie).replaced(0)
    assert mask.shape == (64, 64)
    assert not mask.any()
    assert values.dtype == np.uint16
    assert len(values) == 0


def test_no_frames_are_no_movie(tmp_path: Path) -> None:
    with pytest.raises(InvalidMovieError, match="no frame was appended"), PhotonWriter(tmp_path / "m"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_camera_keeps_what_was_acquired(tmp_path: Path) -> None:
    counts = camera(STRIDE * 8 + 3)
    with pytest.raises(TimeoutError, match="no frame for a second") as caught:
        acquire(tmp_path / "m", counts, camera_stops)
    [note] = caught.value.__notes__
    assert note.startswith(f"{len(counts)} frames (")
    assert note.endswith(f" are kept: open_movie({str(tmp_path / 'm')!r})")
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


def failing_puts(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    put = Target.put

    async def failing_put(self: Target, key: str, content: Any) -> None:
        if fails(key):
            with self.location.errors_named(f"object {key!r} could not be written"):
                raise OSError("no space left on device")
        await put(self, key, content)

    monkeypatch.setattr(Target, "put", failing_put)


def test_a_store_that_fails_for_good_is_told_and_nothing_in_memory_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_puts(monkeypatch, lambda key: key.startswith("c/2/"))
    counts = camera(STRIDE * 8)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE, patience_seconds=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AcquisitionWarning)
        writer.extend(counts)
        with pytest.raises(StorageError, match=r"'c/2/0/0' could not be written.*no space left"):
            writer.close()
        with pytest.raises(StorageError, match="kept in memory"):
            writer.close()
        assert not (tmp_path / "m" / "zarr.json").exists()
        monkeypatch.undo()
        monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 64 * 64)
        monkeypatch.setattr(layout, "SHARD_BYTES", STRIDE * 64 * 64 * 2)
        movie = writer.close()
    assert_within_bound(movie[:], counts)
    assert movie.verify(progress=False)


def unfinished(store: Any, blocks: int = 3, extra: int = 5, **options: Any) -> np.ndarray:
    """What a process leaves that is killed after so many full blocks: given as the counts of these."""
    counts = camera(STRIDE * blocks + extra)
    writer = PhotonWriter(store, calibration=NOISE, **options)
    writer.extend(counts)
    wait_until_stored(writer, extra)
    end_writer(writer, store)
    return counts[: STRIDE * blocks]


def end_writer(writer: PhotonWriter, store: Any) -> None:
    """Have a writer do nothing any more, and make its claim that of a process that has ended."""
    assert writer._recorder is not None
    with writer._recorder._cond:
        writer._recorder._halt()
    _open.discard(writer)
    dead = replace(Claim.ours().beating(), pid=4_000_000)
    submit(Target(Location.of(store)).put(CLAIM, buffer_of(dead.to_bytes()))).result()


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
    # what is measured on the first frames alone may differ a little
    assert recovered.calibration == expected.calibration
    assert recovered.record.original_bytes == counts.nbytes


def damage(file: Path, kind: str) -> None:
    """What a power loss, a full disk or a bad sector does to a file."""
    content = bytearray(file.read_bytes())
    if kind == "missing":
        file.unlink()
        return
    content[Head.of(bytes(content), file.name).size + 100] ^= 1  # in its first chunk
    damaged = {"empty": b"", "half": bytes(content[: len(content) // 2]), "zeros": bytes(len(content))}
    file.write_bytes(damaged.get(kind, bytes(content)))


@pytest.mark.parametrize("kind", ["missing", "empty", "half", "zeros", "one bit"])
@pytest.mark.parametrize("block", [0, 1])
def test_what_lies_beyond_a_bad_block_is_kept(tmp_path: Path, kind: str, block: int) -> None:
    counts = unfinished(tmp_path / "m")
    damage(tmp_path / "m" / "c" / str(block) / "0" / "0", kind)
    (tmp_path / "m" / "frame_times.csv").write_text("0, 0.033")
    before = {path: path.read_bytes() for path in (tmp_path / "m" / "c").rglob("*") if path.is_file()}
    first = block * STRIDE
    stop = first + (4 if kind == "one bit" else STRIDE)
    with pytest.warns(LostFramesWarning, match=f"{stop - first} frames .* are lost.*frames {first} to {stop - 1}"):
        recovered = recover_movie(tmp_path / "m")
    assert recovered.shape == counts.shape
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "m" / "frame_times.csv").exists()
    with pytest.raises((MissingChunkError, DamagedChunkError)):
        recovered[first]
    intact = recovered.read_intact()
    lost = np.zeros(len(counts), bool)
    lost[first:stop] = True
    assert (intact.mask == lost[:, None, None]).all()
    assert_within_bound(np.asarray(intact[~lost]), counts[~lost])
    assert recovered.verify(progress=False).frames == ((first, stop),)
    assert open_movie(tmp_path / "m") == recovered


@pytest.mark.parametrize("kind", ["missing", "empty", "half", "zeros"])
def test_a_bad_last_block_ends_the_movie_and_stays_in_the_store(tmp_path: Path, kind: str) -> None:
    counts = unfinished(tmp_path / "m")
    file = tmp_path / "m" / "c" / "2" / "0" / "0"
    damage(file, kind)
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts[: 2 * STRIDE])
    assert file.exists() == (kind != "missing")


def test_a_short_answer_of_the_store_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a body, once for each object: it is asked for again."""
    counts = unfinished(tmp_path / "m")
    get, seen = LocalStore.get, set()

    async def short(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        payload = await get(self, key, *args, **options)
        if payload is not None and key.startswith("c/") and key not in seen:
            seen.add(key)
            return payload[: len(payload) // 2]
        return payload

    monkeypatch.setattr(LocalStore, "get", short)
    recovered = recover_movie(tmp_path / "m")
    assert len(seen) == 3
    assert_within_bound(recovered[:], counts)
    assert recovered.verify(progress=False)


def test_a_movie_that_is_being_acquired_is_not_recovered(tmp_path: Path) -> None:
    counts = camera(STRIDE * 3 + 5)
    with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(counts)
        wait_until_stored(writer, 5)
        for attempt in (recover_movie, open_movie):
            with pytest.raises(FormatError, match=f"is being acquired by process {os.getpid()} on .*, since 20"):
                attempt(tmp_path / "m")
        assert (tmp_path / "m" / "acquisition.json").exists()
    assert_within_bound(writer.movie[:], counts)


def test_a_finished_movie_with_a_journal_left_beside_it_is_only_opened(tmp_path: Path) -> None:
    unfinished(tmp_path / "m", blocks=1)
    journal = (tmp_path / "m" / "acquisition.json").read_bytes()
    counts = camera(STRIDE * 2 + 5)
    with PhotonWriter(tmp_path / "n", calibration=NOISE) as writer:
        writer.extend(counts)
    (tmp_path / "n" / "acquisition.json").write_bytes(journal)
    before = sorted(path for path in (tmp_path / "n").rglob("*"))
    assert recover_movie(tmp_path / "n").shape == counts.shape
    assert sorted(path for path in (tmp_path / "n").rglob("*")) == before


def test_a_document_that_the_power_took_is_made_again(tmp_path: Path) -> None:
    counts = unfinished(tmp_path / "m")
    (tmp_path / "m" / "zarr.json").write_bytes(b"")
    assert_within_bound(recover_movie(tmp_path / "m")[:], counts)


def test_nothing_to_recover_is_told_and_nothing_is_removed(tmp_path: Path) -> None:
    unfinished(tmp_path / "m", blocks=1)
    damage(tmp_path / "m" / "c" / "0" / "0" / "0", "half")
    before = sorted(path for path in (tmp_path / "m").rglob("*"))
    with pytest.raises(FormatError, match="no intact chunk"):
        recover_movie(tmp_path / "m")
    assert {path for path in before if path.name != CLAIM} == set((tmp_path / "m").rglob("*"))
    with pytest.raises(FormatError, match="no Zarr array"):
        recover_movie(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format_version": 2, "zarr": {}, "record": {}}', None])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_blocks_say_what_they_are_where_the_journal_is_damaged_or_newer(
    tmp_path: Path, content: bytes | None, zarr_format: Any
) -> None:
    counts = unfinished(tmp_path / "m", blocks=2, zarr_format=zarr_format)
    if content is None:
        (tmp_path / "m" / "acquisition.json").unlink()
    else:
        (tmp_path / "m" / "acquisition.json").write_bytes(content)
        with pytest.raises(FormatError, match=r"the journal"):
            open_movie(tmp_path / "m")
    recovered = recover_movie(tmp_path / "m")
    assert len(recovered) >= len(counts)  # of Zarr 2, blocks are shorter
    assert_within_bound(recovered[:], camera(STRIDE * 2 + 5)[: len(recovered)])
    assert recovered.verify(progress=False)


def test_a_store_object_is_written_to_and_recovered_from() -> None:
    store = MemoryStore()
    counts = unfinished(store)
    assert_within_bound(recover_movie(store)[:], counts)


def test_what_a_killed_process_wrote_is_recovered(tmp_path: Path) -> None:
    """Killed at an arbitrary moment while the camera runs."""
    if sys.platform == "win32":
        pytest.skip("SIGKILL is POSIX")
    script = """
import sys
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter
from dj_photon_codecs.acquisition.writer import _open
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
        end_writer(writer, writer.location)
        recording.insert1({"recording": 1, "movie": recover_movie(writer.location)})
        movie = (recording & {"recording": 1}).fetch1("movie")
        assert_within_bound(movie[:], counts)
        collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
        assert collector.collect(dry_run=False)["schema_paths_deleted"] == 4  # two objects, the metadata, the journal
        assert not Path(writer.location).exists()
        assert movie.verify()

    def test_the_column_says_step_and_profile(self, pipeline: Pipeline) -> None:
        archive = declare_movies(pipeline, "photon_dense")
        with PhotonWriter.for_row(archive, {"recording": 1}, calibration=NOISE) as writer:
            writer.extend(camera(STRIDE * 2))
        assert (archive & {"recording": 1}).fetch1("movie").profile == "dense"
