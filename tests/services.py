"""Real databases and object stores for the tests; tests/conftest.py hands them out as fixtures.

An external service is used when the environment names one, and then it must answer:

========================================================  =====================================================
``DJ_TEST_PG_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD``    PostgreSQL, in place of the one that pip installed
``DJ_TEST_MYSQL_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD``  MySQL or MariaDB, in place of root at 127.0.0.1:3306
``DJ_TEST_S3_ENDPOINT``, ``_ACCESS_KEY``, ``_SECRET_KEY``   an S3 service such as MinIO, in place of moto's server
========================================================  =====================================================
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import datajoint as dj
import pymysql
import pytest
from datajoint.storage import StorageBackend

from dj_photon_codecs.embedded import embedded_server
from dj_photon_codecs.storage.stores import MARKER

#: What ``pipeline`` runs on: every database with every kind of store.
PIPELINES = [(database, store) for database in ("postgres", "mysql") for store in ("file", "s3")]


def populate_in_two_processes(table: Any, **options: Any) -> dict[str, Any]:
    """``table.populate(processes=2)``, whose workers are told a second time to end when they did not hear the first.

    DataJoint handles SIGTERM in Python while it populates, and ends its workers with that signal. One that arrives
    just before a worker begins to wait for its next task is noted and never looked at: sem_wait() goes on waiting,
    and populate() with it, for ever. It was seen once; all results are there by then.
    """
    ended = threading.Event()

    def remind() -> None:
        while not ended.wait(30):
            for worker in multiprocessing.active_children():
                worker.terminate()

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        outcome: dict[str, Any] = table.populate(processes=2, display_progress=False, **options)
        return outcome
    finally:
        ended.set()
        reminder.join()


@dataclass(frozen=True)
class S3Server:
    """An S3 service and the keys to it."""

    endpoint: str
    access_key: str
    secret_key: str

    def new_bucket(self) -> str:
        """Make a bucket that no other test uses."""
        bucket = f"test-{uuid.uuid4().hex}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        return bucket

    def store(self, bucket: str) -> dict[str, Any]:
        """DataJoint's settings of a store in that bucket."""
        return {
            "protocol": "s3",
            "endpoint": self.endpoint.removeprefix("http://"),
            "secure": False,
            "bucket": bucket,
            "location": "recordings",
            "access_key": self.access_key,
            "secret_key": self.secret_key,
        }


@dataclass(frozen=True)
class Pipeline:
    """An empty DataJoint schema with an empty object store.

    Attributes
    ----------
    schema
        The schema, on a connection of its own kind; dropped after the test.
    store
        The name of the store, also the default one: ``<photon@{pipeline.store}>``.
    instance
        The ``datajoint.Instance`` with the configuration (``instance.config``) and the connection. The global
        ``dj.config`` knows neither: code that resolves a path with it fails here.
    database, protocol
        ``postgres`` or ``mysql``, ``file`` or ``s3``.
    """

    schema: Any
    store: str
    instance: Any
    database: str
    protocol: str

    @property
    def config(self) -> Any:
        """The configuration of the connection, which codecs receive."""
        return self.instance.config

    @property
    def backend(self) -> StorageBackend:
        """The store as DataJoint sees it: ``backend.fs``, and ``backend._full_path(path)`` for a path in a row."""
        return StorageBackend(self.config.get_store_spec(self.store))

    def objects(self) -> list[str]:
        """Every object in the store but its marker, by its path relative to the store, sorted."""
        backend = self.backend
        root = str(backend._full_path("")).rstrip("/")
        backend.fs.invalidate_cache()
        names = (path.removeprefix(root).lstrip("/") for path in backend.fs.find(root))
        return sorted(name for name in names if name != MARKER)


@contextmanager
def postgres_instance(folder: Path) -> Iterator[Any]:
    """A DataJoint instance on the PostgreSQL that the environment names, or else on one started in ``folder``."""
    address = _address("PG", port=5432, user="postgres")
    if address is not None:
        with _instance(address | {"backend": "postgresql", "use_tls": False}) as instance:
            yield instance
    else:
        with embedded_server(folder) as embedded, _instance(embedded) as instance:
            yield instance


@contextmanager
def mysql_instance() -> Iterator[Any]:
    """A DataJoint instance on MySQL or MariaDB; skips the test where there is none."""
    address = _address("MYSQL", port=3306, user="root")
    if address is None:
        address = {"host": "127.0.0.1", "port": 3306, "user": "root", "password": ""}
        try:
            pymysql.connect(**address, connect_timeout=5).close()
        except pymysql.err.OperationalError as error:
            pytest.skip(f"no MySQL or MariaDB for root at 127.0.0.1:3306, and DJ_TEST_MYSQL_HOST is not set: {error}")
    with _instance(address | {"backend": "mysql", "use_tls": False}) as instance:
        yield instance


@contextmanager
def s3_service() -> Iterator[S3Server]:
    """The S3 service that the environment names, or else moto's server on a free port."""
    endpoint = os.environ.get("DJ_TEST_S3_ENDPOINT")
    if endpoint:
        yield S3Server(endpoint, os.environ["DJ_TEST_S3_ACCESS_KEY"], os.environ["DJ_TEST_S3_SECRET_KEY"])
        return
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", "testing", "testing")
    finally:
        server.stop()


@contextmanager
def open_pipeline(instance: Any, database: str, protocol: str, store: dict[str, Any]) -> Iterator[Pipeline]:
    """A schema of its own on ``instance`` with ``store`` as its only, and default, store."""
    instance.config.stores = {"default": "imaging", "imaging": store}
    schema = dj.Schema(f"test_{uuid.uuid4().hex[:12]}", connection=instance.connection)
    try:
        yield Pipeline(schema, "imaging", instance, database, protocol)
    finally:
        if instance.connection.in_transaction:
            instance.connection.cancel_transaction()
        schema.drop(prompt=False)
        instance.config.stores = {}


@contextmanager
def _instance(address: dict[str, Any]) -> Iterator[Any]:
    """A connection with a configuration of its own, closed in the end."""
    instance = dj.Instance(**address)
    instance.config.safemode = False  # there is nobody to answer a prompt
    try:
        yield instance
    finally:
        instance.connection.close()


def _address(service: str, *, port: int, user: str) -> dict[str, Any] | None:
    """The service that the environment names, if it does."""
    prefix = f"DJ_TEST_{service}_"
    host = os.environ.get(prefix + "HOST")
    if not host:
        return None
    return {
        "host": host,
        "port": int(os.environ.get(prefix + "PORT", port)),
        "user": os.environ.get(prefix + "USER", user),
        "password": os.environ.get(prefix + "PASSWORD", ""),
    }
