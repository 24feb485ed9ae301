"""What an Unlearner says: updates, retraining and corrected data; and Adult, as a whole."""

import copy
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import CLASSIC, INTERCEPT, adult, in_families, in_pairs
from unlearning import (
    ALPHA,
    MAIN_KINDS,
    METHODS,
    Data,
    assert_retrained,
    assert_vouched,
    each_intercept,
    each_loss,
    gradient_and_floor,
    inside,
    make_data,
    requests_for,
    surviving,
    theta_of,
    unlearner,
)

import expunge as ex

# Adult


@cache
def adult_model():
    data = adult()
    return ex.LogisticRegression(1.0).fit(data.X, data.y)


def adult_requests():
    data, rng = adult(), np.random.default_rng(0)
    rows = rng.permutation(len(data.X))
    sensitive = data.sensitive_columns.tolist()
    return {
        "revoke_15": [ex.RevokeFeatures(sensitive)],
        "remove_1000": [ex.RemoveRows(rows[:1000])],
        "mixed": [
            ex.RemoveRows(rows[:100]),
            ex.CorrectValues(rows[100:200], sensitive, 0.0),
            ex.RevokeFeatures(sensitive[:3]),
            ex.CorrectLabels(rows[200:700], 1.0 - data.y[rows[200:700]]),
            ex.AddRows(data.X_test[:1000, 3:], data.y_test[:1000]),
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["revoke_15", "remove_1000", "mixed"])
def test_exact_unlearning_equals_retraining_on_adult(kind):
    real, requests = adult(), adult_requests()[kind]
    n, d = real.X.shape
    data = Data(real.X, real.y, np.ones(n), np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted=False)
    un = ex.Unlearner(copy.deepcopy(adult_model()), real.X, real.y, tolerance=1e-8)
    update = un.apply(requests)
    assert update.residual_bound <= un.tolerance
    assert_retrained(un, data.after(*requests))


# What an Update says


@in_pairs(kind=MAIN_KINDS, loss=CLASSIC, fit_intercept=INTERCEPT, method=METHODS)
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
    assert update.method == method.get("method", "auto")
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
