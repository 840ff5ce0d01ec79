"""The record of a stored movie, kept in the Zarr attributes and in the row; see ``docs/spec/layout.md``."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from .._arguments import brief_repr
from .._typing import Json
from ..calibration import Calibration
from ..errors import FormatError

#: Version of the format on disk and in the row. Readers refuse newer versions.
FORMAT_VERSION = 1

#: The Zarr attribute that holds the record.
ATTRIBUTE = "dj_photon"


@lru_cache(maxsize=1)
def _current_versions() -> dict[str, str]:
    """Return the versions of this package, zarr, numcodecs, numpy and Python."""
    packages = ("dj-photon-codecs", "zarr", "numcodecs", "numpy")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


@dataclass(frozen=True)
class MovieRecord:
    """How a movie was stored.

    Attributes
    ----------
    profile
        Name of the profile that was used; ``lossless`` if no noise model was reliable.
    step
        Quantisation step [noise standard deviations]; 0 if lossless.
    calibration
        The noise model and how it was obtained.
    original_bytes
        Size of the inserted movie.
    stored_bytes
        Size of the chunks in the store, without the metadata documents.
    dithered
        Whether the counts lie on the levels of the dithered transform, so that it can encode them again without loss.
    reason
        Why the movie is stored losslessly although its noise is known; None otherwise.
    rounded
        The step by which the counts of a lossless movie had been rounded before it was stored; 0 otherwise. A copy is
        not rounded again.
    acquisition
        Metadata of the recording from the source, in OME's names and units; None if the source has none.
    lost
        Runs of frames (first, last exclusive) that were lost before they were stored but share chunks with stored
        frames. The values in their place are not counts.
    versions
        Versions of this package and of the software that it wrote the bytes with.
    format_version
        Version of this record and the layout.
    checksums
        The crc32c at the end of each inner chunk, packed (:mod:`.checksums`). None if not recorded, and in the row of
        a long movie, because only the document in the store has them.
    checksums_digest
        Digest of ``checksums`` in the record of a long movie; None otherwise.
    digest
        Digest of the rest of the record and of the Zarr metadata (:mod:`.documents`); None if not recorded.
    """

    profile: str
    step: float
    calibration: Calibration
    original_bytes: int
    stored_bytes: int
    dithered: bool = False
    reason: str | None = None
    rounded: float = 0.0
    acquisition: Json | None = None
    lost: tuple[tuple[int, int], ...] = ()
    versions: dict[str, str] = field(default_factory=lambda: dict(_current_versions()))
    format_version: int = FORMAT_VERSION
    checksums: str | None = field(default=None, repr=False)
    checksums_digest: str | None = None
    digest: str | None = None

    __repr__ = brief_repr

    def to_dict(self) -> Json:
        """Return the record as JSON values."""
        document: Json = {
            "format_version": self.format_version,
            "profile": self.profile,
            "step": self.step,
            "calibration": self.calibration.to_dict(),
            "original_bytes": self.original_bytes,
            "stored_bytes": self.stored_bytes,
            "versions": dict(self.versions),
            **({"dithered": True} if self.dithered else {}),
            **({"rounded": self.rounded} if self.rounded else {}),
            **({"lost": [list(run) for run in self.lost]} if self.lost else {}),
        }
        names = ("reason", "acquisition", "checksums", "checksums_digest", "digest")
        optional = {name: getattr(self, name) for name in names}
        return document | {name: value for name, value in optional.items() if value is not None}

    def for_row(self) -> MovieRecord:
        """Return the record to put in a row; checksums of a long movie are left out and stay in the store."""
        return self if self.checksums_digest is None else replace(self, checksums=None)

    @classmethod
    def from_dict(cls, document: Any, where: str) -> MovieRecord:
        """Create a record from JSON values.

        Raises
        ------
        FormatError
            If it is malformed, or this release does not know its format version.
        """
        try:
            found = document["format_version"]
            if not isinstance(found, int) or isinstance(found, bool) or found < 1:
                raise TypeError(f"format_version is {found!r}, must be an integer from 1 on")
            if found > FORMAT_VERSION:
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
                reason=_optional_text(document, "reason"),
                rounded=float(document.get("rounded", 0.0)),
                acquisition=_optional_object(document, "acquisition"),
                lost=tuple((int(start), int(stop)) for start, stop in document.get("lost", ())),
                versions=dict(document["versions"]),
                format_version=found,
                checksums=_optional_text(document, "checksums"),
                checksums_digest=_optional_text(document, "checksums_digest"),
                digest=_optional_text(document, "digest"),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{where} holds no valid photon movie record: {type(error).__name__}: {error}") from error


def _optional_text(document: Json, name: str) -> str | None:
    """Return an optional string; raise TypeError for any other type."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__} {value!r}, must be a string")
    return value


def _optional_object(document: Json, name: str) -> Json | None:
    """Return an optional JSON object; raise TypeError for any other type."""
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{name} is {type(value).__name__}, must be an object")
    return value


def without_record(documents: dict[str, Json]) -> dict[str, Json]:
    """Return Zarr metadata documents without attributes, because a row stores the record separately."""
    return {
        name: {**document, "attributes": {}} if name == "zarr.json" else document
        for name, document in documents.items()
        if name != ".zattrs"
    }


def with_record(documents: dict[str, Json], record: MovieRecord) -> dict[str, Json]:
    """Return the documents as stored; the inverse of :func:`without_record`."""
    attributes: Json = {ATTRIBUTE: record.to_dict()}
    if "zarr.json" in documents:
        return {"zarr.json": {**documents["zarr.json"], "attributes": attributes}}
    names = axis_names(len(documents[".zarray"]["shape"]))
    return {**documents, ".zattrs": {"_ARRAY_DIMENSIONS": names, **attributes}}  # xarray's names in this format


def axis_names(n_axes: int) -> list[str | None]:
    """Return the names of a movie's axes; axes between time and height have none."""
    return ["time", *[None] * (n_axes - 3), "height", "width"]
