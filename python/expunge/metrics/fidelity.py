"""How good an unlearned classifier is, and how near its answers are to those of the retrained one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from .._arrays import Float
from ._inputs import as_numbers
from .behaviour import mean_kl


@dataclass(frozen=True)
class Quality:
    """What a binary classifier is worth on test rows.

    Attributes
    ----------
    accuracy : float
    macro_f1 : float
        Mean of F1 over both classes: where one class is rare, accuracy hides what happens to it.
    roc_auc, pr_auc : float
        Areas under the receiver operating characteristic, and under precision against recall (average
        precision).

    Examples
    --------
    >>> import expunge as ex
    >>> ex.metrics.quality([0, 0, 1, 1], [-2.0, 0.5, 1.0, 3.0])  # doctest: +ELLIPSIS
    Quality(accuracy=0.75, macro_f1=0.733..., roc_auc=1.0, pr_auc=1.0)
    """

    accuracy: float
    macro_f1: float
    roc_auc: float
    pr_auc: float


@dataclass(frozen=True)
class Fidelity:
    """A classifier beside the retrained one, on the same test rows.

    Attributes
    ----------
    quality, of_retrained : Quality
    mean_kl : float
        Mean Kullback-Leibler divergence from the retrained model's probabilities to the other's, in nats.
    largest_gap : float
        Largest difference of two logits of one row.

    Examples
    --------
    >>> import expunge as ex
    >>> found = ex.metrics.fidelity([0, 1, 1], [-2.0, 1.0, 3.0], [-2.0, 1.5, 3.0])
    >>> found.largest_gap, found.quality == found.of_retrained
    (0.5, True)
    """

    quality: Quality
    of_retrained: Quality
    mean_kl: float
    largest_gap: float


def quality(y: ArrayLike, logits: ArrayLike) -> Quality:
    """Accuracy, macro-F1 and areas of a binary classifier.

    Parameters
    ----------
    y : (n,) array of 0 and 1
    logits : (n,) array
        As `decision_function` gives them: 1 is predicted where they are above 0.

    Returns
    -------
    Quality

    Raises
    ------
    ValueError
        NaN or infinity, shapes that do not match, labels other than 0 and 1 or of one kind only.

    Examples
    --------
    >>> import expunge as ex
    >>> ex.metrics.quality([0, 1], [-1.0, 1.0]).accuracy
    1.0
    """
    target, eta = _labels(y), as_numbers(logits, "logits")
    if eta.shape != target.shape:
        raise ValueError(f"logits has shape {eta.shape}, expected {target.shape} to match y")
    predicted = eta > 0.0
    return Quality(
        float(np.mean(predicted == target)),
        float(f1_score(target, predicted, average="macro", zero_division=0.0)),
        float(roc_auc_score(target, eta)),
        float(average_precision_score(target, eta)),
    )


def fidelity(y: ArrayLike, logits: ArrayLike, retrained: ArrayLike) -> Fidelity:
    """The quality of a model and of the retrained one, and how far apart their answers are.

    Parameters
    ----------
    y : (n,) array of 0 and 1
    logits, retrained : (n,) arrays
        Of the unlearned model and of the retrained one, as `decision_function` gives them.

    Returns
    -------
    Fidelity

    Raises
    ------
    ValueError
        As of :func:`quality`.

    Examples
    --------
    >>> import expunge as ex
    >>> round(ex.metrics.fidelity([0, 1], [-1.0, 1.0], [-1.0, 2.0]).mean_kl, 4)
    0.0336
    """
    own, reference = quality(y, logits), quality(y, retrained)
    eta, other = as_numbers(logits, "logits"), as_numbers(retrained, "retrained")
    kl = mean_kl(_log_probabilities(other), _log_probabilities(eta))
    return Fidelity(own, reference, kl, float(np.abs(eta - other).max()))


def _labels(y: ArrayLike) -> Float:
    labels = as_numbers(y, "y", least=2)
    if set(np.unique(labels).tolist()) != {0.0, 1.0}:
        raise ValueError("y must hold both 0 and 1: encode the two classes so, and take rows of both")
    return labels


def _log_probabilities(eta: Float) -> Float:
    return np.column_stack([log_expit(-eta), log_expit(eta)])
