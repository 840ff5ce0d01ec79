"""Read a movie while another process acquires it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .._typing import AnyArray
from .._zarr import ArrayMetadata, metadata_documents, submit
from ..errors import DamagedChunkError, FormatError
from ..storage.chunks import ChunkReader
from ..storage.documents import read_documents, read_object
from ..storage.journal import KEPT, Head, block_index, read_head, read_journal
from ..storage.location import Location, ProcessStore
from ..storage.target import Target
from .array import PhotonArray, open_array


class LiveMovie:
    """The stored part of a movie that is still being acquired; created by ``open_movie(path, live=True)``.

    Indexing along time returns counts. The length is fixed until :meth:`refresh` looks for new frames. Once the movie
    is finished, :attr:`finished` is True, and ``open_movie(path)`` opens it.

    Parameters
    ----------
    location
        Folder of the movie.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._stored: PhotonArray | None = None  # full blocks
        self._recent: AnyArray | None = None  # frames after the full blocks
        journal = submit(read_journal(location)).result()
        if journal is None:
            raise FormatError(
                f"nothing is being acquired at {location.label}: leave out live=True to open a finished movie"
            )
        self._frame_shape, self._dtype = journal.frame_shape, np.dtype(journal.dtype)
        self.finished = False
        self.refresh()

    def __repr__(self) -> str:
        return f"<LiveMovie {self.shape} {self.dtype}{', finished' if self.finished else ''} at {self._location.label}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, ..., height, width), as of the last refresh."""
        n_frames = sum(len(part) for part in (self._stored, self._recent) if part is not None)
        return (n_frames, *self._frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the counts."""
        return self._dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[AnyArray]:
        return (self[index] for index in range(len(self)))

    def refresh(self) -> int:
        """Look for new frames and return the total number of frames.

        Raises
        ------
        StorageError
            If the store cannot be read.
        """
        journal = submit(read_journal(self._location)).result()
        documents = submit(read_documents(self._location)).result() if journal is None else None
        if documents:
            self._stored, self._recent, self.finished = open_array(self._location, documents), None, True
            return len(self)
        if journal is not None and journal.metadata is not None:
            keys = submit(Target(self._location).keys()).result()
            found = {block_index(key) for key in keys}
            n_blocks = next(i for i in itertools.count() if i not in found)
            self._stored = _blocks(self._location, journal.metadata, n_blocks)
        self._recent = self._frames_after(0 if self._stored is None else len(self._stored))
        return len(self)

    def _frames_after(self, first: int) -> AnyArray | None:
        """Return the frames from ``first`` on that are stored outside blocks, up to the first gap."""
        keys = sorted(key for key in submit(Target(self._location).keys()).result() if key.startswith(KEPT))
        parts, reached = [], first
        for key in keys:
            content = submit(read_object(self._location, key)).result() if key.endswith(".frames") else None
            if content is None:  # its block has been written in the meantime
                continue
            try:
                head = Head.of(content, key)
                if head.first_frame <= reached < head.first_frame + head.n_frames:
                    parts.append(head.counts(content, key)[reached - head.first_frame :])
                    reached = head.first_frame + head.n_frames
            except DamagedChunkError:  # still being written
                break
        return np.concatenate(parts) if parts else None

    def __getitem__(self, selection: Any) -> AnyArray:
        """Return counts. The first index is along time: an integer, a slice, or an array of integers."""
        time, *rest = selection if isinstance(selection, tuple) else (selection,)
        if time is Ellipsis:
            time, rest = slice(None), [Ellipsis, *rest]
        try:
            found = np.arange(len(self))[time]
        except IndexError:
            found = None
        if found is None or time is None or isinstance(time, bool | np.bool_):
            raise IndexError(
                f"frame {time!r} is out of range: there are {len(self)} frames so far, and refresh() looks for more"
            )
        wanted = np.atleast_1d(found)
        counts = np.empty((len(wanted), *self._frame_shape), self._dtype)
        split = 0 if self._stored is None else len(self._stored)
        early = wanted < split
        if self._stored is not None:
            counts[early] = self._stored[wanted[early]]
        if self._recent is not None:
            counts[~early] = self._recent[wanted[~early] - split]
        result = counts[(slice(None), *rest)] if rest else counts
        return result if found.ndim else result[0]


def _blocks(location: Location, metadata: ArrayMetadata, n_blocks: int) -> PhotonArray | None:
    """Return the first blocks as an array, without a record, because the totals are not known yet."""
    reader = ChunkReader(metadata, ProcessStore(location))
    n_frames = n_blocks * reader.grid.stored[0]
    if n_blocks and reader.format.index is not None:  # the last block may be the partial one at the end of the movie
        place = (n_blocks - 1, *(0,) * (len(metadata.shape) - 1))
        try:
            n_frames += submit(read_head(location, reader.key(place))).result().n_frames - reader.grid.stored[0]
        except DamagedChunkError:
            n_frames -= reader.grid.stored[0]
    if not n_frames:
        return None
    return PhotonArray(location, metadata_documents(replace(metadata, shape=(n_frames, *metadata.shape[1:]))), None)
