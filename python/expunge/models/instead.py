"""What to pass in place of models that are none of E1's minimisers, or hold one inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_L1 = "its l1 penalty is not differentiable: fit Ridge, or LogisticRegression with the l2 penalty"
_SEARCH = "pass what it found, model.best_estimator_"
_CLASSIFY = "LogisticRegression(C=1 / (model.alpha * len(X))).fit(X, y)"
_REGRESS = "Ridge(alpha=model.alpha * len(X)).fit(X, y)"
_WITHIN = "pass the models in it, each in an Unlearner of its own: model.estimators_"
_LABEL = "pass binary models, one for each class: LogisticRegression().fit(X, y == label)"
_CLASSIFIER = "its loss is another: fit LogisticRegression"
_REGRESSOR = "its loss is another: fit Ridge"
_SIGNS = ".fit(X, np.where(y == model.classes_[1], 1.0, -1.0))"
_COLUMNS = "it chose columns on the data: fit Ridge to these"

# By the name of the class, or of one that it derives from: nothing of scikit-learn has to be imported.
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "Pipeline": "it transforms X before its model: pass its last step, model[-1], and the transformed X, "
        "model[:-1].transform(X)",
        "TransformedTargetRegressor": "it transforms y before its model: pass model.regressor_, and in place "
        "of y model.transformer_.transform(y[:, None])",
        "BaseSearchCV": _SEARCH,
        "FrozenEstimator": "pass the model in it, model.estimator",
        "RidgeClassifier": f"it fits Ridge to -1 and 1: pass Ridge(alpha=model.alpha){_SIGNS}",
        "RidgeClassifierCV": "it fits Ridge to -1 and 1, and chose alpha on the data: pass "
        f"Ridge(alpha=model.alpha_){_SIGNS}",
        "OneVsRestClassifier": f"{_WITHIN}[k], with y == model.classes_[k]",
        "OneVsOneClassifier": _LABEL,
        "OutputCodeClassifier": _LABEL,
        "MultiOutputClassifier": f"{_WITHIN}[k], with y[:, k]",
        "MultiOutputRegressor": f"{_WITHIN}[k], with y[:, k]",
        "CalibratedClassifierCV": "its calibration was fitted to the data too: pass "
        "LogisticRegression().fit(X, y), whose probabilities need none, or calibrate anew after each request",
        "BaseThresholdClassifier": "pass the model in it, model.estimator_; the threshold stays as it was",
        "SGDClassifier": f"its loss is a mean, and seldom at its minimum: pass {_CLASSIFY}",
        "SGDRegressor": f"its loss is a mean, and seldom at its minimum: pass {_REGRESS}",
        "BaseSGD": "its steps end at no minimum: fit LogisticRegression or Ridge",
        "BaseSVC": _CLASSIFIER,
        "LinearSVR": _REGRESSOR,
        "BaseLibSVM": _REGRESSOR,
        "HuberRegressor": _REGRESSOR,
        "QuantileRegressor": _REGRESSOR,
        "TheilSenRegressor": _REGRESSOR,
        "RANSACRegressor": "it chose rows at random: fit Ridge to those of model.inlier_mask_",
        "BayesianRidge": "it chose its penalty on the data: pass Ridge(alpha=model.lambda_ / "
        "model.alpha_).fit(X, y)",
        "ARDRegression": "each of its coefficients has a penalty of its own: fit Ridge",
        "KernelRidge": "it has a coefficient for each row: fit Ridge, for a linear kernel with "
        "fit_intercept=False",
        "ElasticNet": _L1,
        "LinearModelCV": _L1,
        "Lars": _L1,
        "OrthogonalMatchingPursuit": _COLUMNS,
        "OrthogonalMatchingPursuitCV": _COLUMNS,
        "LinearRegression": "without a penalty the minimiser need not exist: fit Ridge with a small alpha",
        "VotingClassifier": _WITHIN,
        "VotingRegressor": _WITHIN,
        "StackingClassifier": f"{_WITHIN}; and fit its final estimator anew",
        "StackingRegressor": f"{_WITHIN}; and fit its final estimator anew",
        "BaseBagging": "its models saw rows drawn at random: fit LogisticRegression or Ridge",
    }
)


def instead_of(kinds: Iterable[type]) -> str | None:
    """What to pass instead of a model with these classes, its own first; None where nothing is known of it.

    Examples
    --------
    >>> from sklearn.linear_model import Lasso
    >>> instead_of(Lasso.__mro__)
    'its l1 penalty is not differentiable: fit Ridge, or LogisticRegression with the l2 penalty'
    """
    return next((INSTEAD[kind.__name__] for kind in kinds if kind.__name__ in INSTEAD), None)
