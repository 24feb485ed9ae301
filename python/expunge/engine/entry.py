"""Whether what comes in belongs together: a model and its data (E41), statistics and their rows."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Float
from .._numbers import power_of_two_above
from ..errors import NotFittedToThisData
from .solver import warn

if TYPE_CHECKING:
    from .attached import Attached

# How far a solver may leave a model from the minimum, in standard errors for each square root of a parameter.
# docs/adoption.md has the measurements.
ANY_SOLVER = 1.0  # those that converged, at scikit-learn's tolerance, leave 0.35 or less
EXACT_SOLVER = 0.02  # those leave 1e-6 or less, and data that were copied to float32 2e-4
SMALL_RESIDUAL = 1e-4  # of a model of ours whose `tol` was not loosened
USUAL_TOL = 1e-4  # scikit-learn's
USUAL_ITER = 1000  # of those of its solvers that max_iter=None leaves free


class OnEntry(NamedTuple):
    """How far from the minimum on the data handed over the model was as it came."""

    residual: float
    distance: float | None  # in standard errors; None: an older file does not say

    def rounded(self) -> Self:
        """The next powers of two: what may be told once rows have left."""
        distance = None if self.distance is None else power_of_two_above(self.distance)
        return self._replace(residual=power_of_two_above(self.residual), distance=distance)


Judge = Callable[[_core.Objective, Float, OnEntry], None]


def distance(objective: _core.Objective, theta: Float, minimum: _core.Minimum, rows: int) -> float:
    """From theta to the minimum in standard errors (E41): 0 where it needed no step."""
    step = theta - minimum.theta
    if not step.any():
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        squared = max(float(step @ objective.hvp(minimum.theta, step)), 0.0)  # rounding may take it below
    variance = 2.0 * minimum.value / rows if objective.quadratic else 1.0
    return sqrt(squared / variance) if squared < inf and variance > 0.0 else inf


def check_fitted(model: Any, objective: _core.Objective, theta: Float, entry: OnEntry) -> None:
    """Raises NotFittedToThisData where theta is further away than the model's solver can have left it.

    A solver that stopped early leaves what it likes, and a warning says so. But theta is no worse than what
    it began at.
    """
    away, exact = entry.distance, _solved_exactly(model)
    assert away is not None
    limit = (EXACT_SOLVER if exact else ANY_SOLVER) * sqrt(theta.size)
    if away <= limit:
        return
    early = None if exact else _stopped_early(model)
    if early is None or not objective.evaluate(theta).value <= _first_value(model, objective, theta.size):
        raise NotFittedToThisData(away, limit, _ends_relatively(model))
    warn(
        f"the model came {away:.3g} standard errors from the minimum on these data, and is there now. "
        f"Its solver stopped early ({early}); if that is not why, it was fitted to other data"
    )


def _solved_exactly(model: Any) -> bool:
    """Whether ours fitted it, or scikit-learn's Ridge with a factor and in float64."""
    residual = getattr(model, "residual_", None)
    if residual is not None:
        converged = model.tol is None and model.n_iter_ < model.max_iter
        return bool(residual <= SMALL_RESIDUAL or (converged and model.within <= EXACT_SOLVER))
    factored = getattr(model, "solver_", None) in ("cholesky", "svd")
    return factored and np.asarray(model.coef_).dtype == np.float64


def _stopped_early(model: Any) -> str | None:
    """Which parameter ended a fit before it converged as far as scikit-learn asks by default."""
    iterations, most, tol = (getattr(model, name, None) for name in ("n_iter_", "max_iter", "tol"))
    if tol is not None and tol > USUAL_TOL:
        return f"tol={tol:g}"
    if iterations is not None and np.max(iterations) >= (USUAL_ITER if most is None else most):
        return f"after {np.max(iterations)} iterations, max_iter={most}"
    return None


def _first_value(model: Any, objective: _core.Objective, p: int) -> float:
    """J at 0; for the squared loss at the best intercept, beside which solvers begin."""
    zero = np.zeros(p)
    at = objective.evaluate(zero)
    if not (objective.quadratic and model.fit_intercept):
        return at.value
    last = zero.copy()
    last[-1] = 1.0
    return at.value - float(at.gradient[-1]) ** 2 / (2.0 * float(objective.hvp(zero, last)[-1]))


def _ends_relatively(model: Any) -> str:
    """What else an iterative solver of scikit-learn's Ridge may be the reason of."""
    solver = getattr(model, "solver_", None)
    if solver not in ("lsqr", "sparse_cg", "sag", "saga"):
        return ""
    return (
        f". Or, where columns are of very different sizes, its solver {solver} ended far from the minimum: "
        "scale them, or fit with solver='cholesky'"
    )


def check_belong(engine: Attached, counts: NDArray[np.int64], statistics: _core.AnchoredStatistics) -> None:
    """Raises unless these are the rows that the statistics are of."""
    check_counts(engine, counts)
    objective, theta = engine.objective(), statistics.anchor.theta
    at, floor = objective.evaluate(theta), objective.rounding_floor(theta)
    difference = np.linalg.norm(at.gradient - statistics.at.gradient)
    explained = statistics.gradient_error + floor
    if not difference <= explained < np.inf:
        raise ValueError(
            "the gradient of these rows at the anchor differs from the statistics by "
            f"{difference:.3g}, of which rounding explains {explained:.3g}: pass the current rows, after "
            "all corrections, in the values and weights that went in"
        )


def check_counts(engine: Attached, counts: NDArray[np.int64]) -> None:
    """Raises unless there are as many rows, of either class."""
    data = engine.data
    if not np.array_equal(data.counts, counts):
        found, expected = (c.tolist() if data.classes else int(c.sum()) for c in (data.counts, counts))
        raise ValueError(
            f"X has {found} rows of positive weight{' by class' if data.classes else ''}, the statistics "
            f"{expected}: pass the current rows, after all corrections"
        )
