"""The entropy coder beside others on the codes of five simulated movies. Prints tables of ratios, speeds and scaling.

    pip install -e ".[benchmarks]"
    python benchmarks/dense.py

All code the same codes, at the true noise model, in chunks of 16 frames of 512x512, on one thread, without a store. The
coders take turns on each chunk, and every decoded chunk is compared with its codes. A coder that is not installed is
left out with a line that says so. PYMECompress is not in the extra: it builds on Python 3.11 only, from its source,
where numpy, Cython and setuptools are there already (``pip install --no-build-isolation pymecompress``).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from common import Counts, Regime, chosen, machine, seconds, simulate, table
from compression import codes_of, plain_limit
from peers import Codes, Peer, Trial, find_peers, ours

_CHUNK_FRAMES = 16

#: Chunk lengths whose efficiency is shown.
_LENGTHS = (16, 32, 64)

#: Passes over the chunks with one thread and two, for each repetition: a pass is short.
_PASSES = 3

_PACKAGES = ("numba", "pcodec", "imagecodecs", "pymecompress")


@dataclass(frozen=True)
class Result:
    """Of one coder on one movie: bytes, and MB/s of uint16 counts."""

    size: int
    encode: float
    decode: float


@dataclass(frozen=True)
class Scaling:
    """Of our coder on one movie: MB/s by threads, and share of the Shannon limit by chunk length."""

    encode: dict[int, float]
    decode: dict[int, float]
    shares: dict[int, float]


@dataclass(frozen=True)
class Movie:
    """One regime's counts, and the Shannon limit of their codes [bytes]."""

    regime: Regime
    counts: Counts
    limit: float

    @classmethod
    def simulated(cls, regime: Regime, options: argparse.Namespace) -> Movie:
        """The counts, and the limit from the means that they were drawn with."""
        rng = np.random.default_rng(options.seed)
        counts, means = simulate(regime, options.frames, options.size, rng, means=True)
        return cls(regime, counts, plain_limit(regime, counts, means) * counts.size / 8)

    def chunks(self, length: int = _CHUNK_FRAMES) -> list[Codes]:
        """The codes in chunks of so many frames."""
        chunks = codes_of(self.regime, self.counts, length)
        if chunks[0].dtype != np.uint8:
            raise RuntimeError(f"{self.regime.name}: codes of {chunks[0].dtype}, the image formats here take bytes")
        return chunks


def measure_peers(movie: Movie, peers: Sequence[Peer], repeat: int) -> dict[str, Result | None]:
    """Every coder on every chunk, in turn; nothing for one that ended its process."""
    trials: dict[str, list[list[Trial]]] = {peer.name: [] for peer in peers}
    ended = set()
    for i, chunk in enumerate(movie.chunks()):
        for turn in range(repeat + (i == 0)):
            for peer in peers:
                if peer.name in ended:
                    continue
                try:
                    trial = peer.try_chunk(chunk)
                except BrokenProcessPool:
                    ended.add(peer.name)
                    continue
                if turn == 0:
                    trials[peer.name].append([])
                if i or turn:  # the first of all compiles and loads
                    trials[peer.name][i].append(trial)
    return {name: None if name in ended else _result(movie, of_chunks) for name, of_chunks in trials.items()}


def _result(movie: Movie, of_chunks: list[list[Trial]]) -> Result:
    """Median over the chunks of the medians over the repetitions."""

    def speed(taken: Callable[[Trial], float]) -> float:
        each = [statistics.median(taken(trial) for trial in trials) for trials in of_chunks]
        pixels = [chunk.size for chunk in movie.chunks()]
        return 2e-6 / statistics.median(time / size for time, size in zip(each, pixels, strict=True))

    size = sum(trials[0].size for trials in of_chunks)
    return Result(size, speed(lambda trial: trial.encode), speed(lambda trial: trial.decode))


def measure_scaling(movie: Movie, repeat: int) -> Scaling:
    """Our coder on chunks of several lengths, and on one thread and two that take turns."""
    from dj_photon_codecs.entropy.coder import decode, encode

    chunks = movie.chunks()
    packed = [encode(chunk) for chunk in chunks]
    pools = {threads: ThreadPoolExecutor(threads) for threads in (1, 2)}

    def decode_like(payload: bytes, chunk: Codes) -> Any:
        return decode(payload, chunk.shape, chunk.dtype)

    times: dict[int, tuple[list[float], list[float]]] = {threads: ([], []) for threads in pools}
    for _ in range(_PASSES * repeat):
        for threads, pool in pools.items():
            times[threads][0].append(seconds(lambda pool=pool: list(pool.map(encode, chunks))))
            times[threads][1].append(seconds(lambda pool=pool: list(pool.map(decode_like, packed, chunks))))
    for pool in pools.values():
        pool.shutdown()
    megabytes = 2e-6 * movie.counts.size
    lengths = [length for length in _LENGTHS if length <= len(movie.counts)]
    return Scaling(
        {threads: megabytes / statistics.median(both[0]) for threads, both in times.items()},
        {threads: megabytes / statistics.median(both[1]) for threads, both in times.items()},
        {length: movie.limit / sum(len(encode(chunk)) for chunk in movie.chunks(length)) for length in lengths},
    )


def ratio_rows(
    names: Sequence[str], movies: Sequence[Movie], measured: Sequence[dict[str, Result | None]]
) -> Iterator[list[str]]:
    """The table of ratios, each with its share of the limit."""

    def cell(movie: Movie, result: Result | None) -> str:
        if result is None:
            return "crashed"
        return f"{2 * movie.counts.size / result.size:.2f} ({movie.limit / result.size:.1%})"

    for name in names:
        yield [name, *(cell(movie, of[name]) for movie, of in zip(movies, measured, strict=True))]
    yield ["Shannon limit", *(f"{2 * movie.counts.size / movie.limit:.2f}" for movie in movies)]


def speed_rows(names: Sequence[str], measured: Sequence[dict[str, Result | None]]) -> Iterator[list[str]]:
    """The table of speeds."""
    for name in names:
        results = [of[name] for of in measured]
        yield [name, *("crashed" if r is None else f"{r.encode:.0f} / {r.decode:.0f}" for r in results)]


def scaling_row(movie: Movie, scaling: Scaling) -> list[str]:
    """Of one movie: one thread, two threads and the factor, both ways; then the shares."""
    cells = [movie.regime.name]
    for speeds in (scaling.encode, scaling.decode):
        cells += [f"{speeds[1]:.0f}", f"{speeds[2]:.0f}", f"{speeds[2] / speeds[1]:.2f}"]
    return cells + [f"{scaling.shares[n]:.1%}" if n in scaling.shares else "-" for n in _LENGTHS]


def versions() -> str:
    """The versions of what is measured, where it is installed."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame, a multiple of 4")
    parser.add_argument("--regimes", default="all", help="numbers from 0, with commas, or all")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions on each chunk; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numcodecs.blosc.set_nthreads(1)
    movies = [Movie.simulated(regime, options) for regime in chosen(options.regimes)]
    others, missing = find_peers()
    peers = [ours(), *others]
    measured = [measure_peers(movie, peers, options.repeat) for movie in movies]
    scaling = [measure_scaling(movie, options.repeat) for movie in movies]
    names = [peer.name for peer in peers]
    head = ["coder", *(f"{movie.regime.photons:g} ph., gain {movie.regime.gain:g}" for movie in movies)]
    print(f"{machine()}, {versions()}")
    print(
        f"{options.frames} frames of {options.size}x{options.size} uint16, {options.repeat} repetitions, one thread\n"
    )
    for line in missing:
        print(f"{line}\n")
    print("Ratio to the uint16 counts, and share of the Shannon limit reached:\n")
    print(table(head, ratio_rows(names, movies, measured)))
    print("\nEncoding / decoding [MB/s of uint16 counts]:\n")
    print(table(head, speed_rows(names, measured)))
    print("\nOur coder on one thread and two [MB/s of uint16 counts], and its share of the limit by chunk length:\n")
    head = ["regime", *(f"{way}{column}" for way in ("encode, ", "decode, ") for column in ("1", "2", "factor"))]
    head += [f"{length} frames" for length in _LENGTHS]
    print(table(head, [scaling_row(movie, of) for movie, of in zip(movies, scaling, strict=True)]))


if __name__ == "__main__":
    main()
