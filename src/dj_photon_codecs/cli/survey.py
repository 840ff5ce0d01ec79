"""The command survey: which movies a folder holds, and what storing them would save."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from ..options import ESTIMATED
from .options import JOBS, argument, command, opened
from .output import CHECK_FAILED, USAGE, Failure, report

#: Folders without recordings.
_SKIPPED = {"__pycache__", "node_modules", "lost+found"}
#: Bytes a second of the network whose copying time is shown: 1 Gbit/s.
_NETWORK = 125e6


@dataclass
class Finding:
    """A movie, by path and options of :func:`~dj_photon_codecs.open_source`, or why it cannot be read as one."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    format: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    bytes: int = 0
    verdict: str = ""  # of the noise measurement, or "stored" for a movie that is stored already
    reason: str = ""  # why the noise is not known
    expected: dict[str, int] = field(default_factory=dict)  # bytes in each profile
    doubts: list[str] = field(default_factory=list)  # warnings
    error: str = ""

    def named(self, folder: str) -> str:
        """The path within the folder, and the options that choose the movie there."""
        inside = self.path
        if "://" not in folder and os.path.isabs(inside) == os.path.isabs(folder):
            inside = os.path.relpath(inside, folder)
        return " ".join([inside, *(f"{name}={value}" for name, value in self.options.items())])


@command(
    "List the movies in a folder, and what storing them would save.",
    argument("folder"),
    click.option("--csv", "csv_file", type=click.Path(dir_okay=False), help="Write the list to FILE.csv."),
    JOBS,
)
def survey(folder: str, csv_file: str | None, jobs: int, as_json: bool) -> int:
    """List the movies under FOLDER, a path or a URL, with what storing them would give.

    Files are grouped as `dj-photon write` takes them: a movie is a file, a folder, or the files of one recording. A
    sample of each movie is read: its noise is measured, and a few frames are compressed in each profile. Nothing is
    written to FOLDER. In a bucket, only Zarr is found.

    Files that cannot be read are listed at the end, with exit code 1.

    \b
    dj-photon survey /data/2023 --jobs 4
    dj-photon survey s3://bucket/lab --csv survey.csv
    """
    from tqdm import tqdm

    if csv_file is not None and Path(csv_file).resolve().is_relative_to(Path(folder).resolve()):
        raise click.BadParameter(f"{csv_file} lies in {folder}, which is not written to", param_hint="--csv")
    places = list(_places(folder))
    if not places:
        raise Failure(f"{folder} holds no file of a supported format", USAGE)
    found: list[Finding] = []
    with tqdm(desc="survey", total=len(places), unit="place", disable=None, leave=False) as bar:
        for findings in _examined(places, jobs):
            found += findings
            bar.update()
    inside = os.path.join(os.path.abspath(folder), "")
    for one in found:
        one.doubts, one.error = [text.replace(inside, "") for text in one.doubts], one.error.replace(inside, "")
    found.sort(key=lambda one: (one.path, sorted(one.options.items())))
    if csv_file is not None:
        _write_csv(found, folder, csv_file)
    movies, failures = [one for one in found if not one.error], [one for one in found if one.error]
    total = _total(movies, len(failures))
    document = {
        "movies": [asdict(one) for one in movies],
        "failures": [{"path": one.path, "error": one.error} for one in failures],
        "total": total,
    }
    text = _table(movies, folder, total)
    if failures:
        text += f"\n\n{len(failures)} could not be read:"
        text += "".join(f"\n{one.named(folder)}: {one.error}" for one in failures)
    report(as_json, document, text)
    return CHECK_FAILED if failures else 0


def _places(folder: str) -> Iterator[str]:
    """Folders and files that may be movies, each once."""
    from ..sources.formats import format_of_folder

    if "://" in folder:
        yield from _zarr_in(folder)
        return
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "there is no folder", folder)
    for here, folders, files in os.walk(folder):
        whole = format_of_folder(Path(here))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        if whole is not None and whole.name != "Suite2p":
            folders.clear()
            yield here
        elif any(_known(os.path.join(here, name)) for name in files if not name.startswith(".")):
            yield here


def _known(name: str) -> bool:
    """Whether a file has a supported format."""
    from ..sources.formats import format_of

    try:
        return os.path.isfile(name) and format_of(name) is not None
    except OSError:
        return True  # opening it reports the error


def _zarr_in(url: str) -> Iterator[str]:
    """The outermost Zarr arrays and groups in a bucket."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    inside: str | None = None
    for name in sorted(files.find(root)):
        parent, _, base = name.rpartition("/")
        if base in {"zarr.json", ".zarray", ".zgroup"} and not (inside and f"{parent}/".startswith(inside)):
            inside = f"{parent}/"
            yield str(files.unstrip_protocol(parent))


def _examined(places: Sequence[str], jobs: int) -> Iterator[list[Finding]]:
    """The findings at each place, as they come."""
    if jobs == 1:
        yield from map(examine, places)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(examine, place): place for place in places}
        for future in as_completed(running):
            error = future.exception()
            yield [Finding(running[future], error=f"{type(error).__name__}: {error}")] if error else future.result()


def examine(place: str, options: dict[str, Any] | None = None) -> list[Finding]:
    """The movie at one place, or each of them if there are several."""
    from ..sources.stack import ChoiceNeeded

    options = options or {}
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            return [_finding(place, options, told)]
    except ChoiceNeeded as choice:
        if choice.option in options or not choice.choices:
            return [Finding(place, options, error=str(choice))]
        if choice.option == "path":
            return [one for path in choice.choices for one in examine(str(path), options)]
        return [one for value in choice.choices for one in examine(place, {**options, choice.option: value})]
    except Exception as error:  # one bad file must not stop the survey
        return [Finding(place, options, error=" ".join(f"{error}".split()) or type(error).__name__)]


def _finding(place: str, options: dict[str, Any], told: list[warnings.WarningMessage]) -> Finding:
    """Open a movie and estimate its sizes."""
    from .. import PhotonArray, SourceWarning, estimate, open_source

    with ExitStack() as files:
        movie = files.enter_context(opened(place, **options))
        shape, dtype, size = movie.shape, str(movie.dtype), math.prod(movie.shape) * movie.dtype.itemsize
        if isinstance(movie, PhotonArray) and movie.record is None:  # an array of other software
            movie = files.enter_context(open_source(place, **options))
        if isinstance(movie, PhotonArray):
            return Finding(place, options, f"stored ({movie.profile})", shape, dtype, size, "stored")
        doubts = [" ".join(str(one.message).split()) for one in told if issubclass(one.category, SourceWarning)]
        found = estimate(movie)
        sizes = {name: round(size / ratio) for name, ratio in found.ratios.items()}
        verdict = found.calibration.verdict
        return Finding(place, options, movie.format, shape, dtype, size, verdict, found.reason, sizes, doubts)


def _total(movies: Sequence[Finding], failures: int) -> dict[str, Any]:
    """Sums over the movies that are not stored yet."""
    new = [one for one in movies if one.expected]
    size = sum(one.bytes for one in new)
    expected = {name: sum(one.expected.get(name, one.bytes) for one in new) for name in ESTIMATED} if new else {}
    saved = {name: size - least for name, least in expected.items()}
    return {"movies": len(movies), "failures": failures, "bytes": size, "expected": expected, "saved": saved}


def _table(movies: Sequence[Finding], folder: str, total: dict[str, Any]) -> str:
    """A line for each movie, and for each profile what it saves."""
    from ..handle.facts import size_text

    rows: list[tuple[str, ...]] = [("movie", "format", "shape", "dtype", "size", "noise", *ESTIMATED, "doubts")]
    for one in movies:
        sizes = [size_text(one.expected[name]) if name in one.expected else "-" for name in ESTIMATED]
        shape, size, doubts = " x ".join(map(str, one.shape)), size_text(one.bytes), "; ".join(one.doubts) or "-"
        rows.append((one.named(folder), one.format, shape, one.dtype, size, one.verdict, *sizes, doubts))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    lines.append(f"\n{total['movies']} movies, {size_text(total['bytes'])} that are not stored yet")
    for name, saved in total["saved"].items():
        lines.append(
            f"{name:<8}  saves {size_text(saved)} ({100 * saved / total['bytes']:.0f} %): {saved / 1e12:.3g} TB, and "
            f"{saved / _NETWORK / 86400:.3g} days of copying at 1 Gbit/s"
        )
    return "\n".join(lines)


def _write_csv(found: Sequence[Finding], folder: str, path: str) -> None:
    """A row for each movie and failure."""
    columns = ("movie", "format", "shape", "dtype", "bytes", "verdict", "reason", *ESTIMATED, "doubts", "error")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for one in found:
            row = [one.named(folder), one.format, "x".join(map(str, one.shape)), one.dtype, one.bytes, one.verdict]
            sizes = [one.expected.get(name, "") for name in ESTIMATED]
            writer.writerow([*row, one.reason, *sizes, "; ".join(one.doubts), one.error])
