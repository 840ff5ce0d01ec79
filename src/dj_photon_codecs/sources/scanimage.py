"""Determine the page order of ScanImage TIFF files from the settings in their header.

Channels vary fastest, then the frames of a slice, slices, and volumes. A volume scanned with a fast actuator ends with
flyback frames, which belong to no plane. A volume may start in one file and end in the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .messages import runs, warn_source, whole_volumes
from .metadata import Metadata, inverse, number

_SETTING = re.compile(r"^(?:scanimage\.)?SI\.(\w+\.\w+|VERSION_MAJOR) = (.*?)\s*$", re.MULTILINE)
_SETTING_4 = re.compile(r"^scanimage\.SI[45]\.(\w+) = (.*?)\s*$", re.MULTILINE)
_SETTING_3 = re.compile(r"^state\.acq\.(\w+)=(.*?)\s*$", re.MULTILINE)
#: Settings used here: current name and ScanImage 4 name.
_NAMES_4 = {
    "hChannels.channelSave": "channelsSave",
    "hStackManager.numSlices": "stackNumSlices",
    "hStackManager.framesPerSlice": "acqNumFrames",
    "hStackManager.stackZStepSize": "stackZStepSize",
    "hFastZ.enable": "fastZEnable",
    "hFastZ.discardFlybackFrames": "fastZDiscardFlybackFrames",
    "hFastZ.numDiscardFlybackFrames": "fastZNumDiscardFrames",
    "hScan2D.logAverageFactor": "acqNumAveragedFrames",
    "hRoiManager.scanFrameRate": "scanFrameRate",
}
_NUMBER = re.compile(r"^(?:frameNumbers|Frame Number|Frame Tag) = 0*(\d+)\s*$", re.MULTILINE)
_FIRST_OF_ACQUISITION = re.compile(r"^(?:scanimage\.)?frameNumberAcquisition = 0*1\s*$", re.MULTILINE)
_LOOKED_AT = 16  # number of pages whose frame numbers are read when opening a file
#: Remedy if the header does not give the page order.
_WAY_OUT = 'give the order of its pages, shape=(-1, planes, channels, height, width) with axes="TZCYX"'


@dataclass(frozen=True)
class Start:
    """Facts about a file before its pages are sorted."""

    name: str
    pages: int
    description: str  # of the first page
    per_frame: int = 0  # leading pages with the same frame number; 0 without frame numbers
    lost: str = ""  # missing frame numbers, as text
    numbers: tuple[int, int, int] | None = None  # first and last frame number, and step


def start(file: Any, name: str) -> Start:
    """Collect the facts about a file; read all frame numbers only if the last one shows that some are missing."""
    count, description = len(file.pages), file.pages[0].description

    def numbers_of(pages: int) -> list[int]:
        return [int(match[1]) for i in range(pages) if (match := _NUMBER.search(file.pages[i].description))]

    examined = min(count, _LOOKED_AT)
    leading = numbers_of(examined)
    if len(leading) < examined:
        return Start(name, count, description)
    per_frame = next((i for i, number in enumerate(leading) if number != leading[0]), 0) or count
    distinct = list(dict.fromkeys(leading))
    step = distinct[1] - distinct[0] if len(distinct) > 1 else 1  # more than 1 if frames are averaged
    match = _NUMBER.search(file.pages[count - 1].description)
    last = int(match[1]) if match else None
    lost = ""
    if last is None or step <= 0 or last - leading[0] != (-(-count // per_frame) - 1) * step:
        numbers = sorted(set(numbers_of(count)))
        gaps = [(a, b) for a, b in pairwise(numbers) if b - a > max(step, 1)]
        if len({(b - a, numbers.index(b) - numbers.index(a)) for a, b in gaps}) == 1 and len(gaps) > 2:
            spans = {after[0] - before[1] for before, after in pairwise(gaps)}
            gaps = [] if len(spans) == 1 else gaps  # flyback frames of each volume
        lost = runs(gaps, step)
    return Start(name, count, description, per_frame, lost, None if last is None else (leading[0], last, step))


def header(page: Any) -> dict[str, str]:
    """Settings from the software tag (since ScanImage 2016) or the description, under their current names."""
    settings = dict(_SETTING.findall(f"{page.software}\n{page.description}"))
    old = dict(_SETTING_4.findall(page.description))
    settings |= {name: old[before] for name, before in _NAMES_4.items() if before in old}
    oldest = dict(_SETTING_3.findall(page.description.replace("\r", "\n")))
    if oldest:
        saved = [name[-1] for name in sorted(oldest) if re.match(r"savingChannel\d$", name) and oldest[name] == "1"]
        averaged = oldest.get("averaging") == "1"
        settings |= {
            "hChannels.channelSave": f"[{' '.join(saved)}]",
            "hStackManager.numSlices": oldest.get("numberOfZSlices", "1"),
            "hStackManager.framesPerSlice": "1" if averaged else oldest.get("numberOfFrames", "1"),
            "hRoiManager.scanFrameRate": oldest.get("frameRate", ""),
        }
    return settings


def table(settings: dict[str, str], starts: Sequence[Start], name: str) -> AnyArray:
    """Page numbers by time, plane and channel, for files in order."""
    channels = len(re.findall(r"\d+", settings.get("hChannels.channelSave", "")))
    if not channels:
        raise SourceError(f"{name} was written by an unknown version of ScanImage: {_WAY_OUT}")
    slices, frames, flyback = _volume(settings, name)
    cycle = (slices * frames + flyback) * channels
    _check_pages(settings, starts, channels, cycle)
    pages, hint = sum(start.pages for start in starts), f" ({slices} slices): {_WAY_OUT}"
    cycles = whole_volumes(name, pages, cycle, "pages", starts[-1].name, hint)
    volumes = np.arange(cycles * cycle).reshape(cycles, -1, channels)[:, : slices * frames]
    by_slice = volumes.reshape(cycles, slices, frames, channels).swapaxes(1, 2)
    return by_slice.reshape(cycles * frames, slices, channels)


def _volume(settings: dict[str, str], name: str) -> tuple[int, int, int]:
    """Number of slices per volume, frames saved per slice, and flyback frames."""
    slices = _number(settings, "hStackManager.actualNumSlices", _number(settings, "hStackManager.numSlices", 1))
    if slices == 1 or settings.get("hStackManager.enable") in ("false", "0"):
        return 1, 1, 0
    averaged = _number(settings, "hScan2D.logAverageFactor", 1)
    imaged = _number(settings, "hStackManager.numFramesPerVolume", 0)
    if imaged:  # since ScanImage 2020
        with_flyback = _number(settings, "hStackManager.numFramesPerVolumeWithFlyback", imaged)
        frames, rest = divmod(imaged, slices * averaged)
        if rest or with_flyback < imaged or (averaged > 1 and with_flyback > imaged):
            raise SourceError(
                f"{name} has volumes of {imaged} frames and {slices} slices, averaged by {averaged}: {_WAY_OUT}"
            )
        return slices, frames, with_flyback - imaged
    if settings.get("hFastZ.enable") not in ("true", "1"):
        frames, rest = divmod(_number(settings, "hStackManager.framesPerSlice", 0), averaged)
        if rest or not frames:
            raise SourceError(f"{name} does not say how many frames each of its {slices} slices has: {_WAY_OUT}")
        return slices, frames, 0
    discarded = settings.get("hFastZ.discardFlybackFrames") in ("true", "1")
    flyback = _number(settings, "hFastZ.numDiscardFlybackFrames", 0) if discarded else 0
    scanned = _number(settings, "hFastZ.numFramesPerVolume", slices + flyback)
    if scanned not in (slices, slices + flyback):
        raise SourceError(
            f"{name} has {slices} slices and {flyback} flyback frames, but volumes of {scanned} frames: {_WAY_OUT}"
        )
    return slices, 1, flyback


def _check_pages(settings: dict[str, str], starts: Sequence[Start], channels: int, cycle: int) -> None:
    """Warn if the pages contradict the header, or frames are missing; raise if planes would be mixed up."""
    first, pages = starts[0], 0
    if first.per_frame and first.per_frame != channels and first.pages > channels:
        warn_source(
            f"{first.name}: its header says {channels} channels (channelSave = {settings['hChannels.channelSave']}), "
            f"and its pages come {first.per_frame} to a frame number. The header is trusted; otherwise {_WAY_OUT}"
        )
    for one in starts:
        if one.lost:
            warn_source(
                f"{one.name}: frames are missing, by the numbers in its pages: {one.lost}. The others are joined as if "
                "there were no gap"
            )
    for before, one in pairwise(starts):
        pages += before.pages
        if _FIRST_OF_ACQUISITION.search(one.description):
            if pages % cycle:
                raise SourceError(
                    f"{before.name} ends within a volume, and {one.name} begins another acquisition: open each "
                    "acquisition by itself, with a glob over its files"
                )
            warn_source(
                f"{one.name} begins another acquisition than {before.name}: they are joined as if there were no gap. "
                "Otherwise open each acquisition by itself, with pattern= or a list of its files"
            )
        elif before.numbers and one.numbers and one.numbers[0] not in (end := before.numbers[1], end + one.numbers[2]):
            warn_source(
                f"{one.name} begins with frame {one.numbers[0]}, and {before.name} ends with frame {end}: frames "
                "between them are missing. The others are joined as if there were no gap"
            )
    if "VERSION_MAJOR" not in settings and _number(settings, "hStackManager.numSlices", 1) > 1:
        warn_source(
            f"{first.name} was written by a ScanImage before 2016, whose header has the number of slices of the last "
            "stack even if none was scanned; it is read as "
            f"{settings['hStackManager.numSlices']} slices. Otherwise {_WAY_OUT}"
        )


def regions(document: str, height: int) -> str:
    """Describe where several regions of interest lie in a page, from the JSON in the Artist tag; empty for one."""
    try:
        found = json.loads(document)["RoiGroups"]["imagingRoiGroup"]["rois"]
    except (ValueError, KeyError, TypeError):
        return ""
    rois = found if isinstance(found, list) else [found]
    fields = [roi["scanfields"] for roi in rois if isinstance(roi, dict) and roi.get("scanfields")]
    lines = [int((one[0] if isinstance(one, list) else one)["pixelResolutionXY"][1]) for one in fields]
    if len(lines) < 2:
        return ""
    gap, rest = divmod(height - sum(lines), len(lines) - 1)
    if gap < 0 or rest:
        return f"{len(lines)} regions of {', '.join(map(str, lines))} lines, which do not fit a page of {height} lines"
    starts = [sum(lines[:i]) + i * gap for i in range(len(lines))]
    rows = ", ".join(f"{begin}:{begin + count}" for begin, count in zip(starts, lines, strict=True))
    return f"{len(lines)} regions of interest lie below each other in its frames, in the rows {rows}"


def metadata(settings: dict[str, str], page: Any) -> Metadata:
    """Metadata from the settings, and the time of the first page."""
    volumes = settings.get("hStackManager.enable") in ("true", "1") or "hStackManager.enable" not in settings
    several = (number(settings.get("hStackManager.actualNumSlices", settings.get("hStackManager.numSlices"))) or 1) > 1
    corners = [float(n) for n in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", settings.get("hRoiManager.imagingFovUm", ""))]
    spans = [max(corners[i::2]) - min(corners[i::2]) for i in (0, 1)] if len(corners) == 8 else []
    saved = [int(n) for n in re.findall(r"\d+", settings.get("hChannels.channelSave", ""))]
    names = re.findall(r"'([^']*)'", settings.get("hChannels.channelName", ""))
    epoch = re.search(r"epoch = \[ *(\d+)[ ,]+(\d+)[ ,]+(\d+)[ ,]+(\d+)[ ,]+(\d+)[ ,]+([\d.]+)", page.description)
    height, width = page.shape[:2]
    return Metadata(
        increment=inverse(settings.get(f"hRoiManager.scan{'Volume' if volumes and several else 'Frame'}Rate")),
        pixel=[spans[0] / width, spans[1] / height] if spans else (),
        depth=abs(float(settings.get("hStackManager.stackZStepSize", "nan"))) if several else None,
        channels=[names[i - 1] for i in saved if i <= len(names)],
        date="{}-{:0>2}-{:0>2}T{:0>2}:{:0>2}:{:0>6}".format(*epoch.groups()) if epoch else None,
    )


def _number(settings: dict[str, str], setting: str, default: int) -> int:
    """Integer setting; the default if it is absent or infinite."""
    found = settings.get(setting, "")
    return int(found) if re.fullmatch(r"\d+", found) else default
