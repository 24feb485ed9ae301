"""Streams of requests: one step from the anchor each, beside NumPy and scikit-learn doing the same.

20 requests of one row in a round, logistic, no intercept, alpha = 1, n = 100,000 at d = 100 and 20,000 above.
"From statistics" is `kernels.AnchoredStatistics` with theta and its bound after each row. "By apply" is an
Unlearner whose tolerance lets every step pass, so that nothing settles. NumPy computes theta and no bound.
"By apply_each" is that in one call, theta of each kept. Lines above the table: what Python adds to a request;
requests of one row each at three tolerances; and rows that leave one after the other, each time proven to be
within so many standard errors (E41). Iterations are included in these.
"""

import os
import warnings
from functools import cache, partial

import numpy as np
import pytest
from problems import adult, drebin
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import expunge as ex
from expunge import _core, kernels
from expunge import benchmark as tasks

SHAPES = {100: 100_000, 500: 20_000, 1000: 20_000}
K = tasks.STREAM  # requests in a round
NO_LIMIT = 1e9  # a tolerance that every step meets

each_shape = pytest.mark.parametrize("d", SHAPES)


@cache
def problem(d):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((SHAPES[d], d)) / np.sqrt(d)
    y = (rng.random(len(X)) < expit(X @ rng.standard_normal(d))).astype(np.float64)
    model = ex.LogisticRegression(alpha=1.0, fit_intercept=False).fit(X, y)
    return X, y, np.ravel(model.coef_).copy()


@cache
def statistics_at(d):
    X, y, theta = problem(d)
    statistics = kernels.AnchoredStatistics(X, y, theta, alpha=1.0, loss="logistic")
    return statistics.gradient, statistics.hessian, statistics


def unlearner(d, tolerance):
    X, y, _ = problem(d)
    return ex.Unlearner(ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y), X, y, tolerance=tolerance)


class Stream:
    """Numbers of rows, each used once for each user."""

    def __init__(self, d):
        self.rows = iter(np.random.default_rng(1).permutation(SHAPES[d]).tolist())

    def take(self, count):
        return [next(self.rows) for _ in range(count)]


def by_numpy(d, rows, *, labels=False, batch=False):
    """theta after each request (after the last, for a batch), from copies of g_a and H_a."""
    X, y, theta = problem(d)
    g, H, _ = statistics_at(d)
    if batch:
        A, sigma = X[rows], expit(X[rows] @ theta)
        scaled = A * np.sqrt(sigma * (1.0 - sigma))[:, None]
        return theta - cho_solve(cho_factor(H - scaled.T @ scaled), g - A.T @ (sigma - y[rows]))
    g, H = g.copy(), H.copy()
    factor = cho_factor(H) if labels else None
    for row in rows:
        x = X[row]
        if labels:
            g += (2.0 * y[row] - 1.0) * x
        else:
            sigma = expit(x @ theta)
            g -= (sigma - y[row]) * x
            H -= np.outer((sigma * (1.0 - sigma)) * x, x)
            factor = cho_factor(H)
        new = theta - cho_solve(factor, g)
    return new


@each_shape
def test_remove_single_rows_from_statistics(compare_task, d):
    """theta and its bound after each row; NumPy has no bound."""
    compare_task(tasks.statistics(*problem(d)))


@pytest.mark.parametrize("kind", ["remove", "label"])
@each_shape
def test_single_rows_by_apply(compare, d, kind):
    """The same through Unlearner.apply; nothing settles."""
    un = unlearner(d, NO_LIMIT)
    _, y, _ = problem(d)
    stream = Stream(d)

    def ours(rows):
        for row in rows:
            un.apply(ex.RemoveRows(row) if kind == "remove" else ex.CorrectLabels(row, 1.0 - y[row]))
        return None

    name = "a factor each" if kind == "remove" else "a cached factor"
    compare(
        ours,
        {f"NumPy, {name}, {K} rows": lambda rows: by_numpy(d, rows, labels=kind == "label")},
        check=lambda *_: None,  # the streams go on; tests/engine/test_streams.py has retraining
        fresh=lambda: (stream.take(K),),
    )


@each_shape
def test_single_rows_by_apply_each(compare, d):
    """Rows that leave in one call, with theta after each; nothing settles."""
    un, stream = unlearner(d, NO_LIMIT), Stream(d)

    def ours(rows):
        un.apply_each([ex.RemoveRows(row) for row in rows], thetas=True)

    un.apply(ex.RemoveRows(stream.take(1)))  # after iterations, as at construction, a request goes by itself
    compare(
        ours,
        {f"NumPy, a factor each, {K} rows": partial(by_numpy, d)},
        check=lambda *_: None,  # as above
        fresh=lambda: (stream.take(K),),
    )


@pytest.mark.parametrize("kind", ["remove", "label"])
@each_shape
def test_python_cost(record_line, clock, d, kind):
    """What a request of one row takes by apply, beside the native calls that it makes."""
    un, stream = unlearner(d, NO_LIMIT), Stream(d)
    X, y, theta = problem(d)
    register, native = _core.RowRegister(y, np.ones(len(y)), True), un._fitted.engine.state.statistics
    target = {0.0: np.array([1.0]), 1.0: np.array([0.0])}
    spent = {"apply": [], "native": []}
    for _ in range(400):
        row = stream.take(1)[0]
        request = ex.RemoveRows(row) if kind == "remove" else ex.CorrectLabels(row, 1.0 - y[row])
        started = clock()
        un.apply(request)
        spent["apply"].append(clock() - started)
        rows, label = np.array([row]), target[y[row]]
        started = clock()
        register.begin()
        if kind == "remove":
            register.remove(rows)
        else:
            register.set_targets(rows, label)
        native, _ = register.change(X, None, None, None).edit(native, theta)
        native.step()
        spent["native"].append(clock() - started)
    apply, native_calls = (1e6 * float(np.median(spent[name])) for name in spent)
    record_line(
        f"one {kind}, d = {d}: apply {apply:.1f} us, its native calls {native_calls:.1f} us, "
        f"Python {apply - native_calls:.1f} us (medians)"
    )


@each_shape
def test_remove_1000_rows_at_once_from_statistics(compare, d):
    X, y, theta = problem(d)
    rows = np.arange(1000)

    def fresh():
        statistics = kernels.AnchoredStatistics(X[:200], y[:200], theta, alpha=1.0)
        statistics.__dict__.update(vars(statistics_at(d)[2]))
        return (statistics,)

    def ours(statistics):
        statistics.subtract(X[:1000], y[:1000])
        statistics.residual_bound()
        return statistics.theta()

    def agree(ours, theirs, name):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)

    compare(ours, {"NumPy, batched": lambda _: by_numpy(d, rows, batch=True)}, check=agree, fresh=fresh)


REFITS = {"newton-cholesky": 1e-6, "newton-cg": 1e-7, "lbfgs": 1e-9}


def test_warm_refit(compare):
    """20 rows removed one by one, d = 100, n = 100,000; scikit-learn goes on from its last answer."""
    X, y, theta = problem(100)
    un, stream = unlearner(100, NO_LIMIT), Stream(100)
    keep = {solver: np.ones(len(y), dtype=bool) for solver in REFITS}
    notes, bounds = {}, []

    def refit(solver, rows):
        tol = REFITS[solver]
        model = LogisticRegression(C=1.0, fit_intercept=False, solver=solver, tol=tol, warm_start=True)
        model.classes_, model.coef_, model.intercept_ = np.array([0.0, 1.0]), theta[None].copy(), np.zeros(1)
        for row in rows:
            keep[solver][row] = False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(X[keep[solver]], y[keep[solver]])
        return model.coef_, ex.residual(model, X[keep[solver]], y[keep[solver]])

    def ours(rows):
        for row in rows:
            update = un.apply(ex.RemoveRows(row))
        bounds.append(update.residual_bound)
        return un.model.coef_

    def near(mine, theirs, name):
        coef, residual = theirs
        assert np.linalg.norm(mine - coef) <= bounds[-1] + residual  # alpha = 1
        notes[name] = f"20 rows; residual {residual:.0e}, ours at most {bounds[0]:.0e}"

    rounds, sides = [stream.take(K) for _ in range(7)], 1 + len(REFITS)
    again = iter([rows for rows in rounds for _ in range(sides)])  # all remove the same rows

    def fresh():
        for _ in range(5):  # the seconds that rivals take leave our memory cold: a stream's is warm
            un.apply(ex.CorrectLabels(0, y[0]))
        return (next(again),)

    compare(
        ours,
        {f"{solver} {tol:g}, warm": partial(refit, solver) for solver, tol in REFITS.items()},
        check=near,
        fresh=fresh,
        notes=notes,
        rounds=5,
    )


@pytest.mark.parametrize("tolerance", [1e-8, 1e-2, 1.0])
@pytest.mark.parametrize("kind", ["remove", "label"])
@each_shape
def test_tolerance(record_line, clock, d, kind, tolerance):
    """Requests of one row each, settles included: what they take and how far from retraining they end."""
    un, rows = unlearner(d, tolerance), Stream(d).take(300 if d == 100 else 60)
    _, y, _ = problem(d)
    requests = [
        ex.RemoveRows(row) if kind == "remove" else ex.CorrectLabels(row, 1.0 - y[row]) for row in rows
    ]
    started = clock()
    updates = [un.apply(request) for request in requests]
    seconds = clock() - started
    distance = np.linalg.norm(un.model.coef_ - un.retrain().coef_)
    read = [u.passes for u in updates if u.passes]
    record_line(
        f"{len(rows)} x {kind}, n = {len(y):,}, d = {d}, tolerance {tolerance:g}: "
        f"{1e6 * seconds / len(rows):.0f} us each; {sum(u.settled for u in updates)} settled, "
        f"{len(read)} read the data, at most {max(read, default=0)} passes each; "
        f"|theta - retrained| {distance:.1e}"
    )


def stream_data(name):
    if name == "Adult":
        data = adult()
        return data.X, data.y
    if name == "Drebin":
        data = drebin()
        return data.X, data.y
    return problem(int(name))[:2]


def apart(X, coef, minimum):
    """In standard errors: the norm of the difference in H at the minimum."""
    step = np.ravel(coef) - np.ravel(minimum)
    H_step = kernels.hvp(X, np.ravel(minimum), step, alpha=1.0, loss="logistic")
    return np.sqrt(step @ H_step)


@pytest.mark.parametrize("within", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("name", ["100", "500", "Adult", "Drebin"])
def test_within(record_line, clock, name, within):
    """Rows that leave one after the other, each proven to be near: what one takes, and where the last ends.

    Beside them a warm refit by scikit-learn at its default, which ends where it ends.
    """
    if name in ("Adult", "Drebin") and not os.environ.get("EXPUNGE_DATA"):
        pytest.skip("EXPUNGE_DATA is not set")
    X, y = stream_data(name)
    rows = np.random.default_rng(1).permutation(X.shape[0])[: 200 if name in ("500", "Drebin") else 2000]
    un = ex.Unlearner(ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y), X, y, within=within)
    theirs = LogisticRegression(C=1.0, fit_intercept=False, warm_start=True, max_iter=1000).fit(X, y)
    requests = [ex.RemoveRows(row) for row in rows.tolist()]
    started = clock()
    updates = un.apply_each(requests)
    ours = (clock() - started) / rows.size
    assert (updates.distance <= within).all()
    now = un.corrected_data()[0]
    end = apart(now, un.model.coef_, un.retrain().coef_)
    keep, refits = np.ones(X.shape[0], dtype=bool), []
    for row in rows[:3]:
        keep[row] = False
        started = clock()
        theirs.fit(X[keep], y[keep])
        refits.append(clock() - started)
    minimum = ex.LogisticRegression(1.0, fit_intercept=False).fit(X[keep], y[keep]).coef_
    title = name if name[0].isalpha() else f"n = {X.shape[0]:,}, d = {X.shape[1]}"
    record_line(
        f"{rows.size} rows leave {title} within {within:g} standard errors: {1e6 * ours:.0f} us each, "
        f"{1 / ours:,.0f} a second, {updates.passes.mean():.2f} passes; the last is proven to be within "
        f"{updates.distance[-1]:.1e}, and is {end:.1e} from retraining. A warm lbfgs refit at its default: "
        f"{1e3 * np.median(refits):.1f} ms, {np.median(refits) / ours:,.0f} times as long, and "
        f"{apart(X[keep], theirs.coef_, minimum):.1e} from the minimum"
    )
