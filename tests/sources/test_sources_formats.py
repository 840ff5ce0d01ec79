"""Formats of rigs, made by hand from public descriptions: ImageJ, OME, ThorImage, Scanbox, HDF5; arrays by name."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from dj_photon_codecs import (
    InvalidMovieError,
    MovieTypeError,
    SourceError,
    SourceWarning,
    open_source,
    write_movie,
)
from dj_photon_codecs.sources import as_source, warn_of_time_last
from test_sources_tiff import SETTINGS_2018, settings, write_scanimage

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).poisson(20, size=(6, 2, 3, 16, 20)).astype(np.uint16)  # TCZYX


# ---- ImageJ


def write_imagej(path: Path, header: str, pages: Any, **options: Any) -> Path:
    """Pages with an ImageJ header of any content in the first of them."""
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            text = f"ImageJ=1.54f\n{header}" if number == 0 else None
            file.write(page, contiguous=False, metadata=None, description=text, software=False, **options)
    return path


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("images=100\nchannels=2\nframes=50\nhyperstack=true\n", r"12 images, .* says 100 \(50 frames x 2 channels\)"),
        ("images=13\nframes=13\n", "12 images, and its ImageJ header says 13"),
        ("images=12\nchannels=5\nhyperstack=true\n", r"12 images, .* says 12 \(5 channels\)"),
    ],
)
def test_an_imagej_header_that_pages_contradict_is_told(tmp_path: Path, header: str, said: str) -> None:
    path = write_imagej(tmp_path / "m.tif", header, COUNTS)
    with pytest.raises(SourceError, match=said):
        open_source(path)
    movie = open_source(path, shape=(-1, 2, 16, 20), axes="TCYX", channel=1)
    np.testing.assert_array_equal(movie[:], COUNTS[1::2])


def test_an_imagej_stack_with_one_header_for_all_frames_is_whole(tmp_path: Path) -> None:
    """As ImageJ writes stacks above 4 GB: the first page is the only one, the frames lie behind it."""
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as file:
        text = "ImageJ=1.54f\nimages=12\nframes=12\n"
        file.write(COUNTS, truncate=True, metadata=None, description=text, software=False)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    np.testing.assert_array_equal(open_source(path)[:], COUNTS)
    os.truncate(path, path.stat().st_size - 16 * 20 * 2 * 3)
    with pytest.raises(SourceError, match="1 images, and its ImageJ header says 12"):
        open_source(path)


# ---- OME


def ome_document(
    files: dict[str, int],
    own: str | None = None,
    images: int = 1,
    channels: int = 1,
    attributes: str = "",
    planes: str = "",
) -> str:
    """OME-XML of (file: frames), which follow each other in time, an image a position."""
    uuid = {name: f"urn:uuid:00000000-0000-0000-0000-0000000000{number:02}" for number, name in enumerate(files)}
    per_image = len(files) // images
    parts = []
    for image, names in enumerate(_batches(files, per_image)):
        count, data = 0, ""
        for name in names:
            for i in range(files[name]):
                t, c = divmod(count, channels)
                data += (
                    f'<TiffData IFD="{i}" FirstT="{t}" FirstC="{c}" FirstZ="0" PlaneCount="1">'
                    f'<UUID FileName="{name}">{uuid[name]}</UUID></TiffData>'
                )
                count += 1
        listed = "".join(
            f'<Channel ID="Channel:{image}:{c}" Name="dye {c}" SamplesPerPixel="1"/>' for c in range(channels)
        )
        parts.append(
            f'<Image ID="Image:{image}" Name="Pos{image}"><AcquisitionDate>2023-05-01T12:00:00</AcquisitionDate>'
            f'<Pixels ID="Pixels:{image}" DimensionOrder="XYCZT" Type="uint16" SizeX="20" SizeY="16" SizeZ="1" '
            f'SizeC="{channels}" SizeT="{count // channels}" {attributes}>{listed}{data}{planes}</Pixels></Image>'
        )
    named = f' UUID="{uuid[own]}"' if own else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        f"{named}>{''.join(parts)}</OME>"
    )


def _batches(values: Any, count: int) -> Any:
    listed = list(values)
    return [listed[i : i + count] for i in range(0, len(listed), count)]


def companion(folder: Path, document: str = "m.companion.ome") -> None:
    """Two files that say of themselves only where their description is."""
    binary = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<BinaryOnly MetadataFile="{document}" UUID="urn:uuid:0"/></OME>'
    )
    for number in range(2):
        part = COUNTS[6 * number : 6 * number + 6]
        tifffile.imwrite(folder / f"m_{number}.ome.tif", part, description=binary, metadata=None, contiguous=False)
    (folder / "m.companion.ome").write_text(ome_document({"m_0.ome.tif": 6, "m_1.ome.tif": 6}, channels=2))


@pytest.mark.parametrize("name", ["", "m.companion.ome", "m_0.ome.tif", "m_1.ome.tif", "*.tif"])
def test_a_companion_file_describes_the_movie(tmp_path: Path, name: str) -> None:
    companion(tmp_path)
    with pytest.raises(SourceError, match="holds 2 channels"):
        open_source(tmp_path / name)
    for channel in (0, 1):
        movie = open_source(tmp_path / name, channel=channel)
        np.testing.assert_array_equal(movie[:], COUNTS[channel::2])
        assert movie.metadata["Channel"] == {"Name": f"dye {channel}"}


@pytest.mark.parametrize("gone", ["m_1.ome.tif", "m.companion.ome"])
def test_what_a_companion_needs_is_named(tmp_path: Path, gone: str) -> None:
    companion(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(SourceError, match=gone):
        open_source(tmp_path)


def test_positions_of_ome_are_movies_of_their_own(tmp_path: Path) -> None:
    """As Micro-Manager writes them: a file a position, each with the description of all."""
    names = [f"m_MMStack_Pos{p}.ome.tif" for p in range(2)]
    for p, name in enumerate(names):
        document = ome_document(dict.fromkeys(names, 6), own=name, images=2)
        part = COUNTS[6 * p : 6 * p + 6]
        tifffile.imwrite(tmp_path / name, part, description=document, metadata=None, contiguous=False)
    with pytest.raises(SourceError, match=r"holds 2 positions.*position=0\) to position=1"):
        open_source(tmp_path)
    for p in range(2):
        np.testing.assert_array_equal(open_source(tmp_path, position=p)[:], COUNTS[6 * p : 6 * p + 6])


def test_a_renamed_ome_file_is_itself(tmp_path: Path) -> None:
    document = ome_document({"before.ome.tif": 12})
    tifffile.imwrite(tmp_path / "after.ome.tif", COUNTS, description=document, metadata=None, contiguous=False)
    np.testing.assert_array_equal(open_source(tmp_path / "after.ome.tif")[:], COUNTS)


# ---- compression, odd pages, many files


def test_lossy_pages_are_told(tmp_path: Path) -> None:
    grey = COUNTS.astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", grey, compression="jpeg", metadata=None, photometric="minisblack")
    with pytest.warns(SourceWarning, match="compressed with JPEG, which alters counts") as told:
        movie = open_source(tmp_path / "m.tif")
    assert len(told) == 1
    np.testing.assert_array_equal(movie[:], tifffile.imread(tmp_path / "m.tif"))


def test_odd_tags_of_stk_are_not_the_users_affair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Prairie View 3 writes clocks that tifffile cannot read, and logs about, a line or two a file."""
    stk = [(33628, 4, 1, 0, True), (33629, 4, 6, (0, 0, 0, 0, 0, 0), True)]
    for number, frame in enumerate(COUNTS[:3]):
        tifffile.imwrite(tmp_path / f"f_{number}.tif", frame, metadata=None, extratags=stk)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(open_source(tmp_path)[:], COUNTS[:3])
    assert not caplog.records


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": {}},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"rowsperstrip": 3},
        {"imagej": True, "metadata": {}},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4"])
def test_files_with_a_frame_each_are_read_by_their_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], dtype: str
) -> None:
    """And opened by tifffile once, whatever their number."""
    counts = COUNTS.astype(dtype)
    for number, frame in enumerate(counts):
        tifffile.imwrite(tmp_path / f"f_{number:03}.tif", frame, **{"metadata": None} | options)
    opened: list[str] = []
    before = tifffile.TiffFile.__init__

    def counting(self: Any, file: Any, **given: Any) -> None:
        opened.append(str(file))
        before(self, file, **given)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counting)
    with open_source(tmp_path) as movie:
        np.testing.assert_array_equal(movie[:], counts)
        np.testing.assert_array_equal(movie[2:9], counts[2:9])
    assert {Path(name).name for name in opened} == {"f_000.tif"}


# ---- ScanImage


def test_frames_that_scanimage_lost_are_told(tmp_path: Path) -> None:
    path = write_scanimage(tmp_path / "m.tif", COUNTS, settings())
    whole = tifffile.TiffFile(path)
    texts = [page.aspage().description for page in whole.pages]
    whole.close()
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, (frame, text) in enumerate(zip(COUNTS, texts, strict=True)):
            if number not in (4, 7, 8):
                file.write(frame, contiguous=False, metadata=None, description=text, software=settings())
    with pytest.warns(SourceWarning, match="frames are missing, by the numbers in its pages: 5, 8-9") as told:
        movie = open_source(path)
    assert len(told) == 1
    np.testing.assert_array_equal(movie[:], np.delete(COUNTS, [4, 7, 8], axis=0))


def test_scanimage_files_that_do_not_follow_each_other_are_told(tmp_path: Path) -> None:
    write_scanimage(tmp_path / "m_00001_00001.tif", COUNTS[:4], settings())
    write_scanimage(tmp_path / "m_00001_00002.tif", COUNTS[6:], settings(), first=7)
    with pytest.warns(SourceWarning, match=r"00002.tif begins with frame 7, and .*00001.tif ends with frame 4"):
        movie = open_source(tmp_path)
    np.testing.assert_array_equal(movie[:], np.delete(COUNTS, [4, 5], axis=0))


def test_scanimage_acquisitions_that_are_joined_are_told(tmp_path: Path) -> None:
    for number, part in enumerate(np.split(COUNTS, 2), 1):
        write_scanimage(tmp_path / f"m_{number:05}.tif", part, settings())
    with pytest.warns(SourceWarning, match=r"m_00002.tif begins another acquisition than .*m_00001.tif"):
        movie = open_source(tmp_path)
    np.testing.assert_array_equal(movie[:], COUNTS)


def test_a_channel_count_that_pages_contradict_is_told(tmp_path: Path) -> None:
    two = write_scanimage(tmp_path / "two.tif", COUNTS, settings(channels="[1 2]"))
    with tifffile.TiffFile(two) as file:
        texts = [page.aspage().description for page in file.pages]
    with tifffile.TiffWriter(tmp_path / "m.tif", bigtiff=True) as file:
        for frame, text in zip(COUNTS, texts, strict=True):
            file.write(frame, contiguous=False, metadata=None, description=text, software=settings(channels="1"))
    with pytest.warns(SourceWarning, match=r"says 1 channels \(channelSave = 1\), and its pages come 2 to a frame"):
        open_source(tmp_path / "m.tif")


def test_regions_of_interest_are_named_with_their_rows(tmp_path: Path) -> None:
    rois = [{"scanfields": {"pixelResolutionXY": [20, lines]}} for lines in (6, 6)]
    document = json.dumps({"RoiGroups": {"imagingRoiGroup": {"rois": rois}}})
    with tifffile.TiffWriter(tmp_path / "m.tif", bigtiff=True) as file:
        for frame in COUNTS:
            file.write(
                frame, contiguous=False, metadata=None, software=settings(), extratags=[(315, 2, 0, document, True)]
            )
    with pytest.warns(
        SourceWarning, match="2 regions of interest lie below each other in its frames, in the rows 0:6, 10:16"
    ):
        movie = open_source(tmp_path / "m.tif")
    np.testing.assert_array_equal(movie[:], COUNTS)


def test_scanimage_4_is_read_by_its_own_names(tmp_path: Path) -> None:
    header = "scanimage.SI4.channelsSave = [1;2]\nscanimage.SI4.stackNumSlices = 1\nscanimage.SI4.versionMajor = 4.2\n"
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for number, frame in enumerate(COUNTS):
            file.write(frame, contiguous=False, metadata=None, description=f"Frame Tag = {number // 2:08}\n{header}")
    for channel in (0, 1):
        np.testing.assert_array_equal(open_source(tmp_path / "m.tif", channel=channel)[:], COUNTS[channel::2])


def test_a_real_file_of_scanimage_4_that_ends_within_a_volume() -> None:
    path = Path(__file__).parents[1] / "data" / "rigs" / "scanimage4_test_signed.tif"
    with pytest.warns(SourceWarning, match="before 2016"), pytest.raises(SourceError, match="one volume takes 4"):
        open_source(path)
    movie = open_source(path, axes="TYX")
    np.testing.assert_array_equal(movie[:], tifffile.imread(path))
    assert (movie.shape, movie.dtype) == ((2, 120, 120), np.dtype(np.int16))


def test_an_aborted_slow_stack_says_how_its_pages_are_to_be_taken(tmp_path: Path) -> None:
    text = settings(SETTINGS_2018, slices=5, frames=4, fast="false")
    path = write_scanimage(tmp_path / "m.tif", COUNTS, text)
    with pytest.raises(SourceError, match=r"has 12 pages, and one volume takes 20 \(5 slices\).*shape="):
        open_source(path)


# ---- ThorImage


def thor_xml(channels: int = 3, planes: int = 1, flyback: int = 0, frames: int = 12) -> str:
    fast = int(planes > 1)
    return f"""<?xml version="1.0"?><ThorImageExperiment>
    <Date date="05/01/2023 12:00:00" /><Software version="4.1.2020.12101" />
    <Wavelengths nyquistExWavelengthNM="488"><Wavelength name="ChanA" exposuretimeMS="0" /><Wavelength name="ChanB" />
    </Wavelengths><ZStage name="x" steps="{planes}" stepSizeUM="10" enable="{fast}" zStreamFrames="1" />
    <Timelapse timepoints="{frames // planes}" intervalSec="0" />
    <LSM pixelX="20" pixelY="16" channel="{channels}" frameRate="30.0" averageMode="0"
    averageNum="4" pixelSizeUM="0.65" />
    <Streaming enable="1" frames="{frames}" rawData="1" zFastEnable="{fast}" flybackFrames="{flyback}" />
    </ThorImageExperiment>"""


@pytest.mark.parametrize("name", ["", "Experiment.xml"])
def test_thorimage_is_read_by_its_xml(tmp_path: Path, name: str) -> None:
    (tmp_path / "Experiment.xml").write_text(thor_xml(frames=6))
    (tmp_path / "Image_0001_0001.raw").write_bytes(COUNTS.astype("<u2").tobytes())
    tifffile.imwrite(tmp_path / "ChanA_Preview.tif", COUNTS[0])
    with pytest.raises(SourceError, match=r"holds 2 channels.*\(ChanA, ChanB\)"):
        open_source(tmp_path / name)
    for channel in (0, 1):
        movie = open_source(tmp_path / name, channel=channel)
        np.testing.assert_array_equal(movie[:], COUNTS[channel::2])
    assert movie.metadata["TimeIncrement"] == pytest.approx(1 / 30)
    assert movie.metadata["PhysicalSizeX"] == 0.65
    assert movie.metadata["Channel"] == {"Name": "ChanB"}


def test_flyback_frames_of_thorimage_are_no_plane(tmp_path: Path) -> None:
    (tmp_path / "Experiment.xml").write_text(thor_xml(channels=1, planes=3, flyback=1, frames=12))
    (tmp_path / "Image_0001_0001.raw").write_bytes(COUNTS.astype("<u2").tobytes())
    movie = open_source(tmp_path)
    assert movie.axes == ("time", "plane", "height", "width")
    np.testing.assert_array_equal(movie[:], COUNTS.reshape(3, 4, 16, 20)[:, :3])


@pytest.mark.parametrize(("frames", "size"), [(20, None), (6, -100)])
def test_a_thorimage_recording_that_does_not_fit_its_xml_is_told(tmp_path: Path, frames: int, size: int | None) -> None:
    (tmp_path / "Experiment.xml").write_text(thor_xml(channels=1, frames=frames))
    (tmp_path / "Image_0001_0001.raw").write_bytes(COUNTS.astype("<u2").tobytes()[:size])
    if size is not None:
        with pytest.raises(SourceError, match=r"has 7580 bytes, which are not frames of 1 channels x 16 x 20"):
            open_source(tmp_path)
        return
    with pytest.warns(SourceWarning, match=r"has 12 frames, and Experiment.xml says 20"):
        movie = open_source(tmp_path)
    np.testing.assert_array_equal(movie[:], COUNTS)


def test_images_of_thorimage(tmp_path: Path) -> None:
    (tmp_path / "Experiment.xml").write_text(thor_xml(frames=18, planes=3))
    for t, c, z in np.ndindex(*VOLUMES.shape[:3]):
        name = f"Chan{'AB'[c]}_0001_0001_{z + 1:04}_{t + 1:04}.tif"
        tifffile.imwrite(tmp_path / name, VOLUMES[t, c, z], metadata=None)
    tifffile.imwrite(tmp_path / "ChanA_Preview.tif", COUNTS[0])
    with pytest.raises(SourceError, match="holds 2 channels"):
        open_source(tmp_path)
    for channel in (0, 1):
        np.testing.assert_array_equal(open_source(tmp_path, channel=channel)[:], VOLUMES[:, channel])
    for t in (3, 4):
        for path in tmp_path.glob(f"Chan*_{t:04}.tif"):
            path.unlink()
    with pytest.warns(SourceWarning) as told:
        movie = open_source(tmp_path, channel=1)
    texts = " ".join(str(one.message) for one in told)
    assert "number 3-4" in texts
    assert "holds 12 images a channel, and Experiment.xml says 18" in texts
    np.testing.assert_array_equal(movie[:], np.delete(VOLUMES[:, 1], [2, 3], axis=0))


# ---- Scanbox


def write_scanbox(folder: Path, channels: int, counts: Any, **info: Any) -> Path:
    """Counts (frames, lines, width, channels), inverted, and the header beside them."""
    scipy_io = pytest.importorskip("scipy.io")
    path = folder / "m_000_001.sbx"
    path.write_bytes((65535 - np.asarray(counts, "<u2")).tobytes())
    header = {"sz": [16, 20], "channels": channels, "recordsPerBuffer": 16, "scanmode": 1, "resfreq": 8000} | info
    scipy_io.savemat(path.with_suffix(".mat"), {"info": header})
    return path


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_scanbox_counts_are_turned_round(tmp_path: Path, kind: int) -> None:
    channels = 2 if kind == 1 else 1
    counts = np.random.default_rng(0).poisson(200, size=(6, 16, 20, channels))
    path = write_scanbox(tmp_path, kind, counts)
    if channels == 2:
        with pytest.raises(SourceError, match=r"holds 2 channels.*\(green, red\)"):
            open_source(path)
    for channel in range(channels):
        movie = open_source(path, channel=channel)
        assert movie.dtype == np.uint16
        np.testing.assert_array_equal(movie[:], counts[..., channel])
        assert movie.metadata["Channel"]["Name"] == ("red" if channel or kind == 3 else "green")
        assert movie.metadata["TimeIncrement"] == pytest.approx(16 / 8000)


def test_scanbox_of_two_directions_has_two_lines_a_record(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(200, size=(6, 32, 20, 1))
    movie = open_source(write_scanbox(tmp_path, 2, counts, scanmode=0, sz=[32, 20]))
    np.testing.assert_array_equal(movie[:], counts[..., 0])


@pytest.mark.parametrize("header", [{"config": {"frames": 8}}, {"max_idx": 7}], ids=str)
def test_scanbox_frames_are_held_against_the_header(tmp_path: Path, header: dict[str, Any]) -> None:
    counts = np.random.default_rng(0).poisson(200, size=(6, 16, 20, 1))
    with pytest.warns(SourceWarning, match="has 6 frames, and its header says 8"):
        movie = open_source(write_scanbox(tmp_path, 2, counts, **header))
    np.testing.assert_array_equal(movie[:], counts[..., 0])


def test_scanbox_without_its_header_or_with_a_part_of_a_frame_is_told(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(200, size=(6, 16, 20, 1))
    path = write_scanbox(tmp_path, 2, counts)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.warns(SourceWarning, match="ends within a frame: its last 540 of 640 bytes"):
        movie = open_source(path)
    np.testing.assert_array_equal(movie[:], counts[:5, ..., 0])
    path.with_suffix(".mat").unlink()
    with pytest.raises(SourceError, match="is described by m_000_001.mat, which is missing from its folder"):
        open_source(path)


# ---- HDF5 by labels, filters, locks; Imaris


@pytest.mark.parametrize(
    ("axes", "writer"),
    list(itertools.product(["tzyxc", "yxt", "yxtc", "ctyx"], ["labels", "scales", "attribute", "words"])),
    ids=str,
)
def test_hdf5_axes_go_by_their_labels(tmp_path: Path, axes: str, writer: str) -> None:
    words = {"t": "time", "z": "plane", "c": "channel", "y": "height", "x": "width"}
    used = [letter for letter in "tczyx" if letter in axes]
    whole = VOLUMES[:, : 1 + ("c" in axes), : 1 + 2 * ("z" in axes)]
    movie = whole.squeeze(axis=tuple(i for i, letter in enumerate("tczyx") if letter not in axes))
    stored = movie.transpose([used.index(letter) for letter in axes])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        data = file.create_dataset("mov", data=stored)
        for i, letter in enumerate(axes):
            if writer == "labels":
                data.dims[i].label = letter
            elif writer == "words":
                data.dims[i].label = words[letter]
            elif writer == "scales":
                file[letter] = np.arange(stored.shape[i])
                file[letter].make_scale(letter)
                data.dims[i].attach_scale(file[letter])
        if writer == "attribute":
            data.attrs["axes"] = list(axes)
    for channel in range(movie.shape[1] if "c" in axes else 1):
        expected = movie[:, channel] if "c" in axes else movie
        opened = open_source(tmp_path / "m.h5", dataset="mov", channel=channel)
        np.testing.assert_array_equal(opened[:], expected)
    if "c" not in axes:
        with h5py.File(tmp_path / "m.h5") as file:  # the object itself
            np.testing.assert_array_equal(as_source(file["mov"]).read(1, 4), movie[1:4])


def test_hdf5_labels_that_are_not_understood_are_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        data = file.create_dataset("mov", data=COUNTS)
        for i, name in enumerate(("trial", "y", "x")):
            data.dims[i].label = name
    with pytest.warns(SourceWarning, match="has axes named trial, y, x"):
        movie = open_source(tmp_path / "m.h5")
    np.testing.assert_array_equal(movie[:], COUNTS)


def test_hdf5_axes_go_by_axistags(tmp_path: Path) -> None:
    """As vigra and ilastik keep them."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        data = file.create_dataset("volume", data=np.moveaxis(COUNTS, 0, -1))
        data.attrs["axistags"] = json.dumps({"axes": [{"key": "y"}, {"key": "x"}, {"key": "t"}]})
    np.testing.assert_array_equal(open_source(tmp_path / "m.h5")[:], COUNTS)


def test_a_filter_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((4, 16, 20))
        created.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, (1,))
        file.create_dataset("mov", data=COUNTS, dcpl=created, chunks=(4, 16, 20))
    code = h5py.h5z.FILTER_DEFLATE
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    lacking = types.SimpleNamespace(filter_avail=lambda number: number != code)
    monkeypatch.setattr(h5py, "h5z", lacking)
    with pytest.raises(SourceError, match=r"compressed with .*\(filter 1 of HDF5\), .* pip install hdf5plugin"):
        open_source(tmp_path / "m.h5")


def test_blosc_is_read_where_its_filter_is_installed(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("mov", data=COUNTS, chunks=(4, 16, 20), **hdf5plugin.Blosc())
    np.testing.assert_array_equal(open_source(tmp_path / "m.h5")[:], COUNTS)


def test_a_file_that_is_being_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("mov", data=COUNTS, maxshape=(None, 16, 20), chunks=(4, 16, 20))
        file.flush()
        import subprocess

        script = (
            "import sys, warnings; from dj_photon_codecs import open_source, SourceError\n"
            "warnings.simplefilter('always')\n"
            "try: print(open_source(sys.argv[1]).shape)\n"
            "except SourceError as error: print(error)\n"
        )

        def seen() -> str:
            ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120)
            return ran.stdout + ran.stderr

        locked = seen()
        if "is locked: another program is writing it" not in locked:
            pytest.skip(f"this file system does not lock: {locked}")
        file.swmr_mode = True
        shared = seen()
        assert "is being written by another program (SWMR)" in shared
        assert "(12, 16, 20)" in shared
        data.flush()


def write_imaris(path: Path) -> None:
    def letters(text: str) -> Any:
        return np.array([letter.encode() for letter in text], "S1")

    with h5py.File(path, "w") as file:
        image = file.create_group("DataSetInfo/Image")
        for name, value in {"X": 20, "Y": 16, "Z": 3, "ExtMin0": 0, "ExtMax0": 10, "ExtMin1": 0, "ExtMax1": 8}.items():
            image.attrs[name] = letters(str(value))
        for c in range(2):
            file.create_group(f"DataSetInfo/Channel {c}").attrs["Name"] = letters(f"dye {c}")
        for t, c in np.ndindex(*VOLUMES.shape[:2]):
            for level, step in ((0, 1), (1, 2)):
                group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint {t}/Channel {c}")
                padded = np.pad(VOLUMES[t, c], ((0, 5), (0, 16), (0, 12)))  # to whole chunks
                group["Data"] = padded[:, ::step, ::step]


def test_imaris_is_read_at_full_resolution(tmp_path: Path) -> None:
    write_imaris(tmp_path / "m.ims")
    with pytest.raises(SourceError, match=r"holds 2 channels.*\(dye 0, dye 1\)"):
        open_source(tmp_path / "m.ims")
    for channel in (0, 1):
        movie = open_source(tmp_path / "m.ims", channel=channel)
        np.testing.assert_array_equal(movie[:], VOLUMES[:, channel])
        np.testing.assert_array_equal(
            open_source(tmp_path / "m.ims", channel=channel, planes=1)[2:4], VOLUMES[2:4, channel, 1]
        )
    assert movie.metadata["PhysicalSizeX"] == 0.5


# ---- Suite2p 1


def test_a_binary_of_suite2p_1_before_it_has_ops(tmp_path: Path) -> None:
    signed = COUNTS.astype("<i2")
    (tmp_path / "data.bin").write_bytes(signed.tobytes())
    np.save(tmp_path / "db.npy", np.array({"Ly": 16, "Lx": 20, "nframes": 12}, dtype=object), allow_pickle=True)
    np.save(tmp_path / "settings.npy", np.array({"fs": 25.0}, dtype=object), allow_pickle=True)
    for path in (tmp_path, tmp_path / "data.bin"):
        movie = open_source(path)
        np.testing.assert_array_equal(movie[:], signed)
        assert movie.metadata["TimeIncrement"] == 0.04


# ---- arrays and objects


@pytest.mark.parametrize("dims", [("y", "x", "time"), ("time", "y", "x"), ("row", "frame", "column")])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_xarray_goes_by_its_dims(tmp_path: Path, dims: tuple[str, ...], chunked: bool) -> None:
    xarray = pytest.importorskip("xarray")
    place = {"time": 0, "frame": 0, "y": 1, "row": 1, "x": 2, "column": 2}
    array = xarray.DataArray(COUNTS.transpose([place[name] for name in dims]), dims=dims)
    stored = write_movie(tmp_path / "m.zarr", array.chunk() if chunked else array, profile="lossless")
    np.testing.assert_array_equal(stored[:], COUNTS)


@pytest.mark.parametrize("names", [("y", "x", "t"), ("Height", "Width", "Time")])
def test_a_zarr_array_goes_by_its_dimension_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    array = zarr.create_array(
        store=tmp_path / "in.zarr", data=np.moveaxis(COUNTS, 0, -1), dimension_names=names, chunks=(16, 20, 4)
    )
    stored = write_movie(tmp_path / "m.zarr", array, profile="lossless")
    np.testing.assert_array_equal(stored[:], COUNTS)
    np.testing.assert_array_equal(open_source(tmp_path / "in.zarr")[:], COUNTS)


def test_names_of_axes_that_are_not_understood_are_told(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    with pytest.warns(SourceWarning, match="axes named trial, y, x, which do not say"):
        as_source(xarray.DataArray(COUNTS, dims=("trial", "y", "x")))
    as_source(xarray.DataArray(COUNTS))  # dim_0 and so on are no names


def test_named_channels_of_an_array_are_told(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    both = xarray.DataArray(np.stack([COUNTS, COUNTS]), dims=("channel", "time", "y", "x"))
    with pytest.warns(SourceWarning, match="holds 2 channels, each with its own noise"):
        source = as_source(both)
    assert source.shape == (12, 2, 16, 20)
    np.testing.assert_array_equal(as_source(both.isel(channel=[1])).read(0, 12), COUNTS[:, np.newaxis])


def test_a_list_of_frames_is_a_movie(tmp_path: Path) -> None:
    stored = write_movie(tmp_path / "m.zarr", list(COUNTS), profile="lossless")
    np.testing.assert_array_equal(stored[:], COUNTS)
    with pytest.raises(InvalidMovieError, match=r"entry 3 of the list is uint16 of shape \(8, 20\)"):
        as_source([*COUNTS[:3], COUNTS[3, :8]])
    with pytest.raises(InvalidMovieError, match=r"numpy.concatenate\(arrays\) for runs of frames"):
        as_source([COUNTS, COUNTS])


def test_a_generator_is_told_the_lines_that_store_it() -> None:
    with pytest.raises(MovieTypeError, match=r"yields its frames only once.*PhotonWriter\(path\).*append\(frame\)"):
        as_source(frame for frame in COUNTS)


def recording(shape: tuple[int, int, int]) -> Any:
    """Dim cells that flicker, in frames that are smooth over a few pixels."""
    rng = np.random.default_rng(0)
    t, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    rate = 5 + 40 * np.exp(-((y - shape[1] / 2) ** 2 + (x - shape[2] / 3) ** 2) / 40) * (1 + 0.5 * np.sin(t / 3))
    return rng.poisson(rate).astype(np.uint16)


@pytest.mark.parametrize("shape", [(40, 64, 64), (200, 64, 64), (64, 64, 64), (100, 48, 80)])
def test_time_that_comes_last_is_told(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    movie = recording(shape)
    warn_of_time_last(movie)
    with pytest.warns(SourceWarning, match=r"its last axis looks like time.*numpy.moveaxis\(movie, -1, 0\)"):
        write_movie(tmp_path / "wrong", np.moveaxis(movie, 0, -1), profile="lossless")


@pytest.mark.parametrize("kind", ["flash", "noise", "stripes", "lines"])
def test_time_that_comes_first_is_not_told_off(kind: str) -> None:
    rng = np.random.default_rng(0)
    rate = np.full((48, 64, 64) if kind == "lines" else (64, 64, 48), 20.0)
    if kind == "flash":
        rate[::2] = 200
    elif kind == "lines":  # that flicker, as of a laser: alike along the last axis only
        rate *= rng.gamma(4, 0.25, size=(48, 64, 1))
    elif kind == "stripes":
        rate[:, ::2] = 40
    warn_of_time_last(rng.poisson(rate).astype(np.uint16))
