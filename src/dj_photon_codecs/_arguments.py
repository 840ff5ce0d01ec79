"""Checks of arguments, and how messages and reprs show a value: arrays by shape and dtype, the rest shortened."""

from __future__ import annotations

from dataclasses import fields
from textwrap import shorten
from typing import Any

import numpy as np

from .errors import ConfigurationError

#: Length of a repr that fits three lines [characters].
_THREE_LINES = 360


def check(allowed: object, name: str, value: object, what: str) -> None:
    """Raise ConfigurationError unless an argument (``oasis_ar1: decay``) is allowed, saying what it must be."""
    if not allowed:
        finite = (
            not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.ndim or np.isfinite(value).all()
        )
        blemish = "" if finite else " with NaN or infinity"
        raise ConfigurationError(f"{name} must be {what}, got {_described(value)}{blemish}")


def three_lines(text: str) -> str:
    """Cut a repr to three lines."""
    return shorten(text, _THREE_LINES, placeholder=" ...")


def brief_repr(instance: Any) -> str:
    """Return a repr that fits three lines, for dataclasses with arrays or long lists.

    Assign it in the class, ``__repr__ = brief_repr``. Fields that are None are left out.
    """
    named = {field.name: getattr(instance, field.name) for field in fields(instance) if field.repr}
    listed = ", ".join(f"{name}={_described(value, 120)}" for name, value in named.items() if value is not None)
    return three_lines(f"{type(instance).__name__}({listed})")


def _described(value: object, longest: int = 80) -> str:
    """An array by its shape and dtype; anything else by its repr, shortened."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {shape} and dtype {dtype}"
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}... ({type(value).__name__})"
