"""What is seen at once: where warnings point, what is printed, compared, copied and named; and forks."""

import copy
import gc
import html
import inspect
import os
import pickle
import re
import signal
import sys
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from starting import each_start

import expunge as ex
from expunge import kernels
from expunge._html import table

each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])


def data(loss="squared", n=80, d=3):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = X @ np.arange(1.0, d + 1.0) + rng.standard_normal(n)
    return X, y if loss == "squared" else (y > 0).astype(int)


def ours(loss, **parameters):
    return (ex.Ridge if loss == "squared" else ex.LogisticRegression)(**parameters)


def unlearner(loss="squared", **parameters):
    X, y = data(loss)
    return ex.Unlearner(ours(loss, **parameters).fit(X, y), X, y)


# Warnings


def test_warnings_point_at_the_line_of_the_caller():
    X, y = data("logistic")
    far = X * 1e9
    calls = {
        "fit": lambda: ex.LogisticRegression(tol=0.0).fit(far, y),
        "iterations": lambda: ex.LogisticRegression(max_iter=1).fit(X * 100.0, y),
        "Unlearner": lambda: ex.Unlearner(linear_model.LogisticRegression().fit(X, y), X, y, tolerance=1e-20),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y, tolerance=1e-20)
    calls["apply"] = lambda: un.apply(ex.RemoveRows([0]), method="exact")
    calls["retrain"] = un.retrain
    for name, call in calls.items():
        line = inspect.currentframe().f_lineno + 2
        with pytest.warns(ConvergenceWarning) as caught:
            call()
        expected = line if name == "retrain" else call.__code__.co_firstlineno
        assert [(w.filename, w.lineno) for w in caught] == [(__file__, expected)], name


# Advice


def message_of(call):
    with pytest.warns(ConvergenceWarning) as caught:
        call()
    return str(caught[0].message)


def test_the_advice_is_what_helps():
    X, y = data("logistic", n=400)
    short = message_of(lambda: ex.LogisticRegression(max_iter=1).fit(X * 100.0, y))
    assert short.endswith("after 1 iterations: raise max_iter")
    scaled = message_of(lambda: ex.LogisticRegression(tol=1e-20).fit(X, y))
    assert scaled.endswith("Raise tol above it")  # X is scaled already
    far = message_of(lambda: ex.LogisticRegression(tol=1e-8).fit(X * 1e9, y))
    assert far.endswith("Raise tol above it, or scale the columns of X to a size near 1")
    unproven = message_of(lambda: ex.LogisticRegression().fit(X * 1e9, y))
    assert unproven.endswith("is larger. Scale the columns of X to a size near 1")
    close = message_of(lambda: ex.LogisticRegression(within=1e-14).fit(X, y))
    assert close.endswith(
        "not within 1e-14: what rounding may hide is larger. Raise `within`, or scale "
        "the columns of X to a size near 1"
    )
    model = linear_model.LogisticRegression().fit(X, y)
    adopted = message_of(lambda: ex.Unlearner(model, X, y, tolerance=1e-20))
    assert adopted.endswith("Raise tolerance above it")  # an Unlearner calls it so


def test_following_the_advice_ends_the_warning():
    X, y = data("logistic", n=400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ex.LogisticRegression(tol=1e-9).fit(X, y)
        ex.LogisticRegression(within=1e-9).fit(X, y)
        ex.LogisticRegression().fit(X * 100.0, y)


# What is printed


def shown(thing):
    return repr(thing) + thing._repr_html_()


def test_an_unlearner_shows_sizes_and_settings():
    un = unlearner("logistic")
    sizes = "Unlearner(model=LogisticRegression, rows=80, features=3, attached=True"
    assert repr(un) == f"{sizes}, within=0.01)"
    X, y = data("logistic")
    for promise, said in (
        ({"tolerance": 1e-8}, "tolerance=1e-08"),
        ({"within": 0.5}, "within=0.5"),
        ({"within": 0.5, "tolerance": 1e-8}, "within=0.5"),
    ):
        assert repr(ex.Unlearner(ours("logistic").fit(X, y), X, y, **promise)) == f"{sizes}, {said})"
    un.apply([ex.RemoveRows([3, 5]), ex.RevokeFeatures([0])])
    assert "rows=78, features=2" in repr(un.detach())
    assert "attached=False" in repr(un)
    assert "<td>LogisticRegression</td>" in un._repr_html_()


@each_loss
def test_nothing_that_is_shown_holds_a_value_of_the_data_or_the_model(loss):
    un = unlearner(loss)
    X, y = data(loss)
    requests = [
        ex.RemoveRows([71, 72]),
        ex.AddRows(X[:1] + 0.123456, y[:1]),
        ex.CorrectValues([73], [2], 0.987654),
        ex.CorrectLabels([74], y[:1]),
    ]
    update = un.apply(requests)
    things = [update, un, un.release(1.0, 1e-5).certificate_]
    text = "".join(map(shown, things)) + "".join(map(repr, requests))
    numbers = [*X.ravel(), *np.ravel(un.model.coef_), *update.step, *update.gradient_difference]
    for number in (*numbers, 0.123456, 0.987654):
        assert f"{abs(number):.6g}" not in text or number == 0.0
    for row in (71, 72, 73, 74):
        assert str(row) not in repr(requests)
    assert "residual=" not in repr(things[2])


def test_html_is_escaped_and_complete():
    assert table("<a>", {"x&y": "<b>"}) == (
        "<table><caption>&lt;a&gt;</caption><tr><th>x&amp;y</th><td>&lt;b&gt;</td></tr></table>"
    )
    certificate = unlearner().release(1.0, 1e-5).certificate_
    text = html.unescape(certificate._repr_html_())
    for assumption, _ in certificate.assumptions:
        assert assumption in text
    for outside in certificate.outside:
        assert outside in text
    void = unlearner().release(1.0, 1e-5, random_state=0).certificate_
    assert void.void in html.unescape(void._repr_html_())


def test_a_released_model_shows_only_what_was_set():
    X, y = data("logistic")
    assert repr(unlearner("squared").release(1.0, 1e-5)) == "Ridge()"
    assert repr(unlearner("logistic", alpha=2.0, max_iter=500).release(1.0, 1e-5)) == (
        "LogisticRegression(alpha=2.0, max_iter=500)"
    )
    theirs = linear_model.LogisticRegression(C=0.5).fit(X, y)
    assert repr(ex.Unlearner(theirs, X, y).release(1.0, 1e-5)) == "LogisticRegression(alpha=2.0)"
    looser = ex.Unlearner(theirs, X, y, tolerance=1e-6).release(1.0, 1e-5)
    assert repr(looser) == "LogisticRegression(alpha=2.0, tol=1e-06)"


# Requests compare


def frames():
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(np.eye(2), index=[4, 5], columns=["a", "b"])


EQUAL = [
    (ex.RemoveRows([3, 7]), ex.RemoveRows(np.array([3, 7]))),
    (ex.RemoveRows(slice(0, 3)), ex.RemoveRows(slice(0, 3))),
    (ex.RemoveRows(range(3)), ex.RemoveRows((0, 1, 2))),
    (ex.RevokeFeatures(["a", "b"]), ex.RevokeFeatures(np.array(["a", "b"]))),
    (ex.CorrectLabels([1], "ham"), ex.CorrectLabels([1], "ham")),
    (ex.AddRows(np.eye(2), [0, 1]), ex.AddRows([[1.0, 0.0], [0.0, 1.0]], [0, 1])),
    (ex.AddRows(sparse.eye_array(2, format="csr"), 1), ex.AddRows(sparse.eye_array(2, format="csc"), 1)),
    (ex.Edit(before=(np.eye(2), [0, 1])), ex.Edit(before=(np.eye(2), np.array([0, 1])))),
]
DIFFERENT = [
    (ex.RemoveRows([3, 7]), ex.RemoveRows([7, 3])),
    (ex.RemoveRows([0, 1]), ex.RemoveRows([False, True])),  # a mask means another row
    (ex.RemoveRows([0]), ex.RemoveRows(0)),
    (ex.RemoveRows([0]), ex.RevokeFeatures([0])),
    (ex.RemoveRows(slice(0, 3)), ex.RemoveRows(None)),
    (ex.RevokeFeatures(["1"]), ex.RevokeFeatures([1])),
    (ex.AddRows(np.eye(2), [0, 1]), ex.AddRows(np.eye(2), [0, 1], 1.0)),
    (ex.AddRows(sparse.eye_array(2, format="csr"), 1), ex.AddRows(np.eye(2), 1)),
    (ex.AddRows(sparse.eye_array(2, format="csr"), 1), ex.AddRows(sparse.eye_array(3, format="csr"), 1)),
    (ex.Edit(before=(np.eye(2), [0, 1])), ex.Edit(after=(np.eye(2), [0, 1]))),
    (ex.Edit(before=(np.eye(2), [0, 1])), ex.Edit(before=(np.eye(2), [0, 1], 1.0))),
    (ex.CorrectValues([[1], [2, 3]], 0, 0), ex.CorrectValues([[1], [2, 4]], 0, 0)),  # ragged
    (ex.RemoveRows([0]), [0]),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_requests_that_ask_the_same_are_equal(one, other):
    assert one == other
    assert (one != other) is False
    assert [one] == [other]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_requests_that_ask_for_something_else_are_not(one, other):
    assert one != other
    assert (one == other) is False


def test_frames_are_equal_with_their_labels():
    frame = frames()
    assert ex.AddRows(frame, 1) == ex.AddRows(frame.copy(), 1)
    for other in (frame.to_numpy(), frame.reset_index(drop=True), frame.rename(columns={"a": "c"})):
        assert ex.AddRows(frame, 1) != ex.AddRows(other, 1)


def test_requests_are_not_hashable_as_their_arrays_may_change():
    for request, _ in EQUAL:
        with pytest.raises(TypeError, match="unhashable"):
            hash(request)


# Copies and pickles


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, *(lambda un, p=p: pickle.dumps(un, p) for p in range(6))]
)
def test_an_unlearner_is_saved_and_not_copied_or_pickled(duplicate):
    for holder in (unlearner(), unlearner().detach()):
        with pytest.raises(TypeError, match=r"save\(\) it to a file, and Unlearner.load\(\)"):
            duplicate(holder)
        with pytest.raises(TypeError, match=r"save\(\)"):
            duplicate({"within": holder}) if duplicate is not copy.copy else duplicate(holder)


def statistics(loss="squared", rows=slice(None), fit_intercept=True):
    X, y = data(loss)
    return kernels.AnchoredStatistics(
        X[rows], y[rows], np.zeros(3 + fit_intercept), alpha=1.0, loss=loss, fit_intercept=fit_intercept
    )


@each_loss
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_statistics_are_copied_and_pickled(loss, fit_intercept, duplicate):
    X, y = data(loss)
    sums = statistics(loss, fit_intercept=fit_intercept)
    sums.subtract(X[:5], y[:5])
    other = duplicate(sums)
    assert_allclose(other.theta(), sums.theta(), rtol=1e-12)
    assert sums.residual_bound() <= other.residual_bound() <= 4.0 * sums.residual_bound()
    assert (other.rows, other.weight, other.edits) == (sums.rows, sums.weight, sums.edits)
    before = sums.theta()
    other.add(X[:5], y[:5])
    assert (sums.theta() == before).all()
    assert_allclose(other.theta(), statistics(loss, fit_intercept=fit_intercept).theta(), rtol=1e-10)


SHARD = """
import os, pickle
import numpy as np
from expunge import kernels
path = os.environ["SHARD"]
with open(path, "rb") as file:
    rows = pickle.load(file)
sums = [
    kernels.AnchoredStatistics(X, y, np.zeros(4), alpha=1.0, loss=loss, fit_intercept=True)
    for loss, (X, y) in rows.items()
]
with open(path, "wb") as file:
    pickle.dump(sums, file)
"""


@pytest.mark.slow
def test_shards_of_other_processes_are_merged(tmp_path):
    losses, paths = ("squared", "logistic"), [tmp_path / "first", tmp_path / "second"]
    for path, rows in zip(paths, (slice(0, 30), slice(30, 80)), strict=True):
        path.write_bytes(pickle.dumps({loss: [part[rows] for part in data(loss)] for loss in losses}))
    ended = each_start(SHARD, *({"SHARD": str(path)} for path in paths))
    assert [done.returncode for done in ended] == [0, 0], ended
    shards = [pickle.loads(path.read_bytes()) for path in paths]
    for loss, first, second in zip(losses, *shards, strict=True):
        merged, whole = first.merge(second), statistics(loss)
        assert merged.rows == 80
        assert_allclose(merged.theta(), whole.theta(), rtol=1e-10)
        assert merged.merge(pickle.loads(pickle.dumps(statistics(loss)))).rows == 160


def test_pickled_statistics_hold_no_digit_of_the_norm_of_what_left():
    sums = statistics()
    outlier = np.full((1, 3), 1234.5678)
    sums.add(outlier, [1.0])
    sums.subtract(outlier, [1.0])
    for number in (sums.__getstate__()["tallies"][i] for i in (4, 5, 6)):
        assert number == 0.0 or np.frexp(number)[0] == 0.5
    norm = sums.__getstate__()["tallies"][3]
    assert norm >= np.hypot(1.0, np.linalg.norm(outlier))
    assert abs(norm / 2.0 ** np.round(np.log2(norm)) - 1.0) < 1e-8


# Lazy frames and conversions


def lazy_calls(pl):
    X, y = data()
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    lazy, un = frame.lazy(), ex.Unlearner(ex.Ridge().fit(frame, y), frame, y)
    target = pl.DataFrame({"y": y}).lazy()
    return {
        "fit": lambda: ex.Ridge().fit(lazy, y),
        "fit a classifier": lambda: ex.LogisticRegression().fit(lazy, y > 0),
        "predict": lambda: un.model.predict(lazy),
        "Unlearner": lambda: ex.Unlearner(un.model, lazy, y),
        "Unlearner, y": lambda: ex.Unlearner(un.model, frame, target),
        "Unlearner, weights": lambda: ex.Unlearner(un.model, frame, y, target),
        "residual": lambda: ex.residual(un.model, lazy, y),
        "AddRows": lambda: un.apply(ex.AddRows(lazy, y)),
        "AddRows, y": lambda: un.apply(ex.AddRows(frame, target)),
        "CorrectValues": lambda: un.apply(ex.CorrectValues([0], [0], lazy)),
        "CorrectLabels": lambda: un.apply(ex.CorrectLabels([0], target)),
        "kernel": lambda: kernels.gradient(lazy, y, np.zeros(3), alpha=1.0, loss="squared"),
    }


def test_lazy_frames_are_refused_with_collect():
    pl = pytest.importorskip("polars")
    for name, call in lazy_calls(pl).items():
        told = ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # polars warns where the columns of a lazy frame are asked for
            try:
                call()
            except TypeError as error:
                told = str(error)
        assert re.search(r"LazyFrame and holds no rows yet: pass \w+\.collect\(\)", told), name


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_are_converted_once(library, monkeypatch):
    Frame = pytest.importorskip(library).DataFrame
    X, y = data()
    frame, more = (Frame(dict(zip("abc", part.T, strict=True))) for part in (X, X[:2]))
    model = ex.Ridge().fit(frame, y)
    classifier = ex.LogisticRegression().fit(frame, y > 0)
    un = ex.Unlearner(model, frame, y)
    calls, convert = [0], Frame.__array__

    def counted(self, *args, **kwargs):
        calls[0] += 1
        return convert(self, *args, **kwargs)

    monkeypatch.setattr(Frame, "__array__", counted)
    for call in (
        lambda: ex.Ridge().fit(frame, y),
        lambda: ex.LogisticRegression().fit(frame, y > 0),
        lambda: classifier.predict_proba(frame),
        lambda: ex.residual(model, frame, y),
        lambda: ex.Unlearner(model, frame, y),
        lambda: un.apply(ex.AddRows(more, y[:2])),
        lambda: un.apply(ex.CorrectValues([0, 1], ["a", "b", "c"], more)),
        lambda: kernels.gradient(frame, y, np.zeros(3), alpha=1.0, loss="squared"),
        lambda: repr(ex.AddRows(more, y[:2])),
        lambda: un.detach().apply(ex.Edit(before=(more, y[:2]))),
    ):
        calls[0] = 0
        call()
        assert calls[0] <= 1


def test_lists_have_the_shapes_that_errors_name():
    for wrong, shape in (([1.0, 2.0], r"\(2,\)"), ([[[1.0]]], r"\(1, 1, 1\)"), (3.0, r"\(\)")):
        with pytest.raises(ValueError, match=rf"X has shape {shape}, expected \(n, d\)"):
            kernels.gradient(wrong, [1.0], np.zeros(1), alpha=1.0)


# Forks


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def child_of(work):
    """Exit status of a forked child that does this, within seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(pid, 0)[1]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_goes_on_where_a_thread_of_its_parent_was_in_the_middle_of_a_request():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 10))
    y = (X[:, 0] + rng.standard_normal(20_000) > 0).astype(int)
    un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    stop = threading.Event()

    def requests():
        row = 0
        while not stop.is_set():
            un.apply(ex.RemoveRows([row]), method="exact")
            row += 1

    def works():
        update = un.apply(ex.RemoveRows([19_999]), method="exact")
        now, labels, _ = un.corrected_data()
        return update.residual <= 1e-8 and ex.residual(un.model, now, labels) <= 1.1e-8

    thread = threading.Thread(target=requests)
    thread.start()
    try:
        statuses = [child_of(works) for _ in range(6)]
    finally:
        stop.set()
        thread.join()
    assert statuses == [0] * 6
    assert un.residual() <= 1e-8  # the parent's own lock is as it was


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_free_in_the_child_alone():
    un = unlearner()
    held, go = threading.Event(), threading.Event()

    def hold():
        with vars(un)["_lock"]:
            held.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        lock = vars(un)["_lock"]
        assert child_of(lambda: un.residual() <= 1e-8 and un.budget is None) == 0
        assert vars(un)["_lock"] is lock
        assert not lock.acquire(blocking=False)
    finally:
        go.set()
        thread.join()


def test_what_waits_for_forks_keeps_no_unlearner_alive():
    un = unlearner()
    gone = weakref.ref(un)
    del un
    gc.collect()
    assert gone() is None


# Files, packages, the demo


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_that_cannot_be_written_is_named_as_it_was_given(kind, tmp_path):
    path = kind(tmp_path / "nowhere" / "x")
    with pytest.raises(FileNotFoundError) as raised:
        unlearner().save(path)
    assert raised.value.filename == str(path)
    assert ".expunge-" not in str(raised.value)


def test_a_missing_package_is_named_by_what_to_install(monkeypatch):
    from expunge.audit.world import extra

    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)  # which other tests may have imported
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install matplotlib$"):
        extra("matplotlib.pyplot")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("âge,y\n1,0\n2,1\n".encode("latin-1"), r"people.csv is not UTF-8 \(byte 0\)"),
        ("age,y\n1,0\n2,1\n".encode("utf-16"), r"people.csv is not UTF-8 \(byte 0\)"),
        (b'age,y\n"' + b"1" * 200_000 + b'",0\n', "people.csv is no CSV: field larger than field limit"),
    ],
)
def test_a_file_in_another_encoding_gives_the_demo_one_line(content, message, tmp_path):
    from expunge.cli import main

    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=message) as raised:
        main(["demo", "--csv", str(path), "--target", "y"])
    assert "\n" not in str(raised.value)
