"""The options of all commands, in one table, and how a movie is opened with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from ..options import WriteOptions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: A file, a folder or a URL; shells complete it as a path.
PLACE = click.Path()


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """``0,2,3`` as numbers."""
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers, such as 0,2,3") from None


def _frames(_: click.Context, __: click.Parameter, text: str | None) -> slice:
    """``START:STOP`` as a slice; either may be left out, and negative ones count from the end."""
    try:
        start, stop = (int(number) if number.strip() else None for number in (text or ":").split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a range of frames START:STOP, such as 100:200") from None
    return slice(start, stop)


def flag(name: str, text: str, **settings: Any) -> Decorator:
    """A switch, which is off by default."""
    return click.option(name, is_flag=True, help=text, **settings)


def option(name: str, text: str, default: Any = None, **settings: Any) -> Decorator:
    """An option; a default is shown in its help."""
    return click.option(name, help=text, default=default, show_default=default is not None, **settings)


JSON: Decorator = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
DEBUG = flag("--debug", "Show the traceback of an error, not only one line.", expose_value=False)
JOBS = option("--jobs", "Movies checked at a time.", 1, type=click.IntRange(min=1))

_GAIN_HELP = "Conversion gain [ADU/photon], if you know it; measured by default."
#: Noise model.
NOISE: tuple[Decorator, ...] = (
    click.option("--conversion-gain", "--gain", "conversion_gain", type=float, help=_GAIN_HELP),
    option("--zero-level", "Count without light [ADU]; with --gain, 0 by default.", type=float),
)


def _storage_option(given: Field[Any]) -> Decorator:
    """An option of ``write_movie``; click's choices are texts."""
    kind: Callable[[Any], Any] = given.metadata["kind"]
    texts = [str(choice) for choice in given.metadata["choices"]]
    return option(
        f"--{given.name.replace('_', '-')}",
        given.metadata["help"],
        None if given.default is None else str(given.default),
        type=click.Choice(texts) if texts else kind,
        callback=lambda _, __, value: None if value is None else kind(value),
    )


#: The options of ``write_movie``.
WRITTEN = [given for given in fields(WriteOptions) if given.metadata]

#: How a movie is stored.
STORAGE = (*map(_storage_option, WRITTEN), flag("--signed", "Negative counts are noise around darkness."))

#: Which movie of a file is meant: arguments of :func:`~dj_photon_codecs.open_source`.
SOURCE = (
    option("--channel", "Channel, from 0, of a file that has several.", type=int),
    option("--planes", "Planes of a volume, from 0; all by default.", callback=_numbers, metavar="N,N..."),
    option("--position", "Position of the stage, from 0, of a recording that has several.", type=int),
    option("--pattern", "Which files of a folder, such as 'msCam*.avi'.", metavar="GLOB"),
    click.option("--skip-damaged", is_flag=True, default=None, help="Leave out files that cannot be read."),
    option("--dataset", "Dataset of an HDF5 or NWB file, such as /recording/data.", metavar="PATH"),
    option("--axes", "Axes in the file, if it does not say: TZYX...", metavar="LETTERS"),
    option("--shape", "Shape of a file without a header.", callback=_numbers, metavar="N,N..."),
    option("--dtype", "Data type of a file without a header, such as int16 or '>i2'."),
    option("--offset", "Where counts begin in a file without a header.", type=int, metavar="BYTES"),
)
FRAMES = option("--frames", "Frames from START to before STOP, from 0.", callback=_frames, metavar="START:STOP")


def argument(name: str, **settings: Any) -> Decorator:
    """A path or URL."""
    return click.argument(name, type=PLACE, **settings)


def command(short_help: str, *parameters: Decorator) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command with these parameters, ``--json`` and ``--debug``."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        for parameter in reversed((*parameters, JSON, DEBUG)):
            function = parameter(function)
        return click.command(short_help=short_help)(function)

    return decorate


@contextmanager
def opened(path: str, **which: Any) -> Iterator[Any]:
    """The movie at a path or URL: a ``PhotonArray`` for a Zarr array, otherwise a ``FileMovie`` with these options."""
    from .. import FormatError, open_movie, open_source
    from .places import Place

    given = {name: value for name, value in which.items() if value is not None}
    if not given and ("://" in path or any((Path(path) / name).exists() for name in ("zarr.json", ".zarray"))):
        try:
            movie = open_movie(path)
        except FormatError:
            if not Place(path).is_group():
                raise
        else:
            yield movie
            return
    with open_source(path, **given) as source:
        yield source


def movie_document(movie: Any) -> dict[str, Any]:
    """What is known of a movie without reading it, for JSON."""
    from .. import CalibrationError, PhotonArray

    document = {"shape": movie.shape, "dtype": str(movie.dtype)}
    if not isinstance(movie, PhotonArray):
        return document | {"stored": False}
    try:
        calibration = movie.calibration.to_dict()
    except CalibrationError:
        calibration = None
    document |= {"stored": True, "profile": movie.profile, "step": movie.step, "calibration": calibration}
    document |= {"zarr_format": movie.metadata.zarr_format, "chunks": movie.chunks, "shards": movie.shards}
    record = movie.record
    if record is None:
        return document
    sizes = {"original_bytes": record.original_bytes, "stored_bytes": record.stored_bytes}
    return document | sizes | {"ratio": movie.compression_ratio, "versions": record.versions}
