"""What lies on disk: from a profile, a noise model and the range of the counts to Zarr codecs.

| profile       | on disk                                              |
|---------------|------------------------------------------------------|
| ``standard``  | Anscombe codes, then the best compressor by trial    |
| ``dense``     | Anscombe codes, then the entropy coder               |
| ``portable``  | counts at the decoded levels, standard codecs only   |
| ``lossless``  | counts as inserted, then as ``standard``; the        |
|               | entropy coder where ``dense`` was asked and it wins  |
| ``anscombe-v1`` | what the anscombe-transform package reads          |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._typing import AnyArray, ZarrFormat
from ..anscombe.codec_v2 import AnscombeTransformV2
from ..anscombe.codec_v3 import AnscombeTransformV3, DenseAnscombeTransformV3
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
    """

    profile: str
    filters: tuple[Any, ...]
    fill_value: Any
    parameters: TransformParameters | None

    def prepared(self, counts: AnyArray) -> AnyArray:
        """What is handed to zarr for ``counts``: themselves, or for ``portable`` the decoded levels."""
        if self.profile != "portable" or self.parameters is None:
            return counts
        levels = decode_codes(encode_counts(counts, self.parameters), self.parameters)
        return levels.astype(counts.dtype, copy=False)

    def compressed_array(self, counts: AnyArray) -> AnyArray:
        """The array that the compressor sees for ``counts``."""
        if self.parameters is None or self.profile == "portable":
            return self.prepared(counts)
        if self.profile == "anscombe-v1":
            return legacy_codes(counts, self.parameters)
        return encode_counts(counts, self.parameters)


def plan_encoding(
    profile: str,
    dtype: np.dtype[Any],
    values: ValueRange,
    calibration: Calibration,
    step: float,
    zarr_format: ZarrFormat,
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
    decoded = _decoded_dtype(dtype, values)
    wide = TransformParameters(
        zero_level=calibration.zero_level,
        conversion_gain=calibration.conversion_gain,
        encoded_dtype="int64",
        decoded_dtype=decoded,
        step=step,
    )
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
    filters: tuple[Any, ...] = ()
    if profile in ("standard", "dense"):
        v3_codec = DenseAnscombeTransformV3 if profile == "dense" else AnscombeTransformV3
        filters = _v3_filters(parameters, v3_codec) if zarr_format == 3 else _v2_filters(parameters, dtype)
    return Encoding(profile, filters, top_of_range(parameters, dtype), parameters)


def _decoded_dtype(dtype: np.dtype[Any], values: ValueRange) -> str:
    """The dtype in which levels are computed: integers for whole-numbered movies of any dtype that holds them all."""
    if dtype.kind != "f" or not values.whole or max(values.high, -values.low) > 2.0 ** np.finfo(dtype).nmant:
        return dtype.name
    for name in ("uint16", "int32", "int64"):
        if np.iinfo(name).min <= values.low and values.high <= np.iinfo(name).max // 2:
            return name
    return dtype.name


def _v3_filters(parameters: TransformParameters, codec: type[AnscombeTransformV3]) -> tuple[Any, ...]:
    return (
        codec(
            zero_level=parameters.zero_level,
            conversion_gain=parameters.conversion_gain,
            encoded_dtype=parameters.encoded_dtype,
            decoded_dtype=parameters.decoded_dtype,
            step=parameters.step,
        ),
    )


def _v2_filters(parameters: TransformParameters, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    from numcodecs import AsType

    transform = AnscombeTransformV2(
        zero_level=parameters.zero_level,
        conversion_gain=parameters.conversion_gain,
        encoded_dtype=parameters.encoded_dtype,
        decoded_dtype=parameters.decoded_dtype,
        step=parameters.step,
    )
    if parameters.decoded_dtype == dtype.name:
        return (transform,)
    # zarr V2 passes no dtype to its filters: whole numbers in floating point take a cast of their own
    return AsType(encode_dtype=parameters.decoded_dtype, decode_dtype=dtype.name), transform
