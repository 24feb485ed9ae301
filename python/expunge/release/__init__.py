"""What may be given away: certified copies of a model (E15, E16, E17), and their certificates."""

from .budget import Budget, NoBudget, OnExhausted
from .certificate import Against, Certificate, Mechanism
from .mechanisms import Terms, check_theta_bound, release
from .verify import (
    Measured,
    best_intercept,
    default_tolerance,
    measure,
    norm_factor,
    profile_residual,
)

__all__ = [
    "Against",
    "Budget",
    "Certificate",
    "Measured",
    "Mechanism",
    "NoBudget",
    "OnExhausted",
    "Terms",
    "best_intercept",
    "check_theta_bound",
    "default_tolerance",
    "measure",
    "norm_factor",
    "profile_residual",
    "release",
]
