"""The engine's face: an Unlearner holds a fitted model and its data, and applies requests to both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import Blocks, Float, as_matrix, as_penalty, as_weights, frame_names, match_columns
from .adopt import encode_targets, specification
from .data import CorrectedData, Touched
from .errors import ConvergenceError
from .linear import LogisticRegression, Ridge, check_enough, check_tolerance, minimize, set_theta, theta_of
from .losses import Loss, get_loss
from .requests import Request
from .updates import first_order_update, gram_norm_bound, safe_tau, second_order_update

__all__ = ["Unlearner", "Update"]

Method = Literal["exact", "second_order", "first_order"]
Hessian = Literal["corrected", "original"]

MAX_ITER = 200  # Newton iterations of one settle; a handful is usual


@dataclass(frozen=True)
class Update:
    """What one request did, so that a sceptic can check it.

    Attributes
    ----------
    method : {"exact", "second_order", "first_order"}
    step : (p,) array
        New theta minus old, over the surviving coordinates, intercept last.
    gradient_difference : (p,) array
        Gradient of the corrected objective minus that of the old one, both at the old theta, over the
        surviving coordinates (E3; for revoked features the old theta is cut down to them, E12).
    residual : float or None
        Norm of the gradient of the corrected objective at the new theta, from a pass over the corrected
        data; None where no pass was made.
    passes : int
        Passes over all rows: gradients, Hessian products, Hessians, rounding floors.
    hessian : {"corrected", "original"} or None
        Which Hessian a second-order update used (E5).
    tau : float or None
        Step size of a first-order update (E4).
    rows_touched : int
        Rows removed, added or corrected; rows not 0 in a revoked column.
    features_revoked : int
    seconds : float
        Wall time of the request.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> update = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0]))
    >>> update.method, update.step.shape, update.residual < 1e-8
    ('exact', (2,), True)
    """

    method: str
    step: Float
    gradient_difference: Float
    residual: float | None
    passes: int
    hessian: str | None = None
    tau: float | None = None
    rows_touched: int = 0
    features_revoked: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        how = self.method
        if self.hessian is not None:
            how += f" (hessian={self.hessian})"
        if self.tau is not None:
            how += f" (tau={self.tau:.3g})"
        residual = "not measured" if self.residual is None else f"{self.residual:.3g}"
        return (
            f"Update: {how}\n"
            f"  rows touched {self.rows_touched}, features revoked {self.features_revoked}\n"
            f"  |step| {np.linalg.norm(self.step):.3g}, "
            f"|gradient difference| {np.linalg.norm(self.gradient_difference):.3g}\n"
            f"  residual {residual}, passes {self.passes}, {1e3 * self.seconds:.3g} ms"
        )


@dataclass(frozen=True)
class _State:
    """theta with J and its gradient there, and the Hessian of the current data at an anchor (E8)."""

    theta: Float
    value: float
    gradient: Float
    residual: float
    anchor: _core.Anchor
    gram_norm: float | None = None  # upper bound of |S^1/2 X|^2 when a first-order update last asked for it,
    gram_added: float = 0.0  # and what requests since may have added to it


@dataclass(frozen=True)
class _Edit:
    """One request, staged in the data: D' is current, and nothing else has changed yet."""

    objective: _core.Objective  # D', surviving columns
    before: _core.Objective | None  # the touched rows alone, columns as before the request
    after: _core.Objective | None
    kept: NDArray[np.int64]  # coordinates of the old theta that survive
    dropped: NDArray[np.int64]  # and that are revoked
    gram_added: float  # sum of s |x|^2 over rows that may add to the Gram matrix
    many_rows: bool  # so many that the Hessian is better assembled anew


class Unlearner:
    """Corrects a fitted linear model for what its data should not have held.

    Parameters
    ----------
    model : fitted Ridge or LogisticRegression
        Of expunge, or of scikit-learn (L2 penalty, binary, intercept not penalised; alpha or 1/C is lambda).
        It is updated in place, after a request has succeeded. Construction polishes it to `tolerance`.
    X : (n, d) array or frame
        What the model was fitted to. A NumPy array of float32 or float64 in C or F order is held by
        reference: never copied whole, never modified, and not to be modified by others. Anything else is
        copied once.
    y : (n,) array
        Targets or labels, in the form that the model was fitted to.
    sample_weight : (n,) array, optional
    tolerance : float, default=1e-8
        Absolute bound on the Euclidean norm of the whole gradient, intercept included, on the sum scale.
        Where the rounding floor of the data (E19) is higher, iteration stops there and warns.

    Attributes
    ----------
    model : the object that was passed in
    residual_on_entry : float
        Norm of the gradient of the model as it came.
    tolerance : float

    Raises
    ------
    NotFittedError, TypeError, ValueError
        A model or data that are not accepted; nothing is changed.

    See Also
    --------
    expunge.RemoveRows, expunge.AddRows, expunge.CorrectLabels, expunge.CorrectValues, expunge.RevokeFeatures

    Examples
    --------
    >>> import expunge as ex
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = X / abs(X).max(axis=0)
    >>> un = ex.Unlearner(ex.LogisticRegression(alpha=1.0).fit(X, y), X, y)
    >>> update = un.apply([ex.RemoveRows([3, 7]), ex.CorrectLabels([12], 0)])
    >>> update.residual <= un.tolerance
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
    ) -> None:
        spec = specification(model)
        self.tolerance = check_tolerance(tolerance, "tolerance")
        theta = theta_of(model)
        if not np.isfinite(theta).all():
            raise ValueError("the model's coefficients contain NaN or infinity: refit it")
        fitted_names = getattr(model, "feature_names_in_", None)
        if match_columns(X, fitted_names) is not X:
            raise ValueError(
                "X has more columns than the model, which leaves open what positions mean: pass "
                "X[list(model.feature_names_in_)]"
            )
        matrix = as_matrix(X, columns=theta.size - spec.fit_intercept)
        names = frame_names(X) or fitted_names
        if not isinstance(X, np.ndarray) and matrix.base is not None:
            matrix = matrix.copy()  # a view into a frame, which its owner may change
        n = matrix.shape[0]
        targets, weights = encode_targets(y, n, spec), as_weights(sample_weight, n)
        if n == 0:
            raise ValueError("X has no rows")
        check_enough(targets, weights, classes=spec.classes is not None)

        self.model = model
        self._spec = spec
        self._encode = partial(encode_targets, spec=spec)
        self._data = CorrectedData(matrix, targets, weights, names, classes=spec.classes is not None)
        objective = self._objective()
        at = objective.evaluate(theta)
        self.residual_on_entry = at.residual
        minimum = minimize(objective, theta, self.tolerance, MAX_ITER, start=at, stacklevel=3)
        anchor = _core.Anchor(objective, minimum.theta)
        self._state = _State(minimum.theta, minimum.value, minimum.gradient, minimum.residual, anchor)
        set_theta(model, minimum.theta, minimum.residual)

    # --- requests

    def apply(
        self,
        request: Request | Iterable[Request],
        *,
        method: Method = "exact",
        hessian: Hessian = "corrected",
        tau: float | None = None,
    ) -> Update:
        """Corrects data and model.

        Parameters
        ----------
        request : request or list of requests
            A list means its members applied in order, as one atomic request.
        method : {"exact", "second_order", "first_order"}
            How theta is chosen for the corrected data; data and statistics follow the request in any case,
            so methods may be mixed. ``exact``: retraining's minimiser, to `tolerance` (E11, E13).
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
        """
        requests = [request] if not isinstance(request, Iterable) else list(request)
        for r in requests:
            if not isinstance(r, Request):
                raise TypeError(f"{r!r} is not a request: pass RemoveRows, AddRows and the like")
        self._check_arguments(method, hessian, tau)
        self._check_model()
        started = perf_counter()
        original = self._anchor_here() if hessian == "original" else None
        with self._data.transaction() as touched:
            for r in requests:
                r.edit(self._data, self._encode)
            edit = self._stage(touched)
            state, update = self._choose(edit, method, original, tau)
            if not (np.isfinite(state.theta).all() and np.isfinite(state.value + state.residual)):
                raise ConvergenceError("the step leaves the range of floating point: use method='exact'")
            update = replace(
                update, rows_touched=self._rows_touched(touched), features_revoked=len(touched.revoked)
            )
            self._publish(state)
        return replace(update, seconds=perf_counter() - started)

    def _check_arguments(self, method: str, hessian: str, tau: float | None) -> None:
        if method not in get_args(Method):
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(get_args(Method))}")
        if hessian not in get_args(Hessian):
            raise ValueError(f"unknown hessian {hessian!r}: choose one of {', '.join(get_args(Hessian))}")
        if hessian != "corrected" and method != "second_order":
            raise ValueError(f"hessian={hessian!r} is an option of method='second_order'")
        if tau is not None and method != "first_order":
            raise ValueError("tau is an option of method='first_order'")

    def _check_model(self) -> None:
        if not np.array_equal(theta_of(self.model), self._state.theta):
            raise ValueError("the model was changed outside of this Unlearner: make a new one")

    def _publish(self, state: _State) -> None:
        """The last act of a request: model and statistics become the new ones, or stay the old ones."""
        named = hasattr(self.model, "feature_names_in_")
        old, old_names = self._state, list(self.model.feature_names_in_) if named else None

        def restore() -> None:
            if not np.array_equal(theta_of(self.model), old.theta):  # set_theta cleans up after itself
                set_theta(self.model, old.theta, old.residual, names=old_names)
            self._state = old

        self._data.on_rollback(restore)
        names = self._data.surviving_names() if named else None
        set_theta(self.model, state.theta, state.residual, names=names)
        self._state = state

    def _rows_touched(self, touched: Touched) -> int:
        added = sum(rows.size for rows in touched.added)
        if not touched.revoked:
            return len(touched.rows) + added
        found = self._data.rows_with_values_in(touched.revoked)
        found[list(touched.rows)] = True
        for rows in touched.added:
            found[rows] = True
        return int(np.count_nonzero(found))

    def _stage(self, touched: Touched) -> _Edit:
        data, fit_intercept = self._data, self._spec.fit_intercept
        before, after = data.finish()
        width = data.kept.copy()
        width[touched.revoked] = True
        columns = np.flatnonzero(width)
        penalty = as_penalty(0.0, columns.size, fit_intercept)

        def rows_alone(blocks: Blocks | None) -> _core.Objective | None:
            if blocks is None:
                return None
            return _core.Objective(blocks, self._spec.loss, penalty, fit_intercept, columns)

        survives = np.append(data.kept[columns], np.ones(int(fit_intercept), dtype=bool))
        gram_added = sum(
            float(s @ (np.square(X, dtype=np.float64).sum(axis=1) + fit_intercept))
            for X, _, s in after or []
            if s is not None
        )
        count = len(touched.rows) + sum(rows.size for rows in touched.added)
        return _Edit(
            objective=self._objective(),
            before=rows_alone(before),
            after=rows_alone(after),
            kept=np.flatnonzero(survives),
            dropped=np.flatnonzero(~survives),
            gram_added=gram_added,
            many_rows=4 * count > int(data.counts.sum()),
        )

    def _objective(self) -> _core.Objective:
        """E1 on the current data."""
        spec, columns = self._spec, self._data.columns()
        penalty = as_penalty(spec.alpha, columns.size, spec.fit_intercept)
        return _core.Objective(self._data.blocks(), spec.loss, penalty, spec.fit_intercept, columns)

    # --- how theta is chosen for the corrected data

    def _choose(
        self, edit: _Edit, method: Method, original: _core.Anchor | None, tau: float | None
    ) -> tuple[_State, Update]:
        old, objective, passes = self._state, edit.objective, 0
        theta = np.ascontiguousarray(old.theta[edit.kept])  # E12: revoked coordinates drop
        difference = _core.gradient_difference(edit.before, edit.after, old.theta)  # E3
        whole = old.gradient + difference.gradient  # on the corrected rows, before coordinates drop
        if edit.dropped.size:
            at = objective.evaluate(theta)
            passes += 1
            g_Z = at.gradient - old.gradient[edit.kept]
        else:
            at, g_Z = _core.Evaluation(old.value + difference.value, whole), difference.gradient

        # The Hessian of the corrected data at the anchor: up to date, or else good for preconditioning.
        edited = self._edited_anchor(edit)
        anchor = edited and (edited.drop(edit.dropped.tolist()) if edit.dropped.size else edited)
        up_to_date = anchor is not None and (self._constant_hessian or not edit.dropped.size)

        hessian: Hessian | None = None
        gram_norm, gram_added = old.gram_norm, old.gram_added + edit.gram_added
        measured: _core.Evaluation | _core.Minimum
        if method == "exact":
            start = theta
            if edited is not None and anchor is not None and edit.dropped.size:
                coupling = edited.hessian[np.ix_(edit.kept, edit.dropped)] @ old.theta[edit.dropped]
                eliminated = theta + anchor.solve(coupling - whole[edit.kept])  # E13
                there = objective.evaluate(eliminated)
                passes += 1
                if there.residual < at.residual:
                    start, at = eliminated, there
            measured = minimize(
                objective, start, self.tolerance, MAX_ITER, anchor=anchor, start=at, stacklevel=4
            )
            passes += measured.passes
            new = measured.theta
            if measured.anchor is not None and measured.anchor is not anchor:
                anchor, up_to_date = measured.anchor, True
        else:
            if method == "second_order" and original is None:
                if anchor is None or not (up_to_date and self._is_hessian_at(theta, anchor)):
                    anchor, up_to_date = _core.Anchor(objective, theta), True
                    passes += 1
                new = second_order_update(theta, at.gradient, anchor)  # E5
                hessian = "corrected"
            elif original is not None:
                g = np.zeros_like(old.theta)
                g[edit.kept] = at.gradient
                g[edit.dropped] = self._spec.alpha * old.theta[edit.dropped]  # their data are gone (E12)
                new = second_order_update(old.theta, g, original)[edit.kept]  # E5
                passes += original is not old.anchor
                hessian = "original"
            else:
                if tau is None:
                    if gram_norm is None or gram_added > gram_norm:
                        gram_norm, gram_added = gram_norm_bound(self._gram(edit)), 0.0
                        passes += 1
                    tau = safe_tau(gram_norm + gram_added, self._spec.alpha, self._loss)
                new = first_order_update(theta, at.gradient, tau)  # E4
            measured = objective.evaluate(new)
            passes += 1
        if anchor is None or not up_to_date:
            # At the minimum, or where the request started: a closed-form step may end where J is flat.
            anchor = _core.Anchor(objective, new if method == "exact" else theta)
            passes += 1
        state = _State(
            new, measured.value, measured.gradient, measured.residual, anchor, gram_norm, gram_added
        )
        update = Update(
            method=method,
            step=new - theta,
            gradient_difference=g_Z,
            residual=measured.residual,
            passes=passes,
            hessian=hessian,
            tau=tau,
        )
        return state, update

    @property
    def _loss(self) -> Loss:
        return get_loss(self._spec.loss)

    @property
    def _constant_hessian(self) -> bool:
        return self._loss.max_d3 == 0

    def _is_hessian_at(self, theta: Float, anchor: _core.Anchor) -> bool:
        return self._constant_hessian or np.array_equal(anchor.theta, theta)

    def _edited_anchor(self, edit: _Edit) -> _core.Anchor | None:
        """The anchor of the corrected rows, before coordinates drop; None if it must be assembled anew."""
        if edit.many_rows:
            return None
        if edit.before is None and edit.after is None:
            return self._state.anchor
        return self._state.anchor.edit(edit.before, edit.after)

    def _anchor_here(self) -> _core.Anchor:
        """H of the data before the request, at the model's theta."""
        theta, anchor = self._state.theta, self._state.anchor
        return anchor if self._is_hessian_at(theta, anchor) else _core.Anchor(self._objective(), theta)

    def _gram(self, edit: _Edit) -> Float:
        """X^T S X of the corrected data, X extended by 1 with an intercept: the squared loss's Hessian."""
        fit_intercept, d = self._spec.fit_intercept, edit.kept.size - self._spec.fit_intercept
        penalty = as_penalty(0.0, d, fit_intercept)
        blocks, columns = self._data.blocks(), self._data.columns()
        squared = _core.Objective(blocks, "squared", penalty, fit_intercept, columns)
        return squared.hessian(np.zeros(edit.kept.size))

    # --- the current data

    def residual(self) -> float:
        """Norm of the gradient of the corrected objective at the model's theta, by one pass.

        Returns
        -------
        float
            Euclidean, intercept included, on the sum scale.
        """
        self._check_model()
        return self._objective().evaluate(self._state.theta).residual

    def retrain(self) -> Ridge | LogisticRegression:
        """Fits a fresh expunge estimator to the corrected data: what `model` should equal.

        Returns
        -------
        Ridge or LogisticRegression
            With the model's alpha and fit_intercept, and tol = `tolerance`.
        """
        kind = Ridge if self._spec.classes is None else LogisticRegression
        fresh = kind(
            self._spec.alpha, fit_intercept=self._spec.fit_intercept, tol=self.tolerance, max_iter=MAX_ITER
        )
        fresh.fit(*self.corrected_data())
        if hasattr(self.model, "feature_names_in_"):
            set_theta(fresh, theta_of(fresh), fresh.residual_, names=self._data.surviving_names())
        return fresh

    def corrected_data(self) -> tuple[NDArray[Any], NDArray[Any], Float | None]:
        """The data that the model now stands for, as copies.

        Returns
        -------
        X : (n, d) array
            Rows in the order of their numbers, removed ones left out; surviving columns.
        y : (n,) array
            Targets, or labels in the model's classes.
        sample_weight : (n,) array or None
            None if none were ever given.
        """
        X, y, s = self._data.current()
        if self._spec.classes is None:
            return X, y, s
        return X, self._spec.classes[y.astype(np.intp)], s

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Which columns of the X that was handed over survive.

        Parameters
        ----------
        indices : bool
            Whether to return positions instead of a mask.

        Returns
        -------
        (n_features,) bool array, or positions of the surviving columns
        """
        return np.flatnonzero(self._data.kept) if indices else self._data.kept.copy()
