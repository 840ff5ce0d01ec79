"""What the steps work on: the tissue as known so far, and how to render any frames of it.

A scene holds no movie. Each step that acts on light adds a :class:`Layer`; rendering frames 100 to 116 runs those
frames through the layers. So a movie of any length is simulated in blocks, and the blocks are the movie, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .._typing import AnyArray, FloatArray
from .footprints import Footprints
from .spec import Acquisition
from .truth import MoleculeTruth


@dataclass(frozen=True)
class Layer:
    """One step's effect on light.

    Attributes
    ----------
    name
        Of the step.
    frames
        From photons (time, height, width) and the number of the first frame, to photons after the step.
    rest
        The same for one image of the tissue at rest and at the reference, for baselines.
    """

    name: str
    frames: Callable[[FloatArray, int], FloatArray]
    rest: Callable[[FloatArray], FloatArray]

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
    """The tissue and the light, after some of the steps.

    Attributes
    ----------
    acquisition, seed
        The spec's.
    margin_px
        How much the canvas is larger than the field of view, on every side [pixels].
    layers
        The effects so far.
    footprints, centers_um, soma_radius_um
        Sharp cells; their centres (unit, 3) of depth, y and x [um], the last two from the centre of the field of view.
    amplitude, C, S, bleaching
        Photons at rest (unit,); photons (unit, time); spikes (unit, time); factors (unit, time), or None.
    sigma_px, gain, in_focus, focal_depth_um
        What the optics do to each cell; None before or without optics.
    molecules
        Positions and photons of single molecules, or None.
    neuropil_temporal, neuropil_spatial, neuropil_population
        (component, time), (component, canvas height, canvas width), (time,), or None.
    vessels, vessel_transmission
        Mask and part of the light that passes, on the canvas, or None.
    shifts
        (time, 2) of rows and columns [pixels], or None.
    illumination, vignette, leakage
        (height, width), or None.
    """

    acquisition: Acquisition
    seed: int
    margin_px: int = 0
    layers: tuple[Layer, ...] = ()
    footprints: Footprints | None = None
    centers_um: FloatArray | None = None
    soma_radius_um: float = 0.0
    amplitude: FloatArray | None = None
    C: FloatArray | None = None
    S: FloatArray | None = None
    bleaching: FloatArray | None = None
    sigma_px: FloatArray | None = None
    gain: FloatArray | None = None
    in_focus: AnyArray | None = None
    focal_depth_um: float | None = None
    molecules: MoleculeTruth | None = None
    neuropil_temporal: FloatArray | None = None
    neuropil_spatial: FloatArray | None = None
    neuropil_population: FloatArray | None = None
    vessels: AnyArray | None = None
    vessel_transmission: FloatArray | None = None
    shifts: FloatArray | None = None
    illumination: FloatArray | None = None
    vignette: FloatArray | None = None
    leakage: FloatArray | None = None

    @property
    def n_cells(self) -> int:
        """How many cells are on the canvas."""
        return 0 if self.footprints is None else len(self.footprints)

    @property
    def fov_shape(self) -> tuple[int, int]:
        """Height and width of a frame [pixels]."""
        return self.acquisition.height_px, self.acquisition.width_px

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """Height and width of the tissue that is rendered [pixels]."""
        return self.fov_shape[0] + 2 * self.margin_px, self.fov_shape[1] + 2 * self.margin_px

    def add(self, layer: Layer) -> Self:
        """The scene with one more effect on its light."""
        return replace(self, layers=(*self.layers, layer))

    def crop(self, image: AnyArray) -> AnyArray:
        """The field of view at the reference, of an image (or stack) of the canvas."""
        m, (height, width) = self.margin_px, self.fov_shape
        return image[..., m : m + height, m : m + width]

    def render(self, start: int, stop: int, keep: tuple[str, ...] = ()) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Expected photons of frames ``start`` to ``stop`` (exclusive), after all layers and after those to keep.

        Returns
        -------
        tuple
            float64 (time, height, width), and the same by name of a layer; those before the motion show the canvas.
        """
        block: FloatArray = np.zeros((stop - start, *self.canvas_shape))
        kept = {}
        for layer in self.layers:
            block = layer.frames(block, start)
            if layer.name in keep:
                kept[layer.name] = block
        return block, kept

    def render_rest(self) -> FloatArray:
        """Expected photons of the resting tissue at the reference: (height, width)."""
        image: FloatArray = np.zeros(self.canvas_shape)
        for layer in self.layers:
            image = layer.rest(image)
        return image
