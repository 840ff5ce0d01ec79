"""How fast and how small, beside zarr with anscombe-transform and Blosc, in the same run. Prints one table.

    python benchmarks/speed_and_size.py

Five simulated movies, 300 frames of 512x512 uint16, in a temporary folder. The peer is a zarr array with the
AnscombeTransformV3 codec of anscombe-transform (given the true gain and zero level) and Blosc zstd-5 with bit-shuffle,
in chunks of 100 frames. The profiles and the peer take turns; medians are shown. Ours find the gain themselves, within
their time of writing.

Needs scipy and anscombe-transform (both in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from operator import getitem
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from anscombe_transform import AnscombeTransformV3 as PeerTransform
from common import REGIMES, Counts, Means, Regime, chosen, limit_bits, machine, seconds, simulate, table
from zarr.codecs import BloscCodec
from zarr.registry import register_codec
from zarr.storage import MemoryStore

from dj_photon_codecs import Calibration, PhotonArray, open_movie, write_movie
from dj_photon_codecs.anscombe.dithered import encode_dithered
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.anscombe.transform import encode_counts

#: Frames for which the peer's frame-by-frame iteration is timed: it decodes a whole chunk for each.
_PEER_FRAMES = 20

_RANDOM_FRAMES = 30

#: Full reads of each folder: the first ones compete with the system for what was just written.
_READS = 3

_PROFILES = ("standard", "dense")

_HEAD = (
    "regime",
    "profile",
    "write [MB/s]",
    "x peer",
    "read [MB/s]",
    "x peer",
    "iterate [frames/s]",
    "x peer",
    "random frame [ms]",
    "peer's [ms]",
    "ratio",
    "blosc",
    "zstd-1",
    "limit",
    "peer's ratio",
    "worst error [sigma]",
    "peer's worst error [sigma]",
)

_LEGEND = f"""\
MB/s of raw counts; writing includes the calibration. x peer: the peer's time over ours. Frame by frame, the peer was
timed on {_PEER_FRAMES} frames only. A random frame: the first on a new handle. blosc, zstd-1: Blosc zstd-5 with
bit-shuffle, and zstd level 1, on the same codes in the same chunks. limit: 16 bits over the entropy of the codes given
the true mean of every pixel. Errors in units of the noise at the true gain and zero level."""


@dataclass
class Times:
    """Seconds of each repetition, by what was done."""

    write: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    frame: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """Compression ratios: of the whole file, of two compressors on the same codes and chunks, and at most."""

    ours: float
    blosc: float
    zstd: float
    limit: float
    peer: float


def use_peer_codec() -> None:
    """Have zarr decode ``anscombe-v1`` with the peer's own class: this package reads that format as well."""
    register_codec("anscombe-v1", PeerTransform)
    zarr.config.set({"codecs.anscombe-v1": f"{PeerTransform.__module__}.{PeerTransform.__qualname__}"})


def write_peer(path: Path, counts: Counts, regime: Regime) -> None:
    """Write the movie as the peer's documentation does."""
    array = zarr.create_array(
        path,
        shape=counts.shape,
        dtype=counts.dtype,
        chunks=(min(100, len(counts)), *counts.shape[1:]),
        filters=[
            PeerTransform(zero_level=int(regime.zero_level), conversion_gain=float(regime.gain), decoded_dtype="uint16")
        ],
        compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=1)],
        fill_value=0,
    )
    array[:] = counts


def iterate(array: Any, frames: int) -> None:
    """Frame by frame, as a user's loop does."""
    for i in range(frames):
        array[i]


def time_ours(path: Path, counts: Counts, profile: str, frames: list[int], times: Times) -> None:
    """Time one folder of ours, and keep it for what follows."""
    times.write.append(seconds(write_movie, path, counts, profile=profile, progress=False))
    times.read.extend(seconds(getitem, open_movie(path), ...) for _ in range(_READS))
    movie = open_movie(path)
    times.frame.append(seconds(iterate, movie, len(movie)) / len(movie))
    times.random.extend(seconds(getitem, open_movie(path), i) for i in frames)


def time_peer(path: Path, counts: Counts, regime: Regime, frames: list[int], times: Times) -> None:
    """Time one folder of the peer."""
    times.write.append(seconds(write_peer, path, counts, regime))
    times.read.extend(seconds(getitem, zarr.open_array(path, mode="r"), ...) for _ in range(_READS))
    few = min(_PEER_FRAMES, len(counts))
    times.frame.append(seconds(iterate, zarr.open_array(path, mode="r"), few) / few)
    times.random.extend(seconds(getitem, zarr.open_array(path, mode="r"), i) for i in frames)


def transform_of(movie: PhotonArray) -> TransformParameters:
    """The transform that a stored movie was coded with."""
    codec: Any = movie.metadata.codecs[0].codecs[0]  # type: ignore[union-attr]
    return TransformParameters(
        zero_level=codec.zero_level,
        conversion_gain=codec.conversion_gain,
        encoded_dtype=codec.encoded_dtype,
        decoded_dtype=codec.decoded_dtype,
        step=codec.step,
    )


def measure_sizes(movie: PhotonArray, peer: Path, counts: Counts, means: Means) -> Sizes:
    """Ratios of the stored movie, and of others on its codes in its chunks."""
    parameters = transform_of(movie)
    compressors = (numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE), numcodecs.Zstd(1))
    sizes = [0, 0]
    length = movie.chunks[0]
    for start in range(0, len(counts), length):
        codes = encode_dithered(counts[start : start + length], parameters)
        for i, compressor in enumerate(compressors):
            sizes[i] += len(compressor.encode(codes))
    plain = replace(parameters, encoded_dtype="int32")  # codes of less than a count reach further
    bits = limit_bits(means, lambda t: encode_counts(counts[t], plain))
    peer_bytes = sum(file.stat().st_size for file in peer.rglob("*") if file.is_file())
    return Sizes(
        movie.compression_ratio,
        counts.nbytes / sizes[0],
        counts.nbytes / sizes[1],
        16 / bits,
        counts.nbytes / peer_bytes,
    )


def worst_error(stored: Any, counts: Counts, regime: Regime) -> float:
    """Largest change of a count, in standard deviations of the noise at the larger of before and after."""
    worst = 0.0
    for start in range(0, len(counts), 100):
        before: npt.NDArray[np.float32] = counts[start : start + 100].astype(np.float32)
        after: npt.NDArray[np.float32] = np.asarray(stored[start : start + 100], np.float32)
        worst = max(worst, float((np.abs(after - before) / regime.sigma(np.maximum(before, after))).max()))
    return worst


def measure(regime: Regime, options: argparse.Namespace) -> list[list[str]]:
    """The rows of a regime: one for each profile."""
    rng = np.random.default_rng(options.seed)
    counts, means = simulate(regime, options.frames, options.size, rng, means=True)
    mine, theirs = {profile: Times() for profile in _PROFILES}, Times()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for i in range(options.repeat):
            frames = rng.integers(0, len(counts), math.ceil(_RANDOM_FRAMES / options.repeat)).tolist()
            for profile in _PROFILES:
                time_ours(folder / f"{profile}{i}", counts, profile, frames, mine[profile])
            time_peer(folder / f"peer{i}", counts, regime, frames, theirs)
        for profile in _PROFILES:
            movie, array = open_movie(folder / f"{profile}0"), zarr.open_array(folder / "peer0", mode="r")
            sizes = measure_sizes(movie, folder / "peer0", counts, means)
            errors = worst_error(movie, counts, regime), worst_error(array, counts, regime)
            rows.append([regime.name, profile, *figures(mine[profile], theirs, sizes, errors, counts.nbytes / 1e6)])
    return rows


def figures(mine: Times, theirs: Times, sizes: Sizes, errors: tuple[float, float], megabytes: float) -> list[str]:
    """What stands in a row behind its names."""
    median = statistics.median
    return [
        f"{megabytes / median(mine.write):.0f}",
        f"{median(theirs.write) / median(mine.write):.2f}",
        f"{megabytes / median(mine.read):.0f}",
        f"{median(theirs.read) / median(mine.read):.2f}",
        f"{1 / median(mine.frame):.0f}",
        f"{median(theirs.frame) / median(mine.frame):.0f}",
        f"{1e3 * median(mine.random):.1f}",
        f"{1e3 * median(theirs.random):.0f}",
        *(f"{ratio:.2f}" for ratio in (sizes.ours, sizes.blosc, sizes.zstd, sizes.limit, sizes.peer)),
        f"{errors[0]:.2f}",
        f"{errors[1]:.2f}" + (" (wrong counts)" if errors[1] > 1 else ""),
    ]


def compile_once() -> None:
    """Have the loops of the entropy coder compiled, or loaded, before anything is timed."""
    counts, _ = simulate(REGIMES[3], 20, 64, np.random.default_rng(0))
    noise = Calibration.given(REGIMES[3].gain, REGIMES[3].zero_level)
    write_movie(MemoryStore(), counts, calibration=noise, profile="dense", progress=False)[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, default=512, help="height and width of a frame")
    parser.add_argument("--regimes", default="all", help="numbers from 0, with commas, or all")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to write; the system's temporary folder when not given")
    options = parser.parse_args()
    use_peer_codec()
    print(
        f"{machine()}\n{options.frames} frames of {options.size}x{options.size} uint16, {options.repeat} repetitions\n"
    )
    compile_once()
    print(table(_HEAD, [row for regime in chosen(options.regimes) for row in measure(regime, options)]))
    print(f"\n{_LEGEND}")


if __name__ == "__main__":
    main()
