"""Recordings on disk and as videos: whole or not there, checked, and the same streamed as at once."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from dj_photon_codecs import Calibration, open_movie, write_movie
from dj_photon_codecs._typing import AnyArray
from dj_photon_codecs.errors import ConfigurationError, FormatError, PhotonCodecError
from dj_photon_codecs.simulation import (
    Acquisition,
    MissingStageError,
    Output,
    Recording,
    Spec,
    pipeline,
    presets,
    simulate,
    simulate_video,
    video,
)
from dj_photon_codecs.simulation import (
    recording as recording_module,
)
from dj_photon_codecs.simulation.steps import Composite, Sensor

CUT = Path(__file__).parents[1] / "data" / "minisim" / "cut.zarr"


@pytest.fixture(scope="module")
def recording() -> Recording:
    spec = presets.one_photon_miniscope(height_px=33, width_px=40, n_frames=12)
    return simulate(spec.model_copy(update={"output": Output(snapshots=("leakage",))}))


@pytest.fixture(scope="module")
def saved(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recording.save(tmp_path_factory.mktemp("saved") / "recording")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of a saved recording, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def assert_same_truth(a: Recording, b: Recording) -> None:
    assert a.ground_truth.arrays().keys() == b.ground_truth.arrays().keys()
    for name, array in a.ground_truth.arrays().items():
        np.testing.assert_array_equal(array, b.ground_truth.arrays()[name], err_msg=name)
        assert array.dtype == b.ground_truth.arrays()[name].dtype
    for side in ("A_planted", "A_observed"):
        np.testing.assert_array_equal(getattr(a.ground_truth, side), getattr(b.ground_truth, side))
    assert a.ground_truth.focal_depth_um == b.ground_truth.focal_depth_um


# --- save and load ----------------------------------------------------------------------------------------------------


def test_a_recording_comes_back(recording: Recording, saved: Path) -> None:
    again = Recording.load(saved)
    assert again.spec == recording.spec
    assert again.calibration == recording.calibration
    assert_same_truth(recording, again)
    np.testing.assert_array_equal(again.stage("leakage"), recording.stage("leakage"))


def test_counts_come_back_within_the_bound_with_the_sensors_own_noise_model(recording: Recording, saved: Path) -> None:
    """Invariant 1, at the step of the default profile."""
    again = Recording.load(saved)
    x, y = (movie.astype(np.float64) for movie in (recording.observed, again.observed))
    model = open_movie(str(saved / "observed")).calibration
    assert model == recording.calibration
    assert again.observed.dtype == recording.observed.dtype
    photons = np.maximum((np.maximum(x, y) - model.zero_level) / model.conversion_gain, 0)
    sigma = model.conversion_gain * np.sqrt(photons + 3 / 8)
    assert (x != y).any()
    assert np.all(np.abs(x - y) <= 0.25 * sigma + 0.5)


def test_lossless_counts_come_back_as_they_were(recording: Recording, tmp_path: Path) -> None:
    again = Recording.load(recording.save(tmp_path / "exact", profile="lossless"))
    np.testing.assert_array_equal(again.observed, recording.observed)
    assert again.calibration == recording.calibration


def test_molecules_come_back(tmp_path: Path) -> None:
    recording = simulate(presets.single_molecule_tirf(height_px=24, width_px=24, n_frames=5))
    again = Recording.load(recording.save(tmp_path / "tirf")).ground_truth
    before, after = recording.ground_truth.molecules, again.molecules
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.positions_um, after.positions_um)
    np.testing.assert_array_equal(before.photons, after.photons)
    assert (before.sigma_um, before.diffusion_um2_per_s) == (after.sigma_um, after.diffusion_um2_per_s)
    assert again.n_units == 0


def test_nothing_is_overwritten(recording: Recording, saved: Path) -> None:
    with pytest.raises(ConfigurationError, match="something is already at"):
        recording.save(saved)


@pytest.mark.parametrize("killed", [False, True], ids=["raises", "killed"])
@pytest.mark.parametrize("where", ["write_movie", "create_array", "create_group", "rename"])
def test_a_save_that_fails_leaves_nothing_that_loads(
    where: str, killed: bool, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6, wherever it fails. A killed process cannot clean up either."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    home: Any = {"write_movie": recording_module, "rename": Path}.get(where, zarr)
    monkeypatch.setattr(home, where, fail)
    if killed:
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(OSError, match="disk full"):
        recording.save(tmp_path / "recording")
    monkeypatch.undo()
    assert not (tmp_path / "recording").exists()
    left = list(tmp_path.iterdir())
    assert len(left) == (1 if killed else 0)
    with pytest.raises(FormatError, match="no complete recording"):
        Recording.load(tmp_path / "recording")
    if killed and where != "rename":  # complete by then, only not in its place
        with pytest.raises(FormatError, match="no complete recording"):
            Recording.load(left[0])
    recording.save(tmp_path / "recording")


def test_an_edited_spec_is_refused(copy: Path) -> None:
    document = json.loads((copy / "spec.json").read_text())
    document["acquisition"]["fps"] = 21.0
    (copy / "spec.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="spec.json .* was edited"):
        Recording.load(copy)


def test_whitespace_does_not_change_a_spec(copy: Path) -> None:
    (copy / "spec.json").write_text(json.dumps(json.loads((copy / "spec.json").read_text())))
    assert isinstance(Recording.load(copy).spec, Spec)


def test_a_newer_format_is_refused(copy: Path) -> None:
    text = (copy / "zarr.json").read_text()
    assert '"format_version": 1' in text
    (copy / "zarr.json").write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(FormatError, match="format version 2, this version of dj-photon-codecs reads 1"):
        Recording.load(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ground_truth/C", "ground_truth/C .* is not what was saved"),
        ("snapshots/leakage", "snapshots/leakage .* is not what was saved"),
        ("observed", "the recording at .* cannot be read.*MissingChunkError"),
    ],
)
def test_a_missing_chunk_is_not_read_as_zeros(name: str, message: str, copy: Path) -> None:
    """Invariant 5; Zarr alone would return the fill value."""
    chunks = [path for path in (copy / name / "c").rglob("*") if path.is_file()]
    assert chunks
    chunks[0].unlink()
    with pytest.raises(FormatError, match=message):
        Recording.load(copy)


@pytest.mark.parametrize("name", ["spec.json", "ground_truth/S/zarr.json"])
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(FormatError, match=name.removesuffix("/zarr.json")):
        Recording.load(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fov_shape", None, "TypeError"),
        ("n_frames", 13, "shape"),
        ("sha256", {"../../elsewhere": ""}, "names arrays that format version 1 does not have"),
        ("calibration", {}, "Calibration"),
    ],
)
def test_a_damaged_document_is_a_format_error(key: str, value: Any, message: str, copy: Path) -> None:
    document = json.loads((copy / "zarr.json").read_text())
    document["attributes"]["dj_photon_simulation"][key] = value
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=message):
        Recording.load(copy)
    del document["attributes"]["dj_photon_simulation"][key]
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match=f"KeyError: '{key}'"):
        Recording.load(copy)


def test_recordings_pickle_and_stay_frozen(recording: Recording) -> None:
    for original in (recording, Recording.load(CUT)):
        again = pickle.loads(pickle.dumps(original))
        np.testing.assert_array_equal(again.observed, original.observed)
        assert_same_truth(original, again)
        assert again.spec == original.spec
        assert list(again.snapshots) == list(original.snapshots)
        for array in (again.observed, again.ground_truth.C, again.ground_truth.planted.offsets):
            assert not array.flags.writeable


def test_other_zarr_groups_are_refused(tmp_path: Path, recording: Recording) -> None:
    write_movie(str(tmp_path / "movie"), recording.photon_movie(), progress=False)
    with pytest.raises(FormatError, match="not a recording"):
        Recording.load(tmp_path / "movie")
    with pytest.raises(FormatError, match="no complete recording"):
        Recording.load(tmp_path)


def test_photon_movie_is_ready_to_write(recording: Recording, tmp_path: Path) -> None:
    movie = recording.photon_movie(step=1.0)
    handle = write_movie(str(tmp_path / "movie"), movie, progress=False)
    assert handle.calibration == recording.calibration
    assert handle.calibration.conversion_gain == 2.5
    assert handle.calibration.zero_level == 60 - 2.5 * 2.5**2
    assert handle.step == 1.0


def test_a_missing_stage_is_an_error_of_the_package(recording: Recording) -> None:
    with pytest.raises(MissingStageError) as caught:
        recording.stage("composite")
    assert isinstance(caught.value, PhotonCodecError)
    assert isinstance(caught.value, KeyError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --- recordings of minisim --------------------------------------------------------------------------------------------


def test_a_recording_of_minisim_opens() -> None:
    recording = Recording.load(CUT)
    truth = recording.ground_truth
    assert recording.observed.shape == (6, 32, 32)
    assert recording.observed.dtype == np.uint16
    assert 1 <= recording.observed.min() < recording.observed.max() < 4096
    assert truth.n_units == 5
    assert 0 < truth.detectable.sum() < 5
    assert truth.planted.canvas_shape == (160, 160)
    assert truth.planted.fov_offset == (56, 60)
    assert truth.shifts is not None
    assert truth.neuropil_spatial is not None
    assert truth.neuropil_spatial.shape == (3, 32, 32)
    assert truth.vessel_mask is None
    assert truth.focal_depth_um == pytest.approx(101.46995)
    assert recording.spec["acquisition"]["fps"] == 20  # type: ignore[index]
    assert recording.calibration.conversion_gain == 2.0
    assert recording.calibration.zero_level == -8.5


def test_footprints_of_minisim_lie_at_their_centers() -> None:
    truth = Recording.load(CUT).ground_truth
    y, x = np.mgrid[:32, :32] + 0.5
    inside = truth.A_planted.sum((1, 2)) == [image.sum() for _, _, image in truth.planted.patches()]
    assert inside.any()
    for image, (_, cy, cx) in zip(truth.A_planted[inside], truth.centers_um[inside], strict=True):
        assert (image * y).sum() / image.sum() - 16 == pytest.approx(cy, abs=1.5)
        assert (image * x).sum() / image.sum() - 16 == pytest.approx(cx, abs=1.5)
    assert truth.A_observed.shape == (5, 32, 32)
    assert np.all(truth.A_observed.max((1, 2)) < truth.A_planted.max((1, 2)))


def test_a_recording_of_minisim_can_be_saved_in_this_packages_layout(tmp_path: Path) -> None:
    recording = Recording.load(CUT)
    again = Recording.load(recording.save(tmp_path / "kept", profile="lossless"))
    np.testing.assert_array_equal(again.observed, recording.observed)
    assert_same_truth(recording, again)
    assert dict(again.spec) == dict(recording.spec)
    assert again.calibration == recording.calibration


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("ground_truth/detectable", "no ground_truth/detectable"),
        ("observed", "observed"),
        ("spec.json", "spec.json"),
        ("ground_truth/planted/offsets", "offsets"),
    ],
)
def test_missing_parts_of_a_recording_of_minisim_are_named(spoil: str, message: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CUT, tmp_path / "copy"))
    target = copy / spoil
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    with pytest.raises(FormatError, match=message):
        Recording.load(copy)


def test_another_version_of_minisim_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(CUT, tmp_path / "copy"))
    (copy / ".zattrs").write_text('{"format_version": 3}')
    with pytest.raises(FormatError, match="format_version 3"):
        Recording.load(copy)


def test_parts_that_do_not_fit_together_are_a_format_error(tmp_path: Path) -> None:
    """A movie with one frame less than its truth, and a spec that is not a mapping."""
    kept = Recording.load(CUT).save(tmp_path / "kept")
    counts = open_movie(kept / "observed")[:-1]
    shutil.rmtree(kept / "observed")
    write_movie(kept / "observed", counts, calibration=Calibration.given(1.0, 0.0))
    with pytest.raises(FormatError, match="do not fit together: InvalidMovieError: Recording: observed has shape"):
        Recording.load(kept)

    other = Recording.load(CUT).save(tmp_path / "other")
    (other / "spec.json").write_text("[1]", encoding="utf-8")
    document = json.loads((other / "zarr.json").read_text(encoding="utf-8"))
    document["attributes"]["dj_photon_simulation"]["spec_cache_key"] = hashlib.sha256(b"[1]").hexdigest()
    (other / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(FormatError, match="do not fit together"):
        Recording.load(other)


# --- videos -----------------------------------------------------------------------------------------------------------


def frames_of(path: Path) -> AnyArray:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def test_a_video_shows_the_counts(recording: Recording, tmp_path: Path) -> None:
    path = recording.write_video(tmp_path / "movie.mp4", vmin=60, vmax=400, progress=False)
    frames = frames_of(path)
    assert frames.shape == (12, 34, 40)  # to even sides
    shown = np.clip((recording.observed - 60.0) * 255 / 340, 0, 255)
    assert abs(frames[:, :33].astype(float) - shown).mean() < 6
    assert np.corrcoef(frames[:, :33].ravel(), shown.ravel())[0, 1] > 0.98


def test_a_streamed_video_equals_that_of_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder gets the same frames; its output may differ slightly from run to run."""
    spec = presets.photon_counting(height_px=32, width_px=32, n_frames=20)
    encoded: list[tuple[Any, ...]] = []
    encode = video.write_blocks

    def note(path: Path, blocks: Iterable[AnyArray], frame: Any, shape: Any, *options: Any) -> Path:
        counts = list(blocks)
        looks = [video.white_level(frame, shape[0]), np.asarray(frame(7)).tolist()]
        encoded.append((np.concatenate(counts), looks, tuple(shape), options))
        return encode(path, counts, frame, shape, *options)

    for module in ("recording", "pipeline"):
        monkeypatch.setattr(f"dj_photon_codecs.simulation.{module}.write_blocks", note)
    monkeypatch.setattr(pipeline, "_BLOCK_PIXELS", 3 * 42 * 42)
    whole = frames_of(simulate(spec).write_video(tmp_path / "whole.mkv", progress=False))
    streamed = frames_of(simulate_video(spec, tmp_path / "streamed.mkv", progress=False))
    np.testing.assert_array_equal(encoded[0][0], encoded[1][0])
    assert encoded[0][1:] == encoded[1][1:]
    assert whole.shape == streamed.shape
    assert abs(whole.astype(float) - streamed).mean() < 5


@pytest.mark.slow
def test_a_streamed_video_never_holds_the_movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 7."""
    monkeypatch.setattr(pipeline, "_BLOCK_PIXELS", 4 * 64 * 64)
    acquisition = Acquisition(height_px=64, width_px=64, n_frames=700)
    spec = Spec(acquisition=acquisition, steps=(Composite(background_photons=2), Sensor()))
    movie = 700 * 64 * 64 * 2
    warm = spec.model_copy(update={"acquisition": Acquisition(n_frames=2)})
    simulate_video(warm, tmp_path / "warm.mp4", progress=False)
    tracemalloc.start()
    try:
        simulate_video(spec, tmp_path / "long.mp4", vmax=8, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < movie / 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "movie.gif"}, "must end in one of .mp4"),
        ({"fps": 0}, "fps is 0"),
        ({"vmin": 5, "vmax": 5}, "vmax is 5, must be above vmin=5"),
    ],
)
def test_videos_refuse_invalid_options(
    values: dict[str, Any], message: str, recording: Recording, tmp_path: Path
) -> None:
    values = {"path": "movie.mp4", "progress": False, **values}
    with pytest.raises(ConfigurationError, match=message):
        recording.write_video(tmp_path / values.pop("path"), **values)


def test_the_cut_is_as_it_was_made() -> None:
    """Data of another program, never to be edited."""
    digest = hashlib.sha256()
    for path in sorted(path for path in CUT.rglob("*") if path.is_file()):
        digest.update(path.relative_to(CUT).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == "fc9ae8daa775aa1db39274baa6748671754af1c7696819bfcdd429ba1c281eb4"
