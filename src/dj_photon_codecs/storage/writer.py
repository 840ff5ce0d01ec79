"""Writing a movie: in one pass, a shard at a time, all of it or nothing.

The order on the store is chunks first and the metadata document last: what an interrupted process leaves
behind does not open as an array.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import warnings
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from .._typing import AnyArray, Json, ZarrFormat
from .._zarr import (
    ArrayMetadata,
    ArrayV3Metadata,
    ShardingCodec,
    default_buffer_prototype,
    metadata_documents,
    submit,
)
from ..calibration import Calibration
from ..errors import CodeRangeError, DenseWarning
from ..sources import Source
from .chunks import ChunkReader, Coords
from .compression import bytes_codecs, choose_compressor, entropy_coder_pays, given_codecs
from .layout import Layout, plan_layout
from .location import Location, ProcessStore
from .profiles import Encoding, Levels, plan_encoding
from .progress import progress_bar
from .record import ATTRIBUTE, MovieRecord
from .target import Target, all_or_nothing
from .values import ValueRange, check_block, scan

#: Pixels that compressors are tried on.
_TRIAL_PIXELS = 1 << 19


@dataclass(frozen=True)
class WritePlan:
    """Everything that is decided before the first byte is written.

    Attributes
    ----------
    source
        The movie.
    values
        The range of its counts: of all of them when it is in memory, otherwise of a sample.
    calibration
        Its noise model, and how it was got.
    profile
        The profile to use: ``lossless`` where the calibration is not reliable.
    entropy_coder
        Whether to use the entropy coder in place of a compressor, where it makes the movie smaller.
    step
        Quantisation in noise standard deviations; 0 when lossless.
    levels
        Where the counts lie.
    compressors
        Given by hand, or None for the best by trial.
    zarr_format
        2 or 3.
    negative_allowed
        Whether the zero level was given, so that negative counts have a meaning.
    progress
        Whether to show a bar; None when it takes long.
    """

    source: Source
    values: ValueRange
    calibration: Calibration
    profile: str
    entropy_coder: bool
    step: float
    levels: Levels
    compressors: Any
    zarr_format: ZarrFormat
    negative_allowed: bool
    progress: bool | None


def write_array(location: Location, plan: WritePlan) -> dict[str, Json]:
    """Write a movie.

    Returns
    -------
    dict
        The metadata documents by key, as written.

    Raises
    ------
    ConfigurationError
        When something is stored there already.
    InvalidMovieError
        For values that cannot be stored, in a movie that is not in memory; in one that is, they were found before.
    StorageError
        When the store fails.
    """
    with all_or_nothing(location) as target:
        try:
            return _write(target, plan, _encoding(plan))
        except CodeRangeError:
            if plan.source.in_memory:
                raise
        # A frame outside the sample needs wider codes: look at the whole movie, and begin again.
        submit(target.clear()).result()
        values = scan(plan.source, negative_allowed=plan.negative_allowed)
        return _write(target, plan, _encoding(replace(plan, values=values)))


def _encoding(plan: WritePlan) -> Encoding:
    return plan_encoding(
        plan.profile, plan.source.dtype, plan.values, plan.calibration, plan.step, plan.zarr_format, plan.levels
    )


def _write(target: Target, plan: WritePlan, encoding: Encoding) -> dict[str, Json]:
    """One pass through the movie with a decided encoding."""
    source = plan.source
    layout = plan_layout(source.shape, source.dtype.itemsize, plan.zarr_format)
    compression = _compression(plan, encoding, layout)
    if encoding.profile == "dense" and "serializer" not in compression:
        encoding = _encoding(replace(plan, profile="standard"))
    metadata = _metadata(plan, encoding, layout, compression)
    writer = _ObjectWriter(metadata, target, encoding.padding)
    write = partial(_write_block, writer, layout, source.shape)
    stride = layout.object_shape[0]
    under_way: Future[int] | None = None
    stored_bytes = 0
    with progress_bar("writing", source.shape[0], "frame", plan.progress) as advance:
        try:
            for start in range(0, source.shape[0], stride):
                stop = min(start + stride, source.shape[0])
                block = source.read(start, stop)
                if not source.in_memory:
                    check_block(block, start, negative_allowed=plan.negative_allowed)
                block = encoding.prepared(block)
                # Read the next frames while these are encoded: two blocks in memory, never more.
                if under_way is not None:
                    stored_bytes += under_way.result()
                under_way = submit(write(block, start // stride))
                advance(stop - start)
            assert under_way is not None
            stored_bytes += under_way.result()
        except BaseException:
            _settle(under_way)
            raise
    record = MovieRecord(
        profile=encoding.profile,
        step=plan.step if encoding.parameters else 0.0,
        calibration=plan.calibration,
        original_bytes=math.prod(source.shape) * source.dtype.itemsize,
        stored_bytes=stored_bytes,
        dithered=encoding.dithered,
    )
    return put_documents(target, replace(metadata, attributes={ATTRIBUTE: record.to_dict()}))


def put_documents(target: Target, metadata: ArrayMetadata) -> dict[str, Json]:
    """Write the metadata documents of an array, which makes it an array."""
    documents = metadata_documents(metadata)

    async def put() -> None:
        buffers = metadata.to_buffer_dict(default_buffer_prototype())
        # the document that makes it an array comes last: in Zarr V2, after the attributes
        for key in sorted(buffers, key=lambda key: key in (".zarray", "zarr.json")):
            await target.put(key, buffers[key])

    submit(put()).result()
    return documents


def _settle(under_way: Future[int] | None) -> None:
    """Wait until a write that is under way has ended, so that cleaning up comes last.

    It is not cancelled: that would not stop the thread that writes a file.
    """
    if under_way is not None:
        wait([under_way])


def _compression(plan: WritePlan, encoding: Encoding, layout: Layout) -> dict[str, Any]:
    """The codecs that make bytes of the codes, as options of zarr; ``serializer`` is the entropy coder, if it pays."""
    if plan.compressors is not None:
        codecs = given_codecs(plan.compressors, plan.zarr_format)
    else:
        sample = encoding.compressed_array(_trial_sample(plan.source, layout))
        best = choose_compressor(sample)
        if plan.entropy_coder:
            if entropy_coder_pays(sample, best):
                from ..entropy.codec_v3 import RansCodec

                return {"serializer": RansCodec(), "compressors": (Crc32cCodec(),)}
            if encoding.profile == "dense":
                warnings.warn(
                    f"the entropy coder does not pay for codes of {sample.dtype}, {sample.min()} to {sample.max()}: "
                    "the movie is stored with the standard profile",
                    DenseWarning,
                    stacklevel=6,  # of the caller of write_movie
                )
        codecs = bytes_codecs(best, sample.dtype.itemsize, plan.zarr_format)
    if plan.zarr_format == 2:
        # one compressor only in this format: all but the checksum are filters
        return {"filters": codecs[:-1], "compressors": codecs[-1]}
    return {"compressors": codecs}


def _metadata(plan: WritePlan, encoding: Encoding, layout: Layout, compression: dict[str, Any]) -> ArrayMetadata:
    """The metadata of the array, as zarr itself makes it."""
    source = plan.source
    options = {**compression, "filters": (*encoding.filters, *compression.get("filters", ()))}
    if plan.zarr_format == 3:
        names = ["time", *[None] * (len(source.shape) - 3), "height", "width"]
        options |= {"shards": layout.shard, "dimension_names": names}
    array = zarr.create_array(
        store=MemoryStore(),
        shape=source.shape,
        dtype=source.dtype,
        chunks=layout.chunk,
        fill_value=encoding.fill_value,
        zarr_format=plan.zarr_format,
        **options,
    )
    metadata: ArrayMetadata = array.metadata
    return metadata


def _trial_sample(source: Source, layout: Layout) -> AnyArray:
    """Frames from the middle of the movie, as many as one chunk has and a trial needs."""
    frame_pixels = math.prod(source.shape[1:])
    count = min(layout.chunk[0], max(1, _TRIAL_PIXELS // frame_pixels), source.shape[0])
    start = (source.shape[0] - count) // 2
    frames = source.read(start, start + count)
    # of a frame larger than a chunk, the part that its first chunk holds
    return np.ascontiguousarray(frames[(slice(None), *(slice(n) for n in layout.chunk[1:]))])


async def _write_block(
    writer: _ObjectWriter, layout: Layout, shape: tuple[int, ...], block: AnyArray, time_index: int
) -> int:
    """Write the objects that hold a run of frames; gives their size in bytes."""
    extents = layout.object_shape[1:]
    counts = [math.ceil(n / e) for n, e in zip(shape[1:], extents, strict=True)]
    total = 0
    for place in itertools.product(*(range(n) for n in counts)):
        region = tuple(slice(i * e, (i + 1) * e) for i, e in zip(place, extents, strict=True))
        total += await writer.write((time_index, *place), block[(slice(None), *region)])
    return total


class _ObjectWriter:
    """Encodes the chunks of one object side by side, and puts them into the store as one.

    zarr's own way would fetch each shard before it writes it, and compress one chunk after the other.
    """

    def __init__(self, metadata: ArrayMetadata, target: Target, padding: Any) -> None:
        self._reader = ChunkReader(metadata, ProcessStore(target.location))  # for its pipelines and its grid
        self._metadata = metadata
        self._target = target
        self._padding = padding

    async def write(self, stored: Coords, counts: AnyArray) -> int:
        """Write one object; gives its size in bytes."""
        grid = self._reader.grid
        places = list(
            itertools.product(*(range(math.ceil(n / c)) for n, c in zip(counts.shape, grid.chunk, strict=True)))
        )
        payloads = await asyncio.gather(*(self._encode(counts, place) for place in places))
        content = payloads[0] if not self._sharded else await self._assemble(places, payloads)
        await self._target.put(self._reader.key(stored), default_buffer_prototype().buffer.from_bytes(content))
        return len(content)

    @property
    def _sharded(self) -> bool:
        return isinstance(self._metadata, ArrayV3Metadata) and isinstance(self._metadata.codecs[0], ShardingCodec)

    async def _encode(self, counts: AnyArray, place: Coords) -> bytes:
        """The bytes of one inner chunk, filled up beyond the edge of the array with what is never read."""
        chunk_shape = self._reader.grid.chunk
        part = counts[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk_shape, strict=True))]
        if part.shape != chunk_shape:
            padded = np.full(chunk_shape, self._padding, counts.dtype)
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


def copy_objects(origin: ChunkReader, location: Location) -> None:
    """Copy a stored array byte for byte: its objects, then its metadata documents.

    Raises
    ------
    MissingChunkError
        When the original lacks an object; nothing is left of the copy.
    StorageError
        When one of the two stores fails.
    """

    async def copy(stored: Coords, target: Target) -> None:
        await target.put(origin.key(stored), await origin.payload(stored))

    with all_or_nothing(location) as target:
        for stored in origin.grid.all_objects():
            submit(copy(stored, target)).result()
        put_documents(target, origin.metadata)
