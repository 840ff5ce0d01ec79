"""Machine code of the compiled loops on disk: each process finds its own, or compiles anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs.entropy.coder import encode

DTYPES = "u1", "u2", "u4", "i1", "i2", "i4"

LOOK_UP = """
import sys, time
import numpy as np
from dj_photon_codecs.anscombe.kernels import look_up

time.sleep(max(0, float(sys.argv[1]) - time.time()))
for bits in sys.argv[2:]:
    last = -1 if bits.startswith("i") else 3
    out = np.zeros(4, "u2")
    look_up(np.arange(64, dtype="u2"), np.ones(4, np.intp), np.array([0, 1, 2, last]).astype(bits), out)
    assert out.tolist() == [1, 2, 3, last + 1], (bits, out)
stats = look_up.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts a process which looks values up, with a cache of machine code of its own."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start(*dtypes: str, at: float = 0, before: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", before + LOOK_UP, str(at), *dtypes]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def hits_and_misses(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.strip()


def test_processes_that_compile_for_different_dtypes_at_once_keep_them_apart(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    """With the index of numba, one of the next process's loops read its array as another dtype, 3 times of 5."""
    at = time.time() + 5
    for process in [start(bits, at=at) for bits in DTYPES]:
        assert hits_and_misses(process) == "0 1"
    assert hits_and_misses(start(*DTYPES)) == "6 0"


@pytest.mark.parametrize("damage", ["of another dtype", "cut off", "empty", "not a pickle"])
def test_a_file_that_does_not_hold_what_its_name_says_is_compiled_anew(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, damage: str
) -> None:
    assert hits_and_misses(start("i2")) == "0 1"
    [kept] = tmp_path.rglob("*.nbc")
    content = kept.read_bytes()
    if damage == "of another dtype":
        assert hits_and_misses(start("u1")) == "0 1"
        [other] = set(tmp_path.rglob("*.nbc")) - {kept}
        kept.write_bytes(other.read_bytes())
    else:
        kept.write_bytes({"cut off": content[:-100], "empty": b"", "not a pickle": b"x" * len(content)}[damage])
    assert hits_and_misses(start("i2")) == "0 1"
    assert hits_and_misses(start("i2")) == "1 0"
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes on POSIX")
def test_a_full_disk_does_not_stop_a_loop(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    assert hits_and_misses(start("i2", before=full)) == "0 1"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new Python process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "DJ_IGNORE_CONFIG_FILE": "true", **environment},
    )


def save_payload(folder: Path) -> None:
    """Save codes and what the entropy coder makes of them."""
    codes = np.random.default_rng(0).poisson(20, (4, 16, 16)).astype(np.uint8)
    np.save(folder / "codes.npy", codes)
    (folder / "payload").write_bytes(encode(codes))


def test_numba_is_imported_when_the_first_chunk_is_coded(tmp_path: Path) -> None:
    done = run(
        f"""
import sys
import numpy as np
import dj_photon_codecs
from dj_photon_codecs import Calibration, open_movie, write_movie
counts = np.random.default_rng(0).poisson(30, (20, 32, 32)).astype(np.uint16)
sensor = Calibration.given(1.0, 0.0)
write_movie({str(tmp_path / "standard")!r}, counts, calibration=sensor)[3]
dj_photon_codecs.RansCodec
assert "numba" not in sys.modules
write_movie({str(tmp_path / "dense")!r}, counts, calibration=sensor, profile="dense")
assert "numba" in sys.modules
handle = open_movie({str(tmp_path / "dense")!r})
print(handle.profile)
"""
    )
    assert done.stdout == "dense\n", done.stderr


def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Four processes, one empty cache: all decode, and a fifth finds what they left and compiles nothing."""
    save_payload(tmp_path)
    script = f"""
import pathlib
import numpy as np
from dj_photon_codecs.entropy.coder import decode
codes = np.load({str(tmp_path / "codes.npy")!r})
payload = pathlib.Path({str(tmp_path / "payload")!r}).read_bytes()
np.testing.assert_array_equal(decode(payload, codes.shape, codes.dtype), codes)
from dj_photon_codecs.entropy import decoder
stats = decoder.decode_chunk.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    running = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert output.split() in (["0", "1"], ["1", "0"])
    assert run(script, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stdout == "1 0\n"


def test_it_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """No place for a cache: every process compiles anew, and says nothing."""
    obstacle = tmp_path / "file"
    obstacle.touch()
    script = """
import numba.core.caching as caching
class Nowhere:
    @classmethod
    def from_function(cls, function, path):
        return None
for implementation in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    implementation._locator_classes = [Nowhere]
import numpy as np
from dj_photon_codecs.entropy.coder import decode, encode
codes = np.random.default_rng(0).poisson(9, (8, 16, 16)).astype(np.uint8)
np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)
print("coded")
"""
    done = run(script)
    assert done.stdout == "coded\n", done.stderr


#: Codes a chunk where numba finds no place of its own to write to, and says so and what came from the cache.
READ_ONLY = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
logging.getLogger("numba").setLevel(logging.WARNING)
import numba.core.caching as caching
for implementation in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    implementation._locator_classes = [one for one in implementation._locator_classes if "UserProvided" in one.__name__]
import numpy as np
from dj_photon_codecs.entropy.coder import decode
codes = np.load(sys.argv[1])
np.testing.assert_array_equal(decode(open(sys.argv[2], "rb").read(), codes.shape, codes.dtype), codes)
from dj_photon_codecs.entropy import decoder
stats = decoder.decode_chunk.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="rights of files on POSIX")
def test_where_home_is_read_only_machine_code_is_kept_in_a_private_folder(tmp_path: Path) -> None:
    """The first process says that it compiles, and where to; the second finds it. Nobody else's folder is trusted."""
    save_payload(tmp_path)
    arguments = str(tmp_path / "codes.npy"), str(tmp_path / "payload")
    environment = {"TMPDIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    told, counted = run(READ_ONLY, *arguments, **environment).stdout.splitlines()
    [folder] = tmp_path.glob("dj_photon_codecs-*")
    assert told.startswith("compiling loops for this machine")
    assert f"kept in {folder}" in told
    assert counted == "0 1"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run(READ_ONLY, *arguments, **environment).stdout == "1 0\n"
    folder.chmod(0o770)
    told, counted = run(READ_ONLY, *arguments, **environment).stdout.splitlines()
    assert "not kept" in told
    assert counted == "0 1"


def test_a_change_of_any_module_of_the_loops_compiles_them_anew(tmp_path: Path) -> None:
    """Numba looks at the module of the loop alone, and not at those that it calls."""
    from dj_photon_codecs._compiled import _stamp

    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(name)
    stamp = _stamp.__wrapped__
    before = stamp(tmp_path)
    (tmp_path / "two.py").write_text("2")
    assert stamp(tmp_path) != before
    from dj_photon_codecs.entropy import decoder, trial

    loops: list[Any] = [decoder.decode_chunk, trial.choose_model]
    for loop in loops:
        assert loop.py_func.__qualname__.endswith(stamp(Path(decoder.__file__).parent))
