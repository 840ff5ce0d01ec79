"""Whole-pixel alignment of the frames of a run, so that sharp structure that moves does not pass for noise.

Whole pixels only: interpolation would mix the noise of neighbouring pixels.
"""

from __future__ import annotations

import numpy as np

from .sampling import FloatImages

#: Largest shift that is looked for [pixels], and the largest part of a frame that is correlated.
_REACH, _WINDOW = 16, 256
#: How far a correlation must exceed the one without shift, in its standard deviations for unrelated frames. The best of
#: about 1000 shifts exceeds it by 4.7 by chance alone.
_EVIDENCE = 6.5


def align(run: FloatImages) -> tuple[FloatImages, int]:
    """Shift frames onto the first one where their cross-correlation says that they moved.

    Parameters
    ----------
    run
        Shape (frames, height, width).

    Returns
    -------
    aligned
        Same shape; the frames themselves if nothing moved. Shifted frames wrap around.
    border
        Width of the frame's rim that holds wrapped pixels.
    """
    height, width = run.shape[1:]
    reach = min(_REACH, height // 4, width // 4)
    top, left = max(0, (height - _WINDOW) // 2), max(0, (width - _WINDOW) // 2)
    window = run[:, top : top + _WINDOW, left : left + _WINDOW]
    window = window - window.mean(axis=(1, 2), keepdims=True)
    spectra = np.fft.rfft2(window)
    deviation = window.std(axis=(1, 2)) * np.sqrt(np.sqrt(window[0].size))
    shape = window.shape[1:]
    shifts = [(0, 0)]
    near = np.arange(-reach, reach + 1)
    for i in range(1, len(run)):
        correlation = np.fft.irfft2(spectra[0] * np.conj(spectra[i]), s=shape)[np.ix_(near, near)]
        row, column = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        gain = correlation[row, column] - correlation[reach, reach]
        moved = gain > _EVIDENCE * deviation[0] * deviation[i]
        shifts.append((int(near[row]), int(near[column])) if moved else (0, 0))
    border = max(max(abs(y), abs(x)) for y, x in shifts)
    if border == 0:
        return run, 0
    return np.stack([np.roll(frame, shift, (0, 1)) for frame, shift in zip(run, shifts, strict=True)]), border
