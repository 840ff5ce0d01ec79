"""Compiling loops. Importing this module imports numba, which takes a third of a second: import it on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile on first call, and keep the machine code on disk where that is possible."""
    try:
        cached: _Function = numba.njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:  # neither the package nor the home folder can be written to: every process compiles anew
        cached = numba.njit(function, nogil=True, error_model="numpy")
    return cached
