"""Read recording metadata from TIFF headers: ScanImage, ImageJ, OME and Micro-Manager."""

from __future__ import annotations

import re
from typing import Any

from . import ome
from .metadata import Metadata, inverse, micrometres, number, seconds


def of_file(file: Any, scanimage: dict[str, str] | None) -> Metadata:
    """Metadata of a tifffile file; ``scanimage`` has the ScanImage settings, if ScanImage wrote it."""
    page = file.pages[0]
    if scanimage:
        return _of_scanimage(scanimage, page)
    if file.is_ome:
        return ome.metadata(page.description)
    if file.is_imagej:
        return _of_imagej(file.imagej_metadata or {}, page.tags)
    tag = page.tags.get(51123)
    if tag is not None and isinstance(tag.value, dict):
        return _of_micromanager(tag.value, file.micromanager_metadata or {})
    return Metadata()


def _of_scanimage(settings: dict[str, str], page: Any) -> Metadata:
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


def _of_imagej(header: dict[str, Any], tags: Any) -> Metadata:
    unit = str(header.get("unit", "")).replace("\\u00B5", "µ")
    pixel = []
    for tag in (282, 283):  # pixels per unit
        above, below = tags[tag].value if tag in tags else (0, 1)
        pixel.append(micrometres(below / above, unit) if above and unit else None)
    return Metadata(
        increment=seconds(header.get("finterval"), header.get("tunit")) or inverse(header.get("fps")),
        pixel=pixel,
        depth=micrometres(header.get("spacing"), unit) if unit and int(header.get("slices", 1)) > 1 else None,
    )


def _of_micromanager(page: dict[str, Any], header: dict[str, Any]) -> Metadata:
    summary = header.get("Summary", {}) or {}
    names = summary.get("ChNames") or []
    return Metadata(
        increment=seconds(summary.get("Interval_ms", page.get("Interval_ms")), "ms"),
        pixel=page.get("PixelSizeUm", page.get("PixelSize_um")),
        depth=summary.get("z-step_um"),
        channels=names if isinstance(names, list) else [],
        date=page.get("ReceivedTime") or summary.get("StartTime"),
    )
