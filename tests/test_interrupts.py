"""Ctrl-C at any line and at any instant leaves data, model and bounds as before or after; readers wait."""

import copy
import os
import pickle
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import SPARSE, dense
from scipy import sparse
from sklearn import linear_model
from unlearning import (
    ALPHA,
    METHODS,
    by_value,
    inside,
    make_data,
    represented_by_value,
    request_from,
    requests_for,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import kernels, reference
from expunge.engine import fitted as fitted_module

PACKAGE = str(Path(ex.__file__).parent) + os.sep
MANY = int(os.environ.get("EXPUNGE_INTERRUPTS", "1"))  # times as many as in an everyday run

each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])
needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
pytestmark = [  # of a zipfile that an interrupt closes between two of its lines
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(
        threading.current_thread() is not threading.main_thread(), reason="signals come there"
    ),
]


# What is compared


def bits(value):
    """Equal only if every bit is."""
    if sparse.issparse(value):
        return value.shape, [bits(part) for part in (value.data, value.indices, value.indptr)]
    array = np.asarray(value)
    return array.dtype.str, array.shape, array.tolist() if array.dtype == object else array.tobytes()


def fitted(model):
    """All that a model has learnt."""
    kept = dict(vars(model))
    kept |= kept.pop("_fitted", {})
    noise = kept.pop("noise", None)
    values = getattr(noise, "b", None)
    return {name: bits(value) for name, value in kept.items()}, None if values is None else bits(values)


def state_of(un):
    """Data, model, statistics and noise."""
    state, held = inside(un).state, inside(un).held
    rows = [bits(part) for part in un.corrected_data()] if un.attached else None
    statistics = state.statistics
    return {
        "support": bits(un.get_support()),
        "rows": rows,
        "counts": (held.counts.tolist(), held.weighted, held.names, held.largest_norm if un.attached else 0),
        "model": fitted(un.model),
        "theta": bits(state.theta),
        "statistics": statistics
        and (statistics.tallies, bits(statistics.at.gradient), bits(statistics.anchor.hessian)),
        "since": inside(un).since_anchor,
        "noise": inside(un).noise and inside(un).noise.b is not None and bits(inside(un).noise.b),
        "budget": un.budget,
        "entry": un.residual_on_entry,
        "names": names_of(un),
    }


def names_of(un):
    """Ids and labels of the current rows, and whom all know to have left."""
    names = inside(un).held.row_names
    if names is None:
        return None
    numbers, ids = un.corrected_data(return_rows=True, return_ids=True)[3:]
    found = [un.rows_of(name).tolist() for name in ids]
    shown = names.labels.shown(numbers)
    return numbers.tolist(), ids, found, shown, len(names.left), sorted(names.tombstones.digests)


def true_residual(un, data):
    """Norm of the gradient at the model's theta on the rows that the test keeps, in extended precision."""
    X, y, s = (None if part is None else np.asarray(dense(part), np.longdouble) for part in data.rows)
    theta, d = theta_of(un.model).astype(np.longdouble), X.shape[1]
    if theta.size > d:
        X = np.column_stack([X, np.ones(len(X), np.longdouble)])
    eta = X @ theta
    slope = 1 / (1 + np.exp(-eta)) - y if hasattr(un.model, "classes_") else eta - y
    g = X.T @ (slope if s is None else s * slope)
    g[:d] += np.longdouble(ALPHA) * theta[:d]
    if inside(un).noise is not None:
        g[:d] += inside(un).noise.values[data.kept]
    return float(np.sqrt(np.sum(g * g)))


def rounding_floor(un, data):
    X, y, s = data.rows
    theta, loss = theta_of(un.model), "logistic" if hasattr(un.model, "classes_") else "squared"
    objective = {"alpha": ALPHA, "loss": loss, "sample_weight": s, "fit_intercept": True}
    return reference.rounding_floor(dense(X), y, theta, **objective)


def assert_right(un, data, bound=None):
    """Rows are those that the test keeps, and what the model or a bound says of its residual is so."""
    assert_array_equal(un.get_support(), data.kept)  # first: what is left of a request is undone
    floor = rounding_floor(un, data)
    true, said = true_residual(un, data), getattr(un.model, "residual_", None)
    bound = un.tolerance if bound is None else bound
    assert true <= bound + floor if said is None else abs(true - said) <= floor
    if un.attached:
        for found, kept in zip(un.corrected_data(), data.rows, strict=True):
            assert_array_equal(None if found is None else dense(found), kept)
        assert abs(un.residual() - true) <= floor
        if inside(un).noise is None:
            assert abs(ex.residual(un.model, *un.corrected_data()) - true) <= floor
    assert inside(un).held.counts.sum() == np.count_nonzero(data.s[data.live])


def assert_next_bound_holds(un, data, k=0):
    """One more request, whose bound is compared; the data after it."""
    X, y, _ = make_data("logistic", n=8, d=int(data.kept.sum()), seed=k).rows
    ids = None if inside(un).held.row_names is None else ["first", "second"]
    request = ex.AddRows(X[:2], y[:2], ids=ids)
    data = data.after(request)
    update = un.apply(request, **({} if un.attached else METHODS["corrected"]))
    floor = rounding_floor(un, data)
    assert true_residual(un, data) <= update.residual_bound + floor
    if un.attached:
        assert_right(un, data)
    return data


# Interrupts at lines


@cache
def with_lines(filename):
    """Lines where a with statement begins."""
    lines = Path(filename).read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.lstrip().startswith("with ")}


@cache
def first_offsets(code):
    offsets = {}
    for start, _, line in code.co_lines():
        offsets.setdefault(line, start)
    return offsets


def is_leaving(frame):
    """Whether the line is a with statement that is being left, where Python hears no signal."""
    return (
        frame.f_lineno in with_lines(frame.f_code.co_filename)
        and frame.f_lasti > first_offsets(frame.f_code)[frame.f_lineno]
    )


class Interrupts:
    """KeyboardInterrupt at the n-th line that runs in expunge's files, and again some lines later."""

    def __init__(self, *lines):
        self.lines, self.passed, self.raised = list(lines), 0, 0

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and self.lines and not is_leaving(frame):
            self.passed += 1
            if self.passed == self.lines[0]:
                del self.lines[0]
                self.passed = 0
                self.raised += 1
                raise KeyboardInterrupt
        return self.trace

    def profile(self, frame, event, _):
        """A trace function that raised is gone: this brings it back as soon as a function begins or ends."""
        if self.raised and self.lines and sys.gettrace() is None:
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    frame.f_trace = self.trace
                frame = frame.f_back
            sys.settrace(self.trace)

    def during(self, act, *arguments):
        """What `act` raised, None if nothing."""
        before = sys.gettrace(), sys.getprofile()
        try:
            if len(self.lines) > 1:
                sys.setprofile(self.profile)
            sys.settrace(self.trace)
            act(*arguments)
        except (KeyboardInterrupt, Exception) as error:
            return error
        finally:
            sys.setprofile(before[1])
            sys.settrace(before[0])
        return None


# Verbs


def adopted(alpha):
    return linear_model.LogisticRegression(C=1.0 / alpha)


@dataclass(frozen=True)
class Verb:
    """How to make what it acts on; the act; and what must be as before or after."""

    make: Callable[[], Any]
    act: Callable[[Any], Any]
    look: Callable[[Any], Any] = state_of
    data: Any = None  # of an Unlearner, before and after, for the oracle
    after: Any = None
    refused: type[Exception] | None = None
    every: int = 1  # how many lines apart
    forgets: bool = False  # names, after the commit; the next call goes on with it


DATA = {loss: make_data(loss) for loss in ("squared", "logistic")}
ONE_OF_EACH = ("remove_rows", "add_weighted_rows", "correct_labels", "correct_values", "revoke_features")
ONE_CLASS = ex.CorrectLabels([row for row in range(63) if row not in (0, 11)], 1.0)  # after "mixed_rows"


def make(loss, *, detached=False, done=(), kind=None, budget=None, **options):
    """An Unlearner at its minimiser, with a tolerance that a step from the anchor meets."""
    data, parameters = DATA[loss], {}
    options = {"tolerance": 0.5, **options}
    if kind is None and budget is None:
        un = unlearner(data, loss, True, **options)
    else:
        X, y, _ = data.rows
        represent = options.pop("represent", np.array)
        if budget is not None:
            kind = partial(ex.LogisticRegression, noise=0.1, random_state=3)
            parameters = {"epsilon": 0.5, "delta": 1e-5, "on_exhausted": budget}
            options["tolerance"] = 1e-8
        un = ex.Unlearner(kind(0.5).fit(represent(X), y), represent(X), y, **options, **parameters)
    for request in done:
        un.apply(request, method="exact")
    return un.detach() if detached else un


def applying(loss, requests, method="auto", refused=None, done=(), **options):
    data = DATA[loss].after(*done)
    after = data if refused else data.after(*requests)
    if options.get("detached"):
        edits = represented_by_value(by_value(data, requests), options.get("represent", np.array))
    else:
        edits = requests
    return Verb(
        partial(make, loss, done=done, **options),
        lambda un: un.apply(edits, **METHODS[method]),
        data=data,
        after=after,
        refused=refused,
    )


def of_kind(loss, kind):
    return requests_for(loss)[kind]


def reading(act, **options):
    """A verb that changes nothing."""
    return Verb(partial(make, "logistic", **options), act, data=DATA["logistic"], after=DATA["logistic"])


def new_rows(loss):
    return make_data(loss, n=40, d=6, seed=5).rows[:2]


def fitting(kind, loss, **parameters):
    def made():
        return kind(**parameters).fit(*DATA[loss].rows[:2])

    return Verb(made, lambda model: model.fit(*new_rows(loss)), fitted)


def saving(*, include_rows, old):
    path = Path("file")

    def made():
        un = make("logistic")
        path.unlink(missing_ok=True)
        if old:
            un.save(path)
        un.apply(ex.RemoveRows([4]), method="exact")
        return un

    def look(un):
        return state_of(un), path.read_bytes() if path.exists() else None

    return Verb(made, lambda un: un.save(path, include_rows=include_rows), look)


def loading():
    def made():
        make("logistic").save("file", include_rows=True)
        return Path("file")

    return Verb(made, ex.Unlearner.load, Path.read_bytes)


def constructing(kind, loss, **options):
    X, y, _ = DATA[loss].rows
    return Verb(lambda: kind().fit(X, y), lambda model: ex.Unlearner(model, X, y, **options), fitted)


def statistics():
    X, y, _ = DATA["logistic"].rows
    return kernels.AnchoredStatistics(X, y, np.full(6, 0.1), alpha=0.5)


def look_at_statistics(subject):
    return bits(subject.theta()), subject.residual_bound(), bits(subject.gradient), bits(subject.hessian)


def factor():
    X, _, _ = DATA["logistic"].rows
    return kernels.CholeskyFactor(X.T @ X + np.eye(6))


def look_at_factor(subject):
    return bits(subject.lower), bits(subject.solve(np.arange(float(subject.shape[0]))))


PEOPLE = [f"person {row // 2}" for row in range(60)]


def with_names():
    """An Unlearner whose rows have ids, and labels that were asked for."""
    X, y, _ = DATA["logistic"].rows
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, index=[f"row {row}" for row in range(60)])
    options = {"ids": PEOPLE, "key": b"a secret of 16 bytes or more", "tolerance": 0.5}
    un = ex.Unlearner(ex.LogisticRegression(ALPHA).fit(X, y), frame, y, **options)
    un.apply([ex.RemoveRows(labels=["row 3"]), ex.RemoveRows(ids=["person 4"])])
    return un


def naming_people(*requests, granted=(), refused=None):
    data = DATA["logistic"].after(ex.RemoveRows([3, 8, 9]))
    return Verb(
        with_names,
        lambda un: un.apply(list(requests)),
        data=data,
        after=data if refused else data.after(*granted),
        refused=refused,
        every=2,
        forgets=True,
    )


def verbs_of_people():
    X, y, _ = make_data("logistic", n=40, d=6, seed=5).rows
    added = ex.AddRows(X[:2], y[:2], ids=["person 1", "new"])
    requests = [
        added,
        ex.RemoveRows(ids=["person 1", "person 7"]),
        ex.RemoveRows(labels=["row 20"]),
        ex.CorrectLabels(ids=["person 11", "new"], labels=[1.0, 0.0]),
        ex.RemoveRows(ids=["person 4"], missing="ignore"),
    ]
    granted = [
        added,
        ex.RemoveRows([2, 60, 14, 15, 20]),
        ex.CorrectLabels([22, 23, 61], [1.0, 1.0, 0.0]),
    ]
    again = ex.RemoveRows(ids=["person 7"])
    return {
        "names": naming_people(*requests, granted=granted),
        "names_refused": naming_people(*requests, again, refused=ex.AlreadyForgotten),
        "drop_tombstones": Verb(with_names, ex.Unlearner.drop_tombstones, forgets=True),
    }


def verbs():
    X, y, _ = DATA["logistic"].rows
    everything = {loss: of_kind(loss, "mixed") for loss in DATA}
    rows = of_kind("logistic", "mixed_rows")
    csr = SPARSE["csr_float32"]
    cases = {f"{method}": applying("logistic", everything["logistic"], method) for method in METHODS}
    cases |= {
        kind: applying("logistic", of_kind("logistic", kind))
        for kind in (
            "remove_rows",
            "add_weighted_rows",
            "correct_labels",
            "correct_values",
            "revoke_features",
        )
    }
    cases |= {
        "step": applying("logistic", rows),
        "squared": applying("squared", everything["squared"]),
        "squared_step": applying("squared", of_kind("squared", "mixed_rows")),
        "csr": applying("logistic", everything["logistic"], represent=csr),
        "compacted": applying(
            "logistic",
            [ex.RemoveRows([7])],
            done=[ex.CorrectValues([3, 4], [0], 0.5), ex.RevokeFeatures([0, 1, 2, 3])],
            represent=csr,
            column_index=True,
        ),
        "cg": applying("logistic", everything["logistic"], "exact", solver="cg"),
        "adopted": applying("logistic", of_kind("logistic", "revoke_feature"), kind=adopted),
        "adopted_step": applying("squared", [ex.RemoveRows([7])], kind=linear_model.Ridge),
        "settles": applying("logistic", rows, "first_order", budget="settle"),
        "retrains": applying("logistic", rows, "first_order", budget="retrain"),
        "refused": applying("logistic", [*everything["logistic"], ex.RemoveRows([5])], refused=ValueError),
        "refused_rows": applying("logistic", [*rows, ex.RemoveRows([0])], "exact", refused=ValueError),
        "refused_csr": applying(
            "squared", [*everything["squared"], ex.RemoveRows([5])], refused=ValueError, represent=csr
        ),
        "refused_at_the_end": applying("logistic", [*rows[:-1], ONE_CLASS], refused=ValueError),
        "refused_by_budget": applying(
            "logistic", rows, "first_order", budget="raise", refused=ex.CertificateError
        ),
        "detached": applying("logistic", rows, detached=True, tolerance=1e9),
        "detached_csr": applying("logistic", rows, detached=True, tolerance=1e9, represent=csr),
        "detached_revoking": applying("squared", everything["squared"], "corrected", detached=True),
        "detached_refused": applying(
            "logistic", rows, detached=True, tolerance=1e-8, refused=ex.ToleranceExceeded
        ),
        "detached_refused_columns": applying(
            "logistic", everything["logistic"], detached=True, refused=ex.RowsRequired
        ),
        "detach": Verb(
            partial(make, "logistic", done=[ex.RemoveRows([3])]),
            ex.Unlearner.detach,
            data=DATA["logistic"].after(ex.RemoveRows([3])),
            after=DATA["logistic"].after(ex.RemoveRows([3])),
        ),
        "attach": Verb(
            partial(make, "logistic", detached=True),
            lambda un: un.attach(X, y),
            data=DATA["logistic"],
            after=DATA["logistic"],
        ),
        "attach_refused": Verb(
            partial(make, "logistic", detached=True),
            lambda un: un.attach(X[1:], y[1:]),
            data=DATA["logistic"],
            after=DATA["logistic"],
            refused=ValueError,
        ),
        "residual": reading(ex.Unlearner.residual),
        "corrected_data": reading(ex.Unlearner.corrected_data),
        "retrain": reading(ex.Unlearner.retrain),
        "get_support": reading(ex.Unlearner.get_support),
        "budget": reading(lambda un: un.budget, budget="settle"),
        "release": reading(lambda un: un.release(1.0, 1e-5)),
        "release_rounded": reading(lambda un: un.release(1.0, 1e-2, mechanism="rounding"), theta_bound=1e9),
        "release_of_objective": reading(
            lambda un: un.release(0.5, 1e-5, mechanism="objective"), budget="settle"
        ),
        "save": saving(include_rows=False, old=True),
        "save_rows": saving(include_rows=True, old=False),
        "load": loading(),
        "fit_ridge": fitting(ex.Ridge, "squared"),
        "fit_logistic": fitting(ex.LogisticRegression, "logistic"),
        "fit_noisy": fitting(ex.LogisticRegression, "logistic", noise=0.1, random_state=1),
        "construct": constructing(partial(ex.LogisticRegression, tol=1.0), "logistic"),
        "construct_adopted": constructing(linear_model.Ridge, "squared"),
        "add": Verb(statistics, lambda held: held.add(*new_rows("logistic")), look_at_statistics),
        "subtract": Verb(statistics, lambda held: held.subtract(X[:9], y[:9]), look_at_statistics),
        "merge": Verb(statistics, lambda held: held.merge(statistics()), look_at_statistics),
        "update": Verb(factor, lambda held: held.update(np.ones((6, 2))), look_at_factor),
        "downdate": Verb(factor, lambda held: held.downdate(np.full(6, 0.5)), look_at_factor),
        "append": Verb(factor, lambda held: held.append([*np.ones(6), 99.0]), look_at_factor),
        "delete": Verb(factor, lambda held: held.delete(2), look_at_factor),
    }
    return cases | verbs_of_people()


# Of these, every fourth line in an everyday run.
SOME = [
    "auto",
    "exact",
    "corrected",
    "original",
    "first_order",
    "csr",
    "cg",
    "squared",
    "adopted",
    "settles",
    "retrains",
    "refused_csr",
    "refused_by_budget",
    "detached_csr",
    "detached_revoking",
    "detached_refused",
    "release_rounded",
    "release_of_objective",
    "load",
]
VERBS = {name: replace(verb, every=4 if name in SOME else 1) for name, verb in verbs().items()}

# Verbs that must change nothing, and undo what an interrupted undoing has left.
NEXT = [
    ex.Unlearner.get_support,
    lambda un: un.attached and un.corrected_data(),
    lambda un: un.attached and un.residual(),
    lambda un: un.attached and un.retrain(),
    lambda un: refuse(un, ex.RevokeFeatures([99])),
    lambda un: un.save("another", include_rows=un.attached, include_noise=True),
    lambda un: un.attached and refuse(un, [ex.RemoveRows([8, 9]), ex.RemoveRows([8])]),
    lambda un: un.attached and un.release(1.0, 1e-5),
]


def refuse(un, request):
    with pytest.raises(ValueError):
        un.apply(request)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # hundreds of files
    monkeypatch.setattr(sys, "unraisablehook", bool)  # pytest's is Python, which an interrupt finds too


def interrupt(verb, moments):
    """Interrupts a verb at each of these moments, until it is done before; how many were, and left it done.

    After each, and whatever verb is next, all is as before or after; and so is what follows.
    """
    subject = verb.make()
    old = verb.look(subject)
    error = Interrupts().during(verb.act, subject)
    assert isinstance(error, verb.refused or type(None)), repr(error)
    new = verb.look(subject)
    assert new == old or not verb.refused
    for data in (verb.data, verb.after):
        if data is not None:
            assert_right(subject if data is verb.after else verb.make(), data)
    subject, count, done, fresh = verb.make(), 0, 0, False
    for lines in moments:
        interrupts = Interrupts(*lines)
        error = interrupts.during(verb.act, subject)
        if not interrupts.raised:
            assert isinstance(error, verb.refused or type(None)), repr(error)
            if fresh:
                break
            subject, fresh = verb.make(), True  # of which more lines are run than of one used before
            continue
        # (of a zipfile that is closed between two of its lines, in a ValueError)
        assert isinstance(error if type(error) is not ValueError else error.__context__, KeyboardInterrupt)
        count += interrupts.raised
        if verb.data is not None:
            follow = NEXT[count % len(NEXT)]
            follow(subject)
        now = verb.look(subject)
        assert now in (old, new), f"after lines {lines}, {error!r}"
        is_new = now == new != old
        done += is_new
        if verb.data is not None and (is_new or count % 7 == 0):
            assert_follows(subject, verb.after if is_new else verb.data, count)
            subject = verb.make()
        elif fresh or now != old:
            subject = verb.make()
    return count, done


def assert_follows(un, data, seed):
    assert_right(un, data)
    data = assert_next_bound_holds(un, data, seed)
    if not un.attached:
        un.attach(*data.rows).apply([], method="exact")
        assert_right(un, data.renumbered())


each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.mark.slow
@each_verb
def test_an_interrupt_at_any_line_leaves_all_as_before_or_after(verb):
    count, done = interrupt(verb, ((n,) for n in range(1, 10_000, max(1, verb.every // MANY))))
    assert count > 0 or verb is VERBS["delete"]  # one line
    assert done <= 8 or verb.forgets  # the commit is the last act
    assert not list(Path().glob(".expunge-*"))


@pytest.mark.slow
@each_verb
def test_a_second_interrupt_some_lines_later_leaves_all_as_before_or_after(verb):
    step = max(1, 12 * verb.every // MANY)
    interrupt(verb, ((n, 1 + (n // step) % 8) for n in range(1 + step // 2, 10_000, step)))


# Interrupts at instants


class Alarm:
    """KeyboardInterrupt some time from now, and again some time later, but only while expunge runs."""

    def __init__(self):
        self.delays, self.raised = [], 0

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self.heard)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def heard(self, _, frame):
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            self.raised += 1
            self.wait()
            raise KeyboardInterrupt

    def wait(self):
        signal.setitimer(signal.ITIMER_REAL, self.delays.pop(0) if self.delays else 0.0)

    def during(self, act, delays):
        """What `act` gave and what it raised."""
        self.delays = list(delays)
        try:
            self.wait()
            return act(), None
        except (KeyboardInterrupt, Exception) as error:
            return None, error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Life:
    """An Unlearner to which anything happens, and the data that the test keeps."""

    def __init__(self, loss, form, seed):
        self.loss, self.rng = loss, random.Random(seed)
        self.represent = SPARSE["csr_float32"] if form == "csr" else np.array
        self.start()

    def start(self):
        self.data = make_data(self.loss, weighted=self.rng.random() < 0.5)
        options = {"solver": self.rng.choice(["auto", "auto", "cg"])} if self.loss == "logistic" else {}
        self.un = unlearner(
            self.data, self.loss, True, tolerance=0.5, represent=self.represent, theta_bound=1e6, **options
        )
        if self.un.model.solver != "cg" and self.rng.random() < 0.5:
            self.un.detach()
        self.un.save("file", include_rows=self.un.attached)
        self.bound = self.un.tolerance
        kind = ex.Ridge if self.loss == "squared" else ex.LogisticRegression
        X, y, _ = DATA[self.loss].rows
        self.fits = [(self.represent(part), labels) for part, labels in ((X, y), new_rows(self.loss))]
        self.other = kind(0.5, tol=1.0)  # another model
        models = [kind(0.5, tol=1.0).fit(*rows) for rows in self.fits]
        self.known = [fitted(model) for model in models]
        for model, rows in zip(models, self.fits, strict=True):
            ex.Unlearner(model, *rows)
            self.known.append(fitted(model))
        self.other.fit(*self.fits[0])

    def requests(self):
        """Some, and the data after them."""
        data, requests = self.data, []
        kinds = ["remove", "add", "label", "value", "revoke"]
        if (not self.un.attached and self.loss == "logistic") or data.kept.sum() < 4:
            kinds.remove("revoke")
        for _ in range(self.rng.randint(1, 4)):
            some = [self.rng.randrange(10**6) for _ in range(3)]
            requests.append(request_from(data, self.loss, self.rng.choice(kinds), *some))
            data = data.after(requests[-1])
        if self.un.attached:
            return requests, data
        return represented_by_value(by_value(self.data, requests), self.represent), data

    def verbs(self):
        """Names, what to do, and the data after it; None: refused."""
        un, data = self.un, self.data
        cg = un.attached and un.model.solver == "cg"  # which keeps no Hessian
        requests, after = self.requests()
        rows = self.rng.choice(self.fits)
        yield "fit", lambda: self.other.fit(*rows), data
        yield "construct", lambda: ex.Unlearner(self.other, *self.rows_of_other()), data
        yield "load", lambda: ex.Unlearner.load("file"), data
        yield "get_support", un.get_support, data
        yield "save", lambda: un.save("file"), None if cg else data
        yield "budget", lambda: un.budget, data
        if not un.attached:
            method = self.rng.choice(["auto", "corrected"])
            yield f"detached {method}", lambda: un.apply(requests, **METHODS[method]), after
            wrong = [*requests, ex.Edit(before=(np.ones((9999, 1)), np.ones(9999)))]
            yield "detached refused", lambda: un.apply(wrong), None
            X, y, s = data.rows
            yield "attach", lambda: un.attach(self.represent(X), y, s), data.renumbered()
            yield "attach refused", lambda: un.attach(self.represent(X[1:]), y[1:]), None
            return
        for method, options in METHODS.items():
            yield method, partial(un.apply, requests, **options), after
            wrong = [*requests, ex.RemoveRows([0]), ex.RemoveRows([0])]
            yield f"{method} refused", partial(un.apply, wrong, **options), None
        yield "detach", un.detach, None if cg else data
        yield "save rows", lambda: un.save("file", include_rows=True), data
        yield "residual", un.residual, data
        yield "corrected_data", un.corrected_data, data
        yield "retrain", un.retrain, data
        yield "release", lambda: un.release(1.0, 1e-5), data

    def rows_of_other(self):
        """Those that it was fitted to."""
        return self.fits[self.known.index(fitted(self.other)) % 2]

    def live(self, alarm, typical):
        """One verb, interrupted or not; then one that changes nothing; and all is as before or after."""
        un, before, theta, attached = self.un, self.data, inside(self.un).state.theta, self.un.attached
        name, act, after = self.rng.choice(list(self.verbs()))
        delays, most = [], 1.2 * typical.get(name, 1e-3)
        if self.rng.random() < 0.9:
            delays.append(self.rng.uniform(1e-6, most))
            if self.rng.random() < 0.4:
                delays.append(self.rng.choice([2e-6, 1e-5, 3e-5, 1e-4]) * self.rng.uniform(0.5, 1.5))
        raised, started = alarm.raised, perf_counter()
        gave, error = alarm.during(act, delays)
        hit = alarm.raised - raised
        if not hit:
            typical[name] = perf_counter() - started
        assert is_free(inside(un).lock), name
        assert fitted(self.other) in self.known
        self.rng.choice(NEXT)(un)
        if error is None:
            assert after is not None, f"{name} was granted"
            self.data = after
        elif after is not None:
            refused = isinstance(error, ex.ToleranceExceeded | ex.ConvergenceError)
            assert hit or refused, f"{name}: {error!r}"
            self.data = after if self.is_done(after, theta, attached) else before
        else:
            assert hit or isinstance(error, ValueError), f"{name}: {error!r}"
        if inside(un).state.theta is not theta:
            proven = name not in ("corrected", "original", "first_order", "detached corrected")
            self.bound = un.tolerance if proven else np.inf
            if isinstance(gave, ex.Update):
                self.bound = gave.residual_bound
        try:
            assert_right(un, self.data, self.bound)
            if hit:
                self.data = assert_next_bound_holds(un, self.data, alarm.raised)
                self.bound = np.inf
        except AssertionError as failure:
            raise AssertionError(f"after {name}, {delays}, {hit} interrupts, {error!r}") from failure
        return name, hit

    def is_done(self, after, theta, attached):
        """Whether an interrupted verb was."""
        if not self.un.attached:
            return inside(self.un).state.theta is not theta
        if not attached:
            return True
        parts = zip(self.un.corrected_data(), after.rows, strict=True)
        return all(np.array_equal(None if a is None else dense(a), b) for a, b in parts)


def is_free(lock):
    """Whether another thread gets it."""
    got = []

    def take():
        if lock.acquire(blocking=False):
            lock.release()
            got.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(got)


@pytest.mark.slow
@needs_signals
@pytest.mark.parametrize("form", ["dense", "csr"])
@each_loss
def test_interrupts_at_random_instants_leave_all_as_before_or_after(loss, form):
    """500 of them; 2,000 over all losses and forms."""
    life, hits, typical = Life(loss, form, MANY), Counter(), {}
    with Alarm() as alarm:
        while alarm.raised < 500 * MANY:
            if life.rng.random() < 0.04:
                life.start()
            name, hit = life.live(alarm, typical)
            hits[name] += hit
    print(sum(hits.values()), dict(hits))


# Threads


# Verbs and readers that look at more than one thing, and wait for a request of another thread.
WAITING = {
    "residual": lambda un: un.residual(),
    "corrected_data": lambda un: [bits(part) for part in un.corrected_data()],
    "retrain": lambda un: fitted(un.retrain()),
    "get_support": lambda un: bits(un.get_support()),
    "budget": lambda un: un.budget,
    "release": lambda un: fitted(un.release(1.0, 1e-5, random_state=1)),
    "save": lambda un: (
        un.save("file", include_rows=True, include_noise=True)
        or bits(ex.Unlearner.load("file").corrected_data()[0])
    ),
    "detach": lambda un: inside(un.detach()).held.counts.tolist(),
}
OF_IDS = ("rows_of", "is_forgotten", "drop_tombstones")  # see test_people.py
CONSTANT = ("model", "tolerance", "theta_bound", "residual_on_entry")  # one thing, from construction


def test_every_public_name_is_among_those_that_these_tests_know():
    names = {name for name in dir(ex.Unlearner) if not name.startswith("_")}
    assert names == {*WAITING, *CONSTANT, *OF_IDS, "apply", "attach", "load", "attached"}


@pytest.mark.parametrize("name", WAITING)
def test_a_reader_waits_until_the_request_of_another_thread_has_ended(name, monkeypatch):
    def made():
        return make("logistic", budget="settle")

    requests, data = of_kind("logistic", "mixed"), DATA["logistic"]
    twin = made()
    twin.apply(requests)
    expected = WAITING[name](twin)
    un, begun, go_on, seen = made(), threading.Event(), threading.Event(), []
    act = fitted_module.fitted_attributes

    def slow(*arguments):  # when all but the last act is done
        begun.set()
        assert go_on.wait(30)
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitted_module, "fitted_attributes", slow)
        applying = threading.Thread(target=un.apply, args=[requests])
        applying.start()
        assert begun.wait(30)
        assert inside(un).data.register.edited_rows > 0  # data are those after, and the model is that before
        reading = threading.Thread(target=lambda: seen.append(WAITING[name](un)))
        reading.start()
        reading.join(0.03)
        waits = reading.is_alive()
        go_on.set()
        applying.join(30)
        reading.join(30)
    assert waits
    assert seen == [expected]
    assert un.attached == (name != "detach")
    if un.attached:
        for found, kept in zip(un.corrected_data(), data.after(*requests).rows, strict=True):
            assert_array_equal(found, kept)


@pytest.mark.parametrize("refused", [False, True], ids=["granted", "refused"])
def test_readers_beside_a_thread_that_applies_see_what_is_between_requests(refused):
    """Rows come and go in pairs, and every gradient is within the tolerance."""
    data = make_data("logistic", n=300)
    un = unlearner(data, "logistic", True, tolerance=1e-3)
    pair, stop, failures = data.X[5:7], threading.Event(), []

    def apply():
        first = 300
        while not stop.is_set():
            if refused:
                refuse(un, [ex.AddRows(pair, [0, 1]), ex.RemoveRows([2, 2])])
            else:
                un.apply([ex.AddRows(pair, [0, 1]), ex.CorrectValues([first], [1], 0.5)], method="exact")
                un.apply(ex.RemoveRows([first, first + 1]))
                first += 2

    def read():
        while not stop.is_set():
            X, y, _ = un.corrected_data()
            assert X.shape[0] == y.size
            assert y.size in ((300,) if refused else (300, 302))
            assert un.residual() <= 1e-3 + 1e-9
            un.save("file", include_rows=True)
            assert ex.Unlearner.load("file").residual() <= 1e-3 + 1e-9
            assert ex.residual(un.retrain(), X, y) <= 2.0  # of two rows

    def noted(act):
        try:
            act()
        except BaseException as error:
            failures.append(error)
            stop.set()

    interval = sys.getswitchinterval()
    threads = [threading.Thread(target=noted, args=[act]) for act in (apply, read)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        stop.wait(0.5)
        stop.set()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not failures


@pytest.mark.parametrize("name", [*WAITING, "apply", "attach"])
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_in_the_middle_of_a_request_of_this_thread_nothing_is_answered_or_changed(
    name, detached, monkeypatch
):
    """As by a signal handler that reports, and ends."""
    requests, data = of_kind("squared", "mixed"), DATA["squared"]
    asked = {
        **WAITING,
        "apply": lambda un: un.apply(ex.AddRows(data.X[:1], data.y[:1])),
        "attach": lambda un: un.attach(data.X, data.y),
    }
    un = make("squared", detached=detached)
    if detached:
        requests = by_value(data, requests)
    act, refusals = fitted_module.fitted_attributes, []

    def asking(*arguments):
        try:
            asked[name](un)
        except RuntimeError as error:
            refusals.append(str(error))
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fitted_module, "fitted_attributes", asking)
        un.apply(requests, **METHODS["corrected"])
    if name == "budget":  # one thing, from between requests
        assert not refusals
    else:
        (message,) = refusals
        assert "in the middle of a request of the same thread" in message
    assert_follows(un, data.after(*of_kind("squared", "mixed")), 0)


# What stays


@pytest.mark.parametrize("name", CONSTANT)
def test_what_certificates_rest_on_cannot_be_assigned(name):
    un = make("logistic")
    before = state_of(un)
    with pytest.raises(AttributeError):
        setattr(un, name, 1.0)
    with pytest.raises(AttributeError):
        delattr(un, name)
    assert state_of(un) == before


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_an_unlearner_is_not_copied_and_goes_on_working(take, detached):
    un = make("logistic", detached=detached)
    before = state_of(un)
    with pytest.raises(TypeError, match=r"save\(\) it to a file"):
        take(un)
    assert state_of(un) == before
    assert_next_bound_holds(un, DATA["logistic"])
