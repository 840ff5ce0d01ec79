"""From an array of codes to a payload, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ..errors import ConfigurationError, DamagedChunkError
from .header import CODED, DITHERED, PLAIN, Payload
from .model import (
    FRACTION_BITS,
    LANES,
    MAX_CONTEXTS,
    MAX_TOP,
    PHASES,
    SCALE,
    STATE_LOW,
    SYMBOLS,
    Model,
    offset_pattern,
    pattern_starts,
)

#: Dtypes of codes.
DTYPES = ("uint8", "int8", "uint16", "int16")

#: Pixels, in rows from the middle of a chunk, that the model is chosen on.
_TRIAL_PIXELS = 1 << 16

#: The finest contexts: an eighth of a level.
_CONTEXT_SHIFT = FRACTION_BITS - 3

#: Tried in this order: frames that neighbours count for, then, at the best of these, the frames of a mean.
_BLENDS = (0, 4, 16, 64)
_WINDOWS = (15, 3, 63)

#: The mean difference to the prediction is to be below this; the bits beyond are noise that no model predicts.
_WIDEST = 16

#: Where the range of the codes is wide, it is that of so many of them, and a margin.
_BULK = (0.001, 0.999)

#: A frame of one code throughout is kept out of the model if it has so many pixels.
_BLANK_PIXELS = 64


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse codes of a dtype that has no coder.

    Raises
    ------
    ConfigurationError
        For anything but integers of 8 or 16 bits.
    """
    if dtype.name not in DTYPES:
        raise ConfigurationError(
            f"the entropy coder takes codes of {', '.join(DTYPES)}, got {dtype}: use the default compressor"
        )


def encode(codes: AnyArray) -> bytes:
    """Code an array.

    Parameters
    ----------
    codes
        Integers of 8 or 16 bits, shape (time, ..., height, width); any other rank will do.

    Returns
    -------
    bytes
        The payload; never more than one byte longer than the array.

    Raises
    ------
    ConfigurationError
        For another dtype.
    """
    check_dtype(codes.dtype)
    if codes.size:
        payload = _encode(np.ascontiguousarray(codes).reshape(_cube(codes.shape)))
        if len(payload) <= codes.nbytes:
            return payload
    return bytes([PLAIN]) + codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
    """Decode a payload.

    Parameters
    ----------
    payload
        As :func:`encode` made it.
    shape
        Of the array.
    dtype
        Of the codes.

    Returns
    -------
    numpy.ndarray
        The codes, C-contiguous and writable, in native byte order.

    Raises
    ------
    DamagedChunkError
        When the payload was truncated or altered in a way that shows.
    ConfigurationError
        For a dtype that has no coder.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    check_dtype(dtype)
    if not payload:
        raise DamagedChunkError("the payload is empty")
    if payload[0] == PLAIN:
        expected = 1 + math.prod(shape) * dtype.itemsize
        if len(payload) != expected:
            raise DamagedChunkError(f"the payload has {len(payload)} bytes, its shape {shape} asks for {expected}")
        return np.frombuffer(payload, dtype.newbyteorder("<"), offset=1).astype(dtype).reshape(shape)
    if payload[0] not in (CODED, DITHERED):
        raise DamagedChunkError(
            f"the payload begins with {payload[0]}: expected {PLAIN}, {CODED} or {DITHERED}; "
            "either it was altered, or a later release of dj_photon_codecs wrote it"
        )
    if not math.prod(shape):
        raise DamagedChunkError(f"a coded payload for the shape {shape}, which has no pixels")
    cube = _cube(shape)
    return _decode(Payload.parse(payload, cube, dtype), cube, dtype).reshape(shape)


def _cube(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """An array of any rank as (time, rows, columns)."""
    if len(shape) < 2:
        return math.prod(shape), 1, 1
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def _encode(codes: AnyArray) -> bytes:
    from . import kernels, tables

    blank = _blank_frames(codes)
    blank_codes = _unsigned(codes)[0][blank, 0, 0].astype(np.uint16)
    frames = _modelled_frames(len(codes), blank)
    movie = codes[frames] if blank.size else codes
    if not movie.size:
        return _nothing_modelled(blank, blank_codes)
    model = _choose_model(movie, frames)
    unsigned, mask = _unsigned(movie)
    base = model.base & mask
    counts = np.zeros((PHASES * model.contexts, SYMBOLS), np.uint32)
    context_of, symbols = np.empty(movie.shape, np.uint16), np.empty(movie.shape, np.uint8)
    kernels.model_codes(unsigned, mask, model, *_offsets(model, frames, movie.shape), context_of, symbols, counts)
    table_of = np.empty(len(counts), np.uint8)
    shared = tables.merge_contexts(counts, table_of)
    frequencies = np.empty_like(shared)
    tables.scale_counts(shared, frequencies)
    words = np.empty(movie.size + LANES, np.uint16)
    ranges = frequencies | (np.cumsum(frequencies, 1, dtype=np.uint32) - frequencies) << np.uint32(16)
    reciprocals = np.nextafter(1 / np.maximum(frequencies, 1), 2)
    place, states = kernels.push_symbols(context_of, symbols, table_of, ranges, reciprocals, words)
    escaped = np.flatnonzero(symbols.ravel() == 0)
    levels = (unsigned.ravel()[escaped].astype(np.int64) - base & mask) >> model.low_bits
    return Payload(
        model,
        blank.astype(np.uint32),
        blank_codes,
        table_of,
        frequencies,
        states,
        words[place:],
        levels.astype(np.uint16),
        _pack_low(unsigned, base, model.low_bits),
    ).to_bytes()


def _decode(coded: Payload, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> AnyArray:
    codes = np.empty(shape, dtype)
    unsigned, _ = _unsigned(codes)
    blank = coded.blank_frames
    frames = _modelled_frames(len(codes), blank)
    if not blank.size:
        _decode_movie(coded, frames, unsigned)
        return codes
    unsigned[blank] = coded.blank_codes.astype(unsigned.dtype)[:, None, None]
    if frames.size:
        movie = np.empty((frames.size, *shape[1:]), unsigned.dtype)
        _decode_movie(coded, frames, movie)
        unsigned[frames] = movie
    return codes


def _decode_movie(coded: Payload, frames: npt.NDArray[np.uint32], out: AnyArray) -> None:
    """Decode the modelled frames, of these numbers, into ``out``: the codes' bits as unsigned numbers."""
    from . import kernels

    model = coded.model
    words = np.concatenate([coded.words, np.zeros(out.shape[2] + LANES, np.uint16)])
    slots = np.empty((len(coded.frequencies), SCALE), np.uint32)
    kernels.fill_slots(coded.frequencies, slots)
    levels = np.empty(out.shape, np.uint16) if model.low_bits else out
    states = coded.states.copy()
    used, escaped, inside = kernels.pull_symbols(
        words,
        coded.words.size,
        coded.escapes,
        states,
        slots,
        coded.table_of,
        model._replace(base=0) if model.low_bits else model,
        *_offsets(model, frames, out.shape),
        levels,
    )
    if not inside or used != coded.words.size or escaped != coded.escapes.size or (states != STATE_LOW).any():
        raise DamagedChunkError("the payload does not decode to its end: it was truncated or altered")
    if model.low_bits:
        levels <<= np.uint16(model.low_bits)
        levels += np.uint16(model.base & 0xFFFF)
        for bit, plane in enumerate(coded.low):
            ones = np.unpackbits(plane, count=levels.size, bitorder="little").reshape(levels.shape)
            levels += ones.astype(np.uint16) << np.uint16(bit)
        out[...] = levels.astype(out.dtype)  # modulo 2^16 so far, and here modulo 2^8 where codes have 8 bits


def _unsigned(codes: AnyArray) -> tuple[AnyArray, int]:
    """The bits of the codes as unsigned numbers, so that one compiled loop serves both signs; and their mask."""
    view = codes.view(f"u{codes.itemsize}")
    return view, int(np.iinfo(view.dtype).max)


def _blank_frames(codes: AnyArray) -> npt.NDArray[np.int64]:
    """Frames of one code throughout, such as dropped ones and padding: they would only mislead the means."""
    if codes[0].size < _BLANK_PIXELS:
        return np.empty(0, np.int64)
    candidates = np.flatnonzero((codes[:, 0, 0] == codes[:, -1, -1]) & (codes[:, 0, 0] == codes[:, 0, -1]))
    return np.array([t for t in candidates if (codes[t] == codes[t, 0, 0]).all()], np.int64)


def _modelled_frames(frames: int, blank: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """The numbers of all frames but the blank ones."""
    return np.delete(np.arange(frames, dtype=np.uint32), blank)


def _offsets(model: Model, frames: npt.NDArray[np.uint32], shape: tuple[int, ...]) -> tuple[AnyArray, AnyArray]:
    """The pattern of offsets, and where in it each frame begins: what the compiled loops take."""
    return offset_pattern(model.dithered, shape[2]), pattern_starts(frames, shape[1] * shape[2])


def _nothing_modelled(blank: npt.NDArray[np.int64], blank_codes: npt.NDArray[np.uint16]) -> bytes:
    """The payload of a chunk of blank frames only."""
    model = Model(0, 0, 1, _CONTEXT_SHIFT, 0, 0, 0)
    empty = np.empty(0, np.uint16)
    return Payload(
        model,
        blank.astype(np.uint32),
        blank_codes,
        np.empty(0, np.uint8),
        np.empty((0, SYMBOLS), np.uint32),
        np.full(LANES, STATE_LOW, np.uint32),
        empty,
        empty,
        np.empty((0, 0), np.uint8),
    ).to_bytes()


def _choose_model(movie: AnyArray, numbers: npt.NDArray[np.uint32]) -> Model:
    """Choose a model by its errors on rows from the middle of the chunk."""
    from .kernels import prediction_errors

    unsigned, mask = _unsigned(movie)
    frames, rows, columns = movie.shape
    taken = min(rows, max(1, _TRIAL_PIXELS // (frames * columns)))
    band = slice((rows - taken) // 2, (rows - taken) // 2 + taken)
    sample = np.ascontiguousarray(unsigned[:, band])
    starts = pattern_starts(numbers, rows * columns, band.start * columns)
    base, highest = _range(movie, movie[:, band])
    levels, first_row = highest - base, int(movie[0, 0].astype(np.int64).mean() - base)
    coarse = (levels // (MAX_TOP + 1)).bit_length()  # so many low bits away, all levels can be predicted

    def model(low_bits: int, blend: int, window: int, dithered: bool) -> Model:
        top = min(levels >> low_bits, MAX_TOP)
        start = min(max(first_row >> low_bits, 0), top)
        chosen = Model(low_bits, blend, window, _CONTEXT_SHIFT, start, top, base, dithered)
        while chosen.contexts > MAX_CONTEXTS:
            chosen = chosen._replace(context_shift=chosen.context_shift + 1)
        return chosen

    def errors_of(low_bits: int, blend: int, window: int, dithered: bool) -> tuple[float, float]:
        tried = model(low_bits, blend, window, dithered)
        square, size = prediction_errors(sample, mask, tried, offset_pattern(dithered, columns), starts)
        return float(square), float(size)

    _, size = errors_of(coarse, _BLENDS[1], _WINDOWS[0], False)
    spread = size * 2.0**coarse  # the mean size, not square: one bright pixel is to change nothing
    low_bits = max(0, math.ceil(math.log2(spread / _WIDEST))) if spread > 0 else 0
    dithered = False
    if not low_bits:
        sizes = {tried: errors_of(0, _BLENDS[1], _WINDOWS[0], tried)[1] for tried in (False, True)}
        dithered = sizes[False] - sizes[True] > 0.5 / math.sqrt(sample.size)  # more than chance would do

    def error(blend: int, window: int) -> float:
        return errors_of(low_bits, blend, window, dithered)[0]

    errors = {blend: error(blend, _WINDOWS[0]) for blend in _BLENDS}
    blend = min(errors, key=lambda tried: errors[tried])
    windows = {window: error(blend, window) for window in _WINDOWS[1:] if frames > min(window, _WINDOWS[0]) + 1}
    windows[_WINDOWS[0]] = errors[blend]
    window = min(windows, key=lambda tried: windows[tried])
    return model(low_bits, blend, window, dithered)


def _range(movie: AnyArray, sample: AnyArray) -> tuple[int, int]:
    """The lowest and the highest code to predict.

    Pixels that are dead or saturated may lie beyond: they are escapes then, and cost the others nothing.
    """
    base, highest = int(movie.min()), int(movie.max())
    if highest - base > MAX_TOP:
        low, high = (int(edge) for edge in np.quantile(sample, _BULK))
        margin = (high - low) // 4 + 64
        base, highest = max(base, low - margin), min(highest, high + margin)
    return base, highest


def _pack_low(unsigned: AnyArray, base: int, low_bits: int) -> npt.NDArray[np.uint8]:
    """The lowest bits of the levels, a plane of packed bits each."""
    if not low_bits:
        return np.empty((0, 0), np.uint8)
    levels = unsigned.ravel() - unsigned.dtype.type(base)  # modulo 2^16, or 2^8
    planes = [np.packbits((levels >> bit & 1).astype(np.uint8), bitorder="little") for bit in range(low_bits)]
    return np.stack(planes)
