"""Choose the database and the stores for the examples. Nothing here is about photon movies.

By default everything is in a temporary folder: the database that pip installed, and the stores. For your own servers:

    --database mysql    MySQL or MariaDB (or --database postgresql) at DJ_HOST, DJ_PORT, with DJ_USER and DJ_PASS
    --store s3          the bucket S3_BUCKET at S3_ENDPOINT (such as http://localhost:9000), with the keys
                        AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Python searches a script's folder first, where distributed.py would hide the package of that name.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parent))

os.environ.setdefault("DJ_IGNORE_CONFIG_FILE", "true")  # a datajoint.json nearby belongs to another pipeline
os.environ.setdefault("DJ_LOG_LEVEL", "ERROR")
# One thread for linear algebra per process: with a worker on every core, more threads would wait for each other.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

INSTALL = 'pip install "dj-photon-codecs[examples]"'

try:
    import dask.distributed  # noqa: F401
    import matplotlib
    import scipy.ndimage  # noqa: F401
    import skimage  # noqa: F401
    import tifffile  # noqa: F401
    import xarray  # noqa: F401

    import dj_photon_codecs.simulation  # noqa: F401
except ImportError as error:
    sys.exit(f"the examples need {error.name}, which is not installed: {INSTALL}")

import datajoint as dj
from pydantic import SecretStr

from dj_photon_codecs.embedded import embedded_database

matplotlib.use("Agg")
OUTPUT = Path(__file__).parent / "output"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every example that uses a database."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--database", choices=("embedded", "mysql", "postgresql"), default="embedded")
    options.add_argument("--store", choices=("file", "s3"), default="file")
    options.add_argument("--output", type=Path, default=OUTPUT, help="folder for the pictures")
    return options


@dataclass(frozen=True)
class Place:
    """A working folder, the name of a new schema, and the environment for other processes to use the same."""

    folder: Path
    schema: str
    environment: dict[str, str]


@contextmanager
def place(options: argparse.Namespace, schema: Any, name: str, stores: tuple[str, ...]) -> Iterator[Place]:
    """Connect to the database, configure the stores, activate the schema; remove everything at the end."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        if options.database == "embedded":
            cleanup.enter_context(embedded_database(folder))
        else:
            cleanup.enter_context(_server(options.database))
        dj.config.safemode = False  # this run creates the schema, so drop it without asking
        run = f"{name}_{uuid.uuid4().hex[:8]}"
        specs: dict[str, Any] = {store: _store(options.store, folder, f"{run}/{store}") for store in stores}
        dj.config.stores = {"default": stores[0], **specs}
        schema.activate(run)
        cleanup.callback(_drop, schema)
        if options.store == "s3":
            cleanup.callback(_empty, specs)
        database, password = dj.config.database, dj.config.database.password
        environment = {
            "DJ_HOST": str(database.host),
            "DJ_PORT": str(database.port),
            "DJ_USER": str(database.user),
            "DJ_PASS": password.get_secret_value() if password else "",
            "DJ_BACKEND": str(database.backend),
            "DJ_USE_TLS": str(bool(database.use_tls)).lower(),
            "DJ_STORES": json.dumps(dj.config.stores),
        }
        yield Place(folder, run, environment)


@contextmanager
def _server(backend: str) -> Iterator[None]:
    """Connect to the server named in the environment."""
    settings: dict[str, Any] = {"backend": backend, "host": os.environ.get("DJ_HOST", "127.0.0.1"), "use_tls": None}
    settings |= {"port": int(os.environ.get("DJ_PORT", 3306 if backend == "mysql" else 5432))}
    settings |= {"user": os.environ.get("DJ_USER", "root" if backend == "mysql" else "postgres")}
    settings |= {"password": SecretStr(os.environ.get("DJ_PASS", ""))}
    dj.config.database = dj.config.database.model_copy(update=settings)
    connection = dj.conn(reset=True)
    try:
        yield
    finally:
        connection.close()


def _drop(schema: Any) -> None:
    """Drop the schema, also after a failed populate on several processes, which leaves no connection."""
    if not schema.connection.is_connected:
        schema.connection.connect()
    schema.drop(prompt=False)


def _store(kind: str, folder: Path, location: str) -> dict[str, Any]:
    """Return DataJoint's settings for one store."""
    if kind == "file":
        (folder / location).mkdir(parents=True)
        return {"protocol": "file", "location": str(folder / location)}
    endpoint = urlsplit(os.environ["S3_ENDPOINT"])
    return {
        "protocol": "s3",
        "endpoint": endpoint.netloc,
        "secure": endpoint.scheme == "https",
        "bucket": os.environ["S3_BUCKET"],
        "location": location,
        "access_key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }


def _empty(specs: dict[str, Any]) -> None:
    """Remove what this run stored in a bucket."""
    from datajoint.storage import StorageBackend

    for spec in specs.values():
        backend = StorageBackend(spec)
        root = str(backend._full_path(""))
        if backend.fs.exists(root):
            backend.fs.rm(root, recursive=True)


def end_workers_at_once() -> None:
    """Make the workers of ``populate(processes=2)`` exit on SIGTERM.

    DataJoint 2.3 handles SIGTERM in Python while it populates with ``reserve_jobs``, and its workers inherit that. A
    worker that gets the signal just before it waits for its next task would never exit. We saw it once.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
