"""Weights of classes: a row counts its own weight times that of its label's class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from ._arrays import Float
from ._numbers import as_number


def as_class_weights(class_weight: Any, classes: NDArray[Any] | None) -> Float | None:
    """Weights of the classes (K,) from a model's class_weight; None where there is none.

    Raises
    ------
    ValueError, TypeError
        No dict, a label that is no class, a weight that is not finite and above 0.

    Examples
    --------
    >>> as_class_weights({"yes": 3.0}, np.array(["no", "yes"]))
    array([1., 3.])
    """
    if class_weight is None or classes is None:
        return None
    if isinstance(class_weight, str) and class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' depends on how many rows each class has, which a request may change: "
            "refit with LogisticRegression(class_weight={label: weight, ...}), a dict of weights to keep"
        )
    if not isinstance(class_weight, dict):
        raise TypeError(f"class_weight must be None or a dict of labels and weights, got {class_weight!r}")
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
