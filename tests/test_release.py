"""Noise in the objective, its budget, certified releases, and every way in which they are refused."""

import copy
import io
import json
import logging
import pickle
from dataclasses import replace
from fractions import Fraction
from math import log, sqrt
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats
from sklearn.base import clone
from unlearning import (
    ALPHA,
    TOLERANCE,
    each_intercept,
    each_loss,
    each_method,
    inside,
    make_data,
    profile_residual,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import accounting, noise, reference, release
from expunge.losses import get_loss
from expunge.models.base import set_theta
from expunge.noise import Noise
from expunge.problem import Problem

SIGMA = 0.25
EPSILON, DELTA = 0.5, 1e-5
each_mechanism = pytest.mark.parametrize("mechanism", ["output", "rounding"])


def noisy(
    data, *, fit_intercept=True, sigma=SIGMA, random_state=None, represent=np.array, alpha=ALPHA, **options
):
    """An Unlearner of a model with noise in its objective, and the noise."""
    X, y, s = data.rows
    model = ex.LogisticRegression(alpha, fit_intercept=fit_intercept, noise=sigma, random_state=random_state)
    model.fit(represent(X), y, s)
    return ex.Unlearner(model, represent(X), y, s, **options), model._noise.values


def residual_with(model, data, b):
    """Norm of the gradient of E1 with this noise, by the reference."""
    X, y, s = data.rows
    g = reference.gradient(
        X,
        y,
        theta_of(model),
        alpha=model.alpha,
        sample_weight=s,
        fit_intercept=model.fit_intercept,
        noise=b,
    )
    return np.linalg.norm(g)


# --- noise


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_noise_is_standard_normal(seed):
    z = noise.normal(200_000, 1.0, seed)
    assert stats.kstest(z, "norm").pvalue > 1e-6
    assert abs(z.std() - 1.0) < 0.01
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.02


def test_noise_comes_from_the_operating_system(monkeypatch):
    asked, stream = [], np.random.default_rng(3).bytes
    monkeypatch.setattr(noise.os, "urandom", lambda size: asked.append(size) or stream(size))
    assert_array_equal(noise.normal(3, 1.0), noise.normal(3, 1.0, 3))
    assert len(asked) == 1
    assert asked[0] >= 3 * 4


def test_seeds_repeat_and_differ():
    assert_array_equal(noise.normal(5, 1.0, 7), noise.normal(5, 1.0, 7))
    assert (noise.normal(5, 1.0, 7) != noise.normal(5, 1.0, 8)).all()
    assert (noise.normal(5, 1.0) != noise.normal(5, 1.0)).all()


@pytest.mark.parametrize("value", [-1, 1.5, True, "a", np.random.default_rng(0)])
def test_other_random_states_are_refused(value):
    data = make_data("logistic")
    with pytest.raises(ValueError, match="random_state must be None"):
        ex.LogisticRegression(noise=1.0, random_state=value).fit(data.X, data.y)
    with pytest.raises(ValueError, match="random_state must be None"):
        unlearner(data, "logistic", True).release(1.0, DELTA, random_state=value)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "much"])
def test_other_noise_is_refused(value):
    data = make_data("logistic")
    with pytest.raises(ValueError, match="noise must be a finite number >= 0"):
        ex.LogisticRegression(noise=value).fit(data.X, data.y)


@each_intercept
def test_a_model_minimises_the_objective_with_its_noise(fit_intercept):
    data = make_data("logistic", weighted=True)
    un, b = noisy(data, fit_intercept=fit_intercept)
    model = un.model
    assert b.shape == (6,)
    assert residual_with(model, data, b) <= 1.1e-8
    assert residual_with(model, data, 0.0 * b) > 0.01
    assert ex.residual(model, *data.rows) <= 1.1e-8


def test_each_fit_draws_anew_and_a_seed_draws_the_same():
    data = make_data("logistic")
    model = ex.LogisticRegression(noise=SIGMA)
    first = model.fit(data.X, data.y).coef_
    assert (model.fit(data.X, data.y).coef_ != first).all()
    assert (clone(model).fit(data.X, data.y).coef_ != first).all()
    seeded = ex.LogisticRegression(noise=SIGMA, random_state=3)
    assert_array_equal(seeded.fit(data.X, data.y).coef_, clone(seeded).fit(data.X, data.y).coef_)


def test_sigma_is_the_standard_deviation_of_the_noise():
    data = make_data("logistic", n=20, d=2000)
    for sigma in (0.01, 3.0):
        model = ex.LogisticRegression(noise=sigma, random_state=1, tol=1e-6).fit(data.X, data.y)
        b = model._noise.values
        assert_array_equal(b, noise.normal(2000, sigma, (1, 1)))
        assert abs(b.std() / sigma - 1.0) < 0.06


def test_a_refit_without_noise_has_none():
    data = make_data("logistic")
    model = ex.LogisticRegression(noise=SIGMA).fit(data.X, data.y)
    model.set_params(noise=0.0).fit(data.X, data.y)
    assert model._noise is None
    assert ex.Unlearner(model, data.X, data.y).budget is None


def representations(b):
    """What might give some numbers away: their bytes, and their first digits in text."""
    return [np.float64(value).tobytes() for value in b] + [f"{value:.6g}".encode() for value in b]


@pytest.mark.parametrize("dump", [pickle.dumps, lambda o: joblib_bytes(o)], ids=["pickle", "joblib"])
def test_noise_is_in_no_pickle_and_a_model_without_it_is_refused(dump):
    data = make_data("logistic")
    un, b = noisy(data)
    content = dump(un.model)
    assert not any(text in content for text in representations(b))
    twin = pickle.loads(pickle.dumps(un.model))
    assert_array_equal(twin.predict_proba(data.X), un.model.predict_proba(data.X))
    for refused in (
        lambda: ex.Unlearner(twin, data.X, data.y),
        lambda: ex.residual(twin, data.X, data.y),
    ):
        with pytest.raises(ex.CertificateError, match="noise that this model was trained with is lost"):
            refused()
    twin.fit(data.X, data.y)
    assert ex.Unlearner(twin, data.X, data.y).residual() <= TOLERANCE


def joblib_bytes(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    return file.getvalue()


def test_copies_within_the_process_keep_it():
    data = make_data("logistic")
    un, b = noisy(data)
    for twin in (copy.copy(un.model), copy.deepcopy(un.model)):
        assert_array_equal(twin._noise.values, b)
        ex.Unlearner(twin, data.X, data.y)


def test_noise_is_in_no_repr_and_no_log(caplog):
    data = make_data("logistic")
    with caplog.at_level(logging.DEBUG):
        un, b = noisy(data, epsilon=EPSILON, delta=DELTA, random_state=1)
        update = un.apply(ex.RemoveRows([3]), method="second_order")
        released = un.release(EPSILON, DELTA, mechanism="objective")
    shown = [
        un.model,
        un,
        un.budget,
        update,
        update.receipt(),
        released,
        released.certificate_,
        un.model._noise,
    ]
    text = "".join([*map(repr, shown), *map(str, shown), *map(repr, map(vars, shown[:1])), caplog.text])
    assert "sigma" in text
    assert not any(f"{abs(value):.5f}"[:6] in text for value in b)


# --- requests, with noise


def requests():
    return [
        ex.RemoveRows([3, 17]),
        ex.CorrectLabels([8, 9], [0.0, 1.0]),
        ex.CorrectValues([5], [1, 2], 0.25),
        ex.RevokeFeatures([2]),
        ex.AddRows(np.full((2, 5), 0.5), [0.0, 1.0]),
        ex.RemoveRows([20]),
    ]


@each_method
@each_intercept
@pytest.mark.parametrize("form", [np.array, sparse.csr_array], ids=["dense", "sparse"])
def test_requests_lead_to_retraining_with_the_same_noise(form, fit_intercept, method):
    data = make_data("logistic", zeros=True)
    un, b = noisy(data, fit_intercept=fit_intercept, represent=form)
    for request in requests():
        if isinstance(request, ex.AddRows):
            request = ex.AddRows(form(request.X), request.y)
        data = data.after(request)
        update = un.apply(request, **method)
        now = b[data.kept]
        assert_array_equal(un.model._noise.values, now)
        exact = residual_with(un.model, data, now)
        assert update.residual_bound >= exact - 1e-12
        if update.residual is not None:
            assert_allclose(update.residual, exact, atol=1e-12)
    if method.get("method") in (None, "exact"):
        assert exact <= TOLERANCE
    un.apply([], method="exact")
    retrained = un.retrain()
    assert_array_equal(retrained._noise.values, now)
    assert residual_with(retrained, data, now) <= TOLERANCE
    assert_allclose(theta_of(un.model), theta_of(retrained), atol=1e-7)


@each_intercept
def test_the_gradient_difference_does_not_depend_on_the_noise(fit_intercept):
    """Penalty and noise cancel (E3); of revoked features nothing is left."""
    data = make_data("logistic")
    un, _ = noisy(data, fit_intercept=fit_intercept)
    common = {"alpha": ALPHA, "fit_intercept": fit_intercept}
    for request in (ex.RemoveRows([3, 4]), ex.RevokeFeatures([1])):
        old, before = theta_of(un.model), data
        data = data.after(request)
        update = un.apply(request)
        left = old if data.kept.all() else np.delete(old, 1)
        after = reference.gradient(*data.rows[:2], left, **common)
        expected = after - (
            reference.gradient(*before.rows[:2], old, **common)
            if data.kept.all()
            else np.delete(reference.gradient(*before.rows[:2], old, **common), 1)
        )
        assert_allclose(update.gradient_difference, expected, atol=1e-9)


def test_a_revoked_feature_takes_its_noise_along():
    data = make_data("logistic")
    un, b = noisy(data)
    un.apply(ex.RevokeFeatures([0, 4]))
    assert_array_equal(un.model._noise.values, b[[1, 2, 3, 5]])
    assert_array_equal(inside(un).noise.values[[0, 4]], [0.0, 0.0])


@each_intercept
def test_a_profile_residual_counts_its_own_rounding(fit_intercept):
    mpmath, rng = pytest.importorskip("mpmath"), np.random.default_rng(0)
    for size in range(2, 40):
        for g in rng.standard_normal((20, size)):
            longest = rng.uniform(0.0, 3.0)
            with mpmath.workdps(50):
                slopes = g[:-1] if fit_intercept else g
                exact = mpmath.sqrt(sum(mpmath.mpf(float(x)) ** 2 for x in slopes))
                exact += mpmath.mpf(longest) * abs(float(g[-1])) if fit_intercept else 0
            found = release.profile_residual(g, longest, fit_intercept)
            assert exact <= found <= exact * (1 + 1e-13)


def test_the_floor_of_a_release_counts_penalty_and_noise():
    """They cancel but for their rounding, and no row has any."""
    rng = np.random.default_rng(0)
    theta, penalty = rng.standard_normal(5), rng.uniform(0.1, 1.0, 5)
    rows = [(np.zeros((3, 5)), np.array([0.0, 1.0, 0.0]), np.ones(3))]
    noise = Noise(1.0, None, 1, -(penalty * theta))
    problem = Problem("logistic", penalty, False, noise=noise)  # one penalty for each
    found = release.measure(rows, theta, problem, np.ones(5, dtype=bool))
    exact = [Fraction(p) * Fraction(t) - Fraction(p * t) for p, t in zip(penalty, theta, strict=True)]
    error = sqrt(sum(e * e for e in exact))
    assert found.residual == 0.0
    assert 0.0 < error <= found.bound <= 1e3 * error


@pytest.mark.parametrize("hessian", ["corrected", "original"])
@each_intercept
def test_a_second_order_update_of_a_revoked_feature_counts_its_noise(fit_intercept, hessian):
    """Of its data nothing is left, of penalty and noise all (E12): the influence function feels these."""
    data, request = make_data("logistic"), ex.RevokeFeatures([1, 4])
    un, b = noisy(data, fit_intercept=fit_intercept, tolerance=1e-10)
    theta, after = theta_of(un.model), data.after(request)
    kept = np.append(after.kept, np.ones(int(fit_intercept), dtype=bool))
    common = {"alpha": ALPHA, "fit_intercept": fit_intercept}
    g = reference.gradient(*after.rows[:2], theta[kept], noise=b[after.kept], **common)
    if hessian == "corrected":
        step = -np.linalg.solve(reference.hessian(after.rows[0], theta[kept], **common), g)
    else:
        whole = ALPHA * theta + np.append(b, np.zeros(int(fit_intercept)))
        whole[kept] = g
        step = -np.linalg.solve(reference.hessian(data.rows[0], theta, **common), whole)[kept]
    update = un.apply(request, method="second_order", hessian=hessian)
    assert_allclose(update.step, step, rtol=1e-9, atol=1e-9)


def test_a_failed_request_leaves_noise_and_budget_alone():
    data = make_data("logistic")
    un, b = noisy(data, epsilon=EPSILON, delta=DELTA)
    before = un.budget, inside(un).state, inside(un).noise
    with pytest.raises(ValueError, match="row 1000"):
        un.apply([ex.RevokeFeatures([1]), ex.RemoveRows([1000])])
    assert (un.budget, inside(un).state, inside(un).noise) == before
    assert_array_equal(un.model._noise.values, b)


@each_intercept
def test_detached_and_attached_again(fit_intercept):
    data = make_data("logistic", n=2000)
    un, b = noisy(data, fit_intercept=fit_intercept, tolerance=1.0)
    un.apply(ex.RevokeFeatures([2]))
    data = data.after(ex.RevokeFeatures([2])).renumbered()
    un.detach()
    X, y, _ = data.rows
    un.apply(ex.Edit(before=(X[:1], y[:1])))
    data = data.after(ex.RemoveRows([0])).renumbered()
    assert 1e-9 < residual_with(un.model, data, np.delete(b, 2)) <= 1.0
    un.attach(*data.rows[:2])
    inside(un).tolerance = 1e-8
    un.apply(ex.RemoveRows([1]), method="exact")
    assert residual_with(un.model, data.after(ex.RemoveRows([1])), np.delete(b, 2)) <= 1e-8


# --- files


def test_noise_is_in_files_only_on_request(tmp_path):
    data = make_data("logistic")
    un, b = noisy(data, epsilon=EPSILON, delta=DELTA, on_exhausted="retrain", theta_bound=7.0)
    un.apply([ex.RevokeFeatures([1]), ex.RemoveRows([4])])
    b = np.delete(b, 1)
    path = tmp_path / "file"
    un.save(path)
    assert not any(text in path.read_bytes() for text in representations(b))
    loaded = ex.Unlearner.load(path)
    assert loaded.theta_bound == 7.0
    assert loaded.budget == replace(un.budget, spent=loaded.budget.spent)
    left = data.after(ex.RevokeFeatures([1]), ex.RemoveRows([4]))
    assert exact_profile(un.model, left, b) <= loaded.budget.spent
    assert loaded.budget.spent <= 1.1 * un.budget.spent  # measured anew, on the rows that are left
    assert loaded.model.noise == SIGMA
    X, y, _ = data.after(ex.RevokeFeatures([1]), ex.RemoveRows([4])).rows
    theta = theta_of(loaded.model)
    for refused in (
        lambda: loaded.attach(X, y),
        lambda: loaded.save(path, include_noise=True),
    ):
        with pytest.raises(ex.CertificateError, match="is lost"):
            refused()
    assert_array_equal(theta_of(loaded.model), theta)
    with pytest.raises(ex.CertificateError, match="the profile residual is at most"):
        loaded.apply(ex.Edit(before=(X[:1], y[:1])), method="second_order")
    un.save(path, include_noise=True)
    loaded = ex.Unlearner.load(path).attach(X, y)
    assert_array_equal(loaded.model._noise.values, b)
    loaded.release(EPSILON, DELTA, mechanism="objective")


def test_rows_and_theta_tell_the_noise_so_they_are_not_saved_without_it(tmp_path):
    data = make_data("logistic")
    un, b = noisy(data, random_state=2**70)
    with pytest.raises(ValueError, match="include_noise=True"):
        un.save(tmp_path / "file", include_rows=True)
    assert list(tmp_path.iterdir()) == []
    told = -reference.gradient(data.X, data.y, theta_of(un.model), alpha=ALPHA, fit_intercept=True)
    assert_allclose(told[:-1], b, atol=2e-8)
    un.save(tmp_path / "file", include_rows=True, include_noise=True)
    loaded = ex.Unlearner.load(tmp_path / "file")
    loaded.apply([ex.RevokeFeatures([0]), ex.RemoveRows([2])])
    now = data.after(ex.RevokeFeatures([0]), ex.RemoveRows([2]))
    assert residual_with(loaded.model, now, b[1:]) <= TOLERANCE
    released = loaded.release(EPSILON, DELTA, mechanism="objective")
    assert released.certificate_.void == "noise reproducible"


# --- the budget


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


def exact_profile(model, data, b=None):
    """‖∇F‖ at the coefficients, the intercept at its best, in long double."""
    X, y, s = data.rows
    X, y = X.astype(np.longdouble), y.astype(np.longdouble)
    s = np.ones(len(y), dtype=np.longdouble) if s is None else s.astype(np.longdouble)
    coef, intercept = np.ravel(model.coef_).astype(np.longdouble), np.longdouble(0)
    d1, d2 = SLOPES["logistic" if hasattr(model, "classes_") else "squared"]
    if model.fit_intercept:
        intercept = np.longdouble(np.ravel(model.intercept_)[0])
        for _ in range(50):
            eta = X @ coef + intercept
            intercept -= (s @ d1(y, eta)) / (s @ d2(eta))
    g = X.T @ (s * d1(y, X @ coef + intercept)) + model.alpha * coef
    return np.linalg.norm(np.asarray(g if b is None else g + b, dtype=np.float64))


def _sigmoid(eta):
    return 1 / (1 + np.exp(-eta))


SLOPES = {
    "logistic": (lambda y, eta: _sigmoid(eta) - y, lambda eta: _sigmoid(eta) * (1 - _sigmoid(eta))),
    "squared": (lambda y, eta: eta - y, np.ones_like),
}


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
    un = ex.Unlearner(model, X, y, epsilon=EPSILON, delta=DELTA, on_exhausted="retrain")
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


# --- releases


@each_mechanism
@each_loss
@each_intercept
def test_a_release_is_a_certified_copy_and_changes_nothing(fit_intercept, loss, mechanism):
    data = make_data(loss, weighted=True)
    un = unlearner(data, loss, fit_intercept)
    un.apply([ex.RemoveRows([3]), ex.RevokeFeatures([1])])
    data = data.after(ex.RemoveRows([3]), ex.RevokeFeatures([1]))
    state, theta, rows = inside(un).state, theta_of(un.model), un.corrected_data()
    released = un.release(1.0, 1e-2, mechanism=mechanism)
    assert inside(un).state is state
    assert_array_equal(theta_of(un.model), theta)
    assert_array_equal(un.corrected_data()[0], rows[0])
    assert not hasattr(un.model, "certificate_")
    assert type(released) is type(un.model)
    assert released.get_params() == un.retrain().get_params()
    assert released.n_features_in_ == 5
    assert released.residual_ is None
    assert released.predict(data.rows[0]).shape == (59,)
    held = released.certificate_
    assert (held.mechanism, held.epsilon, held.delta) == (mechanism, 1.0, 1e-2)
    assert (held.tolerance, held.strong_convexity, held.theta_bound) == (TOLERANCE, ALPHA, 100.0)
    assert (held.against, held.void) == ("retraining", None)
    assert held.residual + held.floor == held.residual_bound <= TOLERANCE
    settled = copy.copy(un.model)  # where the model's own residual does not do
    set_theta(settled, inside(un).within(TOLERANCE).theta, None)
    assert exact_profile(settled, data) <= held.residual_bound
    assert {status for _, status in held.assumptions} == {"checked", "taken on trust"}
    assert held.outside
    moved = np.abs(np.ravel(released.coef_) - np.ravel(un.model.coef_))
    assert 0.0 < moved.max() < 10 * (held.sigma or held.grid)


@each_mechanism
def test_two_releases_differ_and_a_seed_repeats_and_voids(mechanism):
    un = unlearner(make_data("logistic"), "logistic", True)
    first, second = (un.release(1.0, 1e-2, mechanism=mechanism) for _ in range(2))
    assert (first.coef_ != second.coef_).all()
    seeded = [un.release(1.0, 1e-2, mechanism=mechanism, random_state=4) for _ in range(2)]
    assert_array_equal(*(model.coef_ for model in seeded))
    assert_array_equal(*(model.intercept_ for model in seeded))
    assert seeded[0].certificate_.void == "noise reproducible"
    assert str(seeded[0].certificate_).startswith("void: noise reproducible")


@each_loss
def test_the_scale_depends_on_public_constants_only(loss):
    held = []
    for n, d, seed in ((60, 6, 0), (500, 3, 1), (30, 40, 2)):
        un = unlearner(make_data(loss, n=n, d=d, seed=seed), loss, True)
        held.append(un.release(1.0, 1e-5).certificate_)
    assert held[0] == held[1] == held[2]
    shift = 2 * Fraction(TOLERANCE) / Fraction(ALPHA)
    needed = shift / Fraction(accounting.mu(1.0, 1e-5))
    assert needed <= Fraction(held[0].sigma) <= needed * (1 + Fraction(1, 2**20))
    assert shift / Fraction(held[0].sigma) <= Fraction(held[0].mu)
    assert held[0].mu == pytest.approx(shift / Fraction(held[0].sigma), rel=1e-15)


@each_mechanism
def test_the_scale_is_never_less_than_what_numbers_up_to_the_bound_need(mechanism):
    """2**20 steps of a grid on which numbers up to theta_bound have 53 bits."""
    for bound, exponent in ((100.0, 7 - 53), (2.0**40, 40 - 53), (2.0**40 * (1 + 2.0**-52), 41 - 53)):
        terms = release.Terms(mechanism, 4.0, 0.9, "retraining", 1e-11, ALPHA, bound)
        assert terms.grid(6).width == 2.0 ** (exponent + 20)
        scale = terms.apply(np.ones(6), 0)[1]
        assert scale["resolution"] == 2.0**exponent
        if mechanism == "output":
            assert Fraction(scale["mu"]) >= 2 * Fraction(1e-11) / Fraction(ALPHA) / Fraction(scale["sigma"])


@each_mechanism
def test_what_does_not_fit_float64_is_refused(mechanism):
    def terms(tolerance):
        return release.Terms(mechanism, 1e-3, 1e-3, "retraining", tolerance, 1e-3, 1.0)

    for far in (2.0**54, -1e300):  # whatever theta_bound says
        with pytest.raises(ex.CertificateError, match="does not fit 53 bits"):
            terms(1e-16).apply(np.array([1.0, far]), 0)
    with pytest.raises(ex.CertificateError, match="above the largest float64"):
        terms(1e308).apply(np.zeros(2), 0)


@pytest.mark.parametrize("mechanism", ["output", "rounding", "objective"])
def test_a_delta_below_what_a_machine_can_promise_is_refused(mechanism):
    data = make_data("logistic")
    un, _ = noisy(data, random_state=0)
    for delta in (2.0**-54, 1e-20, 1e-300, 1e-320):
        with pytest.raises(ex.CertificateError, match=r"below 2\*\*-53"):
            un.release(EPSILON, delta, mechanism=mechanism)
    with pytest.raises(ex.CertificateError, match=r"below 2\*\*-53"):
        noisy(data, epsilon=EPSILON, delta=1e-20)


@each_mechanism
def test_released_coefficients_are_multiples_of_their_grid(mechanism):
    un = unlearner(make_data("squared"), "squared", True)
    released = un.release(1.0, 1e-2, mechanism=mechanism)
    held = released.certificate_
    step = noise.grid_of(Fraction(held.sigma or held.grid), held.theta_bound).step
    assert (held.sigma or held.grid) / step in range(2**20, 2**21)
    assert_array_equal(np.fmod(released.coef_, step), 0.0)


@pytest.mark.parametrize("against", [None, "retraining", "minimiser"])
def test_the_scale_is_that_of_the_mathematics(against):
    """E16 at alpha = 1, (1, 1e-5): 3.73063 times the shift."""
    data = make_data("squared")
    un = unlearner(data, "squared", False, alpha=1.0, tolerance=1e-4, theta_bound=10.0)
    held = un.release(1.0, 1e-5, against=against).certificate_
    shift = 1e-4 if against == "minimiser" else 2e-4
    assert_allclose(held.sigma, 3.73063 * shift, rtol=3e-6)
    assert held.against == (against or "retraining")
    assert accounting.delta(1.0, held.mu) <= 1e-5
    rounded = un.release(1.0, 1e-2, against=against, mechanism="rounding").certificate_
    assert 1.0 - 1e-15 <= rounded.grid / (sqrt(6) * shift / 1e-2) <= 1.0 + 2.0**-19  # steps are even


def test_noise_of_a_release_has_the_scale_that_it_says():
    data = make_data("squared", n=30, d=500)
    un = unlearner(data, "squared", False, tolerance=1e-3)
    exact = np.ravel(unlearner(data, "squared", False).model.coef_)
    draws = []
    for _ in range(20):
        released = un.release(1.0, 1e-5)
        draws.append((released.coef_ - exact) / released.certificate_.sigma)
    assert stats.kstest(np.ravel(draws), "norm").pvalue > 1e-6
    assert abs(np.std(draws) - 1.0) < 0.04
    assert np.abs(np.corrcoef(draws)[np.triu_indices(20, 1)]).max() < 0.3


@pytest.mark.parametrize("weighted", [False, True])
@each_loss
def test_the_intercept_is_the_best_beside_the_released_coefficients(loss, weighted):
    data = make_data(loss, weighted=weighted, n=5000)
    un = unlearner(data, loss, True, tolerance=1e-2)
    released = un.release(0.1, 1e-5)
    X, y, s = data.rows
    gradient = reference.gradient(
        X, y, theta_of(released), alpha=ALPHA, loss=loss, sample_weight=s, fit_intercept=True
    )
    assert abs(gradient[-1]) <= 1e-9
    assert abs(theta_of(released)[-1] - theta_of(un.model)[-1]) > 1e-8


@each_loss
def test_the_best_intercept_does_not_depend_on_threads(loss):
    """Else bits would tell the two worlds apart."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    data, coef, found = make_data(loss, n=100_000, d=3), np.array([0.5, -1.0, 2.0]), []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            found.append(release.best_intercept([(data.X, data.y, data.s)], coef, get_loss(loss)))
    assert found[0] == found[1]


def test_the_best_intercept_is_found_where_rounding_makes_the_slope_flat():
    """Brent's method then takes more than a hundred steps."""
    root, steps = 1e-6, []

    def d1(y, eta):
        steps.append(eta)
        return np.where((eta < root) & (eta > root - 1e-12), -5e-17, 57.0 * (eta - root))

    rows = [(np.zeros((1, 1)), np.zeros(1), np.ones(1))]
    assert release.best_intercept(rows, np.zeros(1), SimpleNamespace(d1=d1)) == pytest.approx(root, rel=1e-14)
    assert len(steps) > 100


@each_loss
@pytest.mark.parametrize("form", [np.array, np.asfortranarray, sparse.csr_array], ids=["C", "F", "csr"])
def test_rounding_gives_the_numbers_of_retraining(loss, form):
    """E17, bit for bit, intercept included: the two worlds share the offset, nothing else."""
    data = make_data(loss, n=4200, d=8, zeros=True)
    asked = [
        ex.RemoveRows([3, 4100]),
        ex.CorrectValues([7], [1], 2.5),
        ex.CorrectLabels([8], 1.0),
        ex.RevokeFeatures([2]),
        ex.AddRows(form(np.ones((3, 7))), [0.0, 1.0, 1.0]),
        ex.RemoveRows([4200]),
    ]
    un = unlearner(data, loss, True, represent=form, tolerance=1e-7)
    un.apply(asked)
    X, y, s = data.after(*asked).rows
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    again = ex.Unlearner(kind(ALPHA, tol=1e-7).fit(form(X), y, s), form(X), y, s, tolerance=1e-7)
    assert (np.ravel(un.model.coef_) != np.ravel(again.model.coef_)).any()
    same = 0
    for seed in range(20):
        one, other = (u.release(1.0, 1e-3, mechanism="rounding", random_state=seed) for u in (un, again))
        same += np.array_equal(theta_of(one), theta_of(other))
    assert same == 20


def test_rounded_coefficients_lie_on_the_grid():
    un = unlearner(make_data("logistic"), "logistic", False, tolerance=1e-6)
    released = un.release(0.0, 1e-3, mechanism="rounding", random_state=1)
    grid = released.certificate_.grid
    steps = noise.grid_of(Fraction(grid), un.theta_bound, even=True)
    assert steps.width == grid
    middles = noise.round_with_offset(np.zeros(6), steps, 1)  # of the cells around 0
    assert_array_equal(np.fmod(np.ravel(released.coef_) - middles, grid), 0.0)
    away = np.abs(np.ravel(released.coef_) - np.ravel(un.model.coef_)).max()
    assert away <= 0.5 * (grid + steps.step) * (1 + 1e-9)


@each_loss
def test_a_release_settles_where_it_must_and_leaves_the_model_alone(loss):
    data = make_data(loss, n=300)
    un = unlearner(data, loss, True)
    un.apply(ex.RemoveRows(range(10, 40)), method="first_order")
    left = data.after(ex.RemoveRows(range(10, 40)))
    theta = theta_of(un.model)
    assert un.residual() > 1e-2
    released = un.release(1.0, 1e-5)
    assert_array_equal(theta_of(un.model), theta)
    assert released.certificate_.residual_bound <= TOLERANCE
    exact = unlearner(left, loss, True)
    assert_allclose(theta_of(released), theta_of(exact.model), atol=1e-5)


# --- mechanism="objective"


@each_intercept
def test_the_objective_mechanism_adds_nothing(fit_intercept):
    data = make_data("logistic")
    un, b = noisy(data, fit_intercept=fit_intercept)
    un.apply(ex.RemoveRows([3, 4, 5]))
    released = un.release(EPSILON, DELTA, mechanism="objective")
    held = released.certificate_
    assert_array_equal(released.coef_, un.model.coef_)
    assert_allclose(released.intercept_, un.model.intercept_, atol=1e-8)
    assert_allclose(held.tolerance, SIGMA * accounting.guo_mu(EPSILON, DELTA))
    assert (held.sigma, held.mu, held.against, held.void) == (SIGMA, None, "minimiser", None)
    assert any(
        "does not depend on the noise" in text for text, status in held.assumptions if status != "checked"
    )
    assert exact_profile(un.model, data.after(ex.RemoveRows([3, 4, 5])), b) <= held.residual_bound
    half = un.release(EPSILON, DELTA, mechanism="objective", against="retraining").certificate_
    assert half.tolerance == held.tolerance / 2
    with pytest.raises(ex.CertificateError, match="is lost"):
        ex.Unlearner(released, *un.corrected_data()[:2])


def test_the_objective_mechanism_settles_with_the_same_noise():
    data = make_data("logistic", n=300)
    un, b = noisy(data, sigma=1e-3)
    un.apply(ex.RemoveRows(range(10, 40)), method="first_order")
    released = un.release(EPSILON, DELTA, mechanism="objective")
    assert (released.coef_ != un.model.coef_).any()
    left = data.after(ex.RemoveRows(range(10, 40)))
    assert exact_profile(released, left, b) <= released.certificate_.residual_bound
    assert released.certificate_.residual_bound <= released.certificate_.tolerance


def test_seeded_noise_voids_the_objective_mechanism():
    un, _ = noisy(make_data("logistic"), random_state=0)
    assert un.release(EPSILON, DELTA, mechanism="objective").certificate_.void == "noise reproducible"
    assert un.release(EPSILON, DELTA).certificate_.void is None


def test_two_releases_with_the_same_noise_reveal_the_removed_row():
    """Why an objective's noise is good for one release."""
    data = make_data("logistic", n=200)
    un, _ = noisy(data, sigma=1.0, fit_intercept=False, random_state=0)
    first = un.release(EPSILON, DELTA, mechanism="objective")
    un.apply(ex.RemoveRows([17]))
    second = un.release(EPSILON, DELTA, mechanism="objective")
    X, y, _ = data.after(ex.RemoveRows([17])).rows  # all that an attacker knows
    told = [reference.gradient(X, y, np.ravel(model.coef_), alpha=ALPHA) for model in (first, second)]
    revealed, secret = told[1] - told[0], data.X[17]
    alike = revealed @ secret / np.linalg.norm(revealed) / np.linalg.norm(secret)
    assert abs(alike) > 1 - 1e-10
    # fresh output noise of the default mechanism: the difference is noise
    un = unlearner(data, "logistic", False, tolerance=1e-3)
    first = un.release(0.1, DELTA)
    un.apply(ex.RemoveRows([17]))
    second = un.release(0.1, DELTA)
    assert first.certificate_.mu == second.certificate_.mu
    both = accounting.compose([first.certificate_.mu, second.certificate_.mu])
    assert accounting.epsilon(DELTA, both) > 0.1


# --- every refusal


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((-1.0, DELTA), {}, "epsilon must be a finite number >= 0"),
        ((np.inf, DELTA), {}, "epsilon must be a finite number >= 0"),
        ((1.0, 0.0), {}, "delta must be a number above 0 and below 1"),
        ((1.0, 1.0), {}, "delta must be a number above 0 and below 1"),
        ((1.0, np.nan), {}, "delta must be a number above 0 and below 1"),
        (("1", DELTA), {}, "epsilon must be"),
        ((1.0, DELTA), {"mechanism": "laplace"}, "unknown mechanism 'laplace'"),
        ((1.0, DELTA), {"against": "nothing"}, "unknown comparison against='nothing'"),
    ],
)
def test_other_arguments_are_refused(arguments, options, message):
    un = unlearner(make_data("logistic"), "logistic", True)
    with pytest.raises(ValueError, match=message):
        un.release(*arguments, **options)


def test_epsilon_of_the_objective_mechanism_is_below_1():
    un, _ = noisy(make_data("logistic"))
    with pytest.raises(ValueError, match=r'0 < epsilon < 1 only.*mechanism="output"'):
        un.release(1.0, DELTA, mechanism="objective")


@each_loss
def test_the_objective_mechanism_needs_noise(loss):
    un = unlearner(make_data(loss), loss, True)
    with pytest.raises(ex.CertificateError, match="trained with noise"):
        un.release(EPSILON, DELTA, mechanism="objective")


@each_mechanism
def test_a_coefficient_above_its_bound_is_refused(mechanism):
    data = make_data("squared")
    largest = np.abs(unlearner(data, "squared", True).model.coef_).max()
    un = unlearner(data, "squared", True, theta_bound=0.9 * largest)
    with pytest.raises(ex.CertificateError, match="a released coefficient exceeds theta_bound"):
        un.release(1.0, DELTA, mechanism=mechanism)
    unlearner(data, "squared", True, theta_bound=1.1 * largest).release(1.0, DELTA, mechanism=mechanism)


@pytest.mark.filterwarnings("ignore:the tolerance")
@each_mechanism
@each_loss
def test_a_tolerance_below_the_rounding_floor_is_refused(loss, mechanism):
    data = make_data(loss)
    data.X[:, 0] *= 1e6
    un = unlearner(data, loss, True)
    before = inside(un).state
    with pytest.raises(ex.CertificateError, match="below 4 times the rounding floor"):
        un.release(1.0, DELTA, mechanism=mechanism)
    assert inside(un).state is before


def test_a_tolerance_of_zero_is_refused():
    data = make_data("squared")
    X, y, _ = data.rows
    with pytest.warns(match="rounding floor"):
        un = ex.Unlearner(ex.Ridge(ALPHA).fit(X, y), X, y, tolerance=0.0)
    with pytest.raises(ex.CertificateError, match="tolerance of 0"):
        un.release(1.0, DELTA)


def test_an_objective_whose_budget_is_below_the_floor_is_refused():
    data = make_data("logistic")
    un, _ = noisy(data, sigma=1e-13)
    with pytest.raises(ex.CertificateError, match="below 4 times the rounding floor"):
        un.release(EPSILON, DELTA, mechanism="objective")


@each_intercept
@each_loss
def test_without_rows_there_is_no_release(loss, fit_intercept):
    un = unlearner(make_data(loss), loss, fit_intercept).detach()
    with pytest.raises(ex.RowsRequired, match="attach"):
        un.release(1.0, DELTA)


def test_a_model_changed_from_outside_is_not_released():
    un = unlearner(make_data("squared"), "squared", True)
    un.model.coef_ = 2.0 * un.model.coef_
    with pytest.raises(ValueError, match="changed outside of this Unlearner"):
        un.release(1.0, DELTA)


def test_an_adopted_model_is_released_as_one_of_ours():
    from sklearn.linear_model import LogisticRegression

    data = make_data("logistic")
    labels = np.array(["no", "yes"])[data.y.astype(int)]
    un = ex.Unlearner(LogisticRegression(C=2.0).fit(data.X, labels), data.X, labels)
    released = un.release(1.0, DELTA)
    assert isinstance(released, ex.LogisticRegression)
    assert_array_equal(released.classes_, ["no", "yes"])
    assert set(released.predict(data.X)) == {"no", "yes"}


# --- certificates


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
