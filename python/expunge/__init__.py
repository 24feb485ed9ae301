"""expunge: exact, closed-form unlearning of rows, labels, values and features from linear models."""

from . import accounting, audit, certificate, kernels, receipts, reference, updates
from ._core import build_info
from .errors import (
    CertificateError,
    ConvergenceError,
    NotPositiveDefiniteError,
    RowsRequired,
    ToleranceExceeded,
)
from .metrics import residual
from .models import LogisticRegression, Ridge
from .release import Budget, Certificate
from .requests import AddRows, CorrectLabels, CorrectValues, Edit, RemoveRows, RevokeFeatures
from .threads import get_num_threads, set_num_threads
from .unlearner import Unlearner, Update

__version__ = "0.4.0"

__all__ = [
    "AddRows",
    "Budget",
    "Certificate",
    "CertificateError",
    "ConvergenceError",
    "CorrectLabels",
    "CorrectValues",
    "Edit",
    "LogisticRegression",
    "NotPositiveDefiniteError",
    "RemoveRows",
    "RevokeFeatures",
    "Ridge",
    "RowsRequired",
    "ToleranceExceeded",
    "Unlearner",
    "Update",
    "accounting",
    "audit",
    "build_info",
    "certificate",
    "get_num_threads",
    "kernels",
    "receipts",
    "reference",
    "residual",
    "set_num_threads",
    "updates",
]
