"""What each quantisation step saves and changes. Prints the tables and draws the pictures of the fidelity page.

    python benchmarks/fidelity.py

First bias and added variance of single counts, summed over the Poisson distribution. Then recordings with known truth,
raw and stored: size, counts, motion, traces, cells and spikes, compared with the same scenes and new noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table
from matplotlib.figure import Figure

from dj_photon_codecs import AnscombeTransformV2, write_movie
from dj_photon_codecs.fidelity import (
    ExactErrors,
    FidelityReport,
    Scene,
    ScienceReport,
    analyse,
    compare,
    exact_errors,
    fidelity_report,
)
from dj_photon_codecs.simulation import Output, Recording, Spec, presets, simulate

STEPS = (0.25, 0.5, 1.0, 2.0)
PEDESTALS, READ_NOISES = (0.0, 10.0, 157.0), (0.0, 0.5)
NAMES = ("photon_counting", "two_photon_raster", "one_photon_miniscope")
DARK, BRIGHT = np.geomspace(0.01, 1, 150), np.geomspace(1, 300, 400)[1:]

#: Folder of the documentation's pictures.
PICTURES = Path(__file__).parents[1] / "docs" / "explanation" / "img"


def worst(values: Any, photons: Any) -> str:
    """Return the value furthest from 0, and its place."""
    index = int(np.abs(values).argmax())
    return f"{values[index]:+.3f} at {photons[index]:.2g}"


def exact_table(step: float, gains: list[float]) -> str:
    """Return the largest bias below and above 1 photon, and the variance added above 10 photons."""
    rows = []
    for gain in gains:
        for read_noise in READ_NOISES:
            for pedestal in PEDESTALS:
                dark, bright = (
                    exact_errors(light, conversion_gain=gain, pedestal=pedestal, read_noise=read_noise, step=step)
                    for light in (DARK, BRIGHT)
                )
                relative = bright.inflation[bright.photons > 10] / (step**2 / 12)
                rows.append(
                    [
                        f"{gain:g}",
                        f"{pedestal:g}",
                        f"{read_noise:g}",
                        worst(dark.bias, dark.photons),
                        worst(bright.bias, bright.photons),
                        f"{bright.photons[np.abs(bright.bias) > 0.01].max(initial=1):.0f}",
                        f"{relative.min():.2f} to {relative.max():.2f}",
                        f"{relative.mean():.2f}",
                        f"{(bright.mean_square[bright.photons > 10] / (step**2 / 12)).mean():.2f}",
                    ]
                )
    head = ["gain", "pedestal", "read noise", "bias, 0.01 to 1 photons", "bias, 1 to 300", "above 0.01 up to"]
    return table([*head, "variance added", "mean", "mean square"], rows)


def without_dither(photons: Any, gain: float, pedestal: float, read_noise: float, step: float) -> ExactErrors:
    """Return the errors with fixed edges, as in the ``portable`` profile."""
    codec = AnscombeTransformV2(pedestal - gain * read_noise**2, gain, encoded_dtype="int32", step=step)
    sensor = {"conversion_gain": gain, "pedestal": pedestal, "read_noise": read_noise}
    return exact_errors(photons, **sensor, stored=lambda counts: codec.decode(codec.encode(counts)))


def plain_table(step: float, gains: list[float]) -> str:
    """Return the largest bias without dither, at the worst pedestal."""
    rows = []
    for gain in gains:
        for read_noise in READ_NOISES:
            worst_of = [
                max(
                    np.abs(without_dither(photons, gain, pedestal, read_noise, step).bias).max()
                    for pedestal in PEDESTALS
                )
                for photons in (DARK, BRIGHT)
            ]
            rows.append([f"{gain:g}", f"{read_noise:g}", *(f"{bias:.3f}" for bias in worst_of)])
    return table(["gain", "read noise", "bias, 0.01 to 1 photons", "bias, 1 to 300"], rows)


def draw_exact(path: Path) -> None:
    """Draw bias and added variance by intensity: four sensors at the default step, and four steps of one sensor."""
    photons = np.geomspace(0.05, 300, 700)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    sensors = ((1.0, 0.0, 0.0), (2.3, 10.0, 0.5), (30.0, 100.0, 0.5), (100.0, 157.0, 0.5))
    for gain, pedestal, read_noise in sensors:
        errors = exact_errors(photons, conversion_gain=gain, pedestal=pedestal, read_noise=read_noise)
        label = f"gain {gain:g}" + (f", read noise {read_noise:g}" if read_noise else ", no read noise")
        [line] = axes[0, 0].plot(photons, errors.bias, lw=1.5, label=label)
        plain = without_dither(photons, gain, pedestal, read_noise, 0.5)
        axes[0, 0].plot(photons, plain.bias, color=line.get_color(), lw=0.8, ls=":")
        axes[1, 0].plot(photons, 100 * errors.inflation, lw=1, label=label)
    for step in STEPS:
        errors = exact_errors(photons, conversion_gain=30.0, pedestal=100.0, read_noise=0.5, step=step)
        axes[0, 1].plot(photons, errors.bias, lw=1, label=f"step {step:g}")
        axes[1, 1].plot(photons, 100 * errors.inflation, lw=1, label=f"step {step:g}")
        axes[1, 1].axhline(100 * step**2 / 12, color="0.6", lw=0.7, ls=":")
    axes[0, 0].axhspan(-0.01, 0.01, color="0.85", zorder=0)
    axes[0, 0].set(
        title="step 0.5, four sensors (dotted: without dither)",
        ylabel="bias [noise standard deviations]",
        ylim=(-0.06, 0.06),
    )
    axes[0, 1].set(title="gain 30, read noise 0.5 photons, four steps", ylim=(-0.06, 0.06))
    axes[1, 0].axhline(100 * 0.25 / 12, color="0.6", lw=0.7, ls=":")
    axes[1, 0].set(ylabel="variance added [% of the noise's]", ylim=(-10, 12), xlabel="expected photons per pixel")
    axes[1, 1].set(yscale="log", ylim=(0.2, 120), xlabel="expected photons per pixel")
    for axis in axes.ravel():
        axis.set_xscale("log")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)


@dataclass(frozen=True)
class Recorded:
    """A recording, its reports by step, and its name."""

    name: str
    photons: float
    counts: dict[float, FidelityReport]
    science: dict[float, ScienceReport]


def measure(name: str, size: int, frames: int, redraws: int, seed: int) -> Recorded:
    """Simulate a recording, store it at each step, and compare."""
    spec: Spec = presets.PRESETS[name](seed=seed, height_px=size, width_px=size, n_frames=frames)
    stage = spec.steps[-2].kind
    recording = simulate(spec.model_copy(update={"output": Output(snapshots=(stage,))}))
    means = expected_counts(recording, stage)
    scene = Scene.of(recording)
    raw = analyse(recording.observed, scene)
    others = [analyse(simulate(spec.with_noise_seed(n)).observed, scene) for n in range(1, redraws + 1)]
    counts, science = {}, {}
    for step in STEPS:
        with tempfile.TemporaryDirectory() as folder:
            handle = write_movie(Path(folder) / "movie", recording.photon_movie(step=step), progress=False)
            counts[step] = fidelity_report(recording.observed, handle, means=means)
            science[step] = compare(scene, raw, handle, others)
    model = recording.calibration
    photons = float((recording.observed.mean(dtype=np.float64) - model.zero_level) / model.conversion_gain)
    return Recorded(name, photons, counts, science)


def expected_counts(recording: Recording, stage: str) -> Any:
    """Return the noise-free count of each pixel [ADU], from the light that reaches the sensor."""
    assert isinstance(recording.spec, Spec)
    sensor = recording.spec.sensor
    slope = np.float32(sensor.conversion_gain_adu * sensor.quantum_efficiency)
    return recording.stage(stage) * slope + np.float32(sensor.pedestal_adu)


def counts_rows(recorded: Recorded) -> list[list[str]]:
    """Tabulate size and errors of the counts by step."""
    rows = []
    for step, report in recorded.counts.items():
        # weight every bin by its number of pixels
        bins = [each for each in report.bins if each.inflation is not None and each.photons > 1]
        pixels = max(1, sum(each.pixels for each in bins))
        added = sum(each.pixels * (each.inflation or 0.0) for each in bins) / pixels
        dark, bright = (
            max(
                (abs(each.bias or 0.0) for each in report.bins if (each.photons > 1) == above and each.pixels > 20000),
                default=0.0,
            )
            for above in (False, True)
        )
        rows.append(
            [
                recorded.name,
                f"{step:g}",
                f"{report.ratio or 0:.2f}",
                f"{report.bits_per_pixel or 0:.2f}",
                f"{report.limit_bits:.2f}",
                f"{dark:.3f}",
                f"{bright:.3f}",
                f"{100 * added:.2f} %" if bins else "-",
                f"{100 * report.nominal_inflation:.2f} %",
                f"{report.image.amplitude if report.image else 0:.4f}",
            ]
        )
    return rows


def science_rows(recorded: Recorded) -> list[list[str]]:
    """Tabulate changes of the results by step, and with new noise."""
    rows = []
    first = next(iter(recorded.science.values()))
    changes = [(f"{step:g}", report.change, report.stored) for step, report in recorded.science.items()]
    raw = first.raw
    rows.append(
        [recorded.name, "raw", "-", "-", "-", "-", "-", f"{raw.cells_found}", *_truths(raw)],
    )
    changes += [
        (f"noise {n}", *both) for n, both in enumerate(zip(first.redrawn_change, first.redrawn, strict=True), 1)
    ]
    for label, change, scores in changes:
        traces = np.array(change.traces)
        rows.append(
            [
                recorded.name,
                label,
                f"{change.motion_px or 0:.3f}",
                f"{np.median(traces):.5f}",
                f"{traces.min():.4f}",
                f"{(traces > 0.999).sum()} of {len(traces)}",
                f"{100 * np.median(np.array(change.dff_bias) / np.array(first.dff)):+.2f} %",
                f"{scores.cells_found} ({change.cells_in_both})",
                *_truths(scores),
            ]
        )
    return rows


def _truths(scores: Any) -> list[str]:
    """Tabulate recall and precision of cells and spikes."""
    return [
        f"{scores.recall:.2f} {scores.precision:.2f}",
        f"{scores.spike_recall:.3f} {scores.spike_precision:.3f}",
    ]


def draw_science(recordings: list[Recorded], path: Path) -> None:
    """Draw changes by step; dashed lines and bands show new noise."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for number, recorded in enumerate(recordings):
        color, steps = f"C{number}", list(recorded.science)
        reports = list(recorded.science.values())
        redrawn = reports[0].redrawn_change
        label = f"{recorded.name.replace('_', ' ')}, {recorded.photons:.2g} photons"
        axes[0].plot(steps, [report.ratio for report in reports], "o-", color=color, label=label)
        _against(axes[1], steps, [1 - np.median(r.change.traces) for r in reports], color)
        _noise(axes[1], [1 - np.median(each.traces) for each in redrawn], color)
        dff = np.array(reports[0].dff)
        spread = [np.median(np.abs(np.array(each.dff_bias) / dff)) * 100 for each in redrawn]
        _against(axes[2], steps, [100 * np.median(np.abs(np.array(r.change.dff_bias) / dff)) for r in reports], color)
        _noise(axes[2], spread, color)
        _against(axes[3], steps, [r.change.motion_px or 0 for r in reports], color)
        _noise(axes[3], [each.motion_px or 0 for each in redrawn], color)
        _against(axes[4], steps, [1 - np.mean(r.change.spikes) for r in reports], color)
        _noise(axes[4], [1 - np.mean(each.spikes) for each in redrawn], color)
        found = [100 * (r.stored.cells_found / r.raw.cells_found - 1) for r in reports]
        _against(axes[5], steps, found, color)
        _noise(
            axes[5], [100 * (each.cells_found / reports[0].raw.cells_found - 1) for each in reports[0].redrawn], color
        )
    titles = (
        ("saved", "times smaller"),
        ("traces", "1 - correlation with raw (median cell)"),
        ("dF/F in activity", "change [%] (median cell)"),
        ("motion", "distance to raw [pixels]"),
        ("spike rates", "1 - correlation with raw (mean of cells)"),
        ("cells found", "change [%]"),
    )
    for axis, (title, label) in zip(axes, titles, strict=True):
        axis.set_xscale("log", base=2)
        axis.set_xticks(STEPS, [f"{step:g}" for step in STEPS])
        axis.set(title=title, ylabel=label, xlabel="step [noise standard deviations]")
    for axis, lowest in zip(axes[1:5], (1e-6, 1e-2, 1e-3, 1e-4), strict=True):
        axis.set_yscale("log")
        axis.set_ylim(bottom=lowest)  # below lies what changes nothing
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    figure.suptitle("Dots: stored against raw. Dashes: the same scene with other noise against raw.", fontsize=10)
    figure.savefig(path, dpi=90)


def _against(axis: Any, steps: list[float], values: list[Any], color: str) -> None:
    axis.plot(steps, values, "o-", color=color)


def _noise(axis: Any, values: list[Any], color: str) -> None:
    for value in values:
        axis.axhline(value, color=color, ls="--", lw=0.8)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--size", type=int, default=192, help="height and width of a frame")
    parser.add_argument("--redraws", type=int, default=3, help="how often noise is drawn again")
    parser.add_argument("--gains", default="1,2.3,30,100", help="of the sensors of the first table [ADU per photon]")
    parser.add_argument("--recordings", default=",".join(NAMES), help="presets of the simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder for the pictures")
    options = parser.parse_args()
    start = time.perf_counter()
    options.pictures.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}\n\nExact, step 0.5; variance added in units of step^2/12, from 10 to 300 photons:\n")
    print(exact_table(0.5, [float(gain) for gain in options.gains.split(",")]), flush=True)
    print("\nThe same without dither, largest bias:\n")
    print(plain_table(0.5, [float(gain) for gain in options.gains.split(",")]), flush=True)
    draw_exact(options.pictures / "fidelity-exact.png")
    recordings = [
        measure(name, options.size, options.frames, options.redraws, options.seed)
        for name in options.recordings.split(",")
    ]
    print(f"\n{options.frames} frames of {options.size} x {options.size}:\n")
    for recorded in recordings:
        print(f"- {recorded.name}: {recorded.photons:.2g} photons a pixel, {recorded.science[0.5].cells} cells")
    head = ["recording", "step", "ratio", "bits", "limit", "bias < 1 ph.", "> 1 ph.", "variance > 1 ph.", "nominal"]
    print("\n" + table([*head, "image left"], [row for each in recordings for row in counts_rows(each)]))
    head = ["recording", "step", "motion", "traces, median", "lowest", "> 0.999", "dF/F", "cells (in both)"]
    rows = [row for each in recordings for row in science_rows(each)]
    print("\n" + table([*head, "cells: recall, precision", "spikes: recall, precision"], rows))
    print("\nCells with a trace correlation below 0.999 at step 0.5, and what follows from the added variance:\n")
    for recorded in recordings:
        report = recorded.science[0.5]
        for share, found, due in zip(report.noise_share, report.change.traces, report.expected_traces, strict=True):
            if found < 0.999:
                print(f"- {recorded.name}: {found:.4f}, due {due:.4f}; noise is {100 * share:.0f} % of its variance")
    draw_science(recordings, options.pictures / "fidelity-science.png")
    middle = recordings[min(1, len(recordings) - 1)]
    middle.counts[0.5].plot(options.pictures / "fidelity-report.png")
    middle.science[0.5].plot(options.pictures / "fidelity-cells.png")
    print(f"\nThe reports on {middle.name} at step 0.5:\n\n{middle.counts[0.5]}\n\n{middle.science[0.5]}")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
