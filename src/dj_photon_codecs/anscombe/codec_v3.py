"""The Anscombe transform as Zarr V3 array-to-array codecs, plain and with dither.

Specified in ``docs/spec/anscombe.md`` and ``docs/spec/dithered.md``. The mathematics is in :mod:`.transform` and
:mod:`.dithered`; these classes only translate between Zarr and those functions.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayArrayCodec

from .._typing import AnyArray
from .._zarr import ArraySpec, zarr_dtype
from ..errors import ConfigurationError
from .dithered import decode_dithered, encode_dithered
from .parameters import TransformParameters
from .transform import decode_codes, encode_counts

if TYPE_CHECKING:
    from zarr.core.buffer import NDBuffer

#: The names on disk. One name is one format for ever.
CODEC_NAME = "dj_photon.anscombe"
DITHERED_NAME = "dj_photon_codecs.dithered_anscombe"

_KEYS = ("zero_level", "conversion_gain", "encoded_dtype", "decoded_dtype", "step")


@dataclass(frozen=True)
class AnscombeTransformV3(ArrayArrayCodec):
    """Zarr V3 codec from photon counts to codes of equal noise.

    Parameters
    ----------
    zero_level
        Counts at no light [ADU].
    conversion_gain
        Counts per photon [ADU/photon], finite and above 0.
    encoded_dtype
        Integer dtype of the codes. A count whose code does not fit raises when it is written.
    decoded_dtype
        Dtype in which the counts are whole or real numbers; None takes the dtype of the array. It is the
        dtype of the array, or an integer dtype for a floating-point array that holds whole numbers only.
    step
        Quantisation in noise standard deviations.

    Raises
    ------
    CalibrationError, ConfigurationError
        At construction, for parameters outside their range.
    """

    is_fixed_size: ClassVar[bool] = True  # type: ignore[misc]  # zarr declares a plain attribute
    codec_name: ClassVar[str] = CODEC_NAME

    #: The two directions of the transform.
    _to_codes = staticmethod(encode_counts)
    _to_counts = staticmethod(decode_codes)

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str | None = None
    step: float = 0.5

    def __post_init__(self) -> None:
        checked = self._parameters(self.decoded_dtype or "uint16")
        for name in _KEYS:
            if name != "decoded_dtype" or self.decoded_dtype is not None:
                object.__setattr__(self, name, getattr(checked, name))

    def _parameters(self, decoded_dtype: str) -> TransformParameters:
        return TransformParameters(
            zero_level=self.zero_level,
            conversion_gain=self.conversion_gain,
            encoded_dtype=self.encoded_dtype,
            decoded_dtype=decoded_dtype,
            step=self.step,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from its metadata; unknown and missing keys are errors, as the specification has it."""
        configuration = data.get("configuration") or {}
        if not isinstance(configuration, dict):
            raise ConfigurationError(f"the configuration of {cls.codec_name} is an object, got {configuration!r:.200}")
        unknown = sorted(set(configuration) - set(_KEYS))
        missing = sorted(set(_KEYS) - set(configuration))
        if data.get("name") != cls.codec_name or unknown or missing:
            raise ConfigurationError(
                f"not a valid {cls.codec_name} codec: name {data.get('name')!r}, "
                f"unknown keys {unknown}, missing keys {missing}"
            )
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """The codec's metadata: its name, and a configuration with every parameter."""
        return {"name": self.codec_name, "configuration": {key: getattr(self, key) for key in _KEYS}}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Take the decoded dtype from the array where none was given."""
        if self.decoded_dtype is not None:
            return self
        return replace(self, decoded_dtype=array_spec.dtype.to_native_dtype().name)

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Check the codec against an array.

        Raises
        ------
        ConfigurationError
            When the array's dtype is neither the decoded dtype nor a floating-point dtype that holds it.
        """
        native = dtype.to_native_dtype()
        if self.decoded_dtype is None and native.kind in "uif":
            return
        if native.name != self.decoded_dtype and not (
            native.kind == "f" and self.decoded_dtype is not None and np.dtype(self.decoded_dtype).kind in "ui"
        ):
            raise ConfigurationError(
                f"{self.codec_name} with decoded_dtype={self.decoded_dtype!r} cannot code an array of {native}: "
                f"use decoded_dtype={native.name!r}"
            )

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """The specification of the codes: their dtype, and the code of the fill value."""
        fill = np.asarray(chunk_spec.fill_value, dtype=chunk_spec.dtype.to_native_dtype())
        return replace(
            chunk_spec,
            dtype=zarr_dtype(np.dtype(self.encoded_dtype)),
            fill_value=self._encode(fill.reshape(1))[0],
        )

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Bytes of the codes of ``input_byte_length`` bytes of counts."""
        counts = input_byte_length // chunk_spec.dtype.to_native_dtype().itemsize
        return counts * np.dtype(self.encoded_dtype).itemsize

    def _encode(self, counts: AnyArray) -> AnyArray:
        return self._to_codes(counts, self._parameters(self.decoded_dtype or counts.dtype.name))

    def _decode(self, codes: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
        return self._to_counts(codes, self._parameters(self.decoded_dtype or dtype.name)).astype(dtype, copy=False)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        codes = await asyncio.to_thread(self._encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)

    async def _decode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        counts = await asyncio.to_thread(self._decode, chunk_array.as_numpy_array(), dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(counts.reshape(chunk_spec.shape))


class DenseAnscombeTransformV3(AnscombeTransformV3):
    """The same codec under the name that the first release gave it in arrays of the ``dense`` profile."""

    codec_name: ClassVar[str] = "dj_photon_codecs.anscombe"


class DitheredAnscombeV3(AnscombeTransformV3):
    """The Anscombe transform with subtractive dither, ``dj_photon_codecs.dithered_anscombe`` on disk.

    Takes the parameters of :class:`AnscombeTransformV3`, and needs codes of one more at either end. The mean of many
    stored counts is that of the raw ones, at any intensity. The offset of a count follows from its place in the chunk.
    Specified in ``docs/spec/dithered.md``; the mathematics is in :mod:`.dithered`.
    """

    #: All that zarr tells a reader without this package is the name of the first codec it does not know: this one
    #: is what to install.
    codec_name: ClassVar[str] = DITHERED_NAME

    _to_codes = staticmethod(encode_dithered)
    _to_counts = staticmethod(decode_dithered)
