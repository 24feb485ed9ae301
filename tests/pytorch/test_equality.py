"""On linear modules the paper's two updates are those of the native core."""

import numpy as np
import pytest
from networks import F, nn, torch
from numpy.testing import assert_allclose

import expunge as ex
from expunge.errors import ConvergenceError
from expunge.torch import RevokeFeatures, Unlearner

N, D, ALPHA = 120, 6, 1.5
LOSSES = {
    "logistic": lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y, reduction="none"),
    "squared": lambda out, y: 0.5 * (out[:, 0] - y) ** 2,
}


def made(loss, intercept, n=N, d=D, decades=0.0):
    """A fitted model, the module that says the same, and the data, whose columns have scales 10^±decades."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, d))
    y = X @ rng.standard_normal(d) + 0.5 * rng.standard_normal(n) + 0.3
    X *= 10.0 ** rng.uniform(-decades, decades, d)
    y = (y > 0).astype(float) if loss == "logistic" else y
    kind = ex.LogisticRegression if loss == "logistic" else ex.Ridge
    model = kind(alpha=ALPHA, fit_intercept=intercept).fit(X, y)
    module = nn.Linear(d, 1, bias=intercept, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.reshape(model.coef_, (1, d))))
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


@pytest.mark.filterwarnings("ignore:the minimum is not proven")  # with such scales
@pytest.mark.parametrize(("n", "d", "decades"), [(120, 6, 3.0), (900, 300, 3.0), (900, 300, 0.0)])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["labels", "columns"])
@pytest.mark.parametrize("method", ["first_order", "second_order"])
def test_neither_scales_nor_the_number_of_columns_matter(method, kind, loss, n, d, decades):
    """Beside the largest coefficient, and beside each one; the whole step is taken where J falls by it."""
    model, module, X, y = made(loss, True, n, d, decades)
    native, ours = requests(y, loss)[kind]
    un = Unlearner(module, LOSSES[loss], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    update = un.apply(ours, method=method)
    if "halvings" in update.why:  # the native core looks at no J
        assert (kind, loss, decades) == ("labels", "logistic", 0.0)
        return
    ex.Unlearner(model, X, y).apply(native, method=method, **({"tau": update.tau} if update.tau else {}))
    kept = np.delete(np.arange(d), [1, 4] if kind == "columns" else [])
    theta = module.weight.detach().numpy().ravel()[kept]
    assert np.abs(theta - model.coef_.ravel()).max() <= 1e-10 * np.abs(model.coef_).max()
    outputs, expected = X[:, kept] @ theta + module.bias.item(), X[:, kept] @ model.coef_.ravel()
    expected += float(np.ravel(model.intercept_)[0])
    assert np.abs(outputs - expected).max() <= 1e-10 * np.abs(expected).max()


def test_h_without_full_rank_is_solved_with_where_it_has_curvature():
    """Classes of a softmax may all be shifted by the same, of which the loss says nothing."""
    X = torch.randn(80, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = X[:, :3].argmax(1)
    torch.manual_seed(0)
    module = nn.Linear(4, 3, dtype=torch.float64)
    un = Unlearner(module, lambda out, y: F.cross_entropy(out, y, reduction="none"), X, y, alpha=1.0)
    update = un.apply(ex.RemoveRows([3]), method="second_order", steps=8)
    assert update.gradient_after <= 1e-7 * update.gradient_before  # nearer, J falls by what no number shows
    assert float(module.weight.detach().sum(0).abs().max()) <= 1e-6  # by the penalty
    assert update.damping == 0.0


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("method", ["first_order", "second_order"])
def test_a_fall_that_the_rounding_of_j_hides_is_found_from_gradients(method, offset):
    """A constant in the loss changes no step, whatever of J it leaves to be seen in float32."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, D))
    y = (X @ rng.standard_normal(D) + rng.standard_normal(4000) > 0.0).astype(float)
    model = ex.LogisticRegression(alpha=ALPHA).fit(X, y)
    found = {}
    for dtype in (torch.float64, torch.float32):
        module = nn.Linear(D, 1, dtype=dtype)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(np.reshape(model.coef_, (1, D))))
            module.bias.copy_(torch.tensor(np.reshape(model.intercept_, 1)))

        def loss(outputs, y, more=offset if dtype == torch.float32 else 0.0):
            return LOSSES["logistic"](outputs, y) + more

        un = Unlearner(module, loss, torch.tensor(X, dtype=dtype), torch.tensor(y, dtype=dtype), alpha=ALPHA)
        before = module.weight.detach().numpy().ravel().copy()
        update = un.apply(ex.CorrectLabels([0], 1.0 - y[0]), method=method)
        assert update.objective_after < update.objective_before
        assert ("from the gradients" in update.why) == (dtype == torch.float32 and offset > 0.0)
        fall = update.objective_before - update.objective_after
        found[dtype] = module.weight.detach().numpy().ravel() - before, fall
    (step, fall), (coarse, seen) = found.values()
    assert 1e-4 <= fall <= 0.1
    assert abs(seen - fall) <= 0.02 * fall
    assert_allclose(coarse, step, rtol=0.0, atol=0.02 * np.abs(step).max())


def test_where_nothing_can_be_gained_the_update_says_so():
    X = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    un = Unlearner(nn.Linear(2, 1, dtype=torch.float64), LOSSES["squared"], X, X[:, 0].clone(), alpha=ALPHA)
    un.apply(ex.RemoveRows([1]), method="second_order", steps=3)
    update = un.apply(ex.CorrectLabels([2], X[2, 0]), method="second_order")  # what it was
    assert update.steps == 0
    assert "the module stays as it is" in update.why


@pytest.mark.parametrize(("loss", "size"), [("logistic", 1e-4), ("squared", 3e-6)])
@pytest.mark.parametrize("method", ["first_order", "second_order"])
def test_a_fall_below_the_digits_of_j_is_taken_all_the_same(method, loss, size):
    """Of 2,000 rows one value was off by a little: J in float64 shows nothing of it."""
    model, module, X, y = made(loss, True, n=2000)
    un = Unlearner(module, LOSSES[loss], torch.from_numpy(X), torch.from_numpy(y), alpha=ALPHA)
    request = ex.CorrectValues([0], [0], X[0, 0] * (1.0 + size))
    update = un.apply(request, method=method)
    ex.Unlearner(model, X, y).apply(request, method=method, **({"tau": update.tau} if update.tau else {}))
    theta = np.append(module.weight.detach().numpy().ravel(), module.bias.item())
    expected = np.append(model.coef_, model.intercept_)
    assert np.abs(theta - expected).max() <= 1e-10 * np.abs(expected).max()
    assert update.steps == 1


PIECEWISE = {
    "l1": lambda out, y: (out[:, 0] - y).abs(),
    "hinge": lambda out, y: (1.0 - out[:, 0] * y.sign()).clamp(min=0.0),
    "pinball": lambda out, y: torch.maximum(0.9 * (y - out[:, 0]), 0.1 * (out[:, 0] - y)),
}


def of_piecewise(dtype=torch.float64):
    """A module, whose gradient is not small, and its data."""
    torch.manual_seed(0)
    X = torch.randn(100, 3, dtype=dtype)
    return nn.Linear(3, 1, dtype=dtype), X, 5.0 * X[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"curvature": "hessian"}, {"solver": "lissa"}])
@pytest.mark.parametrize("loss", PIECEWISE)
def test_a_loss_without_curvature_has_no_second_order_step_and_is_no_success(loss, options, dtype):
    module, X, y = of_piecewise(dtype)
    before = torch.cat([value.detach().flatten().clone() for value in module.parameters()])
    un = Unlearner(module, PIECEWISE[loss], X, y)
    with pytest.raises(ConvergenceError, match="no curvature along its gradient"):
        un.apply(ex.RemoveRows([0]), method="second_order", **options)
    assert torch.equal(before, torch.cat([value.detach().flatten() for value in module.parameters()]))
    assert len(un) == 100
    un.apply(ex.RemoveRows([0]), method="first_order")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_derivatives_that_are_nan_are_an_error(dtype):
    module, X, y = of_piecewise(dtype)
    with torch.no_grad():
        y[5] = module(X)[5, 0]  # where |r|^1.5 has value and slope 0
    un = Unlearner(module, lambda out, y: (out[:, 0] - y).abs().pow(1.5), X, y)
    with pytest.raises(ConvergenceError, match="second derivatives"):
        un.apply(ex.RemoveRows([0]), method="second_order")


@pytest.mark.parametrize("scale", [30.0, 100.0, 300.0])
def test_a_trial_that_is_astronomical_says_nothing_of_the_best_step(scale):
    """A step of length 1 makes some of these exponentials 10^100."""
    X = scale * torch.randn(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(module.weight, 0.005)
    un = Unlearner(module, lambda out, y: out[:, 0].exp() - y * out[:, 0], X, torch.ones_like(X[:, 0]))
    update = un.apply(ex.RemoveRows([0]), method="first_order")
    assert update.gradient_after <= 0.3 * update.gradient_before
    assert update.objective_before - update.objective_after >= 0.5


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
