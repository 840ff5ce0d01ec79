"""open_source on TIFF: stacks as ImageJ, OME writers, tifffile and ScanImage leave them, and as accidents do."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import ConfigurationError, SourceError, SourceWarning, open_source, write_movie
from dj_photon_codecs.storage import layout as layout_module

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).poisson(20, size=(7, 3, 2, 16, 20)).astype(np.uint16)  # TZCYX

#: What ScanImage writes into the Software tag of every page, cut to what says the order of pages and a few lines around
#: it. Spelled as in files of ScanImage 2018 and 2022 that public tests and issue threads quote.
SETTINGS_2022 = """SI.LINE_FORMAT_VERSION = 1
SI.TIFF_FORMAT_VERSION = 4
SI.VERSION_MAJOR = 2022
SI.acqState = 'grab'
SI.hChannels.channelAdcResolution = {{14 14 14 14}}
SI.hChannels.channelName = {{'Channel 1' 'Channel 2' 'Channel 3' 'Channel 4'}}
SI.hChannels.channelSave = {channels}
SI.hChannels.channelsActive = {channels}
SI.hFastZ.discardFlybackFrames = {discard}
SI.hFastZ.enable = {fast}
SI.hFastZ.numDiscardFlybackFrames = {flyback}
SI.hRoiManager.mroiEnable = false
SI.hScan2D.logAverageFactor = {averaged}
SI.hScan2D.logFramesPerFile = 100
SI.hStackManager.actualNumSlices = {slices}
SI.hStackManager.enable = {enable}
SI.hStackManager.framesPerSlice = {frames}
SI.hStackManager.numFramesPerVolume = {per_volume}
SI.hStackManager.numFramesPerVolumeWithFlyback = {with_flyback}
SI.hStackManager.numSlices = {slices}
SI.hStackManager.numVolumes = 100
SI.hStackManager.zs = [0 20 40]
SI.imagingSystem = 'Imaging_RGG'"""
SETTINGS_2018 = """SI.LINE_FORMAT_VERSION = 1
SI.TIFF_FORMAT_VERSION = 3
SI.VERSION_MAJOR = '2018b'
SI.hChannels.channelSave = {channels}
SI.hFastZ.discardFlybackFrames = {discard}
SI.hFastZ.enable = {fast}
SI.hFastZ.numDiscardFlybackFrames = {flyback}
SI.hFastZ.numFramesPerVolume = {with_flyback}
SI.hFastZ.numVolumes = 100
SI.hStackManager.framesPerSlice = {frames}
SI.hStackManager.numSlices = {slices}"""


def settings(template: str = SETTINGS_2022, **values: Any) -> str:
    given: dict[str, Any] = {
        "channels": "1",
        "discard": "true",
        "enable": "true",
        "fast": "true",
        "flyback": 0,
        "frames": 1,
        "averaged": 1,
        "slices": 1,
    } | values
    per_volume = given["slices"] * (given["frames"] if isinstance(given["frames"], int) else 1)
    with_flyback = per_volume + given["flyback"]
    return template.format(**{"per_volume": per_volume, "with_flyback": with_flyback} | given)


def write_scanimage(path: Path, pages: Any, software: str, first: int = 1, in_description: bool = False) -> Path:
    """A BigTIFF file, a page a time, each with ScanImage's two texts; the channels of a frame share its number."""
    saved = re.search(r"channelSave = (.*)", software)
    channels = len(re.findall(r"\d+", saved[1])) if saved else 1
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for place, page in enumerate(pages, first - 1):
            number = place // channels + 1
            description = (
                f"frameNumbers = {number}\nacquisitionNumbers = 1\nframeNumberAcquisition = {number}\n"
                f"frameTimestamps_sec = {number / 30:.6f}\nepoch = [2023  5  1 12  0  0.000]\n"
            )
            texts: dict[str, Any]
            if in_description:
                texts = {"description": description + software.replace("SI.", "scanimage.SI."), "software": False}
            else:
                texts = {"description": description, "software": software}
            file.write(page, contiguous=False, metadata=None, **texts)
    return path


def pages_of(volumes: np.ndarray, flyback: int = 0) -> np.ndarray:
    """The pages of (time, plane, channel, height, width), channels fastest, with empty flyback frames."""
    padded = np.pad(volumes, [(0, 0), (0, flyback), (0, 0), (0, 0), (0, 0)])
    return padded.reshape(-1, *volumes.shape[3:])


# ---- plain stacks, ImageJ, OME


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": {"axes": "TYX"}},
        {},
        {"metadata": {"axes": "TYX"}, "imagej": True},
        {"metadata": {"axes": "TYX"}, "ome": True},
        {"bigtiff": True},
        {"truncate": True},
        {"metadata": None, "compression": "zlib"},
        {"metadata": None, "compression": "lzw"},
        {"metadata": {"axes": "TYX"}, "ome": True, "compression": "zlib", "predictor": True},
        {"metadata": None, "byteorder": ">"},
        {"metadata": {"axes": "TYX"}, "imagej": True, "byteorder": ">"},
        {"metadata": None, "tile": (16, 16)},
        {"metadata": {"axes": "TYX"}, "rowsperstrip": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_a_stack_opens_as_a_movie(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    counts = COUNTS.astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", counts, **options)
    with open_source(tmp_path / "m.tif") as movie:
        assert (movie.shape, movie.dtype, movie.axes) == (counts.shape, counts.dtype, ("time", "height", "width"))
        np.testing.assert_array_equal(movie[3:8], counts[3:8])
        np.testing.assert_array_equal(movie[::5], counts[::5])


@pytest.mark.parametrize("options", [{"metadata": None}, {}, {"compression": "zlib"}], ids=str)
def test_a_stack_written_frame_by_frame_opens_as_a_movie(tmp_path: Path, options: dict[str, Any]) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for frame in COUNTS:
            file.write(frame, contiguous=False, **options)
    with open_source(tmp_path / "m.tif") as movie:
        np.testing.assert_array_equal(movie[:], COUNTS)


def test_signed_counts_of_a_stack_stay_signed(tmp_path: Path) -> None:
    signed = COUNTS.astype(np.int16) - 20
    tifffile.imwrite(tmp_path / "m.tif", signed, metadata=None)
    with open_source(tmp_path / "m.tif") as movie:
        np.testing.assert_array_equal(movie[:], signed)


@pytest.mark.parametrize(
    ("axes", "writer"),
    [("TZCYX", {"imagej": True})]  # the only order that ImageJ knows
    + [
        (axes, {"ome": True} | compression)
        for axes in ("TZCYX", "TCZYX", "ZCTYX")
        for compression in ({}, {"compression": "zlib"})
    ],
    ids=str,
)
def test_hyperstacks_open_by_the_axes_of_their_metadata(tmp_path: Path, writer: dict[str, Any], axes: str) -> None:
    stored = VOLUMES.transpose(["TZCYX".index(letter) for letter in axes])
    tifffile.imwrite(tmp_path / "m.tif", stored, metadata={"axes": axes}, **writer)
    for channel in (0, 1):
        with open_source(tmp_path / "m.tif", channel=channel) as movie:
            assert movie.axes == ("time", "plane", "height", "width")
            np.testing.assert_array_equal(movie[2:6], VOLUMES[2:6, :, channel])
    with open_source(tmp_path / "m.tif", channel=1, planes=[2, 0]) as movie:
        np.testing.assert_array_equal(movie[1:3], VOLUMES[1:3, [2, 0], 1])
    with pytest.raises(SourceError, match=r"m.tif holds 2 channels.*channel=0\) to channel=1"):
        open_source(tmp_path / "m.tif")


@pytest.mark.parametrize("writer", [{"imagej": True}, {"ome": True}, {}], ids=str)
def test_depth_without_time_is_not_taken_for_time(tmp_path: Path, writer: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "m.tif", COUNTS, metadata={"axes": "ZYX"}, **writer)
    with pytest.raises(SourceError, match=r"m.tif has axes ZYX .* nothing says which of them is time"):
        open_source(tmp_path / "m.tif")
    with open_source(tmp_path / "m.tif", axes="TYX") as movie:
        np.testing.assert_array_equal(movie[3:6], COUNTS[3:6])
    with open_source(tmp_path / "m.tif", axes="ZYX") as volume:
        assert volume.shape == (1, *COUNTS.shape)


def test_axes_that_nobody_named_are_not_guessed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", VOLUMES[:, :, 0].astype(np.int16), photometric="minisblack")
    with pytest.raises(SourceError, match="has axes QQYX"):
        open_source(tmp_path / "m.tif")
    with open_source(tmp_path / "m.tif", axes="TZYX") as movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:, :, 0])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_are_channels(tmp_path: Path, planar: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, size=(5, 16, 20, 3), dtype=np.uint8)
    stored = colours if planar == "contig" else np.moveaxis(colours, -1, 1)
    tifffile.imwrite(tmp_path / "m.tif", stored, photometric="rgb", planarconfig=planar, metadata=None)
    with pytest.raises(SourceError, match="holds 3 channels"):
        open_source(tmp_path / "m.tif")
    with open_source(tmp_path / "m.tif", channel=2) as movie:
        np.testing.assert_array_equal(movie[1:4], colours[1:4, ..., 2])


def test_pages_are_arranged_as_the_caller_says(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", VOLUMES.reshape(-1, 16, 20), metadata=None)
    with open_source(tmp_path / "m.tif", shape=(-1, 3, 2, 16, 20), axes="TZCYX", channel=1) as movie:
        np.testing.assert_array_equal(movie[2:5], VOLUMES[2:5, :, 1])
    with pytest.raises(SourceError, match=r"m.tif has 42 pages .* which are not shape=\(-1, 4, 2, 16, 20\)"):
        open_source(tmp_path / "m.tif", shape=(-1, 4, 2, 16, 20), axes="TZCYX", channel=1)
    with pytest.raises(ConfigurationError, match="needs axes="):
        open_source(tmp_path / "m.tif", shape=(-1, 3, 2, 16, 20))


# ---- several files


@pytest.mark.parametrize("options", [{"metadata": None}, {"metadata": {"axes": "TYX"}, "imagej": True}], ids=str)
def test_files_of_a_recording_follow_each_other(tmp_path: Path, options: dict[str, Any]) -> None:
    for number, part in enumerate(np.split(COUNTS, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]), 1):
        tifffile.imwrite(tmp_path / f"file_{number}.tif", part, **options)
    for path in (tmp_path, tmp_path / "file_*.tif"):
        with open_source(path) as movie:
            for start in range(0, 12, 2):
                np.testing.assert_array_equal(movie[start : start + 5], COUNTS[start : start + 5])


@pytest.mark.parametrize("writer", [{"imagej": True}, {"ome": True}], ids=str)
def test_the_last_file_of_a_recording_may_hold_one_volume(tmp_path: Path, writer: dict[str, Any]) -> None:
    for number, part in enumerate(np.split(VOLUMES, [3, 6])):
        tifffile.imwrite(tmp_path / f"{number}.tif", part, metadata={"axes": "TZCYX"}, **writer)
    with open_source(tmp_path, channel=1) as movie:
        np.testing.assert_array_equal(movie[2:], VOLUMES[2:, :, 1])


@pytest.mark.parametrize("writer", [{"imagej": True}, {"ome": True}, {}], ids=str)
def test_files_of_one_volume_each_are_opened_as_told(tmp_path: Path, writer: dict[str, Any]) -> None:
    for number, volume in enumerate(VOLUMES[:, :, 0]):
        tifffile.imwrite(
            tmp_path / f"{number}.tif", volume, metadata={"axes": "ZYX"}, photometric="minisblack", **writer
        )
    with pytest.raises(SourceError, match="nothing says which of them is time"):
        open_source(tmp_path)
    with open_source(tmp_path, axes="ZYX") as movie:
        np.testing.assert_array_equal(movie[2:], VOLUMES[2:, :, 0])


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"imagej": True, "byteorder": ">"}], ids=str)
def test_a_folder_of_single_frames_is_a_movie(tmp_path: Path, options: dict[str, Any]) -> None:
    for number, frame in enumerate(COUNTS):
        tifffile.imwrite(tmp_path / f"frame{number}.tiff", frame, **options)
    with open_source(tmp_path) as movie:
        np.testing.assert_array_equal(movie[:], COUNTS)


def ome_set(folder: Path) -> None:
    """Two files that one OME document describes, as Micro-Manager and Prairie View write them."""
    names = ("img_2.ome.tif", "img_10.ome.tif")
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{number}" for number in (1, 2)]
    data = "".join(
        f'<TiffData IFD="{i}" FirstT="{6 * file + i}" FirstC="0" FirstZ="0" PlaneCount="1">'
        f'<UUID FileName="{names[file]}">{uuids[file]}</UUID></TiffData>'
        for file, i in itertools.product((0, 1), range(6))
    )
    for file, name in enumerate(names):
        document = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuids[file]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            'SizeX="20" SizeY="16" SizeZ="1" SizeC="1" SizeT="12"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{data}</Pixels></Image></OME>"
        )
        part = COUNTS[6 * file : 6 * file + 6]
        tifffile.imwrite(folder / name, part, description=document, metadata=None, contiguous=False)


@pytest.mark.parametrize("name", ["", "img_2.ome.tif", "img_10.ome.tif", "*.tif"])
def test_an_ome_set_is_opened_once_from_any_of_its_files(tmp_path: Path, name: str) -> None:
    ome_set(tmp_path)
    with open_source(tmp_path / name) as movie:
        assert movie.shape == COUNTS.shape
        np.testing.assert_array_equal(movie[4:9], COUNTS[4:9])


def test_an_ome_set_that_lacks_a_file_says_so(tmp_path: Path) -> None:
    """Where tifffile gives zeros."""
    ome_set(tmp_path)
    (tmp_path / "img_10.ome.tif").unlink()
    with pytest.raises(
        SourceError, match="recording in 2 files, and 1 of them are missing from its folder: img_10.ome.tif"
    ):
        open_source(tmp_path / "img_2.ome.tif")


def test_a_file_outside_of_an_ome_set_is_named(tmp_path: Path) -> None:
    ome_set(tmp_path)
    tifffile.imwrite(tmp_path / "other.tif", COUNTS, metadata=None)
    with pytest.raises(SourceError, match=r"set of 2 OME-TIFF files, and .*other.tif is not among them"):
        open_source(tmp_path)


# ---- ScanImage


@pytest.mark.parametrize("template", [SETTINGS_2022, SETTINGS_2018], ids=["2022", "2018"])
@pytest.mark.parametrize("in_description", [False, True], ids=["software", "description"])
@pytest.mark.parametrize("flyback", [0, 2])
def test_scanimage_volumes_are_sorted_by_plane_and_channel(
    tmp_path: Path, template: str, in_description: bool, flyback: int
) -> None:
    """Channels are interleaved, and flyback frames at the end of a volume are left out."""
    text = settings(template, channels="[1;3]", slices=3, flyback=flyback)
    path = write_scanimage(tmp_path / "m.tif", pages_of(VOLUMES, flyback), text, in_description=in_description)
    for channel in (0, 1):
        with open_source(path, channel=channel) as movie:
            assert movie.axes == ("time", "plane", "height", "width")
            np.testing.assert_array_equal(movie[1:5], VOLUMES[1:5, :, channel])
    with open_source(path, channel=0, planes=1) as movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:, 1, 0])
    with pytest.raises(SourceError, match=r"m.tif holds 2 channels.*channel=0\) to channel=1"):
        open_source(path)


@pytest.mark.parametrize("channels", ["1", "[1]", "[1 2]", "[1;2]", "[1,2]"])
def test_scanimage_channels_are_counted_as_matlab_writes_them(tmp_path: Path, channels: str) -> None:
    path = write_scanimage(tmp_path / "m.tif", COUNTS, settings(channels=channels, enable="false", fast="false"))
    count = 1 if channels in ("1", "[1]") else 2
    with open_source(path, channel=count - 1) as movie:
        np.testing.assert_array_equal(movie[:], COUNTS[count - 1 :: count])


def test_scanimage_with_one_plane_is_a_movie_whatever_its_frames_per_slice(tmp_path: Path) -> None:
    for frames in (1, 12, 500, "inf"):
        text = settings(SETTINGS_2018, frames=frames, fast="false", slices=1)
        with open_source(write_scanimage(tmp_path / "m.tif", COUNTS, text)) as movie:
            np.testing.assert_array_equal(movie[:], COUNTS)


def test_scanimage_slices_that_are_switched_off_do_not_count(tmp_path: Path) -> None:
    path = write_scanimage(tmp_path / "m.tif", COUNTS, settings(slices=3, enable="false", fast="false"))
    assert open_source(path).shape == COUNTS.shape


@pytest.mark.parametrize("template", [SETTINGS_2022, SETTINGS_2018], ids=["2022", "2018"])
def test_scanimage_slow_stacks_hold_the_frames_of_a_slice_together(tmp_path: Path, template: str) -> None:
    slow = COUNTS.reshape(3, 4, 16, 20)  # slice, frame
    path = write_scanimage(tmp_path / "m.tif", COUNTS, settings(template, slices=3, frames=4, fast="false"))
    with open_source(path) as movie:
        np.testing.assert_array_equal(movie[:], slow.swapaxes(0, 1))


def test_scanimage_averaged_frames_count_once(tmp_path: Path) -> None:
    text = settings(slices=3, frames=20, averaged=5, fast="false")
    with open_source(write_scanimage(tmp_path / "m.tif", COUNTS, text)) as movie:
        assert movie.shape == (4, 3, 16, 20)


def test_scanimage_volumes_may_go_on_in_the_next_file(tmp_path: Path) -> None:
    pages = pages_of(VOLUMES, 1)
    text = settings(channels="[1 2]", slices=3, flyback=1)
    for number, (start, stop) in enumerate(itertools.pairwise([0, 5, 21, 22, 40, 56]), 1):
        write_scanimage(tmp_path / f"m_00001_{number:05}.tif", pages[start:stop], text, first=start + 1)
    with open_source(tmp_path / "m_00001_*.tif", channel=1) as movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:, :, 1])
        np.testing.assert_array_equal(movie[2:4], VOLUMES[2:4, :, 1])


def test_a_scanimage_volume_that_is_not_complete_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_scanimage(tmp_path / "m.tif", pages_of(VOLUMES)[:-2], settings(channels="[1 2]", slices=3))
    with pytest.warns(SourceWarning, match="m.tif ends within a volume: its last 4 of 6 pages are left out") as caught:
        movie = open_source(path, channel=0)
    assert caught[0].filename == __file__
    with movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:6, :, 0])


def test_scanimage_acquisitions_that_would_mix_up_planes_are_refused(tmp_path: Path) -> None:
    text = settings(channels="[1 2]", slices=3)
    write_scanimage(tmp_path / "m_00001.tif", pages_of(VOLUMES)[:-1], text)
    write_scanimage(tmp_path / "m_00002.tif", pages_of(VOLUMES), text)
    with pytest.raises(SourceError, match=r"m_00001.tif ends within a volume, and .*m_00002.tif begins another"):
        open_source(tmp_path, channel=0)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("SI.VERSION_MAJOR = 5", "unknown version of ScanImage: give the order of its pages"),
        (settings(SETTINGS_2018, slices=3, frames="inf", fast="false"), "how many frames each of its 3 slices has"),
        (settings(SETTINGS_2018, slices=3, with_flyback=7), "3 slices and 0 flyback frames, but volumes of 7"),
        (settings(slices=3, per_volume=4), "volumes of 4 frames and 3 slices"),
        (settings(slices=300), "has 42 pages, and one volume takes 300"),
    ],
    ids=["old", "infinite", "2018", "2022", "few"],
)
def test_scanimage_settings_that_do_not_say_are_not_guessed(tmp_path: Path, text: str, match: str) -> None:
    path = write_scanimage(tmp_path / "m.tif", pages_of(VOLUMES), text)
    with pytest.raises(SourceError, match=match):
        open_source(path)
    with open_source(path, shape=(-1, 3, 2, 16, 20), axes="TZCYX", channel=0) as movie:
        np.testing.assert_array_equal(movie[:], VOLUMES[:, :, 0])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_opens_its_own_files(tmp_path: Path) -> None:
    """A position in a file that two processes share would give frames of the wrong place."""
    tifffile.imwrite(tmp_path / "m.tif", COUNTS, compression="zlib")
    with open_source(tmp_path / "m.tif") as movie:
        movie[:2]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            pool.submit(os.getpid).result()
            running = pool.map(movie.__getitem__, range(12))
            for counts, frame in zip(running, COUNTS, strict=True):
                np.testing.assert_array_equal(counts, frame)
                np.testing.assert_array_equal(movie[3:5], COUNTS[3:5])


def test_a_scanimage_file_that_other_software_saved_has_the_axes_of_that_software(tmp_path: Path) -> None:
    text = settings(channels="[1 2]", slices=3)
    tifffile.imwrite(tmp_path / "m.tif", COUNTS, software=text, metadata={"axes": "TYX"})
    assert open_source(tmp_path / "m.tif").shape == COUNTS.shape


# ---- accidents


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"metadata": {"axes": "TYX"}},
        {"metadata": {"axes": "TYX"}, "imagej": True},
        {"metadata": {"axes": "TYX"}, "ome": True},
        {"truncate": True},
    ],
    ids=str,
)
def test_a_truncated_file_is_named(tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """No silent zeros, and no shorter movie, wherever it ends; only metadata behind the last frame may be missing."""
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, COUNTS, **options)
    size = path.stat().st_size
    caplog.set_level(logging.CRITICAL)
    for kept in [*np.linspace(10, size, 50).astype(int)[:-1].tolist(), size - 1]:
        os.truncate(path, kept)
        try:
            movie = open_source(path)
            np.testing.assert_array_equal(movie[:], COUNTS)
        except SourceError as error:
            named = "m.tif" in str(error)
        else:
            movie.close()
            named = kept > size * 0.6
        assert named, kept
        tifffile.imwrite(path, COUNTS, **options)


def test_a_truncated_scanimage_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_scanimage(tmp_path / "m.tif", COUNTS, settings())
    os.truncate(path, path.stat().st_size * 3 // 4)
    with caplog.at_level(logging.CRITICAL), pytest.raises(SourceError, match="m.tif is truncated .* aborted"):
        open_source(path)


def test_a_page_of_another_shape_is_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for number, frame in enumerate(COUNTS):
            file.write(frame if number != 7 else frame[:8], contiguous=False, metadata=None)
    with open_source(tmp_path / "m.tif") as movie:
        np.testing.assert_array_equal(movie[:7], COUNTS[:7])
        with pytest.raises(SourceError, match=r"m.tif: page 7 holds uint16 of shape \(8, 20\)"):
            movie[5:9]


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, COUNTS, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[5].dataoffsets[0]
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(20))
    with open_source(path) as movie:
        np.testing.assert_array_equal(movie[:5], COUNTS[:5])
        with pytest.raises(SourceError, match="m.tif: page 5 cannot be decoded"):
            movie[4:6]


@pytest.mark.parametrize("content", [b"II*\0", b"II*\0" + b"\xff" * 60, b"MM\0*\0\0\0\x08" + bytes(60)], ids=repr)
def test_what_only_begins_as_tiff_is_named(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "m.tif").write_bytes(content)
    with caplog.at_level(logging.CRITICAL), pytest.raises(SourceError, match="m.tif"):
        open_source(tmp_path / "m.tif")


def test_without_tifffile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "m.tif", COUNTS)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r'TIFF files need tifffile: pip install "dj-photon-codecs\[tiff\]"'):
        open_source(tmp_path / "m.tif")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scanimage", "imagej", "zlib"])
def test_a_stack_larger_than_the_memory_it_may_take_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Invariant 7."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 1 << 20)
    monkeypatch.setattr(layout_module, "CHUNK_PIXELS", 1 << 18)
    counts = np.random.default_rng(0).integers(90, 94, size=(64, 512, 512), dtype=np.uint16)
    path = tmp_path / "m.tif"
    if kind == "scanimage":
        write_scanimage(path, counts, settings())
    elif kind == "imagej":
        tifffile.imwrite(path, counts, imagej=True, metadata={"axes": "TYX"})
    else:
        tifffile.imwrite(path, counts, compression="zlib", compressionargs={"level": 1})
    open_source(path)[:1]  # what is imported on the way
    tracemalloc.start()
    try:
        stored = write_movie(tmp_path / "stored", path, profile="lossless")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20 < counts.nbytes
    np.testing.assert_array_equal(stored[-5:], counts[-5:])


def test_a_crop_of_arranged_pages_reads_no_more_of_a_page() -> None:
    from dj_photon_codecs.sources.stack import Index, Stack
    from dj_photon_codecs.sources.tiff import _page_table

    counts = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    asked: list[Index] = []

    def read(index: Index) -> Any:
        asked.append(index)
        return counts[index]

    pages = Stack("scan.tif", "TYX", counts.shape, counts.dtype, read, lambda: None)
    found = _page_table(pages, "TC", np.arange(6).reshape(3, 2)).read((slice(1, 3), slice(2), slice(1, 2), slice(3)))
    np.testing.assert_array_equal(found, counts.reshape(3, 2, 5, 4)[1:3, :, 1:2, :3])
    assert [index[1:] for index in asked] == [(slice(1, 2), slice(3))] * 4
