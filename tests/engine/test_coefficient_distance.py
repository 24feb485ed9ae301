"""How far coefficients are from the minimum's, by sums alone (E24), beside minimisers in long double."""

import numpy as np
import pytest
from long_double import coefficients_to_minimum
from random_problems import RandomProblem, one_far_row

from expunge import _core, kernels, reference
from expunge.errors import NotPositiveDefiniteError

ROUNDED = 1e-9  # what the rounding of theta to doubles may be worth, of coefficients near 1


def bounds_hold(seeds, loss="logistic"):
    """How often there were bounds: of steps from one anchor and from two, and of measured points."""
    found = np.zeros(3)
    for seed in seeds:
        problem = RandomProblem(seed, loss)
        statistics = problem.statistics()
        if seed % 3:
            statistics = problem.edited(statistics)
        J = problem.objective(problem.X, problem.y, problem.s)
        try:
            theta = statistics.step()[0]
            bounds = [(theta, statistics.coefficient_distance())]
        except NotPositiveDefiniteError:
            continue
        size = 10.0 ** problem.rng.uniform(-4, 0.3)
        other = theta + size * problem.rng.standard_normal(theta.size)  # a step with a bad linear solve
        at = J.evaluate(other)
        measured = statistics.coefficient_distance_at(other, at, J.rounding_floor(other))
        if loss == "logistic":
            both, _ = statistics.measure_beside(J, theta)
            bounds.append((both.step()[0], both.coefficient_distance()))
        bounds.append((other, measured))
        for k, (end, bound) in enumerate(bounds):
            if bound < np.inf:
                assert problem.coefficients(end) <= bound * (1 + 1e-6) + ROUNDED, (seed, k, problem.shape)
                found[k] += 1
    return found / len(seeds)


def test_bounds_hold_for_random_problems():
    assert (bounds_hold(range(400)) > 0.3).all()
    assert (bounds_hold(range(100), "squared")[:2] > 0.9).all()


@pytest.mark.slow
def test_bounds_hold_for_many_random_problems():
    bounds_hold(range(1000, 3000))


@np.errstate(over="ignore")
def test_the_reference_holds_for_any_step_and_is_never_above_the_kernel():
    closest = np.inf
    for seed in range(400):
        problem = RandomProblem(seed)
        rng, (X, y, s) = problem.rng, (problem.X, problem.y, problem.s)
        options = {"alpha": problem.alpha, "sample_weight": s, "fit_intercept": problem.fit_intercept}
        theta, *_, bound = reference.chord_step(X, y, problem.anchor, problem.anchor, **options)
        kernel = problem.statistics().coefficient_distance()
        assert bound <= kernel * (1 + 1e-6) + ROUNDED
        delta = (theta - problem.anchor) * rng.uniform(0.3, 1.7, theta.size)
        b = problem.anchor + 10.0 ** rng.uniform(-3, 0) * (theta - problem.anchor)
        other, *_, more = reference.chord_step(X, y, problem.anchor, b, delta=delta, **options)
        for end, bounded in ((theta, bound), (other, more)):
            if bounded < np.inf:
                true = problem.coefficients(end)
                assert true <= bounded * (1 + 1e-6) + ROUNDED, (seed, problem.shape)
                closest = min(closest, bounded / true) if true > 1e-6 else closest
    assert closest < 2.0


@pytest.mark.parametrize("curvature", [0.5, 1.0, 2.0])
def test_the_bound_of_a_step_is_attained(curvature):
    """One row, as much curvature as penalty: half of what the remainder is, and no less."""
    alpha, eta = 1.0, 12.0
    weight = curvature * alpha * np.exp(eta) / 4.0
    _, anchor, statistics, data = one_far_row(weight, eta, alpha)
    # a label that asks for a short step: g_a is added through a second row without curvature of its own
    delta = 0.01
    g = statistics.at.gradient[0]
    pull = -(g + (1.0 + curvature) * alpha * delta) / 2e-6
    far = np.array([[2e-6]]), np.zeros(1), np.full(1, abs(pull) * 2.0)
    far = (np.sign(pull) * far[0], *far[1:])
    moved, _ = statistics.edit(None, [far], None, anchor)
    theta, bound = moved.step()[0], moved.coefficient_distance()
    X, y, s = (np.concatenate(both) for both in zip(data, far, strict=True))
    true = coefficients_to_minimum("logistic", X, y, s, theta, np.full(1, alpha), False)
    assert theta - anchor == pytest.approx(delta, rel=0.01)
    assert 0.85 * bound <= true <= bound, true / bound


@pytest.mark.parametrize("share", [0.3, 0.632])
def test_the_bound_of_a_measured_point_counts_the_way_to_the_minimum(share):
    """With rho* = 1 at a share of 0.632: the curvature of its row falls by e on the way."""
    eta = 8.0
    A = 2.0 * np.exp(-eta)
    alpha = A * (1 - share) / (4.0 - np.log1p(-share) / 2.0)
    J, theta, statistics, data = one_far_row(1.0, eta, alpha)
    bound = statistics.coefficient_distance_at(theta, J.evaluate(theta), 1e-18)
    true = coefficients_to_minimum("logistic", *data, theta, np.full(1, alpha), False)
    plain = np.sqrt(alpha) * np.linalg.norm(J.evaluate(theta).gradient) / statistics.anchor.hessian[0, 0]
    assert np.sqrt(alpha) * plain < true <= bound <= 3.0 * true


def test_it_is_far_below_what_the_residual_says_where_data_outweigh_the_penalty():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 5))
    y = (X[:, 0] + rng.logistic(size=3000) > 0) * 1.0
    J = _core.Objective([(X, y, np.ones(3000))], "logistic", np.ones(5), False, largest_norm=6.0)
    theta = _core.minimize(J, np.zeros(5), 1e-9, 100, None, None, None).theta
    at = J.evaluate(theta)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, theta), at, J.rounding_floor(theta), 6.0)
    gone = [(X[:30].copy(), y[:30].copy(), np.ones(30))]
    edited, _ = first.edit(gone, None, None, theta)
    end, residual, _ = edited.step()
    bound = edited.coefficient_distance()
    true = coefficients_to_minimum("logistic", X[30:], y[30:], None, end, np.ones(5), False)
    assert true <= bound < 0.05 * residual
    J = _core.Objective([(X[30:], y[30:], np.ones(2970))], "logistic", np.ones(5), False, largest_norm=6.0)
    measured = edited.coefficient_distance_at(end, J.evaluate(end), J.rounding_floor(end))
    assert true <= measured < bound


def test_public_statistics_tell_it_too():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((500, 3))
    y = (X[:, 0] + rng.logistic(size=500) > 0) * 1.0
    theta, alpha = np.zeros(4), np.array([0.5, 2.0, 1.0])
    for _ in range(4):  # Newton's method
        theta = kernels.AnchoredStatistics(X, y, theta, alpha=alpha, fit_intercept=True).theta()
    sums = kernels.AnchoredStatistics(X, y, theta, alpha=alpha, fit_intercept=True)
    sums.subtract(X[:5], y[:5])
    bound = sums.coefficient_bound()
    true = coefficients_to_minimum("logistic", X[5:], y[5:], None, sums.theta(), alpha, True)
    assert true <= bound < sums.residual_bound()
    kept = reference.chord_step(X[5:], y[5:], theta, theta, alpha=alpha, fit_intercept=True)[3]
    assert kept <= bound <= 3.0 * kept


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_statistics_of_no_parameters_take_a_step(fit_intercept):
    nothing, tallies = np.empty(0), _core.Tallies(*np.zeros(9).tolist())
    sums = _core.AnchoredStatistics.restore(
        nothing, np.empty((0, 0)), nothing, "logistic", nothing, fit_intercept, tallies
    )
    assert sums.step()[0].size == 0
    assert sums.coefficient_distance() == 0.0


def test_without_coefficients_there_is_nothing_to_bound_and_without_a_penalty_no_bound():
    X, y, s = np.empty((4, 0)), np.array([0.0, 1.0, 1.0, 0.0]), np.ones(4)
    J = _core.Objective([(X, y, s)], "logistic", np.zeros(1), True, largest_norm=0.0)
    theta = np.array([0.3])
    nothing = _core.AnchoredStatistics(J, _core.Anchor(J, theta), J.evaluate(theta), 0.0, 0.0)
    assert nothing.coefficient_distance() == 0.0
    X = np.array([[1.0], [-1.0], [2.0], [0.5]])
    J = _core.Objective([(X, y, s)], "logistic", np.zeros(1), False, largest_norm=2.0)
    free = _core.AnchoredStatistics(J, _core.Anchor(J, theta), J.evaluate(theta), 0.0, 2.0)
    assert free.coefficient_distance() == np.inf
