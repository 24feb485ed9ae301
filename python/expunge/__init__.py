"""Exact, closed-form unlearning of rows, labels, values and features from linear models.

Two rows leave a fitted model, which then is within a hundredth of a standard error of one fitted without:

>>> import numpy as np
>>> import expunge as ex
>>> X = np.random.default_rng(0).standard_normal((200, 3))
>>> y = X[:, 0] - 2.0 * X[:, 1] > 0.0
>>> model = ex.LogisticRegression(alpha=1.0).fit(X, y)
>>> un = ex.Unlearner(model, X, y)
>>> update = un.apply(ex.RemoveRows([3, 17]))
>>> retrained = ex.LogisticRegression(alpha=1.0).fit(np.delete(X, [3, 17], axis=0), np.delete(y, [3, 17]))
>>> bool((abs(model.coef_ - retrained.coef_) < 0.01 * un.standard_errors()[:-1]).all())
True

The other requests are `AddRows`, `CorrectLabels`, `CorrectValues`, `RevokeFeatures`, `RevokeClass`
and `Edit`.
:meth:`Unlearner.release` gives a certified copy away, and ``expunge demo`` on the command line shows all of
this on real data.
"""

from . import (
    accounting,
    audit,
    certificate,
    datasets,
    kernels,
    metrics,
    plots,
    receipts,
    reference,
    updates,
)
from ._core import build_info
from .errors import (
    AlreadyForgotten,
    CertificateError,
    ConvergenceError,
    NotFittedToThisData,
    NotPositiveDefiniteError,
    RowsRequired,
    StreamInterrupted,
    StreamStopped,
    ToleranceExceeded,
    UnknownId,
)
from .metrics import distance, residual
from .models import LinearSVC, LogisticRegression, PoissonRegressor, Ridge, TweedieRegressor
from .release import Budget, Certificate
from .requests import AddRows, CorrectLabels, CorrectValues, Edit, RemoveRows, RevokeClass, RevokeFeatures
from .threads import get_num_threads, set_num_threads
from .unlearner import Unlearner, Update, Updates

__version__ = "0.4.0"

__all__ = [
    "AddRows",
    "AlreadyForgotten",
    "Budget",
    "Certificate",
    "CertificateError",
    "ConvergenceError",
    "CorrectLabels",
    "CorrectValues",
    "Edit",
    "LinearSVC",
    "LogisticRegression",
    "NotFittedToThisData",
    "NotPositiveDefiniteError",
    "PoissonRegressor",
    "RemoveRows",
    "RevokeClass",
    "RevokeFeatures",
    "Ridge",
    "RowsRequired",
    "StreamInterrupted",
    "StreamStopped",
    "ToleranceExceeded",
    "TweedieRegressor",
    "UnknownId",
    "Unlearner",
    "Update",
    "Updates",
    "accounting",
    "audit",
    "build_info",
    "certificate",
    "datasets",
    "distance",
    "get_num_threads",
    "kernels",
    "metrics",
    "plots",
    "receipts",
    "reference",
    "residual",
    "set_num_threads",
    "updates",
]
