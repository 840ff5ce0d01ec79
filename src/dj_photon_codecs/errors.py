"""Exceptions and warnings. Messages say where, the offending value, the allowed range and the remedy.

Every exception also has a builtin parent, so that ``except ValueError`` works as expected. All of them can be
pickled, so that they cross process boundaries (``populate(processes=2)``).
"""


class PhotonCodecError(Exception):
    """Base class of the errors that this package raises on purpose."""


class MovieTypeError(PhotonCodecError, TypeError):
    """The value cannot be stored because of its type: it is not an array, or its dtype cannot hold counts."""


class SourceNotFoundError(MovieTypeError, FileNotFoundError):
    """The given path does not contain a movie."""


class SourceError(PhotonCodecError, ValueError):
    """A file cannot be opened as a movie: unrecognised format, damaged, or several movies and none selected."""


class InvalidMovieError(PhotonCodecError, ValueError):
    """The array has the right type, but its shape or values cannot be stored (empty, negative, NaN)."""


class ConfigurationError(PhotonCodecError, ValueError):
    """An option is outside its allowed range, or two options conflict."""


class OccupiedError(ConfigurationError, FileExistsError):
    """The destination already holds something, or another movie is being written there."""


class CalibrationError(PhotonCodecError, ValueError):
    """A noise model is needed but missing, unreliable or not physical."""


class CodeRangeError(PhotonCodecError, ValueError):
    """A value has no code in the chosen ``encoded_dtype``."""


class FormatError(PhotonCodecError, ValueError):
    """The row or the store does not hold a movie that this version can read."""


class StorageError(PhotonCodecError, OSError):
    """The store could not be read or written."""


class MissingChunkError(PhotonCodecError, FileNotFoundError):
    """A chunk of the movie is missing from the store."""


class DamagedChunkError(PhotonCodecError, ValueError):
    """A chunk exists but is truncated, altered (checksum or decoding fails) or not the one that was written."""


class MigrationError(PhotonCodecError, RuntimeError):
    """A movie of a column that is migrated differs from its original, or another worker took it over."""


class CalibrationWarning(UserWarning):
    """A given calibration is incomplete and the movie cannot complete it, or the movie's noise contradicts it."""


class DenseWarning(UserWarning):
    """The standard profile was used because the entropy coder would not have made the movie smaller."""


class LosslessWarning(UserWarning):
    """The movie was stored losslessly because no reliable noise model could be used."""


class LostFramesWarning(UserWarning):
    """Frames of a recovered movie were lost."""


class AcquisitionWarning(UserWarning):
    """A movie being acquired, or its frame data, has a problem; the movie is stored nevertheless."""


class SourceWarning(UserWarning):
    """A file holds less data than it should, or counts that were altered before they reached this package."""
