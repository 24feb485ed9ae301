"""Fewer dense rows than columns, and Ridge after many requests: served without a factor, or by an old one."""

import numpy as np
import pytest
from unlearning import inside

import expunge as ex

N, D = 40, 150
MODELS = {"ridge": ex.Ridge, "logistic": ex.LogisticRegression}
LAYOUTS = {
    "c": np.ascontiguousarray,
    "f": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "far": lambda X: X + np.append(1e6, np.zeros(X.shape[1] - 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_requests_equal_retraining(name, fit_intercept, layout):
    if layout == "far" and not fit_intercept:
        pytest.skip("without an intercept nothing is taken off")
    rng = np.random.default_rng(0)
    X = LAYOUTS[layout](rng.standard_normal((N, D)))
    y = (rng.random(N) < 0.5).astype(float)
    model = MODELS[name](0.5, fit_intercept=fit_intercept)
    un = ex.Unlearner(model.fit(X, y), X, y, tolerance=1e-8)
    for request in (
        ex.RemoveRows([3, 30]),
        ex.AddRows(X[:2] + 0.5, [0.0, 1.0]),
        ex.CorrectValues([5, 6], [1, 2], 0.25),
        ex.CorrectLabels([7], 1.0 - y[7]),
        ex.RevokeFeatures(range(100, 120)),
        ex.RemoveRows([N]),
    ):
        assert un.apply(request).residual <= un.tolerance
        np.testing.assert_allclose(un.model.coef_, un.retrain().coef_, rtol=0, atol=1e-7)
    assert un.residual() <= un.tolerance


def test_a_measured_gradient_takes_the_place_of_what_requests_have_rounded():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((3000, 8))
    y = X[:, 0] + rng.standard_normal(3000)
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y, tolerance=1e-6)
    for row in range(2000):
        update = un.apply(ex.RemoveRows(row))
    assert update.since_anchor == 2000
    summed = inside(un).state.statistics.gradient_error
    update = un.apply(ex.RemoveRows(2000), method="exact")
    assert update.since_anchor == 0
    assert inside(un).state.statistics.gradient_error < summed / 2
    step = un.apply(ex.RemoveRows(2001))
    assert step.passes == 0
    assert un.residual() <= step.residual_bound
    np.testing.assert_allclose(un.model.coef_, un.retrain().coef_, rtol=0, atol=1e-9)


def test_rows_that_come_back_are_measured():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((400, 5))
    y = X[:, 0] + rng.standard_normal(400)
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y, tolerance=1e-6).detach()
    for row in range(300):
        un.apply(ex.Edit(before=(X[row : row + 1], y[row : row + 1])))
    summed = inside(un).state.statistics.gradient_error
    un.attach(X[300:], y[300:])
    assert inside(un).state.statistics.gradient_error < summed / 2
    np.testing.assert_allclose(un.model.coef_, un.retrain().coef_, rtol=0, atol=1e-9)
