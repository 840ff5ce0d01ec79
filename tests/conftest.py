"""Fixtures that several test modules use: databases, object stores, and pipelines of one with the other."""

from __future__ import annotations

import os
import signal
from typing import Any

# Before datajoint is imported anywhere: a datajoint.json or a variable of the developer's own must not reach the tests.
os.environ["DJ_IGNORE_CONFIG_FILE"] = "true"
for _name in [name for name in os.environ if name.startswith("DJ_") and not name.startswith("DJ_TEST_")]:
    if _name != "DJ_IGNORE_CONFIG_FILE":
        del os.environ[_name]
os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_DEFAULT_REGION="us-east-1", MPLBACKEND="Agg")

# Started in the background or by nohup, a process ignores these signals, and so do the processes that the tests start.
_handlers: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL, "SIGTERM": signal.SIG_DFL}
for _name, _handler in _handlers.items():
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

import services
from dj_photon_codecs.storage.chunks import ChunkReader

# Two shared cores make any deadline flaky. On CI the examples are the same on every run.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


#: Fixtures of a database or an object store.
SERVICES = {"postgres", "mysql", "s3_server", "pipeline", "database"}

#: Files whose tests start process after process, run whole examples, or feed thousands of inputs.
SLOW = {
    "test_acquisition_failures.py",
    "test_benchmarks.py",
    "test_cli_page.py",
    "test_cli_scripts.py",
    "test_cli_survey.py",
    "test_compiled.py",
    "test_crafted_fuzz.py",
    "test_detectors.py",
    "test_drills.py",
    "test_embedded.py",
    "test_endurance.py",
    "test_examples_pipelines.py",
    "test_failing_store.py",
    "test_many_at_once.py",
    "test_recover.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by fixture and by file, in one place; a slow test in a quick file is marked where it is."""
    for item in items:
        if SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker("services")
        if item.path.name in SLOW or item.get_closest_marker("services"):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def database_folder() -> Iterator[Path]:
    """Not below pytest's folder, which root's next pytest closes to other users: as one of them PostgreSQL runs."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(database_folder: Path) -> Iterator[Any]:
    """A ``datajoint.Instance`` on PostgreSQL: the one that pip installed, or DJ_TEST_PG_HOST."""
    with services.postgres_instance(database_folder) as instance:
        yield instance


@pytest.fixture(scope="session")
def mysql() -> Iterator[Any]:
    """A ``datajoint.Instance`` on MySQL or MariaDB, where there is one (or DJ_TEST_MYSQL_HOST)."""
    with services.mysql_instance() as instance:
        yield instance


@pytest.fixture(scope="session")
def s3_server() -> Iterator[services.S3Server]:
    """An S3 service: moto's server, or DJ_TEST_S3_ENDPOINT."""
    with services.s3_service() as server:
        yield server


@pytest.fixture
def file_store(tmp_path: Path) -> dict[str, Any]:
    """DataJoint's settings of an empty store in a folder."""
    location = tmp_path / "store"
    location.mkdir()
    return {"protocol": "file", "location": str(location)}


@pytest.fixture
def s3_store(s3_server: services.S3Server) -> dict[str, Any]:
    """DataJoint's settings of an empty store in a bucket."""
    return s3_server.store(s3_server.new_bucket())


@pytest.fixture(params=services.PIPELINES, ids="-".join)
def pipeline(request: pytest.FixtureRequest) -> Iterator[services.Pipeline]:
    """A schema and a store, on each database with each kind of store in turn."""
    database, protocol = request.param
    instance = request.getfixturevalue(database)
    store = request.getfixturevalue(f"{protocol}_store")
    with services.open_pipeline(instance, database, protocol, store) as opened:
        yield opened


@pytest.fixture
def local_pipeline(postgres: Any, file_store: dict[str, Any]) -> Iterator[services.Pipeline]:
    """A schema and a store on PostgreSQL and a folder, for what does not depend on either."""
    with services.open_pipeline(postgres, "postgres", "file", file_store) as opened:
        yield opened


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The chunks that are decoded from here on."""
    seen: list[tuple[int, ...]] = []
    original = ChunkReader.decode

    def decode(self: ChunkReader, payload: Any, coords: tuple[int, ...], *rest: Any) -> Any:
        seen.append(coords)
        return original(self, payload, coords, *rest)

    monkeypatch.setattr(ChunkReader, "decode", decode)
    return seen
