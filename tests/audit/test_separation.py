"""The bounds of an audit are bounds."""

import numpy as np
import pytest
from scipy import stats

from expunge import accounting
from expunge.audit.separation import clopper_pearson, separate

# the bounds


@pytest.mark.parametrize("n", [1, 10, 137])
@pytest.mark.parametrize("error", [0.2, 0.01, 1e-4])
def test_clopper_pearson_is_the_interval_of_the_binomial(n, error):
    lower, upper = clopper_pearson(n, error)
    k = np.arange(n + 1)
    assert lower[0] == 0.0
    assert upper[n] == 1.0
    np.testing.assert_allclose(stats.binom.sf(k[1:] - 1, n, lower[1:]), error, rtol=1e-8)
    np.testing.assert_allclose(stats.binom.cdf(k[:-1], n, upper[:-1]), error, rtol=1e-8)


def gaussians(seed, mu, runs, d=3):
    rng = np.random.default_rng(seed)
    shift = mu * np.eye(d)[0]
    return rng.standard_normal((runs, d)) + shift, rng.standard_normal((runs, d))


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_bounds_are_rarely_above_the_truth(mu):
    error, delta, times = 0.05, 0.01, 200
    found = [separate("", *gaussians([7, i], mu, 200), delta, error) for i in range(times)]
    allowed = stats.binom.ppf(0.9999, times, 2 * error)
    assert sum(one.mu_lower > mu for one in found) <= allowed
    truth = accounting.epsilon(delta, mu)
    assert sum(one.epsilon_lower > truth for one in found) <= allowed


def test_without_a_split_sample_they_would_be_above_it():
    error, times = 0.05, 200
    twice = [[np.concatenate([z, z]) for z in gaussians([8, i], 0.0, 100)] for i in range(times)]
    found = [separate("", *samples, 0.01, error) for samples in twice]
    assert sum(one.mu_lower > 0.0 for one in found) > stats.binom.ppf(0.9999, times, 2 * error)


def test_bounds_are_near_the_truth():
    for mu in (1.0, 2.0, 4.0):
        found = separate("", *gaussians(0, mu, 20_000), 1e-5, 1e-3)
        assert 0.85 * mu < found.mu_lower <= mu
    found = separate("", *gaussians(0, 2.0, 20_000), 1e-5, 1e-3)
    assert 2.0 < found.epsilon_lower < accounting.epsilon(1e-5, 2.0)
    assert found.unlearned.shape == found.retrained.shape == (10_000,)


def test_no_difference_at_all_shows_nothing():
    z = np.ones((40, 2))
    found = separate("", z, z, 0.01, 0.01)
    assert (found.mu_lower, found.epsilon_lower) == (0.0, 0.0)
