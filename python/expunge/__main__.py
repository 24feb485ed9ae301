"""Command line of expunge.

``python -m expunge demo`` unlearns on real data and checks the answer against retraining;
``python -m expunge bench`` times the kernels on this machine, beside NumPy and SciPy.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
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

from . import (
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
    benchmark,
    build_info,
    kernels,
)
from .models.base import theta_of
from .requests import Request
from .unlearner import Method

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


def require_writable(path: Path) -> None:
    """Refuses a file before the time is spent that its content takes."""
    new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    if new:
        path.unlink()


def bench(options: argparse.Namespace) -> int:
    """Times the kernels beside their rivals; a table on the terminal, JSON and a plot if asked."""
    chosen = [case for case in benchmark.cases() if options.filter in str(case)]
    if not chosen:
        kernel_names = dict.fromkeys(case.kernel for case in benchmark.cases())
        raise SystemExit(f"no case has {options.filter!r} in its name: there are {', '.join(kernel_names)}")
    to_stdout = options.json == Path("-")
    if options.json is not None and not to_stdout:
        require_writable(options.json)
    try:
        if options.plot is not None:
            benchmark.require_plot(options.plot)
            require_writable(options.plot)
        old = None if options.against is None else benchmark.read(options.against)
    except OSError as error:
        raise SystemExit(f"{options.against}: {error.strerror}") from None
    except (ImportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None

    stream = sys.stderr if to_stdout else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal may not know the letters of a formula
    show = partial(print, file=stream, flush=True)
    results = []
    with benchmark.use_threads(1):
        machine = benchmark.machine()
        show(*benchmark.header(machine), sep="\n")
        show("ratio: the rival's time over ours, the median over rounds; above 1 ours is faster\n")
        show(f"{'kernel':<30}{'shape':<14}{'layout':<9}{'ours, ms':>9}  {'rival':<26}ratio")
        for case in chosen:
            try:
                results.append(benchmark.run(case, options.seconds))
            except benchmark.DisagreementError as error:
                raise SystemExit(f"error: {error}") from None
            show("\n".join(lines_of(results[-1])))
    if old is not None:
        show(*lines_against(options.against, *old, machine, results), sep="\n")
    text = benchmark.report(machine, options.seconds, results)
    if to_stdout:
        print(text, end="")
    elif options.json is not None:
        options.json.write_text(text, encoding="utf-8")
    if options.plot is not None:
        benchmark.plot(options.plot, machine, results)
    return 0


def lines_of(result: benchmark.Result) -> list[str]:
    """A line of the table for each rival, the fastest first."""
    first = f"{result.kernel:<30}{place_of(result)}{result.milliseconds:>9.4g}  "
    starts = [first, *[" " * len(first)] * (len(result.rivals) - 1)]
    return [
        f"{start}{rival.name:<26}{rival.ratio:.2f}"
        for start, rival in zip(starts, result.rivals, strict=True)
    ]


def place_of(result: benchmark.Result) -> str:
    """Shape and layout, as wide as their columns."""
    n, d = result.shape
    return f"{f'{n} x {d}':<14}{result.layout:<9}"


def lines_against(
    path: Path,
    old_machine: dict[str, Any],
    old_results: Sequence[benchmark.Result],
    machine: dict[str, Any],
    results: Sequence[benchmark.Result],
) -> list[str]:
    """What has changed since that file was written."""
    lines = [
        f"\nagainst {path}, expunge {old_machine.get('expunge')}: "
        "how many times as fast ours is now, by the ratios to the same rivals",
        *(f"not the same: {what}" for what in benchmark.differing(old_machine, machine)),
        f"{'kernel':<30}{'shape':<14}{'layout':<9}{'then, ms':>9}{'now, ms':>10}  as fast",
    ]
    for change in benchmark.changes(old_results, results):
        times = f"{change.milliseconds_then:>9.4g}{change.now.milliseconds:>10.4g}"
        lines.append(f"{change.now.kernel:<30}{place_of(change.now)}{times}  {change.faster:.2f}")
    return lines


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m expunge``."""
    parser = argparse.ArgumentParser(prog="python -m expunge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    parse = commands.add_parser("demo", help="unlearn on real data, beside retraining")
    parse.add_argument("--csv", type=Path, metavar="FILE", help="data with a header (default: breast cancer)")
    parse.add_argument("--target", metavar="COL", help="its column to predict: two classes, or numbers")
    parse.add_argument("--revoke", action="append", metavar="COL", help="column to revoke; may be repeated")
    parse.add_argument("--alpha", type=float, default=1.0, help="l2 penalty on the sum scale (default 1)")
    time = commands.add_parser("bench", help="the kernels on this machine, beside NumPy and SciPy")
    time.add_argument("--json", type=Path, metavar="FILE", help="all figures; - for standard output")
    time.add_argument("--plot", type=Path, metavar="FILE", help="a figure, by matplotlib: .svg, .png, .pdf")
    time.add_argument("--filter", default="", metavar="TEXT", help='cases with it in "kernel, shape, layout"')
    time.add_argument("--seconds", type=positive, default=1.0, metavar="S", help="for each case (default 1)")
    time.add_argument("--against", type=Path, metavar="FILE", help="compare with what --json wrote before")
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return bench(options)
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


if __name__ == "__main__":
    sys.exit(main())
