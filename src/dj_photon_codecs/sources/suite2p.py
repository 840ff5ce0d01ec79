"""Read Suite2p's headerless int16 binaries; ``ops.npy`` next to them has the frame size."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from .metadata import Metadata, inverse
from .paths import Found
from .raw import mapped
from .stack import Options, Stack

#: Names allowed in the pickle of ``ops.npy``: numpy arrays and scalars, and the plain values that Suite2p stores.
_ADMITTED = {
    *(("datetime", name) for name in ("datetime", "timedelta", "timezone")),
    *(("numpy", name) for name in ("dtype", "ndarray")),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
    *(("pathlib", f"{kind}Path") for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")),
}
#: Maximum size of ops.npy [bytes]; the mean images of a large field of view take tens of megabytes.
_LARGEST_OPS = 1 << 30
_WAY_OUT = "if you know the size of its frames, open_source(path, shape=(-1, height, width))"


def open_files(found: Found, options: Options) -> Stack:
    """Open one of Suite2p's binaries."""
    [name] = found.names
    ops, beside = _settings(Path(name))
    try:
        height, width, frames = (int(ops[key]) for key in ("Ly", "Lx", "nframes"))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"the {beside} beside {name} lacks Ly, Lx or nframes ({type(error).__name__}: {error}): {_WAY_OUT}"
        ) from error
    size, expected = os.path.getsize(name), frames * height * width * 2
    if size != expected or not size:
        raise SourceError(
            f"{name} has {size} bytes, and {frames} frames of {height} x {width} as its {beside} says are "
            f"{expected}: truncated, or from another run. {_WAY_OUT}"
        )
    stack = mapped(name, "TYX", np.dtype("<i2"), (frames, height, width), 0)
    return replace(stack, metadata=Metadata(inverse(ops.get("fs"))))


def _settings(name: Path) -> tuple[dict[str, Any], str]:
    """Settings for a binary, and their file: ``ops.npy``, or ``db.npy`` if version 1 has not written that yet."""
    ops, db, settings = (name.with_name(f"{one}.npy") for one in ("ops", "db", "settings"))
    if ops.exists() or not db.exists():
        return _read_ops(ops, str(name)), "ops.npy"
    return {**(_read_ops(settings, str(name)) if settings.exists() else {}), **_read_ops(db, str(name))}, "db.npy"


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler for arrays and plain values only; anything else could run arbitrary code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib._local":  # written by Python 3.13 only
            module = "pathlib"
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither an array nor a plain value")
        if module.startswith("numpy._core") and not hasattr(np, "_core"):
            module = module.replace("_core", "core")  # numpy 2 wrote it, numpy 1 reads it
        return super().find_class(module, name)


def _read_ops(path: Path, name: str) -> dict[str, Any]:
    """Read the dictionary in an ``ops.npy`` file."""
    if not path.exists():
        raise SourceError(f"there is no ops.npy beside {name}, which has the size of its frames: {_WAY_OUT}")
    if path.stat().st_size > _LARGEST_OPS:
        raise SourceError(f"{path} has {path.stat().st_size} bytes, too many for an ops.npy: {_WAY_OUT}")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            if shape != () or dtype != np.dtype(object):
                raise pickle.UnpicklingError(f"it holds {dtype} of shape {shape}, not one Python object")
            held = _PlainUnpickler(file).load()
    except Exception as error:  # a crafted pickle can raise anything
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}. {_WAY_OUT}") from error
    # numpy pickles a 0-d array that holds the object.
    ops = held.item() if isinstance(held, np.ndarray) and held.shape == () else held
    if not isinstance(ops, dict):
        raise SourceError(f"{path} holds a {type(ops).__name__}, not a dictionary: {_WAY_OUT}")
    return ops
