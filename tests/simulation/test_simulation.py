"""The forward model: each step is compared with its formula and its statistics."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dj_photon_codecs import calibrate
from dj_photon_codecs._typing import AnyArray
from dj_photon_codecs.errors import ConfigurationError, InvalidMovieError
from dj_photon_codecs.simulation import (
    Acquisition,
    Output,
    Recording,
    Spec,
    build_scene,
    detection_snr,
    finalize,
    pipeline,
    presets,
    simulate,
)
from dj_photon_codecs.simulation.steps import (
    Bleaching,
    BrainMotion,
    CellActivity,
    CellOptics,
    Composite,
    IlluminationProfile,
    Leakage,
    Molecules,
    Neuropil,
    PlaceNeurons,
    Sensor,
    Step,
    Vasculature,
    Vignette,
)

#: Hash of counts and truth of each preset at 40 x 48 pixels and 6 frames, the same on every machine.
GOLDEN = {
    "one_photon_miniscope": "7a9d8ab39dd2ac42646d97ff7d35785da72ea59e5ff6fe40df9de70e9890d8aa",
    "two_photon_raster": "1623d5bf29bb6d44ff56c75d2cededb73c57c05dbece580ef4e8260bee49057b",
    "photon_counting": "21465a266aacc72e845161320f1c1fa1dd577eeb252a8c28a517e9502389c61a",
    "single_molecule_tirf": "cf8953898fd7e2c66251027358ffd98cdde840672eacc0048709c05216b31d11",
}


def spec_of(
    *steps: Step, size: int = 64, frames: int = 20, seed: int = 1, keep: tuple[str, ...] = (), **more: Any
) -> Spec:
    """A spec; unless the steps include a sensor, one without noise other than shot noise is added."""
    if not any(isinstance(step, Composite) for step in steps):
        raise ValueError("a composite is needed")
    if not isinstance(steps[-1], Sensor):
        steps = (*steps, Sensor(quantum_efficiency=1.0))
    acquisition = Acquisition(height_px=size, width_px=size, n_frames=frames, **more)
    return Spec(seed=seed, acquisition=acquisition, steps=steps, output=Output(snapshots=keep))  # type: ignore[arg-type]


CELLS: tuple[Step, ...] = (PlaceNeurons(density_per_mm3=40_000, depth_max_um=100), CellActivity(rate_quiet_hz=2.0))


@pytest.fixture(scope="module")
def miniscope() -> Recording:
    spec = presets.one_photon_miniscope(height_px=64, width_px=72, n_frames=30)
    return simulate(spec.model_copy(update={"output": Output(snapshots=("neuropil", "brain_motion", "leakage"))}))


def flat(photons: float, sensor: Sensor, frames: int = 60) -> AnyArray:
    return simulate(spec_of(Composite(background_photons=photons), sensor, frames=frames)).observed.astype(np.float64)


# --- the sensor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photons", [0.1, 1.0, 30.0, 900.0])
def test_counts_are_poisson(photons: float) -> None:
    """Mean and variance of ideal counts are the photons, within 4 standard errors."""
    counts = flat(photons, Sensor(quantum_efficiency=1.0))
    n = counts.size
    assert abs(counts.mean() - photons) < 4 * math.sqrt(photons / n)
    assert abs(counts.var() - photons) < 4 * math.sqrt((photons + 2 * photons**2) / n)


def test_a_camera_has_mean_and_variance_of_its_parameters() -> None:
    sensor = Sensor(quantum_efficiency=0.6, conversion_gain_adu=4.0, read_noise_e=2.0, pedestal_adu=50)
    counts = flat(30, sensor)
    assert counts.mean() == pytest.approx(50 + 4 * 18, abs=0.2)
    assert counts.var() == pytest.approx(16 * (18 + 4) + 1 / 12, rel=0.02)


@pytest.mark.parametrize(
    "sensor",
    [
        Sensor(
            quantum_efficiency=0.5, conversion_gain_adu=20, read_noise_e=0.2, excess_noise_factor=1.3, pedestal_adu=90
        ),
        Sensor(conversion_gain_adu=2.5, read_noise_e=3.0, pedestal_adu=80),
        Sensor(conversion_gain_adu=10.0, excess_noise_factor=2.0),
    ],
)
def test_photon_transfer_curve_is_the_given_calibration(sensor: Sensor) -> None:
    """variance = conversion_gain (mean - zero_level), excess noise included."""
    spec = spec_of(Composite(), sensor)
    model = simulate(spec).photon_movie().noise_model()
    assert model is not None
    for photons in (0.5, 3.0, 30.0, 100.0):
        counts = flat(photons, sensor)
        expected = model.conversion_gain * (counts.mean() - model.zero_level) + 1 / 12
        assert counts.var() == pytest.approx(expected, rel=0.03)


def test_saturation_bit_depth_and_full_well() -> None:
    assert flat(5000, Sensor(bit_depth=12)).max() == 4095
    assert flat(5000, Sensor(bit_depth=16, full_well_e=1000, conversion_gain_adu=2, pedestal_adu=7)).max() == 2007
    assert flat(0, Sensor(pedestal_adu=3, read_noise_e=20)).min() == 0
    assert simulate(spec_of(Composite(), Sensor(bit_depth=8), frames=2)).observed.dtype == np.uint8
    assert simulate(spec_of(Composite(), Sensor(bit_depth=9), frames=2)).observed.dtype == np.uint16


# --- one seed, one recording ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_preset_gives_these_bytes_on_every_machine(name: str) -> None:
    """Golden: a change of these needs a new model_version of the spec."""
    recording = simulate(presets.PRESETS[name](seed=7, height_px=40, width_px=48, n_frames=6))
    digest = hashlib.sha256(recording.observed.astype(recording.observed.dtype.newbyteorder("<")).tobytes())
    truth = recording.ground_truth
    for array in truth.arrays().values():
        if array.dtype.kind == "f":
            digest.update(array.astype("<f8").tobytes())
    assert digest.hexdigest() == GOLDEN[name]


def test_blocks_and_the_whole_movie_have_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering frame by frame and all at once give the same bytes (invariant 7 needs blocks)."""
    spec = presets.one_photon_miniscope(height_px=24, width_px=24, n_frames=9)
    whole = simulate(spec).observed
    for pixels in (1, 24 * 24 * 12):
        monkeypatch.setattr(pipeline, "_BLOCK_PIXELS", pixels)
        np.testing.assert_array_equal(simulate(spec).observed, whole)
    blocks = [counts for _, counts, _ in pipeline.exposed_blocks(build_scene(spec), spec)]
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_adding_steps_does_not_change_what_the_others_draw() -> None:
    plain = simulate(spec_of(*CELLS, Composite())).ground_truth
    more = simulate(spec_of(*CELLS, Bleaching(), Composite(), Neuropil(), Vasculature(), Leakage())).ground_truth
    for name in ("C", "S", "centers_um", "amplitude_per_cell"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(more, name))
    np.testing.assert_array_equal(plain.A_planted, more.A_planted)
    other = simulate(spec_of(*CELLS, Composite(), seed=2)).ground_truth
    assert not np.array_equal(plain.centers_um, other.centers_um)


def test_another_noise_seed_is_the_same_tissue_with_other_noise() -> None:
    spec = presets.photon_counting(height_px=48, width_px=48, n_frames=20)
    first, second = simulate(spec), simulate(spec.with_noise_seed(1))
    for name, array in first.ground_truth.arrays().items():
        np.testing.assert_array_equal(array, second.ground_truth.arrays()[name], err_msg=name)
    assert not np.array_equal(first.observed, second.observed)
    residual = first.observed.astype(float) - second.observed
    assert residual.mean() == pytest.approx(0, abs=0.02)
    assert residual.var() == pytest.approx(2 * first.observed.mean(), rel=0.05)  # two independent Poisson draws
    assert spec.with_noise_seed(0) == spec != spec.with_noise_seed(1)
    with pytest.raises(ValidationError, match="noise_seed"):
        spec.with_noise_seed(-1)


# --- cells ------------------------------------------------------------------------------------------------------------


def test_neurons_have_the_given_density_depth_and_distance() -> None:
    place = PlaceNeurons(density_per_mm3=20_000, depth_min_um=50, depth_max_um=150, min_distance_um=15)
    truth = simulate(spec_of(place, CellActivity(), Composite(), size=200, frames=2)).ground_truth
    assert truth.n_units == pytest.approx(20_000 * 0.2 * 0.2 * 0.1, abs=1)
    assert 50 <= truth.depth_um.min() < truth.depth_um.max() <= 150
    apart = np.linalg.norm(truth.centers_um[:, None] - truth.centers_um[None], axis=2)
    assert apart[~np.eye(len(apart), dtype=bool)].min() >= 15


def test_footprints_lie_at_their_centers_with_the_area_of_a_soma() -> None:
    place = PlaceNeurons(density_per_mm3=5_000, soma_radius_um=5, irregularity=0, depth_max_um=100)
    truth = simulate(spec_of(place, CellActivity(), Composite(), size=160, frames=2, pixel_size_um=0.8)).ground_truth
    y, x = np.mgrid[:160, :160]
    for image, (_, cy, cx) in zip(truth.A_planted, truth.centers_um, strict=True):
        if max(abs(cy), abs(cx)) < 55:  # not cut by an edge
            assert (image * y).sum() / image.sum() == pytest.approx(cy / 0.8 + 79.5, abs=0.1)
            assert (image * x).sum() / image.sum() == pytest.approx(cx / 0.8 + 79.5, abs=0.1)
            assert image.sum() * 0.8**2 == pytest.approx(math.pi * 25, rel=0.03)
    assert truth.A_planted.max() == 1


def test_light_is_the_spikes_through_the_kinetics() -> None:
    activity = CellActivity(baseline_photons=10, dff_per_spike=0.5, tau_rise_s=0.1, tau_decay_s=0.4, rate_quiet_hz=1)
    truth = simulate(spec_of(CELLS[0], activity, Composite(), frames=60)).ground_truth
    at = math.log(4) * 0.1 * 0.4 / 0.3
    peak = math.exp(-at / 0.4) - math.exp(-at / 0.1)
    t = (np.arange(60) + 0.5) / 20
    kernel = 0.5 * (np.exp(-t / 0.4) - np.exp(-t / 0.1)) / peak
    dff = np.array([np.convolve(row, kernel)[:60] for row in truth.S])
    np.testing.assert_allclose(truth.C, truth.amplitude_per_cell[:, None] * (1 + dff), rtol=1e-12)
    assert truth.S.sum() > 20
    np.testing.assert_array_equal(truth.S, np.rint(truth.S))


def test_cells_spike_at_the_rate_of_their_two_states() -> None:
    activity = CellActivity(rate_quiet_hz=0.5, rate_active_hz=10, quiet_s=3, active_s=1)
    place = PlaceNeurons(density_per_mm3=200_000, depth_max_um=100)
    S = simulate(spec_of(place, activity, Composite(), frames=400)).ground_truth.S
    assert S.mean() * 20 == pytest.approx(0.75 * 0.5 + 0.25 * 10, rel=0.15)


def test_bleaching_falls_from_one_to_the_remaining_fraction() -> None:
    truth = simulate(spec_of(*CELLS, Bleaching(tau_s=0.1, remaining=0.4), Composite())).ground_truth
    assert truth.bleaching is not None
    np.testing.assert_array_equal(truth.bleaching[:, 0], 1)
    assert np.all(np.diff(truth.bleaching, axis=1) < 0)
    assert truth.bleaching[:, -1].max() < 0.5
    assert truth.bleaching.min() >= 0.4


# --- optics -----------------------------------------------------------------------------------------------------------


def test_blur_and_dimming_follow_depth() -> None:
    optics = CellOptics(numerical_aperture=0.5, emission_nm=500, scatter_length_um=80, focal_depth_um=40)
    truth = simulate(spec_of(*CELLS, optics, Composite())).ground_truth
    h, depth = truth.depth_um - 40, truth.depth_um
    tangent = math.tan(math.asin(0.5 / 1.33))
    sigma = np.sqrt((0.21 * 0.5 / 0.5) ** 2 + (h * tangent / 2) ** 2 + (0.03 * depth) ** 2)
    np.testing.assert_allclose(truth.observed_sigma_px, sigma, rtol=1e-12)
    np.testing.assert_allclose(truth.observed_gain, np.exp(-depth / 80), rtol=1e-12)
    half = (0.5 * 1.33 / 0.25 + 2 * 6 / tangent) / 2
    np.testing.assert_array_equal(truth.in_focus, np.abs(h) <= half)
    assert truth.focal_depth_um == 40


def test_two_photons_see_the_focus_only() -> None:
    optics = CellOptics(excitation="two_photon", depth_of_field_um=10, focal_depth_um=50, scatter_length_um=100)
    truth = simulate(spec_of(*CELLS, optics, Composite())).ground_truth
    expected = np.exp(-2 * truth.depth_um / 100) / (1 + ((truth.depth_um - 50) / 5) ** 2)
    np.testing.assert_allclose(truth.observed_gain, expected, rtol=1e-12)
    assert np.ptp(truth.observed_sigma_px) == 0


def test_automatic_focus_has_more_light_in_focus_than_any_other_depth() -> None:
    truth = simulate(spec_of(*CELLS, CellOptics(depth_of_field_um=20), Composite())).ground_truth
    light = [truth.observed_gain[np.abs(truth.depth_um - z) <= 10].sum() for z in np.linspace(0, 100, 101)]
    assert truth.observed_gain[truth.in_focus].sum() >= 0.98 * max(light)


def test_observed_footprints_are_the_planted_ones_blurred() -> None:
    """The dense footprints have the right sum and width, and reproduce the movie."""
    spec = spec_of(*CELLS, Bleaching(tau_s=1), CellOptics(), Composite(), keep=("composite",), size=96)
    recording = simulate(spec)
    truth = recording.ground_truth
    whole = (truth.A_planted > 0).sum((1, 2)) > 0
    y = np.arange(96)
    checked = 0
    for planted, seen, sigma, gain, center in zip(
        truth.A_planted, truth.A_observed, truth.observed_sigma_px, truth.observed_gain, truth.centers_um, strict=True
    ):
        if np.abs(center[1:]).max() + 3 * sigma + 10 < 48:
            checked += 1
            assert seen.sum() == pytest.approx(gain * planted.sum(), rel=1e-4)
            before, after = (
                np.average((y - np.average(y, weights=image.sum(1))) ** 2, weights=image.sum(1))
                for image in (planted, seen)
            )
            assert after - before == pytest.approx(sigma**2, rel=0.2, abs=0.05)
    assert checked > 3
    assert whole.all()
    assert truth.bleaching is not None
    movie = np.einsum("uhw,ut->thw", truth.A_observed.astype(np.float64), truth.C * truth.bleaching)
    np.testing.assert_allclose(recording.stage("composite"), movie, rtol=1e-4, atol=1e-3)


# --- tissue and motion ------------------------------------------------------------------------------------------------


def test_neuropil_is_the_sum_of_its_components() -> None:
    spec = spec_of(*CELLS, Composite(), Neuropil(photons=7, population_coupling=0.4), keep=("composite", "neuropil"))
    recording = simulate(spec)
    truth = recording.ground_truth
    assert truth.neuropil_spatial is not None
    assert truth.neuropil_temporal is not None
    assert truth.neuropil_population is not None
    light = np.einsum("khw,kt->thw", truth.neuropil_spatial, truth.neuropil_temporal)
    added = recording.stage("neuropil").astype(float) - recording.stage("composite")
    np.testing.assert_allclose(added, light, rtol=1e-4, atol=1e-3)
    assert light.mean() == pytest.approx(7, rel=0.2)
    assert truth.neuropil_population.mean() == pytest.approx(1)


def test_neuropil_has_the_given_time_constant_and_fluctuation() -> None:
    step = Neuropil(fluctuation=0.1, temporal_tau_s=0.5, population_coupling=0, n_components=4)
    course = build_scene(spec_of(Composite(), step, frames=4000, size=8)).neuropil_temporal
    assert course is not None
    assert course.mean() == pytest.approx(1, abs=0.03)
    assert course.std(1).mean() == pytest.approx(0.1, rel=0.1)
    correlation = np.mean([np.corrcoef(row[:-10], row[10:])[0, 1] for row in course])  # 10 frames are one tau
    assert correlation == pytest.approx(math.exp(-1), abs=0.08)


def test_vessels_darken_and_overlap_is_the_fraction_of_a_cell_under_them() -> None:
    steps = (*CELLS, Composite(background_photons=10))
    keep = ("composite", "vasculature")
    vessels = Vasculature(n_vessels=2, absorption=0.7, blur_um=0)
    recording = simulate(spec_of(*steps, vessels, keep=keep))
    truth = recording.ground_truth
    assert truth.vessel_mask is not None
    assert truth.vessel_overlap is not None
    assert 0.02 < truth.vessel_mask.mean() < 0.9
    before, after = recording.stage("composite"), recording.stage("vasculature")
    np.testing.assert_allclose(after / before, np.where(truth.vessel_mask, 0.3, 1.0)[None].repeat(20, 0), rtol=1e-6)
    for image, overlap in zip(truth.A_planted, truth.vessel_overlap, strict=True):
        assert overlap == pytest.approx((image * truth.vessel_mask).sum() / image.sum(), rel=1e-5)
    bare = simulate(spec_of(*steps)).ground_truth
    clear, covered = truth.vessel_overlap == 0, truth.vessel_overlap > 0.99
    assert clear.any()
    np.testing.assert_array_equal(truth.snr[clear], bare.snr[clear])
    assert np.all(truth.snr[covered] < bare.snr[covered])


def test_whole_shifts_cut_the_canvas_exactly() -> None:
    path = tuple((float(dy), float(dx)) for dy, dx in [(0, 0), (3, -2), (-4, 4), (1, 0)])
    motion = BrainMotion(max_shift_um=4, trajectory_px=path)
    recording = simulate(spec_of(*CELLS, Composite(), motion, frames=4, keep=("composite", "brain_motion")))
    canvas, moved = recording.stage("composite"), recording.stage("brain_motion")
    np.testing.assert_array_equal(recording.ground_truth.shifts, path)
    assert canvas.shape == (4, 74, 74)
    for frame, (dy, dx) in enumerate(path):
        top, left = 5 - int(dy), 5 - int(dx)
        np.testing.assert_array_equal(moved[frame], canvas[frame, top : top + 64, left : left + 64])


def test_fractions_of_a_pixel_are_interpolated() -> None:
    motion = BrainMotion(max_shift_um=2, trajectory_px=((0.0, 0.0), (0.3, 0.0), (0.0, -0.25)))
    steps = (PlaceNeurons(), CellActivity(rate_quiet_hz=0, rate_active_hz=0), Composite(), motion)
    rest, down, left = simulate(spec_of(*steps, frames=3, keep=("brain_motion",))).stage("brain_motion")
    np.testing.assert_allclose(down[1:], 0.7 * rest[1:] + 0.3 * rest[:-1], rtol=1e-5)
    np.testing.assert_allclose(left[:, :-1], 0.75 * rest[:, :-1] + 0.25 * rest[:, 1:], rtol=1e-5)


def test_motion_stays_within_its_bound_and_starts_at_the_reference() -> None:
    motion = BrainMotion(max_shift_um=3, amplitude_um=2, locomotion_fraction=0.5)
    shifts = simulate(spec_of(Composite(), motion, frames=400, size=8)).ground_truth.shifts
    assert shifts is not None
    assert np.abs(shifts).max() == 3  # at 2 um some are cut
    np.testing.assert_array_equal(shifts[0], 0)
    whole = motion.model_copy(update={"subpixel": False})
    shifts = simulate(spec_of(Composite(), whole, frames=50, size=8)).ground_truth.shifts
    np.testing.assert_array_equal(shifts, np.rint(np.asarray(shifts)))


def test_motion_has_the_given_amplitude() -> None:
    motion = BrainMotion(max_shift_um=50, amplitude_um=2, locomotion_fraction=1, damping_ratio=0.5, frequency_hz=3)
    shifts = build_scene(spec_of(Composite(), motion, frames=4000, size=4)).shifts
    assert shifts is not None
    assert shifts[100:].std(0) == pytest.approx([2, 2], rel=0.1)


@pytest.mark.parametrize(
    ("path", "message"),
    [(((0.0, 0.0),), "has 1 shifts, the movie has 2 frames"), (((0.0, 0.0), (9.0, 0.0)), "shift of 9 pixels")],
)
def test_a_trajectory_that_does_not_fit_is_refused(path: tuple[tuple[float, float], ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        simulate(spec_of(Composite(), BrainMotion(max_shift_um=4, trajectory_px=path), frames=2))


def test_cells_in_the_margin_are_not_in_the_truth() -> None:
    spec = spec_of(*CELLS, Composite(), BrainMotion(max_shift_um=25))
    scene, truth = build_scene(spec), simulate(spec).ground_truth
    assert 0 < truth.n_units < scene.n_cells
    assert truth.A_planted.any((1, 2)).all()
    assert len(truth.C) == len(truth.centers_um) == len(truth.A_observed) == truth.n_units
    assert truth.planted.canvas_shape == (64 + 2 * 26,) * 2


# --- light ------------------------------------------------------------------------------------------------------------


def test_illumination_vignette_and_leakage_act_on_the_frame() -> None:
    steps = (
        Composite(background_photons=10),
        IlluminationProfile(edge=0.5),
        Vignette(edge=0.25, exponent=4, center_offset_y_px=3),
        Leakage(photons=2),
    )
    recording = simulate(spec_of(*steps, frames=2, size=33, keep=("leakage",)))
    truth = recording.ground_truth
    assert truth.illumination is not None
    assert truth.vignette is not None
    assert truth.leakage is not None
    expected = 10 * truth.illumination * truth.vignette + truth.leakage
    np.testing.assert_allclose(recording.stage("leakage"), [expected, expected], rtol=1e-6)
    assert truth.illumination[16, 16] == 1
    assert truth.illumination[0, 0] == pytest.approx(0.5)
    assert divmod(int(truth.vignette.argmax()), 33) == (19, 16)
    assert truth.leakage[16, 16] == 2
    flat_leak = simulate(spec_of(Composite(), Leakage(photons=2, profile="flat"), frames=2)).ground_truth.leakage
    np.testing.assert_array_equal(flat_leak, np.full((64, 64), 2.0))


# --- molecules --------------------------------------------------------------------------------------------------------


def molecule_spec(**values: Any) -> Spec:
    step = Molecules(**{"brightness_cv": 0.0, "off_s": 0.0, **values})
    return spec_of(step, Composite(), size=100, frames=40, pixel_size_um=0.1, fps=50.0, keep=("composite",))


def test_molecules_diffuse_with_the_given_coefficient() -> None:
    """The mean squared displacement has slope 4 D, and an offset because positions are means of the exposure."""
    truth = simulate(molecule_spec(density_per_um2=4, diffusion_um2_per_s=0.05)).ground_truth.molecules
    assert truth is not None

    def msd(lag: int) -> float:
        return float((np.diff(truth.positions_um[:, ::lag], axis=1) ** 2).sum(-1).mean())

    assert (msd(5) - msd(1)) / (4 * 4 / 50) == pytest.approx(0.05, rel=0.05)


def test_spots_lie_at_the_molecules_and_contain_their_photons() -> None:
    spec = molecule_spec(density_per_um2=0.01, photons_per_frame=1000, diffusion_um2_per_s=0.01)
    recording = simulate(spec.model_copy(update={"seed": 3}))
    truth, movie = recording.ground_truth.molecules, recording.stage("composite")
    assert truth is not None
    inside = np.all((truth.positions_um > 0.6) & (truth.positions_um < 9.4), axis=(1, 2))
    outside = np.all((truth.positions_um < -0.6) | (truth.positions_um > 10.6), axis=(1, 2))
    assert inside.sum() == 1
    assert (inside | outside).all()
    np.testing.assert_allclose(movie.sum((1, 2)), 1000, rtol=2e-4)
    y, x = (np.mgrid[:100, :100] + 0.5) * 0.1
    found = np.stack([(movie * y).sum((1, 2)), (movie * x).sum((1, 2))], 1) / 1000
    np.testing.assert_allclose(found, truth.positions_um[inside][0], atol=5e-3)
    width = (movie[0] * (x - found[0, 1]) ** 2).sum() / 1000
    assert math.sqrt(width) == pytest.approx(truth.sigma_um, rel=0.08)  # and the pixel's own width


def test_molecules_blink_and_bleach() -> None:
    blinking = simulate(molecule_spec(density_per_um2=3, on_s=0.1, off_s=0.3)).ground_truth.molecules
    assert blinking is not None
    assert (blinking.photons > 0).mean() == pytest.approx(0.25, abs=0.03)
    fading = simulate(molecule_spec(density_per_um2=3, bleaching_s=0.2)).ground_truth.molecules
    assert fading is not None
    lit = fading.photons > 0
    assert np.all(np.diff(lit.astype(int), axis=1) <= 0)  # no way back
    assert lit[:, 10].mean() == pytest.approx(math.exp(-1), abs=0.07)


# --- truth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "baseline", "gain", "read", "snr"),
    [
        (10, 25, 1, 0, 2),
        (10, 16, 1, 3, 2),
        (10, 50, 0.5, 0, 1),
        (10, -5, 1, 2, 5),
        (1, 0, 1, 0, math.inf),
        (0, 0, 1, 0, 0),
        (1, -1, 1, 0, math.inf),
    ],
)
def test_detection_snr(peak: float, baseline: float, gain: float, read: float, snr: float) -> None:
    assert detection_snr(peak, baseline, gain, read) == snr


def test_detection_snr_of_arrays() -> None:
    found = detection_snr(np.array([1.0, 0.0, 4.0]), np.array([0.0, 0.0, 4.0]), 1.0, 0.0)
    np.testing.assert_array_equal(found, [np.inf, 0, 2])


def test_detectable_is_in_focus_and_three_sigma(miniscope: Recording) -> None:
    truth = miniscope.ground_truth
    np.testing.assert_array_equal(truth.detectable, truth.in_focus & (truth.snr >= 3))
    assert 0 < truth.detectable.sum() < truth.n_units
    found = truth.detectable_subset()
    assert found.n_units == truth.detectable.sum()
    assert found.detectable.all()
    np.testing.assert_array_equal(found.A_observed, truth.A_observed[truth.detectable])
    np.testing.assert_array_equal(found.C, truth.C[truth.detectable])
    np.testing.assert_array_equal(found.shifts, truth.shifts)
    with pytest.raises(InvalidMovieError, match="mask has shape"):
        truth.subset(np.ones(3, bool))


def test_snr_is_that_of_the_light_at_the_cell() -> None:
    """Compared with the noise-free movie, at the brightest pixel of a cell."""
    sensor = Sensor(quantum_efficiency=0.5, read_noise_e=2, excess_noise_factor=1.5)
    spec = spec_of(*CELLS, Composite(background_photons=20), IlluminationProfile(edge=0.3), sensor)
    truth = simulate(spec).ground_truth
    assert truth.illumination is not None
    rest = np.einsum("uhw,u->hw", truth.A_observed, truth.amplitude_per_cell) + 20
    for unit in range(truth.n_units):
        seen = truth.A_observed[unit] * truth.illumination
        at = np.unravel_index(seen.argmax(), seen.shape)
        peak = (truth.C[unit].max() - truth.amplitude_per_cell[unit]) * seen[at]
        electrons = 0.5 * rest[at] * truth.illumination[at]
        assert truth.snr[unit] == pytest.approx(0.5 * peak / math.sqrt(1.5 * electrons + 4), rel=1e-4)


def test_fields_of_steps_that_are_not_in_the_spec_are_none() -> None:
    truth = simulate(spec_of(Composite(background_photons=1), frames=2)).ground_truth
    present = set(truth.arrays())
    assert present == {
        "observed_sigma_px",
        "observed_gain",
        "C",
        "S",
        "centers_um",
        "amplitude_per_cell",
        "in_focus",
        "detectable",
        "snr",
    }
    assert truth.focal_depth_um is None
    assert truth.molecules is None
    assert truth.A_planted.shape == truth.A_observed.shape == (0, 64, 64)


def test_truth_and_recording_are_frozen_and_checked(miniscope: Recording) -> None:
    truth = miniscope.ground_truth
    for array in (truth.C, truth.A_planted, truth.A_observed, truth.planted.data, miniscope.observed):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(InvalidMovieError, match="C has shape"):
        replace(truth, C=truth.C[:, 1:])
    with pytest.raises(InvalidMovieError, match="observed has shape"):
        replace(miniscope, observed=miniscope.observed[1:])
    with pytest.raises(InvalidMovieError, match="unsigned"):
        replace(miniscope, observed=miniscope.observed.astype(np.float32))
    assert truth.A_observed is truth.A_observed  # made once


def test_stages_are_kept_on_request(miniscope: Recording) -> None:
    assert list(miniscope.snapshots) == ["neuropil", "brain_motion", "leakage"]
    assert miniscope.stage("observed") is miniscope.observed
    assert miniscope.stage("leakage").dtype == np.float32
    assert miniscope.stage("leakage").shape == miniscope.observed.shape
    with pytest.raises(KeyError, match="no stage 'vignette' .* neuropil, brain_motion, leakage, observed") as error:
        miniscope.stage("vignette")
    assert not str(error.value).startswith("'")


def test_counts_are_the_kept_photons_with_noise(miniscope: Recording) -> None:
    assert isinstance(miniscope.spec, Spec)
    sensor = miniscope.spec.sensor
    expected = miniscope.stage("leakage") * sensor.quantum_efficiency * sensor.conversion_gain_adu + sensor.pedestal_adu
    model = miniscope.calibration
    residual = (miniscope.observed - expected) / np.sqrt(model.conversion_gain * (expected - model.zero_level))
    assert abs(residual.mean()) < 0.02
    assert residual.std() == pytest.approx(1, abs=0.02)


# --- the spec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_specs_survive_json_and_hash(name: str) -> None:
    spec = presets.PRESETS[name](seed=3)
    again = Spec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.cache_key() == spec.cache_key()
    assert presets.PRESETS[name](seed=4).cache_key() != spec.cache_key()


def test_cache_key_does_not_depend_on_the_order_of_keys() -> None:
    spec = Spec(steps=(Composite(background_photons=1), Sensor()))
    assert spec.cache_key() == "3eb5f8eadc60957c7a2f2702b943a407a48a1bf31a1790a02e09c1b0474b6d3a"
    turned = json.dumps(dict(reversed(json.loads(spec.to_json()).items())))
    assert Spec.from_json(turned).cache_key() == spec.cache_key()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, "sede"),
        ({"seed": -1}, "seed"),
        ({"acquisition": {"heigth_px": 4}}, "heigth_px"),
        ({"acquisition": {"fps": math.nan}}, "finite"),
        ({"steps": [{"kind": "composite", "backgrond": 1}, {"kind": "sensor"}]}, "backgrond"),
        ({"steps": [{"kind": "composite"}, {"kind": "sensr"}]}, "sensr"),
        ({"steps": [{"kind": "sensor"}, {"kind": "composite"}]}, "each comes at most once, in this order"),
        ({"steps": [{"kind": "composite"}, {"kind": "composite"}, {"kind": "sensor"}]}, "at most once"),
        ({"steps": [{"kind": "composite"}]}, "'sensor' is needed"),
        ({"steps": [{"kind": "bleaching"}, {"kind": "composite"}, {"kind": "sensor"}]}, "needs a step 'place_neurons'"),
        ({"steps": [{"kind": "composite"}, {"kind": "sensor", "excess_noise_factor": 3}]}, "excess_noise_factor"),
        ({"output": {"snapshots": ["leakage"]}}, "has the stages composite"),
        ({"model_version": 2}, "model_version"),
    ],
)
def test_invalid_specs_are_refused(change: dict[str, Any], message: str) -> None:
    values = {"steps": [{"kind": "composite"}, {"kind": "sensor"}], **change}
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(values)
    with pytest.raises(ConfigurationError, match="Spec.from_json"):
        Spec.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        (PlaceNeurons, {"depth_min_um": 5, "depth_max_um": 4}, "depth_max_um is 4"),
        (CellActivity, {"tau_rise_s": 1, "tau_decay_s": 1}, "tau_rise_s is 1"),
        (CellOptics, {"numerical_aperture": 1.4}, "numerical_aperture is 1.4"),
        (CellOptics, {"focal_depth_um": -1}, "focal_depth_um"),
        (CellOptics, {"depth_of_field_um": 0}, "depth_of_field_um"),
    ],
)
def test_values_that_contradict_each_other_are_refused(step: Any, values: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        step(**values)


def test_nothing_in_a_spec_changes() -> None:
    spec = presets.photon_counting()
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 5
    with pytest.raises(ValidationError, match="frozen"):
        spec.sensor.bit_depth = 9


def test_finalize_needs_the_scene_of_its_spec() -> None:
    spec = spec_of(Composite(background_photons=2), frames=2)
    scene = build_scene(spec)
    np.testing.assert_array_equal(finalize(scene, spec).observed, simulate(spec).observed)
    with pytest.raises(ConfigurationError, match="build the scene from this spec"):
        finalize(scene, spec_of(Composite(), frames=3))
    keeping = spec_of(Composite(), Leakage(), frames=2, keep=("leakage",))
    with pytest.raises(ConfigurationError, match="has no stage leakage; it has composite"):
        finalize(scene, keeping)


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one_photon_miniscope", "two_photon_raster", "photon_counting"])
def test_calibration_finds_the_sensors_gain(name: str) -> None:
    """The estimator sees neither the spec nor the truth."""
    recording = simulate(presets.PRESETS[name](seed=2, height_px=128, width_px=128, n_frames=80))
    found, true = calibrate(recording.observed), recording.calibration
    assert found.reliable, found.reason
    assert found.conversion_gain == pytest.approx(true.conversion_gain, rel=0.05)


def test_photon_counting_has_a_tenth_of_a_photon_in_dark_regions() -> None:
    counts = simulate(presets.photon_counting(height_px=96, width_px=96, n_frames=100)).observed
    assert 0.05 < np.percentile(counts.mean(0), 10) < 0.2


def test_the_simulation_needs_no_database_and_no_plotting_library() -> None:
    """And importing the package imports none of its dependencies."""
    code = (
        "import sys, dj_photon_codecs; assert 'pydantic' not in sys.modules and 'numpy' not in sys.modules\n"
        "import dj_photon_codecs.simulation\n"
        "assert not {'datajoint', 'matplotlib', 'av', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
