"""Variance over mean of a recording by brightness, column, line and time, to find noise that is not shot noise.

    python benchmarks/residuals.py examples/data/FILE.tif --picture residuals.png

White noise is 1 in every picture. Needs matplotlib and tifffile.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from dj_photon_codecs import calibrate, open_source

Floats = npt.NDArray[np.float64]


def noise(counts: Floats, down: bool) -> tuple[Floats, Floats]:
    """Return the variance from second differences of frames, down the columns or along the lines, and the light."""
    difference = counts[1:] - counts[:-1]
    if down:
        fine = difference[:, 2:, 1:-1] - 2 * difference[:, 1:-1, 1:-1] + difference[:, :-2, 1:-1]
    else:
        fine = difference[:, 1:-1, 2:] - 2 * difference[:, 1:-1, 1:-1] + difference[:, 1:-1, :-2]
    return np.asarray(fine**2 / 12), np.asarray((counts[1:] + counts[:-1])[:, 1:-1, 1:-1] / 2)


def grouped(variance: Floats, light: Floats, group: Floats, n: int) -> tuple[Floats, Floats]:
    """Return centre and variance over mean of ``n`` groups of equal size, sorted by rank."""
    edges = np.quantile(group, np.linspace(0, 1, n + 1)[1:-1])
    index = np.broadcast_to(np.searchsorted(edges, group), variance.shape)
    pairs = [(index == i) for i in range(n)]
    middle = [float(np.broadcast_to(group, variance.shape)[pair].mean()) for pair in pairs]
    return np.array(middle), np.array([variance[pair].mean() / light[pair].mean() for pair in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movie")
    parser.add_argument("--picture", default="residuals.png")
    options = parser.parse_args()
    with open_source(options.movie) as source:
        counts = np.asarray(source[: min(source.shape[0], 400)], np.float64)
    found = calibrate(counts)
    print(f"{found.verdict}: gain {found.conversion_gain:.1f}, zero level {found.zero_level:.1f}\n{found.reason}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True)
    frames, height, width = counts.shape
    for down, label in ((True, "across lines"), (False, "along lines")):
        variance, light = noise(counts, down)
        light = found.conversion_gain * (light - found.zero_level)
        mean = counts.mean(0)[1:-1, 1:-1]
        groups = (
            ("brightness [ADU]", mean[None], 12),
            ("column", np.arange(width - 2)[None, None].astype(float), 16),
            ("line", np.arange(height - 2)[None, :, None].astype(float), 16),
            ("frame", np.arange(frames - 1)[:, None, None].astype(float), 16),
        )
        for axis, (name, group, n) in zip(axes, groups, strict=True):
            axis.plot(*grouped(variance, light, group, n), ".-", markersize=4, linewidth=0.8, label=label)
            axis.axhline(1, color="0.6", linewidth=0.7)
            axis.set(xlabel=name, ylim=(0.5, 1.2))
    axes[0].set_ylabel("noise / model")
    axes[0].legend(fontsize="small")
    figure.savefig(options.picture, dpi=120)


if __name__ == "__main__":
    main()
