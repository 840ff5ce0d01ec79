"""A movie that is longer than memory is stored in the memory of a few shards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "endurance.py"

#: Decoded bytes of a shard [MB]: two of them are read and encoded at a time.
SHARD = 64


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_movie() -> None:
    """Invariant 7; the same script stores 50 GB by hand."""
    command = [sys.executable, str(SCRIPT), "--gigabytes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    peaks = [float(row[2]) for row in rows]
    assert len(peaks) == 10, done.stdout
    assert max(peaks) < 8 * SHARD, done.stdout
    assert max(peaks[5:]) - max(peaks[:5]) < SHARD, done.stdout
