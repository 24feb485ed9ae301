"""One function for each data set: where it comes from, and which columns are sensitive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from .._extras import extra
from .dataset import Dataset, RowNorm, as_names, scaled, split, unit_rows
from .files import has_vectors, read_csv, read_table, read_vectors

Folder = str | os.PathLike[str] | None


class OpenML(NamedTuple):
    """A data set of openml.org, in one version."""

    data_id: int
    name: str
    version: int

    def __str__(self) -> str:
        return f"OpenML {self.data_id} ({self.name}, version {self.version})"


ADULT = OpenML(1590, "adult", 2)
PIMA = OpenML(37, "diabetes", 1)

# Adult as in the source paper: what its columns are made of, and how many rows are for tests.
NUMERIC = ["age", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
TEXT = ["workclass", "marital-status", "occupation", "relationship", "race", "sex", "native-country"]
SENSITIVE = ["marital-status", "relationship", "race"]
N_TEST, POSITIVE_IN_TEST = 16_281, 3_846


# --- where files lie, and what is fetched


def local(file: str, folder: Folder) -> Path | None:
    """The file in the folder, or in that of EXPUNGE_DATA; None where it is not there."""
    named = os.environ.get("EXPUNGE_DATA") if folder is None else folder
    if not named:
        return None
    if not Path(named).is_dir():
        raise FileNotFoundError(
            f"the folder {os.fspath(named)!r} does not exist: "
            + ("EXPUNGE_DATA" if folder is None else "folder=")
            + f" has to name the one with {file}"
        )
    path = Path(named) / file
    return path if path.is_file() else None


def needed(name: str, folder: Folder) -> Dataset:
    """A data set that is nowhere to be fetched from."""
    file = f"{name}.npz"
    path = local(file, folder)
    if path is None:
        raise FileNotFoundError(
            f"{file} was not found: name the folder that has it by folder= or by the environment variable "
            "EXPUNGE_DATA. docs/datasets.md says who gives the data out, and lists the arrays of the file"
        )
    return read_vectors(path, name)


def fetched(wanted: OpenML, file: str) -> tuple[Any, NDArray[Any]]:
    """Frame and target from OpenML, or from scikit-learn's cache of it; both are checked by scikit-learn."""
    extra("pandas")
    from sklearn.datasets import fetch_openml

    try:
        found = fetch_openml(data_id=wanted.data_id, as_frame=True)
    except OSError as error:
        raise OSError(
            f"{wanted} could not be fetched ({error}), and there is no {file}: name the folder that has it "
            "by folder= or by the environment variable EXPUNGE_DATA, or run once with a network"
        ) from error
    if (found.details["name"], str(found.details["version"])) != (wanted.name, str(wanted.version)):
        raise ValueError(f"{wanted} has become {found.details['name']} {found.details['version']}")
    return found.data, np.asarray(found.target)


# --- the data sets


def load_adult(folder: Folder = None, *, row_norm: RowNorm = None) -> Dataset:
    """UCI Adult: whether a person earns more than 50,000 a year; 32,561 + 16,281 rows.

    From ``adult.npz`` in the folder if it is there, else from OpenML. Either way columns are those of the
    source paper, five standardized numbers and one-hot columns without the most frequent level. Names
    and order may differ (OpenML has ``workclass_...``, the paper ``workClass_...``): `source` says which.

    Parameters
    ----------
    folder : path, optional
        By default the one that the environment variable EXPUNGE_DATA names.
    row_norm : {"unit"}, optional
        Scales each row to Euclidean norm 1, as the source paper does.

    Returns
    -------
    Dataset
        Sensitive are the columns of marital status, relationship and race.

    Raises
    ------
    OSError
        No local file, and OpenML cannot be reached.
    ImportError
        No local file, and pandas is not installed.
    ValueError
        A file that does not hold what it should.

    Examples
    --------
    >>> from expunge.datasets import load_adult
    >>> load_adult("no such folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: the folder 'no such folder' does not exist: folder= has to name the one with adult.npz
    """
    path = local("adult.npz", folder)
    data = read_vectors(path, "adult") if path else _adult(*fetched(ADULT, "adult.npz"))
    return scaled(data, row_norm)


def _adult(frame: Any, income: NDArray[Any]) -> Dataset:
    """Columns of the source paper, from OpenML's frame."""
    y = (income == ">50K").astype(np.float64)
    test = np.zeros(y.size, dtype=bool)
    test[:N_TEST] = True  # rows for tests come first, or else last
    if np.count_nonzero(y[test]) != POSITIVE_IN_TEST:
        test = test[::-1].copy()
    if np.count_nonzero(y[test]) != POSITIVE_IN_TEST:
        raise ValueError(f"{ADULT} has its rows in another order than expected: make adult.npz by hand")

    numbers = frame[NUMERIC].to_numpy(dtype=np.float64)
    columns, names = [unit_rows(StandardScaler().fit(numbers[~test]).transform(numbers))], list(NUMERIC)
    for name in TEXT:
        values = frame[name].astype(object)
        for level in values[~test].value_counts().index[1:]:  # most frequent first; missing ones are left out
            columns.append((values == level).to_numpy(dtype=np.float64)[:, None])
            names.append(f"{name}_{level}")
    X = np.hstack(columns)
    sensitive = tuple(name for name in names if name.partition("_")[0] in SENSITIVE)
    return Dataset("adult", str(ADULT), X[~test], y[~test], X[test], y[test], tuple(names), sensitive)


def load_diabetes_pima(
    folder: Folder = None, *, standardize: bool = False, row_norm: RowNorm = None, random_state: int = 0
) -> Dataset:
    """Pima Indians diabetes: whether a woman has diabetes; 768 rows of 8 numbers, 154 of them for tests.

    From ``pima.npz`` in the folder if it is there, else from OpenML.

    Parameters
    ----------
    folder : path, optional
        By default the one that the environment variable EXPUNGE_DATA names.
    standardize : bool
        Takes columns to mean 0 and variance 1 over the training rows.
    row_norm : {"unit"}, optional
        Scales each row to Euclidean norm 1, after that.
    random_state : int
        Of the split.

    Returns
    -------
    Dataset
        Sensitive are pregnancies, body mass and age (``preg``, ``mass``, ``age``).

    Raises
    ------
    OSError, ImportError, ValueError
        As of :func:`load_adult`.

    Examples
    --------
    >>> from expunge.datasets import load_diabetes_pima
    >>> load_diabetes_pima("no such folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: the folder 'no such folder' does not exist: folder= has to name the one with pima.npz
    """
    path = local("pima.npz", folder)
    if path is not None:
        data = read_vectors(path, "pima", random_state=random_state)
    else:
        frame, y = fetched(PIMA, "pima.npz")
        X = frame.to_numpy(dtype=np.float64)
        names, sensitive = frame.columns.tolist(), ("preg", "mass", "age")
        data = split("pima", str(PIMA), X, y, names, sensitive, random_state=random_state)
    return scaled(data, row_norm, standardize)


def load_breast_cancer(
    *, standardize: bool = False, row_norm: RowNorm = None, random_state: int = 0
) -> Dataset:
    """Breast cancer Wisconsin, which scikit-learn ships: 569 rows of 30 numbers, 114 of them for tests.

    Parameters
    ----------
    standardize, row_norm, random_state
        As of :func:`load_diabetes_pima`.

    Returns
    -------
    Dataset
        1 is benign.

    Examples
    --------
    >>> from expunge.datasets import load_breast_cancer
    >>> data = load_breast_cancer(standardize=True, row_norm="unit")
    >>> data.X.shape, data.X_test.shape, round(float(abs(data.X[0] @ data.X[0])), 12)
    ((455, 30), (114, 30), 1.0)
    """
    from sklearn import datasets

    found = datasets.load_breast_cancer()
    names = found.feature_names.tolist()
    data = split("breast_cancer", "scikit-learn", found.data, found.target, names, random_state=random_state)
    return scaled(data, row_norm, standardize)


def load_digits(
    classes: tuple[int, int] = (3, 8),
    *,
    standardize: bool = False,
    row_norm: RowNorm = None,
    random_state: int = 0,
) -> Dataset:
    """Two of the handwritten digits that scikit-learn ships: 64 pixels, 0 to 16; about 360 rows.

    Parameters
    ----------
    classes : two digits
        1 is the second of them. Three and eight are the pair of Guo et al. (ICML 2020), on MNIST.
    standardize, row_norm, random_state
        As of :func:`load_diabetes_pima`.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        Other than two different digits.

    Examples
    --------
    >>> from expunge.datasets import load_digits
    >>> load_digits()
    Dataset(digits 3 and 8 from scikit-learn: 285 + 72 rows, 64 columns, 0 of them sensitive)
    """
    from sklearn import datasets

    zero, one = classes
    if zero == one or not {zero, one} <= set(range(10)):
        raise ValueError(f"classes must be two different digits, got {classes!r}")
    found = datasets.load_digits()
    kept = np.isin(found.target, (zero, one))
    data = split(
        f"digits {zero} and {one}",
        "scikit-learn",
        found.data[kept],
        found.target[kept] == one,
        found.feature_names,
        random_state=random_state,
    )
    return scaled(data, row_norm, standardize)


def load_drebin(folder: Folder = None, *, row_norm: RowNorm = None) -> Dataset:
    """Drebin (Arp et al., NDSS 2014): whether an Android app is malware; binary features in CSR.

    From ``drebin.npz`` in the folder. Its authors give the data out on request.

    Parameters
    ----------
    folder, row_norm
        As of :func:`load_adult`.

    Returns
    -------
    Dataset
        X in CSR. Sensitive are what the file names so: URLs, in the source paper.

    Raises
    ------
    FileNotFoundError
        The file is not there.
    ValueError
        It does not hold what it should.

    Examples
    --------
    >>> from expunge.datasets import load_drebin
    >>> load_drebin("no such folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: the folder 'no such folder' does not exist: folder= has to name the one with drebin.npz
    """
    return scaled(needed("drebin", folder), row_norm)


def load_enron(folder: Folder = None, *, row_norm: RowNorm = None) -> Dataset:
    """Enron spam (Metsis et al., CEAS 2006): whether a mail is spam, by the words in it.

    From ``enron.npz`` in the folder.

    Parameters
    ----------
    folder, row_norm
        As of :func:`load_adult`.

    Returns
    -------
    Dataset
        Sensitive are what the file names so: names of persons, in the source paper.

    Raises
    ------
    FileNotFoundError
        The file is not there.
    ValueError
        It does not hold what it should.

    Examples
    --------
    >>> from expunge.datasets import load_enron
    >>> load_enron("no such folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: the folder 'no such folder' does not exist: folder= has to name the one with enron.npz
    """
    return scaled(needed("enron", folder), row_norm)


def load_file(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    sensitive: str | Iterable[str] = (),
    drop: str | Iterable[str] = (),
    standardize: bool = False,
    row_norm: RowNorm = None,
    test_size: float = 0.2,
    random_state: int = 0,
) -> Dataset:
    r"""Any CSV or NPZ file with named columns.

    A CSV file has a header. An NPZ file holds one array (n,) for each column, or the arrays of a vector file
    (docs/datasets.md). Columns of text become one-hot columns, ``town=Ulm`` of the column ``town``.

    Parameters
    ----------
    path : path
        Ending in .csv or .npz.
    target : str, optional
        The column to predict: two classes, or numbers. Not for a vector file, which has ``y_train``.
    sensitive : str or list of str
        Columns of the file. A vector file has names of its own, and takes these in their place.
    drop : str or list of str
        Columns of a table that are left out.
    standardize, row_norm, random_state
        As of :func:`load_diabetes_pima`; one-hot columns are not standardized.
    test_size : float
        Share of the rows for tests, where the file has none of its own.

    Returns
    -------
    Dataset
        Of two classes 1 is the larger, or the later in the alphabet.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is of another kind, lacks a column, or has missing or too many different values in one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from expunge.datasets import load_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "people.csv"
    ...     _ = file.write_text("age,town,buys\n" + 5 * "30,Ulm,no\n41,Rom,yes\n")
    ...     data = load_file(file, target="buys", sensitive=["town"])
    >>> data.feature_names, data.sensitive_features
    (('age', 'town=Rom', 'town=Ulm'), ('town=Rom', 'town=Ulm'))
    """
    path, sensitive, drop = Path(path), as_names(sensitive), as_names(drop)
    read = {".csv": read_csv, ".npz": read_table}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path} is neither .csv nor .npz: save it as one of them")
    if has_vectors(path):
        if target is not None or drop:
            raise ValueError(f"{path} holds vectors, whose target is y_train: leave out target and drop")
        data = read_vectors(path, path.stem, test_size=test_size, random_state=random_state)
        if sensitive:
            data = replace(data, sensitive_features=sensitive)
        return scaled(data, row_norm, standardize)
    if target is None:
        raise ValueError(f"{path} is a table: name the column to predict by target=")
    found = read(path, target, drop)
    data = split(
        path.stem,
        path.name,
        found.X,
        found.y,
        found.names,
        [found.names[j] for column in sensitive for j in found.columns_of(column)],
        test_size=test_size,
        random_state=random_state,
    )
    return scaled(data, row_norm, standardize)
