"""The entropy coder: what goes in comes out, compiled loops say what plain ones say, and no bytes are trusted."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dj_photon_codecs import ConfigurationError, DamagedChunkError, RansCodec, _dither
from dj_photon_codecs.entropy import coder, reference
from dj_photon_codecs.entropy.coder import DTYPES, decode, encode
from dj_photon_codecs.entropy.header import CODED, DITHERED, PLAIN, Payload
from dj_photon_codecs.entropy.model import (
    LANES,
    MAX_TABLES,
    MAX_TOP,
    SCALE,
    STATE_LOW,
    SYMBOLS,
    Model,
    offset_pattern,
    pattern_starts,
)

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
    return Payload.parse(payload, cube(codes), codes.dtype).model


def forced(choose: Callable[..., Model], form: int) -> Callable[..., Model]:
    """A choice of models that prefers a form wherever that is legal."""

    def chosen(*args: Any) -> Model:
        model = choose(*args)
        return model._replace(dithered=form == DITHERED and not model.low_bits)

    return chosen


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
@given(codes=arrays(), form=st.sampled_from([CODED, DITHERED]))
@example(codes=dithered((3, 2, 5000), "int16"), form=DITHERED)  # a row is longer than the pattern
def test_every_array_comes_back(codes: Codes, form: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "_choose_model", forced(coder._choose_model, form))
        payload = encode(codes)
    back = decode(payload, codes.shape, codes.dtype)
    assert back.dtype == codes.dtype
    assert back.flags.c_contiguous
    assert back.flags.writeable
    np.testing.assert_array_equal(back, codes)
    assert len(payload) <= codes.nbytes + 1


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
    assert payload[0] == DITHERED
    np.testing.assert_array_equal(decode(payload, shape, np.dtype("int16")), codes)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0])
def test_the_encoder_knows_dithered_codes_from_others(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows that lie in the middle of a chunk; and what it takes is what makes the payload smaller."""
    shape, choose = (16, 128, 128), coder._choose_model
    signal = np.random.default_rng(0).normal(np.linspace(9, 60, 128), sigma, shape)
    for codes, form in ((dithered(shape, sigma=sigma), DITHERED), (np.rint(signal.clip(0)).astype(np.uint8), CODED)):
        payload = encode(codes)
        assert payload[0] == form
        for tried in (CODED, DITHERED):
            monkeypatch.setattr(coder, "_choose_model", forced(choose, tried))
            assert len(encode(codes)) >= len(payload)
        monkeypatch.setattr(coder, "_choose_model", choose)


def test_dithered_codes_cost_less_to_whoever_knows_the_dither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photons so few that they show singly: what form 2 saves is more than chance, and undithered codes save none."""
    rng, choose = np.random.default_rng(3), coder._choose_model
    slope = np.linspace(0.02, 0.3, 256)
    photons = rng.poisson(slope, (16, 256, 256)) + rng.normal(0, 0.2, (16, 256, 256))
    signal = 4 * (np.sqrt(photons.clip(-0.3) + 0.375) - math.sqrt(0.375)) + 3
    offsets = _dither.offset(np.resize(_dither.offset_levels(), signal.size).reshape(signal.shape))
    sizes: list[int] = []
    for codes in (np.rint(signal), np.rint(signal + offsets)):
        for form in (CODED, DITHERED):
            monkeypatch.setattr(coder, "_choose_model", forced(choose, form))
            sizes.append(len(encode(codes.astype(np.uint8))))
    assert sizes[0] < sizes[1]
    assert sizes[3] < 0.98 * sizes[2]


@pytest.mark.parametrize("frames", [[0, 1, 2], [5, 70, 4092, 4093, 1 << 31, (1 << 32) - 1]])
@pytest.mark.parametrize(("pixels", "first"), [(1, 0), (4093, 9), (1 << 40, (1 << 39) + 3), (512 * 512, 240 * 512)])
def test_places_in_the_pattern_are_those_of_whole_numbers(frames: list[int], pixels: int, first: int) -> None:
    starts = pattern_starts(np.array(frames, np.uint32), pixels, first)
    assert starts.tolist() == [(frame * pixels + first) % 4093 for frame in frames]


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
    assert len(encode(codes)) < 160
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)


def test_what_cannot_be_predicted_is_stored_as_it_is() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (5, 20, 20), np.uint8)
    payload = encode(codes)
    assert payload == bytes([PLAIN]) + codes.tobytes()


def test_strided_and_big_endian_codes() -> None:
    codes = movie((8, 20, 30), "uint16")
    for other in (codes[:, ::-1, ::2], codes.transpose(2, 0, 1), codes.astype(">u2")):
        np.testing.assert_array_equal(decode(encode(other), other.shape, np.dtype("uint16")), other)
    back = decode(encode(codes), codes.shape, np.dtype(">u2"))
    assert back.dtype == np.dtype("uint16")


def test_arrays_without_pixels() -> None:
    for shape in ((0,), (3, 0, 4), (3, 4, 0), (0, 5, 5)):
        payload = encode(np.zeros(shape, np.uint8))
        assert payload == bytes([PLAIN])
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
    shape = tuple(draw(st.integers(1, n)) for n in (7, 6, 11))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    return rng.integers(0, draw(st.sampled_from([3, 40, 256])), shape).astype(dtype)


def frames_of(codes: Codes) -> npt.NDArray[np.uint32]:
    """Numbers of the modelled frames, some blank ones being between them."""
    return np.cumsum(codes[:, 0, 0] % 3 + 1, dtype=np.uint32) - 1


def test_offsets_are_those_of_a_pixel_by_its_number_in_the_chunk() -> None:
    frames, model = np.array([1, 4]), Model(0, 4, 15, 7, 0, 9, 0, True)
    offsets = reference.offsets(frames, 30, 50, model)
    chunk = 1024 * _dither.offset(np.resize(_dither.offset_levels(), 5 * 30 * 50).reshape(5, 30, 50))
    np.testing.assert_array_equal(offsets, chunk[frames])
    assert not reference.offsets(frames, 30, 50, model._replace(dithered=False)).any()


@settings(max_examples=150, deadline=None)
@given(codes=movies(), model=models())
def test_the_compiled_coder_is_the_plain_one(codes: Codes, model: Model) -> None:
    from dj_photon_codecs.entropy import kernels, tables

    mask = int(np.iinfo(codes.dtype).max)
    levels = (codes.astype(np.int64) - model.base & mask) >> model.low_bits
    frames = frames_of(codes)
    offsets = reference.offsets(frames, codes.shape[1], codes.shape[2], model)
    compiled = offset_pattern(model.dithered, codes.shape[2]), pattern_starts(frames, codes[0].size)
    contexts, symbols, counts = reference.model_levels(levels, offsets, model)
    found = np.empty(codes.shape, np.uint16), np.empty(codes.shape, np.uint8)
    counted = np.zeros((3 * model.contexts, SYMBOLS), np.uint32)
    kernels.model_codes(codes, mask, model, *compiled, *found, counted)
    np.testing.assert_array_equal(found[0], contexts)
    np.testing.assert_array_equal(found[1], symbols)
    np.testing.assert_array_equal(counted, counts)

    table_of = np.empty(len(counted), np.uint8)
    shared = tables.merge_contexts(counted, table_of)
    np.testing.assert_array_equal(np.bincount(table_of[contexts].ravel(), minlength=len(shared)), shared.sum(1))
    frequencies = np.empty_like(shared)
    tables.scale_counts(shared, frequencies)
    np.testing.assert_array_equal(frequencies, [reference.scale_counts(row) for row in shared])
    assert (frequencies.sum(axis=1) == SCALE).all()
    assert ((frequencies > 0) == (shared > 0)).all()

    words = np.empty(codes.size + LANES, np.uint16)
    ranges = frequencies | (np.cumsum(frequencies, 1, dtype=np.uint32) - frequencies) << np.uint32(16)
    reciprocals = np.nextafter(1 / np.maximum(frequencies, 1), 2)
    place, states = kernels.push_symbols(*found, table_of, ranges, reciprocals, words)
    plain_states, plain_words = reference.push_symbols(table_of[contexts].astype(np.int64), symbols, frequencies)
    assert states.tolist() == plain_states
    assert words[place:].tolist() == plain_words

    escapes = levels[symbols == 0].tolist()
    decoded = reference.pull_levels(offsets, model, table_of, frequencies, plain_states, plain_words, escapes)
    np.testing.assert_array_equal(decoded, levels)
    slots = np.empty((len(frequencies), SCALE), np.uint32)
    kernels.fill_slots(frequencies, slots)
    np.testing.assert_array_equal(slots & 255, [np.repeat(np.arange(SYMBOLS), row) for row in frequencies])
    out = np.empty(codes.shape, np.uint16)
    padded = np.concatenate([words[place:], np.zeros(codes.shape[2] + LANES, np.uint16)])
    used, escaped, inside = kernels.pull_symbols(
        padded, len(plain_words), np.array(escapes, np.uint16), states, slots, table_of, model._replace(base=0),
        *compiled, out,
    )  # fmt: skip
    assert (used, escaped, inside) == (len(plain_words), len(escapes), True)
    assert (states == STATE_LOW).all()
    np.testing.assert_array_equal(out, levels)


@settings(max_examples=60, deadline=None)
@given(codes=movies(), model=models(), above=st.integers(0, 9))
def test_the_error_of_a_prediction_is_what_it_says(codes: Codes, model: Model, above: int) -> None:
    """In a band of rows that has rows ``above`` it."""
    from dj_photon_codecs.entropy import kernels

    mask = int(np.iinfo(codes.dtype).max)
    levels = np.minimum((codes.astype(np.int64) - model.base & mask) >> model.low_bits, model.top)
    frames, rows, columns = frames_of(codes), codes.shape[1], codes.shape[2]
    predictor = reference.Predictor(reference.offsets(frames, above + rows, columns, model)[:, above:], model)
    squares, sizes = 0.0, 0.0
    for t, y in itertools.product(range(codes.shape[0]), range(codes.shape[1])):
        off = levels[t, y] - predictor.predict(t, y) / 1024
        squares, sizes = squares + float((off**2).sum()), sizes + float(np.abs(off).sum())
        predictor.follow(t, y, levels[t, y])
    starts = pattern_starts(frames, (above + rows) * columns, above * columns)
    found = kernels.prediction_errors(codes, mask, model, offset_pattern(model.dithered, columns), starts)
    assert found == pytest.approx((squares / codes.size, sizes / codes.size), rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    n_contexts=st.integers(1, 400),
    occupied=st.floats(0.05, 1),
    spread=st.sampled_from([1, 5, 60]),
    seed=st.integers(0, 1 << 32),
)
@example(n_contexts=400, occupied=1.0, spread=60, seed=0)
def test_contexts_are_merged_as_the_plain_loop_does(n_contexts: int, occupied: float, spread: int, seed: int) -> None:
    from dj_photon_codecs.entropy import tables

    rng = np.random.default_rng(seed)
    counts = np.zeros((n_contexts, SYMBOLS), np.uint32)
    for context in range(n_contexts):
        drawn = np.rint(rng.normal(128 + rng.integers(-spread, spread), spread, rng.integers(1, 500))).astype(int)
        if rng.random() < occupied or context == 0:
            np.add.at(counts[context], drawn.clip(0, 255), 1)
    table_of = np.empty(n_contexts, np.uint8)
    shared = tables.merge_contexts(counts, table_of)
    plain_table_of, plain_shared = reference.merge_contexts(counts, tables._TABLE_BITS, tables._SYMBOL_BITS)
    np.testing.assert_array_equal(table_of, plain_table_of)
    np.testing.assert_array_equal(shared, plain_shared)
    assert len(shared) <= MAX_TABLES


def test_more_contexts_than_tables_are_forced_together() -> None:
    """Contexts that have nothing in common, each worth a table of its own."""
    from dj_photon_codecs.entropy import tables

    counts = np.zeros((700, SYMBOLS), np.uint32)
    counts[np.arange(700), np.arange(700) * 83 % 255 + 1] = 10000
    table_of = np.empty(700, np.uint8)
    shared = tables.merge_contexts(counts, table_of)
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
    yield "8 bits", movie((5, 6, 7), light=8.0)
    escapes = movie((6, 8, 16), "int16") - np.int16(20)
    escapes[3] = -7
    escapes[5, 4, 3] = 3000
    yield "blank frames and escapes", escapes
    escapes = dithered((6, 8, 16), "int16", sigma=0.7) - np.int16(20)
    escapes[3] = -7
    escapes[5, 4, 3] = 3000
    yield "dithered", escapes
    yield "low bits", np.random.default_rng(0).normal(9000, 200, (4, 10, 20)).astype(np.uint16)


SAMPLES = dict(samples())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_raises(name: str) -> None:
    codes = SAMPLES[name]
    payload = encode(codes)
    assert payload[0] == (DITHERED if name == "dithered" else CODED)
    assert all(outcome(payload[:length], codes) for length in range(len(payload)))
    assert outcome(payload + b"\0", codes)


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
        (0, b"\x03", "begins with 3: expected 0, 1 or 2; either it was altered, or a later release"),
        (0, b"\x02\x01", "1 low bits of dithered codes"),
        (1, b"\x08", "8 low bits"),
        (3, b"\x00", "window of 0"),
        (4, b"\x17", "context shift 23"),
        (4, b"\x00", "context shift 0"),
        (5, b"\xff\xff", "first level 65535"),
        (7, b"\x00\x10", "top level 4096"),
        (9, b"\x00\x01\x00\x00", "base 256"),
        (13, b"\x00\x00", "0 tables for"),
        (13, b"\x01\x01", "257 tables for"),
        (15, b"\xff\xff\xff\xff", "within its blank frames"),
        (19, b"\xff\xff\xff\xff", "4294967295 words"),
        (23, b"\xff\xff\xff\xff", "4294967295 escapes"),
        (27, b"\x00\x00\x00\x00", "states of .0, "),
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
    head = bytearray(encode(movie()))[:59]
    head[13:15] = b"\x00\x01"
    head[15:27] = b"\xff\xff\xff\x00" * 3
    tracemalloc.start()
    try:
        with pytest.raises(DamagedChunkError, match="promised"):
            decode(bytes(head), shape, np.dtype("uint8"))
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
    here = str(Path(__file__).parent)
    done = run(script, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path), PYTHONPATH=here)
    assert done.stdout == "inside\n", done.stderr


# Numba in the house


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new Python process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "DJ_IGNORE_CONFIG_FILE": "true", **environment},
    )


def test_numba_is_imported_when_the_first_chunk_is_coded(tmp_path: Path) -> None:
    done = run(
        f"""
import sys
import numpy as np
import dj_photon_codecs
from dj_photon_codecs import Calibration, open_movie, write_movie
counts = np.random.default_rng(0).poisson(30, (20, 32, 32)).astype(np.uint16)
sensor = Calibration.given(1.0, 0.0)
write_movie({str(tmp_path / "standard")!r}, counts, calibration=sensor)[3]
dj_photon_codecs.RansCodec
assert "numba" not in sys.modules
write_movie({str(tmp_path / "dense")!r}, counts, calibration=sensor, profile="dense")
assert "numba" in sys.modules
handle = open_movie({str(tmp_path / "dense")!r})
print(handle.profile)
"""
    )
    assert done.stdout == "dense\n", done.stderr


def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Four processes, one empty cache: all decode, and a fifth finds what they left and compiles nothing."""
    codes = movie((4, 8, 8))
    (tmp_path / "payload").write_bytes(encode(codes))
    np.save(tmp_path / "codes.npy", codes)
    script = f"""
import pathlib
import numpy as np
from dj_photon_codecs.entropy.coder import decode
codes = np.load({str(tmp_path / "codes.npy")!r})
payload = pathlib.Path({str(tmp_path / "payload")!r}).read_bytes()
np.testing.assert_array_equal(decode(payload, codes.shape, codes.dtype), codes)
from dj_photon_codecs.entropy import kernels
stats = kernels.pull_symbols.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    running = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert output.split() in (["0", "1"], ["1", "0"])
    assert run(script, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stdout == "1 0\n"


def test_it_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """No place for a cache: every process compiles anew, and says nothing."""
    obstacle = tmp_path / "file"
    obstacle.touch()
    script = """
import numba.core.caching as caching
class Nowhere:
    @classmethod
    def from_function(cls, function, path):
        return None
for implementation in (caching.CompileResultCacheImpl, caching.CodeLibraryCacheImpl):
    implementation._locator_classes = [Nowhere]
import numpy as np
from dj_photon_codecs.entropy.coder import decode, encode
codes = np.random.default_rng(0).poisson(9, (8, 16, 16)).astype(np.uint8)
np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)
print("coded")
"""
    done = run(script)
    assert done.stdout == "coded\n", done.stderr


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
    payload = Payload.parse(encode(codes[:, :, :]), cube(codes), codes.dtype) if encode(codes)[0] == CODED else None
    if payload is not None:
        assert payload.model.top <= MAX_TOP
    np.testing.assert_array_equal(decode(encode(codes), codes.shape, codes.dtype), codes)
