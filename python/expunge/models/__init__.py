"""The estimators, and which objective a fitted model minimises."""

from .logistic import LogisticRegression
from .ridge import Ridge

__all__ = ["LogisticRegression", "Ridge"]
