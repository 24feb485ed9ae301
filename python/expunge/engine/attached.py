"""The engine with rows: a request edits them, and theta is then chosen for the corrected rows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import isfinite
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import _core
from .._arrays import Blocks, Float
from .._numbers import power_of_two_above
from ..errors import ConvergenceError, NotPositiveDefiniteError
from ..problem import Problem
from ..release import Budget, Measured, NoBudget, measure, norm_factor, profile_residual
from ..requests import Request, RevokeFeatures
from .balance import balanced, require_own_weights
from .by_value import DetachedData
from .columns import Touched
from .data import CorrectedData
from .detached import Detached
from .entry import Judge, OnEntry, check_belong, distance
from .methods import BY_NAME
from .near import distance_at, nearest, residual_within
from .original import hessian_here
from .penalty import penalised, require_own_penalty, require_sums
from .products import Products
from .shift import same_shift
from .solver import (
    MAX_ITER,
    check_converged,
    choose_block,
    in_low_dimension,
    serves_in_dual,
)
from .state import Effort, GramBound, How, Outcome, Promise, Staged, State, without_curvature
from .verified import verified

MOVED = 2.0**-5  # of a residual: what may be left where the tolerance was met before the first iteration
NEAR = 1e-8  # standard errors: where the statistics of a new Unlearner are anchored
SMALL = 256  # parameters up to which a factor is brought up to date with every request
_NONE = np.empty(0, dtype=np.int64)


class Start(NamedTuple):
    """Where a method begins: the objective of D', and what is known of it at some theta."""

    objective: _core.Objective
    theta: Float
    at: _core.Evaluation  # J there
    block: int | None  # how many coordinates of the Hessian are factored; None: all
    anchor: _core.Anchor | None
    hessian_is_current: bool
    statistics: _core.AnchoredStatistics | None
    gram: GramBound
    passes: int = 0  # made so far
    anew: bool = False  # whether the statistics were anchored anew on the way


class Attached:
    """A problem, its rows and the state that they are in.

    Parameters
    ----------
    problem : Problem
    data : CorrectedData
    promise : Promise
    solver : {"auto", "cholesky", "cg"}
    memory_limit : float or None
    """

    attached = True

    def __init__(
        self,
        problem: Problem,
        data: CorrectedData,
        promise: Promise,
        solver: str,
        memory_limit: float | None,
    ) -> None:
        self.problem = problem
        self.data = data
        self.promise = promise
        self.solver = solver
        self.memory_limit = memory_limit
        self.state: State  # set by `begin_at`, or by whoever knows it

    @classmethod
    def again(cls, engine: Detached, data: CorrectedData, problem: Problem) -> Self:
        """A detached engine with its rows given back; ValueError unless its statistics are of these rows."""
        attached = cls(problem, data, engine.promise, engine.solver, engine.memory_limit)
        statistics = engine.state.statistics
        assert statistics is not None
        check_belong(attached, engine.data.counts, statistics)
        data.changed = True  # rows that left had a part in the shift
        start = attached._start_anew(attached.objective(), engine.state.theta)
        here = attached.minimize(start, start.at.residual)  # H anew: the sums' holds rounding of what left
        state = attached._anchored_at(start.objective, here, start.block)
        attached.state = state._replace(theta=engine.state.theta, profile=engine.state.profile)
        return attached

    def begin_at(self, theta: Float, judge: Judge | None) -> OnEntry:
        """Iterates from theta to the tolerance and anchors statistics there; how far away theta was.

        `judge` may refuse theta for that, before anything else is said of the data.
        """
        objective = self.objective()
        start = self._start_anew(objective, theta)
        within, goal = self.promise.within, self.promise.goal
        if within is not None:
            goal = residual_within(self, start, NEAR)
        minimum = self.minimize(start, goal)
        if within is not None:
            minimum = nearest(self, start, minimum, within)
            goal = max(goal, minimum.floor)
        rows = self.data.register.weighted_rows
        entry = OnEntry(start.at.residual, distance(objective, theta, minimum, rows))
        if judge is not None and isfinite(minimum.residual):
            judge(objective, theta, entry)
        check_converged(objective, minimum, goal)
        self.state = self._anchored_at(objective, minimum, start.block)
        return entry

    def _start_anew(self, objective: _core.Objective, theta: Float) -> Start:
        block, at = self.block(objective, theta.size), objective.evaluate(theta)
        return Start(objective, theta, at, block, None, False, None, GramBound())

    def _anchored_at(self, objective: _core.Objective, minimum: _core.Minimum, block: int | None) -> State:
        anchor = _core.Anchor(objective, minimum.theta, block, minimum.at)
        statistics = None
        if block is None:
            statistics = self.statistics_at(objective, anchor, minimum.at, minimum.floor)
        return State(minimum.theta, without_curvature(minimum.at), anchor, True, statistics)

    @property
    def tolerance(self) -> float:
        """The profile residual that certificates rest on."""
        return self.promise.for_certificates(
            self.data.weighted_rows, self.problem.parameters(self.data.n_columns)
        )

    # --- objectives of the current data

    def objective(self, problem: Problem | None = None) -> _core.Objective:
        """E1 on the rows as they are now."""
        data = self.data
        return (problem or self.problem).objective(
            data.blocks(),
            data.kept,
            stored=data.stored_columns(data.kept),
            largest_norm=data.largest_norm,
            shift=data.stored_shift,
            ball=data.ball,
        )

    def _rows_alone(self, blocks: Blocks, columns: NDArray[np.bool_]) -> _core.Objective:
        """E1 on some rows, over a mask of all columns, without a penalty."""
        data = self.data
        stored = data.stored_columns(columns)
        return self.problem.objective(
            blocks, columns, stored=stored, penalised=False, noisy=False, shift=data.stored_shift
        )

    def block(self, objective: _core.Objective, p: int) -> int | None:
        """How many coordinates of the Hessian are factored for requests; None: all."""
        return (
            0
            if self._in_dual()
            else choose_block(self.solver, self.memory_limit, objective, p, requests=True)
        )

    def _in_dual(self) -> bool:
        """Whether requests are fits from 0 in the dual, and no factor of H is kept."""
        data, problem = self.data, self.problem
        if not problem.constant_hessian or data.is_sparse:
            return False
        n, p = data.register.weighted_rows, problem.parameters(data.n_columns)
        return serves_in_dual(self.solver, self.memory_limit, n, p)

    def _objective_in_one_piece(self) -> _core.Objective:
        """The same as `objective`, which has a dual: of a copy, where rows came or are too many."""
        data = self.data
        if not len(data.overlay_X) and data.X.shape[0] < data.n_columns:
            return self.objective()
        X, y, s = data.current()
        return self.problem.objective([(X, y, s)], data.kept, shift=data.surviving_shift())

    def minimize(self, start: Start, tolerance: float, *, move: bool = False) -> _core.Minimum:
        """Minimises (E11) until the residual is within the tolerance, or rounding stops it.

        `move`: theta may not stay where it is, even if the tolerance is met there.
        """
        objective, theta, at, block, anchor = start[:5]
        if move and at.residual <= tolerance:
            tolerance = MOVED * at.residual
        if self._in_dual() and not at.residual <= tolerance:
            whole, zero = self._objective_in_one_piece(), np.zeros_like(theta)
            minimum = _core.minimize(whole, zero, tolerance, MAX_ITER, block=block, dual=True)
        elif (
            block is not None and objective.rows < theta.size and not self.data.is_sparse
        ):  # as a fit: faster
            chosen = choose_block(self.solver, self.memory_limit, objective, theta.size)
            minimum = _core.minimize(objective, theta, tolerance, MAX_ITER, block=chosen)
        else:
            minimum = _core.minimize(objective, theta, tolerance, MAX_ITER, anchor, at, block)
        return minimum

    def statistics_at(
        self, objective: _core.Objective, anchor: _core.Anchor, at: _core.Evaluation, floor: float
    ) -> _core.AnchoredStatistics:
        """Of this H, of the data as they are now; bounds know rows by how long they are now."""
        if not self.problem.constant_hessian and self.data.measure_rows(objective):
            objective = self.objective()
        return _core.AnchoredStatistics(objective, anchor, at, floor, self.data.largest_norm)

    # --- a request is staged

    def stage(self, requests: Sequence[Request], how: How) -> Staged:
        """Edits the data; statistics and factor follow (E2, E3, E8)."""
        data = self.data
        data.compact()
        passes = self._measured_before(requests)
        original = hessian_here(self) if how.hessian == "original" else None
        data.begin()
        named = [request.edit(data, self.problem.encode) for request in requests]
        touched = data.finish()
        if touched.rows.any and self.problem.needs_targets:
            _, y, s = zip(*data.blocks(), strict=True)
            self.problem.check_enough(np.concatenate(y), np.concatenate(s))
        survives: NDArray[np.bool_] | slice = slice(None)
        dropped = revoked_rows = _NONE
        if touched.revoked:
            survives = self.problem.survives(data.kept[touched.columns])
            dropped = np.flatnonzero(~survives)
            revoked_rows = _union(touched.revoked_rows, data.n_rows)
            revoked_rows = revoked_rows[data.register.of(revoked_rows)[0] >= 0]
        gram = self.state.gram if self.state.gram.found is None else self._gram_after(touched)
        if touched.rows.any and self.problem.balance is not None:
            edited, gram, passes = balanced(self, touched.columns), GramBound(), passes + 1
        else:
            edited = self._edited(touched, how)
        if touched.rows.any and self.problem.per_weight is not None:
            edited = penalised(self, *edited)
        difference, statistics, anchor, current = edited
        return Staged(
            how,
            named,
            _rows_touched(data, touched),
            len(touched.revoked),
            survives,
            dropped,
            difference,
            statistics,
            anchor,
            current,
            touched.columns,
            revoked_rows,
            gram,
            original,
            passes,
        )

    def _measured_before(self, requests: Sequence[Request]) -> int:
        """Passes made for J with columns that are to be revoked, from which J without them is found."""
        if self.state.at is not None:
            return 0
        for request in requests:
            if isinstance(request, RevokeFeatures):
                at = self.objective().evaluate(self.state.theta)
                self.state = self.state._replace(at=without_curvature(at))
                return 1
        return 0

    def _edited(
        self, touched: Touched, how: How
    ) -> tuple[_core.Evaluation | None, _core.AnchoredStatistics | None, _core.Anchor | None, bool]:
        """E3 at the old theta; statistics and anchor of the corrected rows; whether it is their Hessian."""
        rows, register, state, problem = touched.rows, self.data.register, self.state, self.problem
        anchor, current, statistics = state.anchor, state.hessian_is_current, state.statistics
        if not rows.any:
            return None, statistics, anchor, current
        many = 4 * register.edited_rows > register.weighted_rows  # then H is better assembled anew
        if statistics is not None and not (many and not problem.constant_hessian):
            statistics, difference = rows.edit(statistics, state.theta)
            edited = statistics.anchor
            if edited.cancelled:  # to be assembled anew
                return difference, None, None, False
            if how.method in ("auto", "second_order") or edited.size <= SMALL or edited.factored:
                return difference, statistics, edited, True
            return difference, statistics, anchor, False  # an old large factor is good enough to precondition
        was, now = rows.objectives(problem.loss, problem.fit_intercept, problem.outputs)
        difference = _core.difference(was, now, state.theta)
        # A large factor is edited only for a step that uses it. Otherwise the old one preconditions.
        lag = anchor is not None and anchor.size > SMALL and not (how.method == "second_order" and current)
        if anchor is not None and not lag:
            anchor = None if many else anchor.edit(was, now)
        current = current and not lag and anchor is not None and anchor.complete
        if anchor is not None and anchor.complete and anchor.cancelled:
            return difference, None, None, False
        return difference, None, anchor, current

    def _gram_after(self, touched: Touched) -> GramBound:
        gram = self.state.gram
        if self.data.shift is not None:  # it is of x, and touched rows are x - c
            return GramBound()
        assert gram.found is not None
        added = gram.added + power_of_two_above(touched.rows.gained_norm(self.problem.fit_intercept))
        left = touched.rows.any_before or touched.revoked
        return GramBound(power_of_two_above(gram.found) if left else gram.found, added)

    # --- theta is chosen

    def choose(self, staged: Staged) -> tuple[State, Outcome]:
        """Chooses theta by the method of the request."""
        state, outcome = BY_NAME[staged.how.method](self, staged)
        if not (np.isfinite(state.theta).all() and (state.at is None or isfinite(state.at.value))):
            raise ConvergenceError("the step leaves the range of floating point: use method='exact'")
        if staged.passes:
            outcome = outcome._replace(passes=outcome.passes + staged.passes)
        return state, outcome

    def settle(self, staged: Staged) -> tuple[State, Outcome]:
        """Chooses theta by iterations, whatever the request asked for."""
        return BY_NAME["exact"](self, staged._replace(how=How("exact")))

    def start(self, staged: Staged) -> Start:
        """A start at the old theta without the coordinates that dropped (E12)."""
        theta, objective = staged.left_of(self.state.theta), self.objective()
        block = self.block(objective, theta.size)
        anchor, current, statistics = staged.anchor, staged.hessian_is_current, staged.statistics
        if staged.dropped.size:
            anchor = anchor and anchor.drop(staged.dropped.tolist())
            current, statistics = current and self.problem.constant_hessian, None
        if anchor is not None and not anchor.has_factor:  # rounding is left of it: to be assembled anew
            anchor, current, statistics = None, False, None
        at, passes = self._at_start(staged, objective, theta, block)
        return Start(objective, theta, at, block, anchor, current, statistics, staged.gram, passes)

    def start_at(self, step: Float | None, staged: Staged) -> Start:
        """A start at a step from the anchor, or without one, or if J is less there, at the anchor (E11)."""
        statistics, objective = staged.statistics, self.objective()
        assert statistics is not None
        anchor = statistics.anchor
        start = Start(objective, anchor.theta, statistics.at, None, anchor, True, statistics, staged.gram)
        if step is None:
            return start
        at = objective.evaluate(step)
        if at.value <= start.at.value:
            start = start._replace(theta=step, at=at)
        return start._replace(passes=1)

    def _at_start(
        self, staged: Staged, objective: _core.Objective, theta: Float, block: int | None
    ) -> tuple[_core.Evaluation, int]:
        """J and its gradient at the old theta without dropped coordinates (E12), and passes made.

        Rows that are 0 in all revoked columns contribute what they did. Where the other rows are few, only
        those are read.
        """
        data, old, known = self.data, self.state, self.state.at
        if known is not None and staged.difference is not None:
            change = staged.difference
            known = _core.Evaluation(known.value + change.value, known.gradient + change.gradient)
        if known is None:
            return objective.evaluate(theta), 1
        if not staged.dropped.size:
            return known, 0
        few = 4 * staged.revoked_rows.size <= data.register.weighted_rows
        if not (
            few
            and sparse.issparse(data.X)
            and data.shift is None
            and (block is None or in_low_dimension(objective, theta.size))
        ):
            return objective.evaluate(theta), 1
        rows: Blocks = [data.get(staged.revoked_rows)]
        before = self._rows_alone(rows, staged.columns).evaluate(old.theta)
        after = self._rows_alone(rows, data.kept).evaluate(theta)
        gone = old.theta[staged.dropped]
        pull = 0.5 * self.problem.alpha * gone + self.problem.noise_on(staged.columns)[staged.dropped]
        value = known.value + after.value - before.value - float(gone @ pull)
        others = (known.gradient - before.gradient)[staged.survives]
        return _core.Evaluation(value, others + after.gradient), 0

    def gradient_difference(self, staged: Staged, at: _core.Evaluation) -> Float:
        """E3 at the old theta, over the surviving coordinates; `at` is J there, without the dropped ones."""
        if staged.dropped.size:
            assert self.state.at is not None
            return at.gradient - self.state.at.gradient[staged.survives]
        return np.zeros_like(self.state.theta) if staged.difference is None else staged.difference.gradient

    # --- Hessians

    def is_hessian_at(self, theta: Float, anchor: _core.Anchor) -> bool:
        """Whether the anchor's Hessian is the one at theta."""
        return self.problem.constant_hessian or np.array_equal(anchor.theta, theta)

    def products(self, objective: _core.Objective, curvature: Float, anchor: _core.Anchor) -> Products:
        """A Hessian that is not factored as a whole."""
        return Products(objective, curvature, anchor, self.tolerance, exact=self.problem.constant_hessian)

    def anchored(
        self, state: State, objective: _core.Objective, at: _core.Evaluation, floor: float
    ) -> tuple[State, int]:
        """The state with statistics anchored at theta, once passes spent or saved would have paid for them.

        Also returns the passes made: one if a Hessian was assembled.
        """
        anchor, made = state.anchor, 0
        if self.problem.constant_hessian:
            if anchor is None or not state.hessian_is_current:
                return state, 0
            if state.statistics is not None:
                return _measured(state, state.theta, at, floor), 0
            anchor = anchor.move_to(state.theta)
        elif state.effort.passes + state.effort.saved < objective.anchor_cost:
            return state, 0
        else:
            anchor, made = _core.Anchor(objective, state.theta, None, at), 1
        state = state._replace(anchor=anchor, hessian_is_current=True, effort=Effort())
        return state._replace(statistics=self.statistics_at(objective, anchor, at, floor)), made

    # --- for certificates

    def profile(self, state: State, bound: float, problem: Problem) -> float:
        """A bound of the profile residual (E10), rounding included; `bound` is that of the whole gradient."""
        norm = self.data.largest_norm
        factor = norm_factor(norm, problem.fit_intercept, problem.outputs)
        if state.at is None:
            return factor * bound
        floor = self.objective(problem).rounding_floor(state.theta)
        at = state.at.gradient, norm, problem.fit_intercept, problem.outputs
        return profile_residual(*at) + factor * floor

    def retrained(self, staged: Staged, outcome: Outcome, problem: Problem) -> tuple[State, Outcome]:
        """Trains from 0 with the noise of this problem; the result replaces `outcome`."""
        objective = self.objective(problem)
        start = self._start_anew(objective, np.zeros(problem.parameters(self.data.n_columns)))
        minimum = self.minimize(start, self.promise.goal)
        check_converged(objective, minimum, self.promise.goal)
        state = self._anchored_at(objective, minimum, start.block)._replace(gram=staged.gram)
        return state, outcome._replace(
            step=state.theta - staged.left_of(self.state.theta),
            residual=minimum.at.residual,
            residual_bound=minimum.at.residual,
            passes=minimum.passes + 2,
            settled=True,
            since_anchor=0,
            distance=distance_at(self, objective, minimum.theta, minimum.at, minimum.floor, state.anchor),
        )

    def kept_profile(self, profile: float, most: float) -> float:
        """The profile residual as the state keeps it."""
        return profile

    def measured(self, theta: Float, shift: Float | None = None) -> Measured:
        """The profile residual at theta over x - shift, and its floor: functions of it and of D' alone."""
        now = self.current_shift()
        theta = self.problem.moved(theta, shift, now)
        return measure(self.data.panels(), theta, self.problem, self.data.kept, now)

    def current_shift(self) -> Float | None:
        """What would be taken off the columns, were it chosen from the data of now."""
        return self.data.current_shift() if self.problem.free_intercept else None

    def verify(self, limit: float, *, by_distance: bool) -> Measured:
        """Parameters that a release may rest on; see :func:`verified`."""
        return verified(self, limit, by_distance=by_distance)

    # --- for other engines and files

    def detached(self, budget: Budget | NoBudget) -> Detached:
        """The engine without the rows."""
        require_own_penalty(self.problem, "detached")
        require_own_weights(self.problem, "detached")
        require_sums(self.problem)
        now = self.as_now()
        if now is not self:
            return now.detached(budget)
        statistics, data, state = self.statistics(), self.data, self.state
        left = DetachedData(
            data.kept,
            data.names,
            data.counts,
            dtype=data.dtype,
            is_sparse=data.is_sparse,
            classes=data.classes,
            weighted=data.weighted,
            class_weights=data.class_weights,
            shift=data.shift,
        )
        profile = np.inf if (told := budget.told(self)) is None else told.spent
        state = State(state.theta, state.at, statistics.anchor, True, statistics, profile=profile)
        return Detached(self.problem, left, state, self.promise, self.solver, self.memory_limit)

    def as_now(self) -> Self:
        """The same, its shift chosen from the data as they are now: what has left had a part in the other."""
        data = self.data
        now = self.current_shift() if data.changed else data.surviving_shift()
        if same_shift(now, data.surviving_shift()):
            return self
        here = copy(self)
        here.data = data.less(now)
        theta = self.problem.moved(self.state.theta, data.surviving_shift(), now)
        here.state = State(theta, None, None, False, profile=self.state.profile)
        return here

    def statistics(self) -> _core.AnchoredStatistics:
        """Statistics of the current data, as sums alone, without a trace of rows that have left.

        They are computed at theta. Older ones would tell of rows that left, in their bounds and anchor.
        """
        theta, statistics, data = self.state.theta, self.state.statistics, self.data
        known = statistics is not None and np.array_equal(statistics.anchor.theta, theta)
        if statistics is None or not known or data.changed:
            statistics = self._found_anew()
        if statistics.anchor.factored_from_rows:
            raise NotPositiveDefiniteError(
                "sums over these rows lose digits that the model needs: a row or column is too large beside "
                "the others for float64. Correct or scale it, or keep the rows"
            )
        return statistics.round_up()

    def _found_anew(self) -> _core.AnchoredStatistics:
        theta, data, objective = self.state.theta, self.data, self.objective()
        if choose_block(self.solver, self.memory_limit, objective, theta.size, requests=True) is not None:
            raise ValueError(
                "without rows the whole Hessian is needed, which solver='cg' does not keep: use a model of "
                "solver='cholesky' (memory_limit says how large it may be), or keep the rows"
            )
        at = objective.evaluate(theta)
        anchor = _core.Anchor(objective, theta, None, at)
        floor = objective.rounding_floor(theta)
        norm = data.current_norm(data.surviving_shift())
        return _core.AnchoredStatistics(objective, anchor, at, floor, norm)

    def keeps_statistics(self) -> bool:
        """Whether the whole Hessian is factored."""
        return self.block(self.objective(), self.state.theta.size) is None

    def spent(self) -> float:
        """A bound of the profile residual on the current data."""
        return self.measured(self.state.theta, self.data.surviving_shift()).bound


def _measured(state: State, theta: Float, at: _core.Evaluation, floor: float) -> State:
    """With statistics that take J and its gradient at theta as measured, where that tells more than sums do.

    What requests have rounded adds up, until no step is proven any more. H stays: it need not be measured.
    """
    statistics = state.statistics
    assert statistics is not None
    if not floor < statistics.gradient_error:
        return state
    statistics = statistics.measure(theta, at, floor)
    return state._replace(anchor=statistics.anchor, statistics=statistics, effort=Effort())


def _rows_touched(data: CorrectedData, touched: Touched) -> int:
    register = data.register
    if not touched.revoked:
        return register.edited_rows
    return _union([register.touched(), *touched.revoked_rows], register.row_count).size


def _union(rows: list[NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    """Row numbers below n that are in some of these lists, ascending."""
    found = np.zeros(n, dtype=bool)
    for some in rows:
        found[some] = True
    return np.flatnonzero(found)
