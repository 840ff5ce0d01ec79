"""Frames of a recording and their metadata, in blocks of one stored object each.

Assigning ``Block.filled`` accepts a frame. A single assignment cannot be interrupted halfway, and all frame totals are
derived from the blocks.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray, Json
from ..storage.location import Location
from ..storage.object_writer import Written

#: Metadata fields of a frame, with the values that stand for "not known".
UNKNOWN: Json = {"number": -1, "time": float("nan"), "blank": False, "replaced": None}


class Block:
    """A run of consecutive frames that are stored in one object along time.

    ``counts`` holds the frames, or None once they are no longer needed in memory, and ``facts`` their metadata, keyed
    as :data:`UNKNOWN`. ``filled`` is the number of frames accepted. The first ``kept`` of them are stored in the frame
    objects listed in ``places``. ``written`` is the result of writing the block, and None before that. ``since`` is
    the arrival of the first frame that is not stored anywhere (``time.monotonic``), ``latest`` that of the last frame.
    """

    def __init__(self, index: int, counts: AnyArray, since: float) -> None:
        self.index, self.since, self.latest = index, since, since
        self.stride = len(counts)
        self.counts: AnyArray | None = counts
        self.facts: list[Json] = [{}] * self.stride
        self.filled = self.kept = 0
        self.places: list[tuple[Location, str]] = []
        self.written: Written | None = None

    @property
    def first_frame(self) -> int:
        """Index of its first frame in the recording."""
        return self.index * self.stride

    @property
    def is_full(self) -> bool:
        """True if it has no room for another frame."""
        return self.filled == self.stride


def info_of(facts: Sequence[Json]) -> Json:
    """Return frame metadata as one list per field, without fields that no frame has."""
    names = [name for name in UNKNOWN if any(name in known for known in facts)]
    return {name: [known.get(name, UNKNOWN[name]) for known in facts] for name in names}


def facts_of(info: Json, place: int) -> Json:
    """Return the metadata of one frame from the lists of :func:`info_of`."""
    found = {name: values[place] for name, values in info.items() if name in UNKNOWN}
    return {name: value for name, value in found.items() if value == value and value != UNKNOWN[name]}  # NaN: unknown


class Frames:
    """Array-like view of the frames of several blocks that does not copy them all."""

    def __init__(self, blocks: Iterable[Block], start: int = 0) -> None:
        counts = [block.counts[: block.filled] for block in blocks if block.counts is not None]
        self._parts: Sequence[AnyArray] = counts
        self._start = start
        self.dtype: np.dtype[Any] = counts[0].dtype
        self.shape = (sum(map(len, counts)) - start, *counts[0].shape[1:])

    def __getitem__(self, frames: slice) -> AnyArray:
        start, stop, _ = frames.indices(self.shape[0])
        offset, found = -self._start, []
        for part in self._parts:
            found.append(part[max(0, start - offset) : max(0, stop - offset)])
            offset += len(part)
        found = [part for part in found if len(part)] or [self._parts[0][:0]]
        return found[0] if len(found) == 1 else np.concatenate(found)


def without_uncodable(frame: AnyArray, limits: tuple[float, float] | None, masked: Any) -> tuple[AnyArray, Json | None]:
    """Return a frame without values that cannot be stored, and the replaced values, or None if there are none.

    Pixels beyond the limits become the nearest limit, and NaN becomes the highest. The second result has the mask of
    these pixels and their original values. It also covers pixels masked by the user, which stay as they are if they
    can be stored.
    """
    bad = np.zeros(frame.shape, bool)
    if limits is not None:
        low, high = limits
        bad = ~((frame >= low) & (frame <= high))  # also true for NaN
    mask = bad if masked is None else bad | masked
    if not mask.any():
        return frame, None
    originals = frame[mask]
    if bad.any():
        frame = frame.copy()
        frame[bad] = np.clip(np.nan_to_num(frame[bad], nan=high, posinf=high, neginf=low), low, high)
    return frame, {"mask": _packed(np.packbits(mask)), "values": _packed(originals), "out_of_range": int(bad.sum())}


def _packed(array: AnyArray) -> str:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(zlib.compress(little.tobytes())).decode("ascii")


def unpacked(text: str, dtype: np.dtype[Any]) -> AnyArray:
    """Decode an array that was packed into frame metadata."""
    content = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)
