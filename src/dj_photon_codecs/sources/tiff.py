"""TIFF: plain stacks, ImageJ, OME and the like, in one file or many; ScanImage's pages are sorted in ``scanimage``.

Axes come from the metadata of the file. Frames that lie there side by side are mapped, others decoded page by page.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import ConfigurationError, SourceError
from . import scanimage
from .raw import filled_in, mapped
from .stack import (
    Index,
    Options,
    Stack,
    closed_on_error,
    concatenated,
    errors_named,
    gathered,
    given_axes,
    library,
    squeezed,
)

#: What tifffile says of a file whose pages follow each other in time, for all that is known.
_PLAIN = {"uniform", "scanimage", "bigtiff"}


def open_files(names: Sequence[str], options: Options) -> Stack:
    """The images in files, one after the other in time.

    Raises
    ------
    SourceError, ConfigurationError
        As :func:`open_source` says.
    """
    tifffile = library("tifffile", "tiff", "TIFF files")
    starts: list[scanimage.Start] = []

    def pages_of(name: str) -> Stack:
        file = tifffile.TiffFile(name)
        with closed_on_error(file.close):
            pages = _pages(file, name)
            starts.append(scanimage.Start(name, pages.shape[0], file.pages[0].description))
            return pages

    if options.shape is not None:
        pages = concatenated(names, pages_of)
        with closed_on_error(pages.close):
            return _arranged(pages, options.shape, options.axes)
    with tifffile.TiffFile(names[0]) as first:
        saved_again = first.is_imagej or first.is_ome or first.is_shaped  # by software that sorted the pages
        is_scanimage = first.is_scanimage and not saved_again and options.axes is None
        header = scanimage.header(first.pages[0]) if is_scanimage else None
        together = _files_of_set(first) if first.is_ome and len(names) > 1 else set()
    if header is not None:
        pages = concatenated(names, pages_of)
        with closed_on_error(pages.close):
            return _page_table(pages, *scanimage.table(header, starts, names[0]))
    if len(together) > 1:
        outside = [name for name in names if Path(name).name not in together]
        if outside:
            raise SourceError(
                f"{names[0]} belongs to a set of {len(together)} OME-TIFF files, and {outside[0]} is not among them: "
                "open the first file of each set, which leads to the others"
            )
        names = names[:1]
    return concatenated(names, lambda name: _file(tifffile, name, options.axes, is_first=name == names[0]))


def _page_table(pages: Stack, axes: str, table: AnyArray) -> Stack:
    """The pages of files, sorted: a table of their numbers, and the letters of its axes."""

    def read(index: Index) -> AnyArray:
        inside = index[table.ndim :]
        numbers = table[index[: table.ndim]]
        images = (pages.read((slice(number, number + 1), *inside))[0] for number in numbers.ravel().tolist())
        return gathered(images, numbers.shape)

    shape = (*table.shape, *pages.shape[1:])
    return Stack(pages.where, axes + pages.axes[1:], shape, pages.dtype, read, pages.close)


def _arranged(pages: Stack, shape: tuple[int, ...], axes: str | None) -> Stack:
    """Pages in the order that the caller gives."""
    count, *image = pages.shape
    if axes is None:
        raise ConfigurationError(f"shape={shape} for {pages.where} needs axes=, how its pages follow each other")
    leading = filled_in(shape[: len(shape) - len(image)], count, pages.where)
    letters = given_axes(axes, shape, pages.where)
    if shape[len(leading) :] != tuple(image) or math.prod(leading) != count or not letters.endswith(pages.axes[1:]):
        raise SourceError(
            f"{pages.where} has {count} pages with axes {pages.axes[1:]} of shape {tuple(image)}, which are not "
            f"shape={shape} with axes={axes!r}"
        )
    return _page_table(pages, letters[: len(leading)], np.arange(count).reshape(leading))


def _file(tifffile: Any, name: str, axes: str | None, is_first: bool) -> Stack:
    """The images of a file, with the axes that the caller or its metadata gives them."""
    file = tifffile.TiffFile(name)
    with closed_on_error(file.close):
        stack = _pages(file, name) if set(file.flags) <= _PLAIN else _series(file, name)
        one_time = "T" in stack.axes and stack.size("T") == 1
        if axes is not None:
            stack = squeezed(stack) if one_time and len(axes) < len(stack.axes) else stack
            return replace(stack, axes=given_axes(axes, stack.shape, name))
        if one_time and is_first:  # the last file of a recording may well hold one volume, but a first is in doubt
            stack = squeezed(stack)
        return replace(stack, axes=_movie_axes(stack, name))


def _pages(file: Any, name: str) -> Stack:
    """All pages of a file, in their order, on an axis "T"."""
    count = _checked_length(file, name)
    first = file.pages[0]
    shape, dtype = first.shape, first.dtype
    axes = "T" + first.axes.replace("S", "C")
    read = _read_images(lambda number: file.pages[number], np.arange(count), shape, dtype, name)
    return Stack(name, axes, (count, *shape), dtype, read, file.close)


def _series(file: Any, name: str) -> Stack:
    """The images of a file on the axes of its metadata, in tifffile's letters; of length 1 only the time."""
    _checked_length(file, name)
    if len(file.series) != 1:
        if {series.axes for series in file.series} == {"YX"}:
            return _pages(file, name)  # written frame by frame
        raise SourceError(
            f"{name} holds {len(file.series)} series of images: pass one of them as an array, tifffile.imread(path, "
            "series=0)"
        )
    series, image = file.series[0], file.series[0].keyframe
    wanted = [
        (letter, length)
        for letter, length in zip(series.get_axes(False), series.get_shape(False), strict=True)
        if length > 1 or letter in "TYX"
    ]
    axes, shape = "".join(letter for letter, _ in wanted), tuple(length for _, length in wanted)
    leading = shape[: len(shape) - len(image.shape)]
    if shape[len(leading) :] != image.shape:
        raise SourceError(
            f"{name} has images of shape {image.shape} in an array of shape {shape}, axes {axes}: how, is not known "
            "here; pass it as an array, tifffile.imread(path)"
        )
    if series.dataoffset is not None and not series.is_multifile:
        size, end = file.filehandle.size, series.dataoffset + math.prod(shape) * series.dtype.itemsize
        if end > size:
            raise SourceError(_truncated(name, f"its frames would end at byte {end} of {size}"))
        stack = mapped(name, axes, series.dtype.newbyteorder(file.byteorder), shape, series.dataoffset)
        return replace(stack, close=file.close)

    def page(number: int) -> Any:
        found = series[number]
        if found is None:
            raise SourceError(f"{name} is one of several files, and the one with image {number} is missing")
        return found

    if len(series) != math.prod(leading):
        raise SourceError(_truncated(name, f"{len(series)} of {math.prod(leading)} images are there"))
    numbers = np.arange(len(series)).reshape(leading)
    return Stack(
        name, axes, shape, series.dtype, _read_images(page, numbers, image.shape, series.dtype, name), file.close
    )


def _movie_axes(stack: Stack, name: str) -> str:
    """The axes of a movie, from tifffile's letters; those that leave it open what time is are refused."""
    axes = stack.axes.replace("S", "C")
    if "T" not in axes and axes[0] in "IQ":
        axes = "T" + axes[1:]  # pages, or an array, of which nothing more is known
    if len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes) <= set("TZCYX") or ("T" not in axes and "Z" in axes):
        raise SourceError(
            f"{name} has axes {stack.axes} of shape {stack.shape}, and which of them is time is not said: say it with "
            "axes=, a letter each of T (time), Z (plane), C (channel), Y (height) and X (width). Without T, each file "
            "is one point in time"
        )
    return axes


def _read_images(
    page: Callable[[int], Any], numbers: AnyArray, shape: tuple[int, ...], dtype: Any, name: str
) -> Callable[[Index], AnyArray]:
    """Reading of images that stand in an array, each a page of its own."""

    def read(index: Index) -> AnyArray:
        chosen, inside = numbers[index[: numbers.ndim]], index[numbers.ndim :]
        images = (_image(page(number), shape, dtype, name, number)[inside] for number in chosen.ravel().tolist())
        return gathered(images, chosen.shape)

    return read


def _image(page: Any, shape: tuple[int, ...], dtype: Any, name: str, number: int) -> AnyArray:
    """The counts of a page, which has to be like the others."""
    if page.shape != shape or page.dtype != dtype:
        raise SourceError(
            f"{name}: page {number} holds {page.dtype} of shape {page.shape}, and the first {dtype} of shape {shape}: "
            "it is none of this movie's frames"
        )
    size = page.parent.filehandle.size
    end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    if end > size:
        raise SourceError(_truncated(name, f"page {number} would end at byte {end} of {size}"))
    with errors_named(f"{name}: page {number} cannot be decoded"), _open_again(page.parent.filehandle):
        return np.asarray(page.asarray())


@contextmanager
def _open_again(handle: Any) -> Iterator[None]:
    """Open another file of an OME set as long as it is read; tifffile closes them all but the first."""
    closed = handle.closed
    if closed:
        handle.open()
    try:
        yield
    finally:
        if closed:
            handle.close()


def _checked_length(file: Any, name: str) -> int:
    """How many pages a file has; tifffile counts as far as it can, and says nothing of those that are missing."""
    count = len(file.pages)
    if not count:
        raise SourceError(f"{name} holds no image")
    tiff, handle, last = file.tiff, file.filehandle, file.pages[count - 1]
    handle.seek(last.offset)
    try:
        [tags] = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
        handle.seek(last.offset + tiff.tagnosize + tags * tiff.tagsize)
        [following] = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
    except struct.error:
        following = handle.size
    end = max((offset + size for offset, size in zip(last.dataoffsets, last.databytecounts, strict=True)), default=0)
    if following or end > handle.size:
        raise SourceError(_truncated(name, f"after page {count - 1} of {handle.size} bytes in all"))
    return count


def _truncated(name: str, what: str) -> str:
    return (
        f"{name} is truncated ({what}): the acquisition was aborted, or the copy is not complete. Copy it again, or "
        "insert the frames that are there as an array, tifffile.imread(path, key=range(frames))"
    )


def _files_of_set(file: Any) -> set[str]:
    """The names of the files that the OME metadata of one of them makes one set."""
    return {Path(page.parent.filehandle.path).name for page in file.series[0].pages if page is not None}
