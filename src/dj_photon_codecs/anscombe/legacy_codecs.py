"""Zarr codecs for arrays written by the anscombe-transform package (``anscombe-v1`` on disk).

They open every such array. They return the same counts as that package, or raise an error if its counts would be
wrong. Zarr finds them through entry points, so these arrays open without importing either package.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

from .._typing import AnyArray
from .._zarr import ArraySpec, EncodingRoom, zarr_dtype
from ..errors import ConfigurationError
from .codec_v3 import CountsCodec
from .legacy import decode, encode_readable, legacy_domain, refuse_clamped

LEGACY_NAME = "anscombe-v1"


@dataclass(frozen=True)
class LegacyAnscombeV3(CountsCodec):
    """Zarr V3 codec ``anscombe-v1``; ``zero_level`` in ADU and ``conversion_gain`` in ADU/photon."""

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "int16"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create the codec from its metadata. Missing dtypes take the defaults of anscombe-transform."""
        configuration = data.get("configuration") or {}
        try:
            return cls(**configuration)
        except TypeError as error:
            raise ConfigurationError(f"not a valid {LEGACY_NAME} codec: configuration {configuration}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as anscombe-transform writes it."""
        return {"name": LEGACY_NAME, "configuration": asdict(self)}

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """Return the array spec of the codes. As in anscombe-transform, the fill value stays unchanged."""
        return replace(chunk_spec, dtype=zarr_dtype(np.dtype(self.encoded_dtype)))

    def encode_now(self, counts: AnyArray, room: EncodingRoom) -> AnyArray:
        """Encode a chunk in the calling thread."""
        return encode_readable(counts, **asdict(self))

    def _decode(self, codes: AnyArray, spec: ArraySpec) -> AnyArray:
        counts = decode(np.ascontiguousarray(codes), **asdict(self))
        # In anscombe-transform, decoded_dtype defaults to int16 for arrays of any dtype. Whether counts may have been
        # clamped therefore depends on the dtype of the array.
        native: np.dtype[Any] = spec.dtype.to_native_dtype()
        _, inverse = legacy_domain(self.conversion_gain, self.zero_level, self.encoded_dtype, self.decoded_dtype)
        refuse_clamped(codes, inverse, native)
        if native.kind in "ui" and np.iinfo(native).max < np.iinfo(counts.dtype).max:
            # the middle of the counts of a code may exceed the range of an 8-bit array, and would overflow
            counts = np.minimum(counts, np.iinfo(native).max)
        return counts.reshape(spec.shape).astype(native, copy=False)


@dataclass(eq=False, repr=False)
class LegacyAnscombeV2(Codec):  # type: ignore[misc]  # numcodecs ships no types for its base class
    """numcodecs codec ``anscombe-v1``.

    ``zero_level`` is in ADU and ``conversion_gain`` in ADU/photon. The configuration on disk has no dtypes: a reopened
    array has ``uint8`` codes and ``int16`` counts. Zarr does not pass the dtype of the array to the codec either.
    Clamped counts are therefore detected only if ``decoded_dtype`` is given, as ``open_movie`` does.
    """

    codec_id = LEGACY_NAME

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "int16"

    def encode(self, buf: Any) -> AnyArray:
        """Encode counts; a plain buffer is read as ``decoded_dtype``."""
        counts = buf if isinstance(buf, np.ndarray) else ensure_contiguous_ndarray(buf).view(self.decoded_dtype)
        return encode_readable(counts, **asdict(self))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode codes to flat counts, into ``out`` if given."""
        codes = ensure_contiguous_ndarray(buf).view(self.encoded_dtype)
        return ndarray_copy(decode(codes, **asdict(self)), out)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration as anscombe-transform writes it."""
        return {"id": self.codec_id, "zero_level": self.zero_level, "conversion_gain": self.conversion_gain}


# On import, anscombe-transform registers its own class under the same name. zarr warns if a name has two classes and
# the configuration does not choose one, so choose ours unless the user has chosen. This runs when zarr looks up the
# name, whichever package was imported first.
if "anscombe-v1" not in zarr.config.get("codecs", {}):
    zarr.config.set({"codecs.anscombe-v1": f"{LegacyAnscombeV3.__module__}.{LegacyAnscombeV3.__qualname__}"})
