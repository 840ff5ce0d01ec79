"""Payload layout: header, blank frames, directory of the bands, tables, and the streams of the bands.

All fields are little-endian and aligned to 4 bytes; ``docs/spec/rans.md`` lists them with their ranges. Payloads are
untrusted: every number is checked against the remaining bytes before any allocation.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ..errors import DamagedChunkError
from .model import FRACTION_BITS, LANES, MAX_CONTEXTS, MAX_TABLES, MAX_TOP, STATE_LOW, Model

#: First byte of a payload: uncompressed or coded.
PLAIN = 0
CODED = 1

#: Header of an uncompressed payload.
PLAIN_HEADER = bytes([PLAIN, 0, 0, 0])

_HEADER = struct.Struct("<6B3Hi3I")


class Payload(NamedTuple):
    """The fields of a coded payload, except the streams."""

    model: Model
    blank_frames: npt.NDArray[np.int64]  # indices of constant frames, which are not modelled
    blank_codes: npt.NDArray[np.uint16]  # the bits of their codes
    band_rows: int  # the last band may have fewer rows
    n_tables: int
    packed: npt.NDArray[np.uint8]  # the packed frequency tables
    directory: npt.NDArray[np.uint32]  # shape (bands, 34): number of words, number of escapes, initial decoder states
    places: npt.NDArray[np.int64]  # start of the streams of each band, in 16-bit words from the start of the payload

    def head(self) -> bytes:
        """Return everything that precedes the streams."""
        model = self.model
        fixed = _HEADER.pack(
            CODED, model.dithered, model.low_bits, model.context_shift, model.blend, model.window, self.n_tables,
            model.start, model.top, model.base, self.band_rows, self.blank_frames.size, self.packed.size,
        )  # fmt: skip
        arrays = (self.blank_frames, "<u4"), (self.blank_codes, "<u2"), (self.directory, "<u4"), (self.packed, "u1")
        parts = [array.astype(dtype, copy=False) for array, dtype in arrays]
        return fixed + b"".join(part.tobytes() + bytes(-part.nbytes % 4) for part in parts)

    @classmethod
    def parse(cls, payload: AnyArray, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Payload:
        """Parse and check a coded payload of a chunk with shape (time, rows, columns).

        Raises DamagedChunkError if a number is out of range, or if the payload is too short or too long.
        """
        if payload.size < _HEADER.size:
            raise DamagedChunkError(f"the payload ends within its header: {payload.size} of {_HEADER.size} bytes")
        _, dithered, low_bits, context_shift, blend, window, n_tables, *rest = _HEADER.unpack_from(payload.data)
        start, top, base, band_rows, n_blank, n_packed = rest
        if dithered > 1:
            raise DamagedChunkError(f"dithered is {dithered}: expected 0 or 1")
        model = Model(low_bits, blend, window, context_shift, start, top, base, bool(dithered))
        _check_model(model, dtype)
        frames, rows, columns = shape
        if not 1 <= band_rows <= rows:
            raise DamagedChunkError(f"bands of {band_rows} rows: expected 1 to {rows}")
        modelled = frames - n_blank
        n_bands = -(-rows // band_rows) if modelled else 0
        at = _HEADER.size
        found: list[AnyArray] = []
        for what, count, kind in (
            ("blank frames", n_blank, "<u4"),
            ("codes of blank frames", n_blank, "<u2"),
            ("directory", n_bands * (2 + LANES), "<u4"),
            ("tables", n_packed, "u1"),
        ):
            size = count * np.dtype(kind).itemsize
            if size + -size % 4 > payload.size - at:
                raise DamagedChunkError(
                    f"the payload ends within its {what}: {size} bytes promised, {payload.size - at} left"
                )
            found.append(np.frombuffer(payload, kind, count, at))
            at += size + -size % 4
        blank, codes, directory, packed = found
        if n_blank and (int(blank[-1]) >= frames or not (blank[1:] > blank[:-1]).all()):
            raise DamagedChunkError(f"the blank frames are not a rising list of frames below {frames}")
        if n_blank and int(codes.max()) > np.iinfo(f"u{dtype.itemsize}").max:
            raise DamagedChunkError(f"the code of a blank frame has more than {8 * dtype.itemsize} bits")
        if not (1 <= n_tables <= MAX_TABLES if modelled else n_tables == n_packed == 0):
            raise DamagedChunkError(
                f"{n_tables} tables in {n_packed} bytes for {modelled} frames: expected 1 to {MAX_TABLES}, or 0 for 0"
            )
        directory = directory.astype(np.uint32, copy=False).reshape(n_bands, 2 + LANES)
        pixels = np.full(n_bands, modelled * band_rows * columns)
        pixels[-1:] -= modelled * (n_bands * band_rows - rows) * columns
        _check_directory(directory, pixels)
        sizes = [directory[:, 0].astype(np.int64), directory[:, 1].astype(np.int64), (pixels * low_bits + 15) // 16]
        ends = at // 2 + np.cumsum(sum((size + 1) // 2 * 2 for size in sizes))
        end = 2 * int(ends[-1]) if n_bands else at
        if end > payload.size:
            raise DamagedChunkError(f"the payload ends within its streams: {end} bytes promised, {payload.size} there")
        if end < payload.size:
            raise DamagedChunkError(f"{payload.size - end} bytes follow the end of the payload")
        places = np.append(at // 2, ends)[:n_bands].astype(np.int64)
        return cls(
            model, blank.astype(np.int64), codes.astype(np.uint16), band_rows, n_tables, packed, directory, places
        )


def _check_model(model: Model, dtype: np.dtype[Any]) -> None:
    """Raise DamagedChunkError if a model parameter is out of range."""
    limits = np.iinfo(dtype)
    if model.low_bits >= limits.bits:
        raise DamagedChunkError(f"{model.low_bits} low bits of codes of {limits.bits} bits")
    if model.dithered and model.low_bits:
        raise DamagedChunkError(f"{model.low_bits} low bits of dithered codes, which have none")
    if model.window < 1:
        raise DamagedChunkError("a window of 0 frames")
    if model.top > MAX_TOP or model.start > model.top:
        raise DamagedChunkError(f"top level {model.top} (at most {MAX_TOP}), first level {model.start}")
    if model.context_shift > FRACTION_BITS + 12 or model.contexts > MAX_CONTEXTS:
        raise DamagedChunkError(f"context shift {model.context_shift} for top level {model.top}")
    if not limits.min <= model.base <= limits.max:
        raise DamagedChunkError(f"base {model.base} is no {dtype}")


def _check_directory(directory: npt.NDArray[np.uint32], pixels: npt.NDArray[np.int64]) -> None:
    """Raise DamagedChunkError if a number of words, a number of escapes or a state is out of range."""
    for name, column in (("words", directory[:, 0]), ("escapes", directory[:, 1])):
        wrong = np.flatnonzero(column > pixels)
        if wrong.size:
            band = wrong[0]
            raise DamagedChunkError(f"{column[band]} {name} for the {pixels[band]} pixels of band {band}")
    if directory.size and int(directory[:, 2:].min()) < STATE_LOW:
        raise DamagedChunkError(f"a state of {directory[:, 2:].min()}: expected {STATE_LOW} or more")
