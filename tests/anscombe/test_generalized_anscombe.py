"""The generalised Anscombe transform and its inverses, against the Poisson-Gaussian law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from dj_photon_codecs import (
    CalibrationError,
    ConfigurationError,
    InvalidMovieError,
    MovieTypeError,
    generalized_anscombe,
    generalized_inverse_anscombe,
    write_movie,
)


def expectation(rate: float, gain: float, offset: float, variance: float) -> float:
    """E[generalized_anscombe(x)] for Poisson counts with read noise, by adaptive integration over the law."""
    numbers = np.arange(int(rate + 12 * math.sqrt(rate) + 20))
    weights = stats.poisson.pmf(numbers, rate)
    if variance == 0:
        return float(weights @ generalized_anscombe(gain * numbers + offset, gain, offset, 0))
    sigma = math.sqrt(variance)

    def at(number: int) -> float:
        centre = gain * number + offset
        corner = offset - 0.375 * gain - variance / gain  # where the root begins
        edges = [max(centre - 10 * sigma, corner), centre + 10 * sigma]
        if edges[0] >= edges[1]:
            return 0.0
        value, _ = integrate.quad(
            lambda x: generalized_anscombe(x, gain, offset, variance) * stats.norm.pdf(x, centre, sigma),
            *edges,
            limit=200,
            epsabs=1e-10,
        )
        return float(value)

    used = weights > 1e-12
    return float(sum(w * at(n) for w, n in zip(weights[used], numbers[used], strict=True)))


@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0, 3.0, 10.0, 40.0, 140.0, 160.0, 400.0])
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (30.0, 100.0), (0.5, -20.0)])
def test_the_exact_inverse_of_a_mean_is_the_mean_without_read_noise(rate: float, gain: float, offset: float) -> None:
    mean = expectation(rate, gain, offset, 0)
    photons = (generalized_inverse_anscombe(mean, gain, offset) - offset) / gain
    assert photons == pytest.approx(rate, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("noise", [0.04, 1.0, 9.0, 100.0, 400.0])
def test_the_exact_inverse_of_a_mean_is_the_mean_with_read_noise(rate: float, noise: float) -> None:
    gain, offset = 2.0, 50.0
    mean = expectation(rate, gain, offset, noise * gain**2)
    photons = (generalized_inverse_anscombe(mean, gain, offset, noise * gain**2) - offset) / gain
    assert photons == pytest.approx(rate, abs=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1.0, 50.0, 149.0])
def test_the_table_meets_the_asymptote(noise: float) -> None:
    means = np.linspace(1, 60, 20001)
    photons = generalized_inverse_anscombe(means, 1, 0, noise)
    positive = photons[photons > 0]
    assert (np.diff(positive) > 0).all()
    assert np.abs(np.diff(positive, 2)).max() < 1e-4  # no step where one takes over from the other


def test_means_below_that_of_darkness_give_the_offset() -> None:
    dark = generalized_anscombe(100.0, 5, 100)
    assert (generalized_inverse_anscombe(np.array([0.0, dark / 2, dark]), 5, 100) == 100).all()


def test_the_algebraic_inverse_of_a_mean_is_biased() -> None:
    """Why there are two: what the docstring says of it."""
    mean = expectation(5.0, 1, 0, 0)
    assert generalized_inverse_anscombe(mean, method="algebraic") == pytest.approx(4.77, abs=0.03)


@given(st.floats(0, 1e6), st.floats(0.01, 1e3), st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_the_algebraic_inverse_undoes_the_transform(photons: float, gain: float, offset: float, noise: float) -> None:
    count = offset + gain * photons
    variance = noise * gain**2
    stabilized = generalized_anscombe(count, gain, offset, variance)
    back = generalized_inverse_anscombe(stabilized, gain, offset, variance, method="algebraic")
    assert back == pytest.approx(count, rel=1e-9, abs=1e-9 * (abs(offset) + gain * (1 + noise)))


def test_the_noise_of_the_stabilised_counts_is_1() -> None:
    rng = np.random.default_rng(0)
    for rate in (5.0, 20.0, 100.0):
        counts = 30 * rng.poisson(rate, 200_000) + 100 + rng.normal(0, 15, 200_000)
        assert generalized_anscombe(counts, 30, 100, 225).std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("given_dtype", "result_dtype"),
    [
        ("float32", "float32"),
        ("float16", "float32"),
        ("float64", "float64"),
        ("uint16", "float64"),
        ("int64", "float64"),
    ],
)
def test_dtypes_and_shapes_are_kept(given_dtype: str, result_dtype: str) -> None:
    values = np.arange(12).reshape(3, 4).astype(given_dtype)
    stabilized = generalized_anscombe(values)
    assert (stabilized.dtype, stabilized.shape) == (result_dtype, (3, 4))
    back = generalized_inverse_anscombe(stabilized)
    assert (back.dtype, back.shape) == (result_dtype, (3, 4))
    assert np.ndim(generalized_anscombe(3)) == 0
    assert generalized_anscombe(np.empty((0, 3))).shape == (0, 3)


def test_nan_stays_nan() -> None:
    assert math.isnan(generalized_anscombe(math.nan))
    assert math.isnan(generalized_inverse_anscombe(math.nan))


@pytest.mark.parametrize("function", [generalized_anscombe, generalized_inverse_anscombe])
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"conversion_gain": 0}, "conversion_gain must be"),
        ({"conversion_gain": math.nan}, "conversion_gain must be"),
        ({"zero_level": math.inf}, "zero_level must be"),
        ({"variance": -1}, "variance must be"),
    ],
    ids=str,
)
def test_noise_that_is_not_physical_is_refused(function: object, arguments: dict[str, float], match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        function(3.0, **arguments)  # type: ignore[operator]


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="method must be 'exact'.*got 'best'"):
        generalized_inverse_anscombe(3.0, method="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "bool"])
@pytest.mark.parametrize("method", ["exact", "algebraic"])
def test_integers_are_counts_and_refused_by_the_inverse(dtype: str, method: str) -> None:
    counts = np.ones((2, 3), dtype)
    with pytest.raises(MovieTypeError, match=rf"got counts: integers \({dtype}\).*generalized_anscombe\(counts, conv"):
        generalized_inverse_anscombe(counts, method=method)  # type: ignore[arg-type]
    with pytest.raises(MovieTypeError, match="got counts: integers"):
        generalized_inverse_anscombe([3, 5])


def test_a_handle_is_counts_and_refused_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    movie = write_movie({}, np.zeros((4, 8, 8), np.float32), profile="lossless")
    monkeypatch.setattr(type(movie), "__array__", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(MovieTypeError, match="got counts: a stored movie.*generalized_inverse_anscombe\\(stabilized"):
        generalized_inverse_anscombe(movie)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("counts", "match"),
    [
        (np.random.default_rng(0).poisson(30, (4, 8, 8)), "all 256 values are whole numbers"),
        ([100.0, math.nan, *range(8)], "all 9 values are whole numbers"),
        ([-20.5, 3.5], "got values from -20.5 to 3.5"),
        ([3.5, 2e6], "got values from 3.5 to 2e"),
    ],
    ids=["poisson", "nan", "negative", "large"],
)
def test_counts_in_floating_point_are_refused_by_the_inverse(counts: object, match: str, dtype: str) -> None:
    with pytest.raises(InvalidMovieError, match=f"{match}.*To stabilise counts, call generalized_anscombe"):
        generalized_inverse_anscombe(np.asarray(counts, dtype))


def test_stabilised_values_are_taken_where_means_and_filters_leave_them() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.0, 0.05, 30.0, 1e6):
        values = generalized_anscombe(rng.poisson(rate, (20, 8, 8)), 1)
        assert np.isfinite(generalized_inverse_anscombe(values.mean(0))).all()
        assert np.isfinite(generalized_inverse_anscombe(values - 1)).all()
