"""The Anscombe transform as numcodecs codecs for Zarr V2, plain and with dither.

Usable as filters (arrays in, arrays out) and as compressors (buffers in, buffers out). Specified in
``docs/spec/anscombe.md`` and ``docs/spec/dithered.md``; the mathematics is in :mod:`.transform` and :mod:`.dithered`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

from .._typing import AnyArray
from ..errors import ConfigurationError
from .codec_v3 import CODEC_NAME, DITHERED_NAME
from .dithered import decode_dithered, encode_dithered
from .parameters import TransformParameters
from .transform import Transform, decode_codes, encode_counts


class AnscombeTransformV2(Codec):  # type: ignore[misc]  # numcodecs ships no types for its base class
    """numcodecs codec from photon counts to codes of equal noise.

    Parameters
    ----------
    zero_level
        Counts at no light [ADU].
    conversion_gain
        Counts per photon [ADU/photon], finite and above 0.
    encoded_dtype
        Integer dtype of the codes. A count whose code does not fit raises when it is encoded.
    decoded_dtype
        Dtype of the counts: that of the array.
    step
        Quantisation in noise standard deviations.

    Raises
    ------
    CalibrationError, ConfigurationError
        At construction, for parameters outside their range.
    """

    codec_id = CODEC_NAME

    #: The two directions of the transform.
    _to_codes = staticmethod(encode_counts)
    _to_counts = staticmethod(decode_codes)

    def __init__(
        self,
        zero_level: float,
        conversion_gain: float,
        encoded_dtype: str = "uint8",
        decoded_dtype: str = "uint16",
        step: float = 0.5,
    ) -> None:
        self._parameters = TransformParameters(
            zero_level=zero_level,
            conversion_gain=conversion_gain,
            encoded_dtype=encoded_dtype,
            decoded_dtype=decoded_dtype,
            step=step,
        )
        self.zero_level = self._parameters.zero_level
        self.conversion_gain = self._parameters.conversion_gain
        self.encoded_dtype = self._parameters.encoded_dtype
        self.decoded_dtype = self._parameters.decoded_dtype
        self.step = self._parameters.step

    def encode(self, buf: Any) -> AnyArray:
        """Codes of counts.

        Parameters
        ----------
        buf
            Array of counts, or a buffer with the bytes of one in ``decoded_dtype``.

        Returns
        -------
        numpy.ndarray
            In ``encoded_dtype``; of the shape of an array, flat for a buffer.
        """
        counts = _elements(buf, self.decoded_dtype, self.codec_id)
        return _in_memory_order(self._to_codes, counts, self._parameters)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Counts of codes.

        Parameters
        ----------
        buf
            Array of codes, or a buffer with the bytes of one in ``encoded_dtype``.
        out
            Writable buffer of the decoded size to fill, or None.

        Returns
        -------
        numpy.ndarray or the type of ``out``
            In ``decoded_dtype``.
        """
        codes = _elements(buf, self.encoded_dtype, self.codec_id)
        return ndarray_copy(_in_memory_order(self._to_counts, codes, self._parameters), out)

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument, and the codec's id."""
        return {
            "id": self.codec_id,
            "zero_level": self.zero_level,
            "conversion_gain": self.conversion_gain,
            "encoded_dtype": self.encoded_dtype,
            "decoded_dtype": self.decoded_dtype,
            "step": self.step,
        }


class DitheredAnscombeV2(AnscombeTransformV2):
    """The Anscombe transform with subtractive dither, ``dj_photon_codecs.dithered_anscombe`` on disk.

    Takes the parameters of :class:`AnscombeTransformV2`, and needs codes of one more at either end. The offset of a
    count follows from its place in memory, which in a buffer is all that is known of it.
    """

    codec_id = DITHERED_NAME

    _to_codes = staticmethod(encode_dithered)
    _to_counts = staticmethod(decode_dithered)


def _in_memory_order(transform: Transform, elements: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Transform the elements in the order in which their bytes lie, and keep it: a decoder sees bytes only."""
    fortran = elements.flags.f_contiguous and not elements.flags.c_contiguous
    return transform(elements.T, parameters).T if fortran else transform(elements, parameters)


def _elements(buf: Any, dtype_name: str, codec: str) -> AnyArray:
    """An array of the expected dtype as it is; the bytes of a buffer as elements of that dtype."""
    dtype = np.dtype(dtype_name)
    if isinstance(buf, np.ndarray) and (buf.ndim > 1 or buf.dtype.itemsize > 1 or buf.dtype == dtype):
        if buf.dtype.newbyteorder("=") != dtype:
            # taken for bytes, or cast, its numbers would come back as others
            raise ConfigurationError(
                f"{codec} expects {dtype} here, got an array of {buf.dtype}: "
                f"use decoded_dtype={buf.dtype.name!r} for counts of that dtype"
            )
        return buf
    content = ensure_contiguous_ndarray(buf).view(np.uint8).reshape(-1)
    if content.size % dtype.itemsize:
        raise ConfigurationError(f"{content.size} bytes are not a whole number of {dtype} elements")
    elements: AnyArray = content.view(dtype)
    return elements
