"""Speed and size for several chunk and shard sizes. Prints the two tables that the layout's numbers come from.

    python benchmarks/layout.py

One simulated movie (5 photons a pixel, gain 100) of 512x512 uint16, in a temporary folder. The settings take turns.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import shutil
import statistics
import tempfile
from dataclasses import dataclass, field
from operator import getitem
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import REGIMES, Counts, machine, seconds, simulate, table

from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs.storage import layout

#: Frames in an hour at 30 Hz.
_HOUR_FRAMES = 30 * 3600

_RANDOM_FRAMES = 30


@dataclass
class Setting:
    """A chunk and shard size, and its measurements."""

    chunk_pixels: int
    shard_bytes: int
    write: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    ratio: float = 0.0
    objects: int = 0

    def run(self, folder: Path, counts: Counts, rng: np.random.Generator) -> None:
        """Write and read the movie once."""
        numbers: dict[str, Any] = {
            "CHUNK_PIXELS": self.chunk_pixels,
            "CHUNK_BYTES": 2 * self.chunk_pixels,
            "SHARD_BYTES": self.shard_bytes,
        }
        noise = Calibration.given(REGIMES[3].gain, REGIMES[3].zero_level)
        with mock.patch.multiple(layout, **numbers):
            self.write.append(seconds(write_movie, folder, counts, calibration=noise, progress=False))
            shard = layout.plan_grid((_HOUR_FRAMES, *counts.shape[1:]), 2, 3).stored
        movie = open_movie(folder)
        self.ratio, self.objects = movie.compression_ratio, math.ceil(_HOUR_FRAMES / shard[0])
        self.read.append(seconds(getitem, movie, ...))
        for i in rng.integers(0, len(counts), _RANDOM_FRAMES).tolist():
            movie = open_movie(folder)
            self.random.append(seconds(getitem, movie, i))

    def cells(self, megabytes: float) -> list[str]:
        """Return the columns that both tables have."""
        return [
            f"{1e3 * statistics.median(self.random):.1f}",
            f"{self.ratio:.3f}",
            f"{megabytes / statistics.median(self.write):.0f}",
            f"{megabytes / statistics.median(self.read):.0f}",
            f"{self.objects}",
        ]


_HEAD = ("random frame [ms]", "ratio", "write [MB/s]", "read [MB/s]", "objects an hour")


def write_and_sync(folder: Path, keys: list[str]) -> None:
    """Write objects like an acquisition: each object and its folders are on disk before the next one."""
    synced: set[Path] = set()
    for path in (folder / key for key in keys):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1 << 16))
        for place in (path, *itertools.takewhile(lambda above: above != folder.parent, path.parents)):
            descriptor = os.open(place, os.O_RDWR if place == path else os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            if place in synced:
                break
            synced.add(place)


def compare_keys(folder: Path, objects: int) -> list[list[str]]:
    """Return a row for each way to name objects: time to write one, to list and remove all, and bytes of folders."""
    rows = []
    for name, key in (("c/12/0/0", "c/{}/0/0"), ("c.12.0.0", "c.{}.0.0")):
        place = folder / name.replace("/", "_")
        place.mkdir()
        write = seconds(write_and_sync, place, [key.format(i) for i in range(objects)])
        listing = seconds(list, os.walk(place))
        folders = sum(512 * getattr(path.lstat(), "st_blocks", 0) for path in place.rglob("*") if path.is_dir())
        removing = seconds(shutil.rmtree, place)
        figures = 1e3 * write / objects, 1e3 * listing, removing, folders / objects
        rows.append([f"`{name}`", *(f"{figure:.3g}" for figure in figures)])
    return rows


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=576)
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    parser.add_argument("--keys", type=int, nargs="?", const=1000, help="compare ways to name so many objects instead")
    options = parser.parse_args()
    if options.keys:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            head = (
                "key",
                "write and sync an object [ms]",
                "list all [ms]",
                "remove all [s]",
                "folders an object [bytes]",
            )
            print(f"{machine()}\n\n{table(head, compare_keys(Path(name), options.keys))}")
        return
    rng = np.random.default_rng(options.seed)
    counts, _ = simulate(REGIMES[3], options.frames, options.size, rng)
    pixels = options.size**2
    chunks = {n: Setting(n * pixels, layout.SHARD_BYTES) for n in (4, 8, 16, 32, 64, 96)}
    shards = {n: Setting(layout.CHUNK_PIXELS, n << 20) for n in (8, 16, 32, 64, 128, 256)}
    for _ in range(options.repeat):
        for setting in [*chunks.values(), *shards.values()]:
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                setting.run(Path(name) / "movie", counts, rng)
    print(
        f"{machine()}\n{options.frames} frames of {options.size}x{options.size} uint16, {options.repeat} repetitions\n"
    )
    megabytes = counts.nbytes / 1e6
    print(f"Inner chunks, in shards of {layout.SHARD_BYTES >> 20} MiB of counts or one chunk:\n")
    print(table(("frames a chunk", *_HEAD), [[str(n), *s.cells(megabytes)] for n, s in chunks.items()]))
    print(f"\nShards, of inner chunks of {layout.CHUNK_PIXELS // pixels} frames:\n")
    print(table(("MiB of counts", *_HEAD), [[str(n), *s.cells(megabytes)] for n, s in shards.items()]))
    print("\nMB/s of raw counts; a random frame: the first on a new handle; an hour: of such frames at 30 Hz.")


if __name__ == "__main__":
    main()
