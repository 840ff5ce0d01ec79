"""Encode and decode chunks and shard indices, codec by codec.

zarr's own pipelines read and write whole shards through a store. Here the codecs in the metadata code one chunk at a
time, in memory, so that every chunk can be checked and no payload can fill the memory. The codec pipeline in
``zarr.config`` has no effect here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from google_crc32c import value as crc32c
from numcodecs import Zstd, blosc, zstd
from numcodecs.compat import ensure_bytes, ensure_ndarray
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from .._typing import AnyArray, Box
from .bounds import chunk_limit, decompressed, exact_size, is_bounded
from .layout import all_codecs, chunk_shape, shard_shape, sharding
from .names import (
    ArrayMetadata,
    ArraySpec,
    ArrayV2Metadata,
    BytesCodec,
    array_spec,
    submit,
    zarr_dtype,
)

#: Marks a chunk in a shard's index as not written.
EMPTY = np.iinfo(np.uint64).max

#: Most bytes before a shard's first chunk: the head of an acquired block.
HEAD_LIMIT = 1 << 22


#: Allocates an array (size, dtype) for a codec to encode into; it is in use until the chunk is encoded.
EncodingRoom = Callable[[int, npt.DTypeLike], AnyArray]

#: Allocates an array (number of the codec in its chain, size, dtype) for a codec to decode into.
Room = Callable[[int, int, npt.DTypeLike], AnyArray]


def new_room(number: int, size: int, dtype: npt.DTypeLike) -> AnyArray:
    """Allocate a new array."""
    return np.empty(size, dtype)


class CodecChain:
    """The codecs of a Zarr V3 chunk, in the order of the metadata.

    ``limit`` is the most bytes that a compressor may produce when decoding. Raises ValueError if the codecs do not lead
    from an array to bytes.
    """

    def __init__(self, codecs: Iterable[Any], spec: ArraySpec, limit: int) -> None:
        self.spec = spec
        self._limit = limit
        self.steps: list[_Step] = []
        expected: type = ArrayArrayCodec
        for given in codecs:
            codec = _with_byte_order(given, spec).evolve_from_array_spec(spec)
            if expected is ArrayArrayCodec and isinstance(codec, ArrayBytesCodec):
                expected = BytesBytesCodec
            elif not isinstance(codec, expected):
                raise ValueError(f"{type(codec).__name__} cannot stand after the codecs before it")
            self.steps.append(_Step.of(codec, spec))
            spec = codec.resolve_metadata(spec)
        if expected is ArrayArrayCodec:
            raise ValueError("none of the codecs makes bytes of the array")

    def encode(self, array: AnyArray, room: EncodingRoom = np.empty) -> bytes:
        """Encode an array with the shape of ``spec``. Do not call on zarr's event loop: some codecs wait for it."""
        value: Any = array
        for step in self.steps:
            value = step.encode(value, room)
        return value if isinstance(value, bytes) else memoryview(value).tobytes()

    def decode(
        self,
        payload: AnyArray,
        *,
        first: int = 0,
        room: Room = new_room,
        threads: int = 1,
        box: Box | None = None,
    ) -> AnyArray:
        """Decode a payload (uint8). Do not call on zarr's event loop: all but the common codecs wait for it.

        Decoding stops after undoing codec number ``first``; the codecs before it stay applied. ``threads`` is the most
        threads that one chunk may use. With a ``box``, everything outside it may be zeros; only for chains that
        :meth:`decodes_boxes`. Raises DamagedChunkError if a compressor would produce more than the limit; codecs raise
        errors of any type.
        """
        value = payload
        for number in range(len(self.steps) - 1, first - 1, -1):
            wanted = box if number == first else None
            value = self.steps[number].decode(value, self._limit, partial(room, number), threads, wanted)
        return value

    def decodes_boxes(self, first: int = 0) -> bool:
        """Whether :meth:`decode` down to codec number ``first`` decodes a box in less time than everything."""
        return first < len(self.steps) and getattr(self.steps[first].codec, "decodes_boxes", False)

    def encoded_size(self, n_bytes: int) -> int:
        """Return the encoded size of ``n_bytes``; only for codecs with a fixed output size."""
        for step in self.steps:
            n_bytes = step.codec.compute_encoded_size(n_bytes, step.spec)
        return n_bytes


@dataclass(frozen=True)
class _Step:
    """A codec, the spec of its input array, and the name and configuration for bounding its payloads."""

    codec: Any
    spec: ArraySpec
    bounded: tuple[str, dict[str, Any]] | None

    @classmethod
    def of(cls, codec: Any, spec: ArraySpec) -> _Step:
        bounded = None
        if isinstance(codec, BytesBytesCodec):
            document = codec.to_dict()
            name = str(document.get("name", "")).removeprefix("numcodecs.")
            configuration: Any = document.get("configuration") or {}
            bounded = (name, configuration) if is_bounded(name) else None
        return cls(codec, spec, bounded)

    def encode(self, value: Any, room: EncodingRoom) -> Any:
        """Apply the codec, in this thread for the common codecs, on zarr's event loop for all others."""
        codec, prototype = self.codec, self.spec.prototype
        if hasattr(codec, "encode_now"):
            return codec.encode_now(value, room)
        if type(codec) is Crc32cCodec:
            return b"".join((value, crc32c(value).to_bytes(4, "little")))
        if type(codec) is ZstdCodec:
            return Zstd(codec.level, codec.checksum).encode(value)
        native = self.spec.dtype.to_native_dtype()
        if type(codec) is BytesCodec and native.kind in "biuf":
            order = getattr(codec.endian, "value", codec.endian)
            stored = np.ascontiguousarray(value, native.newbyteorder(">" if order == "big" else "<"))
            return stored.reshape(-1).view(np.uint8)
        if isinstance(codec, BytesBytesCodec):
            given: Any = prototype.buffer.from_array_like(np.frombuffer(value, np.uint8))
        else:
            given = prototype.nd_buffer.from_numpy_array(value)
        [found] = submit(codec.encode([(given, self.spec)])).result()
        return found.as_numpy_array()

    def decode(
        self,
        value: AnyArray,
        limit: int,
        room: Callable[[int, npt.DTypeLike], AnyArray],
        threads: int,
        box: Box | None = None,
    ) -> AnyArray:
        """Undo the codec, in this thread for the common codecs, on zarr's event loop for all others."""
        if self.bounded is not None:
            plain = decompressed(*self.bounded, value.data, limit)
            if plain is not None:
                return np.frombuffer(plain, np.uint8)
        if type(self.codec) in _DECOMPRESSORS:
            size = exact_size(self.bounded[0], value.data) if self.bounded else None
            into = None if size is None else room(size, np.uint8)
            found = _DECOMPRESSORS[type(self.codec)](value, into)
            return np.frombuffer(found, np.uint8) if into is None else into
        if type(self.codec) is Crc32cCodec:
            return _checked(value)
        if type(self.codec) is BytesCodec and self.spec.dtype.to_native_dtype().kind in "biuf":
            order = getattr(self.codec.endian, "value", self.codec.endian)
            stored = self.spec.dtype.to_native_dtype().newbyteorder(">" if order == "big" else "<")
            elements: AnyArray = value.view(stored).reshape(self.spec.shape)
            return elements.astype(stored.newbyteorder("="), copy=False)
        if hasattr(self.codec, "decode_now"):
            decoded: AnyArray = self.codec.decode_now(value, self.spec, room, threads, box)
            return decoded
        prototype = self.spec.prototype
        given: Any = (
            prototype.nd_buffer.from_numpy_array(value)
            if isinstance(self.codec, ArrayArrayCodec)
            else prototype.buffer.from_array_like(value)
        )
        [answer] = submit(self.codec.decode([(given, self.spec)])).result()
        array: AnyArray = answer.as_numpy_array()
        return array


#: Decompressors that release the GIL. They take a payload, and optionally an array of exactly the output size.
_DECOMPRESSORS: dict[type, Callable[[AnyArray, AnyArray | None], Any]] = {
    ZstdCodec: zstd.decompress,
    BloscCodec: blosc.decompress,
}


def _checked(value: AnyArray) -> AnyArray:
    """Check the crc32c at the end of ``value``, and return the bytes before it."""
    if value.size < 4:
        raise ValueError(f"{value.size} bytes, of which the checksum alone has 4")
    content, stored = value[:-4], int.from_bytes(value[-4:].tobytes(), "little")
    computed = crc32c(content)
    if computed != stored:
        raise ValueError(f"stored and computed checksum do not match: {stored:08x} and {computed:08x}")
    return content


def _with_byte_order(codec: Any, spec: ArraySpec) -> Any:
    """Make a ``bytes`` codec without a byte order little-endian if its elements have several bytes.

    zarr before 3.3 dropped the byte order for 8-bit arrays with 16-bit codes; those were written on such machines.
    """
    if isinstance(codec, BytesCodec) and codec.endian is None and spec.dtype.to_native_dtype().itemsize > 1:
        return BytesCodec(endian="little")
    return codec


class V2Chain:
    """The filters and the compressor of a Zarr V2 chunk; ``limit`` as for :class:`CodecChain`."""

    def __init__(self, metadata: ArrayV2Metadata, spec: ArraySpec, limit: int) -> None:
        self.spec = spec
        self._codecs = all_codecs(metadata)
        self._order: Any = metadata.order
        self._limit = limit

    def encode(self, array: AnyArray, room: EncodingRoom = np.empty) -> bytes:
        """Encode an array with the shape of ``spec``."""
        value: Any = array.astype(self.spec.dtype.to_native_dtype(), order=self._order, copy=False)
        for codec in self._codecs:
            value = codec.encode(value)
        content: bytes = ensure_bytes(value)
        return content

    def decodes_boxes(self, first: int = 0) -> bool:
        """Return False: these codecs decode everything."""
        return False

    def decode(
        self,
        payload: AnyArray,
        *,
        first: int = 0,
        room: Room = new_room,
        threads: int = 1,
        box: Box | None = None,
    ) -> AnyArray:
        """Decode a payload like :meth:`CodecChain.decode`, always all of it in this thread."""
        value: Any = payload
        for codec in reversed(self._codecs):
            plain = None
            if is_bounded(codec.codec_id):
                view = memoryview(ensure_ndarray(value)).cast("B")
                plain = decompressed(codec.codec_id, codec.get_config(), view, self._limit)
            value = codec.decode(value) if plain is None else plain
        # flatten in memory order, which is the order of the bytes
        elements: AnyArray = ensure_ndarray(value).view(self.spec.dtype.to_native_dtype()).reshape(-1, order="A")
        return elements.reshape(self.spec.shape, order=self._order)


@dataclass(frozen=True)
class ShardIndex:
    """The index of a shard: its codecs, whether it comes first in the shard or last, and its encoded size [bytes]."""

    chain: CodecChain
    at_start: bool
    n_bytes: int

    @classmethod
    def of(cls, codec: Any, per_shard: tuple[int, ...]) -> ShardIndex:
        """Return the index of shards with ``per_shard`` chunks along each axis."""
        spec = array_spec((*per_shard, 2), zarr_dtype(np.dtype(np.uint64)), EMPTY)
        n_bytes = 8 * math.prod(spec.shape)
        chain = CodecChain(codec.index_codecs, spec, n_bytes)
        place = getattr(codec.index_location, "value", codec.index_location)
        return cls(chain, place == "start", chain.encoded_size(n_bytes))


@dataclass(frozen=True)
class ObjectFormat:
    """The format of an object in the store: a shard of chunks and an index, or a single chunk.

    Attributes
    ----------
    shape
        Shape of an object's content.
    coder
        The codecs of its chunks.
    limit
        Most bytes at any stage of coding a chunk.
    index
        The shard's index; None if an object is a single chunk.
    """

    shape: tuple[int, ...]
    coder: CodecChain | V2Chain
    limit: int
    index: ShardIndex | None

    @classmethod
    def of(cls, metadata: ArrayMetadata) -> ObjectFormat:
        """Return the object format of an array.

        Raises TypeError, ValueError or NotImplementedError, depending on the codec, if its codecs do not fit together.
        """
        shape, chunk = shard_shape(metadata), chunk_shape(metadata)
        limit = chunk_limit(math.prod(chunk))
        order = metadata.order if isinstance(metadata, ArrayV2Metadata) else "C"
        spec = array_spec(chunk, metadata.dtype, metadata.fill_value, order)
        if isinstance(metadata, ArrayV2Metadata):
            return cls(shape, V2Chain(metadata, spec, limit), limit, None)
        coder = CodecChain(all_codecs(metadata), spec, limit)
        codec = sharding(metadata)
        if codec is None:
            return cls(shape, coder, limit, None)
        return cls(shape, coder, limit, ShardIndex.of(codec, tuple(s // c for s, c in zip(shape, chunk, strict=True))))

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self.coder.spec.shape

    @property
    def object_limit(self) -> int:
        """Largest possible size of an object [bytes]."""
        if self.index is None:
            return self.limit
        return HEAD_LIMIT + math.prod(self.index.chain.spec.shape[:-1]) * self.limit + self.index.n_bytes
