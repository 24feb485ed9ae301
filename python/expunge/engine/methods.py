"""The four methods that choose theta for the corrected data, each as its equation says."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._arrays import Blocks, Float
from ..errors import NotPositiveDefiniteError
from ..release import norm_factor
from ..updates import first_order_update, gram_norm_bound, local_tau, safe_tau, second_order_update
from .chord import by_chords, start_after
from .near import distance_at, minimum_near
from .original import original_hessian
from .products import Products
from .state import Effort, GramBound, Outcome, Staged, State, without_curvature

if TYPE_CHECKING:
    from .attached import Attached, Start


def auto(engine: Attached, staged: Staged) -> tuple[State, Outcome]:
    """One step from the anchor (E9) while its bound (E10, E26) keeps the promise; else :func:`_by_chords`.

    Its steps begin at that step, or at the old theta if iterations had found that since the anchor.
    """
    step, old = _step(engine, staged), engine.state
    if step is not None and engine.promise.is_kept(step[1], step[2]):
        return _by_step(engine, staged, *step)
    farther = old.at is not None and old.effort.passes > 0
    rounding = 0.0 if staged.statistics is None else staged.statistics.gradient_error
    alone = engine.problem.constant_hessian or engine.problem.has_kinks  # chords prove nothing
    if step is None or alone or engine.promise.is_below(rounding):
        return _settled(engine, staged, None if farther or step is None else engine.start_at(step[0], staged))
    return _by_chords(engine, staged, None if farther else step[0])


def exact(engine: Attached, staged: Staged) -> tuple[State, Outcome]:
    """Iterations to the tolerance (E11, E13), from the old theta if J is known there."""
    step = _step(engine, staged) if engine.state.at is None else None
    return _settled(engine, staged, None if step is None else engine.start_at(step[0], staged))


def second_order(engine: Attached, staged: Staged) -> tuple[State, Outcome]:
    """``theta - H^-1 g`` (E5), H of the corrected data or of those before."""
    start = engine.start(staged)
    if staged.original is not None:
        return _by_original_hessian(engine, staged, start)
    anchor = start.anchor
    if anchor is None or (
        anchor.complete and not (start.hessian_is_current and engine.is_hessian_at(start.theta, anchor))
    ):
        anchor = _core.Anchor(start.objective, start.theta, start.block)
        start = start._replace(anchor=anchor, hessian_is_current=True, passes=start.passes + 1)
    H: _core.Anchor | Products = anchor
    if not anchor.complete:
        H = engine.products(start.objective, start.objective.curvature(start.theta), anchor)
    theta = second_order_update(start.theta, start.at.gradient, H)
    start = start._replace(passes=start.passes + (H.passes if isinstance(H, Products) else 0))
    return _by_update(engine, staged, start, theta, hessian="corrected")


def first_order(engine: Attached, staged: Staged) -> tuple[State, Outcome]:
    """``theta - tau g`` (E4)."""
    start, tau, gram = engine.start(staged), staged.how.tau, staged.gram
    shift, g = engine.data.surviving_shift(), start.at.gradient
    over_x = g if shift is None else engine.problem.gradient_over_x(g, shift)
    if tau is None and not isfinite(engine.problem.row_loss.max_d2):
        tau = _local_tau(engine, start, float(np.linalg.norm(over_x)))
        start = start._replace(passes=start.passes + 2)
    elif tau is None:
        if gram.found is None or gram.added > gram.found:
            gram = GramBound(_gram_norm(engine, start.block))
            start = start._replace(gram=gram, passes=start.passes + 1)
        tau = safe_tau(gram.total, engine.problem.penalty(1), engine.problem.row_loss)
    if shift is None:
        theta = first_order_update(start.theta, g, tau)
    else:  # it depends on where columns have their zero: as they came
        step = first_order_update(np.zeros_like(g), over_x, tau)
        theta = start.theta + engine.problem.moved(step, None, shift)
    return _by_update(engine, staged, start, theta, tau=tau)


BY_NAME: dict[str, Callable[[Attached, Staged], tuple[State, Outcome]]] = {
    "auto": auto,
    "exact": exact,
    "second_order": second_order,
    "first_order": first_order,
}


def _gram_norm(engine: Attached, block: int | None) -> float:
    """Upper bound of |S^1/2 X|^2 on the corrected data, X as it is, extended by 1 with an intercept."""
    data, kept = engine.data, engine.data.kept
    stored = data.stored_columns(kept)
    squared = engine.problem.objective(
        data.blocks(), kept, stored=stored, loss="squared", penalised=False, noisy=False
    )
    if block is not None:
        return squared.gram_norm_bound()
    return gram_norm_bound(squared.hessian(np.zeros(data.n_columns + engine.problem.fit_intercept)))


def _local_tau(engine: Attached, start: Start, residual: float) -> float:
    """The safe step of E34, over X as it is; `residual`: of its gradient."""
    data, problem = engine.data, engine.problem
    blocks = data.blocks()
    ends = np.cumsum([X.shape[0] for X, _, _ in blocks])[:-1]
    curvature = np.split(start.objective.curvature(start.theta), ends)
    of_rows: Blocks = [(X, y, w.copy()) for (X, y, _), w in zip(blocks, curvature, strict=True)]
    squared = problem.objective(
        of_rows,
        data.kept,
        stored=data.stored_columns(data.kept),
        loss="squared",
        penalised=False,
        noisy=False,
    )
    longest = data.largest_norm
    if data.shift is not None:
        longest = max(_core.largest_norm(X) for X, _, _ in data.panels())
    reach = problem.row_loss.remainder * norm_factor(longest, problem.fit_intercept) * residual
    return local_tau(squared.gram_norm_bound(), problem.alpha, reach)


def _step(engine: Attached, staged: Staged) -> tuple[Float, float, float] | None:
    """The step E9 and its bounds E10 and E41; None where there are no statistics, or H cannot be factored."""
    if staged.statistics is None or staged.dropped.size:
        return None
    try:
        return staged.statistics.step(engine.promise.limits[1])
    except NotPositiveDefiniteError:
        return None


def _by_step(
    engine: Attached, staged: Staged, theta: Float, bound: float, distance: float
) -> tuple[State, Outcome]:
    """No row was read: the bounds vouch."""
    old, statistics, effort = engine.state, staged.statistics, engine.state.effort
    assert statistics is not None
    effort = effort.after_steps(1)
    anchor = staged.anchor if staged.hessian_is_current else statistics.anchor
    state = State(theta, None, anchor, True, statistics, effort, staged.gram)
    difference = np.zeros_like(theta) if staged.difference is None else staged.difference.gradient
    return state, Outcome(
        staged.how.method, theta - old.theta, difference, None, bound, 0, False, effort.requests, distance
    )


def _by_chords(engine: Attached, staged: Staged, theta: Float | None) -> tuple[State, Outcome]:
    """Chord steps (E26), the first of them to theta, or from the old one; where they are slow, iterations."""
    statistics = staged.statistics
    assert statistics is not None
    if theta is not None:
        start = engine.start_at(None, staged)
    else:
        start = engine.start(staged)
        theta = start.theta - statistics.anchor.solve(start.at.gradient)
    chords = by_chords(engine, start, theta)
    if chords.step is None:
        return _settled(engine, staged, start_after(chords, start))
    statistics, (theta, bound, distance) = chords.statistics, chords.step
    state = State(theta, None, statistics.anchor, True, statistics, chords.effort, staged.gram)
    difference = np.zeros_like(theta) if staged.difference is None else staged.difference.gradient
    return state, Outcome(
        staged.how.method,
        theta - engine.state.theta,
        difference,
        None,
        bound,
        start.passes + chords.passes,
        True,
        chords.effort.requests,
        distance,
    )


def _settled(engine: Attached, staged: Staged, start: Start | None) -> tuple[State, Outcome]:
    """Iterations (E11), from `start` or from the old theta without dropped coordinates."""
    moved = start is not None and not np.array_equal(start.theta, engine.state.theta)
    start = start or engine.start(staged)
    # Theta must move. If a row left whose gradient is below the tolerance, and theta stayed, the gradient at
    # theta would be minus that of the row: a multiple of the row.
    changed = staged.difference is not None and bool(staged.difference.gradient.any())
    exact = staged.how.method == "exact"
    minimum, passes, distance = minimum_near(engine, start, move=changed and not moved, exact=exact)
    at = start.at
    start = start._replace(passes=start.passes + passes)
    if minimum.anchor is not None and minimum.anchor is not start.anchor:
        statistics = start.statistics if engine.problem.constant_hessian else None
        start = start._replace(anchor=minimum.anchor, hessian_is_current=True, statistics=statistics)
    state = _state(engine, staged, start, minimum.theta, minimum.at)
    made = 0
    if start.block is None:
        state, made = engine.anchored(state, start.objective, minimum.at, minimum.floor)
    return state, Outcome(
        staged.how.method,
        state.theta - staged.left_of(engine.state.theta),
        engine.gradient_difference(staged, at),
        minimum.at.residual,
        minimum.at.residual,
        start.passes + made,
        minimum.iterations > 0,
        state.effort.requests,
        distance,
    )


def _by_original_hessian(engine: Attached, staged: Staged, start: Start) -> tuple[State, Outcome]:
    """E5 with H of the data before the request, over all old coordinates; revoked ones drop afterwards."""
    old = engine.state
    g = np.zeros_like(old.theta)
    g[staged.survives] = start.at.gradient
    pull = engine.problem.alpha * old.theta + engine.problem.noise_on(staged.columns)
    g[staged.dropped] = pull[staged.dropped]  # their data are gone (E12)
    H = original_hessian(engine, staged)
    theta = second_order_update(old.theta, g, H)[staged.survives]
    made = H.passes if isinstance(H, Products) else int(H is not old.anchor)
    start = start._replace(passes=start.passes + made)
    return _by_update(engine, staged, start, theta, hessian="original")


def _by_update(
    engine: Attached,
    staged: Staged,
    start: Start,
    theta: Float,
    *,
    hessian: str | None = None,
    tau: float | None = None,
) -> tuple[State, Outcome]:
    """The outcome of a closed-form update: its residual is measured."""
    at = start.objective.evaluate(theta)
    current = start.anchor if start.hessian_is_current else None
    distance = distance_at(engine, start.objective, theta, at, at.floor, current)
    start = start._replace(passes=start.passes + 1)
    state = _state(engine, staged, start, theta, at)
    return state, Outcome(
        staged.how.method,
        theta - start.theta,
        engine.gradient_difference(staged, start.at),
        at.residual,
        at.residual,
        start.passes,
        False,
        state.effort.requests,
        distance,
        hessian,
        tau,
    )


def _state(engine: Attached, staged: Staged, start: Start, theta: Float, at: _core.Evaluation) -> State:
    """The state after a method that read the data and knows J at theta."""
    effort = engine.state.effort
    requests = effort.requests + 1 if start.statistics is not None else 0
    spent = 0 if staged.dropped.size else start.passes  # new statistics would not have spared a revocation's
    effort = Effort() if start.anew else Effort(requests, effort.passes + spent, effort.saved)
    return State(
        theta,
        without_curvature(at),
        start.anchor,
        start.hessian_is_current,
        start.statistics,
        effort,
        start.gram,
    )
