"""Kernels on their data, and rivals that give the same answer: the best NumPy and SciPy forms we know."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve, qr_delete, qr_insert, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.special import expit

from .. import kernels
from .._arrays import Float

ALPHA = 1.0
PANEL = 1024  # rows that NumPy takes at a time where that helps: they stay in cache
STREAM = 20  # rows that leave one by one

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """A kernel on its data, and rivals that give the same answer.

    `ours` takes what `fresh` returns, outside of the clock, and may change it; rivals take nothing. `answer`
    reads the answer out of what both return.
    """

    ours: Answer
    rivals: dict[str, Answer]
    fresh: Callable[[], tuple[Any, ...]] = tuple
    answer: Callable[[Any], Any] = lambda given: given

    def distance(self, ours: Any, theirs: Any) -> float:
        """How far apart two answers are, as a part of the largest entry; infinite for other shapes."""
        return max(map(_distance, *map(_parts, (self.answer(ours), self.answer(theirs)))))


def _parts(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _distance(ours: Any, theirs: Any) -> float:
    if np.shape(ours) != np.shape(theirs):
        return np.inf
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


# --- data


def dense(n: int, d: int, dtype: str = "float64") -> tuple[Any, Float, Float]:
    """X (n, d), y (n,) of 0 and 1, theta (d,)."""
    rng = np.random.default_rng(n + d)
    X = rng.standard_normal((n, d)).astype(dtype)
    return X, (rng.random(n) < 0.5).astype(np.float64), rng.standard_normal(d) / np.sqrt(d)


def hashed(n: int, d: int, entries: int) -> tuple[Any, Float, Float]:
    """Like hashed text: CSR rows of norm 1, columns drawn log-uniformly as words are; y and theta."""
    rng = np.random.default_rng(n)
    words = np.exp(rng.random(n * entries) * np.log(d)).astype(np.int64) - 1
    starts = np.arange(0, n * entries + 1, entries)
    X = sparse.csr_array((np.ones(n * entries), words * 7919 % d, starts), shape=(n, d))
    X.sum_duplicates()
    X.data /= np.repeat(np.sqrt(np.add.reduceat(X.data**2, X.indptr[:-1])), np.diff(X.indptr))
    y = (X @ rng.standard_normal(d) > 0).astype(np.float64)
    return X, y, rng.standard_normal(d)


def positive_definite(p: int) -> tuple[Float, Float]:
    """H (p, p) of 2p rows, and one row (p,) more."""
    X = np.random.default_rng(p).standard_normal((2 * p + 1, p)) / np.sqrt(2 * p)
    return X[1:].T @ X[1:] + ALPHA * np.eye(p), X[0]


# --- kernels that sum over rows


def _sums(X: Any, y: Float, part: Callable[..., tuple[Any, ...]], end: Answer) -> dict[str, Answer]:
    """Forms of ``end(*part(X, y))``, where part sums over the rows that it is given."""
    if sparse.issparse(X):
        return {"SciPy": lambda: end(*part(X, y))}

    def by_panels() -> Any:
        panels = (slice(first, first + PANEL) for first in range(0, len(X), PANEL))
        sums = [part(np.asarray(X[panel], dtype=np.float64), y[panel]) for panel in panels]
        return end(*map(sum, zip(*sums, strict=True)))

    return {"NumPy": lambda: end(*part(X, y)), "NumPy by panels": by_panels}


def loss_and_gradient(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.loss_and_gradient`."""

    def part(A: Any, y: Float) -> tuple[Any, ...]:
        eta = A @ theta
        return np.logaddexp(0.0, eta).sum() - y @ eta, A.T @ (expit(eta) - y)

    def end(value: Any, g: Any) -> tuple[Any, Any]:
        return value + 0.5 * ALPHA * theta @ theta, g + ALPHA * theta

    return Task(lambda: kernels.loss_and_gradient(X, y, theta, alpha=ALPHA), _sums(X, y, part, end))


def gradient(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.gradient`."""
    rivals = _sums(X, y, lambda A, y: (A.T @ (expit(A @ theta) - y),), lambda g: g + ALPHA * theta)
    return Task(lambda: kernels.gradient(X, y, theta, alpha=ALPHA), rivals)


def hvp(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.hvp`."""
    v = np.random.default_rng(0).standard_normal(len(theta))

    def part(A: Any, y: Float) -> tuple[Any, ...]:
        sigma = expit(A @ theta)
        return (A.T @ (sigma * (1.0 - sigma) * (A @ v)),)

    return Task(
        lambda: kernels.hvp(X, theta, v, alpha=ALPHA), _sums(X, y, part, lambda product: product + ALPHA * v)
    )


def rounding_floor(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.rounding_floor`: E19, with the panels of E21."""
    n, d = X.shape
    additions: Any
    if sparse.issparse(X):
        stored = np.diff(X.indptr)
        rows = max(256, min(n, int(8.0 * d * n / (X.nnz + 1.0))))
        in_column = np.bincount(X.indices, minlength=d)
        additions = np.minimum(in_column, rows) + np.minimum(in_column, -(-n // rows)) + 3
    else:
        stored = d
        additions = min(n, 256) + -(-n // 256) + 3

    def part(A: Any, y: Float) -> tuple[Any, ...]:
        r, size = np.abs(expit(A @ theta) - y), abs(A)
        rounding = np.minimum(0.25, r) * ((stored + 2) * (size @ np.abs(theta)))
        if sparse.issparse(A):
            return (additions * (size.T @ r) + size.T @ rounding,)
        return (size.T @ (additions * r + rounding),)

    def end(sums: Any) -> float:
        return 2.0**-53 * float(np.linalg.norm(sums) + 4.0 * np.linalg.norm(ALPHA * theta))

    return Task(lambda: kernels.rounding_floor(X, y, theta, alpha=ALPHA), _sums(X, y, part, end))


def gradient_difference(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.gradient_difference`: a value and the label corrected in every row."""
    corrected, labels = X.copy(), 1.0 - y
    if sparse.issparse(X):
        corrected.data[X.indptr[:-1]] = 0.0
    else:
        corrected[:, 0] = 0.0

    def rival() -> Any:
        return corrected.T @ (expit(corrected @ theta) - labels) - X.T @ (expit(X @ theta) - y)

    return Task(
        lambda: kernels.gradient_difference((X, y), (corrected, labels), theta),
        {"SciPy" if sparse.issparse(X) else "NumPy": rival},
    )


def _grams(X: Any, weights: Callable[[Any, slice], Any], end: Answer) -> dict[str, Answer]:
    """Forms of ``end(X.T @ diag(w) @ X)``; weights gives the w >= 0 of a panel and its place in X."""
    rows = slice(0, X.shape[0])

    def scaled(A: Any, rows: slice = rows) -> Any:
        root = np.sqrt(weights(A, rows))
        return sparse.diags_array(root) @ A if sparse.issparse(A) else A * root[:, None]

    def product(A: Any) -> Any:  # with one A: NumPy calls syrk
        return A.T @ A

    if sparse.issparse(X):
        return {
            "SciPy Xᵀ(wX)": lambda: end((X.T @ (sparse.diags_array(weights(X, rows)) @ X)).toarray()),
            "SciPy AᵀA": lambda: end(product(scaled(X)).toarray()),
        }

    def by_panels() -> Any:
        panels = (slice(first, first + PANEL) for first in range(0, len(X), PANEL))
        return end(sum(product(scaled(np.asarray(X[panel], dtype=np.float64), panel)) for panel in panels))

    return {
        "Xᵀ(wX)": lambda: end(X.T @ (weights(X, rows)[:, None] * X)),
        "(X√w)ᵀ(X√w)": lambda: end(scaled(X).T @ scaled(X)),
        "AᵀA, A = X√w": lambda: end(product(scaled(X))),
        "AᵀA by panels": by_panels,
    }


def gram(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.gram`."""
    w = np.random.default_rng(0).random(X.shape[0])
    return Task(lambda: kernels.gram(X, w), _grams(X, lambda _, rows: w[rows], lambda G: G))


def hessian(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.hessian`."""

    def weights(A: Any, _: slice) -> Any:
        sigma = expit(A @ theta)
        return sigma * (1.0 - sigma)

    def end(G: Any) -> Any:
        G.flat[:: len(theta) + 1] += ALPHA  # the diagonal
        return G

    return Task(lambda: kernels.hessian(X, theta, alpha=ALPHA), _grams(X, weights, end))


def loss_gradient_and_hessian(X: Any, y: Float, theta: Float) -> Task:
    """`kernels.loss_gradient_and_hessian`."""

    def form(product: Answer) -> Any:
        eta = X @ theta
        sigma = expit(eta)
        value = np.logaddexp(0.0, eta).sum() - y @ eta + 0.5 * ALPHA * theta @ theta
        return value, X.T @ (sigma - y) + ALPHA * theta, product()

    grams = hessian(X, y, theta).rivals
    rivals: dict[str, Answer] = {name: partial(form, product) for name, product in grams.items()}
    return Task(lambda: kernels.loss_gradient_and_hessian(X, y, theta, alpha=ALPHA), rivals)


# --- factors


def _lower(given: Any) -> Any:
    """L of a kernel's factor, or of a triangle that LAPACK left."""
    if isinstance(given, kernels.CholeskyFactor):
        return given.lower
    lower = np.tril(given)
    return lower * np.sign(np.diagonal(lower))  # QR's rows have either sign


def factor(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor` of H; LAPACK gets H in its own order."""
    return Task(
        lambda: kernels.CholeskyFactor(H),
        {
            "scipy cho_factor": lambda: cho_factor(H.T, lower=True)[0],
            "LAPACK dpotrf, unchecked": lambda: dpotrf(H.T, lower=1, clean=0)[0],
        },
        answer=_lower,
    )


def solve(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor.solve`."""
    held, theirs = kernels.CholeskyFactor(H), cho_factor(H.T, lower=True)
    return Task(
        lambda: held.solve(v),
        {
            "scipy cho_solve": lambda: cho_solve(theirs, v),
            "LAPACK dpotrs, unchecked": lambda: dpotrs(theirs[0], v, lower=1)[0],
        },
    )


def _edit(H: Float, ours: Callable[[kernels.CholeskyFactor], None], rivals: dict[str, Answer]) -> Task:
    """One edit of a factor of H in place; rivals return the new triangle."""

    def edited(given: kernels.CholeskyFactor) -> kernels.CholeskyFactor:
        ours(given)
        return given

    return Task(edited, rivals, fresh=lambda: (kernels.CholeskyFactor(H),), answer=_lower)


def _refactor(H: Any) -> Any:
    """H is new, and symmetric."""
    return cho_factor(H.T, lower=True, overwrite_a=True)[0]


def update(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor.update` by one row."""
    p = len(v)
    upper, one = np.triu(cho_factor(H.T)[0]), np.eye(p)
    return _edit(
        H,
        lambda held: held.update(v),
        {
            "scipy cho_factor": lambda: _refactor(H + np.outer(v, v)),
            "scipy qr_insert": lambda: qr_insert(one, upper, v, p, which="row")[1][:p].T,
        },
    )


def downdate(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor.downdate` by one row."""
    more = H + np.outer(v, v)
    return _edit(
        more,
        lambda held: held.downdate(v),
        {"scipy cho_factor": lambda: _refactor(more - np.outer(v, v))},
    )


def append(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor.append` of one coordinate."""
    p = len(v)
    lower = np.tril(cho_factor(H.T, lower=True)[0])
    h = np.append(v, 1.0 + v @ v)

    def rival() -> Any:
        larger = np.zeros((p + 1, p + 1), order="F")
        row = solve_triangular(lower, v, lower=True)
        larger[:p, :p], larger[p, :p], larger[p, p] = lower, row, np.sqrt(h[p] - row @ row)
        return larger

    return _edit(H, lambda held: held.append(h), {"scipy solve_triangular": rival})


def delete(H: Float, v: Float) -> Task:
    """`kernels.CholeskyFactor.delete` of a coordinate at a third of them."""
    p = len(v)
    upper, one, gone = np.triu(cho_factor(H.T)[0]), np.eye(p), p // 3
    kept = np.delete(np.arange(p), gone)
    return _edit(
        H,
        lambda held: held.delete(gone),
        {
            "scipy cho_factor": lambda: _refactor(H[np.ix_(kept, kept)]),
            "scipy qr_delete": lambda: qr_delete(one, upper, gone, which="col")[1][: p - 1].T,
        },
    )


# --- anchored statistics


def statistics(X: Any, y: Float, theta: Float) -> Task:
    """Rows leave `kernels.AnchoredStatistics` one by one: theta and bound after each. Rivals: no bound."""
    d = len(theta)
    anchored = kernels.AnchoredStatistics(X, y, theta, alpha=ALPHA)
    rows = [X[i : i + 1] for i in range(STREAM)]
    A = np.concatenate([row.toarray() if sparse.issparse(row) else row for row in rows]).astype(np.float64)
    g, H = anchored.gradient, anchored.hessian
    held = cho_factor(H.T, lower=True)

    def ours(anchored: kernels.AnchoredStatistics) -> Any:
        for i, row in enumerate(rows):
            anchored.subtract(row, y[i : i + 1])
            new = anchored.theta()
            anchored.residual_bound()
        return new

    def refactored() -> Any:
        left, K = g.copy(), H.copy()
        for x, target in zip(A, y, strict=False):
            sigma = expit(x @ theta)
            left -= (sigma - target) * x
            K -= np.outer((sigma * (1.0 - sigma)) * x, x)
            new = theta - cho_solve(cho_factor(K.T, lower=True), left)
        return new

    def woodbury() -> Any:  # (H - UᵀU)⁻¹ = H⁻¹ + Zᵀ (I - UZᵀ)⁻¹ Z with Z = UH⁻¹, a row more each time
        U, Z, w = np.empty((STREAM, d)), np.empty((STREAM, d)), cho_solve(held, g)
        for i, (x, target) in enumerate(zip(A, y, strict=False)):
            sigma = expit(x @ theta)
            root = np.sqrt(sigma * (1.0 - sigma))
            U[i] = root * x
            Z[i] = cho_solve(held, U[i])
            w -= ((sigma - target) / root) * Z[i]
            u, z = U[: i + 1], Z[: i + 1]
            new = theta - (w + np.linalg.solve(np.eye(i + 1) - u @ z.T, u @ w) @ z)
        return new

    return Task(
        ours,
        {"NumPy, a factor each": refactored, "NumPy, Woodbury": woodbury},
        fresh=lambda: (copy(anchored),),
    )


# --- what runs on a user's machine


@dataclass(frozen=True)
class Case:
    """One line of the table: `kernel` is a name of `kernels`, or ``Class.method``."""

    kernel: str
    shape: tuple[int, int]
    layout: str
    task: Callable[..., Task]
    data: Callable[[], tuple[Any, ...]]

    def __str__(self) -> str:
        return f"{self.kernel}, {self.shape[0]} x {self.shape[1]}, {self.layout}"


def cases() -> list[Case]:
    """Every kernel, dense in float64 at two sizes, in float32, and in CSR where it takes that."""
    return [
        *_of_rows("loss_and_gradient", loss_and_gradient),
        *_of_rows("gradient", gradient),
        *_of_rows("hessian", hessian, csr=(20_000, 1_000, 20)),
        *_of_rows("loss_gradient_and_hessian", loss_gradient_and_hessian, csr=(20_000, 1_000, 20)),
        *_of_rows("hvp", hvp),
        *_of_rows("rounding_floor", rounding_floor),
        *_of_rows("gradient_difference", gradient_difference, (10, 100), (10_000, 100), (10_000, 5_000, 50)),
        *_of_rows("gram", gram, csr=(20_000, 1_000, 20)),
        *_of_factors("CholeskyFactor", factor),
        *_of_factors("CholeskyFactor.solve", solve),
        *_of_factors("CholeskyFactor.update", update),
        *_of_factors("CholeskyFactor.downdate", downdate),
        *_of_factors("CholeskyFactor.append", append),
        *_of_factors("CholeskyFactor.delete", delete),
        *_of_rows("AnchoredStatistics", statistics, (20_000, 100), (5_000, 500), (20_000, 200, 20)),
    ]


def _of_rows(
    kernel: str,
    task: Callable[[Any, Float, Float], Task],
    small: tuple[int, int] = (2_000, 50),
    large: tuple[int, int] = (20_000, 100),
    csr: tuple[int, int, int] = (20_000, 5_000, 50),
) -> list[Case]:
    return [
        Case(kernel, small, "float64", task, partial(dense, *small)),
        Case(kernel, large, "float64", task, partial(dense, *large)),
        Case(kernel, large, "float32", task, partial(dense, *large, "float32")),
        Case(kernel, csr[:2], "CSR", task, partial(hashed, *csr)),
    ]


def _of_factors(kernel: str, task: Callable[[Float, Float], Task]) -> list[Case]:
    return [Case(kernel, (p, p), "float64", task, partial(positive_definite, p)) for p in (100, 1_000)]
