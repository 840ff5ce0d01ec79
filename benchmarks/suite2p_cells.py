"""Does Suite2p find the same cells in a stored movie? Prints a table for each movie.

    python benchmarks/suite2p_cells.py                        # a simulation with known cells
    python benchmarks/suite2p_cells.py --movie session.tif    # a recording

Needs Suite2p 1.x. Each variant of a movie goes to Suite2p through ``movie.to_suite2p``: the raw counts, stored counts
with several dithers, and raw counts with irrelevant changes: white noise with the variance that storing adds at step
0.5, and one count more or less.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import machine, table
from scipy.optimize import linear_sum_assignment

from dj_photon_codecs import PhotonMovie, open_source, write_movie
from dj_photon_codecs.fidelity import Scene
from dj_photon_codecs.fidelity.detection import matched_places
from dj_photon_codecs.fidelity.spikes import smoothed
from dj_photon_codecs.simulation import presets, simulate

Counts = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

#: Two cells are the same from this overlap on: intersection over union of their pixels.
SAME = 0.5

#: Width of the Gaussian that turns spikes into rates [s].
SPIKE_S = 0.05

#: Variance of the added white noise, that of rounding at step 0.5 [noise variances].
ADDED = 0.5**2 / 12


@dataclass(frozen=True)
class Found:
    """The results of Suite2p for a movie."""

    shifts: Floats
    """Rigid registration: (time, 2) [pixels]."""
    masks: Floats
    """1 in the pixels of each region: (roi, pixel)."""
    is_cell: npt.NDArray[np.bool_]
    """True for regions that its classifier calls cells: (roi,)."""
    traces: Floats
    """Fluorescence minus 0.7 of the surrounding neuropil: (roi, time)."""
    spikes: Floats
    """Deconvolved spikes: (roi, time)."""


def analysed(counts: Counts, frame_rate: float) -> Found:
    """Store counts losslessly, write them for Suite2p, and run it with default settings on the CPU."""
    import suite2p

    with tempfile.TemporaryDirectory() as folder:
        movie = write_movie(Path(folder) / "movie", counts, profile="lossless", progress=False)
        plane = movie.to_suite2p(folder, frame_rate=frame_rate)
        settings = suite2p.default_settings() | {"fs": frame_rate, "torch_device": "cpu"}
        suite2p.run_plane(np.load(plane / "db.npy", allow_pickle=True).item(), settings)
        ops, stat = (np.load(plane / f"{name}.npy", allow_pickle=True) for name in ("ops", "stat"))
        traces, around, spikes, is_cell = (np.load(plane / f"{name}.npy") for name in ("F", "Fneu", "spks", "iscell"))
    masks = np.zeros((len(stat), *counts.shape[1:]), np.float32)
    for mask, roi in zip(masks, stat, strict=True):
        mask[roi["ypix"], roi["xpix"]] = 1
    shifts = np.stack([ops.item()["yoff"], ops.item()["xoff"]], axis=1)
    flat = masks.reshape(len(stat), -1)
    return Found(shifts, flat, is_cell[:, 0].astype(bool), traces - 0.7 * around, spikes)


def variants(movie: PhotonMovie, seeds: int) -> Iterator[tuple[str, Counts, float | None]]:
    """Yield the name of each variant, its counts and its compression ratio, for each seed."""
    counts: Counts = movie.movie
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        # dither depends on the position in the chunk, so rotating the movie changes it
        rotated = PhotonMovie(np.roll(counts, seed, axis=0), movie.calibration)
        for step in (0.5, 0.25):
            with tempfile.TemporaryDirectory() as folder:
                found = write_movie(Path(folder) / "movie", rotated, step=step, progress=False)
                noise = found.calibration.storage_noise
                yield f"stored, step {step:g}", np.roll(found[:], -seed, axis=0), found.compression_ratio
            if step == 0.5:
                white = np.sqrt(ADDED * noise.variance(counts)) * rng.standard_normal(counts.shape)
                yield "white noise", changed(counts, white), None
        yield "one count up or down", changed(counts, rng.choice([-1.0, 1.0], counts.shape)), None
    yield "raw, a second time", counts, None


def changed(counts: Counts, by: Floats) -> Counts:
    """Add to counts, clipped to their dtype."""
    return np.clip(np.rint(counts + by), 0, np.iinfo(counts.dtype).max).astype(counts.dtype)


def partners(masks: Floats, others: Floats) -> npt.NDArray[np.intp]:
    """Return the index of the region in ``others`` that overlaps each one by more than half; -1 for none."""
    common = masks @ others.T
    overlap = common / np.maximum(masks.sum(1)[:, None] + others.sum(1) - common, 1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    found = np.full(len(masks), -1)
    same = overlap[rows, columns] > SAME
    found[rows[same]] = columns[same]
    return found


def correlation(traces: Floats, others: Floats) -> float:
    """Return the median correlation of pairs of traces; NaN for none."""
    pairs = zip(traces, others, strict=True)
    found = [float(np.corrcoef(one, other)[0, 1]) for one, other in pairs if np.ptp(one) and np.ptp(other)]
    return float(np.median(found)) if found else float("nan")


def compared(found: Found, raw: Found) -> tuple[str, ...]:
    """Compare with the raw movie: equally registered frames, cells found again, their traces and spikes."""
    alike = (found.shifts == raw.shifts).all(axis=1).mean()
    partner = partners(raw.masks[raw.is_cell], found.masks)
    again = partner >= 0
    traces = correlation(raw.traces[raw.is_cell][again], found.traces[partner[again]])
    spikes = correlation(raw.spikes[raw.is_cell][again], found.spikes[partner[again]])
    return f"{100 * alike:.0f}", f"{again.mean():.2f}", f"{traces:.4f}", f"{spikes:.3f}"


def scored(found: Found, scene: Scene) -> tuple[str, ...]:
    """Compare with the truth: recall and precision of cells, their traces and spikes."""
    assert scene.shifts is not None
    moved = np.median(scene.shifts + found.shifts, axis=0)  # of Suite2p's reference image against the true one
    masks = found.masks[found.is_cell]
    places = np.indices(scene.footprints.shape[1:]).reshape(2, -1).T
    centres = masks @ places / masks.sum(1, keepdims=True) - moved
    partner = matched_places(centres, scene.centres, scene.radius)
    hit = partner >= 0
    fainter = (matched_places(centres[~hit], scene.others, scene.radius) >= 0).sum()
    width = SPIKE_S * scene.fps
    rates = [smoothed(spikes, width) for spikes in found.spikes[found.is_cell][hit]]
    true_rates = [smoothed(spikes, width) for spikes in scene.spikes[partner[hit]]]
    return (
        f"{hit.sum() / len(scene.centres):.2f}",
        f"{hit.sum() / max(1, len(masks) - fainter):.2f}",
        f"{correlation(found.traces[found.is_cell][hit], scene.calcium[partner[hit]]):.3f}",
        f"{correlation(np.array(rates), np.array(true_rates)):.3f}",
    )


#: Columns of the tables: of each run, against the raw movie, and against the truth.
RUN = ("variant", "times smaller", "ROIs", "cells")
AGAINST_RAW = ("frames registered alike [%]", "raw cells found again", "traces", "spikes")
AGAINST_TRUTH = ("true cells found", "cells that are true", "true traces", "true spikes")


def report(movie: PhotonMovie, frame_rate: float, seeds: int, scene: Scene | None) -> str:
    """Run all variants of a movie; return a line for each."""
    raw = analysed(movie.movie, frame_rate)
    rows = []

    def add(name: str, ratio: float | None, found: Found) -> None:
        size = "" if ratio is None else f"{ratio:.2f}"
        sums = str(len(found.masks)), str(found.is_cell.sum())
        rows.append((name, size, *sums, *compared(found, raw), *(scored(found, scene) if scene else ())))
        print("|", " | ".join(rows[-1]), flush=True, file=sys.stderr)

    add("raw", None, raw)
    for name, counts, ratio in variants(movie, seeds):
        add(name, ratio, analysed(counts, frame_rate))
    return table((*RUN, *AGAINST_RAW, *(AGAINST_TRUTH if scene else ())), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movie", help="a recording, any file that open_source reads; without it a simulation")
    parser.add_argument("--frame-rate", type=float, default=10.0, help="of the recording [Hz]")
    parser.add_argument("--frames", type=int, default=1000, help="of the simulation")
    parser.add_argument("--size", type=int, default=256, help="of the simulation [pixels]")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    logging.getLogger("suite2p").setLevel(logging.WARNING)
    print(machine("suite2p", "torch"))
    if options.movie:
        with open_source(options.movie) as source:
            movie, frame_rate, scene = PhotonMovie(source[:]), options.frame_rate, None
        print(f"\n{options.movie}: {movie.movie.shape} {movie.movie.dtype}\n")
    else:
        spec = presets.two_photon_raster(height_px=options.size, width_px=options.size, n_frames=options.frames)
        recording = simulate(spec)
        movie, frame_rate, scene = PhotonMovie(recording.observed), recording.fps, Scene.of(recording)
        print(f"\nsimulation: {movie.movie.shape} {movie.movie.dtype}, {len(scene.centres)} detectable cells\n")
    print(report(movie, frame_rate, options.seeds, scene))


if __name__ == "__main__":
    main()
