"""Frame metadata of acquired movies, stored in an ``.npz`` file next to the movie, and user attributes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._arguments import brief_repr
from .._typing import AnyArray, Json
from .._zarr import submit
from ..errors import FormatError, InvalidMovieError
from ..handle import PhotonArray
from ..storage.documents import read_object
from ..storage.journal import FRAME_DATA
from ..storage.location import Location
from ..storage.record import ATTRIBUTE
from .blocks import UNKNOWN, unpacked

#: Names of arrays in the file that users may not use.
_OURS = ("number", "time", "blank", "repeated", "replaced_frames", "replaced")


@dataclass(frozen=True)
class FrameData:
    """Frame numbers, times, gaps and masks of an acquired movie.

    Attributes
    ----------
    number
        Camera frame numbers, int64, shape (time,); -1 for frames without one. Empty if no numbers were given.
    time
        Frame times as given to the writer, float64, shape (time,); NaN for frames without one. Empty if no times were
        given.
    blank
        True for frames of zeros inserted in place of missing frames, bool, shape (time,). Empty if there are none.
    repeated
        Frame indices at which the camera sent the previous frame again, int64. The duplicates were dropped.
    replaced_frames
        Indices of frames with masked pixels, or with values that could not be stored, int64; see :meth:`replaced`.
    arrays
        Arrays that the user stored with the movie, by name.
    """

    number: AnyArray
    time: AnyArray
    blank: AnyArray
    repeated: AnyArray
    replaced_frames: AnyArray
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    _replaced: dict[int, Json] = field(default_factory=dict, repr=False)
    _frame: tuple[tuple[int, ...], np.dtype[Any]] = ((), np.dtype(np.uint8))

    __repr__ = brief_repr

    @property
    def missing(self) -> list[tuple[int, int]]:
        """Runs of missing frame numbers, as (first, last) with both ends included."""
        numbers = self.number[self.number >= 0]
        before = np.flatnonzero(np.diff(numbers) > 1)
        gaps = [(int(numbers[i]) + 1, int(numbers[i + 1]) - 1) for i in before]
        if len(self.blank) and len(self.number):
            gaps += [(int(number), int(number)) for number in self.number[self.blank]]
        return sorted(gaps)

    def replaced(self, frame: int) -> tuple[AnyArray, AnyArray]:
        """Return the masked and replaced pixels of a frame, and their original values.

        Parameters
        ----------
        frame
            Index of the frame in the movie.

        Returns
        -------
        mask : numpy.ndarray
            Boolean array with the shape of the frame.
        values : numpy.ndarray
            Original values of the pixels in the mask, in C order and in the dtype of the movie.
        """
        shape, dtype = self._frame
        found = self._replaced.get(frame)
        if found is None:
            return np.zeros(shape, bool), np.empty(0, dtype)
        size = int(np.prod(shape))
        mask = np.unpackbits(unpacked(found["mask"], np.dtype(np.uint8)), count=size).astype(bool)
        return mask.reshape(shape), unpacked(found["values"], dtype)


def packed_frame_data(
    parts: Sequence[tuple[int, int, Json]], arrays: dict[str, Any], repeated: Sequence[int]
) -> bytes | None:
    """Return the content of the ``.npz`` file, or None if there is nothing to store.

    ``parts`` are runs of frames in time order: index of the first frame, number of frames, and their metadata.
    """
    content: dict[str, AnyArray] = {name: np.asarray(value) for name, value in arrays.items()}
    for name in ("number", "time", "blank"):
        if any(name in info for *_, info in parts):
            content[name] = np.concatenate([info.get(name, [UNKNOWN[name]] * n) for _, n, info in parts])
    if repeated:
        content["repeated"] = np.asarray(repeated, np.int64)
    replaced = {
        first + place: found
        for first, _, info in parts
        for place, found in enumerate(info.get("replaced", ()))
        if found is not None
    }
    if replaced:
        content["replaced_frames"] = np.fromiter(replaced, np.int64)
        lines = "\n".join(json.dumps(found) for found in replaced.values())
        content["replaced"] = np.frombuffer(lines.encode(), np.uint8)
    if not content:
        return None
    file = io.BytesIO()
    np.savez_compressed(file, **content)  # type: ignore[arg-type]  # numpy's stub takes a bool for one of them
    return file.getvalue()


def check_arrays(arrays: dict[str, Any]) -> None:
    """Raise InvalidMovieError for array names or dtypes that cannot be stored."""
    for name, value in arrays.items():
        array = np.asarray(value)
        if name in _OURS or not name.isidentifier() or array.dtype.hasobject or array.dtype.kind == "V":
            raise InvalidMovieError(
                f"array {name!r} of {array.dtype} cannot be stored with the movie: a name must be an identifier other "
                f"than {', '.join(_OURS)}, and an array must contain numbers, strings or times"
            )


def check_attributes(attributes: Any) -> Json:
    """Return a copy of the user attributes; raise InvalidMovieError for a reserved name."""
    found = dict(attributes or {})
    if ATTRIBUTE in found or not all(isinstance(name, str) for name in found):
        raise InvalidMovieError(
            f"names of attributes must be strings other than {ATTRIBUTE!r}, got {sorted(map(str, found))}"
        )
    return found


def read_frame_data(movie: Any) -> FrameData:
    """Read the frame numbers, times, gaps and masks of an acquired movie.

    Parameters
    ----------
    movie
        A :class:`~dj_photon_codecs.PhotonArray`, or the path, URL or store of a movie.

    Returns
    -------
    FrameData
        All arrays are empty if no frame data was stored.

    Raises
    ------
    FormatError
        If the frame data file is damaged.
    StorageError
        If the store cannot be read.
    """
    from ..movies import open_movie

    movie = movie if isinstance(movie, PhotonArray) else open_movie(movie)
    location: Location = movie._location
    content = submit(read_object(location, FRAME_DATA)).result()
    nothing, found = np.empty(0, np.int64), dict[str, AnyArray]()
    try:
        if content is not None:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        lines = found.pop("replaced", np.empty(0, np.uint8)).tobytes().decode().splitlines()
        frames = found.get("replaced_frames", nothing)
        replaced = dict(zip(frames.tolist(), map(json.loads, lines), strict=True))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{FRAME_DATA!r} of {location.label} is damaged ({type(error).__name__}: {error})") from error
    return FrameData(
        found.pop("number", nothing),
        found.pop("time", np.empty(0)),
        found.pop("blank", np.empty(0, bool)),
        found.pop("repeated", nothing),
        found.pop("replaced_frames", nothing),
        found,
        replaced,
        (movie.shape[1:], movie.dtype),
    )
