"""The functions of the anscombe-transform package, version 1.0.0, for existing code and files.

Names, signatures and correct results are unchanged. These functions raise an error in three cases where that package
silently returns wrong counts: codes that overflow ``uint8``; codes with gaps, which break its inverse table because it
is indexed by rank; and counts below 0 or above 32767, which it clamps. One error cannot be detected afterwards: a
negative count that was clamped decodes as the lowest count.

New code should use :mod:`.codes`, which has none of these limits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ..errors import CalibrationError, CodeRangeError, ConfigurationError, MovieTypeError

#: Highest count in the format.
INPUT_MAX = 0x7FFF

_WAY_OUT = "the dj_photon_codecs.anscombe codec has no such limit"


def make_anscombe_lookup(
    conversion_gain: float,
    input_max: int = INPUT_MAX,
    zero_level: float = 0,
    beta: float = 0.5,
    output_type: str = "uint8",
) -> AnyArray:
    """Return the table from counts to codes.

    Parameters
    ----------
    conversion_gain
        Counts per photon [ADU/photon].
    input_max
        Highest count of the table.
    zero_level
        Counts without light [ADU].
    beta
        Quantisation step in noise standard deviations.
    output_type
        Integer dtype of the codes.

    Returns
    -------
    numpy.ndarray
        ``input_max + 1`` codes.

    Raises
    ------
    CalibrationError
        If the gain is not a finite number above 0, or the zero level is not finite.
    CodeRangeError
        If the codes do not fit ``output_type``.
    """
    if not (math.isfinite(conversion_gain) and conversion_gain > 0):
        raise CalibrationError(f"conversion_gain must be a finite number above 0, got {conversion_gain!r}")
    if not math.isfinite(zero_level):
        raise CalibrationError(f"zero_level must be a finite number, got {zero_level!r}")
    photons = (np.arange(input_max + 1) - zero_level) / conversion_gain
    slope = 1 / beta / np.sqrt(3 / 8)
    root = 2.0 / beta * (np.sqrt(np.maximum(0, photons) + 3 / 8) - np.sqrt(3 / 8))
    codes: AnyArray = np.round(zero_level * slope / conversion_gain + np.where(photons < 0, photons * slope, root))
    limits = np.iinfo(output_type)
    if codes[0] < limits.min or codes[-1] > limits.max:
        raise CodeRangeError(
            f"at conversion_gain={conversion_gain:g}, zero_level={zero_level:g} the counts 0 to {input_max} have codes "
            f"{codes[0]:.0f} to {codes[-1]:.0f}, which wrap in {output_type}: {_WAY_OUT}"
        )
    return codes.astype(output_type)


def make_inverse_lookup(lookup_table: AnyArray, output_type: npt.DTypeLike = "int16") -> AnyArray:
    """Invert :func:`make_anscombe_lookup`: from codes to the middle of the counts that share it, halves rounded down.

    Raises
    ------
    CodeRangeError
        If the codes have gaps or do not start at 0, because their rank is then not their value, or if a count does
        not fit ``output_type``.
    """
    table = np.asarray(lookup_table)
    codes, first, sizes = np.unique(table, return_index=True, return_counts=True)
    gaps = np.flatnonzero(codes != np.arange(len(codes)))
    if gaps.size or (np.diff(table.astype(np.int64)) < 0).any():
        wrong = int(gaps[0]) if gaps.size else 0
        raise CodeRangeError(
            f"the codes of this table are not 0, 1, 2, ... in a row (the one of rank {wrong} is {codes[wrong]}): the "
            f"anscombe-v1 format finds counts by rank and would give wrong ones; its gain is too low; {_WAY_OUT}"
        )
    inverse = (2 * first + sizes - 1) / 2
    dtype = np.dtype(output_type)
    if dtype.kind in "ui" and inverse[-1] > np.iinfo(dtype).max:
        raise CodeRangeError(f"counts up to {inverse[-1]:.0f} do not fit {dtype}: use a wider output_type")
    return inverse.astype(dtype)


def lookup(movie: AnyArray, lookup_table: AnyArray) -> AnyArray:
    """Apply a table. Indices outside it are clamped to its ends, as in anscombe-transform."""
    return np.asarray(lookup_table[np.clip(movie, 0, lookup_table.size - 1)])


@lru_cache(maxsize=32)
def legacy_domain(
    conversion_gain: float, zero_level: float, encoded_dtype: str = "uint8", decoded_dtype: str = "int16"
) -> tuple[AnyArray, AnyArray]:
    """Return the read-only tables of an ``anscombe-v1`` configuration: counts to codes, and codes to counts.

    Raises CalibrationError, CodeRangeError or ConfigurationError if anscombe-transform would return wrong counts.
    """
    for argument, name in (("encoded_dtype", encoded_dtype), ("decoded_dtype", decoded_dtype)):
        if np.dtype(name).kind not in "ui":
            raise ConfigurationError(f"{argument} must be an integer dtype, got {name!r}")
    table = make_anscombe_lookup(conversion_gain, zero_level=zero_level, output_type=encoded_dtype)
    inverse = make_inverse_lookup(table, decoded_dtype)
    table.flags.writeable = inverse.flags.writeable = False
    return table, inverse


def encode(buf: AnyArray, *, conversion_gain: float, zero_level: float, encoded_dtype: str) -> AnyArray:
    """Encode integer counts from 0 to 32767 [ADU] to codes of an integer dtype.

    Raises
    ------
    MovieTypeError
        If the counts are not integers.
    CodeRangeError
        If the format would clamp a count, or returns wrong counts at this gain.
    """
    counts = np.asarray(buf)
    if counts.dtype.kind not in "ui":
        raise MovieTypeError(f"the anscombe-v1 format codes integers, got {counts.dtype}")
    table, _ = legacy_domain(float(conversion_gain), float(zero_level), np.dtype(encoded_dtype).name, "int64")
    outside = (counts < 0) | (counts > INPUT_MAX)
    if outside.any():
        raise CodeRangeError(
            f"the anscombe-v1 format clamps counts outside 0 to {INPUT_MAX}, got {counts[outside].ravel()[0]}: "
            f"{_WAY_OUT}"
        )
    return lookup(counts, table)


def decode(
    buf: Any, *, conversion_gain: float, zero_level: float, encoded_dtype: npt.DTypeLike, decoded_dtype: npt.DTypeLike
) -> AnyArray:
    """Decode bytes or a contiguous array of codes to flat counts in ``decoded_dtype``, an integer dtype.

    Raises
    ------
    CalibrationError, CodeRangeError
        If the counts cannot be trusted: the format returns wrong counts at this gain, a code is outside the table, or
        a code is the highest, which also encodes all clamped counts above 32767, and ``decoded_dtype`` could hold them.
    """
    encoded, decoded = np.dtype(encoded_dtype), np.dtype(decoded_dtype)
    _, inverse = legacy_domain(float(conversion_gain), float(zero_level), encoded.name, decoded.name)
    codes = np.frombuffer(buf, dtype=encoded)
    if codes.size:
        top = int(codes.max())
        if top >= inverse.size or codes.min() < 0:
            raise CodeRangeError(
                f"the code {top} is none of the {inverse.size} of this anscombe-v1 array: it is damaged"
            )
    refuse_clamped(codes, inverse, decoded)
    return lookup(codes, inverse)


def may_be_clamped(dtype: np.dtype[Any]) -> bool:
    """Whether this dtype holds counts above 32767, which the format clamps. Ignores negative counts."""
    return not np.can_cast(dtype, np.int16)


def refuse_clamped(codes: AnyArray, inverse: AnyArray, dtype: np.dtype[Any]) -> None:
    """Raise CodeRangeError if the highest code occurs and ``dtype`` holds counts above 32767.

    That code may encode a clamped count. ``dtype`` is the dtype of the counts before encoding or after decoding.
    """
    top = inverse.size - 1
    if codes.size and may_be_clamped(dtype) and codes.max() == top:
        raise CodeRangeError(
            f"the code {top} stands for counts about {inverse[-1]}, and for every count above {INPUT_MAX}, which "
            f"the anscombe-transform package clamps: as {dtype} these counts are not known. "
            "If the sensor cannot give more, decode as int16, or with that package"
        )


def refuse_top_counts(highest: int, table: AnyArray, dtype: np.dtype[Any], way_out: str = _WAY_OUT) -> None:
    """Raise CodeRangeError before encoding if :func:`refuse_clamped` would reject the ``highest`` count.

    The message suggests ``int16`` and ``way_out``.
    """
    first = int(np.searchsorted(table, table[-1]))
    if may_be_clamped(dtype) and highest >= first:
        raise CodeRangeError(
            f"the anscombe-v1 format has one code for the counts {first} to {INPUT_MAX} and all above, got {highest}: "
            f"stored as {dtype} it would not read back, as int16 it would; {way_out}"
        )


def encode_readable(
    counts: AnyArray, *, conversion_gain: float, zero_level: float, encoded_dtype: str, decoded_dtype: str
) -> AnyArray:
    """Encode counts like :func:`encode`, and reject those that reading would reject, with the same errors."""
    table, _ = legacy_domain(float(conversion_gain), float(zero_level), encoded_dtype, decoded_dtype)
    codes = encode(counts, conversion_gain=conversion_gain, zero_level=zero_level, encoded_dtype=encoded_dtype)
    if counts.size:
        highest = int(counts.max())
        for dtype in (counts.dtype, np.dtype(decoded_dtype)):  # reading checks both
            refuse_top_counts(highest, table, dtype)
    return codes
