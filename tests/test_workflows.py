"""The workflows, ``.ci/run`` and the README name the same commands, and the versions that pyproject.toml admits."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import SLOW

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
README_COMMANDS = ['pip install -e ".[demo]" && python examples/quickstart.py', 'pip install -e ".[dev]" && pytest']
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def workflow(name: str) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return document


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"].strip() for step in job.get("steps", []) if "run" in step]


def ci_script() -> str:
    return (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_command_of_the_readme_is_run_as_it_stands() -> None:
    jobs = workflow("tests.yml")["jobs"]
    assert commands(jobs["platforms"]) == README_COMMANDS
    assert README_COMMANDS[1] in commands(jobs["services"])
    demo, tests = (re.search(rf"^{name}='(.*)'$", ci_script(), re.MULTILINE) for name in ("demo", "tests"))
    assert demo is not None
    assert tests is not None
    assert [demo[1], tests[1]] == README_COMMANDS


def test_workflows_run_what_ci_run_runs() -> None:
    """The continuous integration is one script; what a workflow does beside it is the same command."""
    assert "bash .ci/run" in commands(workflow("tests.yml")["jobs"]["checks"])
    build = workflow("docs.yml")["jobs"]["build"]
    assert 'pip install -e ".[docs]" && mkdocs build --strict' in commands(build)
    assert "pip install -e '.[docs]' && mkdocs build --strict -d" in ci_script()
    wheel = "\n".join(commands(workflow("tests.yml")["jobs"]["wheel"]))
    called = [re.findall(r"check_wheel\.py['\"] (\w+)", text) for text in (wheel, ci_script())]
    assert called == [["write", "read", "portable"]] * 2


def test_every_python_that_is_promised_is_tested_on_every_system() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    matrix = workflow("tests.yml")["jobs"]["platforms"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]
    checks = next(
        step["with"]
        for step in workflow("tests.yml")["jobs"]["checks"]["steps"]
        if "with" in step and "cache" in step["with"]
    )
    assert checks["python-version"].split() == [promised[0], promised[-1]]  # .ci/run takes the oldest and the newest
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert f"Python {promised[0]} to {promised[-1]}" in page


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """A bound that is raised, or lowered, is tried out as it stands."""
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + [
        line for name in ("s3", "tiff", "hdf5", "video", "viz") for line in extras[name]
    ]
    pattern = r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)"
    bounds = {match[1]: match[2] for line in wanted if (match := re.match(pattern, line))}
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert bounds
    for package, bound in bounds.items():
        assert f"{pinned[package]}.".startswith(f"{bound}."), package


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_jobs_that_it_has_and_asks_for_little(path: Path) -> None:
    document = workflow(path.name)
    jobs = document["jobs"]
    assert document["permissions"] == {"contents": "read"}  # a job that needs more says so itself
    for name, job in jobs.items():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs), name
        assert "uses" in job or "timeout-minutes" in job, name
        axes = set(job.get("strategy", {}).get("matrix", {}))
        assert set(re.findall(r"\bmatrix\.(\w+)", str(job))) == axes, name
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file(), name


@pytest.mark.skipif(sys.platform == "win32", reason="bash may be missing")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_commands_of_a_workflow_are_bash(path: Path) -> None:
    for job in workflow(path.name)["jobs"].values():
        for command in commands(job):
            done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_weekly_workflow_takes_prereleases_of_what_moves() -> None:
    document = workflow("prereleases.yml")
    (install,) = [line for line in commands(document["jobs"]["tests"]) if "--pre" in line]
    assert {"zarr", "numpy", "numcodecs", "datajoint"} <= set(install.split())
    assert document[True]["schedule"]  # YAML 1.1 reads "on" as true


def test_files_that_are_marked_slow_are_there() -> None:
    """A file that was renamed would be quick without a word."""
    assert SLOW <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
