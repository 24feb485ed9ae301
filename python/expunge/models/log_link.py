"""Regression of means exp(eta) as scikit-learn estimators: counts, rates, amounts."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from .._arrays import Float, as_targets, inside, require_unmasked
from ..engine.solver import FIT_WITHIN
from ..losses import get_loss, loss_of_power
from .base import ON_FIT, _LinearModel

__all__ = ["PoissonRegressor", "TweedieRegressor"]


class _LogLink(RegressorMixin, _LinearModel):  # type: ignore[misc]
    """Both regressors: their means are exp(eta)."""

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fits to rows X (n, d), targets y (n,) and weights (n,) or a scalar.

        Raises
        ------
        ValueError
            NaN or infinity, targets that the loss does not take, shapes that do not match, alpha <= 0,
            negative weights; with an intercept, targets that are all 0 where the loss takes 0.
        """
        fresh = copy.copy(self)
        require_unmasked(y, "y")
        X, y = validate_data(fresh, inside(X), y, y_numeric=True, **ON_FIT)
        return self._fit(fresh, X, as_targets(y, get_loss(self._loss), X.shape[0]), sample_weight)

    def predict(self, X: Any) -> Float:
        """Means ``exp(X @ coef_ + intercept_)`` (n,), for X (n, n_features) or a frame with the features."""
        means: Float = np.exp(self._eta(X))
        return means

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags


class PoissonRegressor(_LogLink):
    """Poisson regression with a log link and an l2 penalty, solved to a stated distance from its minimiser.

    Minimises ``sum_i s_i (exp(eta_i) - y_i eta_i) + alpha/2 |coef|^2`` (E1): the objective of scikit-learn's
    PoissonRegressor, whose loss is a mean, with alpha times the sum of weights.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda > 0, on the sum scale: it stays what it is when rows leave. The intercept is not
        penalised.
    fit_intercept, within, tol, max_iter, solver, memory_limit
        As of :class:`LogisticRegression`.

    Attributes
    ----------
    coef_ : (n_features,) array, read-only
    intercept_ : float
    n_iter_, residual_, n_features_in_, feature_names_in_, certificate_
        As of :class:`Ridge`.

    Examples
    --------
    >>> import expunge as ex
    >>> model = ex.PoissonRegressor(alpha=1.0).fit([[0.0], [1.0], [2.0]], [1, 3, 7])
    >>> model.predict([[1.0]]).round(3)
    array([3.019])
    """

    _loss = "poisson"


class TweedieRegressor(_LogLink):
    """Regression with a log link, variances a power of the means, and an l2 penalty (E34).

    Minimises ``sum_i s_i loss(y_i, eta_i) + alpha/2 |coef|^2`` (E1), the loss half the unit deviance but for
    what depends on y alone: the objective of scikit-learn's TweedieRegressor, whose loss is a mean, with
    alpha times the sum of weights.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda > 0, on the sum scale: it stays what it is when rows leave. The intercept is not
        penalised.
    power : float, default=1.5
        From 1 to 2. 1 is Poisson, 2 gamma regression, whose targets are above 0; between them is the compound
        of both, for amounts of which many are 0.
    fit_intercept, within, tol, max_iter, solver, memory_limit
        As of :class:`LogisticRegression`. Standard errors are those of a dispersion of 1.

    Attributes
    ----------
    coef_ : (n_features,) array, read-only
    intercept_ : float
    n_iter_, residual_, n_features_in_, feature_names_in_, certificate_
        As of :class:`Ridge`.

    Examples
    --------
    >>> import expunge as ex
    >>> model = ex.TweedieRegressor(alpha=1.0, power=2).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 7.5])
    >>> model.predict([[1.0]]).round(3)
    array([2.937])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        power: float = 1.5,
        fit_intercept: bool = True,
        within: float = FIT_WITHIN,
        tol: float | None = None,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
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
        self.power = power

    @property
    def _loss(self) -> str:  # type: ignore[override]
        return loss_of_power(self.power)
