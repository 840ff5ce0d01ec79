"""open_source on folders as rigs and accidents leave them: one movie, whole, in order, or the user is told."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import (
    MovieTypeError,
    SourceError,
    SourceNotFoundError,
    SourceWarning,
    open_source,
    write_movie,
)

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)
HYPER = (
    np.random.default_rng(1).poisson(20, size=(3, 2, 4, 3, 16, 20)).astype(np.uint16)
)  # position, channel, T, Z, Y, X


def save(path: Path, counts: Any, **options: Any) -> None:
    tifffile.imwrite(path, counts, **{"metadata": None, "photometric": "minisblack"} | options)


def frames_in(folder: Path, stem: str = "frame", counts: Any = COUNTS) -> None:
    for number, frame in enumerate(counts, 1):
        save(folder / f"{stem}{number}.tif", frame)


# ---- channels, planes and positions by the names of files


def prairie(folder: Path, movie: Any, xml: str | None = None, label: str = "CurrentSettings_") -> None:
    """(channel, cycle, image, height, width), a file an image."""
    for channel, cycles in enumerate(movie, 1):
        for cycle, images in enumerate(cycles, 1):
            for number, image in enumerate(images, 1):
                save(folder / f"T_Cycle{cycle:05}_{label}Ch{channel}_{number:06}.tif", image)
    if xml is not None:
        (folder / "T.xml").write_text(prairie_xml(len(movie), len(movie[0]), len(movie[0][0]), xml, label))


def prairie_xml(
    channels: int, cycles: int, images: int, kind: str, label: str = "CurrentSettings_", bidirectional: bool = False
) -> str:
    """As Prairie View 5 writes it, cut to what is read."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>\n<PVScan version="5.4.64.700" date="5/1/2023 1:02:03 PM" notes="">',
        '<PVStateShard><PVStateValue key="framePeriod" value="0.05" /><PVStateValue key="micronsPerPixel">',
        '<IndexedValue index="XAxis" value="0.5" /><IndexedValue index="YAxis" value="0.6" />',
        '<IndexedValue index="ZAxis" value="5" /></PVStateValue></PVStateShard>',
    ]
    for cycle in range(1, cycles + 1):
        lines.append(f'<Sequence type="{kind}" cycle="{cycle}" bidirectionalZ="{bidirectional}">')
        for number in range(1, images + 1):
            seconds = 0.05 * ((cycle - 1) * images + number - 1)
            lines.append(f'<Frame relativeTime="{seconds}" absoluteTime="{seconds + 2}" index="{number}">')
            lines += [
                f'<File channel="{c}" channelName="Ch{c}" page="1" '
                f'filename="T_Cycle{cycle:05}_{label}Ch{c}_{number:06}.tif" />'
                for c in range(1, channels + 1)
            ]
            lines.append("</Frame>")
        lines.append("</Sequence>")
    return "\n".join([*lines, "</PVScan>"])


@pytest.mark.parametrize("xml", [None, "TSeries Timed Element"])
def test_channels_of_prairie_are_never_mixed(tmp_path: Path, xml: str | None) -> None:
    movie = HYPER[:2, :1].reshape(2, 1, 12, 16, 20)
    prairie(tmp_path, movie, xml)
    with pytest.raises(SourceError, match=r"holds 2 channels.*channel=0\) to channel=1"):
        open_source(tmp_path)
    for channel in (0, 1):
        for path in (tmp_path, tmp_path / f"*Ch{channel + 1}*.tif"):
            with open_source(path, channel=channel if path == tmp_path else None) as opened:
                np.testing.assert_array_equal(opened[:], movie[channel, 0])


def test_files_of_prairie_with_all_frames_of_a_channel(tmp_path: Path) -> None:
    for channel in (1, 2):
        tifffile.imwrite(
            tmp_path / f"T_Cycle00001_Ch{channel}_000001.ome.tif", COUNTS + channel, ome=True, metadata={"axes": "TYX"}
        )
    with pytest.raises(SourceError, match="holds 2 channels"):
        open_source(tmp_path)
    for channel in (0, 1):
        np.testing.assert_array_equal(open_source(tmp_path, channel=channel)[:], COUNTS + channel + 1)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_volumes_of_prairie_come_by_its_xml(tmp_path: Path, bidirectional: bool) -> None:
    movie = HYPER[0]  # channel, cycle, plane
    stored = movie.copy()
    if bidirectional:
        stored[:, 1::2] = movie[:, 1::2, ::-1]
    prairie(tmp_path, stored)
    (tmp_path / "T.xml").write_text(prairie_xml(2, 4, 3, "TSeries ZSeries Element", bidirectional=bidirectional))
    for channel in (0, 1):
        with open_source(tmp_path, channel=channel) as opened:
            assert opened.axes == ("time", "plane", "height", "width")
            np.testing.assert_array_equal(opened[:], movie[channel])
            np.testing.assert_array_equal(opened[1:3], movie[channel, 1:3])
    np.testing.assert_array_equal(open_source(tmp_path, channel=1, planes=2)[:], movie[1, :, 2])
    metadata = open_source(tmp_path, channel=1).metadata
    assert metadata["TimeIncrement"] == pytest.approx(0.15)
    assert metadata["PhysicalSizeZ"] == 5


def test_cycles_of_prairie_that_follow_each_other_in_time(tmp_path: Path) -> None:
    prairie(tmp_path, HYPER[0, :1], "TSeries Timed Element")
    np.testing.assert_array_equal(open_source(tmp_path)[:], HYPER[0, 0].reshape(12, 16, 20))


def test_volumes_of_prairie_without_its_xml_are_told(tmp_path: Path) -> None:
    prairie(tmp_path, HYPER[0, :1])
    with pytest.warns(SourceWarning, match="4 cycles of 3 images are volumes or time series"):
        movie = open_source(tmp_path)
    np.testing.assert_array_equal(movie[:], HYPER[0, 0])
    np.testing.assert_array_equal(open_source(tmp_path, axes="TYX")[:], HYPER[0, 0].reshape(12, 16, 20))


def test_an_aborted_volume_of_prairie_is_left_out_and_told(tmp_path: Path) -> None:
    prairie(tmp_path, HYPER[0, :1], "TSeries ZSeries Element")
    (tmp_path / "T_Cycle00004_CurrentSettings_Ch1_000003.tif").unlink()
    with pytest.warns(SourceWarning) as told:
        movie = open_source(tmp_path)
    assert "1 of 12 files that the XML file of Prairie View names are missing: T_Cycle00004" in str(told[0].message)
    assert "the last volume has 2 of 3 planes, and is left out" in str(told[1].message)
    np.testing.assert_array_equal(movie[:], HYPER[0, 0, :3])
    (tmp_path / "T_Cycle00002_CurrentSettings_Ch1_000003.tif").unlink()
    with (
        pytest.warns(SourceWarning),
        pytest.raises(SourceError, match="of the volume 2 there are no files for the planes 3"),
    ):
        open_source(tmp_path)


REAL = Path(__file__).parents[1] / "data" / "rigs"


def test_a_real_recording_of_prairie_says_what_is_missing() -> None:
    with pytest.warns(SourceWarning, match=r"155 of 159 files .* are missing: .*Ch2_000005.tif, ") as told:
        movie = open_source(REAL / "prairie")
    assert len(told) == 1
    with movie:
        assert (movie.shape, movie.dtype) == ((4, 26, 34), np.dtype(np.uint16))
        for number in range(4):
            name = f"TSeries-02032010-1558-002_Cycle001_CurrentSettings_Ch2_00000{number + 1}.tif"
            np.testing.assert_array_equal(movie[number], tifffile.imread(REAL / "prairie" / name))
        assert movie.metadata["TimeIncrement"] == pytest.approx(0.34736, rel=1e-3)
        assert movie.metadata["PhysicalSizeX"] == pytest.approx(0.4397, rel=1e-3)
        assert movie.metadata["AcquisitionDate"] == "2010-02-08T17:07:37"
        assert len(movie.metadata["DeltaT"]) == 4
        assert movie.metadata["Channel"] == {"Name": "Ch2"}


@pytest.mark.parametrize("pages", [1, 5], ids=["a file an image", "a file a plane"])
def test_separate_images_of_micromanager(tmp_path: Path, pages: int) -> None:
    for p, c, t, z in np.ndindex(*HYPER.shape[:4]):
        image = HYPER[p, c, t, z]
        if pages == 1:
            save(tmp_path / f"img_channel{c:03}_position{p:03}_time{t:09}_z{z:03}.tif", image)
        elif t == 0:
            save(tmp_path / f"img_channel{c:03}_position{p:03}_time000000000_z{z:03}.tif", HYPER[p, c, :, z])
    with pytest.raises(SourceError, match=r"holds 3 positions.*position=0\) to position=2"):
        open_source(tmp_path, channel=0)
    with pytest.raises(SourceError, match=r"holds 2 channels.*channel=0\) to channel=1"):
        open_source(tmp_path, position=0)
    for p, c in np.ndindex(3, 2):
        with open_source(tmp_path, position=p, channel=c) as movie:
            np.testing.assert_array_equal(movie[:], HYPER[p, c])
            np.testing.assert_array_equal(movie[1:3], HYPER[p, c, 1:3])


def test_planes_of_different_lengths_are_told(tmp_path: Path) -> None:
    for z, frames in ((0, 4), (1, 3)):
        save(tmp_path / f"m_z{z}.tif", HYPER[0, 0, :frames, z])
    with pytest.raises(SourceError, match=r"m_z1.tif has 3 frames, and .*m_z0.tif, another plane, 4"):
        open_source(tmp_path)


def test_channels_of_micromanager_by_name(tmp_path: Path) -> None:
    for c, t in np.ndindex(2, 4):
        save(tmp_path / f"img_{t:09}_{('Cy5', 'GFP')[c]}_000.tif", HYPER[0, c, t, 0])
    with pytest.raises(SourceError, match=r"holds 2 channels.*\(Cy5, GFP\)"):
        open_source(tmp_path)
    movie = open_source(tmp_path, channel=1)
    np.testing.assert_array_equal(movie[:], HYPER[0, 1, :, 0])
    assert movie.metadata["Channel"] == {"Name": "GFP"}


# ---- NDTiff


def test_a_real_ndtiff_data_set() -> None:
    movies = [open_source(REAL / "ndtiff", channel=channel) for channel in (0, 1)]
    with tifffile.TiffFile(REAL / "ndtiff" / "12_bit_pycromanager_mda_NDTiffStack.tif") as file:
        pages = np.stack([page.asarray() for page in file.pages]).reshape(4, 2, 64, 64)
    for channel, movie in enumerate(movies):
        np.testing.assert_array_equal(movie[:], pages[:, channel])
        assert movie.metadata["PhysicalSizeX"] == 1


def test_an_ndtiff_data_set_without_its_index_is_told(tmp_path: Path) -> None:
    shutil.copy(REAL / "ndtiff" / "12_bit_pycromanager_mda_NDTiffStack.tif", tmp_path)
    with pytest.raises(SourceError, match=r"there is no NDTiff.index beside it.*shape=\(-1, channels"):
        open_source(tmp_path)
    movie = open_source(tmp_path, shape=(-1, 2, 64, 64), axes="TCYX", channel=1)
    np.testing.assert_array_equal(movie[:], open_source(REAL / "ndtiff", channel=1)[:])


# ---- damaged and missing files


@pytest.mark.parametrize("damage", ["empty", "zeros", "short", "header"])
@pytest.mark.parametrize("number", [1, 5, 12])
def test_a_damaged_file_is_named_and_may_be_left_out(tmp_path: Path, damage: str, number: int) -> None:
    frames_in(tmp_path)
    path = tmp_path / f"frame{number}.tif"
    size = path.stat().st_size
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "zeros":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, size - 100 if damage == "short" else 60)
    with pytest.raises(SourceError, match=rf"frame{number}.tif .*skip_damaged=True"):
        open_source(tmp_path)
    with pytest.warns(SourceWarning, match=rf"1 of 12 files are damaged and left out, 1 frames: .*frame{number}.tif"):
        movie = open_source(tmp_path, skip_damaged=True)
    np.testing.assert_array_equal(movie[:], np.delete(COUNTS, number - 1, axis=0))


def test_a_damaged_file_among_long_ones_counts_its_frames(tmp_path: Path) -> None:
    for number, part in enumerate(np.split(COUNTS, 3)):
        save(tmp_path / f"part_{number}.tif", part)
    os.truncate(tmp_path / "part_1.tif", 700)
    with pytest.raises(SourceError, match="part_1.tif"):
        open_source(tmp_path)
    with pytest.warns(SourceWarning, match="1 of 3 files are damaged and left out, 4 frames"):
        movie = open_source(tmp_path, skip_damaged=True)
    np.testing.assert_array_equal(movie[:], np.delete(COUNTS, range(4, 8), axis=0))


def test_a_damaged_file_is_no_excuse_for_another_movie(tmp_path: Path) -> None:
    frames_in(tmp_path)
    save(tmp_path / "frame5.tif", COUNTS[4, :8])
    with pytest.raises(SourceError, match=r"frame5.tif holds uint16"):
        open_source(tmp_path, skip_damaged=True)


def test_missing_numbers_are_told(tmp_path: Path) -> None:
    frames_in(tmp_path)
    for number in (3, 7, 8):
        (tmp_path / f"frame{number}.tif").unlink()
    with pytest.warns(SourceWarning, match="files are missing between those that are there: number 3, 7-8") as told:
        movie = open_source(tmp_path)
    assert len(told) == 1
    np.testing.assert_array_equal(movie[:], np.delete(COUNTS, [2, 6, 7], axis=0))


# ---- several recordings in a folder


@pytest.mark.parametrize("other", ["AVG_frame.tif", "reference.tif", "frame1_thumb.tif", "second_1.tif"])
def test_a_file_of_something_else_is_not_appended(tmp_path: Path, other: str) -> None:
    frames_in(tmp_path)
    save(tmp_path / other, COUNTS[0])
    with pytest.raises(SourceError, match=r"holds 2 recordings .*frame\*.tif \(12\).*pattern=") as told:
        open_source(tmp_path)
    assert other in str(told.value)
    with pytest.raises(SourceError, match="holds 2 recordings"):
        open_source(tmp_path / "*.tif")
    for pattern in ("frame*[0-9].tif", "frame*.tif"):  # the second is how the error calls the recording
        np.testing.assert_array_equal(open_source(tmp_path, pattern=pattern)[:], COUNTS)


def test_a_pattern_without_files_says_what_is_there(tmp_path: Path) -> None:
    frames_in(tmp_path, counts=COUNTS[:2])
    with pytest.raises(
        SourceNotFoundError, match=r"pattern='cam\*' matches none of the 2 files in .*frame1.tif, frame2.tif"
    ):
        open_source(tmp_path, pattern="cam*")


# ---- lists, brackets, order


def test_a_list_of_files_is_one_movie(tmp_path: Path) -> None:
    frames_in(tmp_path)
    paths = [tmp_path / f"frame{number}.tif" for number in range(1, 13)]
    for given in (paths, tuple(map(str, paths))):
        np.testing.assert_array_equal(open_source(given)[:], COUNTS)
    stored = write_movie(tmp_path / "stored", paths, profile="lossless")
    np.testing.assert_array_equal(stored[:], COUNTS)


def test_a_list_out_of_order_is_sorted_and_told(tmp_path: Path) -> None:
    frames_in(tmp_path)
    paths = sorted(str(path) for path in tmp_path.iterdir())  # 1, 10, 11, 12, 2
    with pytest.warns(SourceWarning, match="not in the order of their numbers, and is read in that order"):
        movie = open_source(paths)
    np.testing.assert_array_equal(movie[:], COUNTS)


def test_a_list_of_several_recordings_keeps_its_order_and_is_told(tmp_path: Path) -> None:
    save(tmp_path / "rest.tif", COUNTS[:5])
    save(tmp_path / "after.tif", COUNTS[5:])
    with pytest.warns(SourceWarning, match=r"holds 2 recordings by their names, after.tif \(1\), rest.tif \(1\)"):
        movie = open_source([tmp_path / "rest.tif", tmp_path / "after.tif"])
    np.testing.assert_array_equal(movie[:], COUNTS)


@pytest.mark.parametrize("given", [[], ["gone.tif"], [""], [1]], ids=str)
def test_a_list_without_files_is_told(given: Any) -> None:
    with pytest.raises(MovieTypeError, match="names no file|there is no file .*gone.tif|got a int"):
        open_source(given)


@pytest.mark.parametrize("name", ["mouse[1]", "a*b", "what?"])
def test_brackets_in_names_are_meant_literally(tmp_path: Path, name: str) -> None:
    if os.name == "nt" and set(name) & set("*?"):
        pytest.skip("Windows has no such names")
    folder = tmp_path / name
    folder.mkdir()
    frames_in(folder, "f[1]_")
    np.testing.assert_array_equal(open_source(folder)[:], COUNTS)
    np.testing.assert_array_equal(open_source(folder / "f[1]_3.tif")[:], COUNTS[2:3])
    np.testing.assert_array_equal(open_source(folder / "f[[]1]_*.tif")[:], COUNTS)


def test_nothing_is_told_where_nothing_is_doubtful(tmp_path: Path) -> None:
    frames_in(tmp_path)
    (tmp_path / "notes.txt").write_text("mouse 7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(tmp_path)


def test_a_number_that_others_should_come_before_is_told(tmp_path: Path) -> None:
    frames_in(tmp_path)
    for number in (1, 2, 3):
        (tmp_path / f"frame{number}.tif").unlink()
    with pytest.warns(SourceWarning, match="the numbers of its files begin at 4; if there were any before"):
        movie = open_source(tmp_path)
    np.testing.assert_array_equal(movie[:], COUNTS[3:])
    np.testing.assert_array_equal(open_source(tmp_path / "frame*.tif")[:], COUNTS[3:])  # which were meant


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    for name in ("Pos0", "Pos1", "Pos10"):
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match="It holds folders, Pos0, Pos1, Pos10: open one of them"):
        open_source(tmp_path)


def test_a_video_that_ends_early_may_be_left_out(tmp_path: Path) -> None:
    from test_sources_video import write_video

    grey = COUNTS.astype(np.uint8)
    for number, part in enumerate(np.split(grey, 3)):
        write_video(tmp_path / f"{number}.avi", part, "rawvideo", "gray")
    os.truncate(tmp_path / "1.avi", (tmp_path / "1.avi").stat().st_size // 2)
    with pytest.raises(SourceError, match=r"1.avi.*skip_damaged=True"):
        open_source(tmp_path)
    with pytest.warns(SourceWarning, match="1 of 3 files are damaged and left out, 4 frames"):
        movie = open_source(tmp_path, skip_damaged=True)
    np.testing.assert_array_equal(movie[:], np.delete(grey, range(4, 8), axis=0))
