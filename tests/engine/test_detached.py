"""Detaching and attaching, and what needs rows."""

import gc
import pickle
import weakref
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import DENSE, SPARSE
from unlearning import (
    ALPHA,
    METHODS,
    assert_bounded,
    assert_corrected_data,
    assert_retrained,
    detached,
    each_intercept,
    each_loss,
    each_weighting,
    gradient_and_floor,
    inside,
    make_data,
    requests_for,
    snapshot,
    theta_of,
    unlearner,
)

import expunge as ex

# What needs rows


@pytest.mark.parametrize("method", ["exact", "original", "first_order"])
@each_loss
def test_methods_that_read_rows_say_so(loss, method):
    un, data = detached(loss)
    before = snapshot(un)
    with pytest.raises(ex.RowsRequired, match="attach the current rows first"):
        un.apply(ex.Edit(before=(data.X[3:4], data.y[3:4])), **METHODS[method])
    assert snapshot(un) == before


@pytest.mark.parametrize("question", ["residual", "retrain", "corrected_data"])
def test_questions_that_read_rows_say_so(question):
    un, _ = detached()
    with pytest.raises(ex.RowsRequired, match="attach"):
        getattr(un, question)()


@each_loss
def test_a_bound_above_the_tolerance_is_an_error_and_changes_nothing(loss):
    un, data = detached(loss, tolerance=1e-6)
    before = snapshot(un)
    edit = ex.Edit(before=(data.X[5:30], data.y[5:30]))
    if loss == "squared":
        assert un.apply(edit).residual_bound <= 1e-6
        return
    with pytest.raises(ex.ToleranceExceeded, match="make the Unlearner with a larger tolerance") as raised:
        un.apply(edit)
    error = raised.value
    assert error.bound > error.tolerance == un.tolerance
    assert isinstance(error, RuntimeError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.bound, again.tolerance, str(again)) == (error.bound, error.tolerance, str(error))
    assert snapshot(un) == before
    kept = un.apply(edit, method="second_order")
    assert kept.residual_bound == error.bound
    assert_bounded(un, kept, data.after(ex.RemoveRows(slice(5, 30))))
    inside(un).tolerance = 1e3
    un.apply([])  # the same step, and now within it


def test_the_squared_loss_meets_any_tolerance_above_rounding():
    un, data = detached("squared", tolerance=1e-13)
    with pytest.raises(ex.ToleranceExceeded):
        un.apply(ex.Edit(before=(1e6 * data.X[:1], data.y[:1]), after=(1e6 * data.X[:1], 1e9)))


# Detaching


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float64_c", "csr_int32"])
@each_loss
def test_nothing_of_the_rows_stays_alive(loss, form):
    data = make_data(loss, zeros=True)
    X = (DENSE | SPARSE)[form](data.X)
    y = data.y.copy()
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    un = ex.Unlearner(kind(ALPHA).fit(X, y), X, y)
    inside(un).tolerance = 1e9
    un.apply([ex.CorrectValues([3], [0], 2.0), ex.AddRows(data.X[:2], y[:2]), ex.CorrectLabels([5], 1.0)])
    held = inside(un).held
    kept_alive = [held.X, held.register, held.overlay_X, held]
    references = [weakref.ref(thing) for thing in [*kept_alive, X, y]]
    del held, kept_alive, X, y
    un.detach()
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    row, label = data.X[7:8].copy(), data.y[7:8].copy()
    reference = weakref.ref(row)
    un.apply(ex.Edit(before=(row, label)))
    with pytest.raises(TypeError):
        un.apply([ex.Edit(before=(row, label)), None, ex.RemoveRows(0)])
    del row
    gc.collect()
    assert reference() is None
    for array in arrays_within(un):
        assert array.shape[:1] != (60,)
        assert array.size <= (6 + 1) ** 2


def arrays_within(thing, seen=None):
    """Every NumPy array that attributes, lists, dicts and closures lead to."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type):
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, partial):
        yield from arrays_within([thing.func, *thing.args, *thing.keywords.values()], seen)
    elif isinstance(thing, dict):
        yield from arrays_within(list(thing.values()), seen)
    elif isinstance(thing, list | tuple):
        for member in thing:
            yield from arrays_within(member, seen)
    elif hasattr(thing, "__dict__"):
        yield from arrays_within(vars(thing), seen)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@each_loss
def test_detaching_anchors_the_statistics_at_the_model_and_leaves_it(loss, method):
    data, requests = make_data(loss), requests_for(loss)["mixed"]
    un = unlearner(data, loss, True)
    un.apply(requests, **method)
    data = data.after(*requests)
    fitted, theta = vars(un.model)["_fitted"], theta_of(un.model)
    assert un.attached
    un.detach()
    assert not un.attached
    assert vars(un.model)["_fitted"] is fitted
    statistics = inside(un).statistics
    assert_array_equal(statistics.anchor.theta, theta)
    g, floor = gradient_and_floor(un, data, theta)
    assert np.linalg.norm(statistics.at.gradient - g) <= statistics.gradient_error + floor
    H = ex.reference.hessian(data.rows[0], theta, alpha=ALPHA, loss=loss, fit_intercept=True)
    assert_allclose(statistics.anchor.hessian, H, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="detached already"):
        un.detach()


def test_statistics_need_a_hessian():
    data = make_data("squared", n=30, d=40)
    un = unlearner(data, "squared", True, solver="cg", represent=np.array)
    with pytest.raises(ValueError, match="solver='cg' does not keep: use a model of solver='cholesky'"):
        un.detach()
    assert un.attached
    un.apply(ex.RemoveRows([0]))


# Attaching


@each_weighting
@each_intercept
@each_loss
def test_rows_attached_again_are_numbered_anew_and_serve_every_method(loss, fit_intercept, weighted):
    data, requests = make_data(loss, weighted=weighted), requests_for(loss)["mixed"]
    un = unlearner(data, loss, fit_intercept)
    un.apply(requests)
    data = data.after(*requests).renumbered()
    assert un.detach().attach(*data.rows) is un
    assert un.attached
    assert_array_equal(un.get_support(), [True] * data.X.shape[1])
    for method in METHODS.values():
        request = ex.RemoveRows([3 + int(np.count_nonzero(~data.live))])
        un.apply(request, **method)
        data = data.after(request)
        assert_corrected_data(un, data)
    un.apply([ex.RevokeFeatures([1]), ex.CorrectLabels([30], 1.0)])
    assert_retrained(un, data.after(ex.RevokeFeatures([1]), ex.CorrectLabels([30], 1.0)))


def wrong_rows(data):
    """name -> change of (X, y, s), message."""
    X, y, _ = data.rows
    one_cell, one_label, one_weight = X.copy(), y.copy(), np.ones(len(y))
    one_cell[7, 2] += 1e-6
    one_label[7] = 1.0 - one_label[7]
    one_weight[7] = 1.001
    order = np.random.default_rng(0).permutation(len(y))
    return {
        "one_cell": ((one_cell, y), "differs from the statistics by"),
        "one_label": ((X, one_label), "differs from the statistics by|rows of positive weight by class"),
        "one_weight": ((X, y, one_weight), "differs from the statistics by"),
        "labels_shuffled": ((X, y[order]), "differs from the statistics by"),
        "one_row_less": ((X[1:], y[1:]), "rows of positive weight"),
        "one_row_more": ((np.vstack([X, X[:1]]), np.append(y, y[0])), "rows of positive weight"),
        "a_weight_of_0": ((X, y, np.arange(len(y)) > 0), "rows of positive weight"),
        "a_column_less": ((X[:, 1:], y), "X has 5 columns, expected 6"),
        "columns_swapped": ((X[:, ::-1], y), "differs from the statistics by"),
        "nan": ((np.where(np.arange(60)[:, None] == 3, np.nan, X), y), "X contains NaN"),
        "no_rows": ((X[:0], y[:0]), "X has no rows"),
        "y_short": ((X, y[1:]), r"\(59,\), expected \(60,\)"),
    }


@pytest.mark.parametrize("wrong", wrong_rows(make_data("squared")))
@each_loss
def test_attaching_other_rows_raises_and_changes_nothing(loss, wrong):
    un, data = detached(loss)
    rows, message = wrong_rows(data)[wrong]
    before = snapshot(un)
    with pytest.raises(ValueError, match=message):
        un.attach(*rows)
    assert snapshot(un) == before
    order = np.random.default_rng(0).permutation(60)
    un.attach(data.X[order], data.y[order])  # the same rows in any order
    with pytest.raises(ValueError, match="has its rows"):
        un.attach(data.X, data.y)
