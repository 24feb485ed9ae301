"""Worlds that release models, and what each release is held against: D', its minimiser, the public claim.

What a release computes is computed here once more, so that a mistake there is seen.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import isqrt
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .. import accounting, kernels
from .._arrays import Float
from .._extras import extra
from ..engine.data import COPIED_TOGETHER
from ..errors import CertificateError
from ..losses import Loss, get_loss
from ..models import LogisticRegression, Ridge
from ..models.adopt import problem_of
from ..models.base import noise_of, set_theta, theta_of
from ..noise import Grid, Noise, add_normal, grid_of, round_with_offset
from ..problem import Problem
from ..reference import SUMMED_TOGETHER, UNIT_ROUNDOFF
from ..release import Terms, best_intercept, norm_factor
from ..unlearner import Unlearner
from .separation import FAR, Separation, clopper_pearson, separate

AT_TOLERANCE = 0.99  # of it: where the canary stops, its rounding floor counted
CLOSE = 1e-3  # of the tolerance: where the exact minimiser stops

Data = tuple[Any, Any, Any]  # X, y and weights, as an Unlearner takes them
Release = Callable[[Unlearner, int], Any]  # gives a model whose noise comes from the seed


# --- the corrected data, in NumPy alone


@dataclass(frozen=True, eq=False)
class Rows:
    """D' (E2), and the gradient of J on it."""

    X: Any  # (n, d) array or CSR matrix
    y: Float  # targets
    s: Float
    loss: Loss
    alpha: float
    fit_intercept: bool

    @classmethod
    def of(cls, data: Data, spec: Problem) -> Self:
        """The corrected data, for that objective."""
        spec.require_one_output("audit_certificate")
        X, labels, sample_weight = data
        y = spec.encode(labels, X.shape[0])
        weights = spec.weights(y, sample_weight)
        s = np.ones(y.size) if weights is None else weights
        return cls(X, y, s, get_loss(spec.loss), spec.alpha, spec.fit_intercept)

    @property
    def d(self) -> int:
        """How many columns."""
        width: int = self.X.shape[1]
        return width

    def panels(self, size: int) -> Iterator[tuple[Any, Float, Float]]:
        """X, y and s, some rows at a time."""
        for first in range(0, self.y.size, size):
            rows = slice(first, first + size)
            yield self.X[rows], self.y[rows], self.s[rows]

    @cached_property
    def norms(self) -> Float:
        """|x| of each row (n,)."""
        norm = sparse.linalg.norm if sparse.issparse(self.X) else np.linalg.norm
        return np.concatenate(
            [norm(X.astype(np.float64), axis=1) for X, _, _ in self.panels(SUMMED_TOGETHER)]
        )

    @property
    def curvature(self) -> float:
        """At least the largest eigenvalue of a Hessian of the coefficients."""
        return float(self.alpha + self.loss.max_d2 * (self.s @ self.norms**2))

    def intercept(self, coef: Float) -> float:
        """The best one beside these coefficients."""
        if not self.fit_intercept:
            return 0.0
        return float(best_intercept(self.panels(COPIED_TOGETHER), coef, self.loss))

    def gradients(self, coefs: Float, intercepts: Float) -> tuple[Float, Float]:
        """Of J (E1) at k parameters (k, d) and (k,): (k, d + 1), and the rounding of each number at most.

        The intercept comes last. Within a panel the order of a sum does not matter to its rounding (E19).
        """
        n, d = self.X.shape
        gradient, floor = np.zeros((2, len(coefs), d + 1))
        additions = min(n, SUMMED_TOGETHER) + -(-n // SUMMED_TOGETHER) + 3
        for X, y, s in self.panels(SUMMED_TOGETHER):
            eta = X @ coefs.T + intercepts
            r = self.loss.d1(y[:, None], eta)
            spread = (d + 3) * (abs(X) @ np.abs(coefs).T + np.abs(intercepts))
            rounding = s[:, None] * (additions * np.abs(r) + self.loss.d1_rounding(r, spread, y[:, None]))
            r = s[:, None] * r
            gradient[:, :d] += (X.T @ r).T
            gradient[:, d] += r.sum(axis=0)
            floor[:, :d] += (abs(X).T @ rounding).T
            floor[:, d] += rounding.sum(axis=0)
        gradient[:, :d] += self.alpha * coefs
        floor[:, :d] += 4.0 * self.alpha * np.abs(coefs)
        if not self.fit_intercept:
            gradient[:, d] = floor[:, d] = 0.0
        return gradient, UNIT_ROUNDOFF * floor

    def profiles(self, coefs: Float, b: Float) -> tuple[Float, Float, Float]:
        """With best intercepts: the gradient without b (k, d), and bounds (k,) of the profile residual."""
        intercepts = np.array([self.intercept(coef) for coef in coefs])
        gradient, floor = self.gradients(coefs, intercepts)
        length = np.linalg.norm(gradient[:, :-1] + b, axis=1)
        error = np.linalg.norm(floor[:, :-1] + 4.0 * UNIT_ROUNDOFF * np.abs(b), axis=1)
        error += self.norms.max() * (np.abs(gradient[:, -1]) + floor[:, -1])  # E10
        return gradient[:, :-1], np.maximum(length - error, 0.0), length + error

    def stationary(self, coefs: Float, intercepts: Float) -> NDArray[np.bool_]:
        """Whether no other intercepts are better, as far as rounding lets one tell (k,)."""
        gradient, floor = self.gradients(coefs, intercepts)
        sums = (2.0 + self.y.size / SUMMED_TOGETHER) * floor[:, -1]  # here, and in one sum over all rows
        step = 16.0 * UNIT_ROUNDOFF * self.loss.max_d2 * self.s.sum() * np.abs(intercepts)
        still: NDArray[np.bool_] = np.abs(gradient[:, -1]) <= sums + step
        return still


# --- the claim, and what contradicts it


@dataclass(frozen=True)
class Claim:
    """The public constants of a release, computed once more (E14 to E17)."""

    public: Terms
    tolerance: float
    sigma: float | None = None
    grid: float | None = None
    mu: float | None = None
    steps: Grid | None = None  # what sigma or grid is made of (E42)

    @classmethod
    def of(cls, public: Terms, d: int, noise: Noise | None) -> Claim:
        """That of d coefficients."""
        models = 2 if public.against == "retraining" else 1
        if public.mechanism == "objective":
            assert noise is not None
            mu = accounting.guo_mu(public.epsilon, public.delta)
            return cls(public, noise.sigma * mu / models, sigma=noise.sigma, mu=mu)  # E15
        shift = models * Fraction(public.tolerance) / Fraction(public.alpha)
        if public.mechanism == "rounding":
            root = Fraction(isqrt(d * 4**64 - 1) + 1, 2**64)  # of d, or just above
            steps = grid_of(root * shift / Fraction(public.delta), public.theta_bound, even=True)  # E17
            return cls(public, public.tolerance, grid=steps.width, steps=steps)
        steps = grid_of(shift / Fraction(accounting.mu(public.epsilon, public.delta)), public.theta_bound)
        mu = float(shift / steps.exact)  # E16
        return cls(public, public.tolerance, sigma=steps.width, mu=mu, steps=steps)

    def contradicted(self, released: Any) -> set[str]:
        """By the certificate of a released model; by none if it has none."""
        found = getattr(released, "certificate_", None)
        if found is None:
            return set()
        public = self.public
        wanted: dict[str, Any] = {name: getattr(public, name) for name in ("mechanism", "against")}
        wanted |= {"epsilon": public.epsilon, "delta": public.delta, "tolerance": self.tolerance}
        wanted |= {"strong_convexity": public.alpha, "theta_bound": public.theta_bound}
        wanted |= {"sigma": self.sigma, "grid": self.grid}
        return {
            f"the certificate says {name} {getattr(found, name)!r}, which must be {value!r}"
            for name, value in wanted.items()
            if not _same(getattr(found, name), value)
        }

    def broken(self, found: Separation) -> Iterator[str]:
        """What of it the separation of two worlds is beyond."""
        if self.mu is not None and found.mu_lower > self.mu:
            yield f"{found.name}: mu is at least {found.mu_lower:.3g}, claimed {self.mu:.3g} ({found.event})"
        if found.epsilon_lower > self.public.epsilon:
            yield (
                f"{found.name}: epsilon is at least {found.epsilon_lower:.3g}, claimed "
                f"{self.public.epsilon:.3g} ({found.event})"
            )
        if found.mismatch_lower is not None and found.mismatch_lower > self.public.delta:
            yield (
                f"{found.name}: the numbers differ with probability at least {found.mismatch_lower:.3g}, "
                f"claimed {self.public.delta:.3g}"
            )


def _same(said: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(said, Real):
        return abs(float(said) - value) <= 1e-12 * abs(value)
    return bool(said == value)


@dataclass(frozen=True, eq=False)
class World:
    """One way to get to released models."""

    name: str
    unlearner: Callable[[int], Unlearner]  # of a run's seed
    release: Release
    noise: Callable[[int], Float] | None = None  # the b of E15, of a run's seed

    def noised(self, sigma: float, kept: NDArray[np.bool_]) -> Self:
        """The same, with noise in the objective: drawn for all columns, of which these are left."""
        return replace(self, noise=lambda seed: Noise.drawn(sigma, kept.size, seed).values[kept])

    def once(self) -> Self:
        """The same, where one Unlearner serves all runs."""
        un = self.unlearner(0)
        return replace(self, unlearner=lambda seed: un)


@dataclass(frozen=True, eq=False)
class Seen:
    """The released models of one world, and what is wrong with them whatever another is like."""

    world: World
    seeds: list[int]
    released: Float  # (runs, d + 1) coefficients and intercept, FAR where they are not there
    reasons: list[str]

    @classmethod
    def of(cls, world: World, seeds: list[int], claim: Claim, d: int, progress: bool) -> Self:
        """Releases once for each seed."""
        numbers, contradicted = np.full((len(seeds), d + 1), FAR), set()
        along = extra("tqdm").tqdm(seeds, desc=world.name, unit="release") if progress else seeds
        for run, seed in enumerate(along):
            released = world.release(world.unlearner(seed), seed)
            found = np.append(np.ravel(released.coef_), np.ravel(released.intercept_))
            if found.size == d + 1 and (np.abs(found) < FAR).all():
                numbers[run] = found
            contradicted |= claim.contradicted(released)
        seen = cls(world, seeds, numbers, [f"{world.name}: {text}" for text in sorted(contradicted)])
        seen.note(numbers[:, 0] == FAR, f"what is released is not {d} finite coefficients and an intercept")
        return seen

    def note(self, wrong: NDArray[np.bool_], text: str) -> None:
        """A reason, if any run is wrong."""
        if wrong.any():
            self.reasons.append(f"{self.world.name}: {text} ({np.count_nonzero(wrong)} of {wrong.size} runs)")


@dataclass(frozen=True, eq=False)
class Truth:
    """What released models are held against: D', the minimiser there, and the claim."""

    rows: Rows
    coef: Float  # (d,) of the minimiser, nearly
    residual: float  # profile, of that, at most
    claim: Claim

    @classmethod
    def of(cls, exact: Unlearner, rows: Rows, claim: Claim) -> Self:
        """With an Unlearner on D' that stopped close to the minimiser."""
        coef, noise = theta_of(exact.model)[: rows.d], noise_of(exact.model)
        b = np.zeros(rows.d) if noise is None else noise.values
        return cls(rows, coef, float(rows.profiles(coef[None], b)[2][0]), claim)

    def check(self, seen: Seen) -> tuple[Float, float]:
        """How far off (runs, d), in units of the noise, and the least that the worst profile residual is."""
        there = seen.released[:, 0] < FAR
        off, worst = np.where(there, 0.0, FAR)[:, None] + np.zeros(self.rows.d), 0.0
        if there.any():
            seeds = [seed for seed, sound in zip(seen.seeds, there, strict=True) if sound]
            coefs, intercepts = seen.released[there, :-1], seen.released[there, -1]
            if self.rows.fit_intercept:
                best = np.array([self.rows.intercept(coef) for coef in coefs])
                seen.note(
                    intercepts != best, "the intercept is not the best one for the released coefficients"
                )
                seen.note(
                    ~self.rows.stationary(coefs, intercepts),
                    "the gradient in the intercept is not 0",
                )
            off[there], least = self._beneath(seen, coefs, seeds)
            worst = float(least.max())
            seen.note(
                least > self.claim.tolerance,
                f"the profile residual is at least {worst:.3g}, the tolerance {self.claim.tolerance:.3g}",
            )
        return off, worst

    def _beneath(self, seen: Seen, coefs: Float, seeds: list[int]) -> tuple[Float, Float]:
        """How far off (k, d), and what the profile residual beneath each run's noise is at least (k,)."""
        rows, claim, d = self.rows, self.claim, self.rows.d
        distance = coefs - self.coef
        # what comes of the same digits beside coefficients of 0: the middles of their cells, or the noise
        rounding = 2.0 * UNIT_ROUNDOFF * (np.abs(coefs) + np.abs(self.coef))
        if claim.grid is not None:
            assert claim.steps is not None
            middles = np.array([round_with_offset(np.zeros(d), claim.steps, seed) for seed in seeds])
            aside = np.any(np.fmod(coefs - middles, claim.grid) != 0.0, axis=1)
            seen.note(aside, "the coefficients are not in the middle of the cells of their offset")
            half = 0.5 * (claim.grid + claim.steps.step)
            beyond = np.maximum(np.abs(distance) - half - rounding, 0.0)
            least = rows.alpha * np.linalg.norm(beyond, axis=1) - self.residual  # E10
            return distance / claim.grid, np.maximum(least, 0.0)
        assert claim.sigma is not None
        if (noise := seen.world.noise) is not None:
            gradient, least, _ = rows.profiles(coefs, np.array([noise(seed) for seed in seeds]))
            return -gradient / claim.sigma, least
        assert claim.steps is not None
        hidden = coefs - np.array([add_normal(np.zeros(d), claim.steps, seed) for seed in seeds])
        _, least, _ = rows.profiles(hidden, np.zeros(d))
        off = np.linalg.norm(
            rounding + claim.steps.step, axis=1
        )  # half a step for the sum, half for the noise
        return distance / claim.sigma, np.maximum(least - rows.curvature * off, 0.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two worlds that the claim says can hardly be told apart."""

    truth: Truth
    worlds: tuple[World, World]

    def compared(
        self, seeds: list[list[int]], error: float, progress: bool
    ) -> tuple[Separation, list[str], float]:
        """How far apart they are, what is wrong, and the least that the worst profile residual is.

        Each bound is wrong with probability at most `error`.
        """
        claim, d = self.truth.claim, self.truth.rows.d
        if claim.grid is not None:
            seeds = [seeds[0], seeds[0]]  # the offset is public
        first, second = (
            Seen.of(world, its_own, claim, d, progress)
            for world, its_own in zip(self.worlds, seeds, strict=True)
        )
        (a, worst_of_a), (b, worst_of_b) = self.truth.check(first), self.truth.check(second)
        found = separate(first.world.name, a, b, claim.public.delta, error)
        if claim.grid is not None:
            differ = np.count_nonzero((first.released != second.released).any(axis=1))
            found = replace(found, mismatch_lower=float(clopper_pearson(len(a), error)[0][differ]))
        reasons = [*first.reasons, *second.reasons, *claim.broken(found)]
        return found, reasons, max(worst_of_a, worst_of_b)


# --- how worlds come about


@dataclass(frozen=True)
class Training:
    """From data to an Unlearner, as the model says."""

    model: Ridge | LogisticRegression
    tolerance: float
    theta_bound: float

    def __call__(self, data: Data, seed: int = 0, tol: float | None = None) -> Unlearner:
        """Trains a copy of the model, with noise of this seed if there is any."""
        fresh = clone(self.model)
        if isinstance(fresh, LogisticRegression):
            fresh.random_state = seed
        with warnings.catch_warnings():
            if tol is not None:
                fresh.tol = tol
                warnings.simplefilter("ignore", ConvergenceWarning)  # the Unlearner warns where it matters
            fresh.fit(*data)
        return self.unlearner(fresh, data)

    def unlearner(self, fitted: Any, data: Data) -> Unlearner:
        """Of a model that is fitted."""
        return Unlearner(fitted, *data, tolerance=self.tolerance, theta_bound=self.theta_bound)

    def at(self, theta: Float, fitted: Any, data: Data) -> Unlearner:
        """Of a model like the one that is fitted, with these parameters."""
        fitted = copy.copy(fitted)
        set_theta(fitted, theta, None)
        return self.unlearner(fitted, data)


@dataclass(frozen=True, eq=False)
class Setting:
    """What worlds share: how models are trained, the data before and after the request, and the claim."""

    train: Training
    before: Data
    after: Data
    kept: NDArray[np.bool_]  # which columns of those before are left after
    noise: Noise | None  # in the objective
    rows: Rows  # those after
    claim: Claim

    @classmethod
    def of(
        cls,
        train: Training,
        before: Data,
        request: Any,
        mechanism: Any,
        epsilon: Any,
        delta: Any,
        against: Any,
    ) -> Self:
        """That of an audit, its claim checked."""
        reference = train(before)
        reference.apply(request, method="exact")
        after, noise = reference.corrected_data(), noise_of(reference.model)
        public = Terms.checked(
            mechanism,
            epsilon,
            delta,
            against,
            tolerance=train.tolerance,
            alpha=float(train.model.alpha),
            theta_bound=train.theta_bound,
            noise=noise,
        )
        rows = Rows.of(after, problem_of(reference.model))
        claim = Claim.of(public, rows.d, noise)
        return cls(train, before, after, reference.get_support(), noise, rows, claim)

    @property
    def bounds(self) -> int:
        """How many rates are bounded: for each pair two for mu and two for epsilon, and one of mismatches."""
        return (4 + (self.claim.grid is not None)) * (1 if self.noise is not None else 2)

    def pairs(self, ask: Callable[[Unlearner], Any], theirs: Release, ours: Release) -> list[Pair]:
        """The unlearned beside the retrained world and, without noise in the objective, a canary."""
        close = CLOSE * self.claim.tolerance
        stop = self.train.tolerance if self.claim.public.against == "retraining" else close

        def unlearned(seed: int) -> Unlearner:
            un = self.train(self.before, seed)
            ask(un)
            return un

        exact = self.train(self.after, tol=close)
        truth = Truth.of(exact, self.rows, self.claim)
        first = World("unlearned", unlearned, theirs)
        second = World("retrained", lambda seed: self.train(self.after, seed, stop), ours)
        if self.noise is not None:
            sigma, left = self.noise.sigma, np.ones(self.rows.d, dtype=bool)
            return [Pair(truth, (first.noised(sigma, self.kept), second.noised(sigma, left)))]
        wider, (one, other) = canary(self.train, exact, self.after, truth)
        canaries = (
            World("canary", lambda seed: one, theirs),
            World("canary's other side", lambda seed: other, ours),
        )
        return [Pair(truth, (first.once(), second.once())), Pair(wider, canaries)]


def canary(train: Training, exact: Unlearner, after: Data, truth: Truth) -> tuple[Truth, list[Unlearner]]:
    """Two that stop at the tolerance, or one and the minimiser, as far apart as the claim allows.

    Of D' with a last column of zeros: the minimiser is 0 there, the curvature is the penalty alone, and no
    data have a flatter direction.
    """
    rows, claim = truth.rows, truth.claim
    theta, d = np.insert(theta_of(exact.model), rows.d, 0.0), rows.d + 1
    if sparse.issparse(rows.X):
        X = sparse.hstack([rows.X, sparse.csr_array((rows.X.shape[0], 1), dtype=rows.X.dtype)], format="csr")
    else:
        X = np.column_stack([rows.X, np.zeros(rows.X.shape[0], dtype=rows.X.dtype)])
    rows = replace(rows, X=X)
    floor = norm_factor(float(rows.norms.max()), rows.fit_intercept) * kernels.rounding_floor(
        X,
        rows.y,
        theta,
        alpha=rows.alpha,
        loss=rows.loss.name,
        sample_weight=rows.s,
        fit_intercept=rows.fit_intercept,
    )
    goal = AT_TOLERANCE * claim.tolerance - truth.residual - floor  # of the profile residual
    if not goal > 0.0:
        raise CertificateError(
            f"a tolerance of {claim.tolerance:.3g} is too near to the rounding floor of these data, "
            f"{floor:.3g}: use one of at least four times the floor, or scale the rows of X"
        )
    end = np.zeros_like(theta)
    end[d - 1] = goal / rows.alpha
    other = -end if claim.public.against == "retraining" else 0.0 * end
    uns = [train.at(theta + aside, exact.model, (X, *after[1:])) for aside in (end, other)]
    wider = Truth(rows, theta[:d], truth.residual, Claim.of(claim.public, d, None))
    return wider, uns
