"""Read ThorImage folders: ``Experiment.xml``, and frames in one binary or in one file per image."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import SourceError
from . import tiff
from .messages import listed, warn_source, whole_volumes
from .metadata import Metadata, number
from .paths import Found, find
from .raw import mapped
from .stack import DamagedFile, Options, Stack


@dataclass(frozen=True)
class _Experiment:
    """Settings in the XML file ``path``; ``per_volume`` counts planes and flyback frames, ``frames`` all frames."""

    path: Path
    width: int
    height: int
    planes: int
    per_volume: int
    frames: int
    metadata: Metadata


def open_files(found: Found, options: Options) -> Stack:
    """Open the movie in a ThorImage folder."""
    [name] = found.names
    experiment = _experiment(Path(name) / "Experiment.xml" if os.path.isdir(name) else Path(name))
    folder = str(experiment.path.parent)
    raws = sorted(glob.glob(os.path.join(glob.escape(folder), "Image_[0-9]*.raw")))
    if len(raws) > 1:
        raise SourceError(
            f"{folder} holds {len(raws)} recordings of ThorImage, {listed(raws)}: open one of them with "
            "shape= and dtype='<u2'"
        )
    return _raw(raws[0], experiment) if raws else _images(folder, experiment, options)


def _raw(name: str, experiment: _Experiment) -> Stack:
    """Open a binary: channels vary fastest, then the frames of a volume including flyback."""
    size, image = os.path.getsize(name), experiment.width * experiment.height * 2
    channels, path = len(experiment.metadata.channels), experiment.path
    images, rest = divmod(size, image)
    frames, odd = divmod(images, channels)
    if rest or odd or not frames:
        raise DamagedFile(
            f"{name} has {size} bytes, which are not frames of {channels} channels x {experiment.height} x "
            f"{experiment.width} as {path} says: truncated, or of another recording"
        )
    if experiment.frames and frames != experiment.frames:
        warn_source(
            f"{name} has {frames} frames, and {path.name} says {experiment.frames}: the recording was stopped early, "
            "or frames are missing"
        )
    volumes = whole_volumes(name, frames, experiment.per_volume)
    shape = (volumes, experiment.per_volume, channels, experiment.height, experiment.width)
    whole = mapped(name, "TZCYX", np.dtype("<u2"), shape, 0)
    kept = (volumes, experiment.planes, *shape[2:])  # flyback frames come last
    return replace(whole, shape=kept, metadata=experiment.metadata)


def _images(folder: str, experiment: _Experiment, options: Options) -> Stack:
    """Open one file per image, ordered by name."""
    names = sorted(glob.glob(os.path.join(glob.escape(folder), "Chan[A-D]_[0-9]*.tif")))
    if not names:
        raise SourceError(f"{folder} holds an Experiment.xml of ThorImage, and neither Image_*.raw nor Chan*.tif")
    stack = tiff.open_files(replace(find(names, headerless=False), in_order=False, where=folder), options)
    frames = stack.size("T") * (stack.size("Z") if experiment.planes > 1 else 1)
    if experiment.frames and frames != experiment.frames:
        warn_source(
            f"{folder} holds {frames} images a channel, and {experiment.path.name} says {experiment.frames}: the "
            "recording was stopped early, or images are missing"
        )
    return replace(stack, metadata=experiment.metadata | Metadata(channels=stack.metadata.channels))


def _experiment(path: Path) -> _Experiment:
    """Parse the XML file of a recording."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise SourceError(f"{path} is damaged ({error}): copy it again") from error

    def attribute(element: str, name: str) -> str:
        found = root.find(f".//{element}")
        return "" if found is None else found.get(name, "")

    def count(element: str, name: str) -> int:
        return int(number(attribute(element, name)) or 0)

    width = count("LSM", "pixelX") or count("Camera", "width")
    height = count("LSM", "pixelY") or count("Camera", "height")
    if not width or not height:
        raise SourceError(f"{path} does not say how large frames are (LSM pixelX, pixelY)")
    saved = count("LSM", "channel")  # one bit per channel
    names = [one.get("name", "") for one in root.iter("Wavelength")]
    enabled = [f"Chan{name}" for i, name in enumerate("ABCD") if saved >> i & 1]
    streamed = attribute("Streaming", "enable") == "1"
    fast = streamed and attribute("Streaming", "zFastEnable") == "1"
    planes = max(1, count("ZStage", "steps")) if fast or attribute("ZStage", "enable") == "1" else 1
    per_volume = planes + (count("Streaming", "flybackFrames") if fast and planes > 1 else 0)
    averaged = count("LSM", "averageNum") if attribute("LSM", "averageMode") == "1" else 1
    rate = number(attribute("LSM", "frameRate"))
    return _Experiment(
        path,
        width,
        height,
        planes,
        per_volume,
        frames=count("Streaming", "frames") if streamed else count("Timelapse", "timepoints") * planes,
        metadata=Metadata(
            increment=per_volume * max(averaged, 1) / rate if rate else None,
            pixel=attribute("LSM", "pixelSizeUM"),
            depth=attribute("ZStage", "stepSizeUM") if planes > 1 else None,
            channels=enabled or names or ["ChanA"],
            date=attribute("Date", "date"),
        ),
    )
