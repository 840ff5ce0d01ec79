"""Memory needed to store a movie larger than memory. Prints one table. Linux only (reads /proc).

    python benchmarks/endurance.py --gigabytes 50

The movie is generated as it is read, and the store counts the bytes and discards them. Neither takes disk space, so the
benchmark measures only this package. The table has the peak of anonymous memory in each tenth of the movie, relative
to the process after all imports and with the movie's frames generated.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from common import REGIMES, machine, simulate, table
from memory import status
from zarr.storage import MemoryStore

from dj_photon_codecs import write_movie

#: Number of different frames, which the movie repeats.
_DIFFERENT = 64

#: Rows of the table.
_PARTS = 10


@dataclass
class Part:
    """A row: memory and time while this part of the movie was read and stored."""

    began: float = 0.0
    peak: int = 0


class LongMovie:
    """A movie of any length that takes little memory."""

    def __init__(self, frames: int, size: int) -> None:
        self.shape, self.dtype = (frames, size, size), np.dtype(np.uint16)
        self.read_up_to = 0
        self._frames, _ = simulate(REGIMES[3], _DIFFERENT, size, np.random.default_rng(0))

    @property
    def nbytes(self) -> int:
        """Size of the whole movie [bytes]."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, frames: slice) -> npt.NDArray[np.uint16]:
        self.read_up_to = frames.stop
        return np.take(self._frames, range(frames.start, frames.stop), axis=0, mode="wrap")


class CountingStore(MemoryStore):
    """A store that counts bytes, and keeps only the metadata and the first object, which is read back."""

    def __init__(self, movie: LongMovie) -> None:
        super().__init__()
        self.stored = 0
        self.parts = [Part(time.perf_counter())]
        self._movie = movie

    async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
        """Count chunks; keep the first chunk and everything else."""
        if not key.startswith("c/") or key == "c/0/0/0":
            await super().set(key, value, byte_range)
        if not key.startswith("c/"):
            return
        self.stored += len(value)
        # objects come in order, one at a time
        while len(self.parts) < min(_PARTS, 1 + self._movie.read_up_to * _PARTS // self._movie.shape[0]):
            self.parts.append(Part(time.perf_counter()))


def store(movie: LongMovie, profile: str) -> tuple[CountingStore, int, float]:
    """Store a movie; return the store with the parts, the memory before and the time at the end."""
    first, _ = simulate(REGIMES[3], 64, 128, np.random.default_rng(1))
    write_movie(MemoryStore(), first, profile=profile, progress=False)  # what is imported is not the movie's memory
    before, done = status()["RssAnon"], threading.Event()
    target = CountingStore(movie)

    def watch() -> None:
        while not done.wait(0.005):
            target.parts[-1].peak = max(target.parts[-1].peak, status()["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        write_movie(target, movie, profile=profile, progress=False)
    finally:
        done.set()
        watcher.join()
    return target, before, time.perf_counter()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=50, help="size of the movie, uint16")
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame")
    parser.add_argument("--profile", default="standard", help="the profile to store with")
    options = parser.parse_args()
    movie = LongMovie(round(options.gigabytes * 1e9 / 2 / options.size**2), options.size)
    target, before, end = store(movie, options.profile)
    print(f"{machine()}\n")
    print(
        f"{movie.shape[0]} frames of {options.size}x{options.size}, {movie.nbytes / 1e9:.1f} GB, stored in "
        f"{target.stored / 1e9:.2f} GB ({options.profile}) in {end - target.parts[0].began:.0f} s\n"
    )
    ends = [part.began for part in target.parts[1:]] + [end]
    rows = [
        [
            f"{movie.nbytes * (index + 1) / _PARTS / 1e9:.1f}",
            f"{(part.peak - before) / 1e6:.0f}",
            f"{movie.nbytes / _PARTS / 1e6 / (stop - part.began):.0f}",
        ]
        for index, (part, stop) in enumerate(zip(target.parts, ends, strict=True))
    ]
    print(table(("stored up to [GB]", "peak anonymous memory [MB]", "write [MB/s]"), rows))


if __name__ == "__main__":
    main()
