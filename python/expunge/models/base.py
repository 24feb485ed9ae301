"""What the estimators share: the parameters, the fit, and fitted attributes that change all at once.

The objective is E1, on the sum scale: ``sum_i s_i loss(y_i, x_i @ coef + intercept) + alpha/2 |coef|^2``,
intercept unpenalised. It is scikit-learn's Ridge(alpha) and LogisticRegression(C=1/alpha). Noise for a
certificate (E15) adds ``b @ coef``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, assert_all_finite
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import _core
from .._arrays import (
    Float,
    as_layout,
    inside,
    with_own_indices,
)
from .._frames import select_columns
from .._numbers import as_flag, as_number
from ..atomic import assign_all
from ..class_weights import OURS, as_class_weights, is_balanced
from ..engine.near import fit_near
from ..engine.shift import shift_of
from ..engine.solver import (
    DUAL_COPIES,
    FIT_WITHIN,
    check_converged,
    check_solver,
    choose_block,
    most_memory,
    warn,
)
from ..errors import ConvergenceError, NotPositiveDefiniteError
from ..noise import Noise
from ..problem import Problem, joined, outputs_of, split

# How a fit takes X; whether it is finite, the largest norm tells.
ON_FIT: dict[str, Any] = {
    "dtype": [np.float64, np.float32],
    "accept_sparse": "csr",
    "ensure_all_finite": False,
}


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


def count_of(classes: NDArray[Any] | None) -> int:
    """How many classes there are; 0: it is no classifier."""
    return 0 if classes is None else len(classes)


def _zeros(size: int) -> Float:
    zeros = np.zeros(size)
    zeros.flags.writeable = False
    return zeros


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
        within: float = FIT_WITHIN,
        tol: float | None = None,
        max_iter: int = 100,
        solver: str = "auto",
        memory_limit: float | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.within = within
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
        self.__dict__.setdefault("within", FIT_WITHIN)  # 0.4 had tol alone
        for name in ("coef_", "intercept_"):  # neither pickle nor deepcopy keeps arrays read-only
            if isinstance(self._fitted.get(name), np.ndarray):
                self._fitted[name].flags.writeable = False

    def __sklearn_is_fitted__(self) -> bool:
        return "coef_" in self._fitted

    def _fitted_to(
        self,
        theta: Float,
        residual: float | None,
        names: Sequence[str] | None,
        noise: Noise | None,
        classes: NDArray[Any] | None,
    ) -> dict[str, Any]:
        theta.setflags(write=False)  # and so are views from here on
        fitted: dict[str, Any] = dict(self._fitted)
        if classes is not None:
            fitted["classes_"] = classes
        outputs = outputs_of(count_of(fitted.get("classes_")))
        coef, last = split(theta, self.fit_intercept, outputs)
        fitted["n_features_in_"], fitted["residual_"] = coef.shape[-1], residual
        if "classes_" in fitted:
            fitted["coef_"] = coef.reshape(outputs, -1)
            last.setflags(write=False)  # of K classes it is a copy
            fitted["intercept_"] = last if self.fit_intercept else _zeros(outputs)
        else:
            fitted["coef_"], fitted["intercept_"] = coef, last.item() if self.fit_intercept else 0.0
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
        classes = fresh.classes_ if hasattr(fresh, "classes_") else None
        class_weight = getattr(self, "class_weight", None)
        problem = Problem(
            self._loss if outputs_of(count_of(classes)) == 1 else "softmax",
            as_number(self.alpha, "alpha", above=0.0),
            as_flag(self.fit_intercept, "fit_intercept"),
            classes,
            class_weights=as_class_weights(class_weight, classes),
            intercept_scaling=scaling_of(self),
            balance=OURS if classes is not None and is_balanced(class_weight) else None,
        )
        weights = problem.weights(targets, sample_weight)
        problem.check_enough(targets, weights)
        within = as_number(self.within, "within", above=0.0)
        tol = None if self.tol is None else as_number(self.tol, "tol")
        if not (isinstance(self.max_iter, Integral) and self.max_iter >= 1):
            raise ValueError(f"max_iter must be an integer >= 1, got {self.max_iter!r}")
        check_solver(self.solver, self.memory_limit)
        X = as_layout(X)
        problem = problem.with_noise(self._draw(d))
        shift = shift_of(X) if problem.free_intercept else None
        objective = problem.objective([(X, targets, weights)], np.ones(d, dtype=bool), shift=shift)
        zero = np.zeros(problem.parameters(d))  # its intercepts add up to 0, and so they stay (E28)
        block = choose_block(self.solver, self.memory_limit, objective, zero.size)
        dual = self.solver != "cg" and DUAL_COPIES * 8.0 * n * n <= most_memory(self.memory_limit)

        def minimize(theta: Float, residual: float, most: int) -> _core.Minimum:
            try:
                minimum = _core.minimize(objective, theta, residual, most, block=block, dual=dual)
            except NotPositiveDefiniteError:
                assert_all_finite(X, input_name="X")
                raise
            if not math.isfinite(minimum.largest_norm + minimum.residual):
                assert_all_finite(X, input_name="X")  # or squares overflow
            return minimum

        if tol is None:
            per_error = math.sqrt(problem.alpha) * problem.spread(targets, weights)
            minimum, made = fit_near(objective, minimize, zero, within, per_error, int(self.max_iter))
        else:
            minimum = minimize(zero, tol, int(self.max_iter))
            made = minimum.iterations
            try:
                check_converged(objective, minimum, tol, int(self.max_iter))
            except ConvergenceError as error:
                warn(str(error))
        fresh.n_iter_ = max(1, made)
        set_theta(fresh, problem.moved(minimum.theta, shift, None), minimum.residual, noise=problem.noise)
        self._fitted = vars(fresh)["_fitted"]
        return self

    def _eta(self, X: Any) -> Float:
        model = copy.copy(self)  # so that all below is of one state
        check_is_fitted(model)
        X = select_columns(X, getattr(model, "feature_names_in_", None))
        X = validate_data(model, inside(X), reset=False, dtype=[np.float64, np.float32], accept_sparse="csr")
        X = as_layout(X)
        if sparse.issparse(X):
            X = with_own_indices(X)
        coef = np.atleast_2d(model.coef_)
        if coef.shape[0] > 1:
            many: Float = X @ coef.T + np.ravel(model.intercept_)
            return many
        eta: Float = X @ np.ravel(coef) + np.ravel(model.intercept_)[0]
        return eta

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def scaling_of(model: Any) -> float | None:
    """The intercept_scaling of an estimator of ours whose intercept is penalised; None of another."""
    scaling = getattr(model, "intercept_scaling", None)
    return None if scaling is None else as_number(scaling, "intercept_scaling", above=0.0)


def theta_of(model: Any) -> Float:
    """coef_ and intercept_ of a fitted linear model, as theta (p,), or of K classes (K p,)."""
    coef, intercept = np.atleast_2d(model.coef_), np.ravel(model.intercept_)
    if coef.shape[0] == 1:
        coef = coef[0]
    return joined(coef, intercept, model.fit_intercept).astype(np.float64)


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
    model: Any,
    theta: Float,
    residual: float | None,
    names: Sequence[str] | None,
    noise: Noise | None,
    classes: NDArray[Any] | None = None,
) -> list[tuple[Any, str, Any]]:
    """What :func:`set_theta` sets, for :func:`assign_all`; with `classes` these as well."""
    if isinstance(model, _LinearModel):
        return [(model, "_fitted", model._fitted_to(theta, residual, names, noise, classes))]
    outputs = outputs_of(count_of(getattr(model, "classes_", None) if classes is None else classes))
    coef, last = split(theta, model.fit_intercept, outputs)
    one = outputs == 1 and classes is None
    shape = np.shape(model.coef_)[:-1] if one else (outputs,)
    intercept = np.zeros(np.shape(model.intercept_) if one else outputs)
    if last.size:
        intercept[...] = last if last.size > 1 else last[0]
    fitted: dict[str, Any] = {
        "coef_": coef.reshape(*shape, coef.shape[-1]).copy(),
        "intercept_": intercept if intercept.ndim else float(intercept),
        "n_features_in_": coef.shape[-1],
    }
    if classes is not None:
        fitted["classes_"] = classes.copy()
    if names is not None:
        fitted["feature_names_in_"] = np.asarray(names, dtype=object)
    return [(model, name, value) for name, value in fitted.items()]
