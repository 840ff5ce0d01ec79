"""From a raw and a stored movie to a fidelity report, in two passes over blocks of frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..calibration import Calibration
from ..errors import InvalidMovieError
from .blocks import NoiseModel, Pair, blocks
from .limit import EntropySample
from .report import ERROR_CELL, ERROR_CELLS, FidelityReport, IntensityBin
from .residual import ResidualSums

#: Edges of the bins of intensity [photons]: everything below the first, then two to an octave.
_EDGES = np.concatenate([[0.0], 2.0 ** (np.arange(-12, 49) / 2), [np.inf]])

#: What is summed in each bin besides the number of pixels.
_SUMS = ("photons", "error", "square", "cross", "change_square")


def fidelity_report(
    counts: Any,
    handle: Any,
    *,
    calibration: Calibration | None = None,
    step: float | None = None,
    means: Any = None,
) -> FidelityReport:
    """Compare a stored movie with the raw counts, at every intensity.

    Two passes over both movies, in blocks of frames: memory does not grow with their length.

    Parameters
    ----------
    counts
        The raw movie, (time, ..., height, width): a numpy array or anything that
        :func:`~dj_photon_codecs.write_movie` takes.
    handle
        What is stored of it: a :class:`~dj_photon_codecs.PhotonArray`, or any array of counts.
    calibration
        The noise model; that of the handle when None.
    step
        Quantisation in noise standard deviations; that of the handle when None, and 0 for an array.
    means
        Expected counts [ADU], where they are known: one image, or an array of the shape of the movie. When None, each
        pixel's mean over time stands for them: right where the scene is at rest, while activity and motion blur the
        intensities a little and make the entropy limit an estimate.

    Returns
    -------
    FidelityReport
        See there.

    Raises
    ------
    InvalidMovieError
        When shapes differ, or there are fewer than two frames and no means.
    CalibrationError
        When no noise model is known.
    """
    pair = Pair.of(counts, handle, calibration, step)
    expected = _expected(pair, means)
    sums = _BinSums(pair.noise, pair.step)
    residual = ResidualSums(pair.raw.shape)
    sample = EntropySample(pair.raw.shape[0], math.prod(pair.raw.shape[1:]))
    for start, raw, stored in pair:
        stop = start + len(raw)
        given = expected[start:stop] if len(expected.shape) == len(pair.raw.shape) else expected
        mean = np.broadcast_to(np.asarray(given, np.float64), raw.shape)
        sums.add(raw, stored, mean)
        residual.add(start, (stored - raw) / pair.noise.codec_sigma(mean), raw)
        sample.add(start, mean, raw, pair.levels(raw, stored))
    lossless_bits, bits = sample.bits()
    pixels = math.prod(pair.raw.shape)
    size = pair.stored_bytes
    # A mean over the same frames makes every deviation from it smaller by 1 / frames.
    freedom = 1.0 if means is not None else pair.raw.shape[0] / (pair.raw.shape[0] - 1)
    return FidelityReport(
        shape=pair.raw.shape,
        dtype=pair.raw.dtype.name,
        step=pair.step,
        conversion_gain=pair.noise.conversion_gain,
        zero_level=pair.noise.zero_level,
        means_given=means is not None,
        bins=sums.bins(freedom),
        largest_error=float(sums.largest.max()),
        within_bound=sums.within_bound,
        autocorrelation=residual.lags(),
        image=residual.image(),
        ratio=None if size is None else pixels * pair.raw.dtype.itemsize / max(1, size),
        bits_per_pixel=None if size is None else 8 * size / pixels,
        limit_bits=bits,
        lossless_limit_bits=lossless_bits,
    )


def _expected(pair: Pair, means: Any) -> Any:
    """Expected counts: an image, or an array of the movie's shape that is read in blocks."""
    shape = pair.raw.shape
    if means is not None:
        found = tuple(means.shape) if hasattr(means, "shape") else np.shape(means)  # without reading it
        if found not in (shape, shape[1:]):
            raise InvalidMovieError(f"means have shape {found}, must be {shape[1:]} or {shape}, as the movie has it")
        return means if found == shape else np.asarray(means)
    if shape[0] < 2:
        raise InvalidMovieError("a single frame has no mean over time: pass means, the expected counts")
    total = np.zeros(shape[1:])
    for _, block in blocks(pair.raw):
        total += block.sum(axis=0, dtype=np.float64)
    return total / shape[0]


class _BinSums:
    """Sums over the pixels of each bin of intensity."""

    def __init__(self, noise: NoiseModel, step: float) -> None:
        bins = len(_EDGES) - 1
        self._noise, self._step = noise, step
        self._pixels = np.zeros(bins, np.int64)
        self._sums = dict.fromkeys(_SUMS, np.zeros(bins))
        self._histogram = np.zeros((bins, ERROR_CELLS), np.int64)
        self.largest = np.zeros(bins)
        self.within_bound = True

    def add(self, raw: FloatArray, stored: FloatArray, mean: FloatArray) -> None:
        """Take a block of both movies and their expected counts."""
        photons = self._noise.photons(mean).ravel()
        where = np.searchsorted(_EDGES, photons, side="right") - 1
        error = (stored - raw).ravel()
        # (stored - mean)^2 - (raw - mean)^2 is what is added to the variance, up to the square of the bias.
        cross = 2 * error * (raw - mean).ravel()
        change = cross + error * error
        bins = len(_EDGES) - 1
        pixels = np.bincount(where, minlength=bins)
        self._pixels += pixels
        values = (photons, error, error * error, cross, change * change)
        for name, value in zip(_SUMS, values, strict=True):
            self._sums[name] = self._sums[name] + np.bincount(where, value, minlength=bins)
        sigma = self._noise.codec_sigma(np.maximum(raw, stored)).ravel()
        relative = error / sigma
        self._count_errors(where, relative, np.flatnonzero(pixels))
        excess = np.abs(error) - (self._step / 2 * sigma + 0.5 * (self._step > 0))
        self.within_bound &= bool(excess.max() <= 1e-9 * np.abs(stored).max() + 1e-12)

    def _count_errors(self, where: AnyArray, relative: FloatArray, present: AnyArray) -> None:
        """The histogram and the largest error of each bin there is, from errors in units of the codec's noise."""
        cell = np.floor(relative / (self._step or 1.0) / ERROR_CELL + ERROR_CELLS / 2)
        key = where * ERROR_CELLS + np.clip(cell, 0, ERROR_CELLS - 1).astype(np.int64)
        self._histogram += np.bincount(key, minlength=self._histogram.size).reshape(self._histogram.shape)
        magnitude = np.abs(relative)
        for index in present:
            self.largest[index] = max(self.largest[index], float(magnitude[where == index].max()))

    def bins(self, freedom: float) -> tuple[IntensityBin, ...]:
        """The bins that have pixels."""
        return tuple(self._bin(int(index), freedom) for index in np.flatnonzero(self._pixels))

    def _bin(self, index: int, freedom: float) -> IntensityBin:
        pixels = int(self._pixels[index])
        photons, error, square, cross, change_square = (float(self._sums[name][index]) / pixels for name in _SUMS)
        variance = self._noise.conversion_gain**2 * photons
        known = variance > 0
        sigma = math.sqrt(variance)
        change = square + freedom * cross
        error_spread = math.sqrt(max(square - error * error, 0.0) / pixels)
        change_spread = math.sqrt(max(change_square - change * change, 0.0) / pixels)
        return IntensityBin(
            low=float(_EDGES[index]),
            high=float(min(_EDGES[index + 1], 2.0**64)),
            photons=photons,
            pixels=pixels,
            bias=error / sigma if known else None,
            bias_error=error_spread / sigma if known else None,
            inflation=(change - error * error) / variance if known else None,
            inflation_error=change_spread / variance if known else None,
            mean_square=square / variance if known else None,
            largest_error=float(self.largest[index]),
            histogram=tuple(self._histogram[index].tolist()),
        )
