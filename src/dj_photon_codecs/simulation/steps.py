"""The parameters of each step of the forward model: frozen, validated, with units in their names.

Light is counted in photons a pixel and frame that reach the sensor, from the first step to the last.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Step(BaseModel):
    """What all steps share: nothing changes, nothing unknown gets in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str


class PlaceNeurons(Step):
    """Somata at random places of a slab of tissue, wider than the field of view where the brain moves.

    Attributes
    ----------
    density_per_mm3
        Neurons per volume [1/mm^3].
    soma_radius_um, irregularity
        Mean radius [um], and how far its outline departs from a circle (0 to 0.5 of the radius).
    nucleus_fraction
        Radius of the nucleus, which the indicator leaves dark, as part of the soma's; 0 for none.
    depth_min_um, depth_max_um
        The slab [um below the surface].
    min_distance_um
        Between centres, in space [um]; cells that find no place after 30 trials are left out.
    """

    kind: Literal["place_neurons"] = "place_neurons"
    density_per_mm3: float = Field(default=50_000.0, ge=0)
    soma_radius_um: float = Field(default=6.0, gt=0)
    irregularity: float = Field(default=0.2, ge=0, le=0.5)
    nucleus_fraction: float = Field(default=0.0, ge=0, lt=1)
    depth_min_um: float = Field(default=0.0, ge=0)
    depth_max_um: float = Field(default=150.0, ge=0)
    min_distance_um: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _slab(self) -> Self:
        if self.depth_max_um < self.depth_min_um:
            raise ValueError(f"depth_max_um is {self.depth_max_um}, must be at least depth_min_um={self.depth_min_um}")
        return self


class CellActivity(Step):
    """Spikes in bursts, and the calcium indicator's answer to each.

    Attributes
    ----------
    baseline_photons
        Of the mean cell at rest, at full weight of its footprint, before optics [photons/pixel/frame].
    brightness_cv
        Coefficient of variation of that between cells (log-normal).
    dff_per_spike
        Peak dF/F of one spike.
    tau_rise_s, tau_decay_s
        Of the indicator [s]; 0 <= rise < decay.
    rate_quiet_hz, rate_active_hz
        Spike rates in the two states of a cell [1/s].
    quiet_s, active_s
        Mean time that a cell stays in each [s].
    """

    kind: Literal["cell_activity"] = "cell_activity"
    baseline_photons: float = Field(default=20.0, ge=0)
    brightness_cv: float = Field(default=0.3, ge=0)
    dff_per_spike: float = Field(default=0.3, ge=0)
    tau_rise_s: float = Field(default=0.05, ge=0)
    tau_decay_s: float = Field(default=0.5, gt=0)
    rate_quiet_hz: float = Field(default=0.1, ge=0)
    rate_active_hz: float = Field(default=8.0, ge=0)
    quiet_s: float = Field(default=4.0, gt=0)
    active_s: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _kinetics(self) -> Self:
        if self.tau_rise_s >= self.tau_decay_s:
            raise ValueError(f"tau_rise_s is {self.tau_rise_s}, must be below tau_decay_s={self.tau_decay_s}")
        return self


class Bleaching(Step):
    """The indicator fades: factor = remaining + (1 - remaining) exp(-t / tau), with a tau for each cell.

    Attributes
    ----------
    tau_s
        Mean time constant [s].
    remaining
        Part that does not bleach, or is replaced.
    tau_cv
        Coefficient of variation of the time constant between cells.
    """

    kind: Literal["bleaching"] = "bleaching"
    tau_s: float = Field(default=600.0, gt=0)
    remaining: float = Field(default=0.3, ge=0, le=1)
    tau_cv: float = Field(default=0.2, ge=0)


class CellOptics(Step):
    """How a cell looks from its depth: diffraction, defocus and scatter blur it, scatter and sectioning dim it.

    Attributes
    ----------
    excitation
        "one_photon" (the whole depth is lit) or "two_photon" (light from the focus only, and no scatter of what is
        detected).
    numerical_aperture, emission_nm, refractive_index
        Of the objective, the light that makes the image [nm] (for two photons the excitation's), and the medium.
    scatter_length_um
        Depth at which the unscattered light falls to 1/e [um].
    scatter_blur_per_um
        Standard deviation of the scattered light per depth [um/um].
    focal_depth_um
        Depth in focus [um], or "auto": that with the most light of cells in focus.
    depth_of_field_um
        Full depth in focus [um], or "auto": where the blur stays within a soma (see :mod:`.optics`).
    """

    kind: Literal["cell_optics"] = "cell_optics"
    excitation: Literal["one_photon", "two_photon"] = "one_photon"
    numerical_aperture: float = Field(default=0.45, gt=0)
    emission_nm: float = Field(default=525.0, gt=0)
    refractive_index: float = Field(default=1.33, ge=1)
    scatter_length_um: float = Field(default=100.0, gt=0)
    scatter_blur_per_um: float = Field(default=0.03, ge=0)
    focal_depth_um: float | Literal["auto"] = "auto"
    depth_of_field_um: float | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        if self.numerical_aperture >= self.refractive_index:
            raise ValueError(
                f"numerical_aperture is {self.numerical_aperture}, must be below refractive_index="
                f"{self.refractive_index}"
            )
        if self.focal_depth_um != "auto" and self.focal_depth_um < 0:
            raise ValueError(f"focal_depth_um is {self.focal_depth_um}, must be 'auto' or at least 0")
        if self.depth_of_field_um != "auto" and self.depth_of_field_um <= 0:
            raise ValueError(f"depth_of_field_um is {self.depth_of_field_um}, must be 'auto' or above 0")
        return self


class Molecules(Step):
    """Single fluorophores that diffuse in a membrane, blink, and bleach in one step.

    Attributes
    ----------
    density_per_um2
        Molecules per area [1/um^2], at the start.
    diffusion_um2_per_s
        Diffusion coefficient D [um^2/s]: <r^2> = 4 D t. Walls are beyond the field of view, and reflect.
    photons_per_frame
        Sum over the spot of a molecule that is on for a whole frame [photons/frame], mean of the molecules.
    brightness_cv
        Coefficient of variation of that between molecules.
    on_s, off_s
        Mean times on and off [s]; off_s = 0 for no blinking.
    bleaching_s
        Mean time on after which a molecule stays dark [s]; None for never.
    emission_nm, numerical_aperture
        Of the light [nm] and the objective; the spot's Gaussian width is 0.21 emission / aperture (see :mod:`.optics`).
    substeps
        Positions in one exposure, whose mean is where the spot is drawn: what diffusion does to a localisation (A. J.
        Berglund, Physical Review E 82 (2010), 011917). Its broadening of the spot is left out.
    """

    kind: Literal["molecules"] = "molecules"
    density_per_um2: float = Field(default=0.3, ge=0)
    diffusion_um2_per_s: float = Field(default=0.1, ge=0)
    photons_per_frame: float = Field(default=500.0, ge=0)
    brightness_cv: float = Field(default=0.1, ge=0)
    on_s: float = Field(default=0.5, gt=0)
    off_s: float = Field(default=0.2, ge=0)
    bleaching_s: float | None = Field(default=None, gt=0)
    emission_nm: float = Field(default=580.0, gt=0)
    numerical_aperture: float = Field(default=1.45, gt=0)
    substeps: int = Field(default=4, ge=1, le=64)


class Composite(Step):
    """Cells and molecules on the light that comes from everywhere.

    Attributes
    ----------
    background_photons
        Uniform fluorescence of the tissue [photons/pixel/frame].
    """

    kind: Literal["composite"] = "composite"
    background_photons: float = Field(default=0.0, ge=0)


class Neuropil(Step):
    """The blurred activity of everything that is not a soma.

    Attributes
    ----------
    photons
        Mean of all components [photons/pixel/frame].
    n_components
        Patterns in space, each with a course in time.
    spatial_sigma_um, contrast
        Size of the patterns [um], and the standard deviation of their strength.
    temporal_tau_s, fluctuation
        Of each component's own slow course [s], and its standard deviation.
    population_coupling, population_tau_s
        Part of the light that follows the mean of all cells, and the time over which it does [s].
    """

    kind: Literal["neuropil"] = "neuropil"
    photons: float = Field(default=10.0, ge=0)
    n_components: int = Field(default=3, ge=1, le=64)
    spatial_sigma_um: float = Field(default=40.0, gt=0)
    contrast: float = Field(default=0.3, ge=0)
    temporal_tau_s: float = Field(default=10.0, gt=0)
    fluctuation: float = Field(default=0.1, ge=0)
    population_coupling: float = Field(default=0.5, ge=0, le=1)
    population_tau_s: float = Field(default=1.5, ge=0)


class Vasculature(Step):
    """Blood vessels between the tissue and the objective: they absorb, and move with the brain.

    Attributes
    ----------
    n_vessels
        How many cross the canvas.
    width_um
        Of the widest [um]; the others are down to a third of it.
    absorption
        Part of the light lost under a vessel.
    tortuosity
        Standard deviation of the turn per um of way [rad].
    blur_um
        Of their edges [um].
    """

    kind: Literal["vasculature"] = "vasculature"
    n_vessels: int = Field(default=4, ge=0, le=1000)
    width_um: float = Field(default=15.0, gt=0)
    absorption: float = Field(default=0.6, ge=0, le=1)
    tortuosity: float = Field(default=0.05, ge=0)
    blur_um: float = Field(default=2.0, ge=0)


class BrainMotion(Step):
    """Rigid lateral motion of the tissue under the field of view.

    Attributes
    ----------
    max_shift_um
        No frame is further from the reference than this along each axis [um]; it sets the canvas.
    amplitude_um
        Standard deviation of the motion during locomotion [um]; a fifth of that at rest.
    frequency_hz, damping_ratio
        Of the resonance with which the brain follows [Hz].
    locomotion_fraction, bout_s
        Part of the time spent running, and the mean length of a run [s].
    subpixel
        Whether shifts have fractions (bilinear interpolation of the expected photons) or are whole pixels.
    trajectory_px
        The shifts (dy, dx) of every frame [pixels], in place of all of the above but ``max_shift_um`` and ``subpixel``.
    """

    kind: Literal["brain_motion"] = "brain_motion"
    max_shift_um: float = Field(default=8.0, ge=0)
    amplitude_um: float = Field(default=2.0, ge=0)
    frequency_hz: float = Field(default=3.0, gt=0)
    damping_ratio: float = Field(default=0.5, gt=0)
    locomotion_fraction: float = Field(default=0.25, ge=0, le=1)
    bout_s: float = Field(default=2.0, gt=0)
    subpixel: bool = True
    trajectory_px: tuple[tuple[float, float], ...] | None = None


class _Falloff(Step):
    """A radial fall from the centre to the farthest corner of the field of view."""

    edge: float = Field(default=0.6, ge=0, le=1)
    exponent: float = Field(default=2.0, gt=0)
    center_offset_y_px: float = 0.0
    center_offset_x_px: float = 0.0


class IlluminationProfile(_Falloff):
    """Uneven excitation, fixed to the microscope: 1 - (1 - edge) (r / r_corner)^exponent.

    Attributes
    ----------
    edge
        What is left at the distance of the corners, 0 to 1.
    exponent
        2 for a parabola, more for a flatter centre.
    center_offset_y_px, center_offset_x_px
        Of the brightest point from the centre [pixels].
    """

    kind: Literal["illumination_profile"] = "illumination_profile"


class Vignette(_Falloff):
    """Uneven collection, of the same form and with the same attributes as :class:`IlluminationProfile`."""

    kind: Literal["vignette"] = "vignette"


class Leakage(Step):
    """Excitation light that passes the filters: it is added, and does not move.

    Attributes
    ----------
    photons
        At the centre [photons/pixel/frame].
    profile
        "flat" or "gaussian".
    sigma_fraction
        Of the Gaussian, in half diagonals of the field of view.
    """

    kind: Literal["leakage"] = "leakage"
    photons: float = Field(default=1.0, ge=0)
    profile: Literal["flat", "gaussian"] = "gaussian"
    sigma_fraction: float = Field(default=0.6, gt=0)


class Sensor(Step):
    """Photons to counts.

    Attributes
    ----------
    quantum_efficiency
        Electrons per photon (for a photomultiplier: of the photocathode).
    conversion_gain_adu
        Counts per electron [ADU/e-].
    read_noise_e
        Standard deviation [e-].
    excess_noise_factor
        <g^2>/<g>^2 of a multiplication with gain g: 1 for a camera, about 1.2 for a photomultiplier, at most 2.
    pedestal_adu
        Counts without light [ADU].
    full_well_e
        Electrons at which a pixel is full [e-]; None for no limit before the converter's.
    bit_depth
        Of the converter: counts from 0 to 2^bit_depth - 1. Up to 8 bits give uint8, more uint16.
    noise_seed
        Another number is another draw of the noise, of the same tissue: what differs between the two recordings is
        what noise alone does.
    """

    kind: Literal["sensor"] = "sensor"
    quantum_efficiency: float = Field(default=0.8, gt=0, le=1)
    conversion_gain_adu: float = Field(default=1.0, gt=0)
    read_noise_e: float = Field(default=0.0, ge=0)
    excess_noise_factor: float = Field(default=1.0, ge=1, le=2)
    pedestal_adu: float = Field(default=0.0, ge=0)
    full_well_e: float | None = Field(default=None, gt=0)
    bit_depth: int = Field(default=16, ge=1, le=16)
    noise_seed: int = Field(default=0, ge=0, lt=2**63)
