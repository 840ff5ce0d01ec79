"""Draw the rooms of the package and the two ways through them, from the imports in its source.

    python docs/.rooms.py

writes docs/explanation/img/rooms.svg. An arrow goes from a room to each room that it imports, except those that it
reaches anyway through another. ``tests/test_imports.py`` fails when the picture is out of date.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dj_photon_codecs"
PICTURE = ROOT / "docs" / "explanation" / "img" / "rooms.svg"

#: A module below its room that rooms below it import: it is drawn by itself.
BELOW = "storage.location"

#: The rooms that a movie passes, in order.
INSERT = ("codec", "movies", "sources", "calibration", "storage", "anscombe", "entropy")
FETCH = ("codec", "handle", "storage", "entropy", "anscombe")

WIDTH, HEIGHT, GAP, LEVEL = 128, 46, 22, 92
BLUE, ORANGE, GREY = "#1f77b4", "#d95f02", "#8a8a8a"

Graph = dict[str, set[str]]


def rooms() -> Graph:
    """Which rooms each room imports. Private modules at the top of the package count as one room, "base"."""
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    names -= {"__init__", "__main__"}
    graph: Graph = {_shown(name): set() for name in names}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in names:
            continue
        here = BELOW if ".".join(parts) == BELOW else _shown(parts[0])
        graph.setdefault(here, set())
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):
                found = _imported(node, parts[:-1])
                graph[here] |= {_shown(name) for name in found if name in names or name == BELOW}
    for name, others in graph.items():
        others.discard(name)
    return graph


def _shown(name: str) -> str:
    return "base" if (name.startswith("_") and name not in ("_datajoint", "_row_path")) or name == "errors" else name


def _imported(node: ast.ImportFrom, package: tuple[str, ...]) -> set[str]:
    """The top-level names within the package that an import reaches."""
    module = (node.module or "").split(".") if node.module else []
    if node.level:
        path = [*package[: len(package) - node.level + 1], *module]
    elif module[0] == PACKAGE.name:
        path = module[1:]
    else:
        return set()
    if not path:
        return {alias.name for alias in node.names}
    inner = {".".join([*path, alias.name]) for alias in node.names} | {".".join(path)}
    return {BELOW} if BELOW in inner else {path[0]}


def reduced(graph: Graph) -> Graph:
    """The graph without edges that a longer path already implies."""
    reach: Graph = {}
    for name in TopologicalSorter(graph).static_order():
        reach[name] = set().union(*({other} | reach[other] for other in graph[name]))
    return {
        name: {other for other in others if not any(other in reach[via] for via in others)}
        for name, others in graph.items()
    }


def levels(graph: Graph) -> list[list[str]]:
    """Rooms by the longest path below them, each level in the order of what it imports."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[other] for other in graph[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    place: dict[str, float] = {}
    for level, row in enumerate(rows):
        row.extend(sorted(name for name in height if height[name] == level))
        centre = {name: _mean([place[other] for other in graph[name]], index) for index, name in enumerate(row)}
        row.sort(key=lambda name: (centre[name], name))
        place |= {name: (index + 0.5) / len(row) for index, name in enumerate(row)}
    return rows


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def svg() -> str:
    """The picture."""
    graph = rooms()
    missing = ({*INSERT, *FETCH}) - graph.keys()
    if missing:
        raise RuntimeError(f"the two ways name rooms that are not there: {sorted(missing)}; edit docs/.rooms.py")
    rows, edges = levels(graph), reduced(graph)
    width = max(map(len, rows)) * (WIDTH + GAP) + GAP
    total = len(rows) * LEVEL + 44
    corner: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(reversed(rows)):
        left = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        corner |= {name: (left + index * (WIDTH + GAP), 10 + level * LEVEL) for index, name in enumerate(row)}
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" font-family="sans-serif">',
        f'<rect width="{width}" height="{total}" fill="white"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>',
    ]
    for name in sorted(edges):
        for other in sorted(edges[name]):
            (x, y), (to_x, to_y) = corner[name], corner[other]
            text.append(
                f'<path d="M{x + WIDTH / 2:.0f} {y + HEIGHT:.0f}L{to_x + WIDTH / 2:.0f} {to_y - 2:.0f}" fill="none" '
                f'stroke="{GREY}" stroke-width="1" marker-end="url(#tip)"/>'
            )
    for name, (x, y) in sorted(corner.items()):
        way, letters = name in INSERT or name in FETCH, 15 if len(name) < 14 else 13
        text.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="white" '
            f'stroke="{"#222" if way else GREY}" stroke-width="{2 if way else 1}"/>'
            f'<text x="{x + WIDTH / 2:.0f}" y="{y + 28:.0f}" font-size="{letters}" text-anchor="middle" '
            f'fill="#222">{name}</text>'
        )
        for path, colour, dx in ((INSERT, BLUE, 0), (FETCH, ORANGE, WIDTH)):
            if name in path:
                text.append(
                    f'<circle cx="{x + dx:.0f}" cy="{y:.0f}" r="10" fill="{colour}"/><text x="{x + dx:.0f}" '
                    f'y="{y + 4:.0f}" font-size="12" text-anchor="middle" fill="white">{path.index(name) + 1}</text>'
                )
    legend = (("insert", BLUE, 30), ("fetch", ORANGE, 130), ("arrow: imports", GREY, 220))
    for label, colour, x in legend:
        text.append(f'<circle cx="{x}" cy="{total - 18}" r="7" fill="{colour}"/>')
        text.append(f'<text x="{x + 14}" y="{total - 13}" font-size="14" fill="#222">{label}</text>')
    return "\n".join([*text, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
