"""Chord steps from a second anchor (E26): what is proven of them, beside minimisers in long double."""

import numpy as np
import pytest
from long_double import distance_to_minimum, residual
from scipy import sparse

import expunge
from expunge import _core, reference
from expunge.errors import NotPositiveDefiniteError

ROUNDED = 1e-9  # standard errors that the rounding of theta to doubles may be worth
SHAPES = ["plain", "scaled", "heavy tails", "weights", "equal rows", "few rows", "saturated"]


def rows_of(rng, shape, n, d):
    """X (n, d), y (n,), s (n,) or None."""
    X, s = rng.standard_normal((n, d)), None
    if shape == "scaled":
        X *= 10.0 ** rng.uniform(-2, 1, d)
    if shape == "heavy tails":
        X = rng.standard_t(2.5, size=(n, d))
    if shape == "weights":
        s = 10.0 ** rng.uniform(-2, 2, n)
    if shape == "equal rows":
        X = X[rng.integers(0, min(4, n), n)]
    if shape == "saturated":
        X *= 30.0
    y = (rng.random(n) < 1 / (1 + np.exp(-X @ rng.standard_normal(d)))) * 1.0
    y[:2] = 0.0, 1.0
    return X, y, s


class Random:
    """A problem, two anchors near its minimum, and the data after a request."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.shape = SHAPES[seed % len(SHAPES)]
        self.fit_intercept = bool(rng.integers(2))
        d = int(rng.integers(1, 5))
        n = int(rng.integers(4, 9)) if self.shape == "few rows" else int(rng.integers(15, 70))
        self.X, self.y, self.s = rows_of(rng, self.shape, n, d)
        self.alpha = 10.0 ** rng.uniform(-2, 1)
        p = d + self.fit_intercept
        best = np.ravel(self.solution(self.X, self.y, self.s))
        scale = (1 + np.abs(best).max()) / (1 if self.shape != "saturated" else 30)
        self.anchor = best + scale * 10.0 ** rng.uniform(-5, 0) * rng.standard_normal(p)
        self.theta = best + scale * 10.0 ** rng.uniform(-7, -0.5) * rng.standard_normal(p)

    def solution(self, X, y, s):
        J = self.objective(X, y, s)
        zero = np.zeros(X.shape[1] + self.fit_intercept)
        return _core.minimize(J, zero, 1e-9, 200, None, None, None).theta

    def objective(self, X, y, s):
        s = np.ones(len(y)) if s is None else s
        penalty = np.full(X.shape[1], self.alpha)
        penalty = np.append(penalty, 0.0) if self.fit_intercept else penalty
        norm = float(np.sqrt((X**2).sum(axis=1).max()))
        return _core.Objective([(X, y, s)], "logistic", penalty, self.fit_intercept, largest_norm=norm)

    def statistics(self):
        """Of the first data, with the second anchor."""
        J = self.objective(self.X, self.y, self.s)
        norm = float(np.sqrt((self.X**2).sum(axis=1).max()))
        at, floor = J.evaluate(self.anchor), J.rounding_floor(self.anchor)
        first = _core.AnchoredStatistics(J, _core.Anchor(J, self.anchor), at, floor, norm)
        second, here = first.measure_beside(J, self.theta)
        np.testing.assert_allclose(here.gradient, J.evaluate(self.theta).gradient, rtol=1e-9, atol=1e-9)
        assert here.value == pytest.approx(J.evaluate(self.theta).value, rel=1e-12)
        return second

    def edited(self, statistics, kind):
        """Statistics after a request of this kind, and the data (X, y, s) after it."""
        rng, X, y, s = self.rng, self.X, self.y, self.s
        ones = np.ones(len(y)) if s is None else s
        gone, extra = np.zeros(len(y), dtype=bool), rows_of(rng, self.shape, 2, X.shape[1])
        if kind in ("remove", "change"):
            gone[rng.integers(2, len(y), 1 + rng.integers(2))] = True
        more = extra[0][:1] * 2.0, extra[1][:1], np.full(1, 3.0)
        if kind == "label":
            k = int(rng.integers(2, len(y)))
            gone[k], more = True, (X[k : k + 1], 1.0 - y[k : k + 1], ones[k : k + 1])
        before = [tuple(np.ascontiguousarray(part[gone]) for part in (X, y, ones))] if gone.any() else None
        after = [more] if kind != "remove" else None
        statistics, _ = statistics.edit(before, after, None, self.theta)
        left = [part[~gone] for part in (X, y, ones)]
        if after is not None:
            left = [np.concatenate(both) for both in zip(left, more, strict=True)]
        return statistics, tuple(left)

    def check(self, theta, bound, distance, data):
        """Whether bounds were there; fails if one of them does not hold."""
        X, y, s = data
        options = self.alpha, self.fit_intercept
        assert residual("logistic", X, y, s, theta, *options) <= bound, self.shape
        if distance < np.inf:
            true = distance_to_minimum("logistic", X, y, s, theta, *options)
            assert true <= distance * (1 + 1e-6) + ROUNDED, self.shape
        return bound < np.inf, distance < np.inf


def bounds_hold(seeds):
    found = np.zeros(2)
    for seed in seeds:
        problem = Random(seed)
        statistics = problem.statistics()
        if statistics.second is None:
            continue
        kind = ["none", "remove", "add", "change", "label"][seed % 5]
        data = problem.X, problem.y, problem.s
        if kind != "none":
            statistics, data = problem.edited(statistics, kind)
            if statistics.second is None or not (data[1].min() < data[1].max()):
                continue
        try:
            step = statistics.step()
        except NotPositiveDefiniteError:
            continue
        found += problem.check(*step, data)
    return found / len(seeds)


def test_bounds_hold_for_random_problems():
    residuals, distances = bounds_hold(range(700))
    assert residuals > 0.7
    assert distances > 0.3


@pytest.mark.slow
def test_bounds_hold_for_many_random_problems():
    bounds_hold(range(1000, 4000))


def test_the_reference_is_proven_for_any_step():
    for seed in range(300):
        problem = Random(seed)
        rng, (X, y, s) = problem.rng, (problem.X, problem.y, problem.s)
        options = {"alpha": problem.alpha, "sample_weight": s, "fit_intercept": problem.fit_intercept}
        _, bound, distance, _ = exact = reference.chord_step(X, y, problem.anchor, problem.theta, **options)
        problem.check(exact[0], bound + 1e-12 * (1 + bound), distance, (X, y, s))
        delta = (exact[0] - problem.theta) * rng.uniform(0.5, 1.5, exact[0].size)  # a bad linear solve
        other = reference.chord_step(X, y, problem.anchor, problem.theta, delta=delta, **options)
        problem.check(other[0], other[1] + 1e-12 * (1 + other[1]), other[2], (X, y, s))


def test_bounds_are_those_of_the_reference():
    compared = 0
    for seed in range(120):
        problem = Random(seed)
        X, y, s = problem.X, problem.y, problem.s
        statistics = problem.statistics()
        theta, bound, distance = statistics.step()
        expected, residual_bound, sharper, _ = reference.chord_step(
            X,
            y,
            problem.anchor,
            problem.theta,
            alpha=problem.alpha,
            sample_weight=s,
            fit_intercept=problem.fit_intercept,
        )
        if statistics.second is None or not residual_bound > 1e-6 or problem.shape == "saturated":
            continue
        np.testing.assert_allclose(theta, expected, rtol=1e-6, atol=1e-9)
        assert bound == pytest.approx(residual_bound, rel=1e-3)
        assert distance >= sharper * (1 - 1e-3)  # rows there are bounded by the longest one
        compared += 1
    assert compared > 40


def test_a_curvature_that_vanishes_leaves_no_second_anchor():
    X, y = np.array([[1.0], [-1.0], [800.0], [2.0]]), np.array([0.0, 1.0, 1.0, 1.0])
    penalty = np.ones(1)
    for a, b, there in [(1.0, 1.001, False), (0.1, 1.0, False), (1.0, 0.1, False), (0.1, 0.1001, True)]:
        J = _core.Objective([(X, y, np.ones(4))], "logistic", penalty, False, largest_norm=800.0)
        theta = np.array([a])
        first = _core.AnchoredStatistics(J, _core.Anchor(J, theta), J.evaluate(theta), 1e-12, 800.0)
        statistics, _ = first.measure_beside(J, np.array([b]))
        assert (statistics.second is not None) == there, (a, b)
    # and a row that comes with such a curvature takes it away; one of weight 0 does not
    for weight, there in [(1.0, False), (0.0, True)]:
        row = np.array([[1e5]]), np.ones(1), np.array([weight])
        edited, _ = statistics.edit(None, [row], None, np.array([0.1]))
        assert (edited.second is not None) == there


def test_what_outlives_the_rows_has_no_second_anchor():
    problem = Random(0)
    statistics = problem.statistics()
    assert statistics.second is not None
    row = [(problem.X[2:3].copy(), problem.y[2:3].copy(), np.ones(1))]
    for kept in (
        statistics.fold(),
        statistics.round_up(),
        statistics.merge(statistics),
        statistics.edit(row, None, None, problem.theta, True)[0],
    ):
        assert kept.second is None
    assert statistics.edit(row, None, None, problem.theta)[0].second is not None


def test_the_floor_that_is_known_near_by_holds():
    sharper = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(20, 400)), int(rng.integers(1, 30))
        X, y, s = rows_of(rng, SHAPES[seed % 5], n, d)
        s = np.ones(n) if s is None else s
        fit_intercept = bool(seed % 2)
        penalty = np.append(np.full(d, 0.5), np.zeros(int(fit_intercept)))
        norm = 2.0 * float(np.sqrt((X**2).sum(axis=1).max()))

        def objective(*parts, penalty=penalty, fit_intercept=fit_intercept, norm=norm):
            return _core.Objective(list(parts), "logistic", penalty, fit_intercept, largest_norm=norm)

        J, p = objective((X, y, s)), penalty.size
        a = rng.standard_normal(p) / np.sqrt(p)
        b = a + 10.0 ** rng.uniform(-4, -0.5) / norm * rng.standard_normal(p) / np.sqrt(p)
        at = J.evaluate(a)
        statistics = _core.AnchoredStatistics(J, _core.Anchor(J, a, None, at), at, J.rounding_floor(a), norm)
        gone = np.arange(int(rng.integers(0, 5)))
        more = (2.0 * X[:3], y[:3].copy(), np.full(3, 2.0)) if seed % 3 == 0 else None
        before = [tuple(np.ascontiguousarray(part[gone]) for part in (X, y, s))] if gone.size else None
        statistics, _ = statistics.edit(before, [more] if more else None, None, a)
        s = s.copy()
        s[gone] = 0.0
        now = objective((X, y, s), *([more] if more else []))
        statistics, at = statistics.measure_beside(now, b)
        if statistics.second is None:
            continue
        floor = statistics.second_error
        assert now.rounding_floor(b) <= floor * (1 + 1e-12)
        assert floor <= at.floor
        sharper += floor < 0.7 * at.floor
    assert sharper > 60


@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sparse.csr_array])
def test_one_pass_gives_the_gradient_and_how_far_curvatures_moved(form):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((700, 6)), (rng.random(700) < 0.4) * 1.0
    s = rng.uniform(0.5, 2.0, 700)
    s[::7] = 0.0
    X[::7] *= 1e200  # rows of weight 0 are not there
    X[np.abs(X) < 0.3] = 0.0
    a, b = 0.3 * rng.standard_normal((2, 7))
    J = _core.Objective([(form(X), y, s)], "logistic", np.append(np.ones(6), 0.0), True, largest_norm=9.0)
    at = J.evaluate(a)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, a, None, at), at, J.rounding_floor(a), 9.0)
    statistics, found = first.measure_beside(J, b)
    expected, A = J.evaluate(b), np.column_stack([X, np.ones(700)])[s > 0]
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-12, atol=1e-12)
    assert found.value == pytest.approx(expected.value, rel=1e-13)
    assert found.floor == pytest.approx(expected.floor, rel=1e-12)
    d2 = [1 / (2 + np.exp(A @ theta) + np.exp(-A @ theta)) for theta in (a, b)]
    theta, kappa, Q = statistics.second
    np.testing.assert_array_equal(theta, b)
    assert kappa == pytest.approx(np.abs(d2[1] / d2[0] - 1).max(), rel=1e-12)
    assert pytest.approx((s[s > 0] * (d2[1] - d2[0]) ** 2 / d2[0]).sum(), rel=1e-12) == Q


def data_that_attain_the_bound(rng, d):
    """E25's rows (X, y, s), an anchor and alpha: all that the step moves is one row, as long as any."""
    alpha, R, margin = 1e-3, 3.0, 4.0
    A = rng.standard_normal((40 * d, d))
    G = A.T @ A
    delta = rng.standard_normal(d)
    delta *= 0.02 / R / np.linalg.norm(delta)
    x = R * (G @ delta) / np.linalg.norm(G @ delta)
    weight = 1.0 / (x @ np.linalg.solve(G, x))  # s d2: what is left of G maps delta to 0
    values, vectors = np.linalg.eigh(G - weight * np.outer(x, x))
    rows = np.vstack([x, vectors.T[values > 1e-9 * values.max()]])
    curvature = np.append(weight, values[values > 1e-9 * values.max()])
    anchor = margin * x / R**2
    sigma = 1 / (1 + np.exp(-rows @ anchor))
    d2 = sigma * (1 - sigma)
    share = sigma + d2 * (rows @ np.linalg.solve(G, alpha * anchor + (G + alpha * np.eye(d)) @ delta))
    assert share.min() > 0
    assert share.max() < 1
    s = curvature / d2  # labels are shares of two rows
    both = np.concatenate([s * share, s * (1 - share)])
    y = np.repeat([1.0, 0.0], len(s))
    return np.vstack([rows, rows]), y, both, anchor, alpha, delta


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_from_the_first_anchor_is_attained(seed):
    """So that a bound that is too small cannot pass (E25)."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 12))
    X, y, s, anchor, alpha, delta = data_that_attain_the_bound(rng, d)
    norm = float(np.sqrt((X**2).sum(axis=1).max()))
    J = _core.Objective([(X, y, s)], "logistic", np.full(d, alpha), False, largest_norm=norm)
    at = J.evaluate(anchor)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, anchor), at, J.rounding_floor(anchor), norm)
    theta, bound, distance = first.step()
    np.testing.assert_allclose(theta - anchor, delta, rtol=1e-6, atol=1e-12)
    true = residual("logistic", X, y, s, theta, alpha, False)
    assert 0.7 * bound <= true <= bound
    assert distance_to_minimum("logistic", X, y, s, theta, alpha, False) <= distance * (1 + 1e-6)
    # A second anchor there, and the next chord step: never below the truth either.
    second, _ = first.measure_beside(J, theta)
    theta, bound, distance = second.step()
    assert residual("logistic", X, y, s, theta, alpha, False) <= bound < 0.1 * true
    assert distance_to_minimum("logistic", X, y, s, theta, alpha, False) <= distance * (1 + 1e-6) + ROUNDED


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_is_attained_where_the_long_row_came_last(seed):
    """R is that of the rows as they are, in whatever order they came."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 12))
    X, y, s, anchor, alpha, delta = data_that_attain_the_bound(rng, d)
    long = np.linalg.norm(X, axis=1) > 2.0
    before, came = ([(X[k], y[k], s[k])] for k in (~long, long))
    J = _core.Objective(before, "logistic", np.full(d, alpha), False, largest_norm=1.0)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, anchor), J.evaluate(anchor), 1e-12, 1.0)
    theta, bound, distance = first.edit(None, came, None, anchor)[0].step()
    np.testing.assert_allclose(theta - anchor, delta, rtol=1e-6, atol=1e-12)
    assert 0.7 * bound <= residual("logistic", X, y, s, theta, alpha, False) <= bound
    assert distance_to_minimum("logistic", X, y, s, theta, alpha, False) <= distance * (1 + 1e-6)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
def test_a_measured_distance_is_attained_where_the_long_row_came_last(share):
    """One row, far from the boundary and hardly penalised: its curvature falls as fast as any may (E41)."""
    X, y, s, theta = np.array([[0.01], [3.0]]), np.ones(2), np.array([1e-6, 1.0]), np.array([4.0])
    A, b = 3.0 * np.exp(-12.0), np.log1p(-share) / 3.0  # its gradient, and the way to the minimum
    alpha = A * (1 - share) / (4.0 - b)
    J = _core.Objective([(X[:1], y[:1], s[:1])], "logistic", np.full(1, alpha), False, largest_norm=0.01)
    at = J.evaluate(theta)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, theta), at, 1e-18, 0.01)
    statistics, _ = first.edit(None, [(X[1:], y[1:], s[1:])], None, theta)
    whole = _core.Objective([(X, y, s)], "logistic", np.full(1, alpha), False, largest_norm=3.0)
    distance = statistics.distance(theta, whole.evaluate(theta), 1e-18)
    true = distance_to_minimum("logistic", X, y, s, theta, alpha, False)
    assert 0.5 * distance <= true <= distance * (1 + 1e-6), (true, distance)


def test_bits_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9000, 40)), (rng.random(9000) < 0.5) * 1.0
    a, b = 0.1 * rng.standard_normal((2, 40))
    count, found = expunge.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            expunge.set_num_threads(threads)
            J = _core.Objective([(X, y, np.ones(9000))], "logistic", np.ones(40), False, largest_norm=12.0)
            at = J.evaluate(a)
            first = _core.AnchoredStatistics(J, _core.Anchor(J, a, None, at), at, J.rounding_floor(a), 12.0)
            statistics, there = first.measure_beside(J, b)
            step = statistics.step()
            found.append((there.gradient.tobytes(), statistics.second[1:], step[0].tobytes(), step[1:]))
    finally:
        expunge.set_num_threads(count)
    assert found[0] == found[1] == found[2]


def test_a_solution_follows_single_rows():
    """The step after a stream of rows is that of a system solved anew."""
    problem = Random(0)
    X, y, _ = rows_of(problem.rng, "plain", 400, 6)
    problem.fit_intercept, problem.alpha = True, 1.0
    J = problem.objective(X, y, None)
    a, b = 0.3 * problem.rng.standard_normal((2, 7))
    at = J.evaluate(a)
    first = _core.AnchoredStatistics(J, _core.Anchor(J, a, None, at), at, J.rounding_floor(a), 9.0)
    followed = alone = first.measure_beside(J, b)[0]
    for row in range(2, 9):
        block = [(X[row : row + 1].copy(), y[row : row + 1].copy(), np.ones(1))]
        sides = (block, None) if row % 3 else (None, block)
        followed.step()  # makes the solution that the edit then moves
        followed, alone = (one.edit(*sides, None, b)[0] for one in (followed, alone))
    np.testing.assert_allclose(followed.step()[0], alone.step()[0], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(followed.step()[1:], alone.step()[1:], rtol=1e-6)
    assert followed.second[1:] == alone.second[1:]
