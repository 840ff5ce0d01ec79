"""Eight processes and eight threads that insert, fetch, iterate, delete, audit and collect garbage on one table.

Takes seconds; ``DJ_TEST_MANY_SECONDS=120`` makes it two minutes for each database.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

from dj_photon_codecs import MissingChunkError, PhotonArray, audit_store
from dj_photon_codecs.handle import array as handle_array
from dj_photon_codecs.storage.location import Location
from services import Pipeline
from tables import address, declare_recording, folders, photon, row

if sys.platform != "linux":  # the type checker understands this too
    pytest.skip("processes are forked, and locked with flock", allow_module_level=True)

#: How long each run takes, by database.
SECONDS = {"postgres": 12.0, "mysql": 4.0}
if "DJ_TEST_MANY_SECONDS" in os.environ:
    SECONDS = dict.fromkeys(SECONDS, float(os.environ["DJ_TEST_MANY_SECONDS"]))

#: What passes at most between the last object of a movie and its row, here, with an ample margin.
GRACE = timedelta(seconds=30)

WORKERS = 8


@dataclass(frozen=True)
class Room:
    """Where the workers meet: inserts go on side by side, and DataJoint's collector has the store to itself."""

    folder: Path

    @contextmanager
    def inserting(self) -> Iterator[None]:
        import fcntl

        with self._locked("gate", fcntl.LOCK_EX):
            room = self._locked("room", fcntl.LOCK_SH)
            room.__enter__()
        try:
            yield
        finally:
            room.__exit__(None, None, None)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        import fcntl

        with self._locked("gate", fcntl.LOCK_EX), self._locked("room", fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        import fcntl

        with (self.folder / name).open("w") as file:  # opened anew: threads exclude each other too
            fcntl.flock(file, kind)
            try:
                yield
            finally:  # a child that was forked meanwhile has the file open too: closing it here would not let go
                fcntl.flock(file, fcntl.LOCK_UN)


@dataclass
class Worker:
    """One of many, with a connection of its own."""

    number: int
    address: dict[str, Any]
    stores: dict[str, Any]
    database: str
    room: Room
    seconds: float
    inserted: list[int] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        """Do one thing after the other, in an order that its number decides, until the time is up."""
        instance = dj.Instance(**self.address)
        instance.config.stores = self.stores
        instance.config.safemode = False
        self.schema = dj.Schema(self.database, connection=instance.connection)
        self.table = self.schema.get_table("recording")
        self.rng = random.Random(self.number)
        actions = [self.insert, self.insert, self.insert, self.fetch, self.fetch, self.iterate, self.delete]
        first = [self.insert, self.audit if self.number % 2 else self.collect]
        actions.append(first[1])
        until = time.monotonic() + self.seconds
        while first or time.monotonic() < until:
            action = first.pop(0) if first else self.rng.choice(actions)
            action()
            self.done[action.__name__] += 1
        instance.connection.close()

    def insert(self) -> None:
        index = self.number * 1_000_000 + len(self.inserted)
        with self.room.inserting():
            self.table.insert1(row(index, photon(index)))
        self.inserted.append(index)

    def some_row(self) -> tuple[int, PhotonArray] | None:
        """A row of anybody's, fetched whole."""
        keys = self.table.keys()
        rows = (self.table & self.rng.choice(keys)).to_dicts() if keys else []
        return (rows[0]["recording"], rows[0]["movie"]) if rows else None

    def unless_deleted(self, read: Any) -> None:
        """Read a movie; it may go away meanwhile, when its row has."""
        found = self.some_row()
        if found is None:
            return
        index, movie = found
        try:
            assert_movie(read(movie), index)
        except MissingChunkError:
            if self.table & {"recording": index}:
                raise

    def fetch(self) -> None:
        self.unless_deleted(lambda movie: movie[...])

    def iterate(self) -> None:
        self.unless_deleted(lambda movie: np.stack(list(movie)))

    def delete(self) -> None:
        left = sorted(set(self.inserted) - set(self.deleted))
        if len(left) > 2:
            index = self.rng.choice(left)
            (self.table & {"recording": index}).delete()
            self.deleted.append(index)

    def collect(self) -> None:
        """DataJoint's collector, while nobody inserts."""
        with self.room.collecting():
            found = dj.gc.GarbageCollector(self.schema, store="imaging").collect(dry_run=False)
        assert (found["errors"], found["scan_errors"]) == (0, [])

    def audit(self) -> None:
        """The audit, at any time; what is old enough goes."""
        report = audit_store(self.schema, "imaging", verify=self.rng.random() < 0.1, progress=False)
        assert (report.missing, report.damaged, report.unreadable) == ((), (), ()), str(report)
        for orphan in report.orphaned_for(GRACE):
            with_nobody_else(self.schema.connection._config, orphan.path)


def with_nobody_else(config: Any, path: str) -> None:
    """Remove a folder that another may be removing."""
    try:
        dj.storage.StorageBackend(config.get_store_spec("imaging")).remove_folder(path)
    except FileNotFoundError:
        return


def assert_movie(counts: Any, index: int) -> None:
    """Invariant 1, for the movie of this number and no other."""
    original = photon(index).movie
    top = np.maximum(counts, original).astype(float)
    assert (np.abs(counts.astype(float) - original) <= 0.25 * np.sqrt(top + 0.375) + 0.5 + 1e-6).all(), index


def in_child(worker: Worker, before: list[PhotonArray], report: Path) -> None:
    """The work of a forked child: first with the handles of its parent, then on its own."""
    # not dump_traceback_later: pytest has set that in the parent, and it would wait for a thread that no child has
    told = threading.Timer(worker.seconds + 60, faulthandler.dump_traceback, [report.with_suffix(".stuck").open("w")])
    told.daemon = True
    told.start()
    # A thread of the parent may have held the lock of a stream's buffer at the fork, in the middle of a line of
    # DataJoint's log; a child that writes to that stream would wait for ever (CPython renews locks of logging only).
    logging.disable()
    sys.stdout = sys.stderr = report.with_suffix(".log").open("w")
    try:
        for index, movie in enumerate(before):
            assert_movie(movie[...], index)
            assert_movie(np.stack(list(movie)), index)
        worker.work()
        outcome = {"inserted": worker.inserted, "deleted": worker.deleted, "done": worker.done}
    except BaseException:
        outcome = {"error": traceback.format_exc()}
    report.write_text(json.dumps(outcome))


@pytest.mark.parametrize(
    "pipeline", [("postgres", "file"), ("mysql", "s3")], ids=["postgres-file", "mysql-s3"], indirect=True
)
def test_eight_processes_and_eight_threads_lose_nothing_and_leave_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    """Invariants 1, 5 and 6; the children are forked while the parent's threads and event loop are at work."""
    recording = declare_recording(pipeline.schema)
    recording.insert(row(i, photon(i)) for i in range(3))
    before = [(recording & {"recording": i}).fetch1("movie") for i in range(3)]
    before[0][...]  # the event loop runs, and the cache and a connection to the store are in use
    seconds = SECONDS[pipeline.database]
    room = Room(tmp_path)
    made = [
        Worker(n, address(pipeline), dict(pipeline.config.stores), pipeline.schema.database, room, seconds)
        for n in range(1, 2 * WORKERS + 1)
    ]
    errors: list[str] = []

    def in_thread(worker: Worker) -> None:
        try:
            for index, movie in enumerate(before):  # the same handles in all threads
                assert_movie(movie[...], index)
            worker.work()
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=in_thread, args=(worker,), daemon=True) for worker in made[:WORKERS]]
    for thread in threads:
        thread.start()
    fork = multiprocessing.get_context("fork")
    reports = [tmp_path / f"{worker.number}.json" for worker in made[WORKERS:]]
    children = [
        fork.Process(target=in_child, args=(worker, before, report), daemon=True)
        for worker, report in zip(made[WORKERS:], reports, strict=True)
    ]
    for child in children:
        child.start()
    deadline = time.monotonic() + seconds + 90
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
    stuck = [child for child in children if child.is_alive()]
    for child in stuck:
        child.kill()
    assert not stuck, "\n".join(path.read_text() for path in tmp_path.glob("*.stuck"))
    assert not any(thread.is_alive() for thread in threads)
    outcomes = [json.loads(report.read_text()) for report in reports]
    errors += [outcome["error"] for outcome in outcomes if "error" in outcome]
    assert not errors, errors[0]

    inserted = {index for worker in made[:WORKERS] for index in worker.inserted} | set(range(3))
    deleted = {index for worker in made[:WORKERS] for index in worker.deleted}
    done = sum((worker.done for worker in made[:WORKERS]), Counter())
    for outcome in outcomes:
        inserted |= set(outcome["inserted"])
        deleted |= set(outcome["deleted"])
        done += Counter(outcome["done"])
    print(f"{pipeline.database}-{pipeline.protocol}, {seconds:g} s: {dict(done)}; {len(inserted)} movies")
    left = {fetched["recording"]: fetched["movie"] for fetched in recording.to_dicts()}
    assert set(left) == inserted - deleted
    assert min(done["insert"], done["collect"], done["audit"]) >= WORKERS
    dj.gc.GarbageCollector(pipeline.schema, store="imaging").collect(dry_run=False)
    report = audit_store(pipeline.schema, "imaging", verify=True, progress=False)
    assert report, str(report)
    assert folders(pipeline.objects()) == set(report.referenced)
    assert len(report.referenced) == len(left)
    for index, movie in left.items():
        assert_movie(movie[...], index)


@pytest.mark.parametrize(("owner", "name"), [(handle_array, "parse_metadata"), (Location, "open")])
def test_a_child_forked_while_a_thread_opens_a_handle_is_not_stuck(
    local_pipeline: Pipeline, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock held in the parent at that moment is held in the child for ever."""
    recording = declare_recording(local_pipeline.schema)
    recording.insert1(row(0, photon(0)))
    held, other = recording.fetch1("movie"), recording.fetch1("movie")
    parent, inside, leave = os.getpid(), threading.Event(), threading.Event()
    original = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        if os.getpid() == parent:
            inside.set()
            leave.wait()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)
    thread = threading.Thread(target=lambda: held[0])
    thread.start()
    inside.wait()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: assert_movie(np.maximum(held[...], other[...]), 0), daemon=True
    )
    child.start()
    child.join(30)
    leave.set()
    thread.join()
    child.kill()
    assert child.exitcode == 0
