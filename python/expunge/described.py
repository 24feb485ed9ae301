"""What an Unlearner says of itself, without a look at its rows."""

from __future__ import annotations

from dataclasses import replace
from threading import RLock
from typing import Any, NoReturn

from ._html import table
from .engine.entry import OnEntry
from .engine.fitted import Fitted
from .release import Budget, NoBudget

__all__ = ["Described"]


class Described:
    """What was chosen at construction, and stays: certificates rest on it. And how it looks when printed."""

    _fitted: Fitted
    _lock: RLock
    _budget: Budget | NoBudget
    _theta_bound: float
    _on_entry: OnEntry

    @property
    def model(self) -> Any:
        """The object that was passed in."""
        return self._fitted.model

    @property
    def tolerance(self) -> float:
        """What certificates rest on, and where `within` is None what the norm of the gradient is at most."""
        return self._fitted.engine.tolerance

    @property
    def within(self) -> float | None:
        """How far from retraining the model is at most, in standard errors; None: `tolerance` says."""
        return self._fitted.engine.promise.within

    @property
    def theta_bound(self) -> float:
        """What no released coefficient exceeds."""
        return self._theta_bound

    @property
    def residual_on_entry(self) -> float:
        """Norm of the gradient of the model as it came, or the next power of two; see the class."""
        return self._told().residual

    @property
    def distance_on_entry(self) -> float | None:
        """How far the model came from the minimum on the data, or the next power of two; see the class."""
        return self._told().distance

    def _told(self) -> OnEntry:
        return self._on_entry.rounded() if self._fitted.engine.data.changed else self._on_entry

    @property
    def budget(self) -> Budget | None:
        """What the noise in the objective is good for and how much of it is taken; None without a promise.

        See `epsilon`, `delta` and `on_exhausted` at construction.
        """
        with self._lock:
            budget = self._budget
            return (
                replace(budget, spent=self._fitted.engine.state.profile)
                if isinstance(budget, Budget)
                else None
            )

    @property
    def attached(self) -> bool:
        """Whether the rows are here; after :meth:`Unlearner.detach` only statistics are."""
        return self._fitted.engine.attached

    def _shown(self) -> dict[str, Any]:
        """Sizes and settings, no values of the data."""
        data = self._fitted.engine.data
        return {
            "model": type(self.model).__name__,
            "rows": int(data.counts.sum()),
            "features": data.n_columns,
            "attached": self.attached,
            **({"tolerance": f"{self.tolerance:.3g}"} if self.within is None else {"within": self.within}),
        }

    def __repr__(self) -> str:
        return f"Unlearner({', '.join(f'{name}={value}' for name, value in self._shown().items())})"

    def _repr_html_(self) -> str:
        return table("Unlearner", self._shown())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "an Unlearner is neither copied nor pickled, as two of them would change one model: save() it to "
            "a file, and Unlearner.load() a second one from there"
        )
