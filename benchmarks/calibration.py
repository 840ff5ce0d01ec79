"""Accuracy of the calibration on simulated movies, compared with the published estimator. Prints one table.

    python benchmarks/calibration.py --movies 200 --seed 0

Needs scipy and anscombe-transform (both in the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, shift

from dj_photon_codecs.calibration import calibrate

GROUPS = {"static": (False, False), "motion": (True, False), "activity": (False, True), "both": (True, True)}
FRAMES, RIM = 100, 16


@dataclass(frozen=True)
class Truth:
    """The simulated truth: gain [ADU per photon], zero level of the variance [ADU], photons per pixel."""

    gain: float
    zero: float
    photons: float


def texture(size: int, blur: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a random field of view with a mean of about 1 and structure on a scale of ``blur`` pixels."""
    field = gaussian_filter(rng.random((size, size)), blur, mode="wrap")
    field -= field.min()
    return np.asarray(0.2 + 1.6 * (field / field.max()) ** 2)


def simulate(motion: bool, activity: bool, rng: np.random.Generator) -> tuple[npt.NDArray[np.integer], Truth]:
    """Simulate a movie with random brightness, gain, pedestal, read noise, size and sharpness."""
    size = int(rng.integers(128, 257))
    photons, gain = np.exp(rng.uniform(np.log([0.2, 0.3]), np.log([100, 300])))
    pedestal = 0.0 if rng.random() < 0.3 else float(rng.uniform(0, 1000))
    read = float(rng.uniform(0, 0.7)) if pedestal > 3 * gain or rng.random() < 0.3 else 0.0
    scene = texture(size + 2 * RIM, float(rng.uniform(1.5, 8)), rng)
    rows, columns = np.mgrid[: size + 2 * RIM, : size + 2 * RIM]
    cells = []
    for _ in range(40 if activity else 0):
        y, x, radius = *rng.integers(20, size, 2), rng.uniform(2, 4)
        spikes, trace = rng.random(FRAMES) < 0.03, np.zeros(FRAMES)
        for t in range(FRAMES):
            trace[t] = 0.9 * trace[t - 1] * (t > 0) + 1.5 * spikes[t]
        cells.append((np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2)), trace + 0.3))
    counts = np.empty((FRAMES, size, size))
    position = np.zeros(2)
    for t in range(FRAMES):
        expected = scene + sum(spot * trace[t] for spot, trace in cells)
        if motion:
            position = np.clip(0.8 * position + rng.normal(0, 1.2, 2), 2 - RIM, RIM - 2)
            expected = shift(expected, position, order=1, mode="nearest")
        seen = rng.poisson(photons * expected[RIM:-RIM, RIM:-RIM])
        counts[t] = np.rint(pedestal + gain * (seen + read * rng.standard_normal(seen.shape)))
    top, dtype = (65535, np.uint16) if counts.max() < 65536 or rng.random() < 0.5 else (2**31 - 1, np.int32)
    return np.clip(counts, 0, top).astype(dtype), Truth(gain, pedestal - gain * read**2, photons)


def ours(movie: npt.NDArray[np.integer]) -> tuple[float, float] | None:
    result = calibrate(movie)
    return (result.conversion_gain, result.zero_level) if result.reliable else None


def peer(movie: npt.NDArray[np.integer]) -> tuple[float, float] | None:
    """Return anscombe-transform's estimate; None if it raises or its gain is not positive."""
    from anscombe_transform.estimate import compute_conversion_gain

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = compute_conversion_gain(movie)
        except (AssertionError, ValueError):
            return None
    gain, zero = float(result["conversion_gain"]), float(result["zero_level"])
    return (gain, zero) if np.isfinite(gain) and gain > 0 else None


def line(name: str, group: str, rows: list[tuple[float, float, float] | None], seconds: float, n: int) -> str:
    answered = np.array([row for row in rows if row is not None]).reshape(-1, 3)
    if not len(answered):
        return f"| {group} | {name} | {n} | 0 % | | | | {seconds / n:.2f} |"
    error, level = np.abs(answered[:, 0] - 1), np.abs(answered[:, 1])
    return (
        f"| {group} | {name} | {n} | {100 * len(answered) / n:.0f} % | {100 * np.median(error):.1f} % | "
        f"{100 * np.percentile(error, 95):.1f} % | {np.median(level):.2f} | {seconds / n:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print every movie that is off by more than 5 %")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    estimators = {"dj-photon-codecs": ours, "anscombe-transform 1.0.0": peer}
    rows: dict[tuple[str, str], list[tuple[float, float, float] | None]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for i in range(options.movies):
        group = list(GROUPS)[i % len(GROUPS)]
        movie, truth = simulate(*GROUPS[group], rng)
        for name, estimator in estimators.items():
            start = time.perf_counter()
            found = estimator(movie)
            seconds[group, name] = seconds.get((group, name), 0.0) + time.perf_counter() - start
            row = (
                None if found is None else (found[0] / truth.gain, (found[1] - truth.zero) / truth.gain, truth.photons)
            )
            rows.setdefault((group, name), []).append(row)
            if options.verbose and name == "dj-photon-codecs" and (row is None or abs(row[0] - 1) > 0.05):
                print(group, truth, movie.shape, movie.dtype, row, calibrate(movie).reason, flush=True)
    long_movie = np.broadcast_to(
        rng.poisson(5 * texture(512, 5, rng), (96, 512, 512)).astype(np.uint16), (96, 512, 512)
    )
    start = time.perf_counter()
    calibrate(long_movie)
    full = time.perf_counter() - start
    print(f"{platform.platform()}, {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{options.movies} movies of {FRAMES} frames, 128 to 256 pixels a side, seed {options.seed}")
    print(f"96 frames of 512 x 512: {full:.2f} s\n")
    print("| movies | estimator | n | answered | gain error, median | 95th percentile | zero error [photons] | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in estimators:
        for group in (*GROUPS, "all"):
            keys = [key for key in rows if key[1] == name and group in (key[0], "all")]
            merged = [row for key in keys for row in rows[key]]
            if merged:
                print(line(name, group, merged, sum(seconds[key] for key in keys), len(merged)))


if __name__ == "__main__":
    main()
