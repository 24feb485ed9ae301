"""Requests that name rows, granted one after the other in one native call, without a look at other rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _core
from .._arrays import Float
from ..requests import Named, Request
from .attached import Attached
from .detached import Detached
from .state import State


class Granted(NamedTuple):
    """The first requests of a stream: those that a step from the anchor proves (E9, E10)."""

    named: list[Named]  # of each request
    state: State  # after the last one
    figures: Float  # (3, m): bounds of the residual and of the distance after each, rows edited by each
    thetas: Float | None  # after each, if they are kept
    difference: _core.Evaluation  # E3, if it is one request
    interrupt: BaseException | None  # why no more were tried


def stream(
    engine: Attached | Detached, requests: Sequence[Request], *, keep_thetas: bool = False
) -> Granted | None:
    """Edits the data for as many of these requests as can be granted so; None where not even the first can.

    The model and the engine's state do not follow yet. What is not granted is undone, or was not tried.
    """
    if not isinstance(engine, Attached):
        return None
    old, data, encode = engine.state, engine.data, engine.problem.encode
    if old.statistics is None or old.gram.found is not None or engine.problem.per_weight is not None:
        return None
    if engine.problem.has_kinks or engine.problem.balance is not None:  # no step is proven
        return None
    # Where the last request needed passes, this one may as well, and is staged once. A step is all that least
    # squares need, unless rounding alone is more than promised.
    needed_passes = old.at is not None or (old.effort.passes > 0 and not old.effort.served)
    quadratic, rounding = engine.problem.constant_hessian, old.statistics.gradient_error
    if needed_passes and (not quadratic or engine.promise.is_below(rounding)):
        return None
    data.compact()
    named: list[Named] = []
    rows: Any = []
    targets: Any = []
    ends: list[int] = []
    for request in requests:
        try:
            asked = request.by_number(data, encode)
        except (TypeError, ValueError):  # to be raised when it is its turn
            break
        if asked is None:
            break
        named.append(asked[0])
        if len(requests) == 1:
            rows, targets = asked[1:]
        else:
            rows.extend(asked[1])
            targets.extend(asked[2])
        ends.append(len(rows))
    if not named:
        return None
    data.begin()
    done = data.stream(rows, targets, ends, old.statistics, old.theta, engine.promise.limits, keep_thetas)
    figures, thetas, statistics, theta, difference, interrupt = done
    count = figures.shape[1]
    if not count:
        data.rollback()
        return None
    effort = old.effort.after_steps(count)
    state = State(theta, None, statistics.anchor, True, statistics, effort, old.gram)
    return Granted(named[:count], state, figures, thetas, difference, interrupt)
