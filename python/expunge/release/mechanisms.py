"""How coefficients are released: public constants give the scale of noise or of cells (E15-E17)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, isqrt, nextafter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .. import accounting
from .._arrays import Float
from .._numbers import as_number
from ..errors import CertificateError
from ..noise import Grid, Noise, add_normal, grid_of, round_with_offset
from .budget import check_epsilon_delta, hidden
from .certificate import (
    AGAINST,
    FLOORS,
    MECHANISMS,
    THEOREMS,
    Against,
    Certificate,
    Mechanism,
    assumptions_of,
)
from .verify import Measured, best_intercept

if TYPE_CHECKING:
    from ..engine.attached import Attached


def check_theta_bound(value: Any) -> float:
    """The public bound of coefficients as float, or an error."""
    return as_number(value, "theta_bound", above=0.0)


@dataclass(frozen=True)
class Terms:
    """The public constants of a release: noise depends on nothing else (E16, E17)."""

    mechanism: Mechanism
    epsilon: float
    delta: float
    against: Against
    tolerance: float
    alpha: float
    theta_bound: float

    @classmethod
    def checked(
        cls,
        mechanism: Any,
        epsilon: Any,
        delta: Any,
        against: Any,
        *,
        tolerance: float,
        alpha: float,
        theta_bound: float,
        noise: Noise | None,
    ) -> Self:
        """One whose tolerance is what the profile residual must be at most; or an error."""
        if mechanism not in MECHANISMS:
            raise ValueError(f"unknown mechanism {mechanism!r}: choose one of {', '.join(MECHANISMS)}")
        if against is None:
            against = "minimiser" if mechanism == "objective" else "retraining"
        if against not in AGAINST:
            raise ValueError(f"unknown comparison against={against!r}: choose one of {', '.join(AGAINST)}")
        epsilon, delta = check_epsilon_delta(epsilon, delta)
        public = cls(mechanism, epsilon, delta, against, tolerance, alpha, theta_bound)
        if mechanism == "objective":
            if noise is None:
                raise CertificateError(
                    "mechanism='objective' needs a model that was trained with noise: fit "
                    "LogisticRegression(noise=sigma), or use mechanism='output'"
                )
            noise.values  # noqa: B018 - raises if they are lost
            public = replace(public, tolerance=hidden(epsilon, delta, noise.sigma) / public.models)
        elif not tolerance > 0:
            raise CertificateError(
                "a tolerance of 0 cannot be verified: make the Unlearner with a larger one"
            )
        return public

    @property
    def models(self) -> int:
        """How many of the two models may be off the minimiser by the tolerance."""
        return 2 if self.against == "retraining" else 1

    @property
    def shift(self) -> Fraction:
        """Largest distance between the coefficients of the two (E10)."""
        return self.models * Fraction(self.tolerance) / Fraction(self.alpha)

    def grid(self, d: int) -> Grid:
        """What the noise (E16) or cells (E17) of d coefficients are made of: as wide as they must be."""
        if self.mechanism == "output":
            return grid_of(self.shift / Fraction(accounting.mu(self.epsilon, self.delta)), self.theta_bound)
        width = _root(d) * self.shift / Fraction(self.delta)
        return grid_of(width, self.theta_bound, even=True)

    def apply(self, coef: Float, random_state: int | None) -> tuple[Float, dict[str, Any]]:
        """The coefficients that are released, and what of the certificate says how."""
        if self.mechanism == "output":
            grid = self.grid(coef.size)
            noised = add_normal(np.ascontiguousarray(coef), grid, random_state)
            return noised, {
                "sigma": grid.width,
                "mu": _above(self.shift / grid.exact),
                "resolution": grid.step,
            }
        if self.mechanism == "rounding":
            grid = self.grid(coef.size)
            rounded = round_with_offset(np.ascontiguousarray(coef), grid, random_state)
            return rounded, {"grid": grid.width, "resolution": grid.step}
        return coef.copy(), {}

    def check(self, coef: Float, at: Measured) -> None:
        """CertificateError where these coefficients may not be released; `at` is there, with their intercept.

        Judged by what is released, by what the data are now and by public constants: so the refusal tells no
        more than the release would have.
        """
        if self.mechanism != "objective" and not np.abs(coef).max() <= self.theta_bound:
            raise CertificateError(
                f"a released coefficient exceeds theta_bound, {self.theta_bound:g}: make the Unlearner with "
                "one that holds for all data that may come, or with a larger alpha"
            )
        if not FLOORS * at.floor <= self.tolerance:
            raise CertificateError(
                f"the tolerance, {self.tolerance:.3g}, is below {FLOORS:g} times the rounding floor, "
                f"{at.floor:.3g}: make the Unlearner with a larger one, or scale the rows of X"
            )

    def certificate(
        self, verified: Measured, scale: dict[str, Any], noise: Noise | None, random_state: int | None
    ) -> Certificate:
        """Of a release of these parameters."""
        if self.mechanism == "objective":
            random_state = None if noise is None else noise.random_state
        return Certificate(
            **{
                "mechanism": self.mechanism,
                "epsilon": self.epsilon,
                "delta": self.delta,
                "sigma": noise.sigma if self.mechanism == "objective" and noise else None,
                "grid": None,
                "resolution": None,
                "mu": None,
                "against": self.against,
                "tolerance": self.tolerance,
                "strong_convexity": self.alpha,
                "theta_bound": self.theta_bound,
                "theorem": THEOREMS[self.mechanism],
                "assumptions": assumptions_of(self.mechanism),
                "void": "noise reproducible" if random_state is not None else None,
                "residual": verified.residual,
                "residual_bound": verified.bound,
                "floor": verified.floor,
                **scale,
            }
        )


def _above(value: Fraction) -> float:
    """A float that is not below the value."""
    nearest = float(value)
    return nearest if nearest >= value else nextafter(nearest, inf)


def _root(d: int) -> Fraction:
    """An upper bound of the square root of d, exact for squares."""
    return Fraction(isqrt((d << 128) - 1) + 1, 1 << 64)


def release(
    engine: Attached,
    theta_bound: float,
    mechanism: Any,
    epsilon: Any,
    delta: Any,
    against: Any,
    *,
    random_state: int | None,
) -> tuple[Float, Certificate]:
    """Theta that may be given away, and its certificate; CertificateError where none may."""
    problem = engine.problem
    if problem.fit_intercept and not problem.free_intercept:
        raise CertificateError(
            f"{problem.kind}, whose intercept is penalised, is not released: fit LogisticRegression"
        )
    terms = Terms.checked(
        mechanism,
        epsilon,
        delta,
        against,
        tolerance=engine.tolerance,
        alpha=problem.alpha,
        theta_bound=theta_bound,
        noise=problem.noise,
    )
    by_distance = terms.mechanism != "objective"  # whose noise hides a residual (E15)
    found = engine.verify(terms.tolerance, by_distance=by_distance)
    exact = problem.split(found.theta)[0]
    coef, scale = terms.apply(exact.ravel(), random_state)
    coef = coef.reshape(exact.shape)
    theta = coef.ravel()
    if problem.fit_intercept:
        panels = engine.data.panels()
        theta = problem.joined(coef, best_intercept(panels, coef, problem.row_loss))
    terms.check(coef, engine.measured(theta, None))
    if not found.bound <= terms.tolerance:
        raise CertificateError(
            "iterations did not bring the profile residual within the tolerance, "
            f"{terms.tolerance:.3g}: scale the columns of X, or raise alpha"
        )
    return theta, terms.certificate(found, scale, problem.noise, random_state)
