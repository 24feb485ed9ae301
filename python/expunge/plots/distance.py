"""How far a sequence of requests takes a model from retraining."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import as_real
from .._numbers import as_number
from ..update import Update, Updates
from .display import Display


class DistanceDisplay(Display):
    """Distance from retraining after each request, in standard errors at most (E41), beside what is promised.

    The axis is logarithmic: where nothing is proven, the distance is infinite and a triangle stands at the
    upper edge; where it is 0, one stands at the lower edge.

    Parameters
    ----------
    distances : (m,) array
        Of request 1, 2, ...
    within : float, optional
        What is promised, in standard errors: ``within`` of the Unlearner.

    Attributes
    ----------
    line_, promise_ : matplotlib Line2D
        promise_ is None without `within`.
    infinite_, zero_ : matplotlib Line2D or None
        The triangles, if there are any.
    ax_, figure_ : matplotlib Axes and Figure

    Raises
    ------
    ValueError
        No distances, or NaN, or below 0.

    Examples
    --------
    >>> from expunge.plots import DistanceDisplay
    >>> DistanceDisplay([1e-4, 3e-3, 0.02], within=0.01).kept
    2
    """

    line_: Any
    promise_: Any
    infinite_: Any
    zero_: Any

    def __init__(self, distances: ArrayLike, *, within: float | None = None) -> None:
        self.distances = as_real(distances, "distances")
        if self.distances.ndim != 1 or not self.distances.size:
            raise ValueError(
                f"distances has shape {self.distances.shape}, expected (m,), one for each request"
            )
        if not (self.distances >= 0.0).all():
            raise ValueError("distances must be at least 0: leave out what has none")
        self.within = None if within is None else as_number(within, "within", above=0.0)

    @property
    def kept(self) -> int:
        """How many requests kept the promise; all where there is none."""
        return int(np.count_nonzero(self.distances <= (np.inf if self.within is None else self.within)))

    @classmethod
    def from_updates(
        cls,
        updates: Update | Updates | Iterable[Update],
        *,
        within: float | None = None,
        name: str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Of what :meth:`expunge.Unlearner.apply` or :meth:`expunge.Unlearner.apply_each` returned.

        Parameters
        ----------
        updates : Updates, or list of Update
            In the order of the requests; anything with a number `distance` will do as an Update.
        within : float, optional
            What is promised, in standard errors: ``un.within``.
        name, ax, **options
            As of :meth:`plot`.

        Returns
        -------
        DistanceDisplay

        Raises
        ------
        ValueError
            No updates, or one whose distance is NaN.
        ImportError
            matplotlib is not installed.
        """
        if isinstance(updates, Updates):
            distances: Any = updates.distance
        elif isinstance(updates, Update):
            distances = [updates.distance]
        else:
            distances = [update.distance for update in updates]
        return cls(distances, within=within).plot(ax, name=name, **options)

    def plot(self, ax: Any = None, *, name: str | None = None, **options: Any) -> Self:
        """Draws the distances and the promise; several displays may share axes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure's by default.
        name : str, optional
            Of the line, in the legend.
        **options
            Of matplotlib's plot, for the line.

        Returns
        -------
        DistanceDisplay

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        ax = self._axes(ax)
        ax.set_yscale("log")
        number = np.arange(1, self.distances.size + 1)
        inside = np.isfinite(self.distances) & (self.distances > 0.0)
        style = {"marker": "o", "markersize": 3, "label": name or "distance, at most"} | options
        (self.line_,) = ax.plot(number, np.where(inside, self.distances, np.nan), **style)

        def at_edge(which: Any, height: float, marker: str, label: str) -> Any:
            if not which.any():
                return None
            return ax.plot(
                number[which],
                np.full(np.count_nonzero(which), height),
                marker=marker,
                linestyle="none",
                color=self.line_.get_color(),
                clip_on=False,
                transform=ax.get_xaxis_transform(),
                label=f"{label}: {np.count_nonzero(which)}",
            )[0]

        self.infinite_ = at_edge(np.isinf(self.distances), 1.0, "^", "nothing proven")
        self.zero_ = at_edge(self.distances == 0.0, 0.0, "v", "distance 0")
        self.promise_ = None
        if self.within is not None:
            kept = f"promised: {self.within:g}, kept by {self.kept} of {self.distances.size}"
            self.promise_ = ax.axhline(self.within, linestyle="--", color="black", label=kept)
        ax.set(xlabel="request", ylabel="standard errors from retraining")
        ax.legend()
        return self
