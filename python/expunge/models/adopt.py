"""Fitted models in: which objective (E1) a model of ours or scikit-learn minimises, or why it is refused.

Public attributes and parameters only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn import linear_model
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._arrays import Float, as_targets
from ..losses import get_loss
from .base import check_alpha
from .logistic import LogisticRegression
from .ridge import Ridge

__all__ = ["Specification", "encode_targets", "specification"]

SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Specification:
    """The objective of a fitted model."""

    loss: str
    alpha: float
    fit_intercept: bool
    classes: NDArray[Any] | None  # (2,) labels of targets 0 and 1

    @cached_property
    def constant_hessian(self) -> bool:
        """Whether the Hessian does not depend on theta."""
        return get_loss(self.loss).max_d3 == 0

    @cached_property
    def model(self) -> dict[str, Any]:
        """Which model it is, as receipts say it: all but what the data decide."""
        return {
            "kind": "Ridge" if self.classes is None else "LogisticRegression",
            "alpha": self.alpha,
            "fit_intercept": self.fit_intercept,
            "classes": None if self.classes is None else len(self.classes),
        }

    @cached_property
    def targets(self) -> dict[Any, Float]:
        """The two labels' targets, (1,) each."""
        labels = [] if self.classes is None else self.classes.tolist()
        return {label: np.array([target]) for target, label in zip((0.0, 1.0), labels, strict=False)}


def specification(model: Any) -> Specification:
    """Reads the objective off a fitted model.

    Parameters
    ----------
    model : Ridge or LogisticRegression, of expunge or of scikit-learn

    Returns
    -------
    Specification

    Raises
    ------
    NotFittedError
    TypeError
        Not one of these models; says what to pass instead.
    ValueError
        One of these models with an objective other than E1; says why and what to do.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> specification(Ridge(alpha=2.0).fit([[0.0], [1.0]], [0.0, 1.0])).alpha
    2.0
    """
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class: pass a fitted instance")
    if isinstance(model, Pipeline):
        raise TypeError(
            "a Pipeline transforms X before its model: pass its last step, model[-1], and the transformed X, "
            "model[:-1].transform(X)"
        )
    if isinstance(model, linear_model.LogisticRegressionCV):
        raise TypeError(
            "LogisticRegressionCV chose C on the data: fit LogisticRegression with its C_ and pass that"
        )
    for kind, read in (
        ((Ridge, linear_model.Ridge), _ridge),
        ((LogisticRegression, linear_model.LogisticRegression), _logistic),
    ):
        if isinstance(model, kind):
            check_is_fitted(model)
            if sparse.issparse(model.coef_):
                raise ValueError("coef_ is sparse: call model.densify() first")
            return read(model)
    raise TypeError(
        f"{type(model).__name__} is not supported: pass a fitted Ridge or LogisticRegression of expunge or "
        "scikit-learn"
    )


def _ridge(model: Any) -> Specification:
    if np.ndim(model.coef_) > 1 and np.shape(model.coef_)[0] != 1:
        raise ValueError("multi-output Ridge is not supported: fit one model for each output")
    if getattr(model, "positive", False):
        raise ValueError("Ridge(positive=True) is constrained, not a minimiser of E1: fit it unconstrained")
    alpha = np.ravel(model.alpha)
    if alpha.size != 1:
        raise ValueError("Ridge with one alpha for each output is not supported: fit one model for each")
    return Specification("squared", check_alpha(float(alpha[0])), bool(model.fit_intercept), None)


def _logistic(model: Any) -> Specification:
    if len(model.classes_) != 2:
        raise ValueError(
            f"the model has {len(model.classes_)} classes: fit one binary model for each class instead"
        )
    alpha = check_alpha(model.alpha) if isinstance(model, LogisticRegression) else 1.0 / _C(model)
    return Specification("logistic", alpha, bool(model.fit_intercept), np.asarray(model.classes_))


def _C(model: Any) -> float:
    parameters = model.get_params(deep=False)
    penalty = parameters.get("penalty", "deprecated")  # scikit-learn >= 1.8 says all by l1_ratio and C
    if penalty is None or not np.isfinite(parameters["C"]):
        raise ValueError("without an l2 penalty (C=inf) the minimiser need not exist: refit with a finite C")
    if penalty == "l1" or (penalty in ("elasticnet", "deprecated") and parameters.get("l1_ratio")):
        raise ValueError("an l1 or elastic-net penalty is not differentiable: refit with the l2 penalty")
    if parameters.get("multi_class") == "multinomial":  # scikit-learn < 1.8
        raise ValueError("multi_class='multinomial' fits another objective: refit without it")
    if parameters["class_weight"] is not None:
        raise ValueError(
            "class_weight depends on the labels that a request may change: refit with sample_weight instead, "
            "and pass the same sample_weight here"
        )
    if parameters["solver"] == "liblinear" and parameters["fit_intercept"]:
        raise ValueError("liblinear penalises the intercept: refit with solver='lbfgs' or 'newton-cholesky'")
    return float(parameters["C"])


def encode_targets(y: ArrayLike, n: int, spec: Specification) -> Float:
    """Targets (n,) of the loss from targets in the user's form, (n,) or a scalar.

    Raises
    ------
    ValueError
        Another shape, NaN or infinity, a label that is not one of the two classes.
    """
    if n == 1 and isinstance(y, SCALARS):  # a stream of single rows takes this way
        if y in spec.targets:
            return spec.targets[y]
        if spec.classes is None and isinstance(y, float) and isfinite(y):
            return np.array([float(y)])
    if spec.classes is None:
        y = np.asarray(y)
        return as_targets(np.full(n, y) if y.ndim == 0 else _one_column(y), get_loss(spec.loss), n)
    labels = _one_column(np.asarray(y))
    if labels.ndim == 0:
        labels = np.full(n, labels)
    if labels.shape != (n,):
        raise ValueError(f"y has shape {labels.shape}, expected ({n},) to match X")
    first, second = labels == spec.classes[0], labels == spec.classes[1]
    unseen = ~(first | second)
    if np.any(unseen):
        unknown = labels[unseen][:1].tolist()[0]
        raise ValueError(f"label {unknown!r} is not one of the classes {spec.classes.tolist()}")
    return np.asarray(second, dtype=np.float64)


def _one_column(y: NDArray[Any]) -> NDArray[Any]:
    return y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y
