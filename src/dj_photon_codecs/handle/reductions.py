"""Sums, means and extremes of an array that is read chunk by chunk, with the same arguments as in numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray

Axis = int | tuple[int, ...] | None
DType = npt.DTypeLike | None
Out = AnyArray | None

#: A part of an array: its region and its values.
Block = tuple[tuple[slice, ...], AnyArray]


class Reductions:
    """Methods called by the numpy functions of the same names.

    Results equal numpy's. Floating-point results may differ in the last digits, because sums accumulate in float64 for
    every dtype. Memory use is the result plus a few chunks.
    """

    if TYPE_CHECKING:  # provided by subclasses; a definition here would hide that of another base class

        @property
        def shape(self) -> tuple[int, ...]: ...  # noqa: D102
        @property
        def dtype(self) -> np.dtype[Any]: ...  # noqa: D102
        def _blocks(self) -> Iterator[Block]:
            """Yield blocks that together cover the array."""

    def sum(
        self,
        axis: Axis = None,
        dtype: DType = None,
        out: Out = None,
        keepdims: bool = False,
        initial: Any = 0,
        where: Any = True,
    ) -> Any:
        """Sum over axes, as in ``numpy.sum``; unsigned counts are summed in uint64."""
        given = np.add.reduce(np.zeros(1, self.dtype)).dtype if dtype is None else np.dtype(dtype)
        wide = np.result_type(given, np.float64) if given.kind in "fc" else given
        total = _reduce(self, np.add, 0, axis, wide, where) + initial
        return _finished(total.astype(given), self, axis, keepdims, out)

    def mean(
        self, axis: Axis = None, dtype: DType = None, out: Out = None, keepdims: bool = False, *, where: Any = True
    ) -> Any:
        """Mean over axes, as in ``numpy.mean``; the mean of integers is float64."""
        given = _mean_dtype(self, dtype)
        total = _reduce(self, np.add, 0, axis, np.result_type(given, np.float64), where)
        return _finished((total / _count(self, axis, where)).astype(given), self, axis, keepdims, out)

    def var(
        self,
        axis: Axis = None,
        dtype: DType = None,
        out: Out = None,
        ddof: float = 0,
        keepdims: bool = False,
        *,
        where: Any = True,
        correction: float | None = None,
    ) -> Any:
        """Variance over axes, as in ``numpy.var``; each chunk is read once."""
        spread = _variance(self, axis, ddof if correction is None else correction, where)
        return _finished(spread.astype(_mean_dtype(self, dtype)), self, axis, keepdims, out)

    def std(
        self,
        axis: Axis = None,
        dtype: DType = None,
        out: Out = None,
        ddof: float = 0,
        keepdims: bool = False,
        *,
        where: Any = True,
        correction: float | None = None,
    ) -> Any:
        """Standard deviation over axes, as in ``numpy.std``; each chunk is read once."""
        spread = np.sqrt(_variance(self, axis, ddof if correction is None else correction, where))
        return _finished(spread.astype(_mean_dtype(self, dtype)), self, axis, keepdims, out)

    def min(
        self, axis: Axis = None, out: Out = None, keepdims: bool = False, initial: Any = None, where: Any = True
    ) -> Any:
        """Smallest value over axes, as in ``numpy.min``."""
        return _finished(_extreme(self, np.minimum, axis, initial, where), self, axis, keepdims, out)

    def max(
        self, axis: Axis = None, out: Out = None, keepdims: bool = False, initial: Any = None, where: Any = True
    ) -> Any:
        """Largest value over axes, as in ``numpy.max``."""
        return _finished(_extreme(self, np.maximum, axis, initial, where), self, axis, keepdims, out)

    def any(self, axis: Axis = None, out: Out = None, keepdims: bool = False, *, where: Any = True) -> Any:
        """True if any value over axes is nonzero, as in ``numpy.any``."""
        return _finished(_reduce(self, np.logical_or, False, axis, np.bool_, where), self, axis, keepdims, out)

    def all(self, axis: Axis = None, out: Out = None, keepdims: bool = False, *, where: Any = True) -> Any:
        """True if all values over axes are nonzero, as in ``numpy.all``."""
        return _finished(_reduce(self, np.logical_and, True, axis, np.bool_, where), self, axis, keepdims, out)


def _axes(array: Reductions, axis: Axis) -> tuple[int, ...]:
    """Return the reduced axes as non-negative numbers."""
    n_axes = len(array.shape)
    if axis is None:
        return tuple(range(n_axes))
    given = axis if isinstance(axis, tuple) else (axis,)
    found = []
    for one in given:
        if not -n_axes <= one < n_axes:
            raise np.exceptions.AxisError(one, n_axes)
        found.append(one % n_axes)
    if len(set(found)) < len(found):
        raise ValueError(f"duplicate value in axis: {axis}")
    return tuple(found)


def _kept(array: Reductions, axes: tuple[int, ...]) -> list[int]:
    """Return the shape of the result with ``keepdims``."""
    return [1 if axis in axes else size for axis, size in enumerate(array.shape)]


def _parts(array: Reductions, axes: tuple[int, ...], where: Any) -> Iterator[tuple[tuple[slice, ...], AnyArray, Any]]:
    """Yield the place in the result of each block, its values, and the part of ``where`` for it."""
    mask = None if where is True else np.broadcast_to(np.asarray(where, bool), array.shape)
    for region, values in array._blocks():
        place = tuple(slice(0, 1) if axis in axes else part for axis, part in enumerate(region))
        yield place, values, True if mask is None else mask[region]


def _reduce(array: Reductions, ufunc: np.ufunc, start: Any, axis: Axis, dtype: npt.DTypeLike, where: Any) -> AnyArray:
    """Reduce with a ufunc and keep the reduced axes."""
    axes = _axes(array, axis)
    result = np.full(_kept(array, axes), start, dtype)
    for place, values, chosen in _parts(array, axes, where):
        part = ufunc.reduce(values, axes, dtype, keepdims=True, initial=start, where=chosen)
        ufunc(result[place], part, out=result[place])
    return result


def _extreme(array: Reductions, ufunc: np.ufunc, axis: Axis, initial: Any, where: Any) -> AnyArray:
    dtype = array.dtype
    if where is not True and initial is None:
        raise ValueError(f"{ufunc.__name__} with where= needs initial= too, because where= may select no value")
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else None
    lowest, highest = (limits.min, limits.max) if limits else (-np.inf, np.inf)
    start = dtype.type(highest if ufunc is np.minimum else lowest)
    result = _reduce(array, ufunc, start, axis, dtype, where)
    return result if initial is None else ufunc(result, initial)


def _count(array: Reductions, axis: Axis, where: Any) -> Any:
    """Return the number of values behind each element of the result, with the reduced axes kept."""
    axes = _axes(array, axis)
    if where is True:
        return math.prod(array.shape[axis] for axis in axes)
    return np.add.reduce(np.broadcast_to(np.asarray(where, bool), array.shape), axes, np.intp, keepdims=True)


def _variance(array: Reductions, axis: Axis, ddof: float, where: Any) -> AnyArray:
    """Return the variance in float64, updated block by block, with the reduced axes kept.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    axes = _axes(array, axis)
    mean, squares, count = (np.zeros(_kept(array, axes)) for _ in range(3))
    for place, values, chosen in _parts(array, axes, where):
        n = np.add.reduce(np.broadcast_to(chosen, values.shape), axes, np.float64, keepdims=True)
        own = np.add.reduce(values, axes, np.float64, keepdims=True, where=chosen) / np.maximum(n, 1)
        squares[place] += np.add.reduce((values - own) ** 2, axes, np.float64, keepdims=True, where=chosen)
        away, before = own - mean[place], count[place]
        together = np.maximum(before + n, 1)
        squares[place] += away**2 * before * n / together
        mean[place] += away * n / together
        count[place] += n
    return np.asarray(squares / np.maximum(_count(array, axis, where) - ddof, 0))


def _mean_dtype(array: Reductions, dtype: DType) -> np.dtype[Any]:
    """Return the dtype of a mean: the given one, that of floating-point values, or float64."""
    if dtype is not None:
        return np.dtype(dtype)
    return array.dtype if array.dtype.kind in "fc" else np.dtype(np.float64)


def _finished(result: AnyArray, array: Reductions, axis: Axis, keepdims: bool, out: Out) -> Any:
    """Apply ``keepdims`` and ``out`` to a result; a 0-d result becomes a scalar."""
    if not keepdims:
        result = result.squeeze(_axes(array, axis))
    if out is None:
        return result if result.shape else result[()]
    if out.shape != result.shape:
        raise ValueError(f"out has shape {out.shape}, the result has {result.shape}")
    out[...] = result
    return out
