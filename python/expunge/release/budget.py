"""The residual that the noise in an objective hides, and what a request does when it is exceeded (E15)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from .. import accounting
from ..errors import CertificateError
from ..noise import Noise
from ..problem import Problem

if TYPE_CHECKING:
    from ..engine.attached import Attached
    from ..engine.detached import Detached
    from ..engine.state import Outcome, Staged, State

OnExhausted = Literal["settle", "retrain", "raise"]
ON_EXHAUSTED = get_args(OnExhausted)

LEAST_DELTA = 2.0**-53  # memory and random generators fail with a larger probability than anything smaller


def check_epsilon_delta(epsilon: Any, delta: Any) -> tuple[float, float]:
    """Checks both and returns them as floats."""
    accounting.mu(epsilon, delta)
    epsilon, delta = float(epsilon), float(delta)
    if delta < LEAST_DELTA:
        raise CertificateError(
            f"delta {delta:.3g} is below 2**-53, and that something fails in a machine, its memory or its "
            "random numbers, is more probable: use a larger delta"
        )
    return epsilon, delta


def hidden(epsilon: float, delta: float, sigma: float) -> float:
    """Largest profile residual that noise in the objective hides (E15)."""
    return sigma * accounting.guo_mu(epsilon, delta)


@dataclass(frozen=True)
class Budget:
    """How much of what the objective's noise hides is taken (E15).

    Attributes
    ----------
    epsilon, delta : float
        What the noise is to be good for.
    sigma : float
        Its standard deviation.
    on_exhausted : {"settle", "retrain", "raise"}
        What a request does that would spend more than `total`.
    total : float
        The largest profile residual that it hides to (epsilon, delta), on the sum scale.
    spent : float
        What the profile residual is at most, rounding counted. Each request measures or bounds it anew: it
        does not add up.
    left : float
        ``total - spent``, not below 0.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    >>> model = ex.LogisticRegression(noise=0.01).fit(X, y)
    >>> un = ex.Unlearner(model, X, y, epsilon=0.5, delta=1e-5)
    >>> round(un.budget.total, 5), un.budget.spent < 1e-7
    (0.00102, True)
    """

    epsilon: float
    delta: float
    sigma: float
    on_exhausted: OnExhausted
    total: float
    spent: float

    @classmethod
    def promised(cls, epsilon: Any, delta: Any, on_exhausted: Any, noise: Noise | None) -> Self | None:
        """The budget of a promise, of which nothing is measured yet; None where nothing is promised."""
        if on_exhausted not in ON_EXHAUSTED:
            raise ValueError(
                f"unknown on_exhausted={on_exhausted!r}: choose one of {', '.join(ON_EXHAUSTED)}"
            )
        if epsilon is None and delta is None:
            return None
        if epsilon is None or delta is None:
            raise ValueError("epsilon and delta make a budget together: give both or neither")
        if noise is None:
            raise ValueError(
                "epsilon and delta are for a model with noise in its objective, "
                "LogisticRegression(noise=sigma): others take them at release"
            )
        epsilon, delta = check_epsilon_delta(epsilon, delta)
        return cls(epsilon, delta, noise.sigma, on_exhausted, hidden(epsilon, delta, noise.sigma), np.inf)

    def check(self, profile: float) -> None:
        """CertificateError where the profile residual may exceed the budget."""
        if not profile <= self.total:
            raise CertificateError(
                f"the profile residual is at most {profile:.3g}, above the {self.total:.3g} that noise of "
                f"{self.sigma:g} hides to epsilon {self.epsilon:g}, delta {self.delta:g}: use a smaller "
                "tolerance and on_exhausted='settle', or train with more noise"
            )

    def begin(self, engine: Attached) -> None:
        """Measures the residual of the model as it came, and checks it."""
        state = engine.state
        profile = engine.profile(state, np.inf, engine.problem)
        self.check(profile)
        engine.state = state._replace(profile=profile)

    def within(
        self, engine: Attached | Detached, staged: Staged, state: State, outcome: Outcome
    ) -> tuple[State, Problem, Outcome]:
        """The chosen state if the noise hides its profile residual; else the one that `on_exhausted` says.

        CertificateError where neither is hidden.
        """
        problem = engine.problem
        profile = engine.profile(state, outcome.residual_bound, problem)
        outcome = outcome._replace(passes=outcome.passes + int(state.at is not None))  # the rounding floor
        if not profile <= self.total:
            if self.on_exhausted == "raise" or not engine.attached:
                self.check(profile)
            if self.on_exhausted == "settle":
                state, instead = engine.settle(staged)
            else:
                assert problem.noise is not None
                problem = problem.with_noise(problem.noise.again())
                state, instead = engine.retrained(staged, outcome, problem)
            profile = engine.profile(state, instead.residual_bound, problem)
            self.check(profile)
            outcome = outcome._replace(
                step=instead.step,
                residual=instead.residual,
                residual_bound=instead.residual_bound,
                since_anchor=instead.since_anchor,
                distance=instead.distance,
                passes=outcome.passes + instead.passes + int(state.at is not None),
                settled=True,
            )
        return state._replace(profile=engine.kept_profile(profile, self.total)), problem, outcome

    def told(self, engine: Attached | Detached) -> Self:
        """The budget with what is spent now, for users and files."""
        return replace(self, spent=engine.spent())

    @property
    def left(self) -> float:
        """See the class."""
        return max(0.0, self.total - self.spent)

    def __str__(self) -> str:
        promise = f"epsilon {self.epsilon:g}, delta {self.delta:g}"
        return f"Budget: {self.spent:.3g} of {self.total:.3g} spent ({promise})"


class NoBudget:
    """A :class:`Budget` where nothing is promised: every outcome is within it."""

    def begin(self, engine: Attached) -> None:
        """Nothing to check."""

    def within(
        self, engine: Attached | Detached, staged: Staged, state: State, outcome: Outcome
    ) -> tuple[State, Problem, Outcome]:
        """The state and outcome as they were chosen."""
        return state, engine.problem, outcome

    def told(self, engine: Attached | Detached) -> None:
        """Nothing to tell."""
