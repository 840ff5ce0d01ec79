"""Metadata of recordings, in [s] and [µm]; stored with a movie under OME names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .._typing import Json
from .messages import warn_source

_MOST_TIMES = 2000  # maximum number of frame times stored with a movie, because they go into a database row
#: Units of length by the names used in files [µm].
_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre", "meters"), 1e6),
}
#: Units of time by the names used in files [s].
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}


@dataclass(frozen=True)
class Metadata:
    """Metadata of a recording; readers pass raw values from the file, and invalid ones are dropped."""

    increment: Any = None  # time from frame to frame, or from volume to volume [s]
    pixel: Any = ()  # width and height of a pixel, or one number for both [µm]
    depth: Any = None  # distance between planes [µm]
    channels: Sequence[Any] = ()  # names
    date: Any = ""  # start of the recording, in ISO 8601
    times: Sequence[float] = ()  # start of each frame [s]

    def __post_init__(self) -> None:
        pair = isinstance(self.pixel, list | tuple) and len(self.pixel) == 2
        sides = tuple(map(number, self.pixel if pair else (self.pixel, self.pixel)))
        for name, value in (
            ("increment", number(self.increment)),
            ("pixel", sides if any(sides) else ()),
            ("depth", number(self.depth)),
            ("channels", tuple(map(str, self.channels))),
            ("date", str(self.date or "")),
            ("times", tuple(round(float(moment), 6) for moment in self.times)),
        ):
            object.__setattr__(self, name, value)

    def __or__(self, other: Metadata) -> Metadata:
        """Merge, with precedence for the values of ``other``."""
        return replace(self, **{name: value for name, value in vars(other).items() if value})

    def document(self) -> Json:
        """Metadata of a one-channel movie under OME names."""
        width, height = self.pixel or (None, None)
        sizes = {"TimeIncrement": self.increment, "PhysicalSizeX": width, "PhysicalSizeY": height}
        found: Json = {}
        for name, size in (sizes | {"PhysicalSizeZ": self.depth}).items():
            if size:
                found |= {name: size, f"{name}Unit": "s" if name == "TimeIncrement" else "µm"}
        if self.date:
            found["AcquisitionDate"] = self.date
        if self.times:
            found |= {"DeltaT": list(self.times), "DeltaTUnit": "s"}
        return found | ({"Channel": {"Name": self.channels[0]}} if self.channels else {})


def kept(metadata: Json, path: str) -> Json:
    """Drop frame times if there are too many for a row; warn if irregular ones are lost."""
    times = metadata.get("DeltaT", ())
    if len(times) <= _MOST_TIMES:
        return metadata
    step = metadata.get("TimeIncrement") or (times[-1] - times[0]) / (len(times) - 1)
    if any(abs((after - before) - step) > 0.5 * step for before, after in pairwise(times)):
        warn_source(
            f"{path}: the times of its {len(times)} frames are irregular, and are not stored with movies of more than "
            f"{_MOST_TIMES} frames. Keep open_source(path).metadata['DeltaT'] in a separate column"
        )
    return {name: value for name, value in metadata.items() if not name.startswith("DeltaT")}


def number(value: Any) -> float | None:
    """A positive finite number, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def inverse(value: Any) -> float | None:
    """1 / value for a positive finite number, such as a frame rate; otherwise None."""
    rate = number(value)
    return 1 / rate if rate else None


def micrometres(value: Any, unit: Any) -> float | None:
    """A length in µm; None for an unknown unit."""
    size, scale = number(value), _MICROMETRES.get(str(unit or "µm").strip().lower())
    return size * scale if size and scale else None


def seconds(value: Any, unit: Any) -> float | None:
    """A time in s; None for an unknown unit."""
    span, scale = number(value), _SECONDS.get(str(unit or "s").strip().lower())
    return span * scale if span and scale else None
