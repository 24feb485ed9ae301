"""Gradient descent on the corrected data: fine-tuning by mini-batches, and DeltaGrad."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import Float
from .._numbers import as_count, as_number
from ..engine.state import Staged
from ..noise import check_random_state
from ..requests import AddRows, CorrectLabels, CorrectValues, RemoveRows
from ..updates import safe_tau
from .base import Engine, Memory, Solution, Strategy


class FineTuning(Strategy):
    """Stochastic gradient descent on the corrected data, from the old theta.

    A step on a mini-batch B of b rows, of n, is

        theta - tau (sum_B s d1 x / b + (Lambda theta + noise) / n)

    so that its expectation is the full gradient over n: the penalty counts once in a pass, not in each step.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`
    epochs : float, default=1.0
        The budget, in passes over the corrected rows. Rows come in random order, without replacement.
    gradients : int, optional
        In place of it: the budget in per-sample gradients.
    batch_size : int, default=32
        The last one of a pass may be smaller.
    learning_rate : float, optional
        The first tau. By default ``1 / (2 L)``, L the expected smoothness of a batch,

            L = (n (b - 1) / (b (n - 1))) L_all + ((n - b) / (b (n - 1))) L_one

        on the data handed over, with ``L_all = (c |S^1/2 X|^2 + alpha) / n`` of the whole objective,
        ``L_one = c max s max |x|^2 + alpha / n`` of one row, and c the largest d2. From there tau falls
        linearly to 0 over the budget.
    random_state : int, optional

    Attributes
    ----------
    name : "fine_tuning"
    learning_rate : float

    Raises
    ------
    ValueError
        A budget, batch or rate that is not positive.

    Notes
    -----
    The rate is that of R. M. Gower et al., *SGD: General Analysis and Improved Rates*, ICML 2019. As a way of
    unlearning fine-tuning has no bound of what stays.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import FineTuning
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> y = X[:, 0] - X[:, 1] > 0.0
    >>> tuned = FineTuning(ex.LogisticRegression().fit(X, y), X, y, epochs=2, random_state=0)
    >>> tuned.apply(ex.RemoveRows([3, 17])).passes
    2
    """

    name = "fine_tuning"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        epochs: float = 1.0,
        gradients: int | None = None,
        batch_size: int = 32,
        learning_rate: float | None = None,
        random_state: int | None = None,
    ) -> None:
        self._epochs = as_number(epochs, "epochs", above=0.0)
        self._most = None if gradients is None else as_count(gradients, "gradients")
        self._batch = as_count(batch_size, "batch_size")
        self._given = None if learning_rate is None else as_number(learning_rate, "learning_rate", above=0.0)
        self._random = np.random.default_rng(check_random_state(random_state))
        super().__init__(model, X, y, sample_weight)

    def _take(self, model: Any, engine: Engine) -> None:
        self.learning_rate = self._rate(engine) if self._given is None else self._given
        super()._take(model, engine)

    def _choose(self, staged: Staged) -> Solution:
        engine = self._engine
        X, y, s = engine.data.current()
        n, d1 = y.size, engine.problem.row_loss.d1
        s = np.ones(n) if s is None else s
        penalty = engine.problem.penalty(engine.data.n_columns) / n
        noise = engine.problem.noise_on(engine.data.kept) / n
        budget = ceil(self._epochs * n) if self._most is None else self._most
        theta, done = staged.left_of(engine.state.theta).copy(), 0
        while done < budget:
            order = self._random.permutation(n)[: budget - done]
            rows, y_of, s_of = engine.rows(X[order]), y[order], s[order]
            for first in range(0, order.size, self._batch):
                here = slice(first, first + self._batch)
                batch = rows.part(first, first + self._batch)
                gradient = (
                    batch.transposed_times(s_of[here] * d1(y_of[here], batch.times(theta))) / batch.size
                )
                gradient += penalty * theta + noise
                theta -= self.learning_rate * (1.0 - done / budget) * gradient
                done += batch.size
        return Solution(theta, done / n)

    def _rate(self, engine: Engine) -> float:
        """``1 / (2 L)`` of the class."""
        problem, s = engine.problem, engine.data.register.of(engine.data.register.live())[2]
        n, b = s.size, min(self._batch, s.size)
        c, longest = problem.row_loss.max_d2, engine.data.largest_norm**2 + problem.fit_intercept
        whole = (c * engine.gram_norm() + problem.alpha) / n
        one = c * float(s.max()) * longest + problem.alpha / n
        if n == 1:
            return 0.5 / one
        return 0.5 / ((n * (b - 1) * whole + (n - b) * one) / (b * (n - 1)))


class Path(NamedTuple):
    """Gradient descent from 0: where each step began, and the gradient there; (T, p) arrays."""

    thetas: Float
    gradients: Float


class DeltaGrad(Strategy):
    """Gradient descent from 0 is run again on the corrected data, most of its gradients from a cache.

    The model becomes what T steps ``w - tau g`` from 0 lead to, which need not be the minimum. At a request
    the same steps are made anew; where the path leaves the old one by v, the gradient of the old data is

        g_t + B v,   B from pairs (v, change of the gradient) of the last steps that measured it (L-BFGS)

    to which the gradient difference of the touched rows (E3) is added. Every T0-th step, and the first j0,
    measure the gradient instead, by a pass.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`
    steps : int, default=200
        T. The path takes 2 T p numbers of memory.
    period : int, default=5
        T0.
    burn_in : int, default=10
        j0.
    pairs : int, default=2
        How many B is made of.
    learning_rate : float, optional
        tau, on the sum scale; by default ``1 / L``, ``L = alpha + c |S^1/2 X|^2`` as in E4, on the data
        handed over.

    Attributes
    ----------
    name : "deltagrad"
    learning_rate : float

    Raises
    ------
    ValueError
        A number of steps that is not positive.

    Notes
    -----
    Y. Wu, E. Dobriban and S. B. Davidson, *DeltaGrad: Rapid Retraining of Machine Learning Models*, ICML
    2020, algorithm 1 with all rows in each batch. They remove and add rows; a corrected row leaves and comes.
    After a request the new path is the cache, as they do for requests one after the other. B is the compact
    form of R. H. Byrd, J. Nocedal and R. B. Schnabel (1994). With T0 = 1 it is gradient descent on D'.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import DeltaGrad
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> y = X[:, 0] - X[:, 1] > 0.0
    >>> delta = DeltaGrad(ex.LogisticRegression().fit(X, y), X, y, steps=100, period=10, burn_in=5)
    >>> delta.apply(ex.RemoveRows([3, 17])).passes
    15
    """

    name = "deltagrad"
    accepts = (RemoveRows, AddRows, CorrectLabels, CorrectValues)
    because = "Wu et al. (2020) remove and add rows: without a column the whole cached path is another one"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        steps: int = 200,
        period: int = 5,
        burn_in: int = 10,
        pairs: int = 2,
        learning_rate: float | None = None,
    ) -> None:
        self._steps, self._period = as_count(steps, "steps"), as_count(period, "period")
        self._burn_in, self._pairs = as_count(burn_in, "burn_in", least=0), as_count(pairs, "pairs")
        self._given = None if learning_rate is None else as_number(learning_rate, "learning_rate", above=0.0)
        super().__init__(model, X, y, sample_weight)

    def _take(self, model: Any, engine: Engine) -> None:
        tau = self._given
        if tau is None:
            tau = safe_tau(engine.gram_norm(), engine.problem.alpha, engine.problem.row_loss)
        self.learning_rate = tau
        objective, w = engine.objective(), np.zeros_like(engine.state.theta)
        path = Path(np.empty((self._steps, w.size)), np.empty((self._steps, w.size)))
        for t in range(self._steps):
            path.thetas[t], path.gradients[t] = w, objective.evaluate(w).gradient
            w = w - tau * path.gradients[t]
        engine.state = engine.state._replace(theta=w, at=None)
        self._memory = Memory(w, path)
        super()._take(model, engine)

    def _choose(self, staged: Staged) -> Solution:
        engine = self._engine
        old, objective = self._memory.at(engine.state.theta), engine.objective()
        new = Path(np.empty_like(old.thetas), np.empty_like(old.gradients))
        pairs: deque[tuple[Float, Float]] = deque(maxlen=self._pairs)
        w, passes = np.zeros_like(engine.state.theta), 0
        for t in range(self._steps):
            v, touched = w - old.thetas[t], engine.difference_at(w).gradient
            if self._measures(t):
                g, passes = objective.evaluate(w).gradient, passes + 1
                change = g - touched - old.gradients[t]
                if v @ change > 0.0:
                    pairs.append((v, change))
            else:
                g = old.gradients[t] + quasi_hessian_times(v, pairs) + touched
            new.thetas[t], new.gradients[t] = w, g
            w = w - self.learning_rate * g
        self._memory.put(engine.state.theta, w, new)
        return Solution(w, passes)

    def _measures(self, t: int) -> bool:
        """Whether step t takes a pass."""
        return t < self._burn_in or (t - self._burn_in) % self._period == 0


def quasi_hessian_times(v: Float, pairs: deque[tuple[Float, Float]]) -> Float:
    """B v, B of L-BFGS from pairs (s, y), the last of which sets its scale ``y.s / s.s``; 0 without a pair.

    ``B = c I - [c S, Y] M^-1 [c S, Y]^T``, ``M = [[c S^T S, L], [L^T, -D]]``: D the diagonal of ``S^T Y``, L
    what is below it.
    """
    if not pairs:
        return np.zeros_like(v)
    S, Y = (np.column_stack(part) for part in zip(*pairs, strict=True))
    c = float(S[:, -1] @ Y[:, -1] / (S[:, -1] @ S[:, -1]))
    SY = S.T @ Y
    L = np.tril(SY, -1)
    M = np.block([[c * S.T @ S, L], [L.T, -np.diag(np.diag(SY))]])
    wide = np.column_stack([c * S, Y])
    product: Float = c * v - wide @ np.linalg.solve(M, wide.T @ v)
    return product
