"""Parameters of scikit-learn's models that have another name here."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self


class AsksForAlpha:
    """The last base of an estimator, so that the signature stays that of its __init__."""

    def __new__(cls, *arguments: Any, **parameters: Any) -> Self:
        """TypeError where C is given."""
        if "C" in parameters:
            C = parameters["C"]
            here = f", here alpha={1.0 / float(C):g}" if isinstance(C, Real) and float(C) > 0 else ""
            raise TypeError(f"{cls.__name__} takes the penalty, not its inverse C: pass alpha=1/C{here}")
        return super().__new__(cls)
