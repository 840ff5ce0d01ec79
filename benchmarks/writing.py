"""Write speed compared with blosc2 (Zstd level 5, bitshuffle), in one process, taking turns. Prints one table.

    python benchmarks/writing.py

A simulated movie in memory (5 photons per pixel, gain 100) is written to a temporary folder, including measuring its
noise. The first turn of each method is a warm-up; the best of the others counts. Processor time is the sum over all
threads, and more reliable than wall time on a busy machine. ``--threads 16`` shows how many chunks 16 threads encode at
a time, even on a machine with fewer cores.

Needs scipy (in the ``dev`` extra) and blosc2 (in the ``benchmarks`` extra).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import zarr
from common import REGIMES, Counts, machine, simulate, table

from dj_photon_codecs import write_movie
from dj_photon_codecs.storage.object_writer import ObjectWriter

#: Number of different frames, which the movie repeats.
_DIFFERENT = 128

_PROFILES = ("standard", "dense")


class InHand:
    """Number of chunks being encoded, over time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now, self._since = 0, 0.0
        self.seconds: dict[int, float] = {}

    def watch(self, encode: Callable[..., bytes]) -> Callable[..., bytes]:
        """Wrap a method that encodes a chunk, to count its calls."""

        def counted(*arguments: Any) -> bytes:
            self._change(1)
            try:
                return encode(*arguments)
            finally:
                self._change(-1)

        return counted

    def _change(self, by: int) -> None:
        with self._lock:
            now = time.perf_counter()
            if self._now:
                self.seconds[self._now] = self.seconds.get(self._now, 0.0) + now - self._since
            self._now, self._since = self._now + by, now

    @property
    def mean(self) -> float:
        """Mean number of chunks encoded at a time, while there are any."""
        return sum(n * seconds for n, seconds in self.seconds.items()) / sum(self.seconds.values())


def by_blosc2(place: Path, counts: Counts) -> None:
    """Write with blosc2."""
    place.mkdir()
    parameters = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=5, filters=[blosc2.Filter.BITSHUFFLE])
    blosc2.asarray(
        counts, urlpath=str(place / "movie.b2nd"), mode="w", chunks=(16, *counts.shape[1:]), cparams=parameters
    )


def by_profile(profile: str, place: Path, counts: Counts) -> None:
    """Write with this package."""
    write_movie(place, counts, profile=profile, progress=False)


def measure(write: Callable[[Path, Counts], object], counts: Counts) -> tuple[float, float, int]:
    """Return wall time [s], processor time [s] and stored bytes."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "movie"
        busy, start = time.process_time(), time.perf_counter()
        write(place, counts)
        took, busy = time.perf_counter() - start, time.process_time() - busy
        stored = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        shutil.rmtree(place)
    return took, busy, stored


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=2000, help="frames of the movie")
    options.add_argument("--size", type=int, default=512, help="height and width of a frame")
    options.add_argument("--repeat", type=int, default=3, help="turns of each way after the first")
    options.add_argument("--threads", type=int, default=2, help="threads of each way")
    given = options.parse_args()
    blosc2.set_nthreads(given.threads)
    zarr.config.set({"threading.max_workers": given.threads})
    block, _ = simulate(REGIMES[3], min(_DIFFERENT, given.frames), given.size, np.random.default_rng(0))
    counts = np.resize(block, (given.frames, given.size, given.size))
    ways: dict[str, Callable[[Path, Counts], object]] = {"blosc2": by_blosc2}
    ways |= {profile: partial(by_profile, profile) for profile in _PROFILES}
    in_hand = dict.fromkeys(ways, "")
    best: dict[str, tuple[float, float, int]] = {}
    encode = ObjectWriter._encode
    for turn in range(given.repeat + 1):
        for name, write in ways.items():
            watched = InHand()
            ObjectWriter._encode = watched.watch(encode)  # type: ignore[method-assign]
            took = measure(write, counts)
            if turn:
                before = best.get(name, took)
                best[name] = min(took[0], before[0]), min(took[1], before[1]), took[2]
                in_hand[name] = f"{watched.mean:.1f}" if watched.seconds else "-"
    (clock, processors, stored), megabytes = best["blosc2"], counts.nbytes / 1e6
    rows = [
        [
            name,
            f"{megabytes / took:.0f}",
            f"{clock / took:.2f}",
            f"{1000 * busy / megabytes:.2f}",
            f"{processors / busy:.2f}",
            f"{stored / size:.2f}",
            in_hand[name],
        ]
        for name, (took, busy, size) in best.items()
    ]
    print(
        f"{given.frames} frames of {given.size} x {given.size} uint16, {given.threads} threads, {machine('blosc2')}\n"
    )
    head = ("written with", "MB/s", "x blosc2", "processor s/GB", "blosc2's / its", "times smaller", "chunks at a time")
    print(table(head, rows))


if __name__ == "__main__":
    main()
