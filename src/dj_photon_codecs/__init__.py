"""Photon-limited movies in DataJoint: measured noise, bounded loss, several times smaller, fetched lazily.

Declare a column ``movie : <photon@store>``, insert raw counts, and fetch a lazy Zarr array that gives counts.
The names below are imported when they are first used: ``import dj_photon_codecs`` itself costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acquisition import PhotonWriter, recover_movie
    from .anscombe.codec_v2 import AnscombeTransformV2, DitheredAnscombeV2
    from .anscombe.codec_v3 import AnscombeTransformV3, DitheredAnscombeV3
    from .anscombe.generalized import generalized_anscombe, generalized_inverse_anscombe
    from .audit import AuditReport, audit_store
    from .calibration import Calibration, calibrate
    from .codec import PhotonCodec, PhotonPortableCodec
    from .errors import (
        CalibrationError,
        CodeRangeError,
        ConfigurationError,
        DamagedChunkError,
        FormatError,
        InvalidMovieError,
        LosslessWarning,
        MissingChunkError,
        MovieTypeError,
        PhotonCodecError,
        SourceError,
        SourceNotFoundError,
        SourceWarning,
        StorageError,
    )
    from .handle import PhotonArray
    from .movies import PhotonMovie, open_movie, write_movie
    from .sources import FileMovie, open_source

_HOMES = {
    "acquisition": ("PhotonWriter", "recover_movie"),
    "anscombe.codec_v2": ("AnscombeTransformV2", "DitheredAnscombeV2"),
    "anscombe.codec_v3": ("AnscombeTransformV3", "DitheredAnscombeV3"),
    "anscombe.generalized": ("generalized_anscombe", "generalized_inverse_anscombe"),
    "audit": ("AuditReport", "audit_store"),
    "calibration": ("Calibration", "calibrate"),
    "codec": ("PhotonCodec", "PhotonDenseCodec", "PhotonPortableCodec"),
    "errors": (
        "CalibrationError",
        "CodeRangeError",
        "ConfigurationError",
        "DamagedChunkError",
        "DenseWarning",
        "FormatError",
        "InvalidMovieError",
        "LosslessWarning",
        "MissingChunkError",
        "MovieTypeError",
        "PhotonCodecError",
        "SourceError",
        "SourceNotFoundError",
        "SourceWarning",
        "StorageError",
    ),
    "entropy.codec_v3": ("RansCodec",),
    "handle": ("PhotonArray",),
    "movies": ("PhotonMovie", "open_movie", "write_movie"),
    "sources": ("FileMovie", "open_source"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AnscombeTransformV2",
    "AnscombeTransformV3",
    "AuditReport",
    "Calibration",
    "CalibrationError",
    "CodeRangeError",
    "ConfigurationError",
    "DamagedChunkError",
    "DenseWarning",
    "DitheredAnscombeV2",
    "DitheredAnscombeV3",
    "FileMovie",
    "FormatError",
    "InvalidMovieError",
    "LosslessWarning",
    "MissingChunkError",
    "MovieTypeError",
    "PhotonArray",
    "PhotonCodec",
    "PhotonCodecError",
    "PhotonDenseCodec",
    "PhotonMovie",
    "PhotonPortableCodec",
    "PhotonWriter",
    "RansCodec",
    "SourceError",
    "SourceNotFoundError",
    "SourceWarning",
    "StorageError",
    "audit_store",
    "calibrate",
    "generalized_anscombe",
    "generalized_inverse_anscombe",
    "open_movie",
    "open_source",
    "recover_movie",
    "write_movie",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("dj-photon-codecs")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
