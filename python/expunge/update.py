"""What one request did: an Update, which makes receipts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from time import perf_counter
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ._arrays import Float, Index
from ._html import table
from ._numbers import power_of_two_above
from .engine.state import Outcome
from .receipts import Record, issue
from .release import Certificate

__all__ = ["Update", "Updates"]

_BY_STEP: dict[str, Any] = {
    "method": "auto",
    "residual": None,
    "passes": 0,
    "settled": False,
    "hessian": None,
    "tau": None,
    "features_revoked": 0,
}


def _why_short(method: str) -> str:
    """Why what a method left is above what was promised."""
    if method not in ("auto", "exact"):
        return f"{method} promises nothing: method='auto' does"
    return "rounding may hide more: scale the columns of X to a size near 1, or promise less"


@dataclass(frozen=True)
class Update:
    """What one request did, so that a sceptic can check it.

    Attributes
    ----------
    method : {"auto", "exact", "second_order", "first_order"}
    step : (p,) array
        New theta minus old, over the surviving coordinates, intercept last.
    gradient_difference : (p,) array
        Gradient of the corrected objective minus that of the old one, both at the old theta, over the
        surviving coordinates (E3; for revoked features the old theta is cut down to them, E12).
    residual : float or None
        Norm of the gradient of the corrected objective at the new theta, from a pass over the corrected
        data; None where no pass was made.
    residual_bound : float
        What that norm is at most: proven, where theta is a step from an anchor (E9, E10, E26); else measured.
    distance : float
        From theta to the minimum, at most, in standard errors (E41): no coefficient, and no prediction, is
        further from retraining than so many standard errors of its own. Infinite where nothing is proven.
    settled : bool
        Whether iterations over the data took theta to the tolerance (E11), or steps of which a bound proves
        the last one, whose residual is not measured (E26).
    since_anchor : int
        Requests since the statistics were anchored, this one included; 0 if it anchored them anew, or where
        there are none.
    passes : int
        Passes over all rows: gradients, Hessian products, Hessians, rounding floors.
    hessian : {"corrected", "original"} or None
        Which Hessian a second-order update used (E5).
    tau : float or None
        Step size of a first-order update (E4).
    rows_touched : int
        Rows removed, added or corrected; rows not 0 in a revoked column. Detached, the larger side of each
        edit, and none for a revoked column.
    features_revoked : int
    seconds : float
        Wall time of the request.

    Notes
    -----
    For :meth:`receipt` it also remembers which rows, ids and columns the request named, and both thetas.

    gradient_difference is a multiple of a row that was removed, step shows ratios of it, and a residual or
    bound may be a multiple of its norm. So repr shows no vectors, and a pickle has neither vector (None), the
    next power of two as residual, residual_bound and distance, and no receipt: make that first.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> update = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0]))
    >>> update.method, update.step.shape, update.residual_bound < 1e-8
    ('auto', (2,), True)
    """

    method: str
    step: Float
    gradient_difference: Float
    residual: float | None
    residual_bound: float
    passes: int
    settled: bool = False
    since_anchor: int = 0
    distance: float = inf
    hessian: str | None = None
    tau: float | None = None
    rows_touched: int = 0
    features_revoked: int = 0
    seconds: float = 0.0
    _record: ClassVar[tuple[Any, ...] | None] = None  # a Record; no field, which repr and asdict would show

    @property
    def shortfall(self) -> str | None:
        """Why residual_bound or distance is above what the Unlearner promises; None where it is not.

        Of a pickled Update nothing is known.
        """
        kept = self._record is None or Record(*self._record).promise.is_kept(
            self.residual_bound, self.distance
        )
        return None if kept else _why_short(self.method)

    def _shown(self) -> dict[str, Any]:
        shown = {
            field.name: f"{value:.3g}" if isinstance(value, float) else value
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), np.ndarray | None)
        }
        return shown if self.shortfall is None else shown | {"shortfall": self.shortfall}

    def __repr__(self) -> str:
        return f"Update({', '.join(f'{name}={value}' for name, value in self._shown().items())})"

    def _repr_html_(self) -> str:
        return table("Update", self._shown())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {
            **vars(self),
            "step": None,
            "gradient_difference": None,
            "residual": None if self.residual is None else power_of_two_above(self.residual),
            "residual_bound": power_of_two_above(self.residual_bound),
            "distance": power_of_two_above(self.distance),
            "_record": None,
        }

    @classmethod
    def from_outcome(
        cls,
        outcome: Outcome,
        rows_touched: int,
        features_revoked: int,
        record: tuple[Any, ...],
        started: float,
    ) -> Self:
        """One that takes its time from here; without a call for each field, which would be of its time."""
        method, step, difference, residual, bound, passes, settled, since, distance, hessian, tau = outcome
        values = {
            "method": method,
            "step": step,
            "gradient_difference": difference,
            "residual": residual,
            "residual_bound": bound,
            "passes": passes,
            "settled": settled,
            "since_anchor": since,
            "distance": distance,
            "hessian": hessian,
            "tau": tau,
            "rows_touched": rows_touched,
            "features_revoked": features_revoked,
            "_record": record,
            "seconds": perf_counter() - started,
        }
        return cls._of(values)

    @classmethod
    def by_step(
        cls,
        step: Float,
        difference: Float,
        bound: float,
        distance: float,
        since: int,
        rows_touched: int,
        record: tuple[Any, ...],
        started: float,
    ) -> Self:
        """One of a request that a step from the anchor proves (E9, E10)."""
        values = {
            **_BY_STEP,
            "step": step,
            "gradient_difference": difference,
            "residual_bound": bound,
            "distance": distance,
            "since_anchor": since,
            "rows_touched": rows_touched,
            "_record": record,
            "seconds": perf_counter() - started,
        }
        return cls._of(values)

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        update = object.__new__(cls)
        object.__setattr__(update, "__dict__", values)
        return update

    def receipt(
        self, key: bytes | None = None, certificate: Certificate | None = None, note: str | None = None
    ) -> str:
        """What was asked and done, as JSON without any value of the data; docs/data.md lists its fields.

        It says kinds and counts of the requests, how theta was found and how well, with which software, and
        hashes of the model before and after, see :func:`expunge.receipts.state_hash`. The same update gives
        the same receipt: no time of day is in it.

        Parameters
        ----------
        key : bytes, optional
            16 or more, secret. Row numbers, ids, positions and names of columns then go along as HMAC-SHA256
            under it, for :func:`expunge.receipts.find`; hashes of the model are made with it; and the whole
            receipt is sealed for :func:`expunge.receipts.verify`. Without a key rows and columns are only
            counted, and anybody can change the receipt.
        certificate : object with a method as_dict(), optional
            Of a release that was made after the update.
        note : str, optional
            Any text of yours, as it is: a case number, a date.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            A short key; or this update was made by hand or by dataclasses.replace, not by a request.
        TypeError
            A key that is not bytes; a certificate that does not go into JSON; a note that is not text.

        Examples
        --------
        >>> import json
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
        >>> update = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0]))
        >>> json.loads(update.receipt())["requests"]
        [{'kind': 'RemoveRows', 'rows': 1}]
        """
        if self._record is None:
            raise ValueError(
                "no request made this Update, or it has been pickled since: take the receipt of what apply "
                "returned"
            )
        return issue(vars(self), Record(*self._record), key, certificate, note)

    def __str__(self) -> str:
        how = self.method
        if self.hessian is not None:
            how += f" (hessian={self.hessian})"
        if self.tau is not None:
            how += f" (tau={self.tau:.3g})"
        residual = f"at most {self.residual_bound:.3g}" if self.residual is None else f"{self.residual:.3g}"
        return (
            f"Update: {how}\n"
            f"  rows touched {self.rows_touched}, features revoked {self.features_revoked}\n"
            f"  |step| {np.linalg.norm(self.step):.3g}\n"
            f"  residual {residual}, at most {self.distance:.3g} standard errors from retraining\n"
            f"  passes {self.passes}, {1e3 * self.seconds:.3g} ms"
        )


@dataclass(frozen=True, eq=False)
class Updates:
    """What a stream of requests did, one entry for each; see :meth:`expunge.Unlearner.apply_each`.

    Attributes
    ----------
    residual_bound, residual, distance : (m,) arrays
        As those of an :class:`Update`; residual is NaN where no pass was made.
    passes, rows_touched : (m,) arrays of int
    settled : (m,) array of bool
    thetas : list of (p,) arrays, or None
        Theta after each request, coefficients of surviving columns and the intercept last; None unless they
        were asked for.
    seconds : float
        Wall time of all.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    >>> updates = un.apply_each([ex.RemoveRows(0), ex.CorrectLabels(1, 0.5)])
    >>> len(updates), updates.passes, bool((updates.residual_bound < 1e-8).all())
    (2, array([0, 0]), True)
    """

    residual_bound: Float
    residual: Float
    distance: Float
    passes: Index
    rows_touched: Index
    settled: NDArray[np.bool_]
    thetas: list[Float] | None
    seconds: float
    _parts: ClassVar[Any] = ()  # what `receipt` needs beside the arrays, see engine/log.py
    _asked: ClassVar[Any] = None  # promise and method

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Whether each request is within what the Unlearner promises, (m,)."""
        residual, distance = self._asked[0].limits
        kept: NDArray[np.bool_] = (self.residual_bound <= residual) & (self.distance <= distance)
        return kept

    @property
    def shortfall(self) -> str | None:
        """Why some are not; None where all are."""
        return None if self.kept.all() else _why_short(self._asked[1])

    def __len__(self) -> int:
        return self.passes.size

    def __repr__(self) -> str:
        settled, passes = int(self.settled.sum()), int(self.passes.sum())
        return f"Updates({len(self)} requests, {settled} settled, {passes} passes, {self.seconds:.3g} s)"

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "Updates hold what requests named and what they did: make receipts, which may be kept"
        )

    def receipt(self, number: int, key: bytes | None = None, note: str | None = None) -> str:
        """The receipt of one request, as :meth:`Update.receipt` of it would be.

        Parameters
        ----------
        number : int
            Of the request, from 0 on.
        key, note : as of :meth:`Update.receipt`

        Raises
        ------
        ValueError
            The stream was applied without ``thetas=True``, which a receipt hashes.
        """
        if self.thetas is None:
            raise ValueError(
                "a receipt hashes theta before and after its request: apply_each(..., thetas=True)"
            )
        first = 0
        for part in self._parts if 0 <= number < len(self) else ():
            if number - first < part.table.size:
                fields, record = part.told(number - first)
                return issue(fields, Record(*record), key, None, note)
            first += part.table.size
        raise IndexError(f"there is no request {number}: they are 0 to {len(self) - 1}")
