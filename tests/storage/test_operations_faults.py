"""Every operation meets every fault of a place: one error of this package that names the place, no wait for ever."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dj_photon_codecs import (
    Calibration,
    PhotonArray,
    PhotonCodecError,
    PhotonWriter,
    StorageError,
    break_claim,
    calibrate,
    open_movie,
    open_source,
    recover_movie,
    write_movie,
)
from dj_photon_codecs.cli import main
from dj_photon_codecs.storage import layout
from dj_photon_codecs.storage.claim import CLAIM
from services import S3Server
from test_cli import configure_s3

NOISE = Calibration.given(1.0, 0.0)

#: Neither is on Windows.
_UNIX: Any
_pipe: Any
_UNIX, _pipe = (getattr(module, name, None) for module, name in ((socket, "AF_UNIX"), (os, "mkfifo")))
COUNTS = np.random.default_rng(0).poisson(50, (8, 16, 16)).astype(np.uint16)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A movie of four objects."""
    folder: Path = tmp_path_factory.mktemp("stored") / "movie.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_PIXELS", 2 * 16 * 16)
        patch.setattr(layout, "SHARD_BYTES", 1)
        write_movie(folder, COUNTS, calibration=NOISE)
    return folder


#: What is done with a movie, by its place; the second argument is a handle of before the fault, the third a new place.
OPERATIONS: dict[str, Callable[[Any, PhotonArray, Path], Any]] = {
    "open": lambda place, movie, new: open_movie(place),
    "read": lambda place, movie, new: movie[...],
    "frames": lambda place, movie, new: list(movie.frames()),
    "verify": lambda place, movie, new: movie.verify(),
    "read_intact": lambda place, movie, new: movie.read_intact(),
    "copy": lambda place, movie, new: write_movie(new, movie),
    "copy it anew": lambda place, movie, new: write_movie(new, movie, profile="portable"),
    "write": lambda place, movie, new: write_movie(place, COUNTS, calibration=NOISE),
    "acquire": lambda place, movie, new: PhotonWriter(place, calibration=NOISE).__exit__(None, None, None),
    "open_source": lambda place, movie, new: open_source(place),
    "calibrate": lambda place, movie, new: calibrate(place),
    "recover": lambda place, movie, new: recover_movie(place),
    "break_claim": lambda place, movie, new: break_claim(place),
}


#: Those that ask nothing of the place itself.
OF_A_HANDLE = ("read", "frames", "verify", "read_intact", "copy", "copy it anew")


def outcome(operation: Callable[[], Any]) -> Any:
    """What an operation gives or raises, within a minute."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(operation())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert found, "it waits for ever"
    return found[0]


def empty_folder(path: Path) -> None:
    path.mkdir()


def bound(path: Path) -> None:
    with socket.socket(_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # the path of a socket is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)
            os.close(here)


FAULTS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a folder": empty_folder,
    "a file": lambda path: path.write_bytes(b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "a pipe": lambda path: _pipe(path),
    "a socket": bound,
    "a link to itself": lambda path: path.symlink_to(path),
}

#: Keys of a movie that a fault is put in place of.
KEYS = ["", "zarr.json", "c/1/0/0", "c", CLAIM, "acquisition.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets in a folder are POSIX")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key or "the folder")
def test_an_error_names_the_place_and_is_ours(tmp_path: Path, stored: Path, key: str, fault: str) -> None:
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        place = tmp_path / str(number) / "movie.zarr"
        shutil.copytree(stored, place)
        movie: PhotonArray = pickle.loads(pickle.dumps(open_movie(place)))
        broken = place / key if key else place
        shutil.rmtree(broken) if broken.is_dir() else broken.unlink(missing_ok=True)
        FAULTS[fault](broken)
        result = outcome(lambda: operation(place, movie, tmp_path / str(number) / "new"))  # noqa: B023  # called here
        if isinstance(result, BaseException):
            assert isinstance(result, PhotonCodecError), (name, result)
            assert str(tmp_path / str(number)) in str(result), (name, result)
            if "new" not in str(result):
                assert not (tmp_path / str(number) / "new").exists(), name
        elif name == "verify":
            assert bool(result) == (key in (CLAIM, "acquisition.json")), fault
        elif name in ("read", "frames", "copy it anew"):
            assert key in ("zarr.json", CLAIM, "acquisition.json")
            np.testing.assert_array_equal(np.asarray(result[...] if name != "frames" else result), read(stored))


def read(folder: Path) -> Any:
    return open_movie(folder)[...]


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in OF_A_HANDLE])
def test_a_protocol_that_nobody_knows_is_named(stored: Path, tmp_path: Path, operation: str) -> None:
    place = "nosuch://bucket/movie.zarr"
    with pytest.raises(PhotonCodecError, match="nosuch"):
        OPERATIONS[operation](place, open_movie(stored), tmp_path)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_bucket_is_named(
    stored: Path, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    import fsspec

    configure_s3(monkeypatch, s3_server.endpoint, s3_server.access_key, s3_server.secret_key)
    bucket = s3_server.new_bucket()
    place = f"s3://{bucket}/movie.zarr"
    movie = pickle.loads(pickle.dumps(write_movie(place, COUNTS, calibration=NOISE)))
    fsspec.filesystem("s3").rm(bucket, recursive=True)
    if operation == "break_claim":
        break_claim(place)  # there is none
        return
    with pytest.raises(PhotonCodecError, match=bucket) as caught:
        OPERATIONS[operation](place, movie, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert isinstance(caught.value, StorageError) == (operation not in ("open_source", "calibrate"))


#: In a child that gives up root's rights, where this is root: each line names the operation, the type and the message.
_WITHOUT_RIGHTS = """
import os, pickle, sys
from contextlib import suppress
from pathlib import Path
sys.path[:0] = [sys.argv[2], f"{sys.argv[2]}/storage", f"{sys.argv[2]}/cli"]
import test_operations_faults as table
place, new = Path(sys.argv[1], "movie.zarr"), Path(sys.argv[1], "new")
movie = table.open_movie(place)
for operation in table.OPERATIONS.values():  # imports what another user may not read
    with suppress(Exception):
        operation(place, movie, Path(sys.argv[1], "warm"))
movie = pickle.loads(pickle.dumps(movie))  # has read nothing
for path in (place / "zarr.json", *place.glob("c/*/*/*")):
    path.chmod(0o200)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for name, operation in table.OPERATIONS.items():
    try:
        operation(place, movie, new)
        print(name, "done")
    except BaseException as error:
        print(name, isinstance(error, table.PhotonCodecError), " ".join(str(error).split()))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_without_the_right_to_read_or_write_the_place_is_named(stored: Path, tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        shutil.copytree(stored, Path(folder, "movie.zarr"))
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_RIGHTS, folder, str(Path(__file__).parents[1])],
            capture_output=True,
            text=True,
        )
    lines = done.stdout.splitlines()
    assert len(lines) == len(OPERATIONS), done.stdout + done.stderr
    for line in lines:
        assert re.search(f" True .*{folder}", line) or line in ("verify done", "break_claim done"), line


@pytest.mark.parametrize("fault", ["missing", "a folder", "a file", "a pipe", "a socket"])
@pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets in a folder are POSIX")
def test_an_export_names_what_it_cannot_write_or_read(
    tmp_path: Path, stored: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "scan.npy"
    FAULTS[fault](target)
    assert outcome(lambda: main(["export", str(stored), str(target)])) == (0 if fault == "missing" else 3)
    assert fault == "missing" or str(target) in capsys.readouterr().err
    target.unlink() if not target.is_dir() else target.rmdir()
    source = tmp_path / "movie.zarr"
    FAULTS[fault](source)
    assert outcome(lambda: main(["export", str(source), str(target)])) in (2, 4)
    assert str(source) in capsys.readouterr().err
    assert not target.exists()
    missing = tmp_path / "no folder" / "scan.npy"
    assert outcome(lambda: main(["export", str(stored), str(missing)])) in (2, 4)
    assert str(missing.parent) in capsys.readouterr().err
