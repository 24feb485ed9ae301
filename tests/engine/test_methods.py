"""The methods: exact equals retraining on data corrected by NumPy indexing, the others their formulas."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    CLASSIC,
    DENSE,
    FAMILIES,
    INTERCEPT,
    NATIVE,
    REPRESENTATIONS,
    SPARSE,
    WEIGHTED,
    in_converted_forms,
    in_pairs,
    retrain,
)
from scipy import sparse
from unlearning import (
    ALPHA,
    KINDS,
    MAIN_KINDS,
    METHODS,
    assert_corrected_data,
    assert_retrained,
    assert_vouched,
    each_intercept,
    each_loss,
    each_weighting,
    gradient_and_floor,
    histories,
    live_through,
    make_data,
    objective_of,
    represented,
    requests_for,
    surviving,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import reference
from expunge.losses import LOSSES

# Exact unlearning


@pytest.mark.isa
@in_pairs(kind=KINDS, loss=CLASSIC, fit_intercept=INTERCEPT, weighted=WEIGHTED, represent=FAMILIES)
def test_exact_unlearning_equals_retraining(kind, loss, fit_intercept, weighted, represent):
    data, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)[kind]
    un = unlearner(data, loss, fit_intercept, represent=represent)
    update = un.apply(represented(requests, represent))
    assert update.residual_bound <= un.tolerance
    assert_retrained(un, data.after(*requests))


@in_pairs(kind=KINDS, loss=CLASSIC, fit_intercept=INTERCEPT, weighted=WEIGHTED)
def test_exact_unlearning_of_cells_that_are_not_0_equals_retraining(kind, loss, fit_intercept, weighted):
    data, requests = make_data(loss, weighted=weighted), requests_for(loss)[kind]
    un = unlearner(data, loss, fit_intercept)
    assert un.apply(requests).residual_bound <= un.tolerance
    assert_retrained(un, data.after(*requests))


@pytest.mark.parametrize("fit_intercept", INTERCEPT.values(), ids=INTERCEPT)
@pytest.mark.parametrize("loss", CLASSIC)
def test_the_minimiser_of_an_X_that_became_0_is_0(loss, fit_intercept):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    for rows in (slice(30), slice(30, None)):
        request = ex.CorrectValues(rows, range(6), 0.0)
        un.apply(request)
        data = data.after(request)
        assert_retrained(un, data)
    assert not retrain(*data.rows[:2], **objective_of(un, data.rows[2]))[:6].any()


@in_pairs(loss=CLASSIC, fit_intercept=INTERCEPT, represent=[*FAMILIES, "csc"])
def test_a_stream_of_exact_requests_equals_retraining(loss, fit_intercept, represent):
    data = make_data(loss, zeros=True)
    un = unlearner(data, loss, fit_intercept, represent=represent)
    for kind in ("mixed_rows", "revoke_feature", "correct_labels"):
        requests = requests_for(loss)[kind]
        un.apply(requests)  # a sparse X takes dense rows
        data = data.after(*requests)
        assert_corrected_data(un, data)
        assert_retrained(un, data)


@cache
def in_C_order(kind, loss, method, fit_intercept):
    """What :func:`outcome` must be in every representation."""
    return outcome(kind, loss, method, fit_intercept, REPRESENTATIONS["float64_c"])


def outcome(kind, loss, method, fit_intercept, represent):
    """The numbers that a fit, a request and the model after it come to."""
    data, requests = make_data(loss, weighted=True, zeros=True), requests_for(loss)[kind]
    X_test = represent(make_data(loss, seed=1, zeros=True).X[:, data.after(*requests).kept])
    un = unlearner(data, loss, fit_intercept, tolerance=1e-13, represent=represent)
    fitted = theta_of(un.model)
    update = un.apply(represented(requests, represent), **METHODS[method])
    predict = un.model.predict if loss == "squared" else un.model.decision_function
    return {
        "fit": fitted,
        "step": update.step,
        "gradient_difference": update.gradient_difference,
        "residual": [update.residual, un.residual()],
        "predictions": predict(X_test),
        "tau": 0.0 if update.tau is None else update.tau,
        "counts": [update.rows_touched, update.features_revoked],
    }


EACH_REQUEST = ["remove_rows", "add_weighted_rows", "correct_labels", "correct_values_to_0"]


@pytest.mark.filterwarnings("ignore:the tolerance")  # all go as far as rounding lets them
@in_pairs(kind=[*EACH_REQUEST, "revoke_features", "mixed"], loss=CLASSIC, represent=NATIVE)
def test_every_native_representation_gives_the_same_numbers(kind, loss, represent):
    assert_the_same_numbers(kind, loss, represent)


@pytest.mark.filterwarnings("ignore:the tolerance")
@in_converted_forms
@each_loss
def test_every_converted_representation_gives_the_same_numbers(loss, represent):
    assert_the_same_numbers("mixed", loss, represent)


def assert_the_same_numbers(kind, loss, represent):
    """As in float64 and C order, by every method."""
    for method, fit_intercept in [("exact", False), *((method, True) for method in METHODS)]:
        expected = in_C_order(kind, loss, method, fit_intercept)
        for name, value in outcome(kind, loss, method, fit_intercept, represent).items():
            assert_allclose(value, expected[name], rtol=0, atol=1e-10, err_msg=f"{name}, {method}")


@in_pairs(form=["csr_int32", "csc", "coo_duplicates"], represent=FAMILIES)
def test_sparse_rows_do_not_join_dense_data(form, represent):
    data = make_data("squared")
    un = unlearner(data, "squared", True, represent=represent)
    new = ex.AddRows(SPARSE[form](data.X[:2]), data.y[:2])
    if sparse.issparse(represent(data.X)):
        un.apply(new)
        assert_retrained(un, data.after(new))
    else:
        with pytest.raises(TypeError, match="X is sparse but the data are dense: pass a dense X"):
            un.apply([ex.RemoveRows([0]), new])
        assert_corrected_data(un, data)


@each_loss
def test_a_list_means_its_members_in_order(loss):
    data, requests = make_data(loss, weighted=True), requests_for(loss)["mixed"]
    at_once, one_by_one = (unlearner(data, loss, True) for _ in range(2))
    at_once.apply(requests)
    for request in requests:
        one_by_one.apply(request)
    for a, b in zip(at_once.corrected_data(), one_by_one.corrected_data(), strict=True):
        assert_array_equal(a, b)
    assert_retrained(at_once, data.after(*requests))
    assert_retrained(one_by_one, data.after(*requests))


@each_intercept
@each_loss
def test_weight_0_is_a_removed_row_and_weight_2_a_duplicate(loss, fit_intercept):
    plain = make_data(loss)
    weighted = replace(plain, s=plain.s.copy(), weighted=True)
    weighted.s[10:15], weighted.s[20:30] = 0.0, 2.0
    duplicates = ex.AddRows(plain.X[20:30], plain.y[20:30])
    by_rows, by_weights = unlearner(plain, loss, fit_intercept), unlearner(weighted, loss, fit_intercept)
    by_rows.apply([ex.RemoveRows(slice(10, 15)), duplicates])
    assert_retrained(by_rows, weighted)

    # the same again, with the weight that a request brings: two rows twice, one row not at all
    by_rows.apply(ex.AddRows(plain.X[[0, 0, 1, 1]], plain.y[[0, 0, 1, 1]]))
    heavy = ex.AddRows(plain.X[:3], plain.y[:3], np.array([2.0, 2.0, 0.0]))
    by_weights.apply(heavy)
    assert_retrained(by_rows, weighted.after(heavy))
    assert_retrained(by_weights, weighted.after(heavy))


@pytest.mark.parametrize("target", [1e6, 1e9])
def test_a_row_of_huge_loss_and_no_influence_can_be_removed_with_others(target):
    """J(D') is so much smaller than J(D) that J(D) minus the removed loss is all rounding."""
    data = make_data("squared")
    data.X[7], data.y[7] = 0.0, target
    un = unlearner(data, "squared", False)
    requests = [ex.RemoveRows([7]), ex.CorrectLabels([3], data.y[3] + 1e-3)]
    un.apply(requests)
    assert_retrained(un, data.after(*requests))


# The second-order update (E5)


def newton_step(un, before, data, theta, hessian):
    """-H^-1 g by the reference, on the surviving coordinates, and how far rounding may carry it.

    g is the gradient on `data`, H the Hessian of `data` or of those `before`.
    """
    lasting = surviving(before, data, un.model.fit_intercept)
    g, floor = gradient_and_floor(un, data, theta[lasting])
    if hessian == "corrected":
        X, _, s = data.rows
        H = reference.hessian(X, theta[lasting], **objective_of(un, s))
        lasting = np.ones(len(H), dtype=bool)
    else:
        X, _, s = before.rows
        H = reference.hessian(X, theta, **objective_of(un, s))
        whole = un.model.alpha * theta  # of a column without data, only the penalty is left
        whole[lasting] = g
        g = whole
    step = -np.linalg.solve(H, g)
    # A relative error of 1e-14 in H, a hundred times that of forming it, and twice the floor in g.
    eigenvalues = np.linalg.eigvalsh(H)
    condition = eigenvalues[-1] / eigenvalues[0]
    return step[lasting], 1e-14 * condition * np.linalg.norm(step) + 2.0 * floor / eigenvalues[0]


SECOND_ORDER = ["corrected", "original"]


@in_pairs(
    kind=KINDS,
    loss=CLASSIC,
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    hessian=SECOND_ORDER,
    represent=["float32_f", "csr_int32"],
)
def test_second_order_is_one_newton_step(kind, loss, fit_intercept, weighted, hessian, represent):
    before, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)[kind]
    un = unlearner(before, loss, fit_intercept, represent=represent)
    theta = theta_of(un.model)
    update = un.apply(represented(requests, represent), method="second_order", hessian=hessian)
    step, tolerance = newton_step(un, before, before.after(*requests), theta, hessian)
    assert np.linalg.norm(update.step - step) <= tolerance


@in_pairs(
    kind=MAIN_KINDS,
    loss=CLASSIC,
    fit_intercept=INTERCEPT,
    earlier=list(METHODS),
    hessian=SECOND_ORDER,
)
def test_second_order_is_one_newton_step_after_other_requests(kind, loss, fit_intercept, earlier, hessian):
    data, requests = make_data(loss, weighted=True), requests_for(loss)
    un = unlearner(data, loss, fit_intercept)
    first = requests["correct_values"] if kind != "correct_values" else requests["remove_rows"]
    un.apply(first, **METHODS[earlier])
    before, theta = data.after(*first), theta_of(un.model)
    update = un.apply(requests[kind], method="second_order", hessian=hessian)
    step, tolerance = newton_step(un, before, before.after(*requests[kind]), theta, hessian)
    assert np.linalg.norm(update.step - step) <= tolerance


CURVATURE_CHANGES = ["remove_many_rows", "correct_values_to_one_row", "correct_a_column", "revoke_features"]


@each_weighting
@each_intercept
@pytest.mark.parametrize("kind", CURVATURE_CHANGES)
def test_second_order_ridge_equals_retraining_only_with_the_corrected_hessian(kind, fit_intercept, weighted):
    data, requests = make_data("squared", weighted=weighted), requests_for("squared")[kind]
    X, y, s = data.after(*requests).rows
    errors = {}
    for hessian in ("corrected", "original"):
        un = unlearner(data, "squared", fit_intercept)
        un.apply(requests, method="second_order", hessian=hessian)
        retrained = retrain(X, y, **objective_of(un, s))
        errors[hessian] = np.linalg.norm(theta_of(un.model) - retrained) / np.linalg.norm(retrained)
    assert errors["corrected"] <= 1e-10
    assert errors["original"] > 1e-4  # a stale Hessian does not pass


@each_loss
def test_corrected_labels_leave_the_hessian(loss):  # E6
    data, requests = make_data(loss), requests_for(loss)["correct_labels"]
    steps = [
        unlearner(data, loss, True).apply(requests, method="second_order", hessian=hessian).step
        for hessian in ("corrected", "original")
    ]
    assert_array_equal(*steps)


@pytest.mark.parametrize("outlier", [1e6, 1e8])
@pytest.mark.parametrize(
    "request_", [ex.RemoveRows([7]), ex.CorrectValues([7], [2], 0.5)], ids=["row", "cell"]
)
def test_the_hessian_follows_the_data_when_an_outlier_leaves(request_, outlier):
    """H holds outlier^2; subtracting it must not leave its rounding errors in the Hessian of what stays."""
    data = make_data("squared")
    data.X[7, 2] = outlier
    un = unlearner(data, "squared", False, tolerance=1e-4)
    for request in (request_, ex.RemoveRows([8])):
        before, data, theta = data, data.after(request), theta_of(un.model)
        _, floor = gradient_and_floor(un, before, theta)
        un.apply(request, method="second_order")
        X, y, s = data.rows
        retrained = retrain(X, y, **objective_of(un, s))
        # The gradient on `before`, outlier included, is right to its floor; H is as good as formed anew.
        tolerance = 2.0 * floor / np.linalg.eigvalsh(X.T @ X)[0] + 1e-10 * np.linalg.norm(retrained)
        assert np.linalg.norm(theta_of(un.model) - retrained) <= tolerance


@each_intercept
@each_loss
@pytest.mark.parametrize("row", [4, 31])
def test_one_removed_row_scales_the_influence_function_by_its_leverage(row, loss, fit_intercept):  # E7
    data = make_data(loss)
    corrected, original = (
        unlearner(data, loss, fit_intercept, tolerance=1e-11).apply(
            ex.RemoveRows([row]), method="second_order", hessian=hessian
        )
        for hessian in ("corrected", "original")
    )
    theta = theta_of(unlearner(data, loss, fit_intercept, tolerance=1e-11).model)
    X, _, _ = data.rows
    x = np.append(X[row], 1.0) if fit_intercept else X[row]
    H = reference.hessian(X, theta, alpha=ALPHA, loss=loss, fit_intercept=fit_intercept)
    h = LOSSES[loss].d2(data.y[row], x @ theta) * (x @ np.linalg.solve(H, x))
    assert 0.01 < h < 1.0
    difference = corrected.step - original.step / (1.0 - h)
    assert np.linalg.norm(difference) <= 1e-10 * np.linalg.norm(corrected.step)


# The first-order update (E4)


def assert_safe(un, before, data, theta, update):
    """tau is at most 1/L, and the residual has fallen as it then must."""
    fit_intercept, alpha, loss = (
        un.model.fit_intercept,
        un.model.alpha,
        LOSSES[objective_of(un, None)["loss"]],
    )
    g, floor = gradient_and_floor(un, data, theta[surviving(before, data, fit_intercept)])
    X, _, s = data.rows
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    G = reference.gram(A, np.ones(len(A)) if s is None else s)
    assert 0.0 < update.tau <= 1.0 / (alpha + loss.max_d2 * np.linalg.norm(G, ord=2))
    lambda_min = 0.0 if fit_intercept else alpha
    assert update.residual <= (1.0 - update.tau * lambda_min) * np.linalg.norm(g) + floor
    assert update.residual < np.linalg.norm(g)


@in_pairs(kind=KINDS, loss=CLASSIC, fit_intercept=INTERCEPT, represent=["float64_c", "csr_float32"])
def test_first_order_with_its_own_tau_reduces_the_residual(kind, loss, fit_intercept, represent):
    data, requests = make_data(loss, weighted=True, zeros=True), requests_for(loss)
    un = unlearner(data, loss, fit_intercept, represent=represent)
    for sequence in ([ex.CorrectLabels([0, 1], 1.0)], requests[kind]):
        before, data, theta = data, data.after(*sequence), theta_of(un.model)
        assert_safe(un, before, data, theta, un.apply(sequence, method="first_order"))


@each_intercept
@each_loss
def test_the_safe_tau_follows_rows_that_come_later(loss, fit_intercept):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    X, y, _ = data.rows
    for request in (
        ex.RemoveRows([0]),
        ex.AddRows(X[:2], y[:2], np.array([60.0, 3.0])),
        ex.CorrectValues([5], [0, 1], 20.0),
        ex.RevokeFeatures([2]),
        ex.AddRows(10.0 * X[2:30, :5], y[2:30]),
    ):
        before, data, theta = data, data.after(request), theta_of(un.model)
        assert_safe(un, before, data, theta, un.apply(request, method="first_order"))


@each_loss
def test_the_safe_tau_is_not_needlessly_small(loss):
    data = make_data(loss)
    update = unlearner(data, loss, False).apply(ex.RemoveRows([3]), method="first_order")
    X = data.after(ex.RemoveRows([3])).rows[0]
    frobenius = np.linalg.norm(X.T @ X)
    assert update.tau >= (1.0 - 1e-12) / (ALPHA + LOSSES[loss].max_d2 * frobenius)


@in_pairs(kind=KINDS, loss=CLASSIC, fit_intercept=INTERCEPT)
def test_first_order_with_a_given_tau_is_one_gradient_step(kind, loss, fit_intercept):
    before, requests, tau = make_data(loss), requests_for(loss)[kind], 1e-3
    un = unlearner(before, loss, fit_intercept)
    data, theta = before.after(*requests), theta_of(un.model)
    theta = theta[surviving(before, data, fit_intercept)]
    update = un.apply(requests, method="first_order", tau=tau)
    g, floor = gradient_and_floor(un, data, theta)
    assert update.tau == tau
    # 2 floors for g, and the roundings of tau g and of theta - tau g, undone by the step
    rounding = 2.0**-52 * (np.linalg.norm(theta) + tau * np.linalg.norm(g))
    assert np.linalg.norm(update.step + tau * g) <= 2.0 * tau * floor + rounding


# Methods in any order


@in_pairs(loss=CLASSIC, first=list(METHODS), second=list(METHODS), third=list(METHODS))
def test_after_any_methods_an_exact_request_reaches_retraining(loss, first, second, third):
    methods = first, second, third
    data, requests = make_data(loss), requests_for(loss)
    un = unlearner(data, loss, True)
    for method, kind in zip(methods, ("correct_values", "revoke_feature", "add_rows"), strict=True):
        sequence = (
            requests[kind] if kind != "add_rows" else [ex.AddRows(data.rows[0][:3] + 1.0, data.rows[1][:3])]
        )
        before, data, theta = data, data.after(*sequence), theta_of(un.model)
        update = un.apply(sequence, **METHODS[method])
        assert_vouched(un, update)
        if method in ("auto", "exact"):
            assert update.residual_bound <= un.tolerance
        elif method != "first_order":
            step, tolerance = newton_step(un, before, data, theta, method)
            assert np.linalg.norm(update.step - step) <= tolerance
    un.apply([])
    assert_retrained(un, data)


@pytest.mark.parametrize("tau", [1.0, 1e2, 1e4])
@each_intercept
@each_loss
def test_an_exact_request_recovers_from_any_first_order_step(loss, fit_intercept, tau):
    """Far out the curvature of the logistic loss underflows, and with it the Hessian of a free intercept."""
    data, request = make_data(loss), ex.RemoveRows([3, 4, 5])
    un = unlearner(data, loss, fit_intercept, tolerance=1e-6)
    assert un.apply(request, method="first_order", tau=tau).residual > 1.0
    un.apply([])
    assert_retrained(un, data.after(request))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float64_c", "float32_c"])
@each_intercept
@each_loss
@settings(max_examples=25, deadline=None, derandomize=True)
@given(history=histories(), n=st.integers(2, 40), d=st.integers(1, 5))
def test_random_histories_equal_retraining(loss, fit_intercept, form, history, n, d):
    data = make_data(loss, n=n, d=d)
    data = replace(data, y=np.where(data.y > 0, 1.0, 0.0))
    data.y[:2] = 0.0, 1.0
    un = unlearner(data, loss, fit_intercept, alpha=1.0, represent=DENSE[form])
    un, data = live_through(history, un, data, loss, DENSE[form])
    un.apply([])
    assert_retrained(un, data)
