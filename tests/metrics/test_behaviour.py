"""KL in spreads, and the two-sided range of retrained models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from scipy.stats import entropy

from expunge.metrics import mean_kl, outside, spreads

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((400, 5))


def seeds(count, deviation=0.2, seed=1):
    """Log-probabilities of models that differ as those of several seeds do."""
    noise = np.random.default_rng(seed).standard_normal((count, *LOGITS.shape))
    return log_softmax(LOGITS + deviation * noise, axis=-1)


def test_mean_kl_is_the_mean_over_rows_of_scipys_relative_entropy():
    p, q = seeds(2)
    assert_allclose(mean_kl(p, q), entropy(np.exp(p), np.exp(q), axis=1).mean(), rtol=1e-12)
    assert mean_kl(p, p) == 0.0
    assert mean_kl(p, q) != mean_kl(q, p)


def test_probabilities_of_zero_are_exact():
    sure, even = (
        np.log([[1.0, 0.0]], where=[[True, False]], out=np.full((1, 2), -np.inf)),
        np.log([[0.5, 0.5]]),
    )
    assert_allclose(mean_kl(sure, even), np.log(2.0), rtol=1e-15)  # 0 log 0 = 0
    assert mean_kl(even, sure) == np.inf
    assert mean_kl(sure, sure) == 0.0


@pytest.mark.parametrize("count", [3, 4, 8])
def test_another_retrained_model_is_one_spread_away(count):
    *retrained, another = seeds(count + 1)
    assert_allclose(spreads(another, retrained), 1.0, rtol=0.05)


def test_the_unit_is_the_mean_over_all_ordered_pairs():
    p, *retrained = seeds(4)
    pairs = [(a, b) for a in retrained for b in retrained if a is not b]
    assert len(pairs) == 6
    expected = np.mean([mean_kl(q, p) for q in retrained]) / np.mean([mean_kl(a, b) for a, b in pairs])
    assert_allclose(spreads(p, retrained), expected, rtol=1e-14)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_too_sure_and_too_unsure_are_both_far(factor):
    assert spreads(log_softmax(factor * LOGITS, axis=-1), seeds(4)) > 2.0


def test_a_fault_in_a_few_rows_shows_on_these_rows():
    """Why small requests are measured on the rows that they touch."""
    p, *retrained = seeds(5)
    retrained = np.array(retrained)
    flipped = p.copy()
    flipped[:4] = p[:4, ::-1]
    assert spreads(flipped[:4], retrained[:, :4]) > 10.0
    assert spreads(flipped, retrained) < 2.0


def test_spreads_do_not_depend_on_how_far_seeds_are_apart():
    near, far = (spreads(seeds(5, d)[0], seeds(5, d)[1:]) for d in (0.01, 0.2))
    assert_allclose(near, far, rtol=0.05)


@pytest.mark.parametrize(
    ("p", "retrained", "says"),
    [
        (LOGITS, seeds(3), "log_softmax"),
        (np.exp(seeds(1)[0]), seeds(3), "log_softmax"),
        (seeds(1)[0], seeds(2), "at least 3"),
        (seeds(1)[0], [seeds(1)[0]] * 3, "alike"),
        (seeds(1)[0][:7], seeds(3), "to match log_p"),
        (np.full((3, 2), np.nan), seeds(3), "log-probabilities"),
        (np.zeros(3), seeds(3), "expected \\(n, K\\)"),
    ],
)
def test_spreads_refuses(p, retrained, says):
    with pytest.raises(ValueError, match=says):
        spreads(p, retrained)


def test_mean_kl_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="to match log_p"):
        mean_kl(seeds(1)[0], seeds(1)[0][1:])


def test_float32_log_probabilities_of_many_classes_are_taken():
    p = log_softmax(np.random.default_rng(3).standard_normal((4, 50_000)).astype(np.float32), axis=-1)
    assert mean_kl(p, p) == 0.0


# The range of retrained models


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=6), st.floats(-1e4, 1e4))
def test_outside_is_the_signed_distance_to_the_range(retrained, value):
    found = outside(value, retrained)
    nearest = min(max(value, min(retrained)), max(retrained))
    assert_allclose(found, value - nearest, rtol=1e-12, atol=1e-300)


def test_the_margin_widens_either_end_also_of_negative_numbers():
    assert outside(81.0, [100.0, 110.0, 120.0], margin=0.2) == 0.0
    assert_allclose(outside(145.0, [100.0, 110.0, 120.0], margin=0.2), 1.0)
    assert outside(-119.0, [-100.0, -90.0, -80.0], margin=0.2) == 0.0
    assert_allclose(outside(-60.0, [-100.0, -90.0, -80.0], margin=0.2), 4.0)


@pytest.mark.parametrize("count", [3, 9])
def test_another_retrained_model_is_outside_as_often_as_the_notes_say(count):
    draws = np.random.default_rng(4).standard_normal((4000, count + 1))
    share = np.mean([outside(float(value), others) != 0.0 for value, *others in draws])
    assert_allclose(share, 2 / (count + 1), atol=0.03)


@pytest.mark.parametrize(
    ("arguments", "margin", "says"),
    [
        ((1.0, [1.0, 2.0]), 0.0, "at least 3"),
        ((np.nan, [1.0, 2.0, 3.0]), 0.0, "value must be"),
        ((1.0, [1.0, np.inf, 3.0]), 0.0, "NaN or infinity"),
        ((1.0, [1.0, 2.0, 3.0]), -0.1, "margin must be"),
    ],
)
def test_outside_refuses(arguments, margin, says):
    with pytest.raises(ValueError, match=says):
        outside(*arguments, margin=margin)
