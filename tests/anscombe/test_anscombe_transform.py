"""The transform: DESIGN's invariants 1 (bounded loss that leans nowhere, monotone codes) and 2 (idempotent)."""

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
    AnscombeTransformV3,
    CalibrationError,
    CodeRangeError,
    ConfigurationError,
)
from dj_photon_codecs._dither import BLOCK, LEVELS, PERIOD, offset_levels
from dj_photon_codecs.anscombe import kernels, tables
from dj_photon_codecs.anscombe.cells import cells_of
from dj_photon_codecs.anscombe.codes import (
    at_every_offset,
    code_range,
    decode,
    decoding_table,
    encode,
    encoding_table,
    fill_count,
    levels,
    rounded,
    smallest_code_dtype,
)
from dj_photon_codecs.anscombe.parameters import DITHERS, TransformParameters

SMALL = ("uint8", "int8", "uint16", "int16")
INTEGERS = (*SMALL, "uint32", "int32", "uint64", "int64")

gains = st.floats(1e-3, 1e5, allow_nan=False)
zero_levels = st.one_of(st.floats(-1e5, 1e5, allow_nan=False), st.integers(-50, 50).map(float))
steps = st.sampled_from([0.25, 0.5, 1.0, 2.0])
under_roots = st.sampled_from([0.375, 0.1, 0.01])
saturations = st.sampled_from([None, 60, 127, 4095])


def every(dtype: str) -> np.ndarray:
    """Every count of a small dtype."""
    info = np.iinfo(dtype)
    return np.arange(info.min, info.max + 1).astype(dtype)


def assert_within_bound(counts: np.ndarray, decoded: np.ndarray, parameters: TransformParameters) -> None:
    """Invariant 1 for whole counts and what came back for them, which may have an axis of offsets in front."""
    raw = np.broadcast_to(counts, decoded.shape)
    largest = np.maximum(raw, decoded)
    if counts.dtype.itemsize < 8:
        error = np.abs(decoded.astype(np.int64) - raw.astype(np.int64)).astype(float)
    else:  # Python's integers, where numpy's would wrap
        pairs = zip(raw.ravel().tolist(), decoded.ravel().tolist(), strict=True)
        error = np.array([abs(y - x) for x, y in pairs], float).reshape(decoded.shape)
    bound = parameters.step / 2 * parameters.sigma(largest) + 0.5
    # beyond 2**41 float64 itself moves the edges of the cells, by the thousandth that the transform admits
    slack = 1e-3 if np.abs(counts.astype(float)).max() > 2**40 else 1e-9
    assert (error <= bound * (1 + slack)).all()


# Invariants 1 and 2


@given(st.sampled_from(("uint8", "int8", "uint8", "uint16")), gains, zero_levels, steps, under_roots, saturations)
@settings(max_examples=5, deadline=None)
def test_every_count_of_a_small_dtype_is_within_the_bound_at_every_offset(
    dtype: str, gain: float, zero_level: float, step: float, under_root: float, saturation: float | None
) -> None:
    """Invariants 1 and 2 exhaustively, codes that are monotone and no wider than the counts."""
    counts, info = every(dtype), np.iinfo(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype, step, "position", under_root, saturation)
    positions = cells_of(parameters).positions(counts)
    assert (np.diff(positions) >= 0).all()
    low, high = code_range(info.min, info.max, parameters)
    assert info.min <= low
    assert high <= info.max
    decoded = at_every_offset(counts, parameters)
    assert_within_bound(counts, decoded, parameters)
    again = cells_of(parameters).positions(decoded)
    offsets = np.arange(LEVELS)[:, None]
    np.testing.assert_array_equal((again + offsets) // LEVELS, (positions + offsets) // LEVELS)


@given(st.sampled_from(SMALL), gains, zero_levels, steps, under_roots, saturations)
@settings(max_examples=20, deadline=None)
def test_every_count_of_a_small_dtype_is_within_the_bound_without_dither(
    dtype: str, gain: float, zero_level: float, step: float, under_root: float, saturation: float | None
) -> None:
    """Invariants 1 and 2 for the plain codes."""
    counts = every(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype, step, "none", under_root, saturation)
    codes = encode(counts, parameters)
    assert (np.diff(codes) >= 0).all()
    decoded = decode(codes, parameters)
    assert_within_bound(counts, decoded, parameters)
    np.testing.assert_array_equal(encode(decoded, parameters), codes)


@pytest.mark.slow
@given(st.data(), st.sampled_from(INTEGERS), gains, zero_levels, steps, st.sampled_from(DITHERS))
@settings(max_examples=60, deadline=None)
def test_counts_of_every_dtype_come_back_within_the_bound(
    data: st.DataObject, dtype: str, gain: float, zero_level: float, step: float, dither: str
) -> None:
    """Invariants 1 and 2, near the zero level and anywhere, in chunks."""
    info = np.iinfo(dtype)
    near_zero = st.integers(max(info.min, math.floor(zero_level) - 5000), min(info.max, math.ceil(zero_level) + 5000))
    anywhere = st.integers(info.min, info.max)
    source = anywhere if zero_level > info.max or zero_level < info.min else st.one_of(anywhere, near_zero)
    counts = np.array(data.draw(st.lists(source, min_size=1, max_size=10)), dtype=dtype)
    parameters = TransformParameters(zero_level, gain, "int64", dtype, step, dither)
    try:
        codes = encode(counts, parameters)
    except CodeRangeError:
        assume(False)
    decoded = decode(codes, parameters)
    assert decoded.dtype == dtype
    assert_within_bound(counts, decoded, parameters)
    np.testing.assert_array_equal(encode(decoded, parameters), codes)


@given(
    st.lists(st.floats(-1e4, 1e6, width=32), min_size=1, max_size=30),
    gains,
    st.floats(-1e3, 1e3),
    steps,
    st.sampled_from(DITHERS),
    st.sampled_from(["float16", "float32", "float64"]),
)
@settings(max_examples=60, deadline=None)
def test_real_counts_come_back_within_the_bound_or_are_refused(
    values: list[float], gain: float, zero: float, step: float, dither: str, dtype: str
) -> None:
    """Invariant 1 also where the numbers of the dtype are far apart; invariant 2 where they are near."""
    with np.errstate(over="ignore"):
        counts = np.array(values).astype(dtype)
    counts = counts[np.isfinite(counts)]
    parameters = TransformParameters(zero, gain, "int64", dtype, step, dither)
    for count in counts:  # one by one, so that one that is refused does not hide the others
        try:
            codes = encode(np.array([count]), parameters)
        except CodeRangeError:
            continue
        decoded = decode(codes, parameters)
        bound = step / 2 * parameters.sigma(np.maximum(count, decoded)) + 0.5
        assert abs(float(decoded[0]) - float(count)) <= bound[0] * (1 + 1e-9)
        np.testing.assert_array_equal(encode(decoded, parameters), codes)


@pytest.mark.parametrize(("dtype", "count", "gain"), [("float32", 2.0**26 + 8, 0.01), ("float16", 65472.0, 30.0)])
def test_counts_whose_dtype_is_too_coarse_for_the_bound_are_refused(dtype: str, count: float, gain: float) -> None:
    """Rounded to numbers that far apart, they would leave the bound."""
    with pytest.raises(CodeRangeError, match=f"beyond what the Anscombe transform resolves.*{dtype}.*losslessly"):
        encode(np.array([count], dtype), TransformParameters(0, gain, "int64", dtype))


# Means


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16"])
@pytest.mark.parametrize("gain", [0.5, 5.0, 30.0, 213.0, 500.0])
@pytest.mark.parametrize("zero_level", [0.0, 1.0, 13.0, 100.4])
def test_the_mean_over_the_offsets_is_the_count(dtype: str, gain: float, zero_level: float) -> None:
    """To a 64th of a cell everywhere, also at the edges of the dtype; exactly where there is no light, and there."""
    counts, info = every(dtype), np.iinfo(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype, dither="position")
    lean = np.abs((at_every_offset(counts, parameters) - counts.astype(np.float64)).mean(axis=0))
    cells = cells_of(parameters)
    n = cells.numbers(counts)
    width = np.max([cells.edges(n + k + 1) - cells.edges(n + k) for k in (-1, 0, 1)], axis=0)
    assert (lean <= np.maximum(width, 4) / LEVELS).all()
    for exact in {info.min, info.min + 1, info.max - 1, info.max, round(zero_level)}:
        assert lean[exact - info.min] == 0


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("saturation", [None, 100])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, 5.0), (1.0, -8.3), (30.0, 13.0), (213.0, 100.0)])
def test_the_ends_of_the_dtype_and_the_saturation_come_back_exactly_and_nothing_else_comes_back_as_them(
    dtype: str, gain: float, zero_level: float, saturation: int | None, dither: str
) -> None:
    """A mask of saturated pixels, or of those that the converter cut off at 0, is that of the raw movie."""
    counts, info = every(dtype), np.iinfo(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype, 0.5, dither, saturation=saturation)
    dithered = dither == "position"
    decoded = at_every_offset(counts, parameters) if dithered else decode(encode(counts, parameters), parameters)
    for exact in (info.min, info.max, *([] if saturation is None else [saturation])):
        np.testing.assert_array_equal(decoded == exact, np.broadcast_to(counts == exact, decoded.shape))
    if saturation is not None:
        assert (decoded[..., counts < saturation] < saturation).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_saturation_of_real_counts_comes_back_exactly(dtype: str) -> None:
    """Scaled movies too."""
    top = float(np.array(40.95, dtype))
    counts = np.minimum(np.random.default_rng(0).gamma(4, 9, 20_000), top).astype(dtype)
    parameters = TransformParameters(0.5, 0.04, "int32", dtype, dither="position", saturation=top)
    decoded = decode(encode(counts, parameters), parameters)
    assert 0 < (counts == top).sum() < counts.size
    np.testing.assert_array_equal(decoded == top, counts == top)
    assert decoded.max() == top


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int64"])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, 5.7), (0.5, 0.0), (1.0, 40.2), (3.0, 100.0)])
def test_where_the_noise_is_narrower_than_a_cell_of_one_count_every_count_comes_back(
    dtype: str, gain: float, zero_level: float
) -> None:
    """Whole photons stay whole, and codes are the counts themselves."""
    parameters = TransformParameters(zero_level, gain, "int32", dtype, dither="position")
    edge = zero_level + gain * (1 / (0.5 * gain) ** 2 - 0.375)
    lowest = 0 if np.dtype(dtype).kind == "u" else -300
    counts = np.arange(lowest, math.floor(edge) + 1).astype(dtype)
    stored = at_every_offset(counts, parameters)
    np.testing.assert_array_equal(stored, np.broadcast_to(counts, stored.shape))
    assert code_range(counts[-1], counts[-1], parameters) == (counts[-1], counts[-1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(("gain", "zero_level"), [(1.0, 0.0), (30.0, 100.0), (213.0, 13.0)])
def test_counts_for_readers_that_decode_nothing_have_each_offset_in_turn(
    dtype: str, gain: float, zero_level: float
) -> None:
    """In 64 blocks a count comes back as it does at the 64 offsets, whose mean is the count; then they begin anew."""
    parameters = TransformParameters(zero_level, gain, "int32", dtype, dither="position")
    values = np.arange(0, 250, 7).astype(dtype)
    counts = np.zeros((LEVELS + 1, BLOCK), dtype)
    counts[:, : values.size] = values
    stored = rounded(counts, parameters)[:, : values.size]
    np.testing.assert_array_equal(
        np.sort(stored[:LEVELS], axis=0), np.sort(at_every_offset(values, parameters), axis=0)
    )
    np.testing.assert_array_equal(stored[0], stored[LEVELS])
    change = stored[:LEVELS].astype(float) - values
    assert (np.abs(change) <= 0.25 * parameters.sigma(np.maximum(stored[:LEVELS], values)) + 0.5).all()


# What is refused


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize(
    ("dtype", "encoded", "gain", "low", "high"),
    [
        ("uint16", "uint8", 1.0, 4000, 4300),
        ("int16", "int8", 10.0, -500, -200),
        ("uint32", "uint8", 1.0, 4000, 4300),
        ("float32", "uint8", 1.0, 3900, 4300),
    ],
)
def test_whether_a_count_is_refused_does_not_depend_on_its_place(
    dtype: str, encoded: str, gain: float, low: int, high: int, dither: str
) -> None:
    """A chunk of one count is refused exactly when that count alone is, at the first place or any other."""
    parameters = TransformParameters(0.0, gain, encoded, dtype, dither=dither)
    limits = np.iinfo(encoded)
    outcomes = set()
    for count in range(low, high, 3):
        first, last = code_range(count, count, parameters)
        fits = limits.min <= first and last <= limits.max
        outcomes.add(fits)
        for chunk in (np.full(1, count, dtype), np.full(70, count, dtype)):
            if fits:
                encode(chunk, parameters)
            else:
                with pytest.raises(CodeRangeError):
                    encode(chunk, parameters)
    assert outcomes == {True, False}


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_a_count_without_a_code_is_named_with_the_dtype_that_would_do(dtype: str, dither: str) -> None:
    """The error says value, code, range and remedy."""
    counts = np.array([3, 60000, 5]).astype(dtype)
    with pytest.raises(CodeRangeError, match=r"60000.*code 9\d\d.*uint8 \(0 to 255\): use encoded_dtype='uint16'"):
        encode(counts, TransformParameters(0, 1, "uint8", dtype, dither=dither))


def test_negative_codes_ask_for_a_signed_dtype() -> None:
    """The remedy for counts below the first code."""
    with pytest.raises(CodeRangeError, match=r"-40.*use encoded_dtype='int8'"):
        encode(np.array([-40], np.int16), TransformParameters(0, 10, "uint8", "int16"))


@pytest.mark.parametrize("dither", DITHERS)
def test_what_is_no_count_is_refused(dither: str) -> None:
    """NaN and infinity, a fraction where whole numbers were promised, and what float64 does not resolve."""
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(CodeRangeError, match="not finite"):
            encode(np.array([1.0, value]), TransformParameters(0, 1, "int64", "float64", dither=dither))
    with pytest.raises(CodeRangeError, match=r"2\.5.*not a whole number.*float32"):
        encode(np.array([1, 2.5], np.float32), TransformParameters(0, 1, "uint8", "uint16", dither=dither))
    with pytest.raises(CodeRangeError, match="beyond what the Anscombe transform resolves"):
        encode(np.array([2**62]), TransformParameters(0, 1e-12, "int64", "int64", dither=dither))


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "3", None, True])
def test_a_gain_that_is_not_a_finite_number_above_0_raises_at_construction(value: object) -> None:
    with pytest.raises(CalibrationError, match=r"conversion_gain must be a finite number above 0"):
        TransformParameters(0, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, "0", None])
def test_a_zero_level_that_is_not_finite_raises_at_construction(value: object) -> None:
    with pytest.raises(CalibrationError, match="zero_level must be a finite number"):
        TransformParameters(value, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf])
def test_a_step_out_of_range_raises_at_construction(value: float) -> None:
    with pytest.raises(ConfigurationError, match="step must be a finite number above 0"):
        TransformParameters(0, 1, step=value)


@pytest.mark.parametrize("value", [0, -0.1, 0.38, math.nan, None, "0.1"])
def test_an_under_root_out_of_range_raises_at_construction(value: object) -> None:
    with pytest.raises(CalibrationError, match=r"under_root must be a number above 0 and at most 0.375"):
        TransformParameters(0, 1, under_root=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "dtype"), [(4095.5, "uint16"), (math.inf, "float32"), ("4095", "uint16")])
def test_a_saturation_that_no_count_can_have_raises_at_construction(value: object, dtype: str) -> None:
    with pytest.raises(CalibrationError, match="saturation must be a"):
        TransformParameters(0, 1, decoded_dtype=dtype, saturation=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value"), [("encoded_dtype", "float32"), ("decoded_dtype", "complex64"), ("encoded_dtype", "nope")]
)
def test_a_dtype_that_cannot_hold_codes_or_counts_raises_at_construction(argument: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        TransformParameters(0, 1, **{argument: value})


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("encoded", ["uint8", "uint16", "int64"])
def test_the_fill_value_comes_back_as_itself_and_is_no_darkness(dtype: str, encoded: str, dither: str) -> None:
    """What a lost chunk shows in other readers."""
    parameters = TransformParameters(100, 2.5, encoded, dtype, dither=dither)
    top = fill_count(parameters)
    assert np.isfinite(top)
    assert decode(encode(np.array([top], dtype), parameters), parameters)[0] == top
    assert top > 100 or np.dtype(dtype).itemsize == 1


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 255, "uint8"), (0, 256, "uint16"), (-1, 5, "int8"), (-1, 200, "int16"), (0, 2**40, "uint64"), (0, 1e30, None)],
)
def test_the_narrowest_code_dtype_is_found(low: float, high: float, dtype: str | None) -> None:
    assert smallest_code_dtype(low, high) == dtype


def test_codes_beyond_all_counts_give_the_ends_of_the_dtype() -> None:
    """Damaged codes, at any place."""
    for dither in DITHERS:
        parameters = TransformParameters(0, 1, "int16", "uint8", dither=dither)
        assert set(decode(np.full(200, 30000, np.int16), parameters)) == {255}
        assert set(decode(np.full(200, -30000, np.int16), parameters)) == {0}


# Tables


@pytest.mark.parametrize(
    "size", [1, 64, PERIOD - 1, PERIOD, PERIOD + 1, 8191, 8192, 8193, 2 * PERIOD, 2 * PERIOD + 1, 3 * 8192 + 77]
)
def test_tables_equal_plain_indexing(size: int) -> None:
    """At the edges of blocks and of the period, for values of either sign."""
    rng = np.random.default_rng(size)
    table = rng.integers(0, 2**31, (LEVELS, 300), dtype=np.int32)
    positions = rng.integers(0, 250 * LEVELS, 300).astype(np.int32)
    for dtype, first in (("uint8", 0), ("int16", -150), ("int64", 1 << 40)):
        values = (rng.integers(0, 256, size) + first).astype(dtype)
        rows = offset_levels()[np.arange(size) % PERIOD]
        found = tables.apply_rows(table, first, offset_levels(), values)
        np.testing.assert_array_equal(found, table[rows, values - first])
        codes = np.empty(size, np.uint8)
        tables.quantise(positions, first, offset_levels(), values, codes)
        expected = (positions[values - first] + rows) // LEVELS
        np.testing.assert_array_equal(codes, expected)
        compiled = np.empty_like(codes)
        kernels.quantise(positions, first, offset_levels(), values, compiled)
        np.testing.assert_array_equal(compiled, expected)
    indices = rng.integers(0, 256, size).astype(np.uint8)
    out = np.empty(size, np.int32)
    assert tables.apply_table(table[0], indices, out) is out
    np.testing.assert_array_equal(out, table[0][indices])


@pytest.mark.parametrize("dither", DITHERS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32"])
@pytest.mark.parametrize(("gain", "zero_level"), [(0.3, -5.2), (1.0, 3.0), (40.0, 157.3)])
def test_tables_equal_the_formula(dtype: str, gain: float, zero_level: float, dither: str) -> None:
    """A chunk longer than a block and a period gets the codes that the formula gives, by either of its tables."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(5)
    counts = rng.integers(info.min, min(info.max, 65535) + 1, (3, 61, 97)).astype(dtype)
    parameters = TransformParameters(zero_level, gain, "int32", dtype, dither=dither)
    codes = encode(counts, parameters)
    wide = counts.astype(np.int64) if info.min < 0 else counts.astype(np.uint64)
    wide[0, 0, 0] = 1 << 20  # beyond what tables hold
    if dtype == "uint32":
        np.testing.assert_array_equal(encode(wide, parameters).ravel()[1:], codes.ravel()[1:])
    at = levels(parameters)[np.arange(counts.size) % levels(parameters).size].reshape(counts.shape)
    if counts.dtype.itemsize <= 2:
        positions, low, high = encoding_table(parameters, dtype)
        assert (low, high) == (info.min, info.max)
        np.testing.assert_array_equal(codes, (positions[counts.astype(np.int64) - info.min] + at) // LEVELS)
    table = decoding_table(parameters, int(codes.min()), int(codes.max()))
    np.testing.assert_array_equal(decode(codes, parameters), table[at, codes - codes.min()])


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("gain", [1e8, 1e9])
def test_counts_beyond_2_to_the_53_come_back_within_the_bound(dtype: str, gain: float) -> None:
    """Invariants 1 and 2 up to the last count of the dtype, which no float64 holds."""
    info = np.iinfo(dtype)
    parameters = TransformParameters(1000.0, gain, "int64", dtype, dither="position")
    below = [-(2**53) - 1, -(2**61), info.min] if info.min else []
    counts = np.array([2**53 + 1, 2**60 + 12345, info.max // 2, info.max - 1, info.max, *below], dtype)
    codes = encode(counts, parameters)
    decoded = decode(codes, parameters)
    assert_within_bound(counts, decoded, parameters)
    np.testing.assert_array_equal(encode(decoded, parameters), codes)


# Codecs

COUNTS = (np.arange(6 * 50 * 41).reshape(6, 50, 41) * 7919 % 3000).astype(np.uint16)
NOISE = TransformParameters(50.0, 10.0, "uint8", "uint16", dither="position")


def chunked(counts: np.ndarray, parameters: TransformParameters, frames: int) -> np.ndarray:
    """What the functions behind the codecs give for chunks of so many frames."""
    parts = [counts[start : start + frames] for start in range(0, len(counts), frames)]
    return np.concatenate([decode(encode(part, parameters), parameters) for part in parts])


@pytest.mark.parametrize("shards", [None, (6, 50, 41)], ids=["chunks", "shards"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint64", "float64"])
def test_a_v3_array_gives_what_its_inner_chunks_give(dtype: str, shards: tuple[int, ...] | None) -> None:
    """The place of a count is that in its inner chunk, in a shard as without one."""
    counts = COUNTS.astype(dtype)
    codec = AnscombeTransformV3(zero_level=50, conversion_gain=10.0, dither="position")
    array = zarr.create_array(
        MemoryStore(), data=counts, chunks=(3, 50, 41), shards=shards, filters=[codec], compressors=None
    )
    expected = chunked(counts, TransformParameters(50.0, 10.0, "uint8", dtype, dither="position"), 3)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[:], expected)


def test_a_transpose_before_the_v3_codec_moves_the_places() -> None:
    """The codec counts the places in what it is handed: here frames with their axes exchanged."""
    codec = AnscombeTransformV3(zero_level=50, conversion_gain=10.0, dither="position")
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
    parts = [decode(encode(part, NOISE), NOISE).transpose(1, 2, 0) for part in parts]
    np.testing.assert_array_equal(array[:], np.concatenate(parts))
    assert_within_bound(COUNTS, array[:], NOISE)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("role", ["filter", "compressor", "filter with a cast"])
@pytest.mark.parametrize("dither", DITHERS)
def test_a_v2_array_of_either_order_holds_the_counts(dither: str, role: str, order: str) -> None:
    """Invariant 1: in arrays of the order F too, each count comes back at its own place, within its bound."""
    codec = AnscombeTransformV2(zero_level=50, conversion_gain=10.0, dither=dither)
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
    if dither == "position" and order == "C":
        np.testing.assert_array_equal(found, chunked(COUNTS, NOISE, 3))
    if dither == "none":
        np.testing.assert_array_equal(found, codec.decode(codec.encode(COUNTS)))


@pytest.mark.parametrize("dither", DITHERS)
def test_the_codes_of_an_array_in_the_order_f_are_those_of_its_bytes(dither: str) -> None:
    """A decoder is handed bytes without a shape, so codes must lie where their counts lay."""
    codec = AnscombeTransformV2(zero_level=50, conversion_gain=10.0, dither=dither)
    fortran = np.asfortranarray(COUNTS)
    codes = codec.encode(fortran)
    np.testing.assert_array_equal(codes.ravel(order="K"), codec.encode(fortran.ravel(order="K").tobytes()))
    back = codec.decode(np.asarray(codes).tobytes(order="A")).reshape(COUNTS.shape, order="F")
    assert_within_bound(COUNTS, back, NOISE)
    np.testing.assert_array_equal(codec.decode(codes), back)


@given(st.sampled_from(SMALL), st.floats(0.1, 300), st.floats(-50, 300), steps, st.sampled_from(DITHERS))
@settings(max_examples=10)
def test_the_v2_and_the_v3_codec_give_equal_codes(
    dtype: str, gain: float, zero_level: float, step: float, dither: str
) -> None:
    """One format, two wrappers."""
    info = np.iinfo(dtype)
    counts = (np.arange(5000).reshape(50, 100) * 31 % (info.max - info.min + 1) + info.min).astype(dtype)
    options: dict[str, Any] = {"encoded_dtype": "int32", "decoded_dtype": dtype, "step": step, "dither": dither}
    v2 = AnscombeTransformV2(zero_level, gain, **options)
    v3 = AnscombeTransformV3(zero_level, gain, **options)
    codes = v2.encode(counts)
    np.testing.assert_array_equal(codes, v3.encode_now(counts, np.empty))
    np.testing.assert_array_equal(v2.decode(codes), decode(codes, v3.parameters(counts.dtype)))
