"""Compile loops with numba. Import this module on first use, because importing numba takes a third of a second."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import event

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LOG = logging.getLogger("dj_photon_codecs")


def compiled(function: _Function) -> _Function:
    """Compile on first call, and cache the machine code on disk.

    numba puts it beside the module, in the user's cache folder, or in ``NUMBA_CACHE_DIR``. If none of these is
    writable, it goes to a private folder in the temporary directory.
    """
    function.__qualname__ += f"_{_stamp(Path(function.__code__.co_filename).parent)}"
    config: Any = numba.config  # numba creates its attributes at import
    before = config.CACHE_DIR
    for place in (lambda: before, _temporary_folder):
        try:
            config.CACHE_DIR = place() or before
            return _compile(function, cache=True)
        except RuntimeError:  # not writable
            continue
        finally:
            config.CACHE_DIR = before
    return _compile(function, cache=False)  # every process compiles anew


def _compile(function: _Function, *, cache: bool) -> _Function:
    loop: _Function = numba.njit(function, cache=cache, nogil=True, error_model="numpy")
    return loop


@cache
def _stamp(folder: Path) -> str:
    """Digest the modules of a folder: numba checks a loop's own module for changes, but not the modules it uses."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _temporary_folder() -> str | None:
    """Return a folder that only this user can write to, since code is loaded from it; None if there is none."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows, the temporary directory is already per user
    folder = Path(tempfile.gettempdir()) / f"dj_photon_codecs-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    private = not hasattr(os, "getuid") or (status.st_uid == user and not status.st_mode & 0o077)
    return str(folder) if stat.S_ISDIR(status.st_mode) and private else None


class _FirstUse(event.Listener):
    """Logs once that the first use is slow, and where the machine code is kept."""

    def __init__(self) -> None:
        self._told = False

    def on_start(self, event: Any) -> None:
        """Log it if the loop is one of this package's."""
        dispatcher = event.data["dispatcher"]
        if not self._told and dispatcher.py_func.__module__.startswith(f"{__package__}."):
            self._told = True
            place = dispatcher.stats.cache_path
            _LOG.info(
                "compiling loops for this machine, which takes up to a minute once; the machine code is %s",
                f"kept in {place}" if place else "not kept: there is no folder for it that can be written to",
            )

    def on_end(self, event: Any) -> None:
        """Do nothing."""


event.register("numba:compile", _FirstUse())  # type: ignore[no-untyped-call]
