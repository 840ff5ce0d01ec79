"""Read Scanbox recordings: a headerless binary, described by a MATLAB file next to it.

A frame is lines of pixels, with the channels of each pixel interleaved. Counts are stored as 65535 minus their value.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from .messages import warn_source, whole_volumes
from .metadata import Metadata, number
from .paths import Found
from .raw import mapped
from .stack import DamagedFile, Options, Stack, library

#: Channels in the file, by the value in the header.
_CHANNELS = {1: ("green", "red"), 2: ("green",), 3: ("red",), -1: ("green", "red")}


def open_files(found: Found, options: Options) -> Stack:
    """Open a recording."""
    [name] = found.names
    info = _info(Path(name))
    lines, width = _size(info, name)
    names = _channels(info, name)
    frame, size = lines * width * len(names) * 2, os.path.getsize(name)
    frames, left = divmod(size, frame)
    if not frames:
        raise DamagedFile(f"{name} has {size} bytes, and a frame of {len(names)} x {lines} x {width} takes {frame}")
    if left:
        warn_source(f"{name} ends within a frame: its last {left} of {frame} bytes are left out")
    promised = number(getattr(info.get("config"), "frames", None)) or number(info.get("max_idx", -1) + 1)
    if promised and round(promised) != frames:
        warn_source(
            f"{name} has {frames} frames, and its header says {promised:.0f}: the recording was stopped early, or the "
            "file was cut off"
        )
    depths = np.size(info.get("otwave", [])) if int(info.get("volscan", 0) or 0) else 1  # of the optotune
    planes = max(1, depths)
    volumes = whole_volumes(name, frames, planes)
    axes, shape = ("TZYXC", (volumes, planes)) if planes > 1 else ("TYXC", (volumes,))
    stack = mapped(name, axes, np.dtype("<u2"), (*shape, lines, width, len(names)), 0)
    rate = number(info.get("resfreq"))
    line_rate = rate * (2 if info.get("scanmode") == 0 else 1) if rate else None
    return replace(
        stack,
        read=lambda index: np.iinfo(np.uint16).max - stack.read(index),
        metadata=Metadata(lines * planes / line_rate if line_rate else None, channels=names),
    )


def _info(name: Path) -> dict[str, Any]:
    """Read the struct ``info`` from the MATLAB file of a recording."""
    path = name.with_suffix(".mat")
    if not path.is_file():
        raise SourceError(
            f"{name} is described by {path.name}, which is missing from its folder: copy it there. If you know the "
            "size of its frames, open_source(path, shape=(-1, lines, width, channels), axes='TYXC', dtype='<u2') gives "
            "its counts, inverted"
        )
    scipy_io = library("scipy.io", "scanbox", "Scanbox files")
    try:
        found = scipy_io.loadmat(path, squeeze_me=True, struct_as_record=False)["info"]
        return {field: getattr(found, field) for field in found._fieldnames}
    except (KeyError, AttributeError, ValueError, TypeError, NotImplementedError, OSError) as error:
        raise SourceError(f"{path} is not a Scanbox header: {type(error).__name__}: {error}") from error


def _size(info: dict[str, Any], name: str) -> tuple[int, int]:
    """Number of lines and width of a frame."""
    try:
        lines, width = (int(n) for n in np.ravel(info["sz"])[:2])
    except (KeyError, ValueError, TypeError) as error:
        raise SourceError(f"the header of {name} does not say how large its frames are (sz): {error}") from error
    buffer = number(info.get("recordsPerBuffer"))
    if buffer:
        lines = int(buffer) * (2 if info.get("scanmode") == 0 and int(buffer) != lines else 1)
    return lines, width


def _channels(info: dict[str, Any], name: str) -> tuple[str, ...]:
    """Names of the channels in the file."""
    count = getattr(info.get("chan"), "nchan", None)
    if count is not None and int(count) in (1, 2):  # since Scanbox 3
        return ("green", "red")[: int(count)]
    try:
        return _CHANNELS[int(info.get("channels", 1))]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"the header of {name} has channels = {info.get('channels')!r}, not one of 1, 2, 3"
        ) from error
