"""Draw the pictures of ``comparison.py``: size against speed, an object store, and growing movies."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from figures import save
from matplotlib.ticker import LogLocator, NullFormatter
from methods import METHODS
from pages import short, speed

Record = dict[str, Any]

_WIDTH = 8.4

#: A method with more than this fraction of wrong counts is crossed out.
_WRONG = 0.001

#: Blue for this package, orange for other lossy methods, grey for lossless; one marker each within a colour.
_MARKERS = "osD^vPX*h"


def _style(name: str) -> tuple[str, str]:
    """Return the colour and marker of a method."""
    method = METHODS[name]
    colour = "C0" if method.ours else "C1" if method.keeps == "own" else "0.45"
    alike = [n for n, m in METHODS.items() if (m.ours, m.keeps == "own") == (method.ours, method.keeps == "own")]
    return colour, _MARKERS[alike.index(name)]


def _plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis with numbers such as 50, 100 and 200 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def size_and_speed(path: Path, part: Record) -> None:
    """Draw compression ratio against speed for each regime, writing and reading; crosses mark wrong counts."""
    records = [record for record in part["records"] if "crashed" not in record]
    regimes = list(dict.fromkeys(record["regime"] for record in records))
    figure, grid = plt.subplots(
        2, len(regimes), figsize=(_WIDTH, 6.4), sharex="row", sharey="col", squeeze=False, layout="constrained"
    )
    for column, regime in enumerate(regimes):
        here = [record for record in records if record["regime"] == regime]
        for row, key in enumerate(("write", "read")):
            axes = grid[row][column]
            for record in here:
                colour, marker = _style(record["method"])
                at = speed(record, key), record["ratio"]
                label = record["method"] if (row, column) == (0, 0) else None
                axes.plot(*at, marker, color=colour, ms=7, mec="white", mew=0.5, label=label)
                if record["wrong counts"] > _WRONG * record["bytes"] / 2:
                    axes.plot(*at, "x", color="crimson", ms=11, mew=1.5)
            limit = next((16 / r["limit bits"] for r in here if r["keeps"] == "codes" and "limit bits" in r), None)
            if limit is not None:
                axes.axhline(limit, color="C0", lw=0.8, ls="--")
            axes.set(xscale="log", xlabel=f"{key} [MB/s of counts]", ylim=(0, None))
            _plain_ticks(axes.xaxis)
            axes.grid(alpha=0.3)
        grid[0][column].set_title(short(regime), fontsize="medium")
    for row in grid:
        row[0].set_ylabel("times smaller")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    save(figure, path)


def object_store(path: Path, part: Record) -> None:
    """Draw seconds and requests of each method on S3."""
    panels = (
        ("write", "write all [s]"),
        ("read", "read all [s]"),
        ("random frame", "a random frame [s]"),
        ("loop", "frame by frame [s a frame]"),
    )
    figure, grid = plt.subplots(1, len(panels), figsize=(_WIDTH, 2.6), sharey=True, layout="constrained")
    names = [record["method"] for record in part["records"]][::-1]
    for axes, (key, title) in zip(grid, panels, strict=True):
        for place, record in enumerate(part["records"][::-1]):
            taken = statistics.median(record[f"{key} [s]"])
            requests = statistics.median(record[f"{key} requests"])
            axes.barh(place, taken, color=_style(record["method"])[0])
            axes.annotate(f" {taken:.2g} s\n {requests:.2g} requests", (taken, place), va="center", fontsize="x-small")
        axes.set_title(title, fontsize="small")
        axes.set_xlim(0, 1.6 * axes.get_xlim()[1])
        axes.set_yticks(range(len(names)), [name.replace(", ", ",\n", 1) for name in names], fontsize="small")
    save(figure, path)


def growth(path: Path, part: Record) -> None:
    """Draw time and memory against the movie's length, on two cores and, for one length, on one."""
    figure, grid = plt.subplots(1, 4, figsize=(_WIDTH, 3.0), layout="constrained")
    titles = ("write [s]", "read [s]", "memory, writing [MB]", "memory, reading [MB]")
    for axes, key, title in zip(
        grid, ("write [s]", "read [s]", "write peak [B]", "read peak [B]"), titles, strict=True
    ):
        scale = 1e-6 if "[B]" in key else 1
        for colour, profile in (("C0", "standard"), ("C2", "dense")):
            for cores, line in ((2, "o-"), (1, "s")):
                points = [
                    (record["bytes"] / 1e9, scale * record[key])
                    for record in part["records"]
                    if (record["method"], record["cores"]) == (profile, cores)
                ]
                label = f"{profile}, {cores} core{'s' if cores > 1 else ''}"
                axes.plot(*zip(*points, strict=True), line, color=colour, mfc=colour if cores > 1 else "w", label=label)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
        axes.xaxis.set_major_formatter("{x:.2g}")
        axes.set_xticks(sorted({record["bytes"] / 1e9 for record in part["records"]}))
        axes.set_xlabel("movie [GB]")
        axes.set_title(title, fontsize="medium")
        if scale == 1:
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
        else:
            axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small", frameon=False
    )
    save(figure, path)


def draw(folder: Path, results: dict[str, Any]) -> None:
    """Draw everything that was measured."""
    for part, draw_part, name in (
        ("folder", size_and_speed, "size-and-speed"),
        ("s3", object_store, "object-store"),
        ("growth", growth, "growth"),
    ):
        if part in results:
            draw_part(folder / f"comparison-{name}.png", results[part])
