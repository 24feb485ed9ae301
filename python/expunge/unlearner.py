"""The face: an Unlearner holds a fitted model and its data, and applies requests to both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Self

from numpy.typing import ArrayLike

from ._numbers import as_flag
from .atomic import assign_all
from .current import CurrentData
from .described import Described
from .engine.attached import Attached
from .engine.detached import Detached
from .engine.entry import OnEntry
from .engine.fitted import Fitted, polished
from .engine.solver import DEFAULT_TOL
from .engine.state import Hessian, How, Method, Promise
from .files.saved import Saved, naming, read, write
from .models import Estimator
from .models.adopt import problem_of, rows_of
from .models.base import fit_again, noise_of, set_theta, theta_of
from .noise import check_random_state
from .receipts import check_key
from .release import (
    Against,
    Budget,
    Mechanism,
    NoBudget,
    OnExhausted,
    check_theta_bound,
    release,
)
from .requests import Request, as_requests
from .update import Update, Updates
from .verb import TakesTurns

__all__ = ["Unlearner", "Update", "Updates"]


class Unlearner(Described, CurrentData, TakesTurns):
    """Corrects a fitted linear model for what its data should not have held.

    Parameters
    ----------
    model : fitted Ridge, LogisticRegression, LinearSVC, PoissonRegressor or TweedieRegressor
        Of expunge, or of scikit-learn (L2 penalty; also GammaRegressor): docs/adoption.md lists them.
        It is updated in place, after a request has succeeded. Construction polishes it.
    X : (n, d) array, sparse matrix or frame
        What the model was fitted to. A NumPy array of float32 or float64 in C or F order, or a SciPy CSR
        matrix of such numbers, columns ascending in each row and none twice, is held by reference: never
        copied whole, never modified, and not to be modified by others. Anything else is copied once. (A CSR
        matrix is copied without revoked columns once these hold most of its entries.)
    y : (n,) array
        Targets or labels, in the form that the model was fitted to.
    sample_weight : (n,) array, optional
    ids : (n,) list, array or Series, optional
        Whom each row is about: any hashable values, of which one may be that of many rows. Requests may then
        name rows by `ids`, see :class:`RemoveRows`. A Series of pandas has the labels of X.
    key : bytes, optional
        16 or more, secret, kept apart from files: for digests of forgotten ids and labels, which :meth:`save`
        then stores, so that they are recognised after :meth:`load`.
    within : float, default=0.01, or for a budget tolerance=1e-8
        How far from retraining the model may be after a request, proven: no coefficient and no prediction is
        off by more than so many of its own standard errors (E41).
    tolerance : float, optional
        In place of `within`: absolute bound on the residual, the norm of the whole gradient on the sum scale,
        over columns far from 0 less a constant (E43). Where the rounding floor (E19) is higher, iteration
        stops there and warns. Certificates rest on it, also beside `within`; where it is not given on
        ``max(1e-8, 2**-60 n p (n/256 + 4p + 320))``, n rows and p parameters being left.
    column_index : bool, default=False
        For a sparse X: whether to keep which rows each column has entries in, one integer (4 or 8 bytes) for
        each entry. Revocations then find their rows without a look at every index of X.
    theta_bound : float, default=100.0
        What no released coefficient exceeds, for :meth:`release`. It, the tolerance and alpha are public:
        choose them without a look at what may have to be forgotten. They cannot be changed afterwards.
    epsilon, delta : float, optional
        What the noise in the objective of LogisticRegression(noise=sigma) is to be good for (E15): a budget.
    on_exhausted : {"settle", "retrain", "raise"}
        What a request does whose residual is above that budget: iterate to the tolerance, with the same
        noise; train anew with fresh noise; or raise CertificateError.
    refit : bool, default=False
        Whether the model is to be trained on these data, however far it is from their minimum.

    Attributes
    ----------
    model : the object that was passed in
    residual_on_entry : float
        Norm of the gradient of the model as it came; once a request was granted, the next power of two, as
        its digits may be those of what has left.
    distance_on_entry : float or None
        How far from the minimum on the data the model came, in standard errors (E41), likewise; 0 where it
        was there, None where the file of an earlier version does not say.
    tolerance, within, theta_bound : float
        All six are read-only.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        A model or data that are not accepted; nothing is changed. NotFittedToThisData, a ValueError, where
        the model is too far from the minimum on these data to have been fitted to them.

    See Also
    --------
    expunge.RemoveRows, expunge.AddRows, expunge.CorrectLabels, expunge.CorrectValues, expunge.RevokeFeatures
    expunge.RevokeClass
    expunge.Edit : for an Unlearner that was detached from its rows

    Examples
    --------
    >>> import expunge as ex
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = X / abs(X).max(axis=0)
    >>> un = ex.Unlearner(ex.LogisticRegression(alpha=1.0).fit(X, y), X, y)
    >>> update = un.apply([ex.RemoveRows([3, 7]), ex.CorrectLabels([12], 0)])
    >>> update.distance <= un.within
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
        ids: Any = None,
        key: bytes | None = None,
        within: float | None = None,
        tolerance: float | None = None,
        column_index: bool = False,
        theta_bound: float = 100.0,
        epsilon: float | None = None,
        delta: float | None = None,
        on_exhausted: OnExhausted = "settle",
        refit: bool = False,
    ) -> None:
        problem = problem_of(model).with_noise(noise_of(model))
        bound = check_theta_bound(theta_bound)
        budget = Budget.promised(epsilon, delta, on_exhausted, problem.noise) or NoBudget()
        column_index, refit = as_flag(column_index, "column_index"), as_flag(refit, "refit")
        rows = X, y, sample_weight, column_index, refit, ids, key
        if not isinstance(budget, NoBudget) and tolerance is None is within:
            tolerance = DEFAULT_TOL  # noise in the objective hides a residual, not a distance
        promise = Promise.checked(tolerance, within)
        engine, entry = polished(model, problem, promise, *rows)
        budget.begin(engine)
        self._assemble(Fitted(model, engine), budget, bound, entry, column_index)
        self._fitted.write(engine.state.residual)

    def _assemble(
        self,
        fitted: Fitted,
        budget: Budget | NoBudget,
        theta_bound: float,
        on_entry: OnEntry,
        column_index: bool,
    ) -> None:
        """All that an Unlearner is, however it came to be."""
        self._fitted = fitted
        self._budget = budget
        self._theta_bound = theta_bound
        self._on_entry = on_entry
        self._column_index = column_index
        self._begin_turns()

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
            while it is proven to be within `within` (E41) or `tolerance` (E10); else iterations until theta
            is: always where columns are revoked, and with a solver that keeps no Hessian.
            ``exact``: retraining's minimiser, to what rounding leaves or a measured `tolerance` (E11, E13).
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
            A request that cannot be granted. After this and all other errors nothing has changed.
        ConvergenceError, NotPositiveDefiniteError
            The numbers do not allow it.
        ToleranceExceeded, RowsRequired
            Detached: the bound is above the tolerance, or the request or its method needs the rows.

        Notes
        -----
        Detached, requests are :class:`Edit`, :class:`AddRows` and, for the squared loss,
        :class:`RevokeFeatures`; ``auto`` takes the step from the anchor if its bound is within `tolerance`,
        ``second_order`` whatever its bound, and the other methods need rows.
        """
        requests, how = as_requests(request), How.checked(method, hessian, tau)
        with self._lock, self._verb:
            self._fitted.check()
            return self._fitted.apply(requests, how, self._budget)

    def apply_each(
        self,
        requests: Iterable[Request],
        *,
        method: Method = "auto",
        thetas: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Updates:
        """Applies requests one after the other, each as :meth:`apply` would, many in one native call.

        Parameters
        ----------
        requests : list of requests
        method : as of :meth:`apply`
        thetas : bool, default=False
            Whether to keep theta after each request, which receipts need: m x p numbers.
        progress : callable, optional
            Called as ``progress(done, all)`` from time to time; it must not ask this Unlearner.

        Returns
        -------
        Updates

        Raises
        ------
        StreamStopped, StreamInterrupted
            One was refused, or there was a KeyboardInterrupt: those before stand, the others left no trace.

        Examples
        --------
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
        >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
        >>> un.apply_each([ex.RemoveRows(0), ex.RemoveRows(2)]).rows_touched
        array([1, 1])
        """
        asked, how = as_requests(requests), How.checked(method, "corrected", None)
        thetas = as_flag(thetas, "thetas")
        if not (progress is None or callable(progress)):
            raise TypeError(f"progress must be a function of two numbers, got {type(progress).__name__}")
        with self._lock, self._verb:
            self._fitted.check()
            return self._fitted.apply_each(asked, how, self._budget, thetas, progress)

    # --- certificates

    def release(
        self,
        epsilon: float,
        delta: float,
        *,
        mechanism: Mechanism = "output",
        against: Against | None = None,
        random_state: int | None = None,
    ) -> Estimator:
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
        estimator
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
        >>> bool((abs(released.coef_ - un.retrain().coef_) < 1e-5).all())
        True
        """
        seed = check_random_state(random_state)
        with self._lock, self._verb:
            self._fitted.check()
            terms = mechanism, epsilon, delta, against
            found = release(self._fitted.rows(), self._theta_bound, *terms, random_state=seed)
            return self._fitted.given_away(*found)

    # --- without the rows

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
        >>> un.attached, update.distance <= un.within
        (False, True)
        """
        with self._lock, self._verb:
            self._fitted.check()
            engine = self._fitted.engine
            if isinstance(engine, Detached):
                raise ValueError("this Unlearner is detached already")
            left, entry = engine.detached(self._budget), self._told()
            assign_all([(self._fitted, "engine", left), (self, "_on_entry", entry)])
        return self

    def attach(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        ids: Any = None,
        key: bytes | None = None,
    ) -> Self:
        """Takes the current rows back: corrected, without removed rows and revoked columns.

        Rows and columns are numbered from 0 anew, by their positions in this X.

        Parameters
        ----------
        X : (n, d) array, sparse matrix or frame
            As wide as the model is now. Held by reference as at construction.
        y : (n,) array
        sample_weight : (n,) array, optional
        ids, key : as at construction

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Already attached; other names; or these are not the current rows: their number or their gradient
            at the anchor differs from the statistics by more than rounding explains. Nothing has changed.
        """
        if key is not None:
            check_key(key)
        with self._lock, self._verb:
            self._fitted.check()
            engine = self._fitted.engine
            if not isinstance(engine, Detached):
                raise ValueError("this Unlearner has its rows: detach it first, or make a new one")
            problem, names = engine.problem.with_noise(noise_of(self.model)), engine.data.surviving_names()
            width, index = engine.data.n_columns, self._column_index
            data = rows_of(X, y, sample_weight, problem, width, names, index, ids, key, engine.data)
            self._fitted.engine = Attached.again(engine, data, problem)
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
            Whether the current rows go along, with their numbers, ids and labels: corrected, without removed
            rows, revoked columns and superseded values. Without them :meth:`load` gives a detached Unlearner.
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
            Class labels that are not bool, integer, float or text; ids or labels that are neither these nor
            bytes or tuples. Nothing was written.
        OSError
            If the file cannot be written, or `path` is a folder, a FIFO or a device.
        """
        path = os.fspath(path)  # which is the caller's code
        rows, noise = as_flag(include_rows, "include_rows"), as_flag(include_noise, "include_noise")
        with self._lock, self._verb:
            self._fitted.check()
            engine = self._fitted.rows() if rows else self._fitted.engine
            public = self._told(), self._column_index, self._theta_bound
            told = self._budget.told(engine)
            saved = Saved.of(engine, self.model, told, *public, include_rows=rows, include_noise=noise)
            write(path, saved)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, key: bytes | None = None) -> Self:
        """The Unlearner that :meth:`save` wrote, detached unless the rows went along.

        Its model is expunge's own estimator, with theta and predictions bit for bit, also where the saved one
        was adopted from scikit-learn. `key` is that of the saved one: without it, whom that had forgotten is
        not recognised.

        Raises
        ------
        ValueError
            Not a file of :meth:`save`, a newer version's, or damaged; the message names the file. What the
            file says is checked before it is used, but a forger can still write a model of his own. Or
            another key.
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
        if key is not None:
            check_key(key)
        saved, un = read(path), cls.__new__(cls)
        saved.row_names.require_key(key)
        with naming(path):
            fitted = Fitted(saved.model(), saved.engine(key))
            entry, index = saved.on_entry, saved.column_index
            un._assemble(fitted, saved.budget or NoBudget(), saved.theta_bound, entry, index)
            fitted.write(saved.residual, saved.names if saved.named else None, saved.theta)
        return un

    # --- how the model stands to its data

    def retrain(self) -> Estimator:
        """Fits a fresh expunge estimator to the corrected data: what `model` should equal.

        With the model's alpha, fit_intercept and noise in the objective. RowsRequired where detached.
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            data, fresh, names = self._fitted.current(), self._fitted.fresh(), self._fitted.names()
            engine = self._fitted.engine
            noise = engine.problem.noise and engine.problem.noise.of(engine.data.kept)
        fit_again(fresh, noise, *data)
        if names is not None:
            set_theta(fresh, theta_of(fresh), fresh.residual_, names=names)
        return fresh
