"""Store and read a movie with every method of ``methods.py``: in a folder, on one core, on S3, and as movies grow.

Each method runs in its own process, which has imported what it needs and holds the movie before anything is timed. The
methods take turns.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import Counts, Means, Regime, chosen, limit_bits, simulate
from compression import plain_limit
from methods import METHODS, ON_S3, Method
from remote import slow_service
from worker import Crashed, Process

_RANDOM_FRAMES = 5

#: A method that takes longer than this for its first turn has no second one [s].
_SLOW = 12.0

#: Memory to touch before timing, in movies: input, stored, and output, twice.
_WARM = 6

#: Most frames on one core and on S3, which are slower.
_FEWER = 300

#: Delay added to each request of the object store [s].
LATENCY = 0.02

#: Number of different frames in the growing movies.
_DIFFERENT = 256

#: Methods that store the growing movies.
_GROWING = ("standard", "dense")

#: Frames per read of the growing movies.
_SCAN_FRAMES = 128

Record = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """A real recording, repeated until it has as many pixels as the others. This package measures its noise.

    Parameters
    ----------
    path
        Anything that ``open_source`` opens.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"two-photon recording {self.path.stem}"

    def load(self, pixels: int) -> tuple[Counts, Regime, Callable[[Any], Any]]:
        """Return the counts, the noise model given to peers, and the noise standard deviation by count."""
        from dj_photon_codecs import calibrate, open_source

        once = np.asarray(open_source(self.path))
        noise = calibrate(once).storage_noise
        counts = np.resize(once, (pixels // once[0].size, *once.shape[1:]))
        told = Regime(float("nan"), noise.conversion_gain, noise.zero_level, float("nan"))
        return counts, told, lambda counts: np.sqrt(noise.variance(counts))


def available(names: str, python: str | None) -> tuple[dict[str, str], list[str]]:
    """Return the interpreter of every method that can be used here, and a line for each that cannot.

    Parameters
    ----------
    names
        Regular expression that matches the names of the wanted methods.
    python
        Interpreter of PYMECompress's environment.
    """
    found, missing = {}, []
    for name, method in METHODS.items():
        if not re.search(names, name):
            continue
        if method.needs != "pymecompress":
            reason = method.missing()
        elif python is None:
            reason = "give the Python of its environment with --pymecompress"
        else:
            tried = subprocess.run([python, "-c", "import pymecompress.bcl"], capture_output=True, text=True)
            reason = tried.stderr.strip().rpartition("\n")[2]
        if reason:
            missing.append(f"Left out: {name} ({reason})")
        else:
            found[name] = python if method.needs == "pymecompress" and python else sys.executable
    return found, missing


@contextmanager
def processes(pythons: dict[str, str], **options: Any) -> Iterator[dict[str, Process]]:
    """Start a process for each method."""
    started = {name: Process(name, python, **options) for name, python in pythons.items()}
    try:
        yield started
    finally:
        for process in started.values():
            process.close()


def load(started: dict[str, Process], movie: Path, regime: Regime, warm: str) -> None:
    """Make all processes load the movie."""
    for i, process in enumerate(started.values()):
        process.send("load", movie=str(movie), noise=[regime.gain, regime.zero_level], warm=f"{warm}{i}")
    for process in started.values():
        process.receive()


def turn(process: Process, place: str, numbers: Sequence[int], record: Record, save: str = "") -> None:
    """Run one turn of a method (write, read, frame by frame, random frames) and add to its record."""
    write = process.ask("write", place=place)
    process.ask("open", place=place)
    read = process.ask("read", save=save)
    record["same"] = read["same"]
    for key, did in (("write", write), ("read", read)):
        record.setdefault(f"{key} [s]", []).append(did["seconds"])
        record.setdefault(f"{key} peak [B]", did["peak"])  # of the first: later ones find memory that was used before
    if numbers:
        process.ask("open", place=place)
        loop = process.ask("loop")
        record.setdefault("frames a second", []).append(loop["frames"] / loop["seconds"])
    for number in numbers:
        process.ask("open", place=place)
        record.setdefault("random frame [s]", []).append(process.ask("frame", number=number)["seconds"])


def errors(sigma: Callable[[Any], Any], counts: Counts, stored: npt.NDArray[np.uint16]) -> Record:
    """Return the largest change [noise sigma at the larger count], and the number of counts off by more than one."""
    worst, wrong, of_count = 0.0, 0, sigma(np.arange(65536.0)).astype(np.float32)
    for before, after in zip(counts, stored, strict=True):
        change = np.abs(after.astype(np.int32) - before) / of_count[np.maximum(before, after)]
        worst = max(worst, float(change.max()))
        wrong += int(np.count_nonzero(change > 1))
    return {"worst error [sigma]": worst, "wrong counts": wrong}


def measure_folder(options: argparse.Namespace, pythons: dict[str, str], say: Callable[[str], None]) -> list[Record]:
    """Measure every method on the recording and every regime, in a folder."""
    # On a virtual machine the first process to use a page of memory waits for it.
    np.ones((_WARM, options.frames, options.size, options.size), np.uint16)
    records = []
    if options.recording is not None:
        recording = Recording(options.recording)
        counts, told, sigma = recording.load(options.frames * options.size**2)
        movie = _Movie(recording.name, counts, told, sigma, {}, None)
        records += _folder(options, movie, pythons, say)
    for regime in chosen(options.regimes) if options.regimes else ():
        rng = np.random.default_rng(options.seed)
        counts, means = simulate(regime, options.frames, options.size, rng, means=True)
        limits = {
            "codes": plain_limit(regime, counts, means),
            "counts": limit_bits(means, counts.__getitem__),
        }
        records += _folder(options, _Movie(regime.name, counts, regime, regime.sigma, limits, means), pythons, say)
    return records


@dataclass(frozen=True)
class _Movie:
    """Let every method store the movie in turn, and return the records."""

    name: str
    counts: Counts
    told: Regime
    sigma: Callable[[Any], Any]
    limits: dict[str, float]
    means: Means | None


def _folder(
    options: argparse.Namespace, movie: _Movie, pythons: dict[str, str], say: Callable[[str], None]
) -> list[Record]:
    """Measure every method on one movie."""
    say(f"folder: {movie.name}")
    counts, rng = movie.counts, np.random.default_rng(options.seed)
    of_method: dict[str, Record] = {name: {"method": name, "regime": movie.name} for name in pythons}
    with tempfile.TemporaryDirectory(dir=options.folder) as name, processes(pythons) as started:
        folder = Path(name)
        np.save(folder / "movie.npy", counts)
        load(started, folder / "movie.npy", movie.told, f"{folder}/warm")
        for repetition in range(options.repeat):
            numbers = rng.integers(0, len(counts), _RANDOM_FRAMES).tolist()
            for process in list(started.values()):
                place, back = folder / "stored", folder / "back.npy"
                record, start = of_method[process.name], time.perf_counter()
                try:
                    turn(process, str(place), numbers, record, "" if repetition else str(back))
                except Crashed as error:
                    say(str(error))
                    record["crashed"] = True
                    started.pop(process.name).close()
                else:
                    if time.perf_counter() - start > _SLOW:
                        started.pop(process.name).close()
                    if not repetition:
                        record |= _sizes(METHODS[process.name], movie, place, back)
                shutil.rmtree(place, ignore_errors=True)
                back.unlink(missing_ok=True)
    return [record | {"bytes": counts.nbytes} for record in of_method.values()]


def _sizes(method: Method, movie: _Movie, place: Path, back: Path) -> Record:
    """Add size, share of the limit, and error to a record."""
    counts = movie.counts
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    found: Record = {"ratio": counts.nbytes / size, "bits": 8 * size / counts.size, "keeps": method.keeps}
    own = method.keeps == "own"
    if movie.limits and not own:
        found["limit bits"] = movie.limits[method.keeps]
    if not back.exists():  # all came back as they were
        return found | {"worst error [sigma]": 0.0, "wrong counts": 0}
    stored = np.load(back, mmap_mode="r")
    if own and movie.means is not None:
        found["limit bits"] = limit_bits(movie.means, lambda t: stored[t])
    return found | errors(movie.sigma, counts, stored)


def measure_one_core(options: argparse.Namespace, pythons: dict[str, str], say: Callable[[str], None]) -> list[Record]:
    """Measure every method on the last regime, in a folder, on one core."""
    regime = chosen(options.regimes)[-1]
    say("one core")
    frames = min(options.frames, _FEWER)
    counts, _ = simulate(regime, frames, options.size, np.random.default_rng(options.seed))
    of_method = {name: {"method": name, "regime": regime.name, "bytes": counts.nbytes} for name in pythons}
    with tempfile.TemporaryDirectory(dir=options.folder) as name, processes(pythons, cores=1) as started:
        folder = Path(name)
        np.save(folder / "movie.npy", counts)
        load(started, folder / "movie.npy", regime, f"{folder}/warm")
        for _ in range(options.repeat):
            for process in list(started.values()):
                try:
                    turn(process, f"{folder}/stored", [], of_method[process.name])
                except Crashed as error:
                    say(str(error))
                    of_method[process.name]["crashed"] = True
                    started.pop(process.name).close()
                shutil.rmtree(folder / "stored", ignore_errors=True)
    return list(of_method.values())


def measure_s3(options: argparse.Namespace, pythons: dict[str, str], say: Callable[[str], None]) -> list[Record]:
    """Measure some methods on an object store, on the last regime: seconds and requests."""
    regime = chosen(options.regimes)[-1]
    rng = np.random.default_rng(options.seed)
    counts, _ = simulate(regime, min(options.frames, _FEWER), options.size, rng)
    chosen_pythons = {name: pythons[name] for name in ON_S3 if name in pythons}
    of_method: dict[str, Record] = {name: {"method": name, "regime": regime.name} for name in chosen_pythons}
    say(f"S3: each request held back for {1e3 * LATENCY:g} ms")
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        slow_service(LATENCY) as service,
        processes(chosen_pythons, environment=service.environment) as started,
    ):
        movie = Path(name) / "movie.npy"
        np.save(movie, counts)
        load(started, movie, regime, f"s3://{service.bucket}/warm")
        for repetition in range(options.repeat):
            for number, process in enumerate(started.values()):
                place, record = f"s3://{service.bucket}/{number}/{repetition}", of_method[process.name]
                frame = int(rng.integers(len(counts)))
                for key, do, arguments in (
                    ("write", "write", {"place": place}),
                    ("read", "read", {}),
                    ("random frame", "frame", {"number": frame}),
                    ("loop", "loop", {}),
                ):
                    if do != "write":
                        process.ask("open", place=place)
                    service.requests()
                    did = process.ask(do, **arguments)
                    frames = did.get("frames", 1)
                    record.setdefault(f"{key} [s]", []).append(did["seconds"] / frames)
                    record.setdefault(f"{key} requests", []).append(service.requests() / frames)
    return [record | {"bytes": counts.nbytes} for record in of_method.values()]


def measure_growth(options: argparse.Namespace, pythons: dict[str, str], say: Callable[[str], None]) -> list[Record]:
    """Measure our profiles on growing movies of the last regime, in new processes; the middle one also on one core."""
    regime = chosen(options.regimes)[-1]
    block, _ = simulate(regime, min(options.frames, _DIFFERENT), options.size, np.random.default_rng(options.seed))
    sizes = [int(float(size) * 1e9) for size in options.gigabytes.split(",")]
    records = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        np.save(folder / "movie.npy", block)
        for number, (cores, size) in enumerate([*((2, size) for size in sizes), (1, sizes[len(sizes) // 2])]):
            frames = max(1, round(size / block[0].nbytes))
            for method in [name for name in _GROWING if name in pythons]:
                say(f"growth: {method}, {frames * block[0].nbytes / 1e9:.2g} GB, {cores} cores")
                process = Process(method, sys.executable, cores)
                noise = [regime.gain, regime.zero_level]
                warm, place = f"{folder}/warm-{method}{number}", folder / "stored"
                try:
                    process.ask("load", movie=str(folder / "movie.npy"), noise=noise, warm=warm, frames=frames)
                    write = process.ask("write", place=str(place))
                    process.ask("open", place=str(place))
                    scan = process.ask("scan", frames=_SCAN_FRAMES)
                finally:
                    process.close()
                stored = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                shutil.rmtree(place)
                records.append(
                    {
                        "method": method,
                        "regime": regime.name,
                        "cores": cores,
                        "bytes": frames * block[0].nbytes,
                        "stored": stored,
                        "write [s]": write["seconds"],
                        "read [s]": scan["seconds"],
                        "write peak [B]": write["peak"],
                        "read peak [B]": scan["peak"],
                    }
                )
    return records
