"""Every bash block of the page on the command line runs, in the order of the page, and prints what the page says.

Lines of ``dj-photon`` run in this process; a block with anything else runs in bash. A ``text`` block right below is
what that prints, numbers apart.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dj_photon_codecs.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

_BLOCK = re.compile(
    r"^```(?P<kind>python|bash)\n(?P<code>.*?)^```\n(?:\n*```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL
)


def run_in_bash(block: str) -> str:
    """What a block prints in a shell that finds ``dj-photon`` as after an installation."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("the page has a loop in bash, and there is none")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [bash, "-euo", "pipefail", "-c", block], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_blocks_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"^\s*```(?:bash|python)", text, re.MULTILINE)) == len(list(_BLOCK.finditer(text)))
    for found in _BLOCK.finditer(text):
        printed = io.StringIO()
        commands = found["code"].splitlines()
        if found["kind"] == "python":
            exec(found["code"], {"__name__": "__page__"})
        elif all(command.startswith("dj-photon ") for command in commands):
            with contextlib.redirect_stdout(printed):
                assert [main(shlex.split(command)[1:]) for command in commands] == [0] * len(commands)
        else:
            printed.write(run_in_bash(found["code"]))
        if found["output"] is not None:
            assert without_numbers(printed.getvalue()) == without_numbers(found["output"])


def without_numbers(text: str) -> list[str]:
    """The words of what is printed: numbers depend on the machine, and on the releases of libraries."""
    return re.sub(r"\d[\d.]*", "#", text).split()


def test_every_command_is_on_the_page() -> None:
    from dj_photon_codecs.cli.app import app

    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in app.commands if f"dj-photon {name}" not in text] == []
