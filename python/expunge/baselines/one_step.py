"""One step from the old theta: the field's closed forms for linear models, by their papers' formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .._arrays import Blocks, Float, Index
from .._numbers import as_number
from ..engine.original import original_hessian
from ..engine.products import Products
from ..engine.state import How, Staged
from ..errors import NotPositiveDefiniteError
from ..noise import check_random_state
from ..requests import AddRows, CorrectLabels, CorrectValues, RemoveRows, Request
from .base import Removal, Solution, Strategy, passes_of
from .rows import Design

Fisher = Literal["model", "empirical"]


class GuoOneStep(Removal):
    """Certified removal's Newton step: ``theta - H^-1 g_Z``, H of the remaining rows.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "guo"

    Notes
    -----
    C. Guo, T. Goldstein, A. Hannun and L. van der Maaten, *Certified Data Removal from Machine Learning
    Models*, ICML 2020: equation 3, and for several rows at once its section on batches. g_Z is the gradient
    difference of the removed rows alone (E3): a residual left by the removal before stays, where E5 steps on
    the full gradient. Their certificate, which bounds that residual, is :class:`expunge.Unlearner`'s, of a
    model with noise in its objective. For the squared loss the step is retraining. It costs one pass, for H.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import GuoOneStep
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> guo = GuoOneStep(ex.Ridge().fit(X, y), X, y)
    >>> guo.apply(ex.RemoveRows([0])).passes, guo.distance() < 1e-6
    (1, True)
    """

    name = "guo"
    because = "Guo et al. (2020) remove rows"

    def _choose(self, staged: Staged) -> Solution:
        engine, theta = self._engine, self._engine.state.theta
        H = engine.hessian(theta)
        theta = theta - H.solve(engine.difference_at(theta).gradient)
        return Solution(theta, passes_of(H))


class FisherForgetting(Removal):
    """Forgetting by the Fisher matrix: ``theta - F^-1 g + sigma F^-1/4 b``, b standard normal.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`
    sigma : float, default=0.0
        Of the noise.
    fisher : {"model", "empirical"}
        Whose expectation F takes: the model's, ``sum s d2 x x^T``, which for these losses is the Hessian, or
        that of the rows' labels, ``sum s d1^2 x x^T``; with Lambda, over the remaining rows.
    random_state : int, optional
        Of the noise; by default it comes from the operating system.

    Attributes
    ----------
    name : "fisher"

    Raises
    ------
    ValueError
        At a request: sigma above 0 for a model whose Hessian is not factored whole.

    Notes
    -----
    A. Mahadevan and M. Mathioudakis, *Certifiable Machine Unlearning for Linear Models*, 2021, after
    A. Golatkar, A. Achille and S. Soatto, *Eternal Sunshine of the Spotless Net*, CVPR 2020. g is the full
    gradient of the remaining rows. All rows of a request leave at once; their mini-batches are several
    requests. Without noise, and with the model's F, it is the second-order update (E5). Two passes.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import FisherForgetting
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> fisher = FisherForgetting(ex.Ridge().fit(X, y), X, y)
    >>> fisher.apply(ex.RemoveRows([0])).method, fisher.distance() < 1e-6
    ('fisher', True)
    """

    name = "fisher"
    because = "Mahadevan and Mathioudakis (2021) remove rows"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sigma: float = 0.0,
        fisher: Fisher = "model",
        random_state: int | None = None,
    ) -> None:
        if fisher not in get_args(Fisher):
            raise ValueError(f"unknown fisher={fisher!r}: choose one of {', '.join(get_args(Fisher))}")
        self._sigma, self._fisher = as_number(sigma, "sigma"), fisher
        self._random = np.random.default_rng(check_random_state(random_state))
        super().__init__(model, X, y, sample_weight)

    def _choose(self, staged: Staged) -> Solution:
        engine, start = self._engine, self._engine.start(staged)
        theta = start.theta
        F = engine.hessian(theta) if self._fisher == "model" else self._empirical(theta)
        new = theta - F.solve(start.at.gradient)
        if self._sigma > 0.0:
            if isinstance(F, Products):
                raise ValueError(
                    "the noise is F^(-1/4) b, which takes the whole of F: use sigma=0, or a model of "
                    "solver='cholesky'"
                )
            new += self._sigma * _fourth_root(F.hessian) @ self._random.standard_normal(theta.size)
        return Solution(new, start.passes + passes_of(F) + int(self._fisher == "empirical"))

    def _empirical(self, theta: Float) -> _core.Anchor | Products:
        """``sum s d1^2 x x^T + Lambda``: the Hessian of least squares with these weights."""
        engine, data = self._engine, self._engine.data
        loss = engine.problem.row_loss
        blocks: Blocks = []
        for X, y, s in data.blocks():
            assert y is not None
            assert s is not None
            weights = s * loss.d1(y, engine.design(X).times(theta)) ** 2
            blocks.append((X, y, np.where(s > 0.0, weights, 0.0)))
        squared = engine.problem.objective(
            blocks, data.kept, stored=data.stored_columns(data.kept), loss="squared", shift=data.stored_shift
        )
        return engine.hessian(theta, squared)


def _fourth_root(F: Float) -> Float:
    """F^-1/4 of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(F)
    if not values[0] > 0.0:
        raise NotPositiveDefiniteError(f"an eigenvalue of the Fisher matrix is {values[0]:.3g}: raise alpha")
    root: Float = (vectors * values**-0.25) @ vectors.T
    return root


class _ByOriginal(Strategy):
    """A step with H of the data before the request: known at the first one, of the next one not yet."""

    how = How("second_order", hessian="original")

    def _stepped(self, staged: Staged, step: Callable[[_core.Anchor | Products], Float]) -> Solution:
        """The old theta and a step, which it counts the passes of."""
        engine = self._engine
        H, known = original_hessian(engine, staged), staged.original is engine.state.anchor
        theta = engine.state.theta + step(H)
        return Solution(theta, 0 if known else passes_of(H))


class InfinitesimalJackknife(_ByOriginal):
    """Influence functions: ``theta - H^-1 g_Z``, H of the data before the request.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "jackknife"

    Notes
    -----
    P. W. Koh and P. Liang, *Understanding Black-box Predictions via Influence Functions*, ICML 2017, and
    R. Giordano et al., *A Swiss Army Infinitesimal Jackknife*, AISTATS 2019: the first order in the rows'
    weights, which a correction takes from the row as it was to the row as it is. g_Z is E3. It ignores that
    rows carry curvature themselves, and falls short of a removal by their leverage (E7). H of the first
    request is known before it comes, and costs nothing; that of the next one costs a pass. For revoked
    columns see ``SecondOrder(..., hessian="original")``, the paper's extension of it (E5).

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import InfinitesimalJackknife
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> jackknife = InfinitesimalJackknife(ex.Ridge().fit(X, y), X, y)
    >>> jackknife.apply(ex.CorrectLabels([0], 0.5)).passes, jackknife.distance() < 1e-6  # as E6 says
    (0, True)
    """

    name = "jackknife"
    accepts = (RemoveRows, AddRows, CorrectLabels, CorrectValues)
    because = "influence functions weigh rows, and keep every column"

    def _choose(self, staged: Staged) -> Solution:
        g = self._engine.difference_at(self._engine.state.theta).gradient
        return self._stepped(staged, lambda H: -H.solve(g))


class _RowByRow(_ByOriginal, Removal):
    """A removal whose formula takes the removed rows one by one."""

    def _look(self, requests: Sequence[Request]) -> None:
        engine, data = self._engine, self._engine.data
        asked = (request.by_number(data, engine.problem.encode) for request in requests)
        numbers = [np.asarray(found[1], dtype=np.int64) for found in asked if found is not None]
        rows: Index = np.concatenate([np.empty(0, dtype=np.int64), *numbers])
        rows = rows[data.register.of(rows)[0] >= 0]  # those that left already the edit refuses
        X, y, s = data.get(rows)
        self._rows = engine.design(X), y, s

    def _solved(self, H: _core.Anchor | Products) -> tuple[Design, Float, Float, list[Float]]:
        """The removed rows U, ``s d1`` and ``s d2`` (m,) of each, and ``H^-1 u`` of each."""
        (U, y, s), loss, theta = self._rows, self._engine.problem.row_loss, self._engine.state.theta
        del self._rows  # nothing of what has left is kept
        eta = U.times(theta)
        return U, s * loss.d1(y, eta), s * loss.d2(y, eta), [H.solve(U.row(i)) for i in range(U.size)]


class RescaledInfluence(_RowByRow):
    """Rescaled influence functions: each row's own Newton step, ``H^-1 s d1 x / (1 - h)``, added up.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "rescaled_influence"

    Notes
    -----
    I. Rubinstein and S. B. Hopkins, *Rescaled Influence Functions: Accurate Data Attribution in High
    Dimension*, NeurIPS 2025. H is of the data before the request and h the leverage of the row (E7): one
    removed row of least squares is exact, of several what they share is counted twice. One solve for each
    row; H costs as in :class:`InfinitesimalJackknife`.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import RescaledInfluence
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> rescaled = RescaledInfluence(ex.Ridge().fit(X, y), X, y)
    >>> rescaled.apply(ex.RemoveRows([0])).passes, rescaled.distance() < 1e-6
    (0, True)
    """

    name = "rescaled_influence"
    because = "Rubinstein and Hopkins (2025) remove rows"

    def _choose(self, staged: Staged) -> Solution:
        return self._stepped(staged, self._step)

    def _step(self, H: _core.Anchor | Products) -> Float:
        U, d1, d2, V = self._solved(H)
        step = np.zeros_like(self._engine.state.theta)
        for i, v in enumerate(V):
            h = d2[i] * float(U.row(i) @ v)
            step += v * (d1[i] / (1.0 - h))
        return step


class ProjectiveResidual(_RowByRow):
    """Projective residual update: what retraining does to the removed rows, within their span.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "projective_residual"

    Notes
    -----
    Z. Izzo, M. A. Smart, K. Chaudhuri and J. Zou, *Approximate Data Deletion from Machine Learning Models*,
    AISTATS 2021. With U the removed rows, V = diag(s d2) and ``A = U H^-1 U^T``, H of the data before, the
    predictions of the model without them differ by ``t = A (I - V A)^-1 s d1`` (for the logistic loss, of the
    least squares that stand for it at theta). The step is the shortest one that has these predictions,
    ``U^T (U U^T)^+ t``: for the squared loss the projection of retraining onto the span of U. One solve for
    each row; H costs as in :class:`InfinitesimalJackknife`.

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import ProjectiveResidual
    >>> X, y = [[0.0, 1.0], [1.0, 0.0], [3.0, 1.0], [4.0, 2.0]], [0.0, 1.0, 2.0, 2.0]
    >>> izzo = ProjectiveResidual(ex.Ridge(fit_intercept=False).fit(X, y), X, y)
    >>> retrained = ex.Ridge(fit_intercept=False).fit(X[1:], y[1:])
    >>> izzo.apply(ex.RemoveRows([0])).passes
    0
    >>> abs(izzo.model.predict(X[:1]) - retrained.predict(X[:1])).max() < 1e-8
    np.True_
    """

    name = "projective_residual"
    because = "Izzo et al. (2021) remove rows"

    def _choose(self, staged: Staged) -> Solution:
        return self._stepped(staged, self._step)

    def _step(self, H: _core.Anchor | Products) -> Float:
        U, d1, d2, V = self._solved(H)
        m = U.size
        A = np.array([U.times(v) for v in V]).reshape(m, m).T
        G = np.array([U.times(U.row(i)) for i in range(m)]).reshape(m, m)
        t = A @ np.linalg.solve(np.eye(m) - d2[:, None] * A, d1)
        return U.transposed_times(np.linalg.lstsq(G, t)[0])
