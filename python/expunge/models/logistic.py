"""Logistic regression as a scikit-learn estimator."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .._arrays import Float, inside, require_unmasked
from .._numbers import as_number
from ..engine.solver import FIT_WITHIN
from ..multinomial import probabilities
from ..noise import Noise, check_random_state
from .base import ON_FIT, _LinearModel
from .renamed import AsksForAlpha

__all__ = ["LogisticRegression"]


class LogisticRegression(ClassifierMixin, _LinearModel, AsksForAlpha):  # type: ignore[misc]
    """Logistic regression with an l2 penalty, solved to a stated distance from its minimiser.

    Minimises ``sum_i s_i log(1 + exp(-m_i)) + alpha/2 |coef|^2``, m_i the margin of row i (E1), or of more
    than two classes the multinomial loss ``sum_i s_i (logsumexp(eta_i) - eta_iy) + alpha/2 |coef|^2`` (E28):
    the objectives of scikit-learn's LogisticRegression with C = 1/alpha.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda = 1/C > 0, on the sum scale. The intercept is not penalised.
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
        of the others. ``auto`` takes cholesky where it fits `memory_limit` and pays. An Unlearner of this
        model follows the same choice.
    memory_limit : float, optional
        Bytes that p x p matrices may take (six of them); by default a quarter of the machine's memory.
    class_weight : dict or "balanced", optional
        What rows of each class count, as label -> weight > 0, times their sample_weight; 1 where a label is
        not in it. A row whose label is corrected takes the weight of its new class. ``balanced``: ``W / (K
        W_k)``, W the sum of sample_weight and W_k that of class k, so that all classes count the same; every
        row's weight then moves with each request (E35).
    noise : float, default=0.0
        Standard deviation sigma of b: each fit draws b ~ N(0, sigma^2) anew, one number for each feature and
        none for the intercept, and adds ``b @ coef`` to the objective (E15), so that an Unlearner may release
        this model with ``mechanism="objective"``. Must not depend on the data.
    random_state : int, optional
        Where noise comes from: the operating system, or this seed, for tests. A certificate then says "void".

    Attributes
    ----------
    classes_ : (K,) array
        Sorted class labels. coef_ of two points to the second.
    coef_ : (1, n_features) array, of K > 2 classes (K, n_features), read-only
    intercept_ : (1,) array, or (K,), read-only
        Those of K classes add up to 0.
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
    >>> model = ex.LogisticRegression(alpha=1.0).fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"])
    >>> model.predict([[0.5], [2.5]])
    array(['no', 'yes'], dtype='<U3')
    >>> model.fit([[0.0], [1.0], [2.0], [3.0]], ["no", "maybe", "maybe", "yes"]).coef_.shape
    (3, 1)
    """

    _loss = "logistic"

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        within: float = FIT_WITHIN,
        tol: float | None = None,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
        class_weight: dict[Any, float] | str | None = None,
        noise: float = 0.0,
        random_state: int | None = None,
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
        self.class_weight = class_weight
        self.noise = noise
        self.random_state = random_state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("class_weight", None)  # 0.4 had none

    def _draw(self, d: int) -> Noise | None:
        if self._drawn is not None:
            return self._drawn
        sigma, seed = as_number(self.noise, "noise"), check_random_state(self.random_state)
        return Noise.drawn(sigma, d, seed) if sigma else None

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fits to rows X (n, d), labels y (n,) of two classes or more and weights (n,) or a scalar.

        Raises
        ------
        ValueError
            NaN or infinity, shapes that do not match, alpha <= 0, negative weights, weights of classes that
            are not above 0 or of no class, one class; noise in the objective of more than two.
        """
        fresh = copy.copy(self)
        require_unmasked(y, "y")
        X, y = validate_data(fresh, inside(X), y, **ON_FIT)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if classes.size < 2:
            raise ValueError(f"y holds one class, {classes[0]!r}: two classes are needed")
        if classes.size > 2 and (self._drawn is not None or as_number(self.noise, "noise")):
            raise ValueError(
                f"noise in the objective is of models of two classes, and y holds {classes.size}: fit with "
                "noise=0, and release with mechanism='output'"
            )
        fresh.classes_ = classes
        return self._fit(fresh, X, codes.astype(np.float64), sample_weight)

    def decision_function(self, X: Any) -> Float:
        """Linear predictor eta (n,), positive where classes_[1] is predicted; of K > 2 classes (n, K)."""
        return self._eta(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """Class labels (n,) for X (n, n_features) or a frame that holds the features."""
        model = copy.copy(self)  # its classes_ go with its coef_
        eta = model.decision_function(X)
        chosen = eta.argmax(axis=1) if eta.ndim == 2 else (eta > 0).astype(np.intp)
        labels: NDArray[Any] = model.classes_[chosen]
        return labels

    def predict_proba(self, X: Any) -> Float:
        """Probabilities (n, K) of classes_."""
        eta = self.decision_function(X)
        if eta.ndim == 2:
            return probabilities(eta)
        return np.column_stack([expit(-eta), expit(eta)])

    def predict_log_proba(self, X: Any) -> Float:
        """Logarithms (n, K) of the probabilities, without underflow."""
        eta = self.decision_function(X)
        if eta.ndim == 2:
            return np.asarray(log_softmax(eta, axis=1))
        return np.column_stack([log_expit(-eta), log_expit(eta)])
