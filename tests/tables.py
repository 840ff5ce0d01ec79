"""A small table of movies, for tests of what happens to its store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

from dj_photon_codecs import PhotonArray, PhotonCodec, PhotonMovie
from dj_photon_codecs.storage.record import without_record
from services import Pipeline

#: Each database once and each kind of store once: one does not change what the other does here.
crosswise = pytest.mark.parametrize(
    "pipeline", [("postgres", "file"), ("mysql", "s3")], ids=["postgres-file", "mysql-s3"], indirect=True
)


def photon(seed: int = 0) -> PhotonMovie:
    """A small movie with its true noise model."""
    counts = np.random.default_rng(seed).poisson(6, size=(20, 32, 32)).astype(np.uint16)
    return PhotonMovie(counts, conversion_gain=1, zero_level=0)


def declare_recording(schema: Any, column: str = "<photon@imaging>") -> Any:
    """A table of movies, with a key that needs escaping in paths."""

    @schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        subject : varchar(16)
        recording : int32
        ---
        movie = null : {column}
        """

    return Recording


def declare_movies(pipeline: Pipeline, codec: str = "photon") -> Any:
    """A table of movies, with a number for a key."""

    @pipeline.schema
    class Recording(dj.Manual):  # type: ignore[misc]
        definition = f"""
        recording : int32
        ---
        movie : <{codec}@{pipeline.store}>
        """

    return Recording


def json_row(handle: PhotonArray) -> dict[str, Any]:
    """What a column on the store ``imaging`` holds for a movie in its folder ``m``."""
    assert handle.record is not None
    stored = {"path": "m", "store": "imaging", **handle.record.to_dict(), "zarr": without_record(handle.documents)}
    copied: dict[str, Any] = json.loads(json.dumps(stored))
    return copied


def fetched(stored: Any, folder: Path) -> PhotonArray:
    """The handle of such a row, with ``folder`` as the store."""
    config = dj.settings.Config()
    config.stores = {"default": "imaging", "imaging": {"protocol": "file", "location": str(folder)}}
    handle = PhotonCodec().decode(stored, key={"_config": config})
    assert isinstance(handle, PhotonArray)
    return handle


def row(index: int, movie: Any = None) -> dict[str, Any]:
    """A row of that table."""
    return {"subject": "m/1", "recording": index, "movie": movie}


def objects_of(pipeline: Pipeline, index: int) -> list[str]:
    """What is in the store for one recording."""
    return [name for name in pipeline.objects() if f"recording={index}/" in name]


def folders(objects: Iterable[str]) -> set[str]:
    """The movies that objects belong to."""
    return {name.split(".zarr")[0] + ".zarr" for name in objects}


@contextmanager
def second_connection(pipeline: Pipeline) -> Iterator[Any]:
    """An instance of its own on the same database and store, as another process has."""
    instance = dj.Instance(**address(pipeline))
    instance.config.stores = dict(pipeline.config.stores)
    instance.config.safemode = False
    try:
        yield instance
    finally:
        instance.connection.close()


def address(pipeline: Pipeline) -> dict[str, Any]:
    """What ``dj.Instance(**address)`` takes to reach the database of a pipeline."""
    connection = pipeline.instance.connection
    used = connection.conn_info
    return {
        "host": used["host"],
        "port": used["port"],
        "user": used["user"],
        "password": used["passwd"],
        "backend": connection.adapter.backend,
        "use_tls": False,
    }
