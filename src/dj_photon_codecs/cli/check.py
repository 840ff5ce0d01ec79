"""Commands that check many movies at once: verify, audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import click

from .options import JOBS, argument, command, option
from .output import CHECK_FAILED, UNREACHABLE, USAGE, Failure, report

#: What a movie can be found to be, and the exit code for that; the first that occurs decides for all.
_CODES = {"damaged": CHECK_FAILED, "unreachable": UNREACHABLE, "not a movie": USAGE, "intact": 0}


@dataclass(frozen=True)
class _Checked:
    """A movie's path, status (one of the above), the reason, and its verification if there was one."""

    path: str
    status: str
    message: str
    report: Any = None

    def __str__(self) -> str:
        lines = self.message.splitlines()
        if self.report is not None:
            lines += [f"frames {start} to {stop - 1} cannot all be read" for start, stop in self.report.frames]
        head = "" if self.status == "intact" else f"{self.status}: "
        return "\n  ".join([f"{self.path}: {head}{lines[0]}", *lines[1:]])

    def document(self) -> dict[str, Any]:
        """For JSON."""
        found = {"path": self.path, "status": self.status, "ok": self.status == "intact", "message": self.message}
        return found if self.report is None else found | asdict(self.report) | {"lost_frames": self.report.frames}


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
    from .. import open_movie  # noqa: F401  # before threads do

    found = []
    for checked in _all_checked(movies, jobs):
        found.append(checked)
        if not as_json:
            click.echo(str(checked))
    counts = Counter(checked.status for checked in found)
    parts = ", ".join(f"{counts[status]} {status}" for status in reversed(_CODES) if counts[status])
    if as_json or len(found) > 1:
        ok, documents = set(counts) == {"intact"}, [checked.document() for checked in found]
        report(as_json, {"ok": ok, "counts": counts, "movies": documents}, f"{len(found)} movies: {parts}")
    return next(code for status, code in _CODES.items() if counts[status])


def _all_checked(paths: tuple[str, ...], jobs: int) -> Iterator[_Checked]:
    """The movies in their order, as they are checked."""
    if min(jobs, len(paths)) == 1:
        yield from map(_checked, paths)
        return
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(lambda path: _checked(path, progress=False), paths)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C starts no further check


def _checked(path: str, progress: bool | None = None) -> _Checked:
    """Open a movie and read all of it."""
    from .. import FormatError, PhotonCodecError, StorageError, open_movie
    from .places import Place, State

    try:
        place = Place(path)
        try:
            found = open_movie(path).verify(progress=progress)
        except FormatError as error:
            state = place.state()
            if state is State.MOVIE:
                return _Checked(path, "damaged", f"the metadata cannot be used: {error}")
            damaged = state in (State.UNFINISHED, State.WRITING, State.ABANDONED, State.REMAINS)
            return _Checked(path, "damaged" if damaged else "not a movie", state.value)
        return _Checked(path, "intact" if found.ok else "damaged", str(found), found)
    except StorageError as error:
        return _Checked(path, "unreachable", str(error))
    except (PhotonCodecError, ImportError) as error:
        return _Checked(path, "not a movie", str(error))


@command(
    "Compare a store with the rows that refer to it.",
    click.argument("schemas", nargs=-1, required=True),
    option("--store", "Store in DataJoint's configuration; the default store without.", metavar="NAME"),
    click.option("--verify", "thorough", is_flag=True, help="Read every chunk of every movie."),
    JOBS,
)
def audit(schemas: tuple[str, ...], store: str | None, thorough: bool, jobs: int, as_json: bool) -> int:
    """Compare a store with the rows of DataJoint SCHEMAS that refer to it; changes nothing.

    Database and stores come from DataJoint's configuration (datajoint.json, or variables such as DJ_HOST). Name every
    schema whose rows may refer to the same movies.

    Exit code 1 if something is orphaned, missing, damaged or unreadable; each is listed.

    \b
    dj-photon audit lab_imaging
    dj-photon audit lab_imaging lab_analysis --store archive --verify --json
    """
    import datajoint as dj

    from .. import audit_store

    try:
        connection = dj.conn()
    except Exception as error:  # of any database driver
        raise Failure(f"the database cannot be reached: {error}", UNREACHABLE) from error
    try:
        opened = [dj.Schema(name, connection=connection, create_schema=False, create_tables=False) for name in schemas]
        found = audit_store(opened, store, verify=thorough, jobs=jobs)
    except dj.DataJointError as error:
        raise Failure(str(error), USAGE) from error
    report(as_json, {"ok": bool(found), **asdict(found)}, str(found))
    return 0 if found else CHECK_FAILED
