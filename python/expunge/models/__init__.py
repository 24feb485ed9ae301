"""The estimators, and which objective a fitted model minimises."""

from .log_link import PoissonRegressor, TweedieRegressor
from .logistic import LogisticRegression
from .ridge import Ridge

__all__ = ["ESTIMATORS", "Estimator", "LogisticRegression", "PoissonRegressor", "Ridge", "TweedieRegressor"]

Estimator = Ridge | LogisticRegression | PoissonRegressor | TweedieRegressor
ESTIMATORS = (Ridge, LogisticRegression, PoissonRegressor, TweedieRegressor)
