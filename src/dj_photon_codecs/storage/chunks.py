"""Reading the chunks of a stored array, one by one, each checked and each named when it fails.

zarr reads a chunk that is not there as fill value, and calls one that is altered an unnamed ValueError.
Here a missing chunk raises :class:`~dj_photon_codecs.errors.MissingChunkError` and a damaged one
:class:`~dj_photon_codecs.errors.DamagedChunkError`, both with the object's key and the frames that are affected.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from zarr.abc.store import Store

from .._lazy import cached_property
from .._typing import AnyArray
from .._zarr import (
    ArrayConfig,
    ArrayMetadata,
    ArraySpec,
    ArrayV3Metadata,
    Buffer,
    RangeByteRequest,
    ShardingCodec,
    SuffixByteRequest,
    default_buffer_prototype,
    get_pipeline_class,
    zarr_dtype,
)
from ..errors import DamagedChunkError, FormatError, MissingChunkError, PhotonCodecError
from .bounded import bounded_pipeline, bounded_v2_pipeline, chunk_limit
from .checksums import CHECKSUM_BYTES, Checksums, checksum_of, unpack_checksums
from .flights import SharedTasks
from .grid import ChunkGrid, Coords
from .location import ProcessStore

#: In a shard's index: this chunk was not written.
_EMPTY = np.iinfo(np.uint64).max

#: Objects of at most so many bytes are asked for by their size, so that a larger one is not taken into memory.
_LARGEST_REQUEST = 1 << 28


class ChunkReader:
    """Fetches and decodes inner chunks.

    Parameters
    ----------
    metadata
        Of the array.
    store
        Where its objects are.
    checksums
        What each chunk has to end in, packed as the record has them; None where it was not recorded.

    Raises
    ------
    FormatError
        When the codecs in the metadata cannot be put together.
    """

    def __init__(self, metadata: ArrayMetadata, store: ProcessStore, checksums: str | None = None) -> None:
        self.metadata = metadata
        self.store = store
        self._packed = checksums
        self._index_requests = SharedTasks[AnyArray]()
        self._object_requests = SharedTasks[Buffer]()
        #: Objects that are wanted whole: their content once it is there.
        self._held: dict[Coords, Buffer | None] = {}
        self.readings = 0
        self._indices: dict[Coords, AnyArray] = {}
        try:
            self._arrange(metadata)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise FormatError(
                f"the codecs in the metadata of {store.location.label} do not fit together "
                f"({type(error).__name__}: {error}): it was altered or made up"
            ) from error

    def _arrange(self, metadata: ArrayMetadata) -> None:
        """Grid, limits and pipelines; zarr raises what it likes for codecs in an impossible order."""
        config = ArrayConfig.from_dict({"write_empty_chunks": True})
        prototype = default_buffer_prototype()
        outer = metadata.get_chunk_spec((0,) * len(metadata.shape), config, prototype)
        codec = metadata.codecs[0] if isinstance(metadata, ArrayV3Metadata) else None
        self._sharding = codec if isinstance(codec, ShardingCodec) and len(metadata.codecs) == 1 else None  # type: ignore[union-attr]
        if self._sharding is None:
            self.grid = ChunkGrid(metadata.shape, outer.shape, outer.shape)
            self.spec: ArraySpec = outer
            self.limit = chunk_limit(math.prod(outer.shape))
            if isinstance(metadata, ArrayV3Metadata):
                self.pipeline = bounded_pipeline(metadata.codecs, self.limit)
            else:
                self.pipeline = bounded_v2_pipeline(metadata, self.limit)
            self._object_limit = self.limit
        else:
            self.grid = ChunkGrid(metadata.shape, self._sharding.chunk_shape, outer.shape)
            self.spec = replace(outer, shape=self._sharding.chunk_shape)
            self.limit = chunk_limit(math.prod(self.spec.shape))
            self.pipeline = bounded_pipeline(self._sharding.codecs, self.limit)
            self._index_pipeline = get_pipeline_class().from_codecs(self._sharding.index_codecs)
            self.index_spec = ArraySpec(
                shape=(*self.grid.per_object, 2),
                dtype=zarr_dtype(np.dtype(np.uint64)),
                fill_value=_EMPTY,
                config=config,
                prototype=prototype,
            )
            entries = math.prod(self.index_spec.shape)
            self._index_size = self._index_pipeline.compute_encoded_size(8 * entries, self.index_spec)
            self._object_limit = math.prod(self.grid.per_object) * self.limit + self._index_size

    @cached_property
    def _checksums(self) -> Checksums | None:
        """The checksum that each chunk has to end in."""
        if self._packed is None:
            return None
        return unpack_checksums(self._packed, self.grid.chunks, self.store.location.label)

    def key(self, stored: Coords) -> str:
        """The store key of an object."""
        return self.metadata.encode_chunk_key(stored)

    def _describe(self, coords: Coords) -> str:
        """A chunk as users are told of it."""
        start, stop = self.grid.frames(coords)
        stored, _ = self.grid.object_of(coords)
        place = f"object {self.key(stored)!r} of {self.store.location.label}"
        frames = f"frames {start} to {stop - 1}" if stop - start > 1 else f"frame {start}"
        return f"chunk {coords} ({frames}) in {place}"

    async def read(self, coords: Coords) -> AnyArray:
        """Decode one inner chunk.

        Returns
        -------
        numpy.ndarray
            Of the full chunk shape, also at the edges of the array; not to be written to.

        Raises
        ------
        MissingChunkError
            When the chunk or its object is not in the store.
        DamagedChunkError
            When it is truncated or altered.
        StorageError
            When the store cannot be reached.
        """
        stored, place = self.grid.object_of(coords)
        if self._sharding is None:
            payload = await self._get(stored, None, coords)
        else:
            content = await self._held_object(stored)
            index = self._indices.get(stored)
            if index is None:
                index = await self._index_requests.do(stored, lambda: self._read_index(stored, coords, content))
                self._indices[stored] = index
            span = self._span(index, place, coords)
            if content is None:
                payload = await self._get(stored, RangeByteRequest(*span), coords)
            else:
                payload = content[slice(*span)]
            if len(payload) != span[1] - span[0]:
                raise DamagedChunkError(
                    f"{self._describe(coords)} is truncated: {len(payload)} of {span[1] - span[0]} bytes"
                )
        return await self.decode(payload, coords)

    async def hold(self, stored: Coords, *, in_place_of: Coords, reading: int) -> None:
        """Fetch a whole object, more than one chunk of which is wanted, and keep it until :meth:`let_go`.

        What goes wrong here shows when a chunk is read, which asks again.

        Parameters
        ----------
        stored
            The object.
        in_place_of
            Those before this one are not needed any more.
        reading
            The value of :attr:`readings` when it was wanted: nothing is done for a reader that has ended since.
        """
        if reading != self.readings:
            return
        self._held = {name: held for name, held in self._held.items() if name >= in_place_of} | {stored: None}
        content = await self._object_requests.do(stored, partial(self.payload, stored))
        if stored in self._held:
            self._held[stored] = content

    def let_go(self) -> None:
        """Forget the objects that are held: who read them has ended."""
        self.readings += 1
        self._held = {}

    async def _held_object(self, stored: Coords) -> Buffer | None:
        """The content of an object that is wanted whole; None where it is not, or cannot be had."""
        if stored not in self._held:
            return None
        content = self._held[stored]
        if content is None:
            with suppress(PhotonCodecError):
                content = await self._object_requests.do(stored, partial(self.payload, stored))
        return content

    async def read_object(self, stored: Coords) -> dict[Coords, AnyArray | Exception]:
        """Every inner chunk of an object in one request: decoded, or the error that reading it gives."""
        try:
            _, payloads = await self._payloads(stored)
        except (MissingChunkError, DamagedChunkError) as error:
            return dict.fromkeys(self.grid.chunks_in(stored), error)

        async def decoded(payload: Any, coords: Coords) -> AnyArray | Exception:
            if isinstance(payload, Exception):
                return payload
            try:
                return await self.decode(payload, coords)
            except DamagedChunkError as error:
                return error

        results = await asyncio.gather(*(decoded(payload, coords) for coords, payload in payloads.items()))
        return dict(zip(payloads, results, strict=True))

    async def object_checksums(self, stored: Coords) -> tuple[int, dict[Coords, int]]:
        """The size of an object in bytes, and what each of its chunks ends in; each is decoded, and so checked.

        Raises
        ------
        MissingChunkError, DamagedChunkError
            When the object or a chunk of it is missing, truncated or altered.
        """
        content, payloads = await self._payloads(stored)
        found = {}
        for coords, payload in payloads.items():
            if isinstance(payload, Exception):
                raise payload
            await self.decode(payload, coords)
            found[coords] = _checksum(payload)
        return len(content), found

    async def _payloads(self, stored: Coords) -> tuple[Buffer, dict[Coords, Any]]:
        """An object, and the payload of every chunk in it, or what is wrong with that chunk."""
        wanted = list(self.grid.chunks_in(stored))
        content = await self._get(stored, None, wanted[0])
        if self._sharding is None:
            return content, {wanted[0]: content}
        index = await self._decode_index(self._index_bytes(content), wanted[0])
        self._indices[stored] = index
        return content, {coords: self._slice(content, index, coords) for coords in wanted}

    def _slice(self, content: Buffer, index: AnyArray, coords: Coords) -> Any:
        """The payload of one chunk out of its whole object, or what is wrong with it."""
        try:
            start, stop = self._span(index, self.grid.object_of(coords)[1], coords)
        except (MissingChunkError, DamagedChunkError) as error:
            return error
        if stop > len(content):
            return DamagedChunkError(f"{self._describe(coords)} is truncated: its object ends at byte {len(content)}")
        return content[start:stop]

    def _span(self, index: AnyArray, place: Coords, coords: Coords) -> tuple[int, int]:
        """First and last byte (exclusive) of a chunk in its shard."""
        offset, length = (int(n) for n in index[place])
        if offset == _EMPTY or length == _EMPTY:
            raise MissingChunkError(
                f"{self._describe(coords)} is missing: the index of its shard says it was not written"
            )
        if length > self.limit or offset + length > self._object_limit:
            raise DamagedChunkError(
                f"{self._describe(coords)} cannot be found: the index of its shard says it has {length} bytes from "
                f"{offset} on, a chunk of this array has at most {self.limit}, a shard {self._object_limit}"
            )
        return offset, offset + length

    def _index_bytes(self, content: Buffer) -> Buffer:
        """The encoded index of a shard, out of the whole object."""
        assert self._sharding is not None
        at_start = self._sharding.index_location.value == "start"
        return content[: self._index_size] if at_start else content[-self._index_size :]

    async def _read_index(self, stored: Coords, coords: Coords, content: Buffer | None = None) -> AnyArray:
        """The index of a shard, out of the whole object where that is at hand."""
        assert self._sharding is not None
        if content is not None:
            return await self._decode_index(self._index_bytes(content), coords)
        request: Any = SuffixByteRequest(self._index_size)
        if self._sharding.index_location.value == "start":
            request = RangeByteRequest(0, self._index_size)
        return await self._decode_index(await self._get(stored, request, coords), coords)

    async def _decode_index(self, payload: Buffer, coords: Coords) -> AnyArray:
        if len(payload) != self._index_size:
            raise DamagedChunkError(f"{self._describe(coords)} cannot be found: the index of its shard is truncated")
        try:
            [decoded] = await self._index_pipeline.decode([(payload, self.index_spec)])
        except Exception as error:  # whatever a codec raises on altered bytes
            raise DamagedChunkError(
                f"{self._describe(coords)} cannot be found: the index of its shard is damaged ({error})"
            ) from error
        assert decoded is not None
        # indices are kept: a view would keep all bytes of the shard that it was read with
        return np.array(decoded.as_numpy_array())

    async def encode_index(self, index: AnyArray) -> bytes:
        """The bytes of a shard's index."""
        buffer = self.index_spec.prototype.nd_buffer.from_numpy_array(index)
        [encoded] = await self._index_pipeline.encode([(buffer, self.index_spec)])
        assert encoded is not None
        return encoded.to_bytes()

    async def payload(self, stored: Coords) -> Buffer:
        """All bytes of an object, as they are.

        Raises
        ------
        MissingChunkError
            When it is not in the store.
        """
        return await self._get(stored, None, next(iter(self.grid.chunks_in(stored))))

    async def _get(self, stored: Coords, byte_range: Any, coords: Coords) -> Buffer:
        """Bytes of an object; a missing object is named."""
        store: Store = self.store.get()
        if byte_range is None and self._object_limit <= _LARGEST_REQUEST:
            # no more than an object of this array can have, and a byte that tells of more
            byte_range = RangeByteRequest(0, self._object_limit + 1)
        # also a short object: stores differ in what they raise for a range beyond its end
        with self.store.location.errors_named(f"{self._describe(coords)} cannot be read"):
            try:
                payload = await store.get(self.key(stored), default_buffer_prototype(), byte_range)
            except (FileNotFoundError, KeyError):
                payload = None
        if payload is None:
            raise MissingChunkError(f"{self._describe(coords)} is missing: was it deleted, or copied incompletely?")
        if len(payload) > self._object_limit:
            raise DamagedChunkError(
                f"{self._describe(coords)} is damaged: its object has more than {self._object_limit} bytes, which no "
                "object of this array has"
            )
        return payload

    async def decode(self, payload: Buffer, coords: Coords) -> AnyArray:
        """Counts of the bytes of one chunk, if they are the bytes that were written for it."""
        try:
            [decoded] = await self.pipeline.decode([(payload, self.spec)])
            assert decoded is not None
            counts = decoded.as_numpy_array()
            if counts.shape != self.spec.shape:
                counts = counts.reshape(self.spec.shape)
        except Exception as error:  # whatever a codec raises on altered bytes
            if isinstance(error, PhotonCodecError) and not isinstance(error, DamagedChunkError):
                raise  # one of our codecs knows better than "damaged"
            raise DamagedChunkError(
                f"{self._describe(coords)} is damaged ({type(error).__name__}: {error}): restore it from a copy; "
                "verify() lists every damaged chunk"
            ) from error
        self._check_identity(payload, coords)
        return counts

    def _check_identity(self, payload: Buffer, coords: Coords) -> None:
        """Refuse a chunk that is whole, and is not the one that was written here."""
        if self._checksums is None:
            return
        recorded = int(self._checksums[coords])
        found = _checksum(payload)
        if found != recorded:
            raise DamagedChunkError(
                f"{self._describe(coords)} is whole, but is not the one that was written: its checksum is {found:08x}, "
                f"the record has {recorded:08x}. It is another movie's, an older copy, or from another place of this "
                "movie: restore it from a copy; verify() lists every such chunk"
            )


def _checksum(payload: Buffer) -> int:
    """What the bytes of a chunk end in."""
    return checksum_of(payload.as_numpy_array()[-CHECKSUM_BYTES:].tobytes())
