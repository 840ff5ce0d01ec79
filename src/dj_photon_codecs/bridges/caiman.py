"""CaImAn: its memory maps, whose shape and order are in the file's name."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np

from .._arguments import check
from ..errors import ConfigurationError
from ..handle import PhotonArray
from .files import appearing, frame_blocks


def to_caiman(movie: PhotonArray, path: str | os.PathLike[str], *, order: Literal["C", "F"] = "C") -> Path:
    """Write a memory map for CaImAn, ``caiman.load_memmap``: float32 counts, (pixel, time).

    The movie is read and written in blocks of frames, in bounded memory. A count above 2^24 is rounded to float32.

    Parameters
    ----------
    movie
        The stored movie: (time, height, width), or (time, plane, height, width).
    path
        Folder and first part of the file's name: ``session/mouse1`` gives
        ``session/mouse1_d1_512_d2_512_d3_1_order_C_frames_9000.mmap``. CaImAn reads the shape from that name: height,
        width, planes and frames.
    order
        "C" keeps the times of a pixel together, as CNMF reads them. "F" keeps frames together, as motion correction
        reads them.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OccupiedError
        If there is such a file already.
    ConfigurationError
        If the order is neither, or the movie has more axes.
    MissingChunkError, DamagedChunkError, StorageError
        If the movie cannot be read. Nothing is left behind.
    """
    check(order in ("C", "F"), "to_caiman: order", order, '"C" for CNMF or "F" for motion correction')
    if movie.ndim > 4:
        raise ConfigurationError(f"CaImAn has at most time, height, width and planes; this movie is {movie.shape}")
    frames, *planes, height, width = movie.shape
    pixels = math.prod(movie.shape[1:])
    shape = f"d1_{height}_d2_{width}_d3_{planes[0] if planes else 1}_order_{order}_frames_{frames}"
    path = Path(path)
    with appearing(path.with_name(f"{path.name}_{shape}.mmap")) as partial, partial.open("wb", buffering=0) as file:
        file.truncate(4 * pixels * frames)
        for start, counts in frame_blocks(movie):
            # CaImAn counts pixels along the height first, then the width, then the planes
            flat = counts.swapaxes(-1, -2).reshape(len(counts), pixels).astype(np.float32)
            if order == "F":
                file.write(flat.data)
                continue
            # Written, not mapped: a mapping would bring the pages of all pixels into memory.
            for pixel, trace in enumerate(np.ascontiguousarray(flat.T)):
                file.seek(4 * (pixel * frames + start))
                file.write(trace.data)
    return path.with_name(f"{path.name}_{shape}.mmap")
