"""Read OME-XML: the files of a set, and metadata of the recording."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from ..errors import SourceError
from .messages import listed
from .metadata import Metadata, micrometres, seconds


def _parsed(document: str, where: str) -> ElementTree.Element:
    """Parse an OME document and strip namespaces; return its root."""
    try:
        root = ElementTree.fromstring(document.encode())
    except ElementTree.ParseError as error:
        raise SourceError(f"the OME-XML of {where} cannot be read: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def companion(document: str, name: Path) -> Path | None:
    """Return the file with the OME document, if the document in ``name`` only refers to it."""
    match = re.search(r"<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile=\"([^\"]+)\"", document)
    if match is None:
        return None
    path = name.with_name(Path(match[1]).name)
    if not path.is_file():
        raise SourceError(
            f"{name} is described by {match[1]}, which is missing from its folder: copy it there. "
            "It says which frames these are"
        )
    return path


def files_of_set(document: str, name: Path) -> list[str]:
    """Files that an OME document describes, in its order; empty if it describes only the file that holds it."""
    root = _parsed(document, str(name))
    own: list[str] = []
    named: list[str] = []
    for uuid in root.iter("UUID"):
        file, text = uuid.get("FileName", ""), (uuid.text or "").strip()
        is_own = text == root.get("UUID") if "UUID" in root.attrib else file.lower() == name.name.lower()
        (own if is_own else named).append(file)
    named = [file for file in named if file]
    if not named or (len(set(named)) == 1 and not own and not name.name.endswith(".companion.ome")):
        return []  # a renamed file still contains its old name
    paths = [name.with_name(Path(file).name) for file in dict.fromkeys([*own[:1], *named])]
    if own and not paths[0].is_file():
        paths[0] = name
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise SourceError(
            f"{name} describes a recording in {len(paths)} files, and {len(missing)} of them are missing from its "
            f"folder: {listed(missing)}. Copy them there; to open only the others, pass them as a list with axes="
        )
    return [str(path) for path in paths]


def metadata(document: str, position: int) -> Metadata:
    """Metadata of the image at a position, or of the only image; empty if the document is not XML."""
    with suppress(SourceError):
        images = list(_parsed(document, "").iter("Image"))
        image = images[position if position < len(images) > 1 else 0] if images else None
        pixels = None if image is None else image.find("Pixels")
        if image is not None and pixels is not None:
            return _of_image(image, pixels)
    return Metadata()


def _of_image(image: ElementTree.Element, pixels: ElementTree.Element) -> Metadata:
    moments = {
        int(plane.get("TheT", 0)): seconds(plane.get("DeltaT"), plane.get("DeltaTUnit")) or 0.0
        for plane in pixels.iter("Plane")
        if plane.get("DeltaT") and plane.get("TheC", "0") == "0" == plane.get("TheZ", "0")
    }
    width, height, depth = (
        micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit")) for axis in "XYZ"
    )
    complete = len(moments) == int(pixels.get("SizeT", 0) or 0)
    return Metadata(
        increment=seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit")),
        pixel=[width, height],
        depth=depth,
        channels=[name for channel in pixels.iter("Channel") if (name := channel.get("Name"))],
        date=(image.findtext("AcquisitionDate") or "").strip(),
        times=[moments[t] for t in sorted(moments)] if complete else (),
    )
