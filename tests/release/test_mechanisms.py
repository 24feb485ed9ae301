"""Noise in the objective: fits, requests and files with it, and releases by it alone."""

import copy
import io
import logging
import pickle
from dataclasses import replace
from fractions import Fraction
from math import sqrt

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from releasing import SIGMA, exact_profile, noisy, requests, residual_with
from scipy import sparse, stats
from sklearn.base import clone
from unlearning import ALPHA, TOLERANCE, each_intercept, each_method, inside, make_data, theta_of, unlearner

import expunge as ex
from expunge import accounting, noise, reference, release
from expunge.noise import Noise
from expunge.problem import Problem

EPSILON, DELTA = 0.5, 1e-5


# noise


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


# requests, with noise


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
    assert 0.0 < error <= found.bound <= 1e3 * error
    assert found.floor > 0.0


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


# files


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


# mechanism="objective"


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
