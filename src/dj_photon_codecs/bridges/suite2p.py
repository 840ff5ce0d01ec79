"""Suite2p: its binary file of int16 counts, and the settings beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._arguments import check
from .._typing import AnyArray
from ..errors import ConfigurationError, InvalidMovieError
from ..handle import PhotonArray
from .axes import frame_rate_of
from .files import appearing, frame_blocks

_INT16 = np.iinfo(np.int16)


def to_suite2p(
    movie: PhotonArray,
    folder: str | os.PathLike[str],
    *,
    frame_rate: float | None = None,
    as_int16: Literal["halve", "exact", "clip"] = "halve",
    plane: int | tuple[int, ...] = (),
    second_channel: PhotonArray | None = None,
) -> Path:
    """Write a movie as Suite2p's binary file, with its settings, to ``folder/suite2p/plane0``.

    The movie is read and written in blocks of frames, in bounded memory. Suite2p 1.x then runs on the folder, and
    needs no other input file: see the page "Suite2p" of the documentation.

    Parameters
    ----------
    movie
        The stored movie: (time, height, width), or with more axes and ``plane``.
    folder
        Folder for Suite2p's results, its ``save_path0``.
    frame_rate
        Frames per second of one plane [Hz]. By default that of the recording, if the movie has it.
    as_int16
        What happens to a dtype whose range exceeds that of int16; uint8 and int16 are never changed. "halve" divides
        by two and rounds down, as Suite2p does with uint16 itself. "exact" keeps the counts, and raises if one does
        not fit. "clip" replaces those outside the range by its ends. Counts of floating-point dtypes are rounded.
        No count ever wraps around.
    plane
        Index along the axes between time and height: 2 for the third plane of a movie (time, plane, height, width),
        written to ``plane2``. A tuple for more axes; its last index names the folder.
    second_channel
        Movie of the second channel, of the same shape, for Suite2p's ``data_chan2.bin``.

    Returns
    -------
    pathlib.Path
        The folder of the plane.

    Raises
    ------
    ConfigurationError
        If ``plane`` does not select one plane, the frame rate is not known, or the channels have different shapes.
    InvalidMovieError
        If a count is outside the range of int16 after ``as_int16``.
    OccupiedError
        If the folder of the plane exists.
    MissingChunkError, DamagedChunkError, StorageError
        If the movie cannot be read. Nothing is left behind after any error.
    """
    check(as_int16 in ("halve", "exact", "clip"), "to_suite2p: as_int16", as_int16, '"halve", "exact" or "clip"')
    index = _checked_plane(movie, plane)
    rate = frame_rate_of(movie, frame_rate, "frame_rate")
    channels = {"data.bin": movie}
    if second_channel is not None:
        if second_channel.shape != movie.shape:
            raise ConfigurationError(f"the second channel is {second_channel.shape}, and the first {movie.shape}")
        channels["data_chan2.bin"] = second_channel
    root = Path(folder).absolute()
    place = root / "suite2p" / f"plane{index[-1] if index else 0}"
    with appearing(place) as partial:
        partial.mkdir()
        for name, channel in channels.items():
            with (partial / name).open("wb", buffering=0) as file:
                for start, counts in frame_blocks(channel, index):
                    file.write(_int16(counts, as_int16, start).data)
        _save(partial / "db.npy", _db(movie, root, place, len(channels)))
        _save(partial / "settings.npy", {"fs": rate})
    return place


def _checked_plane(movie: PhotonArray, plane: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of a plane along each axis between time and height."""
    index, sizes = plane if isinstance(plane, tuple) else (plane,), movie.shape[1:-2]
    if index == (0,) and not sizes:
        return ()
    if len(index) != len(sizes) or any(not 0 <= one < size for one, size in zip(index, sizes, strict=True)):
        wanted = ", ".join(f"0 to {size - 1}" for size in sizes)
        raise ConfigurationError(
            f"plane={plane!r} is not one plane of a movie of shape {movie.shape}"
            + (f": it has an index from {wanted}" if sizes else ", which has only one: leave it out")
        )
    return index


def _int16(counts: AnyArray, how: str, start: int) -> npt.NDArray[np.int16]:
    """Convert frames from ``start`` on to int16; raise InvalidMovieError for a count that does not fit."""
    if not np.can_cast(counts.dtype, np.int16):
        if counts.dtype.kind == "f":
            counts = np.rint(counts)
        if how == "halve":
            counts = counts // 2
        low = 0 if counts.dtype.kind == "u" else _INT16.min  # numpy compares with what the dtype can hold
        if how == "clip":
            counts = np.clip(counts, low, _INT16.max)
        outside = (counts < low) | (counts > _INT16.max)
        if outside.any():
            frame, row, column = np.argwhere(outside)[0]
            ways_out = 'as_int16="clip" replaces such counts by the ends of the range'
            if how == "exact":
                ways_out += ', as_int16="halve" halves all counts'
            raise InvalidMovieError(
                f"frame {start + frame} has {counts[frame, row, column]} at row {row}, column {column}"
                f"{' after halving' if how == 'halve' else ''}, outside the range of int16: {ways_out}"
            )
    return np.ascontiguousarray(counts, np.int16)


def _db(movie: PhotonArray, root: Path, place: Path, n_channels: int) -> dict[str, Any]:
    """Return what Suite2p knows about its binary files (``db.npy``)."""
    height, width = movie.shape[-2:]
    document = {
        "Ly": height,
        "Lx": width,
        "nframes": len(movie),
        "nplanes": 1,
        "nchannels": n_channels,
        "functional_chan": 1,
        "keep_movie_raw": False,
        "data_path": [str(root)],  # where it looks for bad_frames.npy
        "save_path0": str(root),
        "save_folder": "suite2p",
        "save_path": str(place),
        "reg_file": str(place / "data.bin"),
        "db_path": str(place / "db.npy"),
        "settings_path": str(place / "settings.npy"),
    }
    return document | ({"reg_file_chan2": str(place / "data_chan2.bin")} if n_channels == 2 else {})


def _save(path: Path, settings: dict[str, Any]) -> None:
    """Save a dictionary as Suite2p does: an array of one object."""
    np.save(path, np.array(settings, dtype=object), allow_pickle=True)
