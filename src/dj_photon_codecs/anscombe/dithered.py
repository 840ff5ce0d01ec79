"""The Anscombe transform with subtractive dither: the mean of many stored counts is that of the raw ones.

Rounding at fixed edges leans: a count next to an edge always goes the same way, and where the noise is not much wider
than a bin (few photons, whole photons) the errors of many pixels do not average out. Here every pixel has edges of
its own, moved by an offset ``u`` that follows from its position in the chunk (:mod:`.._dither`):

    code = round(signal(x) + u),    decoded = signal^-1(code - u) - gain * step^2 / 48

Over the offsets, the error in the signal is uniform on one code whatever ``x`` is, so that its mean is 0; in counts,
the square in the inverse would add ``gain * step^2 / 48``, which is taken off.

Two rules keep whole photons whole. The signal of integers is nowhere steeper than one code a count: where the noise is
that small, the code is the count itself. And the count 0 of an unsigned dtype has a code for itself: a detector that
cuts off there, or a frame that was filled up with zeros, gives no mean that could be kept.

The format that this module defines is written down in ``docs/spec/dithered.md``.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._dither import LEVELS, offset, offset_levels
from .._typing import AnyArray, FloatArray
from ..errors import CodeRangeError
from .parameters import TransformParameters
from .tables import apply_rows
from .transform import (
    TABLE_BITS,
    first_counts,
    highest_code,
    inverse_signal,
    real_within_bound,
    refuse,
    resolved,
    scaled_signal,
    whole_counts,
    within_bound,
)

#: Elements that are coded by the formula at a time, so that the temporaries stay small.
_BLOCK = 1 << 16


def steep_below(parameters: TransformParameters) -> float | None:
    """The count below which the transform would give more than one code a count; None where that is nowhere.

    It is where ``step * sigma(x) = 1``: ``zero_level + gain * (1 / (step * gain)^2 - 3/8)``.
    """
    scale = parameters.step * parameters.conversion_gain
    if np.dtype(parameters.decoded_dtype).kind == "f" or scale * math.sqrt(0.375) >= 1.0:
        return None
    square = scale * scale
    if square == 0.0:  # underflow: every count has a code of its own
        return math.inf
    return parameters.zero_level + parameters.conversion_gain * (1.0 / square - 0.375)


def dither_signal(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """The signal that the offset is added to: 0, or within half a code of it, at the count 0."""
    return np.asarray(_uncentred(counts, parameters) - _centre(parameters))


def _uncentred(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """:func:`~.transform.scaled_signal`, continued by the counts themselves where it is steeper."""
    values = np.asarray(counts, np.float64)
    edge = steep_below(parameters)
    if edge is None:
        return scaled_signal(values, parameters)
    with np.errstate(invalid="ignore"):  # where there is no edge
        above = edge + (scaled_signal(values, parameters) - scaled_signal(edge, parameters))
    return np.where(values <= edge, values, above)


@lru_cache(maxsize=32)
def _centre(parameters: TransformParameters) -> float:
    """What is taken off the signal; whole where counts are codes and 0 is not the lowest of them."""
    origin = float(_uncentred(0.0, parameters))
    signed = np.dtype(parameters.decoded_dtype).kind == "i"
    return float(np.rint(origin)) if signed and steep_below(parameters) is not None else origin


def _unbiased(signal: FloatArray, parameters: TransformParameters) -> FloatArray:
    """Counts for signals that are uniform within half a code of ``signal``, with the mean of those."""
    values = np.asarray(signal) + _centre(parameters)
    edge = steep_below(parameters)
    correction = parameters.conversion_gain * (parameters.step * parameters.step) / 48.0
    with np.errstate(over="ignore", invalid="ignore"):
        if edge is None:
            return inverse_signal(values, parameters) - np.where(values < 0.0, 0.0, correction)
        curved = inverse_signal(values - edge + scaled_signal(edge, parameters), parameters) - correction
        return np.where(values <= edge, values, curved)


def _has_zero_code(parameters: TransformParameters) -> bool:
    """Whether the count 0 has a code of its own."""
    return np.dtype(parameters.decoded_dtype).kind == "u"


def dithered_codes(counts: npt.ArrayLike, offsets: Any, parameters: TransformParameters) -> FloatArray:
    """Codes as whole float64 numbers, of any size, of counts with these offsets."""
    return _rounded(dither_signal(counts, parameters), offsets, np.asarray(counts) == 0, parameters)


def _rounded(
    signal: FloatArray, offsets: Any, dark: npt.NDArray[np.bool_], parameters: TransformParameters
) -> FloatArray:
    """Codes of signals; ``dark`` is where the count is 0."""
    with np.errstate(invalid="ignore"):
        codes = np.rint(signal + offsets)
    return np.where(dark, 0.0, codes + 1.0) if _has_zero_code(parameters) else codes


def code_range(low: float, high: float, parameters: TransformParameters) -> tuple[float, float]:
    """The lowest and the highest code that counts from ``low`` to ``high`` can have, whatever their offsets."""
    lowest, highest = dithered_codes([low, high], [-0.5, 0.5], parameters).tolist()
    return lowest, highest


def encode_dithered(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Codes of the counts of one chunk.

    Parameters
    ----------
    counts
        Array of any shape, of an integer or floating-point dtype [ADU]. The offset of a count follows from its
        place in C order.
    parameters
        The transform. With an integer ``decoded_dtype``, floating-point counts must be whole numbers.

    Returns
    -------
    numpy.ndarray
        Same shape, ``parameters.encoded_dtype``.

    Raises
    ------
    CodeRangeError
        When a count has at some offset no code in ``encoded_dtype``, is not finite, is not whole where whole
        numbers were promised, or is so large that float64 cannot tell it from its neighbours at this gain.
    """
    counts = np.ascontiguousarray(counts)
    if counts.dtype.kind == "f" and np.dtype(parameters.decoded_dtype).kind != "f":
        counts = whole_counts(counts, np.dtype(parameters.decoded_dtype))
    if counts.size == 0:
        return np.empty(counts.shape, parameters.encoded_dtype)
    if counts.dtype.kind == "f":
        return _encode_directly(counts, parameters)
    if counts.dtype.itemsize * 8 > TABLE_BITS and 0 <= int(counts.min()) and int(counts.max()) < 1 << TABLE_BITS:
        counts = counts.astype(np.uint16)
    if counts.dtype.itemsize * 8 <= TABLE_BITS:
        table, first, low, high = _encoding_table(parameters, counts.dtype.name)
        if low > first or high < first + table.shape[1] - 1:
            _refuse_first(counts, (counts < low) | (counts > high), parameters)
        return apply_rows(table, first, offset_levels(), counts)
    return _encode_directly(counts, parameters)


def _encodable(values: AnyArray, parameters: TransformParameters) -> npt.NDArray[np.bool_]:
    """Which counts have a code at every offset; NaN has none."""
    encoded = np.dtype(parameters.encoded_dtype)
    limits = np.iinfo(encoded)
    # float64 rounds the limits of 64-bit dtypes outwards: a code at the rounded limit would wrap in the cast.
    top = float(limits.max) if encoded.itemsize < 8 else np.nextafter(float(limits.max), 0)
    lowest, highest = (dithered_codes(values, edge, parameters) for edge in (-0.5, 0.5))
    return np.asarray((lowest >= limits.min) & (highest <= top) & resolved(values, parameters))


@lru_cache(maxsize=8)
def _encoding_table(parameters: TransformParameters, counts_dtype: str) -> tuple[AnyArray, int, int, int]:
    """Codes of every value of a small dtype by offset, its lowest value, and the lowest and highest with a code."""
    info = np.iinfo(counts_dtype)
    values = np.arange(info.min, info.max + 1, dtype=np.int64)
    fits = _encodable(values, parameters)
    table = np.zeros((LEVELS, values.size), parameters.encoded_dtype)
    inside = values[fits]
    signal = dither_signal(inside, parameters)
    for level in range(LEVELS):
        table[level, fits] = _rounded(signal, offset(level), inside == 0, parameters).astype(table.dtype)
    table.flags.writeable = False
    # The codes are monotone, and so those that fit are one run; an empty run refuses every value.
    edges = (int(inside[0]), int(inside[-1])) if inside.size else (int(info.max) + 1, int(info.min) - 1)
    return table, int(info.min), *edges


def _encode_directly(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Codes by the formula itself, for wide integers and for floating-point counts."""
    flat, codes = counts.reshape(-1), np.empty(counts.size, parameters.encoded_dtype)
    offsets = offset(offset_levels())
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        _refuse_first(block, ~_encodable(block, parameters), parameters)
        here = np.resize(np.roll(offsets, -(start % offsets.size)), block.size)
        codes[start : start + _BLOCK] = dithered_codes(block, here, parameters).astype(codes.dtype)
    return codes.reshape(counts.shape)


def _refuse_first(counts: AnyArray, bad: npt.NDArray[np.bool_], parameters: TransformParameters) -> None:
    """Refuse the first count that is bad, if there is one."""
    if bad.any():
        value = counts[bad].ravel()[0]
        lowest, highest = code_range(value, value, parameters)
        beyond = lowest < np.iinfo(parameters.encoded_dtype).min
        refuse(value, lowest if beyond else highest, parameters)


def decode_dithered(codes: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Counts of the codes of one chunk.

    Parameters
    ----------
    codes
        Array of any shape, of an integer dtype; the offset of a code follows from its place in C order.
    parameters
        The transform the codes were made with.

    Returns
    -------
    numpy.ndarray
        Same shape, ``parameters.decoded_dtype``. For integers the whole number nearest to the unbiased count
        among those that have the code at this offset, or the next above where none has.
    """
    codes = np.ascontiguousarray(codes)
    if codes.size == 0:
        return np.empty(codes.shape, parameters.decoded_dtype)
    if codes.dtype.itemsize == 1:
        info = np.iinfo(codes.dtype)
        low, high = int(info.min), int(info.max)
    else:
        # Tables of a wide dtype hold the codes that are there, in whole pages so that few are made.
        low, high = int(codes.min()) & ~0xFF, int(codes.max()) | 0xFF
    if high - low < 1 << TABLE_BITS:
        return apply_rows(decoding_table(parameters, low, high), low, offset_levels(), codes)
    levels, flat = np.resize(offset_levels(), codes.size), codes.reshape(-1)
    counts = np.empty(codes.size, parameters.decoded_dtype)
    for level in range(LEVELS):
        here = np.flatnonzero(levels == level)
        distinct, inverse = np.unique(flat[here], return_inverse=True)
        counts[here] = _counts_of(distinct.astype(np.float64), offset(level), parameters)[inverse]
    return counts.reshape(codes.shape)


@lru_cache(maxsize=16)
def decoding_table(parameters: TransformParameters, low: int, high: int) -> AnyArray:
    """Counts of the codes ``low`` to ``high`` by offset, shape (64, codes); read-only."""
    codes = np.arange(low, high + 1, dtype=np.float64)
    table = np.stack([_counts_of(codes, offset(level), parameters) for level in range(LEVELS)])
    table.flags.writeable = False
    return table


def _counts_of(codes: FloatArray, dither: float, parameters: TransformParameters) -> AnyArray:
    """The count that each code decodes to at one offset, in ``decoded_dtype``."""
    decoded = np.dtype(parameters.decoded_dtype)
    signal = codes - float(_has_zero_code(parameters)) - dither
    unbiased = _unbiased(signal, parameters)
    if decoded.kind == "f":
        limit = float(np.finfo(decoded).max)
        centre = _centre(parameters)
        with np.errstate(over="ignore"):
            edges = [inverse_signal(signal + centre + edge, parameters) for edge in (-0.5, 0.5)]
            kept = real_within_bound(edges[0], np.clip(unbiased, -limit, limit), edges[1], parameters)
            return kept.astype(decoded)
    lowest, highest = _bins(codes, dither, parameters)
    zero = parameters.zero_level
    top = int(np.iinfo(decoded).max)
    counts = []
    # Python integers cost little here (once per code) and hold every 64-bit count.
    for low, high, nearest in zip(lowest, highest, np.rint(unbiased).tolist(), strict=True):
        if high < low:  # no count has this code
            counts.append(min(low, top))
            continue
        count = low if nearest <= low else high if nearest >= high else int(nearest)
        counts.append(within_bound(low, count, parameters) if low < zero < high else count)
    return np.array(counts, dtype=decoded)


def _bins(codes: FloatArray, dither: float, parameters: TransformParameters) -> tuple[list[int], list[int]]:
    """The lowest and the highest integer of each code at one offset."""
    decoded = np.dtype(parameters.decoded_dtype)
    if decoded.itemsize * 8 <= TABLE_BITS:
        values, signal = _all_signals(parameters)
        all_codes = _rounded(signal, dither, values == 0, parameters)
        lowest, beyond = (np.searchsorted(all_codes, codes, side) + int(values[0]) for side in ("left", "right"))
        return lowest.tolist(), (beyond - 1).tolist()
    code_of = partial(dithered_codes, offsets=dither, parameters=parameters)
    return first_counts(codes, decoded, code_of), [n - 1 for n in first_counts(codes + 1, decoded, code_of)]


@lru_cache(maxsize=2)
def _all_signals(parameters: TransformParameters) -> tuple[AnyArray, FloatArray]:
    """Every value of a small ``decoded_dtype``, and its signal."""
    info = np.iinfo(parameters.decoded_dtype)
    values = np.arange(info.min, info.max + 1, dtype=np.int64)
    return values, dither_signal(values, parameters)


def at_every_offset(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """What becomes of counts of one dimension at each of the offsets, shape (64, counts), in ``decoded_dtype``."""
    stored = np.empty((LEVELS, counts.size), parameters.decoded_dtype)
    for level in range(LEVELS):
        codes, inverse = np.unique(dithered_codes(counts, offset(level), parameters), return_inverse=True)
        stored[level] = _counts_of(codes, offset(level), parameters)[inverse]
    return stored


def fill_count(parameters: TransformParameters, dtype: npt.DTypeLike | None = None) -> Any:
    """A fill value that nobody takes for darkness: near the highest count that every offset has a code for.

    Parameters
    ----------
    parameters
        The transform.
    dtype
        Of the array; ``decoded_dtype`` when None.

    Returns
    -------
    numpy scalar
        In ``dtype``: what the highest of the codes whose count is finite and can be encoded gives at the first
        offset.
    """
    encoded, stored = np.dtype(parameters.encoded_dtype), np.dtype(dtype or parameters.decoded_dtype)
    highest = highest_code(parameters, lambda count, parameters: dithered_codes(count, 0.0, parameters))
    for code in range(highest, max(highest - 100, 0), -1):
        with np.errstate(over="ignore"):
            value = decode_dithered(np.array([code]).astype(encoded), parameters).astype(stored)
        try:
            encode_dithered(value, parameters)
        except CodeRangeError:
            continue
        return value[0]
    return decode_dithered(np.zeros(1, encoded), parameters).astype(stored)[0]
