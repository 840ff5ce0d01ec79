"""The writer that stores a movie during acquisition."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from .._typing import Json, ZarrFormat
from .._warn import warn
from .._zarr import submit
from ..anscombe.tables import LONG_WORK, prepare
from ..calibration import Calibration
from ..errors import InvalidMovieError, LostFramesWarning
from ..handle import PhotonArray, open_array
from ..options import WriteOptions
from ..sources import as_source
from ..storage.claim import Claim, read_claim
from ..storage.count_range import check_block
from ..storage.location import Location
from ..storage.target import empty_target
from .frame_data import check_arrays, check_attributes
from .planning import Setup
from .recorder import Recorder
from .status import AcquisitionStatus, in_seconds

#: Options of :meth:`PhotonWriter.for_row`; the column defines the others, such as step and profile.
_ROW_OPTIONS = {field.name for field in fields(Setup) if field.init} - {"options", "row", "arrays"}

#: Open writers, which are closed when the process exits.
_open: set[PhotonWriter] = set()


class PhotonWriter:
    """Store frames during acquisition.

    The noise is measured on the first frames that show it, unless a calibration is given. From then on, background
    threads encode and write full blocks of frames while further frames are appended. Frames that have waited for
    ``flush_seconds`` are stored uncompressed until their block is full. Use the writer in a ``with`` block: leaving
    the block finishes the movie, even after an error, so the acquired frames are kept. If the process is killed,
    :func:`recover_movie` recovers the movie.

    Parameters
    ----------
    store
        Path or URL of a folder that is empty or does not exist, or an empty zarr store.
    calibration
        Noise model. None measures it on the first frames.
    step, profile, compressors, zarr_format
        As in :func:`~dj_photon_codecs.write_movie`. The ``anscombe-v1`` profile is not supported, because its codes
        depend on the highest count.
    backlog_bytes
        Size of the full blocks that may wait to be written [bytes]; beyond it, :meth:`append` waits. The guide lists
        the other memory that the writer needs.
    flush_seconds
        Longest time until a frame is stored if the store keeps up [s]. A power cut loses at most this much. None
        stores full blocks only.
    spill_to
        Local folder that takes frames while the store fails. They are moved to the store when it works again, or by
        :func:`recover_movie`.
    sync
        True to sync local files to disk, so that they survive a power cut.
    patience_seconds
        How long the store may fail before :meth:`append` (if memory is full) and :meth:`close` raise an error [s].
    gaps
        What to do about missing frame numbers: "record" records them. "blank" also inserts a frame of zeros for each,
        so that frame n of the movie is frame n of the camera.
    attributes
        User attributes as JSON values, stored in the Zarr attributes of the movie. They can be changed in
        ``writer.attributes`` until the writer is closed.

    Attributes
    ----------
    attributes
        As above.
    arrays
        Arrays to store next to the movie when it is closed, by name; :func:`read_frame_data` returns them.

    Raises
    ------
    ConfigurationError
        If an option is out of range, or if the store is not empty.
    StorageError
        If the store cannot be read or written.

    Warns
    -----
    AcquisitionWarning
        If the store fails, or if a frame is missing or cannot be stored exactly. The recording continues.

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
        flush_seconds: float | None = 10.0,
        spill_to: Any = None,
        sync: bool = True,
        patience_seconds: float = 600.0,
        gaps: Literal["record", "blank"] = "record",
        attributes: Json | None = None,
    ) -> None:
        written_as = WriteOptions(
            step=step, profile=profile, compressors=compressors, zarr_format=zarr_format, progress=False
        )
        others = (calibration, backlog_bytes, flush_seconds, spill_to, sync, patience_seconds, gaps, attributes)
        self._open(Location.of(store), Setup(written_as, *others))

    def _open(
        self, location: Location, setup: Setup, finished: Callable[[PhotonArray], None] = lambda movie: None
    ) -> None:
        prepare(LONG_WORK)  # now, before the camera runs
        self._place = empty_target(location)
        self._claim: Claim | None = None
        if self._place.keeps_journal:
            if location.unused:
                submit(self._place.claim()).result()
            self._claim = submit(read_claim(location)).result()
        self._location = replace(location, unused=True)  # it is already claimed
        self._setup, self._finished = setup, finished
        self.attributes, self.arrays = setup.attributes, setup.arrays
        self._recorder: Recorder | None = None
        self._movie: PhotonArray | None = None
        self._complete = False  # True once the row is inserted and temporary objects are removed
        self._lock = threading.RLock()
        self._pid = os.getpid()
        _open.add(self)

    @classmethod
    def for_row(cls, table: Any, row: Json, attribute: str | None = None, **options: Any) -> Self:
        """Create a writer for a table row; the row is inserted when the movie is finished.

        The movie is written directly to the path that the row will reference. If the insert fails,
        :func:`recover_row` returns the row.

        Parameters
        ----------
        table
            The DataJoint table.
        row
            All attributes of the row except the movie.
        attribute
            Name of the ``<photon@...>`` column. Its codec defines step and profile. None selects the only such column.
        **options
            ``calibration``, ``backlog_bytes``, ``flush_seconds``, ``spill_to``, ``sync``, ``patience_seconds``,
            ``gaps`` and ``attributes``, as for the class.

        Raises
        ------
        DataJointError
            If the row already exists or lacks an attribute, or if the table has no such column.
        ConfigurationError, StorageError
            As for the class.
        """
        from ..codec import row_place

        unknown = options.keys() - _ROW_OPTIONS
        if unknown:
            raise TypeError(f"for_row takes {', '.join(sorted(_ROW_OPTIONS))}; got {', '.join(sorted(unknown))}")
        location, written_as, insert, ticket = row_place(table, row, attribute)
        writer = cls.__new__(cls)
        writer._open(location, Setup(written_as, row=ticket or None, **options), insert)
        return writer

    def __repr__(self) -> str:
        state = "finished" if self._movie is not None else f"{self.frames} frames so far"
        return f"<PhotonWriter {state} at {self._location.label}>"

    @property
    def location(self) -> str:
        """Path or URL of the movie, without credentials."""
        return self._location.label

    @property
    def frames(self) -> int:
        """Number of frames appended."""
        return 0 if self._recorder is None else self._recorder.frames

    @property
    def backlog(self) -> int:
        """Number of frames that are only in memory."""
        return 0 if self._recorder is None else self._recorder.frames - self._recorder.stored

    @property
    def status(self) -> AcquisitionStatus:
        """Current frame rate, backlog, stored bytes, compression ratio and time until the disk is full."""
        if self._recorder is None:
            return AcquisitionStatus(0, 0, float("nan"), 0, 0, float("nan"), float("nan"), None)
        return self._recorder.status()

    @property
    def movie(self) -> PhotonArray:
        """The finished movie.

        Raises
        ------
        InvalidMovieError
            If the movie is not finished.
        """
        if self._movie is None:
            raise InvalidMovieError(f"the movie at {self.location} is not finished: close the writer first")
        return self._movie

    def append(self, frame: Any, *, number: int | None = None, time: float | None = None) -> None:
        """Append one time point.

        Parameters
        ----------
        frame
            Counts, shape (height, width) or (..., height, width). The first frame sets the shape and dtype for all.
            The frame is copied, so its memory can be reused. The mask of a masked array is stored next to the movie,
            and so are values that the movie cannot hold (NaN, and counts beyond 2^24, or 2^23 for floating-point
            frames); :func:`read_frame_data` returns them.
        number
            The camera's number of the frame. Gaps and repeats are recorded. A frame with the same number and the same
            pixels as the last one is dropped.
        time
            Time of the frame, in any unit.

        Raises
        ------
        MovieTypeError, InvalidMovieError
            If the shape or dtype differs from the first frame, or if the frame does not hold counts. The recording
            can continue.
        StorageError
            If memory is full and the store has failed for longer than ``patience_seconds``, or if the store alters
            the data. All accepted frames stay in memory; see :meth:`retry`.
        """
        frame = np.asanyarray(frame)[np.newaxis]
        self.extend(frame, numbers=None if number is None else [number], times=None if time is None else [time])

    def extend(self, frames: Any, *, numbers: Any = None, times: Any = None) -> None:
        """Append several time points, shape (time, ..., height, width); otherwise like :meth:`append`."""
        if self._movie is not None:
            raise InvalidMovieError(f"the movie at {self.location} is finished: no more frames can be appended")
        frames = np.asanyarray(frames)
        for name, values in (("numbers", numbers), ("times", times)):
            if values is not None and len(values) != len(frames):
                raise InvalidMovieError(f"{len(frames)} frames need as many {name}, got {len(values)}")
        masked = None
        if isinstance(frames, np.ma.MaskedArray):
            masked = np.ma.getmaskarray(frames) if np.ma.is_masked(frames) else None
            frames = frames.data
        counts = np.asarray(frames)
        if len(counts):
            self._recorder_for(counts).take(counts, numbers, times, masked)

    def _recorder_for(self, frames: Any) -> Recorder:
        if self._recorder is None:
            with self._lock:
                if self._recorder is None:
                    source = as_source(frames)
                    if source.dtype.kind == "f" and self._setup.options.rounds and self._setup.calibration is None:
                        finite = np.nan_to_num(frames, posinf=0, neginf=0)
                        check_block(finite, 0, negative_allowed=False)
                    self._recorder = Recorder(self._location, self._claim, source.shape[1:], source.dtype, self._setup)
        return self._recorder

    def flush(self) -> None:
        """Store all appended frames, and wait until that is done.

        Stores that cannot delete objects (zip files, icechunk) take full blocks only.

        Raises
        ------
        StorageError
            If the store has failed for longer than ``patience_seconds``.
        """
        if self._recorder is not None and self._movie is None:
            self._recorder.flush()

    def retry(self) -> None:
        """Retry a failed store at once. All appended frames are still kept."""
        if self._recorder is not None and self._movie is None:
            self._recorder.retry()

    def close(self, *, expected_frames: int | None = None) -> PhotonArray:
        """Finish the movie, and insert its row after :meth:`for_row`. Can be called again after a failure.

        Parameters
        ----------
        expected_frames
            Expected number of frames.

        Returns
        -------
        PhotonArray
            The finished movie.

        Raises
        ------
        InvalidMovieError
            If no frame was appended.
        StorageError
            If the store has failed for longer than ``patience_seconds``. Stored frames remain in the store for
            :func:`recover_movie`, and the others remain in memory for another :meth:`close`.

        Warns
        -----
        LostFramesWarning
            If there are fewer frames than expected.
        """
        with self._lock:
            if self._recorder is None or not self.frames:
                self._end()
                raise InvalidMovieError(f"no frame was appended, and nothing was written to {self.location}")
            movie = self._finish()
            if not self._complete:
                self._finished(movie)
                self._recorder.clean()
                self._complete = True
                self._end()
        if expected_frames is not None and len(movie) < expected_frames:
            lacking = in_seconds(expected_frames - len(movie), self._recorder.rate)
            text = f"{lacking} of {expected_frames} are missing from the movie at {self.location}"
            warn(text, LostFramesWarning)
        self._recorder.warn_now()
        return movie

    def _finish(self) -> PhotonArray:
        assert self._recorder is not None
        if self._movie is None:
            check_arrays(self.arrays)
            check_attributes(self.attributes)
            self._movie = open_array(self._location, self._recorder.finish())
        return self._movie

    def _end(self) -> None:
        _open.discard(self)
        if self._pid == os.getpid():
            self._place.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._recorder is None or not self.frames:
            self._end()
        elif not self._complete:
            # An acquisition cannot be repeated, so the movie is kept. No row is inserted for it.
            try:
                movie = self._finish()
                error.add_note(f"{in_seconds(len(movie), self._recorder.rate)} are kept: open_movie({self.location!r})")
                if self._setup.row is None:
                    self._recorder.clean()
                else:
                    error.add_note(f"recover_row({self.location!r}) returns the row")
                self._complete = True
                self._end()
            except Exception as failure:  # of any type: the user's error must propagate
                error.add_note(
                    f"the movie at {self.location} could not be finished ({failure}): call close() again, or see "
                    "recover_movie()"
                )


def _close_all() -> None:
    """Close all open writers when the process exits."""
    for writer in list(_open):
        if writer._pid != os.getpid():
            continue
        if not writer.frames:
            writer._end()
            continue
        try:
            movie = writer.close()
            print(f"PhotonWriter: {len(movie)} frames are kept: open_movie({writer.location!r})", file=sys.stderr)
        except Exception as error:  # of any type: the other writers must still be closed
            lacks = "is not finished" if writer._movie is None else "has no row; recover_row returns it"
            print(f"PhotonWriter: the movie at {writer.location} {lacks}: {error}", file=sys.stderr)
        text = f"{writer!r} was not closed before the process ended: use `with PhotonWriter(...) as writer:`"
        with suppress(ResourceWarning):  # if it is raised as an error, the other writers must still be closed
            warnings.warn(text, ResourceWarning, stacklevel=2)


# At exit, Python refuses new threads before it runs atexit functions, so register for the earlier hook.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
