"""Sums over the current rows at a fixed anchor; public as :class:`expunge.kernels.AnchoredStatistics`."""

from __future__ import annotations

from copy import copy
from math import inf
from typing import Any, Self

from numpy.typing import ArrayLike

from . import _core
from ._arrays import Blocks, Float, as_matrix
from ._parameters import documented
from .errors import NotPositiveDefiniteError
from .losses import get_loss
from .problem import as_block, as_objective

__all__ = ["AnchoredStatistics"]

TALLIES = (  # in the order of files
    "value",
    "rows",
    "weight",
    "largest_norm",
    "gradient_rounding",
    "gradient_norm",
    "hessian_rounding",
    "edits",
    "value_rounding",
)


@documented
class AnchoredStatistics:
    """Gradient and Hessian of the current data at a fixed anchor, edited by rows that come and go (E8).

    They hold no rows: ``theta()`` is one Newton step from the anchor on sums over the current rows (E9), and
    ``residual_bound()`` bounds the gradient there without a look at the data (E10). Neither depends on the
    order or the batching of edits, and statistics of shards add up. Single rows edit one factor (E18). A
    batch edits the Hessian, which is factored when theta is asked for.

    The anchor is the `theta` given here: best a minimiser on these rows or similar ones.

    Raises
    ------
    ValueError
        Shapes that do not match, NaN or infinity, targets outside of the loss's domain.

    Notes
    -----
    Statistics cannot tell whether a row that is subtracted was ever part of them, unless the Hessian would
    lose its positive definiteness. Several threads must not use them at once.

    They can be copied and pickled, so that shards may be summed by other processes: what is pickled are the
    sums, and bounds rounded up to powers of two, as in files of an Unlearner.

    Examples
    --------
    >>> import numpy as np
    >>> from expunge import kernels
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 6.0])
    >>> statistics = kernels.AnchoredStatistics(X, y, np.zeros(1), alpha=1.0, loss="squared")
    >>> statistics.subtract(X[2:], y[2:])
    >>> statistics.theta(), statistics.residual_bound() < 1e-12
    (array([0.83333333]), True)
    """

    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        theta: ArrayLike,
        *,
        alpha: ArrayLike,
        loss: str = "logistic",
        sample_weight: ArrayLike | None = None,
        fit_intercept: bool = False,
    ) -> None:
        X = as_matrix(X)
        objective, at = as_objective(
            X, y, sample_weight, theta, alpha=alpha, loss=loss, fit_intercept=fit_intercept, finite=False
        )
        self._columns, self._loss = X.shape[1], get_loss(loss)
        J = objective.evaluate(at)
        anchor = _core.Anchor(objective, at, None, J)
        floor, norm = objective.rounding_floor(at), _core.largest_norm(X)
        self._set(_core.AnchoredStatistics(objective, anchor, J, floor, norm).measure_rows(objective))

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))  # the core's statistics are replaced and never changed
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy(self)

    def __getstate__(self) -> dict[str, Any]:
        kept = self._statistics.round_up()
        return {
            "theta": kept.anchor.theta,
            "hessian": kept.anchor.hessian,
            "gradient": kept.at.gradient,
            "loss": kept.loss,
            "penalty": kept.penalty,
            "fit_intercept": kept.fit_intercept,
            "tallies": [getattr(kept.tallies, name) for name in TALLIES],
            "row_lengths": kept.row_lengths,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        sums = {**state, "tallies": _core.Tallies(*state["tallies"])}
        self._columns = state["theta"].size - state["fit_intercept"]
        self._loss = get_loss(state["loss"])
        self._set(_core.AnchoredStatistics.restore(**sums))

    def _set(self, statistics: _core.AnchoredStatistics) -> None:
        self._statistics = statistics

    def add(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Rows X (m, d), y (m,), sample_weight (m,) join.

        Raises
        ------
        ValueError
            As at construction; nothing has changed.
        """
        self._set(self._statistics.replace(None, self._rows(X, y, sample_weight)))

    def subtract(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Rows X (m, d), y (m,), sample_weight (m,) leave.

        Raises
        ------
        ValueError
            As at construction, or more rows or weight than there are; nothing has changed.
        NotPositiveDefiniteError
            These rows cannot have been part of the statistics; nothing has changed.
        """
        edited = self._statistics.replace(self._rows(X, y, sample_weight), None)
        try:
            edited.factor()
        except NotPositiveDefiniteError:
            raise NotPositiveDefiniteError(
                "these rows cannot be part of the statistics: without them the Hessian is not positive "
                "definite. Check that they were added, in these values; or if they are so much heavier than "
                "what is left that sums keep no digit of it, make statistics of the rows that are left"
            ) from None
        self._set(edited)

    def merge(self, other: AnchoredStatistics) -> AnchoredStatistics:
        """Statistics of both data together.

        Raises
        ------
        ValueError
            Another anchor, loss, alpha or intercept.
        """
        if not isinstance(other, AnchoredStatistics):
            raise TypeError(f"other must be AnchoredStatistics, got {type(other).__name__}")
        merged = copy(self)
        merged._set(self._statistics.merge(vars(other)["_statistics"]))
        return merged

    def theta(self) -> Float:
        """``theta_a - H_a^-1 g_a`` (p,), E9."""
        return self._step(inf)[0].copy()

    def residual_bound(self) -> float:
        """At most this is the norm of the current data's gradient at ``theta()``, on the sum scale (E10)."""
        return self._step(inf)[1]

    def distance_bound(self) -> float:
        """At most this far is ``theta()`` from the current data's minimum, in standard errors (E41).

        It takes some factors of H (p, p), as much as `theta` after many rows. It is the same in any units of
        columns, penalties in them, while sizes of columns are alike; what rounding may hide is bounded in
        length, and where they are a thousand times apart nothing is proven. Multiply columns by powers of two
        before, which rounds nothing.
        """
        return self._step(0.0)[2]

    def coefficient_bound(self) -> float:
        """At most this is the least penalty times how far coefficients are from the minimum's (E24).

        Under rows with much curvature it is far below what `residual_bound` says of that (E10).
        """
        return self._statistics.coefficient_distance()

    def _step(self, wanted: float) -> tuple[Float, float, float]:
        return self._statistics.step(wanted)  # which solves once, and factors only for a distance

    def _rows(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> Blocks:
        return [as_block(as_matrix(X, columns=self._columns), y, sample_weight, self._loss)]

    @property
    def anchor(self) -> Float:
        """theta_a (p,)."""
        return self._statistics.anchor.theta

    @property
    def gradient(self) -> Float:
        """g_a (p,), of the current data at the anchor."""
        return self._statistics.at.gradient

    @property
    def hessian(self) -> Float:
        """H_a (p, p), of the current data at the anchor."""
        return self._statistics.anchor.hessian

    @property
    def rows(self) -> int:
        """How many rows of positive weight there are."""
        return int(self._statistics.tallies.rows)

    @property
    def weight(self) -> float:
        """The sum of weights."""
        return self._statistics.tallies.weight

    @property
    def edits(self) -> int:
        """Rows added or subtracted since the anchor."""
        return int(self._statistics.edits)
