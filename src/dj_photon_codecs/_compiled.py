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
import numpy as np
from numba.core import caching, event

#: Annotations of compiled functions; numba infers the exact types.
Array = Any
Int = Any

i32, i64 = np.int32, np.int64
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64

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
    loop: Any = numba.njit(function, cache=cache, nogil=True, error_model="numpy")
    if cache:
        kept = loop._cache
        place = kept.cache_path, kept._impl.filename_base, kept._impl.locator.get_source_stamp()
        kept._cache_file = _MachineCode(*place)  # type: ignore[no-untyped-call]
    return loop  # type: ignore[no-any-return]


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


class _MachineCode(caching.IndexDataCacheFile):
    """Keeps the machine code of a loop on disk, one file for each dtype, processor, and version.

    numba numbers the files and keeps an index of them. Two processes that compile a loop for different dtypes at the
    same time can both take the same number. The index then leads to code that reads the arrays as another dtype: an
    error, or wrong numbers. Here a file's name says what it holds, the file says it again, and there is no index.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep the machine code for a key. A disk that is full or cannot be written to leaves it in memory only."""
        try:
            self._save_data(self._name(key), (key, data))  # type: ignore[no-untyped-call]
        except OSError as error:
            _LOG.info("the machine code of a loop was not kept: %s", error)

    def load(self, key: Any) -> Any:
        """Return the machine code for a key, or None if there is none that can be read."""
        try:
            held, data = self._load_data(self._name(key))  # type: ignore[no-untyped-call]
        except Exception:  # absent, or damaged: unpickling then raises errors of any kind
            return None
        return data if held == key else None

    def _name(self, key: Any) -> str:
        said = repr((numba.__version__, self._source_stamp, key))
        return f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(said.encode()).hexdigest()[:16]}.nbc"


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
