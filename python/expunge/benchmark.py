"""The kernels beside the best NumPy and SciPy forms we know: ``python -m expunge bench``.

A :class:`Task` holds a kernel on its data and rivals that give the same answer; :func:`cases` lists what runs
on a user's machine, and ``bench/`` in the repository times the same tasks at more sizes. Answers are compared
before anything is timed. Then ours and the rivals run in turn in one process, on one thread each, and the
figure is the median over rounds of the rival's time over ours. Rivals compute in float64, as the kernels do.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import scipy
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve, qr_delete, qr_insert, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.special import expit

from . import __version__, kernels
from ._arrays import Float
from ._core import build_info
from .threads import get_num_threads, set_num_threads

ALPHA = 1.0
AGREEMENT = 1e-11  # of the largest entry: how far apart answers may be
PANEL = 1024  # rows that NumPy takes at a time where that helps: they stay in cache
STREAM = 20  # rows that leave one by one
MIN_ROUNDS, MAX_ROUNDS = 3, 1000
SCHEMA = 1  # of the JSON

Answer = Callable[..., Any]


class DisagreementError(ArithmeticError):
    """A kernel and a rival give different answers."""


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


@dataclass(frozen=True)
class Rival:
    """One rival's median time, and its time over ours: median and quartiles over the rounds."""

    name: str
    milliseconds: float
    ratio: float
    quartiles: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """A case that was timed; the fastest rival first."""

    kernel: str
    shape: tuple[int, int]
    layout: str
    milliseconds: float
    rounds: int
    rivals: tuple[Rival, ...]


def run(case: Case, seconds: float) -> Result:
    """Compares the answers, then times all sides in turn for about so many seconds, three rounds at least.

    Raises
    ------
    DisagreementError
        Names the kernel, the rival and how far apart they are.
    """
    task = case.task(*case.data())
    expected = task.ours(*task.fresh())
    for name, rival in task.rivals.items():
        distance = task.distance(expected, rival())
        if not distance <= AGREEMENT:
            raise DisagreementError(
                f"{case}: the kernel and its rival {name!r} differ by {distance:.1e} of the largest entry, "
                f"more than {AGREEMENT:.0e}"
            )
    spent: dict[str, list[float]] = {name: [] for name in ("", *task.rivals)}
    sides: list[tuple[str, Answer]] = [("", task.ours), *task.rivals.items()]
    started, rounds = perf_counter(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and perf_counter() - started < seconds):
        for name, side in sides:
            arguments = () if name else task.fresh()
            begun = perf_counter()
            side(*arguments)
            spent[name].append(perf_counter() - begun)
        sides = [*sides[1:], sides[0]]  # nobody always comes after the same other
        rounds += 1
    own = np.array(spent.pop(""))
    rivals = []
    for name, times in spent.items():
        low, ratio, high = map(float, np.quantile(np.array(times) / own, [0.25, 0.5, 0.75]))
        rivals.append(Rival(name, 1e3 * float(np.median(times)), ratio, (low, high)))
    return Result(
        case.kernel,
        case.shape,
        case.layout,
        1e3 * float(np.median(own)),
        rounds,
        tuple(sorted(rivals, key=lambda rival: rival.ratio)),
    )


# --- the machine


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """So many for our kernels, and for BLAS where threadpoolctl is there; :func:`machine` says whether."""
    control, ours = _threadpoolctl(), get_num_threads()
    set_num_threads(count)
    try:
        with nullcontext() if control is None else control.threadpool_limits(count):
            yield
    finally:
        set_num_threads(ours)


def _threadpoolctl() -> Any:
    try:
        return import_module("threadpoolctl")
    except ImportError:
        return None


def machine() -> dict[str, Any]:
    """What the figures depend on, as JSON can hold it; what cannot be known is None."""
    build = build_info()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "expunge": __version__,
        "isa": build["isa"],
        "eigen": build["eigen"],
        "compiler": build["compiler"],
        "threads": get_num_threads(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": _blas(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "threadpoolctl": getattr(_threadpoolctl(), "__version__", None),
    }


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _blas() -> list[dict[str, Any]]:
    """Name, version, chosen kernels and threads of each BLAS in the process."""
    control, found = _threadpoolctl(), []
    if control is not None:
        found = [
            {
                "name": pool["internal_api"],
                "version": pool.get("version"),
                "architecture": pool.get("architecture"),
                "threads": pool["num_threads"],
            }
            for pool in control.threadpool_info()
            if pool["user_api"] == "blas"
        ]
    if not found:  # or it is one that threadpoolctl does not know
        configurations = [np.show_config(mode="dicts"), scipy.show_config(mode="dicts")]
        built = [(shown or {}).get("Build Dependencies", {}).get("blas", {}) for shown in configurations]
        found = [
            {"name": blas.get("name"), "version": blas.get("version"), "architecture": None, "threads": None}
            for blas in built
        ]
    return sorted(found, key=lambda blas: (str(blas["name"]), str(blas["version"])))


def header(machine: dict[str, Any]) -> list[str]:
    """The machine in lines of text."""
    blas = ", ".join(
        f"{one['name']} {one['version']} ({one['architecture'] or 'unknown'} kernels)"
        for one in machine["blas"]
    )
    threads = [one["threads"] for one in machine["blas"]]
    if None in threads:
        limit = "BLAS threads not limited"
        if machine["threadpoolctl"] is None:
            limit += ': pip install "expunge[bench]" brings threadpoolctl, which does it'
    else:
        limit = _count(max(threads))
    coretype = machine["openblas_coretype"]  # kernels that the user chose, in place of OpenBLAS
    choice = f"with OPENBLAS_CORETYPE={coretype}" if coretype else "as shipped"
    return [
        f"machine: {machine['cpu']}, {machine['cores']} cores; Python {machine['python']}",
        f"expunge {machine['expunge']}, {machine['isa']}, Eigen {machine['eigen']}, {machine['compiler']}, "
        f"{_count(machine['threads'])}",
        f"NumPy {machine['numpy']}, SciPy {machine['scipy']}; BLAS {choice}: {blas or 'unknown'}, {limit}",
    ]


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


# --- JSON, and two of them compared


def report(machine: dict[str, Any], seconds: float, results: Sequence[Result]) -> str:
    """The JSON that docs/guide.md describes."""
    whole = {
        "schema": SCHEMA,
        "machine": machine,
        "seconds": seconds,
        "results": [asdict(result) for result in results],
    }
    return json.dumps(whole, indent=1) + "\n"


def read(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Machine and results of a file that :func:`report` wrote.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds something else.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["schema"] != SCHEMA:
            raise ValueError
        return dict(whole["machine"]), [_result(**result) for result in whole["results"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a file that `python -m expunge bench --json` wrote with schema {SCHEMA}"
        ) from None


def _result(rivals: list[dict[str, Any]], shape: list[int], **rest: Any) -> Result:
    return Result(
        **rest,
        shape=(shape[0], shape[1]),
        rivals=tuple(Rival(**{**rival, "quartiles": tuple(rival["quartiles"])}) for rival in rivals),
    )


@dataclass(frozen=True)
class Change:
    """A case then and now.

    `faster` says how many times as fast ours has become by its ratios to the same rivals, in which the
    machine's own speed cancels: the geometric mean over them.
    """

    now: Result
    milliseconds_then: float
    faster: float


def changes(then: Sequence[Result], now: Sequence[Result]) -> list[Change]:
    """Cases that are in both, with rivals that are in both."""

    def key(result: Result) -> tuple[Any, ...]:
        return result.kernel, result.shape, result.layout

    before = {key(result): result for result in then}
    found = []
    for result in now:
        if (old := before.get(key(result))) is None:
            continue
        ratios = {rival.name: rival.ratio for rival in old.rivals}
        common = [np.log(rival.ratio / ratios[rival.name]) for rival in result.rivals if rival.name in ratios]
        if common:
            found.append(Change(result, old.milliseconds, float(np.exp(np.mean(common)))))
    return found


def differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the machine, beside expunge itself, is not the same: ratios then tell of that, too."""
    return [
        f"{name}: {then.get(name)} then, {now[name]} now"
        for name in now
        if name not in ("expunge", "compiler", "eigen") and then.get(name) != now[name]
    ]


# --- a figure


def require_plot(path: Path) -> None:
    """Raises before anything is timed where :func:`plot` could not draw.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        The ending of the name is that of no format it knows.
    """
    try:
        backend = import_module("matplotlib.backends.backend_agg")
        figure = import_module("matplotlib.figure").Figure()
    except ImportError:
        raise ImportError('a plot needs matplotlib: pip install "expunge[bench]"') from None
    known = backend.FigureCanvasAgg(figure).get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{path}: matplotlib draws files that end in {', '.join(sorted(known))}")


def plot(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    """Ratios of all rivals of each case, on a logarithmic axis; the name's ending chooses the format."""
    figure = import_module("matplotlib.figure").Figure(
        figsize=(9.0, 1.6 + 0.24 * len(results)), layout="constrained"
    )
    axes = figure.subplots()
    places = np.arange(len(results))
    fastest = [result.rivals[0] for result in results]
    axes.barh(places, [rival.ratio - 1.0 for rival in fastest], left=1.0, label="the fastest rival")
    low, high = np.array([rival.quartiles for rival in fastest]).T
    axes.hlines(places, low, high, color="black", label="half of its rounds")
    others = [
        (place, rival.ratio)
        for place, result in zip(places, results, strict=True)
        for rival in result.rivals[1:]
    ]
    if others:
        axes.plot([x for _, x in others], [at for at, _ in others], "o", label="other rivals")
    axes.axvline(1.0, color="black", linewidth=0.8)
    names = [f"{result.kernel}  {result.shape[0]} x {result.shape[1]}  {result.layout}" for result in results]
    axes.set(
        xscale="log", yticks=places, yticklabels=names, xlabel="time over ours: right of 1 ours is faster"
    )
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.suptitle("\n".join(header(machine)), fontsize=8)
    axes.legend(fontsize=8)
    figure.savefig(path)
