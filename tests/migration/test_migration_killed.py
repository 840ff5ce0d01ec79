"""Workers of a migration are killed at any moment, twenty times: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

import migrating
from dj_photon_codecs import Migration, audit_store
from services import Pipeline
from tables import address, crosswise

if sys.platform == "win32":  # the type checker understands this too
    pytest.skip("a fork server and SIGKILL are POSIX", allow_module_level=True)

#: Kills on each of two databases; DJ_TEST_KILLS sets another number.
KILLS = 10
MOVIES = 6
#: Seconds after an event, at most, at which a worker is killed: as long as the steps of a copy take.
LONGEST_DELAY = 0.05


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> None:
    """One process that has imported everything, from which the children are forked."""
    from multiprocessing import forkserver

    with pytest.MonkeyPatch.context() as patch:
        # before Python 3.13 a fork server does not look where this process found its modules, and says nothing
        patch.setenv("PYTHONPATH", str(Path(migrating.__file__).parent), prepend=os.pathsep)
        forkserver.set_forkserver_preload(["migrating", "killed"])
        forkserver.ensure_running()


class Worker:
    """A process that migrates the movies of a table."""

    def __init__(self, pipeline: Pipeline, table: Any, event: str | None = None, delay: float = 0.0) -> None:
        context = multiprocessing.get_context("forkserver")
        self._told, tells = context.Pipe(duplex=False)
        stores = dict(pipeline.config.stores)
        task = (tells, address(pipeline), stores, table.full_table_name, event, delay)
        self._process = context.Process(target=migrating.migrate_and_die, args=task)
        self._process.start()
        tells.close()
        self._session = self._told.recv()
        self._pipeline = pipeline

    def ended(self) -> int | None:
        """Wait for its end, and until the database has noticed; gives its exit code."""
        self._process.join(120)
        code = self._process.exitcode
        sessions = {
            "postgres": "SELECT count(*) FROM pg_stat_activity WHERE pid = %s",
            "mysql": "SELECT count(*) FROM information_schema.processlist WHERE id = %s",
        }[self._pipeline.database]
        given_up = time.monotonic() + 60
        while self._pipeline.schema.connection.query(sessions, args=(self._session,)).fetchone()[0]:
            assert time.monotonic() < given_up, "the database has not noticed for a minute"
            time.sleep(0.002)
        self._told.close()
        self._process.close()
        return code


@crosswise
def test_killed_workers_lose_nothing_and_do_nothing_twice(pipeline: Pipeline) -> None:
    """Invariant 6, for a migration: a killed worker leaves orphans that audit and collector find, and nothing else."""

    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie = null : <npy@imaging>
        photons = null : <photon@imaging>
        """

    Recording.insert({"recording": index, "movie": migrating.counts(index)} for index in range(MOVIES))
    seed, kills = int(os.environ.get("DJ_TEST_SEED", "0")), int(os.environ.get("DJ_TEST_KILLS", KILLS))
    rng = random.Random(seed)
    print(f"seed {seed}, {kills} kills")
    work = Migration(Recording, "movie", "photons", lease=migrating.LEASE)
    done: dict[int, str] = {}
    for number in range(kills):
        event = migrating.EVENTS[number % len(migrating.EVENTS)]
        delay = rng.choice([0.0, rng.uniform(0, LONGEST_DELAY)])
        moment = f"kill {number} (seed {seed}), {1e3 * delay:.1f} ms after {event!r}"
        code = Worker(pipeline, Recording, event, delay).ended()
        paths = places(Recording)
        assert done.items() <= paths.items(), f"{moment}: a movie was replaced"
        assert done_in(work) == set(paths), f"{moment}: ledger and rows disagree"
        done = paths
        assert code == -signal.SIGKILL, moment
        if len(done) > 3:  # so that there is something to do for the next
            for index in rng.sample(sorted(done), 2):
                (work.ledger & {"recording": index}).delete_quick()
                Recording.update1({"recording": index, "photons": None})
                del done[index]
    workers = [Worker(pipeline, Recording) for _ in range(2)]
    assert [worker.ended() for worker in workers] == [0, 0]
    status = work.status()
    assert (status.total, status.done, status.failed, status.copying) == (MOVIES, MOVIES, 0, 0), status
    assert done.items() <= places(Recording).items()
    assert len(set(places(Recording).values())) == MOVIES
    for row in Recording.to_dicts():
        movie, original = row["photons"], migrating.counts(row["recording"])
        assert movie.verify(), row["recording"]
        assert np.array_equal(row["movie"].load(), original)
        sigma = np.sqrt(movie.calibration.storage_noise.variance(np.maximum(movie[:], original)))
        assert np.all(np.abs(movie[:].astype(float) - original) <= movie.step / 2 * sigma + 0.5)
    report = audit_store(pipeline.schema, pipeline.store)
    assert (report.missing, report.damaged, report.unreadable, report.unattributed) == ((), (), (), ()), report
    print(f"{len(report.orphaned)} orphans of {kills} kills")
    assert report.orphaned, "no kill came while a movie was being written"
    dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store).collect(dry_run=False)
    report = audit_store(pipeline.schema, pipeline.store, verify=True)
    assert report, report
    assert len(report.referenced) == 2 * MOVIES


def places(table: Any) -> dict[int, str]:
    """Where the movies are that rows refer to."""
    rows = (table & "photons IS NOT NULL").proj("photons").to_dicts()
    return {row["recording"]: str(row["photons"]._location.label) for row in rows}


def done_in(work: Migration) -> set[int]:
    if not work.ledger.is_declared:
        return set()
    return set((work.ledger & "state = 'done'").to_arrays("recording").tolist())
