"""What lies on disk: from a profile, a noise model and the range of the counts to Zarr codecs."""

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
from ..options import Profile
from .count_range import ValueRange
from .legacy import legacy_codes, legacy_filter, legacy_parameters


class Levels(Enum):
    """Where the counts of a movie lie before it is stored: what was stored once loses nothing when it is moved."""

    ANYWHERE = "anywhere"
    PORTABLE = "on the levels of the portable profile, which keeps them as they are"
    DITHERED = "on the levels of the dithered transform, each at its place in the chunk"


@dataclass(frozen=True)
class Encoding:
    """How the counts of one movie become the array that zarr stores.

    Attributes
    ----------
    profile
        The profile that it follows.
    filters
        Codecs before the compressor, of the array's Zarr format; none where the counts are stored at their levels.
    fill_value
        Of the array: the top of the range, which cannot be mistaken for a dark pixel.
    parameters
        The transform; None for lossless profiles.
    levels
        Where the counts lie before they are stored.
    """

    profile: Profile
    filters: tuple[Any, ...]
    fill_value: Any
    parameters: TransformParameters | None
    levels: Levels = Levels.ANYWHERE

    @property
    def dithered(self) -> bool:
        """Whether the stored counts lie on the levels of the dithered transform, each at its place in the chunk."""
        dithers = self.parameters is not None and self.parameters.dithered
        return dithers and (bool(self.filters) or self.levels is Levels.DITHERED)

    @property
    def padding(self) -> Any:
        """The count that fills up chunks at the edge of the array: one that has the same code at every offset."""
        if self.dithered and self.filters and self.parameters and code_range(0, 0, self.parameters) == (0, 0):
            return type(self.fill_value)(0)
        return self.fill_value

    def prepared(self, counts: AnyArray) -> AnyArray:
        """What is handed to zarr for the ``counts`` of a chunk: themselves, or rounded where no codec does that."""
        if self.filters or self.parameters is None or self.levels is not Levels.ANYWHERE:
            return counts
        return rounded(counts, self.parameters).astype(counts.dtype, copy=False)

    @property
    def largest_change(self) -> float:
        """What storing changes a count by at most, beside half a count [modelled noise standard deviations]."""
        return 0.0 if self.parameters is None else self.parameters.step / 2

    def restored(self, counts: AnyArray) -> AnyArray:
        """What comes back for ``counts`` of one chunk."""
        if self.parameters is None or not self.filters:
            return self.prepared(counts)
        return decode(encode(counts, self.parameters), self.parameters).astype(counts.dtype)

    def compressed_array(self, counts: AnyArray) -> AnyArray:
        """The array that the compressor sees for ``counts``."""
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
    """Choose the codecs of a movie; the range of its counts decides the dtype of the codes.

    Raises CodeRangeError if no integer dtype holds the codes, and CalibrationError or CodeRangeError outside the valid
    domain of a legacy format.
    """
    if not profile.rounds:
        top = np.iinfo(dtype).max if dtype.kind in "ui" else np.finfo(dtype).max
        return Encoding(profile, (), dtype.type(top), None)
    if profile.legacy:
        legacy = legacy_parameters(dtype, values, calibration, step, zarr_format)
        # this format does not transform the fill value: it has to be a code as well
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
    """Whether the numbers of a floating-point dtype are too far apart for the bound on the loss, at these counts."""
    if _decoded_dtype(dtype, values) != dtype.name or dtype.kind != "f":
        return False
    noise = calibration.storage_noise
    parameters = TransformParameters(
        noise.zero_level, noise.conversion_gain, "int64", dtype.name, step, under_root=noise.under_root
    )
    return not resolved(np.array([values.low, values.high]), parameters).all()


def _saturation(top: float | None, decoded: str) -> float | None:
    """The saturation of a converter, where counts of this dtype can have it."""
    return None if top is None or (np.dtype(decoded).kind in "ui" and not float(top).is_integer()) else float(top)


def _decoded_dtype(dtype: np.dtype[Any], values: ValueRange) -> str:
    """The dtype in which levels are computed: integers for whole-numbered movies of any dtype that holds them all.

    The highest stored count may lie above the highest raw one and ask for the next wider dtype when the movie is
    moved. The levels of all unsigned dtypes are the same, and so are those of all signed ones.
    """
    if dtype.kind != "f" or not values.whole or max(values.high, -values.low) > 2.0 ** np.finfo(dtype).nmant:
        return dtype.name
    for name in ("uint16", "uint32", "uint64") if values.low >= 0 else ("int16", "int32", "int64"):
        if np.iinfo(name).min // 2 <= values.low and values.high <= np.iinfo(name).max // 2:
            return name
    return dtype.name


def _filters(parameters: TransformParameters, dtype: np.dtype[Any], zarr_format: ZarrFormat) -> tuple[Any, ...]:
    """The transform as a codec of a Zarr format."""
    if zarr_format == 3:
        return (AnscombeTransformV3(**asdict(parameters)),)
    from numcodecs import AsType

    transform = AnscombeTransformV2(**asdict(parameters))
    if parameters.decoded_dtype == dtype.name:
        return (transform,)
    # zarr V2 passes no dtype to its filters: whole numbers in floating point take a cast of their own
    return AsType(encode_dtype=parameters.decoded_dtype, decode_dtype=dtype.name), transform
