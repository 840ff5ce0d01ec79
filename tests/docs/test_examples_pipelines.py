"""The longer examples run as a user runs them, show what their pages say, and recover the truth."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("calcium_imaging", "distributed", "elements", "low_light", "without_datajoint")

#: Lines whose numbers differ from run to run: who made what, and how fast.
_CHANGING = ("worker ", "measured ", "100 TB ")

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@functools.cache
def printed(name: str) -> tuple[str, dict[str, bytes]]:
    """What the example prints, and the pictures that it draws; it runs once."""
    with tempfile.TemporaryDirectory() as folder:
        output = [] if name == "without_datajoint" else ["--output", folder]
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *output]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJ_", "PYTHON"))}
        run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=500)
        assert run.returncode == 0, run.stderr
        return run.stdout, {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def numbers(name: str, line: str) -> list[list[float]]:
    """The numbers of each line of an example's output that begins so."""
    lines = [found.strip() for found in printed(name)[0].splitlines() if found.strip().startswith(line)]
    return [[float(number) for number in _NUMBER.findall(found)] for found in lines]


@pytest.mark.parametrize("name", NAMES)
def test_page_shows_what_the_example_prints(name: str) -> None:
    """The output on the page has the example's words, and its numbers to a tenth; else run docs/examples/.update.py."""
    shown = (ROOT / "docs" / "examples" / "output" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    now = printed(name)[0].splitlines()
    words = [[_NUMBER.sub("#", " ".join(line.split())) for line in text] for text in (shown, now)]
    assert words[0] == words[1]
    for before, after in zip(shown, now, strict=True):
        if not before.startswith(_CHANGING) and " cores " not in before:
            old, new = ([float(number) for number in _NUMBER.findall(line)] for line in (before, after))
            assert new == pytest.approx(old, rel=0.1, abs=2), after


@pytest.mark.parametrize("name", NAMES)
def test_example_stands_on_its_page(name: str) -> None:
    """Each example has a page in the documentation, which includes its output."""
    page = (ROOT / "docs" / "examples" / f"{name.replace('_', '-')}.md").read_text(encoding="utf-8")
    assert f'--8<-- "docs/examples/output/{name}.txt"' in page


def test_calcium_imaging_finds_the_cells() -> None:
    """At least four true cells of five are found, and as many in the stored movie as in the raw one."""
    true = [line[1] for line in numbers("calcium_imaging", "session")]
    found = numbers("calcium_imaging", "found")
    assert len(true) == len(found) == 2
    for cells, (raw, stored) in zip(true, found, strict=True):
        assert raw >= 0.8 * cells >= 10
        assert abs(stored - raw) <= 1


def test_calcium_imaging_keeps_traces_and_motion() -> None:
    """Traces follow the truth and shifts come within a tenth of a pixel, with the stored movie as with the raw one."""
    for raw, stored in numbers("calcium_imaging", "trace correlation"):
        assert min(raw, stored) > 0.98
        assert abs(raw - stored) < 0.002
    for raw, stored in numbers("calcium_imaging", "shift error"):
        assert max(raw, stored) < 0.1
        assert abs(raw - stored) < 0.01


def test_calcium_imaging_moves_a_movie_between_tiers() -> None:
    """The archived movie leaves the active store, and its counts are the same."""
    assert "freed, same counts: True" in printed("calcium_imaging")[0]


def test_calcium_imaging_makes_everything_without_errors() -> None:
    """Two processes with job reservation make each row once."""
    made = [line for line in printed("calcium_imaging")[0].splitlines() if " made, " in line]
    assert [line.split()[1:] for line in made] == [[n, "made,", "0", "errors"] for n in "14444"]


def test_low_light_recovers_the_diffusion_coefficient() -> None:
    """D comes out within a tenth of what was simulated, from both movies."""
    ((true, _),) = numbers("low_light", "true D")
    measured = numbers("low_light", "D  ")
    assert len(measured) == 2
    for diffusion, *_ in measured:
        assert diffusion == pytest.approx(true, rel=0.1)


def test_low_light_localises_below_a_pixel() -> None:
    """Positions are off by less than a tenth of a pixel of 107 nm, with the stored movie as with the raw one."""
    true_errors = [line[0] for line in numbers("low_light", "") if len(line) == 1 and 0 < line[0] < 50]
    assert len(true_errors) >= 2
    assert all(error <= 11 for error in true_errors)


def test_workers_share_the_jobs_and_make_each_once() -> None:
    """Two processes that know nothing of each other make all rows, and none twice."""
    made = [line for line in numbers("distributed", "worker ") if line]
    (rows,) = numbers("distributed", "rows ")
    (errors,) = numbers("distributed", "errors ")
    assert rows == [2, 2, 2, 2]
    assert [sum(parts) for parts in zip(*(line[1:] for line in made), strict=True)] == rows
    assert errors == [0, 0, 0, 0]


def test_cluster_reads_what_this_process_reads() -> None:
    """A dask.distributed cluster computes the same mean image."""
    assert "as in this process: True" in printed("distributed")[0]


def test_zarr_dask_and_xarray_give_the_same_counts() -> None:
    """One array, opened in three ways, is the same."""
    assert "all three give the same counts: True" in printed("without_datajoint")[0]


@pytest.mark.parametrize("name", ["calcium_imaging", "low_light"])
def test_example_draws_its_picture(name: str) -> None:
    """The picture is there."""
    assert printed(name)[1][f"{name}.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_missing_package_is_named_with_the_extra(name: str) -> None:
    """Without its packages an example says which one is missing, and which extra brings it."""
    blocked = "import sys; sys.modules['dask'] = None; sys.argv = [sys.argv[1]]; import runpy; "
    blocked += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = str(ROOT / "examples" / f"{name}.py")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r}); {blocked}", script]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert run.returncode == 1
    assert re.search(r'dask[.\w]*, which is not installed: pip install "dj-photon-codecs\[examples\]"', run.stderr)
