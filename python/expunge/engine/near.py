"""How far theta is from the minimum in standard errors (E41), and iterations until it is near enough."""

from __future__ import annotations

from collections.abc import Callable
from math import hypot, inf, isfinite, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import _core
from .._arrays import Float, Index
from ..errors import ConvergenceError, NotPositiveDefiniteError
from ..problem import Problem
from .solver import DEFAULT_TOL, FIT_WITHIN, UNSEEN, check_converged, has_room, warn, warn_of_distance

if TYPE_CHECKING:
    from .attached import Attached, Start

SMALL = 1e-4  # standard errors: nobody asks how much less than that
SHARE = 0.1  # of what is promised: how far from the minimum the first statistics may be anchored
HALF = 0.5  # of what is wanted: where the last iteration is to end, if a direction tells how near that is
ALMOST = 0.9  # the same, where the penalty proves it
TIGHTER = 0.125  # by what the goal shrinks where that was not enough
ROUNDOFF = 2.0**-53
FIRST = 0.01  # of what a fit promises: bounds that know rows by their length alone are so much too long


class Found(NamedTuple):
    """The last of some minimisations, passes of all, and how far from the minimum it is, at most."""

    minimum: _core.Minimum
    passes: int
    distance: float


def distance_at(
    engine: Attached,
    objective: _core.Objective,
    theta: Float,
    at: _core.Evaluation,
    floor: float,
    anchor: _core.Anchor | None,
) -> float:
    """A bound of the distance from theta; `anchor`: a Hessian of the current data near theta, or None.

    `at` holds the curvature, and `floor` bounds the rounding error of its gradient.
    """
    norm = engine.data.largest_norm
    return _bound(objective, theta, at, floor, norm, anchor, min(SMALL, engine.promise.limits[1]))


def _bound(
    objective: _core.Objective,
    theta: Float,
    at: _core.Evaluation,
    floor: float,
    norm: float,
    anchor: _core.Anchor | None,
    enough: float,
) -> float:
    """The same, for rows of no larger norm; no sharper than is `enough`."""
    with np.errstate(over="ignore", invalid="ignore"):
        bound = objective.distance(theta, at, floor, norm)
        if bound > enough and anchor is not None and anchor.complete:  # sharper
            statistics = _core.AnchoredStatistics(objective, anchor, at, floor, norm)
            bound = min(bound, statistics.distance(theta, at, floor))
    return bound


def distance_now(engine: Attached) -> float:
    """The same, measured at the model's theta: with a factor of the whole Hessian, where one is kept.

    Else by the penalty alone, or where that bounds nothing, with a factor that memory has room for.
    """
    objective, theta, norm = engine.objective(), engine.state.theta, engine.data.largest_norm
    at, floor = objective.evaluate(theta), objective.rounding_floor(theta)
    written = _of_written_intercept(engine, at)
    with np.errstate(over="ignore", invalid="ignore"):
        if not engine.keeps_statistics():
            bound = objective.distance(theta, at, floor, norm, measured=True)
            if bound < inf or not has_room(engine.memory_limit, theta.size):
                return bound + written
        try:
            anchor = _core.Anchor(objective, theta, None, at)
            statistics = _core.AnchoredStatistics(objective, anchor, at, floor, norm)
            return statistics.measure_rows(objective).distance(theta, at, floor) + written
        except NotPositiveDefiniteError:  # no curvature is left, to rounding
            return objective.distance(theta, at, floor, norm, measured=True) + written


def _of_written_intercept(engine: Attached, at: _core.Evaluation) -> float:
    """By how much rounding may move the model's intercept, over x, from the engine's, over x - c (E43)."""
    shift, theta = engine.data.surviving_shift(), engine.state.theta
    if shift is None:
        return 0.0
    problem, weight = engine.problem, engine.data.weight
    coef, intercept = problem.split(theta)
    size = np.abs(intercept) + (shift.size + 3) * (np.abs(coef) @ np.abs(shift))
    steepest = problem.row_loss.max_d2
    curvature = steepest * weight if isfinite(steepest) else engine.objective().curvature(theta).sum()
    error = 2.0 * ROUNDOFF * hypot(*size) * sqrt(curvature)
    if not problem.constant_hessian:
        return error
    squares = 2.0 * at.value - problem.alpha * float(coef @ coef)
    return error * sqrt(weight / squares) if squares > 0.0 else inf


def standard_errors(engine: Attached, columns: Index | None) -> Float:
    """Roots of the diagonal of H^-1, times sigma for the squared loss; of all of theta, or of some columns.

    ValueError where that needs a whole factor which is not kept.
    """
    objective, theta, problem = engine.objective(), engine.state.theta, engine.problem
    at, d = objective.evaluate(theta), engine.data.n_columns
    wanted = _functionals(problem, d, engine.data.surviving_shift())
    if columns is not None:
        wanted = np.ascontiguousarray(wanted[:, problem.coordinates(columns, d)])
    if not engine.keeps_statistics():
        if columns is None or problem.constant_hessian:
            raise ValueError(
                f"all standard errors, and those of least squares, need a factor of {theta.size}^2 numbers, "
                "which this solver does not keep: name some columns of a logistic model, or use a model of "
                "solver='cholesky'"
            )
        return _by_class(problem, _by_products(engine, objective, at, wanted))
    if problem.outputs > 1:
        anchor = _core.Anchor(objective, theta, None, at)
        solved = np.column_stack([anchor.solve(np.ascontiguousarray(w)) for w in wanted.T])
        return _by_class(problem, np.sqrt(np.einsum("ij,ij->j", wanted, solved)))
    factor = _core.CholeskyFactor(objective.hessian(theta))
    errors: Float = np.sqrt(np.einsum("ij,ij->j", wanted, factor.solve(wanted)))
    if not problem.constant_hessian:
        return errors
    penalty = np.append(np.full(d, problem.alpha), np.zeros(theta.size - d))
    inverse = factor.solve(np.eye(theta.size))
    fitted = theta.size - float(penalty @ np.diag(inverse))  # effective parameters: tr(H^-1 G)
    squares, weight = 2.0 * at.value - float(penalty @ theta**2), engine.data.weight
    if not weight > fitted:
        raise ValueError(
            f"the weights add up to {weight:.3g}, no more than the {fitted:.3g} effective parameters: "
            "nothing is left to tell the spread of residuals. Strengthen alpha, or let weights count rows"
        )
    return errors * sqrt(max(0.0, squares)) / sqrt(weight - fitted)


def _functionals(problem: Problem, d: int, shift: Float | None) -> Float:
    """Columns (p, p) that take theta of the engine to that over x, intercepts of classes with a sum of 0."""
    wanted = np.eye(problem.parameters(d))
    if not problem.fit_intercept:
        return wanted
    last = problem.coordinates(np.array([d]), d)
    if shift is not None:
        for at in last:
            wanted[at - d : at, at] = -shift
    if problem.outputs > 1:
        wanted[:, last] -= wanted[:, last].mean(axis=1, keepdims=True)
    return wanted


def _by_class(problem: Problem, errors: Float) -> Float:
    """Of K classes (K, p), else as they are."""
    return errors.reshape(problem.outputs, -1) if problem.outputs > 1 else errors


def _by_products(engine: Attached, objective: _core.Objective, at: _core.Evaluation, wanted: Float) -> Float:
    theta = engine.state.theta
    anchor = engine.state.anchor or _core.Anchor(objective, theta, engine.block(objective, theta.size), at)
    curvature = objective.curvature(theta)
    solutions = [_core.solve(objective, curvature, e, anchor, 1e-10, 10_000)[0] for e in wanted.T.copy()]
    return np.array([sqrt(e @ x) for e, x in zip(wanted.T, solutions, strict=True)])


def minimum_near(engine: Attached, start: Start, *, move: bool, exact: bool) -> Found:
    """Iterations (E11) until theta keeps what the engine promises; `exact`: until rounding stops them."""
    within = engine.promise.within
    if within is None:
        minimum = engine.minimize(start, engine.promise.goal, move=move)
        distance = _distance(engine, start, minimum)
        check_converged(start.objective, minimum, engine.promise.goal, distance=distance)
        return Found(minimum, minimum.passes, distance)
    goal, passes = _floor(start) if exact else residual_within(engine, start, within), 0
    while True:
        minimum = engine.minimize(start, goal, move=move)
        passes += minimum.passes
        if not isfinite(minimum.residual) or minimum.residual > max(goal, minimum.floor):
            check_converged(start.objective, minimum, goal)
        distance = _distance(engine, start, minimum)
        if distance <= within:
            return Found(minimum, passes, distance)
        if goal == 0.0:
            if distance < inf or not _perfect(engine, minimum):
                warn_of_distance(distance, within)
            return Found(minimum, passes, distance)
        goal, move = TIGHTER * minimum.residual if minimum.residual > minimum.floor else 0.0, False
        current = minimum.anchor is not None and minimum.anchor is not start.anchor
        start = start._replace(
            theta=minimum.theta,
            at=minimum.at,
            anchor=minimum.anchor if current else start.anchor,
            hessian_is_current=current or start.hessian_is_current,
        )


def nearest(engine: Attached, start: Start, minimum: _core.Minimum, within: float) -> _core.Minimum:
    """The same, or what rounding leaves, where J at the start told too little of how near is near."""

    def away(found: _core.Minimum) -> float:
        return distance_at(engine, start.objective, found.theta, found.at, found.floor, found.anchor)

    if away(minimum) <= SHARE * within:
        return minimum
    minimum = engine.minimize(start._replace(theta=minimum.theta, at=minimum.at), 0.0)
    if (distance := away(minimum)) > within:
        warn_of_distance(distance, within)
    return minimum


def fit_near(
    objective: _core.Objective,
    minimize: Callable[[Float, float, int], _core.Minimum],
    theta: Float,
    within: float,
    per_error: float,
    max_iter: int,
) -> tuple[_core.Minimum, int]:
    """Minimises until theta is within so many standard errors; also returns how many iterations were made.

    `minimize` takes theta, a residual and the most iterations; `per_error` is a residual that leaves theta
    within one standard error, were residuals as large as targets. Where rounding stops iterations sooner, a
    warning says so: at the default only if that may hide what could be seen, which targets decide where a
    perfect fit has no standard errors.
    """
    goal, made = FIRST * within * per_error, 0
    while True:
        most = max(1, max_iter - made)
        minimum = minimize(theta, goal, most)
        made += minimum.iterations
        try:
            check_converged(objective, minimum, max(goal, minimum.floor), most)
        except ConvergenceError as error:
            warn(str(error))
            return minimum, made
        at = minimum.theta, minimum.at, minimum.floor, minimum.largest_norm
        distance = _bound(objective, *at, minimum.anchor, within)
        hidden = minimum.residual + minimum.floor
        perfect = objective.quadratic and hidden <= UNSEEN * per_error
        rounded = within == FIT_WITHIN and minimum.residual <= minimum.floor
        if distance <= within or (rounded and (distance <= UNSEEN or perfect)):
            return minimum, made
        if goal == 0.0:
            warn_of_distance(distance, within)
            return minimum, made
        goal = TIGHTER * minimum.residual if minimum.residual > minimum.floor else 0.0
        theta = minimum.theta


def _perfect(engine: Attached, minimum: _core.Minimum) -> bool:
    """Whether least squares leave no residuals to make standard errors of, and theta could not be nearer.

    What rounding may hide is then compared with what targets ask for, as in `fit_near`.
    """
    problem, register = engine.problem, engine.data.register
    if not problem.constant_hessian or not register.weighted_rows:
        return False
    _, targets, weights = register.of(register.live())
    per_error = sqrt(problem.alpha) * problem.spread(targets, weights)
    return minimum.residual + minimum.floor <= UNSEEN * per_error


def _distance(engine: Attached, start: Start, minimum: _core.Minimum) -> float:
    anchor = start.anchor if start.hessian_is_current else None
    if minimum.anchor is not None and minimum.anchor is not start.anchor:
        anchor = minimum.anchor
    return distance_at(engine, start.objective, minimum.theta, minimum.at, minimum.floor, anchor)


def _floor(start: Start) -> float:
    """What rounding hides in a residual, where statistics tell that; else a residual that nobody can see."""
    return DEFAULT_TOL if start.statistics is None else start.statistics.gradient_error


def residual_within(engine: Attached, start: Start, within: float) -> float:
    """A residual that is near enough: if gradients keep the direction of the first one, where H is known."""
    g, anchor = start.at.gradient, start.anchor
    scale = 1.0
    if start.objective.quadratic:
        scale = sqrt(max(0.0, 2.0 * start.at.value / engine.data.weighted_rows))
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = ALMOST * sqrt(engine.problem.alpha)  # of a gradient and its Newton decrement, at least
        known = start.hessian_is_current and anchor is not None and anchor.complete
        if known and anchor is not None and (decrement := float(g @ anchor.solve(g))) > 0.0:
            ratio = max(ratio, HALF * float(np.linalg.norm(g)) / sqrt(decrement))
    goal = within * scale * ratio
    return goal if 0.0 < goal < inf else DEFAULT_TOL
