"""Commands that describe a movie: info, inspect, calibrate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from .options import PLACE, SOURCE, argument, command, movie_document, opened, option
from .output import CHECK_FAILED, columns, report


@command("Describe a movie, without reading its counts.", argument("movie"), *SOURCE)
def info(movie: str, as_json: bool, **which: Any) -> int:
    """Describe MOVIE, without reading its counts.

    For a stored movie: shape, profile, size before and after, noise model. For a file: shape and dtype.

    \b
    dj-photon info scan.zarr
    dj-photon info s3://bucket/scan.zarr --json
    dj-photon info scan.tif --channel 0
    """
    from .. import PhotonArray
    from ..handle.facts import array_facts, movie_facts, size_text

    with opened(movie, **which) as found:
        if isinstance(found, PhotonArray):
            chunks = " x ".join(map(str, found.chunks))
            shards = f", in objects of {' x '.join(map(str, found.shards))}" if found.shards else ""
            facts = [*movie_facts(found), ("chunks", f"{chunks}{shards}; Zarr {found.metadata.zarr_format}")]
            if found.record is not None:
                versions = [f"{name} {version}" for name, version in found.record.versions.items()]
                facts.append(("written by", ", ".join(versions)))
        else:
            size = f"{size_text(math.prod(found.shape) * found.dtype.itemsize)}, not stored by dj-photon"
            facts = [*array_facts(found.shape, found.dtype), ("size", size)]
        report(as_json, movie_document(found), columns(facts))
    return 0


@command("Estimate what storing a movie would give, without writing.", argument("movie"), *SOURCE)
def inspect(movie: str, as_json: bool, **which: Any) -> int:
    """Estimate what storing MOVIE would give: its noise, how well that is known and why, and its size in each profile.

    Nothing is written. Exit code 1 if the noise is unknown, so that the movie would be stored losslessly.

    \b
    dj-photon inspect scan.tif
    dj-photon inspect recording.nwb --json
    """
    from .. import estimate

    with opened(movie, **which) as found:
        expected = estimate(found)
    noise = expected.calibration
    document = {"calibration": noise.to_dict(), "ratios": expected.ratios, "reason": expected.reason}
    report(as_json, document, str(expected))
    return CHECK_FAILED if noise.verdict == "unknown" else 0


def _plot_file(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse an unknown kind of picture before anything is measured."""
    if value is not None and Path(value).suffix.lower() not in (".svg", ".png", ".pdf"):
        raise click.BadParameter(f"{value!r} must end in .svg, .png or .pdf")
    return value


@command(
    "Measure the noise of a movie, and draw the curve.",
    argument("movie"),
    option("--plot", "Draw the curve to FILE.svg, FILE.png or FILE.pdf.", type=PLACE, callback=_plot_file),
    *SOURCE,
)
def calibrate(movie: str, plot: str | None, as_json: bool, **which: Any) -> int:
    """Measure the noise of MOVIE from the movie itself, and draw its photon transfer curve.

    Each point is many pixels of nearly the same brightness: variance against mean. If the noise is that of photons,
    they lie on a line: its slope is the gain [ADU/photon], and it meets zero variance at the zero level [ADU]. A curve
    that bends or falls indicates saturation, or values that are not raw counts. For a movie that is stored already,
    the result from when it was written is shown.

    Exit code 1 if the noise is unknown; the reason is printed.

    \b
    dj-photon calibrate scan.tif --plot curve.svg
    dj-photon calibrate recording.nwb --json
    """
    from .. import PhotonArray
    from .. import calibrate as measured
    from ..handle.facts import calibration_facts
    from ..viz import transfer_curve_svg, transfer_curve_text

    with opened(movie, **which) as found:
        stored = isinstance(found, PhotonArray) and found.record is not None
        noise = found.calibration if stored else measured(found)
    if plot is not None and plot.lower().endswith(".svg"):
        Path(plot).write_text(transfer_curve_svg(noise), encoding="utf-8")
    elif plot is not None:
        from ..viz.curve import save_transfer_curve

        save_transfer_curve(noise, plot)
    report(as_json, noise.to_dict(), f"{columns(calibration_facts(noise))}\n\n{transfer_curve_text(noise)}")
    return CHECK_FAILED if noise.verdict == "unknown" else 0
