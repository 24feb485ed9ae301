"""Requests by value to a detached Unlearner: on statistics alone, with a proven bound or an error."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import CLASSIC, DENSE, INTERCEPT, SPARSE, WEIGHTED, adult, in_pairs, nothing_densifies, retrain
from scipy import sparse
from sklearn import linear_model
from unlearning import (
    ALPHA,
    KINDS,
    assert_bounded,
    assert_corrected_data,
    assert_retrained,
    bits,
    by_value,
    detached,
    each_intercept,
    each_loss,
    each_weighting,
    exact_residual,
    inside,
    make_data,
    objective_of,
    represented_by_value,
    requests_for,
    snapshot,
    theta_of,
    unlearner,
    without_rows,
)

import expunge as ex
from expunge.engine.by_value import DetachedData

NEWTON = {"method": "second_order"}


def revokes(requests):
    return any(isinstance(r, ex.RevokeFeatures) for r in requests)


# Requests by value


@in_pairs(
    kind=KINDS,
    loss=CLASSIC,
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    represent=["float32_f", "csr_int32"],
)
def test_requests_by_value_do_what_the_same_requests_do_to_rows(
    kind, loss, fit_intercept, weighted, represent
):
    data, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)[kind]
    attached, detached = (unlearner(data, loss, fit_intercept, represent=represent) for _ in range(2))
    edits = represented_by_value(by_value(data, requests), represent)
    detached.detach()
    before = snapshot(detached)
    if loss == "logistic" and revokes(requests):
        with pytest.raises(ex.RowsRequired, match="revoked feature moves"):
            detached.apply(edits, **NEWTON)
        assert snapshot(detached) == before
        return
    update, expected = detached.apply(edits, **NEWTON), attached.apply(requests, **NEWTON)
    scale = np.linalg.norm(theta_of(attached.model))
    assert np.linalg.norm(update.step - expected.step) <= 1e-10 * (1.0 + scale)
    assert_allclose(update.gradient_difference, expected.gradient_difference, atol=1e-9, rtol=1e-9)
    assert (update.method, update.hessian, update.passes) == ("second_order", "corrected", 0)
    assert (update.residual, update.settled, update.since_anchor) == (None, False, 1)
    assert update.features_revoked == expected.features_revoked
    assert detached.model.residual_ is None
    assert_array_equal(detached.get_support(), attached.get_support())
    data = data.after(*requests)
    assert_bounded(detached, update, data)
    if loss == "squared":
        assert update.residual_bound <= detached.tolerance
        assert_retrained(detached, data)
    detached.attach(represent(data.rows[0]), *data.rows[1:])
    assert_corrected_data(detached, data)
    detached.apply([], method="exact")
    assert_retrained(detached, data)


@each_weighting
@each_intercept
@each_loss
def test_a_stream_without_rows_stays_within_its_bounds_of_retraining(loss, fit_intercept, weighted):
    data = make_data(loss, weighted=weighted, n=1000)
    un = without_rows(data, loss, fit_intercept)
    rng = np.random.default_rng(3)
    for step in range(150):
        rows = rng.permutation(np.flatnonzero(data.live)[2:])[: 1 + step % 2]
        labels = rng.integers(0, 2, rows.size).astype(float)
        request = [
            ex.RemoveRows(rows),
            ex.CorrectLabels(rows, labels),
            ex.CorrectValues(rows, [1, 4], rng.standard_normal((rows.size, 2))),
            ex.AddRows(rng.standard_normal((2, 6)), rng.integers(0, 2, 2).astype(float)),
        ][step % 4]
        edits = by_value(data, [request])
        update = un.apply(edits)
        data = data.after(request)
        assert update.method == "auto"
        assert update.rows_touched == (2 if step % 4 == 3 else rows.size)
        if step % 10 == 9:
            assert_bounded(un, update, data)
    X, y, s = data.rows
    retrained = retrain(X, y, **objective_of(un, s))
    _, floor = exact_residual(un, data)
    longest = np.sqrt(1.0 + (np.linalg.norm(X, axis=1).max() ** 2 if fit_intercept else 0.0))
    distance = np.linalg.norm((theta_of(un.model) - retrained)[:6])
    assert distance <= longest * (update.residual_bound + 2.0 * floor) / ALPHA
    if loss == "squared":
        assert np.linalg.norm(theta_of(un.model) - retrained) <= 1e-10 * np.linalg.norm(retrained)
    else:
        assert distance > 0.0  # there was something to bound
    un.attach(X, y, s)
    assert un.residual() <= update.residual_bound


@pytest.mark.slow
def test_adult_without_its_rows():
    data = adult()
    un = ex.Unlearner(ex.LogisticRegression(fit_intercept=False).fit(data.X, data.y), data.X, data.y)
    un.detach()
    inside(un).tolerance = 1.0
    gone = np.random.default_rng(0).permutation(len(data.y))[:500]
    for k in range(0, 500, 50):
        rows = gone[k : k + 50]
        edits = [ex.Edit(before=(data.X[row : row + 1], data.y[row : row + 1])) for row in rows]
        update = un.apply(edits)
    X, y = np.delete(data.X, gone, axis=0), np.delete(data.y, gone)
    residual = ex.residual(un.model, X, y)
    assert residual <= update.residual_bound <= 15.0 * residual
    one_less = np.delete(X, 0, axis=0), np.delete(y, 0)
    with pytest.raises(ValueError, match="rows of positive weight by class"):
        un.attach(*one_less)
    other_row = np.r_[X[1:], data.X[gone[:1]]], np.r_[y[1:], y[:1]]
    with pytest.raises(ValueError, match="differs from the statistics"):
        un.attach(*other_row)
    assert un.attach(X, y).residual() == pytest.approx(residual, rel=1e-9)


@each_intercept
@each_loss
def test_the_order_and_batching_of_requests_do_not_matter(loss, fit_intercept):
    data = make_data(loss, n=200)
    X, y, _ = data.rows
    edits = [
        ex.Edit(before=(X[5:8], y[5:8])),
        ex.Edit(before=(X[9:10], y[9:10]), after=(X[9:10], 1.0 - y[9:10])),
        ex.AddRows(-X[:2], y[:2]),
        ex.Edit(before=(X[20:22], y[20:22]), after=(2.0 * X[20:22], y[20:22])),
        ex.Edit(after=(X[30:31], y[30:31], [2.0])),
    ]
    thetas = []
    for order in ([[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 2], [3, 1, 0]]):
        un = without_rows(data, loss, fit_intercept)
        for batch in order:
            un.apply([edits[k] for k in batch])
        thetas.append(theta_of(un.model))
    assert_allclose(thetas[1], thetas[0], rtol=1e-11, atol=1e-11)
    assert_allclose(thetas[2], thetas[0], rtol=1e-11, atol=1e-11)
    back = [ex.Edit(before=edit.after, after=edit.before) for edit in edits if isinstance(edit, ex.Edit)]
    un.apply([*back, ex.Edit(before=(-X[:2], y[:2]))])
    assert_allclose(theta_of(un.model), theta_of(unlearner(data, loss, fit_intercept).model), atol=1e-7)


def test_a_long_list_is_one_edit_and_one_step(monkeypatch):
    data = make_data("logistic", n=3000)
    X, y, _ = data.rows
    un = without_rows(data, "logistic")
    edits = []
    finish = DetachedData.finish

    def recorded(self):
        before, after = finish(self)
        edits.append((before, after))
        return before, after

    monkeypatch.setattr(DetachedData, "finish", recorded)
    update = un.apply([ex.Edit(before=(X[k : k + 1], y[k : k + 1])) for k in range(2000)])
    assert update.rows_touched == 2000
    assert [(len(before), len(after)) for before, after in edits] == [(1, 1)]
    assert_bounded(un, update, data.after(ex.RemoveRows(np.arange(2000))))


@pytest.mark.parametrize("form", ["float64_c", "csr_int32"])
@each_loss
def test_corrected_labels_and_weights_leave_the_hessian_as_it_is(loss, form):
    data, represent = make_data(loss, zeros=True), (DENSE | SPARSE)[form]
    un = without_rows(data, loss, represent=represent)
    before = inside(un).statistics.anchor
    X, y = represent(data.X[:4]), data.y[:4]
    for other in (X, X.copy(), data.X[:4]):  # the same, an equal one, in another form
        un.apply(ex.Edit(before=(X, y), after=(other, y[::-1])))
        anchor = inside(un).statistics.anchor
        assert bits(anchor.hessian) == bits(before.hessian)
        assert anchor.factored
        y = y[::-1]
    un.apply(ex.Edit(before=(X, y), after=(X, y, 3.0)))
    changed = inside(un).statistics.anchor.hessian
    assert bits(changed) != bits(before.hessian)
    un.apply([ex.Edit(before=(X, y, 3.0), after=(X, y)), ex.Edit(before=(X, y), after=(X, y[::-1]))])
    assert_allclose(inside(un).statistics.anchor.hessian, before.hessian, rtol=1e-13, atol=1e-13)


@each_loss
def test_no_row_stays_in_the_statistics_by_itself(loss):
    """They are folded: what they would save is what they are."""
    data = make_data(loss, n=200)
    un = unlearner(data, loss, True)
    inside(un).tolerance = 1e9
    un.apply(ex.RemoveRows(3))
    un.detach()
    for edit in by_value(data, [ex.RemoveRows([5]), ex.AddRows(data.X[:1], data.y[:1])]):
        un.apply(edit)
        statistics = inside(un).statistics
        assert statistics.tallies == statistics.fold().tallies  # a fold adds its rounding
        assert bits(statistics.anchor.hessian) == bits(statistics.fold().anchor.hessian)


def assert_ridge(un, data):
    """The normal equations."""
    X, y, _ = data.rows
    fit_intercept = un.model.fit_intercept
    A = np.column_stack([X, np.ones(len(y))]) if fit_intercept else X
    penalty = ALPHA * (np.arange(A.shape[1]) < X.shape[1])
    theta = np.linalg.solve(A.T @ A + np.diag(penalty), A.T @ y)
    assert np.linalg.norm(theta_of(un.model) - theta) <= 1e-10 * np.linalg.norm(theta)


@each_intercept
def test_revoked_features_leave_a_ridge_without_its_rows(fit_intercept):
    data = make_data("squared", n=400, d=300)  # so many that a revocation shares the factor
    un = unlearner(data, "squared", fit_intercept, tolerance=1e-6).detach()
    X, y, _ = data.rows
    update = un.apply(ex.RevokeFeatures([4, 17]))
    data = data.after(ex.RevokeFeatures([4, 17]))
    assert (update.features_revoked, update.rows_touched) == (2, 0)
    assert_ridge(un, data)
    assert un.model.n_features_in_ == 298
    with pytest.raises(ValueError, match="column 4 was revoked before"):
        un.apply(ex.RevokeFeatures([3, 4]))
    un.apply([ex.RevokeFeatures([0]), ex.Edit(before=(np.delete(X[:3], [0, 4, 17], axis=1), y[:3]))])
    data = data.after(ex.RevokeFeatures([0]), ex.RemoveRows([0, 1, 2]))
    assert_ridge(un, data)
    un.attach(*data.rows)
    assert un.get_support().shape == (297,)
    assert inside(un).statistics.anchor.hessian.shape[0] == 297 + fit_intercept


# What is refused


X_OK = np.ones((2, 6))
NAN = np.where(np.arange(12).reshape(2, 6) == 7, np.nan, 1.0)
NEVER_THERE = np.repeat([[3.0, 0.0, 0.0, 0.0, 0.0, 0.0]], 40, axis=0)
BAD = {
    "no_side": (ex.Edit(), ValueError, "an Edit needs rows"),
    "list": (
        ex.Edit(before=[X_OK, [0, 1]]),
        TypeError,
        r"tuples \(X, y\) or \(X, y, sample_weight\), or None",
    ),
    "one": (ex.Edit(before=(X_OK,)), TypeError, "tuples"),
    "four": (ex.Edit(after=(X_OK, [0, 1], None, 1)), TypeError, "tuples"),
    "array": (ex.Edit(after=X_OK), TypeError, "tuples"),
    "number": (ex.Edit(before=3), TypeError, "tuples"),
    "second_side": (ex.Edit(before=(X_OK, [0, 1]), after=[]), TypeError, "tuples"),
    "wide": (ex.Edit(before=(np.ones((2, 7)), [0, 1])), ValueError, "X has 7 columns, expected 6"),
    "flat": (ex.Edit(after=(np.ones(6), [0])), ValueError, r"X has shape \(6,\)"),
    "nan": (ex.Edit(after=(NAN, [0, 1])), ValueError, "X contains NaN"),
    "label_shape": (ex.Edit(before=(X_OK, [0])), ValueError, r"\(1,\), expected \(2,\)"),
    "label_nan": (ex.Edit(after=(X_OK, [0, np.nan])), ValueError, "NaN|nan"),
    "label_text": (ex.Edit(after=(X_OK, "yes")), ValueError, "real numbers|not one of the classes"),
    "weight_negative": (ex.Edit(after=(X_OK, [0, 1], [1, -1])), ValueError, "must not be negative"),
    "weight_shape": (ex.Edit(after=(X_OK, [0, 1], [1, 1, 1])), ValueError, r"\(3,\), expected \(2,\)"),
    "sparse": (
        ex.Edit(after=(sparse.csr_array(X_OK), [0, 1])),
        TypeError,
        "X is sparse but the data are dense",
    ),
    "remove": (ex.RemoveRows([0]), TypeError, "no numbered rows for RemoveRows: pass Edit .* attach"),
    "labels": (ex.CorrectLabels([0], 1.0), TypeError, "for CorrectLabels: pass Edit .* attach"),
    "values": (ex.CorrectValues([0], [0], 1.0), TypeError, "for CorrectValues: pass Edit .* attach"),
    "added_wide": (ex.AddRows(np.ones((2, 7)), 0.0), ValueError, "X has 7 columns, expected 6"),
    "column": (ex.RevokeFeatures([6]), ValueError, "column 6 is out of range"),
    "column_name": (ex.RevokeFeatures("age"), ValueError, "columns have no names here"),
    "every_column": (ex.RevokeFeatures(slice(None)), ValueError, "every remaining column would be revoked"),
    "too_many_rows": (
        ex.Edit(before=(np.ones((61, 6)), np.zeros(61))),
        ValueError,
        "more rows would leave than",
    ),
    "never_there": (
        ex.Edit(before=(NEVER_THERE, np.arange(40) % 2)),
        ex.NotPositiveDefiniteError,
        "Hessian is not positive definite: check that the rows that leave",
    ),
    "too_much_weight": (ex.Edit(before=(X_OK, [0, 1], 1e9)), (ValueError, ex.NotPositiveDefiniteError), None),
    "nothing": (None, TypeError, "not a request"),
}


@pytest.mark.parametrize(("bad", "loss"), [(bad, CLASSIC[i % 2]) for i, bad in enumerate(BAD)])
def test_a_bad_request_changes_nothing(bad, loss):
    un, data = detached(loss, tolerance=1e9)
    before, (request, error, message) = snapshot(un), BAD[bad]
    good = [ex.Edit(before=(data.X[3:5], data.y[3:5], [1.0, 1.0])), ex.AddRows(data.X[:9], data.y[:9])]
    for requests in (request, [*good, request], [request, *good]):
        if bad == "too_many_rows" and requests is not request:
            continue  # then there are
        with pytest.raises(error, match=message):
            un.apply(requests)
        assert snapshot(un) == before
    for method in ("newton", None):
        with pytest.raises(ValueError, match="unknown method"):
            un.apply(good, method=method)
    with pytest.raises(ValueError, match="option of method='first_order'"):
        un.apply(good, tau=0.1)
    twin, _ = detached(loss, tolerance=1e9)
    un.apply(good)
    twin.apply(good)
    assert snapshot(un) == snapshot(twin)


def test_both_classes_keep_weight():
    un, data = detached("logistic", tolerance=1e9)
    X, y = data.X, data.y
    before = snapshot(un)
    ones = y == 1
    for edit in (
        ex.Edit(before=(X[ones], y[ones])),
        ex.Edit(before=(X[ones], y[ones]), after=(X[ones], 0.0)),
        ex.Edit(before=(X[ones], y[ones]), after=(X[ones], y[ones], 0.0)),
    ):
        with pytest.raises(ValueError, match="no row of positive weight would be left of one of the two"):
            un.apply(edit, **NEWTON)
    with pytest.raises(
        ValueError, match=f"leave than there are of one of the two classes \\({ones.sum()}\\)"
    ):
        un.apply(ex.Edit(before=(np.vstack([X[ones], X[:1]]), 1.0)), **NEWTON)
    with pytest.raises(ValueError, match="label 2 is not one of the classes"):
        un.apply(ex.Edit(after=(X[:1], [2])))
    assert snapshot(un) == before


@each_loss
def test_requests_without_rows_change_nothing(loss):
    un, data = detached(loss)
    theta, H = theta_of(un.model), bits(inside(un).statistics.anchor.hessian)
    none = data.X[:0], data.y[:0]
    for requests in (
        [],
        [ex.Edit(none, none), ex.AddRows(*none)],
        ex.Edit(before=none),
        ex.RevokeFeatures([]),
    ):
        update = un.apply(requests)
        assert update.rows_touched == update.features_revoked == 0
        assert np.linalg.norm(theta_of(un.model) - theta) <= 1e-7
        assert bits(inside(un).statistics.anchor.hessian) == H
    assert not inside(un).held.weighted


def test_what_was_never_in_the_data_cannot_be_told_from_the_sums():
    un, data = detached("squared")
    assert un.apply(ex.Edit(before=(0.1 * data.X[:1] + 0.01, data.y[:1]))).residual_bound <= un.tolerance


def test_an_attached_unlearner_refuses_edits_by_value():
    data = make_data("squared")
    un = unlearner(data, "squared", True)
    for edit in (ex.Edit(), ex.Edit(before=(data.X[:1], data.y[:1]))):
        with pytest.raises(TypeError, match="use RemoveRows, AddRows, CorrectLabels or CorrectValues"):
            un.apply(edit)
    assert_corrected_data(un, data)


@pytest.mark.parametrize(
    "edit",
    [
        ex.Edit(after=(1e160 * X_OK, 0.0)),
        ex.Edit(after=(X_OK, 1e300)),
        ex.Edit(after=(X_OK, 0.0, 1e308)),
    ],
)
def test_what_overflows_changes_nothing(edit):
    un, _ = detached("squared", tolerance=1e300)
    before = snapshot(un)
    with np.errstate(all="ignore"), pytest.raises((RuntimeError, ValueError)):
        un.apply([edit, edit], **NEWTON)
    assert snapshot(un) == before


def test_a_model_changed_from_outside_is_refused():
    un, data = detached("squared")
    un.model.coef_ = un.model.coef_ * 2.0
    for call in (
        lambda: un.apply(ex.Edit(before=(data.X[:1], data.y[:1]))),
        lambda: un.attach(data.X, data.y),
        lambda: unlearner(data, "squared", True).model and un.residual(),
    ):
        with pytest.raises(ValueError, match="changed outside of this Unlearner"):
            call()


# Sparse, float32, frames, adopted models


@pytest.mark.parametrize("form", ["float32_c", "csr_float32"])
@each_loss
def test_values_are_rounded_to_the_dtype_of_the_data(loss, form):
    data, represent = make_data(loss, zeros=True), (DENSE | SPARSE)[form]
    un = without_rows(data, loss, represent=represent)
    before = inside(un).statistics.at.gradient
    inexact = data.X[2:5] * (1.0 + 1e-9)
    un.apply(ex.Edit(before=(inexact, data.y[2:5]), after=(data.X[2:5], data.y[2:5])))
    assert bits(inside(un).statistics.at.gradient) == bits(before)  # the same rows in float32
    with pytest.raises(ValueError, match="overflow float32"):
        un.apply(ex.AddRows(1e39 * X_OK, 0.0))


@pytest.mark.parametrize("form", SPARSE)
def test_sparse_rows_stay_sparse(form):
    data = make_data("logistic", zeros=True)
    with nothing_densifies():
        un = without_rows(data, "logistic", represent=SPARSE[form])
        rows, y = SPARSE[form](data.X[4:9]), data.y[4:9]
        update = un.apply([ex.Edit(before=(rows, y)), ex.AddRows(data.X[4:5], y[:1])])
    data = data.after(ex.RemoveRows(range(4, 9)), ex.AddRows(data.X[4:5], y[:1]))
    assert_bounded(un, update, data)
    un.attach(SPARSE[form](data.rows[0]), data.rows[1])
    assert_corrected_data(un, data)


def test_names_of_revoked_columns_are_not_kept():
    pandas = pytest.importorskip("pandas")
    data = make_data("squared")
    frame = pandas.DataFrame(data.X, columns=["age", "zip", "c", "d", "secret", "f"])
    un = ex.Unlearner(ex.Ridge(ALPHA).fit(frame, data.y), frame, data.y)
    un.apply(ex.RevokeFeatures("secret"))
    un.detach()
    assert inside(un).held.names == ["age", "zip", "c", "d", None, "f"]
    with pytest.raises(ValueError, match="unknown column 'secret': the columns are age, zip, c, d, f"):
        un.apply(ex.RevokeFeatures("secret"))
    with pytest.raises(ValueError, match="column 4 was revoked before"):
        un.apply(ex.RevokeFeatures([4]))
    with pytest.raises(ValueError, match="in this order"):
        un.apply(ex.Edit(before=(frame[["zip", "age", "c", "d", "f"]][:2], data.y[:2])))
    un.apply([ex.Edit(before=(frame[:2], data.y[:2])), ex.RevokeFeatures(["zip"])])  # cut down by name
    assert inside(un).held.names == ["age", None, "c", "d", None, "f"]
    assert list(un.model.feature_names_in_) == ["age", "c", "d", "f"]
    assert_array_equal(un.get_support(indices=True), [0, 2, 3, 5])
    data = data.after(ex.RevokeFeatures([1, 4]), ex.RemoveRows([0, 1]))
    assert_retrained(un, data)
    left = frame[2:][["age", "c", "d", "f"]]
    for wrong in (frame[2:], left.rename(columns={"c": "cc"}), left[["c", "age", "d", "f"]]):
        before = snapshot(un)
        with pytest.raises(ValueError, match=r"more columns|in this order"):
            un.attach(wrong, data.y[2:])
        assert snapshot(un) == before
    un.attach(left, data.y[2:])
    un.apply(ex.RevokeFeatures("c"))  # by name again
    assert list(un.model.feature_names_in_) == ["age", "d", "f"]


def test_an_adopted_model_is_updated_without_its_rows():
    data = make_data("logistic")
    labels = np.array(["no", "yes"])[data.y.astype(int)]
    model = linear_model.LogisticRegression(C=1.0 / ALPHA).fit(data.X, labels)
    un = ex.Unlearner(model, data.X, labels)
    assert un.detach() is un
    inside(un).tolerance = 1e9
    update = un.apply(ex.Edit(before=(data.X[:3], labels[:3]), after=(data.X[:3], "yes")))
    assert un.model is model
    data = data.after(ex.CorrectLabels([0, 1, 2], 1.0))
    residual = np.linalg.norm(gradient_and_floor_of(model, data))
    assert 0.0 < residual <= update.residual_bound
    un.attach(data.X, np.array(["no", "yes"])[data.y.astype(int)])
    inside(un).tolerance = 1e-8
    assert un.apply([], method="exact").residual <= 1e-8


def gradient_and_floor_of(model, data):
    X, y, s = data.rows
    theta = np.append(np.ravel(model.coef_), model.intercept_)
    return ex.reference.gradient(
        X, y, theta, alpha=1.0 / model.C, loss="logistic", sample_weight=s, fit_intercept=True
    )
