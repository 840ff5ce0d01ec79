"""What was acquired stays: the store fails, the process ends or is interrupted, and no frame is given up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from disks import mounted
from dj_photon_codecs import (
    AcquisitionWarning,
    FormatError,
    InvalidMovieError,
    LosslessWarning,
    LostFramesWarning,
    PhotonWriter,
    StorageError,
    open_movie,
    read_frame_data,
    recover_movie,
)
from dj_photon_codecs import _threads as threads_module
from dj_photon_codecs._zarr import submit
from dj_photon_codecs.acquisition import recorder as recorder_module
from dj_photon_codecs.acquisition import store as store_module
from dj_photon_codecs.acquisition import storing as storing_module
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.target import Target
from test_acquisition import (
    GAIN,
    NOISE,
    STRIDE,
    ZERO,
    assert_within_bound,
    camera,
    end_writer,
    wait_until_stored,
    warned,
)
from test_acquisition import small_objects as small_objects

PACKAGE = str(Path(storing_module.__file__).parent)

SCRIPT = """
import sys, time
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter
from dj_photon_codecs.storage import layout
layout.CHUNK_PIXELS, layout.SHARD_BYTES = 4 * 64 * 64, 16 * 64 * 64 * 2
options = dict(calibration=Calibration.given(20.0, 100.0), profile="lossless")
"""


def run(script: str, *arguments: Any, code: int = 0) -> str:
    """Run a script; gives what it says on standard error."""
    command = [sys.executable, "-c", SCRIPT + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


class Outage:
    """Puts fail while it lasts: all, or those of some keys."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path | None = None) -> None:
        self.lasts, self.failed = True, 0
        put = Target.put

        async def failing_put(target: Target, key: str, content: Any) -> None:
            if self.lasts and key != "writing.json" and (place is None or target.location.root == str(place)):
                self.failed += 1
                with target.location.errors_named(f"object {key!r} could not be written"):
                    raise OSError(28, "No space left on device")
            await put(target, key, content)

        monkeypatch.setattr(Target, "put", failing_put)
        monkeypatch.setattr(storing_module, "FIRST_PAUSE", 0.01)
        monkeypatch.setattr(storing_module, "_LONGEST_PAUSE", 0.05)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Outage:
    """The store at ``tmp_path / "m"`` fails; local folders do not."""
    return Outage(monkeypatch, tmp_path / "m")


@pytest.mark.parametrize("when", ["before the first frame", "in between", "at the end"])
def test_an_outage_costs_no_frame(tmp_path: Path, outage: Outage, when: str) -> None:
    counts = camera(STRIDE * 8 + 3)
    outage.lasts = when == "before the first frame"
    with warned() as texts, PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(counts[: STRIDE * 3])
        if when == "in between":
            wait_until_stored(writer, 0)
            outage.lasts = True
        writer.extend(counts[STRIDE * 3 :])
        outage.lasts = True
        while not writer.status.trouble:
            time.sleep(0.01)
        if when != "at the end":
            outage.lasts = False
        else:
            threading.Timer(0.3, setattr, (outage, "lasts", False)).start()
    assert any("does not accept frames" in text and "(" in text and " s)" in text for text in texts)
    assert any("accepts frames again" in text for text in texts)
    assert_within_bound(writer.movie[:], counts)
    assert writer.movie.verify(progress=False)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["c", "zarr.json"]


@pytest.mark.parametrize(
    "close", ["the store works again", "another process recovers", "nothing ever came to the store"]
)
def test_frames_that_spilled_come_to_the_movie(tmp_path: Path, outage: Outage, close: str) -> None:
    """And memory does not fill up meanwhile."""
    counts = camera(STRIDE * 12 + 3)
    outage.lasts = close == "nothing ever came to the store"
    block = counts[:STRIDE].nbytes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AcquisitionWarning)
        patience = 60 if close == "the store works again" else 1
        writer = PhotonWriter(
            tmp_path / "m",
            calibration=NOISE,
            spill_to=tmp_path / "spill",
            backlog_bytes=2 * block,
            patience_seconds=patience,
        )
        writer.extend(counts[: STRIDE * 2])
        if not outage.lasts:
            wait_until_stored(writer, 0)
        outage.lasts = True
        writer.extend(counts[STRIDE * 2 :])
        given_up = time.monotonic() + 30
        while writer.backlog and time.monotonic() < given_up:
            time.sleep(0.01)
        assert writer.backlog == 0
        assert sum(found.counts is not None for found in writer._recorder.blocks) <= 3  # type: ignore[union-attr]
        if close == "the store works again":
            outage.lasts = False
            movie = writer.close()
            assert not list((tmp_path / "spill").rglob("*.frames"))
        else:
            with pytest.raises(StorageError, match="kept in memory"):
                writer.close()
            end_writer(writer, tmp_path / "elsewhere")
            outage.lasts = False
            end_writer(writer, tmp_path / "m")
            movie = recover_movie(tmp_path / "m", spilled=tmp_path / "spill" if "nothing" in close else None)
    assert_within_bound(movie[:], counts)
    assert movie.verify(progress=False)


def test_a_frame_is_on_disk_after_flush_seconds(tmp_path: Path) -> None:
    """Also before the noise is known: what a kill costs is told by ``flush_seconds``."""
    counts = camera(STRIDE * 2 + 5)
    writer = PhotonWriter(tmp_path / "m", flush_seconds=0.05)
    for start in (0, 10, 20, 37):
        writer.extend(counts[start : {0: 10, 10: 20, 20: 37, 37: 37}[start]])
        wait_until_stored(writer, 0)
    end_writer(writer, tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosslessWarning)
        recovered = recover_movie(tmp_path / "m")
    assert len(recovered) == len(counts)
    gain = recovered.calibration.conversion_gain
    assert_within_bound(recovered[:], counts, gain, recovered.calibration.zero_level)
    assert recovered.verify(progress=False)
    assert sorted(path.name for path in (tmp_path / "m").iterdir() if path.is_file()) == ["zarr.json"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_flush_stores_what_there_is(tmp_path: Path, zarr_format: Any) -> None:
    counts = camera(STRIDE * 3 + 7)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE, zarr_format=zarr_format, flush_seconds=None)
    writer.extend(counts, numbers=range(len(counts)), times=np.arange(len(counts)) / 30)
    writer.flush()
    assert writer.backlog == 0
    end_writer(writer, tmp_path / "m")
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts)
    data = read_frame_data(recovered)
    np.testing.assert_array_equal(data.number, np.arange(len(counts)))
    np.testing.assert_array_equal(data.time, np.arange(len(counts)) / 30)


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "1 / 0"])
def test_a_script_without_close_loses_no_frame_and_says_so(tmp_path: Path, ending: str) -> None:
    said = run(
        f"""
writer = PhotonWriter(sys.argv[1], **options)
for index in range(300):
    writer.append(np.full((64, 64), index, np.uint16))
{ending}
""",
        tmp_path / "m",
        code={"": 0, "raise SystemExit(3)": 3, "1 / 0": 1}[ending],
    )
    assert "300 frames are kept" in said
    movie = open_movie(tmp_path / "m")
    np.testing.assert_array_equal(movie[:, 0, 0], np.arange(300))
    assert not (tmp_path / "m" / "writing.json").exists()


def test_a_script_without_close_is_warned(tmp_path: Path) -> None:
    """As a ResourceWarning, and where that is an error too nothing is lost."""
    script = "PhotonWriter(sys.argv[1], **options).append(np.zeros((64, 64), np.uint16))"
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT + script, str(tmp_path / "m")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert len(open_movie(tmp_path / "m")) == 1
    command[2] = "always::ResourceWarning"
    told = subprocess.run([*command[:-1], str(tmp_path / "n")], check=True, capture_output=True, text=True, timeout=60)
    assert "use `with PhotonWriter" in told.stderr


class Interrupt(BaseException):
    """What a signal raises, at any line."""


class RaiseAt:
    """A trace function that raises an error once, at a line of the code in a folder, counted as they are run."""

    def __init__(self, at: int, error: type[BaseException], folder: str) -> None:
        self._at, self._error, self._folder = at, error, folder
        self._line = itertools.count(1)  # several threads count
        self.lines, self.raised = 0, False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._folder):
            return None
        if event == "line" and not self.raised:
            self.lines = line = next(self._line)
            if line == self._at:
                self.raised = True
                raise self._error
        return self


@pytest.mark.parametrize("error", [Interrupt, MemoryError])
def test_an_interrupt_at_any_line_of_append_keeps_every_frame_taken_once(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """Invariant 5: raised at each line in turn, and the camera goes on with the frame that was not taken."""
    counts = camera(STRIDE + 2, shape=(16, 16))
    seen = 0
    for at in (*range(1, 200), *range(200, 2000, 23)):
        writer = PhotonWriter(tmp_path / f"{at}", calibration=NOISE, flush_seconds=None, sync=False)
        trace = RaiseAt(at, error, PACKAGE)
        index = 0
        while index < len(counts):
            sys.settrace(trace)
            try:
                if index % 2:
                    writer.append(counts[index], number=index)
                else:
                    writer.append(counts[index])
            except error:
                pass
            finally:
                sys.settrace(None)
            index = writer.frames  # what was taken is known, whatever was raised
        movie = writer.close()
        np.testing.assert_array_equal(movie.shape, counts.shape)
        assert_within_bound(movie[:], counts)
        assert movie.verify(progress=False)
        seen = trace.lines
        if not trace.raised:
            break
    assert seen > 100


def test_an_interrupt_of_close_can_be_followed_by_another(tmp_path: Path, outage: Outage) -> None:
    """And nothing comes to the store in between."""
    outage.lasts = False
    counts = camera(STRIDE * 6)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts)
    outage.lasts = True
    wait = threading.Condition.wait

    def interrupted(self: Any, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return wait(self, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Condition, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    assert not writer._recorder._thread.is_alive()  # type: ignore[union-attr]
    outage.lasts = False
    before = sorted((tmp_path / "m").rglob("*"))
    time.sleep(0.1)
    assert sorted((tmp_path / "m").rglob("*")) == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AcquisitionWarning)
        assert_within_bound(writer.close()[:], counts)


def test_frames_of_two_threads_are_whole(tmp_path: Path) -> None:
    with PhotonWriter(tmp_path / "m", profile="lossless") as writer:

        def acquire(first: int) -> None:
            for index in range(first, first + 400):
                writer.append(np.full((64, 64), index, np.uint16))

        threads = [threading.Thread(target=acquire, args=(first,)) for first in (0, 400, 800)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    frames = writer.movie[:]
    assert (frames == frames[:, :1, :1]).all()
    assert sorted(frames[:, 0, 0].tolist()) == list(range(1200))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_writer_in_a_forked_child_says_whose_it_is(tmp_path: Path) -> None:
    said = run(
        """
import os
writer = PhotonWriter(sys.argv[1], **options)
writer.append(np.zeros((64, 64), np.uint16))
child = os.fork()
if child == 0:
    for use in (lambda: writer.append(np.zeros((64, 64), np.uint16)), writer.flush, writer.close):
        try:
            use()
        except ValueError as error:
            print(error, file=sys.stderr)
    sys.exit(0)
os.waitpid(child, 0)
writer.append(np.ones((64, 64), np.uint16))
print(len(writer.close()), "frames", file=sys.stderr)
""",
        tmp_path / "m",
    )
    assert said.count("belongs to process") == 3
    assert "2 frames" in said


def test_no_thread_is_left_of_a_writer(tmp_path: Path) -> None:
    def count() -> int:
        return sum(thread.name == "PhotonWriter" for thread in threading.enumerate())

    before = count()
    for index in range(5):
        with PhotonWriter(tmp_path / f"{index}", calibration=NOISE) as writer:
            writer.extend(camera(20))
        with pytest.raises(InvalidMovieError), PhotonWriter(tmp_path / f"no {index}") as writer:
            writer.append(np.zeros(3, np.uint8))
    gc.collect()
    assert count() == before


def test_warnings_as_errors_lose_nothing(tmp_path: Path) -> None:
    counts = camera(STRIDE * 2, "float32")
    counts[3, 0, 0] = np.nan

    def acquire() -> None:
        with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
            for frame in counts:
                writer.append(frame)

    with pytest.raises(AcquisitionWarning) as caught:
        acquire()
    assert "4 frames" in caught.value.__notes__[0]
    assert len(open_movie(tmp_path / "m")) == 4
    dark = np.full((STRIDE * 7, 64, 64), 7, np.uint16)
    writer = PhotonWriter(tmp_path / "n")
    writer.extend(dark)
    with pytest.raises(LosslessWarning):
        writer.close()
    np.testing.assert_array_equal(writer.close()[:], dark)
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == ["c", "zarr.json"]


def test_a_start_in_the_dark_waits_for_light(tmp_path: Path) -> None:
    """Invariant 3: the model is that of the light, and the dark frames are stored by it."""
    rng = np.random.default_rng(2)
    light = np.linspace(1, 20, 64) * np.ones((64, 64))
    dark = np.rint(ZERO + rng.normal(0, 5, (STRIDE * 12, 64, 64)))
    bright = np.rint(ZERO + GAIN * rng.poisson(light, (STRIDE * 8, 64, 64)) + rng.normal(0, 5, (STRIDE * 8, 64, 64)))
    counts = np.concatenate([dark, bright]).clip(0).astype(np.uint16)
    with PhotonWriter(tmp_path / "m", backlog_bytes=40 * STRIDE * 64 * 64 * 2) as writer:
        for start in range(0, len(counts), STRIDE):
            writer.extend(counts[start : start + STRIDE])
            time.sleep(0.05)
    calibration = writer.movie.calibration
    assert writer.movie.profile == "standard"
    assert abs(calibration.conversion_gain / GAIN - 1) < 0.1
    assert_within_bound(writer.movie[:], counts, calibration.conversion_gain, calibration.zero_level)


def test_a_calibrated_writer_that_starts_in_the_dark_chooses_by_the_light(tmp_path: Path) -> None:
    """What is chosen on dark frames makes the light larger, here by 4 to 140 %: see whether the codecs are the same."""
    rng = np.random.default_rng(2)
    bright = camera(STRIDE * 8)
    codecs = []
    for read_noise in (0, 5):
        dark = np.rint(ZERO + rng.normal(0, read_noise, (STRIDE * 12, 64, 64))).astype(np.uint16)
        for name, parts in (("light", [bright]), ("dark first", [dark, bright])):
            with PhotonWriter(
                tmp_path / f"{name} {read_noise}",
                calibration=NOISE,
                profile="dense",
                backlog_bytes=40 * STRIDE * 64 * 64 * 2,
            ) as writer:
                for counts in parts:
                    writer.extend(counts)
                    time.sleep(0.3)
            assert_within_bound(writer.movie[:], np.concatenate(parts))
            codecs.append((writer.movie.profile, writer.movie.metadata.to_dict()["codecs"]))
    assert codecs[0][0] == "dense"
    assert all(found == codecs[0] for found in codecs[1:])


def test_objects_that_cannot_be_removed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: Target, key: str) -> None:
        with self.location.errors_named(f"object {key!r} could not be removed"):
            raise PermissionError("AccessDenied")

    counts = camera(STRIDE * 3)
    monkeypatch.setattr(Target, "remove", refused)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts)
    with pytest.warns(AcquisitionWarning, match=r"could not be removed.*acquisition\.json"):
        writer.close()
    writer.close()
    assert_within_bound(open_movie(tmp_path / "m")[:], counts)
    writer = PhotonWriter(tmp_path / "n", calibration=NOISE)
    writer.extend(counts)
    writer.flush()
    end_writer(writer, tmp_path / "n")
    with pytest.warns(AcquisitionWarning, match=r"could not be removed.*acquisition\.json"):
        assert_within_bound(recover_movie(tmp_path / "n")[:], counts)


def test_two_recoveries_at_once_make_one_movie(tmp_path: Path) -> None:
    counts = camera(STRIDE * 5 + 9)
    for turn in range(20):
        place = tmp_path / f"{turn}"
        writer = PhotonWriter(place, calibration=NOISE)
        writer.extend(counts)
        writer.flush()
        end_writer(writer, place)
        results: list[Any] = []

        def recover(place: Path = place, results: list[Any] = results) -> None:
            try:
                results.append(recover_movie(place))
            except Exception as error:
                results.append(error)

        threads = [threading.Thread(target=recover) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            assert not isinstance(result, Exception) or "being" in str(result), result
        assert any(not isinstance(result, Exception) for result in results)
        movie = open_movie(place)
        assert len(movie) == len(counts)
        assert movie.verify(progress=False)


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_takes_no_frame_that_was_stored(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not on the disk is cut, empty or gone, any of it; journal and metadata whenever they were written."""
    rng = np.random.default_rng(seed)
    counts = camera(STRIDE * 4 + 9)
    synced: set[Path] = set()
    fsync, last = store_module._fsync, int(rng.integers(1, 14))
    puts = 0

    def noted(path: Path) -> None:
        fsync(path)
        if path.is_file():
            synced.add(path)

    put = Target.put

    async def until_the_cut(target: Target, key: str, content: Any) -> None:
        nonlocal puts
        puts += 1
        if puts <= last:
            await put(target, key, content)
        if puts >= last:
            with target.location.errors_named("the power is gone"):
                raise OSError("no power")

    monkeypatch.setattr(store_module, "_fsync", noted)
    monkeypatch.setattr(Target, "put", until_the_cut)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE, profile="lossless", patience_seconds=0)
    with warnings.catch_warnings(), suppress(StorageError):
        warnings.simplefilter("ignore", AcquisitionWarning)
        for start in range(0, len(counts), 11):
            writer.extend(counts[start : start + 11])
            if rng.integers(2):
                writer.flush()
        if rng.integers(2):
            writer.close()
    if writer._recorder is not None:  # without power nothing more is stored: not with what is undone here, either
        with writer._recorder._cond:
            writer._recorder._halt()  # waits for what is under way
    monkeypatch.undo()
    end_writer(writer, tmp_path / "m")
    stored = writer.status.stored
    for path in sorted(path for path in (tmp_path / "m").rglob("*") if path.is_file() and path.name != "writing.json"):
        if path in synced and path.name not in ("acquisition.json", "zarr.json"):
            continue
        content, damage = path.read_bytes(), rng.integers(4)
        if damage == 0:
            path.unlink()
        elif damage < 3:
            path.write_bytes(content[: (0, len(content) // 2)[damage - 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostFramesWarning)
        try:
            recovered = recover_movie(tmp_path / "m")
        except FormatError:
            assert not stored
            return
    found = recovered.read_intact()
    # two blocks are under way at a time: the second may be stored, and the power go before the first is
    intact = np.logical_not(np.ma.getmaskarray(found).reshape(len(found), -1).any(axis=1))
    assert isinstance(intact, np.ndarray)
    blank = read_frame_data(recovered).blank  # lost frames that share a chunk with others
    intact[: len(blank)] &= ~blank
    assert intact.sum() >= stored
    np.testing.assert_array_equal(found.data[intact], counts[: len(found)][intact])


def test_gaps_and_repeats_of_the_camera_are_noted(tmp_path: Path) -> None:
    counts = camera(60)
    numbers = [*range(100, 120), *range(125, 150), 149, *range(150, 164)]
    sent = [*counts[:45], counts[44], *counts[45:59]]
    with warned() as told, PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        for frame, number in zip(sent, numbers, strict=True):
            writer.append(frame, number=number, time=number / 30)
        assert writer.status.missing == 5
        writer.arrays["position"] = np.arange(59 * 2).reshape(59, 2)
        writer.attributes["exposure"] = 0.03
        with pytest.warns(LostFramesWarning, match=r"5 frames .* of 64 are missing"):
            writer.close(expected_frames=64)
    texts = " ".join(told)
    assert "5 frames" in texts
    assert "numbers 120 to 124" in texts
    assert "sent number 149 twice" in texts
    data = read_frame_data(tmp_path / "m")
    assert data.number.tolist() == [*range(100, 120), *range(125, 164)]
    np.testing.assert_allclose(data.time, data.number / 30)
    assert data.missing == [(120, 124)]
    assert data.repeated.tolist() == [45]
    assert data.arrays["position"].shape == (59, 2)
    assert open_movie(tmp_path / "m").attrs["exposure"] == 0.03
    assert_within_bound(writer.movie[:], counts[:59])


def test_missing_frames_can_be_blank(tmp_path: Path) -> None:
    counts = camera(30)
    numbers = [*range(10), *range(14, 34)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AcquisitionWarning)
        with PhotonWriter(tmp_path / "m", calibration=NOISE, gaps="blank", profile="lossless") as writer:
            writer.extend(counts, numbers=numbers)
    movie = writer.movie
    assert len(movie) == 34
    np.testing.assert_array_equal(movie[14], counts[10])
    assert not movie[10:14].any()
    data = read_frame_data(movie)
    assert data.blank.nonzero()[0].tolist() == [10, 11, 12, 13]
    assert data.missing == [(10, 10), (11, 11), (12, 12), (13, 13)]


def test_a_counter_that_begins_anew_drops_no_frame(tmp_path: Path) -> None:
    counts = camera(20)
    numbers = [*range(2**31 - 10, 2**31), *range(10)]
    with warned() as told, PhotonWriter(tmp_path / "m", calibration=NOISE, gaps="blank") as writer:
        writer.extend(counts, numbers=numbers)
    assert "stored in order of arrival" in told[0]
    assert_within_bound(writer.movie[:], counts)


@pytest.mark.parametrize("seconds", [1, 5, 42, 120, 300])
def test_an_outage_of_minutes_costs_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """By a clock that runs on when the thread that stores has nothing to do; it tries again at least every 10 s."""
    outage = Outage(monkeypatch, tmp_path / "m")
    outage.lasts = False
    monkeypatch.setattr(storing_module, "FIRST_PAUSE", 0.25)
    monkeypatch.setattr(storing_module, "_LONGEST_PAUSE", 10.0)
    idle, now, ends = storing_module.Storing._idle, [0.0], [float("inf")]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def idled(self: Any) -> float:
        now[0] += idle(self)
        if now[0] >= ends[0]:
            outage.lasts = False
        return 0.001

    for module in (storing_module, recorder_module):
        monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(storing_module.Storing, "_idle", idled)
    counts = camera(STRIDE * 12 + 3)
    with warned() as texts, PhotonWriter(tmp_path / "m", calibration=NOISE, flush_seconds=None) as writer:
        writer.extend(counts[: STRIDE * 2])
        wait_until_stored(writer, 0)
        outage.lasts, ends[0] = True, now[0] + seconds
        writer.extend(counts[STRIDE * 2 :])
        while outage.lasts:
            time.sleep(0.001)
    assert outage.failed >= seconds // 10
    [text] = [text for text in texts if "accepts frames again" in text]
    lasted = float(re.findall(r"after ([0-9.]+) s", text)[0])
    assert 0.5 * seconds <= lasted <= seconds + 20
    assert_within_bound(writer.movie[:], counts)


@pytest.mark.parametrize("when", ["before the first block", "in between", "at the end"])
def test_a_full_disk_costs_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A real one, and space is freed while the recording goes on."""
    monkeypatch.setattr(storing_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(storing_module, "_LONGEST_PAUSE", 0.05)
    counts = np.random.default_rng(0).integers(0, 65536, (STRIDE * 12 + 3, 64, 64)).astype(np.uint16)
    with mounted(tmp_path / "disk", "size=4m") as disk:

        def fill() -> None:
            with suppress(OSError), (disk / "others").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

        with warned() as texts, PhotonWriter(disk / "m", profile="lossless") as writer:
            if when == "before the first block":
                fill()
            writer.extend(counts[: STRIDE * 7])  # the seventh block is the first that can be planned by
            if when == "in between":
                wait_until_stored(writer, 0)
                fill()
            writer.extend(counts[STRIDE * 7 :])
            if when == "at the end":
                wait_until_stored(writer, 3)
                fill()
                writer.extend(counts[:1])
                threading.Timer(0.5, (disk / "others").unlink).start()
                counts = np.concatenate([counts, counts[:1]])
            else:
                given_up = time.monotonic() + 60
                while not writer.status.trouble and time.monotonic() < given_up:
                    time.sleep(0.01)
                (disk / "others").unlink()
        assert any("does not accept frames" in text and "No space left" in text for text in texts)
        np.testing.assert_array_equal(writer.movie[:], counts)
        assert writer.movie.verify(progress=False)
        assert sorted(path.name for path in (disk / "m").iterdir()) == ["c", "zarr.json"]


async def on_the_loop(function: Callable[[], object]) -> None:
    function()


@pytest.fixture
def traced_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Any], None]]:
    """A function that installs a trace function in the thread that stores, on the event loop, or in the pools."""
    run = storing_module.Storing._run

    def install(where: str, trace: Any) -> None:
        def traced(self: Any) -> None:
            sys.settrace(trace)
            try:
                run(self)
            finally:
                sys.settrace(None)

        def pools(*args: Any, **options: Any) -> ThreadPoolExecutor:
            return ThreadPoolExecutor(*args, **options, initializer=sys.settrace, initargs=(trace,))

        if where == "the thread that stores":
            monkeypatch.setattr(storing_module.Storing, "_run", traced)
        elif where == "the event loop":
            submit(on_the_loop(lambda: sys.settrace(trace))).result()
        else:  # those that encode, read back and sync: new ones
            monkeypatch.setattr(threads_module, "ThreadPoolExecutor", pools)
            monkeypatch.setattr(threads_module, "_pools", [])
            monkeypatch.setattr(threads_module, "_encoders", {})
            submit(on_the_loop(lambda: asyncio.get_running_loop().set_default_executor(pools(4)))).result()

    yield install
    install("the event loop", None)
    install("the pools", None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # raised on the way to the loop
@pytest.mark.parametrize("error", [Interrupt, MemoryError])
@pytest.mark.parametrize(
    ("where", "room"),
    [("the thread that stores", "acquisition"), ("the event loop", "storage"), ("the pools", "")],
    ids=lambda value: value.replace(" ", "-") or "package",
)
def test_an_error_at_any_line_of_what_stores_costs_no_frame(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    traced_in: Callable[[str, Any], None],
    error: type[BaseException],
    where: str,
    room: str,
) -> None:
    """Raised at a line of a room, run there: ``PHOTON_LINES=1`` for every line."""
    monkeypatch.setattr(storing_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(storing_module, "_LONGEST_PAUSE", 0.01)
    folder, every = str(Path(PACKAGE).parent / room), int(os.environ.get("PHOTON_LINES", "97"))
    monkeypatch.setattr(layout, "CHUNK_PIXELS", 4 * 16 * 16)
    monkeypatch.setattr(layout, "SHARD_BYTES", STRIDE * 16 * 16 * 2)
    counts = camera(STRIDE * 2 + 2, shape=(16, 16))
    turns = 0
    for at in range(1, 100_000, every):
        trace = RaiseAt(at, error, folder)
        writer = PhotonWriter(tmp_path / f"{at}", calibration=NOISE, flush_seconds=0.001)
        traced_in(where, trace)
        problems = (error, StorageError)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AcquisitionWarning)
            while writer.frames < len(counts):
                try:
                    writer.append(counts[writer.frames], number=writer.frames)
                except problems:
                    writer.retry()
            for _ in range(3):
                with suppress(*problems):
                    writer.close()
                    break
            raised, trace.raised = trace.raised, True  # no more of it
            movie = writer.close()
        assert_within_bound(movie[:], counts)
        assert movie.verify(progress=False)
        assert read_frame_data(movie).number.tolist() == list(range(len(counts)))
        left = {path.name for path in (tmp_path / f"{at}").rglob("*") if path.is_file()}
        assert left == {"0", "frames.npz", "zarr.json"}  # "0" is c/N/0/0
        turns += raised
        if not raised:
            break
    gc.collect()  # coroutines that a traceback holds
    assert turns > 3


def test_a_start_in_changing_light_is_not_planned_by(tmp_path: Path) -> None:
    """Dark frames with the first light of the recording: the model is that of the light that follows."""
    rng = np.random.default_rng(1)
    light = np.linspace(1, 20, 64) * np.ones((64, 64))
    dark = np.r_[np.zeros(92), np.ones(STRIDE * 25 - 92)][:, None, None]
    counts = ZERO + GAIN * rng.poisson(light * dark) + rng.normal(0, 5, (STRIDE * 25, 64, 64))
    counts = counts.round().clip(0).astype(np.uint16)
    with PhotonWriter(tmp_path / "m", backlog_bytes=40 * STRIDE * 64 * 64 * 2) as writer:
        for start in range(0, len(counts), STRIDE):
            writer.extend(counts[start : start + STRIDE])
            time.sleep(0.02)
    calibration = writer.movie.calibration
    assert abs(calibration.conversion_gain / GAIN - 1) < 0.05
    metadata: Any = writer.movie.metadata.to_dict()
    model = metadata["codecs"][0]["configuration"]["codecs"][0]["configuration"]
    assert abs(model["conversion_gain"] / GAIN - 1) < 0.2
    assert_within_bound(writer.movie[:], counts, calibration.conversion_gain, calibration.zero_level)
