"""What depends on the operating system, with the behaviour of the others put in its place."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dj_photon_codecs import Calibration, ConfigurationError, _system, embedded, open_source, write_movie
from dj_photon_codecs._system import check_local_path, path_of_file_url, retried
from dj_photon_codecs.simulation import Recording

SOURCE = Path(_system.__file__).parent
CUT = Path(__file__).parent / "data" / "minisim" / "cut.zarr"


def refusal(code: int) -> OSError:
    """What Python raises on Windows for this error of the system."""
    kind = OSError if code == 145 else PermissionError
    error = kind(errno.ENOTEMPTY if code == 145 else errno.EACCES, "refused")
    error.winerror = code  # type: ignore[attr-defined,unused-ignore]  # which only Windows has
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, in place of waiting."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(_system, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(_system, "time", SimpleNamespace(sleep=waited.append))
    return waited


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "platform", "path"),
    [
        ("file:///data/my%20movie.zarr", "linux", "/data/my movie.zarr"),
        ("file://localhost/data/m.zarr", "darwin", "/data/m.zarr"),
        ("file:///data/50%25%3F.zarr", "linux", "/data/50%?.zarr"),
        ("file:///data/m%C3%BCll#1.zarr", "linux", "/data/müll#1.zarr"),
        ("file:///C:/movies/my%20movie.zarr", "win32", "C:\\movies\\my movie.zarr"),
        ("file:///c|/movies/m.zarr", "win32", "c:\\movies\\m.zarr"),
        ("file://localhost/C:/movies", "win32", "C:\\movies"),
        ("file:///C:", "win32", "C:\\"),
        ("file://server/share/my%20movie.zarr", "win32", "\\\\server\\share\\my movie.zarr"),
        ("file:////server/share/m.zarr", "win32", "\\\\server\\share\\m.zarr"),
    ],
)
def test_file_urls_are_decoded_to_paths(url: str, platform: str, path: str) -> None:
    assert path_of_file_url(url, platform) == path


@pytest.mark.parametrize("url", ["file://server/share/m.zarr", "file://m.zarr", "file:///a%00b", "file://"])
def test_file_urls_of_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        path_of_file_url(url, "linux")
    assert repr(url) in str(refused.value)


def test_a_source_opens_from_a_file_url(tmp_path: Path) -> None:
    counts = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    np.save(tmp_path / "two frames.npy", counts)
    with open_source((tmp_path / "two frames.npy").as_uri()) as movie:
        np.testing.assert_array_equal(movie[:], counts)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("C:\\data\\a<b.zarr", "holds '<'"),
        ("C:\\data\\what?*\\m.zarr", "holds '*' '?'"),
        ("C:\\data\\ab:stream", "holds ':'"),
        ("C:\\data\\a\nb", "holds '\\n'"),
        ("C:\\data\\con", "name of a device"),
        ("C:\\data\\Nul.zarr\\m", "name of a device"),
        ("C:\\data\\COM1.tar.gz", "name of a device"),
        ("C:/data/lpt\u00b9", "name of a device"),
        ("C:\\data\\movie.\\m", "ends in '.'"),
        ("C:\\data\\movie \\m", "ends in ' '"),
        ("1:\\data\\m.zarr", "drive '1:'"),
    ],
)
def test_names_that_windows_refuses_are_told_before_anything_is_written(folder: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_local_path(folder, "c/0/0/0", "win32")
    assert told in str(refused.value)
    assert repr(folder) in str(refused.value)
    check_local_path(folder, "c/0/0/0", "linux")
    check_local_path(folder, "c/0/0/0", "darwin")


@pytest.mark.parametrize(
    "folder",
    [
        "C:\\data\\movie.zarr",
        "D:/data/../movie 2.zarr",
        "\\\\server\\share\\console\\com10.zarr",
        "\\\\?\\C:\\data\\m.zarr",
        "\\\\?\\UNC\\server\\share\\m.zarr",
        "C:\\Users\\Zoë\\nullpunkt",
    ],
)
def test_ordinary_paths_are_allowed_on_windows(folder: str) -> None:
    check_local_path(folder, "c/0/0/0", "win32")


def test_the_longest_path_on_windows_has_259_characters() -> None:
    """With the name under which zarr writes an object before it renames it: this one has 41 more."""
    key = "c/10/0/0"
    folder = "C:\\" + "m" * (259 - 3 - len("/" + key) - 41)
    check_local_path(folder, key, "win32")
    with pytest.raises(ConfigurationError, match="a path of 260 characters, and Windows allows 259") as refused:
        check_local_path(folder + "m", key, "win32")
    assert "1 characters shorter" in str(refused.value)
    check_local_path("\\\\?\\" + folder + "m", key, "win32")
    check_local_path(folder + "m", key, "linux")


def test_zarr_writes_under_a_name_of_41_characters_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the limit above counts with."""
    seen: list[tuple[str, str]] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        seen.append((self.name, target.name))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_movie(tmp_path / "m.zarr", np.ones((2, 8, 8), np.uint16), calibration=Calibration.given(1.0, 0.0))
    assert len(seen) >= 2
    for partial, name in seen:
        assert len(partial) <= len(name) + _system._PARTIAL


# --- refused renames and deletions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [5, 32, 33, 145])
def test_what_windows_refuses_for_a_moment_is_tried_again(code: int, pauses: list[float]) -> None:
    answers = [refusal(code), refusal(code), refusal(code)]

    async def replace() -> str:
        if answers:
            raise answers.pop()
        return "replaced"

    assert asyncio.run(retried(replace)) == "replaced"
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_what_stays_refused_is_raised_after_two_seconds(pauses: list[float]) -> None:
    async def replace() -> None:
        raise refusal(5)

    with pytest.raises(PermissionError):
        asyncio.run(retried(replace))
    assert sum(pauses) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no right"), FileNotFoundError("gone"), refusal(112)])
def test_other_errors_are_raised_at_once(error: OSError, pauses: list[float]) -> None:
    """No right to write on other systems, and a full disk (112) on Windows."""
    attempts = []

    async def replace() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(type(error)):
        asyncio.run(retried(replace))
    assert (len(attempts), pauses) == (1, [])


def refused_twice(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Refuse the first two calls of a function, as Windows does while someone has the file open."""
    calls: list[str] = []
    real: Callable[..., object] = getattr(owner, name)

    def refuse(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) <= 2:
            raise refusal(32)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, refuse)
    return calls


def test_a_recording_is_kept_although_its_folder_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    recording = Recording.load(CUT)
    calls = refused_twice(monkeypatch, Path, "rename")
    kept = recording.save(tmp_path / "kept")
    assert (len(calls), len(pauses)) == (3, 2)
    np.testing.assert_array_equal(Recording.load(kept).ground_truth.C, recording.ground_truth.C)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file_that_is_open_is_removed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    (tmp_path / "b").touch()
    calls = refused_twice(monkeypatch, Path, "unlink")
    _system.unlink(tmp_path / "b")
    _system.unlink(tmp_path / "b")  # no longer there
    assert len(calls) == 4
    calls = refused_twice(monkeypatch, shutil, "rmtree")
    _system.remove_folder(tmp_path / "folder")
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_only_unix_sockets_restrict_the_path_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as windows:
        windows.setattr(embedded, "has_unix_sockets", lambda: False)
        assert embedded._data_folder(tmp_path / "my database") == tmp_path / "my database" / "postgres"
    with pytest.raises(ConfigurationError, match="socket"):
        embedded._data_folder(tmp_path / "my other database")


def test_where_there_is_no_fork_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows the os module has no function for it."""
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setattr(sys, "platform", "win32")
    _system.after_fork_in_child(lambda: None)


#: What differs between systems, or is refused on one of them; renaming and removing are also methods of paths.
BY_SYSTEM = re.compile(
    r"os\.(name|fork|register_at_fork|replace|remove|kill)|sys\.platform|platform\.system|shutil\.(rmtree|move)"
    r"|(signal|msvcrt|fcntl|winreg|resource)\..*|.*\.(rename|unlink)"
)


def test_what_depends_on_the_system_stands_in_one_module() -> None:
    found = {
        f"{path.relative_to(SOURCE)}: {ast.unparse(node)}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and BY_SYSTEM.fullmatch(ast.unparse(node))
    }
    assert "_system.py: path.unlink" in found  # they are found
    assert [line for line in sorted(found) if not line.startswith("_system.py: ")] == []
