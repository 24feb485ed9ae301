"""Ridge regression as a scikit-learn estimator."""

from __future__ import annotations

import copy
from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from .._arrays import Float, as_targets, inside, require_unmasked
from ..losses import get_loss
from .base import ON_FIT, _LinearModel

__all__ = ["Ridge"]


class Ridge(RegressorMixin, _LinearModel):  # type: ignore[misc]
    """Least squares with an l2 penalty, solved to a stated distance from its minimiser.

    Minimises ``1/2 sum_i s_i (y_i - x_i @ coef - intercept)^2 + alpha/2 |coef|^2`` (E1), the objective of
    scikit-learn's Ridge with the same alpha.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda > 0, on the sum scale. The intercept is not penalised.
    fit_intercept : bool, default=True
    within : float, default=1e-6
        How many standard errors the fit may be from the minimiser: proven (E41), and the unit of
        :class:`Unlearner`. Where rounding does not let that be proven (E19), the fit ends where it can and
        warns; at the default only if that may hide a thousandth of a standard error.
    tol : float, optional
        In place of `within`: absolute bound on the Euclidean norm of the whole gradient, intercept included,
        on the sum scale. Columns far from 0 count less a constant, beside an intercept (E43). Where rounding
        does not let it be reached, the fit stops there and warns.
    max_iter : int, default=100
        Newton iterations.
    solver : {"auto", "cholesky", "cg"}, default="auto"
        How Newton's linear systems are solved. ``cholesky`` assembles and factors the whole Hessian, p x p.
        ``cg`` takes conjugate gradients on Hessian-vector products, preconditioned by the factor of a block,
        of the coordinates that the data determine most (512 or fewer; 1536 in an Unlearner), and the diagonal
        of the others. ``auto`` takes cholesky where it fits `memory_limit` and pays. Both may factor an
        n x n matrix instead, for dense X with fewer rows than columns (E23). An Unlearner of this model
        follows the same choice.
    memory_limit : float, optional
        Bytes that p x p matrices may take (six of them), or n x n (two); by default a quarter of the
        machine's memory.

    Attributes
    ----------
    coef_ : (n_features,) array, read-only
    intercept_ : float
    n_iter_ : int
    residual_ : float or None
        Norm of the gradient at the solution; None where a proven bound vouches instead, see Unlearner.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str, where X was a frame with string names
    certificate_ : Certificate
        Of a model that came from :meth:`Unlearner.release`.

    Notes
    -----
    Threads may predict while another one fits the model again or applies requests to it: each prediction is
    that of the model before or after.

    Examples
    --------
    >>> import expunge as ex
    >>> model = ex.Ridge(alpha=1.0).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    >>> model.coef_.round(6), model.residual_ <= 1e-8
    (array([0.666667]), True)
    """

    _loss = "squared"

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fits to rows X (n, d), targets y (n,) and weights (n,) or a scalar.

        Raises
        ------
        ValueError
            NaN or infinity, shapes that do not match, alpha <= 0, negative weights.
        """
        fresh = copy.copy(self)
        require_unmasked(y, "y")
        X, y = validate_data(fresh, inside(X), y, y_numeric=True, **ON_FIT)
        return self._fit(fresh, X, as_targets(y, get_loss(self._loss), X.shape[0]), sample_weight)

    def predict(self, X: Any) -> Float:
        """``X @ coef_ + intercept_`` (n,), for X (n, n_features) or a frame that holds the features."""
        return self._eta(X)
