"""What is known of a stored movie besides its counts: one record, in the Zarr attributes and in the row.

Specified in ``docs/spec/layout.md``.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from .._typing import Json
from ..calibration import Calibration
from ..errors import FormatError

#: Version of what lies on disk and in the row. Readers refuse newer ones.
FORMAT_VERSION = 1

#: The Zarr attribute that holds the record.
ATTRIBUTE = "dj_photon"


@lru_cache(maxsize=1)
def _current_versions() -> dict[str, str]:
    """Versions of what writes: this package, zarr, numcodecs, numpy and Python."""
    packages = ("dj-photon-codecs", "zarr", "numcodecs", "numpy")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


@dataclass(frozen=True)
class MovieRecord:
    """What was stored, and how.

    Attributes
    ----------
    profile
        Name of the profile that was used; ``lossless`` where no noise model was reliable.
    step
        Quantisation in noise standard deviations; 0 when lossless.
    calibration
        The noise model, and how it was got.
    original_bytes
        Size of the movie as it was inserted.
    stored_bytes
        Size of the chunks in the store, without the metadata documents.
    dithered
        Whether the counts lie on the levels of the dithered transform, so that it codes them again without a loss.
    versions
        Of this package and of what wrote the bytes with it.
    format_version
        Of this record and the layout.
    """

    profile: str
    step: float
    calibration: Calibration
    original_bytes: int
    stored_bytes: int
    dithered: bool = False
    versions: dict[str, str] = field(default_factory=lambda: dict(_current_versions()))
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> Json:
        """The record as JSON values."""
        return {
            "format_version": self.format_version,
            "profile": self.profile,
            "step": self.step,
            "calibration": self.calibration.to_dict(),
            "original_bytes": self.original_bytes,
            "stored_bytes": self.stored_bytes,
            "versions": dict(self.versions),
            **({"dithered": True} if self.dithered else {}),  # left out where the first release knew no such thing
        }

    @classmethod
    def from_dict(cls, document: Any, where: str) -> MovieRecord:
        """The record of JSON values.

        Raises
        ------
        FormatError
            When it is malformed, or of a format version that this release does not know.
        """
        try:
            found = document["format_version"]
            if isinstance(found, int) and found > FORMAT_VERSION:
                raise FormatError(
                    f"{where} has format version {found}, this release reads up to {FORMAT_VERSION}: "
                    "upgrade dj-photon-codecs"
                )
            return cls(
                profile=str(document["profile"]),
                step=float(document["step"]),
                calibration=Calibration.from_dict(document["calibration"]),
                original_bytes=int(document["original_bytes"]),
                stored_bytes=int(document["stored_bytes"]),
                dithered=bool(document.get("dithered", False)),
                versions=dict(document["versions"]),
                format_version=int(found),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{where} holds no valid photon movie record: {type(error).__name__}: {error}") from error


def without_record(documents: dict[str, Json]) -> dict[str, Json]:
    """Zarr metadata documents without their attributes: a row holds the record once, beside them."""
    return {
        name: {**document, "attributes": {}} if name == "zarr.json" else document
        for name, document in documents.items()
        if name != ".zattrs"
    }


def with_record(documents: dict[str, Json], record: MovieRecord) -> dict[str, Json]:
    """The documents as they are in the store, from what :func:`without_record` left of them."""
    attributes = {ATTRIBUTE: record.to_dict()}
    if "zarr.json" in documents:
        return {"zarr.json": {**documents["zarr.json"], "attributes": attributes}}
    return {**documents, ".zattrs": attributes}
