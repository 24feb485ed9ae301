"""What a stream of requests did so far, as its Updates tell it."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arrays import Float
from ..atomic import Change
from ..update import Update, Updates
from .stream import Granted

Told = tuple[dict[str, Any], tuple[Any, ...]]  # fields of an Update, and its record
TABLE = np.dtype(
    [
        ("residual_bound", np.float64),
        ("residual", np.float64),
        ("passes", np.int64),
        ("rows_touched", np.int64),
        ("settled", np.bool_),
    ]
)


class Single(NamedTuple):
    """A request that was applied by itself."""

    update: Update

    def __len__(self) -> int:
        return 1

    def table(self) -> NDArray[np.void]:
        """A row for each request."""
        residual = np.nan if self.update.residual is None else self.update.residual
        u = self.update
        return np.array([(u.residual_bound, residual, u.passes, u.rows_touched, u.settled)], dtype=TABLE)

    def each(self) -> Iterator[Told]:
        """Of each request."""
        assert self.update._record is not None
        yield vars(self.update), self.update._record


class Streamed(NamedTuple):
    """Requests granted by one native call."""

    granted: Granted
    thetas: list[Float]  # of the model after each, if they are kept
    record: tuple[Any, ...]  # as if they were one request

    def __len__(self) -> int:
        return self.granted.bounds.size

    def table(self) -> NDArray[np.void]:
        """A row for each request."""
        table = np.zeros(len(self), dtype=TABLE)
        table["residual_bound"], table["rows_touched"] = self.granted.bounds, self.granted.touched
        table["residual"] = np.nan
        return table

    def each(self) -> Iterator[Told]:
        """Of each request, if thetas are kept."""
        named, before, _, *rest = self.record
        first = self.granted.state.effort.requests - len(self) + 1
        for k, after in enumerate(self.thetas):
            outcome = self.granted.outcome(k, first + k, after - before)
            update = Update.from_outcome(outcome, self.granted.touched[k].item(), 0, (), 0.0)
            yield vars(update), ([named[k]], before, after, *rest)
            before = after


class Log:
    """The requests of a stream that were granted; it grows by the assignments that commit them."""

    def __init__(self, *, keeps_thetas: bool) -> None:
        self.keeps_thetas = keeps_thetas
        self.started = perf_counter()
        self.size = 0
        self.last: Any = None  # (the parts before, the last part)

    def with_part(self, part: Single | Streamed) -> list[Change]:
        """The assignments that append a part."""
        return [(self, "size", self.size + len(part)), (self, "last", (self.last, part))]

    def updates(self) -> Updates:
        """All of them."""
        parts: list[Single | Streamed] = []
        last = self.last
        while last is not None:
            last, part = last
            parts.append(part)
        parts.reverse()
        table = np.concatenate([np.zeros(0, dtype=TABLE), *(part.table() for part in parts)])
        told = [told for part in parts for told in part.each()] if self.keeps_thetas else []
        thetas = [record[2] for _, record in told] if self.keeps_thetas else None
        columns = {name: np.ascontiguousarray(table[name]) for name in TABLE.names or ()}
        updates = Updates(**columns, thetas=thetas, seconds=perf_counter() - self.started)
        object.__setattr__(updates, "_records", told)
        return updates
