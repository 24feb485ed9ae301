"""Fitted models in: which objective (E1) a model of ours or scikit-learn minimises, or why it is refused.

Public attributes and parameters only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn import linear_model, svm
from sklearn.utils.validation import check_is_fitted

from .._arrays import as_matrix, as_weights
from .._frames import column_labels, index_of, library_of, match_columns, require_labels, require_order
from .._numbers import as_flag, as_number
from ..class_weights import OURS, THEIRS, as_class_weights, as_parameter, is_balanced, weighed
from ..engine.columns import Data
from ..engine.data import CorrectedData, with_ball
from ..engine.row_names import RowNames, names_given
from ..engine.shift import shift_of
from ..losses import loss_of_power
from ..problem import Problem, outputs_of
from . import Estimator
from .instead import instead_of
from .linear_svc import LinearSVC
from .log_link import PoissonRegressor, TweedieRegressor
from .logistic import LogisticRegression
from .ridge import Ridge

__all__ = ["chosen_on_data", "estimator_for", "parameters_of", "problem_of", "rows_of"]

_MEANS = (linear_model.PoissonRegressor, linear_model.GammaRegressor, linear_model.TweedieRegressor)

# Parameters that choose the objective, of whichever model has them.
_CHOOSE = (
    "alpha",
    "C",
    "fit_intercept",
    "noise",
    "penalty",
    "l1_ratio",
    "class_weight",
    "multi_class",
    "positive",
    "power",
    "link",
)
_CHOOSE_SVC = (*_CHOOSE, "loss", "intercept_scaling")


def problem_of(model: Any) -> Problem:
    """Reads the objective off a fitted model.

    Parameters
    ----------
    model : Ridge, LogisticRegression, PoissonRegressor, TweedieRegressor, of expunge or of scikit-learn
        Also GammaRegressor, RidgeCV and LogisticRegressionCV. The last two minimise E1 with the penalty that
        they chose.

    Returns
    -------
    Problem
        Without the noise of an objective. Where scikit-learn's loss is a mean, its penalty is that of a
        weight of 1: see :meth:`Problem.weighing`.

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
    >>> problem_of(Ridge(alpha=2.0).fit([[0.0], [1.0]], [0.0, 1.0])).alpha
    2.0
    """
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class: pass a fitted instance")
    if instead := instead_of(type(model).__mro__):
        raise TypeError(f"{type(model).__name__} is not supported: {instead}")
    for kind, read in (
        ((Ridge, linear_model.Ridge, linear_model.RidgeCV), _ridge),
        ((LogisticRegression, linear_model.LogisticRegression), _logistic),
        ((PoissonRegressor, TweedieRegressor), _log_link),
        (_MEANS, _of_mean),
        ((LinearSVC, svm.LinearSVC), _svc),
    ):
        if isinstance(model, kind):
            check_is_fitted(model)
            if sparse.issparse(model.coef_):
                raise ValueError("coef_ is sparse: call model.densify() first")
            return read(model)
    raise TypeError(
        f"{type(model).__name__} is not supported: pass a fitted Ridge, LogisticRegression, LinearSVC, "
        "PoissonRegressor or TweedieRegressor of expunge or scikit-learn"
    )


def chosen_on_data(model: Any) -> str | None:
    """What cross-validation chose, and how it is called; None where nothing was.

    Examples
    --------
    >>> from sklearn.linear_model import RidgeCV
    >>> chosen_on_data(RidgeCV([0.1, 1.0]).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 3.0]))
    'alpha=0.1'
    """
    if isinstance(model, linear_model.RidgeCV):
        return f"alpha={model.alpha_:g}"
    if isinstance(model, linear_model.LogisticRegressionCV):
        return f"C={_C(model):g}"
    return None


def parameters_of(model: Any) -> tuple[str, ...]:
    """Names of the parameters of a model that choose its objective.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> parameters_of(Ridge())
    ('alpha', 'fit_intercept', 'positive')
    """
    choose = _CHOOSE_SVC if isinstance(model, (LinearSVC, svm.LinearSVC)) else _CHOOSE
    return tuple(name for name in choose if hasattr(model, name))


def estimator_for(problem: Problem, **parameters: Any) -> Estimator:
    """An estimator of ours that minimises it, not fitted; with a classifier's classes."""
    parameters["fit_intercept"] = problem.fit_intercept
    if problem.row_loss.power is not None:
        return TweedieRegressor(problem.alpha, power=problem.row_loss.power, **parameters)
    if problem.classes is None:
        regressor = Ridge if problem.constant_hessian else PoissonRegressor
        return regressor(problem.alpha, **parameters)
    weights = as_parameter(problem.class_weights, problem.classes)
    parameters["class_weight"] = weights if problem.balance is None else "balanced"
    if problem.intercept_scaling is not None:
        svc = LinearSVC(problem.alpha, intercept_scaling=problem.intercept_scaling, **parameters)
        svc.classes_ = problem.classes
        return svc
    if problem.noise is not None:
        parameters |= {"noise": problem.noise.sigma, "random_state": problem.noise.random_state}
    model = LogisticRegression(problem.alpha, **parameters)
    model.classes_ = problem.classes
    return model


def _intercept(model: Any) -> bool:
    fit_intercept = as_flag(model.fit_intercept, "fit_intercept")
    if not fit_intercept and np.any(model.intercept_):
        raise ValueError(
            "fit_intercept=False, but intercept_ is not 0: fit_intercept was changed since the fit. Set it "
            "back, or fit again"
        )
    return fit_intercept


def _ridge(model: Any) -> Problem:
    if np.ndim(model.coef_) > 1 and np.shape(model.coef_)[0] != 1:
        raise ValueError("multi-output Ridge is not supported: fit one model for each output")
    if getattr(model, "positive", False):
        raise ValueError("Ridge(positive=True) is constrained, not a minimiser of E1: fit it unconstrained")
    alpha = np.ravel(model.alpha_ if isinstance(model, linear_model.RidgeCV) else model.alpha)
    if alpha.size != 1:
        raise ValueError("Ridge with one alpha for each output is not supported: fit one model for each")
    return Problem("squared", as_number(float(alpha[0]), "alpha", above=0.0), _intercept(model), None)


def _log_link(model: Any) -> Problem:
    loss = loss_of_power(getattr(model, "power", 1.0))
    return Problem(loss, as_number(model.alpha, "alpha", above=0.0), _intercept(model))


def _of_mean(model: Any) -> Problem:
    """Of scikit-learn's generalised linear models: their loss is a mean of half deviances (E35)."""
    power = {linear_model.PoissonRegressor: 1.0, linear_model.GammaRegressor: 2.0}.get(type(model))
    link = "log"
    if power is None:
        power, link = as_number(model.power, "power", above=-inf), model.link
        if link == "auto":
            link = "identity" if power <= 0.0 else "log"
    if link == "identity" and power != 0.0:
        raise ValueError(
            "link='identity' with power above 0 takes means below 0 at some theta: refit with link='log'"
        )
    if link == "log" and power == 0.0:
        raise ValueError("power=0 with link='log' is not convex: refit with link='identity'")
    loss = "squared" if power == 0.0 else loss_of_power(power)
    if not model.alpha > 0.0:
        raise ValueError("without a penalty (alpha=0) the minimiser need not exist: refit with a small alpha")
    alpha = as_number(model.alpha, "alpha", above=0.0)
    return Problem(loss, alpha, _intercept(model), per_weight=alpha)


def _logistic(model: Any) -> Problem:
    ours = isinstance(model, LogisticRegression)
    outputs = outputs_of(len(model.classes_))
    if np.shape(model.coef_)[0] != outputs:
        raise ValueError(
            f"classes_ are {len(model.classes_)}, but coef_ has {np.shape(model.coef_)[0]} rows: fit the "
            "model again"
        )
    if not ours and outputs > 1:
        _require_multinomial(model)
    alpha = as_number(model.alpha, "alpha", above=0.0) if ours else 1.0 / _C(model)
    classes = np.asarray(model.classes_)
    loss = "logistic" if outputs == 1 else "softmax"
    return Problem(loss, alpha, _intercept(model), classes, **_class_weights(model, classes))


def _class_weights(model: Any, classes: NDArray[Any]) -> dict[str, Any]:
    """Of a Problem: the weights, or what scikit-learn's rule counts to balance them (E35)."""
    if is_balanced(model.class_weight):
        return {"balance": OURS if isinstance(model, LogisticRegression | LinearSVC) else THEIRS}
    return {"class_weights": as_class_weights(model.class_weight, classes)}


def _require_multinomial(model: Any) -> None:
    """Raises for one model for each class against the rest, as scikit-learn < 1.8 fits too."""
    parameters = model.get_params(deep=False)
    if parameters.get("multi_class") == "ovr" or parameters["solver"] == "liblinear":
        raise ValueError(
            "multi_class='ovr', as that of liblinear, fits a binary model for each class against the rest: "
            "refit with solver='lbfgs' or 'newton-cholesky' and without multi_class, or pass binary models, "
            "LogisticRegression().fit(X, y == label)"
        )


def _svc(model: Any) -> Problem:
    if len(model.classes_) != 2:
        raise ValueError(
            f"the model has {len(model.classes_)} classes, each against the rest: fit one binary LinearSVC "
            "for each class instead"
        )
    classes = np.asarray(model.classes_)
    if isinstance(model, LinearSVC):
        alpha = as_number(model.alpha, "alpha", above=0.0)
    elif model.loss != "squared_hinge" or model.penalty != "l2":
        raise ValueError(
            f"loss={model.loss!r} with penalty={model.penalty!r} is not differentiable: refit with "
            "loss='squared_hinge' and penalty='l2', or fit LogisticRegression"
        )
    else:
        alpha = 1.0 / as_number(model.C, "C", above=0.0)
    intercept, scaling = _intercept(model), as_number(model.intercept_scaling, "intercept_scaling", above=0.0)
    return Problem(
        "squared_hinge",
        alpha,
        intercept,
        classes,
        **_class_weights(model, classes),
        intercept_scaling=scaling,
    )


def _C(model: Any) -> float:
    parameters = model.get_params(deep=False)
    penalty = parameters.get("penalty", "deprecated")  # scikit-learn >= 1.8 says all by l1_ratio and C
    C, l1_ratio = parameters.get("C"), parameters.get("l1_ratio")
    if isinstance(model, linear_model.LogisticRegressionCV):
        if not model.refit:
            raise ValueError(
                "refit=False averages the fits of its folds, which minimises nothing: pass "
                "LogisticRegression(C=np.ravel(model.C_)[0]).fit(X, y)"
            )
        C, l1_ratio = float(np.ravel(model.C_)[0]), np.ravel(model.l1_ratio_)[0]
    if penalty is None or not np.isfinite(C):
        raise ValueError("without an l2 penalty (C=inf) the minimiser need not exist: refit with a finite C")
    if penalty == "l1" or (penalty in ("elasticnet", "deprecated") and l1_ratio):
        raise ValueError("an l1 or elastic-net penalty is not differentiable: refit with the l2 penalty")
    if parameters.get("multi_class") == "multinomial" and len(model.classes_) == 2:  # scikit-learn < 1.8
        raise ValueError("multi_class='multinomial' of two classes fits another objective: refit without it")
    if parameters["solver"] == "liblinear" and parameters["fit_intercept"]:
        raise ValueError("liblinear penalises the intercept: refit with solver='lbfgs' or 'newton-cholesky'")
    return float(C)


def rows_of(
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    problem: Problem,
    width: int,
    names: Sequence[Any] | None,
    column_index: bool,
    ids: Any = None,
    key: bytes | None = None,
    like: Data | None = None,
) -> CorrectedData:
    """What a model of `width` columns, perhaps with names, was fitted to; raises where it cannot be that.

    Columns are shifted as those of `like`, or else as these rows want it (E43).
    """
    index = index_of(X)
    for values, what in ((y, "y"), (sample_weight, "sample_weight")):
        require_order(values, index, what)
    require_labels(ids, index, "ids")
    labels, names = column_labels(X), None if names is None else list(names)
    if names is not None and len(set(names)) < len(names):
        raise ValueError("feature_names_in_ has a name twice: rename the columns, and fit the model again")
    if match_columns(X, names) is not X:
        raise ValueError(
            "X has more columns than the model, which leaves open what positions mean: pass "
            "X[list(model.feature_names_in_)]"
        )
    matrix = as_matrix(X, columns=width)
    if isinstance(matrix, np.ndarray) and not isinstance(X, np.ndarray) and matrix.base is not None:
        matrix = matrix.copy()  # a view into a frame, which its owner may change
    n = matrix.shape[0]
    targets, weights = problem.encode(y, n), as_weights(sample_weight, n)
    if n == 0:
        raise ValueError("X has no rows")
    problem = problem.balancing(targets, weights)
    problem.check_enough(targets, weighed(problem.class_weights, targets, weights))
    shift = None
    if like is not None:
        shift = like.surviving_shift()
    elif problem.free_intercept:
        shift = shift_of(matrix)
    data = CorrectedData(
        matrix,
        targets,
        weights,
        labels if names is None else names,
        classes=problem.n_classes,
        class_weights=problem.class_weights,
        column_index=column_index,
        shift=shift,
        row_names=RowNames.over(None if ids is None else names_given(ids, "ids", n), index, key),
        library=library_of(X),
    )
    return data if problem.constant_hessian or problem.classes is not None else with_ball(data)
