"""What may be given away: certified copies of a model (E15, E16, E17), and their certificates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from math import hypot, inf, isfinite, isqrt, nextafter
from typing import Any, Literal, Self, get_args

import numpy as np
from scipy import sparse
from scipy.optimize import brentq

from . import _core, accounting
from ._arrays import Float
from .engine.solver import check_tolerance
from .errors import CertificateError
from .losses import Loss
from .noise import Grid, Noise, add_normal, grid_of, round_with_offset

__all__ = ["Budget", "Certificate"]

Mechanism = Literal["output", "rounding", "objective"]
Against = Literal["retraining", "minimiser"]
OnExhausted = Literal["settle", "retrain", "raise"]
MECHANISMS, AGAINST, ON_EXHAUSTED = get_args(Mechanism), get_args(Against), get_args(OnExhausted)

LEAST_DELTA = 2.0**-53  # memory and random generators fail more often than what is smaller

FLOORS = 4.0  # rounding floors that a tolerance has to be: so many that iterations reach it from anywhere

_TRUSTED, _CHECKED = "taken on trust", "checked"

_OUTSIDE = (
    "whatever was computed from the data before: scalers, vocabularies, class weights, thresholds, "
    "hyper-parameters chosen on it",
    "models, predictions, residuals and receipts given away before, and what two releases tell together "
    "(compose their ratios; two with one noise in the objective tell everything)",
    "copies of the rows themselves: files, backups, logs",
)


def check_epsilon_delta(epsilon: Any, delta: Any) -> tuple[float, float]:
    """Both as floats, or an error."""
    accounting.mu(epsilon, delta)
    epsilon, delta = float(epsilon), float(delta)
    if delta < LEAST_DELTA:
        raise CertificateError(
            f"delta {delta:.3g} is below 2**-53, and that something fails in a machine, its memory or its "
            "random numbers, is more probable: use a larger delta"
        )
    return epsilon, delta


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
        """What comes with noise in the objective, nothing known yet of what is spent; None for no promise."""
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
        """CertificateError where the profile residual may be above it."""
        if not profile <= self.total:
            raise CertificateError(
                f"the profile residual is at most {profile:.3g}, above the {self.total:.3g} that noise of "
                f"{self.sigma:g} hides to epsilon {self.epsilon:g}, delta {self.delta:g}: use a smaller "
                "tolerance and on_exhausted='settle', or train with more noise"
            )

    @property
    def left(self) -> float:
        """See the class."""
        return max(0.0, self.total - self.spent)

    def __str__(self) -> str:
        promise = f"epsilon {self.epsilon:g}, delta {self.delta:g}"
        return f"Budget: {self.spent:.3g} of {self.total:.3g} spent ({promise})"


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed of a released model, by which theorem, and on which assumptions.

    (epsilon, delta): for each event, its probability under this release is at most e^epsilon times its
    probability under the same release of a model that never saw what was forgotten, plus delta; and the
    reverse. docs/certificates.md says it in words.

    Attributes
    ----------
    mechanism : {"output", "rounding", "objective"}
    epsilon, delta : float
    sigma : float or None
        Standard deviation of the noise: on each coefficient (output), in the objective (objective).
    grid : float or None
        Width of the cells that coefficients are rounded to (rounding).
    resolution : float or None
        A power of two: released coefficients are multiples of it, and tell nothing below (output, rounding).
    mu : float or None
        Ratio of shift to scale (E14), for :func:`expunge.accounting.compose`; of the output mechanism.
    against : {"retraining", "minimiser"}
        What it is compared with: a retraining that stops at the same tolerance, or the exact minimiser.
    tolerance : float
        Public: what the profile residual is at most, rounding counted, on the sum scale.
    strong_convexity : float
        Least penalty of a coefficient: the coefficients are within tolerance / strong_convexity of the
        minimiser's (E10).
    theta_bound : float
        Public: what no coefficient exceeds.
    theorem : str
    assumptions : tuple of (str, str)
        Each with whether it was "checked" or is "taken on trust".
    outside : tuple of str
        What the certificate says nothing about.
    void : str or None
        Why it is worth nothing.
    residual : float or None
        The verified profile residual without rounding. This and the next two depend on the data: they are for
        the operator, stay out of repr, `as_dict` and pickles (None), and are not to be published.
    residual_bound : float or None
        What it is at most, rounding counted: at most `tolerance`.
    floor : float or None
        The part of rounding in it (E19).

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    >>> certificate = un.release(epsilon=1.0, delta=1e-5).certificate_
    >>> f"{certificate.sigma:.3g}, {certificate.mu:.3g}", certificate.residual_bound <= certificate.tolerance
    ('7.46e-08, 0.268', True)
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    sigma: float | None
    grid: float | None
    resolution: float | None
    mu: float | None
    against: Against
    tolerance: float
    strong_convexity: float
    theta_bound: float
    theorem: str
    assumptions: tuple[tuple[str, str], ...] = field(repr=False)
    outside: tuple[str, ...] = field(default=_OUTSIDE, repr=False)
    void: str | None = None
    residual: float | None = field(default=None, repr=False, compare=False)
    residual_bound: float | None = field(default=None, repr=False, compare=False)
    floor: float | None = field(default=None, repr=False, compare=False)

    def published(self) -> Self:
        """The same without what depends on the data."""
        return replace(self, residual=None, residual_bound=None, floor=None)

    def as_dict(self) -> dict[str, Any]:
        """Its public fields, as JSON takes them."""
        fields = asdict(self)
        for name in ("residual", "residual_bound", "floor"):
            del fields[name]
        fields["assumptions"] = [{"assumption": text, "status": status} for text, status in self.assumptions]
        fields["outside"] = list(self.outside)
        return fields

    def __reduce__(self) -> tuple[Any, ...]:
        public = self.published()
        return _certificate, ({name: getattr(public, name) for name in self.__dataclass_fields__},)

    def __str__(self) -> str:
        scale = f"grid {self.grid:.3g}" if self.sigma is None else f"sigma {self.sigma:.3g}"
        lines = [
            f"Certificate: ({self.epsilon:g}, {self.delta:g}), {self.mechanism} mechanism, {scale}",
            f"  against {self.against}; tolerance {self.tolerance:.3g}, strong convexity "
            f"{self.strong_convexity:.3g}",
            f"  {self.theorem}",
            *(f"  {status}: {text}" for text, status in self.assumptions),
            *(f"  outside: {text}" for text in self.outside),
        ]
        if self.void is not None:
            lines.insert(0, f"void: {self.void}")
        return "\n".join(lines)


def _certificate(fields: dict[str, Any]) -> Certificate:
    return Certificate(**fields)


# --- how far from the minimiser


def norm_factor(largest_norm: float, fit_intercept: bool) -> float:
    """What the profile residual is at most, for a whole gradient of norm 1 (E10)."""
    return hypot(1.0, largest_norm) if fit_intercept else 1.0


def profile_residual(gradient: Float, largest_norm: float, fit_intercept: bool) -> float:
    """``|dJ/dcoef| + max |x| |dJ/dintercept|`` (E10), this sum's own rounding counted."""
    rounding = 1.0 + 2.0 * (gradient.size + 8) * 2.0**-53
    if not fit_intercept:
        return float(np.linalg.norm(gradient)) * rounding
    return (float(np.linalg.norm(gradient[:-1])) + largest_norm * abs(float(gradient[-1]))) * rounding


@dataclass(frozen=True)
class Measured:
    """Parameters with what their profile residual is at most: functions of these and of the data as they are.

    Not of what the data were: rows come one after the other in the order of their numbers, without those that
    left, and so does the largest norm. What left neither moves a bit nor widens a bound.
    """

    theta: Float
    residual: float  # without rounding
    floor: float  # of rounding: E19, in profile
    largest_norm: float  # of a row

    @property
    def bound(self) -> float:
        """Of the profile residual."""
        return self.residual + self.floor


def measure(
    panels: Iterable[tuple[Any, Float, Float]],
    theta: Float,
    loss: str,
    penalty: Float,
    fit_intercept: bool,
    noise: Float,
) -> Measured:
    """The profile residual (E10) at theta (p,) and its floor (E19), of rows that come panel by panel.

    What the panels add up to is compensated, so that each term goes through two more roundings, and not
    through one more for each panel.
    """
    total, lost, size = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    floor = largest_norm = 0.0
    for X, y, s in panels:
        rows = _core.Objective([(X, y, s)], loss, np.zeros_like(theta), fit_intercept)
        g = rows.evaluate(theta).gradient
        floor += rows.rounding_floor(theta)
        largest_norm = max(largest_norm, _core.largest_norm(X if (s > 0).all() else X[s > 0]))
        size += np.abs(g)
        total, before = total + g, total
        from_g = total - before
        lost += (before - (total - from_g)) + (g - from_g)
    gradient = total + lost + (penalty * theta + noise)
    added = np.linalg.norm(size) + np.linalg.norm(np.abs(penalty * theta) + np.abs(noise))
    floor += 4.0 * 2.0**-53 * float(added)
    return Measured(
        theta,
        profile_residual(gradient, largest_norm, fit_intercept),
        norm_factor(largest_norm, fit_intercept) * floor,
        largest_norm,
    )


# --- what is done to the coefficients


@dataclass(frozen=True)
class Terms:
    """What is public of a release. All that noise depends on is here (E16, E17)."""

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
        """How many models are off the minimiser by the tolerance."""
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
        assumptions = [
            ("the profile residual, measured and rounding counted, is at most the tolerance", _CHECKED),
            (
                f"iterations reach a tolerance of {FLOORS:g} rounding floors in both worlds: if they failed "
                "in one, its refusal would tell",
                _TRUSTED,
            ),
            (
                "tolerance, penalty, theta_bound, epsilon and delta were chosen without the forgotten data",
                _TRUSTED,
            ),
            ("how long the release took, and how many passes, is not observed", _TRUSTED),
            *_ASSUMED[self.mechanism],
        ]
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
                "theorem": _THEOREMS[self.mechanism],
                "assumptions": tuple(assumptions),
                "void": "noise reproducible" if random_state is not None else None,
                "residual": verified.residual,
                "residual_bound": verified.bound,
                "floor": verified.floor,
                **scale,
            }
        )


_BOUNDED = ("no released coefficient exceeds theta_bound", _CHECKED)
_ASSUMED: dict[Mechanism, tuple[tuple[str, str], ...]] = {
    "output": (
        _BOUNDED,
        ("the operating system's random numbers are random, and nobody else knows them", _TRUSTED),
    ),
    "rounding": (_BOUNDED, ("the random offset was not known before the request", _TRUSTED)),
    "objective": (
        ("epsilon is below 1", _CHECKED),
        ("the operating system's random numbers are random, and nobody else knows them", _TRUSTED),
        ("the noise is drawn on a grid, and theta computed in float64, not in real numbers", _TRUSTED),
        ("the residual does not depend on the noise (it does: iteration starts at its minimiser)", _TRUSTED),
        ("no other model with this noise in its objective was or will be released", _TRUSTED),
    ),
}
_THEOREMS: dict[Mechanism, str] = {
    "output": "analytic Gaussian mechanism (Balle and Wang 2018, Theorem 8; E14) on a distance of at most "
    "tolerance / strong convexity from the minimiser (E10, E16); also for requests that depend on releases",
    "rounding": "rounding with a random offset (E17): released and retrained coefficients are the same "
    "numbers except with probability delta",
    "objective": "certified removal by noise in the objective (Guo et al. 2020, Theorem 3; E15)",
}


def _above(value: Fraction) -> float:
    """A float that is no less."""
    nearest = float(value)
    return nearest if nearest >= value else nextafter(nearest, inf)


def _root(d: int) -> Fraction:
    """No less than the square root of d, and exact for squares."""
    return Fraction(isqrt((d << 128) - 1) + 1, 1 << 64)


def hidden(epsilon: float, delta: float, sigma: float) -> float:
    """Largest profile residual that noise in the objective hides (E15)."""
    return sigma * accounting.guo_mu(epsilon, delta)


def check_theta_bound(value: Any) -> float:
    """The public bound of coefficients as float, or an error."""
    bound = check_tolerance(value, "theta_bound")
    if not bound > 0:
        raise ValueError(f"theta_bound must be a finite number > 0, got {value!r}")
    return bound


def best_intercept(panels: Iterable[tuple[Any, Float, Float]], coef: Float, loss: Loss) -> float:
    """The intercept that minimises J beside these coefficients.

    A function of them and of the rows alone, bit for bit: rows in the order of their numbers, panel by panel,
    from the same start. (The old intercept would remember rows that are gone.)
    """
    parts = [(_products(X, coef), y, s) for X, y, s in panels]
    eta, y, s = (np.concatenate(column) for column in zip(*parts, strict=True))

    def slope(intercept: float) -> float:  # of J, rising
        return float(np.sum(s * loss.d1(y, eta + intercept)))  # s @ d1 would depend on BLAS's threads

    low, high = -1.0, 1.0
    while slope(low) > 0.0 and isfinite(low):
        low *= 2.0
    while slope(high) < 0.0 and isfinite(high):
        high *= 2.0
    if not (isfinite(low) and isfinite(high)):
        raise CertificateError(
            "no intercept was found in the range of floating point: scale the columns of X"
        )
    closest = {"xtol": 4 * np.finfo(float).tiny, "rtol": 4 * np.finfo(float).eps, "maxiter": 10_000}
    return float(brentq(slope, low, high, **closest))


def _products(X: Any, coef: Float) -> Float:
    """X @ coef, each row by itself: bits of BLAS's product depend on its threads and on the rows beside."""
    by_row = sparse.issparse(X)  # entry by entry
    products: Float = X @ coef if by_row else np.sum(X * coef, axis=1, dtype=np.float64)
    return products
