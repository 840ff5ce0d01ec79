"""What a migration would take, from a few of its movies."""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from .._arguments import brief_repr
from .._typing import Json
from .._warn import collected_warnings
from ..errors import MigrationError
from ..expected import estimate
from ..handle.facts import size_text
from ..movies import PhotonMovie, write_movie
from ..options import LOSSLESS
from ..sources import as_source
from ..storage.progress import progress_bar
from .columns import Column
from .copying import check_copy
from .ledger import Ledger, Status
from .originals import Originals

#: Size of the beginning of a movie that is copied to measure the time [bytes].
_TIMED = 1 << 25


@dataclass(frozen=True)
class Plan:
    """What a migration would take.

    Attributes
    ----------
    status
        State of the migration so far.
    empty
        Number of rows whose old column is NULL.
    examined
        Number of movies that were examined; the following are expected from them.
    original_bytes
        Size of the counts of all movies that are to be copied [bytes].
    stored_bytes
        Their size in the store [bytes].
    seconds
        Time for one worker, without the network and the disk of the store [seconds].
    verdicts
        Number of examined movies by the verdict on their noise; those with "unknown" are stored without loss.
    problems
        Primary key and reason of the movies that cannot be migrated, of those examined and of the missing files.
    """

    status: Status
    empty: int
    examined: int
    original_bytes: int
    stored_bytes: int
    seconds: float
    verdicts: dict[str, int]
    problems: tuple[tuple[Json, str], ...]

    __repr__ = brief_repr

    @property
    def ratio(self) -> float:
        """Expected compression ratio; NaN if nothing could be examined."""
        return self.original_bytes / self.stored_bytes if self.stored_bytes else math.nan

    def __str__(self) -> str:
        state = self.status
        lines = [
            f"rows   {state.total + self.empty}: {state.remaining} to copy, {state.done} done, {state.failed} failed, "
            f"{state.copying} being copied, {self.empty} without a movie"
        ]
        if self.stored_bytes:
            lines += [
                f"size   {size_text(self.original_bytes)} of counts, in {size_text(self.stored_bytes)}: "
                f"{self.ratio:.2f} times smaller",
                f"time   {_duration(self.seconds)} for one worker, and what the store needs to take the bytes",
                "noise  " + ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items()),
                f"expected from {self.examined} movies",
            ]
        lines += [f"cannot be migrated: {key}: {reason}" for key, reason in (*self.problems, *state.failures)]
        return "\n".join(lines)


def plan(originals: Originals, target: Column, ledger: Ledger, sample: int | None, progress: bool | None) -> Plan:
    """Do the work of :meth:`Migration.plan`."""
    pending = ledger.pending
    count = len(pending)
    problems = _missing_files(originals, pending)
    found: list[_Finding] = []
    number = count if sample is None else min(sample, count)
    with progress_bar("examining", number, "movie", progress) as advance:
        for index in range(number):
            [key] = pending.keys(order_by="KEY", limit=1, offset=(2 * index + 1) * count // (2 * number))
            if not any(key == missing for missing, _ in problems):
                try:
                    found.append(_examined(originals, target, key))
                except Exception as error:  # of any reader: one movie must not stop the plan
                    problems.append((key, f"{type(error).__name__}: {error}"))
            advance(1)
    share = max(count - len(problems), 0) / len(found) if found else 0.0
    return Plan(
        status=ledger.status(),
        empty=len(originals.column.table) - len(originals.column.filled),
        examined=len(found),
        original_bytes=round(share * sum(one.original_bytes for one in found)),
        stored_bytes=round(share * sum(one.stored_bytes for one in found)),
        seconds=share * sum(one.seconds for one in found),
        verdicts=dict(Counter(one.verdict for one in found)),
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Finding:
    """Expected sizes [bytes] and time [seconds] of one movie."""

    original_bytes: int
    stored_bytes: float
    seconds: float
    verdict: str


def _examined(originals: Originals, target: Column, key: Json) -> _Finding:
    """Open a movie, estimate its size, and copy and compare its beginning to measure the time."""
    options = target.attribute.codec._options()
    started = perf_counter()
    cell = originals.column.cell(key)
    if cell is None:
        raise MigrationError("the row was changed meanwhile")
    told: deque[tuple[str, type[Warning]]] = deque()  # not shown: the verdict says it
    with collected_warnings(told), originals.opened(cell) as movie:
        source = as_source(movie)
        size = math.prod(source.shape) * source.dtype.itemsize
        frames = source.read(0, max(1, min(source.shape[0], _TIMED // max(1, size // source.shape[0]))))
        opening = perf_counter() - started
        found = estimate(movie, step=options.step)
        ratio = found.ratios.get(options.profile, found.ratios.get(LOSSLESS.name, 1.0))
        started = perf_counter()
        with TemporaryDirectory(prefix="dj-photon-") as folder:
            given = PhotonMovie(frames, found.calibration, step=options.step, profile=options.profile)
            check_copy(frames, write_movie(folder, given, zarr_format=options.zarr_format, progress=False))
        seconds = (perf_counter() - started) * size / frames.nbytes
    return _Finding(size, size / ratio, opening + seconds, found.calibration.verdict)


def _missing_files(originals: Originals, pending: Any) -> list[tuple[Json, str]]:
    """Rows of a column of paths whose file is not there; URLs and globs are not looked for."""
    column = originals.column
    if column.attribute.codec is not None or column.attribute.is_blob:
        return []
    missing = []
    for row in pending.proj(column.name).cursor(as_dict=True):
        value = row.pop(column.name)
        path = originals.path(value) if isinstance(value, str) else ""
        plain = path and "://" not in path and not any(sign in path for sign in '*?[{"')
        if plain and not os.path.exists(path):
            missing.append((dict(row), f"{path} is not there"))
    return missing


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} seconds"
