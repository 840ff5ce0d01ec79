"""The ``ImagingExtractor`` of :mod:`.roiextractors`; a separate module, because it needs that library to exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from roiextractors import ImagingExtractor

from .._typing import AnyArray
from ..handle import PhotonArray
from .axes import recorded_times


class PhotonImagingExtractor(ImagingExtractor):  # type: ignore[misc]  # roiextractors has no types
    """The frames of a stored movie; see :func:`.to_roiextractors`."""

    extractor_name = "PhotonImagingExtractor"

    def __init__(self, movie: PhotonArray, sampling_frequency: float) -> None:
        super().__init__(movie=movie, sampling_frequency=sampling_frequency)
        self._movie = movie
        self._sampling_frequency = sampling_frequency
        self.is_volumetric = movie.ndim == 4

    def get_image_shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self._movie.shape[-2:]
        return height, width

    def get_num_planes(self) -> int:
        """Number of planes of a volume."""
        return int(self._movie.shape[1]) if self.is_volumetric else int(super().get_num_planes())

    def get_num_samples(self) -> int:
        """Number of frames or volumes."""
        return len(self._movie)

    def get_sampling_frequency(self) -> float:
        """Frames or volumes per second [Hz]."""
        return self._sampling_frequency

    def get_dtype(self) -> np.dtype[Any]:
        """Dtype of the counts, without reading any."""
        return self._movie.dtype

    def get_series(self, start_sample: int | None = None, end_sample: int | None = None) -> AnyArray:
        """Counts, (time, height, width) or (time, height, width, plane)."""
        return self._planes_last(self._movie[start_sample:end_sample])

    def get_samples(self, sample_indices: npt.ArrayLike) -> AnyArray:
        """Counts at some times, without those in between."""
        return self._planes_last(self._movie[np.asarray(sample_indices)])

    def get_native_timestamps(
        self, start_sample: int | None = None, end_sample: int | None = None
    ) -> npt.NDArray[np.float64] | None:
        """Times of the frames in the recording's metadata [s]; None if it has none."""
        times = recorded_times(self._movie)
        return None if times is None else np.asarray(times, np.float64)[start_sample:end_sample]

    def _planes_last(self, counts: AnyArray) -> AnyArray:
        return np.moveaxis(counts, 1, -1) if self.is_volumetric else counts
