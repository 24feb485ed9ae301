"""Streams that settle by chord steps (E26): what is proven, how many passes they take, what files keep."""

from copy import copy

import numpy as np
import pytest
from long_double import distance_to_minimum, residual
from problems import INTERCEPT, adult, dense, drebin, in_pairs, of_frequent_columns
from unlearning import inside

import expunge as ex
from expunge.engine import methods
from expunge.engine.state import State

ROUNDED = 1e-9  # standard errors that the rounding of theta to doubles may be worth


def data(seed, n=150, d=5, shape="plain"):
    rng = np.random.default_rng(seed)
    X = rng.standard_t(3, size=(n, d)) if shape == "heavy tails" else rng.standard_normal((n, d))
    s = 10.0 ** rng.uniform(-1, 1, n) if shape == "weights" else None
    if shape == "equal rows":
        X = X[rng.integers(0, 12, n)]
    y = (rng.random(n) < 1 / (1 + np.exp(-X @ rng.standard_normal(d)))) * 1.0
    y[:2] = 0.0, 1.0
    return X, y, s


def request(k, row, X):
    """Every kind in turn."""
    kinds = [
        ex.RemoveRows(row),
        ex.AddRows(1.5 * X[row : row + 1], [float(k % 2)], [2.0]),
        ex.RemoveRows(row),
        ex.CorrectLabels(row, float(k % 2)),
        ex.CorrectValues([row], [0], X[row, 0] + 0.5),
    ]
    return kinds[k % 5]


def check(un, update):
    """The bounds of an update, beside gradient and minimum in long double."""
    X, y, s = un.corrected_data()
    model = un.model
    theta = np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if model.fit_intercept else [])
    options = model.alpha, model.fit_intercept
    if update.residual is None:
        assert residual("logistic", dense(X), y, s, theta, *options) <= update.residual_bound
    true = distance_to_minimum("logistic", dense(X), y, s, theta, *options)
    assert true <= update.distance * (1 + 1e-6) + ROUNDED, update


def by_iterations(monkeypatch):
    """As if there were no second anchor."""

    def instead(engine, staged, theta):
        return methods._settled(engine, staged, None if theta is None else engine.start_at(theta, staged))

    monkeypatch.setattr(methods, "_by_chords", instead)


PROMISES = [{"within": 0.01}, {"within": 1e-5}, {"tolerance": 1e-3}, {"tolerance": 1e-8}]


@in_pairs(
    shape=["plain", "heavy tails", "weights", "equal rows"],
    fit_intercept=INTERCEPT,
    promise={str(promise): promise for promise in PROMISES},
)
def test_what_is_proven_after_every_request_holds(shape, fit_intercept, promise):
    X, y, s = data(1, shape=shape)
    model = ex.LogisticRegression(1.0, fit_intercept=fit_intercept).fit(X, y, s)
    un = ex.Unlearner(model, X, y, s, **promise)
    rows, kept = np.random.default_rng(2).permutation(np.arange(2, 150))[:40].tolist(), 0
    for k, row in enumerate(rows):
        update = un.apply(request(k, row, X))
        check(un, update)
        assert inside(un).engine.promise.is_kept(update.residual_bound, update.distance)
        kept += update.settled and update.residual is None
    assert kept >= 8


@pytest.mark.parametrize("promise", PROMISES, ids=str)
@pytest.mark.parametrize("shape", ["plain", "heavy tails", "equal rows"])
def test_it_takes_fewer_passes_than_iterations(shape, promise, monkeypatch):
    passes = []
    for chords in (True, False):
        if not chords:
            by_iterations(monkeypatch)
        total = 0
        for seed in range(3):
            X, y, _ = data(seed, n=600, d=8, shape=shape)
            un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, **promise)
            total += sum(un.apply(ex.RemoveRows(row)).passes for row in range(2, 80))
        passes.append(total)
    assert passes[0] <= passes[1]


def test_requests_after_a_settle_are_served_from_the_second_anchor():
    X, y, _ = data(3, n=4000, d=10)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=0.01)
    updates = [un.apply(ex.RemoveRows(row)) for row in range(2, 150)]
    settles = [k for k, update in enumerate(updates) if update.settled]
    assert len(settles) >= 2
    assert updates[settles[0] + 1].passes == 0
    assert all(update.distance <= 0.01 for update in updates)
    check(un, updates[-1])
    each = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=0.01)
    found = each.apply_each([ex.RemoveRows(row) for row in range(2, 150)])
    np.testing.assert_array_equal(found.settled, [update.settled for update in updates])
    np.testing.assert_array_equal(each.model.coef_, un.model.coef_)


def test_exact_measures_its_residual():
    X, y, _ = data(4, n=500)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, tolerance=1e-8)
    for row in range(2, 10):
        assert un.apply(ex.RemoveRows(row)).residual is None
        update = un.apply(ex.RemoveRows(row + 50), method="exact")
        assert update.residual == update.residual_bound <= 1e-8


@pytest.mark.parametrize("tolerance", [0.0, 1e-300])
def test_a_tolerance_that_no_bound_meets_is_left_to_iterations(tolerance):
    X, y, _ = data(5, n=300)
    model = ex.LogisticRegression(1.0).fit(X, y)
    with pytest.warns(Warning, match="rounding floor"):
        un = ex.Unlearner(model, X, y, tolerance=tolerance)
    with pytest.warns(Warning, match="rounding floor"):
        update = un.apply(ex.RemoveRows(5))
    assert update.residual is not None


@pytest.mark.filterwarnings("ignore:the tolerance")
@pytest.mark.parametrize("tolerance", [1e-17, 1e-4])
def test_below_rounding_no_chord_step_is_tried(tolerance, monkeypatch):
    """Each would be a pass for nothing."""
    X, y, s = data(8, n=600)
    un = ex.Unlearner(ex.LogisticRegression(tol=1e-9).fit(X, y, s), X, y, s, tolerance=tolerance)
    asked, by_chords = [], methods.by_chords

    def noted(*given):
        asked.append(given)
        return by_chords(*given)

    monkeypatch.setattr(methods, "by_chords", noted)
    for row in range(2, 40):
        un.apply(ex.RemoveRows(row))
    assert bool(asked) == (tolerance == 1e-4)


def test_rows_without_curvature_are_left_to_iterations():
    X, y, _ = data(6, n=300)
    X[7] = 3e4
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, tolerance=1e-6)
    for row in range(10, 20):
        update = un.apply(ex.RemoveRows(row))
        assert update.residual_bound <= 1e-6
    assert inside(un).state.statistics is None or inside(un).state.statistics.second is None


def test_a_file_after_chord_steps_is_a_function_of_theta_and_of_the_rows(tmp_path):
    X, y, _ = data(7, n=3000)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, tolerance=1e-6)
    updates = [un.apply(ex.RemoveRows(row)) for row in range(2, 12)]
    assert updates[-1].settled
    assert updates[-1].residual is None
    engine = inside(un).engine
    assert engine.state.statistics.second is not None
    anew = copy(engine)
    anew.state = State(engine.state.theta, None, None, False)
    for kept in (engine.statistics(), un.detach() and inside(un).state.statistics):
        expected = anew.statistics()
        assert kept.second is None
        assert kept.tallies == expected.tallies
        assert kept.at.gradient.tobytes() == expected.at.gradient.tobytes()
        assert kept.anchor.hessian.tobytes() == expected.anchor.hessian.tobytes()
        assert kept.anchor.theta.tobytes() == engine.state.theta.tobytes()


def test_a_file_goes_on_as_it_was(tmp_path):
    X, y, _ = data(8, n=400)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=1e-4)
    for row in range(2, 12):
        un.apply(ex.RemoveRows(row))
    un.save(tmp_path / "file", include_rows=True)
    loaded = ex.Unlearner.load(tmp_path / "file")
    for row in range(20, 30):
        check(loaded, loaded.apply(ex.RemoveRows(row)))


def real(name):
    data = adult() if name == "adult" else of_frequent_columns(drebin(), 100)
    return data.X, data.y


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES, ids=str)
@pytest.mark.parametrize("name", ["adult", "drebin"])
def test_real_streams_are_proven(name, promise):
    X, y = real(name)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, **promise)
    rng = np.random.default_rng(0)
    for k, row in enumerate(rng.permutation(len(y))[:120].tolist()):
        update = un.apply(ex.RemoveRows(row) if k % 3 else ex.CorrectLabels(row, 1.0 - y[row]))
        assert inside(un).engine.promise.is_kept(update.residual_bound, update.distance)
        if k % 20 == 0:
            X_now, y_now, s_now = un.corrected_data()
            other = ex.LogisticRegression(1.0, tol=1e-9).fit(X_now, y_now, s_now)
            assert ex.residual(un.model, X_now, y_now) <= update.residual_bound + 1e-7
            gap = np.append(un.model.coef_ - other.coef_, un.model.intercept_ - other.intercept_)
            assert (np.abs(gap / un.standard_errors()) <= update.distance + 1e-6).all()
