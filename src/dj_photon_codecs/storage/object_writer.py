"""Encode and write the objects of an array, a block of frames at a time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._threads import encoding_threads, rooms
from .._typing import AnyArray
from .._zarr import EMPTY, ArrayMetadata, ShardIndex, buffer_of
from .checksums import Checksums, checksum_of
from .chunks import format_and_grid
from .encoding import Encoding
from .layout import Coords
from .target import Target

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """A stored block of frames: the size of its objects, and the checksums of its inner chunks, in their grid."""

    stored_bytes: int
    checksums: Checksums


class ObjectWriter:
    """Encodes the chunks of an object concurrently, and stores the object in one request.

    zarr itself fetches each shard before writing it, and compresses its chunks one at a time.
    """

    def __init__(self, metadata: ArrayMetadata, encoding: Encoding, target: Target) -> None:
        self._format, self._grid = format_and_grid(metadata, target.location.label)
        self._key = metadata.encode_chunk_key
        self._encoding = encoding
        self._target = target

    @property
    def has_shards(self) -> bool:
        """Whether objects are shards, which can begin with a head."""
        return self._format.index is not None

    def keys(self) -> list[str]:
        """Return the keys of all objects of the array."""
        return [self._key(stored) for stored in self._grid.all_objects()]

    async def write_block(
        self,
        block: AnyArray,
        time_index: int,
        *,
        head: bytes = b"",
        encoded: Callable[[], object] = lambda: None,
        after: Future[Any] | None = None,
    ) -> Written:
        """Write the objects of a block of frames.

        Parameters
        ----------
        block
            Counts of all frames that the objects span; fewer only at the end of the movie.
        time_index
            Index of the objects along time.
        head
            Bytes at the start of each shard, which readers of chunks ignore.
        encoded
            Called when the counts are no longer needed, whether or not they could be encoded.
        after
            The block is stored only if this succeeds; its error is raised here too.

        Raises
        ------
        CodeRangeError
            If a count has no code.
        StorageError
            If the store fails.
        """
        grid = self._grid
        objects: dict[str, bytes] = {}
        try:
            checksums = np.zeros((math.ceil(len(block) / grid.chunk[0]), *grid.chunks[1:]), np.uint32)
            for place in itertools.product(*(range(n) for n in grid.objects[1:])):
                region = tuple(slice(i * e, (i + 1) * e) for i, e in zip(place, grid.stored[1:], strict=True))
                payloads, content = await self._encoded(block[(slice(None), *region)], head)
                for inner, payload in payloads.items():
                    first = (o * n for o, n in zip(place, grid.per_object[1:], strict=True))
                    coords = (inner[0], *(i + j for i, j in zip(first, inner[1:], strict=True)))
                    checksums[coords] = checksum_of(payload)
                objects[self._key((time_index, *place))] = content
        finally:
            del block
            encoded()
        if after is not None:
            await asyncio.wrap_future(after)
        for key, content in objects.items():
            await self._target.put(key, buffer_of(content))
        return Written(sum(map(len, objects.values())), checksums)

    async def _encoded(self, counts: AnyArray, head: bytes) -> tuple[dict[Coords, bytes], bytes]:
        """Return the encoded chunks of one object by their place in it, and the bytes of the object."""
        sizes = zip(counts.shape, self._grid.chunk, strict=True)
        places = list(itertools.product(*(range(math.ceil(n / c)) for n, c in sizes)))
        payloads = await asyncio.gather(*(_in_thread(self._encode, counts, place) for place in places))
        index = self._format.index
        content = payloads[0] if index is None else await _in_thread(_assembled, index, places, payloads, head)
        return dict(zip(places, payloads, strict=True)), content

    def _encode(self, counts: AnyArray, place: Coords) -> bytes:
        """Encode one inner chunk, padded beyond the edge of the array."""
        chunk_shape = self._grid.chunk
        part = counts[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk_shape, strict=True))]
        if part.shape != chunk_shape:
            padded = np.full(chunk_shape, self._encoding.padding, counts.dtype)
            padded[tuple(slice(n) for n in part.shape)] = part
            part = padded
        return self._format.coder.encode(self._encoding.prepared(part), partial(rooms.take, "codes to encode"))


def _in_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Call a function in one of the threads that encode chunks."""
    return asyncio.get_running_loop().run_in_executor(encoding_threads(), function, *arguments)


def _assembled(index: ShardIndex, places: list[Coords], payloads: list[bytes], head: bytes) -> bytes:
    """Assemble a shard: head, chunks, index."""
    entries = np.full(index.chain.spec.shape, EMPTY, np.uint64)
    offset = len(head)
    for place, payload in zip(places, payloads, strict=True):
        entries[place] = offset, len(payload)
        offset += len(payload)
    return b"".join([head, *payloads, index.chain.encode(entries)])
