"""A settle by chord steps (E26): one pass each, and the last one is kept by its bound."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from .._arrays import Float
from ..errors import NotPositiveDefiniteError
from .state import Effort

if TYPE_CHECKING:
    from .attached import Attached, Start

SLOW = 0.5  # what a step may leave of the one before, by its bound
MORE = 2.5  # passes that may be expected still, after the second one
MOST_ROUNDING = 0.25  # of the tolerance: where a floor is more, it is found at each new anchor
RECENT = 0.5  # the weight of this settle in what requests take


class Chords(NamedTuple):
    """Where steps have come to, one pass after the other."""

    theta: Float  # of the last pass
    at: _core.Evaluation  # J there, with the curvature
    statistics: _core.AnchoredStatistics  # of the current data
    passes: int
    anew: bool  # whether these were anchored anew
    step: tuple[Float, float, float] | None = None  # the next one, if its bounds keep the promise
    effort: Effort = Effort()


def by_chords(engine: Attached, start: Start, theta: Float) -> Chords:
    """Steps, the first of them to theta, until bounds prove that the next one keeps the promise.

    Or until they are slow.
    """
    objective, statistics, effort = start.objective, start.statistics, engine.state.effort
    assert statistics is not None
    passes, anew, last = 0, False, None
    while True:
        statistics, at = statistics.measure_beside(objective, theta)
        passes += 1
        here = Chords(theta, at, statistics, passes, anew)
        if not at.value <= start.at.value or (statistics.second is None and not anew):
            return here
        rate = _passes_of_a_request(effort, passes)
        if not anew and _pays(effort, passes, rate, objective.anchor_cost):
            try:
                anchor = _core.Anchor(objective, theta, None, at)
                floor = at.floor
                if floor > MOST_ROUNDING * engine.promise.limits[0]:
                    floor, passes = objective.rounding_floor(theta), passes + 1
                statistics = engine.statistics_at(objective, anchor, at, floor)
                statistics.factor()
            except NotPositiveDefiniteError:
                return here
            passes, anew = passes + 1, True
        step = statistics.step(engine.promise.limits[1])
        here = here._replace(statistics=statistics, passes=passes, anew=anew)
        if engine.promise.is_kept(*step[1:]):
            spent = Effort(effort.requests + 1, effort.passes + passes, effort.saved, 0, rate)
            return here._replace(step=step, effort=Effort() if anew else spent)
        now = _progress(engine, here, step[1], step[2])
        if not _go_on(now, last):
            return here
        theta, last = step[0], now


def start_after(chords: Chords, start: Start) -> Start:
    """A start of iterations where chord steps ended, or where they began if J is less there (E11)."""
    theta, at, statistics = chords.theta, chords.at, chords.statistics
    if not at.value <= start.at.value:
        theta, at = start.theta, start.at
    return start._replace(
        theta=theta,
        at=at,
        anchor=statistics.anchor,
        statistics=statistics,
        passes=start.passes + chords.passes,
        anew=chords.anew,
    )


def _passes_of_a_request(effort: Effort, passes: int) -> float:
    """Passes of late, if this settle serves as many requests as the last one did."""
    now = passes / (effort.served + 1)
    return now if effort.rate == 0.0 else (1.0 - RECENT) * effort.rate + RECENT * now


def _pays(effort: Effort, passes: int, rate: float, cost: float) -> bool:
    """Whether requests take more passes by now than on average since H was assembled, its cost counted.

    The average is least if H is assembled anew when that begins.
    """
    return rate * (effort.requests + 1) > cost + effort.passes + passes


class _Progress(NamedTuple):
    """What a step leaves."""

    residual: float  # measured before it
    ratio: float  # what it leaves of that, at most; 0: unknown
    left: float  # how much longer than promised the bounds are after it


def _progress(engine: Attached, chords: Chords, bound: float, distance: float) -> _Progress:
    most, within = engine.promise.limits
    residual, second = chords.at.residual, chords.statistics.second
    ratio = left = 0.0
    if most < inf:
        left = bound / most if most > 0.0 else inf
        ratio = bound / residual if residual > most else inf  # it keeps the promise as it was measured
    if within < inf:
        left = max(left, distance / within)
        ratio = max(ratio, 0.0 if second is None else second[1])
    return _Progress(residual, ratio, left)


def _go_on(now: _Progress, last: _Progress | None) -> bool:
    """Whether chord steps will do: a few more, if bounds and residuals go on as they did."""
    if not (now.left < inf and now.ratio < SLOW):
        return False
    if last is None:
        return True
    share = min(now.ratio, now.residual / last.residual)
    return now.left < SLOW * last.left and now.left * share**MORE <= 1.0
