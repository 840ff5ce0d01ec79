"""The handle that users get: a ``zarr.Array`` of counts, made from its metadata without a request to the store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from .._lazy import cached_property
from .._typing import AnyArray, Json
from .._zarr import ArrayMetadata, AsyncArray, StorePath, parse_metadata, submit
from ..anscombe.tables import prepare
from ..calibration import Calibration
from ..errors import CalibrationError
from ..storage.chunks import ChunkReader
from ..storage.documents import document_problems, is_as_written, refuse_altered
from ..storage.legacy import legacy_calibration, trusted_metadata
from ..storage.limits import check_metadata
from ..storage.location import Location, ProcessStore
from ..storage.record import ATTRIBUTE, MovieRecord
from ..storage.verify import VerificationReport, verify_chunks
from .pipeline import CachedChunks, Chunks, ReadingPipeline
from .salvage import read_intact

if TYPE_CHECKING:
    from .stabilized import StabilizedView

    _ZarrArray = zarr.Array[Any]
else:
    _ZarrArray = zarr.Array


class PhotonArray(_ZarrArray):
    """A stored photon movie: a read-only ``zarr.Array`` whose indexing gives counts.

    Made by fetching a ``<photon@store>`` column, by :func:`~dj_photon_codecs.open_movie` or by
    :func:`~dj_photon_codecs.write_movie`. Making it does no I/O; indexing reads and decodes the chunks it needs
    and keeps them, so that going through a movie frame by frame decodes each chunk once. It pickles, and works
    in forked and spawned workers.

    Parameters
    ----------
    location
        Folder of the array.
    documents
        Its Zarr metadata documents by key.
    record
        What was stored; None for arrays that this package did not write.
    """

    def __init__(self, location: Location, documents: dict[str, Json], record: MovieRecord | None) -> None:
        # zarr.Array is a dataclass around one AsyncArray; here that is made when it is first needed, so that a
        # thousand fetched rows cost little more than their JSON.
        self._location = location
        self._documents = documents
        self._record = record

    @cached_property
    def _metadata(self) -> ArrayMetadata:
        metadata = trusted_metadata(parse_metadata(self._documents))
        check_metadata(metadata, self._record, self._location.label)
        return metadata

    @cached_property
    def _store(self) -> ProcessStore:
        return ProcessStore(self._location)

    @cached_property
    def _reader(self) -> ChunkReader:
        checksums = None if self._record is None else self._record.checksums
        return ChunkReader(self._metadata, self._store, checksums)

    @cached_property
    def _chunks(self) -> CachedChunks:
        location, record, documents = self._location, self._record, self._documents  # and not the handle itself
        return CachedChunks(self._reader, lambda: refuse_altered(location, record, documents))

    @cached_property
    def _async_array(self) -> AsyncArray[Any]:  # a field there, made on demand here
        return self._read_through(self._chunks)

    def _read_through(self, chunks: Chunks) -> AsyncArray[Any]:
        """The array for zarr, with every read going through ``chunks``."""
        array = AsyncArray(metadata=self._metadata, store_path=StorePath(self._store.get()))
        plain = array.codec_pipeline
        pipeline = ReadingPipeline(
            array_array_codecs=plain.array_array_codecs,  # type: ignore[attr-defined]
            array_bytes_codec=plain.array_bytes_codec,  # type: ignore[attr-defined]
            bytes_bytes_codecs=plain.bytes_bytes_codecs,  # type: ignore[attr-defined]
            batch_size=1,
            chunks=chunks,
        )
        object.__setattr__(array, "codec_pipeline", pipeline)  # a frozen dataclass with no argument for it
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._location, self._documents, self._record)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PhotonArray):
            return NotImplemented
        return self._location == other._location and self._documents == other._documents

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        noise = "lossless"
        if self.step:
            noise = f"step {self.step:g} sigma, gain {self.calibration.conversion_gain:.4g} ADU/photon"
        return f"<PhotonArray {self.shape} {self.dtype} {self._profile} ({noise}) at {self._location.label}>"

    def _repr_html_(self) -> str:
        """A card for notebooks; reads one chunk."""
        from .card import card

        return card(self)

    def __getitem__(self, selection: Any) -> Any:
        """Counts, in the dtype that was inserted; any selection that ``zarr.Array`` takes."""
        frame = self._cached_frame(selection)
        if frame is not None:
            return frame
        if self.step:
            prepare(self._coming(selection))
        return super().__getitem__(selection)

    def _coming(self, selection: Any) -> int:
        """How many counts a slice along time has; 0 for other selections."""
        if selection is Ellipsis:
            return math.prod(self.shape)
        if isinstance(selection, slice):
            return len(range(*selection.indices(len(self)))) * math.prod(self.shape[1:])
        return 0

    def _cached_frame(self, selection: Any) -> AnyArray | None:
        """One whole frame out of a chunk in the cache, without the way through zarr; None if that cannot be."""
        if not isinstance(selection, (int, np.integer)) or isinstance(selection, bool):
            return None
        grid = self._chunks.reader.grid
        index = int(selection) + (self.shape[0] if selection < 0 else 0)
        if grid.chunk[1:] != grid.shape[1:] or not 0 <= index < grid.shape[0]:
            return None
        chunk = self._chunks.peek((index // grid.chunk[0], *(0,) * (len(grid.shape) - 1)))
        return None if chunk is None else chunk[index % grid.chunk[0]].copy()

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[AnyArray]:
        return self.frames()

    @property
    def record(self) -> MovieRecord | None:
        """What was stored and how; None for arrays that this package did not write."""
        return self._record

    @property
    def documents(self) -> dict[str, Json]:
        """The Zarr metadata documents by key."""
        return self._documents

    @property
    def _profile(self) -> str:
        return self._record.profile if self._record else "foreign"

    @property
    def profile(self) -> str:
        """Name of the profile: ``lossless`` where the movie supported no noise model."""
        return self._profile

    @property
    def step(self) -> float:
        """Quantisation in noise standard deviations; 0 when lossless."""
        return self._record.step if self._record else 0.0

    @property
    def calibration(self) -> Calibration:
        """The noise model, and how it was got.

        Raises
        ------
        CalibrationError
            For arrays that carry none: neither written by this package nor in the ``anscombe-v1`` format.
        """
        if self._record is not None:
            return self._record.calibration
        legacy = legacy_calibration(self._metadata)
        if legacy is None:
            raise CalibrationError(f"{self._location.label} was not written by this package and has no calibration")
        return legacy

    @property
    def compression_ratio(self) -> float:
        """Bytes inserted per byte stored.

        Raises
        ------
        CalibrationError
            For arrays that this package did not write, whose sizes are not recorded.
        """
        if self._record is None:
            raise CalibrationError(f"{self._location.label} was not written by this package: its size is not recorded")
        return self._record.original_bytes / max(1, self._record.stored_bytes)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[AnyArray]:
        """Frames ``start`` to ``stop`` (exclusive), one by one, reading ahead.

        Parameters
        ----------
        start, stop
            As in ``range``; negative ones count from the end.

        Yields
        ------
        numpy.ndarray
            One time point each, in the dtype that was inserted.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        grid = self._chunks.reader.grid
        chunk, stored, space = grid.chunk[0], grid.stored[0], (0,) * (len(grid.shape) - 1)
        ahead = math.prod(grid.chunks[1:]) == 1  # chunks of split frames are read as they come
        try:
            for index in range(first, last):
                if ahead and (index == first or index % stored == 0):
                    following = (index // stored + 1) * stored
                    if last - following > chunk:  # of a single chunk the rest of its object is not asked for
                        self._chunks.hold_next((index // stored, *space))
                if ahead and (index == first or index % chunk == 0) and (index // chunk + 1) * chunk < last:
                    self._chunks.prefetch((index // chunk + 1, *space))
                yield self[index]
        finally:
            self._reader.let_go()

    @property
    def stabilized(self) -> StabilizedView:
        """A lazy view of the movie with unit noise at every intensity, in float32.

        Indexing it gives ``generalized_anscombe(counts, conversion_gain, zero_level)``: use it for what assumes
        equal noise (correlation, registration, denoising), and
        :func:`~dj_photon_codecs.generalized_inverse_anscombe` to turn averages of it into counts.

        Raises
        ------
        CalibrationError
            When no reliable noise model is known.
        """
        from .stabilized import StabilizedView

        calibration = self.calibration
        if not calibration.reliable:
            raise CalibrationError(
                f"this movie was stored losslessly because no noise model was reliable ({calibration.reason}): "
                "insert it with PhotonMovie(movie, conversion_gain=..., zero_level=...) to have a stabilised view"
            )
        return StabilizedView(self, calibration.conversion_gain, calibration.zero_level)

    def verify(self, *, progress: bool | None = None) -> VerificationReport:
        """Read and check every chunk.

        Parameters
        ----------
        progress
            Whether to show a progress bar; None shows one when it takes long, in an interactive process.

        Returns
        -------
        VerificationReport
            True in a condition when all is well; otherwise its ``missing`` and ``damaged`` name the chunks, and
            ``metadata`` what is wrong with the metadata. No chunk is read by metadata that was altered.

        Raises
        ------
        StorageError
            When the store cannot be reached: that says nothing of the movie.
        """
        problems = submit(document_problems(self._location, self._record, self._documents)).result()
        if not is_as_written(self._record, self._documents):
            return VerificationReport(0, metadata=problems)
        return replace(verify_chunks(self._reader, progress=progress), metadata=problems)

    def read_intact(self, selection: Any = ...) -> np.ma.MaskedArray[Any, Any]:
        """Counts as far as they are intact; those of missing and damaged chunks are masked.

        Indexing raises on the first chunk that is missing or damaged. This reads around it, for the rest of a movie
        whose chunks cannot be restored.

        Parameters
        ----------
        selection
            As for indexing; the whole movie by default.

        Returns
        -------
        numpy.ma.MaskedArray
            In the dtype of the movie, with a mask of its shape that is True where counts are lost. Means and sums
            leave the lost ones out; ``.astype(float).filled(numpy.nan)`` has NaN in their place.

        Raises
        ------
        StorageError
            When the store cannot be reached: that says nothing of the chunks.
        """
        return read_intact(self._chunks, self._read_through, selection)

    def to_dask(self) -> Any:
        """A dask array of counts, in blocks of one inner chunk; needs the ``dask`` extra."""
        try:
            import dask.array
        except ImportError as error:
            raise ImportError('to_dask needs dask: pip install "dj-photon-codecs[dask]"') from error
        return dask.array.from_array(  # type: ignore[no-untyped-call]
            self, chunks=self._chunks.reader.grid.chunk, asarray=False, fancy=False
        )


def open_array(location: Location, documents: dict[str, Json], record: MovieRecord | None = None) -> PhotonArray:
    """The handle of an array whose metadata documents are at hand; its record from the attributes if not given."""
    if record is None:
        document = documents.get("zarr.json", {}).get("attributes", documents.get(".zattrs", {}))
        if ATTRIBUTE in document:
            record = MovieRecord.from_dict(document[ATTRIBUTE], location.label)
    return PhotonArray(location, documents, record)
