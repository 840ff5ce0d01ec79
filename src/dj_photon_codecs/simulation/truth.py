"""The ground truth of a recording: the planted cells, how they appear, and every effect on their light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np

from .._arguments import brief_repr
from .._lazy import cached_property
from .._typing import AnyArray, FloatArray
from ..errors import InvalidMovieError
from .footprints import Footprints, freeze, frozen, rebuilt

#: Minimum signal to noise of a detectable cell, at its brightest moment, in one pixel and frame.
DETECTABLE_SNR = 3.0


def detection_snr(peak_dF: AnyArray | float, baseline: AnyArray | float, gain: float, read_e: float) -> FloatArray:
    """Signal of a transient over the noise of its baseline: peak gain / sqrt(max(baseline, 0) gain + read^2).

    The variance of the baseline is that of its photo-electrons plus that of the read-out (J. R. Janesick, Photon
    Transfer, SPIE Press 2007, chapter 5).

    Parameters
    ----------
    peak_dF, baseline
        [photons], broadcast; negative baselines count as 0. Without any noise the result is infinite, or 0 for no peak.
    gain, read_e
        Electrons per photon, and read noise [electrons].
    """
    signal = np.asarray(peak_dF, np.float64) * gain
    noise = np.sqrt(np.maximum(np.asarray(baseline, np.float64), 0.0) * gain + read_e * read_e)
    without = np.where(signal > 0, np.inf, 0.0)
    return np.asarray(np.where(noise == 0, without, signal / np.where(noise == 0, 1.0, noise)))


def _check(where: str, name: str, value: AnyArray, shape: tuple[int | None, ...]) -> None:
    """Raise unless ``value`` has that shape; None stands for any length."""
    found = np.shape(value)
    if len(found) != len(shape) or any(want not in (None, n) for n, want in zip(found, shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InvalidMovieError(f"{where}: {name} has shape {found}, must be ({wanted})")


@dataclass(frozen=True, eq=False)
class MoleculeTruth:
    """Single molecules that move; inconsistent arrays raise InvalidMovieError."""

    positions_um: AnyArray
    """(molecule, time, 2): y and x, mean of the exposure [um from the first corner of the field of view; the centre of
    pixel i is at (i + 0.5) pixel_size_um]. Molecules outside the field of view are included."""
    photons: AnyArray
    """(molecule, time): expected photons in the whole spot; 0 while dark."""
    sigma_um: float
    """Width of the spot at rest [um]."""
    diffusion_um2_per_s: float
    """D [um^2/s]."""

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        _check("MoleculeTruth", "photons", self.photons, (None, None))
        _check("MoleculeTruth", "positions_um", self.positions_um, (*np.shape(self.photons), 2))
        freeze(self, "positions_um", "photons")

    __reduce__ = rebuilt


#: Axes of each array of the truth: "u" unit, "t" time, "h", "w" of the field of view, "k" any length, or a length.
AXES: Mapping[str, tuple[str | int, ...]] = {
    "observed_sigma_px": ("u",), "observed_gain": ("u",), "C": ("u", "t"), "S": ("u", "t"), "centers_um": ("u", 3),
    "amplitude_per_cell": ("u",), "in_focus": ("u",), "detectable": ("u",), "snr": ("u",), "shifts": ("t", 2),
    "illumination": ("h", "w"), "vignette": ("h", "w"), "leakage": ("h", "w"), "bleaching": ("u", "t"),
    "neuropil_temporal": ("k", "t"), "neuropil_spatial": ("k", "h", "w"), "neuropil_population": ("t",),
    "vessel_mask": ("h", "w"), "vessel_overlap": ("u",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Everything known about a recording; fields whose step is not in the spec are None.

    A unit's expected light in a frame, before motion and later steps, is A_observed * C * bleaching. Images are at the
    reference, where the shift is (0, 0). Cells entirely outside the field of view there are left out. An array of the
    wrong shape raises InvalidMovieError.
    """

    planted: Footprints
    """The sharp footprints, in canvas coordinates."""
    observed_sigma_px: AnyArray
    """(unit,): width of its blur [pixels]."""
    observed_gain: AnyArray
    """(unit,): fraction of its light that is left."""
    C: AnyArray
    """(unit, time): photons per pixel and frame at weight 1 of the sharp footprint, before bleaching."""
    S: AnyArray
    """(unit, time): number of spikes."""
    centers_um: AnyArray
    """(unit, 3): depth below the surface, then y and x from the centre of the field of view [um]."""
    amplitude_per_cell: AnyArray
    """(unit,): C at rest."""
    in_focus: AnyArray
    """(unit,) of bool: within the depth of field."""
    detectable: AnyArray
    """(unit,) of bool: in focus, with ``snr`` of at least 3."""
    snr: AnyArray
    """(unit,): :func:`detection_snr` of the largest transient, dimmed by optics, illumination, vignette and vessels at
    the cell's place, over the resting light there; NaN if unknown (recordings of minisim)."""
    n_frames: int
    """Length of the movie."""
    shifts: AnyArray | None = None
    """(time, 2): rows and columns by which the tissue has moved in each frame [pixels]."""
    illumination: AnyArray | None = None
    """(height, width): factor of the excitation."""
    vignette: AnyArray | None = None
    """(height, width): factor of the collection."""
    leakage: AnyArray | None = None
    """(height, width): photons per frame."""
    bleaching: AnyArray | None = None
    """(unit, time): factors."""
    neuropil_temporal: AnyArray | None = None
    """(component, time): the light is the sum of its products with ``neuropil_spatial``."""
    neuropil_spatial: AnyArray | None = None
    """(component, height, width)."""
    neuropil_population: AnyArray | None = None
    """(time,): the cells' mean activity that ``neuropil_temporal`` contains."""
    vessel_mask: AnyArray | None = None
    """(height, width) of bool."""
    vessel_overlap: AnyArray | None = None
    """(unit,): fraction of each sharp footprint under vessels."""
    focal_depth_um: float | None = None
    """Depth in focus [um]."""
    molecules: MoleculeTruth | None = None
    """Single molecules."""

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        height, width = self.planted.fov_shape
        sizes: dict[object, int | None] = {"u": self.n_units, "t": self.n_frames, "h": height, "w": width, "k": None}
        for name, axes in AXES.items():
            value = getattr(self, name)
            if value is not None:
                _check("GroundTruth", name, value, tuple(sizes.get(axis, cast(int, axis)) for axis in axes))
                freeze(self, name)
        if self.molecules is not None:
            _check("GroundTruth", "molecules.photons", self.molecules.photons, (None, self.n_frames))

    __reduce__ = rebuilt  # and without the dense footprints

    @property
    def n_units(self) -> int:
        """Number of cells."""
        return len(self.planted)

    @property
    def depth_um(self) -> AnyArray:
        """(unit,): depth below the surface [um]."""
        return np.asarray(self.centers_um[:, 0])

    @cached_property
    def A_planted(self) -> AnyArray:
        """The sharp footprints in the field of view: float32 (unit, height, width)."""
        return frozen(self.planted.dense(self.planted.patches()))

    @cached_property
    def A_observed(self) -> AnyArray:
        """The footprints as imaged, blurred and dimmed: float32 (unit, height, width)."""
        return frozen(self.planted.dense(self.planted.blurred(self.observed_sigma_px, self.observed_gain)))

    def subset(self, mask: AnyArray) -> Self:
        """The truth with only those units for which ``mask`` (unit,) is True, all else unchanged."""
        mask = np.asarray(mask, np.bool_)
        _check("GroundTruth.subset", "mask", mask, (self.n_units,))
        chosen: dict[str, Any] = {name: value[mask] for name, value in self.arrays().items() if AXES[name][0] == "u"}
        return replace(self, planted=self.planted.subset(mask), **chosen)

    def detectable_subset(self) -> Self:
        """The truth with only the detectable units, which an analysis can be expected to find."""
        return self.subset(self.detectable)

    def arrays(self) -> dict[str, AnyArray]:
        """All arrays by name, except those that are None."""
        return {name: value for name in AXES if (value := getattr(self, name)) is not None}
