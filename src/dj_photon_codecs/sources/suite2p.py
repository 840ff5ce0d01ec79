"""Suite2p's binaries: int16 frames without a header, whose size stands in the ``ops.npy`` beside them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from .raw import mapped
from .stack import Options, Stack

#: What a pickle of ``ops.npy`` may name: numpy's arrays and scalars, and the plain values that Suite2p puts there.
_ADMITTED = {
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ),
    *(
        ("pathlib", f"{kind}{path}")
        for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")
        for path in ("Path",)
    ),
}
#: Of an ops.npy [bytes]: the mean images of a large field of view take tens of millions.
_LARGEST_OPS = 1 << 30


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The frames in one of Suite2p's binaries.

    Raises
    ------
    SourceError
        When ``ops.npy`` is not there or not one of Suite2p's, or does not fit the size of the binary.
    """
    [name] = names
    ops = _read_ops(Path(name).with_name("ops.npy"), name)
    try:
        height, width, frames = (int(ops[key]) for key in ("Ly", "Lx", "nframes"))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"the ops.npy beside {name} lacks Ly, Lx or nframes ({type(error).__name__}: {error}): {_way_out()}"
        ) from error
    dtype, size = np.dtype("<i2"), Path(name).stat().st_size
    if size != frames * height * width * dtype.itemsize or not size:
        raise SourceError(
            f"{name} has {size} bytes, and {frames} frames of {height} x {width} as its ops.npy says are "
            f"{frames * height * width * dtype.itemsize}: truncated, or of another run. {_way_out()}"
        )
    return mapped(name, "TYX", dtype, (frames, height, width), 0)


def _way_out() -> str:
    return "if you know the size of its frames, open_source(path, shape=(-1, height, width))"


class _PlainUnpickler(pickle.Unpickler):
    """Makes arrays and plain values; a pickle that names anything else would run what its author liked."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither an array nor a plain value")
        if module.startswith("numpy._core") and not hasattr(np, "_core"):
            module = module.replace("_core", "core")  # numpy 2 wrote it, numpy 1 reads it
        return super().find_class(module, name)


def _read_ops(path: Path, name: str) -> dict[str, Any]:
    """The dictionary in an ``ops.npy``."""
    if not path.exists():
        raise SourceError(f"there is no ops.npy beside {name}, which says the size of its frames: {_way_out()}")
    if path.stat().st_size > _LARGEST_OPS:
        raise SourceError(f"{path} has {path.stat().st_size} bytes, too many for an ops.npy: {_way_out()}")
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
    except Exception as error:  # a crafted pickle raises whatever the values it is made of raise
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}. {_way_out()}") from error
    # numpy pickles an array of one object, not the object itself
    ops = held.item() if isinstance(held, np.ndarray) and held.shape == () else held
    if not isinstance(ops, dict):
        raise SourceError(f"{path} holds a {type(ops).__name__}, not a dictionary: {_way_out()}")
    return ops
