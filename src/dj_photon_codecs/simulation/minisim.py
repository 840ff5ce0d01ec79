"""Recordings that the simulator minisim saved (format version 2), read from the layout of their folder.

A Zarr V2 group: ``observed`` (time, height, width) of whole numbers in float32, ``ground_truth/`` with one array per
name, ``ground_truth/planted/`` with the sharp footprints one after another, ``spec.json`` with that program's spec.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from .._typing import AnyArray, Json
from ..calibration import Calibration
from ..errors import FormatError
from .footprints import Footprints
from .recording import Recording
from .truth import AXES, GroundTruth

_FORMAT_VERSION = 2
#: What every such recording has.
_REQUIRED = (
    "observed_sigma_px",
    "observed_gain",
    "C",
    "S",
    "centers_um",
    "amplitude_per_cell",
    "in_focus",
    "detectable",
)


def is_minisim(path: Path) -> bool:
    """Whether a folder is a Zarr V2 group with such a version number."""
    return (path / ".zgroup").is_file() and not (path / "zarr.json").exists()


def load_minisim(path: Path) -> Recording:
    """A recording of minisim.

    Its truth has the names of this package's, and shifts of the same sense, but light in minisim's own units instead of
    photons. The spec stays a mapping. ``snr`` is NaN, for it is not saved. minisim's own hash of the spec is not
    documented, and so not checked.

    Raises
    ------
    FormatError
        When something is missing, of another version, or not counts.
    """
    try:
        return _read(path)
    except (KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"the recording of minisim at {path} cannot be read: {type(error).__name__}: {error}"
        ) from error


def _read(path: Path) -> Recording:
    group = zarr.open_group(str(path), mode="r", zarr_format=2)
    version = group.attrs.get("format_version")
    if version != _FORMAT_VERSION:
        raise FormatError(
            f"the Zarr V2 group at {path} has format_version {version!r}, recordings of minisim are read in version "
            f"{_FORMAT_VERSION}"
        )
    spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
    observed = _counts(path, _array(group, "observed"))
    truth = _array_group(group, "ground_truth")
    names = [name for name in AXES if name in truth]
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise FormatError(f"the recording of minisim at {path} has no ground_truth/{missing[0]}")
    arrays: dict[str, Any] = {name: _array(truth, name) for name in names}
    arrays.setdefault("snr", np.full(len(arrays["detectable"]), np.nan))
    planted = _array_group(truth, "planted")
    places = dict(planted.attrs)
    parts: dict[str, Any] = {name: _array(planted, name) for name in ("data", "offsets", "shapes")}
    parts |= {name: _pair(places[name]) for name in ("canvas_shape", "fov_offset", "fov_shape")}
    footprints = Footprints(**parts)
    focal = truth.attrs.get("focal_depth_um")
    return Recording(
        spec,
        observed,
        GroundTruth(
            planted=footprints,
            n_frames=len(observed),
            focal_depth_um=None if focal is None else float(cast(float, focal)),
            **arrays,
        ),
        _calibration(spec),
    )


def _pair(value: Any) -> Any:
    height, width = value
    return int(height), int(width)


def _array_group(group: zarr.Group, name: str) -> zarr.Group:
    node = group[name]
    if not isinstance(node, zarr.Group):
        raise FormatError(f"{name} of the recording of minisim is not a group")
    return node


def _array(group: zarr.Group, name: str) -> AnyArray:
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise FormatError(f"{name} of the recording of minisim is not an array")
    return np.asarray(node[...])


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
