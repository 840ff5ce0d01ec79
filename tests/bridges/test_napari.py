"""The napari plugin: its manifest, what its reader declines, and the layers that it gives."""

from __future__ import annotations

import json
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

import dj_photon_codecs
from dj_photon_codecs import Calibration, PhotonArray, generalized_anscombe, write_movie
from dj_photon_codecs.bridges.napari import get_reader, layers, read_layers

RECORDING = Path(__file__).parents[2] / "examples" / "data" / "fmi_two_photon.tif"
NOISE = Calibration.given(20, 100)
COUNTS = np.round(100 + 20 * np.random.default_rng(1).poisson(8, (24, 16, 20))).astype(np.uint16)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> PhotonArray:
    """A two-photon recording, stored with the noise model that was measured on it."""
    return write_movie(tmp_path_factory.mktemp("recording") / "fmi.zarr", RECORDING)


def folder_of(movie: PhotonArray) -> str:
    return movie._location.root


def test_the_manifest_names_what_is_there() -> None:
    """npe2 checks its schema where it is installed: ``test_napari_program.py``."""
    [entry] = entry_points(group="napari.manifest", name="dj-photon-codecs")
    package, _, file = entry.value.partition(":")
    manifest = yaml.safe_load(Path(dj_photon_codecs.__file__).with_name(file).read_text(encoding="utf-8"))
    [command], [reader] = manifest["contributions"]["commands"], manifest["contributions"]["readers"]
    assert (package, manifest["name"]) == ("dj_photon_codecs", "dj-photon-codecs")
    assert reader["command"] == command["id"]
    assert pkgutil.resolve_name(command["python_name"]) is get_reader


def test_the_layers_of_a_real_recording(recording: PhotonArray) -> None:
    (unit, hidden, _), (counts, shown, kind) = layers(recording, frame_rate=30, pixel_size=(0.5, 0.4))
    assert kind == "image"
    np.testing.assert_array_equal(counts[50], recording[50])
    np.testing.assert_array_equal(unit[50], recording.stabilized[50])
    assert shown["scale"] == pytest.approx([1 / 30, 0.5, 0.4])
    assert shown["axis_labels"] == ["t", "y", "x"]
    assert shown["units"] == ["second", "micrometer", "micrometer"]
    assert hidden["visible"] is False
    assert "visible" not in shown
    gain, zero = recording.calibration.conversion_gain, recording.calibration.zero_level
    black, white = shown["contrast_limits"]
    assert black == zero
    assert white == np.percentile(recording[50], 99.7)
    assert hidden["contrast_limits"] == pytest.approx([generalized_anscombe(n, gain, zero) for n in (black, white)])


def test_unknown_noise_has_no_layer_of_unit_noise(tmp_path: Path) -> None:
    [(_, options, _)] = layers(write_movie(tmp_path / "m.zarr", COUNTS, profile="lossless"))
    assert options["contrast_limits"] == tuple(np.percentile(COUNTS[12], (1, 99.7)))
    assert options["units"] == ["pixel"] * 3
    assert options["scale"] == [1, 1, 1]


def test_a_movie_that_lost_its_middle_frame_is_shown(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "m.zarr", COUNTS, calibration=NOISE)
    for path in (tmp_path / "m.zarr" / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    _, (_, options, _) = layers(movie)
    assert options["contrast_limits"] == (100, 101)


def test_without_napari_the_error_names_the_extra(recording: PhotonArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(ImportError, match=r"dj-photon-codecs\[napari\]"):
        recording.to_napari()


def test_the_reader_takes_movies_of_this_package(tmp_path: Path) -> None:
    for zarr_format in (2, 3):
        write_movie(tmp_path / f"{zarr_format}.zarr", COUNTS, calibration=NOISE, zarr_format=zarr_format)
    write_movie("memory://napari/movie.zarr", COUNTS, calibration=NOISE)
    paths = [str(tmp_path / "2.zarr"), str(tmp_path / "3.zarr"), "memory://napari/movie.zarr"]
    for path in (*paths, paths):
        reader = get_reader(path)
        assert reader is read_layers
        assert len(reader(path)) == (6 if path is paths else 2)


def test_the_reader_declines_everything_else(tmp_path: Path) -> None:
    ours = write_movie(tmp_path / "ours.zarr", COUNTS, calibration=NOISE)
    zarr.create_array(tmp_path / "plain.zarr", data=COUNTS)
    zarr.create_group(tmp_path / "group.zarr")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "damaged.zarr").mkdir()
    (tmp_path / "damaged.zarr" / "zarr.json").write_text("{")
    (tmp_path / "odd.zarr").mkdir()
    (tmp_path / "odd.zarr" / "zarr.json").write_text(json.dumps({"attributes": ["dj_photon"]}))
    (tmp_path / "file.zarr").write_text("a file")
    names = ("plain", "group", "empty", "damaged", "odd", "file", "missing")
    for path in [*(str(tmp_path / f"{name}.zarr") for name in names), str(RECORDING), "unknown://movie.zarr"]:
        assert get_reader(path) is None, path
        assert get_reader([folder_of(ours), path]) is None, path
