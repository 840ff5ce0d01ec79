"""Align the frames of a run, so that moving structure is not mistaken for noise.

Shifts are whole pixels, because interpolation would mix the noise of neighbouring pixels.
"""

from __future__ import annotations

import numpy as np

from .sampling import FloatImages

_REACH, _WINDOW = 16, 256  # largest shift searched, and largest side of the correlated window [pixels]
#: Required excess of a correlation over that at zero shift, in its standard deviations for unrelated frames. By chance
#: alone, the best of about 1000 shifts exceeds it by 4.7.
_EVIDENCE = 6.5


def align(run: FloatImages) -> tuple[FloatImages, int]:
    """Shift frames (frames, height, width) onto the first one if their cross-correlation shows motion.

    Also return the width of the rim into which shifted frames wrap around.
    """
    height, width = run.shape[1:]
    rows, columns = (min(_WINDOW, 1 << n.bit_length() - 1) for n in (height, width))  # powers of two, for the FFT
    reach = min(_REACH, rows // 4, columns // 4)
    top, left = (height - rows) // 2, (width - columns) // 2
    window = run[:, top : top + rows, left : left + columns]
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
