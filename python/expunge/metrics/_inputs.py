"""Arrays that the measures take, or an error that names the fix."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import Float

FEWEST_RETRAININGS = 3  # two have a distance, but no idea of how much distances vary


def as_numbers(values: Any, name: str, *, least: int = 1) -> Float:
    """(m,) finite float64, m at least `least`."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size < least:
        raise ValueError(f"{name} has shape {numbers.shape}, expected (m,), m at least {least}")
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} contains NaN or infinity: compute it in logarithms, without probabilities of 0"
        )
    return numbers


def as_log_probabilities(values: Any, name: str) -> Float:
    """(..., K) float64 whose exponentials sum to 1 along the last axis."""
    log_p = np.asarray(values, dtype=np.float64)
    if log_p.ndim < 2 or log_p.size == 0:
        raise ValueError(f"{name} has shape {log_p.shape}, expected (n, K): a row of log-probabilities each")
    if np.isnan(log_p).any() or (abs(np.exp(log_p).sum(axis=-1) - 1.0) > 1e-3).any():  # float32 at K = 1e5
        raise ValueError(
            f"{name} must hold log-probabilities, whose exponentials sum to 1 along the last axis: pass "
            "scipy.special.log_softmax(logits, axis=-1)"
        )
    return log_p


def require_retrainings(count: int) -> None:
    """ValueError where too few retrained models stand for all of them."""
    if count < FEWEST_RETRAININGS:
        raise ValueError(
            f"retrained models vary from seed to seed, and {count} of them do not show how much: "
            f"pass at least {FEWEST_RETRAININGS}, trained with different seeds"
        )
