"""The page of the entropy coder, the package, and a reader and writer made from the page alone say the same."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import spec_reference_rans as spec
from dj_photon_codecs import DamagedChunkError, RansCodec
from dj_photon_codecs.entropy.coder import decode, encode
from spec_reference_rans import BITS, RANGES, Coded, Header, SpecError, Table

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "rans.md").read_text()

Shape = tuple[int, ...]


def by_the_page(payload: bytes, shape: Shape, dtype: str) -> list[int] | None:
    """The codes, or None of an invalid payload."""
    try:
        return spec.decode(payload, shape, dtype)
    except SpecError:
        return None


def by_the_package(payload: bytes, shape: Shape, dtype: str) -> list[int] | None:
    try:
        codes = decode(payload, shape, np.dtype(dtype))
    except DamagedChunkError:
        return None
    assert (codes.shape, codes.dtype) == (shape, np.dtype(dtype))
    return [int(code) for code in codes.ravel()]


def same(payload: bytes, shape: Shape, dtype: str) -> list[int] | None:
    """What both decoders say of a payload."""
    codes = by_the_page(payload, shape, dtype)
    assert by_the_package(payload, shape, dtype) == codes
    return codes


def parts(payload: bytes, shape: Shape, dtype: str) -> Coded:
    return spec.read(spec.Bytes(payload), shape, dtype)


def rows_of(section: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page; the table's first column has the title given."""
    lines = PAGE.split(f"\n{section}")[1].split(f"\n{heading}")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# The worked examples

SHAPE, DTYPE = (6, 8, 18), "uint8"
DITHERED_SHAPE = (6, 8, 12)

EXAMPLE, DITHERED_EXAMPLE = "## Worked example", "## Dithered example"


def worked_payload(section: str = EXAMPLE) -> bytes:
    example = PAGE.split(f"\n{section}")[1]
    return bytes.fromhex("".join(example.split("```text\n")[1].split("```")[0].split()))


def dithered_code(t: int, y: int, x: int) -> int:
    if t == 1:
        return 3
    n = (t * 8 + y) * 12 + x
    k = 64 * (n**5 % 4093) // 4093
    return 210 if (t, y, x) == (4, 5, 7) else (5000 + 300 * x + 100 * y + 16 * k - 504 + 512) // 1024


def worked_code(t: int, y: int, x: int) -> int:
    if t == 2:
        return 9
    return 210 if (t, y, x) == (4, 5, 7) else 20 + x // 6 + ((7 * x + 5 * y + 3 * t) % 11) // 9


WORKED = [worked_code(*place) for place in np.ndindex(SHAPE)]
DITHERED = [dithered_code(*place) for place in np.ndindex(DITHERED_SHAPE)]
EXAMPLES = [(EXAMPLE, SHAPE, WORKED), (DITHERED_EXAMPLE, DITHERED_SHAPE, DITHERED)]


def test_worked_example_is_the_formula_of_the_page() -> None:
    text = " ".join(PAGE.split("\n## Worked example")[1].split("```")[0].split())
    assert "A movie of `uint8`, 6 frames of 8 rows of 18 columns." in text
    assert "`20 + x // 6 + ((7 * x + 5 * y + 3 * t) mod 11) // 9`" in text
    assert "frame 2, which is 9 throughout, and at the pixel `t = 4, y = 5, x = 7`, which is 210" in text
    assert f"The payload has {len(worked_payload())} bytes" in text
    assert same(worked_payload(), SHAPE, DTYPE) == WORKED


def test_dithered_example_is_the_formula_of_the_page() -> None:
    text = " ".join(PAGE.split(f"\n{DITHERED_EXAMPLE}")[1].split("```")[0].split())
    assert "A movie of `uint8`, 6 frames of 8 rows of 12 columns." in text
    assert "`(5000 + 300 * x + 100 * y + U[n] + 512) >> 10`" in text
    assert "frame 1, which is 3 throughout, and at the pixel `t = 4, y = 5, x = 7`, which is 210" in text
    payload = worked_payload(DITHERED_EXAMPLE)
    assert f"The payload has {len(payload)} bytes" in text
    assert same(payload, DITHERED_SHAPE, DTYPE) == DITHERED
    assert same(set_field(payload, "dithered", 0), DITHERED_SHAPE, DTYPE) is None


def test_offsets_of_the_page() -> None:
    """The first ones, which the page lists."""
    listed = PAGE.split("`U[0]` to `U[11]` are ")[1].split(".")[0].replace(" and", ",").split(", ")
    assert [spec.offset(n, 1) for n in range(12)] == [int(value) for value in listed if value]
    assert {spec.offset(n, 1) for n in range(4093)} == set(range(-504, 505, 16))
    assert spec.offset(4093 * 5 + 7, 1) == spec.offset(7, 1)


@pytest.mark.parametrize(("section", "shape", "codes"), EXAMPLES, ids=["plain", "dithered"])
def test_worked_example_is_written_as_the_page_has_it(section: str, shape: Shape, codes: list[int]) -> None:
    """The writer of the page, given the choices of the example, makes the same bytes; and so does the package."""
    coded = parts(worked_payload(section), shape, DTYPE)
    assert spec.encode(codes, shape, DTYPE, coded.header, tables=coded.tables) == worked_payload(section)
    assert encode(np.array(codes, DTYPE).reshape(shape)) == worked_payload(section)


@pytest.mark.parametrize(("section", "shape", "codes"), EXAMPLES, ids=["plain", "dithered"])
def test_field_table_of_the_worked_example(section: str, shape: Shape, codes: list[int]) -> None:
    payload = worked_payload(section)
    coded = parts(payload, shape, DTYPE)
    header, tables = coded.header, coded.tables
    frequencies = []
    for table in tables:
        used = [symbol for symbol in range(1, 256) if table.frequency[symbol]]
        listed = table.frequency[used[0] : used[-1] + 1]
        frequencies.append([table.run, 0, table.frequency[0], used[0], used[-1], *listed])
    [band] = coded.bands
    blank = next(iter(coded.blank.items()))
    tables_size = sum(len(spec.write_table(table)) for table in tables)
    expected: list[tuple[bytes, list[int]]] = [
        (payload[:6], [1, header.dithered, header.low_bits, header.shift, header.blend, header.window]),
        (payload[6:16], [len(tables), header.start, header.top, header.base, header.C]),
        (payload[16:28], [header.band_rows, len(coded.blank), tables_size]),
        (payload[28:36], [*blank]),
        (payload[36:44], [len(band.words), len(band.escapes)]),
        (payload[44:172], band.states),
        *((spec.write_table(table), numbers) for table, numbers in zip(tables, frequencies, strict=True)),
        (bytes(-tables_size % 4), []),
        (spec.numbers16(band.words), band.words),
        (payload[-4:], [band.escapes[0], header.base + band.escapes[0]]),
    ]
    expected = [row for row in expected if row[0]]
    assert b"".join(field for field, _ in expected) == payload
    rows = rows_of(section, "| bytes | field | value |")
    for (left, _, value), (field, numbers) in zip(rows, expected, strict=True):
        told = bytes.fromhex("".join(re.findall(r"`([0-9a-f]+)`", left)))
        assert field.startswith(told) if left.endswith("...") else field == told
        read = [int(number, 0) for number in re.findall(r"0x[0-9a-f]+|\d+", value)]
        assert numbers[: len(read)] == read if value.endswith("...") else numbers == read


def fields_of_the_page() -> dict[str, tuple[int, str]]:
    """Offset and letter in ``struct`` of the fields of the header, by their name."""
    letters = {"u8": "B", "u16": "H", "u32": "I", "i32": "i"}
    fields, offset = {}, 0
    for name, kind, *_ in rows_of("**Form 1, coded.**", "| field | type | legal values | meaning |")[:13]:
        fields[name.strip("`")] = offset, letters[kind]
        offset += struct.calcsize(f"<{letters[kind]}")
    return fields


FIELDS = fields_of_the_page()

#: Bytes of the header.
HEADER = 28


def set_field(payload: bytes, name: str, value: int) -> bytes:
    offset, letter = FIELDS[name]
    changed = bytearray(payload)
    struct.pack_into(f"<{letter}", changed, offset, value)
    return bytes(changed)


def test_fields_of_the_page_are_those_of_the_example() -> None:
    names = "form dithered low_bits shift blend window n_tables start top base band_rows n_blank table_bytes"
    assert list(FIELDS) == names.split()
    assert [offset for offset, _ in FIELDS.values()] == [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24]
    coded = parts(worked_payload(), SHAPE, DTYPE)
    for name in names.split():
        if hasattr(coded.header, name):
            offset, letter = FIELDS[name]
            assert struct.unpack_from(f"<{letter}", worked_payload(), offset) == (getattr(coded.header, name),)


# The package writes, the page reads


@st.composite
def written(draw: st.DrawFn) -> tuple[np.ndarray[Shape, np.dtype[np.generic]], str]:
    """Arrays of all ranks and sorts; most are worth coding."""
    dtype = draw(st.sampled_from(sorted(BITS)))
    large = [(700,), (40, 17), (3, 270, 3), (2, 259, 4), (9, 90), (5, 13, 11), (8, 8, 8), (6, 3, 5, 9), (3, 2, 30, 4)]
    shape: Shape = draw(st.sampled_from([*large, ()])) or tuple(draw(st.lists(st.integers(1, 7), max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    low, high = RANGES[dtype]
    spread = draw(st.sampled_from([0.0, 0.6, 2.0, 9.0, 200.0, 4000.0]))
    center = draw(st.sampled_from([low, 0, 40, 90, high, (low + high) // 2]))
    slope = draw(st.sampled_from([0, 0, 3, 20]))
    codes = np.asarray(rng.normal(center, spread, shape) + slope * rng.integers(0, 9, shape[-1:]))
    if draw(st.booleans()) and shape:
        codes[draw(st.integers(0, shape[0] - 1)) :: 5] = draw(st.integers(low, high))
    if draw(st.booleans()):
        codes[rng.random(shape) < 0.01] = draw(st.integers(low, high))
    return np.rint(codes).clip(low, high).astype(dtype), dtype


@pytest.mark.parametrize("shape", [(9, 16, 17), (60, 40), (5, 2, 3, 90), (5, 2, 4200)], ids=str)
@pytest.mark.parametrize("dtype", sorted(BITS))
def test_dithered_codes_are_read_by_the_page(shape: Shape, dtype: str) -> None:
    """With a frame that is not modelled, an escape, and a negative mean where no code is below 0."""
    signal = np.random.default_rng(7).normal(0.4, 0.4, shape).clip(0) + np.linspace(0, 20, shape[-1])
    n = np.arange(signal.size).reshape(shape)
    U = np.array([spec.offset(i, 1) for i in range(4093)])[n % 4093]
    codes = np.floor(signal + U / 1024 + 0.5).astype(dtype)
    codes[0] = 3
    codes.flat[codes.size - 5] = RANGES[dtype][1]
    payload = encode(codes)
    assert parts(payload, shape, dtype).header.dithered
    assert parts(payload, shape, dtype).blank == ({} if math.prod(shape[1:]) < 64 else {0: 3})
    assert same(payload, shape, dtype) == codes.ravel().tolist()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(case=written())
@example(case=(np.array(-3, "int8"), "int8"))
def test_what_the_package_writes_is_read_by_the_page(
    case: tuple[np.ndarray[Shape, np.dtype[np.generic]], str],
) -> None:
    codes, dtype = case
    payload = encode(codes)
    assert same(payload, codes.shape, dtype) == codes.ravel().tolist()
    if payload[0]:  # and the page writes the same bytes with the same choices
        coded = parts(payload, codes.shape, dtype)
        frames = [index for index, frame in enumerate(codes) if (frame == frame.flat[0]).all()]
        if frames == [*coded.blank]:
            assert spec.encode(codes.ravel().tolist(), codes.shape, dtype, coded.header, tables=coded.tables) == payload


def noise(shape: Shape, center: float, spread: float, dtype: str) -> np.ndarray[Shape, np.dtype[np.generic]]:
    codes = np.random.default_rng(7).normal(center, spread, shape)
    return np.rint(codes).clip(*RANGES[dtype]).astype(dtype)


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("shape", [(3000,), (60, 40), (9, 16, 17), (6, 2, 9, 18)], ids=str)
def test_coded_payloads_of_every_type_and_rank(dtype: str, shape: Shape) -> None:
    """With escapes, and blank frames where a frame has pixels for it."""
    signed = dtype.startswith("int")
    codes = noise(shape, -9 if signed else 60, 2, dtype)
    codes.flat[codes.size // 2] = RANGES[dtype][1]
    if math.prod(shape[1:]) >= 64:
        codes[2] = RANGES[dtype][0]
        codes[-1] = 7
    payload = encode(codes)
    assert same(payload, shape, dtype) == codes.ravel().tolist()
    coded = parts(payload, shape, dtype)
    assert bool(coded.blank) == (math.prod(shape[1:]) >= 64)
    assert coded.bands[0].escapes or BITS[dtype] == 8
    assert (coded.header.base < 0) == signed


@pytest.mark.parametrize(("dtype", "center", "spread"), [("uint16", 30000, 900), ("int16", -300, 150)])
def test_low_bits_of_the_package(dtype: str, center: float, spread: float) -> None:
    codes = noise((5, 19, 23), center, spread, dtype)
    payload = encode(codes)
    assert parts(payload, codes.shape, dtype).header.low_bits >= 3
    assert same(payload, codes.shape, dtype) == codes.ravel().tolist()


def test_blank_frames_alone() -> None:
    codes = np.repeat(np.array([0, -128, 127, -1], "int8"), 80).reshape(4, 8, 10)
    payload = encode(codes)
    assert not parts(payload, codes.shape, "int8").tables
    assert same(payload, codes.shape, "int8") == codes.ravel().tolist()


# The page writes, the package reads


@st.composite
def choices(draw: st.DrawFn) -> tuple[bytes, Shape, str, list[int]]:
    """Payloads with any legal header, and the codes in them."""
    dtype = draw(st.sampled_from(sorted(BITS)))
    shape: Shape = tuple(draw(st.lists(st.integers(1, 7), max_size=4) | st.sampled_from([[3, 4, 45], [2, 37, 3]])))
    rows = max(1, spec.movie_of(shape)[1])
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    low, high = RANGES[dtype]
    base = draw(st.integers(low, high) | st.sampled_from([low, 0, high]))
    dithered = draw(st.sampled_from([0, 1]))
    low_bits = 0 if dithered else draw(st.just(0) | st.integers(0, BITS[dtype] - 1))
    top = draw(st.sampled_from([0, 1, 5, 40, 255, 1000, 4095]) | st.integers(0, 4095))
    smallest = next(shift for shift in range(23) if (top * 1024 >> shift) < 4096)
    header = Header(
        low_bits,
        draw(st.integers(0, 255) | st.sampled_from([0, 1, 255])),
        draw(st.integers(1, 255) | st.integers(1, 4)),
        draw(st.integers(smallest, 22) | st.integers(smallest, min(smallest + 3, 22))),
        draw(st.integers(0, top) | st.just(top)),
        top,
        base,
        dithered,
        draw(st.integers(1, rows) | st.sampled_from([1, rows])),
    )
    cuts = sorted(set(rng.integers(1, 3 * header.C, draw(st.sampled_from([0, 1, 2, 30, 255])))) if header.C > 1 else [])
    runs = [int(run) for run in np.diff([0, *cuts, 3 * header.C])]
    width = draw(st.sampled_from([0, 2, 20, 300, 65535]))
    begin = draw(st.integers(low, high) | st.just(base))
    codes = rng.integers(begin, min(begin + width, high), shape, endpoint=True)
    codes = np.where(rng.random(shape) < 0.03, draw(st.integers(low, high)), codes)
    blank: bool = draw(st.booleans())
    if blank and shape:  # of any code, also one below the base
        codes[:: draw(st.integers(1, 4))] = draw(st.integers(low, high))
    escaped = frozenset(np.flatnonzero(rng.random(codes.size) < draw(st.sampled_from([0, 0.05, 1]))).tolist())
    listed = [int(code) for code in codes.ravel()]
    return spec.encode(listed, shape, dtype, header, runs, blank=blank, escaped=escaped), shape, dtype, listed


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(case=choices())
def test_what_the_page_writes_is_read_by_the_package(case: tuple[bytes, Shape, str, list[int]]) -> None:
    payload, shape, dtype, codes = case
    assert same(payload, shape, dtype) == codes


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_simplest_payloads(dtype: str) -> None:
    for shape in [(), (1,), (70,), (7, 9), (5, 6, 7), (3, 4, 2, 5)]:
        codes = noise(shape, 50, 5, dtype).ravel().tolist()
        for payload in (spec.encode(codes, shape, dtype), spec.encode_plain(codes, dtype)):
            assert same(payload, shape, dtype) == codes


def test_longest_movie_of_a_rare_window() -> None:
    """More frames than the largest window, more columns than lanes."""
    codes = noise((300, 2, 5), 90, 4, "uint8").ravel().tolist()
    for window, blend in [(255, 0), (255, 255), (1, 0), (1, 255), (2, 1)]:
        header = Header(0, blend, window, 7, 100, 140, 40)
        assert same(spec.encode(codes, (300, 2, 5), "uint8", header), (300, 2, 5), "uint8") == codes


def test_256_tables_of_4096_contexts() -> None:
    codes = noise((7, 12, 14), 3000, 900, "uint16").ravel().tolist()
    header = Header(0, 4, 15, 10, 3000, 4095, 0)
    payload = spec.encode(codes, (7, 12, 14), "uint16", header, [48] * 256)
    assert same(payload, (7, 12, 14), "uint16") == codes
    assert same(set_field(payload, "n_tables", 255), (7, 12, 14), "uint16") is None
    refused = spec.encode(codes, (7, 12, 14), "uint16", header, [48] * 255 + [24, 24])
    assert same(refused, (7, 12, 14), "uint16") is None


# Damaged payloads


def small(name: str) -> tuple[bytes, Shape, str, list[int]]:
    """A payload with one sort of everything in it, or a coarse one; no single bit of it is beyond the page."""
    if name == "dithered":
        payload, shape, dtype, listed = small("int16")
        header = replace(parts(payload, shape, dtype).header, dithered=1)
        payload = spec.encode(listed, shape, dtype, header, [3, 8, 64], escaped=frozenset([11]))
        assert same(payload, shape, dtype) == listed
        return payload, shape, dtype, listed
    if name == "int16":
        shape, header, runs = (5, 4, 9), Header(0, 3, 2, 9, 4, 12, -40, band_rows=3), [3, 8, 64]
        codes = noise(shape, -33, 2, name).clip(-39, -28)
        codes[2] = -500
        codes[3, 1, 4] = 300
    elif name == "uint16":
        shape, header, runs = (4, 3, 6), Header(4, 64, 8, 22, 9, 20, 900), []
        codes = noise(shape, 1080, 40, name)
    else:
        shape, header, runs = (4, 3, 7), Header(0, 0, 255, 8, 5, 20, 100), [60, 183]
        codes = noise(shape, 108, 3, name).clip(100, 119)
    listed = [int(code) for code in codes.ravel()]
    payload = spec.encode(listed, shape, name, header, runs, escaped=frozenset([11]))
    assert same(payload, shape, name) == listed
    return payload, shape, name, listed


NAMES = ["int16", "uint16", "uint8", "dithered"]


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_invalid_for_both(name: str) -> None:
    payload, shape, dtype, codes = small(name)
    for whole in (payload, spec.encode_plain(codes, dtype)):
        assert not any(same(whole[:length], shape, dtype) for length in range(len(whole)))
        assert same(whole + b"\0", shape, dtype) is None
        assert same(whole, (shape[0] + 1, *shape[1:]), dtype) is None


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_flip_is_the_same_for_both(name: str) -> None:
    payload, shape, dtype, codes = small(name)
    read, other = 0, 0
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        found = same(bytes(flipped), shape, dtype)
        read += found is not None
        other += found is not None and found != codes
    assert 0 < other <= read < 8 * len(payload)


@pytest.mark.fuzz
@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(name=st.sampled_from(NAMES), changes=st.dictionaries(st.integers(HEADER, 900), st.integers(0, 255), max_size=4))
def test_changed_bytes_are_the_same_for_both(name: str, changes: dict[int, int]) -> None:
    """Behind the header: in blank frames, tables and streams."""
    payload, shape, dtype, _ = small(name)
    changed = bytearray(payload)
    for place, value in changes.items():
        changed[place % (len(payload) - HEADER) + HEADER] = value
    same(bytes(changed), shape, dtype)


ILLEGAL = [
    *(("form", value) for value in (2, 128, 255)),
    *(("dithered", value) for value in (2, 255)),
    *(("low_bits", value) for value in (1, 16, 17, 255)),
    ("window", 0),
    *(("shift", value) for value in (0, 1, 8, 23, 255)),
    *(("start", value) for value in (13, 65535)),
    *(("top", value) for value in (0, 3, 4096, 65535)),
    *(("base", value) for value in (-32769, 32768, -(1 << 31), (1 << 31) - 1)),
    *(("n_tables", value) for value in (0, 2, 4, 256, 257, 65535)),
    *(("n_blank", value) for value in (0, 2, 5, 6, (1 << 32) - 1)),
    *(("band_rows", value) for value in (0, 1, 2, 5, (1 << 32) - 1)),
    *(("table_bytes", value) for value in (0, 1, 4, 1000, (1 << 32) - 1)),
]


@pytest.mark.parametrize(("name", "value"), ILLEGAL)
def test_header_fields_out_of_range_are_invalid_for_both(name: str, value: int) -> None:
    payload, shape, dtype, _ = small("int16")
    assert same(set_field(payload, name, value), shape, dtype) is None


@pytest.mark.parametrize("band", [0, 1])
@pytest.mark.parametrize("index", range(34))
def test_a_directory_out_of_range_is_invalid_for_both(band: int, index: int) -> None:
    """Words, escapes and states."""
    payload, shape, dtype, _ = small("int16")
    for value in (0, 1, 65535, 4 * 3 * 9 + 1, (1 << 32) - 1) if index < 2 else (0, 65535):
        changed = bytearray(payload)
        struct.pack_into("<I", changed, HEADER + 8 + 4 * (34 * band + index), value)
        assert same(bytes(changed), shape, dtype) is None or struct.unpack_from(
            "<I", payload, HEADER + 8 + 4 * (34 * band + index)
        ) == (value,)


@pytest.mark.parametrize("name", ["blend", "window", "shift", "start"])
def test_all_values_of_a_byte_of_the_header(name: str) -> None:
    payload, shape, dtype, _ = small("uint16")
    for value in range(256):
        same(set_field(payload, name, value), shape, dtype)


def test_dithered_codes_have_no_low_bits() -> None:
    payload, shape, dtype, codes = small("uint16")
    assert same(payload, shape, dtype) == codes
    assert same(set_field(payload, "dithered", 1), shape, dtype) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_that_is_told_otherwise_of_its_dither_is_the_same_for_both(name: str) -> None:
    payload, shape, dtype, codes = small(name)
    assert same(set_field(payload, "dithered", 1 - payload[1]), shape, dtype) != codes


def test_low_bits_of_all_the_bits_are_invalid() -> None:
    for dtype, bits in BITS.items():
        header = Header(bits - 1, 0, 1, 22, 0, 0, 0)
        payload = spec.encode([1, 0, 1], (1, 1, 3), dtype, header)
        assert same(payload, (1, 1, 3), dtype) == [1, 0, 1]
        more = set_field(payload, "low_bits", bits)
        assert same(more, (1, 1, 3), dtype) is None


def test_padding_is_not_looked_at() -> None:
    """Behind codes of blank frames, tables, words, escapes and low bits; and the three bytes of plain payloads."""
    codes = [9] * 6 + [1, 0, 300, 0, 1, 1]
    payload = spec.encode(codes, (2, 1, 6), "uint16", Header(1, 0, 1, 22, 0, 0, 0), [1, 2], escaped=frozenset())
    coded = parts(payload, (2, 1, 6), "uint16")
    [band] = coded.bands
    sizes = [HEADER, 4, 2, 136, sum(len(spec.write_table(t)) for t in coded.tables), 2 * len(band.words),
             2 * len(band.escapes), len(band.low)]  # fmt: skip
    end, places = 0, []
    for size in sizes:
        end += size
        places += [*range(end, end + -end % 4)]
        end += -end % 4
    assert end == len(payload)
    assert len(places) > 4
    for whole, listed in ((payload, places), (spec.encode_plain(codes, "uint16"), [1, 2, 3])):
        changed = bytearray(whole)
        for place in listed:
            assert changed[place] == 0
            changed[place] = 255
        assert same(bytes(changed), (2, 1, 6), "uint16") == codes


Frames = list[tuple[int, int]]


@pytest.mark.parametrize(
    ("blank", "legal"),
    [
        ([(0, 1), (3, 2)], True),
        ([(2, 1), (3, 65535)], True),
        ([(3, 1), (0, 2)], False),
        ([(2, 1), (2, 1)], False),
        ([(0, 1), (4, 2)], False),
        ([(0, 1), ((1 << 32) - 1, 2)], False),
        ([((1 << 32) - 1, 1), (0, 2)], False),
    ],
)
def test_blank_frames_rise(blank: Frames, legal: bool) -> None:
    shape = (4, 3, 5)
    codes = [code for t in range(4) for code in ([7] * 15 if t in (1, 2) else range(50, 65))]
    payload = spec.encode(codes, shape, "uint16")
    numbers, values = zip(*blank, strict=True)
    frames = struct.pack("<2I2H", *numbers, *values)
    assert (same(payload[:HEADER] + frames + payload[HEADER + len(frames) :], shape, "uint16") is not None) == legal


def of_numbers(*values: int) -> bytes:
    return b"".join(spec.number(value) for value in values)


@pytest.mark.parametrize(
    ("tables", "legal"),
    [
        ([of_numbers(63, 0, 128, 1, 4096)], True),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 1, 0)], True),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 255, 1, 0)], True),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 1, 255, *[0] * 255)], True),
        ([of_numbers(62, 0, 128, 1, 4096)], False),
        ([of_numbers(64, 0, 128, 1, 4096)], False),
        ([of_numbers(63, 0, 128, 1, 4096), of_numbers(1, 4096, 1, 0)], False),
        ([of_numbers(63, 0, 128, 1, 4096), of_numbers(0, 4096, 1, 0)], False),
        ([of_numbers(0, 4096, 1, 0), of_numbers(63, 0, 128, 1, 4096)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 0, 0)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 257, 0)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 255, 2, 0, 0)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4096, 1, 256, *[0] * 256)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4095, 1, 0)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 4095, 1, 1, 2)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 8192, 1, 0)], False),
        ([of_numbers(62, 0, 128, 1, 4096), of_numbers(1, 16383, 1, 0)], False),
        ([of_numbers(63, 0, 128, 1) + b"\x80\xa0\x00"], False),
        ([of_numbers(63, 0, 128, 1) + b"\x80\xa0\x01"], False),
    ],
)
def test_tables(tables: list[bytes], legal: bool) -> None:
    """All but the first table are never used: they are read nevertheless."""
    shape = (4, 3, 5)
    header = Header(0, 4, 8, 10, 20, 20, 100)
    payload = spec.encode([120] * 60, shape, "uint8", header, [63], blank=False)
    table = spec.write_table(Table(63, [4096 if symbol == 128 else 0 for symbol in range(256)]))
    begin = HEADER + 136
    assert payload[begin:] == spec.padded(table)
    packed = b"".join(tables)
    changed = set_field(set_field(payload, "n_tables", len(tables)), "table_bytes", len(packed))
    changed = changed[:begin] + spec.padded(packed)
    assert same(changed, shape, "uint8") == ([120] * 60 if legal else None)
    more = set_field(changed[:begin] + spec.padded(packed + b"\0"), "table_bytes", len(packed) + 1)
    assert same(more, shape, "uint8") is None


def band_change(**changes: Callable[[Any], Any]) -> Callable[[Coded], Coded]:
    """A change of fields of the first band."""

    def changed(coded: Coded) -> Coded:
        first, *others = coded.bands
        new = replace(first, **{name: change(getattr(first, name)) for name, change in changes.items()})
        return replace(coded, bands=[new, *others])

    return changed


@pytest.mark.parametrize(
    "change",
    [
        band_change(words=lambda words: words[:-1]),
        band_change(words=lambda words: [*words, 0]),
        band_change(words=lambda words: [0, *words]),
        band_change(escapes=lambda escapes: escapes[:-1]),
        band_change(escapes=lambda escapes: [*escapes, 0]),
        band_change(escapes=lambda _: []),
        band_change(states=lambda states: states[::-1]),
    ],
)
def test_streams_that_do_not_end_together_are_invalid(change: Callable[[Coded], Coded]) -> None:
    for name in NAMES:
        payload, shape, dtype, _ = small(name)
        assert same(spec.write(change(parts(payload, shape, dtype))), shape, dtype) is None


@pytest.mark.parametrize(("low_bits", "escape"), [(0, 55), (0, 56), (2, 13), (2, 14), (3, 6), (3, 7), (7, 0), (7, 1)])
def test_codes_wrap_at_the_ends_of_the_range(low_bits: int, escape: int) -> None:
    """By the escape of the last pixel, all low bits being set."""
    header = Header(low_bits, 4, 8, 10, 0, 3, 128 if low_bits == 7 else 200)
    payload = spec.encode([header.base] * 20, (2, 2, 5), "uint8", header, blank=False, escaped=frozenset([19]))
    coded = parts(payload, (2, 2, 5), "uint8")
    assert coded.bands[0].escapes == [0]
    ones = b"\xff" * ((20 * low_bits + 7) // 8)
    changed = spec.write(band_change(escapes=lambda _: [escape], low=lambda _: ones)(coded))
    codes = [header.base + (1 << low_bits) - 1] * 20
    codes[19] += escape << low_bits
    assert same(changed, (2, 2, 5), "uint8") == [code % 256 for code in codes]


@pytest.mark.parametrize("highest", [255, 256])
def test_low_bits_above_a_symbol_may_wrap(highest: int) -> None:
    codes = [200] * 19 + [highest]
    payload = spec.encode(codes, (2, 2, 5), "uint16", Header(3, 4, 8, 10, 0, 9, 200), blank=False)
    assert not parts(payload, (2, 2, 5), "uint16").bands[0].escapes
    assert same(payload, (2, 2, 5), "uint16") == codes
    assert same(payload, (2, 2, 5), "uint8") == [code % 256 for code in codes]


# The edges of what is legal


def two_byte_number() -> tuple[bytes, Shape, str]:
    """The frequency 0 of symbol 0 in two bytes, though it is below 128."""
    payload = spec.encode([9, 8], (2, 1, 1), "uint8", Header(0, 0, 1, 22, 0, 1, 8), blank=False)
    begin, n_bytes = HEADER + 136, payload[24]
    assert payload[begin : begin + 2] == b"\x03\0"
    packed = payload[begin : begin + 1] + b"\x80\0" + payload[begin + 2 : begin + n_bytes]
    rest = payload[begin + n_bytes + -n_bytes % 4 :]
    return set_field(payload[:begin] + spec.padded(packed) + rest, "table_bytes", n_bytes + 1), (2, 1, 1), "uint8"


def upper_bits_of_a_blank_frame() -> tuple[bytes, Shape, str]:
    """No eight zeros above the code of a blank frame of 8 bits."""
    payload = spec.encode([9, 9], (1, 1, 2), "uint8")
    assert payload[HEADER:] == b"\0\0\0\0\x09\0\0\0"
    return payload[:-3] + b"\x01\0\0", (1, 1, 2), "uint8"


def top_beyond_the_range() -> tuple[bytes, Shape, str]:
    """No code is above 255, but the top level would be."""
    payload = spec.encode([210, 209], (2, 1, 1), "uint16", Header(0, 0, 1, 22, 0, 56, 200), blank=False)
    return payload, (2, 1, 1), "uint8"


def tables_of_no_pixels() -> tuple[bytes, Shape, str]:
    """All frames are blank, and there is room for tables."""
    payload = spec.encode([9, 9], (1, 1, 2), "uint8")
    return set_field(payload, "table_bytes", 4) + bytes(4), (1, 1, 2), "uint8"


def first_symbol_256() -> tuple[bytes, Shape, str]:
    """A table of which ``first`` is 256, above its legal values, and ``count`` is 0."""
    codes, header = [9, 8], Header(0, 0, 1, 22, 0, 1, 8)
    coded = parts(spec.encode(codes, (2, 1, 1), "uint8", header, [2, 1], blank=False), (2, 1, 1), "uint8")
    packed = spec.write_table(coded.tables[0]) + of_numbers(1, 4096, 256, 0)
    whole = spec.write(replace(coded, tables=[coded.tables[0]]))
    begin, n_bytes = HEADER + 136, whole[24]
    changed = whole[:begin] + spec.padded(packed) + whole[begin + n_bytes + -n_bytes % 4 :]
    return set_field(set_field(changed, "n_tables", 2), "table_bytes", len(packed)), (2, 1, 1), "uint8"


EDGES = [two_byte_number, upper_bits_of_a_blank_frame, top_beyond_the_range, tables_of_no_pixels, first_symbol_256]


@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.__name__)
def test_the_edges_of_what_is_legal(case: Callable[[], tuple[bytes, Shape, str]]) -> None:
    payload, shape, dtype = case()
    same(payload, shape, dtype)


def test_schema_of_the_codec() -> None:
    """The page's metadata is valid and makes the codec; every departure from it is refused by both."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "spec" / "rans.schema.json").read_text())
    document = json.loads(PAGE.split("```json")[1].split("```")[0])
    for valid in (document, {"name": document["name"]}):
        jsonschema.validate(valid, schema)
        assert RansCodec.from_dict(valid).to_dict() == document
    for wrong in ({**document, "name": "rans"}, {**document, "configuration": {"lanes": 8}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ValueError, match="not a valid dj_photon_codecs.rans codec"):
            RansCodec.from_dict(wrong)
