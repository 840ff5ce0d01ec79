"""roiextractors: a stored movie as an ``ImagingExtractor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..handle import PhotonArray
from ..sources.stack import library
from .axes import frame_rate_of

if TYPE_CHECKING:
    from .imaging_extractor import PhotonImagingExtractor


def to_roiextractors(movie: PhotonArray, *, sampling_frequency: float | None = None) -> PhotonImagingExtractor:
    """Return an ``ImagingExtractor`` that reads the movie when its frames are requested.

    Parameters
    ----------
    movie
        The stored movie: (time, height, width), or (time, plane, height, width). roiextractors gives volumes as
        (time, height, width, plane).
    sampling_frequency
        Frames, or volumes, per second [Hz]. By default that of the recording, if the movie has it.

    Raises
    ------
    ConfigurationError
        If the frame rate is neither given nor known, or the movie has more axes.
    ImportError
        Without roiextractors.
    """
    library("roiextractors", "roiextractors", "imaging extractors")
    from .imaging_extractor import PhotonImagingExtractor

    if movie.ndim > 4:
        raise ConfigurationError(f"roiextractors has images and volumes; this movie is {movie.shape}")
    return PhotonImagingExtractor(movie, frame_rate_of(movie, sampling_frequency, "sampling_frequency"))
