"""Differences between operating systems: local paths, refused renames and deletions, forks, sockets, signals.

Functions with rules for one system take the platform as an argument, so that tests on any system cover all rules.
"""

from __future__ import annotations

import asyncio
import ntpath
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from .errors import ConfigurationError

T = TypeVar("T")

#: Longest path on Windows [characters], without the final null; a path that begins with \\?\ may have 32,767.
_LONGEST_PATH = 259

#: Extra characters while a file is written: zarr writes ``name.<32 digits>.partial`` and renames it.
_PARTIAL = len(".partial") + 33

#: Device names, which are reserved with any suffix; the last three digits are superscripts.
_DEVICES = re.compile("(con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *([.:]|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')

#: Windows errors while a virus scanner, an indexer or a reader has a file open: access denied, sharing violation, lock
#: violation, and a folder that is not empty because a file in it is still being deleted.
_PASSING = {5, 32, 33, 145}

#: Pauses between attempts [s], about 2 s in all.
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.6)


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def path_of_file_url(url: str, platform: str = sys.platform) -> str:
    r"""Return the local path of a ``file://`` URL, such as ``C:\movies`` for ``file:///C:/movies`` on Windows."""
    host, slash, rest = url.removeprefix("file://").partition("/")
    path = unquote(slash + rest)
    if "\0" in path:
        raise ConfigurationError(f"{url!r} holds %00, which is not allowed in a path: remove it")
    if host.lower() == "localhost":
        host = ""
    if platform == "win32":
        if host:
            path = f"//{host}{path}"
        elif re.match("/[A-Za-z][:|]", path):
            path = f"{path[1]}:{path[3:] or '/'}"
        return path.replace("/", "\\")
    if host or not path:
        raise ConfigurationError(
            f"{url!r} names the host {host!r}, and a file:// URL is read on this machine only: write three slashes and "
            "an absolute path, file:///folder/movie.zarr, or the path alone"
        )
    return path


def check_local_path(folder: str, longest_key: str, platform: str = sys.platform) -> None:
    """Refuse an absolute folder that Windows does not allow, given the longest object key in it."""
    if platform != "win32":
        return
    extended = folder.startswith("\\\\?\\")
    drive, path = ntpath.splitdrive(folder.removeprefix("\\\\?\\"))
    if drive.endswith(":") and not re.fullmatch("[A-Za-z]:", drive):
        raise ConfigurationError(f"{folder!r} is on the drive {drive!r}: a drive is one letter from A to Z and a colon")
    for name in re.split(r"[\\/]", path):
        forbidden = sorted(set(_FORBIDDEN.findall(name)))
        if forbidden:
            raise ConfigurationError(
                f"{name!r} in {folder!r} holds {' '.join(map(repr, forbidden))}, and Windows allows neither "
                '< > : " | ? * nor control characters in a name: choose another one'
            )
        if _DEVICES.match(name):
            raise ConfigurationError(
                f"{name!r} in {folder!r} is the name of a device on Windows (CON, PRN, AUX, NUL, COM0 to COM9, LPT0 to "
                "LPT9, with any suffix): choose another one"
            )
        if name not in ("", ".", "..") and name[-1] in ". ":
            raise ConfigurationError(
                f"{name!r} in {folder!r} ends in {name[-1]!r}, which Windows leaves out: choose another name"
            )
    length = len(folder) + 1 + len(longest_key) + _PARTIAL
    if length > _LONGEST_PATH and not extended:
        raise ConfigurationError(
            f"the longest file in {folder!r}, {longest_key!r} with {_PARTIAL} characters more while it is written, has "
            f"a path of {length} characters, and Windows allows {_LONGEST_PATH}: choose a folder whose path is "
            rf"{length - _LONGEST_PATH} characters shorter, or write \\?\ in front of the path"
        )


def is_passing(error: OSError) -> bool:
    """Whether Windows refused because the file is open elsewhere, which may soon change."""
    return getattr(error, "winerror", None) in _PASSING


async def retried(operation: Callable[[], Awaitable[T]]) -> T:
    """Await an operation on files, retrying for about 2 s while Windows refuses it."""
    for pause in _PAUSES:
        try:
            return await operation()
        except OSError as error:
            if not is_passing(error):
                raise
        await asyncio.sleep(pause)
    return await operation()


def retried_now(operation: Callable[[], T]) -> T:
    """:func:`retried` without an event loop."""
    for pause in _PAUSES:
        try:
            return operation()
        except OSError as error:
            if not is_passing(error):
                raise
        time.sleep(pause)
    return operation()


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder to a free name."""
    retried_now(lambda: source.rename(target))


def unlink(path: Path) -> None:
    """Remove a file if it exists."""
    retried_now(lambda: path.unlink(missing_ok=True))


def remove_folder(path: Path) -> None:
    """Remove a folder as far as possible."""
    try:
        retried_now(lambda: shutil.rmtree(path))
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def is_machine_fault(error: BaseException) -> bool:
    """Return True if an error or its cause comes from this machine: its memory, threads, files or libraries."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, MemoryError | ImportError) or type(found).__module__.startswith("numba."):
            return True
        if isinstance(found, OSError) and found.errno is not None:  # for altered bytes, bz2 and gzip set no errno
            return True
        text = str(found)  # Python and numba raise a plain RuntimeError for these
        if isinstance(found, RuntimeError) and any(word in text for word in ("new thread", "locator", "interpreter")):
            return True
        found = found.__cause__ or found.__context__
    return False


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Call a function in every child forked from now on. Windows has no fork."""
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=function)


def has_unix_sockets(platform: str = sys.platform) -> bool:
    """Whether servers can listen on a Unix socket, which has a path as its address."""
    return platform != "win32"


def machine() -> str:
    """Return what makes a process number unique: the host, and on Linux also the boot and the container."""
    told = [socket.gethostname() or "unknown"]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        told.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(told)


def ends_of_processes_are_known(platform: str = sys.platform) -> bool:
    """Whether a process can be looked up by its number; on Windows, the lookup would end it."""
    return platform != "win32"


def memory_bytes() -> int | None:
    """Return the memory of the machine or the container [bytes]; None on Windows."""
    if sys.platform == "win32":
        return None
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(Path(path).read_text()))
    return min(found)


def is_running(pid: int) -> bool:
    """Whether a process with this number is running on this machine. Do not call on Windows."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not a process number
        return True
    return True


class Terminated(SystemExit):
    """Raised by SIGTERM and SIGHUP; its code is the exit code."""


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise an exception, like Ctrl-C, so that a command cleans up."""

    def end(number: int, _: object) -> None:
        for caught in previous:
            signal.signal(caught, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        raise Terminated(128 + number)

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
