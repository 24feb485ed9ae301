"""``expunge demo``: every method of unlearning on real data, beside retraining."""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, f1_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from .. import (
    AddRows,
    CertificateError,
    CorrectLabels,
    CorrectValues,
    LogisticRegression,
    RemoveRows,
    RevokeFeatures,
    Ridge,
    Unlearner,
    Update,
    build_info,
    kernels,
)
from ..engine.state import Method
from ..models.base import theta_of
from ..requests import Request

METHODS: tuple[Method, ...] = ("first_order", "second_order", "exact")
REPEATS = 3  # the shortest of so many runs is printed


@dataclass(frozen=True)
class Table:
    """A numeric data set: one-hot columns remember the column of the file that they come from."""

    title: str
    X: NDArray[np.float64]
    y: NDArray[Any]
    names: list[str]
    source: list[str]

    def columns_of(self, name: str) -> list[int]:
        """Positions of the columns made from a column of the file."""
        found = [j for j, source in enumerate(self.source) if source == name]
        if not found:
            raise SystemExit(f"no column {name!r}: there are {', '.join(dict.fromkeys(self.source))}")
        return found


def breast_cancer() -> Table:
    """The data set that scikit-learn ships: 569 tumours, 30 measurements."""
    data = load_breast_cancer()
    names = [str(name) for name in data.feature_names]
    return Table("breast cancer (Wisconsin)", data.data, data.target_names[data.target], names, names)


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def read_csv(path: Path, target: str) -> Table:
    """A CSV file with a header; columns that are not numbers become one-hot columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"{path} is not UTF-8 (byte {error.start}): save it in that encoding") from None
    except csv.Error as error:
        raise SystemExit(f"{path} is no CSV: {error}") from None
    if not lines:
        raise SystemExit(f"{path} is empty: a header and rows are needed")
    header, *rows = lines
    if target not in header:
        raise SystemExit(f"no column {target!r} in {path}: there are {', '.join(header)}")
    ragged = [i for i, row in enumerate(rows) if len(row) != len(header)]
    if not rows or ragged:
        where = f"row {ragged[0] + 1} has {len(rows[ragged[0]])} cells" if ragged else "there are no rows"
        raise SystemExit(f"{path}: {where}, expected {len(header)} cells under the header")
    columns: list[NDArray[np.float64]] = []
    names: list[str] = []
    source: list[str] = []
    y: NDArray[Any] = np.empty(0)
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        values = _numbers(cells)
        if name == target:
            classes = sorted(set(cells))
            y = np.array(cells) if len(classes) == 2 or values is None else values
            if values is None and len(classes) != 2:
                raise SystemExit(
                    f"the target {name!r} has {len(classes)} classes: two, or numbers, are needed"
                )
        elif values is not None:
            columns.append(values)
            names.append(name)
            source.append(name)
        else:
            for level in sorted(set(cells)):
                columns.append(np.array([cell == level for cell in cells], dtype=np.float64))
                names.append(f"{name}={level}")
                source.append(name)
    if not columns:
        raise SystemExit(f"{path}: no column is left beside the target")
    return Table(path.name, np.column_stack(columns), y, names, source)


def requests_for(table: Table, X: Any, y: Any, classes: Any, revoke: list[str]) -> dict[str, list[Request]]:
    """One request of each kind, sized to the data."""
    n = X.shape[0]
    few = max(1, n // 50)
    rows = np.random.default_rng(0).permutation(n)
    labels, values, gone, more = (rows[k * few : (k + 1) * few] for k in range(4))
    if classes.size == 2:
        corrected = np.where(y[labels] == classes[0], classes[1], classes[0])
    else:
        corrected = np.full(labels.size, y.mean())
    revoked = sorted({j for name in revoke for j in table.columns_of(name)})
    return {
        f"revoke {', '.join(revoke)}": [RevokeFeatures(revoked)],
        f"correct {labels.size} labels": [CorrectLabels(labels, corrected)],
        f"correct {values.size} values": [CorrectValues(values, [0], 0.0)],
        f"remove {gone.size} rows": [RemoveRows(gone)],
        "all of these, and add rows": [
            CorrectLabels(labels, corrected),
            CorrectValues(values, [0], 0.0),
            RemoveRows(gone),
            AddRows(X[more], y[more]),
            RevokeFeatures(revoked),
        ],
    }


def scores(model: Any, X: Any, y: Any) -> str:
    """Accuracy and macro F1 of a classifier, R^2 of a regression."""
    if isinstance(model, Ridge):
        return f"{r2_score(y, model.predict(X)):.4f}"
    predicted = model.predict(X)
    return f"{accuracy_score(y, predicted):.4f} / {f1_score(y, predicted, average='macro'):.4f}"


def unlearn(model: Any, X: Any, y: Any, request: list[Request], method: Method) -> tuple[Unlearner, Update]:
    """The request on a fresh copy, several times; the fastest."""
    runs = []
    for _ in range(REPEATS):
        un = Unlearner(deepcopy(model), X, y)
        runs.append((un, un.apply(request, method=method)))
    return min(runs, key=lambda run: run[1].seconds)


def certified(un: Unlearner, X: Any, y: Any) -> str:
    """What a release of it is good for, and how well that predicts."""
    try:
        released = un.release(epsilon=1.0, delta=1e-5)
    except CertificateError as error:
        return f"is not released: {error}"
    scale = released.certificate_.sigma
    return f"released with noise {scale:.1e}, certified (1, 1e-05): {scores(released, X, y)}"


def retrain(un: Unlearner) -> tuple[Any, float]:
    """A fresh fit to the corrected data, several times; the model and the shortest time."""
    data = un.corrected_data()
    seconds = []
    for _ in range(REPEATS):
        fresh = clone(un.model)
        started = perf_counter()
        fresh.fit(*data)
        seconds.append(perf_counter() - started)
    return fresh, min(seconds)


def allowed_distance(un: Unlearner, retrained: Any) -> float:
    """How far apart two coef_ may be that both reach the tolerance (E10): 2 (r + floor) / alpha.

    r is the residual of the profile objective, at most the tolerance times the norm of the longest row.
    """
    X, y, _ = un.corrected_data()
    loss, targets = (
        ("squared", y) if isinstance(retrained, Ridge) else ("logistic", y == retrained.classes_[1])
    )
    alpha = retrained.alpha
    floor = kernels.rounding_floor(
        X, targets, theta_of(retrained), alpha=alpha, loss=loss, fit_intercept=True
    )
    longest = float(np.sqrt((X**2).sum(axis=1).max() + 1.0))
    return 2.0 * (un.tolerance + floor) * longest / float(alpha)


def demo(table: Table, revoke: list[str], alpha: float) -> int:
    """Fits, unlearns by every method, compares with retraining; 0 if `exact` is retraining."""
    X, X_test, y, y_test = train_test_split(table.X, table.y, test_size=0.25, random_state=0)
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X), scaler.transform(X_test)
    classes = np.unique(table.y)
    kind = LogisticRegression if classes.size == 2 else Ridge
    model = kind(alpha=alpha).fit(X, y)
    measure = "R2" if kind is Ridge else "accuracy / macro F1"
    print(f"expunge on {table.title}: {X.shape[0]} rows x {X.shape[1]} columns, {model}")
    print(f"instruction set {build_info()['isa']}; residual after the fit {model.residual_:.1e}\n")
    print(
        f"{'':15}{'residual before -> after':<26}{'distance':<10}{measure + ' (retrained)':<38}ms (retrain)"
    )
    matches = True
    for title, request in requests_for(table, X, y, classes, revoke).items():
        print(title)
        for method in METHODS:
            un, update = unlearn(model, X, y, request, method)
            retrained, seconds = retrain(un)
            difference = theta_of(un.model) - theta_of(retrained)
            if method == "exact":
                release = certified(un, X_test[:, un.get_support()], y_test)
                matches &= bool(np.linalg.norm(difference[:-1]) <= allowed_distance(un, retrained))
            narrow = X_test[:, un.get_support()]
            quality = f"{scores(un.model, narrow, y_test)} ({scores(retrained, narrow, y_test)})"
            before = f"{np.linalg.norm(update.gradient_difference):.1e}"
            print(f"  {method:<13}{before:>11} -> {update.residual:<11.1e}", end="")
            print(f"{np.linalg.norm(difference):<10.1e}{quality:<38}", end="")
            print(f"{1e3 * update.seconds:.2f} ({1e3 * seconds:.2f})")
    print(f"\nthe last one {release}")
    if not matches:
        print("\nFAILED: exact is further from retraining than its residual allows")
        return 1
    print("\nexact equals retraining, within what its residual and the rounding floor allow")
    return 0


def add_to(commands: Any) -> None:
    """The command and its options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo", help="unlearn on real data, beside retraining"
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="data with a header (default: breast cancer)"
    )
    parser.add_argument("--target", metavar="COL", help="its column to predict: two classes, or numbers")
    parser.add_argument("--revoke", action="append", metavar="COL", help="column to revoke; may be repeated")
    parser.add_argument("--alpha", type=float, default=1.0, help="l2 penalty on the sum scale (default 1)")

    def run(options: argparse.Namespace) -> int:
        if (options.csv is None) != (options.target is None):
            parser.error("--csv and --target go together")
        table = breast_cancer() if options.csv is None else read_csv(options.csv, options.target)
        revoke = options.revoke or [table.source[0]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("once", ConvergenceWarning)
                return demo(table, revoke, options.alpha)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None

    parser.set_defaults(run=run)
