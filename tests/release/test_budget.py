"""The budget of noise in the objective."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from releasing import SIGMA, exact_profile, noisy, requests, residual_with
from unlearning import (
    ALPHA,
    TOLERANCE,
    each_intercept,
    each_loss,
    each_method,
    inside,
    make_data,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import noise

EPSILON, DELTA = 0.5, 1e-5


# the budget


def test_a_budget_is_what_the_noise_hides():
    un, _ = noisy(make_data("logistic"), epsilon=EPSILON, delta=DELTA)
    held = un.budget
    assert_allclose(held.total, SIGMA * EPSILON / sqrt(2 * log(1.5 / DELTA)), rtol=1e-14)
    assert (held.epsilon, held.delta, held.sigma) == (EPSILON, DELTA, SIGMA)
    assert held.left == held.total - held.spent > 0
    assert replace(held, spent=1.0).left == 0.0
    assert "spent" in str(held)


@each_method
@each_intercept
@pytest.mark.parametrize("tolerance", [1e-8, 1e-2])
def test_what_is_spent_is_never_less_than_the_residual(tolerance, fit_intercept, method):
    data = make_data("logistic", n=200)
    un, b = noisy(data, fit_intercept=fit_intercept, tolerance=tolerance, epsilon=EPSILON, delta=DELTA)
    for request in requests():
        data = data.after(request)
        un.apply(request, **method)
        assert un.budget.spent <= un.budget.total
        assert exact_profile(un.model, data, b[data.kept]) <= un.budget.spent


def exhausting(un):
    """A request whose first-order update leaves a residual above the budget."""
    return un.apply(ex.RemoveRows(range(10, 20)), method="first_order")


def test_an_exhausted_budget_settles_with_the_same_noise():
    data = make_data("logistic", n=200)
    un, b = noisy(data, epsilon=EPSILON, delta=DELTA)
    free, _ = noisy(data)
    assert exhausting(free).residual > un.budget.total
    update = exhausting(un)
    assert update.settled
    assert update.method == "first_order"
    assert update.residual <= TOLERANCE
    assert_array_equal(un.model._noise.values, b)
    assert residual_with(un.model, data.after(ex.RemoveRows(range(10, 20))), b) <= TOLERANCE


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_an_exhausted_budget_retrains_with_fresh_noise(seed, solver):
    data = make_data("logistic", n=200)
    X, y, _ = data.rows
    model = ex.LogisticRegression(ALPHA, noise=SIGMA, random_state=seed, solver=solver).fit(X, y)
    budget = {"epsilon": EPSILON, "delta": DELTA, "on_exhausted": "retrain"}
    un = ex.Unlearner(model, X, y, tolerance=TOLERANCE, **budget)
    b = model._noise.values
    old = theta_of(model)
    update = exhausting(un)
    data = data.after(ex.RemoveRows(range(10, 20)))
    fresh = model._noise.values
    assert (fresh != b).all()
    if seed is not None:
        assert_array_equal(fresh, noise.normal(6, SIGMA, (5, 2)))
    assert residual_with(model, data, fresh) <= TOLERANCE
    assert_allclose(update.step, theta_of(model) - old)
    assert update.settled
    un.apply(ex.RemoveRows([50]))
    assert residual_with(model, data.after(ex.RemoveRows([50])), fresh) <= TOLERANCE


def test_an_exhausted_budget_raises_and_changes_nothing():
    data = make_data("logistic", n=200)
    un, _ = noisy(data, epsilon=EPSILON, delta=DELTA, on_exhausted="raise")
    before = un.budget, inside(un).state
    theta = theta_of(un.model)
    with pytest.raises(ex.CertificateError, match="the profile residual is at most"):
        exhausting(un)
    assert (un.budget, inside(un).state) == before
    assert_array_equal(theta_of(un.model), theta)
    assert un.corrected_data()[1].size == 200
    assert un.apply(ex.RemoveRows(range(10, 20))).residual_bound <= TOLERANCE


@each_intercept
@pytest.mark.parametrize("sigma", [1e-3, SIGMA])
def test_the_default_promise_beside_a_budget_is_a_residual(fit_intercept, sigma):
    data = make_data("logistic", n=200)
    promises = {"tolerance": None, "epsilon": EPSILON, "delta": DELTA}
    un, b = noisy(data, fit_intercept=fit_intercept, sigma=sigma, **promises)
    free, _ = noisy(data, fit_intercept=fit_intercept, sigma=sigma, tolerance=None, random_state=0)
    assert (un.within, un.tolerance) == (None, TOLERANCE)  # noise hides a residual, not a distance
    exceeded = 0
    for request in requests():
        data, update = data.after(request), un.apply(request)
        assert update.distance <= 0.01
        assert exact_profile(un.model, data, b[data.kept]) <= un.budget.spent <= un.budget.total
        exceeded += free.apply(request).residual_bound > un.budget.total
    assert exceeded > 0 or sigma == SIGMA
    held = un.release(EPSILON, DELTA, mechanism="objective", against="minimiser").certificate_
    assert held.residual_bound <= held.tolerance == un.budget.total
    assert_array_equal(un.model._noise.values, b[data.kept])


def test_a_tolerance_above_the_budget_is_refused_where_it_fails():
    data = make_data("logistic", n=200)
    X, y, _ = data.rows
    model = ex.LogisticRegression(ALPHA, noise=1e-6).fit(X, y)
    un = ex.Unlearner(model, X, y, tolerance=1.0, epsilon=EPSILON, delta=DELTA)
    assert until_refused(un, [ex.RemoveRows([row]) for row in range(50)]) < 50
    model = ex.LogisticRegression(ALPHA, noise=1e-6, tol=1.0).fit(X, y)
    with pytest.raises(ex.CertificateError, match="use a smaller tolerance"):
        ex.Unlearner(model, X, y, tolerance=1.0, epsilon=EPSILON, delta=DELTA)


def until_refused(un, requests, check=lambda k: None):
    """How many requests the budget allows; a refused one changes nothing."""
    for k, request in enumerate(requests):
        before = un.budget, theta_of(un.model)
        try:
            un.apply(request)
        except ex.CertificateError:
            assert un.budget == before[0]
            assert_array_equal(theta_of(un.model), before[1])
            with pytest.raises(ex.CertificateError, match="use a smaller tolerance"):
                un.apply(request)
            return k
        check(k + 1)
    return len(requests)


@each_intercept
def test_a_detached_budget_is_kept_by_the_bound(fit_intercept):
    data = make_data("logistic", n=2000)
    X, y, _ = data.rows
    model = ex.LogisticRegression(ALPHA, fit_intercept=fit_intercept, noise=5.0).fit(X, y)
    un = ex.Unlearner(model, X, y, tolerance=100.0, epsilon=EPSILON, delta=DELTA).detach()

    def check(k):
        left = data.after(ex.RemoveRows(range(k)))
        assert exact_profile(un.model, left, model._noise.values) <= un.budget.spent

    edits = [ex.Edit(before=(X[i : i + 1], y[i : i + 1])) for i in range(100)]
    assert 0 < until_refused(un, edits, check) < 100


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": 0.5}, ValueError, "give both or neither"),
        ({"delta": 0.5}, ValueError, "give both or neither"),
        ({"epsilon": 1.0, "delta": 1e-5}, ValueError, "epsilon < 1"),
        ({"epsilon": 0.5, "delta": 1.5}, ValueError, "delta must be"),
        ({"on_exhausted": "sell"}, ValueError, "unknown on_exhausted='sell'"),
        ({"theta_bound": 0.0}, ValueError, "theta_bound must be"),
        ({"theta_bound": np.inf}, ValueError, "theta_bound must be"),
    ],
)
def test_other_promises_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        noisy(make_data("logistic"), **options)


@each_loss
def test_a_model_without_noise_has_no_budget(loss):
    data = make_data(loss)
    un = unlearner(data, loss, True)
    assert un.budget is None
    with pytest.raises(ValueError, match=r"noise=sigma"):
        ex.Unlearner(un.model, data.X, data.y, epsilon=0.5, delta=1e-5)
