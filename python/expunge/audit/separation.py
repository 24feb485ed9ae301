"""How far two samples are apart, for certain: events that one half chose, and the other half counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import betaincinv, ndtri

from .._arrays import Float

FAR = 1e100  # stands for numbers that are not there, or are not finite


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
