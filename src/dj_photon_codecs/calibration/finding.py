"""Measure one channel: its photon transfer line, the doubts about that line, and the noise of its parts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .._typing import FloatArray
from .block_noise import BLOCK, BlockStatistics
from .envelope import JUDGED, Group, thinned
from .evenness import REGION_RATIO, REGION_SPREAD, TIME_SPREAD, correlation, ratios, region_spread, time_spread
from .fit import DARK, Line, Mask, Pool, by_brightness, fit_line, fit_sums, marked, pool, still_blocks, unsaturated
from .model import CurvePoint
from .sampling import RUN, Sample
from .special_counts import WAY_OUT, stretched, unit_of

#: Largest relative standard error of the gain: for a measurement, to skip other estimates, and for a noise bound.
_LARGEST_ERROR, _GOOD_ERROR, _BOUNDING_ERROR = 0.06, 0.03, 0.3
#: Largest deviation from white noise (fine and coarse scale, time), and largest bend of the photon transfer line.
_SPATIAL, _COARSE, _TEMPORAL, _BEND = 0.02, 0.10, 0.10, 0.2
#: Noise correlated only along lines: filter orders 2 and 4 down columns agree to this; variance ratio along/down below.
_DOWN, _ALONG = 0.03, 0.97
#: Largest predicted share of variance from moving structure, everywhere: for a measured gain, and for a bound.
_MOVING, _MOVING_BOUND = 0.08, 0.5
#: Variance below which rounding distorts the noise [squared steps of the counts]: gain below one step; gain not one.
_ROUNDED, _ROUNDED_ANY = 0.6, 0.25
_SIGNIFICANT = 4.0  # deviations of this many standard errors are significant
#: Third moment of the noise relative to photon counts. Lower: the values were transformed. Higher, with a line that
#: bends up: structure blinks. Photomultipliers have 1.5.
_SKEWED, _SPIKY = 0.7, 3.0
_OFFSETS = 0.03  # relative steepening of the line without single-pixel offsets, from which the offsets matter
_AGREES = 0.08  # relative tolerance for the gains with and without the expected zero level
_FEWEST = 60  # minimum number of blocks in a brightness range, region or run
_ALL = ("raw", "fine 1", "fine 2", "fine 4", "down 2", "down 4")


@dataclass
class Finding:
    """The photon transfer line of one channel, and how far it can be trusted."""

    gain: float = np.nan  # [ADU per photon]
    zero: float = np.nan  # [ADU]
    gain_error: float = np.nan  # standard error of the gain, relative
    curve: tuple[CurvePoint, ...] = ()  # empty if no line fits
    lowest: float = np.nan  # the lowest sampled count [ADU]
    refusal: str = ""  # why not even a lower bound is known
    doubts: list[str] = field(default_factory=list)  # why the gain may not count photons
    photons: bool = True  # whether the gain counts photons, within its error
    groups: list[Group] = field(default_factory=list)  # the noise of the parts of the movie
    counts: FloatArray = field(default_factory=lambda: np.empty(0))  # a sample of the counts [ADU]
    correlation: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    region_spread: float = np.nan
    time_spread: float = np.nan

    def doubt(self, text: str) -> None:
        """Note a reason why the gain may not count photons."""
        self.photons = False
        self.doubts.append(text)


def measure(sample: Sample, sites: list[BlockStatistics]) -> Finding:
    """Fit the line and check the doubts, causes before consequences."""
    repeated, frames = sum(site.repeated for site in sites), sum(len(site) * (RUN - 1) for site in sample.sites)
    if repeated > 0.05 * frames:
        return Finding(
            refusal=f"{repeated} of {frames} sampled frames repeat the frame before them, pixel by pixel: "
            "store each frame once"
        )
    blocks = pool(sites, sample.sites, same_run=False)
    keep, line, contamination = still_blocks(blocks, sites)
    if line is None or not 0 < line.gain_error < _GOOD_ERROR / 2 * line.gain:
        wider = pool(sites, sample.sites, same_run=True)
        wider_keep, other, wider_contamination = still_blocks(wider, sites)
        if other and (line is None or other.gain_error * abs(line.gain) < line.gain_error * abs(other.gain)):
            blocks, keep, line, contamination = wider, wider_keep, other, wider_contamination
    if line is None:
        return Finding(refusal=f"only {int(keep.sum())} blocks of 4 x 4 pixels show noise alone, too few: {WAY_OUT}")
    ratio, margin = ratios(blocks, keep), 1 / np.sqrt(max(float(keep.sum()), 1.0))
    lines_only = _along_lines(ratio, margin)
    order = "down 2" if lines_only else "fine 2"
    if lines_only:
        line = fit_line(blocks, keep, order) or line
    fitted, line, clipped = _unclipped(sample, blocks, keep, line, order)
    if fitted is keep and not lines_only:
        blocks, line = _without_offsets(blocks, keep, line, order)
    error = line.gain_error / abs(line.gain or 1e-30)
    found = Finding(line.gain, line.zero, error, line.points(sample.base), sample.lowest)
    found.correlation = correlation(ratio)
    _slope(found, sample, blocks, fitted, line)
    if found.gain > 0 and not found.refusal:
        _shape_doubts(found, sample, blocks, fitted, line)
        _evenness_doubts(found, blocks, sites, fitted, line, order)
        _whiteness_doubts(found, ratio, margin, lines_only)
        _contaminated(found, contamination)
        # If one step is one photon, 0 is the true dark count. Otherwise the counts are clipped at an unknown level.
        singles = abs(found.gain / (unit_of(sample) or np.inf) - 1) < _AGREES
        if clipped and not singles:
            found.doubt(
                f"the counts are clipped at {sample.lowest:g}, where much of the read noise is lost, or transformed: "
                f"record with a pedestal, or {WAY_OUT}"
            )
        names = ("down 2", "down 4") if lines_only else _ALL
        found.counts = thinned(blocks.pixel, JUDGED) + sample.base
        found.groups = _groups(sample, blocks, keep, names, 1 + contamination)
    found.zero += sample.base
    return found


def _along_lines(ratio: dict[str, float], margin: float) -> bool:
    """Whether noise correlates only along lines: white down the columns, weaker at high frequencies along lines.

    Noise shared by whole lines also looks weaker along them, but is white.
    """
    down, along = ratio["down 2"], ratio["along 2"] / ratio["down 2"]
    if abs(ratio["down 4"] / down - 1) >= _DOWN + margin or along >= _ALONG - margin:
        return False
    neighbours = 0.75 * (1 - along)
    expected = (1 - neighbours) / (1 - 1.6 * neighbours) - 1
    return ratio["fine 1"] / ratio["fine 4"] - 1 > max(0.5 * expected, margin)


def _unclipped(sample: Sample, blocks: Pool, keep: Mask, line: Line, order: str) -> tuple[Mask, Line, bool]:
    """Return the blocks not clipped at 0, their line, and whether clipping matters to it.

    It does if most blocks are clipped, or if the line needs a prior: dark pixels sit at the count where the converter
    clips, so the zero level is expected there.
    """
    if sample.lowest != 0:
        return keep, line, False
    allowed = unsaturated(blocks)
    clipped = marked(blocks.dark, blocks, allowed, DARK)
    if not clipped[keep].any():
        return keep, line, False
    # Noise measured across lines makes no claim about photons, so use as many blocks as possible.
    for chosen in (keep,) if order == "fine 2" else (allowed, keep):
        bright = fit_line(blocks, chosen & ~clipped, order, dark=-sample.base)
        if bright is not None and 0 < bright.gain_error < _LARGEST_ERROR * bright.gain:
            alone = fit_line(blocks, chosen & ~clipped, order)
            agrees = alone is not None and abs(alone.gain / bright.gain - 1) < _AGREES
            return chosen & ~clipped, bright, not agrees
    return keep, line, bool((clipped & keep).sum() > 0.5 * keep.sum())


def _without_offsets(blocks: Pool, keep: Mask, line: Line, order: str) -> tuple[Pool, Line]:
    """Bin by the brightness around each block if that steepens the line: single-pixel offsets are not light."""
    smoothed = replace(blocks, predicted=blocks.around)
    smooth = fit_line(smoothed, keep, order)
    if smooth is None or not 0 < smooth.gain_error < _BOUNDING_ERROR * smooth.gain or not line.gain > 0:
        return blocks, line
    error = float(np.hypot(smooth.gain_error, line.gain_error))
    steeper = smooth.gain - line.gain > max(_OFFSETS * line.gain, 2 * error)
    return (smoothed, smooth) if steeper else (blocks, line)


def _slope(found: Finding, sample: Sample, blocks: Pool, keep: Mask, line: Line) -> None:
    """Set the gain, zero level and error: from the line, from frame sums, or from the step of the counts."""
    gain, zero, gain_error = line.gain, line.zero, line.gain_error
    unit = unit_of(sample)
    noise, level = float(blocks.variance["fine 2"][keep].mean()), float(blocks.mean[keep].mean())
    if not (gain > 0 and gain_error < _GOOD_ERROR * gain):
        sums = fit_sums(sample.sites)
        pure = abs(sums.purity - 1) < 0.15 and sums.purity_error < 0.08
        agree = abs(sums.gain - gain) < _SIGNIFICANT * float(np.hypot(gain_error, sums.gain_error))
        # If one step is one photon, counted from zero, variance over mean equals the step.
        dispersion = noise / max(level + sample.base, 1e-30)
        steps = unit > 0 and abs(dispersion / unit - 1) < 4 * float(np.sqrt(0.3 / max(keep.sum(), 1)))
        if steps and agree:
            gain, zero, gain_error = unit, -sample.base, 0.01 * unit
        elif pure and agree and 0 < sums.gain_error < _LARGEST_ERROR * sums.gain:
            gain, zero, gain_error = sums.gain, sums.zero, sums.gain_error
        else:
            _about_slope(found, line, noise)
    if gain > 0 and not found.refusal and not found.doubts and _two_levels(sample, gain, gain_error):
        gain, zero = sample.highest - sample.lowest, sample.lowest - sample.base
    photons = max(level - zero, 0.0) / gain * int(keep.sum()) * BLOCK**2 * RUN if gain > 0 else 0.0
    gain_error = max(gain_error, 2 * gain / np.sqrt(max(photons, 1.0)))
    found.gain, found.zero, found.gain_error = float(gain), float(zero), float(gain_error / abs(gain or 1e-30))
    if not found.refusal and not found.doubts and found.gain_error > _LARGEST_ERROR:
        text = (
            f"the sampled frames hold only about {photons:.0f} photons, too few to measure their noise: "
            f"more frames or larger ones help, or {WAY_OUT}"
        )
        if found.gain_error > _BOUNDING_ERROR:
            found.refusal = text
        else:
            found.doubts.append(text)
    apart = 0.05 + 3 * found.gain_error
    fine, relative = noise / max(unit * unit, 1e-30), gain / max(unit, 1e-30)
    if unit and ((fine < _ROUNDED and relative < 1 - apart) or (fine < _ROUNDED_ANY and abs(relative - 1) > apart)):
        found.refusal = found.refusal or (
            f"the noise, {np.sqrt(noise):.2g} ADU, is smaller than what rounding to whole counts hides: raise "
            f"the sensor's gain, or {WAY_OUT}"
        )


def _about_slope(found: Finding, line: Line, noise: float) -> None:
    """Report a slope that is negative, zero or poorly known."""
    if line.gain > 0 and line.gain_error < _LARGEST_ERROR * line.gain:
        return
    if line.gain < -_SIGNIFICANT * line.gain_error:
        found.refusal = (
            f"the variance falls with the mean (slope {line.gain:.3g} ADU), photon noise grows with it: "
            f"calibrate the raw counts"
        )
    elif line.gain > _SIGNIFICANT * line.gain_error:
        found.doubts.append(
            f"the gain is only known to {100 * line.gain_error / line.gain:.0f} % ({line.gain:.3g} ADU per photon), "
            f"too few photons or too little contrast; more frames or larger ones help, or {WAY_OUT}"
        )
    else:
        found.refusal = (
            f"the variance, {noise:.3g} ADU^2, does not grow with the mean "
            f"(slope {line.gain:.2g} +- {line.gain_error:.2g} ADU): no photon noise, too few photons, or a scene "
            f"without contrast; calibrate the raw counts, or {WAY_OUT}"
        )


def _two_levels(sample: Sample, gain: float, gain_error: float) -> bool:
    """Whether every pixel holds one photon or none, so that only two count levels occur.

    These counts have mean p and variance p (1 - p), so the slope is 1 - 2 p times the distance between the levels.
    """
    distance = sample.highest - sample.lowest
    share = (sample.mean - sample.lowest) / distance
    dark, bright = np.float32(sample.lowest - sample.base), np.float32(sample.highest - sample.base)
    if sample.fractional or share > 0.25:
        return False
    if any(((run > dark) & (run < bright)).any() for site in sample.sites for run in site):
        return False
    return not abs(gain - distance * (1 - 2 * share)) > _SIGNIFICANT * gain_error + 0.03 * distance


def _shape_doubts(found: Finding, sample: Sample, blocks: Pool, keep: Mask, line: Line) -> None:
    """Check that variance against mean is a straight line, with the skewness of photon counts."""
    two_levels = found.gain == sample.highest - sample.lowest  # the variance is m (1 - m), a curve
    if abs(line.bend) > _BEND and abs(line.bend) > _SIGNIFICANT * line.bend_error and not two_levels:
        found.doubt(
            f"variance against mean is not a straight line, its slope changes by {100 * line.bend:+.0f} % over the "
            f"field of view: the values were squared, compressed or otherwise transformed, or sharp structure moves; "
            f"calibrate the raw counts"
        )
    # The tails dominate the third moment, so measure it only where they are not cut off.
    reach = blocks.predicted + 4 * np.sqrt(line.at(blocks.predicted)) < sample.highest - sample.base
    third = fit_line(blocks, keep & reach, "third")
    if third is not None and line.gain > 0:
        skew = third.gain / line.gain**2
        error = float(np.hypot(third.gain_error / line.gain**2, 2 * abs(skew) * line.gain_error / line.gain))
        if skew + 3 * error < _SKEWED:
            found.doubt(
                f"the noise is skewed by {skew:.2f} +- {error:.2f} of what photon counts are: the values were bent "
                f"(gamma, logarithm), averaged or smoothed; calibrate the raw counts"
            )
        if skew - 3 * error > _SPIKY and line.bend > _BEND / 2:
            found.doubt(
                f"changes are {skew:.0f} times as skewed as photon counts, and grow with brightness: sparse structure "
                f"that moves or blinks adds to the noise; {WAY_OUT}"
            )
    if stretched(sample):
        found.doubt(
            f"every frame reaches from {sample.lowest:g} to {sample.highest:g}: each was stretched to that range by "
            f"itself; calibrate the raw counts"
        )


def _evenness_doubts(
    found: Finding, blocks: Pool, sites: list[BlockStatistics], keep: Mask, line: Line, order: str
) -> None:
    """Check that the noise at equal brightness is the same everywhere and at all times."""
    found.time_spread = time_spread(blocks, keep, line, order)
    if found.time_spread > TIME_SPREAD:
        found.doubt(
            f"the noise at equal brightness changes by {100 * found.time_spread:.0f} % (rms) over time, as with the "
            f"detector's voltage, and its lower envelope is used: store the frames of each setting separately"
        )
    fine = "down 4" if order == "down 2" else "fine 4"
    found.region_spread, contrast = region_spread(blocks, sites, unsaturated(blocks), line, fine)
    if found.region_spread > REGION_SPREAD and contrast > REGION_RATIO:
        found.doubt(
            f"the noise at equal brightness differs over the field of view by a factor of {contrast:.1f}, as with two "
            f"detectors, or where sharp structure moves, and its lower envelope is used: store such fields separately"
        )


def _whiteness_doubts(found: Finding, ratio: dict[str, float], margin: float, lines_only: bool) -> None:
    """Check that the noise is independent from pixel to pixel and from frame to frame."""
    fine, coarse = ratio["fine 4"] - 1, ratio["fine 1"] - 1
    if lines_only:
        found.doubt(
            f"the noise is not independent from pixel to pixel along the scan lines (correlation "
            f"{found.correlation[0]:.2f}), as an amplifier of limited bandwidth makes it: it was measured across "
            f"lines, and photons per pixel are uncertain"
        )
    elif not (abs(fine) <= _SPATIAL + margin and abs(coarse) <= _COARSE + margin):
        found.doubt(
            f"the noise is not independent from pixel to pixel ({100 * coarse:+.0f} % at coarse, {100 * fine:+.0f} % "
            f"at fine scale): the movie was interpolated, smoothed or compressed, or sharp structure moves; calibrate "
            f"the movie before processing"
        )
    elif abs(ratio["lag 2"] - 1) > _TEMPORAL + margin:
        found.doubt(
            f"frames two apart differ by {100 * (ratio['lag 2'] - 1):+.0f} % more than neighbours: the movie was "
            f"averaged over time or upsampled, or sharp structure moves; calibrate the movie before processing"
        )


def _contaminated(found: Finding, contamination: float) -> None:
    """Doubt or refuse the line if moving structure adds too much variance even to the best blocks."""
    if contamination > _MOVING:
        found.doubt(
            f"sharp structure that moves adds {100 * contamination:.0f} % or more to the noise everywhere in the "
            f"field of view: {WAY_OUT}"
        )
    if contamination > _MOVING_BOUND:
        found.refusal = found.doubts.pop()


def _groups(sample: Sample, blocks: Pool, keep: Mask, names: tuple[str, ...], excess: float) -> list[Group]:
    """Noise by brightness range, region and run: the lowest over the filters, divided by ``excess``."""
    kept = np.flatnonzero(keep)
    groups = []
    for part in (by_brightness(blocks.predicted[kept]), blocks.region[kept], blocks.run[kept]):
        for number in range(int(part.max()) + 1):
            here = kept[part == number]
            if len(here) < _FEWEST:
                continue
            variances = [blocks.variance[name][here] for name in names]
            least = min(variances, key=lambda each: float(each.mean()))
            variance, scatter = float(least.mean()), float(least.std()) / np.sqrt(len(here))
            groups.append(
                Group(
                    float(blocks.mean[here].mean()) + sample.base,
                    variance / excess,
                    1.2 * scatter / max(variance, 1e-30),
                    float(blocks.dark[here].mean()),
                    thinned(blocks.pixel[here]) + sample.base,
                )
            )
    return groups
