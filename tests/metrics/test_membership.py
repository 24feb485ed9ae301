"""Membership inference: nothing to see where there is nothing, and faults on either side."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from expunge.metrics import membership
from expunge.metrics.membership import logit

M, K = 300, 500
HARD = np.random.default_rng(0).exponential(size=M + K)  # how hard each row is for any model


def models(count, seed=1):
    """Losses of models that were trained on none of the rows."""
    return HARD * np.random.default_rng(seed).uniform(0.9, 1.1, size=(count, M + K))


def split(losses):
    return losses[..., :M], losses[..., M:]


def attack(losses, **options):
    return membership(*split(losses), **options)


def test_the_area_is_scikit_learns_and_z_that_of_mann_and_whitney():
    losses = np.round(models(1)[0], 1)  # with ties
    found = attack(losses)
    assert_allclose(found.auc, roc_auc_score(np.arange(M + K) < M, -losses), rtol=1e-12)
    losses = models(1)[0]
    p = mannwhitneyu(*split(losses), method="asymptotic", use_continuity=False).pvalue
    assert_allclose(2.0 * ndtr(-abs(attack(losses).z)), p, rtol=1e-10)


def test_the_exact_cases():
    assert membership([0.1, 0.2], [0.3, 0.4]).auc == 1.0
    assert membership([0.3, 0.4], [0.1, 0.2]).auc == 0.0
    assert membership([0.2] * 4, [0.2] * 7) == membership([1.0] * 4, [1.0] * 7)
    assert membership([0.2] * 4, [0.2] * 7).auc == 0.5


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_true_positives_are_counted_at_the_rate_of_false_ones_that_was_asked_for(share):
    unseen = np.arange(100.0)
    forgotten = np.arange(100.0) + 0.5  # as many of them as of the unseen are below an unseen loss
    assert_allclose(membership(forgotten, unseen, false_positives=share).true_positives, share)


def test_where_nothing_is_left_nothing_is_seen():
    reference = split(models(4))
    found = [attack(losses, reference=reference) for losses in models(200, seed=2)]
    assert_allclose(np.mean([f.auc for f in found]), 0.5, atol=0.02)
    assert np.mean([abs(f.z) > 2 for f in found]) < 0.5  # reference models are few, and shared by all 200
    alone = [membership(a, b) for a, b in np.random.default_rng(5).exponential(size=(400, 2, 50))]
    assert_allclose(np.std([f.z for f in alone]), 1.0, atol=0.1)


@pytest.mark.parametrize(("factor", "sign"), [(0.8, 1), (1.25, -1)])
def test_remembering_and_over_forgetting_show_on_either_side(factor, sign):
    losses = models(1, seed=3)[0]
    losses[:M] *= factor
    beside = attack(losses, reference=split(models(4)))
    assert sign * beside.z > 10.0
    assert sign * (beside.auc - 0.5) > 0.3
    assert abs(beside.auc - 0.5) > abs(attack(losses).auc - 0.5)  # the reference knows which rows are hard


def test_the_logit_is_exact_at_both_ends():
    p = np.array([1e-12, 0.5, 1.0 - 1e-12])
    assert_allclose(logit(-np.log(p)), np.log(p) - np.log1p(-p), rtol=1e-3, atol=1e-12)
    assert np.isfinite(logit(np.array([0.0, 500.0]))).all()


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (([-0.1], [0.2]), {}, "not negative"),
        (([], [0.2]), {}, "at least 1"),
        (([0.1], [np.inf]), {}, "NaN or infinity"),
        (([0.1], [0.2]), {"false_positives": 1.0}, "false_positives must be"),
        (([0.1], [0.2]), {"reference": ([[0.1]] * 2, [[0.2]] * 2)}, "at least 3"),
        (([0.1], [0.2]), {"reference": ([[0.1]] * 3, [[0.2]] * 3)}, "alike"),
        (([0.1], [0.2]), {"reference": ([[0.1, 0.2]] * 3, [[0.2]] * 3)}, "reference of forgotten has shape"),
        (([0.1], [0.2]), {"reference": ([[0.1]] * 3, [[-0.2]] * 3)}, "not negative"),
    ],
)
def test_membership_refuses(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        membership(*arguments, **options)
