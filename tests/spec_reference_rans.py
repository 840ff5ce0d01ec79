"""The codec ``dj_photon_codecs.rans``, written a second time, from ``docs/spec/rans.md`` alone.

Plain Python numbers and loops, nothing of the package: whatever this and the package disagree on, either the page
does not say or one of the two does not do. Names are those of the page.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

#: Bits and range of every data type that the page lists.
BITS = {"uint8": 8, "int8": 8, "uint16": 16, "int16": 16}
RANGES = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


class SpecError(Exception):
    """The page says: invalid."""


def require(legal: bool, what: str) -> None:
    if not legal:
        raise SpecError(what)


def movie_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """T, R, W of an array of this shape."""
    if len(shape) == 0:
        return 1, 1, 1
    if len(shape) == 1:
        return shape[0], 1, 1
    return shape[0], math.prod(shape[1:-1]), shape[-1]


@dataclass
class Bytes:
    """A payload, read from its front."""

    payload: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        require(size <= len(self.payload) - self.at, "payload ends too early")
        self.at += size
        return self.payload[self.at - size : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def i32(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def numbers16(self, count: int) -> list[int]:
        numbers = [self.u16() for _ in range(count)]
        self.pad()
        return numbers

    def pad(self) -> None:
        self.take(-self.at % 4)

    def number(self) -> int:
        low = self.u8()
        if low < 128:
            return low
        high = self.u8()
        require(0 < high < 128, "number")
        return low - 128 + (high << 7)

    def end(self) -> None:
        require(self.at == len(self.payload), "bytes after the last field")


@dataclass
class Table:
    """Frequencies of the 256 symbols in a run of contexts."""

    run: int
    frequency: list[int]

    def __post_init__(self) -> None:
        self.begin = [0, *accumulate(self.frequency)][:256]
        self.symbol_at = [symbol for symbol in range(256) for _ in range(self.frequency[symbol])]


@dataclass
class Header:
    """What an encoder chooses, and a decoder reads first; ``band_rows`` of 0 stands for all rows."""

    low_bits: int = 0
    blend: int = 64
    window: int = 8
    shift: int = 10
    start: int = 0
    top: int = 0
    base: int = 0
    dithered: int = 0
    band_rows: int = 0

    @property
    def C(self) -> int:
        return ((self.top * 1024) >> self.shift) + 1

    def check(self, dtype: str) -> None:
        require(self.dithered in (0, 1), "dithered")
        require(self.low_bits < BITS[dtype], "low_bits")
        require(self.dithered == 0 or self.low_bits == 0, "low_bits of dithered codes")
        require(0 <= self.blend <= 255, "blend")
        require(1 <= self.window <= 255, "window")
        require(self.shift <= 22, "shift")
        require(self.start <= self.top, "start")
        require(self.top <= 4095, "top")
        require(RANGES[dtype][0] <= self.base <= RANGES[dtype][1], "base")
        require(self.C <= 4096, "number of contexts")

    def bands(self, R: int) -> list[range]:
        """The rows of each band."""
        step = self.band_rows or R
        return [range(first, min(first + step, R)) for first in range(0, R, step)]


@dataclass
class Band:
    """The streams of a band."""

    states: list[int]
    words: list[int] = field(default_factory=list)
    escapes: list[int] = field(default_factory=list)
    low: bytes = b""


@dataclass
class Coded:
    """The fields of a payload of form 1; the codes of blank frames as their bits."""

    header: Header
    blank: dict[int, int] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)


# Fields


def read(source: Bytes, shape: Sequence[int], dtype: str) -> Coded:
    """All fields."""
    T, R, W = movie_of(shape)
    u8, u16, u32 = source.u8, source.u16, source.u32
    require(u8() == 1, "form")
    dithered, low_bits, shift, blend, window, n_tables, start, top = u8(), u8(), u8(), u8(), u8(), u16(), u16(), u16()
    header = Header(low_bits, blend, window, shift, start, top, source.i32(), dithered, u32())
    header.check(dtype)
    require(1 <= header.band_rows <= R, "band_rows")
    n_blank, table_bytes = u32(), u32()
    require(n_blank <= T, "n_blank")
    require(n_tables == table_bytes == 0 if n_blank == T else 1 <= n_tables <= 256, "n_tables")
    coded = Coded(header)
    frames = [u32() for _ in range(n_blank)]
    codes = source.numbers16(n_blank)
    for frame, bits in zip(frames, codes, strict=True):
        require(max(coded.blank, default=-1) < frame < T, "blank frames rise")
        require(bits < 1 << BITS[dtype], "eight zeros")
        coded.blank[frame] = bits
    bands = header.bands(R) if n_blank < T else []
    directory = [(u32(), u32(), [u32() for _ in range(32)]) for _ in bands]
    end = source.at + table_bytes
    require(table_bytes <= len(source.payload) - source.at, "table_bytes")
    for _ in range(n_tables):
        coded.tables.append(read_table(source))
        require(source.at <= end, "table_bytes")
    require(source.at == end, "table_bytes")
    source.pad()
    require(sum(table.run for table in coded.tables) == (3 * header.C if bands else 0), "runs")
    for rows, (n_words, n_escapes, states) in zip(bands, directory, strict=True):
        pixels = (T - n_blank) * len(rows) * W
        require(n_words <= pixels and n_escapes <= pixels, "n_words or n_escapes")
        require(all(state >= 65536 for state in states), "states")
        words, escapes = source.numbers16(n_words), source.numbers16(n_escapes)
        low = source.take((pixels * header.low_bits + 7) // 8)
        source.pad()
        coded.bands.append(Band(states, words, escapes, low))
    source.end()
    return coded


def read_table(source: Bytes) -> Table:
    run = source.number()
    require(run >= 1, "run")
    frequency = [0] * 256
    frequency[0] = source.number()
    first, count = source.number(), source.number()
    require(1 <= first <= 255, "first")
    require(first + count <= 256, "count")
    for symbol in range(first, first + count):
        frequency[symbol] = source.number()
    require(all(f <= 4096 for f in frequency), "frequency")
    require(sum(frequency) == 4096, "frequencies")
    return Table(run, frequency)


def write(coded: Coded) -> bytes:
    h = coded.header
    tables = b"".join(write_table(table) for table in coded.tables)
    fixed = (
        1,
        h.dithered,
        h.low_bits,
        h.shift,
        h.blend,
        h.window,
        len(coded.tables),
        h.start,
        h.top,
        h.base,
        h.band_rows,
    )
    parts = [struct.pack("<6B3Hi3I", *fixed, len(coded.blank), len(tables))]
    parts.append(struct.pack(f"<{len(coded.blank)}I", *coded.blank))
    parts.append(numbers16([*coded.blank.values()]))
    for band in coded.bands:
        parts.append(struct.pack("<34I", len(band.words), len(band.escapes), *band.states))
    parts.append(padded(tables))
    for band in coded.bands:
        parts += [numbers16(band.words), numbers16(band.escapes), padded(band.low)]
    return b"".join(parts)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def numbers16(values: Sequence[int]) -> bytes:
    return padded(struct.pack(f"<{len(values)}H", *values))


def write_table(table: Table) -> bytes:
    used = [symbol for symbol in range(1, 256) if table.frequency[symbol]]
    first, count = (used[0], used[-1] - used[0] + 1) if used else (1, 0)
    listed = table.frequency[first : first + count]
    return b"".join(number(value) for value in (table.run, table.frequency[0], first, count, *listed))


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([128 + value % 128, value >> 7])


# Prediction


def blur(a: Sequence[int]) -> list[int]:
    W = len(a)
    return [a[max(x - 1, 0)] + 2 * a[x] + a[min(x + 1, W - 1)] for x in range(W)]


K = [64 * (i**5 % 4093) // 4093 for i in range(4093)]


def offset(n: int, dithered: int) -> int:
    """U[n]."""
    return 16 * K[n % 4093] - 504 if dithered else 0


@dataclass
class Prediction:
    """The means, row after row of a band, which has these rows of chunks of ``height`` rows."""

    header: Header
    frames: list[int]
    band: range
    height: int
    W: int

    def __post_init__(self) -> None:
        self.R = len(self.band)
        self.m = [[0] * self.W for _ in range(self.R)]
        self.v = [self.header.start * 1024] * self.W

    def rows(self) -> Iterator[tuple[list[int], list[int], list[int], list[int]]]:
        """Lanes, contexts and d of each row, and a list that the caller fills with high parts before it goes on."""
        top, shift = self.header.top, self.header.shift
        for t, frame in enumerate(self.frames):
            n = min(t, self.header.window)
            weight = (256 * n) // (n + self.header.blend) if n > 0 else 0
            rate = 256 // (n + 1)
            phase = 0 if t == 0 else 1 if t <= 3 else 2
            m = self.m
            self.m = [list(row) for row in m]
            blurred = [blur(row) for row in m]
            for y in range(self.R):
                if t == 0:
                    p = list(self.v)
                else:
                    above, here, below = blurred[max(y - 1, 0)], blurred[y], blurred[min(y + 1, self.R - 1)]
                    p = []
                    for x in range(self.W):
                        b = (above[x] + 2 * here[x] + below[x] + 8) >> 4
                        p.append(b + (((m[y][x] - b) * weight + 128) >> 8))
                n0 = (frame * self.height + self.band[y]) * self.W
                U = [offset(n0 + x, self.header.dithered) for x in range(self.W)]
                d = [min(max(p[x] + U[x], 0), top * 1024) for x in range(self.W)]
                h: list[int] = []
                lanes = [(x if t == 0 else y * self.W + x) % 32 for x in range(self.W)]
                yield lanes, [phase * self.header.C + (value >> shift) for value in d], d, h
                g = [min(h[x], top) * 1024 - U[x] for x in range(self.W)]
                self.m[y] = [m[y][x] + (((g[x] - m[y][x]) * rate + 128) >> 8) for x in range(self.W)]
                if t == 0:
                    u = [self.v[x] + ((g[x] - self.v[x]) >> 2) for x in range(self.W)]
                    self.v = [(value + 2) >> 2 for value in blur(u)]


# Decoding


def decode(payload: bytes, shape: tuple[int, ...], dtype: str) -> list[int]:
    """The codes, in C order."""
    require(dtype in BITS, "data type")
    source = Bytes(payload)
    if payload[:1] == b"\0":
        source.take(4)
        size = BITS[dtype] // 8
        codes = [
            int.from_bytes(source.take(size), "little", signed=dtype.startswith("int")) for _ in range(math.prod(shape))
        ]
        source.end()
        return codes
    T, R, W = movie_of(shape)
    require(T * R * W > 0, "pixels")
    coded = read(source, shape, dtype)
    codes = [0] * (T * R * W)
    for frame, bits in coded.blank.items():
        codes[frame * R * W : (frame + 1) * R * W] = [signed(bits, dtype)] * (R * W)
    modelled = [frame for frame in range(T) if frame not in coded.blank]
    for rows, band in zip(coded.header.bands(R), coded.bands, strict=False):
        rest = decode_band(coded, band, rows, modelled, R, W, dtype)
        for frame in modelled:
            for y in rows:
                codes[(frame * R + y) * W : (frame * R + y + 1) * W] = rest[:W]
                del rest[:W]
    return codes


def signed(bits: int, dtype: str) -> int:
    return bits - (1 << BITS[dtype]) if bits > RANGES[dtype][1] else bits


def decode_band(coded: Coded, band: Band, rows: range, frames: list[int], R: int, W: int, dtype: str) -> list[int]:
    """The codes of one band, from its own streams."""
    header, states = coded.header, list(band.states)
    words, escapes = iter(band.words), iter(band.escapes)
    low_bits, low = header.low_bits, int.from_bytes(band.low, "little")
    table_of = [table for table in coded.tables for _ in range(table.run)]
    codes: list[int] = []
    for lanes, contexts, d, h in Prediction(header, frames, rows, R, W).rows():
        for x in range(W):
            table, s = table_of[contexts[x]], states[lanes[x]]
            slot = s % 4096
            symbol = table.symbol_at[slot]
            s = table.frequency[symbol] * (s >> 12) + slot - table.begin[symbol]
            if s < 65536:
                s = s * 65536 + following(words)
            states[lanes[x]] = s
            if symbol == 0:
                h.append(following(escapes))
            else:
                h.append(((d[x] + 512) >> 10) + symbol - 128)
                require(0 <= h[x] <= header.top, "high part")
            bits = low >> len(codes) * low_bits & (1 << low_bits) - 1
            code = (header.base + (h[x] << low_bits) + bits) % (1 << BITS[dtype])
            codes.append(signed(code, dtype))
    require(states == [65536] * 32, "last states")
    require(next(words, None) is None, "words left")
    require(next(escapes, None) is None, "escapes left")
    return codes


def following(stream: Iterator[int]) -> int:
    value = next(stream, None)
    if value is None:
        raise SpecError("none left")
    return value


# Encoding


def encode_plain(codes: Sequence[int], dtype: str) -> bytes:
    is_signed = dtype.startswith("int")
    return bytes(4) + b"".join(code.to_bytes(BITS[dtype] // 8, "little", signed=is_signed) for code in codes)


def encode(
    codes: Sequence[int],
    shape: tuple[int, ...],
    dtype: str,
    header: Header | None = None,
    runs: Sequence[int] = (),
    *,
    blank: bool = True,
    escaped: frozenset[int] = frozenset(),
    tables: Sequence[Table] = (),
) -> bytes:
    """
    A payload of form 1.

    Without a header, it is the simplest that is good for the codes. ``runs`` are those of the
    tables, one for all contexts if there are none; ``tables`` are the tables themselves. Blank frames are told if
    ``blank``, and modelled otherwise. Modelled pixels that are in ``escaped``, counted band by band, are escapes though
    there were a symbol.
    """
    T, R, W = movie_of(shape)
    frames = [list(codes[t * R * W : (t + 1) * R * W]) for t in range(T)]
    blanks = {t: frame[0] for t, frame in enumerate(frames) if blank and len(set(frame)) == 1}
    modelled = [t for t in range(T) if t not in blanks]
    if header is None:
        all_codes = [code for t in modelled for code in frames[t]]
        base = min(all_codes, default=0)
        header = Header(base=base, top=min(max(all_codes, default=0) - base, 4095))
    header = replace(header, band_rows=header.band_rows or R)
    header.check(dtype)

    # Forwards: what is coded, and how often in each table
    runs = [table.run for table in tables] or list(runs) or [3 * header.C]
    table_of = [table for table, run in enumerate(runs) for _ in range(run)]
    counts: list[Counter[int]] = [Counter() for _ in runs]
    bands: list[Band] = []
    symbols: list[list[tuple[int, int, int]]] = []  # of each band: lane, table, symbol
    n = 0
    for rows in header.bands(R) if modelled else []:
        band, coded = Band([65536] * 32), list[tuple[int, int, int]]()
        levels = [
            (code - header.base) % (1 << BITS[dtype]) for t in modelled for y in rows for code in row(frames[t], y, W)
        ]
        for lanes, contexts, d, h in Prediction(header, modelled, rows, R, W).rows():
            for x in range(W):
                h.append(levels[len(coded)] >> header.low_bits)
                symbol = h[x] - ((d[x] + 512) >> 10) + 128
                if n in escaped or h[x] > header.top or not 1 <= symbol <= 255:
                    symbol = 0
                    band.escapes.append(h[x])
                n += 1
                coded.append((lanes[x], table_of[contexts[x]], symbol))
                counts[table_of[contexts[x]]][symbol] += 1
        low = sum((level % (1 << header.low_bits)) << j * header.low_bits for j, level in enumerate(levels))
        band.low = low.to_bytes((len(levels) * header.low_bits + 7) // 8, "little")
        bands.append(band)
        symbols.append(coded)
    if modelled and not tables:
        tables = [Table(run, frequencies(count)) for run, count in zip(runs, counts, strict=True)]

    # Backwards: the states and the words
    for band, coded in zip(bands, symbols, strict=True):
        for lane, index, symbol in reversed(coded):
            f, begin, s = tables[index].frequency[symbol], tables[index].begin[symbol], band.states[lane]
            if s >= f * 2**20:
                band.words.append(s % 65536)
                s >>= 16
            band.states[lane] = (s // f) * 4096 + s % f + begin
        band.words.reverse()
    bits = {t: code % (1 << BITS[dtype]) for t, code in blanks.items()}
    return write(Coded(header, bits, list(tables), bands))


def row(frame: list[int], y: int, W: int) -> list[int]:
    return frame[y * W : (y + 1) * W]


def frequencies(count: Counter[int]) -> list[int]:
    """Frequencies that sum to 4096, in which all that occurs has at least 1."""
    total = sum(count.values())
    frequency = [0] * 256
    for symbol, occurs in count.items():
        frequency[symbol] = 1 + occurs * (4096 - len(count)) // total
    frequency[max(count, key=lambda symbol: count[symbol], default=128)] += 4096 - sum(frequency)
    return frequency
