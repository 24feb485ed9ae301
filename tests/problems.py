"""Seeded problems, the retraining oracle and the real data that every test file shares."""

import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from expunge.datasets import Dataset, load_adult, load_drebin
from expunge.losses import LOSSES

Array = NDArray[np.float64]

CLASSIC = ("squared", "logistic")  # what tests cross with everything; engine/test_losses.py has the others
MEANS = ("poisson", "tweedie(1.5)", "tweedie(2.0)")  # with means e^eta


# Parameters


def covering(cases, levels):
    """Few of the cases, such that two levels that meet in any of them meet in one of these.

    `levels`: of each case, a tuple of what it consists of. A greedy search that gives the same every time.
    """
    numbers = {}
    pairs = np.array(
        [
            [numbers.setdefault(pair, len(numbers)) for pair in combinations(enumerate(level), 2)]
            for level in levels
        ]
    )
    to_meet = np.ones(len(numbers), dtype=bool)
    chosen = []
    while to_meet.any():
        best = int(np.argmax(to_meet[pairs].sum(axis=1)))
        to_meet[pairs[best]] = False
        chosen.append(best)
    return [cases[i] for i in sorted(chosen)]


def in_pairs(**parameters):
    """Parametrises by few cases in which every two values of every two parameters meet.

    A parameter is a sequence, or a mapping from ids to values; `represent` is passed on to the fixture.
    """
    values = [
        p if isinstance(p, Mapping) and name != "represent" else {str(value): value for value in p}
        for name, p in parameters.items()
    ]
    ids = list(product(*values))
    return pytest.mark.parametrize(
        tuple(parameters),
        [
            pytest.param(*(of[key] for of, key in zip(values, case, strict=True)), id="-".join(case))
            for case in covering(ids, ids)
        ],
        indirect=["represent"] if "represent" in parameters else [],
    )


INTERCEPT = {"plain": False, "intercept": True}
WEIGHTED = {"unweighted": False, "weighted": True}


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
    def curvature(self) -> dict:
        """The same with targets, for hessian and hvp: d2 may depend on them."""
        return self.objective | {"y": self.y}

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
        """Whether J has exactly one: a free intercept needs weight, on either side if logistic."""
        if not self.fit_intercept:
            return True
        if self.loss == "squared_hinge":
            return False  # where no margin is short of 1 there is a choice of intercepts
        kept, (low, high) = self.y[self.weights > 0], LOSSES[self.loss].between
        return len(kept) > 0 and bool(kept.max() > low and kept.min() < high)


def float32_values(values) -> Array:
    """float64 array of numbers that float32 represents exactly."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def sparse_values(rng, n: int, d: int) -> Array:
    """(n, d), three in ten not 0, or three a row if d is large; the last row and the last column are 0."""
    X = float32_values(rng.standard_normal((n, d)))
    share = 3.0 / d if d >= 100 else 0.3
    kept = rng.permuted(np.broadcast_to(np.arange(d) < round(share * d), (n, d)), axis=1)
    kept[-1], kept[:, -1] = False, False
    return np.where(kept, X, 0.0)


def make_problem(shape: str, loss: str, fit_intercept: bool) -> Problem:
    n, d = SHAPES[shape]
    rng = np.random.default_rng([list(SHAPES).index(shape), len(loss), fit_intercept])
    X = float32_values(rng.standard_normal((n, d)))
    theta = rng.standard_normal(d + fit_intercept) / np.sqrt(d)
    alpha: float | Array = 0.75
    sample_weight = None
    if shape == "duplicate_columns":
        X[:, d // 2 :] = X[:, : d // 2]
    if shape.startswith("sparse"):
        X = sparse_values(rng, n, d)
    if shape == "margins_800":
        most = 300.0 if loss in MEANS else 800.0  # e^800 is infinite
        X[:, 0] = float32_values(np.linspace(-most, most, n))
        theta[0] = 1.0
    if shape == "weights_with_zeros":
        sample_weight = float32_values(rng.uniform(0.0, 3.0, n))
        sample_weight[::5] = 0.0
    if shape == "alpha_per_column":
        alpha = float32_values(rng.uniform(0.1, 10.0, d))

    eta = X @ rng.standard_normal(d) / np.sqrt(d)
    if loss == "squared":
        y = float32_values(eta + 0.5 * rng.standard_normal(n))
    elif loss not in CLASSIC:
        y = targets_of(loss, eta, rng)
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


def targets_of(loss, eta, rng) -> Array:
    """Targets (n,) of a loss that are neither classes nor of any sign."""
    if loss == "squared_hinge":
        return np.where(np.arange(len(eta)) < 2, np.arange(len(eta)) % 2, eta > 0.5).astype(np.float64)
    if loss == "fractional":
        return float32_values(rng.beta(1.0, np.exp(-eta).clip(0.1, 10.0)))
    mean = np.exp(eta.clip(-3.0, 3.0))
    counts = rng.poisson(mean).astype(np.float64)
    counts[:1] += 1.0  # one of them is above 0
    if loss == "poisson":
        return counts
    return float32_values(rng.gamma(2.0, (counts if loss == "tweedie(1.5)" else mean) / 2.0 + 0.0))


def other_targets(loss, y) -> Array:
    """Labels that correct y: other ones of the loss's domain."""
    return y + 0.5 if loss in MEANS else 1.0 - y


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
    "sparse": (50, 9),
    "sparse_several_panels": (600, 12),
    "sparse_wide": (30, 400),
}

PROBLEMS = [
    make_problem(shape, loss, fit_intercept)
    for shape in SHAPES
    for loss in LOSSES
    for fit_intercept in (False, True)
]


def levels_of(problem):
    """What a problem consists of."""
    return problem.name.split("-")[0], problem.loss, problem.fit_intercept


def some_of(problems):
    """Every shape with every loss, with an intercept and without."""
    return covering(problems, [levels_of(problem) for problem in problems])


each_problem = pytest.mark.parametrize("problem", some_of(PROBLEMS), ids=lambda problem: problem.name)


def each_problem_in(forms, problems=PROBLEMS):
    """Every shape, loss and intercept in every one of these representations."""
    cases = list(product(problems, forms))
    chosen = covering(cases, [(*levels_of(problem), form) for problem, form in cases])
    return pytest.mark.parametrize(
        ("problem", "represent"),
        [pytest.param(problem, form, id=f"{problem.name}-{form}") for problem, form in chosen],
        indirect=["represent"],
    )


# Representations of X


def read_only(X):
    """The same, and no array of it can be written to."""
    for part in parts_of(X):
        part.flags.writeable = False
    return X


def strided(X):
    """X as every second row and third column of a larger array; what lies between is poison."""
    n, d = X.shape
    larger = np.full((2 * n, 3 * d), np.nan, dtype=X.dtype)
    larger[::2, ::3] = X
    return larger[::2, ::3]


def entries_of(X):
    """Values, rows and columns of what is not 0, row by row."""
    rows, columns = np.nonzero(X)
    return X[rows, columns], rows, columns


def csr(X, *, kind=sparse.csr_array, dtype=np.float64, index=np.int32, stored=None):
    """X in CSR, indexed as it says; of `stored` (n, d) also the zeros are entries."""
    rows, columns = np.nonzero((X != 0) | (np.zeros(X.shape, dtype=bool) if stored is None else stored))
    data = X[rows, columns].astype(dtype)
    matrix = kind((data, columns, np.searchsorted(rows, np.arange(len(X) + 1))), shape=X.shape)
    matrix.indices, matrix.indptr = matrix.indices.astype(index), matrix.indptr.astype(index)
    assert (matrix.indices.dtype, matrix.indptr.dtype) == (index, index)
    return matrix


def every_third_row(X):
    """Mask (n, d)."""
    return np.broadcast_to((np.arange(len(X)) % 3 == 0)[:, None], X.shape)


def csr_with_duplicates(X):
    """Each entry in two halves, one far from the other, columns descending."""
    data, rows, columns = (np.tile(part, 2) for part in entries_of(X))
    order = np.lexsort((-columns, np.arange(data.size) < data.size // 2, rows))
    indptr = np.searchsorted(rows[order], np.arange(len(X) + 1))
    return sparse.csr_array((data[order] / 2, columns[order], indptr), shape=X.shape)


def coo_with_duplicates(X):
    """Each entry in two halves, the rows descending."""
    data, rows, columns = (np.tile(part[::-1], 2) for part in entries_of(X))
    return sparse.coo_array((data / 2, (rows, columns)), shape=X.shape)


DENSE = {
    "float64_c": lambda X: np.array(X, dtype=np.float64, order="C"),
    "float64_f": lambda X: np.array(X, dtype=np.float64, order="F"),
    "float32_c": lambda X: np.array(X, dtype=np.float32, order="C"),
    "float32_f": lambda X: np.array(X, dtype=np.float32, order="F"),
    "read_only": lambda X: read_only(np.array(X, dtype=np.float64)),
    "strided": strided,
    "float32_strided": lambda X: strided(X.astype(np.float32)),
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
}
SPARSE = {
    "csr_int32": csr,
    "csr_int64": partial(csr, index=np.int64),
    "csr_float32": partial(csr, dtype=np.float32),
    "csr_float32_int64": partial(csr, dtype=np.float32, index=np.int64),
    "csr_matrix": partial(csr, kind=sparse.csr_matrix),
    "csr_read_only": lambda X: read_only(csr(X)),
    "csr_explicit_zeros": lambda X: csr(X, stored=every_third_row(X)),
    "csr_duplicates": csr_with_duplicates,
    "csc": lambda X: sparse.csc_array((lambda v, i, j: (v, (i, j)))(*entries_of(X)), shape=X.shape),
    "coo_duplicates": coo_with_duplicates,
}
REPRESENTATIONS = DENSE | SPARSE
INTEGERS = {  # of whole numbers
    "int64": lambda X: X.astype(np.int64),
    "int8": lambda X: X.astype(np.int8),
    "list": lambda X: X.tolist(),
    "csr_int8": partial(csr, dtype=np.int8),
}

# What kernels read as it is; everything else is converted to one of these, by as_matrix, before they see it.
NATIVE = [
    *("float64_c", "float64_f", "float32_c", "float32_f"),
    *("csr_int32", "csr_int64", "csr_float32", "csr_float32_int64"),
]
CONVERTED = [form for form in REPRESENTATIONS if form not in NATIVE]
# One of each family, for what sees X through kernels only.
FAMILIES = ["float64_c", "float32_f", "csr_int32", "csr_float32_int64"]

in_converted_forms = pytest.mark.parametrize("represent", CONVERTED, indirect=True)
in_every_form = pytest.mark.parametrize("represent", REPRESENTATIONS, indirect=True)
in_families = pytest.mark.parametrize("represent", FAMILIES, indirect=True)
in_sparse_forms = pytest.mark.parametrize("represent", SPARSE, indirect=True)


def parts_of(X) -> list:
    """The arrays that X consists of."""
    if not sparse.issparse(X):
        return [X]
    return [X.data, X.row, X.col] if X.format == "coo" else [X.data, X.indices, X.indptr]


def flat(result):
    """The numbers of an array, or of several."""
    parts = result if isinstance(result, tuple) else (result,)
    return np.concatenate([np.ravel(part) for part in parts])


def bits_of(X) -> list[bytes]:
    """Equal only if no array of X changed."""
    return [np.asarray(part).tobytes() for part in parts_of(X)]


def dense(X) -> Array:
    """A copy of X as an array, entry by entry: under `nothing_densifies` no sparse matrix gives one."""
    if not sparse.issparse(X):
        return np.array(X, dtype=np.float64)
    copy = np.zeros(X.shape)
    entries = X.tocoo()
    np.add.at(copy, (entries.row, entries.col), entries.data.astype(np.float64))
    return copy


@contextmanager
def nothing_densifies():
    """Inside, whoever asks a sparse matrix for all of its cells fails."""

    def densified(*_, **__):
        raise AssertionError("densified")

    formats = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    with pytest.MonkeyPatch.context() as patch:
        for kind in (getattr(sparse, f"{name}_{kind}") for name in formats for kind in ("array", "matrix")):
            for method in ("toarray", "todense", "__array__"):
                if hasattr(kind, method):  # without __array__ NumPy takes the matrix for one object
                    patch.setattr(kind, method, densified)
            if hasattr(kind, "A"):
                patch.setattr(kind, "A", property(densified))
        yield


# Oracles


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


def assert_finite_differences(module, problem: Problem):
    """Gradient and Hessian, of the kernels or of their twins, are the differences of value and gradient."""
    X, y, theta, objective = problem.X, problem.y, problem.theta, problem.objective
    J, g = module.loss_and_gradient(X, y, theta, **objective)
    step = 1e-3 / max(1.0, np.abs(X).max())
    if problem.loss == "squared_hinge":  # without rows whose margin becomes 1 on the way
        kept = np.abs(1.0 - (2.0 * y - 1.0) * (problem.design @ theta)) > 2.5 * step * np.abs(
            problem.design
        ).max(axis=1)
        weights = None if problem.sample_weight is None else problem.sample_weight[kept]
        problem = replace(problem, X=X[kept], y=y[kept], sample_weight=weights)
        X, y, objective = problem.X, problem.y, problem.objective
        J, g = module.loss_and_gradient(X, y, theta, **objective)
    H = module.hessian(X, theta, **problem.curvature)

    def loss_at(t):
        return module.loss_and_gradient(X, y, t, **objective)[0]

    def gradient_at(t):
        return module.gradient(X, y, t, **objective)

    scale = max(np.linalg.norm(g), abs(J))
    assert_allclose(g, jacobian(loss_at, theta, step), rtol=0, atol=1e-8 * scale)
    scale = max(np.linalg.norm(H), np.linalg.norm(g))
    assert_allclose(H, jacobian(gradient_at, theta, step), rtol=0, atol=1e-8 * scale)


def exact_loss(mpmath, loss, y, eta):
    """value, d1, d2 of one loss at one point, as mpmath numbers."""
    y, eta = mpmath.mpf(y), mpmath.mpf(eta)
    if loss == "squared":
        return (eta - y) ** 2 / 2, eta - y, mpmath.mpf(1)
    if loss == "poisson":
        return mpmath.exp(eta) - y * eta, mpmath.exp(eta) - y, mpmath.exp(eta)
    if loss == "tweedie(2.0)":
        return eta + y * mpmath.exp(-eta), 1 - y * mpmath.exp(-eta), y * mpmath.exp(-eta)
    if loss == "tweedie(1.5)":
        up, down = mpmath.exp(eta / 2), y * mpmath.exp(-eta / 2)
        return 2 * (up + down), up - down, (up + down) / 2
    if loss == "squared_hinge":
        sign = 2 * y - 1
        short = max(1 - sign * eta, mpmath.mpf(0))
        return short**2, -2 * sign * short, mpmath.mpf(2 if short > 0 else 0)
    sigma = 1 / (1 + mpmath.exp(-eta))
    return mpmath.log(1 + mpmath.exp(eta)) - y * eta, sigma - y, sigma * (1 - sigma)


@cache
def exact_gradient(name: str):
    """The gradient of the problem of that name as mpmath numbers: (p,), right to some 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    problem = next(problem for problem in PROBLEMS if problem.name == name)
    with mpmath.workdps(60):
        mpf = np.vectorize(mpmath.mpf, otypes=[object])
        A, theta, y, s = map(mpf, (problem.design, problem.theta, problem.y, problem.weights))
        d1 = np.array(
            [exact_loss(mpmath, problem.loss, t, e)[1] for t, e in zip(y, A @ theta, strict=True)],
            dtype=object,
        )
        return A.T @ (s * d1) + mpf(problem.penalty) * theta


def cancelling_rows(size: float, n: int, d: int, dtype, rng: np.random.Generator) -> Array:
    """Rows (n, d) of huge entries, d at least 4, whose sum is small, whatever rounding makes of it.

    They hold x, k, -x and -k, k about x's spacing: the first two add up to x or to a number beyond. The rest
    are small, and in half of the rows they lie in any order.
    """
    X = rng.integers(-3, 4, (n, d)).astype(dtype)
    x = (size * rng.uniform(1.0, 2.0, n)).astype(dtype)
    k = (np.spacing(x.astype(np.float64)) * rng.uniform(0.5, 1.5, n)).astype(dtype)
    X[:, 0], X[:, 1], X[:, 2], X[:, 3] = x, k, -x, -k
    return np.where(rng.random((n, 1)) < 0.5, X, rng.permuted(X, axis=1))


def exact_sums(X, y, s, theta, loss, fit_intercept, alpha):
    """Gradient (p,) and Hessian (p, p) as mpmath numbers, from numbers of whatever size."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(700):
        mpf = np.vectorize(mpmath.mpf, otypes=[object])
        A = mpf(np.column_stack([X, np.ones((len(X), int(fit_intercept)))]).astype(np.float64))
        eta = A @ mpf(theta)
        if loss == "squared":
            d1, d2 = eta - mpf(y), np.ones(len(A))
        elif loss not in CLASSIC:
            at = [
                exact_loss(mpmath, loss, t, e) for t, e in zip(y, np.clip(eta, -(10**4), 10**4), strict=True)
            ]
            d1, d2 = (np.array([e[k] for e in at], dtype=object) for k in (1, 2))
        else:
            mistake = (1 - 2 * mpf(y)) * np.clip(eta, -(10**4), 10**4)  # e^-10000 is nothing to any bound
            sigma = np.array([1 / (1 + mpmath.exp(-z)) for z in mistake])
            d1, d2 = (1 - 2 * mpf(y)) * sigma, sigma * (1 - sigma)
        penalty = mpf(np.append(np.full(X.shape[1], alpha), np.zeros(int(fit_intercept))))
        return A.T @ (mpf(s) * d1) + penalty * mpf(theta), (A.T * (mpf(s) * d2)) @ A + np.diag(penalty)


def exact_distance(a, b):
    """The Euclidean norm of a - b as an mpmath number: none of its squares overflows, and none vanishes."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(700):
        return mpmath.sqrt(
            sum((mpmath.mpf(x) - y) ** 2 for x, y in zip(np.ravel(a), np.ravel(b), strict=True))
        )


def by_mean(loss, y, eta):
    """value, d1, d2 of the losses with means e^eta, from derivatives in the mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        mu = np.exp(eta)
        if loss == "poisson":
            return mu - y * eta, mu - y, mu
        if loss == "tweedie(2.0)":
            return eta + y / mu, (mu - y) / mu, y / mu
        p = float(loss.removeprefix("tweedie(").removesuffix(")"))
        value = mu ** (2 - p) / (2 - p) + y * mu ** (1 - p) / (p - 1)
        d1 = (mu - y) * mu ** (1 - p)
        return value, d1, mu ** (2 - p) + (1 - p) * d1


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
        elif loss == "poisson" or loss.startswith("tweedie"):
            value, d1, d2 = by_mean(loss, y, eta)
        elif loss == "squared_hinge":
            sign = 2.0 * y - 1.0
            short = np.maximum(0.0, 1.0 - sign * eta)
            value, d1, d2 = short**2, -2.0 * sign * short, 2.0 * (short > 0.0)
        elif loss == "fractional":
            p = expit(eta)
            value, d1, d2 = np.logaddexp(0.0, eta) - y * eta, p - y, p * expit(-eta)
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


def data_file(name: str) -> Path:
    """A file of $EXPUNGE_DATA; skips the calling test without it."""
    folder = os.environ.get("EXPUNGE_DATA")
    if folder is None:
        pytest.skip(f"EXPUNGE_DATA is not set: it names the folder with {name}")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


@cache
def adult() -> Dataset:
    """Adult from $EXPUNGE_DATA/adult.npz, rows of norm 1; skips the calling test without it."""
    return load_adult(data_file("adult.npz").parent, row_norm="unit")


@cache
def drebin() -> Dataset:
    """Drebin from $EXPUNGE_DATA/drebin.npz, rows of norm 1; skips the calling test without it."""
    return load_drebin(data_file("drebin.npz").parent, row_norm="unit")


def of_frequent_columns(data: Dataset, count: int) -> Dataset:
    """So many of its columns, those that most rows fill."""
    most = np.sort(np.argsort(-data.X.sum(axis=0), kind="stable")[:count])
    X, X_test = (sparse.csr_array(part[:, most]) for part in (data.X, data.X_test))
    X.sort_indices()
    names = tuple(data.feature_names[j] for j in most)
    kept = tuple(name for name in data.sensitive_features if name in set(names))
    return replace(data, X=X, X_test=X_test, feature_names=names, sensitive_features=kept)


def heaviest_urls(data: Dataset, model) -> NDArray[np.intp]:
    """Positions of the 120 URL features of Drebin whose coefficients are the largest.

    Of 10, 50 and 100 of them, what a second-order update leaves is near the source paper's figures.
    """
    urls = np.sort(data.sensitive_columns)
    return urls[np.argsort(-np.abs(model.coef_[0, urls]))[:120]]


def scores(model, X, y) -> dict[str, float]:
    """Of a binary classifier: the three by which Drebin is judged, where 95 of 100 rows are of one class."""
    predicted, margin = model.predict(X), model.decision_function(X)
    return {
        "accuracy": float(np.mean(predicted == y)),
        "macro-F1": float(f1_score(y, predicted, average="macro")),
        "PR-AUC": float(average_precision_score(y, margin)),
    }


def equal_to_3_decimals(value: float, expected: float) -> bool:
    """Also as printed, unless `expected` is within 1e-6 of where rounding to 3 decimals jumps."""
    on_edge = abs(1e3 * expected % 1.0 - 0.5) < 1e-3
    return abs(value - expected) < 5e-4 and (on_edge or round(value, 3) == round(expected, 3))
