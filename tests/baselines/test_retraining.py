"""Retraining ends where a fit on the corrected data does, whichever way it goes there."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from strategies import CASES, COLUMN, FLIPPED, ROWS, fresh, minimiser
from unlearning import ALPHA, make_data, theta_of

import expunge as ex
from expunge import _core
from expunge.baselines import Retraining

SKLEARN = {"logistic": ("lbfgs", "newton-cholesky", "newton-cg"), "squared": ("cholesky", "svd")}


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("request_", [ROWS, FLIPPED, COLUMN], ids=["rows", "labels", "column"])
def test_warm_cold_and_every_solver_end_at_one_minimum(loss, request_):
    for solver in ("expunge", *SKLEARN[loss]):
        for warm in (False, True):
            if warm and solver in SKLEARN["squared"]:
                continue
            strategy, data = fresh("cold", loss=loss, solver=solver, warm=warm, tolerance=1e-6)
            strategy.apply(request_)
            expected = minimiser(data.after(request_), loss)
            assert_allclose(theta_of(strategy.model), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("solver", ["expunge", "lbfgs", "newton-cholesky"])
def test_what_is_asked_for_is_measured(solver):
    strategy, _ = fresh("cold", solver=solver, within=1e-4)
    update = strategy.apply(ROWS)
    assert update.distance <= 1e-4
    assert strategy.distance() <= 1e-4
    strategy, _ = fresh("cold", solver=solver, tolerance=1e-5)
    assert strategy.apply(ROWS).residual <= 1e-5


def test_a_warm_start_is_the_old_theta_and_a_cold_one_is_0(monkeypatch):
    starts, minimize = [], _core.minimize
    for warm in (True, False):
        strategy, _ = fresh("cold", warm=warm)
        old = theta_of(strategy.model)

        def spy(J, theta, *more, **how):
            starts.append(theta)
            return minimize(J, theta, *more, **how)

        with monkeypatch.context() as patch:
            patch.setattr(_core, "minimize", spy)
            strategy.apply(COLUMN)
        kept = np.delete(old, 2)
        assert_allclose(starts.pop(), kept if warm else np.zeros_like(kept), rtol=0, atol=0)


@pytest.mark.parametrize("solver", SKLEARN["logistic"])
def test_scikit_learn_starts_at_the_old_theta_too(solver, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    seen, fit = [], LogisticRegression.fit

    def spy(self, X, y, s=None):
        seen.append((self.warm_start, getattr(self, "coef_", None)))
        return fit(self, X, y, s)

    strategy, _ = fresh("warm", solver=solver)
    old = strategy.model.coef_.copy()
    monkeypatch.setattr(LogisticRegression, "fit", spy)
    strategy.apply(ROWS)
    assert seen[0][0] is True
    assert_allclose(seen[0][1], old, rtol=0, atol=0)


def test_warm_training_takes_fewer_passes():
    data = make_data("logistic", n=2000, d=20)
    passes = {}
    for name in ("warm", "cold"):
        strategy = CASES[name].of(*data.rows[:2])
        passes[name] = strategy.apply(ROWS).passes
    assert passes["warm"] < passes["cold"]


def test_a_cold_fit_counts_at_least_its_gradients():
    strategy, _ = fresh("cold")
    update = strategy.apply(ROWS)
    fit = ex.LogisticRegression(ALPHA, tol=update.residual).fit(*strategy.corrected_data())
    assert update.passes > fit.n_iter_


def test_bad_parameters():
    X, y, _ = make_data("logistic").rows
    model = ex.LogisticRegression(ALPHA).fit(X, y)
    for wrong, message in (
        ({"solver": "liblinear"}, "unknown solver 'liblinear': choose expunge or, of scikit-learn, lbfgs"),
        ({"warm": "no"}, "warm must be True or False"),
        ({"within": 0.0}, "within must be"),
        ({"tolerance": -1.0}, "tolerance must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Retraining(model, X, y, **wrong)
    ridge = ex.Ridge(ALPHA).fit(X, y)
    with pytest.raises(ValueError, match="no warm start"):
        Retraining(ridge, X, y, warm=True, solver="cholesky")
    noisy = ex.LogisticRegression(ALPHA, noise=1.0, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="noise in the objective"):
        Retraining(noisy, X, y, solver="lbfgs")
    update = Retraining(noisy, X, y, warm=True).apply(ROWS)  # ours keeps the same noise
    assert update.distance <= 0.01
