"""A process is killed while it inserts: it leaves a whole movie with its row, or orphans that are collected."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

import killed
from services import Pipeline
from tables import declare_movies

if sys.platform == "win32":  # the type checker understands this too
    pytest.skip("a fork server and SIGKILL are POSIX", allow_module_level=True)

#: Kills on the first of the pipelines, and on each other one. DJ_TEST_KILLS sets both.
KILLS = {("postgres", "file"): 50}
ELSEWHERE = 11

#: Seconds after an event, at most, at which the kill comes: what writing an object takes here, or a bit longer.
LONGEST_DELAY = 0.008


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> None:
    """One process that has imported everything, from which the children are forked."""
    from multiprocessing import forkserver

    with pytest.MonkeyPatch.context() as patch:
        # before Python 3.13 a fork server does not look where this process found its modules, and says nothing
        patch.setenv("PYTHONPATH", str(Path(killed.__file__).parent), prepend=os.pathsep)
        forkserver.set_forkserver_preload(["killed"])
        forkserver.ensure_running()


@pytest.fixture
def recording(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A table of movies with one in it that no kill may touch."""
    killed.small_objects(monkeypatch.setattr)

    recordings = declare_movies(pipeline)
    recordings.insert1({"recording": 0, "movie": killed.movie()})
    return recordings


def address(pipeline: Pipeline) -> dict[str, Any]:
    """What a process of its own takes to connect as this one does."""
    known = pipeline.schema.connection.conn_info
    return {
        **{name: known[name] for name in ("host", "port", "user")},
        "password": known["passwd"],
        "use_tls": known["ssl_input"],
        "backend": pipeline.config.database.backend,
    }


def kill_an_insert(
    pipeline: Pipeline,
    table: Any,
    key: dict[str, Any],
    event: str,
    delay: float = 0.0,
    number: signal.Signals = signal.SIGKILL,
) -> int | None:
    """Have a child insert and die, and wait until the database has noticed; gives the child's exit code."""
    context = multiprocessing.get_context("forkserver")
    told, tells = context.Pipe(duplex=False)
    stores = dict(pipeline.config.stores)
    task = (tells, address(pipeline), stores, table.full_table_name, key, event, delay, number)
    child = context.Process(target=killed.insert_and_die, args=task)
    child.start()
    tells.close()
    session = told.recv()
    child.join()
    code = child.exitcode
    child.close()
    told.close()
    # A statement that was sent before the kill may still be committed: until its session has ended, nobody knows.
    sessions = {
        "postgres": "SELECT count(*) FROM pg_stat_activity WHERE pid = %s",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE id = %s",
    }[pipeline.database]
    given_up = time.monotonic() + 60
    while pipeline.schema.connection.query(sessions, args=(session,)).fetchone()[0]:
        assert time.monotonic() < given_up, "the database has not noticed for a minute"
        time.sleep(0.002)
    return code


def stored_path(table: Any, key: dict[str, Any]) -> str:
    """Where a row's movie lies in the store."""
    return str((table & key).fetch1("movie")._location.label).partition("/_schema/")[2]


def is_whole(movie: Any) -> bool:
    return bool(movie.verify()) and movie.shape == killed.COUNTS.shape


def objects_of(pipeline: Pipeline, paths: list[str]) -> set[str]:
    return {name for name in pipeline.objects() if any(f"{path}/" in name for path in paths)}


def test_a_killed_insert_leaves_a_whole_movie_or_orphans_for_the_collector(pipeline: Pipeline, recording: Any) -> None:
    """Invariant 6, for a process killed at any moment."""
    seed = int(os.environ.get("DJ_TEST_SEED", "0"))
    kills = int(os.environ.get("DJ_TEST_KILLS", KILLS.get((pipeline.database, pipeline.protocol), ELSEWHERE)))
    rng = random.Random(seed)
    print(f"seed {seed}, {kills} kills")
    bystander, key = {"recording": 0}, {"recording": 1}
    collector = dj.gc.GarbageCollector(pipeline.schema, store=pipeline.store)
    seen: Counter[str] = Counter()
    for number in range(kills):
        event = killed.EVENTS[number % len(killed.EVENTS)]
        delay = rng.choice([0.0, rng.uniform(0, LONGEST_DELAY)])
        moment = f"kill {number} (seed {seed}), {1e3 * delay:.2f} ms after {event!r}"
        assert kill_an_insert(pipeline, recording, key, event, delay) == -signal.SIGKILL, moment

        rows = len(recording & key)
        if rows:
            assert is_whole((recording & key).fetch1("movie")), moment
        alive = [stored_path(recording, row) for row in ([bystander, key] if rows else [bystander])]
        stored = set(pipeline.objects())
        orphans = stored - objects_of(pipeline, alive)
        seen["row" if rows else "orphans" if orphans else "nothing"] += 1

        found = collector.collect(dry_run=False)
        assert set(found["orphaned_schema_paths"]) == orphans, moment
        assert found["schema_paths_deleted"] == len(orphans), moment
        assert set(pipeline.objects()) == stored - orphans, moment

        if not rows:
            recording.insert1({**key, "movie": killed.movie()})
            assert is_whole((recording & key).fetch1("movie")), moment
        (recording & key).delete_quick()
        collector.collect(dry_run=False)
    assert is_whole((recording & bystander).fetch1("movie"))
    assert np.abs((recording & bystander).fetch1("movie")[:].astype(int) - killed.COUNTS).max() < 5
    print(dict(seen))
    assert min(seen[outcome] for outcome in ("row", "orphans", "nothing")) > 0, "the moments do not cover an outcome"


def test_the_same_insert_takes_another_path_beside_the_orphan(pipeline: Pipeline, recording: Any) -> None:
    """A movie is never written over another: what a killed process left is in nobody's way before it is collected."""
    key = {"recording": 1}
    kill_an_insert(pipeline, recording, key, "zarr.json done")
    orphans = set(pipeline.objects()) - objects_of(pipeline, [stored_path(recording, {"recording": 0})])
    assert len(orphans) == 4
    recording.insert1({**key, "movie": killed.movie()})
    assert is_whole((recording & key).fetch1("movie"))
    assert not orphans & objects_of(pipeline, [stored_path(recording, key)])
    assert set(dj.gc.GarbageCollector(pipeline.schema).collect()["orphaned_schema_paths"]) == orphans


def test_a_worker_that_is_asked_to_end_removes_what_it_wrote(pipeline: Pipeline, recording: Any) -> None:
    """Invariant 6, for SIGTERM as DataJoint's populate handles it."""
    stored = pipeline.objects()
    code = kill_an_insert(pipeline, recording, {"recording": 1}, "c/1/0/0 done", number=signal.SIGTERM)
    assert code == 1
    assert len(recording()) == 1
    assert pipeline.objects() == stored
