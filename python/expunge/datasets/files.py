"""Files of the user's: tables with named columns (CSV, NPZ) and vectors ready to fit (NPZ)."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._arrays import Float, as_real
from .dataset import Dataset, split, targets

MOST_LEVELS = (
    1000  # of a column of text: more are names or free text, of which one-hot columns are no features
)
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True, eq=False)
class Table:
    """Numeric columns beside a target; one-hot columns remember the column of the file they come from."""

    title: str
    X: Float  # (n, d)
    y: NDArray[Any]  # text where there are two classes
    names: list[str]
    source: list[str]  # of each of the d columns

    def columns_of(self, name: str) -> list[int]:
        """Positions of the columns made from a column of the file."""
        found = [j for j, source in enumerate(self.source) if source == name]
        if not found:
            raise ValueError(
                f"{self.title}: no column {name!r}, there are {', '.join(dict.fromkeys(self.source))}"
            )
        return found


# --- tables


def read_csv(path: Path, target: str, drop: Iterable[str] = ()) -> Table:
    """A CSV file with a header; columns that are not numbers become one-hot columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): save it in that encoding") from None
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty: a header and rows are needed")
    header, *rows = lines
    ragged = [i for i, row in enumerate(rows) if len(row) != len(header)]
    if not rows or ragged:
        where = f"row {ragged[0] + 1} has {len(rows[ragged[0]])} cells" if ragged else "there are no rows"
        raise ValueError(f"{path}: {where}, expected {len(header)} cells under the header")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns have one name: rename them")
    return table(path, dict(zip(header, zip(*rows, strict=True), strict=True)), target, drop)


def read_table(path: Path, target: str, drop: Iterable[str] = ()) -> Table:
    """An NPZ file of one array for each column; those of text become one-hot columns."""
    arrays = read_npz(path)
    if len({array.shape for array in arrays.values()}) != 1 or any(a.ndim != 1 for a in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{path}: expected arrays of one shape (n,), a column each, got {shapes or 'none'}")
    return table(path, {name: array.tolist() for name, array in arrays.items()}, target, drop)


def table(path: Path, cells: Mapping[str, Sequence[Any]], target: str, drop: Iterable[str]) -> Table:
    """Named columns of numbers or text, one of them the target."""
    left_out = {target, *drop}
    for name in left_out:
        if name not in cells:
            raise ValueError(f"{path}: no column {name!r}, there are {', '.join(cells)}")
    columns: list[Float] = []
    names: list[str] = []
    source: list[str] = []
    for name in [name for name in cells if name not in left_out]:
        values = _numbers(path, name, cells[name])
        made = {name: values} if values is not None else _one_hot(path, name, cells[name])
        columns += made.values()
        names += made
        source += [name] * len(made)
    if not columns:
        raise ValueError(f"{path}: no column is left beside the target")
    return Table(path.name, np.column_stack(columns), _target(path, target, cells[target]), names, source)


def _numbers(path: Path, name: str, cells: Sequence[Any]) -> Float | None:
    """The cells as numbers; None where they are text."""
    values = np.array([_number(cell) for cell in cells])
    wrong = np.flatnonzero(~np.isfinite(values)).tolist()
    if not wrong:
        return values
    if any(np.isnan(values[i]) and str(cells[i]).lower() not in MISSING for i in wrong):
        return None
    raise ValueError(
        f"{path}: {len(wrong)} of {values.size} cells of column {name!r} are missing or infinite "
        f"({cells[wrong[0]]!r}) where the others are numbers: fill them in, or leave out their rows or the "
        "column"
    )


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except ValueError:
        return nan


def _one_hot(path: Path, name: str, cells: Sequence[Any]) -> dict[str, Float]:
    values = np.array(cells, dtype=str)
    levels = np.unique(values)
    if levels.size > MOST_LEVELS:
        raise ValueError(
            f"{path}: column {name!r} has {levels.size:,} different texts, and {MOST_LEVELS:,} become "
            "one-hot columns at most: leave the column out, or make features of it"
        )
    return {f"{name}={level}": (values == level).astype(np.float64) for level in levels}


def _target(path: Path, name: str, cells: Sequence[Any]) -> NDArray[Any]:
    """Numbers, or the text of two classes."""
    values = _numbers(path, name, cells)
    if values is not None:
        return values
    classes = np.unique(np.array(cells, dtype=str))
    if classes.size != 2:
        raise ValueError(
            f"{path}: the target {name!r} has {classes.size} classes: two, or numbers, are needed"
        )
    return np.array(cells, dtype=str)


# --- vectors


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive, without pickles."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is no NPZ archive of arrays without pickles: {error}") from None


def has_vectors(path: Path) -> bool:
    """Whether a file holds rows ready to fit, not a table of named columns."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return bool({"X_train.npy", "train_indptr.npy"} & set(archive.namelist()))


def read_vectors(path: Path, name: str, **of_split: Any) -> Dataset:
    """Rows ready to fit, dense or CSR, as docs/datasets.md lists them; split where none are for tests."""
    arrays = read_npz(path)

    def array(key: str) -> NDArray[Any]:
        if key not in arrays:
            raise ValueError(f"{path} has no array {key!r}: docs/datasets.md lists what is needed")
        return arrays[key]

    def rows(part: str) -> Any:
        if "train_indptr" not in arrays:
            return as_real(array(f"X_{part}"), f"{path}: X_{part}")
        entries = tuple(array(f"{part}_{what}") for what in ("data", "indices", "indptr"))
        try:
            X = sparse.csr_array(
                (entries[0].astype(np.float64), *entries[1:]), shape=tuple(array(f"{part}_shape").tolist())
            )
            X.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"{path}: {part}_indptr, {part}_indices, {part}_data: {error}") from None
        X.sum_duplicates()
        return X

    X, y = rows("train"), array("y_train")
    names = tuple(array("feature_names").tolist())
    sensitive = tuple(arrays["sensitive_features"].tolist()) if "sensitive_features" in arrays else ()
    if not {"X_test", "test_indptr", "y_test"} & set(arrays):
        return split(name, path.name, X, y, names, sensitive, **of_split)
    both = targets(np.concatenate([y, array("y_test")]), path.name)
    y, y_test = both[: y.size], both[y.size :]
    if np.unique(y).size <= 2 and not np.isin(y_test, y).all():
        raise ValueError(f"{path}: y_test has classes that y_train has not")
    return Dataset(name, path.name, X, y, rows("test"), y_test, names, sensitive)
