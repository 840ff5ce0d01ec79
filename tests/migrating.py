"""A process that migrates movies, and may be killed on the way; tests/migration starts it from a fork server."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from multiprocessing.connection import Connection
from typing import Any

import datajoint as dj
import numpy as np

import dj_photon_codecs.codec  # noqa: F401  (imported here, once for all children)
from dj_photon_codecs import Migration
from dj_photon_codecs.migration import copying, migrate
from dj_photon_codecs.storage.target import Target
from killed import small_objects

#: Seconds after which another worker takes a movie over.
LEASE = 0.6


def counts(index: int) -> Any:
    """A movie of three objects."""
    light = np.linspace(1, 9, 128) * np.ones((128, 1))
    return (50 + 10 * np.random.default_rng(index).poisson(light, size=(96, 128, 128))).astype(np.uint16)


#: What a worker passes with each movie, in this order; the movie is in the store from the third on.
EVENTS = ("claimed", "object stored", "written", "compared", "committed")


#: By number, because the type checker knows no SIGKILL on Windows.
SIGKILL = 9


def migrate_and_die(
    told: Connection, address: dict[str, Any], stores: dict[str, Any], table: str, event: str | None, delay: float
) -> None:
    """Migrate all movies; kill oneself ``delay`` seconds after the first ``event``, unless that is None."""
    small_objects()
    warnings.filterwarnings("ignore", "MariaDB is not officially supported", UserWarning)
    logging.getLogger("datajoint").setLevel(logging.WARNING)

    def reached(name: str) -> None:
        if name == event and delay == 0:
            os.kill(os.getpid(), SIGKILL)
        elif name == event:
            threading.Timer(delay, os.kill, (os.getpid(), SIGKILL)).start()

    def telling(function: Any, before: str = "", after: str = "") -> Any:
        def tells(*arguments: Any) -> Any:
            reached(before)
            result = function(*arguments)
            reached(after)
            return result

        return tells

    put = Target.put

    async def stores_and_tells(self: Target, name: str, content: Any) -> None:
        await put(self, name, content)
        reached("object stored")

    Target.put = stores_and_tells  # type: ignore[assignment,method-assign]
    module = vars(copying)
    module["write_to"] = telling(module["write_to"], after="written")
    module["check_copy"] = telling(module["check_copy"], after="compared")
    vars(migrate)["copy_movie"] = telling(copying.copy_movie, "claimed", "committed")
    instance = dj.Instance(**address)
    instance.config.stores = stores
    told.send(instance.connection.connection_id)
    Migration(dj.FreeTable(instance.connection, table), "movie", "photons", lease=LEASE).run()
