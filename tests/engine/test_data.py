"""The data of an Unlearner: columns, rows by number, and that only what a request touches is read."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import CLASSIC, CONVERTED, FAMILIES, INTERCEPT, bits_of, in_pairs, parts_of, read_only
from scipy import sparse
from unlearning import (
    ALPHA,
    METHODS,
    TOLERANCE,
    assert_corrected_data,
    assert_retrained,
    each_intercept,
    each_loss,
    each_weighting,
    inside,
    make_data,
    profile_residual,
    represented,
    requests_for,
    theta_of,
    unlearner,
)

import expunge as ex

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


@in_pairs(
    kind=list(idle_requests(make_data("squared"))),
    loss=CLASSIC,
    fit_intercept=INTERCEPT,
    method=METHODS,
    represent=["float64_c", "csr_explicit_zeros"],
)
def test_requests_that_change_nothing_leave_theta(kind, loss, fit_intercept, method, represent):
    data = make_data(loss, zeros=True)
    un = unlearner(data, loss, fit_intercept, represent=represent)
    theta = theta_of(un.model)
    r, floor = profile_residual(un, data, theta)
    update = un.apply(idle_requests(data)[kind], **method)
    assert np.linalg.norm(update.step[:6]) <= (r + floor) / ALPHA
    assert update.residual_bound <= un.tolerance
    assert np.linalg.norm(update.gradient_difference) <= 2.0 * floor
    assert update.rows_touched == {"same_labels": 3, "same_values": 3, "all_values": 60}.get(kind, 0)
    assert_corrected_data(un, data)


# Rows and columns by number


@in_pairs(loss=CLASSIC, represent=FAMILIES)
def test_the_longest_row_is_looked_for_among_all_that_ever_came(loss, represent):
    """By a bound of it everything is bounded that a row may add (E10, E41)."""
    data = make_data(loss)
    un = unlearner(data, loss, True, represent=represent, solver="cg")  # no H, no measuring

    def lengths():
        held = inside(un).held
        return held.largest_norm, np.inf if held.ball is None else held.ball.radius

    assert (lengths()[1] < np.inf) == (loss == "logistic" and not inside(un).held.is_sparse)
    for request in (ex.AddRows(64.0 * data.X[:1], data.y[:1]), ex.CorrectValues([5], [0], 4096.0)):
        before = lengths()
        with pytest.raises(ValueError):
            un.apply(represented([request, ex.RemoveRows([0, 0, 10**6])], represent))
        assert lengths() == before
        un.apply(represented([request], represent))
        for now, old in zip(lengths(), before, strict=True):
            assert now > 2.0 * old or now == old == np.inf


@in_pairs(loss=CLASSIC, represent=FAMILIES)
def test_added_rows_continue_the_count_and_may_be_corrected_and_removed(loss, represent):
    data = make_data(loss, zeros=True)
    un = unlearner(data, loss, True, represent=represent)
    for request in (
        ex.RemoveRows([59]),
        ex.AddRows(-data.X[:2], data.y[:2]),  # 60, 61: removed rows keep their numbers
        ex.RevokeFeatures([3]),
        ex.AddRows(data.X[2:5, :5], data.y[2:5]),  # 62 to 64
        ex.CorrectValues([61, 64, 2], [5, 0], 0.5),
        ex.CorrectLabels([60, 62], 1.0),
        ex.CorrectValues([64, 61, 3], [5, 2], [-1.5, 2.5]),  # some cells again
        ex.CorrectValues([64], [5], 0.125),
        ex.RemoveRows([60, 64]),
    ):
        un.apply(represented([request], represent))
        data = data.after(request)
        assert_corrected_data(un, data)
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


@in_pairs(
    kind=["remove_rows", "add_rows", "correct_labels", "correct_values", "mixed_rows"],
    loss=CLASSIC,
    method=["corrected", "original", "first_order"],
    represent=["float64_c", "float64_f", "csr_int32"],
)
def test_the_step_reads_the_touched_rows_only(kind, loss, method, represent, monkeypatch):
    """With NaN in all other rows the step has the same bits; the residual, measured after it, is refused."""
    data, requests = make_data(loss, zeros=True), requests_for(loss)[kind]
    options = METHODS[method] | ({"tau": 0.01} if method == "first_order" else {})
    touched = np.concatenate([r.rows for r in requests if not isinstance(r, ex.AddRows)] or [[0]])
    steps = []
    for update in (ex.updates.first_order_update, ex.updates.second_order_update):

        def recorded(theta, g, by, update=update):
            new = update(theta, g, by)
            steps.append((g, new))
            return new

        monkeypatch.setattr("expunge.engine.methods." + update.__name__, recorded)
    for poison in (False, True):
        X, y, _ = data.rows
        X = represent(X)
        kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
        un = ex.Unlearner(kind_of_model(ALPHA).fit(X, y), X, y)
        if poison:
            others = np.setdiff1d(np.arange(60), touched)
            if sparse.issparse(X):  # held by reference, as all are
                X.data[np.isin(np.repeat(np.arange(60), np.diff(X.indptr)), others)] = np.nan
            else:
                X[others] = np.nan
            with pytest.raises(ex.ConvergenceError, match="range of floating point"):
                un.apply(requests, **options)
        else:
            assert un.apply(requests, **options).passes == 1  # which is the measurement
    (whole_g, whole), (poisoned_g, poisoned) = steps
    assert_array_equal(poisoned_g, whole_g)
    assert_array_equal(poisoned, whole)


@in_pairs(loss=CLASSIC, method=METHODS, represent=[*FAMILIES, "csr_matrix", "csr_explicit_zeros"])
def test_X_is_held_by_reference_and_never_modified(loss, method, represent):
    data = make_data(loss)
    X, y = read_only(represent(data.X)), read_only(data.y.copy())
    bits = bits_of(X)
    kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
    un = ex.Unlearner(kind_of_model(ALPHA).fit(X, y), X, y)
    un.apply(represented(requests_for(loss)["mixed"], represent), **method)
    assert all(
        np.shares_memory(*parts) for parts in zip(parts_of(inside(un).data.X), parts_of(X), strict=True)
    )
    assert bits_of(X) == bits
    assert_array_equal(y, data.y)


@in_pairs(loss=CLASSIC, represent=CONVERTED)
def test_what_is_copied_once_is_not_modified_either(loss, represent):
    data = make_data(loss, zeros=True)
    X = read_only(represent(data.X))
    bits = bits_of(X)
    kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
    ex.Unlearner(kind_of_model(ALPHA).fit(X, data.y), X, data.y).apply(requests_for(loss)["mixed"])
    assert bits_of(X) == bits


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
    assert len(inside(un).data.overlay_X) <= 2 * 51  # rows in the overlay, and room for as many
