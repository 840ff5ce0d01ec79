"""Encode arrays of codes to payloads, and decode them."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._threads import do_all, rooms
from .._typing import AnyArray, Box
from ..errors import ConfigurationError, DamagedChunkError
from .model import SCALE, offset_pattern, rows_of_band
from .payload import CODED, PLAIN, PLAIN_HEADER, Payload

#: Allocates an uninitialised array of a size and dtype, like ``np.empty``.
Room = Callable[[int, npt.DTypeLike], AnyArray]

#: Supported dtypes.
DTYPES = ("uint8", "int8", "uint16", "int16")


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise ConfigurationError unless the dtype is an 8-bit or 16-bit integer."""
    if dtype.name not in DTYPES:
        raise ConfigurationError(
            f"the entropy coder takes codes of {', '.join(DTYPES)}, got {dtype}: use the default compressor"
        )


def encode(codes: AnyArray) -> bytes:
    """Encode an array of 8-bit or 16-bit integers, shape (time, ..., height, width) or any other rank.

    The payload is at most four bytes longer than the array. Raises ConfigurationError for other dtypes.
    """
    check_dtype(codes.dtype)
    if codes.size:
        payload = _encode(np.ascontiguousarray(codes, codes.dtype.newbyteorder("=")).reshape(_cube(codes.shape)))
        if len(payload) <= codes.nbytes:
            return payload
    return PLAIN_HEADER + codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(
    payload: bytes | AnyArray,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    room: Room = np.empty,
    threads: int = 1,
    box: Box | None = None,
) -> AnyArray:
    """Decode a payload to a writable, C-contiguous array in native byte order.

    ``room`` allocates the output array. Up to ``threads`` threads decode bands in parallel. With a ``box``, the codes
    outside it may be zeros, and alterations there may go unnoticed.

    Raises DamagedChunkError if the payload is truncated or detectably altered, and ConfigurationError if the dtype is
    not supported. Some alterations decode to other codes without an error; checksums catch those.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    check_dtype(dtype)
    content = np.frombuffer(payload, np.uint8)
    if not content.size:
        raise DamagedChunkError("the payload is empty")
    if content[0] == PLAIN:
        expected = len(PLAIN_HEADER) + math.prod(shape) * dtype.itemsize
        if content.size != expected:
            raise DamagedChunkError(f"the payload has {content.size} bytes, its shape {shape} asks for {expected}")
        plain = np.frombuffer(content, dtype.newbyteorder("<"), offset=len(PLAIN_HEADER))
        return plain.astype(dtype).reshape(shape)
    if content[0] != CODED:
        raise DamagedChunkError(
            f"the payload begins with {content[0]}: expected {PLAIN} or {CODED}; "
            "either it was altered, or a later release of dj_photon_codecs wrote it"
        )
    if not math.prod(shape):
        raise DamagedChunkError(f"a coded payload for the shape {shape}, which has no pixels")
    coded = Payload.parse(content, _cube(shape), dtype)
    codes = (room if box is None else np.zeros)(math.prod(shape), dtype).reshape(_cube(shape))
    _decode(coded, content, codes, threads, box or Box(len(codes), 0, codes.shape[1]))
    return codes.reshape(shape)


def _cube(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the (time, rows, columns) shape that an array of any rank is coded with."""
    if len(shape) < 2:
        return math.prod(shape), 1, 1
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def _unsigned(codes: AnyArray) -> AnyArray:
    """View codes as unsigned integers, so that one compiled loop serves all dtypes of a width."""
    return codes.view(f"u{codes.itemsize}")


def _encode(codes: AnyArray) -> bytes:
    from . import encoder

    unsigned, sign = _unsigned(codes), 1 << (8 * codes.itemsize - 1) if codes.dtype.kind == "i" else 0
    band_rows, columns = rows_of_band(codes.shape[1]), codes.shape[2]
    words, symbols = rooms.take("words", codes.size, np.uint16), rooms.take("symbols", codes.size, np.uint8)
    model, blank, n_tables, packed, directory, spans, streams = encoder.encode_chunk(
        unsigned, int(np.iinfo(unsigned.dtype).max), sign, band_rows, offset_pattern(False, columns),
        offset_pattern(True, columns), words, symbols,
    )  # fmt: skip
    numbers = np.flatnonzero(blank)
    blank_codes = unsigned[numbers, 0, 0].astype(np.uint16)
    coded = Payload(model, numbers, blank_codes, band_rows, n_tables, packed, directory, np.empty(0, np.int64))
    parts, at = [coded.head()], 0
    for begin, end, stop in spans.tolist():
        parts += [_le(words[begin:end]), bytes(2 * ((end - begin) % 2)), _le(streams[at:stop])]
        at = stop
    return b"".join(parts)


def _le(stream: npt.NDArray[np.uint16]) -> Any:
    return stream.astype("<u2", copy=False).data


def _decode(coded: Payload, content: AnyArray, codes: AnyArray, threads: int, box: Box) -> None:
    """Decode the bands and frames of a box into ``codes``, shape (time, rows, columns)."""
    from . import decoder, tables

    words = rooms.take("payload", (content.size + 1) // 2 + decoder.PADDING, np.uint16)
    words[-decoder.PADDING - 1 :] = 0
    words.view(np.uint8)[: content.size] = content
    if sys.byteorder == "big":
        words.byteswap(inplace=True)
    unsigned = _unsigned(codes)
    unsigned[coded.blank_frames] = coded.blank_codes.astype(unsigned.dtype)[:, None, None]
    frames, columns = np.delete(np.arange(len(codes)), coded.blank_frames), codes.shape[2]
    n_frames = int(np.searchsorted(frames, box.frames))

    def decode_bands(bands: npt.NDArray[np.int64]) -> None:
        slots = rooms.take("slots", coded.n_tables * SCALE, np.uint32)
        pattern = offset_pattern(coded.model.dithered, columns)
        problem, where = decoder.decode_chunk(words, coded, slots, bands, frames, n_frames, pattern, unsigned)
        if problem:
            raise DamagedChunkError(tables.PROBLEMS[problem].format(where))

    if n_frames:
        bands = np.arange(box.first_row // coded.band_rows, -(-box.last_row // coded.band_rows))
        do_all(deque(partial(decode_bands, part) for part in np.array_split(bands, min(threads, bands.size))), threads)
