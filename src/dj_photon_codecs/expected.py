"""Estimate a movie's noise and stored size from a few of its chunks, without writing anything."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from ._arguments import brief_repr
from .calibration import Calibration, calibrate
from .errors import PhotonCodecError
from .movies import PhotonMovie, is_stored
from .options import ESTIMATED, STANDARD, WriteOptions, check_option
from .sources import Source, as_source, names_files, open_source
from .storage.chunks import format_and_grid
from .storage.count_range import value_range
from .storage.plan import Plan, Request, plan_movie

#: Largest number of chunks to compress for a profile.
_CHUNKS = 6
#: Largest number of pixels to compress for a profile.
_PIXELS = 3 << 20


@dataclass(frozen=True)
class Estimate:
    """Expected result of storing a movie.

    Attributes
    ----------
    calibration
        The noise of the movie, including the noise that the standard profile would add.
    ratios
        Expected compression ratio for each profile, accurate to about 10 %.
    reason
        Why the photons or the noise are unknown, or why a profile rounds nothing; empty if neither applies.
    """

    calibration: Calibration
    ratios: dict[str, float]
    reason: str

    __repr__ = brief_repr

    def __str__(self) -> str:
        noise = self.calibration
        lines = [f"noise {noise.verdict}"]
        if math.isfinite(noise.conversion_gain):
            error = f" +- {100 * noise.gain_error:.1f} %" if noise.gain_error > 0 else ""
            lines[0] += f": gain {noise.conversion_gain:.4g} ADU/photon{error}, zero level {noise.zero_level:.4g} ADU"
        if self.reason:
            lines.append(self.reason)
        if math.isfinite(noise.added_noise):
            lines.append(f"rounding adds at most {noise.added_noise:.2f} times the promised step^2/12 of the noise")
        lines.append("times smaller: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in self.ratios.items()))
        return "\n".join(lines)


def estimate(movie: object, *, step: float = 0.5) -> Estimate:
    """Estimate the noise of a movie and its stored size in each profile. Writes nothing.

    Parameters
    ----------
    movie
        Anything that :func:`~dj_photon_codecs.write_movie` accepts, including a
        :class:`~dj_photon_codecs.PhotonMovie` or a file path.
    step
        Quantisation step [noise standard deviations]; a PhotonMovie with its own step overrides it.

    Returns
    -------
    Estimate
        The estimate; its text is the output of ``dj-photon inspect``.

    Raises
    ------
    MovieTypeError, InvalidMovieError
        If the movie cannot be stored.
    ConfigurationError
        If the step is out of range.
    """
    given, signed = None, False
    if isinstance(movie, PhotonMovie):
        given, signed = movie.noise_model(), movie.signed
        step, movie = (step if movie.step is None else movie.step), movie.movie
    check_option("step", step)
    with open_source(movie) if names_files(movie) else nullcontext(movie) as opened:
        source = as_source(opened)
        source = replace(source, signed=source.signed or signed or is_stored(opened))
        return _estimated(source, given, step)


def _estimated(source: Source, calibration: Calibration | None, step: float) -> Estimate:
    """Return the estimate for an open movie; its noise is measured unless given."""
    values = value_range(source, negative_allowed=source.signed or calibration is not None)
    noise = calibration or calibrate(source)
    shown, ratios, reasons = noise, {}, [noise.reason]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the estimate includes the reasons
        for profile in ESTIMATED:
            try:
                plan = plan_movie(Request.of(source, WriteOptions(step=step, profile=profile), noise, values=values))
            except PhotonCodecError as error:
                reasons.append(f"{profile}: {error}")
                continue
            if profile == STANDARD.name:
                shown = plan.request.calibration
            ratios[profile] = _ratio(plan)
            if plan.request.reason:
                reasons.append(f"{profile}: {plan.request.reason}")
    return Estimate(shown, ratios, "; ".join(dict.fromkeys(filter(None, reasons))))


def _ratio(plan: Plan) -> float:
    """Return the compression ratio of a few chunks spread over the movie."""
    source, chunk = plan.request.source, plan.request.grid.chunk
    places = [-(-n // size) for n, size in zip(source.shape, chunk, strict=True)]
    total = math.prod(places)
    count = min(total, _CHUNKS, max(1, _PIXELS // math.prod(chunk)))
    coder = format_and_grid(plan.metadata, "the estimate")[0].coder
    raw = stored = 0
    for i in range(count):
        place = np.unravel_index((2 * i + 1) * total // (2 * count), places)
        at = [int(index) * size for index, size in zip(place, chunk, strict=True)]
        frames = source.read(at[0], min(at[0] + chunk[0], source.shape[0]))
        counts = frames[(slice(None), *(slice(start, start + n) for start, n in zip(at[1:], chunk[1:], strict=True)))]
        missing = [(0, n - have) for n, have in zip(chunk, counts.shape, strict=True)]
        full = np.pad(counts, missing, constant_values=plan.encoding.padding)
        stored += len(coder.encode(plan.encoding.prepared(full)))
        raw += counts.nbytes
    return raw / max(stored, 1)
