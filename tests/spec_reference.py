"""The codec ``dj_photon.anscombe``, written a second time, from ``docs/spec/anscombe.md`` alone.

Plain Python numbers and loops, nothing of the package: whatever this and the package disagree on, either the page
does not say or one of the two does not do. Names are those of the page.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

#: Range of every integer data type that the page lists.
INTEGER_RANGES = {f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)
}

#: Largest finite number of every floating-point data type that the page lists, and its letter in ``struct``.
FLOATS = {
    "float16": (65504.0, "e"),
    "float32": (float.fromhex("0x1.fffffep+127"), "f"),
    "float64": (float.fromhex("0x1.fffffffffffffp+1023"), "d"),
}


class SpecError(Exception):
    """The page says: error."""


@dataclass(frozen=True)
class Reference:
    """One configuration of the codec."""

    zero_level: float
    conversion_gain: float
    step: float
    encoded_dtype: str
    decoded_dtype: str

    # Signal, code, noise

    def p(self, x: int | float) -> float:
        return (float(x) - self.zero_level) / self.conversion_gain

    def f(self, x: float) -> float:
        p = self.p(x)
        if p >= 0:
            return (2 / self.step) * (math.sqrt(p + 0.375) - math.sqrt(0.375))
        return p / (self.step * math.sqrt(0.375))

    def code(self, x: float) -> float:
        return rint(self.f(x) - self.f(0.0))

    def sigma(self, x: float) -> float:
        return self.conversion_gain * math.sqrt(max(self.p(x), 0.0) + 0.375)

    # Encoding

    def check(self, x: int | float) -> None:
        """Cases 1 to 3."""
        if isinstance(x, float) and not math.isfinite(x):
            raise SpecError("NaN or infinite")
        whole = self.decoded_dtype in INTEGER_RANGES
        if whole:
            low, high = INTEGER_RANGES[self.decoded_dtype]
            if isinstance(x, float) and high > 1 << 53:
                high = 2**63 - 1024
            if x != math.floor(x) or not low <= x <= high:
                raise SpecError(f"no whole number of {self.decoded_dtype}")
        largest = max(abs(float(x)), abs(self.zero_level))
        if not largest * 2.0**-51 <= 0.001 * max(self.step * self.sigma(x), 1.0 if whole else 0.0):
            raise SpecError("not resolved")

    def encode(self, x: int | float) -> int:
        self.check(x)
        code = self.code(x)
        low, high = INTEGER_RANGES[self.encoded_dtype]
        high = {"int64": 2**63 - 1024, "uint64": 2**64 - 2048}.get(self.encoded_dtype, high)
        if not low <= code <= high:
            raise SpecError(f"outside {self.encoded_dtype}")
        return int(code)

    # Decoding to integers

    def smallest_where(self, holds: Callable[[int], bool]) -> int:
        """The smallest integer from which on `holds` is true; one more than the largest if there is none."""
        low, high = INTEGER_RANGES[self.decoded_dtype]
        if not holds(high):
            return high + 1
        while low < high:
            middle = (low + high) // 2
            if holds(middle):
                high = middle
            else:
                low = middle + 1
        return high

    def first(self, c: float) -> int:
        return self.smallest_where(lambda n: self.code(n) >= c)

    @cached_property
    def phase(self) -> int:
        smallest, largest = INTEGER_RANGES[self.decoded_dtype]
        start = max(smallest, math.ceil(self.zero_level))
        window = range(start, min(start + 65536, largest + 1))
        if len(window) < 2:
            return 0
        runs: list[list[int]] = []
        codes: list[float] = []
        for n in window:
            code = self.code(n)
            if codes and codes[-1] == code:
                runs[-1].append(n)
            else:
                codes.append(code)
                runs.append([n])
        continued = self.code(start - 1) == codes[0]
        for code, run in list(zip(codes, runs, strict=True))[1 if continued else 0 : -1]:
            if len(run) % 2 == 0:
                return (int(code) + run[-1]) % 2
        return 0

    def decode_integer(self, c: int) -> int:
        low = self.first(float(c))
        high = self.first(float(c) + 1) - 1
        if high < low:
            return min(low, INTEGER_RANGES[self.decoded_dtype][1])
        if (low + high) % 2 == 0:
            m = (low + high) // 2
        elif (c + high) % 2 == self.phase:
            m = (low + high - 1) // 2
        else:
            m = (low + high + 1) // 2
        return self.bisected(low, m) if low < self.zero_level < high else m

    def bisected(self, low: int, m: int) -> int:
        """The highest count up to `m` that is no further from `low` than the bound allows."""
        a, b = low, m
        while a < b:
            t = (a + b + 1) // 2
            if t - low <= self.step / 2 * self.sigma(t) + 0.5:
                a = t
            else:
                b = t - 1
        return a

    # Decoding to floating point

    def inverse(self, s: float) -> float:
        if s < 0:
            return self.zero_level + self.conversion_gain * (s * (self.step * math.sqrt(0.375)))
        r = s * (self.step / 2) + math.sqrt(0.375)
        return self.zero_level + self.conversion_gain * (r * r - 0.375)

    def decode_float(self, c: int) -> float:
        limit = FLOATS[self.decoded_dtype][0]
        low = self.inverse((float(c) - 0.5) + self.f(0.0))
        high = self.inverse((float(c) + 0.5) + self.f(0.0))
        m = min(max((low + high) / 2, -limit), limit)
        if low < self.zero_level < high:
            m = min(m, self.highest(low))
        return rounded_to(m, self.decoded_dtype)

    def highest(self, low: float) -> float:
        """The highest count that is no further from `low`, the lower edge of its bin, than the bound allows."""
        h = self.step / 2
        d = (self.zero_level - low) / self.conversion_gain
        r = h / 2 + math.sqrt(max((h * h / 4 + 0.375) - d, 0.0))
        below = h * math.sqrt(0.375)
        return self.zero_level + self.conversion_gain * (r * r - 0.375 if d < below else below - d)

    def decode(self, c: int) -> float:
        return self.decode_integer(c) if self.decoded_dtype in INTEGER_RANGES else self.decode_float(c)

    # Fill value

    def fill_value(self) -> float:
        top = (
            INTEGER_RANGES[self.decoded_dtype][1]
            if self.decoded_dtype in INTEGER_RANGES
            else FLOATS[self.decoded_dtype][0]
        )
        highest = int(min(INTEGER_RANGES[self.encoded_dtype][1], 2**32, self.code(top)))
        for code in range(highest, max(highest - 100, 0), -1):
            count = self.decode(code)
            try:
                if math.isfinite(count) and self.decode(self.encode(count)) == count:
                    return count
            except SpecError:
                continue
        return self.decode(max(highest, 0))


def rounded_to(value: float, dtype: str) -> float:
    """The number of the floating-point `dtype` nearest to `value`, halves to even."""
    letter = FLOATS[dtype][1]
    try:
        rounded: float = struct.unpack(letter, struct.pack(letter, value))[0]
    except OverflowError:  # struct refuses where IEEE 754 gives infinity
        return math.copysign(math.inf, value)
    return rounded


def rint(value: float) -> float:
    """The nearest whole number, halves to even."""
    return value if math.isinf(value) else float(round(value))
