"""What lies on disk: from a profile, a noise model and the range of the counts to Zarr codecs.

| profile       | on disk                                              |
|---------------|------------------------------------------------------|
| ``standard``  | dithered Anscombe codes, then the best compressor by |
|               | trial                                                |
| ``dense``     | dithered Anscombe codes, then the entropy coder      |
| ``portable``  | counts at the decoded levels, standard codecs only:  |
|               | few levels, so without dither                        |
| ``lossless``  | counts as inserted, then as ``standard``; the        |
|               | entropy coder where ``dense`` was asked and it wins  |
| ``anscombe-v1`` | what the anscombe-transform package reads          |
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from .._typing import AnyArray, ZarrFormat
from ..anscombe.codec_v2 import AnscombeTransformV2, DitheredAnscombeV2
from ..anscombe.codec_v3 import AnscombeTransformV3, DenseAnscombeTransformV3, DitheredAnscombeV3
from ..anscombe.dithered import code_range, encode_dithered, fill_count
from ..anscombe.parameters import TransformParameters
from ..anscombe.transform import decode_codes, encode_counts, rounded_codes, smallest_code_dtype, top_of_range
from ..calibration import Calibration
from ..errors import CodeRangeError, ConfigurationError
from .legacy import legacy_codes, legacy_filter, legacy_parameters
from .values import ValueRange

PROFILES = ("standard", "dense", "portable", "lossless", "anscombe-v1")


def check_profile(profile: object) -> str:
    """The name of a profile.

    Raises
    ------
    ConfigurationError
        When there is none of that name.
    """
    if profile not in PROFILES:
        raise ConfigurationError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return str(profile)


class Levels(Enum):
    """Where the counts of a movie lie before it is stored: what was stored once loses nothing when it is moved."""

    ANYWHERE = "anywhere"
    PLAIN = "on the levels of the plain transform"
    DITHERED = "on the levels of the dithered transform, each at its place in the chunk"


@dataclass(frozen=True)
class Encoding:
    """How the counts of one movie become the array that zarr stores.

    Attributes
    ----------
    profile
        Its name.
    filters
        Codecs before the compressor, of the array's Zarr format.
    fill_value
        Of the array: the top of the range, which nobody takes for darkness.
    parameters
        The transform; None for lossless profiles.
    dithered
        Whether the stored counts lie on the levels of the dithered transform.
    """

    profile: str
    filters: tuple[Any, ...]
    fill_value: Any
    parameters: TransformParameters | None
    dithered: bool = False

    @property
    def padding(self) -> Any:
        """The count that fills up chunks at the edge of the array: one that has the same code at every offset."""
        if self.dithered and self.filters and self.parameters and code_range(0, 0, self.parameters) == (0, 0):
            return type(self.fill_value)(0)
        return self.fill_value

    def prepared(self, counts: AnyArray) -> AnyArray:
        """What is handed to zarr for ``counts``: themselves, or for ``portable`` the decoded levels."""
        if self.profile != "portable" or self.parameters is None or self.dithered:
            return counts
        levels = decode_codes(encode_counts(counts, self.parameters), self.parameters)
        return levels.astype(counts.dtype, copy=False)

    def compressed_array(self, counts: AnyArray) -> AnyArray:
        """The array that the compressor sees for ``counts``."""
        if self.parameters is None or self.profile == "portable":
            return self.prepared(counts)
        if self.profile == "anscombe-v1":
            return legacy_codes(counts, self.parameters)
        return (encode_dithered if self.dithered else encode_counts)(counts, self.parameters)


def plan_encoding(
    profile: str,
    dtype: np.dtype[Any],
    values: ValueRange,
    calibration: Calibration,
    step: float,
    zarr_format: ZarrFormat,
    levels: Levels = Levels.ANYWHERE,
) -> Encoding:
    """Choose the codecs of a movie.

    Parameters
    ----------
    profile
        A profile name; ``lossless`` where the calibration is not reliable.
    dtype
        Of the counts.
    values
        Their range: it decides the dtype of the codes.
    calibration
        The noise model.
    step
        Quantisation in noise standard deviations.
    zarr_format
        2 or 3.
    levels
        Where the counts lie: on levels of either transform, it is the one to store them with.

    Raises
    ------
    CodeRangeError
        When no integer dtype holds the codes.
    CalibrationError, CodeRangeError
        For ``anscombe-v1`` outside the valid domain of that format.
    """
    if profile == "lossless":
        top = np.iinfo(dtype).max if dtype.kind in "ui" else np.finfo(dtype).max
        return Encoding(profile, (), dtype.type(top), None)
    if profile == "anscombe-v1":
        legacy = legacy_parameters(dtype, values, calibration, step, zarr_format)
        # this format does not transform the fill value: it has to be a code as well
        return Encoding(profile, (legacy_filter(legacy, zarr_format),), dtype.type(np.iinfo("uint8").max), legacy)
    # Readers of the portable profile decode nothing, and dithered levels are too many for a compressor.
    dithered = levels is Levels.DITHERED or (levels is Levels.ANYWHERE and profile != "portable")
    decoded = _decoded_dtype(dtype, values, dithered)
    wide = TransformParameters(
        zero_level=calibration.zero_level,
        conversion_gain=calibration.conversion_gain,
        encoded_dtype="int64",
        decoded_dtype=decoded,
        step=step,
    )
    if dithered:
        low, high = code_range(values.low, values.high, wide)
    else:
        low, high = (float(rounded_codes(edge, wide)) for edge in (values.low, values.high))
    encoded = smallest_code_dtype(low, high)
    if encoded is None:
        raise CodeRangeError(
            f"counts from {values.low} to {values.high} at conversion_gain={calibration.conversion_gain:g} have codes "
            "that no integer dtype holds: check the gain, or store the movie losslessly"
        )
    parameters = TransformParameters(
        zero_level=calibration.zero_level,
        conversion_gain=calibration.conversion_gain,
        encoded_dtype=encoded,
        decoded_dtype=decoded,
        step=step,
    )
    fill_value = (fill_count if dithered else top_of_range)(parameters, dtype)
    filters: tuple[Any, ...] = ()
    if profile in ("standard", "dense"):
        filters = (
            _v3_filters(parameters, profile, dithered) if zarr_format == 3 else _v2_filters(parameters, dtype, dithered)
        )
    return Encoding(profile, filters, fill_value, parameters, dithered)


def _decoded_dtype(dtype: np.dtype[Any], values: ValueRange, dithered: bool) -> str:
    """The dtype in which levels are computed: integers for whole-numbered movies of any dtype that holds them all.

    The highest stored count may lie above the highest raw one and ask for the next wider dtype when the movie is
    moved. The dithered levels of all unsigned dtypes are the same, and so are those of all signed ones.
    """
    if dtype.kind != "f" or not values.whole or max(values.high, -values.low) > 2.0 ** np.finfo(dtype).nmant:
        return dtype.name
    unsigned = dithered and values.low >= 0
    for name in ("uint16", "uint32", "uint64") if unsigned else ("uint16", "int32", "int64"):
        if np.iinfo(name).min <= values.low and values.high <= np.iinfo(name).max // 2:
            return name
    return dtype.name


def _v3_filters(parameters: TransformParameters, profile: str, dithered: bool) -> tuple[Any, ...]:
    plain = DenseAnscombeTransformV3 if profile == "dense" else AnscombeTransformV3
    return ((DitheredAnscombeV3 if dithered else plain)(**asdict(parameters)),)


def _v2_filters(parameters: TransformParameters, dtype: np.dtype[Any], dithered: bool) -> tuple[Any, ...]:
    from numcodecs import AsType

    transform = (DitheredAnscombeV2 if dithered else AnscombeTransformV2)(**asdict(parameters))
    if parameters.decoded_dtype == dtype.name:
        return (transform,)
    # zarr V2 passes no dtype to its filters: whole numbers in floating point take a cast of their own
    return AsType(encode_dtype=parameters.decoded_dtype, decode_dtype=dtype.name), transform
