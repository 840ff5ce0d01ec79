"""The examples run as a user runs them, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import datajoint as dj
import pytest
import tifffile

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "shape", "top"), [("fmi_two_photon", (100, 128, 128), 65535), ("minisim_12bit", (120, 128, 128), 4095)]
)
def test_recordings_are_what_their_page_says(name: str, shape: tuple[int, ...], top: int) -> None:
    """The TIFF stacks are raw counts, and tifffile reads them without a codec package; origin and licence are told."""
    with tifffile.TiffFile(EXAMPLES / "data" / f"{name}.tif") as file:
        assert {page.compression for page in file.pages} == {8}  # Deflate, which Python has in its zlib
        movie = file.asarray()
    assert movie.shape == shape
    assert movie.dtype == "uint16"
    assert 0 <= movie.min() < movie.max() <= top
    page = (EXAMPLES / "data" / "README.md").read_text(encoding="utf-8")
    assert f"# {name}.tif" in page
    assert "MIT licence" in page


@pytest.mark.slow
def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run stores a real recording within the bound (invariant 1), keeps its mean, and draws the picture."""
    before = dj.config.database.model_dump(), dict(dj.config.stores)
    picture = tmp_path / "new" / "quickstart.png"
    numbers = load("quickstart").main(picture)
    assert numbers["verdict"] == "bounded"
    assert 207 < numbers["gain"] < 245  # what variance over mean is, from dark to bright
    assert numbers["ratio"] > 4
    assert numbers["bytes after"] * numbers["ratio"] == pytest.approx(100 * 128 * 128 * 2)
    assert 0 < numbers["largest change"] <= 0.25 + 0.5 / 100
    assert abs(numbers["change of the mean"]) < 0.01
    printed = capsys.readouterr().out
    assert "times smaller" in printed
    assert "bounded, variance over mean" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
    assert (dj.config.database.model_dump(), dict(dj.config.stores)) == before


def test_every_example_stands_in_the_list() -> None:
    """examples/README.md names each script."""
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"({path.name})" not in listed] == []
