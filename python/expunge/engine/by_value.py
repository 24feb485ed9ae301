"""The current data of a detached Unlearner: a request brings rows by value, and none is kept after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from .._arrays import Blocks, Float, Index, stack
from ..class_weights import weighed
from .columns import Data, counted
from .rows import equal


class DetachedData(Data):
    """What is left of D' without its rows: their number, dtype and kind, and the columns' names.

    Rows come with a request, by value, and are gone when it ends. Names of revoked columns are not kept.

    Parameters
    ----------
    kept : (width,) bool array
        Which columns of the X that was handed over survive.
    names : their names, or None
    counts : (K,) array
        Rows of positive weight: of each class, or of two places all of them in the first.
    dtype : float32 or float64
    is_sparse : bool
    classes : int
        How many classes targets are numbers of, each of which must keep weight; 0: they are none.
    weighted : bool
        Whether weights were ever given.
    class_weights : (K,) array or None
    shift : (width,) array or None
        What is taken off the columns.
    """

    def __init__(
        self,
        kept: NDArray[np.bool_],
        names: Sequence[Any] | None,
        counts: NDArray[np.int64],
        *,
        dtype: np.dtype[Any],
        is_sparse: bool,
        classes: int,
        weighted: bool,
        class_weights: Float | None = None,
        shift: Float | None = None,
    ) -> None:
        super().__init__(kept.size, names, classes=classes, class_weights=class_weights)
        self.kept = kept.copy()
        self.shift = shift
        self.counts = counts.copy()
        self.dtype = dtype
        self.is_sparse = is_sparse
        self.weighted = weighted
        # X, y and s before, y and s after
        self._rows_by_value: list[tuple[Any, Float, Float, Float, Float]] = []
        self.rows_touched = 0
        for owner, name, value in self._kept_columns():
            setattr(owner, name, value)

    def _kept_columns(self) -> list[tuple[Data, str, Any]]:
        """Follows a change of the kept columns: rows come with these, and the others lose their names."""
        columns = np.flatnonzero(self.kept)
        names = self.names
        if names is not None:
            names = [name if here else None for name, here in zip(names, self.kept, strict=True)]
        shift = None if self.shift is None else np.where(self.kept, self.shift, 0.0)
        return [
            (self, "stored", columns),
            (self, "names", names),
            (self, "shift", shift),
            (self, "_last_mask", (None, None)),
        ]

    def begin(self) -> None:
        """See Data."""
        super().begin()
        self._touched.undo.extend([(self, "_rows_by_value", []), (self, "rows_touched", 0)])  # no row is kept
        self._before("weighted", "counts")
        self._rows_by_value, self.rows_touched = [], 0

    @property
    def weighted_rows(self) -> int:
        """How many rows have a positive weight."""
        return int(self.counts.sum())

    def committed(self) -> list[tuple[Data, str, Any]]:
        """See Data."""
        return [*super().committed(), (self, "_rows_by_value", []), *self._kept_columns()]

    def numbered(self, kind: str) -> NoReturn:
        """TypeError."""
        raise TypeError(
            f"a detached Unlearner has no numbered rows for {kind}: pass Edit with the values of the rows "
            "before and after, or attach the current rows first"
        )

    def by_value(self) -> Self:
        """Itself: requests bring their rows along."""
        return self

    def add(self, X: Any, y: Float, s: Float | None, ids: list[Any] | None = None, labels: Any = ()) -> int:
        """New rows X (m, surviving columns), y (m,), s (m,); how many. Their labels are not kept."""
        if ids is not None:
            raise ValueError("a detached Unlearner knows no ids: add these rows without, or attach first")
        self.replace(None, (X, y, s))
        return y.size

    def replace(
        self, before: tuple[Any, Float, Float | None] | None, after: tuple[Any, Float, Float | None] | None
    ) -> None:
        """Replaces rows X (m, surviving columns), y (m,), s (m,) by others.

        A row is kept once, with its weight on either side, 0 where it is not there. So all rows of a request
        are one matrix, and where targets change H does not (E6).
        """
        self.weighted = self.weighted or any(
            side is not None and side[2] is not None for side in (before, after)
        )
        before, after = self._counted(before), self._counted(after)
        sides = [side for side in (before, after) if side is not None]
        self.rows_touched += max(y.size for _, y, _ in sides)
        if before is not None and after is not None and equal(before[0], after[0]):
            X, y, s = before
            _, now_y, now_s = after
            self._rows_by_value.append((self._widened(X), y, s, now_y, now_s))
            return
        for side in sides:
            X, y, s = side
            nothing = np.zeros(y.size)
            weights = (s, nothing) if side is before else (nothing, s)
            self._rows_by_value.append((self._widened(X), y, weights[0], y, weights[1]))

    def _counted(self, side: tuple[Any, Float, Float | None] | None) -> tuple[Any, Float, Float] | None:
        """Rows with what they count in place of their own weights."""
        if side is None:
            return None
        X, y, own = side
        s = weighed(self.class_weights, y, own)
        return X, y, np.ones(y.size) if s is None else s

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        self._check_not_all(columns)
        self._drop(columns)

    def _count(self, y: Float, s: Float) -> NDArray[np.int64]:
        """Rows of positive weight: of each class, or all of them in the first place."""
        counts = np.zeros_like(self.counts)
        if s.size == 1:
            counts[int(y[0]) if self.classes else 0] = s[0] > 0.0
            return counts
        here = y[s > 0] if self.classes else np.zeros(int(np.count_nonzero(s > 0)))
        return np.bincount(here.astype(np.intp), minlength=counts.size)

    def _check_enough(self, counts: NDArray[np.int64]) -> None:
        if counts.sum() == 0:
            raise ValueError("no row of positive weight would be left")
        if self.classes and counts.min() == 0:
            raise ValueError(
                f"no row of positive weight would be left of one of the {counted(self.classes)} classes"
            )

    def finish(self) -> tuple[Blocks | None, Blocks | None]:
        """Rows of the request before and after, over the columns at its start, sharing one X.

        Raises if more rows leave than there are, or too few are left.
        """
        if not self._rows_by_value:
            return None, None
        Xs, *columns = zip(*self._rows_by_value, strict=True)
        X = stack(Xs)
        y, s, now_y, now_s = (np.concatenate(column) for column in columns)
        counts = self.counts + self._count(now_y, now_s) - self._count(y, s)
        if counts.min() < 0:
            raise ValueError(
                "more rows would leave than there are"
                + (f" of one of the {counted(self.classes)} classes" if self.classes else "")
                + f" ({self.counts[np.argmin(counts)]}): were all of them in the data?"
            )
        self._check_enough(counts)
        self.counts = counts
        return [(X, y, s)], [(X, now_y, now_s)]
