"""Values that engines and methods pass on: the state, how theta is to be chosen, a request and its outcome.

They are replaced and never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Float
from .._numbers import as_number
from ..release import default_tolerance
from ..requests import Named
from .solver import DEFAULT_TOL, FIT_WITHIN

Method = Literal["auto", "exact", "second_order", "first_order"]
Hessian = Literal["corrected", "original"]
PASSES_SAVED = 2.0  # by a request that needs only a step from an anchor
METHODS, HESSIANS = get_args(Method), get_args(Hessian)


WITHIN = 0.01  # standard errors: docs/methods.md says why


@dataclass(frozen=True)
class Promise:
    """What theta is proven to be after ``auto`` and ``exact``, and what certificates rest on."""

    tolerance: float | None  # the residual is at most this; None: as :func:`default_tolerance` says
    within: float | None  # in place of that: the distance to retraining is, in standard errors (E41)

    @classmethod
    def checked(cls, tolerance: Any, within: Any) -> Self:
        """The promise that a user asks for; None is what was not asked for."""
        if tolerance is None and within is None:
            within = WITHIN
        return cls(
            None if tolerance is None else as_number(tolerance, "tolerance"),
            None if within is None else as_number(within, "within", above=0.0),
        )

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Of the residual and of the distance."""
        if self.within is not None:
            return np.inf, self.within
        assert self.tolerance is not None
        return self.tolerance, np.inf

    @property
    def goal(self) -> float:
        """The residual at which iterations end that serve many requests."""
        return self.limits[0] if self.within is None else DEFAULT_TOL

    @property
    def of_fit(self) -> dict[str, float]:
        """The parameters of an estimator of ours that keeps the promise."""
        return {"tol": self.limits[0]} if self.within is None else {"within": min(self.within, FIT_WITHIN)}

    def for_certificates(self, rows: int, parameters: int) -> float:
        """The profile residual that certificates rest on."""
        return default_tolerance(rows, parameters) if self.tolerance is None else self.tolerance

    def is_below(self, rounding: float) -> bool:
        """Whether what rounding may hide of a residual is more than a residual may be."""
        return self.limits[0] <= rounding

    def is_kept(self, residual: float, distance: float) -> bool:
        """Whether by these bounds."""
        most, within = self.limits
        return residual <= most and distance <= within


class Effort(NamedTuple):
    """What has been spent since the statistics were anchored, to tell when new ones pay (E8)."""

    requests: int = 0
    passes: float = 0.0  # over the data
    saved: float = 0.0  # passes that requests did without
    served: int = 0  # requests without a pass since the last one that took some
    rate: float = 0.0  # passes that a request takes of late, or 0

    def after_steps(self, count: int) -> Self:
        """The same after so many requests that needed only a step from an anchor, and no row."""
        requests, passes, saved, served, rate = self
        return type(self)(requests + count, passes, saved + count * PASSES_SAVED, served + count, rate)


class GramBound(NamedTuple):
    """Upper bound of ``|S^1/2 X|^2`` (E4): found by the last first-order update, and added since.

    Once rows have left, powers of two, which tell nothing of them.
    """

    found: float | None = None
    added: float = 0.0

    @property
    def total(self) -> float:
        """The bound for the current rows."""
        assert self.found is not None
        return self.found + self.added


class State(NamedTuple):
    """Theta, and what is known of the current data at theta."""

    theta: Float
    at: _core.Evaluation | None  # J and its gradient; None: not measured, a bound vouches for theta
    anchor: _core.Anchor | None  # None: to be assembled when it is needed
    hessian_is_current: bool  # whether the anchor is the Hessian of the current data, at its own theta
    statistics: _core.AnchoredStatistics | None = None  # None: to be anchored anew once that pays
    effort: Effort = Effort()
    gram: GramBound = GramBound()
    profile: float = np.inf  # bound of the profile residual; kept where there is a budget

    @property
    def residual(self) -> float | None:
        """Norm of the gradient, None where a bound vouches."""
        return None if self.at is None else self.at.residual


def without_curvature(at: _core.Evaluation) -> _core.Evaluation:
    """J and its gradient, as a state keeps them: without the curvature of every row."""
    return _core.Evaluation(at.value, at.gradient)


@dataclass(frozen=True)
class How:
    """How theta is to be chosen for the corrected data; see :meth:`expunge.Unlearner.apply`."""

    method: Method
    hessian: Hessian = "corrected"
    tau: float | None = None

    @classmethod
    def checked(cls, method: Any, hessian: Any, tau: Any) -> Self:
        """How, from these arguments; ValueError where they are wrong."""
        if (
            method == "auto" and hessian == "corrected" and tau is None
        ):  # the usual case, which a stream repeats
            return cls.default()
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        if hessian not in HESSIANS:
            raise ValueError(f"unknown hessian {hessian!r}: choose one of {', '.join(HESSIANS)}")
        if hessian != "corrected" and method != "second_order":
            raise ValueError(f"hessian={hessian!r} is an option of method='second_order'")
        if tau is not None and method != "first_order":
            raise ValueError("tau is an option of method='first_order'")
        return cls(method, hessian, tau)

    @classmethod
    @cache
    def default(cls) -> Self:
        """How `apply` does without options."""
        return cls("auto")


class Staged(NamedTuple):
    """A request whose edits are made: the data are D', and nothing else has changed yet.

    Statistics and anchor are of the corrected rows, before revoked coordinates drop (E12).
    """

    how: How
    named: list[Named]
    rows_touched: int
    features_revoked: int
    survives: NDArray[np.bool_] | slice  # which coordinates of the old theta
    dropped: NDArray[np.int64]  # the others
    difference: _core.Evaluation | None  # E3 at the old theta; None: nothing changed
    statistics: _core.AnchoredStatistics | None
    anchor: _core.Anchor | None  # None: to be assembled anew
    hessian_is_current: bool
    columns: NDArray[np.bool_]  # of X, before the request revoked any
    revoked_rows: NDArray[np.int64]  # rows now in the data that are not 0 in a revoked column
    gram: GramBound
    original: _core.Anchor | Float | None = None  # H before the request, where it was asked for: E5
    passes: int = 0  # made before the edits

    def left_of(self, theta: Float) -> Float:
        """The coordinates of the old theta that survive (E12)."""
        return theta[self.survives] if self.dropped.size else theta


class Outcome(NamedTuple):
    """The outcome of a request: the fields of an :class:`expunge.Update` of the same names."""

    method: str
    step: Float
    gradient_difference: Float
    residual: float | None
    residual_bound: float
    passes: int
    settled: bool
    since_anchor: int
    distance: float
    hessian: str | None = None
    tau: float | None = None
