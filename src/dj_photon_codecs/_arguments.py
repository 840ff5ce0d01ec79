"""Checks of arguments: the error names the argument and shows its value."""

from __future__ import annotations

import numpy as np

from .errors import ConfigurationError


def check(allowed: object, name: str, value: object, what: str) -> None:
    """Raise ConfigurationError unless an argument (``oasis_ar1: decay``) is allowed, saying what it must be."""
    if not allowed:
        raise ConfigurationError(f"{name} must be {what}, got {_described(value)}")


def _described(value: object) -> str:
    """An array by its shape and dtype; anything else by its repr, shortened."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape:
        finite = not isinstance(value, np.ndarray) or value.dtype.kind != "f" or np.isfinite(value).all()
        return f"{type(value).__name__} of shape {shape} and dtype {dtype}{'' if finite else ' with NaN or infinity'}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}... ({type(value).__name__})"
