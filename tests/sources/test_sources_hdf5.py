"""open_source on HDF5 and NWB."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dj_photon_codecs import SourceError, SourceWarning, open_source

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)


def write_h5(path: Path, datasets: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, counts in datasets.items():
            file.create_dataset(name, data=counts, **options)
    return path


def write_nwb(path: Path, series: dict[str, Any], kind: str = "TwoPhotonSeries") -> Path:
    """As NWB 2 files are laid out, with an image mask and a summary image beside the movie."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"nwb_version": "2.7.0", "neurodata_type": "NWBFile", "namespace": "core"})
        for name, counts in series.items():
            group = file.create_group(f"acquisition/{name}")
            group.attrs.update({"neurodata_type": kind, "namespace": "core"})
            data = group.create_dataset("data", data=counts)
            data.attrs.update({"conversion": 0.5, "offset": 7.0, "resolution": -1.0, "unit": "a.u."})
        mask = file.create_group("processing/ophys/ImageSegmentation/PlaneSegmentation")
        mask.attrs["neurodata_type"] = "PlaneSegmentation"
        mask.create_dataset("image_mask", data=np.ones((9, 20, 16), np.float32))
    return path


@pytest.mark.parametrize("options", [{}, {"chunks": (5, 16, 20), "compression": "gzip"}], ids=["plain", "chunked"])
def test_the_only_dataset_of_a_file_is_the_movie(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_h5(tmp_path / "m.h5", {"shifts": np.zeros((12, 2)), "note": "registered"})
    with h5py.File(path, "a") as file:
        file.create_dataset("mov", data=COUNTS, **options)
    with open_source(path) as movie:
        assert (movie.shape, movie.dtype) == (COUNTS.shape, COUNTS.dtype)
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


def test_several_datasets_are_never_chosen_silently(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", {"green/raw": COUNTS, "red": COUNTS + 1})
    with pytest.raises(SourceError, match=r"m.h5 holds 2 datasets .* dataset='/green/raw': it has /green/raw, /red"):
        open_source(path)
    with open_source(path, dataset="red") as movie:
        np.testing.assert_array_equal(movie[:], COUNTS + 1)
    with pytest.raises(SourceError, match=r"m.h5 has no dataset 'blue'; name one, dataset='/green/raw'"):
        open_source(path, dataset="blue")


def test_a_file_without_a_movie_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="m.h5 holds 0 datasets with the axes of a movie; it has none"):
        open_source(write_h5(tmp_path / "m.h5", {"dff": np.zeros((4, 100))}))


def test_axes_of_a_dataset_are_named_by_the_caller(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", {"mov": np.moveaxis(COUNTS, 0, -1)})
    with open_source(path, axes="YXT") as movie:
        np.testing.assert_array_equal(movie[4:7], COUNTS[4:7])


def test_channels_and_planes_of_a_dataset(tmp_path: Path) -> None:
    volumes = np.random.default_rng(1).poisson(20, size=(5, 4, 2, 6, 8)).astype(np.int16)
    path = write_h5(tmp_path / "m.h5", {"mov": volumes})
    with open_source(path, axes="TZCYX", channel=1, planes=[3, 0]) as movie:
        np.testing.assert_array_equal(movie[1:4], volumes[1:4, [3, 0], 1])


def test_files_follow_each_other(tmp_path: Path) -> None:
    for number in range(1, 12):
        write_h5(tmp_path / f"run_{number}.h5", {"mov": COUNTS + number})
    with open_source(tmp_path) as movie:
        whole = np.concatenate([COUNTS + n for n in range(1, 12)])
        np.testing.assert_array_equal(movie[:], whole)
        np.testing.assert_array_equal(movie[10:26], whole[10:26])


def test_matlab_arrays_are_not_transposed_silently(tmp_path: Path) -> None:
    """A .mat file of version 7.3 has a header of 512 bytes before the HDF5, and all axes in reverse."""
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as file:
        file["mov"] = COUNTS.swapaxes(1, 2)
        file["mov"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with (tmp_path / "m.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    with pytest.raises(SourceError, match=r'written by MATLAB.*axes="TXY"'):
        open_source(tmp_path / "m.mat")
    with open_source(tmp_path / "m.mat", axes="TXY") as movie:
        np.testing.assert_array_equal(movie[2:5], COUNTS[2:5])


# ---- NWB


@pytest.mark.parametrize("kind", ["TwoPhotonSeries", "OnePhotonSeries"])
def test_the_photon_series_of_an_nwb_file_has_width_before_height(tmp_path: Path, kind: str) -> None:
    """(frame, x, y) by the schema; counts come as they are stored, without conversion and offset."""
    path = write_nwb(tmp_path / "m.nwb", {"Imaging": COUNTS.swapaxes(1, 2)}, kind)
    with open_source(path) as movie:
        assert (movie.shape, movie.dtype) == (COUNTS.shape, COUNTS.dtype)
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


def test_an_nwb_file_of_a_writer_with_height_first_is_opened_as_told(tmp_path: Path) -> None:
    with open_source(write_nwb(tmp_path / "m.nwb", {"Imaging": COUNTS}), axes="TYX") as movie:
        np.testing.assert_array_equal(movie[3:8], COUNTS[3:8])


def test_a_volume_of_an_nwb_file_has_depth_last(tmp_path: Path) -> None:
    volumes = np.random.default_rng(1).poisson(20, size=(5, 3, 6, 8)).astype(np.uint16)  # TZYX
    with open_source(write_nwb(tmp_path / "m.nwb", {"Imaging": volumes.transpose(0, 3, 2, 1)})) as movie:
        assert movie.axes == ("time", "plane", "height", "width")
        np.testing.assert_array_equal(movie[:], volumes)


@pytest.mark.parametrize("dataset", ["/acquisition/Red", "acquisition/Red/data"])
def test_several_photon_series_are_named(tmp_path: Path, dataset: str) -> None:
    path = write_nwb(tmp_path / "m.nwb", {"Green": COUNTS.swapaxes(1, 2), "Red": COUNTS.swapaxes(1, 2) + 1})
    with pytest.raises(SourceError, match=r"holds 2 datasets .* /acquisition/Green, /acquisition/Red"):
        open_source(path)
    with open_source(path, dataset=dataset) as movie:
        np.testing.assert_array_equal(movie[:], COUNTS + 1)


def test_frames_in_other_files_are_told(tmp_path: Path) -> None:
    path = write_nwb(tmp_path / "m.nwb", {"Imaging": np.empty((0, 0, 0), np.uint16)})
    with h5py.File(path, "a") as file:
        file["acquisition/Imaging/external_file"] = ["./raw_1.tif", "./raw_2.tif"]
    with pytest.raises(SourceError, match=r"frames lie in other files, ./raw_1.tif, ./raw_2.tif: open those"):
        open_source(path)


# ---- accidents


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", {"mov": COUNTS})
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(SourceError, match="m.h5 cannot be opened, truncated or damaged: OSError"):
        open_source(path)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", {"mov": COUNTS}, chunks=(4, 16, 20), compression="gzip")
    with h5py.File(path, "r") as file:
        offset = file["mov"].id.get_chunk_info(1).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(50))
    with open_source(path) as movie:
        np.testing.assert_array_equal(movie[:4], COUNTS[:4])
        with pytest.raises(SourceError, match="m.h5: frames 2 to 6 cannot be read: OSError"):
            movie[2:7]


def test_frames_that_were_never_written_are_told(tmp_path: Path) -> None:
    """HDF5 reads them as zeros, without a word."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("mov", shape=(40, 16, 20), chunks=(4, 16, 20), dtype=np.uint16)[:12] = COUNTS
    with pytest.warns(SourceWarning, match="7 of 10 chunks were never written, and read as 0") as caught:
        open_source(tmp_path / "m.h5").close()
    assert caught[0].filename == __file__


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5(tmp_path / "m.h5", {"mov": COUNTS})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'HDF5 and NWB files need h5py: pip install "dj-photon-codecs\[hdf5\]"'):
        open_source(path)
