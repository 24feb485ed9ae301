"""Class labels and other texts in a file, without Python objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .entries import Entries


def as_text(values: list[str], what: str) -> NDArray[np.str_]:
    """Texts as an array; TypeError where NumPy would change one."""
    array = np.array(values, dtype=np.str_)
    if array.tolist() != values:  # NumPy drops zeros at the end
        raise TypeError(f"{what} ends in a zero character, which cannot be stored")
    return array


def labels_kept(classes: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Class labels without Python objects; whether they were such."""
    if classes.dtype.kind in "biuf":
        return classes, False
    labels = classes.tolist()
    if classes.dtype.kind not in "OU" or not all(isinstance(label, str) for label in labels):
        raise TypeError(
            f"class labels {labels} of dtype {classes.dtype} cannot be stored: bool, integers, floats and "
            "text can"
        )
    return as_text(labels, "a class label"), classes.dtype.kind == "O"


def classes_of(entries: Entries) -> NDArray[Any]:
    """The classes of a file, ascending."""
    classes, objects = entries.array("classes", "biufU", None), entries.value("classes.object", "b")
    if classes.size < 2 or (classes[1:] == classes[:-1]).any():
        raise ValueError(
            "the two classes are one" if classes.size == 2 else "classes are fewer than they say"
        )
    if not (classes[:-1] < classes[1:]).all() or (objects and classes.dtype.kind != "U"):
        raise ValueError("classes cannot be those of a model")
    return classes.astype(object) if objects else classes
