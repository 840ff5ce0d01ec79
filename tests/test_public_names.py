"""The public names: one list, from which ``__all__``, the lazy imports and the types of the package come."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dj_photon_codecs

ROOT = Path(__file__).parents[1]
PUBLIC: list[str] = vars(dj_photon_codecs)["__all__"]
ROOMS = ("acquisition", "audit", "calibration", "fidelity", "handle", "migration", "simulation", "sources", "viz")


def test_each_public_name_is_that_of_its_module() -> None:
    stub = (ROOT / "src" / "dj_photon_codecs" / "__init__.pyi").read_text(encoding="utf-8")
    listed = re.findall(r"^from (\.\S+) import (\w+) as (\w+)$", stub, re.MULTILINE)
    assert [name for _, name, _ in listed] == [alias for _, _, alias in listed]
    assert sorted(name for _, name, _ in listed) == PUBLIC
    for module, name, _ in listed:
        home = importlib.import_module(module, "dj_photon_codecs")
        assert getattr(dj_photon_codecs, name) is getattr(home, name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    assert not hasattr(dj_photon_codecs, "no_such_name")
    assert "calibrate" in dir(dj_photon_codecs)
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from dj_photon_codecs import no_such_name")


def test_importing_the_package_imports_no_other() -> None:
    """Of what is installed, nothing: neither numpy nor anything that needs it."""
    script = (
        "import sys; before = set(sys.modules); import dj_photon_codecs; new = set(sys.modules) - before; "
        "print(sorted({name.partition('.')[0] for name in new} - sys.stdlib_module_names))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['dj_photon_codecs']"


@pytest.mark.slow
def test_type_checkers_know_every_public_name(tmp_path: Path) -> None:
    """No public name is Any, and none is missing; a name that does not exist is an error."""
    names = [f"dj_photon_codecs.{name}" for name in (*PUBLIC, "__version__")]
    imports = ["import dj_photon_codecs"]
    for room in ROOMS:
        imports.append(f"import dj_photon_codecs.{room}")
        public = importlib.import_module(f"dj_photon_codecs.{room}").__all__
        names += [f"dj_photon_codecs.{room}.{name}" for name in public]
    script = tmp_path / "names.py"
    lines = [*imports, *(f"reveal_type({name})" for name in names), "dj_photon_codecs.no_such_name"]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--follow-imports=silent", "--no-error-summary"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(script)], cwd=ROOT, capture_output=True, text=True
    )
    types = re.findall(r'names\.py:(\d+): note: Revealed type is "(.*)"$', checked.stdout, re.MULTILINE)
    revealed = {lines[int(line) - 1][len("reveal_type(") : -1]: shown for line, shown in types}
    assert list(revealed) == names, checked.stdout + checked.stderr
    assert [name for name, shown in revealed.items() if shown == "Any"] == []
    assert re.findall(r"error: (.*?)  \[", checked.stdout) == ['Module has no attribute "no_such_name"']
