"""Parameters that a release may rest on: how far they are from the minimum is verified (E10, E19, E24)."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._arrays import Float
from ..errors import NotPositiveDefiniteError
from ..release import Measured, norm_factor
from .shift import same_shift
from .solver import MAX_ITER

if TYPE_CHECKING:
    from .attached import Attached

WORTH = 1e3  # of the limit: how large a residual may be for a look at the distance, 20 to 200 times below it


def verified(engine: Attached, limit: float, *, by_distance: bool) -> Measured:
    """The model's parameters, or better ones, with a profile residual within the limit if that can be.

    `by_distance`: it is enough if their distance from the minimum, times alpha, is within it (E24).

    Iterations go on from where theta is. Where that does not suffice they start from 0 on a copy of the
    current rows: neither knows anything of the past.
    """
    data, shift, now = engine.data, engine.data.surviving_shift(), engine.current_shift()
    found = engine.measured(engine.state.theta, shift)
    if by_distance and limit < found.bound <= WORTH * limit:
        found = replace(found, distance=_distance(engine))
    if not found.bound <= limit and same_shift(shift, now):
        found = _settled(engine, engine.objective(), found.theta, engine.state.anchor, found, limit)
    if not found.bound <= limit:
        X, y, s = data.current()
        fresh = engine.problem.objective([(X, y, s)], data.kept, shift=now)
        found = _settled(engine, fresh, np.zeros_like(found.theta), None, found, limit)
    return found


def _distance(engine: Attached) -> float:
    """Alpha times how far the coefficients are from the minimum's, at most (E24).

    By a Hessian of the rows as they are: sums that were kept, or came from a file, are not verified.
    """
    objective, theta = engine.objective(), engine.state.theta
    if not engine.keeps_statistics():
        return inf
    at = objective.evaluate(theta)
    try:
        anchor = _core.Anchor(objective, theta, None, at)
        sums = _core.AnchoredStatistics(objective, anchor, at, at.floor, engine.data.largest_norm)
        return sums.coefficient_distance_at(theta, at, at.floor)
    except NotPositiveDefiniteError:
        return inf


def _settled(
    engine: Attached,
    objective: _core.Objective,
    theta: Float,
    anchor: _core.Anchor | None,
    found: Measured,
    limit: float,
) -> Measured:
    """What iterations lead to, or what was found before if that is better."""
    factor = norm_factor(found.largest_norm, engine.problem.fit_intercept, engine.problem.outputs)
    goal = max(0.0, limit - found.floor) / (2.0 * factor)
    block = engine.block(objective, theta.size)
    try:
        theta = _core.minimize(objective, theta, goal, MAX_ITER, anchor, None, block, True).theta
    except NotPositiveDefiniteError:
        return found
    return min(engine.measured(theta, engine.current_shift()), found, key=lambda at: at.bound)
