"""What is decided before the first byte of a movie is written: codecs, chunks and shards, and the array's metadata."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from .._typing import AnyArray, Json, ZarrFormat
from .._zarr import ArrayMetadata, metadata_documents
from ..calibration import Calibration
from ..errors import DenseWarning
from ..sources import Source
from .checksums import pack_checksums
from .compression import bytes_codecs, choose_compressor, entropy_coder_pays, given_codecs
from .documents import sealed
from .layout import Layout, plan_layout
from .objects import Written
from .profiles import Encoding, Levels, plan_encoding
from .record import ATTRIBUTE, MovieRecord
from .values import ValueRange

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
    fast
        Whether compressing has to keep up with a camera.
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
    fast: bool = False


@dataclass(frozen=True)
class Design:
    """How the blocks of a movie become the objects of an array.

    Attributes
    ----------
    plan
        What it was made from.
    encoding
        From counts to what zarr stores.
    layout
        Shapes of chunks and shards.
    metadata
        Of the array, without a record.
    """

    plan: WritePlan
    encoding: Encoding
    layout: Layout
    metadata: ArrayMetadata

    @property
    def record(self) -> MovieRecord:
        """What is known of the movie before any of it is written."""
        return MovieRecord(
            profile=self.encoding.profile,
            step=self.plan.step if self.encoding.parameters else 0.0,
            calibration=self.plan.calibration,
            original_bytes=0,
            stored_bytes=0,
            dithered=self.encoding.dithered,
        )

    @property
    def stride(self) -> int:
        """Frames in a block: what one object covers in time."""
        return self.layout.object_shape[0]


def finished_documents(
    metadata: ArrayMetadata, record: MovieRecord, n_frames: int, written: Sequence[Written]
) -> dict[str, Json]:
    """The metadata documents of a movie whose blocks are written, with its sealed record.

    Parameters
    ----------
    metadata, record
        What the blocks were written by.
    n_frames
        Frames in all blocks.
    written
        The blocks in order of time.
    """
    metadata = replace(metadata, shape=(n_frames, *metadata.shape[1:]))
    record = replace(
        record,
        original_bytes=math.prod(metadata.shape) * metadata.dtype.to_native_dtype().itemsize,
        stored_bytes=sum(block.stored_bytes for block in written),
        checksums=pack_checksums(np.concatenate([block.checksums for block in written])),
    )
    record = sealed(record, metadata_documents(metadata))
    return metadata_documents(replace(metadata, attributes={ATTRIBUTE: record.to_dict()}))


def plan_array(plan: WritePlan, shape: tuple[int, ...] | None = None) -> Design:
    """Decide how a movie is written; reads a few frames to try compressors on.

    Parameters
    ----------
    plan
        What is known of it.
    shape
        Of the movie, if its source is only the beginning of it.

    Raises
    ------
    CodeRangeError
        When no integer dtype holds the codes.
    ConfigurationError
        For compressors that do not fit the Zarr format.
    """
    source = plan.source
    encoding = _encoding(plan)
    shape = shape or source.shape
    layout = plan_layout(shape, source.dtype.itemsize, plan.zarr_format)
    compression = _compression(plan, encoding, layout)
    if encoding.profile == "dense" and "serializer" not in compression:
        encoding = _encoding(replace(plan, profile="standard"))
    return Design(plan, encoding, layout, _metadata(plan, shape, encoding, layout, compression))


def _encoding(plan: WritePlan) -> Encoding:
    return plan_encoding(
        plan.profile, plan.source.dtype, plan.values, plan.calibration, plan.step, plan.zarr_format, plan.levels
    )


def _compression(plan: WritePlan, encoding: Encoding, layout: Layout) -> dict[str, Any]:
    """The codecs that make bytes of the codes, as options of zarr; ``serializer`` is the entropy coder, if it pays."""
    if plan.compressors is not None:
        codecs = given_codecs(plan.compressors, plan.zarr_format)
    else:
        sample = encoding.compressed_array(_trial_sample(plan.source, layout))
        best = choose_compressor(sample, fast=plan.fast)
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


def _metadata(
    plan: WritePlan, shape: tuple[int, ...], encoding: Encoding, layout: Layout, compression: dict[str, Any]
) -> ArrayMetadata:
    """The metadata of the array, as zarr itself makes it."""
    source = plan.source
    options = {**compression, "filters": (*encoding.filters, *compression.get("filters", ()))}
    if plan.zarr_format == 3:
        names = ["time", *[None] * (len(source.shape) - 3), "height", "width"]
        options |= {"shards": layout.shard, "dimension_names": names}
    array = zarr.create_array(
        store=MemoryStore(),
        shape=shape,
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
