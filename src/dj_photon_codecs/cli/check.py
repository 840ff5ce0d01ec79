"""Commands for many stored movies at once: verify, recover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import click

from .options import JOBS, PLACE, argument, command, flag, option
from .output import CHECK_FAILED, UNREACHABLE, USAGE, report

#: What a movie can be found to be, and the exit code for that; the first that occurs decides for all.
_CODES = {"damaged": CHECK_FAILED, "unreachable": UNREACHABLE, "not a movie": USAGE, "intact": 0}


@command("Check every chunk of stored movies.", argument("movies", nargs=-1, required=True), JOBS)
def verify(movies: tuple[str, ...], jobs: int, as_json: bool) -> int:
    """Read every chunk of stored MOVIES, and check that it is the one that was written.

    Prints a line for each movie, with its damaged chunks and frames below it; all movies are checked even if one is
    damaged. Exit code 1 if a movie is damaged: chunks or metadata are missing or were altered, or it was never
    finished. Otherwise 4 if a storage could not be reached, and 2 if there is no movie at a path.

    \b
    dj-photon verify scan.zarr
    dj-photon verify --jobs 4 stored/*.zarr
    dj-photon verify s3://bucket/scan.zarr --json
    """
    from .. import open_movie  # noqa: F401  # not first in a thread

    found = []
    for checked in _all_checked(movies, jobs):
        found.append(checked)
        if not as_json:
            click.echo(_text(checked))
    counts = Counter(checked["status"] for checked in found)
    parts = ", ".join(f"{counts[status]} {status}" for status in reversed(_CODES) if counts[status])
    if as_json or len(found) > 1:
        document = {"ok": set(counts) == {"intact"}, "counts": counts, "movies": found}
        report(as_json, document, f"{len(found)} movies: {parts}")
    return next(code for status, code in _CODES.items() if counts[status])


def _text(checked: dict[str, Any]) -> str:
    """A line on a movie, and one for each damaged chunk and range of frames below it."""
    lines = checked["message"].splitlines()
    lines += [f"frames {start} to {stop - 1} cannot all be read" for start, stop in checked.get("lost_frames", ())]
    head = "" if checked["ok"] else f"{checked['status']}: "
    return "\n  ".join([f"{checked['path']}: {head}{lines[0]}", *lines[1:]])


def _all_checked(paths: tuple[str, ...], jobs: int) -> Iterator[dict[str, Any]]:
    """The movies in their order, as they are checked."""
    if min(jobs, len(paths)) == 1:
        yield from map(_checked, paths)
        return
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(lambda path: _checked(path, progress=False), paths)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C starts no further check


def _checked(path: str, progress: bool | None = None) -> dict[str, Any]:
    """Read all of a movie; return its status (one of the above), the reason, and its verification if there was one."""
    from .. import FormatError, PhotonCodecError, StorageError, open_movie
    from .places import Place, State

    details: dict[str, Any] = {}
    try:
        place = Place(path)
        try:
            found = open_movie(path).verify(progress=progress)
            status, message = "intact" if found.ok else "damaged", str(found)
            details = asdict(found) | {"lost_frames": found.frames}
        except FormatError as error:
            state = place.state()
            incomplete = state in (State.UNFINISHED, State.WRITING, State.ABANDONED, State.REMAINS)
            status = "damaged" if incomplete or state is State.MOVIE else "not a movie"
            message = f"the metadata cannot be used: {error}" if state is State.MOVIE else state.value
    except StorageError as error:
        status, message = "unreachable", str(error)
    except (PhotonCodecError, ImportError) as error:
        status, message = "not a movie", str(error)
    return {"path": path, "status": status, "ok": status == "intact", "message": message} | details


@command(
    "Finish movies whose acquisition was cut off.",
    argument("movies", nargs=-1, required=True),
    flag("--dry-run", "Only say what is there, and what would be lost."),
    option("--spilled", "The folder that took frames while the store failed.", type=PLACE),
)
def recover(movies: tuple[str, ...], dry_run: bool, spilled: str | None, as_json: bool) -> int:
    """Make MOVIES of what acquisitions stored before they were cut off (a crash, a power cut).

    Prints a line for each: its frames, and those lost in between. Nothing that can be read is removed. Complete movies,
    and those that are being acquired, are left unchanged. If one fails, the others are still recovered.

    \b
    dj-photon recover scan.zarr
    dj-photon recover --dry-run session/*.zarr
    """
    from .. import FormatError, PhotonCodecError, StorageError, plan_recovery, recover_movie
    from .places import Place, State

    found: list[dict[str, Any]] = []
    code = 0
    for path in movies:
        place = Place(path)
        label = place.location.label
        try:
            if dry_run:
                plan = plan_recovery(path, spilled=spilled)
                document, line = {"ok": True, **asdict(plan)}, str(plan)
            else:
                movie = recover_movie(path, spilled=spilled)
                document = {"ok": True, "location": label, "n_frames": len(movie), "shape": movie.shape}
                line = f"{label}: {len(movie)} frames"
        except (PhotonCodecError, ImportError) as error:
            code = max(code, UNREACHABLE if isinstance(error, StorageError) else USAGE)
            message = str(error)
            if isinstance(error, FormatError) and place.state() in (State.NOTHING, State.FILE, State.OTHER):
                message = f"{label} holds no unfinished movie: {place.state().value}"
            document, line = {"ok": False, "location": label, "message": message}, f"error: {message}"
        found.append(document)
        if not as_json:
            click.echo(line, err=not document["ok"])
    if as_json:
        report(as_json, {"ok": code == 0, "dry_run": dry_run, "movies": found}, "")
    return code
