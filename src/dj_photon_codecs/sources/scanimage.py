"""How ScanImage orders the pages of a TIFF file, by the settings in its header.

Channels follow each other page by page, then the frames of a slice, then slices, then volumes; a volume scanned with a
fast actuator ends with flyback frames, which show no plane. A volume may begin in one file and end in the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .stack import warn

_SETTING = re.compile(r"^(?:scanimage\.)?SI\.(h\w+\.\w+) = (.*?)\s*$", re.MULTILINE)
_FIRST_OF_ACQUISITION = re.compile(r"^(?:scanimage\.)?frameNumberAcquisition = 0*1\s*$", re.MULTILINE)
#: What the order of pages is said with, where ScanImage does not say it.
_WAY_OUT = 'say how its pages follow each other, shape=(-1, planes, channels, height, width) with axes="TZCYX"'


@dataclass(frozen=True)
class Start:
    """How a file begins: its name, how many pages it has, and the description of the first."""

    name: str
    pages: int
    description: str


def header(page: Any) -> dict[str, str]:
    """The settings that stand in the first page: with its software (since ScanImage 2016), or in its description."""
    return dict(_SETTING.findall(f"{page.software}\n{page.description}"))


def table(settings: dict[str, str], starts: Sequence[Start], name: str) -> tuple[str, AnyArray]:
    """Numbers of pages by time, plane and channel, and the letters of these axes.

    Parameters
    ----------
    settings
        Of the first file.
    starts
        The files of the recording, in their order.
    name
        What errors call them.

    Raises
    ------
    SourceError
        When the settings do not say, or contradict themselves.

    Warns
    -----
    SourceWarning
        When the last volume is not complete.
    """
    channels = len(re.findall(r"\d+", settings.get("hChannels.channelSave", "")))
    if not channels:
        raise SourceError(f"{name} is of a version of ScanImage that is not known here: {_WAY_OUT}")
    slices, frames, flyback = _volume(settings, name)
    cycle = (slices * frames + flyback) * channels
    _check_acquisitions(starts, cycle)
    pages = sum(start.pages for start in starts)
    cycles, left = divmod(pages, cycle)
    if not cycles:
        raise SourceError(f"{name} has {pages} pages, and one volume takes {cycle} ({slices} slices): {_WAY_OUT}")
    if left:
        warn(f"{starts[-1].name} ends within a volume: its last {left} of {cycle} pages are left out")
    volumes = np.arange(cycles * cycle).reshape(cycles, -1, channels)[:, : slices * frames]
    by_slice = volumes.reshape(cycles, slices, frames, channels).swapaxes(1, 2)
    return "TZC", by_slice.reshape(cycles * frames, slices, channels)


def _volume(settings: dict[str, str], name: str) -> tuple[int, int, int]:
    """Slices of a volume, frames saved of each slice, and flyback frames."""
    slices = _number(settings, "hStackManager.actualNumSlices", _number(settings, "hStackManager.numSlices", 1))
    if slices == 1 or settings.get("hStackManager.enable") in ("false", "0"):
        return 1, 1, 0
    fast = settings.get("hFastZ.enable") in ("true", "1")
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
    if not fast:
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


def _number(settings: dict[str, str], setting: str, default: int) -> int:
    """A whole number; ``default`` for a setting that is absent, or infinite."""
    found = settings.get(setting, "")
    return int(found) if re.fullmatch(r"\d+", found) else default


def _check_acquisitions(starts: Sequence[Start], cycle: int) -> None:
    """Refuse an acquisition that begins where the one before it has ended within a volume: planes would be mixed up."""
    pages = 0
    for before, start in pairwise(starts):
        pages += before.pages
        if pages % cycle and _FIRST_OF_ACQUISITION.search(start.description):
            raise SourceError(
                f"{before.name} ends within a volume, and {start.name} begins another acquisition: open each "
                "acquisition by itself, with a glob over its files"
            )
