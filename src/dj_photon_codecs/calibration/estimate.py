"""Measure the noise of a movie and turn it into a noise model for storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..sources import Source, as_source, names_files, open_source
from .alternation import alternation
from .block_noise import block_grid, statistics_of
from .envelope import lower_envelope
from .finding import Finding, measure
from .model import Calibration
from .sampling import MAX_PIXELS, RUN, draw
from .special_counts import WAY_OUT, about_values, saturation_of

#: Relative difference in gain, beyond its error, at which two channels or planes count as different.
_DIFFERENT = 0.15
#: Scatter of the noise over the regions of all planes below which planes are not measured separately.
_EVEN = 0.03


def calibrate(movie: object) -> Calibration:
    """Measure the noise of a photon-counting movie from the movie itself (photon transfer).

    Reads short runs of frames, spread over the movie, through :meth:`dj_photon_codecs.sources.Source.read`. The same
    movie always gives the same answer.

    Parameters
    ----------
    movie
        Raw counts [ADU], shape (time, ..., height, width), any integer or floating-point dtype; axes between time and
        height are channels or planes, which are measured separately if their noise differs. Anything
        :func:`dj_photon_codecs.sources.as_source` accepts, or the path of a file. For a stored movie, the noise model
        it was stored with is returned.

    Returns
    -------
    Calibration
        Its verdict is "measured" if the movie's noise is that of photon counts, "bounded" if only a lower bound of the
        noise is known, and "unknown" otherwise; ``reason`` says why.

    Raises
    ------
    MovieTypeError, InvalidMovieError
        If the input is not a movie. Errors raised while reading are passed on.

    Notes
    -----
    Photon transfer: variance = gain * signal + read noise (J. R. Janesick, Photon Transfer, SPIE Press, 2007, chapters
    5 and 6). Here the variance comes from differences of neighbouring frames, high-passed in space; see
    ``docs/explanation/calibration.md``.
    """
    if names_files(movie):
        with open_source(movie) as opened:
            return calibrate(opened)
    stored = getattr(movie, "record", None)  # a fetched handle has one
    if stored is not None and (stored.step or stored.calibration.verdict != "unknown"):
        return stored.calibration  # type: ignore[no-any-return]  # measured before its counts were rounded
    source = as_source(movie)
    length, *_, height, width = source.shape
    if length < RUN:
        return Calibration.unknown(
            f"the movie has {length} frame{'s' if length > 1 else ''}, and noise is measured from differences of "
            f"frames, at least {RUN}: {WAY_OUT}"
        )
    if min(block_grid(height, width)) < 2:
        return Calibration.unknown(
            f"frames of {height} x {width} pixels are too small, at least 12 x 12 are needed: {WAY_OUT}; "
            f"the last two axes must be height and width"
        )
    sample = draw(source)
    doubt = about_values(sample)
    if doubt:
        return Calibration.unknown(doubt)
    saturation = saturation_of(sample, source)
    period = alternation(sample)
    if period > 1 and length >= RUN * period:
        channels = (draw(source, MAX_PIXELS // period, first=i, period=period) for i in range(period))
        findings = [measure(channel, statistics_of(channel, saturation)) for channel in channels]
        reason = (
            f"frames alternate with period {period}, as those of {period} interleaved channels or planes: declare them "
            f"as an axis, movie.reshape(-1, {period}, height, width)"
        )
        return _together(findings, reason, saturation, source)
    sites = statistics_of(sample, saturation)
    whole = measure(sample, sites)
    even = not whole.refusal and whole.region_spread < _EVEN
    if sample.planes > 1 and not even:
        each = len(sites) // sample.planes
        parts = [slice(i * each, (i + 1) * each) for i in range(sample.planes)]
        apart = [measure(replace(sample, sites=sample.sites[part], planes=1), sites[part]) for part in parts]
        if _differ(apart):
            reason = (
                "channels or planes differ in their noise, and the lower envelope of all is used: store them separately"
            )
            return _together(apart, reason, saturation, source)
    return _together([whole], "", saturation, source)


def _differ(findings: list[Finding]) -> bool:
    """Whether the known gains of the channels or planes differ."""
    known = [found for found in findings if found.gain_error < 0.2]
    if len(known) < 2:
        return False
    low, high = (f(known, key=lambda found: found.gain) for f in (min, max))
    return high.gain / low.gain - 1 > _DIFFERENT + 3 * float(np.hypot(high.gain_error, low.gain_error))


def _together(findings: list[Finding], reason: str, saturation: float | None, source: Source) -> Calibration:
    """One calibration for all channels: the lower envelope of their noise and their lowest gain."""
    known = [found for found in findings if found.curve]
    refusals = [found.refusal for found in findings if found.refusal]
    if not known or (refusals and not reason):
        return _refused(findings[0], refusals[0], saturation)
    lowest = min(known, key=lambda found: found.gain)
    reasons = [text for text in (reason, *lowest.doubts) if text]
    if refusals:  # for example one channel without light
        reasons.append(f"one of them shows no noise that can be measured ({refusals[0]})")
    clips = source.dtype.kind == "u" or (source.dtype.kind == "f" and lowest.lowest == 0)
    exact = (0.0 if clips else None, saturation)
    groups = [
        group if found.lowest == exact[0] else replace(group, dark=0.0)  # a pedestal is rounded like any other count
        for found in known
        for group in found.groups
    ]
    zeros = sorted({found.zero for found in known})
    counts = np.concatenate([found.counts for found in known])
    envelope = lower_envelope(groups, counts, lowest.gain, zeros, exact) if groups else None
    if envelope is None:
        text = f"too few photons, or pixels that show noise alone, to bound it: {WAY_OUT}"
        return _refused(known[0], text, saturation)
    gain, zero, under_root = map(float, envelope)
    return Calibration(
        lowest.gain,
        lowest.zero,
        "bounded" if reasons else "measured",
        "; ".join(reasons),
        gain_error=lowest.gain_error if lowest.photons and not reason else np.nan,
        curve=lowest.curve,
        under_root=under_root,
        saturation=saturation,
        storage_gain=gain,
        storage_zero_level=zero,
        region_spread=max(found.region_spread for found in known),
        time_spread=max(found.time_spread for found in known),
        correlation=lowest.correlation,
    )


def _refused(found: Finding, reason: str, saturation: float | None) -> Calibration:
    """An "unknown" calibration that keeps what was measured, for users who can judge the reason."""
    if not found.gain > 0:
        return Calibration.unknown(reason, found.curve, saturation)
    return Calibration(
        found.gain, found.zero, "unknown", reason, curve=found.curve, saturation=saturation,
        correlation=found.correlation, region_spread=found.region_spread, time_spread=found.time_spread,
    )  # fmt: skip
