"""Footprints of cells on the canvas: each a small image with a position, so thousands need little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .._arguments import brief_repr
from .._typing import AnyArray, FloatArray
from ..errors import InvalidMovieError
from .arithmetic import blur_patch

#: (first row, first column) on the canvas, and the image there.
Patch = tuple[int, int, FloatArray]


def rebuilt(value: Any) -> tuple[Any, ...]:
    """Pickle a dataclass of frozen arrays by its fields, so that unpickling checks and freezes them."""
    return type(value), tuple(getattr(value, field.name) for field in fields(value))


def frozen(array: AnyArray) -> AnyArray:
    """A read-only view; the caller's own array stays writeable."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def freeze(value: Any, *names: str) -> None:
    """Make these arrays of a frozen dataclass read-only."""
    for name in names:
        object.__setattr__(value, name, frozen(getattr(value, name)))


@dataclass(frozen=True, eq=False)
class Footprints:
    """The sharp footprints of all units, in canvas coordinates; inconsistent arrays raise InvalidMovieError."""

    data: AnyArray
    """The images of all units one after another, each row by row: (pixels,) of float."""
    offsets: AnyArray
    """First row and column of each on the canvas: (unit, 2) of int. Footprints may extend beyond the canvas."""
    shapes: AnyArray
    """Height and width of each: (unit, 2) of int."""
    canvas_shape: tuple[int, int]
    """Height and width of the canvas [pixels]."""
    fov_offset: tuple[int, int]
    """First row and column of the reference field of view on the canvas [pixels]."""
    fov_shape: tuple[int, int]
    """Height and width of the field of view [pixels]."""

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        places, shapes = np.shape(self.offsets), np.shape(self.shapes)
        if places != (len(self.offsets), 2) or shapes != places or np.any(self.shapes < 0):
            raise InvalidMovieError(
                f"footprints: offsets have shape {places} and shapes {shapes}, both must be (unit, 2), with shapes of "
                "at least 0"
            )
        pixels = int(self._sizes().sum())
        if self.data.shape != (pixels,):
            raise InvalidMovieError(f"footprints: data has shape {self.data.shape}, the units' shapes need ({pixels},)")
        for axis in (0, 1):
            if not 0 <= self.fov_offset[axis] <= self.canvas_shape[axis] - self.fov_shape[axis]:
                raise InvalidMovieError(
                    f"footprints: a field of view of {self.fov_shape} at {self.fov_offset} is not within a canvas of "
                    f"{self.canvas_shape} pixels"
                )
        freeze(self, "data", "offsets", "shapes")

    __reduce__ = rebuilt

    @classmethod
    def of(cls, patches: Sequence[Patch], *frame: tuple[int, int]) -> Footprints:
        """From one patch per unit, then canvas shape, offset and shape of the field of view."""
        data = np.concatenate([np.zeros(0), *(image.ravel() for _, _, image in patches)])
        offsets = np.array([patch[:2] for patch in patches], np.int32).reshape(-1, 2)
        shapes = np.array([image.shape for _, _, image in patches], np.int32).reshape(-1, 2)
        return cls(data, offsets, shapes, *frame)

    def _sizes(self) -> AnyArray:
        return np.asarray(np.asarray(self.shapes, np.int64).prod(axis=1))

    def __len__(self) -> int:
        return len(self.offsets)

    def patches(self) -> list[Patch]:
        """One patch per unit."""
        ends = np.cumsum(self._sizes())
        starts = ends - self._sizes()
        return [
            (int(top), int(left), np.asarray(self.data[start:end], np.float64).reshape(tuple(shape)))
            for (top, left), shape, start, end in zip(self.offsets, self.shapes, starts, ends, strict=True)
        ]

    def blurred(self, sigma_px: AnyArray, gain: AnyArray) -> list[Patch]:
        """The footprints as the objective images them: each blurred by its sigma, times its gain, cut at the canvas."""
        seen = []
        for (top, left, image), sigma, factor in zip(self.patches(), sigma_px, gain, strict=True):
            wide = blur_patch(image, float(sigma)) * float(factor)
            grown = (wide.shape[0] - image.shape[0]) // 2
            seen.append(clip((top - grown, left - grown, wide), self.canvas_shape))
        return seen

    def subset(self, mask: AnyArray) -> Footprints:
        """The footprints of the units for which ``mask`` is True."""
        kept = [patch for patch, keep in zip(self.patches(), mask, strict=True) if keep]
        return Footprints.of(kept, self.canvas_shape, self.fov_offset, self.fov_shape)

    def in_view(self) -> AnyArray:
        """Which units have any weight in the reference field of view: (unit,) of bool."""
        return np.array([self.to_fov(patch)[2].any() for patch in self.patches()], np.bool_)

    def to_fov(self, patch: Patch) -> Patch:
        """A patch in coordinates of the field of view, cut at its edges; empty if it lies outside."""
        return clip((patch[0] - self.fov_offset[0], patch[1] - self.fov_offset[1], patch[2]), self.fov_shape)

    def dense(self, patches: Sequence[Patch]) -> AnyArray:
        """Patches on the canvas as full images of the field of view: float32 (unit, height, width)."""
        images = np.zeros((len(patches), *self.fov_shape), np.float32)
        for image, patch in zip(images, patches, strict=True):
            top, left, part = self.to_fov(patch)
            image[top : top + part.shape[0], left : left + part.shape[1]] = part
        return images


def clip(patch: Patch, shape: tuple[int, int]) -> Patch:
    """A patch cut at the edges of an image of this shape."""
    top, left, image = patch
    rows = slice(max(0, -top), max(0, min(image.shape[0], shape[0] - top)))
    columns = slice(max(0, -left), max(0, min(image.shape[1], shape[1] - left)))
    return min(max(top, 0), shape[0]), min(max(left, 0), shape[1]), image[rows, columns]
