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
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from .._typing import AnyArray, Json
from ..calibration import Calibration
from ..errors import ConfigurationError, FormatError, PhotonCodecError
from ..movies import open_movie, write_movie
from .footprints import Footprints
from .minisim import is_minisim, load_minisim
from .recording import Recording
from .spec import STAGES, Spec
from .truth import AXES, GroundTruth, MoleculeTruth

#: Of the folder; a reader refuses a newer one.
FORMAT_VERSION = 1
#: The attribute that holds everything below.
_ATTRIBUTE = "dj_photon_simulation"
_PLANTED = ("data", "offsets", "shapes")
_MOLECULES = ("positions_um", "photons")
#: Every array that a folder may have: names from outside are not made into paths.
_ARRAYS = {
    *(f"ground_truth/{name}" for name in AXES),
    *(f"ground_truth/planted/{name}" for name in _PLANTED),
    *(f"ground_truth/molecules/{name}" for name in _MOLECULES),
    *(f"snapshots/{name}" for name in STAGES),
}


def spec_key(values: Mapping[str, Any]) -> str:
    """SHA-256 of a spec's canonical JSON, as :meth:`Spec.cache_key` has it."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def save(recording: Recording, path: str | os.PathLike[str], *, step: float, profile: str) -> Path:
    """Write a recording beside its place, and move it there when it is complete; see :meth:`Recording.save`."""
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"save: there is something at {path} already; remove it, or save elsewhere")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        _write(recording, partial, step, profile)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def _write(recording: Recording, folder: Path, step: float, profile: str) -> None:
    """All of the folder; the document that makes it a recording comes last."""
    spec, truth = recording.spec, recording.ground_truth
    values = spec.to_dict() if isinstance(spec, Spec) else dict(spec)
    (folder / "spec.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_movie(str(folder / "observed"), recording.photon_movie(step=step, profile=profile), progress=False)
    arrays = {f"ground_truth/{name}": array for name, array in truth.arrays().items()}
    arrays |= {f"ground_truth/planted/{name}": getattr(truth.planted, name) for name in _PLANTED}
    molecules = truth.molecules
    if molecules is not None:
        arrays |= {f"ground_truth/molecules/{name}": getattr(molecules, name) for name in _MOLECULES}
    arrays |= {f"snapshots/{name}": array for name, array in recording.snapshots.items()}
    for group in sorted({name.rpartition("/")[0] for name in arrays}):
        zarr.open_group(str(folder / group), mode="a", zarr_format=3)
    for name, array in arrays.items():
        zarr.create_array(str(folder / name), data=np.asarray(array), zarr_format=3)
    attributes = {
        "format_version": FORMAT_VERSION,
        "spec_kind": "dj-photon-codecs" if isinstance(spec, Spec) else "minisim",
        "spec_cache_key": spec_key(values),
        "calibration": recording.calibration.to_dict(),
        "n_frames": truth.n_frames,
        "canvas_shape": list(truth.planted.canvas_shape),
        "fov_offset": list(truth.planted.fov_offset),
        "fov_shape": list(truth.planted.fov_shape),
        "focal_depth_um": truth.focal_depth_um,
        "molecules": None
        if molecules is None
        else {"sigma_um": molecules.sigma_um, "diffusion_um2_per_s": molecules.diffusion_um2_per_s},
        "sha256": {name: _digest(array) for name, array in arrays.items()},
    }
    zarr.create_group(str(folder), zarr_format=3, attributes={_ATTRIBUTE: attributes})


def _digest(array: AnyArray) -> str:
    """What an array of the truth is recognised by: its dtype, shape and bytes (little-endian)."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    header = f"{array.dtype.newbyteorder('<').str}{array.shape}"
    return hashlib.sha256(header.encode() + little.tobytes()).hexdigest()


def load(path: str | os.PathLike[str]) -> Recording:
    """Open a recording, in this package's layout or minisim's; see :meth:`Recording.load`."""
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
    """What the folder says of itself."""
    try:
        document = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(
            f"there is no complete recording at {path}: its zarr.json cannot be read ({type(error).__name__}: {error})"
        ) from error
    told = document.get("attributes") if isinstance(document, dict) else None
    attributes = told.get(_ATTRIBUTE) if isinstance(told, dict) else None
    if not isinstance(attributes, dict):
        raise FormatError(f"{path} is a Zarr group, but not a recording: it has no attribute {_ATTRIBUTE!r}")
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"the recording at {path} has format version {version!r}, this version of dj-photon-codecs reads "
            f"{FORMAT_VERSION}: update the package"
        )
    return attributes


def _read(path: Path, attributes: Json) -> Recording:
    """The recording, checked against its hashes."""
    spec = _read_spec(path, attributes)
    unknown = set(attributes["sha256"]) - _ARRAYS
    if unknown:
        raise FormatError(
            f"the recording at {path} names arrays that format version {FORMAT_VERSION} does not have: "
            f"{', '.join(sorted(unknown))}"
        )
    arrays: dict[str, Any] = {name: _read_array(path, name, digest) for name, digest in attributes["sha256"].items()}
    try:
        observed = np.asarray(open_movie(str(path / "observed"))[:])
    except PhotonCodecError as error:
        raise FormatError(f"the movie of the recording at {path} cannot be read: {error}") from error
    places: dict[str, Any] = {name: arrays[f"ground_truth/planted/{name}"] for name in _PLANTED}
    places |= {name: tuple(attributes[name]) for name in ("canvas_shape", "fov_offset", "fov_shape")}
    planted = Footprints(**places)
    molecules = None
    if attributes["molecules"] is not None:
        molecules = MoleculeTruth(
            **{name: arrays[f"ground_truth/molecules/{name}"] for name in _MOLECULES}, **attributes["molecules"]
        )
    truth = GroundTruth(
        planted=planted,
        n_frames=attributes["n_frames"],
        focal_depth_um=attributes["focal_depth_um"],
        molecules=molecules,
        **{name: arrays[f"ground_truth/{name}"] for name in AXES if f"ground_truth/{name}" in arrays},
    )
    snapshots = {
        name.removeprefix("snapshots/"): array for name, array in arrays.items() if name.startswith("snapshots/")
    }
    return Recording(spec, observed, truth, Calibration.from_dict(attributes["calibration"]), snapshots)


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
