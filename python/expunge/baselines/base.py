"""The face of every strategy, and the engine that edits the data under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf, sqrt
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from .. import _core
from .._arrays import Float
from .._html import table
from ..current import CurrentData
from ..engine.attached import Attached
from ..engine.columns import Touched
from ..engine.fitted import Fitted, polished
from ..engine.near import ALMOST, TIGHTER, distance_at
from ..engine.products import Products
from ..engine.solver import MAX_ITER, check_converged, choose_block, warn_of_distance
from ..engine.state import How, Outcome, Promise, Staged, State, without_curvature
from ..errors import ConvergenceError
from ..models.adopt import problem_of
from ..models.base import noise_of
from ..problem import Problem
from ..release import NoBudget
from ..requests import RemoveRows, Request, as_requests
from ..update import Update
from ..verb import TakesTurns
from .rows import Design

Kept = TypeVar("Kept")

FEW = 32  # parameters, of which all eigenvalues are found as fast as one


class Solution(NamedTuple):
    """The theta that a strategy chose for D', and what it knows of it."""

    theta: Float
    passes: float  # over all rows; a part of them is a part of a pass
    at: _core.Evaluation | None = None  # J there; None: not measured
    distance: float = inf  # of E41, where it is known


class Strategy(CurrentData, TakesTurns):
    """What strategies have in common: a fitted model and its data, which requests change together.

    Those whose model is one theta write `_choose`. All that a request may change is set back where it fails.

    Attributes
    ----------
    name : str
        What an Update calls its method.
    accepts : tuple of types
        Kinds of requests that it takes.
    """

    name: ClassVar[str]
    accepts: ClassVar[tuple[type[Request], ...]] = (Request,)
    because: ClassVar[str] = ""  # why it accepts no others
    how: ClassVar[How] = How("exact")  # with hessian="original" the engine keeps H from before the request

    _fitted: Fitted
    _budget: Any = NoBudget()
    _gradients: int = 0

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        promise: Promise | None = None,
    ) -> None:
        problem = problem_to_compare(model).with_noise(noise_of(model))
        self._begin(problem)
        promise = promise or Promise.checked(None, None)
        engine, _ = polished(model, problem, promise, X, y, sample_weight, False, False, None, None)
        self._take(model, Engine(engine, self))

    def _take(self, model: Any, engine: Engine) -> None:
        """The model becomes what the engine says."""
        self._engine, self._fitted = engine, Fitted(model, engine)
        self._begin_turns()
        self._fitted.write(engine.state.residual)

    @property
    def model(self) -> Any:
        """What predicts."""
        return self._fitted.model

    @property
    def gradients(self) -> int:
        """Gradients of single rows that the last request took: its passes, not rounded up, times rows."""
        return self._gradients

    def apply(self, request: Request | Iterable[Request]) -> Update:
        """Corrects data and model.

        Parameters
        ----------
        request : request or list of requests
            A list means its members applied in order, as one atomic request.

        Returns
        -------
        Update
            `method` is the strategy's `name`. `passes` counts passes over all rows, rounded up; `gradients`
            of the strategy are those of single rows. `residual` is None and `residual_bound` and `distance`
            infinite where the strategy itself does not measure them: :meth:`residual` and :meth:`distance`
            do, in time that is not its own. `gradient_difference` is NaN where columns were revoked.

        Raises
        ------
        ValueError, TypeError
            A request that cannot be granted, or that the strategy does not define. After this and all other
            errors nothing has changed.
        ConvergenceError, NotPositiveDefiniteError
            The numbers do not allow it.
        """
        requests = as_requests(request)
        with self._lock, self._verb:
            self._fitted.check()
            self._check(requests)
            return self._fitted.apply(requests, self.how, self._budget)

    def _begin(self, problem: Problem) -> None:
        """ValueError for a problem that the strategy does not define; before anything is done."""

    def _check(self, requests: Sequence[Request]) -> None:
        """ValueError for a request that the strategy does not define."""
        for request in requests:
            if not isinstance(request, self.accepts):
                raise ValueError(
                    f"{type(self).__name__} does not define {type(request).__name__}: {self.because}. "
                    "Retraining, SecondOrder, Exact and Auto take every request"
                )

    def _look(self, requests: Sequence[Request]) -> None:
        """Called before the data are edited."""

    def _choose(self, staged: Staged) -> Solution:
        """The theta for the data as they are now, after the edits of the request."""
        raise NotImplementedError

    def _shown(self) -> dict[str, Any]:
        """Sizes and settings, no values of the data."""
        data = self._fitted.engine.data
        return {
            "model": type(self.model).__name__,
            "rows": int(data.counts.sum()),
            "features": data.n_columns,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in self._shown().items())})"

    def _repr_html_(self) -> str:
        return table(type(self).__name__, self._shown())


class Engine(Attached):
    """Rows that requests edit, and a theta that a strategy chooses. No statistics outlive a request.

    Parameters
    ----------
    start : Attached
        With theta at the minimum.
    strategy : Strategy
    """

    def __init__(self, start: Attached, strategy: Strategy) -> None:
        super().__init__(start.problem, start.data, start.promise, start.solver, start.memory_limit)
        theta, at, anchor = start.state.theta, start.state.at, start.state.anchor
        keeps = strategy.how.hessian == "original" or (anchor is not None and not anchor.complete)
        self.state = State(theta, at, anchor if keeps else None, keeps)
        self._strategy = strategy
        self._sides: tuple[_core.Objective | None, _core.Objective | None] = (None, None)

    # --- a request

    def stage(self, requests: Sequence[Request], how: How) -> Staged:
        """Edits the data (E2), after the strategy has looked at them."""
        self._strategy._look(requests)
        return super().stage(requests, how)

    def _measured_before(self, requests: Sequence[Request]) -> int:
        return 0

    def _edited(
        self, touched: Touched, how: How
    ) -> tuple[_core.Evaluation | None, _core.AnchoredStatistics | None, _core.Anchor | None, bool]:
        self._sides = touched.rows.objectives(self.problem.loss, self.problem.fit_intercept)
        return self.difference_at(self.state.theta), None, None, False

    def difference_at(self, theta: Float) -> _core.Evaluation:
        """E3 at any theta, of the request that is being granted."""
        was, now = self._sides
        if was is None is now:
            return _core.Evaluation(0.0, np.zeros_like(theta))
        return _core.difference(was, now, theta)

    def choose(self, staged: Staged) -> tuple[State, Outcome]:
        """Chooses theta as the strategy does."""
        return self.outcome(staged, self._strategy._choose(staged))

    def outcome(self, staged: Staged, found: Solution) -> tuple[State, Outcome]:
        """The state and the outcome of a strategy's choice."""
        if not np.isfinite(found.theta).all():
            raise ConvergenceError(
                f"{self._strategy.name} leaves the range of floating point on these data: scale the columns "
                "of X to a size near 1, or use Retraining"
            )
        self._sides = (None, None)  # they hold the rows that left
        self._strategy._gradients = round(found.passes * self.data.register.live().size)
        at, theta, anchor = found.at, found.theta, self.state.anchor
        if anchor is not None and (anchor.complete or staged.dropped.size):
            anchor = None  # an incomplete one goes on as a preconditioner
        residual = None if at is None else at.residual
        difference = np.full(theta.size, np.nan)
        if staged.difference is not None and not staged.features_revoked:
            difference = staged.difference.gradient
        return State(theta, at and without_curvature(at), anchor, anchor is not None), Outcome(
            self._strategy.name,
            theta - staged.left_of(self.state.theta),
            difference,
            residual,
            inf if residual is None else residual,
            ceil(found.passes),
            False,
            0,
            found.distance,
        )

    # --- what strategies are made of

    def goal(self) -> float:
        """The residual that training on D' aims at first."""
        _, y, s = self.data.register.of(self.data.register.live())
        return first_goal(self, y, s)

    def trained_from(self, theta: Float, problem: Problem | None = None) -> Solution:
        """Training on D' from theta, until the promise is kept."""
        data = self.data
        wide = self.problem.constant_hessian and not data.is_sparse and data.weighted_rows < theta.size
        objective = self._objective_in_one_piece() if wide else self.objective(problem)
        return trained(self, objective, theta, self.goal(), dual=wide)

    def hessian(self, theta: Float, objective: _core.Objective | None = None) -> _core.Anchor | Products:
        """H of D' at theta, or of another objective on these rows, in a form that solves; see `passes_of`."""
        objective, anchor = objective or self.objective(), self.state.anchor
        if anchor is None:
            anchor = _core.Anchor(objective, theta, self.block(objective, theta.size))
            if anchor.complete:
                return anchor
        return self.products(objective, objective.curvature(theta), anchor)

    def gram_norm(self) -> float:
        """``|S^1/2 X|^2`` for step sizes, by Lanczos' method; E4 bounds it, which these need not."""
        data, p = self.data, self.state.theta.size
        squared = self.problem.objective(
            data.blocks(),
            data.kept,
            stored=data.stored_columns(data.kept),
            loss="squared",
            penalised=False,
            noisy=False,
            shift=data.stored_shift,
        )
        zero = np.zeros(p)
        if p <= FEW:
            return float(np.linalg.eigvalsh(squared.hessian(zero))[-1])
        G = LinearOperator((p, p), matvec=lambda v: squared.hvp(zero, np.ravel(v)), dtype=np.float64)
        return float(eigsh(G, k=1, v0=np.ones(p), tol=1e-3, return_eigenvectors=False)[0])

    def rows(self, X: Any) -> Design:
        """Rows over the surviving columns, as theta takes them."""
        return Design.of(X, self.data.surviving_shift(), self.problem.fit_intercept)

    def design(self, X: Any) -> Design:
        """The same of rows over the stored columns."""
        columns = self.data.stored_columns(self.data.kept)
        return self.rows(X if columns is None else X[:, columns])


def first_goal(engine: Attached, y: Float, s: Float) -> float:
    """The residual that training aims at first: nearly what proves the promise by the penalty alone."""
    within, problem = engine.promise.within, engine.problem
    if within is None:
        return engine.promise.goal
    return ALMOST * within * sqrt(problem.alpha) * problem.spread(y, s)


def trained(
    engine: Attached, objective: _core.Objective, theta: Float, goal: float, *, dual: bool = False
) -> Solution:
    """Newton's method (E11) from theta as in an estimator's fit, until the engine's promise is kept."""
    within, passes = engine.promise.within, 0
    block = choose_block(engine.solver, engine.memory_limit, objective, theta.size)
    while True:
        minimum = _core.minimize(objective, theta, goal, MAX_ITER, block=block, dual=dual)
        passes += minimum.passes
        theta, at, floor = minimum.theta, minimum.at, minimum.floor
        distance = distance_at(engine, objective, theta, at, floor, minimum.anchor)
        check_converged(objective, minimum, goal if within is None else max(goal, floor), distance=distance)
        if within is None or distance <= within:
            break
        if goal == 0.0:
            warn_of_distance(distance, within)
            break
        goal = TIGHTER * minimum.residual if minimum.residual > floor else 0.0
    return Solution(theta, passes, at, distance)


def passes_of(H: _core.Anchor | Products) -> int:
    """Passes that a Hessian took: one to assemble it or its curvature, and one for each product."""
    return 1 + H.passes if isinstance(H, Products) else 1


class Removal(Strategy):
    """A strategy that its paper defines for rows that leave, and for nothing else."""

    accepts = (RemoveRows,)


class Memory(Generic[Kept]):
    """What a strategy remembers beside theta. It goes with a theta, so that no interrupt parts them."""

    def __init__(self, theta: Float, value: Kept) -> None:
        self._known = [(theta, value)]

    def at(self, theta: Float) -> Kept:
        """What was remembered with this very array."""
        return next(value for known, value in self._known if known is theta)

    def put(self, before: Float, theta: Float, value: Kept) -> None:
        """Remembers it with theta, another array than `before`, which the state may still go back to."""
        self._known = [(before, self.at(before)), (theta, value)]


def problem_to_compare(model: Any) -> Problem:
    """What a model minimises; TypeError unless that is Ridge's or LogisticRegression's, as in the papers."""
    problem = problem_of(model)
    problem.require_one_output("a baseline")
    if problem.loss not in ("squared", "logistic") or problem.per_weight is not None:
        raise TypeError(
            f"{type(model).__name__} cannot be compared: baselines are of Ridge and LogisticRegression. "
            "Unlearner takes it"
        )
    return problem
