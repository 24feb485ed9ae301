"""Verbs of an Unlearner to interrupt, at lines, and what must hold after."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
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
    requests_for,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge import kernels, reference

CONSTANT = (  # of an Unlearner, for ever
    "model",
    "tolerance",
    "within",
    "theta_bound",
    "residual_on_entry",
    "distance_on_entry",
)
PACKAGE = str(Path(ex.__file__).parent) + os.sep


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
        "entry": (un.residual_on_entry, un.distance_on_entry),
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
    """Whether a with statement, on its first line, is being left, where Python hears no signal."""
    return frame.f_lasti > first_offsets(frame.f_code)[frame.f_lineno]


class Interrupts:
    """KeyboardInterrupt at the n-th line that runs in expunge's files, and again some lines later."""

    def __init__(self, *lines):
        self.lines, self.passed, self.raised = list(lines), 0, 0

    def trace(self, frame, _, __):
        """Of a call: what sees each of its lines."""
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        begins = with_lines(frame.f_code.co_filename)

        def line(frame, event, _):
            if event == "line" and self.lines and not (frame.f_lineno in begins and is_leaving(frame)):
                self.passed += 1
                if self.passed == self.lines[0]:
                    del self.lines[0]
                    self.passed = 0
                    self.raised += 1
                    raise KeyboardInterrupt
            return line

        return line

    def profile(self, frame, event, _):
        """A trace function that raised is gone: this brings it back as soon as a function begins or ends."""
        if self.raised and self.lines and sys.gettrace() is None:
            while frame is not None:
                if frame.f_code.co_filename.startswith(PACKAGE):
                    frame.f_trace = self.trace(frame, "call", None)
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


# Of these, every fourth line in an everyday run: they take long, or are like one of the others.
SOME = [
    "auto",
    "exact",
    "corrected",
    "original",
    "first_order",
    "csr",
    "cg",
    "squared",
    "squared_step",
    "adopted",
    "settles",
    "retrains",
    "refused_csr",
    "refused_rows",
    "refused_at_the_end",
    "refused_by_budget",
    "detached_csr",
    "detached_revoking",
    "detached_refused",
    "release_rounded",
    "release_of_objective",
    "save_rows",
    "load",
    "names",
    "names_refused",
]
VERBS = {name: replace(verb, every=4 if name in SOME else 1) for name, verb in verbs().items()}


def refuse(un, request):
    with pytest.raises(ValueError):
        un.apply(request)


def assert_follows(un, data, seed):
    assert_right(un, data)
    data = assert_next_bound_holds(un, data, seed)
    if not un.attached:
        un.attach(*data.rows).apply([], method="exact")
        assert_right(un, data.renumbered())
