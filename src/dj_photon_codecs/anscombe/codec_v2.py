"""The Anscombe transform as a numcodecs codec for Zarr V2. It needs only numpy and numcodecs.

It works as a filter (arrays in, arrays out) and as a compressor (buffers in, buffers out).
``docs/spec/anscombe.md`` specifies the format; :mod:`.cells` and :mod:`.codes` contain the mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

from .._typing import AnyArray
from ..errors import ConfigurationError
from .codes import decode, encode
from .parameters import CODEC_NAME, UNDER_ROOT, TransformParameters, check_keys


@dataclass(eq=False, repr=False)
class AnscombeTransformV2(Codec):  # type: ignore[misc]  # numcodecs ships no types for its base class
    """numcodecs codec that quantises photon counts in steps of their noise.

    Parameters
    ----------
    zero_level
        Counts without light [ADU].
    conversion_gain
        Counts per photon [ADU/photon], finite and above 0.
    encoded_dtype
        Integer dtype of the codes. Encoding raises an error if a code does not fit.
    decoded_dtype
        Dtype of the counts, which is the dtype of the array.
    step
        Quantisation step in noise standard deviations.
    dither
        ``position`` adds an offset before rounding and subtracts it when decoding, which preserves the mean of many
        counts. The offset depends on the place in the chunk, in memory order. With ``none``, equal counts have equal
        codes.
    under_root
        Noise variance at the zero level [photons], above 0 and at most 3/8. The noise model is
        ``conversion_gain * sqrt(photons + under_root)``. Lower it if a dark movie has less noise than that.
    saturation
        Highest count that the converter gives [ADU]. It decodes exactly, and no other count decodes to it. The
        lowest and highest counts of an integer dtype always behave like this. None if there is no other such count.

    Raises
    ------
    CalibrationError, ConfigurationError
        If a parameter is out of range.
    """

    codec_id = CODEC_NAME

    zero_level: float
    conversion_gain: float
    encoded_dtype: str = "uint8"
    decoded_dtype: str = "uint16"
    step: float = 0.5
    dither: str = "none"
    under_root: float = UNDER_ROOT
    saturation: float | None = None

    def __post_init__(self) -> None:
        self._parameters = TransformParameters(**vars(self))
        self.__dict__.update(asdict(self._parameters))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create the codec from its metadata. The specification makes unknown and missing keys an error."""
        check_keys(config)
        return cls(**config)

    def encode(self, buf: Any) -> AnyArray:
        """Encode counts.

        Parameters
        ----------
        buf
            Array of counts, or a buffer with the bytes of counts in ``decoded_dtype``.

        Returns
        -------
        numpy.ndarray
            Codes in ``encoded_dtype``, in the shape of an array, or flat for a buffer.
        """
        return _in_memory_order(encode, _elements(buf, self.decoded_dtype), self._parameters)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode codes.

        Parameters
        ----------
        buf
            Array of codes, or a buffer with the bytes of codes in ``encoded_dtype``.
        out
            Writable buffer of the decoded size to fill, or None.

        Returns
        -------
        numpy.ndarray or the type of ``out``
            Counts in ``decoded_dtype``.
        """
        counts = _in_memory_order(decode, _elements(buf, self.encoded_dtype), self._parameters)
        return ndarray_copy(counts, out)

    def get_config(self) -> dict[str, Any]:
        """Return the codec id and every constructor argument."""
        return {"id": self.codec_id, **asdict(self._parameters)}


def _in_memory_order(
    transform: Callable[[AnyArray, TransformParameters], AnyArray], elements: AnyArray, parameters: TransformParameters
) -> AnyArray:
    """Transform elements in memory order and keep that order, because a decoder only sees bytes."""
    fortran = elements.flags.f_contiguous and not elements.flags.c_contiguous
    return transform(elements.T, parameters).T if fortran else transform(elements, parameters)


def _elements(buf: Any, dtype_name: str) -> AnyArray:
    """Return an array of the expected dtype unchanged, or view the bytes of a buffer in that dtype."""
    dtype = np.dtype(dtype_name)
    if isinstance(buf, np.ndarray) and (buf.ndim > 1 or buf.dtype.itemsize > 1 or buf.dtype == dtype):
        if buf.dtype.newbyteorder("=") != dtype:
            # reinterpreting its bytes, or casting them, would change its values
            raise ConfigurationError(
                f"{CODEC_NAME} expects {dtype} here, got an array of {buf.dtype}: "
                f"use decoded_dtype={buf.dtype.name!r} for counts of that dtype"
            )
        return buf
    content = ensure_contiguous_ndarray(buf).view(np.uint8).reshape(-1)
    if content.size % dtype.itemsize:
        raise ConfigurationError(f"{content.size} bytes are not a whole number of {dtype} elements")
    elements: AnyArray = content.view(dtype)
    return elements
