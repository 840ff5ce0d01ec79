"""From a request to a plan: noise model, profile, codecs, grid and metadata, before the first byte is written."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from .._threads import encoding_threads
from .._typing import AnyArray, Json
from .._warn import warn
from .._zarr import ArrayMetadata, any_pipeline, metadata_documents
from ..calibration import Calibration, calibrate
from ..calibration.parts import parts_of
from ..errors import CalibrationError, DenseWarning, LosslessWarning
from ..options import LOSSLESS, PORTABLE, PROFILES, STANDARD, Profile, WriteOptions
from ..sources import Source
from . import checksums
from .checksums import digest_of, pack_checksums
from .chunks import format_and_grid
from .compression import bytes_codecs, choose_compressor, entropy_coder_pays, given_codecs
from .count_range import ValueRange, value_range
from .documents import sealed
from .encoding import Encoding, Levels, Origin, plan_encoding, too_coarse
from .layout import ChunkGrid, plan_grid
from .object_writer import Written
from .promise import kept, settled
from .record import MovieRecord, axis_names, with_record

#: Pixels in the sample that compressors are tried on.
_TRIAL_PIXELS = 1 << 19

#: Smallest fraction of the bytes that rounding must save; otherwise the movie is stored losslessly.
_WORTH_ROUNDING = 0.03

_log = logging.getLogger("dj_photon_codecs")


@dataclass(frozen=True)
class Request:
    """The movie to write, and everything that is known and chosen before codecs are tried on it."""

    source: Source
    options: WriteOptions
    profile: Profile  # LOSSLESS if the noise is unknown
    values: ValueRange  # range of all counts if the movie is in memory, otherwise of a sample
    calibration: Calibration
    grid: ChunkGrid
    levels: Levels
    negative_allowed: bool  # the zero level is known, so negative counts have a meaning
    fast: bool = False  # compression has to keep up with a camera
    reason: str | None = None  # why the movie is stored losslessly although its noise is known
    rounded: float = 0.0  # step by which the counts were rounded before; 0 if they were not

    @property
    def step(self) -> float:
        """Quantisation step [noise standard deviations]; 0 if lossless."""
        return self.options.step if self.profile.rounds else 0.0

    @classmethod
    def of(
        cls,
        source: Source,
        options: WriteOptions,
        calibration: Calibration | None = None,
        *,
        origin: Origin | None = None,
        reason: str | None = None,
        values: ValueRange | None = None,
        grid: ChunkGrid | None = None,
        fast: bool = False,
    ) -> Request:
        """Choose the noise model and, based on it, the profile.

        ``values``, the range of the counts, and ``calibration`` are measured if they are None. Give ``grid`` if the
        source is only the beginning of the movie.
        """
        # a stored movie was accepted when it was inserted
        negative_allowed = calibration is not None or source.signed or origin is not None
        if origin is not None and origin.has_noise(calibration):
            calibration = origin.record.calibration  # from the original counts, so better than a new one
        profile = PROFILES[options.profile] if options.rounds else LOSSLESS
        if values is None and calibration is None and profile.rounds:
            values, calibration = _measured(source, negative_allowed=negative_allowed)
        values = values or value_range(source, negative_allowed=negative_allowed)
        if calibration is None and profile.rounds:
            calibration = calibrate(source)
        calibration = calibration or Calibration.unknown("not measured: stored losslessly on request")
        if calibration.verdict == "unknown" and profile.rounds:
            profile = _without_noise(profile, calibration)
        levels, chunk = Levels.ANYWHERE, None
        if origin is not None and profile.rounds:
            levels = origin.levels(calibration, options.step)
            # the dither depends on the position in the chunk
            chunk = origin.chunk if levels is Levels.DITHERED else None
        if levels is Levels.PORTABLE and profile.bounded and profile != PORTABLE:
            _log.info("the movie keeps the counts and the profile of the portable movie that it is copied from")
            options, profile = replace(options, profile=PORTABLE.name), PORTABLE
        return cls(
            source=source,
            options=options,
            profile=profile,
            values=values,
            calibration=calibration,
            grid=grid or plan_grid(source.shape, source.dtype.itemsize, options.zarr_format, chunk),
            levels=levels,
            negative_allowed=negative_allowed,
            fast=fast,
            reason=reason,
            rounded=0.0 if origin is None else origin.rounded,
        )

    def without_loss(self, reason: str) -> Request:
        """Return the request changed to lossless, with a warning that gives the reason."""
        warn(f"the movie is stored losslessly: {reason}", LosslessWarning)
        return replace(self, profile=LOSSLESS, reason=reason)


def _without_noise(profile: Profile, calibration: Calibration) -> Profile:
    """Return the profile of a movie without a noise model, with a warning; raises if it cannot be another one."""
    if profile.legacy:
        raise CalibrationError(
            f"the {profile.name} profile needs a noise model, and there is none: {calibration.reason}"
        )
    warn(
        f"no noise model: {calibration.reason}. The movie is stored losslessly; if you know its "
        "conversion gain and zero level, insert PhotonMovie(movie, conversion_gain=..., zero_level=...)",
        LosslessWarning,
    )
    return LOSSLESS


def _measured(source: Source, *, negative_allowed: bool) -> tuple[ValueRange, Calibration]:
    """Measure the range of the counts and the noise; movies in memory do both at once, in two threads."""
    if not source.in_memory:
        return value_range(source, negative_allowed=negative_allowed), calibrate(source)
    looking = encoding_threads().submit(value_range, source, negative_allowed=negative_allowed)
    try:
        calibration = calibrate(source)
    finally:
        values = looking.result()  # an error about invalid counts takes precedence
    return values, calibration


@dataclass(frozen=True)
class Plan:
    """How the blocks of a movie become the objects of an array."""

    request: Request
    encoding: Encoding
    metadata: ArrayMetadata  # without a record

    @property
    def record(self) -> MovieRecord:
        """The part of the record that is known before anything is written."""
        request = self.request
        return MovieRecord(
            profile=self.encoding.profile.name,
            step=request.step if self.encoding.parameters else 0.0,
            calibration=request.calibration,
            original_bytes=0,
            stored_bytes=0,
            dithered=self.encoding.dithered,
            reason=request.reason,
            rounded=0.0 if self.encoding.parameters else request.rounded,
            acquisition=request.source.metadata or None,
        )


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


def plan_movie(request: Request) -> Plan:
    """Choose how a movie is written; reads a few frames to try compressors on.

    Raises CodeRangeError if no integer dtype holds the codes, and ConfigurationError for compressors that do not fit
    the Zarr format. Warns with LosslessWarning if the counts cannot be rounded within the bound.
    """
    counts = _trial_sample(request.source, request.grid)
    dtype, values = request.source.dtype, request.values
    if request.profile.bounded and too_coarse(dtype, values, request.calibration, request.step):
        farthest = max(values.high, -values.low)
        why = f"{dtype} rounds counts as far from 0 as {farthest:.6g} to more than whole numbers"
        request = request.without_loss(why)
    request = _promised(request)
    encoding, compression, size = _tried(request, counts)
    # Counts on levels lose nothing more, and a legacy format is needed by the program that reads the movie.
    if encoding.profile.bounded and request.levels is Levels.ANYWHERE:
        lossless = replace(request, profile=LOSSLESS, reason="nothing to gain: rounding would save below 3 %")
        as_it_is = _tried(lossless, counts)
        if size > (1 - _WORTH_ROUNDING) * as_it_is[2]:
            _log.info("stored losslessly, %s (trial: %d bytes, lossless %d)", lossless.reason, size, as_it_is[2])
            request, (encoding, compression, _) = lossless, as_it_is
    if encoding.profile.entropy_coder and "serializer" not in compression:
        codes = encoding.compressed_array(counts)
        warn(
            f"the entropy coder does not pay for codes of {codes.dtype}, {codes.min()} to {codes.max()}: "
            "the movie is stored with the standard profile",
            DenseWarning,
        )
        encoding = _encoding(replace(request, profile=STANDARD))
    return Plan(request, encoding, _metadata(request, encoding, compression))


def _promised(request: Request) -> Request:
    """Return the request with a noise model for which rounding keeps the promised bound, measured on the movie.

    Counts that are already on levels lose nothing more. A legacy format has no model that could be lowered.
    """
    calibration = request.calibration
    open_zero = calibration.method == "given" and math.isnan(calibration.zero_level)
    if request.levels is not Levels.ANYWHERE or not (request.profile.rounds or open_zero):
        return request
    if calibration.saturation is not None and request.values.high > calibration.saturation:
        calibration = replace(calibration, saturation=None)  # the sampled frames did not show the highest counts
    parts = parts_of(request.source, calibration)
    calibration = settled(calibration, parts, float(request.values.low))
    request = replace(request, calibration=calibration)
    if not request.profile.bounded:
        return request
    found = kept(calibration, parts, request.step, partial(_restored, request))
    if found is not None:
        return replace(request, calibration=found)
    return request.without_loss("no noise model was found under which rounding adds as little to the noise as promised")


def _restored(request: Request, calibration: Calibration) -> Callable[[AnyArray], AnyArray]:
    """Return the function that rounds counts as they would be stored with a noise model."""
    return _encoding(replace(request, calibration=calibration)).restored


def _encoding(request: Request) -> Encoding:
    movie = request.source.dtype, request.values, request.calibration
    return plan_encoding(request.profile, *movie, request.step, request.options.zarr_format, request.levels)


def _tried(request: Request, counts: AnyArray) -> tuple[Encoding, dict[str, Any], int]:
    """Return the encoding, the compression options for zarr, and the encoded size of ``counts`` in bytes."""
    encoding = _encoding(request)
    sample = encoding.compressed_array(counts)
    compression = _compression(request, sample)
    with any_pipeline():
        array = zarr.create_array(
            MemoryStore(),
            shape=sample.shape,
            dtype=sample.dtype,
            chunks=sample.shape,
            zarr_format=request.options.zarr_format,
            **compression,
        )
    payload = format_and_grid(array.metadata, "the trial")[0].coder.encode(sample)
    return encoding, compression, len(payload)


def _compression(request: Request, sample: AnyArray) -> dict[str, Any]:
    """Return zarr's compression options for a sample; ``serializer`` is the entropy coder, present if it pays off."""
    options = request.options
    if options.compressors is not None:
        codecs = given_codecs(options.compressors, options.zarr_format)
    else:
        best = choose_compressor(sample, fast=request.fast)
        # also for a movie that was to be dense and is stored losslessly
        if PROFILES[options.profile].entropy_coder and entropy_coder_pays(sample, best):
            from ..entropy.codec_v3 import RansCodec

            return {"serializer": RansCodec(), "compressors": (Crc32cCodec(),)}
        codecs = bytes_codecs(best, sample.dtype.itemsize, options.zarr_format)
    if options.zarr_format == 2:
        # this format allows one compressor: the checksum; the other codecs are filters
        return {"filters": codecs[:-1], "compressors": codecs[-1]}
    return {"compressors": codecs}


def _metadata(request: Request, encoding: Encoding, compression: dict[str, Any]) -> ArrayMetadata:
    """Return the metadata that zarr itself creates for the array."""
    grid, zarr_format = request.grid, request.options.zarr_format
    options = {**compression, "filters": (*encoding.filters, *compression.get("filters", ()))}
    if zarr_format == 3:
        options |= {"shards": grid.stored, "dimension_names": axis_names(len(grid.shape))}
    with any_pipeline():
        array = zarr.create_array(
            store=MemoryStore(),
            shape=grid.shape,
            dtype=request.source.dtype,
            chunks=grid.chunk,
            fill_value=encoding.fill_value,
            zarr_format=zarr_format,
            **options,
        )
    metadata: ArrayMetadata = array.metadata
    return metadata


def _trial_sample(source: Source, grid: ChunkGrid) -> AnyArray:
    """Read one chunk from the middle of the movie, cut to at most ``_TRIAL_PIXELS`` in time."""
    count = min(grid.chunk[0], max(1, _TRIAL_PIXELS // math.prod(grid.chunk[1:])), source.shape[0])
    start = (source.shape[0] - count) // 2
    middle = tuple(
        slice(n // c // 2 * c, n // c // 2 * c + c) for n, c in zip(source.shape[1:], grid.chunk[1:], strict=True)
    )
    return np.ascontiguousarray(source.read(start, start + count)[(slice(None), *middle)])
