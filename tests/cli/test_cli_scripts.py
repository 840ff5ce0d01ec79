# ruff: noqa: F811  # fixtures are imported, and arguments of tests
"""The command line in scripts: exit codes, many movies, reruns, and streams that are closed, full or broken."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import dj_photon_codecs
from dj_photon_codecs import open_movie, write_movie
from dj_photon_codecs.cli import compare as compare_module
from dj_photon_codecs.cli.output import Output
from dj_photon_codecs.storage.claim import CLAIM, Claim
from services import Pipeline, S3Server
from test_cli import Shell, configure_s3, counts, flat, scan, shell, stored  # noqa: F401  # fixtures


def contents(folder: str) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def damage(movie: str) -> None:
    """Flip a bit of a chunk."""
    [chunk] = [path for path in Path(movie, "c").rglob("*") if path.is_file()]
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)


# What is at the destination


@pytest.mark.parametrize("kind", ["movie", "unfinished", "remains", "other", "file"])
def test_a_destination_that_is_taken_is_told_before_the_noise_is_measured(
    shell: Shell,
    scan: str,
    stored: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(stored, "taken")
    if kind == "unfinished":
        Path("taken/zarr.json").rename("taken/acquisition.json")
    elif kind == "remains":
        Path("taken/zarr.json").unlink()
    elif kind == "other":
        shutil.rmtree("taken")
        zarr.create_group("taken")
    elif kind == "file":
        shutil.rmtree("taken")
        Path("taken").touch()
    before = contents(".")
    monkeypatch.setattr(dj_photon_codecs, "write_movie", lambda *_, **__: pytest.fail("not to be called"))
    run = shell("write", scan, "taken")
    assert (run.code, run.out) == (3, "")
    assert run.err.startswith("error: ")
    assert "taken is not empty" in run.err
    assert ("--force" in run.err) == (kind in ("movie", "unfinished", "remains"))
    assert contents(".") == before


def test_skip_existing_leaves_the_movie_and_says_so(shell: Shell, scan: str) -> None:
    assert shell("write", scan, "new.zarr", "--skip-existing", "--json").json["skipped"] is False
    before = contents("new.zarr")
    run = shell("write", scan, "new.zarr", "--skip-existing")
    assert (run.code, run.err) == (0, "")
    assert "it was there already" in run.out
    assert shell("write", scan, "new.zarr", "--skip-existing", "--json").json["skipped"] is True
    assert contents("new.zarr") == before


def test_skip_existing_takes_neither_another_movie_nor_a_part_of_one(
    shell: Shell,
    scan: str,
    flat: str,
    stored: str,
) -> None:
    another = shell("write", flat, stored, "--skip-existing")
    assert another.code == 3
    assert "holds another movie" in another.err
    Path(stored, "zarr.json").unlink()
    assert shell("write", scan, stored, "--skip-existing").code == 3


def test_force_replaces_a_movie(shell: Shell, scan: str, flat: str) -> None:
    assert shell("write", flat, "new.zarr").code == 0
    run = shell("write", scan, "new.zarr", "--force")
    assert (run.code, run.err) == (0, "")
    movie = open_movie("new.zarr")
    assert movie.shape == (40, 64, 64)
    assert movie.verify()
    assert sorted(path.name for path in Path().iterdir()) == ["flat.npy", "new.zarr", "scan.npy"]


def test_force_keeps_the_movie_when_the_new_one_fails(
    shell: Shell,
    scan: str,
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(".")
    assert shell("write", scan, stored, "--force", "--step", "9").code == 2
    assert shell("write", "nowhere.npy", stored, "--force").code == 2
    monkeypatch.setattr("dj_photon_codecs.PhotonArray.verify", lambda *_, **__: False)
    run = shell("write", scan, stored, "--force")
    assert run.code == 4
    assert "the old one was kept" in run.err
    assert contents(".") == before


def test_force_removes_nothing_but_a_movie(shell: Shell, scan: str, stored: str) -> None:
    Path(stored, "notes.txt").write_text("mine")
    before = contents(".")
    run = shell("write", scan, stored, "--force")
    assert run.code == 3
    assert "notes.txt" in run.err
    assert contents(".") == before


def test_export_onto_a_file_is_code_3(shell: Shell, stored: str) -> None:
    Path("old.npy").touch()
    run = shell("export", stored, "old.npy")
    assert (run.code, run.out) == (3, "")
    assert "old.npy exists" in run.err


# Many movies


def test_verify_goes_on_after_a_damaged_movie_and_sums_up(
    shell: Shell,
    stored: str,
    counts: Any,
) -> None:
    for name in ("bad", "lost", "alien", "unfinished"):
        shutil.copytree(stored, name)
    damage("bad")
    Path("lost/zarr.json").unlink()
    Path("alien/zarr.json").write_text("{")
    Path("unfinished/zarr.json").rename("unfinished/acquisition.json")
    paths = ["bad", "lost", "alien", "unfinished", "nowhere", stored]
    for jobs in ("1", "3"):
        run = shell("verify", "--jobs", jobs, *paths)
        assert (run.code, run.err) == (1, "")
        lines = [line for line in run.out.splitlines() if not line.startswith(" ")]
        assert [line.split(":")[0] for line in lines[:-1]] == paths
        assert lines[-1] == "6 movies: 1 intact, 1 not a movie, 4 damaged"
        assert "frames 0 to 39 cannot all be read" in run.out
    document = shell("verify", *paths, "--json").json
    assert document["ok"] is False
    assert document["counts"] == {"damaged": 4, "not a movie": 1, "intact": 1}
    assert [movie["path"] for movie in document["movies"]] == paths


@pytest.mark.parametrize(
    ("lost", "code", "message"),
    [
        ("zarr.json", 1, "the chunks of a movie without its metadata"),
        ("c", 1, "1 missing and 0 damaged"),
        ("", 2, "nothing is there"),
    ],
)
def test_verify_tells_half_a_movie_from_a_wrong_path(
    shell: Shell,
    stored: str,
    lost: str,
    code: int,
    message: str,
) -> None:
    path = Path(stored, lost)
    path.unlink() if path.is_file() else shutil.rmtree(path)
    Path(stored).with_name("another.zarr").mkdir()
    run = shell("verify", stored)
    assert run.code == code
    assert message in run.out


@pytest.mark.parametrize(
    ("path", "named", "problem"),
    [("disk/scan.zarr", "disk", "is empty"), ("gone/2026/scan.zarr", "gone", "does not exist")],
)
def test_verify_tells_a_disk_that_is_not_mounted(
    shell: Shell, tmp_path: Path, path: str, named: str, problem: str
) -> None:
    (tmp_path / "disk").mkdir()
    run = shell("verify", str(tmp_path / path))
    assert run.code == 4
    assert f"the folder {tmp_path / named} {problem}" in run.out
    assert "Is its disk mounted?" in run.out


@pytest.mark.parametrize("document", ["[]", "null", "{", '{"node_type": "group", "attributes": 1'])
def test_a_damaged_document_is_told_as_such(shell: Shell, scan: str, document: str) -> None:
    Path("scan.zarr").mkdir()
    Path("scan.zarr", "zarr.json").write_text(document)
    assert "'zarr.json'" in shell("info", "scan.zarr").err
    run = shell("verify", "scan.zarr")
    assert (run.code, "the metadata cannot be used" in run.out) == (1, True)
    assert "a movie is stored there" in shell("write", scan, "scan.zarr").err


def test_verify_of_a_file_and_of_a_group_is_a_usage_error(shell: Shell, scan: str) -> None:
    zarr.create_group("group.zarr")
    run = shell("verify", scan, "group.zarr")
    assert run.code == 2
    assert "scan.npy: not a movie: it is a file" in run.out
    assert "group.zarr: not a movie: it holds something other than a movie" in run.out


# Recovery, benchmark, export


def test_recover_finishes_a_movie(shell: Shell, counts: Any) -> None:
    script = """
import os, sys, numpy as np
from dj_photon_codecs import Calibration, PhotonWriter
counts = np.random.default_rng(0).poisson(150, (40, 256, 256)).astype("uint16")
writer = PhotonWriter("cut.zarr", calibration=Calibration.given(10, 100))
import time
for _ in range(27): writer.extend(counts)  # two full blocks and a part of a third
for _ in range(600):
    if all(os.path.exists(f"cut.zarr/c/{block}/0/0") for block in range(2)): os._exit(9)
    time.sleep(0.1)
"""
    subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert shell("verify", "cut.zarr").code == 1
    assert "dj-photon recover" in shell("verify", "cut.zarr").out
    plan = shell("recover", "cut.zarr", "--dry-run", "--json")
    assert shell("verify", "cut.zarr").code == 1
    run = shell("recover", "cut.zarr", "--json")
    assert run.code == 0
    assert run.json["movies"][0]["shape"][0] == plan.json["movies"][0]["n_frames"] > 0
    missing = shell("recover", "cut.zarr", "nowhere")
    assert (missing.code, missing.out) == (
        2,
        f"{Path('cut.zarr').absolute()}: {plan.json['movies'][0]['n_frames']} frames\n",
    )
    assert shell("verify", "cut.zarr").code == 0
    assert shell("recover", "cut.zarr").code == 0  # complete, and left as it is


def test_recover_of_nothing_is_a_usage_error(shell: Shell) -> None:
    Path("notes.txt").touch()  # the folder of a disk that is mounted is not empty
    run = shell("recover", "nowhere")
    assert run.code == 2
    assert "holds no unfinished movie: nothing is there" in run.err


def test_benchmark_of_a_stored_movie_takes_its_noise_model(
    shell: Shell,
    counts: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = write_movie("given.zarr", counts, calibration=dj_photon_codecs.Calibration.given(9.5, 98.0))
    seen: list[Any] = []

    def costs(*arguments: Any) -> dict[str, Any]:
        seen.append(arguments[-1])
        return {}

    monkeypatch.setattr(compare_module, "_costs", costs)
    assert shell("benchmark", "given.zarr").code == 0
    assert shell("benchmark", "given.zarr", "--gain", "9").code == 0
    assert seen[0] == stored.calibration
    assert seen[1].conversion_gain == 9


def test_a_warning_recommends_only_options_of_its_command(shell: Shell, flat: str) -> None:
    run = shell("benchmark", flat, "--frames", "3", "--repeat", "1")
    assert "(here: --gain, --zero-level)" in run.err
    assert {"--gain", "--zero-level"} <= set(shell("benchmark", "--help").out.split())


def test_export_of_frames_beyond_the_end_is_told(shell: Shell, stored: str) -> None:
    run = shell("export", stored, "part.npy", "--frames", "30:60")
    assert run.code == 0
    assert run.err == "warning: --frames 30:60: the movie has 40, and ends at 39\n"
    assert len(np.load("part.npy")) == 10


# Storage that cannot be reached


def test_a_missing_bucket_is_told_as_such(
    shell: Shell,
    scan: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_s3(monkeypatch, s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    url = "s3://no-such-bucket-here/scan.zarr"
    for arguments in (("info", url), ("write", scan, url), ("fidelity", scan, url), ("recover", url)):
        run = shell(*arguments)
        assert run.code == 4, arguments
        assert "bucket 'no-such-bucket-here'" in run.err
    run = shell("verify", url)
    assert run.code == 4
    assert "unreachable: nothing can be read at s3://no-such-bucket-here/scan.zarr: the bucket" in run.out


def test_without_access_keys_the_way_to_a_public_bucket_is_told(
    shell: Shell,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": s3_server.endpoint})
    url = f"s3://{s3_server.new_bucket()}/scan.zarr"
    run = shell("info", url)
    assert run.code == 4
    assert "FSSPEC_S3_ANON=true" in run.err
    assert run.err.count("\n") == 1


def test_force_and_recovery_work_in_a_bucket(
    shell: Shell,
    scan: str,
    flat: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_s3(monkeypatch, s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    url = f"s3://{s3_server.new_bucket()}/movies/scan.zarr"
    assert shell("write", flat, url).code == 0
    assert shell("write", scan, url).code == 3
    assert shell("write", scan, url, "--force").code == 0
    assert shell("info", url, "--json").json["shape"] == [40, 64, 64]
    assert shell("verify", url).code == 0
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    assert files.ls(root.rpartition("/")[0]) == [root]


# Writers that are at work, and those that were ended


def claimed(folder: str, claim: Claim) -> None:
    Path(folder).mkdir(exist_ok=True)
    Path(folder, CLAIM).write_bytes(claim.to_bytes())


def ended_writer() -> Claim:
    """The claim of a process that runs no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Claim.ours(), pid=process.pid)


@pytest.mark.parametrize("left", ["nothing", "chunks", "a journal"])
@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_is_being_written_to_is_code_3(
    shell: Shell, scan: str, stored: str, left: str, force: bool
) -> None:
    if left != "nothing":
        shutil.copytree(stored, "new")
        Path("new/zarr.json").rename("new/acquisition.json" if left == "a journal" else "new/gone")
        Path("new/gone").unlink(missing_ok=True)
    claimed("new", Claim.ours())
    before = contents("new")
    run = shell("write", scan, "new", *(["--force"] if force else []))
    assert run.code == 3
    assert "a movie is being written there" in run.err
    assert contents("new") == before
    assert shell("verify", "new").code == 1


def test_what_an_ended_writer_left_goes_with_the_next_write(shell: Shell, scan: str, stored: str) -> None:
    shutil.copytree(stored, "new")
    Path("new/zarr.json").unlink()
    claimed("new", ended_writer())
    assert shell("verify", "new").code == 1
    assert shell("write", scan, "new").code == 0
    assert shell("verify", "new").code == 0
    assert not Path("new", CLAIM).exists()


def test_force_replaces_a_movie_whose_writer_could_not_give_up_its_claim(shell: Shell, scan: str, stored: str) -> None:
    claimed(stored, ended_writer())
    assert shell("write", scan, stored, "--force").code == 0
    assert open_movie(stored).verify()


def test_a_writer_that_comes_between_is_code_3(
    shell: Shell, scan: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was there when this command looked."""
    write = dj_photon_codecs.write_movie

    def late(path: str, *args: Any, **options: Any) -> Any:
        shutil.copytree(stored, path)
        return write(path, *args, **options)

    monkeypatch.setattr(dj_photon_codecs, "write_movie", late)
    run = shell("write", scan, "new.zarr")
    assert run.code == 3
    assert "is not empty" in run.err
    assert open_movie("new.zarr").verify()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot be asked for ended processes")
def test_what_an_ended_export_left_goes_with_the_next(shell: Shell, stored: str) -> None:
    host = re.sub(r"\W", "-", socket.gethostname())
    left = Path(f".scan.npy.{host}.{ended_writer().pid}.partial")
    others = [Path(f".scan.npy.{host}.{os.getppid()}.partial"), Path(".scan.npy.elsewhere.7.partial")]
    for path in (left, *others):
        path.touch()
    assert shell("export", stored, "scan.npy").code == 0
    assert [path.exists() for path in (left, *others)] == [False, True, True]
    assert len(list(Path().glob(".scan.npy*"))) == 2


# Audit


def test_audit_compares_a_store_with_its_rows(
    shell: Shell,
    local_pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    counts: Any,
) -> None:
    import datajoint as dj

    @local_pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int
        ---
        movie : <photon@imaging>
        """

    Recording.insert1({"recording": 1, "movie": counts})
    monkeypatch.setattr(dj, "conn", lambda: local_pipeline.instance.connection)
    name = local_pipeline.schema.database
    run = shell("audit", name)
    assert (run.code, run.err) == (0, "")
    assert "1 referenced, 0 orphaned" in run.out
    for jobs in ("1", "4"):
        run = shell("audit", name, "--store", "imaging", "--verify", "--jobs", jobs, "--json")
        assert (run.json["ok"], len(run.json["referenced"])) == (True, 1)
    Recording().delete_quick()
    run = shell("audit", name, "--json")
    assert run.code == 1
    assert len(run.json["orphaned"]) == 1
    unknown = shell("audit", "no_such_schema_here")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)


def test_audit_without_a_database_is_code_4(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    import datajoint as dj

    def refused() -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(dj, "conn", refused)
    run = shell("audit", "lab")
    assert (run.code, run.err) == (4, "error: the database cannot be reached: refused\n")


# Standard streams


def run_in_bash(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``dj-photon`` is this package's."""
    command = f'dj-photon() {{ "{sys.executable}" -m dj_photon_codecs "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")
@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("dj-photon write scan.npy new.zarr >&-", 0, ""),
        ("dj-photon write scan.npy new.zarr 2>&-", 0, ""),
        ("dj-photon write nowhere.npy new.zarr >&- 2>&-", 2, ""),
        ("dj-photon info scan.npy >&-", 0, ""),
        ("dj-photon info scan.npy | head -1", 0, ""),
        ("dj-photon completion fish | head -1", 0, ""),
        ("dj-photon --help | head -1", 0, ""),
        ("dj-photon completion fish | true", 0, ""),
    ],
)
def test_a_closed_or_broken_output_is_quiet(tmp_path: Path, scan: str, line: str, code: int, err: str) -> None:
    done = run_in_bash(line, tmp_path)
    assert (done.returncode, done.stderr) == (code, err)
    if "write scan.npy" in line:
        assert open_movie(tmp_path / "new.zarr").shape == (40, 64, 64)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_output_is_told_and_a_movie_is_stored_all_the_same(tmp_path: Path, scan: str) -> None:
    done = run_in_bash("dj-photon write scan.npy new.zarr > /dev/full", tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        "warning: the output could not be written: No space left on device; write succeeded anyway\n"
    )
    assert open_movie(tmp_path / "new.zarr").verify()
    done = run_in_bash("dj-photon info scan.npy > /dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (4, "error: the output could not be written: No space left on device\n")


def test_output_prints_nothing_after_a_failure() -> None:
    class Failing:
        calls = 0

        def write(self, text: str) -> None:
            self.calls += 1
            raise OSError(errno.ENOSPC, "full")

        def fileno(self) -> int:
            raise OSError

    stream = Failing()
    output = Output(stream)
    assert [output.write("a"), output.write("bc")] == [1, 2]
    assert stream.calls == 1
    assert output.error is not None
