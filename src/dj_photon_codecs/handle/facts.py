"""Human-readable facts about a stored movie that need no access to the store."""

from __future__ import annotations

from ..calibration import Calibration
from ..errors import CalibrationError
from .array import PhotonArray

Facts = list[tuple[str, str]]

_VERDICT_TEXT = {"given": "given", "measured": "measured from the movie", "bounded": "bounded from below: "}
_AXES = {3: " (time, height, width)", 4: " (time, plane, height, width)"}


def movie_facts(movie: PhotonArray) -> Facts:
    """Return the shape, dtype, profile, size and noise model of a stored movie, without access to the store.

    Raises FormatError if the metadata does not describe an array.
    """
    step = f", step {movie.step:g} noise standard deviations" if movie.step else ""
    record = movie.record
    reason = f", {record.reason}" if record is not None and record.reason else ""
    facts = [*array_facts(movie.shape, movie.dtype), ("profile", f"{movie.profile}{step}{reason}")]
    if record is None:
        facts.append(("size", "not recorded: this package did not write it"))
    else:
        sizes = f"{size_text(record.original_bytes)}, stored in {size_text(record.stored_bytes)}"
        facts.append(("size", f"{sizes}: {movie.compression_ratio:.3g} times smaller"))
    try:
        noise = movie.calibration
    except CalibrationError:
        return [*facts, ("noise model", "none")]
    return [*facts, *calibration_facts(noise)]


def array_facts(shape: tuple[int, ...], dtype: object) -> Facts:
    """Return the shape and dtype of any movie."""
    return [("shape", " x ".join(map(str, shape)) + _AXES.get(len(shape), "")), ("dtype", str(dtype))]


def calibration_facts(noise: Calibration) -> Facts:
    """Return a noise model and how reliable it is."""
    if noise.verdict == "unknown":
        return [("noise model", f"unknown: {noise.reason}")]
    error = f" +- {100 * noise.gain_error:.1f} %" if noise.gain_error > 0 else ""
    return [
        ("gain", f"{noise.conversion_gain:.4g} ADU/photon{error}"),
        ("zero level", f"{noise.zero_level:.4g} ADU"),
        ("noise model", _VERDICT_TEXT[noise.method if noise.method == "given" else noise.verdict] + noise.reason),
    ]


def size_text(size: float) -> str:
    """Format a size in bytes with one to three digits before the decimal point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
