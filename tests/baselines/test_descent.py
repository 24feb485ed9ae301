"""Fine-tuning steps on the right objective, and DeltaGrad follows gradient descent."""

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import REPRESENTATIONS
from strategies import CASES, COLUMN, FLIPPED, ROWS, VALUES, fresh, minimiser
from unlearning import ALPHA, make_data, theta_of

import expunge as ex
from expunge import reference
from expunge.baselines import DeltaGrad, FineTuning
from expunge.baselines.descent import quasi_hessian_times

both_losses = pytest.mark.parametrize("loss", ["squared", "logistic"])


def gradient(data, theta, loss, weights=None):
    X, y, s = data.rows
    how = {"alpha": ALPHA, "loss": loss, "fit_intercept": True}
    return reference.gradient(X, y, theta, sample_weight=s if weights is None else weights, **how)


# Fine-tuning


@both_losses
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_one_batch_of_all_rows_is_a_gradient_step(loss, weighted):
    strategy, data = fresh(
        "fine_tuning", loss=loss, weighted=weighted, epochs=1, batch_size=60, learning_rate=0.3
    )
    old, after = theta_of(strategy.model), data.after(FLIPPED)
    assert strategy.apply(FLIPPED).passes == 1
    assert_allclose(theta_of(strategy.model), old - 0.3 * gradient(after, old, loss) / 60, rtol=0, atol=1e-12)


def test_the_expected_step_is_the_full_gradient_step_with_the_penalty_once():
    steps, rate = [], 0.05
    for seed in range(60):  # of one batch of 6 rows in 60 each: together 10 times all of them on average
        strategy, data = fresh(
            "fine_tuning", gradients=6, batch_size=6, learning_rate=rate, random_state=seed
        )
        old = theta_of(strategy.model)
        strategy.apply(FLIPPED)
        steps.append(theta_of(strategy.model) - old)
    full = -rate * gradient(data.after(FLIPPED), old, "logistic") / 60
    deviation = np.std(steps, axis=0) / np.sqrt(len(steps))
    assert (np.abs(np.mean(steps, axis=0) - full) < 4 * deviation).all()
    penalty = rate * ALPHA * old[:-1]  # of an objective whose penalty counted in every batch as a whole
    assert (np.abs(penalty) > 20 * deviation[:-1]).any()


def test_batches_of_one_epoch_are_all_rows_once():
    """At theta = 0 with a rate that hardly moves it, an epoch's steps add up to the full gradient's."""
    strategy, data = fresh("fine_tuning", epochs=1, batch_size=7, learning_rate=1e-9)
    old = theta_of(strategy.model)
    strategy.apply(FLIPPED)
    starts = np.arange(0, 60, 7)
    shares = 1.0 - starts / 60  # of the rate, which falls linearly
    assert len(starts) == 9
    step = (theta_of(strategy.model) - old) / -1e-9
    full = gradient(data.after(FLIPPED), old, "logistic") / 60
    longest = np.sqrt((make_data("logistic").X ** 2).sum(axis=1).max() + 1)
    assert (
        np.linalg.norm(step - shares.sum() * full) < 9 * longest
    )  # no more than mean gradients of rows differ


def test_the_rate_is_that_of_the_expected_smoothness():
    strategy, data = fresh("fine_tuning", epochs=1, batch_size=60)
    old = theta_of(strategy.model)
    strategy.apply(FLIPPED)
    X = np.column_stack([data.rows[0], np.ones(60)])
    L = (0.25 * np.linalg.norm(X, 2) ** 2 + ALPHA) / 60  # a batch of all rows is as smooth as the whole
    expected = old - 0.5 / L * gradient(data.after(FLIPPED), old, "logistic") / 60
    assert_allclose(theta_of(strategy.model), expected, rtol=0, atol=1e-12)
    one, _ = fresh("fine_tuning", gradients=1, batch_size=1, random_state=1)
    longest = (X**2).sum(axis=1).max()
    order = np.random.default_rng(1).permutation(60)
    after = data.after(FLIPPED)
    i = order[0]
    eta = X[i] @ old
    mean = (1 / (1 + np.exp(-eta)) - after.y[i]) * X[i] + np.append(ALPHA * old[:-1], 0) / 60
    one.apply(FLIPPED)
    assert_allclose(theta_of(one.model), old - 0.5 / (0.25 * longest + ALPHA / 60) * mean, rtol=0, atol=1e-9)


def test_fine_tuning_comes_nearer_with_a_larger_budget():
    far = []
    for epochs in (1, 10, 100):
        strategy, data = fresh("fine_tuning", epochs=epochs)
        strategy.apply(COLUMN)
        far.append(np.linalg.norm(theta_of(strategy.model) - minimiser(data.after(COLUMN))))
    assert far[0] > far[1] > far[2]


def test_passes_are_the_budget():
    for budget, passes in (({"epochs": 2.5}, 3), ({"gradients": 61}, 2), ({"gradients": 3}, 1)):
        strategy, _ = fresh("fine_tuning", **budget)
        for request in (FLIPPED, COLUMN):  # each has the whole budget
            assert strategy.apply(request).passes == passes
            assert strategy.gradients == budget.get("gradients", 150)


def test_the_order_of_rows_is_that_of_the_seed():
    thetas = []
    for seed in (0, 0, 1):
        strategy, _ = fresh("fine_tuning", random_state=seed)
        strategy.apply(FLIPPED)
        thetas.append(theta_of(strategy.model))
    assert_array_equal(thetas[0], thetas[1])
    assert not np.array_equal(thetas[0], thetas[2])


def test_bad_parameters_of_fine_tuning():
    X, y, _ = make_data("logistic").rows
    model = ex.LogisticRegression(ALPHA).fit(X, y)
    for wrong in (
        {"epochs": 0},
        {"gradients": 0},
        {"batch_size": 1.5},
        {"learning_rate": -1.0},
        {"random_state": "a"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FineTuning(model, X, y, **wrong)


def test_a_step_that_is_too_long_is_refused_and_changes_nothing():
    strategy, _ = fresh("fine_tuning", loss="squared", learning_rate=1e200)
    before = theta_of(strategy.model)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ex.ConvergenceError, match="leaves the range of floating point"),
    ):
        strategy.apply(ex.CorrectLabels([5], 3.0))
    assert_array_equal(theta_of(strategy.model), before)
    assert_array_equal(strategy.corrected_data()[1], make_data("squared").rows[1])


# DeltaGrad


def descent(data, loss, rate, steps):
    """Gradient descent from 0, by NumPy."""
    w = np.zeros(7)
    for _ in range(steps):
        w = w - rate * gradient(data, w, loss)
    return w


@both_losses
def test_the_model_is_what_gradient_descent_leads_to(loss):
    strategy, data = fresh("deltagrad", loss=loss, steps=60)
    assert_allclose(
        theta_of(strategy.model), descent(data, loss, strategy.learning_rate, 60), rtol=0, atol=1e-10
    )


@both_losses
@pytest.mark.parametrize("request_", [ROWS, VALUES, FLIPPED, ex.AddRows(np.ones((2, 6)), [1.0, 0.0])])
def test_where_every_step_measures_it_is_gradient_descent_on_the_corrected_data(loss, request_):
    strategy, data = fresh("deltagrad", loss=loss, steps=60, period=1, burn_in=0)
    assert strategy.apply(request_).passes == 60
    expected = descent(data.after(request_), loss, strategy.learning_rate, 60)
    assert_allclose(theta_of(strategy.model), expected, rtol=0, atol=1e-10)


@both_losses
def test_from_the_cache_it_is_nearly_that(loss):
    strategy, data = fresh("deltagrad", loss=loss, steps=200, period=5, burn_in=10)
    old = theta_of(strategy.model)
    assert strategy.apply(ROWS).passes == 10 + 38
    expected = descent(data.after(ROWS), loss, strategy.learning_rate, 200)
    off = np.linalg.norm(theta_of(strategy.model) - expected)
    assert off < 0.02 * np.linalg.norm(old - expected)
    alone, _ = fresh("deltagrad", loss=loss, steps=200, period=200, burn_in=0)  # hardly a pair to correct by
    alone.apply(ROWS)
    assert off < 0.2 * np.linalg.norm(theta_of(alone.model) - expected)


def test_the_new_path_is_the_cache_of_the_next_request():
    strategy, data = fresh("deltagrad", steps=60, period=1, burn_in=0)
    strategy.apply(ROWS)
    strategy.apply(FLIPPED)
    expected = descent(data.after(ROWS, FLIPPED), "logistic", strategy.learning_rate, 60)
    assert_allclose(theta_of(strategy.model), expected, rtol=0, atol=1e-10)
    cached, data = fresh("deltagrad", steps=60, period=60, burn_in=0)  # nothing to correct the cache by
    cached.apply(ROWS)
    cached.apply(FLIPPED)
    stages = (data, data.after(ROWS), data.after(ROWS, FLIPPED))
    known = None
    for before, after in ((None, stages[0]), *pairwise(stages)):
        w, path = np.zeros(7), []
        for t in range(60):
            g = gradient(after, w, "logistic")
            if known is not None and t:
                g = known[t] + g - gradient(before, w, "logistic")
            path.append(g)
            w = w - cached.learning_rate * g
        known = path
    assert_allclose(theta_of(cached.model), w, rtol=0, atol=1e-10)


def test_the_compact_form_is_the_matrix_of_bfgs_updates():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((8, 8))
    A = A @ A.T + np.eye(8)
    steps = rng.standard_normal((3, 8))
    pairs = deque([(s, A @ s) for s in steps])
    s, y = pairs[-1]
    B = np.eye(8) * (s @ y) / (s @ s)
    for s, y in pairs:
        B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (y @ s)
    for v in rng.standard_normal((5, 8)):
        assert_allclose(quasi_hessian_times(v, pairs), B @ v, rtol=1e-9, atol=1e-9)
    assert_allclose(quasi_hessian_times(s, pairs), A @ s, rtol=1e-9)  # the secant equation
    assert_array_equal(quasi_hessian_times(s, deque()), np.zeros(8))


@pytest.mark.parametrize("d", [6, 100])
@pytest.mark.parametrize("name", ["float64_c", "csr_int32"])
def test_the_default_rate_is_one_over_the_largest_curvature(d, name):
    data = make_data("logistic", d=d)
    strategy = CASES["deltagrad"].of(REPRESENTATIONS[name](data.X), data.y)
    X = np.column_stack([data.X, np.ones(60)])
    largest = 0.25 * np.linalg.norm(X, 2) ** 2 + ALPHA
    assert 1.0 <= strategy.learning_rate * largest < 1.002  # Lanczos' method comes from below


def test_bad_parameters_of_deltagrad():
    X, y, _ = make_data("logistic").rows
    model = ex.LogisticRegression(ALPHA).fit(X, y)
    for wrong in ({"steps": 0}, {"period": 0}, {"burn_in": -1}, {"pairs": 0}, {"learning_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DeltaGrad(model, X, y, **wrong)
    assert CASES["deltagrad"].of(X, y, burn_in=0).apply(ROWS).passes == 6
