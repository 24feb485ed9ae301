"""Whether a model still prefers a secret: exposure, and attempts to wake it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from math import inf, log2, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr
from scipy.stats import kstest, skewnorm

from .._arrays import Float
from .._numbers import as_number
from ._inputs import as_numbers, require_retrainings

COUNTED = 10  # so many candidates ahead of the secret give its rank within a third (one standard error)
REJECTED = 0.01  # the fit is not believed below this p-value of its Kolmogorov-Smirnov check


@dataclass(frozen=True)
class Exposure:
    """Where a secret stands among candidates drawn from the same space.

    Attributes
    ----------
    rank : float
        Share of the candidates that the model finds at least as likely: near 0 it prefers the secret, near 1
        it avoids it. Of a secret that the model never saw, the rank is uniform on [0, 1].
    bits : float
        Exposure, in bits: ``-log2`` of the probability that a random candidate is at least as likely, by
        `method`, and ``log2(space)`` at most. 0 to 2 for three of four secrets that the model never saw.
    method : {"sampled", "skew-normal", "bound"}
        "sampled": from `rank`, where at least 10 candidates are as likely as the secret. "skew-normal": from
        a fit to the candidates, which its check did not reject. "bound": the check did reject it, and `bits`
        is the lower bound that the sample gives.
    cap : float
        ``log2(space)``. No secret of the space has more; a fit that says more extrapolates.
    ks, p_value : float
        Kolmogorov-Smirnov distance between candidates and fit, and its p-value, which is somewhat too
        large, since the fit saw the candidates; NaN where nothing was fitted.

    Examples
    --------
    >>> import expunge as ex
    >>> ex.metrics.exposure(12.0, range(100), space=100)  # doctest: +ELLIPSIS
    Exposure(rank=0.13, bits=2.943..., method='sampled', cap=6.643..., ks=nan, p_value=nan)
    """

    rank: float
    bits: float
    method: str
    cap: float
    ks: float
    p_value: float

    @property
    def two_sided(self) -> float:
        """Two-sided p-value of "the model never saw the secret": ``2 min(rank, 1 - rank)``, 1 at most."""
        return 2.0 * min(self.rank, 1.0 - self.rank)


def exposure(secret: float, candidates: ArrayLike, space: float) -> Exposure:
    """Exposure of a secret (Carlini et al. 2019): how many guesses the model saves who looks for it.

    Parameters
    ----------
    secret : float
        Negative log-likelihood that the model gives to the secret, in any unit.
    candidates : (m,) array
        The same of m >= 100 candidates, drawn uniformly from the space that the secret was drawn from, in
        the same context: for a telephone number, random numbers of as many digits after the same words.
    space : float
        Size of that space, as 10**10.

    Returns
    -------
    Exposure

    Raises
    ------
    ValueError
        Fewer candidates, NaN or infinity, a space of less than 2.

    Notes
    -----
    Carlini et al., "The Secret Sharer", USENIX Security 2019, sections 4.3 and 4.4. The rank by sampling
    comes first. Where hardly a candidate is as likely as the secret, a skew-normal distribution is fitted to
    the candidates, and checked by the Kolmogorov-Smirnov test. Exposure is one-sided: a model that gives the
    secret a likelihood far below that of others has an exposure of 0, and tells who looks what was removed.
    Look at `rank` from both sides, and compare both with those of retrained models (:func:`outside`).

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> candidates = np.random.default_rng(0).normal(40.0, 4.0, size=10_000)
    >>> never_seen, remembered = (ex.metrics.exposure(nll, candidates, 10**10) for nll in (40.0, 20.0))
    >>> round(never_seen.rank, 1), never_seen.method, round(never_seen.bits)
    (0.5, 'sampled', 1)
    >>> remembered.rank, remembered.method, 20 < remembered.bits <= remembered.cap
    (0.0, 'skew-normal', True)
    """
    nll = as_numbers(candidates, "candidates", least=100)
    own = as_number(secret, "secret", above=-inf)
    cap = log2(as_number(space, "space", above=1))
    ahead = int(np.count_nonzero(nll <= own))
    rank = ahead / nll.size
    if ahead >= COUNTED:
        return Exposure(rank, min(log2(nll.size / ahead), cap), "sampled", cap, nan, nan)
    lower_bound = min(log2((nll.size + 1) / (ahead + 1)), cap)
    if nll.min() == nll.max():  # nothing to fit
        return Exposure(rank, lower_bound, "bound", cap, nan, nan)
    shape, loc, scale = skewnorm.fit(nll)
    ks, p_value = map(float, kstest(nll, skewnorm(shape, loc, scale).cdf))
    if not p_value >= REJECTED:
        return Exposure(rank, lower_bound, "bound", cap, ks, p_value)
    bits = -log_left_tail((own - loc) / scale, shape) / np.log(2.0)
    return Exposure(rank, min(float(bits), cap), "skew-normal", cap, ks, p_value)


def log_left_tail(z: float, shape: float) -> float:
    """``log P(Z <= z)`` of a standard skew-normal, also where the distribution function underflows."""
    t = np.linspace(z - 40.0, z, 200_001)
    log_density = np.log(2.0) - 0.5 * t**2 - 0.5 * np.log(2.0 * np.pi) + log_ndtr(shape * t)
    largest = log_density.max()
    return float(largest + np.log(np.trapezoid(np.exp(log_density - largest), t)))


@dataclass(frozen=True, eq=False)
class Relearning:
    """How fast a model takes a secret up again, beside models that never saw it.

    Attributes
    ----------
    bits : (steps + 1,) array
        Negative log-likelihood of the secret, before the first step and after each.
    retrained : (r, steps + 1) array
        The same of each retrained model.
    back, retrained_back : float
        Bits that came back in all steps; of retrained models, the mean.
    ratio : float
        ``back / retrained_back``: about 1 where nothing is left in the model to wake, more where the
        secret was hidden instead of forgotten. NaN if retrained models learn nothing in so many steps.

    Examples
    --------
    >>> import expunge as ex
    >>> found = ex.metrics.relearning([40.0, 25.0, 12.0], [[40.0, 35.0, 30.0]] * 3, steps=2)
    >>> found.back, found.retrained_back, found.ratio
    (28.0, 10.0, 2.8)
    """

    bits: Float
    retrained: Float
    back: float
    retrained_back: float
    ratio: float


def relearning(
    unlearned: Iterable[float], retrained: Iterable[Iterable[float]], *, steps: int = 8
) -> Relearning:
    """Relearning attack: bits of a secret that a few steps of training on it bring back.

    Parameters
    ----------
    unlearned : iterable of steps + 1 numbers or more
        Negative log-likelihood of the secret, in bits, before the first step of the attack and after each.
        An iterator, such as a generator that trains between two numbers, is asked for no more than that.
    retrained : iterables, 3 or more
        The same attack on models retrained without the secret, with different seeds.
    steps : int, default 8

    Returns
    -------
    Relearning

    Raises
    ------
    ValueError
        Fewer than 3 retrained models, fewer numbers than steps + 1, NaN or infinity.

    Notes
    -----
    Hu et al., "Jogging the Memory of Unlearned Models through Targeted Relearning Attacks", ICLR 2025;
    Tamirisa et al. 2024. A model that never saw the secret learns it too: only the ratio says something.

    Examples
    --------
    >>> import expunge as ex
    >>> def attack(learns):  # with a model: yield bits(model), then step(model), and so on
    ...     bits = 40.0
    ...     while True:
    ...         yield bits
    ...         bits -= learns
    >>> ex.metrics.relearning(attack(3.0), [attack(1.5), attack(2.0), attack(2.5)]).ratio
    1.5
    """
    if not (isinstance(steps, int | np.integer) and steps >= 1):
        raise ValueError(f"steps must be an int of at least 1, got {steps!r}")
    own = course(unlearned, steps, "unlearned")
    others = np.array([course(curve, steps, "a curve of retrained") for curve in retrained])
    require_retrainings(len(others))
    back, retrained_back = float(own[0] - own[-1]), float((others[:, 0] - others[:, -1]).mean())
    return Relearning(own, others, back, retrained_back, back / retrained_back if retrained_back > 0 else nan)


def rebound(bits: Iterable[float], *, steps: int | None = None) -> float:
    """Bits of a secret that come back by themselves, while training goes on with other data.

    Parameters
    ----------
    bits : iterable of float
        Negative log-likelihood of the secret, in bits, right after unlearning and then after each step (or
        epoch) of further training on the retained data.
    steps : int, optional
        So many steps of an iterator that does not end; by default all that there are.

    Returns
    -------
    float
        The largest fall below the first number on the way: 0 where nothing comes back.

    Raises
    ------
    ValueError
        Fewer than two numbers, or than steps + 1; NaN or infinity.

    Notes
    -----
    Where unlearning only moved a model out of the basin of its old minimum, further training leads back.
    Retrained models wander by some bits too: compare with theirs (:func:`outside`).

    Examples
    --------
    >>> import expunge as ex
    >>> ex.metrics.rebound([44.0, 45.0, 43.0, 46.0]), ex.metrics.rebound([44.0, 30.0, 10.0])
    (1.0, 34.0)
    """
    curve = as_numbers(list(bits), "bits", least=2) if steps is None else course(bits, steps, "bits")
    return float(max(curve[0] - curve.min(), 0.0))


def course(curve: Iterable[float], steps: int, name: str) -> Float:
    """The first steps + 1 numbers."""
    values = as_numbers(list(islice(iter(curve), steps + 1)), name)
    if values.size < steps + 1:
        raise ValueError(f"{name} has {values.size} numbers, expected steps + 1 = {steps + 1}")
    return values
