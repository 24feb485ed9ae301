"""Sparse X: entries come and go, and revoked columns stay until they are most of X."""

import pickle
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    CLASSIC,
    INTERCEPT,
    REPRESENTATIONS,
    SPARSE,
    bits_of,
    csr,
    dense,
    in_pairs,
    parts_of,
    retrain,
    sparse_values,
)
from scipy import sparse
from unlearning import (
    ALPHA,
    METHODS,
    TOLERANCE,
    assert_corrected_data,
    assert_retrained,
    each_loss,
    each_method,
    histories,
    inside,
    live_through,
    make_data,
    objective_of,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import kernels

ESTIMATORS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
pytestmark = pytest.mark.usefixtures("nothing_densified")


# Values


@each_method
@each_loss
def test_corrected_cells_insert_overwrite_and_delete_entries(loss, method):
    data = make_data(loss, zeros=True)
    X = csr(data.X)
    bits = bits_of(X)
    un = ex.Unlearner(ESTIMATORS[loss](ALPHA).fit(X, data.y), X, data.y, tolerance=TOLERANCE)
    some = np.flatnonzero((data.X[:, 0] != 0) & (data.X[:, 1] == 0))[:3]
    new = data.X[:2]
    for request in (
        ex.CorrectValues(some, [0, 1], [0.0, 1.5]),  # rows of X: one entry goes, one comes
        ex.CorrectValues(some, [1], 2.5),  # rows of the overlay: overwritten,
        ex.CorrectValues(some[:2], [0, 1, 3], [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),  # and all at once
        ex.AddRows(new, data.y[:2]),
        ex.CorrectValues([60, 61, some[2]], slice(0, 5), 0.0),  # rows that were added lose all they hold
        ex.CorrectValues([61, 5], [4, 2, 5], [1.0, 0.0, -0.5]),  # and get other entries
        ex.CorrectValues(slice(None), [3], 0.0),  # a column goes from every row
        ex.CorrectValues(slice(0, 62, 7), [3], np.arange(1.0, 10.0)[:, None]),
    ):
        un.apply(request, **method)
        data = data.after(request)
        assert_corrected_data(un, data)
        corrected = un.corrected_data()[0]
        assert corrected.nnz == np.count_nonzero(data.rows[0])  # zeros are not stored
    un.apply([])
    assert_retrained(un, data)
    assert bits_of(X) == bits


def test_explicit_zeros_are_no_values():
    data = make_data("squared", zeros=True)
    X = SPARSE["csr_explicit_zeros"](data.X)
    assert X.nnz > np.count_nonzero(data.X)
    un = unlearner(data, "squared", True, represent=SPARSE["csr_explicit_zeros"])
    for column in (2, 5):  # the last column is all 0
        touched = un.apply(ex.RevokeFeatures(column)).rows_touched
        assert touched == np.count_nonzero(data.X[:, column])
        data = data.after(ex.RevokeFeatures([column]))
        assert_corrected_data(un, data)
        assert_retrained(un, data)


def test_values_and_rows_are_stored_in_the_dtype_of_X():
    data = make_data("squared", zeros=True)
    un = unlearner(data, "squared", True, represent=SPARSE["csr_float32"])
    un.apply([ex.CorrectValues([0], [0], 1.0 / 3.0), ex.AddRows(csr(np.full((1, 6), 1.0 / 3.0)), 0.0)])
    X = un.corrected_data()[0]
    assert X.dtype == np.float32
    assert dense(X)[0, 0] == dense(X)[60, 5] == np.float32(1.0 / 3.0)


def test_corrected_data_are_copies():
    data = make_data("squared", zeros=True)
    X = csr(data.X)
    un = ex.Unlearner(ex.Ridge().fit(X, data.y), X, data.y)
    for request in ([], [ex.RevokeFeatures([1]), ex.CorrectValues([0], [0], 2.0)]):
        un.apply(request)
        before, copy = dense(un.corrected_data()[0]), un.corrected_data()[0]
        copy.data[:] = np.nan
        assert_array_equal(dense(un.corrected_data()[0]), before)


# Columns


def wide_data(loss, n=80, d=14):
    return make_data(loss, n=n, d=d, zeros=True)


@in_pairs(loss=CLASSIC, method=METHODS, column_index={"no index": False, "index": True})
def test_revoked_columns_stay_in_X_until_they_are_most_of_it(loss, method, column_index):
    """And whatever is asked for afterwards still names rows and columns of the X that was handed over."""
    data, rng = wide_data(loss), np.random.default_rng(1)
    X = csr(data.X)
    bits = bits_of(X)
    model = ESTIMATORS[loss](ALPHA).fit(X, data.y)
    promise = {"tolerance": TOLERANCE}
    un = ex.Unlearner(model, X, data.y, column_index=column_index, **promise)
    twin = ex.Unlearner(ESTIMATORS[loss](ALPHA).fit(data.X, data.y), data.X, data.y, **promise)
    given, compacted = inside(un).data.X, 0
    X_held = data.X.copy()  # but for the columns that were left out: rows that moved elsewhere stay
    for j in (3, 0, 12, 7, 9, 1, 4, 13, 2, 11, 5):
        left = np.flatnonzero(data.kept & (np.arange(14) != j))
        for request in (
            ex.RevokeFeatures([j]),
            ex.CorrectValues([5, 6, 40 + j], left[[0, -1]], rng.integers(-2, 3, (3, 2)) / 2.0),
            ex.AddRows(sparse_values(rng, 2, left.size), data.y[:2]),
            ex.RemoveRows([60 + j]),
        ):
            before = inside(un).data.X
            expected = 2 * np.count_nonzero(X_held[:, ~data.kept]) > before.nnz
            update, same = un.apply(request, **method), twin.apply(request, **method)
            assert (inside(un).data.X is not before) == expected
            if expected:
                assert inside(un).data.X.nnz < before.nnz / 2
                X_held[:, ~data.kept] = 0.0
                compacted += 1
            if not compacted:
                assert inside(un).data.X is given
            assert (update.rows_touched, update.features_revoked) == (
                same.rows_touched,
                same.features_revoked,
            )
            data = data.after(request)
            assert_array_equal(un.get_support(), data.kept)
            assert_array_equal(un.get_support(indices=True), np.flatnonzero(data.kept))
            assert_corrected_data(un, data)
        for bad in (ex.RevokeFeatures([j]), ex.CorrectValues([0], [j], 1.0)):
            with pytest.raises(ValueError, match=f"column {j} was revoked before"):
                un.apply(bad)
    assert compacted >= 1
    un.apply([])
    assert_retrained(un, data)
    assert all(np.shares_memory(*parts) for parts in zip(parts_of(given), parts_of(X), strict=True))
    assert bits_of(X) == bits


@each_method
@each_loss
def test_a_column_index_changes_no_result(loss, method):
    data = wide_data(loss)
    with_index, without = (
        unlearner(data, loss, True, represent=SPARSE["csr_explicit_zeros"], column_index=given)
        for given in (True, False)
    )
    for request in (
        ex.RevokeFeatures([3, 0, 12]),
        ex.CorrectValues([5, 6], [1, 2], 0.0),
        ex.RevokeFeatures([1, 7, 9]),
        ex.AddRows(csr(data.X[:3, :8]), data.y[:3]),
        [ex.RevokeFeatures([2, 4]), ex.RemoveRows([5])],
        ex.RevokeFeatures([5, 6]),
    ):
        update, expected = with_index.apply(request, **method), without.apply(request, **method)
        assert_array_equal(update.step, expected.step)
        assert update.residual == expected.residual
        assert update.rows_touched == expected.rows_touched
    for a, b in zip(
        parts_of(with_index.corrected_data()[0]), parts_of(without.corrected_data()[0]), strict=True
    ):
        assert_array_equal(a, b)


def test_names_outlive_the_columns_around_them():
    pandas = pytest.importorskip("pandas")
    data = wide_data("squared")
    names = list("abcdefghijklmn")
    frame = pandas.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(csr(data.X)), columns=names)
    model = ex.Ridge(ALPHA).fit(frame, data.y)
    un = ex.Unlearner(model, frame, data.y)
    assert sparse.issparse(inside(un).data.X)
    for revoked in ("dam", "hjb", "en"):
        un.apply(ex.RevokeFeatures(list(revoked)))
        data = data.after(ex.RevokeFeatures([names.index(name) for name in revoked]))
        un.apply([ex.CorrectValues([3], ["c", "l"], [[0.0, 2.0]]), ex.AddRows(frame[:2], data.y[:2])])
        data = data.after(
            ex.CorrectValues([3], [2, 11], [[0.0, 2.0]]),
            ex.AddRows(wide_data("squared").X[:2, data.kept], data.y[:2]),
        )
        assert_array_equal(model.feature_names_in_, [names[j] for j in np.flatnonzero(data.kept)])
        assert_corrected_data(un, data)
        assert_retrained(un, data)
    assert inside(un).data.X.shape[1] < 14
    with pytest.raises(ValueError, match="column 'a' was revoked before"):
        un.apply(ex.RevokeFeatures("a"))


# What is accepted


@in_pairs(loss=CLASSIC, name=["lil", "dok", "bsr", "dia", "coo", "csc"], kind=["array", "matrix"])
def test_other_sparse_formats_are_converted(loss, name, kind):
    data = make_data(loss, zeros=True)

    def represent(X):
        return getattr(sparse, f"{name}_{kind}")(csr(X))

    expected = unlearner(data, loss, True, represent=csr)
    un = unlearner(data, loss, True, represent=represent)
    assert inside(un).data.X.format == "csr"
    assert_array_equal(theta_of(un.model), theta_of(expected.model))
    assert_allclose(ex.residual(un.model, represent(data.X), data.y), un.residual(), rtol=0, atol=1e-12)
    g = kernels.gradient(represent(data.X), data.y, theta_of(un.model), **objective_of(un, None))
    assert np.linalg.norm(g) <= 1e-8
    assert_array_equal(un.model.predict(represent(data.X)), un.model.predict(csr(data.X)))
    new = ex.AddRows(represent(data.X[:3]), data.y[:3])
    assert_array_equal(un.apply(new).step, expected.apply(replace(new, X=csr(data.X[:3]))).step)
    assert_retrained(un, data.after(new))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.bool_])
def test_whole_numbers_are_converted(dtype):
    data = make_data("squared", zeros=True)
    whole = (data.X != 0).astype(np.float64)
    data = replace(data, X=whole)
    un = unlearner(data, "squared", True, represent=lambda X: csr(X, dtype=dtype))
    assert inside(un).data.X.dtype == np.float64
    new = ex.AddRows(csr(whole[:2], dtype=dtype), data.y[:2])
    un.apply(new)
    assert_retrained(un, data.after(new))


def test_a_pandas_frame_of_sparse_columns_stays_sparse():
    pandas = pytest.importorskip("pandas")
    data = make_data("logistic", zeros=True)
    frame = pandas.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(csr(data.X)), columns=list("abcdef"))
    un = ex.Unlearner(ex.LogisticRegression(ALPHA).fit(frame, data.y), frame, data.y)
    assert sparse.issparse(inside(un).data.X)
    un.apply([ex.RevokeFeatures("b"), ex.AddRows(frame[:3], data.y[:3])], method="exact")
    data = data.after(ex.RevokeFeatures([1]), ex.AddRows(data.X[:3, [0, 2, 3, 4, 5]], data.y[:3]))
    assert_corrected_data(un, data)
    assert_retrained(un, data)


@in_pairs(loss=CLASSIC, fit_intercept=INTERCEPT, method=METHODS)
def test_a_matrix_without_entries_is_data(loss, fit_intercept, method):
    data = make_data(loss)
    data.X[:] = 0.0
    un = unlearner(data, loss, fit_intercept, represent=csr)
    assert inside(un).data.X.nnz == 0
    assert_array_equal(np.ravel(un.model.coef_), np.zeros(6))
    for request in (
        ex.RemoveRows([3, 4]),
        ex.RevokeFeatures([1]),
        ex.CorrectValues([5, 6], [0, 2], [[1.0, 0.0], [0.0, -1.0]]),
        ex.AddRows(sparse.csr_array((2, 5)), data.y[:2]),
        ex.CorrectLabels([7, 60], 1.0),
        ex.CorrectValues([5, 6], [0, 2], 0.0),
        ex.RevokeFeatures([0, 2, 3, 4]),
    ):
        un.apply(request, **method)
        data = data.after(request)
        assert_corrected_data(un, data)
    un.apply([])
    # Its coefficients are 0 or close to it: what assert_retrained relates errors to may be 0 altogether.
    X, y, s = data.rows
    expected = retrain(X, y, **objective_of(un, s))
    assert_allclose(theta_of(un.model), expected, rtol=0, atol=1e-8)


def test_entries_behind_the_last_row_are_no_entries():
    """SciPy lets data and indices be longer than indptr says."""
    data = make_data("squared", zeros=True)

    def longer(X):
        X = csr(X)
        X.data, X.indices = np.append(X.data, [7.0, 8.0]), np.append(X.indices, [1, 1]).astype(np.int32)
        return X

    un = unlearner(data, "squared", True, represent=longer)
    for _ in range(3):
        un.apply(ex.AddRows(longer(data.X[:2]), data.y[:2]))
        data = data.after(ex.AddRows(data.X[:2], data.y[:2]))
        assert_corrected_data(un, data)
    un.apply(ex.CorrectValues([0, 60], [0], 1.0))
    data = data.after(ex.CorrectValues([0, 60], [0], 1.0))
    assert_corrected_data(un, data)
    assert_retrained(un, data)


# What is refused


def spoiled(change):
    X = csr(make_data("squared", zeros=True).X)
    change(X)
    return X


def set_part(name, index, value):
    def change(X):
        getattr(X, name)[index] = value

    return change


BAD = {
    "index_too_large": (lambda: spoiled(set_part("indices", 0, 10**6)), "indices of X point outside of it"),
    "index_of_the_width": (lambda: spoiled(set_part("indices", -1, 6)), "indices of X point outside of it"),
    "index_negative": (lambda: spoiled(set_part("indices", 3, -1)), "indices of X point outside of it"),
    "rows_overlap": (lambda: spoiled(set_part("indptr", 5, 0)), "indices of X point outside of it"),
    "rows_begin_late": (lambda: spoiled(set_part("indptr", 0, 1)), "indices of X point outside of it"),
    "nan": (lambda: spoiled(set_part("data", 7, np.nan)), "X contains NaN"),
    "inf": (lambda: spoiled(set_part("data", -1, np.inf)), "X contains .*infinity"),
    "minus_inf": (lambda: spoiled(set_part("data", 0, -np.inf)), "X contains .*infinity"),
    "complex": (lambda: csr(make_data("squared").X).astype(complex), "Complex data not supported"),
}


@pytest.mark.parametrize("bad", BAD)
@each_loss
def test_broken_matrices_are_refused_before_anything_changes(loss, bad):
    make, message = BAD[bad]
    data = make_data(loss, zeros=True)
    un = unlearner(data, loss, True, represent=csr)
    model, theta, residual = un.model, theta_of(un.model), un.residual()
    before = pickle.dumps(model)
    for refused in (
        lambda: ex.Unlearner(model, make(), data.y),
        lambda: ex.residual(model, make(), data.y),
        lambda: ESTIMATORS[loss]().fit(make(), data.y),
        lambda: un.apply([ex.RemoveRows([0]), ex.AddRows(make(), 1.0)]),
        lambda: kernels.gradient(make(), data.y, np.ones(6), alpha=1.0, loss=loss),
        lambda: kernels.hessian(make(), np.ones(6), alpha=1.0, loss=loss),
        lambda: kernels.gram(make(), np.ones(60)),
        lambda: kernels.gradient_difference((make(), data.y), None, np.ones(6), loss=loss),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    assert pickle.dumps(model) == before
    assert_array_equal(theta_of(model), theta)
    assert un.residual() == residual
    assert_corrected_data(un, data)


def test_one_dimension_and_objects_are_refused():
    data = make_data("squared", zeros=True)
    un = unlearner(data, "squared", True, represent=csr)
    flat = sparse.coo_array(data.X[0])
    for refused in (
        lambda: ex.Unlearner(un.model, flat, data.y),
        lambda: un.apply(ex.AddRows(flat, 1.0)),
        lambda: kernels.gram(flat, [1.0]),
    ):
        with pytest.raises(ValueError, match=r"X has shape \(6,\), expected \(n, d\)"):
            refused()
    words = sparse.csr_array((2, 6))
    words.data = np.array(["a", "b"], dtype=object)
    words.indices, words.indptr = np.array([0, 1], dtype=np.int32), np.array([0, 1, 2], dtype=np.int32)
    with pytest.raises((ValueError, TypeError)):
        un.apply(ex.AddRows(words, 1.0))
    for X in (csr(data.X[:, :5]), csr(np.hstack([data.X, data.X]))):
        for refused in (
            lambda X=X: ex.Unlearner(un.model, X, data.y),
            lambda X=X: un.apply(ex.AddRows(X, data.y)),
            lambda X=X: ex.residual(un.model, X, data.y),
        ):
            with pytest.raises(ValueError, match=f"X has {X.shape[1]} columns, expected 6"):
                refused()
    assert_corrected_data(un, data)


# Large


def large(loss, n=2000, d=20_000, entries=5, seed=0):
    """CSR with a few entries a row, y, and eight rows more."""
    rng = np.random.default_rng(seed)
    columns = np.minimum(
        (d * rng.uniform(size=(n + 8, entries)) ** 3).astype(int), d - 1
    )  # some are frequent
    rows = np.repeat(np.arange(n + 8), entries)
    X = sparse.coo_array((rng.standard_normal(rows.size), (rows, columns.ravel())), shape=(n + 8, d)).tocsr()
    eta = X @ rng.standard_normal(d) + 0.5
    y = eta + 0.1 * rng.standard_normal(n + 8) if loss == "squared" else (eta > 0).astype(float)
    return X[:n], y[:n], X[n:], y[n:]


def large_gradient(X, y, model, loss):
    """Of E1, from its definition by products of SciPy."""
    coef = np.ravel(model.coef_)
    eta = X @ coef + model.intercept_
    d1 = eta - y if loss == "squared" else 1.0 / (1.0 + np.exp(-eta)) - y
    return np.append(X.T @ d1 + model.alpha * coef, d1.sum())


@each_loss
def test_twenty_thousand_columns(loss):
    """Nothing of size n x d (320 MB) or p x p (3.2 GB) exists, and every residual is what it should be."""
    X, y, X_new, y_new = large(loss)
    tracemalloc.start()
    try:
        model = ESTIMATORS[loss](ALPHA).fit(X, y)
        un = ex.Unlearner(model, X, y, tolerance=TOLERANCE)
        rank = np.argsort(-np.bincount(X.indices, minlength=X.shape[1]))
        columns = rank[[0, 5, 50, 500, -1]]
        cells = sparse.csr_array(
            (np.full(6, 2.0), (np.repeat([1, 7, 30], 2), np.tile(columns[[1, 4]], 3))), shape=X.shape
        )
        zeroed = X.copy()
        for i in (1, 7, 30):
            chosen = slice(X.indptr[i], X.indptr[i + 1])
            zeroed.data[chosen][np.isin(X.indices[chosen], columns[[1, 4]])] = 0.0
        corrected = zeroed + cells
        flipped = y.copy()
        flipped[10:14] = 1.0 - flipped[10:14]
        some = np.arange(2000) % 50 != 3
        kept = np.setdiff1d(np.arange(X.shape[1]), columns)
        stages = [
            ([], X, y),
            (ex.CorrectValues([1, 7, 30], columns[[1, 4]], 2.0), corrected, y),
            (ex.CorrectLabels([10, 11, 12, 13], flipped[10:14]), corrected, flipped),
            (ex.AddRows(X_new, y_new), sparse.vstack([corrected, X_new]).tocsr(), np.append(flipped, y_new)),
        ]
        X_now, y_now = stages[-1][1:]
        live = np.append(some, np.ones(8, dtype=bool))
        stages.append((ex.RemoveRows(~live), X_now[np.flatnonzero(live)], y_now[live]))
        stages.append((ex.RevokeFeatures(columns), stages[-1][1][:, kept], y_now[live]))
        tracemalloc.reset_peak()
        for request, X_expected, y_expected in stages:
            update = un.apply(request)
            g = large_gradient(X_expected, y_expected, model, loss)
            assert update.residual_bound <= TOLERANCE
            assert np.linalg.norm(g) <= 1.001e-8 + 1e-12
            assert update.step.shape == g.shape
        for method in ("corrected", "original", "first_order"):
            before = np.linalg.norm(large_gradient(X_expected, y_expected, model, loss))
            update = un.apply(ex.CorrectLabels([20, 21], 1.0), **METHODS[method])
            y_expected[np.flatnonzero(np.isin(np.flatnonzero(live), [20, 21]))] = 1.0
            g = large_gradient(X_expected, y_expected, model, loss)
            assert abs(np.linalg.norm(g) - update.residual) <= 1e-10 + 1e-6 * before
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 20_000 * 8 / 20
    if sys.platform == "linux":
        import resource  # what the core allocates is seen here only

        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 3.2e9


# Histories


@pytest.mark.slow
@in_pairs(loss=CLASSIC, fit_intercept=INTERCEPT, form=["csr_int32", "csr_float32", "csr_explicit_zeros"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    history=histories(),
    n=st.integers(2, 40),
    d=st.integers(1, 8),
    solver=st.sampled_from(["auto", "cholesky", "cg"]),
    column_index=st.booleans(),
    joins=st.sampled_from(["float64_c", "csr_int64", "csc"]),
)
def test_random_histories_on_sparse_data_equal_retraining(
    loss, fit_intercept, form, history, n, d, solver, column_index, joins
):
    data = make_data(loss, n=n, d=d, zeros=True)
    data = replace(data, y=np.where(data.y > 0, 1.0, 0.0))
    data.y[:2] = 0.0, 1.0
    un = unlearner(
        data,
        loss,
        fit_intercept,
        alpha=1.0,
        represent=SPARSE[form],
        solver=solver,
        memory_limit=500 if solver == "cg" else None,
        column_index=column_index,
    )
    un, data = live_through(history, un, data, loss, SPARSE[form], REPRESENTATIONS[joins])
    un.apply([])
    assert_retrained(un, data)


@pytest.mark.parametrize("integer", [np.int32, np.int64])
def test_a_row_out_of_order_or_out_of_range_is_found_anywhere(integer):
    """Where threads share the search, and rows are empty: the gradient stays what it was, or is refused."""
    n, d, entries = 5000, 300, 70
    columns = np.sort(np.argsort(np.random.default_rng(0).random((n, d)), axis=1)[:, :entries], axis=1)
    columns[:, 0] = 0  # every row begins below the end of the one before
    starts = np.arange(n + 1) * entries
    full = (np.arange(n) % 10 > 0) | (np.arange(n) == n - 1)
    X = sparse.csr_array((np.ones(n * entries), columns.ravel(), starts), shape=(n, d))
    X = sparse.csr_array(sparse.diags_array(full.astype(float)) @ X)
    X.eliminate_zeros()
    X.indices, X.indptr = X.indices.astype(integer), X.indptr.astype(integer)
    y, theta = np.arange(n) % 2, np.linspace(-0.1, 0.1, d)

    def gradient():
        return kernels.gradient(X, y, theta, alpha=1.0)

    expected = gradient()
    for row in (1, 1665, 1666, 1667, n // 2 + 1, 3333, n - 1):  # three parts of rows
        first = X.indptr[row]
        right = X.indices[first : first + 2].copy()
        X.indices[first : first + 2] = right[::-1]
        assert_allclose(gradient(), expected, rtol=1e-12, atol=1e-12)
        for outside in (-1, d):
            X.indices[first] = outside
            with pytest.raises(ValueError, match="point outside"):
                gradient()
        X.indices[first : first + 2] = right
    X.indptr[n // 2], kept = X.indptr[n // 2 + 1] + 1, X.indptr[n // 2]
    with pytest.raises(ValueError, match="point outside"):
        gradient()
    X.indptr[n // 2] = kept
    assert_array_equal(gradient(), expected)


@pytest.mark.isa
@pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])
def test_products_of_a_matrix_so_wide_that_they_take_two_passes(fit_intercept):
    """Above 2**18 columns (E21), beside SciPy; and a fit goes to its tolerance."""
    rng = np.random.default_rng(0)
    n, d = 600, 2**18 + 5
    X = sparse.random_array((n, d), density=20 / d, format="csr", random_state=rng)
    y, s = (rng.random(n) < 0.5).astype(np.float64), rng.uniform(0.5, 2.0, n)
    theta, v = rng.standard_normal((2, d + fit_intercept))
    A = sparse.hstack([X, np.ones((n, 1))], format="csr") if fit_intercept else X
    penalty = np.append(np.ones(d), np.zeros(int(fit_intercept)))
    p = 1.0 / (1.0 + np.exp(-(A @ theta)))
    options = {"alpha": 1.0, "sample_weight": s, "fit_intercept": fit_intercept}
    g = kernels.gradient(X, y, theta, **options)
    assert_allclose(g, A.T @ (s * (p - y)) + penalty * theta, rtol=1e-12, atol=1e-12)
    Hv = kernels.hvp(X, theta, v, **options)
    assert_allclose(Hv, A.T @ (s * p * (1 - p) * (A @ v)) + penalty * v, rtol=1e-12, atol=1e-12)
    model = ex.LogisticRegression(fit_intercept=fit_intercept, tol=1e-8).fit(X, y, s)
    assert ex.residual(model, X, y, s) <= model.tol
    model = ex.LogisticRegression(fit_intercept=fit_intercept, within=1e-4).fit(X, y, s)
    assert ex.distance(model, X, y, s) <= 1e-4
