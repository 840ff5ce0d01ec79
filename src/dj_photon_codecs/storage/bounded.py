"""Compressors that give at most what a chunk can hold: a payload made to swell is refused before it does.

Zstd, Blosc and LZ4 say how much they will give, and are asked first. gzip, zlib, bz2 and LZMA do not: they are
decompressed here, by the standard library, up to the limit and no further.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from numcodecs.abc import Codec as Numcodec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
from zarr.abc.codec import BytesBytesCodec

from .._typing import Json
from .._zarr import ArraySpec, ArrayV2Metadata, Buffer, CodecPipeline, V2Codec, get_pipeline_class
from ..errors import DamagedChunkError

#: Bytes that a pixel may take at any stage between counts and compressed bytes: the widest dtype.
_PIXEL_BYTES = 8

#: What compressors add to what they cannot compress, and checksums to all: generously.
_MARGIN = 1 << 16

#: Decompressed in steps of so many bytes, where only the end of the stream says how many there are.
_STEP = 1 << 20

#: Bytes of the header of a Blosc buffer, which is the least that one has.
_BLOSC_HEADER = 16

#: Memory that an LZMA decompressor may take: that of the highest preset.
_LZMA_MEMORY = 1 << 27

_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = 0x184D2A50
_ZSTD_BLOCK = 1 << 17


def chunk_limit(n_pixels: int) -> int:
    """Bytes that no stage of coding a chunk of so many pixels goes beyond."""
    return _PIXEL_BYTES * n_pixels + n_pixels // 4 + _MARGIN


def bounded_pipeline(codecs: Iterable[Any], limit: int) -> CodecPipeline:
    """A pipeline of Zarr V3 codecs whose compressors give no more than ``limit`` bytes each."""
    return get_pipeline_class().from_codecs([_bounded_v3(codec, limit) for codec in codecs])


def bounded_v2_pipeline(metadata: ArrayV2Metadata, limit: int) -> CodecPipeline:
    """The pipeline of a Zarr V2 array whose compressors, also those among the filters, give no more than ``limit``."""
    filters = tuple(_bounded_v2(codec, limit) for codec in metadata.filters or ())
    codec = V2Codec(filters=filters or None, compressor=_bounded_v2(metadata.compressor, limit))
    return get_pipeline_class().from_codecs([codec])


def _bounded_v3(codec: Any, limit: int) -> Any:
    if not isinstance(codec, BytesBytesCodec):
        return codec
    document = codec.to_dict()
    name = str(document.get("name", "")).removeprefix("numcodecs.")
    configuration: Any = document.get("configuration") or {}
    return BoundedV3(codec, name, configuration, limit) if name in _BOUNDED else codec


def _bounded_v2(codec: Any, limit: int) -> Any:
    return BoundedV2(codec, limit) if getattr(codec, "codec_id", None) in _BOUNDED else codec


@dataclass(frozen=True)
class BoundedV3(BytesBytesCodec):
    """A Zarr V3 compressor that gives at most ``limit`` bytes."""

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]  # zarr declares a plain attribute

    codec: Any
    name: str
    configuration: Json
    limit: int

    def to_dict(self) -> dict[str, Any]:
        """The metadata of the compressor."""
        document: dict[str, Any] = self.codec.to_dict()
        return document

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """As the compressor has it."""
        size: int = self.codec.compute_encoded_size(input_byte_length, chunk_spec)
        return size

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        payload = memoryview(chunk_bytes.as_numpy_array().data)
        plain = await asyncio.to_thread(_decompressed, self.name, self.configuration, payload, self.limit)
        if plain is not None:
            return chunk_spec.prototype.buffer.from_bytes(plain)
        decoded: list[Buffer] = list(await self.codec.decode([(chunk_bytes, chunk_spec)]))
        return decoded[0]

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        encoded: list[Buffer] = list(await self.codec.encode([(chunk_bytes, chunk_spec)]))
        return encoded[0]


class BoundedV2(Numcodec):  # type: ignore[misc]  # numcodecs ships no types for its base class
    """A numcodecs compressor that gives at most ``limit`` bytes."""

    def __init__(self, codec: Any, limit: int) -> None:
        self.codec_id = codec.codec_id
        self._codec = codec
        self._limit = limit

    def encode(self, buf: Any) -> Any:
        """As the compressor does."""
        return self._codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """As the compressor does, or DamagedChunkError where it would give more than the limit."""
        payload = memoryview(ensure_contiguous_ndarray(buf)).cast("B")
        plain = _decompressed(self.codec_id, self._codec.get_config(), payload, self._limit)
        return self._codec.decode(buf, out) if plain is None else ndarray_copy(plain, out)

    def get_config(self) -> dict[str, Any]:
        """The configuration of the compressor."""
        configuration: dict[str, Any] = self._codec.get_config()
        return configuration


def _decompressed(name: str, configuration: Json, payload: memoryview, limit: int) -> bytes | None:
    """What a payload decompresses to, or None where its own codec may: it was asked, and gives no more than the limit.

    Raises
    ------
    DamagedChunkError
        When the payload would give more, or is cut off.
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
            payload = memoryview(bytes(payload).lstrip(b"\0"))  # the format allows zeros between its members
    return bytes(content)


def _too_large(name: str, length: int, size: int, limit: int) -> DamagedChunkError:
    return DamagedChunkError(
        f"{length} bytes of {name} would decompress to {size} bytes or more, and a chunk of this array has at most "
        f"{limit}: they were made to fill the memory, or are no chunk of it"
    )


def _stream(name: str, configuration: Json) -> Any:
    """A decompressor of the standard library."""
    if name == "bz2":
        return bz2.BZ2Decompressor()
    if name == "lzma":
        given = configuration.get("format", lzma.FORMAT_XZ)
        filters = configuration.get("filters") if given == lzma.FORMAT_RAW else None
        return lzma.LZMADecompressor(format=given, memlimit=None if filters else _LZMA_MEMORY, filters=filters)
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if name == "gzip" else 0))


def _zstd_size(payload: memoryview) -> int:
    """Bytes that Zstd frames give: as their headers say, or at most, by the number of their blocks.

    RFC 8878, sections 3.1.1 and 3.1.2. A malformed payload is left to the decoder.
    """
    total, place = 0, 0
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
        place += 4 * (descriptor >> 2 & 1)
    return total


def _blosc_size(payload: memoryview) -> int:
    """Bytes that a Blosc buffer gives, by its header of 16 bytes.

    Blosc takes the length of the buffer from there as well, and reads on beyond the end of one that is shorter.
    """
    size, block, length = struct.unpack_from("<4xIII", payload) if len(payload) >= _BLOSC_HEADER else (0, 0, 0)
    if not _BLOSC_HEADER <= length <= len(payload) or (size and not 0 < block <= size):
        raise DamagedChunkError(
            f"{len(payload)} bytes are no Blosc buffer: by their header they are {length}, for {size} in blocks of "
            f"{block}"
        )
    return int(size)


def _lz4_size(payload: memoryview) -> int:
    """Bytes that LZ4 gives, by the 4 bytes that numcodecs puts before it."""
    if len(payload) < 4:
        raise DamagedChunkError(f"{len(payload)} bytes are no LZ4 buffer: its size alone has 4")
    return int.from_bytes(payload[:4], "little")


#: Compressors that say how much they will give.
_DECLARED: dict[str, Callable[[memoryview], int]] = {
    "zstd": _zstd_size,
    "blosc": _blosc_size,
    "lz4": _lz4_size,
}

_BOUNDED = {*_DECLARED, "gzip", "zlib", "bz2", "lzma"}
