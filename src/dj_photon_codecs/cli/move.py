"""Commands that move counts: write, export."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from .options import (
    PLACE,
    Watched,
    debug_option,
    json_option,
    movie_document,
    opened,
    print_facts,
    print_json,
    source_options,
)

PROFILES = ("standard", "dense", "portable", "lossless", "anscombe-v1")


@click.command(short_help="Store a movie.")
@click.argument("source", type=PLACE)
@click.argument("dest", type=PLACE)
@click.option("--gain", type=float, help="Conversion gain [ADU/photon], where you know it; measured by default.")
@click.option("--zero-level", type=float, help="Count without light [ADU]; with --gain, 0 by default.")
@click.option(
    "--step",
    type=float,
    default=0.5,
    show_default=True,
    help="Rounding, in standard deviations of each count's noise; 0 is lossless.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="standard",
    show_default=True,
    help="dense is smallest; portable opens in any Zarr reader.",
)
@click.option(
    "--zarr-format", type=click.Choice(["2", "3"]), default="3", show_default=True, help="2 is for older readers."
)
@click.option("--signed", is_flag=True, help="Negative counts are noise around darkness.")
@source_options
@json_option
@debug_option
def write(
    source: str,
    dest: str,
    gain: float | None,
    zero_level: float | None,
    step: float,
    profile: str,
    zarr_format: str,
    signed: bool,
    as_json: bool,
    **which: Any,
) -> int:
    """Store the movie SOURCE in the empty or new folder (or URL) DEST.

    Its noise is measured, its counts are rounded by at most half a step of their own noise and half a count, and
    compressed. A movie whose noise cannot be measured is stored losslessly, with a warning that says why. Whatever
    fails leaves nothing behind.

    \b
    dj-photon write scan.tif scan.zarr
    dj-photon write scan.tif s3://bucket/scan.zarr --profile dense
    dj-photon write recording.nwb scan.zarr --dataset /acquisition/series/data --gain 8.2 --zero-level 40
    """
    from .. import PhotonMovie, write_movie
    from ..handle.facts import movie_facts

    with opened(source, **which) as movie:
        given = PhotonMovie(movie, conversion_gain=gain, zero_level=zero_level, signed=signed)
        stored = write_movie(dest, given, step=step, profile=profile, zarr_format=3 if zarr_format == "3" else 2)
    if as_json:
        print_json(movie_document(stored))
    else:
        print_facts(movie_facts(stored))
    return 0


def _frames(_: click.Context, __: click.Parameter, text: str | None) -> slice:
    """``START:STOP`` as a slice; either may be left out, and negative ones count from the end."""
    if text is None:
        return slice(None)
    try:
        start, stop = (int(number) if number.strip() else None for number in text.split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no range of frames START:STOP, such as 100:200") from None
    return slice(start, stop)


@click.command(short_help="Write counts to a TIFF or NPY file.")
@click.argument("movie", type=PLACE)
@click.argument("file", type=PLACE)
@click.option("--frames", callback=_frames, metavar="START:STOP", help="Frames from START to before STOP, from 0.")
@source_options
@json_option
@debug_option
def export(movie: str, file: str, frames: slice, as_json: bool, **which: Any) -> int:
    """Write counts of MOVIE to FILE: .tif or .tiff (BigTIFF where it must be), or .npy.

    A part of the movie is in memory at a time: an object of its store, of 64 MB. FILE must not exist; it appears when
    it is complete.

    \b
    dj-photon export scan.zarr scan.tif
    dj-photon export scan.zarr part.npy --frames 100:200
    """
    from .. import ConfigurationError

    target = Path(file)
    kind = target.suffix.lower()
    if kind not in _WRITERS:
        raise ConfigurationError(f"{file} must end in one of {', '.join(_WRITERS)}")
    if target.exists():
        raise ConfigurationError(f"{file} exists: name another file, or remove it")
    with opened(movie, **which) as found:
        start, stop, _ = frames.indices(found.shape[0])
        if stop <= start:
            raise ConfigurationError(f"no frames from {start} to before {stop}: the movie has {found.shape[0]}")
        shape = (stop - start, *found.shape[1:])
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with Watched(found, "exporting") as watched:
                blocks = _blocks(watched, start, stop, _block_length(found))
                _WRITERS[kind](partial, blocks, shape, found.dtype)
            partial.rename(target)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    size = target.stat().st_size
    if as_json:
        print_json({"shape": shape, "dtype": str(found.dtype), "first_frame": start, "bytes": size})
    else:
        click.echo(f"frames {start} to {stop - 1}, {found.dtype}, {size} bytes")
    return 0


#: Bytes of the blocks of frames that are read of a file at a time, about.
_BLOCK_BYTES = 1 << 25


def _block_length(movie: Any) -> int:
    """How many frames are read at a time: those of an object in the store, which then is read once, and not kept."""
    stored = getattr(movie, "shards", None) or getattr(movie, "chunks", None)
    if stored is not None:
        return int(stored[0])
    frame: int = math.prod(movie.shape[1:]) * movie.dtype.itemsize
    return max(1, _BLOCK_BYTES // frame)


def _blocks(movie: Any, start: int, stop: int, length: int) -> Iterator[Any]:
    """Counts of a range of frames, to the next multiple of ``length`` at a time, in native byte order and C order."""
    import numpy as np

    while start < stop:
        end = min((start // length + 1) * length, stop)
        counts = np.asarray(movie[start:end])
        yield np.ascontiguousarray(counts, counts.dtype.newbyteorder("="))
        start = end


def _write_npy(path: Path, blocks: Iterator[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """A NumPy file, written as it comes: a memory map would count its pages as memory."""
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("=")), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            block.tofile(file)


def _write_tiff(path: Path, blocks: Iterator[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """A stack of pages with their shape in the description, as tifffile writes and reads it."""
    try:
        import tifffile
    except ImportError as error:
        raise ImportError('TIFF needs tifffile: pip install "dj-photon-codecs[tiff]"') from error
    pages = (page for block in blocks for page in block.reshape(-1, *shape[-2:]))
    axes = {3: "TYX", 4: "TZYX"}.get(len(shape))
    tifffile.imwrite(
        path,
        pages,
        shape=shape,
        dtype=dtype.newbyteorder("="),
        photometric="minisblack",
        metadata=None if axes is None else {"axes": axes},
    )


_WRITERS: dict[str, Callable[[Path, Iterator[Any], tuple[int, ...], Any], None]] = {
    ".npy": _write_npy,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
}
