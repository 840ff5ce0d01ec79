"""Who imports whom, read from the syntax trees: imports within functions and for type checkers count too."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = "dj_photon_codecs"

#: The public modules of zarr. All others move between releases.
ZARR = {"zarr", "zarr.abc.codec", "zarr.abc.store", "zarr.codecs", "zarr.errors", "zarr.storage"}

#: Public, and changed by releases all the same.
CHANGED = {"ShardingCodec"}

ROOT = Path(__file__).parents[1]


def table_of_rooms() -> tuple[set[str], dict[str, set[str]]]:
    """The base, and room -> what it may import besides: the table "Rooms" of docs/explanation/design.md."""
    page = (ROOT / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|.*\|([^|]*)\|$", page[page.index("## Rooms") :], re.MULTILINE)
    (base, _), *others = [[set(re.findall(r"`([\w.]+)`", cell)) for cell in row] for row in rows]
    return base, {room: allowed for rooms, allowed in others for room in rooms}


BASE, TABLE = table_of_rooms()
ROOMS: dict[str, set[str]] = {"__init__": set(), **{module: set() for module in BASE}, **TABLE}


def name_of(path: Path) -> str:
    """What a file is imported as."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(module: str, tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """What a module imports: the module, the name in it ("" for the module itself), and the line."""
    package = module.split(".")[: None if MODULES[module].stem == "__init__" else -1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, "", node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                inner = f"{origin}.{name.name}"
                yield (inner, "", node.lineno) if inner in MODULES else (origin, name.name, node.lineno)


IMPORTS = {module: list(imports(module, ast.parse(path.read_bytes()))) for module, path in MODULES.items()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {origin for origin, *_ in found if origin in MODULES} for module, found in IMPORTS.items()}
    assert sum(map(len, graph.values())) > 300  # they were found
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_only_one_room_touches_what_zarr_moves() -> None:
    """Elsewhere neither a private module of zarr, nor a name that its releases move, is imported or reached."""
    found = []
    for module, path in MODULES.items():
        if module.startswith(f"{PACKAGE}._zarr"):
            continue
        for origin, name, line in IMPORTS[module]:
            if origin.partition(".")[0] == "zarr" and (origin not in ZARR or name in CHANGED or name[:1] == "_"):
                found.append(f"{module}:{line} {origin} {name}".rstrip())
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("zarr.core", "zarr.registry")):
                found.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    assert not found, "\n".join(found)


def test_rooms_import_what_the_page_on_the_design_says() -> None:
    found = []
    for module, lines in IMPORTS.items():
        room = (module.split(".")[1:2] or ["__init__"])[0]
        for origin, _, line in lines:
            if origin not in MODULES:
                continue
            other = origin.split(".")[1:] or ["__init__"]
            if other[0] != room and not {".".join(other), other[0]} & (BASE | ROOMS[room]):
                found.append(f"{module}:{line} imports {origin}")
    assert not found, "\n".join(found)


def test_the_page_on_the_design_has_every_room_and_no_other() -> None:
    assert set(ROOMS) == {(module.split(".")[1:2] or ["__init__"])[0] for module in MODULES}
    assert "errors" in BASE


def test_the_picture_of_the_rooms_is_current() -> None:
    """Else run ``python docs/.rooms.py``."""
    drawing = runpy.run_path(str(ROOT / "docs" / ".rooms.py"))
    assert drawing["PICTURE"].read_text(encoding="utf-8") == drawing["svg"]()
