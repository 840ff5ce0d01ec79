"""The codec ``dj_photon_codecs.rans``, written a second time, from ``docs/spec/rans.md`` alone.

Plain Python numbers and loops, nothing of the package: whatever this and the package disagree on, either the page
does not say or one of the two does not do. Names are those of the page.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    """What an encoder chooses, and a decoder reads first."""

    low_bits: int = 0
    blend: int = 64
    window: int = 8
    shift: int = 10
    start: int = 0
    top: int = 0
    base: int = 0
    form: int = 1

    @property
    def C(self) -> int:
        return ((self.top * 1024) >> self.shift) + 1

    def check(self, dtype: str) -> None:
        require(self.form in (1, 2), "form")
        require(self.low_bits < BITS[dtype], "low_bits")
        require(self.form == 1 or self.low_bits == 0, "low_bits of form 2")
        require(0 <= self.blend <= 255, "blend")
        require(1 <= self.window <= 255, "window")
        require(self.shift <= 22, "shift")
        require(self.start <= self.top, "start")
        require(self.top <= 4095, "top")
        require(RANGES[dtype][0] <= self.base <= RANGES[dtype][1], "base")
        require(self.C <= 4096, "number of contexts")


@dataclass
class Coded:
    """The fields of a payload of form 1 or 2; the codes of blank frames as their bits."""

    header: Header
    states: list[int]
    blank: dict[int, int] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    escapes: list[int] = field(default_factory=list)
    planes: list[bytes] = field(default_factory=list)


# Fields


def read(source: Bytes, shape: Sequence[int], dtype: str) -> Coded:
    """All fields."""
    T, R, W = movie_of(shape)
    u8, u16, u32 = source.u8, source.u16, source.u32
    form = u8()
    header = Header(u8(), u8(), u8(), u8(), u16(), u16(), source.i32(), form)
    header.check(dtype)
    n_tables, n_blank, n_words, n_escapes = u16(), u32(), u32(), u32()
    require(n_blank <= T, "n_blank")
    modelled = (T - n_blank) * R * W
    require(n_tables == 0 if n_blank == T else 1 <= n_tables <= 256, "n_tables")
    require(n_words <= modelled, "n_words")
    require(n_escapes <= modelled, "n_escapes")
    coded = Coded(header, [u32() for _ in range(8)])
    require(all(state >= 65536 for state in coded.states), "states")
    require(n_blank < T or coded.states == [65536] * 8, "states of no pixels")
    for _ in range(n_blank):
        frame, bits = u32(), u16()
        require(max(coded.blank, default=-1) < frame < T, "blank frames rise")
        require(bits < 1 << BITS[dtype], "eight zeros")
        coded.blank[frame] = bits
    for _ in range(n_tables):
        coded.tables.append(read_table(source))
    if n_tables:
        require(sum(table.run for table in coded.tables) == 3 * header.C, "runs")
    coded.words = [u16() for _ in range(n_words)]
    coded.escapes = [u16() for _ in range(n_escapes)]
    coded.planes = [source.take((modelled + 7) // 8) for _ in range(header.low_bits)]
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
    n = [len(part) for part in (coded.tables, coded.blank, coded.words, coded.escapes)]
    parts = [struct.pack("<5B2HiH3I", h.form, h.low_bits, h.blend, h.window, h.shift, h.start, h.top, h.base, *n)]
    parts.append(struct.pack("<8I", *coded.states))
    for frame, code in coded.blank.items():
        parts.append(struct.pack("<IH", frame, code))
    parts += [write_table(table) for table in coded.tables]
    parts.append(struct.pack(f"<{n[2]}H", *coded.words))
    parts.append(struct.pack(f"<{n[3]}H", *coded.escapes))
    return b"".join(parts + coded.planes)


def write_table(table: Table) -> bytes:
    used = [symbol for symbol in range(1, 256) if table.frequency[symbol]] or [1]
    first, count = used[0], used[-1] - used[0] + 1
    listed = table.frequency[first : first + count]
    return b"".join(number(value) for value in (table.run, table.frequency[0], first, count, *listed))


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([128 + value % 128, value >> 7])


# Prediction


def blur(a: Sequence[int]) -> list[int]:
    W = len(a)
    return [a[max(x - 1, 0)] + 2 * a[x] + a[min(x + 1, W - 1)] for x in range(W)]


K = [64 * (i**5 % 4093) // 4093 for i in range(4093)]


def offset(n: int, form: int) -> int:
    """U[n]."""
    return 16 * K[n % 4093] - 504 if form == 2 else 0


@dataclass
class Prediction:
    """The means, row after row of the modelled movie."""

    header: Header
    frames: list[int]
    R: int
    W: int

    def __post_init__(self) -> None:
        self.m = [[0] * self.W for _ in range(self.R)]
        self.v = [self.header.start * 1024] * self.W

    def rows(self) -> Iterator[tuple[list[int], list[int], list[int]]]:
        """Contexts and q of each row, and a list that the caller fills with the high parts before it goes on."""
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
                U = [offset((frame * self.R + y) * self.W + x, self.header.form) for x in range(self.W)]
                d = [min(max(p[x] + U[x], 0), top * 1024) for x in range(self.W)]
                h: list[int] = []
                yield [phase * self.header.C + (value >> shift) for value in d], [(v + 512) >> 10 for v in d], h
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
        source.u8()
        size = BITS[dtype] // 8
        codes = [
            int.from_bytes(source.take(size), "little", signed=dtype.startswith("int")) for _ in range(math.prod(shape))
        ]
        source.end()
        return codes
    T, R, W = movie_of(shape)
    require(T * R * W > 0, "pixels")
    coded = read(source, shape, dtype)
    modelled = decode_modelled(coded, [frame for frame in range(T) if frame not in coded.blank], R, W, dtype)
    codes = []
    for frame in range(T):
        if frame in coded.blank:
            bits = coded.blank[frame]
            codes += [bits - (1 << BITS[dtype]) if bits > RANGES[dtype][1] else bits] * (R * W)
        else:
            codes += modelled[: R * W]
            del modelled[: R * W]
    return codes


def decode_modelled(coded: Coded, frames: list[int], R: int, W: int, dtype: str) -> list[int]:
    header, states = coded.header, list(coded.states)
    words, escapes = iter(coded.words), iter(coded.escapes)
    table_of = [table for table in coded.tables for _ in range(table.run)]
    codes: list[int] = []
    for contexts, q, h in Prediction(header, frames, R, W).rows():
        for x in range(W):
            table, s = table_of[contexts[x]], states[x % 8]
            slot = s % 4096
            symbol = table.symbol_at[slot]
            s = table.frequency[symbol] * (s >> 12) + slot - table.begin[symbol]
            if s < 65536:
                s = s * 65536 + following(words)
            states[x % 8] = s
            if symbol == 0:
                h.append(following(escapes))
            else:
                h.append(q[x] + symbol - 128)
                require(0 <= h[x] <= header.top, "high part")
            i = len(codes)
            low = sum((plane[i // 8] >> i % 8 & 1) << bit for bit, plane in enumerate(coded.planes))
            code = (header.base + (h[x] << header.low_bits) + low) % (1 << BITS[dtype])
            codes.append(code - (1 << BITS[dtype]) if code > RANGES[dtype][1] else code)
    require(states == [65536] * 8, "last states")
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
    signed = dtype.startswith("int")
    return b"\0" + b"".join(code.to_bytes(BITS[dtype] // 8, "little", signed=signed) for code in codes)


def encode(
    codes: Sequence[int],
    shape: tuple[int, ...],
    dtype: str,
    header: Header | None = None,
    runs: Sequence[int] = (),
    *,
    blank: bool = True,
    escaped: frozenset[int] = frozenset(),
) -> bytes:
    """
    A payload of form 1, or of that of the header.

    Without a header, it is the simplest that is good for the codes. ``runs`` are those of the
    tables, one for all contexts if there are none. Blank frames are told if ``blank``, and modelled otherwise.
    Modelled pixels that are in ``escaped`` are escapes though there were a symbol.
    """
    T, R, W = movie_of(shape)
    frames = [list(codes[t * R * W : (t + 1) * R * W]) for t in range(T)]
    blanks = {t: frame[0] for t, frame in enumerate(frames) if blank and len(set(frame)) == 1}
    modelled = [code for t, frame in enumerate(frames) if t not in blanks for code in frame]
    if header is None:
        base = min(modelled, default=0)
        header = Header(base=base, top=min(max(modelled, default=0) - base, 4095))
    header.check(dtype)
    levels = [(code - header.base) % (1 << BITS[dtype]) for code in modelled]

    # Forwards: what is coded, and how often in each table
    runs = list(runs) or [3 * header.C]
    table_of = [table for table, run in enumerate(runs) for _ in range(run)]
    counts: list[Counter[int]] = [Counter() for _ in runs]
    symbols: list[tuple[int, int, int]] = []  # lane, table, symbol
    escapes: list[int] = []
    for contexts, q, h in Prediction(header, [t for t in range(T) if t not in blanks], R, W).rows():
        for x in range(W):
            i = len(symbols)
            h.append(levels[i] >> header.low_bits)
            symbol = h[x] - q[x] + 128
            if i in escaped or h[x] > header.top or not 1 <= symbol <= 255:
                symbol = 0
                escapes.append(h[x])
            symbols.append((x % 8, table_of[contexts[x]], symbol))
            counts[table_of[contexts[x]]][symbol] += 1
    tables = [Table(run, frequencies(count)) for run, count in zip(runs, counts, strict=True)] if modelled else []

    # Backwards: the states and the words
    states, words = [65536] * 8, []
    for lane, index, symbol in reversed(symbols):
        f, begin, s = tables[index].frequency[symbol], tables[index].begin[symbol], states[lane]
        if s >= f * 2**20:
            words.append(s % 65536)
            s >>= 16
        states[lane] = (s // f) * 4096 + s % f + begin
    words.reverse()

    planes = []
    for bit in range(header.low_bits):
        plane = bytearray((len(levels) + 7) // 8)
        for i, level in enumerate(levels):
            plane[i // 8] |= (level >> bit & 1) << i % 8
        planes.append(bytes(plane))
    bits = {t: code % (1 << BITS[dtype]) for t, code in blanks.items()}
    return write(Coded(header, states, bits, tables, words, escapes, planes))


def frequencies(count: Counter[int]) -> list[int]:
    """Frequencies that sum to 4096, in which all that occurs has at least 1."""
    total = sum(count.values())
    frequency = [0] * 256
    for symbol, occurs in count.items():
        frequency[symbol] = 1 + occurs * (4096 - len(count)) // total
    frequency[max(count, key=lambda symbol: count[symbol], default=128)] += 4096 - sum(frequency)
    return frequency
