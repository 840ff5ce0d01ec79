"""Peak memory while storing a memory-mapped movie, and one in memory. Prints one table. Linux only (reads /proc).

    python benchmarks/memory.py

A separate process stores each movie. Resident memory (RSS) includes pages of the mapped file that the kernel may drop
at any time; anonymous memory does not. Both are relative to the process before storing, after all imports and, for the
movie in memory, with the movie generated.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import REGIMES, machine, seconds, simulate, table

from dj_photon_codecs import write_movie

_MAPPED, _IN_MEMORY = "memory map, uint16", "in memory, int64"

#: Number of different frames, which the movie repeats.
_DIFFERENT = 64


def status() -> dict[str, int]:
    """Return the memory of this process by the kernel's names [bytes]."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return {name: 1024 * int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}


class PeakAnonymous:
    """Highest anonymous memory inside the context, sampled every few milliseconds."""

    def __enter__(self) -> PeakAnonymous:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.003):
            self.bytes = max(self.bytes, status()["RssAnon"])

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def store(path: Path, kind: str, profile: str, frames: int, size: int) -> None:
    """Store the movie in the child process, and print the measurements as JSON."""
    shape = (frames, size, size)
    # modules imported later are not the movie's memory
    first, _ = simulate(REGIMES[3], 64, 128, np.random.default_rng(1))
    write_movie(path.with_suffix(".first"), first, profile=profile, progress=False)
    movie: npt.NDArray[np.integer]
    if kind == _MAPPED:
        movie = np.memmap(path, np.uint16, "r", shape=shape)
    else:
        movie = np.empty(shape, np.int64)
        with path.open("rb") as file:
            for frame in movie:
                frame[:] = np.fromfile(file, np.uint16, frame.size).reshape(frame.shape)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = status()
    with PeakAnonymous() as anonymous:
        took = seconds(write_movie, path.with_suffix(".zarr"), movie, profile=profile, progress=False)
    after = status()
    print(
        json.dumps(
            {
                "movie": movie.nbytes,
                "resident": after["VmHWM"] - before["VmRSS"],
                "anonymous": anonymous.bytes - before["RssAnon"],
                "seconds": took,
            }
        )
    )


def measure(kind: str, profile: str, frames: int, size: int, folder: str | None) -> list[str]:
    """Write the file, let a child process store it, and return a row."""
    different, _ = simulate(REGIMES[3], min(frames, _DIFFERENT), size, np.random.default_rng(0))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "movie.raw"
        with path.open("wb") as file:
            for start in range(0, frames, len(different)):
                different[: frames - start].tofile(file)
        command = [sys.executable, __file__, "--child", str(path), kind, profile, str(frames), str(size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    taken = json.loads(done.stdout.splitlines()[-1])
    return [
        kind,
        profile,
        f"{frames}x{size}x{size}",
        *(f"{taken[name] / 1e6:.0f}" for name in ("movie", "resident", "anonymous")),
        f"{taken['movie'] / 1e6 / taken['seconds']:.0f}",
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mapped-frames", type=int, default=6000, help="frames of the memory-mapped uint16 movie")
    parser.add_argument("--memory-frames", type=int, default=1000, help="frames of the int64 movie in memory")
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame")
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        path, kind, profile, frames, size = options.child
        store(Path(path), kind, profile, int(frames), int(size))
        return
    print(f"{machine()}\n")
    head = ("movie", "profile", "shape", "size [MB]", "peak resident [MB]", "peak anonymous [MB]", "write [MB/s]")
    kinds = {_MAPPED: options.mapped_frames, _IN_MEMORY: options.memory_frames}
    rows = [
        measure(kind, profile, frames, options.size, options.folder)
        for kind, frames in kinds.items()
        for profile in ("standard", "dense")
    ]
    print(table(head, rows))
    print("\nPeaks are above what the process had before it stored the movie.")


if __name__ == "__main__":
    main()
