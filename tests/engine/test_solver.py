"""Solvers: Cholesky and conjugate gradients, and nothing of size p x p where there is no room."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from problems import CLASSIC, REPRESENTATIONS, csr, in_pairs
from unlearning import (
    ALPHA,
    MAIN_KINDS,
    METHODS,
    assert_corrected_data,
    assert_retrained,
    each_intercept,
    each_loss,
    gradient_and_floor,
    inside,
    make_data,
    objective_of,
    request_from,
    requests_for,
    surviving,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import _core, reference

ESTIMATORS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
pytestmark = pytest.mark.usefixtures("nothing_densified")


# Solvers


RELATIVE = 1e-2  # residual of a linear system, of a loss whose Hessian tells no more than that
BLOCKS = {"no_block": (False, 0), "block_of_5": (True, 1000), "whole_block": (True, None)}
dense_and_sparse = pytest.mark.parametrize("form", ["float64_c", "csr_int32"])


def linear_system(un, before, data, theta, hessian):
    """g on `data` and H there or `before`, by the reference, and the floor of g."""
    lasting = surviving(before, data, un.model.fit_intercept)
    g, floor = gradient_and_floor(un, data, theta[lasting])
    X, _, s = (data if hessian == "corrected" else before).rows
    return g, reference.hessian(X, theta[lasting], **objective_of(un, s)), floor


@in_pairs(kind=MAIN_KINDS, loss=CLASSIC, block=BLOCKS, form=["float64_c", "csr_int32"])
def test_conjugate_gradients_keep_what_every_method_promises(kind, loss, block, form):
    fit_intercept, limit = block
    before, requests = make_data(loss, weighted=True, zeros=True), requests_for(loss)[kind]
    data = before.after(*requests)
    for name, method in METHODS.items():
        un = unlearner(
            before, loss, fit_intercept, represent=REPRESENTATIONS[form], solver="cg", memory_limit=limit
        )
        assert_retrained(un, before)
        theta = theta_of(un.model)
        update = un.apply(requests, **method)
        if name in ("auto", "exact") or (name == "corrected" and loss == "squared"):
            assert_retrained(un, data)
        elif name == "first_order":
            g, floor = gradient_and_floor(un, data, theta[surviving(before, data, fit_intercept)])
            assert update.residual <= np.linalg.norm(g) + floor
        elif name == "corrected" or data.kept.all():
            g, H, floor = linear_system(un, before, data, theta, name)
            allowed = max(un.tolerance, RELATIVE * np.linalg.norm(g))
            assert np.linalg.norm(H @ update.step + g) <= allowed * (1.0 + 1e-9) + 2.0 * floor
        un.apply([])
        assert_retrained(un, data)


@dense_and_sparse
@each_intercept
@each_loss
def test_conjugate_gradients_and_cholesky_fit_the_same_model(loss, fit_intercept, form):
    data = make_data(loss, weighted=True, zeros=True)
    by_cg, by_cholesky = (
        unlearner(data, loss, fit_intercept, represent=REPRESENTATIONS[form], solver=solver)
        for solver in ("cg", "cholesky")
    )
    for request in (ex.RemoveRows([3]), ex.RevokeFeatures([1]), ex.AddRows(data.X[:4, 1:], data.y[:4])):
        # Each is within r / alpha of the minimiser, r at most sqrt(1 + max |x|^2) times the tolerance (E10).
        longest = np.sqrt(1.0 + (data.X**2).sum(axis=1).max())
        distance = np.linalg.norm(by_cg.model.coef_ - by_cholesky.model.coef_)
        assert distance <= 2.0 * longest * 1e-8 / ALPHA
        by_cg.apply(request)
        by_cholesky.apply(request)
        data = data.after(request)
        assert_retrained(by_cg, data)
        assert_retrained(by_cholesky, data)


@in_pairs(loss=CLASSIC, method=METHODS, limit=[0, 1000], form=["float64_c", "csr_int32"])
def test_above_the_memory_limit_auto_never_holds_a_whole_hessian(loss, method, limit, form):
    data = make_data(loss, zeros=True)
    un = unlearner(data, loss, True, represent=REPRESENTATIONS[form], memory_limit=limit)
    for kind in ("remove_many_rows", "correct_values", "revoke_feature"):
        anchor = inside(un).state.anchor
        assert anchor is None or not anchor.complete
        un.apply(requests_for(loss)[kind], **method)
        data = data.after(*requests_for(loss)[kind])
    assert inside(un).state.anchor is None or not inside(un).state.anchor.complete
    un.apply([])
    assert un.residual() <= un.tolerance
    fresh = un.retrain()
    assert (fresh.solver, fresh.memory_limit) == ("auto", limit)


@dense_and_sparse
@each_loss
def test_cholesky_above_the_memory_limit_is_refused_with_both_ways_out(loss, form):
    data = make_data(loss, zeros=True)
    X = REPRESENTATIONS[form](data.X)
    both = "solver='cholesky' needs .* for 7 parameters.* raise memory_limit or use solver='cg'"
    model = ESTIMATORS[loss](solver="cholesky", memory_limit=100)
    with pytest.raises(ValueError, match=both):
        model.fit(X, data.y)
    assert not hasattr(model, "coef_")
    model = ESTIMATORS[loss](solver="cholesky", tol=1e-2).fit(X, data.y)
    model.memory_limit = 100
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=both):
        ex.Unlearner(model, X, data.y)
    assert pickle.dumps(model) == before
    model.memory_limit = 6 * 8 * 7 * 7  # the six matrices
    assert ex.Unlearner(model, X, data.y).residual() <= 1e-8


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("solver", value) for value in ("lu", "Cholesky", "", None, 3)),
        *(("memory_limit", value) for value in (-1, -1e-9, np.nan, "1GB", [1e9], 1j)),
    ],
)
@each_loss
def test_bad_solvers_and_limits_are_refused_by_name(loss, parameter, value):
    data = make_data(loss, zeros=True)
    with pytest.raises(ValueError, match=parameter):
        ESTIMATORS[loss](**{parameter: value}).fit(csr(data.X), data.y)
    model = ESTIMATORS[loss](tol=1e-2).fit(csr(data.X), data.y)
    setattr(model, parameter, value)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=parameter):
        ex.Unlearner(model, csr(data.X), data.y)
    assert pickle.dumps(model) == before


@pytest.mark.parametrize("solver", ["auto", "cholesky", "cg"])
@pytest.mark.parametrize("limit", [np.inf, np.float32(2**20), 2.5e6, np.int64(2**30), 1e300])
def test_any_number_of_bytes_is_a_memory_limit(limit, solver):
    data = make_data("squared", zeros=True)
    un = unlearner(data, "squared", True, represent=csr, solver=solver, memory_limit=limit)
    un.apply(ex.RemoveRows([3]))
    assert_retrained(un, data.after(ex.RemoveRows([3])))


@dense_and_sparse
@pytest.mark.parametrize("limit", [0, None])
@each_loss
def test_a_stream_of_thirty_mixed_requests_by_conjugate_gradients_equals_retraining(loss, limit, form):
    data, rng = make_data(loss, n=80, d=20, zeros=True), np.random.default_rng(5)
    data = replace(data, y=np.where(data.y > 0, 1.0, 0.0))
    data.y[:2] = 0.0, 1.0
    un = unlearner(
        data, loss, True, represent=REPRESENTATIONS[form], solver="cg", memory_limit=limit, column_index=True
    )
    kinds = ["remove", "add", "label", "value", "revoke"] * 6
    for i, kind in enumerate(kinds):
        request = request_from(data, loss, kind, *rng.integers(0, 100, 3))
        un.apply(request, **list(METHODS.values())[(0, 1, 0, 2, 3)[i // 5 % 5]])
        data = data.after(request)
        if i % 5 == 4:
            assert_corrected_data(un, data)
            un.apply([])
            assert_retrained(un, data)


@each_loss
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_the_original_hessian_is_that_of_the_data_before_memory_is_freed(solver, loss):
    """Rows that were corrected twice leave the overlay when the next request begins."""
    data = make_data(loss, zeros=True)
    for form in ("float64_c", "csr_int32"):
        un, now = unlearner(data, loss, True, represent=REPRESENTATIONS[form], solver=solver), data
        for value in (0.5, 1.0, -0.5):
            now = now.after(ex.CorrectValues(slice(0, 40), [0, 1], value))
            un.apply(ex.CorrectValues(slice(0, 40), [0, 1], value))
        before, theta = now, theta_of(un.model)
        requests = [ex.AddRows(4.0 * data.X[:50], data.y[:50]), ex.RemoveRows([50])]
        now = now.after(*requests)
        update = un.apply(requests, method="second_order", hessian="original")
        g, H, floor = linear_system(un, before, now, theta, "original")
        allowed = max(un.tolerance, RELATIVE * np.linalg.norm(g)) if solver == "cg" else un.tolerance
        assert np.linalg.norm(H @ update.step + g) <= allowed * (1.0 + 1e-9) + 2.0 * floor


@pytest.mark.parametrize("method", ["exact", "second_order", "first_order"])
@dense_and_sparse
def test_what_is_left_after_a_revocation_may_be_the_block_that_was_factored(form, method):
    data = make_data("logistic", n=34, d=4)
    for j in range(4):
        un = unlearner(
            data, "logistic", False, represent=REPRESENTATIONS[form], solver="cg", memory_limit=500
        )  # a block of 3 of the 4 coordinates
        un.apply(ex.RevokeFeatures([j]), method="first_order")
        un.apply(ex.RemoveRows([3]), method=method)
        un.apply([])
        assert_retrained(un, data.after(ex.RevokeFeatures([j]), ex.RemoveRows([3])))


def test_a_start_at_0_is_one_whether_it_was_evaluated_or_not():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 10))  # enough rows for a sample
    y = (rng.random(20_000) < 1.0 / (1.0 + np.exp(-3.0 * X[:, 0]))) * 1.0
    J, zero = _core.Objective([(X, y, None)], "logistic", np.full(10, 1e-2), False), np.zeros(10)
    plain = _core.minimize(J, zero, 1e-6, 100)
    known = _core.minimize(J, zero, 1e-6, 100, None, J.evaluate(zero))
    np.testing.assert_array_equal(known.theta, plain.theta)
    assert known.passes == plain.passes
    assert known.iterations == plain.iterations
    stays = _core.minimize(J, zero, 1e6, 100, None, J.evaluate(zero))
    assert not stays.theta.any()  # near enough as it is
