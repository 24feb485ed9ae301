"""Distances (E41) where rows are measured, beside the Hessian or about a centre: they hold, in any units."""

import pickle

import numpy as np
import pytest
from long_double import distance_to_minimum
from problems import adult
from random_problems import RandomProblem, one_far_row
from scipy import sparse

import expunge as ex
from expunge import _core, kernels
from expunge.errors import NotPositiveDefiniteError

ROUNDED = 1e-9  # below it theta, rounded to doubles, is what is measured
KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
each_loss = pytest.mark.parametrize("loss", KINDS)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


def distances_hold(seeds, loss="logistic", *, about=False):
    """How often there were bounds: of steps, of measured points by a factor, and by the penalty alone.

    `about`: rows are known by a ball, in columns that have their zero anywhere.
    """
    found = np.zeros(3)
    for seed in seeds:
        problem, ball = RandomProblem(seed, loss), None
        if about:
            problem.shift(10.0 ** problem.rng.uniform(-1, 2))
            ball, _ = _core.Ball(problem.X[:3].mean(axis=0)).around(problem.X)
        J = problem.objective(problem.X, problem.y, problem.s, ball)
        statistics = problem.statistics(ball)
        if not about:
            statistics = statistics.measure_rows(J)
        if seed % 3:
            statistics = problem.edited(statistics)
            ball = ball and ball.around(problem.X)[0]
            J = problem.objective(problem.X, problem.y, problem.s, ball)
        try:
            theta, _, bound = statistics.step()
        except NotPositiveDefiniteError:
            continue
        other = theta + 10.0 ** problem.rng.uniform(-4, 0.3) * problem.rng.standard_normal(theta.size)
        at, floor = J.evaluate(other), J.rounding_floor(other)
        norm = float(np.sqrt((problem.X**2).sum(axis=1).max()))
        bounds = [
            (theta, bound),
            (other, statistics.distance(other, at, floor)),
            (other, J.distance(other, at, floor, norm, measured=not about)),
        ]
        for k, (end, bounded) in enumerate(bounds):
            if bounded < np.inf:
                assert problem.distance(end) <= bounded * (1 + 1e-6) + ROUNDED, (seed, k, problem.shape)
                found[k] += 1
    return found / len(seeds)


def test_they_hold_for_random_problems():
    assert (distances_hold(range(300)) > [0.25, 0.15, 0.15]).all()
    assert (distances_hold(range(60), "squared") > 0.5).all()


def test_they_hold_about_a_centre():
    assert (distances_hold(range(300), about=True) > [0.2, 0.1, 0.02]).all()


@pytest.mark.slow
def test_they_hold_for_many_random_problems():
    distances_hold(range(1000, 4000))
    distances_hold(range(4000, 7000), about=True)


def scales(X):
    """Of columns, far apart; and where their zero may lie instead."""
    d = X.shape[1]
    return 10.0 ** np.linspace(-1, 1, d), np.linspace(-2.0, 2.0, d)


@each_loss
@each_intercept
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_public_statistics_bound_the_same_in_other_units(loss, fit_intercept, form):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((400, 5))
    y = X @ rng.standard_normal(5) + rng.logistic(size=400)
    y = y if loss == "squared" else (y > 0) * 1.0
    alpha, (scale, shift) = rng.uniform(0.5, 2.0, 5), scales(X)
    options = {"loss": loss, "fit_intercept": fit_intercept}
    theta = np.zeros(5 + fit_intercept)
    for _ in range(6):  # Newton's method
        theta = kernels.AnchoredStatistics(X, y, theta, alpha=alpha, **options).theta()
    near = theta + np.append(0.02 * rng.standard_normal(5), [0.01] * fit_intercept)

    def bound(X, alpha, theta):
        sums = kernels.AnchoredStatistics(form(X), y, theta, alpha=alpha, **options)
        sums.subtract(form(X[:7]), y[:7])
        sums.add(form(3.0 * X[7:8] - 2.0 * X[:1]), y[7:8])
        return sums.distance_bound()

    found = bound(X, alpha, near)
    assert 1e-3 < found < 2.0 or loss == "squared"
    scaled = near.copy()
    scaled[:5] /= scale
    assert bound(X * scale, alpha * scale**2, scaled) == pytest.approx(found, rel=1e-6, abs=ROUNDED)
    if fit_intercept:
        shifted = near.copy()
        shifted[5] -= shift @ near[:5]
        assert bound(X + shift, alpha, shifted) == pytest.approx(found, rel=1e-6, abs=ROUNDED)


@each_loss
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("shift", [3.0, 1000.7, -1e5])
def test_measured_distances_do_not_depend_on_where_columns_have_their_zero(loss, solver, shift):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((2000, 6))
    y = X @ rng.standard_normal(6) + rng.logistic(size=2000)
    y = y if loss == "squared" else (y > 0) * 1.0
    model, away = KINDS[loss](1.0, solver=solver).fit(X, y), 0.005 if solver == "cholesky" else 5e-5
    model.coef_ = model.coef_ + away * rng.standard_normal(np.shape(model.coef_))
    found = ex.distance(model, X, y)
    assert 0.001 < found < 10.0
    model.intercept_ = model.intercept_ - shift * np.sum(model.coef_)
    assert ex.distance(model, X + shift, y) == pytest.approx(found, rel=1e-6)


def test_a_distance_measured_now_is_close_to_the_true_one():
    data = adult()
    X, y = data.X, data.y
    model = ex.LogisticRegression(1.0).fit(X, y)
    un = ex.Unlearner(model, X, y)
    away, errors = 0.02 * np.random.default_rng(5).standard_normal(X.shape[1]), un.standard_errors()
    best = np.append(np.ravel(model.coef_), model.intercept_)
    model.coef_ = model.coef_ + away * errors[:-1]
    gap = np.append(np.ravel(model.coef_), model.intercept_) - best
    H = kernels.hessian(X, best, alpha=1.0, fit_intercept=True)
    true = np.sqrt(gap @ H @ gap)
    assert true <= ex.distance(model, X, y) * (1 + 1e-3) < 3.0 * true


@pytest.mark.parametrize("share", [0.3, 0.632, 0.9])
def test_the_bound_of_a_measured_point_is_attained(share):
    """Curvature falls by 1 - share on the way to the minimum: a row that counts for less would break it."""
    eta = 8.0
    A = 2.0 * np.exp(-eta)
    alpha = A * (1 - share) / (4.0 - np.log1p(-share) / 2.0)
    J, theta, statistics, data = one_far_row(1.0, eta, alpha)
    at = J.evaluate(theta)
    true = distance_to_minimum("logistic", *data, theta, np.full(1, alpha), False)
    for bound in (
        statistics.measure_rows(J).distance(theta, at, 1e-18),
        J.distance(theta, at, 1e-18, 2.0, measured=True),
    ):
        assert true <= bound
    assert statistics.measure_rows(J).distance(theta, at, 1e-18) <= 1.2 * true


@pytest.mark.parametrize("share", [0.3, 0.632, 0.9])
def test_the_bound_about_a_centre_is_attained(share):
    """The same row, where heavy ones hold the intercept: as far from their mean as a ball allows."""
    eta, heavy = 8.0, 1e5
    A = 2.0 * np.exp(-eta)
    alpha = A * (1 - share) / (4.0 - np.log1p(-share) / 2.0)
    X, y, s = np.array([[-1.0], [-1.0], [1.0]]), np.array([0.0, 1.0, 1.0]), np.array([heavy, heavy, 1.0])
    theta = np.full(2, eta / 2.0)
    ball, norm = _core.Ball(np.zeros(1)).around(X)
    assert (ball.radius, norm) == pytest.approx((1.0, 1.0))
    J = _core.Objective([(X, y, s)], "logistic", np.array([alpha, 0.0]), True, None, norm, ball=ball)
    at = J.evaluate(theta)
    statistics = _core.AnchoredStatistics(J, _core.Anchor(J, theta), at, 1e-14, norm)
    true = distance_to_minimum("logistic", X, y, s, theta, np.full(1, alpha), True)
    by_penalty, by_factor = J.distance(theta, at, 1e-14, norm), statistics.distance(theta, at, 1e-14)
    assert true <= by_factor <= 1.4 * true
    assert true <= by_penalty

    more = np.array([[1.0]]), np.ones(1), np.full(1, 1e4)  # a row that held theta leaves the factor
    sums = [np.concatenate(both) for both in zip((X, y, s), more, strict=True)]
    before = _core.Objective([tuple(sums)], "logistic", np.array([alpha, 0.0]), True, None, norm, ball=ball)
    anchor = _core.Anchor(before, theta)
    held = _core.AnchoredStatistics(before, anchor, before.evaluate(theta), 1e-14, norm)
    left, _ = held.edit([more], None, None, theta)
    assert true <= left.distance(theta, at, 1e-14) <= 1.4 * true


@pytest.mark.parametrize("shift", [-1.0, 2.0, 1000.7])
def test_updates_are_as_far_wherever_columns_have_their_zero(shift):
    rng = np.random.default_rng(8)
    X = rng.standard_normal((600, 4))
    y = (X @ rng.standard_normal(4) + rng.logistic(size=600) > 0) * 1.0
    requests = [
        lambda a: ex.RemoveRows([7]),
        lambda a: ex.CorrectLabels([8, 9], [1.0, 0.0]),
        lambda a: ex.AddRows(3.0 * X[:1] + a, [1.0]),
        lambda a: ex.CorrectValues([10], [0, 2], [[a + 1.0, a - 1.0]]),
        lambda a: ex.RemoveRows(range(20, 24)),
    ]

    def distances(a, *, each):
        model = ex.LogisticRegression(1.0, tol=1e-11).fit(X, y)
        model.intercept_ = model.intercept_ - a * np.sum(model.coef_)
        un = ex.Unlearner(model, X + a, y, within=0.3)
        if each:
            return un.apply_each([ex.RemoveRows([i]) for i in range(5)]).distance
        updates = [un.apply(request(a)) for request in requests]
        assert [update.settled for update in updates] == [False, False, True, False, False]
        return [update.distance for update in updates]

    for each in (False, True):
        found = distances(0.0, each=each)
        assert min(found) > 1e-6
        assert distances(shift, each=each) == pytest.approx(found, rel=1e-6, abs=ROUNDED)


def test_rows_that_join_are_as_long_as_they_are():
    """One that is long where H is short makes steps less sure; it has hardly any curvature of its own."""
    rng = np.random.default_rng(6)
    X = rng.standard_normal((300, 3))
    y = (X[:, 0] + rng.logistic(size=300) > 0) * 1.0
    theta = np.zeros(3)
    for _ in range(6):
        theta = kernels.AnchoredStatistics(X, y, theta, alpha=1.0).theta()

    def bound(length):
        sums = kernels.AnchoredStatistics(X, y, theta, alpha=1.0)
        sums.subtract(X[:3], y[:3])
        long = length * theta[None] / np.linalg.norm(theta)
        sums.add(long, np.ones(1), np.array([1e-6]))
        return sums.distance_bound()

    assert bound(30.0) > 3.0 * bound(1.0) > 0.0


# What outlives an edit


@each_intercept
@pytest.mark.parametrize("size", [1e6, 4e6, 1e7])
def test_a_hessian_that_was_edited_is_off_by_what_large_rows_left_in_it(fit_intercept, size):
    """Also where its statistics are gone, and others are made of it."""
    found = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y, s = rng.standard_normal((12, 3)), rng.standard_normal(12), np.ones(12)
        X[9:] *= size
        norm, free = float(np.sqrt((X**2).sum(axis=1).max())), np.zeros(3 + fit_intercept)
        penalty = np.append(np.full(3, 0.01), [0.0] * fit_intercept)

        def over(rows, penalty, parts=(X, y, s), norm=norm):
            block = tuple(np.ascontiguousarray(part[rows]) for part in parts)
            return _core.Objective([block], "squared", penalty, fit_intercept, largest_norm=norm)

        J, gone = over(slice(9), penalty), over(slice(9, None), free)
        best = _core.minimize(J, free, 1e-9, 200, None, None, None).theta
        anchor = _core.Anchor(over(slice(None), penalty), best).edit(gone, None)
        theta = best + 1e-3 * rng.standard_normal(best.size)
        at, floor = J.evaluate(theta), J.rounding_floor(theta)
        try:
            statistics = _core.AnchoredStatistics(J, anchor, at, floor, norm)
            bound = statistics.distance(theta, at, floor)
        except NotPositiveDefiniteError:
            continue
        if bound < np.inf:
            true = distance_to_minimum("squared", X[:9], y[:9], s[:9], theta, penalty[:3], fit_intercept)
            assert true <= bound * (1 + 1e-6) + ROUNDED, seed
            found += 1
    assert found >= {1e6: 25, 4e6: 10, 1e7: 0}[size]


@each_intercept
@pytest.mark.parametrize("request_", [ex.RevokeFeatures([1]), ex.CorrectLabels([3], 0.5)])
def test_attached_rows_do_not_bring_back_what_left_while_they_were_away(fit_intercept, request_):
    """The Hessian of the sums holds the rounding of a large row that left them."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((12, 4)), rng.standard_normal(12)
        X[-1] *= 10.0 ** rng.uniform(6, 8)
        model = ex.Ridge(1e-2, fit_intercept=fit_intercept).fit(X, y)
        try:
            un = ex.Unlearner(model, X, y, within=1e6).detach()
            un.apply(ex.Edit(before=(X[-1:], y[-1:])), method="second_order")
        except NotPositiveDefiniteError:
            continue
        un.attach(X[:-1], y[:-1])
        update = un.apply(request_, method="second_order")
        left, targets, _ = un.corrected_data()
        theta = np.append(model.coef_, [model.intercept_] * fit_intercept)
        true = distance_to_minimum("squared", left, targets, None, theta, 1e-2, fit_intercept)
        assert true <= update.distance * (1 + 1e-6) + ROUNDED, seed
        assert update.distance < 1e-3  # the step is Newton's, of a Hessian of these rows
        found += 1
    assert found >= 20


def lengths_of(X, statistics):
    """Of these rows, in the norms that the statistics' Hessian gives."""
    H, penalty = statistics.hessian, statistics._statistics.penalty
    d = X.shape[1]
    m, e = np.zeros(d), np.diag(H).copy()
    if len(H) > d:
        m = H[d, :d] / e[d]
        e[:d] = np.maximum(e[:d] - e[d] * m**2, 1e-12 * e[:d])
    e = np.maximum(e[:d], penalty[:d])
    return [float(np.sqrt(((X - m) ** 2 / norm).sum(axis=1).max())) for norm in (e, penalty[:d])]


def shards(seed, fit_intercept, scale=1.0, shift=0.0):
    """Statistics of two shards, and what is left: rows leave that held a column, or the shards lie apart."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((400, 3))
    if seed % 2:
        X[190:200, 1] *= 8.0
    else:
        X[200:, 0] += 6.0
    y = (X[:, 0] + rng.logistic(size=400) > 0) * 1.0
    theta, left = np.zeros(3 + fit_intercept), np.r_[0:190, 200:400]
    for _ in range(6):  # Newton's method
        theta = kernels.AnchoredStatistics(
            X[left], y[left], theta, alpha=1.0, fit_intercept=fit_intercept
        ).theta()
    theta += 0.003 * rng.standard_normal(theta.size)
    theta[:3] /= scale
    theta[3:] -= np.sum(shift * theta[:3])
    X, alpha = X * scale + shift, np.ones(3) * scale**2
    options = {"alpha": alpha, "fit_intercept": fit_intercept}
    one = kernels.AnchoredStatistics(X[:200], y[:200], theta, **options)
    other = kernels.AnchoredStatistics(X[200:300], y[200:300], theta, **options)
    one.subtract(X[190:200], y[190:200])
    other.add(X[300:], y[300:])
    return one, other, (X[left], y[left], alpha)


@each_intercept
@pytest.mark.parametrize("seed", range(5))
def test_merged_and_pickled_statistics_know_how_long_rows_are(fit_intercept, seed):
    one, other, (X, y, alpha) = shards(seed, fit_intercept)
    kept, merged = pickle.loads(pickle.dumps(one)), one.merge(other)
    for statistics, rows, most in [
        (merged, X, 8.0),  # rows that left are as long as they were
        (kept, X[:190], 16.0),
        (pickle.loads(pickle.dumps(merged)), X, 16.0),
        (kept.merge(pickle.loads(pickle.dumps(other))), X, 16.0),
    ]:
        known, true = statistics._statistics.row_lengths, lengths_of(rows, statistics)
        assert len(known) == 2
        for bound, length in zip(known, true, strict=True):
            assert length <= bound * (1 + 1e-9)
            assert bound <= most * length
        if statistics is kept:  # its own minimum is far away
            continue
        bound = statistics.distance_bound()
        true = distance_to_minimum("logistic", X, y, None, statistics.theta(), alpha, fit_intercept)
        assert true <= bound * (1 + 1e-6) + ROUNDED
        assert bound < 0.1
    powers = np.array(kept._statistics.row_lengths) / (1.0 + 2.0**-30)
    np.testing.assert_array_equal(np.exp2(np.rint(np.log2(powers))), powers)  # no digit of what left


@each_intercept
def test_merged_and_pickled_statistics_bound_the_same_in_other_units(fit_intercept):
    def bounds(scale, shift):
        one, other, _ = shards(7, fit_intercept, scale, shift)
        here = one.merge(other)
        there = pickle.loads(pickle.dumps(one)).merge(pickle.loads(pickle.dumps(other)))
        return [s.distance_bound() for s in (here, pickle.loads(pickle.dumps(here)), there)]

    found = bounds(1.0, 0.0)
    assert 1e-4 < min(found) <= max(found) < 0.1
    scale, shift = scales(np.zeros((1, 3)))
    assert bounds(scale, 0.0) == pytest.approx(found, rel=1e-6)
    if fit_intercept:
        assert bounds(1.0, shift) == pytest.approx(found, rel=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", ["auto", "exact", "first_order", "second_order"])
def test_where_rounding_leaves_a_hessian_no_factor_it_is_assembled_anew(method):
    """A row of weight 1e11 stays, one of weight 1 leaves, and with it all but 1e-6 of a direction."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, y, s = rng.standard_normal((12, 5)), rng.standard_normal(12), np.full(12, 1e-9)
        s[:5] = 1e11, 1.0, 1.0, 1.0, 1.0
        model = ex.Ridge(1e-6, fit_intercept=False).fit(X, y, s)
        un = ex.Unlearner(model, X, y, s)
        update = un.apply(ex.RemoveRows([4]), method=method)
        left = np.r_[0:4, 5:12]
        true = distance_to_minimum("squared", X[left], y[left], s[left], model.coef_, 1e-6, False)
        assert true <= update.distance
        assert (update.distance <= un.within) == (update.shortfall is None)


def test_statistics_say_what_to_do_where_sums_keep_no_digit_of_what_is_left():
    rng = np.random.default_rng(2)
    X, y, s = rng.standard_normal((12, 5)), rng.standard_normal(12), np.full(12, 1e-9)
    s[:5] = 1e11, 1.0, 1.0, 1.0, 1.0
    sums = kernels.AnchoredStatistics(X, y, np.zeros(5), alpha=1e-6, loss="squared", sample_weight=s)
    with pytest.raises(NotPositiveDefiniteError, match="make statistics of the rows that are left"):
        sums.subtract(X[4:5], y[4:5], s[4:5])


def test_rows_are_measured_for_statistics_of_the_same_objective_alone():
    X, y, s = np.ones((4, 2)), np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4)

    def over(X, penalty, fit_intercept):
        return _core.Objective([(X, y, s)], "logistic", penalty, fit_intercept, largest_norm=2.0)

    J, theta = over(X, np.ones(2), False), np.zeros(2)
    statistics = _core.AnchoredStatistics(J, _core.Anchor(J, theta), J.evaluate(theta), 1e-12, 2.0)
    for other in (over(X, np.full(2, 2.0), False), over(X[:, :1].copy(), np.array([1.0, 0.0]), True)):
        with pytest.raises(ValueError, match="another objective"):
            statistics.measure_rows(other)
    assert len(statistics.measure_rows(J).row_lengths) == 2
