"""The plugin in napari itself, where it is installed; it is too large for the usual environment.

Run in an environment with napari, pyside6 and pytest-qt, with OpenGL (Qt's "offscreen" has none, Xvfb has):

    xvfb-run -a pytest -c /dev/null --noconftest -p no:npe2 tests/bridges/test_napari_program.py

npe2's plugin for pytest warns when it is imported, which is an error with the options of this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dj_photon_codecs
from dj_photon_codecs import Calibration, PhotonArray, write_movie

napari: Any = pytest.importorskip("napari", reason="napari is not installed")
npe2: Any = pytest.importorskip("npe2", reason="npe2 comes with napari")

NOISE = Calibration.given(20, 100)
COUNTS = np.round(100 + 20 * np.random.default_rng(1).poisson(8, (24, 16, 20))).astype(np.uint16)


@pytest.fixture
def movies(tmp_path: Path) -> list[PhotonArray]:
    return [write_movie(tmp_path / f"{name}.zarr", COUNTS + 1, calibration=NOISE) for name in ("one", "two")]


@pytest.fixture
def manifest() -> Any:
    return npe2.PluginManifest.from_file(Path(dj_photon_codecs.__file__).with_name("napari.yaml"))


def test_npe2_accepts_the_manifest_and_chooses_the_reader_by_path(manifest: Any, tmp_path: Path) -> None:
    manifest.validate_imports()
    assert npe2.PluginManifest.from_distribution("dj-photon-codecs").name == manifest.name
    plugins = npe2.PluginManager()
    plugins.register(manifest)
    (tmp_path / "folder.zarr").mkdir()
    for path in (tmp_path / "folder.zarr", f"{tmp_path}/folder.zarr/", "s3://bucket/movie.zarr"):
        assert [reader.plugin_name for reader in plugins.iter_compatible_readers(str(path))] == [manifest.name], path
    assert list(plugins.iter_compatible_readers("movie.tif")) == []  # of files, napari does not ask this plugin


def test_napari_opens_several_movies(make_napari_viewer: Any, manifest: Any, movies: list[PhotonArray]) -> None:
    plugins = npe2.PluginManager.instance()  # an empty one, by napari's fixture
    plugins.register(manifest)
    viewer = make_napari_viewer()
    viewer.open([movie._location.root for movie in movies], plugin=manifest.name)
    assert [layer.name for layer in viewer.layers] == [
        "one.zarr (unit noise)",
        "one.zarr",
        "two.zarr (unit noise)",
        "two.zarr",
    ]
    assert [layer.visible for layer in viewer.layers] == [False, True] * 2
    viewer.dims.set_current_step(0, 17)
    np.testing.assert_array_equal(viewer.layers[1]._slice.image.raw, movies[0][17])


def test_a_handle_shows_itself_with_its_scale(make_napari_viewer: Any, movies: list[PhotonArray]) -> None:
    viewer = make_napari_viewer()
    assert movies[0].to_napari(viewer, frame_rate=20, pixel_size=0.5) is viewer
    unit_noise, counts = viewer.layers
    np.testing.assert_allclose(counts.scale, [0.05, 0.5, 0.5])
    assert [str(unit) for unit in counts.units] == ["second", "micrometer", "micrometer"]
    assert counts.axis_labels == unit_noise.axis_labels == ("t", "y", "x")
    assert counts.data is movies[0]
    assert viewer.layers.selection.active is counts
    assert viewer.screenshot(canvas_only=True).std() > 0
