"""Encode counts and decode codes. The codecs, the storage and the entropy coder call these functions.

A count has a position in whole 64ths of a cell (:mod:`.cells`). Its code is ``(position + level) // 64``. The level is
the dither offset at the count's place (:mod:`.._dither`), or 0 without dither. A code and a level decode to one count.
Each configuration has a table for each direction: :func:`encoding_table` and :func:`decoding_table`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .._dither import BLOCK, LEVELS, block_level, offset_levels
from .._typing import AnyArray, FloatArray
from ..errors import CodeRangeError
from .cells import cells_of
from .parameters import TransformParameters
from .tables import apply_rows, quantise

#: Integer dtypes of up to this many bits are encoded with one table over their whole range.
TABLE_BITS = 16

#: Largest fraction of a cell by which float64 rounding may move its edges.
_EDGE_TOLERANCE = 1e-3

#: Elements per pass of the formula, which keeps temporaries small.
_BLOCK = 1 << 16

_PLAIN = np.zeros(1 << 12, np.int32)
_PLAIN.flags.writeable = False


def levels(parameters: TransformParameters) -> npt.NDArray[np.int32]:
    """Return one period of the levels of a chunk in C order; all 0 without dither."""
    return offset_levels() if parameters.dithered else _PLAIN


def encode(
    counts: AnyArray, parameters: TransformParameters, out: AnyArray | None = None, pattern: AnyArray | None = None
) -> AnyArray:
    """Encode the counts of one chunk, an array of any shape [ADU]; codes are monotone in the counts at each place.

    With dither, the offset of a count depends on its place in C order; ``pattern`` are other levels for these places
    than those of the format. ``out`` is a flat array of ``counts.size`` elements of ``encoded_dtype`` to fill.

    Raises CodeRangeError if a count is not finite, has a code outside ``encoded_dtype`` at any offset, is not whole
    although ``decoded_dtype`` is an integer dtype, or is too large for float64 or the dtype to resolve at this gain.
    """
    pattern = levels(parameters) if pattern is None else pattern
    counts = np.ascontiguousarray(counts)
    if counts.dtype.kind == "f" and parameters.whole:
        counts = _whole_counts(counts, np.dtype(parameters.decoded_dtype))
    codes = np.empty(counts.size, parameters.encoded_dtype) if out is None else out
    if counts.size == 0:
        return codes.reshape(counts.shape)
    if counts.dtype.kind in "ui" and parameters.whole:
        if counts.dtype.itemsize * 8 > TABLE_BITS and 0 <= int(counts.min()) and int(counts.max()) < 1 << TABLE_BITS:
            counts = counts.astype(np.uint16)
        if counts.dtype.itemsize * 8 <= TABLE_BITS:
            table, low, high = encoding_table(parameters, counts.dtype.name)
            info = np.iinfo(counts.dtype)
            if (low > info.min and counts.min() < low) or (high < info.max and counts.max() > high):
                _refuse(counts[(counts < low) | (counts > high)][0], parameters)
            quantise(table, int(info.min), pattern, counts, codes)
            return codes.reshape(counts.shape)
    flat = counts.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        bad = ~_encodable(block, parameters)
        if bad.any():
            _refuse(block[bad][0], parameters)
        here = np.resize(np.roll(pattern, -(start % pattern.size)), block.size)
        found = (_positions(block, parameters) + here) // LEVELS
        codes[start : start + _BLOCK] = found.astype(codes.dtype)
    return codes.reshape(counts.shape)


def rounded(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Round the counts of one chunk to values that dithered codes decode to, in ``decoded_dtype``.

    This serves readers without the codec. Each block of 65,536 counts shares one offset. A compressor's blocks are as
    large for 16-bit counts, so it sees one set of values per block; with an offset per pixel it would see 64.
    """
    wide = replace(parameters, encoded_dtype="int64")
    flat = np.ascontiguousarray(counts).reshape(-1)
    found = np.empty(flat.size, parameters.decoded_dtype)
    for number, start in enumerate(range(0, flat.size, BLOCK)):
        block, level = slice(start, start + BLOCK), block_level(number)
        codes = encode(flat[block], wide, pattern=np.full(1 << 12, level, np.int32))
        found[block] = _counts_at(codes, parameters, level)
    return found.reshape(counts.shape)


def _positions(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """Return the positions of counts in whole 64ths of a cell."""
    cells = cells_of(parameters)
    return cells.positions(counts) if parameters.dithered else cells.numbers(counts) * LEVELS


def code_range(low: float, high: float, parameters: TransformParameters) -> tuple[float, float]:
    """Return the lowest and highest code of counts from ``low`` to ``high`` at any place."""
    first, last = _positions([low, high], parameters).tolist()
    return first // LEVELS, (last + int(levels(parameters).max())) // LEVELS


@lru_cache(maxsize=16)
def encoding_table(parameters: TransformParameters, counts_dtype: str) -> tuple[AnyArray, int, int]:
    """Return the positions of all counts of an 8- or 16-bit integer dtype, and the range that can be encoded.

    The positions are int32, read-only, in ascending order of the counts. The code of a count ``x`` is
    ``(positions[x - iinfo(dtype).min] + k) >> 6``, with the level ``k`` from :func:`levels`. The range is the lowest
    and highest count that have a code in ``encoded_dtype`` at every level; if no count has one, the lowest is above
    the highest.
    """
    info = np.iinfo(counts_dtype)
    values = np.arange(info.min, info.max + 1, dtype=np.int64)
    fits = _encodable(values, parameters)
    positions = np.zeros(values.size, np.int32)
    inside = values[fits]
    positions[fits] = _positions(inside, parameters)
    positions.flags.writeable = False
    # Codes are monotone, so the counts that fit form one range; an empty range rejects every count.
    edges = (int(inside[0]), int(inside[-1])) if inside.size else (int(info.max) + 1, int(info.min) - 1)
    return positions, *edges


def decode(codes: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Decode the codes of one chunk to ``decoded_dtype``; the inverse of :func:`encode`.

    ``codes`` is an integer array of any shape. With dither, the offset of a code depends on its place in C order.
    """
    codes = np.ascontiguousarray(codes)
    if codes.size == 0:
        return np.empty(codes.shape, parameters.decoded_dtype)
    if codes.dtype.itemsize == 1:
        info = np.iinfo(codes.dtype)
        low, high = int(info.min), int(info.max)
    else:
        # Tables of wide dtypes span the codes present, rounded to pages of 256 so that few distinct tables are built.
        low, high = int(codes.min()) & ~0xFF, int(codes.max()) | 0xFF
    pattern = levels(parameters)
    if high - low < 1 << TABLE_BITS:
        return apply_rows(decoding_table(parameters, low, high), low, pattern, codes)
    flat, counts = codes.reshape(-1), np.empty(codes.size, parameters.decoded_dtype)
    repeated = np.resize(pattern, codes.size)
    for level in range(int(pattern.max()) + 1):
        here = repeated == level
        if here.any():
            counts[here] = _counts_at(flat[here], parameters, level)
    return counts.reshape(codes.shape)


def _counts_at(codes: AnyArray, parameters: TransformParameters, level: int) -> AnyArray:
    """Decode codes at one level."""
    low, high = int(codes.min()), int(codes.max())
    if high - low < 1 << TABLE_BITS:
        distinct, index = np.arange(low, high + 1), codes - low
    else:
        distinct, index = np.unique(codes, return_inverse=True)
    return np.asarray(cells_of(parameters).counts(distinct, level if parameters.dithered else None)[index])


@lru_cache(maxsize=16)
def decoding_table(parameters: TransformParameters, low: int, high: int) -> AnyArray:
    """Return the counts of codes ``low`` to ``high`` at each level, in ``decoded_dtype``, read-only.

    The shape is (64, codes), or (1, codes) without dither.
    """
    codes = np.arange(low, high + 1, dtype=np.float64)
    rows = range(LEVELS) if parameters.dithered else (None,)
    table = np.stack([cells_of(parameters).counts(codes, level) for level in rows])
    table.flags.writeable = False
    return table


def at_every_offset(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Encode and decode 1-D counts at each of the 64 offsets; shape (64, counts), in ``decoded_dtype``."""
    positions = _positions(counts, parameters)
    rows = []
    for level in range(LEVELS):
        codes, inverse = np.unique((positions + level) // LEVELS, return_inverse=True)
        rows.append(cells_of(parameters).counts(codes, level)[inverse])
    return np.stack(rows)


def fill_count(parameters: TransformParameters, dtype: npt.DTypeLike | None = None) -> Any:
    """Return a fill value that cannot be mistaken for a dark pixel: a high count that decodes exactly.

    It is the decoded value of a code at the first place of a chunk: finite, encodable, and unchanged by the round trip.
    ``dtype`` is the dtype of the array, ``decoded_dtype`` if None.
    """
    stored, decoded = np.dtype(dtype or parameters.decoded_dtype), np.dtype(parameters.decoded_dtype)
    top = float(np.iinfo(decoded).max if decoded.kind in "ui" else np.finfo(decoded).max)
    # float64 cannot resolve all 64-bit codes
    highest = int(min(np.iinfo(parameters.encoded_dtype).max, 2**32, code_range(top, top, parameters)[1]))
    while highest > 0:
        # Rounding to a narrow float dtype can push the highest value over its edge; then try the next codes.
        for code in range(highest, max(highest - 8, 0), -1):
            value = _count_of(code, parameters, stored)
            try:
                codes = encode(value, parameters)
            except CodeRangeError:
                continue
            if decode(codes, parameters).astype(stored) == value:
                return value[0]
        highest //= 2  # the dtype is too coarse up there
    return _count_of(0, parameters, stored)[0]


def _count_of(code: int, parameters: TransformParameters, stored: np.dtype[Any]) -> AnyArray:
    """Decode a code at the first place of a chunk, to an array of one element in the dtype of the movie."""
    with np.errstate(over="ignore"):
        return decode(np.array([code]).astype(parameters.encoded_dtype), parameters).astype(stored)


# Validation


def _encodable(counts: AnyArray, parameters: TransformParameters) -> npt.NDArray[np.bool_]:
    """Return a mask of the counts that have a code at every level; NaN has none."""
    encoded = np.dtype(parameters.encoded_dtype)
    limits = np.iinfo(encoded)
    # float64 rounds the limits of 64-bit dtypes outwards; a code at the rounded limit would overflow in the cast.
    top = float(limits.max) if encoded.itemsize < 8 else np.nextafter(float(limits.max), 0)
    fits = resolved(counts, parameters)
    positions = _positions(counts[fits], parameters)
    highest = int(levels(parameters).max())
    fits[fits] = (positions // LEVELS >= limits.min) & ((positions + highest) // LEVELS <= top)
    return fits


def resolved(counts: AnyArray, parameters: TransformParameters) -> npt.NDArray[np.bool_]:
    """Return a mask of the counts at which float64 and a floating-point ``decoded_dtype`` resolve the cells.

    There, float64 rounding moves no edge by more than a thousandth of a cell, or of one whole count. Decoded counts,
    rounded to their dtype, are within half a noise step plus half a count.
    """
    values = np.asarray(counts, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.maximum(np.abs(values), abs(parameters.zero_level))
        width = parameters.step * parameters.sigma(values)
        smallest = 1.0 if parameters.whole else 0.0
        fine = magnitude * 2.0**-51 <= _EDGE_TOLERANCE * np.maximum(width, smallest)
        if not parameters.whole:
            dtype = np.finfo(parameters.decoded_dtype)
            exponent = np.frexp(np.minimum(np.abs(values) + width, float(dtype.max)))[1]
            spacing = np.ldexp(1.0, exponent - 1 - dtype.nmant)
            fine &= spacing <= np.maximum(width / 128, np.minimum(width / 4, 1.0))
        return np.asarray(fine & np.isfinite(values))


def _refuse(value: Any, parameters: TransformParameters) -> NoReturn:
    """Raise CodeRangeError with the reason why a count cannot be encoded, and a dtype that would work."""
    where = f"at conversion_gain={parameters.conversion_gain:g}, zero_level={parameters.zero_level:g}"
    if not np.isfinite(value):
        raise CodeRangeError(f"the count {value!r} is not finite and has no code: replace or mask it before storing")
    if not bool(resolved(np.asarray(value), parameters)):
        raise CodeRangeError(
            f"the count {value} is beyond what the Anscombe transform resolves {where} in {parameters.decoded_dtype}: "
            "store the movie losslessly, or subtract its offset"
        )
    lowest, highest = code_range(value, value, parameters)
    limits = np.iinfo(parameters.encoded_dtype)
    code = lowest if lowest < limits.min else highest
    fitting = smallest_code_dtype(lowest, highest)
    remedy = f"use encoded_dtype={fitting!r}" if fitting else "store the movie losslessly, or check the gain"
    raise CodeRangeError(
        f"the count {value} has the code {code:.0f} {where}, step={parameters.step:g}, outside "
        f"{parameters.encoded_dtype} ({limits.min} to {limits.max}): {remedy}"
    )


def smallest_code_dtype(low: float, high: float) -> str | None:
    """Return the narrowest integer dtype for codes ``low`` to ``high``, unsigned first, or None."""
    for bits in (8, 16, 32, 64):
        for kind in ("uint", "int"):
            limits = np.iinfo(f"{kind}{bits}")
            if limits.min <= low and high <= limits.max * (1.0 - 2.0**-50 * (bits == 64)):
                return f"{kind}{bits}"
    return None


def _whole_counts(counts: AnyArray, decoded: np.dtype[Any]) -> AnyArray:
    """Convert floating-point counts to integers; raise CodeRangeError if that would change one."""
    info = np.iinfo(decoded)
    with np.errstate(invalid="ignore", over="ignore"):  # integer limits can exceed the float16 range
        inside = (counts >= info.min) & (counts <= (info.max if decoded.itemsize < 8 else np.nextafter(2.0**63, 0)))
        whole = counts.astype(decoded)
    bad = ~inside | (whole != counts)
    if bad.any():
        value = counts[bad].ravel()[0]
        raise CodeRangeError(
            f"the count {value!r} is not a whole number that {decoded} holds, as decoded_dtype={decoded.name!r} "
            f"promises: use decoded_dtype={counts.dtype.name!r}"
        )
    return whole
