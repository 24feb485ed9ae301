"""What an Unlearner tells of the data that its model now stands for, and whose they are."""

from __future__ import annotations

from collections.abc import Hashable
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import Float, Index
from ._numbers import as_flag
from .engine.fitted import Fitted
from .engine.near import distance_now, standard_errors
from .engine.row_names import names_given
from .verb import Verb

__all__ = ["CurrentData"]


class CurrentData:
    """Questions about rows and columns as they are now."""

    _fitted: Fitted
    _lock: RLock
    _verb: Verb

    def corrected_data(
        self, *, return_rows: bool = False, return_ids: bool = False, as_frame: bool = False
    ) -> tuple[Any, ...]:
        """The data that the model now stands for, as copies.

        Parameters
        ----------
        return_rows, return_ids : bool, default=False
            Whether to return the rows' numbers and ids as well.
        as_frame : bool, default=False
            Whether X is to be a frame, as the X that was handed over: of the same library, with the names of
            its columns and, of pandas, with the labels of its rows (None where a row has none).

        Returns
        -------
        X : (n, d) array, CSR matrix where X is sparse, or frame
            Rows in the order of their numbers, removed ones left out; surviving columns.
        y : (n,) array
            Targets, or labels in the model's classes.
        sample_weight : (n,) array or None
            The rows' own, without those of a `class_weight`; None if none were ever given.
        rows : (n,) array of int
            With `return_rows`.
        ids : list of n
            With `return_ids`.

        Raises
        ------
        RowsRequired
            Detached.
        ValueError
            `return_ids` without ids, `as_frame` where X was no frame.
        ImportError
            `as_frame` after :meth:`Unlearner.load`, without the frame's library.
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            return self._fitted.current(rows=return_rows, ids=return_ids, as_frame=as_frame)

    def get_support(self, indices: bool = False) -> NDArray[Any]:
        """Which columns of the X that was handed over, last by :meth:`Unlearner.attach`, survive.

        Parameters
        ----------
        indices : bool
            Whether to return positions instead of a mask.

        Returns
        -------
        (n_features,) bool array, or positions of the surviving columns
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            kept = self._fitted.engine.data.kept
        return np.flatnonzero(kept) if as_flag(indices, "indices") else kept.copy()

    # --- how well theta is known

    def residual(self) -> float:
        """Norm of the gradient of the corrected objective at the model's theta, by one pass.

        Euclidean, intercept included, on the sum scale. RowsRequired where detached.
        """
        with self._lock, self._verb:
            self._fitted.check()
            engine = self._fitted.rows()
            return engine.objective().evaluate(engine.state.theta).residual

    def distance(self) -> float:
        """A bound of how far the model is from the minimum on the current data, in standard errors (E41).

        No coefficient, and no prediction, is further from it than so many standard errors of its own.
        Measured now: one pass, one Hessian where its factor is kept, and the rounding floor. RowsRequired
        where detached.

        Examples
        --------
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
        >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
        >>> un.distance() < 1e-6
        True
        """
        with self._lock, self._verb:
            self._fitted.check()
            return distance_now(self._fitted.rows())

    def standard_errors(self, columns: Any = None) -> Float:
        """Standard errors of the coefficients of surviving columns, and last of the intercept, if any.

        ``sqrt(diag H^-1)``, the penalty taken for a prior; for the squared loss times sigma, sigma^2 the
        residual sum of squares over the weights' sum less the effective parameters. Not the sandwich, which
        may be smaller.

        Parameters
        ----------
        columns : as of :class:`RevokeFeatures`, optional
            Of these coefficients alone. They need no factor of the whole Hessian.

        Returns
        -------
        (p,) array, or one for each of the columns; of K > 2 classes a row for each

        Raises
        ------
        ValueError
            A factor of the whole Hessian is needed, and the model's solver does not keep one.
        RowsRequired
            Detached.

        Examples
        --------
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
        >>> un = ex.Unlearner(ex.Ridge(alpha=1e-9).fit(X, y), X, y)
        >>> un.standard_errors().round(4)
        array([0.1118, 0.285 ])
        """
        with self._lock, self._verb:
            self._fitted.check()
            engine = self._fitted.rows()
            chosen = None
            if columns is not None:
                chosen = np.cumsum(engine.data.kept)[engine.data.surviving_columns(columns)] - 1
            return standard_errors(engine, chosen)

    # --- whose rows these are

    def rows_of(self, id: Hashable) -> Index:
        """The numbers of all rows that have this id and are in the data.

        Raises
        ------
        UnknownId
            No row has it, nor is it known that one had it.
        AlreadyForgotten
            All of its rows have left.
        ValueError
            The Unlearner was made without ids.
        RowsRequired
            Detached: ids went with the rows.

        Examples
        --------
        >>> import expunge as ex
        >>> X, y = [[0.0], [1.0], [3.0]], [0, 1, 2]
        >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y, ids=["ann", "bob", "ann"])
        >>> un.rows_of("ann")
        array([0, 2])
        >>> un.apply(ex.RemoveRows(ids=["ann"])).rows_touched, un.is_forgotten("ann")
        (2, True)
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            return self._fitted.rows().data.select(None, names_given([id], "id"), None, "raise").rows

    def is_forgotten(self, id: Hashable) -> bool:
        """Whether rows had this id, and all of them have left.

        False too where that is not known: of an id that was never here, after :meth:`drop_tombstones`, and of
        what left before a file was saved without a `key`. Errors as in :meth:`rows_of`, except for its first
        two.
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            return self._fitted.rows().data.is_forgotten(names_given([id], "id")[0])

    def drop_tombstones(self) -> None:
        """Forgets who was forgotten: the digests of ids and labels whose rows have left.

        A request that names one of these then raises UnknownId. RowsRequired where detached: nothing is kept.
        """
        with self._lock, self._verb:
            self._fitted.engine.data.rollback()
            self._fitted.rows().data.drop_tombstones()
