"""Weights of classes: a row counts its own weight times that of its label's class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from ._arrays import Float
from ._numbers import as_number

Balance = Literal["weights", "rows"]  # what "balanced" counts of a class
OURS: Balance = "weights"  # as scikit-learn does since 1.7
THEIRS: Balance = "weights" if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7) else "rows"


def is_balanced(class_weight: Any) -> bool:
    """Whether a model's class_weight moves with the rows (E35).

    Examples
    --------
    >>> is_balanced("balanced"), is_balanced({"yes": 3.0})
    (True, False)
    """
    return isinstance(class_weight, str) and class_weight == "balanced"


def balanced(targets: Float, sample_weight: Float | None, classes: int, counts: Balance) -> Float:
    """What makes all classes count the same: ``N / (K N_k)`` (K,), N the rows or their weights (E35).

    0 where a class has none.

    Examples
    --------
    >>> balanced(np.array([0.0, 0.0, 0.0, 1.0]), None, 2, "rows").round(6).tolist()
    [0.666667, 2.0]
    """
    counted = sample_weight if counts == "weights" else None
    of_class = np.bincount(targets.astype(np.intp), weights=counted, minlength=classes).astype(np.float64)
    weights: Float = of_class.sum() / (classes * np.where(of_class > 0.0, of_class, np.inf))
    return weights


def as_class_weights(class_weight: Any, classes: NDArray[Any] | None) -> Float | None:
    """Weights of the classes (K,) from a model's class_weight; None where there is none, or rows decide.

    Raises
    ------
    ValueError, TypeError
        No dict, a label that is no class, a weight that is not finite and above 0.

    Examples
    --------
    >>> as_class_weights({"yes": 3.0}, np.array(["no", "yes"]))
    array([1., 3.])
    """
    if class_weight is None or classes is None or is_balanced(class_weight):
        return None
    if not isinstance(class_weight, dict):
        raise TypeError(
            f"class_weight must be None, 'balanced' or a dict of labels and weights, got {class_weight!r}"
        )
    for label, weight in class_weight.items():
        try:
            as_number(weight, f"class_weight[{label!r}]", above=0.0)
        except ValueError as error:
            raise ValueError(f"{error}: leave rows that are not to count out of the data") from None
    weights: Float = compute_class_weight(class_weight, classes=classes, y=classes).astype(np.float64)
    return weights


def as_parameter(class_weights: Float | None, classes: NDArray[Any] | None) -> dict[Any, float] | None:
    """The reverse of :func:`as_class_weights`: a weight for each class.

    Examples
    --------
    >>> as_parameter(np.array([1.0, 3.0]), np.array(["no", "yes"]))
    {'no': 1.0, 'yes': 3.0}
    """
    if class_weights is None or classes is None:
        return None
    return dict(zip(classes.tolist(), class_weights.tolist(), strict=True))


def weighed(class_weights: Float | None, targets: Float, sample_weight: Float | None) -> Float | None:
    """What rows of these targets count (n,); None: 1 each.

    Examples
    --------
    >>> weighed(np.array([1.0, 3.0]), np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([1.5, 0.5])
    """
    if class_weights is None:
        return sample_weight
    by_class: Float = class_weights[np.nan_to_num(targets).astype(np.intp)]  # NaN: of a row that leaves
    if sample_weight is None:
        return by_class
    if not np.isfinite(float(sample_weight.max(initial=0.0)) * float(class_weights.max())):
        raise ValueError("sample_weight times class_weight overflows float64: scale the weights")
    return sample_weight * by_class
