"""Data sets of the field with named columns: from local files, as scikit-learn ships them, or from OpenML.

An import fetches nothing, and nothing is fetched that a local file has. docs/datasets.md lists all of them.
"""

from .dataset import Dataset
from .loaders import (
    load_adult,
    load_breast_cancer,
    load_diabetes_pima,
    load_digits,
    load_drebin,
    load_enron,
    load_file,
)

__all__ = [
    "Dataset",
    "load_adult",
    "load_breast_cancer",
    "load_diabetes_pima",
    "load_digits",
    "load_drebin",
    "load_enron",
    "load_file",
]
