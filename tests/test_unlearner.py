"""Unlearning equals retraining, on corrected data built here by NumPy indexing and fitted by `retrain`."""

import copy
import itertools
import tracemalloc
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from problems import adult, float32_values, retrain

import expunge as ex
from expunge import reference
from expunge.losses import LOSSES

pytestmark = pytest.mark.isa

ALPHA = 0.5
TOLERANCE = 1e-8  # the default of Unlearner
METHODS = {
    "exact": {"method": "exact"},
    "corrected": {"method": "second_order"},
    "original": {"method": "second_order", "hessian": "original"},
    "first_order": {"method": "first_order"},
}

each_loss = pytest.mark.parametrize("loss", LOSSES)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])
each_weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@dataclass(frozen=True)
class Data:
    """Every row and column ever handed over, and which of them are still in the data."""

    X: np.ndarray
    y: np.ndarray
    s: np.ndarray
    live: np.ndarray
    kept: np.ndarray
    weighted: bool

    def after(self, *requests):
        """The data with these requests granted."""
        data = copy.deepcopy(self)
        for request in requests:
            data = data.granted(request)
        return data

    def granted(self, request):
        match request:
            case ex.RemoveRows():
                self.live[request.rows] = False
            case ex.CorrectLabels():
                self.y[request.rows] = request.labels
            case ex.CorrectValues():
                self.X[np.ix_(np.arange(len(self.X))[request.rows], request.columns)] = request.values
            case ex.RevokeFeatures():
                self.kept[request.columns] = False
            case ex.AddRows():
                X = np.zeros((len(request.X), self.X.shape[1]))
                X[:, self.kept] = request.X
                s = np.ones(len(X)) if request.sample_weight is None else request.sample_weight
                return Data(
                    np.vstack([self.X, X]),
                    np.append(self.y, request.y),
                    np.append(self.s, s),
                    np.append(self.live, np.ones(len(X), dtype=bool)),
                    self.kept,
                    self.weighted or request.sample_weight is not None,
                )
        return self

    @property
    def rows(self):
        """X (n, d), y (n,), sample_weight (n,) or None."""
        s = self.s[self.live] if self.weighted else None
        return self.X[self.live][:, self.kept], self.y[self.live], s


def make_data(loss, *, weighted=False, n=60, d=6, seed=0):
    rng = np.random.default_rng([seed, n, d, len(loss)])
    X = float32_values(rng.standard_normal((n, d)))
    eta = X @ rng.standard_normal(d) + 0.5
    if loss == "squared":
        y = float32_values(eta + 0.5 * rng.standard_normal(n))
    else:
        y = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
        y[:2] = 0.0, 1.0
    s = np.ones(n)
    if weighted:
        s = float32_values(rng.uniform(0.5, 2.0, n))
        s[5::13] = 0.0
    return Data(X, y, s, np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted)


def unlearner(data, loss, fit_intercept, *, alpha=ALPHA, tolerance=TOLERANCE, dtype=np.float64, order="C"):
    X, y, s = data.rows
    X = np.array(X, dtype=dtype, order=order)
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    model = kind(alpha, fit_intercept=fit_intercept, tol=tolerance).fit(X, y, s)
    return ex.Unlearner(model, X, y, s, tolerance=tolerance)


def theta_of(model):
    coef = np.ravel(model.coef_)
    return np.append(coef, model.intercept_) if model.fit_intercept else coef.copy()


def surviving(before, after, fit_intercept):
    """Which coordinates of theta on `before` are still there on `after`."""
    return np.append(after.kept[before.kept], np.full(int(fit_intercept), True))


def objective_of(un, s):
    """The keyword arguments of the reference for the model's objective with these weights."""
    model = un.model
    loss = "logistic" if hasattr(model, "classes_") else "squared"
    fit_intercept = bool(model.fit_intercept)
    return {"alpha": model.alpha, "loss": loss, "sample_weight": s, "fit_intercept": fit_intercept}


def gradient_and_floor(un, data, theta):
    """The gradient on `data` at theta by the reference, and a bound on its rounding error (E19)."""
    X, y, s = data.rows
    objective = objective_of(un, s)
    return (
        reference.gradient(X, y, theta, **objective),
        reference.rounding_floor(X, y, theta, **objective),
    )


def profile_residual(un, data, theta):
    """Norm of the gradient of min over the intercept of J, which is alpha-strongly convex; and the floor."""
    g, floor = gradient_and_floor(un, data, theta)
    if not un.model.fit_intercept:
        return np.linalg.norm(g), floor
    longest = np.linalg.norm(data.rows[0], axis=1).max()
    return np.linalg.norm(g[:-1]) + longest * abs(g[-1]), (1.0 + longest) * floor


def assert_retrained(un, data):
    """The model is the minimiser on `data`, as `retrain` finds it."""
    theta, d = theta_of(un.model), data.kept.sum()
    X, y, s = data.rows
    retrained = retrain(X, y, **objective_of(un, s))
    r, floor = np.add(profile_residual(un, data, theta), profile_residual(un, data, retrained))
    g, gradient_floor = gradient_and_floor(un, data, theta)
    assert theta.shape == retrained.shape
    assert np.linalg.norm(g) <= un.tolerance + gradient_floor
    if hasattr(un.model, "classes_"):
        # Strong convexity: each of the two points is within its own residual / alpha of the minimiser.
        assert np.linalg.norm((theta - retrained)[:d]) <= (r + floor) / un.model.alpha
    else:
        assert np.linalg.norm(theta - retrained) <= 1e-10 * np.linalg.norm(retrained)


def requests_for(loss, d=6, seed=9):
    """Every kind of request, and lists of them, for `make_data(loss)` of 60 rows and d columns."""
    rng = np.random.default_rng(seed)

    def targets(m):
        return (
            float32_values(rng.standard_normal(m))
            if loss == "squared"
            else rng.integers(0, 2, m).astype(float)
        )

    def values(*shape):
        return float32_values(rng.standard_normal(shape))

    mask = np.zeros(60, dtype=bool)
    mask[[4, 40]] = True
    return {
        "remove_rows": [ex.RemoveRows([3, 7, 20])],
        "remove_by_mask": [ex.RemoveRows(mask)],
        "remove_many_rows": [ex.RemoveRows(slice(10, 40))],
        "add_rows": [ex.AddRows(values(4, d), targets(4))],
        "add_weighted_rows": [ex.AddRows(values(4, d), targets(4), np.array([0.5, 2.0, 0.0, 1.0]))],
        "correct_labels": [ex.CorrectLabels([2, 30, 59], targets(3))],
        "correct_labels_to_one_value": [ex.CorrectLabels(np.arange(20, 50), 1.0)],
        "correct_values": [ex.CorrectValues([1, 8, 50], [0, 4], values(3, 2))],
        "correct_values_to_one_row": [ex.CorrectValues(slice(0, 20), [1, 5], values(2))],
        "correct_a_column": [ex.CorrectValues(slice(None), [2], 0.25)],
        "revoke_feature": [ex.RevokeFeatures([2])],
        "revoke_features": [ex.RevokeFeatures([5, 0, 3])],
        "mixed_rows": [
            ex.RemoveRows([0, 11]),
            ex.CorrectLabels([12, 13], targets(2)),
            ex.CorrectValues([13, 14], [3], values(2, 1)),
            ex.AddRows(values(3, d), targets(3)),
            ex.CorrectValues([13, 60], [3, 1], values(2, 2)),
            ex.CorrectLabels([61], targets(1)),
            ex.RemoveRows([14, 60]),
        ],
        "mixed": [
            ex.AddRows(values(2, d), targets(2)),
            ex.RevokeFeatures([4]),
            ex.CorrectValues([61, 5], [0], values(2, 1)),
            ex.AddRows(values(2, d - 1), targets(2)),
            ex.RemoveRows([5, 6, 60]),
            ex.RevokeFeatures([1, 5]),
            ex.CorrectLabels([63, 2], targets(2)),
        ],
    }


KINDS = list(requests_for("squared"))
each_kind = pytest.mark.parametrize("kind", KINDS)


# Exact unlearning


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@each_weighting
@each_intercept
@each_loss
@each_kind
def test_exact_unlearning_equals_retraining(kind, loss, fit_intercept, weighted, dtype, order):
    data, requests = make_data(loss, weighted=weighted), requests_for(loss)[kind]
    un = unlearner(data, loss, fit_intercept, dtype=dtype, order=order)
    update = un.apply(requests)
    assert update.residual <= un.tolerance
    assert_retrained(un, data.after(*requests))


@each_intercept
@each_loss
def test_a_stream_of_exact_requests_equals_retraining(loss, fit_intercept):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    for kind in ("mixed_rows", "revoke_feature", "correct_labels"):
        requests = requests_for(loss)[kind]
        un.apply(requests)
        data = data.after(*requests)
        assert_retrained(un, data)


@each_loss
def test_a_list_means_its_members_in_order(loss):
    data, requests = make_data(loss, weighted=True), requests_for(loss)["mixed"]
    at_once, one_by_one = (unlearner(data, loss, True) for _ in range(2))
    at_once.apply(requests)
    for request in requests:
        one_by_one.apply(request)
    for a, b in zip(at_once.corrected_data(), one_by_one.corrected_data(), strict=True):
        assert_array_equal(a, b)
    assert_retrained(at_once, data.after(*requests))
    assert_retrained(one_by_one, data.after(*requests))


@each_intercept
@each_loss
def test_weight_0_is_a_removed_row_and_weight_2_a_duplicate(loss, fit_intercept):
    plain = make_data(loss)
    weighted = replace(plain, s=plain.s.copy(), weighted=True)
    weighted.s[10:15], weighted.s[20:30] = 0.0, 2.0
    duplicates = ex.AddRows(plain.X[20:30], plain.y[20:30])
    by_rows, by_weights = unlearner(plain, loss, fit_intercept), unlearner(weighted, loss, fit_intercept)
    by_rows.apply([ex.RemoveRows(slice(10, 15)), duplicates])
    assert_retrained(by_rows, weighted)

    # the same again, with the weight that a request brings: two rows twice, one row not at all
    by_rows.apply(ex.AddRows(plain.X[[0, 0, 1, 1]], plain.y[[0, 0, 1, 1]]))
    heavy = ex.AddRows(plain.X[:3], plain.y[:3], np.array([2.0, 2.0, 0.0]))
    by_weights.apply(heavy)
    assert_retrained(by_rows, weighted.after(heavy))
    assert_retrained(by_weights, weighted.after(heavy))


@pytest.mark.parametrize("target", [1e6, 1e9])
def test_a_row_of_huge_loss_and_no_influence_can_be_removed_with_others(target):
    """J(D') is so much smaller than J(D) that J(D) minus the removed loss is all rounding."""
    data = make_data("squared")
    data.X[7], data.y[7] = 0.0, target
    un = unlearner(data, "squared", False)
    requests = [ex.RemoveRows([7]), ex.CorrectLabels([3], data.y[3] + 1e-3)]
    un.apply(requests)
    assert_retrained(un, data.after(*requests))


# Adult


@cache
def adult_model():
    data = adult()
    return ex.LogisticRegression(1.0).fit(data.X, data.y)


def adult_requests():
    data, rng = adult(), np.random.default_rng(0)
    rows = rng.permutation(len(data.X))
    sensitive = [data.feature_names.index(name) for name in data.sensitive_features]
    return {
        "revoke_1": [ex.RevokeFeatures(sensitive[:1])],
        "revoke_3": [ex.RevokeFeatures(sensitive[4:7])],
        "revoke_15": [ex.RevokeFeatures(sensitive)],
        "remove_1000": [ex.RemoveRows(rows[:1000])],
        "add_1000": [ex.AddRows(data.X_test[:1000], data.y_test[:1000])],
        "correct_500_labels": [ex.CorrectLabels(rows[:500], 1.0 - data.y[rows[:500]])],
        "mixed": [
            ex.RemoveRows(rows[:100]),
            ex.CorrectValues(rows[100:200], sensitive, 0.0),
            ex.RevokeFeatures(sensitive[:3]),
            ex.CorrectLabels(rows[200:300], 0.0),
        ],
    }


@pytest.mark.parametrize(
    "kind", ["revoke_1", "revoke_3", "revoke_15", "remove_1000", "add_1000", "correct_500_labels", "mixed"]
)
def test_exact_unlearning_equals_retraining_on_adult(kind):
    real, requests = adult(), adult_requests()[kind]
    n, d = real.X.shape
    data = Data(real.X, real.y, np.ones(n), np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted=False)
    un = ex.Unlearner(copy.deepcopy(adult_model()), real.X, real.y)
    update = un.apply(requests)
    assert update.residual <= un.tolerance
    assert_retrained(un, data.after(*requests))


# The second-order update (E5)


def newton_step(un, before, data, theta, hessian):
    """-H^-1 g by the reference, on the surviving coordinates, and how far rounding may carry it.

    g is the gradient on `data`, H the Hessian of `data` or of those `before`.
    """
    lasting = surviving(before, data, un.model.fit_intercept)
    g, floor = gradient_and_floor(un, data, theta[lasting])
    if hessian == "corrected":
        X, _, s = data.rows
        H = reference.hessian(X, theta[lasting], **objective_of(un, s))
        lasting = np.ones(len(H), dtype=bool)
    else:
        X, _, s = before.rows
        H = reference.hessian(X, theta, **objective_of(un, s))
        whole = un.model.alpha * theta  # of a column without data, only the penalty is left
        whole[lasting] = g
        g = whole
    step = -np.linalg.solve(H, g)
    # A relative error of 1e-14 in H, a hundred times that of forming it, and twice the floor in g.
    eigenvalues = np.linalg.eigvalsh(H)
    condition = eigenvalues[-1] / eigenvalues[0]
    return step[lasting], 1e-14 * condition * np.linalg.norm(step) + 2.0 * floor / eigenvalues[0]


each_hessian = pytest.mark.parametrize("hessian", ["corrected", "original"])


@each_hessian
@each_weighting
@each_intercept
@each_loss
@each_kind
def test_second_order_is_one_newton_step(kind, loss, fit_intercept, weighted, hessian):
    before, requests = make_data(loss, weighted=weighted), requests_for(loss)[kind]
    un = unlearner(before, loss, fit_intercept)
    theta = theta_of(un.model)
    update = un.apply(requests, method="second_order", hessian=hessian)
    step, tolerance = newton_step(un, before, before.after(*requests), theta, hessian)
    assert np.linalg.norm(update.step - step) <= tolerance


@each_hessian
@pytest.mark.parametrize("earlier", METHODS)
@each_intercept
@each_loss
@each_kind
def test_second_order_is_one_newton_step_after_other_requests(kind, loss, fit_intercept, earlier, hessian):
    data, requests = make_data(loss, weighted=True), requests_for(loss)
    un = unlearner(data, loss, fit_intercept)
    first = requests["correct_values"] if kind != "correct_values" else requests["remove_rows"]
    un.apply(first, **METHODS[earlier])
    before, theta = data.after(*first), theta_of(un.model)
    update = un.apply(requests[kind], method="second_order", hessian=hessian)
    step, tolerance = newton_step(un, before, before.after(*requests[kind]), theta, hessian)
    assert np.linalg.norm(update.step - step) <= tolerance


CURVATURE_CHANGES = ["remove_many_rows", "correct_values_to_one_row", "correct_a_column", "revoke_features"]


@each_weighting
@each_intercept
@pytest.mark.parametrize("kind", CURVATURE_CHANGES)
def test_second_order_ridge_equals_retraining_only_with_the_corrected_hessian(kind, fit_intercept, weighted):
    data, requests = make_data("squared", weighted=weighted), requests_for("squared")[kind]
    X, y, s = data.after(*requests).rows
    errors = {}
    for hessian in ("corrected", "original"):
        un = unlearner(data, "squared", fit_intercept)
        un.apply(requests, method="second_order", hessian=hessian)
        retrained = retrain(X, y, **objective_of(un, s))
        errors[hessian] = np.linalg.norm(theta_of(un.model) - retrained) / np.linalg.norm(retrained)
    assert errors["corrected"] <= 1e-10
    assert errors["original"] > 1e-4  # a stale Hessian does not pass


@each_loss
def test_corrected_labels_leave_the_hessian(loss):  # E6
    data, requests = make_data(loss), requests_for(loss)["correct_labels"]
    steps = [
        unlearner(data, loss, True).apply(requests, method="second_order", hessian=hessian).step
        for hessian in ("corrected", "original")
    ]
    assert_array_equal(*steps)


@pytest.mark.parametrize("outlier", [1e6, 1e8])
@pytest.mark.parametrize(
    "request_", [ex.RemoveRows([7]), ex.CorrectValues([7], [2], 0.5)], ids=["row", "cell"]
)
def test_the_hessian_follows_the_data_when_an_outlier_leaves(request_, outlier):
    """H holds outlier^2; subtracting it must not leave its rounding errors in the Hessian of what stays."""
    data = make_data("squared")
    data.X[7, 2] = outlier
    un = unlearner(data, "squared", False, tolerance=1e-4)
    for request in (request_, ex.RemoveRows([8])):
        before, data, theta = data, data.after(request), theta_of(un.model)
        _, floor = gradient_and_floor(un, before, theta)
        un.apply(request, method="second_order")
        X, y, s = data.rows
        retrained = retrain(X, y, **objective_of(un, s))
        # The gradient on `before`, outlier included, is right to its floor; H is as good as formed anew.
        tolerance = 2.0 * floor / np.linalg.eigvalsh(X.T @ X)[0] + 1e-10 * np.linalg.norm(retrained)
        assert np.linalg.norm(theta_of(un.model) - retrained) <= tolerance


@each_intercept
@each_loss
@pytest.mark.parametrize("row", [4, 31])
def test_one_removed_row_scales_the_influence_function_by_its_leverage(row, loss, fit_intercept):  # E7
    data = make_data(loss)
    corrected, original = (
        unlearner(data, loss, fit_intercept, tolerance=1e-11).apply(
            ex.RemoveRows([row]), method="second_order", hessian=hessian
        )
        for hessian in ("corrected", "original")
    )
    theta = theta_of(unlearner(data, loss, fit_intercept, tolerance=1e-11).model)
    X, _, _ = data.rows
    x = np.append(X[row], 1.0) if fit_intercept else X[row]
    H = reference.hessian(X, theta, alpha=ALPHA, loss=loss, fit_intercept=fit_intercept)
    h = LOSSES[loss].d2(data.y[row], x @ theta) * (x @ np.linalg.solve(H, x))
    assert 0.01 < h < 1.0
    difference = corrected.step - original.step / (1.0 - h)
    assert np.linalg.norm(difference) <= 1e-10 * np.linalg.norm(corrected.step)


# The first-order update (E4)


def assert_safe(un, before, data, theta, update):
    """tau is at most 1/L, and the residual has fallen as it then must."""
    fit_intercept, alpha, loss = (
        un.model.fit_intercept,
        un.model.alpha,
        LOSSES[objective_of(un, None)["loss"]],
    )
    g, floor = gradient_and_floor(un, data, theta[surviving(before, data, fit_intercept)])
    X, _, s = data.rows
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    G = reference.gram(A, np.ones(len(A)) if s is None else s)
    assert 0.0 < update.tau <= 1.0 / (alpha + loss.max_d2 * np.linalg.norm(G, ord=2))
    lambda_min = 0.0 if fit_intercept else alpha
    assert update.residual <= (1.0 - update.tau * lambda_min) * np.linalg.norm(g) + floor
    assert update.residual < np.linalg.norm(g)


@each_intercept
@each_loss
@each_kind
def test_first_order_with_its_own_tau_reduces_the_residual(kind, loss, fit_intercept):
    data, requests = make_data(loss, weighted=True), requests_for(loss)
    un = unlearner(data, loss, fit_intercept)
    for sequence in ([ex.CorrectLabels([0, 1], 1.0)], requests[kind]):
        before, data, theta = data, data.after(*sequence), theta_of(un.model)
        assert_safe(un, before, data, theta, un.apply(sequence, method="first_order"))


@each_intercept
@each_loss
def test_the_safe_tau_follows_rows_that_come_later(loss, fit_intercept):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    X, y, _ = data.rows
    for request in (
        ex.RemoveRows([0]),
        ex.AddRows(X[:2], y[:2], np.array([60.0, 3.0])),
        ex.CorrectValues([5], [0, 1], 20.0),
        ex.RevokeFeatures([2]),
        ex.AddRows(10.0 * X[2:30, :5], y[2:30]),
    ):
        before, data, theta = data, data.after(request), theta_of(un.model)
        assert_safe(un, before, data, theta, un.apply(request, method="first_order"))


@each_loss
def test_the_safe_tau_is_not_needlessly_small(loss):
    data = make_data(loss)
    update = unlearner(data, loss, False).apply(ex.RemoveRows([3]), method="first_order")
    X = data.after(ex.RemoveRows([3])).rows[0]
    frobenius = np.linalg.norm(X.T @ X)
    assert update.tau >= (1.0 - 1e-12) / (ALPHA + LOSSES[loss].max_d2 * frobenius)


@each_intercept
@each_loss
@each_kind
def test_first_order_with_a_given_tau_is_one_gradient_step(kind, loss, fit_intercept):
    before, requests, tau = make_data(loss), requests_for(loss)[kind], 1e-3
    un = unlearner(before, loss, fit_intercept)
    data, theta = before.after(*requests), theta_of(un.model)
    theta = theta[surviving(before, data, fit_intercept)]
    update = un.apply(requests, method="first_order", tau=tau)
    g, floor = gradient_and_floor(un, data, theta)
    assert update.tau == tau
    # 2 floors for g, and the roundings of tau g and of theta - tau g, undone by the step
    rounding = 2.0**-52 * (np.linalg.norm(theta) + tau * np.linalg.norm(g))
    assert np.linalg.norm(update.step + tau * g) <= 2.0 * tau * floor + rounding


# Methods in any order


@pytest.mark.parametrize("methods", list(itertools.product(METHODS, repeat=3)), ids="-".join)
@each_loss
def test_after_any_methods_an_exact_request_reaches_retraining(loss, methods):
    data, requests = make_data(loss), requests_for(loss)
    un = unlearner(data, loss, True)
    for method, kind in zip(methods, ("correct_values", "revoke_feature", "add_rows"), strict=True):
        sequence = (
            requests[kind] if kind != "add_rows" else [ex.AddRows(data.rows[0][:3] + 1.0, data.rows[1][:3])]
        )
        before, data, theta = data, data.after(*sequence), theta_of(un.model)
        update = un.apply(sequence, **METHODS[method])
        assert update.residual == un.residual()
        if method == "exact":
            assert update.residual <= un.tolerance
        elif method != "first_order":
            step, tolerance = newton_step(un, before, data, theta, method)
            assert np.linalg.norm(update.step - step) <= tolerance
    un.apply([])
    assert_retrained(un, data)


@pytest.mark.parametrize("tau", [1.0, 1e2, 1e4])
@each_intercept
@each_loss
def test_an_exact_request_recovers_from_any_first_order_step(loss, fit_intercept, tau):
    """Far out the curvature of the logistic loss underflows, and with it the Hessian of a free intercept."""
    data, request = make_data(loss), ex.RemoveRows([3, 4, 5])
    un = unlearner(data, loss, fit_intercept, tolerance=1e-6)
    assert un.apply(request, method="first_order", tau=tau).residual > 1.0
    un.apply([])
    assert_retrained(un, data.after(request))


@st.composite
def histories(draw):
    """Up to four steps of up to three requests each, as functions of the data so far, each with a method."""
    index = st.integers(0, 10**6)
    request = st.tuples(st.sampled_from(["remove", "add", "label", "value", "revoke"]), index, index, index)
    step = st.tuples(st.lists(request, max_size=3), st.sampled_from(list(METHODS)))
    return draw(st.lists(step, min_size=1, max_size=4))


def request_from(data, loss, kind, i, j, k):
    """A valid request. Rows 0 and 1 hold one class each and stay as they are, and so does column 0."""
    rows, columns = np.flatnonzero(data.live)[2:], np.flatnonzero(data.kept)
    rng = np.random.default_rng([i, j, k])
    if kind == "add" or rows.size == 0:
        m = i % 3
        s = float32_values(rng.uniform(0.0, 2.0, m)) if j % 2 else None
        X = float32_values(rng.standard_normal((m, columns.size)))
        return ex.AddRows(X, rng.integers(0, 2, m).astype(float), s)
    some = rng.permutation(rows)[: 1 + i % 3]
    if kind == "remove":
        return ex.RemoveRows(some)
    if kind == "label":
        y = rng.integers(0, 2, some.size).astype(float)
        return ex.CorrectLabels(some, y if loss == "logistic" else y + float32_values(rng.normal()))
    if kind == "value":
        chosen = rng.permutation(columns)[: 1 + j % 2]
        return ex.CorrectValues(some, chosen, float32_values(rng.standard_normal((some.size, chosen.size))))
    return ex.RevokeFeatures(rng.permutation(columns[1:])[: k % 2 + 1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@each_intercept
@each_loss
@settings(max_examples=25, deadline=None, derandomize=True)
@given(history=histories(), n=st.integers(2, 40), d=st.integers(1, 5))
def test_random_histories_equal_retraining(loss, fit_intercept, dtype, history, n, d):
    data = make_data(loss, n=n, d=d)
    data = replace(data, y=np.where(data.y > 0, 1.0, 0.0))
    data.y[:2] = 0.0, 1.0
    un = unlearner(data, loss, fit_intercept, alpha=1.0, dtype=dtype)
    for kinds, method in history:
        sequence = []
        for chosen in kinds:
            request = request_from(data, loss, *chosen)
            sequence.append(request)
            data = data.after(request)
        update = un.apply(sequence, **METHODS[method])
        assert update.residual == un.residual()
        assert_array_equal(un.get_support(), data.kept)
        for corrected, expected in zip(un.corrected_data(), data.rows, strict=True):
            assert_array_equal(corrected, expected)
    un.apply([])
    assert_retrained(un, data)


# Columns: dropped, zeroed, constant (E12)


@each_weighting
@each_intercept
@each_loss
def test_a_column_of_zeros_weighs_as_much_as_a_revoked_one(loss, fit_intercept, weighted):
    data = make_data(loss, weighted=weighted)
    zeroed, revoked = (unlearner(data, loss, fit_intercept) for _ in range(2))
    zeroed.apply(ex.CorrectValues(slice(None), [2], 0.0))
    revoked.apply(ex.RevokeFeatures([2]))
    full, cut = np.ravel(zeroed.model.coef_), np.ravel(revoked.model.coef_)
    # Each is within its profile residual / alpha of the same minimiser; that residual is at most this.
    longest = np.linalg.norm(data.X, axis=1).max() if fit_intercept else 0.0
    tolerance = 2.0 * (1.0 + longest) * TOLERANCE / ALPHA + 1e-12
    assert abs(full[2]) <= tolerance
    assert np.linalg.norm(np.delete(full, 2) - cut) <= tolerance


@each_loss
def test_a_constant_column_is_a_revoked_one_only_with_a_free_intercept(loss):
    data = make_data(loss)
    for fit_intercept in (False, True):
        constant, revoked = (unlearner(data, loss, fit_intercept) for _ in range(2))
        constant.apply(ex.CorrectValues(slice(None), [2], 3.0))
        revoked.apply(ex.RevokeFeatures([2]))
        distance = np.linalg.norm(
            np.delete(np.ravel(constant.model.coef_), 2) - np.ravel(revoked.model.coef_)
        )
        if fit_intercept:
            longest = np.hypot(np.linalg.norm(data.X, axis=1).max(), 3.0)
            assert distance <= 2.0 * (1.0 + longest) * TOLERANCE / ALPHA + 1e-12
        else:
            assert distance > 1e-3


@each_loss
def test_predictions_do_not_depend_on_a_revoked_column(loss):
    data = make_data(loss)
    un = unlearner(data, loss, True)
    un.apply([ex.RevokeFeatures([1]), ex.RevokeFeatures([4])])
    X_test = make_data(loss, seed=1).X
    poisoned = X_test.copy()
    poisoned[:, [1, 4]] = np.nan
    assert_array_equal(un.get_support(), [True, False, True, True, False, True])
    assert_array_equal(un.get_support(indices=True), [0, 2, 3, 5])
    predict = un.model.predict if loss == "squared" else un.model.decision_function
    predictions = predict(X_test[:, un.get_support()])
    assert_array_equal(predictions, predict(poisoned[:, un.get_support()]))
    assert np.ptp(predictions) > 0.1


# Requests that change nothing


def idle_requests(data):
    rows, columns = [3, 9, 30], [0, 4]
    return {
        "no_request": [],
        "no_rows": ex.RemoveRows([]),
        "no_new_rows": ex.AddRows(np.empty((0, 6)), []),
        "no_columns": ex.RevokeFeatures([]),
        "no_cells": ex.CorrectValues([], [1], 0.0),
        "same_labels": ex.CorrectLabels(rows, data.y[rows]),
        "same_values": ex.CorrectValues(rows, columns, data.X[np.ix_(rows, columns)]),
        "all_values": ex.CorrectValues(slice(None), slice(None), data.X),
    }


@each_method
@each_intercept
@each_loss
@pytest.mark.parametrize("kind", idle_requests(make_data("squared")))
def test_requests_that_change_nothing_leave_theta(kind, loss, fit_intercept, method):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    theta = theta_of(un.model)
    r, floor = profile_residual(un, data, theta)
    update = un.apply(idle_requests(data)[kind], **method)
    assert np.linalg.norm(update.step[:6]) <= (r + floor) / ALPHA
    assert update.residual <= un.tolerance
    assert np.linalg.norm(update.gradient_difference) <= 2.0 * floor
    assert update.rows_touched == {"same_labels": 3, "same_values": 3, "all_values": 60}.get(kind, 0)
    for corrected, expected in zip(un.corrected_data(), data.rows, strict=True):
        assert_array_equal(corrected, expected)


# What an Update says


@each_method
@each_intercept
@each_loss
@each_kind
def test_an_update_can_be_checked(kind, loss, fit_intercept, method):
    before, requests = make_data(loss, weighted=True), requests_for(loss)[kind]
    un = unlearner(before, loss, fit_intercept)
    theta, data = theta_of(un.model), before.after(*requests)
    lasting = surviving(before, data, fit_intercept)
    update = un.apply(requests, **method)

    assert_array_equal(update.step, theta_of(un.model) - theta[lasting])
    old, old_floor = gradient_and_floor(un, before, theta)
    new, new_floor = gradient_and_floor(un, data, theta[lasting])
    difference = new - old[lasting]
    assert np.linalg.norm(update.gradient_difference - difference) <= 2.0 * (old_floor + new_floor)
    _, floor = gradient_and_floor(un, data, theta_of(un.model))
    assert update.residual == un.residual() == un.model.residual_
    assert abs(update.residual - ex.residual(un.model, *un.corrected_data())) <= 2.0 * floor
    assert update.features_revoked == np.count_nonzero(~data.kept)
    assert update.method == method["method"]
    assert update.hessian == (method.get("hessian", "corrected") if "second" in update.method else None)
    assert (update.tau is not None) == (update.method == "first_order")
    assert update.passes >= 1
    assert 0.0 < update.seconds < 60.0
    assert update.method in str(update)
    assert 3 <= len(str(update).splitlines()) <= 6
    with pytest.raises(AttributeError):
        update.residual = 0.0


@pytest.mark.parametrize(
    ("requests", "rows"),
    [
        ([ex.RemoveRows([3, 7])], 2),
        ([ex.CorrectLabels([3, 7], 1.0), ex.CorrectValues([7, 8], [0], 1.0), ex.RemoveRows([3])], 3),
        ([ex.AddRows(np.zeros((2, 6)), 0.0), ex.CorrectLabels([61], 1.0), ex.RemoveRows([60])], 2),
        ([ex.RevokeFeatures([0])], 58),  # two rows are 0 there
        ([ex.RevokeFeatures([0]), ex.RemoveRows([0, 5])], 59),  # one of the two is removed
        ([ex.CorrectValues([0], [0], 2.0), ex.RevokeFeatures([0]), ex.CorrectLabels([1], 1.0)], 60),
    ],
)
def test_rows_touched_counts_each_row_once(requests, rows):
    data = make_data("squared")
    data.X[:2, 0] = 0.0
    assert unlearner(data, "squared", True).apply(requests).rows_touched == rows


def test_rows_touched_by_a_revoked_column_are_those_of_the_corrected_data():
    data = make_data("squared")
    data.X[:2, 0] = 0.0
    un = unlearner(data, "squared", True)
    un.apply([ex.CorrectValues([0, 2, 3], [0], [[1.0], [0.0], [0.0]]), ex.RemoveRows([4])])
    assert un.apply(ex.RevokeFeatures([0])).rows_touched == 56  # all but 1, 2, 3 and the removed 4


@pytest.mark.filterwarnings("ignore:the tolerance")
@each_loss
def test_the_residual_is_measured_where_rounding_stops_the_iteration(loss):
    data = make_data(loss, n=200)
    un = unlearner(data, loss, True, tolerance=0.0)
    for row in range(20):
        update = un.apply(ex.CorrectValues([row], [0], data.X[row, 0] * (1.0 + 2.0**-50)))
        assert update.residual == un.residual()


@each_intercept
@each_loss
def test_retrain_fits_a_fresh_model_to_the_corrected_data(loss, fit_intercept):
    data, requests = make_data(loss, weighted=True), requests_for(loss)["mixed"]
    un = unlearner(data, loss, fit_intercept)
    un.apply(requests, method="first_order")
    theta, fresh = theta_of(un.model), un.retrain()
    assert type(fresh) is type(un.model)
    assert fresh is not un.model
    assert_array_equal(theta_of(un.model), theta)
    assert (fresh.alpha, fresh.fit_intercept, fresh.tol) == (ALPHA, fit_intercept, un.tolerance)
    un.model = fresh
    assert_retrained(un, data.after(*requests))


def test_corrected_data_are_copies_in_the_users_labels_without_weights_that_nobody_gave():
    data = make_data("logistic")
    names = np.array(["no", "yes"])
    y = names[data.y.astype(int)]
    un = ex.Unlearner(ex.LogisticRegression().fit(data.X, y), data.X, y)
    X, labels, s = un.corrected_data()
    assert s is None
    assert_array_equal(labels, y)
    X[:] = np.nan
    labels[:] = "no"
    assert_array_equal(un.corrected_data()[0], data.X)
    assert_array_equal(un.corrected_data()[1], y)
    un.apply([ex.CorrectLabels([4], "yes"), ex.AddRows(data.X[:1], ["no"], sample_weight=2.0)])
    _, labels, s = un.corrected_data()
    y[4] = "yes"
    assert_array_equal(labels, [*y, "no"])
    assert_array_equal(s, [*np.ones(60), 2.0])


# Rows and columns by number


@each_loss
def test_added_rows_continue_the_count_and_may_be_corrected_and_removed(loss):
    data = make_data(loss)
    un = unlearner(data, loss, True)
    for request in (
        ex.RemoveRows([59]),
        ex.AddRows(data.X[:2] + 1.0, data.y[:2]),  # 60, 61: removed rows keep their numbers
        ex.RevokeFeatures([3]),
        ex.AddRows(data.X[2:5, :5], data.y[2:5]),  # 62 to 64
        ex.CorrectValues([61, 64, 2], [5, 0], 0.5),
        ex.CorrectLabels([60, 62], 1.0),
        ex.CorrectValues([64, 61, 3], [5, 2], [-1.5, 2.5]),  # some cells again
        ex.CorrectValues([64], [5], 0.125),
        ex.RemoveRows([60, 64]),
    ):
        un.apply(request)
        data = data.after(request)
        for corrected, expected in zip(un.corrected_data(), data.rows, strict=True):
            assert_array_equal(corrected, expected)
        assert_retrained(un, data)


MASK = np.arange(60) % 20 == 4


@pytest.mark.parametrize(
    "rows",
    [
        MASK,
        MASK.tolist(),
        slice(4, None, 20),
        (4, 24, 44),
        np.array([44, 4, 24], dtype=np.uint8),
        range(4, 60, 20),
    ],
    ids=["mask", "list_mask", "slice", "tuple", "uint8", "range"],
)
def test_rows_are_a_sequence_a_mask_or_a_slice(rows):
    data = make_data("squared")
    un = unlearner(data, "squared", True)
    assert un.apply(ex.RemoveRows(rows)).rows_touched == 3
    assert_retrained(un, data.after(ex.RemoveRows([4, 24, 44])))


def test_names_and_positions_name_the_same_columns_after_others_were_revoked():
    pandas = pytest.importorskip("pandas")
    data = make_data("squared")
    frame = pandas.DataFrame(data.X, columns=list("abcdef"))
    un = ex.Unlearner(ex.Ridge(ALPHA).fit(frame, data.y), frame, data.y)
    un.apply(ex.RevokeFeatures("b"))
    un.apply([ex.CorrectValues([0], ["d", "c"], [[1.0, 2.0]]), ex.CorrectValues([1], [3], 4.0)])
    un.apply(ex.RevokeFeatures(["f", "a"]))
    un.apply(ex.AddRows(frame[:3], data.y[:3]))  # cut down by name
    assert list(un.model.feature_names_in_) == ["c", "d", "e"]
    data = data.after(
        ex.RevokeFeatures([1]),
        ex.CorrectValues([0], [3, 2], [[1.0, 2.0]]),
        ex.CorrectValues([1], [3], 4.0),
        ex.RevokeFeatures([5, 0]),
        ex.AddRows(data.X[:3, 2:5], data.y[:3]),
    )
    assert_retrained(un, data)


# Only the touched rows are read, nothing is copied, nothing is modified


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("method", ["corrected", "original", "first_order"])
@each_loss
@pytest.mark.parametrize(
    "kind", ["remove_rows", "add_rows", "correct_labels", "correct_values", "mixed_rows"]
)
def test_the_step_reads_the_touched_rows_only(kind, loss, method, order, monkeypatch):
    """With NaN in all other rows the step has the same bits; the residual, measured after it, is refused."""
    data, requests = make_data(loss), requests_for(loss)[kind]
    options = METHODS[method] | ({"tau": 0.01} if method == "first_order" else {})
    touched = np.concatenate([r.rows for r in requests if not isinstance(r, ex.AddRows)] or [[0]])
    steps = []
    for update in (ex.updates.first_order_update, ex.updates.second_order_update):

        def recorded(theta, g, by, update=update):
            new = update(theta, g, by)
            steps.append((g, new))
            return new

        monkeypatch.setattr("expunge.unlearner." + update.__name__, recorded)
    for poison in (False, True):
        X, y, _ = data.rows
        X = np.array(X, order=order)
        kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
        un = ex.Unlearner(kind_of_model(ALPHA).fit(X, y), X, y)
        if poison:
            X[np.setdiff1d(np.arange(60), touched)] = np.nan  # held by reference
            with pytest.raises(ex.ConvergenceError, match="range of floating point"):
                un.apply(requests, **options)
        else:
            assert un.apply(requests, **options).passes == 1  # which is the measurement
    (whole_g, whole), (poisoned_g, poisoned) = steps
    assert_array_equal(poisoned_g, whole_g)
    assert_array_equal(poisoned, whole)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@each_method
@each_loss
def test_X_is_held_by_reference_and_never_modified(loss, method, dtype, order):
    data = make_data(loss)
    X, y = np.array(data.X, dtype=dtype, order=order), data.y.copy()
    bits = X.tobytes()
    X.flags.writeable = y.flags.writeable = False
    kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
    un = ex.Unlearner(kind_of_model(ALPHA).fit(X, y), X, y)
    un.apply(requests_for(loss)["mixed"], **method)
    assert np.shares_memory(un._data.X, X)
    assert X.tobytes() == bits
    assert_array_equal(y, data.y)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_is_proportional_to_the_edits(dtype, order):
    n, d = 20_000, 40
    rng = np.random.default_rng(0)
    X = np.array(rng.standard_normal((n, d)), dtype=dtype, order=order)
    model = ex.Ridge().fit(X, X[:, 0] + 1.0)
    targets = X[:, 0].astype(np.float64) + 1.0
    tracemalloc.start()
    try:
        un = ex.Unlearner(model, X, targets)
        for row in range(50):
            un.apply(ex.CorrectValues([row, row + 1], [3], 0.5))  # rows 1 to 49 twice
        un.apply(ex.RevokeFeatures([7]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 2  # no copy of X, ever: targets, weights and flags are 6 % of a float32 X each
    assert len(un._data.overlay_X) <= 2 * 51  # rows in the overlay, and room for as many
