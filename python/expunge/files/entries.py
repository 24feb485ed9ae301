"""The entries of a file, each of which is checked as it is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Float

MOST = 2**53  # of whatever is counted


class Entries:
    """Arrays by name, each of which is taken once."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str, kinds: str, *shape: int | None, finite: bool = True) -> NDArray[Any]:
        """One whose dtype is of one of these kinds, of that shape, None for any length."""
        if name not in self._arrays:
            raise ValueError(f"{name} is missing")
        array = self._arrays.pop(name)
        fits = len(shape) == array.ndim and all(
            m is None or m == n for m, n in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind not in kinds or not fits:
            raise ValueError(f"{name} has dtype {array.dtype} and shape {array.shape}")
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} contains NaN or infinity")
        return array

    def floats(self, name: str, *shape: int | None) -> Float:
        """One of float64."""
        array = self.array(name, "f", *shape)
        if array.dtype != np.float64:
            raise ValueError(f"{name} has dtype {array.dtype}")
        return np.ascontiguousarray(array)

    def value(self, name: str, kind: str, *, finite: bool = True) -> Any:
        """A scalar, as Python's."""
        array = self.array(name, kind, finite=finite)
        value = array.item()
        if isinstance(value, np.generic):  # long double, which has none
            raise ValueError(f"{name} has dtype {array.dtype}")
        return value

    def optional(self, name: str, kind: str, *, finite: bool = True) -> Any:
        """A scalar, or None if it is not there."""
        return self.value(name, kind, finite=finite) if name in self else None

    def count(self, name: str, most: int = MOST) -> int:
        """An integer >= 0."""
        value = int(self.value(name, "iu"))
        if value < 0:
            raise ValueError(f"{name} is negative")
        if value > most:
            raise ValueError(f"{name} is above {most}")
        return value

    def require_none_left(self) -> None:
        """Raises if there are entries that nobody asked for."""
        if self._arrays:
            raise ValueError(f"it has an unknown entry {next(iter(self._arrays))!r}")
