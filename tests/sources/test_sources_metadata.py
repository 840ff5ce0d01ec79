"""What files say of a recording travels with the movie: rate, pixels, channel, date and times, in OME's units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from dj_photon_codecs import SourceWarning, open_movie, open_source, write_movie
from test_sources_formats import ome_document, write_imagej, write_imaris, write_scanbox
from test_sources_tiff import settings, write_scanimage

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
PIXELS = {
    "PhysicalSizeX": 0.5,
    "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 0.25,
    "PhysicalSizeYUnit": "µm",
}
RATE = {"TimeIncrement": 0.04, "TimeIncrementUnit": "s"}


def scanimage(folder: Path) -> Path:
    text = (
        settings().replace("SI.imagingSystem", "SI.hRoiManager.scanFrameRate = 25\nSI.imagingSystem")
        + "\nSI.hRoiManager.imagingFovUm = [-5 -2;5 -2;5 2;-5 2]"
    )
    return write_scanimage(folder / "m.tif", COUNTS, text)


def imagej(folder: Path) -> Path:
    header = "images=12\nframes=12\nfinterval=40\ntunit=ms\nunit=micron\n"
    return write_imagej(folder / "m.tif", header, COUNTS, resolution=(2.0, 4.0), resolutionunit="none")


def ome(folder: Path) -> Path:
    attributes = (
        'TimeIncrement="40" TimeIncrementUnit="ms" PhysicalSizeX="500" PhysicalSizeXUnit="nm" '
        'PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"'
    )
    planes = "".join(f'<Plane TheT="{t}" TheC="0" TheZ="0" DeltaT="{40 * t}" DeltaTUnit="ms"/>' for t in range(12))
    document = ome_document({"m.ome.tif": 12}, attributes=attributes, planes=planes)
    tifffile.imwrite(folder / "m.ome.tif", COUNTS, description=document.encode(), metadata=None, contiguous=False)
    return folder / "m.ome.tif"


def nwb(folder: Path) -> Path:
    with h5py.File(folder / "m.nwb", "w") as file:
        file["session_start_time"] = "2023-05-01T12:00:00+00:00"
        plane = file.create_group("general/optophysiology/plane")
        plane["grid_spacing"] = [0.5e-6, 0.25e-6]
        plane["grid_spacing"].attrs["unit"] = "meters"
        series = file.create_group("acquisition/TwoPhotonSeries")
        series.attrs["neurodata_type"] = "TwoPhotonSeries"
        series["data"] = COUNTS.swapaxes(1, 2)
        series["starting_time"] = 0.0
        series["starting_time"].attrs["rate"] = 25.0
        series["imaging_plane"] = h5py.SoftLink("/general/optophysiology/plane")
    return folder / "m.nwb"


def scanbox(folder: Path) -> Path:
    return write_scanbox(folder, 2, COUNTS[..., np.newaxis], resfreq=400)


DATE = {"AcquisitionDate": "2023-05-01T12:00:00"}
TIMES = {"DeltaT": [round(0.04 * t, 6) for t in range(12)], "DeltaTUnit": "s"}
FORMATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ScanImage": (
        scanimage,
        RATE | PIXELS | {"Channel": {"Name": "Channel 1"}, "AcquisitionDate": "2023-05-01T12:00:00.000"},
    ),
    "ImageJ": (imagej, RATE | PIXELS),
    "OME": (ome, RATE | PIXELS | DATE | TIMES | {"Channel": {"Name": "dye 0"}}),
    "NWB": (nwb, RATE | PIXELS | {"AcquisitionDate": "2023-05-01T12:00:00+00:00"}),
    "Scanbox": (scanbox, RATE | {"Channel": {"Name": "green"}}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_file_says_is_stored_with_the_movie(tmp_path: Path, name: str) -> None:
    make, expected = FORMATS[name]
    path = make(tmp_path)
    with open_source(path) as movie:
        assert movie.metadata == _close(expected, movie.metadata)
    write_movie(tmp_path / "stored", path, profile="lossless")
    stored = open_movie(tmp_path / "stored")
    assert stored.record is not None
    assert stored.record.acquisition == movie.metadata
    copied = write_movie(tmp_path / "copied", stored)
    assert copied.record is not None
    assert copied.record.acquisition == movie.metadata


def _close(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What was expected, with the found value where it is as good as equal."""
    return {
        name: found[name] if isinstance(value, float) and found.get(name) == pytest.approx(value) else value
        for name, value in expected.items()
    }


def test_imaris_says_its_pixels_and_channels(tmp_path: Path) -> None:
    write_imaris(tmp_path / "m.ims")
    metadata = open_source(tmp_path / "m.ims", channel=1).metadata
    assert (metadata["PhysicalSizeX"], metadata["PhysicalSizeY"], metadata["Channel"]) == (0.5, 0.5, {"Name": "dye 1"})


def test_each_position_of_a_file_has_its_own_metadata(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.ome.tif", ome=True) as file:
        for size in (0.5, 1.25):
            described = {"axes": "TYX", "PhysicalSizeX": size, "PhysicalSizeXUnit": "µm"}
            file.write(np.zeros((3, 16, 20), np.uint16), photometric="minisblack", metadata=described)
    with open_source(tmp_path / "m.ome.tif", position=1) as movie:
        assert movie.metadata["PhysicalSizeX"] == 1.25


def test_times_that_are_too_many_for_a_row_are_told_where_they_are_irregular(tmp_path: Path) -> None:
    for jump, told in ((0.0, False), (3.0, True)):
        path = tmp_path / f"m{jump}.nwb"
        with h5py.File(path, "w") as file:
            series = file.create_group("acquisition/TwoPhotonSeries")
            series.attrs["neurodata_type"] = "TwoPhotonSeries"
            series["data"] = np.zeros((2500, 4, 4), np.uint16)
            times = np.arange(2500) * 0.04
            times[1000:] += jump
            series["timestamps"] = times
        movie = open_source(path)
        assert len(movie.metadata["DeltaT"]) == 2500
        if told:
            with pytest.warns(SourceWarning, match="times of its 2500 frames are irregular"):
                stored = write_movie(tmp_path / f"s{jump}", movie, profile="lossless")
        else:
            stored = write_movie(tmp_path / f"s{jump}", movie, profile="lossless")
        assert stored.record is not None
        assert "DeltaT" not in (stored.record.acquisition or {})


def test_a_movie_without_metadata_has_none_in_its_record(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m", COUNTS, profile="lossless")
    assert stored.record is not None
    assert stored.record.acquisition is None
    assert "acquisition" not in stored.record.to_dict()
