"""Whether a model answers as retrained models do."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._numbers import as_number
from ._inputs import as_log_probabilities, as_numbers, require_retrainings


def mean_kl(log_p: ArrayLike, log_q: ArrayLike) -> float:
    """Mean Kullback-Leibler divergence KL(p || q) between two models' predictions, in nats.

    Parameters
    ----------
    log_p, log_q : (n, K) arrays, or (..., K)
        Log-probabilities, natural: ``scipy.special.log_softmax(logits, axis=-1)``. p is the reference.

    Returns
    -------
    float
        Mean over rows of ``sum(p (log p - log q))``: infinite where q rules out what p does not.

    Raises
    ------
    ValueError
        Shapes that differ, rows that are no log-probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> float(round(ex.metrics.mean_kl(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])), 6))
    0.143841
    """
    p, q = as_log_probabilities(log_p, "log_p"), as_log_probabilities(log_q, "log_q")
    if p.shape != q.shape:
        raise ValueError(f"log_q has shape {q.shape}, expected {p.shape} to match log_p")
    possible = p > -np.inf  # 0 log 0 = 0
    ratio = np.subtract(p, q, out=np.zeros_like(p), where=possible)
    return float((np.exp(p) * ratio).sum(axis=-1).mean())


def spreads(log_p: ArrayLike, retrained: ArrayLike) -> float:
    """Mean KL from retrained models to a model, in units of that between retrained models ("spreads").

    Parameters
    ----------
    log_p : (n, K) array
        Log-probabilities of the unlearned model on n rows: those that the request touched, or test rows.
    retrained : (r, n, K) array, r at least 3
        The same of models retrained on the corrected data, with different seeds.

    Returns
    -------
    float
        The mean of KL(retrained || model) over retrained models, divided by that over all ordered pairs of
        retrained models: about 1 for another retrained model, and 0.5 for one in their midst.

    Raises
    ------
    ValueError
        Fewer than 3 retrained models, all alike (there is no unit then), shapes that do not match, rows that
        are no log-probabilities.

    Notes
    -----
    A network has no single retrained model, since seeds alone move it. The KL of "Bad Teaching" (Chundawat
    et al., AAAI 2023) and of the proximal Bregman response (Bae et al., NeurIPS 2022) says nothing without
    the unit. The KL counts a divergence in both directions, of knowing more and of knowing less.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.special import log_softmax
    >>> import expunge as ex
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.standard_normal((500, 3))
    >>> seeds = (0.1 * rng.standard_normal((500, 3)) for _ in range(6))
    >>> *retrained, another = (log_softmax(logits + seed, axis=1) for seed in seeds)
    >>> surer, mean = log_softmax(1.5 * logits, axis=1), log_softmax(logits, axis=1)
    >>> [round(ex.metrics.spreads(p, retrained), 1) for p in (another, surer, mean)]
    [1.0, 6.6, 0.5]
    """
    p, others = as_log_probabilities(log_p, "log_p"), as_log_probabilities(retrained, "retrained")
    if others.shape[1:] != p.shape:
        raise ValueError(f"retrained has shape {others.shape}, expected (r, *{p.shape}) to match log_p")
    require_retrainings(len(others))
    pairs = [(a, b) for i, a in enumerate(others) for j, b in enumerate(others) if i != j]
    unit = np.mean([mean_kl(a, b) for a, b in pairs])
    if unit <= 0.0:
        raise ValueError("the retrained models are alike, so that there is no spread: train with other seeds")
    return float(np.mean([mean_kl(other, p) for other in others]) / unit)


def outside(value: float, retrained: ArrayLike, *, margin: float = 0.0) -> float:
    """How far a number lies outside of the range of retrained models: a two-sided comparison.

    Parameters
    ----------
    value : float
        A number about the unlearned model: loss of the touched rows, rank of a secret, accuracy, ...
    retrained : (r,) array, r at least 3
        The same number of models retrained on the corrected data, with different seeds.
    margin : float, default 0
        Widens the range by this share of the number at either end: 0.2 for 20 %.

    Returns
    -------
    float
        0 within the range, negative below, positive above, in the unit of `value`.

    Raises
    ------
    ValueError
        Fewer than 3 retrained models, NaN or infinity, a negative margin.

    Notes
    -----
    Another retrained model falls outside of the range of r with probability ``2 / (r + 1)``: with few
    retrained models a margin is needed, or values from several requests.

    Examples
    --------
    >>> import expunge as ex
    >>> bits = [36.0, 41.0, 47.0]  # of the secret, of retrained models
    >>> [ex.metrics.outside(b, bits) for b in (3.5, 40.0, 182.0)]  # remembers, as retrained, over-forgotten
    [-32.5, 0.0, 135.0]
    >>> ex.metrics.outside(51.0, bits, margin=0.2)
    0.0
    """
    others = as_numbers(retrained, "retrained")
    require_retrainings(others.size)
    own, share = as_number(value, "value", above=-np.inf), as_number(margin, "margin")
    low, high = others.min() - share * abs(others.min()), others.max() + share * abs(others.max())
    return float(min(own - low, 0.0) + max(own - high, 0.0))
