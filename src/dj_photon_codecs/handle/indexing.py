"""Translate numpy, ``oindex``, ``vindex`` and ``blocks`` indices into selections, and selections into chunk parts.

Every selection is a product of dimensions: a *run* is a slice of one axis, and *points* are indices along one axis or
coordinates along several. :mod:`.reading` reads all selections chunk by chunk.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._typing import AnyArray, Box
from ..storage.decoded import Chunk
from ..storage.layout import ChunkGrid, Coords

Shape = tuple[int, ...]


class Part(NamedTuple):
    """The part of a selection in one chunk; for a single dimension, in one row of chunks.

    ``inner`` has a selector within the chunk for each axis, and ``outer`` one for each dimension of the result.
    ``whole`` is True if everything in the chunk that lies inside the array is selected, in order.
    """

    chunk: Coords
    inner: tuple[Any, ...]
    outer: tuple[Any, ...]
    whole: bool


@dataclass(frozen=True)
class Run:
    """Evenly spaced indices along one axis."""

    axes: tuple[int, ...]
    indices: range

    @property
    def size(self) -> int:
        """Number of indices."""
        return len(self.indices)

    def parts(self, grid: ChunkGrid) -> Iterator[Part]:
        """Split the run at chunk boundaries, in ascending order."""
        [axis] = self.axes
        size, total = grid.chunk[axis], grid.shape[axis]
        ascending, places = self.indices, range(self.size)
        if ascending.step < 0:
            ascending, places = ascending[::-1], places[::-1]
        while ascending:
            index = ascending[0] // size
            begin = index * size
            n_inside = -(-(begin + size - ascending[0]) // ascending.step)
            inside, outer = ascending[:n_inside], places[:n_inside]
            whole = ascending.step == 1 and len(inside) == min(size, total - begin)
            inner = slice(inside[0] - begin, inside[-1] - begin + 1, inside.step)
            end = outer.stop if outer.stop >= 0 else None
            yield Part((index,), (inner,), (slice(outer.start, end, outer.step),), whole)
            ascending, places = ascending[n_inside:], places[n_inside:]


@dataclass(frozen=True)
class Points:
    """Arbitrary non-negative indices along one axis, or coordinates along several."""

    axes: tuple[int, ...]
    indices: tuple[AnyArray, ...]

    @property
    def size(self) -> int:
        """Number of points."""
        return int(self.indices[0].size)

    def parts(self, grid: ChunkGrid) -> Iterator[Part]:
        """Group the points by chunk, so that each chunk occurs once."""
        if not self.size:
            return
        chunks = [index // grid.chunk[axis] for axis, index in zip(self.axes, self.indices, strict=True)]
        names = np.ravel_multi_index(chunks, [grid.chunks[axis] for axis in self.axes])
        order = np.argsort(names, kind="stable")
        ends = np.flatnonzero(np.diff(names[order])) + 1
        for outer in np.split(order, ends):
            chunk = tuple(int(index[outer[0]]) for index in chunks)
            begins = [i * grid.chunk[axis] for i, axis in zip(chunk, self.axes, strict=True)]
            inner = [index[outer] - begin for index, begin in zip(self.indices, begins, strict=True)]
            yield Part(chunk, (_as_slice(inner[0]),) if len(inner) == 1 else tuple(inner), (_as_slice(outer),), False)


@dataclass(frozen=True)
class Selection:
    """A selection of an array.

    Each axis of the array belongs to one of the ``dimensions``. The result has the elements of the dimensions in
    order, in the shape ``shape``.
    """

    dimensions: tuple[Run | Points, ...]
    shape: Shape

    @property
    def _axes(self) -> list[int]:
        """The axes of the array, in the order of the dimensions."""
        return [axis for dimension in self.dimensions for axis in dimension.axes]

    def parts(self, grid: ChunkGrid) -> Iterator[Part]:
        """Yield the part in each chunk; each chunk occurs once."""
        axes = self._axes
        place = [axes.index(axis) for axis in range(len(axes))]
        for parts in itertools.product(*(list(dimension.parts(grid)) for dimension in self.dimensions)):
            coords = [index for part in parts for index in part.chunk]
            yield Part(
                tuple(coords[i] for i in place),
                tuple(selector for part in parts for selector in part.inner),
                tuple(part.outer[0] for part in parts),
                all(part.whole for part in parts),
            )

    def box(self, part: Part, grid: ChunkGrid) -> Box | None:
        """Return the box of its chunk that :meth:`copy` needs for a part; None if it needs everything."""
        if part.whole or len(grid.chunk) < 2 or not self._is_box(part):
            return None
        rows = math.prod(grid.chunk[1:-1])
        if len(grid.chunk) == 2 or rows != grid.chunk[-2]:  # several planes: their rows follow each other
            return Box(part.inner[0].stop, 0, rows)
        return Box(part.inner[0].stop, part.inner[-2].start, part.inner[-2].stop)

    def _is_box(self, part: Part) -> bool:
        """Whether a part is a box with its axes in order, not single points."""
        axes = self._axes
        return axes == sorted(axes) and all(isinstance(s, slice) for s in (*part.inner, *part.outer))

    def copy(self, chunk: Chunk, part: Part, target: AnyArray) -> None:
        """Copy a part from its chunk to its place in an array of :attr:`shape`."""
        box = target.reshape([dimension.size for dimension in self.dimensions])
        if self._is_box(part):
            chunk.copy(part.inner, box[part.outer])
            return
        runs = tuple(s if isinstance(s, slice) else slice(None) for s in part.inner)
        found = chunk.counts().transpose(self._axes)[runs]
        for place, dimension in enumerate(self.dimensions):
            first = sum(len(before.axes) for before in self.dimensions[:place])
            inner = part.inner[first : first + len(dimension.axes)]
            if not isinstance(inner[0], slice):  # earlier dimensions have been reduced to one axis each
                found = found[(slice(None),) * place + inner]
        if sum(not isinstance(outer, slice) for outer in part.outer) > 1:
            sizes = (range(dimension.size) for dimension in self.dimensions)
            box[np.ix_(*(n[o] if isinstance(o, slice) else o for n, o in zip(sizes, part.outer, strict=True)))] = found
        else:
            box[part.outer] = found


def numpy_selection(key: Any, shape: Shape) -> Selection:
    """Return the selection of ``array[key]`` in numpy.

    Raises IndexError as numpy does, with the index, the axis and the allowed range.
    """
    items = _items(key, shape)
    advanced = any(isinstance(item, np.ndarray) for item in items)
    joint = [advanced and isinstance(item, int | np.ndarray) for item in items]
    apart = advanced and any(b and not a for a, b in itertools.pairwise(joint[joint.index(True) :]))
    dimensions: list[Run | Points] = []
    sizes: list[int] = []
    axes: list[int] = []
    indices: list[AnyArray] = []
    axis, at = 0, (0, 0)  # place of the points in dimensions and sizes
    for item, is_joint in zip(items, joint, strict=True):
        if is_joint:
            if not axes and not apart:
                at = len(dimensions), len(sizes)
            found = _coordinates(item, axis, shape)
            axes += range(axis, axis + len(found))
            indices += found
        elif item is None:
            sizes.append(1)
        elif item is not Ellipsis:
            dimensions.append(_dimension(item, axis, shape))
            sizes += [] if isinstance(item, int) else [dimensions[-1].size]
        axis += _taken(item)
    if advanced:
        try:
            common = np.broadcast_arrays(*indices)
        except ValueError:
            shapes = " ".join(str(index.shape) for index in indices)
            raise IndexError(f"indices of the shapes {shapes} cannot be broadcast together") from None
        dimensions.insert(at[0], _points(tuple(axes), tuple(index.reshape(-1) for index in common)))
        sizes[at[1] : at[1]] = common[0].shape
    return Selection(tuple(dimensions), tuple(sizes))


def orthogonal_selection(key: Any, shape: Shape) -> Selection:
    """Return the selection of ``oindex``: each index applies to its own axis.

    Raises IndexError for indices out of bounds and for indices or masks over several axes.
    """
    dimensions: list[Run | Points] = []
    sizes: list[int] = []
    for axis, item in enumerate(item for item in _items(key, shape) if item is not Ellipsis):
        if item is None or (isinstance(item, np.ndarray) and item.ndim != 1):
            raise IndexError(f"oindex takes integers, slices, and lists or masks of one axis, got {item!r}")
        dimensions.append(_dimension(item, axis, shape))
        sizes += [] if isinstance(item, int) else [dimensions[-1].size]
    return Selection(tuple(dimensions), tuple(sizes))


def point_selection(key: Any, shape: Shape) -> Selection:
    """Return the selection of ``vindex``: an index or index array for each axis, or one mask of the array's shape.

    Raises IndexError for anything else.
    """
    items = [item for item in _items(key, shape) if item is not Ellipsis]
    if any(item is None or isinstance(item, slice) for item in items):
        raise IndexError(f"vindex takes indices for each of the {len(shape)} axes, or a mask of shape {shape}")
    return numpy_selection(tuple(items), shape)


def block_selection(key: Any, grid: ChunkGrid) -> Selection:
    """Return the selection of ``blocks``: whole objects, by their indices in the grid of objects."""
    parts = []
    for axis, item in enumerate(item for item in _items(key, grid.objects) if item is not Ellipsis):
        if not isinstance(item, int | slice) or (isinstance(item, slice) and item.step not in (None, 1)):
            raise IndexError(f"blocks takes integers, and slices of step 1, got {item!r}")
        wanted = item if isinstance(item, slice) else slice(item, item + 1)
        first, last, _ = wanted.indices(grid.objects[axis])
        parts.append(slice(first * grid.stored[axis], max(first, last) * grid.stored[axis]))
    return numpy_selection(tuple(parts), grid.shape)


def _dimension(item: Any, axis: int, shape: Shape) -> Run | Points:
    """Return the dimension of an integer, a slice or an array that stands for one axis."""
    if isinstance(item, np.ndarray):
        return _points((axis,), _coordinates(item, axis, shape))
    return Run((axis,), range(*item.indices(shape[axis])) if isinstance(item, slice) else range(item, item + 1))


def _items(key: Any, shape: Shape) -> list[Any]:
    """Return the parts of an index: non-negative integers, slices, index arrays, None, and the ellipsis.

    The ellipsis is expanded to full slices. It stays in the list, consuming no axis, because in numpy it also separates
    advanced indices on its two sides.
    """
    items = [_item(item) for item in (key if isinstance(key, tuple) else (key,))]
    taken = sum(map(_taken, items))
    if taken > len(shape):
        raise IndexError(f"too many indices: the array has {len(shape)} axes, and {taken} are indexed by {key!r:.200}")
    ellipses = [place for place, item in enumerate(items) if item is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError(f"an index has one ellipsis ('...') at most, got {key!r:.200}")
    place = ellipses[0] if ellipses else len(items)
    items[place:place] = [slice(None)] * (len(shape) - taken)
    axis = 0
    for place, item in enumerate(items):
        if isinstance(item, int):
            items[place] = int(_inside(np.asarray(item), axis, shape[axis]))
        axis += _taken(item)
    return items


def _item(item: Any) -> Any:
    """Normalise one part of an index; sequences of indices become arrays."""
    if item is None or item is Ellipsis:
        return item
    if isinstance(item, slice):
        try:
            item.indices(0)
        except TypeError as error:
            raise IndexError(f"a slice takes integers, got {item}: {error}") from None
        return item
    if not isinstance(item, bool | np.bool_):
        try:
            return operator.index(item)
        except TypeError:
            pass
        found = np.asarray(item)
        if found.dtype.kind in "iu" or (found.dtype.kind == "b" and found.ndim):
            return found
        if not found.size and isinstance(item, list | tuple):
            return found.astype(np.intp)
    raise IndexError(
        "an index is an integer, a slice, '...', None, or a list or array of integers or of True and False, got "
        f"{item!r:.200}"
    )


def _taken(item: Any) -> int:
    """Return the number of axes that a part of an index consumes."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, np.ndarray) and item.dtype.kind == "b" else 1


def _coordinates(item: Any, axis: int, shape: Shape) -> tuple[AnyArray, ...]:
    """Return the indices along each axis that an integer, index array or mask selects."""
    found = np.asarray(item)
    if found.dtype.kind != "b":
        return (_inside(found, axis, shape[axis]),)
    _check_mask(found, axis, shape)
    return found.nonzero()


def _check_mask(mask: AnyArray, axis: int, shape: Shape) -> None:
    """Raise IndexError for a mask that does not match the axes from ``axis`` on."""
    if mask.ndim > len(shape) - axis:
        raise IndexError(f"too many indices: the array has {len(shape)} axes, and the mask has {mask.ndim}")
    for place, (given, size) in enumerate(zip(mask.shape, shape[axis:], strict=False), axis):
        if given != size:
            raise IndexError(f"the mask has length {given} along axis {place}, the array has length {size}")


def _inside(index: AnyArray, axis: int, size: int) -> AnyArray:
    """Return non-negative indices; raise IndexError for any out of bounds."""
    wrong = index[(index < -size) | (index >= size)]
    if wrong.size:
        raise IndexError(f"index {int(wrong.flat[0])} is out of bounds for axis {axis} with size {size}")
    index = index.astype(np.intp)
    return np.asarray(np.where(index < 0, index + size, index))


def _points(axes: tuple[int, ...], indices: tuple[AnyArray, ...]) -> Run | Points:
    """Return points, as a run if they are evenly spaced."""
    run = _as_slice(indices[0]) if len(axes) == 1 else None
    return Run(axes, range(run.start, run.stop, run.step)) if isinstance(run, slice) else Points(axes, indices)


def _as_slice(index: AnyArray) -> slice | AnyArray:
    """Return indices as an equivalent slice if there is one, because copying a slice is faster."""
    if not index.size:
        return slice(0, 0, 1)
    step = int(index[1] - index[0]) if index.size > 1 else 1
    if step > 0 and (index.size < 3 or (np.diff(index) == step).all()):
        return slice(int(index[0]), int(index[-1]) + 1, step)
    return index


def boxes(mask: AnyArray, shape: Shape, frames: int) -> Iterator[tuple[Selection, AnyArray]]:
    """For every ``frames`` frames, yield the bounding box of a multi-axis mask, and the mask inside it."""
    _check_mask(mask, 0, shape)
    for start in range(0, len(mask), frames):
        part = mask[start : start + frames]
        if not part.any():
            continue
        sides = []
        for axis in range(mask.ndim):
            used = np.flatnonzero(part.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
            sides.append(slice(int(used[0]), int(used[-1]) + 1))
        first, *others = sides
        moved = slice(first.start + start, first.stop + start)
        yield numpy_selection((moved, *others), shape), part[tuple(sides)]
