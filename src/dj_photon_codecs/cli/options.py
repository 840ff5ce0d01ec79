"""What several commands share: options, how a movie is opened, how results are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

#: A file, a folder or a URL; shells complete it as a path.
PLACE = click.Path()

#: Seconds of work before a progress bar appears.
_PATIENCE = 2.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error, not its line alone."
)


def _numbers(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """``0,2,3`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of whole numbers, such as 0,2,3") from None


def source_options(command: Command) -> Command:
    """The options that say which movie of a file is meant; they reach :func:`opened` by keyword."""
    for option in (
        click.option("--channel", type=int, help="Channel, from 0, of a file that has several."),
        click.option("--planes", callback=_numbers, metavar="N,N...", help="Planes of a volume, from 0; all without."),
        click.option("--dataset", metavar="PATH", help="Dataset of an HDF5 or NWB file, such as /recording/data."),
        click.option("--axes", metavar="LETTERS", help="Axes as they lie in a file that does not say: TZYX..."),
        click.option("--shape", callback=_numbers, metavar="N,N...", help="Shape of a file without a header."),
        click.option("--dtype", help="Data type of a file without a header, such as int16 or '>i2'."),
        click.option("--offset", type=int, metavar="BYTES", help="Where counts begin in a file without a header."),
    )[::-1]:
        command = option(command)
    return command


@contextmanager
def opened(path: str, **which: Any) -> Iterator[Any]:
    """The movie at a path or URL: a ``PhotonArray`` where a Zarr array is stored, otherwise a ``FileMovie``.

    Parameters
    ----------
    path
        As :func:`~dj_photon_codecs.open_movie` or :func:`~dj_photon_codecs.open_source` take it.
    which
        Options of :func:`~dj_photon_codecs.open_source`; None for those that were not given.
    """
    from .. import FormatError, open_movie, open_source

    given = {name: value for name, value in which.items() if value is not None}
    if not given and ("://" in path or any((Path(path) / name).exists() for name in ("zarr.json", ".zarray"))):
        try:
            movie = open_movie(path)
        except FormatError:
            if not _is_group(path):
                raise
        else:
            yield movie
            return
    with open_source(path, **given) as source:
        yield source


def _is_group(path: str) -> bool:
    """Whether there is a Zarr group, such as an OME-Zarr image."""
    import zarr

    try:
        zarr.open_group(path, mode="r")
    except (OSError, ValueError):
        return False
    return True


def print_json(document: Any) -> None:
    """One JSON document on stdout, with null for what is not a number."""
    click.echo(json.dumps(_strict(document), allow_nan=False))


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}")


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


class Watched:
    """A movie that shows on stderr how far reading it has come; on a terminal, and when it takes long.

    Parameters
    ----------
    movie
        Anything with shape, dtype and slices along time.
    what
        The label.
    passes
        How often the movie is read.
    """

    def __init__(self, movie: Any, what: str, passes: int = 1) -> None:
        from tqdm import tqdm

        self._movie, self.shape, self.dtype = movie, movie.shape, movie.dtype
        total = passes * self.shape[0]
        self._bar = tqdm(desc=what, total=total, unit="frame", disable=None, delay=_PATIENCE, leave=False)

    def __getitem__(self, selection: slice) -> Any:
        counts = self._movie[selection]
        self._bar.update(len(counts))
        return counts

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
