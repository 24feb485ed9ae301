"""A penalty that moves with the rows: alpha times the sum of their weights, where a loss is a mean (E35)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from ..problem import Problem

if TYPE_CHECKING:
    from .attached import Attached

Edited = tuple[_core.Evaluation | None, _core.AnchoredStatistics | None, _core.Anchor | None, bool]


def penalised(
    engine: Attached,
    difference: _core.Evaluation | None,
    statistics: _core.AnchoredStatistics | None,
    anchor: _core.Anchor | None,
    current: bool,
) -> Edited:
    """The problem becomes that of the rows as they are now; and so does what their edit made.

    Lambda' - Lambda joins H_a, and times theta it joins gradients. A rollback restores the problem.
    """
    old, theta = engine.problem, engine.state.theta
    data = engine.data
    problem = old.weighing(data.weight if data.weighted else float(data.weighted_rows))
    data.undone_with(engine, "problem")
    engine.problem = problem
    penalty = problem.penalty(theta.size - problem.fit_intercept)
    pull = penalty * theta - old.penalty(theta.size - problem.fit_intercept) * theta
    if difference is not None:
        value = difference.value + 0.5 * float(theta @ pull)
        difference = _core.Evaluation(value, difference.gradient + pull)
    if statistics is None:  # an anchor without them is good enough to precondition
        return difference, None, anchor, current and not pull.any()
    statistics = statistics.penalise(penalty)
    return difference, statistics, statistics.anchor if current else anchor, current


def require_sums(problem: Problem) -> None:
    """ValueError where sums over rows do not tell enough to do without these."""
    if problem.has_kinks:
        raise ValueError(
            f"the curvature of {problem.kind} jumps where a margin is 1, and sums do not tell which rows are "
            "near: keep the rows, or fit LogisticRegression"
        )


def require_own_penalty(problem: Problem, what: str) -> None:
    """ValueError where the penalty moves with the rows, and something has to do without them."""
    if problem.per_weight is not None:
        raise ValueError(
            f"the penalty of this model moves with the weights of its rows, and it cannot be {what}: fit "
            f"{problem.kind}(alpha={problem.alpha:g}) of expunge, whose penalty is the same now and stays"
        )
