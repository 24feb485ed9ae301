"""Class weights that even classes out move with the rows, and with them what every row counts (E35)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..problem import Problem
from .penalty import Edited

if TYPE_CHECKING:
    from .attached import Attached


def balanced(engine: Attached, columns: NDArray[np.bool_]) -> Edited:
    """The problem and all weights become those of the rows as they are now; J over `columns` is all new.

    What was anchored is of other weights: it is good enough to precondition. A rollback restores all.
    """
    data, known = engine.data, engine.state.at
    data.undone_with(engine, "problem")
    data.undone_with(data, "class_weights")
    reweigh(engine)
    if known is None:
        return None, None, engine.state.anchor, False
    stored, blocks = data.stored_columns(columns), data.blocks()
    objective = engine.problem.objective(blocks, columns, stored=stored, shift=data.stored_shift)
    at = objective.evaluate(engine.state.theta)
    difference = _core.Evaluation(at.value - known.value, at.gradient - known.gradient)
    return difference, None, engine.state.anchor, False


def reweigh(engine: Attached) -> None:
    """Rows count what they do among those that are there."""
    data, old = engine.data, engine.problem
    rows = data.register.live()
    _, y, _ = data.register.of(rows)
    own = data.own_weights(rows)
    problem = old.balancing(y, own)
    assert problem.class_weights is not None
    engine.problem, data.class_weights = problem, problem.class_weights
    data.register.set_targets(rows, y, own * problem.class_weights[y.astype(int)])


def require_own_weights(problem: Problem, what: str) -> None:
    """ValueError where class weights move with the rows, and something has to do without them."""
    if problem.balance is not None:
        raise ValueError(
            f"class_weight='balanced' moves with the rows, without which this model cannot be {what}: keep "
            f"them, or fit with class_weight={{label: weight, ...}}, a dict of weights that stay"
        )
