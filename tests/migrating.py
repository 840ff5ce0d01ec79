"""A process that migrates movies, and may be killed on the way; tests/migration starts it from a fork server."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from multiprocessing.connection import Connection
from typing import Any

import datajoint as dj
import numpy as np

import dj_photon_codecs.codec  # noqa: F401  (imported here, once for all children)
from dj_photon_codecs import Migration
from dj_photon_codecs.migration import copying, migrate
from killed import small_objects

#: Seconds after which another worker takes a movie over.
LEASE = 0.6


def counts(index: int) -> Any:
    """A movie of three objects."""
    light = np.linspace(1, 9, 128) * np.ones((128, 1))
    return (50 + 10 * np.random.default_rng(index).poisson(light, size=(96, 128, 128))).astype(np.uint16)


def migrate_and_die(
    told: Connection, address: dict[str, Any], stores: dict[str, Any], table: str, delay: float | None
) -> None:
    """Migrate all movies; kill oneself ``delay`` seconds after the first claim, unless that is None."""
    small_objects()
    warnings.filterwarnings("ignore", "MariaDB is not officially supported", UserWarning)
    logging.getLogger("datajoint").setLevel(logging.WARNING)
    instance = dj.Instance(**address)
    instance.config.stores = stores
    migration = Migration(dj.FreeTable(instance.connection, table), "movie", "photons", lease=LEASE)
    copy_movie = copying.copy_movie
    armed = threading.Event()

    def copies(*arguments: Any) -> None:
        if delay is not None and not armed.is_set():
            armed.set()
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        copy_movie(*arguments)

    vars(migrate)["copy_movie"] = copies
    told.send(instance.connection.connection_id)
    migration.run()
    told.send("ended")
