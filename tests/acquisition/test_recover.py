"""Recovery beside the writer: rows, a view while it runs, the audit, and drills that kill the process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from datajoint.errors import DataJointError
from zarr.codecs import BloscCodec

from dj_photon_codecs import (
    ConfigurationError,
    FormatError,
    LosslessWarning,
    LostFramesWarning,
    MissingChunkError,
    OccupiedError,
    PhotonArray,
    PhotonWriter,
    audit_store,
    open_movie,
    plan_recovery,
    read_frame_data,
    recover_movie,
    recover_row,
    write_movie,
)
from dj_photon_codecs.acquisition import recovery, store, storing
from dj_photon_codecs.acquisition.writer import _open
from dj_photon_codecs.cli.places import Place, State
from dj_photon_codecs.storage.claim import Claim
from dj_photon_codecs.storage.journal import Head
from faulty import Fault, faulty_proxy
from services import Pipeline, S3Server
from tables import declare_movies
from test_acquisition import NOISE, STRIDE, assert_within_bound, camera, end_writer, wait_until_stored, warned
from test_acquisition import small_objects as small_objects


@pytest.fixture
def recording(pipeline: Pipeline) -> Any:
    return declare_movies(pipeline)


@pytest.mark.parametrize("pipeline", [("postgres", "file"), ("mysql", "s3")], indirect=True)
class TestRows:
    """A row that was to be inserted is inserted, after any failure, and its movie is not copied."""

    @pytest.mark.parametrize("failure", ["the writer is killed", "an error of the camera", "the insert fails"])
    def test_the_row_of_a_movie_is_recovered(
        self, pipeline: Pipeline, recording: Any, failure: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = camera(STRIDE * 2 + 5)
        writer = PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE)
        writer.extend(counts)
        if failure == "the writer is killed":
            writer.flush()
            end_writer(writer, writer._location)
        elif failure == "an error of the camera":
            writer.__exit__(TimeoutError, TimeoutError("no frame"), None)
        else:

            def refused(*_: Any, **__: Any) -> None:
                raise DataJointError("the database went away")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(recording, "insert1", refused)
                for _ in range(2):
                    with pytest.raises(DataJointError, match="went away"):
                        writer.close()
        _open.discard(writer)
        before = [key for key in pipeline.objects() if "/c/" in key]
        recording.insert1(recover_row(writer._location))
        movie = (recording & {"recording": 1}).fetch1("movie")
        assert_within_bound(movie[:], counts)
        assert movie._location.label == writer.location
        assert len([key for key in pipeline.objects() if "/c/" in key]) in (len(before), len(before) + 1)
        report = audit_store(pipeline.schema, pipeline.store)
        assert report, str(report)

    def test_a_second_close_inserts_the_row(self, recording: Any) -> None:
        counts = camera(STRIDE)
        writer = PhotonWriter.for_row(recording, {"recording": 1}, calibration=NOISE)
        writer.extend(counts)

        def refused(*_: Any, **__: Any) -> None:
            raise DataJointError("the database went away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recording, "insert1", refused)
            with pytest.raises(DataJointError, match="went away"):
                writer.close()
        writer.close()
        assert_within_bound((recording & {"recording": 1}).fetch1("movie")[:], counts)
        with pytest.raises(FormatError, match="no row is recorded"):
            recover_row(writer._location)

    def test_the_audit_tells_unfinished_movies_from_garbage(self, pipeline: Pipeline, recording: Any) -> None:
        writers = [PhotonWriter.for_row(recording, {"recording": number}, calibration=NOISE) for number in (1, 2)]
        for writer in writers:
            writer.extend(camera(STRIDE + 3))
            writer.flush()
        end_writer(writers[1], writers[1]._location)
        report = audit_store(pipeline.schema, pipeline.store)
        assert not report
        assert not report.orphaned
        assert len(report.unfinished) == 2
        assert str(report).count("unfinished, recover first") == 2
        assert all(found.last_modified is not None for found in report.unfinished)
        writers[0].close()
        recording.insert1(recover_row(writers[1]._location))
        report = audit_store(pipeline.schema, pipeline.store)
        assert report
        assert not report.foreign
        assert len(report.referenced) == 2


def test_what_is_acquired_can_be_read_meanwhile(tmp_path: Path) -> None:
    counts = camera(STRIDE * 3 + 9)
    with pytest.raises(FormatError, match="nothing is being acquired"):
        open_movie(tmp_path / "m", live=True)
    with PhotonWriter(tmp_path / "m", calibration=NOISE, profile="lossless", flush_seconds=None) as writer:
        writer.extend(counts[:5])
        writer.flush()
        live = open_movie(tmp_path / "m", live=True)
        assert live.shape == (5, 64, 64)
        assert live.dtype == counts.dtype
        np.testing.assert_array_equal(live[:], counts[:5])
        for stop in (STRIDE + 2, STRIDE * 2, STRIDE * 3 + 9):
            writer.extend(counts[len(live) : stop])
            writer.flush()
            assert live.refresh() == stop
            np.testing.assert_array_equal(live[:], counts[:stop])
        for selection in (0, -1, slice(3, 40, 5), slice(None, None, -7), [1, STRIDE, 2], (slice(2, 30), 5), (..., 3)):
            np.testing.assert_array_equal(live[selection], counts[selection])
        np.testing.assert_array_equal(live[np.uint8(2)], counts[2])
        for wrong, told in ((57, "frame 57"), (None, "frame None"), (True, "frame True"), (1.0, "frame 1.0")):
            with pytest.raises(IndexError, match=told):
                live[wrong]
        assert not live.finished
    assert live.refresh() == len(counts)
    assert live.finished
    np.testing.assert_array_equal(live[:], counts)


def test_a_plan_of_recovery_changes_nothing(tmp_path: Path) -> None:
    counts = camera(STRIDE * 4 + 5)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts[:1])
    time.sleep(0.3)  # a recording of no duration would lose frames, but no seconds
    writer.extend(counts[1:])
    writer.flush()
    with pytest.raises(FormatError, match="is being acquired by process"):
        plan_recovery(tmp_path / "m")
    end_writer(writer, tmp_path / "m")
    (tmp_path / "m" / "c" / "1" / "0" / "0").write_bytes(b"")
    before = {path: path.read_bytes() for path in (tmp_path / "m").rglob("*") if path.is_file()}
    plan = plan_recovery(tmp_path / "m")
    assert (plan.n_frames, plan.lost, plan.finished) == (len(counts), ((STRIDE, 2 * STRIDE),), False)
    assert f"of which lost: {STRIDE} frames (" in str(plan)
    assert str(plan).endswith(f", frames {STRIDE} to {2 * STRIDE - 1}")
    assert {path: path.read_bytes() for path in (tmp_path / "m").rglob("*") if path.is_file()} == before
    with pytest.warns(LostFramesWarning, match=f"frames {STRIDE} to {2 * STRIDE - 1}"):
        assert len(recover_movie(tmp_path / "m")) == plan.n_frames
    assert plan_recovery(tmp_path / "m").finished


def test_files_of_the_user_and_a_movie_whose_metadata_went_are_kept(tmp_path: Path) -> None:
    counts = camera(STRIDE * 2 + 5)
    with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(counts, numbers=range(len(counts)))
        (tmp_path / "m" / "frame_times.csv").write_text("0,0.1")
    (tmp_path / "m" / "zarr.json").write_bytes(b"")
    recovered = recover_movie(tmp_path / "m")
    assert_within_bound(recovered[:], counts)
    assert recovered.verify(progress=False)
    assert (tmp_path / "m" / "frame_times.csv").read_text() == "0,0.1"
    assert read_frame_data(recovered).number.tolist() == list(range(len(counts)))


def test_what_was_acquired_is_not_removed_with_a_stale_claim_when_the_journal_is_gone(tmp_path: Path) -> None:
    counts = camera(STRIDE * 2)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts)
    writer.flush()
    end_writer(writer, tmp_path / "m")
    (tmp_path / "m" / "acquisition.json").unlink()
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_movie(tmp_path / "m", counts)
    assert_within_bound(recover_movie(tmp_path / "m")[:], counts)


def test_metadata_that_is_newer_or_altered_is_not_replaced(tmp_path: Path) -> None:
    with PhotonWriter(tmp_path / "m", calibration=NOISE) as writer:
        writer.extend(camera(STRIDE))
    document = tmp_path / "m" / "zarr.json"
    altered = document.read_text().replace('"format_version": 1', '"format_version": 99')
    document.write_text(altered)
    with pytest.raises(FormatError, match="upgrade"):
        recover_movie(tmp_path / "m")
    assert document.read_text() == altered


KILLED = """
import sys
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter
from dj_photon_codecs.storage import layout
stride = int(sys.argv[2])
layout.CHUNK_PIXELS, layout.SHARD_BYTES = max(1, stride // 4) * 32 * 32, stride * 32 * 32 * 4
noise = None if sys.argv[3] == "measured" else Calibration.given(20.0, 100.0)
writer = PhotonWriter(sys.argv[1], calibration=noise, profile="lossless", flush_seconds=0.05)
frame = np.empty((32, 32), np.uint32)
for index in range(1_000_000):
    frame[:] = index
    writer.append(frame, number=index)
    if index % 50 == 0:
        print(writer.status.stored, flush=True)
"""


def killed(place: str, stride: int, noise: str, seconds: float, **environment: str) -> int:
    """Run a recording and kill it; gives the frames that it last reported as stored."""
    command = [sys.executable, "-c", KILLED, place, str(stride), noise]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    lines = process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    return max([0, *(int(line) for line in lines)])


def assert_nothing_stored_is_lost(place: Any, stored: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LostFramesWarning)  # of blocks that were under way, two at a time
            recovered = recover_movie(place)
    except FormatError:
        assert stored == 0
        return
    counts = recovered.read_intact()
    lost = np.flatnonzero(np.ma.getmaskarray(counts)[:, 0, 0])
    assert len(recovered) - len(lost) >= stored
    assert (lost >= stored).all()
    numbers = np.broadcast_to(np.arange(len(counts))[:, None, None], counts.shape)
    assert (counts == numbers).all()
    kept = np.setdiff1d(np.arange(len(recovered)), lost)
    np.testing.assert_array_equal(read_frame_data(recovered).number[kept], kept)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("turn", range(int(os.environ.get("PHOTON_KILLS", "6"))))
def test_a_kill_takes_nothing_that_was_reported_as_stored(tmp_path: Path, turn: int) -> None:
    """``PHOTON_KILLS=200`` kills as often."""
    rng = np.random.default_rng(turn)
    stride = int(rng.integers(4, 512))
    stored = killed(str(tmp_path / "m"), stride, ("measured", "given")[turn % 2], float(rng.uniform(0, 0.6)))
    assert_nothing_stored_is_lost(tmp_path / "m", stored)


def s3_url(s3_server: S3Server, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:
    """A place in a new bucket, and what child processes need to know of it."""
    options = {"endpoint_url": endpoint, "key": s3_server.access_key, "secret": s3_server.secret_key}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    environment = {f"FSSPEC_S3_{name.upper()}": value for name, value in options.items()}
    return f"s3://{s3_server.new_bucket()}/m", environment


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("turn", range(max(2, int(os.environ.get("PHOTON_KILLS", "6")) // 4)))
def test_a_kill_takes_nothing_from_s3(s3_server: S3Server, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(turn)
    url, environment = s3_url(s3_server, s3_server.endpoint, monkeypatch)
    noise = ("measured", "given")[turn % 2]
    stored = killed(url, int(rng.integers(4, 512)), noise, float(rng.uniform(0, 1.5)), **environment)
    assert_nothing_stored_is_lost(url, stored)


def test_an_outage_of_s3_and_a_missing_right_to_delete_cost_no_frame(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = camera(STRIDE * 8 + 3)
    with faulty_proxy(s3_server.endpoint) as proxy:
        url, _ = s3_url(s3_server, proxy.endpoint, monkeypatch)
        with warned() as told, PhotonWriter(url, calibration=NOISE) as writer:
            writer.extend(counts[: STRIDE * 2])
            wait_until_stored(writer, 0)
            proxy.faults.append(Fault("error", "PUT", code="AccessDenied"))
            writer.extend(counts[STRIDE * 2 :])
            while not writer.status.trouble:
                time.sleep(0.01)
            proxy.faults[:] = [Fault("error", "POST .*delete|DELETE", code="AccessDenied")]
        assert any("does not accept frames" in text for text in told)
        assert any("could not be removed, and do no harm: acquisition.json" in text for text in told)
        movie = open_movie(url)
        assert_within_bound(movie[:], counts)
        assert recover_movie(url) == movie
        proxy.faults.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_what_the_guide_says(tmp_path: Path) -> None:
    """Invariant 7: the backlog and about 230 MiB, here of blocks of 64 MiB that the camera fills as fast as it can."""
    script = """
import sys
import numpy as np
from dj_photon_codecs import Calibration, PhotonWriter

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

frames = np.random.default_rng(0).poisson(9, (4, 512, 512)).astype(np.uint16)
noise = Calibration.given(1.0, 0.0)
with PhotonWriter(sys.argv[1] + "/warm", calibration=noise) as writer:
    writer.extend(frames)
before = peak()
with PhotonWriter(sys.argv[1] + "/m", calibration=noise, backlog_bytes=1) as writer:
    for index in range(600):
        writer.append(frames[index % 4])
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "acquisition.md").read_text(encoding="utf-8")
    [promised] = re.findall(r"The writer needs about (\d+) MiB besides", guide)
    # a backlog of less than a block is one block
    assert float(done.stdout) < int(promised) + 64


def without_frames(place: Path, first_frame: int) -> None:
    """Remove an object of frames, as a bad sector does."""
    (place / "acquired" / f"{first_frame:012d}.frames").unlink()


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize("profile", ["standard", "lossless"])
def test_a_frame_lost_inside_a_chunk_is_no_count(tmp_path: Path, planned: bool, profile: str) -> None:
    """Invariant 5: reading it raises, also in a copy; what shares its chunk is read."""
    start = STRIDE
    counts = camera(start + 11)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE if planned else None, profile=profile, flush_seconds=None)
    writer.extend(counts[:start])
    for first, stop in ((start, start + 3), (start + 3, start + 5), (start + 5, start + 11)):
        writer.extend(counts[first:stop], numbers=range(first, stop))
        writer.flush()
    end_writer(writer, tmp_path / "m")
    without_frames(tmp_path / "m", start + 3)
    lost = np.isin(np.arange(len(counts)), (start + 3, start + 4))
    words = f"frames {start + 3} to {start + 4}"
    assert plan_recovery(tmp_path / "m").lost == ((start + 3, start + 5),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosslessWarning)
        with pytest.warns(LostFramesWarning, match=rf"^2 frames .*are lost, in whole or in part: {words}\."):
            recovered = recover_movie(tmp_path / "m")
    copied = write_movie(tmp_path / "copy", recovered, step=recovered.step, profile=recovered.profile)
    for movie in (recovered, open_movie(tmp_path / "m"), copied, open_movie(tmp_path / "copy")):
        intact = movie.read_intact()
        assert (np.ma.getmaskarray(intact) == lost[:, None, None]).all()
        assert_within_bound(np.asarray(intact[~lost]), counts[~lost], *noise_of(movie))
        assert (np.ma.getmaskarray(movie.read_intact((slice(None, None, -1), 5))) == lost[::-1, None]).all()
        for selection in (start + 3, slice(start + 2, start + 4), ..., (start + 4, 3, 3), [start + 4, 0]):
            with pytest.raises(MissingChunkError, match=f"{words} of the movie"):
                movie[selection]
        for read in (lambda m=movie: m.mean(axis=0), lambda m=movie: list(m.frames()), lambda m=movie: m.oindex[:, 3]):
            with pytest.raises(MissingChunkError, match=words):
                read()
        for frame in np.flatnonzero(~lost):
            np.testing.assert_array_equal(movie[int(frame)], intact[frame])
        report = movie.verify(progress=False)
        assert report.frames == ((start + 3, start + 5),)
        assert f"frame {start + 3} of chunk" in str(report)
        data = read_frame_data(movie)
        assert not data.blank.any()
        assert data.number[~lost].tolist()[start:] == [start, start + 1, start + 2, *range(start + 5, start + 11)]
    with pytest.raises(MissingChunkError, match=words):  # which reads it, and writes no zeros in its place
        write_movie(tmp_path / "anew", recovered, compressors=BloscCodec())
    assert not (tmp_path / "anew").exists()


def noise_of(movie: PhotonArray) -> tuple[float, float]:
    """Gain and zero level, of an unknown noise any."""
    known = movie.calibration.verdict != "unknown"
    return (movie.calibration.conversion_gain, movie.calibration.zero_level) if known else (1.0, 0.0)


def test_objects_of_frames_that_do_not_help_a_damaged_block_stay(tmp_path: Path) -> None:
    """Nothing good is removed: frames that are split into chunks of their own are put together from both."""
    counts = camera(STRIDE + 8, shape=(2, 64, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "remove_each", lambda target, keys: keys)
        patch.setattr(storing, "remove_each", lambda target, keys: keys)
        writer = PhotonWriter(tmp_path / "m", calibration=NOISE, profile="lossless", flush_seconds=None)
        writer.extend(counts[:3])
        writer.flush()
        writer.extend(counts[3:])
        writer.flush()
        end_writer(writer, tmp_path / "m")
    shard = tmp_path / "m" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[Head.of(bytes(content), "it").size + 100] ^= 1  # the first chunk: some frames of the first plane
    shard.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostFramesWarning)
        recovered = recover_movie(tmp_path / "m")
    intact = recovered.read_intact()
    mask = np.ma.getmaskarray(intact)
    np.testing.assert_array_equal(np.asarray(intact)[~mask], counts[~mask])
    assert not mask[:3].any()  # out of the objects of frames
    assert not mask[recovered.chunks[0] :].any()


def test_recovery_knows_the_compressors_that_were_given(tmp_path: Path) -> None:
    """Before the noise was known, from any object of frames."""
    counts = camera(9)
    fast = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=2)
    writer = PhotonWriter(tmp_path / "m", profile="lossless", compressors=fast)
    writer.extend(counts)
    writer.flush()
    end_writer(writer, tmp_path / "m")
    (tmp_path / "m" / "acquisition.json").unlink()
    recovered = recover_movie(tmp_path / "m")
    np.testing.assert_array_equal(recovered[:], counts)
    assert '"lz4"' in json.dumps(recovered.documents)


def test_recovery_tells_seconds_by_the_clock_of_the_writer(tmp_path: Path) -> None:
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE, flush_seconds=None)
    began = time.monotonic()
    for frame in camera(6):
        writer.append(frame)
        time.sleep(0.05)
    took = time.monotonic() - began
    writer.flush()
    end_writer(writer, tmp_path / "m")
    plan = plan_recovery(tmp_path / "m")
    assert plan.seconds is not None
    assert 0.25 <= plan.seconds <= took
    assert f"6 frames ({6 / (5 / plan.seconds):.1f} s)" in str(plan)


@pytest.mark.parametrize("profile", ["standard", "dense"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_known_of_frames_travels_with_a_copy(tmp_path: Path, profile: str, zarr_format: Any) -> None:
    counts = camera(STRIDE * 2 + 5)
    with PhotonWriter(
        tmp_path / "m", calibration=NOISE, attributes={"exposure": 0.03}, zarr_format=zarr_format
    ) as writer:
        writer.extend(counts, numbers=range(7, 7 + len(counts)), times=np.arange(len(counts)) / 30)
        writer.arrays["stage"] = np.arange(len(counts))
    copy = write_movie(tmp_path / "copy", open_movie(tmp_path / "m"), profile=profile)
    again = write_movie(tmp_path / "again", copy, profile=profile)
    for movie in (copy, again, open_movie(tmp_path / "again")):
        np.testing.assert_array_equal(movie[:], writer.movie[:])
        data = read_frame_data(movie)
        assert data.number.tolist() == list(range(7, 7 + len(counts)))
        np.testing.assert_array_equal(data.time, np.arange(len(counts)) / 30)
        np.testing.assert_array_equal(data.arrays["stage"], np.arange(len(counts)))
        assert movie.attrs["exposure"] == 0.03
        assert movie.verify(progress=False)


def test_a_place_of_an_acquisition_is_known_to_the_command_line(tmp_path: Path) -> None:
    """As unfinished, with or without its journal; and a finished movie with frame data can be replaced."""
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(camera(9), numbers=range(9))
    writer.flush()
    end_writer(writer, tmp_path / "m")
    assert Place(str(tmp_path / "m")).state() is State.UNFINISHED
    (tmp_path / "m" / "acquisition.json").unlink()
    assert Place(str(tmp_path / "m")).state() is State.UNFINISHED
    recover_movie(tmp_path / "m")
    assert (tmp_path / "m" / "frames.npz").exists()
    movie = Place(str(tmp_path / "m")).replace(lambda path: write_movie(path, camera(5), calibration=NOISE))
    assert len(movie) == 5
    assert not (tmp_path / "m" / "frames.npz").exists()


RECOVER = """
import sys
from dj_photon_codecs import recover_movie
from dj_photon_codecs.storage import layout
layout.CHUNK_PIXELS, layout.SHARD_BYTES = 4 * 64 * 64, 16 * 64 * 64 * 2
print("ready", flush=True)
sys.stdin.readline()
try:
    print(len(recover_movie(sys.argv[1])))
except Exception as error:
    print(error)
"""


def test_two_processes_that_recover_at_once_make_one_movie(tmp_path: Path) -> None:
    counts = camera(STRIDE * 5 + 9)
    for turn in range(int(os.environ.get("PHOTON_RECOVERIES", "3"))):
        place = tmp_path / f"{turn}"
        writer = PhotonWriter(place, calibration=NOISE)
        writer.extend(counts)
        writer.flush()
        end_writer(writer, place)
        command = [sys.executable, "-c", RECOVER, str(place)]
        pipe = subprocess.PIPE
        both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        said = []
        for process in both:  # both wait for this line
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in both:
            said.append(process.communicate(timeout=120)[0].strip())
        assert f"{len(counts)}" in said, said
        assert all(text == f"{len(counts)}" or "being" in text for text in said), said
        movie = open_movie(place)
        assert_within_bound(movie[:], counts)
        assert movie.verify(progress=False)


def test_a_movie_that_another_process_finishes_while_it_is_looked_at_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for its metadata and looking for its remains: as two processes did, one time in twenty."""
    counts = camera(STRIDE + 9)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts)
    writer.flush()
    end_writer(writer, tmp_path / "m")

    def overtaken(location: Any) -> PhotonArray:
        try:
            return open_movie(location)
        except FormatError:
            monkeypatch.undo()
            recover_movie(location)
            raise

    monkeypatch.setattr(recovery, "open_movie", overtaken)
    assert_within_bound(recover_movie(tmp_path / "m")[:], counts)


@pytest.mark.parametrize("minutes", [9, 11])
def test_a_claim_of_another_machine_is_taken_over_after_ten_minutes_without_a_beat(
    tmp_path: Path, minutes: int
) -> None:
    counts = camera(STRIDE + 3)
    writer = PhotonWriter(tmp_path / "m", calibration=NOISE)
    writer.extend(counts)
    writer.flush()
    end_writer(writer, tmp_path / "m")
    beat = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")
    elsewhere = replace(Claim.ours(), machine="another one", beat=beat)
    (tmp_path / "m" / "writing.json").write_bytes(elsewhere.to_bytes())
    if minutes < 10:
        with pytest.raises(FormatError, match="is being acquired by process .* on another"):
            recover_movie(tmp_path / "m")
        with pytest.raises(OccupiedError, match="is being written to"):
            PhotonWriter(tmp_path / "m")
        assert (tmp_path / "m" / "writing.json").read_bytes() == elsewhere.to_bytes()
    else:
        assert_within_bound(recover_movie(tmp_path / "m")[:], counts)
        assert not (tmp_path / "m" / "writing.json").exists()
