"""The engine's face: an Unlearner holds a fitted model and its data, and applies requests to both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import currentframe
from math import isfinite
from threading import RLock
from time import perf_counter
from typing import Any, ClassVar, Literal, NoReturn, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from . import _core
from ._arrays import Blocks, Float, as_matrix, as_noise, as_penalty, as_weights, frame_names, match_columns
from .adopt import Specification, encode_targets, specification
from .atomic import assign_all
from .data import CorrectedData, DetachedData, Touched
from .errors import (
    CertificateError,
    ConvergenceError,
    NotPositiveDefiniteError,
    RowsRequired,
    ToleranceExceeded,
)
from .linear import (
    LogisticRegression,
    Ridge,
    check_enough,
    check_solver,
    check_tolerance,
    choose_block,
    fit_again,
    fitted_attributes,
    in_low_dimension,
    minimize,
    noise_of,
    set_theta,
    theta_of,
)
from .losses import Loss, get_loss
from .noise import Noise, check_random_state
from .receipts import Record, issue, power_of_two_above, versions
from .release import (
    Against,
    Budget,
    Certificate,
    Measured,
    Mechanism,
    OnExhausted,
    Terms,
    best_intercept,
    check_theta_bound,
    measure,
    norm_factor,
    profile_residual,
)
from .requests import Request, RevokeFeatures
from .saved import Saved, naming, read, write
from .updates import first_order_update, gram_norm_bound, safe_tau, second_order_update

__all__ = ["Unlearner", "Update"]

Method = Literal["auto", "exact", "second_order", "first_order"]
Hessian = Literal["corrected", "original"]
METHODS, HESSIANS = get_args(Method), get_args(Hessian)

MAX_ITER = 200  # Newton iterations of one settle; a handful is usual
LINEAR_TOLERANCE = 1e-2  # relative, of a second-order step by conjugate gradients
MAX_PRODUCTS = 5000  # Hessian-vector products of such a step
_NONE = np.empty(0, dtype=np.int64)
PASSES_SAVED = 2.0  # by a request that an anchor serves without the data
SMALL = 256  # parameters up to which a factor is brought up to date with every request


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
        What that norm is at most: proven, where theta is the step from the anchor (E9, E10); else measured.
    settled : bool
        Whether iterations over the data took theta to the tolerance (E11).
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
    For :meth:`receipt` it also remembers which rows and columns the request named, and both thetas.

    gradient_difference is a multiple of a row that was removed, step shows ratios of it, and a residual or
    bound may be a multiple of its norm. So repr shows no vectors, and a pickle has neither vector (None), the
    next power of two as residual and residual_bound, and no receipt: make that first.

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
    hessian: str | None = None
    tau: float | None = None
    rows_touched: int = 0
    features_revoked: int = 0
    seconds: float = 0.0
    _record: ClassVar[tuple[Any, ...] | None] = None  # a Record; no field, which repr and asdict would show

    def __repr__(self) -> str:
        shown = {
            field.name: f"{value:.3g}" if isinstance(value, float) else value
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), np.ndarray | None)
        }
        return f"Update({', '.join(f'{name}={value}' for name, value in shown.items())})"

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
            "_record": None,
        }

    @classmethod
    def _of(cls, fields: dict[str, Any], record: tuple[Any, ...], started: float) -> Self:
        """One with these fields, which takes its time from here; without a call for each field."""
        update = object.__new__(cls)
        vars(update).update(fields, _record=record, seconds=perf_counter() - started)
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
            16 or more, secret. Row numbers, positions and names of columns then go along as HMAC-SHA256 under
            it, for :func:`expunge.receipts.find`; hashes of the model are made with it; and the whole receipt
            is sealed for :func:`expunge.receipts.verify`. Without a key rows and columns are only counted,
            and anybody can change the receipt.
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
        return issue(self, Record(*self._record), key, certificate, note)

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
            f"  residual {residual}, passes {self.passes}, {1e3 * self.seconds:.3g} ms"
        )


@dataclass(slots=True, eq=False)
class _State:
    """theta with J and its gradient there, and the anchored statistics of the current data (E8)."""

    theta: Float
    at: _core.Evaluation | None  # None: not measured, a bound vouches for theta
    anchor: _core.Anchor | None  # None: to be assembled when it is needed
    current: bool  # whether the anchor is the Hessian of the current data, at its own theta
    statistics: _core.AnchoredStatistics | None = None  # None: to be anchored anew once that pays
    since_anchor: int = 0  # requests
    spent: float = 0.0  # passes over the data since the anchor
    saved: float = 0.0  # passes that requests since the anchor did without
    gram_norm: float | None = None  # upper bound of |S^1/2 X|^2 when a first-order update last asked for it,
    gram_added: float = 0.0  # and what requests since may have added to it; of what left, powers of two
    published: Any = None  # a model of ours is as it was written while this is what it is fitted to
    profile: float = np.inf  # bound of the profile residual; kept where there is a budget


@dataclass(slots=True, eq=False)
class _Edit:
    """One request, staged in the data: D' is current, and nothing else has changed yet."""

    difference: _core.Evaluation | None  # E3 at the old theta, before coordinates drop; None: nothing changed
    statistics: _core.AnchoredStatistics | None  # of the corrected rows, before coordinates drop
    anchor: _core.Anchor | None  # of the corrected rows, before coordinates drop; None: to be assembled anew
    current: bool  # whether it is their Hessian
    kept: NDArray[np.bool_] | slice  # which coordinates of the old theta survive
    dropped: NDArray[np.int64]  # those that are revoked
    columns: NDArray[np.bool_]  # of X, before the request revoked any
    revoked_rows: NDArray[np.int64]  # rows now in the data that are not 0 in a revoked column
    gram_norm: float | None  # as in _State
    gram_added: float


@dataclass
class _Products:
    """A Hessian known by its products: solves by conjugate gradients, counting passes over the data."""

    objective: _core.Objective
    curvature: Float
    preconditioner: _core.Anchor
    tolerance: float
    relative: float
    passes: int = 0

    def solve(self, b: Float, /) -> Float:
        """H^-1 b, to an absolute or a relative residual, whichever is the larger."""
        target = max(self.tolerance, self.relative * float(np.linalg.norm(b)))
        x, products, converged = _core.solve(
            self.objective, self.curvature, b, self.preconditioner, target, MAX_PRODUCTS
        )
        self.passes += products
        if not converged:
            raise ConvergenceError(
                f"conjugate gradients did not reach a residual of {target:.3g} in {products} products: raise "
                "alpha, scale the columns of X, or use method='exact'"
            )
        return x


class _Verb:
    """A call of an Unlearner that needs data and model to belong together, under its lock.

    The lock keeps other threads out, but lets its own in: a signal handler, or what a request calls, may ask
    in the middle of another verb, and is refused. The mark of one that was interrupted may stay; then the
    stack tells.
    """

    def __init__(self) -> None:
        self._busy = False

    def __enter__(self) -> None:
        if self._busy and self._inside_another():
            raise RuntimeError(
                "this was called in the middle of a request of the same thread, by a signal handler or the "
                "like, where data and model do not belong together: ask after it"
            )
        self._busy = True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._busy = False

    def _inside_another(self) -> bool:
        frame, verbs = currentframe(), 0
        while frame is not None:
            if frame.f_code.co_filename == __file__ and frame.f_code.co_name in _VERBS:
                verbs += getattr(frame.f_locals.get("self"), "_verb", None) is self
            frame = frame.f_back
        return verbs > 1


_VERBS = frozenset(
    ("apply", "release", "detach", "attach", "save", "residual", "retrain", "corrected_data", "get_support")
)


class Unlearner:
    """Corrects a fitted linear model for what its data should not have held.

    Parameters
    ----------
    model : fitted Ridge or LogisticRegression
        Of expunge, or of scikit-learn (L2 penalty, binary, intercept not penalised; alpha or 1/C is lambda).
        It is updated in place, after a request has succeeded. Construction polishes it to `tolerance`.
    X : (n, d) array, sparse matrix or frame
        What the model was fitted to. A NumPy array of float32 or float64 in C or F order, or a SciPy CSR
        matrix of such numbers, columns ascending in each row and none twice, is held by reference: never
        copied whole, never modified, and not to be modified by others. Anything else is copied once. (A CSR
        matrix is copied without revoked columns once these hold most of its entries.)
    y : (n,) array
        Targets or labels, in the form that the model was fitted to.
    sample_weight : (n,) array, optional
    tolerance : float, default=1e-8
        Absolute bound on the Euclidean norm of the whole gradient, intercept included, on the sum scale.
        Where the rounding floor of the data (E19) is higher, iteration stops there and warns.
    column_index : bool, default=False
        For a sparse X: whether to keep which rows each column has entries in, one integer (4 or 8 bytes) for
        each entry. Revocations then find their rows without a look at every index of X.
    theta_bound : float, default=100.0
        What no released coefficient exceeds, for :meth:`release`. It, the tolerance and alpha are public:
        choose them without a look at what may have to be forgotten. They cannot be changed afterwards.
    epsilon, delta : float, optional
        What the noise in the objective of a LogisticRegression(noise=sigma) is to be good for (E15); together
        they make a `budget`.
    on_exhausted : {"settle", "retrain", "raise"}
        What a request does whose residual is above that budget: iterate to the tolerance, with the same
        noise; train anew with fresh noise; or raise CertificateError.

    Attributes
    ----------
    model : the object that was passed in
    residual_on_entry : float
        Norm of the gradient of the model as it came; once a request was granted, the next power of two, as
        its digits may be those of what has left.
    tolerance, theta_bound : float
        All four are read-only.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        A model or data that are not accepted; nothing is changed.

    See Also
    --------
    expunge.RemoveRows, expunge.AddRows, expunge.CorrectLabels, expunge.CorrectValues, expunge.RevokeFeatures
    expunge.Edit : for an Unlearner that was detached from its rows

    Examples
    --------
    >>> import expunge as ex
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = X / abs(X).max(axis=0)
    >>> un = ex.Unlearner(ex.LogisticRegression(alpha=1.0).fit(X, y), X, y)
    >>> update = un.apply([ex.RemoveRows([3, 7]), ex.CorrectLabels([12], 0)])
    >>> update.residual_bound <= un.tolerance
    True
    >>> update = un.apply(ex.RevokeFeatures([0, 5]))
    >>> un.model.predict(X[:, un.get_support()]).shape
    (569,)
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        tolerance: float = 1e-8,
        column_index: bool = False,
        theta_bound: float = 100.0,
        epsilon: float | None = None,
        delta: float | None = None,
        on_exhausted: OnExhausted = "settle",
    ) -> None:
        spec = specification(model)
        noise = noise_of(model)
        self._solver = (
            getattr(model, "solver", "auto") if isinstance(model, Ridge | LogisticRegression) else "auto"
        )
        self._memory_limit = getattr(model, "memory_limit", None)
        check_solver(self._solver, self._memory_limit)
        self._tolerance = check_tolerance(tolerance, "tolerance")
        self._theta_bound = check_theta_bound(theta_bound)
        self._budget = Budget.promised(epsilon, delta, on_exhausted, noise)
        theta = theta_of(model)
        if not np.isfinite(theta).all():
            raise ValueError("the model's coefficients contain NaN or infinity: refit it")
        names = getattr(model, "feature_names_in_", None)
        width = theta.size - spec.fit_intercept
        data = _rows(X, y, sample_weight, spec, width, names, column_index=column_index)

        self._model = model
        self._spec = spec
        self._encode = partial(encode_targets, spec=spec)
        self._column_index = bool(column_index)
        self._held: CorrectedData | DetachedData = data
        self._noise = noise
        objective = self._objective()
        block = self._block(objective, theta.size)
        at = objective.evaluate(theta)
        self._residual_on_entry = at.residual
        minimum = minimize(objective, theta, self.tolerance, MAX_ITER, start=at, block=block, stacklevel=3)
        anchor = _core.Anchor(objective, minimum.theta, block, minimum.at)
        statistics = self._statistics(objective, anchor, minimum.at, minimum.floor) if block is None else None
        self._lock, self._verb = RLock(), _Verb()
        state = _State(minimum.theta, _bare(minimum.at), anchor, True, statistics)
        if self._budget is not None:
            state.profile = self._profile(state, np.inf)
            self._budget.check(state.profile)
        self._state = state
        set_theta(model, minimum.theta, minimum.residual, noise=noise)
        self._state.published = getattr(model, "_fitted", None)

    # --- what was chosen at construction, and stays: certificates rest on it

    @property
    def model(self) -> Any:
        """The object that was passed in."""
        return self._model

    @property
    def tolerance(self) -> float:
        """What the norm of the gradient is at most after a request, on the sum scale."""
        return self._tolerance

    @property
    def theta_bound(self) -> float:
        """What no released coefficient exceeds."""
        return self._theta_bound

    @property
    def residual_on_entry(self) -> float:
        """Norm of the gradient of the model as it came, or the next power of two; see the class."""
        entry = self._residual_on_entry
        return power_of_two_above(entry) if self._held.changed else entry

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "an Unlearner is neither copied nor pickled, as two of them would change one model: save() it to "
            "a file, and Unlearner.load() a second one from there"
        )

    # --- requests

    def apply(
        self,
        request: Request | Iterable[Request],
        *,
        method: Method = "auto",
        hessian: Hessian = "corrected",
        tau: float | None = None,
    ) -> Update:
        """Corrects data and model.

        Parameters
        ----------
        request : request or list of requests
            A list means its members applied in order, as one atomic request.
        method : {"auto", "exact", "second_order", "first_order"}
            How theta is chosen for the corrected data; data and statistics follow the request in any case,
            so methods may be mixed. ``auto``: one step from the anchor (E9), without a look at other rows,
            while a proven bound of its residual (E10) is within `tolerance`; else as ``exact``. Where columns
            are revoked, and with a solver that keeps no Hessian, always as ``exact``.
            ``exact``: retraining's minimiser, to a measured `tolerance` (E11, E13).
            ``second_order``: ``theta - H^-1 g`` (E5). ``first_order``: ``theta - tau g`` (E4). g is the full
            gradient on the corrected data.
        hessian : {"corrected", "original"}
            H of a second-order update: of the corrected data (one Newton step; exact for the squared loss) or
            of the data before the request (the influence function).
        tau : float, optional
            Step size of a first-order update; by default the safe 1/L of E4.

        Returns
        -------
        Update

        Raises
        ------
        ValueError, TypeError
            A request that cannot be granted: what is wrong with it, and nothing has changed.
        ConvergenceError, NotPositiveDefiniteError
            The numbers do not allow it; nothing has changed.
        ToleranceExceeded, RowsRequired
            Detached, where the bound is above the tolerance, or the request or its method needs the rows;
            nothing has changed.

        Notes
        -----
        Detached, requests are :class:`Edit`, :class:`AddRows` and, for the squared loss,
        :class:`RevokeFeatures`. ``auto`` takes the step from the anchor if its bound is within `tolerance`;
        ``second_order`` takes it whatever its bound: one Newton step from the anchor, on the current data.
        The other methods need rows. Each request is summed into the statistics, whose factor follows: lists
        are faster than single requests.
        """
        if isinstance(request, Request) or not isinstance(request, Iterable):
            request = [request]
        requests, revokes = list(request), False
        for r in requests:
            if not isinstance(r, Request):
                raise TypeError(f"{r!r} is not a request: pass RemoveRows, AddRows and the like")
            revokes = revokes or isinstance(r, RevokeFeatures)
        self._check_arguments(method, hessian, tau)
        with self._lock, self._verb:
            self._check_model()
            started = perf_counter()
            data = self._held
            if isinstance(data, DetachedData):
                return self._apply_detached(data, requests, method, hessian, started)
            return self._apply_attached(data, requests, revokes, method, hessian, tau, started)

    def _apply_attached(
        self,
        data: CorrectedData,
        requests: list[Request],
        revokes: bool,
        method: Method,
        hessian: Hessian,
        tau: float | None,
        started: float,
    ) -> Update:
        """:meth:`apply` on rows."""
        data.compact()
        measured = revokes and self._state.at is None
        if measured:  # what revoked columns leave is judged by what was there
            at = self._objective().evaluate(self._state.theta)
            self._state = replace(self._state, at=_bare(at))
        original = self._hessian_here() if hessian == "original" else None
        try:
            data.begin()
            named = [r.edit(data, self._encode) for r in requests]
            touched = data.finish()
            if touched.revoked and method == "auto":
                method = "exact"
            edit = self._stage(data, touched, method)
            state, outcome = self._choose(edit, method, original, tau)
            noise = self._noise
            if self._budget is not None:
                state, noise = self._within_budget(edit, state, outcome)
            if not isfinite(outcome["residual_bound"] + (0.0 if state.at is None else state.at.value)):
                raise ConvergenceError("the step leaves the range of floating point: use method='exact'")
            outcome["passes"] += measured
            outcome["rows_touched"] = _rows_touched(data, touched)
            outcome["features_revoked"] = len(touched.revoked)
            old, spec = self._state.theta, self._spec
            record = (named, old, state.theta, spec.model, self._tolerance, True, versions())
            update = Update._of(outcome, record, started)
            self._publish(state, named=bool(touched.revoked), noise=noise)
        except BaseException:
            data.rollback()
            raise
        return update

    def _check_arguments(self, method: str, hessian: str, tau: float | None) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        if hessian not in HESSIANS:
            raise ValueError(f"unknown hessian {hessian!r}: choose one of {', '.join(HESSIANS)}")
        if hessian != "corrected" and method != "second_order":
            raise ValueError(f"hessian={hessian!r} is an option of method='second_order'")
        if tau is not None and method != "first_order":
            raise ValueError("tau is an option of method='first_order'")

    def _check_model(self) -> None:
        """Raises if others changed the model; first undoes a request whose undoing was interrupted."""
        self._held.rollback()
        published = self._state.published
        if published is not None and getattr(self._model, "_fitted", None) is published:
            return
        if not np.array_equal(theta_of(self._model), self._state.theta):
            raise ValueError("the model was changed outside of this Unlearner: make a new one")

    def _publish(self, state: _State, *, named: bool, noise: Noise | None) -> None:
        """The last act of a request: model, statistics and data become the new ones, or stay the old ones.

        `named`: whether the names of the model's columns may have changed. `noise`: of the objective.
        """
        named = named and hasattr(self._model, "feature_names_in_")
        names = self._held.surviving_names() if named else None
        residual = None if state.at is None else state.at.residual
        if noise is not None:  # dropped features drop their entries (E12)
            noise = noise.without(~self._held.kept)
        own = noise and noise.of(self._held.kept)
        fitted = fitted_attributes(self._model, state.theta, residual, names, own)
        _, name, value = fitted[0]
        state.published = value if name == "_fitted" else None
        assign_all([*fitted, (self, "_state", state), (self, "_noise", noise), *self._held.committed()])

    def _stage(self, data: CorrectedData, touched: Touched, method: Method) -> _Edit:
        old, fit_intercept = self._state, self._spec.fit_intercept
        rows, width, revoked_rows, dropped = touched.rows, touched.columns, _NONE, _NONE
        survives: NDArray[np.bool_] | slice = slice(None)
        if touched.revoked:
            survives = np.append(data.kept[width], np.ones(int(fit_intercept), dtype=bool))
            dropped = np.flatnonzero(~survives)
            revoked_rows = _union(touched.revoked_rows, data.n_rows)
            revoked_rows = revoked_rows[data.register.of(revoked_rows)[0] >= 0]
        anchor, current, statistics, difference = old.anchor, old.current, old.statistics, None
        if rows.any:
            many = (
                4 * data.register.edited_rows > data.register.weighted_rows
            )  # so many that H is better assembled anew
            if statistics is not None and not (many and not self._spec.constant_hessian):
                statistics, difference = rows.edit(statistics, old.theta)
                edited = statistics.anchor
                if edited.cancelled:  # to be assembled anew
                    statistics, anchor, current = None, None, False
                elif method in ("auto", "second_order") or edited.size <= SMALL or edited.factored:
                    anchor, current = edited, True
                else:
                    current = False  # a large factor preconditions as it is
            else:
                was, now = rows.objectives(self._spec.loss, fit_intercept)
                difference = _core.difference(was, now, old.theta)
                statistics = None
                # A large factor is edited only for a step that uses it; else it preconditions as it is.
                lag = (
                    anchor is not None and anchor.size > SMALL and not (method == "second_order" and current)
                )
                if anchor is not None and not lag:
                    anchor = None if many else anchor.edit(was, now)
                current = current and not lag and anchor is not None and anchor.complete
                if anchor is not None and anchor.complete and anchor.cancelled:
                    anchor, current = None, False
        gram_norm, gram_added = old.gram_norm, old.gram_added
        if gram_norm is not None:
            gram_added += power_of_two_above(rows.gained_norm(fit_intercept))
            if rows.any_before or touched.revoked:
                gram_norm = power_of_two_above(gram_norm)
        return _Edit(
            difference=difference,
            statistics=statistics,
            anchor=anchor,
            current=current,
            kept=survives,
            dropped=dropped,
            columns=width,
            revoked_rows=revoked_rows,
            gram_norm=gram_norm,
            gram_added=gram_added,
        )

    def _rows_alone(self, blocks: Blocks, columns: NDArray[np.bool_]) -> _core.Objective:
        """E1 on some rows, over a mask of all columns, without a penalty."""
        penalty = as_penalty(0.0, int(np.count_nonzero(columns)), self._spec.fit_intercept)
        stored = self._data.stored_columns(columns)
        return _core.Objective(blocks, self._spec.loss, penalty, self._spec.fit_intercept, stored)

    def _objective(self, data: CorrectedData | None = None, noise: Noise | None = None) -> _core.Objective:
        """E1 on the current data, or on those, with this noise."""
        spec, data, noise = self._spec, data or self._data, noise or self._noise
        d = data.n_columns
        penalty = as_penalty(spec.alpha, d, spec.fit_intercept)
        b = as_noise(None if noise is None else noise.values[data.kept], d, spec.fit_intercept)
        columns = data.stored_columns(data.kept)
        return _core.Objective(
            data.blocks(), spec.loss, penalty, spec.fit_intercept, columns, data.largest_norm, b
        )

    def _noise_on(self, columns: NDArray[np.bool_]) -> Float:
        """The b of E1 over a mask of all columns, intercept last; zeros where there is none."""
        d = int(np.count_nonzero(columns))
        b = np.zeros(d) if self._noise is None else self._noise.values[columns]
        return np.append(b, 0.0) if self._spec.fit_intercept else b

    def _block(self, objective: _core.Objective, p: int) -> int | None:
        return choose_block(self._solver, self._memory_limit, objective, p, requests=True)

    # --- how theta is chosen for the corrected data

    def _choose(
        self, edit: _Edit, method: Method, original: _core.Anchor | Float | None, tau: float | None
    ) -> tuple[_State, dict[str, Any]]:
        old = self._state
        if method in ("auto", "exact") and not edit.dropped.size:
            taken = self._step(edit, method)
            if taken is not None:
                return taken
        objective = self._objective()
        theta = old.theta[edit.kept] if edit.dropped.size else old.theta  # E12: revoked coordinates drop
        block = self._block(objective, theta.size)
        anchor, current = edit.anchor, edit.current
        here, passes = self._here(edit, objective, theta, block)
        if edit.dropped.size:
            anchor = anchor and anchor.drop(edit.dropped.tolist())
            current = current and self._spec.constant_hessian
        statistics = None if edit.dropped.size else edit.statistics
        hessian: Hessian | None = None
        gram_norm, gram_added = edit.gram_norm, edit.gram_added
        floor, settled = np.inf, False
        if method in ("auto", "exact"):
            minimum = self._minimize(objective, theta, here, anchor, block)
            passes += minimum.passes
            settled = minimum.iterations > 0
            new, measured, floor = minimum.theta, minimum.at, minimum.floor
            if minimum.anchor is not anchor:
                anchor, current = minimum.anchor, True
                statistics = statistics if self._spec.constant_hessian else None
        else:
            if method == "second_order" and original is None:
                if anchor is None or (
                    anchor.complete and not (current and self._is_hessian_at(theta, anchor))
                ):
                    anchor, current = _core.Anchor(objective, theta, block), True
                    passes += 1
                H: _core.Anchor | _Products = anchor
                if not anchor.complete:
                    H = self._products(objective, objective.curvature(theta), anchor)
                new = second_order_update(theta, here.gradient, H)  # E5
                passes += 0 if isinstance(H, _core.Anchor) else H.passes
                hessian = "corrected"
            elif original is not None:
                g = np.zeros_like(old.theta)
                g[edit.kept] = here.gradient
                pull = self._spec.alpha * old.theta + self._noise_on(edit.columns)
                g[edit.dropped] = pull[edit.dropped]  # their data are gone (E12)
                H = self._original(original, edit)
                new = second_order_update(old.theta, g, H)[edit.kept]  # E5
                passes += int(H is not old.anchor) if isinstance(H, _core.Anchor) else H.passes
                hessian = "original"
            else:
                if tau is None:
                    if gram_norm is None or gram_added > gram_norm:
                        gram_norm, gram_added = self._gram_norm(edit, block), 0.0
                        passes += 1
                    tau = safe_tau(gram_norm + gram_added, self._spec.alpha, self._loss)
                new = first_order_update(theta, here.gradient, tau)  # E4
            measured = objective.evaluate(new)
            passes += 1
        state = _State(
            theta=new,
            at=_bare(measured),
            anchor=anchor,
            current=current,
            statistics=statistics,
            since_anchor=old.since_anchor + 1 if statistics is not None else 0,
            spent=old.spent + passes,
            saved=old.saved,
            gram_norm=gram_norm,
            gram_added=gram_added,
        )
        if method in ("auto", "exact") and block is None:
            state, made = self._anchored(state, objective, measured, floor)
            passes += made
        outcome = {
            "method": method,
            "step": new - theta,
            "gradient_difference": self._difference(edit, here),
            "residual": measured.residual,
            "residual_bound": measured.residual,
            "passes": passes,
            "settled": settled,
            "since_anchor": state.since_anchor,
            "hessian": hessian,
            "tau": tau,
        }
        return state, outcome

    def _step(self, edit: _Edit, method: Method) -> tuple[_State, dict[str, Any]] | None:
        """E9, kept while its bound (E10) or else its measured residual is within the tolerance; or settled.

        None where there is no such step, or the old theta is the better place to start from.
        """
        old, statistics = self._state, edit.statistics
        if statistics is None or (method == "exact" and old.at is not None):
            return None
        try:
            theta, bound = statistics.step()
        except NotPositiveDefiniteError:
            return None
        anchor, at, passes, settled = statistics.anchor, None, 0, False
        kept = method == "auto" and bound <= self._tolerance
        if not kept:
            if method == "auto" and old.at is not None and old.spent > 0:
                return None  # iterations have taken the old theta further than one step gets
            objective = self._objective()
            start = objective.evaluate(theta)
            if not start.value <= statistics.at.value:  # E11: the anchor itself is the better start
                theta, start = anchor.theta, statistics.at
            minimum = self._minimize(objective, theta, start, anchor, None)
            theta, at, passes, settled = minimum.theta, minimum.at, 1 + minimum.passes, minimum.iterations > 0
        state = _State(
            theta=theta,
            at=at and _bare(at),
            anchor=anchor,
            current=True,
            statistics=statistics,
            since_anchor=old.since_anchor + 1,
            spent=old.spent + passes,
            saved=old.saved + PASSES_SAVED * kept,
            gram_norm=edit.gram_norm,
            gram_added=edit.gram_added,
        )
        if at is not None:
            if minimum.anchor is not None and minimum.anchor is not anchor:
                statistics = statistics if self._spec.constant_hessian else None
                state = replace(state, anchor=minimum.anchor, statistics=statistics)
            state, made = self._anchored(state, objective, at, minimum.floor)
            passes += made
        outcome = {
            "method": method,
            "step": state.theta - old.theta,
            "gradient_difference": self._difference(edit, None),
            "residual": None if state.at is None else state.at.residual,
            "residual_bound": bound if state.at is None else state.at.residual,
            "passes": passes,
            "settled": settled,
            "since_anchor": state.since_anchor,
        }
        return state, outcome

    def _anchored(
        self, state: _State, objective: _core.Objective, at: _core.Evaluation, floor: float
    ) -> tuple[_State, int]:
        """With statistics anchored anew at theta, once passes spent or saved since would have paid for it.

        And passes made: one, for the Hessian.
        """
        anchor, made = state.anchor, 0
        if self._spec.constant_hessian:
            if state.statistics is not None or anchor is None or not state.current:
                return state, 0
            anchor = anchor.moved(state.theta)
        elif state.spent + state.saved < objective.anchor_cost:
            return state, 0
        else:
            anchor, made = _core.Anchor(objective, state.theta, None, at), 1
        statistics = self._statistics(objective, anchor, at, floor)
        state = replace(
            state, anchor=anchor, current=True, statistics=statistics, since_anchor=0, spent=0.0, saved=0.0
        )
        return state, made

    def _statistics(
        self, objective: _core.Objective, anchor: _core.Anchor, at: _core.Evaluation, floor: float
    ) -> _core.AnchoredStatistics:
        return _core.AnchoredStatistics(objective, anchor, at, floor, self._data.largest_norm)

    def _minimize(
        self,
        objective: _core.Objective,
        theta: Float,
        start: _core.Evaluation,
        anchor: _core.Anchor | None,
        block: int | None,
    ) -> _core.Minimum:
        return minimize(
            objective, theta, self._tolerance, MAX_ITER, anchor=anchor, start=start, block=block, stacklevel=6
        )

    def _difference(self, edit: _Edit, here: _core.Evaluation | None) -> Float:
        """E3 at the old theta, over the surviving coordinates; `here` is J at what is left of it."""
        old = self._state
        if edit.dropped.size:
            assert here is not None
            assert old.at is not None
            return here.gradient - old.at.gradient[edit.kept]
        return np.zeros_like(old.theta) if edit.difference is None else edit.difference.gradient

    def _here(
        self, edit: _Edit, objective: _core.Objective, theta: Float, block: int | None
    ) -> tuple[_core.Evaluation, int]:
        """J and its gradient at the theta that is left (E12), and passes made.

        Rows that are 0 in all revoked columns are what they were: where the others are few, only these are
        read.
        """
        data, old, known = self._data, self._state, self._state.at
        if known is not None and edit.difference is not None:
            change = edit.difference
            known = _core.Evaluation(known.value + change.value, known.gradient + change.gradient)
        if known is None:
            return objective.evaluate(theta), 1
        if not edit.dropped.size:
            return known, 0
        few = 4 * edit.revoked_rows.size <= data.register.weighted_rows
        if not (
            few and sparse.issparse(data.X) and (block is None or in_low_dimension(objective, theta.size))
        ):
            return objective.evaluate(theta), 1
        rows: Blocks = [data.get(edit.revoked_rows)]
        before = self._rows_alone(rows, edit.columns).evaluate(old.theta)
        after = self._rows_alone(rows, data.kept).evaluate(theta)
        gone = old.theta[edit.dropped]
        pull = 0.5 * self._spec.alpha * gone + self._noise_on(edit.columns)[edit.dropped]
        value = known.value + after.value - before.value - float(gone @ pull)
        return _core.Evaluation(value, (known.gradient - before.gradient)[edit.kept] + after.gradient), 0

    @property
    def _loss(self) -> Loss:
        return get_loss(self._spec.loss)

    def _is_hessian_at(self, theta: Float, anchor: _core.Anchor) -> bool:
        return self._spec.constant_hessian or np.array_equal(anchor.theta, theta)

    def _hessian_here(self) -> _core.Anchor | Float:
        """H of the data before the request, at the model's theta: factored, or the curvature of its rows."""
        theta, anchor = self._state.theta, self._state.anchor
        objective = self._objective()
        block = self._block(objective, theta.size)
        if block is not None:
            return objective.curvature(theta)
        if anchor is not None and self._state.current and self._is_hessian_at(theta, anchor):
            return anchor
        return _core.Anchor(objective, theta)

    def _original(self, original: _core.Anchor | Float, edit: _Edit) -> _core.Anchor | _Products:
        """What :meth:`_hessian_here` gave, as something that solves, once the data are corrected."""
        if isinstance(original, _core.Anchor):
            return original
        data, spec = self._data, self._spec
        penalty = as_penalty(spec.alpha, int(np.count_nonzero(edit.columns)), spec.fit_intercept)
        objective = _core.Objective(
            data.blocks(), spec.loss, penalty, spec.fit_intercept, data.stored_columns(edit.columns)
        )
        rows = sum(X.shape[0] for X, _, _ in data.blocks())
        curvature = np.append(original, np.zeros(rows - original.size))  # rows of the request: not there yet
        anchor = self._state.anchor
        if anchor is None:
            anchor = _core.Anchor(
                objective, self._state.theta, self._block(objective, self._state.theta.size)
            )
        return self._products(objective, curvature, anchor)

    def _products(self, objective: _core.Objective, curvature: Float, anchor: _core.Anchor) -> _Products:
        relative = 0.0 if self._spec.constant_hessian else LINEAR_TOLERANCE
        return _Products(objective, curvature, anchor, self._tolerance, relative)

    def _gram_norm(self, edit: _Edit, block: int | None) -> float:
        """Upper bound of |S^1/2 X|^2 on the corrected data, X extended by 1 with an intercept."""
        spec, data = self._spec, self._data
        penalty = as_penalty(0.0, data.n_columns, spec.fit_intercept)
        columns = data.stored_columns(data.kept)
        squared = _core.Objective(data.blocks(), "squared", penalty, spec.fit_intercept, columns)
        if block is not None:
            return squared.gram_norm_bound()
        return gram_norm_bound(squared.hessian(np.zeros(penalty.size)))

    # --- certificates

    @property
    def budget(self) -> Budget | None:
        """What the noise in the objective is good for and how much of it is taken; None without a promise.

        See `epsilon`, `delta` and `on_exhausted` at construction.
        """
        with self._lock:
            return self._budget and replace(self._budget, spent=self._state.profile)

    def _profile(self, state: _State, bound: float, noise: Noise | None = None) -> float:
        """E10: the profile residual at most, rounding counted; `bound` is that of the whole gradient."""
        norm, fit_intercept = self._data.largest_norm, self._spec.fit_intercept
        factor = norm_factor(norm, fit_intercept)
        if state.at is None:
            return factor * bound
        floor = self._objective(noise=noise).rounding_floor(state.theta)
        return profile_residual(state.at.gradient, norm, fit_intercept) + factor * floor

    def _within_budget(
        self, edit: _Edit, state: _State, outcome: dict[str, Any]
    ) -> tuple[_State, Noise | None]:
        """The same state and noise, or those of `on_exhausted`; `outcome` becomes theirs."""
        assert self._budget is not None
        assert self._noise is not None
        state.profile, noise = self._profile(state, outcome["residual_bound"]), self._noise
        outcome["passes"] += int(state.at is not None)  # the rounding floor
        if state.profile <= self._budget.total:
            return state, noise
        if self._budget.on_exhausted == "raise":
            self._budget.check(state.profile)
        old, asked, passes = self._state, outcome["method"], outcome["passes"]
        if self._budget.on_exhausted == "settle":
            state, settled = self._choose(edit, "exact", None, None)
        else:
            noise = noise.again()
            state, passed = self._trained(noise)
            state.gram_norm, state.gram_added = edit.gram_norm, edit.gram_added
            settled = {
                "step": state.theta - (old.theta[edit.kept] if edit.dropped.size else old.theta),
                "residual": state.at and state.at.residual,
                "residual_bound": state.at and state.at.residual,
                "passes": passed,
                "since_anchor": 0,
            }
        state.profile = self._profile(state, settled["residual_bound"], noise)
        self._budget.check(state.profile)
        passes += settled["passes"] + int(state.at is not None)
        outcome.update(settled, method=asked, passes=passes, settled=True)
        return state, noise

    def _trained(self, noise: Noise) -> tuple[_State, int]:
        """From nothing, with this noise; and passes made."""
        objective = self._objective(noise=noise)
        theta = np.zeros(self._data.n_columns + self._spec.fit_intercept)
        block = self._block(objective, theta.size)
        minimum = self._minimize(objective, theta, objective.evaluate(theta), None, block)
        anchor = _core.Anchor(objective, minimum.theta, block, minimum.at)
        statistics = self._statistics(objective, anchor, minimum.at, minimum.floor) if block is None else None
        return _State(minimum.theta, _bare(minimum.at), anchor, True, statistics), minimum.passes + 2

    def release(
        self,
        epsilon: float,
        delta: float,
        *,
        mechanism: Mechanism = "output",
        against: Against | None = None,
        random_state: int | None = None,
    ) -> Ridge | LogisticRegression:
        """A copy of the model that may be given away, with a certificate; nothing here changes.

        Coefficients whose profile residual is verified to be at most a public tolerance, rounding counted,
        after iterations where it is not so already, go through a mechanism that hides what is left (E15 to
        E17). The intercept is computed from the released coefficients and the current rows. Each release
        draws fresh noise; what several tell together is for :func:`expunge.accounting.compose`.

        Parameters
        ----------
        epsilon, delta : float
            Finite >= 0, and between 0 and 1. For mechanism="objective" epsilon is below 1.
        mechanism : {"output", "rounding", "objective"}
            ``output``: Gaussian noise on the coefficients, ``sigma = 2 tolerance / (alpha mu)`` (E16) and at
            least 2**-33 to 2**-32 of `theta_bound` (E42); any requests, also such as depend on releases.
            ``rounding``: to a grid with a random offset; the retrained model would give the same numbers,
            except with probability delta (E17). ``objective``: nothing is added; the noise that the model was
            trained with hides its residual (E15, Guo et al. 2020). The tolerance is then what that noise
            allows, not `tolerance`.
        against : {"retraining", "minimiser"}, optional
            What to be indistinguishable from: a retraining that stops at the same tolerance, or the exact
            minimiser, which takes half the noise. By default retraining, minimiser for ``objective``.
        random_state : int, optional
            A seed, for tests, in place of the operating system's randomness: the certificate says "void".

        Returns
        -------
        Ridge or LogisticRegression
            Of expunge, fitted, with a `certificate_` (:class:`expunge.Certificate`); residual_ is None.

        Raises
        ------
        CertificateError
            What is promised does not hold: the residual is not verified to be within the tolerance, a
            coefficient exceeds `theta_bound`, the noise is not there, delta is below 2**-53. Nothing is
            released.
        RowsRequired
            Detached: whether sums tell enough depends on what has left them, so that a refusal would tell it.
        ValueError
            epsilon, delta, mechanism or against outside of their ranges.

        Examples
        --------
        >>> import expunge as ex
        >>> from sklearn.datasets import load_breast_cancer
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = X / abs(X).max(axis=0)
        >>> un = ex.Unlearner(ex.LogisticRegression(alpha=1.0).fit(X, y), X, y)
        >>> update = un.apply(ex.RemoveRows(range(100)))
        >>> released = un.release(epsilon=1.0, delta=1e-5)
        >>> released.certificate_.mechanism, f"{released.certificate_.sigma:.3g}"
        ('output', '7.46e-08')
        >>> bool((abs(released.coef_ - un.model.coef_) < 1e-5).all())
        True
        """
        seed = check_random_state(random_state)
        with self._lock, self._verb:
            self._check_model()
            data, spec = self._data, self._spec
            terms = Terms.checked(
                mechanism,
                epsilon,
                delta,
                against,
                tolerance=self._tolerance,
                alpha=spec.alpha,
                theta_bound=self.theta_bound,
                noise=self._noise,
            )
            found = self._within(terms.tolerance)
            d = data.n_columns
            coef, scale = terms.apply(found.theta[:d], seed)
            theta = coef
            if spec.fit_intercept:
                theta = np.append(coef, best_intercept(data.panels(), coef, self._loss))
            terms.check(coef, self._measured(theta))
            if not found.bound <= terms.tolerance:
                raise CertificateError(
                    "iterations did not bring the profile residual within the tolerance, "
                    f"{terms.tolerance:.3g}: scale the columns of X, or raise alpha"
                )
            released = self._fresh()
            if spec.classes is not None:
                released.classes_ = spec.classes
            names = data.surviving_names() if hasattr(self._model, "feature_names_in_") else None
            noise = self._noise and replace(self._noise.lost(), draws=0)  # how many tells of requests
            set_theta(released, theta, None, names=names, noise=noise)
            released.certificate_ = terms.certificate(found, scale, self._noise, seed)
        return released

    def _measured(self, theta: Float) -> Measured:
        """The profile residual there, and its rounding floor: functions of theta and of the current data."""
        data, spec = self._data, self._spec
        penalty, b = as_penalty(spec.alpha, data.n_columns, spec.fit_intercept), self._noise_on(data.kept)
        return measure(data.panels(), theta, spec.loss, penalty, spec.fit_intercept, b)

    def _within(self, limit: float) -> Measured:
        """The model's parameters, or better ones, with a profile residual within the limit if that can be.

        Iterations go on from where theta is, and if need be start from 0.
        """
        found, objective = self._measured(self._state.theta), self._objective()
        block = self._block(objective, found.theta.size)

        def settled(objective: _core.Objective, theta: Float, anchor: _core.Anchor | None) -> Measured:
            factor = norm_factor(found.largest_norm, self._spec.fit_intercept)
            goal = max(0.0, limit - found.floor) / (2.0 * factor)
            try:
                theta = _core.minimize(objective, theta, goal, MAX_ITER, anchor, None, block).theta
            except NotPositiveDefiniteError:
                return found
            return min(self._measured(theta), found, key=lambda at: at.bound)

        if not found.bound <= limit:
            found = settled(objective, found.theta, self._state.anchor)
        if (
            not found.bound <= limit
        ):  # from a start that knows nothing of the past, on a copy that does not either
            X, y, s = self._data.current()
            penalty = as_penalty(self._spec.alpha, X.shape[1], self._spec.fit_intercept)
            b = self._noise_on(self._data.kept)
            fresh = _core.Objective([(X, y, s)], self._spec.loss, penalty, self._spec.fit_intercept, noise=b)
            found = settled(fresh, np.zeros_like(found.theta), None)
        return found

    # --- without the rows

    @property
    def attached(self) -> bool:
        """Whether the rows are here; after :meth:`detach` only statistics are."""
        return not isinstance(self._held, DetachedData)

    @property
    def _data(self) -> CorrectedData:
        """The current data."""
        if isinstance(self._held, DetachedData):
            raise RowsRequired(
                "this Unlearner is detached and holds no rows: attach(X, y) the current ones first"
            )
        return self._held

    def detach(self) -> Self:
        """Drops the rows, and keeps the sums over them that further requests need (E8).

        The model stays what it is. The statistics are anchored at it, which takes a pass over the data and a
        Hessian unless they are already. From here on requests carry their rows by value, see :class:`Edit`,
        and none of these is kept either. The p x p Hessian is a sum over all rows: of very few rows it may
        still tell something.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Already detached; or solver="cg", which keeps no Hessian.

        Examples
        --------
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0]], [0, 1, 2]
        >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y).detach()
        >>> update = un.apply([ex.Edit(before=([[0.0]], [0])), ex.AddRows([[2.0]], [1])])
        >>> un.attached, update.residual_bound <= un.tolerance
        (False, True)
        """
        with self._lock, self._verb:
            self._check_model()
            if isinstance(self._held, DetachedData):
                raise ValueError("this Unlearner is detached already")
            statistics, data = self._statistics_here(), self._held
            held = DetachedData(
                data.kept,
                data.names,
                data.counts,
                dtype=data.dtype,
                is_sparse=data.is_sparse,
                classes=data.classes,
                weighted=data.weighted,
            )
            state = _State(self._state.theta, self._state.at, statistics.anchor, True, statistics)
            state.profile = self._profile_here()
            entry = self.residual_on_entry
            assign_all([(self, "_held", held), (self, "_state", state), (self, "_residual_on_entry", entry)])
        return self

    def attach(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Takes the current rows back: corrected, without removed rows and revoked columns.

        Rows and columns are numbered from 0 anew, by their positions in this X.

        Parameters
        ----------
        X : (n, d) array, sparse matrix or frame
            As wide as the model is now. Held by reference as at construction.
        y : (n,) array
        sample_weight : (n,) array, optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Already attached; other names; or these are not the current rows: their number (of positive
            weight, of each class) or their gradient at the anchor differs from the statistics by more than
            rounding explains. Nothing has changed.
        """
        with self._lock, self._verb:
            self._check_model()
            held = self._held
            if not isinstance(held, DetachedData):
                raise ValueError("this Unlearner has its rows: detach it first, or make a new one")
            noise = noise_of(self._model)
            names, width = held.surviving_names(), held.n_columns
            data = _rows(X, y, sample_weight, self._spec, width, names, column_index=self._column_index)
            self._check_belong(data, held.counts, self._state.statistics, noise)
            data.changed = True  # since the statistics: what has left is still in their bounds
            assign_all([(self, "_held", data), (self, "_noise", noise)])
        return self

    def _statistics_here(self) -> _core.AnchoredStatistics:
        """Of the current data, as sums alone, without a trace of rows that left them.

        Where the rows are here, found anew at the model's theta: older ones hold what has left in bounds
        and anchor. Where they are not, and the Hessian depends on theta, the anchor has to stay; its
        gradient is then the sum of what left since.
        """
        theta, statistics = self._state.theta, self._state.statistics
        if not self.attached:
            assert statistics is not None
            return statistics.moved(theta) if self._spec.constant_hessian else statistics
        data = self._data
        known = statistics is not None and np.array_equal(statistics.anchor.theta, theta)
        if statistics is not None and known and not data.changed:
            return statistics.rounded()
        objective = self._objective()
        if self._block(objective, theta.size) is not None:
            raise ValueError(
                "without rows the whole Hessian is needed, which solver='cg' does not keep: use a model of "
                "solver='cholesky' (memory_limit says how large it may be), or keep the rows"
            )
        at = objective.evaluate(theta)
        anchor = _core.Anchor(objective, theta, None, at)
        floor = objective.rounding_floor(theta)
        return _core.AnchoredStatistics(objective, anchor, at, floor, data.current_norm()).rounded()

    def _profile_here(self) -> float:
        """The profile residual at most, as the data are now; infinite where nothing was promised of it."""
        if self._budget is None or not self.attached:
            return self._state.profile
        return self._measured(self._state.theta).bound

    def _check_belong(
        self,
        data: CorrectedData,
        counts: NDArray[np.int64],
        statistics: _core.AnchoredStatistics | None,
        noise: Noise | None,
    ) -> None:
        """Raises unless these are the rows that the statistics are of."""
        if not np.array_equal(data.counts, counts):
            found, expected = (c.tolist() if data.classes else int(c.sum()) for c in (data.counts, counts))
            raise ValueError(
                f"X has {found} rows of positive weight{' by class' if data.classes else ''}, the statistics "
                f"{expected}: pass the current rows, after all corrections"
            )
        if statistics is None:
            return
        objective, theta = self._objective(data, noise), statistics.anchor.theta
        difference = objective.evaluate(theta).gradient - statistics.at.gradient
        explained = statistics.gradient_error + objective.rounding_floor(theta)
        if not np.linalg.norm(difference) <= explained < np.inf:
            raise ValueError(
                "the gradient of these rows at the anchor differs from the statistics by "
                f"{np.linalg.norm(difference):.3g}, of which rounding explains {explained:.3g}: pass the "
                "current rows, after all corrections, in the values and weights that went in"
            )

    def _apply_detached(
        self, data: DetachedData, requests: list[Request], method: Method, hessian: Hessian, started: float
    ) -> Update:
        """:meth:`apply` on statistics alone."""
        if method in ("exact", "first_order") or hessian == "original":
            what = "hessian='original'" if hessian == "original" else f"method={method!r}"
            raise RowsRequired(
                f"{what} reads the rows, and this Unlearner is detached: attach the current rows first, or "
                "use method='auto' or 'second_order'"
            )
        old = self._state
        try:
            data.begin()
            named = [r.edit_detached(data, self._encode) for r in requests]
            statistics, difference, kept = self._stage_detached(data)
            revoked = int(np.count_nonzero(~kept))
            theta, bound = _step_from(statistics)
            if not (np.isfinite(theta).all() and isfinite(statistics.at.value)):
                raise ConvergenceError("the step leaves the range of floating point: scale the columns of X")
            if method == "auto" and not bound <= self._tolerance:
                raise ToleranceExceeded(bound, self._tolerance)
            profile = np.inf
            if self._budget is not None:
                norm = statistics.tallies.largest_norm if self._spec.fit_intercept else 1.0
                self._budget.check(bound * norm)
                profile = min(power_of_two_above(bound * norm), self._budget.total)  # which a file keeps
            outcome = {
                "method": method,
                "step": theta - old.theta[kept],
                "gradient_difference": difference,
                "residual": None,
                "residual_bound": bound,
                "passes": 0,
                "since_anchor": old.since_anchor + 1,
                "hessian": "corrected" if method == "second_order" else None,
                "rows_touched": data.rows_touched,
                "features_revoked": revoked,
            }
            record = (named, old.theta, theta, self._spec.model, self._tolerance, False, versions())
            update = Update._of(outcome, record, started)
            state = _State(
                theta,
                None,
                statistics.anchor,
                True,
                statistics,
                since_anchor=update.since_anchor,
                profile=profile,
            )
            self._publish(state, named=revoked > 0, noise=self._noise)
        except BaseException:
            data.rollback()
            raise
        return update

    def _stage_detached(
        self, data: DetachedData
    ) -> tuple[_core.AnchoredStatistics, Float, NDArray[np.bool_]]:
        """Statistics of the corrected data; E3 at the old theta; which coordinates of that survive.

        The second as in :class:`Update`. Statistics are kept folded: no row stays in them by itself.
        """
        old = self._state
        assert old.statistics is not None
        statistics, difference = old.statistics, np.zeros_like(old.theta)
        before, after = data.finish()
        if before is not None:
            statistics, change = statistics.edit(before, after, None, old.theta, True)
            difference = change.gradient
        survives = np.append(data.kept[data.stored], np.ones(int(self._spec.fit_intercept), dtype=bool))
        dropped = np.flatnonzero(~survives)
        if dropped.size:
            if not self._spec.constant_hessian:
                raise RowsRequired(
                    "a revoked feature moves the predictor of every row, and this Unlearner is detached: "
                    "attach the current rows first"
                )
            moved = statistics.anchor.hessian[:, dropped] @ old.theta[dropped]
            difference = (difference - moved)[survives]
            statistics = statistics.drop(dropped.tolist()).folded()
        return statistics, difference, survives

    # --- files

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        include_rows: bool = False,
        include_noise: bool = False,
    ) -> None:
        """Writes model and statistics to one file, which :meth:`load` reads; nothing here changes.

        Whatever happens, `path` holds what it held before or all of the new. Nothing is pickled. The file
        holds the parameters, theta, class labels, the surviving columns' names, how many rows there are, and
        the statistics; see docs/data.md. These are found anew at theta, where the rows are here and have
        changed; those of a detached logistic model stay anchored where it was detached, and their gradient
        there is the sum of what has left since. It is made for its owner alone (mode 0600).

        Parameters
        ----------
        path : str or os.PathLike
            Exactly this name; a file that is there is replaced.
        include_rows : bool
            Whether the current rows go along, with their numbers: corrected, without removed rows, revoked
            columns and superseded values. Without them :meth:`load` gives a detached Unlearner.
        include_noise : bool
            Whether the noise of the objective goes along, of a LogisticRegression(noise=sigma). Who has it
            undoes the certificate. Without it, what is loaded takes requests, but is neither released with
            mechanism="objective" nor attached again.

        Raises
        ------
        ValueError
            solver="cg", which keeps no Hessian, without `include_rows`; noise in the objective and
            `include_rows` without `include_noise`, as theta and the rows tell the noise.
        TypeError
            Class labels that are not bool, integer, float or text. Nothing was written.
        OSError
            If the file cannot be written, or `path` is a folder, a FIFO or a device.
        """
        path = os.fspath(path)  # which is the caller's code
        with self._lock, self._verb:
            self._check_model()
            write(path, self._saved(include_rows, include_noise))

    def _saved(self, include_rows: bool, include_noise: bool) -> Saved:
        held, model, spec, noise = self._held, self._model, self._spec, self._noise
        if noise is not None and include_noise:
            noise.values  # noqa: B018 - raises if they are lost
        if noise is not None and not include_noise:
            if include_rows:
                raise ValueError(
                    "theta and the rows together tell the noise in the objective: save with "
                    "include_noise=True, and keep the file as secret as the noise, or leave out the rows"
                )
            noise = noise.lost()
        ours = isinstance(model, Ridge | LogisticRegression)
        rows = (*self._data.streamed(), self._data.n_rows) if include_rows else None
        statistics = None
        if not include_rows or self._block(self._objective(), self._state.theta.size) is None:
            statistics = self._statistics_here()
        at = self._state.at
        measured = None if at is None else at.residual
        return Saved(
            spec=spec,
            parameters={
                "tol": model.tol if ours else self._tolerance,
                "max_iter": model.max_iter if ours else MAX_ITER,
                "solver": self._solver,
                "memory_limit": self._memory_limit,
            },
            theta=self._state.theta,
            residual=self._kept(model.residual_ if ours else measured),
            n_iter=getattr(model, "n_iter_", None) if ours else None,  # of an adopted one unknown
            named=hasattr(model, "feature_names_in_"),
            tolerance=self._tolerance,
            residual_on_entry=self.residual_on_entry,
            column_index=self._column_index,
            kept=held.kept,
            names=held.surviving_names(),
            counts=held.counts,
            weighted=held.weighted,
            dtype=held.dtype,
            is_sparse=held.is_sparse,
            since_anchor=0 if self.attached else self._state.since_anchor,
            statistics=statistics,
            rows=rows,
            noise=noise and noise.of(held.kept),
            theta_bound=self.theta_bound,
            budget=self._budget and replace(self._budget, spent=self._profile_here()),
        )

    def _kept(self, residual: float | None) -> float | None:
        """What a file holds of it: one above the tolerance has digits of the rows of a request."""
        if residual is None or residual <= self._tolerance:
            return residual
        return power_of_two_above(residual)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The Unlearner that :meth:`save` wrote, detached unless the rows went along.

        Its model is expunge's own estimator, with theta and predictions bit for bit, also where the saved one
        was adopted from scikit-learn.

        Parameters
        ----------
        path : str or os.PathLike

        Returns
        -------
        Unlearner

        Raises
        ------
        ValueError
            Not a file of :meth:`save`, a newer version's, or damaged; the message names the file. What the
            file says is checked before it is used, but a forger can still write a model of his own.
        OSError
            If it cannot be opened.

        Examples
        --------
        >>> import tempfile
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0]], [0, 1, 2]
        >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     un.save(f"{folder}/model.expunge")
        ...     loaded = ex.Unlearner.load(f"{folder}/model.expunge")
        >>> loaded.attached, (loaded.model.predict(X) == un.model.predict(X)).all()
        (False, np.True_)
        """
        saved = read(path)
        un = cls.__new__(cls)
        with naming(path):
            un._restore(saved)
        return un

    def _restore(self, saved: Saved) -> None:
        spec = saved.spec
        kind = Ridge if spec.classes is None else LogisticRegression
        parameters = dict(saved.parameters)
        if saved.noise is not None:
            parameters |= {"noise": saved.noise.sigma, "random_state": saved.noise.random_state}
        self._model = kind(spec.alpha, fit_intercept=spec.fit_intercept, **parameters)
        self._tolerance, self._residual_on_entry = saved.tolerance, saved.residual_on_entry
        self._solver, self._memory_limit = saved.parameters["solver"], saved.parameters["memory_limit"]
        self._spec, self._encode = spec, partial(encode_targets, spec=spec)
        self._column_index = saved.column_index
        self._theta_bound, self._budget = saved.theta_bound, saved.budget
        self._noise = saved.noise and saved.noise.spread(saved.kept)
        self._lock, self._verb = RLock(), _Verb()
        at, statistics = None, saved.statistics
        if saved.rows is None:
            self._held = DetachedData(
                saved.kept,
                saved.all_names(),
                saved.counts,
                dtype=saved.dtype,
                is_sparse=saved.is_sparse,
                classes=spec.classes is not None,
                weighted=saved.weighted,
            )
        else:
            numbers, X, y, s, n_rows = saved.rows
            self._held = CorrectedData.from_numbered(
                (numbers, X, y, s),
                n_rows,
                saved.kept,
                saved.all_names(),
                classes=spec.classes is not None,
                weighted=saved.weighted,
                column_index=saved.column_index,
            )
            self._check_belong(self._held, saved.counts, statistics, self._noise)
            at = _bare(self._objective().evaluate(saved.theta))
        anchor = None if statistics is None else statistics.anchor
        self._state = _State(saved.theta, at, anchor, anchor is not None, statistics, saved.since_anchor)
        if spec.classes is not None:
            self._model.classes_ = spec.classes
        if saved.n_iter is not None:
            self._model.n_iter_ = saved.n_iter
        names = saved.names if saved.named else None
        set_theta(self._model, saved.theta, saved.residual, names=names, noise=saved.noise)
        if saved.budget is not None:
            self._state.profile = saved.budget.spent
        self._state.published = getattr(self._model, "_fitted", None)

    # --- the current data

    def residual(self) -> float:
        """Norm of the gradient of the corrected objective at the model's theta, by one pass.

        Returns
        -------
        float
            Euclidean, intercept included, on the sum scale.

        Raises
        ------
        RowsRequired
            Detached.
        """
        with self._lock, self._verb:
            self._check_model()
            return self._objective().evaluate(self._state.theta).residual

    def retrain(self) -> Ridge | LogisticRegression:
        """Fits a fresh expunge estimator to the corrected data: what `model` should equal.

        Where there is noise in the objective, with the same noise.

        Returns
        -------
        Ridge or LogisticRegression
            With the model's alpha and fit_intercept, and tol = `tolerance`.

        Raises
        ------
        RowsRequired
            Detached.
        """
        with self._lock, self._verb:
            self._held.rollback()
            data = self._corrected()
            fresh, noise, names = self._fresh(), self._noise, None
            if noise is not None:
                noise = noise.of(self._held.kept)
            if hasattr(self._model, "feature_names_in_"):
                names = self._held.surviving_names()
        fit_again(fresh, noise, *data)
        if names is not None:
            set_theta(fresh, theta_of(fresh), fresh.residual_, names=names)
        return fresh

    def _fresh(self) -> Ridge | LogisticRegression:
        """An estimator of ours for this objective, not fitted."""
        parameters: dict[str, Any] = {
            "fit_intercept": self._spec.fit_intercept,
            "tol": self._tolerance,
            "max_iter": MAX_ITER,
            "solver": self._solver,
            "memory_limit": self._memory_limit,
        }
        if self._spec.classes is None:
            return Ridge(self._spec.alpha, **parameters)
        if self._noise is not None:
            parameters |= {"noise": self._noise.sigma, "random_state": self._noise.random_state}
        return LogisticRegression(self._spec.alpha, **parameters)

    def corrected_data(self) -> tuple[Any, NDArray[Any], Float | None]:
        """The data that the model now stands for, as copies.

        Returns
        -------
        X : (n, d) array, or CSR matrix where X is sparse
            Rows in the order of their numbers, removed ones left out; surviving columns.
        y : (n,) array
            Targets, or labels in the model's classes.
        sample_weight : (n,) array or None
            None if none were ever given.

        Raises
        ------
        RowsRequired
            Detached.
        """
        with self._lock, self._verb:
            self._held.rollback()
            return self._corrected()

    def _corrected(self) -> tuple[Any, NDArray[Any], Float | None]:
        X, y, s = self._data.current()
        if self._spec.classes is None:
            return X, y, s
        return X, self._spec.classes[y.astype(np.intp)], s

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Which columns of the X that was handed over, last by :meth:`attach`, survive.

        Parameters
        ----------
        indices : bool
            Whether to return positions instead of a mask.

        Returns
        -------
        (n_features,) bool array, or positions of the surviving columns
        """
        with self._lock, self._verb:
            self._held.rollback()
            kept = self._held.kept
        return np.flatnonzero(kept) if indices else kept.copy()


def _step_from(statistics: _core.AnchoredStatistics) -> tuple[Float, float]:
    """E9 and E10 from statistics that rows were taken from by value."""
    try:
        return statistics.step()
    except NotPositiveDefiniteError:
        raise NotPositiveDefiniteError(
            "these rows cannot be part of the statistics: without them the Hessian is not positive definite. "
            "Check that they were in the data, in these values, or raise alpha"
        ) from None


def _rows(
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    spec: Specification,
    width: int,
    names: Sequence[str] | None,
    *,
    column_index: bool,
) -> CorrectedData:
    """What a model of `width` columns, perhaps with names, was fitted to; raises where it cannot be that."""
    if match_columns(X, names) is not X:
        raise ValueError(
            "X has more columns than the model, which leaves open what positions mean: pass "
            "X[list(model.feature_names_in_)]"
        )
    matrix = as_matrix(X, columns=width)
    if isinstance(matrix, np.ndarray) and not isinstance(X, np.ndarray) and matrix.base is not None:
        matrix = matrix.copy()  # a view into a frame, which its owner may change
    n = matrix.shape[0]
    targets, weights = encode_targets(y, n, spec), as_weights(sample_weight, n)
    if n == 0:
        raise ValueError("X has no rows")
    classes = spec.classes is not None
    check_enough(targets, weights, classes=classes)
    chosen = frame_names(X) or names
    return CorrectedData(matrix, targets, weights, chosen, classes=classes, column_index=column_index)


def _bare(at: _core.Evaluation) -> _core.Evaluation:
    """Without the curvature of every row."""
    return _core.Evaluation(at.value, at.gradient)


def _rows_touched(data: CorrectedData, touched: Touched) -> int:
    register = data.register
    if not touched.revoked:
        return register.edited_rows
    return _union([register.touched(), *touched.revoked_rows], register.row_count).size


def _union(rows: list[NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    """Row numbers below n that are in some of these lists, ascending."""
    found = np.zeros(n, dtype=bool)
    for some in rows:
        found[some] = True
    return np.flatnonzero(found)
