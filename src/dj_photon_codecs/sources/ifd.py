"""Fast reader for single-page TIFF files; tifffile is slow at opening 1,500 files of one frame."""

from __future__ import annotations

import math
import os
import struct
from typing import Any

import numpy as np

from .._typing import AnyArray
from .stack import DamagedFile, Index, Stack

_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_OFFSETS, _SAMPLES, _COUNTS, _PREDICTOR, _TILES, _FORMAT = 273, 277, 279, 317, 322, 339
_KNOWN = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _COUNTS, _PREDICTOR, _FORMAT}
_ORDERS = {b"II": "<", b"MM": ">"}
_TYPES = {3: "H", 4: "I", 16: "Q"}
_HEAD = 4096  # bytes read first; they contain the header and tags of most files


def single_page(name: str) -> Stack | None:
    """Open a file as one frame; None if it has more pages, or its counts are not contiguous and uncompressed."""
    with open(name, "rb", buffering=0) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)

        def at(offset: int, form: str) -> tuple[Any, ...]:
            if offset + struct.calcsize(form) <= len(head):
                return struct.unpack_from(form, head, offset)
            file.seek(offset)
            return struct.unpack(form, file.read(struct.calcsize(form)))

        try:
            order = _ORDERS[head[:2]]
            big = at(2, f"{order}H") == (43,)
            first, pointer, counter = (8, "Q", "Q") if big else (4, "I", "H")
            entry = struct.Struct(f"{order}HH{pointer}{first}s")  # tag, type, number of values, values or their place
            [offset] = at(first, order + pointer)
            [count] = at(offset, order + counter)
            if count > 500:
                return None
            entries, following = at(offset + struct.calcsize(order + counter), f"{order}{count * entry.size}s{pointer}")
            if following:  # another page
                return None
            tags: dict[int, tuple[int, ...]] = {}
            for tag, kind, number, value in entry.iter_unpack(entries):
                if tag == _TILES:
                    return None
                if tag in _KNOWN and kind in _TYPES and number <= size:
                    form = f"{order}{number}{_TYPES[kind]}"
                    inline = struct.calcsize(form) <= len(value)
                    [place] = struct.unpack(order + pointer, value)
                    tags[tag] = struct.unpack_from(form, value) if inline else at(place, form)
            return _frame(name, tags, order, size)
        except (KeyError, struct.error):  # tifffile reports what is wrong
            return None


def _frame(name: str, tags: dict[int, tuple[int, ...]], order: str, size: int) -> Stack | None:
    """Build the frame from its tags; None if it does not hold plain counts."""
    [bits], [form] = tags[_BITS][:1], tags.get(_FORMAT, (1,))[:1]
    plain = tags.get(_COMPRESSION, (1,)) == (1,) == tags.get(_SAMPLES, (1,)) and tags.get(_PREDICTOR, (1,)) == (1,)
    if not plain or bits not in (8, 16, 32) or form not in (1, 2, 3) or (form == 3 and bits != 32):
        return None
    dtype = np.dtype(f"{order}{'uif'[form - 1]}{bits // 8}")
    offsets, lengths, shape = tags[_OFFSETS], tags[_COUNTS], (1, tags[_HEIGHT][0], tags[_WIDTH][0])
    beside = all(o + n == following for o, n, following in zip(offsets, lengths, offsets[1:], strict=False))
    pixels, end = math.prod(shape), offsets[0] + sum(lengths)
    if not beside or sum(lengths) != pixels * dtype.itemsize:
        return None
    if end > size:
        raise DamagedFile(f"{name} is truncated: its frame would end at byte {end} of {size}")

    def read(index: Index) -> AnyArray:
        counts = np.fromfile(name, dtype, pixels, offset=offsets[0])
        if counts.size < pixels:
            raise DamagedFile(f"{name} is truncated: it became shorter after it was opened")
        return counts.reshape(shape)[index]

    return Stack(name, "TYX", shape, dtype, read)
