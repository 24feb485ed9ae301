"""The estimators, and which objective a fitted model minimises."""

from .base import LogisticRegression, Ridge

__all__ = ["LogisticRegression", "Ridge"]
