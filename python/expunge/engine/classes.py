"""A class that leaves: its rows go, and the model loses its output (E28)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Float, Index
from ..errors import RowsRequired
from ..problem import Problem, outputs_of
from ..requests import Request, RevokeClass
from .attached import Attached
from .balance import reweigh
from .data import without_class
from .detached import Detached
from .state import Effort, GramBound, How, Staged, State


def stage(
    engine: Attached | Detached, requests: Sequence[Request], how: How
) -> tuple[Attached | Detached, Staged]:
    """The requests staged, and the engine to choose theta: another one where a class leaves."""
    leaving = [request for request in requests if isinstance(request, RevokeClass)]
    if not leaving:
        return engine, engine.stage(requests, how)
    if isinstance(engine, Detached):
        raise RowsRequired(
            "a class that leaves moves the probabilities of every row, and this Unlearner is detached: "
            "attach the current rows first"
        )
    if len(requests) > 1:
        raise ValueError("RevokeClass changes what labels mean: apply it by itself, before or after others")
    if how.hessian == "original":
        raise ValueError("the Hessian before has a class more: RevokeClass takes hessian='corrected'")
    return _staged(engine, leaving[0].label, how)


def _staged(engine: Attached, label: Any, how: How) -> tuple[Attached, Staged]:
    data = engine.data
    data.compact()
    k, rows = rows_of_class(engine, label)
    problem = _problem_without(engine.problem, k)
    then = Attached(problem, without_class(data, k), engine.promise, engine.solver, engine.memory_limit)
    if problem.balance is not None:
        reweigh(then)
    theta, objective = theta_without(engine.state.theta, k, engine.problem.n_classes), then.objective()
    at = objective.evaluate(theta)
    # Beside the state of no data that is noted here, all of J is new; statistics are to be anchored at once.
    effort = Effort(passes=objective.anchor_cost)
    nothing = _core.Evaluation(0.0, np.zeros_like(theta))
    then.state = State(theta, nothing, None, False, effort=effort)
    named: Any = {"kind": "RevokeClass", "rows": rows}
    none = np.empty(0, dtype=np.int64)
    difference = _core.Evaluation(at.value, at.gradient)
    edits = None, None, False  # of statistics and anchor: there are none
    kept = then.data.kept
    staged = (how, [named], rows.size, 0, slice(None), none, difference, *edits, kept, none, GramBound())
    return then, Staged(*staged, passes=1)


def rows_of_class(engine: Attached, label: Any) -> tuple[int, Index]:
    """The number of a class and its rows; ValueError where it cannot leave."""
    problem, data = engine.problem, engine.data
    if problem.classes is None:
        raise ValueError("the targets of this model are no classes: RevokeClass is for a LogisticRegression")
    k = int(problem.encode(label, 1)[0])
    if problem.n_classes == 2:
        raise ValueError(
            f"the model has the classes {problem.classes.tolist()} alone: without {label!r} there is "
            "nothing to tell apart"
        )
    live = data.register.live()
    return k, live[data.register.of(live)[1] == k]


def theta_without(theta: Float, k: int, classes: int) -> Float:
    """Where iterations begin: theta of the other classes, less their mean; of two the second less the first.

    At a minimum coefficients, and intercepts, add up to 0 over classes (E28).
    """
    rest = np.delete(theta.reshape(classes, -1), k, axis=0)
    if outputs_of(classes - 1) == 1:
        difference: Float = rest[1] - rest[0]
        return difference
    centred: Float = rest - rest.mean(axis=0)
    return centred.ravel()


def _problem_without(problem: Problem, k: int) -> Problem:
    def others(values: NDArray[Any] | None) -> Any:
        return None if values is None else np.delete(values, k)

    loss = "logistic" if outputs_of(problem.n_classes - 1) == 1 else problem.loss
    return replace(
        problem, loss=loss, classes=others(problem.classes), class_weights=others(problem.class_weights)
    )
