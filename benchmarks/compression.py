"""Compare compressors on the codes of five simulated movies. Prints a table of ratios and one of speeds.

    python benchmarks/compression.py

Chunks of 16 frames of 512x512, one thread, no store. A star marks the compressor that the ``standard`` profile picks.

Needs scipy (in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
from common import REGIMES, Regime, limit_bits, machine, seconds, simulate, table
from numcodecs.abc import Codec

from dj_photon_codecs.anscombe.codes import encode, smallest_code_dtype
from dj_photon_codecs.storage.compression import choose_compressor

_CHUNK_FRAMES = 16

#: Blosc's numbers. Byte shuffle (1) is left out because it does not change one-byte codes.
_SHUFFLES = {"": 0, "bitshuffle": 2}


def candidates() -> dict[str, Codec]:
    """Return the compressors by name: those that the package tries, and more."""
    found: dict[str, Codec] = {f"zstd-{level}": numcodecs.Zstd(level) for level in (1, 3, 9)}
    for shuffle, number in _SHUFFLES.items():
        for level in (1, 3, 5, 9):
            found[f"blosc zstd-{level} {shuffle}".strip()] = numcodecs.Blosc("zstd", level, number)
        found[f"blosc lz4-5 {shuffle}".strip()] = numcodecs.Blosc("lz4", 5, number)
    return found


@dataclass(frozen=True)
class Result:
    """Results of a compressor on a movie: ratio to the uint16 counts, and speed in MB/s of counts."""

    ratio: float
    encode: float
    decode: float
    taken: bool


def codes_of(regime: Regime, counts: npt.NDArray[np.uint16], length: int = _CHUNK_FRAMES) -> list[npt.NDArray[Any]]:
    """Return the codes of each chunk at the true noise model, in the smallest dtype that holds all of them."""
    parameters = replace(regime.parameters, dither="position")
    chunks = [encode(counts[i : i + length], parameters) for i in range(0, len(counts), length)]
    low, high = min(chunk.min() for chunk in chunks), max(chunk.max() for chunk in chunks)
    smallest = smallest_code_dtype(float(low), float(high))
    assert smallest is not None
    return [chunk.astype(smallest) for chunk in chunks]


def plain_limit(regime: Regime, counts: npt.NDArray[np.uint16], means: Any) -> float:
    """Return the Shannon limit of plain codes, without dither, for a step; see :func:`~common.limit_bits`."""
    return limit_bits(means, lambda t: encode(counts[t], regime.parameters))


def measure(regime: Regime, frames: int, size: int, rng: np.random.Generator) -> tuple[dict[str, Result], float]:
    """Run every compressor on the movie's chunks, and compute the largest possible ratio."""
    counts, means = simulate(regime, frames, size, rng, means=True)
    chunks = codes_of(regime, counts)
    taken = repr(choose_compressor(chunks[len(chunks) // 2]))
    results = {}
    for name, compressor in candidates().items():
        packed = [compressor.encode(chunk) for chunk in chunks]
        encode = statistics.median(seconds(compressor.encode, chunk) / chunk.size for chunk in chunks)
        decode = statistics.median(
            seconds(compressor.decode, part) / chunk.size for part, chunk in zip(packed, chunks, strict=True)
        )
        ratio = counts.nbytes / sum(len(part) for part in packed)
        results[name] = Result(ratio, 2e-6 / encode, 2e-6 / decode, repr(compressor) == taken)
    return results, 16 / plain_limit(regime, counts, means)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numcodecs.blosc.set_nthreads(1)
    rng = np.random.default_rng(options.seed)
    measured = [measure(regime, options.frames, options.size, rng) for regime in REGIMES]
    names = list(candidates())
    head = ["compressor", *(f"{r.photons:g} ph., gain {r.gain:g}" for r in REGIMES)]
    print(f"{machine()}\n{options.frames} frames of {options.size}x{options.size} uint16, one thread\n")
    print("Ratio to the uint16 counts; a star marks what the trial takes:\n")
    ratios = [
        [name, *(f"{results[name].ratio:.2f}" + ("*" if results[name].taken else "") for results, _ in measured)]
        for name in names
    ]
    ratios.append(["Shannon limit", *(f"{limit:.2f}" for _, limit in measured)])
    print(table(head, ratios))
    print("\nEncoding / decoding [MB/s of uint16 counts]:\n")
    speeds = [
        [name, *(f"{results[name].encode:.0f} / {results[name].decode:.0f}" for results, _ in measured)]
        for name in names
    ]
    print(table(head, speeds))


if __name__ == "__main__":
    main()
