"""Time to read parts of a movie in several ways, compared with plain Zarr and blosc2. Prints two tables.

    python benchmarks/access.py

Simulated movies (5 photons a pixel, gain 100) in a temporary folder, with the same number of counts at each frame size.
Plain Zarr stores the lossless counts in chunks of 16 frames (Zstd), blosc2 in its default chunks (zstd-5, bitshuffle).
Each measurement opens the movie again. The methods take turns; the shortest time counts. The second table gives the
speed of each profile as a multiple of blosc2's.

Needs scipy (in the ``dev`` extra). blosc2 (in the ``benchmarks`` extra) is skipped if it is not installed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import REGIMES, Counts, machine, seconds, simulate, table

from dj_photon_codecs import Calibration, open_movie, set_cache_size, write_movie

#: Frames in a chunk of plain Zarr.
_ZARR_FRAMES = 16

Read = Callable[[Any], Any]


def patterns(frames: int, size: int, rng: np.random.Generator) -> dict[str, Read]:
    """Return the ways of reading by name; each takes an open array."""
    middle, corner, side = frames // 2, size // 4, max(1, size // 8)
    region = slice(corner, corner + side)
    evens, some = list(range(0, frames, 2)), sorted(rng.choice(frames, max(1, frames // 10), replace=False).tolist())
    shuffled = rng.permutation(evens).tolist()

    def chosen(frames_of: list[int]) -> Read:
        # plain arrays have another name for this
        return lambda a: a.oindex[np.array(frames_of)] if type(a) is zarr.Array else a[frames_of]

    return {
        "a frame": lambda a: a[middle],
        "10 frames": lambda a: a[middle : middle + 10],
        "every 10th": lambda a: a[::10],
        "every 100th": lambda a: a[::100],
        "a crop of a frame": lambda a: a[middle, region, region],
        "the trace of a pixel": lambda a: a[:, corner, corner],
        "the trace of a region": lambda a: a[:, region, region],
        "every 2nd": lambda a: a[::2],
        "every 2nd, a list": chosen(evens),
        "the same, shuffled": chosen(shuffled),
        "a tenth, a list": chosen(some),
        "all": lambda a: a[:],
        "frame by frame": lambda a: deque(a.frames() if hasattr(a, "frames") else (a[i] for i in range(frames)), 0),
    }


def stored(folder: Path, counts: Counts, profiles: list[str]) -> dict[str, Callable[[], Any]]:
    """Store the movie with every method; return functions that open the copies."""
    noise = Calibration.given(REGIMES[3].gain, REGIMES[3].zero_level)
    openers: dict[str, Callable[[], Any]] = {}
    for profile in profiles:
        write_movie(folder / profile, counts, calibration=noise, profile=profile, progress=False)
        openers[profile] = lambda profile=profile: open_movie(folder / profile)  # type: ignore[misc]
    chunks = (min(_ZARR_FRAMES, len(counts)), *counts.shape[1:])
    zarr.create_array(str(folder / "zarr"), data=counts, chunks=chunks)
    openers["zarr"] = lambda: zarr.open_array(str(folder / "zarr"), mode="r")
    if find_spec("blosc2") is not None:
        import blosc2

        parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, filters=[blosc2.Filter.BITSHUFFLE])
        blosc2.asarray(counts, urlpath=str(folder / "blosc2.b2nd"), mode="w", cparams=parameters)
        openers["blosc2"] = lambda: blosc2.open(str(folder / "blosc2.b2nd"), mode="r")
    return openers


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="16,128,512,2048", help="heights and widths of a frame")
    parser.add_argument("--megapixels", type=float, default=64, help="counts of each movie, in millions")
    parser.add_argument("--profiles", default="standard,dense,lossless")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    options = parser.parse_args()
    set_cache_size(1 << 28)  # the same on every machine
    print(f"{machine()}\n{options.megapixels:g} million counts in uint16, {options.repeat} repetitions; times in ms\n")
    for size in map(int, options.sizes.split(",")):
        rng = np.random.default_rng(options.seed)
        frames = max(20, round(options.megapixels * 1e6 / size**2))
        drawn = max(size, 64)  # smaller scenes hold no cells
        base, _ = simulate(REGIMES[3], min(frames, max(20, (1 << 24) // drawn**2)), drawn, rng)
        counts = np.resize(base[:, :size, :size], (frames, size, size))
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            openers = stored(Path(name), counts, options.profiles.split(","))
            ways = patterns(frames, size, rng)
            times: dict[tuple[str, str], list[float]] = {(way, kind): [] for way in ways for kind in openers}
            for kind, opener in openers.items():
                opener()[0]  # what the first read imports and makes
                if kind in options.profiles:
                    opener()[: frames // 2]  # and what long work compiles
            for _ in range(options.repeat):
                for (way, kind), measured in times.items():
                    array = openers[kind]()
                    measured.append(seconds(ways[way], array))
                    del array
        best = {key: min(measured) for key, measured in times.items()}
        rows = [[way, *(f"{1e3 * best[way, kind]:.2f}" for kind in openers)] for way in ways]
        print(f"{frames} frames of {size} x {size}:\n\n{table(('read', *openers), rows)}\n")
        if "blosc2" in openers:
            kinds = options.profiles.split(",")
            rows = [[way, *(f"{best[way, 'blosc2'] / best[way, kind]:.2f}" for kind in kinds)] for way in ways]
            print(f"Times as fast as blosc2:\n\n{table(('read', *kinds), rows)}\n")


if __name__ == "__main__":
    main()
