"""Conversion: every representation of X becomes, once and at every door, one that kernels read."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import CONVERTED, INTEGERS, NATIVE, bits_of, dense, in_every_form, parts_of
from scipy import sparse

import expunge as ex
from expunge import kernels
from expunge._arrays import as_matrix

N, D = 40, 6
OBJECTIVE = {"alpha": 1.0, "fit_intercept": True}
THETA, V = np.random.default_rng(1).standard_normal((2, D + 1))
Y = np.arange(N) % 2.0

in_all_but_native_forms = pytest.mark.parametrize("represent", [*CONVERTED, *INTEGERS], indirect=True)


def rows(seed=0, n=N):
    """(n, D), whole numbers, half of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, D)) < 0.5, 0.0, rng.integers(-8, 9, (n, D)))


def is_native(X):
    """Whether kernels read it as it is."""
    if X.dtype not in (np.float64, np.float32):
        return False
    if not sparse.issparse(X):
        return X.flags.aligned and (X.flags.c_contiguous or X.flags.f_contiguous)
    fresh = sparse.csr_array((X.data, X.indices, X.indptr), shape=X.shape)  # which has not cached an answer
    return (
        X.format == "csr"
        and X.indices.dtype == X.indptr.dtype
        and X.indices.dtype in (np.int32, np.int64)
        and fresh.has_canonical_format
    )


@pytest.mark.parametrize("represent", NATIVE, indirect=True)
def test_what_kernels_read_is_not_copied(represent):
    X = represent(rows())
    assert is_native(X)
    assert all(np.shares_memory(*parts) for parts in zip(parts_of(as_matrix(X)), parts_of(X), strict=True))


@in_all_but_native_forms
def test_everything_else_becomes_what_kernels_read(represent):
    X = represent(rows())
    given = X if isinstance(X, list) else bits_of(X)
    converted = as_matrix(X)
    assert is_native(converted)
    assert_array_equal(dense(converted), rows())
    assert sparse.issparse(converted) == sparse.issparse(X)
    assert (X if isinstance(X, list) else bits_of(X)) == given


@in_every_form
def test_what_is_not_finite_is_refused_in_every_form(represent):
    for bad, message in ((np.nan, "X contains NaN"), (np.inf, "X contains.* infinity")):
        X = rows()
        X[-1, 3] = bad
        with pytest.raises(ValueError, match=message):
            as_matrix(represent(X))


DOORS = {
    "gradient": lambda X: kernels.gradient(X, Y, THETA, **OBJECTIVE),
    "loss_and_gradient": lambda X: np.hstack(kernels.loss_and_gradient(X, Y, THETA, **OBJECTIVE)),
    "loss_gradient_and_hessian": lambda X: kernels.loss_gradient_and_hessian(X, Y, THETA, **OBJECTIVE)[2],
    "hessian": lambda X: kernels.hessian(X, THETA, **OBJECTIVE),
    "hvp": lambda X: kernels.hvp(X, THETA, V, **OBJECTIVE),
    "rounding_floor": lambda X: kernels.rounding_floor(X, Y, THETA, **OBJECTIVE),
    "gram": lambda X: kernels.gram(X, Y - 0.25),
    "rows before": lambda X: kernels.gradient_difference((X, Y), None, THETA, fit_intercept=True),
    "rows after": lambda X: kernels.gradient_difference(None, (X, Y), THETA, fit_intercept=True),
    "statistics": lambda X: edited(X).hessian,
    "fit": lambda X: ex.LogisticRegression(tol=1e-10).fit(X, Y).coef_,
    "predict": lambda X: fitted().decision_function(X),
    "residual": lambda X: ex.residual(fitted(), X, Y),
    "Unlearner": lambda X: unlearner(X).apply(ex.RemoveRows([3])).step,
    "AddRows": lambda X: unlearner(native(X)).apply(ex.AddRows(X, Y)).step,
    "Edit": lambda X: unlearner(native(X)).detach().apply(ex.Edit(before=(X, Y)), method="second_order").step,
}


def native(X):
    """Rows that are no others in any form, dense or not as X is."""
    X_native = np.vstack([rows(), rows(seed=2)])
    return sparse.csr_array(X_native) if sparse.issparse(X) else X_native


def fitted():
    return ex.LogisticRegression().fit(rows(), Y)


def unlearner(X):
    y = np.arange(X.shape[0] if hasattr(X, "shape") else len(X)) % 2.0
    return ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)


def edited(X):
    """Statistics of these rows twice, less the last ones."""
    statistics = kernels.AnchoredStatistics(X, Y, THETA, **OBJECTIVE)
    statistics.add(X, Y)
    statistics.subtract(X, Y)
    return statistics


@in_all_but_native_forms
def test_every_door_takes_every_form(represent):
    X = represent(rows())
    for door, result in DOORS.items():
        expected = result(sparse.csr_array(rows()) if sparse.issparse(X) else rows())
        assert_allclose(result(X), expected, rtol=1e-9, atol=1e-9, err_msg=door)
