"""Read and write ``anscombe-v1``, the format of the anscombe-transform package."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._typing import AnyArray, ZarrFormat
from .._zarr import ArrayMetadata, all_codecs, replace_codecs
from ..anscombe.legacy import encode_readable, legacy_domain, refuse_top_counts
from ..anscombe.legacy_codecs import LegacyAnscombeV2, LegacyAnscombeV3
from ..anscombe.parameters import TransformParameters
from ..calibration import Calibration
from ..errors import CodeRangeError, ConfigurationError, PhotonCodecError
from .count_range import ValueRange

_NAME = "anscombe-v1"


def trusted_metadata(metadata: ArrayMetadata) -> ArrayMetadata:
    """Return the metadata with our codec for ``anscombe-v1``, whichever package's class zarr's registry chose.

    Both decode valid arrays alike. Ours raises an error where the format would give wrong counts.
    """
    dtype = metadata.dtype.to_native_dtype().name
    return replace_codecs(metadata, lambda codec: _trusted(codec, dtype))


def _trusted(codec: Any, dtype: str) -> Any:
    """Return our codec for one of theirs. The V2 codec is given the dtype, or it would read any array as int16."""
    if getattr(codec, "codec_id", "") == _NAME:
        decoded = dtype if dtype in ("int16", "uint16") else "int16"
        return LegacyAnscombeV2(codec.zero_level, codec.conversion_gain, decoded_dtype=decoded)
    if not isinstance(codec, LegacyAnscombeV3) and hasattr(codec, "to_dict"):
        document = codec.to_dict()
        if document.get("name") == _NAME:
            return LegacyAnscombeV3.from_dict(document)
    return codec


def legacy_calibration(metadata: ArrayMetadata) -> Calibration | None:
    """Return the noise model that an ``anscombe-v1`` array was coded with; None for other arrays."""
    for codec in all_codecs(metadata):
        if isinstance(codec, LegacyAnscombeV2 | LegacyAnscombeV3):
            return Calibration.given(codec.conversion_gain, codec.zero_level)
    return None


def legacy_parameters(
    dtype: np.dtype[Any], values: ValueRange, calibration: Calibration, step: float, zarr_format: ZarrFormat
) -> TransformParameters:
    """Return the parameters of an ``anscombe-v1`` array, checked against the limits of that format.

    Raises
    ------
    ConfigurationError
        If the step is not 0.5, or the format does not support the dtype.
    CalibrationError, CodeRangeError
        If codes would wrap or collide at this gain, if counts are out of range, or if ``uint16`` counts have the code
        that clamped counts also get.
    """
    way_out = "use profile='standard', which has no such limits"
    if step != 0.5:
        raise ConfigurationError(f"the anscombe-v1 format has a fixed step of 0.5, got step={step:g}: {way_out}")
    if dtype.name not in ("int16", "uint16"):
        raise ConfigurationError(f"the anscombe-v1 profile stores int16 and uint16 counts, got {dtype}: {way_out}")
    if values.low < 0 or values.high > 32767:
        raise CodeRangeError(
            f"the anscombe-v1 format clamps counts outside 0 to 32767, the movie has {values.low} to {values.high}: "
            f"{way_out}"
        )
    gain, zero = calibration.conversion_gain, calibration.zero_level
    problem: PhotonCodecError | None = None
    for encoded in ("uint8", "uint16") if zarr_format == 3 else ("uint8",):  # its V2 codec supports only uint8
        try:
            table, _ = legacy_domain(gain, zero, encoded, dtype.name)
        except PhotonCodecError as error:
            problem = problem or error
            continue
        refuse_top_counts(int(values.high), table, dtype, way_out)
        return TransformParameters(zero, gain, encoded, dtype.name, step)
    assert problem is not None
    raise problem


def legacy_filter(parameters: TransformParameters, zarr_format: ZarrFormat) -> Any:
    """Return the codec that writes ``anscombe-v1``."""
    if zarr_format == 2:
        return LegacyAnscombeV2(parameters.zero_level, parameters.conversion_gain)
    return LegacyAnscombeV3(
        zero_level=parameters.zero_level,
        conversion_gain=parameters.conversion_gain,
        encoded_dtype=parameters.encoded_dtype,
        decoded_dtype=parameters.decoded_dtype,
    )


def legacy_codes(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Encode ``counts`` in this format; raises CodeRangeError for counts that would not read back."""
    return encode_readable(
        counts,
        conversion_gain=parameters.conversion_gain,
        zero_level=parameters.zero_level,
        encoded_dtype=parameters.encoded_dtype,
        decoded_dtype=parameters.decoded_dtype,
    )
