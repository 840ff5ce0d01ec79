"""Objects of other libraries are sources as they are, and microscopes' files are read by way of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import InvalidMovieError, SourceError, open_source, write_movie
from dj_photon_codecs.sources import as_source

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
HYPER = np.random.default_rng(1).poisson(20, size=(5, 2, 3, 16, 20)).astype(np.uint16)  # TCZYX


def test_an_extractor_of_roiextractors_is_a_source(tmp_path: Path) -> None:
    testing = pytest.importorskip("roiextractors.testing")
    extractor = testing.generate_dummy_imaging_extractor(
        num_samples=12, num_rows=16, num_columns=20, sampling_frequency=25.0, dtype="uint16"
    )
    source, counts = as_source(extractor), extractor.get_series(0, 12)
    assert source.metadata["TimeIncrement"] == 0.04
    np.testing.assert_array_equal(source.read(3, 8), counts[3:8])
    stored = write_movie(tmp_path / "m", extractor, profile="lossless")
    np.testing.assert_array_equal(stored[:], counts)


@pytest.mark.parametrize("old", [False, True])
def test_an_extractor_of_volumes_has_its_planes_behind_the_time(monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """Volumes come as (time, height, width, plane) there."""
    module = SimpleNamespace()
    volumes = HYPER[:, 0]

    class ImagingExtractor:
        is_volumetric = True

        def get_dtype(self) -> Any:
            return volumes.dtype

        def get_sampling_frequency(self) -> float:
            return 5.0

        def get_num_planes(self) -> int:
            return 3

        def _read(self, start: int, stop: int) -> Any:
            return np.moveaxis(volumes[start:stop], 1, -1)

        def _length(self) -> int:
            return len(volumes)

        def _image(self) -> tuple[int, int]:
            return (16, 20)

    names = (
        ("get_video", "get_num_frames", "get_frame_shape")
        if old
        else ("get_series", "get_num_samples", "get_image_shape")
    )
    for name, method in zip(names, ("_read", "_length", "_image"), strict=True):
        setattr(ImagingExtractor, name, getattr(ImagingExtractor, method))
    ImagingExtractor.__module__ = "roiextractors.imagingextractor"
    module.extractor = type("Made", (ImagingExtractor,), {"__module__": "lab"})()
    source = as_source(module.extractor)
    assert source.shape == (5, 3, 16, 20)
    np.testing.assert_array_equal(source.read(1, 4), volumes[1:4])


def bio_image(path: Path, axes: str) -> Any:
    bioio = pytest.importorskip("bioio")
    tiff = pytest.importorskip("bioio_ome_tiff")
    kept = [letter in axes for letter in "TCZYX"]
    counts = HYPER[tuple(slice(None) if keep else 0 for keep in kept)]
    tifffile.imwrite(
        path,
        counts,
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": axes,
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "Channel": {"Name": ["a", "b"][: 1 + kept[1]]},
        },
    )
    return bioio.BioImage(path, reader=tiff.Reader)


def test_an_extractor_that_gives_something_else_is_told() -> None:
    """As one of roiextractors 0.10 does for arrays of three axes."""
    roiextractors = pytest.importorskip("roiextractors")
    extractor = roiextractors.NumpyImagingExtractor(COUNTS, sampling_frequency=25.0)
    with pytest.raises(InvalidMovieError, match="does not hold what its shape promises"):
        as_source(extractor).read(3, 8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of bioio's own readers
@pytest.mark.parametrize("axes", ["TZYX", "TYX"])
def test_an_image_of_bioio_is_a_source(tmp_path: Path, axes: str) -> None:
    image = bio_image(tmp_path / "m.ome.tif", axes)
    source = as_source(image)
    np.testing.assert_array_equal(source.read(1, 4), HYPER[1:4, 0] if axes == "TZYX" else HYPER[1:4, 0, 0])
    assert source.metadata["PhysicalSizeX"] == 0.5
    stored = write_movie(tmp_path / "m", image, profile="lossless")
    np.testing.assert_array_equal(stored[:], source.read(0, 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of bioio's own readers
def test_channels_of_bioio_are_not_mixed(tmp_path: Path) -> None:
    image = bio_image(tmp_path / "m.ome.tif", "TCZYX")
    with pytest.raises(SourceError, match=r"holds 2 channels.*get_image_dask_data\(\"TZYX\", C=0\) to C=1"):
        as_source(image)
    np.testing.assert_array_equal(as_source(image.get_image_dask_data("TZYX", C=1)).read(0, 5), HYPER[:, 1])


class ND2File:
    """What is used of nd2's file: ND2 cannot be written without a microscope."""

    __module__ = "nd2"

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def voxel_size(self) -> Any:
        return SimpleNamespace(x=0.5, y=0.5, z=2.0)

    def to_xarray(self, delayed: bool, squeeze: bool) -> Any:
        import xarray

        assert delayed
        assert squeeze
        return xarray.DataArray(HYPER[:, 0], dims=("T", "Z", "Y", "X")).chunk()


def test_a_file_of_nd2_is_a_source() -> None:
    pytest.importorskip("xarray")
    source = as_source(ND2File({"T": 5, "Z": 3, "Y": 16, "X": 20}))
    np.testing.assert_array_equal(source.read(1, 4), HYPER[1:4, 0])
    assert source.metadata["PhysicalSizeZ"] == 2.0
    with pytest.raises(SourceError, match=r"several movies \(2 of P, 3 of C\).*isel\(P=0, C=0\)"):
        as_source(ND2File({"T": 5, "P": 2, "C": 3, "Y": 16, "X": 20}))


STARTS = {
    "m.nd2": b"\xda\xce\xbe\n",
    "m.czi": b"ZISRAWFILE",
    "m.lif": b"\x70\0\0\0",
    "m.oib": bytes.fromhex("d0cf11e0a1b11ae1"),
}


@pytest.mark.parametrize("name", STARTS)
def test_without_its_library_a_microscopes_file_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(STARTS[name] + bytes(100))
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImportError, match=r'need bioio: pip install "dj-photon-codecs\[microscopes\]"'):
        open_source(tmp_path / name)


def test_without_its_plugin_a_microscopes_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.lif").write_bytes(STARTS["m.lif"] + bytes(100))
    error = type("UnsupportedFileFormatError", (Exception,), {})

    def refuse(name: str) -> Any:
        raise error("no reader")

    monkeypatch.setitem(sys.modules, "bioio", SimpleNamespace(BioImage=refuse))
    with pytest.raises(SourceError, match="needs the plugin of bioio for it: pip install bioio-lif"):
        open_source(tmp_path / "m.lif")


def test_a_czi_file_is_read(tmp_path: Path) -> None:
    czi = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    with czi.create_czi(str(tmp_path / "m.czi")) as file:
        for t, c, z in np.ndindex(5, 2, 3):
            file.write(HYPER[t, c, z][..., np.newaxis], plane={"T": t, "C": c, "Z": z})
    with pytest.raises(SourceError, match="holds 2 channels"):
        open_source(tmp_path / "m.czi")
    for channel in (0, 1):
        with open_source(tmp_path / "m.czi", channel=channel) as movie:
            np.testing.assert_array_equal(movie[:], HYPER[:, channel])
            np.testing.assert_array_equal(movie[1:3], HYPER[1:3, channel])
