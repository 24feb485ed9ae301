"""Exposure, relearning and rebound: exact where the definition is, and each fault shows in its number."""

import math
from itertools import count

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest, skewnorm

from expunge.metrics import exposure, rebound, relearning
from expunge.metrics.secrets import COUNTED, log_left_tail

rng = np.random.default_rng(0)
NORMAL = rng.normal(40.0, 4.0, size=10_000)
SPACE = 10**10

# Rank and exposure


@pytest.mark.parametrize("place", [10, 11, 500, 999, 1000])
def test_with_the_whole_space_at_hand_exposure_is_the_definition(place):
    nll = rng.permutation(1000) + 1.0  # 1 to 1000: the place is the rank
    found = exposure(float(place), nll, space=1000)
    assert found.method == "sampled"
    assert found.rank == place / 1000
    assert_allclose(
        found.bits, math.log2(1000) - math.log2(place), atol=1e-14
    )  # Carlini et al., definition 2


def test_the_unit_of_the_likelihood_does_not_matter():
    for own in (39.0, 22.0):
        bits, nats = exposure(own, NORMAL, SPACE), exposure(own * math.log(2), NORMAL * math.log(2), SPACE)
        assert bits.rank == nats.rank
        assert_allclose(bits.bits, nats.bits, rtol=0.02)  # of the search for the fit


def test_the_rank_of_a_secret_never_seen_is_uniform_and_its_exposure_a_bit_and_a_half():
    found = [exposure(own, NORMAL, SPACE) for own in np.random.default_rng(5).normal(40.0, 4.0, size=2000)]
    assert kstest([f.rank for f in found], "uniform").pvalue > 0.01
    assert_allclose(
        np.mean([f.bits for f in found]), 1 / math.log(2), atol=0.25
    )  # of -log2 of a uniform number
    assert_allclose(np.mean([f.two_sided < 0.1 for f in found]), 0.1, atol=0.02)


def test_both_kinds_of_fault_show_on_their_own_side():
    remembered, over_forgotten = (exposure(own, NORMAL, SPACE) for own in (10.0, 182.0))
    assert remembered.rank == 0.0
    assert remembered.bits > 25
    assert over_forgotten.rank == 1.0
    assert over_forgotten.bits == 0.0  # which looks superb: the rank does not
    assert remembered.two_sided == over_forgotten.two_sided == 0.0


def test_the_fit_goes_on_where_the_sample_ends():
    """Candidates of a known skew-normal distribution: bits are those of its left tail."""
    law = skewnorm(2.0, loc=30.0, scale=8.0)
    candidates = law.rvs(size=10_000, random_state=2)
    for own in (law.ppf(1e-5), law.ppf(1e-7)):
        found = exposure(float(own), candidates, 10**12)
        assert found.method == "skew-normal"
        assert found.p_value > 0.01
        assert_allclose(found.bits, -math.log2(law.cdf(own)), rtol=0.15)


def test_no_secret_has_more_exposure_than_its_space_has_bits():
    found = exposure(-500.0, NORMAL, SPACE)
    assert found.method == "skew-normal"
    assert found.bits == found.cap == math.log2(SPACE)


def test_a_fit_that_its_check_rejects_is_not_believed():
    two_heaps = np.concatenate([rng.normal(20.0, 1.0, 5000), rng.normal(60.0, 1.0, 5000)])
    found = exposure(5.0, two_heaps, SPACE)
    assert found.method == "bound"
    assert found.p_value < 0.01
    assert_allclose(found.bits, math.log2(10_001))
    assert exposure(1.0, np.full(200, 7.0), SPACE).method == "bound"  # and where there is nothing to fit


def test_the_sample_decides_as_soon_as_enough_of_it_is_ahead():
    nll = np.sort(NORMAL)
    assert exposure(float(nll[COUNTED - 2]), nll, SPACE).method == "skew-normal"
    assert exposure(float(nll[COUNTED - 1]), nll, SPACE).method == "sampled"


@pytest.mark.parametrize("shape", [-3.0, 0.0, 0.5, 4.0])
@pytest.mark.parametrize("z", [-1.0, -6.0, -20.0])
def test_the_tail_of_the_fit_holds_where_float64_underflows(shape, z):
    with mpmath.workdps(30):
        exact = mpmath.log(
            mpmath.quad(
                lambda t: 2 * mpmath.npdf(t) * mpmath.ncdf(shape * t), [-mpmath.inf, 4 * z, 2 * z, 1.2 * z, z]
            )
        )
    assert_allclose(log_left_tail(z, shape), float(exact), rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.0, np.arange(99.0), 10), "at least 100"),
        ((1.0, [np.nan] * 100, 10), "NaN or infinity"),
        ((np.inf, NORMAL, 10), "secret must be a finite number"),
        ((1.0, NORMAL, 1), "space must be a finite number > 1"),
    ],
)
def test_exposure_refuses(arguments, says):
    with pytest.raises(ValueError, match=says):
        exposure(*arguments)


# Attempts to wake it


def falling(by):
    """Bits, for as long as they are asked for."""
    return (40.0 - by * k for k in count())


def test_a_model_with_nothing_left_relearns_as_retrained_ones_do():
    found = relearning(falling(2.0), [falling(1.0), falling(2.0), falling(3.0)], steps=8)
    assert (found.back, found.retrained_back, found.ratio) == (16.0, 16.0, 1.0)
    assert found.bits.shape == (9,)
    assert found.retrained.shape == (3, 9)


def test_a_secret_that_was_hidden_comes_back_faster():
    assert relearning(falling(4.0), [falling(1.0), falling(2.0), falling(3.0)]).ratio == 2.0


def test_no_more_steps_are_trained_than_asked_for():
    trained = []

    def attack():
        for k in count():
            yield float(-k)
            trained.append(k)

    relearning(attack(), [falling(1.0)] * 3, steps=5)
    assert trained == [0, 1, 2, 3, 4]


def test_where_retrained_models_learn_nothing_there_is_no_ratio():
    assert math.isnan(relearning([40.0, 30.0], [[40.0, 41.0]] * 3, steps=1).ratio)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([40.0, 30.0], [[40.0, 30.0]] * 2, 1), "at least 3"),
        (([40.0], [[40.0, 30.0]] * 3, 1), "unlearned has 1 numbers, expected steps \\+ 1 = 2"),
        (([40.0, 30.0], [[40.0]] * 3, 1), "a curve of retrained has 1 numbers"),
        (([40.0, np.nan], [[40.0, 30.0]] * 3, 1), "NaN or infinity"),
        (([40.0, 30.0], [[40.0, 30.0]] * 3, 0), "steps must be an int of at least 1"),
    ],
)
def test_relearning_refuses(arguments, says):
    unlearned, retrained, steps = arguments
    with pytest.raises(ValueError, match=says):
        relearning(unlearned, retrained, steps=steps)


def test_rebound_is_the_deepest_fall_below_the_start():
    assert rebound([40.0, 45.0, 50.0]) == 0.0
    assert rebound([40.0, 12.0, 39.0]) == 28.0  # also where it goes away again
    assert rebound(falling(3.0), steps=4) == 12.0
    with pytest.raises(ValueError, match="at least 2"):
        rebound([40.0])
    with pytest.raises(ValueError, match="expected steps"):
        rebound([40.0, 39.0], steps=2)
