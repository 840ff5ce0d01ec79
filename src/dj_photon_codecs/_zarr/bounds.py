"""Refuse decompression bombs: check how large a payload becomes before a codec decompresses it.

Zstd, Blosc and LZ4 headers give the size. gzip, zlib, bz2 and LZMA have no such header, so they are decompressed here,
by the standard library, and only up to the limit.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

from .._typing import Json
from ..errors import DamagedChunkError

#: Most bytes per pixel at any stage between counts and compressed bytes: the widest dtype.
_PIXEL_BYTES = 8

#: Generous allowance for checksums, and for what compressors add to incompressible data [bytes].
_MARGIN = 1 << 16

#: Step of decompression if the header does not give the size [bytes].
_STEP = 1 << 20

#: Size of a Blosc header, and so of the shortest Blosc buffer [bytes].
_BLOSC_HEADER = 16

#: Memory limit of an LZMA decompressor [bytes]: enough for the highest preset.
_LZMA_MEMORY = 1 << 27

_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = 0x184D2A50
_ZSTD_BLOCK = 1 << 17


def chunk_limit(n_pixels: int) -> int:
    """Return the most bytes at any stage of coding a chunk of ``n_pixels``."""
    return _PIXEL_BYTES * n_pixels + n_pixels // 4 + _MARGIN


def is_bounded(name: str) -> bool:
    """Whether payloads of this compressor can be bounded."""
    return name in _BOUNDED


def decompressed(name: str, configuration: Json, payload: memoryview, limit: int) -> bytes | None:
    """Decompress a payload up to the limit; None if its header declares a size within the limit.

    In that case its own codec may decompress it. Raises DamagedChunkError if the payload is truncated, or would
    decompress to more than the limit.
    """
    if name in _DECLARED:
        size = _DECLARED[name](payload)
        if size > limit:
            raise _too_large(name, len(payload), size, limit)
        return None
    content = bytearray()
    while len(payload):
        stream = _stream(name, configuration)
        while not stream.eof:
            step = min(_STEP, limit + 1 - len(content))
            plain = stream.decompress(payload, step)
            payload = memoryview(b"") if not hasattr(stream, "unconsumed_tail") else memoryview(stream.unconsumed_tail)
            content += plain
            if len(content) > limit:
                raise _too_large(name, len(payload), limit + 1, limit)
            if not plain and not len(payload) and not stream.eof:
                raise DamagedChunkError(f"a {name} stream ends before its end: it was truncated")
        payload = memoryview(stream.unused_data)
        if name == "gzip":
            payload = memoryview(bytes(payload).lstrip(b"\0"))  # gzip allows zeros between members
    return bytes(content)


def _too_large(name: str, length: int, size: int, limit: int) -> DamagedChunkError:
    return DamagedChunkError(
        f"{length} bytes of {name} would decompress to {size} bytes or more, and a chunk of this array has at most "
        f"{limit}: they were made to fill the memory, or are no chunk of it"
    )


def _stream(name: str, configuration: Json) -> Any:
    """Return a decompressor of the standard library."""
    if name == "bz2":
        return bz2.BZ2Decompressor()
    if name == "lzma":
        given = configuration.get("format", lzma.FORMAT_XZ)
        filters = configuration.get("filters") if given == lzma.FORMAT_RAW else None
        return lzma.LZMADecompressor(format=given, memlimit=None if filters else _LZMA_MEMORY, filters=filters)
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if name == "gzip" else 0))


def exact_size(name: str, payload: memoryview) -> int | None:
    """Return the exact decompressed size of a valid Zstd or Blosc payload [bytes]; None if it is not known."""
    if name == "blosc":
        return _blosc_size(payload)
    total, declared = _zstd_frames(payload)
    return total if name == "zstd" and declared else None


def _zstd_size(payload: memoryview) -> int:
    """Return an upper bound on the decompressed size of Zstd frames [bytes]."""
    return _zstd_frames(payload)[0]


def _zstd_frames(payload: memoryview) -> tuple[int, bool]:
    """Return the decompressed size of Zstd frames [bytes], and whether all frame headers declare it.

    If one does not, the size is an upper bound from its blocks. RFC 8878, sections 3.1.1 and 3.1.2. Malformed payloads
    are left to the decoder.
    """
    total, place, all_declared = 0, 0, True
    while place + 5 <= len(payload):
        magic = int.from_bytes(payload[place : place + 4], "little")
        if magic & 0xFFFFFFF0 == _ZSTD_SKIPPABLE:
            place += 8 + int.from_bytes(payload[place + 4 : place + 8], "little")
            continue
        if magic != _ZSTD_MAGIC:
            break
        descriptor = payload[place + 4]
        single = descriptor >> 5 & 1
        size_bytes = (single, 2, 4, 8)[descriptor >> 6]
        place += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        declared = int.from_bytes(payload[place : place + size_bytes], "little") + (256 if size_bytes == 2 else 0)
        place += size_bytes
        blocks, last = 0, False
        while not last and place + 3 <= len(payload):
            header = int.from_bytes(payload[place : place + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            blocks += size if kind < 2 else _ZSTD_BLOCK
            place += 3 + (1 if kind == 1 else size)
        total += declared if size_bytes else blocks
        all_declared = all_declared and bool(size_bytes)
        place += 4 * (descriptor >> 2 & 1)
    return total, all_declared


def _blosc_size(payload: memoryview) -> int:
    """Return the decompressed size of a Blosc buffer [bytes], from its 16-byte header.

    Blosc trusts the buffer length in the header, and reads past the end of a shorter buffer, so it is checked here.
    """
    size, block, length = struct.unpack_from("<4xIII", payload) if len(payload) >= _BLOSC_HEADER else (0, 0, 0)
    if not _BLOSC_HEADER <= length <= len(payload) or (size and not 0 < block <= size):
        raise DamagedChunkError(
            f"{len(payload)} bytes are no Blosc buffer: by their header they are {length}, for {size} in blocks of "
            f"{block}"
        )
    return int(size)


def _lz4_size(payload: memoryview) -> int:
    """Return the decompressed size of LZ4 data [bytes], from the 4 bytes that numcodecs puts in front."""
    if len(payload) < 4:
        raise DamagedChunkError(f"{len(payload)} bytes are no LZ4 buffer: its size alone has 4")
    return int.from_bytes(payload[:4], "little")


#: Compressors whose payloads declare or bound their decompressed size.
_DECLARED: dict[str, Callable[[memoryview], int]] = {
    "zstd": _zstd_size,
    "blosc": _blosc_size,
    "lz4": _lz4_size,
}

_BOUNDED = {*_DECLARED, "gzip", "zlib", "bz2", "lzma"}
