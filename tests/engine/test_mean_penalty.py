"""scikit-learn's models whose loss is a mean: their penalty moves with the weights of the rows (E35)."""

import re
import warnings

import numpy as np
import pytest
from glm import KINDS, Rows, data_of, requests_of
from numpy.testing import assert_allclose, assert_array_equal
from problems import INTERCEPT, WEIGHTED, in_pairs
from sklearn.linear_model import GammaRegressor, PoissonRegressor, TweedieRegressor
from unlearning import inside, theta_of

import expunge as ex
from expunge import kernels

ALPHA = 0.03
MODELS = {
    "poisson": lambda **parameters: PoissonRegressor(alpha=ALPHA, **parameters),
    "tweedie(1.5)": lambda **parameters: TweedieRegressor(power=1.5, alpha=ALPHA, **parameters),
    "tweedie(2.0)": lambda **parameters: GammaRegressor(alpha=ALPHA, **parameters),
    "squared": lambda **parameters: TweedieRegressor(power=0, alpha=ALPHA, **parameters),
}
each_model = pytest.mark.parametrize("loss", MODELS)
TIGHT = {"tol": 1e-13, "max_iter": 10_000}


def rows_of(loss, *, weighted=False, seed=0):
    X, y, s = data_of("poisson" if loss == "squared" else loss, weighted=weighted, seed=seed)
    return X, y if loss != "squared" else X[:, 0] + 0.3 * np.cos(7.0 * y), s


def refit(loss, X, y, s, fit_intercept):
    solver = "newton-cholesky"
    return MODELS[loss](fit_intercept=fit_intercept, solver=solver, **TIGHT).fit(X, y, s)


def theta(model):
    return np.append(model.coef_, model.intercept_)


@in_pairs(
    loss=list(MODELS),
    kind=[*KINDS, "all"],
    method={"auto": {}, "exact": {"method": "exact"}, "newton": {"method": "second_order"}},
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
)
def test_every_request_equals_the_refit(loss, kind, method, fit_intercept, weighted):
    X, y, s = rows_of(loss, weighted=weighted)
    model = MODELS[loss](fit_intercept=fit_intercept, max_iter=1000).fit(X, y, s)
    un, rows = ex.Unlearner(model, X, y, s), Rows(X, y, s)
    requests = requests_of("poisson" if loss == "squared" else loss, 5, weighted)
    for request in requests.values() if kind == "all" else [requests[kind]]:
        update = un.apply(request, **method)
        X, y, s = rows.granted(request).now
        best = refit(loss, X, y, s, fit_intercept)
        weight = len(y) if s is None else s.sum()
        assert inside(un).problem.alpha == pytest.approx(ALPHA * weight, rel=1e-14)
        options = {"alpha": ALPHA * weight, "loss": loss, "sample_weight": s, "fit_intercept": fit_intercept}
        H = kernels.hessian(X, theta_of(model), y=y, **options)
        gap = theta_of(model) - theta_of(best)
        spread = 1.0
        if loss == "squared":
            squares = (y - best.predict(X)) ** 2
            spread = np.sqrt(np.average(squares, weights=s))
        away = float(np.sqrt(gap @ H @ gap)) / spread
        assert away <= update.distance * (1.0 + 1e-3) + 1e-9
        if method.get("method") == "exact" or loss == "squared":
            assert_allclose(theta(model), theta(best), rtol=0, atol=1e-9)
        if not method:
            assert update.distance <= un.within


@each_model
def test_the_penalty_of_before_would_be_seen(loss):
    X, y, _ = rows_of(loss)
    gone = np.arange(30)
    rest = np.delete(np.arange(len(y)), gone)
    best = refit(loss, X[rest], y[rest], None, True)
    un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
    un.apply(ex.RemoveRows(gone), method="exact")
    assert_allclose(theta(un.model), theta(best), rtol=0, atol=1e-9)
    name = "Ridge" if loss == "squared" else "TweedieRegressor"
    power = {} if loss == "squared" else {"power": {"poisson": 1, "tweedie(1.5)": 1.5}.get(loss, 2)}
    old = getattr(ex, name)(alpha=ALPHA * len(y), **power).fit(X[rest], y[rest])
    assert np.abs(theta(old) - theta(best)).max() > 1e-3
    fresh = un.retrain()
    assert fresh.alpha == ALPHA * len(rest)
    assert_allclose(theta(fresh), theta(best), rtol=0, atol=1e-5)


@each_model
def test_many_requests_one_after_the_other(loss):
    X, y, s = rows_of(loss, weighted=True)
    un = ex.Unlearner(refit(loss, X, y, s, True), X, y, s)
    updates = un.apply_each([ex.RemoveRows([i]) for i in range(20)])
    best = refit(loss, X[20:], y[20:], s[20:], True)
    H = kernels.hessian(
        X[20:],
        theta_of(best),
        y=y[20:],
        alpha=ALPHA * s[20:].sum(),
        loss=loss,
        sample_weight=s[20:],
        fit_intercept=True,
    )
    gap = theta(un.model) - theta(best)
    away = np.sqrt(gap @ H @ gap)
    if loss == "squared":
        away /= np.sqrt(np.average((y[20:] - best.predict(X[20:])) ** 2, weights=s[20:]))
    assert away <= updates.distance[-1] * 1.001 + 1e-9 <= un.within * 1.01


@each_model
def test_first_and_original_steps_take_the_penalty_of_now(loss):
    X, y, _ = rows_of(loss)
    for options in ({"method": "first_order"}, {"method": "second_order", "hessian": "original"}):
        un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
        update = un.apply(ex.RemoveRows([2, 5]), **options)
        rest = np.delete(np.arange(len(y)), [2, 5])
        g = kernels.gradient(
            X[rest], y[rest], theta_of(un.model), alpha=ALPHA * len(rest), loss=loss, fit_intercept=True
        )
        assert update.residual == pytest.approx(np.linalg.norm(g), rel=1e-6)


@each_model
def test_a_failed_request_leaves_the_penalty_as_it_was(loss):
    X, y, _ = rows_of(loss)
    un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
    before, problem = theta(un.model), inside(un).problem
    with pytest.raises(ValueError, match="removed before"):
        un.apply([ex.RemoveRows([1]), ex.CorrectLabels([1], [2.0])])
    assert inside(un).problem is problem
    with pytest.raises(ex.ConvergenceError):
        un.apply(ex.RemoveRows([1]), method="first_order", tau=1e300)
    assert inside(un).problem is problem
    assert_array_equal(theta(un.model), before)
    assert un.apply(ex.RemoveRows([1])).distance <= un.within


@each_model
def test_what_has_to_do_without_rows_is_refused_with_the_fix(loss, tmp_path):
    X, y, _ = rows_of(loss)
    un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
    kind = inside(un).problem.kind
    for refused in (
        un.detach,
        lambda: un.save(tmp_path / "model"),
        lambda: un.save(tmp_path / "model", include_rows=True),
    ):
        with pytest.raises(ValueError, match=rf"fit {kind}\(alpha=3.6.*\) of expunge"):
            refused()


@each_model
def test_a_release_rests_on_the_penalty_of_now(loss):
    X, y, _ = rows_of(loss)
    un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
    un.apply(ex.RemoveRows([3, 4]))
    released = un.release(1.0, 1e-5)
    assert released.certificate_.strong_convexity == ALPHA * (len(y) - 2)
    best = refit(loss, np.delete(X, [3, 4], 0), np.delete(y, [3, 4]), None, True)
    assert_allclose(theta(released), theta(best), rtol=0, atol=1e-4)


@each_model
def test_a_receipt_tells_of_the_mean(loss):
    X, y, _ = rows_of(loss)
    un = ex.Unlearner(refit(loss, X, y, None, True), X, y)
    receipt = un.apply(ex.RemoveRows([3])).receipt()
    assert ex.receipts.state_hash(un.model) in receipt
    assert re.search(r'"mean": ?true', receipt)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (TweedieRegressor(power=3), "power=3 is not supported.*not convex"),
        (TweedieRegressor(power=-1, link="log"), "power=-1 is not supported"),
        (TweedieRegressor(power=1.5, link="identity"), "link='log'"),
        (TweedieRegressor(power=0, link="log"), "refit with link='identity'"),
        (PoissonRegressor(alpha=0), "alpha=0"),
    ],
)
def test_what_is_not_convex_or_has_no_minimiser_is_refused(model, reason):
    X, y, _ = rows_of("tweedie(2.0)")
    if getattr(model, "link", "") == "identity":
        model.fit_intercept, X = False, np.abs(X)
    model.set_params(max_iter=1, solver="lbfgs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration
        model.fit(X, y)
    with pytest.raises(ValueError, match=reason):
        ex.Unlearner(model, X, y)
