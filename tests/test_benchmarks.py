"""Each benchmark runs, at sizes that measure nothing, and prints its tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(
    ("script", "options", "lines"),
    [
        pytest.param("speed_and_size", "--frames 32 --size 64 --repeat 1 --regimes 1,3", 5, id="speed_and_size"),
        pytest.param("memory", "--mapped-frames 40 --memory-frames 20 --size 128", 5, marks=linux, id="memory"),
        pytest.param("layout", "--frames 20 --size 64 --repeat 1", 14, id="layout"),
        pytest.param("compression", "--frames 16 --size 64", 29, id="compression"),
        pytest.param("dense", "--frames 16 --size 64 --repeat 1 --regimes 0,3", 18, id="dense"),
        pytest.param(
            "fidelity",
            "--frames 60 --size 64 --redraws 1 --gains 1 --recordings one_photon_miniscope --pictures {folder}",
            6 + 4 + 6 + 3 + 3,
            id="fidelity",
        ),
        pytest.param("rows", "--rows 3 --repeat 1", 4, id="rows"),
        pytest.param("figures", "--frames 40 --size 64 --draws 1000 --pictures {folder}", 0, id="figures"),
        pytest.param("startup", "--rows 3 --repeat 1", 6, id="startup"),
    ],
)
def test_the_benchmark_prints_its_tables(script: str, options: str, lines: int, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *options.format(folder=tmp_path).split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("|") and not line.startswith("|-")]
    # two more for each coder of the extra "benchmarks" that is installed
    # and as many again where there is a second database
    assert len(printed) == lines or (script in ("dense", "rows") and len(printed) > lines), done.stdout
