"""Whether forgotten rows can be told from rows that were never there."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from .._arrays import Float
from .._numbers import as_number
from ._inputs import as_numbers, require_retrainings

SMALLEST_LOSS = 2.0**-53  # of p = 1 - 2^-53: below it, float64 does not know p from 1


@dataclass(frozen=True)
class Membership:
    """What a membership inference attack sees.

    Attributes
    ----------
    auc : float
        Probability that a forgotten row looks more like a training row than an unseen one does. 0.5: no
        difference. Above, the model remembers; below, it was pushed further than forgetting goes.
    z : float
        ``auc - 0.5`` in its standard errors where there is no difference: beyond ±2 it is seen.
    true_positives : float
        Share of the forgotten rows that are found at the asked rate of false positives.

    Examples
    --------
    >>> import expunge as ex
    >>> ex.metrics.membership([0.1, 0.2, 0.3], [0.15, 0.25, 0.35])  # doctest: +ELLIPSIS
    Membership(auc=0.666..., z=0.654..., true_positives=0.333...)
    """

    auc: float
    z: float
    true_positives: float


def membership(
    forgotten: ArrayLike,
    unseen: ArrayLike,
    *,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
    false_positives: float = 0.01,
) -> Membership:
    """Membership inference on forgotten rows, by their losses beside those of rows never trained on.

    Parameters
    ----------
    forgotten : (m,) array
        Losses ``-log p(label)`` of the unlearned model on the rows that it was to forget.
    unseen : (k,) array
        The same on rows from the same source that were never trained on.
    reference : ((r, m), (r, k)) arrays, optional
        The same losses, of both, of r >= 3 models that were trained on neither. Each row then is compared
        with what such models say of it, which finds far more than losses alone.
    false_positives : float, default 0.01
        At which rate of unseen rows taken for members `true_positives` is counted.

    Returns
    -------
    Membership

    Raises
    ------
    ValueError
        No rows, negative losses, NaN or infinity, shapes that do not match, fewer than 3 reference models.

    Notes
    -----
    Without a reference, the attack of Yeom et al. (CSF 2018): the smaller the loss, the likelier a member.
    With one, LiRA in its offline form (Carlini et al., S&P 2022, section VI.A): the logit
    ``log(p / (1 - p))`` in standard deviations from its mean over the reference models. All rows share one
    standard deviation, as there for few models.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.exponential(size=400)  # how hard each row is, for any model
    >>> models = hard * rng.uniform(0.9, 1.1, size=(4, 400))
    >>> remembers = np.concatenate([0.5 * hard[:200], hard[200:]])
    >>> for losses in (models[0], remembers):
    ...     reference = models[1:, :200], models[1:, 200:]
    ...     alone = ex.metrics.membership(losses[:200], losses[200:])
    ...     beside = ex.metrics.membership(losses[:200], losses[200:], reference=reference)
    ...     print(f"{alone.auc:.2f} {beside.auc:.2f}")
    0.49 0.49
    0.66 1.00
    """
    members, others = as_losses(forgotten, "forgotten"), as_losses(unseen, "unseen")
    share = as_number(false_positives, "false_positives", above=0, below=1)
    if reference is None:
        score, score_of_others = -members, -others
    else:
        logits = [
            as_logits(found, losses, name)
            for found, losses, name in zip(reference, (members, others), ("forgotten", "unseen"), strict=True)
        ]
        deviation = sqrt(np.mean([part.var(axis=0, ddof=1).mean() for part in logits]))
        if deviation == 0.0:
            raise ValueError("the reference models are alike: train them with other seeds")
        score, score_of_others = (
            (logit(losses) - part.mean(axis=0)) / deviation
            for losses, part in zip((members, others), logits, strict=True)
        )
    return compared(score, score_of_others, share)


def compared(score: Float, others: Float, share: float) -> Membership:
    """The attack that says "member" above a threshold, over all thresholds and at one."""
    m, k = score.size, others.size
    ranks = rankdata(np.concatenate([score, others]))[:m]  # ties share their mean rank
    auc = (ranks.sum() - m * (m + 1) / 2) / (m * k)
    threshold = np.sort(others)[k - 1 - int(share * k)]  # int(share * k) of the others lie above
    z = (auc - 0.5) / sqrt((m + k + 1) / (12 * m * k))  # Mann and Whitney
    return Membership(float(auc), float(z), float(np.mean(score > threshold)))


def as_losses(values: ArrayLike, name: str) -> Float:
    """(m,) losses that are none of them negative."""
    losses = as_numbers(values, name)
    if losses.min() < 0.0:
        raise ValueError(f"{name} has the loss {losses.min():g}: pass -log p(label), which is not negative")
    return losses


def as_logits(found: ArrayLike, losses: Float, name: str) -> Float:
    """(r, m) logits of the reference models."""
    values = np.asarray(found, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != losses.size:
        raise ValueError(f"reference of {name} has shape {values.shape}, expected (r, {losses.size})")
    require_retrainings(len(values))
    as_losses(values.ravel(), f"reference of {name}")
    return logit(values)


def logit(losses: Float) -> Float:
    """``log(p / (1 - p))`` of ``-log p``."""
    logits: Float = -np.log(np.expm1(np.maximum(losses, SMALLEST_LOSS)))
    return logits
