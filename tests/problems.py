"""Seeded problems, the retraining oracle and the real data that every test file shares."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One objective J (E1) and a random theta, nowhere near its minimiser.

    X (n, d), y (n,), alpha, sample_weight hold values that float32 represents exactly.
    theta (p,): p = d, and one more, the intercept, with fit_intercept.
    """

    name: str
    X: Array
    y: Array
    theta: Array
    alpha: float | Array
    sample_weight: Array | None
    fit_intercept: bool
    loss: str

    @property
    def objective(self) -> dict:
        """The keyword arguments common to gradient, hessian, hvp, ..."""
        return {
            "alpha": self.alpha,
            "loss": self.loss,
            "sample_weight": self.sample_weight,
            "fit_intercept": self.fit_intercept,
        }

    @property
    def design(self) -> Array:
        """X, extended by a column of ones when there is an intercept: (n, p)."""
        return np.column_stack([self.X, np.ones(len(self.X))]) if self.fit_intercept else self.X

    @property
    def penalty(self) -> Array:
        """The diagonal of Lambda: (p,)."""
        penalty = np.full(self.X.shape[1], self.alpha)
        return np.append(penalty, 0.0) if self.fit_intercept else penalty

    @property
    def weights(self) -> Array:
        return np.ones(len(self.X)) if self.sample_weight is None else self.sample_weight

    @property
    def has_minimiser(self) -> bool:
        """Whether J has exactly one: a free intercept needs weight, in both classes if logistic."""
        if not self.fit_intercept:
            return True
        kept = self.y[self.weights > 0]
        return len(kept) > 0 and (self.loss != "logistic" or len(np.unique(kept)) == 2)


def float32_values(values) -> Array:
    """float64 array of numbers that float32 represents exactly."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def make_problem(shape: str, loss: str, fit_intercept: bool) -> Problem:
    n, d = SHAPES[shape]
    rng = np.random.default_rng([list(SHAPES).index(shape), len(loss), fit_intercept])
    X = float32_values(rng.standard_normal((n, d)))
    theta = rng.standard_normal(d + fit_intercept) / np.sqrt(d)
    alpha: float | Array = 0.75
    sample_weight = None
    if shape == "duplicate_columns":
        X[:, d // 2 :] = X[:, : d // 2]
    if shape == "margins_800":
        X[:, 0] = float32_values(np.linspace(-800.0, 800.0, n))
        theta[0] = 1.0
    if shape == "weights_with_zeros":
        sample_weight = float32_values(rng.uniform(0.0, 3.0, n))
        sample_weight[::5] = 0.0
    if shape == "alpha_per_column":
        alpha = float32_values(rng.uniform(0.1, 10.0, d))

    eta = X @ rng.standard_normal(d) / np.sqrt(d)
    if loss == "squared":
        y = float32_values(eta + 0.5 * rng.standard_normal(n))
    elif shape == "separable":
        y = (eta > 0).astype(np.float64)
        alpha = 2.0**-10
    else:
        y = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
        y[:2] = np.arange(min(n, 2))  # both classes
    return Problem(
        f"{shape}-{loss}-{'intercept' if fit_intercept else 'plain'}",
        X,
        y,
        theta,
        alpha,
        sample_weight,
        fit_intercept,
        loss,
    )


SHAPES = {
    "fewer_rows_than_columns": (7, 12),
    "more_rows_than_columns": (60, 5),
    "one_column": (20, 1),
    "one_row": (1, 4),
    "separable": (40, 3),
    "duplicate_columns": (30, 6),
    "margins_800": (24, 4),
    "weights_with_zeros": (50, 6),
    "alpha_per_column": (40, 5),
    "several_panels": (1000, 37),  # of 256 rows, the last one partial
}

PROBLEMS = [
    make_problem(shape, loss, fit_intercept)
    for shape in SHAPES
    for loss in ("squared", "logistic")
    for fit_intercept in (False, True)
]

each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


def central_difference(function_at, step: float):
    """Derivative at 0 of function_at(amount), which may be an array; error O(step^4)."""
    near = function_at(step) - function_at(-step)
    far = function_at(2 * step) - function_at(-2 * step)
    return (8 * near - far) / (12 * step)


def jacobian(function, x: Array, step: float) -> Array:
    """Derivative of function at x (p,) by central differences, the coordinates of x on the last axis."""
    directions = np.eye(len(x))
    return np.stack(
        [central_difference(lambda t, e=e: function(x + t * e), step) for e in directions], axis=-1
    )


@cache
def exact_gradient(name: str):
    """The gradient of the problem of that name as mpmath numbers: (p,), right to some 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    problem = next(problem for problem in PROBLEMS if problem.name == name)
    with mpmath.workdps(60):
        mpf = np.vectorize(mpmath.mpf, otypes=[object])
        A, theta, y, s = map(mpf, (problem.design, problem.theta, problem.y, problem.weights))
        eta = A @ theta
        sigma = np.array([1 / (1 + mpmath.exp(-e)) for e in eta])
        d1 = (eta if problem.loss == "squared" else sigma) - y
        return A.T @ (s * d1) + mpf(problem.penalty) * theta


def retrain(
    X, y, *, alpha, loss, sample_weight=None, fit_intercept, tol=1e-12, start: Array | None = None
) -> Array:
    """The minimiser of J (E1), by a damped Newton method that shares no code with the package.

    Stops at ||gradient|| <= tol, or where rounding allows no further decrease; raises if that is far off.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    penalty = np.full(X.shape[1], alpha, dtype=np.float64)
    if fit_intercept:
        penalty = np.append(penalty, 0.0)
    s = np.ones(len(A)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)

    def objective(theta):
        """J, its gradient and its Hessian."""
        eta = A @ theta
        if loss == "squared":
            value, d1, d2 = 0.5 * (eta - y) ** 2, eta - y, np.ones_like(eta)
        else:
            p0, p1 = np.exp(-np.logaddexp(0.0, eta)), np.exp(-np.logaddexp(0.0, -eta))
            value = np.where(y == 1, np.logaddexp(0.0, -eta), np.logaddexp(0.0, eta))
            d1, d2 = np.where(y == 1, -p0, p1), p0 * p1
        return (
            s @ value + 0.5 * penalty @ theta**2,
            A.T @ (s * d1) + penalty * theta,
            A.T @ ((s * d2)[:, None] * A) + np.diag(penalty),
        )

    theta = np.zeros(A.shape[1]) if start is None else np.array(start, dtype=np.float64)
    J, g, H = objective(theta)
    g_0 = np.linalg.norm(g)
    for _ in range(200):
        if np.linalg.norm(g) <= tol:
            return theta
        step = -np.linalg.solve(H, g)
        slope, t = g @ step, 1.0
        near_end = abs(slope) < 1e-10 * abs(J)  # J has no digits left to decide with
        while t > 1e-6:
            J_t, g_t, H_t = objective(theta + t * step)
            if np.linalg.norm(g_t) < np.linalg.norm(g) if near_end else J_t <= J + 1e-4 * t * slope:
                break
            t /= 2
        else:
            break
        theta, J, g, H = theta + t * step, J_t, g_t, H_t
    if np.linalg.norm(g) > 1e-12 * (1.0 + len(A)) * (1.0 + g_0):
        raise RuntimeError(f"retrain stopped at a gradient norm of {np.linalg.norm(g):.1e}")
    return theta


@dataclass(frozen=True)
class Adult:
    """UCI Adult, one-hot; rows of Euclidean norm 1, targets in {0, 1}."""

    X: Array  # (32561, 81)
    y: Array
    X_test: Array  # (16281, 81)
    y_test: Array
    feature_names: list[str]
    sensitive_features: list[str]  # 15 one-hot columns


@cache
def adult() -> Adult:
    """Adult from $EXPUNGE_DATA/adult.npz; skips the calling test without it."""
    folder = os.environ.get("EXPUNGE_DATA")
    if folder is None:
        pytest.skip("EXPUNGE_DATA is not set: it names the folder with adult.npz")
    path = Path(folder) / "adult.npz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")

    def unit_rows(X):
        return X / np.linalg.norm(X, axis=1, keepdims=True)

    with np.load(path) as data:
        return Adult(
            X=unit_rows(data["X_train"]),
            y=(data["y_train"] > 0).astype(np.float64),
            X_test=unit_rows(data["X_test"]),
            y_test=(data["y_test"] > 0).astype(np.float64),
            feature_names=data["feature_names"].tolist(),
            sensitive_features=data["sensitive_features"].tolist(),
        )
