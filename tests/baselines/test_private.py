"""What noise in the objective buys: an exact computation of it, and requests that it hides."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.special import expit
from strategies import COLUMN
from unlearning import make_data

import expunge as ex
from expunge import accounting
from expunge.baselines import Privacy, PrivateTraining

PRIVATE = {"epsilon": 1.0, "delta": 1e-5, "row_norm": 8.0, "random_state": 0}


def made(**options):
    X, y, s = make_data("logistic").rows
    model = ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y)
    return PrivateTraining(model, X, y, s, **(PRIVATE | options)), X, y


def hockey_stick(privacy, x, y, *, swapped, others=1):
    """The exact delta at the row's epsilon of one-column data with and without the last row, by quadrature.

    All the other rows are there so many times.
    """
    s = np.append(np.full(len(x) - 1, others), 1)

    def density(x, y, s):
        """Of theta: that of the noise b = -dJ/dtheta, times |d2J/dtheta2|."""

        def at(theta):
            eta = np.multiply.outer(theta, x)
            b = -(s * (expit(eta) - y) * x).sum(axis=-1) - privacy.alpha * theta
            slope = (s * expit(eta) * expit(-eta) * x**2).sum(axis=-1) + privacy.alpha
            return np.exp(-0.5 * (b / privacy.sigma) ** 2) / (privacy.sigma * np.sqrt(2 * np.pi)) * slope

        return at

    p, q = density(x, y, s), density(x[:-1], y[:-1], s[:-1])
    if swapped:
        p, q = q, p
    widest = 12 * privacy.sigma / privacy.alpha + s.sum() / privacy.alpha
    theta = np.linspace(-widest, widest, 40_001)
    P, Q = p(theta), q(theta)
    for mass in (np.trapezoid(P, theta), np.trapezoid(Q, theta)):
        assert mass == pytest.approx(1.0, abs=1e-6)
    return float(np.trapezoid(np.maximum(P - np.exp(privacy.row_epsilon) * Q, 0.0), theta))


@pytest.mark.parametrize("swapped", [False, True], ids=["leaves", "joins"])
@pytest.mark.parametrize(("epsilon", "alpha"), [(0.1, 1.0), (0.5, 0.05), (0.2, 50.0)])
def test_one_row_is_hidden_as_is_said(epsilon, alpha, swapped):
    privacy = Privacy.bought(epsilon, 0.1, 1, 1.0, alpha)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1.0, 1.0, 6), (rng.random(6) < 0.5).astype(float)
    for label in (0.0, 1.0):
        x[-1], y[-1] = 1.0, label
        assert hockey_stick(privacy, x, y, swapped=swapped) <= privacy.row_delta


@pytest.mark.parametrize("swapped", [False, True], ids=["leaves", "joins"])
def test_a_row_against_all_others_needs_nearly_all_of_the_noise(swapped):
    x, y = np.array([-1.0, 1.0]), np.ones(2)  # theta is far below 0, where d1 of x = 1 is -1
    privacy = Privacy.bought(0.2, 0.1, 1, 1.0, 50.0)
    found = hockey_stick(privacy, x, y, swapped=swapped, others=3000)
    assert 0.8 * privacy.row_delta < found <= privacy.row_delta
    less = replace(privacy, sigma=0.8 * privacy.sigma)
    assert hockey_stick(less, x, y, swapped=swapped, others=3000) > privacy.row_delta


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_the_noise_is_that_of_the_gradient_and_of_the_jacobian(alpha):
    privacy = Privacy.bought(1.0, 1e-5, 1, 2.0, alpha)
    curvature = np.log1p(0.25 * 2.0**2 / privacy.alpha)  # of a row beside the penalty
    assert curvature <= 0.5 + 1e-12
    found = accounting.delta(1.0 - curvature, 2.0 / privacy.sigma)
    assert 0.999 * 1e-5 < found <= 1e-5


def test_more_noise_is_asked_for_where_more_is_promised():
    base = Privacy.bought(1.0, 1e-5, 1, 1.0, 1.0)
    assert base.alpha == 1.0
    assert Privacy.bought(0.5, 1e-5, 1, 1.0, 1.0).sigma > base.sigma
    assert Privacy.bought(1.0, 1e-7, 1, 1.0, 1.0).sigma > base.sigma
    assert Privacy.bought(1.0, 1e-5, 3, 1.0, 1.0).sigma > 3 * base.sigma
    assert Privacy.bought(1.0, 1e-5, 1, 2.0, 4.0).sigma == pytest.approx(2 * base.sigma)  # all twice as long
    assert Privacy.bought(1.0, 1e-5, 1, 1.0, 1e-3).alpha == pytest.approx(0.25 / np.expm1(0.5))


def test_the_promise_for_several_rows_is_that_of_group_privacy():
    privacy = Privacy.bought(1.0, 1e-5, 4, 1.0, 1.0)
    one = privacy.row_epsilon
    assert one == 0.25
    total = sum(np.exp(one * k) for k in range(4)) * privacy.row_delta  # delta of a chain of four neighbours
    assert total == pytest.approx(1e-5)


def test_the_model_is_the_minimiser_with_noise_of_that_size():
    strategy, X, y = made()
    privacy = strategy.privacy
    assert (privacy.epsilon, privacy.delta, privacy.rows) == (1.0, 1e-5, 1)
    theta = strategy.model.coef_[0]
    g = X.T @ (expit(X @ theta) - y) + privacy.alpha * theta  # = -b
    assert np.linalg.norm(g) == pytest.approx(privacy.sigma * np.sqrt(6), rel=0.8)
    assert strategy.residual() < 1e-2
    draws = []
    for seed in range(60):
        strategy, _, _ = made(random_state=seed)
        theta = strategy.model.coef_[0]
        draws.append(-(X.T @ (expit(X @ theta) - y) + privacy.alpha * theta) / privacy.sigma)
    assert np.std(draws) == pytest.approx(1.0, abs=4 / np.sqrt(2 * 360))
    assert abs(np.mean(draws)) < 4 / np.sqrt(360)


def test_the_model_handed_over_stays_as_it_is():
    X, y, _ = make_data("logistic").rows
    model = ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y)
    before = model.coef_.copy()
    strategy = PrivateTraining(model, X, y, **PRIVATE)
    assert_array_equal(model.coef_, before)
    assert strategy.model is not model


def test_there_is_nothing_to_do_until_the_promise_is_used_up():
    strategy, X, y = made(rows=4)
    theta = strategy.model.coef_.copy()
    assert strategy.rows_left == 4
    assert strategy.apply(ex.RemoveRows([0, 1])).passes == 0
    assert strategy.rows_left == 2
    assert strategy.apply(ex.CorrectLabels([2], 1.0 - y[2])).passes == 0  # one leaves, one joins
    assert strategy.rows_left == 0
    assert_array_equal(strategy.model.coef_, theta)
    update = strategy.apply(ex.AddRows(X[:1], y[:1]))
    assert update.passes > 0
    assert strategy.rows_left == 4
    assert strategy.residual() < 1e-2  # of the corrected data, with the noise that is new
    b = -(lambda X, y, t: X.T @ (expit(X @ t) - y) + strategy.privacy.alpha * t)(
        *strategy.corrected_data()[:2], strategy.model.coef_[0]
    )
    old = -(X.T @ (expit(X @ theta[0]) - y) + strategy.privacy.alpha * theta[0])
    assert np.abs(b - old).max() > 0.1 * strategy.privacy.sigma


def test_a_request_that_fails_does_not_count():
    strategy, X, _ = made(rows=2)
    with pytest.raises(ValueError, match="999"):
        strategy.apply([ex.RemoveRows([0]), ex.RemoveRows([999])])
    assert strategy.rows_left == 2
    with pytest.raises(ValueError, match=r"a row has norm .* above row_norm=8"):
        strategy.apply(ex.CorrectValues([3], [0], 100.0))
    assert strategy.rows_left == 2
    assert_array_equal(strategy.corrected_data()[0], X)


def test_revoked_columns_count_their_rows_and_lose_their_coefficients():
    data = make_data("logistic")
    data.X[3:, 2] = 0.0
    model = ex.LogisticRegression(1.0, fit_intercept=False).fit(data.X, data.y)
    strategy = PrivateTraining(model, data.X, data.y, rows=6, **PRIVATE)
    before = strategy.model.coef_[0]
    assert strategy.apply(COLUMN).passes == 0
    assert strategy.rows_left == 0
    assert_array_equal(strategy.model.coef_[0], np.delete(before, 2))


def test_what_is_not_hidden_is_refused():
    X, y, _ = make_data("logistic").rows
    plain = ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y)
    for model, options, message in (
        (ex.Ridge(fit_intercept=False).fit(X, y), {}, "no bound, so that no noise hides a row"),
        (ex.LogisticRegression().fit(X, y), {}, "neither penalty nor noise"),
        (plain, {"row_norm": 1.0}, "above row_norm=1, which the noise is made for"),
        (plain, {"sample_weight": np.full(60, 2.0)}, "sample_weight is above 1"),
        (plain, {"epsilon": 0.0}, "epsilon must be"),
        (plain, {"delta": 1.0}, "delta must be"),
        (plain, {"rows": 0}, "rows must be an integer"),
        (plain, {"row_norm": -1.0}, "row_norm must be"),
    ):
        with pytest.raises(ValueError, match=message):
            PrivateTraining(model, X, y, **(PRIVATE | options))
    with pytest.raises(ex.CertificateError, match="below 2"):
        PrivateTraining(plain, X, y, delta=1e-20, row_norm=8.0)


def test_without_a_seed_noise_is_never_the_same():
    thetas = [made(random_state=None)[0].model.coef_ for _ in range(2)]
    assert not np.array_equal(*thetas)
    a, b = (made()[0].model.coef_ for _ in range(2))
    assert_array_equal(a, b)
