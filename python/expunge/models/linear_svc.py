"""Linear support vector classification with a squared hinge, as a scikit-learn estimator."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from .._arrays import Float, inside, require_unmasked
from ..engine.solver import FIT_WITHIN
from .base import ON_FIT, _LinearModel
from .renamed import AsksForAlpha

__all__ = ["LinearSVC"]


class LinearSVC(ClassifierMixin, _LinearModel, AsksForAlpha):  # type: ignore[misc]
    """Binary support vector classification: squared hinge, l2 penalty, solved to its minimiser.

    Minimises ``sum_i s_i max(0, 1 - m_i)^2 + alpha/2 (|coef|^2 + (intercept / intercept_scaling)^2)``, m_i
    the margin of row i: the objective of scikit-learn's LinearSVC with C = 1/alpha, which penalises the
    intercept.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda = 1/C > 0, on the sum scale.
    intercept_scaling : float, default=1.0
        How much less the intercept is penalised than a coefficient is.
    class_weight : dict or "balanced", optional
        As of :class:`LogisticRegression`.
    fit_intercept, within, tol, max_iter, solver, memory_limit
        As of :class:`LogisticRegression`. A distance is proven where no row's margin is 1 on the way to the
        minimum (E36): its standard errors are those of H^-1, which is no covariance here.

    Attributes
    ----------
    classes_ : (2,) array
        Sorted class labels; coef_ points to the second.
    coef_ : (1, n_features) array, read-only
    intercept_ : (1,) array, read-only
    n_iter_, residual_, n_features_in_, feature_names_in_
        As of :class:`LogisticRegression`.

    Examples
    --------
    >>> import expunge as ex
    >>> model = ex.LinearSVC(alpha=1.0).fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"])
    >>> model.predict([[0.5], [2.9]])
    array(['no', 'yes'], dtype='<U3')
    """

    _loss = "squared_hinge"

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        within: float = FIT_WITHIN,
        tol: float | None = None,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
        class_weight: dict[Any, float] | str | None = None,
    ) -> None:
        super().__init__(
            alpha,
            fit_intercept=fit_intercept,
            within=within,
            tol=tol,
            max_iter=max_iter,
            solver=solver,
            memory_limit=memory_limit,
        )
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fits to rows X (n, d), labels y (n,) of two classes and weights (n,) or a scalar.

        Raises
        ------
        ValueError
            As of :meth:`LogisticRegression.fit`.
        """
        fresh = copy.copy(self)
        require_unmasked(y, "y")
        X, y = validate_data(fresh, inside(X), y, **ON_FIT)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if classes.size > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}: fit one model for each class."
            )
        if classes.size < 2:
            raise ValueError(f"y holds one class, {classes[0]!r}: two classes are needed")
        fresh.classes_ = classes
        return self._fit(fresh, X, codes.astype(np.float64), sample_weight)

    def decision_function(self, X: Any) -> Float:
        """Linear predictor eta (n,): positive where classes_[1] is predicted."""
        return self._eta(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """Class labels (n,) for X (n, n_features) or a frame that holds the features."""
        model = copy.copy(self)  # its classes_ go with its coef_
        above = model.decision_function(X) > 0
        labels: NDArray[Any] = model.classes_[above.astype(np.intp)]
        return labels

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
