"""What is known of a stored movie without reading it, as names and values for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calibration import Calibration
from ..errors import CalibrationError

if TYPE_CHECKING:
    from .array import PhotonArray

Facts = list[tuple[str, str]]

_AXES = {3: " (time, height, width)", 4: " (time, plane, height, width)"}


def movie_facts(movie: PhotonArray) -> Facts:
    """Shape, dtype, profile, size and noise model of a stored movie; the store is not asked.

    Raises
    ------
    FormatError
        When its metadata describes no array.
    """
    step = f", step {movie.step:g} noise standard deviations" if movie.step else ""
    facts = [*array_facts(movie.shape, movie.dtype), ("profile", f"{movie.profile}{step}")]
    record = movie.record
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
    """Shape and dtype of any movie."""
    return [("shape", " x ".join(map(str, shape)) + _AXES.get(len(shape), "")), ("dtype", str(dtype))]


def calibration_facts(noise: Calibration) -> Facts:
    """A noise model, and how far it is to be relied on."""
    if not noise.reliable:
        return [("noise model", f"not reliable: {noise.reason}")]
    error = f" +- {100 * noise.gain_error:.1f} %" if noise.gain_error > 0 else ""
    return [
        ("gain", f"{noise.conversion_gain:.4g} ADU/photon{error}"),
        ("zero level", f"{noise.zero_level:.4g} ADU"),
        ("noise model", "reliable, given" if noise.method == "given" else "reliable, measured from the movie"),
    ]


def size_text(size: float) -> str:
    """Bytes, in the unit that leaves one to three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
