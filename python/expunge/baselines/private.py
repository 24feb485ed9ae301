"""Training with differential privacy: whatever a few rows did is hidden before anyone asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import expm1, log1p
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import accounting
from .._arrays import Float, as_matrix
from .._core import largest_norm
from .._frames import match_columns
from .._numbers import as_count, as_number
from ..engine.attached import Attached
from ..engine.detached import Detached
from ..engine.solver import FIT_WITHIN
from ..engine.state import Outcome, Promise, Staged, State
from ..models import LogisticRegression
from ..models.adopt import estimator_for
from ..problem import Problem
from ..release import NoBudget
from ..release.budget import check_epsilon_delta
from .base import Engine, Memory, Solution, Strategy, problem_to_compare

CURVED = 0.5  # of epsilon: what the penalty may take of it at most
MAX_D2 = 0.25  # of the logistic loss


@dataclass(frozen=True)
class Privacy:
    """What noise in the objective buys.

    Attributes
    ----------
    epsilon, delta : float
        For any `rows` rows that leave, join or change, together.
    rows : int
    row_epsilon, row_delta : float
        For one row that leaves or joins; of several by group privacy.
    sigma : float
        Standard deviation of the noise, for each coefficient.
    alpha : float
        Penalty, at least that of the model handed over.

    Examples
    --------
    >>> from expunge.baselines import Privacy
    >>> privacy = Privacy.bought(epsilon=2.0, delta=1e-5, rows=2, row_norm=1.0, alpha=1.0)
    >>> privacy.row_epsilon, round(privacy.sigma, 2)
    (1.0, 5.07)
    """

    epsilon: float
    delta: float
    rows: int
    row_epsilon: float
    row_delta: float
    sigma: float
    alpha: float

    @classmethod
    def bought(cls, epsilon: float, delta: float, rows: int, row_norm: float, alpha: float) -> Privacy:
        """The least noise for rows of that norm; see the notes of :class:`PrivateTraining`."""
        one = epsilon / rows
        one_delta = delta * expm1(one) / expm1(epsilon)
        curvature = MAX_D2 * row_norm**2
        alpha = max(alpha, curvature / expm1(CURVED * one))
        mu = accounting.mu(one - log1p(curvature / alpha), one_delta)
        return cls(epsilon, delta, rows, one, one_delta, row_norm / mu, alpha)


class PrivateTraining(Strategy):
    """Objective perturbation: trained with noise, and nothing to do while a request is within what it hides.

    The model is a LogisticRegression of its own, ``argmin J + b @ coef`` with b ~ N(0, sigma^2) for each
    coefficient; the one handed over says what to train. Each row that a request touches counts: 1 where it
    leaves or joins, 2 where it changes. Once more than `rows` have been touched, a request trains anew on the
    corrected data, with fresh noise, and the count begins again. Coefficients of revoked columns are dropped.

    Parameters
    ----------
    model : fitted LogisticRegression without an intercept, of expunge or of scikit-learn
    X : (n, d) array, sparse matrix or frame
        Rows of norm `row_norm` or less, also those that requests bring.
    y, sample_weight : as of :class:`expunge.Unlearner`
        No weight above 1, that of its class counted.
    epsilon, delta : float
        What is promised of any `rows` touched rows.
    rows : int, default=1
    row_norm : float, default=1.0
        Public: chosen without a look at the data.
    random_state : int, optional
        A seed, for tests; by default noise comes from the operating system.

    Attributes
    ----------
    name : "private_training"
    privacy : Privacy
        What is bought by how much noise.
    rows_left : int
        How many rows may yet be touched before it trains anew.

    Raises
    ------
    ValueError
        A model whose loss has no bounded gradient (Ridge), or an intercept, which no penalty holds; longer
        rows or larger weights than the noise was made for; epsilon, delta out of their ranges.

    Notes
    -----
    K. Chaudhuri, C. Monteleoni and A. Sarwate, JMLR 2011; D. Kifer, A. Smith and A. Thakurta, COLT 2012. With
    or without one row x the same theta belongs to noise that differs by ``s d1 x``, no longer than row_norm
    and always to the same side, and to Jacobians whose ratio is at most ``1 + row_norm^2 / (4 alpha)``. So a
    row is hidden to (e, delta) if a shift of row_norm is to ``e - log(1 + row_norm^2 / (4 alpha))`` (E14);
    R. Redberg, A. Koskela and Y.-X. Wang, NeurIPS 2023, have this accounting for all generalised linear
    models. alpha is raised where that logarithm is above half of e. m rows are hidden to m e and
    ``delta expm1(m e) / expm1(e)``. It holds of the exact minimiser: what the solver left over, within 1e-6
    standard errors, and how theta was rounded are not counted, and neither is what two trainings tell
    together. `residual` and `distance` are of the objective with its noise.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import PrivateTraining
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> y = X[:, 0] - X[:, 1] > 0.0
    >>> model = ex.LogisticRegression(fit_intercept=False).fit(X, y)
    >>> private = PrivateTraining(model, X, y, epsilon=2.0, delta=1e-5, rows=2)
    >>> private.privacy.row_epsilon, round(private.privacy.sigma, 2)
    (1.0, 5.07)
    >>> [private.apply(ex.RemoveRows([row])).passes > 0 for row in range(3)]  # the third one is too many
    [False, False, True]
    """

    name = "private_training"

    _budget: _NextNoise

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        rows: int = 1,
        row_norm: float = 1.0,
        random_state: int | None = None,
    ) -> None:
        problem = problem_to_compare(model)
        _require_logistic(problem)
        epsilon, delta = check_epsilon_delta(as_number(epsilon, "epsilon", above=0.0), delta)
        self._row_norm = as_number(row_norm, "row_norm", above=0.0)
        self.privacy = Privacy.bought(epsilon, delta, as_count(rows, "rows"), self._row_norm, problem.alpha)
        X = match_columns(X, getattr(model, "feature_names_in_", None))
        matrix = as_matrix(X)
        weights = problem.weights(problem.encode(y, matrix.shape[0]), sample_weight)
        self._require_hidden(largest_norm(matrix), weights)
        trained = estimator_for(replace(problem, alpha=self.privacy.alpha))
        assert isinstance(trained, LogisticRegression)
        trained.set_params(noise=self.privacy.sigma, random_state=random_state)
        trained.fit(X, y, sample_weight)
        super().__init__(trained, X, y, sample_weight, promise=Promise.checked(None, FIT_WITHIN))

    def _take(self, model: Any, engine: Engine) -> None:
        self._touched, self._budget = Memory(engine.state.theta, 0), _NextNoise()
        super()._take(model, engine)

    def _require_hidden(self, norm: float, weights: Float | None) -> None:
        """ValueError for rows that tell more than the noise hides."""
        if not norm <= self._row_norm * (1.0 + 1e-12):  # rows that were scaled to it, and rounded
            raise ValueError(
                f"a row has norm {norm:.6g}, above row_norm={self._row_norm:g}, which the noise is made for: "
                "scale the rows, or raise row_norm"
            )
        if weights is not None and weights.size and weights.max() > 1.0:
            raise ValueError(
                "a sample_weight is above 1, that of its class counted, more than the noise hides: scale the "
                "weights"
            )

    @property
    def rows_left(self) -> int:
        """See the class."""
        with self._lock:
            return self.privacy.rows - self._touched.at(self._engine.state.theta)

    def _choose(self, staged: Staged) -> Solution:
        engine, data = self._engine, self._engine.data
        self._require_hidden(data.largest_norm, data.register.of(data.register.live())[2])
        old = engine.state.theta
        touched = self._touched.at(old) + rows_counted(staged)
        if touched <= self.privacy.rows:
            self._budget.problem, found = engine.problem, Solution(staged.left_of(old).copy(), 0)
        else:
            assert engine.problem.noise is not None
            problem = engine.problem.with_noise(engine.problem.noise.again())
            self._budget.problem = problem
            found, touched = engine.trained_from(np.zeros_like(staged.left_of(old)), problem), 0
        self._touched.put(old, found.theta, touched)
        return found


class _NextNoise(NoBudget):
    """Lets a request publish its theta with another noise in the objective."""

    problem: Problem

    def within(
        self, engine: Attached | Detached, staged: Staged, state: State, outcome: Outcome
    ) -> tuple[State, Problem, Outcome]:
        """The problem that theta solves."""
        return state, self.problem, outcome


def rows_counted(staged: Staged) -> int:
    """Rows that a request takes out or puts in: a row that changes is both."""
    counted = 2 * staged.revoked_rows.size
    for named in staged.named:
        rows = named.get("rows", ())
        assert not isinstance(rows, int | str)
        counted += len(rows) * (1 if named["kind"] in ("RemoveRows", "AddRows") else 2)
    return counted


def _require_logistic(problem: Problem) -> None:
    if problem.classes is None:
        raise ValueError(
            "the gradient of a squared loss has no bound, so that no noise hides a row: pass a "
            "LogisticRegression"
        )
    if problem.fit_intercept:
        raise ValueError(
            "an intercept has neither penalty nor noise, and would tell of a row: fit with "
            "fit_intercept=False, with a constant column in X if need be"
        )
