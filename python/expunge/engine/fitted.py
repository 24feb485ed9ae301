"""A fitted model and the engine that stands for its data: they change together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import Float
from ..atomic import Change, assign_all
from ..class_weights import as_parameter
from ..errors import RowsRequired, StreamInterrupted, StreamStopped
from ..models import ESTIMATORS, Estimator, Ridge
from ..models.adopt import chosen_on_data, estimator_for, parameters_of, rows_of
from ..models.base import fitted_attributes, set_theta, theta_of
from ..problem import Problem, centred
from ..receipts import check_key, versions
from ..release import Budget, Certificate, NoBudget
from ..requests import Named, Request
from ..update import Update, Updates
from .attached import Attached
from .classes import stage
from .data import CorrectedData
from .detached import Detached
from .entry import OnEntry, check_fitted
from .log import Log, Part, single, streamed
from .solver import check_solver, warn
from .state import How, Promise, State
from .stream import Granted, stream

FIRST, TOGETHER = 64, 4096  # requests in one native call: at first, and at most


class Fitted:
    """Both, and the request that takes them from one state to the next.

    Parameters
    ----------
    model : fitted linear model, of expunge or of scikit-learn
    engine : Attached or Detached
    """

    def __init__(self, model: Any, engine: Attached | Detached) -> None:
        self.model = model
        self.engine = engine
        self._names = parameters_of(model)
        read = attrgetter(*self._names)
        self._read = read if len(self._names) > 1 else lambda model: (read(model),)  # a tuple in any case
        self._parameters = tuple(map(copy, self._read(model)))  # on which the objective rests
        # What was written to the model: its theta, and `_fitted` of one of ours, which is replaced whole.
        self._published: tuple[Any, Float] = None, self._over_x(engine.state.theta)

    def _over_x(self, theta: Float, problem: Problem | None = None) -> Float:
        """Theta of a model from that of the engine, or of one of another problem."""
        engine = self.engine
        return (problem or engine.problem).moved(theta, engine.data.surviving_shift(), None)

    def write(
        self, residual: float | None, names: list[str] | None = None, theta: Float | None = None
    ) -> None:
        """Makes the model what the engine says; `names` of its columns, None to keep those that it has.

        `theta` is that of the model, where its last bits are known.
        """
        engine = self.engine
        theta = self._published[1] if theta is None else theta
        noise = engine.problem.noise and engine.problem.noise.of(engine.data.kept)
        set_theta(self.model, theta, residual, names=names, noise=noise)
        self._published = getattr(self.model, "_fitted", None), theta

    def check(self) -> None:
        """Raises if others changed the model; first undoes a request whose undoing was interrupted."""
        self.engine.data.rollback()
        if self._read(self.model) != self._parameters:
            self._refuse_parameters()
        published, theta = self._published
        if published is not None and getattr(self.model, "_fitted", None) is published:
            return
        if not np.array_equal(theta_of(self.model), theta):
            raise ValueError("the model was changed outside of this Unlearner: make a new one")

    def _refuse_parameters(self) -> NoReturn:
        known = zip(self._names, self._parameters, self._read(self.model), strict=True)
        changed = [(name, old, new) for name, old, new in known if old != new]
        told = ", ".join(f"{name} from {old!r} to {new!r}" for name, old, new in changed)
        back = ", ".join(f"{name}={old!r}" for name, old, _ in changed)
        raise ValueError(
            f"{told} was changed on the model since this Unlearner was made, and coef_ is of the old one: "
            f"model.set_params({back}) sets it back; or fit the model again and make a new Unlearner"
        )

    def apply(
        self, requests: Sequence[Request], how: How, budget: Budget | NoBudget, log: Log | None = None
    ) -> Update:
        """Data, statistics and model become those of the corrected data; where that fails, all stays.

        The log gets the update.
        """
        started, engine = perf_counter(), self.engine
        try:
            if log is None and len(requests) == 1 and how.method == "auto" and isinstance(budget, NoBudget):
                granted = stream(engine, requests)
                if granted is not None:
                    return self._granted(granted, started)
            then, staged = stage(engine, requests, how)
            state, outcome = then.choose(staged)
            state, problem, outcome = budget.within(then, staged, state, outcome)
            theta, before = state.theta, self._published[1]
            if engine.data.shift is not None:
                theta = self._over_x(theta, problem)
                left = before if then is engine else self._over_x(then.state.theta, problem)
                outcome = outcome._replace(step=theta - staged.left_of(left))
            record = self._record(staged.named, before, theta, problem)
            touched, revoked = staged.rows_touched, staged.features_revoked
            update = Update.from_outcome(outcome, touched, revoked, record, started)
            part = None if log is None else single(update, thetas=log.keeps_thetas)
            self._publish(state, theta, problem, revoked=revoked > 0, log=log, part=part, then=then)
        except BaseException:
            engine.data.rollback()
            raise
        self.engine.data.forget()
        return update

    def _record(self, named: list[Named], before: Float, after: Float, problem: Problem) -> tuple[Any, ...]:
        engine = self.engine
        described, was = problem.described, engine.problem.described
        return named, before, after, described, engine.promise, engine.attached, versions(), was

    def _granted(self, granted: Granted, started: float) -> Update:
        """The last act of a request that a step from the anchor proves."""
        engine, state, before = self.engine, granted.state, self._published[1]
        theta = state.theta if engine.data.shift is None else self._over_x(state.theta)
        record = self._record(granted.named, before, theta, engine.problem)
        (bound,), (distance,), (touched,) = granted.figures.tolist()
        since, difference = state.effort.requests, granted.difference.gradient
        update = Update.by_step(
            theta - before, difference, bound, distance, since, int(touched), record, started
        )
        self._publish(state, theta, engine.problem, revoked=False)
        engine.data.forget()
        return update

    def apply_each(
        self,
        requests: Sequence[Request],
        how: How,
        budget: Budget | NoBudget,
        thetas: bool,
        progress: Callable[[int, int], Any] | None,
    ) -> Updates:
        """The requests one after the other; one that is refused ends them, and those before it stand."""
        log, together = Log(keeps_thetas=thetas, promise=self.engine.promise, method=how.method), FIRST
        try:
            while (first := log.size) < len(requests):
                self.check()
                granted = None
                if how.method == "auto" and isinstance(budget, NoBudget):
                    granted = self._stream(requests[first : first + together], log)
                if granted is None:
                    self.apply([requests[first]], how, budget, log)
                together = min(2 * together, TOGETHER) if granted is not None else FIRST
                if progress is not None:
                    progress(log.size, len(requests))
                if granted is not None and granted.interrupt is not None:
                    raise granted.interrupt
            return log.updates()
        except Exception as error:
            raise StreamStopped(log.size, log.updates()) from error
        except KeyboardInterrupt as error:
            raise StreamInterrupted(log.size, log.updates()) from error

    def _stream(self, requests: Sequence[Request], log: Log) -> Granted | None:
        """Grants as many of these as a step from the anchor proves; the log gets them."""
        engine = self.engine
        try:
            granted = stream(engine, requests, keep_thetas=log.keeps_thetas)
            if granted is None:
                return None
            theta = self._over_x(granted.state.theta)
            thetas = [] if granted.thetas is None else [self._over_x(theta) for theta in granted.thetas]
            for each in thetas:
                each.setflags(write=False)
            record = self._record(granted.named, self._published[1], theta, engine.problem)
            part = streamed(granted, thetas, record)
            self._publish(granted.state, theta, engine.problem, revoked=False, log=log, part=part)
        except BaseException:
            engine.data.rollback()
            raise
        engine.data.forget()
        return granted

    def _publish(
        self,
        state: State,
        theta: Float,
        problem: Problem,
        *,
        revoked: bool,
        log: Log | None = None,
        part: Part | None = None,
        then: Attached | Detached | None = None,
    ) -> None:
        """The last act of a request; theta is the model's.

        `revoked`: whether the names of its columns may have changed. The log gets the part. `then`: the
        engine from here on.
        """
        engine, own, fewer = self.engine if then is None else then, None, None
        if engine is not self.engine:
            fewer = problem.classes
        names = self.names() if revoked else None
        if problem.noise is not None:  # dropped features drop their entries (E12)
            problem = problem.with_noise(problem.noise.without(~engine.data.kept))
            own = problem.noise and problem.noise.of(engine.data.kept)
        changes = fitted_attributes(self.model, theta, state.residual, names, own, fewer)
        _, name, value = changes[0]
        published = (value if name == "_fitted" else None), theta
        changes += (self, "_published", published), (engine, "state", state), *engine.data.committed()
        if problem is not engine.problem:
            changes.append((engine, "problem", problem))
        if engine is not self.engine:
            changes += self._without_class(engine)
        if log is not None and part is not None:
            changes += log.with_part(part)
        assign_all(changes)

    def _without_class(self, then: Attached | Detached) -> list[Change]:
        """What else changes as a class leaves: the engine, its weight, and names of its rows."""
        changes: list[Change] = [(self, "engine", then)]
        if then.problem.class_weights is not None and then.problem.balance is None:
            weights = as_parameter(then.problem.class_weights, then.problem.classes)
            read = zip(self._names, self._parameters, strict=True)
            known = tuple(weights if name == "class_weight" else value for name, value in read)
            changes += (self.model, "class_weight", weights), (self, "_parameters", known)
        old, names = self.engine.data, then.data.row_names
        if isinstance(old, CorrectedData) and isinstance(then.data, CorrectedData) and names is not None:
            live = old.register.live()
            left = live[then.data.register.of(live)[0] < 0]
            changes.append((names, "left", [*names.left, left]))
        return changes

    def rows(self) -> Attached:
        """The engine with its rows, or RowsRequired."""
        if isinstance(self.engine, Detached):
            raise RowsRequired(
                "this Unlearner is detached and holds no rows: attach(X, y) the current ones first"
            )
        return self.engine

    def current(self, *, rows: bool = False, ids: bool = False, as_frame: bool = False) -> tuple[Any, ...]:
        """Copies of the current rows, targets in the user's form; see :meth:`Unlearner.corrected_data`."""
        engine = self.rows()
        data, (X, y, _) = engine.data, engine.data.current()
        s = data.own_weights(data.register.live()) if data.weighted else None
        if as_frame:
            X = data.as_frame(X)
        more = [*([data.register.live()] if rows else []), *([data.ids()] if ids else [])]
        return X, engine.problem.decode(y), s, *more

    def names(self) -> list[str] | None:
        """Of the surviving columns, where the model has names."""
        return self.engine.data.surviving_names() if hasattr(self.model, "feature_names_in_") else None

    def fresh(self) -> Estimator:
        """An estimator of ours for the same objective, not fitted."""
        engine, most = self.engine, Ridge().max_iter
        if isinstance(self.model, ESTIMATORS):
            most = max(most, self.model.max_iter)
        return estimator_for(
            engine.problem,
            **engine.promise.of_fit,
            max_iter=most,
            solver=engine.solver,
            memory_limit=engine.memory_limit,
        )

    def given_away(self, theta: Float, certificate: Certificate) -> Estimator:
        """A model to release, with its certificate."""
        model, noise = self.fresh(), self.engine.problem.noise
        hidden = noise and replace(noise.lost(), draws=0)  # how many draws tells of requests
        set_theta(model, theta, None, names=self.names(), noise=hidden)
        model.certificate_ = certificate
        return model


def polished(
    model: Any,
    problem: Problem,
    promise: Promise,
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    column_index: bool,
    refit: bool,
    ids: Any,
    key: bytes | None,
) -> tuple[Attached, OnEntry]:
    """The engine of a fitted model and its data, and how far from their minimum the model came.

    The engine's theta meets the tolerance; the model is not written to. Unless to `refit` it was asked for,
    NotFittedToThisData where that is too far.
    """
    if key is not None:
        check_key(key)
    ours = isinstance(model, ESTIMATORS)
    solver = getattr(model, "solver", "auto") if ours else "auto"
    memory_limit = getattr(model, "memory_limit", None)
    check_solver(solver, memory_limit)
    theta = theta_of(model)
    if not np.isfinite(theta).all():
        raise ValueError("the model's coefficients contain NaN or infinity: refit it")
    if problem.outputs > 1 and problem.fit_intercept:  # a constant for all classes changes nothing (E28)
        theta = centred(theta, problem.outputs)
    names, width = getattr(model, "feature_names_in_", None), problem.split(theta)[0].shape[-1]
    data = rows_of(X, y, sample_weight, problem, width, names, column_index, ids, key)
    problem = replace(problem.weighing(data.weight), class_weights=data.class_weights)
    engine = Attached(problem, data, promise, solver, memory_limit)
    theta = problem.moved(theta, None, data.surviving_shift())
    on_entry = engine.begin_at(theta, None if refit else partial(check_fitted, model))
    if (chosen := chosen_on_data(model)) is not None:
        warn(
            f"{chosen} was chosen on the data, and stays whatever is forgotten, like the scores that the "
            "model keeps: choose by public data, or anew after requests",
            UserWarning,
        )
    return engine, on_entry
