"""Commands that copy counts: write, export."""

from __future__ import annotations

import glob
import math
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._system import ends_of_processes_are_known, is_running, rename, unlink
from .options import FRAMES, NOISE, SOURCE, STORAGE, WRITTEN, argument, command, flag, movie_document, opened
from .output import ALREADY_THERE, Failure, columns, report

if TYPE_CHECKING:
    from .. import PhotonArray


@command(
    "Store a movie.",
    argument("source"),
    argument("dest"),
    *NOISE,
    *STORAGE,
    flag("--skip-existing", "Leave a movie that DEST holds already, with exit code 0."),
    flag("--force", "Replace a movie that DEST holds, once the new one is verified."),
    *SOURCE,
)
def write(
    source: str,
    dest: str,
    conversion_gain: float | None,
    zero_level: float | None,
    signed: bool,
    skip_existing: bool,
    force: bool,
    as_json: bool,
    **others: Any,
) -> int:
    """Store the movie SOURCE in the empty or new folder (or URL) DEST.

    Its noise is measured, its counts are rounded by at most half a step of their own noise and half a count, and
    compressed. A movie whose noise cannot be measured is stored losslessly, with a warning that says why. A failure
    leaves nothing behind.

    Exit code 3 if DEST is not empty. --skip-existing makes a loop over files repeatable: a movie that is there, with
    the shape and data type of SOURCE, is left unchanged.

    \b
    dj-photon write scan.tif scan.zarr
    dj-photon write scan.tif s3://bucket/scan.zarr --profile dense
    dj-photon write recording.nwb scan.zarr --dataset /acquisition/series/data --gain 8.2 --zero-level 40
    """
    from .. import PhotonMovie, write_movie
    from ..handle.facts import movie_facts
    from .places import Place, State

    if skip_existing and force:
        raise click.UsageError("--skip-existing and --force contradict each other: give one of them")
    place = Place(dest)
    state = place.state()
    skipped = skip_existing and state is State.MOVIE
    replaced = force and state in (State.MOVIE, State.UNFINISHED, State.REMAINS)
    if state not in (State.NOTHING, State.ABANDONED) and not (skipped or replaced):
        remedy = "choose a new path"
        if state not in (State.FILE, State.OTHER, State.WRITING):
            remedy = f"--force replaces it{', --skip-existing leaves it' * (state is State.MOVIE)}; or {remedy}"
        raise Failure(f"{place.location.label} is not empty: {state.value}. Ways out: {remedy}", ALREADY_THERE)
    options = {one.name: others.pop(one.name) for one in WRITTEN}
    with opened(source, **others) as movie:
        given = PhotonMovie(movie, conversion_gain=conversion_gain, zero_level=zero_level, signed=signed)

        def put(path: str) -> PhotonArray:
            return write_movie(path, given, **options)

        stored = _existing(dest, movie) if skipped else place.replace(put) if replaced else put(dest)
    facts = [*movie_facts(stored), *([("skipped", "it was there already")] if skipped else [])]
    report(as_json, movie_document(stored) | {"skipped": skipped}, columns(facts))
    return 0


def _existing(dest: str, movie: Any) -> PhotonArray:
    """The movie at the destination, if it has the shape and dtype of the source."""
    from .. import open_movie

    stored = open_movie(dest)
    if (stored.shape, stored.dtype) != (tuple(movie.shape), movie.dtype.newbyteorder("=")):
        raise Failure(
            f"{dest} holds another movie: {stored.shape} {stored.dtype}, and the source is {movie.shape} "
            f"{movie.dtype}. Choose a new path, or replace it with --force",
            ALREADY_THERE,
        )
    return stored


@command("Write counts to a TIFF or NPY file.", argument("movie"), argument("file"), FRAMES, *SOURCE)
def export(movie: str, file: str, frames: slice, as_json: bool, **which: Any) -> int:
    """Write counts of MOVIE to FILE: .tif or .tiff (BigTIFF if necessary), or .npy.

    One object of the store, 64 MB, is in memory at a time. FILE must not exist; it appears when it is complete.

    \b
    dj-photon export scan.zarr scan.tif
    dj-photon export scan.zarr part.npy --frames 100:200
    """
    from .. import ConfigurationError
    from ..storage.progress import progress_bar

    target = Path(file)
    kind = target.suffix.lower()
    if kind not in _WRITERS:
        raise ConfigurationError(f"{file} must end in one of {', '.join(_WRITERS)}")
    if target.exists():
        raise Failure(f"{file} exists: name another file, or remove it", ALREADY_THERE)
    with opened(movie, **which) as found:
        length = found.shape[0]
        start, stop, _ = frames.indices(length)
        asked = ":".join("" if end is None else str(end) for end in (frames.start, frames.stop))
        if stop <= start:
            raise ConfigurationError(f"--frames {asked} holds no frame: the movie has {length}, from 0 to {length - 1}")
        if any(end is not None and not -length <= end <= length for end in (frames.start, frames.stop)):
            warnings.warn(f"--frames {asked}: the movie has {length}, and ends at {length - 1}", stacklevel=1)
        shape = (stop - start, *found.shape[1:])
        partial = _partial(target)
        try:
            with progress_bar("exporting", stop - start, "frame", None) as advance:
                _WRITERS[kind](partial, _blocks(found, start, stop, advance), shape, found.dtype)
            rename(partial, target)
        finally:
            unlink(partial)
    size = target.stat().st_size
    document = {"shape": shape, "dtype": str(found.dtype), "first_frame": start, "bytes": size}
    report(as_json, document, f"frames {start} to {stop - 1}, {found.dtype}, {size} bytes")
    return 0


def _partial(target: Path) -> Path:
    """Where a file is written until it is complete; removes what killed processes of this machine left there."""
    host = re.sub(r"\W", "-", socket.gethostname())
    if ends_of_processes_are_known():
        for left in target.parent.glob(f".{glob.escape(target.name)}.{host}.*.partial"):
            number = left.suffixes[-2].removeprefix(".")
            if number.isdecimal() and not is_running(int(number)):
                unlink(left)
    return target.with_name(f".{target.name}.{host}.{os.getpid()}.partial")


#: Approximate size of the blocks of frames that are read from a file [bytes].
_BLOCK_BYTES = 1 << 25


def _block_length(movie: Any) -> int:
    """How many frames are read at a time: those of one object in the store, so that each object is read once."""
    stored = getattr(movie, "shards", None) or getattr(movie, "chunks", None)
    if stored is not None:
        return int(stored[0])
    frame: int = math.prod(movie.shape[1:]) * movie.dtype.itemsize
    return max(1, _BLOCK_BYTES // frame)


def _blocks(movie: Any, start: int, stop: int, advance: Callable[[int], object]) -> Iterator[Any]:
    """Counts of a range of frames, one block at a time, in native byte order and C order."""
    import numpy as np

    length = _block_length(movie)
    while start < stop:
        end = min((start // length + 1) * length, stop)
        counts = np.asarray(movie[start:end])
        yield np.ascontiguousarray(counts, counts.dtype.newbyteorder("="))
        advance(end - start)
        start = end


def _write_npy(path: Path, blocks: Iterator[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """A NumPy file, written block by block: the pages of a memory map would count as memory."""
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("=")), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            block.tofile(file)


def _write_tiff(path: Path, blocks: Iterator[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """A stack of pages with their shape in the description, as tifffile writes and reads it."""
    from ..sources.stack import library

    tifffile = library("tifffile", "tiff", "TIFF files")
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
