"""The parameters of each step of the forward model: frozen, validated, with units in their names.

In every step, light is counted in photons per pixel and frame that reach the sensor.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base of everything in a spec: frozen; infinite values and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Step(Part):
    """Base of all steps."""

    kind: str


class PlaceNeurons(Step):
    """Somata at random places in a slab of tissue, which is wider than the field of view if the brain moves."""

    kind: Literal["place_neurons"] = "place_neurons"
    density_per_mm3: NonNegativeFloat = 50_000.0
    """Neurons per volume [1/mm^3]."""
    soma_radius_um: PositiveFloat = 6.0
    """Mean radius [um]."""
    irregularity: float = Field(default=0.2, ge=0, le=0.5)
    """Deviation of the outline from a circle, as a fraction of the radius."""
    nucleus_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Radius of the nucleus, which has no indicator, as a fraction of the soma's; 0 for none."""
    depth_min_um: NonNegativeFloat = 0.0
    """Top of the slab [um below the surface]."""
    depth_max_um: NonNegativeFloat = 150.0
    """Bottom of the slab [um below the surface]."""
    min_distance_um: NonNegativeFloat = 0.0
    """Minimum distance between centres, in three dimensions [um]; a cell without a place after 30 tries is left out."""

    @model_validator(mode="after")
    def _slab(self) -> Self:
        if self.depth_max_um < self.depth_min_um:
            raise ValueError(f"depth_max_um is {self.depth_max_um}, must be at least depth_min_um={self.depth_min_um}")
        return self


class CellActivity(Step):
    """Spikes in bursts, and the response of the calcium indicator to each."""

    kind: Literal["cell_activity"] = "cell_activity"
    baseline_photons: NonNegativeFloat = 20.0
    """Mean light of a cell at rest, at full weight of its footprint, before optics [photons/pixel/frame]."""
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
    """Mean duration of a quiet period [s]."""
    active_s: PositiveFloat = 0.5
    """Mean duration of an active period [s]."""

    @model_validator(mode="after")
    def _kinetics(self) -> Self:
        if self.tau_rise_s >= self.tau_decay_s:
            raise ValueError(f"tau_rise_s is {self.tau_rise_s}, must be below tau_decay_s={self.tau_decay_s}")
        return self


class Bleaching(Step):
    """Bleaching of the indicator: remaining + (1 - remaining) exp(-t / tau), with a tau for each cell."""

    kind: Literal["bleaching"] = "bleaching"
    tau_s: PositiveFloat = 600.0
    """Mean time constant [s]."""
    remaining: Share = 0.3
    """Fraction that does not bleach, or is replaced."""
    tau_cv: NonNegativeFloat = 0.2
    """Coefficient of variation of the time constant between cells."""


class CellOptics(Step):
    """Appearance of a cell by depth: diffraction, defocus and scatter blur it; scatter and sectioning dim it."""

    kind: Literal["cell_optics"] = "cell_optics"
    excitation: Literal["one_photon", "two_photon"] = "one_photon"
    """One photon excites the whole depth; two photons only the focus, without blur by scatter."""
    numerical_aperture: PositiveFloat = 0.45
    """Numerical aperture of the objective; below ``refractive_index``."""
    emission_nm: PositiveFloat = 525.0
    """Wavelength of the light that forms the image [nm]; for two photons, that of the excitation."""
    refractive_index: float = Field(default=1.33, ge=1)
    """Refractive index of the medium."""
    scatter_length_um: PositiveFloat = 100.0
    """Depth at which unscattered light has fallen to 1/e [um]."""
    scatter_blur_per_um: NonNegativeFloat = 0.03
    """Standard deviation of the blur by scatter, per depth [um/um]."""
    focal_depth_um: NonNegativeFloat | Literal["auto"] = "auto"
    """Depth in focus [um], or "auto": the depth with the most light from cells in focus."""
    depth_of_field_um: PositiveFloat | Literal["auto"] = "auto"
    """Depth of field, its full extent [um], or "auto": where the blur stays within a soma (see :mod:`.optics`)."""

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
    """Diffusion coefficient D [um^2/s]: <r^2> = 4 D t. Reflecting walls lie beyond the field of view."""
    photons_per_frame: NonNegativeFloat = 500.0
    """Mean total light of a molecule that is on for a whole frame [photons/frame]."""
    brightness_cv: NonNegativeFloat = 0.1
    """Coefficient of variation of that light between molecules."""
    on_s: PositiveFloat = 0.5
    """Mean duration of the on state [s]."""
    off_s: NonNegativeFloat = 0.2
    """Mean duration of the off state [s]; 0 for no blinking."""
    bleaching_s: PositiveFloat | None = None
    """Mean total time in the on state before a molecule bleaches [s]; None for no bleaching."""
    emission_nm: PositiveFloat = 580.0
    """Wavelength of the light [nm]; the spot's Gaussian width is 0.21 emission / aperture (see :mod:`.optics`)."""
    numerical_aperture: PositiveFloat = 1.45
    """Numerical aperture of the objective."""
    substeps: int = Field(default=4, ge=1, le=64)
    """Positions in one exposure; the spot is drawn at their mean, which gives the motion blur of localisations (A. J.
    Berglund, Physical Review E 82 (2010), 011917). Broadening of the spot is not simulated."""


class Composite(Step):
    """Cells and molecules on a uniform background."""

    kind: Literal["composite"] = "composite"
    background_photons: NonNegativeFloat = 0.0
    """Uniform fluorescence of the tissue [photons/pixel/frame]."""


class Neuropil(Step):
    """The blurred activity of everything outside the somata."""

    kind: Literal["neuropil"] = "neuropil"
    photons: NonNegativeFloat = 10.0
    """Mean light of all components together [photons/pixel/frame]."""
    n_components: int = Field(default=3, ge=1, le=64)
    """Number of spatial patterns, each with its own time course."""
    spatial_sigma_um: PositiveFloat = 40.0
    """Size of the patterns [um]."""
    contrast: NonNegativeFloat = 0.3
    """Standard deviation of the patterns, relative to their mean."""
    temporal_tau_s: PositiveFloat = 10.0
    """Time constant of each component's own slow time course [s]."""
    fluctuation: NonNegativeFloat = 0.1
    """Standard deviation of that time course."""
    population_coupling: Share = 0.5
    """Fraction of the light that follows the mean activity of all cells."""
    population_tau_s: NonNegativeFloat = 1.5
    """Time constant with which it follows [s]."""


class Vasculature(Step):
    """Blood vessels between the tissue and the objective: they absorb, and move with the brain."""

    kind: Literal["vasculature"] = "vasculature"
    n_vessels: int = Field(default=4, ge=0, le=1000)
    """Number of vessels across the canvas."""
    width_um: PositiveFloat = 15.0
    """Largest width of a vessel [um]; the smallest is a third of it."""
    absorption: Share = 0.6
    """Fraction of the light lost under a vessel."""
    tortuosity: NonNegativeFloat = 0.05
    """Standard deviation of the change of direction per um of length [rad]."""
    blur_um: NonNegativeFloat = 2.0
    """Blur of the edges of vessels [um]."""


class BrainMotion(Step):
    """Rigid lateral motion of the tissue under the field of view."""

    kind: Literal["brain_motion"] = "brain_motion"
    max_shift_um: NonNegativeFloat = 8.0
    """Largest distance from the reference along each axis [um]; it sets the size of the canvas."""
    amplitude_um: NonNegativeFloat = 2.0
    """Standard deviation of the motion during locomotion [um]; a fifth of that at rest."""
    frequency_hz: PositiveFloat = 3.0
    """Resonance frequency of the brain's motion [Hz]."""
    damping_ratio: PositiveFloat = 0.5
    """Damping ratio of that resonance."""
    locomotion_fraction: Share = 0.25
    """Fraction of the time spent running."""
    bout_s: PositiveFloat = 2.0
    """Mean duration of a run [s]."""
    subpixel: bool = True
    """Whether shifts have fractions (bilinear interpolation of the expected photons); otherwise, whole pixels."""
    trajectory_px: tuple[tuple[float, float], ...] | None = None
    """The shift (dy, dx) of every frame [pixels]; replaces all of the above but ``max_shift_um`` and ``subpixel``."""


class IlluminationProfile(Step):
    """Uneven excitation, fixed to the microscope: 1 - (1 - edge) (r / r_corner)^exponent."""

    kind: Literal["illumination_profile"] = "illumination_profile"
    edge: Share = 0.6
    """Light at the distance of the corners, relative to the centre."""
    exponent: PositiveFloat = 2.0
    """2 for a parabola, more for a flatter centre."""
    center_offset_y_px: float = 0.0
    """Rows of the brightest point below the centre [pixels]."""
    center_offset_x_px: float = 0.0
    """Columns of the brightest point to the right of the centre [pixels]."""


class Vignette(IlluminationProfile):
    """Uneven collection of light, with the same formula and attributes."""

    kind: Literal["vignette"] = "vignette"  # type: ignore[assignment]


class Leakage(Step):
    """Excitation light that passes the filters; it is added, and does not move with the tissue."""

    kind: Literal["leakage"] = "leakage"
    photons: NonNegativeFloat = 1.0
    """Light at the centre [photons/pixel/frame]."""
    profile: Literal["flat", "gaussian"] = "gaussian"
    """Uniform, or brightest at the centre."""
    sigma_fraction: PositiveFloat = 0.6
    """Width of the Gaussian, in half diagonals of the field of view."""


class Sensor(Step):
    """The camera or photomultiplier that turns photons into counts."""

    kind: Literal["sensor"] = "sensor"
    quantum_efficiency: float = Field(default=0.8, gt=0, le=1)
    """Electrons per photon; for a photomultiplier, that of the photocathode."""
    conversion_gain_adu: PositiveFloat = 1.0
    """Counts per electron [ADU/e-]."""
    read_noise_e: NonNegativeFloat = 0.0
    """Standard deviation of the read noise [e-]."""
    excess_noise_factor: float = Field(default=1.0, ge=1, le=2)
    """<g^2>/<g>^2 of a multiplication with gain g: 1 for a camera, about 1.2 for a photomultiplier."""
    pedestal_adu: NonNegativeFloat = 0.0
    """Counts without light [ADU]."""
    full_well_e: PositiveFloat | None = None
    """Electrons at which a pixel saturates [e-]; None if only the converter saturates."""
    bit_depth: int = Field(default=16, ge=1, le=16)
    """Bits of the converter: counts from 0 to 2^bit_depth - 1, in uint8 up to 8 bits, otherwise in uint16."""
    noise_seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the sensor's noise: recordings that differ only in it show the same tissue with other noise."""


#: All steps, in the order in which light meets them.
AnyStep = (
    PlaceNeurons | CellActivity | Bleaching | CellOptics | Molecules | Composite | Neuropil | Vasculature
    | BrainMotion | IlluminationProfile | Vignette | Leakage | Sensor
)  # fmt: skip
#: Their names, in the same order.
ORDER: tuple[str, ...] = tuple(step.model_fields["kind"].default for step in get_args(AnyStep))
