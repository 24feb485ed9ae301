"""Streams of requests to an Unlearner: one step from the anchor each, while its bound holds (E9, E10)."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import INTERCEPT, NATIVE, WEIGHTED, in_pairs
from unlearning import (
    TOLERANCE,
    assert_corrected_data,
    assert_retrained,
    assert_vouched,
    each_intercept,
    each_loss,
    inside,
    make_data,
    objective_of,
    profile_residual,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import kernels, reference
from expunge.losses import LOSSES

N, D = 1500, 6


def stream(data, loss, count, seed=0):
    """Requests of one row each; rows 0 and 1 hold one class each and stay."""
    rng = np.random.default_rng(seed)
    live = list(range(2, len(data.y)))
    total = len(data.y)
    for _ in range(count):
        kind, position = rng.integers(4), int(rng.integers(len(live)))
        row = live[position]
        y = float(rng.integers(2)) if loss == "logistic" else float(rng.standard_normal())
        if kind == 0 and len(live) > 20:
            live[position] = live[-1]
            live.pop()
            yield ex.RemoveRows(row)
        elif kind == 1:
            yield ex.CorrectLabels(row, y)
        elif kind == 2:
            yield ex.CorrectValues([row], [int(rng.integers(D))], float(np.float32(rng.standard_normal())))
        else:
            live.append(total)
            total += 1
            X = rng.standard_normal((1, D)).astype(np.float32).astype(np.float64)
            yield ex.AddRows(X, np.array([y]))


@in_pairs(loss=list(LOSSES), fit_intercept=INTERCEPT, weighted=WEIGHTED, tolerance=[1e-8, 1e-2, 1.0])
def test_every_step_of_a_stream_is_within_its_bound_and_the_tolerance(
    loss, fit_intercept, weighted, tolerance
):
    data = make_data(loss, weighted=weighted, n=N, d=D)
    un = unlearner(data, loss, fit_intercept, tolerance=tolerance)
    for k, request in enumerate(stream(data, loss, 300)):
        update = un.apply(request)
        data = data.after(request)
        assert update.residual_bound <= tolerance
        if k % 10 == 0:
            assert_vouched(un, update)
        if loss == "squared":
            assert not update.settled
            assert update.passes == 0
    assert_corrected_data(un, data)
    if tolerance < 1.0:
        assert_retrained(un, data)
    # Strong convexity: the model is within its profile residual / alpha of retraining.
    retrained = un.retrain()
    r, floor = np.add(
        profile_residual(un, data, theta_of(un.model)), profile_residual(un, data, theta_of(retrained))
    )
    distance = np.linalg.norm((theta_of(un.model) - theta_of(retrained))[:D])
    assert distance <= (r + floor) / un.model.alpha


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "fit_intercept", "tolerance"),
    [("squared", True, 1e-2), ("logistic", False, 1e-6), ("logistic", True, 1e9)],
)
def test_after_10_000_requests_the_model_is_within_its_bound_of_retraining(loss, fit_intercept, tolerance):
    data = make_data(loss, n=2000, d=D, weighted=True)
    un = unlearner(data, loss, fit_intercept, tolerance=1e-6)
    inside(un).tolerance = tolerance
    settled = 0
    for request in stream(data, loss, 10_000):
        update = un.apply(request)
        data = data.granted(request)
        settled += update.settled
    assert_corrected_data(un, data)
    assert (settled > 0) == (loss == "logistic" and tolerance < 1.0)
    X, y, s = data.rows
    inside(un).tolerance = TOLERANCE
    retrained = un.retrain()
    if tolerance == 1e9:  # with a bound that says something
        assert update.residual_bound < 1e6
    # Strong convexity: |coef - coef*| is at most the profile residual / alpha, of both models.
    longest = np.linalg.norm(X, axis=1).max() if fit_intercept else 0.0
    floor = kernels.rounding_floor(X, y, theta_of(un.model), **objective_of(un, s))
    allowed = np.hypot(1.0, longest) * (update.residual_bound + retrained.residual_ + 2.0 * floor)
    assert np.linalg.norm(un.model.coef_ - retrained.coef_) <= allowed / un.model.alpha
    if update.residual_bound == update.residual:
        assert un.residual() <= tolerance + floor


def test_a_wider_tolerance_serves_more_requests_without_the_data():
    data = make_data("logistic", n=N, d=D)
    passes = {}
    for tolerance in (1e-8, 1e-2, 1.0):
        un = unlearner(data, "logistic", True, tolerance=tolerance)
        passes[tolerance] = sum(un.apply(ex.RemoveRows(row)).passes for row in range(2, 102))
    assert passes[1e-8] >= 100 > passes[1e-2] > passes[1.0]


@in_pairs(loss=list(LOSSES), fit_intercept=INTERCEPT, represent=NATIVE)
def test_the_step_from_the_anchor_reads_the_touched_rows_only(loss, fit_intercept, represent):
    data = make_data(loss, zeros=True)
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    steps = []
    for poison in (False, True):
        X = represent(data.X)
        un = ex.Unlearner(kind(fit_intercept=fit_intercept).fit(X, data.y), X, data.y, tolerance=1e9)
        if poison:
            if isinstance(inside(un).data.X, np.ndarray):
                inside(un).data.X = inside(un).data.X.copy(order="K")
                inside(un).data.X[4:] = np.nan
            else:
                inside(un).data.X = inside(un).data.X.copy()
                inside(un).data.X.data[inside(un).data.X.indptr[4] :] = np.nan
        update = un.apply([ex.RemoveRows([2, 3]), ex.CorrectLabels([0, 1], data.y[[1, 0]])])
        assert update.method == "auto"
        assert update.residual is None
        assert update.passes == 0
        steps.append(theta_of(un.model))
    assert_array_equal(*steps)


@each_intercept
@each_loss
def test_order_and_batching_do_not_matter_and_what_comes_back_restores(loss, fit_intercept):
    data = make_data(loss, n=N, d=D)
    rng = np.random.default_rng(5)
    new_X, new_y = rng.standard_normal((50, D)), data.y[:50]
    requests = [ex.RemoveRows(int(row)) for row in range(100, 200)]
    requests += [ex.CorrectLabels(int(row), data.y[row - 1]) for row in range(200, 300)]
    requests += [ex.AddRows(new_X[[k]], new_y[[k]]) for k in range(50)]
    thetas = []
    for seed in range(4):
        kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
        model = kind(0.5, fit_intercept=fit_intercept).fit(data.X, data.y)
        un = ex.Unlearner(model, data.X, data.y, tolerance=1e9)
        un.apply([])  # the step that the fit left out
        start = theta_of(un.model)
        order = [requests[k] for k in np.random.default_rng(seed).permutation(len(requests))]
        cuts = np.sort(np.random.default_rng(seed).integers(0, len(order), seed * 5))
        for part in np.split(np.arange(len(order)), cuts):
            un.apply([order[k] for k in part])
        thetas.append(theta_of(un.model))
    for theta in thetas[1:]:
        assert np.linalg.norm(theta - thetas[0]) <= 1e-11 * (1.0 + np.linalg.norm(theta))
    # back to where it began
    added = np.arange(N, N + 50)
    un.apply([ex.RemoveRows(added), ex.CorrectLabels(np.arange(200, 300), data.y[200:300])])
    un.apply(ex.AddRows(data.X[100:200], data.y[100:200]))
    assert np.linalg.norm(theta_of(un.model) - start) <= 1e-11


@each_loss
def test_a_long_list_is_one_request(loss):
    data = make_data(loss, n=N, d=D)
    rows = np.arange(2, 700)
    by_list, by_rows = (unlearner(data, loss, True, tolerance=1e-6) for _ in range(2))
    label = (lambda row: data.y[row - 1]) if loss == "logistic" else (lambda row: float(row) / 700.0)
    update = by_list.apply(
        [ex.RemoveRows(int(row)) for row in rows[:300]]
        + [ex.CorrectLabels(int(row), label(row)) for row in rows[300:]]
    )
    by_rows.apply([ex.RemoveRows(rows[:300]), ex.CorrectLabels(rows[300:], [label(r) for r in rows[300:]])])
    assert update.rows_touched == rows.size
    assert update.since_anchor <= 1
    assert_array_equal(theta_of(by_list.model), theta_of(by_rows.model))
    assert_corrected_data(
        by_list,
        data.after(ex.RemoveRows(rows[:300])).after(
            ex.CorrectLabels(rows[300:], [label(r) for r in rows[300:]])
        ),
    )


@each_loss
def test_rows_named_twice_in_a_list_follow_its_order(loss):
    data = make_data(loss)
    un = unlearner(data, loss, True)
    un.apply([ex.CorrectLabels(5, 0.0), ex.CorrectLabels(5, 1.0), ex.CorrectLabels(6, 1.0)])
    assert un.corrected_data()[1][[5, 6]].tolist() == [1.0, 1.0]
    before = [np.copy(part) for part in un.corrected_data()[:2]]
    with pytest.raises(ValueError, match="row 7 was removed before"):
        un.apply([ex.RemoveRows(7), ex.RemoveRows(8), ex.RemoveRows(7)])
    for part, kept in zip(un.corrected_data()[:2], before, strict=True):
        assert_array_equal(part, kept)


def test_updates_count_the_requests_since_the_anchor():
    data = make_data("squared", n=N, d=D)
    un = unlearner(data, "squared", True)
    assert [un.apply(ex.RemoveRows(row)).since_anchor for row in range(3)] == [1, 2, 3]
    assert un.apply(ex.RevokeFeatures([0])).since_anchor == 0
    assert un.apply(ex.RemoveRows(3)).since_anchor == 1
    high = unlearner(data, "squared", True, solver="cg", memory_limit=500)
    update = high.apply(ex.RemoveRows(0))
    assert update.since_anchor == 0
    assert update.residual <= high.tolerance


def test_the_hessian_of_a_new_anchor_counts_as_a_pass():
    data = make_data("logistic", n=N, d=D)
    un = unlearner(data, "logistic", True, tolerance=1e-2)
    updates = [un.apply(ex.RemoveRows(row)) for row in range(2, 200)]
    anew = [update for update in updates if update.since_anchor == 0]
    assert len(anew) > 2
    assert all(update.passes >= 2 for update in anew)  # gradient, then Hessian


@each_intercept
@each_loss
def test_after_a_revocation_a_stream_goes_on(loss, fit_intercept):
    data = make_data(loss, n=N, d=D)
    un = unlearner(data, loss, fit_intercept, tolerance=1e-2)
    passes = []
    for request in [ex.RevokeFeatures([1, 4]), *(ex.RemoveRows(row) for row in range(2, 40))]:
        data = data.after(request)
        update = un.apply(request)
        assert update.residual_bound <= un.tolerance
        passes.append(update.passes)
    assert passes[-1] == 0 or loss == "logistic"
    assert 0 in passes
    assert_vouched(un, update)
    assert_retrained(un, data)


def test_rows_that_come_or_are_corrected_may_be_the_longest_on_which_bounds_rest():
    data = make_data("logistic", n=200, d=D)
    un = unlearner(data, "logistic", True)
    for request in (ex.AddRows(7.0 * data.X[:2], data.y[:2]), ex.CorrectValues([3], [0], 1e3)):
        un.apply(request)
        data = data.after(request)
        longest = np.linalg.norm(data.rows[0], axis=1).max()
        assert inside(un).data.largest_norm >= longest * (1.0 - 1e-12)
    before = inside(un).data.largest_norm
    with pytest.raises(ValueError, match="row 5000 is out of range"):
        un.apply([ex.AddRows(1e4 * data.X[:2], data.y[:2]), ex.RemoveRows([5000])])
    assert inside(un).data.largest_norm == before


def test_an_outlier_that_leaves_does_not_leave_its_rounding():
    data = make_data("squared", n=N, d=D)
    data.X[7] *= 3e3
    un = unlearner(data, "squared", True, tolerance=1e-5)
    for row in (7, 8, 9):
        data = data.after(ex.RemoveRows(row))
        assert_vouched(un, un.apply(ex.RemoveRows(row)))
    X, y, s = data.rows
    g = reference.gradient(X, y, theta_of(un.model), **objective_of(un, s))
    assert np.linalg.norm(g) <= un.tolerance


@each_loss
def test_threads_predict_while_another_applies(loss):
    """Every answer is that of one of the models that were published."""
    data = make_data(loss, n=N, d=D)
    un = unlearner(data, loss, True, tolerance=1e-2)
    X = make_data(loss, seed=3).X
    predict = un.model.predict if loss == "squared" else un.model.decision_function
    answers, published, stop, failures = [], [predict(X).tobytes()], threading.Event(), []

    def ask():
        try:
            while not stop.is_set():
                answers.append(predict(X).tobytes())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for row in range(2, 100):
        un.apply(ex.RemoveRows(row))
        published.append(predict(X).tobytes())
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(answers) <= set(published)


@each_loss
def test_requests_of_several_threads_are_applied_one_by_one(loss):
    data = make_data(loss, n=N, d=D)
    un = unlearner(data, loss, True, tolerance=1e-6)
    failures = []

    def remove(rows):
        try:
            for row in rows:
                un.apply(ex.RemoveRows(int(row)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=remove, args=(range(2 + k, 202, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    data = data.after(ex.RemoveRows(np.arange(2, 202)))
    assert_corrected_data(un, data)
    assert un.residual() <= un.tolerance
