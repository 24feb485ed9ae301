"""How Newton's linear systems are solved: by a factor of the whole Hessian, or by conjugate gradients.

The choice changes time and memory, not the minimiser. A factor of the whole Hessian costs as much as so many
passes over X. All figures are of one core with AVX-512 on a busy machine, for the logistic loss and rows
about 1 long. X is normal with columns of equal size, of sizes that fall like 1/j, or with 20 factors in
common; or it holds products of Adult's columns.

Fits to a residual of 1e-8: the time of cg over that of cholesky, geometric mean of alpha = 0.01 and 1.

    X               a factor     equal   1/j   factors   Adult
    10,000 x 1,500   50 passes    1.07   1.20   2.54     0.87 (16,000 rows)
     8,000 x 2,500   87 passes    0.90   1.22   1.30     0.32
     6,000 x 3,000  110 passes    0.60   0.46   1.08
     4,000 x 3,500  142 passes    0.61   0.58   0.67

Requests that remove 10 rows with method="exact", alpha = 0.01: milliseconds, cholesky before cg.

    X               a factor        equal       1/j
    10,000 x   700   23 passes     32    25    31    20
    10,000 x 1,500   50 passes    119    74    49    45
     8,000 x 2,500   87 passes    118   401    72  8209
     4,000 x 3,500  142 passes    158   336
"""

from __future__ import annotations

import math
import os
import warnings
from inspect import currentframe
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .. import _core
from ..errors import ConvergenceError

_PACKAGE = str(Path(__file__).parents[1]) + os.sep

DEFAULT_TOL = 1e-8  # a residual on the sum scale, where none is asked for
FIT_WITHIN = 1e-6  # standard errors: of estimators
UNSEEN = 1e-3  # standard errors
MAX_ITER = 200  # Newton iterations of one settle; a handful is usual
SOLVERS = ("auto", "cholesky", "cg")
# What a factor of the whole Hessian may cost, in passes: for one fit, and for many requests. Over the fits
# above, cg takes 1.3 times as long as cholesky at 50 passes and 0.8 times at 87, so they are even near 65.
# Requests are even somewhere between 50 and 90, but a slow one is far slower with cg.
FIT_PASSES, LASTING_PASSES = 65.0, 120.0
# A Ridge is factored once and for ever: requests pay for a dear factor. A fit pays for one that costs no more
# than products do: near n = p, and for singular values as even as those of normal numbers, this many times
# (1 + r) / (1 - r), r^2 the ratio of n and p.
FOREVER_PASSES, PASSES_BY_CONDITION = 1000.0, 10.0
SOLVE_READS = 4.0  # times that a request reads the factor
# A solve reads the p^2 numbers of a factor, a pass the entries of X. With more numbers for each entry a solve
# would take longer than a pass. A factor of 100 x 100 numbers is always small enough.
NUMBERS_PER_ENTRY, SMALL_FACTOR = 1.5, 10_000
SMALL_BLOCK, LARGE_BLOCK = 512, 1536  # coordinates that solver="cg" factors: for a fit, for many requests
LEAST_BLOCK, ROWS_PER_COORDINATE = 64, 16  # few rows do not make a large block worth its Gram matrix
ENTRIES_PER_PARAMETER = 40  # a vector of p numbers is then at most a fortieth of a pass
COPIES = 6  # of the Hessian while a request is applied: kept, edited and new, each with its factor
FAR_FROM_1 = 30.0  # an entry of a long row, on average: standardised columns stay below
DUAL_COPIES = 2  # of the matrix in the dual: the matrix and its factor


def check_solver(solver: Any, memory_limit: Any) -> None:
    """The two parameters that choose how linear systems are solved."""
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    if memory_limit is not None and not (isinstance(memory_limit, Real) and float(memory_limit) >= 0):
        raise ValueError(f"memory_limit must be None or a number of bytes >= 0, got {memory_limit!r}")


def most_memory(limit: float | None) -> float:
    """The limit in bytes, by default :func:`quarter_of_memory`."""
    return quarter_of_memory() if limit is None else float(limit)


def quarter_of_memory() -> float:
    """A quarter of the machine's RAM in bytes, or 1 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4
    except (AttributeError, OSError, ValueError):
        return 2.0**30


def has_room(limit: float | None, p: int) -> bool:
    """Whether memory has room for the whole Hessian while a request is applied."""
    return COPIES * 8.0 * p * p <= most_memory(limit)


def in_low_dimension(objective: _core.Objective, p: int) -> bool:
    """Whether a few vectors of p numbers are small beside X, which is read for each output."""
    return ENTRIES_PER_PARAMETER * p <= objective.outputs * objective.entries


def choose_block(
    solver: str, memory_limit: float | None, objective: _core.Objective, p: int, *, requests: bool = False
) -> int | None:
    """How many coordinates of the Hessian to factor: None, all of them, for Cholesky; else CG's block (E20).

    A block of several outputs is of the coordinates of one, and serves all (E33).

    `requests`: the factor is for many requests to come, and may cost more than one for a single fit.

    Raises
    ------
    ValueError
        solver="cholesky" above the memory limit.
    """
    limit = most_memory(memory_limit)
    needed = COPIES * 8.0 * p * p
    if solver == "cholesky" and needed > limit:
        raise ValueError(
            f"solver='cholesky' needs {needed:.3g} bytes for {p} parameters, above the memory limit of "
            f"{limit:.3g}: raise memory_limit or use solver='cg'"
        )
    read = objective.outputs * objective.entries  # by a pass
    in_proportion = math.isqrt(int(NUMBERS_PER_ENTRY * read) + SMALL_FACTOR)
    if objective.quadratic:  # the first factor is the last
        pays = objective.anchor_cost <= (
            FOREVER_PASSES if requests else max(LASTING_PASSES, _by_condition(objective.rows, p))
        )
    else:
        pays = objective.anchor_cost <= (LASTING_PASSES if requests else FIT_PASSES) and p <= in_proportion
    if solver == "cholesky" or (solver == "auto" and needed <= limit and pays):
        return None
    block, few = SMALL_BLOCK, in_low_dimension(objective, p)
    p //= objective.outputs
    if requests and few:
        block = min(in_proportion, LARGE_BLOCK)
    elif not requests and p > SMALL_BLOCK:
        block = min(SMALL_BLOCK, max(LEAST_BLOCK, objective.rows // ROWS_PER_COORDINATE))
    return min(p, block, math.isqrt(int(min(limit, 2.0**60) / (8 * COPIES))))


def serves_in_dual(solver: str, memory_limit: float | None, n: int, p: int) -> bool:
    """Whether requests to a Ridge of n dense rows are best fits from 0 in the dual (E23)."""
    if solver != "auto" or not 0 < n < p or p * p <= SMALL_FACTOR:
        return False
    cost = n / 32.0 + n * n / (96.0 * p) + 4.0  # of the factor, and of products beside it
    return cost <= SOLVE_READS * p / n and DUAL_COPIES * 8.0 * n * n <= most_memory(memory_limit)


def _by_condition(n: int, p: int) -> float:
    r = math.sqrt(min(n, p) / max(n, p, 1))
    return PASSES_BY_CONDITION * (1.0 + r) / max(1.0 - r, 1e-9)


def check_converged(
    objective: _core.Objective,
    minimum: _core.Minimum,
    tol: float,
    max_iter: int | None = None,
    distance: float | None = None,
) -> None:
    """Raises ConvergenceError above both tolerance and floor; warns where the floor rules (E19).

    At the default tolerance, which nobody asked for, only where rounding may hide what could be seen.
    `max_iter`: of an estimator, whose parameter it is, as is `tol`; an Unlearner's is `tolerance`.
    `distance`: the bound of E41, where it is known.
    """
    name = "tolerance" if max_iter is None else "tol"
    scale = "scale the columns of X to a size near 1"
    if not minimum.residual <= max(tol, minimum.floor) or not np.isfinite(minimum.residual):
        if not np.isfinite(minimum.residual):
            advice = f"the numbers leave the range of floating point, {scale}"
        elif max_iter is not None and minimum.iterations >= max_iter:
            advice = "raise max_iter"
        else:
            advice = f"the Hessian is nearly singular, raise alpha or {scale}"
        raise ConvergenceError(
            f"residual {minimum.residual:.3g} is above the tolerance {tol:.3g} after {minimum.iterations} "
            f"iterations: {advice}"
        )
    if minimum.floor > tol and not (tol == DEFAULT_TOL and _unseen(objective, minimum, distance)):
        advice = f"Raise {name} above it"
        if minimum.largest_norm > FAR_FROM_1 * math.sqrt(minimum.theta.size):
            advice += f", or {scale}"
        warn(
            f"the tolerance {tol:.3g} lies below the rounding floor {minimum.floor:.3g} of these data: "
            f"stopped at residual {minimum.residual:.3g}. {advice}"
        )


def _unseen(objective: _core.Objective, minimum: _core.Minimum, distance: float | None) -> bool:
    """Whether the minimum is proven to be so near (E41) that no statistic of these data could tell."""
    if distance is None:
        at = minimum.theta, minimum.at, minimum.floor
        with np.errstate(over="ignore", invalid="ignore"):
            distance = objective.distance(*at, minimum.largest_norm)
    return distance <= UNSEEN


def warn_of_distance(distance: float, within: float) -> None:
    """Warns that rounding stopped iterations before theta was proven to be near enough."""
    proven, advice = "not proven to be near", "Scale the columns of X to a size near 1"
    if math.isfinite(distance):
        proven = f"proven to be within {distance:.3g} standard errors, not within {within:.3g}"
        advice = "Raise `within`, or scale the columns of X to a size near 1"
    warn(f"the minimum is {proven}: what rounding may hide is larger. {advice}")


def warn(message: str, kind: type[Warning] = ConvergenceWarning) -> None:
    """Gives a warning for the line outside of this package that called it."""
    frame, level = currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)
