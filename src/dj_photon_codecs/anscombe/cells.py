"""Cells of the transform: adjacent intervals of counts, each one noise step wide, numbered consecutively.

A code is a cell number. The square root of a Poisson count has nearly the same noise at every intensity (Anscombe 1948,
Biometrika 35:246), so cells of equal width in the square root are a fixed fraction of the noise wide. Their edges are
at ``zero_level + gain * (r^2 - under_root)`` with ``r`` in steps of ``step / 2``. Below the zero level the noise is
constant, and all cells have the same width.

With dither, a count decodes to values spread over an interval one cell wide. Their mean equals the count only if the
interval lies within the range of decodable values. Cells therefore shrink to one count at the ends of that range: the
lowest and highest counts of a dtype, and the saturation of the converter. If two one-count cells are adjacent, their
counts decode exactly, and no other count decodes to them. The zero level is the middle of its cell.

Edges are computed in float64 with add, divide, multiply, square root and floor only, which IEEE 754 rounds the same
way on every machine. ``docs/spec/anscombe.md`` specifies the format.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .._dither import LEVELS
from .._typing import AnyArray, FloatArray
from .parameters import TransformParameters

#: Below this magnitude, float64 represents every half-integer.
_HALVES = 2.0**52

#: Width of a cell in noise steps. The remainder leaves room for rounding to whole counts or to a dtype.
_ROOM = 127 / 128


class Cells:
    """Cells of one configuration, stored as runs that share one formula.

    The lower edge of cell ``m`` of a run is ``start + (linear + quadratic * m) * m``. For whole counts, it is limited
    so that each remaining cell of the run has room for one count, and moved to ``floor(edge) + 0.5``.
    """

    def __init__(self, parameters: TransformParameters) -> None:
        self.parameters = parameters
        self._runs: list[tuple[float, ...]] = []
        self._numbered = 0.0
        self._lay_all()
        columns = np.array(self._runs, np.float64).T
        self._first, self._start, self._linear, self._quadratic, self._count, self._stop = columns
        #: Index of cell 0 among all cells: the cell of count 0, or the one below if dither can give count 0 its code.
        self._origin = 0.0
        [number] = self.numbers(np.zeros(1)).tolist()
        wide = not parameters.whole or self.edges(number + 1) - self.edges(number) > 1
        self._origin = number - (parameters.dithered and wide)

    # Construction

    def _lay_all(self) -> None:
        """Add all runs, from the lowest count to the highest."""
        low, high = self._ends()
        unit = self._unit()
        groups: list[list[float]] = []  # adjacent one-count cells
        for single in self._singles(unit):
            if groups and single <= groups[-1][-1] + unit:
                groups[-1].append(single)
            else:
                groups.append([single])
        for group in groups:
            start, stop = group[0] - unit / 2, group[-1] + unit / 2
            self._lay(low, start)
            self._add(start, unit, 0.0, len(group), stop)
            low = stop
        self._lay(low, high)

    def _ends(self) -> tuple[float, float]:
        """Return the lower edge of the first cell and the upper edge of the last."""
        if not self.parameters.whole:
            return -math.inf, math.inf
        info = np.iinfo(self.parameters.decoded_dtype)
        if info.bits < 64:
            return info.min - 0.5, info.max + 0.5
        return (-math.inf if info.min else -0.5), float(info.max)

    def _unit(self) -> float:
        """Return the width of a one-count cell: 1, or the spacing of a floating-point dtype at the saturation."""
        if self.parameters.whole or self.parameters.saturation is None:
            return 1.0
        digits = 10 if self.parameters.decoded_dtype == "float16" else 23
        largest = max(abs(self.parameters.saturation), abs(self.parameters.zero_level))
        return math.ldexp(1.0, math.frexp(largest)[1] - 1 - digits)

    def _singles(self, unit: float) -> list[float]:
        """Return the counts that have a cell to themselves, sorted."""
        singles: set[float] = set()
        low, high = self._ends()
        if self.parameters.whole:
            singles |= {low + 0.5, low + 1.5, high - 1.5, high - 0.5}
        top = self.parameters.saturation
        if top is not None:
            singles |= {top - unit, top, top + unit}
        return sorted(single for single in singles if low < single < high and abs(single) < _HALVES)

    def _lay(self, low: float, high: float) -> None:
        """Add cells one noise step wide between two edges."""
        if not low < high:
            return
        given = self.parameters
        zero, gain, step = given.zero_level, given.conversion_gain, given.step * _ROOM
        width = step * gain * math.sqrt(given.under_root)
        dark = 0.0  # half the width of the zero level's cell
        if given.whole and width < 1:
            # step * sigma is one count at this edge; every count below it has its own cell
            square = (step * gain) * (step * gain)
            edge = zero + gain * (1 / square - given.under_root) if square > 0 else math.inf
            joint = min(max(math.ceil(edge - 0.5) + 0.5, low), high) if edge < high else high
            width = 1.0
        else:
            middle = float(np.rint(zero)) if given.whole else zero
            if low < middle < high:
                dark = min(math.floor((width - 1) / 2) + 0.5 if given.whole else width / 2, middle - low, high - middle)
            joint = min(max(middle + dark, low), high)
        line = joint - 2 * dark
        if low == -math.inf:
            self._add(line - width, width, 0.0, 1, line)
        elif low < line:
            cells = math.ceil((line - low) / width)
            self._add(low, (line - low) / cells, 0.0, cells, line)
        if dark:
            self._add(line, 2 * dark, 0.0, 1, joint)
        if joint < high:
            root = math.sqrt(max((joint - zero) / gain, 0.0) + given.under_root)
            half = step / 2
            wanted = (math.sqrt(root * root + (high - joint) / gain) - root) / half
            count: float = max(math.ceil(wanted), 1) if math.isfinite(wanted) else wanted
            most = math.floor(high - joint) if given.whole else math.inf
            self._add(joint, gain * step * root, gain * half * half, min(count, most), high)

    def _add(self, start: float, linear: float, quadratic: float, cells: float, stop: float) -> None:
        self._runs.append((self._numbered, start, linear, quadratic, cells, stop))
        self._numbered += cells

    # Queries

    def edges(self, numbers: npt.ArrayLike) -> FloatArray:
        """Return the lower edge of each cell [counts]; the upper edge is the lower edge of the next cell."""
        n = np.asarray(numbers, np.float64) + self._origin
        run = np.maximum(np.searchsorted(self._first, n, "right") - 1, 0)
        m = n - self._first[run]
        with np.errstate(over="ignore", invalid="ignore"):
            edge = self._start[run] + (self._linear[run] + self._quadratic[run] * m) * m
            room = (self._count[run] - m) * self.parameters.whole
            edge = np.minimum(edge, np.where(np.isnan(room), math.inf, self._stop[run] - room))
        return np.asarray(np.floor(edge) + 0.5 if self.parameters.whole else edge)

    def _values(self, counts: npt.ArrayLike) -> FloatArray:
        """Return counts as float64, below the last edge; float64 rounds the highest 64-bit counts up to it."""
        return np.asarray(np.minimum(np.asarray(counts, np.float64), np.nextafter(self._stop[-1], -np.inf)))

    def numbers(self, counts: npt.ArrayLike) -> FloatArray:
        """Return the number of the cell that contains each count."""
        x = self._values(counts)
        run = np.maximum(np.searchsorted(self._start, x, "right") - 1, 0)
        beyond, linear = x - self._start[run], self._linear[run]
        with np.errstate(over="ignore", invalid="ignore"):
            root = np.sqrt(np.maximum(linear * linear + 4 * self._quadratic[run] * beyond, 0.0))
            m = np.floor(2 * beyond / (linear + root))
        n = self._first[run] + np.minimum(m, self._count[run] - 1) - self._origin
        n -= self.edges(n) > x  # correct for float64 rounding and for edges moved to half-integers
        n += self.edges(n + 1) <= x
        return np.asarray(n)

    def isolated(self, numbers: FloatArray) -> npt.NDArray[np.bool_]:
        """Return a mask of the one-count cells of real counts, which decode exactly at every offset."""
        if self.parameters.whole or self.parameters.saturation is None:
            return np.zeros(np.shape(numbers), np.bool_)
        return np.asarray(np.abs(numbers - self.numbers(self.parameters.saturation)) <= 1)

    def positions(self, counts: npt.ArrayLike) -> FloatArray:
        """Return the position of each count in whole 64ths of a cell; its code is ``(position + level) // 64``.

        At this position, the mean of the 64 decoded values is closest to the count.
        """
        x = self._values(counts)
        n = self.numbers(x)
        if not self.parameters.whole:
            return LEVELS * n + self._real_shift(x, n)
        position = LEVELS * n
        wide = self.edges(n + 1) - self.edges(n) > 1  # a one-count cell needs no shift
        position[wide] += self._whole_shift(x[wide], n[wide])
        return np.asarray(position)

    def _real_shift(self, x: FloatArray, n: FloatArray) -> FloatArray:
        """Return the shift of real counts from the middle of their cells, in 64ths of a cell.

        Between the middles of two cells, the mean over all offsets is a quadratic whose end slopes are their widths.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            low, high = self.edges(n), self.edges(n + 1)
            away = x - (low + high) / 2
            other = np.where(away < 0, low - self.edges(n - 1), self.edges(n + 2) - high)
            width, distance = high - low, np.abs(away)
            part = 2 * distance / (width + np.sqrt(width * width + 2 * (other - width) * distance))
        part = np.where(part < 1, part, 0.0)  # always below 1 unless float64 cannot resolve the cells
        return np.asarray(np.copysign(np.rint(LEVELS * part), away))

    def _whole_shift(self, x: FloatArray, n: FloatArray) -> AnyArray:
        """Return the shift of whole counts from the middle of their cells, from integer sums of decoded counts."""
        cells, of = np.unique(n, return_inverse=True)
        edges = np.ceil([self.edges(cells + beside) for beside in range(-1, 3)])
        firsts = (edges - edges[1]).astype(np.int64)  # of the previous cell, the cell itself, and the next two
        widths = np.diff(firsts, axis=0)
        points = firsts[:-1, :, None] + widths[:, :, None] * (2 * np.arange(LEVELS) + 1) // (2 * LEVELS)
        sums = np.zeros((cells.size, 3 * LEVELS + 1), np.int64)
        np.cumsum(np.concatenate(list(points), axis=1), axis=1, out=sums[:, 1:])
        sums = sums[:, LEVELS:] - sums[:, :-LEVELS]
        beyond = x - edges[1][of]
        wanted = LEVELS * beyond.astype(np.int64)
        above = np.zeros(x.shape, np.int64)  # bisect for the first sum of at least 64 x
        for stride in (64, 32, 16, 8, 4, 2, 1, 1):
            above += stride * (sums[of, above + stride - 1] < wanted)
        nearer_below = wanted - sums[of, above - 1] <= sums[of, above] - wanted
        shift = above - nearer_below - LEVELS
        # Rounding twice can push the lowest decoded count past the error bound; if so, start further up.
        low = beyond - (self.parameters.step / 2 * self.parameters.sigma(x) + 0.5)
        down = shift < 0
        width = np.where(down, widths[0][of], widths[1][of])
        needed = np.ceil((2 * LEVELS * (np.ceil(low) - np.where(down, firsts[0][of], 0)) / width - 1) / 2)
        return np.asarray(np.maximum(shift, needed - LEVELS * down))

    def counts(self, numbers: AnyArray, level: int | None) -> AnyArray:
        """Decode ``numbers`` to ``decoded_dtype``, at an offset level or without dither (None).

        With an offset ``u``, the result is the point ``1/2 - u`` of the cell's width above its lower edge; without
        dither, the middle. Whole counts take the count at that point; halves round down and up in turn.
        """
        n = np.asarray(numbers, np.float64)
        low, high = self.edges(n), self.edges(n + 1)
        # distance from the lower edge in 128ths of the cell's width
        share = LEVELS if level is None else 2 * LEVELS - 1 - 2 * level
        if self.parameters.whole:
            first, stop = self._whole(low), self._whole(high)
            width = stop - first
            inside = (width - 1 + (n % 2).astype(np.int64)) // 2 if level is None else width * share // (2 * LEVELS)
            info = np.iinfo(self.parameters.decoded_dtype)
            found = np.clip(first + np.maximum(inside, 0), int(info.min), int(info.max))
            return np.asarray(found).astype(self.parameters.decoded_dtype)
        part = np.where(self.isolated(n), 0.5, share / (2 * LEVELS))
        limit = float(np.finfo(self.parameters.decoded_dtype).max)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.clip(low + (high - low) * part, -limit, limit).astype(self.parameters.decoded_dtype)

    def _whole(self, edges: FloatArray) -> AnyArray:
        """Return the first count above each edge, as Python integers for 64-bit dtypes, where numpy would overflow."""
        info = np.iinfo(self.parameters.decoded_dtype)
        firsts = np.clip(np.ceil(edges), float(info.min), float(info.max) + 1)
        if info.bits < 64:
            return firsts.astype(np.int64)
        return np.array([int(first) for first in firsts.ravel().tolist()], object).reshape(edges.shape)


@lru_cache(maxsize=64)
def cells_of(parameters: TransformParameters) -> Cells:
    """Return the cells of a configuration."""
    return Cells(parameters)
