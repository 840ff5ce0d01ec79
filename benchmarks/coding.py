"""The entropy coder compared with others, on the same dithered codes, at the true noise model, 16 frames per chunk.

One thread, no store. The coders take turns on each chunk, and every decoded chunk is compared with its codes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from coders import Codes, Peer, Trial, find_peers, ours, pymecompress
from common import Counts, Regime, chosen, seconds, simulate
from compression import codes_of, plain_limit
from worker import Crashed, Process

_CHUNK_FRAMES = 16

#: Chunk lengths to compare [frames].
_LENGTHS = (16, 32, 64)

#: Passes over the chunks per repetition, with one thread and with two, because a pass is short.
_PASSES = 3

#: A coder that takes longer than this for a chunk runs only once on it [s].
_LONG = 0.25

Record = dict[str, Any]


@dataclass(frozen=True)
class Movie:
    """The counts of a regime, and the Shannon limit of their codes [bytes]."""

    regime: Regime
    counts: Counts
    limit: float

    @classmethod
    def simulated(cls, regime: Regime, options: argparse.Namespace) -> Movie:
        """Simulate the counts, and compute the limit from their true means."""
        rng = np.random.default_rng(options.seed)
        counts, means = simulate(regime, options.coded_frames, options.size, rng, means=True)
        return cls(regime, counts, plain_limit(regime, counts, means) * counts.size / 8)

    def chunks(self, length: int = _CHUNK_FRAMES) -> list[Codes]:
        """Return the codes in chunks of ``frames`` frames."""
        chunks = codes_of(self.regime, self.counts, length)
        if chunks[0].dtype != np.uint8:
            raise RuntimeError(f"{self.regime.name}: codes of {chunks[0].dtype}, the image formats here take bytes")
        return chunks


def measure_coders(options: argparse.Namespace, python: str | None, say: Callable[[str], None]) -> list[Record]:
    """Run every coder on every regime; ``python`` is the interpreter of PYMECompress's environment."""
    numcodecs.blosc.set_nthreads(1)
    others, missing = find_peers()
    for line in missing:
        say(line)
    records = []
    with ExitStack() as opened:
        for regime in chosen(options.coded_regimes):
            say(f"codes: {regime.name}")
            movie, peers = Movie.simulated(regime, options), [ours(), *others]
            if python is not None:  # a new process: the last one may have ended
                process = Process("PYMECompress, half a sigma", python)
                peers.append(pymecompress(opened.enter_context(closing(process))))
            for name, of_chunks in _trials(movie, peers, options.repeat).items():
                record = {"coder": name, "regime": regime.name, "bytes": movie.counts.nbytes}
                records.append(record | (_result(movie, of_chunks) if of_chunks else {"crashed": True}))
            records[-len(peers)] |= _scaling(movie, options.repeat)
    return records


def _trials(movie: Movie, peers: Sequence[Peer], repeat: int) -> dict[str, list[list[Trial]]]:
    """Run all coders on every chunk, taking turns; a coder that crashes its process has no results."""
    chunks = movie.chunks()
    trials: dict[str, list[list[Trial]]] = {peer.name: [[] for _ in chunks] for peer in peers}
    ended: set[str] = set()
    few = np.ascontiguousarray(chunks[0][:, :64, :64])  # compiles and loads
    turns = [(chunk, of) for of, chunk in enumerate(chunks) for _ in range(repeat)]
    for chunk, of in [(few, None), *turns]:
        for peer in peers:
            of_chunk = [] if of is None else trials[peer.name][of]
            if peer.name in ended or (of_chunk and of_chunk[0].encode > _LONG):
                continue
            try:
                of_chunk.append(peer.try_chunk(chunk))
            except Crashed:
                ended.add(peer.name)
    return {name: [] if name in ended else of_chunks for name, of_chunks in trials.items()}


def _result(movie: Movie, of_chunks: list[list[Trial]]) -> Record:
    """Return sizes, and the median over chunks of the median time over turns."""

    def speed(taken: Callable[[Trial], float]) -> float:
        each = [statistics.median(taken(trial) for trial in trials) for trials in of_chunks]
        pixels = [chunk.size for chunk in movie.chunks()]
        return 2e-6 / statistics.median(time / size for time, size in zip(each, pixels, strict=True))

    return {
        "coded": sum(trials[0].size for trials in of_chunks),
        "limit": movie.limit,
        "encode [MB/s]": speed(lambda trial: trial.encode),
        "decode [MB/s]": speed(lambda trial: trial.decode),
    }


def _scaling(movie: Movie, repeat: int) -> Record:
    """Run our coder on chunks of several lengths, and on one and two threads, taking turns."""
    from dj_photon_codecs.entropy.coder import decode, encode

    chunks = movie.chunks()
    packed = [encode(chunk) for chunk in chunks]
    pools = {threads: ThreadPoolExecutor(threads) for threads in (1, 2)}

    def decode_like(payload: bytes, chunk: Codes) -> Any:
        return decode(payload, chunk.shape, chunk.dtype)

    times: dict[str, list[float]] = {}
    for _ in range(_PASSES * repeat):
        for threads, pool in pools.items():
            for way, work in (
                ("encode", lambda pool=pool: list(pool.map(encode, chunks))),
                ("decode", lambda pool=pool: list(pool.map(decode_like, packed, chunks))),
            ):
                times.setdefault(f"{way}, {threads} threads [MB/s]", []).append(seconds(work))
    for pool in pools.values():
        pool.shutdown()
    lengths = [length for length in _LENGTHS if length <= len(movie.counts)]
    return {
        **{name: movie.counts.nbytes / 1e6 / statistics.median(taken) for name, taken in times.items()},
        "share by chunk frames": {
            str(length): movie.limit / sum(len(encode(chunk)) for chunk in movie.chunks(length)) for length in lengths
        },
    }
