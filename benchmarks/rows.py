"""Time and memory to fetch many rows in one call. Prints one table.

    python benchmarks/rows.py

A table of one movie, its row copied ten thousand times, on the PostgreSQL that pip installed and, if root can connect
at 127.0.0.1:3306, on MySQL or MariaDB. "JSON alone" reads the same column without creating handles. Processor time is
that of this process, and less sensitive to other work on the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import REGIMES, machine, seconds, simulate, table

BATCH = 500


def fill(recording: Any, rows: int) -> int:
    """Store one movie and copy its row; return the size of a row's JSON [bytes]."""
    movie, _ = simulate(REGIMES[3], 64, 128, np.random.default_rng(0))
    recording.insert1({"recording": 0, "movie": movie})
    [stored] = recording.proj("movie").cursor(as_dict=True)
    value = stored["movie"] if isinstance(stored["movie"], str) else json.dumps(stored["movie"])
    for start in range(1, rows, BATCH):
        indices = range(start, min(start + BATCH, rows))
        recording.connection.query(
            f"INSERT INTO {recording.full_table_name} VALUES " + ",".join(["(%s, %s)"] * len(indices)),
            args=[argument for index in indices for argument in (index, value)],
        )
    return len(value)


@contextmanager
def filled_table(address: dict[str, Any], folder: Path, rows: int) -> Iterator[tuple[Any, int]]:
    """Create a table with this many rows in its own schema; return it and the size of a row."""
    import datajoint as dj

    instance = dj.Instance(**address)
    instance.config.safemode = False
    instance.config.stores = {"default": "local", "local": {"protocol": "file", "location": str(folder)}}
    schema = dj.Schema(f"benchmark_{uuid.uuid4().hex[:8]}", connection=instance.connection)

    @schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = """
        recording : int32
        ---
        movie : <photon@local>
        """

    try:
        yield Recording(), fill(Recording(), rows)
    finally:
        schema.drop(prompt=False)
        instance.connection.close()


def addresses(stack: ExitStack, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the available databases by name."""
    import pymysql

    from dj_photon_codecs.embedded import embedded_server

    yield "PostgreSQL", stack.enter_context(embedded_server(folder / "postgres"))
    mysql = {"host": "127.0.0.1", "port": 3306, "user": "root", "password": ""}
    try:
        pymysql.connect(**mysql, connect_timeout=5).close()
    except pymysql.err.OperationalError as error:
        print(f"no MySQL or MariaDB: {error}", file=sys.stderr)
        return
    yield "MySQL or MariaDB", mysql | {"backend": "mysql", "use_tls": False}


def without_collector(recording: Any) -> Any:
    """Fetch all rows without garbage collection, which would scan millions of objects."""
    gc.disable()
    try:
        return recording.to_dicts()
    finally:
        gc.enable()


FETCHES: dict[str, Callable[[Any], Any]] = {
    "to_dicts()": lambda recording: recording.to_dicts(),
    "to_dicts(), garbage collection off": without_collector,
    "JSON alone": lambda recording: recording.proj("movie").cursor(as_dict=True).fetchall(),
}


def best(function: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """Return the shortest wall time and processor time of several runs."""
    wall, processor = [], []
    for _ in range(repeat):
        before = time.process_time()
        wall.append(seconds(function))
        processor.append(time.process_time() - before)
    return min(wall), min(processor)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5, help="repetitions; the best counts")
    options = parser.parse_args()
    os.environ["DJ_IGNORE_CONFIG_FILE"] = "true"
    lines = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "store").mkdir()
        for database, address in addresses(stack, folder):
            with filled_table(address, folder / "store", options.rows) as (recording, size):
                for what, fetch in FETCHES.items():
                    count = len(fetch(recording))
                    assert count == options.rows, (count, options.rows)
                    wall, processor = best(partial(fetch, recording), options.repeat)
                    lines.append([database, what, f"{wall:.2f}", f"{processor:.2f}"])
    print(f"{machine()}\n\n{options.rows} rows of {size} bytes of JSON\n")
    print(table(("database", "fetched with", "best [s]", "processor time [s]"), lines))


if __name__ == "__main__":
    main()
