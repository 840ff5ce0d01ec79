"""Kinds of files that public bug reports of other readers tell of: each is read whole and in order, or told."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dj_photon_codecs import PhotonCodecError, open_source
from test_sources_formats import ome_document, thor_xml, write_imagej, write_scanbox
from test_sources_rigs import prairie_xml
from test_sources_tiff import settings, write_scanimage

COUNTS = np.random.default_rng(0).poisson(20, size=(12, 16, 20)).astype(np.uint16)


@dataclass
class Case:
    """What is opened, and what it is to be: frames, a warning, or an error."""

    path: Any
    frames: Any = None
    says: str = ""
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Callable[[Path], Case]] = {}


def case(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
    CASES[(make.__doc__ or make.__name__).strip(".")] = make
    return make


def save(path: Path, counts: Any, **options: Any) -> Path:
    tifffile.imwrite(path, counts, **{"metadata": None, "photometric": "minisblack"} | options)
    return path


@case
def old_scanimage(folder: Path) -> Case:
    """Old ScanImage, whose pages are guessed from the size of the file: a frame more or less."""
    header = "scanimage.SI4.channelsSave = 1\nscanimage.SI4.stackNumSlices = 1\n"
    with tifffile.TiffWriter(folder / "a_001.tif") as file:
        for number, frame in enumerate(COUNTS):
            text = f"Frame Tag = {number:08}\n{header}"
            file.write(frame, contiguous=False, metadata=None, description=text)
    with (folder / "a_001.tif").open("ab") as raw:
        raw.write(bytes(2 * COUNTS[0].nbytes))
    with tifffile.TiffFile(folder / "a_001.tif") as guessed:
        assert len(guessed.pages) != 12
    return Case(folder / "a_001.tif", COUNTS)


@case
def single_frame_scanimage(folder: Path) -> Case:
    """ScanImage files with one frame each."""
    for number, frame in enumerate(COUNTS):
        write_scanimage(folder / f"m_00001_{number + 1:05}.tif", [frame], settings(), first=number + 1)
    return Case(folder, COUNTS)


@case
def interleaved_channels(folder: Path) -> Case:
    """Two channels page by page in one ScanImage file."""
    return Case(write_scanimage(folder / "m.tif", COUNTS, settings(channels="[1;2]")), COUNTS[1::2], "", {"channel": 1})


@case
def interleaved_channels_unasked(folder: Path) -> Case:
    """Twice as many frames, as the second channel is taken for more of them."""
    return Case(write_scanimage(folder / "m.tif", COUNTS, settings(channels="[1;2]")), says="holds 2 channels")


@case
def corrupt_last_frame(folder: Path) -> Case:
    """A disk that was full: the last frame of the last file is not whole."""
    for number, part in enumerate(np.split(COUNTS, 2), 1):
        write_scanimage(folder / f"m_00001_{number:05}.tif", part, settings(), first=6 * number - 5)
    os.truncate(folder / "m_00001_00002.tif", (folder / "m_00001_00002.tif").stat().st_size - 700)
    return Case(folder, says="m_00001_00002.tif is truncated")


@case
def invalid_page_offset(folder: Path) -> Case:
    """A chain of pages that leads out of the file."""
    path = save(folder / "m.tif", COUNTS)
    with tifffile.TiffFile(path) as file:
        page = file.pages[5].aspage()
        after = page.offset + 2 + 12 * len(page.tags)
    with path.open("r+b") as raw:
        raw.seek(after)
        raw.write((0x7FFFFFF0).to_bytes(4, "little"))
    return Case(path, says="m.tif is truncated")


@case
def mesoscope(folder: Path) -> Case:
    """Strips of a mesoscope below each other in a page."""
    text = '{"RoiGroups": {"imagingRoiGroup": {"rois": [%s]}}}'
    roi = '{"scanfields": {"pixelResolutionXY": [20, 7]}}'
    with tifffile.TiffWriter(folder / "m.tif", bigtiff=True) as file:
        for frame in COUNTS:
            tags = [(315, 2, 0, text % f"{roi}, {roi}", True)]
            file.write(frame, contiguous=False, metadata=None, software=settings(), extratags=tags)
    return Case(folder / "m.tif", COUNTS, "rows 0:7, 9:16")


@case
def grey_saved_as_rgb(folder: Path) -> Case:
    """Grey frames that were saved as RGB: three channels, not width or time."""
    colours = np.repeat(COUNTS[..., np.newaxis].astype(np.uint8), 3, axis=-1)
    return Case(save(folder / "m.tif", colours, photometric="rgb"), COUNTS.astype(np.uint8), "", {"channel": 0})


@case
def imagej_above_4_gb(folder: Path) -> Case:
    """An ImageJ stack with one page for all of its frames, as above 4 GB: one frame."""
    with tifffile.TiffWriter(folder / "m.tif") as file:
        file.write(
            COUNTS, truncate=True, metadata=None, description="ImageJ=1.54f\nimages=12\nslices=12\n", software=False
        )
    return Case(folder / "m.tif", COUNTS, "", {"axes": "TYX"})


@case
def split_imagej(folder: Path) -> Case:
    """Files that acquisition software split, each with the count of all frames in its ImageJ header."""
    for number, part in enumerate(np.split(COUNTS, 2)):
        write_imagej(folder / f"m_{number}.tif", "images=12\nframes=12\n", part)
    return Case(folder, says="6 images, and its ImageJ header says 12")


@case
def series_above_pages(folder: Path) -> Case:
    """Metadata that says more frames than there are pages."""
    return Case(write_imagej(folder / "m.tif", "images=36\nframes=36\n", COUNTS), says="12 images, .* says 36")


@case
def ome_with_fewer_pages(folder: Path) -> Case:
    """OME-XML of 24 frames over 12 pages."""
    save(folder / "m.ome.tif", COUNTS, description=ome_document({"m.ome.tif": 24}), contiguous=False)
    return Case(folder / "m.ome.tif", says="truncated|missing|12 of 24")


@case
def master_is_another_image(folder: Path) -> Case:
    """Images of Prairie View that point to the first of them for their description."""
    names = [f"T_Cycle00001_Ch{c}_000001.ome.tif" for c in (1, 2)]
    xmlns = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    pointing = f'<?xml version="1.0"?><OME {xmlns}><BinaryOnly MetadataFile="{names[0]}" UUID="urn:uuid:9"/></OME>'
    save(
        folder / names[0], COUNTS[:6], description=ome_document(dict.fromkeys(names, 6), own=names[0]), contiguous=False
    )
    save(folder / names[1], COUNTS[6:], description=pointing, contiguous=False)
    return Case(folder / names[1], COUNTS)


@case
def brightness_over_time(folder: Path) -> Case:
    """A "Brightness Over Time" sequence of Prairie View, which is a movie."""
    for number, frame in enumerate(COUNTS, 1):
        save(folder / f"T_Cycle00001_Ch1_{number:06}.ome.tif", frame)
    text = prairie_xml(1, 1, 12, "BrightnessOverTime", label="").replace(".tif", ".ome.tif")
    (folder / "T.xml").write_text(text)
    return Case(folder, COUNTS)


@case
def multipage_prairie(folder: Path) -> Case:
    """Prairie View 5.8: all frames of a channel in one file, which its XML names once a page."""
    pages = []
    for c in (1, 2):
        save(folder / f"T_Cycle00001_Ch{c}_000001.ome.tif", COUNTS + c)
    for number in range(1, 13):
        files = "".join(
            f'<File channel="{c}" page="{number}" filename="T_Cycle00001_Ch{c}_000001.ome.tif"/>' for c in (1, 2)
        )
        pages.append(f'<Frame absoluteTime="{number}" index="{number}">{files}</Frame>')
    sequence = f'<Sequence type="TSeries Timed Element" cycle="1">{"".join(pages)}</Sequence>'
    (folder / "T.xml").write_text(f'<PVScan date="5/1/2023 1:02:03 PM">{sequence}</PVScan>')
    return Case(folder, COUNTS + 2, "", {"channel": 1})


@case
def prairie_positions(folder: Path) -> Case:
    """Stage positions that Prairie View numbers as cycles of one recording."""
    parts = []
    for cycle in range(1, 7):
        save(folder / f"T_Cycle{cycle:05}_Ch1_000001.tif", COUNTS[2 * cycle - 2 : 2 * cycle])
        stage = f'<IndexedValue index="XAxis" value="{100 * (cycle % 2)}"/><IndexedValue index="YAxis" value="0"/>'
        frames = "".join(
            f'<Frame absoluteTime="{2 * cycle + i}" index="{i + 1}"><File channel="1" page="{i + 1}" '
            f'filename="T_Cycle{cycle:05}_Ch1_000001.tif"/></Frame>'
            for i in range(2)
        )
        state = f'<PVStateShard><PVStateValue key="positionCurrent">{stage}</PVStateValue></PVStateShard>'
        parts.append(f'<Sequence type="TSeries Timed Element" cycle="{cycle}">{state}{frames}</Sequence>')
    (folder / "T.xml").write_text(f"<PVScan>{''.join(parts)}</PVScan>")
    kept = np.concatenate([COUNTS[2 * cycle - 2 : 2 * cycle] for cycle in (2, 4, 6)])
    return Case(folder, kept, "", {"position": 1})


@case
def first_index_not_zero(folder: Path) -> Case:
    """Names whose numbers do not begin at 0, on several axes."""
    for t, z, c in np.ndindex(2, 3, 2):
        save(folder / f"export_T{t + 1:03}_Z{z + 1:03}_C{c + 2:02}.tif", COUNTS[6 * t + 2 * z + c])
    return Case(folder, COUNTS.reshape(2, 3, 2, 16, 20)[:, :, 1], "", {"channel": 1})


@case
def similar_prefix(folder: Path) -> Case:
    """One file that was named, beside others whose names begin alike."""
    save(folder / "x64c1s1t1.tif", COUNTS)
    save(folder / "x64c1s1t11_w1Laser.tif", COUNTS[:3])
    save(folder / "x64c1s1t11_w2Laser.tif", COUNTS[:3])
    return Case(folder / "x64c1s1t1.tif", COUNTS)


@case
def copies(folder: Path) -> Case:
    """Copies of single images that a file manager has made: frame (1)."""
    for number, frame in enumerate(COUNTS, 1):
        save(folder / f"ChanA_001_001_001_{number:03}.tif", frame)
    save(folder / "ChanA_001_001_001_003(1).tif", COUNTS[2])
    (folder / "Experiment.xml").write_text(thor_xml(channels=1, frames=12))
    return Case(folder, says="holds 2 recordings")


@case
def second_file_of_a_set(folder: Path) -> Case:
    """The second file of a Micro-Manager set, which opens as a part of it elsewhere."""
    names = ["m_MMStack.ome.tif", "m_MMStack_1.ome.tif"]
    for number, name in enumerate(names):
        document = ome_document(dict.fromkeys(names, 6), own=name)
        save(folder / name, COUNTS[6 * number : 6 * number + 6], description=document, contiguous=False)
    return Case(folder / names[1], COUNTS)


@case
def more_channels_than_ome_says(folder: Path) -> Case:
    """Two cameras of Micro-Manager over OME-XML that says one channel."""
    document = ome_document({"m.ome.tif": 12}, channels=2).replace('SizeC="2"', 'SizeC="1"')
    save(folder / "m.ome.tif", COUNTS, description=document, contiguous=False)
    return Case(folder / "m.ome.tif", says="images|pages|series")


@case
def stk_of_one_plane(folder: Path) -> Case:
    """Tags of MetaMorph that count one plane, over twelve pages."""
    tags = [(33628, 4, 12, tuple(range(12)), True)]
    return Case(save(folder / "m.tif", COUNTS, extratags=tags), says="12 images, and its metadata .* describes 1")


@case
def lexical_order(folder: Path) -> Case:
    """1.avi, 10.avi, 2.avi: here as TIFF."""
    for number, frame in enumerate(COUNTS):
        save(folder / f"{number}.tif", frame)
    return Case(folder, COUNTS)


@case
def sbx_without_otwave(folder: Path) -> Case:
    """Scanbox headers without the fields of other versions."""
    return Case(write_scanbox(folder, 2, COUNTS[..., np.newaxis]), COUNTS)


@case
def sbx_with_chan(folder: Path) -> Case:
    """Scanbox 3, which counts its channels in a field of its own."""
    both = np.stack([COUNTS, COUNTS + 1], axis=-1)
    return Case(write_scanbox(folder, -1, both, chan={"nchan": 2}), COUNTS + 1, "", {"channel": 1})


@case
def sbx_volumes(folder: Path) -> Case:
    """Scanbox with an optotune: the depths are frames in a row."""
    path = write_scanbox(folder, 2, COUNTS[..., np.newaxis], volscan=1, otwave=[0, 500, 1000])
    return Case(path, COUNTS.reshape(4, 3, 16, 20))


@case
def uppercase(folder: Path) -> Case:
    """Names in capitals, .TIF."""
    for number, frame in enumerate(COUNTS):
        save(folder / f"F{number:03}.TIF", frame)
    return Case(folder, COUNTS)


@case
def hidden_copies(folder: Path) -> Case:
    """Companions that macOS leaves on foreign disks: ._frame1.tif."""
    for number, frame in enumerate(COUNTS):
        save(folder / f"f{number}.tif", frame)
        (folder / f"._f{number}.tif").write_bytes(b"\0\5\x16\7" + bytes(100))
    return Case(folder, COUNTS)


@pytest.mark.parametrize("name", CASES)
def test_what_others_have_stumbled_over(tmp_path: Path, name: str) -> None:
    made = CASES[name](tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            frames = open_source(made.path, **made.options)[:]
        except PhotonCodecError as error:
            frames, said = None, str(error)
        else:
            said = " ".join(str(one.message) for one in told)
    if made.frames is None:
        assert frames is None, f"it was read, as {np.shape(frames)}"
    else:
        assert frames is not None, said
        np.testing.assert_array_equal(frames, made.frames)
    if made.says:
        import re

        assert re.search(made.says, said), said
    elif made.frames is not None:
        assert not said


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 25
