"""What of an Unlearner goes into a file, and what must hold of it when it comes out.

docs/data.md lists the entries. The file itself, its checksum and its atomic replacement are
:mod:`expunge.archive`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from . import _core, archive
from ._arrays import Float, as_matrix, as_penalty, as_targets, as_weights
from .adopt import Specification
from .data import StreamedCsr
from .errors import NotPositiveDefiniteError
from .linear import check_alpha, check_solver, check_tolerance
from .losses import get_loss
from .noise import Noise, check_random_state
from .release import Budget, check_theta_bound

KIND, VERSION = "unlearner", 2
READABLE = (1, 2)
_MODELS = {"Ridge": "squared", "LogisticRegression": "logistic"}
_NUMBERS = 8  # of statistics: see AnchoredStatistics::State


@dataclass(frozen=True)
class Saved:
    """An Unlearner as values.

    `names` are those of the surviving columns; `rows` are row numbers, X, y, s (arrays where they were read;
    where they are to be written, what `CorrectedData.streamed` gives) and how many numbers were given out.
    """

    spec: Specification
    parameters: Mapping[str, Any]  # of the model, beside alpha and fit_intercept
    theta: Float
    residual: float | None
    n_iter: int | None
    named: bool  # whether the model has feature_names_in_
    tolerance: float
    residual_on_entry: float
    column_index: bool
    kept: NDArray[np.bool_]
    names: list[str] | None
    counts: NDArray[np.int64]
    weighted: bool
    dtype: np.dtype[Any]
    is_sparse: bool
    since_anchor: int
    statistics: _core.AnchoredStatistics | None
    rows: tuple[NDArray[np.int64], Any, Any, Any, int] | None
    noise: Noise | None  # of the objective, for the surviving columns; perhaps without its values
    theta_bound: float
    budget: Budget | None

    def all_names(self) -> list[str | None] | None:
        """Over all columns that were ever handed over; None for one that is not kept."""
        if self.names is None:
            return None
        names = iter(self.names)
        return [next(names) if here else None for here in self.kept]


def write(path: str | os.PathLike[str], saved: Saved) -> None:
    """Writes it; TypeError for class labels that a file cannot hold, before anything is written."""
    spec, parameters = saved.spec, saved.parameters
    entries: dict[str, Any] = {
        "model": next(name for name, loss in _MODELS.items() if loss == spec.loss),
        "alpha": spec.alpha,
        "fit_intercept": spec.fit_intercept,
        "tol": float(parameters["tol"]),
        "max_iter": int(parameters["max_iter"]),
        "solver": parameters["solver"],
        "tolerance": saved.tolerance,
        "theta": saved.theta,
        "named": saved.named,
        "residual_on_entry": saved.residual_on_entry,
        "column_index": saved.column_index,
        "kept": saved.kept,
        "counts": saved.counts,
        "weighted": saved.weighted,
        "dtype": saved.dtype.name,
        "sparse": saved.is_sparse,
        "since_anchor": saved.since_anchor,
        "theta_bound": saved.theta_bound,
    }
    if saved.noise is not None:
        entries["noise.sigma"], entries["noise.draws"] = saved.noise.sigma, saved.noise.draws
        if saved.noise.random_state is not None:
            entries["noise.random_state"] = str(saved.noise.random_state)  # of any size
        if saved.noise.b is not None:
            entries["noise.b"] = saved.noise.b
    if saved.budget is not None:
        held = saved.budget
        entries["budget"] = np.array([held.epsilon, held.delta, held.spent])
        entries["budget.on_exhausted"] = held.on_exhausted
    if parameters["memory_limit"] is not None:
        entries["memory_limit"] = float(parameters["memory_limit"])
    for name in ("residual", "n_iter"):
        if getattr(saved, name) is not None:
            entries[name] = getattr(saved, name)
    if saved.names is not None:
        entries["names"] = _text(saved.names, "a column name")
    if spec.classes is not None:
        entries["classes"], entries["classes.object"] = _labels(spec.classes)
    if saved.statistics is not None:
        statistics = saved.statistics
        entries["statistics.theta"] = statistics.anchor.theta
        entries["statistics.hessian"] = statistics.anchor.hessian
        entries["statistics.gradient"] = statistics.at.gradient
        entries["statistics.numbers"] = np.array(statistics.numbers)
    if saved.rows is not None:
        numbers, X, y, s, n_rows = saved.rows
        entries["rows.count"] = n_rows
        entries["rows.numbers"] = numbers
        if isinstance(X, StreamedCsr):
            entries |= {f"rows.X.{part}": getattr(X, part) for part in ("data", "indices", "indptr")}
        else:
            entries["rows.X"] = X
        entries["rows.y"], entries["rows.s"] = y, s
    archive.write(path, KIND, VERSION, entries)


def _text(values: list[str], what: str) -> NDArray[np.str_]:
    array = np.array(values, dtype=np.str_)
    if array.tolist() != values:  # NumPy drops zeros at the end
        raise TypeError(f"{what} ends in a zero character, which cannot be stored")
    return array


def _labels(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Class labels without Python objects; whether they were such."""
    if classes.dtype.kind in "biuf":
        return classes, False
    labels = classes.tolist()
    if classes.dtype.kind not in "OU" or not all(isinstance(label, str) for label in labels):
        raise TypeError(
            f"class labels {labels} of dtype {classes.dtype} cannot be stored: bool, integers, floats and "
            "text can"
        )
    return _text(labels, "a class label"), classes.dtype.kind == "O"


def read(path: str | os.PathLike[str]) -> Saved:
    """What was written; ValueError, which names the file, for anything else."""
    entries = _Entries(archive.read(path, KIND, READABLE))
    try:
        saved = _interpreted(entries)
        entries.require_none_left()
    except (ValueError, TypeError, NotPositiveDefiniteError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return saved


class _Entries:
    """Arrays by name, each of which is taken once."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str, kinds: str, *shape: int | None, finite: bool = True) -> NDArray[Any]:
        """One whose dtype is of one of these kinds, of that shape, None for any length."""
        if name not in self._arrays:
            raise ValueError(f"{name} is missing")
        array = self._arrays.pop(name)
        fits = len(shape) == array.ndim and all(
            m is None or m == n for m, n in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind not in kinds or not fits:
            raise ValueError(f"{name} has dtype {array.dtype} and shape {array.shape}")
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")
        return array

    def floats(self, name: str, *shape: int | None) -> Float:
        """One of float64."""
        array = self.array(name, "f", *shape)
        if array.dtype != np.float64:
            raise ValueError(f"{name} has dtype {array.dtype}")
        return np.ascontiguousarray(array)

    def value(self, name: str, kind: str, *, finite: bool = True) -> Any:
        """A scalar, as Python's."""
        return self.array(name, kind, finite=finite).item()

    def optional(self, name: str, kind: str) -> Any:
        """The same, or None if it is not there."""
        return self.value(name, kind) if name in self else None

    def count(self, name: str) -> int:
        """An integer >= 0."""
        value = int(self.value(name, "iu"))
        if value < 0:
            raise ValueError(f"{name} is negative")
        return value

    def require_none_left(self) -> None:
        """Raises if there are entries that nobody asked for."""
        if self._arrays:
            raise ValueError(f"it has an unknown entry {next(iter(self._arrays))!r}")


def _interpreted(entries: _Entries) -> Saved:
    model = entries.value("model", "U")
    if model not in _MODELS:
        raise ValueError(f"unknown model {model!r}")
    spec = Specification(
        _MODELS[model],
        check_alpha(entries.value("alpha", "f")),
        entries.value("fit_intercept", "b"),
        _classes(entries) if model == "LogisticRegression" else None,
    )
    parameters = {
        "tol": check_tolerance(entries.value("tol", "f"), "tol"),
        "max_iter": entries.count("max_iter"),
        "solver": entries.value("solver", "U"),
        "memory_limit": entries.optional("memory_limit", "f"),
    }
    check_solver(parameters["solver"], parameters["memory_limit"])
    kept = entries.array("kept", "b", None)
    d = int(np.count_nonzero(kept))
    names = entries.array("names", "U", d).tolist() if "names" in entries else None
    counts = entries.array("counts", "i", 2).astype(np.int64)
    least = counts.sum() if spec.classes is None else counts.min()
    if d == 0 or counts.min() < 0 or least < 1 or (spec.classes is None and counts[1] > 0):
        raise ValueError("kept or counts cannot be those of a model")
    dtype = entries.value("dtype", "U")
    if dtype not in ("float64", "float32"):
        raise ValueError(f"unknown dtype {dtype!r}")
    is_sparse = entries.value("sparse", "b")
    p = d + spec.fit_intercept
    rows = _rows(entries, spec, d, np.dtype(dtype), is_sparse) if "rows.count" in entries else None
    needed = rows is None or "statistics.theta" in entries
    statistics = _statistics(entries, spec, d, counts) if needed else None
    noise, theta_bound = _noise(entries, d), entries.optional("theta_bound", "f")
    named = entries.value("named", "b")
    if named and names is None:
        raise ValueError("names is missing")
    return Saved(
        spec=spec,
        parameters=parameters,
        theta=entries.floats("theta", p),
        residual=entries.optional("residual", "f"),
        n_iter=entries.count("n_iter") if "n_iter" in entries else None,
        named=named,
        tolerance=check_tolerance(entries.value("tolerance", "f"), "tolerance"),
        residual_on_entry=entries.value("residual_on_entry", "f", finite=False),
        column_index=entries.value("column_index", "b"),
        kept=kept,
        names=names,
        counts=counts,
        weighted=entries.value("weighted", "b"),
        dtype=np.dtype(dtype),
        is_sparse=is_sparse,
        since_anchor=entries.count("since_anchor"),
        statistics=statistics,
        rows=rows,
        noise=noise,
        theta_bound=100.0 if theta_bound is None else check_theta_bound(theta_bound),  # None: version 1
        budget=_budget(entries, noise),
    )


def _noise(entries: _Entries, d: int) -> Noise | None:
    sigma, draws = entries.optional("noise.sigma", "f"), entries.optional("noise.draws", "i")
    if sigma is None:
        return None
    if not sigma > 0 or draws is None or draws < 0:
        raise ValueError("noise.sigma or noise.draws cannot be those of a model")
    seed = entries.optional("noise.random_state", "U")
    b = entries.floats("noise.b", d) if "noise.b" in entries else None
    return Noise(sigma, None if seed is None else check_random_state(int(seed)), draws, b)


def _budget(entries: _Entries, noise: Noise | None) -> Budget | None:
    if "budget" not in entries:
        return None
    epsilon, delta, spent = entries.floats("budget", 3).tolist()
    promised = Budget.promised(epsilon, delta, entries.value("budget.on_exhausted", "U"), noise)
    return promised and replace(promised, spent=spent)


def _classes(entries: _Entries) -> NDArray[Any]:
    classes = entries.array("classes", "biufU", 2)
    if classes[0] == classes[1]:
        raise ValueError("the two classes are one")
    return classes.astype(object) if entries.value("classes.object", "b") else classes


def _statistics(
    entries: _Entries, spec: Specification, d: int, counts: NDArray[np.int64]
) -> _core.AnchoredStatistics:
    p = d + spec.fit_intercept
    theta = entries.floats("statistics.theta", p)
    hessian = entries.floats("statistics.hessian", p, p)
    gradient = entries.floats("statistics.gradient", p)
    numbers = entries.floats("statistics.numbers", _NUMBERS)
    if not np.array_equal(hessian, hessian.T):
        raise ValueError("statistics.hessian is not symmetric")
    if np.delete(numbers, (0, 2)).min() < 0 or numbers[1] != counts.sum():  # J, the weight: may round below 0
        raise ValueError("statistics.numbers cannot be those of such rows")
    statistics = _core.AnchoredStatistics.restored(
        theta,
        hessian,
        gradient,
        spec.loss,
        as_penalty(spec.alpha, d, spec.fit_intercept),
        spec.fit_intercept,
        numbers.tolist(),
    )
    statistics.anchor.solve(np.zeros(p))  # raises unless the Hessian is positive definite
    return statistics


def _rows(
    entries: _Entries, spec: Specification, d: int, dtype: np.dtype[Any], is_sparse: bool
) -> tuple[NDArray[np.int64], Any, Float, Float, int]:
    count = entries.count("rows.count")
    numbers = entries.array("rows.numbers", "i", None).astype(np.int64)
    n = numbers.size
    if n and (numbers[0] < 0 or numbers[-1] >= count or (np.diff(numbers) <= 0).any()):
        raise ValueError("rows.numbers do not ascend below rows.count")
    X: Any
    if is_sparse:
        data, indices, indptr = (
            entries.array(f"rows.X.{part}", kind, length)
            for part, kind, length in (("data", "f", None), ("indices", "i", None), ("indptr", "i", n + 1))
        )
        X = sparse.csr_array((data, indices, indptr), shape=(n, d))
    else:
        X = entries.array("rows.X", "f", n, d)
    if X.dtype != dtype:
        raise ValueError(f"rows.X has dtype {X.dtype}, expected {dtype}")
    y = as_targets(entries.floats("rows.y", n), get_loss(spec.loss), n)
    s = as_weights(entries.floats("rows.s", n), n)
    assert s is not None
    return numbers, as_matrix(X, "rows.X"), y, s, count
