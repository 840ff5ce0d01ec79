"""The codec ``dj_photon_codecs.dithered_anscombe``, written a second time, from ``docs/spec/dithered.md`` alone.

Plain Python numbers and loops, nothing of the package; what that page takes from ``docs/spec/anscombe.md``, this
takes from the reference of that page. Names are those of the page; `n` is the place of an element in its chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from spec_reference import FLOATS, INTEGER_RANGES, Reference, SpecError, rint, rounded_to


def level(n: int) -> int:
    """The level `k` of the `n`-th element, from 0 to 63."""
    i = n % 4093
    return (64 * (i**5 % 4093)) // 4093


def offset(n: int) -> float:
    """The offset `u` of the `n`-th element, in codes."""
    return (2 * level(n) + 1) / 128 - 0.5


@dataclass(frozen=True)
class DitheredReference(Reference):
    """One configuration of the codec."""

    # Signal

    @property
    def unsigned(self) -> bool:
        return self.decoded_dtype.startswith("uint")

    @property
    def steep(self) -> bool:
        return self.decoded_dtype in INTEGER_RANGES and (self.step * self.conversion_gain) * math.sqrt(0.375) < 1

    @cached_property
    def edge(self) -> float:
        square = (self.step * self.conversion_gain) * (self.step * self.conversion_gain)
        photons = 1 / square if square > 0 else math.inf  # Python refuses where IEEE 754 gives infinity
        return self.zero_level + self.conversion_gain * (photons - 0.375)

    def signal(self, x: int | float) -> float:
        """``F`` of the page."""
        x = float(x)
        if not self.steep:
            return self.f(x)
        if x <= self.edge:
            return x
        return self.edge + (self.f(x) - self.f(self.edge))

    @cached_property
    def centre(self) -> float:
        at_zero = self.signal(0.0)
        return rint(at_zero) if self.steep and not self.unsigned else at_zero

    def g(self, x: int | float) -> float:
        return self.signal(x) - self.centre

    # Encoding

    def dithered_code(self, x: int | float, u: float) -> float:
        """``code(x, u)`` of the page."""
        if not self.unsigned:
            return rint(self.g(x) + u)
        return 0.0 if x == 0 else rint(self.g(x) + u) + 1

    def encode_at(self, x: int | float, n: int) -> int:
        self.check(x)
        low, high = INTEGER_RANGES[self.encoded_dtype]
        high = {"int64": 2**63 - 1024, "uint64": 2**64 - 2048}.get(self.encoded_dtype, high)
        if self.dithered_code(x, -0.5) < low or self.dithered_code(x, 0.5) > high:
            raise SpecError(f"outside {self.encoded_dtype}")
        return int(self.dithered_code(x, offset(n)))

    # Decoding

    def unbiased(self, c: int, u: float) -> tuple[float, float]:
        """``v`` and ``h`` of the page."""
        b = (self.conversion_gain * (self.step * self.step)) / 48
        s = (float(c) - 1) - u if self.unsigned else float(c) - u
        v = s + self.centre
        if self.steep:
            h = v if v <= self.edge else self.inverse((v - self.edge) + self.f(self.edge)) - b
        else:
            h = self.inverse(v) if v < 0 else self.inverse(v) - b
        return v, h

    def decode_at(self, c: int, n: int) -> int | float:
        u = offset(n)
        return self.to_integer(c, u) if self.decoded_dtype in INTEGER_RANGES else self.to_float(c, u)

    def to_integer(self, c: int, u: float) -> int:
        largest = INTEGER_RANGES[self.decoded_dtype][1]
        low = self.smallest_where(lambda n: self.dithered_code(n, u) >= float(c))
        high = self.smallest_where(lambda n: self.dithered_code(n, u) > float(c)) - 1
        if high < low:
            return min(low, largest)
        h = self.unbiased(c, u)[1]
        m = min(max(rint(h), low), high)
        if not low < self.zero_level < high:
            return int(m)
        return self.bisected(low, int(m))

    def to_float(self, c: int, u: float) -> float:
        limit = FLOATS[self.decoded_dtype][0]
        v, h = self.unbiased(c, u)
        low, high = self.inverse(v - 0.5), self.inverse(v + 0.5)
        m = min(max(h, -limit), limit)
        if low < self.zero_level < high:
            m = min(m, self.highest(low))
        return rounded_to(m, self.decoded_dtype)

    # Fill value

    def fill_value_at_start(self) -> int | float:
        whole = self.decoded_dtype in INTEGER_RANGES
        top = INTEGER_RANGES[self.decoded_dtype][1] if whole else FLOATS[self.decoded_dtype][0]
        highest = int(min(INTEGER_RANGES[self.encoded_dtype][1], 2**32, self.dithered_code(top, 0.0)))
        for code in range(highest, max(highest - 100, 0), -1):
            count = self.decode_at(code, 0)
            try:
                self.encode_at(count, 0)
            except SpecError:
                continue
            return count
        return self.decode_at(0, 0)
