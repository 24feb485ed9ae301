"""Streams of requests: as one by one, in few native calls."""

import json
import signal

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import INTERCEPT, in_pairs
from scipy import sparse

import expunge as ex
from expunge.engine import stream as stream_module
from expunge.engine.data import CorrectedData

KEY = b"0123456789abcdef"
RNG = np.random.default_rng(22)
X = RNG.standard_normal((400, 5))
Y = {
    "squared": X @ np.arange(5.0) + RNG.standard_normal(400),
    "logistic": (X[:, 0] > 0.3 * RNG.standard_normal(400)) * 1.0,
}
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": lambda X: sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0.0)),
    "far": lambda X: X + np.array([0, 1e6, 0, -1e5, 0]),
}
KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])


def unlearner(loss="logistic", X=X, tolerance=1e-2, **more):
    fit_intercept = more.pop("fit_intercept", True)
    model = KINDS[loss](2.0, fit_intercept=fit_intercept).fit(X, Y[loss])
    return ex.Unlearner(model, X, Y[loss], tolerance=tolerance, **more)


def requests_of(loss, count=60, seed=0):
    """Single rows, several of them, labels of both kinds, and what no native call takes."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(400)
    found, at = [], 0
    for k in range(count):
        row = int(rows[at])
        at += 1
        if k % 7 == 3:
            found.append(ex.CorrectLabels(row, float(1 - Y["logistic"][row])))
        elif k % 11 == 5:
            found.append(ex.CorrectLabels([row, int(rows[at])], [1.0, 0.0]))
            at += 1
        elif k % 13 == 6:
            found.append(ex.RemoveRows(rows[at : at + 3]))
            at += 3
        elif k % 17 == 8:
            found.append(ex.CorrectValues([row], [1, 2], [0.5, -0.5]))
        elif k % 19 == 9:
            found.append(ex.AddRows(np.full((1, 5), 0.25), [1.0]))
        else:
            found.append(ex.RemoveRows(row))
    return found


def dense_only(layout, requests):
    if layout != "csr":
        return requests
    return [r for r in requests if not isinstance(r, ex.AddRows | ex.CorrectValues)]


@in_pairs(loss=list(KINDS), fit_intercept=INTERCEPT, tolerance=[1e-8, 1e-2, 1e3], layout=list(LAYOUTS))
def test_a_stream_does_what_its_requests_do_one_by_one(loss, fit_intercept, tolerance, layout):
    fit_intercept |= layout == "far"  # without one nothing is taken off
    data = LAYOUTS[layout](X)
    one, other = (unlearner(loss, data, tolerance, fit_intercept=fit_intercept) for _ in range(2))
    requests = dense_only(layout, requests_of(loss))
    found = one.apply_each(requests, thetas=True)
    expected = [other.apply(request) for request in requests]
    assert len(found) == len(requests)
    for name in ("residual_bound", "passes", "rows_touched", "settled"):
        assert_array_equal(getattr(found, name), [getattr(update, name) for update in expected])
    assert_array_equal(found.residual, [np.nan if u.residual is None else u.residual for u in expected])
    assert_array_equal(one.model.coef_, other.model.coef_)
    assert_array_equal(one.model.intercept_, other.model.intercept_)
    assert_array_equal(found.thetas[-1][:5], np.ravel(one.model.coef_))
    for mine, theirs in zip(one.corrected_data(), other.corrected_data(), strict=True):
        if mine is not None:
            assert_array_equal(
                np.asarray(mine.todense() if sparse.issparse(mine) else mine),
                np.asarray(theirs.todense() if sparse.issparse(theirs) else theirs),
            )
    for k in (0, len(requests) // 2, len(requests) - 1):
        assert json.loads(found.receipt(k, KEY)) == json.loads(expected[k].receipt(KEY))
    assert one.residual() == other.residual()


@each_loss
@pytest.mark.parametrize("method", ["exact", "second_order", "first_order"])
def test_the_method_is_that_of_every_request(loss, method):
    one, other = unlearner(loss), unlearner(loss)
    requests = requests_of(loss, 12)
    found = one.apply_each(requests, method=method)
    expected = [other.apply(request, method=method) for request in requests]
    assert_array_equal(found.residual, [update.residual for update in expected])
    assert found.thetas is None
    with pytest.raises(ValueError, match="thetas=True"):
        found.receipt(0)


def test_few_native_calls_serve_many_requests(monkeypatch):
    un, calls = unlearner(tolerance=1e3), []
    plain = stream_module.stream

    def counted(engine, requests, **how):
        calls.append(len(requests))
        return plain(engine, requests, **how)

    monkeypatch.setattr("expunge.engine.fitted.stream", counted)
    found = un.apply_each([ex.RemoveRows(row) for row in range(200)])
    assert calls == [64, 64, 128, 7]  # theta was found by iterations: the first goes by itself
    assert not found.settled.any()
    assert not found.passes.any()


REFUSED = {
    "gone": (lambda: ex.RemoveRows(3), ValueError),
    "outside": (lambda: ex.RemoveRows(4000), ValueError),
    "negative": (lambda: ex.CorrectLabels(-1, 0), ValueError),
    "twice": (lambda: ex.RemoveRows([7, 7]), ValueError),
    "label": (lambda: ex.CorrectLabels(9, 0.5), ValueError),
    "type": (lambda: ex.RemoveRows("nine"), (ValueError, TypeError)),
    "id": (lambda: ex.RemoveRows(ids=[9]), (ValueError, TypeError)),
    "everything": (lambda: ex.RemoveRows(slice(20, None)), ValueError),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_is_refused_ends_the_stream_before_it(refused):
    request, error = REFUSED[refused]
    un, other = unlearner(tolerance=10.0), unlearner(tolerance=10.0)
    prefix = [ex.RemoveRows(row) for row in range(12)]
    if refused == "everything":
        prefix.append(ex.RemoveRows(range(12, 20)))
    for granted in prefix:
        other.apply(granted)
    with pytest.raises(ex.StreamStopped, match=f"before request {len(prefix)}") as stopped:
        un.apply_each([*prefix, request(), ex.RemoveRows(50)], thetas=True)
    assert isinstance(stopped.value.__cause__, error)
    with pytest.raises(error) as alone:
        other.apply(request())
    assert str(alone.value) == str(stopped.value.__cause__)
    assert stopped.value.number == len(stopped.value.updates) == len(prefix)
    assert_array_equal(un.model.coef_, other.model.coef_)
    assert_array_equal(un.corrected_data(return_rows=True)[-1], other.corrected_data(return_rows=True)[-1])
    assert un.apply(ex.RemoveRows(50)).residual_bound == other.apply(ex.RemoveRows(50)).residual_bound


@pytest.mark.slow
def test_ctrl_c_leaves_the_prefix_and_says_how_long_it_is():
    un, other = unlearner(tolerance=1e3), unlearner(tolerance=1e3)
    handler = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    requests = [ex.CorrectLabels(row % 400, float(row % 2)) for row in range(200_000)]
    try:
        # again, if a callback of the collector took the first
        signal.setitimer(signal.ITIMER_REAL, 0.15, 0.5)
        with pytest.raises(ex.StreamInterrupted) as stopped:
            un.apply_each(requests)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    number = stopped.value.number
    assert 0 < number == len(stopped.value.updates) < len(requests)
    assert isinstance(stopped.value, KeyboardInterrupt)
    other.apply_each(requests[:number])
    assert_array_equal(un.model.coef_, other.model.coef_)
    assert_array_equal(un.corrected_data()[1], other.corrected_data()[1])


def test_progress_is_told_and_may_end_the_stream():
    un, told = unlearner(tolerance=1e3), []

    def progress(done, all_of_them):
        told.append((done, all_of_them))
        if done > 20:
            raise LookupError("enough")

    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each([ex.RemoveRows(row) for row in range(100)], progress=progress)
    assert told == [(1, 100), (65, 100)]
    assert stopped.value.number == 65
    assert isinstance(stopped.value.__cause__, LookupError)
    assert un.corrected_data()[0].shape[0] == 335


def test_progress_may_not_ask_the_unlearner():
    un = unlearner()
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each([ex.RemoveRows(1)], progress=lambda *_: un.residual())
    assert "in the middle of a request" in str(stopped.value.__cause__)


def test_ids_leave_with_their_rows_and_are_found_again():
    ids = [f"c{row // 2}" for row in range(400)]
    un, other = (unlearner(tolerance=10.0, ids=ids, key=KEY) for _ in range(2))
    requests = [
        ex.RemoveRows(ids=["c3"]),
        ex.RemoveRows(8),
        ex.RemoveRows(ids=["c4"]),
        ex.RemoveRows(ids=["c3"], missing="ignore"),
    ]
    found = un.apply_each(requests, thetas=True)
    expected = [other.apply(request) for request in requests]
    assert found.rows_touched.tolist() == [2, 1, 1, 0]
    for name in ("c3", "c4", "c5"):
        assert un.is_forgotten(name) == other.is_forgotten(name) == (name != "c5")
    for k, update in enumerate(expected):
        assert json.loads(found.receipt(k, KEY)) == json.loads(update.receipt(KEY))
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each([ex.RemoveRows(ids=["c9"]), ex.RemoveRows(ids=["c3"])])
    assert isinstance(stopped.value.__cause__, ex.AlreadyForgotten)


def test_a_budget_is_kept_within_by_every_request():
    model = ex.LogisticRegression(2.0, noise=10.0, random_state=0).fit(X, Y["logistic"])
    other_model = ex.LogisticRegression(2.0, noise=10.0, random_state=0).fit(X, Y["logistic"])
    un = ex.Unlearner(model, X, Y["logistic"], tolerance=1.0, epsilon=0.5, delta=1e-5)
    other = ex.Unlearner(other_model, X, Y["logistic"], tolerance=1.0, epsilon=0.5, delta=1e-5)
    requests = [ex.RemoveRows(row) for row in range(30)]
    un.apply_each(requests)
    for request in requests:
        other.apply(request)
    assert_array_equal(un.model.coef_, other.model.coef_)
    assert un.budget.spent <= un.budget.total


def test_a_detached_stream_stops_before_a_bound_that_is_too_large():
    un = unlearner(tolerance=1e-3)
    un.detach()
    edits = [ex.Edit(before=(X[row : row + 1], Y["logistic"][row : row + 1])) for row in range(60)]
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each(edits)
    assert isinstance(stopped.value.__cause__, ex.ToleranceExceeded)
    assert 0 < stopped.value.number == len(stopped.value.updates)
    assert (stopped.value.updates.residual_bound <= 1e-3).all()


def test_an_empty_stream_does_nothing():
    un = unlearner()
    before = un.model.coef_.copy()
    found = un.apply_each([])
    assert len(found) == 0
    assert found.passes.dtype == np.int64
    assert_array_equal(un.model.coef_, before)


@pytest.mark.parametrize("wrong", [[3], "rows", [None]])
def test_what_is_no_request_is_refused_before_anything_changes(wrong):
    un = unlearner()
    with pytest.raises(TypeError, match="not a request"):
        un.apply_each([ex.RemoveRows(1), *wrong])
    assert un.corrected_data()[0].shape[0] == 400


def test_updates_are_told_in_a_line_and_not_pickled():
    import pickle

    found = unlearner(tolerance=10.0).apply_each([ex.RemoveRows(0), ex.RemoveRows(1)])
    assert repr(found).startswith("Updates(2 requests, 0 settled, 0 passes, ")
    with pytest.raises(TypeError, match="receipts"):
        pickle.dumps(found)


ONCE = {
    "ids": lambda: ex.RemoveRows(ids=(name for name in ["c3", "c4"])),
    "map": lambda: ex.RemoveRows(ids=map(str, ["c3", "c4"])),
    "labels": lambda: ex.CorrectLabels(ids=iter(["c3", "c4"]), labels=iter([1.0, 0.0])),
    "rows": lambda: ex.RemoveRows(iter([6, 7, 8, 9])),
    "values": lambda: ex.CorrectValues(iter([6, 7, 8, 9]), iter([1]), 0.5),
}


@pytest.mark.parametrize("tolerance", [1e-8, 10.0])
@pytest.mark.parametrize("way", ["apply", "apply_each"])
@pytest.mark.parametrize("request_", ONCE)
def test_what_can_be_gone_through_once_is_read_once(request_, way, tolerance):
    un = unlearner(tolerance=tolerance, ids=[f"c{row // 2}" for row in range(400)])
    request = ONCE[request_]()
    update = un.apply(request) if way == "apply" else un.apply_each([request])
    assert np.sum(update.rows_touched) == 4
    with pytest.raises(ex.UnknownId):
        un.apply(ex.RemoveRows(ids=iter(["nobody"])))


@pytest.mark.parametrize("kind", [ex.RemoveRows, lambda row, **how: ex.CorrectLabels(row, 1.0, **how)])
@pytest.mark.parametrize("tolerance", [1e-8, 10.0])
def test_one_row_by_an_integer_is_checked_as_a_list_is(kind, tolerance):
    un = unlearner(tolerance=tolerance)
    with pytest.raises(ValueError, match="unknown missing 'ingore'"):
        un.apply(kind(3, missing="ingore"))
    for row in (2**63, -(2**70), 400):
        with pytest.raises(ValueError, match=f"row {row} is out of range: there are rows 0 to 399"):
            un.apply(kind(row))
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each([*(kind(row) for row in range(10)), kind(2**70)])
    assert stopped.value.number == 10


@each_loss
def test_added_rows_that_leave_are_compacted_when_they_are_one_by_one(loss):
    rng = np.random.default_rng(1)
    for seed in range(6):
        one, other = (
            ex.Unlearner(KINDS[loss](tol=5.0).fit(X[:50], Y[loss][:50]), X[:50], Y[loss][:50], tolerance=5.0)
            for _ in range(2)
        )
        for un in (one, other):
            un.apply(ex.AddRows(X[50:250], Y[loss][50:250]))
        requests = [ex.RemoveRows(int(row)) for row in rng.permutation(200)[: 100 + 15 * seed] + 50]
        found = one.apply_each(requests, thetas=True)
        expected = [other.apply(request) for request in requests]
        assert_array_equal(found.residual_bound, [update.residual_bound for update in expected])
        assert_array_equal(one.model.coef_, other.model.coef_)
        assert one.residual() == other.residual()


def test_a_stream_keeps_no_more_than_its_numbers(monkeypatch):
    from expunge.engine.log import Log

    sizes, plain = [], Log.with_part

    def spied(self, part):
        sizes.append(sum(np.size(value) for value in part if not isinstance(value, dict)))
        return plain(self, part)

    monkeypatch.setattr(Log, "with_part", spied)
    unlearner(tolerance=1e-3).apply_each([ex.RemoveRows(row) for row in range(50)])
    assert max(sizes) < 60


def test_an_interrupt_while_the_updates_are_made_says_what_was_granted(monkeypatch):
    from expunge.engine.log import Log

    plain, calls = Log.updates, []

    def interrupted(self):
        calls.append(self.size)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Log, "updates", interrupted)
    with pytest.raises(ex.StreamInterrupted) as stopped:
        unlearner(tolerance=10.0).apply_each([ex.RemoveRows(1), ex.RemoveRows(2)])
    assert stopped.value.number == len(stopped.value.updates) == 2


@pytest.mark.parametrize("wrong", [3, "print", [print]])
def test_progress_is_a_function_or_nothing_is_done(wrong):
    un = unlearner()
    with pytest.raises(TypeError, match="progress must be a function"):
        un.apply_each([ex.RemoveRows(1)], progress=wrong)
    assert un.corrected_data()[0].shape[0] == 400


def test_thetas_that_receipts_hash_are_not_written_to():
    found = unlearner(tolerance=10.0).apply_each(requests_of("logistic", 20), thetas=True)
    for theta in found.thetas:
        with pytest.raises(ValueError, match="read-only"):
            theta[:] = 9.0
    with pytest.raises(IndexError, match="they are 0 to 19"):
        found.receipt(20)


def test_a_stopped_stream_can_be_told_by_another_process():
    import pickle

    un = unlearner(tolerance=10.0)
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each([ex.RemoveRows(1), ex.RemoveRows(1)])
    told = pickle.loads(pickle.dumps(stopped.value))
    assert (type(told), told.number, told.updates) == (ex.StreamStopped, 1, None)


def test_a_model_that_others_change_in_between_ends_the_stream():
    un = unlearner(tolerance=10.0)
    requests = [ex.RemoveRows(row) for row in range(50)]
    with pytest.raises(ex.StreamStopped) as stopped:
        un.apply_each(requests, progress=lambda *_: un.model.set_params(alpha=7.0))
    assert "alpha from 2.0 to 7.0" in str(stopped.value.__cause__)
    assert stopped.value.number == 1


def test_an_edit_of_a_subclass_is_called():
    class Careful(ex.RemoveRows):
        def edit(self, data, encode):
            raise PermissionError("ask first")

    un = unlearner(tolerance=10.0)
    with pytest.raises(PermissionError):
        un.apply(Careful(3))
    with pytest.raises(ex.StreamStopped):
        un.apply_each([Careful(3)])


def test_a_list_inside_of_a_stream_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match="a list of which is one request of apply"):
        unlearner().apply_each([[ex.RemoveRows(1)], ex.RemoveRows(2)])


@pytest.mark.filterwarnings("ignore:the tolerance")
@pytest.mark.parametrize("tolerance", [1e-6, 1e-16])
def test_least_squares_try_a_step_at_once_unless_rounding_forbids_it(tolerance, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    y = X[:, 0] + rng.standard_normal(300)
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y, tolerance=tolerance)
    tried, stream = [], CorrectedData.stream

    def noted(*given):
        tried.append(given)
        return stream(*given)

    monkeypatch.setattr(CorrectedData, "stream", noted)
    un.apply(ex.RemoveRows(slice(0, 10)))
    assert bool(tried) == (tolerance == 1e-6)
