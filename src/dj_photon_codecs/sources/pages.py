"""Read the images of one TIFF file: its pages in order, or a series with axes from its metadata.

Contiguous frames are memory-mapped; others are decoded page by page.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..errors import SourceError
from .raw import mapped
from .stack import DamagedFile, Index, Options, Stack, errors_named, image_reader, one_of

_QUIET: ContextVar[bool] = ContextVar("_QUIET", default=False)
#: Remedy for metadata that does not match the pages.
SAY_SHAPE = 'as in shape=(-1, channels, height, width) with axes="TCYX"'

_WIDTH, _HEIGHT, _BITS, _COMPRESSION = 256, 257, 258, 259
_OFFSETS, _SAMPLES, _COUNTS, _PREDICTOR, _TILES, _FORMAT = 273, 277, 279, 317, 322, 339
_KNOWN = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _COUNTS, _PREDICTOR, _FORMAT}
_ORDERS = {b"II": "<", b"MM": ">"}
_TYPES = {3: "H", 4: "I", 16: "Q"}
_HEAD = 4096  # bytes read first; they contain the header and tags of most files


@contextmanager
def quiet() -> Iterator[None]:
    """Silence tifffile's log messages about odd tags; this package reports the problems that matter."""
    logger = logging.getLogger("tifffile")
    if _speaks not in logger.filters:
        logger.addFilter(_speaks)
    token = _QUIET.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _QUIET.reset(token)


def _speaks(_: logging.LogRecord) -> bool:
    return not _QUIET.get()


def all_pages(file: Any, name: str) -> Stack:
    """All pages of a file, in order, along axis "T"."""
    count, first = _checked_length(file, name), file.pages[0]
    read = image_reader(partial(_image, file.pages, first, name), np.arange(count))
    axes = "T" + first.axes.replace("S", "C")
    return Stack(name, axes, (count, *first.shape), first.dtype, read, file.close)


def series_of(file: Any, name: str, options: Options) -> Stack:
    """Images of a file with the axes of its metadata, in tifffile's letters."""
    if file.is_imagej:
        _check_imagej(file, name)
    _checked_length(file, name)
    number, chosen = 0, ""
    if len(file.series) > 1:
        if {one.axes for one in file.series} == {"YX"}:
            return all_pages(file, name)  # written frame by frame
        if not (file.is_ome or file.is_micromanager):
            raise SourceError(
                f"{name} holds {len(file.series)} series of images: pass one of them as an array, "
                "tifffile.imread(path, series=0)"
            )
        number = one_of("P", range(len(file.series)), options, name, names=[one.name for one in file.series])
        chosen = "P"
    series = file.series[number]
    described = sum(map(len, file.series))
    if not any(one.is_multifile for one in file.series) and described < len(file.pages):
        raise SourceError(
            f"{name} holds {len(file.pages)} images, and its metadata ({series.kind}) describes {described} of them: "
            f"its writer miscounted channels, planes or frames. Give the order of its pages, {SAY_SHAPE}"
        )
    axes, shape = _axes_of(file, number)
    image = series.keyframe
    leading = shape[: len(shape) - len(image.shape)]
    if shape[len(leading) :] != image.shape:
        raise SourceError(
            f"{name} has images of shape {image.shape} in an array of shape {shape}, axes {axes}, an arrangement that "
            "is not supported: pass it as an array, tifffile.imread(path)"
        )
    own = series[0] is None or series[0].parent is file
    if series.dataoffset is not None and own and not series.is_multifile:
        size, end = file.filehandle.size, series.dataoffset + math.prod(shape) * series.dtype.itemsize
        if end > size:
            raise _truncated(name, f"its frames would end at byte {end} of {size}")
        stack = mapped(name, axes, series.dtype.newbyteorder(file.byteorder), shape, series.dataoffset)
        return replace(stack, close=file.close, chosen=chosen)
    if len(series) != math.prod(leading):
        raise _truncated(name, f"{len(series)} of {math.prod(leading)} images are there")
    read = image_reader(partial(_image, series, image, name), np.arange(len(series)).reshape(leading))
    return Stack(name, axes, shape, series.dtype, read, file.close, chosen=chosen)


def _check_imagej(file: Any, name: str) -> None:
    """Raise if the image counts in ImageJ's header do not match the images in the file."""
    if file.pages[0].axes != "YX":  # colour images
        return
    header, series = file.imagej_metadata or {}, file.series[0]
    promised = int(header.get("images", 1))
    product = math.prod(int(header.get(what, 1)) for what in ("channels", "slices", "frames"))
    behind = series.kind == "imagej" and series.dataoffset is not None  # one page, followed by the raw frames
    there = math.prod(series.shape[:-2]) if behind else len(file.pages)
    if promised > there or product > there or (product > 1 and product != there):
        parts = " x ".join(f"{header[what]} {what}" for what in ("frames", "slices", "channels") if what in header)
        raise DamagedFile(
            f"{name} holds {there} images, and its ImageJ header says {promised}{f' ({parts})' if parts else ''}: it "
            "was cut off, or other software changed its pages. Copy it again; if it is complete, give the order of "
            f"its pages, {SAY_SHAPE}"
        )


def _axes_of(file: Any, number: int) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of a series; axes of length 1 are dropped, except T, Y and X."""
    series = file.series[number]
    if hasattr(series, "get_axes"):  # before tifffile 2026.5.2
        letters, lengths = series.get_axes(False), series.get_shape(False)
    else:
        whole = file.series(squeeze=False)[number]
        letters, lengths = whole.axes, whole.shape
    wanted = [pair for pair in zip(letters, lengths, strict=True) if pair[1] > 1 or pair[0] in "TYX"]
    return "".join(letter for letter, _ in wanted), tuple(length for _, length in wanted)


def _image(pages: Any, first: Any, name: str, number: int) -> AnyArray:
    """Decode a page; raise if its shape or dtype differs from the first."""
    with quiet(), ExitStack() as opened:
        page = pages[number]
        if page is None:
            raise SourceError(f"{name} is one of several files, and the one with image {number} is missing")
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise SourceError(
                f"{name}: page {number} holds {page.dtype} of shape {page.shape}, and the first {first.dtype} of shape "
                f"{first.shape}: it is not a frame of this movie"
            )
        handle = page.parent.filehandle
        end = _end(page)
        if end > handle.size:
            raise _truncated(name, f"page {number} would end at byte {end} of {handle.size}")
        with errors_named(f"{name}: page {number} cannot be decoded"):
            if handle.closed:  # tifffile closes all files of an OME set but the first
                handle.open()
                opened.callback(handle.close)
            return np.asarray(page.asarray())


def _end(page: Any) -> int:
    """Last byte of the counts of a page."""
    return max((start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)


def _checked_length(file: Any, name: str) -> int:
    """Number of pages; raise if the file is truncated, because tifffile silently counts only the pages it can reach."""
    count = len(file.pages)
    if not count or not file.pages[0].shape:
        raise DamagedFile(f"{name} holds no image")
    tiff, handle, last = file.tiff, file.filehandle, file.pages[count - 1]
    handle.seek(last.offset)
    try:
        [tags] = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
        handle.seek(last.offset + tiff.tagnosize + tags * tiff.tagsize)
        [following] = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
    except struct.error:
        following = handle.size
    if following or _end(last) > handle.size:
        raise _truncated(name, f"after page {count - 1} of {handle.size} bytes in all")
    return count


def _truncated(name: str, what: str) -> DamagedFile:
    return DamagedFile(
        f"{name} is truncated ({what}): the acquisition was aborted, or the copy is not complete. Copy it again, or "
        "insert the frames that are there as an array, tifffile.imread(path, key=range(frames))"
    )


def single_page(name: str) -> Stack | None:
    """Open a file as one frame; None if it has more pages, or its counts are not contiguous and uncompressed.

    tifffile is slow at opening 1,500 files of one frame.
    """
    with open(name, "rb", buffering=0) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)

        def at(offset: int, form: str) -> tuple[Any, ...]:
            if offset + struct.calcsize(form) <= len(head):
                return struct.unpack_from(form, head, offset)
            file.seek(offset)
            return struct.unpack(form, file.read(struct.calcsize(form)))

        try:
            order = _ORDERS[head[:2]]
            big = at(2, f"{order}H") == (43,)
            first, pointer, counter = (8, "Q", "Q") if big else (4, "I", "H")
            entry = struct.Struct(f"{order}HH{pointer}{first}s")  # tag, type, number of values, values or their place
            [offset] = at(first, order + pointer)
            [count] = at(offset, order + counter)
            if count > 500:
                return None
            entries, following = at(offset + struct.calcsize(order + counter), f"{order}{count * entry.size}s{pointer}")
            if following:  # another page
                return None
            tags: dict[int, tuple[int, ...]] = {}
            for tag, kind, number, value in entry.iter_unpack(entries):
                if tag == _TILES:
                    return None
                if tag in _KNOWN and kind in _TYPES and number <= size:
                    form = f"{order}{number}{_TYPES[kind]}"
                    inline = struct.calcsize(form) <= len(value)
                    [place] = struct.unpack(order + pointer, value)
                    tags[tag] = struct.unpack_from(form, value) if inline else at(place, form)
            return _frame(name, tags, order, size)
        except (KeyError, struct.error):  # tifffile reports what is wrong
            return None


def _frame(name: str, tags: dict[int, tuple[int, ...]], order: str, size: int) -> Stack | None:
    """Build the frame from its tags; None if it does not hold plain counts."""
    [bits], [form] = tags[_BITS][:1], tags.get(_FORMAT, (1,))[:1]
    plain = tags.get(_COMPRESSION, (1,)) == (1,) == tags.get(_SAMPLES, (1,)) and tags.get(_PREDICTOR, (1,)) == (1,)
    if not plain or bits not in (8, 16, 32) or form not in (1, 2, 3) or (form == 3 and bits != 32):
        return None
    dtype = np.dtype(f"{order}{'uif'[form - 1]}{bits // 8}")
    offsets, lengths, shape = tags[_OFFSETS], tags[_COUNTS], (1, tags[_HEIGHT][0], tags[_WIDTH][0])
    beside = all(o + n == following for o, n, following in zip(offsets, lengths, offsets[1:], strict=False))
    pixels, end = math.prod(shape), offsets[0] + sum(lengths)
    if not beside or sum(lengths) != pixels * dtype.itemsize:
        return None
    if end > size:
        raise DamagedFile(f"{name} is truncated: its frame would end at byte {end} of {size}")

    def read(index: Index) -> AnyArray:
        counts = np.fromfile(name, dtype, pixels, offset=offsets[0])
        if counts.size < pixels:
            raise DamagedFile(f"{name} is truncated: it became shorter after it was opened")
        return counts.reshape(shape)[index]

    return Stack(name, "TYX", shape, dtype, read)
