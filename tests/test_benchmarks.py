"""Each benchmark runs, at sizes that measure nothing, and prints its tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

with_blosc2 = pytest.mark.skipif(find_spec("blosc2") is None, reason="blosc2 is in the benchmarks extra")
with_suite2p = pytest.mark.skipif(find_spec("suite2p") is None, reason="Suite2p brings torch, and is in no extra")
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(
    ("script", "options", "lines"),
    [
        pytest.param("memory", "--mapped-frames 40 --memory-frames 20 --size 128", 5, marks=linux, id="memory"),
        pytest.param("writing", "--frames 32 --size 64 --repeat 1 --threads 3", 4, marks=with_blosc2, id="writing"),
        pytest.param("acquire", "--frames 60 --size 64 --regimes 1", 3, id="acquire"),
        pytest.param("stages", "--frames 32 --size 64 --regimes 1", 5, id="stages"),
        pytest.param("layout", "--frames 20 --size 64 --repeat 1", 14, id="layout"),
        pytest.param("layout", "--keys 5", 3, id="keys"),
        pytest.param("volumes", "--volumes 12 --planes 3 --size 48 --repeat 1", 4, id="volumes"),
        pytest.param("compression", "--frames 16 --size 64", 29, id="compression"),
        pytest.param(
            "fidelity",
            "--frames 60 --size 64 --redraws 1 --gains 1 --recordings one_photon_miniscope --pictures {folder}",
            6 + 4 + 6 + 3 + 3,
            id="fidelity",
        ),
        pytest.param(
            "access",
            "--sizes 16,64 --megapixels 0.1 --profiles standard --repeat 1",
            2 * 14 * (1 + bool(find_spec("blosc2"))),
            id="access",
        ),
        pytest.param("rows", "--rows 3 --repeat 1", 4, id="rows"),
        pytest.param("figures", "--frames 40 --size 64 --draws 1000 --pictures {folder}", 0, id="figures"),
        pytest.param("startup", "--rows 3 --repeat 1", 6, id="startup"),
        pytest.param(
            "suite2p_cells", "--frames 300 --size 96 --seeds 1", 1 + 6, marks=with_suite2p, id="suite2p_cells"
        ),
    ],
)
def test_the_benchmark_prints_its_tables(script: str, options: str, lines: int, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *options.format(folder=tmp_path).split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("|") and not line.startswith("|-")]
    # as many again where there is a second database
    assert len(printed) == lines or (script == "rows" and len(printed) > lines), done.stdout


PAGES = ("README.md", "docs/explanation/performance.md", "docs/explanation/entropy-coder.md")

REGIONS = ("table", "folder", "cores", "s3", "growth", "coders", "scaling")


def compare(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the comparison on copies of the pages and results."""
    for name in PAGES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FOLDER.parent / name, root / name)
    shutil.copytree(FOLDER / "results", root / "benchmarks" / "results")
    command = [sys.executable, str(FOLDER / "comparison.py"), "--draw", "--root", str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a comparison of one profile and one peer at a size that measures nothing."""
    root = tmp_path_factory.mktemp("compared")
    small = "--frames 40 --coded-frames 16 --size 64 --regimes 1 --coded-regimes 1 --repeat 1 --gigabytes 0.001"
    compare(root, *small.split(), "--methods", "^standard|anscombe")
    return root


@linux
def test_the_comparison_measures_every_part(compared: Path) -> None:
    """Each part has a record of each method, with what was asked."""
    results = json.loads((compared / "benchmarks" / "results" / "comparison.json").read_text(encoding="utf-8"))
    assert {part: results[part]["frames"] for part in results} == dict.fromkeys(
        ("folder", "cores", "s3", "coders", "growth"), 40
    )
    for part in ("folder", "cores", "s3"):
        methods = {record["method"] for record in results[part]["records"]}
        assert methods == {"standard", "zarr, anscombe-transform 1.0.0"}, part


@linux
def test_the_comparison_stores_the_recording(compared: Path) -> None:
    """The recording comes first, is smaller than lossless, and within half a step of its measured noise."""
    results = json.loads((compared / "benchmarks" / "results" / "comparison.json").read_text(encoding="utf-8"))
    ours = results["folder"]["records"][0]
    assert ours["regime"] == "two-photon recording fmi_two_photon"
    assert ours["ratio"] > 2
    assert 0 < ours["worst error [sigma]"] < 0.3


@linux
def test_the_comparison_counts_wrong_counts(compared: Path) -> None:
    """At gain 1 anscombe-transform gives wrong counts back, and the profile none."""
    results = json.loads((compared / "benchmarks" / "results" / "comparison.json").read_text(encoding="utf-8"))
    ours, peer = (record for record in results["folder"]["records"] if "gain 1" in record["regime"])
    assert ours["wrong counts"] == 0
    assert ours["worst error [sigma]"] < 1
    assert peer["wrong counts"] > 0


@linux
def test_the_comparison_fills_the_pages(compared: Path) -> None:
    """Every region of the pages has the table of this run, and every picture is drawn."""
    text = "".join((compared / name).read_text(encoding="utf-8") for name in PAGES)
    for region in REGIONS:
        [shown] = re.findall(f"<!-- {region}:begin -->\n(.*?)<!-- {region}:end -->", text, re.DOTALL)
        assert "64 x 64" in shown or "5 photons, gain 1" in shown, region
    pictures = sorted(path.name for path in (compared / "docs" / "explanation" / "img").iterdir())
    assert pictures == ["comparison-growth.png", "comparison-object-store.png", "comparison-size-and-speed.png"]


def test_the_pages_show_the_results_that_are_kept(tmp_path: Path) -> None:
    """Written again from ``benchmarks/results``, the pages stay as they are."""
    compare(tmp_path, "--parts", "")
    for name in PAGES:
        assert (tmp_path / name).read_text(encoding="utf-8") == (FOLDER.parent / name).read_text(encoding="utf-8")
