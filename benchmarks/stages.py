"""Processor time of the stages of storing and reading a movie: transform, coder, files, everything else.

    python benchmarks/stages.py

Each stage is timed separately, on the movie's own chunks. The rest is the time that storing or reading takes beyond the
sum of the stages: Zarr, checksums, memory for results, copies, Python, and threads waiting for each other.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from common import REGIMES, Counts, Regime, chosen, machine, simulate, table

from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs.anscombe.codes import decode as decode_codes
from dj_photon_codecs.anscombe.codes import encode as encode_counts
from dj_photon_codecs.anscombe.tables import LONG_WORK, prepare
from dj_photon_codecs.entropy import coder

#: Frames in a chunk of 512 x 512.
CHUNK = 16

#: Repetitions of each measurement.
REPEAT = 4


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=1024, help="frames of each movie, a multiple of 16")
    options.add_argument("--size", type=int, default=512, help="height and width")
    options.add_argument("--regimes", default="1,3", help=f"numbers from 0 to {len(REGIMES) - 1}, or all")
    given = options.parse_args()
    prepare(LONG_WORK)
    rows = []
    for regime in chosen(given.regimes):
        block, _ = simulate(regime, min(128, given.frames), given.size, np.random.default_rng(0))
        counts = np.resize(block, (given.frames, given.size, given.size))
        for profile in ("standard", "dense"):
            rows += measure(regime, counts, profile)
    print(f"{given.frames} frames of {given.size} x {given.size} uint16, {machine()}\n")
    head = ["regime", "profile", "", "total", "transform", "coder", "files", "rest", "rest of it [%]"]
    print("Milliseconds of processor time a frame, of all threads:\n")
    print(table(head, rows))


def measure(regime: Regime, counts: Counts, profile: str) -> list[list[str]]:
    """Return a row for each direction."""
    folder = Path(tempfile.mkdtemp())
    noise = Calibration.given(regime.gain, regime.zero_level)
    try:
        write_movie(folder / "warm", counts[:CHUNK], calibration=noise, profile=profile)
        numbers = iter(range(REPEAT))
        written = cpu(lambda: write_movie(folder / f"{next(numbers)}", counts, calibration=noise, profile=profile))
        assert open_movie(folder / "warm")[:].shape == counts[:CHUNK].shape
        read = cpu(lambda: open_movie(folder / "0")[:])
        movie = open_movie(folder / "0")
        inner: Any = movie.metadata.codecs[0].codecs  # type: ignore[union-attr]  # stored with shards
        parameters = inner[0].parameters(counts.dtype)
        chunks = [counts[start : start + CHUNK] for start in range(0, len(counts), CHUNK)]
        codes = [encode_counts(chunk, parameters) for chunk in chunks]
        encode, decode = coders(profile, inner, codes[0])
        payloads = [encode(chunk) for chunk in codes]
        files = [path for path in (folder / "0" / "c").rglob("*") if path.is_file()]
        content = [path.read_bytes() for path in files]
        parts_written = (
            each(lambda chunk: encode_counts(chunk, parameters), chunks),
            each(encode, codes),
            each((folder / "copy").write_bytes, content),
        )
        parts_read = (
            each(lambda chunk: decode_codes(chunk, parameters), codes),
            each(decode, payloads),
            each(Path.read_bytes, files),
        )
    finally:
        shutil.rmtree(folder)
    return [
        row(regime, profile, "write", written, parts_written, len(counts)),
        row(regime, profile, "read", read, parts_read, len(counts)),
    ]


def coders(profile: str, inner: Any, sample: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the functions that compress and decompress the codes of a stored movie."""
    if profile == "dense":
        return coder.encode, lambda payload: coder.decode(payload, sample.shape, sample.dtype)
    config = inner[2].to_dict()["configuration"]
    if inner[2].to_dict()["name"] == "zstd":
        codec: Any = numcodecs.Zstd(level=config["level"])
    else:
        shuffle = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[config["shuffle"]]
        codec = numcodecs.Blosc(cname=config["cname"], clevel=config["clevel"], shuffle=shuffle)
    return codec.encode, codec.decode


def cpu(work: Callable[[], object]) -> float:
    """Return the shortest of several processor times of a call, all threads [s]; the first also touches new memory."""
    taken = []
    for _ in range(REPEAT):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def each(work: Callable[[Any], object], values: Sequence[Any]) -> float:
    """Return the processor time of a function on several values; its results are dropped."""

    def all_of_them() -> None:
        for value in values:
            work(value)

    return cpu(all_of_them)


def row(
    regime: Regime, profile: str, direction: str, total: float, parts: tuple[float, float, float], frames: int
) -> list[str]:
    """Format a line of the table, in milliseconds per frame."""
    rest = total - sum(parts)
    shown = [f"{1000 * seconds / frames:.2f}" for seconds in (total, *parts, rest)]
    return [regime.name, profile, direction, *shown, f"{100 * rest / total:.0f}"]


if __name__ == "__main__":
    main()
