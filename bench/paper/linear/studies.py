"""Data of the experiments with linear models, and the requests that are made of them."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import expunge as ex

ALPHA = 1.0  # the source paper's, with rows of norm 1 and no intercept
URL_FEATURES_OF_WEIGHT = 120  # of Drebin's, among which those to revoke are drawn


@dataclass(frozen=True)
class Study:
    """Training and test rows with labels 0 and 1, and the columns that may have to go."""

    name: str
    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray
    sensitive: np.ndarray  # positions of columns
    counts: tuple  # how many of them are revoked at a time

    def model(self):
        """Trained on all rows."""
        return ex.LogisticRegression(ALPHA, fit_intercept=False).fit(self.X, self.y)


@dataclass(frozen=True)
class Asked:
    """A request, what the data are afterwards, and which rows or columns it is about."""

    kind: str
    amount: int
    request: Any
    X: Any
    y: np.ndarray
    columns: np.ndarray  # those that stay
    rows: np.ndarray  # those that it touches


def found_in_folder(name):
    folder = os.environ.get("EXPUNGE_DATA")
    return bool(folder) and (Path(folder) / name).exists()


def of_dataset(data, rows, counts, seed=0):
    """At most so many training rows of a data set."""
    kept = np.sort(np.random.default_rng(seed).permutation(data.X.shape[0])[:rows])
    every = np.arange(data.X.shape[1])
    sensitive = np.sort(data.sensitive_columns) if data.sensitive_features else every
    parts = data.X[kept], data.y[kept], data.X_test, data.y_test
    return Study(data.name, *parts, sensitive, counts)


def made(n, d, density=1.0, seed=0):
    """Rows of norm 1 whose labels follow a tenth of the columns; CSR below a density of 1."""
    rng = np.random.default_rng(seed)
    tests = max(200, n // 4)
    if density < 1.0:
        X = sparse.random_array((n + tests, d), density=density, rng=rng, format="csr")
        X.data[:] = 1.0
        lengths = np.sqrt(np.maximum(np.diff(X.indptr), 1.0))
        X = sparse.csr_array(sparse.diags_array(1.0 / lengths) @ X)
    else:
        X = rng.standard_normal((n + tests, d))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    weights = np.zeros(d)
    chosen = rng.choice(d, max(1, d // 10), replace=False)
    weights[chosen] = 8.0 * rng.standard_normal(chosen.size)
    y = (rng.random(n + tests) < 1.0 / (1.0 + np.exp(-(X @ weights)))) * 1.0
    name = f"made, {n:,} x {d:,}{'' if density == 1.0 else f', {100 * density:g} % filled'}"
    counts = tuple(sorted({1, max(1, d // 30), max(1, d // 10)}))
    return Study(name, X[:n], y[:n], X[n:], y[n:], chosen, counts)


def studies(quick):
    """Adult and Drebin where they are, else what scikit-learn bundles and made data."""
    unit = {"row_norm": "unit"}
    found = []
    if found_in_folder("adult.npz"):
        found.append(of_dataset(ex.datasets.load_adult(**unit), 5_000 if quick else 10**9, (1, 3, 15)))
    if found_in_folder("drebin.npz"):
        found.append(drebin(5_000 if quick else 10**9))
    if not found:
        data = ex.datasets.load_breast_cancer(standardize=True, **unit)
        found.append(of_dataset(data, 10**9, (1, 3, 10)))
        found.append(made(4_000 if quick else 20_000, 100))
    return found


def from_file(path, target, sensitive):
    """Any CSV or NPZ file with named columns; without a target one of vectors, which are left as they are."""
    options = {"sensitive": sensitive or (), "standardize": target is not None, "row_norm": "unit"}
    data = ex.datasets.load_file(path, target=target, **options)
    d = len(data.sensitive_features) or data.X.shape[1]
    return [of_dataset(data, 10**9, tuple(sorted({1, max(1, d // 4), max(1, d // 2)})))]


def drebin(rows):
    """With the URL features of largest weight as those that may have to go."""
    study = of_dataset(ex.datasets.load_drebin(row_norm="unit"), rows, (10, 50, 100))
    weights = np.abs(study.model().coef_[0][study.sensitive])
    heaviest = study.sensitive[np.argsort(-weights)[:URL_FEATURES_OF_WEIGHT]]
    return Study(study.name, study.X, study.y, study.X_test, study.y_test, np.sort(heaviest), study.counts)


def revoke(study, count, seed):
    chosen = np.sort(np.random.default_rng(seed).choice(study.sensitive, count, replace=False))
    stay = np.setdiff1d(np.arange(study.X.shape[1]), chosen)
    column = np.abs(study.X[:, chosen]).sum(axis=1)
    request = ex.RevokeFeatures(chosen)
    return Asked("revoke columns", count, request, study.X[:, stay], study.y, stay, np.flatnonzero(column))


def remove(study, count, seed):
    rows = np.sort(np.random.default_rng(seed).permutation(study.X.shape[0])[:count])
    left = np.setdiff1d(np.arange(study.X.shape[0]), rows)
    columns = np.arange(study.X.shape[1])
    return Asked("remove rows", count, ex.RemoveRows(rows), study.X[left], study.y[left], columns, rows)


def correct_labels(study, share, seed):
    """Labels of a share of rows are the other ones: what is asked for, and what retraining then learns."""
    count = max(1, round(share * study.X.shape[0]))
    rows = np.sort(np.random.default_rng(seed).permutation(study.X.shape[0])[:count])
    y = study.y.copy()
    y[rows] = 1.0 - y[rows]
    request = ex.CorrectLabels(rows, y[rows])
    return Asked("correct labels", count, request, study.X, y, np.arange(study.X.shape[1]), rows)


def replace_values(study, count, seed):
    """Cells of one column become 0 in so many rows; where no column has so many, in all of the fullest."""
    rng = np.random.default_rng(seed)
    filled = np.asarray((study.X[:, study.sensitive] != 0).sum(axis=0)).ravel()
    column = int(rng.choice(study.sensitive[filled >= min(count, filled.max())]))
    stored = np.flatnonzero(np.abs(study.X[:, [column]]).sum(axis=1))
    rows = np.sort(rng.permutation(stored)[:count])
    X = study.X.tolil() if sparse.issparse(study.X) else study.X.copy()
    X[rows, column] = 0.0
    X = sparse.csr_array(X) if sparse.issparse(study.X) else X
    request = ex.CorrectValues(rows, [column], 0.0)
    return Asked("replace values", rows.size, request, X, study.y, np.arange(study.X.shape[1]), rows)


REQUESTS = {
    "revoke columns": revoke,
    "remove rows": remove,
    "correct labels": correct_labels,
    "replace values": replace_values,
}


def asked(kind, study, amount, seed):
    return partial(REQUESTS[kind], study, amount, seed)()
