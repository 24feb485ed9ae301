"""Unlearning equals retraining, on corrected data built here by NumPy indexing and fitted by `retrain`."""

import copy
import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    CONVERTED,
    DENSE,
    FAMILIES,
    INTERCEPT,
    NATIVE,
    REPRESENTATIONS,
    SPARSE,
    WEIGHTED,
    adult,
    bits_of,
    in_converted_forms,
    in_families,
    in_pairs,
    parts_of,
    read_only,
    retrain,
)
from scipy import sparse
from unlearning import (
    ALPHA,
    KINDS,
    METHODS,
    TOLERANCE,
    Data,
    assert_corrected_data,
    assert_retrained,
    assert_vouched,
    each_intercept,
    each_loss,
    each_weighting,
    gradient_and_floor,
    histories,
    inside,
    live_through,
    make_data,
    objective_of,
    profile_residual,
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
@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT, weighted=WEIGHTED, represent=FAMILIES)
def test_exact_unlearning_equals_retraining(kind, loss, fit_intercept, weighted, represent):
    data, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)[kind]
    un = unlearner(data, loss, fit_intercept, represent=represent)
    update = un.apply(represented(requests, represent))
    assert update.residual_bound <= un.tolerance
    assert_retrained(un, data.after(*requests))


@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT, weighted=WEIGHTED)
def test_exact_unlearning_of_cells_that_are_not_0_equals_retraining(kind, loss, fit_intercept, weighted):
    data, requests = make_data(loss, weighted=weighted), requests_for(loss)[kind]
    un = unlearner(data, loss, fit_intercept)
    assert un.apply(requests).residual_bound <= un.tolerance
    assert_retrained(un, data.after(*requests))


@pytest.mark.parametrize("fit_intercept", INTERCEPT.values(), ids=INTERCEPT)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_minimiser_of_an_X_that_became_0_is_0(loss, fit_intercept):
    data = make_data(loss)
    un = unlearner(data, loss, fit_intercept)
    for rows in (slice(30), slice(30, None)):
        request = ex.CorrectValues(rows, range(6), 0.0)
        un.apply(request)
        data = data.after(request)
        assert_retrained(un, data)
    assert not retrain(*data.rows[:2], **objective_of(un, data.rows[2]))[:6].any()


@in_pairs(loss=list(LOSSES), fit_intercept=INTERCEPT, represent=[*FAMILIES, "csc"])
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
@in_pairs(kind=[*EACH_REQUEST, "revoke_features", "mixed"], loss=list(LOSSES), represent=NATIVE)
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


# Adult


@cache
def adult_model():
    data = adult()
    return ex.LogisticRegression(1.0).fit(data.X, data.y)


def adult_requests():
    data, rng = adult(), np.random.default_rng(0)
    rows = rng.permutation(len(data.X))
    sensitive = [data.feature_names.index(name) for name in data.sensitive_features]
    return {
        "revoke_1": [ex.RevokeFeatures(sensitive[:1])],
        "revoke_3": [ex.RevokeFeatures(sensitive[4:7])],
        "revoke_15": [ex.RevokeFeatures(sensitive)],
        "remove_1000": [ex.RemoveRows(rows[:1000])],
        "add_1000": [ex.AddRows(data.X_test[:1000], data.y_test[:1000])],
        "correct_500_labels": [ex.CorrectLabels(rows[:500], 1.0 - data.y[rows[:500]])],
        "mixed": [
            ex.RemoveRows(rows[:100]),
            ex.CorrectValues(rows[100:200], sensitive, 0.0),
            ex.RevokeFeatures(sensitive[:3]),
            ex.CorrectLabels(rows[200:300], 0.0),
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["revoke_1", "revoke_3", "revoke_15", "remove_1000", "add_1000", "correct_500_labels", "mixed"]
)
def test_exact_unlearning_equals_retraining_on_adult(kind):
    real, requests = adult(), adult_requests()[kind]
    n, d = real.X.shape
    data = Data(real.X, real.y, np.ones(n), np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted=False)
    un = ex.Unlearner(copy.deepcopy(adult_model()), real.X, real.y)
    update = un.apply(requests)
    assert update.residual_bound <= un.tolerance
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
    loss=list(LOSSES),
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    hessian=SECOND_ORDER,
    represent=FAMILIES,
)
def test_second_order_is_one_newton_step(kind, loss, fit_intercept, weighted, hessian, represent):
    before, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)[kind]
    un = unlearner(before, loss, fit_intercept, represent=represent)
    theta = theta_of(un.model)
    update = un.apply(represented(requests, represent), method="second_order", hessian=hessian)
    step, tolerance = newton_step(un, before, before.after(*requests), theta, hessian)
    assert np.linalg.norm(update.step - step) <= tolerance


@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT, earlier=list(METHODS), hessian=SECOND_ORDER)
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


@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT, represent=FAMILIES)
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


@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT)
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


@in_pairs(loss=list(LOSSES), first=list(METHODS), second=list(METHODS), third=list(METHODS))
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
    loss=list(LOSSES),
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


# What an Update says


@in_pairs(kind=KINDS, loss=list(LOSSES), fit_intercept=INTERCEPT, method=METHODS)
def test_an_update_can_be_checked(kind, loss, fit_intercept, method):
    before, requests = make_data(loss, weighted=True), requests_for(loss)[kind]
    un = unlearner(before, loss, fit_intercept)
    theta, data = theta_of(un.model), before.after(*requests)
    lasting = surviving(before, data, fit_intercept)
    update = un.apply(requests, **method)

    assert_array_equal(update.step, theta_of(un.model) - theta[lasting])
    old, old_floor = gradient_and_floor(un, before, theta)
    new, new_floor = gradient_and_floor(un, data, theta[lasting])
    difference = new - old[lasting]
    assert np.linalg.norm(update.gradient_difference - difference) <= 2.0 * (old_floor + new_floor)
    _, floor = gradient_and_floor(un, data, theta_of(un.model))
    assert_vouched(un, update)
    assert abs(un.residual() - ex.residual(un.model, *un.corrected_data())) <= 2.0 * floor
    assert update.features_revoked == np.count_nonzero(~data.kept)
    revokes = update.features_revoked > 0
    assert update.method == method.get("method", "exact" if revokes else "auto")
    assert update.hessian == (method.get("hessian", "corrected") if "second" in update.method else None)
    assert (update.tau is not None) == (update.method == "first_order")
    assert update.passes >= (update.residual is not None)
    assert 0.0 < update.seconds < 60.0
    assert update.method in str(update)
    assert 3 <= len(str(update).splitlines()) <= 6
    with pytest.raises(AttributeError):
        update.residual = 0.0


@pytest.mark.parametrize(
    ("requests", "rows"),
    [
        ([ex.RemoveRows([3, 7])], 2),
        ([ex.CorrectLabels([3, 7], 1.0), ex.CorrectValues([7, 8], [0], 1.0), ex.RemoveRows([3])], 3),
        ([ex.AddRows(np.zeros((2, 6)), 0.0), ex.CorrectLabels([61], 1.0), ex.RemoveRows([60])], 2),
        ([ex.RevokeFeatures([0])], 58),  # two rows are 0 there
        ([ex.RevokeFeatures([0]), ex.RemoveRows([0, 5])], 59),  # one of the two is removed
        ([ex.CorrectValues([0], [0], 2.0), ex.RevokeFeatures([0]), ex.CorrectLabels([1], 1.0)], 60),
    ],
)
@in_families
def test_rows_touched_counts_each_row_once(requests, rows, represent):
    data = make_data("squared")
    data.X[:2, 0] = 0.0
    assert unlearner(data, "squared", True, represent=represent).apply(requests).rows_touched == rows


@in_families
def test_rows_touched_by_a_revoked_column_are_those_of_the_corrected_data(represent):
    data = make_data("squared")
    data.X[:2, 0] = 0.0
    un = unlearner(data, "squared", True, represent=represent)
    un.apply([ex.CorrectValues([0, 2, 3], [0], [[1.0], [0.0], [0.0]]), ex.RemoveRows([4])])
    assert un.apply(ex.RevokeFeatures([0])).rows_touched == 56  # all but 1, 2, 3 and the removed 4


@pytest.mark.filterwarnings("ignore:the tolerance")
@each_loss
def test_the_residual_is_measured_where_rounding_stops_the_iteration(loss):
    data = make_data(loss, n=200)
    un = unlearner(data, loss, True, tolerance=0.0)
    for row in range(20):
        update = un.apply(ex.CorrectValues([row], [0], data.X[row, 0] * (1.0 + 2.0**-50)))
        assert_vouched(un, update)


@each_intercept
@each_loss
def test_retrain_fits_a_fresh_model_to_the_corrected_data(loss, fit_intercept):
    data, requests = make_data(loss, weighted=True), requests_for(loss)["mixed"]
    un = unlearner(data, loss, fit_intercept)
    un.apply(requests, method="first_order")
    theta, fresh = theta_of(un.model), un.retrain()
    assert type(fresh) is type(un.model)
    assert fresh is not un.model
    assert_array_equal(theta_of(un.model), theta)
    assert (fresh.alpha, fresh.fit_intercept, fresh.tol) == (ALPHA, fit_intercept, un.tolerance)
    inside(un).model = fresh
    assert_retrained(un, data.after(*requests))


def test_corrected_data_are_copies_in_the_users_labels_without_weights_that_nobody_gave():
    data = make_data("logistic")
    names = np.array(["no", "yes"])
    y = names[data.y.astype(int)]
    un = ex.Unlearner(ex.LogisticRegression().fit(data.X, y), data.X, y)
    X, labels, s = un.corrected_data()
    assert s is None
    assert_array_equal(labels, y)
    X[:] = np.nan
    labels[:] = "no"
    assert_array_equal(un.corrected_data()[0], data.X)
    assert_array_equal(un.corrected_data()[1], y)
    un.apply([ex.CorrectLabels([4], "yes"), ex.AddRows(data.X[:1], ["no"], sample_weight=2.0)])
    _, labels, s = un.corrected_data()
    y[4] = "yes"
    assert_array_equal(labels, [*y, "no"])
    assert_array_equal(s, [*np.ones(60), 2.0])


# Rows and columns by number


@in_pairs(loss=list(LOSSES), represent=FAMILIES)
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
    loss=list(LOSSES),
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


@in_pairs(loss=list(LOSSES), method=METHODS, represent=[*NATIVE, "csr_matrix", "csr_explicit_zeros"])
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


@in_pairs(loss=list(LOSSES), method=METHODS, represent=CONVERTED)
def test_what_is_copied_once_is_not_modified_either(loss, method, represent):
    data = make_data(loss, zeros=True)
    X = read_only(represent(data.X))
    bits = bits_of(X)
    kind_of_model = ex.Ridge if loss == "squared" else ex.LogisticRegression
    ex.Unlearner(kind_of_model(ALPHA).fit(X, data.y), X, data.y).apply(requests_for(loss)["mixed"], **method)
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
