"""Time to read planes and volumes, compared with plain Zarr (Zstd, one plane per chunk). Prints one table.

    python benchmarks/volumes.py

One simulated uint16 movie (5 photons per pixel, gain 100, 50 planes per volume) in a temporary folder. Each read is the
first on a new handle; the methods take turns.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import REGIMES, machine, seconds, simulate, table
from zarr.codecs import ZstdCodec

from dj_photon_codecs import Calibration, open_movie, write_movie

PROFILES = ("standard", "dense")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=64)
    parser.add_argument("--planes", type=int, default=50)
    parser.add_argument("--size", type=int, default=256, help="height and width of a plane")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; the best counts")
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    options = parser.parse_args()
    shape = (options.volumes, options.planes, options.size, options.size)
    counts, _ = simulate(REGIMES[3], shape[0] * shape[1], options.size, np.random.default_rng(0))
    # consecutive frames are one plane, so that a plane can be predicted from its past
    movie = counts.reshape(shape[1], shape[0], *shape[2:]).swapaxes(0, 1)
    plane, some = shape[1] // 2, min(10, shape[0])
    middle = slice((shape[0] - some) // 2, (shape[0] + some) // 2)
    reads: dict[str, Callable[[Any], Any]] = {
        f"a plane, all {shape[0]} frames [ms]": lambda array: array[:, plane],
        f"a plane, {some} frames [ms]": lambda array: array[middle, plane],
        f"{some} volumes [ms]": lambda array: array[middle],
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        openers, sizes = stored(Path(name), movie)
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(options.repeat):
            for who, opener in openers.items():
                for what, read in reads.items():
                    times[who, what].append(1e3 * seconds(lambda read=read, opener=opener: read(opener())))
    print(f"{machine()}\n{shape[0]} volumes of {' x '.join(map(str, shape[1:]))} uint16, best of {options.repeat}\n")
    rows = []
    for who in openers:
        cells = [f"{movie.nbytes / sizes[who]:.2f}"]
        for what in reads:
            best = min(times[who, what])
            cells.append(f"{best:.1f} ({best / min(times['zarr', what]):.2f}x)")
        rows.append([who, *cells])
    print(table(("stored as", "ratio", *reads), rows))
    print("\nIn brackets: times of plain Zarr with chunks of one plane, Zstd level 3.")


def stored(folder: Path, movie: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Store the movie with each method; return functions that open the copies, and their sizes."""
    plain = zarr.create_array(
        folder / "zarr", data=movie, chunks=(1, 1, *movie.shape[2:]), compressors=ZstdCodec(level=3), overwrite=True
    )
    openers: dict[str, Callable[[], Any]] = {"zarr": lambda: zarr.open_array(folder / "zarr", mode="r")}
    sizes = {"zarr": int(plain.nbytes_stored())}
    for profile in PROFILES:
        noise = Calibration.given(REGIMES[3].gain, REGIMES[3].zero_level)
        write_movie(folder / profile, movie, calibration=noise, profile=profile, progress=False)
        openers[profile] = partial(open_movie, folder / profile)
        handle = open_movie(folder / profile)
        sizes[profile] = int(movie.nbytes / handle.compression_ratio)
    return openers, sizes


if __name__ == "__main__":
    main()
