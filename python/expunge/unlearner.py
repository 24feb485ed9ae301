"""The face: an Unlearner holds a fitted model and its data, and applies requests to both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from threading import RLock
from time import perf_counter
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Float, as_matrix, as_weights, frame_names, match_columns
from ._numbers import as_number, power_of_two_above
from .atomic import assign_all
from .engine.attached import MAX_ITER, Attached
from .engine.data import CorrectedData
from .engine.detached import Detached
from .engine.solver import check_solver
from .engine.state import Hessian, How, Method, State
from .errors import RowsRequired
from .files.saved import Saved, naming, read, write
from .models import LogisticRegression, Ridge
from .models.adopt import problem_of
from .models.base import fit_again, fitted_attributes, noise_of, set_theta, theta_of
from .noise import check_random_state
from .problem import Problem
from .receipts import versions
from .release import (
    Against,
    Budget,
    Certificate,
    Mechanism,
    NoBudget,
    OnExhausted,
    Terms,
    check_theta_bound,
    release,
)
from .requests import Request, as_requests
from .update import Update
from .verb import Verb

__all__ = ["Unlearner", "Update"]


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
        problem = problem_of(model).with_noise(noise_of(model))
        ours = isinstance(model, Ridge | LogisticRegression)
        solver = getattr(model, "solver", "auto") if ours else "auto"
        memory_limit = getattr(model, "memory_limit", None)
        check_solver(solver, memory_limit)
        tolerance = as_number(tolerance, "tolerance")
        theta_bound = check_theta_bound(theta_bound)
        budget = Budget.promised(epsilon, delta, on_exhausted, problem.noise) or NoBudget()
        theta = theta_of(model)
        if not np.isfinite(theta).all():
            raise ValueError("the model's coefficients contain NaN or infinity: refit it")
        names = getattr(model, "feature_names_in_", None)
        width = problem.split(theta)[0].size
        data = rows_of(X, y, sample_weight, problem, width, names, bool(column_index))
        engine = Attached(problem, data, tolerance, solver, memory_limit)
        entry = engine.begin_at(theta)
        budget.begin(engine)
        self._assemble(model, engine, budget, theta_bound, entry, bool(column_index))
        self._write(engine.state.residual, None)

    def _assemble(
        self,
        model: Any,
        engine: Attached | Detached,
        budget: Budget | NoBudget,
        theta_bound: float,
        residual_on_entry: float,
        column_index: bool,
    ) -> None:
        """All that an Unlearner is, however it came to be."""
        self._model = model
        self._engine = engine
        self._budget = budget
        self._theta_bound = theta_bound
        self._residual_on_entry = residual_on_entry
        self._column_index = column_index
        self._lock, self._verb = RLock(), Verb()

    def _write(self, residual: float | None, names: list[str] | None) -> None:
        """Theta into the model."""
        engine = self._engine
        noise = engine.problem.noise and engine.problem.noise.of(engine.data.kept)
        set_theta(self._model, engine.state.theta, residual, names=names, noise=noise)
        # A model of ours is as it was written while this is what it is fitted to.
        self._published = getattr(self._model, "_fitted", None)

    # --- what was chosen at construction, and stays: certificates rest on it

    @property
    def model(self) -> Any:
        """The object that was passed in."""
        return self._model

    @property
    def tolerance(self) -> float:
        """What the norm of the gradient is at most after a request, on the sum scale."""
        return self._engine.tolerance

    @property
    def theta_bound(self) -> float:
        """What no released coefficient exceeds."""
        return self._theta_bound

    @property
    def residual_on_entry(self) -> float:
        """Norm of the gradient of the model as it came, or the next power of two; see the class."""
        entry = self._residual_on_entry
        return power_of_two_above(entry) if self._engine.data.changed else entry

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
        requests, how = as_requests(request), How.checked(method, hessian, tau)
        with self._lock, self._verb:
            self._check_model()
            return self._applied(requests, how)

    def _applied(self, requests: Sequence[Request], how: How) -> Update:
        started, engine = perf_counter(), self._engine
        try:
            staged = engine.stage(requests, how)
            state, outcome = engine.choose(staged)
            state, problem, outcome = self._budget.within(engine, staged, state, outcome)
            record = (
                staged.named,
                engine.state.theta,
                state.theta,
                problem.described,
                engine.tolerance,
                engine.attached,
                versions(),
            )
            update = Update.from_outcome(outcome, staged, record, started)
            self._publish(state, problem, revoked=staged.features_revoked > 0)
        except BaseException:
            engine.data.rollback()
            raise
        return update

    def _check_model(self) -> None:
        """Raises if others changed the model; first undoes a request whose undoing was interrupted."""
        self._engine.data.rollback()
        published = self._published
        if published is not None and getattr(self._model, "_fitted", None) is published:
            return
        if not np.array_equal(theta_of(self._model), self._engine.state.theta):
            raise ValueError("the model was changed outside of this Unlearner: make a new one")

    def _publish(self, state: State, problem: Problem, *, revoked: bool) -> None:
        """The last act of a request: model, statistics and data become the new ones, or stay the old ones.

        `revoked`: whether the names of the model's columns may have changed.
        """
        engine, names, own = self._engine, None, None
        if revoked and hasattr(self._model, "feature_names_in_"):
            names = engine.data.surviving_names()
        if problem.noise is not None:  # dropped features drop their entries (E12)
            problem = problem.with_noise(problem.noise.without(~engine.data.kept))
            own = problem.noise and problem.noise.of(engine.data.kept)
        fitted = fitted_attributes(self._model, state.theta, state.residual, names, own)
        _, name, value = fitted[0]
        published = value if name == "_fitted" else None
        assign_all([*fitted, (self, "_published", published), *engine.changes(state, problem)])

    # --- certificates

    @property
    def budget(self) -> Budget | None:
        """What the noise in the objective is good for and how much of it is taken; None without a promise.

        See `epsilon`, `delta` and `on_exhausted` at construction.
        """
        with self._lock:
            budget = self._budget
            return replace(budget, spent=self._engine.state.profile) if isinstance(budget, Budget) else None

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
            engine = self._rows_here()
            theta, certificate = release(engine, self._terms(mechanism, epsilon, delta, against), seed)
            return self._given_away(theta, certificate)

    def _terms(self, mechanism: Any, epsilon: Any, delta: Any, against: Any) -> Terms:
        engine, problem = self._engine, self._engine.problem
        return Terms.checked(
            mechanism,
            epsilon,
            delta,
            against,
            tolerance=engine.tolerance,
            alpha=problem.alpha,
            theta_bound=self._theta_bound,
            noise=problem.noise,
        )

    def _given_away(self, theta: Float, certificate: Certificate) -> Ridge | LogisticRegression:
        engine, model, names = self._engine, self._fresh(), None
        if hasattr(self._model, "feature_names_in_"):
            names = engine.data.surviving_names()
        if engine.problem.classes is not None:
            model.classes_ = engine.problem.classes
        noise = engine.problem.noise
        hidden = noise and replace(noise.lost(), draws=0)  # how many draws tells of requests
        set_theta(model, theta, None, names=names, noise=hidden)
        model.certificate_ = certificate
        return model

    # --- without the rows

    @property
    def attached(self) -> bool:
        """Whether the rows are here; after :meth:`detach` only statistics are."""
        return self._engine.attached

    def _rows_here(self) -> Attached:
        """The engine, or RowsRequired."""
        if isinstance(self._engine, Detached):
            raise RowsRequired(
                "this Unlearner is detached and holds no rows: attach(X, y) the current ones first"
            )
        return self._engine

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
            if isinstance(self._engine, Detached):
                raise ValueError("this Unlearner is detached already")
            engine, entry = self._engine.detached(self._budget), self.residual_on_entry
            assign_all([(self, "_engine", engine), (self, "_residual_on_entry", entry)])
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
            engine = self._engine
            if not isinstance(engine, Detached):
                raise ValueError("this Unlearner has its rows: detach it first, or make a new one")
            problem, names = engine.problem.with_noise(noise_of(self._model)), engine.data.surviving_names()
            data = rows_of(X, y, sample_weight, problem, engine.data.n_columns, names, self._column_index)
            self._engine = Attached.again(engine, data, problem)
        return self

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
        engine, model = self._engine, self._model
        data, state, problem = engine.data, engine.state, engine.problem
        noise = problem.noise
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
        rows = None
        if include_rows:
            here = self._rows_here().data
            rows = (*here.streamed(), here.n_rows)
        statistics = engine.statistics() if rows is None or engine.keeps_statistics() else None
        residual = model.residual_ if ours else state.residual
        if residual is not None and data.changed:  # it has digits of the rows of a request
            residual = power_of_two_above(residual)
        return Saved(
            problem=problem,
            parameters={
                "tol": model.tol if ours else engine.tolerance,
                "max_iter": model.max_iter if ours else MAX_ITER,
                "solver": engine.solver,
                "memory_limit": engine.memory_limit,
            },
            theta=state.theta,
            residual=residual,
            n_iter=getattr(model, "n_iter_", None) if ours else None,  # of an adopted one unknown
            named=hasattr(model, "feature_names_in_"),
            tolerance=engine.tolerance,
            residual_on_entry=self.residual_on_entry,
            column_index=self._column_index,
            kept=data.kept,
            names=data.surviving_names(),
            counts=data.counts,
            weighted=data.weighted,
            dtype=data.dtype,
            is_sparse=data.is_sparse,
            since_anchor=0 if engine.attached else state.effort.requests,
            statistics=statistics,
            rows=rows,
            noise=noise and noise.of(data.kept),
            theta_bound=self._theta_bound,
            budget=self._budget.told(engine),
        )

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
        problem, noise, parameters = saved.problem, saved.noise, dict(saved.parameters)
        kind = Ridge if problem.classes is None else LogisticRegression
        if noise is not None:
            parameters |= {"noise": noise.sigma, "random_state": noise.random_state}
        model = kind(problem.alpha, fit_intercept=problem.fit_intercept, **parameters)
        if problem.classes is not None:
            model.classes_ = problem.classes
        if saved.n_iter is not None:
            model.n_iter_ = saved.n_iter
        engine = saved.engine()
        entry, index = saved.residual_on_entry, saved.column_index
        self._assemble(model, engine, saved.budget or NoBudget(), saved.theta_bound, entry, index)
        self._write(saved.residual, saved.names if saved.named else None)

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
            engine = self._rows_here()
            return engine.objective().evaluate(engine.state.theta).residual

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
            self._engine.data.rollback()
            engine, names = self._rows_here(), None
            data, fresh, noise = self._corrected(), self._fresh(), engine.problem.noise
            noise = noise and noise.of(engine.data.kept)
            if hasattr(self._model, "feature_names_in_"):
                names = engine.data.surviving_names()
        fit_again(fresh, noise, *data)
        if names is not None:
            set_theta(fresh, theta_of(fresh), fresh.residual_, names=names)
        return fresh

    def _fresh(self) -> Ridge | LogisticRegression:
        """An estimator of ours for this objective, not fitted."""
        engine, problem = self._engine, self._engine.problem
        parameters: dict[str, Any] = {
            "fit_intercept": problem.fit_intercept,
            "tol": engine.tolerance,
            "max_iter": MAX_ITER,
            "solver": engine.solver,
            "memory_limit": engine.memory_limit,
        }
        if problem.classes is None:
            return Ridge(problem.alpha, **parameters)
        if problem.noise is not None:
            parameters |= {"noise": problem.noise.sigma, "random_state": problem.noise.random_state}
        return LogisticRegression(problem.alpha, **parameters)

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
            self._engine.data.rollback()
            return self._corrected()

    def _corrected(self) -> tuple[Any, NDArray[Any], Float | None]:
        engine = self._rows_here()
        X, y, s = engine.data.current()
        return X, engine.problem.decode(y), s

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
            self._engine.data.rollback()
            kept = self._engine.data.kept
        return np.flatnonzero(kept) if indices else kept.copy()


def rows_of(
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    problem: Problem,
    width: int,
    names: Sequence[str] | None,
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
    targets, weights = problem.encode(y, n), as_weights(sample_weight, n)
    if n == 0:
        raise ValueError("X has no rows")
    problem.check_enough(targets, weights)
    classes, chosen = problem.classes is not None, frame_names(X) or names
    return CorrectedData(matrix, targets, weights, chosen, classes=classes, column_index=column_index)
