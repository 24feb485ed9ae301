"""Numbers that a caller gives: the one place that checks them."""

from __future__ import annotations

from math import frexp, inf, ldexp, nan
from numbers import Integral, Real
from typing import Any

import numpy as np


def as_number(value: Any, name: str, *, above: float | None = None, below: float = inf) -> float:
    """A finite number as float, at least 0 or between the bounds.

    Parameters
    ----------
    value : object
    name : str
        How the error calls it.
    above, below : float, optional
        Bounds that the number may not reach.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        `value` is no real number, NaN, infinite, or not within the bounds.

    Examples
    --------
    >>> as_number(2, "tolerance"), as_number(0.5, "delta", above=0, below=1)
    (2.0, 0.5)
    >>> as_number(0, "alpha", above=0)
    Traceback (most recent call last):
    ...
    ValueError: alpha must be a finite number > 0, got 0
    """
    number = float(value) if isinstance(value, Real) else nan
    if (number >= 0.0 if above is None else number > above) and number < below:
        return number
    least = ">= 0" if above is None else f"> {above:g}"
    wanted = f"finite number {least}" if below == inf else f"number above {above:g} and below {below:g}"
    raise ValueError(f"{name} must be a {wanted}, got {value!r}")


def as_count(value: Any, name: str, *, least: int = 1) -> int:
    """An integer of at least so much; ValueError for anything else, True and 2.0 included.

    Examples
    --------
    >>> as_count(np.int64(3), "shards")
    3
    >>> as_count(0, "shards")
    Traceback (most recent call last):
    ...
    ValueError: shards must be an integer >= 1, got 0
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def as_flag(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy; ValueError for anything else, as "False" and [0] count as true.

    Examples
    --------
    >>> as_flag("False", "fit_intercept")
    Traceback (most recent call last):
    ...
    ValueError: fit_intercept must be True or False, got 'False'
    """
    if value is True or value is False or isinstance(value, np.bool_):
        return bool(value)
    raise ValueError(f"{name} must be True or False, got {value!r}")


def power_of_two_above(value: float) -> float:
    """The least power of two that is no less: what is kept of a bound when a row of it has left."""
    if not 0.0 < value < inf:
        return value
    mantissa, exponent = frexp(value)
    if mantissa == 0.5:
        return value
    return ldexp(1.0, exponent) if exponent < 1024 else inf
