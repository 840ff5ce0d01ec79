"""How counts are coded: the Zarr codecs for a profile, a noise model and a range of counts, and for copies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from .._typing import AnyArray, ZarrFormat
from ..anscombe.codec_v2 import AnscombeTransformV2
from ..anscombe.codec_v3 import AnscombeTransformV3
from ..anscombe.codes import code_range, decode, encode, fill_count, resolved, rounded, smallest_code_dtype
from ..anscombe.parameters import TransformParameters
from ..calibration import Calibration
from ..errors import CodeRangeError
from ..options import PORTABLE, Profile, WriteOptions
from .count_range import ValueRange
from .legacy import legacy_codes, legacy_filter, legacy_parameters
from .record import MovieRecord


class Levels(Enum):
    """The levels that the counts of a movie are on before it is stored; a copy of a stored movie loses nothing more."""

    ANYWHERE = "anywhere"
    PORTABLE = "on the levels of the portable profile, which keeps them unchanged"
    DITHERED = "on the levels of the dithered transform, which depend on the position in the chunk"


@dataclass(frozen=True)
class Encoding:
    """How the counts of a movie are coded.

    Attributes
    ----------
    profile
        The profile that was planned for.
    filters
        Codecs before the compressor, for the array's Zarr format; none if the array holds counts.
    fill_value
        Fill value of the array: the top of the range, which cannot be mistaken for a dark pixel.
    parameters
        Parameters of the transform; None for lossless profiles.
    levels
        The levels of the counts before they are stored.
    """

    profile: Profile
    filters: tuple[Any, ...]
    fill_value: Any
    parameters: TransformParameters | None
    levels: Levels = Levels.ANYWHERE

    @property
    def dithered(self) -> bool:
        """Whether the stored counts are on the levels of the dithered transform at their position in the chunk."""
        dithers = self.parameters is not None and self.parameters.dithered
        return dithers and (bool(self.filters) or self.levels is Levels.DITHERED)

    @property
    def padding(self) -> Any:
        """The count that pads chunks at the edge of the array; it has the same code at every offset."""
        if self.dithered and self.filters and self.parameters and code_range(0, 0, self.parameters) == (0, 0):
            return type(self.fill_value)(0)
        return self.fill_value

    def prepared(self, counts: AnyArray) -> AnyArray:
        """Return the counts of a chunk as the codecs take them, rounded here if no codec rounds them."""
        if self.filters or self.parameters is None or self.levels is not Levels.ANYWHERE:
            return counts
        return rounded(counts, self.parameters).astype(counts.dtype, copy=False)

    @property
    def largest_change(self) -> float:
        """Largest change of a count, in addition to half a count [modelled noise standard deviations]."""
        return 0.0 if self.parameters is None else self.parameters.step / 2

    def restored(self, counts: AnyArray) -> AnyArray:
        """Return the counts that reading gives for the ``counts`` of a chunk."""
        if self.parameters is None or not self.filters:
            return self.prepared(counts)
        return decode(encode(counts, self.parameters), self.parameters).astype(counts.dtype)

    def compressed_array(self, counts: AnyArray) -> AnyArray:
        """Return the array that the compressor gets for ``counts``."""
        if self.parameters is None or not self.filters:
            return self.prepared(counts)
        if self.profile.legacy:
            return legacy_codes(counts, self.parameters)
        return encode(counts, self.parameters)


def plan_encoding(
    profile: Profile,
    dtype: np.dtype[Any],
    values: ValueRange,
    calibration: Calibration,
    step: float,
    zarr_format: ZarrFormat,
    levels: Levels = Levels.ANYWHERE,
) -> Encoding:
    """Choose the codecs of a movie. The range of its counts determines the dtype of the codes.

    Raises CodeRangeError if no integer dtype holds the codes, and CalibrationError or CodeRangeError outside the valid
    domain of a legacy format.
    """
    if not profile.rounds:
        top = np.iinfo(dtype).max if dtype.kind in "ui" else np.finfo(dtype).max
        return Encoding(profile, (), dtype.type(top), None)
    if profile.legacy:
        legacy = legacy_parameters(dtype, values, calibration, step, zarr_format)
        # this format does not transform the fill value, so it must be a valid code too
        return Encoding(profile, (legacy_filter(legacy, zarr_format),), dtype.type(np.iinfo("uint8").max), legacy)
    decoded = _decoded_dtype(dtype, values)
    noise = calibration.storage_noise
    wide = TransformParameters(
        zero_level=noise.zero_level,
        conversion_gain=noise.conversion_gain,
        encoded_dtype="int64",
        decoded_dtype=decoded,
        step=step,
        dither="position",
        under_root=noise.under_root,
        saturation=_saturation(noise.saturation, decoded),
    )
    low, high = code_range(values.low, values.high, wide)
    encoded = smallest_code_dtype(low, high)
    if encoded is None:
        raise CodeRangeError(
            f"counts from {values.low} to {values.high} at conversion_gain={noise.conversion_gain:g} have codes "
            "that no integer dtype holds: check the gain, or store the movie losslessly"
        )
    parameters = replace(wide, encoded_dtype=encoded)
    filters: tuple[Any, ...] = ()
    if profile.stores_codes:
        filters = _filters(parameters, dtype, zarr_format)
    return Encoding(profile, filters, fill_count(parameters, dtype), parameters, levels)


def too_coarse(dtype: np.dtype[Any], values: ValueRange, calibration: Calibration, step: float) -> bool:
    """Whether a floating-point dtype is too coarse at these counts to keep the bound on the loss."""
    if _decoded_dtype(dtype, values) != dtype.name or dtype.kind != "f":
        return False
    noise = calibration.storage_noise
    parameters = TransformParameters(
        noise.zero_level, noise.conversion_gain, "int64", dtype.name, step, under_root=noise.under_root
    )
    return not resolved(np.array([values.low, values.high]), parameters).all()


def _saturation(top: float | None, decoded: str) -> float | None:
    """Return the saturation if counts of this dtype can have that value, else None."""
    return None if top is None or (np.dtype(decoded).kind in "ui" and not float(top).is_integer()) else float(top)


def _decoded_dtype(dtype: np.dtype[Any], values: ValueRange) -> str:
    """Return the dtype in which levels are computed: an integer dtype if all counts are whole numbers.

    The highest stored count can exceed the highest raw count, so a copy may need the next wider dtype. That changes
    nothing: all unsigned dtypes have the same levels, and so have all signed ones.
    """
    if dtype.kind != "f" or not values.whole or max(values.high, -values.low) > 2.0 ** np.finfo(dtype).nmant:
        return dtype.name
    for name in ("uint16", "uint32", "uint64") if values.low >= 0 else ("int16", "int32", "int64"):
        if np.iinfo(name).min // 2 <= values.low and values.high <= np.iinfo(name).max // 2:
            return name
    return dtype.name


def _filters(parameters: TransformParameters, dtype: np.dtype[Any], zarr_format: ZarrFormat) -> tuple[Any, ...]:
    """Return the transform as codecs of a Zarr format."""
    if zarr_format == 3:
        return (AnscombeTransformV3(**asdict(parameters)),)
    from numcodecs import AsType

    transform = AnscombeTransformV2(**asdict(parameters))
    if parameters.decoded_dtype == dtype.name:
        return (transform,)
    # Zarr V2 passes no dtype to its filters, so whole numbers stored as floating point need a separate cast
    return AsType(encode_dtype=parameters.decoded_dtype, decode_dtype=dtype.name), transform


@dataclass(frozen=True)
class Origin:
    """The stored movie that is copied, completely or in part. A copy is not rounded again (invariant 2).

    ``chunk`` is the shape of its chunks; None for a part, because its counts change position in their chunks.
    """

    record: MovieRecord
    chunk: tuple[int, ...] | None = None

    @property
    def rounded(self) -> float:
        """The step with which its counts were rounded; 0 if they were not."""
        return self.record.step or self.record.rounded

    def has_noise(self, calibration: Calibration | None) -> bool:
        """Whether the copy keeps the noise model."""
        return calibration in (None, self.record.calibration)

    def options_of_copy(
        self, options: WriteOptions, calibration: Calibration | None
    ) -> tuple[WriteOptions, str | None]:
        """Return options that do not round the counts again, and the reason if that makes the copy lossless."""
        stored, same_noise = self.record, self.has_noise(calibration)
        displaced = not stored.step or (self.chunk is None and (stored.dithered or not same_noise))
        if displaced and 0 < options.step <= self.rounded:
            why = f"its counts were rounded by step {self.rounded:g} before, and would be rounded once more"
            return replace(options, step=0.0), why
        if options.step and same_noise:  # a finer step would round again and recover nothing
            return replace(options, step=max(options.step, stored.step)), None
        return options, None

    def levels(self, calibration: Calibration, step: float) -> Levels:
        """Return the levels of its counts; ANYWHERE if the copy has a different noise model or step."""
        stored = self.record
        if not stored.step or (stored.step, stored.calibration) != (step, calibration):
            return Levels.ANYWHERE
        if stored.dithered:
            return Levels.DITHERED
        return Levels.PORTABLE if stored.profile == PORTABLE.name else Levels.ANYWHERE
