"""The Anscombe transform of counts to integer codes of equal noise, and back.

Photon counts have a noise of ``sigma(x) = gain * sqrt(p + 3/8)`` at ``p = (x - zero_level) / gain`` photons.
Anscombe (1948, Biometrika 35:246) showed that ``2 * sqrt(p + 3/8)`` has unit noise at every ``p``; rounding it in
steps of ``step`` noise standard deviations therefore costs the same small share of the noise everywhere.

The formula stands once, in :func:`scaled_signal`, in plain float64 arithmetic (add, divide, multiply, square
root), which IEEE 754 rounds the same way on every machine. Lookup tables are made from it and cached by
configuration. The format that this module defines is written down in ``docs/spec/anscombe.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray, FloatArray
from ..errors import CodeRangeError
from .parameters import TransformParameters
from .tables import apply_table

#: One direction of a transform: counts to codes, or codes to counts.
Transform = Callable[[AnyArray, TransformParameters], AnyArray]

#: Integer dtypes up to this many bits are coded through one table over their whole range.
TABLE_BITS = 16

#: The largest share of a quantisation bin by which float64 rounding may move its edges.
_EDGE_TOLERANCE = 1e-3


def noise_sigma(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """Noise standard deviation [ADU] at ``counts``: ``gain * sqrt(max(p, 0) + 3/8)``."""
    gain, zero = parameters.conversion_gain, parameters.zero_level
    with np.errstate(over="ignore"):
        photons = (np.asarray(counts, np.float64) - zero) / gain
        return np.asarray(gain * np.sqrt(np.maximum(photons, 0.0) + 0.375))


def scaled_signal(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """The stabilised signal in units of ``step`` noise standard deviations, before rounding.

    With ``p = (counts - zero_level) / conversion_gain``: ``(2/step) (sqrt(p + 3/8) - sqrt(3/8))`` for
    ``p >= 0``, continued below by the line of the same slope, so that every count of either sign has a code.
    """
    with np.errstate(over="ignore"):
        photons = (np.asarray(counts, np.float64) - parameters.zero_level) / parameters.conversion_gain
        root = np.sqrt(np.maximum(photons, 0.0) + 0.375) - math.sqrt(0.375)
        below = photons / (parameters.step * math.sqrt(0.375))
        return np.where(photons < 0, below, (2.0 / parameters.step) * root)


def rounded_codes(counts: npt.ArrayLike, parameters: TransformParameters) -> FloatArray:
    """Codes as whole float64 numbers, of any size: ``round(f(x) - f(0))``, halves to even."""
    with np.errstate(invalid="ignore"):
        return np.rint(scaled_signal(counts, parameters) - scaled_signal(0.0, parameters))


def encode_counts(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Codes of ``counts``.

    Parameters
    ----------
    counts
        Array of any shape, of an integer or floating-point dtype [ADU].
    parameters
        The transform. With an integer ``decoded_dtype``, floating-point counts must be whole numbers.

    Returns
    -------
    numpy.ndarray
        Same shape, ``parameters.encoded_dtype``; monotone in the counts.

    Raises
    ------
    CodeRangeError
        When a count has no code in ``encoded_dtype``, is not finite, is not whole where whole numbers
        were promised, or is so large that float64 cannot tell it from its neighbours at this gain.
    """
    encoded = np.dtype(parameters.encoded_dtype)
    counts = np.asarray(counts)
    if counts.dtype.kind == "f" and np.dtype(parameters.decoded_dtype).kind != "f":
        counts = whole_counts(counts, np.dtype(parameters.decoded_dtype))
    if counts.size == 0:
        return np.empty(counts.shape, encoded)
    if counts.dtype.kind in "ui":
        if counts.dtype.itemsize * 8 <= TABLE_BITS:
            return _encode_small(counts, parameters)
        low, high = int(counts.min()), int(counts.max())
        if 0 <= low and high < 1 << TABLE_BITS:
            return _encode_small(counts.astype(np.uint16), parameters)
    return _encode_direct(counts, parameters)


def _encode_small(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Codes of 8- and 16-bit integers, through a table over the whole dtype."""
    table, low, high = _encoding_table(parameters, counts.dtype.name)
    info = np.iinfo(counts.dtype)
    if low > info.min or high < info.max:
        outside = (counts < low) | (counts > high)
        if outside.any():
            value = counts[outside].ravel()[0]
            refuse(value, float(rounded_codes(value, parameters)), parameters)
    # A signed count indexes the table by its two's complement, as the table is laid out.
    return apply_table(table, np.ascontiguousarray(counts).view(f"u{counts.dtype.itemsize}"))


@lru_cache(maxsize=32)
def _encoding_table(parameters: TransformParameters, counts_dtype: str) -> tuple[AnyArray, int, int]:
    """Codes of every value of a small dtype, and the lowest and highest value that has one."""
    info = np.iinfo(counts_dtype)
    values = np.arange(info.min, info.max + 1, dtype=np.int64)
    codes = rounded_codes(values, parameters)
    limits = np.iinfo(parameters.encoded_dtype)
    fits = (codes >= limits.min) & (codes <= limits.max) & resolved(values, parameters)
    table = np.where(fits, codes, 0).astype(parameters.encoded_dtype)
    table = np.roll(table, info.min)  # two's complement order: 0, 1, ..., max, min, ..., -1
    table.flags.writeable = False
    # The codes are monotone, and so those that fit are one run; an empty run refuses every value.
    inside = values[fits]
    return (table, int(inside[0]), int(inside[-1])) if inside.size else (table, info.max + 1, info.min - 1)


def _encode_direct(counts: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Codes by the formula itself, for wide integers and for floating-point counts."""
    encoded = np.dtype(parameters.encoded_dtype)
    codes = rounded_codes(counts, parameters)
    limits = np.iinfo(encoded)
    # float64 rounds the limits of 64-bit dtypes outwards: a code at the rounded limit would wrap in the cast.
    top = float(limits.max) if encoded.itemsize < 8 else np.nextafter(float(limits.max), 0)
    bad = ~((codes >= limits.min) & (codes <= top)) | ~resolved(counts, parameters)  # NaN is bad too
    if bad.any():
        value = counts[bad].ravel()[0]
        refuse(value, float(rounded_codes(value, parameters)), parameters)
    return codes.astype(encoded)


def resolved(counts: AnyArray, parameters: TransformParameters) -> npt.NDArray[np.bool_]:
    """Where float64 resolves the bins: rounding moves their edges by less than the tolerance."""
    values = np.asarray(counts, np.float64)
    magnitude = np.maximum(np.abs(values), abs(parameters.zero_level))
    bin_width = parameters.step * noise_sigma(values, parameters)
    smallest = 1.0 if np.asarray(counts).dtype.kind in "ui" else 0.0
    return np.asarray(magnitude * 2.0**-51 <= _EDGE_TOLERANCE * np.maximum(bin_width, smallest))


def refuse(value: Any, code: float, parameters: TransformParameters) -> NoReturn:
    """Say why ``value`` with this ``code`` cannot be encoded, and which dtype would do."""
    where = f"at conversion_gain={parameters.conversion_gain:g}, zero_level={parameters.zero_level:g}"
    if not np.isfinite(value):
        raise CodeRangeError(f"the count {value!r} is not finite and has no code: replace or mask it before storing")
    if not bool(resolved(np.asarray(value), parameters)):
        raise CodeRangeError(
            f"the count {value} is beyond what the Anscombe transform resolves {where}: "
            "store the movie losslessly, or subtract its offset"
        )
    fitting = smallest_code_dtype(code, code)
    limits = np.iinfo(parameters.encoded_dtype)
    remedy = f"use encoded_dtype={fitting!r}" if fitting else "store the movie losslessly, or check the gain"
    raise CodeRangeError(
        f"the count {value} has the code {code:.0f} {where}, step={parameters.step:g}, outside "
        f"{parameters.encoded_dtype} ({limits.min} to {limits.max}): {remedy}"
    )


def smallest_code_dtype(low: float, high: float) -> str | None:
    """The narrowest integer dtype that holds codes ``low`` to ``high``, unsigned first; None if there is none."""
    for bits in (8, 16, 32, 64):
        for kind in ("uint", "int"):
            limits = np.iinfo(f"{kind}{bits}")
            if limits.min <= low and high <= limits.max * (1.0 - 2.0**-50 * (bits == 64)):
                return f"{kind}{bits}"
    return None


def whole_counts(counts: AnyArray, decoded: np.dtype[Any]) -> AnyArray:
    """Floating-point counts as the integers they are."""
    info = np.iinfo(decoded)
    inside = (counts >= info.min) & (counts <= (info.max if decoded.itemsize < 8 else np.nextafter(2.0**63, 0)))
    with np.errstate(invalid="ignore"):
        whole = counts.astype(decoded)
    bad = ~inside | (whole != counts)
    if bad.any():
        value = counts[bad].ravel()[0]
        raise CodeRangeError(
            f"the count {value!r} is not a whole number that {decoded} holds, as decoded_dtype={decoded.name!r} "
            f"promises: use decoded_dtype={counts.dtype.name!r}"
        )
    return whole


def decode_codes(codes: AnyArray, parameters: TransformParameters) -> AnyArray:
    """Counts at the middle of the bins that ``codes`` stand for.

    Parameters
    ----------
    codes
        Array of any shape, of an integer dtype.
    parameters
        The transform the codes were made with.

    Returns
    -------
    numpy.ndarray
        Same shape, ``parameters.decoded_dtype``. For integers the whole number in the middle of those that
        share the code; middles that are a half go down and up in turn, so that they do not all lean the same
        way. A code that no count has (there are some where a bin is narrower than 1 ADU) gives the next count
        above.
    """
    codes = np.asarray(codes)
    if codes.size == 0:
        return np.empty(codes.shape, parameters.decoded_dtype)
    if codes.dtype.itemsize * 8 <= TABLE_BITS:
        table = decoding_table(parameters, codes.dtype.name)
        return apply_table(table, np.ascontiguousarray(codes).view(f"u{codes.dtype.itemsize}"))
    distinct, inverse = np.unique(codes, return_inverse=True)
    return _bin_middles(distinct, parameters)[inverse].reshape(codes.shape)


@lru_cache(maxsize=32)
def decoding_table(parameters: TransformParameters, codes_dtype: str) -> AnyArray:
    """Counts of every code of an 8- or 16-bit dtype, in two's complement order; read-only."""
    info = np.iinfo(codes_dtype)
    table = np.roll(_bin_middles(np.arange(info.min, info.max + 1, dtype=np.int64), parameters), info.min)
    table.flags.writeable = False
    return table


def _bin_middles(codes: AnyArray, parameters: TransformParameters) -> AnyArray:
    """The count that each code decodes to, in ``decoded_dtype``."""
    decoded = np.dtype(parameters.decoded_dtype)
    wanted = codes.astype(np.float64)
    if decoded.kind == "f":
        return _real_middles(wanted, parameters)
    info = np.iinfo(decoded)
    code_of = partial(rounded_codes, parameters=parameters)
    lowest = first_counts(wanted, decoded, code_of)  # smallest count whose code is at least this one
    next_bin = first_counts(wanted + 1, decoded, code_of)
    # Python integers cost nothing here (once per code) and hold every sum of two 64-bit counts.
    phase = _first_half(parameters)
    middles = []
    for code, low, high in zip(codes.tolist(), lowest, [n - 1 for n in next_bin], strict=True):
        if high < low:  # no count has this code
            middles.append(min(low, int(info.max)))
        else:
            half_up = (low + high) % 2 == 1 and (code + high) % 2 != phase
            middle = (low + high) // 2 + half_up
            if low < parameters.zero_level < high:
                middle = within_bound(low, middle, parameters)
            middles.append(middle)
    return np.array(middles, dtype=decoded)


@lru_cache(maxsize=32)
def _first_half(parameters: TransformParameters) -> int:
    """The parity of ``code + highest count`` at the first bin above the zero level whose middle is a half.

    From one bin to the next the code grows by one and the highest count by the size of the bin: the parity
    of their sum changes at each bin of even size, and only there. So comparing it with this one settles the
    halves in turn, without counting them. That the first goes down gives the smallest bias (0.03 sigma at
    gain 1; up, 0.06), because up there the photon counts are skewed upwards.
    """
    info = np.iinfo(parameters.decoded_dtype)
    start = max(math.ceil(parameters.zero_level), int(info.min))
    stop = min(start + (1 << 16), int(info.max) + 1)
    if stop - start < 2:
        return 0
    counts = np.array([start, stop - 1]).astype(parameters.decoded_dtype)
    counts = counts[0] + np.arange(stop - start, dtype=counts.dtype)
    codes, sizes = np.unique(rounded_codes(counts, parameters), return_counts=True)
    highest = start - 1 + np.cumsum(sizes)
    even = sizes % 2 == 0
    even[-1] = False  # may go on beyond the counts looked at
    even[0] &= codes[0] != rounded_codes(start - 1, parameters)  # may begin before them
    first = np.flatnonzero(even)
    return (int(codes[first[0]]) + int(highest[first[0]])) % 2 if first.size else 0


def first_counts(codes: FloatArray, decoded: np.dtype[Any], code_of: Callable[[AnyArray], FloatArray]) -> list[int]:
    """The smallest integer of a dtype whose code is at least each of ``codes``; its max + 1 if none is."""
    info = np.iinfo(decoded)
    low = np.full(codes.shape, info.min, dtype=decoded)
    high = np.full(codes.shape, info.max, dtype=decoded)
    one = low.dtype.type(1)
    for _ in range(info.bits):
        # (low + high) // 2 without overflow, for either sign
        middle = (low >> one) + (high >> one) + (low & high & one)
        reached = (code_of(middle) >= codes) | (middle == high)
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle + one)
    beyond = code_of(high) < codes
    return [int(count) + int(none) for count, none in zip(high.tolist(), beyond.tolist(), strict=True)]


def _real_middles(codes: FloatArray, parameters: TransformParameters) -> AnyArray:
    """The middle, in counts, of the two edges of each bin, rounded to the floating-point ``decoded_dtype``."""
    decoded = np.dtype(parameters.decoded_dtype)
    origin = scaled_signal(0.0, parameters)
    limit = np.finfo(decoded).max
    with np.errstate(over="ignore"):
        low, high = (inverse_signal(codes + offset + origin, parameters) for offset in (-0.5, 0.5))
        middles = np.clip((low + high) / 2, -limit, limit)
    middles = real_within_bound(low, middles, high, parameters)
    with np.errstate(over="ignore"):  # to infinity where the zero level is beyond the dtype, as the page says
        return middles.astype(decoded)


def real_within_bound(
    low: FloatArray, middles: FloatArray, high: FloatArray, parameters: TransformParameters
) -> FloatArray:
    """``middles``, but in the bin that the zero level divides: see :func:`within_bound`.

    ``low`` and ``high`` are the edges of the bins. There the lower edge decides: the highest y with
    ``y - low <= step/2 * sigma(y)`` is on the line below the zero level, or solves a quadratic in
    ``sqrt(p + 3/8)`` above.
    """
    zero, gain, half = parameters.zero_level, parameters.conversion_gain, parameters.step / 2
    divided = (low < zero) & (zero < high)
    depth = np.where(divided, (zero - low) / gain, 0.0)
    reach = half * math.sqrt(0.375)
    root = half / 2 + np.sqrt(np.maximum(half * half / 4 + 0.375 - depth, 0.0))
    highest = zero + gain * np.where(depth < reach, root * root - 0.375, reach - depth)
    return np.where(divided, np.minimum(middles, highest), middles)


def within_bound(low: int, middle: int, parameters: TransformParameters) -> int:
    """The highest count up to ``middle`` that is no further from ``low`` than the bound on the loss.

    Everywhere else the middle keeps within ``step/2 * sigma``, for sigma is concave; where the line below the
    zero level meets the root above it, it is not, and the middle lies up to 0.01 photons too high.
    """
    lowest, highest = low, middle
    while lowest < highest:
        trial = (lowest + highest + 1) // 2
        sigma = float(noise_sigma(max(low, trial), parameters))
        if trial - low <= parameters.step / 2 * sigma + 0.5:
            lowest = trial
        else:
            highest = trial - 1
    return lowest


def inverse_signal(signal: FloatArray, parameters: TransformParameters) -> FloatArray:
    """The counts at which :func:`scaled_signal` takes these values."""
    root = np.maximum(signal, 0.0) * (parameters.step / 2) + math.sqrt(0.375)
    photons = np.where(signal < 0, signal * (parameters.step * math.sqrt(0.375)), root * root - 0.375)
    return np.asarray(parameters.zero_level + parameters.conversion_gain * photons)


def highest_code(parameters: TransformParameters, code_of: Callable[[float, TransformParameters], FloatArray]) -> int:
    """The code of the highest count of ``decoded_dtype``, or the highest of ``encoded_dtype`` where that is lower."""
    decoded, encoded = np.dtype(parameters.decoded_dtype), np.dtype(parameters.encoded_dtype)
    count_top = np.iinfo(decoded).max if decoded.kind in "ui" else np.finfo(decoded).max
    code_top = min(np.iinfo(encoded).max, 2**32)  # 64-bit codes go further than float64 resolves
    return int(min(float(code_top), float(code_of(float(count_top), parameters))))


def top_of_range(parameters: TransformParameters, dtype: npt.DTypeLike | None = None) -> Any:
    """The highest count that comes back as itself: a fill value nobody takes for darkness.

    Parameters
    ----------
    parameters
        The transform.
    dtype
        Of the array; ``decoded_dtype`` when None.

    Returns
    -------
    numpy scalar
        In ``dtype``: the decoded value of the highest code for which it is finite and has a code itself.
    """
    encoded, stored = np.dtype(parameters.encoded_dtype), np.dtype(dtype or parameters.decoded_dtype)
    highest = highest_code(parameters, rounded_codes)
    # Rounding to a narrow floating-point dtype can push the highest over the edge: then it is one of the next.
    for code in range(highest, max(highest - 100, 0), -1):
        with np.errstate(over="ignore"):
            value = decode_codes(np.array([code]).astype(encoded), parameters).astype(stored)
        try:
            codes = encode_counts(value, parameters)
        except CodeRangeError:
            continue
        if (decode_codes(codes, parameters).astype(stored) == value).all():
            return value[0]
    return decode_codes(np.array([max(highest, 0)]).astype(encoded), parameters).astype(stored)[0]
