"""Encoding and writing the objects of an array: a block of frames in, the checksums of its chunks out."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass

import numpy as np

from .._typing import AnyArray
from .._zarr import ArrayMetadata, ArrayV3Metadata, ShardingCodec, default_buffer_prototype
from .checksums import Checksums, checksum_of
from .chunks import ChunkReader
from .grid import Coords
from .location import ProcessStore
from .profiles import Encoding
from .target import Target


@dataclass(frozen=True)
class Written:
    """A block of frames that is in the store.

    Attributes
    ----------
    stored_bytes
        Size of its objects.
    checksums
        Of its inner chunks, in their grid.
    """

    stored_bytes: int
    checksums: Checksums


class ObjectWriter:
    """Encodes the chunks of one object side by side, and puts them into the store as one.

    zarr's own way would fetch each shard before it writes it, and compress one chunk after the other.
    """

    def __init__(self, metadata: ArrayMetadata, encoding: Encoding, target: Target) -> None:
        self._reader = ChunkReader(metadata, ProcessStore(target.location))  # for its pipelines and its grid
        self._metadata = metadata
        self._encoding = encoding
        self._target = target

    def keys(self) -> list[str]:
        """The keys of all objects of the array."""
        return [self._reader.key(stored) for stored in self._reader.grid.all_objects()]

    async def write_block(self, block: AnyArray, time_index: int) -> Written:
        """Write the objects that hold a run of frames.

        Parameters
        ----------
        block
            Counts of all frames that the objects span, fewer only at the end of the movie.
        time_index
            Place of the objects along time.
        """
        grid = self._reader.grid
        block = await asyncio.to_thread(self._encoding.prepared, block)
        checksums = np.zeros((math.ceil(len(block) / grid.chunk[0]), *grid.chunks[1:]), np.uint32)
        extents = grid.stored[1:]
        total = 0
        for place in itertools.product(*(range(n) for n in grid.objects[1:])):
            region = tuple(slice(i * e, (i + 1) * e) for i, e in zip(place, extents, strict=True))
            payloads, size = await self._write((time_index, *place), block[(slice(None), *region)])
            for inner, payload in payloads.items():
                coords = (inner[0], *(o * n + i for o, n, i in zip(place, grid.per_object[1:], inner[1:], strict=True)))
                checksums[coords] = checksum_of(payload)
            total += size
        return Written(total, checksums)

    async def _write(self, stored: Coords, counts: AnyArray) -> tuple[dict[Coords, bytes], int]:
        """Write one object; gives its chunks by their place in it, and its size in bytes."""
        grid = self._reader.grid
        places = list(
            itertools.product(*(range(math.ceil(n / c)) for n, c in zip(counts.shape, grid.chunk, strict=True)))
        )
        payloads = await asyncio.gather(*(self._encode(counts, place) for place in places))
        content = payloads[0] if not self._sharded else await self._assemble(places, payloads)
        await self._target.put(self._reader.key(stored), default_buffer_prototype().buffer.from_bytes(content))
        return dict(zip(places, payloads, strict=True)), len(content)

    @property
    def _sharded(self) -> bool:
        return isinstance(self._metadata, ArrayV3Metadata) and isinstance(self._metadata.codecs[0], ShardingCodec)

    async def _encode(self, counts: AnyArray, place: Coords) -> bytes:
        """The bytes of one inner chunk, filled up beyond the edge of the array with what is never read."""
        chunk_shape = self._reader.grid.chunk
        part = counts[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk_shape, strict=True))]
        if part.shape != chunk_shape:
            padded = np.full(chunk_shape, self._encoding.padding, counts.dtype)
            padded[tuple(slice(n) for n in part.shape)] = part
            part = padded
        spec = self._reader.spec
        [payload] = await self._reader.pipeline.encode([(spec.prototype.nd_buffer.from_numpy_array(part), spec)])
        assert payload is not None
        return payload.to_bytes()

    async def _assemble(self, places: list[Coords], payloads: list[bytes]) -> bytes:
        """A shard: its chunks one after the other, then the index."""
        spec = self._reader.index_spec
        index = np.full(spec.shape, np.iinfo(np.uint64).max, np.uint64)
        offset = 0
        for place, payload in zip(places, payloads, strict=True):
            index[place] = offset, len(payload)
            offset += len(payload)
        encoded = await self._reader.encode_index(index)
        return b"".join([*payloads, encoded])
