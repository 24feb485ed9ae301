"""Retraining: what every other strategy is compared with."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import linear_model

from .._arrays import Float
from .._numbers import as_flag
from ..engine.near import TIGHTER, distance_at
from ..engine.solver import warn
from ..engine.state import Promise, Staged
from ..models.base import theta_of
from ..problem import Problem
from .base import Solution, Strategy

SOLVERS = {  # of scikit-learn, that minimise E1 to a tolerance of one's own
    "logistic": ("lbfgs", "newton-cholesky", "newton-cg"),
    "squared": ("cholesky", "svd", "lsqr", "sparse_cg"),
}
MOST = 10_000  # iterations of scikit-learn's solvers
ENDED = 0.5  # of a residual: a fit that leaves more of it than that has ended


class Retraining(Strategy):
    """Trains on the corrected data: from 0, or warm from the old theta.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`
    warm : bool, default=False
        Whether training starts at the old theta, less the coordinates of revoked columns.
    solver : str, default="expunge"
        Newton's method of expunge (E11), or a solver of scikit-learn: ``lbfgs``, ``newton-cholesky`` or
        ``newton-cg`` for LogisticRegression, ``cholesky``, ``svd``, ``lsqr`` or ``sparse_cg`` for Ridge,
        whose fits have no warm start.
    within : float, default=0.01
        How many standard errors (E41) from the minimum training may end, proven, as of an Unlearner. All
        solvers aim at the same residual, nine tenths of what proves that; those of Ridge in scikit-learn at
        1e-12 of the targets.
    tolerance : float, optional
        In place of `within`: what the residual may be, on the sum scale.

    Attributes
    ----------
    name : "retraining"

    Raises
    ------
    ValueError, TypeError
        As of :class:`expunge.Unlearner`; an unknown solver, one without a warm start that is to have one, or
        scikit-learn for a model with noise in its objective.

    Notes
    -----
    `Update.residual` and `Update.distance` are measured: one pass of those that are counted. Of a solver of
    scikit-learn passes are its iterations (1 where it does not tell them), and so are a lower bound: it does
    not say how often it looked along a line, nor how many products ``newton-cg`` took. It may also stop
    sooner than it is asked to; where asking again does not help, a warning says how far it came.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import Retraining
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> y = X[:, 0] - X[:, 1] > 0.0
    >>> warm = Retraining(ex.LogisticRegression().fit(X, y), X, y, warm=True)
    >>> cold = Retraining(ex.LogisticRegression().fit(X, y), X, y, solver="newton-cholesky")
    >>> for strategy in (warm, cold):
    ...     print(strategy.apply(ex.RemoveRows([3, 17])).distance <= 0.01)
    True
    True
    """

    name = "retraining"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        warm: bool = False,
        solver: str = "expunge",
        within: float | None = None,
        tolerance: float | None = None,
    ) -> None:
        self._warm, self._solver = as_flag(warm, "warm"), solver
        super().__init__(model, X, y, sample_weight, promise=Promise.checked(tolerance, within))

    def _begin(self, problem: Problem) -> None:
        if self._solver == "expunge":
            return
        known = SOLVERS[problem.loss]
        if self._solver not in known:
            raise ValueError(
                f"unknown solver {self._solver!r}: choose expunge or, of scikit-learn, {', '.join(known)}"
            )
        if problem.noise is not None:
            raise ValueError("scikit-learn cannot fit with noise in the objective: use solver='expunge'")
        if self._warm and problem.constant_hessian:
            raise ValueError("scikit-learn's Ridge has no warm start: use solver='expunge' or warm=False")

    def _choose(self, staged: Staged) -> Solution:
        theta = staged.left_of(self._engine.state.theta)
        theta = theta if self._warm else np.zeros_like(theta)
        return self._engine.trained_from(theta) if self._solver == "expunge" else self._by_sklearn(theta)

    def _by_sklearn(self, theta: Float) -> Solution:
        """Fits until the residual is small enough, or until asking for less brings no less."""
        engine, X_y_s = self._engine, self._engine.data.current()
        objective, shift = engine.objective(), engine.data.surviving_shift()
        within, goal = engine.promise.within, engine.goal()
        fit = self._estimator(theta, shift)
        passes, last = 0, np.inf
        while True:
            if not engine.problem.constant_hessian:  # it looks at the largest entry of the mean gradient
                fit.set_params(tol=goal / (engine.data.weight * sqrt(theta.size)))
            fit.fit(*X_y_s)
            found = engine.problem.moved(theta_of(fit), None, shift)
            at = objective.evaluate(found)
            passes += 1 + int(np.max(fit.n_iter_ if fit.n_iter_ is not None else 1))
            distance = distance_at(engine, objective, found, at, at.floor, None)
            near = at.residual <= goal if within is None else distance <= within
            if near or not at.residual < ENDED * last or engine.problem.constant_hessian:
                break
            last, goal = at.residual, TIGHTER * min(goal, at.residual)
            fit.set_params(warm_start=True)
        if not near:
            warn(
                f"scikit-learn's {self._solver} ended at a residual of {at.residual:.3g}, at most "
                f"{distance:.3g} standard errors from the minimum, further than was asked for: scale the "
                "columns of X to a size near 1, or use solver='expunge'"
            )
        return Solution(found, passes, at, distance)

    def _estimator(self, theta: Float, shift: Float | None) -> Any:
        """Scikit-learn's, for E1; with the old theta in it where the start is to be warm."""
        problem = self._engine.problem
        common: dict[str, Any] = {"fit_intercept": problem.fit_intercept, "solver": self._solver}
        if problem.constant_hessian:
            return linear_model.Ridge(problem.alpha, tol=1e-12, **common)
        fit = linear_model.LogisticRegression(C=1.0 / problem.alpha, max_iter=MOST, **common)
        if self._warm:
            coef, intercept = problem.split(problem.moved(theta, shift, None))
            fit.set_params(warm_start=True)
            fit.coef_, fit.intercept_ = coef[None], intercept if problem.fit_intercept else np.zeros(1)
        return fit
