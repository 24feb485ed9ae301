"""Requests a second, by strategy and size of the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import cycle
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import Float, as_real
from .._numbers import as_number
from .display import Display

MARKERS, LINES = "os^Dv*PX", ("-", "--", ":", "-.")  # told apart without colours


class ThroughputDisplay(Display):
    """Requests a second of several strategies against the size of the data, both on logarithmic axes.

    Parameters
    ----------
    series : mapping from name to (sizes, rates)
        Two (k,) arrays of positive numbers for each strategy.
    against : {"n", "d"}
        What the sizes are: rows or columns.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        One for each strategy, in order.
    ax_, figure_ : matplotlib Axes and Figure

    Raises
    ------
    ValueError
        No strategies, sizes and rates of different lengths, or numbers that are not positive.

    Examples
    --------
    >>> from expunge.plots import ThroughputDisplay
    >>> display = ThroughputDisplay({"exact": ([100, 1000], [2e4, 9e3]), "retraining": ([100], [40.0])})
    >>> list(display.series)
    ['exact', 'retraining']
    """

    lines_: list[Any]

    def __init__(
        self, series: Mapping[str, tuple[ArrayLike, ArrayLike]], *, against: Literal["n", "d"] = "n"
    ) -> None:
        if against not in ("n", "d"):
            raise ValueError(f"against must be 'n' or 'd', got {against!r}")
        if not series:
            raise ValueError("there is no strategy to draw")
        self.series: dict[str, tuple[Float, Float]] = {}
        self.against = against
        for name, (sizes, rates) in series.items():
            x, y = as_real(sizes, "sizes"), as_real(rates, "rates")
            if x.ndim != 1 or x.shape != y.shape or not x.size:
                raise ValueError(
                    f"{name}: sizes have shape {x.shape} and rates {y.shape}, expected (k,) twice"
                )
            if not ((x > 0.0).all() and (y > 0.0).all() and np.isfinite([x, y]).all()):
                raise ValueError(f"{name}: sizes and rates must be positive and finite")
            self.series[name] = (x, y)

    @classmethod
    def from_results(
        cls,
        records: Any,
        *,
        against: Literal["n", "d"] = "n",
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Of measurements; of several at one size the median is drawn.

        Parameters
        ----------
        records : iterable of mappings or objects, or frame of pandas
            Each has `strategy`, `n`, `d`, `seconds`, and `requests`, how many they took (1 where it is
            missing). Rows of a CSV file will do. Strategies that were run at several sizes of the other kind
            become a line for each.
        against : {"n", "d"}
            Rows or columns along the axis.
        ax, **options
            As of :meth:`plot`.

        Returns
        -------
        ThroughputDisplay

        Raises
        ------
        ValueError
            No records, one that lacks a field, or has something other than a positive number in it.
        ImportError
            matplotlib is not installed.
        """
        if against not in ("n", "d"):
            raise ValueError(f"against must be 'n' or 'd', got {against!r}")
        other = "d" if against == "n" else "n"
        rates: defaultdict[tuple[str, float], defaultdict[float, list[float]]]
        rates = defaultdict(lambda: defaultdict(list))
        for record in _each(records):
            size, held, seconds = (_positive(record, field) for field in (against, other, "seconds"))
            rate = _positive(record, "requests", 1.0) / seconds
            rates[str(_field(record, "strategy")), held][size].append(rate)
        strategies = [strategy for strategy, _ in rates]
        series = {}
        for (strategy, held), found in rates.items():
            name = strategy if strategies.count(strategy) == 1 else f"{strategy}, {other} = {held:,.0f}"
            sizes = sorted(found)
            series[name] = (sizes, [float(np.median(found[size])) for size in sizes])
        return cls(series, against=against).plot(ax, **options)

    def plot(self, ax: Any = None, **options: Any) -> Self:
        """Draws a line for each strategy, told apart by markers and dashes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure's by default.
        **options
            Of matplotlib's plot, for every line.

        Returns
        -------
        ThroughputDisplay

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        ax = self._axes(ax)
        looks = zip(cycle(MARKERS), cycle(LINES), self.series.items())
        self.lines_ = [
            ax.loglog(sizes, rates, **({"marker": marker, "linestyle": line, "label": name} | options))[0]
            for marker, line, (name, (sizes, rates)) in looks
        ]
        ax.set(xlabel="rows n" if self.against == "n" else "columns d", ylabel="requests a second")
        ax.legend()
        return self


def _each(records: Any) -> Any:
    return records.to_dict("records") if hasattr(records, "to_dict") else records


def _field(record: Any, name: str, default: Any = None) -> Any:
    value = record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)
    if value is None and default is None:
        raise ValueError(f"a record has no {name!r}: each needs strategy, n, d and seconds")
    return default if value is None else value


def _positive(record: Any, name: str, default: float | None = None) -> float:
    value = _field(record, name, default)
    return as_number(float(value) if isinstance(value, str) else value, name, above=0.0)
