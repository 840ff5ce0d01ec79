"""The user-facing handle: a ``zarr.Array`` of counts, created from its metadata without a request to the store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from .._lazy import cached_property, imported_method
from .._system import n_cores
from .._threads import Group, wait
from .._typing import AnyArray, Box, Json
from .._zarr import ArrayMetadata, AsyncArray, SelectionArray, StorePath, parse_metadata, submit
from ..anscombe.tables import prepare
from ..calibration import Calibration
from ..errors import CalibrationError, FormatError
from ..storage.chunks import ChunkReader
from ..storage.documents import document_problems, is_as_written, refuse_altered, with_checksums
from ..storage.legacy import legacy_calibration, trusted_metadata
from ..storage.location import Location, ProcessStore
from ..storage.metadata_checks import check_metadata, check_nesting
from ..storage.record import ATTRIBUTE, MovieRecord
from ..storage.verify import VerificationReport, identity_problem, verify_chunks
from .cache import CACHE
from .lazy import LazyArray
from .reading import CachedChunks, blocks, read_intact, select
from .reductions import Block

if TYPE_CHECKING:
    from .stabilized import StabilizedView

    _ZarrArray = zarr.Array[Any]
else:
    _ZarrArray = zarr.Array

#: Methods of ``zarr.Array`` that write, in addition to those that start with ``set_``.
_WRITERS = {"append", "resize", "update_attributes", "__setitem__"}


def _selecting(kind: str) -> Callable[..., Any]:
    """Return a selection method of ``zarr.Array`` for one kind of selection."""

    def get(
        self: PhotonArray, selection: Any = ..., *, out: Any = None, prototype: Any = None, fields: Any = None
    ) -> Any:
        """Like the method of ``zarr.Array``, with numpy's masks, negative steps and errors."""
        if fields:
            raise IndexError(f"an array of counts has no fields, got {fields!r}")
        return self._select(kind, selection, out)

    return get


class PhotonArray(LazyArray, _ZarrArray):  # type: ignore[misc, override]  # shape is zarr's
    """A stored photon movie: a read-only ``zarr.Array`` of counts.

    To get one, fetch a ``<photon@store>`` column, or call :func:`~dj_photon_codecs.open_movie` or
    :func:`~dj_photon_codecs.write_movie`. Creating the handle does no I/O. Indexing reads and decodes the chunks it
    needs and caches them, so iterating frame by frame decodes each chunk once. Handles can be pickled, and work in
    forked and spawned processes.

    Parameters
    ----------
    location
        Folder of the array.
    documents
        Zarr metadata documents by key.
    record
        Record of the stored movie; None for arrays that this package did not write.
    """

    def __init__(self, location: Location, documents: dict[str, Json], record: MovieRecord | None) -> None:
        # zarr.Array wraps an AsyncArray. This class creates it on first use, so that fetching a thousand rows costs
        # little more than parsing their JSON.
        self._location = location
        self._documents = documents
        self._record = record

    @cached_property
    def _metadata(self) -> ArrayMetadata:
        check_nesting(self._documents, self._location.label)
        # copy the documents: attrs.put() empties its dictionary before it fails on the read-only store
        documents = {
            key: {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
            for key, document in self._documents.items()
        }
        metadata = trusted_metadata(parse_metadata(documents))
        check_metadata(metadata, self._record, self._location.label)
        return metadata

    @cached_property
    def _store(self) -> ProcessStore:
        return ProcessStore(self._location)

    @cached_property
    def _reader(self) -> ChunkReader:
        return ChunkReader(self._metadata, self._store, self._record.lost if self._record else ())

    @cached_property
    def _chunks(self) -> CachedChunks:
        # local names, so that admit() holds no reference to self
        reader, location, record, documents = self._reader, self._location, self._record, self._documents

        def admit() -> None:
            wait(submit(refuse_altered(location, record, documents)))
            complete = wait(submit(with_checksums(location, record)))
            reader.expect(None if complete is None else complete.checksums)

        sealed = record is not None and record.digest is not None
        return CachedChunks(reader, admit, self._identity if sealed else None)

    @cached_property
    def _async_array(self) -> AsyncArray[Any]:  # a dataclass field in zarr.Array, created on demand here
        place = StorePath(self._store.get(), self._location.prefix.rstrip("/"))
        dtype = self._metadata.dtype.to_native_dtype()
        return SelectionArray(self._metadata, place, partial(select, self._chunks, dtype))

    @cached_property
    def _identity(self) -> tuple[str, ...]:
        content = None if self._record is None else self._record.digest
        if content is None or not is_as_written(self._record, self._documents):
            content = json.dumps(self._documents, sort_keys=True)
        return self._location.label, self._location.root, content

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._location, self._documents, self._record)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _WRITERS and not name.startswith("set_")]

    def __repr__(self) -> str:
        noise = (self._record.reason if self._record else None) or "lossless"
        if self.step:
            noise = f"step {self.step:g} sigma, gain {self.calibration.conversion_gain:.4g} ADU/photon"
        return f"<PhotonArray {self.shape} {self.dtype} {self.profile} ({noise}) at {self._location.label}>"

    def __getitem__(self, selection: Any) -> Any:
        """Return counts in the inserted dtype, for any selection that numpy supports."""
        frame = self._cached_frame(selection)
        return self._select("basic", selection) if frame is None else frame

    get_basic_selection = _selecting("basic")
    get_orthogonal_selection = _selecting("orthogonal")
    get_coordinate_selection = _selecting("points")
    get_mask_selection = _selecting("points")
    get_block_selection = _selecting("blocks")

    def _select(self, kind: str, selection: Any, out: Any = None) -> Any:
        counts = select(self._chunks, self.dtype, kind, selection, prepare if self.step else None)
        if out is None:
            return counts if counts.shape else counts[()]
        target = out if isinstance(out, np.ndarray) else out.as_ndarray_like()
        if target.shape != counts.shape:
            raise ValueError(f"out has shape {target.shape}, the selection has {counts.shape}")
        target[...] = counts
        return out

    def _cached_frame(self, selection: Any) -> AnyArray | None:
        """Return a whole frame from the cache, without the event loop, or None if that is not possible."""
        if not isinstance(selection, (int, np.integer)) or isinstance(selection, bool):
            return None
        grid = self._chunks.reader.grid
        index = int(selection) + (self.shape[0] if selection < 0 else 0)
        if grid.chunk[1:] != grid.shape[1:] or not 0 <= index < grid.shape[0] or self._reader.lost:
            return None
        box = Box(index % grid.chunk[0] + 1, 0, math.prod(grid.chunk[1:-1]))
        chunk = self._chunks.peek((index // grid.chunk[0], *(0,) * (len(grid.shape) - 1)), box)
        if chunk is None:
            return None
        frame = np.empty(grid.shape[1:], self.dtype)
        chunk.copy((slice(index % grid.chunk[0], index % grid.chunk[0] + 1), *(slice(None),) * frame.ndim), frame[None])
        return frame

    def _blocks(self) -> Iterator[Block]:
        if self.step:
            prepare(self.size)
        return blocks(self._chunks)

    def _instead(self, expression: str) -> str:
        return f"movie[...]{expression} for a part that fits into memory, or movie.to_dask(){expression}"

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def record(self) -> MovieRecord | None:
        """Record of the stored movie; None for arrays that this package did not write."""
        return self._record

    @property
    def documents(self) -> dict[str, Json]:
        """Zarr metadata documents by key."""
        return self._documents

    @property
    def profile(self) -> str:
        """Name of the profile; ``lossless`` if no noise model was reliable."""
        return self._record.profile if self._record else "foreign"

    @property
    def step(self) -> float:
        """Quantisation step in noise standard deviations; 0 if lossless."""
        return self._record.step if self._record else 0.0

    @property
    def calibration(self) -> Calibration:
        """The noise model and its origin.

        Raises
        ------
        CalibrationError
            If the array has none: it was not written by this package and is not in the ``anscombe-v1`` format.
        """
        if self._record is not None:
            return self._record.calibration
        legacy = legacy_calibration(self._metadata)
        if legacy is None:
            raise CalibrationError(f"{self._location.label} was not written by this package and has no calibration")
        return legacy

    @property
    def compression_ratio(self) -> float:
        """Ratio of inserted bytes to stored bytes.

        Raises
        ------
        CalibrationError
            If this package did not write the array, because the sizes are then not recorded.
        """
        if self._record is None:
            raise CalibrationError(f"{self._location.label} was not written by this package: its size is not recorded")
        return self._record.original_bytes / max(1, self._record.stored_bytes)

    def frames(
        self, start: int = 0, stop: int | None = None, *, dtype: npt.DTypeLike | None = None
    ) -> Iterator[AnyArray]:
        """Iterate over frames ``start`` to ``stop`` (exclusive), reading ahead.

        Parameters
        ----------
        start, stop
            As in a slice; negative values count from the end.
        dtype
            Dtype of the frames; None keeps the dtype of the movie. Use ``int32`` or ``float32`` for differences,
            because unsigned counts wrap around below 0.

        Yields
        ------
        numpy.ndarray
            One time point.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        grid = self._chunks.reader.grid
        chunk, stored, space = grid.chunk[0], grid.stored[0], (0,) * (len(grid.shape) - 1)
        ahead = math.prod(grid.chunks[1:]) == 1  # read ahead only if each chunk holds whole frames
        holds = ahead and not self._location.is_local
        at_once = max(1, min(n_cores(), CACHE.max_bytes // (4 * math.prod(grid.chunk) * self.dtype.itemsize)))
        with Group() as group:
            try:
                for index in range(first, last):
                    if holds and (index == first or index % stored == 0):
                        following = (index // stored + 1) * stored
                        if last - following > chunk:  # not worth a whole object for a single chunk
                            place = index // stored, *space
                            self._reader.hold((place[0] + 1, *space), in_place_of=place, group=group)
                    if ahead and (index == first or index % chunk == 0):
                        end = min(-(-last // chunk), (index // stored + 2) * (stored // chunk))
                        coming = range(index // chunk + 1, end)[:at_once]
                        self._chunks.read_ahead(((number, *space) for number in coming), group)
                    yield self[index] if dtype is None else self[index].astype(dtype)
            finally:
                self._reader.let_go()

    @property
    def stabilized(self) -> StabilizedView:
        """A lazy view of the movie with unit noise at every intensity, in float32.

        Indexing returns ``generalized_anscombe(counts, conversion_gain, zero_level)``. Use it for methods that assume
        equal noise (correlation, registration, denoising). To turn averages of it back into counts, use
        :func:`~dj_photon_codecs.generalized_inverse_anscombe`.

        Raises
        ------
        CalibrationError
            If the noise model is unknown.
        """
        from .stabilized import StabilizedView

        calibration = self.calibration
        if calibration.verdict == "unknown":
            raise CalibrationError(
                f"this movie was stored losslessly because its noise is unknown ({calibration.reason}): "
                "insert it with PhotonMovie(movie, conversion_gain=..., zero_level=...) to get a stabilised view"
            )
        return StabilizedView(self, calibration.conversion_gain, calibration.zero_level)

    def verify(self, *, progress: bool | None = None) -> VerificationReport:
        """Read and check every chunk.

        Parameters
        ----------
        progress
            Whether to show a progress bar. None shows one in interactive processes if the check takes long.

        Returns
        -------
        VerificationReport
            True in a boolean context if the movie is intact. Otherwise, ``missing`` and ``damaged`` list the chunks,
            and ``metadata`` the problems of the metadata. If the metadata was altered, no chunk is read.

        Raises
        ------
        StorageError
            If the store cannot be reached; the movie may still be intact.
        """
        problems = submit(document_problems(self._location, self._record, self._documents)).result()
        if not is_as_written(self._record, self._documents):
            return VerificationReport(0, metadata=problems)
        try:
            record = submit(with_checksums(self._location, self._record)).result()
            self._chunks.admitted()
        except FormatError as error:
            return VerificationReport(0, metadata=(*problems, str(error)))
        unidentified, lacking = identity_problem(record, self._metadata, self._location.label)
        report = verify_chunks(self._reader, progress=progress)
        return replace(report, metadata=(*problems, *lacking), unidentified=unidentified)

    def read_intact(self, selection: Any = ...) -> np.ma.MaskedArray[Any, Any]:
        """Read counts, masking missing chunks, damaged chunks and lost frames.

        Indexing raises an error at the first missing or damaged chunk. This method skips them, to rescue the rest of
        a movie whose chunks cannot be restored.

        Parameters
        ----------
        selection
            As in indexing; the whole movie by default.

        Returns
        -------
        numpy.ma.MaskedArray
            In the dtype of the movie, with a mask of the same shape that is True for lost counts. Means and sums skip
            masked counts; ``.astype(float).filled(numpy.nan)`` replaces them with NaN.

        Raises
        ------
        StorageError
            If the store cannot be reached; the chunks may still be intact.
        """
        return read_intact(self._chunks, self.dtype, selection)

    def to_dask(self) -> Any:
        """Return a dask array of counts with one block per inner chunk; requires the ``dask`` extra."""
        try:
            import dask.array
        except ImportError as error:
            raise ImportError('to_dask needs dask: pip install "dj-photon-codecs[dask]"') from error
        return dask.array.from_array(  # type: ignore[no-untyped-call]
            self, chunks=self._chunks.reader.grid.chunk, asarray=False, fancy=False
        )

    # Named, not imported: these modules know the handle, and the handle needs none of them.
    _repr_html_ = imported_method("dj_photon_codecs.handle.card")
    to_caiman = imported_method("dj_photon_codecs.bridges.caiman")
    to_roiextractors = imported_method("dj_photon_codecs.bridges.roiextractors")
    to_nwb = imported_method("dj_photon_codecs.bridges.nwb")
    to_suite2p = imported_method("dj_photon_codecs.bridges.suite2p")
    to_xarray = imported_method("dj_photon_codecs.bridges.xarray")
    to_napari = imported_method("dj_photon_codecs.bridges.napari")
    to_ome_zarr = imported_method("dj_photon_codecs.bridges.ome_zarr")


def open_array(location: Location, documents: dict[str, Json], record: MovieRecord | None = None) -> PhotonArray:
    """Return the handle of an array from its metadata documents; the record defaults to the one in the attributes."""
    if record is None:
        document = documents.get("zarr.json", {}).get("attributes", documents.get(".zattrs", {}))
        if ATTRIBUTE in document:
            record = MovieRecord.from_dict(document[ATTRIBUTE], location.label)
    return PhotonArray(location, documents, record)
