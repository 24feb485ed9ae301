"""On linear modules the paper's two updates are those of the native core."""

import numpy as np
import pytest
from networks import F, nn, torch
from numpy.testing import assert_allclose

import expunge as ex
from expunge.torch import RevokeFeatures, Unlearner

N, D, ALPHA = 120, 6, 1.5
LOSSES = {
    "logistic": lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y, reduction="none"),
    "squared": lambda out, y: 0.5 * (out[:, 0] - y) ** 2,
}


def made(loss, intercept):
    """A fitted model, the module that says the same, and the data."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((N, D))
    y = X @ rng.standard_normal(D) + 0.5 * rng.standard_normal(N) + 0.3
    y = (y > 0).astype(float) if loss == "logistic" else y
    kind = ex.LogisticRegression if loss == "logistic" else ex.Ridge
    model = kind(alpha=ALPHA, fit_intercept=intercept).fit(X, y)
    module = nn.Linear(D, 1, bias=intercept, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.reshape(model.coef_, (1, D))))
        if intercept:
            module.bias.copy_(torch.tensor(np.reshape(model.intercept_, 1)))
    return model, module, X, y


def requests(y, loss):
    """Of the native core and of networks."""
    labels = 1.0 - y[:4] if loss == "logistic" else y[:4] + 2.0
    return {
        "labels": (ex.CorrectLabels(range(4), labels), ex.CorrectLabels(range(4), labels)),
        "rows": (ex.RemoveRows([5, 9, 70]), ex.RemoveRows([5, 9, 70])),
        "columns": (ex.RevokeFeatures([1, 4]), RevokeFeatures([1, 4], fill=0.0)),
        "values": (ex.CorrectValues([8, 2], [0, 3], [[1.0, -2.0], [0.5, 3.0]]),) * 2,
        "all": (
            [ex.RemoveRows([5]), ex.CorrectLabels([0], labels[:1]), ex.RevokeFeatures([1])],
            [ex.RemoveRows([5]), ex.CorrectLabels([0], labels[:1]), RevokeFeatures([1])],
        ),
    }


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["labels", "rows", "columns", "values", "all"])
@pytest.mark.parametrize("method", ["first_order", "second_order"])
def test_updates_of_a_linear_module_are_the_native_ones(method, kind, loss, intercept):
    model, module, X, y = made(loss, intercept)
    native, ours = requests(y, loss)[kind]
    un = Unlearner(module, LOSSES[loss], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    update = un.apply(ours, method=method)
    options = {"tau": update.tau} if method == "first_order" else {}
    ex.Unlearner(model, X, y).apply(native, method=method, **options)
    revoked = {"columns": [1, 4], "all": [1]}.get(kind, [])
    theta = np.delete(module.weight.detach().numpy().ravel(), revoked)
    expected = np.ravel(model.coef_)
    if intercept:
        theta, expected = np.append(theta, module.bias.item()), np.append(expected, model.intercept_)
    assert np.abs(theta - expected).max() <= 1e-10 * np.abs(expected).max()
    assert update.objective == "J"
    assert update.steps == 1
    if method == "second_order":
        assert update.damping == 0.0
        assert update.cg_residual <= 1e-12
        # the penalty moves weights of columns that tell nothing to 0, where the native core drops them
        assert_allclose(module.weight.detach().numpy().ravel()[revoked], 0.0, atol=1e-12)


@pytest.mark.parametrize("method", ["first_order", "second_order"])
def test_the_gradient_is_that_of_all_corrected_rows_and_not_of_the_touched_ones(method):
    """A module that was not trained to the end moves as the native core from the same theta."""
    _, module, X, y = made("logistic", True)
    with torch.no_grad():
        module.weight += 0.2
    un = Unlearner(module, LOSSES["logistic"], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    theta = np.append(module.weight.detach().numpy().ravel(), module.bias.item())
    update = un.apply(ex.RemoveRows([5]), method=method)
    kept = np.delete(np.c_[X, np.ones(N)], 5, axis=0), np.delete(y, 5)
    p = 1.0 / (1.0 + np.exp(-kept[0] @ theta))
    penalty = ALPHA * np.append(np.ones(D), 0.0)
    g = kept[0].T @ (p - kept[1]) + penalty * theta
    H = (kept[0].T * (p * (1.0 - p))) @ kept[0] + np.diag(penalty)
    expected = theta - (update.tau * g if method == "first_order" else np.linalg.solve(H, g))
    found = np.append(module.weight.detach().numpy().ravel(), module.bias.item())
    assert_allclose(found, expected, rtol=1e-10)
    assert_allclose(update.gradient_before, np.linalg.norm(g), rtol=1e-10)


def test_lissa_and_the_hessian_go_to_the_same_step():
    found = {}
    for options in ({}, {"solver": "lissa", "iterations": 3000}, {"curvature": "hessian"}):
        _, module, X, y = made("logistic", True)
        un = Unlearner(module, LOSSES["logistic"], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
        un.apply(ex.RemoveRows([5, 9]), method="second_order", **options)
        found[str(options)] = module.weight.detach().numpy()
    first, *others = found.values()
    for other in others:
        assert_allclose(other, first, rtol=1e-9)


def test_the_step_length_of_first_order_is_about_the_best_one():
    _, module, X, y = made("squared", True)
    un = Unlearner(module, LOSSES["squared"], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    update = un.apply(ex.CorrectLabels(range(4), 5.0), method="first_order")
    values = {}
    for factor in (0.5, 0.9, 1.0, 1.1, 1.5):
        _, other, X, y = made("squared", True)
        tried = Unlearner(other, LOSSES["squared"], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
        values[factor] = tried.apply(
            ex.CorrectLabels(range(4), 5.0), method="first_order", tau=factor * update.tau
        ).objective_after
    assert min(values, key=values.get) == 1.0  # J is a parabola along the step
    assert values[1.0] == update.objective_after


def test_a_second_order_update_of_a_squared_loss_is_retraining():
    _, module, X, y = made("squared", True)
    un = Unlearner(module, LOSSES["squared"], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    update = un.apply(ex.RemoveRows(range(40)), method="second_order")
    retrained = ex.Ridge(alpha=ALPHA).fit(X[40:], y[40:])
    assert_allclose(module.weight.detach().numpy().ravel(), retrained.coef_, rtol=1e-10)
    assert update.gradient_after <= 1e-9 * update.gradient_before
