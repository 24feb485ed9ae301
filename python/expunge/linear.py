"""The former home of the estimators: pickles of versions up to 0.4 name it."""

from .models import LogisticRegression, Ridge

__all__ = ["LogisticRegression", "Ridge"]
