"""Choose codecs, chunks, shards and metadata of an array before the first byte is written."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from .._typing import AnyArray, Json, ZarrFormat
from .._warn import warn
from .._zarr import ArrayMetadata, any_pipeline, metadata_documents
from ..calibration import Calibration
from ..calibration.parts import parts_of
from ..errors import DenseWarning, LosslessWarning
from ..sources import Source
from . import checksums
from .checksums import digest_of, pack_checksums
from .chunks import object_format
from .compression import bytes_codecs, choose_compressor, entropy_coder_pays, given_codecs
from .count_range import ValueRange
from .documents import sealed
from .layout import Layout, plan_layout
from .object_writer import Written
from .profiles import Encoding, Levels, plan_encoding, too_coarse
from .promise import kept, settled
from .record import MovieRecord, axis_names, with_record

#: Pixels in the sample that compressors are tried on.
_TRIAL_PIXELS = 1 << 19

#: Smallest fraction of the bytes that rounding must save; otherwise the movie is stored losslessly.
_WORTH_ROUNDING = 0.03

_log = logging.getLogger("dj_photon_codecs")


@dataclass(frozen=True)
class WritePlan:
    """The movie and the settings that it is written with."""

    source: Source
    values: ValueRange  # range of all counts if the movie is in memory, otherwise of a sample
    calibration: Calibration
    profile: str  # "lossless" if the noise is unknown
    entropy_coder: bool  # use the entropy coder instead of a compressor if it makes the movie smaller
    step: float  # noise standard deviations; 0 if lossless
    levels: Levels
    compressors: Any  # None chooses the best by trial
    zarr_format: ZarrFormat
    negative_allowed: bool  # the zero level is known, so negative counts have a meaning
    progress: bool | None  # None shows a bar if writing takes long
    chunk: tuple[int, ...] | None = None  # fixed for a dithered movie: its levels depend on the place in the chunk
    fast: bool = False  # compression has to keep up with a camera
    reason: str | None = None  # why the movie is stored losslessly although its noise is known
    rounded: float = 0.0  # step by which the counts were rounded before; 0 if they were not


@dataclass(frozen=True)
class Design:
    """How the blocks of a movie become the objects of an array."""

    plan: WritePlan
    encoding: Encoding
    layout: Layout
    metadata: ArrayMetadata  # without a record

    @property
    def record(self) -> MovieRecord:
        """The record as far as it is known before anything is written."""
        return MovieRecord(
            profile=self.encoding.profile,
            step=self.plan.step if self.encoding.parameters else 0.0,
            calibration=self.plan.calibration,
            original_bytes=0,
            stored_bytes=0,
            dithered=self.encoding.dithered,
            reason=self.plan.reason,
            rounded=0.0 if self.encoding.parameters else self.plan.rounded,
            acquisition=self.plan.source.metadata or None,
        )

    @property
    def stride(self) -> int:
        """Frames in a block, which is the extent of one object in time."""
        return self.layout.object_shape[0]


def finished_documents(
    metadata: ArrayMetadata, record: MovieRecord, n_frames: int, written: Sequence[Written]
) -> dict[str, Json]:
    """Return the metadata documents of a fully written movie, including its sealed record.

    ``metadata`` and ``record`` are those that the blocks were written with, and ``written`` has the blocks in order
    of time.
    """
    metadata = replace(metadata, shape=(n_frames, *metadata.shape[1:]))
    packed = pack_checksums(np.concatenate([block.checksums for block in written]))
    record = replace(
        record,
        original_bytes=math.prod(metadata.shape) * metadata.dtype.to_native_dtype().itemsize,
        stored_bytes=sum(block.stored_bytes for block in written),
        checksums=packed,
        checksums_digest=digest_of(packed) if len(packed) > checksums.ROW_LIMIT else None,
    )
    record = sealed(record, metadata_documents(metadata))
    return with_record(metadata_documents(metadata), record)


def plan_array(plan: WritePlan, shape: tuple[int, ...] | None = None) -> Design:
    """Choose how a movie is written; reads a few frames to try compressors on.

    Give ``shape`` if the source is only the beginning of the movie. Raises CodeRangeError if no integer dtype holds
    the codes, and ConfigurationError for compressors that do not fit the Zarr format. Warns with LosslessWarning if
    the counts cannot be rounded within the bound.
    """
    shape = shape or plan.source.shape
    layout = plan_layout(shape, plan.source.dtype.itemsize, plan.zarr_format, plan.chunk)
    counts = _trial_sample(plan.source, layout)
    if plan.profile not in ("lossless", "anscombe-v1") and too_coarse(
        plan.source.dtype, plan.values, plan.calibration, plan.step
    ):
        farthest = max(plan.values.high, -plan.values.low)
        dtype = plan.source.dtype
        plan = without_loss(plan, f"{dtype} rounds counts as far from 0 as {farthest:.6g} to more than whole numbers")
    plan = _promised(plan)
    encoding, compression, size = _tried(plan, counts)
    # Counts on levels lose nothing more, and anscombe-v1 is needed by the program that reads the movie.
    if encoding.profile not in ("lossless", "anscombe-v1") and plan.levels is Levels.ANYWHERE:
        lossless = replace(plan, profile="lossless", step=0.0, reason="nothing to gain: rounding would save below 3 %")
        as_it_is = _tried(lossless, counts)
        if size > (1 - _WORTH_ROUNDING) * as_it_is[2]:
            _log.info("stored losslessly, %s (trial: %d bytes, lossless %d)", lossless.reason, size, as_it_is[2])
            plan, (encoding, compression, _) = lossless, as_it_is
    if encoding.profile == "dense" and "serializer" not in compression:
        codes = encoding.compressed_array(counts)
        warn(
            f"the entropy coder does not pay for codes of {codes.dtype}, {codes.min()} to {codes.max()}: "
            "the movie is stored with the standard profile",
            DenseWarning,
        )
        encoding = _encoding(replace(plan, profile="standard"))
    return Design(plan, encoding, layout, _metadata(plan, shape, encoding, layout, compression))


def _promised(plan: WritePlan) -> WritePlan:
    """Return the plan with a noise model for which rounding keeps the promised bound, measured on the movie.

    Counts that are already on levels lose nothing more. The ``anscombe-v1`` format has no model that could be lowered.
    """
    calibration = plan.calibration
    open_zero = calibration.method == "given" and math.isnan(calibration.zero_level)
    if plan.levels is not Levels.ANYWHERE or (plan.profile == "lossless" and not open_zero):
        return plan
    if calibration.saturation is not None and plan.values.high > calibration.saturation:
        calibration = replace(calibration, saturation=None)  # the sampled frames did not show the highest counts
    parts = parts_of(plan.source, calibration)
    calibration = settled(calibration, parts, float(plan.values.low))
    plan = replace(plan, calibration=calibration)
    if plan.profile in ("lossless", "anscombe-v1"):
        return plan
    found = kept(calibration, parts, plan.step, lambda noise: _encoding(replace(plan, calibration=noise)).restored)
    if found is not None:
        return replace(plan, calibration=found)
    return without_loss(plan, "no noise model was found under which rounding adds as little to the noise as promised")


def without_loss(plan: WritePlan, reason: str) -> WritePlan:
    """Return the plan changed to lossless, with a warning that gives the reason."""
    warn(f"the movie is stored losslessly: {reason}", LosslessWarning)
    return replace(plan, profile="lossless", step=0.0, reason=reason)


def _encoding(plan: WritePlan) -> Encoding:
    return plan_encoding(
        plan.profile, plan.source.dtype, plan.values, plan.calibration, plan.step, plan.zarr_format, plan.levels
    )


def _tried(plan: WritePlan, counts: AnyArray) -> tuple[Encoding, dict[str, Any], int]:
    """Return the encoding, the compression options for zarr, and the encoded size of ``counts`` in bytes."""
    encoding = _encoding(plan)
    sample = encoding.compressed_array(counts)
    compression = _compression(plan, sample)
    with any_pipeline():
        array = zarr.create_array(
            MemoryStore(),
            shape=sample.shape,
            dtype=sample.dtype,
            chunks=sample.shape,
            zarr_format=plan.zarr_format,
            **compression,
        )
    payload = object_format(array.metadata, "the trial").coder.encode(sample)
    return encoding, compression, len(payload)


def _compression(plan: WritePlan, sample: AnyArray) -> dict[str, Any]:
    """Return zarr's compression options for a sample; ``serializer`` is the entropy coder, present if it pays off."""
    if plan.compressors is not None:
        codecs = given_codecs(plan.compressors, plan.zarr_format)
    else:
        best = choose_compressor(sample, fast=plan.fast)
        if plan.entropy_coder and entropy_coder_pays(sample, best):
            from ..entropy.codec_v3 import RansCodec

            return {"serializer": RansCodec(), "compressors": (Crc32cCodec(),)}
        codecs = bytes_codecs(best, sample.dtype.itemsize, plan.zarr_format)
    if plan.zarr_format == 2:
        # this format allows one compressor: the checksum; the other codecs are filters
        return {"filters": codecs[:-1], "compressors": codecs[-1]}
    return {"compressors": codecs}


def _metadata(
    plan: WritePlan, shape: tuple[int, ...], encoding: Encoding, layout: Layout, compression: dict[str, Any]
) -> ArrayMetadata:
    """Return the metadata that zarr itself creates for the array."""
    source = plan.source
    options = {**compression, "filters": (*encoding.filters, *compression.get("filters", ()))}
    if plan.zarr_format == 3:
        options |= {"shards": layout.shard, "dimension_names": axis_names(len(source.shape))}
    with any_pipeline():
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
    """Read one chunk from the middle of the movie, cut to at most ``_TRIAL_PIXELS`` in time."""
    count = min(layout.chunk[0], max(1, _TRIAL_PIXELS // math.prod(layout.chunk[1:])), source.shape[0])
    start = (source.shape[0] - count) // 2
    middle = tuple(
        slice(n // c // 2 * c, n // c // 2 * c + c) for n, c in zip(source.shape[1:], layout.chunk[1:], strict=True)
    )
    return np.ascontiguousarray(source.read(start, start + count)[(slice(None), *middle)])
