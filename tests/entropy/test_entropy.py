"""The entropy coder: what goes in comes out, compiled loops say what plain ones say, and no bytes are trusted."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

import spec_reference_rans as spec
from dj_photon_codecs import ConfigurationError, DamagedChunkError, RansCodec, _dither
from dj_photon_codecs.entropy.coder import DTYPES, decode, encode
from dj_photon_codecs.entropy.model import (
    LANES,
    MAX_TABLES,
    MAX_TOP,
    SCALE,
    SYMBOLS,
    Model,
    offset_pattern,
    place_pattern,
)
from dj_photon_codecs.entropy.payload import CODED, PLAIN_HEADER, Payload

Codes = np.ndarray[Any, Any]


def movie(shape: tuple[int, ...] = (9, 12, 13), dtype: str = "uint8", light: float = 20.0, seed: int = 0) -> Codes:
    """Codes of a scene with a slope of light across it."""
    slope = np.linspace(0.2, 2, math.prod(shape[1:])).reshape(shape[1:])
    return np.random.default_rng(seed).poisson(light * slope, shape).astype(dtype)


def dithered(
    shape: tuple[int, ...] = (9, 12, 13), dtype: str = "uint8", light: float = 20.0, sigma: float = 2.0
) -> Codes:
    """The same scene, with noise of one width, dithered."""
    slope = np.linspace(0.2, 2, math.prod(shape[1:])).reshape(shape[1:])
    signal = np.random.default_rng(0).normal(light * slope, sigma, shape)
    place = np.arange(signal.size).reshape(shape) % _dither.PERIOD
    codes = np.rint(signal + _dither.offset(_dither.offset_levels()[place]))
    return np.asarray(codes.clip(0, 255).astype(dtype))


def model_of(payload: bytes, codes: Codes) -> Model:
    """What the header of a coded payload says."""
    return Payload.parse(np.frombuffer(payload, np.uint8), cube(codes), codes.dtype).model


def size_as(codes: Codes, dithered: bool) -> int:
    """Bytes of the payload with or without dither in its predictions, all else being the choice of the encoder."""
    payload = encode(codes)
    coded = spec.read(spec.Bytes(payload), codes.shape, codes.dtype.name)
    if coded.header.dithered == dithered:
        return len(payload)
    header = replace(coded.header, dithered=int(dithered))
    runs = [table.run for table in coded.tables]
    return len(spec.encode(codes.ravel().tolist(), codes.shape, codes.dtype.name, header, runs))


def cube(codes: Codes) -> tuple[int, int, int]:
    return codes.shape[0], math.prod(codes.shape[1:-1]), codes.shape[-1]


# Round trip


@st.composite
def arrays(draw: st.DrawFn) -> Codes:
    """Arrays of any rank and sort that a coder may meet: noise, steps, outliers, constant frames, the extremes."""
    dtype: np.dtype[Any] = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=0, max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    limits = np.iinfo(dtype)
    low = draw(st.sampled_from([limits.min, 0, max(limits.min, -40), limits.max - 30]))
    width = draw(st.sampled_from([0, 1, 3, 30, 200, 3000, limits.max - limits.min]))
    codes = rng.integers(low, min(low + width, limits.max), shape, endpoint=True)
    if draw(st.booleans()) and codes.size:
        codes.flat[:: draw(st.integers(1, 50))] = draw(st.integers(limits.min, limits.max))
    if draw(st.booleans()) and len(shape) > 1:
        codes[draw(st.integers(0, shape[0] - 1))] = draw(st.integers(limits.min, limits.max))
    return np.asarray(codes).astype(dtype)


@settings(max_examples=400, deadline=None)
@given(codes=arrays())
@example(codes=dithered((3, 2, 5000), "int16"))  # a row is longer than the pattern
@example(codes=movie((2, 300, 5)))  # three bands
@example(codes=movie((3, 256, 2), "int16"))
def test_every_array_comes_back(codes: Codes) -> None:
    payload = encode(codes)
    back = decode(payload, codes.shape, codes.dtype)
    assert back.dtype == codes.dtype
    assert back.flags.c_contiguous
    assert back.flags.writeable
    np.testing.assert_array_equal(back, codes)
    assert len(payload) <= codes.nbytes + 4


@pytest.mark.parametrize("rows", [128, 255, 256, 257, 300, 511, 512])
def test_bands_are_of_128_rows_from_256_on(rows: int) -> None:
    codes = movie((3, rows, 6))
    payload = encode(codes)
    coded = spec.read(spec.Bytes(payload), codes.shape, "uint8")
    assert coded.header.band_rows == (rows if rows < 256 else 128)
    assert len(coded.bands) == (1 if rows < 256 else math.ceil(rows / 128))
    np.testing.assert_array_equal(decode(payload, codes.shape, codes.dtype), codes)


def test_a_band_is_decoded_without_the_others() -> None:
    """All but the model and the tables of the other bands may be anything."""
    codes = movie((4, 270, 6))
    coded = spec.read(spec.Bytes(encode(codes)), codes.shape, "uint8")
    rows = coded.header.bands(270)[1]
    found = spec.decode_band(coded, coded.bands[1], rows, [0, 1, 2, 3], 270, 6, "uint8")
    np.testing.assert_array_equal(np.reshape(found, (4, len(rows), 6)), codes[:, rows.start : rows.stop])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(9, 24, 21), (40, 8, 5), (5, 3, 16, 17), (64, 40), (700,), (600, 1, 3)], ids=lambda shape: str(shape)
)
def test_noise_is_coded_and_comes_back(shape: tuple[int, ...], dtype: str) -> None:
    codes = movie(shape, dtype) - np.array(40 if dtype.startswith("i") else 0, dtype)
    payload = encode(codes)
    assert payload[0] == CODED
    np.testing.assert_array_equal(decode(payload, shape, np.dtype(dtype)), codes)


@pytest.mark.parametrize("shape", [(9, 24, 21), (5, 3, 16, 17), (64, 40), (16, 128, 128)], ids=str)
def test_dithered_codes_are_coded_as_such_and_come_back(shape: tuple[int, ...]) -> None:
    codes = dithered(shape, "int16", sigma=0.7)
    codes[3] = 7  # a frame that is not modelled, but counted
    codes.flat[-5] = 3000
    payload = encode(codes)
    assert model_of(payload, codes).dithered
    np.testing.assert_array_equal(decode(payload, shape, np.dtype("int16")), codes)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0])
def test_the_encoder_knows_dithered_codes_from_others(sigma: float) -> None:
    """By rows that lie in the middle of a chunk; and what it takes is what makes the payload smaller."""
    shape = (16, 64, 128)
    signal = np.random.default_rng(0).normal(np.linspace(9, 60, 128), sigma, shape)
    for codes, known in ((dithered(shape, sigma=sigma), True), (np.rint(signal.clip(0)).astype(np.uint8), False)):
        payload = encode(codes)
        assert model_of(payload, codes).dithered == known
        assert size_as(codes, not known) >= len(payload)


def test_dithered_codes_cost_less_to_whoever_knows_the_dither() -> None:
    """Single photons: knowing the dither saves more than chance; it saves nothing where there is none."""
    rng = np.random.default_rng(3)
    slope = np.linspace(0.02, 0.3, 128)
    photons = rng.poisson(slope, (16, 128, 128)) + rng.normal(0, 0.2, (16, 128, 128))
    signal = 4 * (np.sqrt(photons.clip(-0.3) + 0.375) - math.sqrt(0.375)) + 3
    offsets = _dither.offset(np.resize(_dither.offset_levels(), signal.size).reshape(signal.shape))
    plain, known = (np.rint(values).astype(np.uint8) for values in (signal, signal + offsets))
    assert size_as(plain, False) < size_as(plain, True)
    assert size_as(known, True) < 0.98 * size_as(known, False)


@pytest.mark.parametrize("frame", [0, 1, 70, 4092, 4093, (1 << 32) - 1])
@pytest.mark.parametrize(
    ("row", "rows", "columns"), [(0, 1, 1), (9, 4093, 1), (1 << 20, 1 << 21, 1 << 19), (240, 512, 512)]
)
def test_places_in_the_pattern_are_those_of_whole_numbers(frame: int, row: int, rows: int, columns: int) -> None:
    from dj_photon_codecs.entropy.prediction import place_of

    assert place_of(frame, row, rows, columns) == ((frame * rows + row) * columns) % 4093


@pytest.mark.parametrize("columns", [0, 7, 5000])
def test_places_begin_in_the_row_of_their_offset(columns: int) -> None:
    levels = _dither.offset_levels()
    assert place_pattern(64, 300, columns).tolist() == [300 * int(levels[i % 4093]) for i in range(4093 + columns)]
    assert not place_pattern(1, 300, columns).any()


@pytest.mark.parametrize("columns", [1, 512, 4093, 9000])
def test_the_pattern_goes_on_beyond_its_period(columns: int) -> None:
    offsets = [1024 * _dither.offset(int(level)) for level in _dither.offset_levels()]
    assert offset_pattern(True, columns).tolist() == [offsets[i % 4093] for i in range(4093 + columns)]
    assert not offset_pattern(False, columns).any()


@pytest.mark.parametrize("sigma", [3, 40, 400, 4000])
def test_wide_noise_keeps_its_low_bits_apart(sigma: int) -> None:
    """Lossless counts of 16 bits: within 2 % of the entropy of the noise, however wide it is."""
    noise = np.random.default_rng(1).normal(30000, sigma, (16, 64, 96))
    codes = np.rint(noise).clip(0, 65535).astype(np.uint16)
    payload = encode(codes)
    low_bits = model_of(payload, codes).low_bits
    assert 4 < sigma / 2**low_bits < 32 or low_bits == 0
    np.testing.assert_array_equal(decode(payload, codes.shape, codes.dtype), codes)
    entropy = math.log2(sigma * math.sqrt(2 * math.pi * math.e))
    assert 8 * len(payload) / codes.size < 1.02 * entropy + 0.06  # the tables of a chunk as small as this one


@pytest.mark.parametrize("sigma", [3, 40])
@pytest.mark.parametrize("outlier", [0, 65535])
@pytest.mark.parametrize("place", [(7, 30, 31), (slice(None), 20, 20)], ids=["one pixel", "one pixel in every frame"])
def test_a_dead_or_a_hot_pixel_costs_next_to_nothing(sigma: int, outlier: int, place: tuple[Any, ...]) -> None:
    """Far below all others as well as far above."""
    codes = np.random.default_rng(0).normal(30000, sigma, (16, 64, 64)).astype(np.uint16)
    plain = len(encode(codes))
    codes[place] = outlier
    assert len(encode(codes)) < 1.01 * plain + 64
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_blank_frames_cost_next_to_nothing(value: int) -> None:
    """Dropped frames and padding: the frames about them are predicted as if they were not there."""
    codes = movie((16, 64, 64), "uint16")
    alone = len(encode(codes[:8]))
    codes[8:] = value
    assert len(encode(codes)) == alone + 8 * 6
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)
    codes[:] = value
    assert len(encode(codes)) == 28 + 16 * 6
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)


def test_what_cannot_be_predicted_is_stored_as_it_is() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 20, 20), np.uint8)
    payload = encode(codes)
    assert payload == PLAIN_HEADER + codes.tobytes()


def test_strided_and_big_endian_codes() -> None:
    codes = movie((8, 20, 30), "uint16")
    for other in (codes[:, ::-1, ::2], codes.transpose(2, 0, 1), codes.astype(">u2")):
        np.testing.assert_array_equal(decode(encode(other), other.shape, np.dtype("uint16")), other)
    back = decode(encode(codes), codes.shape, np.dtype(">u2"))
    assert back.dtype == np.dtype("uint16")


def test_arrays_without_pixels() -> None:
    for shape in ((0,), (3, 0, 4), (3, 4, 0), (0, 5, 5)):
        payload = encode(np.zeros(shape, np.uint8))
        assert payload == PLAIN_HEADER
        assert decode(payload, shape, np.dtype("uint8")).shape == shape
        with pytest.raises(DamagedChunkError, match="no pixels"):
            decode(encode(movie()), shape, np.dtype("uint8"))


def test_two_encodings_of_the_same_codes_are_the_same_bytes() -> None:
    codes = movie((12, 30, 31))
    assert encode(codes) == encode(codes.copy())


@pytest.mark.parametrize("dtype", ["int32", "uint64", "float32", "bool"])
def test_other_dtypes_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(ConfigurationError, match=f"uint8, int8, uint16, int16, got {dtype}"):
        encode(np.zeros((4, 4), dtype))
    with pytest.raises(ConfigurationError, match=dtype):
        decode(b"\0", (4, 4), np.dtype(dtype))


# The compiled loops and the plain ones


def vectors_are_there() -> bool:
    """Asked when tests are collected."""
    from dj_photon_codecs.entropy import vectors

    return vectors.available()


@st.composite
def models(draw: st.DrawFn) -> Model:
    top = draw(st.sampled_from([0, 1, 17, 255, 4095]))
    shift = draw(st.integers(7 if top < 512 else 10, 22))
    dithered = draw(st.booleans())
    return Model(
        low_bits=0 if dithered else draw(st.integers(0, 7)),
        blend=draw(st.sampled_from([0, 1, 16, 64, 255])),
        window=draw(st.sampled_from([1, 3, 15, 63, 255])),
        context_shift=shift,
        start=draw(st.integers(0, top)),
        top=top,
        base=draw(st.integers(0, 200)),
        dithered=dithered,
    )


@st.composite
def movies(draw: st.DrawFn) -> Codes:
    shape = tuple(draw(st.integers(1, n)) for n in (7, 6, 11)) if draw(st.booleans()) else (3, 35, 7)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    return rng.integers(0, draw(st.sampled_from([3, 40, 256])), shape).astype(dtype)


def by_the_page(codes: Codes, model: Model, frames: list[int], rows: range) -> tuple[Codes, Codes, Codes]:
    """Contexts, predicted levels and levels of a band, as the specification has them, shape (frames, rows, columns)."""
    mask = int(np.iinfo(codes.dtype).max)
    levels = (codes[frames][:, rows.start : rows.stop].astype(np.int64) - model.base & mask) >> model.low_bits
    header = spec.Header(*model[:7], dithered=int(model.dithered))
    columns = codes.shape[2]
    contexts, predicted = [], []
    lines = iter(levels.reshape(-1, columns).tolist())
    for _, context, d, h in spec.Prediction(header, frames, rows, codes.shape[1], columns).rows():
        contexts.append(context)
        predicted.append(d)
        h += next(lines)
    return np.reshape(contexts, levels.shape), np.reshape(predicted, levels.shape), levels


@settings(max_examples=150, deadline=None)
@given(codes=movies(), model=models(), first=st.integers(0, 2))
def test_the_compiled_model_is_that_of_the_page(codes: Codes, model: Model, first: int) -> None:
    """In a band that begins with some row, and with frames left out."""
    from dj_photon_codecs.entropy import encoder

    frames, rows = [*range(codes.shape[0])][:: 1 + first % 2], range(min(first, codes.shape[1] - 1), codes.shape[1])
    contexts, predicted, levels = by_the_page(codes, model, frames, rows)
    symbols = levels - ((predicted + 512) >> 10) + 128
    symbols = np.where((symbols > 0) & (symbols < SYMBOLS) & (levels <= model.top), symbols, 0)
    counts = np.zeros((3 * model.contexts, SYMBOLS), np.int64)
    np.add.at(counts, (contexts, symbols), 1)
    found = np.empty(levels.size, np.uint16), np.empty(levels.size, np.uint8)
    counted = np.zeros(counts.shape, np.uint32)
    counted[0, 0] = 3  # of another band
    n_escapes = encoder.model_band(
        codes, int(np.iinfo(codes.dtype).max), model, np.array(frames), rows.start, len(rows),
        offset_pattern(model.dithered, codes.shape[2]), *found, counted,
    )  # fmt: skip
    np.testing.assert_array_equal(found[0], contexts.ravel())
    np.testing.assert_array_equal(found[1], symbols.ravel())
    counts[0, 0] += 3
    np.testing.assert_array_equal(counted, counts)
    assert n_escapes == (symbols == 0).sum()


@settings(max_examples=60, deadline=None)
@given(codes=movies(), model=models(), above=st.integers(0, 3))
def test_the_error_of_a_prediction_is_what_it_says(codes: Codes, model: Model, above: int) -> None:
    """In rows that have others above them."""
    from dj_photon_codecs.entropy import trial

    frames, rows = [*range(codes.shape[0])], range(min(above, codes.shape[1] - 1), codes.shape[1])
    _, predicted, levels = by_the_page(codes, model, frames, rows)
    off = np.minimum(levels, model.top) - predicted / 1024
    found = trial.prediction_errors(
        codes, int(np.iinfo(codes.dtype).max), model, np.array(frames), rows.start, len(rows),
        offset_pattern(model.dithered, codes.shape[2]),
    )  # fmt: skip
    assert found == pytest.approx(((off**2).mean(), np.abs(off).mean()), rel=1e-9, abs=1e-12)


@pytest.mark.skipif(not vectors_are_there(), reason="vectors of 8 lanes need AVX2")
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), often=st.sampled_from([1, 3, 50, 4096]), block=st.integers(0, 2))
def test_vectors_do_what_the_plain_loop_does(seed: int, often: int, block: int) -> None:
    """With any states, slots and words; all, none or some of the lanes are low, which frequencies decide."""
    from dj_photon_codecs.entropy import decoder, vectors

    assert decoder._take_block is vectors.take_block
    rng = np.random.default_rng(seed)
    n_tables, shift, first = int(rng.integers(1, 5)), int(rng.integers(0, 12)), int(rng.integers(0, 9))
    predicted = rng.integers(0, 64 << shift, 3 * LANES).astype(np.int32)
    tables = (rng.integers(0, n_tables, first + 64) * SCALE).astype(np.uint32)
    frequency, symbol = rng.integers(1, often + 1, n_tables * SCALE), rng.integers(0, 256, n_tables * SCALE)
    place_in = rng.integers(0, frequency)
    slots = (symbol | (frequency - 1) << 8 | place_in << 20).astype(np.uint32)
    words = rng.integers(0, 1 << 16, 200).astype(np.uint16)
    states = rng.integers(1 << 16, rng.choice([1 << 17, 1 << 24, 1 << 32]), LANES).astype(np.uint32)
    found = []
    for take in (decoder.take_block, vectors.take_block):
        after, symbols, entries = states.copy(), np.zeros(3 * LANES, np.uint8), np.zeros(LANES, np.uint32)
        stream = decoder.Stream(words, slots, tables, np.uint32(shift), after, entries)
        place = take(np.uint64(block * LANES), np.uint64(first), predicted, stream, np.uint64(7), symbols)
        found.append((int(place), after.tolist(), symbols.tolist()))
    assert found[0] == found[1]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), highest=st.sampled_from([1, 2, 60, 4096]), lanes=st.sampled_from([1, 5, LANES]))
def test_pushing_does_what_the_page_says(seed: int, highest: int, lanes: int) -> None:
    """With any states; all, none or some of the lanes are full, which frequencies decide."""
    from dj_photon_codecs.entropy import encoder

    rng = np.random.default_rng(seed)
    table_of = rng.integers(0, 3, 40).astype(np.uint8)
    frequencies = rng.integers(1, highest + 1, (3, SYMBOLS)).astype(np.uint32)
    frequencies[:, 12:] = 0
    begins = np.cumsum(frequencies, axis=1) - frequencies
    keys, ranges = encoder.ranges_of(table_of, frequencies)
    x, place = int(rng.integers(0, 9)), int(rng.integers(60, 90))
    words, symbols = rng.integers(0, 40, 90).astype(np.uint16), rng.integers(0, 12, 90).astype(np.uint8)
    states = rng.integers(1 << 16, rng.choice([1 << 17, 1 << 24, 1 << 32]), lanes).astype(np.uint32)
    pushed: list[int] = []
    expected: list[int] = []
    for lane in reversed(range(lanes)):
        table, symbol, state = table_of[words[x + lane]], symbols[x + lane], int(states[lane])
        frequency = int(frequencies[table, symbol])
        if state >= frequency << 20:
            pushed.insert(0, state & 0xFFFF)
            state >>= 16
        expected.insert(0, ((state // frequency << 12) + state % frequency + int(begins[table, symbol])) % (1 << 32))
    before = words.copy()
    end = encoder.push_block(
        np.uint64(lanes), np.uint64(x), words, symbols, keys, ranges, np.uint64(place), states,
        np.empty(LANES, np.uint32),
    )  # fmt: skip
    assert states.tolist() == expected
    assert words[int(end) : place].tolist() == pushed
    np.testing.assert_array_equal(words[: int(end) - 1], before[: int(end) - 1])
    np.testing.assert_array_equal(words[place:], before[place:])


def test_states_are_divided_exactly() -> None:
    """The largest states that are divided by each frequency, and those next to multiples of it."""
    from dj_photon_codecs.entropy import encoder

    frequencies = np.zeros((4096, SYMBOLS), np.uint32)
    frequencies[:, 1] = np.arange(1, 4097)
    _, ranges = encoder.ranges_of(np.zeros(1, np.uint8), frequencies)
    rng = np.random.default_rng(0)
    factors = np.concatenate([np.arange(16, 40), (1 << 20) - np.arange(20), rng.integers(16, 1 << 20, 300)])
    words, symbols, room = np.zeros(64, np.uint16), np.ones(LANES, np.uint8), np.empty(LANES, np.uint32)
    keys, lanes, end_of_words = np.zeros(1, np.uint16), np.uint64(LANES), np.uint64(64)
    for f in [*range(1, 70), *rng.integers(70, 4096, 200).tolist(), 4095, 4096]:
        table = ranges[(f - 1) * SYMBOLS : f * SYMBOLS]
        states = np.concatenate([factors * f - 1, np.minimum(factors * f, (f << 20) - 1)]).clip(1 << 16)
        states = states[states < f << 20]
        for some in np.resize(states, (-(-states.size // LANES), LANES)):
            after = some.astype(np.uint32)
            end = encoder.push_block(lanes, np.uint64(0), words, symbols, keys, table, end_of_words, after, room)
            assert end == 64
            np.testing.assert_array_equal(after, ((some // f << 12) + some % f).astype(np.uint32))


def scaled(counts: Codes) -> Codes:
    """Frequencies of one table from the counts of its symbols."""
    total = int(counts.sum())
    nearest = (counts.astype(np.int64) * SCALE + total // 2) // total
    frequencies = np.where(counts > 0, np.maximum(nearest, 1), 0)
    while left := SCALE - int(frequencies.sum()):
        largest = int(np.argmax(frequencies))
        frequencies[largest] += left if left > 0 else max(left, -(int(frequencies[largest]) // 2))
    return frequencies


def merged(counts: Codes, table_bits: float, symbol_bits: float) -> tuple[Codes, Codes]:
    """The table of each context, and the counts of each table."""
    ends = [int(context) for context in np.flatnonzero(counts.any(axis=1))]
    groups = [counts[end].astype(np.int64) for end in ends]

    def cost(group: Codes) -> float:
        used = group[group > 0].astype(float)
        bits = used.sum() * np.log2(used.sum()) - (used * np.log2(used)).sum()
        return float(bits + table_bits + symbol_bits * used.size)

    while len(groups) > 1:
        gains = [cost(a) + cost(b) - cost(a + b) for a, b in itertools.pairwise(groups)]
        forced = len(groups) > MAX_TABLES
        joined = [
            (gain > 0 or forced) and (g == 0 or gain >= gains[g - 1]) and (g + 1 == len(gains) or gain > gains[g + 1])
            for g, gain in enumerate(gains)
        ]
        if not any(joined):
            break
        for g in reversed(np.flatnonzero(joined).tolist()):
            groups[g : g + 2] = [groups[g] + groups[g + 1]]
            del ends[g]
    return np.searchsorted(ends[:-1], np.arange(len(counts))), np.array(groups)


@settings(max_examples=60, deadline=None)
@given(
    n_contexts=st.integers(1, 400),
    occupied=st.floats(0.05, 1),
    spread=st.sampled_from([1, 5, 60]),
    seed=st.integers(0, 1 << 32),
)
@example(n_contexts=400, occupied=1.0, spread=60, seed=0)
def test_tables_are_made_as_the_plain_loops_do(n_contexts: int, occupied: float, spread: int, seed: int) -> None:
    """Contexts are merged, counts scaled; and tables that were packed are read as they were."""
    from dj_photon_codecs.entropy import tables

    rng = np.random.default_rng(seed)
    counts = np.zeros((n_contexts, SYMBOLS), np.uint32)
    for context in range(n_contexts):
        drawn = np.rint(rng.normal(128 + rng.integers(-spread, spread), spread, rng.integers(1, 500))).astype(int)
        if rng.random() < occupied or context == 0:
            np.add.at(counts[context], drawn.clip(0, 255), 1)
    table_of, shared = tables.merge_contexts(counts)
    plain_table_of, plain_shared = merged(counts, tables._TABLE_BITS, tables._SYMBOL_BITS)
    np.testing.assert_array_equal(table_of, plain_table_of)
    np.testing.assert_array_equal(shared, plain_shared)
    assert len(shared) <= MAX_TABLES
    frequencies = tables.scale_counts(shared)
    np.testing.assert_array_equal(frequencies, [scaled(row) for row in shared])
    assert (frequencies.sum(axis=1) == SCALE).all()
    assert ((frequencies > 0) == (shared > 0)).all()

    packed = tables.write_tables(table_of, frequencies)
    begins, slots = np.empty(n_contexts, np.uint32), np.empty(len(shared) * SCALE, np.uint32)
    assert tables.read_tables(packed, len(shared), begins, slots) == (0, 0)
    np.testing.assert_array_equal(begins, SCALE * plain_table_of)
    symbols = np.array([np.repeat(np.arange(SYMBOLS), row) for row in frequencies]).ravel()
    np.testing.assert_array_equal(slots & 255, symbols)
    np.testing.assert_array_equal(
        (slots >> 8 & 4095) + 1, frequencies[np.repeat(np.arange(len(shared)), SCALE), symbols]
    )
    firsts = np.cumsum(frequencies, axis=1) - frequencies
    places = np.tile(np.arange(SCALE), len(shared)) - firsts[np.repeat(np.arange(len(shared)), SCALE), symbols]
    np.testing.assert_array_equal(slots >> 20, places)


def test_more_contexts_than_tables_are_forced_together() -> None:
    """Contexts that have nothing in common, each worth a table of its own."""
    from dj_photon_codecs.entropy import tables

    counts = np.zeros((700, SYMBOLS), np.uint32)
    counts[np.arange(700), np.arange(700) * 83 % 255 + 1] = 10000
    _, shared = tables.merge_contexts(counts)
    assert 2 < len(shared) <= MAX_TABLES
    assert shared.sum() == counts.sum()


# Untrusted bytes (DESIGN invariant 10)


def outcome(payload: bytes, codes: Codes) -> bool:
    """Whether a payload is refused; if not, that it gives an array of the right shape."""
    try:
        back = decode(payload, codes.shape, codes.dtype)
    except DamagedChunkError:
        return True
    assert back.shape == codes.shape
    assert back.dtype == codes.dtype
    return False


def samples() -> Iterator[tuple[str, Codes]]:
    """A coded chunk with every sort of stream in it."""
    yield "8 bits", movie((6, 12, 14), light=8.0)
    escapes = movie((6, 8, 16), "int16") - np.int16(20)
    escapes[3] = -7
    escapes[5, 4, 3] = 3000
    yield "blank frames and escapes", escapes
    escapes = dithered((6, 8, 16), "int16", sigma=0.7) - np.int16(20)
    escapes[3] = -7
    escapes[5, 4, 3] = 3000
    yield "dithered", escapes
    yield "bands", movie((3, 258, 3), light=9.0)
    yield "low bits", np.random.default_rng(0).normal(9000, 200, (4, 10, 20)).astype(np.uint16)


SAMPLES = dict(samples())


@pytest.mark.fuzz
@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_raises(name: str) -> None:
    codes = SAMPLES[name]
    payload = encode(codes)
    assert payload[0] == CODED
    assert model_of(payload, codes).dithered == (name == "dithered")
    assert all(outcome(payload[:length], codes) for length in range(len(payload)))
    assert outcome(payload + b"\0", codes)


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_every_bit_flip_raises_or_gives_an_array(name: str) -> None:
    """A checksum tells the rest; here, most show already."""
    codes = SAMPLES[name]
    payload = bytearray(encode(codes))
    refused = 0
    for bit in range(8 * len(payload)):
        payload[bit // 8] ^= 1 << bit % 8
        refused += outcome(bytes(payload), codes)
        payload[bit // 8] ^= 1 << bit % 8
    assert refused > len(payload)


@pytest.mark.fuzz
@pytest.mark.slow
def test_200_000_mutated_payloads() -> None:
    """Bytes changed, moved, doubled and cut: each is refused or gives an array, and the process lives."""
    rng = np.random.default_rng(20)
    originals = [(np.frombuffer(encode(codes), np.uint8), codes) for codes in SAMPLES.values()]
    interesting = np.array([0, 1, 2, 127, 128, 254, 255], np.uint8)
    refused = 0
    for i in range(200_000):
        original, codes = originals[i % len(originals)]
        payload = original.copy()
        kind = rng.integers(5)
        # headers and tables more often than streams: that is where the numbers are
        places = (rng.random(rng.integers(1, 4)) ** 3 * payload.size).astype(int)
        if kind == 0:
            payload[places] = rng.integers(0, 256, places.size)
        elif kind == 1:
            payload[places] = rng.choice(interesting, places.size)
        elif kind == 2:
            payload = np.delete(payload, places)
        elif kind == 3:
            payload = np.insert(payload, places, rng.integers(0, 256, places.size))
        else:
            start, length = places[0], int(rng.integers(1, 40))
            payload[start : start + length] = np.roll(payload, -int(rng.integers(payload.size)))[
                : payload[start : start + length].size
            ]
        refused += outcome(payload.tobytes(), codes)
    assert refused > 150_000


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"\x02", "begins with 2: expected 0 or 1; either it was altered, or a later release"),
        (1, b"\x02", "dithered is 2: expected 0 or 1"),
        (1, b"\x01\x01", "1 low bits of dithered codes"),
        (2, b"\x08", "8 low bits"),
        (3, b"\x17", "context shift 23"),
        (3, b"\x00", "context shift 0"),
        (5, b"\x00", "window of 0"),
        (6, b"\x00\x00", "0 tables in"),
        (6, b"\x01\x01", "257 tables in"),
        (8, b"\xff\xff", "first level 65535"),
        (10, b"\x00\x10", "top level 4096"),
        (12, b"\x00\x01\x00\x00", "base 256"),
        (16, b"\x00\x00\x00\x00", "bands of 0 rows: expected 1 to 16"),
        (16, b"\x11\x00\x00\x00", "bands of 17 rows: expected 1 to 16"),
        (20, b"\xff\xff\xff\xff", "within its blank frames"),
        (24, b"\xff\xff\xff\xff", "within its tables"),
        (28, b"\xff\xff\xff\xff", "4294967295 words for the 2048 pixels of band 0"),
        (32, b"\xff\xff\xff\xff", "4294967295 escapes for the 2048 pixels of band 0"),
        (32, b"\x08", "within its streams"),
        (36, b"\x00\x00\x00\x00", "a state of 0: expected 65536 or more"),
        (164, b"\x00\x00", "table 0 is for no context"),
        (164, b"\x80\x00", "a number in table 0 has more bytes than it needs"),
    ],
)
def test_a_header_out_of_range_is_named(offset: int, value: bytes, message: str) -> None:
    codes = movie((8, 16, 16), light=60.0)
    payload = bytearray(encode(codes))
    payload[offset : offset + len(value)] = value
    with pytest.raises(DamagedChunkError, match=message):
        decode(bytes(payload), codes.shape, codes.dtype)


def test_a_header_that_promises_much_allocates_little() -> None:
    """All numbers at the top of their ranges, over nothing: refused before anything is allocated for them."""
    shape = (1 << 20, 1 << 10, 1 << 10)
    head = bytearray(encode(movie()))[:28]
    for at, value in ((16, 1), (20, (1 << 20) - 1), (24, (1 << 32) - 1)):
        for changed in (bytes(head), bytes(head[:at]) + value.to_bytes(4, "little") + bytes(head[at + 4 :])):
            tracemalloc.start()
            try:
                with pytest.raises(DamagedChunkError, match="promised"):
                    decode(changed, shape, np.dtype("uint8"))
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
            finally:
                tracemalloc.stop()


def test_decoding_needs_the_chunk_its_payload_and_a_constant() -> None:
    codes = movie((16, 256, 256), light=40.0)
    payload = encode(codes)
    decode(payload, codes.shape, codes.dtype)  # compiles
    tracemalloc.start()
    try:
        decode(payload, codes.shape, codes.dtype)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    frame = codes[0].size
    assert peak < codes.nbytes + 3 * len(payload) + 4 * frame + (5 << 20)


@pytest.mark.fuzz
@pytest.mark.slow
def test_the_loops_stay_inside_their_arrays(tmp_path: Path) -> None:
    """The mutations once more, compiled with bounds checks: an index outside an array would raise IndexError."""
    script = """
import numpy as np
import test_entropy as tests
rng = np.random.default_rng(3)
for name, codes in tests.SAMPLES.items():
    original = np.frombuffer(tests.encode(codes), np.uint8)
    np.testing.assert_array_equal(tests.decode(original.tobytes(), codes.shape, codes.dtype), codes)
    for i in range(3000):
        payload = original.copy()
        places = (rng.random(2) ** 2 * payload.size).astype(int)
        payload[places] = rng.integers(0, 256, places.size)
        tests.outcome(payload.tobytes(), codes)
print("inside")
"""
    # a cache of its own: numba would take what it compiled without the checks
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    path = os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "DJ_IGNORE_CONFIG_FILE": "true", "PYTHONPATH": path, **checked},
    )
    assert done.stdout == "inside\n", done.stderr


# The Zarr codec


def test_it_is_a_zarr_codec_of_its_own() -> None:
    codes = movie((20, 16, 18), "int16")
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=codes.shape, chunks=(8, 16, 18), shards=(16, 16, 18), dtype="int16",
        serializer=RansCodec(), compressors=None, fill_value=0,
    )  # fmt: skip
    array[:] = codes
    np.testing.assert_array_equal(array[:], codes)
    array[3:5, 2, 1] = 99
    codes[3:5, 2, 1] = 99
    np.testing.assert_array_equal(zarr.open_array(array.store, mode="r")[2:7], codes[2:7])


def test_its_metadata_is_its_name_alone() -> None:
    assert RansCodec().to_dict() == {"name": "dj_photon_codecs.rans", "configuration": {}}
    assert RansCodec.from_dict({"name": "dj_photon_codecs.rans"}) == RansCodec()
    with pytest.raises(ConfigurationError, match="level"):
        RansCodec.from_dict({"name": "dj_photon_codecs.rans", "configuration": {"level": 3}})
    with pytest.raises(ConfigurationError, match="dj_photon.rans"):
        RansCodec.from_dict({"name": "dj_photon.rans", "configuration": {}})
    assert pickle.loads(pickle.dumps(RansCodec())) == RansCodec()


def test_it_refuses_an_array_of_another_dtype_when_that_is_made() -> None:
    with pytest.raises(ConfigurationError, match="got float32: use the default compressor"):
        zarr.create_array(
            zarr.storage.MemoryStore(), shape=(4, 4), chunks=(4, 4), dtype="float32", serializer=RansCodec()
        )


def test_the_largest_top_level_has_its_contexts() -> None:
    codes = (np.arange(16 * 32 * 32) % 4096).reshape(16, 32, 32).astype(np.uint16)
    codes[:, ::2] //= 64
    payload = encode(codes)
    assert payload[0] == CODED
    assert model_of(payload, codes).top <= MAX_TOP
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)
