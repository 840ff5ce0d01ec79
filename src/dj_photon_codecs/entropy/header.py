"""The layout of a payload: a fixed part, the blank frames, the tables, and four streams.

Everything is little-endian. A payload is read with nothing taken on trust: every number is checked against what is
left of the bytes before anything is allocated for it (``docs/spec/rans.md`` has the fields and their ranges).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._typing import AnyArray
from ..errors import DamagedChunkError
from .model import FRACTION_BITS, MAX_CONTEXTS, MAX_TABLES, MAX_TOP, PHASES, SCALE, STATE_LOW, SYMBOLS, Model

#: First byte of a payload: codes as they are, coded, or coded as dithered ones.
PLAIN = 0
CODED = 1
DITHERED = 2

_FIXED = struct.Struct("<BBBBBHHiHIII8I")
_BLANK = np.dtype([("frame", "<u4"), ("code", "<u2")])


@dataclass(frozen=True)
class Payload:
    """A coded chunk, taken apart.

    Attributes
    ----------
    model
        Of its predictions.
    blank_frames, blank_codes
        Frames of one code throughout, and that code (its 16 bits); they are no part of the modelled movie.
    table_of
        The table of every context, uint8, shape (3 * contexts,).
    frequencies
        Of every symbol in every table, uint32, shape (tables, 256); rows sum to 4096.
    states
        Of the lanes before the first pixel, uint32.
    words
        The stream that the states are refilled from, uint16.
    escapes
        Levels of the pixels that were not predicted, uint16.
    low
        The lowest bits, packed: shape (low_bits, bytes).
    """

    model: Model
    blank_frames: npt.NDArray[np.uint32]
    blank_codes: npt.NDArray[np.uint16]
    table_of: npt.NDArray[np.uint8]
    frequencies: npt.NDArray[np.uint32]
    states: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint16]
    escapes: npt.NDArray[np.uint16]
    low: npt.NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """The payload as it is stored."""
        model = self.model
        blanks = np.empty(self.blank_frames.size, _BLANK)
        blanks["frame"], blanks["code"] = self.blank_frames, self.blank_codes
        fixed = _FIXED.pack(
            DITHERED if model.dithered else CODED,
            model.low_bits,
            model.blend,
            model.window,
            model.context_shift,
            model.start,
            model.top,
            model.base,
            len(self.frequencies),
            blanks.size,
            self.words.size,
            self.escapes.size,
            *self.states.tolist(),
        )
        parts = (fixed, blanks, _pack_tables(self.table_of, self.frequencies), _le(self.words), _le(self.escapes))
        return b"".join([*(bytes(part) for part in parts), self.low.tobytes()])

    @classmethod
    def parse(cls, payload: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Payload:
        """Take a coded payload apart.

        Parameters
        ----------
        payload
            Begins with the byte ``CODED`` or ``DITHERED``.
        shape
            (time, rows, columns) of the chunk.
        dtype
            Of the codes.

        Raises
        ------
        DamagedChunkError
            When a number is out of its range, or the payload is shorter or longer than they say.
        """
        if len(payload) < _FIXED.size:
            raise DamagedChunkError(f"the payload ends within its header: {len(payload)} of {_FIXED.size} bytes")
        (
            form,
            low_bits,
            blend,
            window,
            context_shift,
            start,
            top,
            base,
            n_tables,
            n_blanks,
            n_words,
            n_escapes,
            *states,
        ) = _FIXED.unpack_from(payload)
        model = Model(low_bits, blend, window, context_shift, start, top, base, form == DITHERED)
        _check_model(model, dtype)
        reader = _Reader(payload, _FIXED.size)
        blanks = reader.take(n_blanks, _BLANK, "blank frames")
        frames = blanks["frame"].astype(np.uint32)
        if n_blanks and (int(frames[-1]) >= shape[0] or not (np.diff(frames.astype(np.int64)) > 0).all()):
            raise DamagedChunkError(f"the blank frames are not a rising list of frames below {shape[0]}")
        modelled = (shape[0] - n_blanks) * shape[1] * shape[2]
        if (n_tables == 0) != (modelled == 0) or n_tables > MAX_TABLES:
            raise DamagedChunkError(f"{n_tables} tables for {modelled} pixels: expected 1 to {MAX_TABLES}, or 0 for 0")
        if n_blanks and int(blanks["code"].max()) > np.iinfo(f"u{dtype.itemsize}").max:
            raise DamagedChunkError(f"the code of a blank frame has more than {8 * dtype.itemsize} bits")
        if n_words > modelled or n_escapes > modelled:
            raise DamagedChunkError(f"{n_words} words and {n_escapes} escapes for {modelled} pixels")
        if min(states) < STATE_LOW or (modelled == 0 and max(states) > STATE_LOW):
            raise DamagedChunkError(
                f"states of {states} for {modelled} pixels: expected {STATE_LOW} or more, that for 0"
            )
        table_of, frequencies = _read_tables(reader, n_tables, PHASES * model.contexts)
        words = reader.take(n_words, np.dtype("<u2"), "words")
        escapes = reader.take(n_escapes, np.dtype("<u2"), "escapes")
        row = -(-modelled // 8)
        low = reader.take(low_bits * row, np.dtype("u1"), "low bits").reshape(low_bits, row)
        if reader.left:
            raise DamagedChunkError(f"{reader.left} bytes follow the end of the payload")
        return cls(
            model,
            frames,
            blanks["code"].astype(np.uint16),
            table_of,
            frequencies,
            np.array(states, np.uint32),
            words.astype(np.uint16),
            escapes.astype(np.uint16),
            low,
        )


def _check_model(model: Model, dtype: np.dtype[Any]) -> None:
    """What is chosen by the encoder, held against its ranges."""
    limits = np.iinfo(dtype)
    if model.low_bits >= limits.bits:
        raise DamagedChunkError(f"{model.low_bits} low bits of codes of {limits.bits} bits")
    if model.dithered and model.low_bits:
        raise DamagedChunkError(f"{model.low_bits} low bits of dithered codes, which have none")
    if model.window < 1:
        raise DamagedChunkError("a window of 0 frames")
    if model.top > MAX_TOP or model.start > model.top:
        raise DamagedChunkError(f"top level {model.top} (at most {MAX_TOP}), first level {model.start}")
    if model.context_shift > FRACTION_BITS + 12 or model.contexts > MAX_CONTEXTS:
        raise DamagedChunkError(f"context shift {model.context_shift} for top level {model.top}")
    if not limits.min <= model.base <= limits.max:
        raise DamagedChunkError(f"base {model.base} is no {dtype}")


class _Reader:
    """Takes one piece after the other from a payload, none beyond its end."""

    def __init__(self, payload: bytes, offset: int) -> None:
        self._payload = payload
        self._offset = offset

    @property
    def left(self) -> int:
        return len(self._payload) - self._offset

    def take(self, count: int, dtype: np.dtype[Any], what: str) -> AnyArray:
        size = count * dtype.itemsize
        if size > self.left:
            raise DamagedChunkError(f"the payload ends within its {what}: {size} bytes promised, {self.left} left")
        taken: AnyArray = np.frombuffer(self._payload, dtype, count, self._offset)
        self._offset += size
        return taken

    def number(self) -> int:
        """An unsigned number of up to 14 bits, 7 bits a byte, lowest first."""
        value = 0
        for shift in (0, 7):
            if not self.left:
                raise DamagedChunkError("the payload ends within its tables")
            byte = self._payload[self._offset]
            self._offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    break
                return value
        raise DamagedChunkError("a number in the tables has more bytes than it needs, or than two")


def _number(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def _pack_tables(table_of: npt.NDArray[np.uint8], frequencies: npt.NDArray[np.uint32]) -> bytes:
    """For each table: the run of contexts that share it, the escape's frequency, the first symbol, how many, theirs."""
    packed = bytearray()
    runs = np.bincount(table_of, minlength=len(frequencies))
    for run, row in zip(runs.tolist(), frequencies, strict=True):
        used = np.flatnonzero(row[1:]) + 1
        first, last = (int(used[0]), int(used[-1])) if used.size else (1, 0)
        packed += _number(run) + _number(int(row[0])) + _number(first) + _number(last - first + 1)
        for frequency in row[first : last + 1].tolist():
            packed += _number(frequency)
    return bytes(packed)


def _read_tables(reader: _Reader, count: int, contexts: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    table_of = np.zeros(contexts, np.uint8)
    frequencies = np.zeros((count, SYMBOLS), np.uint32)
    covered = 0
    for table in range(count):
        run, frequencies[table, 0], first, symbols = (reader.number() for _ in range(4))
        if run < 1 or covered + run > contexts:
            raise DamagedChunkError(f"table {table} is for {run} contexts after {covered} of {contexts}")
        if not 1 <= first < SYMBOLS or first + symbols > SYMBOLS:
            raise DamagedChunkError(f"table {table} has {symbols} symbols from {first}, beyond {SYMBOLS - 1}")
        table_of[covered : covered + run] = table
        covered += run
        for symbol in range(first, first + symbols):
            frequencies[table, symbol] = reader.number()
        if int(frequencies[table].sum()) != SCALE:
            raise DamagedChunkError(f"the frequencies of table {table} sum to {frequencies[table].sum()}, not {SCALE}")
    if count and covered != contexts:
        raise DamagedChunkError(f"the tables are for {covered} of {contexts} contexts")
    return table_of, frequencies


def _le(stream: npt.NDArray[np.uint16]) -> bytes:
    return stream.astype("<u2", copy=False).tobytes()
