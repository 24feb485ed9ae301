"""The estimators, and which objective a fitted model minimises."""

from .linear_svc import LinearSVC
from .log_link import PoissonRegressor, TweedieRegressor
from .logistic import LogisticRegression
from .ridge import Ridge

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "LinearSVC",
    "LogisticRegression",
    "PoissonRegressor",
    "Ridge",
    "TweedieRegressor",
]

Estimator = Ridge | LogisticRegression | PoissonRegressor | TweedieRegressor | LinearSVC
ESTIMATORS = (Ridge, LogisticRegression, PoissonRegressor, TweedieRegressor, LinearSVC)
