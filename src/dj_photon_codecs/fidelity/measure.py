"""Measure a fidelity report from a raw and a stored movie, in two passes over blocks of frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._typing import AnyArray, FloatArray
from ..calibration import Calibration
from ..errors import InvalidMovieError
from .blocks import Pair, blocks, keeps_bound, opened
from .report import ERROR_CELL, ERROR_CELLS, FidelityReport, IntensityBin
from .residual import ResidualSums

#: Edges of the intensity bins [photons]: one bin for the darkest pixels, then two bins per octave.
_EDGES = np.concatenate([[0.0], 2.0 ** (np.arange(-12, 49) / 2), [np.inf]])
_BINS = len(_EDGES) - 1
#: Minimum number of differences to measure the noise of a bin; this gives its variance to 9 %.
_DIFFERENCES = 256
_CLASSES = 200  # number of classes of nearly equal mean for the entropy
#: Maximum number of pixels used, and of frames they come from, spread over the movie.
_PIXELS, _FRAMES = 1 << 21, 64


def fidelity_report(
    counts: Any, handle: Any, *, calibration: Calibration | None = None, step: float | None = None, means: Any = None
) -> FidelityReport:
    """Compare a stored movie with the raw counts, at every intensity, in blocks of frames.

    Parameters
    ----------
    counts
        Raw movie, (time, ..., height, width): a numpy array or anything that :func:`~dj_photon_codecs.write_movie`
        accepts.
    handle
        Stored movie: a :class:`~dj_photon_codecs.PhotonArray`, its path, or any array of counts.
    calibration
        Noise model; by default that of the handle.
    step
        Quantisation in noise standard deviations; by default that of the handle, or 0 for an array.
    means
        Expected counts [ADU], if known: one image, or an array of the movie's shape. By default, each pixel's mean over
        time, which is right for a scene at rest. Activity and motion then blur the intensities slightly, and make the
        entropy limit an estimate.

    Raises
    ------
    InvalidMovieError
        If the shapes differ, or if there are fewer than two frames and no means.
    CalibrationError
        If no noise model is known.
    """
    with opened(counts) as raw_movie, opened(handle) as stored_movie:
        return _compared(Pair.of(raw_movie, stored_movie, calibration, step), means)


def _compared(pair: Pair, means: Any) -> FidelityReport:
    """Compare two open movies."""
    expected = _expected(pair, means)
    sums = _BinSums(pair)
    residual = ResidualSums(pair.raw.shape)
    sample = _EntropySample(pair.raw.shape[0], math.prod(pair.raw.shape[1:]))
    for start, raw, stored in pair:
        stop = start + len(raw)
        given = expected[start:stop] if len(expected.shape) == len(pair.raw.shape) else expected
        mean = np.broadcast_to(np.asarray(given, np.float64), raw.shape)
        sums.add(raw, stored, mean)
        residual.add(start, (stored - raw) / pair.codec_sigma(mean), raw)
        sample.add(start, mean, raw, pair.levels(raw, stored))
    lossless_bits, bits = sample.bits()
    pixels = math.prod(pair.raw.shape)
    size = pair.stored_bytes
    # Deviations from a mean over the same frames are too small by 1 / frames.
    freedom = 1.0 if means is not None else pair.raw.shape[0] / (pair.raw.shape[0] - 1)
    return FidelityReport(
        shape=pair.raw.shape,
        dtype=pair.raw.dtype.name,
        step=pair.step,
        conversion_gain=pair.conversion_gain,
        zero_level=pair.zero_level,
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
    """Expected counts: an image, or an array of the movie's shape, to be read in blocks."""
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
    """Sums over the pixels of each intensity bin."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._pixels, self._differences = np.zeros((2, _BINS), np.int64)
        self._sums, self._squares, self.largest = np.zeros((5, _BINS)), np.zeros(_BINS), np.zeros(_BINS)
        self._histogram = np.zeros((_BINS, ERROR_CELLS), np.int64)
        self.within_bound = True
        self._last: FloatArray | None = None

    def add(self, raw: FloatArray, stored: FloatArray, mean: FloatArray) -> None:
        """Add a block of both movies and their expected counts."""
        photons = self._pair.photons(mean).ravel()
        where = np.searchsorted(_EDGES, photons, side="right") - 1
        error = (stored - raw).ravel()
        # (stored - mean)^2 - (raw - mean)^2 is the added variance plus the squared bias.
        cross = 2 * error * (raw - mean).ravel()
        change = cross + error * error
        self._pixels += np.bincount(where, minlength=_BINS)
        values = (photons, error, error * error, cross, change * change)
        self._sums += [np.bincount(where, value, minlength=_BINS) for value in values]
        sigma = self._pair.codec_sigma(np.maximum(raw, stored))
        relative = error / sigma.ravel()
        cell = np.floor(relative / (self._pair.step or 1.0) / ERROR_CELL + ERROR_CELLS / 2)
        key = where * ERROR_CELLS + np.clip(cell, 0, ERROR_CELLS - 1).astype(np.int64)
        self._histogram += np.bincount(key, minlength=self._histogram.size).reshape(self._histogram.shape)
        np.maximum.at(self.largest, where, np.abs(relative))
        self._measure_noise(raw, mean)
        self.within_bound &= keeps_bound(raw, stored, sigma, self._pair.step)

    def _measure_noise(self, raw: FloatArray, mean: FloatArray) -> None:
        """Add squared differences between frames, and then lines, in which the scene and smooth changes cancel.

        Differences are taken across lines because noise may be correlated along them.
        """
        frames = raw if self._last is None else np.concatenate([self._last, raw])
        self._last = raw[-1:].copy()
        change = np.diff(frames, axis=0)
        expected, share = mean[len(mean) - len(change) :], 2.0
        if change.shape[-2] > 1:
            change, share = np.diff(change, axis=-2), 4.0
            expected = (expected[..., 1:, :] + expected[..., :-1, :]) / 2
        where = np.searchsorted(_EDGES, self._pair.photons(expected).ravel(), side="right") - 1
        self._differences += np.bincount(where, minlength=_BINS)
        self._squares += np.bincount(where, np.square(change).ravel() / share, minlength=_BINS)

    def bins(self, freedom: float) -> tuple[IntensityBin, ...]:
        """Return the bins that contain pixels."""
        return tuple(self._bin(int(index), freedom) for index in np.flatnonzero(self._pixels))

    def _bin(self, index: int, freedom: float) -> IntensityBin:
        pixels = int(self._pixels[index])
        photons, error, square, cross, change_square = (self._sums[:, index] / pixels).tolist()
        differences = int(self._differences[index])
        measured = differences >= _DIFFERENCES and float(self._squares[index]) > 0
        model = self._pair.conversion_gain**2 * photons
        variance = float(self._squares[index]) / differences if measured else model
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
            noise=sigma if known else None,
            measured=measured,
            bias=error / sigma if known else None,
            bias_error=error_spread / sigma if known else None,
            inflation=(change - error * error) / variance if known else None,
            inflation_error=change_spread / variance if known else None,
            mean_square=square / variance if known else None,
            largest_error=float(self.largest[index]),
            histogram=tuple(self._histogram[index].tolist()),
        )


def _conditional_entropy(means: FloatArray, values: AnyArray) -> float:
    """Entropy of values given the mean of the distribution each was drawn from [bits per value].

    No code does better if the values are independent given their means (C. E. Shannon, 1948, Bell System Technical
    Journal 27:379). Values are counted in classes of nearly equal mean. Each class is corrected for values missing from
    a finite sample: (number of distinct values - 1) / (2 * number of draws) nats (G. A. Miller, 1955, Information
    Theory in Psychology, p. 95). A one-to-one mapping leaves entropy unchanged, so decoded counts have that of codes.
    """
    flat = means.ravel()
    edges = np.unique(np.quantile(flat, np.linspace(0, 1, _CLASSES + 1)[1:-1]))
    classes = np.searchsorted(edges, flat)
    distinct, rank = np.unique(values.ravel(), return_inverse=True)
    pairs, draws = np.unique(classes.astype(np.int64) * distinct.size + rank, return_counts=True)
    of_class = np.bincount(pairs // distinct.size, weights=draws)
    shown = np.bincount(pairs // distinct.size)
    nats = np.sum(draws * np.log(of_class[pairs // distinct.size] / draws))
    missing = np.sum(np.maximum(shown - 1, 0)) / 2
    return float((nats + missing) / flat.size / math.log(2))


class _EntropySample:
    """A few million pixels spread over a movie, for entropy estimates."""

    def __init__(self, frames: int, pixels: int) -> None:
        taken = min(frames, _FRAMES)
        self._frames = set(np.linspace(0, frames - 1, taken).astype(int).tolist())
        self._stride = max(1, taken * pixels // _PIXELS)
        self._taken: list[list[AnyArray]] = []

    def add(self, start: int, means: FloatArray, raw: FloatArray, stored: FloatArray) -> None:
        """Add the sampled pixels of a block of frames; ``means`` has the shape of the block."""
        for frame, images in enumerate(zip(means, raw, stored, strict=True), start):
            if frame in self._frames:
                self._taken.append([image.ravel()[:: self._stride].copy() for image in images])

    def bits(self) -> tuple[float, float]:
        """Entropy of the raw and of the stored counts given the mean [bits per pixel]."""
        means, raw, stored = (np.concatenate(images) for images in zip(*self._taken, strict=True))
        return _conditional_entropy(means, raw), _conditional_entropy(means, stored)
