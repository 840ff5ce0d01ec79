"""Every Python block of README.md and docs/ runs, and prints what the page says it prints.

The blocks of a page run in their order, in one namespace, in a folder of their own, with a database and an empty store
named ``imaging``. A ``text`` block right below a Python block is what that prints. A block that cannot run carries
``<!-- not run: reason -->`` on the line above it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import datajoint as dj
import pytest

from dj_photon_codecs.embedded import embedded_database
from dj_photon_codecs.handle import cache
from dj_photon_codecs.storage.layout import CHUNK_PIXELS, SHARD_BYTES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: The blocks that do not run, and why: page to reasons.
NOT_RUN: dict[str, list[str]] = {
    "docs/bridges/nwb.md": [
        "hdmf-zarr 0.14 needs Python 3.12, and the tests also run on 3.11; tests/bridges/test_nwb.py does the same"
    ],
    "docs/explanation/reliability.md": ["it would change the settings for the other blocks"],
    "docs/guide/codec-alone.md": [
        "the tests run with zarr 3; .ci/check_codec_alone.py runs this with zarr 2.18",
        "hdmf-zarr needs zarr 2; run by hand with hdmf-zarr 0.13.0, pynwb 4.2.0 and zarr 2.18.7",
        "SpikeInterface needs zarr 2; .ci/check_codec_alone.py runs this with SpikeInterface 0.105.3",
    ],
    "docs/migrating/pymecompress.md": [
        "PYMECompress builds only with numpy below 2 and setuptools below 60; run by hand with version 0.3.6"
    ],
}

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n+)?"
    r"```python\n(?P<code>.*?)^```\n"
    r"(?:\n*```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A Python block: its code, the line it begins on, what it prints, and why it does not run."""

    code: str
    line: int
    output: str | None
    reason: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["code"], text.count("\n", 0, found.start("code")) + 1, found["output"], found["reason"])
        for found in _BLOCK.finditer(text)
    ]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def database(database_folder: Path) -> Iterator[None]:
    """What ``dj.conn()`` reaches on the pages."""
    with embedded_database(database_folder / "pages"):
        yield


@pytest.fixture
def clean(database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder and a store of the page's own; its schemas and codecs are gone after it."""
    monkeypatch.chdir(tmp_path)
    location = tmp_path / "imaging"
    location.mkdir()
    codecs, schemas = set(dj.list_codecs()), set(dj.list_schemas())
    stores, safemode = dict(dj.config.stores), dj.config.safemode
    dj.config.safemode = False  # there is nobody to answer a prompt
    dj.config.stores = {"default": "imaging", "imaging": {"protocol": "file", "location": str(location)}}
    try:
        yield
    finally:
        for codec in set(dj.list_codecs()) - codecs:
            dj.codecs.unregister_codec(codec)
        for schema in set(dj.list_schemas()) - schemas:
            dj.Schema(schema).drop(prompt=False)
        dj.config.stores, dj.config.safemode = stores, safemode


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_blocks_of_the_page_run(page: Path, clean: None) -> None:
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks(page):
        if block.reason is not None:
            continue
        # Padded with empty lines, so that a traceback shows the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.output is not None:
            assert _lines(printed.getvalue()) == _lines(block.output), f"{name(page)}, line {block.line}"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def test_blocks_that_do_not_run_are_listed_with_their_reasons() -> None:
    found = {name(page): [block.reason for block in blocks(page) if block.reason is not None] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN


def test_no_python_block_escapes_the_pattern() -> None:
    """A fence that is indented or spelled otherwise would be a block that nobody runs."""
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)\s*(?:python|py|pycon)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(blocks(page)), name(page)


def test_the_readme_has_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ('pip install -e ".[demo]" && python examples/quickstart.py', 'pip install -e ".[dev]" && pytest'):
        assert f"\n    {command}" in readme


def test_links_of_the_pages_outside_the_site_lead_somewhere() -> None:
    """Links between the pages of the site are mkdocs' to check."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_files_that_the_pages_name_are_there() -> None:
    named = re.compile(r"(?<![\w/(])(?:benchmarks|docs|examples|readers|src|tests)/[\w./*-]+\.(?:py|md|js|json)\b")
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for path in named.findall(page.read_text(encoding="utf-8")):
            assert list(ROOT.glob(path)), f"{name(page)}: {path}"


def test_datajoint_accepts_the_stores_of_the_page(clean: None) -> None:
    """Every protocol with the keys that the page gives it; one more key is refused."""
    page = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    found = re.search(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    dj.config.stores = json.loads(found[1])["stores"]
    protocols = {dj.config.get_store_spec(store)["protocol"] for store in dj.config.stores if store != "default"}
    assert protocols == {"file", "s3", "gcs", "azure"}
    dj.config.stores["imaging"]["password"] = "x"
    with pytest.raises(dj.DataJointError, match="Invalid key"):
        dj.config.get_store_spec("imaging")


@pytest.mark.parametrize("room", ["", ".audit", ".calibration", ".fidelity", ".simulation"])
def test_the_reference_has_every_public_name(room: str) -> None:
    shown: list[Any] = []
    page = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))
    for entry in re.finditer(r"^::: (\S+)(?:\n +options:\n +members: \[(.*?)\])?", page, re.MULTILINE):
        thing = pkgutil.resolve_name(entry[1])
        shown.append(thing)
        if isinstance(thing, ModuleType):
            shown += [getattr(thing, member) for member in (entry[2].split(", ") if entry[2] else dir(thing))]
    module = importlib.import_module(f"dj_photon_codecs{room}")
    missing = [public for public in module.__all__ if not any(getattr(module, public) is thing for thing in shown)]
    assert missing == []


def test_every_picture_of_the_guide_is_made_by_the_script() -> None:
    script = (ROOT / "benchmarks" / "figures.py").read_text(encoding="utf-8")
    pictures = sorted((ROOT / "docs" / "guide" / "img").iterdir())
    assert pictures
    for picture in pictures:
        assert f'"{picture.name}"' in script, picture.name


def test_sizes_that_the_pages_give_are_those_of_the_code() -> None:
    layout = (ROOT / "docs" / "explanation" / "layout.md").read_text(encoding="utf-8")
    assert f"at most {CHUNK_PIXELS // 2**20} million pixels" in layout
    assert f"{SHARD_BYTES // 2**20} MiB of counts" in layout
    reading = (ROOT / "docs" / "guide" / "reading.md").read_text(encoding="utf-8")
    assert f"at least {cache._LEAST // 2**20} MiB and at most {cache._MOST // 2**30} GiB" in reading
