"""Convert a frame of counts to a small grey PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from .._arguments import check

_SIDE = 256  # largest side of the picture [pixels]
_BLACK, _WHITE = 1.0, 99.7  # percentiles shown as black and white; cosmic rays and dead pixels lie outside


def frame_png(counts: npt.ArrayLike) -> bytes:
    """Convert counts of shape (height, width) to an 8-bit grey PNG file of at most 256 pixels per side.

    Larger frames are averaged. Black and white are the 1st and the 99.7th percentile; NaN is black.
    Raise ConfigurationError if there are not two axes, or no pixels or no numbers.
    """
    frame = np.asarray(counts) if isinstance(counts, list | tuple) else counts
    right = len(getattr(frame, "shape", ())) == 2 and frame.size and frame.dtype.kind in "buif"  # type: ignore[union-attr]
    check(
        right, "frame_png: counts", counts, "a frame of numbers with the axes (height, width): choose one, and a plane"
    )
    shown = _averaged(np.asarray(frame, np.float64))
    finite = shown[np.isfinite(shown)]
    black, white = np.percentile(finite, (_BLACK, _WHITE)) if finite.size else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        grey = np.clip((shown - black) / (white - black or 1.0), 0, 1)
    return _png(np.rint(255 * np.nan_to_num(grey, nan=0.0)).astype(np.uint8))


def _averaged(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average square tiles to limit the size; cut off the remainder."""
    factor = -(-max(counts.shape) // _SIDE)
    rows, columns = (min(factor, n) for n in counts.shape)
    height, width = counts.shape[0] // rows, counts.shape[1] // columns
    tiles = counts[: height * rows, : width * columns].reshape(height, rows, width, columns)
    return np.asarray(tiles.mean(axis=(1, 3)))


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit image: PNG signature, header, one block of deflated rows, end."""
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
