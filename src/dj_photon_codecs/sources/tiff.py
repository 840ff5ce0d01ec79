"""Open TIFF recordings: select the files and the metadata that describe them; ``pages`` reads the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, SourceError
from . import ome, prairie, scanimage
from .axes import AXES_HELP, given_axes
from .groups import Group
from .joining import concatenated, joined
from .messages import warn_source
from .metadata import Metadata, inverse, micrometres, seconds
from .pages import SAY_SHAPE, all_pages, quiet, series_of, single_page
from .paths import Found
from .raw import filled_in
from .stack import DamagedFile, Index, Options, Stack, closed_on_error, image_reader, library, without_time

_PLAIN = {"uniform", "scanimage", "bigtiff"}  # tifffile flags of files whose pages are consecutive in time
#: Numbers of TIFF compressions that may alter counts.
_LOSSY = {6, 7, 33003, 33005, 34712, 34887, 34892, 34933, 34934, 48124, 50001, 50002, 52546}


def open_files(found: Found, options: Options) -> Stack:
    """Open the images in files, concatenated in time."""
    if found.format.name == "OME-XML":
        return _companion(Path(found.names[0]), options)
    with quiet():
        first, name = _first(found)
        session = prairie.group(found)
        with first:
            document = first.pages[0].description if first.is_ome and session is None else ""
            described_in = ome.companion(document, Path(name))
            if described_in is not None:
                return _companion(described_in, options, found)
            alone = options.shape is not None or session is not None
            together = [] if alone else _set_of(first, name, found)
            settings = None if first.is_imagej or first.is_ome or first.is_shaped else scanimage.header(first.pages[0])
            metadata = _metadata(first, settings, options.position or 0)
            _warn_of_first_page(first.pages[0], name, bool(settings))
        if together:
            return replace(_movie(_one(together[0], options, document), options), metadata=metadata)
        group = found.group(options.axes) if session is None else session[0]
        if session is not None and options.axes is None:
            options = replace(options, axes=session[1])
        if settings and options.axes is None and options.shape is None:
            return _scanimage(group, options, settings, metadata)
        stack = joined(group, options, _opener(options, name, plain=session is not None))
        if options.shape is not None:
            with closed_on_error(stack.close):
                stack = _arranged(stack, options.shape, options.axes)
        return replace(stack, metadata=metadata | prairie.metadata(found) | stack.metadata)


def _warn_of_first_page(page: Any, name: str, is_scanimage: bool) -> None:
    """Warn of several regions in a frame, and of lossy compression."""
    artist = page.tags.get("Artist") if is_scanimage else None
    if artist is not None and (regions := scanimage.regions(str(artist.value), page.shape[0])):
        warn_source(f"{name}: {regions}. They are kept that way; the rows between them are empty")
    if int(page.compression) in _LOSSY:
        warn_source(
            f"{name} is compressed with {page.compression.name}, which alters counts unless its writer was set to "
            "lossless: the noise left may not be that of photons. Record without compression"
        )


def _metadata(file: Any, settings: dict[str, str] | None, position: int) -> Metadata:
    """Metadata from the header of a file; ``settings`` are those of ScanImage, if it wrote the file."""
    page = file.pages[0]
    tag = page.tags.get(51123)
    if settings:
        return scanimage.metadata(settings, page)
    if file.is_ome:
        return ome.metadata(page.description, position)
    if file.is_imagej:
        return _of_imagej(file.imagej_metadata or {}, page.tags)
    if tag is not None and isinstance(tag.value, dict):
        return _of_micromanager(tag.value, file.micromanager_metadata or {})
    return Metadata()


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


def _companion(document: Path, options: Options, found: Found | None = None) -> Stack:
    """Open the movie described by an OME-XML file, or by the OME-XML in the first file of a set."""
    if document.suffix.lower() in (".tif", ".tiff"):  # the first file of Prairie View's sets
        with quiet(), _opened(str(document)) as file:
            text = file.pages[0].description
    else:
        text = document.read_text(encoding="utf-8", errors="replace")
    names = ome.files_of_set(text, document)
    _check_inside(str(document), names, found)
    if not names:
        raise SourceError(f"{document} names no file that holds the images it describes")
    with quiet():
        stack = _movie(_one(names[0], options, text), options)
    return replace(stack, metadata=ome.metadata(text, options.position or 0))


def _opened(name: str, document: str = "") -> Any:
    """Open a file with tifffile; ``document`` replaces its OME-XML."""
    tifffile = library("tifffile", "tiff", "TIFF files")
    # With is_scanimage, tifffile would guess the pages of old ScanImage files from the file size.
    return tifffile.TiffFile(name, is_scanimage=False, **({"omexml": document} if document else {}))


def _first(found: Found) -> tuple[Any, str]:
    """Open the first readable file; the others must match it."""
    for name in found.names:
        try:
            file = _opened(name)
            with closed_on_error(file.close):
                if len(file.pages):
                    return file, name
            file.close()
        except (OSError, ValueError, IndexError):  # TiffFileError is a ValueError
            if name == found.names[-1]:
                raise
    raise DamagedFile(f"{name} holds no image")


def _set_of(file: Any, name: str, found: Found) -> list[str]:
    """Files that the metadata of ``file`` describes as one movie; empty for a single file."""
    if (file.micromanager_metadata or {}).get("MajorVersion", 0) >= 2:
        if not file.is_ndtiff:
            raise SourceError(
                f"{name} is part of an NDTiff data set, and there is no NDTiff.index beside it, which describes its "
                f"images: copy it from where the data set was recorded, or give the order of the images, "
                f"{SAY_SHAPE}"
            )
        stem = Path(name).name.partition("_NDTiffStack")[0]
        together = sorted(Path(name).parent.glob(f"{stem}_NDTiffStack*.tif"), key=lambda path: (len(path.name), path))
        names = [str(path) for path in together]
    elif file.is_ome:
        names = ome.files_of_set(file.pages[0].description, Path(name))
    else:
        return []
    _check_inside(name, names, found)
    return names if len(names) > 1 or file.is_ndtiff else []


def _check_inside(name: str, names: Sequence[str], found: Found | None) -> None:
    """Raise if a file does not belong to the set."""
    inside = {Path(one).name for one in names}
    outside = [other for other in found.names if Path(other).name not in inside] if found else []
    if len(names) > 1 and outside:
        raise SourceError(
            f"{name} belongs to a set of {len(names)} OME-TIFF files, and {outside[0]} is not among them: open "
            "the first file of each set, which leads to the others"
        )


def _one(name: str, options: Options, document: str = "", plain: bool = False) -> Stack:
    """Open the images of a file, with axes from the caller, its metadata or ``document``."""
    file = _opened(name, document)
    with closed_on_error(file.close):
        plain = plain or set(file.flags) <= _PLAIN or options.shape is not None
        stack = all_pages(file, name) if plain else series_of(file, name, options)
        if options.shape is not None or options.axes is None:
            return stack
        if "T" in stack.axes and stack.size("T") == 1 and len(options.axes) < len(stack.axes):
            stack = without_time(stack)
        return replace(stack, axes=given_axes(options.axes, stack.shape, name))


def _opener(options: Options, first: str, plain: bool = False) -> Callable[[str], Stack]:
    """Return a function that opens files of a recording; it reads single frames like the first directly by offset.

    ``plain`` ignores the metadata of single files, because the metadata of a set describes all of its files.
    """
    alike: list[Any] = []

    def open_one(name: str) -> Stack:
        with quiet():
            if alike:
                page = single_page(name)
                if page is not None and (page.shape[1:], page.dtype.newbyteorder("=")) == alike[0]:
                    return page
            stack = _one(name, options, plain=plain)
            if options.shape is not None:
                return stack
            one_time = options.axes is None and "T" in stack.axes and stack.size("T") == 1
            # The last file of a recording may well hold a single volume; for the first this is doubtful.
            stack = _movie(without_time(stack) if one_time and name == first else stack, options)
            one_frame = stack.axes == "YX" or (one_time and stack.axes == "TYX")
            if not alike and options.axes is None and one_frame and single_page(name) is not None:
                alike.append((stack.shape[-2:], stack.dtype.newbyteorder("=")))
            return stack

    return open_one


def _scanimage(group: Group, options: Options, settings: dict[str, str], metadata: Metadata) -> Stack:
    """Open ScanImage files, with pages sorted by the settings in the header."""
    starts: dict[str, scanimage.Start] = {}

    def pages_of(name: str) -> Stack:
        with quiet():
            file = _opened(name)
            with closed_on_error(file.close):
                pages = all_pages(file, name)
                if name not in starts:  # files are reopened for reading
                    starts[name] = scanimage.start(file, name)
                return pages

    if group.axes:
        return replace(joined(group, options, pages_of), metadata=metadata)
    names = [group.files[place] for place in sorted(group.files, key=lambda place: place.time)]
    pages = concatenated(names, pages_of, bool(options.skip_damaged))
    with closed_on_error(pages.close):
        table = scanimage.table(settings, list(starts.values()), names[0])
        return replace(_page_table(pages, "TZC", table), metadata=metadata)


def _page_table(pages: Stack, axes: str, table: AnyArray) -> Stack:
    """Arrange pages by a table of page numbers, with one letter per table axis."""

    def read(index: Index) -> AnyArray:
        chosen, inside = index[: table.ndim], index[table.ndim :]  # the pages read no more than is wanted
        gather = image_reader(lambda number: pages.read((slice(number, number + 1), *inside))[0], table)
        return gather((*chosen, *(slice(None),) * len(inside)))

    return replace(pages, axes=axes + pages.axes[1:], shape=(*table.shape, *pages.shape[1:]), read=read)


def _arranged(pages: Stack, shape: tuple[int, ...], axes: str | None) -> Stack:
    """Arrange pages in the order given by the caller."""
    count, *image = pages.shape
    if axes is None:
        raise ConfigurationError(f"shape={shape} for {pages.where} needs axes= for the order of its pages")
    leading = filled_in(shape[: len(shape) - len(image)], count, pages.where)
    letters = given_axes(axes, shape, pages.where)
    if shape[len(leading) :] != tuple(image) or math.prod(leading) != count or not letters.endswith(pages.axes[1:]):
        raise SourceError(
            f"{pages.where} has {count} pages with axes {pages.axes[1:]} of shape {tuple(image)}, which are not "
            f"shape={shape} with axes={axes!r}"
        )
    return _page_table(pages, letters[: len(leading)], np.arange(count).reshape(leading))


def _movie(stack: Stack, options: Options) -> Stack:
    """Convert tifffile's axis letters to those of a movie, unless the caller gave them; raise if time is unclear."""
    if options.axes is not None:
        return stack
    axes = stack.axes.replace("S", "C").replace("R", "P")
    if "T" not in axes and axes.startswith(("I", "Q")):
        axes = "T" + axes[1:]  # pages or an array without further description
    if len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes) <= set("TPZCYX") or ("T" not in axes and "Z" in axes):
        stack.close()
        raise SourceError(
            f"{stack.where} has axes {stack.axes} of shape {stack.shape}, and nothing says which of them is time: name "
            f"them {AXES_HELP}. Without T, each file is one point in time"
        )
    return replace(stack, axes=axes)
