"""The simulation's own arithmetic and random numbers: right, and the same bits everywhere."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import special, stats

from dj_photon_codecs._typing import AnyArray
from dj_photon_codecs.simulation import arithmetic
from dj_photon_codecs.simulation.draws import Stream, log_factorial, lognormal, normal_quantile


def test_exp_and_log_agree_with_the_library_to_the_last_places() -> None:
    x = np.linspace(-600, 600, 20_001)
    np.testing.assert_allclose(arithmetic.exp(x), np.exp(x), rtol=4e-16)
    y = np.concatenate([np.exp(x), 1 + np.linspace(-0.3, 0.5, 1000), [1.0]])
    np.testing.assert_allclose(arithmetic.log(y), np.log(y), rtol=5e-16, atol=1e-17)
    assert arithmetic.exp(0.0) == 1
    assert arithmetic.log(1.0) == 0


def test_erf_and_power_and_log_factorial() -> None:
    x = np.linspace(-5, 5, 1001)
    np.testing.assert_allclose(arithmetic.erf(x), special.erf(x), atol=2e-7)
    np.testing.assert_allclose(arithmetic.power(np.array([0.0, 0.25, 2.0]), 2.5), [0, 0.25**2.5, 2**2.5], rtol=1e-15)
    k = np.arange(0.0, 3000)
    np.testing.assert_allclose(log_factorial(k), special.gammaln(k + 1), rtol=1e-13, atol=1e-13)


def test_blurs_keep_the_sum_and_add_the_variance() -> None:
    point = np.zeros((3, 3))
    point[1, 1] = 2.0
    wide = arithmetic.blur_patch(point, 2.0)
    assert wide.sum() == pytest.approx(2.0)
    y = np.arange(len(wide)) - len(wide) // 2
    assert (wide.sum(1) * y**2).sum() / 2 == pytest.approx(4.0, rel=0.03)  # the kernel ends at 3 sigma
    image = np.pad(point, 20)
    np.testing.assert_allclose(arithmetic.blur_image(image, 2.0)[14:-14, 14:-14], wide[:], atol=1e-15)
    np.testing.assert_array_equal(arithmetic.blur_patch(point, 0.0), point)


def test_quantile_of_the_normal_law() -> None:
    p = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 10_001), [1e-300, 1e-30, 1 - 2.0**-53]])
    np.testing.assert_allclose(normal_quantile(p), stats.norm.ppf(p), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mean", [0.01, 0.1, 3.0, 9.9, 10.0, 30.0, 250.0, 20_000.0])
def test_poisson_numbers_follow_the_law(mean: float) -> None:
    """Chi-squared over all counts expected 20 times or more, for both methods, on both sides of their border at 10."""
    n = 60_000
    counts = Stream(3, "poisson", str(mean)).poisson(np.full(n, mean))
    low, high = (int(stats.poisson.ppf(p, mean)) for p in (1e-3, 1 - 1e-3))
    edges = np.unique(np.linspace(low, high + 1, min(high + 2 - low, 41)).astype(int))
    inner = np.diff(stats.poisson.cdf(edges - 1, mean)) * n
    expected = np.array([stats.poisson.cdf(low - 1, mean) * n, *inner, stats.poisson.sf(edges[-1] - 1, mean) * n])
    found = np.histogram(counts, [-np.inf, *edges, np.inf])[0]
    enough = expected > 20
    chi2 = float(((found - expected)[enough] ** 2 / expected[enough]).sum())
    assert stats.chi2.sf(chi2, max(int(enough.sum()) - 1, 1)) > 1e-3
    assert np.all(counts == np.rint(counts))


def test_poisson_numbers_of_mean_0_are_zero_and_keep_their_shape() -> None:
    counts = Stream(0, "dark").poisson(np.zeros((3, 4, 5)))
    assert counts.shape == (3, 4, 5)
    assert not counts.any()
    assert Stream(0, "none").poisson(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("shape", [1.0, 2.5, 30.0])
def test_gamma_numbers_follow_the_law(shape: float) -> None:
    values = Stream(1, "gamma", str(shape)).gamma(np.full(20_000, shape))
    assert stats.kstest(values, "gamma", args=(shape,)).pvalue > 1e-3
    assert Stream(1, "gamma").gamma(np.zeros(3)).tolist() == [0, 0, 0]


def test_normal_and_lognormal_and_uniform_numbers() -> None:
    stream = Stream(2, "normal")
    assert stats.kstest(stream.normal(20_000), "norm").pvalue > 1e-3
    factors = lognormal(stream.normal(50_000), 0.5)
    assert factors.mean() == pytest.approx(1, abs=0.01)
    assert factors.std() == pytest.approx(0.5, abs=0.02)
    uniform = stream.uniform(20_000)
    assert 0 < uniform.min() < uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_streams_differ_by_their_names() -> None:
    first = Stream(1, "a", 2).uniform(4)
    np.testing.assert_array_equal(first, Stream(1, "a", 2).uniform(4))
    for other in (Stream(2, "a", 2), Stream(1, "b", 2), Stream(1, "a", 3), Stream(1, "a")):
        assert not np.array_equal(first, other.uniform(4))


def _hash(*arrays: AnyArray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array, "<f8").tobytes() for array in arrays)).hexdigest()


def test_numbers_are_these_bits_on_every_machine() -> None:
    """Golden: a change of these changes every recording, and needs a new model_version of the spec."""
    stream = Stream(12345, "golden")
    means = np.array([0.1, 1, 9, 10, 30, 1000] * 50)
    arrays = (stream.uniform(100), stream.normal(100), stream.poisson(means), stream.gamma(means + 1))
    assert _hash(*arrays) == "9d77a734cc71554b971a32386a5e7ff9e50e994415b9bc1f1e1a609ce7c6870f"
    x = np.arange(-2000, 2000) / 7
    assert (
        _hash(arithmetic.exp(x), arithmetic.log(np.abs(x) + 0.01), arithmetic.erf(x / 50))
        == "66f4bda083c5b86b6b2c23249a46c15d188ff2895953b2bb4c989098a8b28036"
    )
    assert arithmetic.total(np.array([1e16, 1.0, -1e16])) == 1.0
    assert arithmetic.mean(np.array([math.pi] * 3)) == math.pi
