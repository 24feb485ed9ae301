"""Ridge and logistic regression as scikit-learn estimators, fitted by the native Newton solver.

The objective is E1, on the sum scale: ``sum_i s_i loss(y_i, x_i @ coef + intercept) + alpha/2 |coef|^2``,
intercept unpenalised. It is scikit-learn's Ridge(alpha) and LogisticRegression(C=1/alpha). Noise for a
certificate (E15) adds ``b @ coef``.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, assert_all_finite
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import _core
from .._arrays import (
    Blocks,
    Float,
    as_layout,
    as_noise,
    as_penalty,
    as_targets,
    as_weights,
    require_inside,
    select_columns,
)
from ..atomic import assign_all
from ..errors import ConvergenceError, NotPositiveDefiniteError
from ..losses import get_loss
from ..noise import Noise, check_random_state

__all__ = ["LogisticRegression", "Ridge"]


def minimize(
    objective: _core.Objective,
    theta: Float,
    tol: float,
    max_iter: int,
    *,
    anchor: _core.Anchor | None = None,
    start: _core.Evaluation | None = None,
    block: int | None = None,
    stacklevel: int,
) -> _core.Minimum:
    """The core's E11, judged by :func:`check_converged`; `stacklevel` leads from here to the user's line."""
    minimum = _core.minimize(objective, theta, tol, max_iter, anchor, start, block)
    check_converged(minimum, tol, stacklevel + 1)
    return minimum


def check_converged(minimum: _core.Minimum, tol: float, stacklevel: int) -> None:
    """Raises ConvergenceError above both tolerance and floor; warns where the floor rules (E19)."""
    if not minimum.residual <= max(tol, minimum.floor) or not np.isfinite(minimum.residual):
        raise ConvergenceError(
            f"residual {minimum.residual:.3g} is above the tolerance {tol:.3g} after {minimum.iterations} "
            "iterations: raise max_iter or alpha, or scale the columns of X"
        )
    if minimum.floor > tol:
        warnings.warn(
            f"the tolerance {tol:.3g} lies below the rounding floor {minimum.floor:.3g} of these data: "
            f"stopped at residual {minimum.residual:.3g}. Raise the tolerance, or scale the columns of X",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def check_tolerance(value: Any, name: str) -> float:
    """A tolerance as float, or an error."""
    if not (isinstance(value, Real) and 0 <= float(value) < np.inf):
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
    return float(value)


def check_noise(value: Any) -> float:
    """The standard deviation of an objective's noise as float, or an error."""
    if not (isinstance(value, Real) and 0 <= float(value) < np.inf):
        raise ValueError(f"noise must be a finite number >= 0, got {value!r}")
    return float(value)


def check_alpha(value: Any) -> float:
    """The penalty of an estimator as float, or an error."""
    if not (isinstance(value, Real) and 0 < float(value) < np.inf):
        raise ValueError(f"alpha must be a finite number > 0, got {value!r}")
    return float(value)


SOLVERS = ("auto", "cholesky", "cg")
SMALL_BLOCK, LARGE_BLOCK = 512, 1536  # coordinates that solver="cg" factors: for a fit, for many requests
# What a factor of the whole Hessian may cost, in passes over X; and one that serves for good.
FIT_PASSES, LASTING_PASSES = 40.0, 120.0
COPIES = 6  # of the Hessian, while a request is applied: kept, asked for and new, each with its factor
DUAL_COPIES = 2  # of the matrix in the dual: itself, and the factor that it becomes


def check_solver(solver: Any, memory_limit: Any) -> None:
    """The two parameters that choose how linear systems are solved."""
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    if memory_limit is not None and not (isinstance(memory_limit, Real) and float(memory_limit) >= 0):
        raise ValueError(f"memory_limit must be None or a number of bytes >= 0, got {memory_limit!r}")


def most_memory(limit: float | None) -> float:
    """The limit in bytes, by default :func:`quarter_of_memory`."""
    return quarter_of_memory() if limit is None else float(limit)


def quarter_of_memory() -> float:
    """A quarter of the machine's RAM in bytes, or 1 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4
    except (AttributeError, OSError, ValueError):
        return 2.0**30


def in_low_dimension(objective: _core.Objective, p: int) -> bool:
    """Whether some vectors of p numbers are little beside X."""
    return 40 * p <= objective.entries


def choose_block(
    solver: str, memory_limit: float | None, objective: _core.Objective, p: int, *, requests: bool = False
) -> int | None:
    """How many coordinates of the Hessian to factor: None, all of them, for Cholesky; else CG's block (E20).

    `requests`: the factor is for many requests to come, and may cost more than one for a single fit.

    Raises
    ------
    ValueError
        solver="cholesky" above the memory limit.
    """
    limit = most_memory(memory_limit)
    needed = COPIES * 8.0 * p * p
    if solver == "cholesky" and needed > limit:
        raise ValueError(
            f"solver='cholesky' needs {needed:.3g} bytes for {p} parameters, above the memory limit of "
            f"{limit:.3g}: raise memory_limit or use solver='cg'"
        )
    # A solve reads the factor, p^2 numbers; a pass reads the entries of X.
    in_proportion = math.isqrt(int(1.5 * objective.entries) + 10_000)
    if objective.quadratic and not requests:  # the first factor is the last, and solves but once
        pays = objective.anchor_cost <= LASTING_PASSES
    else:
        pays = objective.anchor_cost <= (LASTING_PASSES if requests else FIT_PASSES) and p <= in_proportion
    if solver == "cholesky" or (solver == "auto" and needed <= limit and pays):
        return None
    block = SMALL_BLOCK
    if requests and in_low_dimension(objective, p):
        block = min(in_proportion, LARGE_BLOCK)
    elif not requests and p > SMALL_BLOCK:  # few rows do not make a large block worth its Gram matrix
        block = min(SMALL_BLOCK, max(64, objective.rows // 16))
    return min(p, block, math.isqrt(int(min(limit, 2.0**60) / (8 * COPIES))))


# How a fit takes X; whether it is finite, the largest norm tells.
_LEARNT: dict[str, Any] = {
    "dtype": [np.float64, np.float32],
    "accept_sparse": "csr",
    "ensure_all_finite": False,
}


def theta_of(model: Any) -> Float:
    """coef_ and intercept_ of a fitted linear model with one output, as theta (p,)."""
    coef, intercept = np.ravel(model.coef_), np.ravel(model.intercept_)
    theta = np.append(coef, intercept) if model.fit_intercept else coef
    return theta.astype(np.float64)


def noise_of(model: Any) -> Noise | None:
    """The noise in a fitted model's objective, None if there is none; CertificateError where it is lost."""
    noise = model._noise if isinstance(model, _LinearModel) else None
    if noise is not None:
        noise.values  # noqa: B018 - raises if they are lost
    return noise


def fit_again(model: Any, noise: Noise | None, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> None:
    """Fits an estimator of ours with the noise of another one."""
    model._fit_again(noise, X, y, sample_weight)


def set_theta(
    model: Any,
    theta: Float,
    residual: float | None,
    *,
    names: Sequence[str] | None = None,
    noise: Noise | None = None,
) -> None:
    """Writes theta into a linear model's public attributes, in scikit-learn's shapes.

    With `names`, feature_names_in_ becomes them; n_features_in_ follows the length of theta. A model of ours
    changes by one assignment, takes theta without a copy, which makes it read-only, and `residual` as its
    residual_. One of scikit-learn's gets copies, and back what it had where not all can be written. `noise`
    is that of the objective, for these features.
    """
    assign_all(fitted_attributes(model, theta, residual, names, noise))


def fitted_attributes(
    model: Any, theta: Float, residual: float | None, names: Sequence[str] | None, noise: Noise | None
) -> list[tuple[Any, str, Any]]:
    """What :func:`set_theta` sets, for :func:`assign_all`."""
    if isinstance(model, _LinearModel):
        return [(model, "_fitted", model._fitted_to(theta, residual, names, noise))]
    d = theta.size - bool(model.fit_intercept)
    intercept = np.full(np.shape(model.intercept_), 0.0)
    if model.fit_intercept:
        intercept[...] = theta[d]
    fitted: dict[str, Any] = {
        "coef_": theta[:d].reshape(*np.shape(model.coef_)[:-1], d).copy(),
        "intercept_": intercept if intercept.ndim else float(intercept),
        "n_features_in_": d,
    }
    if names is not None:
        fitted["feature_names_in_"] = np.asarray(names, dtype=object)
    return [(model, name, value) for name, value in fitted.items()]


def _entry(name: str) -> property:
    """A fitted attribute, kept in `_fitted`, which is replaced as a whole and never changed."""

    def missing(self: _LinearModel) -> AttributeError:
        return AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
        )

    def read(self: _LinearModel) -> Any:
        try:
            return self._fitted[name]
        except KeyError:
            raise missing(self) from None

    def write(self: _LinearModel, value: Any) -> None:
        fitted = {**self._fitted, name: value}
        if name != "certificate_":
            fitted.pop("certificate_", None)  # it was of other values
        self._fitted = fitted

    def delete(self: _LinearModel) -> None:
        if name not in self._fitted:
            raise missing(self)
        self._fitted = {key: value for key, value in self._fitted.items() if key != name}

    return property(read, write, delete, f"The fitted attribute {name}.")


_NO_INTERCEPT = np.zeros(1)
_NO_INTERCEPT.flags.writeable = False


class _LinearModel(BaseEstimator):  # type: ignore[misc]
    """What the two estimators share: the parameters, the fit, the linear predictor.

    One assignment, of `_fitted`, takes a model from one fitted state to another, and a copy keeps the state
    that it was made in: threads may predict while another changes the model.
    """

    _fitted: Mapping[str, Any] = MappingProxyType({})
    coef_ = _entry("coef_")
    intercept_ = _entry("intercept_")
    n_iter_ = _entry("n_iter_")
    residual_ = _entry("residual_")
    n_features_in_ = _entry("n_features_in_")
    feature_names_in_ = _entry("feature_names_in_")
    classes_ = _entry("classes_")
    certificate_ = _entry("certificate_")

    _loss: ClassVar[str]
    _drawn: Noise | None = None  # of another fit, while one more is to have the same

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        tol: float = 1e-8,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.memory_limit = memory_limit

    def __copy__(self) -> Self:
        model = object.__new__(type(self))
        model.__dict__.update(self.__dict__)
        return model

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in ("coef_", "intercept_"):  # neither pickle nor deepcopy keeps arrays read-only
            if isinstance(self._fitted.get(name), np.ndarray):
                self._fitted[name].flags.writeable = False

    def __sklearn_is_fitted__(self) -> bool:
        return "coef_" in self._fitted

    def _fitted_to(
        self, theta: Float, residual: float | None, names: Sequence[str] | None, noise: Noise | None
    ) -> dict[str, Any]:
        theta.flags.writeable = False  # and so are views from here on
        d = theta.size - bool(self.fit_intercept)
        intercept: Any
        if "classes_" in self._fitted:
            coef, intercept = theta[None, :d], theta[d:] if self.fit_intercept else _NO_INTERCEPT
        else:
            coef, intercept = theta[:d], theta.item(d) if self.fit_intercept else 0.0
        changed = {"coef_": coef, "intercept_": intercept, "n_features_in_": d, "residual_": residual}
        fitted = {**self._fitted, **changed}
        if names is not None:
            fitted["feature_names_in_"] = np.asarray(names, dtype=object)
        if noise is not None or "noise" in fitted:
            fitted["noise"] = noise
        fitted.pop("certificate_", None)
        return fitted

    @property
    def _noise(self) -> Noise | None:
        """In the objective, for the features."""
        noise: Noise | None = self._fitted.get("noise")
        return noise

    def _draw(self, d: int) -> Noise | None:
        """The noise of a fit's objective, for d features."""
        return self._drawn

    def _fit_again(self, noise: Noise | None, *data: Any) -> None:
        self._drawn = noise
        try:
            self.fit(*data)
        finally:
            self._drawn = None

    def _fit(self, fresh: Self, X: Any, targets: Float, sample_weight: ArrayLike | None) -> Self:
        """Fits `fresh`, a copy that took what was learnt while checking the data; self follows at the end."""
        n, d = X.shape
        weights = as_weights(sample_weight, n)
        check_enough(targets, weights, classes=hasattr(fresh, "classes_"))
        penalty = as_penalty(check_alpha(self.alpha), d, self.fit_intercept)
        tol = check_tolerance(self.tol, "tol")
        if not (isinstance(self.max_iter, Integral) and self.max_iter >= 1):
            raise ValueError(f"max_iter must be an integer >= 1, got {self.max_iter!r}")
        check_solver(self.solver, self.memory_limit)
        X = as_layout(X)
        noise = self._draw(d)
        b = as_noise(None if noise is None else noise.values, d, self.fit_intercept)
        blocks: Blocks = [(X, targets, weights)]
        objective = _core.Objective(blocks, self._loss, penalty, bool(self.fit_intercept), noise=b)
        theta = np.zeros(penalty.size)
        block = choose_block(self.solver, self.memory_limit, objective, penalty.size)
        dual = self.solver != "cg" and DUAL_COPIES * 8.0 * n * n <= most_memory(self.memory_limit)
        try:
            minimum = _core.minimize(objective, theta, tol, int(self.max_iter), block=block, dual=dual)
        except NotPositiveDefiniteError:
            assert_all_finite(X, input_name="X")
            raise
        if not math.isfinite(minimum.largest_norm + minimum.residual):
            assert_all_finite(X, input_name="X")  # or squares overflow
        try:
            check_converged(minimum, tol, stacklevel=4)
        except ConvergenceError as error:
            warnings.warn(str(error), ConvergenceWarning, stacklevel=3)
        fresh.n_iter_ = max(1, minimum.iterations)
        set_theta(fresh, minimum.theta, minimum.residual, noise=noise)
        self._fitted = vars(fresh)["_fitted"]
        return self

    def _eta(self, X: Any) -> Float:
        model = copy.copy(self)  # so that all below is of one state
        check_is_fitted(model)
        X = select_columns(X, getattr(model, "feature_names_in_", None))
        require_inside(X)
        X = validate_data(model, X, reset=False, dtype=[np.float64, np.float32], accept_sparse="csr")
        X = as_layout(X)  # SciPy does not look where indices point
        eta: Float = X @ np.ravel(model.coef_) + np.ravel(model.intercept_)[0]
        return eta

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def check_enough(targets: Float, weights: Float | None, *, classes: bool) -> None:
    """Rows of positive weight, and of both classes for a classifier (E1)."""
    counted = targets if weights is None else targets[weights > 0]
    if counted.size == 0:
        raise ValueError("every sample_weight is zero: a row of positive weight is needed")
    if classes and counted.min() == counted.max():
        raise ValueError("only one class has rows of positive sample_weight: two are needed")


class Ridge(RegressorMixin, _LinearModel):  # type: ignore[misc]
    """Least squares with an l2 penalty, solved to a stated residual.

    Minimises ``1/2 sum_i s_i (y_i - x_i @ coef - intercept)^2 + alpha/2 |coef|^2`` (E1), the objective of
    scikit-learn's Ridge with the same alpha.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda > 0, on the sum scale. The intercept is not penalised.
    fit_intercept : bool, default=True
    tol : float, default=1e-8
        Absolute bound on the Euclidean norm of the whole gradient, intercept included, on the sum scale.
        Where rounding does not let it be reached (E19), the fit stops there and warns.
    max_iter : int, default=100
        Newton iterations.
    solver : {"auto", "cholesky", "cg"}, default="auto"
        How Newton's linear systems are solved. ``cholesky`` assembles and factors the whole Hessian, p x p.
        ``cg`` takes conjugate gradients on Hessian-vector products, preconditioned by the factor of a block,
        of the coordinates that the data determine most (512 or fewer; 1536 in an Unlearner), and the diagonal
        of the others. ``auto`` takes cholesky where it fits `memory_limit` and pays. Both may factor an
        n x n matrix instead, for dense X with fewer rows than columns (E23). An Unlearner of this model
        follows the same choice, without that.
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
        require_inside(X)
        X, y = validate_data(fresh, X, y, y_numeric=True, **_LEARNT)
        return self._fit(fresh, X, as_targets(y, get_loss(self._loss), X.shape[0]), sample_weight)

    def predict(self, X: Any) -> Float:
        """``X @ coef_ + intercept_`` (n,), for X (n, n_features) or a frame that holds the features."""
        return self._eta(X)


class LogisticRegression(ClassifierMixin, _LinearModel):  # type: ignore[misc]
    """Binary logistic regression with an l2 penalty, solved to a stated residual.

    Minimises ``sum_i s_i log(1 + exp(-m_i)) + alpha/2 |coef|^2``, m_i the margin of row i (E1): the
    objective of scikit-learn's LogisticRegression with C = 1/alpha.

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda = 1/C > 0, on the sum scale. The intercept is not penalised.
    fit_intercept : bool, default=True
    tol : float, default=1e-8
        Absolute bound on the Euclidean norm of the whole gradient, intercept included, on the sum scale.
        Where rounding does not let it be reached (E19), the fit stops there and warns.
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
    noise : float, default=0.0
        Standard deviation sigma of b: each fit draws b ~ N(0, sigma^2) anew, one number for each feature and
        none for the intercept, and adds ``b @ coef`` to the objective (E15), so that an Unlearner may release
        this model with ``mechanism="objective"``. Must not depend on the data.
    random_state : int, optional
        Where noise comes from: the operating system, or this seed, for tests. A certificate then says "void".

    Attributes
    ----------
    classes_ : (2,) array
        Sorted class labels; coef_ points to the second.
    coef_ : (1, n_features) array, read-only
    intercept_ : (1,) array, read-only
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
    """

    _loss = "logistic"

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        tol: float = 1e-8,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
        noise: float = 0.0,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            alpha,
            fit_intercept=fit_intercept,
            tol=tol,
            max_iter=max_iter,
            solver=solver,
            memory_limit=memory_limit,
        )
        self.noise = noise
        self.random_state = random_state

    def _draw(self, d: int) -> Noise | None:
        if self._drawn is not None:
            return self._drawn
        sigma, seed = check_noise(self.noise), check_random_state(self.random_state)
        return Noise.drawn(sigma, d, seed) if sigma else None

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fits to rows X (n, d), labels y (n,) of two classes and weights (n,) or a scalar.

        Raises
        ------
        ValueError
            NaN or infinity, shapes that do not match, alpha <= 0, negative weights, one class or more than
            two.
        """
        fresh = copy.copy(self)
        require_inside(X)
        X, y = validate_data(fresh, X, y, **_LEARNT)
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

    def predict_proba(self, X: Any) -> Float:
        """Probabilities (n, 2) of classes_."""
        eta = self.decision_function(X)
        return np.column_stack([expit(-eta), expit(eta)])

    def predict_log_proba(self, X: Any) -> Float:
        """Logarithms (n, 2) of the probabilities, without underflow."""
        eta = self.decision_function(X)
        return np.column_stack([log_expit(-eta), log_expit(eta)])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
