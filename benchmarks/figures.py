"""Draw the pictures of the user guide and the README, from a small real recording and simulated ones.

python benchmarks/figures.py --pictures docs/guide/img
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from dj_photon_codecs import AnscombeTransformV2, PhotonArray, calibrate, open_source, write_movie
from dj_photon_codecs.simulation import Spec, presets, simulate
from dj_photon_codecs.viz.curve import draw_transfer_curve

#: Pictures are as wide as the text, so that their letters have the same size on a screen.
_WIDTH = 7.4
_RAW, _STORED = "0.45", "C0"

#: A real two-photon recording; its origin is in the file beside it.
_RECORDING = Path(__file__).parents[1] / "examples" / "data" / "fmi_two_photon.tif"


@dataclass(frozen=True)
class Scale:
    """Sizes of the recordings, and the number of counts in a mean."""

    size: int
    frames: int
    draws: int

    def spec(self) -> Spec:
        """Return the recording to draw."""
        return presets.two_photon_raster(seed=1, height_px=self.size, width_px=self.size, n_frames=self.frames)


def coded(counts: Any, gain: float, zero_level: float, step: float = 0.5) -> Any:
    """Return counts as they are read, each at its own position."""
    codec = AnscombeTransformV2(zero_level, gain, encoded_dtype="uint16", step=step, dither="position")
    return codec.decode(codec.encode(counts))


def transform(folder: Path, scale: Scale) -> None:
    """Draw codes by count, the step compared with the noise, and the effect of dither on a mean."""
    gain, zero = 30.0, 100.0
    photons = np.linspace(0, 60, 600)
    counts = zero + gain * photons
    codes = 2 / 0.5 * (np.sqrt(photons + 3 / 8) - np.sqrt(3 / 8))
    sigma = gain * np.sqrt(photons + 3 / 8)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(_WIDTH, 3.2), layout="constrained")

    left.plot(counts, codes, color=_STORED)
    for middle_photons in (3, 15, 45):
        spread = middle_photons + np.array([-1, 1]) * np.sqrt(middle_photons + 3 / 8)
        edge = 2 / 0.5 * (np.sqrt(spread + 3 / 8) - np.sqrt(3 / 8))
        left.fill_between(zero + gain * spread, 0, edge, color="C1", alpha=0.25, lw=0)
        left.fill_betweenx(edge, 0, zero + gain * spread, color="C1", alpha=0.25, lw=0)
    left.set(title="one width of noise,\none number of codes", xlabel="counts [ADU]", ylabel="code")
    left.set(xlim=(0, counts[-1]), ylim=(0, codes[-1]))

    middle.plot(photons, sigma, color=_RAW, label="noise of a count")
    middle.plot(photons, 0.5 * sigma, color=_STORED, label="step: half of it")
    middle.plot(photons, 0.25 * sigma, color=_STORED, ls=":", label="largest change")
    middle.set(title="steps grow\nwith the noise", xlabel="photons", ylabel="counts [ADU]", ylim=(0, None))
    middle.legend(fontsize="small")

    rng = np.random.default_rng(0)
    means = np.arange(0.5, 8.01, 0.25)
    fixed, dithered = [], []
    plain = FixedEdges(gain, zero)
    for mean in means:
        raw = (zero + gain * rng.poisson(mean, scale.draws)).astype(np.uint16)
        unit = gain * np.sqrt(mean)
        fixed.append((plain(raw).mean() - raw.mean()) / unit)
        dithered.append((coded(raw, gain, zero).mean() - raw.mean()) / unit)
    right.plot(means, fixed, "o-", ms=3, color=_RAW, label="fixed edges")
    right.plot(means, dithered, "o-", ms=3, color=_STORED, label="with dither")
    right.set(title="change of the mean\nof many counts", xlabel="photons")
    right.set(ylabel="noise standard deviations", ylim=(-0.15, 0.15))
    right.legend(fontsize="small")
    save(figure, folder / "transform.png")


class FixedEdges:
    """The transform with fixed edges, as the portable profile rounds raw counts."""

    def __init__(self, gain: float, zero_level: float) -> None:
        from dj_photon_codecs import AnscombeTransformV2

        self._codec = AnscombeTransformV2(zero_level=zero_level, conversion_gain=gain, encoded_dtype="uint16")

    def __call__(self, counts: Any) -> Any:
        """Return counts as they are read."""
        return self._codec.decode(self._codec.encode(counts))


def transfer_curves(folder: Path, scale: Scale) -> None:
    """Draw photon transfer curves: a good one, one with saturation, and one of processed data."""
    spec = scale.spec()
    recorded = np.asarray(simulate(spec).observed)
    rng = np.random.default_rng(0)
    light = np.linspace(2, 60, 128) * np.ones((scale.frames, 128, 1))
    raw = 100 + 10 * rng.poisson(light).astype(float)
    bent = np.rint(20 * np.sqrt(raw - 100)).astype(np.uint16)
    panels = (
        ("recording: straight", recorded),
        ("saturated: end left out", np.minimum(raw, 520).astype(np.uint16)),
        ("square root: flat", bent),
    )
    figure, axes = plt.subplots(1, 3, figsize=(_WIDTH, 3.3), layout="constrained")
    for axis, (title, movie) in zip(axes, panels, strict=True):
        noise = calibrate(movie)
        print(f"{title}: reliable {noise.reliable}, gain {noise.conversion_gain:.2f}, {noise.reason}")
        draw_transfer_curve(axis, noise)
        axis.set_title(title)
    save(figure, folder / "photon-transfer.png")


def raw_and_stored(folder: Path, scale: Scale) -> None:
    """Draw a frame of a real recording, the stored frame, their difference in units of noise, and a cell's trace."""
    with open_source(_RECORDING) as movie:
        raw = np.asarray(movie[: scale.frames])
    with tempfile.TemporaryDirectory() as place:
        stored = write_movie(Path(place) / "movie", raw, profile="dense")
        draw_raw_and_stored(raw, stored, folder / "raw-and-stored.png")


def draw_raw_and_stored(raw: Any, stored: PhotonArray, picture: Path) -> None:
    """Draw the four panels of :func:`raw_and_stored`."""
    noise, back = stored.calibration, np.asarray(stored[:])
    activity = raw.astype(float).std(0) / np.sqrt(noise.storage_noise.variance(raw.mean(0)))
    activity = sum(np.roll(activity, (i, j), (0, 1)) for i in range(-3, 4) for j in range(-3, 4))
    y, x = np.unravel_index(np.argmax(activity[8:-8, 8:-8]), activity[8:-8, 8:-8].shape)
    cell = (slice(None), slice(y + 5, y + 12), slice(x + 5, x + 12))
    trace = raw[cell].mean((1, 2))
    frame = int(np.argmax(trace))
    sigma = np.sqrt(noise.storage_noise.variance(raw[frame].astype(float)))
    error = (back[frame].astype(float) - raw[frame]) / sigma

    figure, axes = plt.subplot_mosaic(
        [["raw", "stored", "error"], ["trace", "trace", "trace"]],
        figsize=(_WIDTH, 4.5),
        height_ratios=[2, 1],
        layout="constrained",
    )
    grey = {
        "interpolation": "nearest",
        "cmap": "gray",
        "vmin": np.percentile(raw[frame], 1),
        "vmax": np.percentile(raw[frame], 99.7),
    }
    axes["raw"].imshow(raw[frame], **grey)
    axes["raw"].set_title(f"recorded: {raw.nbytes / 1e6:.1f} MB")
    axes["stored"].imshow(back[frame], **grey)
    axes["stored"].set_title(f"stored: {raw.nbytes / stored.compression_ratio / 1e6:.1f} MB")
    shown = axes["error"].imshow(error, interpolation="nearest", cmap="RdBu_r", vmin=-1, vmax=1)
    axes["error"].set_title("stored - recorded")
    figure.colorbar(shown, ax=axes["error"], label="noise standard deviations", shrink=0.85)
    for name in ("raw", "stored", "error"):
        axes[name].set(xticks=[], yticks=[])
    axes["trace"].plot(trace, color="C1", lw=3, alpha=0.6, label="a cell in the recorded movie")
    axes["trace"].plot(back[cell].mean((1, 2)), color="k", lw=0.8, label="in the stored one")
    axes["trace"].set(xlabel="frame", ylabel="mean count [ADU]", xlim=(0, len(trace) - 1))
    axes["trace"].legend(fontsize="small")
    print(
        f"{picture.name}: {stored.compression_ratio:.2f} times smaller, largest error {np.abs(error).max():.2f} sigma"
    )
    save(figure, picture)


def card(folder: Path, scale: Scale) -> None:
    """Take screenshots of a movie's notebook card, light and dark, if there is a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("card.png is left as it is: there is no chromium to draw it")
        return
    with tempfile.TemporaryDirectory() as place:
        movie = write_movie(Path(place) / "scan.zarr", np.asarray(simulate(scale.spec()).observed))
        shown = movie._repr_html_().replace(place, "/data")
        page = Path(place) / "card.html"
        sides = (("#fff", "#000"), ("#111", "#eee"))
        page.write_text(
            '<meta charset="utf-8"><body style="margin:0;background:#111;font-family:sans-serif">'
            + "".join(f'<div style="padding:12px;background:{back};color:{ink}">{shown}</div>' for back, ink in sides),
            encoding="utf-8",
        )
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=910,510"]
        options += ["--force-device-scale-factor=1.5", f"--screenshot={folder / 'card.png'}"]
        subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
    print("card.png")


def save(figure: Any, path: Path) -> None:
    """Save a picture on white, so that it is readable on pages of any colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, facecolor="white", pil_kwargs={"optimize": True})
    plt.close(figure)
    print(path.name)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=Path(__file__).parents[1] / "docs" / "guide" / "img")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--draws", type=int, default=400_000, help="counts of each mean")
    options = parser.parse_args()
    scale = Scale(options.size, options.frames, options.draws)
    for draw in (transform, transfer_curves, raw_and_stored, card):
        draw(options.pictures, scale)


if __name__ == "__main__":
    main()
