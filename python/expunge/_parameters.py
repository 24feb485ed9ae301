"""The parameters of the kernels and of their NumPy twins: each is described here, once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["documented"]

_ENTRIES = """\
before, after : tuple (X, y) or (X, y, sample_weight), or None
    The touched rows on either side, X of shape (m, d). None: no rows, as before rows are added or after
    they are removed. The numbers of rows may differ. Where both sides hold the very same array X, as
    when labels or weights change, each row enters as one difference, which loses no digits.
X : (n, d) array
w : (n,) array
    Weights of any sign.
H : (p, p) array
    Symmetric positive definite; the lower triangle is read.
y : (n,) array
    Real for the squared loss, 0 or 1 for the logistic, from 0 to 1 for the fractional, 0 or above for the
    others, above 0 for tweedie(2.0).
theta : (p,) array
    p = d, or d + 1 with the intercept last.
v : (p,) array
alpha : float or (d,) array
    Penalty lambda >= 0, on the sum scale.
loss : {"squared", "logistic", "fractional", "poisson"}, or "tweedie(p)", 1 < p <= 2
    "tweedie(2.0)" is gamma regression; the last two have means exp(eta).
sample_weight : (n,) array, optional
    Weights >= 0; by default 1 for every row.
fit_intercept : bool
noise : (d,) array, optional
    The b of E1: ``b @ theta`` joins J.
"""

_Documented = TypeVar("_Documented", bound=Callable[..., Any])


def documented(function: _Documented) -> _Documented:
    """Adds the section Parameters to a docstring, in front of its first section."""
    names = list(inspect.signature(function).parameters)
    entries = [entry for entry in re.split(r"\n(?=\w)", _ENTRIES.strip()) if {*names} & {*_names_of(entry)}]
    entries.sort(key=lambda entry: min(names.index(name) for name in _names_of(entry) if name in names))
    section = "\n".join(["Parameters", "----------", *entries])
    docstring = inspect.cleandoc(function.__doc__ or "")  # "" under python -OO
    function.__doc__ = re.sub(
        r"^(?=\w+\n---)", lambda _: f"{section}\n\n", docstring, count=1, flags=re.MULTILINE
    )
    return function


def _names_of(entry: str) -> list[str]:
    return entry.partition(" : ")[0].split(", ")
