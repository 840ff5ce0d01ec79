"""The codec ``dj_photon_codecs.anscombe``, written a second time, from ``docs/spec/anscombe.md`` alone.

Plain Python numbers and loops, nothing of the package: whatever this and the package disagree on, either the page
does not say or one of the two does not do. Names are those of the page; `n` is the place of an element in its chunk.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

#: Range of every integer data type that the page lists.
INTEGER_RANGES = {f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)} | {
    f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)
}

#: Of every floating-point data type that the page lists: largest finite number, letter in ``struct``, digits.
FLOATS = {
    "float16": (65504.0, "e", 10),
    "float32": (float.fromhex("0x1.fffffep+127"), "f", 23),
    "float64": (float.fromhex("0x1.fffffffffffffp+1023"), "d", 52),
}


class SpecError(Exception):
    """The page says: error."""


@lru_cache(maxsize=4093)
def level(n: int) -> int:
    """The level `k` of the `n`-th element, from 0 to 63."""
    i = n % 4093
    return (64 * (i**5 % 4093)) // 4093


@dataclass(frozen=True)
class Run:
    """Cells of one law; ``number`` is that of the first among all cells."""

    number: float
    start: float
    linear: float
    quadratic: float
    cells: float
    stop: float


@dataclass(frozen=True)
class Reference:
    """One configuration of the codec."""

    zero_level: float
    conversion_gain: float
    step: float
    encoded_dtype: str
    decoded_dtype: str
    dither: str = "none"
    under_root: float = 0.375
    saturation: float | None = None

    @property
    def whole(self) -> bool:
        return self.decoded_dtype in INTEGER_RANGES

    def sigma(self, x: float) -> float:
        photons = max((float(x) - self.zero_level) / self.conversion_gain, 0.0)
        return self.conversion_gain * math.sqrt(photons + self.under_root)

    # Cells

    @property
    def ends(self) -> tuple[float, float]:
        if not self.whole:
            return -math.inf, math.inf
        if self.decoded_dtype == "int64":
            return -math.inf, 2.0**63
        if self.decoded_dtype == "uint64":
            return -0.5, 2.0**64
        low, high = INTEGER_RANGES[self.decoded_dtype]
        return low - 0.5, high + 0.5

    @property
    def unit(self) -> float:
        if self.whole or self.saturation is None:
            return 1.0
        largest = max(abs(self.saturation), abs(self.zero_level))
        return math.ldexp(1.0, math.frexp(largest)[1] - 1 - (10 if self.decoded_dtype == "float16" else 23))

    @cached_property
    def runs(self) -> list[Run]:
        bottom, top = self.ends
        singles = {bottom + 0.5, bottom + 1.5, top - 1.5, top - 0.5} if self.whole else set()
        if self.saturation is not None:
            singles |= {self.saturation - self.unit, self.saturation, self.saturation + self.unit}
        groups: list[list[float]] = []
        for single in sorted(count for count in singles if bottom < count < top and abs(count) < 2.0**52):
            if groups and single <= groups[-1][-1] + self.unit:
                groups[-1].append(single)
            else:
                groups.append([single])
        found: list[tuple[float, float, float, float, float]] = []
        low = bottom
        for group in groups:
            found += self.between(low, group[0] - self.unit / 2)
            low = group[-1] + self.unit / 2
            found.append((group[0] - self.unit / 2, self.unit, 0.0, len(group), low))
        found += self.between(low, top)
        runs, number = [], 0.0
        for start, linear, quadratic, cells, stop in found:
            runs.append(Run(number, start, linear, quadratic, cells, stop))
            number += cells
        return runs

    def between(self, low: float, high: float) -> list[tuple[float, float, float, float, float]]:
        """The runs of a range: start, linear, quadratic, cells, stop."""
        if not low < high:
            return []
        zero, gain = self.zero_level, self.conversion_gain
        narrow = self.step * (127 / 128)
        width = narrow * gain * math.sqrt(self.under_root)
        if self.whole and width < 1:
            square = (narrow * gain) * (narrow * gain)
            edge = zero + gain * (1 / square - self.under_root) if square > 0 else math.inf
            joint = high if edge >= high else min(max(math.ceil(edge - 0.5) + 0.5, low), high)
            width, dark = 1.0, 0.0
        else:
            middle = rint(zero) if self.whole else zero
            half = math.floor((width - 1) / 2) + 0.5 if self.whole else width / 2
            dark = min(half, middle - low, high - middle) if low < middle < high else 0.0
            joint = min(max(middle + dark, low), high)
        line = joint - 2 * dark
        runs: list[tuple[float, float, float, float, float]] = []
        if low == -math.inf:
            runs.append((line - width, width, 0.0, 1, line))
        elif low < line:
            cells = math.ceil((line - low) / width)
            runs.append((low, (line - low) / cells, 0.0, cells, line))
        if dark > 0:
            runs.append((line, 2 * dark, 0.0, 1, joint))
        if joint < high:
            r = math.sqrt(max((joint - zero) / gain, 0.0) + self.under_root)
            wanted = (math.sqrt(r * r + (high - joint) / gain) - r) / (narrow / 2)
            many = wanted if math.isinf(wanted) else max(math.ceil(wanted), 1)
            if self.whole:
                many = min(many, math.floor(high - joint))
            runs.append((joint, gain * narrow * r, gain * (narrow / 2) * (narrow / 2), many, high))
        return runs

    def e_raw(self, n: float) -> float:
        """The lower edge of the cell that has the number `n` among all cells."""
        index = max(bisect_right([run.number for run in self.runs], n) - 1, 0)
        run = self.runs[index]
        m = n - run.number
        edge = run.start + (run.linear + run.quadratic * m) * m
        if not self.whole:
            return min(edge, run.stop)
        return math.floor(min(edge, run.stop - (run.cells - m))) + 0.5

    @cached_property
    def number_of_0(self) -> float:
        """The number, among all cells, of the cell that is numbered 0."""
        cell = self.cell_raw(0.0)
        single = self.whole and self.e_raw(cell + 1) - self.e_raw(cell) <= 1
        return cell if single or self.dither == "none" else cell - 1

    def e(self, n: float) -> float:
        return self.e_raw(n + self.number_of_0)

    def cell_raw(self, x: float) -> float:
        """The cell of a count, by bisection."""
        index = max(bisect_right([run.start for run in self.runs], x) - 1, 0)
        run = self.runs[index]
        low, high = run.number - 1, run.number + 1
        while self.e_raw(low) > x:
            low -= 2 * (run.number - low)
        while self.e_raw(high) <= x:
            high += high - run.number
        while high - low > 1:
            middle = math.floor((low + high) / 2)
            if middle in (low, high):  # beyond 2^53, where float64 does not count one by one
                break
            low, high = (middle, high) if self.e_raw(middle) <= x else (low, middle)
        return low

    def as_float(self, x: int | float) -> float:
        """The count as float64, below the end of the cells."""
        end = {"int64": 2.0**63, "uint64": 2.0**64}.get(self.decoded_dtype, math.inf)
        return min(float(x), math.nextafter(end, 0.0))

    def cell(self, x: float) -> float:
        return self.cell_raw(self.as_float(x)) - self.number_of_0

    # What codes stand for

    def value(self, c: float, k: int | None) -> int | float:
        if self.whole:
            smallest, largest = INTEGER_RANGES[self.decoded_dtype]
            first, following = math.ceil(self.e(c)), math.ceil(self.e(c + 1))
            if following <= smallest:
                return smallest
            if first > largest:
                return largest
            first, width = max(first, smallest), min(following, largest + 1) - max(first, smallest)
            if k is None:
                return first + (width - 1 + int(c % 2)) // 2
            return first + width * (127 - 2 * k) // 128
        low, width_of_reals = self.e(c), self.e(c + 1) - self.e(c)
        single = self.saturation is not None and abs(c - self.cell(self.saturation)) <= 1
        part = 0.5 if k is None or single else (127 - 2 * k) / 128
        limit = FLOATS[self.decoded_dtype][0]
        return rounded_to(min(max(low + width_of_reals * part, -limit), limit), self.decoded_dtype)

    def decode(self, c: int, n: int = 0) -> int | float:
        return self.value(float(c), level(n) if self.dither == "position" else None)

    # Encoding

    def check(self, x: int | float) -> None:
        """Cases 1 to 3."""
        if isinstance(x, float) and not math.isfinite(x):
            raise SpecError("NaN or infinite")
        if self.whole:
            low, high = INTEGER_RANGES[self.decoded_dtype]
            if isinstance(x, float) and high > 1 << 53:
                high = 2**63 - 1024
            if x != math.floor(x) or not low <= x <= high:
                raise SpecError(f"no whole number of {self.decoded_dtype}")
        w = self.step * self.sigma(x)
        largest = max(abs(float(x)), abs(self.zero_level))
        if not largest * 2.0**-51 <= 0.001 * max(w, 1.0 if self.whole else 0.0):
            raise SpecError("not resolved")
        if not self.whole:
            limit, _, digits = FLOATS[self.decoded_dtype]
            y = min(abs(x) + w, limit)
            if not math.ldexp(1.0, math.frexp(y)[1] - 1 - digits) <= max(w / 128, min(w / 4, 1.0)):
                raise SpecError(f"not resolved by {self.decoded_dtype}")

    def position(self, x: int | float) -> int:
        x = self.as_float(x)
        return 64 * int(self.cell(x)) + self.position_beside(x, self.cell_raw(x))

    def position_beside(self, x: float, n: float) -> int:
        """The position of a count, less 64 times its cell, whose number among all cells is `n`."""
        if not self.whole:
            low, high = self.e_raw(n), self.e_raw(n + 1)
            middle, width = (low + high) / 2, high - low
            other = self.e_raw(n + 2) - high if x >= middle else low - self.e_raw(n - 1)
            d = abs(x - middle)
            t = (2 * d) / (width + math.sqrt(width * width + (2 * (other - width)) * d))
            return int(rint(64 * t) if x >= middle else -rint(64 * t))
        if self.e_raw(n + 1) - self.e_raw(n) <= 1:
            return 0
        firsts = [math.ceil(self.e_raw(n + beside)) for beside in (-1, 0, 1, 2)]
        values = [
            first + (following - first) * (127 - 2 * k) // 128
            for first, following in pairwise(firsts)
            for k in range(63, -1, -1)
        ]
        # the 64 values of a position are neighbours in that order: the highest level of a code is its lowest value
        sums = [sum(values[s : s + 64]) - 64 * int(x) for s in range(129)]
        s = min(range(129), key=lambda s: (abs(sums[s]), s))
        while values[s] < x - (self.step / 2 * self.sigma(x) + 0.5):
            s += 1
        return s - 64

    def codes(self, x: int | float) -> tuple[int, int]:
        """The lowest and the highest code that a count can have."""
        n = self.cell(x)
        if self.dither == "none" or n > 2**40:  # float64 holds no positions of such cells
            return int(n), int(n)
        s = self.position(x)
        return s // 64, (s + 63) // 64

    def encode(self, x: int | float, n: int = 0) -> int:
        self.check(x)
        low, high = INTEGER_RANGES[self.encoded_dtype]
        high = {"int64": 2**63 - 1024, "uint64": 2**64 - 2048}.get(self.encoded_dtype, high)
        first, last = self.codes(x)
        if first < low or last > high:
            raise SpecError(f"outside {self.encoded_dtype}")
        return first if self.dither == "none" else (self.position(x) + level(n)) // 64

    # Fill value

    def fill_value(self) -> int | float:
        top = INTEGER_RANGES[self.decoded_dtype][1] if self.whole else FLOATS[self.decoded_dtype][0]
        highest = int(min(INTEGER_RANGES[self.encoded_dtype][1], 2**32, self.codes(top)[1]))
        while highest > 0:
            for code in range(highest, max(highest - 8, 0), -1):
                count = self.decode(code)
                try:
                    if math.isfinite(count) and self.decode(self.encode(count)) == count:
                        return count
                except SpecError:
                    continue
            highest //= 2
        return self.decode(0)


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
