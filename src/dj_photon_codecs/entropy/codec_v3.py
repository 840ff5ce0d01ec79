"""The Zarr V3 array-to-bytes codec ``dj_photon_codecs.rans``, a thin layer over :mod:`.coder`.

The format is specified in ``docs/spec/rans.md``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from zarr.abc.codec import ArrayBytesCodec

from .._typing import AnyArray, Box
from .._zarr import ArraySpec, Buffer, EncodingRoom, NDBuffer
from ..errors import ConfigurationError
from .coder import Room, check_dtype, decode, encode

#: Codec name in the metadata, led by the package to install. A format change needs a new name.
CODEC_NAME = "dj_photon_codecs.rans"


@dataclass(frozen=True)
class RansCodec(ArrayBytesCodec):
    """Zarr V3 codec that compresses 8-bit and 16-bit integer codes to near their Shannon limit.

    The first axis is time. The codec has no parameters: the header of each chunk stores the coding parameters. It is
    designed for codes with uniform noise, such as the output of
    :class:`~dj_photon_codecs.anscombe.codec_v3.AnscombeTransformV3`.
    """

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]  # zarr declares a plain attribute
    #: ``decode_now`` takes a box.
    decodes_boxes: ClassVar[bool] = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create the codec from its metadata; the specification forbids any configuration."""
        configuration = data.get("configuration") or {}
        if data.get("name") != CODEC_NAME or configuration:
            raise ConfigurationError(
                f"not a valid {CODEC_NAME} codec: name {data.get('name')!r}, configuration {configuration!r:.200} "
                "(it has none)"
            )
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the codec metadata: the name and an empty configuration."""
        return {"name": CODEC_NAME, "configuration": {}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raise ConfigurationError unless the array holds 8-bit or 16-bit integers."""
        check_dtype(dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError, as zarr's own compressors do: the encoded size depends on the data."""
        raise NotImplementedError

    def encode_now(self, codes: AnyArray, room: EncodingRoom) -> bytes:
        """Encode the codes of a chunk in the calling thread."""
        return encode(codes)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        payload = await asyncio.to_thread(encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(payload)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        codes = await asyncio.to_thread(decode, chunk_bytes.as_numpy_array(), chunk_spec.shape, dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)

    def decode_now(
        self, payload: AnyArray, chunk_spec: ArraySpec, room: Room, threads: int, box: Box | None = None
    ) -> AnyArray:
        """Decode a payload or a box of it, using the calling thread and up to ``threads - 1`` others."""
        return decode(payload, chunk_spec.shape, chunk_spec.dtype.to_native_dtype(), room, threads, box)
