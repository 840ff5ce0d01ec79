"""The examples run as a user runs them, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import datajoint as dj
import numpy as np
import pytest
import tifffile

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recording_is_what_its_page_says() -> None:
    """The TIFF stack is raw counts of a 12-bit sensor, and tifffile reads it without a codec package."""
    with tifffile.TiffFile(EXAMPLES / "data" / "minisim_12bit.tif") as file:
        assert {page.compression for page in file.pages} == {8}  # Deflate, which Python has in its zlib
        movie = file.asarray()
    assert movie.shape == (120, 128, 128)
    assert movie.dtype == "uint16"
    assert 0 <= movie.min() < movie.max() < 4096


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run finds the sensor's gain, keeps the bound (invariant 1), shrinks the movie and draws the picture."""
    before = dj.config.database.model_dump(), dict(dj.config.stores)
    picture = tmp_path / "new" / "quickstart.png"
    numbers = load("quickstart").main(picture)
    assert numbers["gain"] == pytest.approx(2.0, rel=0.1)
    assert numbers["ratio"] > 3
    assert numbers["bytes after"] * numbers["ratio"] == pytest.approx(120 * 128 * 128 * 2)
    darkest = 2 * np.sqrt(3 / 8)  # no smaller standard deviation of the noise at this gain [ADU]
    assert 0 < numbers["largest error"] <= 0.25 * 1.2 + 0.5 / darkest
    printed = capsys.readouterr().out
    assert "times smaller" in printed
    assert f"found, the sensor's is {2:.2f}" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
    assert (dj.config.database.model_dump(), dict(dj.config.stores)) == before


def test_every_example_stands_in_the_list() -> None:
    """examples/README.md names each script."""
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"({path.name})" not in listed] == []
