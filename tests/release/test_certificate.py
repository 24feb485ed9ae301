"""What a certificate says, and what is kept of it."""

import copy
import json
import pickle
from dataclasses import replace
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from releasing import exact_profile, noisy
from unlearning import ALPHA, each_intercept, each_loss, make_data, profile_residual, theta_of, unlearner

import expunge as ex
from expunge import noise, reference, release

EPSILON, DELTA = 0.5, 1e-5


# certificates


def released_model():
    un = unlearner(make_data("logistic"), "logistic", True)
    return un.release(1.0, 1e-2)


def test_what_depends_on_the_data_stays_with_the_operator():
    held = released_model().certificate_
    shown = f"{held!r}{held}{json.dumps(held.as_dict())}"
    for value in (held.residual, held.residual_bound, held.floor):
        assert f"{value:.4g}" not in shown
    twin = pickle.loads(pickle.dumps(held))
    assert (twin.residual, twin.residual_bound, twin.floor) == (None, None, None)
    assert twin == held == held.published() == copy.deepcopy(held)


def test_a_certificate_says_what_it_is():
    held = released_model().certificate_
    text = str(held)
    for part in ("(1, 0.01)", "output", "Balle and Wang", "taken on trust", "checked", "outside"):
        assert part in text
    fields = held.as_dict()
    assert json.loads(json.dumps(fields)) == fields
    assert set(fields) == set(held.__dataclass_fields__) - {"residual", "residual_bound", "floor"}


def test_a_pickled_release_keeps_its_certificate():
    released = released_model()
    twin = pickle.loads(pickle.dumps(released))
    assert twin.certificate_ == released.certificate_
    assert_array_equal(twin.coef_, released.coef_)


@pytest.mark.parametrize("change", ["fit", "coef_", "intercept_", "unlearner", "request"])
def test_a_certificate_does_not_outlive_its_model(change):
    data = make_data("logistic")
    released = released_model()
    assert hasattr(released, "certificate_")
    if change == "fit":
        released.fit(data.X, data.y)
    elif change == "coef_":
        released.coef_ = released.coef_ + 1.0
    elif change == "intercept_":
        released.intercept_ = released.intercept_ + 1.0
    else:
        un = ex.Unlearner(released, data.X, data.y)
        if change == "request":
            un.apply(ex.RemoveRows([1]))
    assert not hasattr(released, "certificate_")


def test_a_receipt_carries_a_certificate():
    un = unlearner(make_data("logistic"), "logistic", True)
    update = un.apply(ex.RemoveRows([3]))
    held = un.release(1.0, 1e-2).certificate_
    content = json.loads(update.receipt(certificate=held))
    assert content["certificate"] == held.as_dict()


@each_loss
def test_distance_to_the_minimiser(loss):
    """Oracle 10: no further than (profile residual + floor) / alpha."""
    data = make_data(loss, n=300, weighted=True)
    exact = np.ravel(unlearner(data, loss, True, tolerance=1e-10).model.coef_)
    for tolerance in (1e-6, 1e-2, 1.0):
        un = unlearner(data, loss, True, tolerance=tolerance)
        un.apply(ex.RemoveRows([20, 21]))
        un.apply([ex.AddRows(data.X[20:22], data.y[20:22], data.s[20:22])], method="first_order")
        residual, floor = profile_residual(un, data, theta_of(un.model))
        distance = np.linalg.norm(np.ravel(un.model.coef_) - exact)
        assert 0.0 < distance <= (residual + floor + 1e-9) / ALPHA
        released = un.release(1.0, 1e-2, random_state=1)
        grid = noise.grid_of(Fraction(released.certificate_.sigma), un.theta_bound)
        assert grid.width == released.certificate_.sigma
        hidden = np.ravel(released.coef_) - noise.add_normal(np.zeros(6), grid, 1)
        assert np.linalg.norm(hidden - exact) <= (tolerance + 1e-9) / ALPHA + sqrt(6) * grid.step


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_profile_residual_of_equal_rows_is_its_bound(loss):
    """E10 from both sides: there the terms of intercept and coefficients add up."""
    x, n = np.array([3.0, -4.0]), 50
    X, y, M, along = np.tile(x, (n, 1)), np.arange(n) % 2.0, 5.0, np.array([0.6, -0.8])
    model = (ex.Ridge if loss == "squared" else ex.LogisticRegression)(1.0).fit(X, y)
    theta = theta_of(model) + np.append(-along, M + 1e-3)  # predictors rise by 1e-3, coefficients shrink by 1
    model.coef_, model.intercept_ = theta[:-1].reshape(np.shape(model.coef_)), theta[-1:]
    g = reference.gradient(X, y, theta, alpha=1.0, loss=loss, fit_intercept=True)
    assert g[:-1] @ along < 0.0 < g[-1]
    exact = exact_profile(model, replace(make_data(loss, n=n, d=2), X=X, y=y))
    assert_allclose(release.profile_residual(g, M, True), exact, rtol=1e-12)
    worst = np.append(-along, M) / np.hypot(1.0, M)  # of all gradients of norm 1
    assert_allclose(release.profile_residual(worst, M, True), release.norm_factor(M, True), rtol=1e-14)
    assert release.norm_factor(M, False) == 1.0
    assert_allclose(release.profile_residual(worst, M, False), 1.0, rtol=1e-14)


@each_intercept
def test_a_proven_bound_is_spent_with_its_factor(fit_intercept):
    data = make_data("logistic", n=2000)
    options = {"tolerance": 1.0, "sigma": 50.0, "epsilon": EPSILON, "delta": DELTA}
    un, _ = noisy(data, fit_intercept=fit_intercept, **options)
    update = un.apply(ex.RemoveRows([3]))
    assert update.residual is None
    longest = np.linalg.norm(data.X, axis=1).max()
    factor = np.hypot(1.0, longest) if fit_intercept else 1.0
    assert_allclose(un.budget.spent, factor * update.residual_bound, rtol=1e-12)
    un.detach()
    X, y, _ = data.rows
    update = un.apply(ex.Edit(before=(X[:1], y[:1])))
    if fit_intercept:
        factor = (1 + 2**-30) * 2.0 ** np.ceil(
            np.log2(factor)
        )  # without rows, all that is known of the longest
    kept = 2.0 ** np.ceil(np.log2(factor * update.residual_bound))
    assert un.budget.spent == min(kept, un.budget.total)
