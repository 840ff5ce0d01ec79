"""The functions of the anscombe-transform package, version 1.0.0, for code and files that were made with it.

Same names, same signatures, same results where its results are right. Where it would give back other counts than
it was given, without a word, these raise: codes that wrap in ``uint8``, codes with gaps that its inverse table
(which is indexed by rank) confuses, and counts above 32767 or below 0, which it clamps. One thing nobody can know
afterwards: a count below 0 that it clamped reads as the lowest.

New code uses :mod:`.transform`, which has none of these limits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray, FloatArray
from ..errors import CalibrationError, CodeRangeError, ConfigurationError, MovieTypeError

#: The highest count that the format holds.
INPUT_MAX = 0x7FFF

_WAY_OUT = "the dj_photon.anscombe codec has no such limit"


def make_anscombe_lookup(
    conversion_gain: float,
    input_max: int = INPUT_MAX,
    zero_level: int = 0,
    beta: float = 0.5,
    output_type: str = "uint8",
) -> AnyArray:
    """The table from counts to codes.

    Parameters
    ----------
    conversion_gain
        Counts per photon [ADU/photon].
    input_max
        The highest count of the table.
    zero_level
        Counts at no light [ADU].
    beta
        Quantisation in noise standard deviations.
    output_type
        Integer dtype of the codes.

    Returns
    -------
    numpy.ndarray
        ``input_max + 1`` codes.

    Raises
    ------
    CalibrationError
        For a gain that is not a finite number above 0, or a zero level that is not finite.
    CodeRangeError
        When the codes do not fit ``output_type``.
    """
    codes = _real_codes(conversion_gain, input_max, zero_level, beta)
    limits = np.iinfo(output_type)
    if codes[0] < limits.min or codes[-1] > limits.max:
        raise CodeRangeError(
            f"at conversion_gain={conversion_gain:g}, zero_level={zero_level:g} the counts 0 to {input_max} have codes "
            f"{codes[0]:.0f} to {codes[-1]:.0f}, which wrap in {output_type}: {_WAY_OUT}"
        )
    return codes.astype(output_type)


def _real_codes(conversion_gain: float, input_max: int, zero_level: float, beta: float) -> FloatArray:
    """Codes of 0 to ``input_max`` before they are cast, with the arithmetic of that package."""
    if not (math.isfinite(conversion_gain) and conversion_gain > 0):
        raise CalibrationError(f"conversion_gain must be a finite number above 0, got {conversion_gain!r}")
    if not math.isfinite(zero_level):
        raise CalibrationError(f"zero_level must be a finite number, got {zero_level!r}")
    photons = (np.arange(input_max + 1) - zero_level) / conversion_gain
    slope = 1 / beta / np.sqrt(3 / 8)
    root = 2.0 / beta * (np.sqrt(np.maximum(0, photons) + 3 / 8) - np.sqrt(3 / 8))
    origin = zero_level * slope / conversion_gain
    return np.asarray(np.round(origin + np.where(photons < 0, photons * slope, root)))


def make_inverse_lookup(lookup_table: AnyArray, output_type: npt.DTypeLike = "int16") -> AnyArray:
    """The table from codes back to counts: the middle of the counts that share a code, halves rounded down.

    Parameters
    ----------
    lookup_table
        A table of :func:`make_anscombe_lookup`.
    output_type
        Dtype of the counts.

    Raises
    ------
    CodeRangeError
        When the codes have gaps or do not begin at 0, so that their rank is not their value, or when a count
        does not fit ``output_type``.
    """
    table = np.asarray(lookup_table)
    codes, first, sizes = np.unique(table, return_index=True, return_counts=True)
    if not np.array_equal(codes, np.arange(len(codes))) or (np.diff(table.astype(np.int64)) < 0).any():
        wrong = int(np.flatnonzero(codes != np.arange(len(codes)))[0]) if (codes != np.arange(len(codes))).any() else 0
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
    """Apply a table; indices outside it are clamped to its ends, as in that package."""
    return np.asarray(lookup_table[np.clip(movie, 0, lookup_table.size - 1)])


@lru_cache(maxsize=32)
def legacy_domain(
    conversion_gain: float, zero_level: float, encoded_dtype: str = "uint8", decoded_dtype: str = "int16"
) -> tuple[AnyArray, AnyArray]:
    """The two tables of a configuration, if the format gives right counts with it.

    Parameters
    ----------
    conversion_gain, zero_level, encoded_dtype, decoded_dtype
        As in the metadata of an ``anscombe-v1`` array.

    Returns
    -------
    tuple of numpy.ndarray
        From counts to codes and from codes to counts; read-only.

    Raises
    ------
    CalibrationError, CodeRangeError, ConfigurationError
        When the anscombe-transform package would return wrong counts with this configuration.
    """
    for argument, name in (("encoded_dtype", encoded_dtype), ("decoded_dtype", decoded_dtype)):
        if np.dtype(name).kind not in "ui":
            raise ConfigurationError(f"{argument} must be an integer dtype, got {name!r}")
    table = make_anscombe_lookup(conversion_gain, zero_level=zero_level, output_type=encoded_dtype)  # type: ignore[arg-type]  # real zero levels work too
    inverse = make_inverse_lookup(table, decoded_dtype)
    table.flags.writeable = inverse.flags.writeable = False
    return table, inverse


def encode(buf: AnyArray, *, conversion_gain: float, zero_level: int, encoded_dtype: str) -> AnyArray:
    """Codes of counts.

    Parameters
    ----------
    buf
        Integer counts from 0 to 32767 [ADU].
    conversion_gain, zero_level
        The noise model [ADU/photon, ADU].
    encoded_dtype
        Integer dtype of the codes.

    Raises
    ------
    MovieTypeError
        For counts that are not integers.
    CodeRangeError
        For counts that the format clamps, and for a gain at which it gives wrong counts back.
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
    buf: Any,
    *,
    conversion_gain: float,
    zero_level: int,
    encoded_dtype: npt.DTypeLike,
    decoded_dtype: npt.DTypeLike,
) -> AnyArray:
    """Counts of codes.

    Parameters
    ----------
    buf
        Bytes or contiguous array of codes.
    conversion_gain, zero_level, encoded_dtype
        As they were encoded with.
    decoded_dtype
        Integer dtype of the counts.

    Returns
    -------
    numpy.ndarray
        Flat, in ``decoded_dtype``.

    Raises
    ------
    CalibrationError, CodeRangeError
        When the counts cannot be trusted: the gain is one at which the format gives wrong counts, a code is
        beyond the table, or it is the highest, which also stands for all counts above 32767 that were clamped.
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
    """Whether the format clamps counts that this dtype holds; not of negative ones, which share the lowest code."""
    return not np.can_cast(dtype, np.int16)


def refuse_clamped(codes: AnyArray, inverse: AnyArray, dtype: np.dtype[Any]) -> None:
    """Make sure that no code may stand for a count that was clamped.

    Parameters
    ----------
    codes
        Codes of the table.
    inverse
        The table from codes to counts.
    dtype
        Of the counts as they were coded, or as they are wanted.

    Raises
    ------
    CodeRangeError
        For the highest code, where ``dtype`` holds counts above 32767.
    """
    top = inverse.size - 1
    if codes.size and may_be_clamped(dtype) and codes.max() == top:
        raise CodeRangeError(
            f"the code {top} stands for counts about {inverse[-1]}, and for every count above {INPUT_MAX}, which "
            f"the anscombe-transform package clamps: as {dtype} these counts are not known. "
            "If the sensor cannot give more, decode as int16, or with that package"
        )


def refuse_top_counts(highest: int, table: AnyArray, dtype: np.dtype[Any], way_out: str = _WAY_OUT) -> None:
    """Make sure that counts read back: :func:`refuse_clamped` before they are coded.

    Parameters
    ----------
    highest
        The highest count [ADU].
    table
        The table from counts to codes.
    dtype
        Of the counts.
    way_out
        What the message suggests, beside ``int16``.

    Raises
    ------
    CodeRangeError
        For a count with the highest code, where ``dtype`` holds counts above 32767.
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
    """Codes of counts that an array of their dtype gives back: :func:`encode`, of nothing that reading refuses.

    Parameters
    ----------
    counts
        As for :func:`encode`.
    conversion_gain, zero_level, encoded_dtype, decoded_dtype
        As in the metadata of the array.

    Raises
    ------
    MovieTypeError, CalibrationError, CodeRangeError, ConfigurationError
        As :func:`encode`, :func:`legacy_domain` and :func:`refuse_top_counts`.
    """
    table, _ = legacy_domain(float(conversion_gain), float(zero_level), encoded_dtype, decoded_dtype)
    codes = encode(
        counts,
        conversion_gain=conversion_gain,
        zero_level=zero_level,  # type: ignore[arg-type]  # that signature says int, its arithmetic is real
        encoded_dtype=encoded_dtype,
    )
    if counts.size:
        highest = int(counts.max())
        for dtype in (counts.dtype, np.dtype(decoded_dtype)):  # reading goes by both
            refuse_top_counts(highest, table, dtype)
    return codes
