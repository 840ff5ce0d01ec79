"""Zarr codecs for arrays that the anscombe-transform package wrote, ``anscombe-v1`` on disk.

They open every such array, decode what that package decodes right exactly as it does, and raise where it would
return wrong counts. Found through entry points, so that these files open with neither package imported.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
from zarr.abc.codec import ArrayArrayCodec

from .._typing import AnyArray
from .._zarr import ArraySpec, zarr_dtype
from ..errors import ConfigurationError
from .legacy import decode, encode_readable, legacy_domain, refuse_clamped

if TYPE_CHECKING:
    from zarr.core.buffer import NDBuffer

LEGACY_NAME = "anscombe-v1"


@dataclass(frozen=True)
class LegacyAnscombeV3(ArrayArrayCodec):
    """Zarr V3 codec ``anscombe-v1``.

    Parameters
    ----------
    zero_level, conversion_gain
        The noise model [ADU, ADU/photon].
    encoded_dtype, decoded_dtype
        Integer dtypes of codes and counts.
    """

    is_fixed_size: ClassVar[bool] = True  # type: ignore[misc]  # zarr declares a plain attribute

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "int16"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from its metadata; the dtypes have that package's defaults."""
        configuration = data.get("configuration") or {}
        try:
            return cls(**configuration)
        except TypeError as error:
            raise ConfigurationError(f"not a valid {LEGACY_NAME} codec: configuration {configuration}") from error

    def to_dict(self) -> dict[str, Any]:
        """The codec's metadata, as that package writes it."""
        keys = ("zero_level", "conversion_gain", "encoded_dtype", "decoded_dtype")
        return {"name": LEGACY_NAME, "configuration": {key: getattr(self, key) for key in keys}}

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """The specification of the codes; the fill value stays as it is, as that package leaves it."""
        return replace(chunk_spec, dtype=zarr_dtype(np.dtype(self.encoded_dtype)))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Bytes of the codes of ``input_byte_length`` bytes of counts."""
        counts = input_byte_length // chunk_spec.dtype.to_native_dtype().itemsize
        return counts * np.dtype(self.encoded_dtype).itemsize

    def _encode(self, counts: AnyArray) -> AnyArray:
        return encode_readable(
            counts,
            conversion_gain=self.conversion_gain,
            zero_level=self.zero_level,
            encoded_dtype=self.encoded_dtype,
            decoded_dtype=self.decoded_dtype,
        )

    def _decode(self, codes: AnyArray, spec: ArraySpec) -> AnyArray:
        counts = decode(
            np.ascontiguousarray(codes),
            conversion_gain=self.conversion_gain,
            zero_level=self.zero_level,  # type: ignore[arg-type]  # that signature says int, its arithmetic is real
            encoded_dtype=self.encoded_dtype,
            decoded_dtype=self.decoded_dtype,
        )
        # That package's default for decoded_dtype is int16 in arrays of any dtype: what it may have clamped, the
        # dtype of the array says.
        native: np.dtype[Any] = spec.dtype.to_native_dtype()
        _, inverse = legacy_domain(self.conversion_gain, self.zero_level, self.encoded_dtype, self.decoded_dtype)
        refuse_clamped(codes, inverse, native)
        if native.kind in "ui" and np.iinfo(native).max < np.iinfo(counts.dtype).max:
            # the middle of the counts of a code may lie above all that an 8-bit array holds, and would wrap
            counts = np.minimum(counts, np.iinfo(native).max)
        return counts.reshape(spec.shape).astype(native, copy=False)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        codes = await asyncio.to_thread(self._encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)

    async def _decode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        counts = await asyncio.to_thread(self._decode, chunk_array.as_numpy_array(), chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(counts)


class LegacyAnscombeV2(Codec):  # type: ignore[misc]  # numcodecs ships no types for its base class
    """numcodecs codec ``anscombe-v1``.

    Its configuration on disk has no dtypes: an array that is opened again has codes in ``uint8`` and counts in
    ``int16``. Zarr does not say the dtype of the array either, so that clamped counts are found only where it is
    given as ``decoded_dtype``, as ``open_movie`` does.

    Parameters
    ----------
    zero_level, conversion_gain
        The noise model [ADU, ADU/photon].
    encoded_dtype, decoded_dtype
        Integer dtypes of codes and counts.
    """

    codec_id = LEGACY_NAME

    def __init__(
        self, zero_level: float, conversion_gain: float, encoded_dtype: str = "uint8", decoded_dtype: str = "int16"
    ) -> None:
        self.zero_level = zero_level
        self.conversion_gain = conversion_gain
        self.encoded_dtype = encoded_dtype
        self.decoded_dtype = decoded_dtype

    def encode(self, buf: Any) -> AnyArray:
        """Codes of counts; a buffer without a dtype is taken for counts in ``decoded_dtype``."""
        counts = buf if isinstance(buf, np.ndarray) else ensure_contiguous_ndarray(buf).view(self.decoded_dtype)
        return encode_readable(
            counts,
            conversion_gain=self.conversion_gain,
            zero_level=self.zero_level,
            encoded_dtype=self.encoded_dtype,
            decoded_dtype=self.decoded_dtype,
        )

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Counts of codes, flat, into ``out`` if it is given."""
        codes = ensure_contiguous_ndarray(buf).view(self.encoded_dtype)
        counts = decode(
            codes,
            conversion_gain=self.conversion_gain,
            zero_level=self.zero_level,  # type: ignore[arg-type]  # that signature says int, its arithmetic is real
            encoded_dtype=self.encoded_dtype,
            decoded_dtype=self.decoded_dtype,
        )
        return ndarray_copy(counts, out)

    def get_config(self) -> dict[str, Any]:
        """The configuration as that package writes it."""
        return {"id": self.codec_id, "zero_level": self.zero_level, "conversion_gain": self.conversion_gain}


# The anscombe-transform package registers a class of its own under the same name when it is imported. zarr warns
# when a name has two classes and nobody said which; say so, unless the user did. This runs when zarr looks the
# name up, whichever package was imported first.
if "anscombe-v1" not in zarr.config.get("codecs", {}):
    zarr.config.set({"codecs.anscombe-v1": f"{LegacyAnscombeV3.__module__}.{LegacyAnscombeV3.__qualname__}"})
