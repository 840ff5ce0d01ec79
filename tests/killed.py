"""A process that inserts a movie and is killed on the way; tests/codec/test_kill.py starts it from a fork server.

The fork server imports this module once, so that a child costs a fork, a connection and the insert.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import datajoint as dj
import numpy as np
import s3fs  # noqa: F401  (imported here, once for all children)
from numcodecs import blosc
from tqdm import tqdm

import dj_photon_codecs.codec  # noqa: F401  (as above)
from dj_photon_codecs import PhotonMovie
from dj_photon_codecs.storage import layout, writer  # noqa: F401  (the writer: as above)
from dj_photon_codecs.storage.target import Target

#: What a child passes on its way, in this order, with three objects of counts: it is killed at or after one of them.
EVENTS = (
    "begin",
    *(f"{key} {state}" for key in ("c/0/0/0", "c/1/0/0", "c/2/0/0", "zarr.json") for state in ("begins", "done")),
    "row begins",
    "row done",
)

# Semaphores of the system, which a killed process would leave behind: made once, here.
tqdm.get_lock()
getattr(blosc, "get_mutex", lambda: None)()  # from numcodecs 0.17 on it is made when that is imported

COUNTS = np.random.default_rng(0).poisson(5, (96, 128, 128)).astype(np.uint16)


def movie() -> PhotonMovie:
    """A movie of three objects, with its noise model."""
    return PhotonMovie(COUNTS, conversion_gain=1.0)


def small_objects(set_value: Callable[[object, str, int], None] = setattr) -> None:
    """Cut movies so that a small one has several objects."""
    set_value(layout, "CHUNK_PIXELS", 1 << 18)
    set_value(layout, "SHARD_BYTES", 1 << 20)


def terminate(*_: object) -> None:
    """End with an exception, as a worker of populate does."""
    raise SystemExit("SIGTERM received")


def insert_and_die(
    told: Connection,
    address: dict[str, Any],
    stores: dict[str, Any],
    table: str,
    key: dict[str, Any],
    event: str,
    delay: float,
    number: int,
) -> None:
    """Insert the movie, and send oneself a signal `delay` seconds after `event`.

    Tells the id of its database session first. SIGTERM is handled as DataJoint's populate does.
    """
    small_objects()
    signal.signal(signal.SIGTERM, terminate)
    warnings.filterwarnings("ignore", "MariaDB is not officially supported", UserWarning)
    logging.getLogger("datajoint").setLevel(logging.WARNING)

    def reached(name: str) -> None:
        if name == event and delay == 0:
            os.kill(os.getpid(), number)
        elif name == event:
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()

    put = Target.put

    async def observed_put(self: Target, name: str, content: Any) -> None:
        reached(f"{name} begins")
        await put(self, name, content)
        reached(f"{name} done")

    Target.put = observed_put  # type: ignore[assignment,method-assign]
    instance = dj.Instance(**address)
    instance.config.stores = stores
    connection = instance.connection
    query = connection.query

    def observed_query(text: str, *args: Any, **options: Any) -> Any:
        is_row = text.lstrip().upper().startswith("INSERT")
        if is_row:
            reached("row begins")
        answer = query(text, *args, **options)
        if is_row:
            reached("row done")
        return answer

    connection.query = observed_query
    recording = dj.FreeTable(connection, table)
    told.send(connection.connection_id)
    reached("begin")
    recording.insert1({**key, "movie": movie()})
    time.sleep(60)  # the kill is on its way
