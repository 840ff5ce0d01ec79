"""Commands that look: info, calibrate, verify."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .options import (
    PLACE,
    debug_option,
    json_option,
    movie_document,
    opened,
    print_facts,
    print_json,
    source_options,
)


@click.command(short_help="Say what a movie is, without reading its counts.")
@click.argument("movie", type=PLACE)
@source_options
@json_option
@debug_option
def info(movie: str, as_json: bool, **which: Any) -> int:
    """Say what MOVIE is, without reading its counts.

    Of a stored movie: shape, profile, size before and after, noise model. Of a file: shape and dtype.

    \b
    dj-photon info scan.zarr
    dj-photon info s3://bucket/scan.zarr --json
    dj-photon info scan.tif --channel 0
    """
    from .. import PhotonArray
    from ..handle.facts import array_facts, movie_facts, size_text

    with opened(movie, **which) as found:
        if as_json:
            print_json(movie_document(found))
            return 0
        if not isinstance(found, PhotonArray):
            size = f"{size_text(math.prod(found.shape) * found.dtype.itemsize)}, not stored by dj-photon"
            print_facts([*array_facts(found.shape, found.dtype), ("size", size)])
            return 0
        chunks = " x ".join(map(str, found.chunks))
        shards = f", in objects of {' x '.join(map(str, found.shards))}" if found.shards else ""
        facts = [*movie_facts(found), ("chunks", f"{chunks}{shards}; Zarr {found.metadata.zarr_format}")]
        if found.record is not None:
            versions = found.record.versions.items()
            facts.append(("written by", ", ".join(f"{name} {version}" for name, version in versions)))
        print_facts(facts)
    return 0


def _plot_file(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A file name by whose end the kind of picture is known; asked before anything is measured."""
    if value is not None and Path(value).suffix.lower() not in (".svg", ".png", ".pdf"):
        raise click.BadParameter(f"{value!r} must end in .svg, .png or .pdf")
    return value


@click.command(short_help="Measure the noise of a movie, and draw the curve.")
@click.argument("movie", type=PLACE)
@click.option("--plot", type=PLACE, callback=_plot_file, help="Draw the curve to FILE.svg, FILE.png or FILE.pdf.")
@source_options
@json_option
@debug_option
def calibrate(movie: str, plot: str | None, as_json: bool, **which: Any) -> int:
    """Measure the noise of MOVIE from the movie itself, and draw its photon transfer curve.

    Each point is many pixels of nearly the same brightness: variance against mean. Where the noise is that of photons
    they lie on a line: its slope is the gain [ADU/photon], and it meets zero variance at the zero level [ADU]. A curve
    that bends or falls tells of saturation, or of values that are no raw counts. Of a movie that is stored already,
    what was found when it was written is shown.

    Exit code 1 when the noise model is not reliable; the reason is printed.

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
        from ..viz.axes import save_transfer_curve

        save_transfer_curve(noise, plot)
    if as_json:
        print_json(noise.to_dict())
    else:
        print_facts(calibration_facts(noise))
        click.echo(f"\n{transfer_curve_text(noise)}")
    return 0 if noise.reliable else 1


@click.command(short_help="Check every chunk of a stored movie.")
@click.argument("movie", type=PLACE)
@json_option
@debug_option
def verify(movie: str, as_json: bool) -> int:
    """Read every chunk of a stored MOVIE, and check that it is the one that was written.

    Exit code 1 when chunks are missing or damaged, or the metadata was altered; each is listed, with its frames.

    \b
    dj-photon verify scan.zarr
    dj-photon verify s3://bucket/scan.zarr --json
    """
    from .. import FormatError, open_movie
    from ..storage.verify import VerificationReport

    try:
        report = open_movie(movie).verify()
    except FormatError as error:
        if not _has_document(movie):
            raise
        report = VerificationReport(0, metadata=(str(error),))
    if as_json:
        print_json({"ok": report.ok, **asdict(report), "lost_frames": report.frames})
    else:
        click.echo(str(report))
        for start, stop in report.frames:
            click.echo(f"frames {start} to {stop - 1} cannot all be read")
    return 0 if report.ok else 1


def _has_document(path: str) -> bool:
    """Whether there is a metadata document, readable or not: then a movie is damaged, and not absent."""
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(path)
    return any(filesystem.exists(f"{root}/{name}") for name in ("zarr.json", ".zarray"))
