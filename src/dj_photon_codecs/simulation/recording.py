"""A recording and its truth, in memory and in one folder, which is complete or absent.

    recording/
        zarr.json         a Zarr V3 group: format version, hash of the spec, checksums; written last
        spec.json         the spec, to read
        observed/         the counts, as write_movie stores them, with the sensor's true noise model
        ground_truth/     one array per name of the truth, and planted/ and molecules/
        snapshots/        one array per stage that was kept

Arrays of the truth carry a SHA-256 each, because Zarr reads a missing chunk as zeros.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import zarr

from .._arguments import brief_repr
from .._system import remove_folder, rename
from .._typing import AnyArray, Json
from ..calibration import Calibration
from ..errors import ConfigurationError, FormatError, InvalidMovieError, PhotonCodecError
from ..movies import PhotonMovie, open_movie, write_movie
from .footprints import Footprints, freeze, frozen
from .minisim import is_minisim, load_minisim
from .spec import STAGES, Spec, spec_key
from .truth import AXES, GroundTruth, MoleculeTruth
from .video import write_blocks

#: Version of the folder; readers refuse any other.
FORMAT_VERSION = 1
_ATTRIBUTE = "dj_photon_simulation"
_PLANTED, _FRAME = ("data", "offsets", "shapes"), ("canvas_shape", "fov_offset", "fov_shape")
_COURSES, _CONSTANTS = ("positions_um", "photons"), ("sigma_um", "diffusion_um2_per_s")
#: Every array that a folder may have: names read from a file never become paths.
_ARRAYS = {
    *(f"ground_truth/{name}" for name in AXES),
    *(f"ground_truth/planted/{name}" for name in _PLANTED),
    *(f"ground_truth/molecules/{name}" for name in _COURSES),
    *(f"snapshots/{name}" for name in STAGES),
}


class MissingStageError(PhotonCodecError, KeyError):
    """The recording has no such stage; the message lists those it has."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError's own shows a repr


@dataclass(frozen=True, eq=False)
class Recording:
    """A movie of counts, its spec and its truth; inconsistent shapes or dtypes raise InvalidMovieError."""

    spec: Spec | Mapping[str, Any]
    """The :class:`Spec`; for a recording of minisim, its spec as a mapping."""
    observed: AnyArray
    """Counts [ADU]: unsigned integers (time, height, width)."""
    ground_truth: GroundTruth
    """The truth about cells, motion and light."""
    calibration: Calibration
    """The sensor's exact noise model: see :func:`.true_calibration`."""
    snapshots: Mapping[str, AnyArray] = field(default_factory=dict)
    """Expected photons after each step in ``spec.output.snapshots``: float32 (time, height, width), on the canvas for
    steps before the motion."""

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        truth = self.ground_truth
        expected = (truth.n_frames, *truth.planted.fov_shape)
        if self.observed.shape != expected or self.observed.dtype.kind != "u":
            raise InvalidMovieError(
                f"Recording: observed has shape {self.observed.shape} and dtype {self.observed.dtype}, must be "
                f"unsigned integers of shape {expected}, as the ground truth has it"
            )
        freeze(self, "observed")
        snapshots = {name: frozen(array) for name, array in self.snapshots.items()}
        object.__setattr__(self, "snapshots", MappingProxyType(snapshots))
        if not isinstance(self.spec, Spec):
            object.__setattr__(self, "spec", MappingProxyType(dict(self.spec)))

    def __reduce__(self) -> tuple[Any, ...]:  # mapping proxies do not pickle
        spec = self.spec if isinstance(self.spec, Spec) else dict(self.spec)
        return Recording, (spec, self.observed, self.ground_truth, self.calibration, dict(self.snapshots))

    @property
    def fps(self) -> float:
        """Frames per second."""
        spec = self.spec
        return spec.acquisition.fps if isinstance(spec, Spec) else float(spec["acquisition"]["fps"])

    def stage(self, name: str) -> AnyArray:
        """The movie after a step: counts for "observed", expected photons for a snapshot.

        Raises
        ------
        MissingStageError
            A KeyError that lists the stages of this recording.
        """
        stages = {**self.snapshots, "observed": self.observed}
        if name not in stages:
            raise MissingStageError(
                f"no stage {name!r} in this recording; it has {', '.join(stages)}. To keep another, name it in the "
                "spec's output.snapshots"
            )
        return stages[name]

    def photon_movie(self, *, step: float | None = None, profile: str | None = None) -> PhotonMovie:
        """The counts with the sensor's exact noise model, ready to insert or to write.

        The model's conversion gain is the slope of variance against mean: counts per photo-electron times the excess
        noise factor. Its zero level is the pedestal less what the read noise adds. Step and profile are those of
        :class:`dj_photon_codecs.PhotonMovie`.
        """
        return PhotonMovie(self.observed, calibration=self.calibration, step=step, profile=profile)

    def save(self, path: str | os.PathLike[str], *, step: float = 0.5, profile: str = "standard") -> Path:
        """Save the recording in one folder, which appears when it is complete.

        Parameters
        ----------
        path
            A folder that does not exist yet.
        step, profile
            How the movie is stored, as in :func:`dj_photon_codecs.write_movie`. By default its counts come back within
            the codec's bound, half a step of their noise; with ``profile="lossless"`` they come back unchanged.

        Raises
        ------
        ConfigurationError
            If ``path`` exists, or a step or profile is out of range.
        """
        path = Path(path)
        if path.exists() or path.is_symlink():
            raise ConfigurationError(f"save: something is already at {path}; remove it, or save elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
        partial.mkdir()
        try:
            _write(self, partial, step, profile)
            rename(partial, path)
        except BaseException:
            remove_folder(partial)
            raise
        return path

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Recording:
        """Open a recording from a folder written by :meth:`save` or minisim.

        Raises
        ------
        FormatError
            If the folder holds no complete recording, one of a newer version, or one whose spec was edited.
        """
        path = Path(path)
        try:
            return Recording(*load_minisim(path)) if is_minisim(path) else _read(path)
        except FormatError:
            raise
        except (PhotonCodecError, KeyError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise FormatError(
                f"the recording at {path} cannot be read, because parts of it are damaged or do not fit together: "
                f"{type(error).__name__}: {error}"
            ) from error

    def write_video(
        self,
        path: str | os.PathLike[str],
        fps: float | None = None,
        vmin: float = 0,
        vmax: float | None = None,
        progress: bool = True,
    ) -> Path:
        """Write the counts as a grey video (H.264 or MPEG-4), for viewing.

        Parameters
        ----------
        path
            The file; its suffix (.mp4, .mkv, .avi, .mov) selects the container.
        fps
            Frames per second; the recording's own when None.
        vmin, vmax
            Counts shown as black and white [ADU]; by default, white is the 99.9th percentile of 16 frames.
        progress
            Whether to show a progress bar.

        Raises
        ------
        ConfigurationError
            For an unknown suffix, or limits or rates out of range.
        """
        rate = self.fps if fps is None else fps
        counts = self.observed
        return write_blocks(path, [counts], counts.__getitem__, counts.shape, rate, vmin, vmax, progress)


def _write(recording: Recording, folder: Path, step: float, profile: str) -> None:
    """Write the folder; ``zarr.json``, which makes it a recording, comes last."""
    spec, truth = recording.spec, recording.ground_truth
    planted, molecules = truth.planted, truth.molecules
    values = spec.to_dict() if isinstance(spec, Spec) else dict(spec)
    (folder / "spec.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_movie(str(folder / "observed"), recording.photon_movie(step=step, profile=profile), progress=False)
    arrays = {f"ground_truth/{name}": array for name, array in truth.arrays().items()}
    arrays |= {f"ground_truth/planted/{name}": getattr(planted, name) for name in _PLANTED}
    if molecules is not None:
        arrays |= {f"ground_truth/molecules/{name}": getattr(molecules, name) for name in _COURSES}
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
        "molecules": molecules and {name: getattr(molecules, name) for name in _CONSTANTS},
        "sha256": {name: _digest(array) for name, array in arrays.items()},
    }
    zarr.create_group(str(folder), zarr_format=3, attributes={_ATTRIBUTE: attributes})


def _digest(array: AnyArray) -> str:
    """SHA-256 of an array's dtype, shape and bytes (little-endian)."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    header = f"{array.dtype.newbyteorder('<').str}{array.shape}"
    return hashlib.sha256(header.encode() + little.tobytes()).hexdigest()


def _read(path: Path) -> Recording:
    """A recording in this package's layout, checked against its hashes."""
    attributes = _attributes(path)
    spec = _read_spec(path, attributes)
    unknown = ", ".join(sorted(set(attributes["sha256"]) - _ARRAYS))
    if unknown:
        raise FormatError(
            f"the recording at {path} names arrays that format version {FORMAT_VERSION} does not have: {unknown}"
        )
    arrays: dict[str, Any] = {name: _read_array(path, name, digest) for name, digest in attributes["sha256"].items()}
    observed = np.asarray(open_movie(str(path / "observed"))[:])
    places: dict[str, Any] = {name: arrays[f"ground_truth/planted/{name}"] for name in _PLANTED}
    places |= {name: tuple(attributes[name]) for name in _FRAME}
    molecules = attributes["molecules"]
    if molecules is not None:
        courses = {name: arrays[f"ground_truth/molecules/{name}"] for name in _COURSES}
        molecules = MoleculeTruth(**courses, **molecules)
    truth = GroundTruth(
        planted=Footprints(**places),
        n_frames=attributes["n_frames"],
        focal_depth_um=attributes["focal_depth_um"],
        molecules=molecules,
        **{name: arrays[f"ground_truth/{name}"] for name in AXES if f"ground_truth/{name}" in arrays},
    )
    snapshots = {name: arrays[f"snapshots/{name}"] for name in STAGES if f"snapshots/{name}" in arrays}
    return Recording(spec, observed, truth, Calibration.from_dict(attributes["calibration"]), snapshots)


def _attributes(path: Path) -> Json:
    """The attributes in the zarr.json of the folder."""
    try:
        document = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(
            f"there is no complete recording at {path}: its zarr.json cannot be read ({type(error).__name__}: {error})"
        ) from error
    attributes: Any = document.get("attributes", {}).get(_ATTRIBUTE)
    if not isinstance(attributes, dict):
        raise FormatError(f"{path} is a Zarr group, but not a recording: it has no attribute {_ATTRIBUTE!r}")
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"the recording at {path} has format version {version!r}, this version of dj-photon-codecs reads "
            f"{FORMAT_VERSION}: update the package"
        )
    return attributes


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
    return cast("Mapping[str, Any]", values) if attributes["spec_kind"] == "minisim" else Spec.from_json(text)


def _read_array(path: Path, name: str, digest: str) -> AnyArray:
    """One array of the truth, whole and unaltered."""
    try:
        array = np.asarray(zarr.open_array(str(path / name), mode="r")[...])
    except (OSError, ValueError, RuntimeError) as error:
        raise FormatError(f"{name} of the recording at {path} cannot be read: {error}") from error
    if _digest(array) != digest:
        raise FormatError(
            f"{name} of the recording at {path} is not what was saved: a chunk is missing or altered. Simulate the "
            "spec again to get the same recording"
        )
    return array
