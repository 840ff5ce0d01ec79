"""The Anscombe transform as a Zarr V3 array-to-array codec.

``docs/spec/anscombe.md`` specifies the format. This class only translates between Zarr and the functions in
:mod:`.cells` and :mod:`.codes`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayArrayCodec

from .._typing import AnyArray, Box
from .._zarr import ArraySpec, EncodingRoom, NDBuffer, zarr_dtype
from ..errors import ConfigurationError
from .codes import decode, encode
from .parameters import CODEC_NAME, KEYS, UNDER_ROOT, TransformParameters, check_keys


@dataclass(frozen=True)
class AnscombeTransformV3(ArrayArrayCodec):
    """Zarr V3 codec that quantises photon counts in steps of their noise.

    Parameters
    ----------
    zero_level, conversion_gain, encoded_dtype, step, dither, under_root, saturation
        See :class:`~dj_photon_codecs.AnscombeTransformV2`.
    decoded_dtype
        Dtype of the counts: the dtype of the array, or an integer dtype for a floating-point array of whole numbers.
        None takes the dtype of the array.

    Raises
    ------
    CalibrationError, ConfigurationError
        If a parameter is out of range.
    """

    is_fixed_size: ClassVar[bool] = True  # type: ignore[misc]  # zarr declares a plain attribute

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str | None = None
    step: float = 0.5
    dither: str = "none"
    under_root: float = UNDER_ROOT
    saturation: float | None = None

    def __post_init__(self) -> None:
        checked = self._parameters(self.decoded_dtype or "float64")
        for name in KEYS:
            if name != "decoded_dtype" or self.decoded_dtype is not None:
                object.__setattr__(self, name, getattr(checked, name))

    def _parameters(self, decoded_dtype: str) -> TransformParameters:
        given = {name: getattr(self, name) for name in KEYS}
        return TransformParameters(**{**given, "decoded_dtype": decoded_dtype})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create the codec from its metadata. The specification makes unknown and missing keys an error."""
        configuration = data.get("configuration") or {}
        if data.get("name") != CODEC_NAME or not isinstance(configuration, dict):
            raise ConfigurationError(
                f"not a valid {CODEC_NAME} codec: name {data.get('name')!r}, configuration {configuration!r:.200}"
            )
        check_keys(configuration)
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's metadata: its name and a configuration with every parameter."""
        return {"name": CODEC_NAME, "configuration": {key: getattr(self, key) for key in KEYS}}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Take the decoded dtype from the array if none was given."""
        if self.decoded_dtype is not None:
            return self
        return replace(self, decoded_dtype=array_spec.dtype.to_native_dtype().name)

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Check the codec against an array.

        Raises
        ------
        ConfigurationError
            If the array's dtype is not the decoded dtype, unless it is floating-point and the decoded dtype an integer.
        """
        native = dtype.to_native_dtype()
        if self.decoded_dtype is None and native.kind in "uif":
            return
        if native.name != self.decoded_dtype and not (
            native.kind == "f" and self.decoded_dtype is not None and np.dtype(self.decoded_dtype).kind in "ui"
        ):
            raise ConfigurationError(
                f"{CODEC_NAME} with decoded_dtype={self.decoded_dtype!r} cannot code an array of {native}: "
                f"use decoded_dtype={native.name!r}"
            )

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """Return the array spec of the codes, with their dtype and the encoded fill value."""
        fill = np.asarray(chunk_spec.fill_value, dtype=chunk_spec.dtype.to_native_dtype())
        return replace(
            chunk_spec,
            dtype=zarr_dtype(np.dtype(self.encoded_dtype)),
            fill_value=self._encode(fill.reshape(1))[0],
        )

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Return the size in bytes of the codes of ``input_byte_length`` bytes of counts."""
        counts = input_byte_length // chunk_spec.dtype.to_native_dtype().itemsize
        return counts * np.dtype(self.encoded_dtype).itemsize

    def parameters(self, dtype: np.dtype[Any]) -> TransformParameters:
        """Return the transform parameters for an array of this dtype."""
        return self._parameters(self.decoded_dtype or dtype.name)

    def _encode(self, counts: AnyArray) -> AnyArray:
        return encode(counts, self.parameters(counts.dtype))

    def _decode(self, codes: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
        return decode(codes, self.parameters(dtype)).astype(dtype, copy=False)

    def decode_now(
        self, codes: AnyArray, chunk_spec: ArraySpec, room: Any, threads: int, box: Box | None = None
    ) -> AnyArray:
        """Decode a whole chunk in the calling thread, whatever the box."""
        return self._decode(codes, chunk_spec.dtype.to_native_dtype()).reshape(chunk_spec.shape)

    def encode_now(self, counts: AnyArray, room: EncodingRoom) -> AnyArray:
        """Encode a chunk in the calling thread."""
        return encode(counts, self.parameters(counts.dtype), room(counts.size, self.encoded_dtype))

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        codes = await asyncio.to_thread(self._encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)

    async def _decode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        counts = await asyncio.to_thread(self._decode, chunk_array.as_numpy_array(), dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(counts.reshape(chunk_spec.shape))
