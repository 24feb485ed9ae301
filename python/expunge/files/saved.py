"""What of an Unlearner goes into a file, and what must hold of it when it comes out.

docs/data.md lists the entries. The file itself, its checksum and its atomic replacement are
:mod:`expunge.files.archive`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Float
from .._frames import are_names
from .._numbers import as_number, power_of_two_above
from ..class_weights import Balance, as_class_weights, as_parameter
from ..engine.attached import Attached
from ..engine.balance import require_own_weights
from ..engine.by_value import DetachedData
from ..engine.data import CorrectedData, with_ball
from ..engine.detached import Detached
from ..engine.entry import OnEntry, check_belong, check_counts
from ..engine.penalty import require_own_penalty, require_sums
from ..engine.shift import spread
from ..engine.solver import check_solver, warn
from ..engine.state import WITHIN, Effort, Promise, State, without_curvature
from ..errors import NotPositiveDefiniteError
from ..models import ESTIMATORS, Estimator, Ridge
from ..models.adopt import estimator_for
from ..models.base import theta_of
from ..noise import Noise, check_random_state
from ..problem import Problem, loss_of_kind, outputs_of
from ..release import Budget, check_theta_bound
from ..statistics import TALLIES
from . import archive
from .entries import MOST, Entries
from .labels import as_text, classes_of, labels_kept
from .names import SavedNames, as_json, from_json
from .rows import entries_of, read_rows

KIND, VERSION = "unlearner", 4
READABLE = (1, 2, 3, 4)
OF_J = 1e-9  # how exact J is taken to be where a file does not tell
_OPTIONAL = {"within": "fit.within", "tol": "tol", "memory_limit": "memory_limit"}  # parameters of a model


@dataclass(frozen=True)
class Saved:
    """An Unlearner as values.

    `names` are those of the surviving columns; `rows` are row numbers, X, y, s (arrays where they were read;
    where they are to be written, what `CorrectedData.streamed` gives) and how many numbers were given out.
    """

    problem: Problem  # without noise
    parameters: Mapping[str, Any]  # of the model, beside alpha and fit_intercept
    theta: Float  # of the model
    shift: (
        tuple[Float, float | Float] | None
    )  # what is taken off the surviving columns, and the intercept beside
    residual: float | None
    n_iter: int | None
    named: bool  # whether the model has feature_names_in_
    promise: Promise
    on_entry: OnEntry
    column_index: bool
    kept: NDArray[np.bool_]
    names: list[Any] | None
    counts: NDArray[np.int64]
    weighted: bool
    dtype: np.dtype[Any]
    is_sparse: bool
    since_anchor: int
    statistics: _core.AnchoredStatistics | None
    rows: tuple[NDArray[np.int64], Any, Any, Any, int] | None
    noise: Noise | None  # of the objective, for the surviving columns; perhaps without its values
    theta_bound: float
    budget: Budget | None
    row_names: SavedNames

    def all_names(self) -> list[Any] | None:
        """The labels over all columns that were ever handed over; None for one that is not kept."""
        if self.names is None:
            return None
        names = iter(self.names)
        return [next(names) if here else None for here in self.kept]

    @classmethod
    def of(
        cls,
        engine: Attached | Detached,
        model: Any,
        budget: Budget | None,
        on_entry: OnEntry,
        column_index: bool,
        theta_bound: float,
        *,
        include_rows: bool,
        include_noise: bool,
    ) -> Self:
        """What is kept of an engine and its model; nothing of what has left them.

        ValueError where there is no such file: see :meth:`expunge.Unlearner.save`.
        """
        require_own_penalty(engine.problem, "saved")
        if not include_rows:
            require_sums(engine.problem)
            require_own_weights(engine.problem, "saved")
        engine = engine.as_now()
        data, state, problem = engine.data, engine.state, engine.problem
        shift, rows, row_names = data.surviving_shift(), None, SavedNames()
        if include_rows:
            data = data.numbered("save(include_rows=True)")
            rows, row_names = (*data.streamed(), data.n_rows), SavedNames.of(data)
        ours = isinstance(model, ESTIMATORS)
        residual = model.residual_ if ours else state.residual
        if residual is not None and residual > engine.tolerance:  # it has digits of the rows of a request
            residual = power_of_two_above(residual)
        noise = _noise_kept(problem.noise, include_rows, include_noise)
        return cls(
            problem=problem,
            parameters={
                **({"within": model.within, "tol": model.tol} if ours else engine.promise.of_fit),
                "max_iter": (model if ours else Ridge()).max_iter,
                "solver": engine.solver,
                "memory_limit": engine.memory_limit,
            },
            theta=theta_of(model),
            shift=None if shift is None else (shift, _intercept(problem, state.theta)),
            residual=residual,
            n_iter=getattr(model, "n_iter_", None) if ours else None,  # of an adopted one unknown
            named=hasattr(model, "feature_names_in_"),
            promise=engine.promise,
            on_entry=on_entry,
            column_index=column_index,
            kept=data.kept,
            names=data.surviving_names(),
            counts=data.counts,
            weighted=data.weighted,
            dtype=data.dtype,
            is_sparse=data.is_sparse,
            since_anchor=0 if engine.attached else state.effort.requests,
            statistics=_statistics_kept(engine, rows is not None),
            rows=rows,
            noise=noise and noise.of(data.kept),
            theta_bound=theta_bound,
            budget=budget,
            row_names=row_names,
        )

    def model(self) -> Estimator:
        """The estimator, not fitted yet."""
        model = estimator_for(self.problem.with_noise(self.noise), **self.parameters)
        if self.n_iter is not None:
            model.n_iter_ = self.n_iter
        return model

    def engine(self, key: bytes | None) -> Attached | Detached:
        """The engine; ValueError where the rows are not those of the statistics."""
        problem = self.problem.with_noise(self.noise and self.noise.spread(self.kept))
        statistics, classes = self.statistics, problem.n_classes
        anchor = None if statistics is None else statistics.anchor
        theta, shift = self.theta, None
        if self.shift is not None:
            shift, intercept = self.shift
            theta = problem.joined(problem.split(theta)[0], intercept)
        state = State(theta, None, anchor, anchor is not None, statistics, Effort(self.since_anchor))
        if self.budget is not None:
            state = state._replace(profile=self.budget.spent)
        how = self.promise, self.parameters["solver"], self.parameters["memory_limit"]
        if self.rows is None:
            left = DetachedData(
                self.kept,
                self.all_names(),
                self.counts,
                dtype=self.dtype,
                is_sparse=self.is_sparse,
                classes=classes,
                weighted=self.weighted,
                class_weights=problem.class_weights,
                shift=spread(shift, self.kept),
            )
            return Detached(problem, left, state, *how)
        *numbered, n_rows = self.rows
        data = CorrectedData.from_numbered(
            tuple(numbered),
            n_rows,
            self.kept,
            self.all_names(),
            classes=classes,
            weighted=self.weighted,
            class_weights=problem.class_weights,
            column_index=self.column_index,
            shift=shift,
            row_names=self.row_names.row_names(numbered[0], n_rows, key),
            library=self.row_names.library,
        )
        if not problem.constant_hessian and not classes:
            with_ball(data)
        engine = Attached(problem, data, *how)
        check_counts(engine, self.counts)
        if statistics is not None:
            check_belong(engine, self.counts, statistics)
        at = engine.objective().evaluate(theta)
        engine.state = state._replace(at=without_curvature(at))
        return engine


def _statistics_kept(engine: Attached | Detached, with_rows: bool) -> _core.AnchoredStatistics | None:
    """None where there are none, or sums lose digits: rows are then enough, and needed."""
    if not with_rows:
        return engine.statistics()
    try:
        return engine.statistics() if engine.keeps_statistics() else None
    except NotPositiveDefiniteError:
        return None


def _noise_kept(noise: Noise | None, include_rows: bool, include_noise: bool) -> Noise | None:
    """The noise of the objective, without its values unless they are included."""
    if noise is None:
        return None
    if include_noise:
        noise.values  # noqa: B018 - raises if they are lost
        return noise
    if include_rows:
        raise ValueError(
            "theta and the rows together tell the noise in the objective: save with "
            "include_noise=True, and keep the file as secret as the noise, or leave out the rows"
        )
    return noise.lost()


def write(path: str | os.PathLike[str], saved: Saved) -> None:
    """Writes it; before anything is written TypeError for class labels that a file cannot hold, ValueError
    for numbers that `read` would refuse.
    """
    problem, parameters, promise = saved.problem, saved.parameters, saved.promise
    entries: dict[str, Any] = {
        "model": problem.kind,
        "alpha": problem.alpha,
        "fit_intercept": problem.fit_intercept,
        "max_iter": int(parameters["max_iter"]),
        "solver": parameters["solver"],
        "within": np.inf if promise.within is None else as_number(promise.within, "within", above=0.0),
        "theta": saved.theta,
        "named": saved.named,
        "residual_on_entry": saved.on_entry.residual,
        "column_index": saved.column_index,
        "kept": saved.kept,
        "counts": saved.counts,
        "weighted": saved.weighted,
        "dtype": saved.dtype.name,
        "sparse": saved.is_sparse,
        "since_anchor": saved.since_anchor,
        "theta_bound": check_theta_bound(saved.theta_bound),
    }
    entries |= _promised(saved)
    if saved.shift is not None:
        entries["shift"], entries["shift.intercept"] = saved.shift
    for name, entry in _OPTIONAL.items():
        if parameters.get(name) is not None:
            entries[entry] = float(parameters[name])
    if promise.tolerance is not None:
        entries["tolerance"] = as_number(promise.tolerance, "tolerance")
    if saved.on_entry.distance is not None:
        entries["distance_on_entry"] = saved.on_entry.distance
    for name in ("residual", "n_iter"):
        if getattr(saved, name) is not None:
            entries[name] = getattr(saved, name)
    if saved.names is not None:
        if are_names(saved.names):
            entries["names"] = as_text(saved.names, "a column name")
        else:
            entries["names.labels"] = as_json(saved.names, "labels of columns")
    entries |= _of_problem(problem)
    if (statistics := saved.statistics) is not None:
        entries["statistics.theta"] = statistics.anchor.theta
        entries["statistics.hessian"] = statistics.anchor.hessian
        entries["statistics.gradient"] = statistics.at.gradient
        entries["statistics.numbers"] = np.array([getattr(statistics.tallies, name) for name in TALLIES])
    for name in ("theta", "residual", *(name for name in entries if name.startswith("statistics."))):
        if not np.isfinite(entries.get(name, 0.0)).all():
            raise ValueError(
                f"{name} left the range of floating point: scale the columns of X, and fit again"
            )
    if saved.rows is not None:
        entries |= entries_of(*saved.rows) | saved.row_names.entries()
    archive.write(path, KIND, VERSION, entries)


def _of_problem(problem: Problem) -> dict[str, Any]:
    """What only some models have."""
    entries: dict[str, Any] = {
        "intercept_scaling": problem.intercept_scaling,
        "power": problem.power,
        "class_weight": problem.class_weights,
        "class_weight.balance": problem.balance,
    }
    if problem.classes is not None:
        entries["classes"], entries["classes.object"] = labels_kept(problem.classes)
    return {name: value for name, value in entries.items() if value is not None}


def _promised(saved: Saved) -> dict[str, Any]:
    """The noise of the objective and the budget."""
    entries: dict[str, Any] = {}
    if (noise := saved.noise) is not None:
        entries["noise.sigma"], entries["noise.draws"] = noise.sigma, noise.draws
        if noise.random_state is not None:
            entries["noise.random_state"] = str(noise.random_state)  # of any size
        if noise.b is not None:
            entries["noise.b"] = noise.b
    if (held := saved.budget) is not None:
        entries["budget"] = np.array([held.epsilon, held.delta, held.spent])
        entries["budget.on_exhausted"] = held.on_exhausted
    return entries


def read(path: str | os.PathLike[str]) -> Saved:
    """Reads what `write` wrote; for anything else a ValueError that names the file."""
    entries = Entries(archive.read(path, KIND, READABLE))
    with naming(path):
        saved = _interpreted(entries)
        entries.require_none_left()
    return saved


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns every error about the content of a file into a ValueError that names the file."""
    try:
        with np.errstate(all="ignore"):  # what overflows is then refused, or was saved so
            yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _interpreted(entries: Entries) -> Saved:
    problem, parameters = _model(entries)
    kept, names, counts = _kept(entries, problem)
    d = int(np.count_nonzero(kept))
    dtype = entries.value("dtype", "U")
    if dtype not in ("float64", "float32"):
        raise ValueError(f"unknown dtype {dtype!r}")
    is_sparse = entries.value("sparse", "b")
    weighted = entries.value("weighted", "b")
    rows = read_rows(entries, problem, d, np.dtype(dtype), is_sparse) if "rows.count" in entries else None
    if rows is not None and not weighted and (rows[3] != 1.0).any():
        raise ValueError("rows.s are not 1, but weights were never given")
    needed = rows is None or "statistics.theta" in entries
    statistics = _statistics(entries, problem, d, counts) if needed else None
    noise, theta_bound = _noise(entries, problem, d), entries.optional("theta_bound", "f")
    if rows is not None and noise is not None and noise.b is None:
        raise ValueError("noise.b is missing, beside rows")
    residual, on_entry = entries.optional("residual", "f"), _on_entry(entries)
    if residual is not None and residual < 0:
        raise ValueError("residual is negative")
    theta = entries.floats("theta", problem.parameters(d))
    named = entries.value("named", "b")
    if named and not are_names(names):
        raise ValueError("names is missing")
    return Saved(
        problem=problem,
        parameters=parameters,
        theta=theta,
        shift=_shift(entries, problem, theta),
        residual=residual,
        n_iter=entries.count("n_iter") if "n_iter" in entries else None,
        named=named,
        promise=_promise(entries),
        on_entry=on_entry,
        column_index=entries.value("column_index", "b"),
        kept=kept,
        names=names,
        counts=counts,
        weighted=weighted,
        dtype=np.dtype(dtype),
        is_sparse=is_sparse,
        since_anchor=entries.count("since_anchor"),
        statistics=statistics,
        rows=rows,
        noise=noise,
        theta_bound=100.0 if theta_bound is None else check_theta_bound(theta_bound),  # None: version 1
        budget=_budget(entries, noise),
        row_names=SavedNames() if rows is None else SavedNames.read(entries, rows[0].size),
    )


def _promise(entries: Entries) -> Promise:
    tolerance, within = entries.optional("tolerance", "f"), entries.optional("within", "f", finite=False)
    if tolerance is None and within in (None, np.inf):
        raise ValueError("tolerance and within are missing")
    if within is None:  # versions 1 to 3 promised a residual
        within = WITHIN
        warn(
            f"this file is of an earlier version: from here on requests keep the model within {within:g} "
            f"standard errors of the retrained one. Certificates still rest on its tolerance, {tolerance:g}",
            UserWarning,
        )
    return Promise.checked(tolerance, None if within == np.inf else within)


def _on_entry(entries: Entries) -> OnEntry:
    residual = entries.value("residual_on_entry", "f", finite=False)
    distance = entries.optional("distance_on_entry", "f", finite=False)  # None: version 1 or 2
    if residual < 0 or not (distance is None or distance >= 0):
        raise ValueError("residual_on_entry or distance_on_entry is negative")
    return OnEntry(residual, distance)


def _model(entries: Entries) -> tuple[Problem, dict[str, Any]]:
    model = entries.value("model", "U")
    loss = loss_of_kind(model, entries.optional("power", "f"))
    classes = classes_of(entries) if "classes" in entries else None
    if (classes is None) == (model in ("LogisticRegression", "LinearSVC")):
        raise ValueError(f"classes and model {model!r} do not belong together")
    if model == "LinearSVC" and classes is not None and classes.size != 2:
        raise ValueError("a LinearSVC has two classes")
    weights = None
    if classes is not None and "class_weight" in entries:
        weights = entries.floats("class_weight", len(classes))
        weights = as_class_weights(as_parameter(weights, classes), classes)
    problem = Problem(
        "softmax" if classes is not None and outputs_of(len(classes)) > 1 else loss,
        as_number(entries.value("alpha", "f"), "alpha", above=0.0),
        entries.value("fit_intercept", "b"),
        classes,
        class_weights=weights,
        intercept_scaling=_scaling(entries, model),
        balance=_balance(entries, weights),
    )
    parameters = {
        "max_iter": entries.count("max_iter", 2**63 - 1),
        "solver": entries.value("solver", "U"),
        **{name: entries.optional(entry, "f", finite=False) for name, entry in _OPTIONAL.items()},
    }
    if (tol := parameters["tol"]) is not None:
        as_number(tol, "tol")
    if (within := parameters.pop("within")) is not None:
        parameters["within"] = as_number(within, "fit.within", above=0.0)
    check_solver(parameters["solver"], parameters["memory_limit"])
    return problem, parameters


def _balance(entries: Entries, weights: Float | None) -> Balance | None:
    counts = entries.optional("class_weight.balance", "U")
    if counts is not None and (counts not in get_args(Balance) or weights is None):
        raise ValueError(f"class_weight.balance is {counts!r}: no class weights move so")
    return cast("Balance | None", counts)


def _scaling(entries: Entries, model: str) -> float | None:
    if model != "LinearSVC":
        return None
    return as_number(entries.value("intercept_scaling", "f"), "intercept_scaling", above=0.0)


def _kept(
    entries: Entries, problem: Problem
) -> tuple[NDArray[np.bool_], list[Any] | None, NDArray[np.int64]]:
    """Which columns are left, their labels, and how many rows there are."""
    kept = entries.array("kept", "b", None)
    d = int(np.count_nonzero(kept))
    names = entries.array("names", "U", d).tolist() if "names" in entries else None
    if names is None:
        names = from_json(entries, "names.labels", d)
    if names is not None and len(set(names)) < d:
        raise ValueError("names has one name twice")
    counts = entries.array("counts", "i", max(2, problem.n_classes)).astype(np.int64)
    if counts.max() > MOST:
        raise ValueError(f"counts are above {MOST}")
    least = counts.sum() if problem.classes is None else counts.min()
    if d == 0 or counts.min() < 0 or least < 1 or (problem.classes is None and counts[1] > 0):
        raise ValueError("kept or counts cannot be those of a model")
    return kept, names, counts


def _noise(entries: Entries, problem: Problem, d: int) -> Noise | None:
    if "noise.sigma" not in entries:
        return None
    sigma, draws = entries.value("noise.sigma", "f"), entries.count("noise.draws")
    if not sigma > 0 or problem.n_classes != 2:
        raise ValueError("noise.sigma cannot be that of a model")
    told = entries.optional("noise.random_state", "U")
    seed = None if told is None else check_random_state(int(told))
    if told is not None and str(seed) != told:
        raise ValueError(f"noise.random_state {told[:50]!r} is not written as a number is")
    return Noise(sigma, seed, draws, entries.floats("noise.b", d) if "noise.b" in entries else None)


def _shift(entries: Entries, problem: Problem, theta: Float) -> tuple[Float, float | Float] | None:
    if "shift" not in entries:
        return None
    coef, over_x = problem.split(theta)
    shift = entries.floats("shift", coef.shape[-1])
    if problem.outputs > 1:
        intercept: float | Float = entries.floats("shift.intercept", problem.outputs)
    else:
        intercept = entries.value("shift.intercept", "f")
    raw = problem.split(problem.moved(problem.joined(coef, intercept), shift, None))[1]
    size = (np.abs(shift * coef).sum(axis=-1) + np.abs(intercept)).max()
    if not problem.fit_intercept or not (np.abs(raw - over_x) <= 2.0**-48 * size).all():
        raise ValueError("shift and theta do not belong together")
    return shift, intercept


def _intercept(problem: Problem, theta: Float) -> float | Float:
    """Of one output a number, of K classes (K,)."""
    intercept = problem.split(theta)[1]
    return intercept if problem.outputs > 1 else float(intercept[0])


def _budget(entries: Entries, noise: Noise | None) -> Budget | None:
    if "budget" not in entries:
        return None
    epsilon, delta, spent = entries.floats("budget", 3).tolist()
    promised = Budget.promised(epsilon, delta, entries.value("budget.on_exhausted", "U"), noise)
    if promised is not None and spent < 0:
        raise ValueError("budget has spent less than nothing")
    return promised and replace(promised, spent=spent)


def _statistics(
    entries: Entries, problem: Problem, d: int, counts: NDArray[np.int64]
) -> _core.AnchoredStatistics:
    p = problem.parameters(d)
    theta = entries.floats("statistics.theta", p)
    hessian = entries.floats("statistics.hessian", p, p)
    gradient = entries.floats("statistics.gradient", p)
    numbers = entries.floats("statistics.numbers", None)
    if numbers.size == len(TALLIES) - 1:  # of 0.4.0, which does not tell how exact J is
        numbers = np.append(numbers, OF_J * abs(numbers[TALLIES.index("value")]))
    if numbers.size != len(TALLIES):
        raise ValueError(f"statistics.numbers has {numbers.size} numbers, expected {len(TALLIES)}")
    if not np.array_equal(hessian, hessian.T):
        raise ValueError("statistics.hessian is not symmetric")
    tallies = dict(zip(TALLIES, numbers.tolist(), strict=True))
    may_round_below_0 = ("value", "weight")
    never_below = [value for name, value in tallies.items() if name not in may_round_below_0]
    if min(never_below) < 0 or tallies["rows"] != int(counts.sum()):
        raise ValueError("statistics.numbers cannot be those of such rows")
    statistics = _core.AnchoredStatistics.restore(
        theta,
        hessian,
        gradient,
        problem.loss,
        problem.penalty(d),
        problem.fit_intercept,
        _core.Tallies(**tallies),
        outputs=problem.outputs,
    )
    statistics.anchor.solve(np.zeros(p))  # raises unless the Hessian is positive definite
    return statistics
