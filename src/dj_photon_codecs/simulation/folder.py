"""A recording on disk: one folder, complete or not there.

    recording/
        zarr.json         a Zarr V3 group: format version, hash of the spec, checksums; written last
        spec.json         the spec, to read
        observed/         the counts, as write_movie stores them, with the sensor's true noise model
        ground_truth/     one array per name of the truth, and planted/ and molecules/
        snapshots/        one array per stage that was kept

Arrays of the truth carry a SHA-256 each, because Zarr reads a chunk that is missing as zeros.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from .._system import remove_folder, rename
from .._typing import AnyArray, Json
from ..calibration import Calibration
from ..errors import ConfigurationError, FormatError, PhotonCodecError
from ..movies import PhotonMovie, open_movie, write_movie
from .footprints import Footprints
from .minisim import is_minisim, load_minisim
from .spec import STAGES, Spec, spec_key
from .truth import AXES, GroundTruth, MoleculeTruth, Parts

#: Of the folder; a reader refuses a newer one.
FORMAT_VERSION = 1
#: The attribute that holds everything below.
_ATTRIBUTE = "dj_photon_simulation"
_PLANTED, _FRAME = ("data", "offsets", "shapes"), ("canvas_shape", "fov_offset", "fov_shape")
_MOLECULES = ("positions_um", "photons")
#: Every array that a folder may have: names from outside are not made into paths.
_ARRAYS = {
    *(f"ground_truth/{name}" for name in AXES),
    *(f"ground_truth/planted/{name}" for name in _PLANTED),
    *(f"ground_truth/molecules/{name}" for name in _MOLECULES),
    *(f"snapshots/{name}" for name in STAGES),
}


def save(recording: Parts, path: str | os.PathLike[str], *, step: float, profile: str) -> Path:
    """Write a recording beside its place, and move it there when it is complete; see :meth:`Recording.save`."""
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"save: there is something at {path} already; remove it, or save elsewhere")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        _write(recording, partial, step, profile)
        rename(partial, path)
    except BaseException:
        remove_folder(partial)
        raise
    return path


def _write(recording: Parts, folder: Path, step: float, profile: str) -> None:
    """Write the folder; the document that makes it a recording comes last."""
    spec, truth = recording.spec, recording.ground_truth
    planted, molecules = truth.planted, truth.molecules
    values = spec.to_dict() if isinstance(spec, Spec) else dict(spec)
    (folder / "spec.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    movie = PhotonMovie(recording.observed, calibration=recording.calibration, step=step, profile=profile)
    write_movie(str(folder / "observed"), movie, progress=False)
    arrays = {f"ground_truth/{name}": array for name, array in truth.arrays().items()}
    arrays |= {f"ground_truth/planted/{name}": getattr(planted, name) for name in _PLANTED}
    if molecules is not None:
        arrays |= {f"ground_truth/molecules/{name}": getattr(molecules, name) for name in _MOLECULES}
    arrays |= {f"snapshots/{name}": array for name, array in recording.snapshots.items()}
    for group in sorted({name.rpartition("/")[0] for name in arrays}):
        zarr.open_group(str(folder / group), mode="a", zarr_format=3)
    for name, array in arrays.items():
        zarr.create_array(str(folder / name), data=np.asarray(array), zarr_format=3)
    attributes: Json = {
        "format_version": FORMAT_VERSION,
        "spec_kind": "dj-photon-codecs" if isinstance(spec, Spec) else "minisim",
        "spec_cache_key": spec_key(values),
        "calibration": recording.calibration.to_dict(),
        "n_frames": truth.n_frames,
        **{name: list(getattr(planted, name)) for name in _FRAME},
        "focal_depth_um": truth.focal_depth_um,
        "molecules": molecules and {name: getattr(molecules, name) for name in ("sigma_um", "diffusion_um2_per_s")},
        "sha256": {name: _digest(array) for name, array in arrays.items()},
    }
    zarr.create_group(str(folder), zarr_format=3, attributes={_ATTRIBUTE: attributes})


def _digest(array: AnyArray) -> str:
    """SHA-256 of an array's dtype, shape and bytes (little-endian)."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    header = f"{array.dtype.newbyteorder('<').str}{array.shape}"
    return hashlib.sha256(header.encode() + little.tobytes()).hexdigest()


def load(path: str | os.PathLike[str]) -> Parts:
    """The parts of a recording, in this package's layout or minisim's; see :meth:`Recording.load`."""
    path = Path(path)
    if is_minisim(path):
        return load_minisim(path)
    attributes = _attributes(path)
    try:
        return _read(path, attributes)
    except PhotonCodecError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"the zarr.json of the recording at {path} is not what format version {FORMAT_VERSION} has: "
            f"{type(error).__name__}: {error}"
        ) from error


def _attributes(path: Path) -> Json:
    """The attributes in the zarr.json of the folder."""
    try:
        document = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(
            f"there is no complete recording at {path}: its zarr.json cannot be read ({type(error).__name__}: {error})"
        ) from error
    attributes: Any = document
    for key in ("attributes", _ATTRIBUTE):
        attributes = attributes.get(key) if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict):
        raise FormatError(f"{path} is a Zarr group, but not a recording: it has no attribute {_ATTRIBUTE!r}")
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"the recording at {path} has format version {version!r}, this version of dj-photon-codecs reads "
            f"{FORMAT_VERSION}: update the package"
        )
    return attributes


def _read(path: Path, attributes: Json) -> Parts:
    """The recording, checked against its hashes."""
    spec = _read_spec(path, attributes)
    unknown = ", ".join(sorted(set(attributes["sha256"]) - _ARRAYS))
    if unknown:
        raise FormatError(
            f"the recording at {path} names arrays that format version {FORMAT_VERSION} does not have: {unknown}"
        )
    arrays: dict[str, Any] = {name: _read_array(path, name, digest) for name, digest in attributes["sha256"].items()}
    try:
        observed = np.asarray(open_movie(str(path / "observed"))[:])
    except PhotonCodecError as error:
        raise FormatError(f"the movie of the recording at {path} cannot be read: {error}") from error
    places: dict[str, Any] = {name: arrays[f"ground_truth/planted/{name}"] for name in _PLANTED}
    places |= {name: tuple(attributes[name]) for name in _FRAME}
    molecules = attributes["molecules"]
    if molecules is not None:
        courses = {name: arrays[f"ground_truth/molecules/{name}"] for name in _MOLECULES}
        molecules = MoleculeTruth(**courses, **molecules)
    truth = GroundTruth(
        planted=Footprints(**places),
        n_frames=attributes["n_frames"],
        focal_depth_um=attributes["focal_depth_um"],
        molecules=molecules,
        **{name: arrays[f"ground_truth/{name}"] for name in AXES if f"ground_truth/{name}" in arrays},
    )
    snapshots = {name: arrays[f"snapshots/{name}"] for name in STAGES if f"snapshots/{name}" in arrays}
    return Parts(spec, observed, truth, Calibration.from_dict(attributes["calibration"]), snapshots)


def _read_spec(path: Path, attributes: Json) -> Spec | Mapping[str, Any]:
    """The spec, if it is still the one that made the recording."""
    try:
        text = (path / "spec.json").read_text(encoding="utf-8")
        values = json.loads(text)
        found = spec_key(values)
    except (OSError, ValueError) as error:
        raise FormatError(f"the spec.json of the recording at {path} cannot be read: {error}") from error
    if found != attributes["spec_cache_key"]:
        raise FormatError(
            f"the spec.json of the recording at {path} was edited: its SHA-256 is {found[:16]}..., that of the spec "
            f"that made the recording {attributes['spec_cache_key'][:16]}.... Restore it, or simulate the new spec"
        )
    if attributes["spec_kind"] == "minisim":
        return cast("Mapping[str, Any]", values)
    try:
        return Spec.from_json(text)
    except ConfigurationError as error:
        raise FormatError(f"the recording at {path} has a spec that this version cannot read: {error}") from error


def _read_array(path: Path, name: str, digest: str) -> AnyArray:
    """One array of the truth, whole and unaltered."""
    try:
        array = np.asarray(zarr.open_array(str(path / name), mode="r")[...])
    except (OSError, ValueError, RuntimeError) as error:
        raise FormatError(f"{name} of the recording at {path} cannot be read: {error}") from error
    if _digest(array) != digest:
        raise FormatError(
            f"{name} of the recording at {path} is not what was saved: a chunk is missing or altered. Simulate the "
            "spec again, it gives the same recording"
        )
    return array
