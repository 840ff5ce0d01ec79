"""The parameters of each step of the forward model: frozen, validated, with units in their names.

Light is counted in photons a pixel and frame that reach the sensor, from the first step to the last.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of everything in a spec: frozen, finite, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Step(Part):
    """Base of all steps."""

    kind: str


class PlaceNeurons(Step):
    """Somata at random places of a slab of tissue, wider than the field of view where the brain moves."""

    kind: Literal["place_neurons"] = "place_neurons"
    density_per_mm3: NonNegativeFloat = 50_000.0
    """Neurons per volume [1/mm^3]."""
    soma_radius_um: PositiveFloat = 6.0
    """Mean radius [um]."""
    irregularity: float = Field(default=0.2, ge=0, le=0.5)
    """Departure of the outline from a circle, as part of the radius."""
    nucleus_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Radius of the nucleus, which the indicator leaves dark, as part of the soma's; 0 for none."""
    depth_min_um: NonNegativeFloat = 0.0
    """Top of the slab [um below the surface]."""
    depth_max_um: NonNegativeFloat = 150.0
    """Bottom of the slab [um below the surface]."""
    min_distance_um: NonNegativeFloat = 0.0
    """Least distance between centres, in space [um]; cells that find no place after 30 trials are left out."""

    @model_validator(mode="after")
    def _slab(self) -> Self:
        if self.depth_max_um < self.depth_min_um:
            raise ValueError(f"depth_max_um is {self.depth_max_um}, must be at least depth_min_um={self.depth_min_um}")
        return self


class CellActivity(Step):
    """Spikes in bursts, and the response of the calcium indicator to each."""

    kind: Literal["cell_activity"] = "cell_activity"
    baseline_photons: NonNegativeFloat = 20.0
    """Light of the mean cell at rest, at full weight of its footprint, before optics [photons/pixel/frame]."""
    brightness_cv: NonNegativeFloat = 0.3
    """Coefficient of variation of that light between cells (log-normal)."""
    dff_per_spike: NonNegativeFloat = 0.3
    """Peak dF/F of one spike."""
    tau_rise_s: NonNegativeFloat = 0.05
    """Rise time constant of the indicator [s]; below ``tau_decay_s``."""
    tau_decay_s: PositiveFloat = 0.5
    """Decay time constant of the indicator [s]."""
    rate_quiet_hz: NonNegativeFloat = 0.1
    """Spike rate of a quiet cell [1/s]."""
    rate_active_hz: NonNegativeFloat = 8.0
    """Spike rate of an active cell [1/s]."""
    quiet_s: PositiveFloat = 4.0
    """Mean time that a cell stays quiet [s]."""
    active_s: PositiveFloat = 0.5
    """Mean time that a cell stays active [s]."""

    @model_validator(mode="after")
    def _kinetics(self) -> Self:
        if self.tau_rise_s >= self.tau_decay_s:
            raise ValueError(f"tau_rise_s is {self.tau_rise_s}, must be below tau_decay_s={self.tau_decay_s}")
        return self


class Bleaching(Step):
    """The indicator fades: factor = remaining + (1 - remaining) exp(-t / tau), with a tau for each cell."""

    kind: Literal["bleaching"] = "bleaching"
    tau_s: PositiveFloat = 600.0
    """Mean time constant [s]."""
    remaining: Share = 0.3
    """Part that does not bleach, or is replaced."""
    tau_cv: NonNegativeFloat = 0.2
    """Coefficient of variation of the time constant between cells."""


class CellOptics(Step):
    """How a cell looks from its depth: diffraction, defocus and scatter blur it, scatter and sectioning dim it."""

    kind: Literal["cell_optics"] = "cell_optics"
    excitation: Literal["one_photon", "two_photon"] = "one_photon"
    """One photon lights the whole depth; two photons the focus only, and what is detected is not scattered."""
    numerical_aperture: PositiveFloat = 0.45
    """Numerical aperture of the objective; below ``refractive_index``."""
    emission_nm: PositiveFloat = 525.0
    """Wavelength of the light that makes the image [nm]; for two photons that of the excitation."""
    refractive_index: float = Field(default=1.33, ge=1)
    """Refractive index of the medium."""
    scatter_length_um: PositiveFloat = 100.0
    """Depth at which the unscattered light falls to 1/e [um]."""
    scatter_blur_per_um: NonNegativeFloat = 0.03
    """Standard deviation of the scattered light per depth [um/um]."""
    focal_depth_um: NonNegativeFloat | Literal["auto"] = "auto"
    """Depth in focus [um], or "auto": the depth with the most light of cells in focus."""
    depth_of_field_um: PositiveFloat | Literal["auto"] = "auto"
    """Full depth in focus [um], or "auto": where the blur stays within a soma (see :mod:`.optics`)."""

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        aperture, index = self.numerical_aperture, self.refractive_index
        if aperture >= index:
            raise ValueError(f"numerical_aperture is {aperture}, must be below refractive_index={index}")
        return self


class Molecules(Step):
    """Single fluorophores that diffuse in a membrane, blink, and bleach in one step."""

    kind: Literal["molecules"] = "molecules"
    density_per_um2: NonNegativeFloat = 0.3
    """Molecules per area [1/um^2], at the start."""
    diffusion_um2_per_s: NonNegativeFloat = 0.1
    """Diffusion coefficient D [um^2/s]: <r^2> = 4 D t. Walls are beyond the field of view, and reflect."""
    photons_per_frame: NonNegativeFloat = 500.0
    """Sum over the spot of a molecule that is on for a whole frame [photons/frame], mean of the molecules."""
    brightness_cv: NonNegativeFloat = 0.1
    """Coefficient of variation of that light between molecules."""
    on_s: PositiveFloat = 0.5
    """Mean time on [s]."""
    off_s: NonNegativeFloat = 0.2
    """Mean time off [s]; 0 for no blinking."""
    bleaching_s: PositiveFloat | None = None
    """Mean time on after which a molecule stays dark [s]; None for never."""
    emission_nm: PositiveFloat = 580.0
    """Wavelength of the light [nm]; the spot's Gaussian width is 0.21 emission / aperture (see :mod:`.optics`)."""
    numerical_aperture: PositiveFloat = 1.45
    """Numerical aperture of the objective."""
    substeps: int = Field(default=4, ge=1, le=64)
    """Positions in one exposure, whose mean is where the spot is drawn: what diffusion does to a localisation (A. J.
    Berglund, Physical Review E 82 (2010), 011917). Its broadening of the spot is left out."""


class Composite(Step):
    """Cells and molecules on the light that comes from everywhere."""

    kind: Literal["composite"] = "composite"
    background_photons: NonNegativeFloat = 0.0
    """Uniform fluorescence of the tissue [photons/pixel/frame]."""


class Neuropil(Step):
    """The blurred activity of everything that is not a soma."""

    kind: Literal["neuropil"] = "neuropil"
    photons: NonNegativeFloat = 10.0
    """Mean of all components [photons/pixel/frame]."""
    n_components: int = Field(default=3, ge=1, le=64)
    """Patterns in space, each with a course in time."""
    spatial_sigma_um: PositiveFloat = 40.0
    """Size of the patterns [um]."""
    contrast: NonNegativeFloat = 0.3
    """Standard deviation of the patterns, relative to their mean."""
    temporal_tau_s: PositiveFloat = 10.0
    """Time constant of each component's own slow course [s]."""
    fluctuation: NonNegativeFloat = 0.1
    """Standard deviation of that course."""
    population_coupling: Share = 0.5
    """Part of the light that follows the mean of all cells."""
    population_tau_s: NonNegativeFloat = 1.5
    """Time over which that part follows [s]."""


class Vasculature(Step):
    """Blood vessels between the tissue and the objective: they absorb, and move with the brain."""

    kind: Literal["vasculature"] = "vasculature"
    n_vessels: int = Field(default=4, ge=0, le=1000)
    """Number of vessels that cross the canvas."""
    width_um: PositiveFloat = 15.0
    """Width of the widest vessel [um]; the others are down to a third of it."""
    absorption: Share = 0.6
    """Part of the light lost under a vessel."""
    tortuosity: NonNegativeFloat = 0.05
    """Standard deviation of the turn per um of way [rad]."""
    blur_um: NonNegativeFloat = 2.0
    """Blur of their edges [um]."""


class BrainMotion(Step):
    """Rigid lateral motion of the tissue under the field of view."""

    kind: Literal["brain_motion"] = "brain_motion"
    max_shift_um: NonNegativeFloat = 8.0
    """No frame is further from the reference than this along each axis [um]; it sets the canvas."""
    amplitude_um: NonNegativeFloat = 2.0
    """Standard deviation of the motion during locomotion [um]; a fifth of that at rest."""
    frequency_hz: PositiveFloat = 3.0
    """Frequency of the resonance with which the brain follows [Hz]."""
    damping_ratio: PositiveFloat = 0.5
    """Damping ratio of that resonance."""
    locomotion_fraction: Share = 0.25
    """Part of the time spent running."""
    bout_s: PositiveFloat = 2.0
    """Mean length of a run [s]."""
    subpixel: bool = True
    """Whether shifts have fractions (bilinear interpolation of the expected photons) or are whole pixels."""
    trajectory_px: tuple[tuple[float, float], ...] | None = None
    """The shifts (dy, dx) of every frame [pixels], in place of all of the above but ``max_shift_um``, ``subpixel``."""


class IlluminationProfile(Step):
    """Uneven excitation, fixed to the microscope: 1 - (1 - edge) (r / r_corner)^exponent."""

    kind: Literal["illumination_profile"] = "illumination_profile"
    edge: Share = 0.6
    """Light left at the distance of the corners, as part of that at the centre."""
    exponent: PositiveFloat = 2.0
    """2 for a parabola, more for a flatter centre."""
    center_offset_y_px: float = 0.0
    """Rows of the brightest point below the centre [pixels]."""
    center_offset_x_px: float = 0.0
    """Columns of the brightest point to the right of the centre [pixels]."""


class Vignette(IlluminationProfile):
    """Uneven collection, of the same form and with the same attributes."""

    kind: Literal["vignette"] = "vignette"  # type: ignore[assignment]


class Leakage(Step):
    """Excitation light that passes the filters: it is added, and does not move."""

    kind: Literal["leakage"] = "leakage"
    photons: NonNegativeFloat = 1.0
    """Light at the centre [photons/pixel/frame]."""
    profile: Literal["flat", "gaussian"] = "gaussian"
    """Even, or brightest at the centre."""
    sigma_fraction: PositiveFloat = 0.6
    """Width of the Gaussian, in half diagonals of the field of view."""


class Sensor(Step):
    """Photons to counts."""

    kind: Literal["sensor"] = "sensor"
    quantum_efficiency: float = Field(default=0.8, gt=0, le=1)
    """Electrons per photon (for a photomultiplier: of the photocathode)."""
    conversion_gain_adu: PositiveFloat = 1.0
    """Counts per electron [ADU/e-]."""
    read_noise_e: NonNegativeFloat = 0.0
    """Standard deviation of the read noise [e-]."""
    excess_noise_factor: float = Field(default=1.0, ge=1, le=2)
    """<g^2>/<g>^2 of a multiplication with gain g: 1 for a camera, about 1.2 for a photomultiplier."""
    pedestal_adu: NonNegativeFloat = 0.0
    """Counts without light [ADU]."""
    full_well_e: PositiveFloat | None = None
    """Electrons at which a pixel is full [e-]; None for no limit before the converter's."""
    bit_depth: int = Field(default=16, ge=1, le=16)
    """Bits of the converter: counts from 0 to 2^bit_depth - 1. Up to 8 bits give uint8, more uint16."""
    noise_seed: int = Field(default=0, ge=0, lt=2**63)
    """Another number draws other noise over the same tissue: two such recordings differ by noise alone."""


#: All steps, in the order in which light meets them, from tissue to counts.
AnyStep = (
    PlaceNeurons | CellActivity | Bleaching | CellOptics | Molecules | Composite | Neuropil | Vasculature
    | BrainMotion | IlluminationProfile | Vignette | Leakage | Sensor
)  # fmt: skip
#: Their names, in the same order.
ORDER: tuple[str, ...] = tuple(step.model_fields["kind"].default for step in get_args(AnyStep))
