"""Starting points for four kinds of microscope: change them with ``spec.model_copy(update=...)``.

Each takes the seed, and the size and length of the movie, as :class:`.Spec` and :class:`.Acquisition` have them.
"""

from __future__ import annotations

from . import steps
from .spec import Acquisition, Spec

_CORTEX = steps.PlaceNeurons(
    density_per_mm3=80_000, irregularity=0.12, nucleus_fraction=0.55, depth_min_um=130.0, depth_max_um=190.0,
    min_distance_um=13.0,
)  # fmt: skip
_SCANNED = steps.CellOptics(
    excitation="two_photon", numerical_aperture=0.8, emission_nm=920.0, scatter_length_um=160.0, focal_depth_um=160.0
)


def one_photon_miniscope(seed: int = 0, height_px: int = 192, width_px: int = 192, n_frames: int = 200) -> Spec:
    """A head-mounted microscope: bright haze, blurred cells, vessels, motion, a 12-bit camera."""
    parts = (
        steps.PlaceNeurons(density_per_mm3=30_000, irregularity=0.25, depth_max_um=180.0),
        steps.CellActivity(baseline_photons=60.0, dff_per_spike=0.8, tau_rise_s=0.07, tau_decay_s=0.6),
        steps.Bleaching(tau_s=300.0),
        steps.CellOptics(scatter_length_um=120.0),
        steps.Composite(background_photons=15.0),
        steps.Neuropil(photons=70.0, spatial_sigma_um=45.0),
        steps.Vasculature(n_vessels=5, width_um=22.0, absorption=0.55, blur_um=5.0),
        steps.BrainMotion(max_shift_um=12.0, amplitude_um=3.0),
        steps.IlluminationProfile(),
        steps.Vignette(edge=0.55),
        steps.Leakage(photons=8.0),
        steps.Sensor(
            quantum_efficiency=0.7, conversion_gain_adu=2.5, read_noise_e=2.5, pedestal_adu=60.0, full_well_e=10_000.0,
            bit_depth=12,
        ),
    )  # fmt: skip
    acquisition = Acquisition(height_px=height_px, width_px=width_px, n_frames=n_frames, pixel_size_um=1.5, fps=20.0)
    return Spec(seed=seed, acquisition=acquisition, steps=parts)


def two_photon_raster(seed: int = 0, height_px: int = 192, width_px: int = 192, n_frames: int = 200) -> Spec:
    """A two-photon microscope in cortex: ringed cells on dark neuropil, a photomultiplier with excess noise."""
    parts = (
        _CORTEX.model_copy(update={"soma_radius_um": 6.5}),
        steps.CellActivity(baseline_photons=200.0, brightness_cv=0.4, dff_per_spike=0.5, tau_decay_s=0.7),
        steps.Bleaching(tau_s=900.0),
        _SCANNED,
        steps.Composite(background_photons=0.2),
        steps.Neuropil(photons=3.0, spatial_sigma_um=6.0, contrast=0.5, temporal_tau_s=3.0),
        steps.Vasculature(n_vessels=2, width_um=16.0, absorption=0.85, blur_um=1.5),
        steps.BrainMotion(max_shift_um=6.0, amplitude_um=1.5, frequency_hz=4.0),
        steps.IlluminationProfile(edge=0.8),
        steps.Sensor(
            quantum_efficiency=0.4, conversion_gain_adu=30.0, read_noise_e=0.15, excess_noise_factor=1.25,
            pedestal_adu=100.0, bit_depth=12,
        ),
    )  # fmt: skip
    acquisition = Acquisition(height_px=height_px, width_px=width_px, n_frames=n_frames, pixel_size_um=1.0, fps=30.0)
    return Spec(seed=seed, acquisition=acquisition, steps=parts)


def photon_counting(seed: int = 0, height_px: int = 192, width_px: int = 192, n_frames: int = 200) -> Spec:
    """A photon-counting two-photon microscope: 0.1 photons per pixel in dark regions, no noise but shot noise."""
    parts = (
        _CORTEX,
        steps.CellActivity(baseline_photons=50.0, dff_per_spike=0.5, tau_decay_s=0.7),
        _SCANNED,
        steps.Composite(background_photons=0.05),
        steps.Neuropil(photons=0.4, spatial_sigma_um=6.0, contrast=0.5, temporal_tau_s=3.0),
        steps.BrainMotion(max_shift_um=4.0, amplitude_um=1.0),
        steps.Sensor(quantum_efficiency=0.4, bit_depth=8),
    )
    acquisition = Acquisition(height_px=height_px, width_px=width_px, n_frames=n_frames, pixel_size_um=1.0, fps=30.0)
    return Spec(seed=seed, acquisition=acquisition, steps=parts)


def single_molecule_tirf(seed: int = 0, height_px: int = 128, width_px: int = 128, n_frames: int = 200) -> Spec:
    """Single molecules that diffuse at 0.1 um^2/s in a membrane and blink, on an sCMOS camera with 107 nm pixels."""
    parts = (
        steps.Molecules(photons_per_frame=600.0, bleaching_s=6.0),
        steps.Composite(background_photons=6.0),
        steps.IlluminationProfile(edge=0.4),
        steps.Leakage(profile="flat"),
        steps.Sensor(
            quantum_efficiency=0.85, conversion_gain_adu=2.2, read_noise_e=1.6, pedestal_adu=100.0, full_well_e=30_000.0
        ),
    )
    acquisition = Acquisition(height_px=height_px, width_px=width_px, n_frames=n_frames, pixel_size_um=0.107, fps=33.0)
    return Spec(seed=seed, acquisition=acquisition, steps=parts)


#: All presets, by name.
PRESETS = {
    make.__name__: make for make in (one_photon_miniscope, two_photon_raster, photon_counting, single_molecule_tirf)
}
