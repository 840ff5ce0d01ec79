"""The estimate and the doubts: a noise model is reported only where the movie bears it out (DESIGN invariant 3)."""

from __future__ import annotations

import numpy as np

from .._typing import FloatArray
from ..sources import Source, as_source
from .blocks import BLOCK, BlockStatistics, block_grid, block_statistics
from .fit import Line, Mask, Pool, curve_points, energy_ratios, fit_line, pool, still_blocks
from .model import Calibration
from .sampling import RUN, Sample, draw
from .sums import fit_sums

#: Largest standard error of the gain, relative, that counts as a measurement; and the one good enough not to look on.
_LARGEST_ERROR, _GOOD_ERROR = 0.06, 0.03
#: Largest deviation from white noise, in space and in time, and the largest bend of the photon transfer line.
_SPATIAL, _COARSE, _TEMPORAL, _BEND = 0.02, 0.10, 0.10, 0.3
#: Largest share of the variance that moving structure may add everywhere, as predicted.
_MOVING = 0.08
#: How far clipping at 0 may lift the zero level [photons]. Read noise of 0.2 photons lifts it by 0.07 to 0.09 and moves
#: the gain by up to 4 %; 0.5 photons by 0.11 to 0.15, and up to 13 %.
_LIFTED = 0.1
#: Variance below which rounding to whole counts shapes the noise [ADU^2], for gains below 1 and for any gain but 1.
_ROUNDED, _ROUNDED_ANY = 0.6, 0.25
#: Largest share of counts at 0 and of saturated counts at an intensity that still tells of its noise.
_DARK, _SATURATED = 0.01, 0.002
#: Errors in units of their standard error that count as significant.
_SIGNIFICANT = 4.0

_WAY_OUT = "give conversion_gain and zero_level if you know them"


def calibrate(movie: object) -> Calibration:
    """Measure the noise of a photon-counting movie from the movie itself (photon transfer).

    Reads at most 96 frames, spread over the movie, through :meth:`dj_photon_codecs.sources.Source.read`. The same movie
    always gives the same answer.

    Parameters
    ----------
    movie
        Raw counts [ADU], shape (time, ..., height, width), any integer or floating-point dtype; axes between time and
        height are independent planes. Anything :func:`dj_photon_codecs.sources.as_source` accepts.

    Returns
    -------
    Calibration
        With ``reliable`` False, and a reason, for whatever does not behave like photon counts.

    Raises
    ------
    MovieTypeError, InvalidMovieError
        For what is not a movie at all. Errors while reading are passed on.

    Notes
    -----
    Photon transfer: J. R. Janesick, Photon Transfer (SPIE Press, 2007), chapters 5 and 6: variance = gain * signal +
    read noise, here from differences of neighbouring frames, high-passed in space
    (see ``docs/explanation/calibration.md``).
    """
    source = as_source(movie)
    length, *_, height, width = source.shape
    if length < RUN:
        return Calibration.unknown(
            f"the movie has {length} frame{'s' if length > 1 else ''}, and noise is measured from differences of "
            f"frames, at least {RUN}: {_WAY_OUT}"
        )
    if min(block_grid(height, width)) < 2:
        return Calibration.unknown(
            f"frames of {height} x {width} pixels are too small, at least 12 x 12 are needed: {_WAY_OUT}; "
            f"the last two axes must be height and width"
        )
    sample = draw(source)
    doubt = _about_values(sample)
    if doubt:
        return Calibration.unknown(doubt)
    saturation = _saturation(sample, source)
    sites = [
        block_statistics(site, sample.lowest - sample.base, None if saturation is None else saturation - sample.base)
        for site in sample.sites
    ]
    repeated = sum(site.repeated for site in sites)
    frames = sum(site.shape[0] * (RUN - 1) for site in sample.sites)
    if repeated > 0.05 * frames:
        return Calibration.unknown(
            f"{repeated} of {frames} sampled frames repeat the frame before them, pixel by pixel: store each frame once"
        )
    return _measure(sample, sites)


def _about_values(sample: Sample) -> str:
    """What the values themselves say against being counts; empty if nothing does."""
    if not sample.finite:
        return "the movie holds NaN or infinity, which are not counts: replace them, or store another array"
    low, high = sample.lowest, sample.highest
    if low == high:
        return f"all sampled counts are {low:g}, a constant movie shows no noise: {_WAY_OUT}"
    if sample.fractional and low >= 0 and high <= 1:
        return f"the values lie between {low:.3g} and {high:.3g}, scaled to 0..1: calibrate the raw counts"
    if sample.fractional and low < 0 and 0.5 < sample.deviation < 2 and abs(sample.mean) < 0.3 * sample.deviation:
        return (
            f"the values have mean {sample.mean:.2g} and standard deviation {sample.deviation:.3g}, normalised "
            f"(z-scored): calibrate the raw counts"
        )
    if low >= 0 and high > 4:
        few = np.concatenate([site[:, 0, ::4, ::4].ravel() for site in sample.sites])
        values = few.astype(np.float64) + sample.base
        roots = np.sqrt(np.maximum(values, 0))
        if not sample.fractional and high < 2**24 and len(np.unique(values)) > 3 and np.all(roots == np.rint(roots)):
            return "all counts are squares of whole numbers, which have no photon noise: calibrate the raw counts"
    return ""


def _saturation(sample: Sample, source: Source) -> float | None:
    """The count at which the sensor saturates [ADU], if the movie shows one.

    That is the top of an integer dtype, or a highest count hit as often as a third of the counts in the
    tenth of the range below it.
    """
    if source.dtype.kind in "iu" and sample.highest >= np.iinfo(source.dtype).max:
        return sample.highest
    near = sample.highest - 0.1 * (sample.highest - sample.mean)
    values = np.concatenate([site[:, 0].ravel() for site in sample.sites])
    values = values[values >= near - sample.base]
    top = int((values >= sample.highest - sample.base).sum())
    if top >= 20 and top > 0.3 * len(values) and len(np.unique(values)) >= 8:
        return sample.highest
    return None


def _measure(sample: Sample, sites: list[BlockStatistics]) -> Calibration:
    """Fit the line, then go through the doubts in the order in which they explain one another."""
    blocks = pool(sites, same_run=False)
    keep, line, contamination = _still(blocks, sites)
    if line is None or not 0 < line.gain_error < _GOOD_ERROR / 2 * line.gain:
        with_neighbours = pool(sites, same_run=True)
        other_keep, other, other_contamination = _still(with_neighbours, sites)
        if other is not None and (
            line is None or other.gain_error * abs(line.gain) < line.gain_error * abs(other.gain)
        ):
            blocks, keep, line, contamination = with_neighbours, other_keep, other, other_contamination
    clipped = _hit(blocks.dark, blocks, keep, _DARK) if sample.lowest == 0 else np.zeros_like(keep)
    if clipped.any() and line is not None:
        bright = fit_line(blocks, keep & ~clipped)
        if bright is not None and bright.gain_error < _LARGEST_ERROR / 2 * bright.gain:
            keep, line, clipped = keep & ~clipped, bright, np.zeros_like(clipped)
    if line is None:
        return Calibration.unknown(
            f"only {int(keep.sum())} blocks of 4 x 4 pixels show noise alone, too few: {_WAY_OUT}"
        )
    curve = curve_points(line, sample.base)
    gain, zero, gain_error, zero_error = line.gain, line.zero, line.gain_error, line.zero_error
    doubt = ""
    if not (gain > 0 and gain_error < _GOOD_ERROR * gain):
        sums = fit_sums(sample.sites)
        pure = abs(sums.purity - 1) < 0.15 and sums.purity_error < 0.08
        agree = abs(sums.gain - gain) < _SIGNIFICANT * float(np.hypot(gain_error, sums.gain_error))
        if pure and agree and 0 < sums.gain_error < _LARGEST_ERROR * sums.gain:
            gain, zero, gain_error, zero_error = sums.gain, sums.zero, sums.gain_error, sums.zero_error
        else:
            doubt = _about_slope(line, blocks, keep)
    binary = _two_levels(sample, gain, gain_error) if gain > 0 and not doubt else None
    if binary is not None:
        gain, zero = binary
    noise, signal = float(blocks.variance[2][keep].mean()), float(blocks.mean[keep].mean()) - zero
    photons = max(signal, 0.0) / gain * int(keep.sum()) * BLOCK**2 * RUN if gain > 0 else 0.0
    gain_error = max(gain_error, 2 * gain / np.sqrt(max(photons, 1.0)))
    if not doubt and gain_error > _LARGEST_ERROR * gain:
        doubt = (
            f"the sampled frames hold only about {photons:.0f} photons, too few to measure their noise: "
            f"more frames or larger ones help, or {_WAY_OUT}"
        )
    doubt = doubt or _about_whiteness(blocks, keep)
    doubt = doubt or _about_shape(line, contamination)
    if (
        not doubt
        and clipped.mean() > 0.5 * keep.mean()
        and zero + sample.base - sample.lowest > max(_LIFTED * gain, 3 * zero_error)
    ):
        doubt = (
            f"the counts are clipped at {sample.lowest:g}, where much of the read noise is lost, or transformed: "
            f"record with a pedestal, or {_WAY_OUT}"
        )
    apart = 0.05 + 3 * gain_error
    coarse = (noise < _ROUNDED and gain < 1 - apart) or (noise < _ROUNDED_ANY and abs(gain - 1) > apart)
    if not doubt and not sample.fractional and coarse:
        doubt = (
            f"the noise, {np.sqrt(noise):.2g} ADU, is smaller than what rounding to whole counts hides: raise "
            f"the sensor's gain, or {_WAY_OUT}"
        )
    if not gain > 0:
        return Calibration.unknown(doubt, curve)
    return Calibration(
        float(gain),
        float(zero + sample.base),
        reliable=not doubt,
        reason=doubt,
        gain_error=float(gain_error / gain),
        curve=curve,
    )


def _still(blocks: Pool, sites: list[BlockStatistics]) -> tuple[Mask, Line | None, float]:
    """:func:`still_blocks` among those that do not saturate, as judged by their predicted intensity."""
    return still_blocks(blocks, sites, blocks.usable & ~_hit(blocks.saturated, blocks, blocks.usable, _SATURATED))


def _hit(share: FloatArray, blocks: Pool, keep: Mask, limit: float) -> Mask:
    """Blocks of a predicted intensity at which more than a share ``limit`` of the counts are marked.

    The predicted intensity decides, not the block's own counts, so that the choice does not favour some noise.
    """
    if not share.any() or not keep.any():
        return np.zeros_like(keep)
    edges = np.quantile(blocks.predicted[keep], np.linspace(0, 1, 65)[1:-1])
    index = np.searchsorted(edges, blocks.predicted)
    count = np.bincount(index[keep], minlength=64)
    return np.asarray((np.bincount(index[keep], share[keep], 64) / np.maximum(count, 1) > limit)[index])


def _two_levels(sample: Sample, gain: float, gain_error: float) -> tuple[float, float] | None:
    """Gain and zero (less ``base``) where a pixel holds one photon or none, so that no brighter count was ever seen.

    Such counts have variance p (1 - p) and mean p: the slope 1 - 2 p tends to 1 photon, the distance of the two levels.
    """
    distance = sample.highest - sample.lowest
    share = (sample.mean - sample.lowest) / distance
    dark = np.float32(sample.lowest - sample.base)
    bright = np.float32(sample.highest - sample.base)
    if (
        sample.fractional
        or share > 0.25
        or any(((run > dark) & (run < bright)).any() for x in sample.sites for run in x)
    ):
        return None
    if abs(gain - distance * (1 - 2 * share)) > _SIGNIFICANT * gain_error + 0.03 * distance:
        return None
    return distance, sample.lowest - sample.base


def _about_slope(line: Line, blocks: Pool, keep: Mask) -> str:
    """Why the line has no usable slope; empty if it has one after all."""
    if line.gain > 0 and line.gain_error < _LARGEST_ERROR * line.gain:
        return ""
    if line.gain < -_SIGNIFICANT * line.gain_error:
        return (
            f"the variance falls with the mean (slope {line.gain:.3g} ADU), photon noise grows with it: "
            f"calibrate the raw counts"
        )
    typical = float(blocks.variance[2][keep].mean())
    if line.gain > _SIGNIFICANT * line.gain_error:
        return (
            f"the gain is only known to {100 * line.gain_error / line.gain:.0f} % ({line.gain:.3g} ADU per photon), "
            f"too few photons or too little contrast; more frames or larger ones help, or {_WAY_OUT}"
        )
    return (
        f"the variance, {typical:.3g} ADU^2, does not grow with the mean (slope {line.gain:.2g} +- "
        f"{line.gain_error:.2g} ADU): no photon noise, too few photons, or a scene without contrast; "
        f"calibrate the raw counts, or {_WAY_OUT}"
    )


def _about_whiteness(blocks: Pool, keep: Mask) -> str:
    """Whether the noise is the same at all spatial frequencies and from frame to frame; empty if it is."""
    ratios = energy_ratios(blocks, keep)
    margin = 1 / np.sqrt(max(float(keep.sum()), 1.0))
    fine, coarse, lag = ratios["order 4"] - 1, ratios["order 1"] - 1, ratios["lag 2"] - 1
    if abs(fine) > _SPATIAL + margin or abs(coarse) > _COARSE + margin:
        return (
            f"the noise is not independent from pixel to pixel ({100 * coarse:+.0f} % at coarse, {100 * fine:+.0f} % "
            f"at fine scale): the movie was interpolated, smoothed or compressed, or sharp structure moves; "
            f"calibrate the movie before processing"
        )
    if abs(lag) > _TEMPORAL + margin:
        return (
            f"frames two apart differ by {100 * lag:+.0f} % more than neighbours: the movie was averaged over time or "
            f"upsampled, or sharp structure moves; calibrate the movie before processing"
        )
    return ""


def _about_shape(line: Line, contamination: float) -> str:
    """Whether variance against mean is a straight line, and moving structure no part of it; empty if so."""
    if abs(line.bend) > _BEND and abs(line.bend) > _SIGNIFICANT * line.bend_error:
        return (
            f"variance against mean is no straight line, its slope changes by {100 * line.bend:+.0f} % over the "
            f"field of view: the values were squared, compressed or otherwise transformed, or sharp structure moves; "
            f"calibrate the raw counts"
        )
    if contamination > _MOVING:
        return (
            f"sharp structure that moves adds {100 * contamination:.0f} % or more to the noise everywhere in the "
            f"field of view: {_WAY_OUT}"
        )
    return ""
