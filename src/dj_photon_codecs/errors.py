"""The error tree. Every error names where, the offending value, the allowed range and the way out.

Each class has a builtin parent, so that ``except ValueError`` keeps its meaning, and pickles, so that
errors cross process boundaries (``populate(processes=2)``) unharmed.
"""


class PhotonCodecError(Exception):
    """Base of every error that this package raises on purpose."""


class MovieTypeError(PhotonCodecError, TypeError):
    """The value is not something this package can store (not an array, or a dtype without counts)."""


class SourceNotFoundError(MovieTypeError, FileNotFoundError):
    """The value is a path, and there is no movie under it."""


class SourceError(PhotonCodecError, ValueError):
    """A file cannot be opened as a movie: of no known kind, damaged, or it holds several and none was named."""


class InvalidMovieError(PhotonCodecError, ValueError):
    """The array has the right type but a shape or values that cannot be stored (negative, NaN, empty)."""


class ConfigurationError(PhotonCodecError, ValueError):
    """An option is outside its allowed range, or options contradict each other."""


class CalibrationError(PhotonCodecError, ValueError):
    """A noise model is needed but missing, unreliable or not physical."""


class CodeRangeError(PhotonCodecError, ValueError):
    """A value has no code in the chosen ``encoded_dtype``."""


class FormatError(PhotonCodecError, ValueError):
    """The row or the store does not hold a movie this version can read."""


class StorageError(PhotonCodecError, OSError):
    """The object store could not be written or read."""


class MissingChunkError(PhotonCodecError, FileNotFoundError):
    """A chunk that the movie needs is not in the store."""


class DamagedChunkError(PhotonCodecError, ValueError):
    """A chunk is there, but truncated or altered (checksum or decoding fails), or not the one that was written."""


class DenseWarning(UserWarning):
    """The entropy coder would not have made the movie smaller, and the standard profile was used."""


class LosslessWarning(UserWarning):
    """The movie supports no reliable noise model and was stored losslessly."""


class SourceWarning(UserWarning):
    """A file holds less than it should, or counts that were altered before they came here."""
