"""The entropy coder as a Zarr V3 array-to-bytes codec, ``dj_photon_codecs.rans`` on disk.

Specified in ``docs/spec/rans.md``. The work is in :mod:`.coder`; this class only translates between Zarr and it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from zarr.abc.codec import ArrayBytesCodec

from .._zarr import ArraySpec
from ..errors import ConfigurationError
from .coder import check_dtype, decode, encode

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, NDBuffer

#: The name on disk, which is also what to install. One name is one format for ever.
CODEC_NAME = "dj_photon_codecs.rans"


@dataclass(frozen=True)
class RansCodec(ArrayBytesCodec):
    """Zarr V3 codec from integer codes, time first, to bytes near their Shannon limit.

    It has no parameters: each chunk says in its header how it was coded. Made for codes of equal noise, such as
    :class:`~dj_photon_codecs.anscombe.codec_v3.AnscombeTransformV3` gives.
    """

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]  # zarr declares a plain attribute

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from its metadata; any configuration is an error, as the specification has it."""
        configuration = data.get("configuration") or {}
        if data.get("name") != CODEC_NAME or configuration:
            raise ConfigurationError(
                f"not a valid {CODEC_NAME} codec: name {data.get('name')!r}, configuration {configuration!r:.200} "
                "(it has none)"
            )
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """The codec's metadata: its name, and an empty configuration."""
        return {"name": CODEC_NAME, "configuration": {}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Check the codec against an array.

        Raises
        ------
        ConfigurationError
            When the codes are no integers of 8 or 16 bits.
        """
        check_dtype(dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before a chunk is coded.

        Raises
        ------
        NotImplementedError
            Always: as zarr's own compressors do.
        """
        raise NotImplementedError

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        payload = await asyncio.to_thread(encode, chunk_array.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(payload)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        codes = await asyncio.to_thread(decode, chunk_bytes.to_bytes(), chunk_spec.shape, dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(codes)
