"""An attempt to break a certificate, with the noise known: it can show one to be false, never true.

Released models of two worlds, one that unlearned and one that was retrained, are compared run by run. The
numbers that noise is made of are the audit's own, so that what lies beneath it is seen as well.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from math import ceil, inf, isqrt, log, log1p, sqrt
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.special import betaincinv, expit, ndtr, ndtri
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from . import accounting, kernels
from ._arrays import Float
from .engine.data import COPIED_TOGETHER as PANEL
from .engine.solver import check_tolerance
from .errors import CertificateError
from .losses import Loss, get_loss
from .models import LogisticRegression, Ridge
from .models.adopt import Specification, encode_targets, specification
from .models.base import noise_of, set_theta, theta_of
from .noise import Grid, Noise, add_normal, check_random_state, grid_of, round_with_offset
from .reference import SUMMED_TOGETHER as ROWS
from .reference import UNIT_ROUNDOFF
from .release import (
    Against,
    Mechanism,
    Terms,
    best_intercept,
    check_theta_bound,
    norm_factor,
)
from .requests import Request
from .unlearner import Method, Unlearner

__all__ = ["Audit", "Separation", "audit_certificate"]

AT_TOLERANCE = 0.99  # of it: where the canary stops, its rounding floor counted
CLOSE = 1e-3  # of the tolerance: where the exact minimiser stops
FAR = 1e100  # stands for numbers that are not there, or are not finite

Data = tuple[Any, Any, Any]  # X, y and weights, as an Unlearner takes them


# --- the result


@dataclass(frozen=True, eq=False)
class Separation:
    """How far two worlds were told apart, by events that other runs had chosen.

    Attributes
    ----------
    name : str
    mu_lower, epsilon_lower : float
        Lower bounds of the ratio of shift to noise and, at the audit's delta, of epsilon; 0 where nothing
        was seen.
    event : str
        What told them apart most: of ``t = u @ z`` or ``t = |z|``, z the released coefficients in standard
        deviations (or cells), from the minimiser.
    unlearned, retrained : (m,) arrays
        t of the runs that the bounds come from.
    mismatch_lower : float or None
        Lower bound of the probability that the two release different numbers; for rounding.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.audit import audit_certificate
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> audit = audit_certificate(ex.Ridge(), X, y, ex.RemoveRows(0), 1.0, 1e-5, runs=100)
    >>> [(found.name, found.unlearned.shape) for found in audit.separations]
    [('unlearned', (50,)), ('canary', (50,))]
    """

    name: str
    mu_lower: float
    epsilon_lower: float
    event: str
    unlearned: Float
    retrained: Float
    mismatch_lower: float | None = None


@dataclass(frozen=True, eq=False)
class Audit:
    """What :func:`audit_certificate` found.

    Attributes
    ----------
    mechanism : {"output", "rounding", "objective"}
    epsilon, delta : float
        As claimed.
    mu : float or None
        Ratio of shift to noise, as claimed; None for rounding.
    tolerance : float
        What no profile residual may exceed.
    worst_residual : float
        What the largest profile residual is at least, rounding taken off.
    separations : tuple of Separation
        Of the unlearned from the retrained models and, but for ``objective``, of a canary.
    reasons : tuple of str
        Why the certificate is false.
    runs : int
        Releases of each world.
    confidence : float
        A certificate that holds is falsified with probability at most ``1 - confidence``.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.audit import audit_certificate
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> print(audit_certificate(ex.Ridge(), X, y, ex.RemoveRows(0), 1.0, 1e-5, runs=100, random_state=0))
    Audit of (1, 1e-05), mu 0.268, output mechanism: 100 runs, confidence 0.99
      profile residual at least 0, tolerance 1e-08
      unlearned: epsilon at least 0, mu at least 0
      canary: epsilon at least 0, mu at least 0
    not falsified (which proves nothing)
    """

    mechanism: Mechanism
    epsilon: float
    delta: float
    mu: float | None
    tolerance: float
    worst_residual: float
    separations: tuple[Separation, ...]
    reasons: tuple[str, ...]
    runs: int
    confidence: float

    @property
    def falsified(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)

    @property
    def mu_lower(self) -> float:
        """The largest of any separation."""
        return max(found.mu_lower for found in self.separations)

    @property
    def epsilon_lower(self) -> float:
        """The largest of any separation."""
        return max(found.epsilon_lower for found in self.separations)

    def __str__(self) -> str:
        mu = "" if self.mu is None else f", mu {self.mu:.3g}"
        lines = [
            f"Audit of ({self.epsilon:g}, {self.delta:g}){mu}, {self.mechanism} mechanism: {self.runs} runs, "
            f"confidence {self.confidence:g}",
            f"  profile residual at least {self.worst_residual:.3g}, tolerance {self.tolerance:.3g}",
        ]
        for found in self.separations:
            seen = f"epsilon at least {found.epsilon_lower:.3g}, mu at least {found.mu_lower:.3g}"
            if found.mismatch_lower is not None:
                seen += f", other numbers with probability at least {found.mismatch_lower:.3g}"
            lines.append(f"  {found.name}: {seen}")
        if self.falsified:
            return "\n".join([*lines, *(f"FALSIFIED: {reason}" for reason in self.reasons)])
        return "\n".join([*lines, "not falsified (which proves nothing)"])

    def plot(self, ax: Any = None) -> Any:
        """Histograms of the statistic in both worlds, of the separation that tells most.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure's by default.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        if ax is None:
            _, ax = _extra("matplotlib.pyplot").subplots()
        found = max(self.separations, key=lambda found: found.epsilon_lower)
        bins = np.histogram_bin_edges(np.concatenate([found.unlearned, found.retrained]), bins=40)
        ax.hist(found.unlearned, bins=bins, alpha=0.5, label="unlearned")
        ax.hist(found.retrained, bins=bins, alpha=0.5, label="retrained")
        ax.set(xlabel="statistic t", ylabel="runs", title=f"{found.name}: {found.event}")
        ax.legend()
        return ax


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"this needs {name}: pip install expunge[audit]", name=name) from error


# --- statistics: how far two samples are apart, for certain


def clopper_pearson(n: int, error: float) -> tuple[Float, Float]:
    """Lower and upper bounds (n + 1,) of a probability, for 0 to n events in n runs.

    Each is wrong with probability at most `error`.
    """
    k = np.arange(1, n + 1)
    lower = np.append(0.0, betaincinv(k, n - k + 1, error))
    return lower, 1.0 - lower[::-1]


def mu_between(low: Any, high: Any) -> Any:
    """The shift in Gaussian noise that takes an event from probability `high` to `low` (E14)."""
    return ndtri(low) - ndtri(high)


def epsilon_between(low: Any, high: Any, delta: float) -> Any:
    """The epsilon that takes an event from probability `high` to `low` beside this delta."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(low - delta, 0.0) / high)


def statistic(z: Float, direction: Float | None) -> Float:
    """``u @ z`` or, without a direction u, |z|, of each run: z is (runs, d)."""
    t: Float = np.linalg.norm(z, axis=1) if direction is None else z @ direction
    return t


@dataclass(frozen=True, eq=False)
class _Event:
    """``sign t > threshold``, or of ``|t - centre|``; `swapped` where the second world is the likelier."""

    direction: Float | None  # u of t = u @ z; None for t = |z|
    centre: float | None
    sign: float
    threshold: float = inf
    swapped: bool = False

    def of(self, t: Float) -> Float:
        """What is compared with the threshold."""
        return self.sign * (t if self.centre is None else np.abs(t - self.centre))

    def count(self, z: Float) -> int:
        """In how many of the runs z (runs, d)."""
        return int(np.count_nonzero(self.of(statistic(z, self.direction)) > self.threshold))

    def __str__(self) -> str:
        t = "|z|" if self.direction is None else "u @ z"
        what = t if self.centre is None else f"|{t} - {self.centre:.3g}|"
        return f"{what} {'>' if self.sign > 0 else '<'} {self.sign * self.threshold:.3g}"


def _events(
    a: Float, b: Float, directions: Sequence[Float | None]
) -> Iterator[tuple[_Event, Float, Any, Any]]:
    """Events of either role with their thresholds, and in how many of the runs a and b each occurs."""
    for u in directions:
        s, t = statistic(a, u), statistic(b, u)
        for centre in (None, float(np.median(np.concatenate([s, t])))):
            for sign in (1.0, -1.0):
                event = _Event(u, centre, sign)
                first, second = np.sort(event.of(s)), np.sort(event.of(t))
                thresholds = np.unique(np.concatenate([first, second]))
                in_first = len(first) - np.searchsorted(first, thresholds, side="right")
                in_second = len(second) - np.searchsorted(second, thresholds, side="right")
                # as far from what is on either side: the next sample may go a little beyond this one
                thresholds[:-1] = 0.5 * thresholds[:-1] + 0.5 * thresholds[1:]
                yield event, thresholds, in_first, in_second
                yield _Event(u, centre, sign, swapped=True), thresholds, in_second, in_first


def separate(name: str, a: Float, b: Float, delta: float, error: float) -> Separation:
    """Tells samples of two worlds apart, (runs, d) each: the first half chooses events, the second judges.

    Each of two bounds is wrong with probability at most ``2 error``, whatever was chosen.
    """
    half = len(a) // 2
    chosen = _candidates(a[:half], b[:half])
    measures: dict[str, Callable[[Any, Any], Any]] = {
        "mu": mu_between,
        "epsilon": lambda low, high: epsilon_between(low, high, delta),
    }
    lower, upper = clopper_pearson(half, error)
    best = {measure: (-inf, _Event(None, None, 1.0)) for measure in measures}
    for event, thresholds, often, seldom in _events(a[:half], b[:half], chosen):
        for measure, between in measures.items():
            found = between(lower[often], upper[seldom])
            i = int(np.argmax(found))
            if found[i] > best[measure][0]:
                best[measure] = float(found[i]), replace(event, threshold=float(thresholds[i]))
    a, b = a[half:], b[half:]
    lower, upper = clopper_pearson(len(a), error)
    bounds = {}
    for measure, between in measures.items():
        event = best[measure][1]
        often, seldom = (b, a) if event.swapped else (a, b)
        bounds[measure] = max(0.0, float(between(lower[event.count(often)], upper[event.count(seldom)])))
    shown = best["epsilon" if bounds["epsilon"] > 0 else "mu"][1]
    unlearned, retrained = (statistic(z, shown.direction) for z in (a, b))
    return Separation(name, bounds["mu"], bounds["epsilon"], str(shown), unlearned, retrained)


def _candidates(a: Float, b: Float) -> list[Float | None]:
    """Unit vectors (d,): where means differ, where spread differs most, the last axis; and None for |z|."""
    d = a.shape[1]
    found: list[Float | None] = [None, np.eye(d)[-1]]  # for the amount of noise, for the canary
    mean = a.mean(axis=0) - b.mean(axis=0)
    if (length := float(np.linalg.norm(mean))) > 0:
        found.append(mean / length)
    if max(np.abs(a).max(), np.abs(b).max()) < sqrt(FAR):
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        Q, _ = np.linalg.qr(np.concatenate([a, b]).T)  # no spread is outside of it
        _, vectors = eigh((a @ Q).T @ (a @ Q) - (b @ Q).T @ (b @ Q))
        found += [Q @ vectors[:, 0], Q @ vectors[:, -1]]
    return found


# --- the corrected data, in NumPy alone


@dataclass(frozen=True, eq=False)
class _Rows:
    """D' (E2), and the gradient of J on it."""

    X: Any  # (n, d) array or CSR matrix
    y: Float  # targets
    s: Float
    loss: Loss
    alpha: float
    fit_intercept: bool

    @classmethod
    def of(cls, data: Data, spec: Specification) -> Self:
        """The corrected data, for that objective."""
        X, y, weights = data
        n = X.shape[0]
        s = np.ones(n) if weights is None else weights
        return cls(X, encode_targets(y, n, spec), s, get_loss(spec.loss), spec.alpha, spec.fit_intercept)

    @property
    def d(self) -> int:
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
        return np.concatenate([norm(X.astype(np.float64), axis=1) for X, _, _ in self.panels(ROWS)])

    @property
    def curvature(self) -> float:
        """At least the largest eigenvalue of a Hessian of the coefficients."""
        return float(self.alpha + self.loss.max_d2 * (self.s @ self.norms**2))

    def intercept(self, coef: Float) -> float:
        """The best one beside these coefficients."""
        return best_intercept(self.panels(PANEL), coef, self.loss) if self.fit_intercept else 0.0

    def gradients(self, coefs: Float, intercepts: Float) -> tuple[Float, Float]:
        """Of J (E1) at k parameters (k, d) and (k,): (k, d + 1), and the rounding of each number at most.

        The intercept comes last. Within a panel the order of a sum does not matter to its rounding (E19).
        """
        n, d = self.X.shape
        gradient, floor = np.zeros((2, len(coefs), d + 1))
        additions = min(n, ROWS) + -(-n // ROWS) + 3
        for X, y, s in self.panels(ROWS):
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
        sums = (2.0 + self.y.size / ROWS) * floor[:, -1]  # here, and in one sum over all rows
        step = 16.0 * UNIT_ROUNDOFF * self.loss.max_d2 * self.s.sum() * np.abs(intercepts)
        still: NDArray[np.bool_] = np.abs(gradient[:, -1]) <= sums + step
        return still


# --- the claim, and what contradicts it


@dataclass(frozen=True)
class _Claim:
    """The public constants of a release, computed once more (E14 to E17)."""

    public: Terms
    tolerance: float
    sigma: float | None = None
    grid: float | None = None
    mu: float | None = None
    steps: Grid | None = None  # what sigma or grid is made of (E42)

    @classmethod
    def of(cls, public: Terms, d: int, noise: Noise | None) -> _Claim:
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
class _World:
    """One way to get to released models."""

    name: str
    unlearner: Callable[[int], Unlearner]  # of a run's seed
    release: Callable[[Unlearner, int], Any]
    noise: Callable[[int], Float] | None = None  # the b of E15, of a run's seed


@dataclass(frozen=True, eq=False)
class _Seen:
    """The released models of one world, and what is wrong with them whatever another is like."""

    world: _World
    seeds: list[int]
    released: Float  # (runs, d + 1) coefficients and intercept, FAR where they are not there
    reasons: list[str]

    @classmethod
    def of(cls, world: _World, seeds: list[int], claim: _Claim, d: int, progress: bool) -> Self:
        """Releases once for each seed."""
        numbers, contradicted = np.full((len(seeds), d + 1), FAR), set()
        along = _extra("tqdm").tqdm(seeds, desc=world.name, unit="release") if progress else seeds
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
class _Truth:
    """What released models are held against: D', the minimiser there, and the claim."""

    rows: _Rows
    coef: Float  # (d,) of the minimiser, nearly
    residual: float  # profile, of that, at most
    claim: _Claim

    @classmethod
    def of(cls, exact: Unlearner, rows: _Rows, claim: _Claim) -> Self:
        """With an Unlearner on D' that stopped close to the minimiser."""
        coef, noise = theta_of(exact.model)[: rows.d], noise_of(exact.model)
        b = np.zeros(rows.d) if noise is None else noise.values
        return cls(rows, coef, float(rows.profiles(coef[None], b)[2][0]), claim)

    def check(self, seen: _Seen) -> tuple[Float, float]:
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

    def _beneath(self, seen: _Seen, coefs: Float, seeds: list[int]) -> tuple[Float, Float]:
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


# --- the audit


@dataclass(frozen=True)
class _Training:
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


def _always(un: Unlearner) -> Callable[[int], Unlearner]:
    return lambda seed: un


def _canary(train: _Training, exact: Unlearner, after: Data, truth: _Truth) -> tuple[_Truth, list[Unlearner]]:
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
    wider = _Truth(rows, theta[:d], truth.residual, _Claim.of(claim.public, d, None))
    return wider, uns


def _check_runs(runs: int, claim: _Claim, error: float) -> None:
    """Raises where no outcome would falsify, were it as clear as can be."""
    gap = (1.0 - claim.public.delta) * float(expit(-claim.public.epsilon))  # 1 - TPR = FPR at epsilon
    if claim.mu is not None:
        gap = max(gap, float(ndtr(-0.5 * claim.mu)))
    if claim.grid is not None:
        gap = max(gap, 1.0 - claim.public.delta)
    needed = inf if gap == 0.0 else 2 * (ceil(log(error) / log1p(-gap)) + 1)
    if runs < needed:
        raise ValueError(
            f"with {runs} runs no outcome would falsify this claim at this confidence: {needed:g} are needed"
        )


def audit_certificate(
    model: Ridge | LogisticRegression,
    X: Any,
    y: ArrayLike,
    request: Request | Iterable[Request],
    epsilon: float,
    delta: float,
    *,
    mechanism: Mechanism = "output",
    sample_weight: ArrayLike | None = None,
    tolerance: float = 1e-8,
    theta_bound: float = 100.0,
    against: Against | None = None,
    method: Method = "auto",
    runs: int = 1000,
    confidence: float = 0.99,
    unlearn: Callable[[Unlearner, Any], Any] | None = None,
    release: Callable[[Unlearner, int], Any] | None = None,
    random_state: int | None = None,
    progress: bool = False,
) -> Audit:
    """Tries to show that a certificate is false, on these data and for this request.

    One world unlearns the request and releases, another is trained on the corrected data and releases, `runs`
    times each, with random numbers that the audit chose. A verdict can only falsify:

    - Every run: the coefficients beneath the noise have a profile residual of at most the tolerance on the
      corrected data, rounding counted; the intercept is the one that these data and the released
      coefficients give; the certificate's constants follow from the public ones (E10, E14 to E17).
    - Over all runs: the first half chooses a direction u and events of ``u @ z`` or |z| that tell the worlds
      apart, z the noise with what it hides. The second half bounds their probabilities (Clopper and Pearson),
      and so mu and epsilon, from below. For ``rounding`` the share of runs in which the two worlds give
      different numbers is bounded too.
    - The same for a canary, with ``output`` and ``rounding``: two models of the corrected data that stop at
      the tolerance, on either side of the minimiser in its flattest direction. Honest models stop far below
      it, which would hide too little noise.

    Parameters
    ----------
    model : Ridge or LogisticRegression of expunge
        Fitted or not; copies of it are trained. For ``objective`` with noise, for the others without.
    X, y, sample_weight
        The data before the request, as :class:`expunge.Unlearner` takes them.
    request : request or list of requests
    epsilon, delta : float
        The claim. See :meth:`expunge.Unlearner.release`, also for mechanism and against.
    mechanism : {"output", "rounding", "objective"}
        With ``objective`` each run is trained anew, with fresh noise; the others train once.
    tolerance, theta_bound : float
        Of the Unlearners.
    against : {"retraining", "minimiser"}, optional
    method : str
        How the request is applied, see :meth:`expunge.Unlearner.apply`.
    runs : int
        Releases of each world.
    confidence : float
        A certificate that holds is falsified with probability at most ``1 - confidence``.
    unlearn : callable, optional
        ``unlearn(un, request)`` in place of ``un.apply(request, method=method)``: other code to be audited.
    release : callable, optional
        ``release(un, seed)``, in the unlearning world in place of ``un.release(...)``: gives an object with
        coef_ and intercept_, whose noise is drawn from the seed as there, and perhaps a certificate_.
    random_state : int, optional
        Makes the audit the same each time.
    progress : bool
        Whether to show progress bars, by tqdm.

    Returns
    -------
    Audit

    Raises
    ------
    TypeError, ValueError
        A model, data, request or number that is not accepted; too few runs to falsify anything.
    CertificateError
        A release failed closed.
    ImportError
        `progress` without tqdm.

    Notes
    -----
    Keeps a Hessian, (p, p), and the rows. What goes wrong on other data, for other requests, or less than
    the bounds can see, is not found.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.audit import audit_certificate
    >>> X = np.linspace(-1.0, 1.0, 40).reshape(20, 2)
    >>> y, request = X[:, 0] + X[:, 1] ** 2, ex.RemoveRows([3, 7])
    >>> audit = audit_certificate(ex.Ridge(), X, y, request, 1.0, 1e-5, runs=200, random_state=0)
    >>> audit.falsified
    False
    >>> nothing = audit_certificate(
    ...     ex.Ridge(), X, y, request, 1.0, 1e-5, runs=200, random_state=0, unlearn=lambda un, request: None
    ... )
    >>> nothing.falsified, nothing.epsilon_lower > 1.0
    (True, True)
    """
    if not isinstance(model, Ridge | LogisticRegression):
        raise TypeError(
            f"{type(model).__name__} cannot be audited: pass expunge's Ridge or LogisticRegression with the "
            "same parameters"
        )
    if mechanism in ("output", "rounding") and getattr(model, "noise", None):
        raise ValueError(
            f"mechanism={mechanism!r} is audited without noise in the objective: pass "
            "LogisticRegression(noise=0), or use mechanism='objective'"
        )
    if not (isinstance(confidence, Real) and 0 < float(confidence) < 1):
        raise ValueError(f"confidence must be a number above 0 and below 1, got {confidence!r}")
    if not isinstance(runs, Integral) or isinstance(runs, bool):
        raise ValueError(f"runs must be an integer, got {runs!r}")
    tolerance, theta_bound = check_tolerance(tolerance, "tolerance"), check_theta_bound(theta_bound)
    random = np.random.default_rng(check_random_state(random_state))
    if isinstance(request, Iterable):
        request = list(request)

    train = _Training(model, tolerance, theta_bound)
    before = X, y, sample_weight
    reference = train(before)
    reference.apply(request, method="exact")
    after, noise = reference.corrected_data(), noise_of(reference.model)
    public = Terms.checked(
        mechanism,
        epsilon,
        delta,
        against,
        tolerance=tolerance,
        alpha=float(model.alpha),
        theta_bound=theta_bound,
        noise=noise,
    )
    rows = _Rows.of(after, specification(reference.model))
    claim = _Claim.of(public, rows.d, noise)
    rounding = claim.grid is not None
    bounds = (4 + rounding) * (1 if noise is not None else 2)  # two rates for mu, two for epsilon; the canary
    error = (1.0 - float(confidence)) / bounds  # of each
    _check_runs(runs, claim, error)
    close = CLOSE * claim.tolerance
    exact = train(after, tol=close)
    truth = _Truth.of(exact, rows, claim)

    def unlearned(seed: int) -> Unlearner:
        un = train(before, seed)
        if unlearn is None:
            un.apply(request, method=method)
        else:
            unlearn(un, request)
        return un

    def retrained(seed: int) -> Unlearner:
        return train(after, seed, tolerance if public.against == "retraining" else close)

    def ours(un: Unlearner, seed: int) -> Any:
        return un.release(epsilon, delta, mechanism=mechanism, against=against, random_state=seed)

    theirs = ours if release is None else release
    if noise is not None:
        sigma, kept = noise.sigma, reference.get_support()

        def b(seed: int) -> Float:
            return Noise.drawn(sigma, kept.size, seed).values[kept]

        def b_of_fewer(seed: int) -> Float:
            return Noise.drawn(sigma, rows.d, seed).values

        worlds = [
            (
                truth,
                _World("unlearned", unlearned, theirs, b),
                _World("retrained", retrained, ours, b_of_fewer),
            )
        ]
    else:
        wider, (one, other) = _canary(train, exact, after, truth)
        worlds = [
            (here, _World(a, _always(first), theirs), _World(b, _always(second), ours))
            for here, a, b, first, second in (
                (truth, "unlearned", "retrained", unlearned(0), retrained(0)),
                (wider, "canary", "canary's other side", one, other),
            )
        ]
    separations, reasons, worst = [], [], []
    for here, *pair in worlds:
        seeds = random.integers(0, 2**63, (2, runs)).tolist()
        if rounding:
            seeds[1] = seeds[0]  # the offset is public
        seen = [
            _Seen.of(world, its_own, here.claim, here.rows.d, progress)
            for world, its_own in zip(pair, seeds, strict=True)
        ]
        (a, worst_of_a), (b, worst_of_b) = (here.check(one) for one in seen)
        found = separate(pair[0].name, a, b, public.delta, error)
        if rounding:
            differ = np.count_nonzero((seen[0].released != seen[1].released).any(axis=1))
            found = replace(found, mismatch_lower=float(clopper_pearson(runs, error)[0][differ]))
        separations.append(found)
        worst.append(max(worst_of_a, worst_of_b))
        reasons += [*seen[0].reasons, *seen[1].reasons, *here.claim.broken(found)]
    return Audit(
        mechanism=public.mechanism,
        epsilon=public.epsilon,
        delta=public.delta,
        mu=claim.mu,
        tolerance=claim.tolerance,
        worst_residual=worst[0],
        separations=tuple(separations),
        reasons=tuple(reasons),
        runs=runs,
        confidence=float(confidence),
    )
