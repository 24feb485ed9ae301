"""The engine without rows: it keeps sums over them (E8), and requests bring their rows by value."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Self

import numpy as np

from .. import _core
from .._arrays import Float
from .._numbers import power_of_two_above
from ..errors import ConvergenceError, NotPositiveDefiniteError, RowsRequired, ToleranceExceeded
from ..problem import Problem
from ..requests import Request
from .by_value import DetachedData
from .state import Effort, GramBound, How, Outcome, Promise, Staged, State


class Detached:
    """A problem, what is known of its data without the rows, and statistics of the rows.

    Parameters
    ----------
    problem : Problem
    data : DetachedData
    state : State
        With statistics.
    promise : Promise
    solver, memory_limit : as in Attached, for rows that come back
    """

    attached = False

    def __init__(
        self,
        problem: Problem,
        data: DetachedData,
        state: State,
        promise: Promise,
        solver: str,
        memory_limit: float | None,
    ) -> None:
        self.problem = problem
        self.data = data
        self.state = state
        self.promise = promise
        self.solver = solver
        self.memory_limit = memory_limit

    @property
    def tolerance(self) -> float:
        """The profile residual that certificates rest on."""
        return self.promise.for_certificates(
            self.data.weighted_rows, self.problem.parameters(self.data.n_columns)
        )

    def stage(self, requests: Sequence[Request], how: How) -> Staged:
        """Edits the statistics. They are folded: no row stands in them by itself."""
        if how.method in ("exact", "first_order") or how.hessian == "original":
            what = "hessian='original'" if how.hessian == "original" else f"method={how.method!r}"
            raise RowsRequired(
                f"{what} reads the rows, and this Unlearner is detached: attach the current rows first, or "
                "use method='auto' or 'second_order'"
            )
        data, old = self.data, self.state
        columns = data.kept
        data.begin()
        named = [request.edit(data, self.problem.encode) for request in requests]
        before, after = data.finish()
        statistics, difference = old.statistics, None
        assert statistics is not None
        if before is not None:
            statistics, difference = statistics.edit(before, after, None, old.theta, True, data.stored_shift)
        survives = self.problem.survives(data.kept[data.stored])
        dropped = np.flatnonzero(~survives)
        if dropped.size and not self.problem.constant_hessian:
            raise RowsRequired(
                "a revoked feature moves the predictor of every row, and this Unlearner is detached: "
                "attach the current rows first"
            )
        return Staged(
            how,
            named,
            data.rows_touched,
            dropped.size,
            survives,
            dropped,
            difference,
            statistics,
            None,
            True,
            columns,
            dropped[:0],
            GramBound(),
        )

    def choose(self, staged: Staged) -> tuple[State, Outcome]:
        """Takes the step from the anchor (E9); for ``auto`` its bound (E10) must be within the tolerance."""
        old, method, statistics = self.state, staged.how.method, staged.statistics
        assert statistics is not None
        difference = self._gradient_difference(staged, statistics)
        if staged.dropped.size:
            statistics = statistics.drop(staged.dropped.tolist()).fold()
        theta, bound, distance = _step_from(statistics)
        if not (np.isfinite(theta).all() and isfinite(statistics.at.value)):
            raise ConvergenceError("the step leaves the range of floating point: scale the columns of X")
        if method == "auto" and not self.promise.is_kept(bound, distance):
            most, within = self.promise.limits
            if self.promise.within is not None:
                raise ToleranceExceeded(distance, within, "distance in standard errors")
            raise ToleranceExceeded(bound, most)
        if self.problem.needs_targets and not isfinite(distance):
            raise RowsRequired(
                "whether the targets that are left have a best intercept cannot be told without the rows: "
                "attach the current ones first"
            )
        effort = Effort(old.effort.requests + 1)
        hessian = "corrected" if method == "second_order" else None
        return State(theta, None, statistics.anchor, True, statistics, effort), Outcome(
            method,
            theta - staged.left_of(old.theta),
            difference,
            None,
            bound,
            0,
            False,
            effort.requests,
            distance,
            hessian,
        )

    def _gradient_difference(self, staged: Staged, statistics: _core.AnchoredStatistics) -> Float:
        """E3 at the old theta, over the surviving coordinates."""
        theta, dropped = self.state.theta, staged.dropped
        difference = np.zeros_like(theta) if staged.difference is None else staged.difference.gradient
        if not dropped.size:
            return difference
        return (difference - statistics.anchor.hessian[:, dropped] @ theta[dropped])[staged.survives]

    # --- for certificates

    def profile(self, state: State, bound: float, problem: Problem) -> float:
        """A bound of the profile residual (E10); `bound` is that of the whole gradient."""
        assert state.statistics is not None
        return bound * (state.statistics.tallies.largest_norm if problem.fit_intercept else 1.0)

    def kept_profile(self, profile: float, most: float) -> float:
        """The profile residual as the state keeps it: rounded up, without digits of the rows of a request."""
        return min(power_of_two_above(profile), most)

    def settle(self, staged: Staged) -> tuple[State, Outcome]:
        """Raises: iterations need rows."""
        raise RowsRequired("iterations read the rows, and this Unlearner is detached: attach them first")

    def retrained(self, staged: Staged, outcome: Outcome, problem: Problem) -> tuple[State, Outcome]:
        """Raises: training needs rows."""
        raise RowsRequired("training reads the rows, and this Unlearner is detached: attach them first")

    # --- for other engines and files

    def as_now(self) -> Self:
        """The engine itself: what its shift was chosen from is not there any more."""
        return self

    def statistics(self) -> _core.AnchoredStatistics:
        """The statistics, as sums alone.

        Where the Hessian does not depend on theta, their anchor moves to theta. Elsewhere it has to stay, and
        the gradient there shows the sum of what has left since.
        """
        statistics = self.state.statistics
        assert statistics is not None
        return statistics.move_to(self.state.theta) if self.problem.constant_hessian else statistics

    def keeps_statistics(self) -> bool:
        """True: there is nothing else."""
        return True

    def spent(self) -> float:
        """The bound of the profile residual that the state keeps."""
        return self.state.profile


def _step_from(statistics: _core.AnchoredStatistics) -> tuple[Float, float, float]:
    """The step E9 and its bounds; an error where rows that left cannot have been in the statistics."""
    try:
        return statistics.step()
    except NotPositiveDefiniteError:
        raise NotPositiveDefiniteError(
            "with this request the Hessian is not positive definite: check that the rows that leave were in "
            "the data, in these values, and that no value is too large beside the others for float64"
        ) from None
