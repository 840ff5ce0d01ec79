"""A frame of counts as a small grey picture, in PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray

#: Pixels of the longer side of a picture, at most.
_SIDE = 256

#: Percentiles of the counts that become black and white: cosmic rays and dead pixels are neither.
_BLACK, _WHITE = 1.0, 99.7


def frame_png(counts: AnyArray) -> bytes:
    """A frame as an 8-bit grey PNG of at most 256 pixels a side.

    Pixels are averaged where there are more; black and white are the 1st and the 99.7th percentile of what is shown.

    Parameters
    ----------
    counts
        Shape (height, width), any integer or floating-point dtype [ADU]. What is not finite is shown black.

    Returns
    -------
    bytes
        The content of a PNG file.

    Raises
    ------
    ValueError
        When there are not two axes.
    """
    if counts.ndim != 2:
        raise ValueError(
            f"a picture has the axes (height, width), got shape {counts.shape}: choose a frame and a plane"
        )
    shown = _averaged(np.asarray(counts, np.float64))
    finite = shown[np.isfinite(shown)]
    black, white = np.percentile(finite, (_BLACK, _WHITE)) if finite.size else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        grey = np.clip((shown - black) / (white - black or 1.0), 0, 1)
    return _png(np.rint(255 * np.nan_to_num(grey, nan=0.0)).astype(np.uint8))


def _averaged(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of square tiles, so that neither side has more pixels than a picture may; the remainder is cut off."""
    factor = -(-max(counts.shape) // _SIDE)
    rows, columns = (min(factor, n) for n in counts.shape)
    height, width = counts.shape[0] // rows, counts.shape[1] // columns
    tiles = counts[: height * rows, : width * columns].reshape(height, rows, width, columns)
    return np.asarray(tiles.mean(axis=(1, 3)))


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    """The PNG file of an 8-bit image: signature, header, one block of deflated rows, end.

    An imaging library would be a dependency of every installation, for these lines.
    """
    height, width = grey.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0 for none
    rows[:, 1:] = grey
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
