"""Frames per second that a PhotonWriter can store, and how it keeps up with a camera. Prints one table.

python benchmarks/acquire.py
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import REGIMES, Counts, Regime, chosen, machine, simulate, table
from zarr.codecs import BloscCodec

from dj_photon_codecs import PhotonWriter

#: Number of different frames, which the camera repeats.
SIMULATED = 128

#: The fastest compressor that saves a useful amount.
FASTEST = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=8000, help="frames of each movie")
    options.add_argument("--size", type=int, default=512, help="height and width")
    options.add_argument("--regimes", default="all", help=f"numbers from 0 to {len(REGIMES) - 1}, or all")
    given = options.parse_args()
    rows = []
    for regime in chosen(given.regimes):
        counts, _ = simulate(regime, min(SIMULATED, given.frames), given.size, np.random.default_rng(0))
        for name, compressor in (("by trial", None), ("lz4", FASTEST)):
            rows.append([regime.name, name, *measure(regime, counts, given.frames, compressor)])
    print(f"{given.frames} frames of {given.size} x {given.size} uint16, {machine()}\n")
    head = ["regime", "compressor", "frames/s", "at 1000 frames/s: longest wait [ms]", "most frames behind", "ratio"]
    print(table(head, rows))


def measure(regime: Regime, counts: Counts, frames: int, compressor: BloscCodec | None) -> list[str]:
    """Measure the sustained frame rate, and the delays with a camera of 1000 frames per second."""
    folder = Path(tempfile.mkdtemp())
    try:
        start = time.perf_counter()
        with PhotonWriter(folder / "fast", compressors=compressor) as writer:
            for index in range(frames):
                writer.append(counts[index % len(counts)])
        rate = frames / (time.perf_counter() - start)
        longest, behind = camera(folder / "steady", counts, min(frames, 5000), compressor)
        return [f"{rate:.0f}", f"{1000 * longest:.0f}", f"{behind}", f"{writer.movie.compression_ratio:.2f}"]
    finally:
        shutil.rmtree(folder)


def camera(folder: Path, counts: Counts, frames: int, compressor: BloscCodec | None) -> tuple[float, int]:
    """Simulate a camera of 1000 frames/s; return the longest wait of a frame [s] and the most frames in the queue."""
    longest, behind, clock = 0.0, 0, threading.Event()
    with PhotonWriter(folder, compressors=compressor) as writer:
        start = time.perf_counter()
        for index in range(frames):
            due = start + index / 1000
            clock.wait(max(0.0, due - time.perf_counter()))
            writer.append(counts[index % len(counts)])
            longest = max(longest, time.perf_counter() - due)
            behind = max(behind, writer.backlog)
    return longest, behind


if __name__ == "__main__":
    main()
