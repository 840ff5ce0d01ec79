"""Machine code of the compiled loops on disk: each process finds its own, or compiles anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
