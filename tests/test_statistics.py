"""kernels.AnchoredStatistics: sums at an anchor, the step from them and its bound (E8-E10, E18)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import adult, central_difference, in_required_forms, retrain
from unlearning import each_intercept, each_loss, make_data

import expunge as ex
from expunge import kernels, reference
from expunge.losses import LOSSES

ALPHA = 0.5


def start(X, y, loss, fit_intercept=False, s=None, alpha=ALPHA):
    """Statistics at the minimiser."""
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    model = kind(alpha, fit_intercept=fit_intercept).fit(X, y, s)
    theta = np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if fit_intercept else [])
    return kernels.AnchoredStatistics(
        X, y, theta, alpha=alpha, loss=loss, sample_weight=s, fit_intercept=fit_intercept
    )


def exact_residual(X, y, s, theta, loss, fit_intercept, alpha):
    """The norm of the gradient in extended precision: measuring must not round where a bound is judged."""
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    A, theta = A.astype(np.longdouble), theta.astype(np.longdouble)
    eta = A @ theta
    d1 = eta - y if loss == "squared" else 1.0 / (1.0 + np.exp(-eta)) - y
    if loss == "logistic":
        d1 = np.where(y == 1.0, -1.0 / (1.0 + np.exp(eta)), d1)
    penalty = np.full(theta.size, alpha)
    penalty[X.shape[1] :] = 0.0
    return float(np.sqrt(np.sum((A.T @ (s * d1) + penalty * theta) ** 2)))


pytestmark = pytest.mark.filterwarnings("ignore:the tolerance")  # which lies below some floors

PROBLEMS = ["plain", "weighted", "separable", "badly_scaled"]


def problem(name, loss, n, d=5):
    data = make_data(loss, n=n, d=d, weighted=name == "weighted")
    X, y, s, alpha = data.X.copy(), data.y.copy(), data.s.copy(), ALPHA
    if name == "separable":
        alpha = 1e-3
        if loss == "logistic":
            y = (X[:, 0] > 0).astype(float)
    if name == "badly_scaled":
        X *= 10.0 ** np.linspace(-3, 2, d)
    return X, y, s, alpha


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_third_derivative_of_a_loss_is_at_most_the_second(loss):
    """What the bound rests on (E10)."""
    eta = np.linspace(-40.0, 40.0, 4001)
    for y in (0.0, 1.0):
        d3 = central_difference(lambda t, y=y: loss.d2(np.full_like(eta, y), eta + t), 1e-3)
        assert (np.abs(d3) <= loss.d2(np.full_like(eta, y), eta) * (1.0 + 1e-9) + 1e-12).all()


@each_intercept
@each_loss
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_bound_is_never_below_the_residual_in_a_stream_of_10_000_edits(name, loss, fit_intercept):
    X, y, s, alpha = problem(name, loss, n=60)
    rng = np.random.default_rng(3)
    statistics = start(X, y, loss, fit_intercept, s, alpha)
    for k in range(10_000):
        row = 2 + int(rng.integers(len(y) - 2))
        new_y = float(rng.integers(2)) if loss == "logistic" else float(rng.normal())
        statistics.subtract(X[[row]], y[[row]], s[[row]])
        y[row], X[row] = new_y, rng.permutation(X[row])
        statistics.add(X[[row]], y[[row]], s[[row]])
        theta = statistics.theta()
        exact = exact_residual(X, y, s, theta, loss, fit_intercept, alpha)
        assert exact <= statistics.residual_bound()
        if k % 2000 == 1999:
            statistics = start(X, y, loss, fit_intercept, s, alpha)


@each_intercept
@each_loss
def test_after_10_000_edits_the_statistics_are_those_of_the_rows(
    loss, fit_intercept
):  # oracle: recomputation
    data = make_data(loss, n=300, d=5)
    X, y = data.X.copy(), data.y.copy()
    statistics = start(X, y, loss, fit_intercept)
    rng = np.random.default_rng(4)
    for k in range(10_000):
        row = int(rng.integers(300))
        if k < 9_700:  # rows leave and return
            statistics.subtract(X[[row]], y[[row]])
            statistics.add(X[[row]], y[[row]])
        elif len(y) > 200:
            statistics.subtract(X[[-1]], y[[-1]])
            X, y = X[:-1], y[:-1]
    options = {"alpha": ALPHA, "loss": loss, "fit_intercept": fit_intercept}
    anchor, error = statistics.anchor, statistics._statistics.gradient_error
    assert np.linalg.norm(statistics.gradient - reference.gradient(X, y, anchor, **options)) <= error
    H = reference.hessian(X, anchor, **options)
    assert np.linalg.norm(statistics.hessian - H) <= 1e-11 * np.linalg.norm(H)
    assert statistics.rows == len(y)
    theta, retrained = statistics.theta(), retrain(X, y, **options)
    # |coef - coef*| is at most the profile residual / alpha.
    longest = np.linalg.norm(X, axis=1).max() if fit_intercept else 0.0
    allowed = (1.0 + longest) * statistics.residual_bound() / ALPHA
    assert np.linalg.norm((theta - retrained)[:5]) <= allowed


def test_on_adult_the_bound_is_within_15_times_the_residual():
    data = adult()
    statistics = start(data.X, data.y, "logistic", alpha=1.0)
    order = np.random.default_rng(0).permutation(data.y.size)[:8000]
    left = np.ones(data.y.size)
    for k, row in enumerate(order, start=1):
        statistics.subtract(data.X[[row]], data.y[[row]])
        left[row] = 0.0
        if k % 100 == 0 or k == 1:
            bound, theta = statistics.residual_bound(), statistics.theta()
            exact = np.linalg.norm(
                kernels.gradient(data.X, data.y, theta, alpha=1.0, loss="logistic", sample_weight=left)
            )
            assert exact <= bound <= 15.0 * exact


@each_intercept
@each_loss
def test_any_permutation_and_split_gives_the_same_theta(loss, fit_intercept):
    data = make_data(loss, n=2000, d=20)
    X, y = data.X, data.y
    thetas = []
    for seed in range(4):
        statistics = start(X, y, loss, fit_intercept)
        rng = np.random.default_rng(seed)
        edits = [(0, row) for row in range(500)] + [(1, row) for row in range(1000, 1500)]
        parts = np.array_split(rng.permutation(1000), [1000, 400, 37, 1][seed])
        for part in parts:
            for kind, change in ((0, statistics.subtract), (1, statistics.add)):
                rows = [edits[k][1] for k in part if edits[k][0] == kind]
                if rows:
                    change(X[rows], y[rows])
        thetas.append(statistics.theta())
    for theta in thetas[1:]:
        assert_allclose(theta, thetas[0], rtol=0, atol=1e-11)


@each_intercept
@each_loss
def test_shards_add_up_to_the_whole(loss, fit_intercept):
    data = make_data(loss, n=400, d=6)
    whole = start(data.X, data.y, loss, fit_intercept)
    shards = [
        kernels.AnchoredStatistics(
            data.X[rows], data.y[rows], whole.anchor, alpha=ALPHA, loss=loss, fit_intercept=fit_intercept
        )
        for rows in (slice(0, 50), slice(50, 260), slice(260, 400))
    ]
    merged = shards[0].merge(shards[1]).merge(shards[2])
    assert_allclose(merged.gradient, whole.gradient, rtol=0, atol=1e-11)
    assert_allclose(merged.hessian, whole.hessian, rtol=1e-13, atol=1e-11)
    assert_allclose(merged.theta(), whole.theta(), rtol=0, atol=1e-12)
    assert (merged.rows, merged.weight) == (whole.rows, whole.weight) == (400, 400.0)
    with pytest.raises(ValueError, match="different anchors: make them at the same theta"):
        whole.merge(start(data.X[:50], data.y[:50], loss, fit_intercept))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8])
@each_loss
def test_when_99_percent_of_ill_conditioned_rows_leave_the_bound_holds(loss, condition, dtype):
    data = make_data(loss, n=2000, d=6)
    X = (data.X * np.logspace(0, -0.5 * np.log10(condition), 6)).astype(dtype)
    y = data.y
    alpha = 2000.0 / condition
    statistics = start(X, y, loss, alpha=alpha)
    for first in range(20, 2000, 30):
        rows = slice(first, min(first + 30, 2000))
        if first % 60 == 20:
            statistics.subtract(X[rows], y[rows])
        else:
            for row in range(rows.start, rows.stop):
                statistics.subtract(X[[row]], y[[row]])
    left = X[:20].astype(np.float64)
    theta = statistics.theta()
    assert np.isfinite(theta).all()
    assert exact_residual(left, y[:20], 1.0, theta, loss, False, alpha) <= statistics.residual_bound()


@each_intercept
@each_loss
def test_statistics_are_those_of_the_reference(loss, fit_intercept):
    data = make_data(loss, weighted=True)
    theta = np.random.default_rng(7).standard_normal(6 + fit_intercept) / 3.0
    options = {"alpha": ALPHA, "loss": loss, "sample_weight": data.s, "fit_intercept": fit_intercept}
    both = [module.AnchoredStatistics(data.X, data.y, theta, **options) for module in (kernels, reference)]
    for statistics in both:
        statistics.subtract(data.X[[2]], data.y[[2]], data.s[[2]])
        statistics.subtract(data.X[10:30], data.y[10:30], data.s[10:30])
        statistics.add(2.0 * data.X[:3], data.y[:3])
    ours, twin = both
    assert_allclose(ours.gradient, twin.gradient, rtol=0, atol=1e-11)
    assert_allclose(ours.hessian, twin.hessian, rtol=0, atol=1e-11)
    assert_allclose(ours.theta(), twin.theta(), rtol=0, atol=1e-11)
    assert_allclose(ours.residual_bound(), twin.residual_bound(), rtol=1e-9, atol=1e-9)
    assert ours.rows == twin.rows
    merged, twins = ours.merge(ours), twin.merge(twin)
    assert_allclose(merged.theta(), twins.theta(), rtol=0, atol=1e-11)
    assert ours.residual_bound() >= twin.residual_bound() or loss == "logistic"


@in_required_forms
@each_loss
def test_every_representation_gives_the_same_statistics(loss, represent):
    data = make_data(loss, zeros=True)
    statistics, expected = start(represent(data.X), data.y, loss, True), start(data.X, data.y, loss, True)
    for some in (statistics, expected):
        X = represent(data.X[:9]) if some is statistics else data.X[:9]
        some.subtract(X, data.y[:9])
        some.add(X, 1.0 - data.y[:9] if loss == "logistic" else -data.y[:9])
    assert_allclose(statistics.theta(), expected.theta(), rtol=0, atol=1e-10)
    assert_allclose(statistics.hessian, expected.hessian, rtol=0, atol=1e-10)


BAD_ROWS = {
    "nan": ([[np.nan] * 6], [0.0], None, "contains NaN"),
    "width": (np.ones((1, 5)), [0.0], None, "X has 5 columns, expected 6"),
    "targets": (np.ones((2, 6)), [0.0], None, "y has shape"),
    "domain": (np.ones((1, 6)), [2.0], None, "y"),
    "weight": (np.ones((1, 6)), [0.0], [-1.0], "must not be negative"),
    "too_many": (np.ones((61, 6)), np.zeros(61), None, "more rows would leave than the statistics hold"),
    "too_heavy": (np.ones((1, 6)), [0.0], [100.0], "more weight would leave than the statistics hold"),
    "foreign": (np.full((1, 6), 1e4), [0.0], [1.0], "these rows cannot be part of the statistics"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_cannot_leave_change_nothing(name):
    data = make_data("logistic")
    X, y, s, message = BAD_ROWS[name]
    statistics = kernels.AnchoredStatistics(data.X, data.y, np.zeros(6), alpha=ALPHA)
    before = statistics.theta(), statistics.gradient, statistics.hessian, statistics.rows
    with pytest.raises((ValueError, ex.NotPositiveDefiniteError), match=message):
        statistics.subtract(X, y, s)
    for was, now in zip(before, (statistics.theta(), statistics.gradient, statistics.hessian), strict=False):
        assert_array_equal(was, now)
    assert statistics.rows == before[3]
