"""The Anscombe transform as a Zarr V3 array-to-array codec.

``docs/spec/anscombe.md`` specifies the format. The classes only translate between Zarr and the functions in
:mod:`.codes`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayArrayCodec

from .._typing import AnyArray, Box
from .._zarr import ArraySpec, EncodingRoom, NDBuffer, zarr_dtype
from ..errors import ConfigurationError
from .codes import decode, encode
from .parameters import CODEC_NAME, KEYS, UNDER_ROOT, TransformParameters, check_keys


class CountsCodec(ArrayArrayCodec):
    """Base of the codecs from counts to codes: zarr's asynchronous interface to ``encode_now`` and ``decode_now``."""

    is_fixed_size: ClassVar[bool] = True  # type: ignore[misc]  # zarr declares a plain attribute
    encoded_dtype: str

    @abstractmethod
    def encode_now(self, counts: AnyArray, room: EncodingRoom) -> AnyArray:
        """Encode a chunk in the calling thread."""

    def decode_now(
        self, codes: AnyArray, chunk_spec: ArraySpec, room: Any, threads: int, box: Box | None = None
    ) -> AnyArray:
        """Decode a whole chunk in the calling thread, whatever the box."""
        return self._decode(codes, chunk_spec)

    @abstractmethod
    def _decode(self, codes: AnyArray, spec: ArraySpec) -> AnyArray:
        """Decode a chunk to counts in the shape and dtype of the array."""

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Return the size in bytes of the codes of ``input_byte_length`` bytes of counts."""
        counts = input_byte_length // chunk_spec.dtype.to_native_dtype().itemsize
        return counts * np.dtype(self.encoded_dtype).itemsize

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        codes = await asyncio.to_thread(self.encode_now, chunk_array.as_numpy_array(), np.empty)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)

    async def _decode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        counts = await asyncio.to_thread(self._decode, chunk_array.as_numpy_array(), chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(counts)


@dataclass(frozen=True)
class AnscombeTransformV3(CountsCodec):
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

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str | None = None
    step: float = 0.5
    dither: str = "none"
    under_root: float = UNDER_ROOT
    saturation: float | None = None

    def __post_init__(self) -> None:
        checked = asdict(self._checked)
        if self.decoded_dtype is None:
            del checked["decoded_dtype"]
        vars(self).update(checked)

    @cached_property
    def _checked(self) -> TransformParameters:
        given = {name: getattr(self, name) for name in KEYS}
        return TransformParameters(**{**given, "decoded_dtype": self.decoded_dtype or "float64"})

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
        """Raise ConfigurationError unless the array has the decoded dtype, or is floating-point and that an integer."""
        native = dtype.to_native_dtype()
        decoded = np.dtype(self.decoded_dtype or native)
        whole_in_float = native.kind == "f" and decoded.kind in "ui"
        if native.kind not in "uif" or (native.name != decoded.name and not whole_in_float):
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
            fill_value=encode(fill.reshape(1), self.parameters(fill.dtype))[0],
        )

    def parameters(self, dtype: np.dtype[Any]) -> TransformParameters:
        """Return the transform parameters for an array of this dtype."""
        return self._checked if self.decoded_dtype else replace(self._checked, decoded_dtype=dtype.name)

    def encode_now(self, counts: AnyArray, room: EncodingRoom) -> AnyArray:
        """Encode a chunk in the calling thread."""
        return encode(counts, self.parameters(counts.dtype), room(counts.size, self.encoded_dtype))

    def _decode(self, codes: AnyArray, spec: ArraySpec) -> AnyArray:
        dtype = spec.dtype.to_native_dtype()
        return decode(codes, self.parameters(dtype)).astype(dtype, copy=False).reshape(spec.shape)
