"""The transform with dither: DESIGN's invariants 1 (bounded loss, monotone codes) and 2, its tables and codecs."""

from __future__ import annotations

import math
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, TransposeCodec
from zarr.storage import MemoryStore

from dj_photon_codecs import (
    AnscombeTransformV2,
    CodeRangeError,
    DitheredAnscombeV2,
    DitheredAnscombeV3,
)
from dj_photon_codecs._dither import LEVELS, PERIOD, offset, offset_levels
from dj_photon_codecs.anscombe.dithered import (
    _counts_of,
    at_every_offset,
    code_range,
    decode_dithered,
    dithered_codes,
    encode_dithered,
    fill_count,
    steep_below,
)
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.anscombe.tables import apply_rows
from dj_photon_codecs.anscombe.transform import noise_sigma

SMALL = ("uint8", "int8", "uint16", "int16")
INTEGERS = (*SMALL, "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")

gains = st.floats(1e-3, 1e5, allow_nan=False)
zero_levels = st.one_of(st.floats(-1e5, 1e5, allow_nan=False), st.integers(-50, 50).map(float))
steps = st.sampled_from([0.25, 0.5, 1.0, 2.0])


def assert_within_bound(counts: np.ndarray, decoded: np.ndarray, parameters: TransformParameters) -> None:
    """Invariant 1 for whole counts and what came back for them, which may have an axis of offsets in front."""
    raw = np.broadcast_to(counts, decoded.shape)
    largest = np.maximum(raw, decoded)
    if counts.dtype.itemsize < 8:
        error = np.abs(decoded.astype(np.int64) - raw.astype(np.int64)).astype(float)
    else:  # Python's integers, where numpy's would wrap
        pairs = zip(raw.ravel().tolist(), decoded.ravel().tolist(), strict=True)
        error = np.array([abs(y - x) for x, y in pairs], float).reshape(decoded.shape)
    bound = parameters.step / 2 * noise_sigma(largest, parameters) + 0.5
    # beyond 2**41 float64 itself moves the edges of the bins, by the thousandth that the transform admits
    slack = 1e-3 if np.abs(counts.astype(float)).max() > 2**40 else 1e-9
    assert (error <= bound * (1 + slack)).all()


# Invariants 1 and 2


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize(
    ("gain", "zero_level", "step"),
    [
        (0.003, -1000.0, 1.0),
        (0.3, 5.0, 0.5),
        (1.0, 0.0, 0.5),
        (2.7, -40.5, 0.25),
        (3.3, 10.0, 0.5),
        (30.0, 157.3, 0.5),
        (300.0, 100.5, 2.0),
    ],
)
def test_every_count_of_a_small_dtype_comes_back_within_the_bound(
    dtype: str, gain: float, zero_level: float, step: float
) -> None:
    """Invariants 1 and 2: every 8- and 16-bit count, at offsets from the first to the last."""
    info = np.iinfo(dtype)
    counts = np.arange(info.min, info.max + 1).astype(dtype)
    parameters = TransformParameters(zero_level, gain, "int64", dtype, step)
    for level in (0, 31, 63):
        # a chunk in which each count stands at a place with this offset would be 64 times as long
        here = np.full(counts.size, offset(level))
        codes = dithered_codes(counts, here, parameters)
        assert (np.diff(codes) >= 0).all()
        decoded = _decoded(codes, level, parameters)
        assert_within_bound(counts, decoded, parameters)
        np.testing.assert_array_equal(dithered_codes(decoded, here, parameters), codes)


def _decoded(codes: np.ndarray, level: int, parameters: TransformParameters) -> np.ndarray:
    """Counts of codes that all have the offset of one level."""
    distinct, inverse = np.unique(codes, return_inverse=True)
    counts: np.ndarray = _counts_of(distinct, offset(level), parameters)[inverse]
    return counts


@given(st.data(), st.sampled_from(INTEGERS), gains, zero_levels, steps)
@settings(max_examples=8)
def test_counts_of_every_dtype_come_back_within_the_bound(
    data: st.DataObject, dtype: str, gain: float, zero_level: float, step: float
) -> None:
    """Invariants 1 and 2, near the zero level and anywhere, in chunks."""
    info = np.iinfo(dtype)
    near_zero = st.integers(max(info.min, math.floor(zero_level) - 5000), min(info.max, math.ceil(zero_level) + 5000))
    anywhere = st.integers(info.min, info.max)
    source = anywhere if zero_level > info.max or zero_level < info.min else st.one_of(anywhere, near_zero)
    counts = np.array(data.draw(st.lists(source, min_size=1, max_size=10)), dtype=dtype)
    parameters = TransformParameters(zero_level, gain, "int64", dtype, step)
    try:
        codes = encode_dithered(counts, parameters)
    except CodeRangeError:
        assume(False)
    decoded = decode_dithered(codes, parameters)
    assert decoded.dtype == dtype
    assert_within_bound(counts, decoded, parameters)
    np.testing.assert_array_equal(encode_dithered(decoded, parameters), codes)


@given(st.lists(st.floats(-1e4, 1e6, width=32), min_size=1, max_size=30), gains, st.floats(-1e3, 1e3), steps)
@settings(max_examples=40)
def test_real_counts_come_back_within_the_bound(values: list[float], gain: float, zero: float, step: float) -> None:
    """Invariants 1 and 2 for floating point; what is added is the rounding of the dtype."""
    counts = np.array(values, np.float32)
    parameters = TransformParameters(zero, gain, "int64", "float32", step)
    codes = encode_dithered(counts, parameters)
    decoded = decode_dithered(codes, parameters)
    error = np.abs(decoded.astype(float) - counts)
    bound = step / 2 * noise_sigma(np.maximum(counts, decoded), parameters)
    rounding = np.spacing(np.maximum(np.abs(decoded), np.float32(abs(zero))))
    assert (error <= bound * (1 + 1e-6) + 2 * rounding).all()
    apart = step * noise_sigma(counts, parameters) > 16 * rounding  # where float32 tells one bin from the next
    np.testing.assert_array_equal(encode_dithered(decoded, parameters)[apart], codes[apart])


@given(st.sampled_from(("uint8", "int8", "uint16")), gains, zero_levels, steps)
@settings(max_examples=15)
def test_codes_grow_with_the_counts_at_any_one_offset(dtype: str, gain: float, zero_level: float, step: float) -> None:
    """Invariant 1: codes are monotone, and whole counts are never more than one code apart."""
    info = np.iinfo(dtype)
    counts = np.arange(info.min, info.max + 1).astype(dtype)
    parameters = TransformParameters(zero_level, gain, "int64", dtype, step)
    for level in (0, 31, 63):
        codes = dithered_codes(counts, offset(level), parameters)
        assert set(np.diff(codes)) <= {0.0, 1.0, *({2.0} if dtype != "int8" else ())}


# Whole photons


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64"])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, 5.0), (1.0, 0.0), (1.0, -8.3), (100.0, 157.3)])
def test_the_count_0_of_unsigned_dtypes_comes_back_as_0_and_nothing_else_does(
    dtype: str, gain: float, zero_level: float
) -> None:
    """What a detector cuts off, and frames that were filled up, stay 0 at every place; a photon stays one."""
    parameters = TransformParameters(zero_level, gain, "int32", dtype)
    counts = np.arange(200).astype(dtype)
    stored = at_every_offset(counts, parameters)
    assert (stored[:, 0] == 0).all()
    assert (stored[:, 1:] > 0).all()
    np.testing.assert_array_equal(encode_dithered(np.zeros(PERIOD, dtype), parameters), 0)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int64"])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, 5.7), (0.5, 0.0), (1.0, 40.2), (3.0, 100.0)])
def test_below_the_edge_every_whole_count_comes_back_as_itself(dtype: str, gain: float, zero_level: float) -> None:
    """Where the noise is less than two counts at half a step, the codes are the counts."""
    parameters = TransformParameters(zero_level, gain, "int32", dtype)
    edge = steep_below(parameters)
    assert edge is not None
    lowest = 0 if np.dtype(dtype).kind == "u" else -300
    counts = np.arange(lowest, math.floor(edge) + 1).astype(dtype)
    stored = at_every_offset(counts, parameters)
    np.testing.assert_array_equal(stored, np.broadcast_to(counts, stored.shape))


# What is refused


@pytest.mark.parametrize(
    ("dtype", "encoded", "gain", "low", "high"),
    [
        ("uint16", "uint8", 1.0, 3900, 4200),
        ("int16", "int8", 10.0, -500, -200),
        ("uint32", "uint8", 1.0, 3900, 4200),
        ("float32", "uint8", 1.0, 3900, 4200),
    ],
)
def test_whether_a_count_is_refused_does_not_depend_on_its_place(
    dtype: str, encoded: str, gain: float, low: int, high: int
) -> None:
    """A chunk of one count is refused exactly when that count alone is, at the first place or any other."""
    parameters = TransformParameters(0.0, gain, encoded, dtype)
    limits = np.iinfo(encoded)
    outcomes = set()
    for count in range(low, high):
        first, last = code_range(count, count, parameters)
        fits = limits.min <= first and last <= limits.max
        outcomes.add(fits)
        for chunk in (np.full(1, count, dtype), np.full(70, count, dtype)):
            if fits:
                encode_dithered(chunk, parameters)
            else:
                with pytest.raises(CodeRangeError):
                    encode_dithered(chunk, parameters)
    assert outcomes == {True, False}


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_a_count_without_a_code_is_named_with_the_dtype_that_would_do(dtype: str) -> None:
    """The error says value, code, range and remedy."""
    counts = np.array([3, 60000, 5]).astype(dtype)
    with pytest.raises(CodeRangeError, match=r"60000.*code 97\d.*uint8 \(0 to 255\): use encoded_dtype='uint16'"):
        encode_dithered(counts, TransformParameters(0, 1, "uint8", dtype))


def test_negative_codes_ask_for_a_signed_dtype() -> None:
    """The remedy for counts below the first code."""
    with pytest.raises(CodeRangeError, match=r"-40.*use encoded_dtype='int8'"):
        encode_dithered(np.array([-40], np.int16), TransformParameters(0, 10, "uint8", "int16"))


def test_what_is_no_count_is_refused() -> None:
    """NaN and infinity, a fraction where whole numbers were promised, and what float64 does not resolve."""
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(CodeRangeError, match="not finite"):
            encode_dithered(np.array([1.0, value]), TransformParameters(0, 1, "int64", "float64"))
    with pytest.raises(CodeRangeError, match=r"2\.5.*not a whole number.*float32"):
        encode_dithered(np.array([1, 2.5], np.float32), TransformParameters(0, 1, "uint8", "uint16"))
    with pytest.raises(CodeRangeError, match="beyond what the Anscombe transform resolves"):
        encode_dithered(np.array([2**62]), TransformParameters(0, 1e-12, "int64", "int64"))


@pytest.mark.parametrize("dtype", [*SMALL, "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("encoded", ["uint8", "uint16", "int64"])
def test_the_fill_value_can_be_encoded_and_is_no_darkness(dtype: str, encoded: str) -> None:
    """What a lost chunk shows in other readers."""
    parameters = TransformParameters(100, 2.5, encoded, dtype)
    top = fill_count(parameters)
    assert np.isfinite(top)
    encode_dithered(np.array([top], dtype), parameters)
    assert top > 100 or np.dtype(dtype).itemsize == 1


# Tables


@pytest.mark.parametrize(
    "size", [1, 64, PERIOD - 1, PERIOD, PERIOD + 1, 8191, 8192, 8193, 2 * PERIOD, 2 * PERIOD + 1, 16385, 3 * 8192 + 77]
)
def test_a_table_by_rows_equals_plain_indexing(size: int) -> None:
    """At the edges of its blocks and of the period, for values of either sign."""
    rng = np.random.default_rng(size)
    table = rng.integers(0, 2**31, (LEVELS, 300), dtype=np.int32)
    for dtype, first in (("uint8", 0), ("int16", -150), ("int64", 1 << 40)):
        values = (rng.integers(0, 256, size) + first).astype(dtype)
        rows = offset_levels()[np.arange(size) % PERIOD]
        np.testing.assert_array_equal(apply_rows(table, first, offset_levels(), values), table[rows, values - first])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32"])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, -5.2), (1.0, 3.0), (40.0, 157.3)])
def test_tables_equal_the_formula(dtype: str, gain: float, zero_level: float) -> None:
    """A chunk longer than a block and a period gets the codes that the formula gives at each place."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(5)
    counts = rng.integers(info.min, min(info.max, 65535) + 1, (3, 61, 97)).astype(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype)
    offsets = offset(offset_levels()[np.arange(counts.size) % PERIOD]).reshape(counts.shape)
    codes = encode_dithered(counts, parameters)
    np.testing.assert_array_equal(codes, dithered_codes(counts, offsets, parameters))
    wide = counts.astype(np.int64) if info.min < 0 else counts.astype(np.uint64)
    wide[0, 0, 0] = 1 << 20  # beyond what tables hold
    np.testing.assert_array_equal(encode_dithered(wide, parameters).ravel()[1:], codes.ravel()[1:])


# Wide counts


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("gain", [1e8, 1e9])
def test_counts_beyond_2_to_the_53_come_back_within_the_bound(dtype: str, gain: float) -> None:
    """Invariants 1 and 2 up to the last count of the dtype, which no float64 holds."""
    info = np.iinfo(dtype)
    parameters = TransformParameters(1000.0, gain, "int64", dtype)
    below = [-(2**53) - 1, -(2**61), info.min] if info.min else []
    counts = np.array([2**53 + 1, 2**60 + 12345, info.max // 2, info.max - 1, info.max, *below], dtype)
    codes = encode_dithered(counts, parameters)
    decoded = decode_dithered(codes, parameters)
    assert_within_bound(counts, decoded, parameters)
    np.testing.assert_array_equal(encode_dithered(decoded, parameters), codes)


# Codecs

COUNTS = (np.arange(6 * 50 * 41).reshape(6, 50, 41) * 7919 % 3000).astype(np.uint16)
NOISE = TransformParameters(50.0, 10.0, "uint8", "uint16")


def chunked(counts: np.ndarray, parameters: TransformParameters, frames: int) -> np.ndarray:
    """What the functions behind the codecs give for chunks of so many frames."""
    parts = [counts[start : start + frames] for start in range(0, len(counts), frames)]
    return np.concatenate([decode_dithered(encode_dithered(part, parameters), parameters) for part in parts])


@pytest.mark.parametrize("shards", [None, (6, 50, 41)], ids=["chunks", "shards"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint64", "float64"])
def test_a_v3_array_gives_what_its_inner_chunks_give(dtype: str, shards: tuple[int, ...] | None) -> None:
    """The place of a count is that in its inner chunk, in a shard as without one."""
    counts = COUNTS.astype(dtype)
    codec = DitheredAnscombeV3(zero_level=50, conversion_gain=10.0)
    array = zarr.create_array(
        MemoryStore(), data=counts, chunks=(3, 50, 41), shards=shards, filters=[codec], compressors=None
    )
    expected = chunked(counts, TransformParameters(50.0, 10.0, "uint8", dtype), 3)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[:], expected)


def test_a_transpose_before_the_v3_codec_moves_the_places() -> None:
    """The codec counts the places in what it is handed: here frames with their axes exchanged."""
    codec = DitheredAnscombeV3(zero_level=50, conversion_gain=10.0)
    array = zarr.create_array(
        MemoryStore(),
        shape=COUNTS.shape,
        dtype=COUNTS.dtype,
        chunks=(3, 50, 41),
        filters=[TransposeCodec(order=(2, 0, 1)), codec],
        serializer=BytesCodec(),
        compressors=None,
    )
    array[:] = COUNTS
    parts = [COUNTS[start : start + 3].transpose(2, 0, 1) for start in (0, 3)]
    parts = [decode_dithered(encode_dithered(part, NOISE), NOISE).transpose(1, 2, 0) for part in parts]
    np.testing.assert_array_equal(array[:], np.concatenate(parts))
    assert_within_bound(COUNTS, array[:], NOISE)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("role", ["filter", "compressor", "filter with a cast"])
@pytest.mark.parametrize("codec_type", [AnscombeTransformV2, DitheredAnscombeV2])
def test_a_v2_array_of_either_order_holds_the_counts(codec_type: Any, role: str, order: str) -> None:
    """Invariant 1: in arrays of the order F too, each count comes back at its own place, within its bound."""
    codec = codec_type(zero_level=50, conversion_gain=10.0)
    counts = COUNTS.astype(np.float32) if role == "filter with a cast" else COUNTS
    filters = [numcodecs.AsType("uint16", "float32"), codec] if role == "filter with a cast" else [codec]
    options: dict[str, Any] = (
        {"compressors": codec} if role == "compressor" else {"filters": filters, "compressors": numcodecs.Zstd(1)}
    )
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=counts.shape,
        dtype=counts.dtype,
        chunks=(3, 50, 41),
        zarr_format=2,
        order=order,
        fill_value=0,
        **options,
    )
    array[:] = counts
    found = zarr.open_array(store, mode="r", zarr_format=2)[:]
    assert_within_bound(COUNTS, found.astype(np.uint16), NOISE)
    if codec_type is DitheredAnscombeV2 and order == "C":
        np.testing.assert_array_equal(found, chunked(COUNTS, NOISE, 3))
    if codec_type is AnscombeTransformV2:
        np.testing.assert_array_equal(found, codec.decode(codec.encode(COUNTS)))


@pytest.mark.parametrize("codec_type", [AnscombeTransformV2, DitheredAnscombeV2])
def test_the_codes_of_an_array_in_the_order_f_are_those_of_its_bytes(codec_type: Any) -> None:
    """A decoder is handed bytes without a shape, so codes must lie where their counts lay."""
    codec = codec_type(zero_level=50, conversion_gain=10.0)
    fortran = np.asfortranarray(COUNTS)
    codes = codec.encode(fortran)
    np.testing.assert_array_equal(codes.ravel(order="K"), codec.encode(fortran.ravel(order="K").tobytes()))
    back = codec.decode(np.asarray(codes).tobytes(order="A")).reshape(COUNTS.shape, order="F")
    assert_within_bound(COUNTS, back, NOISE)
    np.testing.assert_array_equal(codec.decode(codes), back)


@given(st.sampled_from(SMALL), st.floats(0.1, 300), st.floats(-50, 300), steps)
@settings(max_examples=10)
def test_the_v2_and_the_v3_codec_give_equal_codes(dtype: str, gain: float, zero_level: float, step: float) -> None:
    """One format, two wrappers."""
    info = np.iinfo(dtype)
    counts = (np.arange(5000).reshape(50, 100) * 31 % (info.max - info.min + 1) + info.min).astype(dtype)
    options: dict[str, Any] = {"encoded_dtype": "int32", "decoded_dtype": dtype, "step": step}
    v2 = DitheredAnscombeV2(zero_level, gain, **options)
    v3 = DitheredAnscombeV3(zero_level, gain, **options)
    codes = v2.encode(counts)
    np.testing.assert_array_equal(codes, v3._encode(counts))
    np.testing.assert_array_equal(v2.decode(codes), v3._decode(codes, counts.dtype))
