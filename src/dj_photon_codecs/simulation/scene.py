"""The state that the steps build: the tissue, and how to render any of its frames.

A scene holds no movie. Each step that acts on light adds a :class:`Layer`; rendering frames 100 to 116 passes those
frames through the layers. So a movie of any length can be simulated in blocks, with the same bytes as in one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .._arguments import brief_repr
from .._typing import AnyArray, FloatArray
from .footprints import Footprints
from .spec import Acquisition
from .truth import MoleculeTruth


@dataclass(frozen=True)
class Layer:
    """One step's effect on light."""

    name: str
    """Name of the step."""
    frames: Callable[[FloatArray, int], FloatArray]
    """Maps photons (time, height, width) and the number of the first frame to photons after the step."""
    rest: Callable[[FloatArray], FloatArray]
    """The same for one image of the tissue at rest and at the reference position, for baselines."""

    @classmethod
    def multiplied(cls, name: str, factor: FloatArray) -> Self:
        """An effect that multiplies every frame by one image."""
        return cls(name, lambda block, start: block * factor, lambda image: image * factor)

    @classmethod
    def added(cls, name: str, light: FloatArray) -> Self:
        """An effect that adds one image to every frame."""
        return cls(name, lambda block, start: block + light, lambda image: image + light)


@dataclass(frozen=True, eq=False)
class Scene:
    """The tissue and the light, after some of the steps; begin with :meth:`empty`.

    Arrays mean the same as those of the same name in :class:`.GroundTruth`, here for all cells on the canvas.
    """

    acquisition: Acquisition
    """The spec's."""
    seed: int
    """The spec's."""
    margin_px: int
    """Width of the canvas beyond the field of view, on every side [pixels]."""
    footprints: Footprints
    """Sharp footprints of the cells."""
    centers_um: FloatArray
    amplitude_per_cell: FloatArray
    C: FloatArray
    S: FloatArray
    observed_sigma_px: FloatArray
    observed_gain: FloatArray
    in_focus: AnyArray
    soma_radius_um: float = 0.0
    """Mean radius of the cells [um]."""
    layers: tuple[Layer, ...] = ()
    """The effects on light, in order."""
    bleaching: FloatArray | None = None
    focal_depth_um: float | None = None
    molecules: MoleculeTruth | None = None
    neuropil_temporal: FloatArray | None = None
    neuropil_spatial: FloatArray | None = None
    neuropil_population: FloatArray | None = None
    vessels: AnyArray | None = None
    """Mask of the canvas."""
    vessel_transmission: FloatArray | None = None
    """Fraction of the light that passes, on the canvas."""
    shifts: FloatArray | None = None
    illumination: FloatArray | None = None
    vignette: FloatArray | None = None
    leakage: FloatArray | None = None

    __repr__ = brief_repr

    @classmethod
    def empty(cls, acquisition: Acquisition, seed: int, margin_px: int = 0) -> Self:
        """A canvas without cells or light."""
        fov = acquisition.height_px, acquisition.width_px
        canvas = fov[0] + 2 * margin_px, fov[1] + 2 * margin_px
        footprints = Footprints.of([], canvas, (margin_px, margin_px), fov)
        each, courses = np.zeros(0), np.zeros((0, acquisition.n_frames))
        return cls(
            acquisition, seed, margin_px, footprints, np.zeros((0, 3)), each, courses, courses, each, each, each > 0
        )

    @property
    def n_cells(self) -> int:
        """Number of cells on the canvas."""
        return len(self.footprints)

    @property
    def fov_shape(self) -> tuple[int, int]:
        """Height and width of a frame [pixels]."""
        return self.acquisition.height_px, self.acquisition.width_px

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """Height and width of the rendered tissue [pixels]."""
        return self.footprints.canvas_shape

    def faded(self, light: FloatArray) -> FloatArray:
        """Light of the cells (unit, time or 1) after bleaching: (unit, time)."""
        return light if self.bleaching is None else light * self.bleaching

    def add(self, layer: Layer) -> Self:
        """The scene with one more effect on its light."""
        return replace(self, layers=(*self.layers, layer))

    def crop(self, image: AnyArray) -> AnyArray:
        """The reference field of view of an image (or stack) of the canvas."""
        m, (height, width) = self.margin_px, self.fov_shape
        return image[..., m : m + height, m : m + width]

    def render(self, start: int, stop: int, keep: tuple[str, ...] = ()) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Expected photons of frames ``start`` to ``stop`` (exclusive), after all layers and after those to keep.

        Both are float64 (time, height, width), the latter by layer name; before the motion they show the canvas.
        """
        block: FloatArray = np.zeros((stop - start, *self.canvas_shape))
        kept = {}
        for layer in self.layers:
            block = layer.frames(block, start)
            if layer.name in keep:
                kept[layer.name] = block
        return block, kept

    def render_rest(self) -> FloatArray:
        """Expected photons of the resting tissue at the reference position: (height, width)."""
        image: FloatArray = np.zeros(self.canvas_shape)
        for layer in self.layers:
            image = layer.rest(image)
        return image
