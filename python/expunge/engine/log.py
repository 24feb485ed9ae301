"""What a stream of requests did so far, as its Updates tell it."""

from __future__ import annotations

from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arrays import Float
from ..atomic import Change
from ..requests import Named
from ..update import Update, Updates
from .state import Promise
from .stream import Granted

_NOTHING = np.empty(0)
Told = tuple[dict[str, Any], tuple[Any, ...]]  # fields of an Update, and its record
TABLE = np.dtype(
    [
        ("residual_bound", np.float64),
        ("residual", np.float64),
        ("distance", np.float64),
        ("passes", np.int64),
        ("rows_touched", np.int64),
        ("settled", np.bool_),
    ]
)


class Part(NamedTuple):
    """Requests that were granted together."""

    table: NDArray[np.void]  # a row for each
    thetas: list[Float]  # of the model after each, if they are kept; and then:
    named: list[Named]
    before: Float  # theta
    rest: tuple[Any, ...]  # of their records
    since: int  # since_anchor of the first
    fields: dict[str, Any] | None  # of an Update, for receipts; None: those of a step from the anchor

    def told(self, k: int) -> Told:
        """Of one of them."""
        before = self.thetas[k - 1] if k else self.before
        names = self.named if self.fields is not None else [self.named[k]]
        record = names, before, self.thetas[k], *self.rest
        if self.fields is not None:
            return self.fields, record
        row = self.table[k]
        fields = {name: row[name].item() for name in TABLE.names or ()}
        fields |= {"method": "auto", "hessian": None, "tau": None, "residual": None, "features_revoked": 0}
        return {**fields, "since_anchor": self.since + k}, record


def single(update: Update, *, thetas: bool) -> Part:
    """A request that was applied by itself."""
    fields = dict(vars(update))
    named, before, after, *rest = fields.pop("_record")
    residual = np.nan if update.residual is None else update.residual
    row = update.residual_bound, residual, update.distance, update.passes, update.rows_touched, update.settled
    table = np.array([row], dtype=TABLE)
    if not thetas:
        return Part(table, [], [], _NOTHING, (), 0, None)
    fields = {name: value for name, value in fields.items() if not isinstance(value, np.ndarray)}
    return Part(table, [after], named, before, tuple(rest), 0, fields)


def streamed(granted: Granted, thetas: list[Float], record: tuple[Any, ...]) -> Part:
    """Requests granted by one native call; `record` is as if they were one."""
    count = granted.figures.shape[1]
    table = np.zeros(count, dtype=TABLE)
    table["residual_bound"], table["distance"], table["rows_touched"] = granted.figures
    table["residual"] = np.nan
    if not thetas:
        return Part(table, [], [], _NOTHING, (), 0, None)
    named, before, _, *rest = record
    since = granted.state.effort.requests - count + 1
    return Part(table, thetas, named, before, tuple(rest), since, None)


class Log:
    """The requests of a stream that were granted; it grows by the assignments that commit them."""

    def __init__(self, *, keeps_thetas: bool, promise: Promise, method: str) -> None:
        self.keeps_thetas = keeps_thetas
        self.asked = promise, method
        self.started = perf_counter()
        self.size = 0
        self.last: Any = None  # (the parts before, the last part)

    def with_part(self, part: Part) -> list[Change]:
        """The assignments that append a part."""
        return [(self, "size", self.size + part.table.size), (self, "last", (self.last, part))]

    def updates(self) -> Updates:
        """All of them."""
        parts: list[Part] = []
        last = self.last
        while last is not None:
            last, part = last
            parts.append(part)
        parts.reverse()
        table = np.concatenate([np.zeros(0, dtype=TABLE), *(part.table for part in parts)])
        thetas = [theta for part in parts for theta in part.thetas] if self.keeps_thetas else None
        columns = {name: np.ascontiguousarray(table[name]) for name in TABLE.names or ()}
        updates = Updates(**columns, thetas=thetas, seconds=perf_counter() - self.started)
        object.__setattr__(updates, "_parts", parts)
        object.__setattr__(updates, "_asked", self.asked)
        return updates
