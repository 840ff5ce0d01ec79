"""Frames appended one by one while they are acquired."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from .._typing import Json, ZarrFormat
from ..anscombe.tables import LONG_WORK, prepare
from ..calibration import Calibration
from ..errors import ConfigurationError, InvalidMovieError
from ..handle import PhotonArray, open_array
from ..movies import WriteOptions, check_options
from ..sources import as_source
from ..storage.location import Location
from ..storage.target import empty_target
from .blocks import BlockWriter


class PhotonWriter:
    """Stores frames as they are acquired: a movie that is as good as finished when the last one is.

    The noise is measured on the first frames, unless a calibration is given; from then on full blocks of frames are
    encoded and written by threads of their own while the next are appended. Use it in a ``with`` block: leaving it
    finishes the movie, also on an error, so that what was acquired is kept. What a killed process leaves is read by
    :func:`recover_movie`.

    Parameters
    ----------
    store
        Where to: the path or URL of a folder that is empty or does not exist, or an empty zarr store.
    calibration
        The noise model; measured on the first frames when None.
    step, profile, compressors, zarr_format
        As in :func:`~dj_photon_codecs.write_movie`; not ``anscombe-v1``, whose codes depend on the highest count.
    backlog_bytes
        Frames that may wait to be written [bytes]. When they are as many, :meth:`append` waits. Memory is bounded by
        this and four blocks (256 MiB) more.

    Raises
    ------
    ConfigurationError
        For options out of range, or a place that is not empty.
    StorageError
        When the store cannot be asked.

    Examples
    --------
    >>> import numpy as np
    >>> camera = np.random.default_rng(0).poisson(5, (300, 64, 64)).astype(np.uint16)
    >>> with PhotonWriter("acquired") as writer:  # doctest: +SKIP (writes a folder)
    ...     for frame in camera:
    ...         writer.append(frame)
    >>> writer.movie.shape  # doctest: +SKIP
    (300, 64, 64)
    """

    def __init__(
        self,
        store: Any,
        *,
        calibration: Calibration | None = None,
        step: float = 0.5,
        profile: str = "standard",
        compressors: Any = None,
        zarr_format: ZarrFormat = 3,
        backlog_bytes: int = 1 << 29,
    ) -> None:
        options = WriteOptions(step, profile, compressors, zarr_format, progress=False)
        self._open(Location.of(store), options, calibration, backlog_bytes)

    def _open(
        self,
        location: Location,
        options: WriteOptions,
        calibration: Calibration | None,
        backlog_bytes: int,
        finished: Callable[[PhotonArray], None] = lambda movie: None,
    ) -> None:
        check_options(options)
        if options.profile == "anscombe-v1":
            raise ConfigurationError(
                "the anscombe-v1 profile needs to know the highest count before the first frame is written: acquire "
                "with the lossless profile, and write_movie(path, movie, profile='anscombe-v1') from that"
            )
        if backlog_bytes < 1:
            raise ConfigurationError(f"backlog_bytes must be a positive number of bytes, got {backlog_bytes!r}")
        empty_target(location)
        prepare(LONG_WORK)  # here, before the camera runs
        self._location, self._options, self._calibration = location, options, calibration
        self._backlog_bytes = backlog_bytes
        self._finished = finished
        self._blocks: BlockWriter | None = None
        self._movie: PhotonArray | None = None

    @classmethod
    def for_row(
        cls,
        table: Any,
        row: Json,
        attribute: str | None = None,
        *,
        calibration: Calibration | None = None,
        backlog_bytes: int = 1 << 29,
    ) -> Self:
        """A writer whose movie becomes a row: it is written where the row will have it, and inserted when finished.

        Parameters
        ----------
        table
            The DataJoint table.
        row
            All attributes of the row but the movie.
        attribute
            The ``<photon@...>`` column; None for the only one. Its codec says step and profile.
        calibration, backlog_bytes
            As for the class.

        Raises
        ------
        DataJointError
            For a row that is there already, or lacks an attribute; for a table without such a column.
        ConfigurationError, StorageError
            As for the class.
        """
        from ..codec import row_place

        location, options, insert = row_place(table, row, attribute)
        writer = cls.__new__(cls)
        writer._open(location, options, calibration, backlog_bytes, insert)
        return writer

    def __repr__(self) -> str:
        state = "finished" if self._movie is not None else f"{self.frames} frames so far"
        return f"<PhotonWriter {state} at {self._location.label}>"

    @property
    def location(self) -> str:
        """Where the movie is written: a path or URL without credentials."""
        return self._location.label

    @property
    def frames(self) -> int:
        """Frames that were appended."""
        return 0 if self._blocks is None else self._blocks.frames

    @property
    def backlog(self) -> int:
        """Frames that were appended and are not in the store yet."""
        return 0 if self._blocks is None else self._blocks.frames - self._blocks.frames_stored

    @property
    def movie(self) -> PhotonArray:
        """The stored movie, once it is finished.

        Raises
        ------
        InvalidMovieError
            Before that.
        """
        if self._movie is None:
            raise InvalidMovieError(f"the movie at {self.location} is not finished: close the writer first")
        return self._movie

    def append(self, frame: Any) -> None:
        """Append one time point.

        Parameters
        ----------
        frame
            Counts, shape (height, width) or (..., height, width). The first frame says shape and dtype of all.
            It is copied: the caller may use its memory again.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            For a frame of another shape or dtype, and for what holds no counts.
        StorageError
            When an earlier frame could not be written; no more are taken from then on.
        """
        self.extend(np.asarray(frame)[np.newaxis])

    def extend(self, frames: Any) -> None:
        """Append several time points: shape (time, ..., height, width); otherwise as :meth:`append`."""
        if self._movie is not None:
            raise InvalidMovieError(f"the movie at {self.location} is finished: no frame can be appended to it")
        frames = np.asarray(frames)
        if len(frames):
            if self._blocks is None:
                source = as_source(frames)
                self._blocks = BlockWriter(
                    self._location,
                    source.shape[1:],
                    source.dtype,
                    self._options,
                    self._calibration,
                    self._backlog_bytes,
                )
            self._blocks.extend(frames)

    def close(self) -> PhotonArray:
        """Finish the movie, and insert its row if it is one's.

        Raises
        ------
        InvalidMovieError
            When no frame was appended.
        StorageError
            When a frame could not be written. What is in the store stays there for :func:`recover_movie`.
        """
        if self._movie is None:
            if self._blocks is None:
                raise InvalidMovieError(f"no frame was appended, and nothing was written to {self.location}")
            self._movie = open_array(self._location, self._blocks.finish())
            self._finished(self._movie)
        return self._movie

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._blocks is not None and self._movie is None:
            # What was acquired cannot be acquired again: it is kept, and no row is made of it.
            try:
                self._movie = open_array(self._location, self._blocks.finish())
                error.add_note(f"{len(self._movie)} frames are kept: open_movie({self.location!r})")
            except Exception as failure:  # of any kind: the error of whoever acquires is the one to raise
                error.add_note(f"the movie at {self.location} could not be finished ({failure}): see recover_movie()")
