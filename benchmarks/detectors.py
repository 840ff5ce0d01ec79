"""Check that movies of many kinds of detectors are stored within their own noise. Prints one table.

    python benchmarks/detectors.py --movies 3 --seed 0

Every movie is drawn twice with the same light: half the squared difference of the two is the true variance of its
noise, whatever the detector does and however the package estimates it. The variance that storage adds is compared with
that by decile of brightness, by region and by time.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, median_filter, shift, zoom

from dj_photon_codecs import Calibration, calibrate, write_movie

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
FRAMES, SIZE = 100, 128


@dataclass(frozen=True)
class Light:
    """Expected photons of every pixel and frame, and the random generator of the detector."""

    photons: Floats
    rng: np.random.Generator

    def counts(self, photons: Floats | None = None) -> Floats:
        return self.rng.poisson(self.photons if photons is None else photons).astype(np.float64)

    def normal(self, deviation: float | Floats) -> Floats:
        return deviation * self.rng.standard_normal(self.photons.shape)


def field(rng: np.random.Generator, blur: float, rim: int = 0) -> Floats:
    """Return a field of view with a mean of about 1 and structure on a scale of ``blur`` pixels."""
    image = gaussian_filter(rng.random((SIZE + rim, SIZE + rim)), blur, mode="wrap")
    image -= image.min()
    return np.asarray(0.1 + 1.8 * (image / image.max()) ** 2)


def still(rng: np.random.Generator, low: float = 0.5, high: float = 40.0) -> Floats:
    level = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return np.repeat(level * field(rng, rng.uniform(1.5, 6))[None], FRAMES, 0)


def moving(rng: np.random.Generator) -> Floats:
    wide = rng.uniform(2, 20) * field(rng, rng.uniform(1.5, 4), 32)
    at, frames = np.zeros(2), []
    for _ in range(FRAMES):
        at = np.clip(0.8 * at + rng.normal(0, 1.2, 2), -14, 14)
        frames.append(shift(wide, at, order=1)[16:-16, 16:-16])
    return np.stack(frames)


def active(rng: np.random.Generator) -> Floats:
    light, (rows, columns) = still(rng), np.mgrid[:SIZE, :SIZE]
    for _ in range(40):
        y, x, radius = *rng.integers(5, SIZE - 5, 2), rng.uniform(2, 4)
        trace = np.zeros(FRAMES)
        for t in range(1, FRAMES):
            trace[t] = 0.85 * trace[t - 1] + 1.5 * (rng.random() < 0.05)
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
        light += light.mean() * trace[:, None, None] * spot
    return light


def bleaching(rng: np.random.Generator) -> Floats:
    return still(rng) * np.exp(-np.arange(FRAMES) / rng.uniform(40, 200))[:, None, None]


def flashes(rng: np.random.Generator) -> Floats:
    """Return a stimulus that leaks into the detector: whole frames, or bands of lines."""
    light = still(rng)
    for t in np.flatnonzero(rng.random(FRAMES) < 0.1):
        top, height = rng.integers(0, SIZE // 2), rng.integers(20, SIZE)
        light[t, top : top + height] += light.mean() * rng.uniform(0.5, 4)
    return light


def whole(values: Array, dtype: str = "uint16") -> Array:
    info = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(values), info.min, info.max), dtype)


def pulses(light: Light, gain: float) -> Floats:
    """Return a photomultiplier's response, with exponential pulse heights of single photons."""
    counts = light.counts()
    return np.where(counts > 0, light.rng.gamma(np.maximum(counts, 1e-9), gain / 2), 0.0)


def smeared(values: Floats, share: float) -> Floats:
    """Leave part of each pulse in the next pixel of the line."""
    return (1 - share) * values + share * np.roll(values, 1, axis=-1)


def scmos(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    offset, read = setup.normal(100, 2, (SIZE, SIZE)), 1.4 * np.exp(0.3 * setup.standard_normal((SIZE, SIZE)))
    return whole(offset + 2.17 * (light.counts() + light.normal(read))), 2.17


def emccd(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = float(setup.uniform(20, 100))
    return whole(500 + pulses(light, gain) + light.normal(5)), gain


def photomultiplier(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = float(setup.uniform(20, 80))
    return whole(np.minimum(200 + pulses(light, gain) + light.normal(0.3 * gain), 4095)), gain


def spill(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain, share = float(setup.uniform(30, 200)), float(setup.uniform(0.1, 0.35))
    read = light.normal(0.1 * gain)
    return whole(300 + smeared(pulses(light, gain), share) + read), gain * ((1 - share) ** 2 + share**2)


def resonant(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    """Give pixels at the mirror's turning points more light, jitter lines, and clip at 0."""
    dwell = 1 / np.sqrt(1 - np.linspace(-0.9, 0.9, SIZE) ** 2)
    gain, share = float(setup.uniform(50, 250)), float(setup.uniform(0.1, 0.3))
    seen = Light(light.photons * dwell / dwell.mean(), light.rng)
    values = smeared(pulses(seen, gain), share) + light.normal(0.15 * gain)
    return whole(np.maximum(values, 0)), gain * ((1 - share) ** 2 + share**2)


def gain_of(setup: np.random.Generator) -> float:
    return float(np.exp(setup.uniform(np.log(3), np.log(200))))


def linear(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = gain_of(setup)
    return whole(100 + gain * (light.counts() + light.normal(float(setup.uniform(0, 0.4))))), gain


def averaged(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain, n = float(setup.uniform(20, 200)), 4
    frames = [light.counts() + light.normal(0.2) for _ in range(n)]
    return whole(100 + gain * np.mean(frames, 0)), gain / n


def shifted(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = float(setup.uniform(3, 20))
    return whole(16 * np.minimum(np.rint(50 + gain * light.counts()), 4095)), 16 * gain


def scaled(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain, factor = gain_of(setup), float(setup.uniform(1e-3, 0.1))
    return (factor * np.rint(20 + gain * light.counts())).astype(np.float32), factor * gain


def eight_bits(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    """Stretch the whole movie to 8 bits, once."""
    gain = 200 / (float(light.photons.max()) + 4 * np.sqrt(float(light.photons.max())))
    return whole(20 + gain * light.counts(), "uint8"), gain


def binned(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = gain_of(setup)
    pixels = [np.rint(100 + gain * (light.counts(light.photons / 4) + light.normal(0.1))) for _ in range(4)]
    return whole(np.sum(pixels, 0)), gain


def photon_counter(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    return whole(light.counts()), 1.0


def spad(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    """Sum 1-bit frames, whose counts saturate gradually."""
    return whole(light.rng.binomial(255, 1 - np.exp(-light.photons / 255)), "uint8"), 1.0


def hot(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    values, gain = linear(light, setup)
    stuck, wild = setup.random((2, SIZE, SIZE)) < 0.002
    values[:, stuck] = 4095
    values[:, wild] = light.rng.integers(0, 4095, (FRAMES, int(wild.sum())))
    return values, gain


def clipped(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = float(setup.uniform(20, 200))
    return whole(np.maximum(gain * (light.counts() + light.normal(float(setup.uniform(0.05, 0.4)))), 0)), gain


def signed(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = float(setup.uniform(5, 60))
    return whole(gain * (light.counts() + light.normal(0.3)), "int16"), gain


def saturating(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    brightest = float(light.photons.max())
    gain = 4095 / (brightest + 2 * np.sqrt(brightest) + 2)
    return whole(np.minimum(50 + gain * light.counts(), 4095)), gain


def denoised(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    movie, gain = linear(light, setup)
    return whole(gaussian_filter(movie.astype(np.float64), (0, 0.8, 0.8))), gain


def medians(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    movie, gain = linear(light, setup)
    return median_filter(movie, (1, 3, 3)), gain


def over_time(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    movie, gain = linear(light, setup)
    return whole(gaussian_filter(movie.astype(np.float64), (1, 0, 0))), gain


def interpolated(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    movie, gain = linear(light, setup)
    return whole(np.stack([zoom(f.astype(np.float64), 1.5, order=1)[:SIZE, :SIZE] for f in movie])), gain


def registered(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    movie, gain = linear(light, setup)
    shifts = setup.uniform(-2, 2, (FRAMES, 2))
    return whole(np.stack([shift(f.astype(np.float64), s, order=1) for f, s in zip(movie, shifts, strict=True)])), gain


def gamma(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    power = float(setup.choice([0.45, 0.6, 0.75]))
    values = light.counts() + np.abs(light.normal(0.1))
    return whole(4000 * (values / values.max()) ** power), 0.0


def mixed(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    """Interleave two channels frame by frame."""
    other = Light(np.roll(light.photons, 40, 1) * setup.uniform(0.3, 1.0), light.rng)
    gain, ratio = float(setup.uniform(10, 60)), float(setup.uniform(2, 5))
    frames = 100 + gain * light.counts()
    frames[1::2] = 100 + gain * ratio * light.counts(other.photons)[1::2]
    return whole(frames), gain


def stretched(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    values = 100 + 30 * (light.counts() + light.normal(0.2))
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    return whole(255 * (values - low) / (high - low), "uint8"), 0.0


def normalised(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    values = 100 + 30 * (light.counts() + light.normal(0.2))
    still_image = light.photons.mean(0) * 30
    return ((values - 100 - still_image) / still_image).astype(np.float32), 0.0


def two_fields(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = np.where(np.arange(SIZE) < SIZE // 2, 1.0, setup.uniform(1.8, 4)) * 20
    return whole(100 + gain * (light.counts() + light.normal(0.2))), 20.0


def voltage(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    gain = np.where(np.arange(FRAMES) < setup.integers(FRAMES // 3, FRAMES // 3 * 2), 1.0, setup.uniform(1.6, 3)) * 20
    return whole(100 + gain[:, None, None] * (light.counts() + light.normal(0.2))), 20.0


def background(light: Light, setup: np.random.Generator) -> tuple[Array, float]:
    """Subtract a level, and clip what was below it."""
    gain = float(setup.uniform(10, 100))
    level = float(np.quantile(light.photons, setup.uniform(0.2, 0.7)))
    return whole(np.maximum(gain * (light.counts() + light.normal(0.3) - level), 0)), gain


Detector = Callable[[Light, np.random.Generator], tuple[Array, float]]
Scene = Callable[[np.random.Generator], Floats]


def dim(rng: np.random.Generator) -> Floats:
    return still(rng, 0.02, 0.3)


def even(rng: np.random.Generator) -> Floats:
    return np.full((FRAMES, SIZE, SIZE), float(np.exp(rng.uniform(np.log(0.05), np.log(100)))))


HONEST: dict[str, tuple[Scene, Detector]] = {
    "sCMOS": (still, scmos),
    "EMCCD": (still, emccd),
    "SPAD": (still, spad),
    "photon counter": (still, photon_counter),
    "photon counter, dim": (dim, photon_counter),
    "photon counter, evenly lit": (even, photon_counter),
    "photomultiplier": (still, photomultiplier),
    "photomultiplier with spill": (still, spill),
    "resonant": (still, resonant),
    "averaged frames": (still, averaged),
    "12 bits, shifted": (still, shifted),
    "float, scaled": (still, scaled),
    "8 bits, stretched once": (still, eight_bits),
    "binned": (still, binned),
    "signed": (still, signed),
    "read noise clipped at 0": (still, clipped),
    "saturating": (still, saturating),
    "motion": (moving, linear),
    "motion, photomultiplier with spill": (moving, spill),
    "activity": (active, linear),
    "bleaching": (bleaching, linear),
    "hot pixels": (still, hot),
    "stimulus artefacts": (flashes, linear),
}
DISHONEST: dict[str, tuple[Scene, Detector]] = {
    "denoised": (still, denoised),
    "median filtered": (still, medians),
    "smoothed in time": (still, over_time),
    "interpolated": (still, interpolated),
    "registered": (still, registered),
    "gamma": (still, gamma),
    "channels frame by frame": (still, mixed),
    "each frame stretched": (still, stretched),
    "normalised": (still, normalised),
    "two fields, two gains": (still, two_fields),
    "voltage changed": (still, voltage),
    "background clipped": (still, background),
}


def draw(name: str, seed: int) -> tuple[Array, Array, float]:
    """Return a movie, a second one of the same light, and the gain of the noise [ADU per photon], 0 if it has none."""
    scene, detector = (HONEST | DISHONEST)[name]
    key = [seed, *name.encode()]
    photons = scene(np.random.default_rng(key))
    (movie, gain), (again, _) = (
        detector(Light(photons, np.random.default_rng([*key, i])), np.random.default_rng([*key, 9])) for i in (1, 2)
    )
    return movie, again, gain


def parts(again: Array) -> list[npt.NDArray[np.bool_]]:
    """Return deciles of brightness, 16 regions and 4 quarters of a movie, from data with independent noise."""
    mean = np.broadcast_to(again.astype(np.float64).mean(0), again.shape)
    edges = np.quantile(mean[0], np.linspace(0, 1, 11)[1:-1])
    decile = np.searchsorted(edges, mean)
    t, y, x = np.ogrid[: again.shape[0], : again.shape[1], : again.shape[2]]
    region = np.broadcast_to(y * 4 // again.shape[1] * 4 + x * 4 // again.shape[2], again.shape)
    quarter = np.broadcast_to(t * 4 // len(again), again.shape)
    found = [(part, i) for part, n in ((decile, 10), (region, 16), (quarter, 4)) for i in range(n)]
    return [part == i for part, i in found if (part == i).any()]


def added(movie: Array, again: Array, stored: Array, step: float) -> float:
    """Return the largest variance that storage adds in any part, in units of step^2/12 of the true noise there.

    Rounding to whole counts cannot be avoided, so 1/12 of a squared count is not counted as loss.
    """
    error = (stored.astype(np.float64) - movie) ** 2
    noise = (movie.astype(np.float64) - again) ** 2 / 2
    return max(
        float(error[part].mean() / max(noise[part].mean() * step**2 / 12, 1e-30)) if error[part].any() else 0.0
        for part in parts(again)
    )


def judge(name: str, seed: int, step: float = 0.5) -> tuple[Calibration, str, float, float]:
    """Return calibration, profile, added variance and relative error of the gain of one movie."""
    movie, again, gain = draw(name, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = calibrate(movie)
        stored = write_movie({}, movie, step=step, calibration=found)
    surplus = added(movie, again, np.asarray(stored[:]), step) if stored.step else 0.0
    return found, stored.profile, surplus, abs(found.conversion_gain / gain - 1) if gain else np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="groups whose name has this in it")
    parser.add_argument("--verbose", action="store_true", help="print every movie")
    options = parser.parse_args()
    print(f"{platform.platform()}, {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{options.movies} movies a group, {FRAMES} x {SIZE} x {SIZE}, seed {options.seed}\n")
    print("| movies | measured | bounded | unknown | stored with loss | most added | gain off, measured |")
    print("|---|---|---|---|---|---|---|")
    for group in (HONEST, DISHONEST):
        for name in group:
            if options.only and options.only not in name:
                continue
            rows = [judge(name, options.seed + i) for i in range(options.movies)]
            verdicts = [found.verdict for found, *_ in rows]
            lossy = sum(profile != "lossless" for _, profile, *_ in rows)
            off = [error for found, *_, error in rows if found.verdict == "measured"]
            counts = " | ".join(str(verdicts.count(verdict)) for verdict in ("measured", "bounded", "unknown"))
            worst = max(surplus for _, _, surplus, _ in rows)
            print(
                f"| {name} | {counts} | {lossy} | {worst:.2f} | {f'{100 * max(off):.0f} %' if off else ''} |",
                flush=True,
            )
            if options.verbose:
                for found, profile, surplus, error in rows:
                    print(f"    {profile} added {surplus:.2f}, off {error:.2f}, {found.verdict} {found.reason[:200]}")


if __name__ == "__main__":
    main()
