"""Read recordings saved by the simulator minisim (format version 2).

They are Zarr V2 groups: ``observed`` (time, height, width) of whole numbers in float32, ``ground_truth/`` with one
array per name, ``ground_truth/planted/`` with the concatenated sharp footprints, ``spec.json`` with minisim's spec.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from .._typing import AnyArray, Json
from ..calibration import Calibration
from ..errors import FormatError
from .footprints import Footprints
from .truth import AXES, GroundTruth

_FORMAT_VERSION = 2
#: Arrays that every recording has.
_REQUIRED = (
    "observed_sigma_px", "observed_gain", "C", "S", "centers_um", "amplitude_per_cell", "in_focus", "detectable"
)  # fmt: skip


def is_minisim(path: Path) -> bool:
    """Whether a folder is a Zarr V2 group, as minisim writes them."""
    return (path / ".zgroup").is_file() and not (path / "zarr.json").exists()


def load_minisim(path: Path) -> tuple[Json, AnyArray, GroundTruth, Calibration]:
    """Spec, counts, truth and noise model of a recording of minisim.

    The truth has the same names and the same sign of shifts as this package's, but light is in minisim's own units
    instead of photons. The spec stays a mapping. ``snr`` is not saved, so it is NaN. minisim's hash of the spec is
    undocumented and not checked. A damaged folder raises FormatError, or any error of zarr or numpy.
    """
    version = _attributes(path).get("format_version")
    if version != _FORMAT_VERSION:
        raise FormatError(
            f"the Zarr V2 group at {path} has format_version {version!r}, recordings of minisim are read in version "
            f"{_FORMAT_VERSION}"
        )
    spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
    observed = _counts(path, _array(path / "observed"))
    truth, planted = path / "ground_truth", path / "ground_truth" / "planted"
    missing = [name for name in _REQUIRED if not (truth / name).exists()]
    if missing:
        raise FormatError(f"the recording of minisim at {path} has no ground_truth/{missing[0]}")
    arrays: dict[str, Any] = {name: _array(truth / name) for name in AXES if (truth / name).exists()}
    arrays.setdefault("snr", np.full(len(arrays["detectable"]), np.nan))
    places: dict[str, Any] = {name: _array(planted / name) for name in ("data", "offsets", "shapes")}
    for name in ("canvas_shape", "fov_offset", "fov_shape"):
        height, width = _attributes(planted)[name]
        places[name] = int(height), int(width)
    focal = _attributes(truth).get("focal_depth_um")
    focal = None if focal is None else float(focal)
    known = GroundTruth(planted=Footprints(**places), n_frames=len(observed), focal_depth_um=focal, **arrays)
    return spec, observed, known, _calibration(spec)


def _attributes(path: Path) -> dict[str, Any]:
    return dict(zarr.open_group(str(path), mode="r", zarr_format=2).attrs)


def _array(path: Path) -> AnyArray:
    return np.asarray(zarr.open_array(str(path), mode="r", zarr_format=2)[...])


def _counts(path: Path, observed: AnyArray) -> AnyArray:
    """Whole numbers in float32 as unsigned integers."""
    low, high = float(observed.min()), float(observed.max())
    if not (low >= 0 and high < 2**32 and np.array_equal(observed, np.rint(observed))):
        raise FormatError(
            f"observed of the recording of minisim at {path} has values from {low:g} to {high:g}, counts are whole "
            "numbers of at least 0: was it saved without a sensor?"
        )
    return observed.astype(np.uint16 if high < 2**16 else np.uint32)


def _calibration(spec: Json) -> Calibration:
    """The noise model of minisim's sensor: Normal(n, sqrt(n + read^2)) electrons, times the gain, rounded down.

    So mean = gain n - 1/2 and variance = gain^2 (n + read^2) = gain (mean - zero_level).
    """
    sensor: dict[str, Any] = spec["acquisition"]["image_sensor"]
    gain, read = float(sensor["gain_adu_per_e"]), float(sensor["read_noise_e"])
    return Calibration.given(gain, -0.5 - gain * read * read)
