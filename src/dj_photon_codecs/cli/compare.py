"""Commands that compare: fidelity, benchmark, demo."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from ..options import PROFILES
from .options import NOISE, PLACE, SOURCE, argument, command, opened, option
from .output import CHECK_FAILED, columns, report

#: Noise of the simulated movie: conversion gain [ADU/photon] and zero level [ADU].
_GAIN, _ZERO = 10.0, 100.0


@command(
    "Compare a stored movie with the raw one.",
    argument("raw"),
    argument("stored"),
    option("--plot", "Draw the report to FILE.png, FILE.svg or FILE.pdf (extra viz).", type=PLACE),
    *SOURCE,
)
def fidelity(raw: str, stored: str, plot: str | None, as_json: bool, **which: Any) -> int:
    """Compare the STORED movie with the RAW one that it was written from.

    By intensity: the bias (of the mean, in noise standard deviations), the variance added (in % of the noise variance),
    and the largest change of a count. Then whether the difference is noise, and how close the size comes to the
    minimum for the rounded noise.

    Exit code 1 if a count changed by more than half a step of its noise and half a count.

    \b
    dj-photon fidelity scan.tif scan.zarr
    dj-photon fidelity scan.tif scan.zarr --json --plot report.png
    """
    from .. import open_movie
    from ..fidelity import fidelity_report
    from ..storage.progress import progress_bar

    handle = open_movie(stored)
    with (
        opened(raw, **which) as counts,
        progress_bar("comparing", 2 * counts.shape[0], "frame", None) as advance,  # it is read twice
    ):
        found = fidelity_report(_Watched(counts, advance), handle)
    if plot is not None:
        found.plot(plot)
    report(as_json, found.to_dict(), str(found))
    return 0 if found.within_bound else CHECK_FAILED


class _Watched:
    """A movie whose reading advances a progress bar."""

    def __init__(self, movie: Any, advance: Callable[[int], object]) -> None:
        self._movie, self._advance, self.shape, self.dtype = movie, advance, movie.shape, movie.dtype

    def __getitem__(self, selection: slice) -> Any:
        counts = self._movie[selection]
        self._advance(len(counts))
        return counts


def simulated(frames: int, size: int) -> tuple[Any, Any]:
    """A simulated recording, uint16 (frames, size, size), and its noise-free means, float32 [ADU].

    Cells that flash on an uneven background, shot noise, a pedestal.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:size, :size] / size).astype(np.float32)
    background = 1 + 4 * np.exp(-((y - 0.4) ** 2 + (x - 0.6) ** 2) / 0.1)
    places = rng.random((40, 2, 1, 1), np.float32)
    cells = 20 * np.exp(-((y - places[:, 0]) ** 2 + (x - places[:, 1]) ** 2) / (2 * 0.03**2))
    activity = np.zeros(40)
    counts, means = np.empty((frames, size, size), np.uint16), np.empty((frames, size, size), np.float32)
    for recorded, mean in zip(counts, means, strict=True):
        activity = 0.9 * activity + (rng.random(40) < 0.03)
        light = background + np.tensordot(0.2 + activity.astype(np.float32), cells, 1)
        recorded[:] = np.minimum(_ZERO + _GAIN * rng.poisson(light), 65535)
        mean[:] = _ZERO + _GAIN * light
    return counts, means


class _Cost(NamedTuple):
    """The cost of storing: ratio of bytes, speed in 10^6 bytes of counts a second, latency of one random frame.

    The stored size includes documents, writing includes measuring the noise, and the random frame is read from a movie
    just opened.
    """

    ratio: float
    write_mb_s: float
    read_mb_s: float
    random_frame_ms: float


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cost(write: Callable[[Path], object], read: Callable[[Path], Any], counts: Any, folder: Path) -> _Cost:
    """Write, read and pick frames once."""
    path = folder / "movie.zarr"
    writing = _seconds(lambda: write(path))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    reading = _seconds(lambda: read(path)[:])
    frames = []
    for n in range(9):
        movie, place = read(path), (7919 * n + 5) % len(counts)  # spread without order
        frames.append(_seconds(partial(movie.__getitem__, place)))
    megabytes = counts.nbytes / 1e6
    return _Cost(counts.nbytes / size, megabytes / writing, megabytes / reading, 1e3 * statistics.median(frames))


@command(
    "Measure sizes and speeds on this machine.",
    argument("movie", required=False),
    option("--frames", "How many, from the first.", 300, type=click.IntRange(min=3)),
    option("--size", "Pixels a side of the simulated movie.", 256, type=click.IntRange(min=16)),
    option("--repeat", "Repetitions; medians are reported.", 3, type=click.IntRange(min=1)),
    *NOISE,
    *SOURCE,
)
def benchmark(
    movie: str | None,
    frames: int,
    size: int,
    repeat: int,
    conversion_gain: float | None,
    zero_level: float | None,
    as_json: bool,
    **which: Any,
) -> int:
    """Measure on this machine how small and how fast MOVIE is stored, or a simulated one.

    Compares the profiles standard, dense and portable with lossless Zarr (Blosc with Zstd and bit-shuffle, in chunks
    of the same shape) in the same run, taking turns, in the temporary folder. The frames are in memory: 300 of
    512 x 512 take 160 MB. A movie that is stored already keeps its noise model.

    \b
    ratio         bytes of the movie per byte stored
    write, read   millions of bytes of counts a second, all frames
    random frame  milliseconds for one frame at a random place

    \b
    dj-photon benchmark
    dj-photon benchmark scan.tif --frames 500
    """
    import numpy as np

    from .. import PhotonArray, PhotonMovie

    noise = PhotonMovie(None, conversion_gain=conversion_gain, zero_level=zero_level).noise_model()
    if movie is None:
        counts, _ = simulated(frames, size)
    else:
        with opened(movie, **which) as found:
            counts = np.array(found[: min(frames, found.shape[0])])
            if noise is None and isinstance(found, PhotonArray) and found.record is not None:
                noise = found.calibration
    costs = _costs(counts, repeat, noise)
    shape = " x ".join(map(str, counts.shape))
    lines = [
        f"{movie or 'simulated movie'}: {shape} {counts.dtype}, {counts.nbytes / 1e6:.1f} MB\n",
        f"{'':<24} {'ratio':>7} {'write':>11} {'read':>11} {'random frame':>13}",
    ]
    for name, cost in costs.items():
        lines.append(
            f"{name:<24} {cost.ratio:>7.2f} {cost.write_mb_s:>6.0f} MB/s {cost.read_mb_s:>6.0f} MB/s "
            f"{cost.random_frame_ms:>10.1f} ms"
        )
    rows = [{"name": name, **cost._asdict()} for name, cost in costs.items()]
    document = {"shape": counts.shape, "dtype": str(counts.dtype), "repeat": repeat, "rows": rows}
    report(as_json, document, "\n".join(lines))
    return 0


def _costs(counts: Any, repeat: int, noise: Any) -> dict[str, _Cost]:
    """All ways of storing, taking turns; the first turn, which loads and compiles, is not counted."""
    import zarr
    from tqdm import tqdm
    from zarr.codecs import BloscCodec

    from .. import open_movie, write_movie

    def write_plain(path: Path) -> None:
        blosc = BloscCodec(typesize=counts.dtype.itemsize, cname="zstd", clevel=5, shuffle="bitshuffle")
        array = zarr.create_array(path, shape=counts.shape, dtype=counts.dtype, chunks=chunks, compressors=blosc)
        array[:] = counts

    ways: dict[str, tuple[Callable[[Path], object], Callable[[Path], Any]]] = {
        profile.name: (
            partial(write_movie, movie=counts, calibration=noise, profile=profile.name, progress=False),
            open_movie,
        )
        for profile in PROFILES.values()
        if profile.bounded
    }
    ways["zarr lossless (Blosc)"] = (write_plain, partial(zarr.open_array, mode="r"))
    found: dict[str, list[_Cost]] = {name: [] for name in ways}
    bar = tqdm(desc="measuring", total=(repeat + 1) * len(ways), disable=None, leave=False)
    with bar, tempfile.TemporaryDirectory() as place:
        chunks = write_movie(Path(place) / "first", counts, calibration=noise, progress=False).chunks
        for turn in range(repeat + 1):
            for name, (write, read) in ways.items():
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    cost = _cost(write, read, counts, Path(folder))
                bar.update()
                if turn:
                    found[name].append(cost)
    return {name: _Cost(*map(statistics.median, zip(*costs, strict=True))) for name, costs in found.items()}


@command("Simulate, write, read back and report; needs nothing.")
def demo(as_json: bool) -> int:
    """Simulate a movie, write it, read it back, and report; needs no file and no database.

    Everything happens in a temporary folder, which is removed.

    \b
    dj-photon demo
    """
    import numpy as np

    from .. import open_movie, write_movie
    from ..fidelity import fidelity_report
    from ..handle.facts import array_facts, size_text
    from ..viz import transfer_curve_text

    counts, means = simulated(100, 128)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.zarr"
        writing = _seconds(lambda: write_movie(path, counts))
        stored = open_movie(path)
        frame = _seconds(lambda: stored[17])
        reading = _seconds(lambda: open_movie(path)[:])
        quality, checked = fidelity_report(counts, stored, means=means), stored.verify()
    noise = stored.calibration
    bound = f"{'within' if quality.within_bound else 'NOT within'} the bound (0.25, and half a count)"
    added = 100 * sum((each.inflation or 0) * each.pixels for each in quality.bins) / counts.size
    # an even error of a step, at the noise that the codec goes by: that of 3/8 photons more
    expected = 100 * quality.nominal_inflation * float(np.mean(1 + 0.375 / ((means - _ZERO) / _GAIN)))
    facts = [
        *array_facts(counts.shape, counts.dtype),
        ("gain", f"{noise.conversion_gain:.3f} ADU/photon measured, {_GAIN:g} simulated"),
        ("zero level", f"{noise.zero_level:.1f} ADU measured, {_ZERO:g} simulated"),
        ("size", f"{size_text(counts.nbytes)}, stored in {size_text(counts.nbytes / stored.compression_ratio)}: "
                 f"{stored.compression_ratio:.3g} times smaller"),
        ("time", f"write {writing:.2f} s, read {reading:.2f} s, first frame {1e3 * frame:.0f} ms"),
        ("error", f"largest {quality.largest_error:.2f} noise standard deviations of a count, {bound}"),
        ("variance", f"{added:.1f} % of that of the noise added, {expected:.1f} % expected"),
        ("verified", str(checked)),
    ]  # fmt: skip
    text = (
        f"{columns(facts)}\n\nphoton transfer curve:\n{transfer_curve_text(noise)}\n\n"
        "Now with your own: dj-photon calibrate MOVIE, dj-photon write MOVIE NEW_FOLDER"
    )
    result = {"true_gain": _GAIN, "true_zero_level": _ZERO, "calibration": noise.to_dict(), "verified": checked.ok}
    times = {"write_seconds": writing, "read_seconds": reading, "random_frame_seconds": frame}
    report(as_json, result | times | {"fidelity": quality.to_dict()}, text)
    return 0 if checked and quality.within_bound else CHECK_FAILED
