"""Whether two arguments of requests say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def same(one: Any, other: Any) -> bool:
    """Equal in shape and entries, whichever sequence holds them; a mask is no sequence of 0 and 1.

    Frames, Series and Index are equal to such alone, labels included; sparse matrices to sparse ones.

    Examples
    --------
    >>> same([3, 7], np.array([3, 7])), same([True, False], [1, 0]), same(None, [])
    (True, False, False)
    """
    if one is other:
        return True
    if isinstance(one, tuple) and isinstance(other, tuple):  # rows by value
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "equals") or hasattr(other, "equals"):
        return type(one) is type(other) and bool(one.equals(other))
    if sparse.issparse(one) or sparse.issparse(other):
        alike = sparse.issparse(one) and sparse.issparse(other) and one.shape == other.shape
        return alike and bool((one != other).nnz == 0)
    try:
        one, other = np.asarray(one), np.asarray(other)
    except ValueError:  # ragged
        return False
    masks = (one.dtype.kind == "b", other.dtype.kind == "b")
    return one.shape == other.shape and masks[0] == masks[1] and bool(np.all(one == other))
