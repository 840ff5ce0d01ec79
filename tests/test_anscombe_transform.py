"""The transform: DESIGN's invariants 1 (bounded loss, monotone codes) and 2 (idempotent), and its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dj_photon_codecs import CalibrationError, CodeRangeError, ConfigurationError
from dj_photon_codecs.anscombe.parameters import TransformParameters
from dj_photon_codecs.anscombe.tables import apply_table
from dj_photon_codecs.anscombe.transform import (
    decode_codes,
    encode_counts,
    noise_sigma,
    rounded_codes,
    smallest_code_dtype,
    top_of_range,
)

SMALL = ("uint8", "int8", "uint16", "int16")
INTEGERS = (*SMALL, "uint32", "int32", "uint64", "int64")

gains = st.floats(1e-3, 1e5, allow_nan=False)
zero_levels = st.floats(-1e5, 1e5, allow_nan=False)
steps = st.sampled_from([0.25, 0.5, 1.0, 2.0])


def check_loss(counts: np.ndarray, parameters: TransformParameters) -> None:
    """Invariants 1 and 2 for these counts, with Python integers where numpy's would wrap."""
    codes = encode_counts(counts, parameters)
    decoded = decode_codes(codes, parameters)
    assert codes.dtype == parameters.encoded_dtype
    assert decoded.dtype == parameters.decoded_dtype
    order = np.argsort(counts, kind="stable")
    ordered = codes[order]
    assert (ordered[1:] >= ordered[:-1]).all(), "codes are not monotone"
    error = np.array([abs(int(y) - int(x)) for x, y in zip(counts.tolist(), decoded.tolist(), strict=True)], float)
    bound = parameters.step / 2 * noise_sigma(np.maximum(counts, decoded), parameters) + 0.5
    # beyond 2**41 float64 itself moves the edges of the bins, by the thousandth that the transform admits
    slack = 1e-3 if np.abs(counts.astype(float)).max() > 2**40 else 1e-9
    assert (error <= bound * (1 + slack)).all()
    assert (encode_counts(decoded, parameters) == codes).all(), "encode(decode(c)) != c"


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("gain", [0.003, 0.3, 1.0, 2.7, 9.0, 30.0, 300.0, 1e5])
@pytest.mark.parametrize("zero_level", [-1000.0, 0.0, 0.5, 157.3])
def test_every_count_of_a_small_dtype_comes_back_within_the_bound(dtype: str, gain: float, zero_level: float) -> None:
    info = np.iinfo(dtype)
    counts = np.arange(info.min, info.max + 1).astype(dtype)
    check_loss(counts, TransformParameters(zero_level, gain, "int64", dtype))


@given(st.data(), st.sampled_from(INTEGERS), gains, zero_levels, steps)
@settings(max_examples=200, deadline=None)
def test_counts_of_every_dtype_come_back_within_the_bound(
    data: st.DataObject, dtype: str, gain: float, zero_level: float, step: float
) -> None:
    info = np.iinfo(dtype)
    near_zero = st.integers(max(info.min, math.floor(zero_level) - 5000), min(info.max, math.ceil(zero_level) + 5000))
    anywhere = st.integers(info.min, info.max)
    source = anywhere if zero_level > info.max or zero_level < info.min else st.one_of(anywhere, near_zero)
    counts = np.array(data.draw(st.lists(source, min_size=1, max_size=30)), dtype=dtype)
    parameters = TransformParameters(zero_level, gain, "int64", dtype, step)
    try:
        encode_counts(counts, parameters)
    except CodeRangeError:
        assume(False)
    check_loss(counts, parameters)


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=30), st.floats(1e-2, 1e4), st.floats(-1e3, 1e3), steps
)
@settings(max_examples=200, deadline=None)
def test_real_counts_come_back_within_the_bound(values: list[float], gain: float, zero: float, step: float) -> None:
    counts = np.array(values, np.float32)
    parameters = TransformParameters(zero, gain, "int64", "float32", step)
    codes = encode_counts(counts, parameters)
    decoded = decode_codes(codes, parameters)
    error = np.abs(decoded.astype(float) - counts)
    bound = step / 2 * noise_sigma(np.maximum(counts, decoded), parameters)
    rounding = np.spacing(np.maximum(np.abs(decoded), np.float32(abs(zero))))
    assert (error <= bound * (1 + 1e-6) + 2 * rounding).all()
    assert (encode_counts(decoded, parameters) == codes).all()


def test_whole_numbers_in_floating_point_get_the_codes_and_levels_of_the_integers() -> None:
    counts = np.arange(5000)
    whole = TransformParameters(10, 2.0, "uint16", "int32")
    codes = encode_counts(counts.astype(np.float32), whole)
    assert (codes == encode_counts(counts, whole)).all()
    assert (decode_codes(codes, whole) == np.rint(decode_codes(codes, whole))).all()


def test_a_fraction_is_refused_where_whole_numbers_were_promised() -> None:
    with pytest.raises(CodeRangeError, match=r"2\.5.*not a whole number.*float32"):
        encode_counts(np.array([1, 2.5], np.float32), TransformParameters(0, 1, "uint8", "uint16"))


@pytest.mark.parametrize("zero_level", [0.0, 100.0, 157.3])
@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_codes_follow_the_published_formula(gain: float, zero_level: float) -> None:
    counts = np.arange(4000)
    p = (counts - zero_level) / gain
    f = np.where(p >= 0, 4 * (np.sqrt(np.maximum(p, 0) + 3 / 8) - np.sqrt(3 / 8)), p / (0.5 * np.sqrt(3 / 8)))
    assert (rounded_codes(counts, TransformParameters(zero_level, gain)) == np.round(f - f[0])).all()


def mean_error(rate: float, gain: float, table: np.ndarray) -> float:
    """Mean of decoded - count in noise standard deviations, for Poisson counts of one mean."""
    n = np.arange(int(rate + 12 * math.sqrt(rate) + 30))
    log_weights = n * math.log(rate) - rate - np.array([math.lgamma(k + 1) for k in n])
    counts = np.round(n * gain).astype(int)
    return float((np.exp(log_weights) * (table[counts] - counts)).sum() / (gain * math.sqrt(rate + 0.375)))


def test_reconstruction_leans_to_neither_side_at_gain_1() -> None:
    parameters = TransformParameters(0, 1, "uint16", "uint16")
    table = decode_codes(encode_counts(np.arange(65536).astype(np.uint16), parameters), parameters).astype(float)
    rates = np.exp(np.linspace(0, math.log(1000), 300))
    worst = max(abs(mean_error(rate, 1.0, table)) for rate in rates)
    assert worst < 0.04
    # what always rounding the halves down would give: the table is worth having
    codes = encode_counts(np.arange(65536).astype(np.uint16), parameters)
    _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
    lower = ((2 * first + sizes - 1) // 2)[np.searchsorted(np.unique(codes), codes)].astype(float)
    assert max(abs(mean_error(rate, 1.0, lower)) for rate in rates) > 0.1


def test_halves_are_settled_down_and_up_in_turn() -> None:
    parameters = TransformParameters(0, 1, "uint16", "uint16")
    codes = rounded_codes(np.arange(3000), parameters)
    _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
    even = np.flatnonzero(sizes[:-1] % 2 == 0)
    decoded = decode_codes(codes[first].astype(np.uint16), parameters).astype(int)
    up = (2 * decoded - (2 * first + sizes - 1))[even] > 0
    assert not up[0]
    assert (up[1:] != up[:-1]).all()


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


@pytest.mark.parametrize(
    ("argument", "value"), [("encoded_dtype", "float32"), ("decoded_dtype", "complex64"), ("encoded_dtype", "nope")]
)
def test_a_dtype_that_cannot_hold_codes_or_counts_raises_at_construction(argument: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        TransformParameters(0, 1, **{argument: value})


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
def test_a_count_without_a_code_is_named_with_the_dtype_that_would_do(dtype: str) -> None:
    counts = np.array([3, 60000, 5]).astype(dtype)
    with pytest.raises(CodeRangeError, match=r"60000.*code 977.*uint8 \(0 to 255\): use encoded_dtype='uint16'"):
        encode_counts(counts, TransformParameters(0, 1, "uint8", dtype))


def test_negative_codes_ask_for_a_signed_dtype() -> None:
    with pytest.raises(CodeRangeError, match=r"-40.*use encoded_dtype='int8'"):
        encode_counts(np.array([-40], np.int16), TransformParameters(0, 10, "uint8", "int16"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_counts_that_are_not_finite_have_no_code(value: float) -> None:
    with pytest.raises(CodeRangeError):
        encode_counts(np.array([value]), TransformParameters(0, 1, "int64", "float64"))


def test_counts_beyond_what_float64_resolves_are_refused() -> None:
    with pytest.raises(CodeRangeError, match="beyond what the Anscombe transform resolves"):
        encode_counts(np.array([2**62]), TransformParameters(0, 1e-12, "int64", "int64"))


def test_a_code_that_no_count_has_gives_the_next_count() -> None:
    # at gain 1 the codes of 0 and 1 are 0 and 2
    assert decode_codes(np.array([0, 1, 2], np.uint8), TransformParameters(0, 1)).tolist() == [0, 1, 1]


def test_codes_above_all_counts_give_the_top_of_the_dtype() -> None:
    parameters = TransformParameters(0, 1, "uint16", "uint8")
    assert decode_codes(np.array([60000], np.uint16), parameters).tolist() == [255]


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
@pytest.mark.parametrize("encoded", ["uint8", "uint16", "int64"])
def test_the_fill_value_comes_back_as_itself_and_is_no_darkness(dtype: str, encoded: str) -> None:
    parameters = TransformParameters(100, 2.5, encoded, dtype)
    top = top_of_range(parameters)
    assert np.isfinite(top)
    assert decode_codes(encode_counts(np.array([top], dtype), parameters), parameters)[0] == top
    assert top > 100 or np.dtype(dtype).itemsize == 1


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 255, "uint8"), (0, 256, "uint16"), (-1, 5, "int8"), (-1, 200, "int16"), (0, 2**40, "uint64"), (0, 1e30, None)],
)
def test_the_narrowest_code_dtype_is_found(low: float, high: float, dtype: str | None) -> None:
    assert smallest_code_dtype(low, high) == dtype


@given(st.integers(0, 100_000), st.sampled_from(["uint8", "uint16"]))
@settings(max_examples=20, deadline=None)
def test_tables_in_blocks_equal_plain_indexing(size: int, dtype: str) -> None:
    rng = np.random.default_rng(size)
    table = rng.integers(0, 2**31, 2 ** (8 * np.dtype(dtype).itemsize), dtype=np.int32)
    indices = rng.integers(0, len(table), size).astype(dtype)
    assert (apply_table(table, indices) == table[indices]).all()
    out = np.empty(size, np.int32)
    assert apply_table(table, indices, out) is out
    assert (out == table[indices]).all()
