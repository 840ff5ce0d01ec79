"""The readers in other languages read what the package wrote: JavaScript in Node.js, and m-code in Octave."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.codecs import BloscCodec

from data.make_golden import GOLDEN, V1
from dj_photon_codecs import write_movie

READERS = Path(__file__).parents[2] / "readers"


def program(name: str, *others: str) -> str:
    """The first of these programs that is installed."""
    for candidate in (name, *others):
        found = shutil.which(candidate)
        if found is not None:
            return found
    pytest.skip(f"{name} is not installed")


def run(*command: str, **options: Any) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def node_tests(folder: Path, name: str) -> list[str]:
    """Run a file of tests in Node.js; its lines that count them."""
    environment = {**os.environ, "PHOTON_GOLDEN": str(GOLDEN)}
    printed = run(program("node"), "--test", "--test-reporter=tap", f"test/{name}", cwd=folder, env=environment)
    return [line for line in printed.splitlines() if line.startswith("# ")]


# JavaScript


def test_the_decoders_in_javascript_pass_their_own_tests() -> None:
    """They need no package, so they run wherever Node.js is."""
    counted = node_tests(READERS / "javascript", "decoders.test.js")
    assert {"# fail 0", "# skipped 0"} <= set(counted)


@pytest.mark.slow
def test_zarrita_reads_the_golden_movies(tmp_path: Path) -> None:
    """And raises for every kind of damage; zarrita is installed from npm into a folder that is removed."""
    npm = program("npm")
    folder = tmp_path / "javascript"
    shutil.copytree(READERS / "javascript", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--cache", str(tmp_path / "npm")]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm could not install zarrita: {done.stderr.strip()[-200:]}")
    counted = node_tests(folder, "zarrita.test.js")
    assert "# fail 0" in counted
    assert "# pass 0" not in counted


# MATLAB and Octave

#: Golden movies that the reader in m-code refuses, with the error that says so.
REFUSED = {
    **dict.fromkeys((name for name in V1 if name.startswith("v1_zarr2")), "fileread"),
    **dict.fromkeys((name for name in V1 if name.startswith("v1_dense")), "photon:codec"),
    "v1_legacy": "photon:codec",
}

#: Reads movies in one process: for each, the counts go into a file, or the error is printed.
SCRIPT = """
addpath('{reader}');
jobs = jsondecode(fileread('{jobs}'));
for i = 1:numel(jobs)
  try
    counts = read_photon_movie(jobs(i).folder, jobs(i).first, jobs(i).last);
    file = fopen(jobs(i).out, 'w');
    fwrite(file, permute(counts, [2 1 3:ndims(counts)]), class(counts));
    fclose(file);
    printf('%s\\n', class(counts));
  catch problem
    printf('%s %s\\n', problem.identifier, strrep(problem.message, "\\n", ' '));
  end
end
"""


def octave(jobs: list[dict[str, Any]], folder: Path) -> list[str]:
    """One line for each job: the class of its counts, or its error."""
    executable = program("octave-cli", "octave")
    program("zstd")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = folder / "script.m"
    script.write_text(SCRIPT.format(reader=READERS / "matlab", jobs=folder / "jobs.json"))
    lines = run(executable, "--norc", "--quiet", str(script)).splitlines()
    assert len(lines) == len(jobs), lines
    return lines


def job(folder: Path, out: Path, first: int = 1, last: int | None = None) -> dict[str, Any]:
    """All frames of a movie, or those from ``first`` to ``last``, counted from 1."""
    if last is None:
        last = json.loads((folder / "zarr.json").read_text())["shape"][0] if (folder / "zarr.json").exists() else 1
    return {"folder": str(folder), "out": str(out), "first": first, "last": last}


@pytest.mark.slow
def test_octave_reads_the_golden_movies(tmp_path: Path) -> None:
    """Exactly, in the data type of the movie; what it does not read it refuses by name."""
    names = sorted(V1)
    lines = octave([job(GOLDEN / name / "movie.zarr", tmp_path / name) for name in names], tmp_path)
    for name, line in zip(names, lines, strict=True):
        if name in REFUSED:
            assert REFUSED[name] in line, name
            continue
        expected = np.load(GOLDEN / name / "expected.npy")
        if expected.dtype == np.float16:
            expected = expected.astype(np.float32)  # Octave has no half precision
        assert line == {"float32": "single", "float64": "double"}.get(expected.dtype.name, expected.dtype.name), name
        found = np.fromfile(tmp_path / name, expected.dtype).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.slow
def test_octave_reads_frames_and_refuses_damage(tmp_path: Path) -> None:
    """Some frames of a movie of several shards; and each kind of damage is an error that says what is wrong."""
    golden = GOLDEN / "v1_shard_edges" / "movie.zarr"
    other = GOLDEN / "v1_uint16" / "movie.zarr"
    damaged = {}
    for name in ("bit", "index", "shard", "place", "checksum", "version", "lost"):
        damaged[name] = tmp_path / f"{name}.zarr"
        shutil.copytree(golden, damaged[name])
    alter(damaged["bit"] / "c/0/0/0", 20)
    alter(damaged["index"] / "c/0/0/0", -30)
    (damaged["shard"] / "c/0/0/0").unlink()
    edit(damaged["version"], format_version=2)
    edit(damaged["lost"], lost=[[1, 2]])
    recorded = bytearray(base64.b64decode(record(golden)["checksums"]))
    recorded[0] ^= 1
    edit(damaged["checksum"], checksums=base64.b64encode(recorded).decode())
    not_written(damaged["place"] / "c/0/0/0")
    jobs = [job(golden, tmp_path / "frames", 8, 10), job(golden, tmp_path / "none", 3, 12)]
    jobs += [job(folder, tmp_path / "out", 2, 2) for folder in damaged.values()]
    jobs += [job(damaged["shard"], tmp_path / "rest", 10, 11), job(other, tmp_path / "one", 8, 8)]
    frames, none, *errors, rest, one = octave(jobs, tmp_path)
    expected = np.load(GOLDEN / "v1_shard_edges" / "expected.npy")
    assert frames == rest == one == "uint16"
    np.testing.assert_array_equal(np.fromfile(tmp_path / "frames", np.uint16), expected[7:10].ravel())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "rest", np.uint16), expected[9:11].ravel())
    assert "photon:frames frames 3 to 12: the movie has the frames 1 to 11" in none
    assert [error.split()[0] for error in errors] == [
        *("photon:damaged", "photon:damaged", "photon:missing", "photon:missing"),
        *("photon:damaged", "photon:version", "photon:lost"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["bitshuffle", "shuffle", "noshuffle"])
def test_octave_reads_blosc_of_many_blocks(shuffle: Any, tmp_path: Path) -> None:
    """The golden movies of Blosc are so small that it stores them as they are."""
    counts = np.random.default_rng(0).poisson(20, size=(3, 60, 70)).astype(np.uint16)
    blosc = BloscCodec(typesize=2, cname="zstd", clevel=5, shuffle=shuffle, blocksize=4096)
    write_movie(tmp_path / "movie.zarr", counts, profile="lossless", compressors=[blosc])
    assert octave([job(tmp_path / "movie.zarr", tmp_path / "out")], tmp_path) == ["uint16"]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out", np.uint16), counts.ravel())


def alter(file: Path, place: int) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def not_written(file: Path) -> None:
    """The index says that the first of three chunks was not written; its checksum is right."""
    import google_crc32c

    content = bytearray(file.read_bytes())
    index = content[-52:-4]
    index[:16] = b"\xff" * 16
    file.write_bytes(content[:-52] + index + google_crc32c.value(bytes(index)).to_bytes(4, "little"))


def record(folder: Path) -> dict[str, Any]:
    """What the attributes say of a movie."""
    found: dict[str, Any] = json.loads((folder / "zarr.json").read_text())["attributes"]["dj_photon"]
    return found


def edit(folder: Path, **changes: Any) -> None:
    """Change the record."""
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"]["dj_photon"].update(changes)
    (folder / "zarr.json").write_text(json.dumps(document))
