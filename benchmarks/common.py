"""Shared by all benchmarks: simulated movies, the Shannon limit of their codes, tables, machine description."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from dj_photon_codecs.anscombe.parameters import TransformParameters

Counts = npt.NDArray[np.uint16]
Means = npt.NDArray[np.float32]

#: Number of classes of nearly equal true mean for the entropy of the codes.
_MEAN_CLASSES = 400

#: Number of frames, spread over the movie, that it is computed from.
_ENTROPY_FRAMES = 64

#: Packages whose versions affect the results.
_PACKAGES = ("dj-photon-codecs", "numpy", "zarr", "numcodecs", "anscombe-transform")


@dataclass(frozen=True)
class Regime:
    """A kind of recording: photons per pixel and frame, gain [ADU/photon], zero level [ADU], read noise [photons]."""

    photons: float
    gain: float
    zero_level: float
    read_noise: float

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"{self.photons:g} photons, gain {self.gain:g}, zero {self.zero_level:g}"

    @property
    def parameters(self) -> TransformParameters:
        """The transform for the true noise model, with the default step."""
        return TransformParameters(
            zero_level=self.zero_level,
            conversion_gain=self.gain,
            encoded_dtype="int16" if self.gain < 9 else "uint8",
            decoded_dtype="uint16",
            step=0.5,
        )

    def sigma(self, counts: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Noise standard deviation at ``counts`` [ADU], from the true gain and zero level."""
        photons = np.maximum((counts - self.zero_level) / self.gain, 0)
        return np.asarray(self.gain * np.sqrt(photons + 0.375))


REGIMES = (
    Regime(0.3, 1, 0, 0.0),
    Regime(5, 1, 0, 0.0),
    Regime(0.5, 100, 157, 0.2),
    Regime(5, 100, 157, 0.2),
    Regime(30, 30, 100, 0.5),
)


def chosen(numbers: str) -> list[Regime]:
    """Parse an option that selects regimes: ``all``, or numbers from 0 such as ``0,3``."""
    return list(REGIMES) if numbers == "all" else [REGIMES[int(n)] for n in numbers.split(",")]


def simulate(
    regime: Regime, frames: int, size: int, rng: np.random.Generator, *, means: bool = False
) -> tuple[Counts, Means]:
    """Simulate a two-photon-like movie: smooth background, 60 somata with transients, shot noise and read noise.

    Returns
    -------
    counts
        Shape (frames, size, size) [ADU].
    means
        True mean of every pixel and frame [photons] if requested; otherwise an array of no frames.
    """
    scene = gaussian_filter(rng.random((size, size)), 6)
    scene = (scene - scene.min()) / np.ptp(scene)
    background = (regime.photons * (0.2 + 1.6 * scene**2)).astype(np.float32)
    rows, columns = np.mgrid[-8:9, -8:9]
    soma = np.exp(-(rows**2 + columns**2) / (2 * 3.5**2)).astype(np.float32) * regime.photons
    places = rng.integers(10, size - 10, (60, 2))
    spikes, traces = rng.random((frames, 60)) < 0.02, np.zeros((frames, 60))
    for t in range(frames):
        traces[t] = (traces[t - 1] * 0.93 if t else 0.0) + 1.5 * spikes[t]
    counts = np.empty((frames, size, size), np.uint16)
    true = np.empty((frames if means else 0, size, size), np.float32)
    for t in range(frames):
        mean = background.copy()
        for (y, x), height in zip(places, traces[t] + 0.5, strict=True):
            mean[y - 8 : y + 9, x - 8 : x + 9] += np.float32(height) * soma
        photons = rng.poisson(mean) + regime.read_noise * rng.standard_normal(mean.shape)
        counts[t] = np.clip(np.rint(regime.zero_level + regime.gain * photons), 0, 65535)
        if means:
            true[t] = mean
    return counts, true


def limit_bits(means: Means, codes_of: Callable[[int], npt.NDArray[Any]]) -> float:
    """Return the Shannon limit [bits per pixel]: entropy of the codes given the true mean, in classes of equal mean.

    Parameters
    ----------
    means
        True mean of every pixel and frame.
    codes_of
        Returns the codes of a frame, given its number.
    """
    chosen_frames = np.unique(np.linspace(0, len(means) - 1, min(len(means), _ENTROPY_FRAMES)).astype(int))
    some = means[chosen_frames].ravel()[:: max(1, len(chosen_frames) * means[0].size // 1_000_000)]
    edges = np.unique(np.quantile(some, np.linspace(0, 1, _MEAN_CLASSES + 1)[1:-1]))
    of_frames = [np.asarray(codes_of(int(t))) for t in chosen_frames]
    low, high = min(int(codes.min()) for codes in of_frames), max(int(codes.max()) for codes in of_frames)
    rank, classes = np.zeros(high - low + 1, np.int64), edges.size + 1
    for codes in of_frames:
        rank[codes.astype(np.int64) - low] = 1
    rank = np.cumsum(rank) - 1  # of each code among those that occur
    counted = np.zeros((rank[-1] + 1) * classes)
    for t, codes in zip(chosen_frames, of_frames, strict=True):
        cells = rank[codes.astype(np.int64) - low] * classes + np.searchsorted(edges, means[t])
        counted += np.bincount(cells.ravel(), minlength=counted.size)
    counted = counted.reshape(-1, classes)
    total = counted.sum(0, keepdims=True)
    share = counted / np.maximum(total, 1)
    bits = -np.where(share > 0, share * np.log2(np.where(share > 0, share, 1)), 0).sum(0)
    return float((bits * total[0]).sum() / total.sum())


def seconds(work: Callable[..., object], *args: Any, **kwargs: Any) -> float:
    """Return the wall time of a call [s]."""
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    written = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([written[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *written[1:]])


def machine(*more: str) -> str:
    """Describe platform, processor, cores, Python and the installed versions of packages in one line."""
    versions = []
    for name in (*_PACKAGES, *more):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return (
        f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def _processor() -> str:
    """Return the processor's name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
