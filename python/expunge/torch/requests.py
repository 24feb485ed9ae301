"""Requests to a network, beside RemoveRows, CorrectLabels and CorrectValues of :mod:`expunge.requests`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine.by_value import DetachedData
from ..engine.data import CorrectedData
from ..requests import Encode, Named, Request

__all__ = ["ForgetValues", "RevokeFeatures"]


class _OfNetworks(Request):
    def edit(self, data: CorrectedData | DetachedData, encode: Encode) -> Named:
        """Linear models have requests of their own."""
        raise TypeError(f"expunge.torch.{type(self).__name__} is a request to expunge.torch.Unlearner")


@dataclass(frozen=True, eq=False, repr=False)
class RevokeFeatures(_OfNetworks):
    """Columns hold the same in every row, so that they tell nothing. The architecture stays as it is.

    Parameters
    ----------
    columns : int, sequence of int, boolean mask, slice, or tuple of these
        What of one row is meant, as ``row[columns]`` would take it: a tuple where a row has more dimensions.
    fill : float or array
        What the columns hold from now on; it is cast to the dtype of X. No training shrinks an architecture,
        so there has to be something: 0, a mean, the number of an unknown token.

    Examples
    --------
    >>> from expunge.torch import RevokeFeatures
    >>> RevokeFeatures([3, 7], fill=0.0)
    RevokeFeatures(columns=<2>, fill=<1>)
    """

    columns: Any
    fill: Any = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class ForgetValues(_OfNetworks):
    """Values that the module predicts, as tokens of a text, must no longer be preferred to others.

    Correcting a text does not make a network forget what stood there: the corrected text has no gradient
    about it. This request says what is to be forgotten.

    Parameters
    ----------
    rows : sequence of int, boolean mask, slice or int
        Every row that shows the values. Where rows are consecutive windows of one text, give each of them.
    mask : (m, ...) array of bool, or a list of arrays
        For each of these rows, which entries of its target y are meant.
    alternatives : (k,) array, or (k, m, ...), optional
        Values that might as well have stood there, for all entries or for each: a digit for a digit.
        Corrected values are drawn from them, and so are the control values that tell when enough is
        forgotten. By default they are what the module itself holds likely there, but for the value.

    Examples
    --------
    >>> from expunge.torch import ForgetValues
    >>> ForgetValues([4], [[False, True, True]], alternatives=range(10))
    ForgetValues(rows=<1>, mask=<1 x 3>, alternatives=<10>)
    """

    rows: Any
    mask: Any
    alternatives: Any = None
