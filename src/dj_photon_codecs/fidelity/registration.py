"""Measure the rigid motion of a movie by phase correlation, and undo it."""

from __future__ import annotations

import numpy as np

from .._typing import FloatArray

#: Width of the low pass that makes the phase correlation peak smooth enough to interpolate [pixels].
_PEAK_PX = 1.0
#: Width of the high pass, as a fraction of the frame; it removes illumination and vignetting, which do not move.
_STATIC = 1 / 16
_FARTHEST = 1 / 8  # largest shift searched in either direction, as a fraction of the frame along each axis


class Registration:
    """Shifts of frames against a template.

    The shift is the peak of the phase correlation (C. D. Kuglin and D. C. Hines, Proc. IEEE Int. Conf. Cybernetics and
    Society 1975, p. 163). A parabola through the logarithm of the peak and its neighbours gives the fraction of a
    pixel. Each frequency is weighted by the template's power relative to that power plus the noise of a frame; a high
    pass removes illumination. The template is a stabilised image.
    """

    def __init__(self, template: FloatArray) -> None:
        height, width = template.shape
        self._shape = (height, width)
        self._window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
        lowpass = np.exp(-2 * (np.pi * _PEAK_PX) ** 2 * (rows**2 + columns**2))
        highpass = 1 - np.exp(-2 * (np.pi * _STATIC) ** 2 * ((rows * height) ** 2 + (columns * width) ** 2))
        spectrum = self._spectrum(template)
        power, noise = np.abs(spectrum) ** 2, float((self._window**2).sum())  # stabilised noise has variance 1
        weight = lowpass * highpass * power / (power + noise)
        self._against = np.conj(spectrum) / np.maximum(np.abs(spectrum), 1e-12) * weight
        reach = [max(1, min(int(_FARTHEST * n), n // 2 - 2)) for n in self._shape]
        self._rows, self._columns = (np.arange(-n, n + 1) for n in reach)

    def _spectrum(self, frames: FloatArray) -> FloatArray:
        """Fourier transform of mean-subtracted frames, tapered at the edges."""
        centred = frames - frames.mean(axis=(-2, -1), keepdims=True)
        return np.asarray(np.fft.rfft2(centred * self._window))

    def shifts(self, frames: FloatArray) -> FloatArray:
        """Shifts of stabilised frames (time, height, width), as rows and columns: (time, 2) [pixels]."""
        found = np.empty((len(frames), 2))
        for index, frame in enumerate(frames):
            spectrum = self._spectrum(frame)
            phase = spectrum / np.maximum(np.abs(spectrum), 1e-12) * self._against
            peak = np.fft.irfft2(phase, s=self._shape)[np.ix_(self._rows, self._columns)]
            row, column = np.unravel_index(int(peak.argmax()), peak.shape)
            found[index] = (
                self._rows[row] + _vertex(peak[:, column], int(row)),
                self._columns[column] + _vertex(peak[row], int(column)),
            )
        return found


def _vertex(line: FloatArray, top: int) -> float:
    """Offset, -0.5 to 0.5, of the vertex of a parabola through the logarithms of the peak and its neighbours."""
    if not 0 < top < len(line) - 1 or line[top - 1 : top + 2].min() <= 0:
        return 0.0
    left, middle, right = np.log(line[top - 1 : top + 2]).tolist()
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else float(np.clip((left - right) / (2 * bend), -0.5, 0.5))


def moved_back(frames: FloatArray, shifts: FloatArray) -> FloatArray:
    """Undo motion by bilinear interpolation; pixels from outside the frame repeat its edge."""
    back = np.empty_like(frames)
    for target, frame, (dy, dx) in zip(back, frames, shifts.tolist(), strict=True):
        target[:] = _interpolated(_interpolated(frame, dy, 0), dx, 1)
    return back


def _interpolated(image: FloatArray, shift: float, axis: int) -> FloatArray:
    """Interpolate an image at ``i + shift`` along one axis."""
    whole, size = int(np.floor(shift)), image.shape[axis]
    fraction = shift - whole
    first = np.clip(np.arange(size) + whole, 0, size - 1)
    second = np.clip(first + 1, 0, size - 1)
    return np.asarray((1 - fraction) * image.take(first, axis) + fraction * image.take(second, axis))
